"""Figures, tables and rules of a claim of one's own that break their contract."""

import sys

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from small_study import build

from bench.experiments.scores import show as scores
from bench.report.cells import shown, write_table
from bench.report.claims import judged
from bench.report.making import run_verb
from bench.report.results import Results
from bench.report.view import View
from bench.study import rooms

CLAIM = {
    "text": "t", "variant": "a", "against": "b", "metric": "fid", "rule": "mine",
    "origin": "ours", "better": "lower",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(
        tmp_path_factory.mktemp("made"), ["a", "b"], tables=["mine", "scores"], figures=["mine"]
    )


def add(monkeypatch, what, function):
    """A function of one's own, `mine`, in the room of scores."""
    shows, prefix = rooms.shows, rooms.PREFIXES[what]
    monkeypatch.setattr(scores, f"{prefix}_mine", function, raising=False)
    owners = lambda kind: {**shows(kind), **({"mine": "scores"} if kind == what else {})}  # noqa: E731
    monkeypatch.setattr(rooms, "shows", owners)


def said(folder, target, what, write):
    try:
        run_verb(what, write, [str(folder), str(target)])
    except SystemExit as end:
        return str(end)
    finally:
        plt.close("all")
    return "fine"


BROKEN = {
    "raises": (lambda view: {}["fid"], r"raises KeyError: 'fid' (test_own_outputs.py, line "),
    "raises in a package": (
        lambda view: pd.DataFrame({"a": [1]})["b"],
        "raises KeyError: 'b' (test_own_outputs.py, line ",
    ),
    "nothing": (lambda view: None, "gives NoneType; must be the pair of a DataFrame"),
    "no caption": (lambda view: pd.DataFrame(), "gives DataFrame; must be the pair"),
    "a list": (lambda view: ([1], "words"), "gives (list, str); must be the pair"),
    "leaves": (lambda view: sys.exit("bye"), "raises SystemExit: bye"),
    "many words": (
        lambda view: (pd.DataFrame(), "word " * 61),
        "text has 61 words; 60 are the most",
    ),
    "wide": (
        lambda view: (shown(pd.DataFrame([range(8)]), *range(8)), "words"),
        "shows 8 columns; 7 are the most",
    ),
    "no words": (lambda view: (pd.DataFrame(), None), "gives (DataFrame, NoneType)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_table_is_one_line_after_all_others(monkeypatch, folder, tmp_path, case):
    """Catches a traceback, and a table that is lost because the one before it is broken."""
    function, words = BROKEN[case]
    add(monkeypatch, "tables", function)
    found = said(folder, tmp_path, "tables", write_table)
    assert (
        found.startswith("error: bench/experiments/scores/show.py: table_mine: ")
        and "\n" not in found
    )
    assert words in found
    assert (tmp_path / "s_scores.md").is_file() and not (tmp_path / "s_mine.md").exists()


@pytest.mark.parametrize("value", [(plt.Axes, "words"), "words", ([], "")])
def test_a_broken_figure_is_one_line(monkeypatch, folder, tmp_path, value):
    """Catches a figure that is none, written as something else or in a traceback."""
    add(monkeypatch, "figures", lambda view: value)
    found = said(folder, tmp_path, "figures", lambda *made: None)
    assert (
        found.startswith("error: bench/experiments/scores/show.py: figure_mine: gives ")
        and "\n" not in found
    )


@pytest.mark.parametrize(
    "rule, words",
    [
        (lambda view, claim: True, "gives True; must be the pair"),
        (lambda view, claim: (True, "why"), "must be the pair"),
        (lambda view, claim: 1 / 0, "raises ZeroDivisionError"),
    ],
)
def test_a_broken_rule_is_named(monkeypatch, tmp_path, rule, words):
    """Catches a verdict that is no word, printed as one."""
    add(monkeypatch, "rule", rule)
    folder = build(tmp_path / "made", ["a", "b"], claims=[CLAIM], tables=["scores"])
    found = said(folder, tmp_path, "tables", write_table)
    assert (
        "bench/experiments/scores/show.py: judge_mine: " in found
        and words in found
        and "\n" not in found
    )


def _fid(view):
    return f"fid_{view.results.extractor}"


CHANGES = {
    "selected rows": lambda view: view.select("a", _fid(view)).__setitem__("value", 0.0),
    "final values": lambda view: view.of("a", _fid(view)).__imul__(100),
    "rows of a metric": lambda view: view.results.rows_of(_fid(view)).__setitem__("value", 0.0),
    "all rows": lambda view: view.results.metrics.__setitem__("value", 0.0),
    "all runs": lambda view: view.results.runs.__setitem__("status", "oom"),
    "variants": lambda view: view.variants.pop("b"),
    "settings": lambda view: view.variants["a"].__setitem__("tokenizer", "other-1"),
    "settings of any": lambda view: [one.clear() for one in view.variants.values()],
    "the suite": lambda view: view.about["train_seeds"].clear(),
    "any suite": lambda view: [
        x["train_seeds"].clear() for x in view.results.about["suites"].values()
    ],
    "a claim": lambda view: view.about["claims"][0].__setitem__("against", "a"),
    "the extractors": lambda view: view.results.about["features"].clear(),
}


@pytest.mark.parametrize("what", ["tables", "figures", "rule"])
@pytest.mark.parametrize("case", CHANGES)
def test_what_one_function_changes_no_other_one_reads(monkeypatch, tmp_path, case, what):
    """Catches a table, figure or rule that works in place on results, and so changes the numbers
    of the tables and claims behind it with status 0."""
    claim = {**CLAIM, "rule": "value"}
    rules = {"claims": [{**CLAIM, "text": "u"}, claim] if what == "rule" else [claim]}
    asked = {} if what == "rule" else {what: ["mine"]}

    def careful(view, *claims):
        return ("yes", "why") if claims else (pd.DataFrame({"a": [1]}), "words")

    def careless(view, *claims):
        CHANGES[case](view)
        return careful(view, *claims)

    tables = {}
    for function in (careful, careless):
        add(monkeypatch, what, function)
        target = tmp_path / function.__name__
        folder = build(target / "made", ["a", "b"], **rules, **{"tables": []} | asked)
        results = Results.load(folder)
        view = View(results, "s")
        if what == "rule":
            judged(view, view.about["claims"][0])
        else:
            rooms.function_of(what, "mine")(view.lent)
        tables[function] = (
            judged(view, view.about["claims"][-1]),
            str(rooms.function_of("tables", "scores")(view)[0]),
        )
    assert tables[careful] == tables[careless]


def test_images_of_results_are_read_only(tmp_path):
    """Catches a figure that changes the images that the next one shows."""
    results = Results.load(build(tmp_path, ["a"]))
    results.known.update(rows=results.rows)
    for array in results.images.values():
        assert not array.flags.writeable
    with pytest.raises(TypeError):
        results.images["mine"] = 1
