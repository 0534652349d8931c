"""Unique images and epochs: curves with their fit, what repeats are worth, crossings, rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from ...report.absent import missing_words
from ...report.caption import Caption
from ...report.claims import (
    Verdict,
    claim_details,
    claimed,
    decided_together,
)
from ...report.drawing import (
    COLOURS,
    DOUBLE,
    MARKERS,
    blank,
    canvas,
    draw_band,
    grid_shape,
    hide_rest,
    legend_below,
    note,
    plain_log,
    title_with,
)
from ...report.estimate import FEWEST, Estimate, estimate, show_difference
from ...report.view import View
from ...report.words import held_out, seeds_details
from ...study.escaping import rst
from . import scaling, tables
from .crossing import best_so_far
from .curves import (
    additive,
    by_images,
    compute,
    curves,
    fits,
    lone_words,
    schedule_error_words,
    settings,
    systems,
    warm_words,
)
from .fit import Curve, Fit

COLUMNS = 3  # panels side by side
HEADROOM = 1.25  # of the worst best loss: what overfits further leaves the panel
DEEPEST = -5  # per cent: an interval that ends lower would press the lines together
CLIPPED = 0.3  # nats a token; colours of a larger difference are the same
DASHED = {"linestyle": "--", "linewidth": 0.8, "marker": ""}

Panel = Callable[[Axes, str, dict[int, list[Curve]]], None]


# ---------------------------------------------------------------- rules


def judge_scaling(view: View, claim: dict[str, Any]) -> Verdict:
    """Yes where R* (effective data, arXiv 2305.16264) of the variant is above that of the other by
    the difference of their logarithms, in both readings: up to the minimum of each curve, and with
    the tail beyond it. In each by two intervals, over resampled trainings and over training seeds
    fitted alone. Not decided where readings or intervals differ or an R* is not identified."""
    return scaling.judged_twice(view, claim)


def judge_every(view: View, claim: dict[str, Any]) -> Verdict:
    """Yes where the paired interval of a number over training seeds lies on the claimed side of 0
    at every number of unique images, no where it lies on the other at every one."""
    of, metric = systems(view), claim["metric"]
    ours, theirs = (of.get(claim[side], {}) for side in ("variant", "against"))
    both = sorted(set(ours) & set(theirs))
    differences = {U: view.difference(ours[U], metric, theirs[U]) for U in both}
    what = f"{metric} of {claim['variant']} minus that of {claim['against']}, paired by seed: "
    said = "; ".join(f"{show_difference(value)} at {U}" for U, value in differences.items())
    reason = what + (said or "no number of unique images in common")
    if not both or any(value is None or value.count < FEWEST for value in differences.values()):
        return Verdict("not decided", f"{reason}; fewer than three training seeds")
    word, p = decided_together(differences)
    return Verdict(claimed(word, claim), reason, p)


# ---------------------------------------------------------------- parts of figures


def _colour(place: int, count: int) -> Any:
    """Colour of a number of images among several: dark for few, bright for many."""
    return colormaps["viridis"](0.05 + 0.85 * place / max(1, count - 1))


def _style(view: View, images: int) -> dict[str, Any]:
    """Line of a number of unique images, the same in every panel."""
    sizes = sorted({U for of in systems(view).values() for U in of})
    place = sizes.index(images)
    return {"color": _colour(place, len(sizes)), "marker": MARKERS[place % len(MARKERS)],
            "markersize": 2.5, "linewidth": 1.0}  # fmt: skip


def _grown(view: View) -> dict[str, dict[int, list[Curve]]]:
    """Curves by images of the systems that are trained on more than one number of them."""
    of = {name: by_images(some) for name, some in curves(view).items()}
    return {name: sizes for name, sizes in of.items() if len(sizes) > 1}


def _means(some: list[Curve], value: Callable[[Curve], np.ndarray]) -> list[tuple[float, Estimate]]:
    """Mean over seeds of a value at each evaluation that all have: epochs and estimate."""
    count = min(len(curve.epochs_P) for curve in some)
    means = []
    for place in range(count):
        mean = estimate([value(curve)[place] for curve in some])
        if mean is not None:
            means.append((float(some[0].epochs_P[place]), mean))
    return means


def _line(
    panel: Axes, means: list[tuple[float, Estimate]], label: str, style: dict[str, Any]
) -> None:
    """Means along an axis with their intervals."""
    draw_band(panel, [x for x, _ in means], [mean for _, mean in means], label, style)


def _label_edges(axes: np.ndarray, count: int, below: str, left: str) -> None:
    """Names of the axes at the left and below the last panel of each column, where panels share
    them; what is beyond `count` is taken away, and a figure of none says so."""
    hide_rest(axes, count)
    for panel in axes[:, 0]:
        panel.set_ylabel(left)
    for panel in axes.flat[max(0, count - axes.shape[1]) : count]:
        panel.set_xlabel(below)
        panel.tick_params(labelbottom=True)
    if not count:
        axes[0, 0].set_visible(True)
        blank(axes[0, 0], "no training on several numbers of images")


def _panels(view: View, draw: Panel, title: str, of: dict[str, dict[int, list[Curve]]]) -> Figure:
    """A panel for every system over epochs, on a logarithmic axis and with one legend. of: the
    curves that have a line, by system and images."""
    rows, columns = grid_shape(len(of), COLUMNS)
    figure, axes = canvas(DOUBLE, 0.4 + 2.1 * rows, rows, columns, sharex=True, sharey=True)
    for images in sorted({U for sizes in of.values() for U in sizes}):  # the legend in their order
        axes[0, 0].plot([], [], label=f"{images:,} images", **_style(view, images))
    for panel, (name, sizes) in zip(axes.flat, of.items()):
        draw(panel, name, sizes)
        title_with(panel, name, columns)
        panel.set_xscale("log")
        plain_log(panel.xaxis)
    _label_edges(axes, len(of), "epochs", title)
    legend_below(figure, 6)
    note(figure, missing_words(view, "epochs_to_best"))
    return figure


def _details(view: View) -> tuple[str, ...]:
    """What every figure and table of the room says."""
    return (
        *claim_details(view),
        f"Losses of {held_out(view.results)}; the step that is kept was chosen on the validation "
        "split. A model without masks has its exact one-pass loss. One with masks has the smaller "
        "of that and the any-order bound, which is Monte Carlo over draws of masks. A bound and an "
        "exact loss are different quantities: a lead by a bound is a lead, a lag may be its own.",
        "One tokenizer of the whole training split serves every number of images; smaller sets "
        "are parts of larger ones.",
        "Constant rate and averaged weights: every evaluation is a point of the curve.",
        schedule_error_words(view),
        lone_words(view),
        warm_words(view),
        rst(missing_words(view, "epochs_to_best")),
        *seeds_details(view),
    )


# ---------------------------------------------------------------- loss against epochs


def _fit_of(view: View, name: str) -> Fit | None:
    if settings(view).form == "additive":
        return additive(view)[name]
    fitted = fits(view, "to the minimum")[name]
    return fitted.fit if fitted else None


def _draw_losses(view: View) -> Panel:
    def draw(panel: Axes, name: str, sizes: dict[int, list[Curve]]) -> None:
        fitted = _fit_of(view, name)
        for images, some in sizes.items():
            style = _style(view, images)
            means = _means(some, lambda curve: curve.losses_P)
            _line(panel, means, f"{images:,} images", style)
            best = estimate([curve.best_epochs for curve in some])
            loss = estimate(
                [view.of(systems(view)[name][images], "best_loss")[c.seed] for c in some]
            )
            if best is not None and loss is not None:
                panel.plot(best.mean, loss.mean, "o", markersize=7, markerfacecolor="none",
                           color=style["color"])  # fmt: skip
            if fitted is not None:
                epochs = np.geomspace(some[0].epochs_P[0], some[0].epochs_P[-1], 60)
                fresh = fitted.losses(np.full(60, float(images)), epochs)
                panel.plot(epochs, fresh, color=style["color"], **DASHED)
        panel.plot([], [], color="0.35", label="fit", **DASHED)

    return draw


def _limit(figure: Figure, view: View) -> None:
    """Cut off what overfits far beyond the best losses."""
    every = [float(curve.until_best().losses_P.min()) for of in _grown(view).values()
             for some in of.values() for curve in some]  # fmt: skip
    if every:
        figure.axes[0].set_ylim(0.97 * min(every), HEADROOM * max(every))


def figure_repetition(view: View) -> tuple[Figure, Caption]:
    """Held-out loss against epochs for every number of unique images, with the fit."""
    figure = _panels(view, _draw_losses(view), "held-out loss (nats/token)", _grown(view))
    _limit(figure, view)
    form = settings(view).form
    words = (
        "Held-out loss against epochs, one line a number of unique images, one panel a system. "
        "Ring: the weights that early stopping keeps. Lines: mean over seeds; bands: 95 % "
        f"t-interval. Dashed: the {form} fit; losses far above the best leave the panel."
    )
    return figure, Caption(words, (*_details(view), *tables.fit_words(view)))


# ---------------------------------------------------------------- repeated against fresh


def _excess(some: list[Curve], fresh: list[Curve]) -> Iterator[tuple[float, Estimate]]:
    """Per cent by which losses of repeated images lie above those of the largest set at as many
    steps, paired by seed."""
    by_seed = {curve.seed: curve for curve in fresh}
    pairs = [(curve, by_seed[curve.seed]) for curve in some if curve.seed in by_seed]
    count = min((min(len(a.steps_P), len(b.steps_P)) for a, b in pairs), default=0)
    for place in range(count):
        shares = [100 * (a.losses_P[place] / b.losses_P[place] - 1) for a, b in pairs]
        mean = estimate(shares)
        if mean is not None:
            yield float(some[0].epochs_P[place]), mean


def _draw_value(view: View) -> Panel:
    def draw(panel: Axes, name: str, sizes: dict[int, list[Curve]]) -> None:
        whole = _grown(view)[name]
        for images, some in sizes.items():
            excess = list(_excess(some, whole[max(whole)]))
            _line(panel, excess, f"{images:,} images", _style(view, images))
        panel.axhline(1.0, color="0.35", linestyle=":", linewidth=0.8, label="1 % above")

    return draw


def _without_most(sizes: dict[int, list[Curve]]) -> dict[int, list[Curve]]:
    """Curves of a system but for those of the most images, against which they are drawn."""
    return {images: some for images, some in sizes.items() if images < max(sizes)}


def _lowest(some: list[Curve], fresh: list[Curve]) -> float:
    """The lowest end of an interval of repeated images against the largest set, in per cent; 0 of
    none."""
    return min((mean.low for _, mean in _excess(some, fresh)), default=0.0)


def figure_data_value(view: View) -> tuple[Figure, Caption]:
    """What repeated images are worth: their loss against that of the most images, equal compute."""
    cut = ""
    repeated = {name: _without_most(sizes) for name, sizes in _grown(view).items()}
    figure = _panels(view, _draw_value(view), "above the most images (%)", repeated)
    if any(axes.lines for axes in figure.axes):
        lowest = min(_lowest(some, sizes[max(sizes)]) for sizes in _grown(view).values()
                     for some in _without_most(sizes).values())  # fmt: skip
        bottom = max(min(-1.0, 1.1 * lowest), DEEPEST)
        figure.axes[0].set_ylim(bottom, 20)
        cut = f" or below {DEEPEST} %" if bottom == DEEPEST else ""
    words = (
        "Held-out loss of repeated images above that of the largest set after as many steps, equal "
        "compute, against epochs of the smaller set. Near 0 a repeat is as good as a new image. "
        f"Lines: mean over seeds; bands: 95 % t-interval. What lies above 20 %{cut} is cut off."
    )
    return figure, Caption(words, _details(view))


# ---------------------------------------------------------------- compute


def _system_colour(view: View, name: str) -> Any:
    return COLOURS[list(systems(view)).index(name) % len(COLOURS)]


def _draw_compute(panel: Axes, view: View, images: int) -> None:
    """Best loss so far of every system against compute, at one number of images."""
    of, grown = systems(view), _grown(view)
    first = next(iter(of))
    for place, (name, sizes) in enumerate(grown.items()):
        if images not in sizes:
            continue
        some, variant = sizes[images], of[name][images]
        means = _means(some, lambda curve: best_so_far(curve.losses_P))
        scale = compute(view, variant, np.ones(1))[0] * some[0].steps_P[0] / some[0].epochs_P[0]
        against_compute = [(epochs * scale, mean) for epochs, mean in means]
        style = {"color": _system_colour(view, name), "marker": MARKERS[place % len(MARKERS)],
                 "markersize": 2, "linewidth": 1.0}  # fmt: skip
        _line(panel, against_compute, name, style)
        middle = tables.middle_crossing(view, name, first, images)
        if middle is not None:
            panel.axvline(middle, color=style["color"], linestyle=":", linewidth=1)
            # whose line it is, also to eyes that do not tell the colours
            top = {"transform": panel.get_xaxis_transform(), "clip_on": False}
            panel.plot([middle], [1], **{**style, "markersize": 4}, **top)
    panel.set_title(f"{images:,} images")
    panel.set_xscale("log")


def figure_crossover(view: View) -> tuple[Figure, Caption]:
    """Best held-out loss so far against compute, by the number of unique images."""
    sizes = sorted({U for of in _grown(view).values() for U in of})
    rows, columns = grid_shape(len(sizes), COLUMNS)
    figure, axes = canvas(DOUBLE, 0.4 + 2.1 * rows, rows, columns, sharex=True)
    for panel, images in zip(axes.flat, sizes):
        _draw_compute(panel, view, images)
    _label_edges(axes, len(sizes), "training compute (FLOP)", "best loss so far (nats/token)")
    legend_below(figure, 5)
    note(figure, missing_words(view, "epochs_to_best"))
    first = next(iter(systems(view)), "the first system")
    words = (
        "Best held-out loss so far against training compute, one panel a number of unique images. "
        f"Dotted: where the system of its symbol falls below {rst(first)} and stays there, "
        "geometric mean over the seeds that cross. None where half or fewer do. Lines: mean over "
        "seeds; bands: 95 % t-interval."
    )
    flops = (
        "Compute: three times the operations of one pass over an image's tokens, times images "
        "drawn; a multiply and an add count as two."
    )
    before = (
        "A seed that is below from the first evaluation on crossed before it. When is not known: "
        "there is no line then, and table crossover says before."
    )
    return figure, Caption(words, (*_details(view), flops, before))


# ---------------------------------------------------------------- heat map


def _difference_map(
    ours: dict[int, list[Curve]], theirs: dict[int, list[Curve]], edges: np.ndarray
) -> tuple[list[int], np.ndarray]:
    """Mean loss difference by images and epochs, interpolated in log epochs; not a number where no
    pair of trainings reaches."""
    sizes = sorted(set(ours) & set(theirs))
    middles = np.sqrt(edges[1:] * edges[:-1])
    values = np.full((len(sizes), len(middles)), np.nan)
    for row, images in enumerate(sizes):
        by_seed = {curve.seed: curve for curve in theirs[images]}
        parts = []
        for curve in ours[images]:
            if curve.seed in by_seed:
                sides = (curve, by_seed[curve.seed])
                at = [np.interp(np.log(middles), np.log(one.epochs_P), one.losses_P,
                                left=np.nan, right=np.nan) for one in sides]  # fmt: skip
                parts.append(at[0] - at[1])
        if parts:
            values[row] = np.mean(parts, axis=0)
    return sizes, values


def figure_repetition_map(view: View) -> tuple[Figure, Caption]:
    """Loss of every system minus that of the first over unique images and epochs."""
    of = _grown(view)
    first, *others = of or [""]
    figure, axes = canvas(DOUBLE, 2.4, 1, max(1, len(others)), sharey=False)
    every = [curve.epochs_P for sizes in of.values() for some in sizes.values() for curve in some]
    for panel, name in zip(axes.flat, others):
        low, high = min(e.min() for e in every), max(e.max() for e in every)
        edges = np.geomspace(low, high, 25)
        sizes, values = _difference_map(of[name], of[first], edges)
        mesh = panel.pcolormesh(edges, np.arange(len(sizes) + 1), values, cmap="RdBu_r",
                                norm=TwoSlopeNorm(0, -CLIPPED, CLIPPED))  # fmt: skip
        panel.set_yticks(np.arange(len(sizes)) + 0.5, [f"{U:,}" for U in sizes])
        panel.set_facecolor("0.85")  # white is a difference of 0
        panel.set_xscale("log")
        plain_log(panel.xaxis)
        panel.set_xlabel("epochs")
        title_with(panel, f"{name} minus {first}", len(others))
    axes[0, 0].set_ylabel("unique images")
    if others:
        figure.colorbar(mesh, ax=list(axes.flat), label="loss difference (nats/token)",
                        extend="both")  # fmt: skip
    else:
        blank(axes[0, 0], "no second system on several numbers of images")
    note(figure, missing_words(view, "epochs_to_best"))
    words = (
        f"Held-out loss of each system minus that of {rst(first or 'the first')} after as many "
        "epochs of as many images, mean over seeds. Blue: lower. Grey: no training of one "
        f"of the two reaches there. Colours end at {CLIPPED:g} nats a token."
    )
    return figure, Caption(words, _details(view))


# ---------------------------------------------------------------- tables


def table_repetition(view: View) -> tuple[pd.DataFrame, Caption]:
    """Best loss, epochs to it and matched epochs of every system and number of images."""
    return tables.best(view, _details(view))


def table_scaling_fit(view: View) -> tuple[pd.DataFrame, Caption]:
    """The fits of every system in both readings, and the additive form."""
    return tables.fitted(view, _details(view))


def table_crossover(view: View) -> tuple[pd.DataFrame, Caption]:
    """Best loss of every system minus that of the first, and from which compute it stays below."""
    return tables.crossed(view, _details(view))
