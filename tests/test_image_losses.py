"""Losses of a tokenizer beside its pixels: perceptual, adversarial, their weights, their state."""

import hashlib
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import yaml
from pydantic import ValidationError

from bench.pipeline import image_losses, lpips, perceptual
from bench.pipeline.image_losses import ImageLosses
from bench.pipeline.perceptual import Perceptual
from bench.runtime.provenance import ROOT
from bench.runtime.quick_start import import_torch_fidelity
from bench.runtime.ranks import Ranks
from bench.runtime.verbs import stages
from bench.speed.benchmark_growth import small_study
from bench.study.plan import load_study
from bench.study.settings import WeightsConfig
from bench.study.tokenizer_settings import TokenizerSpec
from srdd.discriminator import (
    PatchDiscriminator,
    adaptive_weight,
    adversarial_loss,
    discriminator_loss,
)
from srdd.loss import perceptual_distance, tokenizer_loss, usage_entropy
from srdd.noise import generator

RUN = SimpleNamespace(device=torch.device("cpu"), files={}, ranks=Ranks())
SMALL = {"discriminator": {"layers": 1, "channels": 8}}


@pytest.mark.parametrize("places, entropy", [
    ([0, 0, 0, 0], 0.0), ([0, 0, 9, 9], 1.0), ([0, 0, 0, 9], 0.81128), ([9], 0.0),
])  # fmt: skip
def test_usage_is_the_share_of_the_largest_entropy(places, entropy):
    """Catches an entropy in other units, of each latent alone, or 1 for one code of two."""
    codebook_VC = torch.tensor([[0.0], [9.0]])
    latent_BlC = torch.tensor(places, dtype=torch.float).view(1, -1, 1)
    assert usage_entropy(latent_BlC, codebook_VC).item() == pytest.approx(entropy, abs=1e-4)


def test_usage_measures_distances_by_the_nearest_code():
    """Catches a temperature that is another distance, and distances that are not squared: squares 1
    and 9, divided by 1."""
    found = usage_entropy(torch.tensor([[[1.0]]]), torch.tensor([[0.0], [4.0]]))
    share = 1 / (1 + math.exp(1 - 9))
    wanted = -(share * math.log(share) + (1 - share) * math.log(1 - share)) / math.log(2)
    assert found.item() == pytest.approx(wanted, rel=1e-3)


def images_of(name, count=3, channels=1, side=8):
    return torch.rand(count, channels, side, side, generator=generator(name)) * 2 - 1


def small_stages(images_B3HW):
    """Two stages of a made network, smooth in its input."""
    first = torch.tanh(F.conv2d(images_B3HW, KERNEL, stride=2, padding=1))
    return [first, torch.tanh(F.conv2d(first, KERNEL[:, :1].expand(-1, 5, -1, -1), padding=1))]


KERNEL = torch.randn(5, 3, 3, 3, generator=generator("kernel"))


@pytest.fixture
def losses_of(tokenizer_config, monkeypatch):
    """Factory of the losses of a training of the tiny tokenizer, whose network is a made one."""
    monkeypatch.setattr(
        image_losses, "open_perceptual", lambda run, config: Perceptual(small_stages, None, None)
    )

    def make(**training):
        training = {"steps": 10, "warmup": 2, **SMALL, **training}
        spec = TokenizerSpec.model_validate({"config": tokenizer_config(), "training": training})
        return ImageLosses(RUN, spec, 0)

    return make


def gradients(tokenizer, losses, step, images):
    """All gradients of a step of a fresh tokenizer, and what was said of its losses."""
    schedule = tokenizer.config.schedule
    tokenizer.zero_grad()
    parts = tokenizer_loss(tokenizer, images, schedule)
    judged = losses.backward(parts, images, tokenizer.decoder[-1].weight, step)
    grads = [p.grad for p in tokenizer.parameters() if p.grad is not None]
    return torch.cat([grad.flatten() for grad in grads]), judged


# ---------------------------------------------------------------- discriminator


