"""Verb: train a scale transformer of fewer scales that starts from a teacher's weights.

Scale distillation is named by SRDD (arXiv 2509.22636). Only the beginning of the paper's text was
seen by us, so the arms are this project's own. An arm is a function `arm_<name>(run) -> Trainer`;
all share batches, held-out losses and early stopping of `train`, and write what it writes. The
held-out splits are real images in every arm. A teacher's own images have classes in the shares of
the training split, whatever `evaluation.labels` says: the student learns what a training on real
images would learn.

The arm `cca` and its control `cross_entropy` train the teacher on, in its own schedule, and keep
the last step: what CCA (arXiv 2410.09347) wants raises the held-out loss that selects elsewhere.
They also report, for the teacher (step 0) and every snapshot:
- `reward_margin`: beta times how much more log p of test images has grown since the teacher under
  their own class than under a wrong one, mean over images;
- `loss_test_uncond`: their cross-entropy in one pass without a class, nats a token.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from srdd.checkpoint import load_model
from srdd.config import SamplerConfig
from srdd.distillation import (
    continued,
    distillation_loss,
    restorer_weights,
    shared_logits,
    shared_scales,
    student_weights,
)
from srdd.lookup import find
from srdd.loss import cca_loss, next_scale_cross_entropy, token_losses
from srdd.model import ScaleTransformer
from srdd.noise import ImageNoise, derive_seed, first_weights, generator
from srdd.quantizer import Ladder
from srdd.sampling import generate

from ..runtime.progress import Progress
from ..runtime.ranks import Ranks
from ..runtime.verb import Run
from ..study.schema import DistillSettings
from .artefacts import model_identity, snapshot_path
from .held_out import EVAL_TOKENS, HeldOut
from .labels import asked_labels
from .told import RestoreTrainer
from .trainer import Trainer, carry_out
from .training import Batch, Contrast, batch_indices
from .training_log import Kept

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
        with first_weights(self.seed):
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
            self.ladder.quantizer.at(self.teacher.schedule).read_as(self.teacher.config.state),
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


# ---------------------------------------------------------------- alignment with classes


def log_likelihood(
    hidden: Callable[..., torch.Tensor],
    head: torch.nn.Module,
    inputs_BLC: torch.Tensor,
    tokens_BL: torch.Tensor,
    labels_HB: torch.Tensor,
    recompute: bool = False,
) -> torch.Tensor:
    """Exact log p(image | class) of each image under each of H classes, summed over tokens, nats
    (VAR, arXiv 2404.02905, equation 5). Returns float64 (H, B).

    hidden, head: of a model without intra-scale masks.
    """
    H = len(labels_HB)
    inputs_NLC, tokens_NL = inputs_BLC.repeat(H, 1, 1), tokens_BL.repeat(H, 1)
    logits_NLV = head(hidden(inputs_NLC, labels_HB.flatten(), None, None, recompute))
    # in float64: of a sum of hundreds of nats what counts is a difference of tenths
    log_p_N = -token_losses(logits_NLV, tokens_NL).sum(1, dtype=torch.float64)
    return log_p_N.unflatten(0, labels_HB.shape)


class ControlStudent(Student):
    """A teacher that is trained on, by cross-entropy, with the batches of `CcaStudent`; the last
    step is kept."""

    def batch(self, step: int) -> Contrast:
        """Images with their classes and those of the images before them, of the whole batch; some
        lose both (CCA, arXiv 2410.09347)."""
        labels_N, size = self.labels["train"], self.config.batch_size
        indices = np.array(batch_indices(len(labels_N), size, self.seed, step))
        source = generator("train step", self.seed, step)
        labels_B = torch.from_numpy(labels_N[indices])
        dropped_B = torch.rand(size, generator=source) < self.about.cca.uncond
        own_B, rolled_B = (
            one_B.masked_fill(dropped_B, self.model_config.null_label)
            for one_B in (labels_B, labels_B.roll(1))
        )
        tokens_BL = torch.from_numpy(self.tokens["train"][indices].astype(np.int64))
        drawn = self.draw(tokens_BL, own_B, source)
        return Contrast(**vars(drawn), rolled_B=rolled_B)

    def evaluate(self, losses: list[float]) -> None:
        """Held-out losses now; these weights are kept, whatever the losses are."""
        self.state.best_loss = None
        super().evaluate(losses)

    def take_best(self) -> Kept:
        """The last weights into the model, and what has become of its teacher on the way."""
        steps = range(0, self.state.step, self.config.snapshot_every)
        self.ranks.wait()  # for the last snapshot
        self.course = {step: self.progress(step) for step in (*steps, self.state.step)}
        return super().take_best()

    @torch.no_grad()
    def progress(self, step: int) -> tuple[float, float]:
        """Reward margin (CCA, arXiv 2410.09347) and loss without a class, nats a token, of the
        snapshot of a step on test images; step 0: the teacher. Every process takes part."""
        model, test = self.teacher, self.split("test")
        if step:
            model = load_model(snapshot_path(self.run.out, step)).to(self.run.device)
        if self.eval_rows is not None:
            test = test.some(self.eval_rows)
        sums_2 = torch.zeros(2, dtype=torch.float64)
        classes, mine = self.model_config.num_classes, self.ranks.rows(len(test))
        own_N = torch.from_numpy(test.labels_N)
        # one of the wrong classes, each as likely as the others
        source = generator("wrong classes", test.name)
        wrong_N = (own_N + torch.randint(1, classes, own_N.shape, generator=source)) % classes
        labels_3N = torch.stack((own_N, wrong_N, torch.full_like(own_N, classes)))
        at_once = max(1, EVAL_TOKENS // (3 * model.schedule.seq_len))
        for i in range(mine.start, mine.stop, at_once):
            rows = slice(i, min(i + at_once, mine.stop))
            sums_2 += self._progress_of(model, test, rows, labels_3N[:, rows])
        margin, loss = self.ranks.total(sums_2).tolist()
        count, length = len(test), model.schedule.seq_len
        return self.beta * margin / count, loss / (count * length)

    def _progress_of(
        self, model: ScaleTransformer, data: HeldOut, rows: slice, labels_3B: torch.Tensor
    ) -> torch.Tensor:
        """Sums over some images: growth of log p under the own class minus under the wrong one, and
        -log p under none, float64 (2,)."""
        tokens_BL = torch.from_numpy(data.tokens_NL[rows].astype(np.int64)).to(data.device)
        given = self.ladder.teacher_forced_inputs(tokens_BL), tokens_BL
        labels_3B = labels_3B.to(data.device)
        log_p_3B = log_likelihood(model.hidden, model.head, *given, labels_3B)
        ref_2B = log_likelihood(self.teacher.hidden, self.teacher.head, *given, labels_3B[:2])
        own_B, wrong_B = log_p_3B[:2] - ref_2B
        return torch.stack(((own_B - wrong_B).sum(), -log_p_3B[2].sum())).cpu()

    @property
    def beta(self) -> float:
        """Sharpness of the contrast at this many tokens."""
        return self.about.cca.beta_tokens / self.model_config.schedule.seq_len

    def report(self, kept: Kept) -> None:
        """The rows of a training, and those of the contrast along it."""
        super().report(kept)
        for step, (margin, loss) in self.course.items():
            names = {**model_identity(self.run), "step": step}
            self.run.add("reward_margin", margin, "nats", **names)
            self.run.add("loss_test_uncond", loss, "nats/token", **names)


class CcaStudent(ControlStudent):
    """A teacher that learns to tell each image's class from another one."""

    def loss(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Condition contrastive alignment (CCA, arXiv 2410.09347) against the teacher, and the
        cross-entropy under the own class, as shares of the batch's means."""
        assert isinstance(part, Contrast)
        labels_2B = torch.stack((part.labels_B, part.rolled_B))
        given = self.inputs(part), part.tokens_BL, labels_2B
        log_p_2B = log_likelihood(self.hidden, self.model.head, *given, self.config.checkpointing)
        with torch.no_grad():
            ref_2B = log_likelihood(self.teacher.hidden, self.teacher.head, *given)
        # an image without a class, or one whose neighbour has the same, is positive in both
        positive_2B, cca = labels_2B == part.labels_B, self.about.cca
        loss = cca_loss(log_p_2B, ref_2B, positive_2B, self.beta, cca.lambda_)
        share = len(part.labels_B) / part.images
        cross_entropy = -log_p_2B[0].detach().mean() / part.tokens_BL.shape[1]
        return loss.float() * share, cross_entropy.float() * share


class RestoreStudent(RestoreTrainer):
    """A training on degraded images that starts from a teacher which was told none."""

    def first_model(self) -> ScaleTransformer:
        """The teacher without a class, and what reads degraded images drawn anew (RestoreVAR, arXiv
        2505.18047)."""
        about = self.run.settings("distill", DistillSettings)
        path = self.run.inputs["teacher"] / "model.safetensors"
        teacher, model = load_model(path, about.teacher.model), super().first_model()
        model.load_state_dict(restorer_weights(teacher, model))
        return model


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


def arm_cca(run: Run) -> Trainer:
    """Condition contrastive alignment (CCA, arXiv 2410.09347): each image is made more likely under
    its class than the teacher has it, and less likely under that of another image."""
    return CcaStudent(run)


def arm_restore(run: Run) -> Trainer:
    """Fine-tune the teacher to restore degraded images that it is told by `model.condition`, which
    at first changes nothing (RestoreVAR, arXiv 2505.18047, goes on from VAR's public weights)."""
    return RestoreStudent(run)


def arm_cross_entropy(run: Run) -> Trainer:
    """The control of `cca`: the same images and dropped classes at every step, plain
    cross-entropy."""
    return ControlStudent(run)


def work(run: Run) -> None:
    arm = run.settings("distill", DistillSettings).arm
    carry_out(run, find(sys.modules[__name__], "arm", arm))
