"""The tidy tables: metrics (one row a number), runs (one row a job), variants (one row each).

CSV with a checked key and a stable format. Variants: one row a suite and variant.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

KEY = [
    "study", "dataset", "tokenizer", "model", "train_seed", "sampler", "seed_first", "seed_last",
    "num_images", "metric", "scale", "step", "repeat", "run_id",
]  # fmt: skip
METRIC_COLUMNS = [*KEY[:-1], "value", "unit", "run_id"]
RUN_COLUMNS = [
    "run_id", "stage", "status", "reason", "config_hash", "source_hash", "commit", "dirty", "torch",
    "device", "host_class", "started_at", "wall_s", "peak_bytes", "config_json",
]  # fmt: skip
VARIANT_COLUMNS = [
    "suite", "variant", "group", "grid", "tokenizer", "model", "sampler", "timed", "history",
    "mask", "depth", "patch_nums", "settings", "jobs",
]  # fmt: skip
# what a row.json says of the tables beside it, and of the rows that its job read; no columns
CONTENTS, INPUTS = "contents", "inputs"
STATUSES = ("ok", "oom", "diverged", "skipped")
WHOLE = ("train_seed", "seed_first", "seed_last", "num_images", "scale", "step", "repeat")
# what float() would also take, such as 1_000, nan or Arabic digits, no verb writes
WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder to write to; renamed when all went well, removed when
    not: never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; what UTF-8 cannot hold becomes its escape."""
    data = text.encode("utf-8", "backslashreplace")
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.10g}"
    return str(value)


def _as_text(row: dict[str, Any], columns: list[str]) -> dict[str, str]:
    """The cells of a row, as they are written."""
    return {column: _text(row.get(column)) for column in columns}


def _order(row: dict[str, Any], columns: list[str]) -> tuple:
    """Sort numbers as numbers and text as text; missing first."""
    return tuple(_rank(row.get(column)) for column in columns)


def _rank(cell: Any) -> tuple[int, float, str]:
    if cell in (None, ""):
        return 0, 0.0, ""
    if _is_number(cell):
        return 1, float(cell), ""
    return 2, 0.0, str(cell)


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def write_rows(
    path: Path, rows: Iterable[dict[str, Any]], columns: list[str], key: list[str]
) -> dict[str, Any]:
    """Write rows sorted by their key; returns what `content` says of them.

    Raises ValueError for an unknown column or a key that stands twice.
    """
    return write_in_order(path, sorted(rows, key=lambda row: _order(row, key)), columns, key)


def write_in_order(
    path: Path, rows: list[dict[str, Any]], columns: list[str], key: list[str]
) -> dict[str, Any]:
    """Write rows as they stand; returns what `content` says of them.

    Raises ValueError for an unknown column or a key that stands twice.
    """
    for row in rows:
        if extra := row.keys() - set(columns):
            raise ValueError(f"{path}: unknown columns {sorted(extra)}")
    shown = [_as_text(row, columns) for row in rows]
    _check_key(path, shown, key)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(row.values() for row in shown)
    write_text(path, buffer.getvalue())
    return content(shown)


def content(rows: list[dict[str, str]]) -> dict[str, Any]:
    """How many rows a table has, and the sha256 of their cells: a file that lost some, or in which
    a number was changed, is known by it, however its lines end."""
    lines = ("\x1f".join(row.values()) for row in rows)
    return {"rows": len(rows), "sha256": sha256("\x1e".join(lines).encode()).hexdigest()}


