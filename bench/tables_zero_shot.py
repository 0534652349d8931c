"""Tables of tasks that nothing was trained for, and of errors that are put into a sample."""

from __future__ import annotations

import pandas as pd

from .analysis import Results, claim, samplers, seeds_words
from .cells import frame, number, spread
from .figures_zero_shot import OPPONENT, OPPONENTS, TASKS, asked, boxes_asked, boxes_words, true_scales


def table_zero_shot(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Every task: PSNR, SSIM, class agreement and FID of the completed set, for every variant, the opponent and the ceiling."""
    rows, x, first = [], results.extractor, next(iter(results.variants(suite)))
    tasks = [(task, None) for task in boxes_asked(results, suite)]
    tasks += [("super_resolution", m) for m in true_scales(results, suite)]
    for task, m in tasks:
        makers = {variant: (variant, "") for variant in results.variants(suite)}
        makers |= {OPPONENTS[key]: (first, f"{key}_") for key in (OPPONENT[task], "ceiling")}
        for name, (variant, prefix) in makers.items():
            found = lambda what, v=variant, p=prefix: spread(results.at(v, suite, f"{p}{task}_{what}", m))  # noqa: B023,E731
            row = {"Task": TASKS[task] + (f", m = {m}" if m else ""), "Made by": name}
            row |= {"PSNR unknown (dB)": "" if m else found("psnr_unknown"), "PSNR whole (dB)": found("psnr_whole")}
            row |= {"SSIM unknown": "" if m else found("ssim_unknown"), "SSIM whole": found("ssim_whole")}
            row[results.label("Class agreement")] = found(f"class_agreement_{x}")
            row[f"{results.label('FID')} of the completed set"] = found(f"fid_{x}")
            lost = not prefix and results.at(variant, suite, f"{task}_psnr_whole", m) is None
            row["Status"] = (
                results.why(results.variants(suite)[variant], results.suite(suite)["train_seeds"][0]) if lost else "ok"
            )
            rows.append(row)
    caption = (
        f"{claim(results, suite)} Completions of {asked(results, suite)}, decoded whole, known pixels not pasted. FID of a completed set "
        "against the held-out split, whose pictures it completes: not comparable with FID of free generation. PSNR: mean over pictures, a "
        "picture less than a quarter of a grey level off counts as that. Opponents and ceiling do not depend on the training seed. "
        f"{boxes_words(results, suite)} {seeds_words(results, suite)} {samplers(results, suite)}"
    )
    return frame(rows or [{"Task": "none", "Status": "no number"}]), caption


def table_error_propagation(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Drift, direct error, their ratio and the change of FID for every variant, corrupted scale and share."""
    rows = []
    for variant, names in results.variants(suite).items():
        for k, side in enumerate(names["patch_nums"]):
            for share in results.suite(suite)["error_propagation"]["shares"]:
                p = f"p{share:g}"
                row = {"Variant": variant, "Scale": number(k), "Grid": f"{side}x{side}", "Share corrupted": number(share)}
                row["Drift"] = spread(results.at(variant, suite, f"drift_{p}", k))
                row["Direct error"] = spread(results.at(variant, suite, f"drift_direct_{p}", k))
                row["Drift / direct"] = spread(results.at(variant, suite, f"drift_ratio_{p}", k))
                change = results.at(variant, suite, f"fid_change_{p}_{results.extractor}", k)
                row[f"Change of {results.label('FID')}"] = spread(change, difference=True)
                missing = results.at(variant, suite, f"drift_{p}", k) is None
                row["Status"] = results.why(names, results.suite(suite)["train_seeds"][0]) if missing else "ok"
                rows.append(row)
    caption = (
        f"{claim(results, suite)} Drift: relative distance of the final latent state to that of the clean sample, mean over pictures. "
        "Direct error: the same if all later tokens had stayed as they were. A share of few tokens is at least one token. "
        f"{seeds_words(results, suite)} {samplers(results, suite)}"
    )
    return frame(rows), caption
