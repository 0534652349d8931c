"""Numbers that follow from scores: posteriors, their calibration, decisions from some tokens alone.
Imports no torch.

N images, Y classes, L tokens
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

BINS = 15


def accuracy(scores_NY: np.ndarray, labels_N: np.ndarray) -> float:
    """Share of images whose class scores highest; of equal scores the first class counts."""
    return float((scores_NY.argmax(1) == labels_N).mean())


def posterior_nll(scores_NY: np.ndarray, labels_N: np.ndarray) -> float:
    """Mean of -log p(class | image) in nats, every class equally likely before."""
    log_posterior_NY = log_softmax(scores_NY, 1)
    return float(-np.take_along_axis(log_posterior_NY, labels_N[:, None], 1).mean())


def calibration_error(scores_NY: np.ndarray, labels_N: np.ndarray) -> float:
    """Expected calibration error of the posterior (arXiv 1706.04599, equation 3), 15 bins of equal
    width."""
    confidence_N = np.exp(log_softmax(scores_NY, 1)).max(1)
    right_N = scores_NY.argmax(1) == labels_N
    bin_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    error = 0.0
    for place in np.unique(bin_N):
        inside_N = bin_N == place
        error += inside_N.mean() * abs(right_N[inside_N].mean() - confidence_N[inside_N].mean())
    return float(error)


# ---------------------------------------------------------------- which tokens decide


def strongest_other(scores_NY: np.ndarray, own_N: np.ndarray) -> np.ndarray:
    """The class that scores highest beside each image's own."""
    others_NY = np.array(scores_NY, float)
    np.put_along_axis(others_NY, own_N[:, None], -np.inf, 1)
    return others_NY.argmax(1)


def contrast(log_p_NYL: np.ndarray, own_N: np.ndarray) -> np.ndarray:
    """log p of each token under a class minus that under the strongest other, (N, L): what sums to
    the margin of the decision."""
    rows_N = np.arange(len(own_N))
    other_N = strongest_other(log_p_NYL.sum(-1, dtype=np.float64), own_N)
    return log_p_NYL[rows_N, own_N] - log_p_NYL[rows_N, other_N]


def decisions_left(log_p_NYL: np.ndarray, order_NL: np.ndarray, count: int, keep: bool) -> float:
    """Share of images that are decided as from all tokens when only the first `count` of an order
    are kept, or these are dropped."""
    rank_NL = order_NL.argsort(1)
    used_NL = rank_NL < count if keep else rank_NL >= count
    some_NY = np.where(used_NL[:, None], log_p_NYL, 0.0).sum(-1, dtype=np.float64)
    whole_N = log_p_NYL.sum(-1, dtype=np.float64).argmax(1)
    return float((some_NY.argmax(1) == whole_N).mean())


def counts_of(tokens: int) -> list[int]:
    """Numbers of tokens that decision curves are drawn at: 1, 2, 4, ... and sixths of all."""
    powers = [2**i for i in range(tokens.bit_length())]
    sixths = [round(tokens * part / 6) for part in range(1, 6)]
    return sorted({n for n in [*powers, *sixths] if 0 < n < tokens})
