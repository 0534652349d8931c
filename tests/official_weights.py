"""Official VAR files at small sizes, without the public code: the weights of the recorded tiny
model, and any size by its key names."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

PARITY = Path(__file__).resolve().parent / "parity"
ABOUT = json.loads((PARITY / "var_tiny.json").read_text())
NORMS = ("norm1.weight", "norm2.weight", "norm.weight", "norm_out.weight")


def numbers(name: str, count: int) -> np.ndarray:
    """`count` numbers in [-1, 1] that follow from a name: splitmix64 of (index, crc32(name))."""
    with np.errstate(over="ignore"):
        z = (
            np.arange(count, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
        ) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


def levels(patch_nums) -> torch.Tensor:
    """lvl_1L: the scale of every token."""
    return torch.tensor([[k for k, side in enumerate(patch_nums) for _ in range(side * side)]])


def weight(
    prefix: str, key: str, shape: list[int], patch_nums=tuple(ABOUT["config"]["patch_nums"])
) -> torch.Tensor:
    """One weight of a model of that schedule."""
    if key.endswith(("zero_k_bias", "ema_vocab_hit_SV")):
        return torch.zeros(shape)
    if key == "lvl_1L":
        return levels(patch_nums)
    if key == "attn_bias_for_masking":
        return torch.zeros(shape)
    u = numbers(f"{prefix}.{key}", int(np.prod(shape))).reshape(shape)
    if len(shape) >= 2 and key not in ("pos_start", "pos_1LC"):
        value = u * np.sqrt(3 / np.prod(shape[1:]))
        value = value + np.log(4) if key.endswith("scale_mul_1H11") else value
    else:
        value = 1 + 0.1 * u if key.endswith(NORMS) else 0.1 * u
    return torch.from_numpy(value.astype(np.float32))


def states():
    """State dicts of the recorded VQ-VAE and transformer."""
    return [
        {key: weight(prefix, key, shape) for key, shape in ABOUT["shapes"][prefix].items()}
        for prefix in ("vqvae", "var")
    ]


def var_shapes(config) -> dict[str, list[int]]:
    """Keys and shapes of an official transformer of our ModelConfig, as the public code builds it
    (var_d36-s: shared_adaln)."""
    D, H, C, V = config.width, config.heads, config.codebook_dim, config.codebook_size
    K, L, first, M = (
        config.schedule.num_scales,
        config.schedule.seq_len,
        config.schedule.lengths[0],
        round(D * config.mlp_ratio),
    )
    shapes = {
        "pos_start": [1, first, D], "pos_1LC": [1, L, D], "lvl_1L": [1, L],
        "attn_bias_for_masking": [1, 1, L, L], "word_embed.weight": [D, C], "word_embed.bias": [D],
        "class_emb.weight": [config.num_classes + 1, D], "lvl_embed.weight": [K, D],
        "head_nm.ada_lin.1.weight": [2 * D, D], "head_nm.ada_lin.1.bias": [2 * D],
        "head.weight": [V, D], "head.bias": [V],
    }  # fmt: skip
    if config.shared_adaln:
        shapes |= {"shared_ada_lin.1.weight": [6 * D, D], "shared_ada_lin.1.bias": [6 * D]}
    for i in range(config.depth):
        block = {
            "attn.q_bias": [D], "attn.v_bias": [D], "attn.zero_k_bias": [D],
            "attn.mat_qkv.weight": [3 * D, D], "attn.proj.weight": [D, D], "attn.proj.bias": [D],
            "ffn.fc1.weight": [M, D], "ffn.fc1.bias": [M], "ffn.fc2.weight": [D, M],
            "ffn.fc2.bias": [D],
        }  # fmt: skip
        block |= {"attn.scale_mul_1H11": [1, H, 1, 1]} if config.qk_norm else {}
        block |= (
            {"ada_gss": [1, 1, 6, D]}
            if config.shared_adaln
            else {"ada_lin.1.weight": [6 * D, D], "ada_lin.1.bias": [6 * D]}
        )
        shapes |= {f"blocks.{i}.{key}": shape for key, shape in block.items()}
    return shapes


def var_state(config) -> dict[str, torch.Tensor]:
    """An official transformer of our ModelConfig, its weights by the formula."""
    return {
        key: weight("var", key, shape, config.patch_nums)
        for key, shape in var_shapes(config).items()
    }


class Shapes(dict):
    """Keys and shapes of an official VQ-VAE, layer by layer."""

    def conv(self, name, c_in, c_out, side=3):
        self.update({f"{name}.weight": [c_out, c_in, side, side], f"{name}.bias": [c_out]})

    def norm(self, name, width):
        self.update({f"{name}.weight": [width], f"{name}.bias": [width]})

    def block(self, name, c_in, c_out):
        self.norm(f"{name}.norm1", c_in)
        self.conv(f"{name}.conv1", c_in, c_out)
        self.norm(f"{name}.norm2", c_out)
        self.conv(f"{name}.conv2", c_out, c_out)
        if c_in != c_out:
            self.conv(f"{name}.nin_shortcut", c_in, c_out, 1)

    def attention(self, name, width):
        self.norm(f"{name}.norm", width)
        self.conv(f"{name}.qkv", width, 3 * width, 1)
        self.conv(f"{name}.proj_out", width, width, 1)

    def level(self, name, c_in, c_out, blocks, attention):
        for j in range(blocks):
            self.block(f"{name}.block.{j}", c_out if j else c_in, c_out)
            if attention:
                self.attention(f"{name}.attn.{j}", c_out)

    def middle(self, name, width, attention):
        self.block(f"{name}.block_1", width, width)
        if attention:
            self.attention(f"{name}.attn_1", width)
        self.block(f"{name}.block_2", width, width)


def vqvae_shapes(config) -> dict[str, list[int]]:
    """Keys and shapes of an official VQ-VAE of our TokenizerConfig,
    as the public code builds it."""
    shapes, widths, C = (
        Shapes(),
        [config.channels * m for m in config.channel_multipliers],
        config.codebook_dim,
    )
    last, deepest, blocks = len(widths) - 1, widths[-1], config.num_res_blocks
    shapes["quantize.embedding.weight"] = [config.codebook_size, C]
    shapes["quantize.ema_vocab_hit_SV"] = [config.schedule.num_scales, config.codebook_size]
    shapes.conv("encoder.conv_in", config.in_channels, config.channels)
    for i, (c_in, width) in enumerate(zip([config.channels, *widths], widths)):
        shapes.level(f"encoder.down.{i}", c_in, width, blocks, config.attention and i == last)
        if i != last:
            shapes.conv(f"encoder.down.{i}.downsample.conv", width, width)
    shapes.middle("encoder.mid", deepest, config.attention)
    shapes.norm("encoder.norm_out", deepest)
    shapes.conv("encoder.conv_out", deepest, C)
    shapes.conv("decoder.conv_in", C, deepest)
    shapes.middle("decoder.mid", deepest, config.attention)
    for i in range(last, -1, -1):
        shapes.level(
            f"decoder.up.{i}",
            widths[min(i + 1, last)],
            widths[i],
            blocks + 1,
            config.attention and i == last,
        )
        if i:
            shapes.conv(f"decoder.up.{i}.upsample.conv", widths[i], widths[i])
    shapes.norm("decoder.norm_out", widths[0])
    shapes.conv("decoder.conv_out", widths[0], config.in_channels)
    for name in ("quant_conv", "post_quant_conv"):
        shapes.conv(name, C, C)
    for i in range(config.num_phi):
        shapes.conv(
            f"quantize.quant_resi.qresi_ls.{i}"
            if config.num_phi > 1
            else "quantize.quant_resi.qresi",
            C,
            C,
        )
    return shapes


def vqvae_state(config) -> dict[str, torch.Tensor]:
    """An official VQ-VAE of our TokenizerConfig, its weights by the formula."""
    return {
        key: weight("vqvae", key, shape, config.patch_nums)
        for key, shape in vqvae_shapes(config).items()
    }
