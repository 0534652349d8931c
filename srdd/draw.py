"""Drawing tokens from logits: temperature, top-k and nucleus, then the inverse of the cumulative
distribution.

B batch, l tokens of one scale, V codebook; N blocks of n codes
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from .compiling import MOST_CODES, can_fuse


def _invert(mass: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Place at which the sums of float64 masses pass a target, and the sum before it; a place
    without mass is not returned. Masses that are not finite numbers give some place inside: on a
    GPU an index outside would end the process."""
    sums = mass.cumsum(-1)
    # right=True: the first place whose sum is above the target, so that mass 0 is stepped over
    place = torch.searchsorted(sums, target.clamp(min=0.0), right=True)
    # rounding may put the target on the total itself: take the place at which the sum becomes whole
    whole = torch.searchsorted(sums, sums[..., -1:].contiguous())
    place = torch.minimum(place, whole).clamp_(max=mass.shape[-1] - 1)
    return place, sums.gather(-1, place) - mass.gather(-1, place)


@dataclass(frozen=True)
class TokenDistribution:
    """What tokens are drawn from, after temperature, top-k and nucleus (arXiv 1904.09751).

    mass_BlV: not normalised, 0 for a code that was cut off, in the logits' own precision; sums run
    in float64, but for those of 64 codes in `draw`.
    """

    mass_BlV: torch.Tensor

    def draw(self, uniform_Bl: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens by inverting the cumulative distribution at float64 numbers in [0, 1), and the
        probability of each.

        Sums run in float64 but inside a block: a float32 Gumbel trick lowers the effective
        temperature (arXiv 2409.02908). Probability 0 is never drawn. Returns tokens_Bl and
        probability_Bl.
        """
        V = self.mass_BlV.shape[-1]
        if can_fuse(self.mass_BlV) and V <= MOST_CODES:
            from .kernels import draw

            return draw(self.mass_BlV, uniform_Bl)
        # two levels, first a block of codes and then one of its codes: the sums of 4 096 codes are
        # never written down one by one
        block = 64 if V % 64 == 0 else V
        mass_BlNn = self.mass_BlV.unflatten(-1, (-1, block))
        blocks_BlN = mass_BlNn.sum(-1).double()
        # u times the total, never mass over the total: no division rounds 4 096 times
        total_Bl1 = blocks_BlN.sum(-1, keepdim=True)
        which_Bl1, before_Bl1 = _invert(blocks_BlN, uniform_Bl.unsqueeze(-1) * total_Bl1)
        chosen = which_Bl1.unsqueeze(-1).expand(*which_Bl1.shape, block)
        inside_Bln = mass_BlNn.gather(-2, chosen).squeeze(-2).double()
        # what is left of the target inside the block: u total - mass of the blocks before it
        place_Bl1, _ = _invert(inside_Bln, uniform_Bl.unsqueeze(-1) * total_Bl1 - before_Bl1)
        probability_Bl1 = inside_Bln.gather(-1, place_Bl1) / total_Bl1
        return (which_Bl1 * block + place_Bl1).squeeze(-1), probability_Bl1.squeeze(-1)

    def shares(self) -> torch.Tensor:
        """Probability of every code (arXiv 1904.09751). Returns float64 (B, l, V)."""
        total_Bl1 = self.mass_BlV.sum(-1, keepdim=True, dtype=torch.float64)
        return self.mass_BlV / total_Bl1

    def probability(self, tokens_Bl: torch.Tensor) -> torch.Tensor:
        """Probability of given tokens, 0 for one that was cut off (arXiv 1904.09751). Returns
        float64 (B, l)."""
        total_Bl = self.mass_BlV.sum(-1, dtype=torch.float64)
        return self.mass_BlV.gather(-1, tokens_Bl.unsqueeze(-1)).squeeze(-1) / total_Bl

    def peak(self) -> torch.Tensor:
        """Probability of the likeliest code (confidence of MaskGIT, arXiv 2202.04200). Returns
        float64 (B, l)."""
        return self.mass_BlV.amax(-1) / self.mass_BlV.sum(-1, dtype=torch.float64)

    def entropy(self) -> torch.Tensor:
        """Entropy over the vocabulary in nats (arXiv 2505.24857, section 3). Returns float64 (B,
        l)."""
        entropy_Bl: torch.Tensor = torch.special.entr(self.shares()).sum(-1)  # 0 log 0 is 0
        return entropy_Bl


def _descending(values: torch.Tensor) -> torch.Tensor:
    """Values of the last axis, the largest first; on a CPU by numpy, whose sort uses vector
    instructions: less than half of torch's time."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.detach().numpy(), -1)).flip(-1)
    return values.sort(descending=True).values


def _largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """The largest values of the last axis, in any order; on a CPU by numpy, whose selection uses
    vector instructions: a fifth of torch's time."""
    if count >= values.shape[-1]:
        return values
    if values.device.type == "cpu":
        split = values.shape[-1] - count
        return torch.from_numpy(np.partition(values.detach().numpy(), split, -1)[..., split:])
    return values.topk(count, sorted=False).values


def least_kept(logits_BlV: torch.Tensor, top_k: int, top_p: float = 1.0) -> torch.Tensor:
    """The smallest logit among the top_k likeliest codes that the nucleus keeps: a code stays while
    the mass before it is under top_p, the likeliest always (arXiv 1904.09751, section 3). Returns
    (B, l, 1)."""
    largest_Blk = _largest(logits_BlV, top_k)
    if top_p == 1.0:
        return largest_Blk.amin(-1, keepdim=True)
    largest_Blk = _descending(largest_Blk)
    # shares of the top_k alone: top-k first, then nucleus
    mass_Blk = largest_Blk.softmax(-1)
    # mass before a code, its own not counted: the code that crosses top_p stays
    kept_Bl1 = (mass_Blk.cumsum(-1, dtype=torch.float64) - mass_Blk < top_p).sum(-1, keepdim=True)
    return largest_Blk.gather(-1, kept_Bl1.clamp(min=1) - 1)


def distribution(
    logits_BlV: torch.Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> TokenDistribution:
    """The distribution that tokens are drawn from: temperature, then top-k, then nucleus (arXiv
    1904.09751, section 3).

    Nothing is sorted but the top_k largest logits, and these only for a nucleus; codes whose logits
    equal the last kept one stay too, as in VAR. Raises ValueError for settings that are not legal.
    Logits are not looked at, which would make a GPU wait: `draw_tokens` and `generate` do.
    """
    # written so that NaN is refused too
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature {temperature}: must be above 0 and finite")
    if top_k is not None and not top_k >= 1:
        raise ValueError(f"top_k {top_k}: must be 1 or more, or None for all codes")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p {top_p}: must be above 0 and at most 1")
    if logits_BlV.dtype not in (torch.float32, torch.float64):
        logits_BlV = logits_BlV.float()
    V = logits_BlV.shape[-1]
    if can_fuse(logits_BlV) and V <= MOST_CODES:
        from .kernels import kept_mass

        return TokenDistribution(kept_mass(logits_BlV, temperature, min(top_k or V, V), top_p))
    if temperature != 1.0:
        logits_BlV = logits_BlV / temperature
    mass_BlV = logits_BlV.softmax(-1)
    if top_p < 1.0 or (top_k or V) < V:
        # by logit, not by index: codes that tie with the last kept one stay
        # and by a product, which takes half as long as filling in
        mass_BlV.mul_(logits_BlV >= least_kept(logits_BlV, min(top_k or V, V), top_p))
    return TokenDistribution(mass_BlV)


def draw_tokens(
    logits_BlV: torch.Tensor,
    uniform_Bl: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> torch.Tensor:
    """Draw tokens at given uniform numbers, float64 in [0, 1) (arXiv 1904.09751;
    `TokenDistribution.draw`). Returns tokens_Bl.

    Raises ValueError for logits that are no distribution, numbers outside [0, 1), or settings that
    are not legal. A GPU is waited for: the samplers here draw without, and `generate` checks a
    whole sample at once.
    """
    if uniform_Bl.shape != logits_BlV.shape[:-1]:
        raise ValueError(
            f"uniform numbers {tuple(uniform_Bl.shape)}: must be {tuple(logits_BlV.shape[:-1])}, "
            "one for each token"
        )
    if not ((uniform_Bl >= 0) & (uniform_Bl < 1)).all():
        raise ValueError("uniform numbers: must be at least 0 and below 1")
    tokens_Bl, probability_Bl = distribution(logits_BlV, temperature, top_k, top_p).draw(uniform_Bl)
    if probability_Bl.isnan().any():
        raise ValueError(
            f"logits: hold NaN or inf, are -inf at every code of a token, or are too large for "
            f"temperature {temperature}"
        )
    return tokens_Bl
