"""Images that are not as those of the training: by name, `shift_<name>`, each from its own seed.

B batch, C channels, H W sides
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .contracts import ask_images
from .lookup import find, function_name, is_own
from .misfits import strength_misfit
from .noise import generator


def shifted(name: str, images_BCHW: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Images after the shift of that name (after ImageNet-C, arXiv 1903.12261), in [-1, 1] as they
    come; what an image becomes depends on its own seed alone. Raises ValueError for an unknown
    name, and for another number of seeds than of images."""
    shift = find(sys.modules[__name__], "shift", name)
    if len(seeds) != len(images_BCHW):
        raise ValueError(f"{len(seeds)} seeds for {len(images_BCHW)} images: one for each image")
    whole = [int(seed) for seed in seeds]
    if is_own("shift", name):
        who = function_name("shift", name)
        return ask_images(lambda x_BCHW: shift(x_BCHW, list(whole)), who, images_BCHW)
    shifted_BCHW: torch.Tensor = shift(images_BCHW, whole)
    return shifted_BCHW


def shift_none(images_BCHW: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Images as they are. Shape is kept."""
    return images_BCHW


def _noisy(images_BCHW: torch.Tensor, seeds: Sequence[int], std: float) -> torch.Tensor:
    """Normal noise in every pixel, cut off at black and white."""
    sources = (generator("shift", "noise", seed) for seed in seeds)
    noise = [torch.randn(images_BCHW.shape[1:], generator=source) for source in sources]
    return (images_BCHW + std * torch.stack(noise).to(images_BCHW)).clamp(-1, 1)


def shift_noise(images_BCHW: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Normal noise of standard deviation 0.3, of [-1, 1] (ImageNet-C, arXiv 1903.12261, Gaussian
    noise). Shape is kept."""
    return _noisy(images_BCHW, seeds, 0.3)


def shift_heavy_noise(images_BCHW: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """As `shift_noise`, of standard deviation 0.6 (ImageNet-C, arXiv 1903.12261). Shape is kept."""
    return _noisy(images_BCHW, seeds, 0.6)


def shift_occlusion(images_BCHW: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """A black square of 3/8 of the side, somewhere (cutout, arXiv 1708.04552). Shape is kept."""
    hidden_BCHW, size = images_BCHW.clone(), images_BCHW.shape[-1]
    side = max(1, round(3 * size / 8))
    for image_CHW, seed in zip(hidden_BCHW, seeds):
        source = generator("shift", "occlusion", seed)
        top, left = torch.randint(size - side + 1, (2,), generator=source).tolist()
        image_CHW[:, top : top + side, left : left + side] = -1.0
    return hidden_BCHW


def shift_contrast(images_BCHW: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """0.4 times the contrast, about the mid-tone (ImageNet-C, arXiv 1903.12261, has it about the
    image's mean). Shape is kept."""
    return 0.4 * images_BCHW


def shift_blur(images_BCHW: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """The mean of 3 x 3 pixels, once for every 8 pixels of the side (ImageNet-C, arXiv 1903.12261).
    Shape is kept."""
    for _ in range(max(1, images_BCHW.shape[-1] // 8)):
        padded = F.pad(images_BCHW, (1, 1, 1, 1), mode="replicate")
        images_BCHW = F.avg_pool2d(padded, 3, stride=1)
    return images_BCHW


def shift_translation(images_BCHW: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """One pixel up, down, left or right; the edge is repeated (arXiv 1805.12177). Shape is kept."""
    padded = F.pad(images_BCHW, (1, 1, 1, 1), mode="replicate")
    H, W = images_BCHW.shape[2:]
    moved = []
    for image_CHW, seed in zip(padded, seeds):
        way = int(torch.randint(4, (1,), generator=generator("shift", "translation", seed)))
        top, left = ((0, 1), (2, 1), (1, 0), (1, 2))[way]
        moved.append(image_CHW[:, top : top + H, left : left + W])
    return torch.stack(moved)


# ---------------------------------------------------------------- of a chosen strength


def degraded(
    name: str, images_BCHW: torch.Tensor, seeds: Sequence[int], strength: float = 1.0
) -> torch.Tensor:
    """Images after the degradation of that name (after ImageNet-C, arXiv 1903.12261), in [-1, 1] as
    they come: strength 0 leaves them, 1 is what the function says; what an image becomes depends on
    its own seed alone. Raises ValueError for an unknown name, a strength that is too large, and for
    another number of seeds than of images."""
    degrade = find(sys.modules[__name__], "degrade", name)
    if len(seeds) != len(images_BCHW):
        raise ValueError(f"{len(seeds)} seeds for {len(images_BCHW)} images: one for each image")
    if problem := strength_misfit(name, strength):
        raise ValueError(problem)
    whole = [int(seed) for seed in seeds]
    if is_own("degrade", name):
        who = function_name("degrade", name)
        return ask_images(lambda x_BCHW: degrade(x_BCHW, list(whole), strength), who, images_BCHW)
    degraded_BCHW: torch.Tensor = degrade(images_BCHW, whole, strength)
    return degraded_BCHW


def degrade_noise(images_BCHW: torch.Tensor, seeds: Sequence[int], strength: float) -> torch.Tensor:
    """Normal noise of 0.5 times the strength, of [-1, 1], cut off at black and white (ImageNet-C,
    arXiv 1903.12261, Gaussian noise). Shape is kept."""
    sources = (generator("degrade", "noise", seed) for seed in seeds)
    noise = [torch.randn(images_BCHW.shape[1:], generator=source) for source in sources]
    return (images_BCHW + 0.5 * strength * torch.stack(noise).to(images_BCHW)).clamp(-1, 1)


def degrade_occlusion(
    images_BCHW: torch.Tensor, seeds: Sequence[int], strength: float
) -> torch.Tensor:
    """A black square of 3/8 of the side times the strength, somewhere (cutout, arXiv 1708.04552).
    Shape is kept."""
    hidden_BCHW, size = images_BCHW.clone(), images_BCHW.shape[-1]
    side = round(3 * strength * size / 8)
    for image_CHW, seed in zip(hidden_BCHW, seeds):
        source = generator("degrade", "occlusion", seed)
        top, left = torch.randint(size - side + 1, (2,), generator=source).tolist()
        image_CHW[:, top : top + side, left : left + side] = -1.0
    return hidden_BCHW


def degrade_contrast(
    images_BCHW: torch.Tensor, seeds: Sequence[int], strength: float
) -> torch.Tensor:
    """1 - 0.6 times the strength of the contrast, about the mid-tone as `shift_contrast` has it, so
    that an image's mean moves too (ImageNet-C, arXiv 1903.12261, keeps the mean). Shape is
    kept."""
    return (1 - 0.6 * strength) * images_BCHW


def degrade_blur(images_BCHW: torch.Tensor, seeds: Sequence[int], strength: float) -> torch.Tensor:
    """The mean of 3 x 3 pixels, side / 8 times the strength times over, nearly a Gaussian at 32
    pixels; of the last time a fraction (ImageNet-C, arXiv 1903.12261). Shape is kept."""
    times = strength * max(1, images_BCHW.shape[-1] // 8)
    while times > 0:
        padded = F.pad(images_BCHW, (1, 1, 1, 1), mode="replicate")
        mean_BCHW = F.avg_pool2d(padded, 3, stride=1)
        images_BCHW = torch.lerp(images_BCHW, mean_BCHW, min(times, 1.0))
        times -= 1
    return images_BCHW


def degrade_gaussian_blur(
    images_BCHW: torch.Tensor, seeds: Sequence[int], strength: float
) -> torch.Tensor:
    """A Gaussian of side / 64 times the strength in pixels, the edge repeated, for images of 32
    pixels and more (ImageNet-C, arXiv 1903.12261, has 1 to 6 at 224). Shape is kept."""
    std = strength * images_BCHW.shape[-1] / 64
    reach = math.ceil(4 * std)
    if not reach:
        return images_BCHW
    weights = torch.arange(-reach, reach + 1, dtype=torch.float64).div(std).square().mul(-0.5).exp()
    weights /= weights.sum()
    for dim in (2, 3):
        # tap by tap: a convolution may choose its sums by the size of the batch
        last = images_BCHW.shape[dim] - 1
        places = torch.arange(last + 1, device=images_BCHW.device)
        blurred_BCHW = torch.zeros_like(images_BCHW)
        for tap, weight in enumerate(weights.tolist(), -reach):
            moved = images_BCHW.index_select(dim, (places + tap).clamp(0, last))
            blurred_BCHW.add_(moved, alpha=weight)
        images_BCHW = blurred_BCHW
    return images_BCHW.clamp(-1, 1)


def _jpeg_quality(strength: float) -> int:
    """The quality at which libjpeg's steps of quantisation are 5 times the strength those of its
    tables, which it has at 50: 10 at strength 1, 100 near 0."""
    scale = 500 * strength
    quality = 5000 / scale if scale > 100 else (200 - scale) / 2
    return max(1, round(quality))


def degrade_jpeg(images_BCHW: torch.Tensor, seeds: Sequence[int], strength: float) -> torch.Tensor:
    """JPEG of quality 10 at strength 1, whose steps of quantisation grow with the strength, by
    Pillow, chroma at half the side (ImageNet-C, arXiv 1903.12261, has qualities 25 to 7). Shape,
    (B, 1 or 3, H, W), is kept."""
    if not strength:
        return images_BCHW
    quality, restored = _jpeg_quality(strength), []
    for image_CHW in images_BCHW.cpu():
        levels_HWC = image_CHW.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0)
        array, file = levels_HWC.numpy(), io.BytesIO()
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(
            file, "JPEG", quality=quality, subsampling="4:2:0"
        )
        with Image.open(file) as image:
            read_HWC = np.array(image).reshape(array.shape)
        restored.append(torch.from_numpy(read_HWC).permute(2, 0, 1))
    return torch.stack(restored).to(images_BCHW).div(127.5).sub(1)


def degrade_haze(images_BCHW: torch.Tensor, seeds: Sequence[int], strength: float) -> torch.Tensor:
    """Haze by the atmospheric model I = J t + A (1 - t), t = exp(-strength d), with a grey light A
    between 0.7 and 1 of white (RESIDE, arXiv 1712.04143); the depth d is ours: drawn between 0.5
    and 1.5 at 4 x 4 places, and bilinear between them. Shape is kept."""
    hazy = []
    for image_CHW, seed in zip(images_BCHW, seeds):
        source = generator("degrade", "haze", seed)
        depth_11ss = 0.5 + torch.rand(1, 1, 4, 4, generator=source)
        light = 2 * (0.7 + 0.3 * torch.rand((), generator=source).item()) - 1
        shape = image_CHW.shape[1:]
        depth_HW = F.interpolate(depth_11ss, shape, mode="bilinear", align_corners=True)[0, 0]
        through_HW = torch.exp(-strength * depth_HW).to(image_CHW)
        hazy.append(image_CHW * through_HW + light * (1 - through_HW))
    return torch.stack(hazy)
