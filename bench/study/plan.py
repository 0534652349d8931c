"""From a study to its jobs: each once, however many suites share it. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from srdd.lookup import PLACES, unknown

from . import checks, rooms, suite_checks
from .chain import identity_of
from .contents import Contents
from .errors import ConfigError
from .functions import named_by
from .jobs import Plan
from .resolve import check_known, entries_of, resolve, validated
from .schema import CLASSES, RESERVED, SCOPES, Named, Study, Suite, Variant, study_schema
from .study_file import one_line, read_yaml


def study_name(path: str | Path) -> str:
    """The name of a study, which is that of its folder. Raises ConfigError."""
    try:
        name = read_yaml(Path(path)).get("study")
        return validated(Named, {"study": name}).study
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def load_study(path: str | Path, contents: Contents | None = None) -> Plan:
    """Read, check and expand a study. Raises ConfigError, one line that names file, key, value and what is legal.

    contents: what is known of the files that it names; None: they are looked at.
    """
    path = Path(path)
    try:
        study = validated(study_schema(), read_yaml(path))
        study._contents = contents or Contents()
        return expand(study)
    except ConfigError as error:
        raise ConfigError(one_line(f"{path}: {error}")) from None






def expand(study: Study) -> Plan:
    """Every job of a study, each once however many suites share it. Raises ConfigError for what does not fit together."""
    plan = Plan(study)
    _check_names(study)
    for problem in checks.problems(study):
        raise ConfigError(problem)
    resolved: dict[str, suite_checks.Resolved] = {}
    for suite_name, suite in study.suites.items():
        plan.suites[suite_name] = set()
        variants: dict[str, Variant] = {}
        known: dict[str, dict[str, Any]] = {}
        timed_only = suite.sizes_only
        for name, (group, entry, values) in entries_of(suite, f"suites.{suite_name}.").items():
            variant = resolve(study, entry, f"suites.{suite_name}.variants.{name}", timed_only)
            identity = identity_of(study, variant) | {"group": group, "grid": values}
            twin = next((other for other, found in known.items() if _equal(found, identity, suite)), None)
            if twin is not None and known[twin]["group"] == group and suite.variants[group].grid:
                continue  # a grid meets itself where a value does not matter, such as the ramp at w = 1
            # two grids may meet where each has its setting off: each is read, and tuned, as a whole
            both = twin is not None and suite.variants[group].grid and suite.variants[known[twin]["group"]].grid
            if twin is not None and not both:
                raise ConfigError(f"suites.{suite_name}.variants.{name}: has the same settings as {twin!r}; change or remove it")
            known[name], variants[name] = identity, variant
        plan.identities[suite_name] = known
        groups = {name: identity["group"] for name, identity in known.items()}
        resolved[suite_name] = suite_checks.Resolved(suite_name, suite, variants, groups)
        for number in suite.published:
            if number.variant not in variants:
                raise ConfigError(f"suites.{suite_name}.published.variant: " + unknown("variant", number.variant, variants))
        for claim in suite.claims:
            for key in ("variant", "against"):
                if getattr(claim, key) not in (legal := {**variants, **suite.variants}):
                    raise ConfigError(f"suites.{suite_name}.claims.{key}: " + unknown("variant", getattr(claim, key), legal))
            check_shown(f"suites.{suite_name}.claims.rule", "rule", claim.rule)
    for problem in suite_checks.problems(study, resolved):
        raise ConfigError(problem)
    plan.warnings = [*_unused_bases(study), *checks.cautions(study), *suite_checks.cautions(study, resolved)]
    for suite_name, one in resolved.items():
        for measure in one.suite.measure:
            rooms.plan_of(measure).jobs(plan, suite_name, one.variants)
    _check_run_ids(plan)
    return plan


def _unused_bases(study: Study) -> Iterator[str]:
    """Bases that no variant and no teacher names: nothing in them is read or checked."""
    used = {entry.base for suite in study.suites.values() for entry in suite.variants.values()}
    teachers = re.compile(r"'base': '([^']*)'")  # at any depth of a delta or of a base
    for node in (study.bases, *(suite.variants for suite in study.suites.values())):
        used |= set(teachers.findall(str(node)))
    for name in study.bases:
        if name not in used:
            yield f"bases.{name}: is not read, no variant names it (in use: {', '.join(sorted(used & set(study.bases)))})"


def _check_run_ids(plan: Plan) -> None:
    """Names of jobs become names of folders, which file systems limit."""
    for run_id in plan.jobs:
        if len(name := run_id.split("/")[1].encode()) > 200:
            raise ConfigError(
                f"{run_id[:60]}...: {len(name)} bytes are too long for the name of a folder; shorten schedule and names"
            )


def _equal(known: dict[str, Any], identity: dict[str, Any], suite: Suite) -> bool:
    """Whether two variants would give the same numbers: time knows sizes, not training."""
    key = "timed" if suite.sizes_only else "model"
    return known["sampler"] == identity["sampler"] and known[key] == identity[key]


def functions_of(study: Study, suite: str) -> Iterator[tuple[str, str, str]]:
    """Functions of the library that the settings of a suite's rooms name, measured or not: key, prefix, name."""
    about = study.suites[suite]
    for room in rooms.with_settings():
        if room in about.measure or getattr(about, room, None) is not None:
            for key, (prefix, name) in named_by(study.told(suite, room)):
                if prefix in PLACES:
                    yield f"{room}.{key}", prefix, name


def check_shown(at: str, what: str, name: str) -> None:
    """Refuse a figure, table or rule that no room shows."""
    if name not in rooms.shows(what):
        prefix = rooms.PREFIXES[what]
        words = unknown("name", name, rooms.shows(what))
        raise ConfigError(f"{at}: {words}; a name is a function {prefix}_<name> in bench/experiments/<room>/show.py")


def _check_names(study: Study) -> None:
    if study.study == "benchmarks":
        raise ConfigError("study: 'benchmarks': results/benchmarks holds the times of bench/benchmark_*.py; choose another name")
    check_known("dataset.name", "bench/pipeline/datasets.py", "load", study.dataset.name)
    for name in study.evaluation.metrics:
        check_known("evaluation.metrics", "bench/pipeline/metrics.py", "metric", name)
    for suite_name, suite in study.suites.items():
        if {"scores", "sweep"} <= set(suite.measure):
            raise ConfigError(f"suites.{suite_name}.measure: scores and sweep score the same variants; name one")
        for key, prefix, name in functions_of(study, suite_name):
            check_known(f"suites.{suite_name}.{key}", PLACES[prefix], prefix, name)
        if suite_name in (*RESERVED, *SCOPES) or suite_name.endswith("_job") or suite_name.startswith(("collect_", "figures_", "tables_")):
            raise ConfigError(f"suites.{suite_name}: names a rule of the workflow already; choose another name")
        for what in ("figures", "tables"):
            for name in getattr(suite, what):
                check_shown(f"suites.{suite_name}.{what}", what, name)
    features, data = study.features, study.dataset
    if data.num_classes not in (CLASSES.get(data.name, data.num_classes), 0):
        raise ConfigError(
            f"dataset.num_classes: {data.num_classes} does not fit {data.name}, which has {CLASSES[data.name]} classes"
        )
    if features.kind == "trained" and data.num_classes < 2:
        raise ConfigError(
            f"features.kind: 'trained' needs a dataset with classes, this has {data.num_classes}; use kind: inception"
        )
    if features.kind == "trained" and (features.weights or features.reference):
        raise ConfigError("features.weights and features.reference: only for kind: inception; remove them")
