"""The images of a published study as PNG files: a wall of final images and a strip of scales for
each variant and training seed.

Images at the same place of two walls of one training seed have the same sample seed. Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..report.results import Results

WIDE = 480  # pixels that a wall has at least: small images are enlarged by whole numbers
COLUMNS = 10  # of a wall whose labels make no columns
MOST_CLASSES = 20  # that stand side by side


@dataclass(frozen=True)
class Wall:
    """Files of the images of one run, beside the page: the final images, and each scale or
    None."""

    images: str
    strip: str | None


def write_walls(results: Results, folder: Path, prefix: str) -> dict[str, Wall]:
    """Write the images of every run that has some, and the real ones; by run_id, `real` for these.

    folder: where the files go; prefix: of their names as the page sees them. Files are numbered:
    what a study calls a run may be no name of a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    walls = {}
    keys = [key for key in results.images if key.endswith("/images")]
    for i, key in enumerate(keys):
        run = key.removesuffix("/images")
        images, labels = results.images[key], results.images.get(f"{run}/labels")
        _save(_tiled(images, *_layout(len(images), labels)), folder / f"{i}.png")
        strip = results.images.get(f"{run}/strip")
        if strip is not None:
            rows = strip.reshape(-1, *strip.shape[2:])
            _save(_tiled(rows, np.arange(len(rows)), strip.shape[1]), folder / f"{i}_strip.png")
        name = f"{prefix}{i}"
        walls[run] = Wall(f"{name}.png", f"{name}_strip.png" if strip is not None else None)
    return walls


def by_class(labels: np.ndarray | None, count: int) -> bool:
    """Whether every column of a wall can hold one class."""
    if labels is None or len(labels) != count:
        return False
    classes, sizes = np.unique(labels, return_counts=True)
    return 1 < len(classes) <= MOST_CLASSES and len(set(sizes)) == 1


def _layout(count: int, labels: np.ndarray | None) -> tuple[np.ndarray, int]:
    """The order of images in a wall, and how many stand side by side: a class a column where all
    classes have as many."""
    if labels is None or not by_class(labels, count):
        return np.arange(count), min(COLUMNS, count)
    columns = len(np.unique(labels))
    grouped = np.argsort(labels, kind="stable").reshape(columns, -1)
    return grouped.T.reshape(-1), columns


def _tiled(images: np.ndarray, order: np.ndarray, columns: int) -> np.ndarray:
    """Images (N, C, H, W) as one (H', W', C), a pixel of white between them."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, np.uint8)
    for place, i in enumerate(order):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        sheet[top : top + height, left : left + width] = images[i].transpose(1, 2, 0)
    return sheet


def _save(sheet: np.ndarray, path: Path) -> None:
    """Write a sheet, enlarged without smoothing."""
    times = max(1, -(-WIDE // sheet.shape[1]))
    image = Image.fromarray(sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet)
    # optimize=True would take five to eight times as long, for 2 to 4 % fewer bytes
    image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST).save(path)


def sampled(results: Results, suite: str) -> Iterator[tuple[str, int, str]]:
    """Variant, training seed and run of all images that a suite shows."""
    for variant in results.variants(suite):
        for seed in results.suite(suite)["train_seeds"]:
            run = results.sample_run_of(variant, suite, seed)
            if run is not None:
                yield variant, seed, run
