"""The features job: what scores need and cannot have ends there, before any training."""

from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch

from bench.pipeline import features, train_features
from bench.pipeline.datasets import ArrayImages
from bench.runtime.quick_start import import_torch_fidelity
from bench.study.errors import ConfigError
from bench.study.settings import DatasetConfig, FeaturesConfig
from stub_inception import DIM, StubInception

DATA = DatasetConfig(name="digits", image_size=8, channels=1, num_classes=10)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The job with 100 held-out images, or so many, and some settings of features; returns what
    it reports."""

    def run(held_out=100, **features):
        config = FeaturesConfig(**{"kind": "inception", "name": "x", "dim": DIM, **features})
        splits = {
            name: ArrayImages(np.zeros((held_out, 1, 8, 8), np.uint8), np.arange(held_out) % 10)
            for name in ("train", "test")
        }
        for module in ("bench.pipeline.train_features", "bench.pipeline.reference"):
            monkeypatch.setattr(f"{module}.open_split", lambda folder, split: splits[split])
        found = {}
        here = SimpleNamespace(
            settings=lambda key, schema: {"features": config, "dataset": DATA}[key],
            out=tmp_path,
            device=torch.device("cpu"),
            inputs={"data": tmp_path},
            run_id="features/x",
            add=lambda name, value, *rest, **more: found.update({name: value}),
            say=lambda text: None,
        )
        train_features.work(here)
        return found

    return run


def extractor(monkeypatch, make):
    import_torch_fidelity()
    monkeypatch.setattr("torch_fidelity.utils.create_feature_extractor", make)


def fails(error):
    def make(*args, **settings):
        raise error

    return make


@pytest.mark.parametrize(
    "error",
    [
        URLError("no network"),
        TimeoutError("slow"),
        ConnectionResetError(104, "reset"),
        RuntimeError("sum"),
    ],
)
def test_weights_that_cannot_be_downloaded(job, monkeypatch, error):
    """Catches a job that ends well while Inception cannot be had, which the first evaluation
    would say after all trainings."""
    extractor(monkeypatch, fails(error))
    with pytest.raises(
        ConfigError, match=r"features\.weights: null.*cannot download.*features\.sha256"
    ) as found:
        job()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Missing key(s)\nin state_dict"), EOFError("Ran out of input"), KeyError("x")],
)
def test_weights_of_something_else(job, monkeypatch, tmp_path, error):
    """Catches a traceback for a file that is no Inception."""
    file = tmp_path / "w.pth"
    file.write_bytes(b"x")
    sum_of_x = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    extractor(monkeypatch, fails(error))
    with pytest.raises(ConfigError, match=r"features\.weights: .*w\.pth holds no weights") as found:
        job(weights=str(file), sha256=sum_of_x)
    assert "\n" not in str(found.value)
    with pytest.raises(ConfigError, match="sha256"):
        job(weights=str(file), sha256="0" * 64)


def test_a_full_memory_is_no_fault_of_the_weights(job, monkeypatch):
    """Catches a job that ran out of memory and blames its settings."""
    extractor(monkeypatch, fails(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        job()


def test_features_of_another_size(job, monkeypatch):
    """Catches a dim that the layer of these weights does not have."""

    class Other(StubInception):
        def convert_features_tuple_to_dict(self, features):
            return {"192": features[0], "logits_unbiased": features[1]}

    extractor(monkeypatch, lambda *args, **settings: Other())
    with pytest.raises(ConfigError, match=r"features\.dim: 192.*64 features"):
        job(dim=192)


@pytest.mark.parametrize("given, held_out, count", [(None, 100, 0), (0, 100, 0), (120, 20, 120)])
def test_sound_weights_and_references(job, monkeypatch, tmp_path, given, held_out, count):
    """Catches checks that refuse what scores can be taken with."""
    extractor(monkeypatch, lambda *args, **settings: StubInception())
    assert job(held_out, **reference(tmp_path, given)) == (
        {} if given is None else {"reference_images": count}
    )


@pytest.mark.parametrize("given, held_out", [(None, 99), (0, 20), (99, 100)])
def test_too_few_images_to_score_against(job, monkeypatch, tmp_path, given, held_out):
    """Catches a reference of fewer images than a score takes, found after all trainings."""
    extractor(monkeypatch, lambda *args, **settings: StubInception())
    with pytest.raises(
        ConfigError, match=r"features\.reference: \d+ images to score against.*100 or more"
    ):
        job(held_out, **reference(tmp_path, given))


def reference(folder, count):
    """Settings of a reference with so many images; None: without one."""
    if count is None:
        return {}
    images = {"arr_0": np.zeros((count, 8, 8, 3), np.uint8)} if count else {}
    np.savez(folder / "r.npz", mu=np.zeros(DIM), sigma=np.eye(DIM), **images)
    return {"reference": str(folder / "r.npz")}


@pytest.mark.parametrize("steps", [1, 3, 400])
def test_warm_up_of_the_classifier_reaches_its_peak(monkeypatch, job, steps):
    """Catches a fixed warm-up that is longer than a short training."""
    asked = []
    monkeypatch.setattr(features, "learning_rate", lambda *words: asked.append(words) or 1e-3)
    monkeypatch.setattr(
        features,
        "check_finite",
        lambda value, step: steps == 400 and step == 1 and fails(StopIteration())(),
    )
    try:
        job(kind="trained", dim=8, channels=8, steps=steps, batch_size=4)
    except StopIteration:
        pass
    _, total, _, warmup, _ = asked[0]
    assert total == steps and warmup == min(20, steps // 2)


def test_a_classifier_that_is_stopped_early():
    """Catches weights of the last step, or of another step than the one that is said, where those
    of the lowest held-out loss are asked for: labels of noise can only be learnt by heart."""
    source, shape = np.random.default_rng(0), {"channels": 1, "image_size": 8, "num_classes": 4}
    train, val = (
        ArrayImages(source.integers(0, 256, (300, 1, 8, 8), np.uint8), source.integers(0, 4, 300))
        for _ in range(2)
    )
    config = FeaturesConfig(name="x", channels=8, dim=16, steps=60, lr=1e-2, eval_every=7)

    def held_out_loss(model):
        with torch.no_grad():
            logits = model(val.read(range(300)))
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(val.labels_N)).item()

    def fitted(steps, best=None):
        longer = config.model_copy(update={"steps": steps})
        how = 0, torch.device("cpu"), lambda value: None, best
        return features.train_classifier(longer, shape, train, train.labels_N, *how)

    best = features.Best(val, config.eval_every)
    kept, last = fitted(60, best), fitted(60)
    assert 300 * held_out_loss(kept) == pytest.approx(best.loss, rel=1e-5)
    assert held_out_loss(kept) < held_out_loss(last) and best.step in range(7, 60, 7)
    every = features.Best(val, 100)
    assert torch.equal(fitted(60, every).head.weight, last.head.weight) and every.step == 60