def test_hinge_losses_by_hand():
    """Catches a sign, a margin, or halves that are not weighed alike."""
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 2.0])
    # (0 + 0.5 + 2) / 3 and (0 + 1 + 3) / 3
    assert discriminator_loss(real, fake).item() == pytest.approx((2.5 / 3 + 4 / 3) / 2)
    assert adversarial_loss(fake).item() == pytest.approx(1 / 3)
    assert adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])) == pytest.approx(2.5)
    assert adaptive_weight(torch.ones(4), torch.zeros(4)) == 1e4


@pytest.mark.parametrize("layers, patch", [(1, 16), (2, 34), (3, 70)])
def test_a_logit_judges_its_patch(layers, patch):
    """Catches a discriminator that sees more or less of an image than its settings say. Groups see
    the whole image, so they are made to do nothing."""
    network = PatchDiscriminator(3, 8, layers)
    network.init_weights(generator("d"))
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    side = 2 * patch
    image = torch.randn(1, 3, side, side, generator=generator("i"), requires_grad=True)
    logits_B1hw = network(image)
    middle = logits_B1hw.shape[-1] // 2
    (seen,) = torch.autograd.grad(logits_B1hw[0, 0, middle, middle], image)
    rows = seen.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == patch


def test_a_logit_depends_on_its_own_image_alone():
    """Catches a normalisation over the batch, which no number of processes could repeat."""
    network = PatchDiscriminator(1, 8, 1)
    network.init_weights(generator("d"))
    images = images_of("batch", 5)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)
    assert not list(network.buffers())


# ---------------------------------------------------------------- distance


def test_perceptual_distance_by_hand():
    """Catches a norm over places, a mean over channels, weights that are not those of channels."""
    one = torch.tensor([[[[3.0]], [[4.0]]]])
    other = torch.tensor([[[[0.0]], [[5.0]]]])
    distance = 0.6**2 + 0.2**2
    assert perceptual_distance([one], [other]).item() == pytest.approx(distance)
    assert perceptual_distance([one, one], [other, 7 * one]).item() == pytest.approx(distance)
    weights = [torch.tensor([2.0, 0.0])]
    assert perceptual_distance([one], [other], weights).item() == pytest.approx(2 * 0.36)
    with pytest.raises(ValueError, match="argument 2 is"):
        perceptual_distance([one], [other, other])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [None, 4, 16])
def test_images_of_any_size_and_colour_are_compared(channels, size):
    """Catches grey images that a network of three channels cannot read, and a gradient that does
    not come back."""
    seen = []

    def stages(images_B3HW):
        seen.append(tuple(images_B3HW.shape))
        return small_stages(images_B3HW)

    images = images_of("a", channels=channels).requires_grad_()
    distance = Perceptual(stages, None, size).distance(images, images_of("b", channels=channels))
    distance.backward()
    assert seen == [(3, 3, size or 8, size or 8)] * 2
    assert images.grad.abs().sum() > 0 and distance > 0


# ---------------------------------------------------------------- gradients


def test_off_it_is_the_loss_of_pixels_bit_by_bit(losses_of, make_tokenizer):
    """Catches settings at their defaults that change a number."""
    tokenizer, images = make_tokenizer(), images_of("images")
    mine, judged = gradients(tokenizer, losses_of(), 5, images)
    tokenizer.zero_grad()
    tokenizer_loss(tokenizer, images, tokenizer.config.schedule).total.backward()
    plain = [p.grad for p in tokenizer.parameters() if p.grad is not None]
    assert torch.equal(mine, torch.cat([grad.flatten() for grad in plain]))
    assert judged.numbers(RUN.ranks) == {}


