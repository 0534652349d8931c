"""What a model that restores is trained on. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from srdd.config import Strict
from srdd.lookup import names_function, names_in, unknown
from srdd.misfits import strength_misfit

from .checks import MIN_IMAGES
from .errors import PROJECT
from .settings import DatasetConfig, once_each

if TYPE_CHECKING:
    from .jobs import Job
    from .schema import DistillConfig, Study
    from .settings import WeightsConfig

PAIRED = "paired"  # the degraded image that a paired folder gives itself
RESTORES = "restore"  # the arm of a distillation that starts from a model which is told no image
FOUR = ("noise", "occlusion", "contrast", "blur")


class Degraded(Strict):
    """Which degradations images get, and how strong they are."""

    degradations: tuple[str, ...] = Field(
        FOUR,
        strict=False,
        min_length=1,
        description="names of degrade_<name> in srdd/degradation.py; paired: the degraded images "
        "of a paired_folder",
        json_schema_extra=names_function("degrade"),
    )
    strength: float = Field(
        1.0, gt=0, le=100, description="how strong; at 1 as each function says, at 0 nothing"
    )

    _degradations_differ = once_each("degradations")


class RestoreConfig(Degraded):
    """Degraded images that a model with model.condition learns to restore (RestoreVAR, arXiv
    2505.18047): each image of a step has one of the degradations."""


class DegradedHeldOut(Degraded):
    """Which held-out images are degraded, and how."""

    num_images: int | None = Field(
        None,
        ge=MIN_IMAGES,
        le=10**7,
        description="held-out images, of each class its share; null: all",
    )


def classifier_of(study: Study, features: tuple[Job, ...]) -> Job:
    """The job of the study's first classifier, or of its first extractor where it has none."""
    kinds = [one.kind for one in study.features]
    return features[kinds.index("trained") if "trained" in kinds else 0]


FEWEST_BLURRED = 32  # pixels of a side: a Gaussian of side / 64 pixels of smaller images is none


def degradation_problems(
    at: str, names: Iterable[str], strength: float, dataset: DatasetConfig
) -> Iterator[str]:
    """Degradations that nobody wrote, that are too strong, or that the dataset does not come
    with."""
    legal = [*names_in(PROJECT / "srdd" / "degradation.py", "degrade"), PAIRED]
    for name in names:
        if name not in legal:
            yield f"{at}.degradations: {unknown('degradation', name, legal)}"
        elif name == PAIRED and dataset.name != "paired_folder":
            yield (
                f"{at}.degradations: paired: the dataset {dataset.name!r} has no degraded images "
                "of its own; take a paired_folder, or name another"
            )
        elif name == "gaussian_blur" and dataset.image_size < FEWEST_BLURRED:
            yield (
                f"{at}.degradations: gaussian_blur: changes nothing at {dataset.image_size} "
                f"pixels; it needs {FEWEST_BLURRED}, take blur"
            )
        elif problem := strength_misfit(name, strength):
            yield f"{at}.{problem}"


def restore_misfit(
    condition: str,
    restore: RestoreConfig | None,
    distill: DistillConfig | None,
    weights: WeightsConfig | None,
) -> str | None:
    """Why a variant does not restore as it is told, as `key: reason`; None when it does."""
    starts = distill is not None and distill.arm == RESTORES
    if condition == "none":
        if starts:
            return f"distill.arm: {RESTORES}: model.condition is none; set it, or take arm real"
        what = "restore: is not read, model.condition is none; set model.condition, or leave it out"
        return what if restore is not None else None
    if starts:  # the weights of a base may be those of its teacher
        return None
    for key, given in {"distill": distill, "weights": weights}.items():
        if given is not None:
            return (
                f"{key}: model.condition {condition!r} is trained here, by itself; leave it out, "
                f"or start from a teacher by distill.arm {RESTORES}"
            )
    return None
