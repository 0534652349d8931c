"""Guidance by scale: logits are pushed away from what the scale before already said, after SSG
(arXiv 2602.05534), of which no code and no strength was seen by us.

B batch, l tokens of one scale, V codebook
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F

from .attention import HALVES
from .config import SamplerConfig
from .contracts import Denoise
from .schedule import ScaleSchedule


@cache
def dct_matrix(side: int) -> torch.Tensor:
    """Orthonormal DCT-II: row f holds cos(pi f (2 i + 1) / 2n) over the cells i, of norm 1 (arXiv
    2602.05534). Returns float64 (side, side) on the CPU."""
    place = torch.arange(side, dtype=torch.float64, device="cpu")
    waves_fi = torch.cos(torch.pi / side * place[:, None] * (place + 0.5))
    waves_fi[0] /= 2**0.5
    orthonormal_fi: torch.Tensor = waves_fi * (2 / side) ** 0.5
    return orthonormal_fi


def _on_grid(row_ss: torch.Tensor) -> torch.Tensor:
    """The same matrix along both axes of a grid, as one on its cells."""
    return torch.kron(row_ss, row_ss)


@cache
def prior_matrix(prior: str, old: int, new: int) -> torch.Tensor:
    """What a map on a grid of an older side says about a finer one, as a matrix on its cells:
    float64 (new^2, old^2) on the CPU.

    linear: bilinear. dse: bilinear, with the old^2 lowest frequencies those of the older map itself
    (discrete spatial enhancement of arXiv 2602.05534); new/old makes an orthonormal transform of
    another side of them.
    """
    cells = torch.eye(old * old, dtype=torch.float64, device="cpu").view(-1, 1, old, old)
    up_lm = F.interpolate(cells, size=(new, new), mode="bilinear").flatten(1).T
    if prior == "linear":
        return up_lm
    new_ll, old_mm = _on_grid(dct_matrix(new)), _on_grid(dct_matrix(old))
    low_l = torch.zeros(new, new, dtype=torch.bool, device="cpu")
    low_l[:old, :old] = True
    waves_lm = new_ll @ up_lm
    waves_lm[low_l.flatten()] = (new / old) * old_mm
    # the transform is orthonormal: its transpose is its inverse
    return new_ll.T @ waves_lm


def detail_strength(config: SamplerConfig, k: int, num_scales: int) -> float:
    """beta of scale k (arXiv 2602.05534, which prints none; ramps are ours): as it is, falling to
    1/(K - 1) of it at the last scale, or growing from there; 0 at the first scale, which has no
    scale before."""
    if k == 0:
        return 0.0
    share = {
        "constant": 1.0,
        "decay": (num_scales - k) / max(1, num_scales - 1),
        "grow": k / max(1, num_scales - 1),
    }
    return config.detail_scale * share[config.detail_ramp]


class _Sharpened:
    """A guided network whose logits are pushed away from those of the scale before, for one
    batch; arguments and logits_BlV as of the network."""

    def __init__(self, network: Denoise, config: SamplerConfig, schedule: ScaleSchedule) -> None:
        self.network, self.config, self.schedule = network, config, schedule
        # of the first pass of the last scales, as the network gives them
        self.first: dict[int, torch.Tensor] = {}

    def __call__(
        self, inputs_BlC: torch.Tensor, k: int, labels_B: torch.Tensor, *own_Bl: torch.Tensor
    ) -> torch.Tensor:
        logits_BlV = self.network(inputs_BlC, k, labels_B, *own_Bl)
        if logits_BlV.dtype in HALVES:
            logits_BlV = logits_BlV.float()
        if k == 0 and any(self.first):  # a new sample, and no further pass of its first scale
            self.first = {}
        self.first = {j: kept for j, kept in self.first.items() if j >= k - 1}
        self.first.setdefault(k, logits_BlV)
        beta = detail_strength(self.config, k, self.schedule.num_scales)
        if beta == 0.0:
            return logits_BlV
        # l + beta (l - prior). Logits serve as well as log-probabilities: what is added to all
        # codes of a token stays the same for all codes of every token that its prior reaches
        return logits_BlV + beta * (logits_BlV - self._prior(logits_BlV, k))

    def _prior(self, logits_BlV: torch.Tensor, k: int) -> torch.Tensor | float:
        """What the scale before says of this one; 0 for none."""
        if self.config.detail_prior == "none":
            return 0.0
        if k - 1 not in self.first:
            raise ValueError(
                f"scale {k} asked for before scale {k - 1}, whose logits its detail_prior "
                f"{self.config.detail_prior} is made of: scales follow one another"
            )
        sides = self.schedule.patch_nums
        matrix_lm = prior_matrix(self.config.detail_prior, sides[k - 1], sides[k]).to(logits_BlV)
        prior_BlV: torch.Tensor = matrix_lm @ self.first[k - 1]
        return prior_BlV


def sharpen(network: Denoise, config: SamplerConfig, schedule: ScaleSchedule) -> Denoise:
    """A guided network with detail guidance round it (SSG, arXiv 2602.05534): l + beta_k (l -
    prior), the prior made of the scale before; the network itself where detail_scale is 0.

    With detail_prior none it is (1 + beta) l, a lower temperature at all scales but the first: the
    control. All passes of a scale are pushed from the first pass of the scale before.
    """
    return network if config.detail_scale == 0 else _Sharpened(network, config, schedule)
