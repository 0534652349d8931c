"""Pictures: where they lie, how they are split, how they are read. A dataset is a function `load_<name>`.

The splits: `train` and `val` (for early stopping) are seen in training, `test` never. Where a set has no test part of its own, a
picture's side is decided by a hash of its pixels (arrays) or of its relative path (folders): no seed, no order, and two
equal pictures in an array always lie on the same side.
"""

from __future__ import annotations

import gzip
import hashlib
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .config import ConfigError, DatasetConfig

SPLITS = ("train", "val", "test")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
# sha256 of the unpacked files: two gzips of one file differ
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@dataclass(frozen=True)
class ArrayPictures:
    """Pictures in memory or mapped from a file: images_NCHW and labels_N."""

    images_NCHW: np.ndarray
    labels_N: np.ndarray

    def __len__(self) -> int:
        return len(self.labels_N)

    def read(self, indices: Sequence[int], crop_seed: int | None = None) -> torch.Tensor:
        """uint8 of shape (len(indices), C, S, S)."""
        return torch.from_numpy(self.images_NCHW[np.asarray(indices)].copy())


@dataclass(frozen=True)
class FilePictures:
    """Pictures in files, decoded when they are read."""

    paths: list[Path]
    labels_N: np.ndarray
    image_size: int
    channels: int

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int], crop_seed: int | None = None) -> torch.Tensor:
        """uint8 of shape (len(indices), C, S, S); a crop seed gives every picture a random crop, none the centre."""
        with ThreadPoolExecutor() as pool:
            rows = pool.map(lambda i: read_picture(self.paths[i], self.image_size, self.channels, crop_seed, i), indices)
            return torch.from_numpy(np.stack(list(rows)))


Pictures = ArrayPictures | FilePictures


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 to float in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Float in [-1, 1] to uint8, rounded."""
    return images.clamp(-1, 1).add(1).mul_(127.5).round_().to(torch.uint8)


def read_picture(path: Path, size: int, channels: int, crop_seed: int | None = None, index: int = 0) -> np.ndarray:
    """Decode, resize the short side to 1.125 x size (LANCZOS, as VAR does), crop. Raises ValueError naming a damaged file."""
    try:
        with Image.open(path) as file:
            picture = file.convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: damaged picture ({error}); repair or remove it") from None
    short = round(1.125 * size)
    scale = short / min(picture.size)
    width, height = (max(short, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    if crop_seed is None:
        left, top = (width - size) // 2, (height - size) // 2
    else:
        rng = np.random.default_rng((crop_seed, index))
        left, top = int(rng.integers(width - size + 1)), int(rng.integers(height - size + 1))
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1).copy()


def _share(data: bytes, salt: str) -> float:
    return int.from_bytes(hashlib.sha256(salt.encode() + data).digest()[:8], "big") / 2**64


def split_arrays(
    images: np.ndarray, labels: np.ndarray, config: DatasetConfig, test: ArrayPictures | None = None
) -> dict[str, Pictures]:
    """Split by a hash of each picture's pixels; a set with its own test part keeps it."""
    shares = np.array([[_share(image.tobytes(), salt) for salt in ("test", "val")] for image in images])
    held_out = np.zeros(len(images), bool) if test is not None else shares[:, 0] < config.test_share
    val = ~held_out & (shares[:, 1] < config.val_share)
    train = np.flatnonzero(~held_out & ~val)[: config.train_images]
    parts = {"train": ArrayPictures(images[train], labels[train]), "val": ArrayPictures(images[val], labels[val])}
    return {**parts, "test": test or ArrayPictures(images[held_out], labels[held_out])}


def _pad_to(images: np.ndarray, size: int) -> np.ndarray:
    """Zero borders up to a square of `size`."""
    extra = size - images.shape[-1]
    if extra < 0:
        raise ConfigError(f"dataset.image_size: {size} is smaller than the pictures' {images.shape[-1]}")
    before = extra // 2
    return np.pad(images, ((0, 0), (0, 0), (before, extra - before), (before, extra - before)))


def load_digits(config: DatasetConfig) -> dict[str, Pictures]:
    """1 797 handwritten digits of 8x8 pixels, 17 grey levels, 10 classes (bundled with scikit-learn)."""
    from sklearn.datasets import load_digits as bundled

    digits = bundled()
    images = np.rint(digits.images[:, None] * (255 / 16)).astype(np.uint8)
    return split_arrays(_pad_to(images, config.image_size), digits.target.astype(np.int64), config)


