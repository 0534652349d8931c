"""Whether one system's R* is above another's: asked twice. Imports no torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ...report.claims import Verdict, decided
from ...report.estimate import Estimate, paired
from ...report.view import View
from .curves import READINGS, fits
from .fit import QUOTED_RMS, Sure, interval


def r_star_words(fitted: Sure | None) -> str:
    """R* with its interval, as a reason says it."""
    if fitted is None:
        return "not enough points"
    low, high = fitted.bootstrap
    words = f"{fitted.fit.values['R*']:.3g} [{low:.3g}, {high:.3g}]"
    return words if fitted.identified else f"{words}, not identified"


def _once(ours: Sure | None, theirs: Sure | None) -> tuple[str, str, float]:
    """Word, reason and p-value of one reading."""
    if ours is None or theirs is None:
        return "not decided", "not enough points", 1.0
    differences_S = ours.draws_S - theirs.draws_S
    low, high = interval(differences_S)
    of_seeds = paired(pd.Series(theirs.seeds, dtype=float), pd.Series(ours.seeds, dtype=float))
    difference = math.log(ours.fit.values["R*"] / theirs.fit.values["R*"])
    worst = max(ours.fit.rms, theirs.fit.rms)
    rms = f", rms {worst:.1%}" + (" (a poor fit)" if worst > QUOTED_RMS else "")
    reason = (
        f"{r_star_words(ours)} against {r_star_words(theirs)}, log ratio {difference:+.2f} "
        f"[{low:+.2f}, {high:+.2f}] over curves, {_seed_words(of_seeds)}{rms}"
    )
    if not (ours.identified and theirs.identified):
        return "not decided", reason, 1.0
    # curves of one seed hang together, and three seeds are few: each interval must decide
    word = "not decided" if low <= 0 <= high else "yes" if low > 0 else "no"
    by_seeds = decided(of_seeds, lower=False, reason=reason)
    if by_seeds.p is None or {word, by_seeds[0]} == {"yes", "no"}:
        return "not decided", by_seeds[1], 1.0
    p = max(two_sided(differences_S), by_seeds.p)
    return word if word == by_seeds[0] else "not decided", by_seeds[1], p


def _seed_words(of_seeds: Estimate | None) -> str:
    """The interval of a log ratio over training seeds fitted alone, as a reason says it."""
    if of_seeds is None or of_seeds.half is None:
        return "no interval over seeds"
    return f"[{of_seeds.low:+.2f}, {of_seeds.high:+.2f}] over seeds"


def two_sided(differences_S: np.ndarray) -> float:
    """The bootstrap p-value of a difference of 0: twice the share of resamples on the rarer side,
    never 0 (Davison and Hinkley 1997, equation 4.11)."""
    some = differences_S[np.isfinite(differences_S)]
    rarer = min(int((some <= 0).sum()), int((some >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(some) + 1))


def judged_twice(view: View, claim: dict[str, Any]) -> Verdict:
    """The verdict of both readings of a fit: that of each where they agree, with the larger of
    their p-values."""
    words, reasons, p = [], [], []
    for reading in READINGS:
        of = fits(view, reading)
        word, reason, chance = _once(of.get(claim["variant"]), of.get(claim["against"]))
        words.append(word)
        reasons.append(f"{reading}: {word}, {reason}")
        p.append(chance)
    agree = len(set(words)) == 1
    what = f"R* of {claim['variant']} against that of {claim['against']}"
    reason = f"{what}; {'; '.join(reasons)}{'' if agree else '; the readings differ'}"
    word, chance = (words[0], max(p)) if agree else ("not decided", 1.0)
    # a training that did not end well has no curve
    return Verdict(word, reason, chance, reads=("epochs_to_best",))
