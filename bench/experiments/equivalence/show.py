"""ELBO and cross-entropy, and what depends on the path."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from ...report.absent import by_reason, missing_words, reach
from ...report.cells import Cell, frame, number, spread
from ...report.claims import claim
from ...report.drawing import COLOURS, DOUBLE, RED, apart, band, blank, look, note, side_ticks, text, wrapped
from ...report.estimate import FEWEST, show
from ...report.sheets import by_variant, sheet
from ...report.view import View
from ...report.words import held_out, seeds_words
from ...study.escaping import rst

CORRUPTION_LINES = ("-", (0, (3, 1.5)), ":", "-.")


# prefix of a metric: what stands beside its line, its colour
PARTS = {"elbo": ("ELBO", "black"), "elbo_transition": ("transition", COLOURS[9]), "elbo_readout": ("read-out", COLOURS[5])}


def _per_scale(view: View, variant: str, metric: str) -> pd.DataFrame:
    """Values per scale of the kept weights: columns train_seed, scale, value."""
    rows = view.select(variant, metric)
    return rows[rows["step"].isna()].dropna(subset=["scale", "value"])[["train_seed", "scale", "value"]]


def _against_eps(view: View, variant: str, prefix: str, corruption: str) -> pd.DataFrame:
    """Values over all scales at every noise: columns train_seed, eps, value."""
    found = []
    for eps in view.about["equivalence"]["eps"]:
        values = view.of(variant, f"{prefix}_{corruption}_eps{eps:g}")
        found += [{"train_seed": seed, "eps": eps, "value": value} for seed, value in values.items()]
    return pd.DataFrame(found, columns=["train_seed", "eps", "value"])


def _chain(view: View) -> str:
    """The variant whose terms are taken apart: the first one that is Markov, else the first."""
    variants = view.variants
    return next((name for name, about in variants.items() if about["history"] == 0 and not about["mask"]), next(iter(variants)))


def _chains(pages: list[View]) -> str:
    """The same of every page of the figure."""
    return ", ".join(rst(_chain(page)) for page in pages)


def _strokes(corruptions: list[str]) -> str:
    """Which line is which corruption."""
    return ", ".join(f"{name} {word}" for name, word in zip(corruptions, ("solid", "dashed", "dotted", "dash-dotted")))


def _draw_parts(axes: Axes, view: View, corruptions: list[str]) -> None:
    """ELBO, transition and read-out of one variant against the noise."""
    variant = _chain(view)
    for prefix, (name, colour) in PARTS.items():
        ends = []
        for corruption, line in zip(corruptions, CORRUPTION_LINES):
            rows = _against_eps(view, variant, prefix, corruption)
            if len(rows):
                band(axes, rows, "eps", "", {"color": colour, "linestyle": line, "marker": "o", "markersize": 2.5})
                ends.append(rows.loc[rows["eps"] == rows["eps"].max(), "value"].mean())
        if ends:
            right = max(view.about["equivalence"]["eps"])
            place = {"textcoords": "offset points", "va": "center", "fontsize": 7, "color": colour}
            axes.annotate(name, (right, max(ends)), (4, 0), **place).set_in_layout(False)
            axes.set_xlim(-0.04 * right, 1.32 * right)  # room for the words
    loss = view.estimate(variant, "elbo_cross_entropy")
    if loss is not None:
        axes.axhline(loss.mean, color="0.35", linestyle=":", linewidth=1, label="cross-entropy in training", zorder=0)
    axes.set_title(wrapped(f"{variant} ({_strokes(corruptions)})", 60))
    axes.set_ylabel("held-out (nats/token)")


def _draw_elbos(axes: Axes, view: View, corruptions: list[str]) -> None:
    """The ELBO of every variant against the noise."""
    for i, variant in enumerate(view.variants):
        for j, (corruption, line) in enumerate(zip(corruptions, CORRUPTION_LINES)):
            rows = _against_eps(view, variant, "elbo", corruption)
            if len(rows):
                band(axes, rows, "eps", "" if j else variant, {**look(i), "linestyle": line, "markersize": 2.5})
    axes.set_title("every variant, as a chain in f_hat")
    axes.set_ylabel("held-out ELBO (nats/token)")


def _log_scales(axes: Axes, view: View, metrics: dict[str, dict], label: str, extreme: str) -> None:
    """Per scale and variant, each training seed as a faint point and their mean or max as a line, on a logarithmic axis whose lower edge
    stands for exactly 0. metrics: name, and what differs from the variant's own style."""
    parts = {
        (i, variant, metric): _per_scale(view, variant, metric)
        for i, variant in enumerate(view.variants)
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
        sides = rows["scale"].astype(int).map(dict(enumerate(view.variants[variant]["patch_nums"])))
        shift = apart(i, len(view.variants), 0.04)
        shown, style = rows["value"].clip(lower=floor), {**look(i), "linestyle": "-", **metrics[metric]}
        axes.scatter(sides + shift, shown, s=6, color=style["color"], alpha=0.4, linewidth=0)
        middle = shown.groupby(sides + shift).agg(extreme)
        axes.plot(middle.index, middle.to_numpy(), label=text(variant), **style)
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(label)


def _equivalence(axes: np.ndarray, view: View) -> None:
    """The four panels of a few variants."""
    settings = view.about["equivalence"]
    corruptions = settings["corruptions"][: len(CORRUPTION_LINES)]
    (parts, elbos), (gap, path) = axes
    _draw_parts(parts, view, corruptions)
    _draw_elbos(elbos, view, corruptions)
    for panel in axes[0]:
        if not panel.lines:
            blank(panel, "no trained model was asked")
        panel.set_xlabel("eps, noise on each token (probability)")
    parts.set_ylim(bottom=0)
    _log_scales(gap, view, {"elbo_relative_gap": {}}, "|ELBO - loss| / loss, eps = 0 (share)", "max")
    if gap.lines:
        gap.axhline(GAP_CLOSED, color=RED, linestyle=":", linewidth=1, label=f"equal: at most {GAP_CLOSED:g}", zorder=0)
        gap.set_ylim(top=max(gap.get_ylim()[1], 1e2 * GAP_CLOSED))
    lines = {
        "path_kl": {},
        "path_kl_equal_state": {"linestyle": CORRUPTION_LINES[1], "markerfacecolor": "white", "clip_on": False},
    }
    _log_scales(path, view, lines, "KL of two token paths (nats/token)", "mean")
    for panel in axes[1]:
        side_ticks(panel, view)


def figure_equivalence(view: View) -> tuple[Figure, str]:
    """ELBO and its parts against the noise; gap to the cross-entropy and dependence on the path at
    every scale."""
    settings = view.about["equivalence"]
    corruptions = settings["corruptions"][: len(CORRUPTION_LINES)]
    pages = by_variant(view)
    figure = sheet(pages, (DOUBLE, 4.9), (2, 2), _equivalence)
    note(figure, missing_words(view, "elbo_relative_gap"))
    first = next(iter(view.variants))
    asked = view.select(first, "elbo_cross_entropy")["num_images"].dropna()
    count = f"N = {int(asked.iloc[0])} pictures" if len(asked) else "pictures"
    caption = (
        f"{claim(view)} All in float64 on the tokens of {count} of {held_out(view.results)}; every scale reads the state f_hat "
        f"alone. Top: negative ELBO of the discrete diffusion on the token ladder against the noise on each token ({_strokes(corruptions)}), mean of "
        f"{settings['draws']} draws of the noise per picture; left, {_chains(pages)}: with its transition and read-out "
        "terms; dotted: its cross-entropy as in training. Bottom left: relative gap between ELBO and cross-entropy without noise, "
        "scale by scale, the largest training seed; at or below the red line they are equal, for a chain in f_hat by an identity, true of "
        "any Markov hierarchy without noise. Bottom right, which could fail, from the third scale on: KL of "
        "the model's distributions on two token paths towards the same latent (path B takes the second nearest code at the first "
        "scale), mean over seeds; filled: each path with its own state; hollow: both with exactly the same state, 0 for a chain in "
        "f_hat. Faint points: one training each; symbols of one scale stand side by side; an exact 0 is drawn on the lower edge of "
        f"its panel. Bands: interval. {seeds_words(view)} {reach(view)}"
    )
    return figure, " ".join(caption.split())


def _largest(view: View, variant: str, metric: str) -> float | None:
    """The largest value over the training seeds."""
    found = view.of(variant, metric)
    return float(found.max()) if len(found) else None


def _closed(gap: float | None, missing: bool) -> str:
    """Whether a gap is 0 up to rounding in every training seed."""
    return "-" if gap is None else "not decided" if missing else "yes" if gap <= GAP_CLOSED else "no"


def _equivalence_row(view: View, variant: str) -> dict[str, str]:
    seeds = view.about["train_seeds"]
    gap, missing = _largest(view, variant, "elbo_relative_gap"), view.missing(variant, "elbo_relative_gap")
    ending = f"{view.about['equivalence']['corruptions'][0]}_eps0"
    row: dict[str, str] = {"Variant": variant, "Seeds": Cell(f"{len(seeds) - len(missing)} of {len(seeds)}")}
    row["Cross-entropy (nats/token)"] = spread(view.estimate(variant, "elbo_cross_entropy"))
    row["ELBO at eps 0 (nats/token)"] = spread(view.estimate(variant, f"elbo_{ending}"))
    row["Largest relative gap"] = number(gap)
    row["Distance of the two states"] = spread(view.estimate(variant, "path_distance"))
    row["Path KL, own states (nats/token)"] = spread(view.estimate(variant, "path_kl"))
    row["Path KL, equal state (nats/token)"] = spread(view.estimate(variant, "path_kl_equal_state"))
    row["Equal (an identity of chains)"] = _closed(gap, bool(missing))
    apart = _largest(view, variant, "path_kl_equal_state")
    row["Chain in f_hat"] = _closed(apart, bool(view.missing(variant, "path_kl_equal_state")))
    row["Status"] = by_reason(missing) or "ok"
    return row


def table_equivalence(view: View) -> tuple[pd.DataFrame, str]:
    """Cross-entropy, ELBO without noise, the gap between them and the dependence on the path, for every variant."""
    rows = [_equivalence_row(view, variant) for variant in view.variants]
    first = next(iter(view.variants))
    asked = view.select(first, "elbo_cross_entropy")["num_images"].dropna()
    count = f"{int(asked.iloc[0])} pictures" if len(asked) else "pictures"
    caption = (
        f"{claim(view)} In float64 on the tokens of {count} of {held_out(view.results)}. Cross-entropy: teacher-forced, as in "
        "training. ELBO: of the discrete diffusion without noise, every scale from the state f_hat alone. Largest relative gap: "
        "of ELBO and cross-entropy, over scales and training seeds; equal: at most 1e-10 in every seed. For a chain the equality is an "
        "identity, true of any Markov hierarchy without noise; what could fail, and makes it one, is the last path column: 0. Path "
        "columns, from the third scale on: two token paths towards the same latent, the relative distance of the states that they lead to, and "
        "KL of the model's distributions when each path has its own state, and when both have exactly the same. Above 0 there, "
        f"the conditional depends on the path and {rst('f_hat')} is no state of a chain. {seeds_words(view)} {reach(view)}"
    )
    return frame(rows), " ".join(caption.split())


# a relative gap between ELBO and cross-entropy up to here is rounding in float64; one from there on is a difference
GAP_CLOSED = 1e-10


GAP_OPEN = 1e-3


# gaps that are 0 for every Markov hierarchy without noise, whatever it has learned
IDENTITIES = ("elbo_relative_gap", "elbo_token_gap")


def judge_equal(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """A gap is closed for one model and open for another: `yes` when `metric` of every training
    seed is at most 1e-10 for the variant and above 1e-3 for what it is held against, `no` when a
    seed is on the wrong side, `not decided` while one is missing or there are fewer than three.
    ELBO and cross-entropy of a chain are equal by an identity; what can fail is
    `path_kl_equal_state`."""
    words, held, fewest = [], [], FEWEST
    for key, closed in (("variant", True), ("against", False)):
        name = claim[key]
        found, missing = view.of(name, claim["metric"]), view.missing(name, claim["metric"])
        if missing:
            words.append(f"{name}: {by_reason(missing)}")
            continue
        fewest = min(fewest, len(found))
        held.append(bool((found <= GAP_CLOSED).all() if closed else (found > GAP_OPEN).all()))
        rule = f"at most {GAP_CLOSED:g}" if closed else f"above {GAP_OPEN:g}"
        words.append(f"{name}: {show(float(found.min()))} to {show(float(found.max()))} over {len(found)} seeds, needed {rule}")
    word = "no" if not all(held) else "yes" if len(held) == 2 else "not decided"
    if fewest < FEWEST:
        word = "not decided"
        words.append("fewer than three training seeds")
    if claim["metric"] in IDENTITIES:
        words.append("the equality of a chain is an identity, true of any Markov hierarchy without noise")
    return word, "; ".join(words)
