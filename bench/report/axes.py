"""Axes on which one value far from the others leaves no panel half empty."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, SymmetricalLogLocator

from .drawing import LOG_AXIS, plain_log, plain_number

CROWD = 0.8  # of the means, in the lower half of an axis from 0: its upper half is as good as empty
FAR = 3.0  # times the median mean is far off


def _bands(axes: Axes, name: str) -> np.ndarray:
    """Ends of the intervals that a panel fills, along an axis."""
    bands = [item for item in axes.collections if isinstance(item, PolyCollection)]
    paths = chain.from_iterable(band.get_paths() for band in bands)
    ends = [np.asarray(path.vertices)[:, "xy".index(name)] for path in paths]
    return np.concatenate([np.empty(0), *ends])


def _data(axes: Axes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Means that a panel draws along an axis, and all that has to be seen on it: also ends of
    intervals, and lines across."""
    bars = [item for item in axes.containers if isinstance(item, ErrorbarContainer)]
    caps = {cap for bar in bars for cap in bar.lines[1]}
    drawn, whole = [np.empty(0)], [_bands(axes, name)]
    for line in axes.lines:
        values = np.ravel(np.asarray(getattr(line, f"get_{name}data")(), float))
        whole.append(values)
        if line not in caps and line.get_transform() == axes.transData:
            drawn.append(values)
    means, seen = np.concatenate(drawn), np.concatenate(whole)
    return means[np.isfinite(means)], seen[np.isfinite(seen)]


def is_far_off(means: np.ndarray, top: float) -> bool:
    """Whether on a linear axis from 0 to `top` few values far off push the others together."""
    sizes = np.abs(means)
    if not len(means) or not sizes.any():
        return False
    crowded = np.mean(sizes < top / 2) >= CROWD
    return bool(crowded or max(sizes) > FAR * np.median(sizes))


def spread_out(panels: Iterable[Axes], name: str = "y") -> bool:
    """A logarithmic axis for panels that are to be compared, where a linear one would leave them
    half empty; its label says so. Where values are 0 or less it is linear around 0. name: of the
    axis, x or y. Returns whether it was needed."""
    panels = [axes for axes in panels if axes.lines]
    parts = [_data(axes, name) for axes in panels]
    if not parts:
        return False
    means, seen = (np.concatenate(values) for values in zip(*parts))
    if not len(means) or not is_far_off(means, float(np.abs(seen).max())):
        return False
    if min(means) > 0:
        limits = _limits(panels, name, means, seen)
        for axes in panels:
            _logarithmic(axes, name, *limits)
        return True
    for axes in panels:
        _linear_around_0(axes, name, means, seen)
    return True


def _limits(
    panels: list[Axes], name: str, means: np.ndarray, seen: np.ndarray
) -> tuple[float, float]:
    """Ends of a logarithmic axis: the end of an interval near 0 must not stretch it."""
    low = min(seen[seen > 0])
    if low < min(means) / 10:
        ends = [value for axes in panels for value in _lines_across(axes, name) if value > 0]
        low = min([*ends, min(means) / 2])
    return low / 1.2, max(seen) * 1.2


def _logarithmic(axes: Axes, name: str, low: float, high: float) -> None:
    getattr(axes, f"set_{name}scale")("log")
    getattr(axes, f"set_{name}lim")(low, high)
    plain_log(getattr(axes, f"{name}axis"))
    _say(axes, name, LOG_AXIS)


def _linear_around_0(axes: Axes, name: str, means: np.ndarray, seen: np.ndarray) -> None:
    ends = float(f"{2 * np.median(np.abs(means[means != 0])):.1g}")
    low, high = 1.5 * min(*seen, -ends), 1.5 * max(*seen, ends)
    getattr(axes, f"set_{name}scale")("symlog", linthresh=ends)
    getattr(axes, f"set_{name}lim")(low, high)
    axis = getattr(axes, f"{name}axis")
    decades = SymmetricalLogLocator(base=10, linthresh=ends).tick_values(low, high)
    # inside of the linear part decades crowd at 0, and their names would lie on one another
    axis.set_major_locator(FixedLocator([at for at in decades if not 0 < abs(at) < ends / 2]))
    axis.set_major_formatter(FuncFormatter(plain_number))
    axis.set_minor_locator(NullLocator())
    _say(axes, name, f"{LOG_AXIS} beyond {ends:g}")


def _say(axes: Axes, name: str, words: str) -> None:
    """Add to the label of an axis, if it has one: in a line of its own, since labels are as long as
    panels are high."""
    label = getattr(axes, f"get_{name}label")()
    if label:
        getattr(axes, f"set_{name}label")(f"{label}\n({words})")


def _lines_across(axes: Axes, name: str) -> list[float]:
    """Values of lines that go across a panel."""
    across = [line for line in axes.lines if line.get_transform() != axes.transData]
    return [float(value) for line in across for value in getattr(line, f"get_{name}data")()]


OUT = 0.5  # of the range of the lines, above and below them: a point beyond is at the edge


def keep_to_lines(axes: Axes) -> int:
    """Limits of a logarithmic y axis that show all lines; single points far beyond them become
    triangles at its edge. Returns how many."""
    lines = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    lines = lines[lines > 0]
    clouds = [(np.asarray(points.get_offsets(), float), points) for points in axes.collections]
    heights = np.concatenate([np.empty(0), *(places[:, 1] for places, _ in clouds)])
    if not len(lines) or not len(heights):
        return 0
    room = np.exp(max(OUT * np.log(max(lines) / min(lines)), np.log(2)))
    low, high = min(lines) / room, max(lines) * room
    inside = heights[(low <= heights) & (heights <= high)]
    beyond = len(heights) - len(inside)
    if beyond:
        for places, points in clouds:
            colour = points.get_facecolor()[:, :3]
            _at_edge(axes, places[places[:, 1] > high, 0], 0.98, "^", colour)
            _at_edge(axes, places[places[:, 1] < low, 0], 0.02, "v", colour)
        seen = np.concatenate([lines, inside])
        edge = (max(seen) / min(seen)) ** 0.08
        axes.set_ylim(min(seen) / edge, max(seen) * edge)
    return beyond


def _at_edge(axes: Axes, xs: np.ndarray, height: float, marker: str, colour: np.ndarray) -> None:
    """Triangles where points lie beyond an axis. height: share of the panel's."""
    if not len(xs):
        return
    style = {"s": 9, "marker": marker, "color": colour, "linewidth": 0}
    axes.scatter(xs, [height] * len(xs), transform=axes.get_xaxis_transform(), **style)
