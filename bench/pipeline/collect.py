"""Verb: gather the rows of many jobs into metrics.csv and runs.csv, what the plan calls each
variant into variants.csv, and the images that the figures show into images.npz.

    python -m bench collect PLAN.json OUT

PLAN.json names the study, the scope and the folders. A run that did not end well is a row with its
status.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import provenance
from ..runtime.command import describe
from ..runtime.kept_files import FILES, check_files
from ..runtime.rows import (
    CONTENTS,
    INPUTS,
    METRIC_COLUMNS,
    RUN_COLUMNS,
    brief,
    content,
    read_object,
    read_rows,
    sum_of_row,
    write_metrics,
    write_runs,
)
from ..runtime.study_row import check_sides, check_study, check_variant
from ..runtime.variants_file import NAME, write_variants
from ..study.errors import ConfigError
from ..study.file_sums import sum_of_file
from ..study.names import config_hash
from ..study.settings import EvaluationConfig
from .artefacts import DAMAGED, open_split, save_npz
from .labels import asked_array, first_sample, in_turn

GRID = 40
# what figures show of a job; samples are as many as an evaluation asks for, and their strip tells
SHOWN = ("labels.npy", "strip.npy", "strip.npz", "data.json", "test_images.npy", "test_labels.npy")


PLAN_KEYS = (
    "study",
    "scope",
    "reduced",
    "suites",
    "evaluation",
    "features",
    "dataset",
    "train_seeds",
    "tokenizer_seed",
)


def read_run(
    folder: Path, run_id: str, study: str
) -> tuple[dict[str, Any], list[dict[str, str]], Any]:
    """The status row and the metrics of one job, and what it says of its files. Raises ValueError
    for damaged files, for metrics that are not those which the job wrote, and for files of another
    job than the plan's run_id and study."""
    row, numbers = (
        read_object(folder / "row.json"),
        read_rows(folder / "metrics.csv", METRIC_COLUMNS),
    )
    again = f"delete {folder} and run again"
    written = row.pop(CONTENTS, None)
    row.pop(INPUTS, None)
    files = row.pop(FILES, None)
    if unknown := row.keys() ^ set(RUN_COLUMNS):
        raise ValueError(f"{folder / 'row.json'}: {sorted(unknown)}: missing or unknown; {again}")
    # jobs of older versions do not say what they wrote
    if written is not None and written != {"metrics.csv": content(numbers)}:
        raise ValueError(
            f"{folder / 'metrics.csv'}: holds other cells than the job wrote, by its row.json; "
            f"{again}"
        )
    if row["run_id"] != run_id:
        raise ValueError(
            f"{folder / 'row.json'}: run_id {brief(row['run_id'])} is another job's than {run_id}; "
            f"{again}"
        )
    # the name of a job ends with the hash of its config
    planned = run_id.split("/")[-1].split("-")[-1]
    if row["config_hash"] != planned:
        where = f"{folder / 'row.json'}: config_hash {brief(row['config_hash'])}"
        raise ValueError(f"{where} is left over from another plan than {run_id}; {again}")
    for number in numbers:
        if (number["run_id"], number["study"]) != (run_id, study):
            where = (
                f"{folder / 'metrics.csv'}: {number['metric']} is of run "
                f"{brief(number['run_id'])}, study {brief(number['study'])}"
            )
            raise ValueError(f"{where}, not of {run_id}, {study}; {again}")
    return row, numbers, files


def read_plan(path: Path) -> dict[str, Any]:
    """What is to be gathered. Raises ValueError for a damaged plan, or one of another version."""
    plan = read_object(path)
    folders = plan.get("folders")
    if missing := sorted({*PLAN_KEYS, "folders"} - plan.keys()):
        raise ValueError(
            f"{path}: {missing} missing; written by another version, delete it and run again"
        )
    if not isinstance(folders, dict) or not all(
        isinstance(folder, str) for folder in folders.values()
    ):
        raise ValueError(
            f"{path}: folders: {brief(folders)} is no folder for each run; "
            "delete the file and run again"
        )
    return plan


def check_inputs(folders: dict[str, Path]) -> None:
    """Raises ValueError for a job that read another run of a job than lies there now, as where
    results of two machines were put together: its numbers are not those of what stands beside
    them. Jobs of older versions do not say what they read."""
    sums = {run_id: sum_of_row(folder) for run_id, folder in folders.items()}
    for run_id, folder in folders.items():
        read = read_object(folder / "row.json").get(INPUTS, {})
        known = read.items() if isinstance(read, dict) else ()
        other = [name for name, before in known if sums.get(name, before) != before]
        if other:
            raise ValueError(
                f"{folder / 'row.json'}: {run_id} read another run of {other[0]} than lies in "
                f"{folders[other[0]]}; delete {folder} and run again"
            )


def _about(plan: dict[str, Any]) -> dict[str, Any]:
    """The settings of a study and its suites, without the variants,
    which have a table of their own."""
    about = {key: plan[key] for key in PLAN_KEYS}
    suites = {}
    for name, suite in plan["suites"].items():
        suites[name] = {key: value for key, value in suite.items() if key != "variants"}
    return {**about, "suites": suites}


