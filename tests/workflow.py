"""What the tests of the workflow share: copies of the project, its programs as processes,
and what they have made."""

import csv
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forked_snakemake

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "tests" / "studies" / "smoke.yaml"
# what is measured on the machine differs from run to run
TIMED_UNITS = {"s", "s/batch", "bytes", "bytes/s", "flop/s"}
# memory and the noise of the times decide these
TIMED_METRICS = {"largest_batch", "rounds"}
# what tells two numbers of one variant and metric apart
COUNTED = ["train_seed", "scale", "step", "seed_first", "seed_last", "num_images", "repeat"]


def clean_environment():
    """Of a stranger's shell; the same for every test, so that one process forks for all."""
    ours = ("PYTHONPATH", "PYTEST_CURRENT_TEST")
    return {key: value for key, value in os.environ.items() if key not in ours}


def snakemake(project, *words, timeout=300):
    """Exit status of snakemake in a folder, and all that it said."""
    words = "--cores", "2", "--config", "device=cpu", *words
    return forked_snakemake.snakemake(words, project, clean_environment(), timeout)


def planned(text):
    """Rules and how often each would run, from a dry run's table."""
    return {
        name: int(count)
        for name, count in re.findall(r"^(\w+)\s+(\d+)$", text, re.M)
        if name != "total"
    }


def copy_project(root):
    """A copy of the code that may be edited, with the smoke study beside it and a .venv that is
    this Python."""
    for name in ("srdd", "bench", "workflows", "profiles"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "requirements.txt", "run"):
        shutil.copy(ROOT / name, root / name)
    shutil.copy(SMOKE, root / "smoke.yaml")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    wanted = hashlib.sha256(
        (root / "requirements.txt").read_bytes() + sys.version.encode()
    ).hexdigest()
    (root / ".venv" / "ready").write_text(wanted)
    return root


def run(project, *words, folder=None, timeout=600, **variables):
    """`./run` of a copy: exit status, what it printed, and what it said on the side."""
    command = [sys.executable, str(project / "run"), *map(str, words)]
    environment = {**clean_environment(), **variables}
    done = subprocess.run(
        command, cwd=folder or project, env=environment, capture_output=True, timeout=timeout
    )
    return (
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )


def sign(folder):
    """The row of a job says of its files what lies there now: whoever changed them is believed."""
    # programs that import this file may lack bench on their path
    from bench.runtime.kept_files import FILES, sums_of

    row = json.loads((folder / "row.json").read_text(encoding="utf-8"))
    text = json.dumps({**row, FILES: sums_of(folder)})
    (folder / "row.json").write_text(text, encoding="utf-8")


def numbers(project):
    """Every number of every finished job, without times and memory: {(job, identity of the row):
    value}."""
    found = {}
    for path in sorted((project / "results" / "smoke").glob("*/*/metrics.csv")):
        if not (path.parent / "row.json").is_file():
            continue
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                value = row.pop("value")
                if row["unit"] not in TIMED_UNITS and row["metric"] != "largest_batch":
                    found[tuple(row.values())] = value
    return found


def owners(results):
    """The variants of a row: {(run_id, model, sampler or None): {(suite, variant), ...}}."""
    variants = {}
    for suite in results.about["suites"]:
        for variant, names in results.variants(suite).items():
            # variants that compute alike are timed once, under a name of their own
            models, samplers = (names["model"], names["timed"]), (None, names["sampler"])
            for identity in itertools.product(results.runs_of[suite], models, samplers):
                variants.setdefault(identity, set()).add((suite, variant))
    return variants


def shared_by_variants(row):
    """Suite and variant of a number that no variant owns: its schedule, or what comes before it."""
    if row["model"] is None:
        return "", "tokenizer" if row["tokenizer"] else "dataset"
    if not re.fullmatch(r"\d+(\.\d+)*", row["model"]):
        where = f"{row['metric']} of {row['run_id']}"
        raise ValueError(f"{where}: no variant has the model {row['model']}")
    return "", row["model"]


def study_numbers(folder):
    """Every number of collected results, without times and memory.

    Returns {(suite, variant, metric, *COUNTED): (value or None, unit)}. No key holds a run's name
    or a hash, so that it outlives a refactoring. Of the tests of golden numbers, only this function
    and the two above know how results are read. Raises ValueError for a key with two values.
    """
    # programs that import this file may lack bench on their path
    from bench.report.results import (
        Results,
    )

    results = Results.load(folder)
    variants, numbers_of_study = owners(results), {}
    rows = results.metrics.astype(object).where(results.metrics.notna(), None)
    for row in rows.to_dict("records"):
        if row["unit"] in TIMED_UNITS or row["metric"] in TIMED_METRICS:
            continue
        counted = [None if row[name] is None else int(row[name]) for name in COUNTED]
        number = row["value"], row["unit"]
        identity = row["run_id"], row["model"], row["sampler"]
        for suite, variant in variants.get(identity) or [shared_by_variants(row)]:
            key = (suite, variant, row["metric"], *counted)
            if numbers_of_study.setdefault(key, number) != number:
                raise ValueError(f"{key}: two values, {numbers_of_study[key]} and {number}")
    return numbers_of_study
