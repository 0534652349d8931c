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
    if "alignment" in one.suite.figures and not arms & set(CONTRASTED):
        yield (
            "figures: 'alignment' shows trainings of distill.arm cca and its control "
            "cross_entropy; add one or remove it"
        )
