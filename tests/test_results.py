"""The two tables: checked key, stable text, whole or not at all."""

import os

import pytest

from bench.runtime import rows as results


def row(**changes):
    return {
        "study": "s",
        "dataset": "d",
        "metric": "fid_x64",
        "value": 1.5,
        "unit": "score",
        "run_id": "evaluate/a",
        **changes,
    }


def test_round_trip_is_stable_and_sorted(tmp_path):
    """Catches an order or a number format that makes two equal results differ as files."""
    rows = [row(step=step, value=(step or 1) / 3) for step in (100, 20, None)]
    results.write_metrics(tmp_path / "a.csv", rows)
    results.write_metrics(tmp_path / "b.csv", rows[::-1])
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    read = results.read_rows(tmp_path / "a.csv", results.METRIC_COLUMNS)
    assert [r["step"] for r in read] == ["", "20", "100"]
    assert float(read[1]["value"]) == pytest.approx(20 / 3, rel=1e-9)


def test_one_identity_twice_is_refused(tmp_path):
    """Catches a number that silently shadows another."""
    with pytest.raises(ValueError, match="one identity"):
        results.write_metrics(tmp_path / "a.csv", [row(), row(value=2.0)])


def test_unknown_column_and_status(tmp_path):
    """Catches a misspelt column that would be dropped, and a status that nobody counts."""
    with pytest.raises(ValueError, match="extra"):
        results.write_metrics(tmp_path / "a.csv", [row(extra=1)])
    with pytest.raises(ValueError, match="done"):
        results.write_runs(tmp_path / "r.csv", [{"run_id": "a", "status": "done"}])


def test_missing_is_null_and_never_zero(tmp_path):
    """Catches a failed number that reads as 0."""
    results.write_metrics(
        tmp_path / "a.csv", [row(value=None), row(metric="other", value=float("nan"))]
    )
    assert [r["value"] for r in results.read_rows(tmp_path / "a.csv", results.METRIC_COLUMNS)] == [
        "",
        "",
    ]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """Catches a half-written table after a full disk."""
    path = tmp_path / "a.csv"
    results.write_metrics(path, [row()])
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        results.write_metrics(path, [row(value=3.0)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_columns_of_another_version(tmp_path):
    """Catches a published table of other columns that would be read askew."""
    (tmp_path / "a.csv").write_text("study,value\ns,1\n")
    with pytest.raises(ValueError, match="columns"):
        results.read_rows(tmp_path / "a.csv", results.METRIC_COLUMNS)
