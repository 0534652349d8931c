"""Verb: score generated images against the held-out split, or features.reference."""

from __future__ import annotations

from srdd.config import ModelConfig

from ..runtime.progress import track
from ..runtime.verb import Run
from ..study.settings import EvaluationConfig
from .artefacts import model_identity, open_samples
from .evaluators import open_one
from .labels import asked_labels, first_sample
from .metrics import Scored, in_words, score

INPUTS = ("data", "features", "sample")


def work(run: Run) -> None:
    evaluation = run.settings("evaluation", EvaluationConfig)
    extractor, reference = open_one(run)
    first = first_sample(evaluation, run.config["train_seed"])
    num_classes = run.settings("model", ModelConfig).num_classes
    seeds = range(first, first + evaluation.num_images)
    asked_N = asked_labels(run.inputs["data"], num_classes, seeds, evaluation.labels).numpy()
    images, steps = open_samples(run.inputs["sample"], asked_N)
    labels_N = asked_N if num_classes else None
    identity = {**model_identity(run), "seed_first": first, "seed_last": seeds[-1]}
    for row, step in enumerate(track(steps, run.run_id, len(steps), "checkpoint")):
        # a metric that trains a network of its own is taken of the kept weights alone
        scored = Scored(images[row], labels_N, reference, extractor, costly=step is None)
        scores = score(scored, evaluation.metrics)
        for name, (value, unit) in scores.items():
            run.add(name, value, unit, step=step, num_images=images.shape[1], **identity)
    if steps == [None]:
        run.say(in_words(scores))
