"""What scores are held against: the held-out split, or a file of the study.

The file of features.reference, such as ADM's for ImageNet, is an .npz. It holds mu and sigma, the
mean and covariance of Inception's features, and perhaps arr_0, uint8 images (N, S, S, 3), which are
streamed and never all in memory.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from srdd.noise import generator

from ..runtime.verb import check_file
from ..study.checks import MIN_IMAGES
from ..study.errors import ConfigError
from ..study.settings import FeaturesConfig
from .artefacts import open_split
from .datasets import AnyImages, LabelledSource

DAMAGE = (ValueError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass
class StreamedImages:
    """Images arr_0 of an .npz, read from the first to the last as often as wanted."""

    path: Path
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._open()

    def _open(self) -> None:
        """Begin with the first image."""
        self.archive = zipfile.ZipFile(self.path)
        self.stream = self.archive.open("arr_0.npy")
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        read_header = readers[np.lib.format.read_magic(self.stream)]
        self.shape, column_major, dtype = read_header(self.stream)
        if dtype != np.uint8 or column_major or len(self.shape) != 4 or self.shape[3] != 3:
            raise ValueError(
                f"arr_0 is {dtype} of shape {self.shape}; uint8 of shape (N, S, S, 3) is needed"
            )
        self.at = 0

    def _restart(self) -> None:
        """A stream of a compressed file cannot be wound back: it is opened anew."""
        self.stream.close()
        self.archive.close()
        self._open()

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 of shape (len(indices), 3, S, S) of the images that come next; from image 0 the
        stream starts again."""
        if len(indices) and indices[0] == 0:
            self._restart()
        assert list(indices) == list(range(self.at, self.at + len(indices))), (
            "a stream is read in its order"
        )
        self.at += len(indices)
        shape = (len(indices), *self.shape[1:])
        data = self.stream.read(int(np.prod(shape)))
        return torch.from_numpy(
            np.frombuffer(data, np.uint8).reshape(shape).transpose(0, 3, 1, 2).copy()
        )


@dataclass(frozen=True)
class Reference:
    """Images that a set is compared with; statistics: mu (D,) and sigma (D, D), float64, that FID
    takes instead of theirs."""

    images: AnyImages
    statistics: dict[str, np.ndarray] | None = None


class GivenReference(NamedTuple):
    """What a file of features.reference holds; images: None without."""

    images: StreamedImages | None
    statistics: dict[str, np.ndarray]


def read_reference(config: FeaturesConfig) -> GivenReference:
    """The file features.reference, which is given.

    Raises ConfigError, one line with what does not fit.
    """
    assert config.reference is not None
    path = check_file(config.reference, config.reference_sha256, "features.reference")
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := {"mu", "sigma"} - set(file.files):
                raise ValueError(
                    f"holds {sorted(file.files)}, {sorted(missing)} missing; mu and sigma are "
                    "needed"
                )
            mu_D, sigma_DD = (np.asarray(file[name], np.float64) for name in ("mu", "sigma"))
            images = StreamedImages(path) if "arr_0" in file.files else None
        D = config.dim
        if mu_D.shape != (D,) or sigma_DD.shape != (D, D):
            raise ValueError(
                f"mu has shape {mu_D.shape} and sigma {sigma_DD.shape}; features.dim {D} needs "
                f"({D},) and ({D}, {D})"
            )
        if not (np.isfinite(mu_D).all() and np.isfinite(sigma_DD).all()):
            raise ValueError("mu or sigma is not finite")
    except DAMAGE as error:
        raise ConfigError(f"features.reference: {path}: {' '.join(str(error).split())}") from None
    return GivenReference(images, {"mu": mu_D, "sigma": sigma_DD})


def open_reference(config: FeaturesConfig, data: Path) -> Reference:
    """What a study's scores are held against; held-out images where the given file has none. data:
    the folder of the images."""
    if config.reference is None:
        return Reference(open_split(data, "test"))
    given = read_reference(config)
    images = open_split(data, "test") if given.images is None else given.images
    return Reference(images, given.statistics)


# ---------------------------------------------------------------- halves


@dataclass(frozen=True)
class Chosen:
    """Some images of a split with their labels, read from it when they are asked for."""

    images: LabelledSource
    rows_N: np.ndarray

    @property
    def labels_N(self) -> np.ndarray:
        return np.asarray(self.images.labels_N)[self.rows_N]

    def __len__(self) -> int:
        return len(self.rows_N)

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """As the split's own `read`, of the chosen images by their place among them."""
        return self.images.read(self.rows_N[np.asarray(indices, np.int64)].tolist())


def half_rows(labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two halves of a split, ascending, by chance but always the same: every class to
    within one image, no image in both."""
    labels_N = np.asarray(labels_N)
    mixed = torch.randperm(len(labels_N), generator=generator("reference halves")).numpy()
    order = mixed[np.argsort(labels_N[mixed], kind="stable")]
    return np.sort(order[0::2]), np.sort(order[1::2])


def halves(reference: Reference) -> tuple[Reference, Reference] | None:
    """A reference in two halves, so that a setting is tuned on one and scored on the other; None
    where a half would be too small for a score.

    A file of statistics cannot be taken apart: both halves are then the whole, and captions say so.
    """
    images = reference.images
    if reference.statistics is not None:
        return reference, reference
    if not isinstance(images, LabelledSource):
        raise ValueError("a reference without labels has no halves of equal classes")
    first, second = half_rows(images.labels_N)
    if min(len(first), len(second)) < MIN_IMAGES:
        return None
    return Reference(Chosen(images, first)), Reference(Chosen(images, second))
