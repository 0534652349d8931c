"""The extractors of a job that scores the same images in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..runtime.verb import Run
from ..study.names import OF_EXTRACTOR
from ..study.scores import metrics_of_each
from ..study.settings import FeaturesConfig
from .datasets import AnyImages
from .metrics import Extractor, Score, Scored, score
from .reference import Reference, open_reference


@dataclass(frozen=True)
class Evaluator:
    """An extractor, what it holds images against, and the metrics that are taken in it."""

    extractor: Extractor
    reference: Reference
    metrics: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.extractor.config.name


def open_evaluators(
    run: Run, metrics: Sequence[str], reference: Reference | None = None
) -> list[Evaluator]:
    """The extractors that a run scores in, the main one first.

    metrics: of the study; what no extractor changes is left to one of them. reference: what all
    hold images against; None: each its own, the held-out split or the file of the study.
    """
    roles = sorted(filter(OF_EXTRACTOR.fullmatch, run.config), key=lambda role: (len(role), role))
    configs = {role: run.settings(role, FeaturesConfig) for role in roles}
    taken = metrics_of_each(metrics, [config.kind for config in configs.values()])
    evaluators = []
    for (role, config), names in zip(configs.items(), taken):
        extractor = Extractor(config, run.device, run.inputs[role])
        against = reference or open_reference(config, run.inputs["data"])
        evaluators.append(Evaluator(extractor, against, names))
    return evaluators


def scores_of(
    evaluators: Sequence[Evaluator], images: AnyImages, labels_N: np.ndarray | None
) -> dict[str, Score]:
    """The scores of images in every extractor, as `score` gives those in one."""
    scores: dict[str, Score] = {}
    for evaluator in evaluators:
        scored = Scored(images, labels_N, evaluator.reference, evaluator.extractor)
        scores |= score(scored, evaluator.metrics)
    return scores
