"""The results of one suite, as figures, tables and rules ask for them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..runtime.study_row import Record
from .estimate import Estimate
from .results import Results


def pools_past(names: Record) -> bool:
    """Whether a history vector of two or more scales makes a variant's prediction follow from more
    than the state (Markov-VAR, arXiv 2511.23334); one scale is the variant's own."""
    return (names["settings"]["model"].get("history_vector") or 0) > 1


@dataclass(frozen=True)
class View:
    """Results and the suite that is shown of them: every question of `Results` with the suite
    filled in."""

    results: Results
    suite: str
    whole: Results | None = None  # of which `results` are a few variants

    @property
    def about(self) -> dict[str, Any]:
        """What the suite asks: claim, measure, variants, what its rooms were told."""
        return self.results.suite(self.suite)

    @property
    def variants(self) -> dict[str, Record]:
        """Identity and settings of each variant, in the study's order."""
        return self.results.variants(self.suite)

    @property
    def runs(self) -> frozenset[str]:
        """Names of the runs that the suite lists."""
        return self.results.runs_of[self.suite]

    def only(self, names: Iterable[str]) -> View:
        """The same with some variants alone."""
        few = self.results.only(self.suite, names)
        return View(few, self.suite, self.whole or self.results)

    def by(self, extractor: str) -> View:
        """The same with every score asked of another extractor."""
        whole = self.whole and self.whole.by(extractor)
        return View(self.results.by(extractor), self.suite, whole)

    @property
    def lent(self) -> View:
        """The same for one figure, table or rule, which may change what it is handed."""
        return View(self.results.lent, self.suite, self.whole)

    @property
    def of_suite(self) -> View:
        """The same with all variants of the suite: what a claim is judged by, whatever is shown."""
        return View(self.whole or self.results, self.suite)

    def sampler(self, variant: str) -> dict[str, Any]:
        return self.results.sampler(variant, self.suite)

    def select(self, variant: str, metric: str) -> pd.DataFrame:
        return self.results.select(variant, self.suite, metric)

    def of(self, variant: str, metric: str, seeds: tuple[int, int] | None = None) -> pd.Series:
        return self.results.of(variant, self.suite, metric, seeds)

    def estimate(self, variant: str, metric: str) -> Estimate | None:
        return self.results.estimate(variant, self.suite, metric)

    def score(self, variant: str, name: str) -> Estimate | None:
        return self.results.score(variant, self.suite, name)

    def scored(self, *names: str) -> list[str]:
        """Those of these scores that a variant has, in the order given."""
        return [name for name in names if self._has(name)]

    def _has(self, score: str) -> bool:
        return any(self.score(variant, score) is not None for variant in self.variants)

    def difference(self, variant: str, metric: str, against: str | None = None) -> Estimate | None:
        return self.results.difference(variant, self.suite, metric, against)

    def groups(self) -> dict[str, list[str]]:
        return self.results.groups(self.suite)

    def tuned(self, group: str, metric: str, lower: bool = True) -> str | None:
        return self.results.tuned(group, self.suite, metric, lower)

    def snapshots(self, variant: str, metric: str) -> pd.DataFrame:
        return self.results.snapshots(variant, self.suite, metric)

    def by_scale(self, variant: str, metric: str) -> pd.DataFrame:
        return self.results.by_scale(variant, self.suite, metric)

    def rows_of(self, metric: str) -> pd.DataFrame:
        """Rows of a metric that runs of the suite report."""
        rows = self.results.rows_of(metric)
        return rows[rows["run_id"].isin(self.runs)]

    def of_grid(self, names: dict[str, Any], metric: str) -> pd.DataFrame:
        return self.results.of_grid(names, metric, self.suite)

    def grid_estimate(self, names: dict[str, Any], metric: str) -> Estimate | None:
        return self.results.grid_estimate(names, metric, self.suite)

    def grid_seeds(self, names: dict[str, Any], metric: str, scale: int | None = None) -> pd.Series:
        return self.results.grid_seeds(names, metric, self.suite, scale)

    def grid_value(self, names: dict[str, Any], metric: str) -> float | None:
        return self.results.grid_value(names, metric, self.suite)

    def grid_scales(self, names: dict[str, Any], metric: str) -> pd.Series:
        return self.results.grid_scales(names, metric, self.suite)

    def grids(self) -> dict[str, dict[str, Any]]:
        return self.results.grids(self.suite)

    def missing(self, variant: str, metric: str, along: bool = False) -> dict[int, str]:
        return self.results.missing(variant, self.suite, metric, along)

    def sample_run(self, variant: str) -> str | None:
        return self.results.sample_run(variant, self.suite)

    def latency_run(self) -> pd.Series | None:
        return self.results.latency_run(self.suite)

    def latency(self, metric: str) -> pd.DataFrame:
        return self.results.latency(self.suite, metric)

    def rounds(self, metric: str, variant: str, batch: int) -> pd.Series:
        return self.results.rounds(self.suite, metric, variant, batch)
