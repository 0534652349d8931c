"""Every study and suite as a target: dry runs, counts of trainings, lint, bad command lines.
Nothing runs here."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import forked_snakemake
import pytest
import yaml

from bench.study.plan import load_study
from workflow import ROOT, SMOKE, clean_environment, copy_project, planned, run, snakemake

STUDIES = sorted((ROOT / "workflows" / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_dry_run_of_every_study(path, tmp_path):
    """Catches a study that cannot even be planned."""
    code, text = snakemake(ROOT, f"--configfile={path}", "--directory", tmp_path, "-n")
    assert code == 0, text
    measuring = {"train_job", "latency_job", "tokenizers_job"}
    assert measuring & set(planned(text)), "nothing is measured"


def test_every_suite_is_a_target(tmp_path):
    """Catches a suite that cannot be asked for alone, or that trains more than it needs."""
    plan = load_study(ROOT / "workflows" / "config" / "digits.yaml")
    expected = {
        "main": 12,
        "ablation_history": 12,
        "ablation_schedule": 12,
        "ablation_components": 6,
        "convergence": 6,
        "latency": 0,
    }
    stages = {suite: [run_id.split("/")[0] for run_id in plan.jobs_of(suite)] for suite in expected}
    assert {suite: jobs.count("train") for suite, jobs in stages.items()} == expected
    for suite in expected:
        code, text = snakemake(ROOT, "--directory", tmp_path, "-n", suite)
        assert code == 0, text
        jobs = {
            rule.removesuffix("_job"): count
            for rule, count in planned(text).items()
            if rule.endswith("_job")
        }
        assert jobs == Counter(stages[suite])


def test_official_weights_are_imported_once_each_and_not_trained(tmp_path):
    """Catches a suite of public weights that trains a VAR,
    or that cannot be planned before its sums are filled in."""
    study = ROOT / "workflows" / "config" / "imagenet256.yaml"
    code, text = snakemake(ROOT, f"--configfile={study}", "--directory", tmp_path, "-n", "official")
    assert code == 0, text
    counts = planned(text)
    assert (counts["import_model_job"], counts["distill_job"], counts["sample_job"]) == (
        4,
        1,
        5,
    ) and "train_job" not in counts


@pytest.mark.parametrize(
    "words, expected",
    [
        (("--config", "devise=cpu"), "devise"),
        (("--configfile=none.yaml",), "none.yaml"),
        (("--config", "also=clasify"), "also=clasify: unknown suite 'clasify'; did you"),
        (("--config", "processes=0"), "processes=0: not legal (there are: whole numbers from 1)"),
        (("--config", "processes=two"), "processes=two: not legal"),
        (("--config", "processes=2.0"), "processes=2.0: not legal"),
        (
            ("--config", "processes=7"),
            "tokenizer.training.batch_size 128: cannot be shared among 7 processes",
        ),
        (("--config", "processes=128"), "batch_size 64: cannot be shared among 128 processes"),
    ],
)
def test_bad_command_lines(words, expected, tmp_path):
    """Catches a misspelt option that is silently ignored."""
    words = "-n", "--directory", tmp_path, *words
    code, text = forked_snakemake.snakemake(words, ROOT, clean_environment())
    assert code != 0 and expected in text


@pytest.mark.parametrize(
    "words, expected",
    [(["mian"], "did you mean 'main'"), (["all", "latency256px"], "did you mean 'latency_256px'")],
)
def test_a_target_that_is_none_is_named_with_those_that_are(words, expected, tmp_path):
    """Catches a misspelt suite that ends in snakemake's words and in advice to run the same
    again."""
    words = *words, "-n", "--directory", tmp_path
    code, text = forked_snakemake.snakemake(words, ROOT, clean_environment())
    last = text.strip().splitlines()[-1]
    assert code != 0 and last.startswith("error: ") and "digits.yaml" in last and expected in last


def test_a_word_is_checked_as_run_hands_it_on(tmp_path):
    """Catches checks that see other words than those that `./run` gives to snakemake."""
    for words, expected in (
        (["mian"], "did you mean 'main'"),
        (["smoke.yaml"], "a study's file goes after --configfile"),
    ):
        project = copy_project(tmp_path / words[0])
        code, _, said = run(project, "snakemake", *words, "--configfile", "smoke.yaml")
        last = said.strip().splitlines()[-1]
        assert code and last.startswith("error: ") and expected in last, said


def test_a_suite_is_not_drawn_from_what_is_published(tmp_path):
    """Catches a suite that is trained although published results were asked for."""
    name = "latency_d16"
    kept = Path("results") / name / "published"
    shutil.copytree(ROOT / kept, tmp_path / kept)
    study = ROOT / "workflows" / "config" / f"{name}.yaml"
    words = f"--configfile={study}", "--directory", tmp_path, "-n", "--config", "results=published"
    suite = next(iter(load_study(study).study.suites))
    for target, expected in ((suite, f"which {suite} is no target for"), ("figures", "")):
        code, text = forked_snakemake.snakemake([target, *words], ROOT, clean_environment())
        assert bool(code) == bool(expected) and expected in text, text


def test_a_study_without_core_suites_is_not_done_at_once(tmp_path):
    """Catches a run that ends well after no job; a suite of it can be asked for."""
    study = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    study["suites"] = {"snr": {**study["suites"]["snr"], "core": False}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    words = f"--configfile={path}", f"--directory={tmp_path}", "-n"
    code, text = snakemake(ROOT, *words)
    assert code and "suites: none is core (snr); add the word full" in text
    code, text = snakemake(ROOT, *words, "--", "snr")
    assert code == 0, text


def test_two_studies_of_one_name_are_told(tmp_path):
    """Catches a copied study that replaces the tables of its original because nobody changed its
    name; a moved one is the same."""
    first, second, moved = (
        tmp_path / name for name in ("first.yaml", "sécond one.yaml", "moved.yaml")
    )
    shutil.copy(ROOT / "workflows" / "config" / "latency_d16.yaml", first)
    second.write_text(first.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    said = [
        snakemake(ROOT, "--directory", tmp_path, f"--configfile={path}", "-n")[1]
        for path in (first, first, second)
    ]
    assert ["has this name too" in text for text in said] == [False, False, True]
    assert f"{second}: study: 'latency_d16': {first} has" in said[2]
    second.rename(moved)
    assert (
        "has this name too"
        not in snakemake(ROOT, "--directory", tmp_path, f"--configfile={moved}", "-n")[1]
    )


def test_processes_share_trainings_and_samples_alone(tmp_path):
    """Catches a number of processes that renames a job, that reaches a verb of one process, or that
    takes one GPU for all of them."""
    words = (
        "-n",
        "-p",
        "--quiet",
        "host",
        "--resources",
        "gpu=8",
        "--config",
        "processes=2",
        "device=cuda",
    )
    place = f"--configfile={SMOKE}", "--directory", tmp_path
    code, text = snakemake(ROOT, *place, *words, "--", "main", "latency")
    assert code == 0, text
    code, alone = snakemake(ROOT, *place, "-n", "-p", "--quiet", "host", "--", "main", "latency")
    jobs = [sorted(re.findall(r"-m bench \w+ (\S+)", found)) for found in (text, alone)]
    assert code == 0 and jobs[0] == jobs[1] and len(jobs[0]) > 20
    for block in re.findall(r"^rule \w+_job:.*?^Shell command: .*?$", text, re.M | re.S):
        verb, gpus, given = (
            re.search(p, block)[1]
            for p in (r"-m bench (\w+)", r"gpu=(\d)", r"--nproc-per-node (\d)")
        )
        shared = verb in ("train_tokenizer", "train", "sample")
        wanted = {"prepare": ("0", "1")}.get(verb, ("2", "2") if shared else ("1", "1"))
        assert (gpus, given) == wanted, block


def asked_of_a_cluster(tmp_path, *words):
    """(GPUs, device, threads) that the jobs of each verb would ask a cluster for,
    planned on a machine without a GPU."""
    profile = (
        "--workflow-profile",
        ROOT / "profiles" / "slurm",
        "--cores",
        "8",
        "--config",
        *(words or ("device=auto",)),
    )
    code, text = snakemake(
        ROOT,
        f"--configfile={SMOKE}",
        "--directory",
        tmp_path,
        "-n",
        "-p",
        "--quiet",
        "host",
        *profile,
        "--",
        "main",
        "latency",
    )
    assert code == 0, text
    found = {}
    for block in re.findall(r"^rule \w+_job:.*?^Shell command: .*?$", text, re.M | re.S):
        verb, gpus, device, threads = (
            re.search(p, block)[1]
            for p in (r"-m bench (\w+)", r"gpu=(\d)", r"--device (\w+)", r"\(\((\d+) /")
        )
        found.setdefault(verb, set()).add((gpus, device, threads))
    return found


def test_a_cluster_is_asked_for_gpus_whatever_the_submitting_machine_has(tmp_path):
    """Catches GPU jobs that are sent without a GPU from a login node that has none,
    and jobs of the CPU told to use one."""
    asked = asked_of_a_cluster(tmp_path)
    assert asked.pop("prepare") == {("0", "cpu", "1")}
    assert asked.pop("latency") == {("1", "auto", "8")}, (
        "times are taken with the threads that the profile gives to a job"
    )
    assert len(asked) > 5 and set().union(*asked.values()) == {("1", "auto", "1")}
    asked = asked_of_a_cluster(tmp_path, "device=cuda", "processes=2")
    assert asked.pop("prepare") == {("0", "cpu", "1")}
    assert asked["train"] == asked["sample"] == {("2", "cuda", "2")} and asked["evaluate"] == {
        ("1", "cuda", "1")
    }


def test_a_cluster_without_gpus_is_asked_for_none(tmp_path):
    """Catches jobs that wait for ever on a cluster that has no GPU,
    although the CPU was asked for."""
    asked = asked_of_a_cluster(tmp_path, "device=cpu")
    assert {(gpus, device) for jobs in asked.values() for gpus, device, _ in jobs} == {("0", "cpu")}


def test_the_command_of_the_readme_submits_jobs(tmp_path):
    """Catches a profile that only runs with more words than the README writes: threads that need
    --cores, which a cluster lacks."""
    for name in ("sbatch", "squeue", "scontrol", "sinfo", "scancel"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/called.txt"\necho refused >&2\nexit 1\n'
        )
        program.chmod(0o755)
    project = copy_project(tmp_path / "project")
    words = [
        "snakemake",
        "--workflow-profile",
        "profiles/slurm",
        "--configfile",
        "workflows/config/fashion.yaml",
    ]
    environment = {**clean_environment(), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    called, sent = tmp_path / "called.txt", []
    pipe = {"stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        [sys.executable, "run", *words],
        cwd=project,
        env=environment,
        start_new_session=True,
        **pipe,
    )
    try:
        for _ in range(600):
            sent = (
                [line for line in called.read_text().splitlines() if line.startswith("sbatch")]
                if called.exists()
                else []
            )
            if len(sent) > 1 or process.poll() is not None:
                break
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    _, said = process.communicate()
    assert len(sent) > 1, said
    assert {"--gpus=1" in line for line in sent if "latency_job" in line} == {True}, sent
    assert not any("--gpus" in line for line in sent if "prepare_job" in line), sent


def test_every_path_in_a_shell_command_is_quoted():
    """Catches a word of a path that the shell reads: all but numbers and words of our own are
    formatted with :q."""
    for path in (ROOT / "workflows").glob("*.smk"):
        for command in re.findall(r"shell:\n((?:\s+\".*\"\n?)+)", path.read_text(encoding="utf-8")):
            for field in re.findall(r"(?<!\{)\{([\w.]+)(:q)?\}", command):
                own = field[0] in (
                    "threads",
                    "resources.processes",
                    "resources.device",
                    "params.what",
                )
                assert own or field[1], f"{path.name}: {{{field[0]}}} is not quoted"


def test_lint(tmp_path):
    """Catches a rule without a log or an environment: Snakemake's own lint must find nothing."""
    code, text = snakemake(ROOT, "--directory", tmp_path, "--lint")
    assert code == 0, text
