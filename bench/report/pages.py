"""Places in the README and the docs that committed results fill: `python -m bench pages [--write]`.

A place stands between two comments, `<!-- NAME WORDS -->` and `<!-- /NAME -->`:

    published STUDY/TABLE       a published table with its caption; then, if asked,
                                `columns: A | B` which of its columns,
                                `where: A = one | other` which of its rows,
                                `note: 2` that many sentences of its caption, and no details
    cell STUDY/TABLE: ROW | COLUMN
                                one cell of a published table, its row by what it begins with
    suites STUDY ...            every suite, what it asks, and minutes of its jobs in these studies;
                                STUDY+STUDY: those of both in one column
    minutes STUDY [core]        minutes in which a job of the study was at work, or of core suites
    memory STUDY                the most memory of any of its jobs, in GiB
    work STUDY/SUITE: A | B     minutes of the jobs behind these variants, one after another
    seeds STUDY                 training seeds of its claims
    images STUDY PART           images of train, val or test, or generated for each training seed
    speed [intel]               timings of our path beside a plain one, on a CPU, or on one of Intel
    gpu WHAT                    times on a GPU of all that begins so
    public [cpu]                timings of our path beside the public VAR code, on a GPU or on a CPU
    device BENCHMARK ...        what some benchmarks were measured on
    peaks                       what each verb allocates, by images
    start                       what planning costs, and the start of a job

Imports no torch.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import ChainMap
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from srdd.lookup import unknown

from ..runtime.rows import METRIC_COLUMNS, RUN_COLUMNS, read_rows, write_text
from ..runtime.variants_file import read_variants
from ..study import escaping
from ..study.load import compose
from ..study.schema import Suite
from ..study.study_file import read_yaml
from .benchmarks import BENCHMARKS
from .cells import BAR, pipe_row, pipe_table

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_YET = "(not published yet)"
PLACE = re.compile(r"<!-- (\w+)((?: [^\n]*?)?) -->((?:(?!<!-- /?\w).)*?)<!-- /\1 -->", re.DOTALL)
TABLE = re.compile(r"([\w.-]+)/([\w.-]+)")
IN_SHORT = ("columns", "where", "note")  # what may be asked of a table, in any order
DETAILS = '<details markdown="1">'

# ---------------------------------------------------------------- published tables


def _cells(line: str) -> list[str]:
    """The cells of a line of a pipe table."""
    return [cell.strip() for cell in BAR.split(line.strip())[1:-1]]


def _with_columns(lines: list[str], titles: list[str]) -> list[str]:
    """A pipe table with these columns of it. Raises ValueError for a column that it lacks."""
    rows = [_cells(line) for line in lines]
    for title in titles:
        if title not in rows[0]:
            raise ValueError(unknown("column", title, rows[0]))
    chosen = [rows[0].index(title) for title in titles]
    return [pipe_row(map(row.__getitem__, chosen)) for row in rows]


def _in_short(lines: list[str], titles: list[str]) -> list[str]:
    """A pipe table with these columns of it, without rows that have nothing there beside their
    name: those columns are left out that they are for. Rows of what failed stay."""
    short, whole = _with_columns(lines, titles), [_cells(line) for line in lines]
    kept, at = short[:2], whole[0].index("Status") if "Status" in whole[0] else None
    for line, row in zip(short[2:], whole[2:]):
        beside = set(_cells(line)[1:])
        failed = at is not None and row[at] not in ("ok", "-", "")
        if failed or not beside or beside - {"-", ""}:
            kept.append(line)
    return kept


def _with_rows(lines: list[str], title: str, values: list[str]) -> list[str]:
    """A pipe table with the rows that hold one of these values in a column. Raises ValueError for a
    column that it lacks and a value that no row has."""
    head, *rows = [_cells(line) for line in lines]
    if title not in head:
        raise ValueError(unknown("column", title, head))
    at = head.index(title)
    for value in values:
        if value not in {row[at] for row in rows[1:]}:
            raise ValueError(unknown(title, value, {row[at] for row in rows[1:]}))
    return [*lines[:2], *(pipe_row(row) for row in rows[1:] if row[at] in values)]


def _first_sentences(caption: str, count: int) -> str:
    """The beginning of a caption, without its details."""
    text = caption.split(DETAILS)[0].strip()
    return " ".join(re.split(r"(?<=\.) (?=[A-Z])", text)[:count])


def _asked_table(words: str) -> tuple[tuple[str, str], dict[str, str]]:
    """Study and name of a table, and what of it a place asks for."""
    usage = (
        "give STUDY/TABLE, then columns: A | B, where: A = one | other and note: 2 where wanted, "
        "each once"
    )
    head, *rest = re.split(rf" ({'|'.join(IN_SHORT)}): ", words)
    asked = dict(zip(rest[::2], rest[1::2]))
    match = TABLE.fullmatch(head)
    if match is None:
        raise ValueError(f"{head!r}: {usage}")
    if len(rest) > 2 * len(asked):
        raise ValueError(f"{', '.join(rest[::2])}: one stands twice; {usage}")
    if "where" in asked and not all(asked["where"].partition(" = ")):
        raise ValueError(f"where: {asked['where']!r} names no value; {usage}")
    if not re.fullmatch("[0-9]+", asked.get("note", "1")):
        raise ValueError(f"note: {asked['note']!r} is no number of sentences; {usage}")
    return (match[1], match[2]), asked


def _text_of(root: Path, study: str, name: str) -> str | None:
    """A published table in markdown; None where nothing of the study is published. Raises
    ValueError for a table that the study lacks."""
    source = root / "results" / study / "published" / "tables" / f"{name}.md"
    if not source.parent.parent.is_dir():
        return None
    if not source.is_file():
        names = sorted(path.stem for path in source.parent.glob("*.md"))
        raise ValueError(unknown("table", name, names))
    # the word that a site's generator needs to read markdown inside of HTML; others pass over it
    return source.read_text(encoding="utf-8").strip().replace("<details>", DETAILS)


def _cell(root: Path, words: str) -> str:
    """One cell of a published table. Raises ValueError for a row or a column that it lacks."""
    where, _, asked = words.partition(": ")
    match, place = TABLE.fullmatch(where), [part.strip() for part in BAR.split(asked)]
    if match is None or len(place) != 2:
        raise ValueError(f"{words!r}: give STUDY/TABLE: ROW | COLUMN")
    text = _text_of(root, match[1], match[2])
    if text is None:
        return NOT_YET
    table = [line for line in text.splitlines() if line.startswith("|")]
    table = _with_rows(table, _cells(table[0])[0], place[:1])
    return _cells(_with_columns(table, place[1:])[2])[0]


def _published(root: Path, words: str) -> str:
    """A published table, whole or in short."""
    (study, name), asked = _asked_table(words)
    text = _text_of(root, study, name)
    if text is None:
        return NOT_YET
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("|")]
    first = lines.index(table[0])
    above = lines[:first]
    caption = "\n".join(lines[first + len(table) :]).strip()
    if "where" in asked:
        column, _, values = asked["where"].partition(" = ")
        table = _with_rows(table, column, [value.strip() for value in BAR.split(values)])
    if "columns" in asked:
        table = _in_short(table, [title.strip() for title in BAR.split(asked["columns"])])
    if "note" in asked:
        caption = _first_sentences(caption, int(asked["note"]))
    return "\n".join([*above, *table, "", caption]).strip()


# ---------------------------------------------------------------- what a study took


def _runs(root: Path, study: str) -> list[dict[str, Any]]:
    """The published jobs of a study; none where nothing is published."""
    path = root / "results" / study / "published" / "runs.csv"
    return read_rows(path, RUN_COLUMNS) if path.is_file() else []


def _about(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the row of a study says of it."""
    texts = [row["config_json"] for row in rows if row["stage"] == "study"]
    about: dict[str, Any] = json.loads(texts[0]) if texts else {"suites": {}}
    return about


