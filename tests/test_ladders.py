"""Ladders: the codec, the head and the partition of next-scale prediction, each a setting; and what
the room measures of them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from pydantic import ValidationError
from scipy.stats import chi2
from test_config import edited

from bench.experiments.ladders.verb import Bands, band_energies, noisy
from bench.pipeline.regress import RegressionTrainer
from bench.pipeline.sampling import made_ready
from bench.pipeline.train_tokenizer import put_in_order
from bench.pipeline.training import ImageBatch
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.settings import EvaluationConfig, TrainingConfig
from bench.study.tokenizer_settings import TokenizerTraining
from srdd.checkpoint import load_model, load_tokenizer, save_model, save_tokenizer
from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.heads import code_bits
from srdd.loss import linear_cross_entropy, next_scale_cross_entropy, regression_errors
from srdd.misfits import sampler_misfit, teacher_misfit
from srdd.model import ScaleTransformer
from srdd.noise import ImageNoise, generator
from srdd.quantizer import tree_order
from srdd.refining import Refiner, gradient_noise, trunk
from srdd.sampling import generate
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer

GAUSS = SamplerConfig(name="gauss")
PIXELS = {
    "patch_nums": [1, 2, 4], "image_size": 8, "in_channels": 1, "codebook_size": 16,
    "codebook_dim": 4, "channel_multipliers": [1, 1], "codec": "pixels",
}  # fmt: skip


def normal(*shape, name="x"):
    return torch.randn(*shape, generator=generator("test", name))


# ---------------------------------------------------------------- the ladder


@pytest.mark.parametrize("sides", [(1, 2, 4), (4, 4), (4,), (2, 2, 4, 4)])
def test_a_continuous_ladder_ends_at_the_latent(make_ladder, sides):
    """Catches a pyramid that loses something: with phi the identity it is whole, with a trained phi
    what is left is the rest minus what phi makes of it."""
    latent = normal(3, 4, 4, 4)
    plain = make_ladder(ScaleSchedule(sides), phi_ratio=0.0)
    *_, (_, last) = plain.residuals(latent)
    torch.testing.assert_close(last, latent, atol=1e-5, rtol=0)
    ladder, K = make_ladder(ScaleSchedule(sides)), len(sides)
    states = [ladder.empty_state(3), *(state for _, state in ladder.residuals(latent))]
    rest = latent - states[-2]
    expected = states[-2] + ladder.quantizer.apply_phi(rest, K - 1, K)
    torch.testing.assert_close(states[-1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sides", [(1, 2, 4), (4, 4, 4), (2, 4, 4)])
def test_contributions_of_a_quantised_ladder_sum_to_its_reconstruction(make_ladder, sides):
    """Catches a scale that is found by its side: of sides that repeat the first would be taken."""
    ladder, latent = make_ladder(ScaleSchedule(sides)), normal(2, 4, 4, 4)
    tokens, last = ladder.encode(latent)
    total = ladder.empty_state(2)
    for k, where in enumerate(ladder.schedule.slices):
        total = ladder.add_scale(total, ladder.quantizer.embed(tokens[:, where]), k)
    assert torch.equal(total, last) and torch.equal(total, ladder.decode(tokens))


def test_regression_reads_states_and_predicts_residuals(make_ladder):
    """Catches inputs and targets that are shifted by a scale."""
    ladder, latent = make_ladder(ScaleSchedule((1, 2, 4))), normal(2, 4, 4, 4)
    inputs, residuals = ladder.regression_pairs(latent)
    pairs = list(ladder.residuals(latent))
    for k, where in enumerate(ladder.schedule.slices):
        before = pairs[k - 1][1] if k else ladder.empty_state(2)
        assert torch.equal(inputs[:, where], ladder.read_scale(before, k))
        assert torch.equal(residuals[:, where], pairs[k][0])


def test_a_model_of_equal_sides_samples(make_model, make_ladder):
    """Catches a model, a cache or a mask that confuses scales of one side."""
    for history in (None, 0, 1):
        model = make_model(patch_nums=(3, 3, 3), history=history)
        ladder = make_ladder(model.schedule)
        tokens, _ = generate(model, ladder, torch.arange(2), range(2), SamplerConfig())
        inputs = ladder.teacher_forced_inputs(tokens)
        denoise, state = model.denoiser(), ladder.empty_state(2)
        for k, where in enumerate(model.schedule.slices):
            logits = denoise(ladder.read_scale(state, k), k, torch.arange(2))
            expected = model(inputs, torch.arange(2))[:, where]
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
            state = ladder.add_scale(state, ladder.quantizer.embed(tokens[:, where]), k)


# ---------------------------------------------------------------- codecs


def test_pixels_go_in_and_come_out():
    """Catches a cell whose pixels change places: bit for bit the image comes back."""
    for levels, dim, side in (([1, 1], 4, 4), ([1], 1, 8)):
        sizes = PIXELS | {"channel_multipliers": levels, "codebook_dim": dim}
        tokenizer = Tokenizer(TokenizerConfig(**sizes | {"patch_nums": [1, side]}))
        images = normal(2, 1, 8, 8).clamp(-1, 1)
        assert torch.equal(tokenizer.to_image(tokenizer.to_latent(images)), images)


def test_grey_levels_as_codes_reconstruct_images_exactly(tmp_path):
    """Catches a codec that is no identity: with a code for each grey level one scale is enough."""
    sizes = PIXELS | {"channel_multipliers": [1], "codebook_dim": 1, "patch_nums": [8]}
    tokenizer = Tokenizer(TokenizerConfig(**sizes | {"codebook_size": 17, "phi_ratio": 0.0}))
    levels = torch.linspace(-1, 1, 17)
    with torch.no_grad():
        tokenizer.quantizer.codebook_VC.copy_(levels[:, None])
    images = levels[torch.randint(17, (5, 1, 8, 8), generator=generator("grey"))]
    assert torch.equal(tokenizer.decode(tokenizer.encode(images)), images)
    save_tokenizer(tmp_path / "t.safetensors", tokenizer)
    again = load_tokenizer(tmp_path / "t.safetensors", tokenizer.config)
    assert torch.equal(again.encode(images), tokenizer.encode(images))


# ---------------------------------------------------------------- heads


def test_bits_are_independent_given_the_state(make_model):
    """Catches a product of bits that is no distribution over codes: the cross-entropy is the sum of
    the bits' own."""
    head = make_model(codebook_size=16, head="bits").head.double()
    x, tokens = normal(3, 5, 16).double(), torch.randint(16, (3, 5), generator=generator("t"))
    logits = head(x)
    by_bit = F.binary_cross_entropy_with_logits(
        head.bits(x), code_bits(16).double()[tokens], reduction="none"
    )
    whole = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    torch.testing.assert_close(whole, by_bit.sum(-1).flatten(), atol=1e-12, rtol=0)
    torch.testing.assert_close(F.linear(x, head.weight, head.bias), logits)
    chunked = linear_cross_entropy(x.float(), head.float(), tokens)
    torch.testing.assert_close(chunked, next_scale_cross_entropy(logits.float(), tokens))


