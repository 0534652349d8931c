"""The results of a folder as figures and tables ask for them: rows by suite, variant and metric, and why a number is missing.

Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..runtime.images_file import read_images
from ..runtime.rows import METRIC_COLUMNS, RUN_COLUMNS, brief, read_rows
from ..runtime.study_row import Record, check_job, check_study
from ..study.names import config_hash
from ..study.scores import score_name
from .estimate import Estimate, estimate, paired
from .older import study_from_older

NUMBERS = ("train_seed", "seed_first", "seed_last", "num_images", "scale", "step", "repeat", "value")
IDENTITY = ("tokenizer", "model", "sampler")
TABLES = {"metrics.csv": METRIC_COLUMNS, "runs.csv": RUN_COLUMNS}
# rows of a metric and a variant that agree in these are one number
ONE_NUMBER = ["train_seed", "sampler", "seed_first", "seed_last", "scale", "step", "repeat"]
# a missing score has its cause in the first of these that did not end well
STAGES = (
    "tokenizer",
    "encode",
    "import_model",
    "train",
    "distill",
    "sample",
    "evaluate",
    "sweep",
    "equivalence",
    "snr",
    "zero_shot",
    "error_propagation",
)
# settings whose hash ends the names that bench/study gives; they find the run of a number that is not there
HASHED = {"tokenizer": ("dataset", "tokenizer"), "model": ("dataset", "tokenizer", "model", "training")}
OPTIONAL = ("distill", "weights")  # part of a model's settings where it has one


def _study_row(path: Path, runs: list[dict[str, str]]) -> Record:
    """The settings of the study that these runs belong to. Raises ValueError where none or several
    stand."""
    found = [row for row in runs if row["stage"] == "study"]
    if len(found) != 1:
        raise ValueError(
            f"{path}: holds {len(found)} rows of stage 'study', not one; collect again"
        )
    try:
        return json.loads(found[0]["config_json"] or "{}", object_hook=Record)
    except ValueError as error:
        raise ValueError(
            f"{path}: {found[0]['run_id']}: config_json: not readable as JSON ({error})"
        ) from None


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


def _frame(rows: list[dict[str, str]], columns: list[str], numbers: Iterable[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=columns, dtype=object).replace("", None)
    for column in numbers:
        frame[column] = pd.to_numeric(frame[column])
    return frame


def _within_training(rows: pd.DataFrame, about: dict[str, Any]) -> pd.DataFrame:
    """Rows with sample seeds counted from those of training seed 0: each training draws seeds of its own. Older results
    have the same for all."""
    if about.get("tokenizer_seed") is None:
        return rows
    begin = rows["train_seed"].fillna(0) * about["evaluation"]["num_images"]
    return rows.assign(**{key: rows[key] - begin for key in ("seed_first", "seed_last")})


@dataclass
class Results:
    """The rows of a folder, asked by suite and variant."""

    folder: Path
    metrics: pd.DataFrame
    runs: pd.DataFrame
    about: dict[str, Any]
    # what was computed once, shared with the results of a few variants that `only` gives
    known: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read a folder. Raises ValueError or OSError for one that holds no results of ours."""
        metrics, runs = (read_rows(folder / name, columns) for name, columns in TABLES.items())
        known = {row["run_id"] for row in runs}
        for row in metrics:
            if row["run_id"] not in known:
                where = (
                    f"{folder / 'metrics.csv'}: {row['metric']} of run_id {brief(row['run_id'])}"
                )
                raise ValueError(f"{where}: runs.csv has no such run; collect again")
        about = _study_row(folder / "runs.csv", runs)
        study_from_older(about)
        check_study(about, f"{folder / 'runs.csv'}: study")
        # what no suite lists is left over from another version of the study: no number may hold it
        listed = {run for suite in about["suites"].values() for run in suite["runs"]}
        metrics = [row for row in metrics if row["run_id"] in listed]
        runs = [row for row in runs if row["run_id"] in listed or row["stage"] == "study"]
        for row in metrics:
            if row["study"] != about["study"]:
                where = f"{folder / 'metrics.csv'}: {row['metric']} of {row['run_id']}"
                raise ValueError(
                    f"{where}: study {brief(row['study'])} beside {brief(about['study'])}; collect again"
                )
        return cls(
            folder,
            _within_training(_frame(metrics, METRIC_COLUMNS, NUMBERS), about),
            _frame(runs, RUN_COLUMNS, ("wall_s", "peak_bytes")),
            about,
        )

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """A value that is computed when first asked for: figures of many variants ask for one
        thousands of times."""
        if self.known.get("rows") is not self.metrics:  # rows that were replaced are searched afresh
            images = {name: self.known[name] for name in ("images",) if name in self.known}
            self.known.clear()
            self.known.update(images, rows=self.metrics)
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    def only(self, suite: str, names: Iterable[str]) -> Results:
        """The same results with some variants of a suite alone."""
        variants = self.variants(suite)
        part = Record(
            {**self.suite(suite), "variants": Record({name: variants[name] for name in names})}
        )
        about = Record({**self.about, "suites": Record({**self.about["suites"], suite: part})})
        found = Results(self.folder, self.metrics, self.runs, about, self.known)
        vars(found)["jobs"] = self.jobs
        return found

    @property
    def images(self) -> dict[str, np.ndarray]:
        """Images by key. Raises ValueError for a damaged file or arrays that are no images."""
        return self.once("images", lambda: read_images(self.folder / "images.npz"))

    def rows_of(self, metric: str) -> pd.DataFrame:
        """Every row of a metric."""
        found = self.once(
            "by metric", lambda: dict(iter(self.metrics.groupby("metric", sort=False)))
        )
        return found.get(metric, self.metrics.iloc[:0])

    @cached_property
    def runs_of(self) -> dict[str, set[str]]:
        """Names of the runs that each suite lists."""
        return {name: set(suite["runs"]) for name, suite in self.about["suites"].items()}

    @property
    def extractor(self) -> str:
        return self.about["features"]["name"]

    def score_name(self, name: str) -> str:
        """The metric of a score as claims and tables call it: fid with the extractor's name behind
        it, fid_pixels as it is."""
        return score_name(name, self.extractor)

    def label(self, name: str) -> str:
        """A score's name with its extractor, such as FID (digits64)."""
        return f"{name} ({self.extractor})"

    def suite(self, suite: str) -> dict[str, Any]:
        return self.about["suites"][suite]

    def variants(self, suite: str) -> dict[str, dict[str, Any]]:
        """Identity and settings of each variant, in the study's order."""
        return self.about["suites"][suite]["variants"]

    def sampler(self, variant: str, suite: str) -> dict[str, Any]:
        """Settings of a variant's sampler."""
        return self.variants(suite)[variant]["settings"]["sampler"]

    def select(self, variant: str, suite: str, metric: str) -> pd.DataFrame:
        """Every row of a metric that belongs to a trained model of this variant. Raises ValueError
        for a number with two values."""
        return self.once(
            ("select", variant, suite, metric), lambda: self._select(variant, suite, metric)
        )

    def _select(self, variant: str, suite: str, metric: str) -> pd.DataFrame:
        keys = ["metric", "model", "tokenizer"]
        places = self.once("places", lambda: self.metrics.groupby(keys).indices)
        names = self.variants(suite)[variant]
        rows = self.metrics.iloc[places.get((metric, names["model"], names["tokenizer"]), [])]
        mine = rows["sampler"].isna() | (rows["sampler"] == names["sampler"])
        # another suite may have measured the same again
        mine &= rows["run_id"].isin(self.runs_of[suite])
        return one_each(
            rows[mine & rows["train_seed"].isin(self.suite(suite)["train_seeds"])], metric, variant
        )

    def of(self, variant: str, suite: str, metric: str, seeds: tuple[int, int] | None = None) -> pd.Series:
        """The final value of a metric by train_seed; seeds without a number are left out. seeds: the first and last sample seed of a
        score, instead of all that the study draws."""
        first, last = seeds or self.sample_seeds
        return self.once(
            ("of", variant, suite, metric, first, last),
            lambda: self._of(variant, suite, metric, first, last),
        )

    def _of(self, variant: str, suite: str, metric: str, first: int, last: int) -> pd.Series:
        rows = self.select(variant, suite, metric)
        rows = rows[rows["step"].isna() & rows["scale"].isna() & rows["repeat"].isna() & rows["value"].notna()]
        rows = rows[rows["seed_first"].isna() | ((rows["seed_first"] == first) & (rows["seed_last"] == last))]
        found = rows.set_index(rows["train_seed"].astype(int))["value"]
        if not found.index.is_unique:
            twice = found.index[found.index.duplicated()][0]
            raise ValueError(
                f"{metric} of {variant}, train_seed {twice}: two values in these results; collect again"
            )
        return found

    @property
    def sample_seeds(self) -> tuple[int, int]:
        """First and last seed of the generated images of training seed 0; those of others begin later."""
        first = self.about["evaluation"]["first_seed"]
        return first, first + self.about["evaluation"]["num_images"] - 1

    @property
    def halves(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The sample seeds in two halves: a setting is tuned on the first and scored on the second."""
        first, last = self.sample_seeds
        middle = first + (last - first + 1) // 2
        return (first, middle - 1), (middle, last)

    def estimate(self, variant: str, suite: str, metric: str) -> Estimate | None:
        return estimate(self.of(variant, suite, metric))

    def score(self, variant: str, suite: str, name: str) -> Estimate | None:
        """Mean and interval of fid, kid, is, density, fid_pixels or another score."""
        return self.estimate(variant, suite, self.score_name(name))

    def difference(self, variant: str, suite: str, metric: str, against: str | None = None) -> Estimate | None:
        """Paired difference to another variant, or the suite's first, over common training seeds."""
        first = against or next(iter(self.variants(suite)))
        return paired(self.of(first, suite, metric), self.of(variant, suite, metric))

    def groups(self, suite: str) -> dict[str, list[str]]:
        """Names of the variants that one entry of the study stands for: a grid gives several."""
        found: dict[str, list[str]] = {}
        for name, names in self.variants(suite).items():
            found.setdefault(names["group"], []).append(name)
        return found

    def tuned(self, group: str, suite: str, metric: str, lower: bool = True) -> str | None:
        """The variant of a group with the lowest mean of a metric on the first half of the sample
        seeds, or the highest where not `lower`; None without numbers. Means are over the training
        seeds that all variants with a number have, else a variant wins by the seeds that it lacks;
        None too where there is no such seed."""
        found = {name: self.of(name, suite, metric, self.halves[0]) for name in self.groups(suite)[group]}
        found = {name: values for name, values in found.items() if len(values)}
        common = sorted(set.intersection(*(set(values.index) for values in found.values()))) if found else []
        if not common:
            return None
        sign = 1 if lower else -1
        return min(found, key=lambda name: sign * found[name][common].mean())

    def snapshots(self, variant: str, suite: str, metric: str) -> pd.DataFrame:
        """Values along the training: columns train_seed, step, value, seconds (interpolated between looks)."""
        rows = self.select(variant, suite, metric).dropna(subset=["step", "value"])
        rows, clock = rows[["train_seed", "step", "value"]].copy(), self.select(variant, suite, "train_seconds")
        rows["seconds"] = np.nan
        for seed, part in clock.sort_values("step").groupby("train_seed"):
            here = rows["train_seed"] == seed
            x, y = np.r_[0.0, part["step"]], np.r_[0.0, part["value"]]
            rows.loc[here, "seconds"] = np.interp(rows.loc[here, "step"], x, y)
        return rows

    def by_scale(self, variant: str, suite: str, metric: str) -> pd.DataFrame:
        """Values per scale of the kept weights: columns train_seed, scale, value."""
        kept = self.of(variant, suite, "kept_step")
        rows = self.select(variant, suite, metric).dropna(subset=["scale", "value"])
        return rows[rows["step"] == rows["train_seed"].map(kept)][["train_seed", "scale", "value"]]

    def of_grid(self, names: dict[str, Any], metric: str) -> pd.DataFrame:
        """Rows of a tokenizer under the schedule of a variant: what encode and baselines report."""
        rows, grid = self.rows_of(metric), ".".join(map(str, names["patch_nums"]))
        return rows[(rows["model"] == grid) & (rows["tokenizer"] == names["tokenizer"])]

    def grid_estimate(
        self, names: dict[str, Any], metric: str, suite: str | None = None
    ) -> Estimate | None:
        """Mean and interval of such a metric, such as floor_fid_digits64, over the training seeds
        that have a tokenizer of their own, of one suite or all; one number where one serves all."""
        return estimate(self.grid_seeds(names, metric, suite))

    def grid_seeds(
        self, names: dict[str, Any], metric: str, suite: str | None = None
    ) -> pd.Series:
        """The values of such a metric by training seed, -1 for a tokenizer that serves all.
        Raises ValueError for two values of one seed."""
        rows = self.of_grid(names, metric)
        rows = self._of_suite(rows[rows["value"].notna() & rows["scale"].isna()], suite)
        return self._one_a_seed(rows, names, metric)

    def _of_suite(self, rows: pd.DataFrame, suite: str | None) -> pd.DataFrame:
        """Rows of the training seeds of a suite, or of none in particular; None: all."""
        if suite is None:
            return rows
        seeds = rows["train_seed"]
        return rows[seeds.isna() | seeds.isin(self.suite(suite)["train_seeds"])]

    def grid_value(
        self, names: dict[str, Any], metric: str, suite: str | None = None
    ) -> float | None:
        """The mean of `grid_estimate`."""
        found = self.grid_estimate(names, metric, suite)
        return found.mean if found else None

    def grid_scales(
        self, names: dict[str, Any], metric: str, suite: str | None = None
    ) -> pd.Series:
        """The mean of such a metric over the tokenizers at every scale that has one. Raises
        ValueError for two values of one tokenizer."""
        rows = self._of_suite(self.of_grid(names, metric).dropna(subset=["scale", "value"]), suite)
        found = {k: self._one_a_seed(part, names, metric).mean() for k, part in rows.groupby("scale")}
        return pd.Series(found, dtype=float)

    def _one_a_seed(self, rows: pd.DataFrame, names: dict[str, Any], metric: str) -> pd.Series:
        rows = rows.assign(seed=rows["train_seed"].fillna(-1).astype(int))
        rows = rows.drop_duplicates(["seed", "value"])
        if rows["seed"].duplicated().any():
            twice = rows.loc[rows["seed"].duplicated(), "seed"].iloc[0]
            values = rows.loc[rows["seed"] == twice, "value"]
            where = f"{metric} of tokenizer {names['tokenizer']}, schedule {names['patch_nums']}"
            raise ValueError(
                f"{where}: two values, {values.iloc[0]:g} and {values.iloc[1]:g}; collect again"
            )
        return rows.set_index("seed")["value"]

    def grids(self, suite: str) -> dict[str, dict[str, Any]]:
        """The different tokenizers and schedules of a suite: a label and the identity of one variant that uses it."""
        found: dict[tuple, dict[str, Any]] = {}
        for names in self.variants(suite).values():
            found.setdefault((names["tokenizer"], tuple(names["patch_nums"])), names)
        several = len({tokenizer for tokenizer, _ in found}) > 1
        return {"-".join(map(str, grid)) + (f" ({tokenizer})" if several else ""): n for (tokenizer, grid), n in found.items()}

    # ------------------------------------------------------------ runs

    @cached_property
    def jobs(self) -> pd.DataFrame:
        """Runs with the names that their settings stand for: tokenizer, grid, model and sampler hash, train_seed, snapshots."""
        found = []
        for row in self.runs[self.runs["stage"].isin(STAGES)].to_dict("records"):
            config = json.loads(row["config_json"] or "{}")
            named = {
                key: config_hash({p: config[p] for p in (*parts, *(OPTIONAL if "model" in parts else ())) if p in config})
                for key, parts in HASHED.items()
                if {*parts} <= config.keys()
            }
            sampler = config_hash(config["sampler"]) if "sampler" in config else None
            about = check_job(config, f"{self.folder / 'runs.csv'}: {row['run_id']}: config_json")
            grid = ".".join(map(str, about.patch_nums))
            seed = about.tokenizer_seed if about.train_seed is None else about.train_seed
            more = {"train_seed": seed, "snapshots": about.snapshots}
            keep = {key: row[key] for key in ("run_id", "stage", "status", "reason")}
            found.append({"tokenizer": None, "model": None, **keep, **named, "sampler": sampler, "grid": grid, **more})
        return pd.DataFrame(found, columns=["run_id", "stage", "status", "reason", *IDENTITY, "grid", "train_seed", "snapshots"])

    def jobs_of(self, names: dict[str, Any], seed: int | None) -> pd.DataFrame:
        """Runs behind a variant's number, in the order in which they read each other; seed None: those of its tokenizer."""
        end = {key: names[key].rsplit("-", 1)[1] for key in IDENTITY}
        jobs, grid = self.jobs, ".".join(map(str, names["patch_nums"]))
        base = (jobs["tokenizer"] == end["tokenizer"]) & jobs["grid"].isin(["", grid])
        # what has no training seed serves all of them
        of_seed = jobs["train_seed"].isna() | (jobs["train_seed"] == seed) if seed is not None else True
        mine = base & jobs["stage"].isin(["tokenizer", "encode"]) & of_seed
        if seed is not None:
            trained = base & (jobs["model"] == end["model"]) & of_seed
            mine |= trained & (jobs["sampler"].isna() | (jobs["sampler"] == end["sampler"]))
        return jobs[mine].sort_values("stage", key=lambda s: s.map(STAGES.index), kind="stable")

    def why(self, names: dict[str, Any], seed: int | None) -> str:
        """Why a number is missing: status and reason of the first run that did not end well."""
        jobs = self.jobs_of(names, seed)
        bad = jobs[jobs["status"] != "ok"]
        if len(bad):
            row = bad.iloc[0]
            return f"{row['status']} ({row['reason']})" if row["reason"] else str(row["status"])
        return "no number" if len(jobs) else "not run"

    def missing(self, variant: str, suite: str, metric: str, along: bool = False) -> dict[int, str]:
        """Training seeds of the suite without a final value of a metric, or `along` the training without any, and why."""
        names = self.variants(suite)[variant]
        there = set(self.snapshots(variant, suite, metric)["train_seed"] if along else self.of(variant, suite, metric).index)
        return {seed: self.why(names, seed) for seed in self.suite(suite)["train_seeds"] if seed not in there}

    def sample_run(self, variant: str, suite: str) -> str | None:
        """run_id of the pictures of the first training seed that has some: of the kept weights, else of the last snapshot."""
        for seed in self.suite(suite)["train_seeds"]:
            jobs = self.jobs_of(self.variants(suite)[variant], seed)
            for run_id in jobs[jobs["stage"] == "sample"].sort_values("snapshots")["run_id"]:
                if f"{run_id}/images" in self.images:
                    return run_id
        return None

    def latency_run(self, suite: str) -> pd.Series | None:
        """The row of the run that timed this suite's variants."""
        named = (
            self.runs["run_id"].str.rsplit("-", n=1).str[0]
        )  # the suite a-b begins like the suite a
        found = self.runs[
            (named == f"latency/{suite}") & self.runs["run_id"].isin(self.runs_of[suite])
        ]
        return found.iloc[-1] if len(found) else None

    def latency(self, suite: str, metric: str) -> pd.DataFrame:
        """Rows of the suite's latency run with a column `variant`, once for each that was timed by them: variants that differ in
        training only share rows. A value that did not fit into memory is missing."""
        shown = tuple(self.variants(suite))
        return self.once(
            ("latency", suite, metric, shown), lambda: self._latency(suite, metric)
        ).copy()

    def _latency(self, suite: str, metric: str) -> pd.DataFrame:
        run, rows = self.latency_run(suite), self.rows_of(metric)
        rows = rows[rows["run_id"] == (run["run_id"] if run is not None else "")].copy()
        double = rows.duplicated(["model", "sampler", "num_images", "scale", "repeat"])
        if double.any():
            batch = rows.loc[double, "num_images"].iloc[0]
            raise ValueError(f"{metric} of suite {suite}, batch {batch}: timed twice; collect again")
        named: dict[tuple, list[str]] = {}
        for variant, names in self.variants(suite).items():
            named.setdefault((names["timed"], names["sampler"]), []).append(variant)
        found = [named.get(key) for key in zip(rows["model"], rows["sampler"])]
        rows["variant"] = pd.Series(found, index=rows.index, dtype=object)
        return rows.dropna(subset=["variant"]).explode("variant", ignore_index=True)

    def rounds(self, suite: str, metric: str, variant: str, batch: int) -> pd.Series:
        """Every repeat of one cell, by round."""
        rows = self.latency(suite, metric)
        rows = rows[(rows["variant"] == variant) & (rows["num_images"] == batch)].dropna(subset=["value", "repeat"])
        return rows.set_index(rows["repeat"].astype(int))["value"]
