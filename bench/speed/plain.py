"""Training and sampling the plain way, for benchmarks to be held against.

Dense, and all that a scale needs is computed at that scale. In sampling, every scale computes the
class's modulations again, adds up the positions and levels of all tokens, runs both halves of
guidance to the logits, concatenates keys and values, hides what `history` forbids by a mask, and
sorts all codes for top-k and nucleus. The weights are those of a `ScaleTransformer`, so that the
logits are too.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads,
h w latent grid
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from srdd.config import SamplerConfig
from srdd.masks import scale_mask
from srdd.model import ScaleTransformer
from srdd.quantizer import Ladder
from srdd.transformer import Block


class PlainDenoiser:
    """Guided logits of one batch, scale after scale (VAR, arXiv 2404.02905, section 3.2; guidance
    as u + w (c - u), w linear from 1 to cfg_scale).

    Raises ValueError for settings of a model that it does not know.
    """

    def __init__(self, model: ScaleTransformer, labels_B: torch.Tensor, cfg_scale: float) -> None:
        config = model.config
        if config.shared_adaln or config.mask_prob > 0 or config.mask is not None:
            raise ValueError("the plain path knows no shared_adaln, mask_prob or mask")
        self.model, self.cfg_scale = model, cfg_scale
        self.labels_2B = torch.cat((labels_B, torch.full_like(labels_B, config.null_label)))
        self.keys: dict[int, torch.Tensor] = {}  # by block
        self.values: dict[int, torch.Tensor] = {}
        self.mask_LL = None
        if config.history is not None:
            self.mask_LL = scale_mask(model.schedule, config.history).to(labels_B.device)

    def __call__(self, inputs_BlC: torch.Tensor, k: int) -> torch.Tensor:
        model, where = self.model, self.model.schedule.slices[k]
        condition_BD = model.class_embedding(self.labels_2B)
        place_LD = model.position + model.level_embedding(model.scale_L)
        start_BlD = condition_BD[:, None] + model.start_position
        x_BlD = (
            start_BlD if k == 0 else _linear(model.input, torch.cat((inputs_BlC, inputs_BlC)))
        ) + place_LD[where]
        rows = None if self.mask_LL is None else self.mask_LL[where, : where.stop]
        cond_BlV, uncond_BlV = _blocks(model, x_BlD, condition_BD, rows, self._cached).chunk(2)
        t = (self.cfg_scale - 1) * k / max(1, model.schedule.num_scales - 1)
        return (1 + t) * cond_BlV - t * uncond_BlV

    def _cached(
        self, i: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of one block, behind all that was ever cached."""
        if i in self.keys:
            k, v = torch.cat((self.keys[i], k), 2), torch.cat((self.values[i], v), 2)
        self.keys[i], self.values[i] = k, v
        return self.keys[i], self.values[i]


Cached = Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _blocks(
    model: ScaleTransformer,
    x_BlD: torch.Tensor,
    condition_BD: torch.Tensor,
    mask: torch.Tensor | None,
    cached: Cached,
) -> torch.Tensor:
    """Logits_BlV: all blocks, one operation after the other, and the head. cached(i, keys, values):
    what block i attends to."""
    for i, block in enumerate(cast(Iterable[Block], model.blocks)):
        modulation = (
            _linear(block.modulation, F.silu(condition_BD))
            .unflatten(-1, (6, -1))
            .unsqueeze(2)
            .unbind(1)
        )
        gate1, gate2, gain1, gain2, shift1, shift2 = modulation
        x_BlD = x_BlD + gate1 * _attend(block, i, _norm(x_BlD) * (1 + gain1) + shift1, mask, cached)
        h_BlD = _linear(block.mlp_in, _norm(x_BlD) * (1 + gain2) + shift2)
        x_BlD = x_BlD + gate2 * _linear(block.mlp_out, F.gelu(h_BlD, approximate="tanh"))
    gain, shift = (
        _linear(model.head_modulation, F.silu(condition_BD))
        .unflatten(-1, (2, -1))
        .unsqueeze(2)
        .unbind(1)
    )
    return _linear(model.head, _norm(x_BlD) * (1 + gain) + shift)


