"""Official VAR weights in: the keys of vae_ch160v4096z32.pth and var_d16 ... var_d36 to ours, sizes read from the shapes.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h w latent grid
"""

from __future__ import annotations

import math
import re

import torch
from torch import nn

from .config import ModelConfig, SamplerConfig, TokenizerConfig
from .files import refuse_misfits
from .model import ScaleTransformer
from .tokenizer import Downsample, ResBlock, SpatialAttention, Tokenizer, Upsample

State = dict[str, torch.Tensor]
# buffers of the public code that follow from the schedule or from training, and are no weights
NO_WEIGHTS = {"lvl_1L", "attn_bias_for_masking", "quantize.ema_vocab_hit_SV"}


def cfg_from_var(cfg: float, top_k: int = 0, top_p: float = 0.0, temperature: float = 1.0) -> SamplerConfig:
    """VAR's sampler settings in ours: its (1+t) c - t u with t = cfg k/(K-1) is w = 1 + cfg on a linear ramp; 0 means off there."""
    return SamplerConfig(
        cfg_scale=1.0 + cfg, cfg_ramp="linear", temperature=temperature, top_k=top_k or None, top_p=top_p if top_p > 0 else 1.0
    )


def cfg_to_var(config: SamplerConfig) -> dict[str, float]:
    """Our sampler settings in VAR's words (arXiv 2404.02905). Raises ValueError for a ramp that VAR does not have."""
    if config.cfg_ramp != "linear" and config.cfg_scale != 1.0:
        raise ValueError(f"cfg_ramp {config.cfg_ramp!r}: VAR knows only the linear ramp")
    return {"cfg": config.cfg_scale - 1.0, "top_k": config.top_k or 0, "top_p": config.top_p if config.top_p < 1.0 else 0.0}


def _count(state: State, pattern: str) -> int:
    """How many consecutive numbers, from 0, fill the pattern's one group."""
    found = {int(match[1]) for key in state if (match := re.match(pattern, key))}
    return len(found)


def _need(state: State, key: str, what: str) -> torch.Tensor:
    if key not in state:
        raise ValueError(f"{what} weights: {key} is missing; is this the official {what} file?")
    return state[key]


