"""The workflow as a whole: the smoke study end to end, what an edit reruns,
figures from published results alone."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from golden_smoke import differences, read_golden
from kill_at_random import kill_and_compare

from workflow import clean_environment, copy_project, planned, run, snakemake, study_numbers

# every character that a shell, snakemake or a locale could read as something else
PLACE = "My \"Projects\" & 'co' $HOME [a] Übung 東京 #1 50%25; `id` *"
STUDY = "it's my $study & $(touch pwned) é.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the code that may be edited, in a folder that needs quotes, with the smoke study
    run to its end; what the run printed, and what it said on the side."""
    root = copy_project(tmp_path_factory.mktemp("project") / PLACE)
    shutil.copy(root / "smoke.yaml", root / STUDY)
    words = "reproduce", "--config", STUDY, "--config", "device=cpu"
    code, out, said = run(root, *words, timeout=900, PYTHONIOENCODING="ascii")
    assert code == 0, said
    return root, out, said


@pytest.fixture(scope="module")
def project(finished):
    return finished[0]


def again(project, *words):
    code, text = snakemake(project, f"--configfile={STUDY}", "-n", "all", *words)
    assert code == 0, text
    return planned(text)


def test_smoke_study_makes_everything(project):
    """Catches a verb, figure or table that only works by hand."""
    out = project / "results" / "smoke"
    for name in (
        "main_samples",
        "main_growth",
        "main_fid",
        "main_per_scale",
        "main_code_usage",
        "convergence_convergence",
        "latency_latency",
        "latency_floors",
        "guidance_guidance",
        "equivalence_equivalence",
        "snr_snr",
    ):
        assert (out / "figures" / f"{name}.png").stat().st_size > 5_000
        assert (out / "figures" / f"{name}.svg").read_text().lstrip().startswith("<?xml")
    for name in (
        "main_scores",
        "main_tokenizer",
        "main_claims",
        "guidance_guidance",
        "equivalence_equivalence",
        "latency_latency",
    ):
        assert "VAR" in (out / "tables" / f"{name}.md").read_text() or "tokenizer" in name
    rows = list(csv.DictReader(open(out / "metrics.csv")))
    names = {row["metric"] for row in rows}
    assert {
        "fid_digits16",
        "kid_digits16",
        "is_digits16",
        "precision_digits16",
        "recall_digits16",
        "class_agreement_digits16",
    } <= names
    assert {
        "floor_fid_digits16",
        "reconstruction_fid_digits16",
        "loss_test_scale",
        "code_perplexity",
        "peak_memory_bytes",
        "floor_memory_scale_s",
        "largest_batch",
    } <= names
    assert not any(name in ("fid", "is", "kid") for name in names), (
        "a score must carry its extractor"
    )
    csv.field_size_limit(2**31 - 1)
    runs = list(csv.DictReader(open(out / "runs.csv")))
    assert {row["status"] for row in runs} == {"ok"}
    assert all(row["config_json"] and row["source_hash"] for row in runs)
    assert not list(project.parent.rglob("pwned")), "a shell read a word of a path"
    report = (out / "report.html").read_text()
    assert "main_fid" in report and len(report) > 100_000


def test_a_run_says_one_line_a_job_and_draws_a_figure_first(finished):
    """Catches lines of jobs among those of the run, a first figure that waits for the others, and a
    stream without UTF-8 that stops either."""
    project, out, said = finished
    lines = said.splitlines()
    jobs = [line for line in lines if re.match(r"\[ *\d+/\d+\] ", line)]
    total = int(jobs[0].split("/")[1].split("]")[0])
    assert [int(line[1:].split("/")[0]) for line in jobs] == list(range(1, total + 1)), said
    assert all(" left" in line for line in jobs[:-1]) and len(lines) < total + 5, said
    assert "reconstruction error" not in said + out and "rule " not in said, said
    order = [re.sub(r"^\[.*?\] ", "", line) for line in jobs]
    first = next(i for i, line in enumerate(order) if line.startswith("figures "))
    assert order[first].split(":")[0].startswith("figures results/smoke/suites/latency/figures/")
    assert (project / order[first].split()[1].rstrip(":;")).is_file()
    others = [i for i, line in enumerate(order) if line.startswith(("snr/", "train/"))]
    assert first < min(others), said
    log = next((project / "results" / "smoke" / "tokenizer").glob("*/log.txt"))
    assert "reconstruction error" in log.read_text()


def test_smoke_study_gives_its_golden_numbers(project):
    """Catches a refactoring that loses, adds, renames or changes a number of a core suite.

    To accept a change on purpose, and to compare the other suites:
    `python tests/golden_smoke.py`.
    """
    numbers = study_numbers(project / "results" / "smoke")
    suites = {key[0] for key in numbers}
    assert len(suites) > 5
    # what no variant owns may belong to the other suites
    golden = {
        key: number
        for key, number in read_golden().items()
        if key[0] in suites and (key[0] or key in numbers)
    }
    lines = differences(golden, numbers)
    assert not lines, f"{len(lines)} numbers differ:\n" + "\n".join(lines[:10])


