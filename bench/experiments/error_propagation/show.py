"""What becomes of tokens that were replaced at one scale."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...report.absent import by_reason, reach
from ...report.cells import Cell, frame, number, spread
from ...report.claims import claim
from ...report.completion import along_scales, at, count_words, extractor_words, few_words, lost, lost_words
from ...report.curves import GREY
from ...report.drawing import DOUBLE, apart, band, blank, look, note, side_ticks
from ...report.estimate import estimate
from ...report.sheets import by_variant, sheet
from ...report.view import View
from ...report.words import held_out, sample_words, samplers, seeds_words
from ...study.escaping import rst


def _error_propagation(axes: np.ndarray, view: View) -> None:
    """Drift, its ratio and the change of FID of a few variants."""
    shares, x = shares_shown(view), view.results.extractor
    ways = {
        "drift_p{p:g}": "drift of the last latent\n(share of its norm)",
        "repair_ratio_p{p:g}": "drift over its\ndirect part (ratio)",
        "fid_change_p{p:g}_{x}": f"change of {view.results.label('FID')}",
    }
    variants = view.variants
    for row, (metric, label) in zip(axes, ways.items()):
        for panel, p in zip(row, shares):
            for i, (variant, names) in enumerate(variants.items()):
                rows = along_scales(view, variant, metric.format(p=p, x=x))
                if len(rows):
                    sides = rows["scale"].astype(int).map(dict(enumerate(names["patch_nums"])))
                    shift = apart(i, len(variants), 0.06)
                    band(panel, rows.assign(side=sides + shift), "side", variant, look(i))
            if not panel.lines:
                blank(panel, "no number")
            side_ticks(panel, view)
            panel.set_xlabel("")
        row[0].set_ylabel(label)
    far = [v for name in variants for v in at(view, name, "drift_unrelated")]
    for panel, p in zip(axes[0], shares):
        panel.set_title(f"{100 * p:g} % of a scale replaced")
        if far:
            panel.axhline(np.mean(far), color=GREY, linestyle=":", linewidth=1, label="two samples of one class", zorder=0)
        panel.set_ylim(bottom=0)
    for panel in axes[1]:
        panel.axhline(1, color=GREY, linestyle="--", linewidth=0.8, zorder=0, label="neither repaired nor amplified")
    for panel in axes[2]:
        panel.axhline(0, color=GREY, linewidth=0.6, zorder=0)
        panel.set_xlabel("grid side of the scale (tokens)")


def figure_error_propagation(view: View) -> tuple[Figure, str]:
    """Drift of the last latent, drift over its direct part and change of FID against the scale that
    the errors are in."""
    shape = (3, len(shares_shown(view)))
    shared = {"sharey": "row", "sharex": True}
    figure = sheet(
        by_variant(view),
        (DOUBLE, 5.4),
        shape,
        _error_propagation,
        columns=3,
        **shared,
    )
    note(figure, lost_words(view, "drift_unrelated"))
    caption = (
        f"{claim(view)} Lines: mean, bands: interval; symbols of one scale stand side by side. Dotted: the drift between two "
        f"clean samples of one class, at which nothing of the picture is left. {error_words(view)} {reach(view)}"
    )
    return figure, " ".join(caption.split())


def _error_rows(view: View, variant: str) -> list[dict[str, str]]:
    """A row for each scale and number of wrong tokens; shares that are one number on a small grid share a row."""
    rows, x = [], view.results.extractor
    shares = sorted(view.about["error_propagation"]["shares"])
    for k, side in enumerate(view.variants[variant]["patch_nums"]):
        counts = {share: one_value(view, variant, f"tokens_replaced_p{share:g}", k) for share in shares}
        for count in dict.fromkeys(counts.values()):
            mine = [share for share in shares if counts[share] == count]
            at_p = {
                "Drift (share)": f"drift_p{mine[0]:g}",
                "Direct drift (share)": f"direct_drift_p{mine[0]:g}",
                "Drift over direct": f"repair_ratio_p{mine[0]:g}",
                f"Change of {view.results.label('FID')}": f"fid_change_p{mine[0]:g}_{x}",
                f"Change of {view.results.label('class agreement')}": f"class_agreement_change_p{mine[0]:g}_{x}",
                f"Change of {view.results.label('coverage')}": f"coverage_change_p{mine[0]:g}_{x}",
                "Change of FID (pixels)": f"fid_pixels_change_p{mine[0]:g}",
            }
            row = {
                "Variant": variant,
                "Scale": Cell(f"{k} ({side}x{side})", value=k),
                "Tokens replaced": number(count),
                "Shares": ", ".join(f"{share:g}" for share in mine),
            }
            row |= {title: spread(estimate(at(view, variant, metric, k))) for title, metric in at_p.items()}
            rows.append(row | {"Status": by_reason(lost(view, variant, f"drift_p{mine[0]:g}", k)) or "ok"})
    return rows


def table_error_propagation(view: View) -> tuple[pd.DataFrame, str]:
    """Drift, its direct part, their ratio and the change of scores for every variant, scale and number of wrong tokens."""
    table = frame([row for variant in view.variants for row in _error_rows(view, variant)])
    empty = [title for title in table.columns if title.startswith("Change") and (table[title] == "-").all()]
    far = {name: estimate(at(view, name, "drift_unrelated")) for name in view.variants}
    apart = "; ".join(f"{rst(name)} {found.mean:.2f}" for name, found in far.items() if found)
    caption = (
        f"{claim(view)} {error_words(view)} Drift between two clean samples of one class, for comparison: "
        f"{apart or 'no number'}. {reach(view)}"
    )
    return table.drop(columns=empty), " ".join(caption.split())


def one_value(view: View, variant: str, metric: str, scale: int | None = None) -> float | None:
    """The value of a metric that does not depend on the training, such as an opponent's."""
    found = at(view, variant, metric, scale)
    return float(found.iloc[0]) if len(found) else None


def shares_shown(view: View) -> list[float]:
    """At most three shares of replaced tokens: the lowest, a middle one, the highest."""
    shares = sorted(view.about["error_propagation"]["shares"])
    return [shares[int(i)] for i in sorted(set(np.linspace(0, len(shares) - 1, 3).round()))]


def error_words(view: View) -> str:
    """How the numbers of error propagation were made."""
    return (
        "Errors: so many of the tokens of one scale, at least one, are replaced by other codes, each equally likely; position and code "
        "depend on the picture's seed and the scale alone, the same in every variant; the sampler goes on with the random numbers of "
        "the clean sample. Drift: mean over pictures of the distance between the last latents with and without errors, as a share of "
        "the clean one's norm. Direct: the same with all later tokens left as they were. Drift over direct: below 1 where later "
        "scales repair, above 1 where they amplify; a sample that moves is not worse for that. "
        "Wrong tokens can lower FID: images drawn in one pass vary less than real ones, and FID rewards the noise. "
        "Whether images got worse is seen in class agreement and coverage, where the study measures them. "
        f"N = {count_words(view, 'error_propagation')} pictures, {sample_words(view.results)}; "
        f"{extractor_words(view.results)}; reference: {held_out(view.results)}."
        f"{few_words(view, 'error_propagation')} {seeds_words(view)} {samplers(view)}"
    )
