"""What variants.csv says of each variant: what its numbers are called, its settings, and the jobs
behind it. Imports no torch."""

from __future__ import annotations

from typing import Any

from .jobs import Job, Plan


def variants_of(plan: Plan, suite: str) -> dict[str, dict[str, Any]]:
    """Names, settings and jobs of each variant of a suite, in the order of the study."""
    jobs = [job for run_id, job in plan.jobs.items() if run_id in plan.suites[suite]]
    carriers = _by_names(jobs)
    variants = {}
    for name, identity in plan.identities[suite].items():
        variants[name] = {**identity, "jobs": jobs_behind(carriers, identity)}
    return variants


# the names that some jobs carry, and such jobs by what these names are, with their places
Carriers = dict[tuple[str, ...], dict[tuple[str, ...], list[tuple[int, Job]]]]


def _by_names(jobs: list[Job]) -> Carriers:
    """Jobs by the names that they carry: a study of many variants would compare each with each."""
    carriers: Carriers = {}
    for place, job in enumerate(jobs):
        if job.identity:
            of_keys = carriers.setdefault(tuple(job.identity), {})
            of_keys.setdefault(tuple(job.identity.values()), []).append((place, job))
    return carriers


def _named_as(carriers: Carriers, identity: dict[str, Any]) -> list[Job]:
    """The jobs whose numbers are those of a variant, or of its tokenizer in its schedule, as they
    were planned."""
    carrying: list[tuple[int, Job]] = []
    for keys, jobs_by_values in carriers.items():
        carrying += jobs_by_values.get(tuple(identity[key] for key in keys), [])
    return [job for _, job in sorted(carrying, key=lambda pair: pair[0]) if _fits(job, identity)]


def jobs_behind(carriers: Carriers, identity: dict[str, Any]) -> dict[str, list[str]]:
    """run_ids of the jobs that carry a variant's names, by training seed,
    "" for what serves all seeds.

    They stand in the order in which they were planned, which is that in which they read each other.
    What nothing here reads and no model is part of, such as the baselines of a tokenizer, comes
    last.
    """
    own = _named_as(carriers, identity)
    read = {run_id for job in own for run_id in job.inputs.values()}
    by_seed: dict[str, list[str]] = {}
    for job in sorted(own, key=lambda job: "model" not in job.identity and job.run_id not in read):
        seed = job.config.get("train_seed", job.config.get("tokenizer_seed"))
        by_seed.setdefault("" if seed is None else str(seed), []).append(job.run_id)
    return by_seed


def _fits(job: Job, identity: dict[str, Any]) -> bool:
    """Whether a job that names a schedule names that of a variant."""
    return bool(job.config.get("patch_nums", identity["patch_nums"]) == identity["patch_nums"])
