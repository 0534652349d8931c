"""Drawing, guidance, samplers, noise, cost: against enumeration and exact distributions."""

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import FALSE_ALARM, Oracle, chi_square, reference_distribution
from srdd import guidance
from srdd.config import SamplerConfig
from srdd.cost import sampling_cost
from srdd.draw import TokenDistribution, distribution, draw_tokens
from srdd.guidance import guidance_weights, guide, guided_scales
from srdd.noise import ImageNoise, derive_seed, generator
from srdd.sampling import generate, sample_var
from srdd.schedule import ScaleSchedule

N = 20_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "settings",
    [
        (1.0, None, 1.0),
        (0.7, None, 1.0),
        (1.0, 3, 1.0),
        (1.0, None, 0.8),
        (1.3, 5, 0.7),
        (1.0, 1, 1.0),
    ],
)
def test_draw_frequencies(settings, dtype):
    """Catches a biased draw, a wrong cut, a temperature that is off (a float32 Gumbel trick); false
    alarm 1e-4, seeds fixed."""
    logits = 2 * torch.randn(8, generator=generator("draw"), dtype=torch.float64)
    uniform = torch.rand(1, N, generator=generator("draw u"), dtype=torch.float64)
    drawn = draw_tokens(logits.to(dtype).expand(1, N, 8), uniform, *settings)
    counts = torch.bincount(drawn.flatten(), minlength=8)
    assert chi_square(counts, reference_distribution(logits, *settings)) > FALSE_ALARM


@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=9),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(1, 9) | st.none(),
    st.sampled_from([1e-9, 0.3, 0.8, 0.999, 1.0]),
)
def test_cuts_keep_what_their_definitions_keep(values, temperature, top_k, top_p):
    """Catches a code too many or too few after top-k and nucleus, ties included: codes as likely as
    the last kept one stay (VAR), and nothing less likely does. Against the definition, one code at
    a time; float32 and float64 alike."""
    # neither sums of probabilities nor halves of them meet top_p exactly
    logits = torch.tensor([values], dtype=torch.float64) * 0.731
    exact = reference_distribution(logits[0], temperature, top_k, top_p)
    least = min(v for v, p in zip(values, exact) if p > 0)
    kept = torch.tensor([[v >= least for v in values]])
    share = ((logits / temperature).softmax(-1) * kept)[0]
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        found = distribution(logits.to(dtype)[None], temperature, top_k, top_p)
        assert torch.equal(found.mass_BlV[0] > 0, kept)
        torch.testing.assert_close(
            found.shares()[0, 0], share / share.sum(), rtol=tolerance, atol=0
        )


