"""Scores of a set of pictures. A metric is a function `metric_<name>(Scored) -> {name: value}`; its evaluator joins every name.

What a metric returns is checked where it is called: names of lower-case letters, digits and _, which no other metric returns; finite
numbers. A name is left out where it has no value. What a metric looks at is read-only. The evaluator is the extractor, but for
metrics that EVALUATORS of bench/study/scores.py names.

FID, IS, precision and recall come from torch-fidelity, KID too where all pairs are too many; the reference is the held-out split,
never the training pictures, or what the study names. Pictures are read batch by batch: 50 000 of 256 pixels need not fit into memory.
"""

from __future__ import annotations

import math
import numbers
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from srdd.lookup import find
from srdd.noise import derive_seed

from ..runtime.quick_start import import_torch_fidelity
from ..runtime.verb import is_out_of_memory
from ..study.checks import MIN_IMAGES
from ..study.errors import ConfigError
from ..study.scores import EVALUATORS, kid_is_exact
from ..study.settings import SLUG, FeaturesConfig
from .features import (
    Classifier,
    batches,
    classify,
    load_classifier,
    register,
    train_classifier,
)
from .reference import Reference
from .set_distances import (
    density_coverage,
    frechet,
    kernel_between,
    kernel_within,
    pixel_moments,
    root,
    squared_radii,
)

BASELINES = ("floor_", "reconstruction_", "reference_")
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


