"""A latent, a head and a partition, one changed at a time: what is measured of each model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from srdd.config import Positive, Strict

from ...study.chain import add_probe
from ...study.jobs import Plan
from ...study.schema import Study, Variant
from ...study.settings import once_each
from ...study.suite_checks import Resolved

TRAINS = READS_TEST = True
SHOWS_FID = ("table_factors",)
REPORTED = (
    "refine_error_mean",
    "ladder_error_mean",
    "learned_error_mean",
    "half_fall",
    "noise_loss",
    "gradient_noise",
    "band_rise_latent",
    "band_rise_image",
    "head_parameters",
)


class Settings(Strict):
    """Which images are refined, how noisy they are, and how gradients are compared."""

    num_images: Positive = Field(512, description="held-out images at most, in their own shares")
    noise: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field(
        (0.0, 0.05, 0.1, 0.2),
        strict=False,
        min_length=1,
        max_length=20,
        description="standard deviations of the noise on images in [-1, 1] that are encoded and "
        "refined",
    )
    micro_batches: int = Field(
        32, ge=2, le=10**4, description="batches of training images whose gradients are compared"
    )

    _noises_differ = once_each("noise")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Refinement, noise shift, gradients and bands of each trained model."""
    add_probe(plan, suite, variants, "ladders", sampled=False)


def reports(study: Study, one: Resolved, variant: str) -> list[str]:
    """All but what noise loses, which two levels of it are needed for."""
    levels = study.told(one.name, "ladders").noise
    return [name for name in REPORTED if name != "noise_loss" or len(levels) > 1]


def problems(study: Study, one: Resolved) -> Iterator[str]:
    """What a suite cannot show of ladders."""
    if "ladders" not in one.suite.measure:
        return
    if "noise_shift" in one.suite.figures and len(study.told(one.name, "ladders").noise) < 2:
        yield "ladders.noise: 'noise_shift' compares levels; give two or more"


def cautions(study: Study, one: Resolved) -> Iterator[str]:
    """What a suite hardly means: scores whose FID alone would be read."""
    if "ladders" not in one.suite.measure or "scores" not in one.suite.measure:
        return
    if "class_agreement" not in study.evaluation.metrics:
        yield (
            "measure: scores without class_agreement in evaluation.metrics: a head of independent "
            "bits scores a low FID with images of the wrong class"
        )
