"""What a function of a user's own is given and must leave as it is.

torch counts the changes of a tensor. A change through numpy or `.data` is not counted: checksums
tell it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch


def checksum(value: Any) -> int:
    """A checksum of every tensor and array that a value holds, such as the features of a score
    (FID, arXiv 1706.08500). It also tells numbers that have changed places."""
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return zlib.crc32(data.numpy().data)
    if isinstance(value, np.ndarray):
        return zlib.crc32(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return zlib.crc32(repr([checksum(part) for part in _parts(value)]).encode())


def _parts(value: Any) -> Iterable[Any]:
    """The values that a value holds; none of what is no container."""
    if isinstance(value, dict):
        return value.values()
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    return value if isinstance(value, (tuple, list)) else ()


class Untouched:
    """Tensors that a function of one's own is given and must leave as they are: what it is asked
    for, and what later images are drawn from (VAR, arXiv 2404.02905, or another sampler).

    torch's count of changes waits for no GPU. Of a CPU there is a checksum besides, which also sees
    a change through `.numpy()` or `.data`; these tensors are small.
    """

    def __init__(self, **tensors: torch.Tensor) -> None:
        # tensors of inference mode are not counted
        self.counted = {n: x for n, x in tensors.items() if not x.is_inference()}
        self.summed = {n: x for n, x in tensors.items() if x.device.type == "cpu"}
        self.before = {name: tensor._version for name, tensor in self.counted.items()}
        self.sums = {name: checksum(tensor) for name, tensor in self.summed.items()}

    def check(self, who: str) -> None:
        """Raises ValueError that begins with `who` for the first tensor that was changed, which a
        later image of VAR (arXiv 2404.02905) would be drawn from."""
        changed = [n for n, x in self.counted.items() if x._version != self.before[n]]
        changed += [n for n, x in self.summed.items() if checksum(x) != self.sums[n]]
        if changed:
            raise ValueError(
                f"{who}: changes {changed[0]} in place, which others read too; work on a copy, "
                "such as that of .clone()"
            )
