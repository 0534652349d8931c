"""Losses: of the scale transformer, as one number and scale by scale, and of the tokenizer.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from .contracts import ask_weigh
from .heads import affine
from .linear import by_onednn, outer, product
from .lookup import find, function_name, is_own
from .schedule import ScaleSchedule
from .tokenizer import Tokenizer


def next_scale_cross_entropy(logits_BLV: torch.Tensor, tokens_BL: torch.Tensor) -> torch.Tensor:
    """Mean of -log p(token) over images and the tokens of all scales (VAR, arXiv 2404.02905,
    equation 5), in nats."""
    return F.cross_entropy(logits_BLV.flatten(0, 1).float(), tokens_BL.flatten())


class _LinearCrossEntropy(torch.autograd.Function):
    """Head and cross-entropy in one, rows in chunks: the logits of all tokens (44 MB at V = 4096, L
    = 680, batch 4) and two more tensors of their size are never held. The gradient is made on the
    way forward, while a chunk's probabilities are in the cache."""

    # logits of a chunk: on a CPU so few that they stay in its caches, on a GPU so many that they
    # fill it
    LOGITS = {"cpu": 2**21, "cuda": 2**26}

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor,
        tokens_N: torch.Tensor,
        share_N: torch.Tensor | None,
        count: float,
    ) -> torch.Tensor:
        """Sum of -log p over count (VAR, arXiv 2404.02905, equation 5), nats; share_N: weight of
        each token, None for 1."""
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        grad_ND = torch.empty_like(hidden_ND)
        grad_VD: torch.Tensor | None = None
        grad_V: torch.Tensor | None = None
        fast = by_onednn(hidden_ND, weight_VD)
        # the same memory for every chunk: fresh pages cost more than what is computed in them
        logits = _LinearCrossEntropy.LOGITS.get(hidden_ND.device.type, 2**21)
        most = max(1, logits // len(weight_VD))
        shape = min(len(hidden_ND), most), len(weight_VD)
        logs = hidden_ND.new_empty(shape, dtype=torch.float32)
        # oneDNN returns a tensor of its own
        out_nV = None if fast else hidden_ND.new_empty(shape)
        for begin in range(0, len(tokens_N), most):
            rows = slice(begin, begin + most)
            x_nD, token_n1 = hidden_ND[rows], tokens_N[rows, None]
            if out_nV is None:
                logits_nV = product(x_nD, weight_VD, bias_V)
            else:
                logits_nV = torch.addmm(bias_V, x_nD, weight_VD.T, out=out_nV[: len(x_nD)]).float()
            logp_nV = torch.log_softmax(logits_nV, 1, out=logs[: len(x_nD)])
            loss_n1 = -logp_nV.gather(1, token_n1)
            share_nV = logp_nV.exp_()
            # d loss / d z = p - one_hot(a)
            share_nV.scatter_add_(1, token_n1, torch.full_like(loss_n1, -1.0))
            if share_N is not None:
                loss_n1 = loss_n1 * share_N[rows, None]
                share_nV.mul_(share_N[rows, None])
            total += loss_n1.sum()
            # z = W x + b: d/dx = (p - e) W, d/dW = (p - e)^T x, d/db = sum (p - e)
            one_V, share_nV = share_nV.sum(0), share_nV.to(x_nD.dtype)
            if fast:
                grad_ND[rows] = product(share_nV, weight_VD.T)
                one_VD = outer(share_nV, x_nD)
            else:
                torch.mm(share_nV, weight_VD, out=grad_ND[rows])
                one_VD = share_nV.T @ x_nD
            # of half precision: summed in float32
            grad_VD = one_VD.float() if grad_VD is None else grad_VD.add_(one_VD)
            grad_V = one_V if grad_V is None else grad_V.add_(one_V)
        if grad_VD is None or grad_V is None:  # no token
            grad_VD, grad_V = torch.zeros_like(weight_VD), torch.zeros_like(bias_V)
        ctx.save_for_backward(grad_ND, grad_VD.to(weight_VD.dtype), grad_V.to(bias_V.dtype))
        ctx.count = count
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients that the way forward made, scaled."""
        return *(saved * (grad / ctx.count) for saved in ctx.saved_tensors), None, None, None


def linear_cross_entropy(
    hidden_BLD: torch.Tensor,
    head: torch.nn.Module,
    tokens_BL: torch.Tensor,
    share_BL: torch.Tensor | None = None,
    total: float | None = None,
) -> torch.Tensor:
    """`next_scale_cross_entropy(head(hidden), tokens)` (VAR, equation 5) without ever holding all
    logits, in nats.

    share_BL: weight of each token in the mean, or bool, the tokens whose mean is taken (the masked
    ones: MaskGIT, arXiv 2202.04200, equation 1); None for all. The mean of no token is 0. total:
    what the weighted sum is divided by, the weights of the whole batch where this is a part of it:
    what the parts return then sums to the mean of the whole; None: the sum of these weights.
    """
    hidden_ND = hidden_BLD.flatten(0, 1)
    weight_VD, bias_V = affine(head)
    if torch.is_autocast_enabled(hidden_ND.device.type):
        dtype = torch.get_autocast_dtype(hidden_ND.device.type)
        hidden_ND, weight_VD, bias_V = hidden_ND.to(dtype), weight_VD.to(dtype), bias_V.to(dtype)
    with torch.autocast(hidden_ND.device.type, enabled=False):
        # total 0: no token counts, and the sum that is divided is 0
        count, share_N = tokens_BL.numel() if total is None else total or 1, None
        if share_BL is not None:
            # a mean over some, as a weighted mean over all: no shape depends on the data
            share_N = share_BL.flatten().float()
            if total is None:
                weight = share_N.sum()
                share_N = share_N * (count / weight.masked_fill(weight == 0, 1.0))
        given = hidden_ND, weight_VD, bias_V, tokens_BL.flatten(), share_N, count
        loss: torch.Tensor = _LinearCrossEntropy.apply(*given)  # type: ignore[no-untyped-call]
        return loss


def regression_errors(mean_BLC: torch.Tensor, residual_BLC: torch.Tensor) -> torch.Tensor:
    """Squared error of each predicted residual, mean over channels (regression head of arXiv
    2510.02826; half of it over sigma^2 is a Gaussian's -log p but for a constant). Returns float32
    (B, L)."""
    return (mean_BLC.float() - residual_BLC.float()).square().mean(-1)


# ---------------------------------------------------------------- weights of masked tokens


def hidden_counts(hidden_BL: torch.Tensor, schedule: ScaleSchedule) -> torch.Tensor:
    """How many tokens are hidden at each token's scale: m of ARDM (arXiv 2110.02037, equation 5),
    int64 (B, L)."""
    counts = [
        hidden_BL[:, piece].sum(1, keepdim=True).expand(-1, n)
        for piece, n in zip(schedule.slices, schedule.lengths)
    ]
    return torch.cat(counts, 1)


def weigh_count(
    own_BL: torch.Tensor, schedule: ScaleSchedule, codebook_size: int, mask_prob: float
) -> torch.Tensor:
    """1 for every masked token (MaskGIT, arXiv 2202.04200, equation 1). own_BL: V where masked;
    returns float32 (B, L)."""
    return (own_BL == codebook_size).float()


def weigh_elbo(
    own_BL: torch.Tensor, schedule: ScaleSchedule, codebook_size: int, mask_prob: float
) -> torch.Tensor:
    """(l + 1)/m for each of the m masked of a scale's l tokens (SDAR's 1/p, arXiv 2510.06303, with
    p integrated out), float32 (B, L).

    `mask_within_scales` with mask_prob 1 gives m uniform in 0 ... l. The weighted sum over all
    tokens then has the any-order bound of `any_order_shares` as its mean. mask_prob q < 1 adds
    draws with m = l, one in 1 - q: weighed so that the mean is (1 - q) times the one-pass loss plus
    q times the bound. The weight of every token is 1 on average.
    """
    hidden_BL = own_BL == codebook_size
    m_BL = hidden_counts(hidden_BL, schedule)
    lengths_K = torch.tensor(schedule.lengths, device=own_BL.device)
    l_L = lengths_K.repeat_interleave(lengths_K).float()
    # how often m is l: wanted (1 - q) + q/l, drawn (1 - q) + q/(l + 1)
    whole_L = (1 - mask_prob + mask_prob / l_L) / (1 - mask_prob + mask_prob / (l_L + 1))
    share_BL = torch.where(m_BL == l_L, whole_L, (l_L + 1) / m_BL.clamp(min=1))
    return share_BL * hidden_BL


def mask_shares(
    name: str, own_BL: torch.Tensor, schedule: ScaleSchedule, codebook_size: int, mask_prob: float
) -> tuple[torch.Tensor, float]:
    """Weight of each token, float32 (B, L), by `weigh_<name>`, and what the weighted sum of losses
    is divided by (MaskGIT, arXiv 2202.04200, equation 1; SDAR, arXiv 2510.06303).

    own_BL: the whole batch, V where masked. Divided by the sum of the weights: a weighted mean. The
    weights of `elbo` are 1 on average, so that it is divided by the number of tokens: nothing else
    gives the bound on average at every batch size. Raises ValueError for an unknown name, or a
    function of one's own that returns anything else.
    """
    weigh = find(sys.modules[__name__], "weigh", name)
    asked = own_BL, schedule, codebook_size, mask_prob
    if is_own("weigh", name):
        share_BL = ask_weigh(weigh, function_name("weigh", name), *asked)
    else:
        share_BL = weigh(*asked)
    if name == "elbo":
        # a ratio of two random sums would be a biased estimate of the bound
        return share_BL, float(own_BL.numel())
    return share_BL, share_BL.sum(dtype=torch.float64).item()


RANKED = 2**18  # random numbers that are ranked at once; 8 bytes each, twice


def random_sets(m_N1: torch.Tensor, length: int, generator: torch.Generator) -> torch.Tensor:
    """A random set of m of a scale's l tokens for each image (ARDM, arXiv 2110.02037, equation 5),
    bool (N, l).

    m_N1: integers (N, 1). The sets do not depend on how many images are ranked at once.
    """
    sets = [
        # ranks of random numbers below m
        torch.rand(len(m_B1), length, generator=generator).argsort(1).argsort(1) < m_B1
        for m_B1 in m_N1.split(max(1, RANKED // length))
    ]
    return torch.cat(sets)


def any_order_masks(
    schedule: ScaleSchedule, count: int, generator: torch.Generator
) -> torch.Tensor:
    """Tokens to hide for the any-order bound (ARDM, arXiv 2110.02037, equation 5), bool (count, L).

    At every scale of l tokens m of them, a random set; m is uniform in 1 ... l for each image and
    stratified over the images.
    """
    masks = []
    for length in schedule.lengths:
        order_N = torch.randperm(count, generator=generator).double()
        # one shared offset in [0, 1): places are stratified over the images and each is uniform
        place_N = order_N + torch.rand(1, generator=generator).double()
        m_N1 = 1 + (place_N * length / max(1, count)).long().clamp(max=length - 1)[:, None]
        masks.append(random_sets(m_N1, length, generator))
    return torch.cat(masks, 1)


def any_order_shares(hidden_BL: torch.Tensor, schedule: ScaleSchedule) -> torch.Tensor:
    """Weights l/m of hidden tokens, 0 of others (ARDM, arXiv 2110.02037, equation 5): with m
    uniform in 1 ... l the mean over a scale's tokens of weight times -log p is on average at least
    its exact -log p, per token. Returns float32 (B, L)."""
    l_L = torch.tensor(schedule.lengths, device=hidden_BL.device)
    return l_L.repeat_interleave(l_L) / hidden_counts(hidden_BL, schedule).clamp(min=1) * hidden_BL


# ---------------------------------------------------------------- token by token


def token_losses(logits_BLV: torch.Tensor, tokens_BL: torch.Tensor) -> torch.Tensor:
    """-log p(token) of each token (VAR, equation 5), in nats. Returns (B, L)."""
    logits_NV = logits_BLV.flatten(0, 1).float()
    return F.cross_entropy(logits_NV, tokens_BL.flatten(), reduction="none").view_as(tokens_BL)


def by_scale(values_BL: torch.Tensor, schedule: ScaleSchedule) -> torch.Tensor:
    """Mean over images and the tokens of each scale of a per-token quantity (VAR, section 3.2).
    Returns (K,)."""
    return torch.stack([values_BL[:, piece].double().mean() for piece in schedule.slices])


# ---------------------------------------------------------------- of classes


def cca_loss(
    logp_2B: torch.Tensor,
    ref_2B: torch.Tensor,
    positive_2B: torch.Tensor,
    beta: float,
    lambda_: float,
) -> torch.Tensor:
    """Condition contrastive alignment (arXiv 2410.09347): more likely than the reference says under
    an image's own class, less likely under another.

    logp_2B, ref_2B: log p(image | class) of the model and of the frozen reference, each image under
    two classes, summed over tokens, nats. positive_2B: bool, whether a row's class is one to learn;
    the others weigh lambda_. Mean over images of the sum of both rows, divided by the larger of
    lambda_ and 1. No gradient flows into the reference.
    """
    reward_2B = beta * (logp_2B - ref_2B.detach())
    likely_2B = F.logsigmoid(torch.where(positive_2B, reward_2B, -reward_2B))
    weight_2B = torch.where(positive_2B, 1.0, lambda_)
    return -(weight_2B * likely_2B).mean(1).sum() / max(lambda_, 1.0)


@dataclass(frozen=True)
class TokenizerLoss:
    """Loss of one batch and what the trainer watches: residuals and tokens of each scale,
    detached; the reconstructed images, which further losses may judge."""

    total: torch.Tensor
    reconstruction: torch.Tensor
    quantisation: torch.Tensor
    residuals: list[torch.Tensor]
    tokens: list[torch.Tensor]
    images: torch.Tensor


def _whole(values: torch.Tensor) -> torch.Tensor:
    """The mean of a whole batch, of which these are all images."""
    return values


def usage_entropy(
    residual_BlC: torch.Tensor,
    codebook_VC: torch.Tensor,
    of_batch: Callable[[torch.Tensor], torch.Tensor] = _whole,
) -> torch.Tensor:
    """Entropy of the mean soft assignment to codes over log V (after MAGVIT-v2, arXiv 2310.05737,
    equation 4): 1 when all codes serve.

    Assignments are softmax(-squared distance / its mean), so that no temperature has to be tuned to
    the size of the latent. of_batch: the mean of a whole batch, given that of these images, where
    they are a part of it. Raises ValueError for a single code, which has no entropy to compare
    with.
    """
    if len(codebook_VC) < 2:
        raise ValueError(f"codebook of {len(codebook_VC)} code: usage needs 2 or more")
    x_NC = residual_BlC.flatten(0, 1)
    # |x - e|^2 expanded: the gradient of a distance is not finite where it is zero
    squares_NV = x_NC.square().sum(1, keepdim=True) + codebook_VC.square().sum(1)
    distance_NV = (squares_NV - 2 * x_NC @ codebook_VC.T).clamp(min=0)
    # the mean distance to the nearest code is the temperature; no gradient may shrink it
    scale = of_batch(distance_NV.detach().min(1).values.mean()).clamp(min=1e-8)
    share_V = of_batch((-distance_NV / scale).softmax(1).mean(0))
    entropy = -(share_V * (share_V + 1e-9).log()).sum()
    return entropy / torch.log(torch.tensor(float(len(codebook_VC))))


def tokenizer_loss(
    tokenizer: Tokenizer,
    images: torch.Tensor,
    schedule: ScaleSchedule,
    commitment: float = 0.25,
    entropy: float = 0.0,
    of_batch: Callable[[torch.Tensor], torch.Tensor] = _whole,
) -> TokenizerLoss:
    """Reconstruction error plus, averaged over scales, ||f_hat - sg f||^2 + commitment ||sg f_hat -
    f||^2 (VQ-VAE, arXiv 1711.00937, equation 3, on VAR's accumulated f_hat), with a
    straight-through gradient to the encoder.

    images: float in [-1, 1]. schedule: the scales of this step, a subset when scales are dropped.
    of_batch: as `usage_entropy` takes it; all else are means over these images.
    """
    latent_BChw = tokenizer.to_latent(images)
    quantisation, spread = latent_BChw.new_zeros(()), latent_BChw.new_zeros(())
    residuals, tokens = [], []
    f_hat_BChw = latent_BChw
    ladder = tokenizer.at(schedule)
    before_BChw = torch.zeros_like(latent_BChw)
    for k, (residual_BlC, tokens_Bl, f_hat_BChw) in enumerate(ladder.quantize(latent_BChw)):
        # ||f_hat - sg f||^2 moves codes and phi, ||sg f_hat - f||^2 the encoder
        quantisation = quantisation + F.mse_loss(f_hat_BChw, latent_BChw.detach())
        quantisation = quantisation + commitment * F.mse_loss(latent_BChw, f_hat_BChw.detach())
        if entropy:
            # the residual once more, with a gradient: that of `quantize` is cut off
            live_BlC = ladder.rest(latent_BChw, before_BChw, k)
            codebook_VC = tokenizer.quantizer.codebook_VC
            spread = spread + usage_entropy(live_BlC, codebook_VC, of_batch)
        before_BChw = f_hat_BChw.detach()
        residuals.append(residual_BlC)
        tokens.append(tokens_Bl)
    quantisation = quantisation / schedule.num_scales
    # straight-through: forward f_hat, backward as if it were f (VQ-VAE, section 3.2)
    straight_BChw = latent_BChw + (f_hat_BChw - latent_BChw).detach()
    reconstructed = tokenizer.to_image(straight_BChw)
    reconstruction = F.mse_loss(reconstructed, images)
    total = reconstruction + quantisation - entropy * spread / schedule.num_scales
    watched = reconstruction.detach(), quantisation.detach(), residuals, tokens
    return TokenizerLoss(total, *watched, reconstructed)


def perceptual_distance(
    stages: Sequence[torch.Tensor],
    wanted: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Distance of two batches in the activations of a network (LPIPS, arXiv 1801.03924, equation
    1): squared distance of channel-normalised activations, weighted by channel, mean over places
    and images, summed over stages.

    stages, wanted: (B, C, h, w) of each stage; weights: (C,) of each, None for all 1. Raises
    ValueError for other numbers of stages.
    """
    total = stages[0].new_zeros(())
    for i, (one_BChw, other_BChw) in enumerate(zip(stages, wanted, strict=True)):
        difference_BChw = F.normalize(one_BChw, eps=1e-10) - F.normalize(other_BChw, eps=1e-10)
        squares_BChw = difference_BChw.square()
        if weights is not None:
            squares_BChw = squares_BChw * weights[i][:, None, None]
        total = total + squares_BChw.sum(1).mean()
    return total
