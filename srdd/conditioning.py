"""The degraded image that a model restores, as the network sees it (RestoreVAR, arXiv 2505.18047).

B batch, L tokens of all scales, l of one scale, C latent channels, D width, H heads, h w latent
grid, M = h w cells of it
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from .config import ModelConfig
from .noise import truncated_normal_
from .quantizer import Ladder
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from .model import ScaleTransformer

LARGEST = math.log(100.0)  # of a head's scale, as in self-attention


@torch.no_grad()
def condition_latent(
    condition: str, tokenizer: Tokenizer, ladder: Ladder, images_BCHW: torch.Tensor
) -> torch.Tensor:
    """What a model of `model.condition` is told of degraded images in [-1, 1], degraded_BChw: their
    latent, or with `tokens` the state of their own tokens (RestoreVAR's discrete ablation, arXiv
    2505.18047)."""
    latent_BChw = tokenizer.to_latent(images_BCHW)
    return ladder.encode(latent_BChw)[1] if condition == "tokens" else latent_BChw


def _normed(layer: nn.LayerNorm, x_BlD: torch.Tensor) -> torch.Tensor:
    """A norm in float32, also of half weights, which the layer itself cannot mix with float32."""
    weight_D, bias_D = layer.weight.float(), layer.bias.float()
    return F.layer_norm(x_BlD.float(), layer.normalized_shape, weight_D, bias_D, layer.eps)


class CrossAttention(nn.Module):
    """Attention of a block's tokens to the cells of a degraded image, behind a gain that starts at
    0 (RestoreVAR, arXiv 2505.18047): normalised queries and keys, no bias in their projections."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, self.heads = config.width, config.heads
        self.qk_norm, self.head_dim = config.qk_norm, D // config.heads
        self.query_norm, self.key_norm = nn.LayerNorm(D), nn.LayerNorm(D)
        self.query = nn.Linear(D, D, bias=False)
        self.key_value = nn.Linear(D, 2 * D, bias=False)
        if config.qk_norm:
            self.head_log_scale = nn.Parameter(torch.full((config.heads, 1, 1), math.log(4.0)))
        self.out = nn.Linear(D, D)
        self.gain = nn.Parameter(torch.zeros(1))

    def _split(self, x_BlD: torch.Tensor) -> torch.Tensor:
        split_BHld: torch.Tensor = x_BlD.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        return split_BHld

    def keys(self, cells_BMD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of an image's cells (RestoreVAR, arXiv 2505.18047), each (B, H, M, D/H):
        once for all scales."""
        key_BMD, value_BMD = self.key_value(_normed(self.key_norm, cells_BMD)).chunk(2, -1)
        key, value = self._split(key_BMD), self._split(value_BMD)
        return (F.normalize(key, dim=-1) if self.qk_norm else key), value

    def forward(self, x_BlD: torch.Tensor, keys: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The tokens plus what they see of the image. Shape is kept."""
        query, scale = self._split(self.query(_normed(self.query_norm, x_BlD))), self.head_dim**-0.5
        key, value = keys
        if self.qk_norm:
            query = F.normalize(query, dim=-1) * self.head_log_scale.clamp(max=LARGEST).exp()
            scale = 1.0
        seen = F.scaled_dot_product_attention(
            query.to(value.dtype), key.to(value.dtype), value, scale=scale
        )
        seen_BlD: torch.Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return x_BlD + self.gain * seen_BlD


@dataclass(frozen=True)
class Condition:
    """What enters the network of a batch of degraded images, computed once for all scales and
    passes.

    added_BnD: added to the embeddings of the first n tokens, those of all scales or of scale 0.
    cross: the attention behind each block with its keys and values, or none.
    """

    added_BnD: torch.Tensor
    cross: tuple[tuple[CrossAttention, tuple[torch.Tensor, torch.Tensor]], ...] = ()

    def enter(self, x_BlD: torch.Tensor, where: slice) -> torch.Tensor:
        """Embeddings of the tokens at `where` and what is added there. Shape is kept."""
        added_BmD = self.added_BnD[:, where.start : where.stop]
        count = added_BmD.shape[1]
        if count == x_BlD.shape[1]:
            return x_BlD + added_BmD
        if not count:
            return x_BlD
        return torch.cat((x_BlD[:, :count] + added_BmD, x_BlD[:, count:]), 1)

    def behind(self, block: int, x_BlD: torch.Tensor) -> torch.Tensor:
        """What leaves a block, after its attention to the image. Shape is kept."""
        if not self.cross:
            return x_BlD
        attention, keys = self.cross[block]
        attended_BlD: torch.Tensor = attention(x_BlD, keys)
        return attended_BlD


class StateCondition(nn.Module):
    """Every scale is told the image as that scale reads it: Linear(read_scale(g, k)), starting at
    0 (ours; no attention and no cache, so that history 0 stays Markov)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sides = config.patch_nums
        self.input = nn.Linear(config.codebook_dim, config.width)

    def init_weights(self, generator: torch.Generator) -> None:
        """Zeros: nothing is drawn, and the model is at first the one without."""
        nn.init.zeros_(self.input.weight)
        nn.init.zeros_(self.input.bias)

    def forward(self, degraded_BChw: torch.Tensor) -> Condition:
        """What the network is told of a batch of degraded images."""
        scales = [F.interpolate(degraded_BChw, (side, side), mode="area") for side in self.sides]
        read_BLC = torch.cat([scale.flatten(2) for scale in scales], 2).transpose(1, 2)
        return Condition(self.input(read_BLC))


class CrossCondition(nn.Module):
    """Every block attends to the cells of the image, after its MLP; their mean is added to the
    start embedding behind a gain (RestoreVAR, arXiv 2505.18047; positions are learned here)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, cells = config.width, config.schedule.latent_size**2
        self.first = config.schedule.lengths[0]
        self.input = nn.Linear(config.codebook_dim, D)
        self.position = nn.Parameter(torch.empty(cells, D))
        self.start_gain = nn.Parameter(torch.zeros(1))
        attentions = nn.ModuleList(CrossAttention(config) for _ in range(config.depth))
        self.attentions: Sequence[CrossAttention] = attentions  # type: ignore[assignment]

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the weights as the model's own; gains are 0, so that it is at first the one
        without."""
        std = math.sqrt(1 / self.position.shape[1] / 3)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                truncated_normal_(module.weight, std, generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        truncated_normal_(self.position, std, generator)

    def forward(self, degraded_BChw: torch.Tensor) -> Condition:
        """What the network is told of a batch of degraded images."""
        cells_BMD = self.input(degraded_BChw.flatten(2).transpose(1, 2)) + self.position
        start_B1D = self.start_gain * cells_BMD.mean(1, keepdim=True)
        cross = tuple((attention, attention.keys(cells_BMD)) for attention in self.attentions)
        return Condition(start_B1D.expand(-1, self.first, -1), cross)


def condition_module(config: ModelConfig) -> StateCondition | CrossCondition | None:
    """What reads the degraded image in a model (RestoreVAR, arXiv 2505.18047); None in a model that
    restores none."""
    if config.condition == "none":
        return None
    return StateCondition(config) if config.condition == "state" else CrossCondition(config)


def conditioned(model: ScaleTransformer, degraded_BChw: torch.Tensor | None) -> Condition | None:
    """What a model is told of degraded images. Raises ValueError where it restores none and some
    are given, where it restores and none are, and for a latent of another shape."""
    if (reader := model.condition) is None:
        if degraded_BChw is not None:
            raise ValueError("degraded images given to a model of condition none; leave them out")
        return None
    if degraded_BChw is None:
        raise ValueError(f"a model of condition {model.config.condition} needs the degraded images")
    side, channels = model.schedule.latent_size, model.config.codebook_dim
    if degraded_BChw.shape[1:] != (channels, side, side):
        raise ValueError(
            f"degraded latent of shape {tuple(degraded_BChw.shape)}: the model's is (B, {channels},"
            f" {side}, {side}); take the tokenizer that it was trained with"
        )
    condition: Condition = reader(degraded_BChw)
    return condition
