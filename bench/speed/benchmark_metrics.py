"""Scoring, part by part, beside the floor. Not tests.

Feature extraction, the Fréchet distance, KID, density and coverage, and all of `fidelity`.

    ./run test bench/speed/benchmark_metrics.py --benchmark-enable -s

Prints, and writes to results/benchmarks/metrics_<device>.csv, times, ratios, floors and times over
them. Plain is: for features batches of 50 images, as public evaluators take by default; for the
distance the square root of a matrix (scipy), as the first public code does; for KID
torch-fidelity's 100 subsets of 1000; for density and coverage whole matrices of distances.

Setting: 1000 grey images of 32x32, the study's own classifier with 64 features; Fréchet distance
also with 512; KID, density and coverage of 4000 against 4000.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.linalg import sqrtm

from srdd.noise import generator

from ..pipeline.datasets import to_float
from ..pipeline.features import Classifier
from ..pipeline.metrics import Extractor, Scored, metric_fidelity
from ..pipeline.reference import Reference
from ..pipeline.set_distances import density_coverage, kernel_between, kernel_within, squared_radii
from ..runtime.quick_start import import_torch_fidelity
from ..study.settings import FeaturesConfig
from .comparing import DEVICE, Rows, compare, kept_rows
from .counting import flops_of

COUNT, SHAPE = 1000, {"channels": 1, "image_size": 32, "num_classes": 10}
CONFIG = FeaturesConfig(name="benchmark64")
rows = kept_rows("metrics", "what", "features")


def noise(name: str) -> torch.Tensor:
    """Noise in the form of images."""
    return torch.randint(
        256, (COUNT, 1, 32, 32), generator=generator("benchmark", name), dtype=torch.uint8
    )


def classifier() -> Classifier:
    """The study's own classifier, untrained."""
    network = Classifier(CONFIG, **SHAPE)
    network.init_weights(0)
    return network.eval()


def extraction() -> tuple[int, int]:
    """Bytes and operations at least: the images read once, the classifier's products computed once
    for each."""
    with torch.device("meta"):
        network = Classifier(CONFIG, **SHAPE)
        images = torch.empty(COUNT, 1, 32, 32, dtype=torch.uint8)
    return images.nbytes, flops_of(lambda: network.features(images))


def test_feature_extraction(benchmark: BenchmarkFixture, rows: Rows) -> None:
    """1000 images through the classifier: in batches that our metrics take, against batches of 50
    as they lie in memory."""
    network, images = classifier().to(DEVICE), noise("a").to(DEVICE)
    extractor = Extractor(CONFIG, DEVICE, Path("."))
    extractor.__dict__["classifier"] = network

    @torch.no_grad()
    def ours() -> None:
        for part in images.split(extractor.batch):
            network.features(part)

    @torch.no_grad()
    def plain() -> None:
        for part in images.split(50):
            network.trunk(to_float(part))

    about = {"what": "features", "features": CONFIG.dim}
    compare(benchmark, rows, ours, plain, 10, [extraction()], COUNT, **about)


@pytest.mark.parametrize("dim", [64, 512])
def test_frechet_distance(benchmark: BenchmarkFixture, rows: Rows, dim: int) -> None:
    """From means and covariances to the distance, by eigenvalues (torch-fidelity, which our metrics
    call) against a matrix root."""
    import_torch_fidelity()
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    draw = np.random.default_rng(0)
    samples = [draw.standard_normal((4 * dim, dim)) * scale for scale in (1.0, 1.2)]
    mu1, mu2 = (x.mean(0) for x in samples)
    sigma1, sigma2 = (np.cov(x, rowvar=False) for x in samples)
    statistics = [{"mu": mu1, "sigma": sigma1}, {"mu": mu2, "sigma": sigma2}]

    def ours() -> float:
        return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]

    def plain() -> float:
        root = sqrtm(sigma1 @ sigma2).real
        return (mu1 - mu2) @ (mu1 - mu2) + np.trace(sigma1 + sigma2 - 2 * root)

    assert np.isclose(ours(), plain())
    # a product of two matrices and at least one more pass of as many operations for its eigenvalues
    work = 2 * sigma1.nbytes, 4 * dim**3
    compare(benchmark, rows, ours, plain, 5, [work], 1, what="frechet distance", features=dim)


def test_all_metrics_per_thousand_images(benchmark: BenchmarkFixture, rows: Rows) -> None:
    """FID, KID, IS, precision and recall of 1000 images against 1000, extraction included."""
    generated, real, network = noise("a").numpy(), noise("b").numpy(), classifier().to(DEVICE)

    def ours() -> dict[str, float]:
        extractor = Extractor(
            CONFIG, DEVICE, Path(".")
        )  # a new one: it keeps what it has extracted
        extractor.__dict__["classifier"] = network
        return metric_fidelity(Scored(generated, None, Reference(real), extractor))

    compare(
        benchmark,
        rows,
        ours,
        None,
        3,
        [extraction(), extraction()],
        COUNT,
        what="fidelity, all scores",
        features=CONFIG.dim,
    )


def feature_sets(count: int = 4000) -> list[torch.Tensor]:
    """Two sets of features, float64."""
    names = ("generated", "real")
    return [
        torch.randn(count, CONFIG.dim, generator=generator("benchmark", name)).double().to(DEVICE)
        for name in names
    ]


def test_kernel_distance(benchmark: BenchmarkFixture, rows: Rows) -> None:
    """KID over all pairs, block by block, against 100 subsets."""
    import_torch_fidelity()
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = feature_sets()
    few = [features.float() for features in (x, y)]

    def ours() -> float:
        return kernel_within(x) + kernel_within(y) - 2 * kernel_between(x, y)

    def plain() -> object:
        return kid_features_to_metric(*few, kid_subset_size=1000, verbose=False)

    # every pair once: a product of two rows, and three operations of the kernel
    work = x.nbytes + y.nbytes, (len(x) + len(y)) ** 2 // 2 * (2 * CONFIG.dim + 3)
    compare(benchmark, rows, ours, plain, 3, [work], len(x), what="kid", features=CONFIG.dim)


def test_density_and_coverage(benchmark: BenchmarkFixture, rows: Rows) -> None:
    """Block by block against whole matrices of distances."""
    x, y = feature_sets()

    def plain() -> tuple[float, float]:
        radii_N = torch.cdist(x, x).kthvalue(6, 1).values
        inside_NM = torch.cdist(x, y) < radii_N[:, None]
        return inside_NM.sum().item() / (5 * len(y)), inside_NM.any(1).double().mean().item()

    def ours() -> tuple[float, float]:
        return density_coverage(x, squared_radii(x), y)

    assert np.allclose(ours(), plain())
    work = x.nbytes + y.nbytes, 2 * len(x) * (len(x) + len(y)) * CONFIG.dim
    about = {"what": "density and coverage", "features": CONFIG.dim}
    compare(benchmark, rows, ours, plain, 3, [work], len(x), **about)
