"""Restored images by way and degradation, likeness against class, swapped scales, their rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...report.absent import missing_words, reach
from ...report.caption import Caption
from ...report.cells import frame, shown, unwell
from ...report.claims import Verdict, claim_details, decided
from ...report.curves import GREY
from ...report.drawing import (
    DOUBLE,
    apart,
    blank,
    canvas,
    grid_shape,
    hide_rest,
    leaning,
    legend_below,
    look,
    note,
    place,
    slanted,
    text,
)
from ...report.estimate import Estimate, estimate, paired, show_difference
from ...report.sheets import Draw, by_variant, panel_sheet, sheet
from ...report.view import View
from ...report.words import credit_words
from .plan import DIRECTIONS, EXCESS, REGRESSIONS, TOLD, WAYS, parts_of
from .planes import MODEL_WAYS, has_told, planes, planes_and_near, times
from .reading import (
    NAMES,
    TIME_WORDS,
    asked,
    baseline_run,
    kinds_of,
    line_words,
    mean_of,
    noise_words,
    of_seeds,
    run_details,
    serves_all,
    strip_run,
    ways_of,
)
from .rows import baseline_rows, model_rows, swap_row
from .swapped import coarse_excess

LINES: dict[str, dict[str, Any]] = {
    "input": {"color": GREY, "linestyle": ":"},
    "ridge": {"color": GREY, "linestyle": "-"},
    "mlp": {"color": "black", "linestyle": "-."},
    "unet": {"color": "black", "linestyle": ":"},
    "ceiling": {"color": GREY, "linestyle": "--"},
}
PAGE, SLANT = 10, 40  # variants side by side, and degrees of their names
BARS = {"linestyle": "none", "markersize": 4, "elinewidth": 0.7, "capsize": 1.5}


def _half(value: Estimate) -> float:
    return float("nan") if value.half is None else value.half


# ---------------------------------------------------------------- by way


def _names_below(variants: Iterable[str]) -> tuple[list[str], float]:
    """Names of variants below one of two panels, and the inches that they take there."""
    names = list(variants)
    return slanted(names, 24, (DOUBLE / 2 - 0.8) / max(1, len(names)), SLANT)


def _ways(axes: np.ndarray, view: View) -> None:
    """A panel for each degradation: variants side by side, a symbol for each way, lines of what
    takes no scale transformer."""
    variants, first = list(view.variants), next(iter(view.variants))
    named = len(kinds_of(view)) - axes.shape[1]  # panels from here on have none below
    for nth, (panel, kind) in enumerate(zip(axes.flat, kinds_of(view))):
        for i, variant in enumerate(variants):
            ways = ways_of(view, variant)
            for j, way in enumerate(ways):
                value = mean_of(view, variant, f"psnr_{way}_{kind}")
                if value is not None:
                    style = {**look(MODEL_WAYS.index(way)), **BARS}
                    x = i + apart(j, len(ways), 0.16)
                    panel.errorbar([x], [value.mean], [_half(value)], label=NAMES[way], **style)
        for way, line in LINES.items():
            value = mean_of(view, first, f"psnr_{way}_{kind}")
            if value is not None:
                panel.axhline(value.mean, label=NAMES[way], linewidth=1, zorder=0, **line)
        if not panel.lines:
            blank(panel, "no variant has a number")
        names = _names_below(variants)[0] if nth >= named else [""] * len(variants)
        panel.set_xticks(range(len(names)), names, **leaning(SLANT))
        panel.set_title(kind)
        panel.set_ylabel("PSNR (dB)")


def _kind_sheet(view: View, height: float, draw: Draw) -> Figure:
    """A panel for each degradation, once more for every PAGE variants."""
    return panel_sheet(by_variant(view, PAGE), len(kinds_of(view)), 2, height, draw, columns=4)


def figure_restoration(view: View) -> tuple[Figure, Caption]:
    """PSNR of restored images by degradation, variant and way of decoding (RestoreVAR, arXiv
    2505.18047)."""
    parts = by_variant(view, PAGE)
    below = max(_names_below(part.variants)[1] for part in parts)
    rows = grid_shape(len(kinds_of(view)), 2)[0]
    figure = _kind_sheet(view, 2.6 + max(0.0, below - 1) / rows, _ways)
    note(figure, missing_words(view, "psnr_restored"))
    caption = (
        "PSNR of restored held-out images to the clean ones. Symbols: how codes are taken from a "
        f"model. {line_words(view)}Mean and interval."
    )
    return figure, Caption(caption, (*claim_details(view), *run_details(view), reach(view)))


# ---------------------------------------------------------------- likeness against class


def figure_perception(view: View) -> tuple[Figure, Caption]:
    """Class agreement against PSNR for every way (the plane of perception and distortion, arXiv
    1711.06077)."""
    count, pages = len(kinds_of(view)), by_variant(view, 10)
    near = has_told(view)
    draw = planes_and_near if near else planes
    figure = panel_sheet(pages, count * (1 + near), 2, 2.4, draw, columns=4)
    note(figure, missing_words(view, "class_agreement_restored"))
    caption = (
        "Share of restored images that the study's classifier takes for the true class, against "
        "PSNR: nearer to the clean pixels lies further right. Colour and letter: variant; symbol: "
        "way; hollow: without a scale transformer. Mean and interval."
    )
    if near:
        caption += " Second column: the part with the models that were trained to restore, larger."
    return figure, Caption(caption, (*claim_details(view), *run_details(view)))


# ---------------------------------------------------------------- time


def figure_restoration_time(view: View) -> tuple[Figure, Caption]:
    """PSNR against the time that an image takes, by variant and way (RestoreVAR, arXiv
    2505.18047)."""
    figure = sheet(by_variant(view, 10), (DOUBLE, 3.0), (1, 1), times, columns=4)
    note(figure, missing_words(view, "psnr_restored"))
    caption = (
        "PSNR of restored images, mean over degradations, against the time that one takes, decoder "
        "included. Batches of up to 256, the median of five; on a CPU processor time over threads. "
        "Left and up is better. Colour, letter: variant; symbol: way. Mean and interval; "
        "logarithmic axis."
    )
    return figure, Caption(caption, (*claim_details(view), TIME_WORDS, *run_details(view)))


# ---------------------------------------------------------------- swapped scales

PARTS = {
    "coarse": ("degraded below m", 0, "-"),
    "fine": ("degraded from m on", 1, "-"),
    "again_coarse": ("degraded below m, rest quantised again", 0, ":"),
    "again_fine": ("clean below m, rest quantised again", 1, ":"),
}


def _swap(axes: np.ndarray, view: View) -> None:
    """A panel for each degradation: PSNR against the cut, and the control in grey."""
    names = next(iter(view.variants.values()))
    for panel, kind in zip(axes.flat, kinds_of(view)):
        for part, (label, colour, line) in PARTS.items():
            means_m = view.grid_scales(names, f"swap_{part}_{kind}")
            style = {"color": look(colour)["color"], "marker": look(colour)["marker"]}
            panel.plot(means_m.index, means_m.to_numpy(), label=label, linestyle=line, **style)
        for part, (label, colour, _) in list(PARTS.items())[:2]:
            means_m = view.grid_scales(names, f"swap_{part}_control")
            style = {"color": GREY, "marker": look(colour)["marker"], "linestyle": "--"}
            words = f"{label.replace('degraded', 'of another image')} (control)"
            panel.plot(means_m.index, means_m.to_numpy(), label=words, linewidth=0.8, **style)
        if not any(len(line.get_xdata()) for line in panel.lines):
            blank(panel, "not measured")
        panel.set_title(kind)
        panel.set_xlabel("cut m (scales)")
        panel.set_ylabel("PSNR (dB)")
        panel.set_xticks(range(len(names["patch_nums"]) + 1))


def figure_swap(view: View) -> tuple[Figure, Caption]:
    """PSNR when tokens of the degraded image stand in for clean ones, below or above a cut (probe
    of RestoreVAR, arXiv 2505.18047)."""
    shape = grid_shape(len(kinds_of(view)), 2)
    figure, axes = canvas(DOUBLE, 2.5 * shape[0], *shape)
    _swap(axes, view)
    hide_rest(axes, len(kinds_of(view)))
    legend_below(figure, 2)
    caption = (
        "Tokens of a clean image with those of its degraded twin below, or from, scale m on. No "
        "model takes part. A swap breaks the chain of residuals whatever it brings in: the control "
        "takes tokens of another image. Dotted: what follows the cut is quantised again, so that "
        "the chain is whole. Means over the tokenizers, without intervals."
    )
    details = *claim_details(view), *_swap_details(view, interval=False)
    return figure, Caption(caption, details)


def _swap_details(view: View, interval: bool = True) -> tuple[str, ...]:
    """What was swapped. interval: whether numbers have theirs."""
    first = next(iter(view.variants))
    return (
        f"Of the tokenizers of {text(first)}; both ends of a curve are the tokenizer's round trips "
        "of the clean and of the degraded image.",
        "Added error: the squared error of a half degraded image beyond that of clean tokens, from "
        "the mean PSNR. Its coarse share is that of the coarse half in what both halves add. "
        "Beyond the control: minus the share of the control. Above 0 coarse scales carry more of "
        "the degradation than of any content. A share does not grow with the degradation.",
        *run_details(view, interval=interval),
    )


# ---------------------------------------------------------------- strips


def _column(view: View, runs: tuple[str, str | None], key: str, kind: str) -> np.ndarray | None:
    """Images of a way, of the model's run or of that without one."""
    for run in filter(None, runs):
        for name in (f"{run}/{key}_{kind}", f"{run}/{key}"):
            if name in view.results.images:
                images: np.ndarray = view.results.images[name]
                return images
    return None


