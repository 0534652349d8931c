"""The verbs: modules with a function `work`, found by being there. Imports no torch,
runs no module.

A module says at its top what a job of it needs: `STAGE`, the name of its folder of results where it
is not the module's; `INPUTS`, the jobs that it reads, by role (features stands for features_1 too,
the second extractor); `GPU = False`; `SHARED = True`, where several processes may do it together;
`ALONE = True`, where nothing else may run beside it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..study.errors import ConfigError
from ..study.jobs import Job
from .command import first_role

BENCH = Path(__file__).resolve().parent.parent
# programs with a command line of their own
PROGRAMS = {
    "plan": "bench.study.before",
    "settings": "bench.study.settings_page",
    "data": "bench.pipeline.fetch",
    "check": "bench.pipeline.check",
    "collect": "bench.pipeline.collect",
    "figures": "bench.report.figures",
    "tables": "bench.report.tables",
    "claims": "bench.report.all_claims",
    "compare": "bench.report.compare",
    "pages": "bench.report.pages",
    "site": "bench.site.build",
}


@dataclass(frozen=True)
class Verb:
    """What a job of a verb needs."""

    name: str
    module: str
    about: str
    stage: str
    inputs: tuple[str, ...] = ()
    gpu: bool = True
    shared: bool = False
    alone: bool = False


def _constants(tree: ast.Module) -> dict[str, Any]:
    """The literals that a module assigns at its top, by name."""
    values = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                values[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return values


def _read(name: str, path: Path) -> Verb | None:
    """The verb of a file; None for a file without a function `work`. Raises ConfigError for one
    that Python cannot read."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        place = path.relative_to(BENCH.parent).as_posix()
        raise ConfigError(
            f"{place}: line {error.lineno}: {error.msg}; Python cannot read it"
        ) from None
    if not any(isinstance(node, ast.FunctionDef) and node.name == "work" for node in tree.body):
        return None
    says = _constants(tree)
    paragraph = (ast.get_docstring(tree) or "").partition("\n\n")[0]
    about = " ".join(paragraph.split()).removeprefix("Verb: ")
    return Verb(
        name,
        ".".join(("bench", *path.relative_to(BENCH).with_suffix("").parts)),
        about,
        says.get("STAGE", name),
        tuple(says.get("INPUTS", ())),
        says.get("GPU", True),
        says.get("SHARED", False),
        says.get("ALONE", False),
    )


def _of_rooms() -> dict[str, Path]:
    """Files of the rooms' verbs by name: verb.py is called as its room, verb_<more>.py
    <room>_<more>. Raises ConfigError for two of one name."""
    folder, files = BENCH / "experiments", dict[str, Path]()
    for path in sorted([*folder.glob("*/verb.py"), *folder.glob("*/verb_*.py")]):
        name = path.parent.name + path.stem.removeprefix("verb")
        if files.setdefault(name, path) != path:
            places = [one.relative_to(BENCH.parent).as_posix() for one in (path, files[name])]
            raise ConfigError(f"{places[0]}: {name!r} is the verb of {places[1]} too; rename one")
    return files


@cache
def verbs() -> dict[str, Verb]:
    """All verbs by name: those of bench/pipeline, and those of each room that has work of its
    own."""
    files = {path.stem: path for path in sorted((BENCH / "pipeline").glob("*.py"))}
    files |= _of_rooms()
    read = (_read(name, path) for name, path in files.items())
    return {verb.name: verb for verb in read if verb is not None}


def stages() -> dict[str, Verb]:
    """All verbs by the name of their folder of results."""
    return {verb.stage: verb for verb in verbs().values()}


def check_jobs(jobs: Iterable[Job]) -> None:
    """Raises ConfigError where the verb of a job cannot be run or reads other folders than the job
    names: said before any work."""
    read_by_stage = {job.stage: set(map(first_role, job.inputs)) for job in jobs}
    for stage, read in read_by_stage.items():
        verb, file = stages().get(stage), _file_of(stage)
        if verb is None:
            lacks = "has no function work(run)" if _in_project(file) else "is missing"
            raise ConfigError(f"{file}: {lacks}; the jobs of the stage {stage!r} need one")
        of_room = verb.module.startswith("bench.experiments.")
        if of_room and _in_project(f"bench/pipeline/{verb.name}.py"):
            raise ConfigError(
                f"{file}: {stage!r} is a verb of every study already; rename the room"
            )
        if set(verb.inputs) != read:
            place = f"{verb.module.replace('.', '/')}.py"
            legal = f"its jobs read {', '.join(sorted(read)) or 'nothing'}"
            raise ConfigError(f"{place}: INPUTS: is {list(verb.inputs)}; {legal}, in any order")


def _file_of(stage: str) -> str:
    """Where the verb of a room's jobs lies, or would."""
    folder = BENCH / "experiments"
    for path in [] if (folder / stage).is_dir() else sorted(folder.glob("*/plan.py")):
        room, _, more = stage.partition(f"{path.parent.name}_")
        if more and not room:
            return f"bench/experiments/{path.parent.name}/verb_{more}.py"
    return f"bench/experiments/{stage}/verb.py"


def _in_project(file: str) -> bool:
    return (BENCH.parent / file).is_file()
