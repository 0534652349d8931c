"""From base and delta to a whole variant, checked. Imports no torch."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from srdd.config import TokenizerConfig
from srdd.lookup import PLACES, names_in, unknown
from srdd.misfits import logit_teacher_misfit, restorer_misfit, sampler_misfit, teacher_misfit

from .contrast import cca_problem, unread_by_arm
from .entries import BY_NAME, NamedEntry, check_one_value, entries_of
from .errors import ConfigError
from .functions import named_by
from .names import by_sum, whole
from .restore_settings import RESTORES
from .schema import SHARPENING, DistillConfig, Study, SuiteEntry, Variant
from .study_file import explain, shown
from .tokenizer_settings import TokenizerSpec
from .training_checks import check_training

ROOT = Path(__file__).resolve().parent.parent.parent
SECTIONS = ("tokenizer", "tokenizer.config", "tokenizer.training", "model", "training", "sampler")

Schema = TypeVar("Schema", bound=BaseModel)


def validated(schema: type[Schema], data: Any, prefix: str = "") -> Schema:
    """Settings as their schema. Raises ConfigError with the key behind a prefix."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, schema, prefix, data)) from None


# ---------------------------------------------------------------- the variants of a suite


def variant_names(study: Study, suite: str) -> list[str]:
    """The names of a suite's variants, grids expanded, in the order of the study."""
    return list(_entries(study, suite))


def _entries(study: Study, suite: str) -> dict[str, NamedEntry]:
    return study.once(
        ("entries", suite), lambda: entries_of(study.suites[suite], f"suites.{suite}.")
    )


def resolve_variant(study: Study, suite: str, name: str) -> Variant:
    """Base plus delta, with what follows from dataset and tokenizer filled in, checked as a whole;
    each once. Raises ConfigError."""

    def make() -> Variant:
        entry = _entries(study, suite)[name].entry
        return resolve(
            study, entry, f"suites.{suite}.variants.{name}", study.suites[suite].sizes_only
        )

    return study.once(("variant", suite, name), make)


def variants_and_teachers(study: Study, suite: str) -> Iterator[Variant]:
    """Every variant of a suite, and the teachers of those that have one."""
    for name in variant_names(study, suite):
        variant = resolve_variant(study, suite, name)
        yield variant
        if variant.distill:
            yield teacher_of(study, variant.distill)


def teacher_of(study: Study, distill: DistillConfig, at: str = "") -> Variant:
    """The teacher of a distillation, each once. Raises ConfigError."""
    key = ("teacher", distill.teacher.model_dump_json())
    return study.once(
        key, lambda: resolve(study, distill.teacher, f"{at}distill.teacher", is_teacher=True)
    )


# ---------------------------------------------------------------- one variant


def resolve(
    study: Study, entry: SuiteEntry, at: str, timed_only: bool = False, is_teacher: bool = False
) -> Variant:
    """An entry as a whole variant. timed_only: other sizes than the data's are legal.
    Raises ConfigError."""
    if is_teacher:  # its delta is no entry of a suite
        check_one_value(entry.delta, f"{at}.")
    settings = _base_and_delta(study, entry, at)
    at += " (delta and base)."
    tokenizer = _fill_tokenizer(study, settings, at, timed_only)
    _fill_model(study, settings, tokenizer, at, timed_only)
    variant = validated(Variant, settings, at)
    _check_fit(variant, at)
    _check_functions(variant, at)
    check_training(variant, at)
    if variant.distill is None:
        return _imported(variant, at)
    if is_teacher:  # also what ends a teacher that names itself
        raise ConfigError(
            f"{at}distill: arm {variant.distill.arm!r} in a teacher; name one that is trained, "
            "without distill"
        )
    return _student(study, variant, variant.distill, at)


