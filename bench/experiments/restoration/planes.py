"""The planes of restoration: class agreement and time against PSNR, a symbol for every way of every
variant. Imports no torch."""

from __future__ import annotations

import math
from string import ascii_lowercase
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ...report.curves import GREY
from ...report.drawing import blank, fill_of, look, plain_log, text
from ...report.estimate import Estimate
from ...report.view import View
from .plan import TOLD, UNTRAINED
from .reading import NAMES, kinds_of, mean_of, ways_of, ways_without

MODEL_WAYS = (*TOLD, *UNTRAINED)
# an edge around each symbol: those that overlap can be counted
EDGE = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.4}
HOLLOW = {
    "color": GREY,
    "markerfacecolor": "white",
    "markeredgecolor": GREY,
    "markeredgewidth": 0.9,
}


def _letter(view: View, variant: str) -> str:
    """A letter for each variant of the suite: ten colours are not told apart by every eye."""
    i = list((view.whole or view.results).variants(view.suite)).index(variant)
    return ascii_lowercase[i % 26] * (1 + i // 26)


def _write_letter(panel: Axes, view: View, variant: str, x: float, y: float) -> None:
    """The letter of a variant beside its symbol; letters of neighbours stand on other sides."""
    angle = 2 * math.pi * list(view.variants).index(variant) / len(view.variants)
    beside = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 5}
    away = (5 * math.cos(angle), 5 * math.sin(angle))
    said = panel.annotate(_letter(view, variant), (x, y), away, color="0.2", zorder=4, **beside)
    said.set_in_layout(False)


def _point(panel: Axes, pair: list[Estimate | None], style: dict[str, Any]) -> None:
    """PSNR and class agreement of one way. Bars are pale and lie below all symbols: many variants
    score alike, and crossing bars would hide where they are."""
    x, y = pair
    if x is None or y is None:
        return
    pale = {"color": style["color"], "alpha": 0.3, "linewidth": 0.7, "zorder": 1}
    if x.half is not None:
        panel.plot([x.low, x.high], [y.mean, y.mean], **pale)
    if y.half is not None:
        panel.plot([x.mean, x.mean], [y.low, y.high], **pale)
    panel.plot([x.mean], [y.mean], linestyle="none", **{**EDGE, "zorder": 3, **style})


def _legend(panel: Axes, view: View, without: bool = True) -> None:
    """A colour and letter for each variant, a symbol for each way: a name for every pair would fill
    a page."""
    for variant in view.variants:
        style = {**EDGE, **_style(view, variant, MODEL_WAYS[0]), "marker": "s"}
        label = text(f"{_letter(view, variant)}: {variant}")
        panel.plot([], [], linestyle="none", label=label, **style)
    taken = {way for variant in view.variants for way in ways_of(view, variant)}
    for i, way in enumerate(MODEL_WAYS):
        if way in taken:
            style = {"color": "black", "marker": look(i)["marker"], "linestyle": "none"}
            panel.plot([], [], label=NAMES[way], **style)
    for i, way in enumerate(ways_without(view) if without else ()):
        style = {**HOLLOW, "marker": look(i)["marker"], "linestyle": "none"}
        panel.plot([], [], label=NAMES[way], **style)


def _style(view: View, variant: str, way: str) -> dict[str, Any]:
    """Colour of a variant and symbol of a way; a dark edge where colours have come round."""
    filled = fill_of(view, variant)
    edge = {"markeredgecolor": "black"} if filled["hatch"] else {}
    return {"color": filled["color"], "marker": look(MODEL_WAYS.index(way))["marker"], **edge}


Pair = list[Estimate | None]  # PSNR and class agreement


def _way(panel: Axes, view: View, which: tuple[str, str], pair: Pair, named: bool = True) -> None:
    """One way of one variant: its symbol, and its letter where it is named."""
    x, y = pair
    _point(panel, pair, _style(view, *which))
    if named and x is not None and y is not None:
        _write_letter(panel, view, which[0], x.mean, y.mean)


def _pair(view: View, variant: str, way: str, kind: str) -> Pair:
    return [
        mean_of(view, variant, f"{score}_{way}_{kind}") for score in ("psnr", "class_agreement")
    ]


def _plane(panel: Axes, view: View, kind: str, unnamed: tuple[str, ...] = ()) -> None:
    """Every way of every variant, and those without a scale transformer, at one degradation.
    unnamed: ways whose symbols have no letter, because a panel beside has them larger."""
    first = next(iter(view.variants))
    for variant in view.variants:
        for way in ways_of(view, variant):
            pair = _pair(view, variant, way, kind)
            _way(panel, view, (variant, way), pair, named=way not in unnamed)
    for i, way in enumerate(ways_without(view)):
        _point(panel, _pair(view, first, way, kind), {**HOLLOW, "marker": look(i)["marker"]})
    if not panel.lines:
        blank(panel, "not measured")
    else:
        _legend(panel, view)
    panel.set_title(kind)
    panel.set_xlabel("PSNR (dB)")
    panel.set_ylabel("class agreement")


def has_told(view: View) -> bool:
    """Whether a variant was trained to restore."""
    return any(set(TOLD) & set(ways_of(view, variant)) for variant in view.variants)


def planes(axes: np.ndarray, view: View) -> None:
    """A panel for each degradation."""
    for panel, kind in zip(axes.flat, kinds_of(view)):
        _plane(panel, view, kind)


def planes_and_near(axes: np.ndarray, view: View) -> None:
    """Two panels for each degradation: all ways, and those alone of models that were trained to
    restore, which lie on each other beside the others."""
    panels = list(axes.flat)
    for left, right, kind in zip(panels[::2], panels[1::2], kinds_of(view)):
        _plane(left, view, kind, unnamed=TOLD)
        _plane(right, view, kind)
        right.set_title(f"{kind}, trained to restore")
        right.set_ylabel("")
        pairs = [
            _pair(view, variant, way, kind)
            for variant in view.variants
            for way in ways_of(view, variant)
            if way in TOLD
        ]
        _keep_to(right, pairs)


def _keep_to(panel: Axes, pairs: list[Pair]) -> None:
    """Limits that show some points; bars may pass them."""
    for limit, values in zip((panel.set_xlim, panel.set_ylim), zip(*pairs)):
        means = [value.mean for value in values if value is not None]
        if means:
            room = 0.12 * (max(means) - min(means)) or 0.05 * abs(means[0]) or 0.05
            limit(min(means) - room, max(means) + room)


def times(axes: np.ndarray, view: View) -> None:
    """Every way of every variant: PSNR, mean over degradations, against time."""
    (panel,) = axes.flat
    for variant in view.variants:
        for way in ways_of(view, variant):
            pair = [view.estimate(variant, f"{name}_{way}") for name in ("restore_ms", "psnr")]
            _way(panel, view, (variant, way), pair)
    if not panel.lines:
        blank(panel, "no time was measured")
        return
    _legend(panel, view, without=False)
    panel.set_xscale("log")
    plain_log(panel.xaxis)
    panel.set_xlabel("ms an image")
    panel.set_ylabel("PSNR (dB), mean")
