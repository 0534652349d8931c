"""What figures and tables of zero-shot tasks and of error propagation share: their rows by task and scale, names, captions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .analysis import (
    Results,
    bias_words,
    by_reason,
    extractor_kind,
    held_out,
    sample_words,
    samplers,
    seeds_words,
)

TASKS = {"inpaint": "in-painting", "outpaint": "out-painting", "super_resolution": "super-resolution"}
RIVALS = {"inpaint": "nearest_fill", "outpaint": "nearest_fill", "super_resolution": "bicubic"}
RIVAL_NAMES = {"nearest_fill": "nearest-mean fill", "bicubic": "bicubic"}
CEILING = "reconstruction from all true tokens"


def at(results: Results, variant: str, suite: str, metric: str, scale: int | None = None) -> pd.Series:
    """Values of a metric at a scale, or of one that has none, by train_seed; seeds without a number are left out."""
    rows = results.select(variant, suite, metric)
    rows = rows[rows["step"].isna() & rows["repeat"].isna() & rows["value"].notna()]
    rows = rows[rows["scale"].isna() if scale is None else rows["scale"] == scale]
    return rows.set_index(rows["train_seed"].astype(int))["value"]


def along_scales(results: Results, variant: str, suite: str, metric: str) -> pd.DataFrame:
    """Values of a metric at every scale that has one: columns train_seed, scale, value."""
    return results.select(variant, suite, metric).dropna(subset=["scale", "value"])[["train_seed", "scale", "value"]]


def one_value(results: Results, variant: str, suite: str, metric: str, scale: int | None = None) -> float | None:
    """The value of a metric that does not depend on the training, such as an opponent's."""
    found = at(results, variant, suite, metric, scale)
    return float(found.iloc[0]) if len(found) else None


def level(results: Results, variant: str, suite: str, metric: str) -> float | None:
    """The value of an opponent or, the mean over tokenizers where training seeds have their own, of
    the ceiling."""
    found = at(results, variant, suite, metric)
    if not len(found):
        return None
    # a mean of equal numbers may round to another one
    return float(found.iloc[0] if found.nunique() == 1 else found.mean())


def tasks(results: Results, suite: str) -> list[str]:
    """The tasks that the suite asks for."""
    return [name for name in TASKS if results.suite(suite)["zero_shot"][name]]


def true_scales(results: Results, suite: str) -> list[int]:
    """Every m of super-resolution that a variant of the suite can have."""
    return list(range(1, max(len(names["patch_nums"]) for names in results.variants(suite).values())))


def lost(results: Results, suite: str, variant: str, metric: str, scale: int | None = None) -> dict[int, str]:
    """Training seeds of the suite without a number, and why."""
    there, names = at(results, variant, suite, metric, scale).index, results.variants(suite)[variant]
    return {seed: results.why(names, seed) for seed in results.suite(suite)["train_seeds"] if seed not in there}


def lost_words(results: Results, suite: str, metric: str, scale: int | None = None) -> str:
    """One line that names every variant and seed without a number; empty when all are there."""
    found = {variant: lost(results, suite, variant, metric, scale) for variant in results.variants(suite)}
    return "; ".join(f"{variant}: {by_reason(seeds)}" for variant, seeds in found.items() if seeds)


def rows_lost(results: Results, suite: str) -> str:
    """The same for the first number of the first task."""
    task = tasks(results, suite)[0]
    return lost_words(results, suite, f"{task}_psnr_whole", 1 if task == "super_resolution" else None)


def strip_run(results: Results, variant: str, suite: str) -> str | None:
    """run_id of the zero-shot pictures of the first training seed that has some."""
    for seed in results.suite(suite)["train_seeds"]:
        jobs = results.jobs_of(results.variants(suite)[variant], seed)
        for run_id in jobs.loc[jobs["stage"] == "zero_shot", "run_id"]:
            if run_id in results.suite(suite)["runs"] and f"{run_id}/original" in results.images:
                return run_id
    return None