def figure_restoration_strips(view: View) -> tuple[Figure, Caption]:
    """A few held-out images through every way (RestoreVAR, arXiv 2505.18047)."""
    shape, strip = grid_shape(len(kinds_of(view)), 2), strip_run(view)
    keys = ("input", *REGRESSIONS, *TOLD, "ceiling", "clean")
    titles = {**NAMES, "input": "degraded", "clean": "clean", "ceiling": "clean tokens"}
    figure, axes = canvas(DOUBLE, 2.6 * shape[0], *shape)
    for panel, kind in zip(axes.flat, kinds_of(view)):
        panel.set_ylabel(kind)
        runs = (strip[2], baseline_run(view, *strip[:2])) if strip else ("", None)
        columns = {key: _column(view, runs, key, kind) for key in keys}
        given = {key: images for key, images in columns.items() if images is not None}
        cells = {
            (row, column): image
            for column, images in enumerate(given.values())
            for row, image in enumerate(images[:5])
        }
        if not cells:
            blank(panel, "no images")
            continue
        pitch = place(panel, cells, 5, len(given))
        # in one line each: slanted ones of two lines lie on their neighbours
        slant = {"rotation": 40, "ha": "left", "rotation_mode": "anchor", "fontsize": 6}
        marks = [titles[key] for key in given]
        panel.set_xticks([(i + 0.45) * pitch for i in range(len(marks))], marks, **slant)
        panel.tick_params(length=0, labeltop=True, labelbottom=False, pad=1)
    hide_rest(axes, len(kinds_of(view)))
    caption = (
        "The first held-out images of the job, not chosen: degraded, restored without and with a "
        "scale transformer, the clean image's own tokens decoded, and clean."
    )
    model = f"Model: {text(strip[0])}, training seed {strip[1]}." if strip else ""
    details = *claim_details(view), model, credit_words(view.results), *run_details(view)
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- tables


