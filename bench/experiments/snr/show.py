"""Signal-to-noise ratio after each scale beside two diffusion schedules."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from ...report.caption import Caption
from ...report.claims import claim_details
from ...report.drawing import (
    COLOURS,
    DOUBLE,
    SINGLE,
    blank,
    canvas,
    draw_between,
    legend_below,
    note,
    text,
)
from ...report.view import View
from ...report.words import held_out, shares_tokenizer

# ending of a metric: what stands in the legend, how its line looks
SNR = {
    "latent": ("latent state", {"color": COLOURS[0], "marker": "o", "linestyle": "-"}),
    "pixel": ("decoded image", {"color": COLOURS[1], "marker": "s", "linestyle": "-"}),
    "cosine": ("DDPM, cosine", {"color": COLOURS[2], "marker": "^", "linestyle": "--"}),
    "linear": ("DDPM, linear", {"color": COLOURS[4], "marker": "D", "linestyle": ":"}),
}


def _snr_rows(view: View, names: dict[str, Any], metric: str) -> pd.Series:
    """Value in dB by scale."""
    rows = view.of_grid(names, metric).dropna(subset=["scale", "value"])
    return rows.set_index(rows["scale"].astype(int))["value"].sort_index()


def _why_no_snr(view: View, names: dict[str, Any]) -> str:
    """Status of the run that should have measured a schedule."""
    runs = view.results.runs_behind(names, "snr")
    if not len(runs):
        return view.results.why(names, None)
    row = runs.iloc[0]
    return (
        f"{row['status']} ({row['reason']})" if row["reason"] else f"{row['status']}, not measured"
    )


def _draw_schedule(axes: Axes, view: View, names: dict[str, Any], form: str) -> None:
    """The four lines of a schedule; bands where quantiles over images were measured. form: how the
    side of a grid is written."""
    for name, (label, style) in SNR.items():
        values = _snr_rows(view, names, f"snr_{name}_db")
        if not len(values):
            continue
        axes.plot(values.index, values.to_numpy(), label=label, **style)
        low, high = (_snr_rows(view, names, f"snr_{name}_db_{end}") for end in ("q10", "q90"))
        if len(low) and low.index.equals(high.index):
            draw_between(axes, low.index, low, high, [True] * len(low), style["color"])
    sides = names["patch_nums"]
    axes.xaxis.set_major_locator(FixedLocator(range(len(sides))))
    axes.set_xticklabels([form.format(side) for side in sides])
    axes.set_xlim(-0.3, len(sides) - 0.7)
    axes.set_xlabel("scale, coarse to fine (grid side, tokens)")


def _counts(view: View) -> str:
    """How many images stand behind the numbers of each schedule."""
    counts = set()
    for names in view.grids().values():
        rows = view.of_grid(names, "snr_latent_db")
        counts |= set(rows["num_images"].dropna().astype(int))
    return ", ".join(map(str, sorted(counts))) or "no"


def figure_snr(view: View) -> tuple[Figure, Caption]:
    """Signal-to-noise ratio after each scale, in the latent and in pixels, beside the schedules of
    DDPM (arXiv 2006.11239) and of improved DDPM (arXiv 2102.09672)."""
    grids, lost = view.grids(), []
    columns = min(3, len(grids))
    rows = -(-len(grids) // columns)
    width = SINGLE if columns == 1 else DOUBLE
    figure, axes = canvas(width, 0.5 + 2.2 * rows, rows, columns, sharey=True)
    panels = iter(axes.flat)
    # one form for all panels, in which the longest schedule has room
    form = "{0}x{0}" if max(len(names["patch_nums"]) for names in grids.values()) < 6 else "{0}"
    for (grid, names), panel in zip(grids.items(), panels):
        panel.set_title(text(f"schedule {grid}"))
        _draw_schedule(panel, view, names, form)
        if not panel.lines:
            lost.append(f"{grid}: {_why_no_snr(view, names)}")
            blank(panel, lost[-1])
    for panel in panels:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("signal-to-noise ratio (dB)")
    legend_below(figure)
    note(figure, "; ".join(lost))
    caption = (
        "Signal-to-noise ratio after each scale, of the latent state and of the image decoded "
        "from it. Lines: mean over held-out images; bands: 10 % to 90 % quantile. Dashed "
        "and dotted: two schedules of DDPM, of which only the direction can be compared, not the "
        "height."
    )
    seed = (
        "" if shares_tokenizer(view) else f", that of training seed {view.about['train_seeds'][0]}"
    )
    details = (
        *claim_details(view),
        "Ratio: 10 log10 of the power of x over that of x - x_k, after scales 0 to k. Latent: x "
        "the encoder's latent and x_k the state f_hat. Image: x the image in [-1, 1] and x_k "
        "what the decoder makes of that state.",
        f"N = {_counts(view)} images of {held_out(view.results)}.",
        "DDPM: alpha_bar / (1 - alpha_bar) of its cosine and linear schedules at as many equally "
        "spaced times strictly between noise and data. The scales have no time of their own.",
        "A bright or dark background is signal too.",
        f"One tokenizer training{seed}, no interval over seeds.",
    )
    return figure, Caption(caption, details)
