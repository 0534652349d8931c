"""Scores of every variant beside floor and reconstruction, and the rules that compare them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.absent import grid_status, missing_words, status_of
from ...report.axes import spread_out
from ...report.caption import Caption
from ...report.cells import (
    COSTS,
    MOST_COLUMNS,
    Cell,
    frame,
    number,
    shown,
    spread,
    unwell,
    without_numbers,
)
from ...report.claims import (
    NO_DIRECTION,
    NO_METRIC,
    NOISE,
    against_the_usual,
    claim_details,
    decided,
    direction,
    no_metric,
)
from ...report.curves import floor_count
from ...report.drawing import COLOURS, DOUBLE, blank, canvas, legend_below, look_of, note
from ...report.estimate import paired, show, show_difference
from ...report.results import Results
from ...report.trainings import kept_words, other_tokens_words
from ...report.view import View
from ...report.words import (
    floor_has_labels,
    samplers,
    score_details,
    seeds_details,
    with_classes,
)
from .against_first import (
    after_holm_title,
    difference_title,
    fid_differences,
    twin_words,
    verdicts,
)
from .further import further_scores
from .panels import Places, draw_baselines, draw_trainings, name_lost
from .real import (
    beside_real,
    kid_words,
    real_scores,
    real_words,
    reference_rows,
    which_real,
    within_words,
)

SHARES = {
    "class agreement": "class_agreement",
    "CAS": "cas",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
}
SHARE_STYLES = dict(zip(SHARES, zip((7, 5, 2, 4, 0), "psh*D")))  # colour and marker of each


def _fid_panel(axes: Axes, view: View, places: Places) -> None:
    """FID of every variant above floor and reconstruction."""
    styles = [look_of(view, name) for name in places.names]
    for style in styles:
        del style["linestyle"]
    if not draw_trainings(axes, view, f"fid_{view.results.extractor}", places, 0, styles):
        blank(axes, "no variant has a score")
    draw_baselines(axes, view, places)
    (axes.set_xlim if places.rows else axes.set_ylim)(0)
    name_lost(axes, view, places)
    count = view.results.about["evaluation"]["num_images"]
    (axes.set_xlabel if places.rows else axes.set_ylabel)(
        f"{view.results.label('FID')}, N = {count}"
    )
    spread_out([axes], "x" if places.rows else "y")


def _share_panel(axes: Axes, view: View, places: Places) -> None:
    """Those of class agreement, CAS, precision, recall and coverage that were scored."""
    metrics = {name: view.results.score_name(metric) for name, metric in SHARES.items()}
    scored = [name for name, metric in SHARES.items() if view.scored(metric)]
    for j, name in enumerate(scored):
        colour, marker = SHARE_STYLES[name]
        styles = [{"color": COLOURS[colour], "marker": marker}] * len(places.names)
        shift = min(0.26, 0.8 / len(scored)) * (j - (len(scored) - 1) / 2)
        owner = view.results.extractor_of(SHARES[name])
        label = name if owner == view.results.extractor else f"{name} ({owner})"
        draw_trainings(axes, view, metrics[name], places, shift, styles, label)
    if not scored:
        blank(axes, "no share was scored")
    # an interval may pass what a share can be
    ends, limit = (
        (axes.get_xlim(), axes.set_xlim) if places.rows else (axes.get_ylim(), axes.set_ylim)
    )
    limit(max(-0.03, ends[0]), min(1.03, ends[1]))
    (axes.set_xlabel if places.rows else axes.set_ylabel)(f"share ({view.results.extractor})")


def figure_fid(view: View) -> tuple[Figure, Caption]:
    """FID of every variant and training seed above floor and reconstruction, by each extractor;
    beside it class agreement, CAS, precision, recall, coverage."""
    places, extractors = Places(view), view.results.extractors
    ratios = {"width_ratios": [1.25, *[1] * len(extractors)]}
    count = len(extractors) + 1
    figure, axes = canvas(DOUBLE, places.height, 1, count, gridspec_kw=ratios, sharey=places.rows)
    for panel, extractor in zip(axes[0], extractors):
        _fid_panel(panel, view.by(extractor), places)
    _share_panel(axes[0, -1], view, places)
    for panel in axes[0]:
        places.label(panel)
    legend_below(figure, columns=3)
    note(figure, missing_words(view, f"fid_{view.results.extractor}"))
    details = (
        *claim_details(view),
        f"Floor: real training images{floor_count(view)}; reconstruction: the same, under each "
        "variant's schedule.",
        NOISE,
        *score_details(view),
        fid_differences(view),
    )
    return figure, Caption(
        "Left: FID, lower is better"
        f"{', a panel for each extractor' if len(extractors) > 1 else ''}. "
        "Right: shares, higher is better. Small points: one training "
        "each; symbols and bars: mean and 95 % t-interval over training seeds. Dotted: floor, real "
        "training images; dashed: the same images through the tokenizer.",
        details,
    )


# title and name of a score; the evaluator's name stands in the title's brackets
SCORES = {
    "FID": "fid",
    "FID (pixels)": "fid_pixels",
    "Density": "density",
    "Coverage": "coverage",
    "Precision": "precision",
    "Recall": "recall",
    "Class agreement": "class_agreement",
    "CAS": "cas",
    "IS": "is",
    "KID": "kid",
    "Variance within classes (pixels)": "variance_pixels",
}
# what does not depend on the extractor is a number of the first
OF_OTHERS = ("FID", "Density", "Coverage", "Precision", "Recall", "IS", "KID")
PUBLISHED = {"fid": "FID", "kid": "KID", "is": "IS", "precision": "Precision", "recall": "Recall"}
PUBLISHED_WORDS = (
    "Published: as the source prints it, by its own evaluator and settings; "
    "never compared with ours."
)
LOSSES = {
    "Held-out loss (nats/token)": "kept_loss_test",
    "Any-order bound (nats/token)": "loss_test_any_order",
    "Intra-scale gain (nats/token)": "intra_scale_gain",
}


def titled(results: Results, title: str) -> str:
    """A column's title: with the extractor, unless it names another evaluator or none is asked."""
    return title if title.endswith("(pixels)") or title == "CAS" else results.label(title)


