"""Losses and codes along the scales: what their figures and table read."""

from __future__ import annotations

from collections.abc import Iterator

from ...study.schema import Study
from ...study.suite_checks import Resolved

NEEDS = {name: "trained" for name in ("figure_per_scale", "figure_code_usage", "table_tokenizer")}


def problems(study: Study, one: Resolved) -> Iterator[str]:
    """Losses of trainings that nobody made."""
    imported = all(variant.training is None for variant in one.variants.values())
    if "per_scale" in one.suite.figures and imported:
        yield (
            "figures: 'per_scale' needs losses of a training, every variant here is imported; "
            "remove it"
        )
