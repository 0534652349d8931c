"""Every study and suite as a target: dry runs, counts of trainings, lint, bad command lines. Nothing runs here."""

import os
import re
import subprocess
import sys

import pytest

from workflow import ROOT, planned, snakemake

STUDIES = sorted((ROOT / "workflows" / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_dry_run_of_every_study(path, tmp_path):
    """Catches a study that cannot even be planned."""
    code, text = snakemake(ROOT, f"--configfile={path}", "--directory", tmp_path, "-n")
    assert code == 0, text
    assert {"train_job", "latency_job"} & set(planned(text)), "nothing is measured"


def test_every_suite_is_a_target(tmp_path):
    """Catches a suite that cannot be asked for alone, or that trains more than it needs."""
    counts = {}
    expected = {
        "main": 9,
        "ablation_history": 12,
        "ablation_schedule": 12,
        "ablation_components": 6,
        "convergence": 6,
        "latency": 0,
    }
    for suite in expected:
        code, text = snakemake(ROOT, "--directory", tmp_path, "-n", suite)
        assert code == 0, text
        counts[suite] = planned(text).get("train_job", 0)
    assert counts == expected


def test_official_weights_are_imported_once_each_and_not_trained(tmp_path):
    """Catches a suite of public weights that trains a VAR, or that cannot be planned before its sums are filled in."""
    study = ROOT / "workflows" / "config" / "imagenet256.yaml"
    code, text = snakemake(ROOT, f"--configfile={study}", "--directory", tmp_path, "-n", "official")
    assert code == 0, text
    counts = planned(text)
    assert (counts["import_model_job"], counts["distill_job"], counts["sample_job"]) == (4, 1, 5) and "train_job" not in counts


@pytest.mark.parametrize(
    "words, expected",
    [
        (("--config", "devise=cpu"), "devise"),
        (("--configfile=none.yaml",), "none.yaml"),
        (("--config", "processes=0"), "processes=0: not legal (there are: whole numbers from 1)"),
        (("--config", "processes=two"), "processes=two: not legal"),
        (("--config", "processes=7"), "batch_size 64: cannot be shared among 7 processes"),
    ],
)
def test_bad_command_lines(words, expected, tmp_path):
    """Catches a misspelt option that is silently ignored."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "snakemake", "-n", "--directory", str(tmp_path), *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and expected in done.stdout + done.stderr


def test_processes_share_trainings_and_samples_alone(tmp_path):
    """Catches a number of processes that renames a job, that reaches a verb of one process, or that takes one GPU for all of them."""
    words = ("-n", "-p", "--quiet", "host", "--resources", "gpu=8", "--config", "processes=2", "device=cuda")
    code, text = snakemake(ROOT, "--directory", tmp_path, *words, "--", "main", "latency")
    assert code == 0, text
    code, alone = snakemake(ROOT, "--directory", tmp_path, "-n", "-p", "--quiet", "host", "--", "main", "latency")
    jobs = [sorted(re.findall(r"-m bench\.\w+ (\S+)", found)) for found in (text, alone)]
    assert code == 0 and jobs[0] == jobs[1] and len(jobs[0]) > 20
    for block in re.findall(r"^rule \w+_job:.*?^Shell command: .*?$", text, re.M | re.S):
        verb, gpus, given = (re.search(p, block)[1] for p in (r"-m bench\.(\w+)", r"gpu=(\d)", r"--nproc-per-node (\d)"))
        wanted = {"prepare": ("0", "1")}.get(verb, ("2", "2") if verb in ("train", "sample") else ("1", "1"))
        assert (gpus, given) == wanted, block


def test_lint(tmp_path):
    """Catches a rule without a log or an environment: Snakemake's own lint must find nothing."""
    code, text = snakemake(ROOT, "--directory", tmp_path, "--lint")
    assert code == 0, text
