"""Wall-clock time: of work with pauses, and of one call on a device.

A GPU works behind the program's back: it is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds since it was made, plus those of earlier, without its pauses."""

    def __init__(self, earlier: float = 0.0) -> None:
        self.began = time.monotonic() - earlier

    @property
    def seconds(self) -> float:
        """What it shows now."""
        return time.monotonic() - self.began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile takes no time."""
        began = time.monotonic()
        yield
        self.began += time.monotonic() - began


def synchronise(device: torch.device) -> None:
    """Wait for the GPU: before the clock starts and before it is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of one call, device waited for on both sides.

    torch.utils.benchmark would repeat it or take its mean; whoever pairs two paths needs each
    value.
    """
    synchronise(device)
    began = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - began


def busy_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time of one call that other programs on the same cores do not lengthen: on a CPU processor
    time over the number of torch's threads, on a GPU wall-clock time.

    With one thread that is the time the call takes alone. With more it is the least that it can
    take: where a part leaves threads idle, wall-clock time is longer.
    """
    if device.type != "cpu":
        return seconds(call, device)
    began = time.process_time()
    call()
    return (time.process_time() - began) / torch.get_num_threads()
