"""Figures of many variants: the same panels once more for every so many variants, one below the
other, with a legend each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FuncFormatter, LogLocator

from .axes import spread_out
from .drawing import (
    DOUBLE,
    canvas,
    grid_shape,
    hide_rest,
    legend_below,
    legend_height,
    plain_log,
    plain_number,
)
from .view import View

MOST = 12  # lines that one panel can hold: ten colours, nine markers
# share of the height that a legend may take before it squeezes the panels; inches of it that each
# height counts
ROOM, COUNTED = 0.2, 0.15

Draw = Callable[[np.ndarray, View], None]


def shares(things: Iterable[Any], most: int) -> list[list[Any]]:
    """Things in as few parts as hold at most `most` each, of nearly equal length, in their
    order."""
    things = list(things)
    count = max(1, math.ceil(len(things) / most))
    ends = [round(i * len(things) / count) for i in range(count + 1)]
    return [things[first:end] for first, end in zip(ends, ends[1:])]


def by_variant(view: View, most: int = MOST, again: bool = True) -> list[View]:
    """Results of a few variants each. again: each part begins with the first variant, against which
    the others are read; without, where each has a panel of its own."""
    if len(view.variants) <= most:  # also of none
        return [view]
    if not again:
        return [view.only(names) for names in shares(view.variants, most)]
    first, *others = view.variants
    return [view.only([first, *names]) for names in shares(others, most - 1)]


def by_group(view: View, most: int = MOST, always: Iterable[str] = ()) -> list[View]:
    """Results of a few groups of variants each, which stay together; always: variants that every
    part holds, if not those of the first group, against which the others are read."""
    groups, always = view.groups(), set(always)
    parts = shares([group for group, members in groups.items() if set(members) - always], most)
    if len(parts) == 1:
        return [view]
    if not always:
        (_, first), *others = groups.items()
        always, parts = set(first), shares([group for group, _ in others], most - 1)
    views = []
    for part in parts:
        members = always.union(*(groups[group] for group in part))
        views.append(view.only([name for name in view.variants if name in members]))
    return views


def by_grid(view: View, most: int = MOST) -> list[View]:
    """Results of a few tokenizers and schedules each."""
    users: dict[tuple, list[str]] = {}
    for name, names in view.variants.items():
        users.setdefault((names["tokenizer"], tuple(names["patch_nums"])), []).append(name)
    parts = shares(users.values(), most)
    if len(parts) == 1:
        return [view]
    return [view.only(itertools.chain.from_iterable(part)) for part in parts]


def sheet(
    parts: list[View],
    size: tuple[float, float],
    shape: tuple[int, int],
    draw: Draw,
    columns: int = 4,
    far: Iterable[int] = (),
    alike: str = "xy",
    **more: Any,
) -> Figure:
    """A figure with panels of this shape and size in inches for every part, drawn alike on equal
    axes.

    draw(axes, part) fills them; columns: of the legend; far: panels whose
    y axis becomes logarithmic where they would else be half empty; alike: axes that are equal in
    all parts, of "x" and "y"; more: as `plt.subplots` takes it.
    """
    width, height = size
    if len(parts) == 1:
        figure, axes = canvas(width, height, *shape, **more)
        draw(axes, parts[0])
        _spread([axes], far)
        grow(figure, columns)
        legend_below(figure, columns)
        return figure
    figure = plt.figure(figsize=(width, height * len(parts)))
    pages: list[tuple[FigureBase, np.ndarray]] = []
    heights = []
    for page, part in zip(figure.subfigures(len(parts), 1), parts):
        axes = page.subplots(*shape, squeeze=False, **more)
        draw(axes, part)
        legend_below(page, columns)
        heights.append(height + legend_height(page, columns) - COUNTED)
        pages.append((page, axes))
    figure.set_figheight(sum(heights))
    pages[0][0]._subplotspec.get_gridspec().set_height_ratios(heights)
    _spread([axes for _, axes in pages], far)
    even([axes for _, axes in pages], alike)
    return figure


def panel_sheet(
    parts: list[View], count: int, most: int, height: float, draw: Draw, **more: Any
) -> Figure:
    """A `sheet` across the page with so many panels for every part, at most `most` of them side by
    side. height: of a row, in inches; more: as `sheet` takes it."""
    shape = grid_shape(count, most)

    def draw_part(axes: np.ndarray, part: View) -> None:
        draw(axes, part)
        hide_rest(axes, count)

    return sheet(parts, (DOUBLE, height * shape[0]), shape, draw_part, **more)


def _spread(pages: list[np.ndarray], far: Iterable[int]) -> None:
    """What `spread_out` does, of the same panel of every page and those that share its axis."""
    done: set[Axes] = set()
    for place in far:
        first = pages[0].flat[place]
        if first in done:
            continue
        shared = set(first.get_shared_y_axes().get_siblings(first))
        places = [i for i, axes in enumerate(pages[0].flat) if axes in shared]
        spread_out(page.flat[i] for page in pages for i in places)
        done |= shared


def grow(figure: Figure, columns: int) -> None:
    """Make a figure longer by what a long legend needs."""
    needed = legend_height(figure, columns)
    if needed > ROOM * figure.get_figheight():
        figure.set_figheight(figure.get_figheight() + needed - COUNTED)


def even(pages: list[np.ndarray], names: Iterable[str] = "xy") -> None:
    """The same limits for the same panel of every page: what lies higher is higher. names: of the
    axes."""
    for panels in zip(*(page.flat for page in pages)):
        drawn = [axes for axes in panels if axes.lines or axes.collections]
        for name in names:
            limits = [getattr(axes, f"get_{name}lim")() for axes in drawn]
            for axes in drawn:
                getattr(axes, f"set_{name}lim")(
                    min(low for low, _ in limits), max(high for _, high in limits)
                )
                _new_ticks(getattr(axes, f"{name}axis"))


def _new_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis in plain numbers, chosen for its new limits."""
    form = axis.get_major_formatter()  # another one says what was set by hand
    plain = isinstance(form, FuncFormatter) and form.func is plain_number
    if plain and axis.get_scale() == "log":
        axis.set_major_locator(LogLocator(base=axis.get_transform().base))
        plain_log(axis)
