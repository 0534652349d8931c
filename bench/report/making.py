"""The two verbs that make figures and tables from results: every function that a suite names.

A function that breaks its contract is named in one line, after all others are made.
"""

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
from .cells import too_wide
from .origins import origins_details
from .results import Results
from .view import View


def raised(error: BaseException) -> str:
    """What a function raised, in one line with its place."""
    return f"raises {type(error).__name__}: {' '.join(str(error).split())} ({line_of(error)})"


def _of_the_rows(error: BaseException) -> bool:
    """Whether an error says what is wrong with the results: every figure and table would meet
    it."""
    if not isinstance(error, (ValueError, OSError)):
        return False
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    bench = Path(__file__).parent.parent
    return last.is_relative_to(bench) and last.name != "show.py"


def _checked(what: str, value: Any) -> tuple[Any, Caption]:
    """What a function gives, a figure or table and its caption. Raises Unmade where it is another
    thing, has more words or shows more columns than a reader takes in."""
    kind = "Figure" if what == "figures" else "DataFrame"
    pair = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], (str, Caption))
    # by name, so that tables load no matplotlib
    if not pair or kind not in {base.__name__ for base in type(value[0]).__mro__}:
        parts = value if isinstance(value, tuple) else [value]
        words = ", ".join(type(part).__name__ for part in parts)
        words = f"({words})" if isinstance(value, tuple) else words
        raise Unmade(f"gives {words}; must be the pair of a {kind} and a caption")
    caption = Caption.of(value[1])
    problem = caption.too_long or (too_wide(value[0]) if what == "tables" else None)
    if problem:
        raise Unmade(f"gives {problem}")
    return value[0], caption


def _make(what: str, stem: Path, name: str, view: View, write: Callable) -> None:
    """Draw one figure or table and write it. Raises Unmade, one line that names its function, for
    one that raises or breaks its contract."""
    who = rooms.place_of_function(what, name)
    try:
        drawn, caption = _checked(what, rooms.function_of(what, name)(view.lent))
        caption = Caption(caption.text, (*caption.details, *origins_details(view)))
        write(stem, drawn, caption, view.results.about.get("reduced") or "")
    except Unmade as error:
        raise Unmade(f"{who}: {error}") from None
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        if _of_the_rows(error):
            raise
        raise Unmade(f"{who}: {raised(error)}") from error


class Unmade(Exception):
    """A figure or table whose function breaks its contract."""


def _asked(results: Results, what: str, names: list[str]) -> list[tuple[str, str, str]]:
    """File name, suite and function of every figure or table that the suites list, or of those that
    are named, as <name> or <suite>_<name>. Raises ValueError for a name that no suite lists."""
    listed = []
    for suite, about in results.about["suites"].items():
        listed += [(f"{suite}_{name}", suite, name) for name in about[what]]
    legal = {name for stem, _, short in listed for name in (stem, short)}
    for name in names:
        if name not in legal:
            raise ValueError(unknown(what.removesuffix("s"), name, legal))
    return [row for row in listed if not names or {row[0], row[2]} & set(names)]


def run_verb(what: str, write: Callable[..., None], argv: list[str] | None = None) -> None:
    """`python -m bench <what> ORIGIN TARGET [names...]`: make what the suites list, or what is
    named; an error is one line."""
    parser = argparse.ArgumentParser(prog=f"python -m bench {what}")
    parser.add_argument(
        "origin", type=Path, help="folder with metrics.csv, runs.csv and images.npz"
    )
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("names", nargs="*", help="only these: <name> or <suite>_<name>")
    options = parser.parse_args(argv)
    try:
        results, unmade = Results.load(options.origin), []
        for stem, suite, name in _asked(results, what, options.names):
            try:
                _make(what, options.target / stem, name, View(results, suite), write)
            except Unmade as error:  # all others first
                unmade.append(f"error: {error}")
        if unmade:
            sys.exit("\n".join(dict.fromkeys(unmade)))
    except FileNotFoundError as error:
        message = "no such file; run the study first, or collect its results"
        sys.exit(f"error: {error.filename}: {message}")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
