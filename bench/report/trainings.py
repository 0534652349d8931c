"""How soon trainings reach a loss, and what early stopping did. Imports no torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ..study.escaping import rst
from .view import View

ABOVE = (0.02, 0.05, 0.1, 0.2)  # nats a token over a loss that every training reaches


def crossing(steps: np.ndarray, losses: np.ndarray, target: float) -> float | None:
    """The step, a fraction, at which a loss first reaches a target, on the straight line between
    two evaluations; None where it never does, or had before the first."""
    below = np.flatnonzero(losses <= target)
    if not len(below) or below[0] == 0:
        return None
    i = below[0]
    # linear interpolation between evaluations i - 1 and i
    share = (losses[i - 1] - target) / (losses[i - 1] - losses[i])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))


def targets(curves: list[pd.DataFrame]) -> list[float]:
    """Losses that every training passes between two of its evaluations: the worst of their best
    losses, rounded up to 0.01, plus 0.02, 0.05, 0.1 and 0.2 nats a token. They follow from the
    curves alone, and none lies above the first evaluation of a training."""
    if not curves:
        return []
    worst = math.ceil(100 * max(curve["value"].min() for curve in curves) - 1e-9) / 100
    first = min(curve["value"].iloc[0] for curve in curves)
    losses = [round(worst + above, 2) for above in ABOVE]
    return [loss for loss in losses if loss < first]


def regresses(names: dict[str, Any]) -> bool:
    """Whether a variant predicts residuals in place of codes: its loss is of a density."""
    return bool(names["settings"].get("model", {}).get("head") == "gauss")


def predicted(names: dict[str, Any]) -> tuple[Any, ...]:
    """What decides which tokens a variant predicts: losses compare where it is the same."""
    return names["tokenizer"], tuple(names["patch_nums"]), regresses(names)


def of_other_tokens(view: View) -> list[str]:
    """Variants that predict other tokens than the first one: of another tokenizer or schedule, or
    residuals in place of codes. Their losses are of other targets."""
    first = predicted(next(iter(view.variants.values())))
    return [variant for variant, names in view.variants.items() if predicted(names) != first]


def other_tokens_words(view: View) -> str:
    """Whose losses do not compare with those of the first variant; empty where all do."""
    names, first = of_other_tokens(view), next(iter(view.variants))
    if not names:
        return ""
    apart = rst(", ".join(names))
    return f"Losses of other tokens than those of {rst(first)}, which do not compare: {apart}."


def of_same_tokens(view: View) -> View:
    """The others, whose losses compare."""
    apart = set(of_other_tokens(view))
    return view.only([variant for variant in view.variants if variant not in apart])


def steps_to_targets(view: View) -> dict[float, dict[str, pd.DataFrame]]:
    """Step and second at which every training reaches each target, interpolated between evaluations
    of the held-out one-pass loss: by target and variant a table with index train_seed and columns
    step, seconds. Of variants that predict the tokens of the first one."""
    curves = {}
    for variant in of_same_tokens(view).variants:
        for seed, part in view.snapshots(variant, "loss_test").groupby("train_seed"):
            curves[variant, int(seed)] = part.sort_values("step")
    return {target: _reached(curves, target) for target in targets(list(curves.values()))}


def _reached(curves: dict[tuple[str, int], pd.DataFrame], target: float) -> dict[str, pd.DataFrame]:
    """Step and second at which the trainings of each variant reach one target."""
    rows: dict[str, dict[int, tuple[float, float]]] = {}
    for (variant, seed), curve in curves.items():
        step = crossing(curve["step"].to_numpy(), curve["value"].to_numpy(), target)
        if step is not None:
            second = float(np.interp(step, curve["step"], curve["seconds"]))
            rows.setdefault(variant, {})[seed] = step, second
    columns = ["step", "seconds"]
    return {
        variant: pd.DataFrame.from_dict(of_seeds, orient="index", columns=columns)
        for variant, of_seeds in rows.items()
    }


def kept_words(view: View) -> str:
    """How many trainings keep the weights of their last step; where all do, early stopping decides
    nothing."""
    last = []
    # several samplers of one model are one training
    models = {}
    for name, names in view.variants.items():
        models[names["tokenizer"], names["model"]] = name
    for variant in models.values():
        told, kept = (view.of(variant, name) for name in ("kept_at_end", "kept_step"))
        steps = view.snapshots(variant, "loss_test").groupby("train_seed")["step"].max()
        # rows of older versions do not say it
        last += [bool(told[s]) if s in told else kept[s] == steps.get(s) for s in kept.index]
    if not last:
        return ""
    words = f"{sum(last)} of {len(last)} trainings keep the weights of their last step"
    return f"{words}: early stopping is inert here." if all(last) else f"{words}."
