"""Settings of a study that nothing reads: whoever wrote them expects that they count. Imports no
torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .names import idle_settings

if TYPE_CHECKING:
    from .schema import Variant
    from .suite_checks import Resolved

# settings of a tokenizer's losses by the weight that, at 0, leaves them unread
OF_A_LOSS = {
    "perceptual": ("perceptual_network", "perceptual_weights", "perceptual_size"),
    "adversarial": ("adversarial_start", "discriminator"),
}


def idle_grids(one: Resolved) -> Iterator[str]:
    """Values of a grid that nothing reads: its variants would be one, and one is left."""
    for group, names in one.members.items():
        for key, values in one.suite.variants[group].grid.items():
            left = {repr(one.grids[name][key]) for name in names}
            if len(values) > 1 and len(left) == 1:
                yield (
                    f"variants.{group}.grid.{key}: {list(values)}: gives one variant, "
                    f"{left.pop()}; the values are equal, or nothing reads them"
                )


def idle_samplers(one: Resolved) -> Iterator[str]:
    """Settings of a sampler in a delta that no variant of it reads, such as a rule of refinement
    where nothing is refined."""
    for group, names in one.members.items():
        idle = [idle_settings(one.variants[name].sampler) for name in names]
        for key in one.suite.variants[group].delta:
            section, _, setting = key.partition(".")
            reasons = [each.get(setting.partition(".")[0]) for each in idle]
            if section == "sampler" and reasons and all(reasons):
                yield f"variants.{group}.delta.{key}: is not read, {reasons[0]}; remove it"


def idle_for_others(one: Resolved) -> Iterator[str]:
    """Settings in a delta that no variant of it reads for what stands elsewhere: they name another
    training or sampler, and the same numbers are made again."""
    for group, names in one.members.items():
        for key in one.suite.variants[group].delta:
            reasons = [_unread(one.variants[name], key) for name in names]
            if reasons and all(reasons):
                yield f"variants.{group}.delta.{key}: is not read, {reasons[0]}; remove it"


def _unread(variant: Variant, key: str) -> str | None:
    """Why a variant does not read one of its settings."""
    model, sampler = variant.model, variant.sampler
    if key.startswith("training.") and variant.weights is not None:
        return "weights are given and nothing is trained"
    if key == "model.class_dropout" and not model.num_classes:
        return "model.num_classes is 0"
    if key == "sampler.top_k" and sampler.top_k == model.codebook_size:
        return f"the codebook has {model.codebook_size} codes"
    return None


def losses_in_use(suites: dict[str, Resolved]) -> set[str]:
    """Weights of losses that some tokenizer of a study trains with."""
    variants = [variant for one in suites.values() for variant in one.variants.values()]
    trainings = [one.tokenizer.training for one in variants if one.tokenizer.weights is None]
    return {weight for weight in OF_A_LOSS for one in trainings if getattr(one, weight)}


def idle_losses(variant: Variant, in_use: set[str]) -> Iterator[str]:
    """Settings of a loss that no tokenizer of the study trains with: nothing reads them, but the
    tokenizer has another name and is trained again."""
    training = variant.tokenizer.training
    for weight in OF_A_LOSS.keys() - in_use:
        for key in OF_A_LOSS[weight]:
            if key in training.model_fields_set:
                yield (
                    f"tokenizer.training.{key}: is not read, {weight} is 0; give {weight}, or "
                    f"remove {key}"
                )
