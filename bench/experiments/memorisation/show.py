"""FID against epochs, of held-out images and of those that a training saw; and how many are
copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.absent import missing_words
from ...report.caption import Caption
from ...report.claims import claim_details
from ...report.drawing import (
    DOUBLE,
    blank,
    canvas,
    draw_band,
    grid_shape,
    hide_rest,
    legend_below,
    look_of,
    note,
    plain_log,
)
from ...report.estimate import Estimate, estimate, show_estimate
from ...report.nearness import near_quantile, near_words
from ...report.view import View
from ...report.words import held_out, score_details
from ...study.escaping import rst

COLUMNS = 3  # panels side by side
SEEN = {"linestyle": "--", "markerfacecolor": "none"}
FRESH = {"color": "0.35", "linestyle": ":", "linewidth": 1, "marker": "", "zorder": 0}


def images_seen(view: View) -> dict[int, list[str]]:
    """Variants by the number of training images that they saw, those that were measured."""
    counts = {name: view.estimate(name, "seen_images") for name in view.variants}
    by_count: dict[int, list[str]] = {}
    for name, count in counts.items():
        if count is not None:
            by_count.setdefault(round(count.mean), []).append(name)
    return dict(sorted(by_count.items()))


def epochs_of(view: View, variant: str, images: int) -> float:
    """Epochs of one step."""
    return float(view.variants[variant]["settings"]["training"]["batch_size"] / images)


def _fid(view: View, against: str) -> str:
    """The metric of samples against `held_out` or `seen` images, in the study's first extractor."""
    return f"fid_{against}_{view.results.extractors[0]}"


def along(view: View, variant: str, metric: str, images: int) -> tuple[list[float], list[Estimate]]:
    """Epochs and means over seeds of a number along the training, at each step that is there;
    those of the kept weights where no others were measured."""
    rows: pd.DataFrame = view.snapshots(variant, metric)
    means = {float(step): estimate(part["value"]) for step, part in rows.groupby("step")}
    there = {step: mean for step, mean in means.items() if mean is not None}
    step, kept = (view.estimate(variant, name) for name in ("kept_step", metric))
    if not there and step is not None and kept is not None:
        there = {step.mean: kept}
    return [step * epochs_of(view, variant, images) for step in there], list(there.values())


def _draw_kept(
    panel: Axes, view: View, variant: str, images: int, metric: str, style: dict[str, Any]
) -> None:
    """A ring at the number of the kept weights."""
    step, kept = (view.estimate(variant, name) for name in ("kept_step", metric))
    if step is not None and kept is not None:
        epochs = step.mean * epochs_of(view, variant, images)
        ring = {"markersize": 8, "markerfacecolor": "none", "color": style["color"]}
        panel.plot(epochs, kept.mean, "o", **ring)


def _name_of(view: View, names: list[str], variant: str) -> str:
    """What a line of a panel is called and looks like: the variant's group, or itself where its
    group has several in the panel."""
    groups = [view.variants[name]["group"] for name in names]
    group: str = view.variants[variant]["group"]
    return group if groups.count(group) == 1 else variant


def _line_style(view: View, name: str) -> dict[str, Any]:
    """The solid line of a group or a variant."""
    return {**look_of(view, name), "linewidth": 1, "markersize": 3, "linestyle": "-"}


def _draw_panel(panel: Axes, view: View, images: int, names: list[str]) -> None:
    for variant in names:
        name = _name_of(view, names, variant)
        style = _line_style(view, name)
        for against, more in (("held_out", {}), ("seen", SEEN)):
            epochs, means = along(view, variant, _fid(view, against), images)
            words = "held out" if against == "held_out" else "images it saw"
            draw_band(panel, epochs, means, f"{name}, {words}", style | more)
        _draw_kept(panel, view, variant, images, _fid(view, "held_out"), style)
    values = [view.estimate(name, _fid(view, "seen_of_held_out")) for name in names]
    fresh = estimate([value.mean for value in values if value])
    if fresh is not None:
        panel.axhline(fresh.mean, label="held-out images against images seen", **FRESH)
    panel.set_title(f"{images:,} images")
    panel.set_xscale("log")
    panel.set_yscale("log")
    plain_log(panel.xaxis)
    plain_log(panel.yaxis)


