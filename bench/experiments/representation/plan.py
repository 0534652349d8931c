"""An encoder improved by a frozen generator: what a suite may set, and which jobs that means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from srdd.config import Positive, Strict
from srdd.lookup import unknown

from ...study.chain import trainings
from ...study.checks import MIN_IMAGES, known_counts
from ...study.held_out_checks import class_problems
from ...study.jobs import Job, Plan
from ...study.names import dump
from ...study.schema import Claim, Study, Variant
from ...study.settings import once_each
from ...study.suite_checks import Resolved, side_problems

TRAINS = READS_TEST = READS_CODES = True

Arm = Literal["frozen", "recon", "contrast", "naive", "dcr_codes", "dcr_loglik", "supervised"]
ARMS: tuple[Arm, ...] = (
    "frozen",
    "recon",
    "contrast",
    "naive",
    "dcr_codes",
    "dcr_loglik",
    "supervised",
)
RECONSTRUCT = ("recon", "naive", "dcr_codes", "dcr_loglik")  # those that run the generator
LONG = ("recon", "naive")  # those that go on until they have run as many tokens as dcr_codes
SHARES = ("probe_accuracy", "knn_accuracy", "pair_accuracy")  # of so many images
# what is reported of every arm, and whether more of it is better
MEASURES = {
    **dict.fromkeys(SHARES, True),
    "detail_r2": True,
    "pixel_r2": True,
    "nll": False,
    "intra_distance": False,
    "inter_distance": True,
    "token_evals": False,
    "seconds": False,
}
HALF = "half"  # in place of an arm: one half, for a share


def shown_arms(arms: tuple[str, ...], equal_tokens: bool) -> list[str]:
    """Arms as rows and metrics name them, `_long` for those that went on to equal tokens."""
    names = []
    for arm in arms:
        names += [arm, f"{arm}_long"] if equal_tokens and arm in LONG else [arm]
    return names


ALL_ARMS = shown_arms(ARMS, True)
OF_NAIVE = ("conflict_share_naive", "gradient_cosine_naive")
REPORTED = (*(f"{measure}_{arm}" for measure in MEASURES for arm in ALL_ARMS), *OF_NAIVE)


class EncoderSettings(Strict):
    """An encoder trained as a classifier, and the projector from its z to a generator's
    condition."""

    # cosines of one number are its sign, which would tell no pair from another
    dim: int = Field(8, ge=2, le=2**12, description="numbers of z")
    channels: int = Field(
        32, ge=8, le=2**12, multiple_of=8, description="of the encoder's first layer"
    )
    pretrain_steps: Positive = Field(
        250, description="of 128 images, as a classifier, for all arms"
    )
    pretrain_images: int | None = Field(
        None, ge=2, le=10**7, description="images that it learns from, in their shares; null: all"
    )
    projector_steps: Positive = Field(
        150, description="of cross-entropy with encoder and generator frozen, for all arms"
    )
    projector_lr: float = Field(3e-3, gt=0, le=1, description="its learning rate")
    batch: int = Field(16, ge=2, le=10**4, description="different images of a step")


class Settings(EncoderSettings):
    """An encoder trained as a classifier, and arms that go on from it under a frozen generator."""

    arms: tuple[Arm, ...] = Field(
        ARMS,
        strict=False,
        min_length=1,
        description="what the encoder goes on with: nothing (frozen), reconstruction, contrast of "
        "two views, their sum (naive), contrast between reconstructions by expected codes or by "
        "log-likelihoods (dcr_codes, dcr_loglik), classes (supervised)",
    )
    steps: Positive = Field(80, description="of an arm, projector and generator frozen")
    lr: float = Field(5e-4, gt=0, le=1, description="learning rate of an arm")
    tau: float = Field(0.1, gt=0, le=100, description="temperature of cosines")
    scales: Literal["one", "all"] = Field(
        "one",
        description="one: each step draws a scale, and runs it and those that it looks back at; "
        "all: the mean over all scales",
    )
    equal_tokens: bool = Field(
        True,
        description="whether recon and naive go on until they have run as many tokens as "
        "dcr_codes, and are measured there too",
    )
    pairs: Positive = Field(
        150, description="blind pairs: test images of one class with the highest cosine of z"
    )
    neighbours: Positive = Field(5, description="that vote, by cosine")
    probe_images: int = Field(
        10_000, ge=MIN_IMAGES, le=10**7, description="training images at most that probes read"
    )
    num_images: int | None = Field(
        None, ge=MIN_IMAGES, le=10**7, description="test images that are measured; null: all"
    )
    margin: float = Field(
        0.02, gt=0, lt=1, description="how much worse an arm may be and rule arm_keeps say yes"
    )

    _arms_differ = once_each("arms")

    @model_validator(mode="after")
    def _frozen_is_there(self) -> Settings:
        if "frozen" not in self.arms:
            raise ValueError(f"arms {list(self.arms)}: all are held against frozen; add it")
        return self


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job for each arm of each trained model, whatever its sampler, and one for what they all
    begin with."""
    settings: Settings = plan.study.told(suite, "representation")
    encoder = dump(
        EncoderSettings(**settings.model_dump(include=set(EncoderSettings.model_fields)))
    )
    # neither the other arms nor what a rule reads changes an arm
    told = dump(settings.model_copy(update={"arms": ARMS, "margin": Settings().margin}))
    for _, trained in trainings(plan, suite, variants):
        names = {key: trained.names[key] for key in ("tokenizer", "model")}
        read = trained.inputs("data", "tokenizer", "tokens", "train")
        config = {**trained.config, "encoder": encoder}
        first = Job("representation_encoder", config, read, trained.slug, names)
        read = {**read, "encoder": plan.add(suite, first)}
        for arm in settings.arms:
            config = {**trained.config, "representation": told, "arm": arm}
            plan.add(suite, Job("representation", config, read, f"{arm}-{trained.slug}", names))


