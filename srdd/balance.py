"""Weights of scales in the loss of a training, `balance_<name>(schedule)`: how much of the gradient
coarse scales get, which have few of the tokens.

B batch, L tokens of all scales, K scales
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from .contracts import fits, shape_of
from .lookup import find, function_name
from .schedule import ScaleSchedule


def _sides(schedule: ScaleSchedule) -> torch.Tensor:
    return torch.tensor(schedule.patch_nums, dtype=torch.float64)


def balance_token(schedule: ScaleSchedule) -> torch.Tensor:
    """1 for every token (VAR, arXiv 2404.02905, equation 5): a scale counts as its tokens do.
    Returns float64 (K,)."""
    return torch.ones(schedule.num_scales, dtype=torch.float64)


def balance_side(schedule: ScaleSchedule) -> torch.Tensor:
    """1/p of a scale of side p (public code of Infinity, arXiv 2412.04431). Returns float64
    (K,)."""
    return 1 / _sides(schedule)


def balance_scale(schedule: ScaleSchedule) -> torch.Tensor:
    """1/p^2 of a scale of side p: all scales count alike ("equal" of HMAR, arXiv 2506.04421).
    Returns float64 (K,)."""
    return 1 / _sides(schedule).square()


def balance_bell(schedule: ScaleSchedule) -> torch.Tensor:
    """Scales of middle size count most: a Gaussian in log2 p, with the mean and the standard
    deviation of the schedule's, over p^2 (close to "lognorm" of HMAR, arXiv 2506.04421; this form
    is ours). Returns float64 (K,)."""
    log_K = _sides(schedule).log2()
    if len(set(schedule.patch_nums)) == 1:  # no deviation to divide by
        return balance_scale(schedule)
    z_K = (log_K - log_K.mean()) / log_K.std()
    return (-z_K.square() / 2).exp() * balance_scale(schedule)


def _checked(weight_K: Any, schedule: ScaleSchedule, who: str) -> torch.Tensor:
    """Weights that can be divided by their mean over tokens. Raises ValueError that begins with
    `who`."""
    shape = (schedule.num_scales,)
    if not fits(weight_K, torch.float64, shape):
        raise ValueError(
            f"{who}: gives {shape_of(weight_K)}; must be float64 of shape {shape}, a weight for "
            "each scale"
        )
    # written so that NaN is refused too
    if not (weight_K.isfinite() & (weight_K >= 0)).all():
        raise ValueError(
            f"{who}: gives a weight that is negative or not a finite number; must be 0 or more"
        )
    if not weight_K.any():
        raise ValueError(f"{who}: gives 0 for every scale; nothing would be learned")
    return weight_K


def scale_weights(name: str, schedule: ScaleSchedule) -> torch.Tensor:
    """Weight of each token of a scale by `balance_<name>`, so that the tokens of an image weigh 1
    on average: sum_k n_k w_k = L. Learning rate and clip keep their meaning (ours; HMAR's "equal",
    arXiv 2506.04421, sums to K).

    Returns float64 (K,). Raises ValueError for an unknown name, or a function of one's own that
    gives anything else.
    """
    weight_K = find(sys.modules[__name__], "balance", name)(schedule)
    weight_K = _checked(weight_K, schedule, function_name("balance", name))
    lengths_K = torch.tensor(schedule.lengths, dtype=torch.float64)
    normalised_K: torch.Tensor = weight_K * (schedule.seq_len / (lengths_K * weight_K).sum())
    return normalised_K


def balanced(
    name: str,
    schedule: ScaleSchedule,
    share_BL: torch.Tensor | None,
    counted: float,
    images: int,
    rule: str = "count",
) -> tuple[torch.Tensor | None, float]:
    """Weights of tokens times those of their scales, and what the weighted sum of losses is divided
    by (after HMAR, arXiv 2506.04421).

    share_BL, counted: of `mask_shares` by this rule; share_BL None for 1 everywhere. A sum that is
    divided by its weights stays a weighted mean; that of rule elbo, which is divided by the number
    of tokens, stays so, since the weights of scales are 1 on average.
    """
    if name == "token":
        return share_BL, counted
    weight_L = scale_weights(name, schedule).float()
    weight_L = weight_L.repeat_interleave(torch.tensor(schedule.lengths))
    if share_BL is None:
        return weight_L.expand(images, -1), counted
    weighed_BL = share_BL * weight_L.to(share_BL.device)
    if rule == "elbo":
        return weighed_BL, counted
    return weighed_BL, weighed_BL.sum(dtype=torch.float64).item()
