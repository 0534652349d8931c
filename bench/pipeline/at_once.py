"""How many images go through a network of convolutions at once."""

from __future__ import annotations

MOST_PIXELS = 2**20  # 256 images of 64 x 64


def at_once(most: int, side: int) -> int:
    """How many images of a side go through a network together: `most`, and fewer large ones, whose
    activations would fill a memory however few images a study has."""
    return max(1, min(most, MOST_PIXELS // side**2))
