"""Losses over unique images and epochs: the fits and their intervals. Arrays in, numbers out.

U unique images, P points of all curves, R repeats (epochs minus 1), D' effective data
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import leastsq

from .plan import FEWEST_SIZES

B_RANGE, R_RANGE = (0.01, 5.0), (0.05, 8000.0)  # of the exponent and of R*
LOG_E = -12.0  # an irreducible loss this small is none
HUBER = 1e-3  # residuals of log loss beyond count linearly
FEWEST_POINTS = 4
QUOTED_RMS = 0.01  # R* of a fit that is worse says little
CHI_SQUARE = 3.841  # 95 %, one number
EDGE = 1.02  # a factor within which an interval touches a bound
TOLERANCE = 1e-9  # a smaller change of cost or parameters, as a share, ends a search
# a start is so far from its bounds, where a sine is flat, as a share of half the range
INSIDE = 0.02
PROFILE = 41  # values of R* of a profile
SEED = 0  # of the resamples


@dataclass(frozen=True)
class Curve:
    """One training on U images: losses at its evaluations, and the epochs of the kept weights.

    steps_P, epochs_P rise; losses_P: nats a token; seed: of the training; warmup: steps in which
    the learning rate rose.
    """

    images: int
    seed: int
    steps_P: np.ndarray
    epochs_P: np.ndarray
    losses_P: np.ndarray
    best_epochs: float
    warmup: int = 0

    def until_best(self) -> Curve:
        """The same up to the kept weights: what comes after is overfitting."""
        return self._only(self.epochs_P <= self.best_epochs * (1 + 1e-9))

    def after_warmup(self) -> Curve:
        """The same without what was evaluated while the learning rate rose: no form holds there."""
        return self._only(self.steps_P > self.warmup)

    def _only(self, some_P: np.ndarray) -> Curve:
        arrays = {name: getattr(self, name)[some_P] for name in ("steps_P", "epochs_P", "losses_P")}
        return replace(self, **arrays)


@dataclass(frozen=True)
class Points:
    """Points of several curves as arrays."""

    images_P: np.ndarray
    epochs_P: np.ndarray
    losses_P: np.ndarray

    @classmethod
    def of(cls, curves: Iterable[Curve]) -> Points:
        """Those of some curves, in an order that follows from them alone."""
        ordered = sorted(curves, key=lambda curve: (curve.images, curve.seed))
        images = [np.full(len(curve.losses_P), float(curve.images)) for curve in ordered]
        joined = (images, [c.epochs_P for c in ordered], [c.losses_P for c in ordered])
        return cls(*(np.concatenate([np.zeros(0), *parts]) for parts in joined))

    @cached_property
    def repeats_P(self) -> np.ndarray:
        """Epochs after the first."""
        return np.maximum(self.epochs_P - 1, 0)

    @property
    def lacks(self) -> str | None:
        """Why nothing can be fitted; None where something can."""
        sizes, points = len(np.unique(self.images_P)), len(self.losses_P)
        if sizes < FEWEST_SIZES or points <= FEWEST_POINTS:
            return f"not enough points ({points} of {sizes} numbers of images)"
        return None


def effective_data(images: ArrayLike, epochs: ArrayLike, r_star: float) -> np.ndarray:
    """Images that count, D' = U + U R* (1 - exp(-R / R*)) (arXiv 2305.16264, equation 5).

    Below one epoch every image is new. Numbers or arrays that broadcast.
    """
    unique, seen = np.asarray(images, float), np.asarray(epochs, float)
    repeats = np.maximum(seen - 1, 0)
    data: np.ndarray = unique * (np.minimum(seen, 1) - r_star * np.expm1(-repeats / r_star))
    return data


# ---------------------------------------------------------------- the two forms


@dataclass(frozen=True)
class Fit:
    """A fitted form: its parameters by name, root mean square of log residuals, points used.

    bounded: parameters that lie at a bound.
    """

    form: str
    values: Mapping[str, float]
    rms: float
    points: int
    cost: float
    theta: tuple[float, ...]
    bounded: tuple[str, ...]

    def losses(self, images: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Losses that the form says, nats a token."""
        theta, points = np.array(self.theta), Points(images, epochs, np.ones_like(epochs))
        return np.exp(FORMS[self.form].log_losses(theta, points)[0])


