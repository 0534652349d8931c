"""Losses of reconstructed images beside their pixels: in the activations of a network, and by a
discriminator that learns beside the tokenizer.

Both are told as gradients of the reconstructed images, so that each network is passed once, however
many norms of gradients the adaptive weight asks for. Of processes that share a batch each passes
its own images; norms are those of the whole batch, and so are the discriminator's gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from srdd.discriminator import (
    PatchDiscriminator,
    adaptive_weight,
    adversarial_loss,
    discriminator_loss,
)
from srdd.loss import TokenizerLoss
from srdd.noise import generator

from ..runtime.ranks import Ranks
from ..runtime.verb import Run
from ..study.tokenizer_settings import TokenizerSpec, TokenizerTraining
from .perceptual import Perceptual, open_perceptual
from .shared_batch import average_gradients, mean
from .training import learning_rate, pack_optimizer, unpack_optimizer

FINAL_LR = 0.05  # of the discriminator's peak, as of the tokenizer's
BETAS = (0.5, 0.9)  # as VQGAN and VAR's tokenizer train with


class Judged(NamedTuple):
    """Losses of one step, and what the adversarial one was multiplied by; None where they are off,
    or not yet on."""

    loss_perceptual: torch.Tensor | None = None
    loss_adversarial: torch.Tensor | None = None
    loss_discriminator: torch.Tensor | None = None
    adversarial_weight: torch.Tensor | None = None

    def numbers(self, ranks: Ranks) -> dict[str, float]:
        """Those that are on, by name, of the whole batch."""
        tensors = {name: value for name, value in self._asdict().items() if value is not None}
        return {name: mean(value.detach(), ranks).item() for name, value in tensors.items()}


class Adversary:
    """A discriminator, its optimizer, and when it begins."""

    def __init__(self, run: Run, spec: TokenizerSpec, seed: int) -> None:
        sizes, self.config, self.ranks = spec.training.discriminator, spec.training, run.ranks
        network = PatchDiscriminator(spec.config.in_channels, sizes.channels, sizes.layers)
        network.init_weights(generator("discriminator", seed))
        self.network = network.to(run.device)
        # a share just below 1 must not round to a training without it
        begin = round(self.config.adversarial_start * self.config.steps)
        self.begin = min(begin, self.config.steps - 1)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=sizes.lr, betas=BETAS, weight_decay=sizes.weight_decay
        )

    def learn(self, real_BCHW: torch.Tensor, fake_BCHW: torch.Tensor, step: int) -> torch.Tensor:
        """One step of the discriminator; returns its loss, of this process's images."""
        config = self.config
        for group in self.optimizer.param_groups:
            after, steps = step - self.begin, config.steps - self.begin
            group["lr"] = learning_rate(after, steps, config.discriminator.lr, 0, FINAL_LR)
        # one pass over both: groups are normalised, so that no image sees another
        real_B1hw, fake_B1hw = self.network(torch.cat([real_BCHW, fake_BCHW])).chunk(2)
        loss = discriminator_loss(real_B1hw, fake_B1hw)
        self.optimizer.zero_grad()
        loss.backward()
        average_gradients(self.network.parameters(), self.ranks)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint to resume from must hold."""
        tensors = {f"discriminator.{key}": v for key, v in self.network.state_dict().items()}
        return tensors | pack_optimizer(self.optimizer, "discriminator_optimizer.")

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        weights = {key: tensors[f"discriminator.{key}"] for key in self.network.state_dict()}
        self.network.load_state_dict(weights)
        unpack_optimizer(tensors, self.optimizer, "discriminator_optimizer.")


class ImageLosses:
    """The perceptual and the adversarial loss of a training, each where it is on."""

    def __init__(self, run: Run, spec: TokenizerSpec, seed: int) -> None:
        self.config: TokenizerTraining = spec.training
        self.ranks = run.ranks
        self.perceptual: Perceptual | None = None
        if self.config.perceptual:
            self.perceptual = open_perceptual(run, self.config)
        self.adversary: Adversary | None = None
        if self.config.adversarial:
            self.adversary = Adversary(run, spec, seed)

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint to resume from must hold."""
        return self.adversary.state() if self.adversary else {}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        if self.adversary:
            self.adversary.restore(tensors)

    def backward(
        self, losses: TokenizerLoss, images: torch.Tensor, last: torch.Tensor | None, step: int
    ) -> Judged:
        """Gradients of all losses of a step, of this process's images, and a step of the
        discriminator.

        last: weights of the decoder's last layer, where gradients are compared; None: without
        an adversarial loss.
        """
        adversary = self.adversary if self.adversary and step >= self.adversary.begin else None
        if not (self.perceptual or adversary):
            losses.total.backward()
            return Judged()
        seen = losses.images.detach().requires_grad_()
        told, perceptual = torch.zeros_like(seen), None
        if self.perceptual:
            perceptual = self.perceptual.distance(seen, images)
            told = self.config.perceptual * torch.autograd.grad(perceptual, seen)[0]
        judged = Judged(perceptual)
        if adversary:
            assert last is not None
            adversarial = adversarial_loss(adversary.network(seen))
            pixels = torch.autograd.grad(F.mse_loss(seen, images), seen)[0]
            (against,) = torch.autograd.grad(adversarial, seen)
            at_last = [
                torch.autograd.grad(losses.images, last, gradient, retain_graph=True)[0]
                for gradient in (pixels + told, against)
            ]
            # norms are no means over images: those of the whole batch's gradients are compared
            ratio = adaptive_weight(*(mean(gradient, self.ranks) for gradient in at_last))
            weight = self.config.adversarial * ratio
            told = told + weight * against
            judged = judged._replace(loss_adversarial=adversarial, adversarial_weight=weight)
        torch.autograd.backward([losses.total, losses.images], [None, told])
        if adversary:
            judged = judged._replace(
                loss_discriminator=adversary.learn(images, seen.detach(), step)
            )
        return judged