def _repair_words(view: View) -> str:
    """Below which probabilities repairs redraw; empty where there is none."""
    chosen = sorted({p for name in view.variants for p in view.of(name, "p_resample_repair")})
    if not chosen:
        return ""
    how = "as told" if asked(view).get("p_resample") else "chosen on validation images by PSNR"
    return f"Redrawn: tokens less likely than {', '.join(f'{p:g}' for p in chosen)}, {how}."


def table_restoration(view: View) -> tuple[pd.DataFrame, Caption]:
    """PSNR and class agreement of every variant and way, above what takes no scale transformer
    (RestoreVAR, arXiv 2505.18047)."""
    table = frame([*model_rows(view), *baseline_rows(view)])
    kinds = [f"{kind} (dB)" for kind in kinds_of(view)][:4]
    last = "Status" if unwell(table) else "Class agreement, mean"
    caption = (
        "PSNR of restored images by degradation, and how many are still of the true class. In "
        "brackets: without a scale transformer. Mean and interval over training seeds."
    )
    details = (
        *claim_details(view),
        "Tokens right alone: share of the clean image's tokens that the likeliest codes find on "
        "their own. Teacher-forced: given the true coarser ones, as validation has it; no "
        "restoration.",
        "ms: of an image of a batch of up to 256, decoder included, the median of five. Token "
        "evals: tokens of an image through the scale transformer; the refiner is not among them.",
        TIME_WORDS,
        _repair_words(view),
        "Preprocessing: degraded and restored images are rounded to 8 bits, and nothing is resized "
        "or cropped for it. SSIM: scikit-image's window of 7 pixels, or what fits half of a side.",
        *run_details(view),
    )
    return shown(table, "Variant", "Decoding", *kinds, last), Caption(caption, details)


