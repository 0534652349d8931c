"""Unique images times epochs: trainings alone, nothing is sampled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from srdd.config import Strict

from ...study.chain import trainings
from ...study.jobs import Plan
from ...study.schema import Claim, Study, Variant
from ...study.settings import TrainingConfig
from ...study.suite_checks import Resolved, side_problems, some

TRAINS = True
SIZES = "training.unique_images"
FEWEST_SIZES = 3  # numbers of unique images that a fit needs
KEEPS_RATE = 1.0


class Settings(Strict):
    """How losses over unique images and epochs are fitted."""

    form: Literal["effective", "additive"] = Field(
        "effective",
        description="the fit that figures show: effective: repeated images count less and less, "
        "up to the minimum of each curve; additive: overfitting adds to the loss, all points",
    )
    bootstrap: int = Field(
        1000,
        ge=100,
        le=10**5,
        description="resamples of curves behind the interval of a fitted number",
    )


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """The trainings, each once."""
    for _ in trainings(plan, suite, variants):
        pass


# ---------------------------------------------------------------- checks


def problems(study: Study, one: Resolved) -> Iterator[str]:
    """Variants whose epochs nobody counts."""
    if "repetition" not in one.suite.measure:
        return
    for name, variant in one.variants.items():
        if variant.training is None:
            yield f"variants.{name}: is imported, it has no training whose epochs count; remove it"
        elif variant.training.unique_images is None:
            yield (
                f"variants.{name}.{SIZES}: null: measure repetition counts epochs of unique "
                "images; give how many, all of the training split is a number too"
            )


def cautions(study: Study, one: Resolved) -> Iterator[str]:
    """Trainings without a curve after the warm-up, steps that draw an image twice, evaluations
    along a falling rate, too few sizes for a fit: each said once."""
    if "repetition" not in one.suite.measure:
        return
    sizes, small, falling, warm = sizes_of(one), [], [], []
    for name, variant in one.variants.items():
        training = variant.training
        if training is None or training.unique_images is None:
            continue
        if training.unique_images < training.batch_size:
            small.append(name)
        fitted = len(sizes[one.groups[name]]) >= FEWEST_SIZES
        if fitted and training.final_lr != KEEPS_RATE:
            falling.append(name)
        if fitted and evaluations_after_warmup(training) < 2:
            warm.append(name)
    if warm:
        yield (
            f"variants.{_first(warm)}: training.warmup: fewer than two evaluations follow it, and "
            "fits read no others; give less, or a smaller eval_every"
        )
    if small:
        yield (
            f"variants.{_first(small)}: {SIZES}: fewer than batch_size: a step draws images more "
            "than once"
        )
    if falling:
        yield (
            f"variants.{_first(falling)}: training.final_lr: an evaluation along a training whose "
            "rate falls is no training of that length; set it to 1"
        )
    if max(map(len, sizes.values()), default=0) < FEWEST_SIZES:
        yield f"variants: no entry has {FEWEST_SIZES} numbers of unique images; nothing is fitted"


def evaluations_after_warmup(training: TrainingConfig) -> int:
    """Evaluations of a training whose learning rate no longer rises, the one at its end too."""
    steps, every = training.steps, training.eval_every
    after = steps // every - training.warmup // every
    return after + (steps % every > 0)


def _first(names: list[str]) -> str:
    """The first of some variants, and how many more there are."""
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def sizes_of(one: Resolved) -> dict[str, set[int]]:
    """Numbers of unique images of each entry of a suite."""
    sizes: dict[str, set[int]] = {}
    for name, variant in one.variants.items():
        if variant.training is not None and variant.training.unique_images is not None:
            sizes.setdefault(one.groups[name], set()).add(variant.training.unique_images)
    return sizes


def rule_problems(study: Study, one: Resolved, claim: Claim) -> Iterator[str]:
    """Sides that are no entries over unique images, a metric where a rule reads none."""
    yield from side_problems(one, claim, grids=True)
    sizes = sizes_of(one)
    for key in ("variant", "against"):
        entry = one.suite.variants.get(getattr(claim, key))
        if entry is None:
            continue
        if set(entry.grid) != {SIZES}:
            yield (
                f"{key}: {getattr(claim, key)!r}: rule {claim.rule} compares entries with a grid "
                f"of {SIZES} alone ({some(sizes)})"
            )
    yield from _reads_problems(claim, sizes)


def _reads_problems(claim: Claim, sizes: dict[str, set[int]]) -> Iterator[str]:
    both = [sizes.get(side, set()) for side in (claim.variant, claim.against)]
    if claim.rule == "scaling":
        if claim.model_fields_set & {"metric", "better"}:
            yield (
                f"metric: {claim.metric!r}: rule scaling compares R* alone; leave metric and "
                "better out"
            )
        few = min(map(len, both))
        if few < FEWEST_SIZES:
            yield f"variant: {few} numbers of unique images; a fit needs {FEWEST_SIZES} or more"
    elif claim.rule == "every":
        if both[0] != both[1]:
            yield (
                f"against: {claim.against!r} has {sorted(both[1])} unique images, "
                f"{claim.variant!r} {sorted(both[0])}; rule every compares equal ones"
            )
        if claim.better is None:
            yield f"better: is missing; give lower or higher of {claim.metric!r}"
