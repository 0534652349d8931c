"""What one job leaves and another reads: every file of a job's folder is opened and saved here.

Verbs import this module, and `networks` for what needs torch, and never each other.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.kept_files import FILES, SNAPSHOTS, check_files, in_folder
from ..runtime.rows import read_object, write_text, written_whole
from ..study.errors import ConfigError, place_of
from ..study.settings import TrainingConfig
from .datasets import ArrayImages, FileImages, Recorded, SplitImages

if TYPE_CHECKING:  # it imports torch, which preparing and collecting need not
    from ..runtime.verb import Run

# ---------------------------------------------------------------- arrays


def save_array(path: Path, array: np.ndarray) -> None:
    """An .npy file, whole or not at all."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Compressed arrays in one .npz file, whole or not at all."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


# what a file that is cut, or none of its kind, raises where numpy or json reads it
DAMAGED = ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error


@contextmanager
def read_of(path: Path) -> Iterator[None]:
    """Where a file that another job left is read, as a copy that broke off leaves it cut. Raises
    ValueError or FileNotFoundError that names it, for one that is damaged or not there."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except DAMAGED as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: cannot be read ({why})") from None


def open_array(path: Path, mapped: bool = False) -> np.ndarray:
    """An array of an .npy file; mapped: not read yet. Raises as `read_of`."""
    with read_of(path):
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None)
        return array


def open_json(path: Path) -> Any:
    """What a JSON file holds. Raises as `read_of`."""
    with read_of(path):
        return json.loads(path.read_text(encoding="utf-8"))


# ---------------------------------------------------------------- prepared images


def open_labels(folder: Path, split: str) -> np.ndarray:
    """Labels of one split of prepared data, without its images."""
    return open_array(folder / f"{split}_labels.npy")


def open_split(folder: Path, split: str) -> SplitImages:
    """One split of prepared data; arrays are mapped, not read; files are compared with what was
    prepared when they are read."""
    folder = Path(folder).absolute()
    about = open_json(folder / "data.json")
    labels = open_labels(folder, split)
    if about["kind"] == "arrays":
        return ArrayImages(open_array(folder / f"{split}_images.npy", mapped=True), labels)
    root = _place_now(folder, about)
    names, sums = open_json(folder / f"{split}_paths.json"), folder / f"{split}_files.npz"
    with read_of(sums), np.load(sums) as files:
        recorded = Recorded(files["sizes"], files["times"], files["sums"])
    background = about["background"]
    background = background if isinstance(background, int) else tuple(background)
    reading = (about["image_size"], about["channels"], about["crop"], background)
    return FileImages([root / name for name in names], labels, *reading, recorded)


def _place_now(folder: Path, about: dict[str, Any]) -> Path:
    """Where the dataset's folder lies: as the newest plan says, beside the jobs' configs, or as it
    was prepared."""
    config = folder.parents[1] / "configs" / folder.parent.name / f"{folder.name}.json"
    if config.is_file():
        job = open_json(config)
        path = job.get("files", {}).get("dataset.path") or job["config"]["dataset"].get("path")
        if path is not None:
            return place_of(path, "dataset.path").absolute()
    return Path(about["root"])


def place_of_images(folder: Path) -> Path:
    """The folder that the images of prepared data lie in now."""
    folder = Path(folder).absolute()
    return _place_now(folder, open_json(folder / "data.json"))


# ---------------------------------------------------------------- tokenizer and tokens


def tokenizer_identity(run: Run) -> dict[str, Any]:
    """The columns of metrics.csv that name a tokenizer: its settings, and the training seed that it
    is of; none where it serves all."""
    return {**run.job["identity"], "train_seed": run.config.get("tokenizer_seed")}


def open_tokens(folder: Path, split: str) -> np.ndarray:
    """Tokens of a split, int32 of shape (N, L), mapped and not read."""
    return open_array(folder / f"{split}_tokens.npy", mapped=True)


# ---------------------------------------------------------------- models


def model_identity(run: Run) -> dict[str, Any]:
    """The columns of metrics.csv that name a trained model."""
    return {**run.job["identity"], "train_seed": run.config["train_seed"]}


STEPS = "checkpoints.json"


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the averaged weights of a step lie."""
    return folder / SNAPSHOTS / f"step_{step:07d}.safetensors"


def snapshots_in(folder: Path) -> list[Path]:
    """The averaged weights that lie there, in order of their step."""
    return sorted((folder / SNAPSHOTS).glob("step_*.safetensors"))


def save_steps(folder: Path, done: int, training: TrainingConfig) -> None:
    """After which of the steps that it has done a training made snapshots: one that is lost is then
    missed."""
    steps = [step for step in range(1, done + 1) if training.makes_snapshot(step)]
    write_text(folder / STEPS, json.dumps(steps))


def checkpoints(folder: Path, snapshots: bool) -> list[tuple[int | None, Path]]:
    """The kept weights, or all snapshots in order of their step. Raises ConfigError where none are
    there, FileNotFoundError where one is lost, ValueError for one that the training did not
    write."""
    if not snapshots:
        return [(None, folder / "model.safetensors")]
    paths = snapshots_in(folder)
    if not paths:
        raise ConfigError(f"{folder}/snapshots: holds no weights; train again")
    if (folder / STEPS).is_file():  # trainings of older versions do not say what they made
        paths = [snapshot_path(folder, step) for step in open_json(folder / STEPS)]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file")
    if (folder / "row.json").is_file():
        written = read_object(folder / "row.json").get(FILES)
        check_files(folder, written, lambda name: not in_folder(name))
    return [(int(path.stem.removeprefix("step_")), path) for path in paths]


# ---------------------------------------------------------------- samples


def open_samples(folder: Path, asked_N: np.ndarray) -> tuple[np.ndarray, list[int | None]]:
    """Images of a sample job, mapped, uint8 (checkpoints, N, C, S, S), and the steps of its
    checkpoints.

    asked_N: the labels that the evaluation asks for. Raises ConfigError for images of another
    number or of other labels.
    """
    images = open_array(folder / "images.npy", mapped=True)
    labels_N, steps = open_array(folder / "labels.npy"), open_json(folder / "steps.json")
    for name, shape, wanted in (
        ("images.npy", images.shape[:2], (len(steps), len(asked_N))),
        ("labels.npy", labels_N.shape, asked_N.shape),
    ):
        if shape != wanted:
            raise ConfigError(
                f"{folder / name}: shape {shape}, the evaluation asks for {wanted}; sample again"
            )
    if not np.array_equal(labels_N, asked_N):
        other = int(np.flatnonzero(labels_N != asked_N)[0])
        raise ConfigError(
            f"{folder}/labels.npy: label {labels_N[other]} of image {other}, "
            f"the evaluation asks for {asked_N[other]}; sample again"
        )
    return images, steps
