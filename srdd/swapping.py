"""Which scales carry a degradation: tokens of one image in the place of another's, scale by scale
(the probe of RestoreVAR, arXiv 2505.18047, defined here).

B batch, L tokens of all scales, l of one scale, C latent channels, h w latent grid
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from .quantizer import Ladder
from .schedule import ScaleSchedule


def swapped(
    schedule: ScaleSchedule,
    tokens_BL: torch.Tensor,
    other_BL: torch.Tensor,
    scales: Collection[int],
) -> torch.Tensor:
    """Tokens with those of some scales taken from others (probe of RestoreVAR, arXiv 2505.18047).
    The residual chain is broken there: what a swap costs whatever it brings is what tokens of a
    third image cost. Returns tokens_BL. Raises ValueError for a scale that is not there."""
    if odd := [k for k in scales if not 0 <= k < schedule.num_scales]:
        raise ValueError(f"scale {odd[0]}: the schedule has 0 to {schedule.num_scales - 1}")
    parts = [
        (other_BL if k in scales else tokens_BL)[:, where]
        for k, where in enumerate(schedule.slices)
    ]
    return torch.cat(parts, 1)


@torch.no_grad()
def requantised(
    ladder: Ladder, tokens_BL: torch.Tensor, latent_BChw: torch.Tensor, cut: int
) -> torch.Tensor:
    """Keep the tokens of the scales below a cut and quantise what is left of a latent behind them
    (residual quantisation of VAR, arXiv 2404.02905, algorithm 1): a swap whose chain is whole.
    Returns tokens_BL."""
    f_hat_BChw, parts = ladder.empty_state(len(tokens_BL)), []
    for k, where in enumerate(ladder.schedule.slices):
        tokens_Bl = tokens_BL[:, where]
        if k >= cut:
            tokens_Bl = ladder.quantizer.nearest_code(ladder.rest(latent_BChw, f_hat_BChw, k))
        f_hat_BChw = ladder.add_scale(f_hat_BChw, ladder.quantizer.embed(tokens_Bl), k)
        parts.append(tokens_Bl)
    return torch.cat(parts, 1)
