"""Whether compiled code pays, where a setting says `auto`.

By what was measured (results/benchmarks, docs/speed.md), and by the size of the work; never by a
clock of this run, which would round one way today and another way tomorrow.
"""

from __future__ import annotations

import torch
from torch import nn

from srdd.compiling import kernels_work
from srdd.schedule import ScaleSchedule

from ..study.settings import TrainingConfig

# On one H100 a step of VAR-d16 whose blocks are compiled takes 0.62 of the time, and compiling them
# takes a minute or two: so many operations take six minutes without.
TRAINING_OPERATIONS = 1e17
# Recording a sample and compiling its kernels takes half a minute there; so many images of VAR-d16
# take less, by some seconds.
SAMPLED_IMAGES = 5_000


def training_compiles(
    config: TrainingConfig, model: nn.Module, schedule: ScaleSchedule, device: torch.device
) -> bool:
    """Whether a training compiles its blocks: on a CPU they gain nothing worth the wait."""
    if config.compile != "auto":
        return config.compile
    numbers = sum(weight.numel() for weight in model.parameters())
    # a product with every weight for every token, forward, and twice as many backward
    operations = 6.0 * numbers * schedule.seq_len * config.batch_size * config.steps
    # Inductor needs what the kernels need: where they cannot be compiled, neither can blocks
    return device.type == "cuda" and operations >= TRAINING_OPERATIONS and kernels_work()


def sampling_compiles(asked: bool | str, images: int, device: torch.device) -> bool:
    """Whether a job that draws so many images compiles what the model calls at each scale."""
    if isinstance(asked, bool):
        return asked
    return device.type == "cuda" and images >= SAMPLED_IMAGES
