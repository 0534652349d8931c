"""Which tokens a zero-shot task knows: in-painting and out-painting by a box, super-resolution by scales, a prefix gone wrong.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h w latent grid
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .noise import generator
from .sampling import Known
from .schedule import ScaleSchedule

Box = tuple[float, float, float, float]
ALWAYS_KNOWN = 3


def box_mask(box: Box, size: int) -> torch.Tensor:
    """Cells of a square grid whose centre lies in a box (top, left, bottom, right), in shares of the side (VAR, arXiv 2404.02905,
    section 4.4). Returns bool (size, size). Raises ValueError for a box that is empty or leaves the picture."""
    top, left, bottom, right = box
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise ValueError(f"box {list(box)}: not inside the picture; 0 <= top < bottom <= 1 and 0 <= left < right <= 1")
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    rows, columns = (centre >= top) & (centre < bottom), (centre >= left) & (centre < right)
    return rows[:, None] & columns[None, :]


def known_by_mask(schedule: ScaleSchedule, known_hw: torch.Tensor, tokens_BL: torch.Tensor) -> Known:
    """The true tokens that in-painting and out-painting keep (VAR, arXiv 2404.02905, section 4.4): at every scale those where the
    known part, resized bilinearly to its grid, exceeds one half; a scale of three tokens or fewer is known whole.

    known_hw: bool on the finest grid; tokens_BL: the true tokens of the pictures.
    """
    mask_11hw, parts = known_hw.to(torch.float32)[None, None], []
    for side, length in zip(schedule.patch_nums, schedule.lengths):
        resized = F.interpolate(mask_11hw, size=(side, side), mode="bilinear", align_corners=False)
        parts.append((resized > 0.5).flatten() if length > ALWAYS_KNOWN else torch.ones(length, dtype=torch.bool))
    mask_L = torch.cat([part.to(tokens_BL.device) for part in parts])
    return Known(tokens_BL, mask_L.expand(len(tokens_BL), -1))


def known_scales(schedule: ScaleSchedule, count: int, tokens_BL: torch.Tensor) -> Known:
    """The true tokens of the first `count` scales: zero-shot super-resolution draws the rest (task: VAR, arXiv 2404.02905; protocol
    ours). Raises ValueError for a count outside 1 ... K-1."""
    last = schedule.num_scales - 1
    if not 1 <= count <= last:
        raise ValueError(f"known scales {count}: legal are 1 to {last}, since the schedule has {schedule.num_scales} scales")
    mask_L = torch.arange(schedule.seq_len, device=tokens_BL.device) < schedule.slices[count - 1].stop
    return Known(tokens_BL, mask_L.expand(len(tokens_BL), -1))


def corrupt_scale(
    schedule: ScaleSchedule, tokens_BL: torch.Tensor, k: int, share: float, codebook_size: int, seeds: Sequence[int]
) -> Known:
    """A prefix of scales 0 ... k whose scale k has a share of its tokens, at least one, replaced by other codes (error propagation of
    coarse-to-fine generation; protocol ours). Which ones, and by what, follows from an image's seed, k and the share alone, so that
    models are compared on the same errors.
    """
    where, wrong_BL = schedule.slices[k], tokens_BL.clone()
    length = where.stop - where.start
    count = max(1, round(share * length))
    for row, seed in enumerate(seeds):
        source = generator("corrupt scale", int(seed), k, f"{share:g}")
        places = torch.randperm(length, generator=source)[:count].to(tokens_BL.device) + where.start
        # an offset of 1 ... V-1 never gives the same code
        offset = torch.randint(1, codebook_size, (count,), generator=source).to(tokens_BL.device)
        wrong_BL[row, places] = (tokens_BL[row, places] + offset) % codebook_size
    mask_L = torch.arange(schedule.seq_len, device=tokens_BL.device) < where.stop
    return Known(wrong_BL, mask_L.expand(len(tokens_BL), -1))
