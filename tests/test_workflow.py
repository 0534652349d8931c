"""The workflow as a whole: the smoke study end to end, what an edit reruns, figures from published results alone."""

import csv
import shutil

import pytest

from workflow import ROOT, planned, snakemake


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
    assert not any(name in ("fid", "is", "kid") for name in names), "a score must carry its extractor"
    csv.field_size_limit(2**31 - 1)
    runs = list(csv.DictReader(open(out / "runs.csv")))
    assert {row["status"] for row in runs} == {"ok"}
    assert all(row["config_json"] and row["source_hash"] for row in runs)
    report = (out / "report.html").read_text()
    assert "main_fid" in report and len(report) > 100_000


def test_nothing_changed_nothing_runs(project):
    """Catches an output that looks stale at once, or to another number of processes, which give the same."""
    assert again(project) == {}
    assert again(project, "--config", "device=cpu", "processes=2") == {}


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
