"""What every training shares.

Batches by name, learning rate, averaged weights, checkpoints to resume from.

Nothing here keeps a random state: the batch and the noise of step n follow from (seed, n), so that
a run resumed at step n goes on exactly as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from srdd.files import load_tensors, save_tensors
from srdd.noise import generator
from srdd.untouched import checksum

from ..runtime.ranks import Ranks
from ..runtime.verb import Diverged, Run, Worked
from .artefacts import snapshots_in

NO_DECAY = ("position", "level_embedding", "head_log_scale", "modulation_table")


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Indices of the batch of one step: epochs are permutations named by (seed, epoch), joined end
    to end."""
    begin = step * batch_size
    indices: list[int] = []
    while len(indices) < batch_size:
        epoch, offset = divmod(begin + len(indices), count)
        order = _permutation(count, seed, epoch)
        indices += order[offset : offset + batch_size - len(indices)]
    return indices


_permutations: dict[tuple[int, int, int], list[int]] = {}


def _permutation(count: int, seed: int, epoch: int) -> list[int]:
    key = (seed, epoch, count)
    if key not in _permutations:
        if len(_permutations) > 4:
            _permutations.clear()
        _permutations[key] = torch.randperm(
            count, generator=generator("epoch", seed, epoch)
        ).tolist()
    return _permutations[key]


@dataclass(frozen=True)
class Batch:
    """What one step learns from, or a part of it: every random number is drawn for the whole, so
    that neither micro-batches nor processes change any.

    seen_BL: corrupted tokens that are read; tokens_BL: clean ones that are predicted; own_BL:
    revealed ones of the same scale, V where masked; share_BL: what each token counts, None for 1;
    paths_E2B: stochastic depth. images, counted: images of the whole batch, and what its weighted
    sum of losses is divided by.
    """

    tokens_BL: torch.Tensor
    labels_B: torch.Tensor
    seen_BL: torch.Tensor
    own_BL: torch.Tensor | None
    share_BL: torch.Tensor | None
    paths_E2B: torch.Tensor | None
    images: int
    counted: float

    def part(self, rows: slice) -> Self:
        """Some images of the batch."""
        some = self._each(lambda values_B: values_B[rows], but="paths_E2B")
        return (
            some if self.paths_E2B is None else replace(some, paths_E2B=self.paths_E2B[..., rows])
        )

    def to(self, device: torch.device) -> Self:
        """The batch on a device."""
        return self._each(lambda values: _sent(values, device))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor], but: str = "") -> Self:
        """The batch with every tensor changed but one, also those that a kind of batch adds."""
        changed: dict[str, Any] = {
            name: change(value)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor) and name != but
        }
        return replace(self, **changed)


@dataclass(frozen=True)
class ImageBatch(Batch):
    """A batch with its images, bytes, of which more is made than tokens."""

    images_BCHW: torch.Tensor


@dataclass(frozen=True)
class Contrast(Batch):
    """A batch whose images are also read under a second class (CCA, arXiv 2410.09347).

    rolled_B: the class of the image before in the whole batch, which may be the same.
    """

    rolled_B: torch.Tensor


