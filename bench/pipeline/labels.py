"""Which class each image is asked for: one rule for all that draw images.

The label of a seed follows from the seed, the rule and the training split alone. It stays the same
whatever number of images, first seed, batch, process or half of the seeds is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..study.settings import EvaluationConfig
from .artefacts import open_labels

if TYPE_CHECKING:
    import torch

# 2**64 over the golden ratio, as a whole odd number: its multiples fill every interval evenly
GOLDEN = 11400714819323198485
WORD = 2**64


def first_sample(evaluation: EvaluationConfig, train_seed: int | None, count: int = 0) -> int:
    """The sample seed of the first image of a training: trainings share none, or their scores would
    vary less than they do.

    train_seed: None for what belongs to no training, which takes those of training seed 0. count:
    images that are drawn of each training, where they may be more than an evaluation has.
    """
    return evaluation.first_seed + (train_seed or 0) * max(evaluation.num_images, count)


def seeds_of_rows(rows: Iterable[int], train_seed: int, count: int) -> list[int]:
    """What images of a split of so many are drawn with, by their rows: trainings share no seed, or
    their scores would vary less than they do."""
    return [train_seed * count + int(row) for row in rows]


def class_shares(labels_N: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each class occurs, int64 of shape (num_classes,): shares as whole numbers of
    images.

    Whole numbers are exact. Raises ValueError for a label that is no class.
    """
    labels_N = np.asarray(labels_N)
    if len(labels_N) and not 0 <= labels_N.min() <= labels_N.max() < num_classes:
        span = f"{labels_N.min()} to {labels_N.max()}"
        raise ValueError(
            f"labels {span}: {num_classes} classes have labels from 0 to {num_classes - 1}"
        )
    return np.bincount(labels_N.astype(np.int64), minlength=num_classes)


def label_array(seeds: Sequence[int], shares_Y: np.ndarray, rule: str) -> np.ndarray:
    """The label of every seed, int64.

    shares_Y: images of each class in the training split; empty: no classes, every label is 0.
    `training`: classes in their shares. Of any n consecutive seeds a class gets its share to within
    2 + log2(n) / 2 images, and a class without images gets none.
    `balanced`: the seed modulo the number of classes.
    Raises ValueError where the training split lacks a class that is asked for.
    """
    if not len(shares_Y):
        return np.zeros(len(seeds), np.int64)
    if rule == "balanced":
        if len(missing := np.flatnonzero(np.asarray(shares_Y) == 0)):
            raise ValueError(
                f"evaluation.labels: balanced asks for class {missing[0]}, which no training image "
                "has; use training"
            )
        return np.array([int(seed) % len(shares_Y) for seed in seeds], np.int64)
    if rule != "training":
        raise ValueError(f"evaluation.labels: {rule!r} is no rule (there are: training, balanced)")
    present = np.flatnonzero(shares_Y)
    if not len(present):
        raise ValueError("evaluation.labels: the training split has no image of any class")
    # whole numbers throughout: the place of a seed is as exact for seed 10**18 as for seed 0
    places_N = np.array([int(seed) * GOLDEN % WORD for seed in seeds], np.uint64)
    ends = [int(end) for end in np.cumsum(np.asarray(shares_Y)[present])]
    borders = np.array([-(-end * WORD // ends[-1]) for end in ends[:-1]], np.uint64)
    return present[np.searchsorted(borders, places_N, side="right")].astype(np.int64)


def labels_of(seeds: Sequence[int], shares_Y: np.ndarray, rule: str) -> torch.Tensor:
    """`label_array` as a tensor."""
    import torch

    return torch.from_numpy(label_array(seeds, shares_Y, rule))


def asked_array(data: Path, num_classes: int, seeds: Sequence[int], rule: str) -> np.ndarray:
    """The label that a model of so many classes is asked for with every seed; 0 for one without
    classes.

    data: the prepared images, whose training split says the shares.
    """
    if not num_classes:
        return label_array(seeds, np.zeros(0, np.int64), rule)
    return label_array(seeds, class_shares(open_labels(data, "train"), num_classes), rule)


def asked_labels(data: Path, num_classes: int, seeds: Sequence[int], rule: str) -> torch.Tensor:
    """`asked_array` as a tensor."""
    import torch

    return torch.from_numpy(asked_array(data, num_classes, seeds, rule))


def turns(labels_N: np.ndarray) -> np.ndarray:
    """How many earlier images have the same label, for each image."""
    labels_N = np.asarray(labels_N)
    order = np.argsort(labels_N, kind="stable")
    first = np.searchsorted(labels_N[order], labels_N[order])
    turns_N = np.empty(len(labels_N), np.int64)
    turns_N[order] = np.arange(len(labels_N)) - first
    return turns_N


def in_turn(labels_N: np.ndarray, count: int) -> np.ndarray:
    """Indices of up to `count` images, one of each class in turn; a class that has no more is
    passed over."""
    return np.lexsort((labels_N, turns(labels_N)))[:count]


def in_shares(labels_N: np.ndarray, count: int) -> np.ndarray:
    """Indices of up to `count` images, ascending: of each class its share to within one image,
    spread over the class.

    The first images of a folder would be those of its first classes.
    """
    total = len(labels_N)
    count = min(count, total)
    order = np.argsort(labels_N, kind="stable")
    return np.sort(order[(2 * np.arange(count) + 1) * total // (2 * max(1, count))])


def partners(labels_N: np.ndarray) -> np.ndarray:
    """Index of the next image with the same label, the first after the last; -1 where there is no
    other."""
    labels_N = np.asarray(labels_N)
    order = np.argsort(labels_N, kind="stable")
    partners_N = np.full(len(labels_N), -1, np.int64)
    for rows in np.split(order, np.flatnonzero(np.diff(labels_N[order])) + 1):
        if len(rows) > 1:
            partners_N[rows] = np.roll(rows, -1)
    return partners_N
