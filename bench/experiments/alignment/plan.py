"""Training a model on so that it tells its classes apart: what the figure reads."""

from __future__ import annotations

from collections.abc import Iterator

from ...study.contrast import CONTRASTED
from ...study.schema import Study
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
    """Several controls of one teacher: losses are shown less that of one, of as many steps."""
    control_of: dict[str, str] = {}
    for name, variant in one.variants.items():
        if variant.distill is None or variant.distill.arm != "cross_entropy":
            continue
        teacher = variant.distill.model_dump_json(include={"teacher"})
        if teacher in control_of:
            yield (
                f"figures: 'alignment': {control_of[teacher]!r} and {name!r} are two controls "
                "(distill.arm cross_entropy) of one teacher, and losses would be shown less that "
                "of one; give each a suite of its own"
            )
        control_of[teacher] = name
