"""Verb: an encoder goes on from a classifier under a frozen generator, in one way (arm), and is
measured.

With the arm's name behind each: `probe_accuracy`, `knn_accuracy`, `detail_r2` (and that of each
moment), `pixel_r2`, `nll` of test tokens given z, `intra_distance` and `inter_distance`,
`pair_accuracy`, and what the arm took: `token_evals`, `seconds`. Of the arm naive the cosine of its
two gradients along the steps (`gradient_cosine_naive`) and the share of steps in which it is
negative. Of the arm frozen the blind pairs, places in the test split by `repeat`. `_long`: the arm
went on until it had run as many tokens as dcr_codes.

Encoder and projector are those that `representation_encoder` left, the same for all arms of a
training seed; no arm but supervised reads a label. What an arm makes of the encoder is not kept.
strip.npz: the posterior over the conditions of one batch, before and after.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from torch import nn

from srdd.contrast import (
    Conditioned,
    conflict,
    dcr_loss,
    info_nce,
    pair_scores,
    reconstructions,
    row_contrast,
    tokens_run,
)

from ...pipeline.artefacts import model_identity, save_npz
from ...pipeline.datasets import to_float
from ...pipeline.encoders import Batches, Images, open_encoder, z_of
from ...pipeline.features import Classifier
from ...pipeline.features import loss as class_loss
from ...pipeline.labels import in_shares
from ...pipeline.training import check_finite
from ...runtime.clock import synchronise
from ...runtime.progress import Progress
from ...runtime.verb import Run
from ...study.errors import ConfigError
from .measures import (
    DETAIL,
    blind_pairs,
    class_distances,
    detail_of,
    knn_accuracy,
    probe_accuracy,
    ridge_r2,
)
from .plan import LONG, Settings

INPUTS = ("data", "tokenizer", "tokens", "train", "encoder")

BATCH = 512  # images or sequences of one pass without gradients
POINTS = 80  # of a curve along the steps, at most
# of what is no share
UNITS = {
    "detail_r2": "R2", "pixel_r2": "R2", "nll": "nats/token",
    "intra_distance": "1 - cosine", "inter_distance": "1 - cosine",
}  # fmt: skip

# ---------------------------------------------------------------- an arm


class Training:
    """An encoder on its way under a frozen generator; what a step draws follows from (training
    seed, step) alone, so that all arms see the same images, scales and views."""

    def __init__(
        self, settings: Settings, encoder: Classifier, frozen: Conditioned, batches: Batches
    ) -> None:
        self.settings, self.encoder, self.frozen, self.batches = settings, encoder, frozen, batches
        encoder.zero_grad()  # of the training as a classifier
        self.cosines: list[float] = []
        self.step, self.token_evals, self.seconds = 0, 0, 0.0

    def scale(self, step: int) -> int | None:
        """The scale of a step; None for all."""
        if self.settings.scales == "all":
            return None
        K, source = self.frozen.model.schedule.num_scales, self.batches.source("scale", step)
        return int(torch.randint(K, (1,), generator=source))

    def z(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """z_BZ of images in [-1, 1]."""
        return z_of(self.encoder, images_BCHW)

    def count(self, sequences: int, k: int | None) -> None:
        """Count the tokens of so many sequences."""
        self.token_evals += sequences * tokens_run(self.frozen.model, k)

    def has_budget(self) -> bool:
        """Whether the tokens that dcr_codes takes are not yet spent."""
        return self.token_evals < self.budget

    @cached_property
    def budget(self) -> int:
        """Tokens that dcr_codes takes for the steps of an arm, B (B + 1) sequences each."""
        scales = map(self.scale, range(self.settings.steps))
        tokens = sum(tokens_run(self.frozen.model, k) for k in scales)
        return tokens * self.settings.batch * (self.settings.batch + 1)

    def losses(self, arm: str) -> list[torch.Tensor]:
        """The losses of this step, whose sum is minimised."""
        rows, images_BCHW, view_BCHW, tokens_BL = self.batches.of(self.step)
        if arm == "supervised":
            train, device = self.batches.train, self.batches.device
            labels_B = torch.from_numpy(train.labels_N[rows]).to(device)
            read = train.images.read(rows).to(device)
            return [class_loss(self.encoder, read, labels_B)]
        z_BZ, k = self.z(images_BCHW), self.scale(self.step)
        if arm == "contrast":
            return [self.contrast(z_BZ, view_BCHW)]
        if arm == "dcr_codes":
            return [self.dcr_by_codes(tokens_BL, z_BZ, view_BCHW, k)]
        if arm == "dcr_loglik":
            return [self.dcr_by_likelihoods(tokens_BL, z_BZ, k)]
        self.count(len(rows), k)
        nll = self.frozen.nll(tokens_BL, z_BZ, k)
        return [nll] if arm == "recon" else [nll, self.contrast(z_BZ, view_BCHW)]

    def contrast(self, z_BZ: torch.Tensor, view_BCHW: torch.Tensor) -> torch.Tensor:
        """InfoNCE of images and their other views (CPC, arXiv 1807.03748, equation 4)."""
        return info_nce(z_BZ, self.z(view_BCHW), self.settings.tau)

    def dcr_by_codes(
        self, tokens_BL: torch.Tensor, z_BZ: torch.Tensor, view_BCHW: torch.Tensor, k: int | None
    ) -> torch.Tensor:
        """The loss of DCR (arXiv 2603.04803) on expected codes, mean over the scales that run."""
        B, frozen = len(tokens_BL), self.frozen
        condition_BD = frozen.condition(z_BZ)
        self.count(B * (B + 1), k)
        view_BD = frozen.condition(self.z(view_BCHW))
        given = frozen.model, frozen.ladder, tokens_BL, condition_BD, view_BD, k
        tau = self.settings.tau
        return torch.stack([dcr_loss(*one, tau) for one in reconstructions(*given)]).mean()

    def dcr_by_likelihoods(
        self, tokens_BL: torch.Tensor, z_BZ: torch.Tensor, k: int | None
    ) -> torch.Tensor:
        """Contrast of the log-likelihoods of all pairs, in place of the scores of DCR (arXiv
        2603.04803), plus the mean NLL of a token under its own condition."""
        B, frozen = len(tokens_BL), self.frozen
        condition_BD = frozen.condition(z_BZ)
        self.count(B * B, k)
        each_BB = pair_scores(frozen.model, frozen.ladder, tokens_BL, condition_BD, k)
        lengths = frozen.model.schedule.lengths
        tokens = sum(lengths) if k is None else lengths[k]
        own = torch.stack([scores_BB.diagonal().mean() for scores_BB in each_BB]).sum()
        contrast = torch.stack([row_contrast(scores_BB) for scores_BB in each_BB]).mean()
        return contrast - own / tokens

    def run_steps(self, arm: str, more: Callable[[], bool], after_step: Callable[[], None]) -> None:
        """Steps of an arm as long as `more` says; an optimizer is begun once."""
        weights = list(self.encoder.parameters() if arm == "supervised" else self.trunk_weights)
        synchronise(self.batches.device)
        began = time.perf_counter()
        while more():
            losses = self.losses(arm)
            check_finite(sum(loss.item() for loss in losses), self.step)
            for weight, gradient in zip(weights, self.gradients(losses, weights)):
                weight.grad = gradient
            self.optimizer.step()
            self.step += 1
            after_step()
        synchronise(self.batches.device)  # the last step may still be at work on a GPU
        self.seconds += time.perf_counter() - began

    def gradients(
        self, losses: list[torch.Tensor], weights: list[nn.Parameter]
    ) -> list[torch.Tensor]:
        """Gradients of the sum of losses; of two losses their cosine is kept."""
        if len(losses) == 1:
            return list(torch.autograd.grad(losses[0], weights))
        cosine, gradients = conflict(losses[0], losses[1], weights)
        self.cosines.append(cosine)
        return gradients

    @property
    def trunk_weights(self) -> list[nn.Parameter]:
        """Weights behind z."""
        return list(self.encoder.trunk.parameters())

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """Adam of all weights of the encoder; those without a gradient stay."""
        return torch.optim.Adam(self.encoder.parameters(), lr=self.settings.lr)


# ---------------------------------------------------------------- measures


class Measured:
    """Test images, and the training images that probes learn from."""

    def __init__(self, run: Run, settings: Settings, frozen: Conditioned, train: Images) -> None:
        self.run, self.settings, self.frozen = run, settings, frozen
        self.device = run.device
        self.train, self.rows_M = train, in_shares(train.labels_N, settings.probe_images)
        if settings.neighbours > len(self.rows_M):
            raise ConfigError(
                f"representation.neighbours: {settings.neighbours}: more than the "
                f"{len(self.rows_M)} training images that probes read; give fewer"
            )
        self.test = Images.of(run, "test")
        count = settings.num_images or len(self.test.labels_N)
        self.rows_N = in_shares(self.test.labels_N, count)
        self.seen_NCHW = self.test.images.read(self.rows_N.tolist())
        self.tokens_NL = self.test.tokens_NL[self.rows_N]
        self.labels_N = self.test.labels_N[self.rows_N]
        self.labels_M = train.labels_N[self.rows_M]
        self.identity = {**model_identity(run), "num_images": len(self.rows_N)}

    @cached_property
    def known_MCHW(self) -> torch.Tensor:
        """Training images of the probes."""
        return self.train.images.read(self.rows_M.tolist())

    @torch.no_grad()
    def z(self, encoder: Classifier, images_NCHW: torch.Tensor) -> torch.Tensor:
        """z of uint8 images, in evaluation mode, on the CPU."""
        encoder.eval()
        parts = (to_float(part.to(self.device)) for part in images_NCHW.split(BATCH))
        return torch.cat([z_of(encoder, part).float().cpu() for part in parts])

    def find_pairs(self, encoder: Classifier) -> None:
        """Find the blind pairs of the encoder that every arm begins with. Raises ConfigError where
        the test images have too few."""
        z_NZ, tokens = self.z(encoder, self.seen_NCHW).numpy(), self.tokens_NL.numpy()
        try:
            self.pairs_P2, self.cosine_P = blind_pairs(
                z_NZ, self.labels_N, tokens, self.settings.pairs
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def add(self, metric: str, value: float, unit: str, **where: int) -> None:
        """Report one number of this model."""
        self.run.add(metric, value, unit, **self.identity, **where)

    def add_pairs(self) -> None:
        """Report which images the blind pairs are, by their places in the test split."""
        for place, (pair, cosine) in enumerate(zip(self.pairs_P2, self.cosine_P)):
            for name, row in zip(("pair_first", "pair_second"), self.rows_N[pair]):
                self.add(name, int(row), "image", repeat=place)
            self.add("pair_cosine", float(cosine), "cosine", repeat=place)

    def pair_accuracy(self, z_NZ: torch.Tensor) -> float:
        """Share of blind pairs of which both images are likelier under their own condition than
        under the other's."""
        a_P, b_P = torch.from_numpy(self.pairs_P2).T
        images, given = torch.cat((a_P, a_P, b_P, b_P)), torch.cat((a_P, b_P, b_P, a_P))
        scores = self.frozen.scores(self.tokens_NL[images], z_NZ[given]).view(4, -1)
        right_P = (scores[0] > scores[1]) & (scores[2] > scores[3])
        return right_P.double().mean().item()

    def report(self, name: str, encoder: Classifier) -> dict[str, float]:
        """Report every measure of an encoder under a name; returns them."""
        train_z = self.z(encoder, self.known_MCHW).numpy()
        z_NZ = self.z(encoder, self.seen_NCHW)
        probed = train_z, self.labels_M, z_NZ.numpy(), self.labels_N
        values = {"probe_accuracy": probe_accuracy(*probed)}
        values["knn_accuracy"] = knn_accuracy(*probed, self.settings.neighbours)
        details, pixels = (
            ridge_r2(train_z, of(self.known_MCHW.numpy()), z_NZ.numpy(), of(self.seen_NCHW.numpy()))
            for of in (detail_of, lambda images: images.reshape(len(images), -1) / 255)
        )
        values["detail_r2"], values["pixel_r2"] = float(details[0].mean()), pixels[1]
        tokens = self.tokens_NL.shape[1]
        values["nll"] = -float(self.frozen.scores(self.tokens_NL, z_NZ).mean()) / tokens
        intra, inter = class_distances(z_NZ.numpy(), self.labels_N)
        values |= {"intra_distance": intra, "inter_distance": inter}
        values["pair_accuracy"] = self.pair_accuracy(z_NZ)
        for measure, value in values.items():
            self.add(f"{measure}_{name}", value, UNITS.get(measure, "share"))
        for moment, value in zip(DETAIL, details[0].tolist()):
            self.add(f"detail_r2_{moment}_{name}", value, "R2")
        return values

    @torch.no_grad()
    def posterior(self, encoder: Classifier) -> np.ndarray:
        """How likely each condition of a batch is given each image's tokens, all conditions equally
        likely before: uint8 (1, 1, B, B), 255 for 1. One image of each class follows another."""
        order = np.argsort(self.labels_N, kind="stable")[
            in_shares(np.sort(self.labels_N), self.settings.batch)
        ]
        z_BZ = self.z(encoder, self.seen_NCHW[order]).to(self.device)
        asked = self.tokens_NL[order].to(self.device), self.frozen.condition(z_BZ)
        scores = pair_scores(self.frozen.model, self.frozen.ladder, *asked)
        posterior_BB = torch.stack(scores).double().sum(0).softmax(1)
        return (255 * posterior_BB).round().byte().cpu().numpy()[None, None]


