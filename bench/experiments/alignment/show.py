"""What becomes of a model while it learns to tell its classes apart."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...report.absent import missing_words
from ...report.caption import Caption
from ...report.claims import claim_details
from ...report.drawing import DOUBLE, band, blank, look_of, note
from ...report.sheets import by_variant, sheet
from ...report.view import View
from ...report.words import held_out, seeds_details
from ...study.contrast import CONTRASTED

PANELS = {
    "reward_margin": "reward margin (nats)",
    "loss_test": "held-out loss\nminus the control's (nats/token)",
    "loss_test_uncond": "the same\nwithout a class (nats/token)",
}


def _aligned(view: View) -> View:
    """The trainings of the suite that go on from a teacher, in its own schedule."""
    arms = {
        name: names["settings"].get("distill", {}).get("arm")
        for name, names in view.variants.items()
    }
    return view.only([name for name, arm in arms.items() if arm in CONTRASTED])


def _controls(view: View) -> dict[str, str]:
    """The control of each variant: as many steps of cross-entropy from the same teacher."""
    told = {name: names["settings"]["distill"] for name, names in view.variants.items()}
    of_teacher = {
        json.dumps(about["teacher"], sort_keys=True): name
        for name, about in told.items()
        if about["arm"] == "cross_entropy"
    }
    keys = {name: json.dumps(about["teacher"], sort_keys=True) for name, about in told.items()}
    return {name: of_teacher[key] for name, key in keys.items() if key in of_teacher}


def _less_control(rows: pd.DataFrame, control: pd.DataFrame) -> pd.DataFrame:
    """Values minus those of the control at the same step and training seed: seeds differ by more,
    since each has a tokenizer of its own."""
    key = ["train_seed", "step"]
    both = rows.merge(control[[*key, "value"]], on=key, suffixes=("", "_control"))
    return both.assign(value=both["value"] - both["value_control"])


def _uncontrolled(aligned: View) -> str:
    """Which trainings have no control to be shown beside; empty where all have."""
    controls = _controls(aligned)
    lone = [variant for variant in aligned.variants if variant not in controls]
    return f"losses of {', '.join(lone)}: no control of the same teacher" if lone else ""


def _along(axes: np.ndarray, view: View, aligned: View) -> None:
    """Every training of a few against its steps; losses beside those of its control, which may be
    among the others of all that are aligned."""
    controls = _controls(aligned)
    for panel, (metric, title) in zip(axes[0], PANELS.items()):
        why = "no training has ended well"
        for variant in view.variants:
            rows = view.snapshots(variant, metric)
            if metric != "reward_margin" and len(rows):
                if variant not in controls:
                    why = "no training has a control"
                    continue
                rows = _less_control(rows, aligned.snapshots(controls[variant], metric))
            if len(rows):
                band(panel, rows, "step", variant, look_of(view, variant))
        if not panel.lines:
            blank(panel, why)
        panel.set_xlabel("step")
        panel.set_ylabel(title)


def figure_alignment(view: View) -> tuple[Figure, Caption]:
    """Reward margin and held-out losses along every alignment and its control (CCA, arXiv
    2410.09347)."""
    aligned = _aligned(view)
    draw = partial(_along, aligned=aligned)
    figure = sheet(by_variant(aligned), (DOUBLE, 2.6), (1, 3), draw)
    lost = [missing_words(aligned, "kept_step"), _uncontrolled(aligned)]
    note(figure, "; ".join(filter(None, lost)))
    words = (
        "Along each training: reward margin, held-out loss under the right class, and under none, "
        "minus those of its control. A margin of 0 is a model that tells classes apart as well as "
        "its teacher. Lines: mean, bands: 95 % t-interval over training seeds."
    )
    details = (
        *claim_details(view),
        "Reward margin: beta times how much more log p of an image has grown under its own class "
        "than under a wrong one. The wrong one is drawn once for each image; beta is beta_tokens "
        "/ tokens.",
        f"Images of {held_out(view.results)}, averaged weights; losses under the right class "
        "begin at the first evaluation.",
        "The last step is kept. The control reads the same images by plain cross-entropy, as many "
        "steps from the same teacher; losses are paired with it by training seed.",
        *seeds_details(view),
    )
    return figure, Caption(words, details)
