"""Verb: train a scale transformer that predicts residuals, not codes, with early stopping.

The regression head of arXiv 2510.02826, whose text we could not read in full: what stands here is
ours. Inputs and targets are those of the ladder with nothing quantised, of the images of a batch as
the tokenizer encodes them. All else is as in `train`: batches, early stopping, averaged weights,
the split that decides. The loss is the squared error of a residual's entry, `regression_mse_*`.

At the end the root mean square of what the kept weights leave of the training residuals is measured
for each scale and channel: the width of the Gaussian that the sampler draws from.

Writes model.safetensors (the kept weights) and snapshots/step_<n>.safetensors, each with its
widths; resumes from resume.safetensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from srdd.heads import GaussHead
from srdd.loss import by_scale, regression_errors
from srdd.model import ScaleTransformer

from ..runtime.verb import Run
from .artefacts import model_identity, open_split
from .datasets import SplitImages, to_float
from .held_out import EVAL_TOKENS, HeldOut, OnePassLoss
from .networks import open_tokenizer
from .trainer import Trainer, carry_out
from .training import Batch, ImageBatch, batch_indices
from .training_log import Evaluation, Kept

INPUTS = ("data", "tokenizer", "tokens")
SHARED = True


@dataclass(frozen=True)
class HeldOutImages(HeldOut):
    """A split whose regression errors are measured; rows_N: which images of it."""

    images: SplitImages
    rows_N: np.ndarray

    def some(self, rows_N: np.ndarray) -> HeldOutImages:
        """Chosen images of the split."""
        chosen = {"tokens_NL": self.tokens_NL[rows_N], "labels_N": self.labels_N[rows_N]}
        return replace(self, **chosen, rows_N=self.rows_N[rows_N])


class RegressionTrainer(Trainer):
    """A training on the residuals of the ladder with nothing quantised."""

    def __init__(self, run: Run) -> None:
        self.tokenizer = open_tokenizer(run)
        super().__init__(run)

    def open_splits(self) -> None:
        """Beside tokens, which say how many there are, the images of every split."""
        super().open_splits()
        data = self.run.inputs["data"]
        self.images = {split: open_split(data, split) for split in self.labels}

    def split(self, name: str) -> HeldOutImages:
        """A split whose errors are measured."""
        images = self.images[name]
        return HeldOutImages(
            **vars(super().split(name)), images=images, rows_N=np.arange(len(images))
        )

    def batch(self, step: int) -> ImageBatch:
        """What is learnt from at a step: that of `train`, and its images."""
        size, labels_N = self.config.batch_size, self.labels["train"]
        indices = batch_indices(len(labels_N), size, self.seed, step)
        images_BCHW = self.images["train"].read(indices)
        return ImageBatch(**vars(super().batch(step)), images_BCHW=images_BCHW)

    @torch.no_grad()
    def pairs(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network reads of some images, bytes, and what it is to predict: in float32 as in
        evaluation, in whatever precision the network computes."""
        with torch.autocast(images_BCHW.device.type, enabled=False):
            latent_BChw = self.tokenizer.to_latent(to_float(images_BCHW))
            return self.ladder.regression_pairs(latent_BChw)

    def loss(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The squared error of the residuals, as a share of the whole batch's mean, twice: what is
        minimised is what is reported (regression head of arXiv 2510.02826)."""
        assert isinstance(part, ImageBatch)
        inputs_BLC, residual_BLC = self.pairs(part.images_BCHW)
        recompute = self.config.checkpointing
        hidden_BLD = self.hidden(inputs_BLC, part.labels_B, part.paths_E2B, None, recompute)
        errors_BL = regression_errors(self.model.head(hidden_BLD), residual_BLC)
        loss = errors_BL.sum() / part.counted
        return loss, loss

    # ------------------------------------------------------------ evaluation

    def predictions(
        self, model: ScaleTransformer, data: HeldOutImages
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Predicted and true residuals of this process's part of a split, batch by batch."""
        mine, size = data.ranks.rows(len(data)), max(1, EVAL_TOKENS // model.schedule.seq_len)
        for i in range(mine.start, mine.stop, size):
            rows_B = data.rows_N[i : min(i + size, mine.stop)]
            images_BCHW = data.images.read(rows_B.tolist()).to(data.device)
            inputs_BLC, residual_BLC = self.pairs(images_BCHW)
            labels_B = torch.from_numpy(data.labels_N[i : i + len(rows_B)]).to(data.device)
            yield model(inputs_BLC, labels_B), residual_BLC

    @torch.no_grad()
    def one_pass(self, model: ScaleTransformer, data: HeldOut) -> OnePassLoss:
        """Squared errors of one pass over a split; no token is right or wrong."""
        assert isinstance(data, HeldOutImages)
        schedule = model.schedule
        sums_K = torch.zeros(schedule.num_scales, dtype=torch.float64, device=data.device)
        for mean_BLC, residual_BLC in self.predictions(model, data):
            errors_BL = regression_errors(mean_BLC, residual_BLC)
            sums_K += by_scale(errors_BL, schedule).to(data.device) * len(errors_BL)
        errors_K = data.ranks.total(sums_K.cpu()) / len(data)
        lengths_K = torch.tensor(schedule.lengths)
        mean = (errors_K * lengths_K).sum().item() / schedule.seq_len
        return OnePassLoss(mean, errors_K.tolist(), [])

    @torch.no_grad()
    def widen(self, model: ScaleTransformer) -> ScaleTransformer:
        """A model with the widths of its Gaussians, measured on the training images."""
        schedule, data = model.schedule, self.split("train")
        shape = schedule.num_scales, model.config.codebook_dim
        squares_KC = torch.zeros(shape, dtype=torch.float64, device=data.device)
        for mean_BLC, residual_BLC in self.predictions(model, data):
            square_BLC = (mean_BLC - residual_BLC).double().square()
            squares_KC += torch.stack([square_BLC[:, s].mean(1).sum(0) for s in schedule.slices])
        assert isinstance(model.head, GaussHead)
        sigma_KC = (self.ranks.total(squares_KC.cpu()) / len(data)).sqrt()
        model.head.sigma_KC.copy_(sigma_KC)
        return model

    def snapshot(self) -> ScaleTransformer:
        """The averaged weights with widths of their own."""
        return self.widen(self.averaged())

    def take_best(self) -> Kept:
        """The kept weights into the model with their widths; their errors on the test split."""
        kept = super().take_best()
        self.widen(self.model)
        return kept

    # ------------------------------------------------------------ report

    def report(self, kept: Kept) -> None:
        """The rows of the training, and one line."""
        run, state, identity = self.run, self.state, model_identity(self.run)
        for row in state.log:
            self.report_evaluation(row)
        run.add("kept_step", state.best_step, "steps", **identity)
        run.add("kept_at_end", int(state.best_step == state.step), "share", **identity)
        run.add("kept_regression_mse_test", kept.one_pass, "mse", **identity)
        count = sum(parameter.numel() for parameter in self.model.parameters())
        run.add("parameters", count, "weights", **identity)
        run.say(f"kept step {state.best_step}: held-out squared error {kept.one_pass:.4f}")

    def report_evaluation(self, row: Evaluation) -> None:
        """One evaluation along the training."""
        run, names = self.run, {**model_identity(self.run), "step": row.step}
        for split in ("train", "val", "test"):
            run.add(f"regression_mse_{split}", getattr(row, f"loss_{split}"), "mse", **names)
        run.add("train_seconds", row.seconds, "s", **names)
        run.add("images_seen", row.step * self.config.batch_size, "images", **names)
        for k, error in enumerate(row.loss_test_K):
            run.add("regression_mse_test_scale", error, "mse", scale=k, **names)


def work(run: Run) -> None:
    carry_out(run, RegressionTrainer)
