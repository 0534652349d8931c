"""Tables of zero-shot tasks and of error propagation."""

from __future__ import annotations

import pandas as pd

from .analysis import Results, by_reason, claim, estimate, paired, reach, rst
from .analysis_zero_shot import (
    CEILING,
    RIVAL_NAMES,
    RIVALS,
    TASKS,
    at,
    error_words,
    extractor_words,
    few_words,
    lost,
    one_value,
    protocol,
    tasks,
    true_scales,
    zero_shot_words,
)
from .cells import Cell, frame, number, spread

LIKENESS = {
    "PSNR unknown (dB)": "psnr_unknown",
    "SSIM unknown": "ssim_unknown",
    "PSNR whole (dB)": "psnr_whole",
    "SSIM whole": "ssim_whole",
}
SCORES = {"Class agreement": "class_agreement", "Feature distance": "feature_distance", "FID, completed": "fid"}


def _columns(results: Results) -> dict[str, str]:
    """Column title: ending of the metric."""
    return LIKENESS | {results.label(title): f"{name}_{results.extractor}" for title, name in SCORES.items()}


def _variant_row(results: Results, suite: str, variant: str, task: str, m: int | None) -> dict[str, str]:
    """One variant at one task."""
    row = {title: spread(estimate(at(results, variant, suite, f"{task}_{name}", m))) for title, name in _columns(results).items()}
    main = f"{task}_psnr_{'whole' if m is not None else 'unknown'}"
    if m is not None:
        row |= {title: "" for title in LIKENESS if "unknown" in title}
    first = next(iter(results.variants(suite)))
    pair = (at(results, name, suite, main, m) for name in (first, variant))
    row["PSNR minus the first, paired (dB)"] = Cell("first") if variant == first else spread(paired(*pair), difference=True)
    return row | {"Status": by_reason(lost(results, suite, variant, main, m)) or "ok"}


def _fixed_row(results: Results, suite: str, prefix: str, task: str, m: int | None) -> dict[str, str]:
    """An opponent, the same for every training, or the ceiling, which has an interval where each training seed has a tokenizer
    of its own; taken from the first variant that has it."""
    row: dict[str, str] = {}
    for title, name in _columns(results).items():
        if m is not None and "unknown" in title:
            row[title] = ""
            continue
        metric, at_m = f"{prefix}_{task}_{name}", m
        if prefix == "ceiling" and "unknown" not in name:
            metric, at_m = f"ceiling_{name}", None
        values = (at(results, variant, suite, metric, at_m) for variant in results.variants(suite))
        found = estimate(next((value for value in values if len(value)), []))
        alone = found is None or not found.half
        row[title] = Cell(number(found and found.mean), mean=found and found.mean) if alone else spread(found)
    return row | {"Status": "ok" if any(cell not in ("-", "") for cell in row.values()) else "no number"}


def table_zero_shot(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Likeness and scores of completed pictures for every task and variant, with the opponent and the ceiling below."""
    rows = []
    for task in tasks(results, suite):
        for m in true_scales(results, suite) if task == "super_resolution" else [None]:
            head = {"Task": TASKS[task] + (f", m = {m}" if m is not None else "")}
            for variant, names in results.variants(suite).items():
                if m is None or m < len(names["patch_nums"]):
                    rows.append({**head, "Variant": variant, **_variant_row(results, suite, variant, task, m)})
            rival = RIVALS[task]
            rows.append({**head, "Variant": RIVAL_NAMES[rival], **_fixed_row(results, suite, rival, task, m)})
            rows.append({**head, "Variant": CEILING, **_fixed_row(results, suite, "ceiling", task, m)})
    table = frame(rows)
    empty = [title for title in _columns(results) if table[title].isin(["-", ""]).all() and title not in LIKENESS]
    several = len(results.grids(suite)) > 1
    caption = (
        f"{claim(results, suite)} {protocol(results, suite)} Feature distance: mean L2 distance between features of the completed "
        "picture and of the true one. FID of the completed pictures against the split that they come from: they share known tokens "
        "with the reference, so that it must not be compared with the FID of generated pictures. Opponents do not depend on the "
        "training, no interval, reconstruction on the tokenizer alone"
        f"{'; they are those of the first variant, schedules differ' if several else ''}. "
        f"Scores: {extractor_words(results)}.{few_words(results, suite, 'zero_shot')} {zero_shot_words(results, suite)}"
    )
    return table.drop(columns=empty), caption


def _error_rows(results: Results, suite: str, variant: str) -> list[dict[str, str]]:
    """A row for each scale and number of wrong tokens; shares that are one number on a small grid share a row."""
    rows, x = [], results.extractor
    shares = sorted(results.suite(suite)["error_propagation"]["shares"])
    for k, side in enumerate(results.variants(suite)[variant]["patch_nums"]):
        counts = {share: one_value(results, variant, suite, f"tokens_replaced_p{share:g}", k) for share in shares}
        for count in dict.fromkeys(counts.values()):
            mine = [share for share in shares if counts[share] == count]
            at_p = {
                "Drift (share)": f"drift_p{mine[0]:g}",
                "Direct drift (share)": f"direct_drift_p{mine[0]:g}",
                "Drift over direct": f"repair_ratio_p{mine[0]:g}",
                f"Change of {results.label('FID')}": f"fid_change_p{mine[0]:g}_{x}",
                f"Change of {results.label('class agreement')}": f"class_agreement_change_p{mine[0]:g}_{x}",
                f"Change of {results.label('coverage')}": f"coverage_change_p{mine[0]:g}_{x}",
                "Change of FID (pixels)": f"fid_pixels_change_p{mine[0]:g}",
            }
            row = {
                "Variant": variant,
                "Scale": Cell(f"{k} ({side}x{side})", value=k),
                "Tokens replaced": number(count),
                "Shares": ", ".join(f"{share:g}" for share in mine),
            }
            row |= {title: spread(estimate(at(results, variant, suite, metric, k))) for title, metric in at_p.items()}
            rows.append(row | {"Status": by_reason(lost(results, suite, variant, f"drift_p{mine[0]:g}", k)) or "ok"})
    return rows


def table_error_propagation(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Drift, its direct part, their ratio and the change of scores for every variant, scale and number of wrong tokens."""
    table = frame([row for variant in results.variants(suite) for row in _error_rows(results, suite, variant)])
    empty = [title for title in table.columns if title.startswith("Change") and (table[title] == "-").all()]
    far = {name: estimate(at(results, name, suite, "drift_unrelated")) for name in results.variants(suite)}
    apart = "; ".join(f"{rst(name)} {found.mean:.2f}" for name, found in far.items() if found)
    caption = (
        f"{claim(results, suite)} {error_words(results, suite)} Drift between two clean samples of one class, for comparison: "
        f"{apart or 'no number'}. {reach(results, suite)}"
    )
    return table.drop(columns=empty), " ".join(caption.split())
