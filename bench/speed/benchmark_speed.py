"""Speed as ratios in one run: our path against the plain dense one, round by round in turn.

Not tests: nothing here can fail.

    ./run test bench/speed/benchmark_speed.py --benchmark-enable -s

Writes the ratios, and the times over their floors, to results/benchmarks/speed_<device>.csv.

Setting: the 256-pixel schedule (680 tokens), width 256, depth 4, 4 heads, 4096 codes, batch 4; and
the study of digits (30 tokens), width 64, depth 4, 4 heads, 64 codes, batch 64. CPU float32 (or the
GPU, where there is one).
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture

from srdd.attention import attend_by_scale
from srdd.config import ModelConfig
from srdd.loss import linear_cross_entropy, next_scale_cross_entropy
from srdd.masks import scale_mask
from srdd.noise import generator
from srdd.schedule import ScaleSchedule

from .comparing import COMPILED, DEVICE, Rows, compare, kept_rows
from .counting import training_work
from .plain import plain_logits
from .steps import training_step

SCHEDULE = ScaleSchedule((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
BATCH, WIDTH, HEADS, DEPTH, V, C = 4, 256, 4, 4, 4096, 32
HISTORIES = [None, 0, 1]
rows = kept_rows("speed", "what", "history")


@pytest.mark.parametrize("history", HISTORIES)
def test_attention_by_scale_against_dense_mask(
    benchmark: BenchmarkFixture, rows: Rows, history: int | None
) -> None:
    """Forward and backward of attention alone."""
    mask_LL = scale_mask(SCHEDULE, history).to(DEVICE)
    source = generator("benchmark")
    shape = (BATCH, HEADS, SCHEDULE.seq_len, WIDTH // HEADS)
    q, k, v, up = (torch.randn(shape, generator=source).to(DEVICE) for _ in range(4))
    for tensor in (q, k, v):
        tensor.requires_grad_()

    def ours() -> None:
        torch.autograd.grad(attend_by_scale(q, k, v, SCHEDULE, history, 1.0), (q, k, v), up)

    def plain() -> None:
        torch.autograd.grad(
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask_LL, scale=1.0), (q, k, v), up
        )

    # read q, k, v and the gradient, write three gradients; the backward pass computes at least
    # twice what the forward pass does
    pairs = SCHEDULE.attended_pairs(history)
    work = 7 * q.nbytes, 3 * 4 * BATCH * WIDTH * pairs
    compare(benchmark, rows, ours, plain, 30, [work], BATCH, what="attention", history=str(history))


PX256 = ModelConfig(
    patch_nums=SCHEDULE.patch_nums,
    codebook_size=V,
    codebook_dim=C,
    depth=DEPTH,
    width=WIDTH,
    heads=HEADS,
)
DIGITS = ModelConfig(
    patch_nums=(1, 2, 3, 4), codebook_size=64, codebook_dim=8, depth=4, width=64, heads=4
)


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("history", HISTORIES)
def test_training_step_against_dense_mask(
    benchmark: BenchmarkFixture, rows: Rows, history: int | None, compiled: bool
) -> None:
    """A whole step: forward, loss, backward, AdamW; as it is, and with the network compiled."""
    config = PX256.model_copy(update={"history": history})
    what = "training step, compiled" if compiled else "training step"
    time_steps(benchmark, rows, config, BATCH, what, compiled)


@pytest.mark.parametrize("history", HISTORIES)
def test_small_training_step_against_dense_mask(
    benchmark: BenchmarkFixture, rows: Rows, history: int | None
) -> None:
    """A whole step of the study of digits, whose images have 30 tokens."""
    config = DIGITS.model_copy(update={"history": history})
    time_steps(benchmark, rows, config, 64, "training step, 30 tokens")


def time_steps(
    benchmark: BenchmarkFixture,
    rows: Rows,
    config: ModelConfig,
    batch: int,
    what: str,
    compiled: bool = False,
) -> None:
    """Time steps of our path and of the plain one."""
    schedule, history, source = config.schedule, config.history, generator("benchmark")
    shape = batch, schedule.seq_len
    inputs_BLC = torch.randn(*shape, config.codebook_dim, generator=source).to(DEVICE)
    labels_B = torch.arange(batch, device=DEVICE) % config.num_classes
    tokens_BL = torch.randint(config.codebook_size, shape, generator=source).to(DEVICE)

    mask_LL = scale_mask(schedule, history).to(DEVICE)
    ours = training_step(
        config,
        lambda model: linear_cross_entropy(
            model.hidden(inputs_BLC, labels_B), model.head, tokens_BL
        ),
        compiled,
    )
    plain = training_step(
        config,
        lambda model: next_scale_cross_entropy(
            plain_logits(model, inputs_BLC, labels_B, mask_LL), tokens_BL
        ),
    )
    work, names = [training_work(config, batch)], {"what": what, "history": str(history)}
    rounds = 10 if schedule.seq_len > 100 else 30
    compare(benchmark, rows, ours, plain, rounds, work, batch, **names)
