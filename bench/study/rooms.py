"""The rooms: what a study can ask, each a folder of bench/experiments, found by being there.

A room holds all that one question needs, and nothing outside names it:

    __init__.py  the question, its paper, one paragraph
    plan.py      what a suite may set and which jobs that means; no torch
    verb.py      `work(run)`, where the question takes work of its own; torch. verb_<more>.py does
                 work of another kind, in jobs of the stage <room>_<more>
    show.py      figure_<name>, table_<name>, judge_<name>; no torch. The first two give the figure
                 or table and a Caption (bench/report/caption.py); `shown` in bench/report/cells.py
                 says which columns a reader needs

What `plan.py` may say, all of it optional:

    Settings                     the room's settings in a suite, under the name of the room; a field
                                 that names a function says so (`srdd.lookup.names_function`)
    jobs(plan, suite, variants)  makes the room a measure: adds its jobs to the plan
    SCORES, TRAINS, DRAWS        whether these jobs score samples of every variant, train models,
                                 draw images
    SIZES_ONLY                   whether they read no image and no weights, sizes alone
    OF_TOKENIZER                 whether they measure a tokenizer, and no training behind it
    NEEDS                        what a figure, table or rule reads: measures, or `scored`,
                                 `trained`; the room's own if left out
    SHOWS_FID, HALVES            names of those that show FID, and that tune on one half of the
                                 samples and score on the other
    problems(study, one)         why a suite cannot give what it asks of this room, each a line
                                 `key: what and remedy`
    cautions(study, one)         what is legal and hardly meant
    COMPARED                     names beside variants that claims of a rule compare with
    rule_problems(study, one, claim)  the same of a claim that one of the room's rules judges
    elbos(settings)              corruptions whose ELBO is asked for, each with a noise
    EVALUATES, READS_TEST        whether it scores images of its own with the extractor, and reads
                                 held-out images
    KNOWN_TOKENS                 whether samplers are handed tokens that are known
    RESTORES                     whether it hands models the degraded images that they restore
    REPORTED                     numbers of a model or a sampler, one a training, that its jobs
                                 report and rules of any metric can be asked of
    reports(study, one, variant)  those of them that the settings of a suite give of a variant; all
                                 if left out
    READS_CODES                  whether it asks a model for codes or their probabilities, which a
                                 regression has none of

Imports no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from srdd.config import Strict
from srdd.lookup import names_in, unknown

from .errors import ConfigError, raised

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
PREFIXES = {"figures": "figure", "tables": "table", "rule": "judge"}


@cache
def names() -> tuple[str, ...]:
    """Names of the rooms, those of folders that Python can import."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/__init__.py")))


@cache
def plan_of(room: str) -> ModuleType | None:
    """The module plan.py of a room; None for a room without one."""
    if not (FOLDER / room / "plan.py").is_file():
        return None
    place = f"bench/experiments/{room}/plan.py"
    try:
        return importlib.import_module(f"bench.experiments.{room}.plan")
    except SyntaxError as error:
        line = f"{place}: line {error.lineno}"
        raise ConfigError(f"{line}: {error.msg}; Python cannot read it") from None
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{place}: {raised(error, FOLDER / room)}") from error


def says(room: str, what: str, default: Any = None) -> Any:
    """What the plan of a room says under a name."""
    return getattr(plan_of(room), what, default)


def reported(room: str, *what: Any) -> set[str]:
    """Those of REPORTED that a suite reports of a variant. Raises ConfigError, one line that names
    the function, where it raises or gives no names."""
    reports = says(room, "reports")
    if reports is None:
        return set(says(room, "REPORTED", ()))
    place = f"bench/experiments/{room}/plan.py: reports"
    try:
        given = reports(*what)
        names = [] if isinstance(given, str) else list(given)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{place}: {raised(error, FOLDER / room)}") from error
    if isinstance(given, str) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{place}: gives {given!r}; must be a list of names")
    return set(names)


def add_jobs(room: str, *what: Any) -> None:
    """Add the jobs of a measure to a plan. Raises ConfigError, one line that names its function,
    where that one raises."""
    try:
        says(room, "jobs")(*what)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        place = f"bench/experiments/{room}/plan.py: jobs"
        raise ConfigError(f"{place}: {raised(error, FOLDER / room)}") from error


@cache
def measures() -> tuple[str, ...]:
    """Rooms that a suite can name in `measure`."""
    return tuple(room for room in names() if callable(says(room, "jobs")))


def no_measure(name: str) -> str:
    """Why a name is no measure: its folder lacks what makes it one, or there is none."""
    folder = FOLDER / name
    folders = {place.name for place in FOLDER.iterdir() if place.is_dir()}
    if not name.isidentifier() or name not in folders:
        return unknown("measure", name, measures())
    files = [file for file in ("__init__.py", "plan.py") if not (folder / file).is_file()]
    lacks = f"no {files[0]}" if files else "a plan.py without a function jobs"
    legal = ", ".join(measures())
    return f"{name!r} is no measure: bench/experiments/{name} has {lacks} (measures: {legal})"


