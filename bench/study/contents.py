"""What files hold, by content: the spelling of a path,
its age and its machine are no part of any name. Imports no torch.

A file is known by its sha256, a folder by the names, sizes and sums of its visible files. Sums are
kept in a cache by path, size and time, so that a large folder is read once. Without a cache (no
home, no right to write) all are read each time.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from .errors import ConfigError, place_of, shown
from .file_sums import sum_of_file

FOLDERS = ("image_folder", "paired_folder")  # datasets that are the images of a folder
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

SYSTEM = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
MANY = 5000  # files to read before their number is said
FRESH_NS = 2_000_000_000  # a file this young may change again within the resolution of its time

Stamp = tuple[int, int]  # size in bytes, time of the last change in ns


def cache_folder() -> Path:
    """Where downloads and sums are kept: $SRDD_CACHE, or ~/.cache/srdd, or a temporary folder."""
    given = os.environ.get("SRDD_CACHE") or "~/.cache/srdd"
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:  # a container whose user has no home
        return Path(tempfile.gettempdir()) / f"srdd-{os.getuid()}"


# ---------------------------------------------------------------- folders


def is_hidden(name: str) -> bool:
    """Whether a name is hidden, or a leftover of an operating system."""
    return name.startswith(".") or name in SYSTEM or name.lower() in SYSTEM_FILES


def children(folder: Path, skipped: Counter[str]) -> tuple[list[Path], list[Path]]:
    """Visible folders and files of a folder, links followed, in order of their bytes; what is left
    out is counted in `skipped`.

    Raises ConfigError for a folder that cannot be read and for a link to nothing.
    """
    folders, files = [], []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise ConfigError(f"{shown(folder)}: cannot be read ({error.strerror})") from None
    for entry in entries:
        if is_hidden(entry.name):
            skipped["hidden"] += 1
        elif entry.is_dir():
            folders.append(folder / entry.name)
        elif entry.is_file():
            files.append(folder / entry.name)
        elif entry.is_symlink():
            raise ConfigError(
                f"{shown(folder / entry.name)}: a link to nothing; repair or remove it"
            )
        else:
            skipped["no plain file"] += 1
    return folders, files


def walk(
    folder: Path, skipped: Counter[str], above: frozenset[str] | None = None
) -> Iterator[Path]:
    """Every visible file below a folder; a link back to a folder above, also of the folder itself,
    is left out and counted."""
    real = os.path.realpath(folder)
    if above is None:  # of where it lies, and of where it leads as a link
        place = Path(os.path.realpath(folder.parent))
        above = frozenset(map(str, (place, *place.parents, *Path(real).parents))) - {real}
    if real in above:
        skipped["link to a folder above"] += 1
        return
    folders, files = children(folder, skipped)
    yield from files
    for child in folders:
        yield from walk(child, skipped, above | {real})


# ---------------------------------------------------------------- sums


def stamp_of(path: Path) -> Stamp:
    """Size and newest time of a file: that of its inode too,
    which a copy that keeps its age cannot set back."""
    about = os.stat(path)
    return about.st_size, max(about.st_mtime_ns, about.st_ctime_ns)


def _sum_now(path: Path) -> bytes:
    return bytes.fromhex(sum_of_file(path))


class SumCache:
    """Sums of files by folder, name, size and time, in one file of SQLite;
    one that cannot be used is as an empty one."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / "sums.sqlite"

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(self.path, timeout=5)
        base.execute(
            "create table if not exists sums (folder blob, name blob, size integer, time integer, "
            "sum blob, "
            "primary key (folder, name)) without rowid"
        )
        return base

    def known(self, stamps: dict[Path, Stamp]) -> dict[Path, bytes]:
        """The sums of those files whose size and time are as they were."""
        folders: dict[Path, list[Path]] = {}
        for path in stamps:
            folders.setdefault(path.parent, []).append(path)
        sums = {}
        try:
            with closing(self._open()) as base:
                for folder, paths in folders.items():
                    rows = base.execute(
                        "select name, size, time, sum from sums where folder = ?", (_real(folder),)
                    )
                    kept = {name: (size, time_ns, value) for name, size, time_ns, value in rows}
                    for path in paths:
                        size, time_ns, value = kept.get(os.fsencode(path.name), (None, None, b""))
                        if (size, time_ns) == stamps[path] and len(value) == 32:
                            sums[path] = value
        except (sqlite3.Error, OSError):
            return {}
        return sums

    def keep(self, sums: dict[Path, bytes], stamps: dict[Path, Stamp]) -> None:
        """Remember sums, but for files so young that they may change unseen."""
        young = time.time_ns() - FRESH_NS
        parents = {path.parent for path in sums}
        folders = {folder: _real(folder) for folder in parents}
        rows = [
            (folders[path.parent], os.fsencode(path.name), *stamps[path], value)
            for path, value in sums.items()
            if stamps[path][1] < young
        ]
        if not rows:
            return
        try:
            with closing(self._open()) as base, base:
                base.executemany("insert or replace into sums values (?, ?, ?, ?, ?)", rows)
        except (sqlite3.Error, OSError):
            return


