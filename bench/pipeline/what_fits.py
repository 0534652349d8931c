"""What a training that ran out of memory advises."""

from __future__ import annotations

from collections.abc import Callable

from ..study.settings import TrainingConfig

TRIES = 5  # halvings of a micro-batch that does not fit


def what_fits(config: TrainingConfig, at_once: int, fits: Callable[[int], bool]) -> str:
    """After a micro-batch of so many images that did not fit into memory: which `accumulate` would,
    by trying."""
    rows = at_once
    text = (
        f"out of memory with {rows} images at once "
        f"(batch_size {config.batch_size}, accumulate {config.accumulate})"
    )
    for _ in range(TRIES):
        if rows % 2:
            break
        rows //= 2
        if fits(rows):
            accumulate = config.accumulate * at_once // rows
            return f"{text}; {rows} fit: set training.accumulate {accumulate}"
    return f"{text}, and with {rows}; set training.checkpointing or a larger training.accumulate"
