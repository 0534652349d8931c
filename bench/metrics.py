"""Scores of a set of pictures. A metric is a function `metric_<name>(Scored) -> {name: value}`; the extractor joins every name.

What a metric returns is checked where it is called: names of lower-case letters, digits and _, which no other metric returns; finite
numbers. A name is left out where it has no value. What a metric looks at is read-only.

FID, KID, IS, precision and recall come from torch-fidelity; the reference is the held-out split, never the training pictures, or what
the study names. Pictures are read batch by batch: 50 000 of 256 pixels need not fit into memory.
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

from .checks import MIN_IMAGES
from .config import SLUG, ConfigError, FeaturesConfig
from .features import Classifier, batches, classify, import_torchvision, load_classifier, register
from .reference import Reference
from .verb import is_out_of_memory

BASELINES = ("floor_", "reconstruction_")
UNITS = {"precision": "share", "recall": "share", "class_agreement": "share"}


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
        import_torchvision()
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
    def _known(self) -> dict[int, tuple[object, torch.Tensor]]:
        return {}

    def reference_features(self, pictures: object) -> torch.Tensor:
        """The layer of all distances, computed once for all sets that are compared with these pictures."""
        if id(pictures) not in self._known:
            self._known[id(pictures)] = pictures, self.features(pictures)[0]  # kept alive, so that its id stays its own
        return self._known[id(pictures)][1]


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
    """What a metric may look at: generated pictures with the labels asked for, the reference, the extractor. kid False: a part of a
    set, scored without KID, whose subsets take longer than all other scores together."""

    generated: np.ndarray | object
    labels_N: np.ndarray | None
    reference: Reference
    extractor: Extractor
    kid: bool = True


def metric_fidelity(scored: Scored) -> dict[str, float]:
    """FID (arXiv 1706.08500), KID (1801.01401), IS (1606.03498), precision and recall (1904.06991), by torch-fidelity. FID takes the
    reference's statistics where it has some."""
    extractor, reference = scored.extractor, scored.reference
    generated_ND, logits_NV = extractor.features(scored.generated)
    real_ND = extractor.reference_features(reference.pictures)
    import_torchvision()
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    ours, theirs = fid_features_to_statistics(generated_ND), reference.statistics
    if theirs is None:
        theirs = fid_features_to_statistics(real_ND)
    else:  # given ones are float64
        ours = {name: value.astype(np.float64) for name, value in ours.items()}
    subset = min(1000, len(generated_ND), len(real_ND))
    found = {
        **fid_statistics_to_metric(ours, theirs, verbose=False),
        **(kid_features_to_metric(generated_ND, real_ND, kid_subset_size=subset, verbose=False) if scored.kid else {}),
        **isc_features_to_metric(logits_NV),
        **prc_features_to_metric(generated_ND, real_ND, save_cpu_ram=True, verbose=False),
    }
    names = {
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "is": "inception_score_mean",
        "precision": "precision",
        "recall": "recall",
    }
    return {name: float(found[key]) for name, key in names.items() if key in found}


def metric_class_agreement(scored: Scored) -> dict[str, float]:
    """Share of generated pictures that the classifier takes for the class that was asked for; nothing without classes."""
    classifier = scored.extractor.classifier
    if classifier is None or scored.labels_N is None:
        return {}
    found = torch.cat([classify(classifier, part, scored.extractor.device) for part in batches(scored.generated)])
    return {"class_agreement": (found.numpy() == scored.labels_N).mean().item()}


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
    function, at = find(sys.modules[__name__], "metric", name), f"bench/metrics.py: metric_{name}:"
    scored = replace(scored, generated=_read_only(scored.generated), labels_N=_read_only(scored.labels_N))
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
    """Every asked-for metric as {name_extractor: (value, unit)}. Raises ValueError for fewer than 100 pictures on either side, and for a
    metric that breaks its contract or returns what another one returns."""
    for what, pictures in (("generated", scored.generated), ("reference", scored.reference.pictures)):
        if len(pictures) < MIN_IMAGES:
            raise ValueError(
                f"{len(pictures)} {what} pictures: a score needs {MIN_IMAGES} or more; raise num_images or the split's share"
            )
    found: dict[str, tuple[float, str]] = {}
    owners: dict[str, str] = {}
    for name in dict.fromkeys(names):
        for key, value in measured(name, scored).items():
            if key in owners:
                raise ValueError(
                    f"bench/metrics.py: metric_{name}: returns {key}, which metric_{owners[key]} returns too; rename one"
                )
            owners[key] = name
            found[f"{key}_{scored.extractor.config.name}"] = (value, UNITS.get(key, "score"))
    return found
