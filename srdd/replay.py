"""A whole sample as one CUDA graph: a GPU then starts its kernels without waiting for Python.

B batch, L tokens of all scales, N random numbers of an image
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from .noise import GivenNoise, ImageNoise

T = TypeVar("T")
Asked = list[tuple[int, str]]  # the numbers that a sample takes, as `ImageNoise.asked`
Sample = tuple[torch.Tensor, torch.Tensor]  # tokens_BL and f_hat_BChw
# labels_B and noise -> the sample, and what else is worth keeping of the draw
Draw = Callable[[torch.Tensor, ImageNoise], tuple[Sample, T]]


class Replay(Generic[T]):
    """One batch of images drawn by replaying what was recorded once (next-scale prediction, VAR,
    arXiv 2404.02905): the same kernels at the same places in memory, other labels and numbers.

    draw: must wait for nothing and ask for as many numbers each time; asked: these, as `ImageNoise`
    noted them when the same batch size was drawn once before, which also warms up all libraries.
    """

    def __init__(self, draw: Draw[T], labels_B: torch.Tensor, asked: Asked) -> None:
        self.asked, self.labels_B = asked, labels_B.clone()
        count = sum(length for length, _ in asked)
        self.numbers_BN = torch.zeros(
            len(labels_B), count, dtype=torch.float64, device=labels_B.device
        )
        self.graph = torch.cuda.CUDAGraph()
        # another thread may go on talking to the GPU meanwhile
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.sample, self.kept = draw(self.labels_B, GivenNoise(self.numbers_BN))

    def __call__(self, labels_B: torch.Tensor, noise: ImageNoise) -> tuple[Sample, T]:
        """Tokens_BL and f_hat_BChw of other labels and seeds, as copies; what else was kept holds
        this draw's numbers until the next."""
        self.labels_B.copy_(labels_B)
        self.numbers_BN.copy_(noise.all_of(self.asked))
        self.graph.replay()
        tokens_BL, f_hat_BChw = self.sample
        return (tokens_BL.clone(), f_hat_BChw.clone()), self.kept
