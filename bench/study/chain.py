"""The jobs behind a trained model, and the names that its numbers carry. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from srdd.config import SamplerConfig

from . import checks
from .errors import ConfigError
from .jobs import Job, Plan
from .names import by_sum, canonical_sampler, config_hash, data_config, dump, features_config, model_slug, unsharpened, whole
from .resolve import teacher_of
from .schema import DistillSettings, Study, TeacherSettings, Variant
from .settings import WeightsConfig


def tokenizer_seed(study: Study, variant: Variant, train_seed: int) -> int | None:
    """The training seed that a variant's tokenizer is trained with; None where one tokenizer serves all: it is shared,
    imported, or that of an imported model."""
    own = study.tokenizer_seed == "train_seed" and not (variant.tokenizer.weights or _imports(study, variant))
    return train_seed if own else None


def _imports(study: Study, variant: Variant) -> bool:
    """Whether a variant's weights, or its teacher's, exist already, and with them the tokenizer that they know."""
    return variant.weights is not None or bool(variant.distill and teacher_of(study, variant).weights)


def tokenizer_job(study: Study, variant: Variant, train_seed: int | None = None) -> tuple[Job, Job]:
    """The jobs of images and tokenizer. train_seed None: the tokenizer whatever its seed, whose name stands in all rows."""
    spec, files = variant.tokenizer, {}
    data = Job("prepare", {"dataset": data_config(study)}, {}, study.dataset.name, needs=checks.needs_of(study))
    if spec.weights:
        files["tokenizer.weights"] = WeightsConfig(file=spec.weights, sha256=spec.sha256)
        known = by_sum(study, files["tokenizer.weights"])
        spec = spec.model_copy(update={"weights": known.file, "sha256": known.sha256})
    config, slug = {**data.config, "tokenizer": dump(spec)}, f"v{spec.config.codebook_size}"
    names = {"tokenizer": f"{slug}-{config_hash(config)}"}
    seed = None if train_seed is None else tokenizer_seed(study, variant, train_seed)
    if seed is not None:
        config, slug = {**config, "tokenizer_seed": seed}, f"{slug}-s{seed}"
    return data, Job("tokenizer", config, {"data": data.run_id}, slug, names, files=files)


def import_jobs(study: Study, variant: Variant) -> list[Job]:
    """The job that imports a variant's model, once for all training seeds; none for a model that is trained."""
    if variant.weights is None:
        return []
    config, identity = train_config(study, tokenizer_job(study, variant)[1], variant), identity_of(study, variant)
    names = {key: identity[key] for key in ("tokenizer", "model")}
    # weights that exist know one tokenizer, whatever the seed
    return [Job("import_model", config, {}, model_slug(variant.model), names, {"weights": variant.weights})]


def features_job(study: Study, data: Job) -> Job:
    return Job("features", {**data.config, "features": features_config(study)}, {"data": data.run_id}, study.features.name)


def train_config(study: Study, tokenizer: Job, variant: Variant) -> dict:
    parts = {"model": variant.model, "training": variant.training, **_origin(study, variant)}
    return {**tokenizer.config, **{key: dump(settings) for key, settings in parts.items()}}


def _origin(study: Study, variant: Variant) -> dict[str, BaseModel]:
    """What a variant's weights come from beside its own training: a teacher, a file, or neither."""
    origin: dict[str, BaseModel] = {}
    if variant.distill is not None:
        origin["distill"] = _distillation(study, variant)
    if variant.weights is not None:
        origin["weights"] = by_sum(study, variant.weights)
    return origin


def _distillation(study: Study, variant: Variant) -> DistillSettings:
    teacher, distill = teacher_of(study, variant), variant.distill
    # an unguided teacher has a plain sampler in the job: no other key says so
    drawn = teacher.sampler if distill.guided else unsharpened(teacher.sampler)
    sampler = SamplerConfig(**canonical_sampler(drawn))
    weights = teacher.weights and by_sum(study, teacher.weights)
    parts = TeacherSettings(model=teacher.model, training=teacher.training, sampler=sampler, weights=weights)
    return DistillSettings(arm=distill.arm, num_samples=distill.num_samples, teacher=parts)


def identity_of(study: Study, variant: Variant) -> dict[str, Any]:
    """The names under which a variant's numbers stand in metrics.csv."""
    tokenizer = tokenizer_job(study, variant)[1]
    trained = train_config(study, tokenizer, variant)
    model, sampler = config_hash(trained), variant.sampler
    sizes = config_hash({"tokenizer": dump(variant.tokenizer.config), "model": dump(variant.model)})
    return {
        "timed": f"{model_slug(variant.model)}-{sizes}",  # the name in latency rows: time knows sizes, not training
        "tokenizer": tokenizer.identity["tokenizer"],
        "model": f"{model_slug(variant.model)}-{model}",
        "sampler": f"{sampler.name}-w{sampler.cfg_scale:g}-{config_hash(canonical_sampler(sampler))}",
        "history": variant.model.history,
        "mask": variant.model.mask,
        "depth": variant.model.depth,
        "patch_nums": list(variant.model.patch_nums),
        "settings": {
            "sampler": whole(SamplerConfig(**canonical_sampler(sampler))),
            "model": whole(variant.model),
            "training": whole(variant.training),
            **{key: whole(settings) for key, settings in _origin(study, variant).items()},
        },
    }


