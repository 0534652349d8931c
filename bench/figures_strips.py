"""The figure of completed images: held-out ones through every zero-shot task, and what each variant
makes of them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .analysis import Results, claim, held_out, samplers
from .analysis_zero_shot import RIVAL_NAMES, RIVALS, TASKS, protocol, strip_run, tasks, true_scales
from .drawing import DOUBLE, blank, canvas, note, place, text, wrapped
from .sheets import shares

MOST = 7  # variants side by side
LETTERS = 16  # of a line above a column


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
    marks = [wrapped(name, LETTERS) if len(name) > LETTERS + 8 else text(name) for name in named]
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
    parts = shares(runs, MOST)
    keys = [(key, title, part) for key, title in _shown(results, suite, runs) for part in parts]
    most = max(map(len, parts))
    per_line = 2 if most <= 5 and len(parts) == 1 else 1
    lines = max(1, -(-len(keys) // per_line))
    width = (DOUBLE - 0.2) / per_line
    height = lines * (0.5 + width * shown / (most + 4.5))
    # slanted names above the columns: half of their length, and their lines
    longest = max(min(len(name), LETTERS + 8) for name in runs)
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
        f"tokenizer's reconstruction from all true tokens. {protocol(results, suite)} First training seed with pictures; picture i has "
        f"sample seed i. {samplers(results, suite)}"
    )
    return figure, caption
