"""What figures and tables share: the rows of a study by variant, intervals over training seeds, the rule of a verdict, captions.

Reads metrics.csv, runs.csv and images.npz of a folder and nothing else: published results need no training. Imports no torch.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from srdd.lookup import find

from .analysis_words import (  # noqa: F401 (also taken from here)
    bias_words,
    extractor_kind,
    floor_has_labels,
    held_against,
    held_out,
    imported_words,
    made_by,
    reference_words,
    sampler_words,
    samplers,
    seeds_words,
    with_classes,
)
from .escaping import rst, sentence
from .estimates import Estimate, estimate, paired, show, show_difference, show_estimate, verdict  # noqa: F401
from .loaded import Results  # noqa: F401
from .making import raised, run_verb  # noqa: F401
from .results import brief  # noqa: F401
from .scores import BETTER, bare_name, better
from .study_row import check_job

# a relative gap between ELBO and cross-entropy up to here is rounding in float64; one from there on is a difference
GAP_CLOSED, GAP_OPEN = 1e-10, 1e-3

# ---------------------------------------------------------------- what a suite asks


def claim(results: Results, suite: str) -> str:
    """What the suite asks, and how its claims were decided; a reduced study says so first."""
    about, reduced = results.suite(suite), results.about.get("reduced")
    words = [f"REDUCED STUDY: {sentence(reduced)}"] if reduced else []
    words.append(sentence(about["claim"]))
    for one in about["claims"]:
        word, reason = judged(results, suite, one)
        owner = "Claim of the paper, in our words" if one["origin"] == "paper" else "Claim"
        words.append(f"{owner}: {rst(one['text'].rstrip(' .'))}: {word} ({rst(reason)}).")
    return " ".join(words)


# ---------------------------------------------------------------- fewer scales than a teacher


def full_schedules(results: Results, suite: str) -> list[str]:
    """Variants that a suite names one by one: teachers, and whatever else the variants of its grids are read against."""
    return [name for name, names in results.variants(suite).items() if not names["grid"]]


def full_schedule_of(results: Results, suite: str, variant: str) -> str | None:
    """The first of them with the same mask as a variant."""
    variants = results.variants(suite)
    same = lambda name: all(variants[name][key] == variants[variant][key] for key in ("history", "mask"))  # noqa: E731
    return next((name for name in full_schedules(results, suite) if same(name)), None)


def tokens_of(patch_nums: Iterable[int]) -> int:
    """Tokens of a schedule: token_evals of one picture without guidance and refinement."""
    return sum(side * side for side in patch_nums)


def training_tokens(settings: dict[str, Any]) -> float:
    """Tokens that a variant's training reads when no early stopping ends it, its teacher's included; nan where a part was imported and
    nobody counted."""
    parts = [settings, *([settings["distill"]["teacher"]] if "distill" in settings else [])]
    if any(part["training"] is None for part in parts):
        return math.nan
    return sum(p["training"]["steps"] * p["training"]["batch_size"] * tokens_of(p["model"]["patch_nums"]) for p in parts)


# ---------------------------------------------------------------- verdicts


def judged(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Whether a claim holds here, `yes`, `no` or `not decided`, by the rule `judge_<name>` that the study names, and why."""
    rule, who = one["rule"], f"bench/analysis.py: judge_{one['rule']}"
    try:
        found = find(sys.modules[__name__], "judge", rule)(results, suite, one)
    except (ValueError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{who}: {raised(error)}") from error
    pair = isinstance(found, tuple) and len(found) == 2
    if not pair or not all(isinstance(word, str) for word in found):
        raise ValueError(f"{who}: gives {found!r}; must be the pair of yes, no or not decided, and a reason")
    return found


NO_DIRECTION = "whether lower or higher is better is not known of this metric; say better: lower or better: higher in the claim"


def direction(one: dict[str, Any]) -> str | None:
    """What a claim says is better, lower or higher: as it states, else as its metric points; None
    where neither is known."""
    return one.get("better") or better(one["metric"])


def _claimed(word: str, one: dict[str, Any]) -> str:
    """The word of a rule that asks for less, turned round where a claim states that more is
    better."""
    return {"yes": "no", "no": "yes"}.get(word, word) if one.get("better") == "higher" else word


def _against_the_usual(one: dict[str, Any]) -> str:
    """Says that a claim counts as better what others count as worse; empty for all other claims."""
    stated, usual = one.get("better"), better(one["metric"])
    return (
        f"; this claim states that {stated} is better, usually {usual} is"
        if stated and usual and stated != usual
        else ""
    )


def _no_metric(results: Results, suite: str, one: dict[str, Any]) -> str:
    """Why a claim names no metric of these results: no row has it though others were scored, or no
    study has; else empty."""
    metric = results.score_name(one["metric"])
    if results.rows_of(metric)["run_id"].isin(results.runs_of[suite]).any():
        return ""
    mine = results.metrics[
        results.metrics["run_id"].isin(results.runs_of[suite])
        & results.metrics["train_seed"].notna()
    ]
    names = (bare_name(metric, results.extractor) for metric in mine["metric"].unique())
    scored = sorted(filter(None, names))
    if not scored and one["metric"] in BETTER:
        return ""
    return f"no row of this suite has {metric} (scored: {', '.join(scored) or 'nothing'})"


def judge_score(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """By the 95 % t-interval of the paired difference of a score over training seeds."""
    if absent := _no_metric(results, suite, one):
        return "no such metric", absent
    metric = results.score_name(one["metric"])
    found = results.difference(one["variant"], suite, metric, one["against"])
    reason = f"{metric} of {one['variant']} minus that of {one['against']}, paired by training seed: {show_difference(found)}"
    if direction(one) is None:
        return "not decided", f"{reason}; {NO_DIRECTION}"
    return verdict(found, direction(one) == "lower"), reason + _against_the_usual(one)


def judge_tuned(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """As judge_score, between groups, each at the setting that is best on the first half of the sample seeds; scored on the second."""
    if absent := _no_metric(results, suite, one):
        return "no such metric", absent
    if direction(one) is None:
        return "not decided", NO_DIRECTION
    metric, second, lower = (
        results.score_name(one["metric"]),
        results.halves[1],
        direction(one) == "lower",
    )
    best = [results.tuned(one[key], suite, metric, lower) for key in ("against", "variant")]
    if None in best:
        return "not decided", "a group has no scores on halves"
    found = paired(*(results.of(name, suite, metric, second) for name in best))
    reason = f"{metric} of {best[1]} minus that of {best[0]}, each tuned on half of the sample seeds, on the other half"
    return verdict(found, lower), f"{reason}: {show_difference(found)}{_against_the_usual(one)}"


def judge_latency(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when faster at every batch size by the interval of the log ratio over paired rounds, no when slower at every one."""
    found = {batch: ratio(results, suite, one["variant"], batch, one["against"])[1] for batch in batches(results, suite)}
    words = set(found.values())
    word = {frozenset({"faster"}): "yes", frozenset({"slower"}): "no"}.get(frozenset(words), "not decided")
    shown = [f"{what} at batch {', '.join(str(b) for b, w in found.items() if w == what)}" for what in sorted(words)]
    return _claimed(word, one), "; ".join(shown) or "nothing was timed"


def judge_memory(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when peak memory is lower at every batch size, no when it is not lower at any; bytes are counted, not timed."""
    peak = results.latency(suite, "peak_memory_bytes").set_index(["variant", "num_images"])["value"].dropna()
    shares = {
        batch: peak[one["variant"], batch] / peak[one["against"], batch]
        for batch in map(float, batches(results, suite))
        if {(one["variant"], batch), (one["against"], batch)} <= set(peak.index)
    }
    if not shares:
        return "not decided", "no common batch size"
    lower = [share < 1 for share in shares.values()]
    word = "yes" if all(lower) else "no" if not any(lower) else "not decided"
    return _claimed(word, one), "peak memory ratio " + ", ".join(
        f"{share:.2f} at batch {batch:g}" for batch, share in shares.items()
    )


def judge_convergence(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """By the interval of the paired difference of steps until the held-out loss that every training of the suite reaches."""
    target, steps = steps_to_target(results, suite)
    if target is None:
        return "not decided", "no losses"
    found = paired(steps[one["against"]]["step"], steps[one["variant"]]["step"])
    reason = f"steps until held-out loss {target:.3f}, {one['variant']} minus {one['against']}: {show_difference(found)}"
    return _claimed(verdict(found), one), reason


def steps_to_target(results: Results, suite: str) -> tuple[float | None, dict[str, pd.DataFrame]]:
    """The lowest held-out loss that every training of a suite reaches, and by variant and training seed the step and second of it."""
    curves = {variant: results.snapshots(variant, suite, "loss_test") for variant in results.variants(suite)}
    best = [part["value"].min() for rows in curves.values() if len(rows) for _, part in rows.groupby("train_seed")]
    if not best:
        return None, {}
    target = max(best)
    reached = {variant: rows[rows["value"] <= target].sort_values("step") for variant, rows in curves.items()}
    return target, {variant: rows.groupby("train_seed")[["step", "seconds"]].first() for variant, rows in reached.items()}


def fid_differences(results: Results, suite: str) -> str:
    """Paired FID differences to the first variant."""
    first, *others = results.variants(suite)
    if not others:
        return "One variant, nothing to compare."
    found = {name: results.difference(name, suite, f"fid_{results.extractor}") for name in others}
    shown = "; ".join(f"{rst(name)} {show_difference(value)}" for name, value in found.items())
    return f"{results.label('FID')} minus that of {rst(first)}, paired by training seed, 95 % t-interval: {shown}."


def reach(results: Results, suite: str) -> str:
    """What an attention history of one or more means in a deep network, for the variants that have one."""
    words = []
    for name, names in results.variants(suite).items():
        h, depth, scales = names["history"], names["depth"], len(names["patch_nums"])
        if h is not None and h >= 1:
            words.append(f"{rst(name)} reaches min({h} x {depth}, {scales - 1}) = {min(h * depth, scales - 1)}")
    if not words:
        return ""
    return f"History h reaches min(h x depth, K-1) earlier scales, hence h of 1 or more is not Markov: {'; '.join(words)}."


def by_reason(missing: dict[int, str]) -> str:
    """Training seeds without a number, those with one reason together."""
    seeds = {why: [str(seed) for seed, other in missing.items() if other == why] for why in missing.values()}
    return ", ".join(f"seed{'s' * (len(found) > 1)} {', '.join(found)} {why}" for why, found in seeds.items())


def missing_words(results: Results, suite: str, metric: str, along: bool = False) -> str:
    """One line that names every variant and seed without a number, and why; empty when all are there."""
    found = {name: results.missing(name, suite, metric, along) for name in results.variants(suite)}
    return "; ".join(f"{name}: {by_reason(seeds)}" for name, seeds in found.items() if seeds)


def machine(results: Results, suite: str) -> str:
    """Where the suite was timed."""
    run = results.latency_run(suite)
    if run is None:
        return "Not timed: there is no latency run of this suite."
    if run["status"] != "ok":
        return rst(f"The latency run is {run['status']}: {run['reason']}.")
    return rst(f"Machine: {run['device']}; {run['host_class']}; torch {run['torch']}.")


def ratio(results: Results, suite: str, variant: str, batch: int, against: str | None = None) -> tuple[Estimate | None, str]:
    """Log ratio of sampling time to another variant, or the first, over common rounds, and what that decides."""
    first = against or next(iter(results.variants(suite)))
    logs = [np.log(results.rounds(suite, "latency_s", name, batch)) for name in (first, variant)]
    found = paired(*logs)
    if found is None:
        return None, "not measured"
    return found, {"yes": "faster", "no": "slower"}.get(verdict(found), "not decided")


def batches(results: Results, suite: str) -> list[int]:
    """Batch sizes that were tried."""
    return sorted(results.latency(suite, "latency_s")["num_images"].dropna().astype(int).unique().tolist())


def common_batches(results: Results, suite: str) -> list[int]:
    """Batch sizes at which every variant was timed scale by scale."""
    rows = results.latency(suite, "latency_scale_s").dropna(subset=["value"])
    found = [set(part["num_images"].astype(int)) for _, part in rows.groupby("variant")]
    return sorted(set.intersection(*found)) if len(found) == len(results.variants(suite)) else []


def floors(results: Results, suite: str) -> pd.DataFrame:
    """Least seconds of each scale of a batch, columns variant, num_images, scale, memory, operations, floor (the longer of the two);
    no rows where the run measured no floors."""
    keys = ["variant", "num_images", "scale"]
    names = ("memory", "operations")
    found = {name: results.latency(suite, f"floor_{name}_scale_s").set_index(keys)["value"] for name in names}
    table = pd.DataFrame(found).dropna()
    return table.assign(floor=table.max(axis=1)).reset_index()


def floor_s(results: Results, suite: str, variant: str, batch: int) -> float | None:
    """Least seconds of a batch, whose scales follow one another; None where it was not measured."""
    rows = floors(results, suite)
    rows = rows[(rows["variant"] == variant) & (rows["num_images"] == batch)]
    return float(rows["floor"].sum()) if len(rows) else None


def over_floor(results: Results, suite: str, variant: str, batch: int) -> Estimate | None:
    """Log ratio of the measured time of a batch to its floor over rounds; None where one of them is missing."""
    least = floor_s(results, suite, variant, batch)
    return least and estimate(np.log(results.rounds(suite, "latency_s", variant, batch) / least))


def show_ratio(found: Estimate | None) -> str:
    """The geometric mean behind a log ratio, and its interval."""
    if found is None:
        return "-"
    centre, low, high = (show(math.exp(value)) for value in (found.mean, found.low, found.high))
    return f"{centre} (one round)" if found.half is None else f"{centre} [{low}, {high}]"


def precision(results: Results, suite: str) -> str:
    """The dtype that the suite's networks were timed in."""
    run = results.latency_run(suite)
    config = json.loads(run["config_json"] or "{}") if run is not None else {}
    return check_job(
        config, f"{results.folder / 'runs.csv'}: latency of {suite}: config_json"
    ).latency.precision


def rates_words(results: Results, suite: str) -> str:
    """What floors were counted with; empty where none were."""
    run, rows = results.latency_run(suite), results.metrics
    rows = rows[
        (rows["run_id"] == (run["run_id"] if run is not None else "")) & rows["metric"].isin(["copy_bandwidth", "matmul_rate"])
    ]
    rates = rows.groupby("metric")["value"].max().dropna()
    if len(rates) < 2:
        return ""
    return (
        f"Floor of a scale: the longer of the bytes that it must move at least (weights once a pass, in {precision(results, suite)}; cached "
        f"keys and values; logits) over the measured copy bandwidth, {show(rates['copy_bandwidth'] / 1e9)} GB/s, and its operations over "
        f"the measured rate of a large matrix product, {show(rates['matmul_rate'] / 1e9)} GFLOP/s in {precision(results, suite)}; "
        "both of the fastest round. Weights that stay in the caches may beat the memory floor."
    )


def largest_words(results: Results, suite: str) -> str:
    """The largest measured batch that each variant had memory for; empty where a run does not say."""
    largest = results.latency(suite, "largest_batch").set_index("variant")["value"]
    found = [f"{rst(v)} {'none' if math.isnan(largest[v]) else int(largest[v])}" for v in results.variants(suite) if v in largest]
    return f"Largest measured batch that fits into memory: {', '.join(found)}." if found else ""


def latency_verdict(results: Results, suite: str) -> str:
    """At which batch sizes the second variant is faster, and needs less memory, than the first."""
    names = list(results.variants(suite))
    if len(names) < 2 or not batches(results, suite):
        return ""
    first, second = names[:2]
    peak = results.latency(suite, "peak_memory_bytes").set_index(["variant", "num_images"])["value"]
    time: dict[str, list[int]] = {}
    memory: dict[str, list[int]] = {}
    for batch in batches(results, suite):
        time.setdefault(ratio(results, suite, second, batch)[1], []).append(batch)
        pair = [peak.get((name, float(batch)), math.nan) for name in (first, second)]
        if all(map(math.isfinite, pair)):
            word = "less" if pair[1] < pair[0] else "more" if pair[1] > pair[0] else "equal"
            memory.setdefault(word, []).append(batch)
    times, memories = (
        "; ".join(f"{word} at batch {', '.join(map(str, sizes))}" for word, sizes in found.items()) for found in (time, memory)
    )
    return (
        f"{rst(second)} against {rst(first)}, time: {times} (decided where the 95 % t-interval of the log ratio over paired "
        f"rounds excludes 0; no correction for several batch sizes); peak memory: {memories or 'no number'}."
    )


def judge_equal(results: Results, suite: str, claim: dict[str, Any]) -> tuple[str, str]:
    """Two losses are equal: `yes` when the gap `metric` of every training seed is at most 1e-10 for the variant and above 1e-3 for
    what it is held against, `no` when a seed is on the wrong side, `not decided` while one is missing. Returns word and reason."""
    words, held = [], []
    for key, closed in (("variant", True), ("against", False)):
        name = claim[key]
        found, missing = results.of(name, suite, claim["metric"]), results.missing(name, suite, claim["metric"])
        if missing:
            words.append(f"{name}: {by_reason(missing)}")
            continue
        held.append(bool((found <= GAP_CLOSED).all() if closed else (found > GAP_OPEN).all()))
        rule = f"at most {GAP_CLOSED:g}" if closed else f"above {GAP_OPEN:g}"
        words.append(f"{name}: {show(float(found.min()))} to {show(float(found.max()))} over {len(found)} seeds, needed {rule}")
    word = "no" if not all(held) else "yes" if len(held) == 2 else "not decided"
    return word, "; ".join(words)