@dataclass(frozen=True)
class Trained:
    """The jobs behind one trained model: what it reads, and itself (stage train, distill or import_model); the config that the
    jobs behind it go on from."""

    data: Job
    tokenizer: Job
    features: Job
    encoded: Job
    train: Job
    names: dict[str, str]
    slug: str
    config: dict[str, Any]

    def inputs(self, *roles: str) -> dict[str, str]:
        jobs = {
            "data": self.data,
            "tokenizer": self.tokenizer,
            "features": self.features,
            "tokens": self.encoded,
            "train": self.train,
        }
        return {role: jobs[role].run_id for role in roles}


def add_trained(plan: Plan, suite: str, variant: Variant, seed: int) -> Trained:
    """Everything up to a trained model, and the two lines that its scores are read against."""
    study, identity = plan.study, identity_of(plan.study, variant)
    data, tokenizer = tokenizer_job(study, variant, seed)
    features = features_job(study, data)
    names = {key: identity[key] for key in ("tokenizer", "model", "sampler")}
    slug = f"{model_slug(variant.model)}-s{seed}"

    schedule, own = variant.model.schedule, tokenizer.config.get("tokenizer_seed")
    grid, family = schedule.name + ("" if own is None else f"-s{own}"), tokenizer.identity
    config = {**tokenizer.config, "patch_nums": list(schedule.patch_nums)}
    encoded = Job("encode", config, {"data": data.run_id, "tokenizer": tokenizer.run_id}, grid, family)
    read = {"data": data.run_id, "tokenizer": tokenizer.run_id, "tokens": encoded.run_id}
    baseline = Job(
        "baselines",
        {**encoded.config, "features": features_config(study), "evaluation": dump(study.evaluation)},
        {**read, "features": features.run_id},
        grid,
        family,
    )
    stage = "train"
    if variant.distill is not None:
        stage, read = "distill", {**read, "teacher": add_trained(plan, suite, teacher_of(study, variant), seed).train.run_id}
        slug = f"{variant.distill.arm}-{slug}"
    config = {**train_config(study, tokenizer, variant), "train_seed": seed}
    trained = Job(stage, config, read, slug, {key: names[key] for key in ("tokenizer", "model")})
    train = next(iter(import_jobs(study, variant)), trained)
    for job in (data, tokenizer, features, encoded, baseline, train):
        plan.add(suite, job)
    return Trained(data, tokenizer, features, encoded, train, names, slug, config)


def trainings(plan: Plan, suite: str, variants: dict[str, Variant]) -> Iterator[tuple[Variant, Trained]]:
    """Every variant with every training seed of a suite."""
    for name, variant in variants.items():
        seeds = plan.study.suites[suite].train_seeds or plan.study.train_seeds
        if variant.weights and len(seeds) > 1:
            raise ConfigError(
                f"suites.{suite}.train_seeds: {list(seeds)}: {name!r} is imported, one training that no seed changes; give the suite one seed"
            )
        for seed in seeds:
            yield variant, add_trained(plan, suite, variant, seed)


def score_jobs(plan: Plan, suite: str, variants: dict[str, Variant], snapshots: bool = False) -> None:
    """Pictures, kept on disk, and their scores."""
    for variant, made in trainings(plan, suite, variants):
        settings = {"sampler": canonical_sampler(variant.sampler), "evaluation": dump(plan.study.evaluation)}
        config = {**made.config, **settings, "snapshots": snapshots}
        sample = Job("sample", config, made.inputs("data", "tokenizer", "train"), made.slug, made.names)
        config = {**config, "features": features_config(plan.study)}
        read = {**made.inputs("data", "features"), "sample": sample.run_id}
        plan.add(suite, sample)
        plan.add(suite, Job("evaluate", config, read, made.slug, made.names))


def add_probe(plan: Plan, suite: str, variants: dict[str, Variant], measure: str, sampled: bool) -> None:
    """A job that asks one question of each trained model, with its sampler or without."""
    study, roles = plan.study, ("data", "tokenizer", "tokens", "train", *(["features"] if sampled else []))
    for variant, made in trainings(plan, suite, variants):
        config = {**made.config, measure: dump(study.told(suite, measure))}
        if sampled:
            config |= {"sampler": canonical_sampler(variant.sampler), "features": features_config(study)}
            config |= {"evaluation": dump(study.evaluation)}
        names = {key: made.names[key] for key in ("tokenizer", "model", *(["sampler"] if sampled else []))}
        plan.add(suite, Job(measure, config, made.inputs(*roles), made.slug, names))
