"""Folders of pairs: clean images, and the same ones degraded.

Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..study.contents import IMAGE_SUFFIXES, walk
from ..study.errors import ConfigError, place_of, shown
from ..study.settings import DatasetConfig
from .read_image import upright_size

CLEAN, DEGRADED = "clean", "degraded"


def degraded_path(path: Path, root: Path) -> Path:
    """Where the degraded image of a clean one lies, in a folder of pairs."""
    return root / DEGRADED / path.relative_to(root / CLEAN)


def load_paired_folder(config: DatasetConfig) -> dict[str, object]:
    """Pairs of images for restoration: a folder with clean/ and degraded/, both laid out as
    `load_image_folder` has it, each clean image with a degraded one of the same name and size.
    Raises ConfigError for odd ones, and ValueError for a degraded image that is damaged."""
    # they list the loaders, this one among them
    from .datasets import load_image_folder
    from .paired_images import refuse_damaged

    if config.path is None:
        raise ConfigError("dataset.path: is missing; paired_folder needs the folder of both parts")
    root = place_of(config.path, "dataset.path")
    refuse_unpaired(root)
    loaded = load_image_folder(config.model_copy(update={"path": str(root / CLEAN)}))
    refuse_damaged(loaded, root)
    return loaded


def refuse_unpaired(root: Path) -> None:
    """Raises ConfigError, one line, for a folder without both parts, and for the first image that
    has no partner of the same name and size."""
    for part in (CLEAN, DEGRADED):
        if not (root / part).is_dir():
            raise ConfigError(
                f"dataset.path: {shown(root)} has no folder {part}; pairs lie in {CLEAN} and "
                f"{DEGRADED} under the same names"
            )
    clean, degraded = (_images(root / part) for part in (CLEAN, DEGRADED))
    if odd := sorted(set(clean) ^ set(degraded)):
        there = CLEAN if odd[0] in clean else DEGRADED
        lacks = DEGRADED if there == CLEAN else CLEAN
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        raise ConfigError(
            f"dataset.path: {shown(root / there / odd[0])} has no partner in {lacks}{more}; give "
            "both parts the same names"
        )
    for name in sorted(clean):
        sizes = [upright_size(root / part / name) for part in (CLEAN, DEGRADED)]
        if sizes[0] != sizes[1]:
            one, other = (f"{width}x{height}" for width, height in sizes)
            raise ConfigError(
                f"dataset.path: {shown(root / DEGRADED / name)} has {other} pixels, its clean "
                f"image {one}; give both the same size"
            )


def _images(folder: Path) -> set[str]:
    """Names of the images below a folder."""
    files = walk(folder, Counter())
    wanted = (path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    return {path.relative_to(folder).as_posix() for path in wanted}
