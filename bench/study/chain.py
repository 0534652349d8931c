"""The jobs behind a trained model, and the names that its numbers carry. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from srdd.config import SamplerConfig

from . import checks
from .errors import ConfigError
from .jobs import Job, Plan
from .names import (
    by_sum,
    canonical_sampler,
    config_hash,
    data_config,
    drawn,
    dump,
    extractor_configs,
    extractor_role,
    features_config,
    model_slug,
    unsharpened,
    whole,
)
from .resolve import teacher_of
from .restore_settings import RestoreConfig
from .schema import DistillConfig, DistillSettings, Study, TeacherSettings, Variant
from .scores import metrics_of_each
from .settings import EvaluationConfig, WeightsConfig
from .tokenizer_settings import TokenizerSpec


def tokenizer_seed(study: Study, variant: Variant, train_seed: int) -> int | None:
    """The training seed that a variant's tokenizer is trained with; None where one tokenizer serves
    all: it is shared, imported, or that of an imported model."""
    own = study.tokenizer_seed == "train_seed" and not (
        variant.tokenizer.weights or _imports(study, variant)
    )
    return train_seed if own else None


def _imports(study: Study, variant: Variant) -> bool:
    """Whether a variant's weights, or its teacher's, exist already,
    and with them the tokenizer that they know."""
    return variant.weights is not None or bool(
        variant.distill and teacher_of(study, variant.distill).weights
    )


def tokenizer_job(study: Study, variant: Variant, train_seed: int | None = None) -> tuple[Job, Job]:
    """The jobs of images and tokenizer, each made once. train_seed None: the tokenizer whatever its
    seed, whose name stands in all rows."""
    seed = None if train_seed is None else tokenizer_seed(study, variant, train_seed)
    key = ("tokenizer", variant.tokenizer.model_dump_json(), seed)
    return study.once(key, lambda: _tokenizer_job(study, variant.tokenizer, seed))


def _tokenizer_job(study: Study, spec: TokenizerSpec, seed: int | None) -> tuple[Job, Job]:
    files, data = {}, data_job(study)
    if spec.weights:
        files["tokenizer.weights"] = WeightsConfig(file=spec.weights, sha256=spec.sha256)
        by_content = by_sum(study, files["tokenizer.weights"])
        spec = spec.model_copy(update={"weights": by_content.file, "sha256": by_content.sha256})
    if spec.training.perceptual_weights and not spec.weights:
        spec = _judged_by_sum(study, spec, files)
    config, slug = {**data.config, "tokenizer": dump(spec)}, f"v{spec.config.codebook_size}"
    names = {"tokenizer": f"{slug}-{config_hash(config)}"}
    if seed is not None:
        config, slug = {**config, "tokenizer_seed": seed}, f"{slug}-s{seed}"
    return data, Job("tokenizer", config, {"data": data.run_id}, slug, names, files=files)


def _judged_by_sum(
    study: Study, spec: TokenizerSpec, files: dict[str, WeightsConfig]
) -> TokenizerSpec:
    """A tokenizer whose perceptual network is known by its sum; its file is added to `files`."""
    weights = spec.training.perceptual_weights
    assert weights
    files["tokenizer.training.perceptual_weights"] = weights
    known = {"perceptual_weights": by_sum(study, weights)}
    return spec.model_copy(update={"training": spec.training.model_copy(update=known)})


def data_job(study: Study) -> Job:
    """The job that prepares the images, made once."""

    def make() -> Job:
        return Job(
            "prepare",
            {"dataset": data_config(study)},
            {},
            study.dataset.name,
            needs=checks.needs_of(study),
        )

    return study.once("data", make)


def import_jobs(study: Study, variant: Variant) -> list[Job]:
    """The job that imports a variant's model, once for all training seeds;
    none for a model that is trained."""
    if variant.weights is None:
        return []
    config, identity = (
        train_config(study, tokenizer_job(study, variant)[1], variant),
        identity_of(study, variant),
    )
    names = {key: identity[key] for key in ("tokenizer", "model")}
    # weights that exist know one tokenizer, whatever the seed
    return [
        Job(
            "import_model",
            config,
            {},
            model_slug(variant.model),
            names,
            {"weights": variant.weights},
        )
    ]


def features_jobs(study: Study, data: Job) -> tuple[Job, ...]:
    """The job of each feature extractor, which trains it or tries its weights; made once."""

    def make() -> tuple[Job, ...]:
        jobs = []
        for features in study.features:
            config = {**data.config, "features": features_config(study, features)}
            jobs.append(Job("features", config, {"data": data.run_id}, features.name))
        return tuple(jobs)

    return study.once(("features", data.run_id), make)


def evaluations(study: Study) -> tuple[EvaluationConfig | None, ...]:
    """How samples are scored in each extractor: with the metrics that it takes; None where it takes
    none."""
    metrics = study.evaluation.metrics
    kinds = [features.kind for features in study.features]
    return tuple(
        study.evaluation.model_copy(update={"metrics": names}) if names else None
        for names in metrics_of_each(metrics, kinds)
    )


def train_config(study: Study, tokenizer: Job, variant: Variant) -> dict[str, Any]:
    """What a training is told, but for its seed; of an imported model, what stands for it."""
    config = {**tokenizer.config, "model": dump(variant.model), "training": dump(variant.training)}
    return config | {key: dump(settings) for key, settings in _origin(study, variant).items()}


def _origin(study: Study, variant: Variant) -> dict[str, BaseModel]:
    """What a variant's weights come from beside its own training: a teacher, a file, or neither."""
    origin: dict[str, BaseModel] = {}
    if variant.distill is not None:
        origin["distill"] = _distillation(study, variant.distill)
    if variant.weights is not None:
        origin["weights"] = by_sum(study, variant.weights)
    if variant.model.condition != "none":
        origin["restore"] = variant.restore or RestoreConfig()
    return origin


