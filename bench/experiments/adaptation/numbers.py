"""The numbers that rules of any metric compare: one of each training. Imports no torch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...report.claims import NO_METRIC
from ...report.completion import at
from ...report.estimate import Estimate, paired, show_difference
from ...report.view import View

AXES = ("scale", "step", "repeat")  # along which a training may have several numbers


def of_trainings(view: View, variant: str, metric: str) -> pd.Series:
    """The number of a metric by training seed: over the samples of the study, or over images that a
    measure takes for itself, as zero_shot takes held-out ones. Empty where a training has
    several."""
    values = view.of(variant, metric)
    if len(values):
        return values
    values = at(view, variant, metric)
    return values if values.index.is_unique else values.iloc[:0]


def compared(view: View, claim: dict[str, Any]) -> tuple[Estimate | None, str]:
    """The paired difference that a claim is about, and the beginning of a reason."""
    metric, sides = _whole_name(view, claim["metric"]), (claim["against"], claim["variant"])
    difference = paired(*(of_trainings(view, side, metric) for side in sides))
    against, variant = sides
    reason = f"{metric} of {variant} minus that of {against}, paired by training seed: "
    return difference, reason + (show_difference(difference) if difference else "none")


def absent_words(view: View, name: str) -> tuple[str, str] | None:
    """What is said of a claim whose metric no row of the suite has, or rows of scales, steps or
    repeats alone; None where there is a number to compare."""
    metric, results = _whole_name(view, name), view.results
    rows = results.rows_of(metric)
    rows = rows[rows["run_id"].isin(view.runs)]
    if rows.empty:
        rows = results.metrics
        measured = (rows["run_id"].isin(view.runs) & rows["train_seed"].notna()).any()
        return (NO_METRIC if measured else "not decided"), f"no row of this suite has {metric}"
    axes = [axis for axis in AXES if rows[axis].notna().all()]
    if not axes:
        return None
    each = f"{metric} has a number of each {' and '.join(axes)}"
    return "not decided", f"{each}; a claim compares one of each training"


def _whole_name(view: View, name: str) -> str:
    """A metric as it stands in these results: of a score with its extractor."""
    score = view.results.score_name(name)
    return score if len(view.results.rows_of(score)) else name
