"""Samples that are recorded and replayed: when, and when not. The recording itself needs a GPU
(tests/gpu): here it only notes what it would replay."""

import importlib.util
import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
import torch

from srdd import compiling, sampling
from srdd.config import SamplerConfig
from srdd.noise import GivenNoise, ImageNoise
from srdd.sampling import generate


class Noted(sampling.Replay):
    """Draws anew in place of replaying, from the numbers that a record would be given."""

    made, tried, full = 0, 0, False

    def __init__(self, draw, labels_B, asked, weights):
        Noted.tried += 1
        if self.full:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        Noted.made += 1
        self.draw, self.asked, self.weights = draw, asked, [weight.detach() for weight in weights]

    def __call__(self, labels_B, noise):
        return self.draw(labels_B, GivenNoise(noise.all_of(self.asked)))


@pytest.fixture
def recorded(monkeypatch, make_model, make_ladder):
    """A model whose samples are recorded, and how to draw from it."""
    monkeypatch.setattr(sampling, "Replay", Noted)
    monkeypatch.setattr(Noted, "made", 0)
    monkeypatch.setattr(Noted, "tried", 0)
    monkeypatch.setattr(Noted, "full", False)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    model = make_model()
    ladder, model.replays = make_ladder(model.schedule), {}

    def draw(sampler=SamplerConfig(), seeds=range(4), **more):  # noqa: B008
        labels_B = torch.tensor([seed % 3 for seed in seeds])
        return generate(model, ladder, labels_B, seeds, sampler, **more)[0]

    return model, draw


def plain(model, draw, *given, **more):
    """The same without a record."""
    kept, model.replays = model.replays, None
    tokens_BL = draw(*given, **more)
    model.replays = kept
    return tokens_BL


@pytest.mark.parametrize("sampler", [
    SamplerConfig(cfg_scale=2.0, top_k=3), SamplerConfig(name="srdd", sr_steps=2),
])  # fmt: skip
def test_a_record_draws_what_is_drawn_without(recorded, sampler):
    """Catches numbers that a record takes in another order, or of another image."""
    model, draw = recorded
    for seeds in (range(4), range(4, 8), range(8, 12)):
        assert torch.equal(draw(sampler, seeds), plain(model, draw, sampler, seeds))
    assert Noted.made == 1


def test_each_batch_size_and_sampler_has_its_record(recorded):
    """Catches a record of other settings."""
    model, draw = recorded
    samplers = SamplerConfig(), SamplerConfig(top_k=2), SamplerConfig(temperature=2.0)
    cases = [(samplers[0], range(2)), *((sampler, range(4)) for sampler in samplers)]
    for _ in range(3):
        for case in cases:
            assert torch.equal(draw(*case), plain(model, draw, *case))
    assert Noted.made == len(cases)


def test_weights_that_moved_are_recorded_again(recorded):
    """Catches a record that reads memory which weights have left."""
    model, draw = recorded
    for _ in range(3):
        draw()
    with torch.no_grad():
        model.head.weight.neg_()  # in place: the record sees it
    assert torch.equal(draw(), plain(model, draw)) and Noted.made == 1
    model.head.weight = torch.nn.Parameter(-model.head.weight.detach())
    for _ in range(3):
        assert torch.equal(draw(), plain(model, draw))
    assert Noted.made == 2


def test_without_memory_for_a_record_images_are_drawn_all_the_same(recorded, monkeypatch):
    """Catches a batch that is halved because its record does not fit, and a record tried again."""
    model, draw = recorded
    monkeypatch.setattr(Noted, "full", True)
    for _ in range(3):
        assert torch.equal(draw(), plain(model, draw))
    assert Noted.made == 0 and Noted.tried == 1


def test_kernels_that_cannot_be_compiled_are_done_without(monkeypatch):
    """Catches a machine without the headers of Python, on which nothing could be sampled."""
    on_gpu = SimpleNamespace(is_cuda=True, dtype=torch.float32)
    kernels = ModuleType("srdd.kernels")
    monkeypatch.setitem(sys.modules, "srdd.kernels", kernels)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: zeros(*shape))
    for broken in (True, False):
        calls = []

        def kept_mass(*given, calls=calls, broken=broken):
            calls.append(given)
            if broken:
                raise RuntimeError("gcc failed\nPython.h: No such file")

        kernels.kept_mass = kept_mass
        compiling._kernels_work.cache_clear()
        with torch.no_grad(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert [compiling.can_fuse(on_gpu) for _ in range(3)] == 3 * [not broken]
        assert len(calls) == 1 and len(said) == broken
        assert all("Python.h: No such file" in str(one.message) for one in said)
        assert not compiling.can_fuse(on_gpu)  # gradients are asked for
    compiling._kernels_work.cache_clear()


def test_numbers_given_are_those_that_would_be_drawn():
    """Catches columns that are handed out twice."""
    asked = [(3, ""), (2, "sr"), (4, ""), (1, "refine")]
    given, drawn = GivenNoise(ImageNoise(range(5)).all_of(asked)), ImageNoise(range(5))
    for length, use in asked:
        assert torch.equal(given.uniform(length, use), drawn.uniform(length, use))
    assert drawn.asked == asked
