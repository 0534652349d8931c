"""Held-out losses of every model and the codes of every tokenizer, scale by scale."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...report.absent import missing_words, reach
from ...report.cells import Cell, frame, number, spread
from ...report.claims import claim
from ...report.drawing import DOUBLE, RED, SINGLE, apart, band, blank, look, note, side_ticks, text
from ...report.sheets import by_grid, by_variant, sheet
from ...report.view import View
from ...report.words import held_out, seeds_words, tokenizers_words
from ...study.escaping import rst


def one_a_model(view: View) -> dict[str, list[str]]:
    """The first variant of each trained model, and the others, which differ in their sampler alone."""
    found: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for variant, names in view.variants.items():
        found.setdefault(first.setdefault(names["model"], variant), []).append(variant)
    return {variant: members[1:] for variant, members in found.items()}


def _per_scale(axes: np.ndarray, view: View) -> None:
    """Loss and accuracy of every variant against the scale."""
    panels = {"loss_test_scale": "held-out loss (nats/token)", "token_accuracy_test_scale": "held-out token accuracy (share)"}
    for panel, (metric, title) in zip(axes[0], panels.items()):
        models = one_a_model(view)
        for i, variant in enumerate(models):
            rows, names = view.by_scale(variant, metric), view.variants[variant]
            if len(rows):
                sides = rows["scale"].astype(int).map(dict(enumerate(names["patch_nums"])))
                spread = apart(i, len(models), 0.05)
                band(panel, rows.assign(side=sides + spread), "side", variant, look(i))
        if not panel.lines:
            blank(panel, "no training has ended well")
        panel.set_ylabel(title)
        side_ticks(panel, view)


def figure_per_scale(view: View) -> tuple[Figure, str]:
    """Held-out cross-entropy and token accuracy at every scale, kept weights."""
    figure = sheet(by_variant(view), (DOUBLE, 2.6), (1, 2), _per_scale)
    note(figure, missing_words(view, "kept_step"))
    same = [f"{rst(one)} stands for {rst(', '.join(others))}" for one, others in one_a_model(view).items() if others]
    shared = f"One curve a trained model: {'; '.join(same)}. " if same else ""
    caption = (
        f"{claim(view)} Teacher-forced cross-entropy and top-1 accuracy of the tokens of {held_out(view.results)}, scale by "
        "scale, at the step with the best validation loss; symbols of one scale stand side by side. Lines: mean, bands: "
        f"interval. {shared}{seeds_words(view)} {reach(view)} Losses of different schedules are losses of different "
        "tokens."
    )
    return figure, " ".join(caption.split())


def _code_usage(axes: np.ndarray, view: View) -> None:
    """Perplexity of the codes of every schedule against the scale."""
    panel, quarters = axes[0, 0], {}
    for i, (grid, names) in enumerate(view.grids().items()):
        metrics = ("code_perplexity", "codes_usable", "scale_collapsed")
        parts = {metric: view.grid_scales(names, metric) for metric in metrics}
        sides = [(k, side) for k, side in enumerate(names["patch_nums"]) if pd.notna(parts["code_perplexity"].get(float(k)))]
        if not sides:
            continue
        values = [parts["code_perplexity"][k] for k, _ in sides]
        panel.plot([side for _, side in sides], values, label=text(grid), alpha=0.9, **look(i))
        usable = parts["codes_usable"]
        quarters |= {side: usable[k] / 4 for k, side in sides if k in usable}
        for (k, side), value in zip(sides, values):
            if parts["scale_collapsed"].get(float(k), 0) > 0:  # of any training seed
                panel.plot([side], [value], "o", markersize=9, markerfacecolor="none", color=RED)
                right = {
                    "textcoords": "offset points",
                    "va": "center",
                    "ha": "right" if side == names["patch_nums"][-1] else "left",
                }
                paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
                offset = (-8 if right["ha"] == "right" else 8, 0)
                panel.annotate("collapsed", (side, value), offset, color=RED, fontsize=7, bbox=paper, **right)
    if quarters:
        sides = sorted(quarters)
        line = [quarters[side] for side in sides]
        panel.plot(sides, line, color="0.35", linestyle=":", linewidth=1, label="quarter of usable codes")
        panel.set_ylim(0, 1.12 * max(np.max(line.get_ydata()) for line in panel.lines))
    elif not panel.lines:
        blank(panel, "no tokenizer was read")
    panel.set_ylabel("perplexity of the codes (codes)")
    side_ticks(panel, view)


def figure_code_usage(view: View) -> tuple[Figure, str]:
    """Perplexity of the codes at every scale on held-out pictures; a collapsed scale in red."""
    figure = sheet(by_grid(view), (SINGLE, 2.7), (1, 1), _code_usage, columns=2)
    grids = view.grids().items()
    lost = [
        grid
        for grid, names in grids
        if not len(view.results.of_grid(names, "code_perplexity")["value"].dropna())
    ]
    note(
        figure,
        "; ".join(f"{grid}: {view.results.why(view.grids()[grid], None)}" for grid in lost),
    )
    tokenizers = ", ".join(sorted({names["tokenizer"] for names in view.variants.values()}))
    caption = (
        f"{claim(view)} "
        f"Codes that tokenizer {tokenizers} uses at each scale on {held_out(view.results)}: exp of the entropy "
        "of their shares. Dotted: a quarter of the codes that the scale could use; a scale at or below it has collapsed and is "
        f"marked in red, also where it is one tokenizer's of several. {tokenizers_words(view)}"
    )
    return figure, caption


def _tokenizer_rows(view: View, grid: str, names: dict) -> list[dict[str, str]]:
    """A row for the whole schedule, then one for each scale."""
    errors = {split: view.grid_estimate(names, f"reconstruction_mse_{split}") for split in ("train", "test")}
    show_error = lambda found: spread(found) if found and found.count > 1 else number(found and found.mean)  # noqa: E731
    status = "ok" if errors["test"] is not None else view.results.why(names, None)
    head = {"Schedule": grid, "Scale": "all", "Grid": ""}
    whole = {"Error train (mse)": show_error(errors["train"]), "Error held-out (mse)": show_error(errors["test"])}
    rows: list[dict[str, str]] = [head | whole]
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
    blank = {key: "" for key in (*rows[0], *rows[-1])}
    return [{**blank, **row, "Status": status} for row in rows]


def _collapsed(share: float | None) -> str:
    """Whether a scale has collapsed, for some of several tokenizers perhaps."""
    return "-" if share is None else {1.0: "yes", 0.0: "no"}.get(float(share), f"{share:.0%} of the tokenizers")


def table_tokenizer(view: View) -> tuple[pd.DataFrame, str]:
    """Reconstruction error of each schedule, and the codes that each of its scales uses on held-out pictures."""
    rows = [row for grid, names in view.grids().items() for row in _tokenizer_rows(view, grid, names)]
    tokenizers = sorted({names["tokenizer"] for names in view.variants.values()})
    caption = (
        f"{claim(view)} Tokenizer {', '.join(tokenizers)} under each schedule of the suite. Error: mean square of "
        f"pictures in [-1, 1]. Codes: on {held_out(view.results)}; perplexity is exp of the entropy of the codes in use; a scale has "
        f"collapsed when that is a quarter or less of the codes that it could use. {tokenizers_words(view)}"
    )
    return frame(rows), caption
