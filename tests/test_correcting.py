"""Trainings that meet errors: wrong codes, and rollouts."""

import json
from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from test_config import edited
from test_ranks import Bench, steps

from bench.pipeline.correcting import Requantising, RollingOut, corrects
from bench.pipeline.trainer import Trainer
from bench.runtime.verb import Run
from bench.study.errors import ConfigError
from bench.study.names import dump
from bench.study.plan import load_study
from bench.study.settings import TrainingConfig
from srdd.corruption import correct, wrong_codes
from srdd.draw import draw_tokens
from srdd.loss import next_scale_cross_entropy, token_losses
from srdd.noise import generator
from srdd.schedule import ScaleSchedule

SCHEDULE, V = ScaleSchedule((1, 2, 3, 4)), 7


@pytest.fixture
def ladder(make_ladder):
    return make_ladder(SCHEDULE)


@pytest.fixture
def latent():
    return torch.randn(6, 4, 4, 4, generator=generator("latent"))


def wrong(noise, scales=None, images=6, name="wrong"):
    return wrong_codes(SCHEDULE, images, noise, scales, V, generator(name))


# ---------------------------------------------------------------- wrong codes


def test_without_noise_it_is_the_encoder(ladder, latent):
    """Catches another order of sums or of scales: bit by bit."""
    wanted_BL, _ = ladder.encode(latent)
    for given_BL in correct(ladder, latent, wrong(0.0)):
        assert torch.equal(given_BL, wanted_BL)


def test_tokens_are_the_codes_of_what_is_left(ladder, latent):
    """Catches targets of the clean ladder, and states that go on from the right code."""
    wrong_BL = wrong(1.0)
    seen_BL, tokens_BL = correct(ladder, latent, wrong_BL)
    assert torch.equal(seen_BL[wrong_BL >= 0], wrong_BL[wrong_BL >= 0])
    assert torch.equal(seen_BL[wrong_BL < 0], tokens_BL[wrong_BL < 0])
    before_BChw = torch.zeros_like(latent)
    for k, (piece, after_BChw) in enumerate(zip(SCHEDULE.slices, ladder.states(seen_BL))):
        rest_BlC = ladder.read_scale(latent - before_BChw, k)
        assert torch.equal(tokens_BL[:, piece], ladder.quantizer.nearest_code(rest_BlC))
        before_BChw = after_BChw


def test_the_last_scale_repairs_what_clean_targets_leave(make_tokenizer):
    """Catches a correction that corrects nothing: with the same wrong codes the last scale lowers
    the error of the latent more than the codes of the clean ladder do."""
    tokenizer = make_tokenizer(patch_nums=(1, 2, 4), codebook_size=64)
    ladder = tokenizer.at(ScaleSchedule((1, 2, 4)))
    images = torch.rand(8, 1, 8, 8, generator=generator("images")) * 2 - 1
    latent_BChw = tokenizer.to_latent(images).detach()
    wrong_BL = wrong_codes(ladder.schedule, 8, 1.0, 2, 64, generator("wrong"))
    seen_BL, tokens_BL = correct(ladder, latent_BChw, wrong_BL)
    clean_BL, last = ladder.encode(latent_BChw)[0], ladder.schedule.slices[-1]
    assert (wrong_BL[:, last] == -1).all() and (wrong_BL >= 0).any()

    def error(last_Bl):
        given_BL = torch.cat((seen_BL[:, : last.start], last_Bl), 1)
        return (ladder.decode(given_BL) - latent_BChw).square().mean().item()

    assert error(tokens_BL[:, last]) < error(clean_BL[:, last])


@pytest.mark.parametrize("scales", [None, 1, 3])
def test_noise_falls_on_the_first_scales_with_its_share(scales):
    """Catches noise on the scale that none reads, one strength for a whole batch, and a share that
    is s and not uniform up to it."""
    wrong_BL = wrong(0.6, scales, images=4000)
    hit_BL = wrong_BL >= 0
    touched = 3 if scales is None else scales
    for k, piece in enumerate(SCHEDULE.slices):
        share = hit_BL[:, piece].float().mean().item()
        assert share == pytest.approx(0.3 if k < touched else 0.0, abs=0.03)
    if touched == 3:
        counts_B = hit_BL[:, SCHEDULE.slices[2]].sum(1).double()
        # uniform in (0, s) of each image: n m (1 - m) of a binomial, plus n (n - 1) s^2/12
        assert counts_B.var().item() == pytest.approx(9 * 0.3 * 0.7 + 72 * 0.36 / 12, rel=0.1)
    codes = wrong_BL[hit_BL].bincount(minlength=V).float()
    assert (codes / codes.sum() - 1 / V).abs().max() < 0.04