def test_gradients_are_those_of_the_sum(losses_of, make_tokenizer):
    """Catches a weight that is taken of other gradients than those of equation 7 of VQGAN, and a
    loss that does not reach the tokenizer."""
    tokenizer, images = make_tokenizer(), images_of("images")
    losses = losses_of(perceptual=0.3, adversarial=0.7)
    network, last = losses.adversary.network, tokenizer.decoder[-1].weight
    parts = tokenizer_loss(tokenizer, images, tokenizer.config.schedule)
    distance = losses.perceptual.distance(parts.images, images)
    against = adversarial_loss(network(parts.images))
    fit = F.mse_loss(parts.images, images) + 0.3 * distance
    norms = [
        torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (fit, against)
    ]
    weight = 0.7 * norms[0] / (norms[1] + 1e-6)
    total = parts.total + 0.3 * distance + weight.detach() * against
    tokenizer.zero_grad()
    total.backward()
    plain = [p.grad.flatten() for p in tokenizer.parameters() if p.grad is not None]
    mine, judged = gradients(tokenizer, losses, 5, images)
    torch.testing.assert_close(mine, torch.cat(plain), rtol=1e-3, atol=1e-6)
    numbers = judged.numbers(RUN.ranks)
    assert numbers["adversarial_weight"] == pytest.approx(weight.item(), rel=1e-4)
    assert numbers["loss_perceptual"] == pytest.approx(distance.item(), rel=1e-5)
    assert set(numbers) == {
        "loss_perceptual",
        "loss_adversarial",
        "loss_discriminator",
        "adversarial_weight",
    }


def test_the_adversary_waits_for_its_start(losses_of, make_tokenizer):
    """Catches a discriminator that learns, or is heard, before its time."""
    tokenizer, images = make_tokenizer(), images_of("images")
    losses = losses_of(adversarial=0.5, adversarial_start=0.4)
    before = [value.clone() for value in losses.adversary.network.parameters()]
    for step, on in ((3, False), (4, True)):
        _, judged = gradients(tokenizer, losses, step, images)
        after = losses.adversary.network.parameters()
        assert any(not torch.equal(a, b) for a, b in zip(before, after)) == on
        assert ("loss_adversarial" in judged.numbers(RUN.ranks)) == on


@pytest.mark.parametrize("share, steps, begin", [(0.999, 20, 19), (0.2, 20, 4), (0.9, 1, 0)])
def test_it_begins_before_the_last_step(losses_of, share, steps, begin):
    """Catches an adversarial loss that is asked for and rounded away."""
    losses = losses_of(adversarial=0.5, adversarial_start=share, steps=steps, warmup=0)
    assert losses.adversary.begin == begin


def test_a_discriminator_learns_to_tell_images_apart(losses_of):
    """Catches halves of the batch that are mixed up: the loss would rise, and a sign."""
    adversary = losses_of(adversarial=1.0, steps=60).adversary
    real, fake = torch.full((4, 1, 8, 8), 0.5), images_of("fake", 4)
    values = [adversary.learn(real, fake, step).item() for step in range(12, 60)]
    assert values[0] == pytest.approx(1, abs=0.3) and values[-1] < 0.4
    with torch.no_grad():
        assert adversary.network(real).mean() > adversary.network(fake).mean()


def test_what_is_resumed_is_what_was_left(losses_of, make_tokenizer):
    """Catches a part of the discriminator or of its optimizer that a checkpoint does not hold."""
    images = images_of("images")
    whole, again = (losses_of(adversarial=0.5, adversarial_start=0.0) for _ in range(2))
    for step in range(3):
        gradients(make_tokenizer(), whole, step, images)
    again.restore({name: value.clone() for name, value in whole.state().items()})
    for step in range(3, 6):
        kept = [gradients(make_tokenizer(), losses, step, images)[0] for losses in (whole, again)]
        assert torch.equal(*kept)
    assert whole.state().keys() == again.state().keys()
    for name, value in whole.state().items():
        assert torch.equal(value, again.state()[name]), name


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "training, message",
    [
        ({"adversarial": 0.5}, r"layers 2: needs images of 12 pixels or more, these have 8"),
        ({"perceptual": 1.0, "perceptual_network": "lpips"}, "lpips needs perceptual_weights"),
        ({"perceptual_weights": {"file": "a.pth"}}, "perceptual_weights: only for"),
        ({"adversarial_start": 1.0}, "less than 1"),
        ({"perceptual": -1.0}, "greater than or equal to 0"),
        ({"discriminator": {"channels": 12}}, "multiple of 8"),
    ],
)
def test_settings_that_cannot_be_are_refused(tokenizer_config, training, message):
    """Catches a training that ends in a traceback about the shape of a convolution."""
    with pytest.raises(ValidationError, match=message):
        TokenizerSpec.model_validate({"config": tokenizer_config(), "training": training})


