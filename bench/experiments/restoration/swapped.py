"""Where in the scales lies what swapped tokens cost. Imports no torch."""

from __future__ import annotations

import pandas as pd

from ...report.view import View

CONTROL = "control"


def coarse_share(view: View, variant: str, kind: str) -> pd.Series:
    """Of the squared error that tokens of a degraded image add in one or the other half of the
    scales, the share of the coarse half, by training seed (probe of RestoreVAR, arXiv 2505.18047;
    definition ours).

    From the mean PSNR: of the clean tokens' own error, 10^(loss / 10) - 1. A half that lowers the
    error adds none, or a share could lie outside of 0 to 1. Without a value where neither adds any.
    """
    names = view.variants[variant]
    middle = len(names["patch_nums"]) // 2
    clean = view.grid_seeds(names, f"swap_coarse_{kind}", 0)  # nothing lies below the first cut
    coarse, fine = (
        (10 ** ((clean - view.grid_seeds(names, f"swap_{half}_{kind}", middle)) / 10) - 1).clip(0)
        for half in ("coarse", "fine")
    )
    added = coarse + fine
    return (coarse / added)[added > 0]


def coarse_excess(view: View, variant: str, kind: str) -> pd.Series:
    """That share minus the one of another image's tokens, by training seed: a swap breaks the chain
    of residuals whatever it brings in."""
    shares = coarse_share(view, variant, kind) - coarse_share(view, variant, CONTROL)
    return shares.dropna()
