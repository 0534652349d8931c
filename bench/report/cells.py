"""What all tables share: cells that are text with numbers behind it, and the files a table becomes."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pandas as pd

from ..runtime.rows import write_text
from ..study import escaping
from .caption import Caption
from .estimate import Estimate, show, show_difference, show_estimate


class Cell(str):
    """What a table shows, and the numbers behind it by the ending of their csv column ('' for the column itself)."""

    numbers: dict[str, float | None]

    def __new__(cls, text: str, **numbers: float | None) -> Cell:
        cell = super().__new__(cls, text)
        cell.numbers = numbers
        return cell


def number(value: float | None, digits: int = 3) -> Cell:
    """A cell of one number."""
    whole = value is not None and math.isfinite(value) and float(value).is_integer()
    return Cell(f"{int(value):,}" if whole else show(value, digits), value=value)


def spread(found: Estimate | None, difference: bool = False) -> Cell:
    """A cell of a mean and its interval."""
    text = show_difference(found) if difference else show_estimate(found)
    return Cell(text, mean=found and found.mean, half=found and found.half)


def frame(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Rows as a table whose cells stay cells; a column that a row lacks is blank there."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return pd.DataFrame([[row.get(column, "") for column in columns] for row in rows], columns=columns, dtype=object)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The csv of a table: a column of text stays, a column of numbers becomes one column for each of its numbers."""
    found = {}
    for column in table.columns:
        cells = table[column].tolist()
        endings = list(dict.fromkeys(key for cell in cells for key in getattr(cell, "numbers", {})))
        if not endings:
            found[column] = cells
        for ending in endings:
            name = column if ending == "value" else f"{column} {ending}"
            found[name] = [getattr(cell, "numbers", {}).get(ending) for cell in cells]
    return pd.DataFrame(found)


def markdown(table: pd.DataFrame) -> str:
    """A pipe table."""
    lines = [list(table.columns), *table.to_numpy().tolist()]
    shown = ["| " + " | ".join(map(escaping.cell, line)) + " |\n" for line in lines]
    return "".join([shown[0], "|" + " --- |" * len(table.columns) + "\n", *shown[1:]])


def write_table(stem: Path, table: pd.DataFrame, caption: Caption | str, reduced: str = "") -> None:
    """<stem>.csv with numbers, .md with what is shown, .rst with the caption. A reduced study is marked in a column."""
    buffer = io.StringIO()
    if reduced:
        table = table.assign(Study="reduced, no claim")
    plain(table).to_csv(buffer, index=False, lineterminator="\n", float_format="%.6g")
    write_text(stem.with_name(f"{stem.name}.csv"), buffer.getvalue())
    write_text(
        stem.with_name(f"{stem.name}.md"),
        markdown(table) + "\n" + escaping.markdown(escaping.plain(Caption.of(caption).whole)) + "\n",
    )
    write_text(stem.with_name(f"{stem.name}.rst"), Caption.of(caption).whole + "\n")


COSTS = {"NFE": ("nfe", 1), "Token evals": ("token_evals", 1), "MFLOP per image": ("flops", 1e6)}


def without_numbers(table: pd.DataFrame, titles: list[str]) -> pd.DataFrame:
    """The table without those columns that no row has a number in."""
    return table.drop(columns=[title for title in titles if title in table and table[title].isin(["-", ""]).all()])
