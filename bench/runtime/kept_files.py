"""The files that a job leaves for others, known by what its row.json says of them: a copy that
broke off, a damaged disk, or results of two machines in one folder leave others beside a row.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..study.file_sums import sum_of_file

# what a row.json says of the files beside it
FILES = "files"
# of what jobs leave for others; tables have sums of their own, and nobody reads logs or notes
KINDS = (".safetensors", ".npy", ".npz", ".json")
# the only folder below that of a job
SNAPSHOTS = "snapshots"


def sums_of(folder: Path, removed: Path | None = None) -> dict[str, str]:
    """Sums of all files that a job leaves, by their place in its folder; but for the one that is
    removed at its end."""
    paths = [path for path in sorted(folder.rglob("[!.]*")) if path.is_file() and path != removed]
    names = [path.relative_to(folder).as_posix() for path in paths]
    kept = [name for name in names if name.endswith(KINDS) and name != "row.json"]
    return {name: sum_of_file(folder / name) for name in kept}


def in_folder(name: str) -> bool:
    """Whether a file lies in the folder of its job itself, and not below, as snapshots do, which
    few jobs read."""
    return "/" not in name


def check_files(folder: Path, written: Any, which: Callable[[str], bool]) -> None:
    """Raises ValueError for a file that is not the one which the job wrote. One that is not there
    is missed by who reads it.

    written: what the job's row.json says of its files; jobs of older versions say nothing.
    """
    for name, before in written.items() if isinstance(written, dict) else ():
        path = folder / name
        if which(name) and path.is_file() and sum_of_file(path) != before:
            raise ValueError(
                f"{path}: holds other bytes than the job wrote, by its row.json; delete {folder} "
                "and run what makes it again"
            )
