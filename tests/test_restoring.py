"""Degradations, swapped scales and the refiner: each does what it says, and is off where it is."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from srdd import degradation
from srdd.config import SamplerConfig
from srdd.degradation import degraded, shifted
from srdd.lookup import names_in
from srdd.noise import generator
from srdd.quantizer import Quantizer
from srdd.refiner import LatentRefiner, rolled_out
from srdd.restoring import completed, expected_state, repaired, restored
from srdd.schedule import ScaleSchedule
from srdd.swapping import requantised, swapped

ALL = names_in(Path(degradation.__file__), "degrade")
SCHEDULE = ScaleSchedule((1, 2, 4))


def images(batch=4, side=8):
    return torch.rand(batch, 1, side, side, generator=generator("images")) * 2 - 1


# ---------------------------------------------------------------- degradations


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_strength_0_leaves_images_and_strength_1_does_not(name, channels):
    images_BCHW = images(side=16).expand(-1, channels, -1, -1)
    kept = images_BCHW.clone()
    assert torch.equal(degraded(name, images_BCHW, range(4), 0.0), kept)
    changed = degraded(name, images_BCHW, range(4))
    assert changed.shape == kept.shape and not torch.equal(changed, kept)
    assert torch.equal(images_BCHW, kept)
    assert changed.abs().max() <= 1


@pytest.mark.parametrize("name", ALL)
def test_the_seed_decides_and_the_batch_does_not(name):
    images_BCHW = images()
    whole = degraded(name, images_BCHW, [5, 6, 7, 8])
    for i, seed in enumerate((5, 6, 7, 8)):
        assert torch.equal(degraded(name, images_BCHW[i : i + 1], [seed]), whole[i : i + 1])
    if name in ("noise", "occlusion", "haze"):
        assert not torch.equal(degraded(name, images_BCHW, [9, 10, 11, 12]), whole)


def test_what_each_degradation_is():
    grey = torch.zeros(1, 1, 64, 64)
    assert degraded("noise", grey, [0]).std().item() == pytest.approx(0.45, abs=0.03)
    hidden = degraded("occlusion", grey, [0])
    assert (hidden == -1).sum().item() == 24 * 24
    paler = degraded("contrast", images(), range(4))
    torch.testing.assert_close(paler, 0.4 * images())
    assert torch.equal(paler, shifted("contrast", images(), range(4)))
    point = torch.zeros(1, 1, 8, 8)
    point[0, 0, 4, 4] = 1
    blurred = degraded("blur", point, [0])
    torch.testing.assert_close(blurred[0, 0, 3:6, 3:6], torch.full((3, 3), 1 / 9))
    half = degraded("blur", point, [0], 0.5)
    torch.testing.assert_close(half, (point + blurred) / 2)


def test_a_gaussian_blur_is_that_of_scipy():
    """Catches a width, a border or an axis that is another one."""
    picture = images(2, 64)
    blurred = degraded("gaussian_blur", picture, range(2), 1.5)
    wanted = ndimage.gaussian_filter(picture.double().numpy(), (0, 0, 1.5, 1.5), mode="nearest")
    np.testing.assert_allclose(blurred.numpy(), wanted, atol=1e-4)
    flat = torch.full((1, 3, 4, 4), 0.25)
    torch.testing.assert_close(degraded("gaussian_blur", flat, [0], 100.0), flat)


@pytest.mark.parametrize("strength,quality", [(0.2, 50), (1.0, 10), (2.0, 5), (10.0, 1)])
def test_jpeg_quantises_so_many_times_as_coarsely(strength, quality):
    """Catches a quality that does not fall with strength, and planes in another order."""
    picture = images(1, 32).expand(-1, 3, -1, -1) * torch.tensor([1.0, 0.5, 0.1])[:, None, None]
    file = io.BytesIO()
    levels = picture[0].add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    wanted = np.array(Image.open(file)).transpose(2, 0, 1) / 127.5 - 1
    given = degraded("jpeg", picture, [0], strength)[0]
    np.testing.assert_allclose(given.numpy(), wanted, atol=1e-6)


def test_haze_goes_by_the_atmospheric_model():
    """Catches light that is not grey, depth that is not smooth, and haze that does not thicken: two
    colours at one place tell the transmission, and a third one the light."""
    levels = torch.tensor([-1.0, 0.0, 1.0])[:, None, None].expand(1, 3, 32, 32)
    hazy = degraded("haze", levels, [3], 1.0)[0]
    through = (hazy[2] - hazy[0]) / 2
    depth = -through.log()
    assert 0.5 <= depth.min() and depth.max() <= 1.5
    assert (depth[1:] - depth[:-1]).abs().max() < 0.15 < depth.max() - depth.min()
    light = (hazy[1] / (1 - through) + 1) / 2
    torch.testing.assert_close(light, light[:1, :1].expand_as(light))
    assert 0.7 <= light[0, 0] <= 1
    thick = degraded("haze", levels, [3], 2.0)[0]
    torch.testing.assert_close((thick[2] - thick[0]) / 2, through.square())
    assert math.isclose(
        light[0, 0], ((thick[1] / (1 - through.square()) + 1) / 2)[0, 0], rel_tol=1e-4
    )
    # 32 pixels: four times over, nearly a Gaussian of the same variance, 4 x 2/3
    wide = torch.zeros(1, 1, 32, 32)
    wide[0, 0, 16, 16] = 1
    spread = degraded("blur", wide, [0])[0, 0]
    place = torch.arange(32) - 16.0
    assert (spread.sum(1) * place**2).sum().item() == pytest.approx(8 / 3, rel=1e-4)


@pytest.mark.parametrize(
    "name,strength,words",
    [
        ("occlusion", 3.0, "strength 3: of occlusion hides a square larger than the image"),
        ("contrast", 2.0, "strength 2: of contrast turns black into white; give 1.66 or less"),
        ("haze", 13.0, "strength 13: of haze leaves nothing but its own light .*; give 12.46"),
        ("noise", -1.0, "strength -1: is below 0"),
        ("rain", 1.0, "unknown degrade 'rain'"),
    ],
)
def test_what_cannot_be_a_degradation_is_refused(name, strength, words):
    with pytest.raises(ValueError, match=words):
        degraded(name, images(), range(4), strength)


def test_the_most_haze_still_shows_something():
    """Catches a limit that refuses images which 8 bits can tell apart, or lets pass others."""
    ends = torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 1, 32, 32)
    same = []
    for seed in range(200):
        hazy = degraded("haze", ends, [seed, seed], 12.46)
        levels = hazy.add(1).mul(127.5).round()
        same.append(torch.equal(levels[0], levels[1]))
    assert not all(same)
    thin = 2 * math.exp(-0.5 * 12.46) * 127.5
    assert thin == pytest.approx(0.5, abs=0.01)


def test_each_image_needs_a_seed():
    with pytest.raises(ValueError, match="3 seeds for 4 images"):
        degraded("noise", images(), range(3))


# ---------------------------------------------------------------- swapped scales


def two(make_ladder):
    ladder = make_ladder(SCHEDULE)
    latents = [torch.randn(3, 4, 4, 4, generator=generator(name)) for name in ("one", "other")]
    return ladder, latents, [ladder.encode(latent)[0] for latent in latents]


def test_cuts_at_both_ends_are_the_two_images(make_ladder):
    ladder, _, (clean, other) = two(make_ladder)
    K = SCHEDULE.num_scales
    assert torch.equal(swapped(SCHEDULE, clean, other, range(0, K)), other)
    assert torch.equal(swapped(SCHEDULE, clean, other, ()), clean)
    assert torch.equal(swapped(SCHEDULE, clean, clean, {1}), clean)
    both = swapped(SCHEDULE, clean, other, {1})
    for k, where in enumerate(SCHEDULE.slices):
        assert torch.equal(both[:, where], (other if k == 1 else clean)[:, where])
    with pytest.raises(ValueError, match="scale 3: the schedule has 0 to 2"):
        swapped(SCHEDULE, clean, other, {3})


def test_contributions_of_swapped_scales_sum_to_their_decoding(make_ladder):
    ladder, _, (clean, other) = two(make_ladder)
    both = swapped(SCHEDULE, clean, other, {0, 2})
    total = torch.zeros(3, 4, 4, 4)
    for k, where in enumerate(SCHEDULE.slices):
        codes = ladder.quantizer.embed((clean if k == 1 else other)[:, where])
        total = total + ladder.add_scale(ladder.empty_state(3), codes, k)
    torch.testing.assert_close(ladder.decode(both), total)


def test_quantising_again_keeps_the_coarse_and_finds_the_own_tokens(make_ladder):
    ladder, (latent, other_latent), (clean, other) = two(make_ladder)
    assert torch.equal(requantised(ladder, clean, latent, 1), clean)
    assert torch.equal(requantised(ladder, clean, other_latent, 0), other)
    assert torch.equal(requantised(ladder, clean, other_latent, 3), clean)
    mended = requantised(ladder, other, latent, 1)
    assert torch.equal(mended[:, SCHEDULE.slices[0]], other[:, SCHEDULE.slices[0]])
    # what the first scale of the other image left over is quantised, not what its own left
    states = list(ladder.states(mended))
    for k in (1, 2):
        residual = ladder.read_scale(latent - states[k - 1], k)
        assert torch.equal(mended[:, SCHEDULE.slices[k]], ladder.quantizer.nearest_code(residual))


def test_where_scales_replace_all_is_quantised_again(make_ladder):
    """Catches a rest that such a tokenizer does not know."""
    ladder, (_, latent), (clean, _) = two(make_ladder)
    quantizer = Quantizer(7, 4, combine="replace")
    quantizer.load_state_dict(ladder.quantizer.state_dict())
    ladder = quantizer.at(SCHEDULE)
    assert torch.equal(requantised(ladder, clean, latent, 0), ladder.encode(latent)[0])


# ---------------------------------------------------------------- without training


def test_ways_without_training_read_the_state_that_a_model_reads(make_model, make_ladder):
    """Catches a model of the last contribution that is asked at the sum of all: the likeliest codes
    of a low temperature, and tokens all redrawn or all kept, are those of the sampler."""
    model = make_model(state="last", mask_prob=0.5)
    ladder = make_ladder(model.schedule)
    tokens = ladder.encode(torch.randn(3, 4, 3, 3, generator=generator("d")))[0]
    seen = []
    denoise = model.denoiser()

    def watched(inputs, *given):
        seen.append(inputs)
        return denoise(inputs, *given)

    model.denoiser = lambda degraded=None: watched
    repaired(model, ladder, tokens, range(3), 1e-9, 1)
    completed(model, ladder, tokens, model.schedule.num_scales, range(3))
    wanted = ladder.read_as("last").teacher_forced_inputs(tokens)
    for half in (seen[: model.schedule.num_scales], seen[model.schedule.num_scales :]):
        torch.testing.assert_close(torch.cat(half, 1), wanted)


# ---------------------------------------------------------------- refiner


def refiner(model):
    config = model.config
    made = LatentRefiner(config.codebook_dim, 3, config.width, 2, 16, 2)
    made.init_weights(generator("refiner"))
    return made


@pytest.mark.parametrize("state", ["sum", "last"])
def test_a_refiner_starts_as_the_state_itself(make_model, make_ladder, state):
    model = make_model(condition="state", num_classes=0, state=state)
    ladder, latent = make_ladder(model.schedule), torch.randn(3, 4, 3, 3, generator=generator("d"))
    f_hat, hidden = rolled_out(model, ladder, latent)
    argmax, tokens = restored(model, ladder, latent, range(3), "argmax", SamplerConfig())
    torch.testing.assert_close(f_hat, argmax)
    # towards temperature 0 the mean code is the likeliest
    labels = torch.zeros(3, dtype=torch.long)
    given = model.denoiser(latent), ladder.read_as(state), labels, 1e-4
    torch.testing.assert_close(expected_state(*given), argmax)
    inputs = ladder.read_as(state).teacher_forced_inputs(tokens)
    torch.testing.assert_close(hidden, model.hidden(inputs, labels, degraded_BChw=latent))
    assert torch.equal(refiner(model)(f_hat, hidden), f_hat)


def test_a_refiner_learns_what_the_features_tell(make_model, make_ladder):
    model = make_model(condition="state", num_classes=0)
    ladder, latent = make_ladder(model.schedule), torch.randn(8, 4, 3, 3, generator=generator("d"))
    f_hat, hidden = rolled_out(model, ladder, latent)
    made = refiner(model)
    assert torch.equal(refiner(model).memory.weight, made.memory.weight)  # drawn by name
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    errors = []
    for _ in range(60):
        error = (made(f_hat, hidden) - latent).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.7 * errors[0]
