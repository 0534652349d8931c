"""Scores of every variant beside floor and reconstruction, and the rules that compare them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.absent import by_reason, missing_words
from ...report.cells import COSTS, Cell, frame, number, spread, without_numbers
from ...report.claims import NO_DIRECTION, NOISE, against_the_usual, claim, decided, direction, no_metric, noise_words
from ...report.curves import floor_count
from ...report.drawing import COLOURS, DOUBLE, RED, blank, canvas, legend_below, look, note, text, wrapped
from ...report.estimate import FEWEST, estimate, holm, paired, show, show_difference, verdict
from ...report.results import Results
from ...report.trainings import kept_words
from ...report.view import View
from ...report.words import floor_has_labels, made_by, samplers, seeds_words
from ...study.escaping import rst
from ...study.scores import kid_is_exact

MOST = 12  # variants side by side; more stand below one another


SHARES = {
    "class agreement": "class_agreement",
    "CAS": "cas",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
}


LETTERS = 40  # of a name beside its row


PITCH = 0.2  # inches: of a row at least, and of a line of its name


LINE = 0.11


STRIPE = "0.95"


class Places:
    """Where variants stand in a panel: side by side at 0, 1, 2, ..., or in rows, in inches from the
    top."""

    def __init__(self, view: View) -> None:
        self.names = list(view.variants)
        room = max(8, 28 // len(self.names))
        marks = [wrapped(name, room) for name in self.names]
        longest = max(len(line) for mark in marks for line in mark.split("\n"))
        self.slanted = len(marks) * longest > 40
        lines = max(1 + mark.count("\n") for mark in marks)
        # a slanted name takes twice the height of its lines along the axis; a panel has some three
        # inches
        crowded = self.slanted and 2 * LINE * lines > 3.2 / len(marks)
        self.rows = len(marks) > MOST or crowded
        self.marks = [wrapped(name, LETTERS) for name in self.names] if self.rows else marks
        self.sizes = [
            max(PITCH, 0.06 + LINE * (1 + mark.count("\n"))) if self.rows else 1.0
            for mark in self.marks
        ]
        ends = np.cumsum(self.sizes)
        self.spots = (ends - np.array(self.sizes) / 2 if self.rows else ends - 1).tolist()
        self.length = float(ends[-1])

    def label(self, axes: Axes) -> None:
        """Write the names on the axis."""
        if self.rows:
            axes.set_yticks(self.spots, self.marks)
            axes.set_ylim(self.length, 0)
            axes.tick_params(axis="x", top=True, labeltop=True)
            axes.tick_params(axis="y", length=0)
            for i in range(0, len(self.spots), 2):
                low = self.spots[i] - self.sizes[i] / 2
                axes.axhspan(low, low + self.sizes[i], color=STRIPE, linewidth=0, zorder=-1)
            return
        slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if self.slanted else {}
        axes.set_xticks(range(len(self.marks)), self.marks, **slant)
        axes.set_xlim(-0.5, len(self.marks) - 0.5)
        axes.set_xlabel("variant")


def _dots(
    axes: Axes,
    view: View,
    metric: str,
    places: Places,
    shift: float,
    style: dict[str, Any],
    label: str | None,
) -> bool:
    """Points per training seed, their mean and interval, for every variant; whether there was
    any."""
    for i, variant in enumerate(places.names):
        values = view.of(variant, metric)
        found = estimate(values)
        if found is None:
            continue
        mark = style or {key: value for key, value in look(i).items() if key != "linestyle"}
        size, spot = places.sizes[i], places.spots[i]
        spots = spot + size * (
            shift - 0.12 + 0.05 * np.arange(len(values)) / max(1, len(values) - 1)
        )
        half = [[found.half]] * 2 if found.half is not None else None
        middle = [spot + size * shift], [found.mean]
        ends = {"capsize": 2.5, "elinewidth": 1, "linestyle": "none", "label": label, **mark}
        if places.rows:
            axes.scatter(values, spots, s=7, color=mark["color"], alpha=0.45, linewidth=0)
            axes.errorbar(middle[1], middle[0], xerr=half, markersize=3, **{**ends, "capsize": 1.5})
        else:
            axes.scatter(spots, values, s=7, color=mark["color"], alpha=0.45, linewidth=0)
            axes.errorbar(*middle, yerr=half, **ends)
        label = None
    return bool(axes.collections)


def _lines(axes: Axes, view: View, places: Places) -> None:
    """Floor across the panel; reconstruction across it too, or a tick per variant where schedules
    or tokenizers differ."""
    variants, x = list(view.variants.values()), view.results.extractor
    whole = axes.axvline if places.rows else axes.axhline
    part = axes.vlines if places.rows else axes.hlines
    floors = {
        value
        for names in variants
        if (value := view.grid_value(names, f"floor_fid_{x}")) is not None
    }
    for value in sorted(floors)[:1]:
        whole(
            value,
            color="0.35",
            linestyle=":",
            linewidth=1,
            label="floor: real training pictures",
            zorder=0,
        )
    values = [view.grid_value(names, f"reconstruction_fid_{x}") for names in variants]
    label = "reconstruction by the tokenizer"
    if None not in values and len(set(values)) == 1:
        whole(values[0], color="0.35", linestyle="--", linewidth=1, label=label, zorder=0)
        return
    for value, spot, size in zip(values, places.spots, places.sizes):
        if value is not None:
            ends = (spot - 0.35 * size, spot + 0.35 * size)
            part(value, *ends, color="0.35", linestyle="--", linewidth=1, label=label, zorder=0)
            label = None


def _name_lost(axes: Axes, view: View, places: Places) -> None:
    """Write beside a variant which of its scores are missing, and why."""
    for variant, spot in zip(places.names, places.spots):
        lost = view.missing(variant, f"fid_{view.results.extractor}")
        if not lost:
            continue
        words = text(by_reason({seed: why.split(" (")[0] for seed, why in lost.items()}))
        style = {"color": RED, "fontsize": 6, "in_layout": False}
        if places.rows:
            axes.text(
                0.98,
                spot,
                words,
                transform=axes.get_yaxis_transform(),
                va="center",
                ha="right",
                **style,
            )
        else:
            place = {"transform": axes.get_xaxis_transform(), "rotation": 90, "va": "bottom"}
            axes.text(spot + 0.2, 0.02, words, **place, **style)


def figure_fid(view: View) -> tuple[Figure, str]:
    """FID of every variant and training seed above floor and reconstruction; beside it class
    agreement, CAS, precision, recall, coverage."""
    x, places = view.results.extractor, Places(view)
    height = 1.1 + places.length if places.rows else 2.9
    ratios = {"width_ratios": [1.25, 1]}
    figure, axes = canvas(DOUBLE, height, 1, 2, gridspec_kw=ratios, sharey=places.rows)
    left, right = axes[0]
    score = f"{view.results.label('FID')}, N = {view.results.about['evaluation']['num_images']}"
    if not _dots(left, view, f"fid_{x}", places, 0, {}, None):
        blank(left, "no variant has a score")
    _lines(left, view, places)
    (left.set_xlim if places.rows else left.set_ylim)(0)
    _name_lost(left, view, places)
    (left.set_xlabel if places.rows else left.set_ylabel)(score)
    variants = view.variants
    scores = {name: view.results.score_name(metric) for name, metric in SHARES.items()}
    shares = {
        name: score
        for name, score in scores.items()
        if any(len(view.of(v, score)) for v in variants)
    }
    looks = dict(zip(SHARES, zip((7, 5, 2, 4, 0), "psh*D")))
    for j, (name, metric) in enumerate(shares.items()):
        style = {"color": COLOURS[looks[name][0]], "marker": looks[name][1]}
        shift = min(0.26, 0.8 / len(shares)) * (j - (len(shares) - 1) / 2)
        _dots(right, view, metric, places, shift, style, name)
    if not shares:
        blank(right, "no share was scored")
    if places.rows:
        right.set_xlabel(f"share ({x})")
        low, high = right.get_xlim()
        right.set_xlim(max(-0.03, low), min(1.03, high))  # an interval may pass what a share can be
    else:
        right.set_ylabel(f"share ({x})")
        low, high = right.get_ylim()
        right.set_ylim(max(-0.03, low), min(1.03, high))
    for panel in (left, right):
        places.label(panel)
    legend_below(figure, columns=3)
    note(figure, missing_words(view, f"fid_{x}"))
    caption = (
        f"{claim(view)} Small points: one training each; symbols: mean, bars: interval. Dotted: floor, real training "
        f"pictures{floor_count(view)}; dashed: the same pictures through the tokenizer, under each variant's schedule. "
        f"{noise_words(view)} {made_by(view)} {fid_differences(view)}"
    )
    return figure, " ".join(caption.split())


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


PUBLISHED = {"fid": "FID", "kid": "KID", "is": "IS", "precision": "Precision", "recall": "Recall"}


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
    count, total = len(view.of(variant, f"fid_{view.results.extractor}")), len(view.about["train_seeds"])
    return {"Variant": variant, "Seeds": Cell(f"{count} of {total}", value=count)}


def _cost_columns(view: View, variant: str) -> dict[str, str]:
    """Losses of the kept weights, what own tokens gain, and what a picture costs."""
    row: dict[str, str] = {title: spread(view.estimate(variant, metric)) for title, metric in LOSSES.items()}
    for title, (metric, unit) in COSTS.items():
        found = view.estimate(variant, metric)
        row[title] = number(found and found.mean / unit)
    return row


def _verdicts(view: View) -> dict[str, dict[str, str]]:
    """FID of every variant minus that of the first: the difference, what it decides, and what it
    decides when all rows of the table are tested together."""
    first, *others = view.variants
    fid, title = f"fid_{view.results.extractor}", f"{view.results.label('FID')} minus {next(iter(view.variants))}, paired"
    found = {name: view.difference(name, fid) for name in others}
    sure = {name: one for name, one in found.items() if one is not None and one.count >= FEWEST}
    kept = holm({name: one.p for name, one in sure.items()})
    rows = {first: {title: Cell("first"), "Verdict": "", "After Holm": ""}}
    for name, one in found.items():
        word = {"yes": "lower", "no": "higher"}.get(verdict(sure.get(name)), "not decided")
        held = word if name in kept else "not decided"
        rows[name] = {title: spread(one, difference=True), "Verdict": word, "After Holm": held}
    return rows


def _score_row(view: View, variant: str) -> dict[str, str]:
    """One variant: scores, then what others printed, and status; difference and costs join them."""
    row = _start_row(view, variant)
    for title, name in SCORES.items():
        row[titled(view.results, title)] = spread(view.score(variant, name))
    return row


def _published_cells(view: View, variant: str) -> dict[str, str]:
    """What others printed, in columns of their own: their evaluator is not ours."""
    row: dict[str, str] = {}
    for one in view.about.get("published", []):
        column = f"Published {PUBLISHED[one['metric']]} (its own evaluator)"
        row.setdefault(column, "")
        if one["variant"] == variant:
            row[column] = Cell(f"{one['value']:g} ({one['source']})", value=one["value"])
    return row


def _line_row(view: View, name: str, label: str, names: dict) -> dict[str, str]:
    """What every score is read against: real images, or images through the tokenizer, with an
    interval where each training seed has a tokenizer of its own."""
    row: dict[str, str] = {"Variant": label}
    for title, metric in SCORES.items():
        found = view.grid_estimate(names, f"{name}_{view.results.score_name(metric)}")
        alone = found is None or not found.half  # one tokenizer for all, or images that no tokenizer touches
        row[titled(view.results, title)] = Cell(number(found and found.mean), mean=found and found.mean) if alone else spread(found)
    row["Status"] = "ok" if row[view.results.label("FID")] != "-" else view.results.why(names, None)
    return row


def _line_rows(view: View) -> tuple[list[dict[str, str]], dict]:
    """Rows of floor, held-out images and reconstructions, and the identity of the floor's grid."""
    grids = view.grids()
    floors = {view.grid_value(names, f"floor_fid_{view.results.extractor}"): names for names in grids.values()}
    names = floors[next((value for value in floors if value is not None), next(iter(floors)))]
    rows = [_line_row(view, "floor", "Floor: real training pictures", names)]
    held = _line_row(view, "reference", "Held-out images themselves", names)
    if set(held.values()) - {"-", held["Variant"], held["Status"]}:  # none in results of older versions
        rows.append({**held, "Status": "ok"})
    rows += [_line_row(view, "reconstruction", f"Reconstruction, schedule {grid}", of) for grid, of in grids.items()]
    return rows, names


