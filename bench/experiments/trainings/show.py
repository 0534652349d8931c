"""Held-out losses of every model and the codes of every tokenizer, scale by scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...report.absent import grid_status, missing_words, reach
from ...report.caption import Caption
from ...report.cells import Cell, frame, number, of_several, shown, unwell
from ...report.claims import claim_details
from ...report.curves import GREY
from ...report.drawing import (
    DOUBLE,
    RED,
    SINGLE,
    apart,
    band,
    blank,
    look,
    look_of,
    note,
    scale_places,
    side_ticks,
    text,
)
from ...report.sheets import by_grid, by_variant, sheet
from ...report.trainings import of_other_tokens, regresses
from ...report.view import View
from ...report.words import held_out, seeds_details, tokenizers_words
from ...study.escaping import rst


def by_model(view: View) -> dict[str, list[str]]:
    """The first variant of each trained model, and the others, which differ in their sampler
    alone."""
    first: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for variant, names in view.variants.items():
        if names["model"] in first:
            others[first[names["model"]]].append(variant)
        else:
            first[names["model"]], others[variant] = variant, []
    return others


def other_tokens(view: View) -> list[str]:
    """Variants of other tokens than the first one's, but for those of another schedule alone,
    which has other scales: their losses are of other targets and no curve may stand beside it."""
    first = next(iter(view.variants.values()))

    def beside(names: dict[str, Any]) -> bool:
        unlike = names["patch_nums"] != first["patch_nums"]
        return unlike and regresses(names) == regresses(first)

    return [name for name in of_other_tokens(view) if not beside(view.variants[name])]


def _per_scale(axes: np.ndarray, view: View) -> None:
    """Loss and accuracy of every variant against the scale."""
    panels = {
        "loss_test_scale": "held-out loss (nats/token)",
        "token_accuracy_test_scale": "held-out token accuracy (share)",
    }
    apart_from_these = set(other_tokens(view))
    models = [variant for variant in by_model(view) if variant not in apart_from_these]
    for panel, (metric, title) in zip(axes[0], panels.items()):
        for i, variant in enumerate(models):
            rows, names = view.by_scale(variant, metric), view.variants[variant]
            if len(rows):
                places = scale_places(view, names["patch_nums"])
                side = rows["scale"].astype(int).map(places) + apart(i, len(models), 0.05)
                band(panel, rows.assign(side=side), "side", variant, look_of(view, variant))
        if not panel.lines:
            blank(panel, "no training has ended well")
        panel.set_ylabel(title)
        side_ticks(panel, view)


def _shared_curves(view: View) -> str:
    """Which variants have no curve of their own; empty where all have one."""
    same = []
    for variant, others in by_model(view).items():
        if others:
            same.append(f"{rst(variant)} stands for {rst(', '.join(others))}")
    return f"One curve a trained model: {'; '.join(same)}." if same else ""


def figure_per_scale(view: View) -> tuple[Figure, Caption]:
    """Held-out cross-entropy and token accuracy at every scale, kept weights."""
    figure = sheet(by_variant(view), (DOUBLE, 2.6), (1, 2), _per_scale, far=[0])
    note(figure, missing_words(view, "kept_step"))
    text = (
        "Teacher-forced cross-entropy and top-1 accuracy of held-out tokens, scale by scale. "
        "Lines: mean, bands: 95 % t-interval over training seeds; symbols of one scale stand side "
        "by side."
    )
    left_out = other_tokens(view)
    if left_out:
        text += " Variants of other tokens are left out: they have other targets."
    details = (
        *claim_details(view),
        f"Left out, as they predict other tokens: {rst(', '.join(left_out))}." if left_out else "",
        f"Tokens of {held_out(view.results)}, at the step with the best validation loss.",
        _shared_curves(view),
        *seeds_details(view),
        reach(view),
        "Losses of different schedules are losses of different tokens.",
    )
    return figure, Caption(text, details)


def _code_usage(axes: np.ndarray, view: View) -> None:
    """Perplexity of the codes of every schedule against the scale."""
    panel = axes[0, 0]
    quarters: dict[float, float] = {}
    collapsed_at: list[tuple[float, float]] = []
    for i, (grid, names) in enumerate(view.grids().items()):
        metrics = ("code_perplexity", "codes_usable", "scale_collapsed")
        perplexity, usable, collapsed = (view.grid_scales(names, metric) for metric in metrics)
        places = scale_places(view, names["patch_nums"])
        places = {k: x for k, x in places.items() if k in perplexity}
        if not places:
            continue
        values = [perplexity[k] for k in places]
        panel.plot(list(places.values()), values, label=text(grid), alpha=0.9, **look(i))
        quarters |= {x: usable[k] / 4 for k, x in places.items() if k in usable}
        for (k, x), value in zip(places.items(), values):
            if collapsed.get(float(k), 0) > 0:  # of any training seed
                collapsed_at.append((x, value))
    if quarters:
        read_at = sorted(quarters)
        line = [quarters[x] for x in read_at]
        label = "quarter of usable codes"
        panel.plot(read_at, line, color=GREY, linestyle=":", linewidth=1, label=label)
        panel.set_ylim(0, 1.12 * max(np.max(drawn.get_ydata()) for drawn in panel.lines))
    elif not panel.lines:
        blank(panel, "no tokenizer was read")
    if collapsed_at:
        style = {"markersize": 9, "markerfacecolor": "none", "color": RED, "linestyle": "none"}
        panel.plot(*zip(*collapsed_at), "o", label="collapsed: at most a quarter", **style)
    panel.set_ylabel("perplexity of the codes (codes)")
    side_ticks(panel, view)


def _tokenizers(view: View) -> str:
    """Names of the tokenizers of a suite."""
    return ", ".join(sorted({names["tokenizer"] for names in view.variants.values()}))


def figure_code_usage(view: View) -> tuple[Figure, Caption]:
    """Perplexity of the codes at every scale on held-out images; a ring round a collapsed scale."""
    figure = sheet(by_grid(view), (SINGLE, 2.7), (1, 1), _code_usage, columns=2)
    lost = []
    for grid, names in view.grids().items():
        status = grid_status(view, names, "code_perplexity", scale=0)
        if status != "ok":
            lost.append(f"{grid}: {status}")
    note(figure, "; ".join(lost))
    caption = (
        "Codes that the tokenizer uses at each scale: exp of the entropy of their shares, on "
        "held-out images, mean over tokenizers. Dotted: a quarter of the codes that the scale "
        "could use. Red ring: one tokenizer at least is at or below it, and its scale collapsed."
    )
    details = (
        *claim_details(view),
        f"Tokenizer {_tokenizers(view)} on {held_out(view.results)}.",
        tokenizers_words(view),
    )
    return figure, Caption(caption, details)


def _tokenizer_rows(view: View, grid: str, names: dict) -> list[dict[str, str]]:
    """A row for the whole schedule, then one for each scale."""
    train, test = (
        view.grid_estimate(names, f"reconstruction_mse_{split}") for split in ("train", "test")
    )
    status = grid_status(view, names, "reconstruction_mse_test")
    whole = {
        "Schedule": grid,
        "Scale": "all",
        "Grid": "all scales",
        "Error train (mse)": of_several(train),
        "Error held-out (mse)": of_several(test),
    }
    rows: list[dict[str, str]] = [whole]
    metrics = ("codes_used", "code_perplexity", "codes_usable", "scale_collapsed")
    parts = {metric: view.grid_scales(names, metric) for metric in metrics}
    for k, side in enumerate(names["patch_nums"]):
        value = {metric: part.get(float(k)) for metric, part in parts.items()}
        rows.append({
            "Schedule": grid,
            "Scale": Cell(str(k), value=k),
            "Grid": f"{side}x{side}",
            "Codes used": number(value["codes_used"]),
            "Perplexity": number(value["code_perplexity"]),
            "Codes usable": number(value["codes_usable"]),
            "Collapsed": _collapsed(value["scale_collapsed"]),
        })  # fmt: skip
    columns = {key: "" for key in (*rows[0], *rows[-1])}
    return [{**columns, **row, "Status": status} for row in rows]


def _collapsed(share: float | None) -> str:
    """Whether a scale has collapsed, for some of several tokenizers perhaps."""
    if share is None:
        return "-"
    return {1.0: "yes", 0.0: "no"}.get(float(share), f"{share:.0%} of the tokenizers")


def table_tokenizer(view: View) -> tuple[pd.DataFrame, Caption]:
    """Reconstruction error of each schedule, and the codes that each of its scales uses on held-out
    images."""
    rows = []
    for grid, names in view.grids().items():
        rows += _tokenizer_rows(view, grid, names)
    table = frame(rows)
    text = (
        "Each schedule: mean square error of reconstructed held-out images in [-1, 1]; each scale: "
        "the codes that held-out images use. Perplexity: exp of the entropy of the codes in use; "
        "at a quarter of the usable codes or below, the scale has collapsed."
    )
    details = (
        *claim_details(view),
        f"Tokenizer {_tokenizers(view)} under each schedule of the suite.",
        f"Codes: on {held_out(view.results)}.",
        tokenizers_words(view),
    )
    last = "Status" if unwell(table) else "Codes usable"
    columns = [
        "Schedule",
        "Grid",
        "Error held-out (mse)",
        "Codes used",
        "Perplexity",
        last,
        "Collapsed",
    ]
    return shown(table, *columns), Caption(text, details)
