"""The degraded images of a folder of pairs, as files that are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..study.contents import content_of, stamp_of, suffixes_read, sums_of
from ..study.errors import ConfigError, shown
from .datasets import FileImages, Recorded
from .paired_folder import degraded_path

CHUNK = 64  # images that are decoded together


def refuse_damaged(loaded: dict[str, object], root: Path) -> None:
    """Raises ValueError that names the first degraded partner which cannot be decoded: a header
    that is whole tells a size, and not that the rest can be read."""
    for part in loaded.values():
        if isinstance(part, FileImages):
            paths = [degraded_path(path, root) for path in part.paths]
            partners = replace(part, paths=paths)
            for i in range(0, len(paths), CHUNK):
                partners.array(range(i, min(i + CHUNK, len(paths))))


def partners_of(images: FileImages, root: Path, content: str | None) -> FileImages:
    """The degraded partners of prepared images, which stay as they are while they are read.

    content: the digest of the folder of pairs that the results are known by; None: of nobody's
    plan. Raises ConfigError for a folder of another digest.
    """
    paths = [degraded_path(path, root) for path in images.paths]
    stamps = np.array([stamp_of(path) for path in paths], np.int64).reshape(-1, 2)
    sums_N = np.frombuffer(b"".join(sums_of(paths)), np.uint8).reshape(-1, 32)
    # after the stamps: what changes from now on has another one
    if content is not None and content_of(root, suffixes_read("paired_folder")) != content:
        raise ConfigError(
            f"dataset.path: the files at {shown(root)} have changed since this run was planned; "
            "run the same command again"
        )
    return replace(images, paths=paths, recorded=Recorded(stamps[:, 0], stamps[:, 1], sums_N))
