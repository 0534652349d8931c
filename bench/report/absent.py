"""Which numbers are missing, and why; how far an attention history reaches. Imports no torch."""

from __future__ import annotations

from ..study.escaping import rst
from .view import View


def reach(view: View) -> str:
    """What an attention history of one or more means in a deep network, for the variants that have
    one."""
    words = []
    for name, names in view.variants.items():
        h, depth, most = names["history"], names["depth"], len(names["patch_nums"]) - 1
        if h is not None and h >= 1:
            words.append(f"{rst(name)} reaches min({h} x {depth}, {most}) = {min(h * depth, most)}")
    if not words:
        return ""
    return (
        "History h reaches min(h x depth, K-1) earlier scales, hence h of 1 or more is not Markov: "
        f"{'; '.join(words)}."
    )


def by_reason(missing: dict[int, str]) -> str:
    """Training seeds without a number, those with one reason together."""
    seeds: dict[str, list[str]] = {}
    for seed, why in missing.items():
        seeds.setdefault(why, []).append(str(seed))
    parts = []
    for why, of_reason in seeds.items():
        parts.append(f"seed{'s' * (len(of_reason) > 1)} {', '.join(of_reason)} {why}")
    return ", ".join(parts)


def missing_words(view: View, metric: str, along: bool = False) -> str:
    """One line that names every variant and seed without a number, and why; empty when all are
    there."""
    missing = {name: view.missing(name, metric, along) for name in view.variants}
    return "; ".join(f"{name}: {by_reason(seeds)}" for name, seeds in missing.items() if seeds)
