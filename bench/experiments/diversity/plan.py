"""Reshaped spectra beside temperature and guidance. The scores are those of the sweep; the jobs
here draw a few variants for what scores do not show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from srdd.config import SamplerConfig, Strict

from ...study.chain import Trained, trainings
from ...study.checks import MIN_IMAGES
from ...study.jobs import Job, Plan
from ...study.names import canonical_sampler, dump, extractor_configs
from ...study.schema import Claim, Study, Variant
from ...study.settings import once_each
from ...study.suite_checks import Resolved, score_problems, side_problems, some

TRAINS = DRAWS = READS_TEST = READS_CODES = True
NEEDS = {
    "figure_frontier": "scored",
    "table_diversity": "scored",
    "judge_frontier": "sweep",
    "judge_keeps": "scored",
    "judge_gain": "scored",
}
SHOWS_FID = ("table_diversity",)
HALVES = ("judge_frontier",)
MOST_SHOWN = 8  # rows of the wall that a page can hold
GROUPS = ("frontier",)  # rules that compare entries, not variants


class Settings(Strict):
    """A few variants drawn for their spectra, their spread inside classes and a wall of images."""

    num_images: int = Field(
        256, ge=MIN_IMAGES, le=10**6, description="images drawn of each variant that is shown"
    )
    shown: tuple[str, ...] = Field(
        (),
        strict=False,
        max_length=MOST_SHOWN,
        description="variants that are drawn, those of one model after the one that they are "
        "compared with; none: the first of the suite",
    )
    margin: float = Field(
        0.01,
        gt=0.0,
        lt=1.0,
        description="how much less of a score rule keeps still calls as much",
    )

    _shown_differ = once_each("shown")


def shown_of(shown: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names of the variants that are drawn, in their order: those asked for, or the first ones."""
    return list(shown or names[:MOST_SHOWN])


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job a trained model for all of its samplers that are shown."""
    study = plan.study
    settings: Settings = study.told(suite, "diversity")
    shown = {name: variants[name] for name in shown_of(settings.shown, list(variants))}
    models: dict[str, tuple[Trained, list[dict[str, Any]]]] = {}
    for variant, trained in trainings(plan, suite, shown):
        entry = {"name": trained.names["sampler"], "sampler": canonical_sampler(variant.sampler)}
        _, entries = models.setdefault(trained.train.run_id, (trained, []))
        if entry not in entries:
            entries.append(entry)
    # neither names of variants nor what a rule reads changes what is drawn
    drawn = settings.model_copy(update={"shown": (), "margin": Settings().margin})
    shared = {
        "evaluation": dump(study.evaluation),
        **extractor_configs(study),
        "diversity": dump(drawn),
    }
    roles = ("data", "tokenizer", "features", "tokens", "train")
    for trained, samplers in models.values():
        config = {**trained.config, **shared, "samplers": samplers}
        names = {key: trained.names[key] for key in ("tokenizer", "model")}
        plan.add(suite, Job("diversity", config, trained.inputs(*roles), trained.slug, names))


# ---------------------------------------------------------------- checks


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Variants to show that the suite has not, and images that no training has so many of."""
    if "diversity" not in resolved.suite.measure:
        return
    settings = study.told(resolved.name, "diversity")
    for name in settings.shown:
        if name not in resolved.variants:
            yield (
                f"diversity.shown: {name!r} is no variant of this suite ({some(resolved.variants)})"
            )
    if settings.num_images > study.evaluation.num_images:
        yield (
            f"diversity.num_images: {settings.num_images}: a training draws "
            f"{study.evaluation.num_images} images (evaluation.num_images); give that or fewer"
        )
    if "spectra" in resolved.suite.figures and not any(
        reshapes(resolved.variants[name].sampler)
        for name in shown_of(settings.shown, list(resolved.variants))
        if name in resolved.variants
    ):
        yield "figures: 'spectra' needs a shown variant with sampler.svd_in above 0"


def reshapes(sampler: SamplerConfig) -> bool:
    """Whether a sampler reads another state than was drawn (arXiv 2511.17074)."""
    return sampler.svd_in > 0


def rule_problems(study: Study, resolved: Resolved, claim: Claim) -> Iterator[str]:
    """As of a score; rule frontier compares entries, each on one half of the images; rule gain
    needs each side's sampler without reshaping."""
    yield from score_problems(study, resolved.suite, claim, swept=True)
    yield from side_problems(resolved, claim, grids=claim.rule in GROUPS)
    if claim.rule == "frontier":
        yield from _frontier_problems(study, claim)
    if claim.rule == "gain":
        for key in ("variant", "against"):
            if (name := getattr(claim, key)) in resolved.variants:
                yield from _gain_problems(resolved, key, name)


def _frontier_problems(study: Study, claim: Claim) -> Iterator[str]:
    """A metric that is not held against precision, and too few images for two halves."""
    if claim.metric in ("precision", "fid", "kid"):
        yield (
            f"metric: {claim.metric!r}: rule frontier holds what is more diverse against "
            "precision; name recall, coverage or density"
        )
    if "fidelity" not in study.evaluation.metrics:
        yield "rule: 'frontier' reads precision; add fidelity to evaluation.metrics"
    if claim.better == "lower":
        yield f"better: 'lower': rule frontier asks for a higher {claim.metric}; leave better out"
    if study.evaluation.num_images < 2 * MIN_IMAGES:
        yield (
            "rule: 'frontier' tunes on one half of the images and scores on the other; raise "
            f"evaluation.num_images from {study.evaluation.num_images} to {2 * MIN_IMAGES} or more"
        )


def _gain_problems(resolved: Resolved, key: str, name: str) -> Iterator[str]:
    """A side whose sampler reshapes nothing, or has no counterpart without."""
    variant = resolved.variants[name]
    sampler = variant.sampler
    if sampler.svd_in == sampler.svd_out == 0:
        yield f"{key}: {name!r} reshapes nothing (svd_in 0, svd_out 0); name one that does"
        return
    off = {"svd_in": 0.0, "svd_out": 0.0}
    plain = canonical_sampler(sampler.model_copy(update=off))
    trained = variant.model, variant.training, variant.tokenizer
    for other in resolved.variants.values():
        same = (other.model, other.training, other.tokenizer) == trained
        if same and canonical_sampler(other.sampler) == plain:
            return
    yield (
        f"{key}: {name!r}: rule gain needs the same sampler with svd_in 0 and svd_out 0 in this "
        "suite; add it"
    )