def test_two_codes_are_one_logit(make_model):
    """Catches bits in another order: of two codes the first has a logit of 0."""
    head = make_model(codebook_size=2, head="bits").head
    x = normal(2, 3, 16)
    logits = head(x)
    assert not logits[..., 0].any() and torch.equal(logits[..., 1:], head.bits(x))


def test_heads_at_their_default_draw_the_weights_that_they_drew(model_config):
    """Catches a head that takes numbers from others: all else is drawn alike with any head."""
    states = []
    for head in ("softmax", "bits"):
        model = ScaleTransformer(model_config(codebook_size=16, head=head))
        model.init_weights(generator("model", 0))
        states.append(model.state_dict())
    plain, bits = states
    assert "head.weight" in plain and "head.bits.weight" in bits
    # drawn before the head
    assert torch.equal(plain["blocks.1.mlp_in.weight"], bits["blocks.1.mlp_in.weight"])
    assert plain["head.weight"].std() < 0.02 and bits["head.bits.weight"].std() < 0.02


def test_codes_in_another_order_change_bits_and_nothing_else(make_model, make_ladder):
    """Catches an order of codes that means something to a softmax head, or nothing to bits."""
    ladder = make_ladder(ScaleSchedule((1, 2, 3)), codebook_size=16)
    tokens, _ = ladder.encode(normal(4, 4, 3, 3))
    inputs, labels = ladder.teacher_forced_inputs(tokens), torch.arange(4) % 3
    order = torch.randperm(16, generator=generator("order"))
    back = order.argsort()
    for head, same in (("softmax", True), ("bits", False)):
        model = make_model(codebook_size=16, head=head).double()
        hidden = model.hidden(inputs.double(), labels)
        loss = F.cross_entropy(model.head(hidden).flatten(0, 1), tokens.flatten())
        if head == "softmax":
            with torch.no_grad():
                model.head.weight.copy_(model.head.weight[order])
                model.head.bias.copy_(model.head.bias[order])
        moved = F.cross_entropy(model.head(hidden).flatten(0, 1), back[tokens].flatten())
        assert torch.isclose(loss, moved, atol=1e-12, rtol=0).item() == same