def _check_settings(plan: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """The variants of every suite. Raises ValueError for settings that no figure could read."""
    check_study({key: plan[key] for key in PLAN_KEYS}, where)
    variants = {}
    for suite, about in plan["suites"].items():
        variants[suite] = about.get("variants") or {}
        for variant, names in variants[suite].items():
            check_variant(names, f"{where}: suites.{suite}.variants.{variant}")
    check_sides(plan, variants, where)
    return variants


def study_row(
    plan: dict[str, Any], contents: dict[str, dict[str, Any]], images: str
) -> dict[str, Any]:
    """A row for the study itself: its settings, but for those of the variants, what the tables
    beside it hold, and the sum of images.npz."""
    about = _about(plan)
    commit, dirty = provenance.git_state()
    return {
        "run_id": f"study/{plan['study']}",
        "stage": "study",
        "status": "ok",
        "config_hash": config_hash(about),
        "source_hash": provenance.source_of_program("collect"),
        "commit": commit,
        "dirty": dirty,
        "torch": provenance.torch_version(),
        "host_class": provenance.host_class(),
        "config_json": json.dumps({**about, "contents": contents, "images_sha256": images}),
    }


def study_labels(
    plan: dict[str, Any], folders: dict[str, Path], train_seed: int
) -> np.ndarray | None:
    """The label of each sample of a training seed; None where the plan has no prepared images."""
    data = next(
        (folder for run_id, folder in folders.items() if run_id.startswith("prepare/")), None
    )
    if data is None:
        return None
    evaluation = EvaluationConfig.model_validate_json(json.dumps(plan["evaluation"]))
    first = first_sample(evaluation, train_seed)
    seeds = range(first, first + evaluation.num_images)
    return asked_array(data, plan["dataset"]["num_classes"], seeds, evaluation.labels)


def check_images(folder: Path, row: dict[str, Any]) -> None:
    """Raises ValueError for a job that ended well whose images are lost, as by a copy that broke
    off: figures would show those of another training."""
    if row["status"] != "ok" or not row["run_id"].startswith("sample/"):
        return
    for name in ("images.npy", "labels.npy", "strip.npy"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: no such file; delete {folder} and run again")


def sample_images(
    folders: dict[str, Path], labels_N: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Some images of each sample run with their labels, and its strip,
    and what other runs keep in strip.npz, by run_id.

    One image of each class in turn. labels_N: the study's label of each sample; None: those of the
    run. An image of an unconditional variant stands where that of a conditional one with the same
    seed stands.
    """
    arrays: dict[str, np.ndarray] = {}
    for run_id, folder in folders.items():
        stage = run_id.split("/")[0]
        if (
            stage == "sample"
            and (folder / "images.npy").is_file()
            and (folder / "strip.npy").is_file()
        ):
            images = np.load(folder / "images.npy", mmap_mode="r")
            asked_N = np.load(folder / "labels.npy") if labels_N is None else labels_N
            picks = in_turn(asked_N, GRID)
            arrays[f"{run_id}/images"] = np.array(images[-1, picks])
            arrays[f"{run_id}/labels"] = asked_N[picks]
            arrays[f"{run_id}/strip"] = np.load(folder / "strip.npy")
        if (folder / "strip.npz").is_file():
            with np.load(folder / "strip.npz") as strip:
                arrays |= {f"{run_id}/{name}": strip[name] for name in strip.files}
    return arrays


def real_images(folder: Path) -> dict[str, np.ndarray]:
    """Held-out images with their labels, one of each class in turn;
    the names of the classes where they are known."""
    test = open_split(folder, "test")
    picks = in_turn(test.labels_N, GRID)
    arrays = {
        "real/images": test.array(picks.tolist()),
        "real/labels": np.asarray(test.labels_N)[picks],
    }
    about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    if names := about.get("classes"):
        arrays["real/classes"] = np.array(names, dtype=np.str_)
    return arrays


def opened(read: Callable[[], dict[str, np.ndarray]], folder: Path) -> dict[str, np.ndarray]:
    """What a function reads of a job's folder. Raises ValueError with the folder for files that are
    damaged."""
    try:
        return read()
    except ConfigError as error:  # of the images themselves, with its remedy
        raise ConfigError(f"{folder}: {error}") from None
    except (*DAMAGED, IndexError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{folder}: images cannot be read ({why}); delete the folder and run again"
        ) from None


def collect(plan_path: Path, out: Path) -> None:
    """Write metrics.csv, runs.csv, variants.csv and images.npz of one scope."""
    plan = read_plan(plan_path)
    variants = _check_settings(plan, str(plan_path))
    folders = {run_id: Path(folder) for run_id, folder in plan["folders"].items()}
    runs, metrics, written = [], [], {}
    for run_id, folder in folders.items():
        row, numbers, written[run_id] = read_run(folder, run_id, plan["study"])
        runs.append(row)
        metrics += numbers
    check_inputs(folders)
    arrays: dict[str, np.ndarray] = {}
    labels: dict[int, np.ndarray | None] = {}
    for row in runs:
        run_id, seed = row["run_id"], json.loads(row["config_json"] or "{}").get("train_seed", 0)
        check_images(folders[run_id], row)
        check_files(folders[run_id], written[run_id], SHOWN.__contains__)
        if run_id.startswith("sample/") and seed not in labels:
            labels[seed] = study_labels(plan, folders, seed)
        arrays |= opened(
            partial(sample_images, {run_id: folders[run_id]}, labels.get(seed)), folders[run_id]
        )
    for run_id, folder in folders.items():
        if run_id.startswith("prepare/"):
            arrays |= opened(partial(real_images, folder), folder)
    contents = {
        "metrics.csv": write_metrics(out / "metrics.csv", metrics),
        NAME: write_variants(out / NAME, variants),
    }
    save_npz(out / "images.npz", **arrays)
    images = sum_of_file(out / "images.npz")
    write_runs(out / "runs.csv", [study_row(plan, contents, images), *runs])
    bad = [row for row in runs if row["status"] not in ("ok", "skipped")]
    for row in bad:
        print(f"[collect] {row['run_id']} {row['status']}: {row['reason']}", file=sys.stderr)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench collect")
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(argv)
    try:
        collect(options.plan, options.out)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {describe(error)}")
