"""Times, memory and floors of every variant, and the rules that compare them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from ...report.cells import COSTS, Cell, frame, number, without_numbers
from ...report.claims import Verdict, claim, claimed, decided_together
from ...report.drawing import DOUBLE, blank, look, note, plain_log, side_ticks, text
from ...report.estimate import Estimate, estimate, paired, show, verdict
from ...report.sheets import by_variant, sheet
from ...report.timing import batches, floors, machine
from ...report.view import View
from ...report.words import samplers
from ...runtime.study_row import check_job
from ...study.escaping import rst
from .plan import Settings


def _against_batch(axes: Axes, rows: pd.DataFrame, lost: pd.Series, variant: str, i: int) -> None:
    """Every repeat as a faint point, the median as a line; a batch that did not fit is named."""
    style, mine = look(i), rows[rows["variant"] == variant]
    there = mine.dropna(subset=["value"])
    if len(there):
        axes.scatter(there["num_images"], there["value"], s=6, color=style["color"], alpha=0.3, linewidth=0)
        middle = there.groupby("num_images")["value"].median()
        axes.plot(middle.index, middle.to_numpy(), label=text(variant), **style)
    for batch in lost:
        place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top", "fontsize": 6.5}
        axes.text(batch, 0.98 - 0.08 * i, "oom", color=style["color"], **place)


def _latency(axes: np.ndarray, view: View) -> None:
    """Time and memory of every variant against batch size, and time against the scale."""
    time, memory, scales = axes[0]
    seconds, peak = view.latency("latency_s"), view.latency("peak_memory_bytes")
    seconds["value"] *= 1e3 / seconds["num_images"]
    peak["value"] /= 2**20
    batch = max(common_batches(view), default=None)
    parts = view.latency("latency_scale_s").dropna(subset=["value"])
    parts = parts[parts["num_images"] == (batch or -1)]
    for i, (variant, names) in enumerate(view.variants.items()):
        lost = seconds.loc[(seconds["variant"] == variant) & seconds["value"].isna(), "num_images"]
        _against_batch(time, seconds, lost, variant, i)
        _against_batch(memory, peak, lost, variant, i)
        mine = parts[parts["variant"] == variant]
        if len(mine):
            sides = mine["scale"].astype(int).map(dict(enumerate(names["patch_nums"])))
            scales.scatter(sides, mine["value"] * 1e3, s=6, color=look(i)["color"], alpha=0.3, linewidth=0)
            middle = (mine["value"] * 1e3).groupby(sides).median()
            scales.plot(middle.index, middle.to_numpy(), label=text(variant), **look(i))
    labels = ("time per image (ms)", "working memory (MiB)", f"network time (ms), batch {batch or '-'}")
    for panel, label in zip(axes[0], labels):
        panel.set_ylabel(label)
        if not panel.lines:
            blank(panel, "no variant was timed")
            continue
        panel.set_yscale("log")
        plain_log(panel.yaxis)
    sizes = batches(view)
    for panel in (time, memory):
        panel.set_xlabel("batch size (images)")
        if sizes:
            panel.set_xscale("log", base=2)
            panel.set_xticks(sizes, map(str, sizes))
            panel.xaxis.set_minor_locator(NullLocator())
    side_ticks(scales, view)


def figure_latency(view: View) -> tuple[Figure, str]:
    """Time per image and peak memory against batch size, and the network's time at every scale."""
    figure = sheet(by_variant(view), (DOUBLE, 2.6), (1, 3), _latency)
    run = view.latency_run()
    bad = run is not None and run["status"] != "ok"
    note(figure, f"the latency run is {run['status']} ({run['reason']})" if bad else "")
    caption = (
        f"{claim(view)} "
        f"Faint points: every repeat; lines: median. Interleaved rounds in one process, warm-up excluded. {rounds_words(view)} "
        "Time from the first scale to the latent state, without the decoder; working memory: bytes that the sampler's tensors hold above "
        "the weights, at their peak. "
        f"Right: the network at each scale, guidance included. Weights are drawn, not trained. {samplers(view)} "
        f"{latency_verdict(view)} {machine(view)}"
    )
    return figure, " ".join(caption.split())


MOST = 6  # variants whose ratios find a place above their times


FLOORS = {"memory": (":", "memory floor"), "operations": ("--", "operation floor")}


