"""What there is of many images: whole in memory where it is small, else on disk while a verb runs.

What is mapped from a file costs no memory while nobody looks at it: the system takes its pages
back.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
import torch


class Rows:
    """A tensor of known length that is filled part by part.

    All parts and what they are joined to would be twice as much. And small parts that stay between
    large tensors that go cut up the memory that these leave, which then is not used again.
    """

    def __init__(self, count: int, device: torch.device | None = None) -> None:
        self.count, self.device, self.filled = count, device, 0
        self.rows_ND = torch.empty(0)

    def add(self, part_BD: torch.Tensor) -> None:
        """The next rows."""
        if not self.filled:
            shape, kind = (self.count, *part_BD.shape[1:]), part_BD.dtype
            self.rows_ND = torch.empty(shape, dtype=kind, device=self.device)
        self.rows_ND[self.filled : self.filled + len(part_BD)] = part_BD
        self.filled += len(part_BD)

    def whole(self) -> torch.Tensor:
        """All rows, which are there."""
        assert self.filled == self.count, f"{self.filled} of {self.count} rows"
        return self.rows_ND


def on_disk(folder: Path, parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """Tensors one behind the other, as `torch.cat` gives them, mapped from a file without a name.

    parts: one or more of one type, equal in all but their length, from any device; each is written
    before the next one is made. folder: where the file lies; its room is free again when nothing
    refers to the result, and when the process is killed. Returns a tensor on the CPU.
    """
    count, kind, shape = 0, np.dtype(np.uint8), torch.Size()
    with tempfile.TemporaryFile(dir=folder) as file:
        for part in parts:
            array = np.ascontiguousarray(part.detach().cpu().numpy())
            file.write(array.data)
            count, kind, shape = count + len(array), array.dtype, part.shape[1:]
        file.flush()
        if not file.tell():  # of nothing there is nothing to map
            return torch.from_numpy(np.empty((count, *shape), kind))
        return torch.from_numpy(np.memmap(file, kind, "r+", shape=(count, *shape)))


def bytes_on_disk(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An array of uint8 zeros to be filled, in a file of the same kind.

    Its room is taken at once: a full disk is an error here, and later the end of the process.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        _take_room(file, int(np.prod(shape)), folder)
        return np.memmap(file, np.uint8, "w+", shape=shape)


def npy_on_disk(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file of zeros to be filled, mapped; its room is taken at once, as that of
    `bytes_on_disk`."""
    array = np.lib.format.open_memmap(path, "w+", kind, shape)
    with open(path, "r+b") as file:
        _take_room(file, path.stat().st_size, path)
    return array


def _take_room(file: IO[bytes], size: int, place: Path) -> None:
    """Raises OSError that names the place where the disk has too little room."""
    if not hasattr(os, "posix_fallocate") or not size:
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(place)) from None
