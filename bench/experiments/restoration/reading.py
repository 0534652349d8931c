"""What figures, tables and rules of this room read of its rows, and how a caption tells it. Imports
no torch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...report.completion import count_words
from ...report.estimate import Estimate, estimate
from ...report.view import View
from ...report.words import held_out, seeds_details
from ...study.escaping import rst
from .plan import REGRESSIONS, TOLD, UNTRAINED, WITHOUT

NAMES = {
    "argmax": "likeliest code",
    "expected": "mean code",
    "draw": "drawn",
    "refined": "likeliest code, refined",
    "known": "degraded coarse tokens, rest drawn",
    "repair": "unlikely tokens redrawn",
    "input": "as it is",
    "round_trip": "through the tokenizer",
    "median": "median filter",
    "wiener": "Wiener filter",
    "ridge": "ridge regression",
    "mlp": "MLP",
    "unet": "U-Net",
    "ceiling": "ceiling: clean tokens",
    "latent": "ceiling: clean latent",
}

TIME_WORDS = (
    "Time on a CPU: what a call takes of the processor, over the number of threads, so that other "
    "programs do not lengthen it. With several threads, of which some idle at times, wall-clock "
    "time is longer. On a GPU: wall-clock time."
)


def asked(view: View) -> dict[str, Any]:
    """What the suite asks of the room, or of that without a scale transformer."""
    settings: dict[str, Any] = view.about.get("restoration") or view.about["restoration_baselines"]
    return settings


def kinds_of(view: View) -> list[str]:
    """Degradations that were measured."""
    return list(asked(view)["degradations"])


def condition_of(view: View, variant: str) -> str:
    """What a variant is told of the degraded image."""
    return str(view.variants[variant]["settings"]["model"].get("condition", "none"))


def ways_of(view: View, variant: str) -> list[str]:
    """The ways that a variant has a number of."""
    ways = TOLD if condition_of(view, variant) != "none" else UNTRAINED
    return [way for way in ways if view.estimate(variant, f"psnr_{way}") is not None]


def of_seeds(view: View, variant: str, metric: str) -> pd.Series:
    """A metric of a variant, or of its tokenizer, by training seed."""
    values = view.of(variant, metric)
    return values if len(values) else view.grid_seeds(view.variants[variant], metric)


def mean_of(view: View, variant: str, metric: str) -> Estimate | None:
    """Mean and interval of such a metric."""
    return estimate(of_seeds(view, variant, metric))


def ways_without(view: View) -> list[str]:
    """Ways without a scale transformer that were measured."""
    first = next(iter(view.variants))
    return [way for way in WITHOUT if mean_of(view, first, f"psnr_{way}") is not None]


def line_words(view: View) -> str:
    """What lines stand for, those that are drawn; empty where nothing without a scale transformer
    was measured."""
    ways = ways_without(view)
    if "input" not in ways:
        return ""
    pixels = {
        ("ridge", "mlp"): ", a linear and a nonlinear regression on pixels",
        ("ridge",): ", a linear regression on pixels",
        ("mlp",): ", a nonlinear regression on pixels",
    }
    words = "Lines take no scale transformer: the input as it is"
    words += pixels.get(tuple(way for way in ("ridge", "mlp") if way in ways), "")
    words += ", a U-Net. " if "unet" in ways else ". "
    ceiling = "Dashed: the clean image's own tokens, decoded; a mean code can pass it. "
    return words + (ceiling if "ceiling" in ways else "")


def strip_run(view: View) -> tuple[str, int, str] | None:
    """Variant, training seed and run_id of the first restorations of a model that is told."""
    for variant, names in view.variants.items():
        if condition_of(view, variant) == "none":
            continue
        for seed in view.about["train_seeds"]:
            jobs = view.results.jobs_of(names, seed)
            for run_id in jobs.loc[jobs["stage"] == "restoration", "run_id"]:
                if run_id in view.runs and any(
                    key.startswith(f"{run_id}/") for key in view.results.images
                ):
                    return variant, seed, run_id
    return None


def baseline_run(view: View, variant: str, seed: int) -> str | None:
    """run_id of the restorations without a scale transformer behind a variant's tokenizer."""
    names, rows = view.variants[variant], view.of_grid
    measured = rows(names, "psnr_input").dropna(subset=["value"])
    mine = measured[measured["train_seed"].isna() | (measured["train_seed"] == seed)]
    runs = [run for run in mine["run_id"] if f"{run}/clean" in view.results.images]
    return runs[0] if runs else None


def run_details(view: View, interval: bool = True) -> tuple[str, ...]:
    """Details of a caption: which images, which degradations, how a model is asked. interval:
    whether means have theirs."""
    told = asked(view)
    refiner = told.get("refiner")
    return (
        f"N = {count_words(view, 'restoration')} images of {held_out(view.results)}. Each has one "
        f"instance of each degradation ({', '.join(kinds_of(view))}), of strength "
        f"{told['strength']:g}.{learnt_words(view)}",
        "A model is told the degraded image and no class, and decodes on its own: no coarser token "
        "is given."
        if any(condition_of(view, variant) != "none" for variant in view.variants)
        else "",
        "PSNR of 8-bit images, mean over images.",
        "Refiner: trained behind each model on its likeliest codes of training images, "
        f"{refiner['steps']} steps."
        if refiner
        else "",
        regression_words(view),
        *seeds_details(view, interval),
    )


def learnt_words(view: View) -> str:
    """What models that are told learnt to restore, where it is something else than is asked of
    them; empty where none is told."""
    learnt: dict[str, list[str]] = {}
    asked_for = _kinds_words(asked(view))
    for variant in view.variants:
        if condition_of(view, variant) != "none":
            settings = view.variants[variant]["settings"].get("restore")  # none in older rows
            words = _kinds_words(settings) if settings else asked_for
            learnt.setdefault(words, []).append(rst(variant))
    if not learnt:
        return ""
    if set(learnt) == {asked_for}:
        return " One model learns all of them."
    said = [f"{', '.join(names)}: {words}" for words, names in learnt.items()]
    return f" What one model learnt to restore is not the same: {'; '.join(said)}."


def _kinds_words(told: dict[str, Any]) -> str:
    """Degradations in the order of their names, and their strength."""
    return f"{', '.join(sorted(told['degradations']))} of strength {told['strength']:g}"


def serves_all(values: pd.Series) -> bool:
    """Whether numbers are those of one tokenizer, and of what was fitted with it, for all training
    seeds."""
    return list(values.index) == [-1]


def regression_words(view: View) -> str:
    """Whether each training seed has regressions of its own; empty where there are none."""
    first = next(iter(view.variants))
    fits = [of_seeds(view, first, f"psnr_{way}") for way in REGRESSIONS]
    fits = [values for values in fits if len(values)]
    if not fits:
        return ""
    if any(map(serves_all, fits)):
        return (
            "Regressions are fitted once, with the one tokenizer of all training seeds: their own "
            "noise is in no interval."
        )
    return "Regressions are fitted anew for each training seed."


def noise_words(other: str, values: tuple[pd.Series, pd.Series]) -> str:
    """That a regression which serves all training seeds has no share in an interval over them."""
    regresses = any(f"_{way}" in other for way in REGRESSIONS)
    if not regresses or not serves_all(values[1]) or serves_all(values[0]):
        return ""
    return " (one fit of it for all seeds, whose own noise is not in the interval)"
