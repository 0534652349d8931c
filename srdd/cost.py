"""What a sample costs, counted and not timed: network calls, tokens through the network, floating-point operations, bytes moved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .config import ModelConfig, SamplerConfig
from .guidance import guidance_weights, guided_scales
from .model import ScaleTransformer
from .sampling import guided_denoiser


@dataclass(frozen=True)
class Cost:
    """Cost of one image: nfe (network calls; a guided one counts two), token_evals (tokens through the network), flops."""

    nfe: int
    token_evals: int
    flops: int
    by_scale: tuple[tuple[int, int, int], ...]


def sampling_cost(model: ModelConfig, sampler: SamplerConfig) -> Cost:
    """Count what a sampler (VAR, arXiv 2404.02905; SRDD, 2509.22636) spends on one image, decoder excluded; a multiply-add is two
    flops. Every pass of a refined scale counts whole: a pass computes all tokens of its scale."""
    doubled = _doubled(model, sampler)
    rows = []
    for k, (length, flops) in enumerate(zip(model.schedule.lengths, _flops(model, sampler, batch=1))):
        calls = sampler.passes(k) * (2 if doubled[k] else 1)
        rows.append((calls, calls * length, flops))
    nfe, token_evals, flops = (sum(column) for column in zip(*rows))
    return Cost(nfe, token_evals, flops, tuple(rows))


def _doubled(model: ModelConfig, sampler: SamplerConfig) -> list[bool]:
    """At which scales the network also runs without class."""
    weights = guidance_weights(sampler.cfg_scale, sampler.cfg_ramp, model.schedule.num_scales)
    return guided_scales(weights, model.history)


def _flops(model: ModelConfig, sampler: SamplerConfig, batch: int) -> list[int]:
    """Operations of every scale, by torch's counter on the meta device, where it also sees fused attention."""
    with torch.device("meta"):
        guided = guided_denoiser(ScaleTransformer(model), sampler)
        labels_B = torch.zeros(batch, dtype=torch.long)
    found = []
    for k, length in enumerate(model.schedule.lengths):
        inputs_BlC = torch.empty(batch, length, model.codebook_dim, device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            for _ in range(sampler.passes(k)):
                guided(inputs_BlC, k, labels_B)
        found.append(counter.get_total_flops())
    return found


def sampling_bytes(model: ModelConfig, sampler: SamplerConfig, batch: int, number_bytes: int = 4) -> tuple[int, ...]:
    """Bytes that every scale of a sampler (VAR, arXiv 2404.02905; SRDD, 2509.22636) must move between memory and processor at least,
    for a whole batch, decoder excluded. number_bytes: of one weight, 4 in float32 and 2 in bfloat16.

    Once a pass: the weights that it reads, the keys and values of earlier scales, an image's logits (guidance is linear: one set an image
    is enough). Once a scale: its own keys and values, where a later scale reads them. Once a sample, at scale 0: all that follows from
    the class alone (AdaLN). Activations inside a pass count nothing: a perfect program keeps them in its caches.
    """
    with torch.device("meta"):
        network = ScaleTransformer(model)
    schedule, history, doubled = model.schedule, model.history, _doubled(model, sampler)
    D, blocks = model.width, network.blocks
    core = _numbers(network.head) + sum(_numbers(b.attention) + _numbers(b.mlp_in) + _numbers(b.mlp_out) for b in blocks)
    adaln = [network.head_modulation, *([network.shared_modulation] if model.shared_adaln else [b.modulation for b in blocks])]
    tables = 6 * D * len(blocks) if model.shared_adaln else 0
    # a class row in, its modulations out; one more for 'no class'
    conditions = (batch + any(doubled)) * (D + sum(linear.out_features for linear in adaln))
    found = []
    for k, length in enumerate(schedule.lengths):
        keys = schedule.key_slice(k, history)
        pair = 2 * D * len(blocks) * batch * (2 if doubled[k] else 1)  # keys and values of one position
        seen_later = any(schedule.first_visible(j, history) <= k for j in range(k + 1, schedule.num_scales))
        # positions and level; the start embedding or the input's projection; [MASK]
        embedding = (length + 1) * D + (length * D if k == 0 else _numbers(network.input)) + (D if model.mask_prob > 0 else 0)
        once = (pair * length if seen_later else 0) + (sum(map(_numbers, adaln)) + tables + conditions if k == 0 else 0)
        each = core + embedding + pair * (keys.stop - keys.start - length) + batch * length * model.codebook_size
        found.append(number_bytes * (once + sampler.passes(k) * each))
    return tuple(found)


def _numbers(module: nn.Module) -> int:
    """Weights of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