def counts(results: Results, suite: str, measure: str) -> list[int]:
    """Every N that was measured."""
    mine = results.metrics["run_id"].isin(
        [run for run in results.suite(suite)["runs"] if run.startswith(f"{measure}/")]
    )
    return sorted(results.metrics.loc[mine, "num_images"].dropna().astype(int).unique().tolist())


def count_words(results: Results, suite: str, measure: str) -> str:
    """N as it was measured."""
    return ", ".join(map(str, counts(results, suite, measure))) or "none measured"


def few_words(results: Results, suite: str, measure: str) -> str:
    """Says where fewer images were scored than the features have dimensions."""
    return bias_words(results, min(counts(results, suite, measure), default=None))


def extractor_words(results: Results) -> str:
    """The extractor's name and kind."""
    return f"extractor {results.extractor} ({extractor_kind(results)})"


def _box(box: list[float]) -> str:
    return f"({', '.join(f'{share:g}' for share in box)})"


def protocol(results: Results, suite: str) -> str:
    """How the tasks are set, in sentences of a caption."""
    about, words = results.suite(suite)["zero_shot"], []
    boxes = [f"{TASKS[name]} {_box(about[name])}" for name in ("inpaint", "outpaint") if about[name]]
    if boxes:
        words.append(
            f"Boxes as (top, left, bottom, right) in shares of the side: {', '.join(boxes)}; in-painting hides the box, "
            "out-painting all else. A scale keeps the true tokens where the bilinear share of what is known exceeds 0.5, and "
            "all of them if it has at most 3 tokens (VAR's protocol); true tokens come from the whole picture, so that the coarse ones "
            "know a little of what is hidden, which the fill does not. Nearest-mean fill: the mean of the known pixels at the "
            "smallest distance; it keeps every known pixel exactly, which a decoded picture cannot, so that the unknown part decides."
        )
    if about["super_resolution"]:
        words.append(
            "Super-resolution keeps the true tokens of the first m scales; bicubic enlarges the picture reduced to the share of "
            "its side that the m-th grid has of the last one."
        )
    words.append("Completed pictures are scored as decoded: no known pixel is pasted over them.")
    return " ".join(words)


def zero_shot_words(results: Results, suite: str) -> str:
    """N, seeds, interval, sampler: how the numbers were made."""
    return (
        f"N = {count_words(results, suite, 'zero_shot')} pictures of {held_out(results)}, with their true classes; "
        f"{sample_words(results)}. {seeds_words(results, suite)} {samplers(results, suite)}"
    )


def shares_shown(results: Results, suite: str) -> list[float]:
    """At most three shares of replaced tokens: the lowest, a middle one, the highest."""
    shares = sorted(results.suite(suite)["error_propagation"]["shares"])
    return [shares[int(i)] for i in sorted(set(np.linspace(0, len(shares) - 1, 3).round()))]


def error_words(results: Results, suite: str) -> str:
    """How the numbers of error propagation were made."""
    return (
        "Errors: so many of the tokens of one scale, at least one, are replaced by other codes, each equally likely; position and code "
        "depend on the picture's seed and the scale alone, the same in every variant; the sampler goes on with the random numbers of "
        "the clean sample. Drift: mean over pictures of the distance between the last latents with and without errors, as a share of "
        "the clean one's norm. Direct: the same with all later tokens left as they were. Drift over direct: below 1 where later "
        "scales repair, above 1 where they amplify; a sample that moves is not worse for that. "
        "Wrong tokens can lower FID: images drawn in one pass vary less than real ones, and FID rewards the noise. "
        "Whether images got worse is seen in class agreement and coverage, where the study measures them. "
        f"N = {count_words(results, suite, 'error_propagation')} pictures, {sample_words(results)}; "
        f"{extractor_words(results)}; reference: {held_out(results)}."
        f"{few_words(results, suite, 'error_propagation')} {seeds_words(results, suite)} {samplers(results, suite)}"
    )
