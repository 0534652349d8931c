"""Restoration: what a suite may set, and which jobs that means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from srdd.config import Positive, Strict
from srdd.lookup import unknown

from ...study.chain import trainings
from ...study.jobs import Job, Plan
from ...study.names import canonical_sampler, dump
from ...study.restore_settings import DegradedHeldOut, classifier_of, degradation_problems
from ...study.schema import Claim, Study, Variant
from ...study.settings import once_each
from ...study.suite_checks import Resolved, side_problems

TRAINS = READS_TEST = RESTORES = READS_CODES = True
REDRAWS = (0.01, 0.03, 0.1, 0.3)  # of which validation images choose p_resample
BASELINES = "restoration_baselines"  # the measure of what needs no scale transformer
EXCESS = "swap_excess_"  # before a degradation: what rule carries judges
NEEDS = {
    "figure_swap": BASELINES,
    "table_swap": BASELINES,
    "judge_carries": BASELINES,
}

# ways of a model: told the degraded image, or trained for something else
TOLD = ("argmax", "expected", "draw", "refined")
UNTRAINED = ("known", "repair")
OWN = "restored"  # the way that a model is asked for where models of other ways stand beside it
# ways without a scale transformer
FILTERS = ("input", "round_trip", "median", "wiener")
REGRESSIONS = ("ridge", "mlp", "unet")
WITHOUT = (*FILTERS, *REGRESSIONS, "ceiling", "latent")
WAYS = (*TOLD, *UNTRAINED, OWN, *WITHOUT)
COMPARED = {"judge_restored": WAYS, "judge_carries": ("control",)}
DIRECTIONS = {
    "psnr": "higher",
    "ssim": "higher",
    "class_agreement": "higher",
    "feature_distance": "lower",
}

OF_CLASSIFIER = ("class_agreement", "feature_distance")
REPORTED = tuple(f"{score}_{way}" for score in DIRECTIONS for way in (*TOLD, *UNTRAINED, OWN))


class RefinerSettings(Strict):
    """The refiner (RestoreVAR, arXiv 2505.18047): trained behind each model on its own likeliest
    codes of training images, towards the clean latent."""

    depth: int = Field(2, ge=1, le=100, description="layers")
    width: int | None = Field(None, ge=1, le=10_000, description="null: that of the model")
    heads: int | None = Field(None, ge=1, le=1000, description="null: those of the model")
    steps: Positive = Field(400, description="of AdamW, the rate falling to 0")
    batch_size: Positive = Field(64, description="training images a step")
    lr: float = Field(1e-3, gt=0, le=10, description="rate of the first step")


class Settings(DegradedHeldOut):
    """Restoration of held-out images: degradations, decodings, refiner."""

    decode: tuple[Literal["argmax", "expected", "draw"], ...] = Field(
        ("argmax", "expected", "draw"),
        strict=False,
        min_length=1,
        description="how codes are taken: the likeliest, their mean, or drawn by the sampler",
    )
    refiner: RefinerSettings | None = Field(None, description="null: none is trained")
    passes: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (1, 2, 4),
        strict=False,
        min_length=1,
        description="of the repair by models with masks that are told nothing",
    )
    p_resample: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="the repair redraws tokens less likely than this; null: the value of 0.01, "
        "0.03, 0.1 and 0.3 with the highest PSNR on validation images",
    )

    _members_differ = once_each("decode", "passes")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job for each trained model with its sampler, and the study's first classifier."""
    study, roles = plan.study, ("data", "tokenizer", "tokens", "train")
    for variant, trained in trainings(plan, suite, variants):
        classifier = classifier_of(study, trained.features)
        config = {**trained.config, "restoration": dump(study.told(suite, "restoration"))}
        config |= {"features": classifier.config["features"]}
        config |= {"sampler": canonical_sampler(variant.sampler)}
        read = {**trained.inputs(*roles), "features": classifier.run_id}
        plan.add(suite, Job("restoration", config, read, trained.slug, trained.names))