@dataclass(frozen=True)
class Form:
    """A form of the loss: names of its parameters, bounds of those after E, B and b, starts, log
    losses with slopes."""

    names: tuple[str, ...]
    further: tuple[tuple[float, float], ...]
    starts: Callable[[Points], list[list[float]]]
    log_losses: Callable[[np.ndarray, Points], tuple[np.ndarray, np.ndarray]]
    logs: tuple[bool, ...]  # which are fitted as their logarithm

    def bounds(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest centred parameters."""
        least, most = math.log(points.losses_P.min()), math.log(points.losses_P.max())
        low, high = np.array([(LOG_E, least), (LOG_E, most + 1), B_RANGE, *self.further]).T
        return low, high


def _power_starts(points: Points) -> list[tuple[float, float, float]]:
    """Irreducible loss, log of B, exponent: nine starts through the highest loss."""
    least, most = points.losses_P.min(), points.losses_P.max()
    first = float(np.log(effective_data(points.images_P, points.epochs_P, 20.0).min()))
    starts = []
    for share, b in itertools.product((0.2, 0.6, 0.9), (0.1, 0.5, 1.5)):
        E = share * least
        starts.append((math.log(E), math.log(most - E) + b * first, b))
    return starts


def _shares(slopes: Sequence[float | np.ndarray], loss_P: np.ndarray) -> np.ndarray:
    """Slopes of the log of a loss, a column each, from those of the loss."""
    shares_PN = np.empty((len(loss_P), len(slopes)))
    for n, slope_P in enumerate(slopes):
        shares_PN[:, n] = slope_P
    shares_PN /= loss_P[:, None]
    return shares_PN


def _effective(theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """log of E + B / D'^b, and its slopes by (log E, log B, b, log R*)."""
    log_E, log_B, b, log_R = theta
    R, U = math.exp(log_R), points.images_P
    data_P = effective_data(U, points.epochs_P, R)
    log_data_P = np.log(data_P)
    power_P = np.exp(log_B - b * log_data_P)
    loss_P = math.exp(log_E) + power_P
    x_P = points.repeats_P / R
    # d D' / d log R* = U R* (1 - (1 + x) exp(-x)) with x = R / R*
    slope_P = U * R * (-np.expm1(-x_P) - x_P * np.exp(-x_P)) / data_P
    slopes = math.exp(log_E), power_P, -power_P * log_data_P, -b * power_P * slope_P
    return np.log(loss_P), _shares(slopes, loss_P)


def _additive(theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """log of E + B / (U (1 + R))^b + P R^g / U^h, and its slopes by (log E, log B, b, log P, g,
    h)."""
    log_E, log_B, b, log_P, g, h = theta
    log_data_P = np.log(points.images_P * points.epochs_P)
    log_U, repeats_P = np.log(points.images_P), points.repeats_P
    log_R = np.log(np.maximum(repeats_P, 1e-12))
    power_P = np.exp(log_B - b * log_data_P)
    over_P = np.where(repeats_P > 0, np.exp(np.minimum(log_P + g * log_R - h * log_U, 50)), 0.0)
    loss_P = math.exp(log_E) + power_P + over_P
    slopes = (
        math.exp(log_E), power_P, -power_P * log_data_P,
        over_P, over_P * log_R, -over_P * log_U,
    )  # fmt: skip
    return np.log(loss_P), _shares(slopes, loss_P)


FORMS = {
    "effective": Form(
        ("E", "B", "b", "R*"),
        ((math.log(R_RANGE[0]), math.log(R_RANGE[1])),),
        lambda points: [
            [*start, math.log(R)]
            for start, R in itertools.product(_power_starts(points), (2.0, 20.0, 200.0))
        ],
        _effective,
        (True, True, False, True),
    ),
    "additive": Form(
        ("E", "B", "b", "P", "g", "h"),
        ((-40.0, 40.0), (0.1, 5.0), (0.0, 5.0)),
        lambda points: [
            [*start, math.log(1e-2), g, 0.3]
            for start, g in itertools.product(_power_starts(points), (0.5, 1.0, 2.0))
        ],
        _additive,
        (True, True, False, True, False, False),
    ),
}


def _typical(points: Points) -> float:
    """Log of a typical number of images seen. There E and B / D'^b are told apart, and B and b hang
    together least."""
    return float(np.log(points.images_P * points.epochs_P).mean())


def _centred(theta: np.ndarray, typical: float) -> np.ndarray:
    """Parameters with log of B / D'^b at a typical D' in place of log B; a negative one takes it
    back."""
    moved = theta.copy()
    moved[1] -= theta[2] * typical
    return moved


def _roots(residuals_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers whose half squares are the Huber costs of residuals (1964), and their slopes."""
    size_P = np.abs(residuals_P)
    far_P = np.sqrt(np.maximum(2 * HUBER * size_P - HUBER**2, HUBER**2))
    near_P = size_P <= HUBER
    roots_P = np.where(near_P, residuals_P, np.sign(residuals_P) * far_P)
    return roots_P, np.where(near_P, 1.0, HUBER / far_P)


def _solve(
    form: Form,
    points: Points,
    start: Sequence[float],
    fixed: Mapping[int, float] | None = None,
) -> tuple[np.ndarray, float]:
    """The least Huber cost from one start. fixed: parameters that are held, by place.

    MINPACK's Levenberg-Marquardt, on parameters that a sine keeps between their bounds.
    """
    fixed, typical = fixed or {}, _typical(points)
    free = [i for i in range(len(form.names)) if i not in fixed]
    low, high = (side[free] for side in form.bounds(points))
    half = (high - low) / 2
    centred = _centred(np.array([fixed.get(i, x) for i, x in enumerate(start)], float), typical)
    logs_P = np.log(points.losses_P)

    def whole(angles: np.ndarray) -> np.ndarray:
        centred[free] = low + half * (1 + np.sin(angles))
        return _centred(centred, -typical)

    def evaluate(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        losses_P, slopes_PN = form.log_losses(whole(angles), points)
        slopes_PN[:, 2] += typical * slopes_PN[:, 1]
        roots_P, weights_P = _roots(losses_P - logs_P)
        slopes_PN = slopes_PN[:, free] * half * np.cos(angles)
        return roots_P, weights_P[:, None] * slopes_PN

    # the solver asks for values and slopes of the same angles, one after the other
    latest = lru_cache(1)(lambda angles: evaluate(np.frombuffer(angles)))
    inside = np.clip((centred[free] - low) / half - 1, -1 + INSIDE, 1 - INSIDE)
    # least_squares asks the same of MINPACK, and takes a third more time for its checks
    angles, _, about, _, _ = leastsq(
        lambda angles: latest(angles.tobytes())[0],
        np.arcsin(inside),
        Dfun=lambda angles: latest(angles.tobytes())[1],
        full_output=True,
        maxfev=2000,
        ftol=TOLERANCE,
        xtol=TOLERANCE,
        gtol=1e-8,
    )
    roots_P = about["fvec"]
    cost = float(0.5 * roots_P @ roots_P)
    if not math.isfinite(cost):  # MINPACK itself ends as if all were well
        raise ValueError("a loss is no finite number above 0: no form can be fitted")
    return whole(angles), cost


def fit(form_name: str, curves: Sequence[Curve], start: Fit | None = None) -> Fit | None:
    """The form with the least Huber cost over 27 starts, or from an earlier fit alone; None where
    points are too few."""
    form, points = FORMS[form_name], Points.of(curves)
    if points.lacks:
        return None
    starts = form.starts(points) if start is None else [list(start.theta)]
    # costs that differ by rounding are one minimum: the first start that reaches it
    theta, cost = min(
        (_solve(form, points, one) for one in starts),
        key=lambda solved: round(solved[1], 15),
    )
    residuals_P = form.log_losses(theta, points)[0] - np.log(points.losses_P)
    values = [math.exp(value) if log else value for value, log in zip(theta, form.logs)]
    low, high = form.bounds(points)
    bounded = tuple(
        name
        for name, value, a, b in zip(form.names, _centred(theta, _typical(points)), low, high)
        if min(value - a, b - value) < 1e-3 * (b - a)
    )
    rms = float(np.sqrt(np.mean(residuals_P**2)))
    named = dict(zip(form.names, map(float, values)))
    return Fit(form_name, named, rms, len(points.losses_P), cost, tuple(map(float, theta)), bounded)


# ---------------------------------------------------------------- how sure R* is


@dataclass(frozen=True)
class Sure:
    """A fitted R* with its two 95 % intervals, over resampled curves and of the profile, and log R*
    of each training seed alone."""

    fit: Fit
    bootstrap: tuple[float, float]
    profile: tuple[float, float]
    draws_S: np.ndarray  # log R* of every resample; not a number where it had too few sizes
    seeds: Mapping[int, float]  # log R* by training seed, of those with points enough

    @property
    def identified(self) -> bool:
        """Whether neither interval touches a bound of R*."""
        return not any(touches(interval) for interval in (self.bootstrap, self.profile))


def touches(interval: tuple[float, float]) -> bool:
    """Whether an interval reaches a bound of R*, or is none."""
    low, high = interval
    return not (low > R_RANGE[0] * EDGE and high < R_RANGE[1] / EDGE)


def profile(curves: Sequence[Curve], best: Fit) -> tuple[float, float]:
    """The R* whose best fit is not worse than the best of all by more than 3.84 of its mean squared
    residual: a 95 % interval, too narrow where points of one curve hang together."""
    points, form = Points.of(curves), FORMS["effective"]
    allowed = best.cost * (1 + CHI_SQUARE / max(1, len(points.losses_P) - len(form.names))) + 1e-14
    low, high = np.log(R_RANGE)
    grid = np.unique(np.r_[np.linspace(low, high, PROFILE), best.theta[3]])
    costs, middle = np.full(len(grid), np.nan), int(np.searchsorted(grid, best.theta[3]))
    costs[middle] = best.cost
    for way in (range(middle + 1, len(grid)), range(middle - 1, -1, -1)):
        theta = np.array(best.theta)
        for i in way:
            theta, costs[i] = _solve(form, points, theta.tolist(), {3: float(grid[i])})
            if costs[i] > allowed:
                break
    ends = [_edge(grid, costs, middle, step, allowed) for step in (-1, 1)]
    return math.exp(ends[0]), math.exp(ends[1])


def _edge(grid: np.ndarray, costs: np.ndarray, middle: int, step: int, allowed: float) -> float:
    """Where a profile first passes what is allowed, on the line between two of its values."""
    i = middle
    while 0 <= i + step < len(grid):
        if costs[i + step] > allowed:
            share = (allowed - costs[i]) / (costs[i + step] - costs[i])
            return float(grid[i] + share * (grid[i + step] - grid[i]))
        i += step
    return float(grid[i])


def bootstrap(systems: Mapping[str, Sequence[Curve]], count: int) -> dict[str, np.ndarray]:
    """log R* of `count` resamples of curves by system, from the best fit of all curves; not a
    number where a resample has too few sizes.

    One resample draws (U, seed) for all systems: trainings of one seed share their tokenizer and
    images, so that differences of systems are paired. It takes the numbers of images of one seed as
    independent, which for the same reason they are not: `by_seed` is free of that.
    """
    rng = np.random.default_rng(SEED)
    keys = sorted({(c.images, c.seed) for curves in systems.values() for c in curves})
    drawn_SN = rng.integers(0, max(1, len(keys)), (count, len(keys)))
    logs = {}
    for name, curves in systems.items():
        by_key = {(curve.images, curve.seed): curve for curve in curves}
        best = fit("effective", curves)
        log_R_S = np.full(count, np.nan)
        for s, row_N in enumerate(drawn_SN if best is not None else ()):
            some = [by_key[keys[n]] for n in row_N if keys[n] in by_key]
            again = fit("effective", some, best)
            if again is not None:
                log_R_S[s] = again.theta[3]
        logs[name] = log_R_S
    return logs


def by_seed(curves: Sequence[Curve], best: Fit) -> dict[int, float]:
    """log R* of the curves of every training seed alone, from the best fit of all; without seeds
    that have too few points."""
    logs = {}
    for seed in sorted({curve.seed for curve in curves}):
        alone = fit("effective", [curve for curve in curves if curve.seed == seed], best)
        if alone is not None:
            logs[seed] = alone.theta[3]
    return logs


def interval(values_S: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of numbers, those that are none left out."""
    some = values_S[np.isfinite(values_S)]
    if not len(some):
        return -math.inf, math.inf
    low, high = np.quantile(some, (0.025, 0.975))
    return float(low), float(high)


def sure(curves: Sequence[Curve], draws_S: np.ndarray) -> Sure | None:
    """R* of a system with its intervals; None where points are too few."""
    best = fit("effective", curves)
    if best is None:
        return None
    low, high = interval(draws_S)
    between = math.exp(max(low, -50.0)), math.exp(min(high, 50.0))
    return Sure(best, between, profile(curves, best), draws_S, by_seed(curves, best))
