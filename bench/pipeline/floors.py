"""How fast this machine can be at best.

Rates of copying and of multiplying matrices are measured; the least time that they allow follows.
Beside a measured time stands its floor: what must be moved over the copy rate (memory floor) or
what must be computed over the matmul rate (operation floor), whichever is longer.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from srdd.linear import by_onednn, product

from ..runtime.clock import seconds

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# well above the caches; large enough that starting a kernel costs nothing beside it, small enough
# for a few hundred ms on two cores
COPIED_BYTES = {"cpu": 2**27, "cuda": 2**29}
MATMUL_SIDE = {"cpu": 1024, "cuda": 8192}


# ---------------------------------------------------------------- rates


@dataclass(frozen=True)
class Rates:
    """bandwidth: bytes/s, read plus written; matmul: flop/s, a multiply-add is two."""

    bandwidth: float
    matmul: float


def copy_bandwidth(device: torch.device, repeats: int = 7) -> float:
    """Bytes a second, read plus written, of copying a tensor much larger than the caches: median of
    repeats."""
    size = COPIED_BYTES[device.type]
    source, target = (torch.ones(size // 4, device=device) for _ in range(2))
    return 2 * size / _median(lambda: target.copy_(source), device, repeats)


def matmul_rate(device: torch.device, dtype: torch.dtype, repeats: int = 7) -> float:
    """Operations a second of a large square matrix product, by the fastest library at hand: median
    of repeats."""
    side = MATMUL_SIDE[device.type]
    source = torch.Generator(device).manual_seed(
        0
    )  # equal numbers would draw less power and run faster than any real ones
    a, b, out = (
        torch.randn(side, side, generator=source, device=device).to(dtype) for _ in range(3)
    )
    least = _median(lambda: torch.mm(a, b, out=out), device, repeats)
    if by_onednn(a, b):
        least = min(least, _median(lambda: product(a, b), device, repeats))
    return 2 * side**3 / least


def _median(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of a call after one to warm up; on a GPU of ten at once, so that the launch does not
    count."""
    times = 10 if device.type == "cuda" else 1

    def calls() -> None:
        for _ in range(times):
            call()

    call()
    return statistics.median(seconds(calls, device) for _ in range(repeats)) / times


def measure_rates(device: torch.device, dtype: torch.dtype, repeats: int = 7) -> Rates:
    """Both rates, with this run's threads."""
    return Rates(copy_bandwidth(device, repeats), matmul_rate(device, dtype, repeats))


def best_rates(measured: list[Rates]) -> Rates:
    """The fastest of each rate: a floor is a bound, and a busy moment of the machine must not lower
    it."""
    return Rates(max(r.bandwidth for r in measured), max(r.matmul for r in measured))


# ---------------------------------------------------------------- floors


@dataclass(frozen=True)
class Floor:
    """The least seconds that a piece of work takes: for what it moves and for what it computes."""

    memory_s: float
    operations_s: float

    @property
    def seconds(self) -> float:
        """The longer of the two: a perfect program does both at once."""
        return max(self.memory_s, self.operations_s)


def floor_of(rates: Rates, moved_bytes: float, flops: float) -> Floor:
    """The floor of one piece of work."""
    return Floor(moved_bytes / rates.bandwidth, flops / rates.matmul)


def sampling_floors(
    rates: Rates, flops_K: Sequence[float], moved_bytes: tuple[float, ...], batch: int
) -> tuple[Floor, ...]:
    """The floor of every scale of a batch, from the operations of one image, `least_flops`, and the
    bytes of the whole batch.

    Scales follow one another, so that of a sample is their sum.
    """
    return tuple(
        floor_of(rates, moved, batch * flops) for moved, flops in zip(moved_bytes, flops_K)
    )
