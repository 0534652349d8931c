"""Times, memory and floors of every variant, and the rules that compare them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from ...report.axes import keep_to_lines
from ...report.caption import Caption
from ...report.cells import COSTS, Cell, frame, number, shown, without_numbers
from ...report.claims import Verdict, claim_details, claimed, decided_together
from ...report.drawing import (
    DOUBLE,
    blank,
    look_of,
    note,
    plain_log,
    scale_places,
    side_ticks,
    text,
)
from ...report.estimate import Estimate, show
from ...report.sheets import by_variant, sheet
from ...report.timing import batches, cost_of, floors, machine
from ...report.view import View
from ...report.words import samplers
from .times import (
    common_batches,
    floor_s,
    mebibytes,
    memory_ratios,
    milliseconds,
    over_floor,
    ratio,
    show_ratio,
)
from .words import (
    NOT_TRAINED,
    by_scale_words,
    failed_words,
    largest_words,
    over_floor_words,
    precision,
    rates_details,
    ratio_words,
    rounds_words,
    verdict_details,
)

MOST = 6  # variants whose ratios find a place above their times
FLOORS = {"memory": (":", "memory floor"), "operations": ("--", "operation floor")}
RATIO_ROW = 0.06  # of a panel's height, for the ratios of one variant
FAINT = {"s": 6, "alpha": 0.3, "linewidth": 0}  # points of single rounds

# ---------------------------------------------------------------- time and memory


def _rounds_and_median(
    axes: Axes, xs: pd.Series, ys: pd.Series, variant: str, style: dict[str, Any]
) -> None:
    """Every round as a faint point, the medians as a line."""
    axes.scatter(xs, ys, color=style["color"], **FAINT)
    middle = ys.groupby(xs).median()
    axes.plot(middle.index, middle.to_numpy(), label=text(variant), **style)


def _against_batch(axes: Axes, rows: pd.DataFrame, lost: pd.Series, view: View, i: int) -> None:
    """The i-th variant against batch size; a batch that did not fit is named."""
    variant = list(view.variants)[i]
    style = look_of(view, variant)
    measured = rows[rows["variant"] == variant].dropna(subset=["value"])
    if len(measured):
        _rounds_and_median(axes, measured["num_images"], measured["value"], variant, style)
    for batch in lost:
        place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top"}
        axes.text(batch, 0.98 - 0.08 * i, "oom", color=style["color"], fontsize=6.5, **place)


def _batch_axis(axes: Axes, sizes: list[int]) -> None:
    """Batch sizes, each with a tick."""
    axes.set_xlabel("batch size (images)")
    if sizes:
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, map(str, sizes))
        axes.xaxis.set_minor_locator(NullLocator())


def _latency(axes: np.ndarray, view: View) -> None:
    """Time and memory of every variant against batch size, and time against the scale."""
    time, memory, scales = axes[0]
    seconds, peak = view.latency("latency_s"), view.latency("peak_memory_bytes")
    seconds["value"] *= 1e3 / seconds["num_images"]
    peak["value"] /= 2**20
    batch = max(common_batches(view), default=None)
    parts = milliseconds(view, "latency_scale_s")
    parts = parts[parts["num_images"] == (batch or -1)]
    for i, (variant, names) in enumerate(view.variants.items()):
        of_variant = seconds["variant"] == variant
        lost = seconds.loc[of_variant & seconds["value"].isna(), "num_images"]
        _against_batch(time, seconds, lost, view, i)
        _against_batch(memory, peak, lost, view, i)
        rows = parts[parts["variant"] == variant]
        if len(rows):
            sides = rows["scale"].astype(int).map(scale_places(view, names["patch_nums"]))
            _rounds_and_median(scales, sides, rows["ms"], variant, look_of(view, variant))
    time.set_ylabel("time per image (ms)")
    memory.set_ylabel("working memory (MiB)")
    scales.set_ylabel(f"network time (ms), batch {batch or '-'}")
    for panel in axes[0]:
        if not panel.lines:
            blank(panel, "no variant was timed")
            continue
        panel.set_yscale("log")
        keep_to_lines(panel)
        plain_log(panel.yaxis)
    for panel in (time, memory):
        _batch_axis(panel, batches(view))
    side_ticks(scales, view)


def figure_latency(view: View) -> tuple[Figure, Caption]:
    """Time per image and peak memory against batch size, and the network's time at every scale."""
    figure = sheet(by_variant(view), (DOUBLE, 2.6), (1, 3), _latency)
    note(figure, failed_words(view))
    caption = (
        "Time per image and working memory against batch size. Right: the time of the network "
        "alone against the scale, at the largest batch that all variants share. Faint points: "
        "every round, a triangle beyond the axis; lines: median. Axes of times and bytes are "
        "logarithmic."
    )
    details = (
        *claim_details(view),
        f"Interleaved rounds in one process, warm-up excluded. {rounds_words(view)}",
        "Time: from the first scale to the latent state, without the decoder; of the network: "
        "guidance included.",
        by_scale_words(view),
        "Working memory: bytes that the sampler's tensors hold above the weights, at their peak.",
        NOT_TRAINED,
        samplers(view),
        *verdict_details(view),
        machine(view),
    )
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- floors


