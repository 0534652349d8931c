"""The training of a scale transformer: steps, early stopping, the weights that are kept.

It goes on from where it was interrupted. Verbs that train one hand `carry_out` a `Trainer`, or a
subclass that starts elsewhere or minimises something else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from srdd.balance import balanced
from srdd.checkpoint import save_model
from srdd.config import ModelConfig
from srdd.corruption import corrupted, mask_within_scales
from srdd.loss import linear_cross_entropy, mask_shares
from srdd.memory import is_out_of_memory
from srdd.model import ScaleTransformer
from srdd.noise import generator

from ..runtime.clock import Stopwatch, synchronise
from ..runtime.progress import Progress
from ..runtime.verb import Run
from ..study.settings import TrainingConfig
from .artefacts import model_identity, open_labels, open_tokens, save_steps, snapshot_path
from .compiled import training_compiles
from .held_out import HeldOut, OnePassLoss, any_order_loss, drawn_loss, one_pass_loss
from .labels import in_shares
from .networks import first_network, open_tokenizer
from .training import (
    Average,
    Batch,
    Resume,
    batch_indices,
    check_finite,
    learning_rate,
    pack,
    parameter_groups,
    unpack,
)
from .training_log import Evaluation, Kept, TrainState, report_evaluation, report_kept
from .what_fits import what_fits


class Losses(torch.nn.Module):
    """A network whose call ends in the losses of a part of a batch: what DistributedDataParallel
    must see as one."""

    def __init__(
        self, model: ScaleTransformer, loss: Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.loss(part)


class Trainer:
    """State of one training: weights, averaged weights, optimizer, the best evaluation so far, the
    log."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ranks = run.ranks
        self.config = run.settings("training", TrainingConfig)
        self.at_once = self.config.images_at_once(self.ranks.world)
        self.model_config = run.settings("model", ModelConfig)
        self.seed: int = run.config["train_seed"]
        ladder = open_tokenizer(run).at(self.model_config.schedule)
        self.ladder = ladder.read_as(self.model_config.state)
        self.open_splits()
        self.model = self.first_model().to(run.device)
        schedule = self.model_config.schedule
        self.compiled = training_compiles(self.config, self.model, schedule, run.device)
        if self.compiled:
            self.model.compile_blocks()
        self.hidden = self.model.hidden
        self.learner = self.shared(Losses(self.model, self.loss))
        groups = parameter_groups(self.model, self.config.weight_decay)
        betas = (self.config.beta1, self.config.beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=self.config.lr, betas=betas, fused=True)
        self.average = Average(self.model, self.config.ema_decay)
        self.best = {name: value.clone() for name, value in self.average.weights.items()}
        self.state = TrainState()
        # losses since the last evaluation, this process's part
        self.recent: list[torch.Tensor] = []
        self.resume = Resume(run, self.config.save_every)

    # ------------------------------------------------------------ data

    def open_splits(self) -> None:
        """Tokens and labels of every split; which test images are evaluated along the training."""
        data, tokens = self.run.inputs["data"], self.run.inputs["tokens"]
        splits = ("train", "val", "test")
        self.tokens = {split: open_tokens(tokens, split) for split in splits}
        labels = {split: open_labels(data, split) for split in splits}
        few = self.config.eval_images
        self.eval_rows = None  # None: all test images
        if few is not None and few < len(labels["test"]):
            self.eval_rows = in_shares(labels["test"], few)
        if not self.model_config.conditional:
            # an unconditional model knows one label only, "no class", which is row 0 of its
            # embedding
            labels = {split: np.zeros_like(of_split) for split, of_split in labels.items()}
        self.labels = labels

    def split(self, name: str) -> HeldOut:
        """A split whose losses are measured."""
        of_split = self.tokens[name], self.labels[name]
        return HeldOut(name, *of_split, self.ladder, self.run.device, self.ranks)

    def batch(self, step: int) -> Batch:
        """What all processes together learn from at a step: it follows from the seed and the number
        of the step."""
        labels_N, size = self.labels["train"], self.config.batch_size
        indices = np.array(batch_indices(len(labels_N), size, self.seed, step))
        source = generator("train step", self.seed, step)
        labels_B = torch.from_numpy(labels_N[indices])
        if self.model_config.conditional:
            # classifier-free guidance needs an unconditional half (arXiv 2207.12598, algorithm 1)
            share = self.model_config.class_dropout
            dropped_B = torch.rand(len(labels_B), generator=source) < share
            labels_B = labels_B.masked_fill(dropped_B, self.model_config.null_label)
        tokens_BL = torch.from_numpy(self.tokens["train"][indices].astype(np.int64))
        return self.draw(tokens_BL, labels_B, source)

    def draw(
        self, tokens_BL: torch.Tensor, labels_B: torch.Tensor, source: torch.Generator
    ) -> Batch:
        """The random numbers of a step: corruption, intra-scale masks, stochastic depth."""
        model, V = self.model_config, self.model_config.codebook_size
        seen_BL = corrupted(self.config.corruption, tokens_BL, self.config.eps, V, source)
        own_BL, share_BL, counted = None, None, float(tokens_BL.numel())
        rule, weight, images = self.config.mask_weight, self.config.loss_weight, len(tokens_BL)
        if model.mask_prob:
            own_BL = mask_within_scales(tokens_BL, model.schedule, model.mask_prob, V, source)
            share_BL, counted = mask_shares(rule, own_BL, model.schedule, V, model.mask_prob)
        share_BL, counted = balanced(weight, model.schedule, share_BL, counted, images, rule)
        paths_E2B = self.model.draw_paths(len(labels_B), source)
        return Batch(
            tokens_BL, labels_B, seen_BL, own_BL, share_BL, paths_E2B, len(labels_B), counted
        )

    # ------------------------------------------------------------ model

    @property
    def masked(self) -> bool:
        """Whether it is trained, and hence selected, with own tokens hidden and revealed."""
        return self.model_config.mask_prob > 0

    def first_model(self) -> ScaleTransformer:
        """The model that training starts from."""
        return first_network(self.model_config, self.seed)

    def averaged(self) -> ScaleTransformer:
        """The model with averaged weights, in evaluation mode."""
        model = ScaleTransformer(self.model_config).to(self.run.device)
        model.load_state_dict(self.average.weights)
        return model.eval()

    def snapshot(self) -> ScaleTransformer:
        """The model that a snapshot holds. Every process takes part."""
        return self.averaged()

    def shared(self, learner: Losses) -> Losses | DistributedDataParallel:
        """The learner as the processes train it together: gradients are summed while the backward
        pass still runs."""
        if self.ranks.world == 1:
            return learner
        if self.compiled:
            # a graph would be split where gradients are sent; here each block is a graph, and one
            # that is recomputed cannot be split
            torch._dynamo.config.optimize_ddp = False
        # a schedule of one scale reads no state: its input layer gets no gradient
        unused = self.model_config.schedule.num_scales == 1
        return DistributedDataParallel(
            learner,
            gradient_as_bucket_view=True,
            find_unused_parameters=unused,
            broadcast_buffers=False,
        )

    # ------------------------------------------------------------ one step

    def step(self) -> torch.Tensor:
        """One optimizer step; returns this process's part of the cross-entropy of its batch."""
        config, step = self.config, self.state.step
        rate = learning_rate(step, config.steps, config.lr, config.warmup, config.final_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.batch(step)
        self.optimizer.zero_grad()
        cross_entropy = self.learn(batch.part(self.ranks.rows(batch.images)))
        self.average.update(self.model, step)
        return cross_entropy

    def learn(self, mine: Batch) -> torch.Tensor:
        """New weights from this process's images, and their part of the cross-entropy.

        Raises MemoryError that names what would fit.
        """
        try:
            cross_entropy = self.backward(mine)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimizer.step()
            return cross_entropy
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # outside of the handler: the error holds the frames, and these the tensors that did not fit
        self.optimizer.zero_grad()
        raise MemoryError(
            what_fits(self.config, self.at_once, lambda rows: self.fits(mine.part(slice(rows))))
        )

    def backward(self, mine: Batch) -> torch.Tensor:
        """Gradients, micro-batch by micro-batch; between processes they are summed once, with the
        last."""
        begins = range(0, len(mine.labels_B), self.at_once)
        total = torch.zeros((), device=self.run.device)
        for begin in begins:
            with self.unsent() if begin != begins[-1] else nullcontext():
                part = mine.part(slice(begin, begin + self.at_once))
                loss, cross_entropy = self.losses(self.learner, part)
                # the processes' gradients are averaged, and their losses are shares of one mean
                (loss * self.ranks.world).backward()
                total = total + cross_entropy.detach()
        return total

    def unsent(self) -> AbstractContextManager[None]:
        """Gradients stay with this process."""
        if isinstance(self.learner, DistributedDataParallel):
            return self.learner.no_sync()
        return nullcontext()

    def losses(
        self, learner: Callable[[Batch], tuple[torch.Tensor, torch.Tensor]], part: Batch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both losses of a part of a batch, in the precision asked for."""
        device, low = self.run.device, self.config.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            return learner(part.to(device))

    def loss(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """What is minimised, and the cross-entropy that is reported, as shares of the whole batch's
        mean.

        Here both are the cross-entropy of clean tokens given the state of corrupted ones (VAR,
        arXiv 2404.02905, equation 5, where none is corrupted); with intra-scale masks, of the
        masked tokens, weighted (MaskGIT, arXiv 2202.04200, equation 1).
        """
        inputs_BLC = self.inputs(part)
        recompute = self.config.checkpointing
        hidden_BLD = self.hidden(inputs_BLC, part.labels_B, part.paths_E2B, part.own_BL, recompute)
        head = self.model.head
        loss = linear_cross_entropy(hidden_BLD, head, part.tokens_BL, part.share_BL, part.counted)
        return loss, loss

    @torch.no_grad()
    def inputs(self, part: Batch) -> torch.Tensor:
        """What the network reads: the states of corrupted tokens."""
        return self.ladder.teacher_forced_inputs(part.seen_BL)

    def fits(self, part: Batch) -> bool:
        """Whether the gradients of a part of a batch fit into memory, beside what the optimizer
        keeps of them."""
        if self.run.device.type == "cuda":
            torch.cuda.empty_cache()
        weights = list(self.model.parameters())
        try:
            # AdamW makes both moments of a weight in its first step, after the gradients
            moments = [torch.empty_like(w) for w in 2 * weights if w not in self.optimizer.state]
            # not backward(): that would talk to the other processes
            loss = self.losses(self.loss, part)[0]
            torch.autograd.grad(loss, weights, allow_unused=True)
            del moments  # held until now
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    # ------------------------------------------------------------ evaluation

    def one_pass(self, model: ScaleTransformer, data: HeldOut) -> OnePassLoss:
        """The losses of one pass over a split."""
        return one_pass_loss(model, data)

    def evaluate(self, losses: list[float]) -> None:
        """Held-out losses now, beside those of the steps since the last time; the weights are kept
        when they are the best so far."""
        state, model = self.state, self.averaged()
        test = self.split("test")
        if self.eval_rows is not None:
            test = test.some(self.eval_rows)
        on_val, on_test = self.one_pass(model, self.split("val")), self.one_pass(model, test)
        selected_by, bound = self.selection_loss(model, on_val.mean)
        check_finite(selected_by, state.step)
        train = sum(losses) / len(losses)
        state.log.append(Evaluation(state.step, state.seconds, train, on_val.mean, *on_test, bound))
        state.since_best += 1
        if state.best_loss is None or selected_by < state.best_loss:
            state.best_loss, state.best_step, state.since_best = selected_by, state.step, 0
            for name, weights in self.average.weights.items():
                self.best[name].copy_(weights)

    def selection_loss(
        self, model: ScaleTransformer, one_pass: float
    ) -> tuple[float, float | None]:
        """The validation loss that decides which weights are kept, and the any-order bound where it
        is a part of it."""
        if not self.masked:
            return one_pass, None
        val, weight, draws = self.split("val"), self.config.mask_weight, self.config.mask_draws
        if weight != "elbo":
            return drawn_loss(model, val, weight, draws), None
        # with probability q a step reveals some of a scale's own tokens, else it hides all
        bound, q = any_order_loss(model, val, draws).mean, self.model_config.mask_prob
        return (1 - q) * one_pass + q * bound, bound

    def take_best(self) -> Kept:
        """The kept weights into the model; their losses on the whole test split.

        Every process takes part.
        """
        self.model.load_state_dict(self.best)
        model, test, best = self.model.eval(), self.split("test"), self.state.best
        one_pass, by_scale = best.loss_test, best.loss_test_K
        if self.eval_rows is not None:
            one_pass, by_scale, _ = self.one_pass(model, test)
        any_order = None
        if self.model_config.mask_prob:
            any_order = any_order_loss(model, test, self.config.mask_draws)
        return Kept(one_pass, by_scale, any_order)

    # ------------------------------------------------------------ the whole training

    def restore(self) -> None:
        """Go on from the last checkpoint, if there is one of this code and config."""
        checkpoint = self.resume.load()
        if checkpoint is not None:
            tensors, state = checkpoint
            self.state = TrainState.from_json(state)
            unpack(tensors, self.model, self.optimizer, self.average)
            for name, value in self.best.items():
                value.copy_(tensors[f"best.{name}"])
            self.run.say(f"resumes at step {self.state.step}")
        self.resume.check_agree(self.state.step, self.ranks)

    def save(self) -> None:
        """Write the checkpoint; the losses since the last evaluation are those of all processes."""
        self.state.recent = self.totals()
        if self.ranks.first:
            best = {f"best.{name}": value for name, value in self.best.items()}
            tensors = pack(self.model, self.optimizer, self.average) | best
            self.resume.save(tensors, **self.state.to_json())

    def totals(self) -> list[float]:
        """The losses of the steps since the last evaluation, of the whole batches. Here a GPU is
        waited for, and before a file is written; not in a step."""
        if not self.recent:
            return []
        losses = torch.stack([loss.double() for loss in self.recent])
        return self.ranks.total(losses.cpu()).tolist()

    def stopped(self) -> bool:
        """Whether all steps are done, or `patience` evaluations brought no better weights."""
        patience = self.config.patience
        too_long = patience is not None and self.state.since_best >= patience
        return self.state.step >= self.config.steps or too_long

    def loop(self) -> None:
        """Train until the steps are done or early stopping says so."""
        config, state, first = self.config, self.state, self.ranks.first
        self.model.train()
        progress = Progress(self.run.run_id, config.steps, state.step, shown=first)
        # of before a kill, from the checkpoint, counted once: sums of processes, no float32 numbers
        before = torch.tensor(state.recent, dtype=torch.float64, device=self.run.device)
        self.recent = list(before * int(first))
        clock = Stopwatch(state.seconds)
        while not self.stopped():
            self.recent.append(self.step())
            state.step += 1
            last = state.step == config.steps
            if state.step % config.eval_every == 0 or last:
                losses = self.totals()
                state.seconds = clock.seconds
                check_finite(sum(losses), state.step)
                with clock.paused():  # an evaluation is no training
                    self.evaluate(losses)
                self.recent.clear()
            snapshots = config.makes_snapshot(state.step)
            saves = self.resume.due(state.step) and not last
            if snapshots or saves:
                synchronise(self.run.device)  # what a GPU still computes is training
                state.seconds = clock.seconds
                with clock.paused():
                    if snapshots:  # made by all processes: some share what they measure for it
                        self.resume.put_away()
                        snapshot, path = self.snapshot(), snapshot_path(self.run.out, state.step)
                        if first:
                            save_model(path, snapshot, step=state.step)
                    if saves:
                        self.save()
            note = f"validation loss {state.log[-1].loss_val:.3f}" if state.log else ""
            progress.advance(note=note)
        progress.close()

    def report(self, kept: Kept) -> None:
        """The rows of the training, and one line."""
        run, state, identity = self.run, self.state, model_identity(self.run)
        for row in state.log:
            report_evaluation(run, row, self.config.batch_size, identity)
        report_kept(run, state, kept, identity)
        count = sum(parameter.numel() for parameter in self.model.parameters())
        run.add("parameters", count, "weights", **identity)
        run.say(f"kept step {state.best_step}: held-out loss {kept.one_pass:.4f} nats a token")


def carry_out(run: Run, make: Callable[[Run], Trainer]) -> None:
    """A whole training: what every verb that trains a scale transformer does and writes."""
    trainer = make(run)
    trainer.restore()
    trainer.loop()
    kept = trainer.take_best()
    if not run.ranks.first:
        return
    trainer.resume.put_away()
    save_steps(run.out, trainer.state.step, trainer.config)
    trainer.report(kept)
    save_model(run.out / "model.safetensors", trainer.model, step=trainer.state.best_step)
