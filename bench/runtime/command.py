"""The command line of a verb, and one line for what is wrong with it. Imports no torch: a wrong
word is said at once."""

from __future__ import annotations

import argparse
import errno
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..study.errors import ConfigError

MAKE = "; remove it and make it again"  # as srdd says of a file by itself


def first_role(role: str) -> str:
    """The role of an input without its number: features of features_1, which is the folder of a
    study's second extractor."""
    return re.sub(r"_[1-9][0-9]*$", "", role)


def _numbered(inputs: Sequence[str], words: Sequence[str]) -> list[str]:
    """Roles with numbers among the words of a command line, such as features_1."""
    options = (word.removeprefix("--").partition("=")[0] for word in words if word[:2] == "--")
    roles = dict.fromkeys(role for role in options if role not in inputs)
    return [role for role in roles if first_role(role) in inputs]


def read_folders(options: argparse.Namespace, inputs: Sequence[str]) -> dict[str, Path]:
    """The folders that a command line names, by role."""
    return {role: path for role, path in vars(options).items() if first_role(role) in inputs}


def parse(verb: str, inputs: Sequence[str], argv: Sequence[str] | None) -> argparse.Namespace:
    """The words of a verb's command line; argv None: those of this process."""
    parser = argparse.ArgumentParser(prog=f"python -m bench {verb}")
    parser.add_argument("config", type=Path, help="config.json of the job")
    parser.add_argument("out", type=Path, help="folder to write to")
    for name in (*inputs, *_numbered(inputs, sys.argv[1:] if argv is None else argv)):
        parser.add_argument(
            f"--{name}", type=Path, required=True, help=f"folder of the {name} that is read"
        )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=None, help="threads of torch")
    parser.add_argument(
        "--record", action="store_true", help="end a diverged run as a row with its status, exit 0"
    )
    return parser.parse_args(argv)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file. Raises ConfigError for one that is not there or is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except ValueError as error:  # no UTF-8, or no JSON
        raise ConfigError(f"{path}: not readable as JSON ({error})") from None


def read_row(folder: Path) -> dict[str, Any]:
    """How a job ended, its row.json. Raises ConfigError, with what to do, for one that is damaged
    or not there."""
    path = folder / "row.json"
    again = f"delete {folder} and run what makes it again"
    try:
        row = read_json(path)
    except ConfigError as error:
        raise ConfigError(f"{error}; {again}") from None
    if not isinstance(row, dict) or not {"run_id", "status"} <= row.keys():
        raise ConfigError(f"{path}: names no run and no status; {again}")
    return row


def with_remedy(text: str, folders: Iterable[Path]) -> str:
    """A message about a file in the folder of a job that is read, with what makes that file again:
    no other job looks whether it is there."""
    for folder in folders:
        if f"{folder}/" in text and "; delete " not in text:
            return f"{text.removesuffix(MAKE)}; delete {folder} and run what makes it again"
    return text


def check(verb: str, inputs: Sequence[str]) -> None:
    """Leave with one line for a command line of this process whose files cannot be read."""
    options = parse(verb, inputs, None)
    try:
        read_json(options.config)
        for folder in read_folders(options, inputs).values():
            read_row(folder)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {describe(error)}")


def describe(error: BaseException) -> str:
    """One line, with a remedy for what a full or closed disk says."""
    text = " ".join(str(error).split())
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return (
            f"{text}: the disk is full; free some space and run the same command again, it resumes"
        )
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        what = "written" if number == errno.EROFS else "read or written"
        return f"{text}: cannot be {what}; give another results folder or change its rights"
    return text
