"""Classifier-free guidance as a wrapper round `denoise`: u + w (c - u), with w ramped over the
scales.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import sys

import torch

from .contracts import Denoise, Halves, check_weight
from .lookup import find, function_name, is_own
from .schedule import ScaleSchedule


def ramp_constant(cfg_scale: float, k: int, num_scales: int) -> float:
    """The same w at every scale (classifier-free guidance, arXiv 2207.12598, equation 6)."""
    return cfg_scale


def ramp_linear(cfg_scale: float, k: int, num_scales: int) -> float:
    """w grows from 1 at the first scale to cfg_scale at the last: VAR's `t = cfg * k/(K-1)` with w
    = 1 + t."""
    # (1 + t) c - t u = u + (1 + t) (c - u), so w = 1 + t
    return 1.0 + (cfg_scale - 1.0) * (k / (num_scales - 1) if num_scales > 1 else 1.0)


def guidance_weights(cfg_scale: float, cfg_ramp: str, num_scales: int) -> list[float]:
    """w of every scale under a named ramp (arXiv 2207.12598); at cfg_scale 1, which means no
    guidance, no ramp is asked.

    Raises ValueError for cfg_scale < 0, an unknown ramp, or one that gives no finite number of 0 or
    more.
    """
    if not cfg_scale >= 0.0:
        raise ValueError(
            f"cfg_scale {cfg_scale}: must be 0 (no class) or more, 1 is off; VAR's own cfg t is w "
            "- 1"
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
    both halves or one, and one half alone is enough only where w is 1 everywhere or 0
    everywhere."""
    if history == 0:  # nothing is cached: each scale decides alone
        return [w not in (0.0, 1.0) for w in weights]
    # keys of c cannot stand in for those of u: what is cached must be the half that is asked
    alone = set(weights) in ({0.0}, {1.0})
    return [not alone] * len(weights)


def guide(
    network: Halves,
    schedule: ScaleSchedule,
    cfg_scale: float,
    cfg_ramp: str,
    null_label: int,
    history: int | None = None,
) -> Denoise:
    """Classifier-free guidance (arXiv 2207.12598, equation 6, as u + w (c - u)) in one doubled
    batch.

    cfg_scale = 1 returns the network itself: the same bits, one call. Where w is 0, it is asked
    without class alone, one call too. null_label: the row that means 'no class'. Guidance acts
    before the head: u + w (c - u) of two logits is the head, which is affine, of u + w (c - u) of
    what it reads, so that the V logits of both halves are never made.
    """
    weights = guidance_weights(cfg_scale, cfg_ramp, schedule.num_scales)
    if set(weights) == {1.0}:
        return network
    return _Guided(network, weights, guided_scales(weights, history), null_label)


class _Guided:
    """A network under guidance, for one batch: arguments and logits_BlV as of the network."""

    def __init__(
        self, network: Halves, weights: list[float], doubled: list[bool], null_label: int
    ) -> None:
        self.network, self.weights, self.doubled = network, weights, doubled
        self.null_label = null_label
        self.labels_B: torch.Tensor | None = None

    def _bind(self, labels_B: torch.Tensor) -> None:
        """Labels of both halves, once a batch: the network knows its labels again by identity."""
        if labels_B is not self.labels_B:
            self.labels_B = labels_B
            self.null_B = torch.full_like(labels_B, self.null_label)
            self.labels_2B = torch.cat((labels_B, self.null_B))

    def __call__(
        self, inputs_BlC: torch.Tensor, k: int, labels_B: torch.Tensor, *own_Bl: torch.Tensor
    ) -> torch.Tensor:
        self._bind(labels_B)
        hidden, head, w = self.network.hidden, self.network.head, self.weights[k]
        if not self.doubled[k]:
            # w is 1 or 0 here: one of the halves is all that u + w (c - u) holds
            alone = self.null_B if w == 0.0 else self.labels_2B
            return head(hidden(inputs_BlC, k, alone, *own_Bl))
        inputs_2BlC = torch.cat((inputs_BlC, inputs_BlC))
        own_2Bl = [torch.cat((own, own)) for own in own_Bl]
        cond, uncond = hidden(inputs_2BlC, k, self.labels_2B, *own_2Bl).chunk(2)
        # exactly c at w = 1: u + (c - u) would round
        return head(cond if w == 1.0 else torch.lerp(uncond, cond, w))
