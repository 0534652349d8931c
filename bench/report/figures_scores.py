"""The figure of scores: every variant and training seed above what real images and reconstructions
score."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .analysis import (
    Results,
    by_reason,
    claim,
    estimate,
    fid_differences,
    made_by,
    missing_words,
    noise_words,
)
from .drawing import COLOURS, DOUBLE, RED, blank, canvas, legend_below, look, note, text, wrapped

MOST = 12  # variants side by side; more stand below one another
SHARES = {
    "class agreement": "class_agreement",
    "CAS": "cas",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
}
LETTERS = 40  # of a name beside its row
PITCH, LINE = 0.2, 0.11  # inches: of a row at least, and of a line of its name
STRIPE = "0.95"


class Places:
    """Where variants stand in a panel: side by side at 0, 1, 2, ..., or in rows, in inches from the
    top."""

    def __init__(self, results: Results, suite: str) -> None:
        self.names = list(results.variants(suite))
        room = max(8, 28 // len(self.names))
        marks = [wrapped(name, room) for name in self.names]
        longest = max(len(line) for mark in marks for line in mark.split("\n"))
        self.slanted = len(marks) * longest > 40
        lines = max(1 + mark.count("\n") for mark in marks)
        # a slanted name takes twice the height of its lines along the axis; a panel has some three
        # inches
        crowded = self.slanted and 2 * LINE * lines > 3.2 / len(marks)
        self.rows = len(marks) > MOST or crowded
        self.marks = [wrapped(name, LETTERS) for name in self.names] if self.rows else marks
        self.sizes = [
            max(PITCH, 0.06 + LINE * (1 + mark.count("\n"))) if self.rows else 1.0
            for mark in self.marks
        ]
        ends = np.cumsum(self.sizes)
        self.spots = (ends - np.array(self.sizes) / 2 if self.rows else ends - 1).tolist()
        self.length = float(ends[-1])

    def label(self, axes: Axes) -> None:
        """Write the names on the axis."""
        if self.rows:
            axes.set_yticks(self.spots, self.marks)
            axes.set_ylim(self.length, 0)
            axes.tick_params(axis="x", top=True, labeltop=True)
            axes.tick_params(axis="y", length=0)
            for i in range(0, len(self.spots), 2):
                low = self.spots[i] - self.sizes[i] / 2
                axes.axhspan(low, low + self.sizes[i], color=STRIPE, linewidth=0, zorder=-1)
            return
        slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if self.slanted else {}
        axes.set_xticks(range(len(self.marks)), self.marks, **slant)
        axes.set_xlim(-0.5, len(self.marks) - 0.5)
        axes.set_xlabel("variant")


def _dots(
    axes: Axes,
    results: Results,
    suite: str,
    metric: str,
    places: Places,
    shift: float,
    style: dict[str, Any],
    label: str | None,
) -> bool:
    """Points per training seed, their mean and interval, for every variant; whether there was
    any."""
    for i, variant in enumerate(places.names):
        values = results.of(variant, suite, metric)
        found = estimate(values)
        if found is None:
            continue
        mark = style or {key: value for key, value in look(i).items() if key != "linestyle"}
        size, spot = places.sizes[i], places.spots[i]
        spots = spot + size * (
            shift - 0.12 + 0.05 * np.arange(len(values)) / max(1, len(values) - 1)
        )
        half = [[found.half]] * 2 if found.half is not None else None
        middle = [spot + size * shift], [found.mean]
        ends = {"capsize": 2.5, "elinewidth": 1, "linestyle": "none", "label": label, **mark}
        if places.rows:
            axes.scatter(values, spots, s=7, color=mark["color"], alpha=0.45, linewidth=0)
            axes.errorbar(middle[1], middle[0], xerr=half, markersize=3, **{**ends, "capsize": 1.5})
        else:
            axes.scatter(spots, values, s=7, color=mark["color"], alpha=0.45, linewidth=0)
            axes.errorbar(*middle, yerr=half, **ends)
        label = None
    return bool(axes.collections)


def _lines(axes: Axes, results: Results, suite: str, places: Places) -> None:
    """Floor across the panel; reconstruction across it too, or a tick per variant where schedules
    or tokenizers differ."""
    variants, x = list(results.variants(suite).values()), results.extractor
    whole = axes.axvline if places.rows else axes.axhline
    part = axes.vlines if places.rows else axes.hlines
    floors = {
        value
        for names in variants
        if (value := results.grid_value(names, f"floor_fid_{x}", suite)) is not None
    }
    for value in sorted(floors)[:1]:
        whole(
            value,
            color="0.35",
            linestyle=":",
            linewidth=1,
            label="floor: real training pictures",
            zorder=0,
        )
    values = [results.grid_value(names, f"reconstruction_fid_{x}", suite) for names in variants]
    label = "reconstruction by the tokenizer"
    if None not in values and len(set(values)) == 1:
        whole(values[0], color="0.35", linestyle="--", linewidth=1, label=label, zorder=0)
        return
    for value, spot, size in zip(values, places.spots, places.sizes):
        if value is not None:
            ends = (spot - 0.35 * size, spot + 0.35 * size)
            part(value, *ends, color="0.35", linestyle="--", linewidth=1, label=label, zorder=0)
            label = None


def floor_count(results: Results, suite: str) -> str:
    """How many images the floor was scored on, which a small training split may limit."""
    names = next(iter(results.variants(suite).values()))
    found = results.of_grid(names, f"floor_fid_{results.extractor}")["num_images"].dropna()
    return f" (N = {int(found.iloc[0])})" if len(found) else ""


def _name_lost(axes: Axes, results: Results, suite: str, places: Places) -> None:
    """Write beside a variant which of its scores are missing, and why."""
    for variant, spot in zip(places.names, places.spots):
        lost = results.missing(variant, suite, f"fid_{results.extractor}")
        if not lost:
            continue
        words = text(by_reason({seed: why.split(" (")[0] for seed, why in lost.items()}))
        style = {"color": RED, "fontsize": 6, "in_layout": False}
        if places.rows:
            axes.text(
                0.98,
                spot,
                words,
                transform=axes.get_yaxis_transform(),
                va="center",
                ha="right",
                **style,
            )
        else:
            place = {"transform": axes.get_xaxis_transform(), "rotation": 90, "va": "bottom"}
            axes.text(spot + 0.2, 0.02, words, **place, **style)


def figure_fid(results: Results, suite: str) -> tuple[Figure, str]:
    """FID of every variant and training seed above floor and reconstruction; beside it class
    agreement, CAS, precision, recall, coverage."""
    x, places = results.extractor, Places(results, suite)
    height = 1.1 + places.length if places.rows else 2.9
    ratios = {"width_ratios": [1.25, 1]}
    figure, axes = canvas(DOUBLE, height, 1, 2, gridspec_kw=ratios, sharey=places.rows)
    left, right = axes[0]
    score = f"{results.label('FID')}, N = {results.about['evaluation']['num_images']}"
    if not _dots(left, results, suite, f"fid_{x}", places, 0, {}, None):
        blank(left, "no variant has a score")
    _lines(left, results, suite, places)
    (left.set_xlim if places.rows else left.set_ylim)(0)
    _name_lost(left, results, suite, places)
    (left.set_xlabel if places.rows else left.set_ylabel)(score)
    variants = results.variants(suite)
    scores = {name: results.score_name(metric) for name, metric in SHARES.items()}
    shares = {
        name: score
        for name, score in scores.items()
        if any(len(results.of(v, suite, score)) for v in variants)
    }
    looks = dict(zip(SHARES, zip((7, 5, 2, 4, 0), "psh*D")))
    for j, (name, metric) in enumerate(shares.items()):
        style = {"color": COLOURS[looks[name][0]], "marker": looks[name][1]}
        shift = min(0.26, 0.8 / len(shares)) * (j - (len(shares) - 1) / 2)
        _dots(right, results, suite, metric, places, shift, style, name)
    if not shares:
        blank(right, "no share was scored")
    if places.rows:
        right.set_xlabel(f"share ({x})")
        low, high = right.get_xlim()
        right.set_xlim(max(-0.03, low), min(1.03, high))  # an interval may pass what a share can be
    else:
        right.set_ylabel(f"share ({x})")
        low, high = right.get_ylim()
        right.set_ylim(max(-0.03, low), min(1.03, high))
    for panel in (left, right):
        places.label(panel)
    legend_below(figure, columns=3)
    note(figure, missing_words(results, suite, f"fid_{x}"))
    caption = (
        f"{claim(results, suite)} Small points: one training each; symbols: mean, bars: interval. Dotted: floor, real training "
        f"pictures{floor_count(results, suite)}; dashed: the same pictures through the tokenizer, under each variant's schedule. "
        f"{noise_words(results, suite)} {made_by(results, suite)} {fid_differences(results, suite)}"
    )
    return figure, " ".join(caption.split())