def tokenizer_config(state: State, patch_nums: tuple[int, ...]) -> TokenizerConfig:
    """Sizes of an official VQ-VAE (VAR, arXiv 2404.02905), read from its shapes. Raises ValueError naming a missing key."""
    channels, in_channels = _need(state, "encoder.conv_in.weight", "VQ-VAE").shape[:2]
    V, C = _need(state, "quantize.embedding.weight", "VQ-VAE").shape
    levels = _count(state, r"encoder\.down\.(\d+)\.block\.")
    widths = [_need(state, f"encoder.down.{i}.block.0.conv1.weight", "VQ-VAE").shape[0] for i in range(levels)]
    num_phi = _count(state, r"quantize\.quant_resi\.qresi_ls\.(\d+)\.")
    return TokenizerConfig(
        image_size=patch_nums[-1] * 2 ** (levels - 1),
        in_channels=in_channels,
        patch_nums=patch_nums,
        codebook_size=V,
        codebook_dim=C,
        channels=channels,
        channel_multipliers=tuple(width // channels for width in widths),
        num_res_blocks=_count(state, r"encoder\.down\.0\.block\.(\d+)\."),
        attention=f"encoder.down.{levels - 1}.attn.0.norm.weight" in state,
        num_phi=num_phi or 1,
    )


def model_config(state: State, patch_nums: tuple[int, ...], **changes) -> ModelConfig:
    """Sizes of an official VAR transformer (arXiv 2404.02905), read from its shapes. Raises ValueError naming a missing key.

    changes: settings that no shape tells, such as history or class_dropout.
    """
    D, C = _need(state, "word_embed.weight", "VAR").shape
    depth = _count(state, r"blocks\.(\d+)\.attn\.")
    scale = state.get("blocks.0.attn.scale_mul_1H11")
    known = {
        "patch_nums": patch_nums,
        "codebook_size": _need(state, "head.weight", "VAR").shape[0],
        "codebook_dim": C,
        "num_classes": _need(state, "class_emb.weight", "VAR").shape[0] - 1,
        "depth": depth,
        "width": D,
        "heads": scale.shape[1] if scale is not None else D // 64,
        "mlp_ratio": _need(state, "blocks.0.ffn.fc1.weight", "VAR").shape[0] / D,
        "qk_norm": scale is not None,
        "shared_adaln": "shared_ada_lin.1.weight" in state,
        "drop_path": 0.1 * depth / 24,
    }
    return ModelConfig(**{**known, **changes})


def schedule_of(state: State) -> tuple[int, ...]:
    """patch_nums of an official transformer, from the scale index that it stores for each of its L tokens.

    Raises ValueError when the file does not hold it, or holds no squares: then give patch_nums.
    """
    if "lvl_1L" not in state:
        raise ValueError("VAR weights: lvl_1L is missing, so the shapes leave the schedule open; give patch_nums")
    sides = [math.isqrt(count) for count in torch.bincount(state["lvl_1L"].flatten().long()).tolist()]
    if sum(side * side for side in sides) != state["lvl_1L"].numel():
        raise ValueError("VAR weights: lvl_1L does not count square grids; give patch_nums")
    return tuple(sides)


# ---------------------------------------------------------------- keys


_INNER = {"nin_shortcut": "shortcut", "proj_out": "out"}


def _layers(kind: str, config: TokenizerConfig) -> list[str]:
    """Official names of the layers of encoder or decoder that hold weights, in the order of our sequence."""
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
        keys[f"pre_quant.{end}"], keys[f"post_quant.{end}"] = f"quant_conv.{end}", f"post_quant_conv.{end}"
        for i in range(len(tokenizer.quantizer.phi)):
            keys[f"quantizer.phi.{i}.{end}"] = (
                f"quantize.quant_resi.qresi_ls.{i}.{end}" if several else f"quantize.quant_resi.qresi.{end}"
            )
    return keys


_MODEL = {
    "class_embedding.": "class_emb.",
    "start_position": "pos_start",
    "position": "pos_1LC",
    "level_embedding.": "lvl_embed.",
    "input.": "word_embed.",
    "shared_modulation.": "shared_ada_lin.1.",
    "head_modulation.": "head_nm.ada_lin.1.",
    "head.": "head.",
}
_BLOCK = {
    "attention.qkv.": "attn.mat_qkv.",
    "attention.q_bias": "attn.q_bias",
    "attention.v_bias": "attn.v_bias",
    "attention.head_log_scale": "attn.scale_mul_1H11",
    "attention.out.": "attn.proj.",
    "mlp_in.": "ffn.fc1.",
    "mlp_out.": "ffn.fc2.",
    "modulation_table": "ada_gss",
    "modulation.": "ada_lin.1.",
}


def _renamed(key: str, names: dict[str, str]) -> str:
    ours = max((name for name in names if key.startswith(name)), key=len)
    return names[ours] + key[len(ours) :]


def _model_keys(model: ScaleTransformer) -> dict[str, str]:
    """Ours to official, for every weight of a transformer."""
    keys = {}
    for key in model.state_dict():
        if key == "scale_L":
            continue
        match = re.match(r"blocks\.(\d+)\.(.*)", key)
        keys[key] = f"blocks.{match[1]}.{_renamed(match[2], _BLOCK)}" if match else _renamed(key, _MODEL)
    return keys


def _take(module: nn.Module, keys: dict[str, str], state: State, what: str) -> None:
    """Fill a module; shapes may differ by sides of length 1 only. Raises ValueError naming missing, extra and misshapen keys."""
    wanted = module.state_dict()
    extra = {key for key in state if key not in NO_WEIGHTS and not key.endswith("attn.zero_k_bias")} - set(keys.values())
    problems = [f"missing {official}" for official in keys.values() if official not in state]
    problems += [f"unknown {key}" for key in sorted(extra)]
    squeeze = lambda shape: [side for side in shape if side != 1]  # noqa: E731
    for ours, official in keys.items():
        if official in state and squeeze(state[official].shape) != squeeze(wanted[ours].shape):
            problems.append(f"{official} has shape {list(state[official].shape)}, {list(wanted[ours].shape)} expected")
    refuse_misfits(f"{what} weights", problems)
    module.load_state_dict({ours: state[official].reshape(wanted[ours].shape) for ours, official in keys.items()}, strict=False)


def import_tokenizer(state: State, patch_nums: tuple[int, ...]) -> Tokenizer:
    """An official VQ-VAE (VAR, arXiv 2404.02905) as our tokenizer, in evaluation mode. Raises ValueError naming what does not fit."""
    tokenizer = Tokenizer(tokenizer_config(state, patch_nums))
    _take(tokenizer, _tokenizer_keys(tokenizer), state, "VQ-VAE")
    return tokenizer.eval()


def import_model(state: State, patch_nums: tuple[int, ...] | None = None, **changes) -> ScaleTransformer:
    """An official VAR transformer (arXiv 2404.02905) as our model, in evaluation mode; history=0 makes it an SDD to fine-tune."""
    model = ScaleTransformer(model_config(state, patch_nums or schedule_of(state), **changes))
    _take(model, _model_keys(model), state, "VAR")
    return model.eval()


def import_official(
    vqvae_state: State, var_state: State, patch_nums: tuple[int, ...] | None = None
) -> tuple[Tokenizer, ScaleTransformer]:
    """Both parts of an official VAR (arXiv 2404.02905): (tokenizer, model), sizes and schedule read from the shapes.

    patch_nums: only where the files leave the schedule open. Raises ValueError naming missing, extra or misshapen keys.
    """
    patch_nums = tuple(patch_nums) if patch_nums else schedule_of(var_state)
    return import_tokenizer(vqvae_state, patch_nums), import_model(var_state, patch_nums)
