"""The diffusion ELBO against the cross-entropy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from pydantic import Field

from srdd.config import Positive, Share, Strict
from srdd.lookup import names_function, unknown

from ...study.chain import add_probe
from ...study.jobs import Plan
from ...study.schema import Claim, Study, Variant
from ...study.settings import once_each
from ...study.suite_checks import Resolved, side_problems

# gaps that are 0 where two losses are equal
GAPS = ("elbo_relative_gap", "elbo_token_gap", "path_kl", "path_kl_equal_state")

TRAINS = READS_CODES = True


class Settings(Strict):
    """The diffusion ELBO of trained models against their cross-entropy."""

    eps: tuple[Share, ...] = Field(
        (0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7),
        strict=False,
        min_length=1,
        description="noises of a corruption",
    )
    corruptions: tuple[str, ...] = Field(
        ("uniform", "absorb"),
        strict=False,
        min_length=1,
        description="names of corrupt_<name> in srdd/corruption.py",
        json_schema_extra=names_function("corrupt", "terms"),
    )
    draws: Positive = Field(4, description="draws of the forward noise an image")
    num_images: Positive = Field(128, description="held-out images")

    _names_differ = once_each("eps", "corruptions")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """ELBO against cross-entropy."""
    add_probe(plan, suite, variants, "equivalence", sampled=False)


def elbos(settings: Settings) -> Iterator[tuple[str, float]]:
    """Every corruption with every noise."""
    yield from itertools.product(settings.corruptions, settings.eps)


def rule_problems(study: Study, resolved: Resolved, claim: Claim) -> Iterator[str]:
    """Gaps that are not measured, and sides that are grids."""
    if "better" in claim.model_fields_set:
        yield f"better: {claim.better!r}: rule equal reads none; remove it"
    elif claim.metric not in GAPS:
        yield (
            "metric: " + unknown("gap", claim.metric, GAPS) + "; rule equal asks whether a gap is 0"
        )
    yield from side_problems(resolved, claim)


def cautions(study: Study, resolved: Resolved) -> Iterator[str]:
    """A column of the table that stays empty."""
    eps = study.told(resolved.name, "equivalence").eps
    if "equivalence" in resolved.suite.tables and 0.0 not in eps:
        yield (
            f"equivalence.eps: {list(eps)}: has no 0, the table's column of "
            "the ELBO without noise stays empty"
        )
