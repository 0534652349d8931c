"""What figures and tables share: the rows of a study by variant, intervals over training seeds, the rule of a verdict, captions.

Reads metrics.csv, runs.csv and images.npz of a folder and nothing else: published results need no training. Imports no torch.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from srdd.lookup import find, unknown

from .analysis_words import (  # noqa: F401 (also taken from here)
    bias_words,
    extractor_kind,
    floor_has_labels,
    held_against,
    held_out,
    imported_words,
    made_by,
    reference_words,
    sampler_words,
    samplers,
    seeds_words,
    with_classes,
)
from .config import config_hash
from .escaping import rst, sentence
from .images_file import read_images
from .results import METRIC_COLUMNS, RUN_COLUMNS, brief, read_rows
from .scores import BETTER, better
from .study_row import Record, check_job, check_study

CONFIDENCE = 0.95
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
# settings whose hash ends the names that bench.config gives; they find the run of a number that is not there
HASHED = {"tokenizer": ("dataset", "tokenizer"), "model": ("dataset", "tokenizer", "model", "training")}
OPTIONAL = ("distill", "weights")  # part of a model's settings where it has one
# a relative gap between ELBO and cross-entropy up to here is rounding in float64; one from there on is a difference
GAP_CLOSED, GAP_OPEN = 1e-10, 1e-3


# ---------------------------------------------------------------- numbers


@dataclass(frozen=True)
class Estimate:
    """A mean with the half width of its 95 % t-interval; half is None for one value."""

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0.0)


def estimate(values: Iterable[float]) -> Estimate | None:
    """Mean and t-interval (Student 1908) of the finite values; None when there is none."""
    found = np.array([v for v in values if math.isfinite(v)], dtype=float)
    if not len(found):
        return None
    half = None
    if len(found) > 1:
        half = float(student.ppf((1 + CONFIDENCE) / 2, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found)))
        half = 0.0 if half < 1e-12 * abs(found.mean()) else half  # equal numbers, but for the rounding of their mean
    return Estimate(float(found.mean()), half, len(found))


def paired(first: pd.Series, second: pd.Series) -> Estimate | None:
    """Second minus first over the index values (training seeds, rounds) that both have."""
    common = first.index.intersection(second.index)
    return estimate(second[common].to_numpy() - first[common].to_numpy())


def verdict(difference: Estimate | None, lower_is_claimed: bool = True) -> str:
    """`yes` when the paired interval excludes 0 in the claimed direction, `no` in the other, else `not decided`."""
    if difference is None or difference.half is None or difference.low <= 0 <= difference.high:
        return "not decided"
    return "yes" if (difference.high < 0) == lower_is_claimed else "no"


def show(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits; `-` for a missing one."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def _decimals(half: float) -> int:
    """Decimals that show two digits of an uncertainty."""
    return min(6, max(0, 1 - math.floor(math.log10(half))))


def show_estimate(found: Estimate | None) -> str:
    """`mean ± half`, the half width with two digits; a lone value says that it is one."""
    if found is None:
        return "-"
    if found.half is None:
        return f"{show(found.mean)} (one seed, no interval)"
    if found.half == 0:
        return f"{show(found.mean)} ± 0"
    places = _decimals(found.half)
    return f"{found.mean:,.{places}f} ± {found.half:,.{places}f}"


def show_difference(found: Estimate | None) -> str:
    """`+mean [low, high]`."""
    if found is None:
        return "-"
    if found.half is None:
        return f"{found.mean:+.3g} (one seed, no interval)"
    places = _decimals(found.half) if found.half else 3
    return f"{found.mean:+.{places}f} [{found.low:+.{places}f}, {found.high:+.{places}f}]"


# ---------------------------------------------------------------- results


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
            _frame(metrics, METRIC_COLUMNS, NUMBERS),
            _frame(runs, RUN_COLUMNS, ("wall_s", "peak_bytes")),
            about,
        )

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """A value that is computed when first asked for: figures of many variants ask for one
        thousands of times."""
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
        return Results(self.folder, self.metrics, self.runs, about, self.known)

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
        """First and last seed of the generated pictures."""
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
        """Mean and interval of fid, kid, is, precision, recall or class_agreement."""
        return self.estimate(variant, suite, f"{name}_{self.extractor}")

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
        seeds, or the highest where not
        `lower`; None without numbers."""
        means = {name: estimate(self.of(name, suite, metric, self.halves[0])) for name in self.groups(suite)[group]}
        sign = 1 if lower else -1
        return min(
            (name for name, found in means.items() if found),
            key=lambda name: sign * means[name].mean,
            default=None,
        )

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

    def grid_value(self, names: dict[str, Any], metric: str) -> float | None:
        """The one value of such a metric, such as floor_fid_digits64."""
        found = self.of_grid(names, metric)["value"].dropna().unique()
        if len(found) > 1:
            where = f"{metric} of tokenizer {names['tokenizer']}, schedule {names['patch_nums']}"
            raise ValueError(f"{where}: two values, {found[0]:g} and {found[1]:g}; collect again")
        return float(found[0]) if len(found) else None

    def grids(self, suite: str) -> dict[str, dict[str, Any]]:
        """The different tokenizers and schedules of a suite: a label and the identity of one variant that uses it."""
        found: dict[tuple, dict[str, Any]] = {}
        for names in self.variants(suite).values():
            found.setdefault((names["tokenizer"], tuple(names["patch_nums"])), names)
        several = len({tokenizer for tokenizer, _ in found}) > 1
        return {"-".join(map(str, grid)) + (f" ({tokenizer})" if several else ""): n for (tokenizer, grid), n in found.items()}

    # ------------------------------------------------------------ runs

    @property
    def jobs(self) -> pd.DataFrame:
        """Runs by what their settings stand for."""
        return self.once("jobs", self._jobs)

    def _jobs(self) -> pd.DataFrame:
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
            more = {"train_seed": about.train_seed, "snapshots": about.snapshots}
            keep = {key: row[key] for key in ("run_id", "stage", "status", "reason")}
            found.append({"tokenizer": None, "model": None, **keep, **named, "sampler": sampler, "grid": grid, **more})
        return pd.DataFrame(found, columns=["run_id", "stage", "status", "reason", *IDENTITY, "grid", "train_seed", "snapshots"])

    def jobs_of(self, names: dict[str, Any], seed: int | None) -> pd.DataFrame:
        """Runs behind a variant's number, in the order in which they read each other; seed None: those of its tokenizer."""
        end = {key: names[key].rsplit("-", 1)[1] for key in IDENTITY}
        jobs, grid = self.jobs, ".".join(map(str, names["patch_nums"]))
        base = (jobs["tokenizer"] == end["tokenizer"]) & jobs["grid"].isin(["", grid])
        mine = base & jobs["stage"].isin(["tokenizer", "encode"])
        if seed is not None:
            of_seed = (jobs["train_seed"] == seed) | (jobs["stage"] == "import_model")  # imported once for all seeds
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