def _points(axes: Axes, times: pd.DataFrame, least: pd.DataFrame, variant: str, i: int) -> None:
    """One variant in a panel: every round as a faint point, medians joined, its two floors, and on top time over floor. times: columns
    x, ms; least: columns x, memory, operations, floor in ms."""
    style = look(i)
    if not len(times):
        return
    axes.scatter(times["x"], times["ms"], s=6, color=style["color"], alpha=0.3, linewidth=0)
    middle = times.groupby("x")["ms"].median()
    axes.plot(middle.index, middle.to_numpy(), label=text(variant), **{**style, "linestyle": "-"})
    for name, (line, _) in FLOORS.items():
        axes.plot(least["x"], least[name], color=style["color"], linestyle=line, linewidth=1, zorder=1)
    for x, floor in zip(least["x"], least["floor"]):
        if x in middle.index:
            shown = {
                "transform": axes.get_xaxis_transform(),
                "ha": "center",
                "va": "top",
                "fontsize": 5.5,
                "color": style["color"],
            }
            axes.text(x, 1.0 - 0.06 * i, show(middle[x] / floor, 2), **shown)


def _finish(axes: Axes, variants: int, title: str) -> None:
    """A logarithmic axis with room for the ratios above the data."""
    axes.set_title(f"{title}\nnumbers: time / floor", fontsize=6.5)
    if not axes.lines:
        blank(axes, "no floor was measured")
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    share = 1 - 0.06 * (variants + 1)
    axes.set_ylim(low, low * (high / low) ** (1 / max(share, 0.3)))
    plain_log(axes.yaxis)


def _floors(axes: np.ndarray, view: View) -> None:
    """Times and floors of a few variants."""
    whole, *panels = axes[0]
    variants, least = view.variants, floors(view)
    least[["memory", "operations", "floor"]] *= 1e3
    sums = least.groupby(["variant", "num_images"], as_index=False)[["memory", "operations", "floor"]].sum()
    seconds = view.latency("latency_s").dropna(subset=["value"])
    seconds["ms"] = seconds["value"] * 1e3
    parts = view.latency("latency_scale_s").dropna(subset=["value"])
    parts["ms"] = parts["value"] * 1e3
    sides = sorted({side for names in variants.values() for side in names["patch_nums"]})
    common = common_batches(view) if len(least) else []
    sizes = dict(zip(panels, sorted({*common[:1], *common[-1:]})))
    for i, (variant, names) in enumerate(variants.items()):
        mine = sums[sums["variant"] == variant].rename(columns={"num_images": "x"})
        if len(mine):
            _points(whole, seconds[seconds["variant"] == variant].rename(columns={"num_images": "x"}), mine, variant, i)
        at = {k: sides.index(side) for k, side in enumerate(names["patch_nums"])}
        for panel, batch in sizes.items():
            pick = lambda rows: rows[(rows["variant"] == variant) & (rows["num_images"] == batch)]  # noqa: B023, E731
            _points(panel, *(pick(rows).assign(x=pick(rows)["scale"].map(at)) for rows in (parts, least)), variant, i)
    _finish(whole, len(variants), "whole sample")
    whole.set(xlabel="batch size (images)", ylabel="time of the batch (ms)")
    if whole.lines:
        whole.set_xscale("log", base=2)
        whole.set_xticks(batches(view), map(str, batches(view)))
        whole.xaxis.set_minor_locator(NullLocator())
    for panel in panels:
        _finish(panel, len(variants), f"network by scale, batch {sizes[panel]}" if panel in sizes else "network by scale")
        panel.set(xlabel="grid side of the scale (tokens)", ylabel="time of the scale (ms)")
        if panel.lines:
            panel.set_xticks(range(len(sides)), map(str, sides))
    if len(least):
        for line, words in FLOORS.values():
            whole.add_line(Line2D([], [], color="0.2", linestyle=line, linewidth=1, label=words))


def figure_floors(view: View) -> tuple[Figure, str]:
    """Time of a whole sample against batch size, and of the network at every scale for the smallest
    and the largest batch, beside what
    memory and arithmetic of the machine allow."""
    figure = sheet(by_variant(view, MOST), (DOUBLE, 2.8), (1, 3), _floors)
    run = view.latency_run()
    note(figure, f"the latency run is {run['status']} ({run['reason']})" if run is not None and run["status"] != "ok" else "")
    caption = (
        f"{claim(view)} Measured time beside its floors, {precision(view)}. Points: every round; lines: median; dotted: "
        "memory floor, dashed: operation floor, in the variant's colour. Numbers on top: median time over the longer floor, in the order of "
        "the legend. Left: from the first scale to the latent state, draws included, decoder excluded, against the sum of its scales' "
        f"floors; right: the network alone, guidance included. {rates_words(view)} {_ratios(view)} "
        f"Weights are drawn, not trained. {samplers(view)} {machine(view)}"
    )
    return figure, " ".join(caption.split())


