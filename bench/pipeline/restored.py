"""Restored images against the clean ones: what the rooms of restoration share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import torch

from ..runtime.verb import Run
from ..study.errors import ConfigError
from ..study.settings import FeaturesConfig
from .at_once import at_once, row_parts
from .datasets import to_uint8
from .degraded import DegradedSplit
from .features import load_classifier
from .labels import in_shares
from .likeness import psnr, ssim
from .scratch import Rows, on_disk

BATCH, SHOWN = 256, 6
Scores = dict[str, tuple[float, str]]  # value and unit by name


def batches(rows_N: np.ndarray, side: int) -> Iterator[list[int]]:
    """Rows of a split, as many at a time as images of a side go through a network together."""
    return row_parts(rows_N, at_once(BATCH, side))


class CleanImages:
    """Held-out images, what degradations make of them, and how like a restoration is to them. All
    images lie on disk."""

    def __init__(self, run: Run, strength: float, num_images: int | None) -> None:
        self.run, self.split = run, DegradedSplit.of(run, "test", strength)
        labels_N = np.asarray(self.split.images.labels_N)
        self.rows_N = in_shares(labels_N, min(num_images or len(labels_N), len(labels_N)))
        if not len(self.rows_N):
            raise ConfigError("dataset.test_share: leaves no held-out image to restore; raise it")
        self.labels_N = labels_N[self.rows_N]
        self.side = self.split.clean(self.rows_N[:1].tolist()).shape[-1]
        clean = (to_uint8(self.split.clean(rows)) for rows in self.batches())
        self.images_NCHW = self.on_disk(clean)
        self.classifier = None
        if run.settings("features", FeaturesConfig).kind == "trained":
            path = run.inputs["features"] / "features.safetensors"
            self.classifier = load_classifier(path).to(run.device)

    def __len__(self) -> int:
        return len(self.rows_N)

    def batches(self) -> Iterator[list[int]]:
        """Rows of the split, those that go through a network together."""
        return batches(self.rows_N, self.side)

    def parts(self, images_NCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images, or what else there is one of for each, in the same parts."""
        return images_NCHW.split(at_once(BATCH, self.side))

    def on_disk(self, parts: Iterable[torch.Tensor]) -> torch.Tensor:
        """Parts behind each other, in a file of the run's folder."""
        return on_disk(self.run.out, parts)

    def degraded(self, name: str) -> torch.Tensor:
        """All images after a degradation, as a sensor would give them: uint8."""
        return self.on_disk(to_uint8(self.split.degraded(name, rows)) for rows in self.batches())

    @torch.no_grad()
    def _features(self, images_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and likeliest classes of images."""
        assert self.classifier is not None
        trunk, head = self.classifier.features, self.classifier.head
        features = Rows(len(images_NCHW), self.run.device)
        for part in self.parts(images_NCHW):
            features.add(trunk(part.to(self.run.device)))
        features_ND = features.whole()
        return features_ND, head(features_ND).argmax(1).cpu()

    @cached_property
    def _true(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._features(self.images_NCHW)

    def scores(self, images_NCHW: torch.Tensor) -> Scores:
        """PSNR and SSIM, means over images; with a classifier how many are of the true class, and
        the mean distance of features."""
        clean, restored = self.images_NCHW.numpy(), images_NCHW.numpy()
        scores: Scores = {"psnr": (float(psnr(clean, restored).mean()), "dB")}
        scores["ssim"] = float(ssim(clean, restored).mean()), "ssim"
        if self.classifier is None:
            return scores
        true_ND, _ = self._true
        restored_ND, classes_N = self._features(images_NCHW)
        right_N = classes_N.numpy() == self.labels_N
        scores["class_agreement"] = float(right_N.mean()), "share"
        scores["feature_distance"] = float((restored_ND - true_ND).norm(dim=1).mean()), "L2"
        return scores

    def report(
        self, way: str, of_kinds: dict[str, Scores], names: dict, repeat: int | None = None
    ) -> None:
        """Rows `<score>_<way>_<degradation>` and, without a degradation, their mean; more than one
        number of a way goes by `repeat`."""
        names = {**names, "num_images": len(self)}
        names |= {} if repeat is None else {"repeat": repeat}
        for kind, scores in of_kinds.items():
            for name, (value, unit) in scores.items():
                self.run.add(f"{name}_{way}_{kind}", value, unit, **names)
        first: Iterable[tuple[str, tuple[float, str]]] = next(iter(of_kinds.values())).items()
        for name, (_, unit) in first:
            values = [scores[name][0] for scores in of_kinds.values()]
            self.run.add(f"{name}_{way}", float(np.mean(values)), unit, **names)
