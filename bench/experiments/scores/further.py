"""Scores that no column of table scores is made for, as of a metric of one's own."""

from __future__ import annotations

from ...report.reading import AXES
from ...report.view import View


def further_scores(view: View, known: set[str]) -> dict[str, str]:
    """Every other score of the evaluations of a suite, by the title of its column: its name, with
    the unit in brackets."""
    results = view.results
    evaluations = results.runs.loc[results.runs["stage"] == "evaluate", "run_id"]
    of_suite = set(evaluations) & set(view.runs)
    rows = results.metrics[results.metrics["run_id"].isin(of_suite)]
    rows = rows[rows[AXES].isna().all(axis=1) & ~rows["metric"].isin(known)]
    units = rows.drop_duplicates("metric").sort_values("metric").set_index("metric")["unit"]
    return {f"{metric} ({unit})": metric for metric, unit in units.items()}
