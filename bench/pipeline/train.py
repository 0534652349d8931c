"""Verb: train a scale transformer on the tokens of one schedule, with held-out losses and early stopping.

Early stopping, the same for all methods: averaged weights are tried on the validation split every eval_every steps, the best are kept, and
with `patience` the training ends after so many looks without a better one. The test split decides nothing.
The loss that selects is the one that is trained for, on the validation split; `kept_loss_val` is its value for the kept weights:
- without intra-scale masks, and in the arm logit, the one-pass loss `loss_val`;
- with masks and mask_weight elbo, (1 - q) times `loss_val` plus q times the any-order bound `loss_val_any_order`, q the mask_prob;
- with another mask_weight, the weighted loss of masked tokens under mask_draws fixed draws of masks for each image.
The kept weights of a model with masks have their any-order bound measured on all test images, `loss_test_any_order`;
`intra_scale_gain` is their one-pass loss minus it, what own tokens can at most buy. `kept_at_end` is 1 where the last step is kept.
Writes model.safetensors (the kept weights) and snapshots/step_<n>.safetensors; resumes from resume.safetensors. Several processes
(torchrun) share each batch and each look; they take the same steps as one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from srdd.checkpoint import load_model, save_model
from srdd.compiling import check_compiler
from srdd.config import ModelConfig
from srdd.corruption import corrupted, mask_within_scales
from srdd.loss import any_order_masks, any_order_shares, linear_cross_entropy, mask_shares, token_losses
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.quantizer import Ladder

from ..runtime.progress import Progress
from ..runtime.ranks import Ranks
from ..runtime.verb import Run, is_out_of_memory
from ..study.settings import TrainingConfig
from .encode import open_tokenizer, open_tokens
from .labels import in_shares
from .prepare import open_labels
from .training import (
    Average,
    Batch,
    Resume,
    batch_indices,
    check_finite,
    learning_rate,
    pack,
    unpack,
)

INPUTS = ("data", "tokenizer", "tokens")
SHARED = True

EVAL_TOKENS = 2**15  # of one part of a look at held-out losses: its logits are held whole, 0.5 GB at 4 096 codes
TRIES = 5  # halvings of a micro-batch that does not fit, to say what would
NO_DECAY = ("position", "level_embedding", "head_log_scale", "modulation_table")


def parameter_groups(model: ScaleTransformer, weight_decay: float) -> list[dict[str, Any]]:
    """VAR's split: no decay on one-dimensional parameters, positions, levels and head scales; on the class embedding there is."""
    decayed, free = [], []
    for name, value in model.named_parameters():
        free_of_it = value.ndim <= 1 or any(part in name for part in NO_DECAY)
        (free if free_of_it else decayed).append(value)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def looked_at(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_NL: np.ndarray,
    labels_N: np.ndarray,
    device: torch.device,
    ranks: Ranks,
    hidden_NL: torch.Tensor | None = None,
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Rows, logits_BLV and tokens_BL of this process's part of a split, batch by batch. hidden_NL: own tokens that are masked; None: all."""
    mine, batch, V = ranks.rows(len(labels_N)), max(1, EVAL_TOKENS // model.schedule.seq_len), model.config.codebook_size
    for i in range(mine.start, mine.stop, batch):
        rows = slice(i, min(i + batch, mine.stop))
        tokens_BL = torch.from_numpy(tokens_NL[rows].astype(np.int64)).to(device)
        own_BL = None if hidden_NL is None else tokens_BL.masked_fill(hidden_NL[rows].to(device), V)
        labels_B = torch.from_numpy(labels_N[rows]).to(device)
        yield rows, model(ladder.teacher_forced_inputs(tokens_BL), labels_B, own_BL=own_BL), tokens_BL


@torch.no_grad()
def held_out(
    model: ScaleTransformer, ladder: Ladder, tokens_NL: np.ndarray, labels_N: np.ndarray, device: torch.device, ranks: Ranks
) -> tuple[float, list, list]:
    """Mean cross-entropy, and per scale cross-entropy and token accuracy, of a split. Classes are given, none dropped. Processes share
    the pictures."""
    schedule = model.schedule
    sums_2K = torch.zeros(2, schedule.num_scales, dtype=torch.float64, device=device)
    for _, logits_BLV, tokens_BL in looked_at(model, ladder, tokens_NL, labels_N, device, ranks):
        found_2BL = torch.stack((token_losses(logits_BLV, tokens_BL), (logits_BLV.argmax(-1) == tokens_BL).float()))
        sums_2K += torch.stack([found_2BL[..., piece].sum((1, 2), dtype=torch.float64) for piece in schedule.slices], 1)
    sums_2K = ranks.total(sums_2K.cpu())
    losses_K, hits_K = (sums_2K / (len(labels_N) * torch.tensor(schedule.lengths))).tolist()
    return sums_2K[0].sum().item() / (len(labels_N) * schedule.seq_len), losses_K, hits_K


@torch.no_grad()
def masked_sums(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_NL: np.ndarray,
    labels_N: np.ndarray,
    hidden_NL: torch.Tensor,
    share_NL: torch.Tensor,
    device: torch.device,
    ranks: Ranks,
) -> torch.Tensor:
    """Sum over a split of weight times -log p of each token, per scale, float64 (K,); own tokens are revealed except hidden ones."""
    pieces = model.schedule.slices
    sums_K = torch.zeros(len(pieces), dtype=torch.float64, device=device)
    for rows, logits_BLV, tokens_BL in looked_at(model, ladder, tokens_NL, labels_N, device, ranks, hidden_NL):
        weighted_BL = token_losses(logits_BLV, tokens_BL) * share_NL[rows].to(device)
        sums_K += torch.stack([weighted_BL[:, piece].sum(dtype=torch.float64) for piece in pieces])
    return ranks.total(sums_K.cpu())


def any_order_loss(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_NL: np.ndarray,
    labels_N: np.ndarray,
    split: str,
    draws: int,
    device: torch.device,
    ranks: Ranks,
) -> tuple[float, list[float]]:
    """The any-order bound on -log p of a split's tokens (ARDM, arXiv 2110.02037, equation 5, inside each scale), nats a token, and
    per scale.

    Of a scale's l tokens m are hidden, uniform in 1 ... l, and weigh l/m. draws: of masks for each image; they follow from split,
    draw, schedule and number of images, so that all models see the same. Processes share the images.
    """
    schedule, N = model.schedule, len(labels_N)
    sums_K = torch.zeros(schedule.num_scales, dtype=torch.float64)
    for draw in range(draws):
        hidden_NL = any_order_masks(schedule, N, generator("any order", split, draw))
        share_NL = any_order_shares(hidden_NL, schedule)
        sums_K += masked_sums(model, ladder, tokens_NL, labels_N, hidden_NL, share_NL, device, ranks)
    losses_K = sums_K / (draws * N * torch.tensor(schedule.lengths))
    return sums_K.sum().item() / (draws * N * schedule.seq_len), losses_K.tolist()


def drawn_loss(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_NL: np.ndarray,
    labels_N: np.ndarray,
    weight: str,
    split: str,
    draws: int,
    device: torch.device,
    ranks: Ranks,
) -> float:
    """The loss of a training with masks (MaskGIT, arXiv 2202.04200, equation 1, with weights) on a split, nats a token: masks as in a
    step, but fixed, `draws` for each image."""
    schedule, V, mask_prob = model.schedule, model.config.codebook_size, model.config.mask_prob
    found = total = 0.0
    for draw in range(draws):
        tokens = torch.from_numpy(tokens_NL.astype(np.int64))
        own_NL = mask_within_scales(tokens, schedule, mask_prob, V, generator("held-out masks", split, draw))
        share_NL, count = mask_shares(weight, own_NL, schedule, V, mask_prob)
        sums_K = masked_sums(model, ladder, tokens_NL, labels_N, own_NL == V, share_NL, device, ranks)
        found, total = found + sums_K.sum().item(), total + count
    return found / (total or 1.0)


class Learner(torch.nn.Module):
    """A network whose call ends in the losses of a part of a batch: what DistributedDataParallel must see as one."""

    def __init__(self, model: ScaleTransformer, loss: Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.loss(part)


class Trainer:
    """State of one training: weights, averaged weights, optimizer, the best look so far, the log."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ranks = run.ranks
        self.config: TrainingConfig = run.settings("training", TrainingConfig)
        self.at_once = self.config.images_at_once(self.ranks.world)
        self.model_config: ModelConfig = run.settings("model", ModelConfig)
        self.seed: int = run.config["train_seed"]
        tokenizer = open_tokenizer(run)
        self.ladder = tokenizer.at(self.model_config.schedule)
        self.tokens = {split: open_tokens(run.inputs["tokens"], split) for split in ("train", "val", "test")}
        labels = {split: open_labels(run.inputs["data"], split) for split in self.tokens}
        # an unconditional model knows one label only, "no class", which is row 0 of its embedding
        self.labels = labels if self.model_config.conditional else {s: np.zeros_like(x) for s, x in labels.items()}
        few = self.config.eval_images
        # of the losses along the training; None: all test images
        self.seen_rows = None if few is None or few >= len(labels["test"]) else in_shares(labels["test"], few)
        self.model = self.first_model().to(run.device)
        if self.config.compile:
            check_compiler(run.device)
        self.hidden = torch.compile(self.model.hidden) if self.config.compile else self.model.hidden
        self.learner = self.shared(Learner(self.model, self.loss))
        groups = parameter_groups(self.model, self.config.weight_decay)
        betas = (self.config.beta1, self.config.beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=self.config.lr, betas=betas, fused=True)
        self.average = Average(self.model, self.config.ema_decay)
        self.best = {name: value.clone() for name, value in self.average.weights.items()}
        self.state: dict[str, Any] = {"step": 0, "seconds": 0.0, "log": [], "best_step": 0, "best_loss": None, "looks_since": 0}
        self.resume = Resume(run.out / "resume.safetensors", run.config, run.source, self.config.save_every)

    @property
    def masked(self) -> bool:
        """Whether it is trained, and hence selected, with own tokens hidden and revealed."""
        return self.model_config.mask_prob > 0

    def first_model(self) -> ScaleTransformer:
        """The model that training starts from."""
        model = ScaleTransformer(self.model_config)
        model.init_weights(generator("model", self.seed))
        return model

    def shared(self, learner: Learner) -> torch.nn.Module:
        """The learner as the processes train it together: gradients are summed while the backward pass still runs."""
        if self.ranks.world == 1:
            return learner
        if self.config.compile and self.config.checkpointing:
            # compiled graphs are split where gradients are sent, which one that computes its blocks again cannot be
            torch._dynamo.config.optimize_ddp = False
        # a schedule of one scale reads no state: its input layer gets no gradient
        unused = self.model_config.schedule.num_scales == 1
        return DistributedDataParallel(
            learner, gradient_as_bucket_view=True, find_unused_parameters=unused, broadcast_buffers=False
        )

    def restore(self) -> None:
        """Go on from the last checkpoint, if there is one of this code and config."""
        if found := self.resume.load(self.run.say):
            tensors, self.state = found
            unpack(tensors, self.model, self.optimizer, self.average)
            for name, value in self.best.items():
                value.copy_(tensors[f"best.{name}"])
            self.run.say(f"resumes at step {self.state['step']}")
        elif self.ranks.first:
            for old in (self.run.out / "snapshots").glob("step_*.safetensors"):
                old.unlink()  # of an earlier run of other code
        steps = self.ranks.gather(torch.tensor(self.state["step"])).tolist()
        if len(set(steps)) > 1:
            raise ValueError(
                f"{self.resume.path}: processes would go on from steps {steps}; all machines must see one results folder"
            )

    def save(self) -> None:
        """Write the checkpoint; the losses since the last look are those of all processes."""
        self.state["recent"] = self.totals()
        if self.ranks.first:
            best = {f"best.{name}": value for name, value in self.best.items()}
            self.resume.save(pack(self.model, self.optimizer, self.average) | best, **self.state)

    def step(self) -> torch.Tensor:
        """One optimizer step; returns this process's part of the cross-entropy of its batch."""
        config, step = self.config, self.state["step"]
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.lr, config.warmup, config.final_lr)
        batch = self.batch(step)
        self.optimizer.zero_grad()
        shown = self.accumulate(batch.part(self.ranks.rows(batch.images)))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.average.update(self.model, step)
        return shown

    def batch(self, step: int) -> Batch:
        """What all processes together learn from at a step: it follows from the seed and the number of the step."""
        indices = np.array(batch_indices(len(self.labels["train"]), self.config.batch_size, self.seed, step))
        source = generator("train step", self.seed, step)
        labels_B = torch.from_numpy(self.labels["train"][indices])
        if self.model_config.conditional:
            dropped = torch.rand(len(labels_B), generator=source) < self.model_config.class_dropout
            labels_B = labels_B.masked_fill(dropped, self.model_config.null_label)
        return self.draw(torch.from_numpy(self.tokens["train"][indices].astype(np.int64)), labels_B, source)

    def draw(self, tokens_BL: torch.Tensor, labels_B: torch.Tensor, source: torch.Generator) -> Batch:
        """The random numbers of a step: corruption, intra-scale masks, stochastic depth."""
        model, V = self.model_config, self.model_config.codebook_size
        seen_BL = corrupted(self.config.corruption, tokens_BL, self.config.eps, V, source)
        own_BL, share_BL, counted = None, None, tokens_BL.numel()
        if model.mask_prob:
            own_BL = mask_within_scales(tokens_BL, model.schedule, model.mask_prob, V, source)
            share_BL, counted = mask_shares(self.config.mask_weight, own_BL, model.schedule, V, model.mask_prob)
        paths_E2B = self.model.draw_paths(len(labels_B), source)
        return Batch(tokens_BL, labels_B, seen_BL, own_BL, share_BL, paths_E2B, len(labels_B), counted)

    def accumulate(self, mine: Batch) -> torch.Tensor:
        """Gradients of this process's images, micro-batch by micro-batch; between processes they are summed once, with the last.
        Raises MemoryError that names what would fit."""
        begins, shown = range(0, len(mine.labels_B), self.at_once), 0.0
        try:
            for begin in begins:
                more = self.ranks.world > 1 and begin != begins[-1]
                with self.learner.no_sync() if more else nullcontext():
                    loss, part = self.losses(self.learner, mine.part(slice(begin, begin + self.at_once)))
                    # the processes' gradients are averaged, and their losses are shares of one mean
                    (loss * self.ranks.world).backward()
                    shown = shown + part.detach()
            return shown
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        loss = part = None  # what holds the memory that was there
        raise MemoryError(self.what_fits(mine))

    def losses(self, learner: Callable[[Batch], Any], part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.run.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            return learner(part.to(device))

    def what_fits(self, mine: Batch) -> str:
        """After a micro-batch that did not fit into memory: which accumulate would, found by trying."""
        self.optimizer.zero_grad()
        rows, parameters = self.at_once, list(self.model.parameters())
        text = (
            f"out of memory with {rows} images at once (batch_size {self.config.batch_size}, accumulate {self.config.accumulate})"
        )
        for _ in range(TRIES):
            if rows % 2:
                break
            rows //= 2
            if self.run.device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                # not backward(): that would talk to the other processes
                torch.autograd.grad(self.losses(self.loss, mine.part(slice(rows)))[0], parameters, allow_unused=True)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return f"{text}; {rows} fit: set training.accumulate {self.config.accumulate * self.at_once // rows}"
        return f"{text}, and with {rows}; set training.checkpointing or a larger training.accumulate"

    def loss(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """What is minimised, and the cross-entropy that is reported, as shares of the whole batch's mean; here both are the
        cross-entropy of clean tokens given the state of corrupted ones; with intra-scale masks, of the masked tokens, weighted."""
        inputs_BLC = self.inputs(part)
        hidden_BLD = self.hidden(inputs_BLC, part.labels_B, part.paths_E2B, part.own_BL, self.config.checkpointing)
        loss = linear_cross_entropy(hidden_BLD, self.model.head, part.tokens_BL, part.share_BL, part.counted)
        return loss, loss

    @torch.no_grad()
    def inputs(self, part: Batch) -> torch.Tensor:
        """What the network reads: the states of corrupted tokens."""
        return self.ladder.teacher_forced_inputs(part.seen_BL)

    def averaged(self) -> ScaleTransformer:
        """The model with averaged weights, in evaluation mode."""
        model = ScaleTransformer(self.model_config).to(self.run.device)
        model.load_state_dict(self.average.weights)
        return model.eval()

    def look(self, recent: list[float]) -> None:
        """Held-out losses now; keep the weights when the loss that selects is the best so far."""
        state, model, rows = self.state, self.averaged(), self.seen_rows
        tests = self.split("test") if rows is None else tuple(x[rows] for x in self.split("test"))
        to = (self.run.device, self.ranks)
        val, test = held_out(model, self.ladder, *self.split("val"), *to), held_out(model, self.ladder, *tests, *to)
        value, bound = self.selecting(model, val[0])
        check_finite(value, state["step"])
        state["log"].append([state["step"], state["seconds"], sum(recent) / len(recent), val[0], *test, bound])
        state["looks_since"] += 1
        if state["best_loss"] is None or value < state["best_loss"]:
            state.update(best_loss=value, best_step=state["step"], looks_since=0)
            for name, weights in self.average.weights.items():
                self.best[name].copy_(weights)

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and labels of a split."""
        return self.tokens[name], self.labels[name]

    def selecting(self, model: ScaleTransformer, one_pass: float) -> tuple[float, float | None]:
        """The validation loss that decides which weights are kept, and the any-order bound where it is a part of it."""
        if not self.masked:
            return one_pass, None
        config, val, to = self.config, self.split("val"), (self.run.device, self.ranks)
        if config.mask_weight == "elbo":
            bound, q = any_order_loss(model, self.ladder, *val, "val", config.mask_draws, *to)[0], self.model_config.mask_prob
            return (1 - q) * one_pass + q * bound, bound
        return drawn_loss(model, self.ladder, *val, config.mask_weight, "val", config.mask_draws, *to), None

    def take_best(self) -> None:
        """The kept weights into the model, with their losses on the whole test split: `self.kept`. Every process takes part."""
        self.model.load_state_dict(self.best)
        model, to = self.model.eval(), (self.run.device, self.ranks)
        one_pass, per_scale = next(row[4:6] for row in self.state["log"] if row[0] == self.state["best_step"])
        if self.seen_rows is not None:
            one_pass, per_scale, _ = held_out(model, self.ladder, *self.split("test"), *to)
        self.kept = {"one_pass": (one_pass, per_scale)}
        if self.model_config.mask_prob:
            draws = self.config.mask_draws
            self.kept["any_order"] = any_order_loss(model, self.ladder, *self.split("test"), "test", draws, *to)

    def stopped(self) -> bool:
        patience = self.config.patience
        return self.state["step"] >= self.config.steps or (patience is not None and self.state["looks_since"] >= patience)

    def totals(self) -> list[float]:
        """The losses of the steps since the last look, of the whole batches: the only place where a GPU is waited for."""
        return self.ranks.total(torch.stack(self.recent).double().cpu()).tolist() if self.recent else []

    def loop(self) -> None:
        """Train until the steps are done or early stopping says so."""
        config, state, first = self.config, self.state, self.ranks.first
        self.model.train()
        progress = Progress(self.run.run_id, config.steps, state["step"], shown=first)
        # losses since the last look; those of before a kill come from the checkpoint, and count once
        before = state.pop("recent", [])
        self.recent = [torch.tensor(value if first else 0.0, device=self.run.device) for value in before]
        began = time.monotonic() - state["seconds"]
        while not self.stopped():
            self.recent.append(self.step())
            state["step"] += 1
            done = state["step"]
            if done % config.eval_every == 0 or done == config.steps:
                values = self.totals()
                state["seconds"] = time.monotonic() - began
                check_finite(sum(values), done)
                self.look(values)
                self.recent.clear()
                began = time.monotonic() - state["seconds"]  # looking is not training
            if first and (done % config.snapshot_every == 0 or done == config.steps):
                save_model(snapshot_path(self.run.out, done), self.averaged(), step=done)
            if self.resume.due(done) and done < config.steps:
                state["seconds"] = time.monotonic() - began
                self.save()
            progress.advance(note=f"validation loss {state['log'][-1][3]:.3f}" if state["log"] else "")
        progress.close()

    def report(self) -> None:
        run, config = self.run, self.config
        identity = model_identity(run)
        for step, seconds, train, val, test, losses, hits, bound in self.state["log"]:
            here = {**identity, "step": step}
            run.add("loss_train", train, "nats/token", **here)
            run.add("loss_val", val, "nats/token", **here)
            if bound is not None:
                run.add("loss_val_any_order", bound, "nats/token", **here)
            run.add("loss_test", test, "nats/token", **here)
            run.add("train_seconds", seconds, "s", **here)
            run.add("images_seen", step * config.batch_size, "images", **here)
            for k, (loss, hit) in enumerate(zip(losses, hits)):
                run.add("loss_test_scale", loss, "nats/token", scale=k, **here)
                run.add("token_accuracy_test_scale", hit, "share", scale=k, **here)
        state, (loss, losses) = self.state, self.kept["one_pass"]
        kept = next(row for row in state["log"] if row[0] == state["best_step"])
        run.add("kept_step", state["best_step"], "steps", **identity)
        run.add("kept_at_end", int(state["best_step"] == state["step"]), "share", **identity)
        run.add("kept_loss_train", kept[2], "nats/token", **identity)
        run.add("kept_loss_val", state["best_loss"], "nats/token", **identity)
        run.add("kept_loss_test", loss, "nats/token", **identity)
        if "any_order" in self.kept:
            bound, bounds = self.kept["any_order"]
            run.add("loss_test_any_order", bound, "nats/token", **identity)
            run.add("intra_scale_gain", loss - bound, "nats/token", **identity)
            for k, (one_pass, bound) in enumerate(zip(losses, bounds)):
                run.add("loss_test_any_order_scale", bound, "nats/token", scale=k, **identity)
                run.add("intra_scale_gain_scale", one_pass - bound, "nats/token", scale=k, **identity)
        run.add("parameters", sum(p.numel() for p in self.model.parameters()), "weights", **identity)
        run.say(f"kept step {state['best_step']}: held-out loss {loss:.4f} nats a token")


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the averaged weights of a step lie."""
    return folder / "snapshots" / f"step_{step:07d}.safetensors"


def open_model(run: Run, path: Path) -> ScaleTransformer:
    """The trained model that a run reads, on its device. Raises ValueError for one of another config."""
    return load_model(path, expect=run.settings("model", ModelConfig)).to(run.device)


def model_identity(run: Run) -> dict[str, Any]:
    """The columns of metrics.csv that name a trained model."""
    return {**run.job["identity"], "train_seed": run.config["train_seed"]}


def carry_out(run: Run, make: Callable[[Run], Trainer]) -> None:
    """A whole training, from where it was interrupted: what every verb that trains a scale transformer does and writes."""
    trainer = make(run)
    trainer.restore()
    trainer.loop()
    trainer.take_best()
    if not run.ranks.first:
        return
    trainer.report()
    save_model(run.out / "model.safetensors", trainer.model, step=trainer.state["best_step"])
    trainer.resume.remove()


def work(run: Run) -> None:
    carry_out(run, Trainer)