LPIPS = {
    "perceptual": 1.0,
    "perceptual_network": "lpips",
    "perceptual_weights": {"file": "a.pth", "sha256": "0" * 64},
}


@pytest.mark.parametrize("size, asked", [(None, 8), (15, 15)])
def test_lpips_is_not_asked_of_images_that_it_cannot_halve(tokenizer_config, size, asked):
    """Catches a training that ends in a traceback of a pooling of one pixel."""
    training = {**LPIPS, "perceptual_size": size}
    with pytest.raises(ValidationError, match=f"images of {asked} pixels and needs 16 or more"):
        TokenizerSpec.model_validate({"config": tokenizer_config(), "training": training})
    for legal in ({**training, "perceptual_size": 16}, {**training, "perceptual": 0.0}):
        TokenizerSpec.model_validate({"config": tokenizer_config(), "training": legal})
    network = lpips.Lpips()
    assert network.stages(torch.zeros(1, 3, 16, 16))[-1].shape[2:] == (1, 1)
    with pytest.raises(RuntimeError):
        network.stages(torch.zeros(1, 3, 15, 15))


@pytest.mark.parametrize("key", ["perceptual", "adversarial"])
def test_a_loss_of_images_is_not_asked_of_a_tokenizer_without_a_decoder(key):
    """Catches a training that ends in a traceback about a gradient that nothing takes."""
    sizes = {"patch_nums": [1, 2, 4], "image_size": 8, "in_channels": 1, "codec": "pixels"}
    config = {**sizes, "codebook_dim": 4, "channel_multipliers": [1, 1]}
    with pytest.raises(ValidationError, match=f"training.{key} 0.5: codec pixels has no decoder"):
        TokenizerSpec.model_validate({"config": config, "training": {key: 0.5}})


def test_the_smallest_image_is_one_patch():
    """Catches a least side that a discriminator cannot read, or one that is too large."""
    for layers in (1, 2, 3):
        side = 3 << layers
        network = PatchDiscriminator(1, 8, layers)
        assert network(torch.zeros(1, 1, side, side)).shape[2:] == (1, 1)
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 1, side - 2, side - 2))


# ---------------------------------------------------------------- LPIPS


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """A made file in the layout of LPIPS(net="vgg") with its backbone."""
    source, network = generator("lpips"), lpips.Lpips()
    tensors = {}
    for name, in_file in lpips.names_in_file().items():
        shape = network.get_parameter(name).shape
        value = torch.rand(shape, generator=source) if "channels" in name else None
        if value is None:
            spread = (2 / max(1, network.get_parameter(name)[0].numel())) ** 0.5
            value = torch.randn(shape, generator=source) * spread
        tensors[in_file] = value[None, :, None, None] if "channels" in name else value
    path = tmp_path_factory.mktemp("lpips") / "lpips_with_vgg.pth"
    torch.save(tensors, path)
    return path


def opened(path):
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    return lpips.open_lpips(WeightsConfig(file=str(path), sha256=known), "key")


