"""Results of a study beside others of it: what is the same, what turned, what cannot be
compared."""

import csv
import sys

import pandas as pd
import pytest
from small_study import build

from bench.report import compare
from bench.report.results import Results

CLAIM = {
    "text": "b scores a lower FID than a.", "origin": "paper", "rule": "score", "variant": "b",
    "against": "a", "metric": "fid", "better": "lower",
}  # fmt: skip


def changed(folder, change):
    """The numbers of a folder, each row put through a function."""
    path = folder / "metrics.csv"
    rows = list(csv.DictReader(path.open()))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(map(change, rows))
    return folder


def scaled(row):
    """FID of b far below that of a, no two seeds alike."""
    if row["metric"] == "fid_x8" and row["run_id"].startswith("sample/v1"):
        return {**row, "value": str(float(row["value"]) / 2 + 0.1 * int(row["train_seed"]) ** 2)}
    return row


def folders(tmp_path, names=("a", "b")):
    return [build(tmp_path / side, list(names), [CLAIM]) for side in ("mine", "others")]


def said(mine, others, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare", str(mine), str(others)])
    compare.main()
    return capsys.readouterr().out


def test_the_same_results_are_called_the_same(tmp_path, monkeypatch, capsys):
    """Catches a difference between numbers that are equal, and a reason where nothing is to be
    explained."""
    mine, others = folders(tmp_path)
    out = said(mine, others, monkeypatch, capsys)
    assert f"Beside {others}:" in out and "Verdicts: 1 of 1 are the same." in out
    assert "2 variants, all equal." in out
    assert compare.ELSEWHERE not in out and "Other settings" not in out
    table = pd.read_csv(mine / "compared.csv")
    assert [*table["variant"]] == ["a", "b"]
    assert not table[["difference", "low", "high"]].to_numpy().any()
    assert not (others / "compared.csv").exists()


def test_a_verdict_that_turns_and_a_number_that_moves_are_named(tmp_path, monkeypatch, capsys):
    """Catches a reproduction that found otherwise and does not say so, and sides turned round."""
    mine, others = folders(tmp_path)
    changed(mine, scaled)
    out = said(mine, others, monkeypatch, capsys)
    assert "Verdicts: 0 of 1 are the same." in out
    assert "b scores a lower FID than a (s): yes here, no there." in out
    assert "excludes 0 for 1" in out and compare.ELSEWHERE in out
    table = pd.read_csv(mine / "compared.csv").set_index("variant")
    assert table.loc["a", "difference"] == 0 and table.loc["b", "high"] < 0
    moved = table.loc["b", "mine"] - table.loc["b", "others"]
    assert table.loc["b", "difference"] == pytest.approx(moved)


def test_one_training_has_no_interval_and_equal_ones_decide_nothing(tmp_path):
    """Catches trainings that chance is said to move, of which there is one of each."""
    rows = [
        {"suite": "s", "variant": name, "difference": 0.1, "mine": 1.1, "others": 1.0,
         "low": low, "high": low}
        for name, low in (("a", None), ("b", None), ("c", 0.1))
    ]  # fmt: skip
    assert "2 variants. One training seed, no interval. Largest" in compare._fid_words(rows[:2])
    assert "excludes 0 for 0; chance alone gives about 0." in compare._fid_words(rows)


def test_a_claim_of_an_older_version_is_compared(tmp_path):
    """Catches a reproduction that compares no verdict because claims have got one more setting,
    which none of them gives."""
    mine = build(tmp_path / "mine", ["a", "b"], [{**CLAIM, "margin": None, "of_later": None}])
    others = build(tmp_path / "others", ["a", "b"], [CLAIM])
    found = compare.compared(Results.load(mine), Results.load(others))
    assert found.claims == 1 and not found.turned and not found.only_mine


def test_other_settings_are_not_compared(tmp_path, monkeypatch, capsys):
    """Catches a changed setting that is taken for a reproduction that failed, or that held."""
    mine, others = folders(tmp_path)
    for name in ("metrics.csv", "runs.csv", "variants.csv"):
        path = others / name
        path.write_text(path.read_text().replace("sample/v1-2", "sample/w1-2"))
    out = said(mine, others, monkeypatch, capsys)
    assert "Other settings there, not compared: b (s)." in out and ": 1 variants, all equal." in out
    assert [*pd.read_csv(mine / "compared.csv")["variant"]] == ["a"]


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_variant_that_one_side_has_not_scored_is_named(tmp_path, where):
    """Catches a variant whose trainings all diverged, which is left out without a word or said to
    have other settings."""
    both = folders(tmp_path)
    path = both[where == "here"] / "metrics.csv"
    rows = [line for line in path.open() if not (",fid_x8," in line and "sample/v1-" in line)]
    path.write_text("".join(rows))
    found = compare.compared(*map(Results.load, both))
    assert [row["variant"] for row in found.rows] == ["a"] and not found.other_settings
    assert f"one side alone, not compared: b (s), {where}." in " ".join(compare.words_of(found))


@pytest.mark.parametrize(
    "there, words",
    [
        (
            {"features": {"kind": "trained", "name": "y8", "dim": 8}},
            "features.name x8 here, y8 there",
        ),
        (
            {"dataset": {"name": "photos", "image_size": 32, "num_classes": 3}},
            "dataset.name d here, photos there",
        ),
        ({"evaluation": {"num_images": 77, "first_seed": 0}}, "evaluation.num_images 200 here, 77"),
    ],
)
def test_another_study_is_called_one(tmp_path, monkeypatch, capsys, there, words):
    """Catches verdicts on other images, or by another extractor, that rounding is to explain, and
    variants that both scored and are said to be scored on one side alone."""
    mine = build(tmp_path / "mine", ["a", "b"], [CLAIM])
    others = changed(build(tmp_path / "others", ["a", "b"], [CLAIM], **there), scaled)
    out = said(mine, others, monkeypatch, capsys)
    assert "Not the same study: " in out and words in out
    assert compare.ELSEWHERE not in out
    assert "features" not in there or "Scored on one side" not in out


def test_what_one_side_lacks_is_left_out(tmp_path):
    """Catches a variant, a claim or a suite of one's own that stops the comparison."""
    mine = build(tmp_path / "mine", ["a", "b", "c"], [CLAIM, {**CLAIM, "text": "mine"}])
    others = build(tmp_path / "others", ["a", "b"], [{**CLAIM, "better": "higher"}])
    found = compare.compared(Results.load(mine), Results.load(others))
    assert [row["variant"] for row in found.rows] == ["a", "b"] and found.claims == 0
    assert found.only_mine == 2 and "not compared: 2." in compare.words_of(found)[1]
    assert found.turned == [] and found.other_settings == []


def test_numbers_that_suites_share_are_counted_once(tmp_path):
    """Catches one training that moved and stands for many."""
    both = [Results.load(folder) for folder in folders(tmp_path)]
    for results in both:
        results.about["suites"]["t"] = results.about["suites"]["s"]
        results.variants_of["t"] = results.variants_of["s"]
    assert [row["suite"] for row in compare.compared(*both).rows] == ["s", "s"]


def test_a_folder_without_results_gets_one_line(tmp_path, monkeypatch):
    mine, _ = folders(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare", str(mine), str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stopped:
        compare.main()
    assert str(stopped.value).startswith("error: ") and "nowhere" in str(stopped.value)


def test_fewer_training_seeds_are_said(tmp_path, monkeypatch, capsys):
    """Catches a reproduction that lost a training, and is called equal."""
    mine, others = folders(tmp_path)
    path = mine / "metrics.csv"
    rows = [line for line in path.open() if not (",fid_x8," in line and "sample/v1-2" in line)]
    path.write_text("".join(rows))
    out = said(mine, others, monkeypatch, capsys)
    claim = "b scores a lower FID than a (s): training seeds 0 1 here, training seeds 0 1 2 there."
    assert claim in out and "FID of b (s): training seeds 0 1 here, 0 1 2 there." in out
    assert "FID of a" not in out
    again = said(others, others, monkeypatch, capsys)
    assert "training seeds" not in again
