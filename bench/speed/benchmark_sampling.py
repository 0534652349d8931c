"""Sampling, whole and scale by scale: ours against the plain path, beside the floor. Not tests.

VAR and SDD; the plain path is bench/speed/plain.py.

    ./run test bench/speed/benchmark_sampling.py --benchmark-enable -s

Prints, and writes to results/benchmarks/sampling_<device>.csv, both times, their ratio, the floor
and both times over it.

Setting: the 256-pixel schedule (680 tokens), width 256, depth 4, 4 heads, 4096 codes of 32 numbers,
batch 4, guidance w from 1 to 2.5, top-k 900, top-p 0.96, float32. From the first scale to the
latent state: the decoder is excluded.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from srdd.config import ModelConfig, SamplerConfig
from srdd.cost import sampling_bytes, sampling_cost
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.quantizer import Ladder, Quantizer
from srdd.sampling import generate
from srdd.schedule import ScaleSchedule

from ..runtime.clock import synchronise
from .comparing import COMPILED, DEVICE, Rows, Timed, compare, interleaved, keep, kept_rows
from .plain import plain_sample

SCHEDULE = ScaleSchedule((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
BATCH, WIDTH, HEADS, DEPTH, V, C = 4, 256, 4, 4, 4096, 32
SAMPLER = SamplerConfig(cfg_scale=2.5, cfg_ramp="linear", top_k=900, top_p=0.96)
HISTORIES = {"VAR": None, "SDD": 0}
rows = kept_rows("sampling", "variant", "scale")


@dataclass(frozen=True)
class ClockedLadder(Ladder):
    """A ladder that notes the time when a scale is begun."""

    ticks: list[float] = field(default_factory=list)

    def read_scale(self, f_BChw: torch.Tensor, k: int) -> torch.Tensor:
        self.tick()
        return super().read_scale(f_BChw, k)

    def tick(self) -> None:
        """Note the time, device waited for."""
        synchronise(DEVICE)
        self.ticks.append(time.perf_counter())


Draw = Callable[[Ladder], object]


def paths(
    history: int | None, compiled: bool = False
) -> tuple[Draw, Draw, Quantizer, list[tuple[float, float]]]:
    """Ours and the plain way to draw one batch with the same weights; the quantizer; bytes and
    operations by scale."""
    config = ModelConfig(
        patch_nums=SCHEDULE.patch_nums,
        codebook_size=V,
        codebook_dim=C,
        history=history,
        depth=DEPTH,
        width=WIDTH,
        heads=HEADS,
    )
    model, quantizer = ScaleTransformer(config), Quantizer(V, C)
    for module in (model, quantizer):
        module.init_weights(generator("benchmark"))
        module.eval().to(DEVICE)
    unchanged = copy.deepcopy(model)
    if compiled:
        model.compile_step()
    labels_B, source = torch.arange(BATCH, device=DEVICE), torch.Generator(DEVICE)

    def ours(ladder: Ladder) -> object:
        return generate(model, ladder, labels_B, range(BATCH), SAMPLER)

    def plain(ladder: Ladder) -> object:
        return plain_sample(unchanged, ladder, labels_B, SAMPLER, source.manual_seed(0))

    flops = [BATCH * flops for _, _, flops in sampling_cost(config, SAMPLER).by_scale]
    return ours, plain, quantizer, list(zip(sampling_bytes(config, SAMPLER, BATCH), flops))


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("variant", HISTORIES)
def test_sampling_against_plain(
    benchmark: BenchmarkFixture, rows: Rows, variant: str, compiled: bool
) -> None:
    """A whole sample: network, draws and ladder; as it is, and with one compiled step for each
    scale."""
    ours, plain, quantizer, work = paths(HISTORIES[variant], compiled)
    ladder, name = quantizer.at(SCHEDULE), f"{variant}, compiled" if compiled else variant
    names = {"variant": name, "scale": "all", "side": "all"}
    compare(benchmark, rows, lambda: ours(ladder), lambda: plain(ladder), 10, work, BATCH, **names)


@pytest.mark.parametrize("variant", HISTORIES)
def test_scales_against_plain(benchmark: BenchmarkFixture, rows: Rows, variant: str) -> None:
    """Every scale inside whole samples, from the state that it reads to the one it leaves."""
    ours, plain, quantizer, work = paths(HISTORIES[variant])

    def by_scale(sample: Draw) -> list[float]:
        ladder = ClockedLadder(quantizer, SCHEDULE)
        sample(ladder)
        ladder.tick()
        return [end - begin for begin, end in pairwise(ladder.ticks)]

    timed = interleaved(
        benchmark, lambda: by_scale(ours), lambda: by_scale(plain), 10, lambda call: call()
    )
    if timed is None:
        return
    pairs, rates = timed
    for k, side in enumerate(SCHEDULE.patch_nums):
        of_scale = [(a[k] if a else None, b[k]) for a, b in pairs]
        names = {"variant": variant, "scale": k, "side": side}
        keep(rows, Timed(of_scale, rates), [work[k]], BATCH, **names)