@dataclass(frozen=True)
class Extractor:
    """A feature extractor, as torch-fidelity knows it; the classifier behind it, when it is ours."""

    config: FeaturesConfig
    device: torch.device
    folder: Path

    @cached_property
    def classifier(self) -> Classifier | None:
        if self.config.kind == "inception":
            return None
        return load_classifier(self.folder / "features.safetensors").to(self.device)

    @cached_property
    def layers(self) -> tuple[str, str]:
        """Names of the layers of all distances, and of the inception score."""
        return ("features", "logits") if self.classifier is not None else (str(self.config.dim), "logits_unbiased")

    @cached_property
    def network(self) -> torch.nn.Module:
        """uint8 pictures to the two layers."""
        name = "inception-v3-compat" if self.classifier is None else register(self.config.name, self.classifier)
        import_torch_fidelity()
        from torch_fidelity.utils import create_feature_extractor

        path, cuda = self.config.weights and str(Path(self.config.weights).expanduser()), self.device.type == "cuda"
        try:
            return create_feature_extractor(name, list(self.layers), cuda, feature_extractor_weights_path=path, verbose=False)
        except Exception as error:  # of urllib, pickle or load_state_dict: a download that fails, a file of something else
            if self.classifier is not None or is_out_of_memory(error):
                raise
            raise ConfigError(_no_weights(path, error)) from error

    @torch.no_grad()
    def features(self, pictures: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Both layers of all pictures, (N, dim) each, on the CPU; the pictures are read batch by batch. Grey ones are repeated to three
        channels where the extractor needs colour."""
        found = []
        for images_BCHW in batches(pictures):
            if self.classifier is None and images_BCHW.shape[1] == 1:
                images_BCHW = images_BCHW.expand(-1, 3, -1, -1)
            layers = self.network.convert_features_tuple_to_dict(self.network(images_BCHW.to(self.device)))
            found.append([layers[name].cpu() for name in self.layers])
        return tuple(torch.cat(parts) for parts in zip(*found))

    @cached_property
    def _known(self) -> dict[tuple[str, int], tuple[object, object]]:
        return {}

    def once(self, what: str, pictures: object, make: Callable[[], object]) -> object:
        """What is computed of a reference's pictures, once for all sets that are compared with it."""
        key = what, id(pictures)
        if key not in self._known:
            self._known[key] = pictures, make()  # kept alive, so that its id stays its own
        return self._known[key][1]

    def of_reference(self, pictures: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Both layers of a reference's pictures, computed once."""
        return self.once("layers", pictures, lambda: self.features(pictures))


def _no_weights(path: str | None, error: Exception) -> str:
    """One line for Inception's weights that cannot be had."""
    words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if path is not None:
        return (
            f"features.weights: {path} holds no weights of Inception-v3 as torch-fidelity reads them ({words}); give its own file"
        )
    return (
        f"features.weights: null: torch-fidelity cannot download Inception's weights ({words}); fetch the file where there is a network, "
        "and give features.weights its path and features.sha256 its sum"
    )


@dataclass(frozen=True)
class Scored:
    """What a metric may look at: generated pictures with the labels asked for, the reference, the extractor. costly: also what takes
    a training of its own; so for final samples and their baselines, not for the many sets of sweeps, tasks and checkpoints."""

    generated: np.ndarray | object
    labels_N: np.ndarray | None
    reference: Reference
    extractor: Extractor
    costly: bool = False

    @cached_property
    def layers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both layers of the generated pictures, computed once for all metrics; none may change them."""
        return self.extractor.features(self.generated)

    @property
    def exact(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of reference and generated pictures for distances block by block: float64, on the device."""
        real_ND, generated_MD = self.extractor.of_reference(self.reference.pictures)[0], self.layers[0]
        return tuple(features.to(self.extractor.device).double() for features in (real_ND, generated_MD))


def inception_score(logits_NV: torch.Tensor) -> float:
    """IS (arXiv 1606.03498), by torch-fidelity."""
    import_torch_fidelity()
    from torch_fidelity.metric_isc import isc_features_to_metric

    return float(isc_features_to_metric(logits_NV)["inception_score_mean"])


def _kid(scored: Scored) -> float:
    """KID (arXiv 1801.01401): all pairs, or torch-fidelity's mean over subsets where those are too many."""
    pictures = scored.reference.pictures
    generated_ND, real_ND = scored.layers[0], scored.extractor.of_reference(pictures)[0]
    if kid_is_exact(len(generated_ND), len(real_ND), generated_ND.shape[1]):
        real_ND, generated_ND = scored.exact
        within = scored.extractor.once("kernel", pictures, lambda: kernel_within(real_ND))
        return kernel_within(generated_ND) + within - 2 * kernel_between(generated_ND, real_ND)
    import_torch_fidelity()
    from torch_fidelity.metric_kid import kid_features_to_metric

    subset = min(1000, len(generated_ND), len(real_ND))
    found = kid_features_to_metric(generated_ND, real_ND, kid_subset_size=subset, verbose=False)
    return float(found["kernel_inception_distance_mean"])


def metric_fidelity(scored: Scored) -> dict[str, float]:
    """FID (arXiv 1706.08500), KID (1801.01401), IS (1606.03498), precision and recall (1904.06991). FID takes the reference's
    statistics where it has some. KID: all pairs where `kid_is_exact`; all else by torch-fidelity."""
    reference = scored.reference
    generated_ND, logits_NV = scored.layers
    real_ND = scored.extractor.of_reference(reference.pictures)[0]
    import_torch_fidelity()
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    ours, theirs = fid_features_to_statistics(generated_ND), reference.statistics
    if theirs is None:
        theirs = fid_features_to_statistics(real_ND)
    else:  # given ones are float64
        ours = {name: value.astype(np.float64) for name, value in ours.items()}
    distance = fid_statistics_to_metric(ours, theirs, verbose=False)
    shares = prc_features_to_metric(generated_ND, real_ND, save_cpu_ram=True, verbose=False)
    return {
        "fid": float(distance["frechet_inception_distance"]),
        "kid": _kid(scored),
        "is": inception_score(logits_NV),
        "precision": float(shares["precision"]),
        "recall": float(shares["recall"]),
    }


def metric_class_agreement(scored: Scored) -> dict[str, float]:
    """Share of generated pictures that the classifier takes for the class that was asked for; nothing without classes."""
    if scored.extractor.classifier is None or scored.labels_N is None:
        return {}
    found_N = scored.layers[1].argmax(1).numpy()
    return {"class_agreement": (found_N == scored.labels_N).mean().item()}


def metric_density_coverage(scored: Scored) -> dict[str, float]:
    """Density and coverage (arXiv 2002.09797) with k = 5, of the extractor's features. Density: share of k, 1 for real
    pictures on average, may exceed 1."""
    real_ND, generated_MD = scored.exact
    pictures = scored.reference.pictures
    radii_N = scored.extractor.once("radii", pictures, lambda: squared_radii(real_ND))
    density, coverage = density_coverage(real_ND, radii_N, generated_MD)
    return {"density": density, "coverage": coverage}


def metric_classification_accuracy(scored: Scored) -> dict[str, float]:
    """Classification accuracy score (arXiv 1905.10887): share of the reference that a classifier, trained on the generated
    pictures with the labels asked for, gives its label.

    Architecture and training are the extractor's; beside Inception those that `features` of kind trained has where nothing is set.
    Weights and batches have a seed of their own, the same for all sets. Nothing where not `costly`, without labels asked for, or
    against the pictures of a given file, which have none.
    """
    labels_N, real = scored.labels_N, scored.reference.pictures
    real_N = getattr(real, "labels_N", None)
    if not scored.costly or labels_N is None or real_N is None:
        return {}
    config, device = scored.extractor.config, scored.extractor.device
    if config.kind == "inception":
        config = FeaturesConfig(name=config.name, seed=config.seed)
    _, channels, image_size, _ = next(batches(scored.generated)).shape
    classes = 1 + int(max(np.max(labels_N), np.max(real_N)))
    shape = {"channels": channels, "image_size": image_size, "num_classes": classes}
    seed = derive_seed("classification accuracy score", config.seed)
    model = train_classifier(config, shape, scored.generated, labels_N, seed, device)
    found_N = torch.cat([classify(model, part, device) for part in batches(real)]).numpy()
    return {"cas": (found_N == np.asarray(real_N)).mean().item()}


def metric_pixels(scored: Scored) -> dict[str, float]:
    """FID's formula (arXiv 1706.08500) on pixels in [-1, 1], a second evaluator that no network stands behind, and the variance
    of pixels inside classes.

    Pictures of more than 32 x 32 x 3 numbers are reduced to 16 x 16 by area first. fid: nothing where the reference's pictures have
    another shape then. variance: mean over classes, in the shares of the labels asked for, of the trace of the covariance inside a
    class over the numbers of a picture; all are one class without labels. Neither higher nor lower is better: near that of real
    pictures of the same labels is.
    """
    labels_N = None if scored.labels_N is None else torch.from_numpy(np.array(scored.labels_N)).long()
    ours, real = pixel_moments(scored.generated, labels_N), scored.reference.pictures

    def known() -> tuple:
        moments = pixel_moments(real)
        return moments, root(moments.covariance_DD)

    theirs, root_DD = scored.extractor.once("pixels", real, known)
    found = {"variance": ours.variance}
    return {"fid": frechet(ours, theirs, root_DD), **found} if ours.shape == theirs.shape else found


def _where(error: BaseException, function: Callable) -> str:
    """The line of a function that an error came through, for whoever wrote it."""
    file = function.__code__.co_filename if hasattr(function, "__code__") else None
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name}, line {lines[-1]})" if lines else ""


