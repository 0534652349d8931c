"""Restoration without a scale transformer: what a suite may set, and which jobs that means."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from srdd.config import Positive

from ...study.chain import add_tokenized
from ...study.checks import MIN_IMAGES
from ...study.held_out_checks import unlike_problems
from ...study.jobs import Job, Plan
from ...study.names import dump
from ...study.restore_settings import DegradedHeldOut, classifier_of, degradation_problems
from ...study.schema import Study, Variant
from ...study.suite_checks import Resolved

BESIDE = "restoration"  # the measure whose rows stand beside those of this one
TRAINS = READS_TEST = RESTORES = OF_TOKENIZER = True
MOST_PIXELS = 4096  # a ridge regression inverts a matrix of so many rows


class Settings(DegradedHeldOut):
    """What restores held-out images without a scale transformer, and which scales carry a
    degradation."""

    regressions: bool = Field(
        True, description="ridge regression and an MLP on the pixels; false: neither"
    )
    train_images: int = Field(
        20_000, ge=MIN_IMAGES, le=10**7, description="training images that they see at most"
    )
    ridge: float = Field(1e-2, gt=0, le=1e6, description="penalty a training image")
    units: Positive = Field(256, description="hidden units of each layer of the MLP")
    layers: int = Field(2, ge=1, le=100, description="hidden layers of the MLP")
    unet: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="channels of a U-Net on images of any size, doubled at each of two more "
        "levels; null: none",
    )
    steps: Positive = Field(640, description="of AdamW on the L1 error, the rate falling to 0")
    batch_size: Positive = Field(64, description="degraded training images a step")
    lr: float = Field(1e-3, gt=0, le=10, description="rate of the first step")
    swap: bool = Field(True, description="swap tokens of degraded and clean images, scale by scale")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job for each tokenizer and schedule, whatever the model, with the study's first
    classifier."""
    study = plan.study
    for variant in variants.values():
        for seed in study.seeds_of(suite):
            chain = add_tokenized(plan, suite, variant, seed)
            told = {"restoration_baselines": dump(study.told(suite, "restoration_baselines"))}
            classifier = classifier_of(study, chain.features)
            config = {**chain.encoded.config, **told, "features": classifier.config["features"]}
            read = {**chain.read, "features": classifier.run_id}
            names = chain.encoded.identity
            plan.add(suite, Job("restoration_baselines", config, read, chain.encoded.slug, names))


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Degradations that cannot be, and images too large for a regression of all pixels."""
    if "restoration_baselines" not in resolved.suite.measure:
        return
    told, data = study.told(resolved.name, "restoration_baselines"), study.dataset
    yield from degradation_problems("restoration_baselines", told.degradations, told.strength, data)
    if BESIDE in resolved.suite.measure:
        keys = DegradedHeldOut.model_fields
        yield from unlike_problems(study, resolved.name, "restoration_baselines", BESIDE, keys)
    pixels = data.channels * data.image_size**2
    if told.regressions and pixels > MOST_PIXELS:
        yield (
            f"restoration_baselines.regressions: true: images of {pixels:,} numbers; a regression "
            f"of all takes {MOST_PIXELS:,} at most, set it to false and unet to its channels"
        )
