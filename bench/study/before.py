"""What is asked once before the first job: files that are missing, functions that cannot be used. Imports no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from srdd.lookup import BUILT_IN, is_own

from . import rooms
from .chain import import_jobs, tokenizer_job
from .errors import ConfigError, place_of
from .functions import named_by
from .jobs import Plan
from .names import sum_needed
from .plan import functions_of, load_study
from .resolve import ROOT, entries_of, resolve_variant, teacher_of, variants_and_teachers
from .schema import Study
from .settings import HUB, WeightsConfig


def missing_files(plan: Plan, run_ids: Iterable[str] | None = None) -> list[str]:
    """What a study names and is not there, as `key: what is missing and what to do`: asked before the first job, not when planning.
    run_ids: the jobs that will run and hence read weights; None: all."""
    study, wanted = plan.study, set(plan.jobs if run_ids is None else run_ids)
    found, data, features = [], study.dataset, study.features
    stages = {run_id.split("/")[0] for run_id in wanted}
    read = data.path is not None and stages - set(rooms.which("SIZES_ONLY"))
    root = place_of(data.path, "dataset.path") if read else None
    if root is not None and not root.exists():
        seen_from = "" if root.is_absolute() else f", seen from {Path.cwd()}"
        found.append(f"dataset.path: no folder at {data.path}{seen_from}; put the images there or change the path")
    for key, path in {"features.weights": features.weights, "features.reference": features.reference}.items():
        if stages - set(rooms.which("SIZES_ONLY")) and path is not None and not place_of(path, key).is_file():
            found.append(f"{key}: no file at {path}; put it there or change the path")
    for suite in study.suites:
        for name in entries_of(study.suites[suite]):
            at, variant = f"suites.{suite}.variants.{name} (delta and base).", resolve_variant(study, suite, name)
            jobs = {at: [tokenizer_job(study, variant)[1], *import_jobs(study, variant)]}
            if variant.distill:
                jobs[f"{at}distill.teacher."] = import_jobs(study, teacher_of(study, variant))
            for place, readers in jobs.items():
                for job in readers:
                    for key, weights in job.files.items() if job.run_id in wanted else ():
                        found += [f"{place}{key}{problem}" for problem in _weights_problems(weights)]
    return found


def names_own(study: Study, suite: str) -> bool:
    """Whether a suite names a mask, sampler, rule, ramp, corruption or weight of the user's own."""
    named = [(prefix, name) for _, prefix, name in functions_of(study, suite)]
    for variant in variants_and_teachers(study, suite):
        for settings in filter(None, (variant.model, variant.sampler, variant.training)):
            named += [function for _, function in named_by(settings)]
    return any(is_own(prefix, name) for prefix, name in named if prefix in BUILT_IN)


def refused_function(path: str | Path, plan: Plan, run_ids: Iterable[str]) -> str | None:
    """Why a function of the user's own cannot be used by the jobs that will run, in one line that
    names it: tried by another process, since planning imports no torch; None where all can, or
    where there are none."""
    wanted = set(run_ids)
    suites = [name for name, jobs in plan.suites.items() if jobs & wanted]
    suites = [name for name in suites if names_own(plan.study, name)]
    if not suites:
        return None
    words = [sys.executable, "-m", "bench", "check", str(path), *suites]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, capture_output=True, encoding="utf-8", errors="replace", env=environment
    )
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"bench.check ended with status {done.returncode}"]
    return lines[-1].removeprefix("error: ")


def _weights_problems(weights: WeightsConfig) -> Iterator[str]:
    """Why weights cannot be read now, as the end of a key and a reason."""
    local = not weights.file.startswith(HUB)
    if local and not place_of(weights.file, "weights").is_file():
        yield f": no file at {weights.file}; put it there or change the path"
    if weights.sha256 is None and (problem := sum_needed(weights.file)):
        yield f": {problem}"


def nothing_to_make(plan: Plan, scope: str | None) -> str | None:
    """Why a run of all that a scope holds would end at once without a number; None where it would not."""
    if not plan.suites_of(scope):
        names = ", ".join(plan.study.suites)
        return f"suites: none is core ({names}); add the word full to run all, or ask for one with `./run snakemake`"
    if not (plan.outputs_of("figures", scope) or plan.outputs_of("tables", scope)):
        return "suites: none of these has figures or tables, nothing would run; give one tables, such as [scores]"
    return None


def main() -> None:
    """Check a study and say what it would run: `python -m bench plan STUDY.yaml [full] [--name] [--files]`."""
    if len(sys.argv) < 2:
        sys.exit(f"error: no study given; {main.__doc__.split(': ', 1)[1]}")
    try:
        plan = load_study(sys.argv[1])
    except ConfigError as error:
        sys.exit(f"error: {error}")
    scope = "full" if "full" in sys.argv else None
    if "--name" in sys.argv and (problem := nothing_to_make(plan, scope)):
        sys.exit(f"error: {sys.argv[1]}: {problem}")
    if "--files" in sys.argv and (missing := missing_files(plan, plan.jobs_of(scope))):
        sys.exit(f"error: {sys.argv[1]}: {missing[0]}")
    if "--files" in sys.argv:
        problem = refused_function(sys.argv[1], plan, plan.jobs_of(scope))
        if problem:
            sys.exit(f"error: {problem}")
    if "--name" not in sys.argv:  # who asks for the name goes on to run the study, which says them
        for warning in plan.warnings:
            print(f"warning: {sys.argv[1]}: {warning}", file=sys.stderr)
    print(plan.study.study if "--name" in sys.argv else "\n".join(plan.jobs_of("full")))
