"""Signal-to-noise ratio after each scale beside two diffusion schedules."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from ...report.claims import claim
from ...report.drawing import COLOURS, DOUBLE, SINGLE, blank, canvas, legend_below, note, text
from ...report.view import View
from ...report.words import held_out, shares_tokenizer

SNR = {
    "latent": ("latent state", {"color": COLOURS[0], "marker": "o", "linestyle": "-"}),
    "pixel": ("decoded picture", {"color": COLOURS[1], "marker": "s", "linestyle": "-"}),
    "cosine": ("DDPM, cosine", {"color": COLOURS[2], "marker": "^", "linestyle": "--"}),
    "linear": ("DDPM, linear", {"color": COLOURS[4], "marker": "D", "linestyle": ":"}),
}


def _snr_rows(view: View, names: dict[str, Any], metric: str) -> pd.Series:
    """Value in dB by scale."""
    rows = view.results.of_grid(names, metric)
    rows = rows[rows["run_id"].isin(view.about["runs"])].dropna(subset=["scale", "value"])
    return rows.set_index(rows["scale"].astype(int))["value"].sort_index()


def _why_no_snr(view: View, names: dict[str, Any]) -> str:
    """Status of the run that should have measured a schedule."""
    runs = view.results.runs_behind(names, "snr")
    if not len(runs):
        return view.results.why(names, None)
    row = runs.iloc[0]
    return f"{row['status']} ({row['reason']})" if row["reason"] else f"{row['status']}, no number"


def figure_snr(view: View) -> tuple[Figure, str]:
    """Signal-to-noise ratio after each scale, in the latent and in pixels, beside two diffusion schedules."""
    grids = view.grids()
    columns = min(3, len(grids))
    rows, lost, counts = -(-len(grids) // columns), [], set()
    figure, axes = canvas(SINGLE if columns == 1 else DOUBLE, 0.5 + 2.2 * rows, rows, columns, sharey=True)
    panels = iter(axes.flat)
    for (grid, names), panel in zip(grids.items(), panels):
        panel.set_title(text(f"schedule {grid}"))
        for name, (label, style) in SNR.items():
            values = _snr_rows(view, names, f"snr_{name}_db")
            if not len(values):
                continue
            panel.plot(values.index, values.to_numpy(), label=label, **style)
            low, high = (_snr_rows(view, names, f"snr_{name}_db_{end}") for end in ("q10", "q90"))
            if len(low) and low.index.equals(high.index):
                panel.fill_between(low.index, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if not panel.lines:
            lost.append(f"{grid}: {_why_no_snr(view, names)}")
            blank(panel, lost[-1])
        counts |= set(view.results.of_grid(names, "snr_latent_db")["num_images"].dropna().astype(int))
        panel.xaxis.set_major_locator(FixedLocator(range(len(names["patch_nums"]))))
        panel.set_xticklabels([f"{side}x{side}" if len(names["patch_nums"]) < 6 else str(side) for side in names["patch_nums"]])
        panel.set_xlim(-0.3, len(names["patch_nums"]) - 0.7)
        panel.set_xlabel("scale, coarse to fine (grid side, tokens)")
    for panel in panels:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("signal-to-noise ratio (dB)")
    legend_below(figure)
    note(figure, "; ".join(lost))
    seed = "" if shares_tokenizer(view) else f", that of training seed {view.about['train_seeds'][0]}"
    caption = (
        f"{claim(view)} 10 log10 of the power of x over that of x - x_k, after scales 0 to k: x the encoder's latent and "
        "x_k the state f_hat, or x the picture in [-1, 1] and x_k what the decoder makes of that state; mean and, as bands, 10 % to 90 % "
        "quantiles over "
        f"N = {', '.join(map(str, sorted(counts))) or 'no'} pictures of {held_out(view.results)}. Dashed and dotted: alpha_bar / (1 - alpha_bar) of "
        "DDPM's cosine and linear schedules at as many equally spaced times strictly between noise and data; the scales have no "
        "time of their own, so that only the direction can be compared, not the height. A bright or dark background is signal "
        f"too. One tokenizer training{seed}, no interval over seeds."
    )
    return figure, " ".join(caption.split())
