"""Verb: score generated pictures against the held-out split, or what the study names (features.reference)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from srdd.config import ModelConfig

from ..runtime.progress import track
from ..runtime.verb import Run
from ..study.errors import ConfigError
from ..study.settings import EvaluationConfig, FeaturesConfig
from .labels import asked_labels, first_sample
from .metrics import Extractor, Scored, score
from .reference import open_reference
from .train import model_identity

INPUTS = ("data", "features", "sample")


def open_samples(folder: Path, asked_N: np.ndarray) -> tuple[np.ndarray, list[int | None]]:
    """Images of a sample job, mapped, uint8 (checkpoints, N, C, S, S), and the steps of its checkpoints.

    asked_N: the labels that the evaluation asks for. Raises ConfigError for images of another number or of other labels.
    """
    images, labels_N = np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy")
    steps = json.loads((folder / "steps.json").read_text(encoding="utf-8"))
    for name, found, wanted in (
        ("images.npy", images.shape[:2], (len(steps), len(asked_N))),
        ("labels.npy", labels_N.shape, asked_N.shape),
    ):
        if found != wanted:
            raise ConfigError(f"{folder / name}: shape {found}, the evaluation asks for {wanted}; sample again")
    if not np.array_equal(labels_N, asked_N):
        other = int(np.flatnonzero(labels_N != asked_N)[0])
        raise ConfigError(
            f"{folder}/labels.npy: label {labels_N[other]} of image {other}, the evaluation asks for {asked_N[other]}; sample again"
        )
    return images, steps


def work(run: Run) -> None:
    evaluation = run.settings("evaluation", EvaluationConfig)
    extractor = Extractor(run.settings("features", FeaturesConfig), run.device, run.inputs["features"])
    first = first_sample(evaluation, run.config["train_seed"])
    num_classes = run.settings("model", ModelConfig).num_classes
    seeds = range(first, first + evaluation.num_images)
    asked_N = asked_labels(run.inputs["data"], num_classes, seeds, evaluation.labels).numpy()
    images, steps = open_samples(run.inputs["sample"], asked_N)
    labels_N = asked_N if num_classes else None
    reference = open_reference(extractor.config, run.inputs["data"])
    identity = {**model_identity(run), "seed_first": first, "seed_last": seeds[-1]}
    for row, step in enumerate(track(steps, run.run_id, len(steps), "checkpoint")):
        scored = Scored(images[row], labels_N, reference, extractor, costly=step is None)
        found = score(scored, evaluation.metrics)
        for name, (value, unit) in found.items():
            run.add(name, value, unit, step=step, num_images=images.shape[1], **identity)
    if steps == [None]:
        run.say(", ".join(f"{name} {value:.3f}" for name, (value, _) in found.items()))
