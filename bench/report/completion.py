"""TODO"""

from __future__ import annotations

import pandas as pd

from .absent import by_reason
from .results import Results
from .words import bias_words, extractor_kind


def at(results: Results, variant: str, suite: str, metric: str, scale: int | None = None) -> pd.Series:
    """Values of a metric at a scale, or of one that has none, by train_seed; seeds without a number are left out."""
    rows = results.select(variant, suite, metric)
    rows = rows[rows["step"].isna() & rows["repeat"].isna() & rows["value"].notna()]
    rows = rows[rows["scale"].isna() if scale is None else rows["scale"] == scale]
    return rows.set_index(rows["train_seed"].astype(int))["value"]


def along_scales(results: Results, variant: str, suite: str, metric: str) -> pd.DataFrame:
    """Values of a metric at every scale that has one: columns train_seed, scale, value."""
    return results.select(variant, suite, metric).dropna(subset=["scale", "value"])[["train_seed", "scale", "value"]]


def lost(results: Results, suite: str, variant: str, metric: str, scale: int | None = None) -> dict[int, str]:
    """Training seeds of the suite without a number, and why."""
    there, names = at(results, variant, suite, metric, scale).index, results.variants(suite)[variant]
    return {seed: results.why(names, seed) for seed in results.suite(suite)["train_seeds"] if seed not in there}


def lost_words(results: Results, suite: str, metric: str, scale: int | None = None) -> str:
    """One line that names every variant and seed without a number; empty when all are there."""
    found = {variant: lost(results, suite, variant, metric, scale) for variant in results.variants(suite)}
    return "; ".join(f"{variant}: {by_reason(seeds)}" for variant, seeds in found.items() if seeds)


def counts(results: Results, suite: str, measure: str) -> list[int]:
    """Every N that was measured."""
    mine = results.metrics["run_id"].isin(
        [run for run in results.suite(suite)["runs"] if run.startswith(f"{measure}/")]
    )
    return sorted(results.metrics.loc[mine, "num_images"].dropna().astype(int).unique().tolist())


def count_words(results: Results, suite: str, measure: str) -> str:
    """N as it was measured."""
    return ", ".join(map(str, counts(results, suite, measure))) or "none measured"


def few_words(results: Results, suite: str, measure: str) -> str:
    """Says where fewer images were scored than the features have dimensions."""
    return bias_words(results, min(counts(results, suite, measure), default=None))


def extractor_words(results: Results) -> str:
    """The extractor's name and kind."""
    return f"extractor {results.extractor} ({extractor_kind(results)})"