# ---------------------------------------------------------------- trainings


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("correcting"))


def trainer_of(bench, out, correction, **training):
    """A trainer of the model without masks."""
    run_id = bench.find("train", "hNone")
    needed = bench.plan.jobs[run_id].inputs
    folders = {role: bench.root / folder for role, folder in needed.items()}
    clean = {"corruption": "none", "eps": 0.0}
    made = bench.config(run_id, out.name, correction=correction, **clean, **training)
    about = json.loads(made.read_text())
    about["config"]["model"]["mask_prob"] = 0.0
    made.write_text(json.dumps(about))
    options = Namespace(config=made, out=out, device="cpu", **folders)
    name = correction if isinstance(correction, str) else correction["name"]
    return (corrects(name) or Trainer)(Run("train", options, tuple(folders)))


def test_no_correction_is_the_plain_training():
    """Catches a default that renames trainings or takes another class."""
    assert corrects("none") is None
    off, named, on = (
        dump(TrainingConfig(**changes))
        for changes in ({}, {"correction": "none"}, {"correction": "requantise"})
    )
    assert off == named and "correction" not in off
    assert on == {**off, "correction": {"name": "requantise"}}


def test_requantising_without_noise_takes_the_steps_of_a_plain_training(bench, tmp_path):
    """Catches another batch, another order of random numbers, images of other rows."""
    plain = trainer_of(bench, tmp_path / "plain", "none")
    none = trainer_of(bench, tmp_path / "s0", {"name": "requantise", "noise": 0.0})
    assert isinstance(none, Requantising)
    assert steps(none, 3) == steps(plain, 3)


CORRECTIONS = {
    "requantise": {"name": "requantise", "noise": 0.5},
    "rollout": {"name": "rollout"},
    "rollout drawn": {"name": "rollout", "draw": "drawn", "target": "requantised", "weight": 1.0},
}


@pytest.mark.parametrize("case", CORRECTIONS)
def test_micro_batches_take_the_same_steps(bench, tmp_path, case):
    """Catches errors that are drawn anew for each part of a batch, and sums that are divided by a
    part's number of tokens."""
    whole = trainer_of(bench, tmp_path / "one", CORRECTIONS[case])
    parts = trainer_of(bench, tmp_path / "four", CORRECTIONS[case], accumulate=4)
    assert steps(whole, 3) == pytest.approx(steps(parts, 3), rel=1e-4)


def test_requantising_predicts_the_corrected_tokens(bench, tmp_path):
    """Catches a loss of clean tokens, or states of clean ones: by hand from one batch."""
    trainer = trainer_of(bench, tmp_path / "a", {"name": "requantise", "noise": 1.0})
    batch = trainer.batch(0)
    latent_BChw = trainer.latent(batch.images_BCHW)
    seen_BL, tokens_BL = correct(trainer.ladder, latent_BChw, batch.wrong_BL)
    assert torch.equal(trainer.ladder.encode(latent_BChw)[0], batch.tokens_BL)
    with torch.autocast("cpu", torch.bfloat16):  # of training.precision
        low = trainer.corrected(batch.images_BCHW, batch.wrong_BL)
    assert all(map(torch.equal, low, (seen_BL, tokens_BL)))
    inputs_BLC = trainer.ladder.teacher_forced_inputs(seen_BL)
    logits_BLV = trainer.model(inputs_BLC, batch.labels_B, batch.paths_E2B)
    wanted = next_scale_cross_entropy(logits_BLV, tokens_BL).item()
    assert trainer.loss(batch)[0].item() == pytest.approx(wanted, rel=1e-5)
    assert not torch.equal(tokens_BL, batch.tokens_BL)


