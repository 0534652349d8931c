"""Errors of one scale and what follows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from srdd.config import Strict

from ...study.chain import add_probe
from ...study.checks import MIN_IMAGES
from ...study.jobs import Plan
from ...study.schema import Variant
from ...study.settings import once_each

EVALUATES = KNOWN_TOKENS = READS_CODES = True

TRAINS = True


class Settings(Strict):
    """Share of the tokens of one scale that are replaced before the sampler goes on."""

    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.05, 0.1, 0.25, 0.5, 1.0),
        strict=False,
        min_length=1,
        description="of the tokens that are replaced",
    )
    num_images: int = Field(
        640, ge=MIN_IMAGES, le=10**7, description="images drawn for each scale and share"
    )

    _shares_differ = once_each("shares")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Corrupted tokens of one scale, and what becomes of them."""
    add_probe(plan, suite, variants, "error_propagation", sampled=True)
