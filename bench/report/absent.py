"""Which numbers are missing, and why; how far an attention history reaches. Imports no torch."""

from __future__ import annotations

from typing import Any

from ..study.escaping import rst
from .view import View


def reach(view: View) -> str:
    """What an attention history of one or more means in a deep network, and how far a history
    vector reaches, for the variants that have one."""
    words, pooled = [], []
    for name, names in view.variants.items():
        h, depth, most = names["history"], names["depth"], len(names["patch_nums"]) - 1
        if h is not None and h >= 1:
            words.append(f"{rst(name)} reaches min({h} x {depth}, {most}) = {min(h * depth, most)}")
        N = names.get("settings", {}).get("model", {}).get("history_vector", 0)
        if N > 1:
            pooled.append(f"{rst(name)} {min(N, most) - 1}")
    lines = []
    if words:
        lines.append(
            "History h reaches min(h x depth, K-1) earlier scales, hence h of 1 or more is not "
            f"Markov: {'; '.join(words)}."
        )
    if pooled:
        lines.append(
            "A history vector of N scales reaches N - 1 earlier ones, hence N of 2 or more is not "
            f"Markov in the state: {'; '.join(pooled)}."
        )
    return " ".join(lines)


def by_reason(missing: dict[int, str]) -> str:
    """Training seeds without a number, those with one reason together."""
    seeds: dict[str, list[str]] = {}
    for seed, why in missing.items():
        seeds.setdefault(why, []).append(str(seed))
    parts = []
    for why, of_reason in seeds.items():
        parts.append(f"seed{'s' * (len(of_reason) > 1)} {', '.join(of_reason)} {why}")
    return ", ".join(parts)


def lost_of(view: View, variant: str, *metrics: str) -> str:
    """Training seeds in which a variant lacks one of these metrics, of those that somebody
    measured, and why: what jobs of several kinds report of one row. Empty where all are there."""
    lost: dict[int, str] = {}
    for metric in filter(view.results.has_rows, metrics):
        lost = view.missing(variant, metric) | lost
    return by_reason(dict(sorted(lost.items())))


def lost_scores(view: View, variant: str) -> str:
    """Training seeds in which a variant has no FID, and why; those of each other extractor too,
    where the first has its score. Empty where all is there."""
    first = by_reason(view.missing(variant, view.results.score_name("fid")))
    words = [first]
    for asked in map(view.by, view.results.others):
        lost = by_reason(asked.missing(variant, asked.results.score_name("fid")))
        words.append(f"by {asked.results.extractor} {lost}" if lost not in first else "")
    return "; ".join(filter(None, words))


def lost_lines(view: View, names: dict[str, Any], line: str) -> str:
    """Training seeds whose tokenizer has no FID of a line that scores are read against, such as
    floor, and why; empty where one tokenizer serves all or all have one."""
    there = view.grid_seeds(names, f"{line}_{view.results.score_name('fid')}").index
    if -1 in there:
        return ""
    stages = ("tokenizer", "encode", "baselines")
    lost = {
        seed: view.results.why(names, seed, *stages)
        for seed in view.about["train_seeds"]
        if seed not in there
    }
    if not len(there) and set(lost.values()) <= {"not measured", "not run"}:
        return view.results.why(names, None)
    return by_reason(lost)


def group_missing(view: View, group: str, metric: str) -> str:
    """Why a group has no seed to tune on: training seeds of which no variant has a number, and why
    the first has none, or that those with some share none; empty where all have one."""
    first, *others = [view.missing(name, metric) for name in view.groups()[group]]
    seeds = set(view.about["train_seeds"])
    some = [set(missing) for missing in (first, *others) if set(missing) < seeds]
    if some and set().union(*some) == seeds:
        return "its variants have numbers in no common training seed"
    in_all = set(first).intersection(*others)
    return by_reason({seed: why for seed, why in first.items() if seed in in_all})


def missing_words(view: View, metric: str, along: bool = False) -> str:
    """One line that names every variant and seed without a number, and why; empty when all are
    there."""
    missing = {name: view.missing(name, metric, along) for name in view.variants}
    return "; ".join(f"{name}: {by_reason(seeds)}" for name, seeds in missing.items() if seeds)
