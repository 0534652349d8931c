"""The results of a folder as figures and tables ask for them: rows by suite, variant and metric,
and why a number is missing.

Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from ..runtime.images_file import read_images
from ..runtime.rows import METRIC_COLUMNS, RUN_COLUMNS, VARIANT_COLUMNS, read_rows
from ..runtime.study_row import Record, check_job, check_sides, check_study
from ..runtime.variants_file import NAME, Variants, variants_in
from .estimate import Estimate, estimate, paired
from .extractors import Extractors
from .lending import Lending, handed_out
from .reading import (
    NUMBERS,
    TABLES,
    check_contents,
    check_numbers,
    check_run_ids,
    check_runs,
    check_studies,
    frame_of,
    one_each,
    study_row,
    within_training,
)


@dataclass
class Results(Lending, Extractors):
    """The rows of a folder, asked by suite and variant."""

    folder: Path
    metrics: pd.DataFrame
    runs: pd.DataFrame
    about: dict[str, Any]
    variants_of: Variants  # names, settings and runs of each variant, by suite
    # what was computed once, shared with the results of a few variants that `only` gives
    known: dict[Any, Any] = field(default_factory=dict)
    asked: str | None = None  # the extractor whose scores are asked for; None: the study's first
    lender: Results | None = None  # whose rows what is computed once is computed from

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read a folder. Raises ValueError or OSError for one that holds no results of ours."""
        metrics, runs = (read_rows(folder / name, columns) for name, columns in TABLES.items())
        check_run_ids(folder, metrics, runs)
        about = study_row(folder / "runs.csv", runs)
        check_study(about, f"{folder / 'runs.csv'}: study")
        check_studies(folder, metrics, about["study"])
        check_runs(folder / "runs.csv", about["suites"], {row["run_id"] for row in runs})
        listed = {name: {*suite["runs"]} for name, suite in about["suites"].items()}
        rows = read_rows(folder / NAME, VARIANT_COLUMNS)
        variants = variants_in(rows, folder / NAME, listed)
        check_sides(about, variants, f"{folder / 'runs.csv'}: study")
        tables = {"metrics.csv": metrics, NAME: rows}
        # what no suite lists is left over from another version of the study: no number may hold it
        kept = set().union(*listed.values())
        metrics = [row for row in metrics if row["run_id"] in kept]
        runs = [row for row in runs if row["run_id"] in kept or row["stage"] == "study"]
        check_numbers(folder, metrics, runs)
        check_contents(folder, about, tables)
        return cls(
            folder,
            within_training(frame_of(metrics, METRIC_COLUMNS, NUMBERS), about),
            frame_of(runs, RUN_COLUMNS, ("wall_s", "peak_bytes")),
            about,
            variants,
        )

    def only(self, suite: str, names: Iterable[str]) -> Results:
        """The same results with some variants of a suite alone."""
        shown = {name: self.variants(suite)[name] for name in names}
        variants = {**self.variants_of, suite: shown}
        return replace(self, variants_of=variants)

    def by(self, extractor: str) -> Results:
        """The same results, with every score asked of another extractor."""
        return replace(self, asked=extractor)

    @property
    def images(self) -> Mapping[str, np.ndarray]:
        """Images by key, which nobody can change. Raises ValueError for a damaged file or arrays
        that are no images."""
        return self.once("images", self._images)

    def _images(self) -> Mapping[str, np.ndarray]:
        images = read_images(self.folder / "images.npz", self.about.get("images_sha256"))
        for array in images.values():
            array.flags.writeable = False
        return MappingProxyType(images)

    def rows_of(self, metric: str) -> pd.DataFrame:
        """Every row of a metric."""
        return handed_out(self._by_metric.get(metric, self.rows.iloc[:0]))

    def has_rows(self, metric: str) -> bool:
        """Whether there is any row of a metric."""
        return metric in self._by_metric

    @property
    def _by_metric(self) -> dict[str, pd.DataFrame]:
        return self.once("by metric", lambda: dict(iter(self.rows.groupby("metric", sort=False))))

    @cached_property
    def runs_of(self) -> dict[str, frozenset[str]]:
        """Names of the runs that each suite lists."""
        return {name: frozenset(suite["runs"]) for name, suite in self.about["suites"].items()}

    def suite(self, suite: str) -> dict[str, Any]:
        return self.about["suites"][suite]

    def variants(self, suite: str) -> dict[str, Record]:
        """Names, settings and runs of each variant, in the study's order."""
        return self.variants_of[suite]

    def sampler(self, variant: str, suite: str) -> dict[str, Any]:
        """Settings of a variant's sampler."""
        return self.variants(suite)[variant]["settings"]["sampler"]

    def select(self, variant: str, suite: str, metric: str) -> pd.DataFrame:
        """Every row of a metric that belongs to a trained model of this variant. Raises ValueError
        for a number with two values."""
        if self.lender is not None:
            return self.lender.select(variant, suite, metric)
        return self.once(
            ("select", variant, suite, metric), lambda: self._select(variant, suite, metric)
        )

    def _select(self, variant: str, suite: str, metric: str) -> pd.DataFrame:
        keys = ["metric", "model", "tokenizer"]
        places = self.once("places", lambda: self.rows.groupby(keys).indices)
        names = self.variants(suite)[variant]
        rows = self.rows.iloc[places.get((metric, names["model"], names["tokenizer"]), [])]
        mine = rows["sampler"].isna() | (rows["sampler"] == names["sampler"])
        # another suite may have measured the same again
        mine &= rows["run_id"].isin(self.runs_of[suite])
        return one_each(
            rows[mine & rows["train_seed"].isin(self.suite(suite)["train_seeds"])], metric, variant
        )

    def of(
        self, variant: str, suite: str, metric: str, seeds: tuple[int, int] | None = None
    ) -> pd.Series:
        """The final value of a metric by train_seed; seeds without a number are left out. seeds:
        the first and last sample seed of a score, instead of all that the study draws."""
        if self.lender is not None:
            return self.lender.of(variant, suite, metric, seeds)
        first, last = seeds or self.sample_seeds
        return self.once(
            ("of", variant, suite, metric, first, last),
            lambda: self._of(variant, suite, metric, first, last),
        )

    def _of(self, variant: str, suite: str, metric: str, first: int, last: int) -> pd.Series:
        rows = self.select(variant, suite, metric)
        rows = rows[
            rows["step"].isna()
            & rows["scale"].isna()
            & rows["repeat"].isna()
            & rows["value"].notna()
        ]
        rows = rows[
            rows["seed_first"].isna()
            | ((rows["seed_first"] == first) & (rows["seed_last"] == last))
        ]
        values = rows.set_index(rows["train_seed"].astype(int))["value"]
        if not values.index.is_unique:
            twice = values.index[values.index.duplicated()][0]
            raise ValueError(
                f"{metric} of {variant}, train_seed {twice}: two values in these results; "
                "collect again"
            )
        return values

    @property
    def sample_seeds(self) -> tuple[int, int]:
        """First and last seed of the generated images of training seed 0;
        those of others begin later."""
        first = self.about["evaluation"]["first_seed"]
        return first, first + self.about["evaluation"]["num_images"] - 1

    @property
    def halves(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The sample seeds in two halves: a setting is tuned on the first and scored on the
        second."""
        first, last = self.sample_seeds
        middle = first + (last - first + 1) // 2
        return (first, middle - 1), (middle, last)

    def estimate(self, variant: str, suite: str, metric: str) -> Estimate | None:
        return estimate(self.of(variant, suite, metric))

    def score(self, variant: str, suite: str, name: str) -> Estimate | None:
        """Mean and interval of fid, kid, is, density, fid_pixels or another score."""
        return self.estimate(variant, suite, self.score_name(name))

    def difference(
        self, variant: str, suite: str, metric: str, against: str | None = None
    ) -> Estimate | None:
        """Paired difference to another variant, or the suite's first,
        over common training seeds."""
        first = against or next(iter(self.variants(suite)))
        return paired(self.of(first, suite, metric), self.of(variant, suite, metric))

    def groups(self, suite: str) -> dict[str, list[str]]:
        """Names of the variants that one entry of the study stands for: a grid gives several."""
        members: dict[str, list[str]] = {}
        for name, names in self.variants(suite).items():
            members.setdefault(names["group"], []).append(name)
        return members

    def tuned(self, group: str, suite: str, metric: str, lower: bool = True) -> str | None:
        """The variant of a group with the lowest mean of a metric on the first half of the sample
        seeds, or the highest where not `lower`; None without numbers. Means are over the training
        seeds that all variants with a number have, else a variant wins by the seeds that it lacks;
        None too where there is no such seed."""
        scores = {
            name: self.of(name, suite, metric, self.halves[0]) for name in self.groups(suite)[group]
        }
        scores = {name: values for name, values in scores.items() if len(values)}
        common = (
            sorted(set.intersection(*(set(values.index) for values in scores.values())))
            if scores
            else []
        )
        if not common:
            return None
        sign = 1 if lower else -1
        return min(scores, key=lambda name: sign * scores[name][common].mean())

    def snapshots(self, variant: str, suite: str, metric: str) -> pd.DataFrame:
        """Values along the training: columns train_seed, step, value,
        seconds (interpolated between evaluations)."""
        rows = self.select(variant, suite, metric).dropna(subset=["step", "value"])
        rows, clock = (
            rows[["train_seed", "step", "value"]].copy(),
            self.select(variant, suite, "train_seconds"),
        )
        rows["seconds"] = np.nan
        for seed, part in clock.sort_values("step").groupby("train_seed"):
            of_seed = rows["train_seed"] == seed
            x, y = np.r_[0.0, part["step"]], np.r_[0.0, part["value"]]
            rows.loc[of_seed, "seconds"] = np.interp(rows.loc[of_seed, "step"], x, y)
        return rows

    def by_scale(self, variant: str, suite: str, metric: str) -> pd.DataFrame:
        """Values per scale of the kept weights: columns train_seed, scale, value."""
        kept = self.of(variant, suite, "kept_step")
        rows = self.select(variant, suite, metric).dropna(subset=["scale", "value"])
        return rows[rows["step"] == rows["train_seed"].map(kept)][["train_seed", "scale", "value"]]

    def of_grid(self, names: dict[str, Any], metric: str, suite: str | None = None) -> pd.DataFrame:
        """Rows of a tokenizer under the schedule of a variant: what encode and baselines report, in
        one suite or all."""
        rows, grid = self.rows_of(metric), ".".join(map(str, names["patch_nums"]))
        rows = rows[(rows["model"] == grid) & (rows["tokenizer"] == names["tokenizer"])]
        return self._of_suite(rows, suite)

    def grid_estimate(
        self, names: dict[str, Any], metric: str, suite: str | None = None
    ) -> Estimate | None:
        """Mean and interval of such a metric, such as floor_fid_digits64, over the training seeds
        that have a tokenizer of their own, of one suite or all; one number where one serves all."""
        return estimate(self.grid_seeds(names, metric, suite))

    def grid_seeds(
        self, names: dict[str, Any], metric: str, suite: str | None = None, scale: int | None = None
    ) -> pd.Series:
        """The values of such a metric by training seed, -1 for a tokenizer that serves all, of one
        scale or of none. Raises ValueError for two values of one seed."""
        rows = self.of_grid(names, metric, suite)
        mine = rows["scale"].isna() if scale is None else rows["scale"] == scale
        rows = rows[rows["value"].notna() & mine]
        return self._one_a_seed(rows, names, metric)

    def _of_suite(self, rows: pd.DataFrame, suite: str | None) -> pd.DataFrame:
        """Rows of the runs of a suite, of its training seeds or of none in particular; None: all.
        Another suite may have measured the same tokenizer by settings of its own."""
        if suite is None:
            return rows
        seeds = rows["train_seed"]
        mine = rows["run_id"].isin(self.runs_of[suite])
        return rows[mine & (seeds.isna() | seeds.isin(self.suite(suite)["train_seeds"]))]

    def grid_value(
        self, names: dict[str, Any], metric: str, suite: str | None = None
    ) -> float | None:
        """The mean of `grid_estimate`."""
        estimate_of_grid = self.grid_estimate(names, metric, suite)
        return estimate_of_grid.mean if estimate_of_grid else None

    def grid_scales(
        self, names: dict[str, Any], metric: str, suite: str | None = None
    ) -> pd.Series:
        """The mean of such a metric over the tokenizers at every scale that has one. Raises
        ValueError for two values of one tokenizer."""
        rows = self.of_grid(names, metric, suite).dropna(subset=["scale", "value"])
        means = {
            k: self._one_a_seed(part, names, metric).mean() for k, part in rows.groupby("scale")
        }
        return pd.Series(means, dtype=float)

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
        """The different tokenizers and schedules of a suite: a label, with a variant's name where
        tokenizers differ, and the identity of one variant that uses it."""
        first: dict[tuple, str] = {}
        for variant, names in self.variants(suite).items():
            first.setdefault((names["tokenizer"], tuple(names["patch_nums"])), variant)
        several = len({tokenizer for tokenizer, _ in first}) > 1
        labels = {
            "-".join(map(str, grid)) + (f" ({variant})" if several else ""): variant
            for (_, grid), variant in first.items()
        }
        return {label: self.variants(suite)[variant] for label, variant in labels.items()}

    # ------------------------------------------------------------ runs

    @cached_property
    def _runs_by_id(self) -> pd.DataFrame:
        return self.runs.set_index("run_id", drop=False)

    def runs_behind(self, names: dict[str, Any], *stages: str) -> pd.DataFrame:
        """Runs of some stages behind a variant, of all training seeds, stage by stage."""
        run_ids = [run_id for of_seed in names["jobs"].values() for run_id in of_seed]
        runs = self._runs_by_id.loc[run_ids]
        return runs[runs["stage"].isin(stages)].sort_values(
            "stage", key=lambda s: s.map(stages.index), kind="stable"
        )

    def jobs_of(self, names: dict[str, Any], seed: int | None) -> pd.DataFrame:
        """Runs behind a variant's number, in the order in which they read each other; seed None:
        those of its tokenizer."""
        if seed is None:
            return self.runs_behind(names, "tokenizer", "encode")
        # what has no training seed serves all of them
        return self._runs_by_id.loc[[*names["jobs"].get("", ()), *names["jobs"].get(str(seed), ())]]

    def why(self, names: dict[str, Any], seed: int | None, *stages: str) -> str:
        """Why a number is missing: status and reason of the first run that did not end well, of
        these stages where some are given."""
        jobs = self.jobs_of(names, seed)
        jobs = jobs[jobs["stage"].isin(stages)] if stages else jobs
        bad = jobs[jobs["status"] != "ok"]
        if len(bad):
            row = bad.iloc[0]
            return f"{row['status']} ({row['reason']})" if row["reason"] else str(row["status"])
        return "not measured" if len(jobs) else "not run"

    def missing(self, variant: str, suite: str, metric: str, along: bool = False) -> dict[int, str]:
        """Training seeds of the suite without a final value of a metric, of the variant or of its
        tokenizer, or `along` the training without any, and why."""
        names = self.variants(suite)[variant]
        curve = self.snapshots(variant, suite, metric)["train_seed"] if along else None
        there = set(self.of(variant, suite, metric).index if curve is None else curve)
        of_grid = self.of_grid(names, metric, suite).dropna(subset=["value"])["train_seed"]
        if of_grid.isna().any():  # one tokenizer serves all training seeds
            return {}
        lost = [seed for seed in self.suite(suite)["train_seeds"] if seed not in {*there, *of_grid}]
        return {seed: self.why(names, seed) for seed in lost}

    def sample_run(self, variant: str, suite: str) -> str | None:
        """run_id of the images of the first training seed that has some: of the kept weights,
        else of the last snapshot."""
        runs = (self.sample_run_of(variant, suite, s) for s in self.suite(suite)["train_seeds"])
        return next((run for run in runs if run is not None), None)

    def sample_run_of(self, variant: str, suite: str, seed: int) -> str | None:
        """run_id of the images of a training seed: of the kept weights, else of the last
        snapshot."""
        jobs = self.jobs_of(self.variants(suite)[variant], seed)
        samples = jobs[jobs["stage"] == "sample"].to_dict("records")
        for row in sorted(samples, key=self._takes_snapshots):
            if f"{row['run_id']}/images" in self.images:
                return str(row["run_id"])
        return None

    def _takes_snapshots(self, row: dict[str, Any]) -> bool:
        """Whether a run samples along the training. Raises ValueError for a config that is none."""
        where = f"{self.folder / 'runs.csv'}: {row['run_id']}: config_json"
        return check_job(json.loads(row["config_json"] or "{}"), where).snapshots

    def latency_run(self, suite: str) -> pd.Series | None:
        """The row of the run that timed this suite's variants."""
        # the suite a-b begins like the suite a
        named = self.runs["run_id"].str.rsplit("-", n=1).str[0]
        runs = self.runs[
            (named == f"latency/{suite}") & self.runs["run_id"].isin(self.runs_of[suite])
        ]
        return runs.iloc[-1] if len(runs) else None

    def latency(self, suite: str, metric: str) -> pd.DataFrame:
        """Rows of the suite's latency run with a column `variant`, once for each that was timed by
        them: variants that differ in training only share rows.
        A value that did not fit into memory is missing."""
        shown = tuple(self.variants(suite))
        return self.once(("latency", suite, metric, shown), lambda: self._latency(suite, metric))

    def _latency(self, suite: str, metric: str) -> pd.DataFrame:
        run, rows = self.latency_run(suite), self.rows_of(metric)
        rows = rows[rows["run_id"] == (run["run_id"] if run is not None else "")].copy()
        double = rows.duplicated(["model", "sampler", "num_images", "scale", "repeat"])
        if double.any():
            batch = rows.loc[double, "num_images"].iloc[0]
            raise ValueError(
                f"{metric} of suite {suite}, batch {batch}: timed twice; collect again"
            )
        named: dict[tuple, list[str]] = {}
        for variant, names in self.variants(suite).items():
            named.setdefault((names["timed"], names["sampler"]), []).append(variant)
        variants = [named.get(key) for key in zip(rows["model"], rows["sampler"])]
        rows["variant"] = pd.Series(variants, index=rows.index, dtype=object)
        return rows.dropna(subset=["variant"]).explode("variant", ignore_index=True)

    def rounds(self, suite: str, metric: str, variant: str, batch: int) -> pd.Series:
        """Every repeat of one cell, by round."""
        rows = self.latency(suite, metric)
        rows = rows[(rows["variant"] == variant) & (rows["num_images"] == batch)].dropna(
            subset=["value", "repeat"]
        )
        return rows.set_index(rows["repeat"].astype(int))["value"]
