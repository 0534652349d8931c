"""What a sample costs, counted and not timed: network calls, tokens through the network,
floating-point operations, bytes moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .conditioning import StateCondition
from .config import ModelConfig, SamplerConfig
from .guidance import guidance_weights, guided_scales
from .masks import named_mask
from .model import ScaleTransformer
from .noise import first_weights, generator
from .past import reach
from .quantizer import Ladder, Quantizer
from .sampling import generate, guided_denoiser
from .watch import Calls

Number = int | float  # a count of one image, or a mean where images differ


@dataclass(frozen=True)
class Cost:
    """Cost of one image, a mean where images differ: nfe (network calls; a guided one counts two),
    token_evals (tokens through the network), flops, and by_scale all three.

    passes: calls of each scale, a guided one counted once. tokens_per_forward: tokens of an image
    over all of its passes (TPF of SDAR, arXiv 2510.06303).
    """

    nfe: Number
    token_evals: Number
    flops: Number
    by_scale: tuple[tuple[Number, Number, Number], ...]
    passes: tuple[Number, ...]
    tokens_per_forward: Number | None


def _number(value: Fraction) -> Number:
    return value.numerator if value.denominator == 1 else float(value)


def tiny_network(model: ModelConfig) -> tuple[ScaleTransformer, Ladder]:
    """A network of one narrow block with the schedule, codes, classes and mask of a model (VAR,
    arXiv 2404.02905), and a ladder for it: a sampler meets the same shapes as with the model
    itself. Weights are drawn from a generator of their own."""
    tiny = model.model_copy(update={"depth": 1, "width": 4, "heads": 1, "mlp_ratio": 1.0})
    with first_weights(0):  # moves no generator that another reads
        network = ScaleTransformer(tiny)
        combine = "replace" if model.state == "replace" else "sum"
        quantizer = Quantizer(model.codebook_size, model.codebook_dim, num_phi=1, combine=combine)
    network.init_weights(generator("dry run"))
    quantizer.init_weights(generator("dry run", "codes"))
    nn.init.dirac_(quantizer.phi[0].weight)
    if quantizer.phi[0].bias is not None:
        nn.init.zeros_(quantizer.phi[0].bias)
    return network.eval(), quantizer.at(model.schedule)


def dry_run(model: ModelConfig, sampler: SamplerConfig) -> Calls:
    """The calls of a sampler (VAR, arXiv 2404.02905; SRDD, 2509.22636; one's own), counted: it
    draws two images from `tiny_network`.

    These are the most that the samplers here make: none is left out. Where their number depends on
    what is drawn, count them where images are really drawn, with `generate`.
    """
    network, ladder = tiny_network(model)
    labels_B = torch.arange(2) % max(1, model.num_classes)
    calls, degraded_BChw = Calls(), blank_latent(model, 2)
    given = network, ladder, labels_B, range(2), sampler
    generate(*given, calls=calls, early_exit=False, degraded_BChw=degraded_BChw)
    return calls


def blank_latent(model: ModelConfig, batch: int) -> torch.Tensor | None:
    """A latent of zeros for a model that restores (RestoreVAR, arXiv 2505.18047); None for the
    others."""
    side = model.schedule.latent_size
    return None if model.condition == "none" else torch.zeros(batch, model.codebook_dim, side, side)


def sampling_cost(model: ModelConfig, sampler: SamplerConfig, calls: Calls | None = None) -> Cost:
    """Count what a sampler (VAR, arXiv 2404.02905; SRDD, 2509.22636) spends on one image, decoder
    excluded; a multiply-add is two flops. Every call counts whole: it computes all tokens of its
    scale.

    calls: those of the images that were drawn, counted by `generate`; None: of a `dry_run`.
    """
    calls = calls or dry_run(model, sampler)
    doubled = _doubled(model, sampler)
    passes = calls.per_image(model.schedule.num_scales)
    rows = []
    flops_K = _flops(model, sampler, 1, passes)
    for k, (length, flops_k) in enumerate(zip(model.schedule.lengths, flops_K)):
        calls_k = passes[k] * (2 if doubled[k] else 1)
        rows.append((calls_k, calls_k * length, flops_k))
    nfe, token_evals, flops = (_number(Fraction(sum(column))) for column in zip(*rows))
    by_scale = tuple((_number(a), _number(b), _number(c)) for a, b, c in rows)
    forwards = sum(passes)  # a sampler of one's own may never ask the network
    per_pass = float(model.schedule.seq_len / forwards) if forwards else None
    return Cost(nfe, token_evals, flops, by_scale, tuple(map(_number, passes)), per_pass)


def least_flops(model: ModelConfig, cost: Cost) -> tuple[Number, ...]:
    """Operations of every scale that the result of `sampling_cost` needs at least: without those of
    pairs that a window (MVAR, arXiv 2505.12742) or a mask of one's own hides, which are computed
    all the same."""
    flops_K: list[Number] = []
    for k, ((calls, _, flops), sight) in enumerate(zip(cost.by_scale, _sights(model))):
        hidden = model.schedule.attended_pairs_of(k, model.history) - sight.pairs
        # of a pair in each block: q.k and its share of the values, D multiply-adds each
        flops_K.append(flops - calls * hidden * 4 * model.width * model.depth)
    return tuple(flops_K)


def class_flops(model: ModelConfig) -> int:
    """Operations of what follows from the class alone (AdaLN of DiT, arXiv 2212.09748), which
    `sampling_cost` counts at scale 0: a network that is asked anew from a later scale on computes
    it again."""
    with torch.device("meta"):
        network, labels_B = ScaleTransformer(model), torch.zeros(1, dtype=torch.long)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.modulate(labels_B)
    return int(counter.get_total_flops())


class _Sight(NamedTuple):
    """What the tokens of a scale must see: pairs of a query and a key, positions of earlier scales
    that any of them reads, and of its own those that a later scale reads."""

    pairs: int
    earlier: int
    kept: int


def _sights(model: ModelConfig) -> list[_Sight]:
    """Of every scale, by history and window, or by the mask of one's own."""
    schedule, history, sights = model.schedule, model.history, []
    if model.mask is not None:
        mask_LL = named_mask(model.mask, schedule)
        for where in schedule.slices:
            earlier_l, kept_l = mask_LL[where, : where.start].any(0), mask_LL[where.stop :, where]
            counts = mask_LL[where].sum(), earlier_l.sum(), kept_l.any(0).sum()
            sights.append(_Sight(*(int(count) for count in counts)))
        return sights
    for k, length in enumerate(schedule.lengths):
        keys, later = schedule.key_slice(k, history), range(k + 1, schedule.num_scales)
        pairs = schedule.attended_pairs_of(k, history, model.window, model.window_from)
        kept = length if any(schedule.first_visible(j, history) <= k for j in later) else 0
        sights.append(_Sight(pairs, keys.stop - keys.start - length, kept))
    return sights


def _doubled(model: ModelConfig, sampler: SamplerConfig) -> list[bool]:
    """At which scales the network also runs without class."""
    weights = guidance_weights(sampler.cfg_scale, sampler.cfg_ramp, model.schedule.num_scales)
    return guided_scales(weights, model.history)


def _flops(
    model: ModelConfig,
    sampler: SamplerConfig,
    batch: int,
    passes: Sequence[Fraction] | None = None,
) -> list[Fraction]:
    """Operations of every scale, by torch's counter on the meta device, where it also sees fused
    attention: of the first call, which at scale 0 also computes what follows from the class alone,
    and of each further one."""
    passes = passes or dry_run(model, sampler).per_image(model.schedule.num_scales)
    with torch.device("meta"):
        network, degraded_BChw = ScaleTransformer(model), blank_latent(model, batch)
        labels_B = torch.zeros(batch, dtype=torch.long)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            guided = guided_denoiser(network, sampler, degraded_BChw)
    # what is known of a degraded image is computed once, before scale 0
    flops_K, once = [], counter.get_total_flops()
    for k, length in enumerate(model.schedule.lengths):
        inputs_BlC = torch.empty(batch, length, model.codebook_dim, device="meta")
        counts = []
        for _ in range(2 if passes[k] != 1 else 1):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                guided(inputs_BlC, k, labels_B)
            counts.append(counter.get_total_flops())
        first, again = counts[0], counts[-1]
        flops_K.append(first + (passes[k] - 1) * again if passes[k] else Fraction(0))
    flops_K[0] += once
    return flops_K


def sampling_bytes(
    model: ModelConfig,
    sampler: SamplerConfig,
    batch: int,
    number_bytes: int = 4,
    calls: Calls | None = None,
) -> tuple[Number, ...]:
    """Bytes that every scale of a sampler (VAR, arXiv 2404.02905; SRDD, 2509.22636) must move
    between memory and processor at least, for a whole batch, decoder excluded. number_bytes: of one
    weight, 4 in float32 and 2 in bfloat16. calls: those of batches of this size, counted by
    `generate`; None: of a `dry_run`.

    Once a call: the weights that it reads, the keys and values of earlier scales, an image's logits
    (guidance is linear: one set an image is enough). Once a scale: its own keys and values, where a
    later scale reads them; those of a history vector too, which both halves of guidance share. Once
    a sample, at scale 0: all that follows from the class alone (AdaLN). Activations inside a pass
    count nothing: a perfect program keeps them in its caches.
    """
    with torch.device("meta"):
        network = ScaleTransformer(model)
    schedule, doubled = model.schedule, _doubled(model, sampler)
    calls = calls or dry_run(model, sampler)
    passes = calls.per_image(schedule.num_scales)
    D, blocks = model.width, network.blocks
    past, recalled = network.past, 2 * D  # keys and values of one position that is pooled
    core = _core(network)
    told = _told(network)
    moved = []
    for k, (length, sight) in enumerate(zip(schedule.lengths, _sights(model))):
        # keys and values of one position of one image
        pair = 2 * D * len(blocks) * (2 if doubled[k] else 1)
        # positions and level; the start embedding or the input's projection; [MASK]
        embedding = (
            (length + 1) * D
            + (length * D if k == 0 else _numbers(network.input))
            + (D if model.mask_prob > 0 else 0)
            + (_numbers(past) if past is not None and k > 0 else 0)
        )
        once = batch * pair * sight.kept
        if k == 0:
            once += _of_classes(network, batch + any(doubled)) + told.once + batch * told.kept
        if 0 < k < schedule.num_scales - 1 and model.recalls:
            once += batch * recalled * length
        pooled = reach(model.history_vector, k)[:-1] if k > 0 else range(0)
        outputs = model.codebook_dim if model.regresses else model.codebook_size
        an_image = pair * sight.earlier + length * outputs
        an_image += told.seen + D * max(0, min(told.tokens - schedule.slices[k].start, length))
        an_image += recalled * sum(schedule.lengths[j] for j in pooled)
        times = Fraction(calls.calls.get(k, 0), calls.batches)
        each = times * (core + told.each + embedding) + passes[k] * batch * an_image
        moved.append(_number(number_bytes * (once + each)))
    return tuple(moved)


class _Told(NamedTuple):
    """Numbers that a degraded image moves: weights once a sample, of an image what is kept of it;
    weights once a call, of an image keys and values; tokens that something is added to."""

    once: int = 0
    kept: int = 0
    each: int = 0
    seen: int = 0
    tokens: int = 0


def _of_classes(network: ScaleTransformer, classes: int) -> int:
    """Numbers that what follows from some classes moves: AdaLN's weights once, and of each class
    its row in and its modulations out."""
    blocks, D = network.blocks, network.config.width
    shared = network.config.shared_adaln
    adaln = [network.shared_modulation] if shared else [block.modulation for block in blocks]
    adaln = [network.head_modulation, *adaln]
    tables = 6 * D * len(blocks) if shared else 0
    moved = classes * (D + sum(layer.out_features for layer in adaln))
    return sum(map(_numbers, adaln)) + tables + moved


def _core(network: ScaleTransformer) -> int:
    """Weights that every pass reads: those of the head and of all blocks but AdaLN."""
    read = [(block.attention, block.mlp_in, block.mlp_out) for block in network.blocks]
    return _numbers(network.head) + sum(map(_numbers, chain(*read)))


def _told(network: ScaleTransformer) -> _Told:
    """What the condition of a network moves; nothing where it restores none."""
    if (reader := network.condition) is None:
        return _Told()
    D, schedule, whole = network.config.width, network.schedule, _numbers(reader)
    if isinstance(reader, StateCondition):
        return _Told(whole, D * schedule.seq_len, tokens=schedule.seq_len)
    first = schedule.lengths[0]
    keys = 2 * D * schedule.latent_size**2 * len(reader.attentions)
    of_keys = sum(_numbers(one.key_value) + _numbers(one.key_norm) for one in reader.attentions)
    each = sum(map(_numbers, reader.attentions)) - of_keys
    return _Told(whole - each, keys + D * first, each, keys, first)


def _numbers(module: nn.Module) -> int:
    """Weights of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
