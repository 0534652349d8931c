"""Dials of other Markovian models beside the same model without: what their figure and table read,
and what of the dials says nothing."""

from __future__ import annotations

from collections.abc import Iterator

from srdd.config import ModelConfig

from ...study.schema import Study, Variant
from ...study.suite_checks import Resolved

NEEDS = {"figure_pairs": "scored", "table_dials": "scored"}
SHOWS_FID = ("figure_pairs", "table_dials")


def is_turned(variant: Variant) -> bool:
    """Whether a variant has a dial that is not off."""
    model, training, sampler = variant.model, variant.training, variant.sampler
    learns = training is not None and (
        training.loss_weight != "token" or training.correction.name != "none"
    )
    sees = model.history_vector > 0 or model.window is not None or model.state != "sum"
    return learns or sees or sampler.detail_scale > 0


def pairs_of(model: ModelConfig) -> int | None:
    """Attended pairs of a model; None under a mask of one's own."""
    if model.mask is not None:
        return None
    return model.schedule.attended_pairs(model.history, model.window, model.window_from)


def problems(study: Study, one: Resolved) -> Iterator[str]:
    """A table without a dial, and a figure whose variants have all one place."""
    variants = one.variants.values()
    if "dials" in one.suite.tables and not any(map(is_turned, variants)):
        yield (
            "tables: 'dials' shows variants with model.history_vector, model.window, model.state, "
            "training.loss_weight, training.correction or sampler.detail_scale; add one or remove "
            "it"
        )
    pairs = {pairs_of(variant.model) for variant in variants} - {None}
    if "pairs" in one.suite.figures and len(pairs) < 2:
        yield (
            "figures: 'pairs' needs variants that attend to different numbers of pairs; give one a "
            "model.window or another model.history"
        )


def cautions(study: Study, one: Resolved) -> Iterator[str]:
    """Dials that do nothing, or the same as another value."""
    for name, variant in one.variants.items():
        for line in _of_model(variant.model):
            yield f"variants.{name}.{line}"


def _of_model(model: ModelConfig) -> Iterator[str]:
    last, N, window = model.schedule.num_scales - 1, model.history_vector, model.window
    if N > max(1, last):
        yield (
            f"model.history_vector: {N}: only {last} scales read an input, so that it pools what "
            f"{max(1, last)} does; the two are one model under two names"
        )
    if window is None and "window_from" in model.model_fields_set:
        yield "model.window_from: is not read, model.window is null; remove it"
    if window is not None and not any(
        model.schedule.windowed(k, window, model.window_from) for k in range(last + 1)
    ):
        sides = model.patch_nums[model.window_from :]
        yield (
            f"model.window: {window}: no scale from {model.window_from} on has a larger side "
            f"({max(sides)}), so that all is seen; null is the same model under another name"
        )