def load_fashion_mnist(config: DatasetConfig) -> dict[str, Pictures]:
    """70 000 garments of 28x28 grey pixels, 10 classes (arXiv 1708.07747), padded with zeros; its own 10 000 are the test part.

    Looked for in config.path, then where Debian's package dataset-fashion-mnist puts it, then downloaded; checked by sha256.
    """
    arrays = {name: _read_idx(_fashion_file(name, config)) for name in FASHION_FILES}
    train_x, train_y, test_x, test_y = arrays.values()
    pad = lambda x: _pad_to(x[:, None], config.image_size)  # noqa: E731
    test = ArrayPictures(pad(test_x), test_y.astype(np.int64))
    return split_arrays(pad(train_x), train_y.astype(np.int64), config, test)


def _fashion_file(name: str, config: DatasetConfig) -> bytes:
    if config.path is not None:
        folder = Path(config.path).expanduser()
        if not (folder / name).is_file():
            raise ConfigError(
                f"dataset.path: {folder} holds no {name}; put Fashion-MNIST's four .gz files there, or leave path out"
            )
    else:
        folder = DEBIAN_FASHION if (DEBIAN_FASHION / name).is_file() else Path("data/fashion-mnist")
        if not (folder / name).is_file():
            _download(FASHION_URL + name, folder / name)
    try:
        data = gzip.decompress((folder / name).read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"{folder / name}: damaged ({error}); remove it and run again") from None
    if (found := hashlib.sha256(data).hexdigest()) != FASHION_FILES[name]:
        raise ValueError(f"{folder / name}: sha256 of its content is {found}, {FASHION_FILES[name]} expected; remove it")
    return data


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    try:
        urllib.request.urlretrieve(url, temporary)  # noqa: S310 (a constant https address)
        temporary.rename(path)
    except OSError as error:
        raise ConfigError(
            f"dataset.path: Fashion-MNIST is not here and cannot be downloaded ({error}); install Debian's package "
            "dataset-fashion-mnist, or set dataset.path to a folder with its four .gz files"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _read_idx(data: bytes) -> np.ndarray:
    """The array of an idx file: two zero bytes, type 8 (uint8), rank, sides, values."""
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_image_folder(config: DatasetConfig) -> dict[str, Pictures]:
    """A folder of pictures: one sub-folder a class, or flat without classes (num_classes 0); resized and cropped as VAR does.

    Fits ImageNet, MiniImageNet, SUN397, FFHQ, AFHQ. Folders named train and val (or test) are taken as the split.
    """
    if config.path is None:
        raise ConfigError("dataset.path: is missing; image_folder needs the folder of the pictures")
    root = Path(config.path).expanduser()
    if not root.is_dir():
        raise ConfigError(f"dataset.path: no folder at {root}")
    own = root / "train" if (root / "train").is_dir() else None
    held = next((root / name for name in ("val", "test") if own and (root / name).is_dir()), None)
    classes = sorted(p.name for p in (own or root).iterdir() if p.is_dir()) if config.num_classes else []
    if len(classes) != config.num_classes:
        raise ConfigError(
            f"dataset.num_classes: {config.num_classes} does not fit the {len(classes)} class folders of {own or root}"
        )
    parts: dict[str, tuple[list[Path], list[int]]] = {split: ([], []) for split in SPLITS}
    for folder, split in ((own or root, None), *(((held, "test"),) if held else ())):
        for path, label in _walk(folder, classes):
            paths, labels = parts[split or _side(path.relative_to(root), config, held is None)]
            paths.append(path)
            labels.append(label)
    if config.train_images is not None:  # some of every class: paths come in order of their classes
        paths, labels = parts["train"]
        order = sorted(range(len(paths)), key=lambda i: _share(paths[i].relative_to(root).as_posix().encode(), "train"))
        chosen = sorted(order[: config.train_images])
        parts["train"] = [paths[i] for i in chosen], [labels[i] for i in chosen]
    for split, (paths, _) in parts.items():
        if not paths:
            raise ConfigError(
                f"dataset.path: {root} gives no pictures for the split {split}; too few pictures or shares too small"
            )
    return {
        split: FilePictures(paths, np.array(labels, np.int64), config.image_size, config.channels)
        for split, (paths, labels) in parts.items()
    }


def _walk(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    places = [(folder / name, label) for label, name in enumerate(classes)] or [(folder, 0)]
    found = []
    for place, label in places:
        if not place.is_dir():
            raise ConfigError(f"dataset.path: no class folder {place}")
        found += [(path, label) for path in sorted(place.rglob("*")) if path.suffix.lower() in SUFFIXES]
    return found


def _side(relative: Path, config: DatasetConfig, split_test: bool) -> str:
    name = relative.as_posix().encode()
    if split_test and _share(name, "test") < config.test_share:
        return "test"
    return "val" if _share(name, "val") < config.val_share else "train"
