"""The tokenizer's encoder, quantisation and decoder: channels last (ours) against contiguous tensors (plain), beside the floor. Not tests.

    ./run test bench/speed/benchmark_tokenizer.py --benchmark-enable -s

Prints, and writes to results/benchmarks/tokenizer_<device>.csv, both times, their ratio, the floor and both times over it.

Setting: 256 pixels, ten scales, 4096 codes of 32 numbers, batch 4, float32; on the CPU a fifth of the official width.
"""

from __future__ import annotations

import pytest
import torch

from srdd.config import TokenizerConfig
from srdd.noise import generator
from srdd.tokenizer import Tokenizer

from .comparing import DEVICE, compare, flops_of, kept_rows

BATCH = 4
CONFIG = TokenizerConfig(
    image_size=256, patch_nums=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16), channels=160 if DEVICE.type == "cuda" else 32
)
IMAGES, LATENTS = (BATCH, 3, 256, 256), (BATCH, CONFIG.codebook_dim, 16, 16)
# what runs, on what, and the weights that it reads
PARTS = {
    "encode": (lambda t, x: t.to_latent(x), IMAGES, lambda t: [t.encoder, t.pre_quant]),
    "quantise": (lambda t, x: t.at(CONFIG.schedule).encode(x)[0], LATENTS, lambda t: [t.quantizer]),
    "decode": (lambda t, x: t.to_image(x), LATENTS, lambda t: [t.post_quant, t.decoder]),
}
rows = kept_rows("tokenizer", "what")


@pytest.mark.parametrize("what", PARTS)
def test_channels_last_against_contiguous(benchmark, rows, what):
    """One part of the tokenizer on a batch."""
    work, shape, read = PARTS[what]
    x = torch.randn(shape, generator=generator("benchmark")).to(DEVICE)

    def path(layout: torch.memory_format):
        tokenizer = Tokenizer(CONFIG)
        tokenizer.init_weights(generator("benchmark"))
        tokenizer.eval().to(DEVICE, memory_format=layout)
        inputs = x.to(memory_format=layout)
        return torch.no_grad()(lambda: work(tokenizer, inputs))

    with torch.device("meta"):
        counted = Tokenizer(CONFIG)
    moved = x.nbytes + sum(weight.nbytes for part in read(counted) for weight in part.parameters())
    flops = flops_of(lambda: work(counted, x.to("meta")))
    ours, plain = path(torch.channels_last), path(torch.contiguous_format)
    compare(benchmark, rows, ours, plain, 10, [(moved, flops)], BATCH, what=what, channels=CONFIG.channels)
