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

from ..runtime.rows import brief  # noqa: F401
from ..runtime.study_row import check_job
from ..study.escaping import rst, sentence
from ..study.scores import BETTER, bare_name, better
from .estimate import (  # noqa: F401
    FEWEST,
    Estimate,
    estimate,
    holm,
    paired,
    show,
    show_difference,
    show_estimate,
    verdict,
)
from .gain import gain_words
from .making import raised, run_verb  # noqa: F401
from .results import Results  # noqa: F401
from .trainings import kept_words, steps_to_targets  # noqa: F401 (also taken from here)
from .words import (  # noqa: F401 (also taken from here)
    bias_words,
    extractor_kind,
    floor_has_labels,
    held_against,
    held_out,
    imported_words,
    made_by,
    reference_words,
    sample_words,
    sampler_words,
    samplers,
    seeds_words,
    shares_tokenizer,
    tokenizers_words,
    with_classes,
)

# a relative gap between ELBO and cross-entropy up to here is rounding in float64; one from there on is a difference
GAP_CLOSED, GAP_OPEN = 1e-10, 1e-3
# gaps that are 0 for every Markov hierarchy without noise, whatever it has learned
IDENTITIES = ("elbo_relative_gap", "elbo_token_gap")

# ---------------------------------------------------------------- what a suite asks


NOISE = (
    "FID and KID can fall when noise is added to samples that vary too little: read them beside coverage, class agreement and CAS."
)


def claim(results: Results, suite: str) -> str:
    """What the suite asks, how its claims were decided, plain and after Holm's correction, and what
    its refinement can do; a reduced study says so first."""
    about, reduced = results.suite(suite), results.about.get("reduced")
    words = [f"REDUCED STUDY: {sentence(reduced)}"] if reduced else []
    words.append(sentence(about["claim"]))
    # a table of claims gives the reasons once for all captions
    listed = any("claims" in other["tables"] for other in results.about["suites"].values())
    verdicts = []
    for one in about["claims"]:
        found = judged(results, suite, one)
        owner = "Claim of the paper, in our words" if one["origin"] == "paper" else "Claim"
        corrected = after_holm(results, suite, one, found)
        # what is not decided alone is not decided among others
        both = f"{found[0]}, after Holm {corrected}" if corrected and found[0] in ("yes", "no") else found[0]
        if listed:
            verdicts.append(f"{rst(one['text'].rstrip(' .'))}: {both}")
        else:
            words.append(f"{owner}: {rst(one['text'].rstrip(' .'))}: {both} ({rst(found[1])}).")
    if verdicts:
        words.append(f"Claims, with their reasons in table claims: {'; '.join(verdicts)}.")
    if _claims_fid(about):
        words.append(NOISE)
    return " ".join(filter(None, [*words, rst(gain_words(results, suite))]))


def _claims_fid(about: dict[str, Any]) -> bool:
    return any(one["rule"] in ("score", "tuned") and one["metric"] in ("fid", "kid") for one in about["claims"])


def noise_words(results: Results, suite: str) -> str:
    """What a low FID may mean, for what ranks by it; empty where `claim` says so already."""
    return "" if _claims_fid(results.suite(suite)) else NOISE


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


class Verdict(tuple):
    """What a rule finds, the pair (word, reason), and as `p` the p-value that the word follows
    from; None where it follows from none."""

    p: float | None

    def __new__(cls, word: str, reason: str, p: float | None = None) -> Verdict:
        made = super().__new__(cls, (word, reason))
        made.p = p
        return made