def _ratios(view: View) -> str:
    """Time over floor of the whole sample, with its interval."""
    found = {
        variant: [(batch, ratio) for batch in batches(view) if (ratio := over_floor(view, variant, batch))]
        for variant in view.variants
    }
    words = [f"{rst(v)} " + ", ".join(f"{show_ratio(r)} at batch {b}" for b, r in pairs) for v, pairs in found.items() if pairs]
    if not words:
        return "This run measured no floors."
    return f"Time over floor of the whole sample, geometric mean over rounds with 95 % t-interval: {'; '.join(words)}."


MEMORY = {
    "Working memory (MiB)": "peak_memory_bytes",
    "Weights (MiB)": "weights_bytes",
    "Tokenizer (MiB)": "tokenizer_bytes",
    "Decoder, peak (MiB)": "decoder_peak_bytes",
    "Pipeline, peak (MiB)": "pipeline_peak_bytes",
}


def _bytes(view: View, metric: str, variant: str, batch: int) -> float | None:
    """MiB of a variant, at a batch size where the metric has one."""
    rows = view.latency(metric)
    mine = (rows["variant"] == variant) & (rows["num_images"].isna() | (rows["num_images"] == batch))
    found = rows.loc[mine, "value"].dropna()
    return found.iloc[0] / 2**20 if len(found) else None


def _latency_row(view: View, variant: str, batch: int) -> dict[str, str]:
    """One variant at one batch size."""
    first = next(iter(view.variants))
    times, decoder = (view.rounds(metric, variant, batch) / batch * 1e3 for metric in ("latency_s", "decoder_s"))
    row: dict[str, str] = {"Variant": variant, "Batch": number(batch), "Rounds": number(len(times))}
    row["Time per image (ms)"] = number(times.median())
    low, high = times.quantile(0.25), times.quantile(0.75)
    row["Quartiles (ms)"] = Cell(f"{show(low)} to {show(high)}" if len(times) else "-", low=low, high=high)
    least, over = floor_s(view, variant, batch), over_floor(view, variant, batch)
    row["Floor per image (ms)"] = number(least and least / batch * 1e3)
    values = (math.exp(v) for v in (over.mean, over.low, over.high)) if over else ()
    row["Time / floor"] = Cell(show_ratio(over), **dict(zip(("mean", "low", "high"), values)))
    row["Decoder per image (ms)"] = number(decoder.median())
    for title, metric in MEMORY.items():
        row[title] = number(_bytes(view, metric, variant, batch))
    found, word = ratio(view, variant, batch)
    if found is None:
        row[f"Time / {first}"] = Cell("-")
    elif variant == first:
        row[f"Time / {first}"] = Cell("1")
    else:
        centre, low, high = (math.exp(v) for v in (found.mean, found.low, found.high))
        text = f"{centre:.3f} [{low:.3f}, {high:.3f}] {word}" if found.half is not None else f"{centre:.3f} (one round)"
        row[f"Time / {first}"] = Cell(text, mean=centre, low=low, high=high)
    for title, (metric, unit) in COSTS.items():
        cost = view.latency(metric)
        cost = cost.loc[cost["variant"] == variant, "value"].dropna()
        row[title] = number(cost.iloc[0] / unit if len(cost) else None)
    row["Status"] = "ok" if len(times) else "oom"  # a batch that does not fit is the one cell without rounds
    return row


