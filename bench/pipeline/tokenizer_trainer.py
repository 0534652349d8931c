"""The training of a tokenizer, from where it was interrupted.

One tokenizer serves every schedule that ends at its latent size: scales are dropped at random, so
that codes of a scale do not come to rely on all scales before it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from srdd.loss import TokenizerLoss, tokenizer_loss
from srdd.noise import derive_seed, generator
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer

from ..runtime.progress import Progress
from ..runtime.verb import Run
from ..study.tokenizer_settings import TokenizerSpec, TokenizerTraining
from .artefacts import open_split, tokenizer_identity
from .code_use import CodeUse
from .datasets import to_float
from .image_losses import ImageLosses, Judged
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


class TokenizerTrainer:
    """State of one training: weights, averaged weights, optimizer, use of the codes, the log."""

    def __init__(self, run: Run, spec: TokenizerSpec) -> None:
        self.run, self.spec = run, spec
        self.config: TokenizerTraining = spec.training
        self.seed = seed_of(self.config, run.config.get("tokenizer_seed"))
        self.images = open_split(run.inputs["data"], "train")
        self.tokenizer = Tokenizer(spec.config)
        self.tokenizer.init_weights(generator("tokenizer", self.seed))
        self.tokenizer.to(run.device)
        self.optimizer = torch.optim.AdamW(
            self.tokenizer.parameters(),
            lr=self.config.lr,
            weight_decay=self.config.weight_decay,
            betas=(0.9, 0.99),
        )
        self.average = Average(self.tokenizer, self.config.ema_decay)
        self.use = CodeUse(spec.config.schedule, spec.config.codebook_size, run.device)
        self.image_losses = ImageLosses(run, spec, self.seed)
        self.done = 0
        self.log: list[Measured] = []
        path = run.out / "resume.safetensors"
        self.resume = Resume(path, run.config, run.source, self.config.save_every)

    def restore(self) -> None:
        """Go on from the last checkpoint, if there is one of this code and config."""
        checkpoint = self.resume.load(self.run.say)
        if checkpoint is None:
            return
        tensors, state = checkpoint
        unpack(tensors, self.tokenizer, self.optimizer, self.average)
        self.use.restore(tensors)
        self.image_losses.restore(tensors)
        self.done = state["step"]
        self.log = [Measured(**row) for row in state["log"]]
        self.run.say(f"resumes at step {self.done}")

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = pack(self.tokenizer, self.optimizer, self.average)
        tensors |= self.use.state() | self.image_losses.state()
        self.resume.save(tensors, step=self.done, log=[row._asdict() for row in self.log])

    def step(self) -> tuple[TokenizerLoss, Judged]:
        """One optimizer step, the restart of unused codes with it, and one of the discriminator."""
        config, step = self.config, self.done
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.lr, config.warmup, FINAL_LR)
        indices = batch_indices(len(self.images), config.batch_size, self.seed, step)
        images_BCHW = to_float(self.images.read(indices).to(self.run.device))
        source = generator("tokenizer step", self.seed, step)
        # the encoder's dropout has no generator of its own
        torch.manual_seed(derive_seed("dropout", self.seed, step))
        whole = self.spec.config.schedule
        kept = kept_scales(whole, config.scale_drop, source)
        schedule = ScaleSchedule(tuple(whole.patch_nums[k] for k in kept))
        losses = tokenizer_loss(
            self.tokenizer, images_BCHW, schedule, config.commitment, config.entropy
        )
        self.optimizer.zero_grad()
        judged = self.image_losses.backward(losses, images_BCHW, self.last_layer, step)
        torch.nn.utils.clip_grad_norm_(self.tokenizer.parameters(), config.clip)
        self.optimizer.step()
        check_finite(losses.total.item(), step)
        self.use.count(dict(zip(kept, losses.tokens)))
        if step % config.restart_every == 0 and step < LAST_RESTART * config.steps:
            self.restart_codes(kept, losses, source)
        self.average.update(self.tokenizer, step)
        return losses, judged

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
            k: residual_BlC.flatten(0, 1) for k, residual_BlC in zip(kept, losses.residuals)
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
        progress = Progress(self.run.run_id, config.steps, self.done)
        while self.done < config.steps:
            losses, judged = self.step()
            self.done += 1
            last, reconstruction = self.done == config.steps, losses.reconstruction.item()
            if self.done % config.log_every == 0 or last:
                quantisation = losses.quantisation.item()
                perplexity_K = self.use.perplexity()
                row = self.done, reconstruction, quantisation, perplexity_K, judged.numbers()
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
    """Train and return the averaged tokenizer."""
    trainer = TokenizerTrainer(run, spec)
    trainer.restore()
    trainer.loop()
    trainer.report()
    trainer.resume.remove()
    return trainer.averaged()