@cache
def which(flag: str) -> tuple[str, ...]:
    """Measures whose plan says a flag, such as SCORES."""
    return tuple(room for room in measures() if says(room, flag, False))


def with_settings() -> dict[str, type]:
    """The settings that each room adds to a suite, by room."""
    classes = {room: says(room, "Settings") for room in names()}
    classes = {room: settings for room, settings in classes.items() if settings is not None}
    for room, settings in classes.items():
        if problem := _unfit_settings(settings):
            raise ConfigError(f"bench/experiments/{room}/plan.py: Settings{problem}")
    return classes


def _unfit_settings(settings: Any) -> str | None:
    """Why a class cannot be the settings of a room; None where it can."""
    if not (isinstance(settings, type) and issubclass(settings, Strict)):
        return ": is no class of its kind; make it class Settings(Strict), of srdd.config"
    try:
        settings.model_validate_json(settings().model_dump_json(warnings=False))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        given = "" if first["type"] == "missing" else f", got {first['input']!r}"
        return f".{where}: of its defaults: {first['msg']}{given}"
    return None


@cache
def shows(what: str) -> dict[str, str]:
    """The room of each figure, table or rule (`figures`, `tables`, `rule`), by name. Raises
    ConfigError for a name that two rooms have."""
    prefix = PREFIXES[what]
    owners: dict[str, str] = {}
    for room in names():
        path = FOLDER / room / "show.py"
        try:
            shown = names_in(path, prefix) if path.is_file() else []
        except ValueError as error:
            raise ConfigError(f"bench/experiments/{error}") from None
        for name in shown:
            if name in owners:
                raise ConfigError(
                    f"bench/experiments/{room}/show.py: {prefix}_{name}: "
                    f"the room {owners[name]!r} has one "
                    "of this name; rename one"
                )
            owners[name] = room
    return owners


def needs(what: str, name: str) -> tuple[str, ...]:
    """The measures, one of which a figure, table or rule needs; empty: any."""
    room = shows(what)[name]
    asked = says(room, "NEEDS", {}).get(f"{PREFIXES[what]}_{name}", room)
    asked = (asked,) if isinstance(asked, str) else asked
    groups = {"scored": which("SCORES"), "trained": which("TRAINS")}
    words = [word for name in asked for word in groups.get(name, (name,))]
    return tuple(word for word in words if word in measures())


def refuse_needs() -> None:
    """Raises ConfigError for a NEEDS that names a measure or a figure, table or rule that is not
    there, and would say nothing."""
    shown = {f"{prefix}_{name}" for what, prefix in PREFIXES.items() for name in shows(what)}
    legal = (*measures(), "scored", "trained")
    for room in names():
        at = f"bench/experiments/{room}/plan.py: NEEDS"
        for name, asked in says(room, "NEEDS", {}).items():
            if name not in shown:
                raise ConfigError(f"{at}: {unknown('function', name, shown)}")
            for measure in (asked,) if isinstance(asked, str) else asked:
                if measure not in legal:
                    raise ConfigError(f"{at}: {name}: {unknown('measure', measure, legal)}")


def listed(what: str, flag: str) -> list[str]:
    """Names of the figures, tables or rules that their rooms list under a flag,
    such as SHOWS_FID."""
    prefix = PREFIXES[what]
    return [
        name for name, room in shows(what).items() if f"{prefix}_{name}" in says(room, flag, ())
    ]


def function_of(what: str, name: str) -> Any:
    """The function behind a figure, table or rule. Raises ValueError for an unknown one."""
    owners = shows(what)
    if name not in owners:
        raise ValueError(unknown(PREFIXES[what], name, owners))
    module = importlib.import_module(f"bench.experiments.{owners[name]}.show")
    return getattr(module, f"{PREFIXES[what]}_{name}")


def place_of_function(what: str, name: str) -> str:
    """File and name of such a function, as an error begins with."""
    room = shows(what).get(name, "*")
    return f"bench/experiments/{room}/show.py: {PREFIXES[what]}_{name}"


def compared(rule: str) -> tuple[str, ...]:
    """What a claim of a rule may be held against beside variants; empty for an unknown rule."""
    room = shows("rule").get(rule)
    asked = says(room, "COMPARED", {}) if room else {}
    names: tuple[str, ...] = asked.get(f"judge_{rule}", ())
    return names


def unfit(what: str, name: str, measured: Iterable[str]) -> tuple[str, ...]:
    """The measures that a figure, table or rule needs, of which a suite has none;
    empty where it has one."""
    asked = needs(what, name)
    return () if not asked or set(asked) & set(measured) else asked
