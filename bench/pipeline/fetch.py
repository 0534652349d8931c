"""Fetch a set of images before a study needs it: `python -m bench data NAME`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from srdd.lookup import unknown

from ..study.errors import ConfigError
from .cifar import fetch_cifar10
from .fetch_emoji import make_emoji

SETS: dict[str, Callable[[], list[Path]]] = {"emoji": make_emoji, "cifar10": fetch_cifar10}
USAGE = f"./run data NAME (there are: {', '.join(SETS)})"


def main() -> None:
    """Fetch the set that is named, check it, and say where it lies."""
    if {"-h", "--help"} & set(sys.argv):
        print(USAGE)
        return
    if len(sys.argv) != 2:
        sys.exit(f"error: give one set of images: {USAGE}")
    if sys.argv[1] not in SETS:
        sys.exit(f"error: {unknown('set of images', sys.argv[1], SETS)}")
    try:
        for path in SETS[sys.argv[1]]():
            print(path)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(
            f"error: {error.filename or 'the cache'}: {error.strerror or error}; change its "
            "rights, free some space or set SRDD_CACHE"
        )
