"""Verb: gather the rows of many jobs into metrics.csv and runs.csv, and the pictures that the figures show into images.npz.

    python -m bench.collect PLAN.json OUT

PLAN.json names the study, the scope and the folders. A run that did not end well is a row with its status.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from . import provenance
from .config import config_hash
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


def pictures(folders: dict[str, Path]) -> dict[str, np.ndarray]:
    """The first pictures of each sample run and its strip, and the strips of zero-shot runs, by run_id."""
    found: dict[str, np.ndarray] = {}
    for run_id, folder in folders.items():
        stage = run_id.split("/")[0]
        if stage == "sample" and (folder / "images.npy").is_file() and (folder / "strip.npy").is_file():
            images = np.load(folder / "images.npy", mmap_mode="r")
            found[f"{run_id}/images"] = np.array(images[-1, :GRID])
            found[f"{run_id}/strip"] = np.load(folder / "strip.npy")
        if stage == "zero_shot" and (folder / "strip.npz").is_file():
            with np.load(folder / "strip.npz") as strip:
                found |= {f"{run_id}/{name}": strip[name] for name in strip.files}
    return found


def real_pictures(folder: Path) -> dict[str, np.ndarray]:
    """Held-out pictures, one of each class in turn, as long as every class has one left: picture i is of class i mod classes."""
    test = open_split(folder, "test")
    classes = int(test.labels_N.max()) + 1
    order = [np.flatnonzero(test.labels_N == label) for label in range(classes)]
    there = takewhile(lambda i: i // classes < len(order[i % classes]), range(GRID))
    picks = [int(order[i % classes][i // classes]) for i in there]
    return {"real/images": test.read(picks).numpy()}


def collect(plan_path: Path, out: Path) -> None:
    """Write metrics.csv, runs.csv and images.npz of one scope."""
    plan = json.loads(plan_path.read_text(encoding="utf-8"))
    folders = {run_id: Path(folder) for run_id, folder in plan["folders"].items()}
    runs, metrics = [study_row(plan)], []
    for folder in folders.values():
        row, numbers = read_run(folder)
        runs.append(row)
        metrics += numbers
    arrays = pictures(folders)
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
