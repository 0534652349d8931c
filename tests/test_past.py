"""The history vector: what earlier scales read, pooled into what a scale adds to its tokens."""

import pytest
import torch
from pydantic import ValidationError

from srdd.config import ModelConfig, SamplerConfig
from srdd.cost import sampling_bytes, sampling_cost
from srdd.diffusion import markov_logits, markov_view
from srdd.distillation import student_weights
from srdd.likelihood import scale_scores
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.past import reach
from srdd.sampling import generate, guided_denoiser
from srdd.schedule import ScaleSchedule

SIDES, K = (1, 2, 3, 4), 4
SCHEDULE = ScaleSchedule(SIDES)
SIZES = {"patch_nums": SIDES, "history": 0, "class_dropout": 0.1}


@pytest.fixture
def model_of(make_model):
    return lambda N, **more: make_model(history_vector=N, **SIZES, **more)


def inputs(batch=3):
    """Inputs of all scales and classes, some of none."""
    rng = generator("inputs")
    return torch.randn(batch, SCHEDULE.seq_len, 4, generator=rng), torch.arange(batch) % 4


def initial(model_config, N, **more):
    model = ScaleTransformer(model_config(history_vector=N, **SIZES, **more))
    model.init_weights(generator("start"))
    return model.eval()


@pytest.mark.parametrize("more", [{}, {"mask_prob": 0.5}, {"shared_adaln": True}])
def test_a_model_with_it_starts_as_the_same_model_without(model_config, more):
    """Catches weights that are drawn before others and move them, and a first step that is not
    that of SDD: bit by bit."""
    plain, vector = (initial(model_config, N, **more) for N in (0, 3))
    theirs = plain.state_dict()
    ours = vector.state_dict()
    assert {name for name in ours if name not in theirs} == {
        "past.query", "past.keys_values.weight", "past.out.weight"
    }  # fmt: skip
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    assert torch.equal(plain(*inputs()), vector(*inputs()))
    assert ours["past.keys_values.weight"].std() > 0.05 and ours["past.query"].std() > 0.05


def test_off_is_no_weight_and_no_name(model_config):
    """Catches a default that renames trainings, and a module that is there without use."""
    plain, off = model_config(), model_config(history_vector=0)
    assert plain == off and ScaleTransformer(off).past is None
    assert "history_vector" not in off.model_dump_json(exclude_defaults=True)


@pytest.mark.parametrize("N", [1, 2, 3, 5])
def test_a_scale_sees_the_inputs_of_the_last_scales_alone(model_of, N):
    """Catches a pool that leaks from finer scales, or reaches further: which inputs the gradient of
    a scale's logits touches."""
    model, (inputs_BLC, labels_B) = model_of(N), inputs()
    inputs_BLC.requires_grad_()
    for k, piece in enumerate(SCHEDULE.slices):
        (grad_BLC,) = torch.autograd.grad(model(inputs_BLC, labels_B)[:, piece].sum(), inputs_BLC)
        touched = {j for j, other in enumerate(SCHEDULE.slices) if grad_BLC[:, other].any()}
        assert touched == (set(range(max(1, k - N + 1), k + 1)) if k else set())


