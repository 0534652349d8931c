"""Which functions a job's settings name: each field says so itself (`srdd.lookup.names_function`). Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel

from srdd.config import CONFIDENCES, ModelConfig, SamplerConfig
from srdd.lookup import is_own

from .schema import DistillSettings, Suite
from .settings import DatasetConfig, EvaluationConfig, TrainingConfig

Function = tuple[str, str]  # prefix and name


def _sections() -> dict[str, type[BaseModel]]:
    """The schemas of the parts of a job's config, by key."""
    of_measures = {key: field.annotation for key, field in Suite.model_fields.items()}
    settings = {key: kind for key, kind in of_measures.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
    return settings | {
        "dataset": DatasetConfig,
        "model": ModelConfig,
        "training": TrainingConfig,
        "sampler": SamplerConfig,
        "distill": DistillSettings,
        "evaluation": EvaluationConfig,
    }


SECTIONS = _sections()


def functions_of(config: Any) -> frozenset[Function]:
    """The functions that the config of a job names, those of defaults included, as (prefix, name)."""
    return frozenset(_of_config(config))


def _of_config(config: Any) -> Iterator[Function]:
    if isinstance(config, list):
        for part in config:
            yield from _of_config(part)
    for key, part in config.items() if isinstance(config, dict) else ():
        if key in SECTIONS and isinstance(part, dict):
            yield from _of_section(key, json.dumps(part))
        elif key != "tokenizer":  # whose training is of another kind and names none
            yield from _of_config(part)


@cache
def _of_section(key: str, text: str) -> tuple[Function, ...]:
    """The functions of one part of a config, once however many jobs have it."""
    return tuple(_of_settings(SECTIONS[key].model_validate_json(text)))


def _of_settings(settings: BaseModel) -> Iterator[Function]:
    unread = _unread(settings)
    for key, field in type(settings).model_fields.items():
        value, extra = getattr(settings, key), field.json_schema_extra
        if isinstance(value, BaseModel):
            yield from _of_settings(value)
        if isinstance(extra, dict) and key not in unread:
            names = value if isinstance(value, tuple) else [value]
            yield from ((prefix, name) for prefix in extra.get("functions", ()) for name in names if name is not None)
    if isinstance(settings, SamplerConfig) and settings.confidence is None and "confidence" not in unread:
        if settings.select in CONFIDENCES:
            yield "confidence", CONFIDENCES[settings.select]


def _unread(settings: BaseModel) -> set[str]:
    """Fields whose functions nothing asks with these settings: no ramp where guidance is off, no rule where nothing is refined. A
    sampler of one's own may ask any."""
    if not isinstance(settings, SamplerConfig) or is_own("sample", settings.name):
        return set()
    unread = {"cfg_ramp"} if settings.cfg_scale == 1 else set()
    return unread | (set() if settings.refine_steps else {"select", "confidence"})
