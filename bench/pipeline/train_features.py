"""Verb: train a feature network of the scores, or try one that exists on the reference.

Whatever scores need and cannot have ends here, in one line, and not after the trainings.
"""

from __future__ import annotations

import numpy as np
import torch

from ..runtime.progress import Progress
from ..runtime.verb import Run, check_file
from ..study.checks import MIN_IMAGES
from ..study.errors import ConfigError
from ..study.settings import DatasetConfig, FeaturesConfig
from .artefacts import open_split
from .datasets import SplitImages
from .features import (
    Best,
    Classifier,
    Going,
    classify,
    save_classifier,
    shape_of,
    train_classifier,
)
from .labels import in_shares
from .metrics import Extractor
from .reference import StreamedImages, open_reference

STAGE = "features"
INPUTS = ("data",)

ACCURACY_IMAGES = 10_000
BATCH = 512


def open_network(run: Run, config: FeaturesConfig) -> None:
    """Read weights that exist, try them on two images, and read the reference.

    Raises ConfigError for what does not fit.
    """
    if config.weights is not None:
        if config.sha256 is None:
            raise ConfigError(
                "features.sha256: is missing; weights given by path are checked before they are "
                "read"
            )
        check_file(config.weights, config.sha256, "features.weights")
    extractor, two_NCHW = Extractor(config, run.device, run.out), np.zeros((2, 3, 32, 32), np.uint8)
    dim = extractor.features(two_NCHW).features_ND.shape[1]
    if dim != config.dim:
        raise ConfigError(
            f"features.dim: {config.dim}: the layer of these weights has {dim} features"
        )
    reference = open_reference(config, run.inputs["data"])
    images = reference.images
    if config.reference is not None:
        given = len(images) if isinstance(images, StreamedImages) else 0
        run.add("reference_images", given, "images")
    if len(images) < MIN_IMAGES:
        raise ConfigError(
            f"features.reference: {len(images)} images to score against, of the file or the test "
            "split; "
            f"{MIN_IMAGES} or more are needed"
        )
    if extractor.keeps:
        run.say(f"looks at {len(images)} held-out images, once for all jobs")
        extractor.keep(reference)


def accuracy(
    model: Classifier, images: SplitImages, chosen_N: np.ndarray, device: torch.device
) -> float:
    """Share of chosen images that the classifier gives their label."""
    parts = [chosen_N[i : i + BATCH].tolist() for i in range(0, len(chosen_N), BATCH)]
    predicted_N = torch.cat([classify(model, images.read(part), device) for part in parts])
    labels_N = torch.from_numpy(np.asarray(images.labels_N)[chosen_N])
    return (predicted_N == labels_N).double().mean().item()


def work(run: Run) -> None:
    config, data = run.settings("features", FeaturesConfig), run.settings("dataset", DatasetConfig)
    if config.kind != "trained":
        open_network(run, config)
        return
    splits = {split: open_split(run.inputs["data"], split) for split in ("train", "test")}
    shape = shape_of(data)
    going = Going(run)
    progress = Progress(run.run_id, config.steps, going.step)

    def advance(loss: float) -> None:
        progress.advance(note=f"loss {loss:.3f}")

    train, best = splits["train"], None
    if config.eval_every is not None:
        splits["val"] = open_split(run.inputs["data"], "val")
        best = Best(splits["val"], config.eval_every)
    how = config.seed, run.device, advance, best, going
    model = train_classifier(config, shape, train, train.labels_N, *how)
    progress.close()
    if best is not None:
        run.add(f"classifier_kept_step_{config.name}", best.step, "steps")
        run.say(f"kept step {best.step} of {config.steps}")
    for split, images in splits.items():
        chosen_N = in_shares(images.labels_N, ACCURACY_IMAGES)
        share = accuracy(model, images, chosen_N, run.device)
        run.add(f"class_accuracy_{split}_{config.name}", share, "share", num_images=len(chosen_N))
        run.say(f"{split} accuracy {share:.4f}")
    save_classifier(run.out / "features.safetensors", model.cpu(), shape, config)
