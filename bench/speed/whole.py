"""A CSV of a benchmark that a run of a part of it does not replace."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from ..runtime.rows import write_rows


def write_whole(path: Path, rows: list[dict[str, Any]], columns: list[str], key: list[str]) -> Path:
    """Write the rows of one run; returns the file that holds them: `path`, or beside it
    `<stem>_part.csv` while an earlier run has a row that these lack.

    A run of some rows, or one that was stopped, so neither loses those of a whole one nor mixes
    with them.
    """
    part = path.with_stem(f"{path.stem}_part")
    write_rows(part, rows, columns, key)
    if path.is_file() and _keys(path, key) - _keys(part, key):
        return part
    os.replace(part, path)
    return path


def _keys(path: Path, key: list[str]) -> set[tuple[str | None, ...]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {tuple(map(row.get, key)) for row in rows}