def table_scores(view: View) -> tuple[pd.DataFrame, str]:
    """Every score of every variant, what FID decides against the first one, and, unless the suite
    has table costs, losses and costs; floor and reconstruction below."""
    differences, apart = _verdicts(view), "costs" in view.about["tables"]
    rows = []
    for variant in view.variants:
        row = _score_row(view, variant) | differences[variant]
        row |= {} if apart else _cost_columns(view, variant)
        row |= _published_cells(view, variant)
        rows.append(row | {"Status": by_reason(view.missing(variant, f"fid_{view.results.extractor}")) or "ok"})
    lines, names = _line_rows(view)
    table = frame([*rows, *lines])
    fid = view.results.label("FID")
    optional = [title for name in SCORES if (title := titled(view.results, name)) != fid]
    optional += [title for title in LOSSES if title != "Held-out loss (nats/token)"]
    if len(view.variants) == 1:
        optional += ["Verdict", "After Holm"]
    counts = view.results.of_grid(names, f"floor_{view.results.score_name('fid')}")["num_images"].dropna()
    ideal = (
        "what a perfect generator and a perfect prior over these tokens score"
        if floor_has_labels(view)
        else "in the shares of the training split, which the labels of the variants do not have, so that a perfect generator need not "
        "score the same"
    )
    start = claim(view)
    words = [
        start,
        "" if NOISE in start else NOISE,
        made_by(view),
        f"Floor and reconstruction: {int(counts.iloc[0])} training pictures, as they are and through the tokenizer, against the "
        f"same reference; {ideal}."
        if len(counts)
        else "",
        _kid_words(view),
        "Losses and costs: table costs." if apart else COST_WORDS,
        "Verdict: of the paired difference in FID; after Holm: of all rows of this table together, 5 %.",
        "Published: as the source prints it, by its own evaluator and settings; never compared with ours."
        if view.about.get("published")
        else "",
    ]
    return without_numbers(table, optional), " ".join(filter(None, words))


