"""Captions that say in what runs differ beside their settings: code, torch, machines."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from bench.report import making
from bench.report.origins import origins_details
from bench.report.view import View
from bench.runtime.rows import RUN_COLUMNS


def run(name, seed=0, **told):
    """A row of runs.csv of a training of one variant and seed."""
    row = dict.fromkeys(RUN_COLUMNS) | {
        "run_id": f"train/{name}-s{seed}",
        "stage": "train",
        "status": "ok",
        "source_hash": "aaa",
        "commit": "1" * 40,
        "torch": "2.13.0",
        "device": "cpu, 2 threads",
        "host_class": "Linux, 2 cores",
        "config_json": json.dumps({"model": name, "train_seed": seed}),
    }
    return row | told


def said(*rows, suite=None):
    """What captions of a suite of these runs say; of all runs where the suite is not told."""
    frame = pd.DataFrame(rows)
    results = SimpleNamespace(runs=frame, once=lambda _, make: make())
    runs = frozenset(suite or frame["run_id"])
    view = SimpleNamespace(results=results, runs=runs, suite="main")
    return [words for words in origins_details(view) if words]


def test_runs_that_share_everything_are_not_spoken_of():
    """Catches a line under every table that says nothing."""
    assert said(run("VAR"), run("SDD"), run("VAR", 1)) == []


def test_a_variant_with_a_function_of_its_own_is_the_same_state_of_the_code():
    """Catches an alarm where hashes differ since settings use other parts of one commit; also where
    a later commit changed nothing that a job runs."""
    assert said(run("VAR"), run("SDD", source_hash="bbb")) == []
    later = run("VAR", 1, commit="2" * 40), run("SDD", 1, source_hash="bbb", commit="2" * 40)
    assert said(run("VAR"), run("SDD", source_hash="bbb"), *later) == []


def test_trainings_of_two_commits_are_counted():
    """Catches a comparison of variants that were trained by different code."""
    other = run("SDD", source_hash="bbb", commit="2" * 40)
    assert said(run("VAR"), run("VAR", 1), other) == [
        "Runs of several states of the code: train (2 of 1111111, 1 of 2222222)."
    ]


@pytest.mark.parametrize("commit", [None, "1" * 40])
def test_seeds_of_one_variant_with_two_hashes_are_two_states(commit):
    """Catches code that was edited between two seeds and never committed, and a folder that no git
    knows."""
    words = said(run("VAR", commit=commit), run("VAR", 1, commit=commit, source_hash="bbb"))
    name = "1111111" if commit else "a commit that nobody noted"
    assert words == [f"Runs of several states of the code: train (1 of {name}, 1 of {name})."]


def test_releases_of_torch_and_machines_are_counted():
    """Catches scores of two machines, or of two releases, that read as if of one."""
    words = said(run("VAR"), run("SDD", torch="2.11.0", device="cuda, NVIDIA H100"))
    assert words == [
        "Runs under several releases of torch: train (1 of 2.11.0, 1 of 2.13.0).",
        "Runs on several kinds of machine: train (1 of cpu, 2 threads; Linux, 2 cores, "
        "1 of cuda, NVIDIA H100; Linux, 2 cores).",
    ]


def test_runs_of_other_suites_are_left_out():
    """Catches a suite that is told of runs that no number of it comes from."""
    runs = run("VAR"), run("SDD"), run("AR", torch="2.11.0")
    assert said(*runs, suite={"train/VAR-s0", "train/SDD-s0"}) == []
    assert len(said(*runs)) == 1


def test_every_table_and_figure_says_it(monkeypatch, tmp_path):
    """Catches a caption that a function writes without it."""
    rows = pd.DataFrame([run("VAR"), run("SDD", torch="2.11.0")])
    results = SimpleNamespace(
        runs=rows, runs_of={"main": frozenset(rows["run_id"])}, about={}, images={}
    )
    results.lent, results.once = results, lambda _, make: make()
    monkeypatch.setattr(making.rooms, "place_of_function", lambda *_: "show.py: table_x")
    monkeypatch.setattr(
        making.rooms, "function_of", lambda *_: lambda view: (pd.DataFrame({"a": [1]}), "Text.")
    )
    captions = []
    making._make(
        "tables", tmp_path, "x", View(results, "main"), lambda *told: captions.append(told[2])
    )
    assert captions[0].text == "Text."
    assert "several releases of torch" in " ".join(captions[0].details)
