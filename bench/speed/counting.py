"""What benchmarks count without timing: operations of a training step, ratios of paired rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from srdd.config import ModelConfig
from srdd.model import ScaleTransformer


def flops_of(call: Callable[[], object]) -> int:
    """Floating-point operations of a call on meta tensors, where torch's counter also sees fused
    attention."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def training_work(config: ModelConfig, batch: int) -> tuple[int, int]:
    """Bytes and operations of a training step at least: a backward pass computes twice what the
    forward pass does; AdamW reads and writes weights and two moments."""
    with torch.device("meta"):
        model = ScaleTransformer(config)
        inputs_BLC = torch.empty(batch, config.schedule.seq_len, config.codebook_dim)
        labels_B = torch.zeros(batch, dtype=torch.long)
    moved = 6 * sum(weight.nbytes for weight in model.parameters())
    return moved, 3 * flops_of(lambda: model(inputs_BLC, labels_B))


@dataclass(frozen=True)
class Ratios:
    """Ours over plain in paired rounds: the median, and the tenth and the ninetieth share."""

    median: float
    low: float
    high: float


def ratios_of(pairs: Sequence[tuple[float | None, float]]) -> Ratios | None:
    """How many times as long ours takes; None without a plain path."""
    ratios = sorted(ours / plain for plain, ours in pairs if plain is not None)
    if not ratios:
        return None
    edge = len(ratios) // 10
    return Ratios(statistics.median(ratios), ratios[edge], ratios[-1 - edge])
