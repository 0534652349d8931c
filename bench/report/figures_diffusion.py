"""Figures of VAR as a discrete diffusion: the ELBO against the cross-entropy, and the signal-to-noise ratio along the scales."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from .analysis import (
    GAP_CLOSED,
    Results,
    claim,
    held_out,
    missing_words,
    reach,
    rst,
    seeds_words,
    shares_tokenizer,
)
from .drawing import (
    COLOURS,
    DOUBLE,
    RED,
    SINGLE,
    apart,
    band,
    blank,
    canvas,
    legend_below,
    look,
    note,
    side_ticks,
    text,
    wrapped,
)
from .sheets import by_variant, sheet

CORRUPTION_LINES = ("-", (0, (3, 1.5)), ":", "-.")
# prefix of a metric: what stands beside its line, its colour
PARTS = {"elbo": ("ELBO", "black"), "elbo_transition": ("transition", COLOURS[9]), "elbo_readout": ("read-out", COLOURS[5])}
SNR = {
    "latent": ("latent state", {"color": COLOURS[0], "marker": "o", "linestyle": "-"}),
    "pixel": ("decoded picture", {"color": COLOURS[1], "marker": "s", "linestyle": "-"}),
    "cosine": ("DDPM, cosine", {"color": COLOURS[2], "marker": "^", "linestyle": "--"}),
    "linear": ("DDPM, linear", {"color": COLOURS[4], "marker": "D", "linestyle": ":"}),
}


# ---------------------------------------------------------------- equivalence


def _per_scale(results: Results, variant: str, suite: str, metric: str) -> pd.DataFrame:
    """Values per scale of the kept weights: columns train_seed, scale, value."""
    rows = results.select(variant, suite, metric)
    return rows[rows["step"].isna()].dropna(subset=["scale", "value"])[["train_seed", "scale", "value"]]


def _against_eps(results: Results, variant: str, suite: str, prefix: str, corruption: str) -> pd.DataFrame:
    """Values over all scales at every noise: columns train_seed, eps, value."""
    found = []
    for eps in results.suite(suite)["equivalence"]["eps"]:
        values = results.of(variant, suite, f"{prefix}_{corruption}_eps{eps:g}")
        found += [{"train_seed": seed, "eps": eps, "value": value} for seed, value in values.items()]
    return pd.DataFrame(found, columns=["train_seed", "eps", "value"])


def _chain(results: Results, suite: str) -> str:
    """The variant whose terms are taken apart: the first one that is Markov, else the first."""
    variants = results.variants(suite)
    return next((name for name, about in variants.items() if about["history"] == 0 and not about["mask"]), next(iter(variants)))


def _chains(pages: list[Results], suite: str) -> str:
    """The same of every page of the figure."""
    return ", ".join(rst(_chain(page, suite)) for page in pages)


def _strokes(corruptions: list[str]) -> str:
    """Which line is which corruption."""
    return ", ".join(f"{name} {word}" for name, word in zip(corruptions, ("solid", "dashed", "dotted", "dash-dotted")))


def _draw_parts(axes: Axes, results: Results, suite: str, corruptions: list[str]) -> None:
    """ELBO, transition and read-out of one variant against the noise."""
    variant = _chain(results, suite)
    for prefix, (name, colour) in PARTS.items():
        ends = []
        for corruption, line in zip(corruptions, CORRUPTION_LINES):
            rows = _against_eps(results, variant, suite, prefix, corruption)
            if len(rows):
                band(axes, rows, "eps", "", {"color": colour, "linestyle": line, "marker": "o", "markersize": 2.5})
                ends.append(rows.loc[rows["eps"] == rows["eps"].max(), "value"].mean())
        if ends:
            right = max(results.suite(suite)["equivalence"]["eps"])
            place = {"textcoords": "offset points", "va": "center", "fontsize": 7, "color": colour}
            axes.annotate(name, (right, max(ends)), (4, 0), **place).set_in_layout(False)
            axes.set_xlim(-0.04 * right, 1.32 * right)  # room for the words
    loss = results.estimate(variant, suite, "elbo_cross_entropy")
    if loss is not None:
        axes.axhline(loss.mean, color="0.35", linestyle=":", linewidth=1, label="cross-entropy in training", zorder=0)
    axes.set_title(wrapped(f"{variant} ({_strokes(corruptions)})", 60))
    axes.set_ylabel("held-out (nats/token)")


def _draw_elbos(axes: Axes, results: Results, suite: str, corruptions: list[str]) -> None:
    """The ELBO of every variant against the noise."""
    for i, variant in enumerate(results.variants(suite)):
        for j, (corruption, line) in enumerate(zip(corruptions, CORRUPTION_LINES)):
            rows = _against_eps(results, variant, suite, "elbo", corruption)
            if len(rows):
                band(axes, rows, "eps", "" if j else variant, {**look(i), "linestyle": line, "markersize": 2.5})
    axes.set_title("every variant, as a chain in f_hat")
    axes.set_ylabel("held-out ELBO (nats/token)")


def _log_scales(axes: Axes, results: Results, suite: str, metrics: dict[str, dict], label: str, extreme: str) -> None:
    """Per scale and variant, each training seed as a faint point and their mean or max as a line, on a logarithmic axis whose lower edge
    stands for exactly 0. metrics: name, and what differs from the variant's own style."""
    parts = {
        (i, variant, metric): _per_scale(results, variant, suite, metric)
        for i, variant in enumerate(results.variants(suite))
        for metric in metrics
    }
    values = np.concatenate([[], *(rows["value"].to_numpy(float) for rows in parts.values())])
    if not len(values):
        blank(axes, "no trained model was asked")
        return
    floor = 10.0 ** (math.floor(math.log10(min(values[values > 0], default=1e-16))) - 1)
    for (i, variant, metric), rows in parts.items():
        if not len(rows):
            continue
        sides = rows["scale"].astype(int).map(dict(enumerate(results.variants(suite)[variant]["patch_nums"])))
        shift = apart(i, len(results.variants(suite)), 0.04)
        shown, style = rows["value"].clip(lower=floor), {**look(i), "linestyle": "-", **metrics[metric]}
        axes.scatter(sides + shift, shown, s=6, color=style["color"], alpha=0.4, linewidth=0)
        middle = shown.groupby(sides + shift).agg(extreme)
        axes.plot(middle.index, middle.to_numpy(), label=text(variant), **style)
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(label)


