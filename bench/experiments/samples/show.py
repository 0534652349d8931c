"""Samples of every variant beside real images, and how an image grows scale by scale."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.caption import Caption
from ...report.claims import claim_details
from ...report.drawing import DOUBLE, blank, canvas, place, text, wrapped
from ...report.glyphs import is_drawable
from ...report.results import Results
from ...report.tiles import LINE, tiles
from ...report.view import View
from ...report.words import credit_words, held_out, samplers, with_classes, without_classes
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
        if self.images is None:
            return {}
        if self.labels is None:
            shown = self.images[: rows * columns]
            return {(j % rows, j // rows): image for j, image in enumerate(shown)}
        cells = {}
        for row in range(rows):
            of_class = np.flatnonzero(self.labels == row)[:columns]
            for column, i in enumerate(of_class):
                cells[row, column] = self.images[i]
        return cells


def _why(view: View, variant: str) -> str:
    """Why a variant has no images."""
    return view.results.why(view.variants[variant], view.about["train_seeds"][0])


def _absent(axes: Axes, why: str) -> None:
    """A block without images says why."""
    axes.spines[:].set_visible(False)
    blank(axes, why, letters=14)


def _blocks(view: View) -> list[Block]:
    """Every variant, then real images."""
    blocks, images = [], view.results.images
    for variant in view.variants:
        run = view.sample_run(variant)
        if run is None:
            blocks.append(Block(variant, None, None, _why(view, variant)))
        else:
            blocks.append(Block(variant, images[f"{run}/images"], _labels(view.results, run)))
    if "real/images" in images:
        blocks.append(Block("real, held out", images["real/images"], _labels(view.results, "real")))
    return blocks


def _labels(results: Results, run: str) -> np.ndarray | None:
    """Labels of the images of a run, one for each; None where they were not kept, or say nothing
    as all images are of one class."""
    if results.about["dataset"]["num_classes"] < 2:
        return None
    labels = results.images.get(f"{run}/labels")
    whole = labels is not None and len(labels) == len(results.images[f"{run}/images"])
    return labels if whole else None


@dataclass(frozen=True)
class Rows:
    """Marks of the rows, what they are, and a key in words where class names are too long to stand
    there."""

    marks: list[str]
    kind: str
    key: str = ""


def _rows(view: View, blocks: list[Block]) -> Rows:
    """A row for each of the first classes; without labels, for each of the first seeds."""
    classes = view.results.about["dataset"]["num_classes"]
    by_class = any(block.labels is not None for block in blocks)
    if by_class and classes >= 2:
        count = min(classes, 10)
    else:
        count = classes if 2 <= classes <= 10 else 10
    numbers = [str(row) for row in range(count)]
    if not with_classes(view) and classes >= 2:
        kind = "seed modulo 10 (real: class)" if count == 10 else "row (real: class)"
        return Rows(numbers, kind)
    if classes < 2:
        return Rows(numbers, "row")
    if not by_class and count != classes:
        return Rows(numbers, "seed modulo 10")
    names = view.results.images.get("real/classes", np.array([]))[:count].tolist()
    if len(names) < count:
        return Rows(numbers, "class")
    # a name of which a machine's fonts can draw no letter would stand there as escapes
    if all(len(name) <= SHORT and is_drawable(name) for name in names):
        return Rows([text(name) for name in names], "class")
    key = "; ".join(f"{i} {rst(name)}" for i, name in enumerate(names))
    return Rows(numbers, "class", f"Classes: {key}.")


def _of_classes(results: Results, rows: int, kind: str) -> str:
    """Which classes have a row, where not all have one."""
    classes = results.about["dataset"]["num_classes"]
    return f", the first {rows} of {classes}" if kind == "class" and rows < classes else ""


def _without_words(view: View, kind: str) -> str:
    """Variants whose images stand in rows of classes and were asked for none."""
    names = ", ".join(map(rst, without_classes(view)))
    words = f"Drawn without classes, in the rows of the others' seeds: {names}."
    return words if names and kind == "class" else ""


def _ratio(blocks: list[Block], rows: int, columns: int) -> float:
    """Height of a mosaic over its width."""
    side = next((block.images.shape[-1] for block in blocks if block.images is not None), 8)
    gap = max(1, side // 8)
    return (rows * (side + gap) - gap) / (columns * (side + gap) - gap)


def _same(view: View, words: str) -> str:
    """The words where all variants show images of one training seed; each has sample seeds of its
    own, but in older results."""
    runs = {view.sample_run(variant) for variant in view.variants}
    jobs_by_seed = [item for names in view.variants.values() for item in names["jobs"].items()]
    seeds = {seed for seed, run_ids in jobs_by_seed if runs & set(run_ids)}
    alike = view.results.about.get("tokenizer_seed") is None or len(seeds) <= 1
    return words if alike else "of different training seeds, hence of different sample seeds"


def _sample_panels(blocks: list[Block], rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A titled panel for every block: side by side, or in lines of many."""
    per_line = min(len(blocks), MOST)
    width = min(DOUBLE, 0.35 + 0.42 * columns * len(blocks))
    height = 0.35 + rows * (width - 0.3) / len(blocks) / (columns + 0.4)
    letters = max(6, int(14 * width / len(blocks)))
    titles = [wrapped(block.name, letters) for block in blocks]
    breaks = max(title.count("\n") for title in titles)
    if len(blocks) > MOST or LINE * breaks >= 0.1 * height:
        names, ratio = [block.name for block in blocks], _ratio(blocks, rows, columns)
        return tiles(names, max(per_line, 4), ratio)
    figure, axes = canvas(width, height, 1, len(blocks))
    for panel, title in zip(axes[0], titles):
        panel.set_title(title)
    return figure, list(axes[0])


