"""Parity with the public VAR: weights made by a formula must give the tokens, logits and pictures that it recorded."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from srdd.config import SamplerConfig
from srdd.official import cfg_from_var, cfg_to_var, import_official, schedule_of
from srdd.sampling import generate

HERE = Path(__file__).resolve().parent / "parity"
ABOUT = json.loads((HERE / "var_tiny.json").read_text())
NORMS = ("norm1.weight", "norm2.weight", "norm.weight", "norm_out.weight")


def numbers(name: str, count: int) -> np.ndarray:
    """`count` numbers in [-1, 1] that follow from a name: splitmix64 of (index, crc32(name))."""
    with np.errstate(over="ignore"):
        z = (np.arange(count, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


def weight(prefix: str, key: str, shape: list[int]) -> torch.Tensor:
    """One weight of the tiny model."""
    if key.endswith(("zero_k_bias", "ema_vocab_hit_SV")):
        return torch.zeros(shape)
    if key == "lvl_1L":
        sides = ABOUT["config"]["patch_nums"]
        return torch.tensor([[k for k, side in enumerate(sides) for _ in range(side * side)]])
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
    return [{key: weight(prefix, key, shape) for key, shape in ABOUT["shapes"][prefix].items()} for prefix in ("vqvae", "var")]


@pytest.fixture(scope="module")
def recorded():
    with np.load(HERE / "var_tiny.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def official():
    return import_official(*states())


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(numbers("tiny.image", 2 * 3 * 64 * 64).reshape(2, 3, 64, 64).astype(np.float32))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@torch.no_grad()
def test_tokenizer(official, recorded, image):
    """Catches any difference of encoder, quantizer, phi, resizing or decoder from the public code: tokens must be equal."""
    tokenizer, model = official
    ladder = tokenizer.at(model.schedule)
    latent = tokenizer.to_latent(image)
    close(latent, recorded["latent_BChw"])
    tokens_BL, f_hat = ladder.encode(latent)
    assert torch.equal(tokens_BL, recorded["tokens_BL"])
    close(torch.stack(list(ladder.states(tokens_BL))), recorded["f_hat_KBChw"])
    inputs = ladder.teacher_forced_inputs(tokens_BL)[:, model.schedule.lengths[0] :]
    close(inputs, recorded["teacher_forced_inputs_BLC"])
    close(tokenizer.to_image(f_hat).clamp(-1, 1), recorded["reconstruction"])


@torch.no_grad()
def test_teacher_forced_logits(official, recorded):
    """Catches any difference of embeddings, AdaLN, attention, its scale, the mask or the head."""
    tokenizer, model = official
    inputs = tokenizer.at(model.schedule).teacher_forced_inputs(recorded["tokens_BL"])
    close(model(inputs, recorded["labels"]), recorded["logits_BLV"])
    nobody = torch.full_like(recorded["labels"], model.config.null_label)
    close(model(inputs, nobody), recorded["logits_uncond_BLV"])


@torch.no_grad()
def test_greedy_sampling_with_guidance(official, recorded):
    """Catches a wrong cache, ramp or guidance convention: VAR's cfg 1.5 is w = 2.5 at the last scale."""
    tokenizer, model = official
    sampler = cfg_from_var(cfg=ABOUT["cfg"], top_k=ABOUT["top_k"])
    tokens_BL, f_hat = generate(model, tokenizer.at(model.schedule), recorded["labels"], [0, 1], sampler)
    assert torch.equal(tokens_BL, recorded["sampled_tokens_BL"])
    close(tokenizer.to_image(f_hat).clamp(-1, 1).add(1).mul(0.5), recorded["sampled_image"])


def test_guidance_settings_convert_there_and_back():
    """Catches a conversion that is off by the one between w and t."""
    for cfg, top_k, top_p in ((1.5, 900, 0.96), (0.0, 0, 0.0), (4.0, 1, 0.5)):
        there = cfg_from_var(cfg, top_k, top_p)
        assert cfg_to_var(there) == pytest.approx({"cfg": cfg, "top_k": top_k, "top_p": top_p})
    with pytest.raises(ValueError, match="linear"):
        cfg_to_var(SamplerConfig(cfg_scale=2.0, cfg_ramp="constant"))


def test_sizes_and_schedule_are_read_from_the_shapes(official):
    """Catches a size that is guessed instead of read."""
    tokenizer, model = official
    about = ABOUT["config"]
    assert model.config.patch_nums == tuple(about["patch_nums"]) == schedule_of(states()[1])
    assert (model.config.depth, model.config.num_classes, model.config.codebook_size) == (about["depth"], 10, about["V"])
    assert (tokenizer.config.codebook_dim, tokenizer.config.channels, tokenizer.config.image_size) == (
        about["Cvae"],
        about["ch"],
        64,
    )


@pytest.mark.parametrize("part, key", [(0, "decoder.conv_in.weight"), (1, "blocks.1.ffn.fc2.weight"), (1, "head.bias")])
def test_missing_extra_and_misshapen_keys_are_named(part, key):
    """Catches weights that are filled in silently where a file does not fit."""
    both = states()
    whole = both[part].pop(key)
    with pytest.raises(ValueError, match=f"missing {key}"):
        import_official(*both)
    both[part][key] = whole[..., :-1]
    with pytest.raises(ValueError, match=f"{key} has shape"):
        import_official(*both)
    both[part] |= {key: whole, "stranger.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"unknown stranger\.weight"):
        import_official(*both)


def test_schedule_left_open_must_be_given():
    """Catches a guess where a file does not tell its schedule."""
    vqvae, var = states()
    del var["lvl_1L"]
    with pytest.raises(ValueError, match="patch_nums"):
        import_official(vqvae, var)
    assert import_official(vqvae, var, (1, 2, 3, 4))[1].config.patch_nums == (1, 2, 3, 4)


def test_no_schedule_state_in_our_checkpoints(official):
    """Catches a mask or index buffer that lands in checkpoints, as in the public code."""
    assert not {"mask_LL", "scale_L"} & set(official[1].state_dict())
