"""Verb: the two lines that every score is read against, each of as many images as a variant has.

Floor: real training images against the held-out ones, what a perfect generator of this size of sample scores. Reconstruction: the same
images through the tokenizer, what a perfect prior over its tokens scores. Image i has the label that sample i is asked for.
`floor_repeated`: how many training images stand there more than once, because too few have their label. `reference_is`: IS of the
reference itself, since a generator may exceed real images in it and is then farther from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from srdd.noise import generator
from srdd.schedule import ScaleSchedule

from ..runtime.verb import Run
from ..study.settings import EvaluationConfig, FeaturesConfig
from .datasets import to_uint8
from .encode import BATCH, open_tokenizer, open_tokens, tokenizer_identity
from .labels import class_shares, first_sample, labels_of, turns
from .metrics import Extractor, Scored, inception_score, score
from .prepare import open_split
from .reference import Chosen, open_reference

INPUTS = ("data", "tokenizer", "features", "tokens")


@dataclass(frozen=True)
class Lazy:
    """Pictures that are made when they are read, uint8: never all in memory."""

    count: int
    make: Callable[[Sequence[int]], torch.Tensor]

    def __len__(self) -> int:
        return self.count

    def read(self, rows: Sequence[int]) -> torch.Tensor:
        return self.make(rows)


@torch.no_grad()
def reconstruct(tokenizer, schedule: ScaleSchedule, tokens_NL: np.ndarray, device: torch.device) -> np.ndarray:
    """Pictures of stored tokens, uint8."""
    parts = []
    for i in range(0, len(tokens_NL), BATCH):
        tokens_BL = torch.from_numpy(tokens_NL[i : i + BATCH].astype(np.int64)).to(device)
        parts.append(to_uint8(tokenizer.decode(tokens_BL, schedule)).cpu().numpy())
    return np.concatenate(parts)


def reconstruction(tokenizer, schedule: ScaleSchedule, tokens_NL: np.ndarray, device: torch.device) -> Lazy:
    """Pictures of stored tokens."""
    return Lazy(len(tokens_NL), lambda rows: torch.from_numpy(reconstruct(tokenizer, schedule, tokens_NL[rows], device)))


def drawn_rows(train_N: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """A training image for every label: none twice while its class has others left, then the same again from the start.

    train_N: labels of the training split. Raises ValueError for a label that no training image has.
    """
    rows_N, turns_N = np.empty(len(labels_N), np.int64), turns(labels_N)
    for label in np.unique(labels_N):
        asked, there = labels_N == label, np.flatnonzero(train_N == label)
        if not len(there):
            raise ValueError(f"class {label}: the training split has no image of it; floor and reconstruction need one")
        order = torch.randperm(len(there), generator=generator("baselines", int(label))).numpy()
        rows_N[asked] = there[order[turns_N[asked] % len(there)]]
    return rows_N


def chosen_rows(train_N: np.ndarray, num_classes: int, evaluation: EvaluationConfig, first: int) -> np.ndarray:
    """Rows of the training split that stand for the samples from seed `first` on: as many, and of the same classes where there
    are classes."""
    count = min(evaluation.num_images, len(train_N))
    if not num_classes:
        return torch.randperm(len(train_N), generator=generator("baselines"))[:count].sort().values.numpy()
    seeds = range(first, first + count)
    return drawn_rows(train_N, labels_of(seeds, class_shares(train_N, num_classes), evaluation.labels).numpy())


def work(run: Run) -> None:
    evaluation = run.settings("evaluation", EvaluationConfig)
    extractor = Extractor(run.settings("features", FeaturesConfig), run.device, run.inputs["features"])
    train, reference = open_split(run.inputs["data"], "train"), open_reference(extractor.config, run.inputs["data"])
    schedule = ScaleSchedule(tuple(run.config["patch_nums"]))
    tokenizer = open_tokenizer(run)
    names, first = {**tokenizer_identity(run), "model": schedule.name}, first_sample(evaluation, run.config.get("tokenizer_seed"))
    num_classes = run.config["dataset"]["num_classes"]
    chosen = chosen_rows(train.labels_N, num_classes, evaluation, first)
    count, repeated = len(chosen), int((np.bincount(chosen) > 1).sum())
    run.add("floor_repeated", repeated, "images", num_images=count, **names)
    if repeated:
        run.say(f"{repeated} training images stand more than once among the {count} of the floor: too few have their label")
    tokens_NL = open_tokens(run.inputs["tokens"], "train")[chosen]
    pictures = {
        "floor": Chosen(train, chosen),
        "reconstruction": reconstruction(tokenizer, schedule, tokens_NL, run.device),
    }
    labels_N = train.labels_N[chosen] if num_classes else None
    if "fidelity" in evaluation.metrics:
        value = inception_score(extractor.of_reference(reference.pictures)[1])
        count_real = len(reference.pictures)
        run.add(f"reference_is_{extractor.config.name}", value, "score", num_images=count_real, **names)
    for line, images in pictures.items():
        scored = Scored(images, labels_N, reference, extractor, costly=True)
        found = score(scored, evaluation.metrics)
        for name, (value, unit) in found.items():
            run.add(f"{line}_{name}", value, unit, num_images=count, **names)
        run.say(f"{line}: " + ", ".join(f"{name} {value:.3f}" for name, (value, _) in found.items()))
