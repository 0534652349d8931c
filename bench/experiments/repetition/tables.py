"""The tables of repetition: best losses, fits, crossings. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ...report.absent import status_of
from ...report.caption import Caption
from ...report.cells import Cell, frame, number, shown, spread, unwell
from ...report.estimate import Estimate, estimate, show, show_estimate
from ...report.nearness import near_words
from ...report.view import View
from ...study.escaping import rst
from .crossing import Crossing, crossover, matched_epochs
from .curves import READINGS, additive, by_images, compute, curves, fits, settings, systems
from .fit import QUOTED_RMS, Curve, Fit, Sure
from .plan import FEWEST_SIZES
from .scaling import r_star_words

BOUND, GAP = "Any-order bound (nats/token)", "Generalisation gap (nats/token)"
NEAREST = "Nearest-image rate"

# ---------------------------------------------------------------- best losses


def _matched(view: View, name: str, images: int) -> Cell:
    """Until how many epochs repeats are as good as the next larger set at equal compute."""
    of = by_images(curves(view)[name])
    larger = [U for U in sorted(of) if U > images]
    if not larger or images not in of:
        return Cell("-")
    more = {curve.seed: curve for curve in of[larger[0]]}
    epochs_S = [matched_epochs(few, more[few.seed]) for few in of[images] if few.seed in more]
    inside = [epochs for epochs in epochs_S if epochs is not None and math.isfinite(epochs)]
    if len(inside) == len(epochs_S):
        return spread(estimate(inside))
    early, never = epochs_S.count(None), epochs_S.count(math.inf)
    words = f"above from the first evaluation in {early}" if early else ""
    words += f"{', ' * bool(early and never)}to the end in {never}" if never else ""
    return Cell(f"{words} of {len(epochs_S)} seeds")


def _gap(view: View, variant: str) -> Estimate | None:
    """Held-out loss minus training loss of the kept weights."""
    return estimate((view.of(variant, "best_loss") - view.of(variant, "best_loss_train")).dropna())


def _best_row(view: View, name: str, images: int, variant: str) -> dict[str, Any]:
    scored = view.score(variant, "fid")
    row = {
        "System": name,
        "Unique images": number(images),
        "Best loss (nats/token)": spread(view.estimate(variant, "best_loss")),
        "One pass (nats/token)": spread(view.estimate(variant, "kept_loss_test")),
        BOUND: spread(view.estimate(variant, "loss_test_any_order")),
        "Epochs to best": spread(view.estimate(variant, "epochs_to_best")),
        "Matched epochs": _matched(view, name, images),
        GAP: spread(_gap(view, variant)),
        "Error of the bound (nats/token)": number(_bound_error(view, variant)),
        "Loss after one epoch (nats/token)": spread(view.estimate(variant, "loss_one_epoch")),
        "Kept at the end": number(_mean(view, variant, "kept_at_end")),
    }
    if scored is not None:  # the suite measures scores too
        row[view.results.label("FID")] = spread(scored)
    row |= _copies(view, variant)
    others = {view.results.label("FID"): view.results.score_name("fid")} | _copy_metrics(view)
    return row | {"Status": status_of(view, variant, "epochs_to_best", others)}


def _copy_metrics(view: View) -> dict[str, str]:
    """Numbers of how near samples are to the images that were seen, by title."""
    return {
        NEAREST: "nearest_rate",
        f"{view.results.label('FID')}, images seen": f"fid_seen_{view.results.extractor}",
        "Held-out images, the same": f"fid_seen_of_held_out_{view.results.extractor}",
    }


def _copies(view: View, variant: str) -> dict[str, Cell]:
    """How near samples are to the images that were seen, where the suite measures it."""
    metrics = _copy_metrics(view)
    values = {title: view.estimate(variant, metric) for title, metric in metrics.items()}
    return {title: spread(value) for title, value in values.items() if value is not None}


def _mean(view: View, variant: str, metric: str) -> float | None:
    value = view.estimate(variant, metric)
    return value.mean if value else None


def _bound_error(view: View, variant: str) -> float | None:
    """Standard error of a bound by its draws of masks, mean over evaluations."""
    rows = view.snapshots(variant, "loss_test_any_order_error")
    return float(rows["value"].mean()) if len(rows) else None


def best(view: View, details: tuple[str, ...]) -> tuple[pd.DataFrame, Caption]:
    """A row for each system and number of unique images."""
    rows = [
        _best_row(view, name, images, variant)
        for name, of in systems(view).items()
        for images, variant in of.items()
    ]
    nothing = {"System": "-", "Unique images": "-", "Best loss (nats/token)": "-"}
    table = frame(rows or [nothing | {"Status": "no variant says training.unique_images"}])
    words = (
        "Best held-out loss by unique images: the smaller of one pass and any-order bound. Epochs "
        "to best: of the kept weights. Matched epochs: until then a loss is at most 1 % above that "
        "of the next larger set after as many steps. Mean and 95 % interval over training seeds."
    )
    fid = view.results.label("FID")
    last = "Status" if unwell(table) else fid if fid in table else "Matched epochs"
    # with copies measured, what the smaller loss is of stands in the csv
    parts = [NEAREST] if NEAREST in table else ["One pass (nats/token)", BOUND]
    columns = ["System", "Unique images", "Best loss (nats/token)", *parts, "Epochs to best", last]
    columns += [GAP] if NEAREST in table else []
    return shown(table, *columns), Caption(words, (*details, *_meanings(view, table)))


def _meanings(view: View, table: pd.DataFrame) -> Iterator[str]:
    """What columns mean that are not the losses of the first sentence."""
    yield (
        "Generalisation gap: best loss minus the mean training loss of the steps before it, which "
        "has class dropout and weights that are not averaged. Without masks both are the one-pass "
        "loss. With masks the training loss is a draw of the any-order bound and the best loss the "
        "smaller of bound and one pass. These are different quantities: compare the gaps of one "
        "system over unique images, not those of two systems."
    )
    if NEAREST in table:
        yield near_words(view)


# ---------------------------------------------------------------- fits


def _between(interval: tuple[float, float]) -> Cell:
    low, high = interval
    return Cell(f"[{show(low)}, {show(high)}]", low=low, high=high)


def _fit_row(name: str, reading: str, fitted: Sure | None) -> dict[str, Any]:
    row: dict[str, Any] = {"System": name, "Reading": reading}
    if fitted is None:
        return row | {"R*": Cell("not enough points")}
    value = fitted.fit.values["R*"]
    said = show(value) if fitted.identified else "not identified"
    row["R*"] = Cell(said, value=value)
    row["Over curves"] = _between(fitted.bootstrap)
    over_seeds = estimate(fitted.seeds.values())
    if over_seeds is not None and over_seeds.half is not None:
        row["Over seeds"] = _between((math.exp(over_seeds.low), math.exp(over_seeds.high)))
    row["Of the profile"] = _between(fitted.profile)
    return row | _numbers(fitted.fit)


def _numbers(fit: Fit) -> dict[str, Any]:
    rms = Cell(f"{fit.rms:.2%}", value=fit.rms)
    row = {"rms": rms, "Points": number(fit.points)}
    row |= {key: number(value) for key, value in fit.values.items() if key != "R*"}
    return row | {"At a bound": ", ".join(fit.bounded)}


def quoted(view: View, name: str) -> bool:
    """Whether both forms fit a system well enough for its R* to be quoted alone."""
    first, other = fits(view, "to the minimum")[name], additive(view)[name]
    parts = [first.fit if first else None, other]
    return all(part is not None and part.rms < QUOTED_RMS for part in parts)


def fit_words(view: View) -> tuple[str, ...]:
    """R* of every system in both readings: never one alone."""
    words = []
    for name in fits(view, "to the minimum"):
        by_reading = {reading: fits(view, reading)[name] for reading in READINGS}
        if any(one is not None for one in by_reading.values()):
            said = "; ".join(
                f"{reading} {r_star_words(one)}" for reading, one in by_reading.items()
            )
            words.append(f"R* of {rst(name)}: {said}.")
    return tuple(words)


def fitted(view: View, details: tuple[str, ...]) -> tuple[pd.DataFrame, Caption]:
    """A row for each system and reading, and one for the additive form."""
    rows = []
    for name, of in systems(view).items():
        if len(of) < 2:
            continue
        rows += [_fit_row(name, reading, fits(view, reading)[name]) for reading in READINGS]
        other = additive(view)[name]
        if other is not None:
            rows.append({"System": name, "Reading": "additive, all points", "R*": Cell("-"),
                         **_numbers(other)})  # fmt: skip
    table = frame(rows or [{"System": "-", "Reading": "-", "R*": "-"}])
    words = (
        "Fits of held-out loss, E + B / D'^b, up to the minimum of each curve and with the tail. "
        "Effective data: D' = U + U R* (1 - exp(-(epochs - 1) / R*)). Additive: overfitting adds "
        "P R^g / U^h. Intervals of R*: 95 %, over resampled trainings, over training seeds and of "
        "the profile."
    )
    well = [name for name, of in systems(view).items() if len(of) > 1 and quoted(view, name)]
    more = (
        "The form is monotone in the epochs: a tail that rises is fitted by a small R*. Read both "
        "readings, and epochs to best beside them.",
        "Evaluations while the learning rate rises are shown in figures and not fitted.",
        f"Both forms fit with rms below {QUOTED_RMS:.0%}: {rst(', '.join(well)) or 'no system'}.",
        f"Resampled trainings: {settings(view).bootstrap} times. "
        "Huber loss of log residuals, delta 0.001, least of 27 starts. Not identified: an interval "
        "touches a bound of R*, 0.05 or 8 000. Over seeds: the t-interval of log R* of each seed "
        "fitted alone. Resamples take trainings of one seed as independent, which share tokenizer "
        "and images; the profile takes points of one curve so and is too narrow.",
    )
    columns = ["System", "Reading", "R*", "Over curves", "Over seeds", "Of the profile", "rms"]
    return shown(table, *columns), Caption(words, (*details, *more))


# ---------------------------------------------------------------- crossings


def crossings(view: View, name: str, first: str, images: int) -> dict[int, Crossing | None]:
    """By training seed, from which compute a system stays below the first; None: it does not."""
    if name == first:
        return {}
    of = systems(view)
    sides = [by_images(curves(view)[one]).get(images, []) for one in (name, first)]
    theirs = {curve.seed: curve for curve in sides[1]}
    by_seed: dict[int, Crossing | None] = {}
    for curve in sides[0]:
        if curve.seed in theirs:
            other = theirs[curve.seed]
            by_seed[curve.seed] = crossover(
                *_against_compute(view, of[name][images], curve),
                *_against_compute(view, of[first][images], other),
            )
    return by_seed


def _against_compute(view: View, variant: str, curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    return compute(view, variant, curve.steps_P), curve.losses_P


def _crossing_row(view: View, name: str, first: str, images: int) -> dict[str, Any]:
    of = systems(view)
    by_seed = crossings(view, name, first, images)
    difference = view.difference(of[name][images], "best_loss", of[first][images])
    crossed = [one for one in by_seed.values() if one is not None]
    budget = _budget(view, name, first, images)
    none = f"none within {show(budget)}" if budget and by_seed else "-"
    return {
        "System": name,
        "Against": first,
        "Unique images": number(images),
        "Best loss, difference (nats/token)": spread(difference, difference=True),
        "Stays below from (FLOP)": _compute_cell(crossed) if crossed else Cell(none),
        "Seeds": Cell(
            f"{len(crossed)} of {len(by_seed)}" if by_seed else "-",
            crossed=len(crossed),
            all=len(by_seed),
        ),
        "Budget (FLOP)": Cell(show(budget), value=budget),
    }


def _compute_cell(crossed: list[Crossing]) -> Cell:
    """The geometric mean of some crossings; where one lies before the first evaluation the mean
    with that evaluation in its place, which is an upper limit and no value."""
    mean = _geometric_mean(crossed)
    if any(one.censored for one in crossed):
        return Cell(f"before {show(mean)}", value=None, before=mean)
    return Cell(show(mean), value=mean, before=None)


def middle_crossing(view: View, name: str, first: str, images: int) -> float | None:
    """The compute of the crossing as the table says it; None where half of the seeds or fewer
    cross, or one does before the first evaluation: a mean of the others would say when it was."""
    by_seed = crossings(view, name, first, images)
    crossed = [one for one in by_seed.values() if one is not None]
    if 2 * len(crossed) <= len(by_seed) or any(one.censored for one in crossed):
        return None
    return _geometric_mean(crossed)


def _geometric_mean(crossed: list[Crossing]) -> float:
    return math.exp(float(np.mean(np.log([one.compute for one in crossed]))))


def _budget(view: View, name: str, first: str, images: int) -> float | None:
    """The most compute that a training of the two has had."""
    of, most = systems(view), 0.0
    for one in (name, first):
        for curve in by_images(curves(view)[one]).get(images, []):
            most = max(most, float(compute(view, of[one][images], curve.steps_P[-1:])[0]))
    return most or None


def _slope(points: list[tuple[float, float]]) -> float:
    """Of the line of least squares through some points."""
    xs, ys = np.array(points).T
    return float(np.polyfit(xs, ys, 1)[0])


def law_words(view: View, name: str, first: str, sizes: list[int]) -> str:
    """log C = a + c log U of the seeds that cross at three numbers of images or more; a crossing
    before the first evaluation has no C."""
    by_seed: dict[int, list[tuple[float, float]]] = {}
    for images in sizes:
        for seed, one in crossings(view, name, first, images).items():
            if one is not None and not one.censored:
                by_seed.setdefault(seed, []).append((math.log(images), math.log(one.compute)))
    slopes = [_slope(points) for points in by_seed.values() if len(points) >= FEWEST_SIZES]
    if not slopes:
        return (
            f"{rst(name)}: crosses {rst(first)} at fewer than three numbers of images after "
            "the first evaluation, no law is fitted."
        )
    exponent = estimate(slopes)
    return (
        f"{rst(name)}: compute of the crossing grows as unique images to the power "
        f"{show_estimate(exponent)}, over seeds."
    )


def crossed(view: View, details: tuple[str, ...]) -> tuple[pd.DataFrame, Caption]:
    """A row for each further system and number of images that it shares with the first."""
    of = systems(view)
    first, *others = of or ["the first system"]
    rows, laws = [], []
    for name in others:
        both = sorted(set(of[name]) & set(of[first]))
        rows += [_crossing_row(view, name, first, images) for images in both]
        if len(both) >= FEWEST_SIZES:
            laws.append(law_words(view, name, first, both))
    table = frame(rows or [{"System": "-", "Against": first, "Unique images": "-"}])
    words = (
        f"Best loss minus that of {rst(first)}, paired by training seed, with its 95 % interval. "
        "Compute from which the best loss so far stays below to the end: geometric mean over the "
        "seeds that cross. A touch is no crossing."
    )
    before = (
        "Before N: in one seed or more the best loss is below from the first evaluation on. When "
        "it crossed is then not known, and no law takes N."
    )
    return table, Caption(words, (*details, before, *laws))
