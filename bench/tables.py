"""Verb: the tables of a study, from metrics.csv and runs.csv alone.

    python -m bench.tables ORIGIN TARGET [names...]

A table is a function `table_<name>(results, suite) -> (DataFrame of cells, caption)`. A cell is the text that the .md shows and
the numbers behind it, which the .csv gives each a column of its own. A number that is missing is `-`, with its status in the row.
"""

from __future__ import annotations

import importlib
import math

import pandas as pd

from .analysis import (
    Results,
    batches,
    by_reason,
    claim,
    fid_differences,
    floor_has_labels,
    floor_s,
    floors,
    held_out,
    largest_words,
    latency_verdict,
    machine,
    made_by,
    over_floor,
    rates_words,
    ratio,
    run_verb,
    samplers,
    show,
    show_ratio,
)
from .cells import Cell, frame, number, spread, write_table
from .tables_diffusion import table_equivalence  # noqa: F401
from .tables_distill import table_distillation  # noqa: F401 (found by name)
from .tables_sweep import table_claims, table_guidance, table_sampling_probability  # noqa: F401 (found by name)
from .tables_zero_shot import table_error_propagation, table_zero_shot  # noqa: F401 (found by name)

SCORES = {
    "FID": "fid",
    "KID": "kid",
    "IS": "is",
    "Precision": "precision",
    "Recall": "recall",
    "Class agreement": "class_agreement",
}
COSTS = {"NFE": ("nfe", 1), "Token evals": ("token_evals", 1), "MFLOP per image": ("flops", 1e6)}


# ---------------------------------------------------------------- scores


def _score_row(results: Results, suite: str, variant: str) -> dict[str, str]:
    """One variant: scores, paired difference, loss, cost, status."""
    fid = f"fid_{results.extractor}"
    first, total = next(iter(results.variants(suite))), len(results.suite(suite)["train_seeds"])
    count = len(results.of(variant, suite, fid))
    row: dict[str, str] = {"Variant": variant, "Seeds": Cell(f"{count} of {total}", value=count)}
    for title, name in SCORES.items():
        row[results.label(title)] = spread(results.score(variant, suite, name))
    difference = Cell("first") if variant == first else spread(results.difference(variant, suite, fid), difference=True)
    row[f"{results.label('FID')} minus {first}, paired"] = difference
    row["Held-out loss (nats/token)"] = spread(results.estimate(variant, suite, "kept_loss_test"))
    for title, (metric, unit) in COSTS.items():
        found = results.estimate(variant, suite, metric)
        row[title] = number(found and found.mean / unit)
    row |= _published_cells(results, suite, variant)
    row["Status"] = by_reason(results.missing(variant, suite, fid)) or "ok"
    return row


def _published_cells(results: Results, suite: str, variant: str) -> dict[str, str]:
    """What others printed, in columns of their own: their evaluator is not ours."""
    titles, row = {name: title for title, name in SCORES.items()}, {}
    for one in results.suite(suite).get("published", []):
        column = f"Published {titles[one['metric']]} (its own evaluator)"
        row.setdefault(column, "")
        if one["variant"] == variant:
            row[column] = Cell(f"{one['value']:g} ({one['source']})", value=one["value"])
    return row


def _line_row(results: Results, name: str, label: str, names: dict) -> dict[str, str]:
    """What every score is read against: real training pictures, or pictures through the tokenizer."""
    row: dict[str, str] = {"Variant": label}
    values = {title: results.grid_value(names, f"{name}_{metric}_{results.extractor}") for title, metric in SCORES.items()}
    row |= {results.label(title): Cell(number(value), mean=value) for title, value in values.items()}
    row["Status"] = "ok" if values["FID"] is not None else results.why(names, None)
    return row


