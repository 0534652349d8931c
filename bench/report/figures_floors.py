"""The figure of measured times beside the floors that the machine allows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from .analysis import (
    Results,
    batches,
    claim,
    common_batches,
    floors,
    machine,
    over_floor,
    precision,
    rates_words,
    rst,
    samplers,
    show,
    show_ratio,
)
from .drawing import DOUBLE, blank, look, note, plain_log, text
from .sheets import by_variant, sheet

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


def _floors(axes: np.ndarray, results: Results, suite: str) -> None:
    """Times and floors of a few variants."""
    whole, *panels = axes[0]
    variants, least = results.variants(suite), floors(results, suite)
    least[["memory", "operations", "floor"]] *= 1e3
    sums = least.groupby(["variant", "num_images"], as_index=False)[["memory", "operations", "floor"]].sum()
    seconds = results.latency(suite, "latency_s").dropna(subset=["value"])
    seconds["ms"] = seconds["value"] * 1e3
    parts = results.latency(suite, "latency_scale_s").dropna(subset=["value"])
    parts["ms"] = parts["value"] * 1e3
    sides = sorted({side for names in variants.values() for side in names["patch_nums"]})
    common = common_batches(results, suite) if len(least) else []
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
        whole.set_xticks(batches(results, suite), map(str, batches(results, suite)))
        whole.xaxis.set_minor_locator(NullLocator())
    for panel in panels:
        _finish(panel, len(variants), f"network by scale, batch {sizes[panel]}" if panel in sizes else "network by scale")
        panel.set(xlabel="grid side of the scale (tokens)", ylabel="time of the scale (ms)")
        if panel.lines:
            panel.set_xticks(range(len(sides)), map(str, sides))
    if len(least):
        for line, words in FLOORS.values():
            whole.add_line(Line2D([], [], color="0.2", linestyle=line, linewidth=1, label=words))


def figure_floors(results: Results, suite: str) -> tuple[Figure, str]:
    """Time of a whole sample against batch size, and of the network at every scale for the smallest
    and the largest batch, beside what
    memory and arithmetic of the machine allow."""
    figure = sheet(by_variant(results, suite, MOST), suite, (DOUBLE, 2.8), (1, 3), _floors)
    run = results.latency_run(suite)
    note(figure, f"the latency run is {run['status']} ({run['reason']})" if run is not None and run["status"] != "ok" else "")
    caption = (
        f"{claim(results, suite)} Measured time beside its floors, {precision(results, suite)}. Points: every round; lines: median; dotted: "
        "memory floor, dashed: operation floor, in the variant's colour. Numbers on top: median time over the longer floor, in the order of "
        "the legend. Left: from the first scale to the latent state, draws included, decoder excluded, against the sum of its scales' "
        f"floors; right: the network alone, guidance included. {rates_words(results, suite)} {_ratios(results, suite)} "
        f"Weights are drawn, not trained. {samplers(results, suite)} {machine(results, suite)}"
    )
    return figure, " ".join(caption.split())


def _ratios(results: Results, suite: str) -> str:
    """Time over floor of the whole sample, with its interval."""
    found = {
        variant: [(batch, ratio) for batch in batches(results, suite) if (ratio := over_floor(results, suite, variant, batch))]
        for variant in results.variants(suite)
    }
    words = [f"{rst(v)} " + ", ".join(f"{show_ratio(r)} at batch {b}" for b, r in pairs) for v, pairs in found.items() if pairs]
    if not words:
        return "This run measured no floors."
    return f"Time over floor of the whole sample, geometric mean over rounds with 95 % t-interval: {'; '.join(words)}."
