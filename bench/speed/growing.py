"""How a cost grows: exponents with their spread, and the figure that shows them.

cost ~ size^p, fitted by least squares of the logarithms over the largest sizes, where what is the
same at every size (a start, a call) hardly counts; once for each round of all sizes.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator

from ..report.caption import Caption
from ..report.drawing import DOUBLE, canvas, look, plain_log, write_figure

LARGEST = 3  # sizes that an exponent is fitted over
FEW = 4  # names of a panel that stand above one another
KEY = ["against", "variant", "size"]
COLUMNS = [
    *KEY, "cpu_s", "cpu_low_s", "cpu_high_s", "peak_bytes", "exponent", "exponent_low",
    "exponent_high", "rounds", "batch", "threads", "device", "host_class", "torch", "commit",
    "dirty",
]  # fmt: skip
PANELS = {
    "tokens": ("tokens of an image", "training step"),
    "width": ("width of the model", "training step"),
    "depth": ("depth of the model", "training step"),
    "images": ("images of each split, 64 px", "verb, with its start"),
    "memory": ("images of each split, 256 px", "verb, with its start"),
    "jobs": ("jobs of the study", "planning, with its start"),
}


@dataclass(frozen=True)
class Spread:
    """Median with the 10 % and 90 % quantiles of some rounds."""

    median: float
    low: float
    high: float

    @property
    def cpu(self) -> dict[str, float]:
        """As the columns of CPU seconds."""
        return {"cpu_s": self.median, "cpu_low_s": self.low, "cpu_high_s": self.high}

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        low, median, high = np.quantile(np.asarray(values, float), (0.1, 0.5, 0.9))
        return cls(float(median), float(low), float(high))


def exponents(costs_by_size: Mapping[int, Sequence[float]]) -> list[float]:
    """The exponent of each round over the largest sizes. Raises ValueError for fewer than two
    sizes, and for a cost of 0 or less."""
    sizes = sorted(costs_by_size)[-LARGEST:]
    costs_SR = np.array([costs_by_size[size] for size in sizes], float)
    if len(sizes) < 2 or (costs_SR <= 0).any():
        raise ValueError("an exponent needs two sizes or more, and costs above 0")
    return np.polyfit(np.log(sizes), np.log(costs_SR), 1)[0].tolist()


def rows_of(
    against: str,
    variant: str,
    costs_by_size: Mapping[int, Sequence[float]],
    peaks_by_size: Mapping[int, int] | None = None,
    **more: Any,
) -> list[dict[str, Any]]:
    """One row a size: CPU seconds with their spread, peak of anonymous memory where it was read,
    the exponent over all rounds."""
    slope = Spread.of(exponents(costs_by_size))
    rows = []
    for size, costs in costs_by_size.items():
        rows.append(
            {
                "against": against,
                "variant": variant,
                "size": size,
                **Spread.of(costs).cpu,
                "peak_bytes": (peaks_by_size or {}).get(size),
                "exponent": slope.median,
                "exponent_low": slope.low,
                "exponent_high": slope.high,
                "rounds": len(costs),
                **more,
            }
        )
    return rows


# ---------------------------------------------------------------- the figure


def read_growth(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV of this benchmark. Raises ValueError for another file, OSError for none."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not set(KEY) <= set(reader.fieldnames or ()):
            raise ValueError(f"{path}: holds no {', '.join(KEY)}; give a CSV of this benchmark")
        return list(reader)


def _series(rows: Sequence[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Rows by variant, in order of their size."""
    series: dict[str, list[dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: float(row["size"])):
        series.setdefault(row["variant"], []).append(row)
    return series


def _label(name: str, row: dict[str, str], with_range: bool) -> str:
    """A name with its exponent."""
    # what rounds to -0.00 is 0
    shown = [f"{round(float(row[f'exponent{end}']), 2) + 0.0:.2f}" for end in ("", "_low", "_high")]
    return f"{name}: {shown[0]} ({shown[1]} to {shown[2]})" if with_range else f"{name}: {shown[0]}"


def _column(rows: Sequence[dict[str, str]], key: str) -> np.ndarray:
    return np.array([float(row[key]) for row in rows])


def _draw(axes: Any, rows: Sequence[dict[str, str]], against: str) -> None:
    """Cost against one size, on logarithmic axes."""
    series = _series(rows)
    few = len(series) <= FEW
    for i, (name, of_name) in enumerate(series.items()):
        read = partial(_column, of_name)
        x, cost, low, high = map(read, ("size", "cpu_s", "cpu_low_s", "cpu_high_s"))
        bars = np.maximum(0, np.stack((cost - low, high - cost)))
        axes.errorbar(x, cost, bars, label=_label(name, of_name[-1], few), capsize=2, **look(i))
    axes.set(xscale="log", yscale="log", xlabel=PANELS[against][0])
    axes.set(ylabel="CPU time, s", title=PANELS[against][1])
    plain_log(axes.xaxis)
    plain_log(axes.yaxis)
    if not few:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.4)  # room for the names above all lines
    axes.legend(fontsize=6, frameon=False, ncols=1 if few else 2)


def _draw_memory(axes: Any, rows: Sequence[dict[str, str]], against: str) -> None:
    """Peak of anonymous memory of every verb against images."""
    for i, (name, of_name) in enumerate(_series(rows).items()):
        x = [float(row["size"]) for row in of_name]
        peaks = [float(row["peak_bytes"]) / 2**20 for row in of_name]
        axes.plot(x, peaks, label=name, **look(i))
    axes.set(xscale="log", xlabel=PANELS[against][0], ylabel="anonymous memory, MiB")
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the names above all lines
    axes.set_xticks(sorted({float(row["size"]) for row in rows}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title("peak of a verb")
    axes.legend(fontsize=6, frameon=False, ncols=2)


def _panels(against: str) -> list[Callable[..., None]]:
    """What is drawn of one size."""
    return OF_VERBS.get(against, [_draw])


# one round says nothing of the spread of times
OF_VERBS: dict[str, list[Callable[..., None]]] = {
    "images": [_draw, _draw_memory],
    "memory": [_draw_memory],
}


def write_growth(rows: Sequence[dict[str, str]], stem: Path) -> None:
    """The figure of all sizes that were measured."""
    measured = {row["against"] for row in rows}
    drawn = [(panel, against) for against in PANELS for panel in _panels(against)]
    there = [(draw, against) for draw, against in drawn if against in measured]
    lines = -(-len(there) // 2)
    figure, grid = canvas(DOUBLE, 2.5 * lines, lines, 2)
    for axes, (draw, against) in zip(grid.flat, there):
        draw(axes, [row for row in rows if row["against"] == against], against)
    for axes in grid.flat[len(there) :]:
        axes.set_visible(False)
    what = "CPU time and memory" if measured & set(OF_VERBS) else "CPU time"
    words = (
        f"{what} against sizes, with the exponent over the largest {LARGEST}: median and 10 % to "
        f"90 % of the rounds (of more than {FEW} lines the median)"
    )
    write_figure(stem, figure, Caption(words))