def _read_only(array: object) -> object:
    """An array that refuses to be written to; all else as it is."""
    if not isinstance(array, np.ndarray):
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def _problem(key: object, value: object, extractor: str) -> str | None:
    """Why a metric may not return this name with this value; None where it may."""
    if not isinstance(key, str) or not re.fullmatch(SLUG, key):
        return f"returns the name {key!r}; a name has lower-case letters, digits and _, such as my_score"
    if key == extractor or key.endswith(f"_{extractor}"):
        return f"returns the name {key!r}; the extractor's name {extractor} is added here, leave it out"
    if other := [name for name in EVALUATORS.values() if f"_{key}".endswith(f"_{name}")]:
        return f"returns the name {key!r}; {other[0]} is the name of another evaluator, rename it"
    if key.startswith(BASELINES):
        return f"returns the name {key!r}; {' and '.join(BASELINES)} stand before the scores of the baselines, rename it"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        shown = " ".join(repr(value).split())[:60]
        return f"returns {key}: {shown} ({type(value).__name__}); a finite number is needed, such as float(...)"
    try:
        number = float(value)
    except OverflowError:  # a whole number that no float can hold
        number = math.inf
    if not math.isfinite(number):
        return f"returns {key}: {number}; a finite number is needed, or leave the name out where it has no value"
    return None


def measured(name: str, scored: Scored) -> dict[str, float]:
    """What one metric returns, checked. Raises ValueError, one line that names the function and what it must return."""
    function, at = find(sys.modules[__name__], "metric", name), f"bench/pipeline/metrics.py: metric_{name}:"
    try:
        found = function(scored)
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        words = " ".join(str(error).split())
        raise ValueError(f"{at} raises {type(error).__name__}: {words}{_where(error, function)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{at} returns {type(found).__name__}; a dict of names and finite numbers is needed")
    for key, value in found.items():
        if problem := _problem(key, value, scored.extractor.config.name):
            raise ValueError(f"{at} {problem}")
    return {key: float(value) for key, value in found.items()}


def score(scored: Scored, names: tuple[str, ...]) -> dict[str, tuple[float, str]]:
    """Every asked-for metric as {name_evaluator: (value, unit)}. Raises ValueError for fewer than 100 pictures on either side, and for a
    metric that breaks its contract or returns what another one returns."""
    for what, pictures in (("generated", scored.generated), ("reference", scored.reference.pictures)):
        if len(pictures) < MIN_IMAGES:
            raise ValueError(
                f"{len(pictures)} {what} pictures: a score needs {MIN_IMAGES} or more; raise num_images or the split's share"
            )
    scored = replace(scored, generated=_read_only(scored.generated), labels_N=_read_only(scored.labels_N))
    found: dict[str, tuple[float, str]] = {}
    owners: dict[str, str] = {}
    for name in dict.fromkeys(names):
        evaluator = EVALUATORS.get(name, scored.extractor.config.name)
        for key, value in measured(name, scored).items():
            whole = f"{key}_{evaluator}"
            if whole in owners:
                raise ValueError(
                    f"bench/pipeline/metrics.py: metric_{name}: returns {key}, which metric_{owners[whole]} returns too; rename one"
                )
            owners[whole] = name
            found[whole] = (value, UNITS.get(whole, UNITS.get(key, "score")))
    return found
