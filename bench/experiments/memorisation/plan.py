"""Samples of the weights along a training, held against the images that it saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from srdd.config import Strict

from ...study.chain import trainings
from ...study.jobs import Job, Plan
from ...study.names import canonical_sampler, drawn, dump, features_config
from ...study.schema import Study, Variant
from ...study.suite_checks import Resolved

TRAINS = DRAWS = READS_TEST = True
# numbers of a training that rules of any metric can be asked of
REPORTED = ("nearest_rate", "seen_images")
FEWEST_SEEN = 2  # images that have a covariance


class Settings(Strict):
    """Which weights along a training are drawn from, and when a sample counts as a copy."""

    ratio: float | None = Field(
        2.0,
        gt=1,
        le=1000,
        description="each weights along the training that images are drawn from have at least so "
        "many times the steps of those before; null: the kept weights alone",
    )
    quantile: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="share of held-out images that are nearer to a training image than a sample "
        "must be to count in `nearest_rate`",
    )


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job a training: it draws its images itself, scores them in the main extractor alone and
    keeps none."""
    study = plan.study
    shared = {
        "memorisation": dump(study.told(suite, "memorisation")),
        "evaluation": drawn(study.evaluation),
        "features": features_config(study),
    }
    for variant, trained in trainings(plan, suite, variants):
        config = {**trained.config, "sampler": canonical_sampler(variant.sampler), **shared}
        read = trained.inputs("data", "tokenizer", "tokens", "train")
        read["features"] = trained.features[0].run_id
        plan.add(suite, Job("memorisation", config, read, trained.slug, trained.names))


def spread_steps(steps: Sequence[int], ratio: float | None) -> list[int]:
    """The first of some rising steps, then each that is at least `ratio` times the one before it:
    trainings that end elsewhere share what they both reach. None of them where ratio is None."""
    kept: list[int] = []
    if ratio is None:
        return kept
    for step in steps:
        if not kept or step >= ratio * kept[-1]:
            kept.append(step)
    return kept


# ---------------------------------------------------------------- checks


def problems(study: Study, one: Resolved) -> Iterator[str]:
    """Models whose training images nobody knows, or too few for a covariance."""
    if "memorisation" not in one.suite.measure:
        return
    for name, variant in one.variants.items():
        if variant.training is None:
            yield (
                f"variants.{name}: is imported, which images it was trained on is not known; "
                "remove it"
            )
        elif variant.distill is not None:
            yield (
                f"variants.{name}.distill: which images its teacher saw is not asked; leave it out "
                "of measure memorisation"
            )
        elif (variant.training.unique_images or FEWEST_SEEN) < FEWEST_SEEN:
            yield (
                f"variants.{name}.training.unique_images: {variant.training.unique_images}: FID "
                f"needs a covariance; give {FEWEST_SEEN} or more"
            )


def cautions(study: Study, one: Resolved) -> Iterator[str]:
    """One point along a training, and fewer images than features."""
    if "memorisation" not in one.suite.measure:
        return
    dim, ratio = study.extractor.dim, study.told(one.name, "memorisation").ratio
    for name, variant in one.variants.items():
        training = variant.training
        if training is None:
            continue
        if ratio is not None and training.snapshot_every >= training.steps:
            yield (
                f"variants.{name}: training.snapshot_every: {training.snapshot_every}: gives one "
                f"point along {training.steps} steps, no curve; give less, or memorisation.ratio "
                "null"
            )
        if training.unique_images is not None and training.unique_images <= dim:
            yield (
                f"variants.{name}: training.unique_images: {training.unique_images}: not more than "
                f"the {dim} features: their covariance is singular and FID against them is biased"
            )
