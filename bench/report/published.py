"""Folders of published results, and how one that lacks a file is said. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def published_folders(results: Path) -> list[Path]:
    """The published folders under a folder of results, by name. The folders, not their tables: a
    study that lost one is said, not left out."""
    return sorted(path for path in results.glob("*/published") if path.is_dir())


@contextmanager
def whole_folder(remedy: str = "publish the study again") -> Iterator[None]:
    """Raises ValueError, in one line that names it, for a file that a folder of results lacks."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: is not there; {remedy}") from None
