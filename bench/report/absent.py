"""Which numbers are missing, and why; how far an attention history reaches. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..study import rooms
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


def status_of(
    view: View, variant: str, metric: str, others: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Status of a row: training seeds of a variant without the metric, each with why, and without
    others that the row shows beside it, by the titles of their columns; else ok. A mean over the
    seeds that are left must say so."""
    # what nobody has was not asked for, also where jobs failed
    asked = {title: other for title, other in others.items() if view.results.has_rows(other)}
    of_others = {title: view.missing(variant, other) for title, other in asked.items()}
    return status_words(view, view.missing(variant, metric), of_others)


def status_words(
    view: View, missing: dict[int, str], of_others: Mapping[str, dict[int, str]]
) -> str:
    """Status of a row whose first number some training seeds lack, and further columns others."""
    lacking: dict[str, list[str]] = {}
    for title, lost in of_others.items():
        alone = {seed: why for seed, why in lost.items() if seed not in missing}
        if alone and not _never_asked(view, lost):
            lacking.setdefault(by_reason(alone), []).append(title)
    parts = [f"{_columns_words(titles)}: {words}" for words, titles in lacking.items()]
    return "; ".join(filter(None, [by_reason(missing), *parts])) or "ok"


def _never_asked(view: View, missing: dict[int, str]) -> bool:
    """Whether nobody asked for a number: no seed has it, also where all ended well."""
    never = len(missing) == len(view.about["train_seeds"])
    return never and bool({"not measured", "not run"} & {*missing.values()})


def _columns_words(titles: list[str]) -> str:
    """Columns that lack the same: one evaluation gives many, of which the first stands for all."""
    return titles[0] if len(titles) == 1 else f"{titles[0]} and {len(titles) - 1} more"


def grid_status(
    view: View,
    names: dict[str, Any],
    metric: str,
    others: Mapping[str, str] = MappingProxyType({}),
    scale: int | None = None,
) -> str:
    """Status of a row of a tokenizer under a schedule: why nobody has the metric, or which training
    seeds, with a tokenizer each, lack it, and which lack others, by the titles of their columns;
    else ok. scale: of metrics that have one number a scale."""
    lost = _grid_missing(view, names, metric, scale)
    whole = len(lost) == len(view.about["train_seeds"]) and len(set(lost.values())) == 1
    if whole:
        return next(iter(lost.values()))
    of_others = {title: _grid_missing(view, names, one, scale) for title, one in others.items()}
    return status_words(view, lost, of_others)


def _grid_missing(
    view: View, names: dict[str, Any], metric: str, scale: int | None
) -> dict[int, str]:
    """Training seeds whose tokenizer lacks a number, and why, whatever became of the trainings
    behind it."""
    there = set(view.grid_seeds(names, metric, scale).index)
    if -1 in there:  # one tokenizer serves all
        return {}
    stages = "tokenizer", "encode", "baselines", *rooms.which("OF_TOKENIZER")
    lost = [seed for seed in view.about["train_seeds"] if seed not in there]
    return {seed: view.results.why(names, seed, *stages) for seed in lost}


def members_status(view: View, members: list[str], metric: str) -> str:
    """Status of a row of several variants: training seeds without a number, with the variants that
    lack them unless all do, else ok."""
    lost: dict[str, list[str]] = {}
    for name in members:
        if words := by_reason(view.missing(name, metric)):
            lost.setdefault(words, []).append(name)
    parts = []
    for words, names in lost.items():
        parts.append(words if len(names) == len(members) else f"{', '.join(names)}: {words}")
    return "; ".join(parts) or "ok"


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
