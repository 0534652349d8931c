"""Scores of a set of images.

A metric is a function `metric_<name>(Scored) -> {name: value}`; its evaluator joins every name.

What a metric returns is checked where it is called: names of lower-case letters, digits and _,
which no other metric returns; finite numbers. A name is left out where it has no value. What a
metric reads it leaves as it is: arrays are read-only, and after a metric of one's own checksums
tell whether all that others read is still the same. The evaluator is the extractor, but for metrics
that EVALUATORS of bench/study/scores.py names.

FID, IS, precision and recall come from torch-fidelity, KID too where all pairs are too many; the
reference is the held-out split, never the training images, or what the study names. Images are read
batch by batch: 50 000 of 256 pixels need not fit into memory.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from srdd.lookup import find
from srdd.memory import is_out_of_memory
from srdd.noise import derive_seed

from ..runtime.quick_start import import_torch_fidelity
from ..study.checks import MIN_IMAGES
from ..study.scores import EVALUATORS, kid_is_exact
from ..study.settings import FeaturesConfig
from .datasets import AnyImages
from .extractor import Extractor, Layers
from .features import (
    batches,
    classify,
    train_classifier,
)
from .metric_contract import BUILT_IN, changed, kept, problem_of, read_only, sums_of, where_raised
from .reference import Reference
from .set_distances import (
    PixelMoments,
    density_coverage,
    frechet,
    kernel_between,
    kernel_within,
    pixel_moments,
    root,
    spread_within,
    squared_radii,
    widened,
)

if TYPE_CHECKING:
    pass

# by name, with the evaluator where that is not the extractor; all others: score
UNITS = {
    "precision": "share",
    "recall": "share",
    "class_agreement": "share",
    "density": "ratio",
    "coverage": "share",
    "cas": "share",
    "variance_pixels": "squared intensity",  # of intensities in [-1, 1]
}


IS_SPLITS, IS_SEED = 10, 2020  # of torch-fidelity
LEAST_LOGIT = -700.0  # below the largest, of which a float64 still has an exponential
PRC_ROWS, PRC_DISTANCES = 10_000, 2**25


@dataclass(frozen=True)
class Scored:
    """What a metric may read: generated images with the labels asked for, the reference, the
    extractor.

    costly: also what takes a training of its own; so for final samples and their baselines, not for
    the many sets of sweeps, tasks and checkpoints.
    """

    generated: AnyImages
    labels_N: np.ndarray | None
    reference: Reference
    extractor: Extractor
    costly: bool = False

    @cached_property
    def layers(self) -> Layers:
        """Both layers of the generated images, once for all metrics; none may change them."""
        return self.extractor.features(self.generated)

    @property
    def exact(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of reference and generated images for distances block by block, on the device:
        float64, or as they are where they are many, and the blocks are float64."""
        real_ND, device = (
            self.extractor.of_reference(self.reference.images)[0],
            self.extractor.device,
        )
        return widened(real_ND.to(device)), widened(self.layers[0].to(device))


