"""The contract of a loader, the user's own or not, checked once.

What breaks it is said in one line that names the function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..study.contents import FOLDERS
from ..study.errors import ConfigError, place_of, shown
from ..study.settings import DatasetConfig
from .datasets import SPLITS, ArrayImages, FileImages, SplitImages
from .image_folder import listed

WORDS = "{'train': ..., 'val': ..., 'test': ...}, each ArrayImages or FileImages"
KEYS = (*SPLITS, "classes")
NOTES = (
    "skipped",
    "below",
    "groups",
)  # of folders alone, for the one line that prepare says
READING = (
    "image_size",
    "channels",
    "crop",
    "background",
)  # what FileImages must take from the study
Refuse = Callable[[str], NoReturn]


def check_splits(
    returned: object, config: DatasetConfig
) -> tuple[dict[str, SplitImages], list[str]]:
    """Splits and names of the classes of what a loader returned.

    Raises ConfigError, one line with the loader's name.
    """

    def refuse(text: str) -> NoReturn:
        raise ConfigError(f"bench/pipeline/datasets.py: load_{config.name}: {text}")

    if not isinstance(returned, dict):
        refuse(f"returns {type(returned).__name__}; it must return {WORDS}")
    if not set(SPLITS) <= returned.keys():
        refuse(f"returns {sorted(map(str, returned))}; it must return {WORDS}")
    legal = {*KEYS, *(NOTES if config.name in FOLDERS else ())}
    if unread := [str(key) for key in returned if key not in legal]:
        refuse(f"returns also {listed(unread)}, which nothing reads (legal: {', '.join(KEYS)})")
    splits = {split: returned[split] for split in SPLITS}
    for split, images in splits.items():
        if not isinstance(images, (ArrayImages, FileImages)):
            refuse(f"{split} is {type(images).__name__}; it must return {WORDS}")
        if type(images) not in (ArrayImages, FileImages):
            refuse(
                f"{split} is {type(images).__name__}, whose own methods nothing calls; it must "
                f"return {WORDS}"
            )
        if isinstance(images, ArrayImages):
            _check_images(images.images_NCHW, split, config, refuse)
        else:
            _check_files(images, split, config, refuse)
        _check_labels(images, split, config, refuse)
        if not len(images):
            key = "val" if split == "val" else "test"
            raise ConfigError(f"dataset.{key}_share: leaves no image for the split {split}")
    _check_count(len(splits["train"]), config, refuse)
    if len({type(images) for images in splits.values()}) > 1:
        refuse("returns arrays for one split and files for another; return one kind")
    classes = _classes(returned.get("classes"), splits, config, refuse)
    if not config.num_classes:  # labels of a set that is used without them
        splits = {
            split: replace(images, labels_N=np.zeros(len(images), np.int64))
            for split, images in splits.items()
        }
    return splits, classes


def _check_count(count: int, config: DatasetConfig, refuse: Refuse) -> None:
    """Raises ConfigError for a training split of other than the asked number of images, which every
    caption would name."""
    asked = config.train_images
    if asked is not None and asked > count:
        raise ConfigError(
            f"dataset.train_images: {asked}: the training split has {count} images; give as many "
            "or fewer, or leave it out for all"
        )
    if asked is not None and asked < count:
        refuse(f"train has {count} images, dataset.train_images asks for {asked}; take as many")


def _check_files(images: FileImages, split: str, config: DatasetConfig, refuse: Refuse) -> None:
    """Paths below the folder that the dataset is known by, to be read as the study says."""
    if not isinstance(images.paths, (list, tuple)) or not all(
        isinstance(path, Path) for path in images.paths
    ):
        first = (
            next(iter(images.paths), None)
            if isinstance(images.paths, (list, tuple))
            else images.paths
        )
        refuse(f"{split} paths are {type(first).__name__}; return a list of pathlib.Path")
    for key in READING:
        if (given := getattr(images, key)) != getattr(config, key):
            refuse(
                f"{split} is FileImages with {key} {given}, the study says {getattr(config, key)}; "
                f"pass config.{key}"
            )
    root = None if config.path is None else place_of(config.path, "dataset.path").absolute()
    for path in images.paths:
        if root is None or not path.absolute().is_relative_to(root):
            refuse(
                f"{shown(path)} does not lie below dataset.path "
                f"({'null' if root is None else shown(root)}), "
                "whose files are what a dataset is known by; set it to the folder that holds all "
                "images"
            )


def _check_images(images: object, split: str, config: DatasetConfig, refuse: Refuse) -> None:
    """uint8 from 0 to 255, of the config's size and channels."""
    if isinstance(images, np.ma.MaskedArray):
        refuse(
            f"{split} images are a masked array; fill what is masked and return a numpy array of "
            "uint8"
        )
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        refuse(
            f"{split} images are {kind}; return a numpy array of uint8 with values from 0 to 255"
        )
    shape, wanted = images.shape[1:], (config.channels, config.image_size, config.image_size)
    if images.ndim != 4 or shape != wanted:
        raise ConfigError(
            f"dataset.image_size, channels: load_{config.name} gives {split} images of shape "
            f"{shape}, the study says {wanted}"
        )
    if len(images) and images.max() <= 1:
        refuse(f"{split} images hold nothing above {images.max()}; values go from 0 to 255")


