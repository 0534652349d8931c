"""Encoders whose z is the condition of a frozen generator: what their trainings read, and how one
that a job left is opened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from srdd.contrast import Conditioned, Projector
from srdd.files import load_tensors
from srdd.noise import generator

from ..runtime.verb import Run
from .artefacts import open_split, open_tokens
from .datasets import SplitImages, to_float
from .features import Classifier, load_classifier
from .networks import open_model, open_tokenizer
from .views import different, view_of


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


def open_encoder(run: Run, z_size: int) -> tuple[Classifier, Conditioned]:
    """An encoder, and generator and projector, all frozen, as a job of the role `encoder` left
    them. Raises FileNotFoundError or ValueError for a file that is missing or damaged."""
    folder, frozen = run.inputs["encoder"], open_generator(run, z_size)
    frozen.projector.load_state_dict(load_tensors(folder / "projector.safetensors")[0])
    frozen.projector.requires_grad_(False)
    return load_classifier(folder / "encoder.safetensors").to(run.device), frozen
