"""Models that restore: what a degraded image changes, that nothing changes without, and that a
sampler meets what training met."""

import itertools

import pytest
import torch

from srdd import fused
from srdd.checkpoint import load_model, save_model
from srdd.conditioning import condition_latent
from srdd.config import ModelConfig, SamplerConfig
from srdd.cost import sampling_bytes, sampling_cost
from srdd.distillation import restorer_weights
from srdd.fused import FusedStep
from srdd.misfits import restorer_misfit, sampler_misfit
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.restoring import completed, expected_state, repaired, restored
from srdd.sampling import generate

KINDS, HISTORIES = ("state", "cross", "tokens"), (None, 1, 0)
EVERY = list(itertools.product(KINDS, HISTORIES))
V, C, SIDE, B = 7, 4, 3, 3


def normal(name, *shape):
    return torch.randn(*shape, generator=generator(name))


def latents(name="degraded", batch=B):
    return normal(name, batch, C, SIDE, SIDE)


def tokens(ladder, batch=B):
    shape = batch, ladder.schedule.seq_len
    return torch.randint(V, shape, generator=generator("tokens"))


def restorer(make_model, condition, history=None, **changes):
    return make_model(condition=condition, history=history, num_classes=0, **changes)


# ---------------------------------------------------------------- off, and at its first step


@pytest.mark.parametrize("condition,history", EVERY)
def test_a_model_starts_as_the_one_without_a_condition(
    model_config, make_ladder, condition, history
):
    shape = dict(num_classes=0, history=history)
    plain = ScaleTransformer(model_config(**shape))
    told = ScaleTransformer(model_config(**shape, condition=condition))
    plain.init_weights(generator("weights"))
    told.init_weights(generator("weights"))
    weights = told.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, weights[name]), name
    ladder = make_ladder(plain.schedule)
    inputs_BLC = ladder.teacher_forced_inputs(tokens(ladder))
    labels_B = torch.zeros(B, dtype=torch.long)
    with_BLV = told(inputs_BLC, labels_B, degraded_BChw=latents())
    assert torch.equal(with_BLV, plain(inputs_BLC, labels_B))


def test_a_model_without_a_condition_has_no_weights_and_no_key_of_it(model_config):
    assert not [name for name, _ in ScaleTransformer(model_config()).named_parameters() if
                name.startswith("condition")]  # fmt: skip
    assert "condition" not in model_config().model_dump(exclude_defaults=True)


@pytest.mark.parametrize("condition,history", EVERY)
def test_after_one_step_of_training_another_image_gives_other_logits(
    model_config, make_ladder, condition, history
):
    model = ScaleTransformer(model_config(num_classes=0, history=history, condition=condition))
    model.init_weights(generator("weights"))
    ladder = make_ladder(model.schedule)
    tokens_BL, labels_B = tokens(ladder), torch.zeros(B, dtype=torch.long)
    inputs_BLC = ladder.teacher_forced_inputs(tokens_BL).detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    logits_BLV = model(inputs_BLC, labels_B, degraded_BChw=latents())
    torch.nn.functional.cross_entropy(logits_BLV.flatten(0, 1), tokens_BL.flatten()).backward()
    optimizer.step()
    one, other = (
        model(inputs_BLC, labels_B, degraded_BChw=latents(name)) for name in ("degraded", "other")
    )
    for k, piece in enumerate(model.schedule.slices):
        assert not torch.equal(one[:, piece], other[:, piece]), f"scale {k}"


