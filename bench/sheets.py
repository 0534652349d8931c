"""Figures of many variants: the same panels once more for every so many variants, one below the other, with a legend each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure, FigureBase

from .analysis import Results
from .drawing import canvas, legend_below, legend_height

MOST = 12  # lines that one panel can hold: ten colours, nine markers
# legend rows that the height of a figure has room for
ROOM = 0.6

Draw = Callable[[np.ndarray, Results, str], None]


def shares(names: Iterable[str], most: int) -> list[list[str]]:
    """Names in as few parts as hold at most `most` each, of nearly equal length, in their order."""
    names = list(names)
    count = max(1, math.ceil(len(names) / most))
    return [part.tolist() for part in np.array_split(np.array(names, dtype=object), count)]


def by_variant(results: Results, suite: str, most: int = MOST) -> list[Results]:
    """Results of a few variants each."""
    parts = shares(results.variants(suite), most)
    return [results] if len(parts) == 1 else [results.only(suite, names) for names in parts]


def by_group(results: Results, suite: str, most: int = MOST, always: Iterable[str] = ()) -> list[Results]:
    """Results of a few groups of variants each, which stay together; always: variants that every part holds."""
    groups, always = results.groups(suite), set(always)
    parts = shares([group for group, members in groups.items() if set(members) - always], most)
    if len(parts) == 1:
        return [results]
    found = []
    for part in parts:
        mine = always.union(*(groups[group] for group in part))
        found.append(results.only(suite, [name for name in results.variants(suite) if name in mine]))
    return found


def sheet(
    parts: list[Results],
    suite: str,
    size: tuple[float, float],
    shape: tuple[int, int],
    draw: Draw,
    columns: int = 4,
    **more: Any,
) -> Figure:
    """A figure with panels of this shape and size in inches for every part, drawn alike on equal axes.

    draw(axes, part, suite) fills them; columns: of the legend; more: as `plt.subplots` takes it.
    """
    width, height = size
    if len(parts) == 1:
        figure, axes = canvas(width, height, *shape, **more)
        draw(axes, parts[0], suite)
        grow(figure, columns)
        legend_below(figure, columns)
        return figure
    figure = plt.figure(figsize=(width, height * len(parts)))
    pages: list[tuple[FigureBase, np.ndarray]] = []
    heights = []
    for page, part in zip(figure.subfigures(len(parts), 1), parts):
        axes = page.subplots(*shape, squeeze=False, **more)
        draw(axes, part, suite)
        legend_below(page, columns)
        heights.append(height + extra(page, columns))
        pages.append((page, axes))
    figure.set_figheight(sum(heights))
    pages[0][0]._subplotspec.get_gridspec().set_height_ratios(heights)
    even([axes for _, axes in pages])
    return figure


def extra(figure: FigureBase, columns: int) -> float:
    """Inches that the legend needs beyond those that every figure has for it."""
    return max(0.0, legend_height(figure, columns) - ROOM)


def grow(figure: Figure, columns: int) -> None:
    """Make a figure longer by what a long legend needs."""
    more = extra(figure, columns)
    if more:
        figure.set_figheight(figure.get_figheight() + more)


def even(pages: list[np.ndarray]) -> None:
    """The same limits for the same panel of every page: what lies higher is higher."""
    for place in np.ndindex(pages[0].shape):
        drawn = [axes[place] for axes in pages if axes[place].lines or axes[place].collections]
        for name in ("xlim", "ylim"):
            limits = [getattr(axes, f"get_{name}")() for axes in drawn]
            for axes in drawn:
                getattr(axes, f"set_{name}")(min(low for low, _ in limits), max(high for _, high in limits))
