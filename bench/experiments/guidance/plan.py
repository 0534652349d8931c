"""Guidance: what its figure and table read."""

from __future__ import annotations

from collections.abc import Iterator

from ...study.schema import Study
from ...study.suite_checks import Resolved

NEEDS = {"figure_guidance": "scored", "table_guidance": "sweep"}
SHOWS_FID = HALVES = ("figure_guidance", "table_guidance")


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """A figure of guidance without any."""
    guided = any(variant.sampler.cfg_scale != 1 for variant in resolved.variants.values())
    if "guidance" in resolved.suite.figures and not guided:
        yield (
            "figures: 'guidance' needs variants with sampler.cfg_scale other than 1; add a grid of "
            "them"
        )
