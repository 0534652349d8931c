"""What a model makes of an image's ladder: its likeliest residuals, one step or many ahead; and
how steady its gradients are. Measures after arXiv 2510.02826, our definitions.

B images, K scales, l tokens of one scale, C channels of the latent, L tokens of all scales
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from .loss import linear_cross_entropy, regression_errors
from .model import ScaleTransformer
from .tokenizer import Tokenizer


class TrueLadder(NamedTuple):
    """An image's true ladder (VAR, arXiv 2404.02905, algorithm 1): residual_BlC of each scale, the
    states after each, what the network reads, and what it is to predict, tokens or residuals."""

    residuals: list[torch.Tensor]
    states: list[torch.Tensor]
    inputs_BLC: torch.Tensor
    wanted_BL: torch.Tensor


def errors_of(images_BCHW: torch.Tensor, other_BCHW: torch.Tensor) -> float:
    """Mean square error of images in [-1, 1], cut off there (arXiv 2510.02826)."""
    return (images_BCHW.clamp(-1, 1) - other_BCHW).square().mean().item()


class Refiner:
    """A model with its tokenizer, asked what it would add to given states (arXiv 2510.02826)."""

    def __init__(self, model: ScaleTransformer, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.ladder = tokenizer.at(model.schedule).read_as(model.config.state)
        self.regresses = model.config.regresses

    @torch.no_grad()
    def true_ladder(self, images_BCHW: torch.Tensor) -> TrueLadder:
        """Of tokens for a head of codes (VAR, arXiv 2404.02905, algorithm 1), of nothing quantised
        for a regression."""
        latent_BChw, ladder = self.tokenizer.to_latent(images_BCHW), self.ladder
        if self.regresses:
            residuals, states = (list(part) for part in zip(*ladder.residuals(latent_BChw)))
            return TrueLadder(residuals, states, *ladder.regression_pairs(latent_BChw))
        tokens_BL, _ = ladder.encode(latent_BChw)
        residuals = [ladder.quantizer.embed(tokens_BL[:, s]) for s in ladder.schedule.slices]
        states, inputs_BLC = list(ladder.states(tokens_BL)), ladder.teacher_forced_inputs(tokens_BL)
        return TrueLadder(residuals, states, inputs_BLC, tokens_BL)

    def likeliest(self, predicted: torch.Tensor) -> torch.Tensor:
        """Residuals of what a head gives (arXiv 2510.02826): codes of the largest logits, or the
        mean itself."""
        if self.regresses:
            return predicted
        return self.ladder.quantizer.embed(predicted.argmax(-1))

    def loss(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """The loss of a head in one pass (VAR, arXiv 2404.02905, equation 5), with a gradient:
        every own token is masked."""
        true = self.true_ladder(images_BCHW)
        hidden_BLD, head = self.model.hidden(true.inputs_BLC, labels_B), self.model.head
        if self.regresses:
            return regression_errors(head(hidden_BLD), true.wanted_BL).mean()
        return linear_cross_entropy(hidden_BLD, head, true.wanted_BL)

    # ------------------------------------------------------------ errors

    def empty_error(self, images_BCHW: torch.Tensor) -> float:
        """Error of the image of an empty latent (arXiv 2510.02826)."""
        empty_BChw = self.ladder.empty_state(len(images_BCHW))
        return errors_of(self.tokenizer.to_image(empty_BChw), images_BCHW)

    def errors(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """Errors after each step, earlier ones true (arXiv 2510.02826): the step at its likeliest,
        and the true one.
        Returns float64 (2, K)."""
        true = self.true_ladder(images_BCHW)
        predicted = self.model(true.inputs_BLC, labels_B)
        before_BChw, rows = self.ladder.empty_state(len(labels_B)), []
        for k, piece in enumerate(self.ladder.schedule.slices):
            guess_BlC = self.likeliest(predicted[:, piece])
            guess_BChw = self.ladder.add_scale(before_BChw, guess_BlC, k)
            before_BChw = true.states[k]
            row = [self.tokenizer.to_image(state) for state in (guess_BChw, before_BChw)]
            rows.append([errors_of(image_BCHW, images_BCHW) for image_BCHW in row])
        return torch.tensor(rows, dtype=torch.float64).T

    def kept_errors(
        self, seen_BCHW: torch.Tensor, clean_BCHW: torch.Tensor, labels_B: torch.Tensor
    ) -> torch.Tensor:
        """Errors against clean images where the first m scales are those of the images seen and
        the likeliest follow, m = 0 ... K (noise shift of arXiv 2510.02826). Returns float64
        (K + 1,)."""
        residuals, errors = self.true_ladder(seen_BCHW).residuals, []
        for kept in range(self.ladder.schedule.num_scales + 1):
            f_hat_BChw = self.gone_on(residuals[:kept], labels_B)
            errors.append(errors_of(self.tokenizer.to_image(f_hat_BChw), clean_BCHW))
        return torch.tensor(errors, dtype=torch.float64)

    def gone_on(self, residuals: list[torch.Tensor], labels_B: torch.Tensor) -> torch.Tensor:
        """The last state where these residuals are given and the likeliest follow (arXiv
        2510.02826)."""
        denoise = self.model.denoiser()
        f_hat_BChw = seen_BChw = self.ladder.empty_state(len(labels_B))
        for k in range(self.ladder.schedule.num_scales):
            # asked for given scales too: later ones may read their keys
            predicted = denoise(self.ladder.read_scale(seen_BChw, k), k, labels_B)
            given = residuals[k] if k < len(residuals) else self.likeliest(predicted)
            f_hat_BChw, seen_BChw = self.ladder.after(f_hat_BChw, given, k)
        return f_hat_BChw

    def additions(self, images_BCHW: torch.Tensor, space: str) -> list[torch.Tensor]:
        """What each step of the true ladder adds, in the latent or in the image (arXiv
        2510.02826)."""
        states = self.true_ladder(images_BCHW).states
        states = [self.ladder.empty_state(len(images_BCHW)), *states]
        if space == "image":
            states = [self.tokenizer.to_image(state) for state in states]
        return [after - before for before, after in zip(states, states[1:])]


# ---------------------------------------------------------------- gradients

TRUNK = ("blocks.", "input.")  # not the head: heads differ in size


def trunk(model: ScaleTransformer) -> list[nn.Parameter]:
    """The weights that models of any head have alike, blocks and input (arXiv 2510.02826)."""
    return [weight for name, weight in model.named_parameters() if name.startswith(TRUNK)]


# times as many losses as there are: beyond, a gradient noise is not told from an infinite one
MOST_NOISE = 10


def gradient_noise(losses: Iterable[torch.Tensor], weights: list[nn.Parameter]) -> float:
    """tr / (|g|^2 - tr / M), g the mean of the gradients of M losses and tr the trace of their
    covariance (after the noise scale of arXiv 1812.06162, equation 2.9, of whole batches).

    Any factor on the losses drops out. |g|^2 - tr / M is an unbiased estimate of the squared norm
    of the true gradient. Above MOST_NOISE M the mean of M gradients hardly stands out of their
    noise: NaN. Raises ValueError for fewer than two losses.
    """
    total_P, squares, M = torch.zeros((), dtype=torch.float64), 0.0, 0
    for loss in losses:
        parts = torch.autograd.grad(loss, weights, allow_unused=True)
        flat_P = torch.cat([part.flatten() for part in parts if part is not None]).double().cpu()
        total_P, squares, M = total_P + flat_P, squares + flat_P.square().sum().item(), M + 1
    if M < 2:
        raise ValueError(f"{M} losses: gradients are compared among two or more")
    norm = (total_P / M).square().sum().item()
    # sum |g_i - g|^2 = sum |g_i|^2 - M |g|^2
    trace = max(0.0, squares - M * norm) / (M - 1)
    signal = norm - trace / M
    return trace / signal if signal > 0 and trace <= MOST_NOISE * M * signal else math.nan