@pytest.mark.parametrize("condition,history", EVERY)
def test_each_image_is_told_its_own_degraded_one(make_model, make_ladder, condition, history):
    model = restorer(make_model, condition, history)
    ladder, order = make_ladder(model.schedule), torch.tensor([2, 0, 1])
    inputs_BLC = ladder.teacher_forced_inputs(tokens(ladder))
    labels_B = torch.zeros(B, dtype=torch.long)
    logits_BLV = model(inputs_BLC, labels_B, degraded_BChw=latents())
    mixed_BLV = model(inputs_BLC[order], labels_B, degraded_BChw=latents()[order])
    torch.testing.assert_close(mixed_BLV, logits_BLV[order])
    assert not torch.allclose(model(inputs_BLC, labels_B, degraded_BChw=latents()[order]),
                              logits_BLV)  # fmt: skip


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("condition,history", EVERY)
@pytest.mark.parametrize("decode", ["argmax", "draw"])
def test_a_sampler_meets_the_logits_of_training(
    make_model, make_ladder, condition, history, decode
):
    model = restorer(make_model, condition, history)
    ladder, sampler = make_ladder(model.schedule), SamplerConfig()
    f_hat, drawn_BL = restored(model, ladder, latents(), range(B), decode, sampler)
    labels_B = torch.zeros(B, dtype=torch.long)
    inputs_BLC = ladder.teacher_forced_inputs(drawn_BL)
    wanted_BLV = model(inputs_BLC, labels_B, degraded_BChw=latents())
    torch.testing.assert_close(f_hat, ladder.decode(drawn_BL))
    if decode == "argmax":
        assert torch.equal(drawn_BL, wanted_BLV.argmax(-1))
    denoise = model.denoiser(latents())
    for k, piece in enumerate(model.schedule.slices):
        logits_BlV = denoise(inputs_BLC[:, piece], k, labels_B)
        torch.testing.assert_close(logits_BlV, wanted_BLV[:, piece])


@pytest.mark.parametrize("condition,history", EVERY)
def test_expected_codes_become_the_likeliest_ones(make_model, make_ladder, condition, history):
    model, labels_B = restorer(make_model, condition, history), torch.zeros(B, dtype=torch.long)
    ladder = make_ladder(model.schedule)
    cold = expected_state(model.denoiser(latents()), ladder, labels_B, temperature=1e-6)
    likeliest, _ = restored(model, ladder, latents(), range(B), "argmax", SamplerConfig())
    torch.testing.assert_close(cold, likeliest)
    mean, no_tokens = restored(model, ladder, latents(), range(B), "expected", SamplerConfig())
    assert no_tokens is None
    assert not torch.allclose(mean, likeliest)


def test_a_mean_code_is_the_sum_over_all_codes(make_model, make_ladder):
    model, labels_B = restorer(make_model, "state"), torch.zeros(B, dtype=torch.long)
    ladder = make_ladder(model.schedule)
    denoise, f_hat = model.denoiser(latents()), ladder.empty_state(B)
    for k, length in enumerate(model.schedule.lengths):
        share_BlV = denoise(ladder.read_scale(f_hat, k), k, labels_B).softmax(-1)
        mean_BlC = torch.zeros(B, length, C)
        for v in range(V):
            code_BlC = ladder.quantizer.embed(torch.full((B, length), v))
            mean_BlC = mean_BlC + share_BlV[..., v, None] * code_BlC
        f_hat = ladder.add_scale(f_hat, mean_BlC, k)
    given = expected_state(model.denoiser(latents()), ladder, labels_B)
    torch.testing.assert_close(given, f_hat)


def test_another_decode_is_refused(make_model, make_ladder):
    model = restorer(make_model, "state")
    with pytest.raises(ValueError, match="decode 'best': is none of argmax, expected, draw"):
        restored(model, make_ladder(model.schedule), latents(), range(B), "best", SamplerConfig())


@pytest.mark.parametrize("condition", KINDS)
def test_blocks_computed_again_give_the_same_gradients(make_model, make_ladder, condition):
    model = restorer(make_model, condition)
    ladder, labels_B = make_ladder(model.schedule), torch.zeros(B, dtype=torch.long)
    inputs_BLC = ladder.teacher_forced_inputs(tokens(ladder)).detach()
    gradients = []
    for again in (False, True):
        hidden = model.hidden(inputs_BLC, labels_B, None, None, again, latents())
        gradients.append(
            torch.autograd.grad(hidden.square().mean(), list(model.condition.parameters()))
        )
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other)


def test_half_weights_restore(make_model, make_ladder):
    model = restorer(make_model, "cross").to(torch.bfloat16)
    ladder = make_ladder(model.schedule)
    f_hat, _ = restored(model, ladder, latents(), range(B), "expected", SamplerConfig())
    assert f_hat.isfinite().all()


