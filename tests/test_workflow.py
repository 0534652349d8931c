"""The workflow as a whole: dry runs, lint, the smoke study end to end, and what an edit reruns."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STUDIES = sorted((ROOT / "workflows" / "config").glob("*.yaml"))


def snakemake(project, *words, timeout=300):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "device=cpu", *map(str, words)]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout + done.stderr


def planned(text):
    """Rules and how often each would run, from a dry run's table."""
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", text, re.M) if name != "total"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the code that may be edited, with the smoke study run to its end."""
    root = tmp_path_factory.mktemp("project")
    for name in ("srdd", "bench", "workflows", "profiles"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "requirements.txt"):
        shutil.copy(ROOT / name, root / name)
    shutil.copy(ROOT / "tests" / "studies" / "smoke.yaml", root / "smoke.yaml")
    code, text = snakemake(root, "--configfile=smoke.yaml", "all", "report")
    assert code == 0, text
    return root


def again(project, *words):
    code, text = snakemake(project, "--configfile=smoke.yaml", "-n", "all", *words)
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
        "guidance_guidance",
        "equivalence_equivalence",
        "snr_snr",
    ):
        assert (out / "figures" / f"{name}.png").stat().st_size > 5_000
        assert (out / "figures" / f"{name}.svg").read_text().lstrip().startswith("<?xml")
    for name in ("main_scores", "main_tokenizer", "main_claims", "guidance_guidance", "equivalence_equivalence", "latency_latency"):
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
    } <= names
    assert not any(name in ("fid", "is", "kid") for name in names), "a score must carry its extractor"
    csv.field_size_limit(2**31 - 1)
    runs = list(csv.DictReader(open(out / "runs.csv")))
    assert {row["status"] for row in runs} == {"ok"}
    assert all(row["config_json"] and row["source_hash"] for row in runs)
    report = (out / "report.html").read_text()
    assert "main_fid" in report and len(report) > 100_000


def test_nothing_changed_nothing_runs(project):
    """Catches an output that looks stale at once."""
    assert again(project) == {}


def test_a_comment_retrains_nothing_and_code_reruns_what_depends_on_it(project):
    """Catches results that go stale in silence, and trainings thrown away for a polished sentence."""
    path = project / "srdd" / "transformer.py"
    text = path.read_text()
    path.write_text("# another comment\n" + text.replace('"""AdaLN transformer block', '"""The AdaLN transformer block'))
    assert again(project) == {}
    path.write_text(text.replace("eps=1e-6", "eps=2e-6"))
    rerun = again(project)
    path.write_text(text)
    assert {"train_job", "sample_job", "latency_job"} <= set(rerun)
    assert not {"prepare_job", "features_job", "tokenizer_job", "encode_job"} & set(rerun)
    path = project / "bench" / "metrics.py"
    text = path.read_text()
    path.write_text(text.replace("MIN_IMAGES = 100", "MIN_IMAGES = 99"))
    rerun = again(project)
    path.write_text(text)
    assert {"evaluate_job", "baselines_job"} <= set(rerun) and not {"train_job", "sample_job", "tokenizer_job"} & set(rerun)
    assert again(project) == {}


def test_a_new_variant_leaves_the_baselines_alone(project):
    """Catches a study in which adding one line retrains what is there."""
    path = project / "smoke.yaml"
    text = path.read_text()
    line = "      SDD: {base: var, delta: {model.history: 0}}\n"
    path.write_text(text.replace(line, line + "      mine: {base: var, delta: {model.history: 1}}\n", 1))
    rerun = again(project)
    path.write_text(text)
    assert rerun["train_job"] == rerun["sample_job"] == rerun["evaluate_job"] == 2
    assert "tokenizer_job" not in rerun and "latency_job" not in rerun


def test_figures_and_tables_from_published_alone(project, tmp_path):
    """Catches a figure that needs more than the committed files: no data, no weights, no training."""
    root = tmp_path / "elsewhere"
    published = root / "results" / "smoke" / "published"
    published.mkdir(parents=True)
    for name in ("srdd", "bench", "workflows", "profiles"):
        shutil.copytree(project / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "smoke.yaml"):
        shutil.copy(project / name, root / name)
    for name in ("metrics.csv", "runs.csv", "images.npz"):
        shutil.copy(project / "results" / "smoke" / name, published / name)
    code, text = snakemake(root, "--configfile=smoke.yaml", "figures", "tables")
    assert code == 0, text
    made = root / "results" / "smoke" / "from_published"
    for path in sorted((project / "results" / "smoke" / "tables").glob("*.md")):
        assert (made / "tables" / path.name).read_text() == path.read_text()
    for path in sorted((project / "results" / "smoke" / "figures").glob("*.svg")):
        assert (made / "figures" / path.name).read_bytes() == path.read_bytes()
    assert not (root / "results" / "smoke" / "train").exists()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_dry_run_of_every_study(path, tmp_path):
    """Catches a study that cannot even be planned."""
    code, text = snakemake(ROOT, f"--configfile={path}", "--directory", tmp_path, "-n")
    assert code == 0, text
    assert planned(text).get("train_job", 0) > 0


def test_every_suite_is_a_target(tmp_path):
    """Catches a suite that cannot be asked for alone, or that trains more than it needs."""
    counts = {}
    expected = {"main": 9, "ablation_history": 12, "ablation_schedule": 12, "ablation_components": 6, "convergence": 6, "latency": 0}
    for suite in expected:
        code, text = snakemake(ROOT, "--directory", tmp_path, "-n", suite)
        assert code == 0, text
        counts[suite] = planned(text).get("train_job", 0)
    assert counts == expected


@pytest.mark.parametrize(
    "words, expected",
    [
        (("--config", "devise=cpu"), "devise"),
        (("--configfile=none.yaml",), "none.yaml"),
    ],
)
def test_bad_command_lines(words, expected, tmp_path):
    """Catches a misspelt option that is silently ignored."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "snakemake", "-n", "--directory", str(tmp_path), *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and expected in done.stdout + done.stderr


def test_lint(tmp_path):
    """Catches a rule without a log or an environment: Snakemake's own lint must find nothing."""
    code, text = snakemake(ROOT, "--directory", tmp_path, "--lint")
    assert code == 0, text