@pytest.mark.parametrize("head", ["bits", "gauss"])
def test_guidance_acts_before_the_head_as_after_it(make_model, make_ladder, head):
    """Catches a head that is not affine: u + w (c - u) would mean two things."""
    model = make_model(codebook_size=8, head=head, history=0, class_dropout=0.1)
    ladder = make_ladder(model.schedule, codebook_size=8)
    inputs, labels = ladder.read_scale(normal(2, 4, 3, 3), 1), torch.arange(2)
    halves = model.denoiser()
    cond, uncond = (halves(inputs, 1, of) for of in (labels, torch.full_like(labels, 3)))
    both = torch.lerp(
        *(halves.hidden(inputs, 1, of) for of in (torch.full_like(labels, 3), labels)), 2.5
    )
    torch.testing.assert_close(
        halves.head(both), torch.lerp(uncond, cond, 2.5), atol=1e-4, rtol=1e-4
    )


def test_heads_survive_their_file(make_model, tmp_path):
    """Catches widths of a Gaussian that are lost with the file, and bits that are saved."""
    model = make_model(head="gauss")
    model.head.sigma_KC.copy_(torch.rand(3, 4, generator=generator("s")))
    save_model(tmp_path / "m.safetensors", model)
    again = load_model(tmp_path / "m.safetensors", model.config)
    assert torch.equal(again.head.sigma_KC, model.head.sigma_KC)
    assert "head.bits_Vc" not in make_model(codebook_size=8, head="bits").state_dict()


# ---------------------------------------------------------------- regression


def test_without_width_every_seed_gives_one_image(make_model, make_ladder):
    """Catches noise that is added to the mean: at temperature 0, and at width 0, there is none; and
    a sampler that quantises."""
    model = make_model(head="gauss")
    ladder = make_ladder(model.schedule)
    labels, cold = torch.zeros(3, dtype=torch.int64), SamplerConfig(name="gauss", temperature=0.0)
    _, mean = generate(model, ladder, labels, [1, 2, 3], cold)
    _, warm = generate(model, ladder, labels, [1, 2, 3], GAUSS)
    torch.testing.assert_close(mean[:2], mean[1:], atol=1e-5, rtol=1e-5)
    assert (warm[0] - warm[1]).abs().max() > 0.1
    model.head.sigma_KC.zero_()
    _, narrow = generate(model, ladder, labels, [1, 2, 3], GAUSS)
    torch.testing.assert_close(narrow, mean)
    state, denoise = ladder.empty_state(3), model.denoiser()
    for k in range(3):
        state = ladder.add_scale(state, denoise(ladder.read_scale(state, k), k, labels), k)
    torch.testing.assert_close(state, mean, atol=1e-5, rtol=1e-5)