def _took(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of each job."""
    return {row["run_id"]: float(row["wall_s"] or 0) for row in rows}


def _at_work(rows: list[dict[str, Any]]) -> float:
    """Seconds in which at least one job was at work: a pause between two runs counts nothing."""
    jobs = [(row["started_at"], float(row["wall_s"])) for row in rows if row["started_at"]]
    began = [datetime.fromisoformat(started).timestamp() for started, _ in jobs]
    total = until = 0.0
    for start, took in sorted(zip(began, (took for _, took in jobs))):
        total += max(0.0, start + took - max(start, until))
        until = max(until, start + took)
    return total


def _minutes_in_words(seconds: float) -> str:
    return f"{seconds / 60:.0f}" if seconds >= 60 else "under 1"


def _is_core(root: Path, study: str, suite: str) -> bool:
    """Whether `./run reproduce` runs a suite of a study, as a plan of it has it; one that the study
    asks no more counts as any other."""
    suites = compose(root / "workflows" / "config" / f"{study}.yaml").data["suites"]
    return bool((suites.get(suite) or {}).get("core", Suite.model_fields["core"].default))


def _minutes(root: Path, words: str) -> str:
    """How long a study took, in minutes; of its core suites alone where that is asked."""
    study, *part = words.split()
    if part not in ([], ["core"]):
        raise ValueError("give STUDY, then core where its core suites are meant")
    rows = _runs(root, study)
    if part:
        suites = _about(rows)["suites"].items()
        jobs = {job for name, of in suites if _is_core(root, study, name) for job in of["runs"]}
        rows = [row for row in rows if row["run_id"] in jobs]
    return _minutes_in_words(_at_work(rows)) if rows else NOT_YET


def _memory(root: Path, words: str) -> str:
    """The most memory of any job of a study, in GiB."""
    peaks = [float(row["peak_bytes"]) for row in _runs(root, words) if row["peak_bytes"]]
    return f"{max(peaks) / 2**30:.1f}" if peaks else NOT_YET


def _work(root: Path, words: str) -> str:
    """How long the jobs behind some variants of a suite took, in minutes, one after another."""
    where, _, names = words.partition(":")
    study, suite = where.split("/")
    if not (rows := _runs(root, study)):
        return NOT_YET
    listed = {name: set(part["runs"]) for name, part in _about(rows)["suites"].items()}
    file = root / "results" / study / "published" / "variants.csv"
    variants = read_variants(file, listed)[suite]
    by_seed = [variants[name.strip()]["jobs"] for name in BAR.split(names)]
    jobs = set(chain.from_iterable(chain.from_iterable(map(dict.values, by_seed))))
    return _minutes_in_words(sum(took for job, took in _took(rows).items() if job in jobs))


def _seeds(root: Path, words: str) -> str:
    """How many training seeds the suite `main` of a study has."""
    suites = _about(_runs(root, words))["suites"]
    return str(len(suites["main"]["train_seeds"])) if "main" in suites else NOT_YET


def _images(root: Path, words: str) -> str:
    """How many images a part of a study has, or are generated for each of its training seeds."""
    study, part = words.split()
    if part == "generated":
        evaluation = _about(_runs(root, study)).get("evaluation")
        return f"{evaluation['num_images']:,}".replace(",", " ") if evaluation else NOT_YET
    path = root / "results" / study / "published" / "metrics.csv"
    if not path.is_file():
        return NOT_YET
    counts = [row for row in read_rows(path, METRIC_COLUMNS) if row["metric"] == f"num_{part}"]
    if len(counts) != 1:
        raise ValueError(unknown("part", part, ("train", "val", "test", "generated")))
    return f"{int(float(counts[0]['value'])):,}".replace(",", " ")


# ---------------------------------------------------------------- the suites


def _suite_files(root: Path, first: str) -> dict[str, Path]:
    """The suites, in the order in which a study takes them, then the others."""
    files = {path.stem: path for path in (root / "workflows/config/suites").glob("*.yaml")}
    take = read_yaml(root / "workflows/config" / f"{first}.yaml").get("take") or []
    ordered = [name for name in take if name in files]
    return {name: files[name] for name in [*ordered, *sorted(files.keys() - ordered)]}


def _minutes_of_suites(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Minutes of the jobs of each suite that was published, one after another."""
    took = _took(rows)
    suites = _about(rows)["suites"].items()
    seconds = {name: sum(map(took.__getitem__, part["runs"])) for name, part in suites}
    return {name: _minutes_in_words(total) for name, total in seconds.items()}


def _suites(root: Path, words: str) -> str:
    """A table of all suites with what each asks, and its minutes in each study; of studies joined
    by a plus in the first that has the suite."""
    columns = [column.split("+") for column in words.split()]
    of_study = {
        study: _minutes_of_suites(_runs(root, study)) for study in chain.from_iterable(columns)
    }
    minutes = [ChainMap(*map(of_study.__getitem__, studies)) for studies in columns]
    table = [["Suite", "What it asks", *(f"{studies[0]}, minutes" for studies in columns)]]
    for name, file in _suite_files(root, columns[0][0]).items():
        asks = escaping.cell(read_yaml(file)["claim"])
        table.append([f"`{name}`", asks, *(column.get(name, "-") for column in minutes)])
    elapsed = [" + ".join(map(partial(_minutes, root), studies)) for studies in columns]
    table.append(["together", "From start to end, two jobs at a time", *elapsed])
    return pipe_table(table)


# ---------------------------------------------------------------- the pages

PLACES: dict[str, Callable[[Path, str], str]] = {
    "published": _published,
    "cell": _cell,
    "suites": _suites,
    "minutes": _minutes,
    "memory": _memory,
    "work": _work,
    "seeds": _seeds,
    "images": _images,
    **BENCHMARKS,
}


def pages(root: Path = ROOT) -> list[Path]:
    """The pages that may have places: the README and all of docs, where they are there."""
    return [*root.glob("README.md"), *sorted((root / "docs").rglob("*.md"))]


def _fill_one(root: Path, match: re.Match[str]) -> str:
    """A place with what belongs there; on lines of its own where it stood so."""
    name, words, old = match[1], match[2].strip(), match[3]
    try:
        if name not in PLACES:
            raise ValueError(unknown("place", name, PLACES))
        new = PLACES[name](root, words)
    except (LookupError, ValueError, OSError) as error:
        raise ValueError(f"<!-- {name} {words} -->: {error}") from error
    new = f"\n{new}\n" if old.startswith("\n") else new
    return f"<!-- {name}{match[2]} -->{new}<!-- /{name} -->"


def filled(page: Path, root: Path = ROOT) -> str:
    """The text of a page, its places filled from committed results.

    Raises ValueError, in one line, for a place that is not known, not closed, or asks for what a
    table lacks.
    """
    text = page.read_text(encoding="utf-8")
    try:
        new = PLACE.sub(partial(_fill_one, root), text)
        _all_closed(new)
    except ValueError as error:
        raise ValueError(f"{page.relative_to(root)}: {error}") from error
    return new


def _all_closed(text: str) -> None:
    for name in PLACES:
        opened, closed = text.count(f"<!-- {name}"), text.count(f"<!-- /{name} -->")
        if opened != closed:
            raise ValueError(f"<!-- {name} ... -->: {opened} opened, {closed} closed")


def main() -> None:
    """Fill the places, or name the pages that are not current."""
    parser = argparse.ArgumentParser(prog="python -m bench pages")
    parser.add_argument("--write", action="store_true", help="fill them")
    write = parser.parse_args().write
    try:
        texts = {page: filled(page, ROOT) for page in pages(ROOT)}
    except ValueError as error:
        sys.exit(f"error: {error}")
    stale = [page for page, text in texts.items() if text != page.read_text(encoding="utf-8")]
    if write:
        for page in stale:
            write_text(page, texts[page])
    names = ", ".join(str(page.relative_to(ROOT)) for page in stale)
    if names:
        print(f"filled {names}" if write else f"not current: {names}; add --write")
    sys.exit(bool(stale) and not write)
