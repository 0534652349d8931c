"""Parity with the public VAR: weights made by a formula must give the tokens,
logits and images that it recorded."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from official_weights import (
    ABOUT,
    PARITY,
    levels,
    numbers,
    states,
    var_shapes,
    var_state,
    vqvae_shapes,
    vqvae_state,
)
from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.official import (
    cfg_from_var,
    cfg_to_var,
    import_model,
    import_official,
    model_config,
    schedule_of,
)
from srdd.official_tokenizer import import_tokenizer, tokenizer_config, untold
from srdd.sampling import generate


@pytest.fixture(scope="module")
def recorded():
    with np.load(PARITY / "var_tiny.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def official():
    return import_official(*states())


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(
        numbers("tiny.image", 2 * 3 * 64 * 64).reshape(2, 3, 64, 64).astype(np.float32)
    )


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@torch.no_grad()
def test_tokenizer(official, recorded, image):
    """Catches any difference of encoder, quantizer, phi,
    resizing or decoder from the public code: tokens must be equal."""
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
    """Catches a wrong cache, ramp or guidance convention:
    VAR's cfg 1.5 is w = 2.5 at the last scale."""
    tokenizer, model = official
    sampler = cfg_from_var(cfg=ABOUT["cfg"], top_k=ABOUT["top_k"])
    tokens_BL, f_hat = generate(
        model, tokenizer.at(model.schedule), recorded["labels"], [0, 1], sampler
    )
    assert torch.equal(tokens_BL, recorded["sampled_tokens_BL"])
    close(tokenizer.to_image(f_hat).clamp(-1, 1).add(1).mul(0.5), recorded["sampled_image"])


def test_guidance_settings_convert_there_and_back():
    """Catches a conversion that is off by the one between w and t."""
    for cfg, top_k, top_p in ((1.5, 900, 0.96), (0.0, 0, 0.0), (4.0, 1, 0.5)):
        there = cfg_from_var(cfg, top_k, top_p)
        assert cfg_to_var(there) == pytest.approx({"cfg": cfg, "top_k": top_k, "top_p": top_p})
    with pytest.raises(ValueError, match="linear"):
        cfg_to_var(SamplerConfig(cfg_scale=2.0, cfg_ramp="constant"))
    for more in ({"temperature": 0.7}, {"svd_in": 1.0}, {"name": "srdd", "refine_steps": 2}):
        with pytest.raises(ValueError, match=rf"^{list(more)[-1]} [0-9.]+: VAR knows no other"):
            cfg_to_var(SamplerConfig(**more))
    with pytest.raises(ValueError, match="^name 'gauss'"):
        cfg_to_var(SamplerConfig(name="gauss"))


def test_sizes_and_schedule_are_read_from_the_shapes(official):
    """Catches a size that is guessed instead of read."""
    tokenizer, model = official
    about = ABOUT["config"]
    assert model.config.patch_nums == tuple(about["patch_nums"]) == schedule_of(states()[1])
    assert (model.config.depth, model.config.num_classes, model.config.codebook_size) == (
        about["depth"],
        10,
        about["V"],
    )
    assert (
        tokenizer.config.codebook_dim,
        tokenizer.config.channels,
        tokenizer.config.image_size,
    ) == (
        about["Cvae"],
        about["ch"],
        64,
    )


@pytest.mark.parametrize(
    "part, key", [(0, "decoder.conv_in.weight"), (1, "blocks.1.ffn.fc2.weight"), (1, "head.bias")]
)
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


# ---------------------------------------------------------------- any size

OFFICIAL_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)
SCHEDULES = st.lists(st.integers(1, 6), min_size=1, max_size=4, unique=True).map(sorted).map(tuple)


@st.composite
def models(draw):
    """Transformers of any shape, with settings that no file tells."""
    heads = draw(st.integers(1, 3))
    qk_norm = draw(st.booleans())
    return ModelConfig(
        patch_nums=draw(SCHEDULES), codebook_size=draw(st.integers(2, 9)),
        codebook_dim=draw(st.integers(1, 5)), num_classes=draw(st.integers(0, 5)),
        depth=draw(st.integers(1, 3)), heads=heads, width=heads * draw(st.sampled_from((1, 4))),
        mlp_ratio=draw(st.sampled_from((1.0, 4.0))), qk_norm=qk_norm,
        shared_adaln=draw(st.booleans()), history=draw(st.sampled_from((None, 0, 1))),
        drop_path=0.05,
    )  # fmt: skip


@st.composite
def tokenizers(draw):
    """VQ-VAEs of any shape."""
    multipliers, latent = (
        draw(st.lists(st.integers(1, 2), min_size=1, max_size=3)),
        draw(st.integers(1, 3)),
    )
    return TokenizerConfig(
        patch_nums=tuple(range(1, latent + 1)), image_size=latent * 2 ** (len(multipliers) - 1),
        in_channels=draw(st.sampled_from((1, 3))), codebook_size=draw(st.integers(2, 9)),
        codebook_dim=draw(st.integers(1, 4)), channels=draw(st.sampled_from((2, 4))),
        channel_multipliers=tuple(multipliers), num_res_blocks=draw(st.integers(1, 2)),
        attention=draw(st.booleans()), norm_groups=2, num_phi=draw(st.sampled_from((1, 2, 4))),
    )  # fmt: skip


def flat(tensors):
    """All numbers of some tensors in one order."""
    return torch.cat([tensor.flatten().float() for tensor in tensors]).sort().values


