"""Verb: train a scale transformer on some of the training images, of which epochs are counted.

All is as in `train` but for the images that a step may draw: `training.unique_images` of the
training split, chosen by a hash of their content, some of every class (`splits.some_of_all`, which
`dataset.train_images` uses too). Those of fewer are among those of more. The tokenizer has seen the
whole split.

Beside what `train` reports: `unique_images`; `epochs` at every evaluation, steps times batch over
unique images (arXiv 2507.15857); of a model with masks `loss_test_any_order` at every evaluation,
on the images of `loss_test`, with its standard error `loss_test_any_order_error` over draws of
masks; `train_flops_image`, three times what one pass over the tokens of an image takes. Of the kept
weights, which the validation split chose: `best_loss`, the smaller of the one-pass loss and the
any-order bound on the test split, `best_loss_train`, the loss of the steps before, and
`epochs_to_best`. `loss_one_epoch` is that loss at the first evaluation after one epoch, where that
comes before the second.

Writes and resumes as `train` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from srdd.config import SamplerConfig
from srdd.cost import sampling_cost
from srdd.model import ScaleTransformer

from ..runtime.verb import Run
from .artefacts import model_identity, open_split
from .held_out import HeldOut, any_order_sums
from .trainer import Trainer, carry_out
from .training import Resume
from .training_log import Kept
from .unique_images import learnt_rows

INPUTS = ("data", "tokenizer", "tokens")
SHARED = True

PASSES = 3  # a training step takes about three forward passes: one on the way back is two


@torch.no_grad()
def any_order_draws(model: ScaleTransformer, data: HeldOut, draws: int) -> np.ndarray:
    """What each draw of masks says of the any-order bound (ARDM, arXiv 2110.02037, equation 5) of a
    split, nats a token, float64 (draws,); their mean is that of `any_order_loss`."""
    schedule, N = model.schedule, len(data)
    means = []
    for draw in range(draws):
        sums_K = any_order_sums(model, data, draw)
        means.append(sums_K.sum().item() / (N * schedule.seq_len))
    return np.array(means)


class WithBounds(Resume):
    """A checkpoint that also holds the bounds along the training, by step."""

    def __init__(self, plain: Resume, bounds: dict[int, tuple[float, float]]) -> None:
        super().__init__(plain.run, plain.save_every)
        self.bounds = bounds

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and state of the last checkpoint, or None; the bounds of it are taken out."""
        checkpoint = super().load()
        if checkpoint is not None:
            bounds = checkpoint[1].pop("bounds")
            self.bounds.update({int(step): (mean, error) for step, mean, error in bounds})
        return checkpoint

    def save(self, tensors: dict[str, torch.Tensor], **state: Any) -> None:
        """Write a checkpoint with the bounds."""
        bounds = [[step, *bound] for step, bound in self.bounds.items()]
        super().save(tensors, **state, bounds=bounds)


class SubsetTrainer(Trainer):
    """A training on some of the training images."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        # the any-order bound on the test split and its standard error, by step
        self.bounds: dict[int, tuple[float, float]] = {}
        self.resume = WithBounds(self.resume, self.bounds)

    def open_splits(self) -> None:
        """Tokens and labels of every split, of the training split those that may be drawn."""
        super().open_splits()
        images = open_split(self.run.inputs["data"], "train")
        rows_N = learnt_rows(images, self.config.unique_images)
        if len(rows_N) < len(images):  # all of them stay mapped
            for arrays in (self.tokens, self.labels):
                arrays["train"] = arrays["train"][rows_N]
        self.unique = len(rows_N)

    def evaluate(self, losses: list[float]) -> None:
        """Beside what every training measures, the any-order bound on the test images."""
        super().evaluate(losses)
        if not self.masked:
            return
        test = self.split("test")
        if self.eval_rows is not None:
            test = test.some(self.eval_rows)
        draws = any_order_draws(self.averaged(), test, self.config.mask_draws)
        error = draws.std(ddof=1) / len(draws) ** 0.5 if len(draws) > 1 else float("nan")
        self.bounds[self.state.step] = float(draws.mean()), float(error)

    def report(self, kept: Kept) -> None:
        """The rows of every training, then those of repetition."""
        super().report(kept)
        run, identity, best = self.run, model_identity(self.run), self.state.best
        run.add("unique_images", self.unique, "images", **identity)
        # one pass over all scales is one image drawn without guidance
        flops = PASSES * sampling_cost(self.model_config, SamplerConfig()).flops
        run.add("train_flops_image", flops, "flop/image", **identity)
        for row in self.state.log:
            self.report_look(row.step)
        bound = [kept.any_order.mean] if kept.any_order is not None else []
        run.add("best_loss", min([kept.one_pass, *bound]), "nats/token", **identity)
        run.add("best_loss_train", best.loss_train, "nats/token", **identity)
        run.add("epochs_to_best", self.epochs(best.step), "epochs", **identity)
        first = [row for row in self.state.log if 1 <= self.epochs(row.step) < 2]
        if first:
            bound = [self.bounds[row.step][0] for row in first[:1] if row.step in self.bounds]
            loss = min([first[0].loss_test, *bound])
            run.add("loss_one_epoch", loss, "nats/token", **identity)

    def epochs(self, step: int) -> float:
        """How often each image has been drawn after a step, on average."""
        return step * self.config.batch_size / self.unique

    def report_look(self, step: int) -> None:
        """What one evaluation adds."""
        names = {**model_identity(self.run), "step": step}
        self.run.add("epochs", self.epochs(step), "epochs", **names)
        if step in self.bounds:
            mean, error = self.bounds[step]
            self.run.add("loss_test_any_order", mean, "nats/token", **names)
            self.run.add("loss_test_any_order_error", error, "nats/token", **names)


def work(run: Run) -> None:
    carry_out(run, SubsetTrainer)
