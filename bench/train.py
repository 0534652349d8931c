"""Verb: train a scale transformer on the tokens of one schedule, with held-out losses and early stopping.

Early stopping, the same for all methods: averaged weights are tried on the validation split every eval_every steps, the best are kept, and
with `patience` the training ends after so many looks without a better one. The test split decides nothing.
Writes model.safetensors (the kept weights) and snapshots/step_<n>.safetensors; resumes from resume.safetensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srdd import corruption
from srdd.checkpoint import load_model, save_model
from srdd.config import ModelConfig
from srdd.corruption import mask_within_scales
from srdd.lookup import find
from srdd.loss import by_scale, linear_cross_entropy, token_losses
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.quantizer import Ladder

from .config import TrainingConfig
from .encode import open_tokenizer, open_tokens
from .prepare import open_split
from .progress import Progress
from .training import Average, Resume, batch_indices, check_finite, learning_rate, pack, unpack
from .verb import Run, main

EVAL_BATCH = 256
NO_DECAY = ("position", "level_embedding", "head_log_scale", "modulation_table")


def parameter_groups(model: ScaleTransformer, weight_decay: float) -> list[dict[str, Any]]:
    """VAR's split: no decay on one-dimensional parameters, positions, levels and head scales; on the class embedding there is."""
    decayed, free = [], []
    for name, value in model.named_parameters():
        free_of_it = value.ndim <= 1 or any(part in name for part in NO_DECAY)
        (free if free_of_it else decayed).append(value)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


@torch.no_grad()
def held_out(
    model: ScaleTransformer, ladder: Ladder, tokens_NL: np.ndarray, labels_N: np.ndarray, device
) -> tuple[float, list, list]:
    """Mean cross-entropy, and per scale cross-entropy and token accuracy, of a split. Classes are given, none dropped."""
    losses, hits = [], []
    for i in range(0, len(labels_N), EVAL_BATCH):
        tokens_BL = torch.from_numpy(tokens_NL[i : i + EVAL_BATCH].astype(np.int64)).to(device)
        labels_B = torch.from_numpy(labels_N[i : i + EVAL_BATCH]).to(device)
        logits_BLV = model(ladder.teacher_forced_inputs(tokens_BL), labels_B)
        losses.append(token_losses(logits_BLV, tokens_BL))
        hits.append((logits_BLV.argmax(-1) == tokens_BL).float())
    losses_NL, hits_NL = torch.cat(losses), torch.cat(hits)
    schedule = model.schedule
    return losses_NL.double().mean().item(), by_scale(losses_NL, schedule).tolist(), by_scale(hits_NL, schedule).tolist()