def test_a_study_trains_a_tokenizer_by_lpips(weights_file, tmp_path):
    """Catches a job that refuses the place of the weights that its plan gave it."""
    known = {
        "file": str(weights_file),
        "sha256": hashlib.sha256(weights_file.read_bytes()).hexdigest(),
    }
    study = small_study(8)
    study["dataset"] |= {"name": "digits", "channels": 1, "num_classes": 10}
    study["evaluation"]["num_images"] = 100
    tokenizer = study["bases"]["var"]["tokenizer"]
    tokenizer["config"] |= {"patch_nums": [1, 2, 4], "channel_multipliers": [1, 1]}
    tokenizer["training"] |= {"perceptual": 1.0, "perceptual_network": "lpips", "steps": 2}
    tokenizer["training"] |= {"perceptual_size": 32, "perceptual_weights": known, "warmup": 1}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    jobs = load_study(tmp_path / "study.yaml").jobs
    for run_id in (run_id for run_id in jobs if run_id.startswith(("prepare/", "tokenizer/"))):
        job = jobs[run_id]
        (tmp_path / "job.json").write_text(json.dumps({"study": "growth", **job.about}))
        read = [word for role, name in job.inputs.items() for word in (f"--{role}", name)]
        verb = stages()[job.stage].name
        words = [sys.executable, "-m", "bench", verb, "job.json", run_id, *read]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*words, "--device", "cpu"], cwd=tmp_path, env=environment, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()


def test_lpips_is_that_of_torch_fidelity(weights_file, monkeypatch):
    """Catches another slice, colour or order of the channels than LPIPS has."""

    import_torch_fidelity()
    import_torch_fidelity()
    from torch_fidelity import sample_similarity_lpips as theirs

    places = [place for slice_ in lpips.SLICES for place, _, _ in slice_]
    sizes = {place: (c_in, c_out) for slice_ in lpips.SLICES for place, c_in, c_out in slice_}

    def vgg():
        layers = []
        for place in range(31):
            if place in places:
                layers.append(torch.nn.Conv2d(*sizes[place], 3, padding=1))
            else:
                pool = place in (4, 9, 16, 23, 30)
                layers.append(torch.nn.MaxPool2d(2, 2) if pool else torch.nn.ReLU())
        return SimpleNamespace(features=torch.nn.Sequential(*layers))

    tensors = torch.load(weights_file, weights_only=True)
    linear = {name: value for name, value in tensors.items() if name.startswith("lin")}
    monkeypatch.setattr(theirs, "torchvision_load_pretrained_vgg16", vgg)
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: linear)
    reference = theirs.SampleSimilarityLPIPS("lpips")
    reference.net.load_state_dict(
        {name.removeprefix("net."): v for name, v in tensors.items() if name.startswith("net.")}
    )
    mine = opened(weights_file)
    one, other = ((images_of(name, 2, 3, 32) + 1) * 127.5 for name in ("one", "other"))
    wanted = reference(one, other).mean()
    distance = Perceptual(mine.stages, mine.weights(), None).distance(
        one / 127.5 - 1, other / 127.5 - 1
    )
    assert distance.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_a_file_of_other_tensors_is_refused_in_one_line(weights_file, tmp_path):
    """Catches weights of another network that end in a traceback, or are read in part."""
    tensors = torch.load(weights_file, weights_only=True)
    less = {name: value for name, value in tensors.items() if name != "net.slice3.12.bias"}
    other = {**tensors, "lin0.model.1.weight": torch.ones(1, 3, 1, 1)}
    for content, message in ((less, "has no net.slice3.12.bias"), (other, "expected")):
        path = tmp_path / "other.pth"
        torch.save(content, path)
        with pytest.raises(ValueError, match=message) as caught:
            opened(path)
        assert "\n" not in str(caught.value)


def test_lite0_is_the_network_without_weights_of_ones_own():
    """Catches activations of another input range than the network was trained on: a reconstruction
    that is nearer in pixels is nearer in them."""
    run = SimpleNamespace(device=torch.device("cpu"), files={})
    spec = SimpleNamespace(perceptual_weights=None, perceptual_size=None)
    network = perceptual.open_perceptual(run, spec)
    wanted = F.interpolate(images_of("w", 2, 1, 8), 32, mode="bilinear")
    noise = torch.randn(wanted.shape, generator=generator("n"))
    distances = [network.distance(wanted + s * noise, wanted).item() for s in (0.0, 0.05, 0.2)]
    assert distances[0] == 0 and distances[0] < distances[1] < distances[2]