def test_residuals_are_drawn_from_their_gaussian(make_model, make_ladder):
    """Catches a width that is squared, or that of another scale or channel: the sum of squares over
    the variance is chi-square."""
    model = make_model(head="gauss", patch_nums=(2, 2), codebook_dim=2)
    ladder = make_ladder(model.schedule, codebook_dim=2, phi_ratio=0.0)
    with torch.no_grad():
        model.head.mean.weight.zero_()
        model.head.mean.bias.copy_(torch.tensor([0.5, -1.0]))
        model.head.sigma_KC.copy_(torch.tensor([[0.3, 1.0], [0.4, 0.0]]))
    labels = torch.zeros(500, dtype=torch.int64)
    config = SamplerConfig(name="gauss", temperature=2.0)
    _, state = generate(model, ladder, labels, range(500), config)
    for c, (mean, variance) in enumerate(((1.0, 4 * (0.3**2 + 0.4**2)), (-2.0, 4.0))):
        standard = (state[:, c] - mean) / math.sqrt(variance)
        square, count = standard.double().square().sum().item(), standard.numel()
        assert chi2.ppf(1e-4, count) < square < chi2.ppf(1 - 1e-4, count)
        assert abs(standard.mean().item()) < 4 / math.sqrt(count)


def test_a_residual_is_drawn_in_full_by_a_network_in_bfloat16(make_model, make_ladder):
    """Catches a mean and a width that are rounded to three digits on the way."""
    model = make_model(head="gauss")
    wanted = {name: value.clone() for name, value in model.head.state_dict().items()}
    made_ready(model, EvaluationConfig(precision="bfloat16"))
    assert model.position.dtype == torch.bfloat16
    kept = model.head.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in wanted.items())
    hidden_BlD = torch.randn(2, 3, 16, generator=generator("hidden"))
    exact_BlC = model.head.mean(hidden_BlD)
    assert torch.equal(model.denoiser().head(hidden_BlD), exact_BlC)
    _, state = generate(
        model, make_ladder(model.schedule), torch.zeros(2, dtype=int), [1, 2], GAUSS
    )
    assert state.dtype == torch.float32 and state.isfinite().all()


def test_noise_is_normal_and_follows_from_the_seed():
    """Catches numbers of a batch that depend on its size, or that are not finite."""
    both, one = ImageNoise([3, 4]).normal(50, 4), ImageNoise([4]).normal(50, 4)
    assert both.shape == (2, 50, 4) and torch.equal(both[1], one[0]) and both.isfinite().all()
    assert abs(both.mean().item()) < 0.2 and abs(both.std().item() - 1) < 0.15


def test_a_linear_rule_is_learnt(model_config):
    """Catches a loss that a regression cannot minimise: the residual of the last scale is a linear
    function of what it reads."""
    config = model_config(patch_nums=(1, 2), head="gauss", depth=1, init_gamma=0.0, num_classes=0)
    model = ScaleTransformer(config)
    model.init_weights(generator("model"))
    x, weight = normal(256, 4), normal(4, 4, name="w")
    target, optimizer = x @ weight, torch.optim.LBFGS([*model.head.parameters()], max_iter=200)
    hidden = x @ torch.linalg.qr(normal(16, 4, name="q"))[0].T

    def closure():
        optimizer.zero_grad()
        loss = regression_errors(model.head(hidden[None]), target[None]).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert closure().item() < 1e-4


def test_what_is_regressed_is_float32_in_any_precision(make_model, make_tokenizer):
    """Catches residuals that bfloat16 rounds before a network learns them, and means that it rounds
    before they are compared."""
    tokenizer, model = make_tokenizer(), make_model(head="gauss", patch_nums=(1, 2, 4))
    trainer = object.__new__(RegressionTrainer)
    trainer.tokenizer, trainer.model, trainer.hidden = tokenizer, model, model.hidden
    trainer.ladder = tokenizer.at(model.schedule)
    trainer.config = TrainingConfig(steps=1, precision="bfloat16")
    images = torch.randint(256, (2, 1, 8, 8), generator=generator("x"), dtype=torch.uint8)
    labels, tokens = torch.zeros(2, dtype=torch.int64), torch.zeros(2, 21, dtype=torch.int64)
    part = ImageBatch(tokens, labels, tokens, None, None, None, 2, 42.0, images)
    exact, seen = trainer.pairs(images), []
    model.head.register_forward_hook(lambda *given: seen.append(given[-1]))
    with torch.autocast("cpu", torch.bfloat16):
        for value, wanted in zip(trainer.pairs(images), exact):
            assert torch.equal(value, wanted)
        loss, _ = trainer.loss(part)
    assert seen[0].dtype == loss.dtype == torch.float32


