"""The sum of a file's content. Imports no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sum_of_file(path: Path) -> str:
    """sha256 of a file as it lies there now, in hex digits. Raises OSError."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
