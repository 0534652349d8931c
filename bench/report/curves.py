"""Curves and lines that several figures draw. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from .drawing import draw_band, text
from .estimate import Estimate, show
from .view import View

GREY = "0.35"  # of what a variant is read against
FLOOR_LINE = {
    "color": GREY,
    "linestyle": ":",
    "linewidth": 1,
    "label": "floor: real training images",
    "zorder": 0,
}
LEAST_SHARE = 0.4  # of a panel that its curves fill beside the floor


def floor_count(view: View) -> str:
    """How many images the floor was scored on, which a small training split may limit."""
    names = next(iter(view.variants.values()))
    rows = view.of_grid(names, f"floor_fid_{view.results.extractor}")
    counts = rows["num_images"].dropna()
    return f" (N = {int(counts.iloc[0])})" if len(counts) else ""


def curve(
    axes: Axes,
    points: Sequence[tuple[float, Estimate]],
    label: str,
    style: dict[str, Any],
    joined: bool = True,
) -> None:
    """Means over training seeds with their intervals, in order of x: a line and a band; bars where
    points are no function of x, or are not joined, or one point alone, of which a band would show
    nothing."""
    points = sorted(points, key=lambda point: point[0])
    xs, values = [x for x, _ in points], [value for _, value in points]
    if not joined or len(set(xs)) < max(2, len(xs)):
        half = [value.half or 0 for value in values]
        marks = {**style, "linestyle": "none", "elinewidth": 0.8, "capsize": 1.5}
        axes.errorbar(xs, [value.mean for value in values], yerr=half, label=text(label), **marks)
        return
    draw_band(axes, xs, values, label, style)


def floor_line(axes: Axes, view: View, metric: str, along: str = "y") -> None:
    """What real training images score: a line across, or where it lies so far off that the curves
    would be pushed to an edge, a number in the legend. The curves are drawn before. along: the axis
    of the scores, x or y."""
    metric = f"floor_{metric}_{view.results.extractor}"
    of_grids = (view.grid_value(names, metric) for names in view.variants.values())
    value = next((floor for floor in of_grids if floor is not None), None)
    if value is None:
        return
    low, high = getattr(axes.dataLim, f"interval{along}")  # of curves with their bands
    reach = max(high, value) - min(low, value)
    if not axes.lines or high - low >= LEAST_SHARE * reach:
        (axes.axhline if along == "y" else axes.axvline)(value, **FLOOR_LINE)
        return
    ends = ("below", "above") if along == "y" else ("left of", "right of")
    end = ends[0] if value < low else ends[1]
    label = f"floor {show(value)} (real training images), {end} the panel"
    axes.plot([], [], **{**FLOOR_LINE, "label": label})
