"""From base and delta to a whole variant, checked. Imports no torch."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from srdd.config import logit_teacher_misfit, sampler_misfit, teacher_misfit
from srdd.lookup import PLACES, names_in, unknown

from .errors import ConfigError
from .functions import named_by
from .names import by_sum, whole
from .schema import SHARPENING, Study, Suite, SuiteEntry, Variant
from .settings import TokenizerSpec
from .study_file import explain, shown

ROOT = Path(__file__).resolve().parent.parent.parent


def validated(schema: type[BaseModel], data: Any, prefix: str = "") -> Any:
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, schema, prefix)) from None


def _set(settings: dict, dotted: str, value: Any, prefix: str) -> None:
    *parents, last = dotted.split(".")
    node = settings
    for i, part in enumerate(parents):
        if not isinstance(node.setdefault(part, {}), dict):
            raise ConfigError(f"{prefix}{dotted}: {'.'.join(parents[: i + 1])} holds a value, not further keys")
        node = node[part]
    node[last] = value


SECTIONS = ("tokenizer", "tokenizer.config", "tokenizer.training", "model", "training", "sampler")


def _loses(settings: dict, dotted: str, value: Any, prefix: str) -> None:
    """Raises ConfigError for a section given whole in a delta: what it leaves out would silently go
    back to defaults."""
    if dotted not in SECTIONS or not isinstance(value, dict):
        return
    here: Any = settings
    for part in dotted.split("."):
        here = here.get(part, {}) if isinstance(here, dict) else {}
    if lost := sorted(set(here) - set(value) if isinstance(here, dict) else ()):
        instead = ", ".join(f"{dotted}.{key}: {shown(part)}" for key, part in value.items())
        raise ConfigError(
            f"{prefix}{dotted}: would drop {', '.join(lost)} of the base; give dotted keys ({instead or f'{dotted}.<key>: value'})"
        )


MOST_VARIANTS = 1000  # of a suite


def entries_of(suite: Suite, at: str = "") -> dict[str, tuple[str, SuiteEntry, dict[str, Any]]]:
    """The variants of a suite by name, grids expanded: name of the entry, the entry with the grid's values in its delta, the values."""
    found: dict[str, tuple[str, SuiteEntry, dict[str, Any]]] = {}
    counts = {name: math.prod(map(len, entry.grid.values())) for name, entry in suite.variants.items()}
    if (count := sum(counts.values())) > MOST_VARIANTS:
        most = max(counts, key=counts.get)
        raise ConfigError(
            f"{at}variants: {count:,} with their grids, of {most!r} alone {counts[most]:,}; {MOST_VARIANTS} a suite are the most"
        )
    for name, entry in suite.variants.items():
        for values in itertools.product(*entry.grid.values()):
            chosen = dict(zip(entry.grid, values))
            words = [f"{key.rsplit('.', 1)[-1]} {_word(value)}" for key, value in chosen.items()]
            plain = SuiteEntry(base=entry.base, delta={**entry.delta, **chosen})
            full = ", ".join((name, *words))
            if found.setdefault(full, (name, plain, chosen)) != (name, plain, chosen):
                raise ConfigError(f"{at}variants.{full}: two different variants have this name; name one otherwise")
    return found


