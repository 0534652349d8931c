"""Names: hashes of configs, and files by their content. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, overload

from pydantic import BaseModel

from srdd.config import ModelConfig, SamplerConfig
from srdd.lookup import is_own

from . import checks
from .contents import suffixes_read
from .emoji_files import CREDIT
from .errors import ConfigError
from .schema import SHARPENING, Study
from .settings import HUB, DatasetConfig, EvaluationConfig, FeaturesConfig, WeightsConfig


def sum_needed(file: str) -> str | None:
    """Why a file without a sha256 is not read; None where it may be."""
    if file.endswith(".pth") or file.startswith(HUB):
        return (
            f"{file} needs its sha256 beside it, as every .pth and every file of the hub; "
            "`sha256sum` of a copy that you trust gives it"
        )
    return None


def canonical(data: Any) -> str:
    """JSON with sorted keys: the text that is hashed."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def config_hash(data: Any) -> str:
    """The first 10 hex digits of the sha256 of the canonical JSON."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:10]


def paths_of(study: Study, config: dict[str, Any]) -> dict[str, str]:
    """Where the files lie that a job's config knows by their content, by dotted key."""
    named: dict[str, str | None] = {}
    if "dataset" in config:
        named["dataset.path"] = study.dataset.path
    of_name = {features.name: features for features in study.features}
    for role in filter(OF_EXTRACTOR.fullmatch, config):
        if features := of_name.get(config[role].get("name")):
            named |= {f"{role}.weights": features.weights, f"{role}.reference": features.reference}
    return {key: path for key, path in named.items() if path is not None}


def known_dataset(study: Study) -> DatasetConfig:
    """The dataset by the content of its files, and not by their place. Raises ConfigError for files
    that are not those that the study asks for."""
    data, content = study.dataset, None
    if data.content and data.path is None:
        raise ConfigError(
            f"dataset.content: {data.content}: is the sum of files, and dataset.path names none; "
            "remove it"
        )
    # the loader has sums of its own
    known = data.name in checks.SUMMED and data.content is None
    if data.path is not None and not known:
        content = study._contents.of(data.path, "dataset.path", suffixes_read(data.name))
    if data.content and content and data.content != content:
        raise ConfigError(
            f"dataset.content: {data.content} is asked for, the files at {data.path} are {content}"
        )
    changes = {"path": None, "content": content or data.content, "credit": None}
    return data.model_copy(update=changes)


def credit_of(data: DatasetConfig) -> str | None:
    """Whose images they are: as the study says, or of a set that is known."""
    return data.credit or {"emoji": CREDIT}.get(data.name)


def data_config(study: Study) -> dict[str, Any]:
    """The dataset as a job's config names it. Raises ConfigError as `known_dataset` does."""
    return dump(known_dataset(study))


# key of the config of an extractor in a job, and its role among the inputs
OF_EXTRACTOR = re.compile(r"features(_[1-9][0-9]*)?")


def extractor_role(place: int) -> str:
    """What a job calls one of its extractors, by its place: features, features_1, features_2."""
    return f"features_{place}" if place else "features"


def known_features(study: Study, features: FeaturesConfig) -> FeaturesConfig:
    """A feature extractor, its files by their sums, and not by their place."""
    at = next((key for key, one in study.extractors.items() if one is features), "features")
    changes: dict[str, Any] = {}
    if features.reference is not None:
        known = features.reference_sha256 or study._contents.of(
            features.reference, f"{at}.reference"
        )
        changes |= {"reference": known or Path(features.reference).name, "reference_sha256": known}
    if features.weights is not None:
        changes |= {"weights": features.sha256 or Path(features.weights).name}
    return features.model_copy(update=changes)


def features_config(study: Study, features: FeaturesConfig | None = None) -> dict[str, Any]:
    """A feature extractor as a job's config names it; None: the main one."""
    return dump(known_features(study, features or study.extractor))


def extractor_configs(study: Study) -> dict[str, dict[str, Any]]:
    """All feature extractors as the config of a job that scores in each names them: the main one
    under features, as where there is one alone."""
    return {
        extractor_role(place): features_config(study, features)
        for place, features in enumerate(study.features)
    }


