"""What all benchmarks share.

Two paths timed in turn, the ratio with its spread, the floor beside both, one CSV a benchmark.

A benchmark is a file `bench/speed/benchmark_<name>.py`, run by `./run test
bench/speed/benchmark_<name>.py --benchmark-enable -s`; nothing in it can fail. Ratios below 1 mean
that ours is faster. Floors are counted with the machine's rates, measured before and after each
benchmark; the faster counts.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from srdd.processor import maker

from ..pipeline.floors import Rates, best_rates, floor_of, measure_rates
from ..runtime.clock import seconds
from ..runtime.provenance import git_state, host_class
from ..runtime.quick_start import keep_memory
from ..runtime.verb import device_name
from .counting import ratios_of
from .steps import DEVICE
from .whole import write_whole

R = TypeVar("R")
C = TypeVar("C")
Rows = list[dict[str, Any]]
FOLDER = Path("results/benchmarks")
# of the start: what a benchmark writes is no change of what it measures
COMMIT, _CHANGED = git_state()
keep_memory()  # as every job does, for both sides
# torch.compile needs a C++ compiler on a CPU
COMPILED = [False, True] if DEVICE.type == "cuda" or shutil.which("g++") else [False]


def kept_rows(name: str, *key: str) -> Callable[[], Iterator[Rows]]:
    """A fixture `rows` of a benchmark file.

    What it holds at the end is written to results/benchmarks/<name>_<device>.csv, sorted by key;
    of a processor of Intel, where another library multiplies, to <name>_cpu_intel.csv. A part of
    what stands there goes to <name>_<device>_part.csv.
    """
    intel = DEVICE.type == "cpu" and maker() == "Intel"

    @pytest.fixture(scope="module")
    def rows() -> Iterator[Rows]:
        kept: Rows = []
        yield kept
        if kept:
            path = FOLDER / f"{name}_{DEVICE.type}{'_intel' if intel else ''}.csv"
            written = write_whole(path, kept, list(kept[0]), list(key))
            print(f"written to {written}")

    return rows


@dataclass(frozen=True)
class Timed:
    """Seconds of (plain, ours) in every round, plain None where there is none; the machine's rates,
    the faster of before and after."""

    pairs: Sequence[tuple[float | None, float]]
    rates: Rates


def interleaved(
    benchmark: BenchmarkFixture,
    ours: Callable[[], R],
    plain: Callable[[], R] | None,
    rounds: int,
    clock: Callable[[Callable[[], R]], C],
) -> tuple[list[tuple[C | None, C]], Rates] | None:
    """Time both round by round in turn, and rate the machine before and after; None when benchmarks
    are disabled.

    clock: what it reads of a call, such as seconds; plain None: ours alone.
    """
    pairs: list[tuple[C | None, C]] = []
    plain_reads: list[C | None] = []

    def time_plain() -> None:
        plain_reads.append(None if plain is None else clock(plain))

    def time_ours() -> None:
        pairs.append((plain_reads[-1], clock(ours)))

    before = None if benchmark.disabled else measure_rates(DEVICE, torch.float32)
    if before is not None:  # once to warm up
        for call in (plain, ours):
            if call is not None:
                call()
    benchmark.pedantic(time_ours, setup=time_plain, rounds=rounds, iterations=1)
    if before is None:
        return None
    return pairs, best_rates([before, measure_rates(DEVICE, torch.float32)])


def keep(
    rows: Rows, timed: Timed, work: Sequence[tuple[float, float]], batch: int, **info: Any
) -> None:
    """One row: medians, the ratio with its spread, floor and time over it.

    work: bytes and operations at least, of parts that follow one another.
    """
    floors = [floor_of(timed.rates, *part) for part in work]
    floor_s = sum(floor.seconds for floor in floors)
    plain = [plain for plain, _ in timed.pairs if plain is not None]
    plain_s = statistics.median(plain) if plain else None
    ours_s = statistics.median(ours for _, ours in timed.pairs)
    ratios = ratios_of(timed.pairs)
    row = {
        **info,
        "ratio": ratios and ratios.median,
        "ratio_low": ratios and ratios.low,
        "ratio_high": ratios and ratios.high,
        "plain_s": plain_s,
        "ours_s": ours_s,
        "floor_memory_s": sum(floor.memory_s for floor in floors),
        "floor_operations_s": sum(floor.operations_s for floor in floors),
        "floor_s": floor_s,
        "plain_over_floor": plain_s / floor_s if plain_s else None,
        "ours_over_floor": ours_s / floor_s,
        "copy_bandwidth": timed.rates.bandwidth,
        "matmul_rate": timed.rates.matmul,
        "rounds": len(timed.pairs),
        "batch": batch,
        "dtype": "float32",
        "device": device_name(DEVICE),
        "threads": torch.get_num_threads(),
        "host_class": host_class(),
        "torch": torch.__version__,
        "commit": COMMIT,
        "changed": _CHANGED,
    }
    rows.append(row)
    print(f"\n{_said(row, info)}", end="")


def _said(row: dict[str, Any], info: dict[str, Any]) -> str:
    """A row in one line."""
    words = [" ".join(map(str, info.values())), f"ours {row['ours_s'] * 1e3:.4g} ms"]
    if row["plain_s"]:
        words.append(f"plain {row['plain_s'] * 1e3:.4g} ms")
        words.append(f"ratio {row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]")
    over = f"ours / floor {row['ours_over_floor']:.3g}"
    over += f", plain / floor {row['plain_over_floor']:.3g}" if row["plain_s"] else ""
    return f"{words[0]}: {', '.join(words[1:])}; floor {row['floor_s'] * 1e3:.3g} ms, {over}"


def compare(
    benchmark: BenchmarkFixture,
    rows: Rows,
    ours: Callable[[], object],
    plain: Callable[[], object] | None,
    rounds: int,
    work: Sequence[tuple[float, float]],
    batch: int,
    **info: Any,
) -> None:
    """Time both in turn and keep the row, also beside the benchmark's own numbers."""
    timed = interleaved(benchmark, ours, plain, rounds, lambda call: seconds(call, DEVICE))
    if timed is not None:
        keep(rows, Timed(*timed), work, batch, **info)
        benchmark.extra_info.update(rows[-1])
