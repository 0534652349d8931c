"""The two verbs that make figures and tables from results: every function that a suite names, and one line for each that
breaks its contract, after all others are made."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srdd.lookup import unknown

from ..study import rooms
from ..study.errors import line_of
from .caption import Caption
from .results import Results
from .view import View


def raised(error: BaseException) -> str:
    """What a function raised, in one line with its place."""
    return f"raises {type(error).__name__}: {' '.join(str(error).split())} ({line_of(error)})"


def _of_the_rows(error: BaseException) -> bool:
    """Whether an error says what is wrong with the results: every figure and table would meet it."""
    if not isinstance(error, (ValueError, OSError)):
        return False
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    bench = Path(__file__).parent.parent
    return last.is_relative_to(bench) and last.name != "show.py"


def _make(what: str, stem: Path, name: str, view: View, write: Callable) -> None:
    """Draw one figure or table and write it. Raises Unmade, one line that names its function, for one
    that raises or gives something else."""
    who = rooms.place_of_function(what, name)
    kind = "Figure" if what == "figures" else "DataFrame"
    try:
        found = rooms.function_of(what, name)(view)
        pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], (str, Caption))
        # by name, so that tables load no matplotlib
        if not pair or kind not in {one.__name__ for one in type(found[0]).__mro__}:
            words = ", ".join(type(one).__name__ for one in found) if isinstance(found, tuple) else ""
            shown = f"({words})" if isinstance(found, tuple) else type(found).__name__
            raise Unmade(f"{who}: gives {shown}; must be the pair of a {kind} and a caption")
        write(stem, found[0], Caption.of(found[1]), view.results.about.get("reduced") or "")
    except (Unmade, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if _of_the_rows(error):
            raise
        raise Unmade(f"{who}: {raised(error)}") from error


class Unmade(Exception):
    """A figure or table whose function breaks its contract."""


def run_verb(what: str, write: Callable[[Path, Any, str, str], None], argv: list[str] | None = None) -> None:
    """`python -m bench <what> ORIGIN TARGET [names...]`: make what the suites list, or what is named; an error is one line."""
    parser = argparse.ArgumentParser(prog=f"python -m bench {what}")
    parser.add_argument("origin", type=Path, help="folder with metrics.csv, runs.csv and images.npz")
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("names", nargs="*", help="only these: <name> or <suite>_<name>")
    options = parser.parse_args(argv)
    try:
        results = Results.load(options.origin)
        wanted = [(f"{suite}_{name}", suite, name) for suite, about in results.about["suites"].items() for name in about[what]]
        legal = {name for stem, _, short in wanted for name in (stem, short)}
        for name in options.names:
            if name not in legal:
                raise ValueError(unknown(what.removesuffix("s"), name, legal))
        unmade = []
        for stem, suite, name in wanted:
            if not options.names or {stem, name} & set(options.names):
                try:
                    _make(what, options.target / stem, name, View(results, suite), write)
                except Unmade as error:  # all others first
                    unmade.append(f"error: {error}")
        if unmade:
            sys.exit("\n".join(dict.fromkeys(unmade)))
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename}: no such file; run the study first, or collect its results")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
