"""Likeness of completed images, and strips of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...report.absent import by_reason
from ...report.caption import Caption
from ...report.cells import Cell, frame, number, shown, spread, unwell
from ...report.claims import claim_details
from ...report.completion import along_scales, at, extractor_words, few_words, fullest_of, lost
from ...report.curves import GREY
from ...report.drawing import (
    COLOURS,
    DOUBLE,
    band,
    blank,
    canvas,
    leaning,
    look_of,
    note,
    place,
    slanted,
    text,
    text_width,
    wrapped,
)
from ...report.estimate import estimate, paired
from ...report.results import Results
from ...report.sheets import by_variant, sheet
from ...report.sheets import shares as parts_of
from ...report.view import View
from ...report.words import credit_words, held_out, sample_words, samplers, with_classes
from .tasks import (
    BASELINE_NAMES,
    BASELINES,
    CEILING,
    TASKS,
    has_boxes,
    known_words,
    level,
    protocol_details,
    rows_lost,
    run_details,
    strip_run,
    tasks,
    true_scales,
)

# ---------------------------------------------------------------- likeness

MOST = 8  # variants of one page
LETTERS = 12  # of a line of a name
LIKENESS = {"psnr": "PSNR (dB)", "ssim": "SSIM (1 = equal)"}


def _crowded(view: View) -> bool:
    """Whether names do not fit below a panel: level ones take their width, and a slanted one twice
    the height of its lines, along the axis."""
    names = [wrapped(name, LETTERS) for name in view.variants]
    lines = [line for name in names for line in name.split("\n")]
    room = (DOUBLE / len(tasks(view)) - 0.6) / len(names)
    if len(names) <= 4:
        return max(map(text_width, lines)) / 72 > room
    return 2 * 0.11 * max(1 + name.count("\n") for name in names) > room


def _variants_axis(axes: Axes, view: View) -> None:
    """Names of variants below a panel, or none where the legend shows them."""
    names = [wrapped(name, LETTERS) for name in view.variants]
    axes.set_xlim(-0.6, len(names) - 0.4)
    if _crowded(view):
        axes.set_xticks(range(len(names)), [""] * len(names))
        axes.set_xlabel("variant (symbols: below)")
        return
    slant = leaning(30) if len(names) > 4 else {}
    axes.set_xticks(range(len(names)), names, **slant)
    axes.set_xlabel("variant")


def _level(axes: Axes, values: list[float | None], label: str, style: dict) -> None:
    """A line that no training moves: across the panel, or a tick per variant where tokenizers or
    schedules differ."""
    style = {"linewidth": 1, "zorder": 0, **style}
    measured = [value for value in values if value is not None]
    if measured and len(set(measured)) == 1:
        axes.axhline(measured[0], label=label, **style)
        return
    for i, value in enumerate(values):
        if value is not None:
            axes.hlines(value, i - 0.4, i + 0.4, label=label, **style)


def _fixed_lines(task: str) -> list[tuple[str, str, dict]]:
    """The baseline of a task and the ceiling: prefix of their metrics, label, style."""
    baseline = BASELINES[task]
    style: dict[str, Any] = {"color": COLOURS[5], "linestyle": "-."}
    if baseline == "bicubic":
        style = {"color": COLOURS[7], "linestyle": (0, (1, 1))}
    ceiling = {"color": GREY, "linestyle": "--"}
    return [(baseline, BASELINE_NAMES[baseline], style), ("ceiling", CEILING, ceiling)]


def _box_panel(axes: Axes, view: View, task: str, measure: str) -> None:
    """Every variant on the unknown region: a point a training, mean and interval; the fill and the
    ceiling as lines."""
    metric, variants = f"{task}_{measure}_unknown", list(view.variants)
    for i, variant in enumerate(variants):
        values = at(view, variant, metric)
        mean = estimate(values)
        if mean is None:
            continue
        mark = {key: value for key, value in look_of(view, variant).items() if key != "linestyle"}
        xs = i - 0.18 + 0.04 * np.arange(len(values))
        axes.scatter(xs, values, s=7, color=mark["color"], alpha=0.45, linewidth=0)
        half = [[mean.half]] * 2 if mean.half is not None else None
        bars = {"yerr": half, "capsize": 2.5, "elinewidth": 1, "linestyle": "none"}
        label = text(variant) if _crowded(view) else None
        axes.errorbar([i], [mean.mean], label=label, **bars, **mark)
    if not axes.collections:
        blank(axes, "no variant has a number")
    for prefix, label, style in _fixed_lines(task):
        _level(axes, [level(view, name, f"{prefix}_{metric}") for name in variants], label, style)
    _variants_axis(axes, view)


def _baseline_by_scale(axes: Axes, view: View, metric: str) -> None:
    """What bicubic makes of an image reduced to m scales, a line for each schedule."""
    (baseline, label, style), _ = _fixed_lines("super_resolution")
    drawn: set[tuple] = set()
    for variant in view.variants:
        rows = along_scales(view, variant, f"{baseline}_{metric}")
        values = rows.groupby("scale")["value"].first()
        if len(values) and tuple(values) not in drawn:
            drawn.add(tuple(values))
            axes.plot(
                values.index,
                values.to_numpy(),
                label=label,
                linewidth=1,
                marker="|",
                zorder=0,
                **style,
            )


def _scale_panel(axes: Axes, view: View, measure: str) -> None:
    """The whole image against how many scales are true."""
    metric = f"super_resolution_{measure}_whole"
    for variant in view.variants:
        rows = along_scales(view, variant, metric)
        if len(rows):
            band(axes, rows, "scale", variant, look_of(view, variant))
    if not axes.lines:
        blank(axes, "no variant has a number")
    _baseline_by_scale(axes, view, metric)
    _, (_, label, style) = _fixed_lines("super_resolution")
    levels = {level(view, name, f"ceiling_{measure}_whole") for name in view.variants}
    for value in sorted(value for value in levels if value is not None):
        axes.axhline(value, label=label, linewidth=1, zorder=0, **style)
    last = true_scales(view)[-1:] or [1]
    axes.set_xlim(0.8, last[0] + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(min(8, last[0]), integer=True))
    axes.set_xlabel("true scales m (scales)")


def _zero_shot(axes: np.ndarray, view: View) -> None:
    """Likeness of a few variants at every task."""
    asked = tasks(view)
    for row, (measure, label) in zip(axes, LIKENESS.items()):
        for panel, task in zip(row, asked):
            if task == "super_resolution":
                _scale_panel(panel, view, measure)
            else:
                _box_panel(panel, view, task, measure)
            panel.set_ylabel(label)
    for panel, task in zip(axes[0], asked):
        part = "whole" if task == "super_resolution" else "unknown part"
        panel.set_title(f"{TASKS[task]}, {part}")


def figure_zero_shot(view: View) -> tuple[Figure, Caption]:
    """PSNR and SSIM of completed images, per task (VAR, arXiv 2404.02905); baselines as
    lines, the tokenizer's ceiling dashed."""
    asked = tasks(view)
    size, shape = (DOUBLE if len(asked) > 1 else DOUBLE / 2, 4.3), (len(LIKENESS), len(asked))
    figure = sheet(by_variant(view, MOST), size, shape, _zero_shot, columns=3)
    note(figure, rows_lost(view))
    caption = (
        "Likeness of completed images to the held-out ones, mean over images. Small points: one "
        "training each; symbols and lines: mean, bars and bands: interval. Dotted and "
        "dash-dotted: baselines. Dashed: what the tokenizer makes of all true tokens, which no "
        "sampler can be expected to pass."
    )
    details = (
        *claim_details(view),
        "Likeness rewards the average of all plausible answers; a sampler gives one of them.",
        *protocol_details(view),
        "PSNR of 8-bit images, an exact part counted as 58.9 dB"
        + ("; SSIM on the unknown part: mean of its map there." if has_boxes(view) else "."),
        *run_details(view),
    )
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- strips

