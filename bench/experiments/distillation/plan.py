"""Fewer scales than a teacher: what its figure and table read."""

from __future__ import annotations

from collections.abc import Iterator

from ...study.schema import Study
from ...study.suite_checks import Resolved

NEEDS = {"figure_distillation": "scored", "table_distillation": "scored"}
SHOWS_FID = ("figure_distillation", "table_distillation")


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Students stand in grids."""
    grids = any(entry.grid for entry in resolved.suite.variants.values())
    if "distillation" in resolved.suite.figures and not grids:
        yield (
            "figures: 'distillation' shows the variants of grids; give one a grid of "
            "model.patch_nums"
        )
