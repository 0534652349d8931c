"""Verb: train a scale transformer that restores degraded images, with early stopping.

After RestoreVAR (arXiv 2505.18047): the tokens of the clean image are predicted, teacher-forced,
and the network is told the degraded image by `model.condition`. Each image of a step has one of
`restore.degradations`, drawn for the step; what a degradation makes of an image is always the same.
All else is as in `train`. Held-out losses take the degradations in turn.

The accuracy of these losses is teacher-forced: coarser tokens are true. It is no restoration, which
`restoration` measures.

Writes model.safetensors (the kept weights) and snapshots/step_<n>.safetensors; resumes from
resume.safetensors.
"""

from __future__ import annotations

from ..runtime.verb import Run
from .told import RestoreTrainer
from .trainer import carry_out

INPUTS = ("data", "tokenizer", "tokens")
SHARED = True


def work(run: Run) -> None:
    carry_out(run, RestoreTrainer)