def _points(axes: Axes, times: pd.DataFrame, least: pd.DataFrame, view: View, i: int) -> None:
    """The i-th variant in a panel: every round as a faint point, medians joined, its two floors,
    and on top time over floor.

    times: columns x, ms; least: columns x, memory, operations, floor in ms.
    """
    if not len(times):
        return
    variant = list(view.variants)[i]
    style = {**look_of(view, variant), "linestyle": "-"}
    colour = style["color"]
    axes.scatter(times["x"], times["ms"], color=colour, **FAINT)
    middle = times.groupby("x")["ms"].median()
    axes.plot(middle.index, middle.to_numpy(), label=text(variant), **style)
    for name, (line, _) in FLOORS.items():
        thin = {"marker": style["marker"], "markersize": 2, "linewidth": 1, "zorder": 1}
        axes.plot(least["x"], least[name], color=colour, linestyle=line, **thin)
    place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top"}
    for x, floor in zip(least["x"], least["floor"]):
        if x in middle.index:
            over = middle[x] / floor
            # three digits must not run into those of the next scale
            size = 5.5 if over < 99.5 else 4.3
            row = 1.0 - RATIO_ROW * i
            axes.text(x, row, show(over, 2), color=colour, fontsize=size, **place)
    beside = {"transform": axes.transAxes, "clip_on": False, "markersize": 3}
    # not among the lines of the axis, which say how far the data reach
    axes.add_artist(Line2D([1.02], [1 - RATIO_ROW * (i + 0.4)], **{**style, **beside}))


def _finish(axes: Axes, variants: int, title: str) -> None:
    """A logarithmic axis with room for the ratios above the data."""
    axes.set_title(f"{title}\nnumbers: time / floor", fontsize=6.5)
    if not axes.lines:
        blank(axes, "no floor was measured")
        return
    axes.set_yscale("log")
    keep_to_lines(axes)
    low, high = axes.get_ylim()
    share = 1 - RATIO_ROW * (variants + 1)
    axes.set_ylim(low, low * (high / low) ** (1 / max(share, 0.3)))
    plain_log(axes.yaxis)
    left, right = axes.get_xlim()
    if axes.get_xscale() == "log":
        pad = (right / left) ** 0.04
        axes.set_xlim(left / pad, right * pad)
    else:  # so that no ratio is drawn across the axis
        axes.set_xlim(left - 0.04 * (right - left), right + 0.04 * (right - left))


def _whole_sample(axes: Axes, view: View) -> None:
    """Times of whole samples against batch size, beside the sums of their scales' floors."""
    parts = ["memory", "operations", "floor"]
    least = floors(view).groupby(["variant", "num_images"], as_index=False)[parts].sum()
    least[parts] *= 1e3
    times = milliseconds(view, "latency_s")
    for i, variant in enumerate(view.variants):
        rows, bounds = times[times["variant"] == variant], least[least["variant"] == variant]
        if len(bounds):
            _points(
                axes,
                rows.assign(x=rows["num_images"]),
                bounds.assign(x=bounds["num_images"]),
                view,
                i,
            )
    axes.set(xlabel="batch size (images)", ylabel="time of the batch (ms)")
    if axes.lines:
        _batch_axis(axes, batches(view))
    _finish(axes, len(view.variants), "whole sample")


def _by_scale(axes: Axes, view: View, batch: int | None) -> None:
    """Times of the network at each scale of a batch beside their floors; None: no batch was
    measured."""
    least, times = floors(view), milliseconds(view, "latency_scale_s")
    least[["memory", "operations", "floor"]] *= 1e3
    for i, (variant, names) in enumerate(view.variants.items()):
        place = scale_places(view, names["patch_nums"], even=True)
        parts = []
        for rows in (times, least):
            cell = rows[(rows["variant"] == variant) & (rows["num_images"] == (batch or -1))]
            parts.append(cell.assign(x=cell["scale"].map(place)))
        measured, floor = parts
        _points(axes, measured, floor, view, i)
    title = "network by scale" if batch is None else f"network by scale, batch {batch}"
    axes.set(xlabel="grid side of the scale (tokens)", ylabel="time of the scale (ms)")
    if axes.lines:
        limits = axes.get_xlim()
        side_ticks(axes, view, even=True)
        axes.set_xlim(limits)
    _finish(axes, len(view.variants), title)


