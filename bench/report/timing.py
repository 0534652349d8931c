"""Times and floors of a suite that was timed. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

from ..runtime.study_row import LatencyPart, check_job
from ..study.escaping import rst
from .view import View


def job_config(view: View) -> dict[str, Any]:
    """Settings of the latency run; empty where there is none."""
    run = view.latency_run()
    return json.loads(run["config_json"] or "{}") if run is not None else {}


def timed_as(view: View) -> LatencyPart:
    """How the suite was timed."""
    place = f"{view.results.folder / 'runs.csv'}: latency of {view.suite}: config_json"
    return check_job(job_config(view), place).latency


def _network_words(view: View) -> str:
    """How the network ran where that is not the usual, float32 and not compiled; else empty."""
    how = timed_as(view)
    parts = [how.precision] if how.precision != "float32" else []
    parts += ["compiled"] if how.compile else []
    return f"; network: {', '.join(parts)}" if parts else ""


def machine(view: View) -> str:
    """Where the suite was timed, and how the network ran."""
    run = view.latency_run()
    if run is None:
        return "Not timed: there is no latency run of this suite."
    if run["status"] != "ok":
        return rst(f"The latency run is {run['status']}: {run['reason']}.")
    where = f"Machine: {run['device']}; {run['host_class']}; torch {run['torch']}"
    return rst(f"{where}{_network_words(view)}.")


def batches(view: View) -> list[int]:
    """Batch sizes that were tried."""
    return sorted(view.latency("latency_s")["num_images"].dropna().astype(int).unique().tolist())


def common_batch(view: View, variants: Iterable[str]) -> int | None:
    """The largest batch size at which all of these were timed, of those that were timed at all:
    times of two sizes do not compare, and one variant may have had no memory for the largest."""
    rows = view.latency("latency_s").dropna(subset=["value"])
    rows = rows[rows["variant"].isin(list(variants))]
    sizes = [set(of_one.astype(int)) for _, of_one in rows.groupby("variant")["num_images"]]
    return max(set.intersection(*sizes), default=None) if sizes else None


def round_times(view: View, variant: str, batch: int | None = None) -> tuple[pd.Series, int] | None:
    """Milliseconds per image of every round at a batch size, or the largest one that was timed, and
    that size."""
    batch = batch or common_batch(view, [variant])
    if batch is None:
        return None
    rows = view.latency("latency_s").dropna(subset=["value"])
    rows = rows[(rows["variant"] == variant) & (rows["num_images"] == batch)]
    return (rows["value"] / batch * 1e3, batch) if len(rows) else None


def milliseconds(view: View, variant: str, batch: int | None = None) -> tuple[float, int] | None:
    """Median time per image at a batch size, or the largest one that was timed, and that size."""
    timed = round_times(view, variant, batch)
    return timed and (float(timed[0].median()), timed[1])


def cost_of(rows: pd.DataFrame, variant: str, batch: int | None) -> float | None:
    """What an image of a batch costs where it was timed: as that batch was counted, where it makes
    other calls than the largest one, of which the run's own number is. rows: of `nfe`, or another
    cost."""
    rows = rows[rows["variant"] == variant].dropna(subset=["value"])
    own = rows[rows["num_images"] == batch]
    values = (own if len(own) else rows[rows["num_images"].isna()])["value"]
    return float(values.iloc[0]) if len(values) else None


def floors(view: View) -> pd.DataFrame:
    """Least seconds of each scale of a batch: columns variant, num_images, scale, memory,
    operations, floor (the longer of the two); no rows where the run measured no floors."""
    keys, columns = ["variant", "num_images", "scale"], {}
    for name in ("memory", "operations"):
        columns[name] = view.latency(f"floor_{name}_scale_s").set_index(keys)["value"]
    table = pd.DataFrame(columns).dropna()
    return table.assign(floor=table.max(axis=1)).reset_index()
