"""What all settings of tokenizer, model and sampler (VAR, arXiv 2404.02905) have in common: strict
objects, and numbers with the bounds of every use. Imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# an upper bound far above every use: a number beyond it is a slip, and would end in MemoryError
# hours later. A field with a bound of its own says all of its bounds itself: those of an alias and
# of Field do not add up
Positive = Annotated[int, Field(ge=1, le=10**9)]
Side = Annotated[int, Field(ge=1, le=8192)]
Width = Annotated[int, Field(ge=1, le=2**20)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]  # at 1 nothing would be left


class Strict(BaseModel):
    """A frozen settings object that refuses unknown keys, silent conversions, and numbers that JSON
    has no word for."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
