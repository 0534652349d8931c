"""Next-scale cross-entropy, as one number and scale by scale.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h w latent grid
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .schedule import ScaleSchedule


def next_scale_cross_entropy(logits_BLV: torch.Tensor, tokens_BL: torch.Tensor) -> torch.Tensor:
    """Mean of -log p(token) over images and the tokens of all scales (VAR, arXiv 2404.02905, equation 5), in nats."""
    return F.cross_entropy(logits_BLV.flatten(0, 1).float(), tokens_BL.flatten())


def token_losses(logits_BLV: torch.Tensor, tokens_BL: torch.Tensor) -> torch.Tensor:
    """-log p(token) of each token (VAR, equation 5), in nats. Returns (B, L)."""
    return F.cross_entropy(logits_BLV.flatten(0, 1).float(), tokens_BL.flatten(), reduction="none").view_as(tokens_BL)


def by_scale(values_BL: torch.Tensor, schedule: ScaleSchedule) -> torch.Tensor:
    """Mean over images and the tokens of each scale of a per-token quantity (VAR, section 3.2). Returns (K,)."""
    return torch.stack([values_BL[:, piece].double().mean() for piece in schedule.slices])
