"""What becomes of tokens that were replaced at one scale."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.absent import by_reason, reach
from ...report.caption import Caption
from ...report.cells import Cell, frame, number, shown, spread, unwell
from ...report.claims import claim_details
from ...report.completion import (
    along_scales,
    at,
    count_words,
    extractor_words,
    few_words,
    lost,
    lost_words,
)
from ...report.curves import GREY
from ...report.drawing import (
    DOUBLE,
    apart,
    band,
    blank,
    look_of,
    note,
    scale_places,
    side_ticks,
)
from ...report.estimate import estimate
from ...report.sheets import by_variant, sheet
from ...report.view import View
from ...report.words import (
    reference_words,
    sample_words,
    samplers,
    seeds_details,
    with_classes,
)
from ...study.escaping import rst


def _two(view: View, samples: str) -> str:
    """Samples that are compared, of one class where the models know some."""
    return f"{samples} of one class" if with_classes(view) else samples


def shares_shown(view: View) -> list[float]:
    """At most three shares of replaced tokens: the lowest, a middle one, the highest."""
    shares = sorted(view.about["error_propagation"]["shares"])
    places = sorted(set(np.linspace(0, len(shares) - 1, 3).round()))
    return [shares[int(i)] for i in places]


# ---------------------------------------------------------------- figure


def _draw(axes: Axes, view: View, metric: str) -> None:
    """A metric of every variant against the grid side of the scale that the errors are in."""
    for i, (variant, names) in enumerate(view.variants.items()):
        rows = along_scales(view, variant, metric)
        if len(rows):
            at_side = rows["scale"].astype(int).map(scale_places(view, names["patch_nums"]))
            beside = at_side + apart(i, len(view.variants), 0.06)
            band(axes, rows.assign(side=beside), "side", variant, look_of(view, variant))
    if not axes.lines:
        blank(axes, "not measured")
    side_ticks(axes, view)


def _error_propagation(axes: np.ndarray, view: View) -> None:
    """Drift, its ratio and the change of FID of a few variants."""
    drifts, ratios, changes = axes
    shares, style = shares_shown(view), {"color": GREY, "zorder": 0}
    for column, p in enumerate(shares):
        _draw(drifts[column], view, f"drift_p{p:g}")
        _draw(ratios[column], view, f"repair_ratio_p{p:g}")
        _draw(changes[column], view, f"fid_change_p{p:g}_{view.results.extractor}")
    drifts[0].set_ylabel("drift of the last latent\n(share of its norm)")
    ratios[0].set_ylabel("drift over its\ndirect part (ratio)")
    changes[0].set_ylabel(f"change of {view.results.label('FID')}")
    unrelated = [v for name in view.variants for v in at(view, name, "drift_unrelated")]
    for panel, p in zip(drifts, shares):
        panel.set_title(f"{100 * p:g} % of a scale replaced")
        if unrelated:
            label = f"two {_two(view, 'samples')}"
            panel.axhline(np.mean(unrelated), linestyle=":", linewidth=1, label=label, **style)
        panel.set_ylim(bottom=0)
    for panel in ratios:
        label = "neither repaired nor amplified"
        panel.axhline(1, linestyle="--", linewidth=0.8, label=label, **style)
    for panel in changes:
        panel.axhline(0, linewidth=0.6, **style)
    for panel in (*drifts, *ratios):
        panel.set_xlabel("")


def figure_error_propagation(view: View) -> tuple[Figure, Caption]:
    """Drift of the last latent, drift over its direct part and change of FID against the scale that
    the errors are in."""
    pages, shape = by_variant(view), (3, len(shares_shown(view)))
    last_row = range(2 * shape[1], 3 * shape[1])  # changes of FID
    draw = _error_propagation
    figure = sheet(
        pages, (DOUBLE, 5.4), shape, draw, columns=3, far=last_row, sharey="row", sharex=True
    )
    note(figure, lost_words(view, "drift_unrelated"))
    caption = (
        "What becomes of tokens that are replaced at one scale: drift of the last latent, drift "
        "over its direct part, change of FID. Lines: mean, bands: interval; symbols of one scale "
        f"stand side by side. Dotted: two {_two(view, 'clean samples')}, at which nothing of the "
        "image is left."
    )
    asked = view.about["error_propagation"]["shares"]
    rest = sorted(set(asked) - set(shares_shown(view)))
    percent = ", ".join(f"{100 * share:g} %" for share in rest)
    left_out = f"Asked and not drawn: {percent}; see the table." if rest else ""
    details = (*claim_details(view), left_out, *error_details(view), reach(view))
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- table


def one_value(view: View, variant: str, metric: str, scale: int | None = None) -> float | None:
    """The value of a metric that does not depend on the training."""
    values = at(view, variant, metric, scale)
    return float(values.iloc[0]) if len(values) else None


CHANGES = {"FID": "fid", "class agreement": "class_agreement", "coverage": "coverage"}


def _metrics(view: View, p: float) -> dict[str, str]:
    """Metrics of a share of replaced tokens, by column title; of further extractors FID alone."""
    results, end = view.results, f"change_p{p:g}"
    changes = {
        f"Change of {results.label(title)}": f"{name}_{end}_{results.extractor_of(name)}"
        for title, name in CHANGES.items()
    }
    others = {
        f"Change of {asked.label('FID')}": f"fid_{end}_{asked.extractor}"
        for asked in map(results.by, results.others)
    }
    drifts = {
        "Drift (share)": f"drift_p{p:g}",
        "Direct drift (share)": f"direct_drift_p{p:g}",
        "Drift over direct": f"repair_ratio_p{p:g}",
    }
    return {**drifts, **changes, "Change of FID (pixels)": f"fid_pixels_{end}", **others}


def _scale_rows(view: View, variant: str, k: int) -> list[dict[str, str]]:
    """A row for each number of wrong tokens of a scale; shares that are one number on a small grid
    share a row."""
    side = view.variants[variant]["patch_nums"][k]
    shares_of: dict[float | None, list[float]] = {}
    for share in sorted(view.about["error_propagation"]["shares"]):
        count = one_value(view, variant, f"tokens_replaced_p{share:g}", k)
        shares_of.setdefault(count, []).append(share)
    rows = []
    for count, shares in shares_of.items():
        row: dict[str, str] = {"Variant": variant, "Scale": Cell(f"{k} ({side}x{side})", value=k)}
        row["Tokens replaced"] = number(count)
        row["Shares"] = ", ".join(f"{share:g}" for share in shares)
        for title, metric in _metrics(view, shares[0]).items():
            row[title] = spread(estimate(at(view, variant, metric, k)))
        missing = by_reason(lost(view, variant, f"drift_p{shares[0]:g}", k))
        rows.append(row | {"Status": missing or "ok"})
    return rows


def _unrelated_words(view: View) -> str:
    """The drift at which nothing of an image is left."""
    words = []
    for name in view.variants:
        drift = estimate(at(view, name, "drift_unrelated"))
        if drift:
            words.append(f"{rst(name)} {drift.mean:.2f}")
    drifts = "; ".join(words) or "not measured"
    return f"Drift between two {_two(view, 'clean samples')}, for comparison: {drifts}."


def _table(view: View) -> pd.DataFrame:
    """All columns that have a number, and which of them a reader needs."""
    rows = []
    for variant, names in view.variants.items():
        for k in range(len(names["patch_nums"])):
            rows += _scale_rows(view, variant, k)
    table, empty = frame(rows), []
    for title in table.columns:
        if title.startswith("Change") and (table[title] == "-").all():
            empty.append(title)
    agreement = f"Change of {view.results.label('class agreement')}"
    last = "Status" if unwell(table) else agreement
    columns = ["Variant", "Scale", "Tokens replaced", "Drift (share)", "Drift over direct"]
    return shown(
        table.drop(columns=empty), *columns, f"Change of {view.results.label('FID')}", last
    )


def table_error_propagation(view: View) -> tuple[pd.DataFrame, Caption]:
    """Drift, its direct part, their ratio and the change of scores for every variant, scale and
    number of wrong tokens."""
    caption = (
        "Drift of the last latent after so many tokens of a scale were replaced, and drift over "
        "its direct part. Below 1 later scales repair, above 1 they amplify. Change "
        "of scores: with errors minus without, same seeds."
    )
    details = (*claim_details(view), *error_details(view), _unrelated_words(view), reach(view))
    return _table(view), Caption(caption, details)


# ---------------------------------------------------------------- in words


def error_details(view: View) -> tuple[str, ...]:
    """Details of a caption: how the numbers of error propagation were made."""
    return (
        "Errors: so many of the tokens of one scale, at least one, are replaced by other codes, "
        "each equally likely. Position and code depend on the image's seed and the scale alone, "
        "the same in every variant. The sampler goes on with the random numbers of the clean "
        "sample.",
        "Drift: mean over images of the distance between the last latents with and without "
        "errors, as a share of the clean one's norm. Direct: the same with all later tokens left "
        "as they were.",
        "Drift over direct: below 1 where later scales repair, above 1 where they amplify; a "
        "sample that moves is not worse for that.",
        "Wrong tokens can lower FID: images drawn in one pass vary less than real ones, and FID "
        "rewards the noise. Whether images got worse is seen in class agreement and coverage, "
        "where the study measures them.",
        f"N = {count_words(view, 'error_propagation')} images, {sample_words(view.results)}.",
        f"Scores: {extractor_words(view.results)}.",
        # that of all scores of the study, which may be a file's
        reference_words(view.results),
        few_words(view, "error_propagation"),
        *seeds_details(view),
        samplers(view),
    )