def _kid_words(view: View) -> str:
    """Whether KID takes all pairs; empty where it was not measured, or the sizes are not known."""
    rows, features = view.results.rows_of(view.results.score_name("kid")), view.results.about["features"]
    held = view.results.rows_of("num_test")["value"].dropna()
    if not rows["run_id"].isin(view.results.runs_of[view.suite]).any() or not len(held) or not features.get("dim"):
        return ""
    if features.get("reference") or not len(view.results.rows_of("reference_is_" + view.results.extractor)):
        return ""  # of a file with images of its own, or of an older version
    exact = kid_is_exact(view.results.about["evaluation"]["num_images"], int(held.iloc[0]), features["dim"])
    return "KID: over all pairs." if exact else "KID: mean over 100 random subsets."


COST_WORDS = "Held-out loss of the kept weights. Each variant's cost per picture includes guidance."


def table_costs(view: View) -> tuple[pd.DataFrame, str]:
    """Losses of every variant's kept weights, what own tokens gain, and what a picture costs: what
    stands beside the scores."""
    rows = []
    for variant in view.variants:
        row = _start_row(view, variant) | _cost_columns(view, variant)
        row["Status"] = by_reason(view.missing(variant, "kept_loss_test")) or "ok"
        rows.append(row)
    caption = (
        f"{claim(view)} {COST_WORDS} Any-order bound: of masked models, whose tokens may be drawn in any order; intra-scale "
        f"gain: the one-pass loss minus it, above 0 where own tokens are worth something. "
        f"{kept_words(view)} {seeds_words(view)} {samplers(view)}"
    )
    return without_numbers(frame(rows), list(LOSSES)), " ".join(caption.split())


