"""Peak memory of a program, seen from outside (Linux).

Anonymous memory is what a program itself allocates. Pages of mapped files count apart: the system
takes them back when it needs them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.004


@dataclass(frozen=True)
class Used:
    """What a program used: bytes of anonymous memory at most, seconds of all cores."""

    peak_bytes: int
    cpu_s: float


def anonymous_bytes(pid: int) -> int:
    """Anonymous memory of a living process now; 0 of one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")]
    return 1024 * int(sizes[0]) if sizes else 0


def used_by(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Used:
    """Run a program to its end in a folder. Raises RuntimeError with its last words where it
    fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    log = folder / f".said.{os.getpid()}"
    with open(log, "w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            words, cwd=folder, env=dict(environment), stdout=said, stderr=said
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(EVERY_S)
        said.seek(0)
        last = said.read().strip().splitlines()[-1:]
    log.unlink()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: ended with {process.returncode}: {last}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Used(peak, cpu_s)