def _floors(axes: np.ndarray, view: View) -> None:
    """Times and floors of a few variants: whole samples, then the smallest and the largest batch by
    scale."""
    whole, *panels = axes[0]
    measured = len(floors(view)) > 0
    common = common_batches(view) if measured else []
    sizes = sorted({*common[:1], *common[-1:]})
    _whole_sample(whole, view)
    for panel, batch in zip(panels, [*sizes, None, None]):
        _by_scale(panel, view, batch)
    if measured:
        for line, words in FLOORS.values():
            handle = Line2D([], [], color="0.2", linestyle=line, linewidth=1, label=words)
            whole.add_line(handle)


def figure_floors(view: View) -> tuple[Figure, Caption]:
    """Time of a whole sample against batch size, and of the network at every scale for the smallest
    and the largest batch, beside what memory and arithmetic of the machine allow."""
    figure = sheet(by_variant(view, MOST), (DOUBLE, 2.8), (1, 3), _floors)
    note(figure, failed_words(view))
    caption = (
        "Measured time beside what the machine allows at best. Points: every round, a triangle "
        "beyond the axis. Lines: median; dotted: memory floor, dashed: operation floor, with the "
        "variant's colour and symbol. Numbers on top: median time over the longer floor, with the "
        "symbol on their right."
    )
    details = (
        *claim_details(view),
        "Left: from the first scale to the latent state, draws included, decoder excluded, "
        "against the sum of its scales' floors.",
        f"Right: the network alone, guidance included, {precision(view)}.",
        by_scale_words(view),
        *rates_details(view),
        over_floor_words(view),
        rounds_words(view),
        NOT_TRAINED,
        samplers(view),
        machine(view),
    )
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- table

MEMORY = {
    "Working memory (MiB)": "peak_memory_bytes",
    "Weights (MiB)": "weights_bytes",
    "Tokenizer (MiB)": "tokenizer_bytes",
    "Decoder, peak (MiB)": "decoder_peak_bytes",
    "Pipeline, peak (MiB)": "pipeline_peak_bytes",
}


def _ratio_cell(view: View, variant: str, batch: int) -> Cell:
    """Time over that of the first variant, with its interval and what it decides."""
    log_ratio, word = ratio(view, variant, batch)
    if log_ratio is None:
        return Cell("-")
    if variant == next(iter(view.variants)):
        return Cell("1")
    logs = (log_ratio.mean, log_ratio.low, log_ratio.high)
    centre, low, high = (math.exp(log) for log in logs)
    words = f"{centre:.3f} [{low:.3f}, {high:.3f}] {word}"
    if log_ratio.half is None:
        words = f"{centre:.3f} (one round)"
    return Cell(words, mean=centre, low=low, high=high)


def _over_floor_cell(view: View, variant: str, batch: int) -> Cell:
    """Time over floor, with its interval."""
    log_ratio = over_floor(view, variant, batch)
    if not log_ratio:
        return Cell(show_ratio(None))
    logs = {"mean": log_ratio.mean, "low": log_ratio.low, "high": log_ratio.high}
    return Cell(show_ratio(log_ratio), **{name: math.exp(log) for name, log in logs.items()})


def _latency_row(view: View, variant: str, batch: int) -> dict[str, str]:
    """One variant at one batch size."""
    times = view.rounds("latency_s", variant, batch) / batch * 1e3
    decoder = view.rounds("decoder_s", variant, batch) / batch * 1e3
    row: dict[str, str] = {"Variant": variant, "Batch": number(batch), "Rounds": number(len(times))}
    row["Time per image (ms)"] = number(times.median())
    low, high = times.quantile(0.25), times.quantile(0.75)
    quartiles = f"{show(low)} to {show(high)}" if len(times) else "-"
    row["Quartiles (ms)"] = Cell(quartiles, low=low, high=high)
    least = floor_s(view, variant, batch)
    row["Floor per image (ms)"] = number(least and least / batch * 1e3)
    row["Time / floor"] = _over_floor_cell(view, variant, batch)
    row["Decoder per image (ms)"] = number(decoder.median())
    for title, metric in MEMORY.items():
        row[title] = number(mebibytes(view, metric, variant, batch))
    row[f"Time / {next(iter(view.variants))}"] = _ratio_cell(view, variant, batch)
    for title, (metric, unit) in COSTS.items():
        cost = cost_of(view.latency(metric), variant, batch)
        row[title] = number(cost and cost / unit)
    # a batch that does not fit is the one cell without rounds
    row["Status"] = "ok" if len(times) else "oom"
    return row


