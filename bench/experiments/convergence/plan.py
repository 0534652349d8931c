"""Scores of the weights along the training."""

from __future__ import annotations

from collections.abc import Iterator

from ...study.chain import score_jobs
from ...study.errors import ConfigError
from ...study.jobs import Plan
from ...study.schema import Claim, Study, Variant
from ...study.suite_checks import Resolved, side_problems, token_problems

NEEDS = {"judge_convergence": "trained"}

TRAINS = DRAWS = True


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Scores of the weights along the training."""
    for name, variant in variants.items():
        if variant.weights:
            raise ConfigError(
                f"suites.{suite}.measure: convergence of {name!r}, which is imported: "
                "it has no weights along a training"
            )
    score_jobs(plan, suite, variants, snapshots=True)


def rule_problems(study: Study, one: Resolved, claim: Claim) -> Iterator[str]:
    """A metric that the rule does not read, and sides without a training."""
    if "metric" in claim.model_fields_set:
        yield f"metric: {claim.metric!r}: rule {claim.rule} reads none; remove it"
    yield from side_problems(one, claim)
    yield from token_problems(one, claim)
    for key in ("variant", "against"):
        name = getattr(claim, key)
        if name in one.variants and one.variants[name].training is None:
            yield f"{key}: {name!r} is imported, no training is compared; use another rule"


def cautions(study: Study, one: Resolved) -> Iterator[str]:
    """One point along a training is no curve."""
    if "convergence" not in one.suite.measure:
        return
    for name, variant in one.variants.items():
        training = variant.training
        if training is not None and training.snapshot_every >= training.steps:
            yield (
                f"variants.{name}: training.snapshot_every: {training.snapshot_every}: gives one "
                f"point along {training.steps} steps, no curve; give less"
            )
