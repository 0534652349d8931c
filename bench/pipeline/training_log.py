"""What a training of a scale transformer has measured so far, and the rows that it ends as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..runtime.verb import Run
from .held_out import AnyOrderLoss


class Evaluation(NamedTuple):
    """Losses of the averaged weights after a step, nats a token; K scales.

    seconds: of training until then; loss_train: mean of the steps since the last evaluation;
    any_order_val: the bound on the validation split, where it decides what is kept.
    """

    step: int
    seconds: float
    loss_train: float
    loss_val: float
    loss_test: float
    loss_test_K: list[float]
    accuracy_test_K: list[float]
    any_order_val: float | None


class Kept(NamedTuple):
    """Losses of the kept weights on the whole test split; any_order: of a model with masks."""

    one_pass: float
    one_pass_K: list[float]
    any_order: AnyOrderLoss | None


@dataclass
class TrainState:
    """Where a training stands, but for its tensors.

    best_loss: the smallest selection loss; since_best: evaluations after it; recent: losses of the
    steps since the last evaluation, filled in for a checkpoint only.
    """

    step: int = 0
    seconds: float = 0.0
    log: list[Evaluation] = field(default_factory=list)
    best_step: int = 0
    best_loss: float | None = None
    since_best: int = 0
    recent: list[float] = field(default_factory=list)

    @property
    def best(self) -> Evaluation:
        """The evaluation of the kept weights."""
        return next(row for row in self.log if row.step == self.best_step)

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint: names and numbers."""
        return {**vars(self), "log": [row._asdict() for row in self.log]}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> TrainState:
        """The reverse of `to_json`."""
        return cls(**{**state, "log": [Evaluation(**row) for row in state["log"]]})


def report_evaluation(run: Run, row: Evaluation, batch_size: int, identity: dict[str, Any]) -> None:
    """One evaluation along the training."""
    names = {**identity, "step": row.step}
    run.add("loss_train", row.loss_train, "nats/token", **names)
    run.add("loss_val", row.loss_val, "nats/token", **names)
    if row.any_order_val is not None:
        run.add("loss_val_any_order", row.any_order_val, "nats/token", **names)
    run.add("loss_test", row.loss_test, "nats/token", **names)
    run.add("train_seconds", row.seconds, "s", **names)
    run.add("images_seen", row.step * batch_size, "images", **names)
    for k, (loss, accuracy) in enumerate(zip(row.loss_test_K, row.accuracy_test_K)):
        run.add("loss_test_scale", loss, "nats/token", scale=k, **names)
        run.add("token_accuracy_test_scale", accuracy, "share", scale=k, **names)


def report_kept(run: Run, state: TrainState, kept: Kept, identity: dict[str, Any]) -> None:
    """The kept weights: when they were reached, and their losses."""
    run.add("kept_step", state.best_step, "steps", **identity)
    run.add("kept_at_end", int(state.best_step == state.step), "share", **identity)
    run.add("kept_loss_train", state.best.loss_train, "nats/token", **identity)
    run.add("kept_loss_val", state.best_loss, "nats/token", **identity)
    run.add("kept_loss_test", kept.one_pass, "nats/token", **identity)
    if kept.any_order is not None:
        report_gain(run, kept, kept.any_order, identity)


def report_gain(run: Run, kept: Kept, any_order: AnyOrderLoss, identity: dict[str, Any]) -> None:
    """The any-order bound, and how far it is below the one-pass loss: what own tokens can at most
    buy."""
    run.add("loss_test_any_order", any_order.mean, "nats/token", **identity)
    run.add("intra_scale_gain", kept.one_pass - any_order.mean, "nats/token", **identity)
    for k, (one_pass, bound) in enumerate(zip(kept.one_pass_K, any_order.by_scale)):
        run.add("loss_test_any_order_scale", bound, "nats/token", scale=k, **identity)
        run.add("intra_scale_gain_scale", one_pass - bound, "nats/token", scale=k, **identity)
