"""What all figures share: style, axes, legends, notes on what is missing, mosaics of images."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, FigureBase
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)
from numpy.typing import ArrayLike

from ..runtime.rows import write_text, written_whole
from ..study.escaping import rst
from .caption import Caption
from .estimate import Estimate, estimate
from .glyphs import drawable, families, lenders, names_of, text, wrapped, wrapped_into
from .looks import places
from .view import View

SINGLE, DOUBLE = 3.3, 6.8
# olive for the yellow of the palette, which is faint on white; also to eyes that see no red or no
# green it is as far from the others as they are from one another
OLIVE = to_rgb("#666200")
COLOURS = [*sns.color_palette("colorblind")[:8], OLIVE, sns.color_palette("colorblind")[9]]
# ten colours and nine markers: no two of the first ninety variants look alike, and where a figure
# draws no markers, or bars, none of the first fifty
MARKERS = "os^DvPX<>"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")
RED = "#c00000"
LARGEST = 60_000  # pixels of a side that matplotlib can draw
STYLE = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.handlelength": 3.2,  # long enough to tell dashes from dots
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.family": families(),
    "svg.hashsalt": "srdd",
    "figure.constrained_layout.use": True,
}
# for all of this program: legends and titles read it when they are made
matplotlib.rcParams.update(STYLE)


# ---------------------------------------------------------------- parts


def write_figure(stem: Path, figure: Figure, caption: Caption | str, reduced: str = "") -> None:
    """<stem>.png, .svg and the caption as .rst; the same bytes for the same rows. A reduced study
    is marked on the figure. What was decided for its values, and
    names that no font draws, stand in the details."""
    caption = Caption.of(caption)
    if reduced:
        _mark_reduced(figure)
    dpi = min(200, int(LARGEST / max(figure.get_size_inches())))
    for artist in figure.findobj(Text) if lenders else ():
        artist.set_fontfamily(all_families())  # made before a name asked for a further font
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        with written_whole(stem.with_name(f"{stem.name}.{ending}")) as temporary:
            figure.savefig(temporary, format=ending, dpi=dpi, metadata=metadata)
        if len(figure.axes) > 20:
            figure.set_layout_engine("none")  # laid out once: it takes most of the time
    details = (*caption.details, _axes_words(figure), _key(figure))
    plt.close(figure)
    write_text(stem.with_name(f"{stem.name}.rst"), Caption(caption.text, details).rst())


LOG_AXIS = "log axis"  # what the label says of an axis that was made logarithmic for its values


def _axes_words(figure: Figure) -> str:
    """Why a label says that its axis is logarithmic; empty where none does."""
    labels = [axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes]
    if not any(f"({LOG_AXIS}" in label for label in labels):
        return ""
    return "Log axis: on a linear one a few values far off would leave the panel half empty."


def all_families() -> list[str]:
    """The usual font families, and those that lend what these lack."""
    return list(dict.fromkeys([*families(), *lenders]))


def _key(figure: Figure) -> str:
    """What the escapes of a figure stand for; empty where it has none."""
    texts = [artist.get_text() for artist in figure.findobj(Text)]
    names = [f"{rst(shown)} is {rst(name)}" for shown, name in names_of(texts).items()]
    return f"Without letters on this machine: {'; '.join(names)}." if names else ""


def _mark_reduced(figure: Figure) -> None:
    """Say above a figure that its study is a reduced one, before what is missing."""
    words = "reduced study, no claim"
    if figure.get_layout_engine() is None:  # laid out by hand, with room below
        figure.supxlabel(words, color=RED, fontsize=6, x=0.99, ha="right")
        return
    missing = figure.get_suptitle()
    figure.suptitle(f"{words}\n{missing}" if missing else words, color=RED, fontsize=6)


def look(i: int) -> dict[str, Any]:
    """Colour, marker and line of the i-th variant. Each time that the colours come round, lines
    begin one further: five go into ten, and a colour would always have the same line."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": LINES[(i + i // len(COLOURS)) % len(LINES)],
    }


def fill_of(view: View, name: str) -> dict[str, Any]:
    """Colour of a variant's bars, hatched from the eleventh variant on."""
    i = _place(view, name)
    return {"color": look(i)["color"], "hatch": HATCHES[i // len(COLOURS) % len(HATCHES)]}


def look_of(view: View, name: str) -> dict[str, Any]:
    """`look` of a variant or group, the same in every figure of its study."""
    return look(_place(view, name))


def _place(view: View, name: str) -> int:
    return places(view.whole or view.results)[name]


def canvas(
    width: float, height: float, rows: int = 1, columns: int = 1, **more: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, always as a (rows, columns) array."""
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **more)


LINE = 0.12  # inches of a line of a name
LONGEST = 110  # points of a slanted name below a panel of two
HANDLE, BETWEEN = 28, 14  # points of a handle before a name, and between two columns of a legend


def grid_shape(count: int, most: int) -> tuple[int, int]:
    """Rows and columns of so many panels, at most `most` of them side by side; one for none."""
    columns = min(most, max(1, count))
    return max(1, -(-count // columns)), columns


def hide_rest(axes: np.ndarray, count: int) -> None:
    """Take away the panels of a grid beyond the first ones."""
    for panel in axes.flat[count:]:
        panel.set_visible(False)


def text_width(line: str) -> float:
    """Points that a line takes in a legend."""
    small = FontProperties(family=all_families(), size=7)
    return text_to_path.get_text_width_height_descent(line, small, ismath=False)[0]


def _columns(widths: list[float], most: int, room: float) -> int:
    """In how many columns a legend of names of these widths fits."""
    for columns in range(min(most, len(widths)), 1, -1):
        parts = [part.max() for part in np.array_split(np.array(widths), columns)]
        if sum(parts) + HANDLE * columns + BETWEEN * (columns - 1) <= room:
            return columns
    return 1


def _legend(figure: FigureBase, columns: int) -> tuple[dict[str, Any], int]:
    """Handles by their labels, wrapped where they are too long, and in how many columns they fit
    below a figure."""
    room = 72 * figure.bbox.width / figure.dpi - 10
    most = int((room - HANDLE) / 4)  # letters of one line
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            lines = textwrap.wrap(label, most, drop_whitespace=False)
            handles.setdefault("\n".join(lines), handle)
    widths = [max(map(text_width, label.split("\n"))) for label in handles]
    return handles, _columns(widths, columns, room)


def legend_height(figure: FigureBase, columns: int = 4) -> float:
    """Inches that the legend below a figure will take."""
    handles, columns = _legend(figure, columns)
    lines = [1 + label.count("\n") for label in handles]
    rows = -(-len(lines) // max(1, columns))
    # a legend is filled column by column; a row is as high as its highest cell
    return sum(0.05 + 0.115 * max(lines[row::rows]) for row in range(rows))


def legend_below(figure: FigureBase, columns: int = 4) -> None:
    """One legend for all panels, under them: it hides no data."""
    handles, columns = _legend(figure, columns)
    if handles:
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=7,
        )


def note(figure: Figure, words: str) -> None:
    """What is missing and why, in red above the panels."""
    if words:
        lines = textwrap.wrap(f"missing: {drawable(words)}", int(figure.get_figwidth() * 21))
        if len(lines) > 4:
            left = "; ".join(lines[4:]).count(";") + 1
            lines = [*lines[:4], f"... and {left} more; the tables name all"]
        figure.suptitle("\n".join(map(text, lines)), fontsize=6, color=RED)


def blank(axes: Axes, words: str, letters: int = 24) -> None:
    """Say in a panel why it holds no data."""
    said = axes.text(
        0.5,
        0.5,
        wrapped(words, letters),
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=RED,
        fontsize=7,
    )
    said.set_in_layout(False)  # a long reason must not squeeze the panels
    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)


def band(
    axes: Axes,
    rows: pd.DataFrame,
    x: str,
    label: str,
    style: dict[str, Any],
    along: str | None = None,
) -> None:
    """Mean of `value` at each x as a line with its 95 % t-band.

    along: a column whose mean is drawn against, instead of x.
    """
    xs, means = [], []
    for place, part in rows.groupby(x):
        mean = estimate(part["value"])
        if mean is not None:
            xs.append(part[along].mean() if along else place)
            means.append(mean)
    draw_band(axes, xs, means, label, style)


def draw_band(
    axes: Axes, xs: list[float], means: list[Estimate], label: str, style: dict[str, Any]
) -> None:
    """A line of means and the band of their intervals, where there are some."""
    axes.plot(xs, [mean.mean for mean in means], label=text(label), **style)
    sure = [mean.half is not None for mean in means]
    low, high = [mean.low for mean in means], [mean.high for mean in means]
    draw_between(axes, xs, low, high, sure, style["color"])


def draw_between(
    axes: Axes, xs: ArrayLike, low: ArrayLike, high: ArrayLike, sure: Sequence[bool], colour: Any
) -> None:
    """A band from low to high where both are known; a bar at a place without such a neighbour, of
    which a band would show nothing."""
    where = np.asarray(sure, bool)
    axes.fill_between(xs, low, high, where=where, color=colour, alpha=0.15, linewidth=0)
    edged = np.pad(where, 1)
    alone = where & ~edged[:-2] & ~edged[2:]
    if alone.any():
        places, bottom, top = np.asarray(xs)[alone], np.asarray(low)[alone], np.asarray(high)[alone]
        axes.vlines(places, bottom, top, color=colour, linewidth=0.8)


def title_with(axes: Axes, name: str, columns: int) -> None:
    """A name above one of so many panels side by side, in lines no longer than the panel."""
    axes.set_title(wrapped(name, int(14 * DOUBLE / columns)))


def slanted(
    names: Iterable[str], letters: int, pitch: float, degrees: float
) -> tuple[list[str], float]:
    """Names that stand slanted, so many inches apart: in lines of so many letters, or longer ones
    where more lines would lie on the next name. Also the inches that they take across the axis."""
    slope = math.sin(math.radians(degrees))
    lines = max(1, int(pitch * slope / LINE))
    marks = [wrapped_into(lines, name, letters) for name in names]
    longest = max((text_width(line) for mark in marks for line in mark.split("\n")), default=0.0)
    return marks, longest / 72 * slope + LINE * lines


def leaning(degrees: float) -> dict[str, Any]:
    """How names stand at a slant below an axis: each ends at its place."""
    return {"rotation": degrees, "ha": "right", "rotation_mode": "anchor"}


def name_ticks(axes: Axes, names: Sequence[str]) -> None:
    """A place for each of these names on the x axis, at 0, 1, 2, ..., written at a slant; names
    that would leave the panel no room stand in the legend alone."""
    marks = list(map(text, names))
    if max(map(text_width, marks), default=0.0) > LONGEST:
        marks = [""] * len(names)
        axes.set_xlabel("variant (symbols: below)")
    axes.set_xticks(range(len(names)), marks, **leaning(40))
    axes.set_xlim(-0.5, max(1, len(names)) - 0.5)


def apart(i: int, count: int, step: float) -> float:
    """How far the i-th of so many variants stands beside its place: equal values would hide each
    other."""
    return min(step, 0.3 / count) * (i - (count - 1) / 2)


def scale_places(view: View, patch_nums: Sequence[int], even: bool = False) -> dict[int, float]:
    """Where each scale of a schedule stands on an x axis of grid sides: at its side. Where a
    schedule of the suite has a side twice, or on request, scales stand one step apart: else those
    of 4-4-4-4 would lie on each other. Scales of one side and one turn share a place.
    """
    results = view.whole or view.results  # one axis for every part of a sheet
    grids = [names["patch_nums"] for names in results.variants(view.suite).values()]
    if not even and all(len(set(grid)) == len(grid) for grid in grids):
        return dict(enumerate(patch_nums))
    steps = sorted({step for grid in grids for step in _turns(grid)})
    return {k: float(steps.index(step)) for k, step in enumerate(_turns(patch_nums))}


def _turns(patch_nums: Sequence[int]) -> list[tuple[int, int]]:
    """Each side of a schedule, and how many scales before had it."""
    return [(side, list(patch_nums[:k]).count(side)) for k, side in enumerate(patch_nums)]


def side_ticks(axes: Axes, view: View, first: int = 0, even: bool = False) -> None:
    """The x axis of scales: the side of each token grid that a variant has, where `scale_places`
    puts it. first: the first scale that has numbers."""
    sides: dict[float, int] = {}
    for names in view.variants.values():
        grid = names["patch_nums"]
        at = scale_places(view, grid, even)
        sides |= {at[k]: side for k, side in enumerate(grid) if k >= first}
    sides = dict(sorted(sides.items())) or {1: 1}
    axes.xaxis.set_major_locator(FixedLocator(list(sides)))
    axes.xaxis.set_major_formatter(FixedFormatter([str(side) for side in sides.values()]))
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = min(sides), max(sides)
    margin = 0.06 * (1 + high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_xlabel("grid side of the scale (tokens)")


def plain_number(value: float, _: int | None = None) -> str:
    """What a tick of a logarithmic axis says."""
    return f"{value:g}"


def plain_log(axis: Any) -> None:
    """Write 0.5, 10 and 200 on a logarithmic axis, not powers."""
    axis.set_major_formatter(FuncFormatter(plain_number))
    axis.set_minor_formatter(NullFormatter())  # else 6x10^0 beside 10
    low, high = sorted(axis.get_view_interval())
    if high > 300 * low:
        return  # powers of ten are enough to be read
    steps = (1, 2, 3, 5) if high < 30 * low else (1, 3)
    ticks = MaxNLocator(5).tick_values(low, high)
    if high > 6 * low:
        fractions = [step * 10.0**e for e in range(-9, 10) for step in steps]
        ticks = [tick for tick in fractions if low <= tick <= high]
    axis.set_major_locator(FixedLocator(ticks))
    if high < 30 * low:
        axis.set_minor_locator(NullLocator())
    axis.set_view_interval(low, high, ignore=True)


# ---------------------------------------------------------------- images


def in_colour(image_CHW: np.ndarray) -> np.ndarray:
    """uint8 image as rows, columns, three colours."""
    image = image_CHW.transpose(1, 2, 0)
    return np.repeat(image, 3, 2) if image.shape[2] == 1 else image


def _pitch(images: dict[tuple[int, int], np.ndarray]) -> tuple[int, int]:
    """Side of the images, and with a gap of an eighth of it, in pixels."""
    side = next(iter(images.values())).shape[-1]
    return side, side + max(1, side // 8)


def mosaic(images: dict[tuple[int, int], np.ndarray], rows: int, columns: int) -> np.ndarray:
    """Images by (row, column) on white, each with a gap of an eighth of its side."""
    side, pitch = _pitch(images)
    canvas = np.full((rows * pitch, columns * pitch, 3), 255, np.uint8)
    for (row, column), image in images.items():
        top, left = row * pitch, column * pitch
        canvas[top : top + side, left : left + side] = in_colour(image)
    gap = pitch - side
    return canvas[: rows * pitch - gap, : columns * pitch - gap]


def place(axes: Axes, images: dict[tuple[int, int], np.ndarray], rows: int, columns: int) -> float:
    """Draw a mosaic with nearest-neighbour enlargement; returns the pitch of its images in
    pixels."""
    axes.imshow(mosaic(images, rows, columns), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return _pitch(images)[1]
