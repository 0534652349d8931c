"""How like two images are, pixel by pixel."""

from __future__ import annotations

import numpy as np

ROUNDING = 1 / 12  # mean square error of rounding to whole grey levels


def psnr(
    true_NCHW: np.ndarray, other_NCHW: np.ndarray, region_hw: np.ndarray | None = None
) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each uint8 image, over a region or whole.

    An error below that of rounding to 8 bits cannot be told from none: it counts as 1/12, hence
    58.9 dB at most and never infinity.
    """
    error_NCHW = true_NCHW.astype(np.float64) - other_NCHW
    region_hw = np.ones(true_NCHW.shape[2:], bool) if region_hw is None else region_hw
    error_NCp = error_NCHW[:, :, region_hw]
    return 10 * np.log10(255**2 / np.maximum((error_NCp**2).mean((1, 2)), ROUNDING))
