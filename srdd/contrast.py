"""Contrast between what a frozen generator reconstructs under the conditions of an encoder (DCR,
arXiv 2603.04803), with scales in place of noise levels.

B images, as many conditions, N rows, each an image under one condition; n numbers of a prediction,
Z of an encoder, D width, L tokens of all scales, l of one, V codebook, C latent channels
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .likelihood import history_of
from .loss import token_losses
from .model import ScaleTransformer
from .quantizer import Ladder

# of one pass with gradients: 0.25 GB of activations at width 64 and depth 4
PAIR_TOKENS = 2**15
ROWS = 512  # sequences of one pass without

# ---------------------------------------------------------------- from an encoder to a condition


class Projector(nn.Module):
    """From an encoder's z to what is added to the embedding of no class (DCR, arXiv 2603.04803, its
    projector): LayerNorm, Linear, GELU, Linear. Maps (B, Z) to (B, D)."""

    def __init__(self, z_size: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(z_size)
        self.first = nn.Linear(z_size, width)
        self.last = nn.Linear(width, width)

    def init_weights(self, generator: torch.Generator) -> None:
        """The last layer is zero, so that every condition begins as no class; the first one is
        normal."""
        nn.init.normal_(self.first.weight, std=self.first.in_features**-0.5, generator=generator)
        for zero in (self.first.bias, self.last.weight, self.last.bias):
            nn.init.zeros_(zero)

    def forward(self, z_BZ: torch.Tensor) -> torch.Tensor:
        """What is added to the condition of no class, (B, D), from the features of an image (DCR,
        arXiv 2603.04803)."""
        added_BD: torch.Tensor = self.last(F.gelu(self.first(self.norm(z_BZ))))
        return added_BD


def conditions(model: ScaleTransformer, projector: nn.Module, z_BZ: torch.Tensor) -> torch.Tensor:
    """The embedding of no class plus the projected z (DCR, arXiv 2603.04803), condition_BD."""
    condition_BD: torch.Tensor = projector(z_BZ)
    return condition_BD + model.class_embedding.weight[model.config.null_label]


# ---------------------------------------------------------------- what the generator predicts


def scales_to_run(model: ScaleTransformer, k: int) -> range:
    """Scales that logits of scale k depend on: with history 0 itself alone (SDD, arXiv 2509.22636),
    else those that it reaches through all blocks."""
    history = history_of(model)
    # a window says of every key that a scale sees whether it is near: none may be left out
    everything = history is None or (history > 0 and model.config.window is not None)
    first = 0 if history is None or everything else max(0, k - history * model.config.depth)
    return range(first, k + 1)


def tokens_run(model: ScaleTransformer, k: int | None) -> int:
    """Tokens of a sequence that go through the network (VAR, arXiv 2404.02905) for the logits of
    scale k; None: of all."""
    lengths = model.schedule.lengths
    return sum(lengths) if k is None else sum(lengths[s] for s in scales_to_run(model, k))


def logits_by_scale(
    model: ScaleTransformer, inputs_NLC: torch.Tensor, condition_ND: torch.Tensor, k: int | None
) -> list[torch.Tensor]:
    """Teacher-forced logits_NlV (VAR, arXiv 2404.02905, equation 5) of scale k alone, or of every
    scale, under given conditions. inputs_NLC: of all scales."""
    schedule = model.schedule
    if k is None:
        hidden_NLD = model.hidden(inputs_NLC, None, condition_BD=condition_ND)
        return [model.head(part) for part in hidden_NLD.split(schedule.lengths, 1)]
    scales = scales_to_run(model, k)
    where = slice(schedule.slices[scales[0]].start, schedule.slices[k].stop)
    hidden_NlD = model.hidden(inputs_NLC[:, where], None, condition_BD=condition_ND, scales=scales)
    return [model.head(hidden_NlD[:, -schedule.lengths[k] :])]


# logits of every scale asked for and the tokens_NL behind them, to one tensor a scale
Read = Callable[[list[torch.Tensor], torch.Tensor], list[torch.Tensor]]


def _read_pairs(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_BL: torch.Tensor,
    condition_CD: torch.Tensor,
    k: int | None,
    read: Read,
) -> list[torch.Tensor]:
    """What is read of the logits of every image under every condition, (B, C, ...) for each scale.
    Images are run in parts, computed again on the way back where there are several."""
    inputs_BLC, C = ladder.teacher_forced_inputs(tokens_BL), len(condition_CD)

    def part(
        inputs_bLC: torch.Tensor, tokens_bL: torch.Tensor, condition_CD: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """What is read of b images under all C conditions, (b C, ...) for each scale."""
        inputs_NLC = inputs_bLC.repeat_interleave(C, 0)
        logits = logits_by_scale(model, inputs_NLC, condition_CD.repeat(len(tokens_bL), 1), k)
        return tuple(read(logits, tokens_bL.repeat_interleave(C, 0)))

    step = max(1, PAIR_TOKENS // (C * tokens_run(model, k)))
    parts = []
    for given in zip(inputs_BLC.split(step), tokens_BL.split(step)):
        if step < len(tokens_BL) and torch.is_grad_enabled():
            parts.append(checkpoint(part, *given, condition_CD, use_reentrant=False))
        else:
            parts.append(part(*given, condition_CD))
    return [torch.cat(values).unflatten(0, (-1, C)) for values in zip(*parts)]


def _tokens_of(
    model: ScaleTransformer, tokens_NL: torch.Tensor, k: int | None
) -> Iterator[torch.Tensor]:
    pieces = model.schedule.slices
    return (tokens_NL[:, piece] for piece in (pieces if k is None else [pieces[k]]))


def pair_scores(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_BL: torch.Tensor,
    condition_CD: torch.Tensor,
    k: int | None = None,
) -> list[torch.Tensor]:
    """log p(tokens of a scale of image i | condition j), a sum over its tokens, in nats: the scores
    of A-VARC (arXiv 2510.12060) with conditions in place of classes.

    Returns scores_BC of scale k alone, or for each scale. Gradients flow into the conditions.
    """

    def read(logits: list[torch.Tensor], tokens_NL: torch.Tensor) -> list[torch.Tensor]:
        """log p(tokens) of each scale in nats, (N,)."""
        own = _tokens_of(model, tokens_NL, k)
        return [-token_losses(values, tokens).sum(1) for values, tokens in zip(logits, own)]

    return _read_pairs(model, ladder, tokens_BL, condition_CD, k, read)


def own_scores(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_BL: torch.Tensor,
    condition_BD: torch.Tensor,
    k: int | None = None,
) -> list[torch.Tensor]:
    """The diagonal of `pair_scores` (A-VARC, arXiv 2510.12060), scores_B of scale k alone or for
    each scale: every image under its own condition."""
    inputs_BLC = ladder.teacher_forced_inputs(tokens_BL)
    logits = logits_by_scale(model, inputs_BLC, condition_BD, k)
    own = _tokens_of(model, tokens_BL, k)
    return [-token_losses(values, tokens).sum(1) for values, tokens in zip(logits, own)]


def expected_codes(logits_NlV: torch.Tensor, codebook_VC: torch.Tensor) -> torch.Tensor:
    """The code that a token is expected to be, softmax(logits) codebook: what stands for predicted
    noise (DCR, arXiv 2603.04803). Returns (N, l C)."""
    return (logits_NlV.float().softmax(-1) @ codebook_VC.float()).flatten(1)


class Reconstructions(NamedTuple):
    """What DCR (arXiv 2603.04803) compares at one scale: predictions of image i under condition j,
    under the condition of another view of it, and the true codes."""

    pred_BBn: torch.Tensor
    view_Bn: torch.Tensor
    target_Bn: torch.Tensor


def reconstructions(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_BL: torch.Tensor,
    condition_BD: torch.Tensor,
    view_BD: torch.Tensor,
    k: int | None = None,
) -> list[Reconstructions]:
    """Expected codes of every image under every condition, of scale k alone or for each scale (DCR,
    arXiv 2603.04803). view_BD: conditions of other views."""
    codebook_VC = ladder.quantizer.codebook_VC

    def read(logits: list[torch.Tensor], tokens_NL: torch.Tensor) -> list[torch.Tensor]:
        """Expected codes of each scale; its tokens are not asked."""
        return [expected_codes(values, codebook_VC) for values in logits]

    pairs = _read_pairs(model, ladder, tokens_BL, condition_BD, k, read)
    inputs_BLC = ladder.teacher_forced_inputs(tokens_BL)
    views = read(logits_by_scale(model, inputs_BLC, view_BD, k), tokens_BL)
    targets = (ladder.quantizer.embed(own).flatten(1) for own in _tokens_of(model, tokens_BL, k))
    return [Reconstructions(*three) for three in zip(pairs, views, targets)]


# ---------------------------------------------------------------- the frozen half


@dataclass(frozen=True)
class Conditioned:
    """A generator whose condition is an encoder's z, through a projector (DCR, arXiv
    2603.04803)."""

    model: ScaleTransformer
    ladder: Ladder
    projector: Projector

    def condition(self, z_BZ: torch.Tensor) -> torch.Tensor:
        """The embedding of no class plus the projected z (DCR, arXiv 2603.04803), condition_BD."""
        return conditions(self.model, self.projector, z_BZ)

    def nll(self, tokens_BL: torch.Tensor, z_BZ: torch.Tensor, k: int | None) -> torch.Tensor:
        """Cross-entropy of the tokens of scale k given their z, or of all, nats a token (VAR, arXiv
        2404.02905, equation 5)."""
        scores = own_scores(self.model, self.ladder, tokens_BL, self.condition(z_BZ), k)
        tokens = sum(self.model.schedule.lengths) if k is None else self.model.schedule.lengths[k]
        return -torch.stack(scores).sum() / (len(tokens_BL) * tokens)

    @torch.no_grad()
    def scores(self, tokens_NL: torch.Tensor, z_NZ: torch.Tensor) -> torch.Tensor:
        """log p of all tokens of images given their z, float64 (N,) on the CPU (A-VARC, arXiv
        2510.12060)."""
        device, parts = self.model.position.device, []
        for tokens_BL, z_BZ in zip(tokens_NL.split(ROWS), z_NZ.split(ROWS)):
            condition_BD = self.condition(z_BZ.to(device))
            by_scale = own_scores(self.model, self.ladder, tokens_BL.to(device), condition_BD)
            parts.append(torch.stack(by_scale).double().sum(0).cpu())
        return torch.cat(parts)


# ---------------------------------------------------------------- losses


def dcr_loss(
    pred_BBn: torch.Tensor, view_Bn: torch.Tensor, target_Bn: torch.Tensor, tau: float
) -> torch.Tensor:
    """Each image's own prediction against two positives, under another view's condition and the
    truth, and the predictions under the conditions of others (DCR, arXiv 2603.04803, its unified
    loss).

    Both positives stand in one sum, so the loss never falls below log 2; where all cosines are
    equal it is log(B + 1). Of several scales it is the mean over scales: a cosine of all their
    codes together would be something else. Raises ValueError for fewer than two images.
    """
    B = len(pred_BBn)
    if B < 2 or pred_BBn.shape[1] != B:
        raise ValueError(f"predictions of {tuple(pred_BBn.shape[:2])} pairs: give B x B, B >= 2")
    # float32: of bfloat16 a cosine over a small tau would be a step function
    unit_BBn, view_Bn, target_Bn = (
        F.normalize(part.float(), dim=-1) for part in (pred_BBn, view_Bn, target_Bn)
    )
    anchor_Bn = unit_BBn.diagonal(dim1=0, dim2=1).T
    others_BB = (anchor_Bn[:, None] * unit_BBn).sum(-1) / tau
    view_B, target_B = ((anchor_Bn * one).sum(-1) / tau for one in (view_Bn, target_Bn))
    # an anchor is no negative of its own: the view takes its place
    own_BB = torch.eye(B, dtype=torch.bool, device=others_BB.device)
    terms_BB = torch.where(own_BB, view_B[:, None], others_BB)
    log_sum_B = torch.cat((terms_BB, target_B[:, None]), 1).logsumexp(1)
    return (log_sum_B - (view_B + target_B) / 2).mean()


def row_contrast(scores_BB: torch.Tensor) -> torch.Tensor:
    """How unlikely each image's own condition is among all of the batch, -log softmax of a row of
    `pair_scores` (the posterior of A-VARC, arXiv 2510.12060), mean in nats."""
    own_B = torch.arange(len(scores_BB), device=scores_BB.device)
    return F.cross_entropy(scores_BB.float(), own_B)


def info_nce(a_BZ: torch.Tensor, b_BZ: torch.Tensor, tau: float) -> torch.Tensor:
    """InfoNCE of two views by cosine over tau, both ways (CPC, arXiv 1807.03748, equation 4)."""
    cosine_BB = F.normalize(a_BZ.float(), dim=-1) @ F.normalize(b_BZ.float(), dim=-1).T
    return (row_contrast(cosine_BB / tau) + row_contrast(cosine_BB.T / tau)) / 2


class Conflict(NamedTuple):
    """Whether two losses pull one way (DCR, arXiv 2603.04803): the cosine of their gradients, 0
    where one of them is zero, and the gradients of their sum."""

    cosine: float
    gradients: list[torch.Tensor]


def conflict(
    loss_a: torch.Tensor, loss_b: torch.Tensor, parameters: Iterable[nn.Parameter]
) -> Conflict:
    """Compare the gradients of two losses (DCR, arXiv 2603.04803, conflicting gradients)."""
    weights = list(parameters)
    first, second = (_gradients(loss, weights) for loss in (loss_a, loss_b))
    dot, lengths = _dot(first, second), (_dot(first, first), _dot(second, second))
    length = math.sqrt(lengths[0] * lengths[1])
    return Conflict(dot / length if length else 0.0, [x + y for x, y in zip(first, second)])


def _dot(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    """Product of two lists of gradients, summed in float64."""
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(left, right))


def _gradients(loss: torch.Tensor, weights: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    """Gradients of a loss, zero where a weight plays no part."""
    grads = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(w) if grad is None else grad for w, grad in zip(weights, grads)]
