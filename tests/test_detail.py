"""Logits that are pushed away from what the scale before said."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.fft import dctn

from bench.study.names import canonical_sampler, unsharpened
from srdd.config import SamplerConfig
from srdd.cost import sampling_cost
from srdd.detail import dct_matrix, detail_strength, prior_matrix, sharpen
from srdd.misfits import sampler_misfit
from srdd.sampling import _repeats, generate, guided_denoiser
from srdd.schedule import ScaleSchedule

SIDES, V = (1, 2, 3), 7
SCHEDULE = ScaleSchedule(SIDES)


def config(beta=0.5, **more):
    return SamplerConfig(detail_scale=beta, **more)


def played(given):
    """A network that says what it is given, one scale after another."""
    return lambda inputs_BlC, k, labels_B, *own: given[k]


def logits(batch=2):
    return [torch.randn(batch, length, V, dtype=torch.float64) for length in SCHEDULE.lengths]


# ---------------------------------------------------------------- priors


@pytest.mark.parametrize("side", [1, 2, 3, 5, 16])
def test_the_transform_is_orthonormal(side):
    """Catches a first row that weighs otherwise: against scipy's."""
    matrix = dct_matrix(side).numpy()
    assert np.abs(matrix @ matrix.T - np.eye(side)).max() < 1e-12
    grid = np.random.default_rng(0).normal(size=(side, side))
    assert np.abs(matrix @ grid @ matrix.T - dctn(grid, norm="ortho")).max() < 1e-12


@pytest.mark.parametrize("old, new", [(1, 2), (2, 3), (3, 4), (4, 4), (10, 13), (2, 16)])
def test_dse_keeps_the_low_band_and_is_bilinear_beyond(old, new):
    """Catches a band of the wrong side, a factor that another grid needs, and an inverse that is
    none: by scipy's transform."""
    grid_mm = np.random.default_rng(0).normal(size=(old, old))
    flat_m = torch.from_numpy(grid_mm.flatten())
    made, bilinear = (
        (prior_matrix(name, old, new) @ flat_m).view(new, new).numpy() for name in ("dse", "linear")
    )
    waves, beyond = dctn(made, norm="ortho"), dctn(bilinear, norm="ortho")
    low = new / old * dctn(grid_mm, norm="ortho")
    assert np.abs(waves[:old, :old] - low).max() < 1e-12
    waves[:old, :old] = beyond[:old, :old] = 0
    assert np.abs(waves - beyond).max() < 1e-12


@pytest.mark.parametrize("prior", ["dse", "linear"])
def test_a_flat_map_stays_what_it_is(prior):
    """Catches a prior that is larger or smaller than what it is made of."""
    flat_l = prior_matrix(prior, 3, 5) @ torch.full((9,), 2.5, dtype=torch.float64)
    assert torch.allclose(flat_l, torch.full_like(flat_l, 2.5))


# ---------------------------------------------------------------- strengths


def test_ramps():
    """Catches a strength at the first scale, and ramps that are no mirror images."""
    of = {ramp: config(0.6, detail_ramp=ramp) for ramp in ("constant", "decay", "grow")}
    found = {ramp: [detail_strength(c, k, 4) for k in range(4)] for ramp, c in of.items()}
    assert found["constant"] == [0.0, 0.6, 0.6, 0.6]
    assert found["decay"] == pytest.approx([0.0, 0.6, 0.4, 0.2])
    assert found["grow"] == pytest.approx([0.0, 0.2, 0.4, 0.6])


# ---------------------------------------------------------------- round a network


def test_off_is_the_network_itself(make_model):
    """Catches a wrapper round every sample: the very object, so all bits."""
    network = played(logits())
    assert sharpen(network, SamplerConfig(), SCHEDULE) is network
    assert sharpen(network, SamplerConfig(detail_prior="none"), SCHEDULE) is network


@pytest.mark.parametrize("prior", ["dse", "linear", "none"])
def test_it_is_the_definition(prior):
    """Catches a prior of the pushed logits, of another scale, or the wrong sign: from
    log-probabilities, as the paper has them, up to a constant of each token."""
    given = logits()
    sharp = sharpen(played(given), config(0.3, detail_prior=prior), SCHEDULE)
    for k, raw_BlV in enumerate(given):
        found_BlV = sharp(None, k, None).log_softmax(-1)
        logp_BlV = raw_BlV.log_softmax(-1)
        if k == 0:
            assert torch.equal(found_BlV, logp_BlV)
            continue
        prior_BlV = torch.zeros_like(logp_BlV)
        if prior != "none":
            prior_BlV = prior_matrix(prior, SIDES[k - 1], SIDES[k]) @ given[k - 1].log_softmax(-1)
        wanted_BlV = (logp_BlV + 0.3 * (logp_BlV - prior_BlV)).log_softmax(-1)
        assert torch.allclose(found_BlV, wanted_BlV, atol=1e-12)


def test_no_prior_is_a_lower_temperature(make_model, make_ladder):
    """Catches a control that is none: (1 + beta) l is temperature 1/(1 + beta), but for the first
    scale."""
    given = logits()
    sharp = sharpen(played(given), config(0.25, detail_prior="none"), SCHEDULE)
    for k, raw_BlV in enumerate(given):
        wanted_BlV = raw_BlV if k == 0 else raw_BlV / 0.8
        assert torch.allclose(sharp(None, k, None), wanted_BlV)