def _word(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def resolve_variant(study: Study, suite: str, name: str) -> Variant:
    """Base plus delta, with what follows from dataset and tokenizer filled in, checked as a whole. Raises ConfigError."""
    entry = entries_of(study.suites[suite])[name][1]
    timed_only = study.suites[suite].sizes_only
    return resolve(study, entry, f"suites.{suite}.variants.{name}", timed_only)


def resolve(study: Study, entry: SuiteEntry, at: str, timed_only: bool = False, is_teacher: bool = False) -> Variant:
    if entry.base not in study.bases:
        raise ConfigError(f"{at}.base: " + unknown("base", entry.base, study.bases))
    settings = copy.deepcopy(study.bases[entry.base])
    for dotted, value in entry.delta.items():
        _loses(settings, dotted, value, f"{at}.delta.")
        _set(settings, dotted, copy.deepcopy(value), f"{at}.delta.")
    at += " (delta and base)."
    data, config = study.dataset, settings.setdefault("tokenizer", {})
    if not isinstance(config, dict) or not isinstance(config.setdefault("config", {}), dict):
        raise ConfigError(f"{at}tokenizer: must hold keys")
    follows = {"image_size": data.image_size, "in_channels": data.channels}
    if timed_only:
        follows |= {key: value for key, value in config["config"].items() if key in follows}
    _fill(config["config"], follows, f"{at}tokenizer.config.", "dataset")
    tokenizer = validated(TokenizerSpec, config, f"{at}tokenizer.").config
    model = settings.setdefault("model", {})
    if not isinstance(model, dict):
        raise ConfigError(f"{at}model: must hold keys")
    follows = {"codebook_size": tokenizer.codebook_size, "codebook_dim": tokenizer.codebook_dim}
    _fill(model, follows, f"{at}model.", "tokenizer")
    model.setdefault("num_classes", data.num_classes)
    if model["num_classes"] not in (0, data.num_classes) and not timed_only:
        raise ConfigError(
            f"{at}model.num_classes: {model['num_classes']} does not fit the dataset's {data.num_classes} "
            f"(legal: {data.num_classes}, or 0 for an unconditional model)"
        )
    model.setdefault("patch_nums", list(tokenizer.patch_nums))
    variant = validated(Variant, settings, at)
    if variant.model.schedule.latent_size != tokenizer.schedule.latent_size:
        raise ConfigError(
            f"{at}model.patch_nums: {list(variant.model.patch_nums)} must end at the tokenizer's latent size "
            f"{tokenizer.schedule.latent_size}"
        )
    if problem := sampler_misfit(variant.sampler, variant.model):
        raise ConfigError(f"{at}sampler.{problem}")
    for section in ("sampler", "model", "training"):
        for key, (prefix, name) in named_by(getattr(variant, section)):
            check_known(f"{at}{section}.{key}", PLACES[prefix], prefix, name)
    _weighs_something(variant, at)
    if variant.distill and is_teacher:  # also what ends a teacher that names itself
        raise ConfigError(f"{at}distill: arm {variant.distill.arm!r} in a teacher; name one that is trained, without distill")
    if variant.distill:
        return _with_teacher(study, variant, at)
    return _imported(variant, at) if variant.weights else variant


def _weighs_something(variant: Variant, at: str) -> None:
    """Refuse weights of masked tokens where a training masks none."""
    if (weight := variant.training.mask_weight) == "count":
        return
    problem = None
    if variant.model.mask_prob == 0:
        problem = "model.mask_prob is 0; set mask_weight count, or mask_prob more than 0"
    elif variant.distill and variant.distill.arm == "logit":
        problem = "distill.arm logit learns with all own tokens masked; set mask_weight count"
    if problem:
        raise ConfigError(f"{at}training.mask_weight: {weight!r} weighs masked tokens, but {problem}")


def _imported(variant: Variant, at: str) -> Variant:
    """A variant whose weights exist: nothing of its training matters."""
    if variant.model.mask_prob and variant.weights.file.endswith(".pth"):
        raise ConfigError(f"{at}model.mask_prob: {variant.model.mask_prob}: official weights know no masks; set it to 0")
    return variant.model_copy(update={"training": None})


def _with_teacher(study: Study, variant: Variant, at: str) -> Variant:
    """Check a distillation against its teacher. The arm `scratch`, the control, becomes a plain training that sees as many tokens as
    teacher and student together."""
    distill, arms = variant.distill, [*names_in(ROOT / "bench/pipeline/distill.py", "arm"), "scratch"]
    if distill.arm not in arms:
        raise ConfigError(f"{at}distill.arm: " + unknown("arm", distill.arm, arms))
    if distill.teacher.grid:
        raise ConfigError(
            f"{at}distill.teacher.grid: {list(distill.teacher.grid)}: a teacher is one model; put it into the delta"
        )
    teacher = resolve(study, distill.teacher, f"{at}distill.teacher", is_teacher=True)
    if distill.guided:
        _check_guided(variant, teacher, at)
    if difference := _first_difference(whole(teacher.tokenizer), whole(variant.tokenizer)):
        key, old, new = difference
        raise ConfigError(
            f"{at}distill.teacher: tokenizer.{key} is {old!r}, the student's {new!r}; both must share one tokenizer"
        )
    # the weights of a base that is the teacher's too say nothing new
    if variant.weights and (
        teacher.weights is None or by_sum(study, variant.weights) != by_sum(study, teacher.weights)
    ):
        raise ConfigError(
            f"{at}weights: {variant.weights.file!r} beside distill, which starts from the weights of {distill.teacher.base!r}; leave one out"
        )
    variant = variant.model_copy(update={"weights": None})
    if distill.arm == "scratch" and teacher.weights:
        raise ConfigError(
            f"{at}distill.arm: 'scratch' sees as many tokens as its teacher, but {distill.teacher.base!r} is imported and nobody "
            f"counted them; use a trained teacher or another arm ({', '.join(arms[:-1])})"
        )
    if distill.arm == "scratch":
        seen = teacher.training.steps * teacher.training.batch_size * teacher.model.schedule.seq_len
        more = round(seen / (variant.training.batch_size * variant.model.schedule.seq_len))
        longer = variant.training.model_copy(update={"steps": variant.training.steps + more})
        return variant.model_copy(update={"training": longer, "distill": None})
    problem = teacher_misfit(teacher.model, variant.model)
    if not problem and distill.arm == "logit":
        problem = logit_teacher_misfit(teacher.model, variant.model)
    if problem:
        raise ConfigError(f"{at}model.{problem} (distill.arm {distill.arm}, distill.teacher {distill.teacher.base!r})")
    return variant


def _check_guided(variant: Variant, teacher: Variant, at: str) -> None:
    """A student of a teacher that draws as its sampler says is not sharpened once more."""
    if variant.distill.arm in ("real", "logit", "scratch"):
        raise ConfigError(
            f"{at}distill.guided: True: arm {variant.distill.arm!r} learns from no guided samples; "
            "leave it out, or use arm 'sequence'"
        )
    for key, off in SHARPENING.items():
        taught, asked = getattr(teacher.sampler, key), getattr(variant.sampler, key)
        if taught != off and asked != off:
            raise ConfigError(
                f"{at}sampler.{key}: {asked}: a student of guided samples is scored with {key} {off!r}, "
                f"its teacher drew them with {taught}; set it so, or distill.guided to false"
            )


def _first_difference(old: Any, new: Any, at: str = "") -> tuple[str, Any, Any] | None:
    """Where two settings differ first: dotted key and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = (_first_difference(old.get(key), new.get(key), f"{at}.{key}" if at else key) for key in old | new)
        return next(filter(None, parts), None)
    return None if old == new else (at, old, new)


def _fill(node: dict, follows: dict[str, Any], at: str, source: str) -> None:
    for key, value in follows.items():
        if node.setdefault(key, value) != value:
            raise ConfigError(f"{at}{key}: {node[key]!r} does not fit the {source}'s {value!r}; leave it out")


def check_known(at: str, file: str, prefix: str, value: str | None) -> None:
    try:
        names = names_in(ROOT / file, prefix)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if value is not None and value not in names:
        raise ConfigError(f"{at}: {unknown('name', value, names)}; a name is a function {prefix}_<name> in {file}")


def variants_and_teachers(study: Study, suite: str) -> Iterator[Variant]:
    """Every variant of a suite, and the teachers of those that have one."""
    for name in entries_of(study.suites[suite]):
        variant = resolve_variant(study, suite, name)
        yield variant
        if variant.distill:
            yield teacher_of(study, variant)


def teacher_of(study: Study, variant: Variant) -> Variant:
    return resolve(study, variant.distill.teacher, "distill.teacher")
