"""What curves say free of any form: where one falls below another, and for how many epochs few
images are as good as more. Arrays in, numbers out."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .fit import Curve


def best_so_far(losses_P: np.ndarray) -> np.ndarray:
    """The least loss until each evaluation."""
    return np.minimum.accumulate(losses_P)


class Crossing(NamedTuple):
    """The compute from which one curve stays below another; censored: it is below from the first
    evaluation of both on, so that this is an upper limit."""

    compute: float
    censored: bool


def crossover(
    compute_A: np.ndarray, losses_A: np.ndarray, compute_B: np.ndarray, losses_B: np.ndarray
) -> Crossing | None:
    """The least compute from which the best loss so far of A stays below that of B to the end of
    both; None where it is not below at the end, or never below.

    Losses are linear in log compute between evaluations, and what ended early keeps its best.
    """
    first = max(compute_A[0], compute_B[0])
    places = np.unique(np.r_[compute_A, compute_B])
    log_C = np.log(places[places >= first])
    sides = ((compute_A, losses_A), (compute_B, losses_B))
    of_A, of_B = (
        np.interp(log_C, np.log(compute), best_so_far(losses)) for compute, losses in sides
    )
    above = of_A - of_B
    if above[-1] >= 0:
        return None
    last = np.flatnonzero(above > 0)
    if not len(last):
        return Crossing(float(first), censored=True)
    i = int(last[-1])
    share = above[i] / (above[i] - above[i + 1])
    between = math.exp(log_C[i] + share * (log_C[i + 1] - log_C[i]))
    return Crossing(float(between), censored=False)


def matched_epochs(few: Curve, more: Curve, tolerance: float = 0.01) -> float | None:
    """Epochs of the smaller set until which a loss is that of the larger one at as many steps, up
    to a share; from there on it stays above. None where that begins with the first evaluation,
    infinite where it never does."""
    steps = np.intersect1d(few.steps_P, more.steps_P)
    if not len(steps):
        return None
    at = [np.searchsorted(curve.steps_P, steps) for curve in (few, more)]
    over = few.losses_P[at[0]] / more.losses_P[at[1]] - (1 + tolerance)
    epochs = few.epochs_P[at[0]]
    fine = np.flatnonzero(over <= 0)
    if not len(fine):
        return None
    i = int(fine[-1])
    if i == len(over) - 1:
        return math.inf
    share = -over[i] / (over[i + 1] - over[i])
    return float(epochs[i] + share * (epochs[i + 1] - epochs[i]))