def write_metrics(path: Path, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """metrics.csv: one row a number; returns its `content`. Raises ValueError for what `read_rows`
    would refuse."""
    rows = list(rows)
    for row in rows:
        _check_metric(str(path), _as_text(row, METRIC_COLUMNS))
    return write_rows(path, rows, METRIC_COLUMNS, KEY)


def write_runs(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """runs.csv: one row a job. Raises ValueError for what `read_rows` would refuse, such as a
    status that is none."""
    rows = list(rows)
    for row in rows:
        _check_run(str(path), _as_text(row, RUN_COLUMNS))
    write_rows(path, rows, RUN_COLUMNS, ["run_id"])


# ---------------------------------------------------------------- reading


def brief(value: Any) -> str:
    """A value as a message quotes it: whole when it is short."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:76]} ..."


def read_text(path: Path) -> str:
    """A text file of ours. Raises ValueError for one that is no UTF-8, OSError for one that is not
    there."""
    try:
        return path.read_bytes().decode("utf-8-sig")  # a mark that spreadsheets write is no text
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start} is no UTF-8; the file is damaged, collect or fetch it "
            "again"
        ) from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number, which JSON cannot hold")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def parse_json(text: str, where: str, kind: type[dict[str, Any]] = dict) -> Any:
    """A JSON value.

    Raises ValueError that says where it should stand, for what is damaged. kind: of the objects in
    it.
    """
    hook = None if kind is dict else kind
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite, object_hook=hook)
    except RecursionError:
        raise ValueError(f"{where}: not readable as JSON (nested too deeply)") from None
    except ValueError as error:
        raise ValueError(f"{where}: not readable as JSON ({error})") from None


def parse_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError that says where it should stand, for what is damaged or no
    object."""
    value = parse_json(text, where)
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {brief(value)} is no JSON object")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file of ours. Raises ValueError for a damaged one, OSError for one that
    is not there."""
    return parse_object(read_text(path), str(path))


def sum_of_row(folder: Path) -> str:
    """What a job is known by to those that read it: its row.json, in which no two runs are equal.
    Raises OSError where it is not there."""
    return sha256((folder / "row.json").read_bytes()).hexdigest()[:16]


def read_rows(path: Path, columns: list[str]) -> list[dict[str, str]]:
    """Rows of a CSV of ours, as text, checked as writing checks them.

    Raises ValueError naming file, line and what is wrong: other columns, a line that is cut off,
    and in metrics.csv and runs.csv
    a value that is none or an identity that stands twice.
    """
    check, key = CHECKS.get(tuple(columns), (None, None))
    rows, lines = [], []
    for line, row in _lines(path, columns):
        if check:
            check(f"{path}: line {line}", row)
        rows.append(row)
        lines.append(line)
    if key:
        _check_key(path, rows, key, lines)
    return rows


def _column_words(header: list[str] | None, columns: list[str]) -> str:
    """What is wrong with the columns of a file, in words."""
    names = header or []
    if len(names) == 1 and names[0].count(";") == len(columns) - 1:
        return f"columns {brief(header)} are parted by semicolons; save it with commas"
    missing = [name for name in columns if name not in names]
    unknown = [name for name in names if name not in columns]
    reasons = []
    if missing:
        reasons.append(f"missing: {', '.join(map(repr, missing))}")
    if unknown:
        reasons.append(f"unknown: {', '.join(map(repr, unknown))}")
    reason = "; ".join(reasons)
    return (
        f"columns {brief(header)} are not {columns} ({reason or 'twice, or in another order'}); "
        "written by another version, collect again"
    )


def _lines(path: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of every row behind the header."""
    csv.field_size_limit(2**31 - 1)
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, None)
        if header != columns:
            raise ValueError(f"{path}: {_column_words(header, columns)}")
        for cells in reader:
            if len(cells) != len(columns):
                where = f"{path}: line {reader.line_num}"
                raise ValueError(
                    f"{where}: {len(cells)} cells where {len(columns)} belong; the file is "
                    "damaged, collect again"
                )
            yield reader.line_num, dict(zip(columns, cells))
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {reader.line_num}: {error}; the file is damaged, collect again"
        ) from None
    if not text.endswith(("\n", "\r")):
        raise ValueError(f"{path}: line {reader.line_num}: the last line is cut off; collect again")


def _check_key(
    path: Path, rows: list[dict[str, str]], key: list[str], lines: list[int] | None = None
) -> None:
    """Raises ValueError where two rows have one identity: a number would be counted twice."""
    seen: dict[tuple, int] = {}
    for i, row in enumerate(rows):
        identity = tuple(row[column] for column in key)
        if identity in seen:
            where = f"{path}: lines {lines[seen[identity]]} and {lines[i]}" if lines else str(path)
            shown = {column: cell for column, cell in zip(key, identity) if cell}
            raise ValueError(f"{where}: two rows with one identity {shown}; keep one")
        seen[identity] = i


def _check_metric(where: str, row: dict[str, str]) -> None:
    """Raises ValueError for a row of metrics.csv whose value is not a number, or nobody's."""
    for column in ("metric", "run_id"):
        if not row[column]:
            raise ValueError(f"{where}: {column} is empty; every number has one")
    for column in WHOLE:
        if row[column] and not WHOLE_NUMBER.fullmatch(row[column]):
            raise ValueError(f"{where}: {column} {brief(row[column])} is no whole number from 0")
    _check_number(where, row, "value")


def _check_number(where: str, row: dict[str, str], column: str) -> None:
    text = row[column]
    if text and not (NUMBER.fullmatch(text) and math.isfinite(float(text))):
        raise ValueError(
            f"{where}: {column} {brief(text)} is no finite number; a missing one is an empty cell"
        )


def _check_run(where: str, row: dict[str, str]) -> None:
    """Raises ValueError for a row of runs.csv without a name, with an unknown status, or with a
    damaged config."""
    if not row["run_id"]:
        raise ValueError(f"{where}: run_id is empty; every run has one")
    where = f"{where}: {row['run_id']}"
    if row["status"] not in STATUSES:
        raise ValueError(f"{where}: status {brief(row['status'])} (legal: {', '.join(STATUSES)})")
    for column in ("wall_s", "peak_bytes"):
        _check_number(where, row, column)
    if row["config_json"]:
        parse_object(row["config_json"], f"{where}: config_json")


def _check_variant(where: str, row: dict[str, str]) -> None:
    """Raises ValueError for a row of variants.csv without a name, or with a number that is none."""
    for column in ("suite", "variant"):
        if not row[column]:
            raise ValueError(f"{where}: {column} is empty; every variant has one")
    for column in ("history", "depth"):
        if row[column] and not WHOLE_NUMBER.fullmatch(row[column]):
            raise ValueError(f"{where}: {column} {brief(row[column])} is no whole number from 0")


VARIANT_KEY = ["suite", "variant"]
# how the rows of a table are checked, and what is no two rows' own
CHECKS = {
    tuple(METRIC_COLUMNS): (_check_metric, KEY),
    tuple(RUN_COLUMNS): (_check_run, ["run_id"]),
    tuple(VARIANT_COLUMNS): (_check_variant, VARIANT_KEY),
}
