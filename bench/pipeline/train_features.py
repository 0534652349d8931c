"""Verb: train the feature network of the scores on the training split, or open Inception's weights and the reference.

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
from .features import classify, save_classifier, train_classifier
from .labels import in_shares
from .metrics import Extractor
from .prepare import open_split
from .reference import StreamedPictures, open_reference

STAGE = "features"
INPUTS = ("data",)

ACCURACY_IMAGES = 10_000


def open_inception(run: Run, config: FeaturesConfig) -> None:
    """Read the weights, look at two images with them, and read the reference. Raises ConfigError for what does not fit."""
    if config.weights is not None:
        if config.sha256 is None:
            raise ConfigError("features.sha256: is missing; weights given by path are checked before they are read")
        check_file(config.weights, config.sha256, "features.weights")
    found = Extractor(config, run.device, run.out).features(np.zeros((2, 3, 32, 32), np.uint8))[0].shape[1]
    if found != config.dim:
        raise ConfigError(f"features.dim: {config.dim}: the layer of these weights has {found} features")
    pictures = open_reference(config, run.inputs["data"]).pictures
    if config.reference is not None:
        given = len(pictures) if isinstance(pictures, StreamedPictures) else 0
        run.add("reference_images", given, "images")
    if len(pictures) < MIN_IMAGES:
        raise ConfigError(
            f"features.reference: {len(pictures)} images to score against, of the file or the test split; {MIN_IMAGES} or more are needed"
        )


def work(run: Run) -> None:
    config, data = run.settings("features", FeaturesConfig), run.settings("dataset", DatasetConfig)
    if config.kind == "inception":
        open_inception(run, config)
        return
    train, test = open_split(run.inputs["data"], "train"), open_split(run.inputs["data"], "test")
    shape = {"channels": data.channels, "image_size": data.image_size, "num_classes": data.num_classes}
    progress = Progress(run.run_id, config.steps)
    model = train_classifier(
        config,
        shape,
        train,
        train.labels_N,
        config.seed,
        run.device,
        lambda value: progress.advance(note=f"loss {value:.3f}"),
    )
    progress.close()
    for name, pictures in (("train", train), ("test", test)):
        chosen_N = in_shares(pictures.labels_N, ACCURACY_IMAGES)
        parts = [chosen_N[i : i + 512] for i in range(0, len(chosen_N), 512)]
        found = torch.cat([classify(model, pictures.read(part.tolist()), run.device) for part in parts])
        right = (found == torch.from_numpy(np.asarray(pictures.labels_N)[chosen_N])).double().mean().item()
        run.add(f"class_accuracy_{name}_{config.name}", right, "share", num_images=len(chosen_N))
        run.say(f"{name} accuracy {right:.4f}")
    save_classifier(run.out / "features.safetensors", model.cpu(), shape, config)