# ---------------------------------------------------------------- order of the codes


@pytest.mark.parametrize("V", [2, 7, 64])
def test_a_tree_orders_the_codes(V):
    """Catches codes that are lost or doubled, and a first bit that is not the half of the first
    principal axis."""
    codes = normal(V, 3)
    order = tree_order(codes)
    assert sorted(order.tolist()) == list(range(V)) and torch.equal(order, tree_order(codes))
    centred = (codes - codes.mean(0)).double()
    place = centred @ torch.linalg.svd(centred)[2][0]
    lower, upper = place[order[: (V + 1) // 2]], place[order[(V + 1) // 2 :]]
    assert lower.max() <= upper.min() or upper.max() <= lower.min()


def test_an_order_moves_codes_and_changes_no_image(make_tokenizer):
    """Catches an order that changes more than the index of a code."""
    images = normal(3, 1, 8, 8).clamp(-1, 1)
    plain = make_tokenizer(codebook_size=16)
    tokens, before = plain.encode(images), plain.decode(plain.encode(images))
    for order in ("trained", "tree", "shuffled"):
        tokenizer = make_tokenizer(codebook_size=16)
        put_in_order(tokenizer.quantizer, TokenizerTraining(code_order=order))
        again = tokenizer.encode(images)
        assert torch.equal(again, tokens) == (order == "trained")
        assert torch.equal(tokenizer.decode(again), before)


# ---------------------------------------------------------------- measures


def test_gradient_noise_of_a_quadratic():
    """Catches a trace or a norm that is off: the loss |w - x_i|^2 / 2 has the gradient w - x_i."""
    w = torch.nn.Parameter(torch.zeros(5))
    x = normal(64, 5).double() + 1.0

    def losses(factor):
        return (factor * (w - row.float()).square().sum() / 2 for row in x)

    trace, mean = x.var(0).sum().item(), x.mean(0).square().sum().item()
    expected = trace / (mean - trace / 64)
    assert gradient_noise(losses(1.0), [w]) == pytest.approx(expected, rel=1e-4)
    assert gradient_noise(losses(7.0), [w]) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="two or more"):
        gradient_noise(iter([w.sum()]), [w])


def test_gradient_noise_that_hides_the_gradient_is_no_number():
    """Catches a ratio to nearly nothing, which a table then shows in millions."""
    w, source = torch.zeros(5000, requires_grad=True), generator("noise")

    def noise(size):
        rows = (torch.randn(5000, generator=source) + size for _ in range(32))
        return gradient_noise(((row * w).sum() for row in rows), [w])

    # a gradient of a tenth of the noise's length is told by 32 batches, one of a hundredth is not
    assert noise(0.1) == pytest.approx(100, rel=0.5)
    assert math.isnan(noise(0.01)) and math.isnan(noise(0.0))


def test_the_trunk_is_alike_for_every_head(make_model):
    """Catches a head that counts among the weights whose gradients are compared."""
    shapes = [
        [weight.shape for weight in trunk(make_model(codebook_size=8, head=head))]
        for head in ("softmax", "bits", "gauss")
    ]
    assert shapes[0] and shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("u, v", [(0, 0), (3, 1), (2, 5), (7, 7)])
def test_a_cosine_lies_in_its_band(u, v):
    """Catches a band that is counted along one axis, and energy that is lost."""
    x = (np.arange(8) + 0.5) * math.pi / 8
    grid = np.cos(u * x)[:, None] * np.cos(v * x)[None]
    energy = band_energies(grid[None, None])
    assert energy.argmax() == max(u, v)
    assert energy[max(u, v)] == pytest.approx(energy.sum()) == np.square(grid).sum()
    noise = normal(3, 2, 8, 8).numpy()
    assert band_energies(noise).sum() == pytest.approx(np.square(noise.astype(float)).sum())


def test_steps_that_add_nothing_have_no_band():
    """Catches a share of nothing, which is no number."""
    bands = Bands(2)
    bands.add([torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)])
    assert bands.centres()[0] == 0 and math.isnan(bands.centres()[1])