def real_scores(view: View, variant: str, metric: str) -> tuple[float | None, float | None]:
    """What training images, and what the held-out images themselves, score; None where nobody
    measured it."""
    names, score = view.variants[variant], view.results.score_name(metric)
    train, held = (view.grid_value(names, f"{line}_{score}") for line in ("floor", "reference"))
    return train, held


def _real_words(view: View, one: dict[str, Any]) -> str:
    """Of IS: what real images score, and whether the side with more is farther from them; empty for
    other scores."""
    if one["metric"] != "is":
        return ""
    train, held = real_scores(view, one["variant"], "is")
    parts = [f"{show(value)} {name}" for value, name in ((train, "train"), (held, "held out")) if value is not None]
    real = train if held is None else held
    sides = {key: view.score(one[key], "is") for key in ("variant", "against")}
    if real is None or None in sides.values():
        return f"; real images: {', '.join(parts)}" if parts else ""
    words = f"; real images: {', '.join(parts)}"
    more, less = sorted(sides, key=lambda key: -sides[key].mean)
    if abs(sides[more].mean - real) > abs(sides[less].mean - real):
        shown = [f"{one[key]}'s {show(sides[key].mean)}" for key in (more, less)]
        words += f"; {shown[0]} is farther from real images than {shown[1]}"
    return words


