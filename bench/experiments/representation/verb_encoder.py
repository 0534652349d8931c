"""Verb: an encoder trained as a classifier, and the projector from its z to a frozen generator's
condition: what all arms of `representation` go on from.

Writes encoder.safetensors and projector.safetensors, and reports no number of its own.
"""

from __future__ import annotations

import torch

from srdd.contrast import Conditioned
from srdd.files import save_tensors
from srdd.noise import generator

from ...pipeline.encoders import Batches, Images, open_generator, z_of
from ...pipeline.features import Classifier, save_classifier, train_classifier
from ...pipeline.labels import in_shares
from ...pipeline.training import check_finite
from ...runtime.verb import Run
from ...study.settings import DatasetConfig, FeaturesConfig
from .plan import EncoderSettings

INPUTS = ("data", "tokenizer", "tokens", "train")

# ---------------------------------------------------------------- trainings


def _shape(run: Run) -> dict[str, int]:
    """Sizes of the images that the encoder reads, and how many classes it tells apart."""
    data = run.settings("dataset", DatasetConfig)
    return {
        "channels": data.channels,
        "image_size": data.image_size,
        "num_classes": data.num_classes,
    }


def _config(run: Run, settings: EncoderSettings) -> FeaturesConfig:
    """The encoder as a classifier's settings."""
    return FeaturesConfig(
        name="encoder", dim=settings.dim, channels=settings.channels, steps=settings.pretrain_steps,
        seed=run.config["train_seed"],
    )  # fmt: skip


def encoder_of(run: Run, settings: EncoderSettings, train: Images) -> Classifier:
    """A classifier of the training images, or of some."""
    config, shape, labels_N = _config(run, settings), _shape(run), train.labels_N
    if settings.pretrain_images is None:
        return train_classifier(config, shape, train.images, labels_N, config.seed, run.device)
    rows = in_shares(labels_N, settings.pretrain_images)
    few = train.images.read(rows.tolist()).numpy()
    return train_classifier(config, shape, few, labels_N[rows], config.seed, run.device)


def train_projector(
    settings: EncoderSettings, batches: Batches, encoder: Classifier, frozen: Conditioned
) -> None:
    """Train the projector by cross-entropy of all scales, encoder and generator frozen: the arms
    differ in what follows alone."""
    projector = frozen.projector.cpu()  # drawn on the CPU: the same weights on any device
    projector.init_weights(generator("representation", "projector", batches.seed))
    projector.to(batches.device)
    optimizer = torch.optim.Adam(projector.parameters(), lr=settings.projector_lr)
    for step in range(settings.projector_steps):
        # steps below 0: no arm sees these batches again
        _, images_BCHW, _, tokens_BL = batches.of(-1 - step)
        with torch.no_grad():
            z_BZ = z_of(encoder, images_BCHW)
        loss = frozen.nll(tokens_BL, z_BZ, None)
        check_finite(loss.item(), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    projector.requires_grad_(False)


# ---------------------------------------------------------------- work


def work(run: Run) -> None:
    settings = run.settings("encoder", EncoderSettings)
    train = Images.of(run, "train")
    batches = Batches(train, settings.batch, run.config["train_seed"], run.device)
    encoder, frozen = encoder_of(run, settings, train), open_generator(run, settings.dim)
    run.say(f"encoder trained, {settings.pretrain_steps} steps")
    train_projector(settings, batches, encoder, frozen)
    run.say(f"projector trained, {settings.projector_steps} steps")
    save_tensors(run.out / "projector.safetensors", frozen.projector.state_dict(), kind="projector")
    path, config = run.out / "encoder.safetensors", _config(run, settings)
    save_classifier(path, encoder.cpu(), _shape(run), config)
