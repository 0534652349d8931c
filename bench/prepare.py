"""Verb: find a dataset, check every picture, write down its split.

Writes data.json (what, how many), and per split images (.npy, uint8 NCHW, small sets) or paths (image folders).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from srdd.lookup import find

from . import datasets
from .config import ConfigError, DatasetConfig
from .datasets import SPLITS, ArrayPictures, FilePictures, Pictures
from .progress import track
from .results import write_text, written_whole
from .verb import Run, main


def load(config: DatasetConfig) -> dict[str, Pictures]:
    """The splits of a dataset, checked against the config. Raises ConfigError naming what does not fit."""
    splits = find(datasets, "load", config.name)(config)
    for split, pictures in splits.items():
        if not len(pictures):
            raise ConfigError(f"dataset.{'val' if split == 'val' else 'test'}_share: leaves no picture for the split {split}")
        if isinstance(pictures, ArrayPictures):
            shape, wanted = pictures.images_NCHW.shape[1:], (config.channels, config.image_size, config.image_size)
            if shape != wanted:
                raise ConfigError(f"dataset.image_size, channels: pictures are {shape}, the config says {wanted}")
        classes = int(pictures.labels_N.max()) + 1
        if config.num_classes and classes > config.num_classes:
            raise ConfigError(f"dataset.num_classes: {config.num_classes} does not fit the {classes} classes of {config.name}")
    if config.num_classes:
        classes = int(splits["train"].labels_N.max()) + 1
        if classes != config.num_classes:
            raise ConfigError(f"dataset.num_classes: {config.num_classes} does not fit the {classes} classes of {config.name}")
    return splits


def save_array(path: Path, array: np.ndarray) -> None:
    """An .npy file, whole or not at all."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


def _check_files(pictures: FilePictures, split: str) -> None:
    """Decode every picture once: a damaged one is named now, not in the middle of a training."""
    chunks = [range(i, min(i + 64, len(pictures))) for i in range(0, len(pictures), 64)]
    for chunk in track(chunks, f"check {split}", len(chunks)):
        pictures.read(chunk)


def open_split(folder: Path, split: str) -> Pictures:
    """One split of prepared data; arrays are mapped, not read."""
    about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    labels = np.load(folder / f"{split}_labels.npy")
    if about["kind"] == "arrays":
        return ArrayPictures(np.load(folder / f"{split}_images.npy", mmap_mode="r"), labels)
    paths = [Path(line) for line in json.loads((folder / f"{split}_paths.json").read_text(encoding="utf-8"))]
    return FilePictures(paths, labels, about["image_size"], about["channels"])


def work(run: Run) -> None:
    config = run.settings("dataset", DatasetConfig)
    splits = load(config)
    kind = "arrays" if isinstance(splits["train"], ArrayPictures) else "files"
    for split in SPLITS:
        pictures = splits[split]
        if isinstance(pictures, ArrayPictures):
            save_array(run.out / f"{split}_images.npy", np.ascontiguousarray(pictures.images_NCHW))
        else:
            _check_files(pictures, split)
            write_text(run.out / f"{split}_paths.json", json.dumps([str(path.resolve()) for path in pictures.paths]))
        save_array(run.out / f"{split}_labels.npy", pictures.labels_N)
        run.add(f"num_{split}", len(pictures), "images")
    about = {"kind": kind, "image_size": config.image_size, "channels": config.channels, "num_classes": config.num_classes}
    write_text(run.out / "data.json", json.dumps(about, indent=1))
    run.say(", ".join(f"{len(splits[s])} {s}" for s in SPLITS) + " pictures")


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Compressed arrays in one .npz file, whole or not at all."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main("prepare", work)
