"""The training of a scale transformer that is told degraded images (RestoreVAR, arXiv 2505.18047),
wherever it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from srdd.conditioning import condition_latent
from srdd.loss import linear_cross_entropy
from srdd.noise import generator

from ..runtime.verb import Run
from ..study.restore_settings import RestoreConfig
from .datasets import SPLITS
from .degraded import DegradedSplit
from .held_out import HeldOut
from .networks import open_tokenizer
from .trainer import Trainer
from .training import Batch, batch_indices


@dataclass(frozen=True)
class DegradedBatch(Batch):
    """A batch with the degraded images, in [-1, 1], that its clean tokens belong to."""

    images_BCHW: torch.Tensor


@dataclass(frozen=True)
class DegradedHeldOut(HeldOut):
    """A split whose losses are measured with its degraded images; rows_N: which images of it."""

    trainer: RestoreTrainer
    rows_N: np.ndarray

    def some(self, rows_N: np.ndarray) -> DegradedHeldOut:
        """Chosen images of the split."""
        chosen = {"tokens_NL": self.tokens_NL[rows_N], "labels_N": self.labels_N[rows_N]}
        return replace(self, **chosen, rows_N=self.rows_N[rows_N])

    def told(self, rows: slice) -> dict[str, torch.Tensor]:
        """Latents of the degraded images: one degradation an image, in turn."""
        rows_B = self.rows_N[rows].tolist()
        names = self.trainer.restore_config.degradations
        kinds = [row % len(names) for row in rows_B]
        images_BCHW = self.trainer.degraded[self.name].mixed(names, kinds, rows_B)
        return {"degraded_BChw": self.trainer.latent(images_BCHW.to(self.device))}


class RestoreTrainer(Trainer):
    """A training on clean tokens with degraded images."""

    def __init__(self, run: Run) -> None:
        self.restore_config: RestoreConfig = run.settings("restore", RestoreConfig)
        self.tokenizer = open_tokenizer(run)
        super().__init__(run)

    def open_splits(self) -> None:
        """Beside tokens the images of every split."""
        super().open_splits()
        strength = self.restore_config.strength
        self.degraded = {name: DegradedSplit.of(self.run, name, strength) for name in SPLITS}

    def split(self, name: str) -> DegradedHeldOut:
        """A split whose losses are measured."""
        whole = super().split(name)
        return DegradedHeldOut(**vars(whole), trainer=self, rows_N=np.arange(len(whole)))

    def batch(self, step: int) -> DegradedBatch:
        """What is learnt from at a step: that of `train`, and its images, degraded."""
        size, names = self.config.batch_size, self.restore_config.degradations
        indices = batch_indices(len(self.labels["train"]), size, self.seed, step)
        source = generator("degradations", self.seed, step)
        kinds = torch.randint(len(names), (size,), generator=source).tolist()
        images_BCHW = self.degraded["train"].mixed(names, kinds, indices)
        return DegradedBatch(**vars(super().batch(step)), images_BCHW=images_BCHW)

    def latent(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """What the network is told of degraded images, in float32 as in evaluation."""
        with torch.autocast(images_BCHW.device.type, enabled=False):
            condition = self.model_config.condition
            return condition_latent(condition, self.tokenizer, self.ladder, images_BCHW)

    def loss(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The cross-entropy of clean tokens given the degraded images, as a share of the whole
        batch's mean, twice (RestoreVAR, arXiv 2505.18047)."""
        assert isinstance(part, DegradedBatch)
        recompute, degraded_BChw = self.config.checkpointing, self.latent(part.images_BCHW)
        given = self.inputs(part), part.labels_B, part.paths_E2B, None, recompute, degraded_BChw
        hidden_BLD = self.hidden(*given)
        head, counted = self.model.head, part.counted
        loss = linear_cross_entropy(hidden_BLD, head, part.tokens_BL, part.share_BL, counted)
        return loss, loss
