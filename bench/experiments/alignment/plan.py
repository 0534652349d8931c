"""Training a model on so that it tells its classes apart: what the figure reads."""

from __future__ import annotations

from collections.abc import Iterator

from ...study.contrast import CONTRASTED
from ...study.schema import Study, Variant
from ...study.suite_checks import Resolved

NEEDS = {"figure_alignment": "trained"}


def problems(study: Study, one: Resolved) -> Iterator[str]:
    """Nobody is aligned."""
    arms = {variant.distill.arm for variant in one.variants.values() if variant.distill}
    if "alignment" not in one.suite.figures:
        return
    yield from _control_problems(one)
    if not arms & set(CONTRASTED):
        yield (
            "figures: 'alignment' shows trainings of distill.arm cca and its control "
            "cross_entropy; add one or remove it"
        )


def _control_problems(one: Resolved) -> Iterator[str]:
    """Several controls of one teacher, or one of another number of steps: losses are shown less
    that of the control after as many."""
    distilled = {name: variant for name, variant in one.variants.items() if variant.distill}
    teachers = {
        name: variant.distill.model_dump_json(include={"teacher"})
        for name, variant in distilled.items()
        if variant.distill and variant.distill.arm in CONTRASTED
    }
    control_of: dict[str, str] = {}
    for name, teacher in teachers.items():
        distill = distilled[name].distill
        if distill is None or distill.arm != "cross_entropy":
            continue
        if teacher in control_of:
            yield (
                f"figures: 'alignment': {control_of[teacher]!r} and {name!r} are two controls "
                "(distill.arm cross_entropy) of one teacher, and losses would be shown less that "
                "of one; give each a suite of its own"
            )
        control_of[teacher] = name
    for name, teacher in teachers.items():
        control = control_of.get(teacher, name)
        steps, others = (_steps(distilled[each]) for each in (name, control))
        if steps != others:
            yield (
                f"figures: 'alignment': {name!r} is trained for {steps} steps and its control "
                f"{control!r} for {others}; give both the same training.steps"
            )


def _steps(variant: Variant) -> int | None:
    return variant.training.steps if variant.training else None
