"""ELBO and cross-entropy, and what depends on the path."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from ...report.absent import by_reason, missing_words, reach
from ...report.caption import Caption
from ...report.cells import Cell, frame, number, shown, spread, unwell
from ...report.claims import Verdict, claim_details
from ...report.curves import GREY
from ...report.drawing import (
    COLOURS,
    DOUBLE,
    RED,
    apart,
    band,
    blank,
    look_of,
    note,
    scale_places,
    side_ticks,
    text,
    wrapped,
)
from ...report.estimate import FEWEST, show
from ...report.sheets import by_variant, sheet
from ...report.view import View, pools_past
from ...report.words import held_out, seeds_details
from ...study.escaping import rst

CORRUPTION_LINES = ("-", (0, (3, 1.5)), ":", "-.")
STROKES = ("solid", "dashed", "dotted", "dash-dotted")

# prefix of a metric: what stands beside its line, its colour
PARTS = {
    "elbo": ("ELBO", "black"),
    "elbo_transition": ("transition", COLOURS[9]),
    "elbo_readout": ("read-out", COLOURS[5]),
}

# a relative gap between ELBO and cross-entropy up to here is rounding in float64
GAP_CLOSED = 1e-10
# one from here on is a difference
GAP_OPEN = 1e-3

FIRST_PATH = 2  # scale from which two token paths lead to one state

# gaps that are 0 for every Markov hierarchy without noise, whatever it has learned
IDENTITIES = ("elbo_relative_gap", "elbo_token_gap")
AN_IDENTITY = "the equality of a chain is an identity, true of any Markov hierarchy without noise"

# ---------------------------------------------------------------- figure


def _per_scale(view: View, variant: str, metric: str) -> pd.DataFrame:
    """Values per scale of the kept weights: columns train_seed, scale, value."""
    rows = view.select(variant, metric)
    rows = rows[rows["step"].isna()].dropna(subset=["scale", "value"])
    return rows[["train_seed", "scale", "value"]]


def _against_eps(view: View, variant: str, prefix: str, corruption: str) -> pd.DataFrame:
    """Values over all scales at every noise: columns train_seed, eps, value."""
    rows = []
    for eps in view.about["equivalence"]["eps"]:
        values = view.of(variant, f"{prefix}_{corruption}_eps{eps:g}")
        rows += [(seed, eps, value) for seed, value in values.items()]
    return pd.DataFrame(rows, columns=["train_seed", "eps", "value"])


def _chain(view: View) -> str:
    """The variant whose terms are taken apart: the first one that is Markov, else the first."""
    for name, about in view.variants.items():
        if about["history"] == 0 and not about["mask"] and not pools_past(about):
            return name
    return next(iter(view.variants))


def _corruptions(view: View) -> list[str]:
    """The corruptions that are drawn: as many as there are lines."""
    return view.about["equivalence"]["corruptions"][: len(CORRUPTION_LINES)]


def _strokes(view: View) -> str:
    """Which line is which corruption."""
    return ", ".join(f"{name} {stroke}" for name, stroke in zip(_corruptions(view), STROKES))


def _draw_part(axes: Axes, view: View, prefix: str, right: float) -> None:
    """One term against the noise, a line for each corruption; its name at the right end."""
    variant, (name, colour) = _chain(view), PARTS[prefix]
    ends = []
    for corruption, line in zip(_corruptions(view), CORRUPTION_LINES):
        rows = _against_eps(view, variant, prefix, corruption)
        if len(rows):
            style = {"color": colour, "linestyle": line, "marker": "o", "markersize": 2.5}
            band(axes, rows, "eps", "", style)
            ends.append(rows.loc[rows["eps"] == rows["eps"].max(), "value"].mean())
    if ends:
        place = {"textcoords": "offset points", "va": "center", "fontsize": 7, "color": colour}
        axes.annotate(name, (right, max(ends)), (4, 0), **place).set_in_layout(False)
        width = right or 1.0  # no noise alone has no width of its own
        axes.set_xlim(-0.04 * width, 1.32 * width)  # room for the words


def _draw_parts(axes: Axes, view: View) -> None:
    """ELBO, transition and read-out of one variant against the noise."""
    variant, right = _chain(view), max(view.about["equivalence"]["eps"])
    for prefix in PARTS:
        _draw_part(axes, view, prefix, right)
    loss = view.estimate(variant, "elbo_cross_entropy")
    if loss is not None:
        style = {"color": GREY, "linestyle": ":", "linewidth": 1, "zorder": 0}
        axes.axhline(loss.mean, label="cross-entropy in training", **style)
    axes.set_title(wrapped(f"{variant} ({_strokes(view)})", 60))
    axes.set_ylabel("held-out (nats/token)")


def _draw_elbos(axes: Axes, view: View) -> None:
    """The ELBO of every variant against the noise."""
    for variant in view.variants:
        for j, (corruption, line) in enumerate(zip(_corruptions(view), CORRUPTION_LINES)):
            rows = _against_eps(view, variant, "elbo", corruption)
            if len(rows):
                style = {**look_of(view, variant), "linestyle": line, "markersize": 2.5}
                band(axes, rows, "eps", "" if j else variant, style)
    axes.set_title(f"every variant, as a chain in f_hat\n({wrapped(_strokes(view), 60)})")
    axes.set_ylabel("held-out ELBO (nats/token)")


def _log_scales(
    axes: Axes,
    view: View,
    metrics: dict[str, dict],
    label: str,
    extreme: str,
    empty: str = "no trained model was asked",
) -> float | None:
    """Per scale and variant, each training seed as a faint point and their mean or max as a line,
    on a logarithmic axis. Returns where an exact 0 is drawn; None where nothing is.

    metrics: name, and what differs from the variant's own style; empty: why nothing is.
    """
    parts = {}
    for i, variant in enumerate(view.variants):
        for metric in metrics:
            parts[i, variant, metric] = _per_scale(view, variant, metric)
    values = np.concatenate([[], *(rows["value"].to_numpy(float) for rows in parts.values())])
    if not len(values):
        blank(axes, empty)
        return None
    # a decade below the smallest number above 0
    zero = 10.0 ** (math.floor(math.log10(min(values[values > 0], default=1e-16))) - 1)
    for (i, variant, metric), rows in parts.items():
        if not len(rows):
            continue
        at_side = scale_places(view, view.variants[variant]["patch_nums"])
        sides = rows["scale"].astype(int).map(at_side) + apart(i, len(view.variants), 0.04)
        style = {**look_of(view, variant), "linestyle": "-", **metrics[metric]}
        seeds = rows["value"].clip(lower=zero)
        axes.scatter(sides, seeds, s=6, color=style["color"], alpha=0.4, linewidth=0)
        middle = seeds.groupby(sides).agg(extreme)
        axes.plot(middle.index, middle.to_numpy(), label=text(variant), **style)
    axes.set_yscale("log")
    axes.set_ylim(bottom=zero)
    axes.set_ylabel(label)
    return zero


def _ticks_above_zero(axes: Axes, zero: float) -> None:
    """Powers of ten on a logarithmic axis whose lower edge stands for 0, and says so."""
    powers = LogLocator(numticks=6).tick_values(zero, axes.get_ylim()[1])
    powers = [power for power in powers if 2 * zero < power <= axes.get_ylim()[1]]
    labels = [f"$10^{{{round(math.log10(power))}}}$" for power in powers]
    axes.set_yticks([zero, *powers], ["0", *labels])
    axes.yaxis.set_minor_locator(NullLocator())


def _draw_gap(axes: Axes, view: View) -> None:
    """Relative gap between ELBO and cross-entropy without noise, scale by scale."""
    label = "|ELBO - loss| / loss, eps = 0 (share)"
    zero = _log_scales(axes, view, {"elbo_relative_gap": {}}, label, "max")
    if zero is not None:
        style = {"color": RED, "linestyle": ":", "linewidth": 1, "zorder": 0}
        axes.axhline(GAP_CLOSED, label=f"equal: at most {GAP_CLOSED:g}", **style)
        axes.set_ylim(top=max(axes.get_ylim()[1], 1e2 * GAP_CLOSED))
        _ticks_above_zero(axes, zero)


def _draw_paths(axes: Axes, view: View) -> None:
    """How far two paths to one state differ, each with its own state and both with the same."""
    hollow = {"linestyle": CORRUPTION_LINES[1], "markerfacecolor": "white"}
    lines = {"path_kl": {}, "path_kl_equal_state": {**hollow, "clip_on": False}}
    empty = "no trained model was asked"
    if max(len(names["patch_nums"]) for names in view.variants.values()) <= FIRST_PATH:
        empty = "paths meet at the third scale, no schedule has one"
    label = "KL of two token paths (nats/token)"
    zero = _log_scales(axes, view, lines, label, "mean", empty)
    if zero is not None:
        _ticks_above_zero(axes, zero)
        styles = {"each path with its own state": {}, "both paths with one state": hollow}
        for name, style in styles.items():
            axes.add_line(Line2D([], [], color=GREY, marker="o", label=name, **style))


def _equivalence(axes: np.ndarray, view: View) -> None:
    """The four panels of a few variants."""
    (parts, elbos), (gap, path) = axes
    _draw_parts(parts, view)
    _draw_elbos(elbos, view)
    for panel in axes[0]:
        if not panel.lines:
            blank(panel, "no trained model was asked")
        panel.set_xlabel("eps, noise on each token (probability)")
    parts.set_ylim(bottom=0)
    if not max(view.about["equivalence"]["eps"]):
        elbos.set_xlim(parts.get_xlim())
    _draw_gap(gap, view)
    _draw_paths(path, view)
    side_ticks(gap, view)
    side_ticks(path, view, FIRST_PATH)


def _tokens_words(view: View) -> str:
    """Which tokens were asked about."""
    first = next(iter(view.variants))
    counts = view.select(first, "elbo_cross_entropy")["num_images"].dropna()
    count = f"N = {int(counts.iloc[0])} images" if len(counts) else "images"
    return f"All in float64 on the tokens of {count} of {held_out(view.results)}."


PATHS = (
    "Two token paths towards the same latent, from the third scale on: path B takes the second "
    "nearest code at the first scale. With exactly the same state a chain in f_hat gives a KL of "
    "0; this is what could fail."
)


def figure_equivalence(view: View) -> tuple[Figure, Caption]:
    """ELBO and its parts against the noise; gap to the cross-entropy and dependence on the path at
    every scale (SRDD, arXiv 2509.22636; D3PM, arXiv 2107.03006, equation 1)."""
    pages, draws = by_variant(view), view.about["equivalence"]["draws"]
    figure = sheet(pages, (DOUBLE, 4.9), (2, 2), _equivalence)
    note(figure, missing_words(view, "elbo_relative_gap"))
    caption = (
        "Top: negative ELBO of the discrete diffusion on the token ladder against the noise, "
        "left with its transition and read-out terms. Bottom left: its relative gap to the "
        "cross-entropy, largest training seed. Bottom right: KL of the model's distributions on "
        "two token paths, mean. Faint points: one training each. Symbols of one scale stand side "
        "by side."
    )
    details = (
        *claim_details(view),
        f"{_tokens_words(view)} Every scale reads the state f_hat alone.",
        f"Top: mean of {draws} draws of the noise per image ({_strokes(view)}); left: "
        f"{', '.join(rst(_chain(page)) for page in pages)}; dotted: its cross-entropy as in "
        "training.",
        "Gap: without noise. At or below the red line the two are equal. For a chain in f_hat "
        "that is an identity, true of any Markov hierarchy without noise.",
        PATHS,
        "An exact 0 is drawn at the tick 0.",
        "Bands: interval.",
        *seeds_details(view),
        reach(view),
    )
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- table


def _largest(view: View, variant: str, metric: str) -> float | None:
    """The largest value over the training seeds."""
    values = view.of(variant, metric)
    return float(values.max()) if len(values) else None


def _closed(gap: float | None, missing: bool) -> str:
    """Whether a gap is 0 up to rounding in every training seed."""
    if gap is None:
        return "-"
    if missing:
        return "not decided"
    return "yes" if gap <= GAP_CLOSED else "no"


SPREADS = {
    "Distance of the two states": "path_distance",
    "Path KL, own states (nats/token)": "path_kl",
    "Path KL, equal state (nats/token)": "path_kl_equal_state",
}


def _equivalence_row(view: View, variant: str) -> dict[str, str]:
    """What was measured of one variant."""
    seeds, missing = view.about["train_seeds"], view.missing(variant, "elbo_relative_gap")
    gap, path = (_largest(view, variant, m) for m in ("elbo_relative_gap", "path_kl_equal_state"))
    elbo = f"elbo_{view.about['equivalence']['corruptions'][0]}_eps0"
    row: dict[str, str] = {"Variant": variant}
    row["Seeds"] = Cell(f"{len(seeds) - len(missing)} of {len(seeds)}")
    row["Cross-entropy (nats/token)"] = spread(view.estimate(variant, "elbo_cross_entropy"))
    row["ELBO at eps 0 (nats/token)"] = spread(view.estimate(variant, elbo))
    row["Largest relative gap"] = number(gap)
    for title, metric in SPREADS.items():
        row[title] = spread(view.estimate(variant, metric))
    row["Equal (an identity of chains)"] = _closed(gap, bool(missing))
    row["Chain in f_hat"] = _closed(path, bool(view.missing(variant, "path_kl_equal_state")))
    row["Status"] = by_reason(missing) or "ok"
    return row


def table_equivalence(view: View) -> tuple[pd.DataFrame, Caption]:
    """Cross-entropy, ELBO without noise, the gap between them and the dependence on the path, for
    every variant (SRDD, arXiv 2509.22636; D3PM, arXiv 2107.03006, equation 1)."""
    table = frame([_equivalence_row(view, variant) for variant in view.variants])
    caption = (
        "Training cross-entropy beside the ELBO of the discrete diffusion without noise, and the "
        "largest relative gap over scales and training seeds. Path KL: of the model's "
        "distributions on two token paths with exactly the same state. Above 0 the conditional "
        "depends on the path, and f_hat is no state of a chain."
    )
    details = (
        *claim_details(view),
        _tokens_words(view),
        "Cross-entropy: teacher-forced, as in training. ELBO: every scale from the state f_hat "
        "alone.",
        "Equal: a gap of at most 1e-10 in every seed. For a chain the equality is an identity, "
        "true of any Markov hierarchy without noise.",
        PATHS,
        "Distance: the relative distance of the states that the two paths lead to.",
        *seeds_details(view),
        reach(view),
    )
    columns = ["Variant", "Cross-entropy (nats/token)", "ELBO at eps 0 (nats/token)"]
    columns += ["Largest relative gap", "Path KL, equal state (nats/token)", "Chain in f_hat"]
    return shown(table, *columns, "Status" if unwell(table) else "Seeds"), Caption(caption, details)


# ---------------------------------------------------------------- rule


def judge_equal(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """A gap is closed for one model and open for another: `yes` when `metric` of every training
    seed is at most 1e-10 for the variant and above 1e-3 for what it is held against, `no` when a
    seed is on the wrong side, `not decided` while one is missing or there are fewer than three.

    ELBO and cross-entropy of a chain are equal by an identity; what can fail is
    `path_kl_equal_state`.
    """
    words, held, fewest = [], [], FEWEST
    for side, closed in (("variant", True), ("against", False)):
        name, metric = claim[side], claim["metric"]
        gaps, missing = view.of(name, metric), view.missing(name, metric)
        if missing:
            words.append(f"{name}: {by_reason(missing)}")
            continue
        fewest = min(fewest, len(gaps))
        held.append(bool((gaps <= GAP_CLOSED).all() if closed else (gaps > GAP_OPEN).all()))
        needed = f"at most {GAP_CLOSED:g}" if closed else f"above {GAP_OPEN:g}"
        span = f"{show(float(gaps.min()))} to {show(float(gaps.max()))}"
        words.append(f"{name}: {span} over {len(gaps)} seeds, needed {needed}")
    word = "no" if not all(held) else "yes" if len(held) == 2 else "not decided"
    if fewest < FEWEST:
        word = "not decided"
        words.append("fewer than three training seeds")
    if claim["metric"] in IDENTITIES:
        words.append(AN_IDENTITY)
    return Verdict(word, "; ".join(words), reads=(claim["metric"],))