# ---------------------------------------------------------------- work


def report_training(measured: Measured, name: str, training: Training) -> None:
    """What an arm took, and how its gradients agreed."""
    measured.add(f"token_evals_{name}", training.token_evals, "tokens")
    measured.add(f"seconds_{name}", training.seconds, "s")
    if name != "naive":
        return
    cosines = np.array(training.cosines)
    measured.add("conflict_share_naive", float((cosines < 0).mean()), "share")
    measured.add("gradient_cosine_naive", float(cosines.mean()), "cosine")
    for part in np.array_split(np.arange(len(cosines)), min(POINTS, len(cosines))):
        mean, last = float(cosines[part].mean()), int(part[-1]) + 1
        measured.add("gradient_cosine_naive", mean, "cosine", step=last)


def checkpoints(
    training: Training, arm: str, equal_tokens: bool
) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Names under which an arm is measured, and how long it goes on until then."""
    steps = 0 if arm == "frozen" else training.settings.steps
    yield arm, lambda: training.step < steps
    if equal_tokens and arm in LONG:
        yield f"{arm}_long", training.has_budget


def work(run: Run) -> None:
    settings, arm = run.settings("representation", Settings), run.config["arm"]
    train = Images.of(run, "train")
    start, frozen = open_encoder(run, settings.dim)
    measured = Measured(run, settings, frozen, train)
    measured.find_pairs(start)
    batches = Batches(train, settings.batch, run.config["train_seed"], run.device)
    training = Training(settings, copy.deepcopy(start), frozen, batches)
    progress = Progress(run.run_id, settings.steps)
    for name, more in checkpoints(training, arm, settings.equal_tokens):
        training.run_steps(arm, more, progress.advance)
        report_training(measured, name, training)
        values = measured.report(name, training.encoder)
        numbers = ", ".join(f"{key} {value:.3f}" for key, value in values.items())
        run.say(f"{name}: {numbers}; {training.token_evals} tokens, {training.seconds:.1f} s")
    progress.close()
    if arm == "frozen":
        measured.add_pairs()
    before, after = measured.posterior(start), measured.posterior(training.encoder)
    save_npz(run.out / "strip.npz", before=before, after=after)
