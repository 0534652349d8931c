"""What a published folder holds, checked before a page is written.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from ..report.published import whole_folder
from ..report.results import Results
from .captions import caption_of
from .tables import Table, read_table


@dataclass(frozen=True)
class Figure:
    """A figure of a suite: the stem of its files and its caption in HTML."""

    name: str
    stem: str
    caption: Markup


@dataclass
class Suite:
    """What a suite shows, in the order of the study."""

    name: str
    question: str
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    claims: list[Table] = field(default_factory=list)


@dataclass
class Published:
    """The published results of one study."""

    folder: Path
    results: Results
    suites: list[Suite]

    @property
    def name(self) -> str:
        """The folder of the study under results/, which its pages are called after."""
        return self.folder.parent.name

    @property
    def reduced(self) -> str:
        return self.results.about["reduced"] or ""

    @property
    def claims(self) -> list[Table]:
        """Its tables of claims. Suites of one study ask for the same one, which stands once."""
        tables = [table for suite in self.suites for table in suite.claims]
        kept: list[Table] = []
        for table in tables:
            if not any((table.columns, table.rows) == (old.columns, old.rows) for old in kept):
                kept.append(table)
        return kept

    @cached_property
    def jobs(self) -> list[dict[str, Any]]:
        """The rows of runs.csv, without that of the study."""
        runs = self.results.runs
        return runs[runs["stage"] != "study"].to_dict("records")


def read_published(folder: Path) -> Published:
    """The published results of a folder. Raises ValueError or OSError, in one line, for a folder
    that is damaged or lacks a file."""
    with whole_folder():
        results = Results.load(folder)
        results.images  # noqa: B018  # read here, so that a damaged file is said before any page
        suites = [_suite(folder, name, about) for name, about in results.about["suites"].items()]
    return Published(folder, results, suites)


def _suite(folder: Path, name: str, about: dict[str, Any]) -> Suite:
    suite = Suite(name, about["claim"], [_figure(folder, name, each) for each in about["figures"]])
    for short in about["tables"]:
        table = read_table(folder / "tables" / f"{name}_{short}.csv", short)
        (suite.claims if short == "claims" else suite.tables).append(table)
    return suite


def _figure(folder: Path, suite: str, name: str) -> Figure:
    stem = f"{suite}_{name}"
    path = folder / "figures" / f"{stem}.png"
    path.with_suffix(".svg").stat()  # linked to
    try:
        with Image.open(path) as image:
            image.verify()
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise ValueError(f"{path}: is no image that can be read; publish it again") from None
    return Figure(name, stem, caption_of(path.with_suffix(".rst")))
