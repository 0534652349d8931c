"""What all benchmarks share: two paths timed in turn, the ratio with its spread, the floor beside both, one CSV a benchmark.

A benchmark is a file `bench/benchmark_<name>.py`, run by `./run test bench/benchmark_<name>.py --benchmark-enable -s`; nothing in it can
fail. Ratios below 1 mean that ours is faster.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from srdd.config import ModelConfig
from srdd.model import ScaleTransformer

from .floors import DTYPES, Floor, Rates, floor_of, measure_rates, seconds
from .provenance import host_class
from .results import write_rows
from .verb import device_name

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FOLDER = Path("results/benchmarks")


@cache
def rates(dtype: str = "float32") -> Rates:
    """What this machine can do, measured once a program and said."""
    found = measure_rates(DEVICE, DTYPES[dtype])
    print(f"\ncopy {found.bandwidth / 1e9:.3g} GB/s, matmul {found.matmul / 1e9:.4g} GFLOP/s in {dtype}", end="")
    return found


def flops_of(call: Callable[[], object]) -> int:
    """Floating-point operations of a call on meta tensors, where torch's counter also sees fused attention."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def training_floor(config: ModelConfig, batch: int) -> Floor:
    """The least time of a training step: a backward pass computes twice what the forward pass does; AdamW reads and writes weights and
    two moments."""
    with torch.device("meta"):
        model = ScaleTransformer(config)
        inputs_BLC = torch.empty(batch, config.schedule.seq_len, config.codebook_dim)
        labels_B = torch.zeros(batch, dtype=torch.long)
    moved = 6 * sum(weight.nbytes for weight in model.parameters())
    return floor_of(rates(), moved, 3 * flops_of(lambda: model(inputs_BLC, labels_B)))


def kept_rows(name: str, *key: str):
    """A fixture `rows` of a benchmark file: what it holds at the end is written to results/benchmarks/<name>_<device>.csv, sorted by key."""

    @pytest.fixture(scope="module")
    def rows():
        found: list[dict[str, Any]] = []
        yield found
        if found:
            write_rows(FOLDER / f"{name}_{DEVICE.type}.csv", found, list(found[0]), list(key))

    return rows


def interleaved(benchmark, ours, plain, rounds: int, clock=None, warmup: int = 1) -> list[tuple[Any, Any]]:
    """What a clock reads of (plain, ours), round by round in turn; nothing when benchmarks are disabled. clock: call -> seconds or a list
    of them; plain None: ours alone."""
    clock = clock or (lambda call: seconds(call, DEVICE))
    found: list[list[Any]] = []

    def before():
        found.append([plain and clock(plain)])

    for _ in range(0 if benchmark.disabled else warmup):
        for call in filter(None, (plain, ours)):
            call()
    benchmark.pedantic(lambda: found[-1].append(clock(ours)), setup=before, rounds=rounds, iterations=1)
    return [] if benchmark.disabled else [tuple(pair) for pair in found]


def keep(rows: list[dict], pairs: Sequence[tuple[float | None, float]], floors: Sequence[Floor], batch: int, **info: Any) -> None:
    """One row: medians, the ratio with the tenth and the ninetieth share of the paired rounds, floor and time over it. floors: of parts
    that follow one another."""
    if not pairs:
        return
    plain, ours = ([value for value in column if value is not None] for column in zip(*pairs))
    ratios = sorted(b / a for a, b in pairs if a is not None)
    least, edge = sum(floor.seconds for floor in floors), len(ratios) // 10
    plain_s, ours_s = (statistics.median(column) if column else None for column in (plain, ours))
    row = {
        **info,
        "ratio": statistics.median(ratios) if ratios else None,
        "ratio_low": ratios[edge] if ratios else None,
        "ratio_high": ratios[-1 - edge] if ratios else None,
        "plain_s": plain_s,
        "ours_s": ours_s,
        "floor_memory_s": sum(floor.memory_s for floor in floors),
        "floor_operations_s": sum(floor.operations_s for floor in floors),
        "floor_s": least,
        "plain_over_floor": plain_s / least if plain_s else None,
        "ours_over_floor": ours_s / least,
        "rounds": len(pairs),
        "batch": batch,
        "dtype": "float32",
        "device": device_name(DEVICE),
        "threads": torch.get_num_threads(),
        "host_class": host_class(),
        "torch": torch.__version__,
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
    benchmark, rows: list[dict], ours, plain, rounds: int, floors: Sequence[Floor], batch: int, warmup: int = 1, **info: Any
) -> None:
    """Time both in turn and keep the row, also beside the benchmark's own numbers."""
    keep(rows, interleaved(benchmark, ours, plain, rounds, warmup=warmup), floors, batch, **info)
    if rows and not benchmark.disabled:
        benchmark.extra_info.update(rows[-1])
