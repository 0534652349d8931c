"""What real images score, beside which generated ones are read."""

from __future__ import annotations

from typing import Any

from ...report.estimate import Estimate, show
from ...report.view import View
from ...report.words import without_classes
from ...study.checks import WITHIN_CLASSES
from ...study.escaping import rst

HELD_OUT = "Held-out images themselves"


def real_scores(view: View, variant: str, metric: str) -> tuple[float | None, float | None]:
    """What training images, and what the held-out images themselves, score; None where nobody
    measured it."""
    names, score = view.variants[variant], view.results.score_name(metric)
    train, held = (view.grid_value(names, f"{line}_{score}") for line in ("floor", "reference"))
    return train, held


def beside_real(view: View, variant: str, name: str) -> Estimate | None:
    """A score of a variant, None where that of real images is taken inside classes and the
    variant's of all images at once."""
    if name in WITHIN_CLASSES and variant in without_classes(view):
        return None
    return view.score(variant, name)


def within_words(view: View) -> str:
    """Which variants have no variance inside classes; empty where all have one."""
    names = without_classes(view) if len(view.rows_of("variance_pixels")) else []
    said = ", ".join(map(rst, names))
    return f"Variance within classes: none of variants without classes ({said})." if said else ""


def real_words(view: View, claim: dict[str, Any]) -> str:
    """Of IS: what real images score, and whether the side with more is farther from them; empty for
    other scores."""
    if claim["metric"] != "is":
        return ""
    train, held = real_scores(view, claim["variant"], "is")
    measured = {"train": train, "held out": held}
    parts = [f"{show(value)} {name}" for name, value in measured.items() if value is not None]
    real = train if held is None else held
    if real is None:
        return ""
    words = f"; real images: {', '.join(parts)}"
    scores = {claim[key]: view.score(claim[key], "is") for key in ("variant", "against")}
    means = {name: score.mean for name, score in scores.items() if score is not None}
    if len(means) < len(scores):
        return words
    more, less = sorted(means, key=lambda name: -means[name])
    if abs(means[more] - real) > abs(means[less] - real):
        shown = [f"{name}'s {show(means[name])}" for name in (more, less)]
        words += f"; {shown[0]} is farther from real images than {shown[1]}"
    return words