@pytest.mark.parametrize("condition", KINDS)
def test_the_kernels_of_a_gpu_leave_a_condition_to_plain_code(
    make_model, make_ladder, condition, monkeypatch
):
    model = restorer(make_model, condition)
    ladder = make_ladder(model.schedule)
    plain, _ = restored(model, ladder, latents(), range(B), "draw", SamplerConfig())
    # whatever the kernels say that they can take
    monkeypatch.setattr(fused, "can_fuse", lambda *tensors: True)
    model.step, model.replays = FusedStep(model), {}
    for _ in range(3):
        again, _ = restored(model, ladder, latents(), range(B), "draw", SamplerConfig())
        torch.testing.assert_close(again, plain)
    other, _ = restored(model, ladder, 20 * latents("other"), range(B), "draw", SamplerConfig())
    assert not torch.equal(other, plain)
    assert model.replays == {}  # no record, which would keep the first image for all


# ---------------------------------------------------------------- models trained for something else


def test_completing_keeps_coarse_tokens_alone(make_model, make_ladder):
    model = make_model()
    ladder = make_ladder(model.schedule)
    given_BL = tokens(ladder)
    whole = completed(model, ladder, given_BL, model.schedule.num_scales, range(B))
    torch.testing.assert_close(whole, ladder.decode(given_BL))
    assert not torch.allclose(completed(model, ladder, given_BL, 1, range(B)), whole)


def test_repairing_redraws_unlikely_tokens_alone(make_model, make_ladder):
    model = make_model(history=0, mask_prob=1.0)
    ladder = make_ladder(model.schedule)
    given_BL = tokens(ladder)
    kept = repaired(model, ladder, given_BL, range(B), 1e-30, 2)
    torch.testing.assert_close(kept, ladder.decode(given_BL))
    assert not torch.allclose(repaired(model, ladder, given_BL, range(B), 0.999, 2), kept)


# ---------------------------------------------------------------- cost


def test_a_condition_is_counted(model_config):
    sampler, shape = SamplerConfig(), dict(num_classes=0, history=0)
    plain = sampling_cost(model_config(**shape), sampler)
    costs = {kind: sampling_cost(model_config(**shape, condition=kind), sampler) for kind in KINDS}
    assert {cost.token_evals for cost in costs.values()} == {plain.token_evals}
    L, D, E, M = 14, 16, 2, SIDE**2
    # a multiply-add is two
    assert costs["state"].flops - plain.flops == 2 * L * C * D
    keys = 2 * M * (C * D + E * 2 * D * D)
    queries = E * (2 * L * 2 * D * D + 4 * L * M * D)
    assert costs["cross"].flops - plain.flops == keys + queries
    moved = {
        kind: sum(sampling_bytes(model_config(**shape, condition=kind), sampler, 2))
        for kind in ("none", *KINDS)
    }
    # its weights once, what is added written once and read once
    assert moved["state"] - moved["none"] == 4 * (C * D + D + 2 * 2 * L * D)
    assert moved["cross"] == moved["tokens"] > moved["state"]


# ---------------------------------------------------------------- from a model that is told nothing


@pytest.mark.parametrize("condition", KINDS)
def test_a_restoration_starts_as_its_teacher_without_a_class(make_model, make_ladder, condition):
    """Catches another row of the class embedding, and a condition that is not silent at first."""
    teacher = make_model(num_classes=3, history=0)
    fresh = ScaleTransformer(told_config(teacher, condition))
    fresh.init_weights(generator("fresh"))
    drawn = {name: value.clone() for name, value in fresh.state_dict().items()}
    fresh.load_state_dict(restorer_weights(teacher, fresh))
    ladder, none_B = make_ladder(teacher.schedule), torch.full((B,), teacher.config.null_label)
    inputs_BLC = ladder.teacher_forced_inputs(tokens(ladder))
    wanted_BLV = teacher(inputs_BLC, none_B)
    given_BLV = fresh(inputs_BLC, torch.zeros_like(none_B), degraded_BChw=latents())
    assert torch.equal(given_BLV, wanted_BLV)
    own = {name for name in drawn if name.startswith("condition.")}
    assert own and all(torch.equal(fresh.state_dict()[name], drawn[name]) for name in own)


def told_config(teacher, condition):
    return teacher.config.model_copy(update={"num_classes": 0, "condition": condition})


