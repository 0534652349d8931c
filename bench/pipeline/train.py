"""Verb: train a scale transformer on the tokens of one schedule, with early stopping.

Early stopping, the same for all methods: averaged weights are tried on the validation split every
eval_every steps, the best are kept, and with `patience` the training ends after so many evaluations
without a better one. The test split decides nothing.

The loss that selects is the one that is trained for, on the validation split; `kept_loss_val` is
its value for the kept weights:
- without intra-scale masks, and in the arm logit, the one-pass loss `loss_val`;
- with masks and mask_weight elbo, (1 - q) times `loss_val` plus q times the any-order bound
  `loss_val_any_order`, q the mask_prob;
- with another mask_weight, the weighted loss of masked tokens under mask_draws fixed draws of masks
  for each image.

The kept weights of a model with masks have their any-order bound measured on all test images,
`loss_test_any_order`; `intra_scale_gain` is their one-pass loss minus it, what own tokens can at
most buy. `kept_at_end` is 1 where the last step is kept.

With `correction` a step meets errors (`correcting`); what selects and what is measured does not.

Writes model.safetensors (the kept weights) and snapshots/step_<n>.safetensors; resumes from
resume.safetensors. Several processes (torchrun) share each batch and each evaluation; they take the
same steps as one.
"""

from __future__ import annotations

from ..runtime.verb import Run
from ..study.settings import TrainingConfig
from .correcting import corrects
from .trainer import Trainer, carry_out

INPUTS = ("data", "tokenizer", "tokens")
SHARED = True


def work(run: Run) -> None:
    correction = run.settings("training", TrainingConfig).correction
    carry_out(run, corrects(correction.name) or Trainer)
