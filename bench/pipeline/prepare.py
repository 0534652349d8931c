"""Verb: find a dataset, check every image, write down its split.

Writes data.json (what, how many, names of the classes), and per split labels and images (.npy, uint8 NCHW, small sets) or paths
below the dataset's folder with size, time and sha256 of each file (image folders). What the files hold must be what the plan saw.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from srdd.lookup import find

from ..runtime.progress import track
from ..runtime.rows import write_text, written_whole
from ..study.checks import enough_images, few_for_features
from ..study.contents import content_of, stamp_of, sums_of
from ..study.errors import ConfigError, place_of, shown
from ..study.settings import DatasetConfig
from . import datasets
from .check_splits import check_splits
from .datasets import SPLITS, ArrayPictures, FilePictures, Pictures, Recorded
from .image_folder import skipped_words, suffixes_read
from .splits import array_keys, contradictions, copies

if TYPE_CHECKING:  # it imports torch, which collect needs not
    from ..runtime.verb import Run

GPU = False

LOADERS = ("digits", "fashion_mnist", "image_folder")  # of this project; an error of any other is told with its name
DIM = 64  # a split that holds no brighter level was perhaps not scaled to 255
NAMED = 10  # classes whose counts are said one by one


@dataclass(frozen=True)
class Dataset:
    """The splits of a dataset, names of its classes, what was left out of its folder, images in sub-folders of a class, its groups."""

    splits: dict[str, Pictures]
    classes: list[str]
    skipped: Counter[str] = field(default_factory=Counter)
    below: int = 0
    groups: str = ""


def read_dataset(config: DatasetConfig) -> Dataset:
    """A dataset, checked against the config. Raises ConfigError naming what does not fit."""
    loader = find(datasets, "load", config.name)
    try:
        made = loader(config)
    except ConfigError:
        raise
    except Exception as error:
        if config.name in LOADERS and isinstance(error, OSError):
            raise
        if config.name in LOADERS and isinstance(error, ValueError):  # of a damaged file, in words
            raise ValueError(" ".join(str(error).split())) from None
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"bench/pipeline/datasets.py: load_{config.name}: {text}") from None
    splits, classes = check_splits(made, config)
    return Dataset(splits, classes, made.get("skipped", Counter()), made.get("below", 0), made.get("groups", ""))


def load(config: DatasetConfig) -> dict[str, Pictures]:
    """The splits of a dataset, checked against the config. Raises ConfigError naming what does not fit."""
    return read_dataset(config).splits


def save_array(path: Path, array: np.ndarray) -> None:
    """An .npy file, whole or not at all."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Compressed arrays in one .npz file, whole or not at all."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


# ---------------------------------------------------------------- what was read


def _check_files(pictures: FilePictures, split: str) -> list[bytes]:
    """Decode every image once: a damaged one is named now, not in the middle of a training. Returns a key of each one's pixels:
    a copy that was saved anew has other bytes in its file."""
    keys: list[bytes] = []
    chunks = [range(i, min(i + 64, len(pictures))) for i in range(0, len(pictures), 64)]
    for chunk in track(chunks, f"check {split}", len(chunks)):
        keys += array_keys(pictures.read(chunk).numpy())
    return keys


def _record(pictures: FilePictures) -> Recorded:
    """Size, time and sum of each file, as they are now."""
    stamps = [stamp_of(path) for path in pictures.paths]
    sizes, times = zip(*stamps)
    sums = np.frombuffer(b"".join(sums_of(pictures.paths)), np.uint8).reshape(-1, 32)
    return Recorded(np.array(sizes, np.int64), np.array(times, np.int64), sums)


def _below(path: Path, root: Path | None) -> str:
    """A path as it is written down: below the dataset's folder, or whole where it lies elsewhere."""
    whole = path.absolute()
    return str(whole.relative_to(root)) if root is not None and whole.is_relative_to(root) else str(whole)


def _save_split(out: Path, split: str, pictures: Pictures, root: Path | None) -> list[bytes]:
    """Write one split; returns a key of the pixels of each image."""
    save_array(out / f"{split}_labels.npy", np.asarray(pictures.labels_N, np.int64))
    if isinstance(pictures, ArrayPictures):
        save_array(out / f"{split}_images.npy", np.ascontiguousarray(pictures.images_NCHW))
        return array_keys(pictures.images_NCHW)
    recorded = _record(pictures)
    keys = _check_files(pictures, split)
    write_text(out / f"{split}_paths.json", json.dumps([_below(path, root) for path in pictures.paths]))
    save_npz(out / f"{split}_files.npz", sizes=recorded.sizes_N, times=recorded.times_N, sums=recorded.sums_N)
    return keys


def _place_now(folder: Path, about: dict[str, Any]) -> Path:
    """Where the dataset's folder lies: as the newest plan says, beside the jobs' configs, or as it was prepared."""
    config = folder.parents[1] / "configs" / folder.parent.name / f"{folder.name}.json"
    if config.is_file():
        job = json.loads(config.read_text(encoding="utf-8"))
        path = job.get("files", {}).get("dataset.path") or job["config"]["dataset"].get("path")
        if path is not None:
            return place_of(path, "dataset.path").absolute()
    return Path(about["root"])


def open_labels(folder: Path, split: str) -> np.ndarray:
    """Labels of one split of prepared data, without its images."""
    return np.load(folder / f"{split}_labels.npy")


