"""The two tidy tables: metrics (one row a number) and runs (one row a job), as CSV with a checked key and a stable format."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEY = [
    "study", "dataset", "tokenizer", "model", "train_seed", "sampler", "seed_first", "seed_last", "num_images",
    "metric", "scale", "step", "repeat", "run_id",
]  # fmt: skip
METRIC_COLUMNS = [*KEY[:-1], "value", "unit", "run_id"]
RUN_COLUMNS = [
    "run_id", "stage", "status", "reason", "config_hash", "source_hash", "commit", "dirty", "torch", "device", "host_class",
    "started_at", "wall_s", "peak_bytes", "config_json",
]  # fmt: skip
STATUSES = ("ok", "oom", "diverged", "skipped")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder to write to; renamed when all went well, removed when not: never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.10g}"
    return str(value)


def _order(row: dict[str, Any], columns: list[str]) -> tuple:
    """Sort numbers as numbers and text as text; missing first."""
    cells = (row.get(column) for column in columns)
    return tuple((0, 0, "") if c in (None, "") else (1, float(c), "") if _is_number(c) else (2, 0, str(c)) for c in cells)


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def write_rows(path: Path, rows: Iterable[dict[str, Any]], columns: list[str], key: list[str]) -> None:
    """Write rows sorted by their key. Raises ValueError for an unknown column or a key that stands twice."""
    rows = sorted(rows, key=lambda row: _order(row, key))
    seen: dict[tuple, int] = {}
    for row in rows:
        if extra := row.keys() - set(columns):
            raise ValueError(f"{path}: unknown columns {sorted(extra)}")
        identity = tuple(_text(row.get(column)) for column in key)
        if identity in seen:
            raise ValueError(f"{path}: two rows with one identity {dict(zip(key, identity))}")
        seen[identity] = 1
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_text(row.get(column)) for column in columns] for row in rows)
    write_text(path, buffer.getvalue())


def write_metrics(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """metrics.csv: one row a number."""
    write_rows(path, rows, METRIC_COLUMNS, KEY)


def write_runs(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """runs.csv: one row a job. Raises ValueError for a status that is none."""
    rows = list(rows)
    for row in rows:
        if row["status"] not in STATUSES:
            raise ValueError(f"{path}: status {row['status']!r} of {row['run_id']} (legal: {', '.join(STATUSES)})")
    write_rows(path, rows, RUN_COLUMNS, ["run_id"])


def read_rows(path: Path, columns: list[str]) -> list[dict[str, str]]:
    """Rows of a CSV of ours, as text. Raises ValueError when its columns are others."""
    csv.field_size_limit(2**31 - 1)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise ValueError(f"{path}: columns {reader.fieldnames} are not {columns}; written by another version, collect again")
        return list(reader)
