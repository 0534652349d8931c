"""Whether one system's R* is above another's: asked twice. Imports no torch."""

from __future__ import annotations

import math
from typing import Any

from ...report.claims import Verdict
from ...report.view import View
from .curves import READINGS, fits
from .fit import QUOTED_RMS, Sure, interval


def r_star_words(found: Sure | None) -> str:
    """R* with its interval, as a reason says it."""
    if found is None:
        return "not enough points"
    low, high = found.bootstrap
    words = f"{found.fit.values['R*']:.3g} [{low:.3g}, {high:.3g}]"
    return words if found.identified else f"{words}, not identified"


def _once(ours: Sure | None, theirs: Sure | None) -> tuple[str, str]:
    """Word and reason of one reading."""
    if ours is None or theirs is None:
        return "not decided", "not enough points"
    low, high = interval(ours.draws_S - theirs.draws_S)
    difference = math.log(ours.fit.values["R*"] / theirs.fit.values["R*"])
    worst = max(ours.fit.rms, theirs.fit.rms)
    rms = f", rms {worst:.1%}" + (" (a poor fit)" if worst > QUOTED_RMS else "")
    reason = (
        f"{r_star_words(ours)} against {r_star_words(theirs)}, log ratio {difference:+.2f} "
        f"[{low:+.2f}, {high:+.2f}]{rms}"
    )
    if not (ours.identified and theirs.identified) or low <= 0 <= high:
        return "not decided", reason
    return ("yes" if low > 0 else "no"), reason


def judged_twice(view: View, claim: dict[str, Any]) -> Verdict:
    """The verdict of both readings of a fit: that of each where they agree."""
    words, reasons = [], []
    for reading in READINGS:
        of = fits(view, reading)
        word, reason = _once(of.get(claim["variant"]), of.get(claim["against"]))
        words.append(word)
        reasons.append(f"{reading}: {word}, {reason}")
    together = words[0] if len(set(words)) == 1 else "not decided"
    differ = "" if len(set(words)) == 1 else "; the readings differ"
    what = f"R* of {claim['variant']} against that of {claim['against']}"
    return Verdict(together, f"{what}; {'; '.join(reasons)}{differ}")