def table_latency(view: View) -> tuple[pd.DataFrame, str]:
    """Time per image, decoder time and peak memory of every variant and batch size, and the ratio to the first variant."""
    run, sizes = view.latency_run(), batches(view)
    rows = [_latency_row(view, variant, batch) for batch in sizes for variant in view.variants]
    if not rows:  # the whole run failed, or none was asked for
        status = "not run" if run is None else f"{run['status']} ({run['reason']})"
        rows = [{"Variant": variant, "Time per image (ms)": "-", "Status": status} for variant in view.variants]
    table = frame(rows)
    if not len(floors(view)):  # timed by an older version
        table = table.drop(columns=["Floor per image (ms)", "Time / floor"], errors="ignore")
    table = without_numbers(table, [title for title in MEMORY if title != "Working memory (MiB)"])
    caption = (
        f"{claim(view)} Median and quartiles over interleaved rounds in one process, warm-up excluded; from the first "
        f"scale to the latent state, the decoder timed apart. {rounds_words(view)} Working memory: the most bytes that "
        "the sampler's tensors hold above the weights; decoder: the same of decoding; pipeline: weights and tokenizer, and the larger of "
        f"the two with what lives beside it. Time ratio: geometric mean over paired rounds with 95 % t-interval. Weights are drawn, not "
        f"trained. {samplers(view)} "
        f"{largest_words(view)} {rates_words(view)} {latency_verdict(view)} {machine(view)}"
    )
    return table, " ".join(caption.split())


