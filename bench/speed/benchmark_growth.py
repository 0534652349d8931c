"""How costs grow with tokens, width, depth, images and jobs. A program, not a test.

    python -m bench.speed.benchmark_growth [PART ...] [--rounds 5] [--out results/benchmarks]

Parts: tokens, width, depth (a training step of VAR and SDD), images (each verb of a small study of
64-pixel files, with its peak of anonymous memory), memory (the same at 256 pixels, once: half an
hour), jobs (a dry run of snakemake). Sizes are timed round by round in turn, in seconds of the CPU
on one thread: what else a machine does hardly counts.
Writes growth_cpu.csv and growth_cpu.png; a part that is not asked for keeps its rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from PIL import Image

from srdd.config import ModelConfig
from srdd.loss import linear_cross_entropy
from srdd.noise import generator
from srdd.schedule import ScaleSchedule

from ..runtime.provenance import ROOT, git_state, host_class
from ..runtime.rows import write_rows
from ..runtime.verb import device_name
from ..runtime.verbs import stages
from ..study.plan import load_study
from .growing import COLUMNS, KEY, PANELS, read_growth, rows_of, write_growth
from .memory import Used, used_by
from .steps import training_step

BATCH = 2
HISTORIES = {"VAR": None, "SDD": 0}
SCHEDULES: tuple[tuple[int, ...], ...] = (
    (1, 2, 3, 4),
    (1, 2, 3, 4, 5, 6, 8),
    (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
)
WIDTHS, DEPTHS = (64, 128, 256, 512), (1, 2, 4, 8, 16)
JOBS_OF_GRID = (8, 32, 128, 512)
# side of the images of a part, and how many of them each split has
IMAGES = {"images": (64, (300, 600, 1200, 2400)), "memory": (256, (500, 2000))}
Key = TypeVar("Key", int, str)

STUDY = """
study: growth
dataset: {name: image_folder, image_size: 64, channels: 3, num_classes: 2}
features: {kind: trained, name: small, dim: 16, channels: 8, steps: 5, eval_every: 5}
train_seeds: [0]
evaluation: {num_images: 300, batch_size: 50, metrics: [fidelity, density_coverage, pixels]}
bases:
  var:
    tokenizer:
      config: {patch_nums: [1, 2, 4, 8], codebook_size: 16, codebook_dim: 4, channels: 8,
        channel_multipliers: [1, 1, 1, 1], num_res_blocks: 1, attention: false, norm_groups: 4}
      training: {steps: 5, warmup: 2, batch_size: 32, log_every: 5, save_every: 5, restart_every: 4}
    model: {depth: 2, width: 16, heads: 2, init_gamma: 1.0}
    training: {steps: 5, warmup: 2, batch_size: 16, eval_every: 5, snapshot_every: 5, save_every: 5}
    sampler: {cfg_scale: 1.5}
suites:
  main:
    claim: how costs grow
    variants:
      SDD: {base: var, delta: {model.history: 0}}
    tables: [scores]
"""


# the scales of VAR at 256 pixels, with a smaller network
LARGE = {
    "patch_nums": [1, 2, 3, 4, 5, 6, 8, 10, 13, 16],
    "channels": 4,
    "channel_multipliers": [1, 1, 1, 1, 1],
}


def small_study(side: int = 64) -> dict[str, Any]:
    """The study whose verbs and plans are measured. side: 64 or 256."""
    study: dict[str, Any] = yaml.safe_load(STUDY)
    study["dataset"]["image_size"] = side
    if side == 256:
        study["bases"]["var"]["tokenizer"]["config"] |= LARGE
    return study


# ---------------------------------------------------------------- a training step


def step_of(patch_nums: tuple[int, ...], width: int, depth: int, name: str) -> Callable[[], None]:
    """A whole training step of a small model: forward, loss, backward, AdamW."""
    config = ModelConfig(
        patch_nums=patch_nums,
        codebook_size=1024,
        codebook_dim=32,
        history=HISTORIES[name],
        depth=depth,
        width=width,
        heads=width // 32,
    )
    source, L = generator("benchmark"), config.schedule.seq_len
    inputs_BLC = torch.randn(BATCH, L, config.codebook_dim, generator=source)
    labels_B = torch.arange(BATCH)
    tokens_BL = torch.randint(config.codebook_size, (BATCH, L), generator=source)
    return training_step(
        config,
        lambda model: linear_cross_entropy(
            model.hidden(inputs_BLC, labels_B), model.head, tokens_BL
        ),
    )


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of a call by this process."""
    began = time.process_time()
    call()
    return time.process_time() - began


