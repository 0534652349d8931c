"""How many images go through a network of convolutions at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MOST_PIXELS = 2**20  # 256 images of 64 x 64


def at_once(most: int, side: int) -> int:
    """How many images of a side go through a network together: `most`, and fewer large ones, whose
    activations would fill a memory however few images a study has."""
    return max(1, min(most, MOST_PIXELS // side**2))


def row_parts(rows_N: np.ndarray, size: int) -> Iterator[list[int]]:
    """Rows of a split in their order, so many at a time."""
    for i in range(0, len(rows_N), size):
        yield rows_N[i : i + size].tolist()
