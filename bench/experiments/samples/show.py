"""Samples of every variant beside real images, and how an image grows scale by scale."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.claims import claim
from ...report.drawing import DOUBLE, blank, canvas, place, text, wrapped
from ...report.glyphs import is_drawable
from ...report.results import Results
from ...report.tiles import LINE, tiles
from ...report.view import View
from ...report.words import held_out, samplers, with_classes
from ...study.escaping import rst

MOST = 8  # variants side by side


LINES = 6  # of panels that the usual layout places in a moment


SHORT = 14  # letters of a class name that fits beside a row


@dataclass(frozen=True)
class Block:
    """A panel: its name, its images and their labels where they have some, and why there are
    none."""

    name: str
    images: np.ndarray | None
    labels: np.ndarray | None = None
    why: str = ""

    def cells(self, rows: int, columns: int) -> dict[tuple[int, int], np.ndarray]:
        """Images by row and column: a row holds a class, or without labels every so many-th
        image."""
        if self.labels is None:
            return {
                (j % rows, j // rows): image
                for j, image in enumerate(self.images[: rows * columns])
            }
        found = {}
        for row in range(rows):
            of_class = np.flatnonzero(self.labels == row)[:columns]
            found |= {(row, column): self.images[i] for column, i in enumerate(of_class)}
        return found


def _why(view: View, variant: str) -> str:
    """Why a variant has no images."""
    return view.results.why(view.variants[variant], view.about["train_seeds"][0])


def _absent(axes: Axes, why: str) -> None:
    """A block without images says why."""
    axes.spines[:].set_visible(False)
    blank(axes, why, letters=14)


def _blocks(view: View) -> list[Block]:
    """Every variant, then real images."""
    found, images = [], view.results.images
    for variant in view.variants:
        run = view.sample_run(variant)
        if run is None:
            found.append(Block(variant, None, None, _why(view, variant)))
            continue
        found.append(Block(variant, images[f"{run}/images"], _labels(view.results, run)))
    if "real/images" in images:
        found.append(Block("real, held out", images["real/images"], _labels(view.results, "real")))
    return found


def _labels(results: Results, run: str) -> np.ndarray | None:
    """Labels of the images of a run, one for each; None where they were not kept."""
    found = results.images.get(f"{run}/labels")
    return (
        found if found is not None and len(found) == len(results.images[f"{run}/images"]) else None
    )


def _rows(view: View, blocks: list[Block]) -> tuple[list[str], str, str]:
    """Marks of the rows, what they are, and a key in words where class names are too long to stand
    there."""
    classes = view.results.about["dataset"]["num_classes"]
    by_class = any(block.labels is not None for block in blocks)
    count = min(classes, 10) if by_class and classes >= 2 else classes if 2 <= classes <= 10 else 10
    numbers = [str(row) for row in range(count)]
    if not with_classes(view) and classes >= 2:
        return numbers, "seed modulo 10 (real: class)" if count == 10 else "row (real: class)", ""
    if not by_class and count != classes:
        return numbers, "seed modulo 10", ""
    names = view.results.images.get("real/classes", np.array([]))[:count].tolist()
    if len(names) < count:
        return numbers, "class", ""
    # a name of which a machine's fonts can draw no letter would stand there as escapes
    if all(len(name) <= SHORT and is_drawable(name) for name in names):
        return [text(name) for name in names], "class", ""
    return (
        numbers,
        "class",
        f" Classes: {'; '.join(f'{i} {rst(name)}' for i, name in enumerate(names))}.",
    )


def _of_classes(results: Results, rows: int, kind: str) -> str:
    """Which classes have a row, where not all have one."""
    classes = results.about["dataset"]["num_classes"]
    return f", the first {rows} of {classes}" if kind == "class" and rows < classes else ""


def _ratio(blocks: list[Block], rows: int, columns: int) -> float:
    """Height of a mosaic over its width."""
    side = next((block.images.shape[-1] for block in blocks if block.images is not None), 8)
    gap = max(1, side // 8)
    return (rows * (side + gap) - gap) / (columns * (side + gap) - gap)


def _same(view: View, words: str) -> str:
    """The words where all variants show images of one training seed; each has sample seeds of its own, but in older results."""
    runs = {view.sample_run(variant) for variant in view.variants}
    jobs_by_seed = [item for names in view.variants.values() for item in names["jobs"].items()]
    seeds = {seed for seed, run_ids in jobs_by_seed if runs & set(run_ids)}
    alike = view.results.about.get("tokenizer_seed") is None or len(seeds) <= 1
    return words if alike else "of different training seeds, hence of different sample seeds"


def figure_samples(view: View) -> tuple[Figure, str]:
    """Generated images of every variant, same seeds and classes row by row, beside real held-out
    ones."""
    blocks = _blocks(view)
    marks, kind, key = _rows(view, blocks)
    rows, per_line = len(marks), min(len(blocks), MOST)
    columns = max(1, min(40 // rows, int(DOUBLE / 0.28) // per_line))
    width = min(DOUBLE, 0.35 + 0.42 * columns * len(blocks))
    letters = max(6, int(14 * width / len(blocks)))
    height = 0.35 + rows * (width - 0.3) / len(blocks) / (columns + 0.4)
    breaks = max(wrapped(block.name, letters).count("\n") for block in blocks)
    if len(blocks) <= MOST and LINE * breaks < 0.1 * height:
        figure, axes = canvas(width, height, 1, len(blocks))
        panels = list(axes[0])
        for panel, block in zip(panels, blocks):
            panel.set_title(wrapped(block.name, letters))
    else:
        figure, panels = tiles(
            [block.name for block in blocks], max(per_line, 4), _ratio(blocks, rows, columns)
        )
    placed = [block.cells(rows, columns) if block.images is not None else {} for block in blocks]
    # seeds of a rare class are fewer than columns
    seeds = max(map(len, placed[: len(view.variants)]), default=0)
    for i, (panel, block, cells) in enumerate(zip(panels, blocks, placed)):
        if not cells:
            _absent(panel, block.why or "no images")
            continue
        pitch = place(panel, cells, rows, columns)
        if i % per_line == 0:
            panel.set_yticks([(row + 0.45) * pitch for row in range(rows)], marks)
            panel.tick_params(length=0)
            panel.set_ylabel(kind)
    caption = (
        f"{claim(view)} Pictures of each variant, {_same(view, f'the same {seeds} seeds in the same places')}, beside real "
        f"pictures of {held_out(view.results)}, in the same order of classes"
        f"{_of_classes(view.results, rows, kind)}; not chosen, first training seed with pictures, "
        f"enlarged without smoothing.{key} {samplers(view)}"
    )
    return figure, caption


def figure_growth(view: View) -> tuple[Figure, str]:
    """A few images of every variant growing through their scales."""
    variants, shown = view.variants, 4
    most = max(len(names["patch_nums"]) for names in variants.values())
    per_line = max(1, min(len(variants), 24 // most))
    lines = -(-len(variants) // per_line)
    width = min(DOUBLE, 0.3 + 0.5 * most * per_line)
    letters = int(14 * width / per_line)
    if lines <= LINES and max(len(textwrap.wrap(name, letters)) for name in variants) < 3:
        height = lines * (0.45 + shown * (width - 0.2) / per_line / (most + 0.4))
        figure, axes = canvas(width, height, lines, per_line)
        panels = list(axes.flat)
        for variant, panel in zip(variants, panels):
            panel.set_title(wrapped(variant, letters), pad=12)
    else:
        figure, panels = tiles(list(variants), per_line, shown / most, above=0.13)
    for (variant, names), panel in zip(variants.items(), panels):
        sides = names["patch_nums"]
        strip = view.results.images.get(f"{view.sample_run(variant)}/strip")
        if strip is None or strip.shape[1] < len(sides):
            _absent(panel, _why(view, variant))
            continue
        count = min(shown, len(strip))
        cells = {(row, k): strip[row, k] for row in range(count) for k in range(len(sides))}
        pitch = place(panel, cells, count, len(sides))
        marks = [f"{side}x{side}" if len(sides) <= 6 else str(side) for side in sides]
        panel.set_xticks([(k + 0.45) * pitch for k in range(len(sides))], marks)
        panel.tick_params(length=0, labeltop=True, labelbottom=False, pad=1)
    for panel in panels[len(variants) :]:
        panel.set_visible(False)
    caption = (
        f"{claim(view)} The same pictures after each scale: what the decoder makes of the accumulated latent state; "
        f"columns: grid side of the scale. The first {shown} seeds, {_same(view, 'the same in every variant')}, of the first training seed "
        f"with pictures; enlarged without smoothing. {samplers(view)}"
    )
    return figure, caption
