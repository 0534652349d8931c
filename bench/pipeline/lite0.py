"""EfficientNet-Lite0 with its ImageNet weights: a network that no training of ours has seen.

EfficientNet (arXiv 1905.11946) without squeeze-and-excitation, with ReLU6 in place of SiLU, as
TensorFlow's authors published it. B images, D features.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from srdd.files import load_foreign
from srdd.tokenizer import laid_out

from ..study.pretrained import weights_of


class Stage(NamedTuple):
    """Blocks of equal width: expansion, channels, side of the kernel, stride of the first block,
    and how many blocks."""

    expand: int
    channels: int
    kernel: int
    stride: int
    repeats: int


# arXiv 1905.11946, table 1
STAGES = (
    Stage(1, 16, 3, 1, 1),
    Stage(6, 24, 3, 2, 2),
    Stage(6, 40, 5, 2, 2),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 5, 1, 3),
    Stage(6, 192, 5, 2, 4),
    Stage(6, 320, 3, 1, 1),
)
STEM, DIM, CLASSES = 32, 1280, 1000
EPS = 1e-3  # of batch norm

# names in the file of the weights, and here
RENAMED = {
    r"^_conv_stem\.": "stem.conv.",
    r"^_bn0\.": "stem.norm.",
    r"^_conv_head\.": "head.conv.",
    r"^_bn1\.": "head.norm.",
    r"^_fc\.": "classifier.",
    r"^_blocks\.": "blocks.",
    r"\._expand_conv\.": ".expand.conv.",
    r"\._bn0\.": ".expand.norm.",
    r"\._depthwise_conv\.": ".depthwise.conv.",
    r"\._bn1\.": ".depthwise.norm.",
    r"\._project_conv\.": ".project.conv.",
    r"\._bn2\.": ".project.norm.",
}


class Unit(nn.Module):
    """A convolution with TensorFlow's "same" padding, batch norm, and ReLU6 where asked for."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(c_out, eps=EPS)
        self.active = active

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        (kernel, _), (stride, _) = self.conv.kernel_size, self.conv.stride
        (top, bottom), (left, right) = (
            same_padding(side, kernel, stride) for side in x_BCHW.shape[2:]
        )
        x_BCHW = self.norm(self.conv(F.pad(x_BCHW, (left, right, top, bottom))))
        return F.relu6(x_BCHW) if self.active else x_BCHW


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after a side, so that ceil(side / stride) places are left: TensorFlow's
    "same", which puts the odd one behind."""
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


class Block(nn.Module):
    """An inverted residual block (MobileNetV2, arXiv 1801.04381)."""

    def __init__(self, c_in: int, stage: Stage, stride: int) -> None:
        super().__init__()
        width = c_in * stage.expand
        self.expand = Unit(c_in, width) if stage.expand > 1 else nn.Identity()
        self.depthwise = Unit(width, width, stage.kernel, stride, groups=width)
        self.project = Unit(width, stage.channels, active=False)
        self.residual = stride == 1 and c_in == stage.channels

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        change_BCHW = self.project(self.depthwise(self.expand(x_BCHW)))
        return x_BCHW + change_BCHW if self.residual else change_BCHW


class Lite0(nn.Module):
    """EfficientNet-Lite0 (arXiv 1905.11946): 1280 pooled features, 1000 logits of ImageNet.

    Takes what `normalised` gives: float (B, 3, H, W) of any size; 224 is what it was trained on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Unit(3, STEM, 3, 2)
        blocks, c_in = [], STEM
        for stage in STAGES:
            for i in range(stage.repeats):
                blocks.append(Block(c_in, stage, stage.stride if i == 0 else 1))
                c_in = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.head = Unit(c_in, DIM)
        self.classifier = nn.Linear(DIM, CLASSES)

    def stages(self, x_B3HW: torch.Tensor) -> list[torch.Tensor]:
        """Activations after each of the seven stages: 16, 24, 40, 80, 112, 192 and 320 channels, at
        1/2, 1/4, 1/8, 1/16, 1/16, 1/32 and 1/32 of the side."""
        x_BCHW, activations, blocks = self.stem(laid_out(x_B3HW)), [], iter(self.blocks)
        for stage in STAGES:
            for _ in range(stage.repeats):
                x_BCHW = next(blocks)(x_BCHW)
            activations.append(x_BCHW)
        return activations

    def features(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        """Features of shape (B, 1280): the mean of the last activations over their places."""
        return self.head(self.stages(x_B3HW)[-1]).mean((2, 3))

    def logits(self, features_BD: torch.Tensor) -> torch.Tensor:
        """Logits of ImageNet's classes, (B, 1000), from features."""
        return self.classifier(features_BD)

    def forward(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        """Logits of ImageNet's classes, (B, 1000)."""
        return self.logits(self.features(x_B3HW))


def normalised(levels_BCHW: torch.Tensor, image_size: int | None = None) -> torch.Tensor:
    """What `Lite0` takes, (levels - 127) / 128, of images in grey levels from 0 to 255.

    levels_BCHW: uint8 or float, one channel (which is repeated) or three. image_size: the side that
    they are resized to (bilinear, antialiased) first; None: as they are.
    """
    x_BCHW = levels_BCHW if levels_BCHW.is_floating_point() else levels_BCHW.float()
    if image_size is not None and tuple(x_BCHW.shape[2:]) != (image_size, image_size):
        size = (image_size, image_size)
        x_BCHW = F.interpolate(x_BCHW, size, mode="bilinear", antialias=True, align_corners=False)
    if x_BCHW.shape[1] == 1:
        x_BCHW = x_BCHW.expand(-1, 3, -1, -1)
    return (x_BCHW - 127) / 128


def open_lite0(key: str = "features.network") -> Lite0:
    """EfficientNet-Lite0 with its weights on the CPU, in evaluation mode, its weights without
    gradients.

    key: what asks for it, for messages. Raises ConfigError where the package of the weights is
    missing or holds another file.
    """
    path = weights_of("efficientnet_lite0", key)
    network = Lite0()
    network.load_state_dict({_renamed(name): value for name, value in load_foreign(path).items()})
    return network.eval().requires_grad_(False)


class Lite0Features(nn.Module):
    """EfficientNet-Lite0 as an extractor of scores, with the interface of our own classifier.

    image_size: the side that images are resized to. Raises ConfigError as `open_lite0` does.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.network, self.image_size = open_lite0(), image_size

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images (N, 1 or 3, H, W) to features of shape (N, 1280)."""
        return self.network.features(normalised(images, self.image_size))

    def head(self, features_ND: torch.Tensor) -> torch.Tensor:
        """Features to logits of shape (N, 1000)."""
        return self.network.logits(features_ND)


def _renamed(name: str) -> str:
    """A tensor's name here, from that in the file."""
    for pattern, ours in RENAMED.items():
        name = re.sub(pattern, ours, name)
    return name
