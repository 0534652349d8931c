"""Rows of the tables of this room. Imports no torch."""

from __future__ import annotations

from ...report.absent import by_reason, grid_status
from ...report.cells import Cell, number, spread
from ...report.estimate import estimate
from ...report.view import View
from .plan import DIRECTIONS
from .reading import NAMES, kinds_of, mean_of, ways_of, ways_without
from .swapped import CONTROL, coarse_excess, coarse_share

TITLES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "class_agreement": "Class agreement",
    "feature_distance": "Feature distance",
}


def _scores(view: View, variant: str, way: str) -> dict[str, str]:
    """Every score of a way, by degradation and their mean."""
    row: dict[str, str] = {}
    for kind in kinds_of(view):
        row[f"{kind} (dB)"] = spread(mean_of(view, variant, f"psnr_{way}_{kind}"))
    for score in DIRECTIONS:
        row[f"{TITLES[score]}, mean"] = spread(mean_of(view, variant, f"{score}_{way}"))
        for kind in kinds_of(view) if score != "psnr" else ():
            row[f"{TITLES[score]}, {kind}"] = spread(
                mean_of(view, variant, f"{score}_{way}_{kind}")
            )
    return row


def _costs(view: View, variant: str, way: str) -> dict[str, str]:
    """What an image takes."""
    tokens, time = (
        view.estimate(variant, f"{name}_{way}") for name in ("token_evals", "restore_ms")
    )
    return {"Token evals": number(tokens and tokens.mean), "ms an image": spread(time)}


def _found(view: View, variant: str) -> dict[str, str]:
    """Tokens of the clean image that are found, alone and teacher-forced."""
    row: dict[str, str] = {}
    for how, words in (("free", "alone"), ("forced", "teacher-forced, no restoration")):
        for kind in kinds_of(view):
            metric = f"token_accuracy_{how}_{kind}"
            row[f"Tokens right {words}, {kind}"] = spread(view.estimate(variant, metric))
    return row


def model_rows(view: View) -> list[dict[str, str]]:
    """A row for every way of every variant."""
    rows: list[dict[str, str]] = []
    for variant in view.variants:
        for way in ways_of(view, variant):
            row = {"Variant": variant, "Decoding": NAMES[way], **_scores(view, variant, way)}
            row |= _costs(view, variant, way)
            row |= _found(view, variant) if way == "argmax" else {}
            row["Status"] = by_reason(view.missing(variant, f"psnr_{way}")) or "ok"
            rows.append(row)
        if not ways_of(view, variant):
            why = by_reason(view.missing(variant, "psnr_restored"))
            rows.append({"Variant": variant, "Status": why or "not measured"})
    return rows


def baseline_rows(view: View) -> list[dict[str, str]]:
    """A row for every way without a scale transformer, of the first variant's tokenizers."""
    first = next(iter(view.variants))
    rows = []
    for way in ways_without(view):
        name = {"Variant": f"({NAMES[way]})", "Decoding": ""}
        status = grid_status(view, view.variants[first], f"psnr_{way}")
        rows.append({**name, **_scores(view, first, way), "Status": status})
    return rows


def swap_row(view: View, kind: str) -> dict[str, str]:
    """What a degradation costs in either half of the scales, and of the control."""
    first = next(iter(view.variants))
    names = view.variants[first]
    K, row = len(names["patch_nums"]), {"Degradation": kind}
    for title, metric in (
        ("Coarse half degraded (dB)", f"swap_coarse_{kind}"),
        ("Fine half degraded (dB)", f"swap_fine_{kind}"),
        ("Coarse half, quantised again (dB)", f"swap_again_coarse_{kind}"),
        ("Fine half, quantised again (dB)", f"swap_again_fine_{kind}"),
    ):
        row[title] = _at(view, first, metric, K // 2)
    row["Coarse share of the added error"] = spread(estimate(coarse_share(view, first, kind)))
    if kind != CONTROL:
        excess = estimate(coarse_excess(view, first, kind))
        row["Beyond the control"] = spread(excess, difference=True)
    for k in range(K):
        row[f"Scale {k} alone (dB)"] = _at(view, first, f"swap_alone_{kind}", k)
        row[f"Scale {k}, tokens unchanged"] = _at(view, first, f"tokens_same_{kind}", k)
    return row


def _at(view: View, variant: str, metric: str, scale: int) -> Cell:
    """A number of the tokenizer at a scale."""
    means = view.grid_scales(view.variants[variant], metric)
    return number(float(means[scale]) if scale in means.index else None)
