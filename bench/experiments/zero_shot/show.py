"""Likeness of completed images, and strips of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...report.absent import by_reason
from ...report.cells import Cell, frame, number, spread
from ...report.claims import claim
from ...report.completion import along_scales, at, count_words, extractor_words, few_words, lost, lost_words
from ...report.curves import GREY
from ...report.drawing import COLOURS, DOUBLE, band, blank, canvas, look, note, place, text, wrapped
from ...report.estimate import estimate, paired
from ...report.results import Results
from ...report.sheets import by_variant, sheet
from ...report.sheets import shares as parts_of
from ...report.view import View
from ...report.words import held_out, sample_words, samplers, seeds_words

MOST = 8  # variants of one page


LETTERS = 12  # of a line of a name


LIKENESS = {"psnr": "PSNR (dB)", "ssim": "SSIM (1 = equal)"}


def _crowded(view: View) -> bool:
    """Whether names do not fit below a panel: a slanted one takes twice the height of its lines
    along the axis."""
    names = [wrapped(name, LETTERS) for name in view.variants]
    lines = max(1 + name.count("\n") for name in names)
    return len(names) > 4 and 2 * 0.11 * lines > (DOUBLE / len(tasks(view)) - 0.6) / len(
        names
    )


def _variants_axis(axes: Axes, view: View) -> None:
    names = [wrapped(name, LETTERS) for name in view.variants]
    axes.set_xlim(-0.6, len(names) - 0.4)
    if _crowded(view):
        axes.set_xticks(range(len(names)), [""] * len(names))
        axes.set_xlabel("variant (symbols: below)")
        return
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(names) > 4 else {}
    axes.set_xticks(range(len(names)), names, **slant)
    axes.set_xlabel("variant")


def _level(axes: Axes, values: list[float | None], label: str, style: dict) -> None:
    """A line that no training moves: across the panel, or a tick per variant where tokenizers or schedules differ."""
    found = [value for value in values if value is not None]
    if found and len(set(found)) == 1:
        axes.axhline(found[0], label=label, linewidth=1, zorder=0, **style)
        return
    for i, value in enumerate(values):
        if value is not None:
            axes.hlines(value, i - 0.4, i + 0.4, label=label, linewidth=1, zorder=0, **style)


def _box_panel(axes: Axes, view: View, task: str, measure: str) -> None:
    """Every variant on the unknown region: a point a training, mean and interval; the fill and the ceiling as lines."""
    metric, variants = f"{task}_{measure}_unknown", list(view.variants)
    for i, variant in enumerate(variants):
        values = at(view, variant, metric)
        if (found := estimate(values)) is None:
            continue
        mark = {key: value for key, value in look(i).items() if key != "linestyle"}
        spots = i - 0.18 + 0.04 * np.arange(len(values))
        axes.scatter(spots, values, s=7, color=mark["color"], alpha=0.45, linewidth=0)
        half = [[found.half]] * 2 if found.half is not None else None
        label = text(variant) if _crowded(view) else None
        axes.errorbar(
            [i],
            [found.mean],
            yerr=half,
            capsize=2.5,
            elinewidth=1,
            linestyle="none",
            label=label,
            **mark,
        )
    if not axes.collections:
        blank(axes, "no variant has a number")
    for prefix, label, style in _lines_of(task):
        _level(axes, [level(view, v, f"{prefix}_{metric}") for v in variants], label, style)
    _variants_axis(axes, view)


def _lines_of(task: str) -> list[tuple[str, str, dict]]:
    rival = RIVALS[task]
    colour = COLOURS[7] if rival == "bicubic" else COLOURS[5]
    return [
        (rival, RIVAL_NAMES[rival], {"color": colour, "linestyle": (0, (1, 1)) if rival == "bicubic" else "-."}),
        ("ceiling", CEILING, {"color": GREY, "linestyle": "--"}),
    ]


def _scale_panel(axes: Axes, view: View, measure: str) -> None:
    """The whole picture against how many scales are true."""
    metric, variants = f"super_resolution_{measure}_whole", view.variants
    for i, variant in enumerate(variants):
        rows = along_scales(view, variant, metric)
        if len(rows):
            band(axes, rows, "scale", variant, look(i))
    if not axes.lines:
        blank(axes, "no variant has a number")
    (rival, label, style), (_, high, high_style) = _lines_of("super_resolution")
    drawn: set[tuple] = set()
    for variant in variants:
        rows = along_scales(view, variant, f"{rival}_{metric}").groupby("scale")["value"].first()
        if len(rows) and tuple(rows) not in drawn:  # one line a schedule
            drawn.add(tuple(rows))
            axes.plot(rows.index, rows.to_numpy(), label=label, linewidth=1, marker="|", zorder=0, **style)
    for value in sorted({v for n in variants if (v := level(view, n, f"ceiling_{measure}_whole")) is not None}):
        axes.axhline(value, label=high, linewidth=1, zorder=0, **high_style)
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
        panel.set_title(f"{TASKS[task]}, {'whole' if task == 'super_resolution' else 'unknown part'}")


def figure_zero_shot(view: View) -> tuple[Figure, str]:
    """PSNR and SSIM of completed pictures, per task; opponents as lines, the tokenizer's ceiling
    dashed."""
    asked = tasks(view)
    size = (DOUBLE if len(asked) > 1 else DOUBLE / 2, 4.3)
    figure = sheet(
        by_variant(view, MOST),
        size,
        (len(LIKENESS), len(asked)),
        _zero_shot,
        columns=3,
    )
    note(figure, rows_lost(view))
    caption = (
        f"{claim(view)} Likeness of completed pictures to the held-out ones, mean over pictures; small points: one training "
        "each, symbols and lines: mean, bars and bands: interval. Dashed: what the tokenizer makes of all true tokens, which no sampler "
        f"can be expected to pass. Likeness rewards the average of all plausible answers; a sampler gives one of them. "
        f"{protocol(view)} PSNR of 8-bit pictures, an exact part counted as 58.9 dB; SSIM on the unknown part: mean of its map "
        f"there. {zero_shot_words(view)}"
    )
    return figure, caption


COLUMNS = 7  # variants side by side


ABOVE = 16  # of a line above a column


def _strip(axes: Axes, columns: dict[str, np.ndarray | None], rows: int) -> None:
    """A panel of pictures, a column for each name; a name without pictures stays blank and is
    marked."""
    cells = {
        (r, c): p
        for c, images in enumerate(columns.values())
        if images is not None
        for r, p in enumerate(images[:rows])
    }
    if not cells:
        blank(axes, "no pictures")
        axes.spines[:].set_visible(False)
        return
    pitch = place(axes, cells, rows, len(columns))
    named = [name if images is not None else f"{name}: missing" for name, images in columns.items()]
    # what is longer than a line is wrapped
    marks = [wrapped(name, ABOVE) if len(name) > ABOVE + 8 else text(name) for name in named]
    axes.set_xticks(
        [(c + 0.45) * pitch for c in range(len(marks))],
        marks,
        rotation=35,
        ha="left",
        rotation_mode="anchor",
    )
    axes.tick_params(length=0, labeltop=True, labelbottom=False, pad=1)


def _shown(view: View, runs: dict[str, str | None]) -> list[tuple[str, str]]:
    """Keys of the tasks that have images, and their titles."""
    asked = tasks(view)
    keys = [(task, TASKS[task]) for task in asked if task != "super_resolution"]
    if "super_resolution" in asked:
        for m in true_scales(view):
            keys.append((f"super_resolution_{m}", f"super-resolution, m = {m}"))
    there = view.results.images.keys()
    return [(key, title) for key, title in keys if any(f"{run}/{key}_input" in there for run in runs.values())]


def figure_zero_shot_strips(view: View) -> tuple[Figure, str]:
    """A few held-out pictures through every task: as they are, what is known, the opponent, each
    variant, the ceiling."""
    runs = {variant: strip_run(view, variant) for variant in view.variants}
    seed = view.about["train_seeds"][0]
    shown, first = 4, next((run for run in runs.values() if run), None)
    parts = parts_of(runs, COLUMNS)
    keys = [(key, title, part) for key, title in _shown(view, runs) for part in parts]
    most = max(map(len, parts))
    per_line = 2 if most <= 5 and len(parts) == 1 else 1
    lines = max(1, -(-len(keys) // per_line))
    width = (DOUBLE - 0.2) / per_line
    height = lines * (0.5 + width * shown / (most + 4.5))
    # slanted names above the columns: half of their length, and their lines
    longest = max(min(len(name), ABOVE + 8) for name in runs)
    height += lines * max(0.0, 0.035 * (longest - 12))
    figure, axes = canvas(DOUBLE, height, lines, per_line)
    panels = iter(axes.flat)
    if first is None:
        blank(next(panels), "no variant has pictures")
    for (key, title, part), panel in zip(keys, panels):
        owner = next(run for run in runs.values() if f"{run}/{key}_input" in view.results.images)
        rival = RIVAL_NAMES[RIVALS[key.rstrip("_0123456789")]]
        columns = {
            "original": view.results.images[f"{owner}/original"],
            "input": view.results.images[f"{owner}/{key}_input"],
        }
        columns[rival.removesuffix(" fill")] = view.results.images[f"{owner}/{key}_rival"]
        columns |= {
            variant: view.results.images.get(f"{runs[variant]}/{key}_completed") for variant in part
        }
        columns["all true"] = view.results.images[f"{owner}/ceiling"]
        _strip(panel, columns, shown)
        panel.set_ylabel(title)
    for panel in panels:
        panel.set_visible(False)
    note(
        figure,
        "; ".join(
            f"{v}: no pictures, {view.results.why(view.variants[v], seed)}"
            for v, run in runs.items()
            if not run
        ),
    )
    caption = (
        f"{claim(view)} The first {shown} pictures of {held_out(view.results)}, not chosen, enlarged without smoothing. "
        "Input: what is known, grey where it is not; for super-resolution the reduced picture that bicubic enlarges. All true: the "
        f"tokenizer's reconstruction from all true tokens. {protocol(view)} First training seed with pictures; "
        f"{sample_words(view.results)}. {samplers(view)}"
    )
    return figure, caption


LIKENESS_NAMES = {
    "PSNR unknown (dB)": "psnr_unknown",
    "SSIM unknown": "ssim_unknown",
    "PSNR whole (dB)": "psnr_whole",
    "SSIM whole": "ssim_whole",
}


SCORES = {"Class agreement": "class_agreement", "Feature distance": "feature_distance", "FID, completed": "fid"}


def _columns(results: Results) -> dict[str, str]:
    """Column title: ending of the metric."""
    return LIKENESS_NAMES | {results.label(title): f"{name}_{results.extractor}" for title, name in SCORES.items()}


def _variant_row(view: View, variant: str, task: str, m: int | None) -> dict[str, str]:
    """One variant at one task."""
    row = {title: spread(estimate(at(view, variant, f"{task}_{name}", m))) for title, name in _columns(view.results).items()}
    main = f"{task}_psnr_{'whole' if m is not None else 'unknown'}"
    if m is not None:
        row |= {title: "" for title in LIKENESS_NAMES if "unknown" in title}
    first = next(iter(view.variants))
    pair = (at(view, name, main, m) for name in (first, variant))
    row["PSNR minus the first, paired (dB)"] = Cell("first") if variant == first else spread(paired(*pair), difference=True)
    return row | {"Status": by_reason(lost(view, variant, main, m)) or "ok"}


def _fixed_row(view: View, prefix: str, task: str, m: int | None) -> dict[str, str]:
    """An opponent, the same for every training, or the ceiling, which has an interval where each training seed has a tokenizer
    of its own; taken from the first variant that has it."""
    row: dict[str, str] = {}
    for title, name in _columns(view.results).items():
        if m is not None and "unknown" in title:
            row[title] = ""
            continue
        metric, at_m = f"{prefix}_{task}_{name}", m
        if prefix == "ceiling" and "unknown" not in name:
            metric, at_m = f"ceiling_{name}", None
        values = (at(view, variant, metric, at_m) for variant in view.variants)
        found = estimate(next((value for value in values if len(value)), []))
        alone = found is None or not found.half
        row[title] = Cell(number(found and found.mean), mean=found and found.mean) if alone else spread(found)
    return row | {"Status": "ok" if any(cell not in ("-", "") for cell in row.values()) else "no number"}


def table_zero_shot(view: View) -> tuple[pd.DataFrame, str]:
    """Likeness and scores of completed pictures for every task and variant, with the opponent and the ceiling below."""
    rows = []
    for task in tasks(view):
        for m in true_scales(view) if task == "super_resolution" else [None]:
            head = {"Task": TASKS[task] + (f", m = {m}" if m is not None else "")}
            for variant, names in view.variants.items():
                if m is None or m < len(names["patch_nums"]):
                    rows.append({**head, "Variant": variant, **_variant_row(view, variant, task, m)})
            rival = RIVALS[task]
            rows.append({**head, "Variant": RIVAL_NAMES[rival], **_fixed_row(view, rival, task, m)})
            rows.append({**head, "Variant": CEILING, **_fixed_row(view, "ceiling", task, m)})
    table = frame(rows)
    empty = [title for title in _columns(view.results) if table[title].isin(["-", ""]).all() and title not in LIKENESS_NAMES]
    several = len(view.grids()) > 1
    caption = (
        f"{claim(view)} {protocol(view)} Feature distance: mean L2 distance between features of the completed "
        "picture and of the true one. FID of the completed pictures against the split that they come from: they share known tokens "
        "with the reference, so that it must not be compared with the FID of generated pictures. Opponents do not depend on the "
        "training, no interval, reconstruction on the tokenizer alone"
        f"{'; they are those of the first variant, schedules differ' if several else ''}. "
        f"Scores: {extractor_words(view.results)}.{few_words(view, 'zero_shot')} {zero_shot_words(view)}"
    )
    return table.drop(columns=empty), caption


TASKS = {"inpaint": "in-painting", "outpaint": "out-painting", "super_resolution": "super-resolution"}


RIVALS = {"inpaint": "nearest_fill", "outpaint": "nearest_fill", "super_resolution": "bicubic"}


RIVAL_NAMES = {"nearest_fill": "nearest-mean fill", "bicubic": "bicubic"}


CEILING = "reconstruction from all true tokens"


def level(view: View, variant: str, metric: str) -> float | None:
    """The value of an opponent or, the mean over tokenizers where training seeds have their own, of
    the ceiling."""
    found = at(view, variant, metric)
    if not len(found):
        return None
    # a mean of equal numbers may round to another one
    return float(found.iloc[0] if found.nunique() == 1 else found.mean())


def tasks(view: View) -> list[str]:
    """The tasks that the suite asks for."""
    return [name for name in TASKS if view.about["zero_shot"][name]]


def true_scales(view: View) -> list[int]:
    """Every m of super-resolution that a variant of the suite can have."""
    return list(range(1, max(len(names["patch_nums"]) for names in view.variants.values())))


def rows_lost(view: View) -> str:
    """The same for the first number of the first task."""
    task = tasks(view)[0]
    return lost_words(view, f"{task}_psnr_whole", 1 if task == "super_resolution" else None)


def strip_run(view: View, variant: str) -> str | None:
    """run_id of the zero-shot pictures of the first training seed that has some."""
    for seed in view.about["train_seeds"]:
        jobs = view.results.jobs_of(view.variants[variant], seed)
        for run_id in jobs.loc[jobs["stage"] == "zero_shot", "run_id"]:
            if run_id in view.about["runs"] and f"{run_id}/original" in view.results.images:
                return run_id
    return None


def _box(box: list[float]) -> str:
    return f"({', '.join(f'{share:g}' for share in box)})"


def protocol(view: View) -> str:
    """How the tasks are set, in sentences of a caption."""
    about, words = view.about["zero_shot"], []
    boxes = [f"{TASKS[name]} {_box(about[name])}" for name in ("inpaint", "outpaint") if about[name]]
    if boxes:
        words.append(
            f"Boxes as (top, left, bottom, right) in shares of the side: {', '.join(boxes)}; in-painting hides the box, "
            "out-painting all else. A scale keeps the true tokens where the bilinear share of what is known exceeds 0.5, and "
            "all of them if it has at most 3 tokens (VAR's protocol); true tokens come from the whole picture, so that the coarse ones "
            "know a little of what is hidden, which the fill does not. Nearest-mean fill: the mean of the known pixels at the "
            "smallest distance; it keeps every known pixel exactly, which a decoded picture cannot, so that the unknown part decides."
        )
    if about["super_resolution"]:
        words.append(
            "Super-resolution keeps the true tokens of the first m scales; bicubic enlarges the picture reduced to the share of "
            "its side that the m-th grid has of the last one."
        )
    words.append("Completed pictures are scored as decoded: no known pixel is pasted over them.")
    return " ".join(words)


def zero_shot_words(view: View) -> str:
    """N, seeds, interval, sampler: how the numbers were made."""
    return (
        f"N = {count_words(view, 'zero_shot')} pictures of {held_out(view.results)}, with their true classes; "
        f"{sample_words(view.results)}. {seeds_words(view)} {samplers(view)}"
    )