def _start_row(view: View, variant: str) -> dict[str, str]:
    """The first columns of a variant's row."""
    count = len(view.of(variant, f"fid_{view.results.extractor}"))
    total = len(view.about["train_seeds"])
    return {"Variant": variant, "Seeds": Cell(f"{count} of {total}", value=count)}


def _cost_columns(view: View, variant: str) -> dict[str, str]:
    """Losses of the kept weights, what own tokens gain, and what an image costs."""
    row: dict[str, str] = {
        title: spread(view.estimate(variant, metric)) for title, metric in LOSSES.items()
    }
    for title, (metric, unit) in COSTS.items():
        cost = view.estimate(variant, metric)
        row[title] = number(cost and cost.mean / unit)
    return row


def _score_row(view: View, variant: str) -> dict[str, str]:
    """One variant: its scores, after its name."""
    row = _start_row(view, variant)
    for asked, title, name in _scored(view):
        row[titled(asked.results, title)] = spread(beside_real(asked, variant, name))
    for title, metric in _further(view).items():
        row[title] = spread(view.estimate(variant, metric))
    return row


def _scored(view: View) -> Iterator[tuple[View, str, str]]:
    """Whom to ask for every score, its title and its name: the study's first extractor, beside it
    the others where they tell more."""
    for title, name in SCORES.items():
        yield view, title, name
        for other in view.results.others if title in OF_OTHERS else ():
            yield view.by(other), title, name


def _further(view: View) -> dict[str, str]:
    """Metrics of all other scores, as of one's own, by the title of a column that the csv has."""
    known = {asked.results.score_name(name) for asked, _, name in _scored(view)}
    key = "further scores", view.suite, view.results.extractor
    scores: dict[str, str] = view.results.once(key, lambda: further_scores(view, known))
    return scores


def _metrics(view: View) -> dict[str, str]:
    """Every score of a row by the title of its column."""
    scores = {
        titled(asked.results, title): asked.results.score_name(name)
        for asked, title, name in _scored(view)
    }
    return scores | _further(view)


def _published_title(metric: str) -> str:
    return f"Published {PUBLISHED[metric]} (its own evaluator)"


