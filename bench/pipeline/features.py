"""The feature extractors of scores, behind torch-fidelity's interface.

A classifier trained by the workflow, or another network that torch-fidelity does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from srdd.files import load_tensors, save_tensors
from srdd.noise import generator
from srdd.tokenizer import laid_out

from ..runtime.quick_start import import_torch_fidelity
from ..runtime.verb import Run
from ..study.settings import DatasetConfig, FeaturesConfig
from .at_once import at_once
from .datasets import AnyImages, ImageSource, LabelledSource, to_float
from .lite0 import Lite0Features
from .training import Resume, batch_indices, check_finite, learning_rate, pack, part_of, unpack

WARMUP = 20  # steps, or half of a short training, so that lr reaches its peak
SAVE_EVERY = 500  # steps between checkpoints


class Classifier(nn.Module):
    """A small convolutional classifier; its features are the activations before the last layer."""

    def __init__(
        self, config: FeaturesConfig, channels: int, image_size: int, num_classes: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c_in, c_out, side = channels, config.channels, image_size
        # numbers of an image's widest activations
        self.widest = config.channels * image_size**2
        while side > 4:
            layers += [
                nn.Conv2d(c_in, c_out, 3, padding=1),
                nn.GroupNorm(8, c_out),
                nn.SiLU(),
                nn.AvgPool2d(2),
            ]
            c_in, c_out, side = c_out, min(2 * c_out, 256), side // 2
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.GroupNorm(8, c_out), nn.SiLU()]
        self.trunk = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(c_out * side * side, config.dim), nn.SiLU()
        )
        self.head = nn.Linear(config.dim, num_classes)

    def init_weights(self, seed: int) -> None:
        """He's normal weights (arXiv 1502.01852), no biases; they follow from the seed."""
        source = generator("features", seed)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=source)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images to features of shape (N, dim)."""
        return self.trunk(laid_out(to_float(images)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images to logits of shape (N, num_classes)."""
        return self.head(self.features(images))


def shape_of(data: DatasetConfig) -> dict[str, int]:
    """Sizes of the images that a classifier reads, and how many classes it tells apart."""
    return {
        "channels": data.channels,
        "image_size": data.image_size,
        "num_classes": data.num_classes,
    }


def save_classifier(
    path: Path, model: Classifier, shape: dict[str, int], config: FeaturesConfig
) -> None:
    """Write a classifier with its sizes."""
    save_tensors(path, model.state_dict(), kind="features", shape=shape, config=config.model_dump())


def load_classifier(path: Path) -> Classifier:
    """Read a classifier, in evaluation mode. Raises ValueError for a damaged file."""
    tensors, metadata = load_tensors(path)
    model = Classifier(FeaturesConfig(**metadata["config"]), **metadata["shape"])
    model.load_state_dict(tensors)
    return model.eval()


def register(name: str, network: Classifier | Lite0Features) -> str:
    """Make a network known to torch-fidelity as a feature extractor; returns the name to ask
    for."""
    import_torch_fidelity()
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    class Extractor(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **kwargs: Any) -> None:
            super().__init__(name, features_list)
            self.own = network

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features", "logits")

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            features = self.own.features(images)
            layers = {"features": features, "logits": self.own.head(features)}
            # in the order of the list, which torch-fidelity makes from a set
            return tuple(layers[layer] for layer in self.features_list)

    FEATURE_EXTRACTORS_REGISTRY.pop(name, None)
    torch_fidelity.register_feature_extractor(name, Extractor)
    return name


def batches(images: AnyImages, size: int = 256) -> Iterator[torch.Tensor]:
    """uint8 images (B, C, S, S) of an array, mapped or not, or of whatever can read some of its
    images."""
    for i in range(0, len(images), size):
        rows = range(i, min(i + size, len(images)))
        if isinstance(images, ImageSource):
            yield images.read(rows)
        else:
            yield torch.from_numpy(np.array(images[rows.start : rows.stop]))


def _some(images: AnyImages, rows: Sequence[int]) -> torch.Tensor:
    """Chosen uint8 images (B, C, S, S), in any order, of what `batches` reads."""
    if isinstance(images, ImageSource):
        return images.read(rows)
    return torch.from_numpy(np.asarray(images[np.asarray(rows)]))