def _draw_rates(panel: Axes, view: View, images: int, names: list[str]) -> None:
    """The share of samples that count as copies, along the training."""
    for variant in names:
        style = _line_style(view, _name_of(view, names, variant))
        epochs, means = along(view, variant, "nearest_rate", images)
        draw_band(panel, epochs, means, "", style)  # the panels above name it
        _draw_kept(panel, view, variant, images, "nearest_rate", style)
    if not any(len(line.get_xdata()) for line in panel.lines):
        blank(panel, "no rate was measured")
        return
    panel.axhline(near_quantile(view), **FRESH)
    panel.set_xscale("log")
    plain_log(panel.xaxis)
    panel.set_ylim(0, 1)
    panel.set_xlabel("epochs")


def _limit(row: np.ndarray) -> None:
    """Panels as high as their means: a band that reaches 0 has no end on a logarithmic axis."""
    drawn = [value for panel in row for line in panel.lines for value in line.get_ydata()]
    if drawn:
        row[0].set_ylim(min(drawn) / 1.3, max(drawn) * 1.3)


def _panels(view: View, sizes: dict[int, list[str]]) -> Figure:
    """Two panels for each number of images that were seen: FID above the rate of copies."""
    rows, columns = grid_shape(len(sizes), COLUMNS)
    figure, axes = canvas(DOUBLE, 0.6 + 3.6 * rows, 2 * rows, columns, sharey="row")
    fids, rates = axes[::2], axes[1::2]
    for panel, rate, (images, names) in zip(fids.flat, rates.flat, sizes.items()):
        _draw_panel(panel, view, images, names)
        _draw_rates(rate, view, images, names)
    for row in fids:
        _limit(row)
        row[0].set_ylabel(view.results.label("FID"))
    for row in rates:
        row[0].set_ylabel("nearest-image rate")
    hide_rest(fids, max(1, len(sizes)))
    hide_rest(rates, len(sizes))
    if not sizes:
        blank(fids[0, 0], "no training was measured")
    legend_below(figure, 4)
    return figure


def held_words(view: View) -> str:
    """That held-out images are those of the study, where its other scores are held against a
    file."""
    file = view.results.features[view.results.extractors[0]].get("reference")
    if not file:
        return ""
    return (
        f"Held-out images are those of {held_out(view.results)}: features.reference, which other "
        "scores are held against, has no share in these."
    )


def rate_words(view: View, sizes: dict[int, list[str]]) -> str:
    """The nearest-image rate of the kept weights of every variant."""
    rates = {
        name: view.estimate(name, "nearest_rate") for names in sizes.values() for name in names
    }
    said = [f"{rst(name)} {show_estimate(rate)}" for name, rate in rates.items() if rate]
    return f"Nearest-image rate of the kept weights: {'; '.join(said)}." if said else ""


def figure_memorisation(view: View) -> tuple[Figure, Caption]:
    """FID (arXiv 1706.08500) against epochs, held out and against the images that were seen."""
    sizes = images_seen(view)
    figure = _panels(view, sizes)
    note(figure, missing_words(view, _fid(view, "held_out")))
    words = (
        "Above: FID against epochs, of held-out images (solid) and of those that the training saw "
        "(dashed). Dotted: held-out images against those seen. Below: the share of samples that "
        "are as near to an image seen as few held-out ones (dotted) are. A share that rises is "
        "copying. Ring: kept weights. Lines: mean over seeds; bands: 95 % t-interval."
    )
    details = (
        *claim_details(view),
        "FID against few images is high by their number alone, and the dotted line by that of "
        "held-out images. Compare inside a panel.",
        "FID is blind to copies where few images are seen: believe the rate.",
        "At steps that only some trainings reach, means are over those.",
        near_words(view),
        rate_words(view, sizes),
        *score_details(view),
        held_words(view),
    )
    return figure, Caption(words, details)
