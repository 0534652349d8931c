"""What the scores are called and which way they point, and whether KID takes all pairs. Imports
nothing of the project, and no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

BETTER: dict[str, Literal["lower", "higher"]] = {
    # scores of generated images, reported with the extractor's name behind them
    "fid": "lower",
    "kid": "lower",
    "is": "higher",
    "precision": "higher",
    "recall": "higher",
    "class_agreement": "higher",
    "density": "higher",
    "coverage": "higher",
    "cas": "higher",
    "feature_distance": "lower",
    # of pixels; their variance has no direction, near that of real images is best
    "fid_pixels": "lower",
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
    "passes_used": "lower",
    "tokens_per_forward": "higher",
    "flops": "lower",
    "parameters": "lower",
    "latency_s": "lower",
    "decoder_s": "lower",
    "latency_scale_s": "lower",
    "peak_memory_bytes": "lower",
}
# what is measured with it, and on what: no part of the direction
WHAT = re.compile(
    r"^(nearest_fill_|bicubic_|ceiling_)?"
    r"(inpaint_|outpaint_|super_resolution_|floor_|reconstruction_|reference_|clean_)?"
)
WHERE = re.compile(r"(_whole|_unknown|_train|_val|_test)?(_scale)?$")


def bare_score(metric: str) -> str:
    """A metric without what is measured and where: fid of inpaint_fid."""
    return WHAT.sub("", WHERE.sub("", metric))


def better(metric: str) -> Literal["lower", "higher"] | None:
    """The direction of a metric named without its extractor, such as inpaint_psnr_whole; None where
    none is known."""
    names = (metric, WHERE.sub("", metric), bare_score(metric))
    return next((BETTER[name] for name in names if name in BETTER), None)


# scores that need a classifier of the images' classes: measured once, by the first extractor that
# is one
OF_CLASSES = {"class_agreement", "cas", "feature_distance"}


def needs_classes(score: str) -> bool:
    """Whether a score named without its extractor, such as inpaint_class_agreement, needs them."""
    return bool(OF_CLASSES & {score, bare_score(score)})


# metrics of bench/pipeline/metrics.py that another evaluator than the extractor stands behind, and
# its name
EVALUATORS = {"pixels": "pixels"}


# metrics that need a classifier of the study's classes
OF_CLASSIFIER = ("class_agreement", "classification_accuracy")


def metrics_of_each(metrics: Sequence[str], kinds: Sequence[str]) -> list[tuple[str, ...]]:
    """Which metrics are taken in each of several extractors, of these kinds.

    One extractor takes all: the first that was trained, or the first. The others leave out what
    needs a classifier, and what another evaluator stands behind: it would be the same number.
    """
    whole = kinds.index("trained") if "trained" in kinds else 0
    once = {*OF_CLASSIFIER, *EVALUATORS}
    others = tuple(name for name in metrics if name not in once)
    return [tuple(metrics) if place == whole else others for place in range(len(kinds))]


def score_name(name: str, extractor: str) -> str:
    """The whole name of a score as claims and tables call it: fid is fid_digits64, and fid_pixels,
    which names its evaluator, stays."""
    own = tuple(f"_{evaluator}" for evaluator in EVALUATORS.values())
    return name if name.endswith(own) else f"{name}_{extractor}"


def bare_name(metric: str, extractor: str) -> str | None:
    """The name by which claims call a score: the reverse of `score_name`; None for what is none."""
    if metric.endswith(f"_{extractor}"):
        return metric.removesuffix(f"_{extractor}")
    return metric if score_name(metric, extractor) == metric else None


ALL_PAIRS = 5e11  # products and kernels that one thread computes in about 20 s


def kid_is_exact(n: int, m: int, dim: int) -> bool:
    """Whether KID of n and m images with so many features is taken over all pairs, and not as the
    mean over 100 random subsets of at most 1000 images (arXiv 1801.01401).

    A kernel costs as much as about 128 features.
    """
    return (n + m) ** 2 / 2 * (dim + 128) <= ALL_PAIRS
