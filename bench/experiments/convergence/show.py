"""Loss and FID along the training, and steps until a held-out loss."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...report.absent import missing_words
from ...report.caption import Caption
from ...report.claims import Verdict, claim_details, claimed, decided_together
from ...report.curves import floor_count, floor_line
from ...report.drawing import DOUBLE, band, blank, look_of, note
from ...report.estimate import FEWEST, paired, show, show_difference
from ...report.sheets import by_variant, sheet
from ...report.trainings import (
    kept_words,
    of_other_tokens,
    of_same_tokens,
    steps_to_targets,
)
from ...report.view import View
from ...report.words import score_details
from ...study.escaping import rst


def _reached(view: View) -> tuple[str, ...]:
    """Steps and seconds until the held-out losses that every training of the suite passes, and
    paired differences to the first variant; a detail for each loss."""
    first, *others = view.variants
    reached = steps_to_targets(view)
    if not reached or not others:
        return ()
    details = [
        "Grey lines: held-out losses, chosen where every training passes. Below: steps and seconds "
        "until each, interpolated between evaluations, mean over seeds; in brackets steps minus "
        f"those of {rst(first)}, paired."
    ]
    for target, rows in reached.items():
        parts = []
        for variant in view.variants:
            if variant not in rows:
                continue
            steps, seconds = rows[variant]["step"], rows[variant]["seconds"]
            words = f"{rst(variant)} {steps.mean():.0f} steps and {show(seconds.mean())} s"
            if variant in others and first in rows:
                words += f" ({show_difference(paired(rows[first]['step'], steps))})"
            parts.append(words)
        details.append(f"Until {target:.2f}: {', '.join(parts)}.")
    return tuple(details)


def _with_mean_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the seconds at which each step stands: a mean over seeds would go back where the
    slow trainings have ended, so what an evaluation adds is the mean of those that reach it."""
    seconds = rows.pivot_table(index="step", columns="train_seed", values="seconds").sort_index()
    if seconds.empty:
        return rows
    added = seconds.diff()
    added.iloc[0] = seconds.iloc[0]
    return rows.assign(seconds=rows["step"].map(added.mean(axis=1).cumsum()))


def _curves(axes: np.ndarray, view: View, metric: str, title: str) -> None:
    """A metric of every variant, against step on the left and training time on the right."""
    for panel, along, label in zip(axes, (None, "seconds"), ("training step", "training time (s)")):
        for variant in view.variants:
            rows = view.snapshots(variant, metric)
            if len(rows):
                rows = _with_mean_seconds(rows) if along else rows
                band(panel, rows, "step", variant, look_of(view, variant), along)
        if not panel.lines:
            blank(panel, f"no {title} along the training")
        panel.set_xlabel(label)
    axes[0].set_ylabel(title)


def _convergence(axes: np.ndarray, view: View, targets: Iterable[float]) -> None:
    """Loss and FID of every variant against step and time. targets: losses of the whole suite, of
    which these may be a few variants."""
    _curves(axes[0], of_same_tokens(view), "loss_test", "held-out loss (nats/token)")
    _curves(axes[1], view, f"fid_{view.results.extractor}", view.results.label("FID"))
    for target in targets:
        for panel in axes[0]:
            panel.axhline(target, color="0.6", linestyle="-", linewidth=0.5, zorder=0)
    for panel in axes[1]:
        floor_line(panel, view, "fid")


def figure_convergence(view: View) -> tuple[Figure, Caption]:
    """Held-out loss and FID against step and against wall-clock."""
    fid = f"fid_{view.results.extractor}"
    draw = partial(_convergence, targets=list(steps_to_targets(view)))
    figure = sheet(by_variant(view), (DOUBLE, 4.4), (2, 2), draw, far=[0, 2], sharey="row")
    lost = {
        "loss": missing_words(view, "loss_test", along=True),
        "FID": missing_words(view, fid, along=True),
    }
    note(figure, "; ".join(f"{what}, {words}" for what, words in lost.items() if words))
    text = (
        "Held-out loss (above) and FID (below) of averaged weights along the training, against "
        "steps and against seconds. Lines: mean, bands: 95 % t-interval over training seeds. "
        "Dotted: floor, real training images; grey: losses that every training passes. Seconds "
        "are a record of a shared machine, no measurement of speed."
    )
    apart = rst(", ".join(of_other_tokens(view)))
    details = (
        *claim_details(view),
        f"Losses left out, as they are of other tokens: {apart}." if apart else "",
        "At steps that only some trainings reach, means are over those.",
        "Time is training alone, without evaluation, of trainings that shared the machine with "
        "other jobs. Seconds of a step: mean over seeds. "
        "At a step that only some reach: those of the step before, and what these add.",
        f"Floor: real training images{floor_count(view)}.",
        *_reached(view),
        kept_words(view),
        *score_details(view),
    )
    return figure, Caption(text, details)


def judge_convergence(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes when the paired interval of the steps until a held-out loss lies below 0 at every target,
    no when above 0 at every one; losses are interpolated between evaluations, targets follow from
    all trainings of the suite (`bench/report/trainings.py`)."""
    variant, against = claim["variant"], claim["against"]
    saved = {
        target: paired(rows[against]["step"], rows[variant]["step"])
        for target, rows in steps_to_targets(view).items()
        if {variant, against} <= rows.keys()
    }
    if not saved:
        return "not decided", "no held-out loss that every training passes between two evaluations"
    shown = "; ".join(
        f"{show_difference(steps)} at {target:.2f}" for target, steps in saved.items()
    )
    # the metric by its name: a training without it is then said, as of every other rule
    what = f"steps until a held-out loss (loss_test), {variant} minus {against}"
    reason = f"{what}, paired by training seed: {shown}"
    if any(steps is None or steps.count < FEWEST for steps in saved.values()):
        return "not decided", f"{reason}; fewer than three training seeds"
    word, p = decided_together(saved)
    return Verdict(claimed(word, claim), reason, p)
