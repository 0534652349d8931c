"""Panels with one place for each variant: points of its trainings, mean, interval, and
baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ...report.absent import by_reason
from ...report.curves import FLOOR_LINE, GREY
from ...report.drawing import RED, leaning, text, text_width, wrapped
from ...report.estimate import estimate
from ...report.view import View

MOST = 12  # variants side by side; more stand below one another
LETTERS = 40  # of a name beside its row
SLANTED_LETTERS = 16  # of a line of a slanted name
PITCH = 0.2  # inches: of a row at least, and of a line of its name
LINE = 0.11
STRIPE = "0.95"
PANEL = 2.6  # inches that the narrower of two panels has for names, at least
APART = 5  # points between two names side by side


class Places:
    """Where variants stand in a panel: side by side at 0, 1, 2, ..., or in rows, in inches from the
    top."""

    def __init__(self, view: View) -> None:
        self.names = list(view.variants)
        room = max(8, 28 // len(self.names))
        marks = [wrapped(name, room) for name in self.names]
        self.slanted = self._touch(marks)
        if self.slanted:
            marks = [wrapped(name, SLANTED_LETTERS) for name in self.names]
        lines = max(1 + mark.count("\n") for mark in marks)
        # slanted by 45 degrees, a line of a name takes 1.4 times its height along the axis
        crowded = self.slanted and 1.5 * LINE * lines > PANEL / len(marks)
        self.rows = len(marks) > MOST or crowded
        self.marks = [wrapped(name, LETTERS) for name in self.names] if self.rows else marks
        self.sizes = [self._size(mark) for mark in self.marks]
        ends = np.cumsum(self.sizes)
        self.spots = (ends - np.array(self.sizes) / 2 if self.rows else ends - 1).tolist()
        self.length = float(ends[-1])

    @property
    def height(self) -> float:
        """Inches of a figure of such panels."""
        if self.rows:
            return 1.1 + self.length
        longest = max(text_width(line) for mark in self.marks for line in mark.split("\n"))
        return 2.9 + (0.5 * longest / 72 if self.slanted else 0)

    @staticmethod
    def _touch(marks: list[str]) -> bool:
        """Whether names would touch when they stand level, side by side."""
        widest = max(text_width(line) for mark in marks for line in mark.split("\n"))
        return widest + APART > 72 * PANEL / len(marks)

    def _size(self, mark: str) -> float:
        """What a variant takes along the axis: inches of a row, or 1."""
        return max(PITCH, 0.06 + LINE * (1 + mark.count("\n"))) if self.rows else 1.0

    def label(self, axes: Axes) -> None:
        """Write the names on the axis."""
        if not self.rows:
            slant = leaning(45) if self.slanted else {}
            axes.set_xticks(range(len(self.marks)), self.marks, **slant)
            axes.set_xlim(-0.5, len(self.marks) - 0.5)
            axes.set_xlabel("variant")
            return
        axes.set_yticks(self.spots, self.marks)
        axes.set_ylim(self.length, 0)
        axes.tick_params(axis="x", top=True, labeltop=True)
        axes.tick_params(axis="y", length=0)
        for i in range(0, len(self.spots), 2):
            low = self.spots[i] - self.sizes[i] / 2
            axes.axhspan(low, low + self.sizes[i], color=STRIPE, linewidth=0, zorder=-1)


def draw_trainings(
    axes: Axes,
    view: View,
    metric: str,
    places: Places,
    shift: float,
    styles: list[dict[str, Any]],
    label: str | None = None,
) -> bool:
    """Points per training seed, their mean and interval, for every variant; whether there was any.

    shift: where in the place of a variant, in shares of it; styles: one of each variant.
    """
    for i, variant in enumerate(places.names):
        values = view.of(variant, metric)
        mean = estimate(values)
        if mean is None:
            continue
        size, spot, style = places.sizes[i], places.spots[i], styles[i]
        steps = np.arange(len(values)) / max(1, len(values) - 1)
        spots = spot + size * (shift - 0.12 + 0.05 * steps)
        half = [[mean.half]] * 2 if mean.half is not None else None
        middle = [spot + size * shift]
        ends = {"capsize": 2.5, "elinewidth": 1, "linestyle": "none", "label": label, **style}
        dots = {"s": 7, "color": style["color"], "alpha": 0.45, "linewidth": 0}
        if places.rows:
            axes.scatter(values, spots, **dots)
            ends |= {"markersize": 3, "capsize": 1.5}
            axes.errorbar([mean.mean], middle, xerr=half, **ends)
        else:
            axes.scatter(spots, values, **dots)
            axes.errorbar(middle, [mean.mean], yerr=half, **ends)
        label = None
    return bool(axes.collections)


def draw_baselines(axes: Axes, view: View, places: Places) -> None:
    """Floor across the panel; reconstruction across it too, or a tick per variant where schedules
    or tokenizers differ."""
    variants, extractor = list(view.variants.values()), view.results.extractor
    whole = axes.axvline if places.rows else axes.axhline
    part = axes.vlines if places.rows else axes.hlines
    floors = {view.grid_value(names, f"floor_fid_{extractor}") for names in variants}
    for floor in sorted(value for value in floors if value is not None)[:1]:
        whole(floor, **FLOOR_LINE)
    values = [view.grid_value(names, f"reconstruction_fid_{extractor}") for names in variants]
    dashed = {"color": GREY, "linestyle": "--", "linewidth": 1, "zorder": 0}
    label: str | None = "reconstruction by the tokenizer"
    if None not in values and len(set(values)) == 1:
        whole(values[0], label=label, **dashed)
        return
    for value, spot, size in zip(values, places.spots, places.sizes):
        if value is not None:
            part(value, spot - 0.35 * size, spot + 0.35 * size, label=label, **dashed)
            label = None


def name_lost(axes: Axes, view: View, places: Places) -> None:
    """Write beside a variant which of its scores are missing, and why."""
    for variant, spot in zip(places.names, places.spots):
        lost = view.missing(variant, f"fid_{view.results.extractor}")
        if not lost:
            continue
        words = text(by_reason({seed: why.split(" (")[0] for seed, why in lost.items()}))
        style = {"color": RED, "fontsize": 6, "in_layout": False}
        if places.rows:
            along = axes.get_yaxis_transform()
            axes.text(0.98, spot, words, transform=along, va="center", ha="right", **style)
        else:
            along = axes.get_xaxis_transform()
            axes.text(spot + 0.2, 0.02, words, transform=along, rotation=90, va="bottom", **style)
