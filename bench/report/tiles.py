"""Figures of many panels of images, laid out by hand: the usual layout of hundreds of panels takes
minutes."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .drawing import DOUBLE
from .glyphs import wrapped

LEFT, GAP = 0.6, 0.1  # inches: for the names of rows, and between panels
LINE = 0.13  # of a line of a title


def tiles(
    titles: list[str], per_line: int, ratio: float, above: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for every title, so many side by side.

    ratio: height of a panel over its width; above: inches between a panel and its title.
    """
    wide = (DOUBLE - LEFT) / per_line
    panel = wide - GAP
    shown = [wrapped(title, int(72 * panel / 4.4)) for title in titles]
    lines = [shown[i : i + per_line] for i in range(0, len(shown), per_line)]
    breaks = [max(line, key=lambda title: title.count("\n")).count("\n") for line in lines]
    heads = [LINE * (1 + most) + above + GAP for most in breaks]
    height = sum(heads) + len(lines) * (panel * ratio + GAP) + 2 * GAP
    figure = plt.figure(figsize=(DOUBLE, height))
    figure.set_layout_engine("none")
    panels, top = [], height
    for line, head in zip(lines, heads):
        top -= head + panel * ratio + GAP
        for i, title in enumerate(line):
            place = (
                (LEFT + i * wide) / DOUBLE,
                (top + GAP) / height,
                panel / DOUBLE,
                panel * ratio / height,
            )
            axes = figure.add_axes(place)
            axes.set_title(title, fontsize=7, pad=3 + 72 * above)
            panels.append(axes)
    return figure, panels
