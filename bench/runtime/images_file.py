"""images.npz of a results folder: what the figures show, each array checked when it is read.
Imports no torch."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..study.file_sums import sum_of_file

# endings of keys and what stands there; all other keys hold (N, C, H, W)
DIMENSIONS = {"strip": "N, scales, C, H, W", "labels": "N", "classes": "classes"}
KINDS = {"labels": ("iu", "whole numbers"), "classes": ("U", "text")}


class Images(dict):
    """Arrays by key. Raises ValueError, not KeyError, for one that is not there."""

    path: Path

    def __missing__(self, key: str) -> np.ndarray:
        raise ValueError(f"{self.path}: holds no {key}; collect again")


def read_images(path: Path, sha256: str | None = None) -> Images:
    """Arrays by key. Raises ValueError naming file and key for what is damaged or no image, OSError
    for no file.

    sha256: of the file that was collected; None: nobody knows.

    Images are uint8 (N, C, H, W) with one or three channels and equal sides; strips have an axis of
    scales behind N.
    """
    if sha256 is not None and sum_of_file(path) != sha256:
        raise ValueError(
            f"{path}: holds other images than were collected beside runs.csv; bring the file back, "
            "or collect or publish again"
        )
    images = Images()
    images.path = path
    key = ""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("no archive of arrays")
            for key in file.files:
                images[key] = file[key]
                _check(key, images[key])
    except FileNotFoundError:
        raise
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
        MemoryError,
    ) as error:
        where = f"{path}: {key}" if key else str(path)
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{where}: {why}; the file is damaged, collect or fetch it again"
        ) from None
    return images


def _check(key: str, array: np.ndarray) -> None:
    """Raises ValueError for an array that its figure could not draw."""
    ending = key.rsplit("/", 1)[-1]
    axes = DIMENSIONS.get(ending, "N, C, H, W")
    kinds, words = KINDS.get(ending, ("u", "uint8"))
    if array.dtype.kind not in kinds or (ending not in KINDS and array.dtype != np.uint8):
        raise ValueError(f"{array.dtype} where {words} belong")
    if array.ndim != len(axes.split(",")):
        raise ValueError(f"shape {array.shape} is not ({axes})")
    if ending not in KINDS and (
        array.shape[-3] not in (1, 3) or array.shape[-1] != array.shape[-2] or not array.size
    ):
        raise ValueError(
            f"shape {array.shape} is not ({axes}) with one or three channels and equal sides"
        )
