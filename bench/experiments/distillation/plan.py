"""Fewer scales than a teacher: what its figure and table read."""

from __future__ import annotations

from collections.abc import Iterator

from ...study.schema import Study
from ...study.suite_checks import Resolved

NEEDS = {"figure_distillation": "scored", "table_distillation": "scored"}
SHOWS_FID = ("figure_distillation", "table_distillation")


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Students stand in grids, one of an entry at a schedule: of two, one would be drawn."""
    if "distillation" not in resolved.suite.figures:
        return
    if not any(entry.grid for entry in resolved.suite.variants.values()):
        yield (
            "figures: 'distillation' shows the variants of grids; give one a grid of "
            "model.patch_nums"
        )
    for name, members in resolved.members.items():
        schedules = [resolved.variants[member].model.patch_nums for member in members]
        if len(set(schedules)) < len(schedules):
            yield (
                f"figures: 'distillation': variants of {name!r} differ in more than "
                f"model.patch_nums (grid: {', '.join(resolved.suite.variants[name].grid)}) and "
                "would share a place; give each its own entry"
            )
