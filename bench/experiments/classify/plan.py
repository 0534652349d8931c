"""Classes by likelihood: what a suite may set, and which jobs that means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from srdd.config import Strict
from srdd.lookup import names_function, unknown

from ...study.chain import trainings
from ...study.checks import MIN_IMAGES
from ...study.held_out_checks import class_problems, shift_problems
from ...study.jobs import Job, Plan
from ...study.names import dump
from ...study.schema import Claim, Study, Variant
from ...study.settings import once_each
from ...study.suite_checks import Resolved, side_problems

TRAINS = READS_TEST = READS_CODES = True

Sigma = Annotated[float, Field(ge=0, le=100)]
Copies = Annotated[int, Field(ge=1, le=1000)]


class StageSettings(Strict):
    """A stage of the funnel."""

    scales: int = Field(ge=1, le=1000, description="the first so many scales are scored")
    keep: int = Field(ge=1, le=10**6, description="classes that are left after it")
    samples: Copies = Field(1, description="copies that are averaged; 1: the image itself")


class Settings(Strict):
    """Classification by likelihood. Noise is in units of the latent's standard deviation."""

    num_images: int | None = Field(
        None,
        ge=MIN_IMAGES,
        le=10**7,
        description="held-out images, of each class its share; null: all",
    )
    classes: int | None = Field(
        None,
        ge=2,
        le=10**6,
        description="so many classes, evenly spaced among all, and their images alone; null: all",
    )
    stages: tuple[StageSettings, ...] = Field(
        (),
        strict=False,
        description="of the funnel, each {scales, keep, samples}: the first so many scales, the "
        "classes that are left, the copies that are averaged; the last one keeps 1; empty: none",
    )
    sigma: tuple[Sigma, ...] = Field(
        (0.05, 0.1, 0.2, 0.4, 0.8), strict=False, description="noises of likelihood smoothing"
    )
    samples: tuple[Copies, ...] = Field(
        (1, 2, 3, 5, 9), strict=False, min_length=1, description="copies that are averaged"
    )
    chosen_sigma: float = Field(
        0.2, ge=0, le=100, description="noise that table, claims, funnel and shifts read"
    )
    chosen_samples: Copies = Field(3, description="copies that they read")
    average: Literal["log", "probability"] = Field(
        "log", description="mean over copies of log p, as the public code has it, or of p"
    )
    guidance: tuple[Annotated[float, Field(ge=0, le=100)], ...] = Field(
        (1.0,), strict=False, description="w in u + w (c - u); 1: off"
    )
    draws: tuple[Copies, ...] = Field(
        (), strict=False, description="draws of the masked bound, of models with masks alone"
    )
    shifts: tuple[str, ...] = Field(
        ("none",),
        strict=False,
        description="names of shift_<name> in srdd/degradation.py, applied to held-out images",
        json_schema_extra=names_function("shift"),
    )
    explain: int = Field(6, ge=0, le=40, description="images with maps of evidence; 0: none")

    _values_differ = once_each("sigma", "samples", "guidance", "draws", "shifts")

    @model_validator(mode="after")
    def _chosen_is_measured(self) -> Settings:
        for name, values in (("sigma", self.sigma), ("samples", self.samples)):
            chosen = getattr(self, f"chosen_{name}")
            if self.sigma and chosen not in values:
                raise ValueError(f"chosen_{name} {chosen}: is none of {name} {list(values)}")
        return self

    @model_validator(mode="after")
    def _stages_narrow(self) -> Settings:
        kept = [stage.keep for stage in self.stages]
        if kept and (kept != sorted(set(kept), reverse=True) or kept[-1] != 1):
            raise ValueError(f"stages keep {kept}: each fewer than the one before, the last 1")
        most = max((stage.samples for stage in self.stages), default=1)
        if most > 1 and not self.sigma:
            raise ValueError(f"stages: samples {most}: copies need a sigma; give sigma one or more")
        return self


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job for each trained model, whatever its sampler."""
    study, roles = plan.study, ("data", "tokenizer", "train")
    for _, trained in trainings(plan, suite, variants):
        told = {"classify": dump(study.told(suite, "classify"))}
        config = {**trained.config, **told}
        names = {key: trained.names[key] for key in ("tokenizer", "model")}
        plan.add(suite, Job("classify", config, trained.inputs(*roles), trained.slug, names))


# ---------------------------------------------------------------- what cannot be


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Stages, noises, draws and maps that the variants cannot have."""
    if "classify" not in resolved.suite.measure:
        return
    settings = study.told(resolved.name, "classify")
    if study.dataset.num_classes < 2:  # then nothing else of it is worth asking
        yield from class_problems(study, "classify")
        return
    yield from shift_problems("classify", settings.shifts)
    yield from _empty_problems(settings, resolved)
    yield from _stage_problems(settings)
    for name, variant in resolved.variants.items():
        yield from _variant_problems(settings, name, variant)
    masked = [variant.model.mask_prob > 0 for variant in resolved.variants.values()]
    if settings.draws and not any(masked):
        yield (
            f"classify.draws: {list(settings.draws)}: needs a variant with model.mask_prob above "
            "0; leave draws out"
        )