def judged(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Whether a claim holds here, `yes`, `no` or `not decided`, by the rule `judge_<name>` that the
    study names, and why. A rule of one's own returns this pair, or a `Verdict` whose p-value Holm's
    correction counts."""
    rule, who = one["rule"], f"bench/report/analysis.py: judge_{one['rule']}"
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


def _p_values(results: Results) -> dict[tuple[str, str], float]:
    """The p-value of every claim of the study that has one, by suite and the claim's own settings.
    """

    def collect() -> dict[tuple[str, str], float]:
        found = {}
        for suite, about in results.about["suites"].items():
            for one in about["claims"]:
                try:
                    p = getattr(judged(results, suite, one), "p", None)
                except ValueError:  # said where the claim itself is shown
                    p = None
                if p is not None:
                    found[suite, json.dumps(one, sort_keys=True)] = p
        return found

    return results.once("p-values", collect)


def after_holm(results: Results, suite: str, one: dict[str, Any], found: tuple[str, str]) -> str | None:
    """A claim's word when all claims of the study are tested together (Holm 1979, 5 %); None for
    one without a p-value, such as bytes that were counted."""
    p, key = _p_values(results), (suite, json.dumps(one, sort_keys=True))
    if key not in p:
        return None
    return found[0] if key in holm(p) else "not decided"


def decided(found: Estimate | None, lower: bool, reason: str) -> Verdict:
    """The verdict on a paired difference over training seeds, of which there must be three."""
    if found is not None and found.count < FEWEST:
        return Verdict("not decided", f"{reason}; fewer than three training seeds")
    return Verdict(verdict(found, lower), reason, found and found.p)


def decided_together(found: dict[Any, Estimate | None], lower: bool = True) -> tuple[str, float | None]:
    """`yes` where every one of several differences decides so, `no` where every one decides the
    contrary; p-value: the largest of them, 1 where they point both ways."""
    words = {verdict(one, lower) for one in found.values()}
    word = words.pop() if len(words) == 1 else "not decided"
    p = [one.p for one in found.values() if one is not None]
    if not found or len(p) < len(found) or None in p:
        return word, None
    same = len({one.mean > 0 for one in found.values()}) == 1
    return word, max(p) if same else 1.0


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


def real_scores(results: Results, suite: str, variant: str, metric: str) -> tuple[float | None, float | None]:
    """What training images, and what the held-out images themselves, score; None where nobody
    measured it."""
    names, score = results.variants(suite)[variant], results.score_name(metric)
    train, held = (results.grid_value(names, f"{line}_{score}", suite) for line in ("floor", "reference"))
    return train, held


def _real_words(results: Results, suite: str, one: dict[str, Any]) -> str:
    """Of IS: what real images score, and whether the side with more is farther from them; empty for
    other scores."""
    if one["metric"] != "is":
        return ""
    train, held = real_scores(results, suite, one["variant"], "is")
    parts = [f"{show(value)} {name}" for value, name in ((train, "train"), (held, "held out")) if value is not None]
    real = train if held is None else held
    sides = {key: results.score(one[key], suite, "is") for key in ("variant", "against")}
    if real is None or None in sides.values():
        return f"; real images: {', '.join(parts)}" if parts else ""
    words = f"; real images: {', '.join(parts)}"
    more, less = sorted(sides, key=lambda key: -sides[key].mean)
    if abs(sides[more].mean - real) > abs(sides[less].mean - real):
        shown = [f"{one[key]}'s {show(sides[key].mean)}" for key in (more, less)]
        words += f"; {shown[0]} is farther from real images than {shown[1]}"
    return words


def judge_score(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """By the 95 % t-interval of the paired difference of a score over training seeds."""
    if absent := _no_metric(results, suite, one):
        return "no such metric", absent
    metric = results.score_name(one["metric"])
    found = results.difference(one["variant"], suite, metric, one["against"])
    reason = f"{metric} of {one['variant']} minus that of {one['against']}, paired by training seed: {show_difference(found)}"
    reason += _real_words(results, suite, one)
    if direction(one) is None:
        return "not decided", f"{reason}; {NO_DIRECTION}"
    return decided(found, direction(one) == "lower", reason + _against_the_usual(one))


def judge_nearer(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when the distance of a score to that of real held-out images, or of training images where
    nobody scored those, is smaller, by the 95 % t-interval of the paired difference over training
    seeds."""
    if absent := _no_metric(results, suite, one):
        return "no such metric", absent
    metric = results.score_name(one["metric"])
    train, held = real_scores(results, suite, one["variant"], one["metric"])
    real, which = (held, "held-out") if held is not None else (train, "training")
    if real is None:
        return "not decided", f"{metric} of real images was not measured"
    first, second = ((results.of(one[key], suite, metric) - real).abs() for key in ("against", "variant"))
    found = paired(first, second)
    reason = (
        f"distance of {metric} to the {show(real)} of real {which} images, {one['variant']} minus {one['against']}, paired by "
        f"training seed: {show_difference(found)}"
    )
    return decided(found, True, reason)


# legal limits of a sampler's settings: nothing lies beyond
LIMITS = {
    "cfg_scale": (0.0,),
    "top_k": (1,),
    "top_p": (1.0,),
    "sr_steps": (0,),
    "refine_steps": (0,),
    "p_resample": (0.0, 1.0),
    "commit_above": (0.0, 1.0),
    "resample_fraction": (1.0,),
}
SHORT = {"cfg_scale": "w", "cfg_ramp": "ramp", "top_p": "top-p", "top_k": "top-k"}


def varied(results: Results, suite: str, group: str) -> dict[str, list[Any]]:
    """Settings of the sampler in which the variants of a group differ: the different values of
    each."""
    members = [results.sampler(name, suite) for name in results.groups(suite)[group]]
    found = {key: list({json.dumps(one[key]): one[key] for one in members}.values()) for key in members[0]}
    return {key: values for key, values in found.items() if len(values) > 1}


def tuned_to(results: Results, suite: str, group: str, best: str) -> str:
    """What a group was tuned to, in the settings that it tried, such as w 1.5, ramp linear."""
    mine = results.sampler(best, suite)
    words = [(SHORT.get(key, key), mine[key]) for key in varied(results, suite, group)]
    return ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in words) or "-"


