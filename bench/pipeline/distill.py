"""Verb: train a scale transformer of fewer scales that starts from a teacher's weights.

Scale distillation is named by SRDD (arXiv 2509.22636). Only the beginning of the paper's text was
seen by us, so the arms are this project's own. An arm is a function `arm_<name>(run) -> Trainer`;
all share batches, held-out losses and early stopping of `train`, and write what it writes. The
held-out splits are real images in every arm. A teacher's own images have classes in the shares of
the training split, whatever `evaluation.labels` says: the student learns what a training on real
images would learn.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import torch

from srdd.checkpoint import load_model
from srdd.config import SamplerConfig
from srdd.distillation import (
    continued,
    distillation_loss,
    shared_logits,
    shared_scales,
    student_weights,
)
from srdd.lookup import find
from srdd.loss import next_scale_cross_entropy
from srdd.model import ScaleTransformer
from srdd.noise import ImageNoise, derive_seed
from srdd.quantizer import Ladder
from srdd.sampling import generate

from ..runtime.progress import Progress
from ..runtime.ranks import Ranks
from ..runtime.verb import Run
from ..study.schema import DistillSettings
from .labels import asked_labels
from .trainer import Trainer, carry_out
from .training import Batch

INPUTS = ("data", "tokenizer", "tokens", "teacher")
SHARED = True

SAMPLE_BATCH = 256


def sample_seeds(train_seed: int, count: int) -> list[int]:
    """Seeds of the teacher's images: of one training alone, and none that an evaluation draws."""
    return [derive_seed("distill sample", train_seed, i) for i in range(count)]


def teacher_tokens(
    teacher: ScaleTransformer,
    ladder: Ladder,
    sampler: SamplerConfig,
    labels_N: torch.Tensor,
    seeds: list[int],
    label: str,
    ranks: Ranks,
) -> np.ndarray:
    """The teacher's own images of given labels, re-encoded under the student's schedule: tokens,
    int32 of shape (N, L). ladder: the student's.

    They follow from seeds, so that a resumed run makes them again. Processes share the images and
    each gets all.
    """
    device = teacher.position.device
    own = ladder.quantizer.at(teacher.schedule)
    tokens_NL, mine = (
        torch.zeros(len(seeds), ladder.schedule.seq_len, dtype=torch.int32),
        ranks.rows(len(seeds)),
    )
    progress = Progress(label, mine.stop - mine.start, unit="image", shown=ranks.first)
    for i in range(mine.start, mine.stop, SAMPLE_BATCH):
        rows = slice(i, min(i + SAMPLE_BATCH, mine.stop))
        labels_B = labels_N[rows].to(device)
        _, f_hat_BChw = generate(teacher, own, labels_B, seeds[rows], sampler)
        with torch.no_grad():
            tokens_NL[rows] = ladder.encode(f_hat_BChw)[0].cpu().int()
        progress.advance(len(labels_B))
    progress.close()
    return ranks.total(tokens_NL).int().numpy()


class Student(Trainer):
    """A training on real tokens that starts from a teacher's weights."""

    def first_model(self) -> ScaleTransformer:
        self.about: DistillSettings = self.run.settings("distill", DistillSettings)
        path = self.run.inputs["teacher"] / "model.safetensors"
        self.teacher = load_model(path, self.about.teacher.model).to(self.run.device)
        self.teacher.requires_grad_(False)
        model = ScaleTransformer(self.model_config)
        model.load_state_dict(student_weights(self.teacher, self.model_config))
        return model


class SequenceStudent(Student):
    """Trained on the teacher's own images instead of real ones."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        seeds, sampler = sample_seeds(self.seed, self.about.num_samples), self.about.teacher.sampler
        classes, name = self.teacher.config.num_classes, f"{run.run_id} teacher"
        labels_N = asked_labels(run.inputs["data"], classes, range(len(seeds)), "training")
        self.tokens["train"] = teacher_tokens(
            self.teacher, self.ladder, sampler, labels_N, seeds, name, run.ranks
        )
        self.labels["train"] = labels_N.numpy()


class LogitStudent(Student):
    """Trained to predict what the teacher predicts where their tokens are one variable, and on what
    the teacher draws beyond."""

    masked = False  # in training: it is selected by the one-pass loss

    def draw(
        self, tokens_BL: torch.Tensor, labels_B: torch.Tensor, source: torch.Generator
    ) -> Batch:
        """Real tokens of the shared scales, then the teacher's, drawn anew at every step; all own
        tokens masked: the teacher is asked so.

        A process asks for its own images alone.
        """
        seeds = torch.randint(2**62, (len(labels_B),), generator=source).tolist()
        own, device, tokens_BL = (
            self.ladder.quantizer.at(self.teacher.schedule),
            self.run.device,
            tokens_BL.clone(),
        )
        mine = self.ranks.rows(len(labels_B))
        for i in range(mine.start, mine.stop, self.at_once):
            rows = slice(i, min(i + self.at_once, mine.stop))
            asked = (
                self.teacher.denoiser(),
                own,
                self.ladder,
                tokens_BL[rows].to(device),
                labels_B[rows].to(device),
            )
            tokens_BL[rows] = continued(*asked, ImageNoise(seeds[rows], device)).cpu()
        return replace(super().draw(tokens_BL, labels_B, source), own_BL=None)

    def loss(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """KL to the teacher at the shared scales (arXiv 1503.02531), cross-entropy of its tokens
        beyond, with the same classes dropped; and the cross-entropy of all these tokens.

        Both as shares of the batch's means.
        """
        inputs_BLC, share = self.inputs(part), len(part.labels_B) / part.images
        recompute = self.config.checkpointing
        hidden_BLD = self.hidden(inputs_BLC, part.labels_B, part.paths_E2B, None, recompute)
        logits_BLV = self.model.head(hidden_BLD)
        cross_entropy = next_scale_cross_entropy(logits_BLV.detach(), part.tokens_BL)
        schedule = self.model_config.schedule
        count = shared_scales(self.ladder.quantizer.at(self.teacher.schedule), self.ladder)
        shared, L = sum(schedule.lengths[:count]), schedule.seq_len
        loss = logits_BLV.new_zeros(())
        if count:  # at states of clean tokens: those may be corrupted that the student reads
            target_BlV = shared_logits(
                self.teacher.denoiser(), self.ladder, part.tokens_BL, part.labels_B, count
            )
            loss = loss + distillation_loss(logits_BLV[:, :shared], target_BlV) * (shared / L)
        if shared < L:
            beyond = next_scale_cross_entropy(logits_BLV[:, shared:], part.tokens_BL[:, shared:])
            loss = loss + beyond * (1 - shared / L)
        return loss * share, cross_entropy * share


def arm_real(run: Run) -> Trainer:
    """Fine-tune the teacher on real images, re-encoded with the reduced schedule."""
    return Student(run)


def arm_sequence(run: Run) -> Trainer:
    """Sequence-level: train on the teacher's own images, re-encoded with the reduced schedule."""
    return SequenceStudent(run)


def arm_logit(run: Run) -> Trainer:
    """Logit-level: match the teacher's distribution at the scales that both schedules begin with;
    beyond the first omitted one the teacher's tokens are another variable, so its own
    continuation of the image is re-encoded instead."""
    return LogitStudent(run)


def work(run: Run) -> None:
    arm = run.settings("distill", DistillSettings).arm
    carry_out(run, find(sys.modules[__name__], "arm", arm))
