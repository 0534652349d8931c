"""Diversity against precision and class agreement, spectra, and images with and without reshaped
spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...report.absent import missing_words, status_of
from ...report.caption import Caption
from ...report.cells import COSTS, frame, number, shown, spread, without_numbers
from ...report.claims import claim_details
from ...report.drawing import (
    DOUBLE,
    LINE,
    blank,
    canvas,
    draw_band,
    legend_below,
    look_of,
    note,
    place,
    text,
    wrapped_into,
)
from ...report.estimate import Estimate, estimate
from ...report.sheets import sheet
from ...report.tuning import flat, short, varied
from ...report.view import View
from ...report.words import (
    reference_details,
    score_details,
    score_words,
    seeds_details,
    with_classes,
)
from . import judges
from .frontier import Point, hull
from .plan import shown_of

REAL = {"color": "0.35", "linestyle": ":", "marker": "", "linewidth": 1}
HULL = {"color": "black", "linestyle": "--", "linewidth": 0.8, "zorder": 0}
SMALL_TO_LARGE = (1.5, 4)  # points of the symbols of a line, in the order of its setting
# how far from the given ones singular values are drawn, of a wide map
MOST_VALUES = 16


def judge_frontier(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes when the entry has more of a metric than the best of a sweep at equal precision: settings
    of both sides are chosen on the first half of the sample seeds, scored on the second."""
    return judges.frontier(view, claim)


def judge_keeps(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes when a score is worse by no more than a margin (diversity.margin) by the 95 % t-interval
    of the paired difference over training seeds."""
    return judges.keeps(view, claim)


def judge_gain(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes when reshaping adds more to a metric of one variant than of another, each over the same
    sampler without, by the 95 % t-interval over training seeds."""
    return judges.larger_gain(view, claim)


def _reshapes(view: View, variant: str) -> bool:
    return any(view.sampler(variant).get(key) for key in judges.SWITCHES)


def _by_model(view: View) -> list[View]:
    """Results of each trained model alone: its samplers are what is compared."""
    names: dict[tuple[str, str], list[str]] = {}
    for variant, about in view.variants.items():
        names.setdefault((about["model"], about["tokenizer"]), []).append(variant)
    return [view] if len(names) == 1 else [view.only(members) for members in names.values()]


# ---------------------------------------------------------------- frontier


def _points(view: View, members: list[str], x: str, y: str) -> dict[str, tuple[Any, Any]]:
    """Two scores of each variant that has both."""
    both = {name: (view.score(name, x), view.score(name, y)) for name in members}
    return {name: pair for name, pair in both.items() if None not in pair}


def _along(view: View, group: str) -> str | None:
    """The setting along which a group's marks are joined: that with most values."""
    tried = varied(view, group)
    return max(tried, key=lambda key: len(tried[key]), default=None)


def _order(setting: Any) -> tuple[bool, Any]:
    """Numbers by size; what is none, such as no limit, stays in the order of the variants."""
    number = isinstance(setting, (int, float))
    return not number, setting if number else 0


def _lines(view: View, group: str, names: list[str]) -> dict[str, list[str]]:
    """Variants of a group in lines by their other settings: each line goes along one setting, from
    its lowest value to its highest."""
    tried, along = varied(view, group), _along(view, group)
    settings = {name: flat(view.sampler(name)) for name in names}
    lines: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: _order(settings[name].get(along or ""))):
        rest = [settings[name].get(key) for key in tried if key != along]
        words = ", ".join(
            f"{value:g}" if isinstance(value, float) else str(value) for value in rest
        )
        lines.setdefault(words, []).append(name)
    return lines


def _group_words(view: View, group: str) -> str:
    """A group and its settings: along its lines, then of which each line has one."""
    tried, along = varied(view, group), _along(view, group)
    if along is None:
        return group
    first = f"{short(along)} {_values(tried[along])}"
    rest = [f"{short(key)} {_values(tried[key])}" for key in tried if key != along]
    return f"{group}: {first}" + "".join(f"; lines of {words}" for words in rest)


