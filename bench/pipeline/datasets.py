"""Images: where they lie, how they are split, how they are read.

A dataset is a function `load_<name>(config)`.

It returns a dict of the splits `train`, `val` and `test` (uint8 images and integer labels), and
perhaps the names of the `classes`. `train` and `val` (for early stopping) are seen in training,
`test` never. Where a set has no test part of its own, an image's side follows from a hash of its
content (bench/pipeline/splits.py).
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ..study.checks import MIN_IMAGES
from ..study.contents import cache_folder, stamp_of, sums_of
from ..study.errors import ConfigError, place_of, shown
from ..study.settings import DatasetConfig
from .image_folder import ImageFolder, read_folder, skipped_words
from .paired_folder import load_paired_folder  # noqa: F401  found here by its name
from .read_image import read_image
from .splits import array_keys, group_keys, joined, sides, some_of_all, with_all_classes

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "val", "test")
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
# md5 of the published files, as torchvision lists them: whether a download is whole
FASHION_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
# sha256 of the unpacked files, wherever they come from: two gzips of one file differ
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@dataclass(frozen=True)
class ArrayImages:
    """SplitImages in memory or mapped from a file: images_NCHW and labels_N."""

    images_NCHW: np.ndarray
    labels_N: np.ndarray

    def __len__(self) -> int:
        return len(self.labels_N)

    def read(self, indices: Sequence[int], crop_seed: int | None = None) -> torch.Tensor:
        """uint8 of shape (len(indices), C, S, S)."""
        return _tensor(self.array(indices))

    def array(self, indices: Sequence[int]) -> np.ndarray:
        """The same without torch."""
        return self.images_NCHW[np.asarray(indices)].copy()


@dataclass(frozen=True)
class Recorded:
    """Size, time and sha256 of each file when it was prepared."""

    sizes_N: np.ndarray
    times_N: np.ndarray
    sums_N: np.ndarray

    def check(self, i: int, path: Path) -> None:
        """Raises ValueError for a file that is not what was prepared; one that only has another age
        is read to compare."""
        try:
            if stamp_of(path) == (self.sizes_N[i], self.times_N[i]):
                return
            same = hashlib.sha256(path.read_bytes()).digest() == self.sums_N[i].tobytes()
        except OSError as error:
            raise ConfigError(
                f"{shown(path)}: cannot be read ({error.strerror}); put it back or run the study "
                "again"
            ) from None
        if not same:
            raise ConfigError(
                f"{shown(path)}: has changed since it was prepared; run the study again, it "
                "prepares anew"
            )


@dataclass(frozen=True)
class FileImages:
    """Images in files, decoded when they are read; crop and background as of `read_image`."""

    paths: list[Path]
    labels_N: np.ndarray
    image_size: int
    channels: int
    crop: bool = True
    background: int | tuple[int, int, int] = 255
    recorded: Recorded | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int], crop_seed: int | None = None) -> torch.Tensor:
        """uint8 of shape (len(indices), C, S, S); a crop seed gives every image a random crop, none
        the centre.

        Raises ValueError naming a file that is damaged or is not what was prepared.
        """
        return _tensor(self.array(indices, crop_seed))

    def array(self, indices: Sequence[int], crop_seed: int | None = None) -> np.ndarray:
        """The same without torch."""
        with ThreadPoolExecutor() as pool:
            rows = pool.map(lambda i: self._one(i, crop_seed), indices)
            return np.stack(list(rows))

    def _one(self, i: int, crop_seed: int | None) -> np.ndarray:
        if self.recorded is not None:
            self.recorded.check(i, self.paths[i])
        return read_image(
            self.paths[i], self.image_size, self.channels, crop_seed, i, self.crop, self.background
        )


SplitImages = ArrayImages | FileImages


@runtime_checkable
class ImageSource(Protocol):
    """Images uint8 (N, C, S, S) that are read when they are asked for, some at a time."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int], /) -> torch.Tensor: ...


