"""Training a model on so that it tells its classes apart: what the figure reads."""

from __future__ import annotations

from collections.abc import Iterator

from ...study.contrast import CONTRASTED
from ...study.schema import Study
from ...study.suite_checks import Resolved

NEEDS = {"figure_alignment": "trained"}


def problems(study: Study, one: Resolved) -> Iterator[str]:
    """Nobody is aligned, or against no one control."""
    if "alignment" not in one.suite.figures:
        return
    yield from _control_problems(one)
    arms = {variant.distill.arm for variant in one.variants.values() if variant.distill}
    if not arms & set(CONTRASTED):
        yield (
            "figures: 'alignment' shows trainings of distill.arm cca and its control "
            "cross_entropy; add one or remove it"
        )


def _control_problems(one: Resolved) -> Iterator[str]:
    """Several controls of one teacher, or one of another number of steps: losses are shown less
    that of the control after as many."""
    teachers, control_of, steps = {}, dict[str, str](), {}
    for name, variant in one.variants.items():
        distill, training = variant.distill, variant.training
        if distill is None or training is None or distill.arm not in CONTRASTED:
            continue
        teacher = distill.model_dump_json(include={"teacher"})
        teachers[name], steps[name] = teacher, training.steps
        if distill.arm != "cross_entropy":
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
        if steps[name] != steps[control]:
            yield (
                f"figures: 'alignment': {name!r} is trained for {steps[name]} steps and its "
                f"control {control!r} for {steps[control]}; give both the same training.steps"
            )