def _published_cells(view: View, variant: str) -> dict[str, str]:
    """What others printed, in columns of their own: their evaluator is not ours."""
    row: dict[str, str] = {}
    for printed in view.about.get("published", []):
        column = _published_title(printed["metric"])
        row.setdefault(column, "")
        if printed["variant"] == variant:
            row[column] = Cell(
                f"{printed['value']:g} ({printed['source']})", value=printed["value"]
            )
    return row


def _line_row(view: View, name: str, label: str, names: dict) -> dict[str, str]:
    """What every score is read against: real images, or images through the tokenizer, with an
    interval where each training seed has a tokenizer of its own."""
    row: dict[str, str] = {"Variant": label}
    for title, metric in _metrics(view).items():
        value = view.grid_estimate(names, f"{name}_{metric}")
        if value is None or not value.half:  # one tokenizer for all, or no tokenizer at all
            mean = value and value.mean
            row[title] = Cell(number(mean), mean=mean)
        else:
            row[title] = spread(value)
    # what no variant has was not asked for, also where jobs failed
    asked = (one for one in _metrics(view).items() if view.results.has_rows(one[1]))
    of_line = {title: f"{name}_{metric}" for title, metric in asked}
    fid = f"{name}_fid_{view.results.extractor}"
    return row | {"Status": grid_status(view, names, fid, of_line)}


def _line_rows(view: View) -> tuple[list[dict[str, str]], dict]:
    """Rows of floor, held-out images and reconstructions, and the identity of the floor's grid."""
    grids, fid = view.grids(), f"floor_fid_{view.results.extractor}"
    floors = {view.grid_value(names, fid): names for names in grids.values()}
    names = floors[next((value for value in floors if value is not None), next(iter(floors)))]
    rows = [_line_row(view, "floor", "Floor: real training images", names)]
    rows += reference_rows(view, _line_row(view, "reference", "", names))
    for grid, of_grid in grids.items():
        label = f"Reconstruction, schedule {grid}"
        rows.append(_line_row(view, "reconstruction", label, of_grid))
    return rows, names


def _shown(view: View, table: pd.DataFrame) -> list[str]:
    """The columns that a reader needs to judge, the most important first; those of missing scores
    and of printed numbers only where there are some. Of further extractors what they say of FID."""
    views = [view, *map(view.by, view.results.others)]
    fids = [asked.results.label("FID") for asked in views]
    titles = ["Variant"] if len(views) > 1 else ["Variant", "Seeds"]
    titles += [fids[0], difference_title(view), after_holm_title(view)]
    titles += [*fids[1:], *map(after_holm_title, views[1:])]
    titles += ["Status"] if unwell(table) else []
    titles += [_published_title(printed["metric"]) for printed in view.about.get("published", [])]
    last = [view.results.label(name) for name in ("Coverage", "Class agreement")]
    titles += last if len(views) == 1 else reversed(last)
    first = [title for title in dict.fromkeys(titles) if title in table][:MOST_COLUMNS]
    return [title for title in table.columns if title in first]


def table_scores(view: View) -> tuple[pd.DataFrame, Caption]:
    """Every score of every variant, what FID decides against the first one, and, unless the suite
    has table costs, losses and costs; floor and reconstruction below."""
    apart = "costs" in view.about["tables"]
    differences = [verdicts(asked) for asked in (view, *map(view.by, view.results.others))]
    rows = []
    for variant in view.variants:
        row = _score_row(view, variant)
        for of_extractor in differences:
            row |= of_extractor[variant]
        row |= {} if apart else _cost_columns(view, variant)
        row |= _published_cells(view, variant)
        status = status_of(view, variant, f"fid_{view.results.extractor}", _metrics(view))
        rows.append(row | {"Status": status})
    lines, names = _line_rows(view)
    scored = [titled(asked.results, title) for asked, title, _ in _scored(view)]
    optional = [title for title in scored if title != view.results.label("FID")]
    optional += [title for title in LOSSES if title != "Held-out loss (nats/token)"]
    if len(view.variants) == 1:
        optional += [title for row in differences for title in [*row[variant]][1:]]
    table = without_numbers(frame([*rows, *lines]), optional)
    details = (
        *claim_details(view),
        NOISE,
        *score_details(view),
        twin_words(view),
        _floor_words(view, names),
        kid_words(view),
        within_words(view),
        "Losses and costs: table costs." if apart else COST_WORDS,
        "" if apart else other_tokens_words(view),
        PUBLISHED_WORDS if view.about.get("published") else "",
    )
    verdict = (
        "Verdict: of the paired difference in FID to the first variant, all rows tested together "
        "(Holm, 5 %). "
    )
    text = (
        "Scores of every variant: mean and 95 % t-interval over training seeds. Lower FID is "
        f"better, of the other scores shown more. {verdict if len(view.variants) > 1 else ''}"
        "Below: real and reconstructed training images."
    )
    return shown(table, *_shown(view, table)), Caption(text, details)


