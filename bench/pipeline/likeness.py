"""How like two images are, pixel by pixel."""

from __future__ import annotations

import numpy as np

from .at_once import at_once

ROUNDING = 1 / 12  # mean square error of rounding to whole grey levels
ROWS = 256  # images whose errors are in memory at once


def psnr(
    true_NCHW: np.ndarray, other_NCHW: np.ndarray, region_hw: np.ndarray | None = None
) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each uint8 image, over a region or whole.

    An error below that of rounding to 8 bits cannot be told from none: it counts as 1/12, hence
    58.9 dB at most and never infinity.
    """
    region_hw = np.ones(true_NCHW.shape[2:], bool) if region_hw is None else region_hw
    squared_N, rows = np.empty(len(true_NCHW)), at_once(ROWS, true_NCHW.shape[-1])
    for i in range(0, len(true_NCHW), rows):
        error_BCHW = true_NCHW[i : i + rows].astype(np.float64) - other_NCHW[i : i + rows]
        squared_N[i : i + rows] = (error_BCHW[:, :, region_hw] ** 2).mean((1, 2))
    return 10 * np.log10(255**2 / np.maximum(squared_N, ROUNDING))


def window_side(side: int) -> int:
    """Side of the windows of SSIM: 7 pixels as scikit-image has it, or the largest odd number up to
    half of a small image, from 3."""
    half = min(7, side // 2)
    return max(3, half - 1 + half % 2)


def ssim(
    true_NCHW: np.ndarray, other_NCHW: np.ndarray, region_hw: np.ndarray | None = None
) -> np.ndarray:
    """Structural similarity (Wang et al. 2004, by scikit-image) of each uint8 image: its mean, or
    that of its map over a region."""
    from skimage.metrics import structural_similarity  # slow to import, and few ask

    side, values = window_side(true_NCHW.shape[-1]), []
    for true_CHW, other_CHW in zip(true_NCHW, other_NCHW):
        whole, map_CHW = structural_similarity(
            true_CHW, other_CHW, win_size=side, data_range=255, channel_axis=0, full=True
        )
        values.append(whole if region_hw is None else map_CHW[:, region_hw].mean())
    return np.array(values)