@overload
def dump(model: None) -> None: ...
@overload
def dump(model: BaseModel) -> dict[str, Any]: ...
def dump(model: BaseModel | None) -> dict[str, Any] | None:
    """Settings as a job's config holds and hashes them: without those at their defaults, so that a
    new setting renames nothing. What a default is worth is known by the code that reads it, whose
    digest changes with it."""
    return None if model is None else json.loads(model.model_dump_json(exclude_defaults=True))


def drawn(evaluation: EvaluationConfig) -> dict[str, Any]:
    """Settings of an evaluation as the config of a job holds them that draws images: one more score
    of the same images draws none of them again."""
    return {key: value for key, value in dump(evaluation).items() if key != "metrics"}


@overload
def whole(model: None) -> None: ...
@overload
def whole(model: BaseModel) -> dict[str, Any]: ...
def whole(model: BaseModel | None) -> dict[str, Any] | None:
    """All settings, for whoever shows them."""
    return None if model is None else json.loads(model.model_dump_json())


def by_sum(study: Study, weights: WeightsConfig) -> WeightsConfig:
    """Weights as a job's config names them: by their sum, the given one or that of the file,
    and not by their place."""
    kind, known = "." + weights.file.rsplit(".", 1)[1], weights.sha256
    if known is None and sum_needed(weights.file) is None:
        known = study._contents.of(weights.file, "weights")
    file = known + kind if known else weights.file.rsplit("/", 1)[-1]
    return weights.model_copy(update={"file": file, "sha256": known})


def model_slug(config: ModelConfig) -> str:
    """A readable part of a model's name: its mask and schedule."""
    mask = config.mask or f"h{'None' if config.history is None else config.history}"
    return f"{mask}-{config.schedule.name}"


def unsharpened(sampler: SamplerConfig) -> SamplerConfig:
    """A sampler without what makes samples sharper than the distribution that was learnt, or of
    another one: also without refinement by rules that redraw improbable tokens, which truncates."""
    rule = sampler.select
    cuts = rule.name == "threshold" or rule.knobs().get("confidence") == "drawn"
    cuts = cuts and not is_own("select", rule.name)
    # a reshaped state has another distribution than the learnt one
    off = {**SHARPENING, "svd_in": 0.0, "svd_out": 0.0, "detail_scale": 0.0}
    return sampler.model_copy(update=off | ({"refine_steps": 0} if cuts else {}))


def canonical_sampler(sampler: SamplerConfig) -> dict[str, Any]:
    """A sampler's settings without those at their defaults and those that cannot matter, so that
    equal samplers have one name."""
    idle = idle_settings(sampler)
    return {key: value for key, value in dump(sampler).items() if key not in idle}


def idle_settings(sampler: SamplerConfig) -> dict[str, str]:
    """The settings of a sampler that cannot matter, each with the setting that makes it so."""
    # a function of the user's own may read any setting
    own_rule = sampler.refine_steps and is_own("select", sampler.select.name)
    if own_rule or is_own("sample", sampler.name):
        return {}
    refines, reshapes = sampler.refine_steps > 0, sampler.svd_in or sampler.svd_out
    idle: dict[str, str] = {}
    if sampler.cfg_scale == 1:  # guidance is off and no ramp is asked
        idle |= {"cfg_ramp": "cfg_scale is 1"}
    if not refines:
        idle |= {"select": "refine_steps is 0"}
    if not sampler.sr_steps:
        idle |= {"p_resample": "sr_steps is 0"}
    if not refines and not sampler.sr_steps:
        idle |= {"refine_scales": "refine_steps and sr_steps are 0"}
    if not reshapes:
        idle |= dict.fromkeys(("svd_scales", "svd_norm"), "svd_in and svd_out are 0")
    if not sampler.detail_scale:
        idle |= dict.fromkeys(("detail_ramp", "detail_prior"), "detail_scale is 0")
    return idle