def _floor_words(view: View, names: dict) -> str:
    """What the rows of floor and reconstruction are; empty where nobody scored them."""
    floor = view.of_grid(names, f"floor_{view.results.score_name('fid')}")
    counts = floor["num_images"].dropna()
    if not len(counts):
        return ""
    if floor_has_labels(view):
        ideal = "They are what a perfect generator and a perfect prior over these tokens score"
    elif with_classes(view):
        ideal = (
            "They have the shares of the training split, which the labels of the variants do not "
            "have. So a perfect generator need not score the same"
        )
    else:
        ideal = (
            "They have every class equally often, unlike images that are drawn without classes. "
            "So a perfect generator need not score the same"
        )
    return (
        f"Floor and reconstruction: {int(counts.iloc[0])} training images, as they are and through "
        f"the tokenizer, against the same reference. {ideal}."
    )


COST_WORDS = "Held-out loss of the kept weights. Each variant's cost per image includes guidance."


def table_costs(view: View) -> tuple[pd.DataFrame, Caption]:
    """Losses of every variant's kept weights, what own tokens gain, and what an image costs: what
    stands beside the scores."""
    rows = []
    for variant in view.variants:
        row = _start_row(view, variant) | _cost_columns(view, variant)
        row["Status"] = status_of(view, variant, "nfe", LOSSES)
        rows.append(row)
    table = without_numbers(frame(rows), list(LOSSES))
    details = (
        *claim_details(view),
        COST_WORDS,
        "Any-order bound: of masked models, whose tokens may be drawn in any order. Intra-scale "
        "gain: the one-pass loss minus it, above 0 where own tokens are worth something.",
        other_tokens_words(view),
        kept_words(view),
        *seeds_details(view),
        samplers(view),
    )
    text = (
        "Held-out losses of the kept weights, mean and 95 % t-interval over training seeds. Cost "
        "of one image: calls of the network (NFE), tokens evaluated, and arithmetic."
    )
    hidden = {"Seeds", "Token evals" if unwell(table) else "Status"}
    columns = [title for title in table.columns if title not in hidden]
    return shown(table, *columns), Caption(text, details)


def judge_score(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """By the 95 % t-interval of the paired difference of a score over training seeds."""
    absent = no_metric(view, claim)
    if absent:
        return NO_METRIC, absent
    variant, against = claim["variant"], claim["against"]
    metric, better = view.results.score_name(claim["metric"]), direction(claim)
    difference = view.difference(variant, metric, against)
    reason = (
        f"{metric} of {variant} minus that of {against}, paired by training seed: "
        f"{show_difference(difference)}{real_words(view, claim)}"
    )
    if better is None:
        return "not decided", f"{reason}; {NO_DIRECTION}"
    return decided(difference, better == "lower", reason + against_the_usual(claim))


def judge_nearer(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes when the distance of a score to that of real held-out images, or of training images where
    nobody scored those, is smaller, by the 95 % t-interval of the paired difference over training
    seeds."""
    absent = no_metric(view, claim)
    if absent:
        return NO_METRIC, absent
    variant, against = claim["variant"], claim["against"]
    metric = view.results.score_name(claim["metric"])
    train, held = real_scores(view, variant, claim["metric"])
    which = which_real(view, claim["metric"])
    real, split = (held, which) if held is not None else (train, "training")
    if real is None:
        return "not decided", f"{metric} of real images was not measured"
    first, second = ((view.of(name, metric) - real).abs() for name in (against, variant))
    difference = paired(first, second)
    reason = (
        f"distance of {metric} to the {show(real)} of real {split} images, {variant} minus "
        f"{against}, paired by training seed: {show_difference(difference)}"
    )
    return decided(difference, True, reason)
