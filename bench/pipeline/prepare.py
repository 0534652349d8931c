"""Verb: find a dataset, check every image, write down its split.

Writes data.json (what, how many, names of the classes), and per split labels and images (.npy,
uint8 NCHW, small sets) or paths below the dataset's folder with size, time and sha256 of each file
(image folders). What the files hold must be what the plan saw.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from srdd.lookup import find

from ..runtime.progress import track
from ..runtime.rows import write_text
from ..study.checks import enough_images, few_for_features
from ..study.contents import content_of, stamp_of, suffixes_read, sums_of
from ..study.errors import ConfigError, place_of, shown
from ..study.settings import DatasetConfig
from . import datasets
from .artefacts import save_array, save_npz
from .check_splits import check_splits
from .datasets import SPLITS, ArrayImages, FileImages, Recorded, SplitImages
from .image_folder import skipped_words
from .splits import array_keys, contradictions, copies

if TYPE_CHECKING:  # it imports torch, which nothing is prepared with
    from ..runtime.verb import Run

GPU = False

LOADERS = (
    "digits",
    "fashion_mnist",
    "image_folder",
    "paired_folder",
)  # of this project; an error of any other is told with its name
DIM = 64  # a split that holds no brighter level was perhaps not scaled to 255
NAMED = 10  # classes whose counts, and damaged images whose errors, are said one by one


@dataclass(frozen=True)
class Dataset:
    """The splits of a dataset, names of its classes, what was left out of its folder, images in
    sub-folders of a class, its groups."""

    splits: dict[str, SplitImages]
    classes: list[str]
    skipped: Counter[str] = field(default_factory=Counter)
    below: int = 0
    groups: str = ""


def read_dataset(config: DatasetConfig) -> Dataset:
    """A dataset, checked against the config. Raises ConfigError naming what does not fit."""
    loader = find(datasets, "load", config.name)
    try:
        returned = loader(config)
    except ConfigError:
        raise
    except Exception as error:
        if config.name in LOADERS and isinstance(error, OSError):
            raise
        if config.name in LOADERS and isinstance(error, ValueError):  # of a damaged file, in words
            raise ValueError(" ".join(str(error).split())) from None
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"bench/pipeline/datasets.py: load_{config.name}: {text}") from None
    splits, classes = check_splits(returned, config)
    # of folders alone
    skipped, below = returned.get("skipped", Counter()), returned.get("below", 0)
    return Dataset(splits, classes, skipped, below, returned.get("groups", ""))


def load(config: DatasetConfig) -> dict[str, SplitImages]:
    """The splits of a dataset, checked against the config.

    Raises ConfigError naming what does not fit.
    """
    return read_dataset(config).splits


# ---------------------------------------------------------------- what was read


def _check_files(images: FileImages, split: str, damaged: list[str]) -> list[bytes]:
    """Decode every image once: damaged ones are named now, not in the middle of a training.

    Returns a key of each one's pixels: a copy that was saved anew has other bytes in its file.
    damaged: gets the error of each image that cannot be read.
    """
    keys: list[bytes] = []
    chunks = [range(i, min(i + 64, len(images))) for i in range(0, len(images), 64)]
    for chunk in track(chunks, f"check {split}", len(chunks)):
        try:
            keys += array_keys(images.read(chunk).numpy())
        except ValueError:
            damaged += _errors(images, chunk)
    return keys


def _errors(images: FileImages, chunk: range) -> Iterator[str]:
    """What each image of a chunk is refused with."""
    for i in chunk:
        try:
            images.read([i])
        except ValueError as error:
            yield str(error)


def _refuse_damaged(damaged: list[str]) -> None:
    """Raises ValueError that names the images that cannot be read, so that all are mended at
    once."""
    if damaged:
        more = f"; and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
        raise ValueError("; ".join(damaged[:NAMED]) + more)


def _record(images: FileImages) -> Recorded:
    """Size, time and sum of each file, as they are now."""
    stamps = [stamp_of(path) for path in images.paths]
    sizes, times = zip(*stamps)
    sums = np.frombuffer(b"".join(sums_of(images.paths)), np.uint8).reshape(-1, 32)
    return Recorded(np.array(sizes, np.int64), np.array(times, np.int64), sums)


def _below(path: Path, root: Path | None) -> str:
    """A path as it is written down: below the dataset's folder, or whole."""
    whole = path.absolute()
    return (
        str(whole.relative_to(root))
        if root is not None and whole.is_relative_to(root)
        else str(whole)
    )


def _save_split(
    out: Path, split: str, images: SplitImages, root: Path | None, damaged: list[str]
) -> list[bytes]:
    """Write one split; returns a key of the pixels of each image."""
    save_array(out / f"{split}_labels.npy", np.asarray(images.labels_N, np.int64))
    if isinstance(images, ArrayImages):
        save_array(out / f"{split}_images.npy", np.ascontiguousarray(images.images_NCHW))
        return array_keys(images.images_NCHW)
    recorded = _record(images)
    keys = _check_files(images, split, damaged)
    write_text(
        out / f"{split}_paths.json", json.dumps([_below(path, root) for path in images.paths])
    )
    save_npz(
        out / f"{split}_files.npz",
        sizes=recorded.sizes_N,
        times=recorded.times_N,
        sums=recorded.sums_N,
    )
    return keys


# ---------------------------------------------------------------- words


