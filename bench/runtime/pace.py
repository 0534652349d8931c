"""How far a run is: one line a finished job, and about how long the rest will take.

Who shows the lines hands in what happened, and when.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .progress import clock

# the time that each process needs before it works: published times are without
START_UP_S = 2.0
# so many seconds count as worked at full width before anything was measured
PRIOR_S = 60.0
# collecting, figures, tables and the report have no published time
SHOW_S = 6.0
SHOWS = ("collect", "figures", "tables", "report")
LEFT = re.compile(r"(?:(\d+):)?(\d+) (s|min|h) left$")
UNIT_S = {"s": 1, "min": 60, "h": 3600}


def about(seconds: float) -> str:
    """A time that is only guessed: 20 s, 7 min, 2.5 h."""
    if seconds < 55:
        return f"{max(10, 10 * round(seconds / 10))} s"
    if seconds < 90 * 60:
        return f"{max(1, round(seconds / 60))} min"
    return f"{round(seconds / 1800) / 2:g} h"


def seconds_left(line: str) -> float | None:
    """The time left that a line of `bench.runtime.progress` ends with; None where it says none."""
    match = LEFT.search(line)
    if not match:
        return None
    more, number, unit = match.groups()
    if more is None:
        return float(number) * UNIT_S[unit]
    return int(more) * UNIT_S[unit] + int(number) * UNIT_S[unit] / 60


def stage_of(name: str) -> str:
    """train/<job> is of stage train, figures_main of stage figures."""
    stage, slash, _ = name.partition("/")
    return stage if slash else next((show for show in SHOWS if name.startswith(f"{show}_")), name)


def times_before(file: Path, finished: Path | None = None) -> dict[str, float]:
    """Seconds of every job of a runs.csv with the start of its process; empty where there is none.

    finished: the folder of results, whose finished jobs are left out.
    """
    try:
        # settings stand in this file too, in cells of any length
        csv.field_size_limit(2**31 - 1)
        with open(file, encoding="utf-8", newline="") as stream:
            rows = [(row["run_id"], row["wall_s"]) for row in csv.DictReader(stream)]
        times = {run_id: float(wall_s) + START_UP_S for run_id, wall_s in rows if wall_s}
    except (OSError, KeyError, ValueError, csv.Error):
        return {}
    if finished is None:
        return times
    return {name: s for name, s in times.items() if not (finished / name / "row.json").is_file()}


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None


@dataclass
class Pace:
    """About how long the rest of a run takes.

    waiting: jobs that have not begun, by stage; before: what jobs took on another day, in seconds;
    alone: stages whose jobs have the machine for themselves; width: cores.
    """

    waiting: Counter[str]
    began: float
    before: Mapping[str, float] = field(default_factory=dict)
    alone: frozenset[str] = frozenset()
    width: int = 1
    running: dict[str, float] = field(default_factory=dict)
    taken: dict[str, float] = field(default_factory=dict)
    peak: float = 1.0

    def start(self, name: str, now: float) -> None:
        """A job begins."""
        self.waiting[stage_of(name)] -= 1
        self.running[name] = now
        self.peak = max(self.peak, sum(map(self._weight, self.running)))

    def finish(self, name: str, seconds: float) -> None:
        """A job has ended, well or not."""
        self.running.pop(name, None)
        self.taken[name] = seconds

    def _weight(self, name: str) -> int:
        return self.width if stage_of(name) in self.alone else 1

    @property
    def speed(self) -> float:
        """Seconds here for a second of the times before."""
        known = [name for name in self.taken if name in self.before]
        measured = sum(self.taken[name] for name in known)
        return (measured + PRIOR_S) / (sum(self.before[name] for name in known) + PRIOR_S)

    def cost(self, stage: str, name: str = "") -> float | None:
        """About how many seconds a job takes; None where nothing like it was ever measured."""
        if name in self.before:
            return self.before[name] * self.speed
        mean = _mean(s for job, s in self.before.items() if stage_of(job) == stage)
        if mean is not None:
            return mean * self.speed
        mean = _mean(s for job, s in self.taken.items() if stage_of(job) == stage)
        return SHOW_S if mean is None and stage in SHOWS else mean

    def left(self, now: float, said: Mapping[str, float] | None = None) -> tuple[float, bool]:
        """Seconds left, and whether all stages were measured: another one counts as the mean job.

        said: seconds left that running jobs tell themselves.
        """
        said = said or {}
        costs = {stage: self.cost(stage) for stage, count in self.waiting.items() if count > 0}
        spent = {name: now - start for name, start in self.running.items()}
        last = {name: self.cost(stage_of(name), name) for name in spent}
        last |= {name: spent[name] + seconds for name, seconds in said.items() if name in spent}
        for name, seconds in last.items():
            if costs.get(stage_of(name), 0.0) is None:
                costs[stage_of(name)] = seconds
        mean = _mean(self.taken.values()) or SHOW_S
        rest = sum(
            (mean if s is None else s) * self.waiting[k] * self._weight(k) for k, s in costs.items()
        )
        rest += sum(
            max(0.0, (mean if s is None else s) - spent[name]) * self._weight(name)
            for name, s in last.items()
        )
        whole = None not in costs.values() and None not in last.values()
        return rest / self._at_once(now, spent), whole

    def _at_once(self, now: float, spent: Mapping[str, float]) -> float:
        """Seconds of jobs that a second has brought so far."""
        done = sum(s * self._weight(name) for name, s in [*self.taken.items(), *spent.items()])
        return max(0.1, (done + PRIOR_S * self.peak) / (max(0.0, now - self.began) + PRIOR_S))

    def left_in_words(self, now: float, said: Mapping[str, float] | None = None) -> str:
        """About how long the rest takes, or what is known of it."""
        seconds, whole = self.left(now, said)
        return f"about {about(seconds)} left" if whole else f"at least {about(seconds)} left"


def job_line(done: int, total: int, what: str, seconds: float, left: str) -> str:
    """What is said of a finished job."""
    counted = f"[{done:>{len(str(total))}}/{total}]"
    return f"{counted} {what}: {clock(seconds)}" + (f"; {left}" if left else "")


def failure_lines(
    what: str,
    seconds: float,
    log: Path | None,
    reason: str | None = None,
    logs: Iterable[str] = (),
    most: int = 30,
) -> list[str]:
    """What is said of a job that failed: the end of its log, and where the log is.

    reason, logs: what a cluster says of it, and where it wrote that; most: lines of the log.
    """
    first = f"error: {what} failed after {clock(seconds)}"
    try:
        text = log.read_text(encoding="utf-8", errors="replace").splitlines() if log else []
    except OSError:
        text = []
    if text:
        end = "all" if len(text) <= most else f"the last {most} lines"
        lines = [f"{first}; {end} of {log}:", *(f"    {line}" for line in text[-most:])]
    else:
        lines = [f"{first}; its log is empty: {log}" if log else first]
    return lines + ([f"    {reason}"] if reason else []) + [f"    see also {path}" for path in logs]


def last_line(log: Path, most: int = 4096) -> str:
    """The last whole line of a log that is being written; empty where there is none."""
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, log.stat().st_size - most))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")
