"""Hashes of code that earlier processes computed, kept by the content of all source files.

To follow what a job uses takes longer than to read all of the project's text, and every plan and
every job asks for it. What is kept is true of exactly one text, so nothing is ever out of date, and
copies of the project share it. Where nothing can be kept, all is computed. Imports no torch.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import re
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from ..study.contents import cache_folder
from .rows import written_whole

FOLDERS = ("srdd", "bench")
DIGEST = re.compile(r"[0-9a-f]{10}")
MOST_KEPT = 32  # texts of the project, the newest ones; some 25 KB each


def text_digest(root: Path) -> str:
    """sha256 of all source files below a folder, by name and content, and of Python's version,
    whose syntax trees differ. Raises OSError."""
    summed = hashlib.sha256(sys.version.encode())
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        content = path.read_bytes()
        summed.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        summed.update(content)
    return summed.hexdigest()


def _read(file: Path) -> dict[str, str]:
    """What a file keeps; nothing where it is damaged or not there."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {
        question: digest
        for question, digest in kept.items()
        if isinstance(digest, str) and DIGEST.fullmatch(digest)
    }


class KnownSources:
    """The kept hashes of one project."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # beside downloads and sums, and not beside compiled modules, which many containers ask
        # Python not to write
        self.folder = cache_folder() / "sources"
        self.new: dict[str, str] = {}

    @cached_property
    def text(self) -> str | None:
        """The text that is read now; None where it cannot be read."""
        try:
            return text_digest(self.root)
        except OSError:
            return None

    @cached_property
    def kept(self) -> dict[str, str]:
        """What earlier processes found of this text."""
        return _read(self.folder / f"{self.text}.json") if self.text else {}

    def digest(self, question: str, compute: Callable[[], str]) -> str:
        """The hash that answers a question, computed where nobody has yet."""
        if question in self.kept:
            return self.kept[question]
        if not self.new:
            atexit.register(self.keep)
        self.new[question] = compute()
        return self.new[question]

    def keep(self) -> None:
        """Leave what is new to later processes, unless a file was edited meanwhile; a full or
        closed disk is no reason to stop here."""
        try:
            if self.text is None or text_digest(self.root) != self.text:
                return
            file = self.folder / f"{self.text}.json"
            with written_whole(file) as temporary:
                merged = {**_read(file), **self.new}
                temporary.write_text(json.dumps(merged, sort_keys=True), encoding="utf-8")
            self._forget()
        except OSError:
            return

    def _forget(self) -> None:
        """Remove all but the newest files."""
        files = sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in files[:-MOST_KEPT]:
            file.unlink(missing_ok=True)