def test_the_key_names_for_any_size_are_those_of_the_recorded_files(official):
    """Catches a list of official keys in these tests that is not what the public code makes."""
    tokenizer, model = official
    vqvae, var = ABOUT["shapes"]["vqvae"], ABOUT["shapes"]["var"]
    assert vqvae_shapes(tokenizer.config) == vqvae
    assert var_shapes(model.config) == {
        "attn_bias_for_masking": [1, 1, model.schedule.seq_len, model.schedule.seq_len],
        **var,
    }


@given(models())
def test_any_transformer_comes_in_whole(config):
    """Catches a size that is not read (class count, shared AdaLN, no query-key norm, schedule), and
    a weight that is lost or doubled."""
    state = var_state(config)
    assert schedule_of(state) == config.patch_nums
    assert model_config(state, config.patch_nums, **untold(config)) == config
    model = import_model(state, **untold(config))
    assert model.config == config and not model.training
    weights = [
        value
        for key, value in state.items()
        if key not in ("lvl_1L", "attn_bias_for_masking") and "zero_k" not in key
    ]
    assert torch.equal(flat(model.state_dict().values()), flat(weights))


@given(tokenizers())
def test_any_tokenizer_comes_in_whole(config):
    """Catches a size that is not read (levels, blocks, attention, one phi or several), and a weight
    that is lost or doubled."""
    state = vqvae_state(config)
    assert tokenizer_config(state, config.patch_nums, **untold(config)) == config
    tokenizer = import_tokenizer(state, config.patch_nums, **untold(config))
    weights = [value for key, value in state.items() if not key.endswith("ema_vocab_hit_SV")]
    assert torch.equal(flat(tokenizer.state_dict().values()), flat(weights))


@torch.no_grad()
def test_shared_modulation_is_the_same_function():
    """Catches a shared AdaLN (var_d36-s) whose table is added in another order: a model without
    sharing, whose blocks hold the shared projection plus their table, gives the same logits."""
    config = ModelConfig(
        patch_nums=(1, 2, 3),
        codebook_size=7,
        codebook_dim=4,
        num_classes=3,
        depth=2,
        width=16,
        heads=2,
        shared_adaln=True,
    )
    shared = var_state(config)
    plain = {
        key: value
        for key, value in shared.items()
        if "ada_gss" not in key and not key.startswith("shared_ada_lin")
    }
    for i in range(config.depth):
        plain[f"blocks.{i}.ada_lin.1.weight"] = shared["shared_ada_lin.1.weight"]
        plain[f"blocks.{i}.ada_lin.1.bias"] = (
            shared["shared_ada_lin.1.bias"] + shared[f"blocks.{i}.ada_gss"].flatten()
        )
    inputs = torch.from_numpy(numbers("inputs", 2 * 14 * 4).reshape(2, 14, 4).astype(np.float32))
    labels = torch.tensor([0, 3])
    torch.testing.assert_close(
        import_model(shared)(inputs, labels), import_model(plain)(inputs, labels), rtol=0, atol=1e-5
    )


def test_schedule_of_512_pixels():
    """Catches a schedule that is read for the 256-pixel grids only."""
    assert schedule_of({"lvl_1L": levels(OFFICIAL_512)}) == OFFICIAL_512


@pytest.mark.parametrize("wrong", [[[0, 1, 1]], [[0, 2, 2, 2, 2]], [[-1, 0, 0, 0, 0]]])
def test_a_scale_index_of_no_schedule(wrong):
    """Catches a schedule made of an index that has gaps, is negative or counts no squares."""
    with pytest.raises(ValueError, match="lvl_1L"):
        schedule_of({"lvl_1L": torch.tensor(wrong)})


BROKEN_MODEL = ModelConfig(
    patch_nums=(1, 2), codebook_size=5, codebook_dim=2, num_classes=2, depth=2, width=4, heads=2
)
BROKEN_TOKENIZER = TokenizerConfig(
    patch_nums=(1, 2), image_size=4, in_channels=1, codebook_size=5, codebook_dim=2, channels=2,
    channel_multipliers=(1, 2), num_res_blocks=1, norm_groups=2,
)  # fmt: skip


@given(st.data())
def test_a_file_that_does_not_fit_is_a_value_error(data):
    """Catches weights of other shapes, names or ranks that end as a traceback or are read in
    part."""
    config = data.draw(st.sampled_from((BROKEN_MODEL, BROKEN_TOKENIZER)))
    state = var_state(config) if config is BROKEN_MODEL else vqvae_state(config)
    needed = sorted(
        key
        for key in state
        if key not in ("attn_bias_for_masking", "quantize.ema_vocab_hit_SV") and "zero_k" not in key
    )
    key = data.draw(st.sampled_from(needed))
    break_it = {
        "removed": lambda t: None,
        "flat": lambda t: t.flatten(),
        "longer": lambda t: torch.cat((t, t)),
        "empty": lambda t: t[:0],
        "number": lambda t: t.flatten()[0],
    }
    before = state.pop(key)
    after = break_it[data.draw(st.sampled_from(sorted(break_it)))](before)
    if after is not None:
        assume(after.squeeze().shape != before.squeeze().shape)  # sides of length 1 mean nothing
        state[key] = after
    with pytest.raises(ValueError):
        if config is BROKEN_MODEL:
            import_model(state)
        else:
            import_tokenizer(state, config.patch_nums, **untold(config))