def _equivalence(axes: np.ndarray, results: Results, suite: str) -> None:
    """The four panels of a few variants."""
    settings = results.suite(suite)["equivalence"]
    corruptions = settings["corruptions"][: len(CORRUPTION_LINES)]
    (parts, elbos), (gap, path) = axes
    _draw_parts(parts, results, suite, corruptions)
    _draw_elbos(elbos, results, suite, corruptions)
    for panel in axes[0]:
        if not panel.lines:
            blank(panel, "no trained model was asked")
        panel.set_xlabel("eps, noise on each token (probability)")
    parts.set_ylim(bottom=0)
    _log_scales(gap, results, suite, {"elbo_relative_gap": {}}, "|ELBO - loss| / loss, eps = 0 (share)", "max")
    if gap.lines:
        gap.axhline(GAP_CLOSED, color=RED, linestyle=":", linewidth=1, label=f"equal: at most {GAP_CLOSED:g}", zorder=0)
        gap.set_ylim(top=max(gap.get_ylim()[1], 1e2 * GAP_CLOSED))
    lines = {
        "path_kl": {},
        "path_kl_equal_state": {"linestyle": CORRUPTION_LINES[1], "markerfacecolor": "white", "clip_on": False},
    }
    _log_scales(path, results, suite, lines, "KL of two token paths (nats/token)", "mean")
    for panel in axes[1]:
        side_ticks(panel, results, suite)