def _base_and_delta(study: Study, entry: SuiteEntry, at: str) -> dict[str, Any]:
    """The settings of a base with those that a delta changes."""
    if entry.base not in study.bases:
        raise ConfigError(f"{at}.base: " + unknown("base", entry.base, study.bases))
    settings = copy.deepcopy(study.bases[entry.base])
    # a section or rule given whole first, then what is changed in it, in whatever order they stand
    for dotted, value in sorted(entry.delta.items(), key=lambda item: item[0].count(".")):
        _check_whole_section(settings, dotted, value, f"{at}.delta.")
        _set(settings, dotted, copy.deepcopy(value), f"{at}.delta.")
    return settings


def _set(settings: dict[str, Any], dotted: str, value: Any, prefix: str) -> None:
    *parents, last = dotted.split(".")
    node = settings
    for i, part in enumerate(parents):
        if ".".join(parents[: i + 1]) in BY_NAME and isinstance(node.get(part), str):
            node[part] = {"name": node[part]}
        if not isinstance(node.setdefault(part, {}), dict):
            raise ConfigError(
                f"{prefix}{dotted}: {'.'.join(parents[: i + 1])} holds a value, not further keys"
            )
        node = node[part]
    node[last] = value


def _check_whole_section(settings: dict[str, Any], dotted: str, value: Any, prefix: str) -> None:
    """Raises ConfigError for a section given whole in a delta: what it leaves out would silently go
    back to defaults."""
    if not isinstance(value, dict):
        return
    if dotted in BY_NAME and "name" not in value:
        keys = ", ".join(f"{dotted}.{key}: {shown(part)}" for key, part in value.items())
        raise ConfigError(
            f"{prefix}{dotted}: has no name, which the rule is known by; give one, or dotted "
            f"keys for the rule of the base ({keys or f'{dotted}.<key>: value'})"
        )
    if dotted not in SECTIONS:
        return
    section: Any = settings
    for part in dotted.split("."):
        section = section.get(part, {}) if isinstance(section, dict) else {}
    lost = sorted(set(section) - set(value)) if isinstance(section, dict) else []
    if lost:
        keys = ", ".join(f"{dotted}.{key}: {shown(part)}" for key, part in value.items())
        instead = keys or f"{dotted}.<key>: value"
        raise ConfigError(
            f"{prefix}{dotted}: would drop {', '.join(lost)} of the base; "
            f"give dotted keys ({instead})"
        )


