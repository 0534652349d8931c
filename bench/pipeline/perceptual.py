"""The networks whose activations a perceptual loss compares, with weights that no training of ours
changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from srdd.loss import perceptual_distance

from ..runtime.verb import Run
from ..study.tokenizer_settings import TokenizerTraining
from .lite0 import normalised, open_lite0
from .lpips import open_lpips

Stages = Callable[[torch.Tensor], list[torch.Tensor]]


class Perceptual:
    """Distance of images in the activations of a network (LPIPS, arXiv 1801.03924, equation 1).

    stages: activations of images in [-1, 1], three channels; weights: of the channels of each
    stage, None for 1; size: the side that the network sees, None for that of the images.
    """

    def __init__(
        self, stages: Stages, weights: Sequence[torch.Tensor] | None, size: int | None
    ) -> None:
        self.stages, self.weights, self.size = stages, weights, size

    def seen(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Activations of images in [-1, 1], of one channel or three."""
        side = images_BCHW.shape[-1]
        if self.size is not None and side != self.size:
            # what shrinks would alias without a filter
            images_BCHW = torch.nn.functional.interpolate(
                images_BCHW, (self.size, self.size), mode="bilinear", antialias=self.size < side
            )
        return self.stages(images_BCHW.expand(-1, 3, -1, -1))

    def distance(self, images_BCHW: torch.Tensor, wanted_BCHW: torch.Tensor) -> torch.Tensor:
        """Mean distance of two batches; its gradient goes to the first."""
        with torch.no_grad():
            wanted = self.seen(wanted_BCHW)
        return perceptual_distance(self.seen(images_BCHW), wanted, self.weights)


def open_perceptual(run: Run, config: TokenizerTraining) -> Perceptual:
    """The network that a training asks for, on its device. Raises ConfigError for weights that are
    missing or others."""
    key = "tokenizer.training.perceptual_weights"
    if config.perceptual_weights is not None:
        place = run.files.get(key, config.perceptual_weights.file)
        lpips = open_lpips(config.perceptual_weights.model_copy(update={"file": place}), key)
        lpips.to(run.device)
        return Perceptual(lpips.stages, lpips.weights(), config.perceptual_size)
    lite0 = open_lite0("tokenizer.training.perceptual_network").to(run.device)

    def stages(images_B3HW: torch.Tensor) -> list[torch.Tensor]:
        return lite0.stages(normalised((images_B3HW + 1) * 127.5))

    return Perceptual(stages, None, config.perceptual_size)
