"""Tensors of many images that a verb needs more than once, on disk while it runs.

What is mapped from a file costs no memory while nobody looks at it: the system takes its pages
back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch


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
