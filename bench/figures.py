"""Verb: the figures of a study, from metrics.csv, runs.csv and images.npz alone.

    python -m bench.figures ORIGIN TARGET [names...]

A figure is a function `figure_<name>(results, suite) -> (Figure, caption)`; it draws every variant that the suite has. A number
that is missing is named in red with the status of its run, never drawn as 0.
"""

from __future__ import annotations

import importlib
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .analysis import (
    Results,
    batches,
    by_reason,
    claim,
    common_batches,
    estimate,
    fid_differences,
    held_out,
    latency_verdict,
    machine,
    made_by,
    missing_words,
    reach,
    rst,
    run_verb,
    samplers,
    seeds_words,
    show,
    steps_to_target,
)
from .drawing import (
    COLOURS,
    DOUBLE,
    RED,
    SINGLE,
    band,
    blank,
    canvas,
    legend_below,
    look,
    note,
    place,
    plain_log,
    side_ticks,
    text,
    write_figure,
)
from .figures_diffusion import figure_equivalence, figure_snr  # noqa: F401
from .figures_distill import figure_distillation  # noqa: F401 (found by name)
from .figures_floors import figure_floors  # noqa: F401
from .figures_sweep import figure_guidance, figure_heat_maps, figure_refine_steps  # noqa: F401 (found by name)
from .figures_zero_shot import figure_error_propagation, figure_zero_shot, figure_zero_shot_strips  # noqa: F401 (found by name)

# ---------------------------------------------------------------- pictures


def _absent(axes: Axes, results: Results, suite: str, variant: str) -> None:
    """A block without pictures says why."""
    names, seeds = results.variants(suite)[variant], results.suite(suite)["train_seeds"]
    axes.spines[:].set_visible(False)
    blank(axes, results.why(names, seeds[0]), letters=14)