def _values(tried: list[Any]) -> str:
    in_order = sorted(tried, key=_order)
    return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in in_order)


def _draw_group(axes: Axes, view: View, group: str, points: dict[str, tuple[Any, Any]]) -> None:
    """Means of a group, joined along one setting: symbols grow with it, and beside the smallest
    stands what else a line has."""
    style = {**look_of(view, group), "linewidth": 0.7}
    for i, (words, names) in enumerate(_lines(view, group, list(points)).items()):
        xs, ys = zip(*((x.mean, y.mean) for x, y in map(points.__getitem__, names)))
        label = "_" if i else text(_group_words(view, group))
        axes.plot([], [], label=label, markersize=3.5, **style)
        axes.plot(xs, ys, **{**style, "marker": ""})
        sizes = np.linspace(*SMALL_TO_LARGE, len(names))
        for x, y, size in zip(xs, ys, sizes):
            axes.plot([x], [y], markersize=size, **style)
        beside = {"textcoords": "offset points", "fontsize": 4.5, "color": style["color"]}
        axes.annotate(words, (xs[0], ys[0]), (-2, -1), ha="right", va="top", **beside)


def _draw_hull(axes: Axes, view: View, x: str, y: str) -> None:
    """The best line of all that reshapes nothing."""
    plain = [name for name in view.variants if not _reshapes(view, name)]
    points: dict[str, Point] = {
        name: (a.mean, b.mean) for name, (a, b) in _points(view, plain, x, y).items()
    }
    if len(points) > 1:
        xs, ys = zip(*(points[name] for name in hull(points)))
        axes.plot(xs, ys, label="best without reshaping", **HULL)


def _beside(view: View) -> tuple[list[str], list[str]]:
    """The scores of the horizontal and of the vertical axes, those of a study that were scored."""
    fidelity = view.scored("precision", "class_agreement") or ["precision"]
    return fidelity, view.scored("recall", "coverage") or ["recall"]


def _frontier(axes: np.ndarray, view: View, scores: list[tuple[str, str]]) -> None:
    """Recall and coverage of one model's samplers against precision and class agreement."""
    for panel, (x, y) in zip(axes.flat, scores):
        for group, members in view.groups().items():
            if points := _points(view, members, x, y):
                _draw_group(panel, view, group, points)
        _draw_hull(panel, view, x, y)
        if not panel.lines:
            blank(panel, "no variant has both scores")
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.set_xlabel(view.results.label(x.replace("_", " ")))
        panel.set_ylabel(view.results.label(y))


def figure_frontier(view: View) -> tuple[Figure, Caption]:
    """Recall and coverage (arXiv 1904.06991, 2002.09797) against precision and class agreement, a
    mark for each sampler, beside the best line of those that reshape nothing."""
    fidelity, diversity = _beside(view)
    pairs = [(x, y) for y in diversity for x in fidelity]
    shape = (2, 2) if len(pairs) == 4 else (1, len(pairs))
    figure = sheet(
        _by_model(view),
        (DOUBLE, 2.4 * shape[0]),
        shape,
        lambda axes, part: _frontier(axes, part, pairs),
        columns=2,
    )
    note(figure, missing_words(view, view.results.score_name("recall")))
    caption = (
        f"{score_words(diversity).capitalize()} against {score_words(fidelity)}, a symbol for each "
        "sampler, means over training seeds. Symbols grow along the first setting in the legend; "
        "the number at a line is its other setting. Dashed: the upper hull of the samplers that "
        "reshape nothing. Above it is more diverse than temperature and guidance at equal "
        "precision."
    )
    details = (
        *claim_details(view),
        "Lines join the samplers of a group that differ in the first setting alone.",
        "The hull is of all samples; the rule chooses on half of them and scores on the others.",
        *score_details(view, sampler=False, interval=False),
    )
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- spectra


