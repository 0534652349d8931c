"""A published table as a page shows it: the numbers of its csv, written as in the report.

A csv has a column for each number of a cell: `FID mean`, `FID half`. A page puts them back into
one column, which sorts by the mean. Imports no torch.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ..report.cells import BAR, ROWS_LEFT, number
from ..report.estimate import Estimate, show, show_difference, show_estimate
from ..study import escaping
from .captions import caption_of, text_of

ENDINGS = ("mean", "half", "low", "high")


@dataclass(frozen=True)
class Entry:
    """What a cell shows, and the number that it sorts by."""

    text: str
    order: float | None = None


@dataclass(frozen=True)
class Column:
    """A column of a page; shown: whether a reader sees it before asking for more."""

    title: str
    shown: bool
    numeric: bool


@dataclass(frozen=True)
class Table:
    """A table of a suite: the stem of its files, its columns, its rows and its caption."""

    name: str
    stem: str
    columns: list[Column]
    rows: list[list[Entry]]
    caption: Markup


def read_table(path: Path, name: str) -> Table:
    """The table of a csv, with the caption beside it. Raises ValueError, naming the file, for one
    that is damaged."""
    values = _read(path)
    titles, rows, left = _shown(path.with_suffix(".md"))
    of_csv = len(next(iter(values.values())))
    if rows + left != of_csv:  # one of the two was cut at the end of a line
        more = f" and leaves out {left}" * bool(left)
        raise ValueError(f"{path}: has {of_csv} rows, its .md {rows}{more}; publish it again")
    first = set(titles)
    columns, cells = [], []
    for title, endings in _merged(values).items():
        entries = _entries(title, endings, values)
        numeric = any(entry.order is not None for entry in entries)
        columns.append(Column(title, escaping.cell(title) in first, numeric))
        cells.append(entries)
    caption = caption_of(path.with_suffix(".rst"))
    return Table(name, path.stem, columns, [list(row) for row in zip(*cells)], caption)


def _read(path: Path) -> dict[str, list[str]]:
    """The columns of a csv by title."""
    text = text_of(path)
    try:
        header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    except csv.Error as error:
        raise ValueError(f"{path}: is damaged ({error}); publish it again") from None
    # a file that was cut off has no end of line
    if not header or len(set(header)) < len(header) or not text.endswith("\n"):
        raise ValueError(f"{path}: holds no whole table; publish it again")
    values: dict[str, list[str]] = {title: [] for title in header}
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            counted = f"{len(row)} cells under {len(header)} titles"
            raise ValueError(f"{path}: row {line}: {counted}; publish it again")
        for title, cell in zip(header, row):
            values[title].append(cell)
    return values


def _shown(path: Path) -> tuple[list[str], int, int]:
    """The columns that the markdown of a table shows, as they stand there, how many rows, and how
    many it says that it leaves to the csv."""
    text = text_of(path)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    titles = [cell.strip() for cell in BAR.split(lines[0])[1:-1]] if lines else []
    left = ROWS_LEFT.search(text)
    # titles, and the rule below them
    return titles, max(0, len(lines) - 2), int(left[1]) if left else 0


def _merged(header: Iterable[str]) -> dict[str, list[str]]:
    """The endings of each title: `FID mean` and `FID half` are one column with two; a title that
    stands alone has none."""
    merged: dict[str, list[str]] = {}
    for column in header:
        title, _, ending = column.rpartition(" ")
        # a title may end in `mean` by itself: only those that the writer made are merged
        if title and ending in ENDINGS and column not in merged:
            merged.setdefault(title, []).append(ending)
        else:
            merged[column] = []
    return merged


def _entries(title: str, endings: list[str], values: dict[str, list[str]]) -> list[Entry]:
    if not endings:
        return [_plain(text) for text in values[title]]
    write = _writer(title, endings)
    parts = [values[f"{title} {ending}"] for ending in endings]
    return [_written(dict(zip(endings, map(_number, row))), write) for row in zip(*parts)]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plain(text: str) -> Entry:
    value = _number(text)
    return Entry(escaping.visible(text)) if value is None else Entry(number(value, 4), value)


Numbers = dict[str, float | None]


def _written(numbers: Numbers, write: Callable[[Numbers], str]) -> Entry:
    order = numbers.get("mean", numbers.get("low"))
    return Entry("" if order is None else write(numbers), order)


def _writer(title: str, endings: list[str]) -> Callable[[Numbers], str]:
    """How the numbers of a cell are written: as the report writes them."""
    if endings == ["mean"]:
        return lambda numbers: number(numbers["mean"])
    if "half" in endings:
        write = show_difference if title.endswith("paired") else show_estimate
        return lambda numbers: _with_half(numbers, write)
    if "mean" in endings:
        return lambda numbers: f"{show(numbers['mean'])} {_range(numbers, '[', ', ', ']')}".strip()
    return lambda numbers: _range(numbers, "", " to ", "")


def _with_half(numbers: Numbers, write: Callable[[Estimate], str]) -> str:
    """A mean and its interval; a mean alone where the csv has no interval."""
    mean, half = numbers["mean"], numbers["half"]
    if mean is None or half is None:
        return number(mean)
    return write(Estimate(mean, half, 0))  # no text needs the count, which stands in no csv


def _range(numbers: Numbers, before: str, between: str, after: str) -> str:
    low, high = numbers.get("low"), numbers.get("high")
    if low is None or high is None:
        return ""
    return f"{before}{show(low)}{between}{show(high)}{after}"
