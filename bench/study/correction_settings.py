"""What a training sets of errors that a model meets while it learns. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from srdd.config import Share, Strict

# the settings that each kind reads
OF_NAME = {
    "none": (),
    "requantise": ("noise", "scales"),
    "rollout": ("draw", "target", "weight"),
}


def by_name(value: Any) -> Any:
    """A correction from its name alone, or from all of its settings."""
    return {"name": value} if isinstance(value, str) else value


class CorrectionConfig(Strict):
    """Errors in training, which the tokens to predict repair (Infinity, arXiv 2412.04431; SAR,
    2512.06421)."""

    name: Literal["none", "requantise", "rollout"] = Field(
        "none",
        description="requantise: some tokens of early scales are replaced, and each scale predicts "
        "the true code of what is then left; rollout: a second pass reads the model's own tokens "
        "of one scale",
    )
    noise: Share = Field(
        0.3,
        description="requantise: s; of each image and scale a share that is uniform in (0, s) is "
        "replaced by any code",
    )
    scales: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="requantise: the first so many scales meet errors; null: all but the last",
    )
    draw: Literal["argmax", "drawn"] = Field(
        "argmax", description="rollout: the model's likeliest tokens, or some that are drawn"
    )
    target: Literal["teacher", "clean", "requantised"] = Field(
        "teacher",
        description="rollout: what the second pass predicts: what the first pass thought "
        "likeliest, the true tokens, or the true codes of what is then left",
    )
    weight: float = Field(
        0.01, gt=0, le=1000, description="rollout: of the second pass in the loss; the first has 1"
    )

    @model_validator(mode="after")
    def _all_is_read(self) -> CorrectionConfig:
        idle = self.model_fields_set - {"name", *OF_NAME[self.name]}
        for key in sorted(idle):
            value, usual = getattr(self, key), type(self).model_fields[key].default
            if value != usual:
                raise ValueError(
                    f"{key} {value}: {self.name} does not read it; leave it out, or set it back "
                    f"to {usual}"
                )
        return self

    @property
    def reads_images(self) -> bool:
        """Whether tokens are made anew of the images of a batch."""
        return self.name == "requantise" or (
            self.name == "rollout" and self.target == "requantised"
        )