def figure_equivalence(results: Results, suite: str) -> tuple[Figure, str]:
    """ELBO and its parts against the noise; gap to the cross-entropy and dependence on the path at
    every scale."""
    settings = results.suite(suite)["equivalence"]
    corruptions = settings["corruptions"][: len(CORRUPTION_LINES)]
    pages = by_variant(results, suite)
    figure = sheet(pages, suite, (DOUBLE, 4.9), (2, 2), _equivalence)
    note(figure, missing_words(results, suite, "elbo_relative_gap"))
    first = next(iter(results.variants(suite)))
    asked = results.select(first, suite, "elbo_cross_entropy")["num_images"].dropna()
    count = f"N = {int(asked.iloc[0])} pictures" if len(asked) else "pictures"
    caption = (
        f"{claim(results, suite)} All in float64 on the tokens of {count} of {held_out(results)}; every scale reads the state f_hat "
        f"alone. Top: negative ELBO of the discrete diffusion on the token ladder against the noise on each token ({_strokes(corruptions)}), mean of "
        f"{settings['draws']} draws of the noise per picture; left, {_chains(pages, suite)}: with its transition and read-out "
        "terms; dotted: its cross-entropy as in training. Bottom left: relative gap between ELBO and cross-entropy without noise, "
        "scale by scale, the largest training seed; at or below the red line they are equal, for a chain in f_hat by an identity, true of "
        "any Markov hierarchy without noise. Bottom right, which could fail, from the third scale on: KL of "
        "the model's distributions on two token paths towards the same latent (path B takes the second nearest code at the first "
        "scale), mean over seeds; filled: each path with its own state; hollow: both with exactly the same state, 0 for a chain in "
        "f_hat. Faint points: one training each; symbols of one scale stand side by side; an exact 0 is drawn on the lower edge of "
        f"its panel. Bands: interval. {seeds_words(results, suite)} {reach(results, suite)}"
    )
    return figure, " ".join(caption.split())


# ---------------------------------------------------------------- signal-to-noise ratio


def _snr_rows(results: Results, suite: str, names: dict[str, Any], metric: str) -> pd.Series:
    """Value in dB by scale."""
    rows = results.of_grid(names, metric)
    rows = rows[rows["run_id"].isin(results.suite(suite)["runs"])].dropna(subset=["scale", "value"])
    return rows.set_index(rows["scale"].astype(int))["value"].sort_index()


def _why_no_snr(results: Results, suite: str, names: dict[str, Any]) -> str:
    """Status of the run that should have measured a schedule."""
    jobs, grid = results.jobs, ".".join(map(str, names["patch_nums"]))
    mine = jobs[(jobs["stage"] == "snr") & (jobs["grid"] == grid) & jobs["run_id"].isin(results.suite(suite)["runs"])]
    if not len(mine):
        return results.why(names, None)
    row = mine.iloc[0]
    return f"{row['status']} ({row['reason']})" if row["reason"] else f"{row['status']}, no number"


def figure_snr(results: Results, suite: str) -> tuple[Figure, str]:
    """Signal-to-noise ratio after each scale, in the latent and in pixels, beside two diffusion schedules."""
    grids = results.grids(suite)
    columns = min(3, len(grids))
    rows, lost, counts = -(-len(grids) // columns), [], set()
    figure, axes = canvas(SINGLE if columns == 1 else DOUBLE, 0.5 + 2.2 * rows, rows, columns, sharey=True)
    panels = iter(axes.flat)
    for (grid, names), panel in zip(grids.items(), panels):
        panel.set_title(text(f"schedule {grid}"))
        for name, (label, style) in SNR.items():
            values = _snr_rows(results, suite, names, f"snr_{name}_db")
            if not len(values):
                continue
            panel.plot(values.index, values.to_numpy(), label=label, **style)
            low, high = (_snr_rows(results, suite, names, f"snr_{name}_db_{end}") for end in ("q10", "q90"))
            if len(low) and low.index.equals(high.index):
                panel.fill_between(low.index, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if not panel.lines:
            lost.append(f"{grid}: {_why_no_snr(results, suite, names)}")
            blank(panel, lost[-1])
        counts |= set(results.of_grid(names, "snr_latent_db")["num_images"].dropna().astype(int))
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
    seed = "" if shares_tokenizer(results, suite) else f", that of training seed {results.suite(suite)['train_seeds'][0]}"
    caption = (
        f"{claim(results, suite)} 10 log10 of the power of x over that of x - x_k, after scales 0 to k: x the encoder's latent and "
        "x_k the state f_hat, or x the picture in [-1, 1] and x_k what the decoder makes of that state; mean and, as bands, 10 % to 90 % "
        "quantiles over "
        f"N = {', '.join(map(str, sorted(counts))) or 'no'} pictures of {held_out(results)}. Dashed and dotted: alpha_bar / (1 - alpha_bar) of "
        "DDPM's cosine and linear schedules at as many equally spaced times strictly between noise and data; the scales have no "
        "time of their own, so that only the direction can be compared, not the height. A bright or dark background is signal "
        f"too. One tokenizer training{seed}, no interval over seeds."
    )
    return figure, " ".join(caption.split())
