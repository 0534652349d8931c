"""Time and memory of sampling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from srdd.config import Positive, Strict

from ...study.chain import identity_of
from ...study.jobs import Job, Plan
from ...study.names import canonical_sampler, dump
from ...study.schema import Claim, Study, Variant
from ...study.settings import Precision, once_each
from ...study.suite_checks import Resolved, side_problems

SIZES_ONLY = True


def _most_rounds(data: dict[str, Any]) -> int:
    """The usual limit, and never fewer rounds than are asked for at least."""
    return max(40, data.get("rounds", 0))


class Settings(Strict):
    """How time and memory are measured: interleaved rounds of one process until ratios are sure."""

    batch_sizes: tuple[Positive, ...] = Field(
        (1, 2, 4, 8, 16, 32, 64), strict=False, min_length=1, description="images drawn at once"
    )
    rounds: int = Field(5, ge=2, le=10**6, description="of every variant and batch size, at least")
    max_rounds: int = Field(
        default_factory=_most_rounds,
        ge=2,
        le=10**6,
        description="at most; where none are given 40, or rounds if that is more",
    )
    width: float = Field(
        0.05,
        gt=0,
        le=1e6,
        description="rounds go on until the 95 % t-interval of the log ratio to the first "
        "variant's time is this wide or less",
    )
    warmup: Positive = Field(1, description="rounds before those that are timed")
    precision: Precision = Field("float32", description="of the network")
    compile: bool = Field(
        False, description="compile what the model calls at each scale; warm-up is excluded"
    )

    @model_validator(mode="after")
    def _rounds_have_an_end(self) -> Settings:
        if self.max_rounds < self.rounds:
            raise ValueError(
                f"max_rounds {self.max_rounds}: is less than rounds {self.rounds}; give "
                f"{self.rounds} or more"
            )
        return self

    _batch_sizes_differ = once_each("batch_sizes")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job for all variants of the suite, so that its rounds interleave them. Weights do not
    change time: none are trained, and variants that differ in training only are timed once."""
    entries, timed = {}, set()
    for name, variant in variants.items():
        identity = identity_of(plan.study, variant)
        key = identity["timed"], identity["sampler"]
        if key in timed:
            continue
        timed.add(key)
        entries[name] = {
            "identity": {"model": identity["timed"], "sampler": identity["sampler"]},
            "tokenizer": dump(variant.tokenizer.config),
            "model": dump(variant.model),
            "sampler": canonical_sampler(variant.sampler),
        }
    config = {"latency": dump(plan.study.told(suite, "latency")), "variants": entries}
    plan.add(suite, Job("latency", config, {}, suite))


def rule_problems(study: Study, resolved: Resolved, claim: Claim) -> Iterator[str]:
    """Metrics that the rules do not read, and sides that are grids."""
    if claim.rule == "memory" and claim.metric != "pipeline" and "metric" in claim.model_fields_set:
        yield (
            f"metric: {claim.metric!r}: rule memory reads 'pipeline' alone, the peak of weights, "
            "sampler and decoder; leave it out for the sampler's working memory"
        )
    if claim.rule != "memory" and "metric" in claim.model_fields_set:
        yield f"metric: {claim.metric!r}: rule {claim.rule} reads none; remove it"
    yield from side_problems(resolved, claim)
