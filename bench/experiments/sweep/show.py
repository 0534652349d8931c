"""Probabilities of drawn tokens, and the rule that tunes on one half and scores on the other."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...report.absent import group_missing, missing_words
from ...report.caption import Caption
from ...report.cells import Cell, frame, shown, spread
from ...report.claims import (
    NO_DIRECTION,
    NO_METRIC,
    Verdict,
    against_the_usual,
    claim_details,
    decided,
    direction,
    no_metric,
)
from ...report.estimate import estimate, paired, show_difference
from ...report.tuning import edges, half_words
from ...report.view import View
from ...report.words import seeds_details
from ...study.escaping import rst

QUANTILES = {
    "10 % quantile": "drawn_probability_q10",
    "Median": "drawn_probability_q50",
    "90 % quantile": "drawn_probability_q90",
}


def _probability_rows(view: View, variant: str, metrics: dict[str, str]) -> list[dict[str, str]]:
    """A row for each scale of a variant; none for a refined sampler, which draws a token more than
    once. metrics: by column title."""
    values = {title: view.select(variant, metric) for title, metric in metrics.items()}
    if not any(len(column) for column in values.values()):
        return []
    rows = []
    for k, side in enumerate(view.variants[variant]["patch_nums"]):
        row: dict[str, str] = {
            "Variant": variant,
            "Scale": Cell(str(k), value=k),
            "Grid": f"{side}x{side}",
        }
        for title, column in values.items():
            row[title] = spread(estimate(column.loc[column["scale"] == k, "value"]))
        rows.append(row)
    return rows


def _drawn_words(view: View) -> str:
    """Whose tokens were asked for their probability."""
    metrics = view.results.metrics
    of_shares = metrics["metric"].str.startswith("drawn_below_")
    of_shares &= metrics["run_id"].isin(view.runs)
    counts = metrics.loc[of_shares, "num_images"].dropna()
    images = (
        f"the first {int(counts.iloc[0])} generated images" if len(counts) else "generated images"
    )
    return f"Tokens: those of {images} of each training seed."


def _left_out(view: View, shares: list[str]) -> str:
    """Which variants were drawn and have no row; empty where all have some, or none was asked."""
    drawn = [name for name in view.variants if not view.missing(name, "nfe")]
    absent = [name for name in drawn if not len(view.select(name, QUANTILES["Median"]))]
    if not absent or not shares:
        return ""
    # a group by its name, where none of it has a row
    whole = {name for name, members in view.groups().items() if set(members) <= set(absent)}
    groups = {name: view.variants[name]["group"] for name in absent}
    said = dict.fromkeys(groups[name] if groups[name] in whole else name for name in absent)
    return (
        "Without a row, as their samplers draw a token more than once or reshape what it is drawn "
        f"from: {'; '.join(map(rst, said))}."
    )


def table_sampling_probability(view: View) -> tuple[pd.DataFrame, Caption]:
    """Quantiles of the probability of drawn tokens, and the share below each threshold, per scale,
    for samplers of one pass."""
    thresholds = view.about["sweep"]["thresholds"]
    shares = {f"Share below {p:g}": f"drawn_below_{p:g}" for p in thresholds}
    rows = []
    for variant in view.variants:
        rows += _probability_rows(view, variant, QUANTILES | shares)
    if not rows:
        rows = [{"Variant": "none", "Status": "no sampler of one pass, or no thresholds"}]
    text = (
        "Probability that a drawn token had under the guided distribution that it was drawn from, "
        "by scale. Median: over tokens. Shares: tokens below a threshold, which redrawing below "
        "such a p_resample would draw again."
    )
    details = (
        *claim_details(view),
        _drawn_words(view),
        _left_out(view, list(shares)),
        rst(missing_words(view, "nfe")),
        *seeds_details(view),
    )
    table = shown(frame(rows), "Variant", "Grid", "Median", *list(shares)[:4], "Status")
    return table, Caption(text, details)


def _without_halves(view: View, groups: list[str], metric: str) -> str:
    """Which groups cannot be tuned, and why they have no scores."""
    reasons = {group: group_missing(view, group, metric) for group in groups}
    words = [f"{group}: {why or 'none on halves'}" for group, why in reasons.items()]
    return f"a group has no scores on halves; {'; '.join(words)}"


def judge_tuned(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """As judge_score, between groups, each at the setting that is best on the first half of sample
    seeds and reference; scored on the second."""
    if absent := no_metric(view, claim):
        return Verdict(NO_METRIC, absent)
    if direction(claim) is None:
        return Verdict("not decided", NO_DIRECTION)
    metric, lower = view.results.score_name(claim["metric"]), direction(claim) == "lower"
    second = view.results.halves[1]
    tuned = {side: view.tuned(claim[side], metric, lower) for side in ("against", "variant")}
    best = {side: name for side, name in tuned.items() if name is not None}
    if len(best) < len(tuned):
        lost = [side for side in tuned if side not in best]
        return Verdict("not decided", _without_halves(view, [claim[side] for side in lost], metric))
    difference = paired(*(view.of(name, metric, second) for name in best.values()))
    held_against = half_words(view).rsplit(", ", 1)[-1]
    reason = (
        f"{metric} of {best['variant']} minus that of {best['against']}, each tuned on half of the "
        f"sample seeds, on the other half, {held_against}: {show_difference(difference)}"
    )
    for side, name in best.items():
        if at_edge := edges(view, claim[side], name):
            reason += f"; {name} is {at_edge}"
    return decided(difference, lower, reason + against_the_usual(claim))
