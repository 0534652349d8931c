"""The tables of a results folder as they are read: the study's row, what must agree, numbers.

Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ..runtime.rows import METRIC_COLUMNS, RUN_COLUMNS, brief, content
from ..runtime.study_row import Record

NUMBERS = (
    "train_seed",
    "seed_first",
    "seed_last",
    "num_images",
    "scale",
    "step",
    "repeat",
    "value",
)
TABLES = {"metrics.csv": METRIC_COLUMNS, "runs.csv": RUN_COLUMNS}
# stages that end with a score, whatever is asked of them
SCORING = ("evaluate", "baselines", "sweep")
# along which a training may have several numbers of a metric
AXES = ["scale", "step", "repeat"]
# rows of a metric and a variant that agree in these are one number
ONE_NUMBER = ["train_seed", "sampler", "seed_first", "seed_last", *AXES]


def study_row(path: Path, runs: list[dict[str, str]]) -> Record:
    """The settings of the study that these runs belong to. Raises ValueError where none or several
    stand."""
    rows = [row for row in runs if row["stage"] == "study"]
    if len(rows) != 1:
        raise ValueError(f"{path}: holds {len(rows)} rows of stage 'study', not one; collect again")
    try:
        return json.loads(rows[0]["config_json"] or "{}", object_hook=Record)
    except ValueError as error:
        raise ValueError(
            f"{path}: {rows[0]['run_id']}: config_json: not readable as JSON ({error})"
        ) from None


def check_run_ids(folder: Path, metrics: list[dict[str, str]], runs: list[dict[str, str]]) -> None:
    """Raises ValueError for a number of a run that is not there."""
    run_ids = {row["run_id"] for row in runs}
    for row in metrics:
        if row["run_id"] not in run_ids:
            where = f"{folder / 'metrics.csv'}: {row['metric']} of run_id {brief(row['run_id'])}"
            raise ValueError(f"{where}: runs.csv has no such run; collect again")


def check_runs(path: Path, suites: dict[str, Any], run_ids: set[str]) -> None:
    """Raises ValueError where a suite lists a run that has no row: runs.csv was cut."""
    lost = [run_id for suite in suites.values() for run_id in suite["runs"]]
    lost = [run_id for run_id in dict.fromkeys(lost) if run_id not in run_ids]
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise ValueError(
            f"{path}: has no row of job {lost[0]}{more}, which the study lists; the file is cut or "
            "of another run: collect or publish again"
        )


def check_numbers(folder: Path, metrics: list[dict[str, str]], runs: list[dict[str, str]]) -> None:
    """Raises ValueError where a job that scored images has no number: a file cut at the end of a
    line looks whole."""
    counted = {row["run_id"] for row in metrics}
    lost = [
        row["run_id"]
        for row in runs
        if row["status"] == "ok" and row["stage"] in SCORING and row["run_id"] not in counted
    ]
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise ValueError(
            f"{folder / 'metrics.csv'}: holds no number of job {lost[0]}{more}, which runs.csv "
            "says ended; the file is cut or of another run: collect or publish again"
        )


def check_contents(
    folder: Path, about: dict[str, Any], tables: dict[str, list[dict[str, str]]]
) -> None:
    """Raises ValueError for a table that holds other cells than were collected: it was cut at the
    end of a line, or edited. Results of older versions do not say what was."""
    for name, rows in tables.items():
        collected, there = about.get("contents", {}).get(name), content(rows)
        if collected is None or collected == there:
            continue
        words = (
            "other cells than were collected"
            if collected["rows"] == there["rows"]
            else f"{there['rows']} rows where {collected['rows']} were collected"
        )
        raise ValueError(
            f"{folder / name}: holds {words}; the file was cut or changed: bring it back, or "
            "collect or publish again"
        )


def check_studies(folder: Path, metrics: list[dict[str, str]], study: str) -> None:
    """Raises ValueError for a number of another study."""
    for row in metrics:
        if row["study"] != study:
            where = f"{folder / 'metrics.csv'}: {row['metric']} of {row['run_id']}"
            raise ValueError(
                f"{where}: study {brief(row['study'])} beside {brief(study)}; collect again"
            )


def frame_of(
    rows: list[dict[str, str]], columns: list[str], numbers: Iterable[str]
) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=columns, dtype=object).replace("", None)
    for column in numbers:
        frame[column] = pd.to_numeric(frame[column])
    return frame


def within_training(rows: pd.DataFrame, about: dict[str, Any]) -> pd.DataFrame:
    """Rows with sample seeds counted from those of training seed 0: each training draws seeds of
    its own. Older results have the same for all."""
    if about.get("tokenizer_seed") is None:
        return rows
    begin = rows["train_seed"].fillna(0) * about["evaluation"]["num_images"]
    return rows.assign(**{key: rows[key] - begin for key in ("seed_first", "seed_last")})


def one_each(rows: pd.DataFrame, metric: str, variant: str) -> pd.DataFrame:
    """Rows of a metric of one variant, each number once: two suites' runs may report the same cost.
    Raises ValueError where one training seed has two values."""
    double = rows.duplicated(ONE_NUMBER, keep=False)
    if not double.any():
        return rows
    for _, part in rows[double].groupby(ONE_NUMBER, dropna=False):
        values = part["value"].dropna().unique()
        if len(values) > 1:
            runs = " and ".join(dict.fromkeys(part["run_id"]))
            shown = " and ".join(f"{value:g}" for value in values[:2])
            where = f"{metric} of {variant}, train_seed {part['train_seed'].iloc[0]:g}"
            raise ValueError(f"{where}: two values, {shown}, of {runs}; collect again")
    return (
        rows.sort_values("value", kind="stable", na_position="last")
        .drop_duplicates(ONE_NUMBER)
        .sort_index()
    )
