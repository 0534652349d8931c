"""A whole sample as CUDA graphs, one for each pass over a scale: a GPU then starts its kernels
without waiting for Python.

B batch, L tokens of all scales, N random numbers of an image
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import torch

from .noise import GivenNoise, ImageNoise

T = TypeVar("T")
Asked = list[tuple[int, str]]  # the numbers that a sample takes, as `ImageNoise.asked`
# labels_B and noise -> tokens_BL and f_hat_BChw, and what else is worth keeping of the draw
Draw = Callable[[torch.Tensor, ImageNoise], tuple[Any, T]]


class Recording:
    """CUDA graphs that follow one another over the same memory: the next begins where `cut` is
    called.

    The GPU works at the first while the CPU still starts the second; one graph of all kernels would
    let it wait.
    """

    def __init__(self) -> None:
        self.graphs: list[torch.cuda.CUDAGraph] = []
        self.pool = torch.cuda.graph_pool_handle()

    def _begin(self) -> None:
        self.graphs.append(torch.cuda.CUDAGraph())
        # another thread may go on talking to the GPU meanwhile
        self.graphs[-1].capture_begin(self.pool, capture_error_mode="thread_local")

    def cut(self) -> None:
        """What follows belongs to the next graph."""
        self.graphs[-1].capture_end()
        self._begin()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Record what is asked of the GPU inside."""
        torch.cuda.synchronize()
        # while recording, memory that lies idle cannot be given back to make room
        torch.cuda.empty_cache()
        with torch.cuda.stream(torch.cuda.Stream()):
            self._begin()
            try:
                yield
            except BaseException:
                with suppress(RuntimeError):  # what went wrong first is what is said
                    self.graphs[-1].capture_end()
                raise
            self.graphs[-1].capture_end()
        torch.cuda.synchronize()

    def replay(self) -> None:
        """Do all that was recorded once more."""
        for graph in self.graphs:
            graph.replay()


class Replay(Generic[T]):
    """One batch of images drawn by replaying what was recorded once (next-scale prediction, VAR,
    arXiv 2404.02905): the same kernels at the same places in memory, other labels and numbers.

    draw: must wait for nothing and ask for as many numbers each time; asked: these, as `ImageNoise`
    noted them when the same batch size was drawn once before, which also warms up all libraries.
    weights: what is read in their places in memory, and kept there.
    """

    def __init__(
        self, draw: Draw[T], labels_B: torch.Tensor, asked: Asked, weights: list[torch.Tensor]
    ) -> None:
        self.asked, self.labels_B = asked, labels_B.clone()
        # detached: the memory outlives a module that moves its weights elsewhere
        self.weights = [weight.detach() for weight in weights]
        count = sum(length for length, _ in asked)
        self.numbers_BN = torch.zeros(
            len(labels_B), count, dtype=torch.float64, device=labels_B.device
        )
        self.recording = Recording()
        with self.recording():
            noise = GivenNoise(self.numbers_BN, self.recording.cut)
            self.sample, self.kept = draw(self.labels_B, noise)

    def reads(self, weights: list[torch.Tensor]) -> bool:
        """Whether these are the weights that it was recorded with (VAR, arXiv 2404.02905), where
        they lay then; their values may have changed."""
        pairs = zip(self.weights, weights, strict=True)
        return all(known.data_ptr() == weight.data_ptr() for known, weight in pairs)

    def __call__(self, labels_B: torch.Tensor, noise: ImageNoise) -> tuple[Any, T]:
        """Tokens_BL and f_hat_BChw of other labels and seeds, as copies; what else was kept holds
        this draw's numbers until the next."""
        self.labels_B.copy_(labels_B)
        self.numbers_BN.copy_(noise.all_of(self.asked))
        self.recording.replay()
        tokens_BL, f_hat_BChw = self.sample
        return (tokens_BL.clone(), f_hat_BChw.clone()), self.kept
