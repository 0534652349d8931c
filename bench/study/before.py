"""What is asked once before the first job: files that are missing, functions that cannot be used.
Imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from srdd.lookup import BUILT_IN, IMAGE_CHANGES, is_own, unknown

from . import emoji_files, rooms
from .chain import import_jobs, tokenizer_job
from .contents import FOLDERS
from .errors import ConfigError, place_of
from .functions import named_by
from .jobs import Job, Plan
from .names import OF_EXTRACTOR, sum_needed
from .plan import functions_of, load_study
from .pretrained import Network, weights_of
from .resolve import ROOT, resolve_variant, teacher_of, variant_names, variants_and_teachers
from .schema import Study
from .settings import HUB, WeightsConfig
from .tokenizer_settings import TokenizerSpec

# jobs that take long
TRAININGS = {"train", "train_subset", "distill", "regress", "restore"}


def stages_of(run_ids: Iterable[str]) -> set[str]:
    """The stages of jobs."""
    return {run_id.split("/")[0] for run_id in run_ids}


def missing_files(plan: Plan, run_ids: Iterable[str] | None = None) -> list[str]:
    """What a study names and is not there, as `key: what is missing and what to do`: asked before
    the first job, not when planning. run_ids: the jobs that will run and hence read weights;
    None: all."""
    wanted = set(plan.jobs if run_ids is None else run_ids)
    stages = stages_of(wanted)
    problems: list[str] = []
    try:
        if stages - set(rooms.which("SIZES_ONLY")):
            problems += _missing_inputs(plan.study)
            problems += _missing_networks(plan, wanted)
        for suite in plan.study.suites:
            for name in variant_names(plan.study, suite):
                problems += _missing_weights(plan.study, suite, name, wanted)
    except ConfigError as error:  # a path that no file can have
        problems.append(str(error))
    return problems


def _missing_inputs(study: Study) -> Iterator[str]:
    """Images and files of the extractor that are not there."""
    data = study.dataset
    if data.path is not None:
        root = place_of(data.path, "dataset.path")
        if not root.exists():
            seen_from = "" if root.is_absolute() else f", seen from {Path.cwd()}"
            yield (
                f"dataset.path: no folder at {data.path}{seen_from}; "
                "put the images there or change the path"
            )
        elif data.name in FOLDERS and not root.is_dir():
            yield (
                f"dataset.path: {data.path} is a file; give the folder of the images, which an "
                "archive is unpacked to"
            )
    if data.name == "emoji" and (problem := emoji_files.absent(data.image_size)):
        yield f"dataset.name: emoji: {problem}"
    for at, features in study.extractors.items():
        files = {"weights": features.weights, "reference": features.reference}
        for key, path in files.items():
            if path is not None and not place_of(path, f"{at}.{key}").is_file():
                yield f"{at}.{key}: no file at {path}; put it there or change the path"


def _missing_networks(plan: Plan, wanted: set[str]) -> Iterator[str]:
    """Packages of pretrained networks that the wanted jobs score with, or train a tokenizer on, and
    that cannot be used."""
    read = {
        settings["name"]
        for run_id in wanted
        for key, settings in plan.jobs[run_id].config.items()
        if OF_EXTRACTOR.fullmatch(key)
    }
    asked: dict[str, Network] = {}
    for at, features in plan.study.extractors.items():
        if features.network is not None and features.name in read:
            asked[f"{at}.network"] = features.network
    if any(_trains_on_lite0(plan.jobs[run_id]) for run_id in wanted):
        asked["tokenizer.training.perceptual_network"] = "efficientnet_lite0"
    for key, network in asked.items():
        try:
            weights_of(network, key)
        except ConfigError as error:
            yield str(error)


def _trains_on_lite0(job: Job) -> bool:
    """Whether a job trains a tokenizer with the perceptual loss of a network that is packaged."""
    if job.stage != "tokenizer":
        return False
    training = TokenizerSpec.model_validate_json(json.dumps(job.config["tokenizer"])).training
    return training.perceptual > 0 and training.perceptual_network == "efficientnet_lite0"


def _missing_weights(study: Study, suite: str, name: str, wanted: set[str]) -> Iterator[str]:
    """Weights that the wanted jobs of a variant read and that cannot be read now."""
    at, variant = (
        f"suites.{suite}.variants.{name} (delta and base).",
        resolve_variant(study, suite, name),
    )
    # a tokenizer that is trained may read weights too, each training seed's the same
    tokenizers = [tokenizer_job(study, variant, seed)[1] for seed in study.seeds_of(suite)]
    tokenizer = next((job for job in tokenizers if job.run_id in wanted), tokenizers[0])
    readers = {at: [tokenizer, *import_jobs(study, variant)]}
    if variant.distill:
        readers[f"{at}distill.teacher."] = import_jobs(study, teacher_of(study, variant.distill))
    for place, jobs in readers.items():
        for job in jobs:
            files = job.files if job.run_id in wanted else {}
            for key, weights in files.items():
                yield from _weights_problems(weights, f"{place}{key}")


def own_changes(study: Study, suite: str) -> set[tuple[str, str, float]]:
    """Shifts and degradations of the user's own that a suite's rooms or trainings name: prefix,
    name and strength."""
    about = study.suites[suite]
    told: list[Any] = [
        study.told(suite, room) for room in rooms.with_settings() if room in about.measure
    ]
    told += [one.restore for one in variants_and_teachers(study, suite) if one.restore is not None]
    return {
        (prefix, name, float(getattr(settings, "strength", 1.0)))
        for settings in told
        for _, (prefix, name) in named_by(settings)
        if prefix in IMAGE_CHANGES and is_own(prefix, name)
    }


def names_own(study: Study, suite: str) -> bool:
    """Whether a suite names a function of the user's own that is tried first: of a mask, sampler,
    rule, ramp, corruption or weight, or one that changes images."""
    if own_changes(study, suite):
        return True
    named = [(prefix, name) for _, prefix, name in functions_of(study, suite)]
    for variant in variants_and_teachers(study, suite):
        parts = variant.model, variant.sampler, variant.training, variant.tokenizer.config
        for settings in filter(None, parts):
            named += [function for _, function in named_by(settings)]
    return any(is_own(prefix, name) for prefix, name in named if prefix in BUILT_IN)


def refused_function(
    path: str | Path, plan: Plan, run_ids: Iterable[str], python: str | Path = sys.executable
) -> str | None:
    """Why a function of the user's own cannot be used by the jobs that will run, in one line that
    names it: tried by another process, since planning imports no torch; None where all can, or
    where there are none."""
    wanted = set(run_ids)
    suites = [name for name, jobs in plan.suites.items() if jobs & wanted]
    suites = [name for name in suites if names_own(plan.study, name)]
    if not suites:
        return None
    words = [str(python), "-m", "bench", "check", str(path), *suites]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, capture_output=True, encoding="utf-8", errors="replace", env=environment
    )
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"bench.check ended with status {done.returncode}"]
    return lines[-1].removeprefix("error: ")


def _weights_problems(weights: WeightsConfig, key: str) -> Iterator[str]:
    """Why weights cannot be read now."""
    local = not weights.file.startswith(HUB)
    if local and not place_of(weights.file, key).is_file():
        yield f"{key}: no file at {weights.file}; put it there or change the path"
    problem = sum_needed(weights.file) if weights.sha256 is None else None
    if problem:
        yield f"{key}: {problem}"


def nothing_to_make(plan: Plan, scope: str | None) -> str | None:
    """Why a run of all that a scope holds would end at once without a number;
    None where it would not."""
    if not plan.suites_of(scope):
        names = ", ".join(plan.study.suites)
        return (
            f"suites: none is core ({names}); add the word full to run all, "
            "or ask for one with `./run snakemake`"
        )
    if not (plan.outputs_of("figures", scope) or plan.outputs_of("tables", scope)):
        return (
            "suites: none of these has figures or tables, nothing would run; give one tables, "
            "such as [scores]"
        )
    return None


def drawn_first(plan: Plan, scope: str | None) -> list[str]:
    """The suite of a scope whose figures are there soonest: that of fewest jobs among those that
    train no model. None where there is no such suite, or no other."""
    suites = plan.suites_of(scope)
    drawn = [name for name in suites if plan.study.suites[name].figures]
    quick = [name for name in drawn if not TRAININGS & stages_of(plan.suites[name])]
    return sorted(quick, key=lambda name: len(plan.suites[name]))[:1] if len(suites) > 1 else []


USAGE = "`python -m bench plan STUDY.yaml [full|SUITE] [--name] [--first] [--files]`"


def main() -> None:
    """Check a study and say what it would run: `python -m bench plan STUDY.yaml [full|SUITE]
    [--name] [--first] [--files]`."""
    if len(sys.argv) < 2:
        sys.exit(f"error: no study given; {USAGE}")
    if {"-h", "--help"} & set(sys.argv):
        print(USAGE.strip("`"))
        return
    path = sys.argv[1]
    try:
        plan = load_study(path)
        scope = _scope_of(plan, sys.argv[2:])
    except ConfigError as error:
        sys.exit(f"error: {error}")
    if "--name" in sys.argv:
        _stop_for(path, nothing_to_make(plan, scope))
    if "--files" in sys.argv:
        run_ids = plan.jobs_of(scope)
        _stop_for(path, next(iter(missing_files(plan, run_ids)), None))
        problem = refused_function(path, plan, run_ids)
        if problem:
            sys.exit(f"error: {problem}")
    if "--name" in sys.argv:
        print(plan.study.study)
        if "--first" in sys.argv:
            print(*drawn_first(plan, scope), sep="\n")
        return
    for warning in plan.warnings:  # who asks for the name goes on to run the study, which says them
        print(f"warning: {path}: {warning}", file=sys.stderr)
    print("\n".join(plan.jobs_of(scope or "full")))


def _scope_of(plan: Plan, words: list[str]) -> str | None:
    """The scope that words after a study name; None where none does. Raises ConfigError for
    another word."""
    legal = ("full", "--name", "--first", "--files", *plan.suites)
    for word in words:
        if word not in legal:
            raise ConfigError(f"{unknown('suite or option', word, legal)}; {USAGE}")
    scopes = [word for word in words if not word.startswith("--")]
    if len(scopes) > 1:
        raise ConfigError(f"{' '.join(scopes)}: {len(scopes)} scopes, give one; {USAGE}")
    return next(iter(scopes), None)


def _stop_for(path: str, problem: str | None) -> None:
    """End with what is wrong with a study, if anything is."""
    if problem:
        sys.exit(f"error: {path}: {problem}")
