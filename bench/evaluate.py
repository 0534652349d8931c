"""Verb: score generated pictures against the held-out split, or what the study names (features.reference)."""

from __future__ import annotations

import json

import numpy as np

from .config import EvaluationConfig, FeaturesConfig
from .metrics import Extractor, Scored, score
from .progress import track
from .reference import open_reference
from .train import model_identity
from .verb import Run, main


def work(run: Run) -> None:
    evaluation = run.settings("evaluation", EvaluationConfig)
    extractor = Extractor(run.settings("features", FeaturesConfig), run.device, run.inputs["features"])
    folder = run.inputs["sample"]
    images = np.load(folder / "images.npy", mmap_mode="r")
    conditional = run.config["model"]["num_classes"] > 0
    labels_N = np.load(folder / "labels.npy") if conditional else None
    reference = open_reference(extractor.config, run.inputs["data"])
    steps = json.loads((folder / "steps.json").read_text(encoding="utf-8"))
    first = evaluation.first_seed
    identity = {**model_identity(run), "seed_first": first, "seed_last": first + evaluation.num_images - 1}
    for row, step in enumerate(track(steps, run.run_id, len(steps), "checkpoint")):
        found = score(Scored(images[row], labels_N, reference, extractor), evaluation.metrics)
        for name, (value, unit) in found.items():
            run.add(name, value, unit, step=step, num_images=images.shape[1], **identity)
    if steps == [None]:
        run.say(", ".join(f"{name} {value:.3f}" for name, (value, _) in found.items()))


if __name__ == "__main__":
    main("evaluate", work, inputs=("data", "features", "sample"))
