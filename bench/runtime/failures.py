"""Who works in a folder, and what went wrong: the lines that matter, below all that snakemake says.

Needs nothing but Python.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .publishing import shown

# the module by which `./run` begins snakemake
PLANNER = "bench.runtime.planner"


def living_snakemake(place: Path) -> list[int]:
    """Process numbers of the living snakemakes that work in a folder (Linux; elsewhere none is
    seen).

    A snakemake that carries out a job of another one, as on the node of a cluster, is none: it may
    outlive that one, and who runs the job again waits for it.
    """
    numbers = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            folder = Path(os.readlink(process / "cwd"))
        except OSError:
            continue
        names = [Path(os.fsdecode(word)).name for word in words[:3]]
        # `python -m snakemake` or `snakemake`, not `python run snakemake`
        begun = names[1:2] == ["-m"] and names[2:] in (["snakemake"], [PLANNER])
        is_snakemake = begun or "snakemake" in names[:2]
        if folder == place and is_snakemake and b"--mode" not in words:
            numbers.append(int(process.name))
    return numbers


@contextmanager
def at_work(place: Path) -> Iterator[IO]:
    """The file by which runs in a folder see each other: whoever inherits it holds what is locked
    by it, and the system gives that up when the last holder dies, however it dies, also on
    another machine of a shared disk.

    Raises OSError where the folder cannot be written.
    """
    folder = place / ".snakemake"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "run.lock", "a") as file:
        yield file


def somebody(place: Path, file: IO, patience_s: float = 5.0) -> list[int] | None:
    """Process numbers of others that work in a folder, as far as they are known; None when nobody
    does.

    A process that was killed holds its lock until the system has put it away: others are believed
    after some seconds only.
    """
    end = time.monotonic() + patience_s
    while True:
        numbers = living_snakemake(place)
        if not numbers and _alone(file):
            return None
        if time.monotonic() > end:
            return numbers
        time.sleep(0.1)


def _alone(file: IO) -> bool:
    """Whether nobody else holds the lock; where the disk knows none, what /proc shows has to do."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def share(file: IO) -> None:
    """Let others hold the lock too: two runs with nothing in common may go on side by side."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        pass


def what_failed(place: Path, began: float, others: list[int]) -> list[str]:
    """Lines that say why a run that began at a time (seconds since 1970) failed, the cause before
    its consequences."""
    lines = _of_the_disk(place)
    own = _written_since(place / ".snakemake" / "log", "*.log", began)
    for log in own:
        text = log.read_text(encoding="utf-8", errors="replace")
        if "cannot be locked" in text:
            who = f" (process {others[0]})" if others else ""
            lines.append(
                f"error: another run{who} makes the same files in {place}; wait for it or stop it, "
                "then run this again"
            )
        if "Write-protected output files" in text and not lines:
            lines.append(
                f"error: {place / 'results'}: cannot be written; change its rights, then run the "
                "same command again"
            )
    for pattern in ("*/*/*/log.txt", "*/logs/*.txt", "*/full/logs/*.txt", "*/suites/*/logs/*.txt"):
        for log in _written_since(place / "results", pattern, began):
            lines += _last_words(log)
    lines = list(dict.fromkeys(lines))
    if not lines and not own:  # such as for an option that it cannot read
        return ["error: snakemake could not begin; its last lines above say why"]
    return lines or [
        "error: snakemake could not finish; its last lines above say why, and the same command "
        "goes on from here"
    ]


def ended_badly(row: Mapping[str, str], file: Path) -> str:
    """One line for a job that did not end well, by its row, which lies in a file. One that ran out
    of memory may find more: without its row, and with its checkpoint, it goes on."""
    line = f"error: {row['run_id']} {row['status']}: {row['reason']}"
    if row["status"] != "oom":
        return line
    return f"{line}; to try again, delete {file} and give the same command"


def _of_the_disk(place: Path) -> list[str]:
    """A disk with no room left, or one that nobody may write to."""
    for folder in (path for path in (place / "results", place) if path.is_dir()):
        if not os.access(folder, os.W_OK):
            return [
                f"error: {folder}: cannot be written; change its rights, then run the same command "
                "again"
            ]
        if shutil.disk_usage(folder).free < 2**16:
            return [
                f"error: {folder}: the disk is full; free some space and run the same command "
                "again, it resumes"
            ]
    return []


def _written_since(folder: Path, pattern: str, began: float) -> list[Path]:
    return [path for path in sorted(folder.glob(pattern)) if path.stat().st_mtime >= began]


def _last_words(log: Path) -> list[str]:
    """The last line of a job's log where it says what is wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines:
        return []
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        return [f"error: {shown(log)}: {lines[-1]} (a fault of the program; the log says where)"]
    return [line for line in lines if line.startswith("error: ")][-1:]
