"""Signal-to-noise ratio along the scales."""

from __future__ import annotations

from pydantic import Field

from srdd.config import Positive, Strict

from ...study.chain import tokenizer_job
from ...study.jobs import Job, Plan
from ...study.names import dump
from ...study.schema import Variant

OF_TOKENIZER = True


class Settings(Strict):
    """Signal-to-noise ratio of the state after each scale."""

    num_images: Positive = Field(512, description="held-out images, or all when there are fewer")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Signal-to-noise ratio along the scales of the first training seed's tokenizer: one job a
    schedule, no model."""
    first = (plan.study.suites[suite].train_seeds or plan.study.train_seeds)[0]
    for variant in variants.values():
        data, tokenizer = tokenizer_job(plan.study, variant, first)
        schedule = variant.model.schedule
        config = {
            **tokenizer.config,
            "patch_nums": list(schedule.patch_nums),
            "snr": dump(plan.study.told(suite, "snr")),
        }
        for job in (
            data,
            tokenizer,
            Job(
                "snr",
                config,
                {"data": data.run_id, "tokenizer": tokenizer.run_id},
                schedule.name,
                tokenizer.identity,
            ),
        ):
            plan.add(suite, job)