@pytest.mark.parametrize("target", ["teacher", "clean", "requantised"])
@pytest.mark.parametrize("draw", ["argmax", "drawn"])
def test_a_rollout_adds_the_loss_of_the_scale_after_its_own_tokens(bench, tmp_path, draw, target):
    """Catches a second pass over true tokens, at another scale, or with another target: by hand
    for every scale."""
    settings = {"name": "rollout", "draw": draw, "target": target, "weight": 0.5}
    trainer = trainer_of(bench, tmp_path / "a", settings)
    assert isinstance(trainer, RollingOut)
    slices, ladder, seen = trainer.model.schedule.slices, trainer.ladder, set()
    for step in range(12):
        batch = trainer.batch(step)
        if batch.scale in seen:
            continue
        seen.add(batch.scale)
        here, there = slices[batch.scale], slices[batch.scale + 1]
        given = batch.labels_B, batch.paths_E2B
        with torch.no_grad():
            first_BLV = trainer.model(ladder.teacher_forced_inputs(batch.tokens_BL), *given)
            own_Bl = first_BLV[:, here].argmax(-1)
            if draw == "drawn":
                own_Bl = draw_tokens(first_BLV[:, here], batch.uniform_Bl)
            rolled_BL = batch.tokens_BL.clone()
            rolled_BL[:, here] = own_Bl
            states = list(ladder.states(rolled_BL))
            again_BLV = trainer.model(ladder.teacher_forced_inputs(rolled_BL), *given)
            wanted_Bl = {
                "teacher": first_BLV[:, there].argmax(-1),
                "clean": batch.tokens_BL[:, there],
            }
            if target == "requantised":
                latent_BChw = trainer.latent(batch.images_BCHW)
                rest_BlC = ladder.read_scale(latent_BChw - states[batch.scale], batch.scale + 1)
                wanted_Bl["requantised"] = ladder.quantizer.nearest_code(rest_BlC)
            plain = next_scale_cross_entropy(first_BLV, batch.tokens_BL).item()
            more = token_losses(again_BLV[:, there].contiguous(), wanted_Bl[target]).mean().item()
            total, reported = (value.item() for value in trainer.loss(batch))
        assert reported == pytest.approx(plain, rel=1e-5)
        assert total == pytest.approx(plain + 0.5 * more, rel=1e-4)
    assert seen == set(range(len(slices) - 1))


def test_what_is_measured_reads_clean_tokens(bench, tmp_path):
    """Catches held-out losses of another task: those of equal weights are equal."""
    found = []
    for name in ("none", "requantise", "rollout"):
        trainer = trainer_of(bench, tmp_path / name, name)
        found.append(trainer.one_pass(trainer.averaged(), trainer.split("val")))
    assert found[0] == found[1] == found[2]


def test_a_part_of_a_rollout_holds_its_own_numbers(bench, tmp_path):
    """Catches draws of other images in a micro-batch."""
    batch = trainer_of(bench, tmp_path / "a", "rollout").batch(1)
    part = batch.part(slice(2, 5))
    assert part.scale == batch.scale and part.images_BCHW is None
    assert torch.equal(part.uniform_Bl, batch.uniform_Bl[2:5])
    assert replace(part, scale=0).images == batch.images


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "settings, words",
    [
        ("requantize", "'none', 'requantise' or 'rollout'"),
        ({"name": "requantise", "noise": 1.5}, "less than or equal to 1"),
        ({"name": "requantise", "weight": 0.5}, "weight 0.5: requantise does not read it"),
        ({"name": "rollout", "noise": 0.1}, "noise 0.1: rollout does not read it"),
        ({"noise": 0.1}, "noise 0.1: none does not read it"),
        ({"name": "rollout", "weight": 0.0}, "greater than 0"),
        (3, "valid dictionary"),
    ],
)
def test_settings_that_nothing_reads_are_refused(settings, words):
    """Catches a knob that is turned without effect."""
    with pytest.raises(ValidationError, match=words):
        TrainingConfig(correction=settings)


def case(*words, **changes):
    return {key.replace("__", "/"): value for key, value in changes.items()}, words


BAD = {
    "one scale": case(
        "training.correction: 'rollout' needs a scale that reads another's errors",
        bases__var__model__patch_nums=[4], bases__var__training__correction="rollout",
    ),
    "all scales": case(
        "training.correction.scales: 3: the last of 3 scales is read by none; give 2 or fewer",
        bases__var__training__correction={"name": "requantise", "scales": 3},
    ),
    "masks": case(
        "training.correction: 'requantise' beside model.mask_prob 0.5",
        bases__var__training__correction="requantise", bases__var__model__mask_prob=0.5,
    ),
    "corruption": case(
        "training.correction: 'rollout' beside corruption 'uniform'",
        bases__var__training__correction="rollout",
        bases__var__training__corruption="uniform", bases__var__training__eps=0.1,
    ),
    "regression": case(
        "training.correction: 'requantise' changes tokens, and head gauss predicts none",
        bases__var__training__correction="requantise", bases__var__model__head="gauss",
        bases__var__sampler__name="gauss",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_study_is_refused_in_one_line(tmp_path, name):
    """Catches an error of shapes in the first step of a training."""
    changes, words = BAD[name]
    with pytest.raises(ConfigError) as refused:
        load_study(edited(tmp_path, **changes))
    assert all(word in str(refused.value) for word in words) and "\n" not in str(refused.value)
