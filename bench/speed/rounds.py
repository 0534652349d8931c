"""Several paths timed round by round in turn, and the rows that come of it.

For benchmarks that are programs: one command line, a CSV written again after each row, a table.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from srdd.memory import is_out_of_memory

from ..runtime.clock import seconds, synchronise
from .counting import ratios_of
from .whole import write_whole

KEY = ["what", "batch", "ours", "theirs", "precision"]
COLUMNS = [
    *KEY, "ours_s", "theirs_s", "ratio", "ratio_low", "ratio_high", "ours_over_floor",
    "theirs_over_floor", "ours_peak_bytes", "theirs_peak_bytes", "ours_matmul_share",
    "theirs_matmul_share", "public_attention", "rounds", "depth", "width", "channels",
    "disagreement", "copy_bandwidth", "matmul_rate", "threads", "device", "torch", "commit",
    "dirty", "command",
]  # fmt: skip
TABLE_ROWS = 34


# ---------------------------------------------------------------- sides


def nothing() -> None:
    """What most sides do before a call, and have to free."""


@dataclass(frozen=True)
class Side:
    """One of the paths that are timed in turn: its call, calls to warm up, and the work that its
    model cannot do without (floor in seconds, operations).

    before: done ahead of each call, untimed. free: drops its caches.
    """

    call: Callable[[], object]
    warm_up: int = 1
    records: bool = False
    floor_s: float | None = None
    flops: float | None = None
    before: Callable[[], object] = nothing
    free: Callable[[], object] = nothing


Makers = dict[str, Callable[[], Side]]


# ---------------------------------------------------------------- timing


@dataclass
class Timed:
    """What was read of one side: seconds of each round, None of one that ran out of memory; peak
    bytes beyond what lay in memory before it, None on a CPU."""

    side: Side | None = None
    times: list[float] | None = None
    peak_bytes: int | None = None

    @property
    def seconds(self) -> float | None:
        """Median of the rounds."""
        return statistics.median(self.times) if self.times else None

    def over_floor(self) -> float | None:
        """Time over the floor of what the side must do."""
        known = self.seconds and self.side and self.side.floor_s
        return self.seconds / self.side.floor_s if known else None  # type: ignore[operator, union-attr]

    def matmul_share(self, rate: float) -> float | None:
        """Operations a second over those of a large matrix product, rate in flop/s."""
        known = self.seconds and self.side and self.side.flops
        return self.side.flops / self.seconds / rate if known else None  # type: ignore[operator, union-attr]


def warm(timed: Timed, make: Callable[[], Side], device: torch.device) -> None:
    """Make a side and warm it up; on a GPU read its peak memory in one more call, unless it replays
    what it recorded: nothing is allocated then."""
    timed.side = side = make()
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if cuda else 0
    side.before()
    for _ in range(side.warm_up):
        side.call()
    if cuda:
        synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        side.call()
        synchronise(device)
        peak = torch.cuda.max_memory_allocated(device) - before
        timed.peak_bytes = None if side.records else peak
    timed.times = []


def add_round(timed: Timed, device: torch.device) -> None:
    """Time a side once more, unless it has dropped out."""
    if timed.side is not None and timed.times is not None:
        timed.side.before()
        timed.times.append(seconds(timed.side.call, device))


def fits(work: Callable[[], None]) -> bool:
    """Do some work; whether memory was enough."""
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def drop(timed: Timed, device: torch.device) -> None:
    """Free what a side keeps."""
    if timed.side is not None:
        timed.side.free()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def lose(timed: Timed, device: torch.device) -> None:
    """Drop a side that ran out of memory: it has no time."""
    drop(timed, device)
    timed.side = timed.times = timed.peak_bytes = None


def in_turn(
    makers: Makers, rounds: int, device: torch.device, late: Callable[[], bool]
) -> dict[str, Timed]:
    """Time sides round by round in turn after a warm-up, by name. One that runs out of memory drops
    out. Once it is late no further round is begun; empty where it is late before all are warm."""
    timed = {name: Timed() for name in makers}
    for name, make in makers.items():
        if late():
            for each in timed.values():
                drop(each, device)
            return {}
        if not fits(partial(warm, timed[name], make, device)):
            lose(timed[name], device)
    for _ in range(rounds):
        if late():
            break
        for each in timed.values():
            if not fits(partial(add_round, each, device)):
                lose(each, device)
    for each in timed.values():
        drop(each, device)
    return timed


# ---------------------------------------------------------------- rows


def row_of(ours: Timed, theirs: Timed, matmul_rate: float) -> dict[str, Any]:
    """What a row says of two sides that were timed in turn: seconds, the ratio with its 10 % to
    90 % range, floors, peak bytes, shares of the matmul rate in flop/s; empty where a side has no
    time."""
    pairs = list(zip(theirs.times or [], ours.times or []))
    ratios = ratios_of(pairs)
    return {
        "ours_s": ours.seconds,
        "theirs_s": theirs.seconds,
        "ratio": ratios and ratios.median,
        "ratio_low": ratios and ratios.low,
        "ratio_high": ratios and ratios.high,
        "ours_over_floor": ours.over_floor(),
        "theirs_over_floor": theirs.over_floor(),
        "ours_peak_bytes": ours.peak_bytes,
        "theirs_peak_bytes": theirs.peak_bytes,
        "ours_matmul_share": ours.matmul_share(matmul_rate),
        "theirs_matmul_share": theirs.matmul_share(matmul_rate),
        "rounds": max(len(ours.times or []), len(theirs.times or [])),
    }


def said(row: dict[str, Any]) -> str:
    """A row as a line of the table."""

    def number(key: str, factor: float = 1.0, digits: str = ".3g") -> str:
        value = row.get(key)
        return "-" if value is None else f"{value * factor:{digits}}"

    spread = f"{number('ratio', 1, '.3f')} [{number('ratio_low', 1, '.3f')}"
    spread += f" {number('ratio_high', 1, '.3f')}]"
    floors = f"{number('ours_over_floor')}/{number('theirs_over_floor')}"
    peaks = (
        f"{number('ours_peak_bytes', 2**-20, '.0f')}/{number('theirs_peak_bytes', 2**-20, '.0f')}"
    )
    shares = f"{number('ours_matmul_share', 1, '.2f')}/{number('theirs_matmul_share', 1, '.2f')}"
    times = f"{number('ours_s', 1e3, '.4g'):>8} {number('theirs_s', 1e3, '.4g'):>8}"
    sides = f"{row['ours']} : {row['theirs']}"
    return (
        f"{row['what']:8} {row['batch']:>4} {sides:38} {times} {spread:21} {floors:>10} "
        f"{shares:>10} {peaks:>11}"
    )


HEADER = (
    f"{'what':8} {'B':>4} {'ours : theirs':38} {'ours ms':>8} {'theirs':>8} {'ratio, 10-90 %':21} "
    f"{'/ floor':>10} {'of matmul':>10} {'peak, MiB':>11}"
)


class Table:
    """The rows so far, printed and written to a CSV as they come."""

    def __init__(self, out: Path, shared: dict[str, Any]) -> None:
        self.out, self.written, self.shared = out, out, shared
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[str] = []

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row: print it, and write the CSV again."""
        self.rows.append({**self.shared, **row})
        print(said(row), flush=True)
        self.written = write_whole(self.out, self.rows, COLUMNS, KEY)

    def show(self) -> None:
        """All rows in at most 40 lines, then what was left out for want of time."""
        shown = [said(row) for row in self.rows[:TABLE_ROWS]]
        more = len(self.rows) - len(shown)
        print("", HEADER, *shown, *([f"... {more} more rows"] if more else []), sep="\n")
        if self.left_out:
            print(f"left out, --limit-seconds: {'; '.join(self.left_out)}")
        print(f"written to {self.written}" if self.rows else "nothing was timed", flush=True)
