"""Which functions a job's settings name: each field says so itself (`srdd.lookup.names_function`).
Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel

from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.lookup import is_own

from . import rooms
from .restore_settings import RestoreConfig
from .schema import DistillSettings
from .settings import DatasetConfig, EvaluationConfig, TrainingConfig

Function = tuple[str, str]  # prefix and name
SIZES = "tokenizer.config"


@cache
def sections() -> dict[str, type[BaseModel]]:
    """The schemas of the parts of a job's config, by key."""
    return rooms.with_settings() | {
        "dataset": DatasetConfig,
        "model": ModelConfig,
        "training": TrainingConfig,
        "sampler": SamplerConfig,
        "distill": DistillSettings,
        "restore": RestoreConfig,
        "evaluation": EvaluationConfig,
        SIZES: TokenizerConfig,
    }


def functions_of(config: Any) -> frozenset[Function]:
    """The functions that the config of a job names, those of defaults included, as (prefix,
    name)."""
    return frozenset(_of_config(config))


def _of_config(config: Any) -> Iterator[Function]:
    if isinstance(config, list):
        for part in config:
            yield from _of_config(part)
    for key, part in config.items() if isinstance(config, dict) else ():
        if key in sections() and isinstance(part, dict):
            yield from _of_section(key, json.dumps(part))
        elif key == "tokenizer" and isinstance(part, dict):
            # its training is of another kind and names none; a job of sizes has these alone
            sizes = part.get("config", part if "patch_nums" in part else None)
            if sizes is not None:
                yield from _of_section(SIZES, json.dumps(sizes))
        else:
            yield from _of_config(part)


@cache
def _of_section(key: str, text: str) -> tuple[Function, ...]:
    """The functions of one part of a config, once however many jobs have it."""
    return tuple(_of_settings(sections()[key].model_validate_json(text)))


def _own(settings: BaseModel) -> Iterator[tuple[str, Function]]:
    """The functions that fields of these settings name, by field."""
    for key, field in type(settings).model_fields.items():
        says: Any = field.json_schema_extra
        value = getattr(settings, key)
        names = value if isinstance(value, tuple) else [value]
        for prefix in says.get("functions", ()) if says else ():
            yield from ((key, (prefix, name)) for name in names if name is not None)


def named_by(settings: BaseModel) -> Iterator[tuple[str, Function]]:
    """The functions that settings and parts of them name, by dotted key, used or not."""
    yield from _own(settings)
    for key, part in settings:
        if isinstance(part, BaseModel):
            yield from ((f"{key}.{below}", function) for below, function in named_by(part))


def _of_settings(settings: BaseModel) -> Iterator[Function]:
    unread = _unread(settings)
    yield from (function for key, function in _own(settings) if key not in unread)
    for key, part in settings:
        if isinstance(part, BaseModel) and key not in unread:
            yield from _of_settings(part)


def _unread(settings: BaseModel) -> set[str]:
    """Fields whose functions nothing asks with these settings: no ramp where guidance is off, no
    rule where nothing is refined. A sampler of one's own may ask any."""
    if not isinstance(settings, SamplerConfig) or is_own("sample", settings.name):
        return set()
    unread = {"cfg_ramp"} if settings.cfg_scale == 1 else set()
    return unread | (set() if settings.refine_steps else {"select"})
