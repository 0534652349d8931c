"""Verb: train the multi-scale VQ-VAE, or take over the weights of one that exists.

Reconstruction and commitment losses, restart of codes that nobody uses, averaged weights, random scale dropping: one tokenizer
then serves every schedule that ends at its latent size. Writes tokenizer.safetensors; resumes from resume.safetensors.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch

from srdd.config import TokenizerConfig
from srdd.files import check_config, load_foreign
from srdd.loss import tokenizer_loss
from srdd.noise import derive_seed, generator
from srdd.official_tokenizer import import_tokenizer, tokenizer_config, untold
from srdd.quantizer import Quantizer
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer
from srdd.tokenizer_checkpoint import load_tokenizer, save_tokenizer

from ..runtime.progress import Progress
from ..runtime.verb import Run
from ..study.settings import TokenizerSpec, TokenizerTraining, WeightsConfig
from .datasets import to_float
from .encode import tokenizer_identity
from .prepare import open_split
from .training import Average, Resume, batch_indices, check_finite, learning_rate, pack, unpack
from .weights import read_weights

STAGE = "tokenizer"
INPUTS = ("data",)


def drop_scales(schedule: ScaleSchedule, share: float, source: torch.Generator) -> ScaleSchedule:
    """The schedule of one step: with probability `share` each scale but the last stays with probability 1/2."""
    coin = torch.rand(schedule.num_scales, generator=source).tolist()
    if coin[-1] >= share:
        return schedule
    kept = [p for p, c in zip(schedule.patch_nums[:-1], coin) if c < 0.5]
    return ScaleSchedule((*kept, schedule.latent_size))


class CodeUse:
    """Running share of each code at each grid size, and the restart of codes that none of them
    uses.

    share_KV: of the tokens seen, rows sum to 1. life_KV: the same with a mean share lent to every
    code, at the start and at its restart; that fades as the share does, and gives the code time to
    be used before it counts as dead. seen_K: how often each grid was counted.
    """

    RATE = 0.05

    def __init__(self, schedule: ScaleSchedule, codebook_size: int, device: torch.device) -> None:
        self.sides = schedule.patch_nums
        self.share_KV = torch.full((len(self.sides), codebook_size), 1 / codebook_size, device=device)
        self.life_KV = self.share_KV.clone()
        self.seen_K = torch.zeros(len(self.sides), dtype=torch.int64)

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint to resume from must hold."""
        return {"share_KV": self.share_KV, "life_KV": self.life_KV, "seen_K": self.seen_K}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, value in self.state().items():
            value.copy_(tensors[name])

    @torch.no_grad()
    def count(self, schedule: ScaleSchedule, tokens: list[torch.Tensor]) -> None:
        """Add the tokens of one step, a tensor for each grid of its schedule."""
        V = self.share_KV.shape[1]
        for side, tokens_Bl in zip(schedule.patch_nums, tokens):
            share_V = torch.bincount(tokens_Bl.flatten(), minlength=V) / tokens_Bl.numel()
            k = self.sides.index(side)
            self.life_KV[k].lerp_(share_V, self.RATE)
            self.seen_K[k] += 1
            # the plain mean at first, so that the shares before the first token leave no trace
            self.share_KV[k].lerp_(share_V, max(self.RATE, 1 / int(self.seen_K[k])))

    def perplexity(self) -> list[float]:
        """exp of the entropy of the codes in use, per scale: from 1 to the number of codes, which
        it is before the first token."""
        share_KV = self.share_KV.double()
        share_KV = share_KV / share_KV.sum(1, keepdim=True)
        found_K = torch.special.entr(share_KV).sum(1).exp()
        return found_K.clamp(1.0, share_KV.shape[1]).tolist()  # rounding alone may pass the bounds

    @torch.no_grad()
    def restart(
        self, quantizer: Quantizer, residuals: dict[int, torch.Tensor], share: float, source: torch.Generator
    ) -> torch.Tensor:
        """Put unused codes where latents are, first at the scales that use the fewest codes. Returns their indices."""
        V = self.share_KV.shape[1]
        dead = (self.life_KV.mean(0) < share / V).nonzero().flatten()
        if not len(dead):
            return dead
        need = torch.tensor([V - perplexity for perplexity in self.perplexity()]).clamp(min=1e-3)
        present = torch.tensor([side in residuals for side in self.sides])
        rows = torch.multinomial(need * present, len(dead), replacement=True, generator=source).tolist()
        for code, row in zip(dead.tolist(), rows):
            pool_NC = residuals[self.sides[row]]
            pick = int(torch.randint(len(pool_NC), (), generator=source))
            quantizer.codebook_VC[code] = pool_NC[pick]
        # nobody has used it yet: what is reported stays as it is
        self.life_KV[:, dead] = 1 / V
        return dead


def load_external(run: Run, spec: TokenizerSpec) -> Tokenizer:
    """A tokenizer that exists: an official .pth, or a safetensors of ours; compared with the study's sizes."""
    weights = WeightsConfig(file=spec.weights, sha256=spec.sha256)
    return read_weights(run, "tokenizer.weights", weights, sys.modules[__name__], spec.config)


