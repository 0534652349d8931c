"""Folders of published results, and how one that lacks a file is said. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def published_folders(results: Path) -> list[Path]:
    """The published folders under a folder of results, by name. The folders, not their tables: a
    study that lost one is said, not left out."""
    return sorted(path for path in results.glob("*/published") if path.is_dir())


def weight(about: dict[str, Any]) -> tuple[bool, int, int]:
    """What published studies are sorted by, those with the strongest evidence first: whole before
    reduced, then by training seeds, then by images generated for each."""
    return (
        bool(about["reduced"]),
        -len(about["train_seeds"]),
        -about["evaluation"]["num_images"],
    )


@contextmanager
def whole_folder(remedy: str = "publish the study again") -> Iterator[None]:
    """Raises ValueError, in one line that names it, for a file that a folder of results lacks."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: is not there; {remedy}") from None
