"""What likelihood classification is read against: classifiers of pixels and of tokens."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from srdd.config import Strict
from srdd.lookup import names_function

from ...study.chain import add_tokenized
from ...study.checks import MIN_IMAGES
from ...study.held_out_checks import class_problems, shift_problems, unlike_problems
from ...study.jobs import Job, Plan
from ...study.names import dump
from ...study.schema import Study, Variant
from ...study.settings import once_each
from ...study.suite_checks import Resolved

TRAINS = READS_TEST = OF_TOKENIZER = True
BESIDE = "classify"  # whose tables show these beside the models


class Settings(Strict):
    """Classifiers of held-out images that need no generative model."""

    num_images: int | None = Field(
        None,
        ge=MIN_IMAGES,
        le=10**7,
        description="held-out images, of each class its share; null: all",
    )
    train_images: int = Field(
        60_000,
        ge=MIN_IMAGES,
        le=10**7,
        description="training images that nearest neighbour and logistic regression see at most",
    )
    shifts: tuple[str, ...] = Field(
        ("none",),
        strict=False,
        min_length=1,
        description="names of shift_<name> in srdd/degradation.py, applied to held-out images",
        json_schema_extra=names_function("shift"),
    )

    _shifts_differ = once_each("shifts")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job for each tokenizer and schedule, whatever the model, with the study's first
    classifier."""
    study, kinds = plan.study, [features.kind for features in plan.study.features]
    for variant in variants.values():
        for seed in study.seeds_of(suite):
            chain = add_tokenized(plan, suite, variant, seed)
            told = {"class_baselines": dump(study.told(suite, "class_baselines"))}
            classifier = chain.features[kinds.index("trained") if "trained" in kinds else 0]
            config = {**chain.encoded.config, **told, "features": classifier.config["features"]}
            read = {**chain.read, "features": classifier.run_id}
            job = Job("class_baselines", config, read, chain.encoded.slug, chain.encoded.identity)
            plan.add(suite, job)


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Images without classes, and shifts that nobody wrote."""
    if "class_baselines" not in resolved.suite.measure:
        return
    yield from class_problems(study, "class_baselines")
    shifts = study.told(resolved.name, "class_baselines").shifts
    yield from shift_problems("class_baselines", shifts)
    if BESIDE in resolved.suite.measure:
        yield from unlike_problems(study, resolved.name, "class_baselines", BESIDE, ["num_images"])
        classes = study.told(resolved.name, BESIDE).classes
        if classes and classes < study.dataset.num_classes:
            yield (
                f"classify.classes: {classes}: class_baselines tell all "
                f"{study.dataset.num_classes} classes apart, and both are compared; leave classes "
                "out, or class_baselines out of measure"
            )
