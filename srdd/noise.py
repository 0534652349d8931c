"""Randomness by name: every generator is seeded from what it is for, so no order of execution can
change a result.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from named parts by sha256, so that seeds of different uses never collide
    (counterpart of EDM2's per-image seeds)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: str | int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)` (per-image generators as in EDM2, arXiv
    2312.02696)."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@torch.no_grad()
def truncated_normal_(
    weight: torch.Tensor, std: float, generator: torch.Generator, bound: float = 2.0
) -> torch.Tensor:
    """Fill with normal numbers of mean 0, drawn again where they lie beyond -bound or bound (VAR's
    first weights, arXiv 2404.02905): torch's own function draws other numbers from one release to
    the next."""
    weight.normal_(0.0, std, generator=generator)
    while (beyond := weight.abs() > bound).any():
        again = torch.empty_like(weight).normal_(0.0, std, generator=generator)
        weight.copy_(torch.where(beyond, again, weight))
    return weight


@contextmanager
def first_weights(seed: int) -> Iterator[None]:
    """Where a network with parts of a user's own is made: what their constructors draw follows from
    the training's seed (as image noise does in EDM2, arXiv 2312.02696), and torch's own generator
    stays as it was. Weights of the project's layers are drawn anew, by `init_weights`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed("own layers", seed))
        yield


class ImageNoise:
    """One generator per image and use: the numbers that an image draws depend on its own seed, not
    on its batch (EDM2, arXiv 2312.02696). The logits that they meet do depend on the batch, by
    rounding; see `sampling.generate`.

    seeds: one whole number per image. Numbers are drawn on the CPU and sent to `device` without
    waiting. Uses have numbers of their own, so that a refinement leaves the first draw of the next
    scale as it was.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seeds, self.device = [int(seed) for seed in seeds], torch.device(device)
        self.generators: dict[str, list[torch.Generator]] = {}
        # what was asked for, in this order: (length, use)
        self.asked: list[tuple[int, str]] = []

    def uniform(self, length: int, use: str = "") -> torch.Tensor:
        """The next `length` numbers of every image for a use, float64 in [0, 1) of shape (B,
        length)."""
        self.asked.append((length, use))
        return self._sent(self._next(length, use))

    def all_of(self, asked: Sequence[tuple[int, str]]) -> torch.Tensor:
        """The numbers of several calls of `uniform`, side by side (B, sum of lengths), sent at
        once."""
        return self._sent(torch.cat([self._next(*one) for one in asked], 1))

    def _next(self, length: int, use: str) -> torch.Tensor:
        """The next numbers of every image for a use, on the CPU."""
        if use not in self.generators:
            name = (use,) if use else ()
            self.generators[use] = [generator("image", seed, *name) for seed in self.seeds]
        rows = [torch.rand(length, generator=g, dtype=torch.float64) for g in self.generators[use]]
        return torch.stack(rows)

    def _sent(self, numbers: torch.Tensor) -> torch.Tensor:
        # from pinned memory the copy makes nobody wait
        return (numbers.pin_memory() if self.device.type == "cuda" else numbers).to(
            self.device, non_blocking=True
        )

    def normal(self, length: int, channels: int, use: str = "") -> torch.Tensor:
        """Standard normal numbers by the inverse of their distribution function at the next uniform
        ones, float64 of shape (B, length, channels)."""
        # 0 has no inverse: half of the smallest step of a uniform number stands for it
        uniform_BN = self.uniform(length * channels, use).clamp(min=2.0**-54)
        normal_BN: torch.Tensor = torch.special.ndtri(uniform_BN)
        return normal_BN.view(len(normal_BN), length, channels)


class GivenNoise(ImageNoise):
    """Numbers that were drawn before and lie on the device, handed out column by column in the
    order in which `ImageNoise` would draw them (EDM2, arXiv 2312.02696).

    numbers_BN: of `ImageNoise.all_of`. before: called ahead of all numbers that are asked for.
    """

    def __init__(self, numbers_BN: torch.Tensor, before: Callable[[], None] = lambda: None) -> None:
        super().__init__([], numbers_BN.device)
        self.numbers_BN, self.at, self.before = numbers_BN, 0, before

    def uniform(self, length: int, use: str = "") -> torch.Tensor:
        """The next numbers of every image, (B, length), uniform in [0, 1) (seeds an image: EDM2,
        arXiv 2312.02696). use: not read, the order says it."""
        self.before()
        self.at += length
        # a copy also of one row: kernels are compiled once more for numbers that begin anywhere
        return self.numbers_BN[:, self.at - length : self.at].clone()
