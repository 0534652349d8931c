"""CIFAR-10 as its authors publish it for any language: the binary version, without pickle.

Five training files and one test file of 10 000 records: a byte of the label, then 3 072 bytes of
pixels, plane by plane (red, green, blue), each of 32 rows.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import numpy as np

from ..study.contents import cache_folder
from ..study.errors import ConfigError, place_of, shown
from ..study.file_sums import sum_of_file

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
URL = "https://www.cs.toronto.edu/~kriz/"
ARCHIVE = "cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = "test_batch.bin"
RECORDS, SIDE = 10_000, 32
RECORD = 1 + 3 * SIDE * SIDE


def read_cifar10(path: str | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images uint8 (N, 3, 32, 32) and labels of the parts `train` and `test`.

    path: the archive, a folder that holds it, or the folder that it unpacks; None: the cache, where
    it is downloaded once. Raises ConfigError for what is not there or is no CIFAR-10.
    """
    archive_or_folder = cifar10_path(path)
    if archive_or_folder.is_dir():
        files = {name: (archive_or_folder / name).read_bytes() for name in (*TRAIN, TEST)}
    else:
        files = _unpacked(archive_or_folder)
    parts = {name: records(data, name) for name, data in files.items()}
    images, labels = zip(*(parts[name] for name in TRAIN))
    return {"train": (np.concatenate(images), np.concatenate(labels)), "test": parts[TEST]}


def records(data: bytes, name: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one file of so many records, 10 000 where no number is given. Raises
    ConfigError for another length and for a label that is no class."""
    count = RECORDS if count is None else count
    if len(data) != count * RECORD:
        raise ConfigError(
            f"dataset.path: {shown(name)} holds {len(data)} bytes, {count} records of {RECORD} "
            "bytes are expected; fetch the binary version of CIFAR-10 again"
        )
    table = np.frombuffer(data, np.uint8).reshape(count, RECORD)
    if table[:, 0].max() >= len(CLASSES):
        raise ConfigError(
            f"dataset.path: {shown(name)} holds the label {table[:, 0].max()}, 0 to 9 are legal; "
            "fetch the binary version of CIFAR-10 again"
        )
    return table[:, 1:].reshape(count, 3, SIDE, SIDE).copy(), table[:, 0].astype(np.int64)


def _unpacked(archive: Path) -> dict[str, bytes]:
    """The six files of the archive, which is checked by its sum first. Raises ConfigError."""
    if (sha256 := sum_of_file(archive)) != SHA256:
        raise ConfigError(
            f"dataset.path: {shown(archive)}: sha256 is {sha256}, {SHA256} is expected; fetch "
            f"{ARCHIVE} again"
        )
    with tarfile.open(archive, "r:gz") as members:
        return {name: _member(members, archive, name) for name in (*TRAIN, TEST)}


def _member(members: tarfile.TarFile, archive: Path, name: str) -> bytes:
    """One file of the archive. Raises ConfigError where it is not there."""
    try:
        stream = members.extractfile(f"{FOLDER}/{name}")
    except KeyError:
        stream = None
    if stream is None:
        raise ConfigError(f"dataset.path: {shown(archive)} holds no {name}; fetch {ARCHIVE} again")
    return stream.read()


# ---------------------------------------------------------------- where it lies


def cifar10_path(path: str | None) -> Path:
    """The archive, or the folder of its unpacked files; downloaded where no path is given. Raises
    ConfigError."""
    if path is None:
        return fetch_cifar10()[0]
    given = place_of(path, "dataset.path")
    for folder in (given, given / FOLDER):
        if (folder / TEST).is_file():
            lacking = [name for name in TRAIN if not (folder / name).is_file()]
            if lacking:
                raise ConfigError(
                    f"dataset.path: {shown(folder)} holds no {lacking[0]}; unpack {ARCHIVE} there"
                )
            return folder
    for archive in (given, given / ARCHIVE):
        if archive.is_file():
            return archive
    raise ConfigError(
        f"dataset.path: {shown(given)} holds no {ARCHIVE}; put it there, or leave path out"
    )


def fetch_cifar10() -> list[Path]:
    """The archive in the cache, downloaded once and checked. Raises ConfigError."""
    import pooch  # with its HTTP client 0.4 s to import, and hardly ever needed

    folder = cache_folder() / "cifar10"
    try:
        file = pooch.retrieve(
            URL + ARCHIVE, f"sha256:{SHA256}", ARCHIVE, folder, progressbar=sys.stderr.isatty()
        )
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:  # our disk, not their server
            raise
        words = " ".join(str(error).split())
        raise ConfigError(
            f"dataset.path: CIFAR-10 is not here and {ARCHIVE} cannot be downloaded ({words}); "
            f"put it into {folder}, or set dataset.path to it"
        ) from None
    return [Path(file)]