def test_the_pool_is_attention_of_one_query(model_of):
    """Catches heads that are cut wrongly: by an explicit softmax."""
    past, H, D = model_of(3).past, 2, 16
    embedded_BnD = torch.randn(2, 5, D, generator=generator("embedded"))
    key_BnD, value_BnD = past.project(embedded_BnD).split(D, -1)
    pooled = []
    for head in range(H):
        part = slice(head * D // H, (head + 1) * D // H)
        weight_Bn = (key_BnD[..., part] @ past.query[part] / (D // H) ** 0.5).softmax(-1)
        pooled.append((weight_Bn[..., None] * value_BnD[..., part]).sum(1))
    assert torch.allclose(
        past.pool(past.project(embedded_BnD)), past.out(torch.cat(pooled, -1)), atol=1e-5
    )


def test_weights_are_those_of_the_specification(model_config):
    """Catches a bias too many: 3 D^2 + D."""
    sizes = [
        sum(
            p.numel()
            for p in ScaleTransformer(model_config(history_vector=N, **SIZES)).parameters()
        )
        for N in (0, 1, 3)
    ]
    assert sizes[1] == sizes[2] == sizes[0] + 3 * 16 * 16 + 16


@pytest.mark.parametrize("history", [0, 1])
@pytest.mark.parametrize("N", [1, 2, 3, 9])
def test_scale_by_scale_is_all_at_once(make_model, N, history):
    """Catches a sampler that pools something else than training did, and a second call of a scale
    that adds to the first instead of replacing it."""
    model = make_model(history_vector=N, **{**SIZES, "history": history})
    inputs_BLC, labels_B = inputs()
    whole_BLV, denoise = model(inputs_BLC, labels_B), model.denoiser()
    for _ in range(2):  # a cache that a second sample goes on with
        for k, piece in enumerate(SCHEDULE.slices):
            denoise(torch.randn_like(inputs_BLC[:, piece]), k, labels_B)
            logits_BlV = denoise(inputs_BLC[:, piece], k, labels_B)
            assert torch.allclose(logits_BlV, whole_BLV[:, piece], atol=2e-5)


@pytest.mark.parametrize("ramp", ["linear", "constant"])
@pytest.mark.parametrize("w", [0.0, 1.7])
def test_guidance_pools_what_both_halves_read(model_of, ramp, w):
    """Catches scales that ran with one half of guidance, whose inputs a later scale pools for two
    (and the other way round): against both halves run alone."""
    model, (inputs_BLC, labels_B) = model_of(3), inputs()
    labels_B = labels_B.clamp(max=2)
    guided = guided_denoiser(model, SamplerConfig(cfg_scale=w, cfg_ramp=ramp))
    own_BLV, none_BLV = model(inputs_BLC, labels_B), model(inputs_BLC, torch.full_like(labels_B, 3))
    for k, piece in enumerate(SCHEDULE.slices):
        at = w if ramp == "constant" else 1 + (w - 1) * k / (K - 1)
        wanted = none_BLV[:, piece] + at * (own_BLV[:, piece] - none_BLV[:, piece])
        assert torch.allclose(guided(inputs_BLC[:, piece], k, labels_B), wanted, atol=5e-5)


def test_samples_do_not_depend_on_the_batch(model_of, make_ladder):
    """Catches a pool over the images of a batch."""
    model, ladder = model_of(3), make_ladder(SCHEDULE)
    labels_B, config = torch.tensor([0, 1, 2]), SamplerConfig(cfg_scale=1.5)
    whole_BL, _ = generate(model, ladder, labels_B, [5, 6, 7], config)
    alone_BL, _ = generate(model, ladder, labels_B[1:2], [6], config)
    assert torch.equal(whole_BL[1:2], alone_BL)


def test_a_scale_is_not_asked_for_before_those_that_it_pools(model_of, make_ladder):
    """Catches a pool over fewer scales than training knew, without a word."""
    model, (inputs_BLC, labels_B) = model_of(2), inputs()
    with pytest.raises(ValueError, match="^scale 3 asked for before scale 2, which its history"):
        model.denoiser()(inputs_BLC[:, SCHEDULE.slices[3]], 3, labels_B)
    tokens_BL = torch.randint(7, (2, SCHEDULE.seq_len))
    with pytest.raises(ValueError, match="give the first ones"):
        scale_scores(model, make_ladder(SCHEDULE), tokens_BL, torch.arange(3), [3])
    scores = scale_scores(model_of(1), make_ladder(SCHEDULE), tokens_BL, torch.arange(3), [3])
    assert scores.shape == (2, 3, 1)


def test_scores_of_some_scales_are_those_of_all(model_of, make_ladder):
    """Catches likelihoods that forget the past when a funnel runs the first scales only."""
    model, ladder = model_of(3), make_ladder(SCHEDULE)
    tokens_BL, labels_C = torch.randint(7, (2, SCHEDULE.seq_len)), torch.arange(3)
    whole = scale_scores(model, ladder, tokens_BL, labels_C)
    assert torch.allclose(
        scale_scores(model, ladder, tokens_BL, labels_C, [0, 1, 2]), whole[..., :3]
    )


@pytest.mark.parametrize("N", [0, 1, 2, 3])
def test_with_a_history_of_scales_it_is_not_markov_in_the_state(model_of, make_ladder, N):
    """Catches a claim of equivalence that does not hold: the view that reads the state alone is the
    model itself for N <= 1 and not beyond."""
    model, ladder = model_of(N), make_ladder(SCHEDULE)
    tokens_BL, labels_B = torch.randint(7, (2, SCHEDULE.seq_len)), torch.tensor([0, 2])
    whole_BLV = model(ladder.teacher_forced_inputs(tokens_BL), labels_B)
    view_BLV = markov_logits(markov_view(model).denoiser(), ladder, tokens_BL, labels_B)
    gap = (whole_BLV - view_BLV).abs().max().item()
    assert gap < 1e-4 if N <= 1 else gap > 1e-2


def test_a_vector_of_n_scales_reaches_n_of_them():
    """Catches N earlier scales beside the own one, and the first, which reads nothing."""
    assert list(reach(3, 3)) == [1, 2, 3] and list(reach(3, 1)) == [1]


def test_its_cost_is_counted(model_config):
    """Catches a network whose extra products and kept inputs cost nothing."""
    sampler = SamplerConfig()
    plain, own, vector = (model_config(history_vector=N, **SIZES) for N in (0, 1, 3))
    flops = [sampling_cost(one, sampler).by_scale for one in (plain, own, vector)]
    D, C, length = 16, 4, 16  # of the last scale
    # input and keys and values of its tokens, the output layer, one query against so many keys
    for (_, _, more), keys in zip((flops[1][-1], flops[2][-1]), (16, 16 + 9 + 4)):
        wanted = 2 * length * C * D + 2 * length * D * 2 * D + 2 * D * D + 4 * keys * D
        assert more - flops[0][-1][2] == wanted
    assert flops[1][0] == flops[0][0]
    moved = [sampling_bytes(one, sampler, 2, 4) for one in (plain, own, vector)]
    weights = 4 * (3 * D * D + D)
    assert [b - a for a, b in zip(moved[0], moved[1])] == [0, weights, weights, weights]
    kept = [0, 2 * 2 * D * 4, 2 * 2 * D * (9 + 4), 2 * 2 * D * (4 + 9)]
    assert [b - a for a, b in zip(moved[1], moved[2])] == [4 * numbers for numbers in kept]


def test_a_student_starts_as_its_teacher(model_of, model_config):
    """Catches a fine-tuning that starts elsewhere, and one that drops what the teacher pools."""
    teacher, config = model_of(0), model_config(history_vector=3, **SIZES)
    student = ScaleTransformer(config)
    student.load_state_dict(student_weights(teacher, config))
    assert torch.equal(student.eval()(*inputs()), teacher(*inputs()))
    again = student_weights(student, config)
    assert all(torch.equal(value, again[name]) for name, value in student.state_dict().items())
    with pytest.raises(ValueError, match="^history_vector 0: the teacher's is 3"):
        student_weights(student, model_config(**SIZES))


BAD = {
    "all scales seen": ({"history": None}, "history_vector 2: pools inputs that are seen already"),
    "a mask of one's own": ({"history": None, "mask": "mine"}, "sees what mask mine says"),
    "negative": ({"history_vector": -1}, "greater than or equal to 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_vector_that_pools_what_is_seen_is_refused(case):
    """Catches two models under two names, and a range that runs backwards."""
    changes, words = BAD[case]
    with pytest.raises(ValidationError, match=words):
        ModelConfig(**{"history_vector": 2, "history": 0, "patch_nums": SIDES, **changes})