@runtime_checkable
class LabelledSource(ImageSource, Protocol):
    """Images that have labels."""

    @property
    def labels_N(self) -> np.ndarray: ...


AnyImages = np.ndarray | ImageSource


def _tensor(array: np.ndarray) -> torch.Tensor:
    import torch  # not needed to prepare and to collect

    return torch.from_numpy(array)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 to float in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Float in [-1, 1] to uint8, rounded."""
    return images.clamp(-1, 1).add(1).mul_(127.5).round_().byte()


def split_arrays(
    images: np.ndarray, labels: np.ndarray, config: DatasetConfig, test: ArrayImages | None = None
) -> dict[str, SplitImages]:
    """Split by a hash of each image's pixels; a set with its own test part keeps it."""
    keys, pixels = array_keys(images), (image.tobytes() for image in images)
    by_hash = sides(pixels, 0.0 if test is not None else config.test_share, config.val_share)
    side_N = np.array(with_all_classes(by_hash, keys, np.asarray(labels).tolist()), dtype="<U5")
    train, val, held_out = (np.flatnonzero(side_N == part) for part in SPLITS)
    train = train[
        some_of_all([keys[i] for i in train], labels[train].tolist(), config.train_images)
    ]
    parts = {
        "train": ArrayImages(images[train], labels[train]),
        "val": ArrayImages(images[val], labels[val]),
    }
    return {**parts, "test": test or ArrayImages(images[held_out], labels[held_out])}


def _pad_to(images: np.ndarray, size: int) -> np.ndarray:
    """Zero borders up to a square of `size`."""
    extra = size - images.shape[-1]
    if extra < 0:
        raise ConfigError(
            f"dataset.image_size: {size} is smaller than the images' {images.shape[-1]}; "
            f"give {images.shape[-1]} or more"
        )
    before = extra // 2
    return np.pad(images, ((0, 0), (0, 0), (before, extra - before), (before, extra - before)))


