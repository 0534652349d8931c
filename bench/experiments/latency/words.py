"""What captions say of times, memory and floors. Imports no torch."""

from __future__ import annotations

import math

from ...report.estimate import show
from ...report.timing import batches, job_config, timed_as
from ...report.view import View
from ...study.escaping import rst
from .plan import Settings
from .times import memory_ratios, over_floor, ratio, show_ratio

NOT_TRAINED = "Weights are drawn, not trained: they do not change the time of a network call."


def precision(view: View) -> str:
    """The dtype that the suite's networks were timed in."""
    return timed_as(view).precision


def by_scale_words(view: View) -> str:
    """How a scale was run otherwise than within a whole sample; empty where it was not."""
    run = view.latency_run()
    if run is None or not timed_as(view).compile:
        return ""
    if not run["device"] or run["device"].startswith("cpu"):  # one that failed has none
        return ""
    return (
        "By scale every kernel is started on its own; a whole sample replays recorded graphs, so "
        f"that its scales together take longer than it.{_not_replayed(view)}"
    )


def _not_replayed(view: View) -> str:
    """Which whole samples were drawn without a record, as a sentence; empty where none was."""
    rows, names = view.latency("replayed"), []
    for variant in view.variants:
        drawn = rows[(rows["variant"] == variant) & (rows["value"] == 0)]
        if len(drawn):
            sizes = sorted(drawn["num_images"].astype(int))
            names.append(f"{rst(variant)} at batch {', '.join(map(str, sizes))}")
    return f" Not replayed but drawn anew: {'; '.join(names)}." if names else ""


def failed_words(view: View) -> str:
    """What became of a latency run that failed; empty for one that ended well, or none."""
    run = view.latency_run()
    if run is None or run["status"] == "ok":
        return ""
    return f"the latency run is {run['status']} ({run['reason']})"


def rounds_words(view: View) -> str:
    """How many rounds stand behind a time, and what ended them."""
    rows = view.latency("latency_s").dropna(subset=["value", "repeat"])
    counts = rows.groupby(["variant", "num_images"]).size()
    if not len(counts):
        return ""
    low, high = counts.min(), counts.max()
    words = f"Rounds: {low}" if low == high else f"Rounds: {low} to {high}"
    asked = job_config(view).get("latency", {})
    # one variant has no ratio; an older version did not say how many rounds are too many
    if len(view.variants) == 1 or "max_rounds" not in asked:
        return f"{words}."
    # a job's config leaves out what is at its default
    width = asked.get("width", Settings.model_fields["width"].default)
    first = next(iter(view.variants))
    return (
        f"{words}, until the interval of the log ratio to {rst(first)} is at most "
        f"{width:g} wide, {asked['max_rounds']} at most."
    )


def ratio_words(view: View) -> str:
    """What the ratios of times are; one variant has none."""
    if len(view.variants) == 1:
        return ""
    return (
        " Ratio to the first variant: geometric mean over paired rounds with 95 % t-interval, and "
        "what it decides."
    )


def rates_details(view: View) -> tuple[str, ...]:
    """What floors were counted with; empty where none were."""
    run, rows = view.latency_run(), view.results.metrics
    of_run = rows["run_id"] == (run["run_id"] if run is not None else "")
    rows = rows[of_run & rows["metric"].isin(["copy_bandwidth", "matmul_rate"])]
    rates = rows.groupby("metric")["value"].max().dropna() / 1e9
    if len(rates) < 2:
        return ()
    dtype = precision(view)
    return (
        "Floor of a scale: the longer of its memory floor and its operation floor.",
        "Memory floor: the bytes that a scale must move at least over the measured copy bandwidth, "
        f"{show(rates['copy_bandwidth'])} GB/s. These are weights once a pass, in {dtype}, cached "
        f"keys and values, and logits.",
        "Operation floor: its operations over the measured rate of a large matrix product, "
        f"{show(rates['matmul_rate'])} GFLOP/s in {dtype}.",
        "Both rates are those of the fastest round; weights that stay in the caches may beat the "
        "memory floor.",
    )


def over_floor_words(view: View) -> str:
    """Time over floor of the whole sample, with its interval."""
    words = []
    for variant in view.variants:
        at_batch = []
        for batch in batches(view):
            log_ratio = over_floor(view, variant, batch)
            if log_ratio:
                at_batch.append(f"{show_ratio(log_ratio)} at batch {batch}")
        if at_batch:
            words.append(f"{rst(variant)} {', '.join(at_batch)}")
    if not words:
        return "This run measured no floors."
    return (
        "Time over floor of the whole sample, geometric mean over rounds with 95 % t-interval: "
        f"{'; '.join(words)}."
    )


def largest_words(view: View) -> str:
    """The largest measured batch that each variant had memory for; empty where a run says none."""
    largest = view.latency("largest_batch").set_index("variant")["value"]
    words = []
    for variant in view.variants:
        if variant in largest:
            batch = largest[variant]
            words.append(f"{rst(variant)} {'none' if math.isnan(batch) else int(batch)}")
    return f"Largest measured batch that fits into memory: {', '.join(words)}." if words else ""


def _at_batches(sizes: dict[str, list[int]]) -> str:
    """Batch sizes by what was found at them, as a clause."""
    return "; ".join(f"{word} at batch {', '.join(map(str, at))}" for word, at in sizes.items())


def verdict_details(view: View) -> tuple[str, ...]:
    """At which batch sizes the second variant is faster, and needs less memory, than the first."""
    names = list(view.variants)
    if len(names) < 2 or not batches(view):
        return ()
    first, second = names[:2]
    time: dict[str, list[int]] = {}
    memory: dict[str, list[int]] = {}
    working = memory_ratios(view, "peak_memory_bytes", second, first)
    for batch in batches(view):
        time.setdefault(ratio(view, second, batch)[1], []).append(batch)
        if batch in working:
            share = working[batch]
            word = "less" if share < 1 else "more" if share > 1 else "equal"
            memory.setdefault(word, []).append(batch)
    whole = memory_ratios(view, "pipeline_peak_bytes", second, first)
    pipeline = ", ".join(f"{share:.2f} at batch {batch:g}" for batch, share in whole.items())
    pair = f"{rst(second)} against {rst(first)}"
    return (
        f"{pair}, time: {_at_batches(time)}. Decided where the 95 % t-interval of the log ratio "
        f"over paired rounds excludes 0, without correction for several batch sizes.",
        f"{pair}, working memory of the sampler: {_at_batches(memory) or 'not measured'}.",
        f"{pair}, whole pipeline, ratio: {pipeline or 'not measured'}.",
    )
