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


def named_mask(name: str, schedule: ScaleSchedule) -> torch.Tensor:
    """The mask of `mask_<name>`, a function of one's own: bool of shape (L, L) on the CPU, rows are
    queries, True may look.

    Raises ValueError for an unknown name, and for a mask that leaks, lets a token see nothing, or
    is no such tensor.
    """
    mask = find(sys.modules[__name__], "mask", name)
    return ask_mask(mask, schedule, function_name("mask", name))
