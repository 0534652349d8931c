"""Verb: the two lines that every score is read against, each of as many pictures as a variant has.

Floor: real training pictures against the held-out ones, what a perfect generator of this size of sample scores. Reconstruction: the
same pictures through the tokenizer, what a perfect prior over its tokens scores.
"""

from __future__ import annotations

import numpy as np
import torch

from srdd.schedule import ScaleSchedule
from srdd.tokenizer_checkpoint import load_tokenizer

from .config import EvaluationConfig, FeaturesConfig
from .datasets import to_uint8
from .encode import BATCH, open_tokens
from .metrics import Extractor, Scored, score
from .prepare import open_split
from .verb import Run, main


@torch.no_grad()
def reconstruct(tokenizer, schedule: ScaleSchedule, tokens_NL: np.ndarray, device: torch.device) -> np.ndarray:
    """Pictures of stored tokens, uint8."""
    parts = []
    for i in range(0, len(tokens_NL), BATCH):
        tokens_BL = torch.from_numpy(tokens_NL[i : i + BATCH].astype(np.int64)).to(device)
        parts.append(to_uint8(tokenizer.decode(tokens_BL, schedule)).cpu().numpy())
    return np.concatenate(parts)


def work(run: Run) -> None:
    evaluation = run.settings("evaluation", EvaluationConfig)
    extractor = Extractor(run.settings("features", FeaturesConfig), run.device, run.inputs["features"])
    train, test = open_split(run.inputs["data"], "train"), open_split(run.inputs["data"], "test")
    count = min(evaluation.num_images, len(train))
    schedule = ScaleSchedule(tuple(run.config["patch_nums"]))
    tokenizer = load_tokenizer(run.inputs["tokenizer"] / "tokenizer.safetensors").to(run.device)
    names = {"tokenizer": run.inputs["tokenizer"].name, "model": schedule.name}
    labels_N = train.labels_N[:count] if run.config["dataset"]["num_classes"] else None
    pictures = {
        "floor": train.read(range(count)).numpy(),
        "reconstruction": reconstruct(tokenizer, schedule, open_tokens(run.inputs["tokens"], "train")[:count], run.device),
    }
    for line, images in pictures.items():
        found = score(Scored(images, labels_N, test, extractor), evaluation.metrics)
        for name, (value, unit) in found.items():
            run.add(f"{line}_{name}", value, unit, num_images=count, **names)
        run.say(f"{line}: " + ", ".join(f"{name} {value:.3f}" for name, (value, _) in found.items()))


if __name__ == "__main__":
    main("baselines", work, inputs=("data", "tokenizer", "features", "tokens"))
