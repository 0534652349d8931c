"""Ratios of times and of bytes, and floors, of a suite that was timed. Imports no torch."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ...report.estimate import Estimate, estimate, paired, show, verdict
from ...report.timing import batches, floors
from ...report.view import View

WORDS = {"yes": "faster", "no": "slower"}  # of a verdict on time


def ratio(
    view: View, variant: str, batch: int, against: str | None = None
) -> tuple[Estimate | None, str]:
    """Log ratio of sampling time to another variant, or the first, over common rounds, and what
    that decides."""
    first = against or next(iter(view.variants))
    logs = [np.log(view.rounds("latency_s", name, batch)) for name in (first, variant)]
    difference = paired(*logs)
    if difference is None:
        return None, "not measured"
    return difference, WORDS.get(verdict(difference), "not decided")


def memory_ratios(view: View, metric: str, variant: str, against: str) -> dict[float, float]:
    """Bytes of a variant over those of another, by batch size that both have."""
    of_cell = view.latency(metric).set_index(["variant", "num_images"])["value"].dropna()
    ratios = {}
    for batch in map(float, batches(view)):
        if {(variant, batch), (against, batch)} <= set(of_cell.index):
            ratios[batch] = of_cell[variant, batch] / of_cell[against, batch]
    return ratios


def common_batches(view: View) -> list[int]:
    """Batch sizes at which every variant was timed scale by scale."""
    rows = view.latency("latency_scale_s").dropna(subset=["value"])
    sizes = [set(part["num_images"].astype(int)) for _, part in rows.groupby("variant")]
    return sorted(set.intersection(*sizes)) if len(sizes) == len(view.variants) else []


def floor_s(view: View, variant: str, batch: int) -> float | None:
    """Least seconds of a batch, whose scales follow one another; None where it was not measured."""
    rows = floors(view)
    rows = rows[(rows["variant"] == variant) & (rows["num_images"] == batch)]
    return float(rows["floor"].sum()) if len(rows) else None


def over_floor(view: View, variant: str, batch: int) -> Estimate | None:
    """Log ratio of the measured time of a batch to its floor over rounds; None where one of them is
    missing."""
    least = floor_s(view, variant, batch)
    if not least:
        return None
    return estimate(np.log(view.rounds("latency_s", variant, batch) / least))


def show_ratio(log_ratio: Estimate | None) -> str:
    """The geometric mean behind a log ratio, and its interval."""
    if log_ratio is None:
        return "-"
    logs = (log_ratio.mean, log_ratio.low, log_ratio.high)
    centre, low, high = (show(math.exp(log)) for log in logs)
    return f"{centre} (one round)" if log_ratio.half is None else f"{centre} [{low}, {high}]"


def mebibytes(view: View, metric: str, variant: str, batch: int) -> float | None:
    """MiB of a variant, at a batch size where the metric has one."""
    rows = view.latency(metric)
    at_batch = rows["num_images"].isna() | (rows["num_images"] == batch)
    values = rows.loc[(rows["variant"] == variant) & at_batch, "value"].dropna()
    return values.iloc[0] / 2**20 if len(values) else None


def milliseconds(view: View, metric: str) -> pd.DataFrame:
    """Times of the suite that have a value, with a column `ms`."""
    rows = view.latency(metric).dropna(subset=["value"])
    return rows.assign(ms=rows["value"] * 1e3)