def judge_latency(view: View, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when faster at every batch size by the interval of the log ratio over paired rounds, no when slower at every one."""
    found = {batch: ratio(view, one["variant"], batch, one["against"]) for batch in batches(view)}
    word, p = decided_together({batch: logs for batch, (logs, _) in found.items()})
    shown = []
    for what in sorted({said for _, said in found.values()}):
        mine = [f"{b} ({show(math.exp(logs.mean))})" if logs else str(b) for b, (logs, said) in found.items() if said == what]
        shown.append(f"{what} at batch {', '.join(mine)}")
    return Verdict(claimed(word, one), "; ".join(shown) or "nothing was timed", p)


def memory_ratios(view: View, metric: str, variant: str, against: str) -> dict[int, float]:
    """Bytes of a variant over those of another, by batch size that both have."""
    found = view.latency(metric).set_index(["variant", "num_images"])["value"].dropna()
    return {
        batch: found[variant, batch] / found[against, batch]
        for batch in map(float, batches(view))
        if {(variant, batch), (against, batch)} <= set(found.index)
    }


PEAKS = {
    "sampler": ("peak_memory_bytes", "peak working memory of the sampler"),
    "pipeline": ("pipeline_peak_bytes", "peak of the whole pipeline, weights and decoder included"),
}


def judge_memory(view: View, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when the sampler's peak of working memory is lower at every batch size, no when it is not
    lower at any; with `metric: pipeline` the same of the whole pipeline's. Bytes are counted, not
    timed. The reason says both."""
    asked = "pipeline" if one["metric"] == "pipeline" else "sampler"
    words, word = [], "not decided"
    for name in sorted(PEAKS, key=lambda name: name != asked):
        metric, what = PEAKS[name]
        shares = memory_ratios(view, metric, one["variant"], one["against"])
        shown = ", ".join(f"{share:.2f} at batch {batch:g}" for batch, share in shares.items())
        words.append(f"{what}: ratio {shown}" if shares else f"{what}: not measured at a common batch size")
        if name == asked and shares:
            lower = [share < 1 for share in shares.values()]
            word = "yes" if all(lower) else "no" if not any(lower) else "not decided"
    return claimed(word, one), "; ".join(words)


def ratio(view: View, variant: str, batch: int, against: str | None = None) -> tuple[Estimate | None, str]:
    """Log ratio of sampling time to another variant, or the first, over common rounds, and what that decides."""
    first = against or next(iter(view.variants))
    logs = [np.log(view.rounds("latency_s", name, batch)) for name in (first, variant)]
    found = paired(*logs)
    if found is None:
        return None, "not measured"
    return found, {"yes": "faster", "no": "slower"}.get(verdict(found), "not decided")


def common_batches(view: View) -> list[int]:
    """Batch sizes at which every variant was timed scale by scale."""
    rows = view.latency("latency_scale_s").dropna(subset=["value"])
    found = [set(part["num_images"].astype(int)) for _, part in rows.groupby("variant")]
    return sorted(set.intersection(*found)) if len(found) == len(view.variants) else []


def floor_s(view: View, variant: str, batch: int) -> float | None:
    """Least seconds of a batch, whose scales follow one another; None where it was not measured."""
    rows = floors(view)
    rows = rows[(rows["variant"] == variant) & (rows["num_images"] == batch)]
    return float(rows["floor"].sum()) if len(rows) else None


def over_floor(view: View, variant: str, batch: int) -> Estimate | None:
    """Log ratio of the measured time of a batch to its floor over rounds; None where one of them is missing."""
    least = floor_s(view, variant, batch)
    return least and estimate(np.log(view.rounds("latency_s", variant, batch) / least))


def show_ratio(found: Estimate | None) -> str:
    """The geometric mean behind a log ratio, and its interval."""
    if found is None:
        return "-"
    centre, low, high = (show(math.exp(value)) for value in (found.mean, found.low, found.high))
    return f"{centre} (one round)" if found.half is None else f"{centre} [{low}, {high}]"


def precision(view: View) -> str:
    """The dtype that the suite's networks were timed in."""
    run = view.latency_run()
    config = json.loads(run["config_json"] or "{}") if run is not None else {}
    return check_job(
        config, f"{view.results.folder / 'runs.csv'}: latency of {view.suite}: config_json"
    ).latency.precision


def rounds_words(view: View) -> str:
    """How many rounds stand behind a time, and what ended them."""
    rows = view.latency("latency_s").dropna(subset=["value", "repeat"])
    counts = rows.groupby(["variant", "num_images"]).size()
    if not len(counts):
        return ""
    low, high = counts.min(), counts.max()
    words = f"Rounds: {low}" if low == high else f"Rounds: {low} to {high}"
    run = view.latency_run()
    asked = json.loads(run["config_json"] or "{}").get("latency", {})
    if "max_rounds" not in asked:  # of an older version
        return f"{words}."
    # a job's config leaves out what is at its default
    width = asked.get("width", Settings.model_fields["width"].default)
    first = next(iter(view.variants))
    return (
        f"{words}, until the interval of the log ratio to {rst(first)} is at most {width:g} wide, {asked['max_rounds']} at most."
    )


def rates_words(view: View) -> str:
    """What floors were counted with; empty where none were."""
    run, rows = view.latency_run(), view.results.metrics
    rows = rows[
        (rows["run_id"] == (run["run_id"] if run is not None else "")) & rows["metric"].isin(["copy_bandwidth", "matmul_rate"])
    ]
    rates = rows.groupby("metric")["value"].max().dropna()
    if len(rates) < 2:
        return ""
    return (
        f"Floor of a scale: the longer of the bytes that it must move at least (weights once a pass, in {precision(view)}; cached "
        f"keys and values; logits) over the measured copy bandwidth, {show(rates['copy_bandwidth'] / 1e9)} GB/s, and its operations over "
        f"the measured rate of a large matrix product, {show(rates['matmul_rate'] / 1e9)} GFLOP/s in {precision(view)}; "
        "both of the fastest round. Weights that stay in the caches may beat the memory floor."
    )


def largest_words(view: View) -> str:
    """The largest measured batch that each variant had memory for; empty where a run does not say."""
    largest = view.latency("largest_batch").set_index("variant")["value"]
    found = [f"{rst(v)} {'none' if math.isnan(largest[v]) else int(largest[v])}" for v in view.variants if v in largest]
    return f"Largest measured batch that fits into memory: {', '.join(found)}." if found else ""


def latency_verdict(view: View) -> str:
    """At which batch sizes the second variant is faster, and needs less memory, than the first."""
    names = list(view.variants)
    if len(names) < 2 or not batches(view):
        return ""
    first, second = names[:2]
    peak = view.latency("peak_memory_bytes").set_index(["variant", "num_images"])["value"]
    time: dict[str, list[int]] = {}
    memory: dict[str, list[int]] = {}
    for batch in batches(view):
        time.setdefault(ratio(view, second, batch)[1], []).append(batch)
        pair = [peak.get((name, float(batch)), math.nan) for name in (first, second)]
        if all(map(math.isfinite, pair)):
            word = "less" if pair[1] < pair[0] else "more" if pair[1] > pair[0] else "equal"
            memory.setdefault(word, []).append(batch)
    whole = memory_ratios(view, "pipeline_peak_bytes", second, first)
    pipeline = ", ".join(f"{share:.2f} at batch {batch:g}" for batch, share in whole.items())
    times, memories = (
        "; ".join(f"{word} at batch {', '.join(map(str, sizes))}" for word, sizes in found.items()) for found in (time, memory)
    )
    return (
        f"{rst(second)} against {rst(first)}, time: {times} (decided where the 95 % t-interval of the log ratio over paired "
        f"rounds excludes 0; no correction for several batch sizes); working memory of the sampler: {memories or 'no number'}; whole "
        f"pipeline, ratio: {pipeline or 'not measured'}."
    )