@torch.no_grad()
def classify(
    classifier: Classifier, images: torch.Tensor, device: torch.device, batch_size: int = 512
) -> torch.Tensor:
    """Most likely class of each uint8 image, int64 on the CPU."""
    size = at_once(batch_size, images.shape[-1])
    parts = [classifier(part.to(device)).argmax(1).cpu() for part in images.split(size)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)


def loss(classifier: Classifier, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with a little label smoothing (arXiv 1512.00567, section 7): over-confident
    features make FID blind."""
    return F.cross_entropy(classifier(images), labels, label_smoothing=0.05)


class Best:
    """The weights of the lowest held-out loss along a training: a classifier that is stopped early
    (Prechelt, "Early stopping - but when?", 1998)."""

    def __init__(self, images: LabelledSource, every: int) -> None:
        self.images, self.every = images, every
        self.step, self.loss = 0, math.inf
        self.weights: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def look(self, model: Classifier, step: int, last: int) -> None:
        """Keep the weights after a step, counted from 1, where their loss is the lowest so far."""
        if step % self.every and step != last:
            return
        device, total = model.head.weight.device, 0.0
        labels_N = torch.from_numpy(np.array(self.images.labels_N))
        for images, labels in zip(batches(self.images), labels_N.split(256)):
            parts = images.split(at_once(256, images.shape[-1]))
            logits = torch.cat([model(part.to(device)) for part in parts])
            total += F.cross_entropy(logits, labels.to(device), reduction="sum").item()
        if total < self.loss:
            self.step, self.loss = step, total
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}


class Going:
    """The training of a classifier that goes on where it was interrupted."""

    def __init__(self, run: Run) -> None:
        self.resume, self.step = Resume(run, SAVE_EVERY), 0
        self.checkpoint = self.resume.load()
        if self.checkpoint is not None:
            self.step = self.checkpoint[1]["step"]  # how many are done
            run.say(f"resumes at step {self.step}")

    def restore(
        self, model: Classifier, optimizer: torch.optim.Optimizer, best: Best | None
    ) -> None:
        """Weights, moments, and the weights that are kept so far, as they were."""
        if self.checkpoint is None:
            return
        tensors, state = self.checkpoint
        unpack(tensors, model, optimizer)
        if best is not None and state["best"] is not None:
            best.step, best.loss = state["best"]
            device = model.head.weight.device
            kept = part_of(tensors, "best.")
            best.weights = {name: value.to(device) for name, value in kept.items()}

    def save(
        self, step: int, model: Classifier, optimizer: torch.optim.Optimizer, best: Best | None
    ) -> None:
        """Write the checkpoint where it is due after so many steps."""
        if not self.resume.due(step):
            return
        tensors, kept = pack(model, optimizer), None
        if best is not None and best.weights:
            tensors |= {f"best.{name}": value for name, value in best.weights.items()}
            kept = best.step, best.loss
        self.resume.save(tensors, step=step, best=kept)


@torch.enable_grad()
def train_classifier(
    config: FeaturesConfig,
    shape: dict[str, int],
    images: AnyImages,
    labels_N: np.ndarray,
    seed: int,
    device: torch.device,
    after: Callable[[float], None] = lambda value: None,
    best: Best | None = None,
    going: Going | None = None,
) -> Classifier:
    """A classifier trained on images with these labels, on the device, in evaluation mode.

    shape: channels, image_size and num_classes; images: what `batches` reads; seed: of the first
    weights and of the batches; after: told the loss of each step; best: keeps the weights of its
    lowest loss; None: those of the last step are kept; going: begins at its step, and keeps
    checkpoints. Raises Diverged for a loss that is not a finite number.
    """
    model = Classifier(config, **shape)
    model.init_weights(seed)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.05)
    warmup = min(WARMUP, config.steps // 2)
    if going is not None:
        going.restore(model, optimizer, best)
    for step in range(going.step if going is not None else 0, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.lr, warmup, 0.0)
        indices = batch_indices(len(images), config.batch_size, seed, step)
        labels = torch.from_numpy(labels_N[indices]).to(device)
        value = loss(model, _some(images, indices).to(device), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        after(value.item())
        check_finite(value.item(), step)
        if best is not None:
            best.look(model, step + 1, config.steps)
        if going is not None:
            going.save(step + 1, model, optimizer, best)
    if best is not None and best.weights:
        model.load_state_dict(best.weights)
    return model.eval()
