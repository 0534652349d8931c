"""Progress with time left.

A bar on a terminal, whole prefixed lines elsewhere, so that parallel jobs stay readable.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_EVERY_S = 10.0


def clock(seconds: float) -> str:
    """Seconds as 45 s, 3:20 min or 2:05 h."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


class Progress:
    """Count up to `total` under a label."""

    def __init__(
        self, label: str, total: int, done: int = 0, unit: str = "step", shown: bool = True
    ) -> None:
        self.label, self.total, self.done, self.first, self.unit = label, total, done, done, unit
        self.began = self.said = time.monotonic()
        self.shown = shown
        self.bar: tqdm | None = None
        if shown and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, desc=label, unit=unit, leave=False)

    def advance(self, count: int = 1, note: str = "") -> None:
        """After `count` more; note: what else the line says."""
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
        elif self.shown and time.monotonic() - self.said >= LINE_EVERY_S:
            self._say(note)

    def _say(self, note: str) -> None:
        """One line, with the time left at the mean pace since this process began."""
        self.said = time.monotonic()
        pace = (self.said - self.began) / max(1, self.done - self.first)
        left = clock(pace * (self.total - self.done))
        note = f", {note}" if note else ""
        line = f"[{self.label}] {self.unit} {self.done}/{self.total}{note}, {left} left"
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def track(items: Iterable[T], label: str, total: int, unit: str = "batch") -> Iterator[T]:
    """Iterate with progress."""
    progress = Progress(label, total, unit=unit)
    for item in items:
        yield item
        progress.advance()
    progress.close()
