"""Curves and lines that several figures draw. Imports no torch."""

from __future__ import annotations

from typing import Any

from .drawing import draw_band, text
from .estimate import Estimate
from .view import View

GREY = "0.35"  # of what a variant is read against
FLOOR_LINE = {
    "color": GREY,
    "linestyle": ":",
    "linewidth": 1,
    "label": "floor: real training images",
    "zorder": 0,
}


def floor_count(view: View) -> str:
    """How many images the floor was scored on, which a small training split may limit."""
    names = next(iter(view.variants.values()))
    rows = view.results.of_grid(names, f"floor_fid_{view.results.extractor}")
    counts = rows["num_images"].dropna()
    return f" (N = {int(counts.iloc[0])})" if len(counts) else ""


def curve(axes, points: list[tuple[float, Estimate]], label: str, style: dict[str, Any]) -> None:
    """Means over training seeds with their intervals, in order of x: a line and a band; bars where
    points are no function of x, or one point alone, of which a band would show nothing."""
    points = sorted(points, key=lambda point: point[0])
    xs, values = [x for x, _ in points], [value for _, value in points]
    if len(set(xs)) < max(2, len(xs)):
        half = [value.half or 0 for value in values]
        marks = {**style, "linestyle": "none", "elinewidth": 0.8, "capsize": 1.5}
        axes.errorbar(xs, [value.mean for value in values], yerr=half, label=text(label), **marks)
        return
    draw_band(axes, xs, values, label, style)


def floor_line(axes, view: View, metric: str) -> None:
    """What real training images score."""
    names = next(iter(view.variants.values()))
    value = view.grid_value(names, f"floor_{metric}_{view.results.extractor}")
    if value is not None:
        axes.axhline(value, **FLOOR_LINE)