def judge_score(view: View, one: dict[str, Any]) -> tuple[str, str]:
    """By the 95 % t-interval of the paired difference of a score over training seeds."""
    if absent := no_metric(view, one):
        return "no such metric", absent
    metric = view.results.score_name(one["metric"])
    found = view.difference(one["variant"], metric, one["against"])
    reason = f"{metric} of {one['variant']} minus that of {one['against']}, paired by training seed: {show_difference(found)}"
    reason += _real_words(view, one)
    if direction(one) is None:
        return "not decided", f"{reason}; {NO_DIRECTION}"
    return decided(found, direction(one) == "lower", reason + against_the_usual(one))


def judge_nearer(view: View, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when the distance of a score to that of real held-out images, or of training images where
    nobody scored those, is smaller, by the 95 % t-interval of the paired difference over training
    seeds."""
    if absent := no_metric(view, one):
        return "no such metric", absent
    metric = view.results.score_name(one["metric"])
    train, held = real_scores(view, one["variant"], one["metric"])
    real, which = (held, "held-out") if held is not None else (train, "training")
    if real is None:
        return "not decided", f"{metric} of real images was not measured"
    first, second = ((view.of(one[key], metric) - real).abs() for key in ("against", "variant"))
    found = paired(first, second)
    reason = (
        f"distance of {metric} to the {show(real)} of real {which} images, {one['variant']} minus {one['against']}, paired by "
        f"training seed: {show_difference(found)}"
    )
    return decided(found, True, reason)


MOST_DIFFERENCES = 12  # listed one by one in a caption


def fid_differences(view: View) -> str:
    """Paired FID differences to the first variant."""
    first, *others = view.variants
    if not others:
        return "One variant, nothing to compare."
    if len(others) > MOST_DIFFERENCES and "scores" in view.about["tables"]:
        return f"Differences to {rst(first)}, paired by training seed: in table scores."
    found = {name: view.difference(name, f"fid_{view.results.extractor}") for name in others}
    shown = "; ".join(f"{rst(name)} {show_difference(value)}" for name, value in found.items())
    return f"{view.results.label('FID')} minus that of {rst(first)}, paired by training seed, 95 % t-interval: {shown}."
