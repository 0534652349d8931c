"""The table of scale distillation: every student with its schedule, scores, cost and training."""

from __future__ import annotations

import pandas as pd

from .analysis import (
    Results,
    batches,
    by_reason,
    claim,
    full_schedule_of,
    full_schedules,
    machine,
    made_by,
    show,
    tokens_of,
    training_tokens,
)
from .cells import Cell, frame, number, spread

COSTS = {"NFE": ("nfe", 1), "Token evals": ("token_evals", 1), "MFLOP per image": ("flops", 1e6)}


def _time(results: Results, suite: str, variant: str) -> tuple[Cell, int | None]:
    """Median time per image in ms at the largest batch that was timed, and that batch."""
    sizes = [size for size in batches(results, suite) if len(results.rounds(suite, "latency_s", variant, size))]
    if not sizes:
        return Cell("-"), None
    value = float(results.rounds(suite, "latency_s", variant, sizes[-1]).median()) / sizes[-1] * 1e3
    return Cell(show(value), value=value), sizes[-1]


def _student_row(results: Results, suite: str, variant: str) -> dict[str, str]:
    """One variant: scores, paired difference to the full schedule of its mask, cost, training, status."""
    names, fid = results.variants(suite)[variant], f"fid_{results.extractor}"
    whole = full_schedule_of(results, suite, variant)
    settings, count = names["settings"], len(results.of(variant, suite, fid))
    row: dict[str, str] = {"Variant": names["group"], "Schedule": "-".join(map(str, names["patch_nums"]))}
    row["Seeds"] = Cell(f"{count} of {len(results.suite(suite)['train_seeds'])}", value=count)
    for title in ("FID", "IS"):
        row[results.label(title)] = spread(results.score(variant, suite, title.lower()))
    minus = Cell("full") if variant == whole else Cell("-") if whole is None else None
    if minus is None:
        minus = spread(results.difference(variant, suite, fid, whole), difference=True)
    row[f"{results.label('FID')} minus full schedule, paired"] = minus
    for title, (metric, unit) in COSTS.items():
        found = results.estimate(variant, suite, metric)
        row[title] = number(found and found.mean / unit)
    time, batch = _time(results, suite, variant)
    if "latency" in results.suite(suite)["measure"]:
        row["Time per image (ms)"], row["Batch"] = time, number(batch)
    row["Training steps"] = number(settings["training"] and settings["training"]["steps"])
    row["Tokens read in training (million)"] = number(training_tokens(settings) / 1e6)
    row["Status"] = by_reason(results.missing(variant, suite, fid)) or "ok"
    return row


def _line_row(results: Results, suite: str, label: str, name: str, grid: str, names: dict) -> dict[str, str]:
    """What every score is read against."""
    row: dict[str, str] = {"Variant": label, "Schedule": grid}
    for title in ("FID", "IS"):
        value = results.grid_value(names, f"{name}_{title.lower()}_{results.extractor}", suite)
        row[results.label(title)] = Cell(number(value), mean=value)
    missing = row[results.label("FID")] == "-"
    return row | {"Status": results.why(names, None) if missing else "ok"}


def table_distillation(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Scores, cost and training of the full schedules, then of every arm by schedule; floor and reconstructions below."""
    variants, whole = results.variants(suite), full_schedules(results, suite)
    order = [*whole]
    for members in results.groups(suite).values():
        students = [name for name in members if name not in whole]
        order += sorted(students, key=lambda name: (-tokens_of(variants[name]["patch_nums"]), variants[name]["patch_nums"]))
    rows = [_student_row(results, suite, variant) for variant in order]
    grids = sorted(results.grids(suite).items(), key=lambda item: -tokens_of(item[1]["patch_nums"]))
    rows.append(_line_row(results, suite, "Floor: real training pictures", "floor", "", grids[0][1]))
    rows += [_line_row(results, suite, "Reconstruction", "reconstruction", grid, names) for grid, names in grids]
    caption = [
        claim(results, suite),
        "Difference: to the variant with the same mask that the suite names with its full schedule, paired by training seed, 95 % "
        "t-interval. NFE, token evals and MFLOP are counted, guidance included, decoder excluded. Tokens read in training: steps x "
        "batch x tokens of the schedule, the teacher's included; the teacher's own forward passes and sampling are not.",
        made_by(results, suite),
    ]
    if "latency" in results.suite(suite)["measure"]:
        caption.append(
            "Time: median over interleaved rounds, decoder excluded, drawn weights; variants of the same sizes were timed once. "
            + machine(results, suite)
        )
    return frame(rows), " ".join(" ".join(caption).split())