def _section(node: dict[str, Any], key: str, name: str, at: str) -> dict[str, Any]:
    """A section of settings, empty where none is given.
    Raises ConfigError for a value in its place."""
    section = node.setdefault(key, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{at}{name}: must hold keys")
    return section


def _fill(node: dict[str, Any], follows: dict[str, Any], at: str, source: str) -> None:
    for key, value in follows.items():
        if node.setdefault(key, value) != value:
            raise ConfigError(
                f"{at}{key}: {node[key]!r} does not fit the {source}'s {value!r}; leave it out"
            )


def _fill_tokenizer(
    study: Study, settings: dict[str, Any], at: str, timed_only: bool
) -> TokenizerConfig:
    """Fill in what a tokenizer takes from the dataset."""
    spec = _section(settings, "tokenizer", "tokenizer", at)
    config = _section(spec, "config", "tokenizer", at)
    follows: dict[str, Any] = {
        "image_size": study.dataset.image_size,
        "in_channels": study.dataset.channels,
    }
    if timed_only:
        follows |= {key: config[key] for key in follows if key in config}
    _fill(config, follows, f"{at}tokenizer.config.", "dataset")
    return validated(TokenizerSpec, spec, f"{at}tokenizer.").config


def _fill_model(
    study: Study, settings: dict[str, Any], tokenizer: TokenizerConfig, at: str, timed_only: bool
) -> None:
    """Fill in what a model takes from the tokenizer and the dataset."""
    model, classes = _section(settings, "model", "model", at), study.dataset.num_classes
    follows = {"codebook_size": tokenizer.codebook_size, "codebook_dim": tokenizer.codebook_dim}
    _fill(model, follows, f"{at}model.", "tokenizer")
    model.setdefault("num_classes", classes)
    model.setdefault("patch_nums", list(tokenizer.patch_nums))
    if tokenizer.combine == "replace":
        model.setdefault("state", "replace")
    if model["num_classes"] not in (0, classes) and not timed_only:
        raise ConfigError(
            f"{at}model.num_classes: {model['num_classes']} does not fit the dataset's {classes} "
            f"(legal: {classes}, or 0 for an unconditional model)"
        )


def _check_fit(variant: Variant, at: str) -> None:
    """Refuse a model that does not fit its tokenizer, and a sampler that does not fit its model."""
    size = variant.tokenizer.config.schedule.latent_size
    if variant.model.schedule.latent_size != size:
        raise ConfigError(
            f"{at}model.patch_nums: {list(variant.model.patch_nums)} must "
            f"end at the tokenizer's latent size {size}"
        )
    combine, state = variant.tokenizer.config.combine, variant.model.state
    if (combine == "replace") != (state == "replace"):
        raise ConfigError(
            f"{at}model.state: {state!r} does not fit tokenizer.config.combine {combine!r}; "
            "replace needs replace, and sum or last need sum"
        )
    if variant.sampler.cfg_scale != 1.0 and not variant.model.num_classes:
        raise ConfigError(
            f"{at}sampler.cfg_scale: {variant.sampler.cfg_scale:g}: guides a model that has no "
            "classes; set it to 1, as the suite main_unconditional does"
        )
    problem = sampler_misfit(variant.sampler, variant.model)
    if problem:
        raise ConfigError(f"{at}sampler.{problem}")


def _check_functions(variant: Variant, at: str) -> None:
    """Refuse names of functions that are not there."""
    for section in ("tokenizer.config", "sampler", "model", "training"):
        settings = operator.attrgetter(section)(variant)
        for key, (prefix, name) in named_by(settings) if settings else ():
            check_known(f"{at}{section}.{key.removesuffix('.name')}", PLACES[prefix], prefix, name)


def check_known(at: str, file: str, prefix: str, value: str | None) -> None:
    """Refuse a name without a function `<prefix>_<name>` in a file; None names none."""
    try:
        names = names_in(ROOT / file, prefix)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if value is not None and value not in names:
        raise ConfigError(
            f"{at}: {unknown('name', value, names)}; a name is a function {prefix}_<name> in {file}"
        )


def _imported(variant: Variant, at: str) -> Variant:
    """A variant without a training where its weights exist: nothing of its training matters."""
    if variant.weights is None:
        return variant
    if variant.model.mask_prob and variant.weights.file.endswith(".pth"):
        raise ConfigError(
            f"{at}model.mask_prob: {variant.model.mask_prob}: official weights know no masks; "
            "set it to 0"
        )
    if variant.model.history_vector and variant.weights.file.endswith(".pth"):
        raise ConfigError(
            f"{at}model.history_vector: {variant.model.history_vector}: official weights know "
            "none; set it to 0, or train one with distill.arm real"
        )
    return variant.model_copy(update={"training": None})


# ---------------------------------------------------------------- distillation


def _student(study: Study, variant: Variant, distill: DistillConfig, at: str) -> Variant:
    """A distillation, checked against its teacher; the arm `scratch`, the control,
    as a plain training."""
    arms = _check_arm(distill, at)
    teacher = teacher_of(study, distill, at)
    if problem := unread_by_arm(distill):
        raise ConfigError(f"{at}{problem}")
    if distill.guided:
        _check_guided(variant, distill, teacher, at)
    _check_one_tokenizer(teacher, variant, at)
    _check_weights(study, variant, distill, teacher, at)
    variant = variant.model_copy(update={"weights": None})
    if problem := cca_problem(variant, distill, teacher):
        raise ConfigError(f"{at}{problem} (distill.arm {distill.arm})")
    if distill.arm == "scratch":
        return _control(variant, distill, teacher, at, arms)
    _check_models(variant, distill, teacher, at)
    return variant


def _check_arm(distill: DistillConfig, at: str) -> list[str]:
    """The names of the arms. Raises ConfigError for an unknown one,
    and for a teacher that is a grid."""
    arms = [*names_in(ROOT / "bench/pipeline/distill.py", "arm"), "scratch"]
    if distill.arm not in arms:
        raise ConfigError(f"{at}distill.arm: " + unknown("arm", distill.arm, arms))
    if distill.teacher.grid:
        raise ConfigError(
            f"{at}distill.teacher.grid: {list(distill.teacher.grid)}: a teacher is one model; "
            "put it into the delta"
        )
    return arms


def _check_guided(variant: Variant, distill: DistillConfig, teacher: Variant, at: str) -> None:
    """A student of a teacher that draws as its sampler says is not sharpened once more."""
    for key, off in SHARPENING.items():
        taught, asked = getattr(teacher.sampler, key), getattr(variant.sampler, key)
        if taught != off and asked != off:
            raise ConfigError(
                f"{at}sampler.{key}: {asked}: a student of guided "
                f"samples is scored with {key} {off!r}, "
                f"its teacher drew them with {taught}; set it so, or distill.guided to false"
            )


def _check_one_tokenizer(teacher: Variant, variant: Variant, at: str) -> None:
    difference = _first_difference(whole(teacher.tokenizer), whole(variant.tokenizer))
    if difference:
        key, old, new = difference
        raise ConfigError(
            f"{at}distill.teacher: tokenizer.{key} is {old!r}, the student's {new!r}; "
            "both must share one tokenizer"
        )


def _first_difference(old: Any, new: Any, at: str = "") -> tuple[str, Any, Any] | None:
    """Where two settings differ first: dotted key and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = (
            _first_difference(old.get(key), new.get(key), f"{at}.{key}" if at else key)
            for key in old | new
        )
        return next(filter(None, parts), None)
    return None if old == new else (at, old, new)


def _check_weights(
    study: Study, variant: Variant, distill: DistillConfig, teacher: Variant, at: str
) -> None:
    """Refuse weights beside those of the teacher; the weights of a base that is the teacher's too
    say nothing new."""
    own, taught = variant.weights, teacher.weights
    if own and (taught is None or by_sum(study, own) != by_sum(study, taught)):
        raise ConfigError(
            f"{at}weights: {own.file!r} beside distill, which starts from the weights of "
            f"{distill.teacher.base!r}; leave one out"
        )


def _control(
    variant: Variant, distill: DistillConfig, teacher: Variant, at: str, arms: list[str]
) -> Variant:
    """The arm `scratch`: a plain training that sees as many tokens as teacher and student
    together."""
    if teacher.training is None or variant.training is None:
        raise ConfigError(
            f"{at}distill.arm: 'scratch' sees as many tokens as its teacher, "
            f"but {distill.teacher.base!r} is imported and nobody "
            f"counted them; use a trained teacher or another arm ({', '.join(arms[:-1])})"
        )
    seen = teacher.training.steps * teacher.training.batch_size * teacher.model.schedule.seq_len
    more = round(seen / (variant.training.batch_size * variant.model.schedule.seq_len))
    longer = variant.training.model_copy(update={"steps": variant.training.steps + more})
    return variant.model_copy(update={"training": longer, "distill": None})


def _check_models(variant: Variant, distill: DistillConfig, teacher: Variant, at: str) -> None:
    misfit = restorer_misfit if distill.arm == RESTORES else teacher_misfit
    problem = misfit(teacher.model, variant.model)
    if not problem and distill.arm == "logit":
        problem = logit_teacher_misfit(teacher.model, variant.model)
    if problem:
        raise ConfigError(
            f"{at}model.{problem} (distill.arm {distill.arm}, "
            f"distill.teacher {distill.teacher.base!r})"
        )
