"""Classifier-free guidance as a wrapper round `denoise`: u + w (c - u), with w ramped over the scales.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h w latent grid
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from .contracts import check_weight
from .lookup import find, function_name, is_own
from .schedule import ScaleSchedule

# (inputs_BlC, k, labels_B) -> logits_BlV; a model trained with masks takes the scale's own tokens as a fourth argument
Denoise = Callable[..., torch.Tensor]


def ramp_constant(cfg_scale: float, k: int, num_scales: int) -> float:
    """The same w at every scale (classifier-free guidance, arXiv 2207.12598, equation 6)."""
    return cfg_scale


def ramp_linear(cfg_scale: float, k: int, num_scales: int) -> float:
    """w grows from 1 at the first scale to cfg_scale at the last: VAR's `t = cfg * k/(K-1)` with w = 1 + t."""
    return 1.0 + (cfg_scale - 1.0) * (k / (num_scales - 1) if num_scales > 1 else 1.0)


def guidance_weights(cfg_scale: float, cfg_ramp: str, num_scales: int) -> list[float]:
    """w of every scale under a named ramp (arXiv 2207.12598); at cfg_scale 1, which means no
    guidance, no ramp is asked.

    Raises ValueError for cfg_scale < 0, an unknown ramp, or one that gives no finite number of 0 or
    more.
    """
    if not cfg_scale >= 0.0:
        raise ValueError(
            f"cfg_scale {cfg_scale}: must be 0 (no class) or more, 1 is off; VAR's own cfg t is w - 1"
        )
    ramp = find(sys.modules[__name__], "ramp", cfg_ramp)
    if cfg_scale == 1.0:
        return [1.0] * num_scales
    who = function_name("ramp", cfg_ramp)
    scales = range(num_scales)
    weights = [check_weight(ramp(cfg_scale, k, num_scales), k, who) for k in scales]
    if is_own("ramp", cfg_ramp):
        if weights != [check_weight(ramp(cfg_scale, k, num_scales), k, who) for k in scales]:
            raise ValueError(
                f"{who}: gives other weights each time; they must follow from its arguments"
            )
    return weights


def guided_scales(weights: list[float], history: int | None) -> list[bool]:
    """At which scales the network must run both with and without class (arXiv 2207.12598): where w
    is neither 1 nor 0. Where scales attend to earlier ones, at all scales or none: the cache holds
    both halves or one, and one half alone is enough only where w is 1 everywhere or 0 everywhere."""
    if history == 0:
        return [w not in (0.0, 1.0) for w in weights]
    alone = set(weights) in ({0.0}, {1.0})
    return [not alone] * len(weights)


def guide(
    denoise: Denoise, schedule: ScaleSchedule, cfg_scale: float, cfg_ramp: str, null_label: int, history: int | None = None
) -> Denoise:
    """Classifier-free guidance (arXiv 2207.12598, equation 6, as u + w (c - u)) in one doubled batch.

    cfg_scale = 1 returns `denoise` itself: the same bits, one call. Where w is 0, `denoise` is asked
    without class alone, one call too. null_label: the row that means 'no class'. Where `denoise` has
    the halves `hidden` and `head` of a network, guidance acts before the head: u + w (c - u) of two
    logits is the head, which is affine, of u + w (c - u) of what it reads, so that the V logits of
    both halves are never made.
    """
    weights = guidance_weights(cfg_scale, cfg_ramp, schedule.num_scales)
    doubled = guided_scales(weights, history)
    if set(weights) == {1.0}:
        return denoise
    split = hasattr(denoise, "hidden")
    body, head = (denoise.hidden, denoise.head) if split else (denoise, lambda logits_BlV: logits_BlV)
    both: dict[int, tuple[torch.Tensor, ...]] = {}

    def guided(inputs_BlC: torch.Tensor, k: int, labels_B: torch.Tensor, *own: torch.Tensor) -> torch.Tensor:
        """`denoise` under guidance (arXiv 2207.12598, equation 6): arguments and logits_BlV as of `denoise`."""
        # one doubled label tensor per batch, kept with its source: a model recognises it by identity
        if id(labels_B) not in both:
            null_B = torch.full_like(labels_B, null_label)
            both[id(labels_B)] = labels_B, torch.cat((labels_B, null_B)), null_B
        _, labels_2B, null_B = both[id(labels_B)]
        if not doubled[k]:
            if weights[k] == 0.0:
                return head(body(inputs_BlC, k, null_B, *own))
            return head(body(inputs_BlC, k, labels_2B if split else labels_B, *own))
        own = [torch.cat((own_Bl, own_Bl)) for own_Bl in own]
        cond, uncond = body(torch.cat((inputs_BlC, inputs_BlC)), k, labels_2B, *own).chunk(2)
        return head(cond if weights[k] == 1.0 else torch.lerp(uncond, cond, weights[k]))

    return guided
