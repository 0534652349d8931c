"""The training of a tokenizer, from where it was interrupted.

One tokenizer serves every schedule that ends at its latent size: scales are dropped at random, so
that codes of a scale do not come to rely on all scales before it. Processes share each batch; what
is drawn at random is drawn for the whole of it, and all decide the same.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from srdd.config import TokenizerConfig
from srdd.loss import TokenizerLoss, tokenizer_loss
from srdd.noise import derive_seed, first_weights, generator
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer

from ..runtime.progress import Progress
from ..runtime.verb import Run
from ..study.tokenizer_settings import TokenizerSpec, TokenizerTraining, images_of_process
from .artefacts import open_split, tokenizer_identity
from .code_use import CodeUse
from .datasets import to_float
from .image_losses import ImageLosses, Judged
from .shared_batch import average_gradients, images_of_all, mean, share_dropout
from .training import Average, Resume, batch_indices, check_finite, learning_rate, pack, unpack

LAST_RESTART = 0.8  # share of the steps; averaged weights need still codes at the end
FINAL_LR = 0.05  # of the peak
# of the losses of `Judged`
UNITS = {
    "loss_perceptual": "squared distance",
    "loss_adversarial": "logit",
    "loss_discriminator": "hinge",
    "adversarial_weight": "ratio",
}


class Measured(NamedTuple):
    """Losses of one step, mean squares; perplexity_K: running perplexity of the codes, by scale;
    judged: the losses of `Judged` that are on."""

    step: int
    reconstruction: float
    quantisation: float
    perplexity_K: list[float]
    judged: dict[str, float]


def kept_scales(schedule: ScaleSchedule, share: float, source: torch.Generator) -> list[int]:
    """The scales of one step, by index: with probability `share` each but the last stays with
    probability 1/2."""
    coin, last = torch.rand(schedule.num_scales, generator=source).tolist(), schedule.num_scales - 1
    if coin[-1] >= share:
        return list(range(schedule.num_scales))
    return [*(k for k in range(last) if coin[k] < 0.5), last]


def seed_of(config: TokenizerTraining, train_seed: int | None) -> int:
    """What the randomness of a training follows from: its own seed, and the training seed that it
    belongs to, if any."""
    return config.seed if train_seed is None else derive_seed("tokenizer", config.seed, train_seed)


def first_tokenizer(config: TokenizerConfig, seed: int) -> Tokenizer:
    """The tokenizer that training starts from."""
    with first_weights(seed):
        tokenizer = Tokenizer(config)
    tokenizer.init_weights(generator("tokenizer", seed))
    return tokenizer


class TokenizerTrainer:
    """State of one training: weights, averaged weights, optimizer, use of the codes, the log."""

    def __init__(self, run: Run, spec: TokenizerSpec) -> None:
        self.run, self.spec, self.ranks = run, spec, run.ranks
        self.config: TokenizerTraining = spec.training
        images_of_process(self.config, self.ranks.world)
        self.seed = seed_of(self.config, run.config.get("tokenizer_seed"))
        self.images = open_split(run.inputs["data"], "train")
        self.tokenizer = first_tokenizer(spec.config, self.seed)
        self.tokenizer.to(run.device)
        share_dropout(self.tokenizer, self.ranks)
        self.of_batch = partial(mean, ranks=self.ranks)
        self.optimizer = torch.optim.AdamW(
            self.tokenizer.parameters(),
            lr=self.config.lr,
            weight_decay=self.config.weight_decay,
            betas=(0.9, 0.99),
        )
        self.average = Average(self.tokenizer, self.config.ema_decay)
        V = spec.config.codebook_size
        self.use = CodeUse(spec.config.schedule, V, run.device, self.ranks)
        self.image_losses = ImageLosses(run, spec, self.seed)
        self.done = 0
        self.log: list[Measured] = []
        self.resume = Resume(run, self.config.save_every)

    def restore(self) -> None:
        """Go on from the last checkpoint, if there is one of this code and config."""
        checkpoint = self.resume.load()
        if checkpoint is not None:
            tensors, state = checkpoint
            unpack(tensors, self.tokenizer, self.optimizer, self.average)
            self.use.restore(tensors)
            self.image_losses.restore(tensors)
            self.done = state["step"]
            self.log = [Measured(**row) for row in state["log"]]
            self.run.say(f"resumes at step {self.done}")
        self.resume.check_agree(self.done, self.ranks)

    def save(self) -> None:
        """Write the checkpoint, which is the same in every process: the first one does."""
        if not self.ranks.first:
            return
        tensors = pack(self.tokenizer, self.optimizer, self.average)
        tensors |= self.use.state() | self.image_losses.state()
        self.resume.save(tensors, step=self.done, log=[row._asdict() for row in self.log])

    def images_of_step(self, step: int) -> torch.Tensor:
        """This process's share of the batch of a step, images in [-1, 1]."""
        size = self.config.batch_size
        indices = batch_indices(len(self.images), size, self.seed, step)[self.ranks.rows(size)]
        return to_float(self.images.read(indices).to(self.run.device))

    def step(self) -> tuple[TokenizerLoss, Judged]:
        """One optimizer step, the restart of unused codes with it, and one of the discriminator;
        returns the losses of the whole batch, and those of `Judged` of this process's images."""
        config, step = self.config, self.done
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.lr, config.warmup, FINAL_LR)
        images_BCHW = self.images_of_step(step)
        source = generator("tokenizer step", self.seed, step)
        # the encoder's dropout has no generator of its own
        torch.manual_seed(derive_seed("dropout", self.seed, step))
        whole = self.spec.config.schedule
        kept = kept_scales(whole, config.scale_drop, source)
        schedule = ScaleSchedule(tuple(whole.patch_nums[k] for k in kept))
        weights = config.commitment, config.entropy
        losses = tokenizer_loss(self.tokenizer, images_BCHW, schedule, *weights, self.of_batch)
        self.optimizer.zero_grad()
        judged = self.image_losses.backward(losses, images_BCHW, self.last_layer, step)
        average_gradients(self.tokenizer.parameters(), self.ranks)
        torch.nn.utils.clip_grad_norm_(self.tokenizer.parameters(), config.clip)
        self.optimizer.step()
        losses = self.of_whole_batch(losses)
        check_finite(losses.total.item(), step)
        self.use.count(dict(zip(kept, losses.tokens)))
        if step % config.restart_every == 0 and step < LAST_RESTART * config.steps:
            self.restart_codes(kept, losses, source)
        self.average.update(self.tokenizer, step)
        return losses, judged

    def of_whole_batch(self, losses: TokenizerLoss) -> TokenizerLoss:
        """Losses of the whole batch, of those of this process's images; the rest as it is."""
        mine = torch.stack([losses.total.detach(), losses.reconstruction, losses.quantisation])
        total, reconstruction, quantisation = self.of_batch(mine)
        whole = {"reconstruction": reconstruction, "quantisation": quantisation}
        return replace(losses, total=total, **whole)

    @property
    def last_layer(self) -> torch.Tensor | None:
        """Weights of the decoder's last layer; None where it has none."""
        weights = [weight for weight in self.tokenizer.decoder.parameters() if weight.ndim > 1]
        return weights[-1] if weights else None

    def restart_codes(
        self, kept: list[int], losses: TokenizerLoss, source: torch.Generator
    ) -> None:
        """Put unused codes where latents are, without momentum; their averages with them."""
        residuals = {
            k: images_of_all(residual_BlC, self.ranks).flatten(0, 1)
            for k, residual_BlC in zip(kept, losses.residuals)
        }
        quantizer, share = self.tokenizer.quantizer, self.config.restart_share
        dead = self.use.restart(quantizer, residuals, share, source)
        codebook_VC = quantizer.codebook_VC
        self.average.weights["quantizer.codebook_VC"][dead] = codebook_VC.detach()[dead]
        for key, value in self.optimizer.state[codebook_VC].items():
            if key != "step":
                value[dead] = 0

    def loop(self) -> None:
        """Train until the steps are done."""
        config = self.config
        self.tokenizer.train()
        progress = Progress(self.run.run_id, config.steps, self.done, shown=self.ranks.first)
        while self.done < config.steps:
            losses, judged = self.step()
            self.done += 1
            last, reconstruction = self.done == config.steps, losses.reconstruction.item()
            if self.done % config.log_every == 0 or last:
                quantisation = losses.quantisation.item()
                perplexity_K = self.use.perplexity()
                numbers = judged.numbers(self.ranks)
                row = self.done, reconstruction, quantisation, perplexity_K, numbers
                self.log.append(Measured(*row))
            if self.resume.due(self.done) and not last:
                self.save()
            progress.advance(note=f"reconstruction {reconstruction:.4f}")
        progress.close()

    def averaged(self) -> Tokenizer:
        """The tokenizer with its averaged weights, in evaluation mode."""
        self.tokenizer.load_state_dict(self.average.weights)
        return self.tokenizer.eval()

    def report(self) -> None:
        """Curves of the training; what held-out images say stands in the `encode` runs."""
        run, names = self.run, tokenizer_identity(self.run)
        for row in self.log:
            row_names = {**names, "step": row.step}
            run.add("tokenizer_loss_reconstruction", row.reconstruction, "mse", **row_names)
            run.add("tokenizer_loss_quantisation", row.quantisation, "mse", **row_names)
            for metric, number in row.judged.items():
                run.add(f"tokenizer_{metric}", number, UNITS[metric], **row_names)
            for k, value in enumerate(row.perplexity_K):
                run.add("code_perplexity_training", value, "codes", scale=k, **row_names)
        if self.log and math.isfinite(self.log[-1].reconstruction):
            error = self.log[-1].reconstruction
            run.say(f"reconstruction error {error:.4f} (mean square, images in [-1, 1])")


def train(run: Run, spec: TokenizerSpec) -> Tokenizer:
    """Train and return the averaged tokenizer, the same in every process; the first one reports."""
    trainer = TokenizerTrainer(run, spec)
    trainer.restore()
    trainer.loop()
    if run.ranks.first:
        trainer.report()
    return trainer.averaged()