def figure_samples(results: Results, suite: str) -> tuple[Figure, str]:
    """Generated pictures of every variant, same seeds and classes row by row, beside real held-out ones."""
    classes = results.about["dataset"]["num_classes"]
    rows = classes if 2 <= classes <= 10 else 10
    runs = {variant: results.sample_run(variant, suite) for variant in results.variants(suite)}
    blocks = {text(variant): results.images[f"{run}/images"] if run else None for variant, run in runs.items()}
    if "real/images" in results.images:
        blocks["real, held out"] = results.images["real/images"]
    columns = max(1, min(40 // rows, int(DOUBLE / 0.28) // len(blocks)))
    width = min(DOUBLE, 0.35 + 0.42 * columns * len(blocks))
    height = 0.35 + rows * (width - 0.3) / len(blocks) / (columns + 0.4)
    figure, axes = canvas(width, height, 1, len(blocks))
    for i, (panel, (name, images), variant) in enumerate(zip(axes[0], blocks.items(), [*runs, None])):
        panel.set_title("\n".join(textwrap.wrap(name, max(6, int(14 * width / len(blocks))))))
        if images is None:
            _absent(panel, results, suite, variant)
            continue
        # picture i has class i modulo the number of classes: with `rows` classes a row holds one class
        cells = {(j % rows, j // rows): image for j, image in enumerate(images[: rows * columns])}
        pitch = place(panel, cells, rows, columns)
        if i == 0:
            panel.set_yticks([(row + 0.45) * pitch for row in range(rows)], map(str, range(rows)))
            panel.tick_params(length=0)
            panel.set_ylabel("class" if rows == classes else "seed modulo 10")
    caption = (
        f"{claim(results, suite)} Pictures of each variant, the same {rows * columns} seeds in the same places, beside real "
        f"pictures of {held_out(results)}, in the same order of classes; not chosen, first training seed with pictures, "
        f"enlarged without smoothing. {samplers(results, suite)}"
    )
    return figure, caption


def figure_growth(results: Results, suite: str) -> tuple[Figure, str]:
    """A few pictures of every variant growing through their scales."""
    variants, shown = results.variants(suite), 4
    most = max(len(names["patch_nums"]) for names in variants.values())
    per_line = max(1, min(len(variants), 24 // most))
    lines = -(-len(variants) // per_line)
    width = min(DOUBLE, 0.3 + 0.5 * most * per_line)
    height = lines * (0.45 + shown * (width - 0.2) / per_line / (most + 0.4))
    figure, axes = canvas(width, height, lines, per_line)
    panels = iter(axes.flat)
    for variant, panel in zip(variants, panels):
        panel.set_title(text("\n".join(textwrap.wrap(variant, int(14 * width / per_line)))), pad=12)
        run, sides = results.sample_run(variant, suite), variants[variant]["patch_nums"]
        strip = results.images.get(f"{run}/strip")
        if strip is None:
            _absent(panel, results, suite, variant)
            continue
        count = min(shown, len(strip))
        cells = {(row, k): strip[row, k] for row in range(count) for k in range(len(sides))}
        pitch = place(panel, cells, count, len(sides))
        marks = [f"{side}x{side}" if len(sides) <= 6 else str(side) for side in sides]
        panel.set_xticks([(k + 0.45) * pitch for k in range(len(sides))], marks)
        panel.tick_params(length=0, labeltop=True, labelbottom=False, pad=1)
    for panel in panels:
        panel.set_visible(False)
    caption = (
        f"{claim(results, suite)} The same pictures after each scale: what the decoder makes of the accumulated latent state; "
        f"columns: grid side of the scale. The first {shown} seeds, the same in every variant, of the first training seed "
        f"with pictures; enlarged without smoothing. {samplers(results, suite)}"
    )
    return figure, caption


# ---------------------------------------------------------------- scores


def _dots(axes: Axes, results: Results, suite: str, metric: str, shift: float, style: dict[str, Any], label: str | None) -> bool:
    """Points per training seed, their mean and interval, for every variant; whether there was any."""
    for i, variant in enumerate(results.variants(suite)):
        values = results.of(variant, suite, metric)
        found = estimate(values)
        if found is None:
            continue
        mark = style or {key: value for key, value in look(i).items() if key != "linestyle"}
        spots = i + shift - 0.12 + 0.05 * np.arange(len(values)) / max(1, len(values) - 1)
        axes.scatter(spots, values, s=7, color=mark["color"], alpha=0.45, linewidth=0)
        half = [[found.half]] * 2 if found.half is not None else None
        axes.errorbar([i + shift], [found.mean], yerr=half, capsize=2.5, elinewidth=1, linestyle="none", label=label, **mark)
        label = None
    return bool(axes.collections)


def _variant_axis(axes: Axes, results: Results, suite: str) -> None:
    room = max(8, 28 // len(results.variants(suite)))
    names = ["\n".join(map(text, textwrap.wrap(name, room))) for name in results.variants(suite)]
    long = len(names) * max(len(line) for name in names for line in name.split("\n")) > 40
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(range(len(names)), names, **slant)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xlabel("variant")


def _lines(axes: Axes, results: Results, suite: str) -> None:
    """Floor across the panel; reconstruction across it too, or a tick per variant where schedules or tokenizers differ."""
    variants, x = list(results.variants(suite).values()), results.extractor
    floors = {value for names in variants if (value := results.grid_value(names, f"floor_fid_{x}")) is not None}
    for value in sorted(floors)[:1]:
        axes.axhline(value, color="0.35", linestyle=":", linewidth=1, label="floor: real training pictures", zorder=0)
    values = [results.grid_value(names, f"reconstruction_fid_{x}") for names in variants]
    label = "reconstruction by the tokenizer"
    if None not in values and len(set(values)) == 1:
        axes.axhline(values[0], color="0.35", linestyle="--", linewidth=1, label=label, zorder=0)
        return
    for i, value in enumerate(values):
        if value is not None:
            axes.hlines(value, i - 0.35, i + 0.35, color="0.35", linestyle="--", linewidth=1, label=label, zorder=0)
            label = None


def _count(results: Results, suite: str) -> str:
    """How many pictures the floor was scored on, which a small training split may limit."""
    names = next(iter(results.variants(suite).values()))
    found = results.of_grid(names, f"floor_fid_{results.extractor}")["num_images"].dropna()
    return f" (N = {int(found.iloc[0])})" if len(found) else ""


def figure_fid(results: Results, suite: str) -> tuple[Figure, str]:
    """FID of every variant and training seed above floor and reconstruction; beside it class agreement, precision, recall."""
    x, variants = results.extractor, results.variants(suite)
    figure, axes = canvas(DOUBLE, 2.9, 1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
    left, right = axes[0]
    if not _dots(left, results, suite, f"fid_{x}", 0, {}, None):
        blank(left, "no variant has a score")
    _lines(left, results, suite)
    left.set_ylim(bottom=0)
    for i, variant in enumerate(variants):
        lost = results.missing(variant, suite, f"fid_{x}")
        if lost:
            words = by_reason({seed: why.split(" (")[0] for seed, why in lost.items()})
            place = {"transform": left.get_xaxis_transform(), "rotation": 90, "va": "bottom", "in_layout": False}
            left.text(i + 0.2, 0.02, text(words), color=RED, fontsize=6, **place)
    left.set_ylabel(f"{results.label('FID')}, N = {results.about['evaluation']['num_images']}")
    shares = {"class agreement": "class_agreement", "precision": "precision", "recall": "recall"}
    shares = {k: m for k, m in shares.items() if any(len(results.of(v, suite, f"{m}_{x}")) for v in variants)}
    for j, (name, metric) in enumerate(shares.items()):
        style = {"color": COLOURS[(7, 2, 4)[j]], "marker": "ph*"[j]}
        shift = 0.26 * (j - (len(shares) - 1) / 2)
        _dots(right, results, suite, f"{metric}_{x}", shift, style, name)
    if not shares:
        blank(right, "no share was scored")
    right.set_ylabel(f"share ({x})")
    right.set_ylim(top=min(1.03, right.get_ylim()[1]))
    for panel in (left, right):
        _variant_axis(panel, results, suite)
    legend_below(figure, columns=3)
    note(figure, missing_words(results, suite, f"fid_{x}"))
    caption = (
        f"{claim(results, suite)} Small points: one training each; symbols: mean, bars: interval. Dotted: floor, real training "
        f"pictures{_count(results, suite)}; dashed: the same pictures through the tokenizer, under each variant's schedule. "
        f"{made_by(results, suite)} {fid_differences(results, suite)}"
    )
    return figure, caption


# ---------------------------------------------------------------- scales


def figure_per_scale(results: Results, suite: str) -> tuple[Figure, str]:
    """Held-out cross-entropy and token accuracy at every scale, kept weights."""
    figure, axes = canvas(DOUBLE, 2.6, 1, 2)
    panels = {"loss_test_scale": "held-out loss (nats/token)", "token_accuracy_test_scale": "held-out token accuracy (share)"}
    for panel, (metric, title) in zip(axes[0], panels.items()):
        for i, (variant, names) in enumerate(results.variants(suite).items()):
            rows = results.by_scale(variant, suite, metric)
            if len(rows):
                sides = rows["scale"].astype(int).map(dict(enumerate(names["patch_nums"])))
                spread = 0.05 * (i - (len(results.variants(suite)) - 1) / 2)  # equal values would hide each other
                band(panel, rows.assign(side=sides + spread), "side", variant, look(i))
        if not panel.lines:
            blank(panel, "no training has ended well")
        panel.set_ylabel(title)
        side_ticks(panel, results, suite)
    legend_below(figure)
    note(figure, missing_words(results, suite, "kept_step"))
    caption = (
        f"{claim(results, suite)} Teacher-forced cross-entropy and top-1 accuracy of the tokens of {held_out(results)}, scale by "
        "scale, at the step with the best validation loss; symbols of one scale stand side by side. Lines: mean, bands: "
        f"interval. {seeds_words(results, suite)} {reach(results, suite)} Losses of different schedules are losses of different "
        "tokens."
    )
    return figure, " ".join(caption.split())


def figure_code_usage(results: Results, suite: str) -> tuple[Figure, str]:
    """Perplexity of the codes at every scale on held-out pictures; a collapsed scale in red."""
    figure, axes = canvas(SINGLE, 2.7)
    panel, quarters, lost = axes[0, 0], {}, []
    for i, (grid, names) in enumerate(results.grids(suite).items()):
        metrics = ("code_perplexity", "codes_usable", "scale_collapsed")
        parts = {metric: results.of_grid(names, metric).set_index("scale")["value"] for metric in metrics}
        sides = [(k, side) for k, side in enumerate(names["patch_nums"]) if pd.notna(parts["code_perplexity"].get(float(k)))]
        if not sides:
            lost.append(f"{grid}: {results.why(names, None)}")
            continue
        values = [parts["code_perplexity"][k] for k, _ in sides]
        panel.plot([side for _, side in sides], values, label=text(grid), alpha=0.9, **look(i))
        quarters |= {side: parts["codes_usable"][k] / 4 for k, side in sides}
        for (k, side), value in zip(sides, values):
            if parts["scale_collapsed"].get(float(k)) == 1:
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
    else:
        blank(panel, "no tokenizer was read")
    panel.set_ylabel("perplexity of the codes (codes)")
    side_ticks(panel, results, suite)
    legend_below(figure, columns=2)
    note(figure, "; ".join(lost))
    tokenizers = ", ".join(sorted({names["tokenizer"] for names in results.variants(suite).values()}))
    caption = (
        f"{claim(results, suite)} "
        f"Codes that tokenizer {tokenizers} uses at each scale on {held_out(results)}: exp of the entropy "
        "of their shares. Dotted: a quarter of the codes that the scale could use; a scale at or below it has collapsed and is "
        "marked in red. One tokenizer training, no interval."
    )
    return figure, caption


# ---------------------------------------------------------------- convergence


def _reached(results: Results, suite: str) -> str:
    """Steps and seconds until the held-out loss that every training of the suite reaches."""
    target, steps = steps_to_target(results, suite)
    if target is None or len(steps) < 2:
        return ""
    words = [
        f"{rst(v)} {rows['step'].mean():.0f} steps and {show(rows['seconds'].mean())} s" for v, rows in steps.items() if len(rows)
    ]
    return (
        f"Looks until the held-out loss is {target:.3f} nats/token or less, which every training here reaches, mean over seeds: "
        f"{'; '.join(words)}."
    )


def figure_convergence(results: Results, suite: str) -> tuple[Figure, str]:
    """Held-out loss and FID against step and against wall-clock."""
    figure, axes = canvas(DOUBLE, 4.4, 2, 2, sharey="row")
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
    means = [y for line in axes[1, 0].lines for y in line.get_ydata()]
    floor = next((v for n in results.variants(suite).values() if (v := results.grid_value(n, f"floor_{fid}")) is not None), None)
    if means:
        low = min([*means, floor] if floor is not None and floor > 0 else means)
        for panel in axes[1]:
            if floor is not None and floor > 0:
                panel.axhline(floor, color="0.35", linestyle=":", linewidth=1, label="floor: real training pictures", zorder=0)
            panel.set_yscale("log")
            panel.set_ylim(0.7 * max(low, 1e-6), 1.4 * max(means))
            plain_log(panel.yaxis)
    legend_below(figure)
    lost = (missing_words(results, suite, "loss_test", along=True), missing_words(results, suite, fid, along=True))
    note(figure, "; ".join(f"{what}, {words}" for what, words in zip(("loss", "FID"), lost) if words))
    caption = (
        f"{claim(results, suite)} Averaged weights every few steps; lines: mean, bands: interval. Time is training alone, "
        "without held-out looks, of trainings that shared the machine with other jobs: a record, no measurement of speed; seconds of a "
        f"step: mean over seeds. Dotted: floor, real training "
        f"pictures{_count(results, suite)}. {made_by(results, suite)} {_reached(results, suite)}"
    )
    return figure, caption


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


def figure_latency(results: Results, suite: str) -> tuple[Figure, str]:
    """Time per image and peak memory against batch size, and the network's time at every scale."""
    figure, axes = canvas(DOUBLE, 2.6, 1, 3)
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
    labels = ("time per image (ms)", "peak memory (MiB)", f"network time (ms), batch {batch or '-'}")
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
    legend_below(figure)
    run = results.latency_run(suite)
    bad = run is not None and run["status"] != "ok"
    note(figure, f"the latency run is {run['status']} ({run['reason']})" if bad else "")
    caption = (
        f"{claim(results, suite)} "
        "Faint points: every repeat; lines: median. Interleaved rounds in one process, warm-up excluded; "
        "time from the first scale to the latent state, without the decoder; memory: bytes that tensors hold above the weights. "
        f"Right: the network at each scale, guidance included. Weights are drawn, not trained. {samplers(results, suite)} "
        f"{latency_verdict(results, suite)} {machine(results, suite)}"
    )
    return figure, " ".join(caption.split())


if __name__ == "__main__":
    # the module read to its end, so that a function may stand below this line too
    run_verb("figures", importlib.import_module("bench.figures"), write_figure)
