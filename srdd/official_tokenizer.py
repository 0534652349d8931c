"""Official VQ-VAE weights in: the keys of vae_ch160v4096z32.pth to ours. Apart from the model, so
that an edit there trains no tokenizer again.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from .config import ModelConfig, TokenizerConfig
from .files import refuse_misfits
from .misfits import SIZES
from .tokenizer import Downsample, ResBlock, SpatialAttention, Tokenizer, Upsample

State = dict[str, torch.Tensor]
# sizes that the shapes of a VQ-VAE tell; those of a transformer are SIZES
TOKENIZER_TOLD = (
    "image_size", "in_channels", "codebook_size", "codebook_dim", "channels",
    "channel_multipliers", "num_res_blocks", "attention",
    "num_phi",
)  # fmt: skip
# buffers of the public code that follow from the schedule or from training, and are no weights
NO_WEIGHTS = {"lvl_1L", "attn_bias_for_masking", "quantize.ema_vocab_hit_SV"}


def count(state: State, pattern: str) -> int:
    """How many numbers fill the pattern's one group in the keys of an official file (VAR, arXiv
    2404.02905)."""
    matches = (re.match(pattern, key) for key in state)
    return len({int(match[1]) for match in matches if match})


def need(state: State, key: str, what: str, ndim: int) -> torch.Size:
    """Shape of a tensor that an official file (VAR, arXiv 2404.02905) must hold. Raises ValueError
    naming its key."""
    if key not in state:
        raise ValueError(f"{what} weights: {key} is missing; is this the official {what} file?")
    if state[key].ndim != ndim:
        raise ValueError(
            f"{what} weights: {key} has shape {list(state[key].shape)}, {ndim} sides expected"
        )
    return state[key].shape


def untold(config: TokenizerConfig | ModelConfig) -> dict[str, Any]:
    """Settings of a config that no shape in an official file tells (VAR, arXiv 2404.02905): the
    `changes` of an import."""
    told = set(TOKENIZER_TOLD if isinstance(config, TokenizerConfig) else SIZES)
    if not getattr(config, "qk_norm", True):
        told -= {"heads"}  # the learned scales of heads would tell their number
    return {key: value for key, value in config if key not in told | {"patch_nums"}}


def tokenizer_config(state: State, patch_nums: tuple[int, ...], **changes: Any) -> TokenizerConfig:
    """Sizes of an official VQ-VAE (VAR, arXiv 2404.02905), read from its shapes. Raises ValueError
    naming a missing key.

    changes: settings that no shape tells, such as norm_groups or dropout.
    """
    channels, in_channels, *_ = need(state, "encoder.conv_in.weight", "VQ-VAE", 4)
    V, C = need(state, "quantize.embedding.weight", "VQ-VAE", 2)
    levels = count(state, r"encoder\.down\.(\d+)\.block\.")
    widths = [
        need(state, f"encoder.down.{i}.block.0.conv1.weight", "VQ-VAE", 4)[0] for i in range(levels)
    ]
    num_phi = count(state, r"quantize\.quant_resi\.qresi_ls\.(\d+)\.")
    known = {
        "image_size": patch_nums[-1] * 2 ** max(0, levels - 1),
        "in_channels": in_channels,
        "patch_nums": patch_nums,
        "codebook_size": V,
        "codebook_dim": C,
        "channels": channels,
        "channel_multipliers": tuple(width // max(1, channels) for width in widths),
        "num_res_blocks": count(state, r"encoder\.down\.0\.block\.(\d+)\."),
        "attention": f"encoder.down.{levels - 1}.attn.0.norm.weight" in state,
        "num_phi": num_phi or 1,
    }
    return TokenizerConfig(**{**known, **changes})


# ---------------------------------------------------------------- keys


_INNER = {"nin_shortcut": "shortcut", "proj_out": "out"}


def _layers(kind: str, config: TokenizerConfig) -> list[str]:
    """Official names of the layers of encoder or decoder that hold weights, in the order of our
    sequence."""
    levels, last = range(len(config.channel_multipliers)), len(config.channel_multipliers) - 1
    middle = ["mid.block_1", *(["mid.attn_1"] if config.attention else []), "mid.block_2"]
    encoder = kind == "encoder"
    blocks = config.num_res_blocks + (0 if encoder else 1)
    names = ["conv_in"] if encoder else ["conv_in", *middle]
    for i in levels if encoder else reversed(levels):
        place = f"{'down' if encoder else 'up'}.{i}"
        for j in range(blocks):
            names.append(f"{place}.block.{j}")
            if config.attention and i == last:
                names.append(f"{place}.attn.{j}")
        if i != (last if encoder else 0):
            names.append(f"{place}.{'downsample' if encoder else 'upsample'}")
    return [*names, *(middle if encoder else []), "norm_out", "conv_out"]


def _tokenizer_keys(tokenizer: Tokenizer) -> dict[str, str]:
    """Ours to official, for every weight of a tokenizer."""
    keys: dict[str, str] = {"quantizer.codebook_VC": "quantize.embedding.weight"}
    weighted = (ResBlock, SpatialAttention, Downsample, Upsample, nn.Conv2d, nn.GroupNorm)
    for kind in ("encoder", "decoder"):
        sequence = getattr(tokenizer, kind)
        ours = [(i, layer) for i, layer in enumerate(sequence) if isinstance(layer, weighted)]
        for (i, layer), name in zip(ours, _layers(kind, tokenizer.config), strict=True):
            for key in layer.state_dict():
                inner = {ours_: official for official, ours_ in _INNER.items()}
                head, _, tail = key.rpartition(".")
                official = ".".join(part for part in (inner.get(head, head), tail) if part)
                keys[f"{kind}.{i}.{key}"] = f"{kind}.{name}.{official}"
    several = len(tokenizer.quantizer.phi) > 1
    for end in ("weight", "bias"):
        keys[f"pre_quant.{end}"] = f"quant_conv.{end}"
        keys[f"post_quant.{end}"] = f"post_quant_conv.{end}"
        for i in range(len(tokenizer.quantizer.phi)):
            keys[f"quantizer.phi.{i}.{end}"] = (
                f"quantize.quant_resi.qresi_ls.{i}.{end}"
                if several
                else f"quantize.quant_resi.qresi.{end}"
            )
    return keys


def _squeezed(tensor: torch.Tensor) -> list[int]:
    return [side for side in tensor.shape if side != 1]


def take(module: nn.Module, keys: dict[str, str], state: State, what: str) -> None:
    """Fill a module; shapes may differ by sides of length 1 only. Raises ValueError naming missing,
    extra and misshapen keys."""
    wanted = module.state_dict()
    extra = {
        key for key in state if key not in NO_WEIGHTS and not key.endswith("attn.zero_k_bias")
    } - set(keys.values())
    problems = [f"missing {official}" for official in keys.values() if official not in state]
    problems += [f"unknown {key}" for key in sorted(extra)]
    for ours, official in keys.items():
        if official in state and _squeezed(state[official]) != _squeezed(wanted[ours]):
            problems.append(
                f"{official} has shape {list(state[official].shape)}, {list(wanted[ours].shape)} "
                "expected"
            )
    used = {official: state[official] for official in keys.values() if official in state}
    problems += [
        f"{key} holds {value.dtype}, no fractions"
        for key, value in used.items()
        if not value.is_floating_point()
    ]
    problems += [
        f"{key} holds a number that is not finite"
        for key, value in used.items()
        if not value.isfinite().all()
    ]
    refuse_misfits(f"{what} weights", problems)
    module.load_state_dict(
        {ours: state[official].reshape(wanted[ours].shape) for ours, official in keys.items()},
        strict=False,
    )


def import_tokenizer(state: State, patch_nums: tuple[int, ...], **changes: Any) -> Tokenizer:
    """An official VQ-VAE (VAR, arXiv 2404.02905) as our tokenizer, in evaluation mode. Raises
    ValueError naming what does not fit."""
    tokenizer = Tokenizer(tokenizer_config(state, patch_nums, **changes))
    take(tokenizer, _tokenizer_keys(tokenizer), state, "VQ-VAE")
    return tokenizer.eval()