def _real(folder: Path) -> bytes:
    return os.fsencode(os.path.realpath(folder))


def sums_of(paths: Sequence[Path], cache: SumCache | None = None) -> list[bytes]:
    """sha256 of each file, read only where size or time are new.
    Raises ConfigError for one that cannot be read."""
    cache = cache or SumCache()
    path = None
    try:
        stamps = {path: stamp_of(path) for path in paths}
        sums = cache.known(stamps)
        new = [path for path in stamps if path not in sums]
        if len(new) > MANY:
            print(
                f"reading {len(new)} files once, to know them by their content ...",
                file=sys.stderr,
                flush=True,
            )
        with ThreadPoolExecutor() as pool:
            fresh = dict(zip(new, pool.map(_sum_now, new)))
    except OSError as error:
        raise ConfigError(
            f"{shown(error.filename or path or '')}: cannot be read ({error.strerror})"
        ) from None
    cache.keep(fresh, stamps)
    sums |= fresh
    return [sums[path] for path in paths]


def file_sum(path: Path) -> str:
    """sha256 of one file in hex digits, by the cache."""
    return sums_of([path])[0].hex()


def digest_of_files(root: Path, paths: Iterable[Path]) -> str:
    """One sum for the names, sizes and contents of files below a root, wherever it lies."""
    paths = sorted(paths, key=lambda path: os.fsencode(path.relative_to(root)))
    digest = hashlib.sha256()
    for path, value in zip(paths, sums_of(paths)):
        name = os.fsencode(path.relative_to(root))
        digest.update(len(name).to_bytes(4, "big") + name + value)
    return digest.hexdigest()


def content_of(path: Path, suffixes: Iterable[str] = ()) -> str | None:
    """The digest of a file, or of the visible files below a folder with one of the suffixes (all
    without any); None where nothing is.

    Raises ConfigError for what cannot be read.
    """
    if path.is_file():
        return file_sum(path)
    if not path.is_dir():
        return None
    wanted = set(suffixes)
    files = [file for file in walk(path, Counter()) if not wanted or file.suffix.lower() in wanted]
    return digest_of_files(path, files)


class Contents:
    """What the files that a study names are known by, each looked at once.

    known: digests by path as an earlier plan found them, for files that are not here now; trusted:
    of the plan that started this process, which are not looked at again.
    """

    def __init__(self, known: dict[str, str] | None = None, trusted: bool = False) -> None:
        self.known, self.trusted = dict(known or {}), trusted
        self.digests: dict[str, str] = {}

    def of(self, path: str, key: str, suffixes: Iterable[str] = ()) -> str | None:
        """The digest behind a path; None for one that was never seen.
        Raises ConfigError for what cannot be read."""
        if self.trusted and path in self.known:
            self.digests[path] = self.known[path]
        if path not in self.digests:
            digest = content_of(place_of(path, key), suffixes) or self.known.get(path)
            if digest is None:
                return None
            self.digests[path] = digest
        return self.digests[path]


def suffixes_read(dataset: str) -> tuple[str, ...]:
    """Which files of its folder a dataset reads; empty: any."""
    return IMAGE_SUFFIXES if dataset in FOLDERS else ()