def read_pth(path: Path, wanted: TokenizerConfig) -> Tokenizer:
    """An official VQ-VAE (VAR, arXiv 2404.02905); what its shapes do not tell comes from the study."""
    state, more = load_foreign(path), untold(wanted)
    check_config(path, json.loads(tokenizer_config(state, wanted.patch_nums, **more).model_dump_json()), wanted)
    return import_tokenizer(state, wanted.patch_nums, **more)


def read_safetensors(path: Path, wanted: TokenizerConfig) -> Tokenizer:
    """A tokenizer of this project."""
    return load_tokenizer(path, expect=wanted)


def work(run: Run) -> None:
    spec = run.settings("tokenizer", TokenizerSpec)
    if spec.weights is not None:
        save_tokenizer(run.out / "tokenizer.safetensors", load_external(run, spec))
        return
    average = train(run, spec)
    save_tokenizer(run.out / "tokenizer.safetensors", average.cpu())


def seed_of(config: TokenizerTraining, train_seed: int | None) -> int:
    """What the randomness of a training follows from: its own seed, and the training seed that it belongs to, if any."""
    return config.seed if train_seed is None else derive_seed("tokenizer", config.seed, train_seed)


def train(run: Run, spec: TokenizerSpec) -> Tokenizer:
    """Train and return the averaged tokenizer."""
    config: TokenizerTraining = spec.training
    seed = seed_of(config, run.config.get("tokenizer_seed"))
    data = open_split(run.inputs["data"], "train")
    tokenizer = Tokenizer(spec.config)
    tokenizer.init_weights(generator("tokenizer", seed))
    tokenizer.to(run.device)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.99))
    average = Average(tokenizer, config.ema_decay)
    use = CodeUse(spec.config.schedule, spec.config.codebook_size, run.device)
    resume, start, log = Resume(run.out / "resume.safetensors", run.config, run.source, config.save_every), 0, []
    if found := resume.load(run.say):
        tensors, state = found
        unpack(tensors, tokenizer, optimizer, average)
        use.restore(tensors)
        start, log = state["step"], state["log"]
        run.say(f"resumes at step {start}")
    tokenizer.train()
    progress = Progress(run.run_id, config.steps, start)
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.lr, config.warmup, 0.05)
        images = to_float(data.read(batch_indices(len(data), config.batch_size, seed, step)).to(run.device))
        source = generator("tokenizer step", seed, step)
        torch.manual_seed(derive_seed("dropout", seed, step))  # the encoder's dropout has no generator of its own
        schedule = drop_scales(spec.config.schedule, config.scale_drop, source)
        losses = tokenizer_loss(tokenizer, images, schedule, config.commitment, config.entropy)
        optimizer.zero_grad()
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), config.clip)
        optimizer.step()
        value = losses.reconstruction.item()
        check_finite(losses.total.item(), step)
        use.count(schedule, losses.tokens)
        # no restarts in the last fifth: averaged weights need still codes
        if step % config.restart_every == 0 and step < 0.8 * config.steps:
            residuals = {side: r.flatten(0, 1) for side, r in zip(schedule.patch_nums, losses.residuals)}
            dead = use.restart(tokenizer.quantizer, residuals, config.restart_share, source)
            forget(optimizer, tokenizer, average, dead)
        average.update(tokenizer, step)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            log.append([done, value, losses.quantisation.item(), *use.perplexity()])
        if resume.due(done) and done < config.steps:
            resume.save({**pack(tokenizer, optimizer, average), **use.state()}, step=done, log=log)
        progress.advance(note=f"reconstruction {value:.4f}")
    progress.close()
    report(run, log)
    tokenizer.load_state_dict(average.weights)
    resume.remove()
    return tokenizer.eval()


def forget(optimizer: torch.optim.Optimizer, tokenizer: Tokenizer, average: Average, dead: torch.Tensor) -> None:
    """A restarted code starts without momentum, and its average with it."""
    codebook = tokenizer.quantizer.codebook_VC
    average.weights["quantizer.codebook_VC"][dead] = codebook.detach()[dead]
    for key, value in optimizer.state[codebook].items():
        if key != "step":
            value[dead] = 0


def report(run: Run, log: list[list[float]]) -> None:
    """Curves of the training; what held-out pictures say stands in the `encode` runs."""
    names = tokenizer_identity(run)
    for step, reconstruction, quantisation, *perplexity in log:
        run.add("tokenizer_loss_reconstruction", reconstruction, "mse", step=step, **names)
        run.add("tokenizer_loss_quantisation", quantisation, "mse", step=step, **names)
        for k, value in enumerate(perplexity):
            run.add("code_perplexity_training", value, "codes", step=step, scale=k, **names)
    if log and math.isfinite(log[-1][1]):
        run.say(f"reconstruction error {log[-1][1]:.4f} (mean square, pictures in [-1, 1])")
