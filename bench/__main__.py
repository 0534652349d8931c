"""`python -m bench` lists the verbs; `python -m bench VERB ...` runs one."""

from __future__ import annotations

import importlib
import sys

from srdd.lookup import unknown

from .runtime.verbs import PROGRAMS, verbs


def main() -> None:
    """Run the verb that is named, or list all."""
    known = verbs()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("\n".join(f"{name:20} {verb.about}" for name, verb in known.items()))
        print("\n".join(f"{name:20} see `python -m bench {name} -h`" for name in PROGRAMS))
        return
    name = sys.argv.pop(1)
    if name in PROGRAMS:
        importlib.import_module(PROGRAMS[name]).main()
        return
    if name not in known:
        sys.exit(f"error: {unknown('verb', name, [*known, *PROGRAMS])}")
    verb, runtime = known[name], importlib.import_module("bench.runtime.verb")
    work = importlib.import_module(verb.module).work
    runtime.main(name, work, inputs=verb.inputs, shared=verb.shared)


if __name__ == "__main__":
    main()
