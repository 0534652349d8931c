"""Samplers: loops over scales that know a `denoise` and a ladder, and nothing of networks.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h w latent grid
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from .config import SamplerConfig
from .guidance import Denoise, guide
from .lookup import find
from .model import ScaleTransformer
from .noise import ImageNoise
from .quantizer import Ladder


def draw_tokens(
    logits_BlV: torch.Tensor,
    uniform_Bl: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> torch.Tensor:
    """Draw tokens by inverting the cumulative distribution at given uniform numbers; top-k first, then nucleus (arXiv 1904.09751).

    Sums run in float64: a float32 Gumbel trick lowers the effective temperature (arXiv 2409.02908).
    uniform_Bl: float64 in [0, 1). Returns tokens_Bl. Probability 0 is never drawn.
    """
    logits_BlV = logits_BlV.double() / temperature
    order = None
    if top_k is not None and top_k < logits_BlV.shape[-1]:
        logits_BlV, order = logits_BlV.topk(top_k)  # sorted, largest first
    elif top_p < 1.0:
        logits_BlV, order = logits_BlV.sort(descending=True)
    mass = logits_BlV.softmax(-1)
    if top_p < 1.0:
        # keep a code while the mass before it is under top_p: the likeliest always stays
        mass = mass * (mass.cumsum(-1) - mass < top_p)
    cumulative = mass.cumsum(-1)
    target = uniform_Bl.unsqueeze(-1) * cumulative[..., -1:]
    index = torch.searchsorted(cumulative, target, right=True)
    # rounding may put the target on the total itself: take the last code that has mass
    last = (mass > 0).long().mul(torch.arange(mass.shape[-1], device=mass.device)).amax(-1, keepdim=True)
    index = torch.minimum(index, last)
    return (index if order is None else order.gather(-1, index)).squeeze(-1)


def sample_var(
    denoise: Denoise, ladder: Ladder, labels_B: torch.Tensor, noise: ImageNoise, config: SamplerConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coarse to fine, each scale drawn once (VAR, arXiv 2404.02905, section 3.2); with a model of history 0 this is SDD.

    labels_B: int64. Returns tokens_BL and the final state f_hat_BChw.
    """
    f_hat_BChw, tokens = ladder.empty_state(len(labels_B)), []
    for k, length in enumerate(ladder.schedule.lengths):
        logits_BlV = denoise(ladder.read_scale(f_hat_BChw, k), k, labels_B)
        drawn = draw_tokens(logits_BlV, noise.uniform(length), config.temperature, config.top_k, config.top_p)
        f_hat_BChw = ladder.add_scale(f_hat_BChw, ladder.quantizer.embed(drawn), k)
        tokens.append(drawn)
    return torch.cat(tokens, 1), f_hat_BChw


@torch.no_grad()
def generate(
    model: ScaleTransformer, ladder: Ladder, labels_B: torch.Tensor, seeds: Sequence[int], config: SamplerConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one batch with the sampler that `config` names: guidance wrapped round a fresh denoiser (arXiv 2207.12598).

    A picture depends on (weights, its seed, config) only. Returns tokens_BL and f_hat_BChw for `Tokenizer.to_image`.
    Raises ValueError when config and model do not fit.
    """
    if len(seeds) != len(labels_B):
        raise ValueError(f"{len(seeds)} seeds for {len(labels_B)} labels: one seed for each image")
    if config.cfg_scale != 1.0 and not (model.config.conditional and model.config.class_dropout > 0):
        raise ValueError(f"cfg_scale {config.cfg_scale} needs a model trained with classes and class_dropout > 0")
    denoiser = model.denoiser()
    guided = guide(denoiser, model.schedule, config.cfg_scale, config.cfg_ramp, model.config.null_label, denoiser.history)
    sampler = find(sys.modules[__name__], "sample", config.name)
    return sampler(guided, ladder, labels_B, ImageNoise(seeds, labels_B.device), config)