def test_nothing_changed_nothing_runs(project):
    """Catches an output that looks stale at once, or to another number of processes,
    which give the same."""
    assert again(project) == {}
    assert again(project, "--config", "device=cpu", "processes=2") == {}


def test_another_place_python_or_device_reruns_nothing(project):
    """Catches trainings thrown away because the project was moved, because another environment's
    Python runs it, or because somebody names the device that was taken anyway."""
    elsewhere = project.parent / "moved"
    project.rename(elsewhere)
    other = elsewhere / "other environment"
    other.symlink_to(Path(sys.executable).parent.parent)
    python = other / "bin" / Path(sys.executable).name
    try:
        for device in (), ("--config", "device=auto"), ("--config", "device=cpu", "processes=2"):
            words = [
                python,
                "-m",
                "snakemake",
                "-n",
                "--cores",
                "1",
                f"--configfile={STUDY}",
                *device,
                "--",
                "all",
                "report",
            ]
            done = subprocess.run(
                words, cwd=elsewhere, env=clean_environment(), capture_output=True, text=True
            )
            assert done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr, (
                done.stdout + done.stderr
            )
    finally:
        other.unlink()
        elsewhere.rename(project)


def test_a_terminal_that_knows_no_plus_minus_gets_the_tables_still(project):
    """Catches an error after all work: a table with a sign that the locale lacks, a folder whose
    name it cannot write, no home."""
    old = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "HOME": "/nonexistent"}
    code, out, said = run(project, "reproduce", "--config", STUDY, **old)
    assert code == 0 and "Traceback" not in said, said
    assert "VAR | 2 of 2 | " in out and " ? " in out and out.rstrip().endswith("report.html")
    code, out, said = run(project, "snakemake", "--configfile", STUDY, "all", "-n", **old)
    assert code == 0 and "Nothing to be done" in out + said, out + said


def test_leftovers_are_neither_listed_nor_published(project):
    """Catches figures and tables of an older study file, made from older rows,
    that are published beside the new ones."""
    out = project / "results" / "smoke"
    named = {path.name for what in ("figures", "tables") for path in (out / what).iterdir()}
    old = [
        out / "figures" / "main_old.png",
        out / "tables" / "main_old_scores.md",
        out / "tables" / "old_claims.md",
    ]
    for path in old:
        path.write_text("made from older rows")
    published = out / "published"
    try:
        for _ in range(2):  # the second time in the place of the first
            code, text, said = run(project, "publish", "--config", STUDY)
            assert code == 0, said
            assert {
                path.name for what in ("figures", "tables") for path in (published / what).iterdir()
            } == named
            (published / "notes.txt").write_text("somebody's own")
        assert (published / "notes.txt").is_file() and not list(out.glob(".published*"))
        code, text, said = run(project, "reproduce", "--config", STUDY)
        assert code == 0 and "main_fid.png" in text, text + said
        assert "main_old" not in text and "made from older rows" not in text, text
        assert "smoke/published:\n  Verdicts: " in text and "all equal." in text, text
        assert (out / "compared.csv").is_file()
        assert all(path.is_file() for path in old), "what was computed is not deleted"
    finally:
        shutil.rmtree(published, ignore_errors=True)
        for path in old:
            path.unlink()


def test_three_kills_change_no_number(project, tmp_path):
    """Catches half a file that is taken for a whole one, a lock that stays, and a training that
    resumes from another state."""
    kills, _, wrong = kill_and_compare(
        project, tmp_path, ["convergence"], kills=3, seed=20, longest=14
    )
    assert kills == 3 and not wrong, wrong[:5]


def test_a_comment_retrains_nothing_and_code_reruns_what_depends_on_it(project):
    """Catches results that go stale in silence, and trainings thrown away for a polished
    sentence."""
    path = project / "srdd" / "transformer.py"
    text = path.read_text()
    path.write_text(
        "# another comment\n"
        + text.replace('"""AdaLN transformer block', '"""The AdaLN transformer block')
    )
    assert again(project) == {}
    path.write_text(text.replace("eps=1e-6", "eps=2e-6"))
    rerun = again(project)
    path.write_text(text)
    assert {"train_job", "sample_job", "latency_job"} <= set(rerun)
    assert not {"prepare_job", "features_job", "tokenizer_job", "encode_job"} & set(rerun)
    path = project / "bench" / "pipeline" / "metrics.py"
    text = path.read_text()
    path.write_text(text.replace("subset = min(1000,", "subset = min(999,"))
    rerun = again(project)
    record, aside = project / ".snakemake", project / "set aside"
    record.rename(aside)
    _, said = snakemake(project, f"--configfile={STUDY}", "-n", "all")
    shutil.rmtree(record)
    aside.rename(record)
    assert "warning: finished jobs that were made by other code than this: " in said
    path.write_text(text)
    assert {"evaluate_job", "baselines_job"} <= set(rerun) and not {
        "train_job",
        "sample_job",
        "tokenizer_job",
    } & set(rerun)
    assert again(project) == {}