SHOWN = 4  # images of a strip
COLUMNS = 7  # variants side by side
ABOVE, SLANT = 24, 35  # letters of a line above a column, and its degrees


def _strip(axes: Axes, columns: dict[str, np.ndarray | None], inches: float) -> None:
    """A panel of images, a column so many inches wide for each name; a name without images is
    marked."""
    cells = {}
    for column, images in enumerate(columns.values()):
        for row, image in enumerate(() if images is None else images[:SHOWN]):
            cells[row, column] = image
    if not cells:
        blank(axes, "no images")
        axes.spines[:].set_visible(False)
        return
    pitch = place(axes, cells, SHOWN, len(columns))
    words = [name if images is not None else f"{name}: missing" for name, images in columns.items()]
    marks, _ = slanted(words, ABOVE, inches, SLANT)
    slant = {"rotation": SLANT, "ha": "left", "rotation_mode": "anchor"}
    axes.set_xticks([(column + 0.45) * pitch for column in range(len(marks))], marks, **slant)
    axes.tick_params(length=0, labeltop=True, labelbottom=False, pad=1)


def _keys(view: View, runs: dict[str, str | None]) -> list[tuple[str, str]]:
    """Keys of the tasks that have images, and their titles."""
    asked = tasks(view)
    keys = [(task, TASKS[task]) for task in asked if task != "super_resolution"]
    if "super_resolution" in asked:
        for m in true_scales(view):
            keys.append((f"super_resolution_{m}", f"super-resolution, m = {m}"))
    return [(key, title) for key, title in keys if _owner(view, runs, key) is not None]


