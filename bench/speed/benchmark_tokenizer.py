"""The tokenizer's encoder, quantisation and decoder, beside the floor. Not tests.

As it is (ours: on a CPU with channels last) against contiguous tensors (plain).

    ./run test bench/speed/benchmark_tokenizer.py --benchmark-enable -s

Prints, and writes to results/benchmarks/tokenizer_<device>.csv, both times, their ratio, the floor
and both times over it.

Setting: 256 pixels, ten scales, 4096 codes of 32 numbers, batch 4, float32; on the CPU a fifth of
the official width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from srdd.config import TokenizerConfig
from srdd.noise import generator
from srdd.tokenizer import Tokenizer

from .comparing import DEVICE, Rows, compare, kept_rows
from .counting import flops_of

BATCH = 4
CONFIG = TokenizerConfig(
    image_size=256,
    patch_nums=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    channels=160 if DEVICE.type == "cuda" else 32,
)
IMAGES, LATENTS = (BATCH, 3, 256, 256), (BATCH, CONFIG.codebook_dim, 16, 16)


def quantised(tokenizer: Tokenizer, latent_BChw: torch.Tensor) -> torch.Tensor:
    """The tokens of a latent."""
    return tokenizer.at(CONFIG.schedule).encode(latent_BChw)[0]


def plain_latent(tokenizer: Tokenizer, images_BCHW: torch.Tensor) -> torch.Tensor:
    """The encoder on images as they lie."""
    return tokenizer.pre_quant(tokenizer.encoder(images_BCHW))


def plain_image(tokenizer: Tokenizer, f_hat_BChw: torch.Tensor) -> torch.Tensor:
    """The decoder on states as they lie."""
    return tokenizer.decoder(tokenizer.post_quant(f_hat_BChw))


Work = Callable[[Tokenizer, torch.Tensor], torch.Tensor]


class Part(NamedTuple):
    """What runs, the plain way of it, the shape that it runs on, and the modules whose weights it
    reads."""

    ours: Work
    plain: Work
    shape: tuple[int, ...]
    read: tuple[str, ...]


PARTS = {
    "encode": Part(Tokenizer.to_latent, plain_latent, IMAGES, ("encoder", "pre_quant")),
    "quantise": Part(quantised, quantised, LATENTS, ("quantizer",)),
    "decode": Part(Tokenizer.to_image, plain_image, LATENTS, ("post_quant", "decoder")),
}
rows = kept_rows("tokenizer", "what")


@pytest.mark.parametrize("what", PARTS)
def test_channels_last_against_contiguous(
    benchmark: BenchmarkFixture, rows: Rows, what: str
) -> None:
    """One part of the tokenizer on a batch."""
    part = PARTS[what]
    x = torch.randn(part.shape, generator=generator("benchmark")).to(DEVICE)
    tokenizer = Tokenizer(CONFIG)
    tokenizer.init_weights(generator("benchmark"))
    tokenizer.eval().to(DEVICE)

    def path(work: Work) -> Callable[[], object]:
        return torch.no_grad()(lambda: work(tokenizer, x))

    with torch.device("meta"):
        counted = Tokenizer(CONFIG)
    weights = [weight for name in part.read for weight in counted.get_submodule(name).parameters()]
    moved = x.nbytes + sum(weight.nbytes for weight in weights)
    flops = flops_of(lambda: part.plain(counted, x.to("meta")))
    compare(
        benchmark,
        rows,
        path(part.ours),
        path(part.plain),
        10,
        [(moved, flops)],
        BATCH,
        what=what,
        channels=CONFIG.channels,
    )
