"""Reconstructions of held-out images, and what they score in pixels, features and codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.absent import grid_status
from ...report.caption import Caption
from ...report.cells import Cell, frame, number, of_several, shown, unwell
from ...report.claims import Verdict, against_the_usual, claim_details, decided
from ...report.drawing import DOUBLE, blank, canvas, note, place, wrapped
from ...report.estimate import paired, show_difference
from ...report.results import Results
from ...report.view import View
from ...report.words import held_out, tokenizers_words
from ...study.escaping import rst

LETTERS = 16  # of a line beside a row
NAMES = 1.1  # inches for the names of the rows
SCALE_METRICS = {"Perplexity": "code_perplexity", "Codes used": "codes_used"}


def by_tokenizer(view: View) -> dict[str, dict[str, Any]]:
    """The first variant of each tokenizer and schedule, with its names."""
    first: dict[tuple[str, tuple[int, ...]], str] = {}
    for variant, names in view.variants.items():
        first.setdefault((names["tokenizer"], tuple(names["patch_nums"])), variant)
    return {variant: view.variants[variant] for variant in first.values()}


def _same(view: View) -> str:
    """Which variants have no row of their own; empty where all have one."""
    left = [variant for variant in view.variants if variant not in by_tokenizer(view)]
    return f"The tokenizer of {rst(', '.join(left))} is one of these." if left else ""


# ---------------------------------------------------------------- reconstructions


def strip_run(view: View, names: dict[str, Any]) -> str | None:
    """run_id of the reconstructions of the first training seed that has some."""
    for seed in view.about["train_seeds"]:
        jobs = view.results.jobs_of(names, seed)
        for run_id in jobs.loc[jobs["stage"] == "tokenizers", "run_id"]:
            if run_id in view.runs and f"{run_id}/reconstructed" in view.results.images:
                return run_id
    return None


def _rows(axes: Axes, view: View, runs: dict[str, str]) -> None:
    """Held-out images, and below them what each tokenizer makes of them."""
    images = view.results.images
    rows = {"real, held out": images[f"{next(iter(runs.values()))}/original"]}
    rows |= {variant: images[f"{run}/reconstructed"] for variant, run in runs.items()}
    columns = max(len(of_row) for of_row in rows.values())
    cells: dict[tuple[int, int], np.ndarray] = {}
    for row, of_row in enumerate(rows.values()):
        cells |= {(row, column): image for column, image in enumerate(of_row)}
    pitch = place(axes, cells, len(rows), columns)
    marks = [wrapped(name, LETTERS) for name in rows]
    axes.set_yticks([(row + 0.45) * pitch for row in range(len(marks))], marks)
    axes.tick_params(length=0, pad=3)


def figure_reconstructions(view: View) -> tuple[Figure, Caption]:
    """Held-out images beside what each tokenizer makes of them (VQGAN, arXiv 2012.09841)."""
    asked = {variant: strip_run(view, names) for variant, names in by_tokenizer(view).items()}
    runs = {variant: run for variant, run in asked.items() if run is not None}
    count = view.about["tokenizers"]["shown"] if "tokenizers" in view.about else 10
    height = 0.3 + (1 + len(runs)) * (DOUBLE - NAMES) / max(count, 4)
    figure, axes = canvas(DOUBLE, height, 1, 1)
    if runs:
        _rows(axes[0, 0], view, runs)
    else:
        blank(axes[0, 0], "no tokenizer has images")
    lost = [
        f"{variant}: {view.results.why(view.variants[variant], None)}"
        for variant, run in asked.items()
        if run is None
    ]
    note(figure, "; ".join(lost))
    classes = view.results.about["dataset"]["num_classes"] > 1
    caption = (
        f"Real held-out images, {'one of each class in turn, ' if classes else ''}not chosen, and "
        "their reconstructions: the best that a model of these tokens could draw."
    )
    details = (
        *claim_details(view),
        f"Images: of {held_out(view.results)}, enlarged without smoothing.",
        "The tokenizer of the first training seed that has images.",
        _same(view),
    )
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- numbers


def _codes(view: View, names: dict[str, Any]) -> dict[str, Cell]:
    """Perplexity of the worst scale and on average, then the codes of each scale."""
    of_metric = {title: view.grid_scales(names, metric) for title, metric in SCALE_METRICS.items()}
    perplexity_K = of_metric["Perplexity"]
    there = len(perplexity_K) > 0
    cells = {
        "Perplexity, mean": number(perplexity_K.mean() if there else None),
        "Perplexity, lowest": number(perplexity_K.min() if there else None),
    }
    for k, side in enumerate(names["patch_nums"]):
        for title, value_K in of_metric.items():
            cells[f"{title} {side}x{side}"] = number(value_K.get(float(k)))
    collapsed = view.grid_scales(names, "scale_collapsed")
    cells["Scales collapsed, any tokenizer"] = number(
        float((collapsed > 0).sum()) if there else None
    )
    return cells


def _row(view: View, variant: str, names: dict[str, Any]) -> dict[str, str]:
    """What one tokenizer scores."""
    results = view.results
    row: dict[str, str] = {"Variant": variant}
    extractors = results.extractor, *results.others
    scores = {f"rFID ({name})": f"reconstruction_fid_{name}" for name in extractors}
    for title, metric in scores.items():
        row[title] = of_several(view.grid_estimate(names, metric))
    quality = {"PSNR (dB)": "psnr", "Error (mse)": "mse"}
    for title, metric in quality.items():
        row[title] = of_several(view.grid_estimate(names, f"reconstruction_{metric}_test"))
    status = grid_status(view, names, "reconstruction_psnr_test", scores)
    return {**row, **_codes(view, names), "Status": status}


def _floors(view: View) -> str:
    """What real training images score in place of reconstructions."""
    names, said = next(iter(view.variants.values())), []
    for name in (view.results.extractor, *view.results.others):
        value = view.grid_value(names, f"floor_fid_{name}")
        said += [] if value is None else [f"{value:.3g} ({name})"]
    return f"Real training images in their place score {', '.join(said)}." if said else ""


def table_reconstruction(view: View) -> tuple[pd.DataFrame, Caption]:
    """Reconstruction of each tokenizer: FID in each extractor, PSNR, use of the codes by scale."""
    table = frame([_row(view, *item) for item in by_tokenizer(view).items()])
    words = (
        "Each tokenizer: FID of reconstructed training images against held-out ones (rFID), and "
        "PSNR of held-out images. Perplexity of the codes on them: of the scale that uses the "
        "fewest, and on average."
    )
    details = (
        *claim_details(view),
        _floors(view),
        f"PSNR: mean over {held_out(view.results)}.",
        "A tokenizer that was trained on the activations of an extractor is not judged "
        "independently by it.",
        tokenizers_words(view),
        _same(view),
    )
    fids = [name for name in table if name.startswith("rFID")]
    last = "Status" if unwell(table) else "Scales collapsed, any tokenizer"
    columns = ["Variant", *fids[:2], "PSNR (dB)", "Perplexity, lowest", "Perplexity, mean", last]
    return shown(table, *columns), Caption(words, details)


# ---------------------------------------------------------------- a rule


def _metric_name(results: Results, metric: str) -> str:
    """How rows call what a claim asks of reconstructions."""
    return (
        f"reconstruction_fid_{results.extractor}"
        if metric == "fid"
        else f"reconstruction_{metric}_test"
    )


def judge_reconstruction(view: View, claim: dict[str, Any]) -> Verdict:
    """By the 95 % t-interval of the paired difference of a tokenizer's reconstructions over
    training seeds (VQGAN, arXiv 2012.09841): of FID, of PSNR or of the mean square error."""
    variant, against = claim["variant"], claim["against"]
    metric = _metric_name(view.results, claim["metric"])
    first, second = (view.grid_seeds(view.variants[name], metric) for name in (against, variant))
    difference = paired(first, second)
    reason = (
        f"{metric} of {variant} minus that of {against}, paired by training seed: "
        f"{show_difference(difference)}{against_the_usual(claim)}"
    )
    return decided(difference, claim["better"] == "lower", reason)
