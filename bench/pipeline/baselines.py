"""Verb: the two lines that every score is read against, each of as many images as a variant has or,
where the training split has fewer, of all of them.

Floor: real training images against the held-out ones, what a perfect generator of this size of
sample scores. Reconstruction: the same images through the tokenizer, what a perfect prior over its
tokens scores. Image i has the label that sample i is asked for. `floor_repeated`: how many training
images stand there more than once, because too few have their label. `reference_is`: IS of the
reference itself, since a generator may exceed real images in it and is then farther from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from srdd.noise import generator
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer

from ..runtime.verb import Run
from ..study.settings import EvaluationConfig
from .artefacts import open_split, open_tokens, tokenizer_identity
from .datasets import ImageSource
from .evaluators import open_one
from .labels import class_shares, first_sample, labels_of, turns
from .metrics import Extractor, Scored, in_words, inception_score, score
from .networks import open_tokenizer
from .reference import Chosen, Reference
from .tokenizing import reconstruct

INPUTS = ("data", "tokenizer", "features", "tokens")


@dataclass(frozen=True)
class Lazy:
    """Images that are made when they are read, uint8: never all in memory."""

    count: int
    make: Callable[[Sequence[int]], torch.Tensor]

    def __len__(self) -> int:
        return self.count

    def read(self, rows: Sequence[int]) -> torch.Tensor:
        return self.make(rows)


def reconstruction(
    tokenizer: Tokenizer,
    schedule: ScaleSchedule,
    tokens_NL: np.ndarray,
    rows_N: np.ndarray,
    device: torch.device,
) -> Lazy:
    """Images of some rows of stored tokens, which may be mapped from a file."""

    def read(rows: Sequence[int]) -> torch.Tensor:
        tokens_BL = tokens_NL[rows_N[np.asarray(rows)]]
        return torch.from_numpy(reconstruct(tokenizer, schedule, tokens_BL, device))

    return Lazy(len(rows_N), read)


def drawn_rows(train_N: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """A training image for every label: none twice while its class has others left, then the same
    again from the start.

    train_N: labels of the training split. Raises ValueError for a label that no training image has.
    """
    rows_N, turns_N = np.empty(len(labels_N), np.int64), turns(labels_N)
    for label in np.unique(labels_N):
        asked, of_class = labels_N == label, np.flatnonzero(train_N == label)
        if not len(of_class):
            raise ValueError(
                f"class {label}: the training split has no image of it; floor and reconstruction "
                "need one"
            )
        order = torch.randperm(len(of_class), generator=generator("baselines", int(label))).numpy()
        rows_N[asked] = of_class[order[turns_N[asked] % len(of_class)]]
    return rows_N


def chosen_rows(
    train_N: np.ndarray, num_classes: int, evaluation: EvaluationConfig, first: int
) -> np.ndarray:
    """Rows of the training split that stand for the samples from seed `first` on: as many, and of
    the same classes where there are classes."""
    count = min(evaluation.num_images, len(train_N))
    if not num_classes:
        return (
            torch.randperm(len(train_N), generator=generator("baselines"))[:count]
            .sort()
            .values.numpy()
        )
    seeds = range(first, first + count)
    return drawn_rows(
        train_N, labels_of(seeds, class_shares(train_N, num_classes), evaluation.labels).numpy()
    )


def report_repeated(run: Run, rows_N: np.ndarray, names: dict[str, Any]) -> None:
    """How many training images stand more than once among the chosen ones."""
    repeated = int((np.bincount(rows_N) > 1).sum())
    run.add("floor_repeated", repeated, "images", num_images=len(rows_N), **names)
    if repeated:
        run.say(
            f"{repeated} training images stand more than once among the {len(rows_N)} of the "
            "floor: "
            "too few have their label"
        )


def report_reference(
    run: Run, extractor: Extractor, reference: Reference, names: dict[str, Any]
) -> None:
    """IS of the reference itself."""
    value = inception_score(extractor.of_reference(reference.images)[1])
    count = len(reference.images)
    run.add(f"reference_is_{extractor.config.name}", value, "score", num_images=count, **names)


def work(run: Run) -> None:
    evaluation = run.settings("evaluation", EvaluationConfig)
    extractor, reference = open_one(run)
    train = open_split(run.inputs["data"], "train")
    schedule = ScaleSchedule(tuple(run.config["patch_nums"]))
    tokenizer = open_tokenizer(run)
    names = {**tokenizer_identity(run), "model": schedule.name}
    first = first_sample(evaluation, run.config.get("tokenizer_seed"))
    num_classes = run.config["dataset"]["num_classes"]
    rows_N = chosen_rows(train.labels_N, num_classes, evaluation, first)
    report_repeated(run, rows_N, names)
    tokens_NL = open_tokens(run.inputs["tokens"], "train")
    lines: dict[str, ImageSource] = {
        "floor": Chosen(train, rows_N),
        "reconstruction": reconstruction(tokenizer, schedule, tokens_NL, rows_N, run.device),
    }
    labels_N = train.labels_N[rows_N] if num_classes else None
    if "fidelity" in evaluation.metrics:
        report_reference(run, extractor, reference, names)
    for line, images in lines.items():
        scores = score(
            Scored(images, labels_N, reference, extractor, costly=True), evaluation.metrics
        )
        for name, (value, unit) in scores.items():
            run.add(f"{line}_{name}", value, unit, num_images=len(rows_N), **names)
        run.say(f"{line}: {in_words(scores)}")