def _check_labels(images: SplitImages, split: str, config: DatasetConfig, refuse: Refuse) -> None:
    """A whole number for each image, from 0 to num_classes - 1."""
    labels = images.labels_N
    count = len(images.paths) if isinstance(images, FileImages) else len(images.images_NCHW)
    if (
        not isinstance(labels, np.ndarray)
        or labels.ndim != 1
        or not np.issubdtype(labels.dtype, np.integer)
    ):
        kind = (
            f"{labels.dtype} of shape {labels.shape}"
            if isinstance(labels, np.ndarray)
            else type(labels).__name__
        )
        refuse(f"{split} labels are {kind}; return a numpy array of integers, one for each image")
    if len(labels) != count:
        refuse(f"{split} has {count} images and {len(labels)} labels; return one for each")
    if not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if config.num_classes and (low < 0 or high >= config.num_classes):
        raise ConfigError(
            f"dataset.num_classes: {config.num_classes} does not fit the labels {low} to {high} of "
            f"{config.name} "
            f"(legal: 0 to {config.num_classes - 1})"
        )


def _classes(
    names: object, splits: dict[str, SplitImages], config: DatasetConfig, refuse: Refuse
) -> list[str]:
    """Names of the classes, each with a training image."""
    if not config.num_classes:
        return []
    if names is None:
        names = [str(label) for label in range(config.num_classes)]
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        refuse("classes must be a list of names")
    if len(names) != config.num_classes or len(set(names)) < len(names):
        refuse(
            f"{len(set(names))} different names of classes for {config.num_classes} classes; give "
            "each its own"
        )
    counts = np.bincount(splits["train"].labels_N, minlength=config.num_classes)
    if empty := [names[label] for label in np.flatnonzero(counts == 0)]:
        raise ConfigError(
            f"dataset.num_classes: {config.num_classes} does not fit: no training image of class "
            f"{listed(empty)} "
            f"in {config.name}{_why_empty(splits, config)}"
        )
    return [shown(name) for name in names]


def _why_empty(splits: dict[str, SplitImages], config: DatasetConfig) -> str:
    """A remedy: classes that are held out whole, or that nothing has."""
    held_out = np.concatenate([splits["val"].labels_N, splits["test"].labels_N])
    if len(np.setdiff1d(held_out, splits["train"].labels_N)):
        return " after the split; add images, or lower test_share or val_share"
    return f"; labels must be 0 to {config.num_classes - 1}"
