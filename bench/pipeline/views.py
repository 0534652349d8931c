"""Other views of images, and batches whose images differ: what a contrast of images learns from."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

SHIFT, CONTRAST = 1, 0.1  # of a view: pixels at most, and how far contrast goes from 1


def view_of(images_BCHW: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Another view of images in [-1, 1]: shifted by a pixel at most, edges repeated, with a little
    more or less contrast. Not flipped: a flip makes another digit, and would teach blindness to
    orientation."""
    B, _, H, W = images_BCHW.shape
    moved_2B = torch.randint(0, 2 * SHIFT + 1, (2, B), generator=source)
    factor_B = 1 + CONTRAST * (2 * torch.rand(B, generator=source) - 1)
    padded = F.pad(images_BCHW, (SHIFT,) * 4, mode="replicate")
    views = [padded[i, :, y : y + H, x : x + W] for i, (y, x) in enumerate(zip(*moved_2B.tolist()))]
    view_BCHW = torch.stack(views)
    mean_B111 = view_BCHW.mean((1, 2, 3), keepdim=True)
    factor_B111 = factor_B.to(view_BCHW)[:, None, None, None]
    return (mean_B111 + factor_B111 * (view_BCHW - mean_B111)).clamp(-1, 1)


def different(order_N: Iterable[int], tokens_NL: torch.Tensor, count: int) -> list[int]:
    """The first so many rows of an order whose tokens differ: equal images would be negatives of
    one another. Raises ValueError for fewer."""
    rows: dict[bytes, int] = {}
    for row in order_N:
        rows.setdefault(tokens_NL[row].numpy().tobytes(), row)
        if len(rows) == count:
            return list(rows.values())
    raise ValueError(
        f"a batch of {count}: there are {len(rows)} images with different tokens; give fewer"
    )
