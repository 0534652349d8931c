"""The multi-scale VQ-VAE: convolutional encoder and decoder round the quantizer.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .config import TokenizerConfig
from .contracts import check_images, check_tokens, shape_of
from .lookup import find, function_name, is_own
from .quantizer import Ladder, Quantizer
from .schedule import ScaleSchedule


class ResBlock(nn.Module):
    """Two normalised convolutions and a shortcut (VQGAN, arXiv 2012.09841, table 7)."""

    def __init__(self, c_in: int, c_out: int, config: TokenizerConfig) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(config.norm_groups, c_in, eps=1e-6)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(config.norm_groups, c_out, eps=1e-6)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, c_in, h, w) to (B, c_out, h, w) (VQGAN, arXiv 2012.09841, table 7)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        out: torch.Tensor = self.shortcut(x) + h
        return out


class SpatialAttention(nn.Module):
    """Single-head self-attention over the grid (VQGAN, arXiv 2012.09841, table 7)."""

    def __init__(self, channels: int, config: TokenizerConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_groups, channels, eps=1e-6)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, h, w) plus what its places attend to (VQGAN, arXiv 2012.09841, table 7)."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, -1)
        h = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        out: torch.Tensor = self.out(h.unflatten(2, x.shape[2:]))
        return x + out


class Downsample(nn.Module):
    """Halve the side with a strided convolution, padded right and below (VQGAN, arXiv
    2012.09841)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, h, w) to (B, C, h/2, w/2) (VQGAN, arXiv 2012.09841, table 7)."""
        halved: torch.Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return halved


class Upsample(nn.Module):
    """Double the side by nearest neighbour, then a convolution (VQGAN, arXiv 2012.09841)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, h, w) to (B, C, 2h, 2w) (VQGAN, arXiv 2012.09841, table 7)."""
        doubled: torch.Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


def _level(
    c_in: int, c_out: int, blocks: int, attention: bool, config: TokenizerConfig
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i in range(blocks):
        layers.append(ResBlock(c_in if i == 0 else c_out, c_out, config))
        if attention:
            layers.append(SpatialAttention(c_out, config))
    return layers


def _middle(channels: int, config: TokenizerConfig) -> list[nn.Module]:
    attention = [SpatialAttention(channels, config)] if config.attention else []
    return [ResBlock(channels, channels, config), *attention, ResBlock(channels, channels, config)]


def build_encoder(config: TokenizerConfig) -> nn.Sequential:
    """Encoder of VQGAN (arXiv 2012.09841, table 7) in VAR's sizes: (B, in_channels, S, S) to (B, C,
    h, w)."""
    widths = [config.channels * m for m in config.channel_multipliers]
    layers: list[nn.Module] = [nn.Conv2d(config.in_channels, config.channels, 3, padding=1)]
    for i, (c_in, c_out) in enumerate(zip([config.channels, *widths], widths)):
        last = i == len(widths) - 1
        layers += _level(c_in, c_out, config.num_res_blocks, config.attention and last, config)
        layers += [] if last else [Downsample(c_out)]
    layers += _middle(widths[-1], config)
    layers += [nn.GroupNorm(config.norm_groups, widths[-1], eps=1e-6), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], config.codebook_dim, 3, padding=1))


def build_decoder(config: TokenizerConfig) -> nn.Sequential:
    """Decoder of VQGAN (arXiv 2012.09841, table 7) in VAR's sizes: (B, C, h, w) to (B, in_channels,
    S, S)."""
    widths = [config.channels * m for m in config.channel_multipliers][::-1]
    layers: list[nn.Module] = [nn.Conv2d(config.codebook_dim, widths[0], 3, padding=1)]
    layers += _middle(widths[0], config)
    for i, (c_in, c_out) in enumerate(zip([widths[0], *widths], widths)):
        last = i == len(widths) - 1
        layers += _level(
            c_in, c_out, config.num_res_blocks + 1, config.attention and i == 0, config
        )
        layers += [] if last else [Upsample(c_out)]
    layers += [nn.GroupNorm(config.norm_groups, widths[-1], eps=1e-6), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], config.in_channels, 3, padding=1))


class Codec(NamedTuple):
    """What stands between image and latent (VAR, arXiv 2404.02905, section 3.2): encoder, then
    pre_quant; post_quant, then decoder."""

    encoder: nn.Module
    pre_quant: nn.Module
    post_quant: nn.Module
    decoder: nn.Module


def codec_conv(config: TokenizerConfig) -> Codec:
    """Learned convolutions (VQGAN, arXiv 2012.09841, table 7, in VAR's sizes)."""
    C = config.codebook_dim
    pre_quant, post_quant = (nn.Conv2d(C, C, 3, padding=1) for _ in range(2))
    return Codec(build_encoder(config), pre_quant, post_quant, build_decoder(config))


def codec_pixels(config: TokenizerConfig) -> Codec:
    """No codec: the channels of a latent's cell are the pixels of its square, so that codes and phi
    alone are learned (pixel space of arXiv 2510.02826)."""
    cell = config.downsampling
    into, back = nn.PixelUnshuffle(cell), nn.PixelShuffle(cell)
    return Codec(into, nn.Identity(), nn.Identity(), back)


def named_codec(config: TokenizerConfig) -> Codec:
    """The codec of `codec_<name>` (arXiv 2510.02826) that `config` names; one of one's own is
    checked. Raises ValueError for an unknown name, and for what is no codec."""
    codec = find(sys.modules[__name__], "codec", config.codec)(config)
    modules = isinstance(codec, tuple) and all(isinstance(part, nn.Module) for part in codec)
    if not modules or len(codec) != len(Codec._fields):
        who = function_name("codec", config.codec)
        raise ValueError(f"{who}: gives {shape_of(codec)}; must be a Codec of four modules")
    return Codec(*codec)


def laid_out(x_BChw: torch.Tensor) -> torch.Tensor:
    """A grid as convolutions (VQGAN, arXiv 2012.09841) take it fastest: on a CPU with the channels
    of a place side by side, which all layers keep. On a GPU that was slower. Shape is kept."""
    if x_BChw.device.type != "cpu":
        return x_BChw
    # of one channel too, whose strides torch's own conversion leaves as they are
    return x_BChw.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class Tokenizer(nn.Module):
    """Image to tokens and back (VAR, arXiv 2404.02905, section 3.2). Images are float in [-1, 1],
    (B, in_channels, S, S)."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        codec = named_codec(config)
        # in this order, in which weights are drawn
        self.encoder, self.pre_quant = codec.encoder, codec.pre_quant
        self.quantizer = Quantizer(
            config.codebook_size,
            config.codebook_dim,
            config.num_phi,
            config.phi_ratio,
            config.combine,
        )
        self.post_quant, self.decoder = codec.post_quant, codec.decoder

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw every weight from one generator: convolutions uniform in +-1/sqrt(fan in), as torch
        does; codes normal. Other layers of a codec of one's own keep what they were made with."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                if module.bias is not None:  # one of one's own may have none
                    nn.init.zeros_(module.bias)
        self.quantizer.init_weights(generator)

    def at(self, schedule: ScaleSchedule) -> Ladder:
        """The quantizer with a schedule. Raises ValueError when it does not end at the latent
        size."""
        if schedule.latent_size != self.config.schedule.latent_size:
            raise ValueError(
                f"patch_nums {list(schedule.patch_nums)} must end at the tokenizer's latent size "
                f"{self.config.schedule.latent_size}"
            )
        return self.quantizer.at(schedule)

    def to_latent(self, images: torch.Tensor) -> torch.Tensor:
        """Encoder (VAR, section 3.2): images in [-1, 1] to latent_BChw."""
        latent_BChw: torch.Tensor = self.pre_quant(self.encoder(laid_out(images))).contiguous()
        if is_own("codec", self.config.codec):
            side, C = self.config.schedule.latent_size, self.config.codebook_dim
            self._check_own("latents", latent_BChw, (len(images), C, side, side))
        return latent_BChw

    def to_image(self, f_hat_BChw: torch.Tensor) -> torch.Tensor:
        """Decoder (VAR, section 3.2): a state f_hat_BChw to images, not clamped; [-1, 1] is the
        legal range."""
        images: torch.Tensor = self.decoder(self.post_quant(laid_out(f_hat_BChw))).contiguous()
        if is_own("codec", self.config.codec):
            side, channels = self.config.image_size, self.config.in_channels
            self._check_own("images", images, (len(f_hat_BChw), channels, side, side))
        return images

    def _check_own(self, what: str, given: torch.Tensor, shape: tuple[int, ...]) -> None:
        if given.shape != shape:
            who = function_name("codec", self.config.codec)
            raise ValueError(f"{who}: gives {what} {shape_of(given)}; must be of shape {shape}")

    def encode(self, images: torch.Tensor, schedule: ScaleSchedule | None = None) -> torch.Tensor:
        """Images in [-1, 1] to tokens_BL (VAR, algorithm 1). Raises ValueError for anything
        else."""
        size = self.config
        check_images(images, (size.in_channels, size.image_size, size.image_size))
        return self.at(schedule or size.schedule).encode(self.to_latent(images))[0]

    def decode(
        self, tokens_BL: torch.Tensor, schedule: ScaleSchedule | None = None
    ) -> torch.Tensor:
        """tokens_BL to images in [-1, 1] (VAR, algorithm 2); V is an absent token. Raises
        ValueError for others."""
        schedule = schedule or self.config.schedule
        check_tokens(tokens_BL, schedule.seq_len, self.config.codebook_size)
        return self.to_image(self.at(schedule).decode(tokens_BL)).clamp(-1, 1)
