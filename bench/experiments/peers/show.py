"""Scores against attended pairs, and every dial beside the same model with the dial off."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.absent import by_reason, missing_words
from ...report.caption import Caption
from ...report.cells import COSTS, Cell, frame, number, shown, spread, unwell, without_numbers
from ...report.claims import claim_details
from ...report.curves import curve, floor_line
from ...report.drawing import DOUBLE, blank, look_of, name_ticks, note
from ...report.sheets import by_variant, sheet
from ...report.timing import common_batch, machine, milliseconds
from ...report.trainings import of_same_tokens, predicted
from ...report.view import View
from ...report.words import score_details, seeds_details
from ...study.escaping import rst
from .dials import DIALS, attended_pairs, counterparts, reached, turned, unguided

LOSS = "kept_loss_test"
# title and metric of what is compared with the dial off
DIFFERENCES = {"FID": "fid", "IS": "is", "Class agreement": "class_agreement", "Recall": "recall"}
OF_LOSS = "Held-out loss minus off (nats/token)"


# ---------------------------------------------------------------- pairs


def _by_pairs(view: View) -> dict[int, list[str]]:
    """Variants by the pairs that they attend to, fewest first. Many keep equal pairs: on an axis of
    numbers they would hide each other, and beside their number a false one would be read."""
    of: dict[int, list[str]] = {}
    for variant, names in view.variants.items():
        pairs = attended_pairs(names)
        if pairs is not None:
            of.setdefault(pairs, []).append(variant)
    return dict(sorted(of.items()))


def _styles(view: View) -> dict[str, dict[str, Any]]:
    """Style of each variant: of a sweep over guidance one is left of each group, which then has the
    style of its group."""
    groups = [names["group"] for names in view.variants.values()]
    if len(set(groups)) < len(groups):
        return {name: look_of(view, name) for name in view.variants}
    return {name: look_of(view, group) for name, group in zip(view.variants, groups)}


def _pairs_axis(panel: Axes, of: dict[int, list[str]]) -> None:
    """Names of variants below, and above them the pairs that each group of them keeps."""
    name_ticks(panel, list(chain.from_iterable(of.values())))
    first = 0
    for pairs, names in of.items():
        middle = first + (len(names) - 1) / 2
        above = {"transform": panel.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        panel.text(middle, 1.01, str(pairs), fontsize=7, **above)
        if first:
            panel.axvline(first - 0.5, color="0.8", linewidth=0.6, zorder=0)
        first += len(names)
    panel.set_title("attended pairs of one pass, each block", pad=12, fontsize=7.5)


def _pairs(axes: np.ndarray, view: View) -> None:
    """FID and held-out loss of a few variants, grouped by the pairs that they attend to."""
    count = view.results.about["evaluation"]["num_images"]
    fid = f"{view.results.label('FID')}, N = {count}"
    metrics = {fid: view.results.score_name("fid"), "held-out loss (nats/token)": LOSS}
    styles, of = _styles(view), _by_pairs(view)
    for panel, (title, metric) in zip(axes[0], metrics.items()):
        compared = (of_same_tokens(view) if metric == LOSS else view).variants
        for place, variant in enumerate(chain.from_iterable(of.values())):
            value = view.estimate(variant, metric) if variant in compared else None
            if value is not None:
                curve(panel, [(place, value)], variant, styles[variant])
        if not panel.has_data():
            blank(panel, "no variant has a number")
            continue
        if metric != LOSS:
            floor_line(panel, view, "fid")
        _pairs_axis(panel, of)
        panel.set_ylabel(title)


def figure_pairs(view: View) -> tuple[Figure, Caption]:
    """FID and held-out loss against attended pairs: what attention that is left out costs (MVAR,
    arXiv 2505.12742; SRDD, 2509.22636)."""
    view = unguided(view)
    figure = sheet(by_variant(view), (DOUBLE, 3.6), (1, 2), _pairs)
    note(figure, missing_words(view, view.results.score_name("fid")))
    text = (
        "Scores by the query-key pairs that a pass over an image keeps: the numbers above the "
        "panels, fewest on the left. Variants between two grey lines keep as many. A variant with "
        "fewer pairs and no higher score leaves out attention that was worth nothing. Symbols: "
        "mean; bars: 95 % t-interval over training seeds. Dotted: real training images."
    )
    details = (
        *claim_details(view),
        "Pairs are counted, not timed: on a CPU attention with a mask is slower than without, and "
        "hides pairs that are computed all the same.",
        "Loss: of the kept weights, not weighted by scale; those of other tokens are left out.",
        *score_details(view),
    )
    return figure, Caption(text, details)


# ---------------------------------------------------------------- dials


def _dial_cells(settings: dict[str, Any]) -> dict[str, str]:
    """Which dials are turned, where they are off, and where they stand."""
    names = turned(settings)
    off = [str(DIALS[name].off) for name in names]
    values = [DIALS[name].words(settings) for name in names]
    columns = {"Dial": names, "Off": off, "Value": values}
    return {title: "; ".join(parts) or "-" for title, parts in columns.items()}


def _size_cells(view: View, variant: str, other: str | None) -> dict[str, str]:
    """What a variant is made of and costs: weights, pairs, reach, tokens, operations, time."""
    names = view.variants[variant]
    weights, pairs = view.estimate(variant, "parameters"), attended_pairs(names)
    row: dict[str, str] = {
        "Parameters": number(weights and weights.mean),
        "Attended pairs": number(pairs),
        "Scales reached": number(reached(names)),
    }
    pairs_off = other and attended_pairs(view.variants[other])
    row["Pairs over off"] = number(pairs / pairs_off if pairs and pairs_off else None)
    for title, (metric, unit) in COSTS.items():
        cost = view.estimate(variant, metric)
        row[title] = number(cost and cost.mean / unit)
    batch = common_batch(view, view.variants)  # one for the whole column
    timed = {name: milliseconds(view, name, batch) for name in (variant, other) if name}
    time, time_off = timed[variant], timed.get(other or "")
    row["Time per image (ms)"] = number(time and time[0])
    row["Time over off"] = number(time[0] / time_off[0] if time and time_off else None)
    return row


def _difference_cells(view: View, variant: str, other: str | None) -> dict[str, str]:
    """Paired differences to the same variant with its dials off; losses of other tokens are not
    compared."""
    row: dict[str, str] = {}
    for title, name in DIFFERENCES.items():
        metric = view.results.score_name(name)
        difference = view.difference(variant, metric, other) if other else None
        row[f"{view.results.label(title)} minus off"] = spread(difference, difference=True)
    same = other and predicted(view.variants[variant]) == predicted(view.variants[other])
    loss = view.difference(variant, LOSS, other) if other and same else None
    row[OF_LOSS] = spread(loss, difference=True)
    return row


def table_dials(view: View) -> tuple[pd.DataFrame, Caption]:
    """Every variant beside the same with all dials off: what the dial is, what it costs, and paired
    differences."""
    view, every = unguided(view), len(view.variants)
    others, fid, rows = counterparts(view), view.results.score_name("fid"), []
    for variant, names in view.variants.items():
        other = others.get(variant)
        row: dict[str, str] = {"Variant": variant, **_dial_cells(names["settings"])}
        row["Beside"] = Cell(other or "-")
        row |= _size_cells(view, variant, other) | _difference_cells(view, variant, other)
        rows.append(row | {"Status": by_reason(view.missing(variant, fid)) or "ok"})
    optional = [title for title in frame(rows) if "Time" in title or title == "Parameters"]
    optional += [f"{view.results.label(title)} minus off" for title in list(DIFFERENCES)[1:]]
    table = without_numbers(frame(rows), optional)
    text = (
        "Each dial beside the same model with the dial off: what it costs, and differences paired "
        "by training seed with their 95 % t-intervals. Below 0 is better for FID and loss. Pairs "
        "are the claimed saving, time the measured one."
    )
    timed, unlike_one = "Time per image (ms)" in table, len(view.variants) < every
    details = _dial_details(view, timed, unlike_one)
    return shown(table, *_shown_columns(view, table)), Caption(text, details)


def _alone_words(view: View) -> str:
    """Which variants with a dial have nothing to stand beside; empty where all have."""
    others, turned_ones = counterparts(view), []
    for name, names in view.variants.items():
        if turned(names["settings"]) and name not in others:
            turned_ones.append(name)
    if not turned_ones:
        return ""
    listed = rst(", ".join(turned_ones))
    return f"No variant is the same but for its dials, so without differences: {listed}."


def _dial_details(view: View, timed: bool, unlike_one: bool) -> tuple[str, ...]:
    """Whose each dial is, and how the columns are counted. timed: whether times were measured;
    unlike_one: whether variants of other guidance than w = 1 are left out."""
    used = {name for names in view.variants.values() for name in turned(names["settings"])}
    return (
        *claim_details(view),
        *(rst(f"{name}: {DIALS[name].source}.") for name in DIALS if name in used),
        "Attended pairs: of one pass over an image in each block. Scales reached: earlier ones, by "
        "attention through all blocks or by the history vector; 0 is Markov.",
        _alone_words(view),
        "Loss: of the kept weights, weighted for none, so that all are read by one yardstick; of "
        "other tokens it is not compared.",
        machine(view) if timed else "",
        "At guidance w = 1: table guidance has the others." if unlike_one else "",
        *score_details(view),
        *seeds_details(view),
    )


def _shown_columns(view: View, table: pd.DataFrame) -> list[str]:
    """What a reader needs to judge: where times were measured, beside the pairs they come from."""
    last = "Status" if unwell(table) else "Token evals"
    difference = f"{view.results.label('FID')} minus off"
    size = ["Parameters", "Attended pairs"]
    timed = "Time over off" in table
    cost = [*size, "Time over off"] if timed else ["Value", *size]
    return ["Variant", *cost, difference, OF_LOSS, last]
