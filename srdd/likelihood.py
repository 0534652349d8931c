"""Classes by likelihood: log p(tokens | class) of a scale transformer, scale by scale.

A-VARC, arXiv 2510.12060, with the masked bound as its diffusion-style counterpart.

B images, Y classes, C candidates of an image, S copies of an image, L tokens of all scales, l of
one scale, K scales, V codebook, h w latent grid
N rows, each an image under one class
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .denoiser import Denoiser
from .loss import any_order_shares, token_losses
from .model import ScaleTransformer
from .noise import generator
from .quantizer import Ladder
from .schedule import ScaleSchedule

PASS_TOKENS = 2**14  # of one call: its logits are held whole, 0.25 GB at 4 096 codes

# ---------------------------------------------------------------- log p of tokens and scales


def history_of(model: ScaleTransformer) -> int | None:
    """How far back scales look (VAR, arXiv 2404.02905; 0 for SDD, 2509.22636); None, all, under an
    explicit mask, and where a history vector asks for what earlier scales read."""
    everything = model.mask_LL is not None or model.config.recalls
    return None if everything else model.config.history


def check_scales(scales: Sequence[int], model: ScaleTransformer) -> tuple[int, ...]:
    """Scales that can be scored alone (A-VARC, arXiv 2510.12060, partial scales). Raises ValueError
    for scales that are not there, and for others than the first ones where a scale looks back."""
    K, asked = model.schedule.num_scales, tuple(scales)
    if not asked or list(asked) != sorted(set(asked)) or not 0 <= asked[0] <= asked[-1] < K:
        raise ValueError(
            f"scales {list(asked)}: give one or more of 0 ... {K - 1}, each once, coarse to fine"
        )
    history = history_of(model)
    if history != 0 and asked != tuple(range(len(asked))):
        raise ValueError(
            f"scales {list(asked)}: a model of history {history} needs the keys of earlier scales; "
            f"give the first ones, such as {list(range(asked[-1] + 1))}"
        )
    return asked


def _labels_of(labels: torch.Tensor, count: int) -> torch.Tensor:
    """Labels_BC of each image: its own, or the same for all."""
    return labels if labels.dim() == 2 else labels.expand(count, -1)


def _logits(
    model: ScaleTransformer,
    inputs_NLC: torch.Tensor,
    labels_N: torch.Tensor,
    scales: tuple[int, ...] | None,
    own_NL: torch.Tensor | None,
) -> torch.Tensor:
    """Teacher-forced logits of all scales in one pass, or of some, one by one."""
    if scales is None:
        logits_NLV: torch.Tensor = model(inputs_NLC, labels_N, own_BL=own_NL)
        return logits_NLV
    denoise, pieces = Denoiser(model), [model.schedule.slices[k] for k in scales]
    parts = (inputs_NLC[:, piece] for piece in pieces)
    return torch.cat([denoise(part, k, labels_N) for k, part in zip(scales, parts)], 1)


def _scored(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_BL: torch.Tensor,
    labels: torch.Tensor,
    scales: tuple[int, ...] | None = None,
    guidance: float = 1.0,
    own_BCL: torch.Tensor | None = None,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Log p of every token of so many rows at a time, and which rows of (B, C) they are."""
    B, L = tokens_BL.shape
    labels_BC = _labels_of(labels, B)
    C, labels_N = labels_BC.shape[1], labels_BC.flatten()
    slices = model.schedule.slices
    kept_L = torch.cat([torch.arange(L)[slices[k]] for k in scales or range(len(slices))])
    step = max(1, PASS_TOKENS // len(kept_L))
    for first in range(0, B * C, step):
        rows = torch.arange(first, min(first + step, B * C), device=tokens_BL.device)
        image_N, begin = rows // C, first // C
        few_bL = tokens_BL[begin : int(image_N[-1]) + 1]
        # made once an image: all of its classes read the same
        read, at_N = ladder.read_as(model.config.state), image_N - begin
        inputs_bLC = read.teacher_forced_inputs(few_bL)
        own_NL = None if own_BCL is None else own_BCL[image_N, rows % C]
        logits_NLV = _logits(model, inputs_bLC[at_N], labels_N[rows], scales, own_NL)
        if guidance != 1.0:
            no_class_b = torch.full_like(few_bL[:, 0], model.config.null_label)
            free_NLV = _logits(model, inputs_bLC, no_class_b, scales, None)[at_N]
            # u + w (c - u), classifier-free guidance (arXiv 2207.12598)
            logits_NLV = free_NLV + guidance * (logits_NLV - free_NLV)
        yield slice(first, first + len(rows)), -token_losses(logits_NLV, few_bL[at_N][:, kept_L])


@torch.no_grad()
def token_scores(
    model: ScaleTransformer, ladder: Ladder, tokens_BL: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """log p(token | earlier scales, class) of every token (A-VARC, arXiv 2510.12060), in
    nats.

    labels: int64 (Y,) or of each image (B, C), num_classes for no class. Returns float32 (B, C, L).
    """
    parts = [log_p_NL for _, log_p_NL in _scored(model, ladder, tokens_BL, labels)]
    log_p_BCL: torch.Tensor = torch.cat(parts).unflatten(0, (len(tokens_BL), -1))
    return log_p_BCL


@torch.no_grad()
def scale_scores(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_BL: torch.Tensor,
    labels: torch.Tensor,
    scales: Sequence[int] | None = None,
    guidance: float = 1.0,
) -> torch.Tensor:
    """log p(tokens of a scale | earlier scales, class), a sum over its tokens (A-VARC, arXiv
    2510.12060), in nats.

    labels: as of `token_scores`; scales: those that are run, None for all in one pass; guidance: w
    in u + w (c - u). Returns float64 (B, C, K') of the scales asked for. Raises ValueError for
    scales that are not the first ones where history is not 0.
    """
    asked = None if scales is None else check_scales(scales, model)
    lengths = [model.schedule.lengths[k] for k in asked or range(model.schedule.num_scales)]
    sums = []
    for _, log_p_Nl in _scored(model, ladder, tokens_BL, labels, asked, guidance):
        by_scale = [part.sum(1, dtype=torch.float64) for part in log_p_Nl.split(lengths, 1)]
        sums.append(torch.stack(by_scale, 1))
    scores_BCK: torch.Tensor = torch.cat(sums).unflatten(0, (len(tokens_BL), -1))
    return scores_BCK


# ---------------------------------------------------------------- smoothing


@torch.no_grad()
def smoothed_tokens(
    ladder: Ladder, latent_BChw: torch.Tensor, sigma: float, seeds: Sequence[int], copies: int
) -> torch.Tensor:
    """Tokens of noisy copies of a latent, each quantised anew (A-VARC, arXiv 2510.12060, likelihood
    smoothing).

    sigma: standard deviation of the noise, in the latent's own units; copy s of an image has its
    noise from (seed, s) alone. Returns int64 (copies, B, L). Raises ValueError for a sigma below 0,
    and for another number of seeds than of images.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma {sigma}: a standard deviation is 0 or more")
    if len(seeds) != len(latent_BChw):
        raise ValueError(f"{len(seeds)} seeds for {len(latent_BChw)} images: one for each image")
    tokens_SBL = latent_BChw.new_zeros(copies, len(seeds), ladder.schedule.seq_len).long()
    for s in range(copies):
        sources = (generator("smooth", int(seed), s) for seed in seeds)
        noise = [torch.randn(latent_BChw.shape[1:], generator=source) for source in sources]
        noisy_BChw = latent_BChw + sigma * torch.stack(noise).to(latent_BChw)
        tokens_SBL[s] = ladder.encode(noisy_BChw)[0]
    return tokens_SBL


def averaged(scores_S: torch.Tensor, average: str) -> torch.Tensor:
    """Mean over copies, the first axis: of log p as the public code of A-VARC has it (`log`), or of
    p (`probability`), as a logarithm. Raises ValueError for another word."""
    if average == "log":
        return scores_S.mean(0)
    if average == "probability":
        return scores_S.logsumexp(0) - math.log(len(scores_S))
    raise ValueError(f"average {average!r}: is log or probability")


# ---------------------------------------------------------------- from many classes to one


@dataclass(frozen=True)
class Stage:
    """A stage of the funnel: how many scales it scores, classes it keeps, copies it averages."""

    scales: int
    keep: int
    samples: int = 1


@dataclass(frozen=True)
class Funnelled:
    """Labels_B that are left, the classes that each stage kept, int64 (B, keep), and how often
    every scale was run, an image; resumed: for how many classes of these runs began at a later
    scale than the first."""

    labels_B: torch.Tensor
    kept: list[torch.Tensor]
    passes: tuple[float, ...]
    resumed: float

    def token_evals(self, schedule: ScaleSchedule) -> float:
        """Tokens through the network, an image."""
        return sum(times * length for times, length in zip(self.passes, schedule.lengths))


# copy of the image (0: itself), classes_BC, scales -> float64 (B, C, K')
Ask = Callable[[int, torch.Tensor, Sequence[int]], torch.Tensor]


def check_stages(stages: Sequence[Stage], num_scales: int, num_classes: int) -> None:
    """Raises ValueError for stages that do not lead from all classes to one."""
    kept = [num_classes, *(stage.keep for stage in stages)]
    for stage, before in zip(stages, kept):
        if not 1 <= stage.scales <= num_scales:
            raise ValueError(f"stage {stage}: scales from 1 to {num_scales}, those that there are")
        if stage.samples < 1:
            raise ValueError(f"stage {stage}: samples 1 or more; 1 is the image itself")
        if not 1 <= stage.keep <= before:
            raise ValueError(f"stage {stage}: keeps 1 to {before} classes, those before it")
    if not stages or stages[-1].keep != 1:
        raise ValueError("stages: the last one keeps 1 class")


def _scales_to_run(have: int, stage: Stage, history: int | None) -> range:
    """What a stage runs where the scores of the first scales are known: without history what is
    missing alone; else earlier scales again, for the keys that later ones look back at."""
    if have >= stage.scales:
        return range(0)
    return range(have if history == 0 else 0, stage.scales)


def _best(scores_BC: torch.Tensor, keep: int) -> torch.Tensor:
    """Places of the highest scores, ascending, int64 (B, keep); of equal ones the first."""
    order_BC = scores_BC.sort(dim=1, descending=True, stable=True).indices
    return order_BC[:, :keep].sort(1).values


def funnel(
    ask: Ask,
    schedule: ScaleSchedule,
    history: int | None,
    classes_BC: torch.Tensor,
    stages: Sequence[Stage],
    average: str = "log",
) -> Funnelled:
    """Few scales for all classes, more for those that are left (A-VARC, arXiv 2510.12060, candidate
    pruning).

    classes_BC: candidates of each image, ascending: of equal scores the first class wins. A score
    is asked for once: a later stage asks for the scales that are missing, with history 0 for these
    alone. Raises ValueError for stages that do not lead to one class.
    """
    check_stages(stages, schedule.num_scales, classes_BC.shape[1])
    nothing = torch.zeros(*classes_BC.shape, 0, dtype=torch.float64, device=classes_BC.device)
    copies = max(stage.samples for stage in stages)
    known = [nothing] * copies  # scores of the first scales of each copy, (B, C, scales)
    times, resumed, kept = [0] * schedule.num_scales, 0, []
    for stage in stages:
        for copy in range(stage.samples):
            have = known[copy].shape[-1]
            if scales := _scales_to_run(have, stage, history):
                new = ask(copy, classes_BC, scales)[..., have - stage.scales :]
                known[copy] = torch.cat((known[copy], new.to(nothing)), -1)
                resumed += classes_BC.shape[1] * (scales[0] > 0)
            for k in scales:
                times[k] += classes_BC.shape[1]
        sums = [scores[..., : stage.scales].sum(-1) for scores in known[: stage.samples]]
        left_Bc = _best(averaged(torch.stack(sums), average), stage.keep)
        classes_BC = classes_BC.gather(1, left_Bc)
        known = [scores.take_along_dim(left_Bc[..., None], 1) for scores in known]
        kept.append(classes_BC)
    return Funnelled(classes_BC[:, 0], kept, tuple(map(float, times)), float(resumed))


# ---------------------------------------------------------------- the masked bound


def _hidden(schedule: ScaleSchedule, source: torch.Generator) -> torch.Tensor:
    """Tokens of one image to hide, bool (L,): of a scale's l tokens m, uniform in 1 ... l, a random
    set."""
    parts = []
    for length in schedule.lengths:
        m = torch.randint(1, length + 1, (1,), generator=source)
        parts.append(torch.randperm(length, generator=source) < m)
    return torch.cat(parts)


@torch.no_grad()
def masked_bound(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_BL: torch.Tensor,
    labels_Y: torch.Tensor,
    seeds: Sequence[int],
    draws: int,
    common: bool = True,
) -> torch.Tensor:
    """Draws of the any-order bound on log p(tokens | class), l/m times the sum over m hidden tokens
    of a scale (ARDM, arXiv 2110.02037, equation 5; used as diffusion classifiers use the ELBO,
    2303.16203).

    common: one mask for all classes, else one for each. Returns float64 (draws, B, Y), whose mean
    over draws is the bound. Raises ValueError for a model without masks.
    """
    if model.own_embedding is None:
        raise ValueError("masked bound: needs a model that was trained with mask_prob above 0")
    V, (B, L), Y = model.config.codebook_size, tokens_BL.shape, len(labels_Y)
    bounds = []
    for draw in range(draws):
        hidden = []
        for seed in map(int, seeds):
            names = [()] if common else [(y,) for y in range(Y)]
            sources = (generator("bound", seed, draw, *name) for name in names)
            hidden.append(torch.stack([_hidden(model.schedule, source) for source in sources]))
        hidden_BYL = torch.stack(hidden).expand(B, Y, L).to(tokens_BL.device)
        own_BYL = tokens_BL[:, None].expand(B, Y, L).masked_fill(hidden_BYL, V)
        hidden_NL, sums = hidden_BYL.reshape(B * Y, L), []
        for rows, log_p_NL in _scored(model, ladder, tokens_BL, labels_Y, own_BCL=own_BYL):
            share_NL = any_order_shares(hidden_NL[rows], model.schedule)
            sums.append((share_NL * log_p_NL).sum(1, dtype=torch.float64))
        bounds.append(torch.cat(sums).view(B, Y))
    return torch.stack(bounds)


# ---------------------------------------------------------------- which tokens speak for a class


def evidence_map(values_BL: torch.Tensor, schedule: ScaleSchedule) -> torch.Tensor:
    """Values of tokens as one map of the finest grid: each scale by nearest neighbour, weighted by
    (side / finest side)^2, summed (A-VARC, arXiv 2510.12060, token-wise mutual information).
    Returns (B, h, w)."""
    size, parts = schedule.latent_size, []
    for side, piece in zip(schedule.patch_nums, schedule.slices):
        grid_B1hw = values_BL[:, None, piece].unflatten(2, (side, side))
        up_B1hw = F.interpolate(grid_B1hw, size=(size, size), mode="nearest")
        parts.append((side / size) ** 2 * up_B1hw[:, 0])
    return torch.stack(parts).sum(0)