# ---------------------------------------------------------------- what a suite asks


def claim(results: Results, suite: str) -> str:
    """What the suite asks, and how its claims were decided; a reduced study says so first."""
    about, reduced = results.suite(suite), results.about.get("reduced")
    words = [f"REDUCED STUDY: {sentence(reduced)}"] if reduced else []
    words.append(sentence(about["claim"]))
    for one in about["claims"]:
        word, reason = judged(results, suite, one)
        owner = "Claim of the paper, in our words" if one["origin"] == "paper" else "Claim"
        words.append(f"{owner}: {rst(one['text'].rstrip(' .'))}: {word} ({rst(reason)}).")
    return " ".join(words)


# ---------------------------------------------------------------- fewer scales than a teacher


def full_schedules(results: Results, suite: str) -> list[str]:
    """Variants that a suite names one by one: teachers, and whatever else the variants of its grids are read against."""
    return [name for name, names in results.variants(suite).items() if not names["grid"]]


def full_schedule_of(results: Results, suite: str, variant: str) -> str | None:
    """The first of them with the same mask as a variant."""
    variants = results.variants(suite)
    same = lambda name: all(variants[name][key] == variants[variant][key] for key in ("history", "mask"))  # noqa: E731
    return next((name for name in full_schedules(results, suite) if same(name)), None)


