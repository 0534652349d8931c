"""What the tests of the workflow share: snakemake as a process, and the table of a dry run."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def snakemake(project, *words, timeout=300):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "device=cpu", *map(str, words)]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout + done.stderr


def planned(text):
    """Rules and how often each would run, from a dry run's table."""
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", text, re.M) if name != "total"}
