"""One process at a time for the folder of a job. Imports no torch."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .kept_files import SNAPSHOTS

# temporary names of ours, with the number of a process, and of safetensors
HALF = re.compile(r"\..+\.[0-9]+\.tmp|\.tmp[A-Za-z0-9]{6}")


@contextmanager
def alone(folder: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Wait until no other process works in a folder, and keep others out meanwhile; gives whether
    there was one.

    A workflow that was killed may leave a job behind that still writes; the same job, started
    again, would write beside it. The system gives the lock up when its holder dies. Where the disk
    knows no locks, or the folder cannot be written, nobody waits. What a killed holder left half
    written is put away.
    """
    try:
        file = open(folder / ".lock", "a+", encoding="utf-8")
    except OSError:
        yield False
        return
    waited = False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(
                f"process {file.read() or '?'} of an earlier run still works on this job; waiting "
                "until it ends"
            )
            fcntl.flock(file, fcntl.LOCK_EX)
            waited = True
        except OSError:
            pass
        _sign(file)
        for half in _halves(folder):
            half.unlink(missing_ok=True)
        yield waited


def _halves(folder: Path) -> list[Path]:
    """What a killed job left half written. Only where jobs write: whoever gives a folder of their
    own may have others below it, with files that other programs write just now."""
    paths = [path for place in (folder, folder / SNAPSHOTS) for path in place.glob(".*")]
    return [path for path in paths if HALF.fullmatch(path.name) and path.is_file()]


def _sign(file: TextIO) -> None:
    """Leave the number of the holder for who waits; a full disk is no reason to stop here."""
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except OSError:
        pass
