"""`python -m bench` lists the verbs; `python -m bench VERB ...` runs one."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from srdd.lookup import unknown

from .runtime import command
from .runtime.verbs import PROGRAMS, verbs


def _collecting_garbage(work: Callable[..., Any]) -> Callable[..., Any]:
    """Work that begins to collect garbage. What was imported before stays until the end: to look
    through it again and again takes a third of the time that torch takes to import."""

    def begin(*words: Any) -> Any:
        gc.freeze()
        gc.enable()
        return work(*words)

    return begin


def main() -> None:
    """Run the verb that is named, or list all."""
    known = verbs()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("\n".join(f"{name:20} {verb.about}" for name, verb in known.items()))
        print("\n".join(f"{name:20} see `python -m bench {name} -h`" for name in PROGRAMS))
        return
    name = sys.argv.pop(1)
    if name in PROGRAMS:
        _collecting_garbage(importlib.import_module(PROGRAMS[name]).main)()
        return
    if name not in known:
        sys.exit(f"error: {unknown('verb', name, [*known, *PROGRAMS])}")
    verb = known[name]
    # of several processes one says what is wrong, which verb.main sees to
    if "RANK" not in os.environ:
        command.check(name, verb.inputs)
    runtime = importlib.import_module("bench.runtime.verb")
    work = importlib.import_module(verb.module).work
    runtime.main(name, _collecting_garbage(work), inputs=verb.inputs, shared=verb.shared)


if __name__ == "__main__":
    gc.disable()
    try:
        main()
    finally:
        gc.freeze()  # the end of the process frees all of it
