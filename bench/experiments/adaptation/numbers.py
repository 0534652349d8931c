"""The numbers that rules of any metric compare: one of each training. Imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ...report.claims import NO_METRIC
from ...report.estimate import Estimate, paired, show_difference
from ...report.reading import AXES
from ...report.view import View

SAMPLE = ["seed_first", "seed_last", "num_images"]
NONE = "none; no training has one number of both over the same images"


def compared(view: View, claim: dict[str, Any]) -> tuple[Estimate | None, str]:
    """The paired difference that a claim is about, and the beginning of a reason."""
    variant, against = claim["variant"], claim["against"]
    metric = _whole_name(view, claim["metric"])
    first, second = view.of(against, metric), view.of(variant, metric)
    if first.empty and second.empty:
        first, second = _own_pairs(view, against, variant, metric)
    difference = paired(first, second)
    reason = f"{metric} of {variant} minus that of {against}, paired by training seed: "
    return difference, reason + (show_difference(difference) if difference else NONE)


def _own_pairs(view: View, against: str, variant: str, metric: str) -> tuple[pd.Series, pd.Series]:
    """Numbers of two variants over images that a measure takes for itself, as zero_shot takes
    held-out ones; of seeds whose images are the same on both sides."""
    first, second = (_own(view, name, metric) for name in (against, variant))
    both = first.index.intersection(second.index)
    samples = (rows.loc[both, SAMPLE].fillna(-1) for rows in (first, second))
    same = both[np.equal(*samples).all(axis=1).to_numpy()]
    return first.loc[same, "value"].dropna(), second.loc[same, "value"].dropna()


def _own(view: View, variant: str, metric: str) -> pd.DataFrame:
    """Rows of a metric without scale, step and repeat, by training seed; none where a seed has
    several, of which one may be empty."""
    rows = view.select(variant, metric)
    rows = rows[rows[AXES].isna().all(axis=1)]
    rows = rows.set_index(rows["train_seed"].astype(int))
    return rows if rows.index.is_unique else rows.iloc[:0]


def absent_words(view: View, name: str) -> tuple[str, str] | None:
    """What is said of a claim whose metric no row of the suite has, or rows of scales, steps or
    repeats alone; None where there is a number to compare."""
    metric, results = _whole_name(view, name), view.results
    rows = view.rows_of(metric)
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
