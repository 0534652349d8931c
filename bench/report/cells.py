"""What all tables share: cells that are text with numbers behind it, and the files a table
becomes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..runtime.rows import write_text
from ..study import escaping
from .caption import Caption
from .estimate import Estimate, show, show_difference, show_estimate

MOST_COLUMNS = 7  # that a table shows to readers; its csv holds all
REDUCED = "reduced, no claim"


class Cell(str):
    """What a table shows, and the numbers behind it, each by the ending of its csv column."""

    numbers: dict[str, float | None]

    def __new__(cls, text: str, **numbers: float | None) -> Cell:
        cell = super().__new__(cls, text)
        cell.numbers = numbers
        return cell


BAR = re.compile(r"(?<!\\)\|")  # between two cells of a markdown table


def pipe_row(cells: Iterable[str]) -> str:
    """A line of a markdown table."""
    return f"| {' | '.join(cells)} |"


def pipe_table(rows: list[list[str]]) -> str:
    """A markdown table of a head and rows."""
    head, *rest = rows
    return "\n".join([pipe_row(head), "|" + " --- |" * len(head), *map(pipe_row, rest)])


def number(value: float | None, digits: int = 3) -> Cell:
    """A cell of one number."""
    if value is not None and math.isfinite(value) and float(value).is_integer():
        return Cell(f"{int(value):,}", value=value)
    return Cell(show(value, digits), value=value)


def spread(value: Estimate | None, difference: bool = False) -> Cell:
    """A cell of a mean and its interval."""
    text = show_difference(value) if difference else show_estimate(value)
    return Cell(text, mean=value and value.mean, half=value and value.half)


def of_several(value: Estimate | None) -> Cell:
    """A cell of a mean, with its interval where it is of several trainings."""
    return spread(value) if value and value.count > 1 else number(value and value.mean)


def frame(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Rows as a table whose cells stay cells; a column that a row lacks is blank there."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    blank = dict.fromkeys(columns, "")
    return pd.DataFrame([blank | row for row in rows], columns=columns, dtype=object)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The csv of a table: a column of text stays, a column of numbers becomes one for each
    number."""
    columns = {}
    for column in table.columns:
        cells = table[column].tolist()
        endings = list(dict.fromkeys(key for cell in cells for key in getattr(cell, "numbers", {})))
        if not endings:
            columns[column] = cells
        for ending in endings:
            name = column if ending == "value" else f"{column} {ending}"
            columns[name] = [getattr(cell, "numbers", {}).get(ending) for cell in cells]
    return pd.DataFrame(columns)


def shown(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The table, with those of these columns that it has to stand in markdown; all stand in the
    csv. A column of which every row is empty stands in the csv alone."""
    table.attrs["shown"] = [name for name in columns if name in table and any(table[name] != "")]
    return table


def unwell(table: pd.DataFrame) -> bool:
    """Whether a row's status says that something is missing."""
    return bool((~table["Status"].isin(["ok", ""])).any())


def too_wide(table: pd.DataFrame) -> str | None:
    """Why what a table asks to show cannot be shown; None where it can."""
    asked = table.attrs.get("shown", [])
    unknown = [name for name in asked if name not in table]
    if unknown:
        return f"a table that shows {unknown[0]!r}, which is no column of it"
    if len(asked) > MOST_COLUMNS:
        count = len(asked)
        return f"a table that shows {count} columns; {MOST_COLUMNS} are the most, the csv holds all"
    return None


# how `readable` says that rows stand in the csv alone
ROWS_LEFT = re.compile(r"\b(\d+) more rows? in the csv\.$", re.MULTILINE)


def readable(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """What stands in markdown, and how much stands in the csv alone, in words: columns that are not
    shown, and rows that have numbers in these alone."""
    columns = table.attrs.get("shown") or list(table.columns)[:MOST_COLUMNS]
    others = table.drop(columns=columns)
    blank = table[columns[1:]].isin(["-", ""]).all(axis=1)
    elsewhere = others.map(_has_number).any(axis=1)
    rows = ~(blank & elsewhere) if len(columns) > 1 else blank | True
    left = {"column": len(others.columns), "row": int((~rows).sum())}
    counted = [f"{n} more {word}{'s' * (n > 1)}" for word, n in left.items() if n]
    return table.loc[rows, columns], f"{' and '.join(counted)} in the csv." if counted else ""


def _has_number(cell: str) -> bool:
    numbers = getattr(cell, "numbers", {}).values()
    return any(value is not None for value in numbers)


def markdown(table: pd.DataFrame) -> str:
    """A pipe table."""
    lines = [list(table.columns), *table.to_numpy().tolist()]
    rows = ["| " + " | ".join(map(escaping.cell, line)) + " |\n" for line in lines]
    return "".join([rows[0], "|" + " --- |" * len(table.columns) + "\n", *rows[1:]])


def write_table(stem: Path, table: pd.DataFrame, caption: Caption | str, reduced: str = "") -> None:
    """<stem>.csv with the numbers of all columns, .md with the columns that a reader needs, .rst
    with the caption. A reduced study is marked in a column of the csv and above the markdown."""
    buffer, caption = io.StringIO(), Caption.of(caption)
    narrow, left = readable(table)
    whole = table.assign(Study=REDUCED) if reduced else table
    plain(whole).to_csv(buffer, index=False, lineterminator="\n", float_format="%.6g")
    under = Caption(caption.text, (*caption.details, left))
    above = f"**Study: {REDUCED}.**\n\n" if reduced else ""
    write_text(stem.with_name(f"{stem.name}.csv"), buffer.getvalue())
    write_text(stem.with_name(f"{stem.name}.md"), f"{above}{markdown(narrow)}\n{under.markdown()}")
    write_text(stem.with_name(f"{stem.name}.rst"), caption.rst())


COSTS = {"NFE": ("nfe", 1), "Token evals": ("token_evals", 1), "MFLOP per image": ("flops", 1e6)}


def without_numbers(table: pd.DataFrame, titles: list[str]) -> pd.DataFrame:
    """The table without those columns that no row has a number in."""
    return table.drop(
        columns=[title for title in titles if title in table and table[title].isin(["-", ""]).all()]
    )
