"""What a scale reads of those before: their sum, the last of them, or the one that replaces it."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from test_config import edited

from bench.pipeline.held_out import HeldOut, one_pass_loss
from bench.runtime.ranks import Ranks
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from srdd.config import ModelConfig, SamplerConfig
from srdd.corruption import correct
from srdd.diffusion import markov_logits, markov_view, second_path
from srdd.likelihood import scale_scores
from srdd.loss import by_scale, token_losses, tokenizer_loss
from srdd.misfits import cca_misfit, logit_teacher_misfit, sampler_misfit
from srdd.noise import ImageNoise, generator
from srdd.sampling import generate
from srdd.schedule import ScaleSchedule

SCHEDULE = ScaleSchedule((1, 2, 3))
STATES = ("sum", "last", "replace")


@pytest.fixture
def ladder_of(make_ladder):
    def make(state, schedule=SCHEDULE):
        ladder = make_ladder(schedule)
        ladder.quantizer.combine = "replace" if state == "replace" else "sum"
        return ladder.read_as(state)

    return make


def tokens(batch=3, schedule=SCHEDULE):
    return torch.randint(7, (batch, schedule.seq_len), generator=generator("tokens"))


def added(ladder, tokens_BL):
    """What each scale adds, up-sampled and through phi, by the quantizer's own parts."""
    maps, quantizer = [], ladder.quantizer
    for k, piece in enumerate(SCHEDULE.slices):
        codes_BlC = quantizer.embed(tokens_BL[:, piece])
        maps.append(replace(ladder, state="sum").add_scale(ladder.empty_state(3), codes_BlC, k))
    return maps


# ---------------------------------------------------------------- ladders


def test_what_scales_add_sums_to_the_state(ladder_of):
    """Catches a contribution that is not what the sum is made of."""
    ladder = ladder_of("sum")
    maps = added(ladder, tokens())
    for k, f_hat_BChw in enumerate(ladder.states(tokens())):
        assert torch.allclose(f_hat_BChw, sum(maps[: k + 1]), atol=1e-5)


@pytest.mark.parametrize("state", STATES)
def test_a_scale_reads_what_its_state_says(ladder_of, state):
    """Catches a model that reads the sum in training and the last scale in sampling: every input
    by hand from what scales add."""
    ladder, tokens_BL = ladder_of(state), tokens()
    maps, inputs_BLC = added(ladder, tokens_BL), ladder.teacher_forced_inputs(tokens_BL)
    for k in range(1, 3):
        seen_BChw = sum(maps[:k]) if state == "sum" else maps[k - 1]
        wanted_BlC = ladder.read_scale(seen_BChw, k)
        assert torch.allclose(inputs_BLC[:, SCHEDULE.slices[k]], wanted_BlC, atol=1e-5)
    whole_BChw = maps[-1] if state == "replace" else sum(maps)
    assert torch.allclose(ladder.decode(tokens_BL), whole_BChw, atol=1e-5)


def test_the_sum_is_read_as_it_was(ladder_of):
    """Catches another object, and another order of sums, where the dial is off."""
    ladder = ladder_of("sum")
    assert ladder.read_as("sum") is ladder and ladder.read_as("replace") is ladder
    f_hat_BChw, codes_BlC = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 4)
    after_BChw, seen_BChw = ladder.after(f_hat_BChw, codes_BlC, 1)
    assert after_BChw is seen_BChw
    assert torch.equal(after_BChw, ladder.add_scale(f_hat_BChw, codes_BlC, 1))


def test_tokens_of_a_ladder_that_replaces_stand_for_the_latent_alone(ladder_of):
    """Catches residuals of a sum: each scale is the nearest code of the latent, whatever the
    others are."""
    ladder, latent_BChw = ladder_of("replace"), torch.randn(2, 4, 3, 3)
    tokens_BL, f_hat_BChw = ladder.encode(latent_BChw)
    for k, piece in enumerate(SCHEDULE.slices):
        nearest_Bl = ladder.quantizer.nearest_code(ladder.read_scale(latent_BChw, k))
        assert torch.equal(tokens_BL[:, piece], nearest_Bl)
    other_BL = tokens_BL.clone()
    other_BL[:, :5] = (other_BL[:, :5] + 1) % 7
    for state in ("sum", "last"):  # what the last scale added is all of it
        assert torch.equal(ladder.read_as(state).decode(other_BL), f_hat_BChw)
    seen_BL, corrected_BL = correct(
        ladder, latent_BChw, torch.where(torch.rand(2, 14) < 0.5, 3, -1)
    )
    assert torch.equal(corrected_BL, tokens_BL) and not torch.equal(seen_BL, tokens_BL)
    assert torch.equal(second_path(ladder, latent_BChw, tokens_BL)[:, 1:], tokens_BL[:, 1:])


def test_of_one_scale_replacing_is_adding(ladder_of):
    """Catches a factor or a phi that one of them lacks: bit by bit."""
    one = ScaleSchedule((3,))
    latent_BChw = torch.randn(2, 4, 3, 3)
    (a_BL, a_BChw), (b_BL, b_BChw) = (
        ladder_of(state, one).encode(latent_BChw) for state in ("sum", "replace")
    )
    assert torch.equal(a_BL, b_BL) and torch.equal(a_BChw, b_BChw)


