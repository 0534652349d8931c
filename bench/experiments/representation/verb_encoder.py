"""Verb: an encoder trained as a classifier, and the projector from its z to a frozen generator's
condition: what all arms of `representation` go on from.

Writes encoder.safetensors and projector.safetensors, and reports no number of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from srdd.contrast import Conditioned, Projector
from srdd.files import load_tensors, save_tensors
from srdd.noise import generator

from ...pipeline.artefacts import open_split, open_tokens
from ...pipeline.datasets import SplitImages, to_float
from ...pipeline.features import (
    Classifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from ...pipeline.labels import in_shares
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.training import check_finite
from ...pipeline.views import different, view_of
from ...runtime.verb import Run
from ...study.settings import DatasetConfig, FeaturesConfig
from .plan import EncoderSettings

INPUTS = ("data", "tokenizer", "tokens", "train")

# ---------------------------------------------------------------- what is read


@dataclass(frozen=True)
class Images:
    """A split as arms and measures read it: images, tokens int64 on the CPU, labels."""

    images: SplitImages
    tokens_NL: torch.Tensor
    labels_N: np.ndarray

    @classmethod
    def of(cls, run: Run, split: str) -> Images:
        """A split of the run's data, with its tokens."""
        images = open_split(run.inputs["data"], split)
        tokens = np.asarray(open_tokens(run.inputs["tokens"], split), np.int64)
        return cls(images, torch.from_numpy(tokens), np.asarray(images.labels_N, np.int64))


@dataclass(frozen=True)
class Batches:
    """What steps read: it follows from (training seed, step) alone, so that all arms see the same
    images and views. size: different images of a step."""

    train: Images
    size: int
    seed: int
    device: torch.device

    def source(self, what: str, step: int) -> torch.Generator:
        """Random numbers of a step."""
        return generator("representation", what, self.seed, step)

    def rows(self, step: int) -> list[int]:
        """Places of a step's images, all different."""
        N = len(self.train.tokens_NL)
        order = torch.randperm(N, generator=self.source("batch", step)).tolist()
        return different(order, self.train.tokens_NL, self.size)

    def of(self, step: int) -> tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows of a step, their images in [-1, 1], another view of these, and their tokens."""
        rows = self.rows(step)
        images_BCHW = to_float(self.train.images.read(rows))
        view_BCHW = view_of(images_BCHW, self.source("view", step))
        parts = images_BCHW, view_BCHW, self.train.tokens_NL[rows]
        images_BCHW, view_BCHW, tokens_BL = (part.to(self.device) for part in parts)
        return rows, images_BCHW, view_BCHW, tokens_BL


def z_of(encoder: Classifier, images_BCHW: torch.Tensor) -> torch.Tensor:
    """z_BZ of images in [-1, 1]: what enters the last activation, which would take from it all that
    is negative."""
    z_BZ: torch.Tensor = encoder.trunk[:-1](images_BCHW)
    return z_BZ


def open_generator(run: Run, z_size: int) -> Conditioned:
    """The generator that a run reads, frozen, and a projector without weights yet."""
    model = open_model(run, run.inputs["train"] / "model.safetensors").eval().requires_grad_(False)
    ladder = open_tokenizer(run).at(model.schedule).read_as(model.config.state)
    return Conditioned(model, ladder, Projector(z_size, model.config.width).to(run.device))


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


def open_beginning(run: Run, settings: EncoderSettings) -> tuple[Classifier, Conditioned]:
    """The encoder that every arm begins with, generator and projector, all frozen, as the job of
    this verb left them. Raises FileNotFoundError or ValueError for a file that is missing or
    damaged."""
    folder, frozen = run.inputs["encoder"], open_generator(run, settings.dim)
    frozen.projector.load_state_dict(load_tensors(folder / "projector.safetensors")[0])
    frozen.projector.requires_grad_(False)
    return load_classifier(folder / "encoder.safetensors").to(run.device), frozen


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
