"""What a model's own tokens are worth to it, and which rules of refinement truncate: said wherever
a suite refines. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from srdd.lookup import is_own

from .estimate import FEWEST, Estimate, show_difference
from .view import View

CAN_HELP, CANNOT_HELP = "refinement can help", "refinement cannot help"
NOT_DECIDED = "whether refinement can help is not decided"


def ranked_by(sampler: dict[str, Any]) -> str | None:
    """The confidence that a sampler's rule of mask resampling ranks positions by; None for one that
    ranks none, and for a rule of one's own, of which nobody knows."""
    rule = sampler["select"]
    return None if is_own("select", rule["name"]) else rule.get("confidence")


def rule_truncates(sampler: dict[str, Any]) -> bool:
    """Whether a sampler's rule of mask resampling goes by the probability of the drawn token."""
    return sampler["select"]["name"] == "threshold" or ranked_by(sampler) == "drawn"


def truncates(sampler: dict[str, Any]) -> bool:
    """Whether a sampler of ours draws improbable tokens again, and so cuts off the tail of their
    distribution as top-p does: SR, and rules of mask resampling that go by the probability of the
    token that was drawn."""
    if sampler["name"] != "srdd":
        return False
    return bool(sampler["sr_steps"] or (sampler["refine_steps"] and rule_truncates(sampler)))


def _what_it_does(gain: Estimate) -> str:
    """What a gain says of refinement: it can help where the interval lies above 0, it cannot where
    it lies below, and one that holds 0 decides nothing. A model without masks reads no own tokens:
    its gain is 0 in every training, and says what an interval below 0 says."""
    if gain.low == gain.high == 0:
        return CANNOT_HELP
    if gain.count < FEWEST:
        return f"fewer than three training seeds, {NOT_DECIDED}"
    if gain.high < 0:
        return CANNOT_HELP
    return CAN_HELP if gain.low > 0 else NOT_DECIDED


def _called(names: list[str], groups: dict[str, list[str]]) -> str:
    """Variants in a sentence: a group by its name where it speaks of all of its members."""
    owner = {name: group for group, members in groups.items() for name in members}
    whole = {group for group, members in groups.items() if set(members) <= set(names)}
    return ", ".join(dict.fromkeys(owner[n] if owner[n] in whole else n for n in names))


def _gain_of(view: View, variant: str) -> str:
    """What own tokens gain for a variant, and what that means for its refinement."""
    gain = view.estimate(variant, "intra_scale_gain")
    if gain is None:
        return "what own tokens gain was not measured"
    return f"own tokens gain {show_difference(gain)} nats a token: {_what_it_does(gain)}"


def gain_words(view: View, only: Iterable[str] | None = None, doubts: bool = False) -> str:
    """For the refined variants of a suite, or some of them: whether their models gain from own
    tokens, so that refinement can help, and whether their rule truncates; plain text, empty where
    none is refined. doubts: nothing of those that can be helped."""
    gains: dict[str, list[str]] = {}
    truncating = []
    for name, about in view.variants.items():
        sampler = about["settings"]["sampler"]
        if only is not None and name not in only:
            continue
        if truncates(sampler):
            truncating.append(name)
        # a suite that times alone trains no model; an imported model was never measured
        known = about["settings"].get("weights") or len(view.of(name, "kept_step"))
        if not sampler["refine_steps"] or not known:
            continue
        words = _gain_of(view, name)
        if not (doubts and words.endswith(CAN_HELP)):
            gains.setdefault(words, []).append(name)
    refined = {name for names in gains.values() for name in names}
    parts = [f"{_called(names, _within(view, refined))}: {words}" for words, names in gains.items()]
    if truncating:
        # among those that refine or resample: a single pass truncates nothing
        among = _within(view, refined.union(truncating))
        parts.append(f"{_called(truncating, among)}: truncates, improbable tokens are redrawn")
    return f"{'; '.join(parts)}." if parts else ""


def _within(view: View, names: set[str]) -> dict[str, list[str]]:
    """Groups of a suite with those of their variants that have these names."""
    within = {}
    for group, members in view.groups().items():
        within[group] = [name for name in members if name in names]
    return within
