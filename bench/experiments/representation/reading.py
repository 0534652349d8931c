"""What figures, tables and rules of this room read of its rows, and how a caption tells it. Imports
no torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ...pipeline.labels import in_shares
from ...report.absent import by_reason
from ...report.completion import count_words
from ...report.estimate import Estimate, estimate, paired
from ...report.view import View
from ...report.words import held_out, seeds_details
from .plan import SHARES, shown_arms

NAMES = {
    "frozen": "frozen",
    "recon": "reconstruction",
    "recon_long": "reconstruction (equal tokens)",
    "contrast": "contrast of views",
    "naive": "naive sum",
    "naive_long": "naive sum (equal tokens)",
    "dcr_codes": "DCR by codes",
    "dcr_loglik": "DCR by log-likelihoods",
    "supervised": "supervised",
}


def asked(view: View) -> dict[str, Any]:
    """What the suite asks of the room. Raises ValueError for a suite that was told nothing."""
    settings: dict[str, Any] = view.about["representation"]
    return settings


def arms_of(view: View) -> list[str]:
    """Arms as rows name them, in the order of the suite."""
    told = asked(view)
    return shown_arms(tuple(told["arms"]), told["equal_tokens"])


def of_arm(view: View, variant: str, measure: str, arm: str) -> Estimate | None:
    """Mean and interval of a measure of one arm."""
    return view.estimate(variant, f"{measure}_{arm}")


def minus(view: View, variant: str, measure: str, arm: str, against: str) -> Estimate | None:
    """A measure of one arm minus that of another, paired by training seed."""
    first, second = (view.of(variant, f"{measure}_{name}") for name in (against, arm))
    return paired(first, second)


def above_half(view: View, variant: str, measure: str, arm: str) -> Estimate | None:
    """A share of one arm minus one half."""
    return estimate(view.of(variant, f"{measure}_{arm}") - 0.5)


def two_errors(view: View, variant: str, measure: str, arms: tuple[str, str]) -> float | None:
    """Two binomial standard errors of the difference of two shares of the test images, or of the
    blind pairs; None for what is no share."""
    if measure not in SHARES:
        return None
    rows = view.select(variant, f"{measure}_{arms[0]}")
    images = asked(view)["pairs"] if measure == "pair_accuracy" else rows["num_images"].min()
    shares = [view.of(variant, f"{measure}_{arm}").mean() for arm in arms]
    error: float = 2 * math.sqrt(sum(p * (1 - p) for p in shares) / images)
    return error


def along(view: View, variant: str) -> pd.DataFrame:
    """Cosines of the gradients of the naive sum: columns train_seed, step, value."""
    rows = view.select(variant, "gradient_cosine_naive").dropna(subset=["step", "value"])
    return rows[["train_seed", "step", "value"]]


def matrix_runs(view: View) -> list[tuple[str, str, str]]:
    """Variant, arm and run of every arm with matrices, of the first training seed that has some."""
    shown = []
    for variant, names in view.variants.items():
        seen: set[str] = set()
        for seed in view.about["train_seeds"]:
            jobs = view.results.jobs_of(names, seed)
            for run_id in jobs.loc[jobs["stage"] == "representation", "run_id"]:
                arm = str(run_id).partition("/")[2].partition("-")[0]
                if arm not in seen and run_id in view.runs:
                    if f"{run_id}/after" in view.results.images:
                        seen.add(arm)
                        shown.append((variant, arm, str(run_id)))
    return shown


def batch_classes(view: View) -> np.ndarray:
    """Class of each image of the batch that matrices show; empty where no row counts classes."""
    rows = view.results.rows_of("num_test_class").dropna(subset=["scale", "value"])
    of_class = rows.drop_duplicates("scale").sort_values("scale")
    classes, counts = (of_class[name].to_numpy(int) for name in ("scale", "value"))
    split_N = np.repeat(classes, counts)
    told = asked(view)
    test_N = split_N[in_shares(split_N, told["num_images"] or len(split_N))]
    return test_N[in_shares(test_N, told["batch"])]


def missing_arms(view: View) -> list[str]:
    """A line for each variant and reason that names the arms without a number; none when all are
    there."""
    words = []
    for variant in view.variants:
        absent: dict[str, list[str]] = {}
        for arm in arms_of(view):
            if seeds := view.missing(variant, f"knn_accuracy_{arm}"):
                absent.setdefault(by_reason(seeds), []).append(NAMES[arm])
        for why, arms in absent.items():
            which = "all arms" if len(arms) == len(arms_of(view)) else ", ".join(arms)
            words.append(f"{variant}: {which}: {why}")
    return words


def run_details(view: View) -> tuple[str, ...]:
    """Details of a caption: what all arms share, what is measured and how, what is thrown away."""
    told = asked(view)
    scales = "one scale, drawn" if told["scales"] == "one" else "all scales"
    few = f" on {told['pretrain_images']} images" if told.get("pretrain_images") else ""
    return (
        f"N = {count_words(view, 'representation')} images of {held_out(view.results)}.",
        f"Encoder: {told['dim']} numbers, trained {told['pretrain_steps']} steps as a classifier"
        f"{few}; then the projector, {told['projector_steps']} steps by cross-entropy. Both are "
        "the same for all arms of a training seed.",
        f"An arm: {told['steps']} steps of {told['batch']} images with different tokens at "
        f"learning rate {told['lr']:g}, {scales} a step; generator and projector frozen. "
        "Temperature of cosines " + f"{told['tau']:g}.",
        "Views: shifted by a pixel at most, contrast within 10 %; no flips. No arm but supervised "
        "reads a label.",
        f"Probe: logistic regression, C = 1. kNN: {told['neighbours']} neighbours by cosine. "
        "Detail: ridge regression (1) to six moments of brightness. All on standardised z, but "
        "kNN; none draws a number.",
        "NLL: of held-out tokens given z through the frozen projector; generator and projector are "
        "thrown away afterwards.",
        *seeds_details(view),
    )
