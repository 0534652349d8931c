"""In-painting, out-painting and super-resolution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from srdd.config import Strict

from ...study.chain import add_probe
from ...study.checks import COSTLY, MIN_IMAGES, RETURNS, legal_metrics
from ...study.jobs import Plan
from ...study.schema import Study, Variant
from ...study.suite_checks import Resolved

EVALUATES = READS_TEST = KNOWN_TOKENS = True

# of boxes alone: super-resolution has a number for each m
BOXES = ("inpaint", "outpaint")
LIKENESS = ("psnr_unknown", "psnr_whole", "ssim_unknown", "ssim_whole", "feature_distance")
SCORES = {score for names in RETURNS.values() for score in names} - {*COSTLY}
REPORTED = tuple(f"{task}_{name}" for task in BOXES for name in (*LIKENESS, *sorted(SCORES)))

Box = Annotated[tuple[float, float, float, float], Field(strict=False)]
TRAINS = True


class Settings(Strict):
    """In-painting, out-painting and super-resolution of held-out images. A box is (top, left,
    bottom, right) in shares of the side."""

    inpaint: Box | None = Field(
        (0.25, 0.25, 0.75, 0.75), description="the box that is drawn; null: no in-painting"
    )
    outpaint: Box | None = Field(
        (0.25, 0.25, 0.75, 0.75), description="the box that is known; null: no out-painting"
    )
    super_resolution: bool = Field(
        True, description="keep the true tokens of the first m scales, for every m from 1 to K-1"
    )
    num_images: int = Field(
        1000, ge=MIN_IMAGES, le=10**7, description="held-out images, or all when there are fewer"
    )

    @model_validator(mode="after")
    def _boxes_lie_inside(self) -> Settings:
        if not (self.inpaint or self.outpaint or self.super_resolution):
            raise ValueError(
                "inpaint null, outpaint null, super_resolution false: no task is left; ask for one "
                "or more"
            )
        for name in ("inpaint", "outpaint"):
            box = getattr(self, name)
            if box and not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
                raise ValueError(
                    f"{name} {list(box)}: not inside the image; 0 <= top < bottom <= 1 and "
                    "0 <= left < right <= 1"
                )
            if box == (0.0, 0.0, 1.0, 1.0):
                raise ValueError(
                    f"{name} {list(box)}: is the whole image; nothing is known, or nothing unknown"
                )
        return self


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """In-painting, out-painting, super-resolution."""
    add_probe(plan, suite, variants, "zero_shot", sampled=True)


def problems(study: Study, resolved: Resolved) -> Iterator[str]:
    """Boxes without a token of the finest grid, or with all: known from the sizes alone."""
    suite, variants = resolved.suite, resolved.variants
    if "zero_shot" not in suite.measure:
        return
    settings = study.told(resolved.name, "zero_shot")
    for name, variant in variants.items():
        image_size = variant.tokenizer.config.image_size
        if image_size < 3:
            yield f"measure: zero_shot needs images of 3 pixels or more, {name!r} has {image_size}"
        yield from _box_problems(settings, name, variant.model.schedule.latent_size)
    scales = [variant.model.schedule.num_scales for variant in variants.values()]
    if not (settings.inpaint or settings.outpaint) and all(count == 1 for count in scales):
        yield "zero_shot.super_resolution: needs a schedule of 2 scales or more, or another task"


def reports(study: Study, resolved: Resolved, variant: str) -> list[str]:
    """Numbers of the boxes that are asked for, as far as the study's metrics and extractors go."""
    settings = study.told(resolved.name, "zero_shot")
    tasks = [task for task in BOXES if getattr(settings, task) is not None]
    likeness = [name for name in LIKENESS if study.trains_extractor or name != "feature_distance"]
    scores = SCORES & {*legal_metrics(study)[0]}
    return [f"{task}_{name}" for task in tasks for name in (*likeness, *scores)]


def _box_problems(settings: Settings, name: str, size: int) -> Iterator[str]:
    """Boxes that leave nothing known, or nothing unknown, of the finest grid of a variant."""
    for task in BOXES:
        box = getattr(settings, task)
        if box is None:
            continue
        top, left, bottom, right = (round(share * size) for share in box)
        cells = (bottom - top) * (right - left)
        if cells in (0, size * size):
            held = "no token" if not cells else "all tokens"
            yield (
                f"zero_shot.{task}: {list(box)}: holds {held} of the {size}x{size} grid of "
                f"{name!r}; move its edges"
            )
