"""Verb: the tables of a study, from metrics.csv and runs.csv alone.

    python -m bench tables ORIGIN TARGET [names...]

A table is a function `table_<name>(results, suite) -> (DataFrame of cells, caption)`. A cell is the text that the .md shows and
the numbers behind it, which the .csv gives each a column of its own. A number that is missing is `-`, with its status in the row.
"""

from __future__ import annotations

import math
import sys

import pandas as pd

from ..study.scores import kid_is_exact
from .analysis import (
    FEWEST,
    NOISE,
    Results,
    batches,
    by_reason,
    claim,
    floor_has_labels,
    floor_s,
    floors,
    held_out,
    holm,
    kept_words,
    largest_words,
    latency_verdict,
    machine,
    made_by,
    over_floor,
    rates_words,
    ratio,
    rounds_words,
    run_verb,
    samplers,
    seeds_words,
    show,
    show_ratio,
    tokenizers_words,
    verdict,
)
from .cells import Cell, frame, number, spread, write_table
from .tables_diffusion import table_equivalence  # noqa: F401
from .tables_distill import table_distillation  # noqa: F401 (found by name)
from .tables_sweep import (  # noqa: F401 (found by name)
    table_claims,
    table_guidance,
    table_sampling_probability,
)
from .tables_zero_shot import table_error_propagation, table_zero_shot  # noqa: F401 (found by name)

# title and name of a score; the evaluator's name stands in the title's brackets
SCORES = {
    "FID": "fid",
    "FID (pixels)": "fid_pixels",
    "Density": "density",
    "Coverage": "coverage",
    "Precision": "precision",
    "Recall": "recall",
    "Class agreement": "class_agreement",
    "CAS": "cas",
    "IS": "is",
    "KID": "kid",
    "Variance within classes (pixels)": "variance_pixels",
}
PUBLISHED = {"fid": "FID", "kid": "KID", "is": "IS", "precision": "Precision", "recall": "Recall"}
COSTS = {"NFE": ("nfe", 1), "Token evals": ("token_evals", 1), "MFLOP per image": ("flops", 1e6)}
LOSSES = {
    "Held-out loss (nats/token)": "kept_loss_test",
    "Any-order bound (nats/token)": "loss_test_any_order",
    "Intra-scale gain (nats/token)": "intra_scale_gain",
}


def titled(results: Results, title: str) -> str:
    """A column's title: with the extractor, unless it names another evaluator or none is asked."""
    return title if title.endswith("(pixels)") or title == "CAS" else results.label(title)


# ---------------------------------------------------------------- scores


def _start_row(results: Results, suite: str, variant: str) -> dict[str, str]:
    """The first columns of a variant's row."""
    count, total = len(results.of(variant, suite, f"fid_{results.extractor}")), len(results.suite(suite)["train_seeds"])
    return {"Variant": variant, "Seeds": Cell(f"{count} of {total}", value=count)}


def _cost_columns(results: Results, suite: str, variant: str) -> dict[str, str]:
    """Losses of the kept weights, what own tokens gain, and what a picture costs."""
    row: dict[str, str] = {title: spread(results.estimate(variant, suite, metric)) for title, metric in LOSSES.items()}
    for title, (metric, unit) in COSTS.items():
        found = results.estimate(variant, suite, metric)
        row[title] = number(found and found.mean / unit)
    return row


def _verdicts(results: Results, suite: str) -> dict[str, dict[str, str]]:
    """FID of every variant minus that of the first: the difference, what it decides, and what it
    decides when all rows of the table are tested together."""
    first, *others = results.variants(suite)
    fid, title = f"fid_{results.extractor}", f"{results.label('FID')} minus {next(iter(results.variants(suite)))}, paired"
    found = {name: results.difference(name, suite, fid) for name in others}
    sure = {name: one for name, one in found.items() if one is not None and one.count >= FEWEST}
    kept = holm({name: one.p for name, one in sure.items()})
    rows = {first: {title: Cell("first"), "Verdict": "", "After Holm": ""}}
    for name, one in found.items():
        word = {"yes": "lower", "no": "higher"}.get(verdict(sure.get(name)), "not decided")
        held = word if name in kept else "not decided"
        rows[name] = {title: spread(one, difference=True), "Verdict": word, "After Holm": held}
    return rows


