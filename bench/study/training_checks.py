"""What a training asks of the model that it trains, and of what it starts from. Imports no
torch."""

from __future__ import annotations

from collections.abc import Iterator

from .contrast import CONTRASTED
from .errors import ConfigError
from .schema import Variant
from .settings import TrainingConfig


def check_training(variant: Variant, at: str) -> None:
    """Refuse settings of a training that its model or its arm cannot read (VAR, arXiv 2404.02905,
    section 4). Raises ConfigError."""
    if variant.training is None:
        return
    for problem in _problems(variant, variant.training):
        raise ConfigError(f"{at}training.{problem}")


def _problems(variant: Variant, training: TrainingConfig) -> Iterator[str]:
    yield from _one_scale_problems(variant, training)
    yield from _mask_weight_problems(variant, training)
    yield from _loss_weight_problems(variant, training)
    yield from _correction_problems(variant, training)


def _one_scale_problems(variant: Variant, training: TrainingConfig) -> Iterator[str]:
    """What sets scales apart where there is one: the same training under another name."""
    if variant.model.schedule.num_scales > 1:
        return
    if training.corruption != "none":
        yield (
            f"corruption: {training.corruption!r} changes tokens that a later scale reads, there "
            "is one scale alone; set it to none"
        )
    if training.loss_weight != "token":
        yield (
            f"loss_weight: {training.loss_weight!r} weighs scales, there is one alone; set it to "
            "token"
        )


def _mask_weight_problems(variant: Variant, training: TrainingConfig) -> Iterator[str]:
    """Weights of masked tokens where a training masks none."""
    weight = training.mask_weight
    if weight == "count":
        return
    weighs = f"mask_weight: {weight!r} weighs masked tokens, but"
    if variant.model.mask_prob == 0:
        yield f"{weighs} model.mask_prob is 0; set mask_weight count, or mask_prob more than 0"
    elif variant.distill and variant.distill.arm == "logit":
        yield (
            f"{weighs} distill.arm logit learns with all own tokens masked; set mask_weight count"
        )


def _loss_weight_problems(variant: Variant, training: TrainingConfig) -> Iterator[str]:
    """Weights of scales where the loss is no cross-entropy of tokens."""
    weight = training.loss_weight
    if weight == "token":
        return
    weighs = f"loss_weight: {weight!r} weighs the cross-entropy of tokens, but"
    arm = variant.distill.arm if variant.distill else None
    if variant.model.regresses:
        yield f"{weighs} head gauss predicts none; set it to token"
    elif arm == "logit" or arm == CONTRASTED[0]:
        yield f"{weighs} distill.arm {arm} minimises another loss; set it to token"


def _correction_problems(variant: Variant, training: TrainingConfig) -> Iterator[str]:
    """Errors in training where no scale follows, or where something else decides what is read."""
    correction, model = training.correction, variant.model
    if correction.name == "none":
        return
    at, last = f"correction: {correction.name!r}", model.schedule.num_scales - 1
    if last == 0:
        yield f"{at} needs a scale that reads another's errors, there is one alone; set it to none"
    elif (correction.scales or 0) > last:
        yield (
            f"correction.scales: {correction.scales}: the last of {last + 1} scales is read by "
            f"none; give {last} or fewer"
        )
    if model.regresses:
        yield f"{at} changes tokens, and head gauss predicts none; set it to none"
    if model.mask_prob:
        yield (
            f"{at} beside model.mask_prob {model.mask_prob}: own tokens would be those of another "
            "ladder; set one of them to none or 0"
        )
    if model.condition != "none":
        yield f"{at} is of a model that is told no image (condition none); set it to none"
    if training.unique_images is not None:
        yield f"{at} is of trainings on all images; set it to none, or unique_images to null"
    if training.corruption != "none":
        yield (
            f"{at} beside corruption {training.corruption!r}: both say which tokens are read; set "
            "one of them to none"
        )
    if variant.distill is not None:
        yield (
            f"{at} beside distill.arm {variant.distill.arm}: a student learns from its teacher's "
            "tokens or from clean ones; set it to none"
        )
