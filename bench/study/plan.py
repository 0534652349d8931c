"""From a study to its jobs: each once, however many suites share it. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from srdd.lookup import PLACES, unknown

from . import checks, rooms, suite_checks
from .chain import identity_of
from .contents import Contents
from .entries import entries_of
from .errors import ConfigError
from .functions import named_by
from .jobs import Plan
from .load import compose
from .resolve import check_known, resolve_variant, validated
from .schema import CLASSES, RESERVED, SCOPES, Named, Study, Suite, study_schema
from .study_file import one_line, read_yaml


def study_name(path: str | Path) -> str:
    """The name of a study, which is that of its folder. Raises ConfigError."""
    try:
        name = read_yaml(Path(path)).get("study")
        return validated(Named, {"study": name}).study
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def load_study(path: str | Path, contents: Contents | None = None) -> Plan:
    """Read, check and expand a study. Raises ConfigError, one line that names file, key,
    value and what is legal.

    contents: what is known of the files that it names; None: they are looked at.
    """
    composed = compose(path)
    try:
        study = validated(study_schema(), composed.data)
        study._contents = contents or Contents()
        plan = expand(study)
    except ConfigError as error:
        raise ConfigError(one_line(composed.placed(str(error)))) from None
    plan.files = composed.files
    plan.warnings[:0] = [*composed.notes, *_unused_bases(study, composed.given("bases"))]
    return plan


def expand(study: Study) -> Plan:
    """Every job of a study, each once however many suites share it.
    Raises ConfigError for what does not fit together."""
    rooms.refuse_needs()
    _check_names(study)
    _refuse(checks.problems(study))
    suites = {name: _resolved_suite(study, name) for name in study.suites}
    _refuse(suite_checks.problems(study, suites))
    plan = Plan(study)
    plan.warnings = [
        *checks.cautions(study),
        *suite_checks.cautions(study, suites),
    ]
    for name, resolved in suites.items():
        plan.suites[name] = set()
        plan.identities[name] = _identities(study, resolved)
    for name, resolved in suites.items():
        for measure in resolved.suite.measure:
            rooms.add_jobs(measure, plan, name, resolved.variants)
    _check_run_ids(plan)
    return plan


def _refuse(problems: Iterator[str]) -> None:
    for problem in problems:
        raise ConfigError(problem)


def _resolved_suite(study: Study, suite_name: str) -> suite_checks.Resolved:
    """A suite with its variants in full, those that a grid gives twice once. Raises ConfigError."""
    suite, at = study.suites[suite_name], f"suites.{suite_name}."
    entries = entries_of(suite, at)
    resolved = suite_checks.Resolved(suite_name, suite, {}, {}, {})
    names_by_numbers: dict[tuple[str, str], list[str]] = {}
    for name, (group, _, grid) in entries.items():
        variant = resolve_variant(study, suite_name, name)
        identity = identity_of(study, variant)
        # what gives the same numbers: time knows sizes, not training
        numbers = identity["sampler"], identity["timed" if suite.sizes_only else "model"]
        twins = names_by_numbers.setdefault(numbers, [])
        if twins and _meets_itself(suite, name, group, twins[0], resolved):
            continue
        twins.append(name)
        resolved.variants[name], resolved.groups[name], resolved.grids[name] = variant, group, grid
    _check_references(resolved)
    return resolved


def _meets_itself(
    suite: Suite, name: str, group: str, twin: str, resolved: suite_checks.Resolved
) -> bool:
    """Whether a variant with the settings of another is left out.
    Raises ConfigError where both were written out."""
    twin_group = resolved.groups[twin]
    if twin_group == group and suite.variants[group].grid:
        return True  # a grid meets itself where a value does not matter, such as the ramp at w = 1
    # two grids may meet where each has its setting off: each is read, and tuned, as a whole
    if suite.variants[group].grid and suite.variants[twin_group].grid:
        return False
    raise ConfigError(
        f"suites.{resolved.name}.variants.{name}: has the same settings as {twin!r}; "
        "change or remove it"
    )


def _check_references(resolved: suite_checks.Resolved) -> None:
    """Refuse published numbers and claims of variants that are not there, and unknown rules."""
    at, suite = f"suites.{resolved.name}.", resolved.suite
    for number in suite.published:
        if number.variant not in resolved.variants:
            raise ConfigError(
                f"{at}published.variant: " + unknown("variant", number.variant, resolved.variants)
            )
    sides = {**resolved.variants, **suite.variants}
    for claim in suite.claims:
        for key, side in (("variant", claim.variant), ("against", claim.against)):
            others = rooms.compared(claim.rule) if key == "against" else ()
            if side not in sides and side not in others:
                which = suite_checks.which_claim(suite, claim)
                raise ConfigError(
                    f"{at}claims.{key}: {unknown('variant', side, [*sides, *others])}{which}"
                )
        check_shown(f"{at}claims.rule", "rule", claim.rule)


def _identities(study: Study, resolved: suite_checks.Resolved) -> dict[str, dict[str, Any]]:
    """What the numbers of each variant are called, where it comes from, and its settings."""
    identities = {}
    for name, variant in resolved.variants.items():
        more = {"group": resolved.groups[name], "grid": resolved.grids[name]}
        identities[name] = {**identity_of(study, variant), **more}
    return identities


def _unused_bases(study: Study, given: Collection[str]) -> Iterator[str]:
    """Bases that a study gives itself and that no variant and no teacher names: nothing in them is
    read or checked. Those of the study that it is like are nothing that its author wrote."""
    used = {entry.base for suite in study.suites.values() for entry in suite.variants.values()}
    teachers = re.compile(r"'base': '([^']*)'")  # at any depth of a delta or of a base
    for node in (study.bases, *(suite.variants for suite in study.suites.values())):
        used |= set(teachers.findall(str(node)))
    for name in study.bases:
        if name in given and name not in used:
            yield (
                f"bases.{name}: is not read, no variant names it (in use: "
                f"{', '.join(sorted(used & set(study.bases)))})"
            )


def _check_run_ids(plan: Plan) -> None:
    """Names of jobs become names of folders, which file systems limit."""
    for run_id in plan.jobs:
        size = len(run_id.split("/")[1].encode())
        if size > 200:
            raise ConfigError(
                f"{run_id[:60]}...: {size} bytes are too long for the name of a folder; "
                "shorten schedule and names"
            )


def functions_of(study: Study, suite: str) -> Iterator[tuple[str, str, str]]:
    """Functions of the library that the settings of a suite's rooms name, measured or not: key,
    prefix, name."""
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
        raise ConfigError(
            f"{at}: {words}; a name is a function {prefix}_<name> in "
            "bench/experiments/<room>/show.py"
        )


def _check_names(study: Study) -> None:
    """Refuse names that no function has, or that something else has already."""
    if study.study == "benchmarks":
        raise ConfigError(
            "study: 'benchmarks': results/benchmarks holds the times of bench/speed; "
            "choose another name"
        )
    check_known("dataset.name", "bench/pipeline/datasets.py", "load", study.dataset.name)
    for name in study.evaluation.metrics:
        check_known("evaluation.metrics", "bench/pipeline/metrics.py", "metric", name)
    for name, suite in study.suites.items():
        _check_suite_names(study, name, suite)
    _check_classes(study)


def _check_suite_names(study: Study, name: str, suite: Suite) -> None:
    if {"scores", "sweep"} <= set(suite.measure):
        raise ConfigError(
            f"suites.{name}.measure: scores and sweep score the same variants; name one"
        )
    for key, prefix, function in functions_of(study, name):
        check_known(f"suites.{name}.{key}", PLACES[prefix], prefix, function)
    of_workflow = name in (*RESERVED, *SCOPES) or name.endswith("_job")
    if of_workflow or name.startswith(("collect_", "figures_", "tables_")):
        raise ConfigError(
            f"suites.{name}: names a rule of the workflow already; choose another name"
        )
    for what, outputs in (("figures", suite.figures), ("tables", suite.tables)):
        for output in outputs:
            check_shown(f"suites.{name}.{what}", what, output)


def _check_classes(study: Study) -> None:
    data = study.dataset
    classes = CLASSES.get(data.name, data.num_classes)
    if data.num_classes not in (classes, 0):
        raise ConfigError(
            f"dataset.num_classes: {data.num_classes} does not fit {data.name}, "
            f"which has {classes} classes"
        )
    for at, features in study.extractors.items():
        if features.kind == "trained" and data.num_classes < 2:
            raise ConfigError(
                f"{at}.kind: 'trained' needs a dataset of two classes or more, this has "
                f"{data.num_classes}; use kind: pretrained or inception"
            )
