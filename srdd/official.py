"""Official VAR weights in: the keys of var_d16 ... var_d36 to ours, sizes read from the shapes;
official_tokenizer.py has the VQ-VAE.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import math
import re
from typing import Any

from .config import ModelConfig, SamplerConfig
from .model import ScaleTransformer
from .official_tokenizer import State, count, import_tokenizer, need, take
from .tokenizer import Tokenizer


def cfg_from_var(
    cfg: float, top_k: int = 0, top_p: float = 0.0, temperature: float = 1.0
) -> SamplerConfig:
    """VAR's sampler settings in ours: its (1+t) c - t u with t = cfg k/(K-1) is w = 1 + cfg on a
    linear ramp; 0 means off there."""
    return SamplerConfig(
        cfg_scale=1.0 + cfg,
        cfg_ramp="linear",
        temperature=temperature,
        top_k=top_k or None,
        top_p=top_p if top_p > 0 else 1.0,
    )


# what changes a sample and the public sampler of VAR does not take
NOT_OF_VAR = ("temperature", "sr_steps", "refine_steps", "svd_in", "svd_out", "detail_scale")


def cfg_to_var(config: SamplerConfig) -> dict[str, float]:
    """Our sampler settings in VAR's words (arXiv 2404.02905). Raises ValueError for a sampler, a
    ramp or a setting that VAR does not have."""
    if config.cfg_ramp != "linear" and config.cfg_scale != 1.0:
        raise ValueError(f"cfg_ramp {config.cfg_ramp!r}: VAR knows only the linear ramp")
    if config.name not in ("var", "srdd"):
        raise ValueError(f"name {config.name!r}: VAR draws every token once, as sampler var does")
    for key in NOT_OF_VAR:
        value, off = getattr(config, key), SamplerConfig.model_fields[key].default
        if value != off:
            raise ValueError(f"{key} {value}: VAR knows no other than {off}")
    return {
        "cfg": config.cfg_scale - 1.0,
        "top_k": config.top_k or 0,
        "top_p": config.top_p if config.top_p < 1.0 else 0.0,
    }


def model_config(state: State, /, patch_nums: tuple[int, ...], **changes: Any) -> ModelConfig:
    """Sizes of an official VAR transformer (arXiv 2404.02905), read from its shapes. Raises
    ValueError naming a missing key.

    changes: settings that no shape tells, such as history or class_dropout.
    """
    D, C = need(state, "word_embed.weight", "VAR", 2)
    depth = count(state, r"blocks\.(\d+)\.attn\.")
    qk_norm = "blocks.0.attn.scale_mul_1H11" in state
    known = {
        "patch_nums": patch_nums,
        "codebook_size": need(state, "head.weight", "VAR", 2)[0],
        "codebook_dim": C,
        "num_classes": need(state, "class_emb.weight", "VAR", 2)[0] - 1,
        "depth": depth,
        "width": D,
        "heads": need(state, "blocks.0.attn.scale_mul_1H11", "VAR", 4)[1]
        if qk_norm
        else max(1, D // 64),
        "mlp_ratio": need(state, "blocks.0.ffn.fc1.weight", "VAR", 2)[0] / max(1, D),
        "qk_norm": qk_norm,
        "shared_adaln": "shared_ada_lin.1.weight" in state,
        "drop_path": 0.1 * depth / 24,
    }
    return ModelConfig(**{**known, **changes})


def schedule_of(state: State) -> tuple[int, ...]:
    """patch_nums of an official transformer, from the scale index that it stores for each of its L
    tokens.

    Raises ValueError when the file does not hold it, or holds no squares: then give patch_nums.
    """
    if "lvl_1L" not in state:
        raise ValueError(
            "VAR weights: lvl_1L is missing, so the shapes leave the schedule open; give patch_nums"
        )
    levels, counts = state["lvl_1L"].flatten().long().unique(return_counts=True)
    sides = [math.isqrt(count) for count in counts.tolist()]
    if levels.tolist() != list(range(len(sides))):
        raise ValueError(
            f"VAR weights: lvl_1L counts scales {levels.tolist()}, not from 0 without a gap; give "
            "patch_nums"
        )
    if sum(side * side for side in sides) != state["lvl_1L"].numel():
        raise ValueError("VAR weights: lvl_1L does not count square grids; give patch_nums")
    return tuple(sides)


# ---------------------------------------------------------------- keys


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
        keys[key] = (
            f"blocks.{match[1]}.{_renamed(match[2], _BLOCK)}" if match else _renamed(key, _MODEL)
        )
    return keys


def import_model(
    state: State, /, patch_nums: tuple[int, ...] | None = None, **changes: Any
) -> ScaleTransformer:
    """An official VAR transformer (arXiv 2404.02905) as our model, in evaluation mode; history=0
    makes it an SDD to fine-tune."""
    model = ScaleTransformer(model_config(state, patch_nums or schedule_of(state), **changes))
    take(model, _model_keys(model), state, "VAR")
    return model.eval()


def import_official(
    vqvae_state: State, var_state: State, patch_nums: tuple[int, ...] | None = None
) -> tuple[Tokenizer, ScaleTransformer]:
    """Both parts of an official VAR (arXiv 2404.02905): (tokenizer, model), sizes and schedule read
    from the shapes.

    patch_nums: only where the files leave the schedule open. Raises ValueError naming missing,
    extra or misshapen keys.
    """
    patch_nums = tuple(patch_nums) if patch_nums else schedule_of(var_state)
    return import_tokenizer(vqvae_state, patch_nums), import_model(var_state, patch_nums)