def _score_row(results: Results, suite: str, variant: str) -> dict[str, str]:
    """One variant: scores, then what others printed, and status; difference and costs join them."""
    row = _start_row(results, suite, variant)
    for title, name in SCORES.items():
        row[titled(results, title)] = spread(results.score(variant, suite, name))
    return row


def _published_cells(results: Results, suite: str, variant: str) -> dict[str, str]:
    """What others printed, in columns of their own: their evaluator is not ours."""
    row: dict[str, str] = {}
    for one in results.suite(suite).get("published", []):
        column = f"Published {PUBLISHED[one['metric']]} (its own evaluator)"
        row.setdefault(column, "")
        if one["variant"] == variant:
            row[column] = Cell(f"{one['value']:g} ({one['source']})", value=one["value"])
    return row


def _line_row(results: Results, suite: str, name: str, label: str, names: dict) -> dict[str, str]:
    """What every score is read against: real images, or images through the tokenizer, with an
    interval where each training seed has a tokenizer of its own."""
    row: dict[str, str] = {"Variant": label}
    for title, metric in SCORES.items():
        found = results.grid_estimate(names, f"{name}_{results.score_name(metric)}", suite)
        alone = found is None or not found.half  # one tokenizer for all, or images that no tokenizer touches
        row[titled(results, title)] = Cell(number(found and found.mean), mean=found and found.mean) if alone else spread(found)
    row["Status"] = "ok" if row[results.label("FID")] != "-" else results.why(names, None)
    return row


def _lines(results: Results, suite: str) -> tuple[list[dict[str, str]], dict]:
    """Rows of floor, held-out images and reconstructions, and the identity of the floor's grid."""
    grids = results.grids(suite)
    floors = {results.grid_value(names, f"floor_fid_{results.extractor}", suite): names for names in grids.values()}
    names = floors[next((value for value in floors if value is not None), next(iter(floors)))]
    rows = [_line_row(results, suite, "floor", "Floor: real training pictures", names)]
    held = _line_row(results, suite, "reference", "Held-out images themselves", names)
    if set(held.values()) - {"-", held["Variant"], held["Status"]}:  # none in results of older versions
        rows.append({**held, "Status": "ok"})
    rows += [_line_row(results, suite, "reconstruction", f"Reconstruction, schedule {grid}", of) for grid, of in grids.items()]
    return rows, names


def _without_numbers(table: pd.DataFrame, titles: list[str]) -> pd.DataFrame:
    """The table without those columns that no row has a number in."""
    return table.drop(columns=[title for title in titles if title in table and table[title].isin(["-", ""]).all()])


