"""The transformer block whose gains, shifts and gates come from the class (AdaLN), and stochastic
depth.

B batch, L tokens of all scales, D width
E blocks
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .attention import Attend, Attention
from .config import ModelConfig
from .linear import Linear, linear_gelu


class Block(nn.Module):
    """Pre-norm attention and MLP whose gains, shifts and gates come from the class (AdaLN; VAR,
    section 3.3; DiT, 2212.09748)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.width
        self.attention = Attention(config)
        self.mlp_in = Linear(D, round(D * config.mlp_ratio))
        self.mlp_out = Linear(round(D * config.mlp_ratio), D)
        if config.shared_adaln:
            self.modulation_table = nn.Parameter(torch.empty(6, D))
        else:
            self.modulation = Linear(D, 6 * D)

    def modulate(
        self, condition_BD: torch.Tensor, shared_B6D: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """Gates, gains and shifts of attention and MLP, each (B, 1, D); they depend on the class
        alone."""
        if shared_B6D is None:
            all_B6D = self.modulation(F.silu(condition_BD)).unflatten(-1, (6, -1))
        else:
            all_B6D = self.modulation_table + shared_B6D
        parts: tuple[torch.Tensor, ...] = all_B6D.unsqueeze(2).unbind(1)
        return parts

    def forward(
        self,
        x_BLD: torch.Tensor,
        modulation: tuple[torch.Tensor, ...],
        attend: Attend,
        paths_2B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """paths_2B: factors of the attention's and the MLP's branch for each image, from
        `draw_paths`; None: both whole."""
        gate1, gate2, gain1, gain2, shift1, shift2 = modulation
        if paths_2B is not None:
            gate1, gate2 = (
                gate * path[:, None, None].to(gate) for gate, path in zip((gate1, gate2), paths_2B)
            )
        h = self.attention(torch.addcmul(shift1, norm(x_BLD), gain1 + 1), attend)
        x_BLD = torch.addcmul(x_BLD, h, gate1)
        h = torch.addcmul(shift2, norm(x_BLD), gain2 + 1)
        h = self.mlp_out(linear_gelu(h, self.mlp_in.weight, self.mlp_in.bias))
        return torch.addcmul(x_BLD, h, gate2)


def norm(x_BLD: torch.Tensor) -> torch.Tensor:
    """LayerNorm without learned parameters: AdaLN (DiT, arXiv 2212.09748) brings gain and shift.
    Shape is kept."""
    return F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=1e-6)


def draw_paths(rates: Sequence[float], batch: int, generator: torch.Generator) -> torch.Tensor:
    """Stochastic depth (arXiv 1603.09382, equation 2): of each block a residual branch is dropped
    per image at the block's rate.

    Returns float32 factors paths_E2B on the CPU: 0 where dropped, 1 / (1 - rate) where kept. Drawn
    before the network runs, so that a recomputation sees the same, a part of a batch sees its part,
    and a compiled graph does not break.
    """
    draws = [
        torch.rand(2, batch, generator=generator) >= rate if rate else torch.ones(2, batch)
        for rate in rates
    ]
    return torch.stack([draw / (1 - rate) for draw, rate in zip(draws, rates)])
