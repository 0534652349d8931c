"""What figures, tables and rules of this room read of its rows, and how a caption tells it. Imports
no torch."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from ...report.completion import at, count_words
from ...report.estimate import Estimate, estimate
from ...report.view import View, pools_past
from ...report.words import held_out, seeds_details

Point = tuple[float, Estimate]  # of a curve

# metric of a classifier without a generative model, and what it is called
BASELINES = {
    "naive_bayes": "naive Bayes on token counts",
    "nearest": "nearest neighbour in pixels",
    "logistic": "logistic regression on pixels",
    "network": "the study's classifier",
    "network_reconstructed": "the study's classifier on reconstructions",
}
OF_TOKENS = "naive_bayes", "network_reconstructed"  # those that a tokenizer stands behind


def asked(view: View) -> dict[str, Any]:
    """What the suite asks of the room. Raises ValueError for a suite that was told nothing."""
    settings: dict[str, Any] = view.about["classify"]
    return settings


def by_scale(view: View, variant: str, metric: str) -> dict[int, Estimate]:
    """Mean and interval over training seeds at every scale."""
    rows = view.select(variant, metric).dropna(subset=["scale", "value"])
    means = {int(k): estimate(part["value"]) for k, part in rows.groupby("scale")}
    return {k: mean for k, mean in means.items() if mean is not None}


def by_repeat(view: View, variant: str, metric: str) -> dict[int, Estimate]:
    """Mean and interval over training seeds at every number of copies, draws or tokens."""
    rows = view.select(variant, metric).dropna(subset=["repeat", "value"])
    means = {int(n): estimate(part["value"]) for n, part in rows.groupby("repeat")}
    return {n: mean for n, mean in means.items() if mean is not None}


def mean_of(view: View, variant: str, metric: str) -> float | None:
    """The mean over training seeds."""
    value = view.estimate(variant, metric)
    return value.mean if value else None


def seeds_of(view: View, variant: str, metric: str) -> pd.Series:
    """Values of a metric by training seed; `_scale2` at its end asks for that scale."""
    name, _, scale = metric.rpartition("_scale")
    if name and scale.isdigit():
        return at(view, variant, name, int(scale))
    return view.of(variant, metric)


def images_of(view: View, variant: str) -> int | None:
    """How many held-out images a variant was asked for."""
    counts = view.select(variant, "accuracy")["num_images"].dropna()
    return int(counts.min()) if len(counts) else None


def two_errors(shares: tuple[float, float], images: int) -> float:
    """Two binomial standard errors of the difference of two shares of so many images."""
    return 2 * math.sqrt(sum(p * (1 - p) for p in shares) / images)


def baseline(view: View, name: str, shift: str = "none") -> Estimate | None:
    """Accuracy of a classifier without a generative model, over the tokenizers of the suite."""
    metric = f"accuracy_{name}" + ("" if shift == "none" else f"_shift_{shift}")
    names = next(iter(view.variants.values()))
    return view.grid_estimate(names, metric)


def _token_counts(view: View, variant: str) -> tuple[list[int], int]:
    """Tokens of each scale, and classes that are asked for."""
    names = view.variants[variant]
    classes = asked(view)["classes"] or names["settings"]["model"].get("num_classes") or 0
    return [side * side for side in names["patch_nums"]], classes


def ways_of(view: View, variant: str) -> dict[str, list[Point]]:
    """Every way of asking a variant: tokens through the network, and accuracy."""
    lengths, Y = _token_counts(view, variant)
    prefix, alone = by_scale(view, variant, "accuracy"), by_scale(view, variant, "accuracy_only")
    names = view.variants[variant]
    markov = names["history"] == 0 and not pools_past(names)
    ways: dict[str, list[Point]] = {}
    ways["first scales"] = [(Y * sum(lengths[: k + 1]), mean) for k, mean in prefix.items()]
    ways["one scale"] = [
        (Y * (lengths[k] if markov else sum(lengths[: k + 1])), mean) for k, mean in alone.items()
    ]
    funnel, spent = view.estimate(variant, "accuracy_funnel"), None
    if funnel is not None:
        spent = mean_of(view, variant, "funnel_token_evals")
    ways["funnel"] = [(spent, funnel)] if funnel is not None and spent is not None else []
    for metric, name in (
        ("accuracy_bound", "masked bound, common noise"),
        ("accuracy_bound_independent", "masked bound, independent noise"),
    ):
        means = by_repeat(view, variant, metric)
        ways[name] = [(Y * sum(lengths) * draws, mean) for draws, mean in means.items()]
    return {name: points for name, points in ways.items() if points}


WAYS = (
    "first scales",
    "one scale",
    "funnel",
    "masked bound, common noise",
    "masked bound, independent noise",
)


def strip_run(view: View) -> tuple[str, int, str] | None:
    """Variant, training seed and run_id of the first training that has maps of evidence."""
    for variant, names in view.variants.items():
        for seed in view.about["train_seeds"]:
            jobs = view.results.jobs_of(names, seed)
            for run_id in jobs.loc[jobs["stage"] == "classify", "run_id"]:
                if run_id in view.runs and f"{run_id}/tmi" in view.results.images:
                    return variant, seed, run_id
    return None


def of_run(view: View, run_id: str, metric: str) -> float | None:
    """One number of one job."""
    rows = view.results.metrics
    values = rows.loc[(rows["run_id"] == run_id) & (rows["metric"] == metric), "value"].dropna()
    return float(values.iloc[0]) if len(values) else None


def run_details(view: View) -> tuple[str, ...]:
    """Details of a caption: which images, which scores, which noise, how many trainings."""
    return (
        f"N = {count_words(view, 'classify')} images of {held_out(view.results)}"
        f"{class_words(view)}.",
        "Score of a class: the sum over all tokens of log p(token | coarser scales, class), "
        "classes equally likely before. The class with the highest score is chosen, of equal ones "
        "the first. Samplers have no part in it.",
        smoothing_words(view),
        stage_words(view),
        *seeds_details(view),
    )


def class_words(view: View) -> str:
    """How many classes are told apart, where the study has more; else empty."""
    classes, all_of_them = asked(view)["classes"], view.results.about["dataset"]["num_classes"]
    if not classes or classes >= all_of_them:
        return ""
    return f", those of {classes} of its {all_of_them} classes, and no other class is asked for"


def averaged_words(view: View) -> str:
    """What is averaged over copies."""
    return "log-likelihoods" if asked(view)["average"] == "log" else "likelihoods"


def smoothing_words(view: View) -> str:
    """What is averaged over how many copies, and their noise; empty where none was smoothed."""
    told = asked(view)
    if not told["sigma"]:
        return ""
    averaged = "log p" if told["average"] == "log" else "p"
    return (
        f"Smoothing: {averaged} averaged over {told['chosen_samples']} copies, the image itself "
        f"among them. The others have noise of {told['chosen_sigma']:g} standard deviations of the "
        "latent before it is quantised; both numbers were fixed beforehand."
    )


def stage_words(view: View) -> str:
    """The stages of the funnel; empty where there is none."""
    stages = [
        f"the first {one['scales']} scales of all that are left, in {one['samples']} "
        f"cop{'y' if one['samples'] == 1 else 'ies'}, keep {one['keep']}"
        for one in asked(view)["stages"]
    ]
    return f"Funnel: {'; then '.join(stages)}." if stages else ""


def cost_words() -> str:
    """What a cost counts."""
    return (
        "Tokens: through the network, an image and all of its classes. FLOP: a multiply and an add "
        "count as two; papers that count multiply-adds print half of it."
    )