def inception_score(logits_NV: torch.Tensor) -> float:
    """IS (arXiv 1606.03498), by torch-fidelity."""
    import_torch_fidelity()
    from torch_fidelity.metric_isc import isc_features_to_metric

    N, splits = len(logits_NV), IS_SPLITS
    # torch-fidelity's own parts of its own order, one after the other: all at once in float64 would
    # be eight times the logits
    order_N = np.random.RandomState(IS_SEED).permutation(N)
    scores = []
    for i in range(splits):
        part_NV = logits_NV[order_N[i * N // splits : (i + 1) * N // splits]].double()
        # a class that no image has any share of would be 0 times the logarithm of 0
        part_NV = (part_NV - part_NV.amax(1, keepdim=True)).clamp(min=LEAST_LOGIT)
        of_part = isc_features_to_metric(part_NV, splits=1, shuffle=False)
        scores.append(of_part["inception_score_mean"])
    return float(np.mean(scores))


def _kid(scored: Scored) -> float:
    """KID (arXiv 1801.01401): all pairs, or torch-fidelity's mean over subsets where those are too
    many."""
    images = scored.reference.images
    generated_ND, real_ND = scored.layers[0], scored.extractor.of_reference(images)[0]
    if kid_is_exact(len(generated_ND), len(real_ND), generated_ND.shape[1]):
        real_ND, generated_ND = (x_ND.double() for x_ND in scored.exact)
        within = scored.extractor.once("kernel", images, lambda: kernel_within(real_ND))
        return kernel_within(generated_ND) + within - 2 * kernel_between(generated_ND, real_ND)
    import_torch_fidelity()
    from torch_fidelity.metric_kid import kid_features_to_metric

    # torch-fidelity refuses subsets larger than a set
    subset = min(1000, len(generated_ND), len(real_ND))
    kid = kid_features_to_metric(generated_ND, real_ND, kid_subset_size=subset, verbose=False)
    return float(kid["kernel_inception_distance_mean"])


def prc_rows(count: int) -> int:
    """Images that are compared with all others at once for precision and recall: as torch-fidelity
    has it up to 10 000, and fewer of many, whose distances it holds five times."""
    return PRC_ROWS if count <= PRC_ROWS else max(1, PRC_DISTANCES // count)


def fid_between(ours_ND: torch.Tensor, theirs_ND: torch.Tensor) -> float:
    """FID (arXiv 1706.08500) of two sets of features of any size, by torch-fidelity."""
    import_torch_fidelity()
    from torch_fidelity.metric_fid import fid_features_to_statistics

    return _fid_of(*map(fid_features_to_statistics, (ours_ND, theirs_ND)))


def fid(scored: Scored) -> float:
    """FID (arXiv 1706.08500) of generated images, against the reference's statistics where it has
    some."""
    theirs = scored.reference.statistics
    if theirs is None:
        real_ND = scored.extractor.of_reference(scored.reference.images)[0]
        return fid_between(scored.layers[0], real_ND)
    import_torch_fidelity()
    from torch_fidelity.metric_fid import fid_features_to_statistics

    ours = fid_features_to_statistics(scored.layers[0])
    # given ones are float64
    return _fid_of({name: value.astype(np.float64) for name, value in ours.items()}, theirs)


def _fid_of(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    distance = fid_statistics_to_metric(ours, theirs, verbose=False)
    return float(distance["frechet_inception_distance"])


def metric_fidelity(scored: Scored) -> dict[str, float]:
    """FID (arXiv 1706.08500), KID (1801.01401), IS (1606.03498), precision and recall (1904.06991).

    KID: all pairs where `kid_is_exact`; all else by torch-fidelity.
    """
    generated_ND, logits_NV = scored.layers
    real_ND = scored.extractor.of_reference(scored.reference.images)[0]
    import_torch_fidelity()
    from torch_fidelity.metric_prc import prc_features_to_metric

    rows = prc_rows(max(len(generated_ND), len(real_ND)))
    how = {"save_cpu_ram": True, "prc_batch_size": rows, "verbose": False}
    shares = prc_features_to_metric(generated_ND, real_ND, **how)
    return {
        "fid": fid(scored),
        "kid": _kid(scored),
        "is": inception_score(logits_NV),
        "precision": float(shares["precision"]),
        "recall": float(shares["recall"]),
    }


def metric_class_agreement(scored: Scored) -> dict[str, float]:
    """Share of generated images that the classifier takes for the class that was asked for; nothing
    without classes."""
    if scored.extractor.classifier is None or scored.labels_N is None:
        return {}
    predicted_N = scored.layers[1].argmax(1).numpy()
    return {"class_agreement": (predicted_N == scored.labels_N).mean().item()}


def metric_density_coverage(scored: Scored) -> dict[str, float]:
    """Density and coverage (arXiv 2002.09797) with k = 5, of the extractor's features.

    Density: share of k, 1 for real images on average, may exceed 1.
    """
    real_ND, generated_MD = scored.exact
    images = scored.reference.images
    radii_N = scored.extractor.once("radii", images, lambda: squared_radii(real_ND))
    density, coverage = density_coverage(real_ND, radii_N, generated_MD)
    return {"density": density, "coverage": coverage}


def metric_spread(scored: Scored) -> dict[str, float]:
    """Mean distance between features of two generated images of one class, over that of two real
    ones (as LPIPS diversity, arXiv 1711.11586, of any features).

    Mean over classes that have two images or more on both sides, each with one weight; all are one
    class without labels. 1: as far apart as real images. Nothing against images of a given file,
    which have no labels, beside generated ones that have some; nor where real ones are all alike.
    """
    real_ND, generated_MD = scored.exact
    real_N = getattr(scored.reference.images, "labels_N", None)
    if scored.labels_N is None and real_N is not None and not np.ptp(real_N):
        real_N = None  # images without classes are stored as one class
    if (real_N is None) != (scored.labels_N is None):
        return {}
    ours, theirs = (
        spread_within(x_ND, _classes(labels_N, x_ND))
        for x_ND, labels_N in ((generated_MD, scored.labels_N), (real_ND, real_N))
    )
    both = ours.keys() & theirs.keys()
    apart = sum(theirs[label] for label in both)
    return {"spread": sum(ours[label] for label in both) / apart} if apart > 0 else {}


def _classes(labels_N: np.ndarray | None, x_ND: torch.Tensor) -> torch.Tensor:
    """Labels on the device of the features; without labels, all are of one class."""
    if labels_N is None:
        return torch.zeros(len(x_ND), dtype=torch.long, device=x_ND.device)
    return torch.from_numpy(np.array(labels_N)).long().to(x_ND.device)


def metric_classification_accuracy(scored: Scored) -> dict[str, float]:
    """Classification accuracy score (arXiv 1905.10887): share of the reference that a classifier,
    trained on the generated images with the labels asked for, gives its label.

    Architecture and training are the extractor's, without its choice of a step by validation;
    beside one that was not trained here, those that `features` of kind trained has where nothing
    is set. Weights and batches have a seed of their own, the same for all sets. Nothing where not
    `costly`, without labels asked for, or against the images of a given file, which have none.
    """
    labels_N, real = scored.labels_N, scored.reference.images
    real_N = getattr(real, "labels_N", None)
    if not scored.costly or labels_N is None or real_N is None:
        return {}
    config, device = scored.extractor.config, scored.extractor.device
    if config.kind != "trained":
        config = FeaturesConfig(name=config.name, seed=config.seed)
    _, channels, image_size, _ = next(batches(scored.generated)).shape
    classes = 1 + int(max(np.max(labels_N), np.max(real_N)))
    shape = {"channels": channels, "image_size": image_size, "num_classes": classes}
    seed = derive_seed("classification accuracy score", config.seed)
    model = train_classifier(config, shape, scored.generated, labels_N, seed, device)
    predicted_N = torch.cat([classify(model, part, device) for part in batches(real)]).numpy()
    return {"cas": (predicted_N == np.asarray(real_N)).mean().item()}


def metric_pixels(scored: Scored) -> dict[str, float]:
    """FID's formula (arXiv 1706.08500) on pixels in [-1, 1], a second evaluator that no network
    stands behind, and the variance of pixels inside classes.

    Images of more than 32 x 32 x 3 numbers are reduced to 16 x 16 by area first. fid: nothing where
    the reference's images have another shape then. variance: mean over classes, in the shares of
    the labels asked for, of the trace of the covariance inside a class over the numbers of an
    image; all are one class without labels; nothing where no class has two images. Neither higher
    nor lower is better: near that of real images of the same labels is.
    """
    labels_N = (
        None if scored.labels_N is None else torch.from_numpy(np.array(scored.labels_N)).long()
    )
    ours, real = pixel_moments(scored.generated, labels_N), scored.reference.images

    def of_real() -> tuple[PixelMoments, torch.Tensor]:
        moments = pixel_moments(real)
        return moments, root(moments.covariance_DD)

    theirs, root_DD = scored.extractor.once("pixels", real, of_real)
    variance = {} if ours.variance is None else {"variance": ours.variance}
    if ours.shape != theirs.shape:
        return variance
    return {"fid": frechet(ours, theirs, root_DD), **variance}


# ---------------------------------------------------------------- scores


class Score(NamedTuple):
    """A number with its unit."""

    value: float
    unit: str


def in_words(scores: dict[str, Score]) -> str:
    """Scores in one line."""
    return ", ".join(f"{name} {score.value:.3f}" for name, score in scores.items())


def measured(name: str, scored: Scored) -> dict[str, float]:
    """What one metric returns, checked.

    Raises ValueError, one line that names the function and what it must return.
    """
    function = find(sys.modules[__name__], "metric", name)
    who = f"bench/pipeline/metrics.py: metric_{name}:"
    before = {} if name in BUILT_IN else sums_of(scored)
    try:
        with nullcontext() if name in BUILT_IN else kept(name):
            values = function(scored)
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        words = " ".join(str(error).split())
        where = where_raised(error, function)
        raise ValueError(f"{who} raises {type(error).__name__}: {words}{where}") from error
    if before and (problem := changed(before, scored)):
        raise ValueError(f"{who} {problem}")
    if not isinstance(values, dict):
        raise ValueError(
            f"{who} returns {type(values).__name__}; a dict of names and finite numbers is needed"
        )
    for key, value in values.items():
        if problem := problem_of(key, value, scored.extractor.config.name):
            raise ValueError(f"{who} {problem}")
    return {key: float(value) for key, value in values.items()}


def _check_sizes(scored: Scored) -> None:
    """Raises ValueError for fewer than 100 images on either side."""
    for what, images in (("generated", scored.generated), ("reference", scored.reference.images)):
        if len(images) < MIN_IMAGES:
            raise ValueError(
                f"{len(images)} {what} images: a score needs {MIN_IMAGES} or more; "
                "raise num_images or the split's share"
            )


def score(scored: Scored, names: tuple[str, ...]) -> dict[str, Score]:
    """Every asked-for metric as {name_evaluator: Score}.

    Raises ValueError for fewer than 100 images on either side, and for a metric that breaks its
    contract or returns what another one returns.
    """
    _check_sizes(scored)
    scored = replace(
        scored, generated=read_only(scored.generated), labels_N=read_only(scored.labels_N)
    )
    scores: dict[str, Score] = {}
    owners: dict[str, str] = {}
    for name in dict.fromkeys(names):
        evaluator = EVALUATORS.get(name, scored.extractor.config.name)
        for key, value in measured(name, scored).items():
            whole = f"{key}_{evaluator}"
            if whole in owners:
                raise ValueError(
                    f"bench/pipeline/metrics.py: metric_{name}: returns {key}, "
                    f"which metric_{owners[whole]} returns too; rename one"
                )
            owners[whole] = name
            scores[whole] = Score(value, UNITS.get(whole, UNITS.get(key, "score")))
    return scores
