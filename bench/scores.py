"""Which way a metric points: whether a lower or a higher value is better. Imports nothing of the
project."""

from __future__ import annotations

import re
from typing import Literal

BETTER: dict[str, Literal["lower", "higher"]] = {
    # scores of generated images, reported with the extractor's name behind them
    "fid": "lower",
    "kid": "lower",
    "is": "higher",
    "precision": "higher",
    "recall": "higher",
    "class_agreement": "higher",
    "feature_distance": "lower",
    # likeness of completed images
    "psnr": "higher",
    "ssim": "higher",
    # trained networks
    "loss": "lower",
    "kept_loss": "lower",
    "loss_val_any_order": "lower",
    "loss_test_any_order": "lower",
    "token_accuracy": "higher",
    "class_accuracy": "higher",
    "reconstruction_mse": "lower",
    "elbo_cross_entropy": "lower",
    "elbo_relative_gap": "lower",
    "elbo_token_gap": "lower",
    # what a sample costs
    "nfe": "lower",
    "token_evals": "lower",
    "flops": "lower",
    "parameters": "lower",
    "latency_s": "lower",
    "decoder_s": "lower",
    "latency_scale_s": "lower",
    "peak_memory_bytes": "lower",
}
# what is measured with it, and on what: no part of the direction
WHAT = re.compile(
    r"^(nearest_fill_|bicubic_|ceiling_)?(inpaint_|outpaint_|super_resolution_|floor_|reconstruction_|clean_)?"
)
WHERE = re.compile(r"(_whole|_unknown|_train|_val|_test)?(_scale)?$")


def better(metric: str) -> Literal["lower", "higher"] | None:
    """The direction of a metric named without its extractor, such as inpaint_psnr_whole; None where
    none is known."""
    names = (metric, WHERE.sub("", metric), WHAT.sub("", WHERE.sub("", metric)))
    return next((BETTER[name] for name in names if name in BETTER), None)
