"""What a study costs around its work: to plan it, to find nothing to do, to begin a job. A program.

    python -m bench.speed.benchmark_start [--rounds 5] [--out results/benchmarks]

Each is a process of its own on one thread, all in turn, in seconds of the CPU: what else a machine
does hardly counts. The study with nothing to do is run to its end first, a few minutes. Writes
start_cpu.csv.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ..runtime.provenance import ROOT
from ..runtime.rows import write_rows
from ..runtime.verbs import stages
from ..study.plan import load_study
from .benchmark_growth import (
    cpu_seconds_of,
    in_turn,
    options_of,
    planning,
    shared,
    small_study,
)
from .growing import Spread

KEY = ["what"]
COLUMNS = [
    *KEY, "jobs", "cpu_s", "cpu_low_s", "cpu_high_s", "rounds", "threads", "device", "host_class",
    "torch", "commit", "dirty",
]  # fmt: skip
DIGITS = ROOT / "workflows" / "config" / "digits.yaml"
VERBS = ("prepare", "train", "sample", "evaluate")
VARIANTS = 32  # of the study that is run
LEVELS = {"patch_nums": [1, 2, 4], "channel_multipliers": [1, 2]}


def beginning(stage: str) -> list[str]:
    """The imports of a job, and nothing after."""
    return [sys.executable, "-c", f"import {stages()[stage].module}"]


def write_small(file: Path) -> int:
    """A study of 8-pixel digits that is run within minutes; returns its number of jobs."""
    study = small_study(8)
    study["dataset"] |= {"name": "digits", "channels": 1, "num_classes": 10}
    study["evaluation"]["num_images"] = 100
    study["bases"]["var"]["tokenizer"]["config"] |= LEVELS
    grid = {"sampler.cfg_scale": [1 + i / 100 for i in range(VARIANTS)]}
    study["suites"]["main"]["variants"]["SDD"]["grid"] = grid
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    return len(load_study(file).jobs)


def start_rows(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """One row of each program: CPU seconds with their spread, jobs of the study."""
    small = folder / "small.yaml"
    jobs = write_small(small)
    digits = load_study(DIGITS)
    core, every = len(digits.jobs_of(None)), len(digits.jobs_of("full"))
    programs: dict[str, tuple[int | None, list[str]]] = {
        "planning, core suites of digits": (core, planning("all", DIGITS, "-n")),
        "planning, all suites of digits": (every, planning("full", DIGITS, "-n")),
        "nothing to do": (jobs, planning("all", small)),
        "import of torch alone": (None, [sys.executable, "-c", "import torch"]),
        **{f"start of a job, {verb}": (None, beginning(verb)) for verb in VERBS},
    }
    cpu_seconds_of(programs["nothing to do"][1], folder)  # does all there is to do
    takes = {what: partial(cpu_seconds_of, words, folder) for what, (_, words) in programs.items()}
    costs = in_turn(takes, rounds)
    common = {"rounds": rounds, **shared()}
    return [
        {"what": what, "jobs": count, **Spread.of(costs[what]).cpu, **common}
        for what, (count, _) in programs.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.speed.benchmark_start")
    options = options_of(parser, argv)
    with tempfile.TemporaryDirectory() as place:
        rows = start_rows(options.rounds, Path(place))
    write_rows(options.out / "start_cpu.csv", rows, COLUMNS, KEY)
    for row in rows:
        print(f"{row['what']}: {row['cpu_s']:.3g} s")


if __name__ == "__main__":
    main()
