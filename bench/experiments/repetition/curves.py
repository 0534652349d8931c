"""What the figures, tables and rules of repetition read: curves of every system from metrics.csv.

Imports no torch. A system is an entry of the suite, with what its grid varies beside the number of
unique images: one method, trained on several numbers of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ...report.estimate import show
from ...report.view import View
from ...study.entries import grid_words
from ...study.escaping import rst
from .fit import Curve, Fit, Sure, bootstrap, fit, sure
from .plan import SIZES, Settings

READINGS = {"to the minimum": True, "with the tail": False}


def settings(view: View) -> Settings:
    """What the room was told in the suite."""
    return Settings(**(view.about.get("repetition") or {}))


def images_of(view: View, variant: str) -> int | None:
    """Unique images of a variant's training; None where it names none."""
    training = view.variants[variant]["settings"].get("training") or {}
    count = training.get("unique_images")
    return None if count is None else int(count)


def systems(view: View) -> dict[str, dict[int, str]]:
    """Variants of each system by their unique images; those that are there to tell the error of a
    constant rate are left out."""
    variants_of: dict[str, dict[int, str]] = {}
    falling = schedule_errors(view)
    for variant, names in view.variants.items():
        images = images_of(view, variant)
        if images is None or variant in falling:
            continue
        others = grid_words({key: names["grid"][key] for key in names["grid"] if key != SIZES})
        variants_of.setdefault(", ".join((names["group"], *others)), {})[images] = variant
    return {name: dict(sorted(of.items())) for name, of in variants_of.items()}


def _along(view: View, variant: str) -> pd.DataFrame:
    """Evaluations of a variant by training seed and step: epochs, one-pass loss, bound if any."""
    columns = {"epochs": "epochs", "one_pass": "loss_test", "bound": "loss_test_any_order"}
    series = {
        name: view.snapshots(variant, metric).set_index(["train_seed", "step"])["value"]
        for name, metric in columns.items()
    }
    return pd.DataFrame(series).dropna(subset=["epochs", "one_pass"]).sort_index()


def _curves_of(view: View, variant: str, images: int) -> list[Curve]:
    best = view.of(variant, "epochs_to_best")
    warmup = int(view.variants[variant]["settings"]["training"].get("warmup", 0))
    curves = []
    for seed, rows in _along(view, variant).groupby(level="train_seed"):
        if int(seed) not in best:
            continue  # a training that did not end well
        losses = rows[["one_pass", "bound"]].min(axis=1)  # of a model without masks one is empty
        steps = rows.index.get_level_values("step").to_numpy(float)
        points = (steps, rows["epochs"].to_numpy(float), losses.to_numpy(float))
        curves.append(Curve(images, int(seed), *points, float(best[int(seed)]), warmup))
    return curves


def curves(view: View) -> dict[str, list[Curve]]:
    """Curves of two or more evaluations of every system, by unique images and seed; the loss is the
    smaller of one pass and any-order bound."""
    return view.results.once(
        ("repetition curves", view.suite, tuple(view.variants)), lambda: _curves(view)
    )


def _curves(view: View) -> dict[str, list[Curve]]:
    of_system: dict[str, list[Curve]] = {}
    for name, of in systems(view).items():
        several = of_system.setdefault(name, [])
        for images, variant in of.items():
            every = _curves_of(view, variant, images)
            several += [curve for curve in every if len(curve.losses_P) > 1]
    return of_system


def lone_words(view: View) -> str:
    """Which trainings have one evaluation alone and are left out; empty where none is."""
    lone = [
        f"{variant} seed {curve.seed}"
        for of in systems(view).values()
        for images, variant in of.items()
        for curve in _curves_of(view, variant, images)
        if len(curve.losses_P) < 2
    ]
    return f"Left out, with one evaluation alone: {rst(', '.join(lone))}." if lone else ""


def warm_words(view: View) -> str:
    """Which trainings no fit reads, or that to the minimum alone does not; empty where none is."""
    words = []
    for curve, variant in _named(view):
        where = f"{variant} seed {curve.seed}"
        if not len(curve.after_warmup().losses_P):
            words.append(f"{where} (every evaluation)")
        elif not len(curve.after_warmup().until_best().losses_P):
            words.append(f"{where} (its best loss; the fit with the tail has the rest)")
    return f"In no fit, as the learning rate still rose: {rst(', '.join(words))}." if words else ""


def _named(view: View) -> Iterator[tuple[Curve, str]]:
    """Every curve that is drawn, with its variant."""
    for name, of in systems(view).items():
        for curve in curves(view)[name]:
            yield curve, of[curve.images]


def by_images(of_system: Iterable[Curve]) -> dict[int, list[Curve]]:
    """Curves of a system by their unique images."""
    by_size: dict[int, list[Curve]] = {}
    for curve in of_system:
        by_size.setdefault(curve.images, []).append(curve)
    return by_size


def fitted(view: View) -> dict[str, list[Curve]]:
    """What forms are fitted to: curves after the warm-up."""
    return {name: [*map(Curve.after_warmup, of)] for name, of in curves(view).items()}


