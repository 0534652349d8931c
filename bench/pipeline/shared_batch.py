"""What processes that share the batches of a tokenizer say of a whole batch: means with gradients,
gradients, dropout.

Every process takes an equal share of the images, and the mean of its share as its loss. The mean
over processes of such losses, and of their gradients, is that of the whole batch. What is no mean
over images, such as an entropy, is taken of `mean`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from srdd.tokenizer import ResBlock

from ..runtime.ranks import Ranks


class _Mean(torch.autograd.Function):
    """Mean over processes. Its gradient goes to the own values whole, since gradients of the
    processes are averaged in turn."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        return ranks.total(values) / ranks.world

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        # loss = mean_r f(mean_q s_q): d loss / d s_q = f' / world, as the mean of gradients gives
        return grad, None


def mean(values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Mean over processes of a mean over the images of each, the same bits everywhere. Shape is
    kept; the mean of the processes' gradients is that of the whole batch."""
    if ranks.world == 1:
        return values
    averaged: torch.Tensor = _Mean.apply(values, ranks)  # type: ignore[no-untyped-call]
    return averaged


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Put the mean over processes in place of each gradient. One that is None, such as that of a
    scale that is dropped, is so everywhere."""
    if ranks.world == 1:
        return
    grads = [value.grad for value in parameters if value.grad is not None]
    # one message: to send each alone would cost a wait each
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat /= ranks.world
    for grad, part in zip(grads, flat.split([grad.numel() for grad in grads])):
        grad.copy_(part.view_as(grad))


def images_of_all(values_B: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Values of the whole batch in its order, of each process's share: (B, ...) to (world B,
    ...)."""
    return values_B if ranks.world == 1 else ranks.gather(values_B).flatten(0, 1)


class SharedDropout(nn.Dropout):
    """Dropout of a share of a batch (arXiv 1207.0580), drawn for the whole of it: an image drops
    what it drops in one process."""

    def __init__(self, p: float, ranks: Ranks) -> None:
        super().__init__(p)
        self.ranks = ranks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.p):
            return x
        # numbers are drawn in the order of memory: laid out as these images are
        whole = torch.ones_like(torch.cat([x] * self.ranks.world))
        return x * F.dropout(whole, self.p)[self.ranks.rows(len(whole))]


def share_dropout(module: nn.Module, ranks: Ranks) -> None:
    """Make every residual block of a network drop for the whole batch; one process does so as it
    is."""
    if ranks.world == 1:
        return
    for block in module.modules():
        if isinstance(block, ResBlock):
            block.dropout = SharedDropout(block.dropout.p, ranks)