def table_scores(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Every score of every variant, what FID decides against the first one, and, unless the suite
    has table costs, losses and costs; floor and reconstruction below."""
    differences, apart = _verdicts(results, suite), "costs" in results.suite(suite)["tables"]
    rows = []
    for variant in results.variants(suite):
        row = _score_row(results, suite, variant) | differences[variant]
        row |= {} if apart else _cost_columns(results, suite, variant)
        row |= _published_cells(results, suite, variant)
        rows.append(row | {"Status": by_reason(results.missing(variant, suite, f"fid_{results.extractor}")) or "ok"})
    lines, names = _lines(results, suite)
    table = frame([*rows, *lines])
    fid = results.label("FID")
    optional = [title for name in SCORES if (title := titled(results, name)) != fid]
    optional += [title for title in LOSSES if title != "Held-out loss (nats/token)"]
    if len(results.variants(suite)) == 1:
        optional += ["Verdict", "After Holm"]
    counts = results.of_grid(names, f"floor_{results.score_name('fid')}")["num_images"].dropna()
    ideal = (
        "what a perfect generator and a perfect prior over these tokens score"
        if floor_has_labels(results, suite)
        else "in the shares of the training split, which the labels of the variants do not have, so that a perfect generator need not "
        "score the same"
    )
    start = claim(results, suite)
    words = [
        start,
        "" if NOISE in start else NOISE,
        made_by(results, suite),
        f"Floor and reconstruction: {int(counts.iloc[0])} training pictures, as they are and through the tokenizer, against the "
        f"same reference; {ideal}."
        if len(counts)
        else "",
        _kid_words(results, suite),
        "Losses and costs: table costs." if apart else COST_WORDS,
        "Verdict: of the paired difference in FID; after Holm: of all rows of this table together, 5 %.",
        "Published: as the source prints it, by its own evaluator and settings; never compared with ours."
        if results.suite(suite).get("published")
        else "",
    ]
    return _without_numbers(table, optional), " ".join(filter(None, words))


def _kid_words(results: Results, suite: str) -> str:
    """Whether KID takes all pairs; empty where it was not measured, or the sizes are not known."""
    rows, features = results.rows_of(results.score_name("kid")), results.about["features"]
    held = results.rows_of("num_test")["value"].dropna()
    if not rows["run_id"].isin(results.runs_of[suite]).any() or not len(held) or not features.get("dim"):
        return ""
    if features.get("reference") or not len(results.rows_of("reference_is_" + results.extractor)):
        return ""  # of a file with images of its own, or of an older version
    exact = kid_is_exact(results.about["evaluation"]["num_images"], int(held.iloc[0]), features["dim"])
    return "KID: over all pairs." if exact else "KID: mean over 100 random subsets."


COST_WORDS = "Held-out loss of the kept weights. Each variant's cost per picture includes guidance."


def table_costs(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Losses of every variant's kept weights, what own tokens gain, and what a picture costs: what
    stands beside the scores."""
    rows = []
    for variant in results.variants(suite):
        row = _start_row(results, suite, variant) | _cost_columns(results, suite, variant)
        row["Status"] = by_reason(results.missing(variant, suite, "kept_loss_test")) or "ok"
        rows.append(row)
    caption = (
        f"{claim(results, suite)} {COST_WORDS} Any-order bound: of masked models, whose tokens may be drawn in any order; intra-scale "
        f"gain: the one-pass loss minus it, above 0 where own tokens are worth something. "
        f"{kept_words(results, suite)} {seeds_words(results, suite)} {samplers(results, suite)}"
    )
    return _without_numbers(frame(rows), list(LOSSES)), " ".join(caption.split())


# ---------------------------------------------------------------- tokenizer


def _tokenizer_rows(results: Results, suite: str, grid: str, names: dict) -> list[dict[str, str]]:
    """A row for the whole schedule, then one for each scale."""
    errors = {split: results.grid_estimate(names, f"reconstruction_mse_{split}", suite) for split in ("train", "test")}
    show_error = lambda found: spread(found) if found and found.count > 1 else number(found and found.mean)  # noqa: E731
    status = "ok" if errors["test"] is not None else results.why(names, None)
    head = {"Schedule": grid, "Scale": "all", "Grid": ""}
    whole = {"Error train (mse)": show_error(errors["train"]), "Error held-out (mse)": show_error(errors["test"])}
    rows: list[dict[str, str]] = [head | whole]
    metrics = ("codes_used", "code_perplexity", "codes_usable", "scale_collapsed")
    parts = {metric: results.grid_scales(names, metric, suite) for metric in metrics}
    for k, side in enumerate(names["patch_nums"]):
        value = {metric: part.get(float(k)) for metric, part in parts.items()}
        rows.append({
            "Schedule": grid,
            "Scale": Cell(str(k), value=k),
            "Grid": f"{side}x{side}",
            "Codes used": number(value["codes_used"]),
            "Perplexity": number(value["code_perplexity"]),
            "Codes usable": number(value["codes_usable"]),
            "Collapsed": _collapsed(value["scale_collapsed"]),
        })  # fmt: skip
    blank = {key: "" for key in (*rows[0], *rows[-1])}
    return [{**blank, **row, "Status": status} for row in rows]


def _collapsed(share: float | None) -> str:
    """Whether a scale has collapsed, for some of several tokenizers perhaps."""
    return "-" if share is None else {1.0: "yes", 0.0: "no"}.get(float(share), f"{share:.0%} of the tokenizers")


def table_tokenizer(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Reconstruction error of each schedule, and the codes that each of its scales uses on held-out pictures."""
    rows = [row for grid, names in results.grids(suite).items() for row in _tokenizer_rows(results, suite, grid, names)]
    tokenizers = sorted({names["tokenizer"] for names in results.variants(suite).values()})
    caption = (
        f"{claim(results, suite)} Tokenizer {', '.join(tokenizers)} under each schedule of the suite. Error: mean square of "
        f"pictures in [-1, 1]. Codes: on {held_out(results)}; perplexity is exp of the entropy of the codes in use; a scale has "
        f"collapsed when that is a quarter or less of the codes that it could use. {tokenizers_words(results, suite)}"
    )
    return frame(rows), caption


# ---------------------------------------------------------------- latency


MEMORY = {
    "Working memory (MiB)": "peak_memory_bytes",
    "Weights (MiB)": "weights_bytes",
    "Tokenizer (MiB)": "tokenizer_bytes",
    "Decoder, peak (MiB)": "decoder_peak_bytes",
    "Pipeline, peak (MiB)": "pipeline_peak_bytes",
}


def _bytes(results: Results, suite: str, metric: str, variant: str, batch: int) -> float | None:
    """MiB of a variant, at a batch size where the metric has one."""
    rows = results.latency(suite, metric)
    mine = (rows["variant"] == variant) & (rows["num_images"].isna() | (rows["num_images"] == batch))
    found = rows.loc[mine, "value"].dropna()
    return found.iloc[0] / 2**20 if len(found) else None


def _latency_row(results: Results, suite: str, variant: str, batch: int) -> dict[str, str]:
    """One variant at one batch size."""
    first = next(iter(results.variants(suite)))
    times, decoder = (results.rounds(suite, metric, variant, batch) / batch * 1e3 for metric in ("latency_s", "decoder_s"))
    row: dict[str, str] = {"Variant": variant, "Batch": number(batch), "Rounds": number(len(times))}
    row["Time per image (ms)"] = number(times.median())
    low, high = times.quantile(0.25), times.quantile(0.75)
    row["Quartiles (ms)"] = Cell(f"{show(low)} to {show(high)}" if len(times) else "-", low=low, high=high)
    least, over = floor_s(results, suite, variant, batch), over_floor(results, suite, variant, batch)
    row["Floor per image (ms)"] = number(least and least / batch * 1e3)
    values = (math.exp(v) for v in (over.mean, over.low, over.high)) if over else ()
    row["Time / floor"] = Cell(show_ratio(over), **dict(zip(("mean", "low", "high"), values)))
    row["Decoder per image (ms)"] = number(decoder.median())
    for title, metric in MEMORY.items():
        row[title] = number(_bytes(results, suite, metric, variant, batch))
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
    table = _without_numbers(table, [title for title in MEMORY if title != "Working memory (MiB)"])
    caption = (
        f"{claim(results, suite)} Median and quartiles over interleaved rounds in one process, warm-up excluded; from the first "
        f"scale to the latent state, the decoder timed apart. {rounds_words(results, suite)} Working memory: the most bytes that "
        "the sampler's tensors hold above the weights; decoder: the same of decoding; pipeline: weights and tokenizer, and the larger of "
        f"the two with what lives beside it. Time ratio: geometric mean over paired rounds with 95 % t-interval. Weights are drawn, not "
        f"trained. {samplers(results, suite)} "
        f"{largest_words(results, suite)} {rates_words(results, suite)} {latency_verdict(results, suite)} {machine(results, suite)}"
    )
    return table, " ".join(caption.split())


def main() -> None:
    """`python -m bench tables ORIGIN TARGET [names...]`."""
    run_verb("tables", sys.modules[__name__], write_table)