# ---------------------------------------------------------------- what cannot be


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Degradations that cannot be, and refiners that no model is behind or that have no heads."""
    if "restoration" not in resolved.suite.measure:
        return
    told = study.told(resolved.name, "restoration")
    yield from degradation_problems("restoration", told.degradations, told.strength, study.dataset)
    yield from _shown_problems(study, resolved)
    models = {name: one.model for name, one in resolved.variants.items()}
    for name, model in models.items():
        if model.condition == "none" and model.conditional and model.class_dropout == 0:
            yield (
                f"variants.{name}.model.class_dropout: 0: a model that is told no image is asked "
                f"without a class, which {name!r} never saw; give it more than 0"
            )
    for name, model in models.items() if told.refiner else ():
        width = told.refiner.width or model.width
        heads = told.refiner.heads or model.heads
        if model.condition != "none" and width % heads:
            yield (
                f"restoration.refiner.width: {width} is not a multiple of {heads} heads (variant "
                f"{name!r})"
            )
    if told.refiner and all(model.condition == "none" for model in models.values()):
        yield (
            "restoration.refiner: stands behind models with model.condition, of which this suite "
            "has none; leave it out"
        )
    if told.p_resample is not None and all(
        model.condition != "none" or not model.mask_prob for model in models.values()
    ):
        yield (
            f"restoration.p_resample: {told.p_resample:g}: is not read, no variant of this suite "
            "has masks; leave it out"
        )


def _shown_problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Figures and tables of swapped tokens where none are swapped, and a plane of class agreement
    where no classifier tells it."""
    if "perception" in resolved.suite.figures and not study.trains_extractor:
        yield (
            "figures: perception: needs class agreement, of features of kind trained, which this "
            "study has not; leave it out"
        )
    if BASELINES not in resolved.suite.measure or study.told(resolved.name, BASELINES).swap:
        return
    for key in ("figures", "tables"):
        if "swap" in getattr(resolved.suite, key):
            yield f"{key}: swap: {BASELINES}.swap is false, no tokens are swapped; leave it out"


def cautions(study: Study, resolved: Resolved) -> Iterator[str]:
    """Models that are measured on degradations that they were not trained on."""
    if "restoration" not in resolved.suite.measure:
        return
    told = study.told(resolved.name, "restoration")
    for name, variant in resolved.variants.items():
        learnt = variant.restore
        if learnt and (odd := set(told.degradations) - set(learnt.degradations)):
            yield (
                f"restoration.degradations: {', '.join(sorted(odd))}: {name!r} learns "
                f"{', '.join(learnt.degradations)} alone"
            )
        if learnt and told.strength != learnt.strength:
            yield (
                f"restoration.strength: {told.strength:g}: {name!r} learns {learnt.strength:g}, "
                "while regressions learn what is measured"
            )


def parts_of(metric: str, kinds: tuple[str, ...]) -> tuple[str, str, str] | None:
    """Score, way and degradation (empty: the mean) of a metric's name; None for no such name."""
    ways = "|".join(WAYS)
    parts = re.fullmatch(rf"({'|'.join(DIRECTIONS)})_({ways})(?:_({'|'.join(kinds)}))?", metric)
    return None if parts is None else (parts[1], parts[2], parts[3] or "")


def rule_problems(study: Study, one: Resolved, claim: Claim) -> Iterator[str]:
    """Metrics that these rules cannot read, and what they cannot compare with."""
    if claim.variant not in one.variants:
        yield f"variant: {unknown('variant', claim.variant, one.variants)}"
    kinds = study.told(one.name, "restoration").degradations
    if claim.rule == "carries":
        yield from _swap_problems(claim, kinds)
        if not study.told(one.name, BASELINES).swap:
            yield (
                f"metric: {claim.metric!r}: {BASELINES}.swap is false, no tokens are swapped; set "
                "it to true"
            )
        return
    parts = parts_of(claim.metric, kinds)
    if parts is None:
        yield (
            f"metric: {claim.metric!r}: <score>_<way> or <score>_<way>_<degradation>, such as "
            f"psnr_argmax_{kinds[0]} (scores: {', '.join(DIRECTIONS)}; ways: "
            f"{', '.join(WAYS)})"
        )
        return
    if claim.better != DIRECTIONS[parts[0]]:
        yield f"better: {claim.better!r}: of {parts[0]} {DIRECTIONS[parts[0]]} is better; say so"
    if parts[0] in OF_CLASSIFIER and not study.trains_extractor:
        kinds_of_network = {features.kind for features in study.features}
        yield (
            f"metric: {claim.metric!r}: {parts[0]} needs features of kind trained, this study has "
            f"{' and '.join(sorted(kinds_of_network))} (without: psnr, ssim)"
        )
    yield from _way_problems(study, one, claim, parts[1])
    if claim.against not in WAYS:
        yield from side_problems(one, claim)
        if claim.against not in one.variants:
            yield f"against: {unknown('variant or way', claim.against, (*one.variants, *WAYS))}"
    elif claim.against in one.variants:
        yield (
            f"against: {claim.against!r}: a way to restore and a variant have this name; give the "
            "variant another one"
        )


