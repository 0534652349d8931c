"""Attention masks over the token sequence, as dense matrices: the reference, and the place of masks
that are no `history`.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import sys

import torch

from .contracts import ask_mask
from .lookup import find, function_name
from .schedule import ScaleSchedule


def scale_of_token(schedule: ScaleSchedule) -> torch.Tensor:
    """Index k of the scale that each of the L positions belongs to (VAR, arXiv 2404.02905, figure
    4).

    Returns int64 of shape (L,).
    """
    return torch.tensor([k for k, length in enumerate(schedule.lengths) for _ in range(length)])


def scale_mask(schedule: ScaleSchedule, history: int | None) -> torch.Tensor:
    """Who sees whom: tokens of scale k attend to scales k - history ... k (VAR's `d >= dT` at None,
    SDD's block diagonal at 0).

    Returns bool of shape (L, L), rows are queries. The model never builds it for a `history`: it
    attends scale by scale.
    """
    scale = scale_of_token(schedule)
    distance = scale[:, None] - scale[None, :]
    return (distance >= 0) if history is None else (distance >= 0) & (distance <= history)


def window_mask(side: int, window: int) -> torch.Tensor:
    """Who sees whom inside a scale: each token a square of window x window tokens about it, moved
    inwards at the borders, so that all see as many (MVAR, arXiv 2505.12742; neighbourhood attention
    of 2204.07143).

    Returns bool of shape (l, l), l = side^2, rows are queries; a window of the side or more is no
    window.
    """
    w = min(window, side)
    place_s = torch.arange(side)
    first_s = (place_s - w // 2).clamp(0, side - w)
    near_ss = (place_s >= first_s[:, None]) & (place_s < first_s[:, None] + w)
    # near along both axes: query (y, x) and key (y', x')
    near_yxYX = near_ss[:, None, :, None] & near_ss[None, :, None, :]
    return near_yxYX.reshape(side * side, side * side)


def window_rows(
    schedule: ScaleSchedule, history: int | None, k: int, window: int | None, window_from: int
) -> torch.Tensor | None:
    """Which of the keys that scale k attends to its tokens see where the own scale is windowed and
    earlier ones are not (MVAR, arXiv 2505.12742): bool (l, keys); None where all."""
    if window is None or not schedule.windowed(k, window, window_from):
        return None
    keys, length = schedule.key_slice(k, history), schedule.lengths[k]
    earlier = torch.ones(length, keys.stop - keys.start - length, dtype=torch.bool)
    return torch.cat((earlier, window_mask(schedule.patch_nums[k], window)), 1)


def windowed_mask(
    schedule: ScaleSchedule, history: int | None, window: int | None, window_from: int = 0
) -> torch.Tensor:
    """`scale_mask` with windowed own scales (MVAR, arXiv 2505.12742), the reference: bool of shape
    (L, L), rows are queries."""
    mask_LL = scale_mask(schedule, history)
    for k, piece in enumerate(schedule.slices):
        rows = window_rows(schedule, history, k, window, window_from)
        if rows is not None:
            mask_LL[piece, schedule.key_slice(k, history)] &= rows
    return mask_LL


def named_mask(name: str, schedule: ScaleSchedule) -> torch.Tensor:
    """The mask of `mask_<name>`, a function of one's own: bool of shape (L, L) on the CPU, rows are
    queries, True may look.

    Raises ValueError for an unknown name, and for a mask that leaks, lets a token see nothing, or
    is no such tensor.
    """
    mask = find(sys.modules[__name__], "mask", name)
    return ask_mask(mask, schedule, function_name("mask", name))
