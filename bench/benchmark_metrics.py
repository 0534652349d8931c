"""Scoring: feature extraction, the Fréchet distance, and all of torch-fidelity's metrics, beside the floor. Not tests.

    ./run test bench/benchmark_metrics.py --benchmark-enable -s

Prints, and writes to results/benchmarks/metrics_<device>.csv, times, ratios, floors and times over them. Plain is: for features batches
of 50 pictures, as public evaluators take by default; for the distance the square root of a matrix (scipy), as the first public code does.

Setting: 1000 grey pictures of 32x32, the study's own classifier with 64 features; Fréchet distance also with 512.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from bench.comparing import DEVICE, compare, flops_of, kept_rows
from bench.config import FeaturesConfig
from bench.features import Classifier, import_torchvision, save_classifier
from bench.metrics import Extractor, Scored, metric_fidelity
from bench.reference import Reference
from srdd.noise import generator

COUNT, SHAPE = 1000, {"channels": 1, "image_size": 32, "num_classes": 10}
CONFIG = FeaturesConfig(name="benchmark64")
rows = kept_rows("metrics", "what", "features")


def pictures(name: str) -> torch.Tensor:
    """Noise in the form of pictures."""
    return torch.randint(256, (COUNT, 1, 32, 32), generator=generator("benchmark", name), dtype=torch.uint8)


def classifier() -> Classifier:
    found = Classifier(CONFIG, **SHAPE)
    found.init_weights(0)
    return found.eval()


def extraction() -> tuple[int, int]:
    """Bytes and operations at least: the pictures read once, the classifier's products computed once for each."""
    with torch.device("meta"):
        counted, images = Classifier(CONFIG, **SHAPE), torch.empty(COUNT, 1, 32, 32, dtype=torch.uint8)
    return images.nbytes, flops_of(lambda: counted.features(images))


def test_feature_extraction(benchmark, rows):
    """1000 pictures through the classifier: batches of 256, as our metrics take, against batches of 50."""
    network, images = classifier().to(DEVICE), pictures("a").to(DEVICE)

    def path(size: int):
        return torch.no_grad()(lambda: [network.features(part) for part in images.split(size)])

    compare(benchmark, rows, path(256), path(50), 10, [extraction()], COUNT, what="features", features=CONFIG.dim)


@pytest.mark.parametrize("dim", [64, 512])
def test_frechet_distance(benchmark, rows, dim):
    """From means and covariances to the distance, by eigenvalues (torch-fidelity, which our metrics call) against a matrix root."""
    import_torchvision()
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    draw = np.random.default_rng(0)
    samples = [draw.standard_normal((4 * dim, dim)) * scale for scale in (1.0, 1.2)]
    statistics = [{"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)} for x in samples]
    (mu1, sigma1), (mu2, sigma2) = (tuple(one.values()) for one in statistics)

    def ours():
        return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]

    def plain():
        root = sqrtm(sigma1 @ sigma2).real
        return (mu1 - mu2) @ (mu1 - mu2) + np.trace(sigma1 + sigma2 - 2 * root)

    assert np.isclose(ours(), plain())
    # a product of two matrices and at least one more pass of as many operations for its eigenvalues
    work = 2 * sigma1.nbytes, 4 * dim**3
    compare(benchmark, rows, ours, plain, 5, [work], 1, what="frechet distance", features=dim)


def test_all_metrics_per_thousand_pictures(benchmark, rows, tmp_path):
    """FID, KID, IS, precision and recall of 1000 pictures against 1000, extraction included."""
    save_classifier(tmp_path / "features.safetensors", classifier(), SHAPE, CONFIG)
    extractor = Extractor(CONFIG, DEVICE, tmp_path)
    scored = Scored(pictures("a").numpy(), None, Reference(pictures("b").numpy()), extractor)
    ours = lambda: metric_fidelity(scored)  # noqa: E731
    compare(
        benchmark,
        rows,
        ours,
        None,
        3,
        [extraction(), extraction()],
        COUNT,
        what="torch-fidelity, all metrics",
        features=CONFIG.dim,
    )
