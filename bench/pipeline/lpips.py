"""LPIPS (arXiv 1801.03924): VGG-16 and the weights of its channels, read from one file.

The file is the state of the authors' `LPIPS(net="vgg")`, backbone included, such as
`torch.save(lpips.LPIPS(net="vgg").state_dict(), "lpips_with_vgg.pth")` writes it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from srdd.files import load_foreign

from ..study.errors import ConfigError
from ..study.settings import WeightsConfig
from .weights import fetch

# places of the convolutions in VGG-16 (arXiv 1409.1556, table 1, D), slice by slice, and widths
SLICES = (
    ((0, 3, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
# mean and deviation of ImageNet's colours, as LPIPS takes images in [-1, 1]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


Convolutions = tuple[tuple[int, int, int], ...]


def _slice(convolutions: Convolutions) -> nn.Sequential:
    """Convolutions between two poolings."""
    layers: list[nn.Module] = []
    for _, c_in, c_out in convolutions:
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


class Lpips(nn.Module):
    """VGG-16 up to its last convolution, and a weight for each channel of its five slices."""

    def __init__(self) -> None:
        super().__init__()
        self.slices = nn.ModuleList(_slice(convolutions) for convolutions in SLICES)
        self.channels = nn.ParameterList(torch.ones(slice_[-1][2]) for slice_ in SLICES)

    def stages(self, images_B3HW: torch.Tensor) -> list[torch.Tensor]:
        """Activations of images in [-1, 1] after each slice: 64, 128, 256, 512 and 512 channels, at
        1, 1/2, 1/4, 1/8 and 1/16 of the side."""
        shift, scale = (images_B3HW.new_tensor(value)[:, None, None] for value in (SHIFT, SCALE))
        x_BCHW, activations = (images_B3HW - shift) / scale, []
        for i, convolutions in enumerate(self.slices):
            x_BCHW = convolutions(F.max_pool2d(x_BCHW, 2) if i else x_BCHW)
            activations.append(x_BCHW)
        return activations

    def weights(self) -> list[torch.Tensor]:
        """What each channel counts, slice by slice."""
        return [weight_C.detach() for weight_C in self.channels]


def names_in_file() -> dict[str, str]:
    """Where the file holds each tensor, by its name here."""
    names = {}
    for i, convolutions in enumerate(SLICES):
        names[f"channels.{i}"] = f"lin{i}.model.1.weight"
        for j, (place, _, _) in enumerate(convolutions):
            for part in ("weight", "bias"):
                names[f"slices.{i}.{2 * j}.{part}"] = f"net.slice{i + 1}.{place}.{part}"
    return names


def open_lpips(weights: WeightsConfig, key: str) -> Lpips:
    """LPIPS on the CPU, in evaluation mode, without gradients of its weights.

    key: what asks for it, for messages. Raises ConfigError for a file that is missing, has another
    sum, or holds other tensors.
    """
    path = fetch(weights, key)
    network, tensors = Lpips(), load_foreign(path)
    state = {}
    for name, in_file in names_in_file().items():
        if in_file not in tensors:
            raise ConfigError(
                f"{key}: {path}: has no {in_file}; give the state of LPIPS(net='vgg') with its "
                "backbone"
            )
        own = network.get_parameter(name)
        if tensors[in_file].numel() != own.numel():
            raise ConfigError(
                f"{key}: {path}: {in_file} has shape {list(tensors[in_file].shape)}, "
                f"{list(own.shape)} expected"
            )
        state[name] = tensors[in_file].reshape(own.shape)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)
