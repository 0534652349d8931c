"""A feature extractor, as torch-fidelity knows it.

Layers of images are computed batch by batch; those of a reference once for all that is compared
with it, or read where the features job has kept them. N images, D features, V classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from srdd.files import load_tensors, save_tensors
from srdd.memory import is_out_of_memory

from ..runtime.quick_start import import_torch_fidelity
from ..runtime.verb import check_file
from ..study.errors import ConfigError
from ..study.settings import FeaturesConfig
from .at_once import at_once
from .datasets import AnyImages
from .features import Classifier, batches, load_classifier, register
from .lite0 import Lite0Features
from .reference import Chosen, Reference
from .scratch import Rows

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

KEPT = "reference.safetensors"  # layers of the held-out images, in the folder of the features job
MOST_KEPT = 2**26  # numbers of it: 256 MiB
KNOWN_BY = 16  # images that a set is known by

T = TypeVar("T")


class Layers(NamedTuple):
    """What an extractor makes of a set of images: the layer of all distances, and that of IS."""

    features_ND: torch.Tensor
    logits_NV: torch.Tensor


@dataclass(frozen=True)
class Extractor:
    """A feature extractor, as torch-fidelity knows it; the network behind it, if it does not."""

    config: FeaturesConfig
    device: torch.device
    folder: Path

    @cached_property
    def classifier(self) -> Classifier | None:
        """The one that was trained; None for another kind, which knows other classes."""
        if self.config.kind != "trained":
            return None
        return load_classifier(self.folder / "features.safetensors").to(self.device)

    @cached_property
    def own(self) -> Classifier | Lite0Features | None:
        """The network that torch-fidelity does not bring; None for Inception."""
        if self.config.kind == "pretrained":
            assert self.config.image_size is not None
            return Lite0Features(self.config.image_size).to(self.device)
        return self.classifier

    @cached_property
    def layers(self) -> tuple[str, str]:
        """Names of the layers of all distances, and of the inception score."""
        if self.own is not None:
            return "features", "logits"
        return str(self.config.dim), "logits_unbiased"

    @cached_property
    def network(self) -> FeatureExtractorBase:
        """uint8 images to the two layers."""
        name = "inception-v3-compat"
        if self.own is not None:
            name = register(self.config.name, self.own)
        import_torch_fidelity()
        from torch_fidelity.utils import create_feature_extractor

        path = None
        if self.config.weights:
            # anew for each job: another file in its place would score by another network
            path = str(check_file(self.config.weights, self.config.sha256, "features.weights"))
        # torch-fidelity does not see by itself that there is a GPU
        settings = {"cuda": self.device.type == "cuda", "verbose": False}
        try:
            return create_feature_extractor(
                name, list(self.layers), feature_extractor_weights_path=path, **settings
            )
        # of urllib, pickle or load_state_dict: a download that fails, a file of something else
        except Exception as error:
            if self.own is not None or is_out_of_memory(error):
                raise
            raise ConfigError(_no_weights(path, error)) from error

    @property
    def batch(self) -> int:
        """Images that go through the network at once: so many that its widest activations stay in
        the caches of a CPU. A pretrained one is then twice as fast, ours a little or not at all."""
        if self.config.image_size is not None:
            numbers = 2**17 if self.device.type == "cpu" else 2**21
            return max(1, numbers // self.config.image_size**2)
        if self.classifier is None or self.device.type != "cpu":
            return 256
        return max(1, min(128, 2**21 // self.classifier.widest))

    @torch.no_grad()
    def features(self, images: AnyImages) -> Layers:
        """Both layers of all images, on the CPU; the images are read batch by batch.

        Grey ones are repeated to three channels where the extractor needs colour.
        """
        distances, logits = Rows(len(images)), Rows(len(images))
        for images_BCHW in batches(images, self.batch):
            if self.classifier is None and images_BCHW.shape[1] == 1:
                images_BCHW = images_BCHW.expand(-1, 3, -1, -1)
            for part_BCHW in images_BCHW.split(self._together(images_BCHW.shape[-1])):
                layers = self._layers(part_BCHW)
                distances.add(layers[self.layers[0]])
                logits.add(layers[self.layers[1]])
        return Layers(distances.whole(), logits.whole())

    def _together(self, side: int) -> int:
        """Images of a batch that go through the network together: one that sees images in their own
        size takes fewer large ones."""
        return self.batch if self.classifier is None else at_once(self.batch, side)

    def _layers(self, images_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """Both layers of some images, by name."""
        network = self.network
        layers: dict[str, torch.Tensor] = network.convert_features_tuple_to_dict(
            network(images_BCHW.to(self.device))
        )
        return layers

    @cached_property
    def _known(self) -> dict[tuple[str, int], tuple[AnyImages, Any]]:
        return {}

    def once(self, what: str, images: AnyImages, make: Callable[[], T]) -> T:
        """What is computed of a reference's images, once for all sets that are compared with it."""
        key = what, id(images)
        if key not in self._known:
            self._known[key] = images, make()  # kept alive, so that its id stays its own
        return self._known[key][1]

    @property
    def computed(self) -> dict[str, Any]:
        """All that `once` keeps, by what it is and of which images."""
        known = self._known.items()
        return {
            f"the {what} of reference {i}": value for i, ((what, _), (_, value)) in enumerate(known)
        }

    def of_reference(self, images: AnyImages) -> Layers:
        """Both layers of a reference's images, computed once, or known already."""
        return self.once("layers", images, lambda: self._chosen(images) or self.features(images))

    def _chosen(self, images: AnyImages) -> Layers | None:
        """Both layers of some images of a reference whose layers are known; None of others."""
        if not isinstance(images, Chosen) or not self.keeps:
            return None
        known = self._known.get(("layers", id(images.images)))
        return None if known is None else Layers(*(layer[images.rows_N] for layer in known[1]))

    @property
    def keeps(self) -> bool:
        """Whether layers of the held-out images are kept: of a network that takes longer for them
        than for all else of a score."""
        return self.config.kind == "pretrained"

    def keep(self, reference: Reference) -> None:
        """Compute both layers of the held-out images for all jobs that score against them, and
        write them down; nothing where they are too many."""
        numbers = sum(layer[0].numel() for layer in self.of_reference(reference.images))
        if len(reference.images) * numbers <= MOST_KEPT:
            layers = self.of_reference(reference.images)._asdict()
            known_by = _known_by(reference.images)
            save_tensors(self.folder / KEPT, layers, kind="reference", images=known_by)

    def recall(self, reference: Reference) -> None:
        """Know what `keep` wrote, where it is of these images. Raises ValueError for a damaged
        file."""
        path = self.folder / KEPT
        if not self.keeps or not path.is_file():
            return
        tensors, metadata = load_tensors(path)
        # a study's file of reference may hold other images than its held-out split
        if metadata.get("images") == _known_by(reference.images):
            layers = Layers(**tensors)
            self._known["layers", id(reference.images)] = reference.images, layers


def _known_by(images: AnyImages) -> str:
    """What tells a set of images from another: how many they are, and a sum of the first ones."""
    first = next(batches(images, KNOWN_BY))
    shape, data = list(first.shape[1:]), first.contiguous().numpy().tobytes()
    return f"{len(images)} of {shape}, {hashlib.sha256(data).hexdigest()}"


def _no_weights(path: str | None, error: Exception) -> str:
    """One line for Inception's weights that cannot be had."""
    words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if path is not None:
        return (
            f"features.weights: {path} holds no weights of Inception-v3 as torch-fidelity reads "
            "them "
            f"({words}); give its own file"
        )
    return (
        f"features.weights: null: torch-fidelity cannot download Inception's weights ({words}); "
        "fetch the file where there is a network, "
        "and give features.weights its path and features.sha256 its sum"
    )
