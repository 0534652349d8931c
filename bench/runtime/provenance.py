"""Where a result comes from: the code it ran (by content, without prose), the commit, the machine.
Imports no torch."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from srdd.processor import maker

from ..study.functions import functions_of
from ..study.rooms import PREFIXES
from .closure import Key, Project
from .known_sources import KnownSources
from .verbs import PROGRAMS, verbs

ROOT = Path(__file__).resolve().parent.parent.parent


# what says where a result comes from has no part in it
LEAVE_OUT = (
    "bench.runtime.provenance",
    "bench.runtime.closure",
    "bench.runtime.known_sources",
    "bench.runtime.source_text",
    "bench.runtime.verbs",
    "bench.study.functions",
    "bench.study.rooms",
)
PROJECT = Project(ROOT, LEAVE_OUT)


KNOWN = KnownSources(ROOT)


@cache
def _digest(project: Project, roots: tuple[Key, ...], named: frozenset[Key]) -> str:
    def compute() -> str:
        return project.digest(roots, named)[:10]

    if project is not PROJECT:
        return compute()
    return KNOWN.digest(json.dumps([roots, sorted(named)]), compute)


def roots_of(verb: str) -> tuple[Key, ...]:
    """Where the code of a verb begins."""
    return (verbs()[verb].module, "work"), ("bench.runtime.verb", "main")


def source_of(verb: str, config: dict[str, Any], project: Project = PROJECT) -> str:
    """Hash of the code that a job runs, the functions that its config names included: it changes
    when any of this changes in more than prose, and with nothing else."""
    return _digest(project, roots_of(verb), functions_of(config))


def source_of_program(name: str, project: Project = PROJECT) -> str:
    """Hash of the code of a program with a command line of its own, such as collect."""
    return _digest(project, ((PROGRAMS[name], "main"),), frozenset())


def source_of_shows(
    what: str, names: Iterable[str], rules: Iterable[str], project: Project = PROJECT
) -> str:
    """Hash of the code that makes some figures or tables (what) of results whose claims are judged
    by these rules. A name that no room shows any more, as published results may have, is left to
    the program, which says so."""
    return _digest(
        project, roots_of_shows(what, names, project), frozenset(("judge", rule) for rule in rules)
    )


def roots_of_shows(what: str, names: Iterable[str], project: Project = PROJECT) -> tuple[Key, ...]:
    """Where the code of some figures or tables (what) begins."""
    shown = (project.shown(f"{PREFIXES[what]}_{name}") for name in names)
    return (PROGRAMS[what], "main"), *sorted(set().union(*shown))


# beside the modules that jobs use: what says which jobs there are
WORKFLOW = ("workflows", "Snakefile")


def _git(*words: str) -> str:
    """What git says of the working tree that begins where this project does. What the environment
    says of another repository counts for nothing, but for git's own settings. Raises OSError,
    CalledProcessError."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("GIT_") or key.startswith("GIT_CONFIG")
    }
    return subprocess.run(
        ["git", "-C", str(ROOT), *words],
        capture_output=True,
        env=environment,
        check=True,
    ).stdout.decode("utf-8", "surrogateescape")


def _is_code(path: str) -> bool:
    """Whether a new file or folder is code that jobs may use."""
    return path.split("/")[0].removesuffix(".py") in {*WORKFLOW, *KNOWN.names}


GitState = tuple[str | None, bool | None]


def git_state_now() -> GitState:
    """The commit of the working tree and whether it has changes, new files of code among them;
    (None, None) outside git, and inside a repository that is another project's."""
    try:
        commit, top = _git("rev-parse", "HEAD", "--show-toplevel").split("\n", 1)
        if not os.path.samefile(top.removesuffix("\n"), ROOT):
            return None, None
        status = _git("status", "--porcelain", "-z", "--untracked-files=normal").split("\0")
    except (OSError, subprocess.CalledProcessError):
        return None, None
    changed = any(entry and not entry.startswith("??") for entry in status)
    return commit, changed or any(_is_code(entry[3:]) for entry in status if entry)


@cache
def git_state() -> GitState:
    """The same, as it was when this process first asked: what it writes is no change of its
    code."""
    return git_state_now()


def git_state_since(start: GitState) -> GitState:
    """The commit that this process began with. Whoever moves it, or edits, while a job runs leaves
    code that may be loaded from either: that counts as changed."""
    commit, dirty = start
    return commit, (git_state_now() != start or dirty) if commit else dirty


def host_class() -> str:
    """What kind of machine this is: processor family, its maker and cores, never its name."""
    made_by = f" of {maker()}" if maker() else ""
    return f"{platform.system()} {platform.machine()}{made_by}, {os.cpu_count()} cores"


def shows_gpu() -> bool:
    """Whether this machine shows a GPU, without importing torch: by its tool, or as a container
    shows it."""
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def torch_version() -> str | None:
    """Version of torch without importing it."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return None