def _means(view: View, variant: str, what: str, k: int) -> list[Estimate]:
    """Mean over training seeds of every singular value over the first, at a scale; none where
    nobody measured it."""
    means: list[Estimate] = []
    for i in range(1, MOST_VALUES + 1):
        rows = view.select(variant, f"spectrum_{what}_{i}")
        mean = estimate(rows.loc[rows["scale"] == k, "value"])
        if mean is None:
            break
        means.append(mean)
    return means


def _read_of(view: View) -> list[str]:
    """Variants that are shown and read a reshaped state."""
    return [name for name in _shown(view) if view.sampler(name).get("svd_in")]


def _shown(view: View) -> list[str]:
    """Variants that are drawn, those of this view."""
    whole = (view.whole or view.results).variants(view.suite)
    names = shown_of(view.about["diversity"]["shown"], list(whole))
    return [name for name in names if name in view.variants]


def _draw_spectra(panel: Axes, view: View, k: int) -> None:
    """Real, drawn and read spectra of one model at one scale."""
    names = _shown(view)
    lines: list[tuple[list[Estimate], str, dict[str, Any]]] = []
    if names:
        lines.append((_means(view, names[0], "real", k), "held-out tokens", REAL))
        drawn = look_of(view, names[0])
        lines.append((_means(view, names[0], "drawn", k), f"drawn: {names[0]}", drawn))
    for name in _read_of(view):
        lines.append((_means(view, name, "read", k), f"read: {name}", look_of(view, name)))
    for means, label, style in lines:
        if means:
            draw_band(panel, list(range(1, len(means) + 1)), means, label, style)