class Trainer:
    """State of one training: weights, averaged weights, optimizer, the best look so far, the log."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.config: TrainingConfig = run.settings("training", TrainingConfig)
        self.model_config: ModelConfig = run.settings("model", ModelConfig)
        self.seed: int = run.config["train_seed"]
        tokenizer = open_tokenizer(run)
        self.ladder = tokenizer.at(self.model_config.schedule)
        self.tokens = {split: open_tokens(run.inputs["tokens"], split) for split in ("train", "val", "test")}
        labels = {split: open_split(run.inputs["data"], split).labels_N for split in self.tokens}
        # an unconditional model knows one label only, "no class", which is row 0 of its embedding
        self.labels = labels if self.model_config.conditional else {s: np.zeros_like(x) for s, x in labels.items()}
        self.model = self.first_model().to(run.device)
        self.hidden = torch.compile(self.model.hidden) if self.config.compile else self.model.hidden
        groups = parameter_groups(self.model, self.config.weight_decay)
        betas = (self.config.beta1, self.config.beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=self.config.lr, betas=betas, fused=True)
        self.average = Average(self.model, self.config.ema_decay)
        self.best = {name: value.clone() for name, value in self.average.weights.items()}
        self.state: dict[str, Any] = {"step": 0, "seconds": 0.0, "log": [], "best_step": 0, "best_loss": None, "looks_since": 0}
        self.resume = Resume(run.out / "resume.safetensors", run.config, run.source, self.config.save_every)

    def first_model(self) -> ScaleTransformer:
        """The model that training starts from."""
        model = ScaleTransformer(self.model_config)
        model.init_weights(generator("model", self.seed))
        return model

    def restore(self) -> None:
        """Go on from the last checkpoint, if there is one of this code and config."""
        if found := self.resume.load(self.run.say):
            tensors, self.state = found
            unpack(tensors, self.model, self.optimizer, self.average)
            for name, value in self.best.items():
                value.copy_(tensors[f"best.{name}"])
            self.run.say(f"resumes at step {self.state['step']}")

    def save(self) -> None:
        best = {f"best.{name}": value for name, value in self.best.items()}
        self.resume.save(pack(self.model, self.optimizer, self.average) | best, **self.state)

    def step(self) -> torch.Tensor:
        """One optimizer step; returns the cross-entropy of its batch."""
        config, step = self.config, self.state["step"]
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.lr, config.warmup, config.final_lr)
        indices = np.array(batch_indices(len(self.labels["train"]), config.batch_size, self.seed, step))
        source = generator("train step", self.seed, step)
        labels_B = torch.from_numpy(self.labels["train"][indices])
        if self.model_config.conditional:
            dropped = torch.rand(len(labels_B), generator=source) < self.model_config.class_dropout
            labels_B = labels_B.masked_fill(dropped, self.model_config.null_label)
        device = self.run.device
        tokens_BL = torch.from_numpy(self.tokens["train"][indices].astype(np.int64)).to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            loss, shown = self.loss(tokens_BL, labels_B.to(device, non_blocking=True), source)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.average.update(self.model, step)
        return shown.detach()

    @torch.no_grad()
    def inputs(self, tokens_BL: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        """What the network reads: the states of corrupted tokens."""
        corrupt = find(corruption, "corrupt", self.config.corruption)
        seen_BL = corrupt(tokens_BL, self.config.eps, self.model_config.codebook_size, source)
        return self.ladder.teacher_forced_inputs(seen_BL)

    def loss(self, tokens_BL: torch.Tensor, labels_B: torch.Tensor, source: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """What is minimised, and the cross-entropy that is reported; here both are the cross-entropy of clean tokens given the state of
        corrupted ones; with intra-scale masks, of the masked tokens."""
        V, model = self.model_config.codebook_size, self.model_config
        inputs_BLC = self.inputs(tokens_BL, source)
        own_BL = mask_within_scales(tokens_BL, model.schedule, model.mask_prob, V, source) if model.mask_prob else None
        hidden_BLD = self.hidden(inputs_BLC, labels_B, source, own_BL)
        loss = linear_cross_entropy(hidden_BLD, self.model.head, tokens_BL, None if own_BL is None else own_BL == V)
        return loss, loss

    def averaged(self) -> ScaleTransformer:
        """The model with averaged weights, in evaluation mode."""
        model = ScaleTransformer(self.model_config).to(self.run.device)
        model.load_state_dict(self.average.weights)
        return model.eval()

    def look(self, recent: list[float]) -> None:
        """Held-out losses now; keep the weights when the validation loss is the best so far."""
        state, model = self.state, self.averaged()
        losses = {s: held_out(model, self.ladder, self.tokens[s], self.labels[s], self.run.device) for s in ("val", "test")}
        value = losses["val"][0]
        check_finite(value, state["step"])
        state["log"].append([state["step"], state["seconds"], sum(recent) / len(recent), value, *losses["test"]])
        state["looks_since"] += 1
        if state["best_loss"] is None or value < state["best_loss"]:
            state.update(best_loss=value, best_step=state["step"], looks_since=0)
            for name, weights in self.average.weights.items():
                self.best[name].copy_(weights)

    def stopped(self) -> bool:
        patience = self.config.patience
        return self.state["step"] >= self.config.steps or (patience is not None and self.state["looks_since"] >= patience)

    def loop(self) -> None:
        """Train until the steps are done or early stopping says so."""
        config, state = self.config, self.state
        self.model.train()
        progress = Progress(self.run.run_id, config.steps, state["step"])
        # losses since the last look; those of before a kill come from the checkpoint
        recent = [torch.tensor(value, device=self.run.device) for value in state.pop("recent", [])]
        began = time.monotonic() - state["seconds"]
        while not self.stopped():
            recent.append(self.step())
            state["step"] += 1
            done = state["step"]
            if done % config.eval_every == 0 or done == config.steps:
                values = torch.stack(recent).tolist()  # the only place where a GPU is waited for
                state["seconds"] = time.monotonic() - began
                check_finite(sum(values), done)
                self.look(values)
                recent.clear()
                began = time.monotonic() - state["seconds"]  # looking is not training
            if done % config.snapshot_every == 0 or done == config.steps:
                save_model(snapshot_path(self.run.out, done), self.averaged(), step=done)
            if self.resume.due(done) and done < config.steps:
                state["seconds"] = time.monotonic() - began
                state["recent"] = torch.stack(recent).tolist() if recent else []
                self.save()
            progress.advance(note=f"validation loss {state['log'][-1][3]:.3f}" if state["log"] else "")
        progress.close()

    def report(self) -> None:
        run, config = self.run, self.config
        identity = model_identity(run)
        for step, seconds, train, val, test, losses, hits in self.state["log"]:
            here = {**identity, "step": step}
            run.add("loss_train", train, "nats/token", **here)
            run.add("loss_val", val, "nats/token", **here)
            run.add("loss_test", test, "nats/token", **here)
            run.add("train_seconds", seconds, "s", **here)
            run.add("images_seen", step * config.batch_size, "images", **here)
            for k, (loss, hit) in enumerate(zip(losses, hits)):
                run.add("loss_test_scale", loss, "nats/token", scale=k, **here)
                run.add("token_accuracy_test_scale", hit, "share", scale=k, **here)
        kept = next(row for row in self.state["log"] if row[0] == self.state["best_step"])
        run.add("kept_step", self.state["best_step"], "steps", **identity)
        run.add("kept_loss_train", kept[2], "nats/token", **identity)
        run.add("kept_loss_test", kept[4], "nats/token", **identity)
        run.add("parameters", sum(p.numel() for p in self.model.parameters()), "weights", **identity)
        run.say(f"kept step {self.state['best_step']}: held-out loss {kept[4]:.4f} nats a token")


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
    for old in (run.out / "snapshots").glob("step_*.safetensors"):
        if not (run.out / "resume.safetensors").is_file():
            old.unlink()  # of an earlier run of other code
    trainer = make(run)
    trainer.restore()
    trainer.loop()
    trainer.report()
    trainer.model.load_state_dict(trainer.best)
    save_model(run.out / "model.safetensors", trainer.model, step=trainer.state["best_step"])
    trainer.resume.remove()


def work(run: Run) -> None:
    carry_out(run, Trainer)


if __name__ == "__main__":
    main("train", work, inputs=("data", "tokenizer", "tokens"))