# ---------------------------------------------------------------- what cannot be


def reports(study: Study, one: Resolved, variant: str) -> list[str]:
    """Numbers of the arms that a suite asks for."""
    settings = study.told(one.name, "representation")
    arms = shown_arms(settings.arms, settings.equal_tokens)
    of_naive = [name for name in OF_NAIVE if "naive" in arms]
    return [*(f"{measure}_{arm}" for measure in MEASURES for arm in arms), *of_naive]


def problems(study: Study, one: Resolved) -> Iterator[str]:
    """Generators without a row for no class, too few images, figures that would be empty."""
    if "representation" not in one.suite.measure:
        return
    if study.dataset.num_classes < 2:  # then nothing else of it is worth asking
        yield from class_problems(study, "representation")
        return
    settings = study.told(one.name, "representation")
    for name, variant in one.variants.items():
        yield from _generator_problems(name, variant)
    yield from _count_problems(study, settings)
    yield from _empty_problems(settings, one)


def _generator_problems(name: str, variant: Variant) -> Iterator[str]:
    model = variant.model
    if not model.conditional:
        yield (
            f"variants.{name}.model.num_classes: {model.num_classes}: a condition takes the place "
            "of a class, and this model is trained without; give it the dataset's classes"
        )
    elif model.history_vector:
        yield (
            f"variants.{name}.model.history_vector: {model.history_vector}: scales are run alone, "
            "and it pools those before them; set it to 0"
        )
    elif model.class_dropout == 0:
        yield (
            f"variants.{name}.model.class_dropout: 0: a condition begins as no class, which "
            f"{name!r} never saw; give it more than 0"
        )