def test_noise_is_the_same_at_every_level():
    """Catches noise that depends on the batch or on the level."""
    images = torch.zeros(2, 1, 4, 4)
    weak, strong = noisy(images, [5, 9], 0.1), noisy(images, [5, 9], 0.2)
    torch.testing.assert_close(strong, 2 * weak)
    assert torch.equal(noisy(images[:1], [9], 0.1)[0], weak[1])


@pytest.mark.parametrize("head", ["softmax", "bits", "gauss"])
def test_refining_by_enumeration(make_model, make_tokenizer, head):
    """Catches errors of the wrong step: each is computed here image by image, the slow way."""
    tokenizer = make_tokenizer(codebook_size=8)
    model = make_model(codebook_size=8, patch_nums=(1, 2, 4), head=head)
    refiner, images = Refiner(model, tokenizer), normal(2, 1, 8, 8).clamp(-1, 1)
    labels, ladder = torch.arange(2), tokenizer.at(model.schedule)
    with torch.no_grad():
        found = refiner.errors(images, labels)
        kept = refiner.kept_errors(images, images, labels)
        residuals, states = refiner.true_ladder(images)[:2]
        for k in range(3):
            given = refiner.gone_on(residuals[:k], labels)
            expected = (tokenizer.to_image(given).clamp(-1, 1) - images).square().mean()
            assert kept[k].item() == pytest.approx(expected.item(), rel=1e-5)
            before = states[k - 1] if k else ladder.empty_state(2)
            out = model(refiner.true_ladder(images).inputs_BLC, labels)[:, model.schedule.slices[k]]
            step = out if head == "gauss" else tokenizer.quantizer.codebook_VC[out.argmax(-1)]
            state = ladder.add_scale(before, step, k)
            expected = (tokenizer.to_image(state).clamp(-1, 1) - images).square().mean()
            assert found[0, k].item() == pytest.approx(expected.item(), rel=1e-4)
        # with the last step alone left, both measures ask the same
        assert kept[2].item() == pytest.approx(found[0, 2].item(), rel=1e-4)
        assert kept[3].item() == pytest.approx(found[1, 2].item(), rel=1e-5)
    assert refiner.loss(images, labels).requires_grad


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"codebook_dim": 3}, "codebook_dim 3: codec pixels has the 4 numbers"),
        ({"norm_groups": 8, "channels": 16}, "channels 16: codec pixels has no convolutions"),
        ({"norm_groups": 16}, "norm_groups 16: codec pixels has no convolutions"),
        ({"patch_nums": [4, 2]}, "no side may be smaller"),
    ],
)
def test_pixels_refuse_what_they_cannot_read(changes, words):
    """Catches settings of convolutions that nothing reads, and cells of another size."""
    with pytest.raises(ValidationError, match=words):
        TokenizerConfig(**{**PIXELS, **changes})


def test_heads_refuse_what_they_cannot_predict(model_config):
    """Catches bits of codes that are no power of two, and masks of a regression."""
    with pytest.raises(ValidationError, match="codebook_size 48: head bits needs a power of two"):
        model_config(head="bits", codebook_size=48)
    with pytest.raises(ValidationError, match="head gauss predicts no tokens"):
        model_config(head="gauss", mask_prob=0.5)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"name": "gauss", "sr_steps": 1}, "sampler gauss draws every scale once"),
        ({"name": "gauss", "refine_steps": 1}, "sampler gauss draws every scale once"),
        ({"name": "gauss", "top_k": 5}, "draws no codes"),
        ({"name": "gauss", "top_p": 0.5}, "draws no codes"),
        ({"name": "var", "temperature": 0.0}, "0.001 or more"),
    ],
)
def test_samplers_refuse_what_they_do_not_do(settings, words):
    """Catches refinement and truncation of a sampler that has no codes, and logits over 0."""
    with pytest.raises(ValidationError, match=words):
        SamplerConfig(**settings)