@pytest.mark.parametrize(
    "lost, rules",
    [
        ("evaluate/*/row.json", {"evaluate_job", "collect_study", "figures_study", "tables_study"}),
        ("images.npz", {"collect_study", "figures_study", "tables_study"}),
    ],
)
def test_what_is_deleted_between_is_made_again(project, tmp_path, lost, rules):
    """Catches advice to delete the row of a job that ran out of memory and to give the same
    command, which finds nothing to be done."""
    path = next((project / "results" / "smoke").glob(lost))
    aside = tmp_path / "aside"
    shutil.move(path, aside)
    try:
        assert set(again(project)) - {"all"} == rules
    finally:
        shutil.move(aside, path)


def test_a_job_that_other_code_made_is_said(project):
    """Catches code that was edited while a run went on and put back: what snakemake told the job is
    as it was, what ran is not. And a warning of jobs that are to run again, or of none."""
    row = next((project / "results" / "smoke" / "evaluate").glob("*/row.json"))
    text, times = row.read_text(), (row.stat().st_atime_ns, row.stat().st_mtime_ns)
    made_by = re.search('"source_hash": "([0-9a-f]+)"', text)[1]
    try:
        row.write_text(text.replace(made_by, "0123456789"))
        os.utime(row, ns=times)
        code, said = snakemake(project, f"--configfile={STUDY}", "-n", "all")
    finally:
        row.write_text(text)
        os.utime(row, ns=times)
    assert code == 0 and "Nothing to be done" in said
    assert f"made by other code than this: 1, such as evaluate/{row.parent.name}; " in said
    path = project / "bench" / "pipeline" / "metrics.py"
    text = path.read_text()
    path.write_text(text.replace("subset = min(1000,", "subset = min(999,"))
    _, edited = snakemake(project, f"--configfile={STUDY}", "-n", "all")
    path.write_text(text)
    _, as_it_was = snakemake(project, f"--configfile={STUDY}", "-n", "all")
    assert "evaluate_job" in edited and "other code" not in edited + as_it_was


def test_a_new_variant_leaves_the_baselines_alone(project):
    """Catches a study in which adding one line retrains what is there."""
    path = project / STUDY
    text = path.read_text()
    line = "      SDD: {base: var, delta: {model.history: 0}}\n"
    path.write_text(
        text.replace(line, line + "      mine: {base: var, delta: {model.history: 1}}\n", 1)
    )
    rerun = again(project)
    path.write_text(text)
    assert rerun["train_job"] == rerun["sample_job"] == rerun["evaluate_job"] == 2
    assert "tokenizer_job" not in rerun and "latency_job" not in rerun


def test_figures_and_tables_from_published_alone(project, tmp_path):
    """Catches a figure that needs more than the committed files: no data, no weights,
    no training."""
    root = tmp_path / "elsewhere"
    published = root / "results" / "smoke" / "published"
    published.mkdir(parents=True)
    for name in ("srdd", "bench", "workflows", "profiles"):
        shutil.copytree(project / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "requirements.txt", "run", STUDY):
        shutil.copy(project / name, root / name)
    shutil.copytree(project / ".venv", root / ".venv")
    for name in ("metrics.csv", "runs.csv", "variants.csv", "images.npz"):
        shutil.copy(project / "results" / "smoke" / name, published / name)
    code, text = snakemake(root, f"--configfile={STUDY}", "figures", "tables")
    assert code == 0, text
    made = root / "results" / "smoke" / "from_published"
    for path in sorted((project / "results" / "smoke" / "tables").glob("*.md")):
        assert (made / "tables" / path.name).read_text() == path.read_text()
    for path in sorted((project / "results" / "smoke" / "figures").glob("*.svg")):
        assert (made / "figures" / path.name).read_bytes() == path.read_bytes()
    lost = [made / "figures" / "main_fid.rst", made / "tables" / "main_scores.rst"]
    for caption in lost:
        caption.unlink()
    words = "reproduce", "--config", STUDY, "--config", "results=published"
    code, out, said = run(root, *words)
    assert all(caption.is_file() for caption in lost), "captions that nothing makes again"
    assert code == 0 and "from_published/figures/main_fid.png" in out, said
    assert "SDD scores a lower FID than VAR" in out and "| VAR" in out, "claims and scores"
    assert not (root / "results" / "smoke" / "train").exists()
