"""Samples that are recorded and replayed: when, and when not. The recording itself needs a GPU
(tests/gpu): here it only notes what it would replay."""

import gc
import importlib.util
import sys
import warnings
import weakref
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from bench.pipeline import sampling as drawing
from bench.runtime.progress import Progress
from srdd import compiling, replay, sampling
from srdd.config import SamplerConfig
from srdd.fused import FusedStep
from srdd.memory import is_out_of_memory
from srdd.noise import GivenNoise, ImageNoise
from srdd.sampling import generate


class Noted(sampling.Replay):
    """Draws anew in place of replaying, from the numbers that a record would be given."""

    made, tried, full = 0, 0, None

    def __init__(self, draw, labels_B, asked, weights):
        Noted.tried += 1
        if self.full:
            raise self.full
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
    monkeypatch.setattr(Noted, "full", None)
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


FULL = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory"),  # of a graph that is put together
    RuntimeError("Triton Error [CUDA]: out of memory"),  # of a kernel that is loaded
    # of cuDNN, whose every way needs memory to work in
    RuntimeError("GET was unable to find an engine to execute this computation"),
    # as cudnnGetErrorString says it since cuDNN 9
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA driver error: out of memory"),  # of a kernel that Inductor compiled
    # of a first sum over processes, which takes memory for itself
    RuntimeError("ncclUnhandledCudaError\nLast error:\nCuda failure 2 'out of memory'"),
)


@pytest.mark.parametrize("error", FULL, ids=str)
def test_without_memory_for_a_record_images_are_drawn_all_the_same(recorded, monkeypatch, error):
    """Catches a batch that is halved because its record does not fit, and a record tried again."""
    model, draw = recorded
    assert is_out_of_memory(error)
    monkeypatch.setattr(Noted, "full", error)
    for _ in range(3):
        assert torch.equal(draw(), plain(model, draw))
    assert Noted.made == 0 and Noted.tried == 1


def test_another_error_of_a_record_is_raised(recorded, monkeypatch):
    """Catches a fault of a record that is taken for a full memory, and drawn around."""
    _, draw = recorded
    monkeypatch.setattr(Noted, "full", RuntimeError("operation not permitted"))
    draw()
    with pytest.raises(RuntimeError, match="not permitted"):
        draw()


@pytest.mark.parametrize("select", [{"name": "lowest", "confidence": "mine"}, {"name": "mine"}])
def test_what_a_function_of_ones_own_asks_is_not_recorded(make_model, select):
    """Catches a confidence or head of one's own inside a record: it may wait for the GPU."""
    model, known = make_model(), SamplerConfig(name="srdd", select={"name": "lowest"})
    assert sampling._repeats(model, known, False)
    assert not sampling._repeats(model, SamplerConfig(name="srdd", select=select), False)
    own = SimpleNamespace(config=SimpleNamespace(head="mine"))
    assert not sampling._repeats(own, known, False)


def test_known_tokens_are_never_recorded(recorded):
    """Catches the tokens of one image that a record hands to all that follow."""
    model, draw = recorded
    for _ in range(3):
        tokens_BL = draw()
    model.replays.clear()
    known = sampling.Known(tokens_BL, torch.ones_like(tokens_BL, dtype=torch.bool))
    assert torch.equal(draw(known=known), tokens_BL) and model.replays == {}


# ---------------------------------------------------------------- memory


class NoRecording:
    """Runs what it is told to record, and does nothing of it again."""

    def __call__(self):
        return nullcontext()

    def cut(self):
        pass

    def replay(self):
        pass


@pytest.mark.parametrize("how", ["fused", "torch.compile"])
def test_a_model_that_is_let_go_takes_its_samples_with_it(
    monkeypatch, make_model, make_ladder, how
):
    """Catches a model that its step or its record holds: the weights of every snapshot would stay
    on the GPU until Python looks for cycles."""
    monkeypatch.setattr(replay, "Recording", NoRecording)
    model = make_model()
    if how == "fused":
        model.step, model.replays = FusedStep(model), {}
    else:
        model.compile_step(backend="eager")
    ladder, labels_B = make_ladder(model.schedule), torch.arange(2)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            generate(model, ladder, labels_B, range(2), SamplerConfig())
        assert how != "fused" or isinstance(*model.replays.values(), replay.Replay)
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


class Kept(Noted):
    """A record that takes room."""

    def __init__(self):
        pass


@pytest.mark.parametrize("needs, fitted, recorded_again", [
    (lambda model, batch: False, 8, True),
    (lambda model, batch: any(isinstance(one, Kept) for one in model.replays.values()), 8, False),
    (lambda model, batch: batch > 4, 4, False),
], ids=["old records", "its own record", "itself"])  # fmt: skip
def test_records_go_before_a_batch_is_halved(
    monkeypatch, make_model, needs, fitted, recorded_again
):
    """Catches images that round otherwise because of what a sampler before them had recorded, a
    batch that is tried for ever, and one that is recorded again and again without room for it."""
    model, tries = make_model(), []
    model.replays = {"before": Kept()}

    def draw(images, model, tokenizer, sampler, labels_B, seeds):
        tries.append(len(seeds))
        assert len(tries) < 20
        if "before" in model.replays and model.replays["before"] != []:
            return None
        if needs(model, len(seeds)):
            return None
        if model.replays.get(len(seeds)) != []:
            model.replays[len(seeds)] = Kept()
        images[:] = np.array(seeds)[:, None, None, None]
        return torch.tensor(seeds)[:, None], drawing.Calls()

    monkeypatch.setattr(drawing, "draw_batch", draw)
    images = np.zeros((24, 1, 1, 1), np.uint8)
    how = torch.zeros(24, dtype=torch.long), 0, 8, Progress("x", 24)
    _, most = drawing.sample_into(images, model, None, SamplerConfig(), *how)
    assert most == fitted and images.ravel().tolist() == list(range(24))
    assert (Kept in map(type, model.replays.values())) == (recorded_again or fitted < 8)


# ---------------------------------------------------------------- kernels


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
        compiling.kernels_work.cache_clear()
        with torch.no_grad(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert [compiling.can_fuse(on_gpu) for _ in range(3)] == 3 * [not broken]
        assert len(calls) == 1 and len(said) == broken
        assert all("Python.h: No such file" in str(one.message) for one in said)
        assert not compiling.can_fuse(on_gpu)  # gradients are asked for
    compiling.kernels_work.cache_clear()


def test_a_full_gpu_says_nothing_of_its_kernels(monkeypatch):
    """Catches slower code for a whole job because memory was full at the first question."""
    kernels = ModuleType("srdd.kernels")
    monkeypatch.setitem(sys.modules, "srdd.kernels", kernels)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())

    def full(*shape, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    zeros = torch.zeros
    kernels.kept_mass = lambda *given: None
    compiling.kernels_work.cache_clear()
    with monkeypatch.context() as now:
        now.setattr(torch, "zeros", full)
        with pytest.raises(torch.OutOfMemoryError):
            compiling.kernels_work()
    with monkeypatch.context() as later:
        later.setattr(torch, "zeros", lambda *shape, device: zeros(*shape))
        assert compiling.kernels_work()
    compiling.kernels_work.cache_clear()


def test_numbers_given_are_those_that_would_be_drawn():
    """Catches columns that are handed out twice."""
    asked = [(3, ""), (2, "sr"), (4, ""), (1, "refine")]
    given, drawn = GivenNoise(ImageNoise(range(5)).all_of(asked)), ImageNoise(range(5))
    for length, use in asked:
        assert torch.equal(given.uniform(length, use), drawn.uniform(length, use))
    assert drawn.asked == asked