def test_what_no_restoration_can_start_from(make_model):
    told = restorer(make_model, "state")
    problem = restorer_misfit(told.config, told.config)
    assert "the teacher's is state; a restoration starts" in problem
    teacher = make_model(num_classes=3, class_dropout=0.0)
    student = told_config(teacher, "state")
    assert "without a class, which it never saw" in restorer_misfit(teacher.config, student)
    twice = told_config(make_model(num_classes=3, patch_nums=(1, 2, 2, 4)), "state")
    problem = restorer_misfit(make_model(num_classes=3).config, twice)
    assert "sides repeat; leave distill out" in problem, "another arm tells no image"
    teacher = make_model(num_classes=3)
    other = told_config(make_model(num_classes=3, depth=4), "state")
    with pytest.raises(ValueError, match="depth 4: the teacher's is"):
        restorer_weights(teacher, ScaleTransformer(other))


# ---------------------------------------------------------------- on disk, and what is refused


@pytest.mark.parametrize("condition", KINDS)
def test_a_model_that_restores_is_saved_and_read(make_model, make_ladder, condition, tmp_path):
    model = restorer(make_model, condition)
    save_model(tmp_path / "m.safetensors", model)
    again = load_model(tmp_path / "m.safetensors", expect=model.config)
    ladder = make_ladder(model.schedule)
    given = ladder, latents(), range(B), "argmax", SamplerConfig()
    assert torch.equal(restored(again, *given)[0], restored(model, *given)[0])


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"num_classes": 3}, "num_classes 3: condition cross is told the image and no class"),
        (
            {"mask": "block_diagonal"},
            "mask 'block_diagonal': condition cross goes with history alone",
        ),
        ({"mask_prob": 0.5}, "mask_prob 0.5: condition cross draws every scale once"),
        ({"head": "gauss"}, "head gauss: condition cross is of a model of codes"),
    ],
)
def test_what_does_not_go_with_a_condition_is_refused(changes, words):
    shape = dict(patch_nums=(1, 2, 3), depth=1, width=8, heads=1, num_classes=0)
    with pytest.raises(ValueError, match=words):
        ModelConfig(**{**shape, "condition": "cross", **changes})


def test_guidance_is_refused(model_config):
    model = model_config(condition="state", num_classes=0)
    problem = sampler_misfit(SamplerConfig(cfg_scale=1.5), model)
    assert problem.startswith("cfg_scale 1.5: guides by a class, and condition state knows none")
    assert sampler_misfit(SamplerConfig(), model) is None


def test_images_and_models_that_do_not_go_together(make_model, make_ladder):
    plain, told = make_model(num_classes=0), restorer(make_model, "state")
    ladder, labels_B = make_ladder(told.schedule), torch.zeros(B, dtype=torch.long)
    with pytest.raises(ValueError, match="condition state needs the degraded images"):
        generate(told, ladder, labels_B, range(B), SamplerConfig())
    with pytest.raises(ValueError, match="given to a model of condition none; leave them out"):
        generate(plain, ladder, labels_B, range(B), SamplerConfig(), degraded_BChw=latents())
    with pytest.raises(ValueError, match="2 degraded images for 3 labels"):
        generate(told, ladder, labels_B, range(B), SamplerConfig(),
                 degraded_BChw=latents(batch=2))  # fmt: skip
    with pytest.raises(ValueError, match=r"degraded latent of shape \(3, 4, 2, 2\)"):
        told.denoiser(latents()[..., :2, :2])


def test_what_a_model_is_told_of_an_image(make_tokenizer):
    tokenizer = make_tokenizer()
    images_BCHW = normal("images", 2, 1, 8, 8).clamp(-1, 1)
    ladder = tokenizer.at(tokenizer.config.schedule)
    latent_BChw = condition_latent("state", tokenizer, ladder, images_BCHW)
    assert torch.equal(latent_BChw, tokenizer.to_latent(images_BCHW))
    assert torch.equal(condition_latent("cross", tokenizer, ladder, images_BCHW), latent_BChw)
    own_BL = tokenizer.encode(images_BCHW)
    state = condition_latent("tokens", tokenizer, ladder, images_BCHW)
    torch.testing.assert_close(state, ladder.decode(own_BL))
