"""Study files that nobody would write by intention: whatever stands in one, it is a plan or one line, and quickly."""

import copy
import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config import ConfigError, Plan, load_study
from bench.study_file import read_yaml

ROOT = Path(__file__).resolve().parent.parent
SMOKE = (ROOT / "tests" / "studies" / "smoke.yaml").read_text(encoding="utf-8")
DATA = yaml.safe_load(SMOKE.replace("3e-3", "3.0e-3"))
ODD = [
    None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e300, float("nan"), float("inf"), 10**30, -(10**30), 2**31, 1e3, 0.1, 1.0, "", " ", "a", "1", "1e3",
    "var", "VAR", "fid", "FID", "scores", "sweep", "é", "汉字", "a/b", "..", "a\nb", "\u2028", "\x00", "{x}", "x" * 300, "null", [], [[]], [None],
    [1, 2, 4], [4, 2, 1], [True], [0.5], [10**9], {}, {"a": 1}, {"base": "var"}, {1: 2}, {"": 1}, {"a\nb": 1}, datetime.date(2024, 1, 2), b"\xff\x00",
]  # fmt: skip


def places(node, at=()):
    """Every place of a nested study, the root apart."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, part in items:
        yield (*at, key)
        yield from places(part, (*at, key))


PLACES = list(places(DATA))
values = st.one_of(
    st.sampled_from(ODD),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.recursive(
        st.sampled_from(ODD[:40]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
        max_leaves=8,
    ),
)
KEYS = ["delta", "grid", "distill", "weights", "claims", "published", "sweep", "metric", "rule", "better", "mask", "history", "patience", "measure"]


@st.composite
def mutated(draw):
    """The smoke study with one to three places replaced, removed, or given a key more."""
    data = copy.deepcopy(DATA)
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(PLACES))
        node = data
        try:
            for part in parents:
                node = node[part]
            how = draw(st.sampled_from(["replace", "replace", "remove", "add", "swap"]))
            if how == "remove":
                del node[last]
            elif how == "add":
                node[last][draw(st.sampled_from(KEYS) | st.text(max_size=6))] = draw(values)
            elif how == "swap":
                other = DATA
                for part in draw(st.sampled_from(PLACES)):
                    other = other[part]
                node[last] = copy.deepcopy(other)
            else:
                node[last] = draw(values)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return data


def is_plan_or_line(path):
    """Load a study; what is wrong must be one line that names the file."""
    try:
        assert isinstance(load_study(path), Plan)
    except ConfigError as error:
        text = str(error)
        assert text.startswith(f"{path}: ") and len(text) < 2000
        assert text.isprintable(), repr(text)
        return text
    return None


@settings(max_examples=150)
@given(data=mutated())
def test_mutated_studies_are_a_plan_or_one_line(data, tmp_path_factory):
    """Catches a traceback, or two lines, for a study with values of another kind, size or place, with keys too few or too many."""
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(yaml.dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    is_plan_or_line(path)


@settings(max_examples=150)
@given(st.data())
def test_mutated_text_is_a_plan_or_one_line(data):
    """Catches a traceback for a file whose YAML is damaged: characters lost, repeated, replaced, tabs, anchors, tags."""
    text = SMOKE
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.sampled_from([
            "", "\t", "\n", "- ", ": ", "? ", "&a ", "*a", "!!set ", "!!binary ", "!!python/name:os.system ", "!!timestamp ", "!!int ", "<<: ", "|", ">", "'", '"',
            "{", "}", "[", "]", "#", "%", "@", "`", "\x07", "\ufeff", "---\n", "...\n", "2024-13-45", "0x", "1:30", "~", "=", "!!map ", "!!omap ", "9" * 5000,
        ]))  # fmt: skip
        text = text[:at] + piece + text[at + data.draw(st.sampled_from([0, 0, 1, 3, 30])) :]
    path = Path(os.environ.get("PYTEST_TMP", "/tmp")) / f"text-{os.getpid()}.yaml"
    try:
        path.write_text(text, encoding="utf-8")
        is_plan_or_line(path)
    finally:
        path.unlink(missing_ok=True)