def _untimed_rows(view: View) -> list[dict[str, str]]:
    """A row for each variant of a run that failed as a whole, or that none was asked for."""
    run = view.latency_run()
    status = "not run" if run is None else f"{run['status']} ({run['reason']})"
    return [
        {"Variant": variant, "Time per image (ms)": "-", "Status": status}
        for variant in view.variants
    ]


def _latency_table(view: View) -> pd.DataFrame:
    """All columns, and which of them a reader needs; the status where one is not ok."""
    rows = []
    for batch in batches(view):
        rows += [_latency_row(view, variant, batch) for variant in view.variants]
    table = frame(rows or _untimed_rows(view))
    if not len(floors(view)):  # timed by an older version
        table = table.drop(columns=["Floor per image (ms)", "Time / floor"], errors="ignore")
    table = without_numbers(table, [title for title in MEMORY if title != "Working memory (MiB)"])
    last = "Pipeline, peak (MiB)" if (table["Status"] == "ok").all() else "Status"
    columns = ["Variant", "Batch", "Time per image (ms)"]
    if len(view.variants) > 1:
        columns.append(f"Time / {next(iter(view.variants))}")
    return shown(table, *columns, "Time / floor", "Working memory (MiB)", last)


def table_latency(view: View) -> tuple[pd.DataFrame, Caption]:
    """Time per image, decoder time and peak memory of every variant and batch size, and the ratio
    to the first variant."""
    caption = (
        "Median time per image from the first scale to the latent state, and the most bytes of "
        f"the sampler's tensors above the weights.{ratio_words(view)}"
    )
    details = (
        *claim_details(view),
        "Median and quartiles over interleaved rounds in one process, warm-up excluded; the "
        "decoder is timed apart.",
        rounds_words(view),
        "Working memory: the most bytes that the sampler's tensors hold above the weights; "
        "decoder: the same of decoding.",
        "Pipeline: weights and tokenizer, and the larger of the two with what lives beside it.",
        NOT_TRAINED,
        samplers(view),
        largest_words(view),
        *rates_details(view),
        *verdict_details(view),
        machine(view),
    )
    return _latency_table(view), Caption(caption, details)


# ---------------------------------------------------------------- rules


def judge_latency(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes when faster at every batch size by the interval of the log ratio over paired rounds, no
    when slower at every one."""
    ratios: dict[int, Estimate | None] = {}
    shown_by_word: dict[str, list[str]] = {}
    for batch in batches(view):
        log_ratio, word = ratio(view, claim["variant"], batch, claim["against"])
        ratios[batch] = log_ratio
        words = f"{batch} ({show(math.exp(log_ratio.mean))})" if log_ratio else str(batch)
        shown_by_word.setdefault(word, []).append(words)
    verdict, p = decided_together(ratios)
    reason = "; ".join(
        f"{word} at batch {', '.join(shown_by_word[word])}" for word in sorted(shown_by_word)
    )
    parts = [reason or "nothing was timed", failed_words(view)]
    return Verdict(claimed(verdict, claim), "; ".join(filter(None, parts)), p)


PEAKS = {
    "sampler": ("peak_memory_bytes", "peak working memory of the sampler"),
    "pipeline": ("pipeline_peak_bytes", "peak of the whole pipeline, weights and decoder included"),
}


def judge_memory(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes when the sampler's peak of working memory is lower at every batch size, no when it is not
    lower at any; with `metric: pipeline` the same of the whole pipeline's.

    Bytes are counted, not timed. The reason says both.
    """
    asked = "pipeline" if claim["metric"] == "pipeline" else "sampler"
    words, verdict = [], "not decided"
    for name in sorted(PEAKS, key=lambda name: name != asked):
        metric, what = PEAKS[name]
        shares = memory_ratios(view, metric, claim["variant"], claim["against"])
        ratios = ", ".join(f"{share:.2f} at batch {batch:g}" for batch, share in shares.items())
        words.append(
            f"{what}: {f'ratio {ratios}' if shares else 'not measured at a common batch size'}"
        )
        if name == asked and shares:
            lower = [share < 1 for share in shares.values()]
            verdict = "yes" if all(lower) else "no" if not any(lower) else "not decided"
    return claimed(verdict, claim), "; ".join(filter(None, [*words, failed_words(view)]))