def _area_mean(images: np.ndarray, size: int) -> np.ndarray:
    """Square images reduced to `size`: the mean over the area of each new pixel, halves rounded up.

    Exact on every machine: shares of pixels are integers, and float32 holds their sums.
    """
    old = images.shape[-1]
    # borders of the pixels of both grids, in 1 / (old * size)
    new, was = np.arange(size + 1) * old, np.arange(old + 1) * size
    overlap = np.minimum(new[1:, None], was[None, 1:]) - np.maximum(new[:-1, None], was[None, :-1])
    share = np.maximum(overlap, 0).astype(np.float32)
    sums = (share @ (images.astype(np.float32) @ share.T)).astype(np.int64)
    return ((2 * sums + old * old) // (2 * old * old)).astype(np.uint8)


def load_digits(config: DatasetConfig) -> dict[str, SplitImages]:
    """1 797 handwritten digits of 8x8 pixels, 17 grey levels, 10 classes (bundled with
    scikit-learn)."""
    from sklearn.datasets import load_digits as bundled

    digits = bundled()
    images = np.rint(digits.images[:, None] * (255 / 16)).astype(np.uint8)
    return split_arrays(_pad_to(images, config.image_size), digits.target.astype(np.int64), config)


def load_fashion_mnist(config: DatasetConfig) -> dict[str, object]:
    """70 000 garments of 28x28 grey pixels, 10 classes (arXiv 1708.07747); its own 10 000 are the
    test part.

    A larger image_size pads with zeros, a smaller one takes the mean over each new pixel's area.
    Sides follow from the pixels after that: training images that become equal stay on one side.
    Looked for in config.path, then where Debian's package dataset-fashion-mnist puts it, then
    downloaded into $SRDD_CACHE; checked by sha256.
    """
    arrays = {name: _read_idx(_fashion_file(name, config)) for name in FASHION_FILES}
    train_x, train_y, test_x, test_y = arrays.values()
    fit = _area_mean if config.image_size < train_x.shape[-1] else _pad_to
    train, held_out = (fit(x[:, None], config.image_size) for x in (train_x, test_x))
    test = ArrayImages(held_out, test_y.astype(np.int64))
    return {
        **split_arrays(train, train_y.astype(np.int64), config, test),
        "classes": list(FASHION_CLASSES),
    }


def _fashion_file(name: str, config: DatasetConfig) -> bytes:
    """The content of one of the four files, checked by sha256."""
    path = _fashion_path(name, config)
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it and run again") from None
    if (sha256 := hashlib.sha256(data).hexdigest()) != FASHION_FILES[name]:
        raise ValueError(
            f"{path}: sha256 of its content is {sha256}, {FASHION_FILES[name]} expected; remove it"
        )
    return data


def _fashion_path(name: str, config: DatasetConfig) -> Path:
    """Where one of the four files lies, downloaded where it lies nowhere. Raises ConfigError."""
    if config.path is None:
        packaged = DEBIAN_FASHION / name
        return packaged if packaged.is_file() else _download_fashion(name)
    path = place_of(config.path, "dataset.path") / name
    if not path.is_file():
        raise ConfigError(
            f"dataset.path: {path.parent} holds no {name}; "
            "put Fashion-MNIST's four .gz files there, or leave path out"
        )
    return path


def _download_fashion(name: str) -> Path:
    """One of the four files in the cache, downloaded once. Raises ConfigError."""
    import pooch  # with its HTTP client 0.4 s to import, and hardly ever needed

    folder = cache_folder() / "fashion-mnist"
    try:
        return Path(
            pooch.retrieve(
                FASHION_URL + name, f"md5:{FASHION_MD5[name]}", name, folder,
                progressbar=sys.stderr.isatty(),
            )
        )  # fmt: skip
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:  # our disk, not their server
            raise
        words = " ".join(str(error).split())
        raise ConfigError(
            f"dataset.path: Fashion-MNIST is not here and {name} cannot be downloaded ({words}); "
            "install Debian's package dataset-fashion-mnist, or set dataset.path to a folder "
            "with its four .gz files"
        ) from None


def _read_idx(data: bytes) -> np.ndarray:
    """The array of an idx file: two zero bytes, type 8 (uint8), rank, sides, values."""
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_emoji(config: DatasetConfig) -> dict[str, object]:
    """5 234 drawn emoji, no photographs, of 32 or 64 pixels in three styles, 9 classes.

    Split by what an emoji means: 3 918 train, 205 val, 1 111 test. `./run data emoji` draws them.
    """
    from .emoji import CLASSES, read_emoji

    parts = read_emoji(config.image_size)
    images, labels = parts["train"]
    chosen = some_of_all(array_keys(images), labels.tolist(), config.train_images)
    parts["train"] = images[chosen], labels[chosen]
    splits = {split: ArrayImages(*part) for split, part in parts.items()}
    return {**splits, "classes": list(CLASSES.values())}


def load_cifar10(config: DatasetConfig) -> dict[str, object]:
    """60 000 photographs of 32x32 pixels, 10 classes; its own 10 000 are the test part.

    From config.path (archive or unpacked), or downloaded into $SRDD_CACHE; checked by sha256.
    """
    from .cifar import CLASSES, read_cifar10

    parts = read_cifar10(config.path)
    images = {split: _pad_to(pixels, config.image_size) for split, (pixels, _) in parts.items()}
    test = ArrayImages(images["test"], parts["test"][1])
    splits = split_arrays(images["train"], parts["train"][1], config, test)
    return {**splits, "classes": list(CLASSES)}


def load_image_folder(config: DatasetConfig) -> dict[str, object]:
    """A folder of images: one sub-folder a class, or any without classes (num_classes 0); resized
    and cropped as VAR does.

    Fits ImageNet, MiniImageNet, SUN397, FFHQ, AFHQ. Parts train, val (valid, validation) and test
    are taken as the split; else the side follows from the content of each file.
    """
    if config.path is None:
        raise ConfigError("dataset.path: is missing; image_folder needs the folder of the images")
    root = place_of(config.path, "dataset.path")
    if not root.is_dir():
        raise ConfigError(f"dataset.path: no folder at {shown(root)}")
    folder = read_folder(root, config.num_classes)
    groups = _groups_of(folder, config.group)
    parts = _split_folder(folder, config, groups)
    for split, (paths, _) in parts.items():
        if not paths:
            left_out, count = skipped_words(folder.skipped), sum(len(p) for p, _ in parts.values())
            raise ConfigError(
                f"dataset.path: {shown(root)} gives no images for the split {split} of {count}; "
                + (
                    f"add images or merge classes: each of {count} keeps one to train on"
                    if count == len(folder.classes)
                    else f"add images (scores need {MIN_IMAGES} to train on and as many held out), "
                    f"or raise dataset.{split}_share where there is one"
                )
                + (f", or too few groups: dataset.group finds {_count(groups)}" if groups else "")
                + (f" (left out: {left_out})" if left_out else "")
            )
    reading = (config.image_size, config.channels, config.crop, config.background)
    splits = {
        split: FileImages(paths, np.array(labels, np.int64), *reading)
        for split, (paths, labels) in parts.items()
    }
    notes = {
        "skipped": folder.skipped,
        "below": folder.below,
        "groups": _group_words(parts, groups),
    }
    return {**splits, "classes": folder.classes, **notes}


def _split_folder(
    folder: ImageFolder, config: DatasetConfig, groups: dict[Path, bytes]
) -> dict[str, tuple[list[Path], list[int]]]:
    """The parts that a folder has; what is whole is split by content, and by group where the study
    names one."""
    parts = {split: folder.parts.get(split, ([], [])) for split in SPLITS}
    paths, labels = folder.parts.get("whole") or folder.parts["train"]
    keys = joined(sums_of(paths), [groups.get(path) for path in paths])
    own_test, own_val = "test" in folder.parts, "val" in folder.parts
    where = sides(
        keys, 0.0 if own_test else config.test_share, 0.0 if own_val else config.val_share
    )
    where = with_all_classes(where, keys, labels)
    for split in SPLITS:
        mine = [i for i, side in enumerate(where) if side == split]
        if split == "train":
            chosen = some_of_all(
                [keys[i] for i in mine], [labels[i] for i in mine], config.train_images
            )
            mine = [mine[i] for i in chosen]
        if split not in folder.parts or split == "train":
            parts[split] = [paths[i] for i in mine], [labels[i] for i in mine]
    return parts


def _groups_of(folder: ImageFolder, pattern: str | None) -> dict[Path, bytes]:
    """The group of each image of a folder that is in one.

    Raises ConfigError for a pattern that finds none.
    """
    if pattern is None:
        return {}
    paths = [path for of_part, _ in folder.parts.values() for path in of_part]
    names = [path.relative_to(folder.root).as_posix() for path in paths]
    keys = group_keys(names, pattern)
    groups = {path: key for path, key in zip(paths, keys) if key is not None}
    if paths and not groups:
        raise ConfigError(
            f"dataset.group: {pattern!r} finds nothing in any path, such as {shown(names[0])}"
        )
    return groups


def _count(groups: dict[Path, bytes]) -> str:
    return f"{len(set(groups.values()))} groups of {len(groups)} images"


def _group_words(parts: dict[str, tuple[list[Path], list[int]]], groups: dict[Path, bytes]) -> str:
    """How many groups there are, images in none, and images whose group is also trained on: parts
    of a folder's own stay as they are."""
    if not groups:
        return ""
    words, trained = [_count(groups)], {groups.get(path) for path in parts["train"][0]} - {None}
    if alone := sum(path not in groups for paths, _ in parts.values() for path in paths):
        words.append(f"{alone} images in no group")
    for split in ("val", "test"):
        if torn := sum(groups.get(path) in trained for path in parts[split][0]):
            words.append(
                f"{torn} {split} images of groups that are trained on (the folder's own parts are "
                "kept)"
            )
    return ", ".join(words)
