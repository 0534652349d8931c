"""Times and floors of a suite that was timed. Imports no torch."""

from __future__ import annotations

import pandas as pd

from ..study.escaping import rst
from .view import View


def machine(view: View) -> str:
    """Where the suite was timed."""
    run = view.latency_run()
    if run is None:
        return "Not timed: there is no latency run of this suite."
    if run["status"] != "ok":
        return rst(f"The latency run is {run['status']}: {run['reason']}.")
    return rst(f"Machine: {run['device']}; {run['host_class']}; torch {run['torch']}.")


def batches(view: View) -> list[int]:
    """Batch sizes that were tried."""
    return sorted(view.latency("latency_s")["num_images"].dropna().astype(int).unique().tolist())


def round_times(view: View, variant: str) -> tuple[pd.Series, int] | None:
    """Milliseconds per image of every round at the largest batch size that was timed, and that
    size."""
    rows = view.latency("latency_s")
    rows = rows[rows["variant"] == variant].dropna(subset=["value"])
    if not len(rows):
        return None
    batch = int(rows["num_images"].max())
    return rows.loc[rows["num_images"] == batch, "value"] / batch * 1e3, batch


def milliseconds(view: View, variant: str) -> tuple[float, int] | None:
    """Median time per image at the largest batch size that was timed, and that size."""
    timed = round_times(view, variant)
    return timed and (float(timed[0].median()), timed[1])


def floors(view: View) -> pd.DataFrame:
    """Least seconds of each scale of a batch: columns variant, num_images, scale, memory,
    operations, floor (the longer of the two); no rows where the run measured no floors."""
    keys, columns = ["variant", "num_images", "scale"], {}
    for name in ("memory", "operations"):
        columns[name] = view.latency(f"floor_{name}_scale_s").set_index(keys)["value"]
    table = pd.DataFrame(columns).dropna()
    return table.assign(floor=table.max(axis=1)).reset_index()