def test_head_and_sampler_go_together(model_config):
    """Catches codes drawn from a regression, and residuals from logits."""
    gauss, softmax = model_config(head="gauss"), model_config()
    assert "set name gauss" in sampler_misfit(SamplerConfig(), gauss)
    assert "go together" in sampler_misfit(GAUSS, softmax)
    assert sampler_misfit(GAUSS, gauss) is None and sampler_misfit(SamplerConfig(), softmax) is None


def test_students_are_refused_where_scales_have_no_side_of_their_own(model_config):
    """Catches a student whose scales are found by a side that several have."""
    plain, equal = model_config(), model_config(patch_nums=(3, 3))
    assert teacher_misfit(plain, equal).startswith("patch_nums [3, 3]")
    assert "regression" in teacher_misfit(model_config(head="gauss"), model_config(head="gauss"))
    assert teacher_misfit(plain, model_config(head="bits", codebook_size=8, mlp_ratio=4.0))


ERRORS = {
    "model/patch_nums": [3, 2],
    "model/head": "bit",
    "tokenizer/config/codec": "pixel",
    "tokenizer/training/code_order": "trees",
}


@pytest.mark.parametrize("key", ERRORS)
def test_a_study_says_what_is_wrong_in_one_line(tmp_path, key):
    """Catches a bad value that is found after hours, or that is told in many lines."""
    with pytest.raises(ConfigError) as error:
        load_study(edited(tmp_path, **{f"bases/var/{key}": ERRORS[key]}))
    assert "\n" not in str(error.value) and key.split("/")[-1] in str(error.value)


def test_what_asks_for_codes_refuses_a_regression(tmp_path):
    """Catches a question about probabilities of codes that a regression cannot answer."""
    delta = {"model.head": "gauss", "sampler.name": "gauss", "sampler.cfg_scale": 1.0}
    path = edited(tmp_path, **{"suites/equivalence/variants/SDD": {"base": "var", "delta": delta}})
    with pytest.raises(ConfigError, match="predicts no codes, and measure equivalence"):
        load_study(path)


def test_the_suite_stands_in_the_digits_study():
    """Catches a suite that plans no jobs, and two schedules of one scale that are two runs."""
    plan = load_study("workflows/config/digits.yaml")
    jobs = plan.suites["ladders"]
    stages = {run_id.split("/")[0] for run_id in jobs}
    assert {"regress", "train", "ladders", "evaluate"} <= stages
    names = plan.identities["ladders"]
    assert names["gauss"]["model"] == names["gauss mean"]["model"]
    assert names["bits"]["tokenizer"] == names["tree order"]["tokenizer"]
    yaml.safe_dump(list(names))  # a name is a word, not a number


def test_one_scale_is_one_run_whatever_it_is_called(tmp_path):
    """Catches a ladder of one scale that is another run than residual quantisation of one step."""
    one = {"base": "var", "delta": {"model.patch_nums": [4]}}
    names = {"ladder": one, "again": {**one, "delta": {**one["delta"], "sampler.temperature": 0.9}}}
    suite = {"claim": "c", "measure": ["ladders"], "variants": names, "figures": ["bands"]}
    plan = load_study(edited(tmp_path, **{"suites/ladders": suite}))
    stages = [run_id.split("/")[0] for run_id in plan.suites["ladders"]]
    assert stages.count("train") == stages.count("ladders") == 2  # one a training seed


def test_a_setting_of_its_own_is_its_name(model_config):
    """Catches a head that the config does not hold, so that two models would be one."""
    assert ModelConfig.model_validate_json(model_config(head="gauss").model_dump_json()).regresses
