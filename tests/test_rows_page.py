"""docs/rows.md: every column and metric of the csv files is explained, and its example gives the
number of the README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import compare
from bench.runtime.rows import METRIC_COLUMNS, RUN_COLUMNS, VARIANT_COLUMNS, read_rows

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "rows.md").read_text(encoding="utf-8")
# jobs of the pipeline, and of rooms that every study may ask for
STAGES = (
    "prepare", "tokenizer", "encode", "features", "train", "sample", "sweep", "evaluate",
    "baselines", "latency", "snr", "equivalence",
)  # fmt: skip
EXTRACTOR, NUMBER = r"(?:digits|fashion|emoji|lite0_)\d+", r"\d+(?:\.\d+)?"
STANDS_FOR = {
    "x": EXTRACTOR,
    "score": rf"(?:[a-z_]+_{EXTRACTOR}|[a-z]+_pixels)",
    "part": "[a-z]+",
    "corruption": "[a-z]+",
    "p": NUMBER,
    "e": NUMBER,
}


def names_of_the_page():
    """Patterns of all that stands in the columns of names of its tables, by the first word."""
    for line in PAGE.splitlines():
        if line.startswith("| "):
            yield from re.findall(r"`([^`]+)`", "|".join(line.split("|")[1:3]))


def pattern(name):
    """A name of the page as a pattern, such as fid_<x>."""
    return re.sub(r"<(\w+)>", lambda match: STANDS_FOR.get(match[1], match[0]), name)


CLAIMS = (ROOT / "results" / "claims.csv").read_text(encoding="utf-8")
CLAIM_COLUMNS = CLAIMS.partition("\n")[0].split(",")


@pytest.mark.parametrize(
    "columns", [METRIC_COLUMNS, RUN_COLUMNS, VARIANT_COLUMNS, compare.COLUMNS, CLAIM_COLUMNS]
)
def test_every_column_is_explained(columns):
    """Catches a column that a reader of the csv has to guess."""
    assert not set(columns) - set(names_of_the_page())


def test_every_metric_is_explained():
    """Catches a published metric of the pipeline that the page does not name, and the reverse."""
    metrics = set()
    for file in sorted((ROOT / "results").glob("*/published/metrics.csv")):
        for row in read_rows(file, METRIC_COLUMNS):
            if row["run_id"].partition("/")[0] in STAGES:
                metrics.add(row["metric"])
    tables = PAGE.partition("## Metrics")[2]
    named = {pattern(name) for name in names_of_the_page() if f"`{name}`" in tables}
    unknown = {name for name in metrics if not any(re.fullmatch(p, name) for p in named)}
    assert len(metrics) > 100 and not unknown
    assert not {p for p in named if not any(re.fullmatch(p, name) for name in metrics)}


def test_the_example_gives_the_number_of_the_readme():
    """Catches rows that count twice, and columns that were renamed."""
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^\| SDD \|.*\| ([-+].*?) \|", readme, re.MULTILINE)[1] == done.stdout.strip()
