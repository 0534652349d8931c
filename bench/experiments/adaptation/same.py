"""Whether two variants are the same within a margin: an interval inside it. Imports no torch."""

from __future__ import annotations

from scipy.special import stdtr, stdtrit

from ...report.claims import EQUAL
from ...report.estimate import CONFIDENCE, FEWEST, Estimate


def equivalence(difference: Estimate | None, margin: float) -> tuple[str, float | None, str]:
    """Word, p-value and what else a reason must say of a difference that shall lie inside +- margin
    (two one-sided t-tests, Schuirmann 1987).

    `yes` where the 95 % interval lies inside, `no` where it lies outside; the p-value is below 5 %
    where and only where one of both is so. Of equal seeds no interval follows: they are the same
    where nothing differs, without a p-value.
    """
    if difference is None or difference.half is None:
        return "not decided", None, ""
    if difference.count < FEWEST:
        return "not decided", None, "; fewer than three training seeds"
    if difference.equal:
        return "not decided" if difference.mean else "yes", None, EQUAL
    inside = -margin < difference.low and difference.high < margin
    outside = difference.low > margin or difference.high < -margin
    word = "yes" if inside else "no" if outside else "not decided"
    return word, _p(difference, margin), ""


def _p(difference: Estimate, margin: float) -> float:
    """Of the nearer verdict, doubled as the two-sided interval has it: of `yes` the worse of the
    two sides, of `no` the side beyond which the mean lies."""
    assert difference.half
    beyond = abs(difference.mean) - margin
    degrees = difference.count - 1
    error = difference.half / stdtrit(degrees, (1 + CONFIDENCE) / 2)
    return float(min(1.0, 2 * stdtr(degrees, -abs(beyond) / error)))
