"""Degraded images of prepared data: each from its own seed, or the partner that a paired folder
gives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from srdd.degradation import degraded
from srdd.noise import derive_seed

from ..runtime.verb import Run
from ..study.errors import ConfigError
from ..study.restore_settings import PAIRED
from .artefacts import open_json, open_split, place_of_images
from .datasets import FileImages, SplitImages, to_float
from .paired_images import partners_of


class DegradedSplit:
    """The images of a split and what any degradation makes of them: one instance for each image and
    degradation, whatever batch it is in."""

    def __init__(self, data: Path, name: str, strength: float, content: str | None = None) -> None:
        self.data, self.name, self.strength, self.content = data, name, strength, content
        self.images: SplitImages = open_split(data, name)

    @classmethod
    def of(cls, run: Run, name: str, strength: float) -> DegradedSplit:
        """A split of the images that a job reads, by the content that its config names."""
        content = run.config["dataset"].get("content")
        return cls(run.inputs["data"], name, strength, content)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def partners(self) -> FileImages:
        """The degraded images of a paired folder. Raises ConfigError for other data, and for
        files that are not those of the plan."""
        images = self.images
        about = open_json(self.data / "data.json")
        if not isinstance(images, FileImages) or about.get("pairs") is not True:
            raise ConfigError(
                "restore.degradations: paired: these images have no degraded partners; prepare a "
                "paired_folder"
            )
        return partners_of(images, place_of_images(self.data), self.content)

    def clean(self, rows: Sequence[int]) -> torch.Tensor:
        """Images in [-1, 1]."""
        return to_float(self.images.read(rows))

    def degraded(self, degradation: str, rows: Sequence[int]) -> torch.Tensor:
        """What a degradation makes of some images, in [-1, 1]."""
        if degradation == PAIRED:
            return to_float(self.partners.read(rows))
        seeds = [derive_seed("degraded", self.name, int(row)) for row in rows]
        return degraded(degradation, self.clean(rows), seeds, self.strength)

    def mixed(
        self, names: Sequence[str], kinds: Sequence[int], rows: Sequence[int]
    ) -> torch.Tensor:
        """Images each by a degradation of its own. kinds: the place of its name."""
        mixed_BCHW = torch.empty_like(self.clean(rows))
        for place, name in enumerate(names):
            mine = [i for i, kind in enumerate(kinds) if kind == place]
            if mine:
                mixed_BCHW[mine] = self.degraded(name, [rows[i] for i in mine])
        return mixed_BCHW