def _way_problems(study: Study, one: Resolved, claim: Claim, way: str) -> Iterator[str]:
    """Ways of a claim that its suite does not measure."""
    against = claim.against
    sides = [("metric", claim.metric, claim.variant, way)]
    if against in WAYS:
        sides.append(("against", against, claim.variant, against))
    elif against in one.variants:
        sides.append(("metric", claim.metric, against, way))
    for key, value, variant, asked in sides:
        if variant not in one.variants:
            continue
        if asked in WITHOUT and BASELINES not in one.suite.measure:
            yield f"{key}: {value!r}: needs measure {BASELINES}"
            continue
        legal = _measured(study, one, one.variants[variant])
        if asked not in legal:
            yield (
                f"{key}: {value!r}: {asked} of {variant!r} is not measured"
                f"{_switch(study, one, asked)} (measured: {', '.join(legal)})"
            )


def reports(study: Study, one: Resolved, variant: str) -> list[str]:
    """Scores of the ways that a suite measures of a variant."""
    ways = _measured(study, one, one.variants[variant])
    scores = [score for score in DIRECTIONS if study.trains_extractor or score not in OF_CLASSIFIER]
    return [f"{score}_{way}" for score in scores for way in ways]


def _measured(study: Study, one: Resolved, variant: Variant) -> list[str]:
    """Ways that a suite measures beside a variant: its own, then those without a scale
    transformer."""
    told, model = study.told(one.name, "restoration"), variant.model
    if model.condition != "none":
        ways = [*told.decode, *(["refined"] if told.refiner else [])]
    else:
        ways = ["known", *(["repair"] if model.mask_prob else [])]
    ways.append(OWN)
    if BASELINES not in one.suite.measure:
        return ways
    off = _off(study, one)
    return [*ways, *(way for way in WITHOUT if way not in off)]


def _off(study: Study, one: Resolved) -> dict[str, str]:
    """Regressions that a suite leaves out, each with the setting that does."""
    beside, off = study.told(one.name, BASELINES), {}
    if not beside.regressions:
        off = dict.fromkeys(("ridge", "mlp"), f"{BASELINES}.regressions is false")
    if beside.unet is None:
        off["unet"] = f"{BASELINES}.unet is null"
    return off


def _switch(study: Study, one: Resolved, way: str) -> str:
    """What keeps a way from being measured, where one setting does."""
    off = {"refined": "restoration.refiner is null"}
    off |= dict.fromkeys(("argmax", "expected", "draw"), "restoration.decode lacks it")
    off |= _off(study, one) if BASELINES in one.suite.measure else {}
    return f", {off[way]}" if way in off else ""


def _swap_problems(claim: Claim, kinds: tuple[str, ...]) -> Iterator[str]:
    legal = [f"{EXCESS}{kind}" for kind in kinds]
    if claim.metric not in legal:
        yield f"metric: {unknown('metric', claim.metric, legal)}"
    if claim.against != "control":
        yield (
            f"against: {claim.against!r}: rule carries holds a swap against that of another "
            "image's tokens; write control"
        )
    if claim.better is None:
        yield "better: is missing; higher: coarse scales carry it, lower: fine ones do"
