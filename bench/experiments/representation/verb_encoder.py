"""Verb: an encoder trained as a classifier, and the projector from its z to a frozen generator's
condition: what all arms of `representation` go on from.

Writes encoder.safetensors and projector.safetensors, and reports no number of its own.
"""

from __future__ import annotations

import torch

from srdd.contrast import Conditioned
from srdd.files import save_tensors
from srdd.noise import generator

from ...pipeline.datasets import AnyImages
from ...pipeline.encoders import Batches, Images, open_generator, z_of
from ...pipeline.features import Classifier, Going, save_classifier, shape_of, train_classifier
from ...pipeline.labels import in_shares
from ...pipeline.training import check_finite
from ...runtime.verb import Run
from ...study.settings import DatasetConfig, FeaturesConfig
from .plan import EncoderSettings

INPUTS = ("data", "tokenizer", "tokens", "train")

# ---------------------------------------------------------------- trainings


def encoder_of(
    config: FeaturesConfig, shape: dict[str, int], train: Images, count: int | None, run: Run
) -> Classifier:
    """A classifier of the training images, or of so many."""
    images: AnyImages = train.images
    labels_N, going = train.labels_N, Going(run)
    if count is not None:
        rows = in_shares(labels_N, count)
        images, labels_N = train.images.read(rows.tolist()).numpy(), labels_N[rows]
    return train_classifier(config, shape, images, labels_N, config.seed, run.device, going=going)


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
    settings, seed = run.settings("encoder", EncoderSettings), run.config["train_seed"]
    config = FeaturesConfig(
        name="encoder", dim=settings.dim, channels=settings.channels, steps=settings.pretrain_steps,
        seed=seed,
    )  # fmt: skip
    shape, train = shape_of(run.settings("dataset", DatasetConfig)), Images.of(run, "train")
    encoder = encoder_of(config, shape, train, settings.pretrain_images, run)
    run.say(f"encoder trained, {settings.pretrain_steps} steps")
    frozen = open_generator(run, settings.dim)
    batches = Batches(train, settings.batch, seed, run.device)
    train_projector(settings, batches, encoder, frozen)
    run.say(f"projector trained, {settings.projector_steps} steps")
    save_tensors(run.out / "projector.safetensors", frozen.projector.state_dict(), kind="projector")
    save_classifier(run.out / "encoder.safetensors", encoder.cpu(), shape, config)
