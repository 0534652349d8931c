"""Figures, tables and rules of a claim of one's own that break their contract."""

import sys

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from small_study import build

from bench.report import analysis, figures, tables
from bench.report.making import run_verb
from bench.report.cells import write_table

CLAIM = {"text": "t", "variant": "a", "against": "b", "metric": "fid", "rule": "mine", "origin": "ours", "better": "lower"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(
        tmp_path_factory.mktemp("made"), ["a", "b"], tables=["mine", "scores"], figures=["mine"]
    )


def said(folder, target, what, module, write):
    try:
        run_verb(what, module, write, [str(folder), str(target)])
    except SystemExit as end:
        return str(end)
    finally:
        plt.close("all")
    return "fine"


BROKEN = {
    "raises": (lambda r, s: {}["fid"], r"raises KeyError: 'fid' (test_own_outputs.py, line "),
    "nothing": (lambda r, s: None, "gives NoneType; must be the pair of a DataFrame"),
    "no caption": (lambda r, s: pd.DataFrame(), "gives DataFrame; must be the pair"),
    "a list": (lambda r, s: ([1], "words"), "gives (list, str); must be the pair"),
    "leaves": (lambda r, s: sys.exit("bye"), "raises SystemExit: bye"),
    "no words": (lambda r, s: (pd.DataFrame(), None), "gives (DataFrame, NoneType)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_table_is_one_line_after_all_others(monkeypatch, folder, tmp_path, case):
    """Catches a traceback, and a table that is lost because the one before it is broken."""
    function, words = BROKEN[case]
    monkeypatch.setattr(tables, "table_mine", function, raising=False)
    found = said(folder, tmp_path, "tables", tables, write_table)
    assert found.startswith("error: bench/report/tables.py: table_mine: ") and "\n" not in found
    assert words in found
    assert (tmp_path / "s_scores.md").is_file() and not (tmp_path / "s_mine.md").exists()


@pytest.mark.parametrize("value", [(plt.Axes, "words"), "words", ([], "")])
def test_a_broken_figure_is_one_line(monkeypatch, folder, tmp_path, value):
    """Catches a figure that is none, written as something else or in a traceback."""
    monkeypatch.setattr(figures, "figure_mine", lambda r, s: value, raising=False)
    found = said(folder, tmp_path, "figures", figures, lambda *made: None)
    assert found.startswith("error: bench/report/figures.py: figure_mine: gives ") and "\n" not in found


@pytest.mark.parametrize(
    "rule, words",
    [
        (lambda r, s, c: True, "gives True; must be the pair"),
        (lambda r, s, c: (True, "why"), "must be the pair"),
        (lambda r, s, c: 1 / 0, "raises ZeroDivisionError"),
    ],
)
def test_a_broken_rule_is_named(monkeypatch, tmp_path, rule, words):
    """Catches a verdict that is no word, printed as one."""
    monkeypatch.setattr(analysis, "judge_mine", rule, raising=False)
    folder = build(tmp_path / "made", ["a", "b"], claims=[CLAIM], tables=["scores"])
    found = said(folder, tmp_path, "tables", tables, write_table)
    assert "bench/report/analysis.py: judge_mine: " in found and words in found and "\n" not in found