def open_split(folder: Path, split: str) -> Pictures:
    """One split of prepared data; arrays are mapped, not read; files are compared with what was prepared when they are read."""
    folder = Path(folder).absolute()
    about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    labels = open_labels(folder, split)
    if about["kind"] == "arrays":
        return ArrayPictures(np.load(folder / f"{split}_images.npy", mmap_mode="r"), labels)
    root = _place_now(folder, about)
    names = json.loads((folder / f"{split}_paths.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{split}_files.npz") as files:
        recorded = Recorded(files["sizes"], files["times"], files["sums"])
    background = about["background"]
    background = background if isinstance(background, int) else tuple(background)
    looks = (about["image_size"], about["channels"], about["crop"], background)
    return FilePictures([root / name for name in names], labels, *looks, recorded)


# ---------------------------------------------------------------- words


def summary(dataset: Dataset) -> str:
    """One line: images by split, classes by name with their counts, what was left out and why."""
    splits = dataset.splits
    words = [", ".join(f"{len(splits[split])} {split}" for split in SPLITS) + " images"]
    if dataset.classes:
        counts = np.stack([np.bincount(splits[s].labels_N, minlength=len(dataset.classes)) for s in SPLITS], 1)
        named = [f"{shown(name)} {'+'.join(map(str, row))}" for name, row in zip(dataset.classes[:NAMED], counts)]
        if (more := len(dataset.classes) - NAMED) > 0:
            named.append(f"and {more} more")
        words.append(f"{len(dataset.classes)} classes (train+val+test): {', '.join(named)}")
        if empty := [shown(name) for name, row in zip(dataset.classes, counts) if not row[2]]:
            words.append(f"without a held-out image: {', '.join(empty[:NAMED])}")
    if dataset.below:
        words.append(f"{dataset.below} images lie in sub-folders of a class folder")
    if dataset.groups:
        words.append(dataset.groups)
    if any(dataset.skipped.values()):
        words.append(f"left out: {skipped_words(dataset.skipped)}")
    return "; ".join(words)


def dim_words(dataset: Dataset, name: str) -> str | None:
    """What to say of images in memory that are all dark, such as those of 16 levels; None where there is nothing to say."""
    found = {split: pictures.images_NCHW.max() for split, pictures in dataset.splits.items() if isinstance(pictures, ArrayPictures)}
    if dark := [f"{split} {most}" for split, most in found.items() if most < DIM]:
        return f"brightest level of load_{name}: {', '.join(dark)} of 255; scale the images if that is not meant"
    return None


def _report(run: Run, dataset: Dataset, keys: dict[str, list[bytes]]) -> None:
    """Counts by split and class, and exact copies on both sides."""
    for split in SPLITS:
        labels = dataset.splits[split].labels_N
        run.add(f"num_{split}", len(labels), "images")
        for label, count in enumerate(np.bincount(labels, minlength=len(dataset.classes))[: len(dataset.classes)]):
            run.add(f"num_{split}_class", int(count), "images", scale=label)
    for split in ("val", "test"):
        count = copies(keys[split], keys["train"])
        run.add(f"{split}_copies_of_train", count, "images")
        if count:
            run.say(f"{count} of {len(keys[split])} {split} images are exact copies of training images, pixel by pixel")
    labels = np.concatenate([dataset.splits[split].labels_N for split in SPLITS]).tolist()
    if unclear := contradictions([key for split in SPLITS for key in keys[split]], labels):
        run.say(f"{unclear} images stand under more than one class, as exact copies")


def _check_content(config: DatasetConfig) -> None:
    """Raises ConfigError where the files are not those that the plan saw."""
    if config.path is None or config.content is None:
        return
    path = place_of(config.path, "dataset.path")
    if content_of(path, suffixes_read(config.name)) != config.content:
        raise ConfigError(
            f"dataset.path: the files at {shown(path)} have changed since this run was planned; run the same command again"
        )


def _check_counts(run: Run, counts: dict[str, int]) -> None:
    """Raises ConfigError for splits too small for what the study measures: known now, and not after all trainings."""
    needs = run.job.get("needs", {})
    if problem := enough_images(counts, needs):
        raise ConfigError(problem)
    if caution := few_for_features(counts, needs.get("features", 1)):
        run.say(f"warning: {caution}")


def work(run: Run) -> None:
    config = run.settings("dataset", DatasetConfig)
    dataset = read_dataset(config)
    run.say(summary(dataset))
    if caution := dim_words(dataset, config.name):
        run.say(f"warning: {caution}")
    counts = {split: len(dataset.splits[split]) for split in SPLITS}
    _check_counts(run, counts)
    root = place_of(config.path, "dataset.path").absolute() if config.path is not None else None
    keys = {split: _save_split(run.out, split, dataset.splits[split], root) for split in SPLITS}
    _check_content(config)
    _report(run, dataset, keys)
    about = {
        "kind": "arrays" if isinstance(dataset.splits["train"], ArrayPictures) else "files",
        "image_size": config.image_size,
        "channels": config.channels,
        "num_classes": config.num_classes,
        "classes": dataset.classes,
        "counts": counts,
        "root": str(root) if root is not None else "/",
        "crop": config.crop,
        "background": config.background,
    }
    write_text(run.out / "data.json", json.dumps(about, indent=1))
