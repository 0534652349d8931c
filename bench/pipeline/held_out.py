"""Losses of a scale transformer on a split that it is not trained on.

In one pass, in any order, and masked as in training.
The processes of a run share the images of a split; each gets the sums of all.

B images of a batch, N of the split, L tokens of all scales, K scales, V codes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from srdd.corruption import hidden_within_scales
from srdd.loss import any_order_masks, any_order_shares, mask_shares, token_losses
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.quantizer import Ladder

from ..runtime.ranks import Ranks

# of one batch: its logits are held whole, 0.5 GB at 4 096 codes
EVAL_TOKENS = 2**15


@dataclass(frozen=True)
class HeldOut:
    """A split whose losses are measured, and by whom.

    name: of the split, which the masks follow from; tokens_NL: integers; labels_N: int64; ladder:
    as the model reads it.
    """

    name: str
    tokens_NL: np.ndarray
    labels_N: np.ndarray
    ladder: Ladder
    device: torch.device
    ranks: Ranks

    def __len__(self) -> int:
        return len(self.labels_N)

    def some(self, rows_N: np.ndarray) -> HeldOut:
        """Chosen images of the split."""
        chosen = self.tokens_NL[rows_N], self.labels_N[rows_N]
        return HeldOut(self.name, *chosen, self.ladder, self.device, self.ranks)

    def told(self, rows: slice) -> dict[str, torch.Tensor]:
        """What else the network is told of some images, by the name of its argument."""
        return {}


class OnePassLoss(NamedTuple):
    """Cross-entropy of one pass in nats a token, over all scales and by scale; share of right
    tokens."""

    mean: float
    by_scale: list[float]
    accuracy: list[float]


class AnyOrderLoss(NamedTuple):
    """The any-order bound in nats a token, over all scales and by scale."""

    mean: float
    by_scale: list[float]


class MaskedSums(NamedTuple):
    """Sum over a split of weight times -log p of each token, float64 by scale (K,), and the sum of
    the weights."""

    by_scale_K: torch.Tensor
    weight: float


class Predicted(NamedTuple):
    """What the network makes of some images of a split, and the own tokens that it was told, on the
    CPU."""

    logits_BLV: torch.Tensor
    tokens_BL: torch.Tensor
    own_BL: torch.Tensor | None


def predictions(
    model: ScaleTransformer, data: HeldOut, hidden_NL: torch.Tensor | None = None
) -> Iterator[Predicted]:
    """This process's part of a split, batch by batch.

    hidden_NL: own tokens that are masked, the others are revealed; None: all are masked.
    """
    mine = data.ranks.rows(len(data))
    batch = max(1, EVAL_TOKENS // model.schedule.seq_len)
    for i in range(mine.start, mine.stop, batch):
        rows = slice(i, min(i + batch, mine.stop))
        tokens_BL = torch.from_numpy(data.tokens_NL[rows].astype(np.int64))
        labels_B = torch.from_numpy(data.labels_N[rows]).to(data.device)
        own_BL, told = None, data.told(rows)
        if hidden_NL is not None:
            own_BL = tokens_BL.masked_fill(hidden_NL[rows], model.config.codebook_size)
            told["own_BL"] = own_BL.to(data.device)
        tokens_BL = tokens_BL.to(data.device)
        inputs_BLC = data.ladder.teacher_forced_inputs(tokens_BL)
        logits_BLV = model(inputs_BLC, labels_B, **told)
        yield Predicted(logits_BLV, tokens_BL, own_BL)


@torch.no_grad()
def one_pass_loss(model: ScaleTransformer, data: HeldOut) -> OnePassLoss:
    """Cross-entropy of one pass (VAR, arXiv 2404.02905, equation 5) and token accuracy; classes are
    given, none is dropped."""
    schedule = model.schedule
    sums_2K = torch.zeros(2, schedule.num_scales, dtype=torch.float64, device=data.device)
    for logits_BLV, tokens_BL, _ in predictions(model, data):
        right_BL = (logits_BLV.argmax(-1) == tokens_BL).float()
        both_2BL = torch.stack((token_losses(logits_BLV, tokens_BL), right_BL))
        by_scale = [
            both_2BL[..., piece].sum((1, 2), dtype=torch.float64) for piece in schedule.slices
        ]
        sums_2K += torch.stack(by_scale, 1)
    sums_2K = data.ranks.total(sums_2K.cpu())
    losses_K, accuracy_K = (sums_2K / (len(data) * torch.tensor(schedule.lengths))).tolist()
    return OnePassLoss(
        sums_2K[0].sum().item() / (len(data) * schedule.seq_len), losses_K, accuracy_K
    )


@torch.no_grad()
def masked_sums(
    model: ScaleTransformer,
    data: HeldOut,
    hidden_NL: torch.Tensor,
    weigh: Callable[[torch.Tensor], torch.Tensor],
) -> MaskedSums:
    """Sums over a split whose own tokens are revealed except hidden ones.

    weigh: gives the weights of some images, float32 (B, L), from their own_BL, V where hidden, on
    the CPU as in a step. Weights of a whole split would take as much memory as its tokens.
    """
    pieces = model.schedule.slices
    sums_K = torch.zeros(len(pieces), dtype=torch.float64, device=data.device)
    weight = 0.0
    for logits_BLV, tokens_BL, own_BL in predictions(model, data, hidden_NL):
        assert own_BL is not None
        share_BL = weigh(own_BL)
        weight += share_BL.sum(dtype=torch.float64).item()
        weighted_BL = token_losses(logits_BLV, tokens_BL) * share_BL.to(data.device)
        sums_K += torch.stack([weighted_BL[:, piece].sum(dtype=torch.float64) for piece in pieces])
    both = data.ranks.total(torch.cat([sums_K.cpu(), torch.tensor([weight], dtype=torch.float64)]))
    return MaskedSums(both[:-1], both[-1].item())


def any_order_sums(model: ScaleTransformer, data: HeldOut, draw: int) -> torch.Tensor:
    """Sum over a split of what one draw of masks says of each token in the any-order bound (ARDM,
    arXiv 2110.02037, equation 5), by scale, float64 (K,)."""
    schedule, V = model.schedule, model.config.codebook_size
    hidden_NL = any_order_masks(schedule, len(data), generator("any order", data.name, draw))
    return masked_sums(
        model, data, hidden_NL, lambda own_BL: any_order_shares(own_BL == V, schedule)
    ).by_scale_K


def any_order_loss(model: ScaleTransformer, data: HeldOut, draws: int) -> AnyOrderLoss:
    """The any-order bound on -log p of a split's tokens (ARDM, arXiv 2110.02037, equation 5, inside
    each scale).

    Of a scale's l tokens m are hidden, uniform in 1 ... l, and weigh l/m. draws: of masks for each
    image; they follow from split, draw, schedule and number of images, so that all models see the
    same.
    """
    schedule, N = model.schedule, len(data)
    sums_K = torch.zeros(schedule.num_scales, dtype=torch.float64)
    for draw in range(draws):
        sums_K += any_order_sums(model, data, draw)
    losses_K = sums_K / (draws * N * torch.tensor(schedule.lengths))
    return AnyOrderLoss(sums_K.sum().item() / (draws * N * schedule.seq_len), losses_K.tolist())


def drawn_loss(model: ScaleTransformer, data: HeldOut, weight: str, draws: int) -> float:
    """The loss of a training with masks on a split (MaskGIT, arXiv 2202.04200, equation 1, with
    weights), nats a token.

    weight: name of the rule, but elbo, of which `any_order_loss` measures the mean; masks are drawn
    as in a step, but fixed, `draws` for each image.
    """
    schedule, V, mask_prob = model.schedule, model.config.codebook_size, model.config.mask_prob
    total, weights = 0.0, 0.0
    for draw in range(draws):
        source = generator("held-out masks", data.name, draw)
        hidden_NL = hidden_within_scales(len(data), schedule, mask_prob, source)
        sums_K, part = masked_sums(
            model,
            data,
            hidden_NL,
            lambda own_BL: mask_shares(weight, own_BL, schedule, V, mask_prob)[0],
        )
        total += sums_K.sum().item()
        weights += part
    return total / (weights or 1.0)
