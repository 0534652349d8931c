"""How many passes each image takes, and how sure they were: counted round a `denoise`, no sampler
changes.

B batch, K scales, L tokens of all scales, l of one scale, V codebook, C latent channels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .config import SamplerConfig
from .contracts import Denoise
from .draw import distribution
from .guidance import guidance_weights, guided_scales
from .misfits import COUNTED
from .model import ScaleTransformer
from .noise import ImageNoise
from .quantizer import Ladder
from .sampling import guided_denoiser, sample_srdd, sample_var

SAMPLERS = {"var": sample_var, "srdd": sample_srdd}


class Counting:
    """A guided `denoise` of one batch that counts, for each image, the passes in which it had an
    open position (tokens per forward of SDAR, arXiv 2510.06303).

    passes_BK: int64. calls_BK: those that the network makes for an image drawn alone; few samplers
    leave one out where nothing is open. peaks: of every call, the probability of the likeliest code
    at each open position, float64 (positions,). history: as samplers read it, 0 where a call may be
    left out.
    """

    def __init__(
        self, denoise: Denoise, count: int, model: ScaleTransformer, config: SamplerConfig
    ) -> None:
        self.denoise, self.config, self.masked = denoise, config, model.config.codebook_size
        # later scales of a mask of one's own may read any other
        self.history = None if model.mask_LL is not None else model.config.history
        self.leaves_out = self.history == 0 and config.select.name not in COUNTED  # `sample_srdd`
        self.passes_BK = torch.zeros(count, model.schedule.num_scales, dtype=torch.int64)
        self.calls_BK = torch.zeros_like(self.passes_BK)
        self.peaks: list[torch.Tensor] = []

    def __call__(
        self, inputs_BlC: torch.Tensor, k: int, labels_B: torch.Tensor, *own_Bl: torch.Tensor
    ) -> torch.Tensor:
        logits_BlV = self.denoise(inputs_BlC, k, labels_B, *own_Bl)
        # without own tokens all are open
        open_Bl = torch.ones_like(logits_BlV[..., 0], dtype=torch.bool)
        if own_Bl:
            open_Bl = own_Bl[0] == self.masked
        open_B = open_Bl.any(1).cpu()
        self.passes_BK[:, k] += open_B
        self.calls_BK[:, k] += open_B if self.leaves_out else 1
        cuts = self.config.temperature, self.config.top_k, self.config.top_p
        self.peaks.append(distribution(logits_BlV, *cuts).peak()[open_Bl].cpu())
        return logits_BlV


@dataclass(frozen=True)
class Counted:
    """What images took: passes_BK and calls_BK, int64, and the peaks of all their open positions,
    float64 (N,) (SDAR, arXiv 2510.06303)."""

    passes_BK: torch.Tensor
    calls_BK: torch.Tensor
    peaks_N: torch.Tensor

    def tokens_per_forward(self, seq_len: int) -> torch.Tensor:
        """Tokens of each image over its passes (TPF of SDAR, arXiv 2510.06303), float64 (B,)."""
        passes_B = self.passes_BK.sum(1).double()
        return torch.full_like(passes_B, seq_len) / passes_B

    def token_evals(self, model: ScaleTransformer, config: SamplerConfig) -> torch.Tensor:
        """Tokens that the network computes for each image when it is drawn alone, float64 (B,):
        a guided pass counts two (arXiv 2207.12598)."""
        schedule = model.schedule
        weights = guidance_weights(config.cfg_scale, config.cfg_ramp, schedule.num_scales)
        halves_K = 1 + torch.tensor(guided_scales(weights, model.config.history)).double()
        return (self.calls_BK * halves_K * torch.tensor(schedule.lengths)).sum(1)


@torch.no_grad()
def count_passes(
    model: ScaleTransformer,
    ladder: Ladder,
    labels_B: torch.Tensor,
    seeds: Sequence[int],
    config: SamplerConfig,
) -> tuple[torch.Tensor, Counted]:
    """Draw one batch as `generate` does and count what each image took (SDAR, arXiv 2510.06303).

    An image's own passes do not depend on its batch; the calls that a batch makes are those of its
    slowest image. Returns tokens_BL and the counts. Raises ValueError for a sampler that is not of
    SAMPLERS: one of one's own may ask for some of the images alone.
    """
    if config.name not in SAMPLERS:
        raise ValueError(
            f"sampler.name {config.name!r}: its passes are not counted image by image (those of "
            f"{', '.join(SAMPLERS)} are)"
        )
    ladder = ladder.read_as(model.config.state)
    counting = Counting(guided_denoiser(model, config), len(labels_B), model, config)
    noise = ImageNoise(seeds, labels_B.device)
    tokens_BL, _ = SAMPLERS[config.name](counting, ladder, labels_B, noise, config)
    return tokens_BL, Counted(counting.passes_BK, counting.calls_BK, torch.cat(counting.peaks))
