"""Snakemake, begun without looking for garbage: its imports and a plan make many objects and hardly
any garbage, and to look through them takes half of the time that it needs to start. The workflow
turns it on before the first job. Imports no torch.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn


def refuse_unreadable(words: list[str]) -> None:
    """End with one line that names the study and what is wrong with it, where snakemake would say
    of no file that it is not valid, or raise what its parser raises."""
    # which the Snakefile imports too
    from ..study.errors import ConfigError
    from ..study.study_file import one_line, read_yaml

    for word in words:
        option, _, name = word.partition("=")
        if option != "--configfile" or not name:
            continue
        try:
            read_yaml(Path(name))
        except ConfigError as error:
            print(f"error: {one_line(f'{name}: {error}')}", file=sys.stderr, flush=True)
            sys.exit(2)  # nothing needs to be added


def refuse_words(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """End with one line for words that snakemake does not know, not with all of its options."""
    known = parser._option_string_actions  # by name; argparse lists them nowhere else
    # other messages name an option that is right, before a value that is not
    words = message.split() if message.startswith("unrecognized") else []
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    for option in options:
        if near := difflib.get_close_matches(option, known, 1):
            message += f"; did you mean {near[0]}?"
            break
    print(f"error: {message} (`./run snakemake -h` lists all)", file=sys.stderr, flush=True)
    sys.exit(2)


if __name__ == "__main__":
    gc.disable()
    argparse.ArgumentParser.error = refuse_words  # type: ignore[method-assign, assignment]
    try:
        refuse_unreadable(sys.argv[1:])
        import_module("snakemake.cli").main()
    except KeyboardInterrupt:  # while it plans; `./run` says that it was stopped
        os._exit(130)
    finally:
        gc.freeze()  # the end of the process frees all of it
