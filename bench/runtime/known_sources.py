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
from .closure import FOLDERS, source_files
from .rows import written_whole

# `from NAME.x import y` and `import NAME.x as y, OTHER`, wherever in a line a statement may begin
WORD = rb"[\w\x80-\xff]"
IMPORT = re.compile(
    rb"(?:^|[;:])[ \t]*(?:"
    rb"from[ \t]+(" + WORD + rb"+)(?:" + WORD + rb"|[ \t.])*[ \t]import\b|"
    rb"import[ \t]+((?:" + WORD + rb"|[ \t.,])+))"
)
FIRST_WORD = re.compile(rb"(?<![.\w\x80-\xff])" + WORD + rb"+")
DIGEST = re.compile(r"[0-9a-f]{10}")
MOST_KEPT = 32  # texts of the project, the newest ones; some 25 KB each


def _imported(text: bytes) -> set[str]:
    """First words of what a source text may import; too many rather than too few."""
    words: set[bytes] = set()
    for line in re.sub(rb"\\\r?\n", b" ", text).split(b"\n"):
        if b"import" in line:
            for one, several in IMPORT.findall(line):
                words.update(FIRST_WORD.findall(one or several))
    return {word.decode("utf-8", "replace") for word in words}


def source_texts(root: Path) -> dict[str, bytes]:
    """Every source file below a folder that a job may use, by its path: those of the project, and
    what these import that lies beside it. Folders of images and results are not looked into.
    Raises OSError."""
    texts: dict[str, bytes] = {}
    todo, known = set(FOLDERS), set[str]()
    while todo:
        name = todo.pop()
        known.add(name)
        for path in source_files(root, name):
            text = path.read_bytes()
            texts[path.relative_to(root).as_posix()] = text
            todo |= _imported(text) - known
    return texts


def text_digest(texts: dict[str, bytes]) -> str:
    """sha256 of source files, by name and content, and of Python's version, whose syntax trees
    differ."""
    summed = hashlib.sha256(sys.version.encode())
    for name, content in sorted(texts.items()):
        summed.update(f"{name} {len(content)}\n".encode("utf-8", "surrogateescape"))
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
    def _first_look(self) -> tuple[str | None, set[str]]:
        """`text` and `names`, by reading the sources once."""
        try:
            texts = source_texts(self.root)
        except OSError:
            return None, set(FOLDERS)
        return text_digest(texts), {path.split("/")[0].removesuffix(".py") for path in texts}

    @property
    def text(self) -> str | None:
        """The text that is read now; None where it cannot be read."""
        return self._first_look[0]

    @property
    def names(self) -> set[str]:
        """First words of the modules whose text is read."""
        return self._first_look[1]

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
            if self.text is None or text_digest(source_texts(self.root)) != self.text:
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