def test_a_tokenizer_that_replaces_is_trained_so(make_tokenizer, tokenizer_config):
    """Catches a loss of the sum, and other weights than those of a tokenizer that adds."""
    add, swap = (make_tokenizer(combine=combine) for combine in ("sum", "replace"))
    weights = add.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in swap.state_dict().items())
    assert "combine" not in tokenizer_config().model_dump_json(exclude_defaults=True)
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    schedule = swap.config.schedule
    found = tokenizer_loss(swap, images, schedule, entropy=0.1)
    latent_BChw = swap.to_latent(images)
    for k, residual_BlC in enumerate(found.residuals):
        assert torch.equal(residual_BlC, swap.at(schedule).read_scale(latent_BChw, k))
    last_BlC = swap.quantizer.embed(found.tokens[-1])
    last_BChw = swap.at(schedule).add_scale(torch.zeros_like(latent_BChw), last_BlC, 2)
    assert torch.allclose(found.images, swap.to_image(last_BChw), atol=1e-5)


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("name", ["var", "srdd"])
@pytest.mark.parametrize("history", [0, None])
@pytest.mark.parametrize("state", STATES)
def test_samples_read_what_training_reads(make_model, ladder_of, state, history, name):
    """Catches a sampler that goes on from another state: tokens are the likeliest of teacher-forced
    logits on themselves."""
    model, ladder = make_model(history=history, state=state), ladder_of(state).read_as("sum")
    labels_B, sampler = torch.arange(3), SamplerConfig(name=name, top_k=1)
    tokens_BL, f_hat_BChw = generate(model, ladder, labels_B, [1, 2, 3], sampler)
    inputs_BLC = ladder.read_as(state).teacher_forced_inputs(tokens_BL)
    assert torch.equal(model(inputs_BLC, labels_B).argmax(-1), tokens_BL)
    assert torch.allclose(f_hat_BChw, ladder.decode(tokens_BL), atol=1e-5)


@pytest.mark.parametrize("state", ["last", "replace"])
def test_whoever_measures_reads_it_too(make_model, ladder_of, state):
    """Catches losses and likelihoods of a model at states that it never saw."""
    model, plain = make_model(history=0, state=state), ladder_of(state).read_as("sum")
    ladder, tokens_BL, labels_B = plain.read_as(state), tokens(), torch.arange(3)
    logits_BLV = model(ladder.teacher_forced_inputs(tokens_BL), labels_B)
    losses_BL = token_losses(logits_BLV, tokens_BL)
    data = HeldOut(
        "test", tokens_BL.numpy(), labels_B.numpy(), ladder, torch.device("cpu"), Ranks()
    )
    found = one_pass_loss(model, data).by_scale
    assert found == pytest.approx(by_scale(losses_BL, SCHEDULE).tolist(), rel=1e-5)
    scores_BCK = scale_scores(model, plain, tokens_BL, labels_B[:, None])
    for k, piece in enumerate(SCHEDULE.slices):
        assert torch.allclose(
            scores_BCK[:, 0, k].float(), -losses_BL[:, piece].sum(1), rtol=1e-4, atol=1e-4
        )
    view_BLV = markov_logits(markov_view(model).denoiser(), ladder, tokens_BL, labels_B)
    assert torch.allclose(view_BLV, logits_BLV, atol=1e-4)


def test_weights_and_names_know_no_state(model_config):
    """Catches a default that renames models."""
    assert "state" not in model_config(state="sum").model_dump_json(exclude_defaults=True)


def test_noise_of_an_image_is_the_same_for_every_state(make_model, ladder_of):
    """Catches a state that takes random numbers: the first scale is drawn alike."""
    drawn = []
    for state in STATES:
        model = make_model(history=0, state=state)
        plain = ladder_of(state).read_as("sum")
        drawn.append(generate(model, plain, torch.arange(2), [4, 5], SamplerConfig())[0])
    assert all(torch.equal(drawn[0][:, :1], other[:, :1]) for other in drawn)
    assert ImageNoise([4], torch.device("cpu")).uniform(1).shape == (1, 1)


# ---------------------------------------------------------------- bad input


def test_a_ladder_of_another_kind_is_refused(make_model, ladder_of):
    """Catches tokens of a sum that are read as if they replaced."""
    for state, other in (("sum", "replace"), ("replace", "sum")):
        model = make_model(history=0, state=state)
        with pytest.raises(ValueError, match="^ladder of a tokenizer whose scales"):
            generate(model, ladder_of(other), torch.arange(1), [0], SamplerConfig())


def test_what_reads_the_sum_refuses_the_last(model_config):
    """Catches samplers, heads and teachers that would read the sum without a word."""
    last, whole = model_config(history=0, state="last"), model_config(history=0)
    assert "reads the sum of all scales" in sampler_misfit(SamplerConfig(name="mine"), last)
    assert sampler_misfit(SamplerConfig(), last) is None
    assert logit_teacher_misfit(whole, last).startswith("state last: the teacher's is sum")
    assert cca_misfit(whole, last, 0.1).startswith("state last: the teacher's is sum")
    with pytest.raises(ValidationError, match="state last: head gauss reads the sum"):
        ModelConfig(patch_nums=(1, 2), history=0, state="last", head="gauss")


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"bases/var/model/state": "replace"},
            "'replace' does not fit tokenizer.config.combine 'sum'",
        ),
        (
            {"bases/var/tokenizer/config/combine": "replace", "bases/var/model/state": "sum"},
            "'sum' does not fit tokenizer.config.combine 'replace'",
        ),
        ({"bases/var/model/state": "first"}, "'sum', 'last' or 'replace'"),
    ],
)
def test_a_study_is_refused_in_one_line(tmp_path, changes, words):
    """Catches a model of one ladder on tokens of another."""
    with pytest.raises(ConfigError, match=words):
        load_study(edited(tmp_path, **changes))


def test_the_state_follows_from_the_tokenizer(tmp_path):
    """Catches a setting that has to be said twice."""
    plan = load_study(edited(tmp_path, **{"bases/var/tokenizer/config/combine": "replace"}))
    trains = [job for name, job in plan.jobs.items() if name.startswith("train/")]
    assert trains and all(job.config["model"]["state"] == "replace" for job in trains)
