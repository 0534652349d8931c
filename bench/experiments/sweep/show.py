"""Probabilities of drawn tokens, and the rule that tunes on one half and scores on the other."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...report.cells import Cell, frame, spread
from ...report.claims import NO_DIRECTION, against_the_usual, claim, decided, direction, no_metric
from ...report.estimate import estimate, paired, show_difference
from ...report.tuning import edges, half_words
from ...report.view import View
from ...report.words import seeds_words


def table_sampling_probability(view: View) -> tuple[pd.DataFrame, str]:
    """Quantiles of the probability of drawn tokens, and the share below each threshold, per scale, for samplers of one pass."""
    thresholds, rows = view.about["sweep"]["thresholds"], []
    columns = {f"q{q}": f"drawn_probability_q{q}" for q in (10, 50, 90)}
    columns |= {f"Share below {p:g}": f"drawn_below_{p:g}" for p in thresholds}
    for variant, names in view.variants.items():
        found = {title: view.select(variant, metric) for title, metric in columns.items()}
        if not any(len(part) for part in found.values()):
            continue  # refined samplers draw a token more than once
        for k, side in enumerate(names["patch_nums"]):
            row: dict[str, str] = {"Variant": variant, "Scale": Cell(str(k), value=k), "Grid": f"{side}x{side}"}
            for title, part in found.items():
                row[title] = spread(estimate(part.loc[part["scale"] == k, "value"]))
            rows.append(row)
    counts = view.results.metrics.loc[view.results.metrics["metric"].str.startswith("drawn_below_"), "num_images"].dropna()
    drawn = f"the first {int(counts.iloc[0])} generated pictures" if len(counts) else "generated pictures"
    caption = (
        f"{claim(view)} Probability that a drawn token had under the guided distribution that it was drawn from, on "
        f"{drawn} of each training seed: quantiles over tokens, and the share that a threshold of p_resample would redraw. "
        f"{seeds_words(view)}"
    )
    return frame(rows or [{"Variant": "none", "Status": "no sampler of one pass, or no thresholds"}]), caption


def judge_tuned(view: View, one: dict[str, Any]) -> tuple[str, str]:
    """As judge_score, between groups, each at the setting that is best on the first half of sample
    seeds and reference; scored on the second."""
    if absent := no_metric(view, one):
        return "no such metric", absent
    if direction(one) is None:
        return "not decided", NO_DIRECTION
    metric, second, lower = (
        view.results.score_name(one["metric"]),
        view.results.halves[1],
        direction(one) == "lower",
    )
    best = [view.tuned(one[key], metric, lower) for key in ("against", "variant")]
    if None in best:
        return "not decided", "a group has no scores on halves"
    found = paired(*(view.of(name, metric, second) for name in best))
    halves = half_words(view).rsplit(", ", 1)[-1]
    reason = (
        f"{metric} of {best[1]} minus that of {best[0]}, each tuned on half of the sample seeds, on the other half, {halves}: "
        f"{show_difference(found)}"
    )
    for key, name in zip(("against", "variant"), best):
        if words := edges(view, one[key], name):
            reason += f"; {name} is {words}"
    return decided(found, lower, reason + against_the_usual(one))
