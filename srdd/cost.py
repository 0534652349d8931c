"""What a sample costs, counted and not timed: network calls, tokens through the network, floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from .config import ModelConfig, SamplerConfig
from .guidance import guidance_weights, guide, guided_scales
from .model import ScaleTransformer


@dataclass(frozen=True)
class Cost:
    """Cost of one image: nfe (network calls; a guided one counts two), token_evals (tokens through the network), flops."""

    nfe: int
    token_evals: int
    flops: int
    by_scale: tuple[tuple[int, int, int], ...]


def sampling_cost(model: ModelConfig, sampler: SamplerConfig) -> Cost:
    """Count what a sampler (VAR, arXiv 2404.02905; SRDD, 2509.22636) spends on one image, decoder excluded; a multiply-add is two
    flops. Every pass of a refined scale counts whole: a pass computes all tokens of its scale.

    Counted on the meta device, where torch's counter also sees fused attention.
    """
    schedule = model.schedule
    with torch.device("meta"):
        network = ScaleTransformer(model)
    denoiser = network.denoiser()
    denoise = guide(denoiser, schedule, sampler.cfg_scale, sampler.cfg_ramp, model.null_label, denoiser.history)
    weights = guidance_weights(sampler.cfg_scale, sampler.cfg_ramp, schedule.num_scales)
    doubled = guided_scales(weights, schedule, denoiser.history)
    label_B, rows = torch.zeros(1, dtype=torch.long, device="meta"), []
    for k, length in enumerate(schedule.lengths):
        inputs_BlC = torch.empty(1, length, model.codebook_dim, device="meta")
        calls = (2 if doubled[k] else 1) * sampler.passes(k)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            for _ in range(sampler.passes(k)):
                denoise(inputs_BlC, k, label_B)
        rows.append((calls, calls * length, counter.get_total_flops()))
    nfe, token_evals, flops = (sum(column) for column in zip(*rows))
    return Cost(nfe, token_evals, flops, tuple(rows))
