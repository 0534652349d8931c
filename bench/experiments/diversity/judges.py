"""Rules of reshaped spectra: against the best of a sweep at equal precision, no worse than another,
a larger gain than another. Imports no torch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...report.claims import (
    NO_METRIC,
    Verdict,
    decided,
    direction,
    no_metric,
    no_worse,
)
from ...report.estimate import estimate, paired, show_difference
from ...report.tuning import half_words
from ...report.view import View
from .frontier import Mixture, Point, best_at

SWITCHES = ("svd_in", "svd_out")
OF_SPECTRA = (*SWITCHES, "svd_scales", "svd_norm")


def means_on(view: View, group: str, metric: str, seeds: tuple[int, int]) -> dict[str, Point]:
    """Precision and a metric of each variant of a group, means over the training seeds that all of
    them have. seeds: of which samples."""
    pairs = {}
    for name in view.groups()[group]:
        precision = view.of(name, view.results.score_name("precision"), seeds)
        values = view.of(name, metric, seeds)
        common = precision.index.intersection(values.index)
        if len(common):
            pairs[name] = precision[common], values[common]
    if not pairs:
        return {}
    seen = set.intersection(*(set(values.index) for _, values in pairs.values()))
    kept = sorted(seen)
    return {name: (p[kept].mean(), v[kept].mean()) for name, (p, v) in pairs.items() if kept}


def tuned_pair(view: View, claim: dict[str, Any], metric: str) -> tuple[str, Mixture] | None:
    """The variant that stands highest above the sweep at its own precision, and what it is held
    against, by means on the first half of the sample seeds; None where no setting of the sweep
    reaches the precision of any."""
    first = view.results.halves[0]
    ours, theirs = (means_on(view, claim[side], metric, first) for side in ("variant", "against"))
    above: dict[str, tuple[float, Mixture]] = {}
    for name, (precision, value) in ours.items():
        best = best_at(theirs, precision)
        if best is not None:
            height = best.of({key: point[1] for key, point in theirs.items()})
            above[name] = value - height, best
    if not above:
        return None
    name = max(above, key=lambda one: above[one][0])
    return name, above[name][1]


def above_the_sweep(view: View, name: str, best: Mixture, metric: str) -> pd.Series:
    """By training seed, on the second half of the sample seeds: a metric of a variant, minus that
    of the sweep at the precision that the variant has there.

    The sweep's line keeps the share and the slope of the first half: half of the images choose,
    the others score.
    """
    second, precision = view.results.halves[1], view.results.score_name("precision")

    def mixed(one: str) -> pd.Series:
        ends = {end: view.of(end, one, second) for end in (best.first, best.second)}
        return (1 - best.share) * ends[best.first] + best.share * ends[best.second]

    higher = view.of(name, precision, second) - mixed(precision)
    return (view.of(name, metric, second) - (mixed(metric) + best.slope * higher)).dropna()


def frontier(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes when the entry has more of a metric than the best of a sweep at equal precision: settings
    of both sides are chosen on the first half of the sample seeds, scored on the second."""
    if absent := no_metric(view, claim):
        return Verdict(NO_METRIC, absent)
    metric = view.results.score_name(claim["metric"])
    chosen = tuned_pair(view, claim, metric)
    if chosen is None:
        return Verdict(
            "not decided", f"{metric}: no setting of {claim['against']} is as precise on halves"
        )
    name, best = chosen
    difference = estimate(above_the_sweep(view, name, best, metric))
    held = best.first if best.share == 0 else f"{best.first} and {best.second}"
    share = f", {best.share:.0%} of the latter" if best.share else ""
    reason = (
        f"{metric} of {name} minus that of {held}{share}, at its precision, tuned on half of the "
        f"sample seeds, on the other half{half_words(view)}: {show_difference(difference)}"
    )
    return decided(difference, False, reason)


def keeps(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes when a score is less by no more than a margin (diversity.margin) by the 95 % t-interval
    of the paired difference over training seeds."""
    if absent := no_metric(view, claim):
        return Verdict(NO_METRIC, absent)
    metric, lower = view.results.score_name(claim["metric"]), direction(claim) == "lower"
    margin = view.about.get("diversity", {}).get("margin", 0.01)
    difference = view.difference(claim["variant"], metric, claim["against"])
    reason = (
        f"{metric} of {claim['variant']} minus that of {claim['against']}, paired by training "
        f"seed, may be worse by {margin:g}: {show_difference(difference)}"
    )
    return no_worse(difference, margin, lower, reason)


def plain_of(view: View, variant: str) -> str | None:
    """The same model and sampler without reshaping, in the same suite; None where it has none."""
    names = view.variants[variant]

    def rest(name: str) -> dict[str, Any]:
        sampler = view.sampler(name)
        return {key: value for key, value in sampler.items() if key not in OF_SPECTRA}

    for other, about in view.variants.items():
        off = not any(view.sampler(other).get(key) for key in SWITCHES)
        same = (about["model"], about["tokenizer"]) == (names["model"], names["tokenizer"])
        if off and same and rest(other) == rest(variant):
            return other
    return None


def gain(view: View, variant: str, metric: str) -> pd.Series:
    """What reshaping adds to a metric of a variant, by training seed."""
    plain = plain_of(view, variant)
    if plain is None:
        return pd.Series(dtype=float)
    return (view.of(variant, metric) - view.of(plain, metric)).dropna()


def larger_gain(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes when reshaping adds more to a metric of one variant than of another, each over the same
    sampler without, by the 95 % t-interval over training seeds."""
    if absent := no_metric(view, claim):
        return Verdict(NO_METRIC, absent)
    metric, lower = view.results.score_name(claim["metric"]), direction(claim) == "lower"
    gains = {side: gain(view, claim[side], metric) for side in ("against", "variant")}
    difference = paired(gains["against"], gains["variant"])
    reason = (
        f"what reshaping adds to {metric} of {claim['variant']} "
        f"({show_difference(estimate(gains['variant']))}), minus that of {claim['against']} "
        f"({show_difference(estimate(gains['against']))}): {show_difference(difference)}"
    )
    return decided(difference, lower, reason)