@pytest.mark.parametrize(
    "settings", [(1.0, None, 1.0), (1.0, 900, 0.96), (1.0, 40, 1.0), (1.0, None, 0.5)]
)
def test_draw_among_many_codes(settings):
    """Catches a draw that is right for eight codes and wrong for VAR's 4096: chi-square; false
    alarm 1e-4, seeds fixed."""
    logits = 3 * torch.randn(4096, generator=generator("many"))
    uniform = torch.rand(1, N, generator=generator("many u"), dtype=torch.float64)
    found = distribution(logits.expand(1, 1, 4096), *settings)
    parts = uniform.split(N // 10, 1)
    many = TokenDistribution(found.mass_BlV.expand(1, N // 10, 4096))
    tokens, probability = (torch.cat(column, 1) for column in zip(*map(many.draw, parts)))
    exact = torch.tensor(reference_distribution(logits, *settings), dtype=torch.float64)
    assert chi_square(torch.bincount(tokens.flatten(), minlength=4096), exact) > FALSE_ALARM
    torch.testing.assert_close(probability[0], exact[tokens[0]], rtol=1e-5, atol=0)


def test_draw_at_the_edges():
    """Catches a code of probability 0 that is drawn at u = 0 or u near 1."""
    logits = torch.tensor([[[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]]).expand(1, 2, 5)
    uniform = torch.tensor([[0.0, 1 - 2**-53]], dtype=torch.float64)
    assert draw_tokens(logits, uniform).tolist() == [[1, 3]]
    # many codes of which few have mass, at numbers that lie on the sums themselves or one rounding
    # beside them
    logits = torch.full((1, 1, 256), -torch.inf)
    logits[..., 3::67] = torch.randn(4, generator=generator("edges"))
    found = distribution(logits)
    sums = found.mass_BlV.double().cumsum(-1).unique()
    on = torch.cat(
        [
            (sums / sums[-1]).nextafter(torch.tensor(end, dtype=torch.float64))
            for end in (0.0, 0.5, 1.0)
        ]
    ).clamp(0, 1 - 2**-53)
    tokens, probability = TokenDistribution(found.mass_BlV.expand(1, len(on), 256)).draw(on[None])
    assert ((tokens - 3) % 67 == 0).all() and (probability > 0).all()
    half = torch.tensor([[0.5]], dtype=torch.float64)
    lost = distribution(torch.full((1, 1, 128), torch.nan)).draw(half)
    assert lost[0].max() < 128 and lost[1].isnan().all()


@pytest.mark.parametrize(
    "cfg_scale, ramp",
    [(1.0, "linear"), (2.0, "constant"), (3.0, "linear"), (0.0, "constant"), (0.4, "linear")],
)
def test_sampler_has_the_exact_distribution(cfg_scale, ramp):
    """Catches a wrong state, order, guidance or noise: sample_var against the enumerated joint;
    false alarm 1e-4, seeds fixed."""
    oracle = Oracle()
    config = SamplerConfig(cfg_scale=cfg_scale, cfg_ramp=ramp)
    denoise = guide(oracle, oracle.schedule, cfg_scale, ramp, oracle.null_label)
    labels = torch.ones(N, dtype=torch.long)
    tokens_BL, _ = sample_var(denoise, oracle.ladder, labels, ImageNoise(range(N)), config)
    counts = torch.bincount(oracle.index(tokens_BL), minlength=len(oracle.sequences()))
    exact = oracle.joint(1, guidance_weights(cfg_scale, ramp, 2))
    assert chi_square(counts, exact) > FALSE_ALARM
    assert chi_square(counts, oracle.joint(0, (1.0, 1.0))) < FALSE_ALARM, (
        "the test must be able to fail"
    )


def test_guidance_off_is_no_guidance():
    """Catches a second call, or other bits, at cfg_scale 1."""
    oracle = Oracle()
    assert guide(oracle, oracle.schedule, 1.0, "linear", oracle.null_label) is oracle


def test_guidance_is_vars_with_w_one_more_than_t():
    """Catches a convention that is off by one: VAR's (1+t) c - t u with t = cfg k/(K-1)."""
    oracle, cfg = Oracle(), 1.5
    guided = guide(oracle, oracle.schedule, 1 + cfg, "linear", oracle.null_label)
    labels = torch.tensor([0, 1])
    for k, length in enumerate(oracle.schedule.lengths):
        inputs = torch.randn(2, length, 2, generator=generator("g"), dtype=torch.float64)
        c, u = (
            oracle.denoise(inputs, k, labels),
            oracle.denoise(inputs, k, torch.full_like(labels, 2)),
        )
        t = cfg * k
        torch.testing.assert_close(guided(inputs, k, labels), (1 + t) * c - t * u)


def test_where_guidance_costs_a_second_half():
    """Catches a doubled batch that nobody needs, and a cache that lacks the half that a later scale
    attends to."""
    linear = guidance_weights(2.0, "linear", 4)
    assert linear == [1.0, pytest.approx(4 / 3), pytest.approx(5 / 3), 2.0]
    assert guided_scales(linear, 0) == [False, True, True, True]
    assert guided_scales(linear, None) == [True] * 4
    assert guided_scales([1.0, 1.0, 2.0, 1.0], 0) == [False, False, True, False]
    assert guided_scales([1.0, 1.0, 2.0, 1.0], 1) == [True] * 4
    assert guided_scales([1.0] * 4, None) == guided_scales([0.0] * 4, None) == [False] * 4
    assert guided_scales([1.0, 0.5, 0.0, 2.0], 0) == [False, True, False, True]
    assert guided_scales([1.0, 1.0, 0.0, 0.0], 1) == [True] * 4, (
        "a later scale attends to both halves"
    )
    assert guidance_weights(0.5, "linear", 3) == [1.0, 0.75, 0.5]
    with pytest.raises(ValueError, match=r"-0\.5"):
        guidance_weights(-0.5, "linear", 4)
    with pytest.raises(ValueError, match="linear"):
        guidance_weights(2.0, "liner", 4)


@pytest.mark.parametrize("history", [None, 0, 1])
@torch.no_grad()
def test_same_seed_same_image_in_any_batch(make_model, make_ladder, history):
    """Catches an image that depends on its batch: size, order or neighbours."""
    model, ladder = make_model(history=history), make_ladder(ScaleSchedule((1, 2, 3)))
    config = SamplerConfig(cfg_scale=1.7, top_k=5, top_p=0.9)
    labels = torch.arange(6) % 3
    whole, _ = generate(model, ladder, labels, range(6), config)
    assert len(set(map(tuple, whole.tolist()))) > 3
    alone, _ = generate(model, ladder, labels[4:5], [4], config)
    turned, _ = generate(model, ladder, labels.flip(0), range(5, -1, -1), config)
    assert torch.equal(alone[0], whole[4]) and torch.equal(turned.flip(0), whole)


# w of every scale: both ramps, and guidance that ends early, starts late, or pauses
RAMPS = [
    (1.0, 1.5, 2.0, 2.5),
    (2.5, 2.5, 2.5, 2.5),
    (1.0, 2.0, 1.0, 1.0),
    (3.0, 1.0, 1.0, 1.0),
    (1.0, 1.0, 2.0, 1.0),
    (2.0, 1.0, 2.0, 1.0),
    (0.0, 0.0, 0.0, 0.0),
    (1.0, 0.5, 0.0, 2.0),
]


@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.parametrize("history", [None, 0, 1, 2])
@torch.no_grad()
def test_guided_model_equals_two_separate_ones(make_model, monkeypatch, history, ramp):
    """Catches halves of the doubled batch that mix, or a skipped half that a later scale needs."""
    monkeypatch.setattr(
        guidance, "ramp_tried", lambda cfg_scale, k, num_scales: ramp[k], raising=False
    )
    model, schedule = (
        make_model(patch_nums=(1, 2, 3, 4), history=history),
        ScaleSchedule((1, 2, 3, 4)),
    )
    labels = torch.tensor([0, 2])
    denoiser = model.denoiser()
    guided = guide(denoiser, schedule, 2.5, "tried", 3, denoiser.history)
    cond, uncond = model.denoiser(), model.denoiser()
    nobody = torch.full_like(labels, 3)
    for k, w in enumerate(ramp):
        inputs = torch.randn(2, schedule.lengths[k], 4, generator=generator("x", k))
        c, u = cond(inputs, k, labels), uncond(inputs, k, nobody)
        torch.testing.assert_close(guided(inputs, k, labels), u + w * (c - u), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_cache_holds_one_batch(make_model):
    """Catches keys of another batch, or of none, read for those of earlier scales."""
    denoise, labels = make_model().denoiser(), torch.tensor([0, 2])
    denoise(torch.zeros(2, 1, 4), 0, labels)
    with pytest.raises(ValueError, match="1 images, the scales before it for 2"):
        denoise(torch.zeros(1, 4, 4), 1, labels)


@torch.no_grad()
def test_modulations_are_read_once_for_an_image(make_model, make_ladder):
    """Catches AdaLN, a third of VAR's weights, recomputed at each scale, or again when guidance
    sets in after the first scale."""
    for history in (None, 0):
        model, asked = make_model(history=history), []
        whole = model.modulate
        model.modulate = lambda labels_B, whole=whole, asked=asked: (
            asked.append(len(labels_B)) or whole(labels_B)
        )
        ladder, labels = make_ladder(ScaleSchedule((1, 2, 3))), torch.arange(2)
        generate(model, ladder, labels, range(2), SamplerConfig(cfg_scale=2.0))
        assert asked == [4]


STEPS = [
    (history, patch_nums)
    for history in (None, 0, 1, 2)
    for patch_nums in ((1, 2, 3), (2, 3, 5), (3,), (1, 4, 5, 6))
]


@pytest.mark.parametrize("history, patch_nums", STEPS)
@torch.no_grad()
def test_compiled_step_equals_eager(make_model, make_ladder, history, patch_nums):
    """Catches a graph break, a graph of one scale or batch replayed for another, a cache that two
    batches share wrongly: for all histories, odd schedules, batch 1 and 3, with guidance,
    twice in a row."""
    config, ladder = SamplerConfig(cfg_scale=2.0, top_k=5), make_ladder(ScaleSchedule(patch_nums))
    eager, model = (make_model(patch_nums=patch_nums, history=history) for _ in range(2))
    model.compile_step(backend="aot_eager")
    for batch in (3, 1, 3):
        labels = torch.arange(batch)
        wanted, found = (
            generate(one, ladder, labels, range(batch), config) for one in (eager, model)
        )
        assert torch.equal(wanted[0], found[0])
        torch.testing.assert_close(wanted[1], found[1])


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU"
)
@pytest.mark.skipif(
    " " in torch.__file__, reason="torch.compile cannot work from a folder whose name holds a space"
)
@torch.no_grad()
def test_compiled_code_equals_eager(make_model):
    """Catches generated code that computes something else; inductor, one scale of two,
    refined passes included."""
    eager, model = (make_model(patch_nums=(1, 2), history=None, mask_prob=0.5) for _ in range(2))
    model.compile_step()
    labels, denoisers = torch.tensor([0, 2, 3]), [one.denoiser() for one in (eager, model)]
    for k, length in enumerate((1, 4)):
        inputs = torch.randn(3, length, 4, generator=generator("compiled", k))
        own = torch.randint(8, (3, length), generator=generator("own", k))
        for more in ((), (own,), (own.flip(1),)):
            wanted, found = (denoise(inputs, k, labels, *more) for denoise in denoisers)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("history", [None, 0])
@torch.no_grad()
def test_half_weights_stay_near_float32(make_model, history):
    """Catches a residual stream, norm or sum that runs in bfloat16: logits within 3 % of their
    spread of float32's, which 8 bits of mantissa in the products alone give; a stream in bfloat16
    shows in the dtype of what the head reads."""
    model, half = (
        make_model(patch_nums=(1, 2, 3), history=history, width=64, depth=4) for _ in range(2)
    )
    half.to(torch.bfloat16)
    labels, wholes, halves = torch.arange(4), model.denoiser(), half.denoiser()
    for k, length in enumerate((1, 4, 9)):
        inputs = torch.randn(4, length, 4, generator=generator("half", k))
        wanted, hidden = wholes(inputs, k, labels), halves.hidden(inputs, k, labels)
        assert hidden.dtype == torch.float32
        found = halves.head(hidden).float()
        assert (found - wanted).square().mean().sqrt() < 0.03 * wanted.std()


def test_generate_refuses_what_does_not_fit(make_model, make_ladder):
    """Catches guidance of a model that never saw 'no class', and a seed too few."""
    ladder, labels = make_ladder(ScaleSchedule((1, 2, 3))), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="class_dropout"):
        generate(
            make_model(class_dropout=0.0), ladder, labels, [0, 1], SamplerConfig(cfg_scale=2.0)
        )
    with pytest.raises(ValueError, match="1 seeds for 2 labels"):
        generate(make_model(), ladder, labels, [0], SamplerConfig())
    with pytest.raises(ValueError, match="var"):
        generate(make_model(), ladder, labels, [0, 1], SamplerConfig(name="vra"))


def test_seeds_by_name():
    """Catches a change of the seeds of every published image, and parts that run together."""
    assert derive_seed("image", 0) == derive_seed("image", 0) < 2**63
    assert (
        len(
            {
                derive_seed("a", 1),
                derive_seed("a", "1"),
                derive_seed("a1"),
                derive_seed("a", 11),
                derive_seed("a", 1, 1),
            }
        )
        == 5
    )
    assert derive_seed("image", 0) == 7022910476704198728


def test_cost_is_what_a_hand_counts(make_model):
    """Catches flops that miss attention or the second half of guidance (fused attention counts 0 on
    a CPU)."""
    D, V, C, depth, lengths = 16, 7, 4, 2, (1, 4, 9)
    for history, doubled in ((0, (1, 2, 2)), (None, (2, 2, 2))):
        cost = sampling_cost(make_model(history=history).config, SamplerConfig(cfg_scale=2.0))
        assert (cost.nfe, cost.token_evals) == (
            sum(doubled),
            sum(b * n for b, n in zip(doubled, lengths)),
        )
        # modulations: of both halves, once per image
        expected, seen = 2 * 2 * (depth * 6 * D * D + 2 * D * D), 0
        for k, (b, n) in enumerate(zip(doubled, lengths)):
            seen = n if history == 0 else seen + n
            token = depth * (12 * D * D) + (C * D if k else 0)
            attention = depth * 2 * D * seen
            # the head: once, guidance comes before it
            expected += 2 * n * (b * (token + attention) + D * V)
        assert cost.flops == expected
    for history in (0, None):  # w = 0 runs one half alone, w below 1 both
        config = make_model(history=history).config
        alone = sampling_cost(config, SamplerConfig(cfg_scale=0.0, cfg_ramp="constant"))
        assert (alone.nfe, alone.token_evals) == (3, sum(lengths))
        half = sampling_cost(config, SamplerConfig(cfg_scale=0.5, cfg_ramp="constant"))
        assert (half.nfe, half.token_evals) == (6, 2 * sum(lengths))


def test_a_compiler_that_cannot_work_is_refused(make_model, monkeypatch):
    """Catches a thousand lines of a C++ compiler where torch lies below `My Projects`."""
    monkeypatch.setattr(torch, "__file__", "/home/me/My Projects/.venv/torch/__init__.py")
    with pytest.raises(
        ValueError, match="compile: torch's compiler cannot work from '/home/me/My Projects/"
    ):
        make_model().compile_step()
    make_model().compile_step(backend="aot_eager")
