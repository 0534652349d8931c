"""Loss and FID along the training, and steps until a held-out loss."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...report.absent import missing_words
from ...report.claims import Verdict, claim, claimed, decided_together
from ...report.curves import floor_count
from ...report.drawing import DOUBLE, band, blank, look, note, plain_log
from ...report.estimate import FEWEST, paired, show, show_difference
from ...report.sheets import by_variant, sheet
from ...report.trainings import kept_words, steps_to_targets
from ...report.view import View
from ...report.words import made_by
from ...study.escaping import rst


def _reached(view: View) -> str:
    """Steps and seconds until the held-out losses that every training of the suite passes, and
    paired differences to the first variant."""
    first, *others = view.variants
    words = []
    for target, rows in steps_to_targets(view).items():
        parts = [
            f"{rst(v)} {rows[v]['step'].mean():.0f} steps and {show(rows[v]['seconds'].mean())} s"
            + (f" ({show_difference(paired(rows[first]['step'], rows[v]['step']))})" if v in others and first in rows else "")
            for v in view.variants
            if v in rows
        ]
        words.append(f"{target:.2f}: {', '.join(parts)}")
    if not words or not others:
        return ""
    return (
        "Until a held-out loss (grey lines; chosen where every training passes; interpolated between looks), mean over seeds, in "
        f"brackets steps minus those of {rst(first)}, paired: {'; '.join(words)}."
    )


def _convergence(axes: np.ndarray, view: View, targets: Iterable[float]) -> None:
    """Loss and FID of every variant against step and time. targets: losses of the whole suite, of
    which these may be a few variants."""
    fid = f"fid_{view.results.extractor}"
    ways = (("step", None, "training step"), ("step", "seconds", "training time (s)"))
    for row, (metric, title) in enumerate((("loss_test", "held-out loss (nats/token)"), (fid, view.results.label("FID")))):
        for panel, (x, along, label) in zip(axes[row], ways):
            for i, variant in enumerate(view.variants):
                rows = view.snapshots(variant, metric)
                if len(rows):
                    band(panel, rows, x, variant, look(i), along)
            if not panel.lines:
                blank(panel, f"no {title} along the training")
            panel.set_xlabel(label)
        axes[row, 0].set_ylabel(title)
    for target in targets:
        for panel in axes[0]:
            panel.axhline(target, color="0.6", linestyle="-", linewidth=0.5, zorder=0)
    means = [y for line in axes[1, 0].lines for y in line.get_ydata()]
    floor = next((v for n in view.variants.values() if (v := view.grid_value(n, f"floor_{fid}")) is not None), None)
    if means:
        low = min([*means, floor] if floor is not None and floor > 0 else means)
        for panel in axes[1]:
            if floor is not None and floor > 0:
                panel.axhline(floor, color="0.35", linestyle=":", linewidth=1, label="floor: real training pictures", zorder=0)
            panel.set_yscale("log")
            panel.set_ylim(0.7 * max(low, 1e-6), 1.4 * max(means))
            plain_log(panel.yaxis)


def figure_convergence(view: View) -> tuple[Figure, str]:
    """Held-out loss and FID against step and against wall-clock."""
    fid = f"fid_{view.results.extractor}"
    draw = partial(_convergence, targets=list(steps_to_targets(view)))
    figure = sheet(by_variant(view), (DOUBLE, 4.4), (2, 2), draw, sharey="row")
    lost = (missing_words(view, "loss_test", along=True), missing_words(view, fid, along=True))
    note(figure, "; ".join(f"{what}, {words}" for what, words in zip(("loss", "FID"), lost) if words))
    caption = (
        f"{claim(view)} Averaged weights every few steps; lines: mean, bands: interval. Time is training alone, "
        "without held-out looks, of trainings that shared the machine with other jobs: a record, no measurement of speed; seconds of a "
        f"step: mean over seeds. Dotted: floor, real training "
        f"pictures{floor_count(view)}. {_reached(view)} {kept_words(view)} {made_by(view)}"
    )
    return figure, " ".join(caption.split())


def judge_convergence(view: View, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when the paired interval of the steps until a held-out loss lies below 0 at every target,
    no when above 0 at every one; losses are interpolated between looks, targets follow from all
    trainings of the suite (`bench/report/trainings.py`)."""
    found = {
        target: paired(*(rows[name]["step"] for name in (one["against"], one["variant"])))
        for target, rows in steps_to_targets(view).items()
        if {one["variant"], one["against"]} <= rows.keys()
    }
    if not found:
        return "not decided", "no held-out loss that every training passes between two looks"
    shown = "; ".join(f"{show_difference(steps)} at {target:.2f}" for target, steps in found.items())
    reason = f"steps until a held-out loss, {one['variant']} minus {one['against']}, paired by training seed: {shown}"
    if any(steps is None or steps.count < FEWEST for steps in found.values()):
        return "not decided", f"{reason}; fewer than three training seeds"
    word, p = decided_together(found)
    return Verdict(claimed(word, one), reason, p)
