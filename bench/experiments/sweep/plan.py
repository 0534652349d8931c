"""Many samplers of each trained model, sampled and scored by one job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from srdd.config import Chance, Strict

from ...study.chain import Trained, trainings
from ...study.checks import MIN_IMAGES
from ...study.jobs import Job, Plan
from ...study.names import canonical_sampler, dump, extractor_configs
from ...study.schema import Claim, Study, Variant
from ...study.settings import once_each
from ...study.suite_checks import Resolved, score_problems, side_problems

HALVES = ("judge_tuned",)

SCORES = TRAINS = DRAWS = True


class Settings(Strict):
    """Many samplers of each trained model, sampled and scored by one job a model."""

    halves: bool = Field(
        True,
        description="score each half of the sample seeds too, which tuning needs; "
        "false: half of the time",
    )
    thresholds: tuple[Chance, ...] = Field(
        (), strict=False, description="report the share of drawn tokens below each, per scale"
    )

    _thresholds_differ = once_each("thresholds")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job a trained model for all its samplers."""
    models: dict[str, tuple[Trained, list[dict[str, Any]]]] = {}
    for variant, trained in trainings(plan, suite, variants):
        entry = {"name": trained.names["sampler"], "sampler": canonical_sampler(variant.sampler)}
        _, entries = models.setdefault(trained.train.run_id, (trained, []))
        if entry not in entries:
            entries.append(entry)
    study, roles = plan.study, ("data", "tokenizer", "features", "tokens", "train")
    shared = {
        "evaluation": dump(study.evaluation),
        **extractor_configs(study),
        "sweep": dump(study.told(suite, "sweep")),
    }
    for trained, samplers in models.values():
        config = {**trained.config, **shared, "samplers": samplers}
        names = {key: trained.names[key] for key in ("tokenizer", "model")}
        plan.add(suite, Job("sweep", config, trained.inputs(*roles), trained.slug, names))


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Probabilities of codes of a model that predicts none, and a table that no sampler fills."""
    swept = "sweep" in resolved.suite.measure and study.told(resolved.name, "sweep").thresholds
    for name, variant in resolved.variants.items() if swept else ():
        if variant.model.regresses:
            yield (
                f"variants.{name}.model.head: 'gauss' predicts no codes, whose probabilities "
                "sweep.thresholds asks for; set thresholds to []"
            )
    if "sampling_probability" not in resolved.suite.tables:
        return
    if not study.told(resolved.name, "sweep").thresholds:
        yield "tables: 'sampling_probability' needs sweep.thresholds, such as [0.05, 0.1]"
    if not any(variant.sampler.draws_once for variant in resolved.variants.values()):
        yield (
            "tables: 'sampling_probability' needs a variant that draws each token once "
            "(sr_steps 0, refine_steps 0)"
        )


def rule_problems(study: Study, resolved: Resolved, claim: Claim) -> Iterator[str]:
    """As of a score; a rule that tunes compares entries, each on one half of the images."""
    yield from score_problems(study, resolved.suite, claim, swept=True)
    if study.evaluation.num_images < 2 * MIN_IMAGES:
        yield (
            "rule: 'tuned' tunes on one half of the images and scores on the other; raise "
            "evaluation.num_images from "
            f"{study.evaluation.num_images} to {2 * MIN_IMAGES} or more"
        )
    yield from side_problems(resolved, claim, grids=True)