def _attend(
    block: Block, i: int, x_BlD: torch.Tensor, mask: torch.Tensor | None, cached: Cached
) -> torch.Tensor:
    """softmax(q k / scale + mask) v with unit q and k (VAR's QK-norm), by torch's own operation."""
    attention = block.attention
    bias = torch.cat((attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias))
    qkv = F.linear(x_BlD, attention.qkv.weight, bias).unflatten(
        -1, (3, attention.heads, attention.head_dim)
    )
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    scale = attention.head_dim**-0.5
    if attention.qk_norm:
        q = F.normalize(q, dim=-1) * attention.head_log_scale.clamp(max=math.log(100.0)).exp()
        k, scale = F.normalize(k, dim=-1), 1.0
    k, v = cached(i, k, v)
    h_BHld = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return _linear(attention.out, h_BHld.transpose(1, 2).flatten(2))


def _linear(layer: nn.Module, x_BlD: torch.Tensor) -> torch.Tensor:
    """A linear layer by torch's own operation."""
    return F.linear(x_BlD, cast(torch.Tensor, layer.weight), cast(torch.Tensor, layer.bias))


def _norm(x_BlD: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x_BlD, x_BlD.shape[-1:], eps=1e-6)


def plain_logits(
    model: ScaleTransformer, inputs_BLC: torch.Tensor, labels_B: torch.Tensor, mask_LL: torch.Tensor
) -> torch.Tensor:
    """Teacher-forced logits_BLV under a dense mask (VAR, arXiv 2404.02905, equation 5), as training
    the plain way computes them."""
    condition_BD, first = model.class_embedding(labels_B), model.schedule.lengths[0]
    x_BLD = torch.cat(
        (condition_BD[:, None] + model.start_position, _linear(model.input, inputs_BLC[:, first:])),
        1,
    )
    x_BLD = x_BLD + model.position + model.level_embedding(model.scale_L)
    return _blocks(model, x_BLD, condition_BD, mask_LL, lambda i, k, v: (k, v))


def plain_probabilities(logits_BlV: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """Probabilities of all codes after temperature, top-k and nucleus (arXiv 1904.09751), by
    sorting all of them in float32."""
    sorted_BlV, order_BlV = (logits_BlV / config.temperature).sort(descending=True)
    if config.top_k is not None:
        sorted_BlV[..., config.top_k :] = -torch.inf
    mass_BlV = sorted_BlV.softmax(-1)
    mass_BlV = mass_BlV * (mass_BlV.cumsum(-1) - mass_BlV < config.top_p)
    return torch.zeros_like(mass_BlV).scatter(
        -1, order_BlV, mass_BlV / mass_BlV.sum(-1, keepdim=True)
    )


@torch.no_grad()
def plain_sample(
    model: ScaleTransformer,
    ladder: Ladder,
    labels_B: torch.Tensor,
    config: SamplerConfig,
    source: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one batch coarse to fine (VAR, arXiv 2404.02905, section 3.2) with one generator for
    all.

    Returns tokens_BL and f_hat_BChw.
    """
    denoise, f_hat_BChw, tokens = (
        PlainDenoiser(model, labels_B, config.cfg_scale),
        ladder.empty_state(len(labels_B)),
        [],
    )
    for k in range(ladder.schedule.num_scales):
        logits_BlV = denoise(ladder.read_scale(f_hat_BChw, k), k)
        chances_NV = plain_probabilities(logits_BlV, config).flatten(0, 1)
        tokens_Bl = torch.multinomial(chances_NV, 1, generator=source).view(logits_BlV.shape[:2])
        f_hat_BChw = ladder.add_scale(f_hat_BChw, ladder.quantizer.embed(tokens_Bl), k)
        tokens.append(tokens_Bl)
    return torch.cat(tokens, 1), f_hat_BChw
