"""Samplers: loops over scales that know a `denoise` and a ladder, and nothing of networks.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h w latent grid
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from .config import CONFIDENCES, COUNTED, SamplerConfig, sampler_misfit
from .contracts import (
    Untouched,
    check_confidence,
    check_drawn,
    check_known,
    check_labels,
    check_select,
    drawn_faults,
    refuse_drawn,
    whole_numbers,
)
from .guidance import Denoise, guide
from .lookup import find, function_name, is_own
from .model import ScaleTransformer
from .noise import ImageNoise
from .quantizer import Ladder
from .watch import Calls, Watched

# ---------------------------------------------------------------- one draw


def _invert(mass: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Place at which the sums of float64 masses pass a target, and the sum before it; a place without mass is not returned. Masses that
    are no numbers give some place inside: on a GPU an index outside would end the process."""
    sums = mass.cumsum(-1)
    place = torch.searchsorted(sums, target.clamp(min=0.0), right=True)
    # rounding may put the target on the total itself: take the place at which the sum becomes whole
    place = torch.minimum(place, torch.searchsorted(sums, sums[..., -1:].contiguous())).clamp_(max=mass.shape[-1] - 1)
    return place, sums.gather(-1, place) - mass.gather(-1, place)


@dataclass(frozen=True)
class TokenDistribution:
    """What tokens are drawn from, after temperature, top-k and nucleus (arXiv 1904.09751).

    mass_BlV: not normalised, 0 for a code that was cut off, in the logits' own precision; sums run in float64, but for those of 64 codes
    in `draw`.
    """

    mass_BlV: torch.Tensor

    def draw(self, uniform_Bl: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens by inverting the cumulative distribution at float64 numbers in [0, 1), and the probability of each.

        Sums run in float64 but inside a block: a float32 Gumbel trick lowers the effective temperature (arXiv 2409.02908). Probability 0
        is never drawn. Returns tokens_Bl and probability_Bl.
        """
        V = self.mass_BlV.shape[-1]
        # two levels, first a block of codes and then one of its codes: the sums of 4 096 codes are never written down one by one
        block = 64 if V % 64 == 0 else V
        mass_BlNn = self.mass_BlV.unflatten(-1, (-1, block))
        blocks_BlN = mass_BlNn.sum(-1).double()
        total_Bl1 = blocks_BlN.sum(-1, keepdim=True)
        which_Bl1, before_Bl1 = _invert(blocks_BlN, uniform_Bl.unsqueeze(-1) * total_Bl1)
        chosen = which_Bl1.unsqueeze(-1).expand(*which_Bl1.shape, block)
        inside_Bln = mass_BlNn.gather(-2, chosen).squeeze(-2).double()
        place_Bl1, _ = _invert(inside_Bln, uniform_Bl.unsqueeze(-1) * total_Bl1 - before_Bl1)
        probability_Bl1 = inside_Bln.gather(-1, place_Bl1) / total_Bl1
        return (which_Bl1 * block + place_Bl1).squeeze(-1), probability_Bl1.squeeze(-1)

    def shares(self) -> torch.Tensor:
        """Probability of every code (arXiv 1904.09751). Returns float64 (B, l, V)."""
        return self.mass_BlV / self.mass_BlV.sum(-1, keepdim=True, dtype=torch.float64)

    def probability(self, tokens_Bl: torch.Tensor) -> torch.Tensor:
        """Probability of given tokens, 0 for one that was cut off (arXiv 1904.09751). Returns float64 (B, l)."""
        total_Bl = self.mass_BlV.sum(-1, dtype=torch.float64)
        return self.mass_BlV.gather(-1, tokens_Bl.unsqueeze(-1)).squeeze(-1) / total_Bl

    def peak(self) -> torch.Tensor:
        """Probability of the likeliest code (confidence of MaskGIT, arXiv 2202.04200). Returns float64 (B, l)."""
        return self.mass_BlV.amax(-1) / self.mass_BlV.sum(-1, dtype=torch.float64)

    def entropy(self) -> torch.Tensor:
        """Entropy over the vocabulary in nats (arXiv 2505.24857, section 3). Returns float64 (B, l)."""
        return torch.special.entr(self.shares()).sum(-1)


def _descending(values: torch.Tensor) -> torch.Tensor:
    """Values of the last axis, the largest first; on a CPU by numpy, whose sort uses vector instructions: less than half of torch's time."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.detach().numpy(), -1)).flip(-1)
    return values.sort(descending=True).values


def least_kept(logits_BlV: torch.Tensor, top_k: int, top_p: float = 1.0) -> torch.Tensor:
    """The smallest logit among the top_k likeliest codes that the nucleus keeps: a code stays while the mass before it is under top_p,
    the likeliest always (arXiv 1904.09751, section 3). Returns (B, l, 1)."""
    largest_Blk = logits_BlV if top_k == logits_BlV.shape[-1] else logits_BlV.topk(top_k, sorted=False).values
    if top_p == 1.0:
        return largest_Blk.amin(-1, keepdim=True)
    largest_Blk = _descending(largest_Blk)
    mass_Blk = largest_Blk.softmax(-1)
    kept_Bl1 = (mass_Blk.cumsum(-1, dtype=torch.float64) - mass_Blk < top_p).sum(-1, keepdim=True)
    return largest_Blk.gather(-1, kept_Bl1.clamp(min=1) - 1)


def distribution(
    logits_BlV: torch.Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> TokenDistribution:
    """The distribution that tokens are drawn from: temperature, then top-k, then nucleus (arXiv 1904.09751, section 3).

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
    if temperature != 1.0:
        logits_BlV = logits_BlV / temperature
    V = logits_BlV.shape[-1]
    mass_BlV = logits_BlV.softmax(-1)
    if top_p < 1.0 or (top_k or V) < V:
        mass_BlV.masked_fill_(logits_BlV < least_kept(logits_BlV, min(top_k or V, V), top_p), 0.0)
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


# ---------------------------------------------------------------- tokens that are given


@dataclass(frozen=True)
class Known:
    """Tokens that a sample must keep: ground truth in zero-shot tasks (VAR, arXiv 2404.02905, section 4.4), a corrupted prefix.

    tokens_BL: int64; mask_BL: bool, where they hold.
    """

    tokens_BL: torch.Tensor
    mask_BL: torch.Tensor

    def put_into(self, tokens_Bl: torch.Tensor, where: slice) -> torch.Tensor:
        """The tokens of a scale with the known ones in their places."""
        return torch.where(self.mask_BL[:, where], self.tokens_BL[:, where], tokens_Bl)


# ---------------------------------------------------------------- which tokens a further pass redraws


@dataclass(frozen=True)
class Drawn:
    """The tokens of one scale as they stand, and what was known of each when it was drawn.

    probability_Bl: of the token itself; peak_Bl: of the likeliest code; entropy_Bl: nats; open_Bl:
    positions not committed yet, all but the known ones at first; fixed_Bl: known tokens, never
    redrawn; passes_left: passes of the scale that can still commit positions, the one just made
    included: T after the first of T.
    """

    tokens_Bl: torch.Tensor
    probability_Bl: torch.Tensor
    peak_Bl: torch.Tensor
    entropy_Bl: torch.Tensor
    open_Bl: torch.Tensor
    fixed_Bl: torch.Tensor
    passes_left: int

    def quota(self) -> torch.Tensor:
        """How many open positions must be committed now so that all are after the last pass (SDAR,
        arXiv 2510.06303): open over passes_left, rounded up. Returns int64 (B, 1)."""
        return (self.open_Bl.sum(-1, keepdim=True) + self.passes_left - 1) // self.passes_left

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that a rule (SRDD, arXiv 2509.22636) must leave as it is, by name."""
        return {
            name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }

    def passed(self, redraw_Bl: torch.Tensor) -> Drawn:
        """The same tokens one pass later (SDAR, arXiv 2510.06303), with other open positions."""
        return replace(self, open_Bl=redraw_Bl, passes_left=self.passes_left - 1)

    def where(self, redraw_Bl: torch.Tensor, other: Drawn) -> Drawn:
        """`other` where redrawn; the redrawn positions are the open ones now."""
        pick = lambda name: torch.where(redraw_Bl, getattr(other, name), getattr(self, name))  # noqa: E731
        changed = {name: pick(name) for name in ("tokens_Bl", "probability_Bl", "peak_Bl", "entropy_Bl")}
        return replace(self.passed(redraw_Bl), **changed)


# ---------------------------------------------------------------- how sure a pass is of a position


def confidence_peak(drawn: Drawn) -> torch.Tensor:
    """Probability of the likeliest code (arXiv 2505.22618): says nothing of the token that was
    drawn, so that a rule that ranks by it favours no value. Returns float64 (B, l)."""
    return drawn.peak_Bl


def confidence_drawn(drawn: Drawn) -> torch.Tensor:
    """Probability of the token that was drawn (MaskGIT, arXiv 2202.04200, section 3.2; SDAR,
    2510.06303): a rule that ranks by it keeps likely values, which truncates the distribution.
    Returns float64 (B, l)."""
    return drawn.probability_Bl


def confidence_entropy(drawn: Drawn) -> torch.Tensor:
    """Negative entropy in nats (arXiv 2505.24857, section 3): blind to the token that was drawn, as
    `confidence_peak`. Returns float64 (B, l)."""
    return -drawn.entropy_Bl


def _confidence(drawn: Drawn, config: SamplerConfig, rule: str) -> torch.Tensor:
    """What a rule ranks positions by: `confidence_<name>` of the settings, or the rule's own."""
    name = config.confidence or CONFIDENCES[rule]
    confidence = find(sys.modules[__name__], "confidence", name)
    if not is_own("confidence", name):
        return confidence(drawn)
    who, given = function_name("confidence", name), Untouched(**drawn.tensors())
    found_Bl = confidence(drawn)
    given.check(who)
    return check_confidence(found_Bl, drawn.open_Bl.shape, who)


# ---------------------------------------------------------------- rules


def _rank(score_Bl: torch.Tensor, among_Bl: torch.Tensor) -> torch.Tensor:
    """Place of each position among some of its row, the lowest score first and of equal ones the
    first; all others come behind."""
    score_Bl = score_Bl.masked_fill(~among_Bl, torch.inf)
    return score_Bl.argsort(dim=-1, stable=True).argsort(dim=-1)


def _lowest(score_Bl: torch.Tensor, fraction: float, fixed_Bl: torch.Tensor) -> torch.Tensor:
    """The ceil(fraction x free) free positions of each row with the lowest score; of equal ones the first."""
    # float64: in float32, 0.15 of 100 is a little more than 15
    count_B1 = torch.ceil((~fixed_Bl).sum(-1, keepdim=True).double() * fraction - 1e-9)
    return _rank(score_Bl, ~fixed_Bl) < count_B1


def _behind_quota(score_Bl: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """The open positions that are left when each row commits its quota, the lowest scores first."""
    return drawn.open_Bl & (_rank(score_Bl, drawn.open_Bl) >= drawn.quota())


def select_threshold(drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """Redraw tokens whose probability is below p_resample (mask resampling of SRDD, arXiv
    2509.22636). Returns bool (B, l).

    It keeps what came out likely, so it truncates the distribution, even where tokens are
    independent and however exact the network: more passes do not mend that.
    """
    return (drawn.probability_Bl < config.p_resample) & ~drawn.fixed_Bl


def select_lowest(drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """Redraw the least confident share resample_fraction, rounded up (MaskGIT, arXiv 2202.04200,
    section 3.2). Returns bool (B, l)."""
    return _lowest(_confidence(drawn, config, "lowest"), config.resample_fraction, drawn.fixed_Bl)


def select_random(drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """Redraw a random share resample_fraction, rounded up: blocked Gibbs sampling when one token is redrawn (remasking as in
    ReMDM, arXiv 2503.00307). Returns bool (B, l)."""
    return _lowest(uniform_Bl, config.resample_fraction, drawn.fixed_Bl)


def select_static(drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """Commit the quota of most confident open positions and redraw the other open ones
    (low-confidence static decoding of SDAR, arXiv 2510.06303). Returns bool (B, l)."""
    return _behind_quota(-_confidence(drawn, config, "static"), drawn)


def select_sequential(
    drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig
) -> torch.Tensor:
    """Commit the quota of first open positions in raster order and redraw the other open ones
    (sequential decoding of SDAR, arXiv 2510.06303). Exact where each pass commits one token.
    Returns bool (B, l)."""
    place_l = torch.arange(drawn.open_Bl.shape[1], device=drawn.open_Bl.device, dtype=torch.float64)
    return _behind_quota(place_l.expand(drawn.open_Bl.shape), drawn)


def select_shuffled(drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """Commit a quota of open positions by chance and redraw the other open ones: any-order
    ancestral sampling (ARDM, arXiv 2110.02037, algorithm 1). Exact where each pass commits one
    token. Returns bool (B, l)."""
    return _behind_quota(uniform_Bl, drawn)


def select_dynamic(drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """Commit open positions of confidence commit_above or more, and at least the quota of surest
    ones; redraw the other open ones (Fast-dLLM, arXiv 2505.22618; with a quota SDAR, 2510.06303).
    Returns bool (B, l)."""
    confidence_Bl = _confidence(drawn, config, "dynamic")
    return _behind_quota(-confidence_Bl, drawn) & (confidence_Bl < config.commit_above)


def select_entropy(drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """Commit the longest run of open positions, surest first, whose entropies sum to entropy_bound
    or less, and at least the quota; redraw the other open ones (entropy-bounded unmasking, arXiv
    2505.24857). Returns bool (B, l)."""
    rank_Bl = _rank(-_confidence(drawn, config, "entropy"), drawn.open_Bl)
    order_Bl = rank_Bl.argsort(dim=-1)
    spent_Bl = drawn.entropy_Bl.masked_fill(~drawn.open_Bl, 0.0).gather(-1, order_Bl).cumsum(-1)
    beyond_Bl = (spent_Bl > config.entropy_bound).gather(-1, rank_Bl)
    return drawn.open_Bl & beyond_Bl & (rank_Bl >= drawn.quota())


# ---------------------------------------------------------------- samplers


def sample_var(
    denoise: Denoise, ladder: Ladder, labels_B: torch.Tensor, noise: ImageNoise, config: SamplerConfig, known: Known | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coarse to fine, each scale drawn once (VAR, arXiv 2404.02905, section 3.2); with a model of history 0 this is SDD.

    labels_B: int64; known: tokens to keep. Returns tokens_BL and the final state f_hat_BChw.
    """
    f_hat_BChw, tokens = ladder.empty_state(len(labels_B)), []
    for k, where in enumerate(ladder.schedule.slices):
        logits_BlV = denoise(ladder.read_scale(f_hat_BChw, k), k, labels_B)
        uniform_Bl = noise.uniform(where.stop - where.start)
        found = distribution(logits_BlV, config.temperature, config.top_k, config.top_p)
        drawn_Bl, _ = found.draw(uniform_Bl)
        drawn_Bl = drawn_Bl if known is None else known.put_into(drawn_Bl, where)
        f_hat_BChw = ladder.add_scale(f_hat_BChw, ladder.quantizer.embed(drawn_Bl), k)
        tokens.append(drawn_Bl)
    return torch.cat(tokens, 1), f_hat_BChw


def sample_srdd(
    denoise: Denoise, ladder: Ladder, labels_B: torch.Tensor, noise: ImageNoise, config: SamplerConfig, known: Known | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coarse to fine with resampling inside a scale (SRDD, arXiv 2509.22636): SR redraws unlikely
    tokens from the same distribution sr_steps times after every pass; MR masks what `select_<name>`
    names and calls the network again, refine_steps times.

    A pass that redraws no token of the batch calls no network where `denoise.history` is 0: no
    scale then reads another's keys. With both at 0 it equals `sample_var` bit by bit. With
    refine_steps the network sees known tokens from the first pass on. Arguments and results as of
    `sample_var`.
    """
    f_hat_BChw, tokens = ladder.empty_state(len(labels_B)), []
    for k in range(ladder.schedule.num_scales):
        inputs_BlC = ladder.read_scale(f_hat_BChw, k)
        drawn_Bl = _draw_scale(denoise, inputs_BlC, k, labels_B, noise, config, known, ladder)
        f_hat_BChw = ladder.add_scale(f_hat_BChw, ladder.quantizer.embed(drawn_Bl), k)
        tokens.append(drawn_Bl)
    return torch.cat(tokens, 1), f_hat_BChw


def _draw_scale(denoise, inputs_BlC, k, labels_B, noise, config, known, ladder) -> torch.Tensor:
    """Tokens of one scale after all its passes."""
    where, V = ladder.schedule.slices[k], len(ladder.quantizer.codebook_VC)
    masked_Bl = labels_B.new_full((len(labels_B), where.stop - where.start), V)
    fixed_Bl = torch.zeros_like(masked_Bl, dtype=torch.bool) if known is None else known.mask_BL[:, where]
    own = [known.put_into(masked_Bl, where)] if known is not None and config.refine_steps else []
    found, tokens_Bl, probability_Bl = _one_pass(denoise(inputs_BlC, k, labels_B, *own), k, noise, config, "")
    if known is not None:
        tokens_Bl = known.put_into(tokens_Bl, where)
    length = masked_Bl.shape[1]
    passes = config.passes(k, length)
    if passes == 1:
        return tokens_Bl
    drawn = Drawn(
        tokens_Bl, probability_Bl, found.peak(), found.entropy(), ~fixed_Bl, fixed_Bl, passes
    )
    select = find(sys.modules[__name__], "select", config.select)
    # A call may be left out only where no later scale reads its keys: whether it is left out
    # depends on the batch. A look at what is redrawn makes a GPU wait, so only some rules take one.
    looks = getattr(denoise, "history", None) == 0 and (
        known is not None or config.select not in COUNTED
    )
    for _ in range(passes - 1):
        uniform_Bl = noise.uniform(length, "select")
        if is_own("select", config.select):
            who, given = function_name("select", config.select), Untouched(**drawn.tensors())
            redraw_Bl = select(drawn, uniform_Bl, config)
            given.check(who)
            check_select(redraw_Bl, fixed_Bl, who)
        else:
            redraw_Bl = select(drawn, uniform_Bl, config)
        if looks and not redraw_Bl.any():
            _leave_out(noise, length, k, config)
            drawn = drawn.passed(redraw_Bl)
            continue
        own_Bl = drawn.tokens_Bl.masked_fill(redraw_Bl, V)
        found, tokens_Bl, probability_Bl = _one_pass(denoise(inputs_BlC, k, labels_B, own_Bl), k, noise, config, "refine")
        again = replace(
            drawn,
            tokens_Bl=tokens_Bl,
            probability_Bl=probability_Bl,
            peak_Bl=found.peak(),
            entropy_Bl=found.entropy(),
        )
        drawn = drawn.where(redraw_Bl, again)
    return drawn.tokens_Bl


def _leave_out(noise, length, k, config) -> None:
    """Draw the numbers of a pass that is not made: an image's later scales must not depend on its
    batch."""
    noise.uniform(length, "refine")
    for _ in range(config.sr_steps if config.refines(k) else 0):
        noise.uniform(length, "sr")


def _one_pass(logits_BlV, k, noise, config, use) -> tuple[TokenDistribution, torch.Tensor, torch.Tensor]:
    """Draw every token of a scale, and by SR the unlikely ones again from the same distribution: what was drawn from, tokens_Bl and the
    probability of each."""
    found, length = distribution(logits_BlV, config.temperature, config.top_k, config.top_p), logits_BlV.shape[1]
    tokens_Bl, probability_Bl = found.draw(noise.uniform(length, use))
    for _ in range(config.sr_steps if config.refines(k) else 0):
        low_Bl = probability_Bl < config.p_resample
        again_Bl, other_Bl = found.draw(noise.uniform(length, "sr"))
        tokens_Bl, probability_Bl = torch.where(low_Bl, again_Bl, tokens_Bl), torch.where(low_Bl, other_Bl, probability_Bl)
    return found, tokens_Bl, probability_Bl


def guided_denoiser(model: ScaleTransformer, config: SamplerConfig) -> Denoise:
    """A fresh denoiser of a model for one batch, under a sampler's guidance (arXiv 2207.12598, equation 6)."""
    denoiser = model.denoiser()
    return guide(denoiser, model.schedule, config.cfg_scale, config.cfg_ramp, model.config.null_label, denoiser.history)


def _check_request(
    model: ScaleTransformer,
    ladder: Ladder,
    labels_B: torch.Tensor,
    config: SamplerConfig,
    known: Known | None,
) -> None:
    """What `generate` is asked for. Raises ValueError."""
    kinds = {"model": (model, ScaleTransformer), "ladder": (ladder, Ladder), "config": (config, SamplerConfig)}
    kinds |= {} if known is None else {"known": (known, Known)}
    for name, (given, kind) in kinds.items():
        if not isinstance(given, kind):
            raise ValueError(f"{name}: {type(given).__name__}: must be a {kind.__name__}")
    asked, sizes = model.config, ladder.quantizer.codebook_VC.shape
    check_labels(labels_B, asked.num_classes)
    if problem := sampler_misfit(config, asked):
        raise ValueError(problem)
    if ladder.schedule != model.schedule:
        raise ValueError(
            f"ladder of patch_nums {list(ladder.schedule.patch_nums)}: the model's are "
            f"{list(model.schedule.patch_nums)}; "
            "take tokenizer.at(model.schedule)"
        )
    if sizes != (asked.codebook_size, asked.codebook_dim):
        raise ValueError(
            f"ladder of {sizes[0]} codes of {sizes[1]} channels: the model's have "
            f"{asked.codebook_size} of {asked.codebook_dim}; "
            "take the tokenizer that the model was trained with"
        )
    places = {str(x.device) for x in (labels_B, model.position, ladder.quantizer.codebook_VC)}
    if len(places) > 1:
        names = ", ".join(sorted(places))
        raise ValueError(f"labels, model and ladder: lie on several devices ({names}); use one")
    if known is not None:
        shape = len(labels_B), model.schedule.seq_len
        check_known(known.tokens_BL, known.mask_BL, shape, asked.codebook_size)


@torch.no_grad()
def generate(
    model: ScaleTransformer,
    ladder: Ladder,
    labels_B: torch.Tensor,
    seeds: Sequence[int],
    config: SamplerConfig,
    known: Known | None = None,
    calls: Calls | None = None,
    early_exit: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one batch with the sampler that `config` names: guidance wrapped round a fresh denoiser (arXiv 2207.12598).

    labels_B: int64 in 0 ... num_classes - 1, 0 for a model without classes. The numbers that an
    image is drawn with follow from its seed alone, so that an image depends on (weights, its seed,
    label, config, its known tokens) and, up to rounding, on nothing else: sums of another batch
    size round otherwise, and a draw at the very edge of two codes may then flip (in float32 on a
    CPU a few per cent of the images of a 256-pixel model). calls: counts the calls of the network.
    early_exit: leave out a call that would redraw nothing, which changes no image; only models of
    history 0 allow it, since later scales of others read what that call would leave in the cache.
    Returns tokens_BL and f_hat_BChw for `Tokenizer.to_image`. Raises ValueError for what does not
    fit together, logits that are no numbers, and a sampler of one's own that returns anything else.
    """
    _check_request(model, ladder, labels_B, config, known)
    seeds = whole_numbers(seeds, "seeds")
    if len(seeds) != len(labels_B):
        raise ValueError(f"{len(seeds)} seeds for {len(labels_B)} labels: one seed for each image")
    noise = ImageNoise(seeds, labels_B.device)
    sampler = find(sys.modules[__name__], "sample", config.name)
    who = function_name("sample", config.name)
    channels, V = model.config.codebook_dim, model.config.codebook_size
    guided = guided_denoiser(model, config)
    history = None if model.mask_LL is not None else model.config.history
    own = is_own("sample", config.name)
    remembers = len(labels_B) if own and history != 0 else None
    denoise = Watched(guided, model.schedule, channels, who, config.temperature, remembers)
    denoise.history = history if early_exit else None
    read = {"labels_B": labels_B, **dict(ladder.quantizer.named_parameters())} if own else {}
    if own and known is not None:
        read |= {"tokens_BL": known.tokens_BL, "mask_BL": known.mask_BL}
    given = Untouched(**read)
    found = sampler(denoise, ladder, labels_B, noise, config, known)
    given.check(who)
    size = model.schedule.latent_size
    shape = len(labels_B), model.schedule.seq_len
    state_shape = len(labels_B), channels, size, size
    tokens_BL, f_hat_BChw = check_drawn(found, shape, state_shape, who)
    denoise.check()
    refuse_drawn(drawn_faults(tokens_BL, f_hat_BChw, V, known).tolist(), V, who)
    if calls is not None:
        denoise.seen.batches, denoise.seen.images = 1, len(labels_B)
        calls.add(denoise.seen)
    return tokens_BL, f_hat_BChw
