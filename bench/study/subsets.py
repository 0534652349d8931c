"""Trainings on some of the training images, `training.unique_images`: what cannot be, found before
any work. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .checks import most_to_train_on
from .resolve import teacher_of

if TYPE_CHECKING:
    from .schema import Study, Variant


# what these trainings report beside what every training does
OF_SUBSETS = ("best_loss", "best_loss_train", "epochs_to_best", "loss_one_epoch", "unique_images")


def most_images(study: Study) -> int | None:
    """No training split of a study has more images than this; None where nobody knows before the
    files are read."""
    known = most_to_train_on(study), study.dataset.train_images
    return min((count for count in known if count is not None), default=None)


def subset_problems(study: Study, variants: Mapping[str, Variant]) -> Iterator[str]:
    """Trainings, teachers' among them, that take more images than there are, fewer than there are
    classes, or that learn from something else."""
    for name, variant in variants.items():
        yield from _problems(study, f"variants.{name}.", variant)


def _problems(study: Study, at: str, variant: Variant) -> Iterator[str]:
    images = variant.training.unique_images if variant.training is not None else None
    if images is not None and (why := _unfit(study, variant, images)):
        yield f"{at}training.unique_images: {images}: {why}"
    if variant.distill is not None:
        teacher = teacher_of(study, variant.distill)
        yield from _problems(study, f"{at}distill.teacher.", teacher)


def _unfit(study: Study, variant: Variant, images: int) -> str | None:
    """Why a training cannot be on so many images; None where it can."""
    most, classes = most_images(study), study.dataset.num_classes
    if variant.distill is not None:
        return (
            f"distill.arm {variant.distill.arm} learns from what its teacher knows of all "
            "training images; leave it out, or give dataset.train_images"
        )
    if variant.model.regresses:
        return "head gauss is trained on all training images; leave it out"
    if variant.model.condition != "none":
        return "a model that restores is trained on all training images; leave it out"
    if images < classes:
        return f"leaves some of the {classes} classes without an image; give {classes} or more"
    if most is not None and images > most:
        return f"the training split has at most {most}; give as many or fewer"
    return None
