"""Reshaped spectra (arXiv 2511.17074): the formula against a plain decomposition, the wrapper
against the network that it stands round."""

import pytest
import torch
from pydantic import ValidationError

from bench.study.names import canonical_sampler, unsharpened
from oracle import FALSE_ALARM, Oracle, chi_square
from srdd.config import SamplerConfig
from srdd.cost import dry_run, sampling_cost
from srdd.diversity import reshape_spectrum, reshaped_scales, reweight, spectrum
from srdd.guidance import guide
from srdd.misfits import sampler_misfit
from srdd.noise import ImageNoise, generator
from srdd.sampling import Known, generate, sample_var

SHAPES = [(1, 4), (4, 8), (9, 4), (4, 4), (16, 8)]
SUPPRESS = {"svd_in": 1.0, "svd_scales": (1, 2)}


def maps(shape, batch=5, dtype=torch.float64):
    return torch.randn(batch, *shape, generator=generator("maps"), dtype=dtype)


def by_svd(x_BlC, beta, energy):
    """The definition, one decomposition for each map."""
    rebuilt = []
    for x_lC in x_BlC.double():
        U, s, Vh = torch.linalg.svd(x_lC, full_matrices=False)
        t = torch.exp(-beta * s / s[0]) * s
        t = t * s.norm() / t.norm() if energy else t
        rebuilt.append(U @ torch.diag(t) @ Vh)
    return torch.stack(rebuilt)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 4.0, -2.0])
@pytest.mark.parametrize("energy", [True, False])
def test_it_is_the_definition(shape, beta, energy):
    x_BlC = maps(shape)
    torch.testing.assert_close(
        reweight(x_BlC, beta, energy), by_svd(x_BlC, beta, energy), rtol=0, atol=1e-12
    )


def test_a_diagonal_map_by_hand():
    x_BlC = torch.diag(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64))[None]
    shares = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    values = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    suppressed, amplified = values * torch.exp(-2 * shares), values * torch.exp(2 * shares)
    torch.testing.assert_close(reweight(x_BlC, 2.0, False)[0], torch.diag(suppressed))
    torch.testing.assert_close(reweight(x_BlC, -2.0, False)[0], torch.diag(amplified))


@pytest.mark.parametrize("shape", SHAPES)
def test_energy_stays_and_without_it_every_value_falls(shape):
    x_BlC = maps(shape)
    before, after = (torch.linalg.matrix_norm(x) for x in (x_BlC, reweight(x_BlC, 1.0, True)))
    torch.testing.assert_close(after, before, rtol=1e-12, atol=0)
    fallen = torch.linalg.svdvals(reweight(x_BlC, 1.0, False)) < torch.linalg.svdvals(x_BlC)
    assert fallen.all()


def test_singular_vectors_stay():
    x_BlC = maps((4, 8))
    new_BlC = reweight(x_BlC, 0.5, True)  # below beta 1 the values keep their order
    for x_lC, new_lC in zip(x_BlC, new_BlC):
        (U, _, Vh), (W, _, Zh) = (torch.linalg.svd(m, full_matrices=False) for m in (x_lC, new_lC))
        for i in range(4):  # projectors, since signs are free
            torch.testing.assert_close(
                W[:, i : i + 1] @ W[:, i : i + 1].T, U[:, i : i + 1] @ U[:, i : i + 1].T
            )
            torch.testing.assert_close(
                Zh[i : i + 1].T @ Zh[i : i + 1], Vh[i : i + 1].T @ Vh[i : i + 1]
            )


def test_order_stays_up_to_beta_1_and_turns_beyond():
    """exp(-beta z) z peaks at z = 1 / beta: beyond it the largest value need not stay so."""
    z = torch.linspace(0.01, 1, 100, dtype=torch.float64)
    x_BlC = torch.diag(z.flip(0))[None]
    kept = reweight(x_BlC, 1.0, False)[0].diagonal()
    assert (kept.diff() < 0).all()
    turned = reweight(x_BlC, 4.0, False)[0].diagonal()
    assert turned.argmax() == (x_BlC[0].diagonal() - 0.25).abs().argmin()


def test_rank_one_keeps_itself_and_zeros_stay():
    one_BlC = maps((4, 1)) @ maps((1, 8))
    torch.testing.assert_close(reweight(one_BlC, 3.0, True), one_BlC)
    torch.testing.assert_close(reweight(one_BlC, 3.0, False), one_BlC * torch.e**-3)
    for energy in (True, False):
        assert torch.equal(reweight(torch.zeros(2, 4, 8), 1.0, energy), torch.zeros(2, 4, 8))
    assert torch.equal(spectrum(torch.zeros(2, 4, 8)), torch.zeros(2, 4, dtype=torch.float64))


