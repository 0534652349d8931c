"""What all benchmarks share: two paths timed in turn, the ratio with its spread, the floor beside both, one CSV a benchmark.

A benchmark is a file `bench/benchmark_<name>.py`, run by `./run test bench/benchmark_<name>.py --benchmark-enable -s`; nothing in it can
fail. Ratios below 1 mean that ours is faster. Floors are counted with the machine's rates, measured before and after each benchmark; the
faster counts.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from srdd.config import ModelConfig
from srdd.model import ScaleTransformer
from srdd.noise import generator

from ..pipeline.floors import Rates, best_rates, floor_of, measure_rates, seconds
from ..runtime.provenance import host_class
from ..runtime.rows import write_rows
from ..runtime.verb import device_name

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FOLDER = Path("results/benchmarks")
# torch.compile needs a C++ compiler on a CPU
COMPILED = [False, True] if DEVICE.type == "cuda" or shutil.which("g++") else [False]


def flops_of(call: Callable[[], object]) -> int:
    """Floating-point operations of a call on meta tensors, where torch's counter also sees fused attention."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def training_work(config: ModelConfig, batch: int) -> tuple[int, int]:
    """Bytes and operations of a training step at least: a backward pass computes twice what the forward pass does; AdamW reads and
    writes weights and two moments."""
    with torch.device("meta"):
        model = ScaleTransformer(config)
        inputs_BLC = torch.empty(batch, config.schedule.seq_len, config.codebook_dim)
        labels_B = torch.zeros(batch, dtype=torch.long)
    moved = 6 * sum(weight.nbytes for weight in model.parameters())
    return moved, 3 * flops_of(lambda: model(inputs_BLC, labels_B))


def training_step(config: ModelConfig, loss_of: Callable[[ScaleTransformer], torch.Tensor]) -> Callable[[], None]:
    """A whole step of a fresh model: forward, loss, backward, AdamW."""
    model = ScaleTransformer(config)
    model.init_weights(generator("benchmark model"))
    model.to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        loss_of(model).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def kept_rows(name: str, *key: str):
    """A fixture `rows` of a benchmark file: what it holds at the end is written to results/benchmarks/<name>_<device>.csv, sorted by key."""

    @pytest.fixture(scope="module")
    def rows():
        found: list[dict[str, Any]] = []
        yield found
        if found:
            write_rows(FOLDER / f"{name}_{DEVICE.type}.csv", found, list(found[0]), list(key))

    return rows


@dataclass(frozen=True)
class Timed:
    """What a clock read of (plain, ours) in every round, and the machine's rates, the faster of before and after."""

    pairs: Sequence[tuple[Any, Any]]
    rates: Rates


def interleaved(benchmark, ours, plain, rounds: int, clock=None) -> Timed | None:
    """Time both round by round in turn, and rate the machine before and after; None when benchmarks are disabled. clock: call -> seconds
    or a list of them; plain None: ours alone."""
    clock = clock or (lambda call: seconds(call, DEVICE))
    found: list[list[Any]] = []
    rates = [] if benchmark.disabled else [measure_rates(DEVICE, torch.float32)]
    for call in () if benchmark.disabled else filter(None, (plain, ours)):
        call()
    run = lambda: found[-1].append(clock(ours))  # noqa: E731
    benchmark.pedantic(run, setup=lambda: found.append([plain and clock(plain)]), rounds=rounds, iterations=1)
    if benchmark.disabled:
        return None
    rates.append(measure_rates(DEVICE, torch.float32))
    return Timed([tuple(pair) for pair in found], best_rates(rates))


def keep(rows: list[dict], timed: Timed, work: Sequence[tuple[float, float]], batch: int, **info: Any) -> None:
    """One row: medians, the ratio with the tenth and the ninetieth share of the paired rounds, floor and time over it. work: bytes and
    operations at least, of parts that follow one another."""
    pairs, floors = timed.pairs, [floor_of(timed.rates, *part) for part in work]
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
        "copy_bandwidth": timed.rates.bandwidth,
        "matmul_rate": timed.rates.matmul,
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
    benchmark, rows: list[dict], ours, plain, rounds: int, work: Sequence[tuple[float, float]], batch: int, **info: Any
) -> None:
    """Time both in turn and keep the row, also beside the benchmark's own numbers."""
    if timed := interleaved(benchmark, ours, plain, rounds):
        keep(rows, timed, work, batch, **info)
        benchmark.extra_info.update(rows[-1])
