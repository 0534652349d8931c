"""A training step as benchmarks time it, and where: a machine lent for minutes has no pytest, which
`comparing` needs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from srdd.config import ModelConfig
from srdd.model import ScaleTransformer
from srdd.noise import generator

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_step(
    config: ModelConfig,
    loss_of: Callable[[ScaleTransformer], torch.Tensor],
    compiled: bool = False,
) -> Callable[[], None]:
    """A whole step of a fresh model: forward, loss, backward, AdamW."""
    model = ScaleTransformer(config)
    model.init_weights(generator("benchmark model"))
    model.to(DEVICE)
    if compiled:
        model.compile_blocks()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        loss_of(model).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
