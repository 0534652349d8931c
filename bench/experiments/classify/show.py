"""Evidence of classes by scale, smoothing, the funnel, maps of evidence, and their rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ...report.absent import missing_words, reach
from ...report.caption import Caption
from ...report.cells import MOST_COLUMNS, frame, shown
from ...report.claims import NO_DIRECTION, Verdict, claim_details, direction
from ...report.curves import GREY, curve
from ...report.drawing import (
    DOUBLE,
    blank,
    canvas,
    fill_of,
    legend_below,
    look,
    look_of,
    note,
    plain_log,
    text,
    title_with,
)
from ...report.sheets import Draw, by_variant, sheet
from ...report.view import View
from ...study.escaping import rst
from .plan import is_gain
from .reading import (
    BASELINES,
    WAYS,
    Point,
    asked,
    averaged_words,
    baseline,
    by_repeat,
    by_scale,
    cost_words,
    of_run,
    run_details,
    strip_run,
    ways_of,
)
from .rows import baseline_rows, lost_words, of_baseline, shift_name, shift_row, variant_row
from .rules import of_difference, of_funnel, of_gain

PAGE = 3  # variants beside each other
BARS = {"linewidth": 0.8, "markersize": 3, "elinewidth": 0.6, "capsize": 1.2}
HOLLOW = {"markerfacecolor": "white", "linewidth": 0.7}


def _beside(
    axes: Axes, points: Sequence[Point], place: tuple[int, int], label: str, style: dict[str, Any]
) -> None:
    """The i-th of so many curves over whole numbers, with bars beside those of the others: bands
    of curves that lie on each other would hide them."""
    if not points:
        return
    i, count = place
    shift = 0.3 * ((i + 0.5) / count - 0.5)
    axes.errorbar(
        [x + shift for x, _ in points],
        [value.mean for _, value in points],
        yerr=[math.nan if value.half is None else value.half for _, value in points],
        label=text(label),
        **{**style, **BARS},
    )


# ---------------------------------------------------------------- evidence by scale


def _bars(axes: Axes, view: View, metric: str) -> None:
    """A bar for every scale of every variant; at its end symbol and interval as in the legend."""
    width = 0.8 / len(view.variants)
    for i, variant in enumerate(view.variants):
        means = by_scale(view, variant, metric)
        xs = [k + (i + 0.5) * width - 0.4 for k in means]
        half = [mean.half or 0 for mean in means.values()]
        heights = [mean.mean for mean in means.values()]
        axes.bar(xs, heights, width, **fill_of(view, variant), alpha=0.35)
        ends = {**look_of(view, variant), **BARS, "linestyle": "none"}
        axes.errorbar(xs, heights, yerr=half, **ends)
    if not axes.patches:
        blank(axes, "not measured")


def _class_evidence(axes: np.ndarray, view: View) -> None:
    """Accuracy of the first scales, of each scale alone, and what a class says of each."""
    first, alone, nats = axes.flat
    for i, variant in enumerate(view.variants):
        points: list[Point] = list(by_scale(view, variant, "accuracy").items())
        _beside(first, points, (i, len(view.variants)), variant, look_of(view, variant))
    if not first.lines:
        blank(first, "not measured")
    _bars(alone, view, "accuracy_only")
    _bars(nats, view, "class_nats")
    first.set_ylabel("accuracy")
    first.set_title("all scales up to this one")
    alone.set_ylabel("accuracy")
    alone.set_title("this scale alone")
    nats.set_ylabel("nats an image")
    nats.set_title("what the true class says")
    scales = max(len(names["patch_nums"]) for names in view.variants.values())
    for panel in (first, alone, nats):
        panel.set_xticks(range(scales))
        panel.set_xlabel("scale, coarse to fine")


def figure_class_evidence(view: View) -> tuple[Figure, Caption]:
    """Accuracy against the number of scales, of each scale alone, and class evidence in nats
    (A-VARC, arXiv 2510.12060)."""
    figure = sheet(by_variant(view, 8), (DOUBLE, 2.3), (1, 3), _class_evidence, columns=5)
    note(figure, missing_words(view, "accuracy"))
    caption = (
        "Left: share of held-out images whose true class makes the tokens of the first scales "
        "likeliest. Middle: the same of one scale alone, coarser ones known but not scored. "
        "Right: how much likelier the true class makes a scale's tokens than no class does. "
        "Symbols of one scale stand side by side. Mean and interval."
    )
    return figure, Caption(caption, (*claim_details(view), *run_details(view), reach(view)))


# ---------------------------------------------------------------- smoothing


def _smoothing(axes: np.ndarray, view: View) -> None:
    """A column for each variant: accuracy over copies, and over noise beside the tokens that it
    changes."""
    told = asked(view)
    counts = sorted(told["samples"])
    for column, variant in enumerate(view.variants):
        copies, noise = axes[:, column]
        title_with(copies, variant, axes.shape[1])
        for i, sigma in enumerate(told["sigma"]):
            means = by_repeat(view, variant, f"accuracy_smoothed_s{sigma:g}")
            points = [(place, means[n]) for place, n in enumerate(counts) if n in means]
            _beside(copies, points, (i, len(told["sigma"])), f"noise {sigma:g}", look(i))
        _over_noise(noise, view, variant)
        if copies.lines:
            copies.set_xticks(range(len(counts)), [str(n) for n in counts])
        else:
            blank(copies, "not measured")
        copies.set_xlabel("copies averaged")
        noise.set_xlabel("noise (std of the latent)")
    for row in axes:
        row[0].set_ylabel("accuracy")


def _level(panels: Iterable[Axes], *names: str) -> None:
    """The same limits for all panels that hold data; an empty one keeps none from having ticks, as
    a shared axis would."""
    drawn = [panel for panel in panels if panel.lines]
    for name in names:
        limits = [getattr(panel, f"get_{name}lim")() for panel in drawn]
        for panel in drawn:
            low, high = min(low for low, _ in limits), max(high for _, high in limits)
            getattr(panel, f"set_{name}lim")(low, high)


def _over_noise(axes: Axes, view: View, variant: str) -> None:
    """Accuracy at the copies that were chosen, and on a second axis the share of tokens that
    change."""
    told, points, changed = asked(view), [], []
    for sigma in told["sigma"]:
        means = by_repeat(view, variant, f"accuracy_smoothed_s{sigma:g}")
        share = view.estimate(variant, f"tokens_changed_s{sigma:g}")
        if told["chosen_samples"] in means and share is not None:
            points.append((sigma, means[told["chosen_samples"]]))
            changed.append((sigma, share))
    if not points:
        blank(axes, "not measured")
        return
    label = f"accuracy, {told['chosen_samples']} copies"
    curve(axes, points, label, {"color": "black", "marker": "*"})
    second = axes.twinx()
    style = {"color": GREY, "marker": "x", "linestyle": ":"}
    curve(second, changed, "share of tokens that change (right axis)", style)
    second.set_ylabel("tokens changed")
    second.set_ylim(0, 1)
    second.spines["right"].set_visible(True)


def figure_smoothing(view: View) -> tuple[Figure, Caption]:
    """Accuracy against copies for every noise, and against noise beside the tokens that it changes
    (A-VARC, arXiv 2510.12060, likelihood smoothing)."""
    figure, pages = _column_sheet(view, 3.8, 2, _smoothing)
    for row in range(2):
        _level([panel for axes in pages for panel in axes[row]], "y")
    _hide_idle(figure)
    note(figure, missing_words(view, "accuracy_smoothed"))
    caption = (
        f"Top: accuracy when the {averaged_words(view)} of an image and of noisy copies are "
        "averaged, against their number. Bottom: against the noise, at the number that table and "
        "claims read; dotted: how many tokens one copy changes. Symbols of one number stand side "
        "by side. Mean and interval."
    )
    return figure, Caption(caption, (*claim_details(view), *run_details(view)))


def _column_sheet(
    view: View, height: float, rows: int, draw: Draw, **more: Any
) -> tuple[Figure, list[np.ndarray]]:
    """A column of panels for each variant, and the panels of every page, to be levelled."""
    views, pages = by_variant(view, PAGE, again=False), []

    def draw_page(axes: np.ndarray, part: View) -> None:
        draw(axes, part)
        pages.append(axes)

    most = max(len(page.variants) for page in views)
    return sheet(views, (DOUBLE, height), (rows, most), draw_page, **more), pages


def _hide_idle(figure: Figure) -> None:
    """Take away panels of the last page that no variant needs."""
    for axes in figure.axes:
        if not (axes.lines or axes.texts or axes.patches or axes.get_title()):
            axes.set_visible(False)


# ---------------------------------------------------------------- accuracy for tokens


def _funnel(axes: np.ndarray, view: View) -> None:
    for panel, variant in zip(axes.flat, view.variants):
        title_with(panel, variant, axes.shape[1])
        points = ways_of(view, variant)
        for name, of_way in points.items():
            curve(panel, of_way, name, look(WAYS.index(name)))
        if not points:
            blank(panel, "not measured")
        else:
            panel.set_xscale("log")
        panel.set_xlabel("tokens an image")
    axes.flat[0].set_ylabel("accuracy")


def figure_funnel(view: View) -> tuple[Figure, Caption]:
    """Accuracy against tokens through the network: the first scales, one scale, the funnel, the
    masked bound (A-VARC, arXiv 2510.12060)."""
    figure, pages = _column_sheet(view, 2.3, 1, _funnel, columns=3)
    panels = [panel for axes in pages for panel in axes.flat]
    _level(panels, "x", "y")
    for panel in panels:
        if panel.lines:
            plain_log(panel.xaxis)
    _hide_idle(figure)
    note(figure, missing_words(view, "accuracy"))
    caption = (
        "Accuracy against the tokens that go through the network for an image, all of its classes "
        "counted. Higher and further left is better. One scale alone is cheap only where scales "
        "do not look back (history 0); elsewhere coarser ones run too. Tokens on a logarithmic "
        "axis. Mean and interval."
    )
    return figure, Caption(caption, (*claim_details(view), *run_details(view), cost_words()))


# ---------------------------------------------------------------- which tokens decide


def _maps(page: SubFigure, axes: np.ndarray, view: View, run: str) -> None:
    """Images, and below each what its tokens say for its class, against no class and against the
    strongest other, with the nats that a colour means."""
    images = view.results.images
    rows = images[f"{run}/explained"], images[f"{run}/tmi"], images[f"{run}/contrastive"]
    for row, of_row in enumerate(rows):
        for column, panel in enumerate(axes[row]):
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if column >= len(of_row):
                panel.set_visible(False)
            elif row == 0:
                picture = of_row[column].transpose(1, 2, 0).squeeze()
                panel.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            else:
                image = panel.imshow(of_row[column][0], cmap="RdBu_r", vmin=1, vmax=255)
    for panel, words in zip(axes[:, 0], ("image", "against\nno class", "against\nthe next")):
        panel.set_ylabel(words)
    limit = of_run(view, run, "map_limit")
    if limit and len(rows[0]):
        bar = page.colorbar(image, ax=list(axes.flat), fraction=0.04, shrink=0.6, label="nats")
        bar.set_ticks([1, 128, 255], labels=[f"-{limit:.3g}", "0", f"+{limit:.3g}"])


def _left(axes: Axes, view: View, way: str) -> None:
    """Decisions left, by the number of tokens, in the order of evidence and in a random one."""
    for variant in view.variants:
        style = look_of(view, variant)
        for order, more in (("evidence", {}), ("random", HOLLOW)):
            points: list[Point] = list(by_repeat(view, variant, f"{way}_{order}").items())
            if points:
                curve(axes, points, variant, style | more)
            if points and order == "random":  # one entry of the legend stands for all of them
                axes.lines[-1].set_label("_")
    if axes.lines:
        of_all = {"color": GREY, "marker": "o", "linestyle": "none"}
        axes.plot([], [], label="hollow: random order", **of_all | HOLLOW)
    else:
        blank(axes, "not measured")
    axes.set_xlabel(f"tokens {way}")


def figure_explanations(view: View) -> tuple[Figure, Caption]:
    """Maps of token-wise mutual information, and how many decisions few tokens carry (A-VARC, arXiv
    2510.12060)."""
    strip = strip_run(view)
    count = max(1, asked(view)["explain"])
    figure, _ = canvas(DOUBLE, 5.2)
    figure.clf()
    upper, lower = figure.subfigures(2, 1, height_ratios=[3, 2.6])
    panels = upper.subplots(3, count, squeeze=False)
    if strip:
        _maps(upper, panels, view, strip[2])
    else:
        for panel in panels.flat[1:]:
            panel.set_visible(False)
        blank(panels[0, 0], "no maps")
    kept, dropped = lower.subplots(1, 2, sharey=True)
    _left(kept, view, "kept")
    _left(dropped, view, "dropped")
    kept.set_ylabel("share of decisions left")
    legend_below(lower, 6)
    caption = (
        "Top: images, and what their tokens say: red for the true class, blue against it, all on "
        "one scale of colours. Bottom: share of decisions that stay when only the tokens that "
        "speak most for them are kept, or these are dropped. Hollow: tokens in random order."
    )
    details = *claim_details(view), *_map_words(strip), *run_details(view)
    return figure, Caption(caption, details)


def _map_words(strip: tuple[str, int, str] | None) -> list[str]:
    """How maps are made."""
    if strip is None:
        return []
    variant, seed, _ = strip
    return [
        f"Maps of {text(variant)}, training seed {seed}; one image of each class in turn, not "
        "chosen. Each scale by nearest neighbour, weighted by its share of the finest grid's side, "
        "squared, and summed. Public code clips negative values and stretches each map by itself.",
        "Kept and dropped: the other tokens are left out of the sum; nothing is run again.",
    ]


# ---------------------------------------------------------------- tables


SHOWN = (
    "Classifier",
    "Accuracy",
    "2 s.e. of the split",
    "Smoothed",
    "Funnel",
    "Tokens",
    "Posterior NLL (nats)",
)


def table_classification(view: View) -> tuple[pd.DataFrame, Caption]:
    """Accuracy of likelihood classification, what it costs and how sure it is, above classifiers
    without a generative model."""
    rows = [variant_row(view, variant) for variant in view.variants]
    table = frame([*rows, *baseline_rows(view)])
    told, ways = asked(view), ["by all scales"]
    ways += ["with smoothing"] if told["sigma"] else []
    ways += ["by the funnel"] if told["stages"] else []
    table = table.drop(columns=_unasked(told))
    columns = [name for name in SHOWN if name in table]
    words = (
        f"Share of held-out images that are classified right: {', '.join(ways)}. Beside it the "
        "tokens that an image takes with all classes, and how far the posterior is from the truth. "
        "In brackets: classifiers without a generative model."
    )
    details = *claim_details(view), lost_words(view), *run_details(view)
    return shown(table, *columns), Caption(words, (*details, cost_words()))


def _unasked(told: dict[str, Any]) -> list[str]:
    """Columns of what the suite does not ask for."""
    of_funnel = [] if told["stages"] else ["Funnel", "Tokens, funnel", "GFLOP, funnel"]
    return of_funnel if told["sigma"] else ["Smoothed", *of_funnel]


MOST_SHIFTS = MOST_COLUMNS - 1


def table_class_shifts(view: View) -> tuple[pd.DataFrame, Caption]:
    """Accuracy on shifted images, of likelihood classification and of other classifiers."""
    shifts = ["none", *(name for name in asked(view)["shifts"] if name != "none")]
    smoothed = bool(asked(view)["sigma"])
    rows = [shift_row(view, variant, shifts) for variant in view.variants]
    for name, words in BASELINES.items():
        values = {shift: baseline(view, name, shift) for shift in shifts}
        if any(value is not None for value in values.values()):
            cells = {shift_name(key): of_baseline(name, value) for key, value in values.items()}
            rows.append({"Classifier": f"({words})", **cells})
    words = (
        "Accuracy on held-out images as they are, and changed in one way; every image is changed "
        "by its own seed, the same for all classifiers. In brackets: classifiers without "
        f"a generative model. {_left_to_csv(shifts, smoothed)}"
    )
    details = *claim_details(view), lost_words(view), *run_details(view)
    columns = map(shift_name, shifts[:MOST_SHIFTS])
    return shown(frame(rows), "Classifier", *columns), Caption(words, details)


def _left_to_csv(shifts: list[str], smoothed: bool) -> str:
    """Which shifts have no column beside the classifier's name, and what else the csv has."""
    rest = rst(", ".join(map(shift_name, shifts[MOST_SHIFTS:])))
    if not rest:
        return "The csv has likelihoods with smoothing." if smoothed else ""
    return f"In the csv alone: {rest}{', and likelihoods with smoothing' if smoothed else ''}."


# ---------------------------------------------------------------- rules


def judge_accuracy(view: View, claim: dict[str, Any]) -> Verdict:
    """`yes` or `no` when the paired interval over training seeds excludes 0 and the mean is more
    than two binomial standard errors of the test split from it; else `not decided`.

    A gain, which one model shows between two ways of asking it, is judged in the variant, and in
    what it is held against too where that has measured it: both must say the same.
    """
    if direction(claim) is None:
        return Verdict("not decided", NO_DIRECTION)
    return of_gain(view, claim) if is_gain(claim["metric"]) else of_difference(view, claim)


def judge_funnel(view: View, claim: dict[str, Any]) -> Verdict:
    """`yes` when the funnel loses less than 1 point of accuracy, by the interval over training
    seeds, and takes less than half of the tokens; `no` when it loses more or takes more; judged in
    the variant and in what it is held against: both must say the same."""
    return of_funnel(view, claim)