def tokens_of(patch_nums: Iterable[int]) -> int:
    """Tokens of a schedule: token_evals of one picture without guidance and refinement."""
    return sum(side * side for side in patch_nums)


def training_tokens(settings: dict[str, Any]) -> float:
    """Tokens that a variant's training reads when no early stopping ends it, its teacher's included; nan where a part was imported and
    nobody counted."""
    parts = [settings, *([settings["distill"]["teacher"]] if "distill" in settings else [])]
    if any(part["training"] is None for part in parts):
        return math.nan
    return sum(p["training"]["steps"] * p["training"]["batch_size"] * tokens_of(p["model"]["patch_nums"]) for p in parts)


# ---------------------------------------------------------------- verdicts


def judged(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Whether a claim holds here, `yes`, `no` or `not decided`, by the rule `judge_<name>` that the study names, and why."""
    return find(sys.modules[__name__], "judge", one["rule"])(results, suite, one)


NO_DIRECTION = "whether lower or higher is better is not known of this metric; say better: lower or better: higher in the claim"


def direction(one: dict[str, Any]) -> str | None:
    """What a claim says is better, lower or higher: as it states, else as its metric points; None
    where neither is known."""
    return one.get("better") or better(one["metric"])


def _claimed(word: str, one: dict[str, Any]) -> str:
    """The word of a rule that asks for less, turned round where a claim states that more is
    better."""
    return {"yes": "no", "no": "yes"}.get(word, word) if one.get("better") == "higher" else word


def _against_the_usual(one: dict[str, Any]) -> str:
    """Says that a claim counts as better what others count as worse; empty for all other claims."""
    stated, usual = one.get("better"), better(one["metric"])
    return (
        f"; this claim states that {stated} is better, usually {usual} is"
        if stated and usual and stated != usual
        else ""
    )


def _no_metric(results: Results, suite: str, one: dict[str, Any]) -> str:
    """Why a claim names no metric of these results: no row has it though others were scored, or no
    study has; else empty."""
    metric = f"{one['metric']}_{results.extractor}"
    if results.rows_of(metric)["run_id"].isin(results.runs_of[suite]).any():
        return ""
    mine = results.metrics[
        results.metrics["run_id"].isin(results.runs_of[suite])
        & results.metrics["train_seed"].notna()
    ]
    scored = sorted(
        name.removesuffix(f"_{results.extractor}")
        for name in mine["metric"].unique()
        if name.endswith(results.extractor)
    )
    if not scored and one["metric"] in BETTER:
        return ""
    return f"no row of this suite has {metric} (scored: {', '.join(scored) or 'nothing'})"


def judge_score(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """By the 95 % t-interval of the paired difference of a score over training seeds."""
    if absent := _no_metric(results, suite, one):
        return "no such metric", absent
    metric = f"{one['metric']}_{results.extractor}"
    found = results.difference(one["variant"], suite, metric, one["against"])
    reason = f"{metric} of {one['variant']} minus that of {one['against']}, paired by training seed: {show_difference(found)}"
    if direction(one) is None:
        return "not decided", f"{reason}; {NO_DIRECTION}"
    return verdict(found, direction(one) == "lower"), reason + _against_the_usual(one)


def judge_tuned(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """As judge_score, between groups, each at the setting that is best on the first half of the sample seeds; scored on the second."""
    if absent := _no_metric(results, suite, one):
        return "no such metric", absent
    if direction(one) is None:
        return "not decided", NO_DIRECTION
    metric, second, lower = (
        f"{one['metric']}_{results.extractor}",
        results.halves[1],
        direction(one) == "lower",
    )
    best = [results.tuned(one[key], suite, metric, lower) for key in ("against", "variant")]
    if None in best:
        return "not decided", "a group has no scores on halves"
    found = paired(*(results.of(name, suite, metric, second) for name in best))
    reason = f"{metric} of {best[1]} minus that of {best[0]}, each tuned on half of the sample seeds, on the other half"
    return verdict(found, lower), f"{reason}: {show_difference(found)}{_against_the_usual(one)}"


def judge_latency(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when faster at every batch size by the interval of the log ratio over paired rounds, no when slower at every one."""
    found = {batch: ratio(results, suite, one["variant"], batch, one["against"])[1] for batch in batches(results, suite)}
    words = set(found.values())
    word = {frozenset({"faster"}): "yes", frozenset({"slower"}): "no"}.get(frozenset(words), "not decided")
    shown = [f"{what} at batch {', '.join(str(b) for b, w in found.items() if w == what)}" for what in sorted(words)]
    return _claimed(word, one), "; ".join(shown) or "nothing was timed"


def judge_memory(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when peak memory is lower at every batch size, no when it is not lower at any; bytes are counted, not timed."""
    peak = results.latency(suite, "peak_memory_bytes").set_index(["variant", "num_images"])["value"].dropna()
    shares = {
        batch: peak[one["variant"], batch] / peak[one["against"], batch]
        for batch in map(float, batches(results, suite))
        if {(one["variant"], batch), (one["against"], batch)} <= set(peak.index)
    }
    if not shares:
        return "not decided", "no common batch size"
    lower = [share < 1 for share in shares.values()]
    word = "yes" if all(lower) else "no" if not any(lower) else "not decided"
    return _claimed(word, one), "peak memory ratio " + ", ".join(
        f"{share:.2f} at batch {batch:g}" for batch, share in shares.items()
    )


def judge_convergence(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """By the interval of the paired difference of steps until the held-out loss that every training of the suite reaches."""
    target, steps = steps_to_target(results, suite)
    if target is None:
        return "not decided", "no losses"
    found = paired(steps[one["against"]]["step"], steps[one["variant"]]["step"])
    reason = f"steps until held-out loss {target:.3f}, {one['variant']} minus {one['against']}: {show_difference(found)}"
    return _claimed(verdict(found), one), reason


def steps_to_target(results: Results, suite: str) -> tuple[float | None, dict[str, pd.DataFrame]]:
    """The lowest held-out loss that every training of a suite reaches, and by variant and training seed the step and second of it."""
    curves = {variant: results.snapshots(variant, suite, "loss_test") for variant in results.variants(suite)}
    best = [part["value"].min() for rows in curves.values() if len(rows) for _, part in rows.groupby("train_seed")]
    if not best:
        return None, {}
    target = max(best)
    reached = {variant: rows[rows["value"] <= target].sort_values("step") for variant, rows in curves.items()}
    return target, {variant: rows.groupby("train_seed")[["step", "seconds"]].first() for variant, rows in reached.items()}


def fid_differences(results: Results, suite: str) -> str:
    """Paired FID differences to the first variant."""
    first, *others = results.variants(suite)
    if not others:
        return "One variant, nothing to compare."
    found = {name: results.difference(name, suite, f"fid_{results.extractor}") for name in others}
    shown = "; ".join(f"{rst(name)} {show_difference(value)}" for name, value in found.items())
    return f"{results.label('FID')} minus that of {rst(first)}, paired by training seed, 95 % t-interval: {shown}."


def reach(results: Results, suite: str) -> str:
    """What an attention history of one or more means in a deep network, for the variants that have one."""
    words = []
    for name, names in results.variants(suite).items():
        h, depth, scales = names["history"], names["depth"], len(names["patch_nums"])
        if h is not None and h >= 1:
            words.append(f"{rst(name)} reaches min({h} x {depth}, {scales - 1}) = {min(h * depth, scales - 1)}")
    if not words:
        return ""
    return f"History h reaches min(h x depth, K-1) earlier scales, hence h of 1 or more is not Markov: {'; '.join(words)}."


def by_reason(missing: dict[int, str]) -> str:
    """Training seeds without a number, those with one reason together."""
    seeds = {why: [str(seed) for seed, other in missing.items() if other == why] for why in missing.values()}
    return ", ".join(f"seed{'s' * (len(found) > 1)} {', '.join(found)} {why}" for why, found in seeds.items())


def missing_words(results: Results, suite: str, metric: str, along: bool = False) -> str:
    """One line that names every variant and seed without a number, and why; empty when all are there."""
    found = {name: results.missing(name, suite, metric, along) for name in results.variants(suite)}
    return "; ".join(f"{name}: {by_reason(seeds)}" for name, seeds in found.items() if seeds)


def machine(results: Results, suite: str) -> str:
    """Where the suite was timed."""
    run = results.latency_run(suite)
    if run is None:
        return "Not timed: there is no latency run of this suite."
    if run["status"] != "ok":
        return rst(f"The latency run is {run['status']}: {run['reason']}.")
    return rst(f"Machine: {run['device']}; {run['host_class']}; torch {run['torch']}.")


def ratio(results: Results, suite: str, variant: str, batch: int, against: str | None = None) -> tuple[Estimate | None, str]:
    """Log ratio of sampling time to another variant, or the first, over common rounds, and what that decides."""
    first = against or next(iter(results.variants(suite)))
    logs = [np.log(results.rounds(suite, "latency_s", name, batch)) for name in (first, variant)]
    found = paired(*logs)
    if found is None:
        return None, "not measured"
    return found, {"yes": "faster", "no": "slower"}.get(verdict(found), "not decided")


def batches(results: Results, suite: str) -> list[int]:
    """Batch sizes that were tried."""
    return sorted(results.latency(suite, "latency_s")["num_images"].dropna().astype(int).unique().tolist())


def common_batches(results: Results, suite: str) -> list[int]:
    """Batch sizes at which every variant was timed scale by scale."""
    rows = results.latency(suite, "latency_scale_s").dropna(subset=["value"])
    found = [set(part["num_images"].astype(int)) for _, part in rows.groupby("variant")]
    return sorted(set.intersection(*found)) if len(found) == len(results.variants(suite)) else []


def floors(results: Results, suite: str) -> pd.DataFrame:
    """Least seconds of each scale of a batch, columns variant, num_images, scale, memory, operations, floor (the longer of the two);
    no rows where the run measured no floors."""
    keys = ["variant", "num_images", "scale"]
    names = ("memory", "operations")
    found = {name: results.latency(suite, f"floor_{name}_scale_s").set_index(keys)["value"] for name in names}
    table = pd.DataFrame(found).dropna()
    return table.assign(floor=table.max(axis=1)).reset_index()


def floor_s(results: Results, suite: str, variant: str, batch: int) -> float | None:
    """Least seconds of a batch, whose scales follow one another; None where it was not measured."""
    rows = floors(results, suite)
    rows = rows[(rows["variant"] == variant) & (rows["num_images"] == batch)]
    return float(rows["floor"].sum()) if len(rows) else None


def over_floor(results: Results, suite: str, variant: str, batch: int) -> Estimate | None:
    """Log ratio of the measured time of a batch to its floor over rounds; None where one of them is missing."""
    least = floor_s(results, suite, variant, batch)
    return least and estimate(np.log(results.rounds(suite, "latency_s", variant, batch) / least))


def show_ratio(found: Estimate | None) -> str:
    """The geometric mean behind a log ratio, and its interval."""
    if found is None:
        return "-"
    centre, low, high = (show(math.exp(value)) for value in (found.mean, found.low, found.high))
    return f"{centre} (one round)" if found.half is None else f"{centre} [{low}, {high}]"


def precision(results: Results, suite: str) -> str:
    """The dtype that the suite's networks were timed in."""
    run = results.latency_run(suite)
    config = json.loads(run["config_json"] or "{}") if run is not None else {}
    return check_job(
        config, f"{results.folder / 'runs.csv'}: latency of {suite}: config_json"
    ).latency.precision


def rates_words(results: Results, suite: str) -> str:
    """What floors were counted with; empty where none were."""
    run, rows = results.latency_run(suite), results.metrics
    rows = rows[
        (rows["run_id"] == (run["run_id"] if run is not None else "")) & rows["metric"].isin(["copy_bandwidth", "matmul_rate"])
    ]
    rates = rows.groupby("metric")["value"].max().dropna()
    if len(rates) < 2:
        return ""
    return (
        f"Floor of a scale: the longer of the bytes that it must move at least (weights once a pass, in {precision(results, suite)}; cached "
        f"keys and values; logits) over the measured copy bandwidth, {show(rates['copy_bandwidth'] / 1e9)} GB/s, and its operations over "
        f"the measured rate of a large matrix product, {show(rates['matmul_rate'] / 1e9)} GFLOP/s in {precision(results, suite)}; "
        "both of the fastest round. Weights that stay in the caches may beat the memory floor."
    )


def largest_words(results: Results, suite: str) -> str:
    """The largest measured batch that each variant had memory for; empty where a run does not say."""
    largest = results.latency(suite, "largest_batch").set_index("variant")["value"]
    found = [f"{rst(v)} {'none' if math.isnan(largest[v]) else int(largest[v])}" for v in results.variants(suite) if v in largest]
    return f"Largest measured batch that fits into memory: {', '.join(found)}." if found else ""


def latency_verdict(results: Results, suite: str) -> str:
    """At which batch sizes the second variant is faster, and needs less memory, than the first."""
    names = list(results.variants(suite))
    if len(names) < 2 or not batches(results, suite):
        return ""
    first, second = names[:2]
    peak = results.latency(suite, "peak_memory_bytes").set_index(["variant", "num_images"])["value"]
    time: dict[str, list[int]] = {}
    memory: dict[str, list[int]] = {}
    for batch in batches(results, suite):
        time.setdefault(ratio(results, suite, second, batch)[1], []).append(batch)
        pair = [peak.get((name, float(batch)), math.nan) for name in (first, second)]
        if all(map(math.isfinite, pair)):
            word = "less" if pair[1] < pair[0] else "more" if pair[1] > pair[0] else "equal"
            memory.setdefault(word, []).append(batch)
    times, memories = (
        "; ".join(f"{word} at batch {', '.join(map(str, sizes))}" for word, sizes in found.items()) for found in (time, memory)
    )
    return (
        f"{rst(second)} against {rst(first)}, time: {times} (decided where the 95 % t-interval of the log ratio over paired "
        f"rounds excludes 0; no correction for several batch sizes); peak memory: {memories or 'no number'}."
    )


def judge_equal(results: Results, suite: str, claim: dict[str, Any]) -> tuple[str, str]:
    """Two losses are equal: `yes` when the gap `metric` of every training seed is at most 1e-10 for the variant and above 1e-3 for
    what it is held against, `no` when a seed is on the wrong side, `not decided` while one is missing. Returns word and reason."""
    words, held = [], []
    for key, closed in (("variant", True), ("against", False)):
        name = claim[key]
        found, missing = results.of(name, suite, claim["metric"]), results.missing(name, suite, claim["metric"])
        if missing:
            words.append(f"{name}: {by_reason(missing)}")
            continue
        held.append(bool((found <= GAP_CLOSED).all() if closed else (found > GAP_OPEN).all()))
        rule = f"at most {GAP_CLOSED:g}" if closed else f"above {GAP_OPEN:g}"
        words.append(f"{name}: {show(float(found.min()))} to {show(float(found.max()))} over {len(found)} seeds, needed {rule}")
    word = "no" if not all(held) else "yes" if len(held) == 2 else "not decided"
    return word, "; ".join(words)


# ---------------------------------------------------------------- the two verbs


def run_verb(what: str, module: ModuleType, write: Callable[[Path, Any, str, str], None], argv: list[str] | None = None) -> None:
    """`python -m bench.<what> ORIGIN TARGET [names...]`: make what the suites list, or what is named; an error is one line."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{what}")
    parser.add_argument("origin", type=Path, help="folder with metrics.csv, runs.csv and images.npz")
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("names", nargs="*", help="only these: <name> or <suite>_<name>")
    options = parser.parse_args(argv)
    try:
        results = Results.load(options.origin)
        wanted = [(f"{suite}_{name}", suite, name) for suite, about in results.about["suites"].items() for name in about[what]]
        legal = {name for stem, _, short in wanted for name in (stem, short)}
        for name in options.names:
            if name not in legal:
                raise ValueError(unknown(what.removesuffix("s"), name, legal))
        for stem, suite, name in wanted:
            if not options.names or {stem, name} & set(options.names):
                content, caption = find(module, what.removesuffix("s"), name)(results, suite)
                write(options.target / stem, content, caption, results.about.get("reduced") or "")
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename}: no such file; run the study first, or collect its results")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
