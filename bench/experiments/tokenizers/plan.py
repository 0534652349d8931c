"""The tokenizers of a suite, without any model: trained, read, scored."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from srdd.config import Strict
from srdd.lookup import unknown

from ...study.chain import add_tokenized
from ...study.jobs import Job, Plan
from ...study.names import dump
from ...study.schema import Claim, Study, Variant
from ...study.suite_checks import Resolved, side_problems

TRAINS = READS_TEST = OF_TOKENIZER = True
SHOWS_FID = ("table_reconstruction",)
JUDGED = ("fid", "psnr", "mse")  # what rule reconstruction compares


class Settings(Strict):
    """Reconstructions that are looked at."""

    shown: int = Field(10, ge=1, le=40, description="held-out images of the figure")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Tokenizers, tokens and scores of reconstructions, and one job a tokenizer that looks at
    held-out images."""
    for variant in variants.values():
        for seed in plan.study.seeds_of(suite):
            chain = add_tokenized(plan, suite, variant, seed)
            told = {"tokenizers": dump(plan.study.told(suite, "tokenizers"))}
            encoded = chain.encoded
            config, read = {**encoded.config, **told}, chain.read
            plan.add(suite, Job("tokenizers", config, read, encoded.slug, encoded.identity))


def rule_problems(study: Study, one: Resolved, claim: Claim) -> Iterator[str]:
    """Metrics of which reconstructions have no number, sides that are grids, and sides that share
    their reconstructions."""
    if claim.metric not in JUDGED:
        yield "metric: " + unknown("metric of reconstructions", claim.metric, JUDGED)
    elif claim.better is None:
        yield f"better: is missing; say whether lower or higher {claim.metric} is better"
    yield from side_problems(one, claim)
    sides = [one.variants[name] for name in (claim.variant, claim.against) if name in one.variants]
    if len(sides) == 2:
        first, second = ((side.tokenizer, side.model.patch_nums) for side in sides)
        if first == second:
            yield (
                f"against: {claim.against!r} has the tokenizer and the schedule of "
                f"{claim.variant!r}, and so the same reconstructions; name variants of two"
            )
