"""The processes that share one run, as torchrun starts them.

One for each GPU, or several on the CPU. Without torchrun there is one.

Every process draws and decides the same; the first one writes. One that fails reports for all, and
the others leave with its exit status instead of waiting for ever.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from ..study.errors import ConfigError

TIMEOUT = timedelta(
    minutes=30
)  # more than the first process needs to write what the others wait for


class Ranks:
    """This process among those of its run: `rank` of `world`, `local` of `local_world` on this
    machine."""

    def __init__(self) -> None:
        self.rank, self.world, self.local, self.local_world = 0, 1, 0, 1
        self.store: dist.Store | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """This process's device. Raises ConfigError for more processes than GPUs."""
        if name != "cuda" or self.store is None:
            return torch.device(name)
        if self.local_world > torch.cuda.device_count():
            raise ConfigError(
                f"--nproc-per-node {self.local_world}: more processes than the "
                f"{torch.cuda.device_count()} GPUs that torch sees here; "
                "start one for each GPU, or give --device cpu"
            )
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def connect(self, device: torch.device) -> None:
        """Meet the other processes: gradients go by nccl between GPUs, all else by gloo."""
        if self.store is None:
            return
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", self.store),
            rank=self.rank,
            world_size=self.world,
            timeout=TIMEOUT,
        )
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """Part from the others after work that went well."""
        if dist.is_initialized():
            self.wait()
            dist.destroy_process_group()
        self.store = None

    def rows(self, count: int) -> slice:
        """This process's share of `count` rows."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """A CPU tensor of every process, in the order of their ranks, (world, ...): the same bits
        everywhere."""
        table = values.new_zeros(self.world, *values.shape)
        table[self.rank] = values
        if dist.is_initialized():
            dist.all_reduce(table)  # to each row the others add nothing
        return table

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a CPU tensor over the processes: the same bits everywhere."""
        return self.gather(values).sum(0)

    def wait(self) -> None:
        """Until all are here."""
        self.gather(torch.zeros(1))

    def follow(self) -> None:
        """Until the first process calls it too, however long it was kept: `wait` gives up."""
        if self.store is None:
            return
        if self.first:
            self.store.set("followed", "yes")
        while not self.store.check(["followed"]):
            time.sleep(0.05)

    def report(self) -> None:
        """Goes on in the first process that fails: it says so for all, then calls `end`.

        Another waits for that and leaves.
        """
        if self.store is not None and self.store.add("failed", 1) > 1:
            self._leave(self.store)

    def end(self, status: int) -> None:
        """Let the others leave with an exit status."""
        if self.store is not None:
            self.store.set("ended", str(status))

    def _leave(self, store: dist.Store) -> NoReturn:
        """Exit with the status of the process that failed first."""
        store.wait(["ended"], TIMEOUT)
        os._exit(int(store.get("ended")))  # not sys.exit: a peer that is gone would be waited for

    def _watch(self) -> None:
        """Leave when another process has failed, which this one would wait for, or when torchrun
        itself is gone."""
        try:
            while (store := self.store) is not None:
                if store.check(["ended"]):
                    self._leave(store)
                time.sleep(0.5)
        except RuntimeError:
            if (
                self.store is not None
            ):  # else all work is done, and the first process has left with the store
                os._exit(1)


def join() -> Ranks:
    """The processes that torchrun started together with this one, or this one alone."""
    ranks = Ranks()
    if dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1:
        ranks.store, ranks.rank, ranks.world = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        ranks.local = int(os.environ["LOCAL_RANK"])
        ranks.local_world = int(os.environ["LOCAL_WORLD_SIZE"])
    return ranks
