"""The adversarial loss of a tokenizer: a patch discriminator, hinge losses, the adaptive weight.

B batch, H W pixels, h w grid of patches
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .tokenizer import laid_out

GROUPS = 8
MOST_WIDTH = 8  # times the first layer's (arXiv 1611.07004, section 6.1.2)
LARGEST_WEIGHT = 1e4  # as VQGAN's code has it: a vanishing gradient must not win


class PatchDiscriminator(nn.Module):
    """One logit for each patch of an image (PatchGAN, arXiv 1611.07004, section 3.2.2), high where
    it looks real.

    Groups are normalised in place of batches: a logit then depends on its own image alone, so that
    neither the mix of real and reconstructed images nor the number of processes changes any, and
    there is no running state. in_channels: of the images; channels: of the first layer, a multiple
    of 8; layers: those that halve the side.
    """

    def __init__(self, in_channels: int, channels: int, layers: int) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(in_channels, channels, 4, stride=2, padding=1)]
        c_in = channels
        for i in range(1, layers + 1):
            c_out, stride = channels * min(2**i, MOST_WIDTH), 1 if i == layers else 2
            parts += [
                nn.LeakyReLU(0.2),
                nn.Conv2d(c_in, c_out, 4, stride, padding=1, bias=False),
                nn.GroupNorm(GROUPS, c_out),
            ]
            c_in = c_out
        self.judge = nn.Sequential(
            *parts, nn.LeakyReLU(0.2), nn.Conv2d(c_in, 1, 4, stride=1, padding=1)
        )

    def init_weights(self, generator: torch.Generator) -> None:
        """Convolutions normal with deviation 0.02, biases 0 (arXiv 1611.07004, section 6.2)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Images in [-1, 1] to logits (B, 1, h, w)."""
        logits_B1hw: torch.Tensor = self.judge(laid_out(images_BCHW))
        return logits_B1hw


def discriminator_loss(real_B1hw: torch.Tensor, fake_B1hw: torch.Tensor) -> torch.Tensor:
    """Hinge loss of a discriminator's logits (geometric GAN, arXiv 1705.02894, equation 22), mean
    of both halves: 1 at logits of zero, 0 where all are told apart by a margin."""
    return (F.relu(1 - real_B1hw).mean() + F.relu(1 + fake_B1hw).mean()) / 2


def adversarial_loss(fake_B1hw: torch.Tensor) -> torch.Tensor:
    """What the hinge loss tells the tokenizer (geometric GAN, arXiv 1705.02894, equation 23): minus
    the mean logit of its reconstructions."""
    return -fake_B1hw.mean()


def adaptive_weight(reconstruction: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
    """Ratio of the norms of two gradients at the decoder's last layer (VQGAN, arXiv 2012.09841,
    equation 7), so that neither loss drowns the other; at most 10 000."""
    ratio: torch.Tensor = reconstruction.norm() / (adversarial.norm() + 1e-6)
    return ratio.clamp(max=LARGEST_WEIGHT)
