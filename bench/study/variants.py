"""What variants.csv says of each variant: what its numbers are called, its settings, and the jobs
behind it. Imports no torch."""

from __future__ import annotations

from typing import Any

from .jobs import Job, Plan


def variants_of(plan: Plan, suite: str) -> dict[str, dict[str, Any]]:
    """Names, settings and jobs of each variant of a suite, in the order of the study."""
    jobs = [job for run_id, job in plan.jobs.items() if run_id in plan.suites[suite]]
    variants = {}
    for name, identity in plan.identities[suite].items():
        variants[name] = {**identity, "jobs": jobs_behind(jobs, identity)}
    return variants


def jobs_behind(jobs: list[Job], identity: dict[str, Any]) -> dict[str, list[str]]:
    """run_ids of the jobs that carry a variant's names, by training seed,
    "" for what serves all seeds.

    jobs: in the order in which they were planned, which is that in which they read each other. What
    nothing here reads and no model is part of, such as the baselines of a tokenizer, comes last.
    """
    own = [job for job in jobs if _carries(job, identity)]
    read = {run_id for job in own for run_id in job.inputs.values()}
    by_seed: dict[str, list[str]] = {}
    for job in sorted(own, key=lambda job: "model" not in job.identity and job.run_id not in read):
        seed = job.config.get("train_seed", job.config.get("tokenizer_seed"))
        by_seed.setdefault("" if seed is None else str(seed), []).append(job.run_id)
    return by_seed


def _carries(job: Job, identity: dict[str, Any]) -> bool:
    """Whether the numbers of a job are those of a variant, or of its tokenizer in its schedule."""
    if not job.identity or any(identity[key] != name for key, name in job.identity.items()):
        return False
    return bool(job.config.get("patch_nums", identity["patch_nums"]) == identity["patch_nums"])
