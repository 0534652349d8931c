"""Means over training seeds with their intervals, paired differences, the rule of a verdict, its
correction for several, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit  # scipy.stats takes half a second to import

CONFIDENCE = 0.95
# training seeds of a verdict: two have an interval that hardly ever decides, and then by luck
FEWEST = 3
MOST_PLACES = 6  # decimals of a number that is shown with its interval
ROUNDING = 1e-12  # numbers that are so near, as a share of them, are equal


@final
@dataclass(frozen=True)
class Estimate:
    """A mean with the half width of its 95 % t-interval; half is None for one value."""

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0.0)

    @property
    def equal(self) -> bool:
        """Whether several values are equal, which tells nothing of how far others would lie
        apart."""
        return self.half == 0

    def allowing(self, margin: float, lower: bool) -> Estimate:
        """What a difference that may be worse by a margin is tested as against 0. lower: less is
        better."""
        return Estimate(self.mean + (-margin if lower else margin), self.half, self.count)

    @property
    def p(self) -> float | None:
        """Two-sided p-value of a mean of 0, by the t-test that the interval comes from (Student
        1908); None for one value, and for equal ones, whose variance of 0 no t can be divided
        by."""
        if not self.half:
            return None
        # half = t(0.975, n - 1) * standard error: divided by the quantile, the error is back
        error = self.half / stdtrit(self.count - 1, (1 + CONFIDENCE) / 2)
        return float(2 * stdtr(self.count - 1, -abs(self.mean) / error))


def estimate(values: Iterable[float]) -> Estimate | None:
    """Mean and t-interval (Student 1908) of the finite values; None when there is none."""
    finite = np.array([v for v in values if math.isfinite(v)], dtype=float)
    count = len(finite)
    if not count:
        return None
    half = None
    if count > 1:
        # t(0.975, n - 1) * s / sqrt(n)
        quantile = stdtrit(count - 1, (1 + CONFIDENCE) / 2)
        half = float(quantile * finite.std(ddof=1) / math.sqrt(count))
        if half < ROUNDING * abs(finite.mean()):
            half = 0.0  # equal numbers, but for the rounding of their mean
    return Estimate(float(finite.mean()), half, count)


def paired(first: pd.Series, second: pd.Series) -> Estimate | None:
    """Second minus first over the index values (training seeds, rounds) that both have; 0 where
    they differ by no more than rounding."""
    common = first.index.intersection(second.index)
    firsts, seconds = first[common].to_numpy(dtype=float), second[common].to_numpy(dtype=float)
    differences = seconds - firsts
    # rounding has a sign, and three equal signs would decide
    differences[np.abs(differences) <= ROUNDING * np.abs(firsts)] = 0.0
    return estimate(differences)


def verdict(difference: Estimate | None, lower_is_claimed: bool = True) -> str:
    """`yes` when the paired interval excludes 0 in the claimed direction, `no` in the other, else
    `not decided`; so too where values are equal, whose interval has no width whatever the
    number."""
    if difference is None or not difference.half:
        return "not decided"
    if difference.low <= 0 <= difference.high:
        return "not decided"
    return "yes" if (difference.high < 0) == lower_is_claimed else "no"


def holm(p: Mapping[Any, float]) -> set[Any]:
    """Which of several hypotheses fall when all of them together are to be wrong in at most 5 % of
    studies: Holm's step-down (1979).

    p: p-values by any key.
    """
    rejected: set[Any] = set()
    for key in sorted(p, key=p.__getitem__):
        # the smallest of m p-values against alpha / m, the next against alpha / (m - 1), ...
        if p[key] > (1 - CONFIDENCE) / (len(p) - len(rejected)):
            break
        rejected.add(key)
    return rejected


def show(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits; `-` for a missing one."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def _decimals(half: float) -> int:
    """Decimals that show two digits of an uncertainty."""
    return min(MOST_PLACES, max(0, 1 - math.floor(math.log10(half))))


def show_estimate(value: Estimate | None) -> str:
    """`mean ± half`, the half width with two digits; a lone value says that it is one."""
    if value is None:
        return "-"
    if value.half is None:
        return f"{show(value.mean)} (one seed)"
    if value.half == 0:
        return f"{show(value.mean)} ± 0"
    places = _decimals(value.half)
    return f"{value.mean:,.{places}f} ± {value.half:,.{places}f}"


def show_difference(value: Estimate | None) -> str:
    """`+mean [low, high]`."""
    if value is None:
        return "-"
    if value.half is None:
        return f"{value.mean:+.3g} (one seed)"
    ends = value.low, value.high
    places = _decimals(value.half) if value.half else 3
    # on which side of 0 an end lies is what decides
    while places < MOST_PLACES and any(end and not round(end, places) for end in ends):
        places += 1
    return f"{value.mean:+.{places}f} [{value.low:+.{places}f}, {value.high:+.{places}f}]"