def read(view: View, reading: str) -> dict[str, list[Curve]]:
    """Curves as a reading of the fit takes them."""
    if not READINGS[reading]:
        return fitted(view)
    return {name: [*map(Curve.until_best, of)] for name, of in fitted(view).items()}


def fits(view: View, reading: str) -> dict[str, Sure | None]:
    """R* of every system with its intervals, by one reading; None where points are too few."""

    def make() -> dict[str, Sure | None]:
        of = read(view, reading)
        drawn = bootstrap(of, settings(view).bootstrap)
        return {name: sure(some, drawn[name]) for name, some in of.items()}

    return view.results.once(("repetition fits", view.suite, reading, tuple(view.variants)), make)


def additive(view: View) -> dict[str, Fit | None]:
    """The form in which overfitting adds to the loss, of all points of every system."""
    return view.results.once(
        ("repetition additive", view.suite, tuple(view.variants)),
        lambda: {name: fit("additive", of) for name, of in fitted(view).items()},
    )


def compute(view: View, variant: str, steps: np.ndarray) -> np.ndarray:
    """Floating-point operations of a training until some steps."""
    of_image = view.of(variant, "train_flops_image")
    batch = view.variants[variant]["settings"]["training"]["batch_size"]
    return steps * batch * float(of_image.iloc[0])


# ---------------------------------------------------------------- the error of a constant rate

OF_A_SCHEDULE = ("final_lr", "steps", "patience", "eval_every", "snapshot_every", "warmup")


def _rest(view: View, variant: str) -> tuple[Any, ...]:
    """A variant's settings but for the schedule of its rate."""
    names = view.variants[variant]
    training = {key: value for key, value in names["settings"]["training"].items()
                if key not in OF_A_SCHEDULE}  # fmt: skip
    return names["tokenizer"], names["settings"]["model"], training


def schedule_errors(view: View) -> dict[str, list[float]]:
    """Of every training whose rate falls, by variant: the size of log loss at its end minus that
    of the constant rate after as many steps, seed by seed."""
    return view.results.once(
        ("repetition schedules", view.suite, tuple(view.variants)), lambda: _schedule_errors(view)
    )


def _is_constant(names: dict[str, Any]) -> bool:
    """Whether the rate of a variant's training stays at its peak."""
    return bool(names["settings"]["training"].get("final_lr") == 1.0)


def _schedule_errors(view: View) -> dict[str, list[float]]:
    return {name: _ends_apart(view, name, other) for name, other in _constant_twins(view).items()}


def _constant_twins(view: View) -> dict[str, str]:
    """Every training whose rate falls, and the one of a constant rate that is else the same."""
    twins: dict[str, str] = {}
    for variant, names in view.variants.items():
        if images_of(view, variant) is None or _is_constant(names):
            continue
        for other, about in view.variants.items():
            if _is_constant(about) and _rest(view, other) == _rest(view, variant):
                twins[variant] = other
    return twins


def _by_seed(view: View, variant: str) -> dict[int, Curve]:
    """Curves of a variant by training seed."""
    some = _curves_of(view, variant, images_of(view, variant) or 0)
    return {curve.seed: curve for curve in some}


def _ends_apart(view: View, variant: str, other: str) -> list[float]:
    falling, constant = _by_seed(view, variant), _by_seed(view, other)
    apart = []
    for seed in sorted(set(falling) & set(constant)):
        end = falling[seed]
        at = np.flatnonzero(constant[seed].steps_P == end.steps_P[-1])
        if len(at):
            apart.append(abs(float(np.log(end.losses_P[-1] / constant[seed].losses_P[at[0]]))))
    return apart


def _ends_in_tail(view: View, variant: str, other: str) -> bool:
    """Whether every training of a falling rate is longer than its constant twin's best epochs."""
    ends, constant = _by_seed(view, variant), _by_seed(view, other)
    both = set(ends) & set(constant)
    return bool(both) and all(ends[seed].epochs_P[-1] > constant[seed].best_epochs for seed in both)


def schedule_error_words(view: View) -> str:
    """How far an evaluation along a constant rate is from the end of a training of that length
    whose rate falls, and which of these ends lie in the overfitted tail."""
    errors = {name: max(sizes) for name, sizes in schedule_errors(view).items() if sizes}
    if not errors:
        return ""
    twins = _constant_twins(view)
    tail = [name for name in errors if _ends_in_tail(view, name, twins[name])]
    said = "; ".join(f"{rst(name)} {show(error)}" for name, error in errors.items())
    which = "all" if len(tail) == len(errors) else rst("; ".join(tail))
    beyond = f" Past the minimum of the constant rate, in the overfitted tail: {which}."
    return (
        "Error of the method: log of the held-out loss along the constant rate, minus that at the "
        "end of a training of as many steps whose rate falls. Largest size of the seeds, in log "
        f"units: {said}.{beyond if tail else ''}"
    )