def edges(results: Results, suite: str, group: str, best: str) -> str:
    """Settings of a tuned variant at the edge of what its group tried, where the best may lie
    beyond; empty where none are."""
    mine, found = results.sampler(best, suite), []
    for key, values in varied(results, suite, group).items():
        # null is all codes, more than any number of them
        numbers = [math.inf if key == "top_k" and value is None else value for value in values]
        tried = sorted(value for value in numbers if isinstance(value, (int, float)))
        at_edge = len(tried) > 1 and mine[key] in (tried[0], tried[-1])
        if at_edge and mine[key] not in LIMITS.get(key, ()):
            found.append(f"{SHORT.get(key, key)} = {mine[key]:g} of {tried[0]:g} to {tried[-1]:g}")
    return f"at the edge of what was tried ({', '.join(found)})" if found else ""


def judge_tuned(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """As judge_score, between groups, each at the setting that is best on the first half of sample
    seeds and reference; scored on the second."""
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
    halves = half_words(results, suite).rsplit(", ", 1)[-1]
    reason = (
        f"{metric} of {best[1]} minus that of {best[0]}, each tuned on half of the sample seeds, on the other half, {halves}: "
        f"{show_difference(found)}"
    )
    for key, name in zip(("against", "variant"), best):
        if words := edges(results, suite, one[key], name):
            reason += f"; {name} is {words}"
    return decided(found, lower, reason + _against_the_usual(one))


def half_words(results: Results, suite: str) -> str:
    """Where halves of sample seeds are counted from, and what they are held against, as the end of
    a clause."""
    # each training draws seeds of its own; in older results the same
    counted = "" if results.about.get("tokenizer_seed") is None else ", counted from the first of each training"
    rows = results.rows_of("half_reference_images")
    apart = rows["run_id"].isin(results.runs_of[suite]).any()  # not in rows of older versions
    whole = results.about["features"].get("reference")  # a file of statistics cannot be halved
    against = "each against its own half of the reference" if apart and not whole else "both against the whole reference"
    return f"{counted}, {against}"


def judge_latency(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when faster at every batch size by the interval of the log ratio over paired rounds, no when slower at every one."""
    found = {batch: ratio(results, suite, one["variant"], batch, one["against"]) for batch in batches(results, suite)}
    word, p = decided_together({batch: logs for batch, (logs, _) in found.items()})
    shown = []
    for what in sorted({said for _, said in found.values()}):
        mine = [f"{b} ({show(math.exp(logs.mean))})" if logs else str(b) for b, (logs, said) in found.items() if said == what]
        shown.append(f"{what} at batch {', '.join(mine)}")
    return Verdict(_claimed(word, one), "; ".join(shown) or "nothing was timed", p)


def memory_ratios(results: Results, suite: str, metric: str, variant: str, against: str) -> dict[int, float]:
    """Bytes of a variant over those of another, by batch size that both have."""
    found = results.latency(suite, metric).set_index(["variant", "num_images"])["value"].dropna()
    return {
        batch: found[variant, batch] / found[against, batch]
        for batch in map(float, batches(results, suite))
        if {(variant, batch), (against, batch)} <= set(found.index)
    }


MEMORY = {
    "sampler": ("peak_memory_bytes", "peak working memory of the sampler"),
    "pipeline": ("pipeline_peak_bytes", "peak of the whole pipeline, weights and decoder included"),
}


def judge_memory(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when the sampler's peak of working memory is lower at every batch size, no when it is not
    lower at any; with `metric: pipeline` the same of the whole pipeline's. Bytes are counted, not
    timed. The reason says both."""
    asked = "pipeline" if one["metric"] == "pipeline" else "sampler"
    words, word = [], "not decided"
    for name in sorted(MEMORY, key=lambda name: name != asked):
        metric, what = MEMORY[name]
        shares = memory_ratios(results, suite, metric, one["variant"], one["against"])
        shown = ", ".join(f"{share:.2f} at batch {batch:g}" for batch, share in shares.items())
        words.append(f"{what}: ratio {shown}" if shares else f"{what}: not measured at a common batch size")
        if name == asked and shares:
            lower = [share < 1 for share in shares.values()]
            word = "yes" if all(lower) else "no" if not any(lower) else "not decided"
    return _claimed(word, one), "; ".join(words)


def judge_convergence(results: Results, suite: str, one: dict[str, Any]) -> tuple[str, str]:
    """Yes when the paired interval of the steps until a held-out loss lies below 0 at every target,
    no when above 0 at every one; losses are interpolated between looks, targets follow from all
    trainings of the suite (`bench/report/trainings.py`)."""
    found = {
        target: paired(*(rows[name]["step"] for name in (one["against"], one["variant"])))
        for target, rows in steps_to_targets(results, suite).items()
        if {one["variant"], one["against"]} <= rows.keys()
    }
    if not found:
        return "not decided", "no held-out loss that every training passes between two looks"
    shown = "; ".join(f"{show_difference(steps)} at {target:.2f}" for target, steps in found.items())
    reason = f"steps until a held-out loss, {one['variant']} minus {one['against']}, paired by training seed: {shown}"
    if any(steps is None or steps.count < FEWEST for steps in found.values()):
        return "not decided", f"{reason}; fewer than three training seeds"
    word, p = decided_together(found)
    return Verdict(_claimed(word, one), reason, p)


MOST_DIFFERENCES = 12  # listed one by one in a caption


def fid_differences(results: Results, suite: str) -> str:
    """Paired FID differences to the first variant."""
    first, *others = results.variants(suite)
    if not others:
        return "One variant, nothing to compare."
    if len(others) > MOST_DIFFERENCES and "scores" in results.suite(suite)["tables"]:
        return f"Differences to {rst(first)}, paired by training seed: in table scores."
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


def rounds_words(results: Results, suite: str) -> str:
    """How many rounds stand behind a time, and what ended them."""
    rows = results.latency(suite, "latency_s").dropna(subset=["value", "repeat"])
    counts = rows.groupby(["variant", "num_images"]).size()
    if not len(counts):
        return ""
    low, high = counts.min(), counts.max()
    words = f"Rounds: {low}" if low == high else f"Rounds: {low} to {high}"
    run = results.latency_run(suite)
    asked = json.loads(run["config_json"] or "{}").get("latency", {})
    if not {"width", "max_rounds"} <= asked.keys():  # of an older version
        return f"{words}."
    first = next(iter(results.variants(suite)))
    return (
        f"{words}, until the interval of the log ratio to {rst(first)} is at most {asked['width']:g} wide, {asked['max_rounds']} at most."
    )


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
    whole = memory_ratios(results, suite, "pipeline_peak_bytes", second, first)
    pipeline = ", ".join(f"{share:.2f} at batch {batch:g}" for batch, share in whole.items())
    times, memories = (
        "; ".join(f"{word} at batch {', '.join(map(str, sizes))}" for word, sizes in found.items()) for found in (time, memory)
    )
    return (
        f"{rst(second)} against {rst(first)}, time: {times} (decided where the 95 % t-interval of the log ratio over paired "
        f"rounds excludes 0; no correction for several batch sizes); working memory of the sampler: {memories or 'no number'}; whole "
        f"pipeline, ratio: {pipeline or 'not measured'}."
    )


def judge_equal(results: Results, suite: str, claim: dict[str, Any]) -> tuple[str, str]:
    """A gap is closed for one model and open for another: `yes` when `metric` of every training
    seed is at most 1e-10 for the variant and above 1e-3 for what it is held against, `no` when a
    seed is on the wrong side, `not decided` while one is missing or there are fewer than three.
    ELBO and cross-entropy of a chain are equal by an identity; what can fail is
    `path_kl_equal_state`."""
    words, held, fewest = [], [], FEWEST
    for key, closed in (("variant", True), ("against", False)):
        name = claim[key]
        found, missing = results.of(name, suite, claim["metric"]), results.missing(name, suite, claim["metric"])
        if missing:
            words.append(f"{name}: {by_reason(missing)}")
            continue
        fewest = min(fewest, len(found))
        held.append(bool((found <= GAP_CLOSED).all() if closed else (found > GAP_OPEN).all()))
        rule = f"at most {GAP_CLOSED:g}" if closed else f"above {GAP_OPEN:g}"
        words.append(f"{name}: {show(float(found.min()))} to {show(float(found.max()))} over {len(found)} seeds, needed {rule}")
    word = "no" if not all(held) else "yes" if len(held) == 2 else "not decided"
    if fewest < FEWEST:
        word = "not decided"
        words.append("fewer than three training seeds")
    if claim["metric"] in IDENTITIES:
        words.append("the equality of a chain is an identity, true of any Markov hierarchy without noise")
    return word, "; ".join(words)
