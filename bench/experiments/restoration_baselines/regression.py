"""Networks from degraded to clean pixels, fitted in one way: an MLP, and a small U-Net (arXiv
1505.04597)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ...pipeline.datasets import to_float
from .plan import Settings

# degraded and clean images of a step, uint8, given the generator that draws them
Draw = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def fitted(
    network: nn.Module,
    draw: Draw,
    source: torch.Generator,
    settings: Settings,
    device: torch.device,
) -> nn.Module:
    """A network from degraded to clean pixels by AdamW on the L1 error, its rate falling to 0."""
    network = network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * (1 - step / settings.steps)
        degraded_BCHW, clean_BCHW = draw(source)
        restored_BD = network(to_float(degraded_BCHW.to(device))).flatten(1)
        clean_BD = to_float(clean_BCHW.to(device)).flatten(1)
        optimizer.zero_grad()
        (restored_BD - clean_BD).abs().mean().backward()
        optimizer.step()
    return network.eval()


def mlp(pixels: int, settings: Settings, source: torch.Generator) -> nn.Module:
    """An MLP on all pixels at once."""
    sides = [pixels, *[settings.units] * settings.layers, pixels]
    layers: list[nn.Module] = [nn.Flatten()]
    for wide, narrow in zip(sides, sides[1:]):
        linear = nn.Linear(wide, narrow)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu", generator=source)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.GELU()]
    return nn.Sequential(*layers[:-1])


class UNet(nn.Module):
    """Three levels of 3 x 3 convolutions, halved and doubled sides, skips between equal ones; what
    comes out is added to the image, at first nothing (U-Net, arXiv 1505.04597, without norms)."""

    def __init__(self, channels: int, width: int, source: torch.Generator) -> None:
        super().__init__()
        wide = (width, 2 * width, 4 * width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(n, 2 * n, 3, 2, 1) for n in wide[:2])
        self.deep = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in wide)
        self.up = nn.ModuleList(nn.Conv2d(3 * n, n, 3, padding=1) for n in wide[:2])
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=source)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.last.weight)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Restored images of degraded ones in [-1, 1]. Shape is kept."""
        x = F.gelu(self.deep[0](F.gelu(self.first(images_BCHW))))
        skips = []
        for down, deep in zip(self.down, self.deep[1:]):
            skips.append(x)
            x = F.gelu(deep(F.gelu(down(x))))
        for up, skip in zip(reversed(self.up), reversed(skips)):
            x = F.interpolate(x, skip.shape[2:], mode="nearest")
            x = F.gelu(up(torch.cat((x, skip), 1)))
        restored_BCHW: torch.Tensor = images_BCHW + self.last(x)
        return restored_BCHW