def _owner(view: View, runs: dict[str, str | None], key: str) -> str | None:
    """The first run that has images of a task."""
    for run in runs.values():
        if f"{run}/{key}_input" in view.results.images:
            return run
    return None


def _strip_columns(
    view: View, runs: dict[str, str | None], key: str, variants: list[str]
) -> dict[str, np.ndarray | None]:
    """Images of a task by the name of their column."""
    images, owner = view.results.images, _owner(view, runs, key)
    baseline = BASELINE_NAMES[BASELINES[key.rstrip("_0123456789")]]
    columns: dict[str, np.ndarray | None] = {
        "original": images[f"{owner}/original"],
        "input": images[f"{owner}/{key}_input"],
    }
    columns[baseline.removesuffix(" fill")] = images[f"{owner}/{key}_baseline"]
    for variant in variants:
        columns[variant] = images.get(f"{runs[variant]}/{key}_completed")
    columns["all true"] = images[f"{owner}/ceiling"]
    return columns


def _strip_sheet(names: list[str], pages: int, strips: int) -> tuple[Figure, np.ndarray, float]:
    """A figure with a panel for each strip, and the inches of a column. names: of variants, on so
    many pages."""
    most = -(-len(names) // pages)
    per_line = 2 if most <= 5 and pages == 1 else 1
    lines = max(1, -(-strips // per_line))
    inches = (DOUBLE - 0.2) / per_line / (most + 4.5)
    _, above = slanted([f"{name}: missing" for name in names], ABOVE, inches, SLANT)
    height = 0.1 + inches * SHOWN + max(0.4, above)
    return *canvas(DOUBLE, lines * height, lines, per_line), inches


def figure_zero_shot_strips(view: View) -> tuple[Figure, Caption]:
    """A few held-out images through every task: as they are, what is known, the baseline, each
    variant, the ceiling (VAR, arXiv 2404.02905)."""
    runs = {variant: strip_run(view, variant) for variant in view.variants}
    parts = parts_of(runs, COLUMNS)
    strips = [(key, title, part) for key, title in _keys(view, runs) for part in parts]
    figure, axes, inches = _strip_sheet(list(runs), len(parts), len(strips))
    panels = iter(axes.flat)
    if not any(runs.values()):
        blank(next(panels), "no variant has images")
    for (key, title, part), panel in zip(strips, panels):
        _strip(panel, _strip_columns(view, runs, key, part), inches)
        panel.set_ylabel(title)
    for panel in panels:
        panel.set_visible(False)
    seed, missing = view.about["train_seeds"][0], []
    for variant, run in runs.items():
        if not run:
            missing.append(
                f"{variant}: no images, {view.results.why(view.variants[variant], seed)}"
            )
    note(figure, "; ".join(missing))
    caption = (
        f"The first {SHOWN} held-out images, not chosen, through every task. "
        f"Input: {known_words(view)}. "
        "All true: the tokenizer's reconstruction from all true tokens."
    )
    details = (
        *claim_details(view),
        f"Images: of {held_out(view.results)}, enlarged without smoothing.",
        credit_words(view.results),
        *protocol_details(view),
        f"First training seed with images; {sample_words(view.results)}.",
        samplers(view),
    )
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- table

LIKENESS_NAMES = {
    "PSNR unknown (dB)": "psnr_unknown",
    "SSIM unknown": "ssim_unknown",
    "PSNR whole (dB)": "psnr_whole",
    "SSIM whole": "ssim_whole",
}
SCORES = {
    "Class agreement": "class_agreement",
    "Feature distance": "feature_distance",
    "FID, completed": "fid",
}


def _columns(results: Results) -> dict[str, str]:
    """Column title: ending of the metric."""
    scores = {results.label(title): results.score_name(name) for title, name in SCORES.items()}
    fid = "FID, completed"
    for asked in map(results.by, results.others):
        scores[asked.label(fid)] = asked.score_name(SCORES[fid])
    return LIKENESS_NAMES | scores


def _variant_row(view: View, variant: str, task: str, m: int | None) -> dict[str, str]:
    """One variant at one task."""
    row: dict[str, str] = {}
    for title, name in _columns(view.results).items():
        row[title] = spread(estimate(at(view, variant, f"{task}_{name}", m)))
        if m is not None and "unknown" in title:
            row[title] = ""
    main = f"{task}_psnr_{'whole' if m is not None else 'unknown'}"
    first, minus = next(iter(view.variants)), Cell("first")
    if variant != first:
        difference = paired(at(view, first, main, m), at(view, variant, main, m))
        minus = spread(difference, difference=True)
    row["PSNR minus the first, paired (dB)"] = minus
    return row | {"Status": by_reason(lost(view, variant, main, m)) or "ok"}


def _fixed_row(view: View, prefix: str, task: str, m: int | None) -> dict[str, str]:
    """A baseline, the same for every training, or the ceiling, which has an interval where each
    training seed has a tokenizer of its own; taken from the variant that has most of it."""
    row, absent = dict[str, str](), dict[int, str]()
    for title, name in _columns(view.results).items():
        if m is not None and "unknown" in title:
            row[title] = ""
            continue
        metric, scale = f"{prefix}_{task}_{name}", m
        if prefix == "ceiling" and "unknown" not in name:
            metric, scale = f"ceiling_{name}", None
        fullest = fullest_of(view, metric, scale)
        mean = estimate(at(view, fullest, metric, scale))
        alone = mean is None or not mean.half
        absent |= {} if alone else lost(view, fullest, metric, scale)
        row[title] = (
            Cell(number(mean and mean.mean), mean=mean and mean.mean) if alone else spread(mean)
        )
    measured = any(cell not in ("-", "") for cell in row.values())
    return row | {"Status": by_reason(absent) or ("ok" if measured else "not measured")}


def _task_rows(view: View, task: str, m: int | None) -> list[dict[str, str]]:
    """Every variant at one task, then its baseline and the ceiling."""
    head = {"Task": TASKS[task] + (f", m = {m}" if m is not None else "")}
    rows = []
    for variant, names in view.variants.items():
        if m is None or m < len(names["patch_nums"]):
            rows.append({**head, "Variant": variant, **_variant_row(view, variant, task, m)})
    baseline = BASELINES[task]
    rows.append(
        {**head, "Variant": BASELINE_NAMES[baseline], **_fixed_row(view, baseline, task, m)}
    )
    rows.append({**head, "Variant": CEILING, **_fixed_row(view, "ceiling", task, m)})
    return rows


def _table(view: View) -> pd.DataFrame:
    """All columns that have a number, and which of them a reader needs."""
    rows = []
    for task in tasks(view):
        for m in true_scales(view) if task == "super_resolution" else [None]:
            rows += _task_rows(view, task, m)
    table, empty = frame(rows), []
    for title in _columns(view.results):
        asked = title in LIKENESS_NAMES and (has_boxes(view) or "unknown" not in title)
        if not asked and table[title].isin(["-", ""]).all():
            empty.append(title)
    likeness = [name for name in ("PSNR unknown (dB)", "PSNR whole (dB)") if name not in empty]
    columns = ["Task", "Variant", *likeness]
    columns += ["PSNR minus the first, paired (dB)", view.results.label("Class agreement")]
    last = "Status" if unwell(table) else "SSIM whole"
    return shown(table.drop(columns=empty), *columns, last)


def table_zero_shot(view: View) -> tuple[pd.DataFrame, Caption]:
    """Likeness and scores of completed images for every task and variant, with the baseline and the
    ceiling below (VAR, arXiv 2404.02905)."""
    table, parts = _table(view), ", on the unknown part and whole" if has_boxes(view) else ""
    agrees = view.results.label("Class agreement") in table
    which = "one that was asked for" if with_classes(view) else "true one, which no model is told"
    classes = f" Class: how many are still of the {which}." if agrees else ""
    caption = (
        f"PSNR of completed images to the true ones{parts}.{classes} Below each task its baseline "
        "and what the tokenizer makes of all true tokens. Difference: paired by training seed."
    )
    of_first = (
        "they are those of the first variant, schedules differ" if len(view.grids()) > 1 else ""
    )
    details = (
        *claim_details(view),
        *protocol_details(view),
        "Feature distance: mean L2 distance between features of the completed image and of the "
        "true one.",
        "FID of the completed images against the split that they come from. They share known "
        "tokens with the reference, so it must not be compared with the FID of generated "
        "images.",
        "Baselines do not depend on the training, no interval, reconstruction on the tokenizer "
        f"alone{'; ' if of_first else ''}{of_first}.",
        f"Scores: {extractor_words(view.results)}.",
        few_words(view, "zero_shot"),
        *run_details(view),
    )
    return table, Caption(caption, details)