def _scales(view: View) -> list[int]:
    """Scales with a state of more than one singular value that any shown variant reads reshaped,
    or the first half of all."""
    scales = {k for name in _read_of(view) for k in view.sampler(name)["svd_scales"] or ()}
    count = max(len(names["patch_nums"]) for names in view.variants.values())
    return sorted(scales) or list(range(1, max(2, count // 2 + 1)))


def figure_spectra(view: View) -> tuple[Figure, Caption]:
    """Singular values over the first, by scale, of the state that held-out tokens, drawn tokens and
    reshaping give (arXiv 2511.17074), a row for each model."""
    models = [part for part in _by_model(view) if _shown(part)]
    scales = _scales(view)[:4]
    rows = max(1, len(models))
    figure, axes = canvas(DOUBLE, 0.7 + 1.9 * rows, rows, len(scales), sharey=True)
    for panels, part in zip(axes, models):
        names = part.variants[_shown(part)[0]]
        sees = "all scales" if names["history"] is None else f"history {names['history']}"
        for panel, k in zip(panels, scales):
            side = names["patch_nums"][k] if k < len(names["patch_nums"]) else None
            _draw_spectra(panel, part, k)
            if not panel.lines:
                blank(panel, "not measured")
            panel.set_title(f"scale {k}, {side}x{side}")
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            panel.set_xlabel("singular value i")
        panels[0].set_ylabel(f"$s_i / s_1$ ({sees})")
    legend_below(figure, 2)
    lost = [name for name in _shown(view) if not len(view.select(name, "spectrum_drawn_1"))]
    note(figure, missing_words(view.only(lost), "spectrum_drawn_1"))
    caption = (
        "Singular values over the largest, of the state that a scale reads: mean over images and "
        "training seeds, bands: interval. Dotted: of held-out tokens. Read: what the network sees "
        "of drawn tokens once reshaped. A row for each model, which sees all earlier scales or as "
        "many as its history."
    )
    counts = view.rows_of("spectrum_drawn_1")["num_images"].dropna()
    details = (
        *claim_details(view),
        f"N = {int(counts.max())} images of each sampler and training." if len(counts) else "",
        "Not centred. Signs of singular vectors are free and none is drawn.",
        *seeds_details(view),
    )
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- wall


def _wall(view: View, variant: str) -> np.ndarray | None:
    """First images of a variant, of its first training seed that has some."""
    names = view.variants[variant]
    for run_ids in names["jobs"].values():
        for run_id in run_ids:
            images = view.results.images.get(f"{run_id}/{names['sampler']}/wall")
            if images is not None:
                return images
    return None


def figure_diversity_wall(view: View) -> tuple[Figure, Caption]:
    """Images of the same seeds and classes with and without reshaped spectra (arXiv 2511.17074), a
    row for each sampler."""
    rows = {name: _wall(view, name) for name in _shown(view)}
    walls = {name: images for name, images in rows.items() if images is not None}
    columns = max((len(images) for images in walls.values()), default=1)
    height = 0.4 + max(1, len(rows)) * (DOUBLE - 1.6) / columns * 1.05
    figure, axes = canvas(DOUBLE, height)
    panel = axes[0, 0]
    if walls:
        cells = {
            (row, column): image
            for row, name in enumerate(rows)
            for column, image in enumerate(walls.get(name, ()))
        }
        pitch = place(panel, cells, len(rows), columns)
        lines = int((DOUBLE - 1.6) / columns / LINE)
        marks = [wrapped_into(max(1, lines), name, 26) for name in rows]
        panel.set_yticks([(row + 0.45) * pitch for row in range(len(rows))], marks)
        panel.tick_params(length=0)
    else:
        blank(panel, "no variant has images")
    lost = view.only([name for name in rows if name not in walls])
    note(figure, missing_words(lost, lost.results.score_name("recall")) or ", ".join(lost.variants))
    column = "one sample seed and class" if with_classes(view) else "one sample seed"
    caption = (
        f"Each column {column}, each row one sampler; rows of one model differ in the sampler "
        "alone. Not chosen; enlarged without smoothing."
    )
    details = (*claim_details(view), "Of the first training seed with images.")
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- table

SCORES = {
    "Recall": "recall",
    "Precision": "precision",
    "Class agreement": "class_agreement",
    "Coverage": "coverage",
    "Density": "density",
    "FID": "fid",
    "Spread": "spread",
}


def _row(view: View, variant: str) -> dict[str, str]:
    """A variant's scores, what reshaping adds to its recall, and what it costs."""
    row: dict[str, str] = {"Variant": variant}
    metrics = {}
    for title, name in SCORES.items():
        label = view.results.label(title) if title == "FID" else title
        row[label] = spread(view.score(variant, name))
        metrics[label] = view.results.score_name(name)
    if _reshapes(view, variant):
        added = estimate(judges.gain(view, variant, view.results.score_name("recall")))
        row["Recall added"] = spread(added, difference=True)
    for title, (metric, unit) in COSTS.items():
        cost = view.estimate(variant, metric)
        row[title] = number(cost and cost.mean / unit)
    return row | {"Status": status_of(view, variant, metrics.pop("Recall"), metrics)}


def table_diversity(view: View) -> tuple[pd.DataFrame, Caption]:
    """FID, precision, recall, density, coverage, spread inside classes, class agreement and cost of
    every sampler."""
    fid = view.results.label("FID")
    titles = [fid if title == "FID" else title for title in SCORES]
    table = without_numbers(frame([_row(view, name) for name in view.variants]), titles)
    agreement = ", class agreement" if "Class agreement" in table else ""
    caption = (
        f"Recall, precision{agreement} and FID of every sampler, mean and interval over "
        "training seeds. Recall added: minus the same sampler without reshaping, paired by "
        "training seed. Recall rises with the number of images: all have the same."
    )
    details = (
        *claim_details(view),
        "Spread: mean distance between features of two images of one class over that of real "
        "images; 1 is as far apart. Of the variants that are shown."
        if "Spread" in table
        else "",
        "Cost: of the network; the singular values of a few small maps count nothing.",
        f"N = {view.results.about['evaluation']['num_images']} images a training.",
        *reference_details(view.results, view),
        *seeds_details(view),
    )
    columns = ("Variant", "Recall", "Precision", "Class agreement", fid, "Recall added")
    return shown(table, *columns, "Status"), Caption(caption, details)
