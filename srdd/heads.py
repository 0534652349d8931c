"""Heads of the scale transformer: what is predicted of each token, `head_<name>(config)`.

B batch, l tokens of one scale, L of all, V codebook, C latent channels, D width, K scales, c bits
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import nn

from .config import ModelConfig
from .contracts import shape_of
from .linear import Linear, in_full
from .lookup import find, function_name, is_own


def affine(head: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """weight_VD and bias_V of a head of codes, whose logits are W x + b (VAR, arXiv 2404.02905,
    section 3.3): what losses and guidance take it for."""
    weight_VD, bias_V = head.weight, head.bias
    assert isinstance(weight_VD, torch.Tensor) and isinstance(bias_V, torch.Tensor)
    return weight_VD, bias_V


def code_bits(codebook_size: int) -> torch.Tensor:
    """The bits of every index of 2^c codes, the most significant one first (bitwise tokens: arXiv
    2412.04431). Returns float32 (V, c)."""
    c = codebook_size.bit_length() - 1
    place_c = torch.arange(c - 1, -1, -1)
    return (torch.arange(codebook_size)[:, None] >> place_c & 1).float()


class BitsHead(nn.Module):
    """A logit for each bit of a code's index, the bits independent given the state (arXiv
    2412.04431, section 3.2): z_Blc = W x, logits_BlV = z_Blc bits_Vc^T.

    The softmax of these logits is the product of the bits' sigmoids, and its cross-entropy the sum
    of theirs: a softmax head of rank c with fixed codes of output. weight and bias are its own as
    if it were one.
    """

    bits_Vc: torch.Tensor

    def __init__(self, width: int, codebook_size: int) -> None:
        super().__init__()
        bits_Vc = code_bits(codebook_size)
        # follows from V: no weight
        self.register_buffer("bits_Vc", bits_Vc, persistent=False)
        self.bits = Linear(width, bits_Vc.shape[1])

    @property
    def weight(self) -> torch.Tensor:
        """That of the same head as one linear layer (arXiv 2412.04431), weight_VD."""
        return self.bits_Vc @ self.bits.weight

    @property
    def bias(self) -> torch.Tensor:
        """That of the same head as one linear layer (arXiv 2412.04431), bias_V."""
        return self.bits_Vc @ self.bits.bias

    def forward(self, x_BlD: torch.Tensor) -> torch.Tensor:
        """Logits of all codes, (B, l, V), each a sum over its bits (Infinity, arXiv 2412.04431)."""
        return F.linear(self.bits(x_BlD), self.bits_Vc)


class GaussHead(nn.Module):
    """The mean of the residual that a token stands for, mean_BlC (regression head of arXiv
    2510.02826).

    sigma_KC: root mean square of what the kept weights leave of the training residuals, by scale
    and channel, which the sampler draws with; 1 until it is measured. Computes in the precision of
    its weights: in bfloat16 a mean could not come nearer to a residual than its three digits.
    """

    sigma_KC: torch.Tensor

    def __init__(self, width: int, channels: int, num_scales: int) -> None:
        super().__init__()
        self.mean = Linear(width, channels)
        self.register_buffer("sigma_KC", torch.ones(num_scales, channels))

    def forward(self, x_BlD: torch.Tensor) -> torch.Tensor:
        """The mean of the residual, (B, l, C) (regression head of arXiv 2510.02826)."""
        with in_full(x_BlD):
            mean_BlC: torch.Tensor = self.mean(x_BlD.to(self.sigma_KC.dtype))
        return mean_BlC


def head_softmax(config: ModelConfig) -> nn.Module:
    """A logit for each code (VAR, arXiv 2404.02905, section 3.2)."""
    return Linear(config.width, config.codebook_size)


def head_bits(config: ModelConfig) -> nn.Module:
    """A logit for each bit of a code's index (arXiv 2412.04431): log2 V outputs instead of V."""
    return BitsHead(config.width, config.codebook_size)


def head_gauss(config: ModelConfig) -> nn.Module:
    """The residual itself by regression (arXiv 2510.02826), whose squared error is a Gaussian
    likelihood."""
    return GaussHead(config.width, config.codebook_dim, config.schedule.num_scales)


def _check_head(head: object, config: ModelConfig, who: str) -> None:
    """Refuse what is no affine layer from the width to the codes: losses and guidance use it so."""
    V, D = config.codebook_size, config.width
    wanted = {"weight": (V, D), "bias": (V,)}
    for key, shape in wanted.items():
        value = getattr(head, key, None)
        if not isinstance(head, nn.Module) or getattr(value, "shape", None) != shape:
            raise ValueError(
                f"{who}: {key} {shape_of(value)}; must be a module whose output is affine, with "
                f"weight {wanted['weight']} and bias {wanted['bias']}"
            )


def named_head(config: ModelConfig) -> nn.Module:
    """The head of `head_<name>` (arXiv 2510.02826) that `config` names; one of one's own is
    checked. Raises ValueError for an unknown name, and for a module that is no head."""
    head: nn.Module = find(sys.modules[__name__], "head", config.head)(config)
    if is_own("head", config.head):
        _check_head(head, config, function_name("head", config.head))
    return head
