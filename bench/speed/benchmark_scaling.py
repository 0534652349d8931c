"""How a training step grows with the model and with the tokens of an image. Not tests.

Ours against a dense mask, beside the floor.

    ./run test bench/speed/benchmark_scaling.py --benchmark-enable -s

Prints, and writes to results/benchmarks/scaling_<device>.csv, one row a model and schedule: sizes,
tokens a second, both times, their ratio, the floor and both times over it.

Setting: VAR and SDD, width 64 a block as in VAR, 4096 codes, batch 2, float32. The sizes are for
two CPU cores; a GPU goes on to d16.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from srdd.config import ModelConfig
from srdd.loss import linear_cross_entropy, next_scale_cross_entropy
from srdd.masks import scale_mask
from srdd.model import ScaleTransformer
from srdd.noise import generator

from .comparing import DEVICE, Rows, compare, kept_rows
from .counting import training_work
from .plain import plain_logits
from .steps import training_step

BATCH, V, C = 2, 4096, 32
PX64, PX128 = (1, 2, 3, 4), (1, 2, 3, 4, 5, 6, 8)
PX256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
PX512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)
DEPTHS = [2, 4, 6] if DEVICE.type == "cpu" else [2, 4, 8, 12, 16]
# models at one schedule, then schedules at one model
SIZES = [
    *((depth, PX256) for depth in DEPTHS),
    *((4, patch_nums) for patch_nums in (PX64, PX128, PX512)),
]
HISTORIES = {"VAR": None, "SDD": 0}
rows = kept_rows("scaling", "variant", "depth", "tokens")


@pytest.mark.parametrize(
    "depth, patch_nums", SIZES, ids=lambda value: str(value).replace(", ", ".")
)
@pytest.mark.parametrize("variant", HISTORIES)
def test_training_step(
    benchmark: BenchmarkFixture, rows: Rows, variant: str, depth: int, patch_nums: tuple[int, ...]
) -> None:
    """Forward, loss, backward, AdamW."""
    config = ModelConfig(
        patch_nums=patch_nums,
        codebook_size=V,
        codebook_dim=C,
        history=HISTORIES[variant],
        depth=depth,
        width=64 * depth,
        heads=depth,
    )
    source, L = generator("benchmark"), config.schedule.seq_len
    inputs_BLC = torch.randn(BATCH, L, C, generator=source).to(DEVICE)
    labels_B = torch.arange(BATCH, device=DEVICE)
    tokens_BL = torch.randint(V, (BATCH, L), generator=source).to(DEVICE)

    ours = training_step(
        config,
        lambda model: linear_cross_entropy(
            model.hidden(inputs_BLC, labels_B), model.head, tokens_BL
        ),
    )
    mask_LL = scale_mask(config.schedule, config.history).to(DEVICE)
    plain = training_step(
        config,
        lambda model: next_scale_cross_entropy(
            plain_logits(model, inputs_BLC, labels_B, mask_LL), tokens_BL
        ),
    )
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in ScaleTransformer(config).parameters())
    sizes = {
        "variant": variant,
        "depth": depth,
        "width": 64 * depth,
        "weights": weights,
        "tokens": L,
    }
    compare(benchmark, rows, ours, plain, 5, [training_work(config, BATCH)], BATCH, **sizes)
    if not benchmark.disabled:
        rows[-1]["tokens_per_s"] = BATCH * L / rows[-1]["ours_s"]
