"""Scores of a set of pictures. A metric is a function `metric_<name>(Scored) -> {name: value}`; the extractor joins every name.

FID, KID, IS, precision and recall come from torch-fidelity; the reference is the held-out split, never the training pictures.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from srdd.lookup import find

from .config import FeaturesConfig
from .features import Classifier, classify, import_torchvision, load_classifier, register

MIN_IMAGES = 100
UNITS = {"precision": "share", "recall": "share", "class_agreement": "share"}


class PictureSet(Dataset):
    """uint8 pictures for torch-fidelity; grey ones are repeated to three channels where the extractor needs colour."""

    def __init__(self, pictures, colour: bool) -> None:
        self.pictures, self.colour = pictures, colour

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> torch.Tensor:
        if hasattr(self.pictures, "read"):
            image = self.pictures.read([index])[0]
        else:
            image = torch.from_numpy(np.array(self.pictures[index]))
        return image.expand(3, -1, -1) if self.colour and len(image) == 1 else image


@dataclass(frozen=True)
class Extractor:
    """A feature extractor that torch-fidelity knows by `name`; the classifier behind it, when it is ours."""

    config: FeaturesConfig
    device: torch.device
    folder: Path

    @cached_property
    def classifier(self) -> Classifier | None:
        if self.config.kind == "inception":
            return None
        return load_classifier(self.folder / "features.safetensors").to(self.device)

    def options(self) -> dict:
        """What torch-fidelity must be told to use it."""
        if self.classifier is not None:
            return {"feature_extractor": register(self.config.name, self.classifier)}
        import_torchvision()
        layer = str(self.config.dim)
        layers = {f"feature_layer_{m}": layer for m in ("fid", "kid", "prc")}
        return {
            "feature_extractor": "inception-v3-compat",
            "feature_extractor_weights_path": self.config.weights,
            "feature_layer_isc": "logits_unbiased",
            **layers,
        }


@dataclass(frozen=True)
class Scored:
    """What a metric may look at: generated pictures with the labels asked for, the held-out reference, the extractor."""

    generated: np.ndarray | object
    labels_N: np.ndarray | None
    reference: object
    extractor: Extractor


def metric_fidelity(scored: Scored) -> dict[str, float]:
    """FID (arXiv 1706.08500), KID (1801.01401), IS (1606.03498), precision and recall (1904.06991), by torch-fidelity."""
    options = scored.extractor.options()
    from torch_fidelity import calculate_metrics

    colour = scored.extractor.classifier is None
    generated, reference = PictureSet(scored.generated, colour), PictureSet(scored.reference, colour)
    subset = min(1000, len(generated), len(reference))
    found = calculate_metrics(
        input1=generated,
        input2=reference,
        cuda=scored.extractor.device.type == "cuda",
        batch_size=256,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=subset,
        cache=False,  # its key knows nothing of the extractor's weights
        save_cpu_ram=True,  # no worker processes
        verbose=False,
        **options,
    )
    names = {
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "is": "inception_score_mean",
        "precision": "precision",
        "recall": "recall",
    }
    return {name: float(found[key]) for name, key in names.items()}


def metric_class_agreement(scored: Scored) -> dict[str, float]:
    """Share of generated pictures that the classifier takes for the class that was asked for; nothing without classes."""
    classifier = scored.extractor.classifier
    if classifier is None or scored.labels_N is None:
        return {}
    found = classify(classifier, torch.from_numpy(np.array(scored.generated)), scored.extractor.device)
    return {"class_agreement": (found.numpy() == scored.labels_N).mean().item()}


def score(scored: Scored, names: tuple[str, ...]) -> dict[str, tuple[float, str]]:
    """Every asked-for metric as {name_extractor: (value, unit)}. Raises ValueError for fewer than 100 pictures on either side."""
    for what, pictures in (("generated", scored.generated), ("reference", scored.reference)):
        if len(pictures) < MIN_IMAGES:
            raise ValueError(
                f"{len(pictures)} {what} pictures: a score needs {MIN_IMAGES} or more; raise num_images or the split's share"
            )
    found: dict[str, tuple[float, str]] = {}
    for name in names:
        for key, value in find(sys.modules[__name__], "metric", name)(scored).items():
            found[f"{key}_{scored.extractor.config.name}"] = (value, UNITS.get(key, "score"))
    return found
