"""Rows of the tables of this room. Imports no torch."""

from __future__ import annotations

from ...report.absent import grid_status, missing_words
from ...report.cells import Cell, number, spread
from ...report.estimate import Estimate
from ...report.view import View
from ...study.escaping import rst
from .reading import BASELINES, OF_TOKENS, asked, baseline, images_of, mean_of, two_errors


def _two_errors(view: View, variant: str) -> Cell:
    """Two binomial standard errors of one accuracy."""
    value, images = mean_of(view, variant, "accuracy"), images_of(view, variant)
    if value is None or not images:
        return number(None)
    return number(two_errors((value, 0.0), images), 2)


def variant_row(view: View, variant: str) -> dict[str, str]:
    """Numbers of a variant, those of the csv alone too."""
    row: dict[str, str] = {"Classifier": variant}
    row["Accuracy"] = spread(view.estimate(variant, "accuracy"))
    row["2 s.e. of the split"] = _two_errors(view, variant)
    row["Smoothed"] = spread(view.estimate(variant, "accuracy_smoothed"))
    row["Funnel"] = spread(view.estimate(variant, "accuracy_funnel"))
    row["Tokens"] = number(mean_of(view, variant, "exact_token_evals"))
    row["Tokens, funnel"] = number(mean_of(view, variant, "funnel_token_evals"))
    for title, way in (("GFLOP", "exact"), ("GFLOP, funnel", "funnel")):
        flops = mean_of(view, variant, f"{way}_flops")
        row[title] = number(flops and flops / 1e9)
    row["Posterior NLL (nats)"] = spread(view.estimate(variant, "posterior_nll"))
    row["ECE"] = spread(view.estimate(variant, "ece"))
    row["NLL (nats)"] = spread(view.estimate(variant, "nll"))
    row["Mean per scale"] = spread(view.estimate(variant, "accuracy_scale_mean"))
    row["No class"] = spread(view.estimate(variant, "accuracy_no_class"))
    for w in asked(view)["guidance"]:
        row[f"Guided, w = {w:g}"] = spread(view.estimate(variant, f"accuracy_guided_w{w:g}"))
    return row


def of_baseline(name: str, value: Estimate | None) -> Cell:
    """A cell of a classifier; one of pixels knows no training seed, and has no interval."""
    return spread(value) if name in OF_TOKENS else number(value and value.mean)


def baseline_rows(view: View) -> list[dict[str, str]]:
    """Classifiers without a generative model that were measured, and chance."""
    rows = [
        {"Classifier": f"({words})", "Accuracy": of_baseline(name, baseline(view, name))}
        for name, words in BASELINES.items()
        if baseline(view, name) is not None
    ]
    classes = asked(view)["classes"] or view.results.about["dataset"]["num_classes"]
    return [*rows, {"Classifier": "(chance)", "Accuracy": number(1 / max(1, classes))}]


def lost_words(view: View) -> str:
    """Which variants, and which classifiers behind a tokenizer of each training seed, lack seeds,
    and why; empty where none does."""
    names, lost = next(iter(view.variants.values())), dict[str, list[str]]()
    for name in OF_TOKENS:
        status = grid_status(view, names, f"accuracy_{name}")
        if baseline(view, name) is not None and status != "ok":
            lost.setdefault(status, []).append(BASELINES[name])
    said = [f"{', '.join(classifiers)}: {status}" for status, classifiers in lost.items()]
    return rst("; ".join(filter(None, [missing_words(view, "accuracy"), *said])))


def shift_name(shift: str) -> str:
    """What a shift is called at the head of a column."""
    return "as they are" if shift == "none" else shift.replace("_", " ")


def shift_row(view: View, variant: str, shifts: list[str]) -> dict[str, str]:
    """Accuracy of a variant under every shift; the csv also with smoothing."""
    row: dict[str, str] = {"Classifier": variant}
    for name in shifts:
        metric = "accuracy" if name == "none" else f"accuracy_shift_{name}"
        row[shift_name(name)] = spread(view.estimate(variant, metric))
        if asked(view)["sigma"]:
            smoothed = "accuracy_smoothed" if name == "none" else f"{metric}_smoothed"
            row[f"{shift_name(name)}, smoothed"] = spread(view.estimate(variant, smoothed))
    return row
