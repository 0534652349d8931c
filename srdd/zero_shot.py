"""Tokens that are given, not drawn: in-painting, out-painting, super-resolution, and a prefix with
errors in it.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .noise import generator
from .sampling import Known
from .schedule import ScaleSchedule

TRUE_UP_TO = 3  # scales of so many tokens or fewer are all ground truth


def box_mask(box: tuple[float, float, float, float], size: int) -> torch.Tensor:
    """The cells of a grid inside a box, its edges rounded to whole cells (VAR's editing protocol,
    arXiv 2404.02905, section 4.4).

    box: (top, left, bottom, right) in shares of the side. Returns bool of shape (size, size).
    Raises ValueError for a box outside of the grid, and for one that holds no cell of it or all.
    """
    top, left, bottom, right = box
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise ValueError(
            f"box {list(box)}: 0 <= top < bottom <= 1 and 0 <= left < right <= 1 must hold"
        )
    inside_hw = torch.zeros(size, size, dtype=torch.bool)
    rows = slice(round(top * size), round(bottom * size))
    columns = slice(round(left * size), round(right * size))
    inside_hw[rows, columns] = True
    if inside_hw.all() or not inside_hw.any():
        cells = "all cells" if inside_hw.any() else "no cell"
        raise ValueError(
            f"box {list(box)}: holds {cells} of the {size}x{size} grid; move its edges"
        )
    return inside_hw


def _check_length(schedule: ScaleSchedule, tokens_BL: torch.Tensor) -> None:
    if tokens_BL.shape[1:] != (schedule.seq_len,):
        raise ValueError(
            f"tokens {tuple(tokens_BL.shape)}: must be ('B', {schedule.seq_len}) for patch_nums "
            f"{list(schedule.patch_nums)}"
        )


def known_in_box(
    schedule: ScaleSchedule, unknown_hw: torch.Tensor, tokens_BL: torch.Tensor
) -> Known:
    """Ground truth where a scale's bilinear share of what is known exceeds 0.5, and at every scale
    of at most 3 tokens (VAR's editing protocol, arXiv 2404.02905, section 4.4).

    unknown_hw: bool on the finest grid, the same for all images. Raises ValueError for a mask of
    another size.
    """
    size = schedule.latent_size
    if tuple(unknown_hw.shape) != (size, size):
        raise ValueError(
            f"unknown_hw {tuple(unknown_hw.shape)}: must be the finest grid, {(size, size)}"
        )
    known_11hw = (~unknown_hw).float()[None, None]
    parts = []
    for side, length in zip(schedule.patch_nums, schedule.lengths):
        share_11hw = F.interpolate(
            known_11hw, size=(side, side), mode="bilinear", align_corners=False
        )
        parts.append((share_11hw > 0.5).flatten() | (length <= TRUE_UP_TO))
    return Known(tokens_BL, torch.cat(parts).to(tokens_BL.device).expand_as(tokens_BL))


def known_prefix(schedule: ScaleSchedule, count: int, tokens_BL: torch.Tensor) -> Known:
    """All tokens of the first `count` scales (the coarse-to-fine order of VAR, arXiv 2404.02905,
    equation 5). Raises ValueError for a count or tokens of another schedule."""
    if not 0 <= count <= schedule.num_scales:
        raise ValueError(
            f"count {count}: must be 0 ... {schedule.num_scales}, the scales there are"
        )
    _check_length(schedule, tokens_BL)
    mask_L = torch.arange(schedule.seq_len, device=tokens_BL.device) < sum(schedule.lengths[:count])
    return Known(tokens_BL, mask_L.expand_as(tokens_BL))


def known_scales(schedule: ScaleSchedule, m: int, tokens_BL: torch.Tensor) -> Known:
    """Super-resolution: the true tokens of the first m scales are kept, the finer ones drawn (VAR,
    arXiv 2404.02905, equation 5).

    Raises ValueError for an m that leaves nothing known or nothing to draw.
    """
    last = schedule.num_scales - 1
    if not 1 <= m <= last:
        legal = f"1 to {last}" if last else "none, there is one scale"
        raise ValueError(
            f"m {m}: of {schedule.num_scales} scales the first m are kept and the others drawn "
            f"(legal: {legal})"
        )
    return known_prefix(schedule, m, tokens_BL)


def replaced_count(length: int, share: float) -> int:
    """How many of `length` tokens a share is: rounded, at least one (corruption after D3PM, arXiv
    2107.03006, but of exact count)."""
    return max(1, round(share * length))


def replace_tokens(
    tokens_BL: torch.Tensor,
    schedule: ScaleSchedule,
    k: int,
    share: float,
    seeds: Sequence[int],
    codebook_size: int,
) -> torch.Tensor:
    """Replace a share of scale k's tokens by other codes, each of them equally likely (uniform
    noise of D3PM, arXiv 2107.03006, appendix A.2.1, conditioned on a change and on how many
    change).

    seeds: one per image. Positions depend on (seed, k) only, those of a smaller share are among
    those of a larger one. So do the codes, except where the drawn one is the token that stands
    there: another one is then taken. Returns new tokens_BL. Raises ValueError for a codebook
    without another code, and for a scale, share or number of seeds that do not fit.
    """
    if codebook_size < 2:
        raise ValueError(
            f"codebook_size {codebook_size}: there is no other code to replace a token by"
        )
    _check_length(schedule, tokens_BL)
    if not 0 <= k < schedule.num_scales:
        raise ValueError(f"k {k}: the schedule has scales 0 ... {schedule.num_scales - 1}")
    if not 0 < share <= 1:
        raise ValueError(f"share {share}: must be above 0 and at most 1")
    if len(seeds) != len(tokens_BL):
        raise ValueError(f"{len(seeds)} seeds for {len(tokens_BL)} images: one seed for each image")
    where, length = schedule.slices[k], schedule.lengths[k]
    count, new_BL = replaced_count(length, share), tokens_BL.clone()
    for row, seed in enumerate(seeds):
        rng = generator("replace", int(seed), k)
        places_n = torch.randperm(length, generator=rng)[:count].to(tokens_BL.device) + where.start
        drawn_n = torch.randint(codebook_size, (length,), generator=rng)[:count].to(
            tokens_BL.device
        )
        shift_n = torch.randint(1, codebook_size, (length,), generator=rng)[:count].to(
            tokens_BL.device
        )
        old_n = tokens_BL[row, places_n]
        new_BL[row, places_n] = torch.where(
            drawn_n == old_n, (old_n + shift_n) % codebook_size, drawn_n
        )
    return new_BL
