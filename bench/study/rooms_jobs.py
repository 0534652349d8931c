"""The jobs of each measure."""

from __future__ import annotations

from typing import Any

from .chain import Trained, identity_of, tokenizer_job, trainings
from .errors import ConfigError
from .jobs import Job, Plan
from .names import canonical_sampler, dump, features_config
from .schema import Variant


def add_scores(plan: Plan, suite: str, variants: dict[str, Variant], snapshots: bool = False) -> None:
    """Pictures, kept on disk, and their scores."""
    for variant, made in trainings(plan, suite, variants):
        settings = {"sampler": canonical_sampler(variant.sampler), "evaluation": dump(plan.study.evaluation)}
        config = {**made.config, **settings, "snapshots": snapshots}
        sample = Job("sample", config, made.inputs("data", "tokenizer", "train"), made.slug, made.names)
        config = {**config, "features": features_config(plan.study)}
        read = {**made.inputs("data", "features"), "sample": sample.run_id}
        plan.add(suite, sample)
        plan.add(suite, Job("evaluate", config, read, made.slug, made.names))


def add_convergence(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Scores of the weights along the training."""
    for name, variant in variants.items():
        if variant.weights:
            raise ConfigError(
                f"suites.{suite}.measure: convergence of {name!r}, which is imported: it has no weights along a training"
            )
    add_scores(plan, suite, variants, snapshots=True)


def add_sweep(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job a trained model for all its samplers."""
    models: dict[str, tuple[Trained, list[dict[str, Any]]]] = {}
    for variant, made in trainings(plan, suite, variants):
        entry = {"name": made.names["sampler"], "sampler": canonical_sampler(variant.sampler)}
        entries = models.setdefault(made.train.run_id, (made, []))[1]
        entries += [entry] if entry not in entries else []
    study, roles = plan.study, ("data", "tokenizer", "features", "tokens", "train")
    shared = {"evaluation": dump(study.evaluation), "features": features_config(study), "sweep": dump(study.suites[suite].sweep)}
    for made, samplers in models.values():
        config = {**made.config, **shared, "samplers": samplers}
        names = {key: made.names[key] for key in ("tokenizer", "model")}
        plan.add(suite, Job("sweep", config, made.inputs(*roles), made.slug, names))


def add_probe(plan: Plan, suite: str, variants: dict[str, Variant], measure: str, sampled: bool) -> None:
    """A job that asks one question of each trained model, with its sampler or without."""
    study, roles = plan.study, ("data", "tokenizer", "tokens", "train", *(["features"] if sampled else []))
    for variant, made in trainings(plan, suite, variants):
        config = {**made.config, measure: dump(getattr(study.suites[suite], measure))}
        if sampled:
            config |= {"sampler": canonical_sampler(variant.sampler), "features": features_config(study)}
            config |= {"evaluation": dump(study.evaluation)}
        names = {key: made.names[key] for key in ("tokenizer", "model", *(["sampler"] if sampled else []))}
        plan.add(suite, Job(measure, config, made.inputs(*roles), made.slug, names))


def add_equivalence(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """ELBO against cross-entropy."""
    add_probe(plan, suite, variants, "equivalence", sampled=False)


def add_zero_shot(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """In-painting, out-painting, super-resolution."""
    add_probe(plan, suite, variants, "zero_shot", sampled=True)


def add_error_propagation(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Corrupted tokens of one scale, and what becomes of them."""
    add_probe(plan, suite, variants, "error_propagation", sampled=True)


def add_snr(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Signal-to-noise ratio along the scales of the first training seed's tokenizer: one job a schedule, no model."""
    first = (plan.study.suites[suite].train_seeds or plan.study.train_seeds)[0]
    for variant in variants.values():
        data, tokenizer = tokenizer_job(plan.study, variant, first)
        schedule = variant.model.schedule
        config = {**tokenizer.config, "patch_nums": list(schedule.patch_nums), "snr": dump(plan.study.suites[suite].snr)}
        for job in (
            data,
            tokenizer,
            Job("snr", config, {"data": data.run_id, "tokenizer": tokenizer.run_id}, schedule.name, tokenizer.identity),
        ):
            plan.add(suite, job)


def add_latency(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job for all variants of the suite, so that its rounds interleave them. Weights do not change time: none are trained, and
    variants that differ in training only are timed once."""
    entries, timed = {}, set()
    for name, variant in variants.items():
        identity = identity_of(plan.study, variant)
        if (key := (identity["timed"], identity["sampler"])) in timed:
            continue
        timed.add(key)
        entries[name] = {
            "identity": {"model": identity["timed"], "sampler": identity["sampler"]},
            "tokenizer": dump(variant.tokenizer.config),
            "model": dump(variant.model),
            "sampler": canonical_sampler(variant.sampler),
        }
    plan.add(
        suite,
        Job(
            "latency", {"latency": dump(plan.study.suites[suite].latency or plan.study.latency), "variants": entries}, {}, suite
        ),
    )
