"""The error of a user: one line that names file or key, value and remedy.
Imports nothing of this project."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

MOST_LETTERS = 200  # of a path in a message
PROJECT = Path(__file__).resolve().parents[2]


class ConfigError(ValueError):
    """What is wrong with a study, in one line: file, key, value, remedy."""


def place_of(path: str | Path, key: str) -> Path:
    """A path of a study with its `~` replaced. Raises ConfigError for a home that does not exist,
    and for a path that the system does not look up."""
    if "\0" in str(path):
        raise ConfigError(f"{key}: {str(path)!r} holds a null character, no path does")
    try:
        return within_reach(Path(path).expanduser(), key)
    except RuntimeError:
        user = str(path).split("/", 1)[0]
        why = "HOME is not set" if user == "~" else "a slash may be missing after ~"
        raise ConfigError(f"{key}: {path}: no such home ({why}); write the whole path") from None


def within_reach(place: Path, key: str) -> Path:
    """The same path. Raises ConfigError where the system does not say whether anything is there: a
    folder above it cannot be entered, or a name is too long."""
    try:
        place.exists()
    except OSError as error:
        text = shown(place)
        text = text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."
        raise ConfigError(
            f"{key}: {text}: cannot be looked up ({error.strerror}); change its rights or the path"
        ) from None
    return place


def line_of(error: BaseException) -> str:
    """Where an error was raised: file and line, for whoever wrote that function. What it called of
    a package says nothing to him: the last place in the project counts, if there is one."""
    calls = traceback.extract_tb(error.__traceback__)
    inside = [call for call in calls if _in_project(Path(call.filename))]
    last = (inside or calls)[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"


def _in_project(file: Path) -> bool:
    """Whether a file is of this project, and not of a package installed below it."""
    return file.is_relative_to(PROJECT) and "site-packages" not in file.parts


def raised(error: BaseException, folder: Path) -> str:
    """What a function raised, in one line with the last place in a folder that it passed, for
    whoever wrote what lies there."""
    calls = traceback.extract_tb(error.__traceback__)
    inside = [call for call in calls if Path(call.filename).is_relative_to(folder)]
    last = (inside or calls)[-1]
    words = " ".join(str(error).split())
    return (
        f"raises {type(error).__name__}: {words} ({Path(last.filename).name}, line {last.lineno})"
    )


def shown(name: str | bytes | Path) -> str:
    """A name of a file for people: what is no UTF-8 is escaped, and so are line breaks."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
