"""Verb: the figures of a study, from metrics.csv, runs.csv and images.npz alone.

    python -m bench figures ORIGIN TARGET [names...]

A figure is a function `figure_<name>(results, suite) -> (Figure, caption)`; it draws every variant that the suite has. A number
that is missing is named in red with the status of its run, never drawn as 0.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .analysis import (
    Results,
    batches,
    claim,
    common_batches,
    held_out,
    kept_words,
    latency_verdict,
    machine,
    made_by,
    missing_words,
    paired,
    reach,
    rounds_words,
    rst,
    run_verb,
    samplers,
    seeds_words,
    show,
    show_difference,
    steps_to_targets,
    tokenizers_words,
)
from .drawing import (
    DOUBLE,
    RED,
    SINGLE,
    apart,
    band,
    blank,
    look,
    note,
    plain_log,
    side_ticks,
    text,
    write_figure,
)
from .figures_diffusion import figure_equivalence, figure_snr  # noqa: F401
from .figures_distill import figure_distillation  # noqa: F401 (found by name)
from .figures_floors import figure_floors  # noqa: F401
from .figures_images import figure_growth, figure_samples  # noqa: F401
from .figures_scores import figure_fid, floor_count  # noqa: F401
from .figures_sweep import (  # noqa: F401 (found by name)
    figure_guidance,
    figure_heat_maps,
    figure_refine_steps,
)
from .figures_zero_shot import (  # noqa: F401 (found by name)
    figure_error_propagation,
    figure_zero_shot,
    figure_zero_shot_strips,
)
from .sheets import by_grid, by_variant, sheet

# ---------------------------------------------------------------- scales


def one_a_model(results: Results, suite: str) -> dict[str, list[str]]:
    """The first variant of each trained model, and the others, which differ in their sampler alone."""
    found: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for variant, names in results.variants(suite).items():
        found.setdefault(first.setdefault(names["model"], variant), []).append(variant)
    return {variant: members[1:] for variant, members in found.items()}


def _per_scale(axes: np.ndarray, results: Results, suite: str) -> None:
    """Loss and accuracy of every variant against the scale."""
    panels = {"loss_test_scale": "held-out loss (nats/token)", "token_accuracy_test_scale": "held-out token accuracy (share)"}
    for panel, (metric, title) in zip(axes[0], panels.items()):
        models = one_a_model(results, suite)
        for i, variant in enumerate(models):
            rows, names = results.by_scale(variant, suite, metric), results.variants(suite)[variant]
            if len(rows):
                sides = rows["scale"].astype(int).map(dict(enumerate(names["patch_nums"])))
                spread = apart(i, len(models), 0.05)
                band(panel, rows.assign(side=sides + spread), "side", variant, look(i))
        if not panel.lines:
            blank(panel, "no training has ended well")
        panel.set_ylabel(title)
        side_ticks(panel, results, suite)


def figure_per_scale(results: Results, suite: str) -> tuple[Figure, str]:
    """Held-out cross-entropy and token accuracy at every scale, kept weights."""
    figure = sheet(by_variant(results, suite), suite, (DOUBLE, 2.6), (1, 2), _per_scale)
    note(figure, missing_words(results, suite, "kept_step"))
    same = [f"{rst(one)} stands for {rst(', '.join(others))}" for one, others in one_a_model(results, suite).items() if others]
    shared = f"One curve a trained model: {'; '.join(same)}. " if same else ""
    caption = (
        f"{claim(results, suite)} Teacher-forced cross-entropy and top-1 accuracy of the tokens of {held_out(results)}, scale by "
        "scale, at the step with the best validation loss; symbols of one scale stand side by side. Lines: mean, bands: "
        f"interval. {shared}{seeds_words(results, suite)} {reach(results, suite)} Losses of different schedules are losses of different "
        "tokens."
    )
    return figure, " ".join(caption.split())


def _code_usage(axes: np.ndarray, results: Results, suite: str) -> None:
    """Perplexity of the codes of every schedule against the scale."""
    panel, quarters = axes[0, 0], {}
    for i, (grid, names) in enumerate(results.grids(suite).items()):
        metrics = ("code_perplexity", "codes_usable", "scale_collapsed")
        parts = {metric: results.grid_scales(names, metric, suite) for metric in metrics}
        sides = [(k, side) for k, side in enumerate(names["patch_nums"]) if pd.notna(parts["code_perplexity"].get(float(k)))]
        if not sides:
            continue
        values = [parts["code_perplexity"][k] for k, _ in sides]
        panel.plot([side for _, side in sides], values, label=text(grid), alpha=0.9, **look(i))
        usable = parts["codes_usable"]
        quarters |= {side: usable[k] / 4 for k, side in sides if k in usable}
        for (k, side), value in zip(sides, values):
            if parts["scale_collapsed"].get(float(k), 0) > 0:  # of any training seed
                panel.plot([side], [value], "o", markersize=9, markerfacecolor="none", color=RED)
                right = {
                    "textcoords": "offset points",
                    "va": "center",
                    "ha": "right" if side == names["patch_nums"][-1] else "left",
                }
                paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
                offset = (-8 if right["ha"] == "right" else 8, 0)
                panel.annotate("collapsed", (side, value), offset, color=RED, fontsize=7, bbox=paper, **right)
    if quarters:
        sides = sorted(quarters)
        line = [quarters[side] for side in sides]
        panel.plot(sides, line, color="0.35", linestyle=":", linewidth=1, label="quarter of usable codes")
        panel.set_ylim(0, 1.12 * max(np.max(line.get_ydata()) for line in panel.lines))
    elif not panel.lines:
        blank(panel, "no tokenizer was read")
    panel.set_ylabel("perplexity of the codes (codes)")
    side_ticks(panel, results, suite)


def figure_code_usage(results: Results, suite: str) -> tuple[Figure, str]:
    """Perplexity of the codes at every scale on held-out pictures; a collapsed scale in red."""
    figure = sheet(by_grid(results, suite), suite, (SINGLE, 2.7), (1, 1), _code_usage, columns=2)
    grids = results.grids(suite).items()
    lost = [
        grid
        for grid, names in grids
        if not len(results.of_grid(names, "code_perplexity")["value"].dropna())
    ]
    note(
        figure,
        "; ".join(f"{grid}: {results.why(results.grids(suite)[grid], None)}" for grid in lost),
    )
    tokenizers = ", ".join(sorted({names["tokenizer"] for names in results.variants(suite).values()}))
    caption = (
        f"{claim(results, suite)} "
        f"Codes that tokenizer {tokenizers} uses at each scale on {held_out(results)}: exp of the entropy "
        "of their shares. Dotted: a quarter of the codes that the scale could use; a scale at or below it has collapsed and is "
        f"marked in red, also where it is one tokenizer's of several. {tokenizers_words(results, suite)}"
    )
    return figure, caption


# ---------------------------------------------------------------- convergence


def _reached(results: Results, suite: str) -> str:
    """Steps and seconds until the held-out losses that every training of the suite passes, and
    paired differences to the first variant."""
    first, *others = results.variants(suite)
    words = []
    for target, rows in steps_to_targets(results, suite).items():
        parts = [
            f"{rst(v)} {rows[v]['step'].mean():.0f} steps and {show(rows[v]['seconds'].mean())} s"
            + (f" ({show_difference(paired(rows[first]['step'], rows[v]['step']))})" if v in others and first in rows else "")
            for v in results.variants(suite)
            if v in rows
        ]
        words.append(f"{target:.2f}: {', '.join(parts)}")
    if not words or not others:
        return ""
    return (
        "Until a held-out loss (grey lines; chosen where every training passes; interpolated between looks), mean over seeds, in "
        f"brackets steps minus those of {rst(first)}, paired: {'; '.join(words)}."
    )


def _convergence(axes: np.ndarray, results: Results, suite: str, targets: Iterable[float]) -> None:
    """Loss and FID of every variant against step and time. targets: losses of the whole suite, of
    which these may be a few variants."""
    fid = f"fid_{results.extractor}"
    ways = (("step", None, "training step"), ("step", "seconds", "training time (s)"))
    for row, (metric, title) in enumerate((("loss_test", "held-out loss (nats/token)"), (fid, results.label("FID")))):
        for panel, (x, along, label) in zip(axes[row], ways):
            for i, variant in enumerate(results.variants(suite)):
                rows = results.snapshots(variant, suite, metric)
                if len(rows):
                    band(panel, rows, x, variant, look(i), along)
            if not panel.lines:
                blank(panel, f"no {title} along the training")
            panel.set_xlabel(label)
        axes[row, 0].set_ylabel(title)
    for target in targets:
        for panel in axes[0]:
            panel.axhline(target, color="0.6", linestyle="-", linewidth=0.5, zorder=0)
    means = [y for line in axes[1, 0].lines for y in line.get_ydata()]
    floor = next((v for n in results.variants(suite).values() if (v := results.grid_value(n, f"floor_{fid}", suite)) is not None), None)
    if means:
        low = min([*means, floor] if floor is not None and floor > 0 else means)
        for panel in axes[1]:
            if floor is not None and floor > 0:
                panel.axhline(floor, color="0.35", linestyle=":", linewidth=1, label="floor: real training pictures", zorder=0)
            panel.set_yscale("log")
            panel.set_ylim(0.7 * max(low, 1e-6), 1.4 * max(means))
            plain_log(panel.yaxis)


def figure_convergence(results: Results, suite: str) -> tuple[Figure, str]:
    """Held-out loss and FID against step and against wall-clock."""
    fid = f"fid_{results.extractor}"
    draw = partial(_convergence, targets=list(steps_to_targets(results, suite)))
    figure = sheet(by_variant(results, suite), suite, (DOUBLE, 4.4), (2, 2), draw, sharey="row")
    lost = (missing_words(results, suite, "loss_test", along=True), missing_words(results, suite, fid, along=True))
    note(figure, "; ".join(f"{what}, {words}" for what, words in zip(("loss", "FID"), lost) if words))
    caption = (
        f"{claim(results, suite)} Averaged weights every few steps; lines: mean, bands: interval. Time is training alone, "
        "without held-out looks, of trainings that shared the machine with other jobs: a record, no measurement of speed; seconds of a "
        f"step: mean over seeds. Dotted: floor, real training "
        f"pictures{floor_count(results, suite)}. {_reached(results, suite)} {kept_words(results, suite)} {made_by(results, suite)}"
    )
    return figure, " ".join(caption.split())


# ---------------------------------------------------------------- latency


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


def _latency(axes: np.ndarray, results: Results, suite: str) -> None:
    """Time and memory of every variant against batch size, and time against the scale."""
    time, memory, scales = axes[0]
    seconds, peak = results.latency(suite, "latency_s"), results.latency(suite, "peak_memory_bytes")
    seconds["value"] *= 1e3 / seconds["num_images"]
    peak["value"] /= 2**20
    batch = max(common_batches(results, suite), default=None)
    parts = results.latency(suite, "latency_scale_s").dropna(subset=["value"])
    parts = parts[parts["num_images"] == (batch or -1)]
    for i, (variant, names) in enumerate(results.variants(suite).items()):
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
    sizes = batches(results, suite)
    for panel in (time, memory):
        panel.set_xlabel("batch size (images)")
        if sizes:
            panel.set_xscale("log", base=2)
            panel.set_xticks(sizes, map(str, sizes))
            panel.xaxis.set_minor_locator(NullLocator())
    side_ticks(scales, results, suite)


def figure_latency(results: Results, suite: str) -> tuple[Figure, str]:
    """Time per image and peak memory against batch size, and the network's time at every scale."""
    figure = sheet(by_variant(results, suite), suite, (DOUBLE, 2.6), (1, 3), _latency)
    run = results.latency_run(suite)
    bad = run is not None and run["status"] != "ok"
    note(figure, f"the latency run is {run['status']} ({run['reason']})" if bad else "")
    caption = (
        f"{claim(results, suite)} "
        f"Faint points: every repeat; lines: median. Interleaved rounds in one process, warm-up excluded. {rounds_words(results, suite)} "
        "Time from the first scale to the latent state, without the decoder; working memory: bytes that the sampler's tensors hold above "
        "the weights, at their peak. "
        f"Right: the network at each scale, guidance included. Weights are drawn, not trained. {samplers(results, suite)} "
        f"{latency_verdict(results, suite)} {machine(results, suite)}"
    )
    return figure, " ".join(caption.split())


def main() -> None:
    """`python -m bench figures ORIGIN TARGET [names...]`."""
    run_verb("figures", sys.modules[__name__], write_figure)
