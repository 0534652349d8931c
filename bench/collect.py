"""Verb: gather the rows of many jobs into metrics.csv and runs.csv, and the pictures that the figures show into images.npz.

    python -m bench.collect PLAN.json OUT

PLAN.json names the study, the scope and the folders. A run that did not end well is a row with its status.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import provenance
from .config import EvaluationConfig, config_hash
from .labels import asked_labels, in_turn
from .prepare import open_split, save_npz
from .results import METRIC_COLUMNS, read_rows, write_metrics, write_runs
from .verb import describe

GRID = 40


def read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The status row and the metrics of one job."""
    return json.loads((folder / "row.json").read_text(encoding="utf-8")), read_rows(folder / "metrics.csv", METRIC_COLUMNS)


def study_row(plan: dict[str, Any]) -> dict[str, Any]:
    """A row for the study itself: its settings and which model, sampler and tokenizer each variant's name stands for."""
    about = {
        key: plan[key]
        for key in ("study", "scope", "reduced", "suites", "evaluation", "features", "dataset", "train_seeds", "latency")
    }
    commit, dirty = provenance.git_state()
    return {
        "run_id": f"study/{plan['study']}",
        "stage": "study",
        "status": "ok",
        "config_hash": config_hash(about),
        "source_hash": provenance.source_hash("bench.collect"),
        "commit": commit,
        "dirty": dirty,
        "torch": provenance.torch_version(),
        "host_class": provenance.host_class(),
        "config_json": json.dumps(about, sort_keys=False),
    }


def study_labels(plan: dict[str, Any], folders: dict[str, Path]) -> np.ndarray | None:
    """The label of each sample of the study, by its seed; None where the plan has no prepared images."""
    data = next((folder for run_id, folder in folders.items() if run_id.startswith("prepare/")), None)
    if data is None:
        return None
    evaluation = EvaluationConfig.model_validate_json(json.dumps(plan["evaluation"]))
    seeds = range(evaluation.first_seed, evaluation.first_seed + evaluation.num_images)
    return asked_labels(data, plan["dataset"]["num_classes"], seeds, evaluation.labels).numpy()


def pictures(folders: dict[str, Path], labels_N: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Some images of each sample run with their labels, and its strip, and the strips of zero-shot runs, by run_id.

    One image of each class in turn. labels_N: the study's label of each sample; None: those of the run. An image of an
    unconditional variant stands where that of a conditional one with the same seed stands.
    """
    found: dict[str, np.ndarray] = {}
    for run_id, folder in folders.items():
        stage = run_id.split("/")[0]
        if stage == "sample" and (folder / "images.npy").is_file() and (folder / "strip.npy").is_file():
            images = np.load(folder / "images.npy", mmap_mode="r")
            asked_N = np.load(folder / "labels.npy") if labels_N is None else labels_N
            picks = in_turn(asked_N, GRID)
            found[f"{run_id}/images"] = np.array(images[-1, picks])
            found[f"{run_id}/labels"] = asked_N[picks]
            found[f"{run_id}/strip"] = np.load(folder / "strip.npy")
        if stage == "zero_shot" and (folder / "strip.npz").is_file():
            with np.load(folder / "strip.npz") as strip:
                found |= {f"{run_id}/{name}": strip[name] for name in strip.files}
    return found


def real_pictures(folder: Path) -> dict[str, np.ndarray]:
    """Held-out images with their labels, one of each class in turn; the names of the classes where they are known."""
    test = open_split(folder, "test")
    picks = in_turn(test.labels_N, GRID)
    found = {"real/images": test.read(picks.tolist()).numpy(), "real/labels": np.asarray(test.labels_N)[picks]}
    about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    if names := about.get("classes"):
        found["real/classes"] = np.array(names, dtype=np.str_)
    return found


def collect(plan_path: Path, out: Path) -> None:
    """Write metrics.csv, runs.csv and images.npz of one scope."""
    plan = json.loads(plan_path.read_text(encoding="utf-8"))
    folders = {run_id: Path(folder) for run_id, folder in plan["folders"].items()}
    runs, metrics = [study_row(plan)], []
    for folder in folders.values():
        row, numbers = read_run(folder)
        runs.append(row)
        metrics += numbers
    arrays = pictures(folders, study_labels(plan, folders))
    for run_id, folder in folders.items():
        if run_id.startswith("prepare/"):
            arrays |= real_pictures(folder)
    write_metrics(out / "metrics.csv", metrics)
    write_runs(out / "runs.csv", runs)
    save_npz(out / "images.npz", **arrays)
    bad = [row for row in runs if row["status"] not in ("ok", "skipped")]
    for row in bad:
        print(f"[collect] {row['run_id']} {row['status']}: {row['reason']}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.collect")
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    try:
        collect(options.plan, options.out)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {describe(error)}")


if __name__ == "__main__":
    main()