def summary(dataset: Dataset) -> str:
    """One line: images by split, classes by name with their counts, what was left out and why."""
    splits = dataset.splits
    words = [", ".join(f"{len(splits[split])} {split}" for split in SPLITS) + " images"]
    if dataset.classes:
        words += _class_words(dataset)
    if dataset.below:
        words.append(f"{dataset.below} images lie in sub-folders of a class folder")
    if dataset.groups:
        words.append(dataset.groups)
    if any(dataset.skipped.values()):
        words.append(f"left out: {skipped_words(dataset.skipped)}")
    return "; ".join(words)


def _class_words(dataset: Dataset) -> list[str]:
    """Classes by name with their counts, and those without a held-out image."""
    labels = [dataset.splits[split].labels_N for split in SPLITS]
    counts = np.stack(
        [np.bincount(of_split, minlength=len(dataset.classes)) for of_split in labels], 1
    )
    named = []
    for name, row in zip(dataset.classes[:NAMED], counts):
        named.append(f"{shown(name)} {'+'.join(map(str, row))}")
    more = len(dataset.classes) - NAMED
    if more > 0:
        named.append(f"and {more} more")
    words = [f"{len(dataset.classes)} classes (train+val+test): {', '.join(named)}"]
    empty = [shown(name) for name, row in zip(dataset.classes, counts) if not row[2]]
    if empty:
        rest = f" and {len(empty) - NAMED} more" if len(empty) > NAMED else ""
        words.append(f"without a held-out image: {', '.join(empty[:NAMED])}{rest}")
    return words


def dim_words(dataset: Dataset, name: str) -> str | None:
    """What to say of images in memory that are all dark, such as those of 16 levels; None where
    there is nothing to say."""
    dark = []
    for split, images in dataset.splits.items():
        if isinstance(images, ArrayImages) and images.images_NCHW.max() < DIM:
            dark.append(f"{split} {images.images_NCHW.max()}")
    if not dark:
        return None
    return (
        f"brightest level of load_{name}: {', '.join(dark)} of 255; "
        "scale the images if that is not meant"
    )


def _report(run: Run, dataset: Dataset, keys: dict[str, list[bytes]]) -> None:
    """Counts by split and class, and exact copies on both sides."""
    num_classes = len(dataset.classes)
    for split in SPLITS:
        labels_N = dataset.splits[split].labels_N
        run.add(f"num_{split}", len(labels_N), "images")
        # labels of a set without classes are not counted
        for label, count in enumerate(np.bincount(labels_N, minlength=num_classes)[:num_classes]):
            run.add(f"num_{split}_class", int(count), "images", scale=label)
    for split in ("val", "test"):
        count = copies(keys[split], keys["train"])
        run.add(f"{split}_copies_of_train", count, "images")
        if count:
            run.say(
                f"{count} of {len(keys[split])} {split} images are exact copies of training "
                "images, "
                "pixel by pixel"
            )
    labels = np.concatenate([dataset.splits[split].labels_N for split in SPLITS]).tolist()
    all_keys = [key for split in SPLITS for key in keys[split]]
    if unclear := contradictions(all_keys, labels):
        run.say(f"{unclear} images stand under more than one class, as exact copies")


def _check_content(config: DatasetConfig) -> None:
    """Raises ConfigError where the files are not those that the plan saw."""
    if config.path is None or config.content is None:
        return
    path = place_of(config.path, "dataset.path")
    if content_of(path, suffixes_read(config.name)) != config.content:
        raise ConfigError(
            f"dataset.path: the files at {shown(path)} have changed since this run was planned; "
            "run the same command again"
        )


def _check_counts(run: Run, counts: dict[str, int]) -> None:
    """Raises ConfigError for splits too small for what the study measures: known now, and not after
    all trainings."""
    needs = run.job.get("needs", {})
    if problem := enough_images(counts, needs):
        raise ConfigError(problem)
    if caution := few_for_features(counts, needs.get("features", 1)):
        run.say(f"warning: {caution}")


def _about(dataset: Dataset, config: DatasetConfig, root: Path | None) -> dict[str, Any]:
    """What data.json holds."""
    return {
        "kind": "arrays" if isinstance(dataset.splits["train"], ArrayImages) else "files",
        "image_size": config.image_size,
        "channels": config.channels,
        "num_classes": config.num_classes,
        "classes": dataset.classes,
        "counts": {split: len(dataset.splits[split]) for split in SPLITS},
        "root": str(root) if root is not None else "/",
        "crop": config.crop,
        "background": config.background,
        **({"pairs": True} if config.name == "paired_folder" else {}),
    }


def work(run: Run) -> None:
    config = run.settings("dataset", DatasetConfig)
    dataset = read_dataset(config)
    run.say(summary(dataset))
    if caution := dim_words(dataset, config.name):
        run.say(f"warning: {caution}")
    _check_counts(run, {split: len(dataset.splits[split]) for split in SPLITS})
    root = place_of(config.path, "dataset.path").absolute() if config.path is not None else None
    damaged: list[str] = []
    keys = {
        split: _save_split(run.out, split, dataset.splits[split], root, damaged) for split in SPLITS
    }
    _refuse_damaged(damaged)
    _check_content(config)
    _report(run, dataset, keys)
    write_text(run.out / "data.json", json.dumps(_about(dataset, config, root), indent=1))