def _count_problems(study: Study, settings: Settings) -> Iterator[str]:
    if settings.neighbours > settings.probe_images:
        yield (
            f"representation.neighbours: {settings.neighbours}: more than the "
            f"{settings.probe_images} training images that probes read; give fewer"
        )
    counts = known_counts(study)
    if counts is None:
        return
    if settings.neighbours > counts["train"]:
        yield (
            f"representation.neighbours: {settings.neighbours}: more than the about "
            f"{counts['train']} training images; give fewer"
        )
    test = min(counts["test"], settings.num_images or counts["test"])
    if test < settings.pairs:
        yield (
            f"representation.pairs: {settings.pairs}: more than the {test} test images that are "
            "measured; give fewer"
        )
    if counts["train"] < settings.batch:
        yield (
            f"representation.batch: {settings.batch}: images of a batch differ, and there are "
            f"about {counts['train']} to train on; give fewer"
        )


def _empty_problems(settings: Settings, one: Resolved) -> Iterator[str]:
    if "detail_plane" in one.suite.figures and not set(settings.arms) - {"frozen"}:
        yield (
            "figures: 'detail_plane' shows what arms add to frozen, the only one of "
            "representation.arms; add another"
        )
    if "gradient_cosine" in one.suite.figures and "naive" not in settings.arms:
        yield "figures: 'gradient_cosine' shows the arm naive; add it to representation.arms"
    if "pair_scores" in one.suite.figures and not set(settings.arms) & set(RECONSTRUCT):
        yield (
            "figures: 'pair_scores' shows arms that reconstruct; add one of "
            f"{', '.join(RECONSTRUCT)} to representation.arms"
        )


def cautions(study: Study, one: Resolved) -> Iterator[str]:
    """One scale a step where every generator's scales look back, so that all run those too."""
    if "representation" not in one.suite.measure:
        return
    if study.told(one.name, "representation").scales == "all":
        return
    histories = {name: variant.model.history for name, variant in one.variants.items()}
    if 0 in histories.values():  # what it is held against
        return
    for name, history in histories.items():
        yield (
            f"representation.scales: 'one': scales of {name!r} look back (model.history "
            f"{history}), so a step runs the earlier ones too; history 0 runs one"
        )


# ---------------------------------------------------------------- claims

COMPARISON = re.compile(rf"(.+?)_({'|'.join(sorted(ALL_ARMS, key=len, reverse=True))})_over_(.+)")


def compared(metric: str) -> tuple[str, str, str] | None:
    """What a metric such as knn_accuracy_dcr_codes_over_naive compares: measure, arm, and the arm
    that it is held against, or half; None for one that compares nothing."""
    match = COMPARISON.fullmatch(metric)
    return (match[1], match[2], match[3]) if match else None


def rule_problems(study: Study, one: Resolved, claim: Claim) -> Iterator[str]:
    """Metrics that compare no two arms of the suite, and a direction that is missing."""
    yield from side_problems(one, claim)
    settings = study.told(one.name, "representation")
    parts = compared(claim.metric)
    if parts is None:
        yield (
            f"metric: {claim.metric!r}: rule {claim.rule} compares arms; write "
            "<measure>_<arm>_over_<arm>, such as knn_accuracy_dcr_codes_over_naive, or "
            "conflict_share_naive_over_half"
        )
        return
    measure, arm, against = parts
    conflicts = measure == "conflict_share"
    measures = ["conflict_share"] if against == HALF else list(MEASURES)
    if measure not in measures:
        yield f"metric: {claim.metric!r}: {unknown('measure', measure, measures)}"
    arms = ["naive"] if conflicts else shown_arms(settings.arms, settings.equal_tokens)
    for name in (arm, *([] if against == HALF else [against])):
        if name not in arms or (conflicts and name not in settings.arms):
            yield f"metric: {claim.metric!r}: {unknown('arm', name, arms)}"
    if arm == against:
        yield f"metric: {claim.metric!r}: compares {arm} with itself; name another arm"
    if claim.better is None:
        yield f"better: is missing; say better: higher or better: lower of {claim.metric!r}"
