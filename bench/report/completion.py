"""What is said of completed images and of corrupted tokens. Imports no torch."""

from __future__ import annotations

import pandas as pd

from .absent import by_reason
from .results import Results
from .view import View
from .words import bias_words, extractor_kind


def at(view: View, variant: str, metric: str, scale: int | None = None) -> pd.Series:
    """Values of a metric at a scale, or of one that has none, by train_seed; seeds without a number
    are left out."""
    rows = view.select(variant, metric)
    rows = rows[rows["step"].isna() & rows["repeat"].isna() & rows["value"].notna()]
    rows = rows[rows["scale"].isna() if scale is None else rows["scale"] == scale]
    return rows.set_index(rows["train_seed"].astype(int))["value"]


def fullest_of(view: View, metric: str, scale: int | None = None) -> str:
    """The variant that has a number in most training seeds; the first of several."""
    return max(view.variants, key=lambda variant: len(at(view, variant, metric, scale)))


def along_scales(view: View, variant: str, metric: str) -> pd.DataFrame:
    """Values of a metric at every scale that has one: columns train_seed, scale, value."""
    rows = view.select(variant, metric).dropna(subset=["scale", "value"])
    return rows[["train_seed", "scale", "value"]]


def lost(view: View, variant: str, metric: str, scale: int | None = None) -> dict[int, str]:
    """Training seeds of the suite without a number, and why."""
    there, names = at(view, variant, metric, scale).index, view.variants[variant]
    absent = [seed for seed in view.about["train_seeds"] if seed not in there]
    return {seed: view.results.why(names, seed) for seed in absent}


def lost_words(view: View, metric: str, scale: int | None = None) -> str:
    """One line that names every variant and seed without a number; empty when all are there."""
    absent = {variant: lost(view, variant, metric, scale) for variant in view.variants}
    return "; ".join(f"{variant}: {by_reason(seeds)}" for variant, seeds in absent.items() if seeds)


def counts(view: View, measure: str) -> list[int]:
    """Every N that was measured."""
    runs = [run for run in view.about["runs"] if run.startswith(f"{measure}/")]
    rows = view.results.metrics[view.results.metrics["run_id"].isin(runs)]
    return sorted(rows["num_images"].dropna().astype(int).unique().tolist())


def count_words(view: View, measure: str) -> str:
    """N as it was measured."""
    return ", ".join(map(str, counts(view, measure))) or "none measured"


def few_words(view: View, measure: str) -> str:
    """Says where fewer images were scored than the features have dimensions."""
    return bias_words(view.results, min(counts(view, measure), default=None))


def extractor_words(results: Results) -> str:
    """Name and kind of every extractor."""
    names = (results.extractor, *results.others)
    said = [f"{name} ({extractor_kind(results.by(name))})" for name in names]
    return f"extractor{'s' * (len(said) > 1)} {'; '.join(said)}"
