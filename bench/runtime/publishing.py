"""Results that are kept: only what the study names, whole or not at all.

Needs nothing but Python.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ROWS = ("metrics.csv", "runs.csv", "variants.csv", "images.npz")


def outputs(folder: Path, what: str) -> list[str]:
    """Names of the figures or tables of the study as it is now; what an older file of it asked for
    may lie beside them."""
    return [
        f"{suite}_{name}"
        for suite, about in _plan(folder)["suites"].items()
        for name in about[what]
    ]


def runs_of(folder: Path) -> list[dict[str, str]]:
    """The rows of runs.csv."""
    csv.field_size_limit(2**31 - 1)
    with open(folder / "runs.csv", encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def shown(path: Path) -> Path:
    """A path as it is found from where the user is."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def to_publish(folder: Path) -> list[str]:
    """The files of the study as it is now.

    Raises ValueError where one is missing, or where a run has no row.
    """
    files = list(ROWS)
    for what, endings in (("tables", ("csv", "md", "rst")), ("figures", ("png", "svg", "rst"))):
        files += [f"{what}/{name}.{ending}" for name in outputs(folder, what) for ending in endings]
    for name in files:
        if not (folder / name).is_file():
            raise ValueError(
                f"{shown(folder / name)}: is not there, nothing was published; run `./run "
                "reproduce` first"
            )
    suites = _plan(folder)["suites"]
    there = {row["run_id"] for row in runs_of(folder)}
    for run_id in (run_id for about in suites.values() for run_id in about["runs"]):
        if run_id not in there:
            raise ValueError(
                f"{shown(folder / 'runs.csv')}: has no row of {run_id}, nothing was published; "
                "delete it, run again"
            )
    return files


def refuse_loss(target: Path, files: list[str]) -> None:
    """Raises ValueError where tables or figures of suites were published that would not be there
    any more: a suite may have figures alone."""
    patterns = ("tables/*.csv", "figures/*.png")
    old = {path.stem for pattern in patterns for path in target.glob(pattern)}
    lost = sorted(old - {Path(name).stem for name in files})
    if lost:
        raise ValueError(
            f"{shown(target)}: holds {', '.join(lost)}, which would be lost, nothing was "
            f"published; name their suites too, `--also=SUITE,SUITE`, or delete {shown(target)}"
        )


def mend(target: Path) -> None:
    """Bring back what was published when a publishing was killed between its two renames."""
    target = target.resolve()
    old = _old(target)
    if old.is_dir() and not target.exists():
        os.rename(old, target)


def copy_whole(folder: Path, files: list[str], target: Path) -> None:
    """Copy files into a folder, whole or not at all: all to a new one, which then takes the place
    of the old one.

    What else lies in the old one, such as somebody's notes, stays. A link stays too: what it leads
    to is replaced. Raises OSError, and then the old one is as it was.
    """
    target = target.resolve()
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        for name in files:
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / name, fresh / name)
        if target.is_dir():
            for other in target.iterdir():
                if other.name not in {*ROWS, "tables", "figures"}:
                    (shutil.copytree if other.is_dir() else shutil.copy2)(other, fresh / other.name)
            shutil.rmtree(_old(target), ignore_errors=True)
            os.rename(target, _old(target))
        os.rename(fresh, target)
        shutil.rmtree(_old(target), ignore_errors=True)
    finally:
        mend(target)  # where the second renaming failed, or was stopped
        shutil.rmtree(fresh, ignore_errors=True)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _plan(folder: Path) -> dict:
    return json.loads((folder / "plan.json").read_text(encoding="utf-8"))