def figure_samples(view: View) -> tuple[Figure, Caption]:
    """Generated images of every variant, same seeds and classes row by row, beside real held-out
    ones."""
    blocks = _blocks(view)
    rows = _rows(view, blocks)
    count, per_line = len(rows.marks), min(len(blocks), MOST)
    columns = max(1, min(40 // count, int(DOUBLE / 0.28) // per_line))
    figure, panels = _sample_panels(blocks, count, columns)
    placed = [block.cells(count, columns) for block in blocks]
    for i, (panel, block, cells) in enumerate(zip(panels, blocks, placed)):
        if not cells:
            _absent(panel, block.why or "no images")
            continue
        pitch = place(panel, cells, count, columns)
        if i % per_line == 0:
            panel.set_yticks([(row + 0.45) * pitch for row in range(count)], rows.marks)
            panel.tick_params(length=0)
            panel.set_ylabel(rows.kind)
    # seeds of a rare class are fewer than columns
    seeds = max(map(len, placed[: len(view.variants)]), default=0)
    caption = (
        "Generated images of every variant, beside real held-out images in the same order of rows. "
        "Not chosen; enlarged without smoothing."
    )
    order = f"in the same order of classes{_of_classes(view.results, count, rows.kind)}; "
    if view.results.about["dataset"]["num_classes"] < 2:
        order = ""
    details = (
        *claim_details(view),
        f"Images of each variant: {_same(view, f'the same {seeds} seeds in the same places')}, of "
        "the first training seed with images.",
        f"Real images: {order}of {held_out(view.results)}.",
        credit_words(view.results),
        rows.key,
        _without_words(view, rows.kind),
        samplers(view),
    )
    return figure, Caption(caption, details)


GROWN = 4  # images of a variant that are shown after each scale


def _growth_panels(view: View, most: int) -> tuple[Figure, list[Axes]]:
    """A titled panel for every variant, for so many scales at most."""
    names = list(view.variants)
    lines = -(-len(names) // max(1, 24 // most))
    per_line = -(-len(names) // lines)  # lines of nearly equal length
    width = min(DOUBLE, 0.3 + 0.5 * most * per_line)
    letters = int(14 * width / per_line)
    if lines > LINES or max(len(textwrap.wrap(name, letters)) for name in names) >= 3:
        return tiles(names, per_line, GROWN / most, above=0.13)
    height = lines * (0.45 + GROWN * (width - 0.2) / per_line / (most + 0.4))
    figure, axes = canvas(width, height, lines, per_line)
    panels = list(axes.flat)
    for name, panel in zip(names, panels):
        panel.set_title(wrapped(name, letters), pad=12)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    return figure, panels


def figure_growth(view: View) -> tuple[Figure, Caption]:
    """A few images of every variant growing through their scales."""
    most = max(len(names["patch_nums"]) for names in view.variants.values())
    figure, panels = _growth_panels(view, most)
    for (variant, names), panel in zip(view.variants.items(), panels):
        sides = names["patch_nums"]
        strip = view.results.images.get(f"{view.sample_run(variant)}/strip")
        if strip is None or strip.shape[1] < len(sides):
            _absent(panel, _why(view, variant))
            continue
        count, cells = min(GROWN, len(strip)), {}
        for row, k in np.ndindex(count, len(sides)):
            cells[row, k] = strip[row, k]
        pitch = place(panel, cells, count, len(sides))
        marks = [f"{side}x{side}" if len(sides) <= 6 else str(side) for side in sides]
        panel.set_xticks([(k + 0.45) * pitch for k in range(len(sides))], marks)
        panel.tick_params(length=0, labeltop=True, labelbottom=False, pad=1)
    caption = (
        "Each row one image after each scale: what the decoder makes of the accumulated latent "
        "state. Columns: grid side of the scale. Not chosen; enlarged without smoothing."
    )
    details = (
        *claim_details(view),
        f"The first {GROWN} seeds, {_same(view, 'the same in every variant')}, of the first "
        "training seed with images.",
        samplers(view),
    )
    return figure, Caption(caption, details)
