"""Figures of zero-shot tasks and of error propagation."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .analysis import Results, claim, estimate, held_out, reach, sample_words, samplers
from .analysis_zero_shot import (
    CEILING,
    RIVAL_NAMES,
    RIVALS,
    TASKS,
    along_scales,
    at,
    error_words,
    level,
    lost_words,
    protocol,
    rows_lost,
    shares_shown,
    strip_run,
    tasks,
    true_scales,
    zero_shot_words,
)
from .drawing import (
    COLOURS,
    DOUBLE,
    apart,
    band,
    blank,
    canvas,
    look,
    note,
    place,
    side_ticks,
    text,
    wrapped,
)
from .sheets import by_variant, sheet
from .sheets import shares as parts_of

GREY = "0.35"
MOST = 8  # variants of one page
LETTERS = 12  # of a line of a name
LIKENESS = {"psnr": "PSNR (dB)", "ssim": "SSIM (1 = equal)"}

# ---------------------------------------------------------------- numbers of the tasks


def _crowded(results: Results, suite: str) -> bool:
    """Whether names do not fit below a panel: a slanted one takes twice the height of its lines
    along the axis."""
    names = [wrapped(name, LETTERS) for name in results.variants(suite)]
    lines = max(1 + name.count("\n") for name in names)
    return len(names) > 4 and 2 * 0.11 * lines > (DOUBLE / len(tasks(results, suite)) - 0.6) / len(
        names
    )


def _variants_axis(axes: Axes, results: Results, suite: str) -> None:
    names = [wrapped(name, LETTERS) for name in results.variants(suite)]
    axes.set_xlim(-0.6, len(names) - 0.4)
    if _crowded(results, suite):
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


def _box_panel(axes: Axes, results: Results, suite: str, task: str, measure: str) -> None:
    """Every variant on the unknown region: a point a training, mean and interval; the fill and the ceiling as lines."""
    metric, variants = f"{task}_{measure}_unknown", list(results.variants(suite))
    for i, variant in enumerate(variants):
        values = at(results, variant, suite, metric)
        if (found := estimate(values)) is None:
            continue
        mark = {key: value for key, value in look(i).items() if key != "linestyle"}
        spots = i - 0.18 + 0.04 * np.arange(len(values))
        axes.scatter(spots, values, s=7, color=mark["color"], alpha=0.45, linewidth=0)
        half = [[found.half]] * 2 if found.half is not None else None
        label = text(variant) if _crowded(results, suite) else None
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
        _level(axes, [level(results, v, suite, f"{prefix}_{metric}") for v in variants], label, style)
    _variants_axis(axes, results, suite)


def _lines_of(task: str) -> list[tuple[str, str, dict]]:
    rival = RIVALS[task]
    colour = COLOURS[7] if rival == "bicubic" else COLOURS[5]
    return [
        (rival, RIVAL_NAMES[rival], {"color": colour, "linestyle": (0, (1, 1)) if rival == "bicubic" else "-."}),
        ("ceiling", CEILING, {"color": GREY, "linestyle": "--"}),
    ]


def _scale_panel(axes: Axes, results: Results, suite: str, measure: str) -> None:
    """The whole picture against how many scales are true."""
    metric, variants = f"super_resolution_{measure}_whole", results.variants(suite)
    for i, variant in enumerate(variants):
        rows = along_scales(results, variant, suite, metric)
        if len(rows):
            band(axes, rows, "scale", variant, look(i))
    if not axes.lines:
        blank(axes, "no variant has a number")
    (rival, label, style), (_, high, high_style) = _lines_of("super_resolution")
    drawn: set[tuple] = set()
    for variant in variants:
        rows = along_scales(results, variant, suite, f"{rival}_{metric}").groupby("scale")["value"].first()
        if len(rows) and tuple(rows) not in drawn:  # one line a schedule
            drawn.add(tuple(rows))
            axes.plot(rows.index, rows.to_numpy(), label=label, linewidth=1, marker="|", zorder=0, **style)
    for value in sorted({v for n in variants if (v := level(results, n, suite, f"ceiling_{measure}_whole")) is not None}):
        axes.axhline(value, label=high, linewidth=1, zorder=0, **high_style)
    last = true_scales(results, suite)[-1:] or [1]
    axes.set_xlim(0.8, last[0] + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(min(8, last[0]), integer=True))
    axes.set_xlabel("true scales m (scales)")


def _zero_shot(axes: np.ndarray, results: Results, suite: str) -> None:
    """Likeness of a few variants at every task."""
    asked = tasks(results, suite)
    for row, (measure, label) in zip(axes, LIKENESS.items()):
        for panel, task in zip(row, asked):
            if task == "super_resolution":
                _scale_panel(panel, results, suite, measure)
            else:
                _box_panel(panel, results, suite, task, measure)
            panel.set_ylabel(label)
    for panel, task in zip(axes[0], asked):
        panel.set_title(f"{TASKS[task]}, {'whole' if task == 'super_resolution' else 'unknown part'}")


def figure_zero_shot(results: Results, suite: str) -> tuple[Figure, str]:
    """PSNR and SSIM of completed pictures, per task; opponents as lines, the tokenizer's ceiling
    dashed."""
    asked = tasks(results, suite)
    size = (DOUBLE if len(asked) > 1 else DOUBLE / 2, 4.3)
    figure = sheet(
        by_variant(results, suite, MOST),
        suite,
        size,
        (len(LIKENESS), len(asked)),
        _zero_shot,
        columns=3,
    )
    note(figure, rows_lost(results, suite))
    caption = (
        f"{claim(results, suite)} Likeness of completed pictures to the held-out ones, mean over pictures; small points: one training "
        "each, symbols and lines: mean, bars and bands: interval. Dashed: what the tokenizer makes of all true tokens, which no sampler "
        f"can be expected to pass. Likeness rewards the average of all plausible answers; a sampler gives one of them. "
        f"{protocol(results, suite)} PSNR of 8-bit pictures, an exact part counted as 58.9 dB; SSIM on the unknown part: mean of its map "
        f"there. {zero_shot_words(results, suite)}"
    )
    return figure, caption


# ---------------------------------------------------------------- strips

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


def _shown(results: Results, suite: str, runs: dict[str, str | None]) -> list[tuple[str, str]]:
    """Keys of the tasks that have images, and their titles."""
    asked = tasks(results, suite)
    keys = [(task, TASKS[task]) for task in asked if task != "super_resolution"]
    if "super_resolution" in asked:
        for m in true_scales(results, suite):
            keys.append((f"super_resolution_{m}", f"super-resolution, m = {m}"))
    there = results.images.keys()
    return [(key, title) for key, title in keys if any(f"{run}/{key}_input" in there for run in runs.values())]


def figure_zero_shot_strips(results: Results, suite: str) -> tuple[Figure, str]:
    """A few held-out pictures through every task: as they are, what is known, the opponent, each
    variant, the ceiling."""
    runs = {variant: strip_run(results, variant, suite) for variant in results.variants(suite)}
    seed = results.suite(suite)["train_seeds"][0]
    shown, first = 4, next((run for run in runs.values() if run), None)
    parts = parts_of(runs, COLUMNS)
    keys = [(key, title, part) for key, title in _shown(results, suite, runs) for part in parts]
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
        owner = next(run for run in runs.values() if f"{run}/{key}_input" in results.images)
        rival = RIVAL_NAMES[RIVALS[key.rstrip("_0123456789")]]
        columns = {
            "original": results.images[f"{owner}/original"],
            "input": results.images[f"{owner}/{key}_input"],
        }
        columns[rival.removesuffix(" fill")] = results.images[f"{owner}/{key}_rival"]
        columns |= {
            variant: results.images.get(f"{runs[variant]}/{key}_completed") for variant in part
        }
        columns["all true"] = results.images[f"{owner}/ceiling"]
        _strip(panel, columns, shown)
        panel.set_ylabel(title)
    for panel in panels:
        panel.set_visible(False)
    note(
        figure,
        "; ".join(
            f"{v}: no pictures, {results.why(results.variants(suite)[v], seed)}"
            for v, run in runs.items()
            if not run
        ),
    )
    caption = (
        f"{claim(results, suite)} The first {shown} pictures of {held_out(results)}, not chosen, enlarged without smoothing. "
        "Input: what is known, grey where it is not; for super-resolution the reduced picture that bicubic enlarges. All true: the "
        f"tokenizer's reconstruction from all true tokens. {protocol(results, suite)} First training seed with pictures; "
        f"{sample_words(results)}. {samplers(results, suite)}"
    )
    return figure, caption


# ---------------------------------------------------------------- error propagation


def _error_propagation(axes: np.ndarray, results: Results, suite: str) -> None:
    """Drift, its ratio and the change of FID of a few variants."""
    shares, x = shares_shown(results, suite), results.extractor
    ways = {
        "drift_p{p:g}": "drift of the last latent\n(share of its norm)",
        "repair_ratio_p{p:g}": "drift over its\ndirect part (ratio)",
        "fid_change_p{p:g}_{x}": f"change of {results.label('FID')}",
    }
    variants = results.variants(suite)
    for row, (metric, label) in zip(axes, ways.items()):
        for panel, p in zip(row, shares):
            for i, (variant, names) in enumerate(variants.items()):
                rows = along_scales(results, variant, suite, metric.format(p=p, x=x))
                if len(rows):
                    sides = rows["scale"].astype(int).map(dict(enumerate(names["patch_nums"])))
                    shift = apart(i, len(variants), 0.06)
                    band(panel, rows.assign(side=sides + shift), "side", variant, look(i))
            if not panel.lines:
                blank(panel, "no number")
            side_ticks(panel, results, suite)
            panel.set_xlabel("")
        row[0].set_ylabel(label)
    far = [v for name in variants for v in at(results, name, suite, "drift_unrelated")]
    for panel, p in zip(axes[0], shares):
        panel.set_title(f"{100 * p:g} % of a scale replaced")
        if far:
            panel.axhline(np.mean(far), color=GREY, linestyle=":", linewidth=1, label="two samples of one class", zorder=0)
        panel.set_ylim(bottom=0)
    for panel in axes[1]:
        panel.axhline(1, color=GREY, linestyle="--", linewidth=0.8, zorder=0, label="neither repaired nor amplified")
    for panel in axes[2]:
        panel.axhline(0, color=GREY, linewidth=0.6, zorder=0)
        panel.set_xlabel("grid side of the scale (tokens)")


def figure_error_propagation(results: Results, suite: str) -> tuple[Figure, str]:
    """Drift of the last latent, drift over its direct part and change of FID against the scale that
    the errors are in."""
    shape = (3, len(shares_shown(results, suite)))
    shared = {"sharey": "row", "sharex": True}
    figure = sheet(
        by_variant(results, suite),
        suite,
        (DOUBLE, 5.4),
        shape,
        _error_propagation,
        columns=3,
        **shared,
    )
    note(figure, lost_words(results, suite, "drift_unrelated"))
    caption = (
        f"{claim(results, suite)} Lines: mean, bands: interval; symbols of one scale stand side by side. Dotted: the drift between two "
        f"clean samples of one class, at which nothing of the picture is left. {error_words(results, suite)} {reach(results, suite)}"
    )
    return figure, " ".join(caption.split())