def _empty_problems(settings: Settings, resolved: Resolved) -> Iterator[str]:
    """Figures and tables that would hold nothing, or nothing that others do not."""
    figures, tables = resolved.suite.figures, resolved.suite.tables
    if "smoothing" in figures and not settings.sigma:
        yield "figures: 'smoothing' needs classify.sigma, which is []; give some, or leave it out"
    if "explanations" in figures and not settings.explain:
        yield (
            "figures: 'explanations' needs classify.explain, which is 0; give 1 or more, or leave "
            "it out"
        )
    if "class_shifts" in tables and not set(settings.shifts) - {"none"}:
        yield (
            "tables: 'class_shifts' needs classify.shifts, which changes no image "
            f"({list(settings.shifts)}); give some, or leave it out"
        )


def _stage_problems(settings: Settings) -> Iterator[str]:
    """Stages that decide on less than is known."""
    for place, (before, stage) in enumerate(zip(settings.stages, settings.stages[1:]), 1):
        if stage.scales < before.scales:
            yield (
                f"classify.stages[{place}].scales: {stage.scales}: the stage before has "
                f"{before.scales}; give as many or more"
            )


def _variant_problems(settings: Settings, name: str, variant: Variant) -> Iterator[str]:
    """What one variant cannot be asked."""
    model = variant.model
    if model.num_classes < 2:
        yield f"variants.{name}: model.num_classes {model.num_classes}: there is no class to tell"
        return
    K, Y = model.schedule.num_scales, settings.classes or model.num_classes
    if Y > model.num_classes:
        yield f"classify.classes: {Y}: {name!r} has {model.num_classes} classes; give fewer"
    for place, stage in enumerate(settings.stages):
        key = f"classify.stages[{place}]"
        if stage.scales > K:
            yield f"{key}.scales: {stage.scales}: {name!r} has {K} scales; give {K} or fewer"
        if stage.keep > Y:
            yield f"{key}.keep: {stage.keep}: {name!r} is asked for {Y} classes; give {Y} or fewer"
    if model.class_dropout == 0 and settings.explain:
        yield (
            f"classify.explain: {settings.explain}: evidence is held against no class, which "
            f"{name!r} never saw (model.class_dropout 0); set explain to 0"
        )
    if model.class_dropout == 0 and set(settings.guidance) - {1.0}:
        yield (
            f"classify.guidance: {list(settings.guidance)}: needs a model that knows no class, "
            f"{name!r} never saw it (model.class_dropout 0); leave guidance out"
        )


# ---------------------------------------------------------------- claims

# what compares two ways of asking one model, on the same images
GAIN = re.compile(r"(smoothing|bound|deletion)_gain|guidance_gain_w[0-9.]+")


def is_gain(metric: str) -> bool:
    """Whether a metric compares two ways of asking one model."""
    return GAIN.fullmatch(metric) is not None


def rule_problems(study: Study, resolved: Resolved, claim: Claim) -> Iterator[str]:
    """Metrics that no job reports, and sides that are grids."""
    yield from side_problems(resolved, claim)
    settings = study.told(resolved.name, "classify")
    if claim.rule == "funnel":
        if claim.metric != "accuracy_funnel":
            yield f"metric: {claim.metric!r}: rule funnel judges accuracy_funnel; name it"
        if not settings.stages:
            yield "rule: funnel needs classify.stages; give some"
        return
    scales = [variant.model.schedule.num_scales for variant in resolved.variants.values()]
    legal = _measured(settings, max(scales))
    if claim.metric not in legal:
        yield f"metric: {unknown('metric', claim.metric, legal)}"
    elif claim.better is None:
        yield f"better: is missing; say better: higher or better: lower of {claim.metric!r}"


def _measured(settings: Settings, num_scales: int) -> list[str]:
    """Metrics that the rule accuracy can read with these settings."""
    names = ["accuracy", "accuracy_scale_mean", *(["deletion_gain"] if settings.explain else [])]
    for k in range(num_scales):
        names += [f"accuracy_scale{k}", f"accuracy_only_scale{k}"]
    names += ["accuracy_funnel"] if settings.stages else []
    names += ["accuracy_smoothed", "smoothing_gain"] if settings.sigma else []
    names += [f"guidance_gain_w{w:g}" for w in settings.guidance if w != 1.0]
    names += ["bound_gain"] if settings.draws else []
    return names + [f"accuracy_shift_{name}" for name in settings.shifts if name != "none"]