def _distillation(study: Study, distill: DistillConfig) -> DistillSettings:
    """A distillation with its teacher in full."""
    teacher = teacher_of(study, distill)
    # an unguided teacher has a plain sampler in the job: no other key says so
    drawn = teacher.sampler if distill.guided else unsharpened(teacher.sampler)
    sampler = SamplerConfig(**canonical_sampler(drawn))
    weights = by_sum(study, teacher.weights) if teacher.weights else None
    parts = TeacherSettings(
        model=teacher.model, training=teacher.training, sampler=sampler, weights=weights
    )
    return DistillSettings(
        arm=distill.arm, num_samples=distill.num_samples, teacher=parts, cca=distill.cca
    )


def identity_of(study: Study, variant: Variant) -> dict[str, Any]:
    """The names under which a variant's numbers stand in metrics.csv, and its settings;
    made once."""
    return study.once(("identity", variant.model_dump_json()), lambda: _identity_of(study, variant))


def _identity_of(study: Study, variant: Variant) -> dict[str, Any]:
    tokenizer = tokenizer_job(study, variant)[1]
    trained = train_config(study, tokenizer, variant)
    model, sampler = config_hash(trained), variant.sampler
    sizes = config_hash({"tokenizer": dump(variant.tokenizer.config), "model": dump(variant.model)})
    return {
        # the name in latency rows: time knows sizes, not training
        "timed": f"{model_slug(variant.model)}-{sizes}",
        "tokenizer": tokenizer.identity["tokenizer"],
        "model": f"{model_slug(variant.model)}-{model}",
        "sampler": (
            f"{sampler.name}-w{sampler.cfg_scale:g}-{config_hash(canonical_sampler(sampler))}"
        ),
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
    """The jobs behind one trained model: what it reads, and itself (stage train, distill or
    import_model); the config that the jobs behind it go on from; the same of its teacher. features:
    one job for each extractor; baselines: one for each that takes a metric."""

    data: Job
    tokenizer: Job
    features: tuple[Job, ...]
    encoded: Job
    baselines: tuple[Job, ...]
    train: Job
    names: dict[str, str]
    slug: str
    config: dict[str, Any]
    teacher: Trained | None = None

    def inputs(self, *roles: str) -> dict[str, str]:
        """The jobs that another one reads, by role; features: those of all extractors."""
        jobs = {
            "data": (self.data,),
            "tokenizer": (self.tokenizer,),
            "features": self.features,
            "tokens": (self.encoded,),
            "train": (self.train,),
        }
        read = {}
        for role in roles:
            for place, job in enumerate(jobs[role]):
                read[extractor_role(place) if role == "features" else role] = job.run_id
        return read

    def jobs(self) -> Iterator[Job]:
        """All of them, the teacher's first."""
        if self.teacher is not None:
            yield from self.teacher.jobs()
        yield from (
            self.data,
            self.tokenizer,
            *self.features,
            self.encoded,
            *self.baselines,
            self.train,
        )


@dataclass(frozen=True)
class Tokenized:
    """The jobs behind the tokens of one schedule, and the scores of what they reconstruct."""

    data: Job
    tokenizer: Job
    features: tuple[Job, ...]
    encoded: Job
    baselines: tuple[Job, ...]

    @property
    def read(self) -> dict[str, str]:
        """What a job that reads tokens reads, by role."""
        jobs = {"data": self.data, "tokenizer": self.tokenizer, "tokens": self.encoded}
        return {role: job.run_id for role, job in jobs.items()}

    def jobs(self) -> Iterator[Job]:
        """All of them."""
        yield from (self.data, self.tokenizer, *self.features, self.encoded, *self.baselines)


def tokenized(study: Study, variant: Variant, seed: int) -> Tokenized:
    """Everything up to the tokens of a variant, and the two lines that scores are read against."""
    data, tokenizer = tokenizer_job(study, variant, seed)
    features, encoded = features_jobs(study, data), _encode_job(variant, data, tokenizer)
    before = Tokenized(data, tokenizer, features, encoded, ())
    return replace(before, baselines=_baseline_jobs(study, encoded, before.read, features))


def add_tokenized(plan: Plan, suite: str, variant: Variant, seed: int) -> Tokenized:
    """Add everything up to the tokens of a variant to a suite."""
    chain = tokenized(plan.study, variant, seed)
    for job in chain.jobs():
        plan.add(suite, job)
    return chain


def trained(study: Study, variant: Variant, seed: int) -> Trained:
    """Everything up to a trained model, and the two lines that its scores are read against;
    made once."""
    return study.once(
        ("trained", variant.model_dump_json(), seed), lambda: _trained(study, variant, seed)
    )


def _trained(study: Study, variant: Variant, seed: int) -> Trained:
    identity = identity_of(study, variant)
    names = {key: identity[key] for key in ("tokenizer", "model", "sampler")}
    before = tokenized(study, variant, seed)
    data, tokenizer, read = before.data, before.tokenizer, before.read
    stage, slug, teacher = "train", f"{model_slug(variant.model)}-s{seed}", None
    if variant.model.regresses:
        stage = "regress"
    if variant.model.condition != "none":
        stage = "restore"
    elif variant.training is not None and variant.training.unique_images is not None:
        stage = "train_subset"
    if variant.distill is not None:
        teacher = trained(study, teacher_of(study, variant.distill), seed)
        stage, slug = "distill", f"{variant.distill.arm}-{slug}"
        read = {**read, "teacher": teacher.train.run_id}
    config = {**train_config(study, tokenizer, variant), "train_seed": seed}
    train = Job(stage, config, read, slug, {key: names[key] for key in ("tokenizer", "model")})
    if variant.weights is not None:
        train = import_jobs(study, variant)[0]
    jobs = data, tokenizer, before.features, before.encoded, before.baselines, train
    return Trained(*jobs, names, slug, config, teacher)


def _encode_job(variant: Variant, data: Job, tokenizer: Job) -> Job:
    """Tokens of all splits in the schedule of a variant."""
    schedule, own = variant.model.schedule, tokenizer.config.get("tokenizer_seed")
    slug = schedule.name + ("" if own is None else f"-s{own}")
    config = {**tokenizer.config, "patch_nums": list(schedule.patch_nums)}
    return Job(
        "encode",
        config,
        {"data": data.run_id, "tokenizer": tokenizer.run_id},
        slug,
        tokenizer.identity,
    )


def _scored_by(study: Study, features: tuple[Job, ...]) -> Iterator[tuple[Job, dict[str, Any]]]:
    """The job of each extractor that takes a metric, and what a job that scores in it is told."""
    for job, evaluation in zip(features, evaluations(study)):
        if evaluation is not None:
            yield job, {"features": job.config["features"], "evaluation": dump(evaluation)}


def _baseline_jobs(
    study: Study, encoded: Job, read: dict[str, str], features: tuple[Job, ...]
) -> tuple[Job, ...]:
    """Scores of real images and of reconstructions, in each extractor."""
    jobs = []
    for extractor, told in _scored_by(study, features):
        config, inputs = {**encoded.config, **told}, {**read, "features": extractor.run_id}
        jobs.append(Job("baselines", config, inputs, encoded.slug, encoded.identity))
    return tuple(jobs)


def add_trained(plan: Plan, suite: str, variant: Variant, seed: int) -> Trained:
    """Add everything up to a trained model to a suite."""
    chain = trained(plan.study, variant, seed)
    for job in chain.jobs():
        plan.add(suite, job)
    return chain


def trainings(
    plan: Plan, suite: str, variants: dict[str, Variant]
) -> Iterator[tuple[Variant, Trained]]:
    """Every variant with every training seed of a suite."""
    for name, variant in variants.items():
        seeds = plan.study.seeds_of(suite)
        if variant.weights and len(seeds) > 1:
            raise ConfigError(
                f"suites.{suite}.train_seeds: {list(seeds)}: {name!r} is imported, "
                "one training that no seed changes; give the suite one seed"
            )
        for seed in seeds:
            yield variant, add_trained(plan, suite, variant, seed)


def score_jobs(
    plan: Plan, suite: str, variants: dict[str, Variant], snapshots: bool = False
) -> None:
    """Images, kept on disk, and their scores in each extractor: a job of each, so that one more
    makes none of the others again."""
    for variant, trained in trainings(plan, suite, variants):
        sampler = canonical_sampler(variant.sampler)
        config = {**trained.config, "sampler": sampler, "snapshots": snapshots}
        sample = Job(
            "sample",
            {**config, "evaluation": drawn(plan.study.evaluation)},
            trained.inputs("data", "tokenizer", "train"),
            trained.slug,
            trained.names,
        )
        plan.add(suite, sample)
        scored = {"evaluation": dump(plan.study.evaluation)}
        for extractor, told in _scored_by(plan.study, trained.features):
            read = {**trained.inputs("data"), "features": extractor.run_id}
            read["sample"] = sample.run_id
            job = Job("evaluate", {**config, **scored, **told}, read, trained.slug, trained.names)
            plan.add(suite, job)


def add_probe(
    plan: Plan, suite: str, variants: dict[str, Variant], measure: str, sampled: bool
) -> None:
    """A job that asks one question of each trained model, with its sampler or without."""
    study, roles = (
        plan.study,
        ("data", "tokenizer", "tokens", "train", *(["features"] if sampled else [])),
    )
    for variant, trained in trainings(plan, suite, variants):
        config = {**trained.config, measure: dump(study.told(suite, measure))}
        if sampled:
            config |= {
                "sampler": canonical_sampler(variant.sampler),
                **extractor_configs(study),
            }
            config |= {"evaluation": dump(study.evaluation)}
        names = {
            key: trained.names[key]
            for key in ("tokenizer", "model", *(["sampler"] if sampled else []))
        }
        plan.add(suite, Job(measure, config, trained.inputs(*roles), trained.slug, names))