def _sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device.

    From pinned memory a copy to a GPU makes nobody wait: while the GPU works at this step, which
    nothing here waits for, the next batch is already drawn.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.contiguous().pin_memory().to(device, non_blocking=True)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """VAR's split: no decay on one-dimensional parameters, positions, levels and head scales; on
    the class embedding there is."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, value in model.named_parameters():
        without_decay = value.ndim <= 1 or any(part in name for part in NO_DECAY)
        (free if without_decay else decayed).append(value)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def learning_rate(step: int, steps: int, peak: float, warmup: int, final: float) -> float:
    """Linear warm-up, then linear decay to final x peak at the last step (VAR's schedule)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + (final - 1) * (step - warmup) / max(1, steps - 1 - warmup))


class Average:
    """Exponential moving average of a module's floating-point weights, with a faster start: decay
    min(d, (1+n)/(10+n)). Whole numbers are those of the last step."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [
            (self.weights[name], value.detach()) for name, value in module.state_dict().items()
        ]
        means = [(mean, value) for mean, value in pairs if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in means], [value for _, value in means], 1 - decay)
        for kept, value in pairs:
            if not kept.is_floating_point():  # a count, such as of batches: it has no mean
                kept.copy_(value)


def check_finite(loss: float, step: int) -> None:
    """Raises Diverged for a loss that is not a finite number, with the step and a remedy."""
    if not math.isfinite(loss):
        raise Diverged(f"loss is {loss} at step {step}; lower the training's lr or clip")


class Resume:
    """A checkpoint beside the outputs that holds all that a training needs to go on, written now
    and then."""

    def __init__(self, run: Run, save_every: int) -> None:
        self.run, self.path, self.save_every = run, run.out / "resume.safetensors", save_every
        # not before: a run that ends while its results are written goes on from here
        run.remove_at_end = self.path
        self.starts_again = True

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and state of the last checkpoint, or None.

        One of other code, config or release of torch, or that learnt from what another run of a job
        made, is set aside, never mixed in: a row names one of each.
        """
        run, say = self.run, self.run.say
        if not self.path.is_file():
            return None
        try:
            tensors, metadata = load_tensors(self.path)
        except ValueError as error:
            say(f"starts again: {error}")
            return None
        if (metadata.get("source"), metadata.get("config")) != (run.source, run.config):
            say(
                "starts again: the checkpoint to resume from was written by other code or another "
                "config"
            )
            return None
        if metadata.get("torch") != torch.__version__:
            say(
                f"starts again: the checkpoint to resume from was written by torch "
                f"{metadata.get('torch')}, this is {torch.__version__}"
            )
            return None
        if metadata.get("inputs") != run.read:
            say(
                "starts again: the checkpoint to resume from was written when another run of what "
                "is read lay there"
            )
            return None
        if metadata.get("sum") != _sum_of(tensors):
            say(f"starts again: {self.path} holds other bytes than were written")
            return None
        run.go_on_from(Worked(**metadata["worked"]))
        self.starts_again = False
        return tensors, metadata["state"]

    def put_away(self) -> None:
        """Before the first file of a training that starts again: remove what an earlier one left.
        Its checkpoint, if its code came back, would go on with snapshots of both."""
        if self.starts_again and self.run.ranks.first:
            self.path.unlink(missing_ok=True)
            for old in snapshots_in(self.run.out):
                old.unlink()
        self.starts_again = False

    def check_agree(self, step: int, ranks: Ranks) -> None:
        """Raises ValueError for processes that would go on from different steps, which one folder
        rules out."""
        steps = ranks.gather(torch.tensor(step)).tolist()
        if len(set(steps)) > 1:
            raise ValueError(
                f"{self.path}: processes would go on from steps {steps}; "
                "all machines must see one results folder"
            )

    def due(self, step: int) -> bool:
        """Whether to save after this many steps."""
        return step % self.save_every == 0

    def save(self, tensors: dict[str, torch.Tensor], **state: Any) -> None:
        """Write a checkpoint, whole or not at all; state: what JSON can hold."""
        self.put_away()
        save_tensors(
            self.path,
            tensors,
            source=self.run.source,
            config=self.run.config,
            torch=torch.__version__,
            inputs=self.run.read,
            worked=self.run.worked()._asdict(),
            state=state,
            sum=_sum_of(tensors),
        )


def _sum_of(tensors: dict[str, torch.Tensor]) -> int:
    """A checksum of named tensors; what a file holds may lie in another order."""
    return checksum([tensors[name] for name in sorted(tensors)])


def pack(
    module: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None = None
) -> dict[str, torch.Tensor]:
    """Weights, averaged weights if any, and optimizer state as one flat set of named tensors."""
    tensors = {f"weights.{name}": value for name, value in module.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.weights.items()}
    return tensors | pack_optimizer(optimizer, "optimizer.")


def pack_optimizer(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, torch.Tensor]:
    """The state of an optimizer as named tensors."""
    return {
        f"{prefix}{index}.{key}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def unpack(
    tensors: dict[str, torch.Tensor],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None = None,
) -> None:
    """The reverse of `pack`."""
    module.load_state_dict(part_of(tensors, "weights."))
    if average is not None:
        for name, value in part_of(tensors, "average.").items():
            average.weights[name].copy_(value)
    unpack_optimizer(tensors, optimizer, "optimizer.")


def unpack_optimizer(
    tensors: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, prefix: str
) -> None:
    """The reverse of `pack_optimizer`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in part_of(tensors, prefix).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def part_of(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    named = ((name, value) for name, value in tensors.items() if name.startswith(prefix))
    return {name.removeprefix(prefix): value for name, value in named}