def in_turn(takes: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    """What each takes, by its own count, in each round of all, after one to warm up."""
    costs: dict[Key, list[float]] = {key: [] for key in takes}
    for number in range(rounds + 1):
        for key, take in takes.items():
            cost = take()
            if number:
                costs[key].append(cost)
    return costs


def step_rows(against: str, rounds: int) -> Iterator[dict[str, Any]]:
    """A training step against tokens, width or depth; the other two stay."""
    for name in HISTORIES:
        if against == "tokens":
            sizes = {ScaleSchedule(sides).seq_len: (sides, 64, 2) for sides in SCHEDULES}
        elif against == "width":
            sizes = {width: (SCHEDULES[1], width, 2) for width in WIDTHS}
        else:
            sizes = {depth: (SCHEDULES[1], 64, depth) for depth in DEPTHS}
        steps = {size: partial(cpu_seconds, step_of(*about, name)) for size, about in sizes.items()}
        yield from rows_of(against, name, in_turn(steps, rounds), batch=BATCH)


# ---------------------------------------------------------------- verbs against images


def write_images(folder: Path, count: int, side: int) -> None:
    """A folder of different images of two classes, `count` in each split."""
    source = np.random.default_rng(0)
    for i in range(3 * count):
        path = folder / ("train", "val", "test")[i % 3] / "ab"[i // 3 % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(source.integers(0, 256, (8, 8, 3), np.uint8))
        small.resize((side, side)).save(path)


def environment(folder: Path) -> dict[str, str]:
    """Of programs that share nothing with the user's caches and take one thread."""
    mine = {"OMP_NUM_THREADS": "1", "SRDD_CACHE": str(folder / "cache")}
    path = os.pathsep.join((str(ROOT / "workflows"), str(ROOT)))
    return {**os.environ, **mine, "PYTHONPATH": path}


def cpu_seconds_of(words: Sequence[str], folder: Path) -> float:
    """CPU time of a program in a folder, with its start."""
    return used_by(words, folder, environment(folder)).cpu_s


def used_by_verbs(folder: Path, count: int, side: int) -> dict[str, Used]:
    """What each verb of the small study uses for so many images of each split, in order."""
    folder.mkdir()
    write_images(folder / "images", count, side)
    study = small_study(side)
    study["dataset"]["path"] = str(folder / "images")
    study["evaluation"]["num_images"] = count
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    used = {}
    for run_id, job in load_study(file).jobs.items():
        config = folder / "configs" / f"{run_id}.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"study": "growth", **job.about}), encoding="utf-8")
        verb = stages()[job.stage].name
        inputs = [word for role, run in job.inputs.items() for word in (f"--{role}", run)]
        words = [sys.executable, "-m", "bench", verb, str(config), run_id, *inputs]
        words += ["--device", "cpu", "--threads", "1"]
        used[verb] = used_by(words, folder, environment(folder))
    return used


def image_rows(against: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Every verb against images: CPU time with its start, and the largest peak of the rounds."""
    side, counts = IMAGES[against]
    rounds_used: list[dict[int, dict[str, Used]]] = []
    for _ in range(rounds):
        used_of: dict[int, dict[str, Used]] = {}
        for count in counts:
            # beside the results, where a job's images would lie: a temporary folder may be memory
            with tempfile.TemporaryDirectory(dir=ROOT / "results") as place:
                used_of[count] = used_by_verbs(Path(place) / str(count), count, side)
        rounds_used.append(used_of)
    for verb in rounds_used[0][counts[0]]:
        costs: dict[int, list[float]] = {count: [] for count in counts}
        peaks = dict.fromkeys(counts, 0)
        for count, each in product(counts, rounds_used):
            used = each[count][verb]
            costs[count].append(used.cpu_s)
            peaks[count] = max(peaks[count], used.peak_bytes)
        yield from rows_of(against, verb, costs, peaks)


# ---------------------------------------------------------------- planning against jobs


def planning(target: str, config: Path, *more: str) -> list[str]:
    """A run of snakemake as `./run snakemake` begins it."""
    words = [sys.executable, "-m", "bench.runtime.planner", target, "--cores", "1", *more]
    return [*words, "--snakefile", str(ROOT / "Snakefile"), f"--configfile={config}"]


def write_grid(file: Path, variants: int) -> int:
    """The small study with so many variants of one grid; returns its number of jobs."""
    study = small_study()
    study["dataset"] |= {"name": "digits", "channels": 1, "num_classes": 10}
    grid = {"sampler.cfg_scale": [1 + i / 100 for i in range(variants)]}
    study["suites"]["main"]["variants"]["SDD"]["grid"] = grid
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    return len(load_study(file).jobs)


def job_rows(rounds: int) -> Iterator[dict[str, Any]]:
    """A dry run of snakemake, as `./run snakemake -n` begins it, against the jobs of a study."""
    with tempfile.TemporaryDirectory() as place:
        folder, runs = Path(place), {}
        for variants in JOBS_OF_GRID:
            file = folder / f"{variants}.yaml"
            jobs = write_grid(file, variants)
            runs[jobs] = partial(cpu_seconds_of, planning("all", file, "-n"), folder)
        costs = in_turn(runs, rounds)
    yield from rows_of("jobs", "dry run", costs)


# ---------------------------------------------------------------- the program


def part_rows(part: str, rounds: int) -> Iterator[dict[str, Any]]:
    """The rows of one part."""
    if part in IMAGES:
        return image_rows(part, 1 if part == "memory" else rounds)
    return job_rows(rounds) if part == "jobs" else step_rows(part, rounds)


def shared() -> dict[str, Any]:
    """What every row says of the machine and the code."""
    commit, dirty = git_state()
    return {
        "threads": 1,
        "device": device_name(torch.device("cpu")),
        "host_class": host_class(),
        "torch": torch.__version__,
        "commit": commit,
        "dirty": dirty,
    }


def options_of(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """What both programs of growth and start are asked, and the words of their own."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: must be 1 or more")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.speed.benchmark_growth")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PANELS)}")
    options = options_of(parser, argv)
    if strange := set(options.parts) - set(PANELS):
        parser.error(f"{', '.join(sorted(strange))}: no part (there are: {', '.join(PANELS)})")
    torch.set_num_threads(1)
    path = options.out / "growth_cpu.csv"
    parts = options.parts or list(PANELS)
    known: list[dict[str, Any]] = list(read_growth(path)) if path.is_file() else []
    for part in parts:
        rows = [{**shared(), **row} for row in part_rows(part, options.rounds)]
        known = [row for row in known if row["against"] != part] + rows
        write_rows(path, known, COLUMNS, KEY)
        for row in rows:
            print(f"{part} {row['variant']} {row['size']}: {row['cpu_s']:.4g} s", flush=True)
    write_growth(read_growth(path), path.with_suffix(""))


if __name__ == "__main__":
    main()
