"""Settings of a study that nothing reads: whoever wrote them expects that they count. Imports no
torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from srdd.lookup import is_own

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


def idle_deltas(one: Resolved) -> Iterator[str]:
    """Settings in a delta that no variant of it reads, such as a rule of refinement where nothing
    is refined. Some name another training or sampler, and the same numbers are made again."""
    for group, names in one.members.items():
        variants = [one.variants[name] for name in names]
        for key in one.suite.variants[group].delta:
            reasons = [_unread(variant, key) for variant in variants]
            if reasons and all(reasons):
                yield f"variants.{group}.delta.{key}: is not read, {reasons[0]}; remove it"


def _unread(variant: Variant, key: str) -> str | None:
    """Why a variant does not read one of its settings; None where it may."""
    model, sampler = variant.model, variant.sampler
    section, _, setting = key.partition(".")
    if section == "training" and variant.weights is not None:
        return "weights are given and nothing is trained"
    if key == "model.class_dropout" and not model.num_classes:
        return "model.num_classes is 0"
    if section != "sampler":
        return None
    whole = sampler.top_k == model.codebook_size and not is_own("sample", sampler.name)
    if setting == "top_k" and whole:
        return f"the codebook has {model.codebook_size} codes"
    return idle_settings(sampler).get(setting.partition(".")[0])


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