def test_equal_singular_values_have_one_result():
    """A function of x x^T: what basis a decomposition takes of equal values does not matter."""
    left = torch.linalg.qr(maps((5, 5), 1)[0])[0]
    right = torch.linalg.qr(maps((5, 5), 2)[1])[0]
    values = torch.tensor([3.0, 3.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    factors = torch.exp(-2.0 * values / 3)
    x_lC, expected = (left @ torch.diag(v) @ right for v in (values, values * factors))
    torch.testing.assert_close(reweight(x_lC[None], 2.0, False)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_and_batches(dtype):
    x_BlC = maps((9, 4)).to(dtype)
    whole = reweight(x_BlC, 1.0, True)
    assert whole.dtype == dtype
    for i in range(len(x_BlC)):
        assert torch.equal(reweight(x_BlC[i : i + 1], 1.0, True)[0], whole[i])


def test_spectrum_falls_from_one():
    values = spectrum(maps((9, 4)))
    assert (values[:, 0] == 1).all() and (values.diff() <= 0).all()


# ---------------------------------------------------------------- round a network


def drawn(model, ladder, known=None, **settings):
    labels_B = torch.arange(6) % 3
    return generate(model, ladder, labels_B, range(6), SamplerConfig(**settings), known)


def test_off_is_the_network_itself(make_model):
    denoiser, schedule = make_model().denoiser(), make_model().schedule
    assert reshape_spectrum(denoiser, SamplerConfig(svd_scales=(1,)), schedule) is denoiser
    assert reshaped_scales(SamplerConfig(svd_in=1.0), 7) == (1, 2, 3)
    assert reshaped_scales(SamplerConfig(svd_in=1.0), 10) == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("history", [None, 0])
@pytest.mark.parametrize("cfg_scale", [1.0, 2.0, 0.0])
def test_beta_near_0_draws_the_same(make_model, make_ladder, history, cfg_scale):
    """The rebuilt maps are right to float64: a strength that does nothing changes no image."""
    model = make_model(history=history, class_dropout=0.1)
    ladder, given = make_ladder(model.schedule), {"cfg_scale": cfg_scale, "svd_scales": (1, 2)}
    plain, near = (
        drawn(model, ladder, cfg_scale=cfg_scale),
        drawn(model, ladder, **given, svd_in=1e-12, svd_out=1e-12),
    )
    assert torch.equal(plain[0], near[0]) and torch.equal(plain[1], near[1])


@pytest.mark.parametrize("svd_norm", ["energy", "none"])
def test_samples_have_the_enumerated_distribution(svd_norm):
    """Guided samples of both forms at once against every sequence's probability; false alarm
    1e-4, seeds fixed."""
    oracle, count, w, T, energy = Oracle(), 20_000, 1.5, 2.0, svd_norm == "energy"
    config = SamplerConfig(
        cfg_scale=w,
        cfg_ramp="constant",
        temperature=T,
        svd_in=1.5,
        svd_out=0.5,
        svd_scales=(1,),
        svd_norm=svd_norm,
    )
    reshaped = reshape_spectrum(oracle, config, oracle.schedule)
    denoise = guide(reshaped, oracle.schedule, w, "constant", oracle.null_label)
    labels_B = torch.ones(count, dtype=torch.long)
    tokens_BL, _ = sample_var(denoise, oracle.ladder, labels_B, ImageNoise(range(count)), config)

    def joint(beta_in, beta_out):
        codes_VC, exact = oracle.ladder.quantizer.codebook_VC, []
        first_V = (oracle.conditional(torch.zeros(2).double(), 0, 1, (w, w))[0].log() / T).softmax(
            0
        )
        for a, *rest in oracle.sequences():
            state_1lC = by_svd(codes_VC[a].expand(1, 4, 2), beta_in, energy)
            base_lV = state_1lC[0] @ oracle.weight_kCV[1] + oracle.bias_klV[1]
            cond, uncond = (
                by_svd((base_lV + oracle.label_yV[y])[None], -beta_out, energy)[0]
                for y in (1, oracle.null_label)
            )
            second_lV = ((uncond + w * (cond - uncond)) / T).softmax(-1)
            exact.append(float(first_V[a] * second_lV[range(4), rest].prod()))
        return exact

    counts = torch.bincount(oracle.index(tokens_BL), minlength=len(oracle.sequences()))
    assert chi_square(counts, joint(1.5, 0.5)) > FALSE_ALARM
    for other in ((0.0, 0.5) if svd_norm == "none" else (1.5, 0.0), (0.0, 0.0)):
        assert chi_square(counts, joint(*other)) < FALSE_ALARM, "the test must be able to fail"


class Seen:
    """A network that says what it is given, and gives back a map of twice the batch's rows."""

    def __init__(self):
        self.read, self.mapped = [], []

    def hidden(self, inputs_BlC, k, labels_B, *own_Bl):
        self.read.append((inputs_BlC, own_Bl))
        return inputs_BlC + labels_B[: len(inputs_BlC), None, None]

    def head(self, hidden_BlD):
        self.mapped.append(hidden_BlD)
        return hidden_BlD


def test_it_acts_at_its_scales_on_what_is_read_and_on_what_the_head_reads(make_model):
    schedule, x_BlC = make_model().schedule, maps((4, 4))
    own_Bl, labels_B = torch.zeros(5, 4, dtype=torch.long), torch.arange(5)
    for config in (
        SamplerConfig(svd_in=1.0, svd_scales=(1,)),
        SamplerConfig(svd_out=2.0, svd_scales=(1,)),
    ):
        network = Seen()
        wrapped = reshape_spectrum(network, config, schedule)
        wrapped(x_BlC, 1, labels_B, own_Bl)
        wrapped(x_BlC, 2, labels_B)
        (read, own), (later, _) = network.read
        assert own[0] is own_Bl and later is x_BlC
        assert torch.equal(read, reweight(x_BlC, config.svd_in, True) if config.svd_in else x_BlC)
        hidden_BlC = read + labels_B[:, None, None]
        expected = reweight(hidden_BlC, -2.0, True) if config.svd_out else hidden_BlC
        assert torch.equal(network.mapped[0], expected)


def test_under_guidance_each_half_is_reshaped_before_they_are_mixed(make_model):
    schedule, x_BlC, network = make_model().schedule, maps((4, 4)), Seen()
    config = SamplerConfig(svd_in=1.0, svd_out=2.0, svd_scales=(1,))
    guided = guide(reshape_spectrum(network, config, schedule), schedule, 3.0, "constant", 9)
    guided(x_BlC, 1, torch.arange(5))
    read_2BlC, _ = network.read[0]
    half = reweight(x_BlC, 1.0, True)
    assert torch.equal(read_2BlC, torch.cat((half, half)))
    cond = reweight(half + torch.arange(5)[:, None, None], -2.0, True)
    uncond = reweight(half + 9, -2.0, True)
    torch.testing.assert_close(network.mapped[0], uncond + 3.0 * (cond - uncond))


@pytest.mark.parametrize("config", [
    SamplerConfig(cfg_scale=2.0, svd_in=2.0, svd_out=1.0, svd_scales=(1, 2)),
    SamplerConfig(name="srdd", refine_steps=2, svd_in=2.0, svd_scales=(2,), select="shuffled"),
    SamplerConfig(name="srdd", sr_steps=1, svd_in=2.0, svd_norm="none"),
])  # fmt: skip
@pytest.mark.parametrize("history", [None, 0])
def test_samplers_keep_known_tokens_batches_and_cost(make_model, make_ladder, config, history):
    model = make_model(history=history, class_dropout=0.1, mask_prob=1.0)
    ladder, labels_B = make_ladder(model.schedule), torch.arange(6) % 3
    tokens_BL, _ = generate(model, ladder, labels_B, range(6), config)
    plain = config.model_copy(update={"svd_in": 0.0, "svd_out": 0.0})
    assert not torch.equal(tokens_BL, generate(model, ladder, labels_B, range(6), plain)[0])
    alone_BL, _ = generate(model, ladder, labels_B[2:3], [2], config)
    assert torch.equal(alone_BL[0], tokens_BL[2])
    mask_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    mask_BL[:, ::2] = True
    known = Known(torch.zeros_like(tokens_BL), mask_BL)
    kept_BL, _ = generate(model, ladder, labels_B, range(6), config, known)
    assert (kept_BL[mask_BL] == 0).all()
    assert sampling_cost(model.config, config) == sampling_cost(model.config, plain)
    assert dry_run(model.config, config).calls == dry_run(model.config, plain).calls


def test_a_network_of_half_precision_keeps_its_dtypes(make_model):
    model, given = make_model(class_dropout=0.1).to(torch.bfloat16), []
    config = SamplerConfig(svd_in=1.0, svd_out=1.0, svd_scales=(1,))
    for sampler in (SamplerConfig(), config):
        network = reshape_spectrum(model.denoiser(), sampler, model.schedule)
        hidden_BlD = None
        for k, side in enumerate((1, 2)):
            state_BlC = maps((side * side, 4), 3, torch.float32)
            hidden_BlD = network.hidden(state_BlC, k, torch.arange(3))
        given.append((hidden_BlD.dtype, network.head(hidden_BlD).dtype))
    assert given[0] == given[1]


def test_a_teacher_that_is_not_guided_draws_from_what_it_learnt():
    reshaped = SamplerConfig(svd_in=1.0, svd_out=1.0, cfg_scale=2.0)
    assert canonical_sampler(unsharpened(reshaped)) == {}


def test_it_acts_in_every_pass(make_model, make_ladder):
    """MR reads a reshaped state in its further passes too."""
    model = make_model(history=0, mask_prob=1.0)
    config = SamplerConfig(
        name="srdd", refine_steps=2, svd_in=5.0, svd_scales=(2,), select="shuffled"
    )
    seen, hidden = [], type(model.denoiser()).hidden

    def watched(self, inputs_BlC, k, *rest):
        if k == 2:
            seen.append(inputs_BlC)
        return hidden(self, inputs_BlC, k, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.denoiser()), "hidden", watched)
        tokens_BL, _ = drawn(
            model,
            make_ladder(model.schedule),
            **config.model_dump(exclude={"select"}),
            select="shuffled",
        )
    state_BlC = make_ladder(model.schedule).teacher_forced_inputs(tokens_BL)[
        :, model.schedule.slices[2]
    ]
    assert len(seen) == 3
    for read_BlC in seen:
        torch.testing.assert_close(read_BlC, reweight(state_BlC, 5.0, True))


def test_a_head_of_one_token_is_only_rescaled(make_model, make_ladder):
    """At scale 0 the map has rank 1: svd_out does nothing there with energy."""
    model = make_model()
    ladder = make_ladder(model.schedule)
    plain, with_energy = drawn(model, ladder), drawn(model, ladder, svd_out=3.0, svd_scales=(0,))
    assert torch.equal(plain[0], with_energy[0])


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("key, value", [
    ("svd_in", -0.1), ("svd_out", -1.0), ("svd_in", 51.0), ("svd_norm", "unit"),
    ("svd_scales", ()), ("svd_scales", (2, 1)), ("svd_scales", (1, 1)), ("svd_scales", (-1,)),
])  # fmt: skip
def test_bad_settings_are_refused(key, value):
    with pytest.raises(ValidationError, match=key):
        SamplerConfig(**{key: value})


@pytest.mark.parametrize("settings, words", [
    ({"svd_in": 1.0, "svd_scales": (0, 1)}, "svd_scales [0, 1]: scale 0 reads no state"),
    ({"svd_out": 1.0, "svd_scales": (1, 3)}, "svd_scales [1, 3]: the schedule has scales 0 to 2"),
])  # fmt: skip
def test_what_a_schedule_lacks_is_one_line(make_model, make_ladder, settings, words):
    model = make_model()
    problem = sampler_misfit(SamplerConfig(**settings), model.config)
    assert problem.startswith(words) and "\n" not in problem
    with pytest.raises(ValueError, match="svd_scales"):
        drawn(model, make_ladder(model.schedule), **settings)


def test_one_scale_has_no_state_to_reshape(make_model):
    config = make_model(patch_nums=(3,)).config
    assert sampler_misfit(SamplerConfig(svd_in=1.0), config).startswith(
        "svd_in 1: a schedule of one"
    )
    assert sampler_misfit(SamplerConfig(svd_out=1.0, svd_scales=(0,)), config) is None


def test_off_renames_nothing_and_idle_settings_make_no_other_name():
    assert canonical_sampler(SamplerConfig()) == {}
    idle = SamplerConfig(svd_scales=(1, 2), svd_norm="none")
    assert canonical_sampler(idle) == {}
    on = canonical_sampler(SamplerConfig(svd_in=1.0, svd_scales=(1,)))
    assert on == {"svd_in": 1.0, "svd_scales": [1]}
