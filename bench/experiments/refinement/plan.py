"""Refinement inside a scale: what its figures read."""

from __future__ import annotations

from collections.abc import Iterator

from ...study.schema import Study
from ...study.suite_checks import Resolved

NEEDS = {"figure_refine_steps": "scored", "figure_heat_maps": "scored"}
SHOWS_FID = ("figure_refine_steps", "figure_heat_maps")


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Heat maps without cells of their own."""
    if "heat_maps" in resolved.suite.figures:
        yield from _heat_map_problems(resolved)


def _heat_map_problems(resolved: Resolved) -> Iterator[str]:
    """A heat map is a group whose variants differ in p_resample and refine_steps alone: else
    several would share a cell."""
    maps = 0
    for name, entry in resolved.suite.variants.items():
        members = [full for full, group in resolved.groups.items() if group == name]
        samplers = [resolved.variants[full].sampler for full in members]
        chances = [sampler.select.knobs().get("p_resample") for sampler in samplers]
        steps = [sampler.refine_steps for sampler in samplers]
        if len(samplers) < 2 or not all(steps) or None in chances:
            continue
        maps += 1
        if len(set(zip(chances, steps))) < len(samplers):
            yield (
                f"figures: 'heat_maps': variants of {name!r} differ in more than "
                "sampler.select.p_resample and sampler.refine_steps "
                f"(grid: {', '.join(entry.grid)}) and would share a cell; give each its own entry"
            )
    if not maps:
        yield (
            "figures: 'heat_maps' needs a grid of sampler.select.p_resample and "
            "sampler.refine_steps, each 1 or more; add one"
        )


def cautions(study: Study, resolved: Resolved) -> Iterator[str]:
    """A panel of times that nobody takes."""
    if "refine_steps" in resolved.suite.figures and "latency" not in resolved.suite.measure:
        yield "figures: 'refine_steps': its panel of times stays empty; add latency to measure"