def test_further_passes_are_pushed_from_the_first_pass_of_the_scale_before():
    """Catches a prior that moves with what refinement asked, also at a first scale of many
    passes, and one that is left over from another sample."""
    first, second, other = logits(), logits(), logits()
    now = list(first)
    sharp = sharpen(played(now), config(1.0), SCHEDULE)

    def push(raw_BlV, before_BlV, k):
        return raw_BlV + raw_BlV - prior_matrix("dse", SIDES[k - 1], SIDES[k]) @ before_BlV

    for sample in (first, other):
        for k in range(3):
            now[k] = sample[k]
            sharp(None, k, None)
            now[k] = second[k]
            found_BlV = sharp(None, k, None)
            wanted_BlV = push(second[k], sample[k - 1], k) if k else second[k]
            assert torch.allclose(found_BlV, wanted_BlV)


def test_a_scale_is_not_pushed_from_one_that_was_not_asked_for():
    """Catches a prior of scales long gone."""
    sharp = sharpen(played(logits()), config(), SCHEDULE)
    with pytest.raises(ValueError, match="^scale 2 asked for before scale 1"):
        sharp(None, 2, None)


def test_it_acts_on_guided_logits(make_model):
    """Catches a push of one half of guidance: against guidance and prior by hand."""
    model = make_model(history=0, class_dropout=0.1)
    labels_B = torch.tensor([0, 2])
    inputs = [torch.randn(2, n, 4) for n in SCHEDULE.lengths]
    guided, sharp = (
        guided_denoiser(model, SamplerConfig(cfg_scale=2.0, detail_scale=beta)) for beta in (0, 0.4)
    )
    raw = [guided(inputs_BlC, k, labels_B) for k, inputs_BlC in enumerate(inputs)]
    for k, inputs_BlC in enumerate(inputs):
        found_BlV, wanted_BlV = sharp(inputs_BlC, k, labels_B), raw[k]
        if k:
            prior_BlV = prior_matrix("dse", SIDES[k - 1], SIDES[k]).float() @ raw[k - 1]
            wanted_BlV = raw[k] + 0.4 * (raw[k] - prior_BlV)
        assert torch.allclose(found_BlV, wanted_BlV, atol=1e-4)


@pytest.mark.parametrize(
    "more", [{}, {"name": "srdd", "refine_steps": 2, "select": "shuffled"}, {"top_k": 3}]
)
def test_samples_by_every_sampler(make_model, make_ladder, more):
    """Catches samples that do not change, change without beta, or depend on the batch."""
    model, ladder = make_model(history=0, mask_prob=0.5), make_ladder(SCHEDULE)
    labels_B, seeds = torch.arange(3), [3, 4, 5]

    def draw(rows=slice(None), **settings):
        sampler = SamplerConfig(**more, **settings)
        return generate(model, ladder, labels_B[rows], seeds[rows], sampler)[0]

    plain_BL = draw()
    assert torch.equal(plain_BL, draw(detail_scale=0.0, detail_prior="linear"))
    assert torch.equal(plain_BL[:, :1], draw(detail_scale=3.0)[:, :1])
    assert not torch.equal(plain_BL, draw(detail_scale=3.0))
    assert torch.equal(draw(slice(1, 2), detail_scale=3.0), draw(detail_scale=3.0)[1:2])


def test_its_products_are_counted(model_config):
    """Catches a guidance that is free: a product with each scale's prior, and no call."""
    model = model_config(history=0)
    plain, sharp = (sampling_cost(model, SamplerConfig(detail_scale=beta)) for beta in (0, 1))
    assert (plain.nfe, plain.token_evals) == (sharp.nfe, sharp.token_evals)
    assert sharp.flops - plain.flops == sum(2 * a * b * V for a, b in ((1, 4), (4, 9)))


# ---------------------------------------------------------------- names and bad input


def test_off_renames_nothing_and_idle_settings_make_no_other_name():
    """Catches two names of one sampler."""
    idle = SamplerConfig(detail_ramp="grow", detail_prior="linear")
    assert canonical_sampler(idle) == canonical_sampler(SamplerConfig()) == {}
    assert canonical_sampler(config(0.1)) == {"detail_scale": 0.1}


def test_a_teacher_that_is_not_guided_draws_from_what_it_learnt():
    """Catches a student of pushed samples where none were asked for."""
    assert unsharpened(config(0.3)).detail_scale == 0


@pytest.mark.parametrize(
    "settings", [{"detail_scale": -0.1}, {"detail_ramp": "up"}, {"detail_prior": "cubic"}]
)
def test_settings_that_mean_nothing_are_refused(settings):
    """Catches a misspelt ramp, found after the first scale."""
    with pytest.raises(ValidationError):
        SamplerConfig(**settings)


def test_what_a_schedule_or_a_head_lacks_is_one_line(model_config):
    """Catches an error of shapes while images are drawn."""
    one = model_config(patch_nums=(3,), history=0)
    assert "one scale has no scale before" in sampler_misfit(config(), one)
    with pytest.raises(ValidationError, match="sampler gauss has no logits: detail_scale 0.5"):
        SamplerConfig(name="gauss", detail_scale=0.5)


def test_a_recorded_sample_knows_no_detail(make_model):
    """Catches a CUDA graph that records matrices which are made on the CPU."""
    assert _repeats(make_model(), SamplerConfig(), True)
    assert not _repeats(make_model(), config(0.1), True)
