"""The network of one scale on a GPU by a few kernels: what `ScaleTransformer.step`, its plain twin,
computes in more passes over memory.

B batch, l tokens of one scale, C latent channels, D width, H heads
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from .attention import Attention, ScaleCache
from .compiling import can_fuse, kernels_know
from .conditioning import Condition
from .transformer import Block

if TYPE_CHECKING:
    from .model import ScaleTransformer
    from .transformer import Modulation


class FusedStep:
    """`ScaleTransformer.step` by kernels of `kernels.py` between torch's matrix products and
    attention (VAR, arXiv 2404.02905, section 3.3); arguments and result as of `step`.

    A residual sum, the norm after it and AdaLN are one pass over memory. Queries and keys are
    normalised, and keys and values put into the cache, in one more. What the kernels cannot take,
    or do not know, goes through `step` itself.
    """

    def __init__(self, model: ScaleTransformer) -> None:
        # the model holds its step: held in turn, both would stay on the GPU when it is let go
        self.model, self.known = weakref.ref(model), kernels_know(model.config)

    def __call__(
        self,
        inputs_BlC: torch.Tensor,
        k: int,
        modulation: Modulation,
        place_LD: torch.Tensor,
        cache: ScaleCache,
        own_Bl: torch.Tensor | None = None,
        pooled_BD: torch.Tensor | None = None,
        condition: Condition | None = None,
    ) -> torch.Tensor:
        model = self.model()
        assert model is not None  # which calls its step
        if not self.known or not can_fuse(model.position, inputs_BlC):
            given = inputs_BlC, k, modulation, place_LD, cache, own_Bl, pooled_BD, condition
            return type(model).step(model, *given)
        from .kernels import add_norm

        modulations, (gain, shift), condition_BD = modulation
        where, dtype = model.schedule.slices[k], model.position.dtype
        x_BlD = model._embed(inputs_BlC, condition_BD, where, place_LD, own_Bl)
        # the residual stream, in float32; changed in place from here on
        x_BlD = x_BlD.float().contiguous()
        rows = None if model.mask_LL is None else model.mask_LL[where, : where.stop]
        added: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        for i, (block, six) in enumerate(zip(model.blocks, modulations)):
            gate1, gate2, gain1, gain2, shift1, shift2 = six
            h_BlD = add_norm(x_BlD, added, gain1, shift1, dtype)
            parts_PND = _attended(block.attention, h_BlD, cache, i, rows)
            added = parts_PND, block.attention.out.bias, gate1
            h_BlD = add_norm(x_BlD, added, gain2, shift2, dtype)
            added = _mlp(block, h_BlD), block.mlp_out.bias, gate2
        return add_norm(x_BlD, added, gain, shift, torch.float32)


def _attended(
    attention: Attention,
    x_BlD: torch.Tensor,
    cache: ScaleCache,
    block: int,
    rows_lL: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of one block over what its cache holds, in parts (P, B l, D), without the last
    bias."""
    from .kernels import product, split_heads

    B, length, _ = x_BlD.shape
    qkv_BlE = F.linear(x_BlD, attention.qkv.weight)
    if cache.history == 0:
        own = seen = qkv_BlE.new_empty(2, B, length, attention.heads, attention.head_dim).transpose(
            2, 3
        )
    else:
        own, seen = cache.slots(block, length)
    log_scale = attention.head_log_scale if attention.qk_norm else None
    q = split_heads(qkv_BlE, attention.q_bias, attention.v_bias, log_scale, own[0], own[1])
    h_BHld = F.scaled_dot_product_attention(
        q, seen[0], seen[1], attn_mask=rows_lL, scale=attention.logit_scale
    )
    return product(h_BHld.transpose(1, 2).reshape(B * length, -1), attention.out.weight)


def _mlp(block: Block, x_BlD: torch.Tensor) -> torch.Tensor:
    """The MLP of one block, in parts (P, B l, D), without the last bias; the first bias and GELU
    are the end of the first product."""
    from .kernels import product

    x_ND, weight_ED = x_BlD.flatten(0, 1), block.mlp_in.weight
    h_NE = torch._addmm_activation(block.mlp_in.bias, x_ND, weight_ED.T, use_gelu=True)
    return product(h_NE, block.mlp_out.weight)
