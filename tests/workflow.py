"""What the tests of the workflow share: copies of the project, its programs as processes, and what they have made."""

import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "tests" / "studies" / "smoke.yaml"
# what is measured on the machine differs from run to run
TIMED_UNITS = {"s", "s/batch", "bytes", "bytes/s", "flop/s"}


def clean_environment():
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def snakemake(project, *words, timeout=300):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "device=cpu", *map(str, words)]
    done = subprocess.run(command, cwd=project, env=clean_environment(), capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout + done.stderr


def planned(text):
    """Rules and how often each would run, from a dry run's table."""
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", text, re.M) if name != "total"}


def copy_project(root):
    """A copy of the code that may be edited, with the smoke study beside it and a .venv that is this Python."""
    for name in ("srdd", "bench", "workflows", "profiles"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "requirements.txt", "run"):
        shutil.copy(ROOT / name, root / name)
    shutil.copy(SMOKE, root / "smoke.yaml")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    wanted = hashlib.sha256((root / "requirements.txt").read_bytes() + sys.version.encode()).hexdigest()
    (root / ".venv" / "ready").write_text(wanted)
    return root


def run(project, *words, folder=None, timeout=600, **variables):
    """`./run` of a copy: exit status, what it printed, and what it said on the side."""
    command = [sys.executable, str(project / "run"), *map(str, words)]
    environment = {**clean_environment(), **variables}
    done = subprocess.run(command, cwd=folder or project, env=environment, capture_output=True, timeout=timeout)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def numbers(project):
    """Every number of every finished job, without times and memory: {(job, identity of the row): value}."""
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