def table_scores(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """FID, KID, IS, precision, recall and class agreement of every variant, with floor and reconstruction below."""
    rows = [_score_row(results, suite, variant) for variant in results.variants(suite)]
    grids = results.grids(suite)
    floors = {results.grid_value(names, f"floor_fid_{results.extractor}"): names for names in grids.values()}
    names = floors[next((value for value in floors if value is not None), next(iter(floors)))]
    rows.append(_line_row(results, "floor", "Floor: real training pictures", names))
    rows += [_line_row(results, "reconstruction", f"Reconstruction, schedule {grid}", names) for grid, names in grids.items()]
    table = frame(rows)
    empty = [results.label(t) for t in SCORES if (table[results.label(t)] == "-").all() and t != "FID"]
    counts = results.of_grid(names, f"floor_fid_{results.extractor}")["num_images"].dropna()
    ideal = (
        "what a perfect generator and a perfect prior over these tokens score"
        if floor_has_labels(results, suite)
        else "in the shares of the training split, which the labels of the variants do not have, so that a perfect generator need not "
        "score the same"
    )
    words = [
        claim(results, suite),
        made_by(results, suite),
        f"Floor and reconstruction: {int(counts.iloc[0])} training pictures, as they are and through the tokenizer, against the "
        f"same reference; {ideal}."
        if len(counts)
        else "",
        "Held-out loss of the kept weights. Each variant's cost per picture includes guidance.",
        fid_differences(results, suite),
        "Published: as the source prints it, by its own evaluator and settings; never compared with ours."
        if results.suite(suite).get("published")
        else "",
    ]
    return table.drop(columns=empty), " ".join(filter(None, words))


# ---------------------------------------------------------------- tokenizer


def _tokenizer_rows(results: Results, grid: str, names: dict) -> list[dict[str, str]]:
    """A row for the whole schedule, then one for each scale."""
    errors = {split: results.grid_value(names, f"reconstruction_mse_{split}") for split in ("train", "test")}
    status = "ok" if errors["test"] is not None else results.why(names, None)
    head = {"Schedule": grid, "Scale": "all", "Grid": ""}
    whole = {"Error train (mse)": number(errors["train"]), "Error held-out (mse)": number(errors["test"])}
    rows: list[dict[str, str]] = [head | whole]
    metrics = ("codes_used", "code_perplexity", "codes_usable", "scale_collapsed")
    parts = {metric: results.grid_scales(names, metric) for metric in metrics}
    for k, side in enumerate(names["patch_nums"]):
        value = {metric: part.get(float(k)) for metric, part in parts.items()}
        rows.append({
            "Schedule": grid,
            "Scale": Cell(str(k), value=k),
            "Grid": f"{side}x{side}",
            "Codes used": number(value["codes_used"]),
            "Perplexity": number(value["code_perplexity"]),
            "Codes usable": number(value["codes_usable"]),
            "Collapsed": {1: "yes", 0: "no"}.get(value["scale_collapsed"], "-"),
        })  # fmt: skip
    blank = {key: "" for key in (*rows[0], *rows[-1])}
    return [{**blank, **row, "Status": status} for row in rows]


def table_tokenizer(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Reconstruction error of each schedule, and the codes that each of its scales uses on held-out pictures."""
    rows = [row for grid, names in results.grids(suite).items() for row in _tokenizer_rows(results, grid, names)]
    tokenizers = sorted({names["tokenizer"] for names in results.variants(suite).values()})
    caption = (
        f"{claim(results, suite)} Tokenizer {', '.join(tokenizers)} under each schedule of the suite. Error: mean square of "
        f"pictures in [-1, 1]. Codes: on {held_out(results)}; perplexity is exp of the entropy of the codes in use; a scale has "
        "collapsed when that is a quarter or less of the codes that it could use. One tokenizer training, no interval."
    )
    return frame(rows), caption


# ---------------------------------------------------------------- latency


def _latency_row(results: Results, suite: str, variant: str, batch: int) -> dict[str, str]:
    """One variant at one batch size."""
    first = next(iter(results.variants(suite)))
    times, decoder = (results.rounds(suite, metric, variant, batch) / batch * 1e3 for metric in ("latency_s", "decoder_s"))
    peak = results.latency(suite, "peak_memory_bytes")
    peak = peak.loc[(peak["variant"] == variant) & (peak["num_images"] == batch), "value"].dropna()
    row: dict[str, str] = {"Variant": variant, "Batch": number(batch), "Rounds": number(len(times))}
    row["Time per image (ms)"] = number(times.median())
    low, high = times.quantile(0.25), times.quantile(0.75)
    row["Quartiles (ms)"] = Cell(f"{show(low)} to {show(high)}" if len(times) else "-", low=low, high=high)
    least, over = floor_s(results, suite, variant, batch), over_floor(results, suite, variant, batch)
    row["Floor per image (ms)"] = number(least and least / batch * 1e3)
    values = (math.exp(v) for v in (over.mean, over.low, over.high)) if over else ()
    row["Time / floor"] = Cell(show_ratio(over), **dict(zip(("mean", "low", "high"), values)))
    row["Decoder per image (ms)"] = number(decoder.median())
    row["Peak memory (MiB)"] = number(peak.iloc[0] / 2**20 if len(peak) else None)
    found, word = ratio(results, suite, variant, batch)
    if found is None:
        row[f"Time / {first}"] = Cell("-")
    elif variant == first:
        row[f"Time / {first}"] = Cell("1")
    else:
        centre, low, high = (math.exp(v) for v in (found.mean, found.low, found.high))
        text = f"{centre:.3f} [{low:.3f}, {high:.3f}] {word}" if found.half is not None else f"{centre:.3f} (one round)"
        row[f"Time / {first}"] = Cell(text, mean=centre, low=low, high=high)
    for title, (metric, unit) in COSTS.items():
        cost = results.latency(suite, metric)
        cost = cost.loc[cost["variant"] == variant, "value"].dropna()
        row[title] = number(cost.iloc[0] / unit if len(cost) else None)
    row["Status"] = "ok" if len(times) else "oom"  # a batch that does not fit is the one cell without rounds
    return row


def table_latency(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Time per image, decoder time and peak memory of every variant and batch size, and the ratio to the first variant."""
    run, sizes = results.latency_run(suite), batches(results, suite)
    rows = [_latency_row(results, suite, variant, batch) for batch in sizes for variant in results.variants(suite)]
    if not rows:  # the whole run failed, or none was asked for
        status = "not run" if run is None else f"{run['status']} ({run['reason']})"
        rows = [{"Variant": variant, "Time per image (ms)": "-", "Status": status} for variant in results.variants(suite)]
    table = frame(rows)
    if not len(floors(results, suite)):  # timed by an older version
        table = table.drop(columns=["Floor per image (ms)", "Time / floor"], errors="ignore")
    caption = (
        f"{claim(results, suite)} Median and quartiles over interleaved rounds in one process, warm-up excluded; from the first "
        "scale to the latent state, the decoder timed apart. Peak memory: bytes that tensors hold above the weights. Time ratio: "
        f"geometric mean over paired rounds with 95 % t-interval. Weights are drawn, not trained. {samplers(results, suite)} "
        f"{largest_words(results, suite)} {rates_words(results, suite)} {latency_verdict(results, suite)} {machine(results, suite)}"
    )
    return table, " ".join(caption.split())


if __name__ == "__main__":
    # the module read to its end, so that a function may stand below this line too
    run_verb("tables", importlib.import_module("bench.tables"), write_table)
