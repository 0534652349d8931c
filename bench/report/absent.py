"""Which numbers are missing, and why; how far an attention history reaches. Imports no torch."""

from __future__ import annotations

from ..study.escaping import rst
from .view import View


def reach(view: View) -> str:
    """What an attention history of one or more means in a deep network, for the variants that have one."""
    words = []
    for name, names in view.variants.items():
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


def missing_words(view: View, metric: str, along: bool = False) -> str:
    """One line that names every variant and seed without a number, and why; empty when all are there."""
    found = {name: view.missing(name, metric, along) for name in view.variants}
    return "; ".join(f"{name}: {by_reason(seeds)}" for name, seeds in found.items() if seeds)