def table_swap(view: View) -> tuple[pd.DataFrame, Caption]:
    """What a degradation costs in the coarse and in the fine half of the scales (probe of
    RestoreVAR, arXiv 2505.18047)."""
    rows = [swap_row(view, kind) for kind in (*kinds_of(view), "control")]
    caption = (
        "PSNR of clean tokens whose coarse, or fine, half is that of the degraded image. Last: how "
        "much of the error that both halves add is the coarse one's, and that share minus the "
        "control's. The control takes tokens of another image."
    )
    columns = ["Degradation", "Coarse half degraded (dB)", "Fine half degraded (dB)"]
    columns += ["Coarse half, quantised again (dB)", "Fine half, quantised again (dB)"]
    columns += ["Coarse share of the added error", "Beyond the control"]
    details = *claim_details(view), *_swap_details(view)
    return shown(frame(rows), *columns), Caption(caption, details)


# ---------------------------------------------------------------- rules


def judge_restored(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """By the 95 % t-interval of a paired difference over training seeds: of a score of one way of a
    variant to the same way of another variant, or to another way of its own, or to one without a
    scale transformer on its tokenizer."""
    metric, variant, against = claim["metric"], claim["variant"], claim["against"]
    if not set(view.about) & {"restoration", "restoration_baselines"}:
        return "not decided", f"no row of this suite has {metric} of {variant}"
    score, way, kind = parts_of(metric, tuple(kinds_of(view))) or ("", "", "")
    other, whose = metric, f"that of {against}"
    if against in WAYS:
        other = f"{score}_{against}" + (f"_{kind}" if kind else "")
        whose, against = other, variant
    values = of_seeds(view, variant, metric), of_seeds(view, against, other)
    if not all(map(len, values)):
        lacks = metric if not len(values[0]) else other
        return "not decided", f"no row of this suite has {lacks} of {variant}"
    difference = paired(_shared(values[1], values[0]), values[0])
    reason = f"{metric} of {variant} minus {whose}{_sizes(view, claim)}, paired by training seed: "
    lower = (claim.get("better") or DIRECTIONS[score]) == "lower"
    reason += show_difference(difference) + noise_words(other, values)
    return decided(difference, lower, reason)


def _sizes(view: View, claim: dict[str, Any]) -> str:
    """How large a model is and the network on pixels that it is held against; empty for anything
    else."""
    ours = view.estimate(claim["variant"], "parameters")
    theirs = mean_of(view, claim["variant"], f"{claim['against']}_parameters")
    if claim["against"] not in REGRESSIONS or ours is None or theirs is None:
        return ""
    return f" ({ours.mean:,.0f} weights, without the tokenizer's, against {theirs.mean:,.0f})"


def _shared(values: pd.Series, like: pd.Series) -> pd.Series:
    """Values of one tokenizer for all seeds as values of every seed."""
    if not serves_all(values):
        return values
    return pd.Series(float(values.iloc[0]), index=like.index)


def judge_carries(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Whether coarse scales carry more of a degradation than of any content: the 95 % t-interval of
    the coarse half's share of the added error, minus the control's, over the tokenizers of the
    training seeds."""
    variant, kind = claim["variant"], claim["metric"].removeprefix(EXCESS)
    excess = estimate(coarse_excess(view, variant, kind))
    if excess is None:
        there = len(view.grid_scales(view.variants[variant], f"swap_coarse_{kind}"))
        why = f"tokens of {kind} add no error" if there else "no tokens of this suite were swapped"
        return "not decided", f"{claim['metric']}: {why}"
    reason = (
        f"{claim['metric']}, the coarse half's share of the error that degraded tokens add "
        f"(swap_coarse_{kind}, swap_fine_{kind}), minus the control's: {show_difference(excess)}"
    )
    verdict: Verdict = decided(excess, claim["better"] == "lower", reason)
    return verdict
