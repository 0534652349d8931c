"""What a model's own tokens are worth to it, and which rules of refinement truncate: said wherever
a suite refines. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from srdd.lookup import is_own

from .estimate import FEWEST, Estimate, show_difference
from .view import View

if TYPE_CHECKING:
    pass


CAN_HELP = "refinement can help"


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
    """What a gain says of refinement: it can help where the interval lies above 0. Fewer than
    three trainings decide nothing but what is not above 0 anyway."""
    if (gain.mean if gain.half is None else gain.low) <= 0:
        return "refinement cannot help"
    if gain.count < FEWEST:
        return "fewer than three training seeds, whether refinement can help is not decided"
    return CAN_HELP


def _called(names: list[str], groups: dict[str, list[str]]) -> str:
    """Variants in a sentence: a group by its name where it speaks of all of its members."""
    owner = {name: group for group, members in groups.items() for name in members}
    whole = {group for group, members in groups.items() if set(members) <= set(names)}
    return ", ".join(dict.fromkeys(owner[n] if owner[n] in whole else n for n in names))


def gain_words(
    view: View, only: Iterable[str] | None = None, doubts: bool = False
) -> str:
    """For the refined variants of a suite, or some of them: whether their models gain from own
    tokens, so that refinement can help, and whether their rule truncates; plain text, empty where
    none is refined. doubts: nothing of those that can be helped."""
    gains: dict[str, list[str]] = {}
    cut = []
    for name, about in view.variants.items():
        sampler = about["settings"]["sampler"]
        if only is not None and name not in only:
            continue
        if truncates(sampler):
            cut.append(name)
        # a suite that times alone trains no model; an imported one was never measured
        there = about["settings"].get("weights") or len(view.of(name, "kept_step"))
        if not sampler["refine_steps"] or not there:
            continue
        gain = view.estimate(name, "intra_scale_gain")
        if gain is None:
            words = "what own tokens gain was not measured"
        else:
            worth = f"own tokens gain {show_difference(gain)} nats a token"
            words = f"{worth}: {_what_it_does(gain)}"
        if not (doubts and words.endswith(CAN_HELP)):
            gains.setdefault(words, []).append(name)
    refined, groups = {name for names in gains.values() for name in names}, view.groups()
    mine = {group: [n for n in members if n in refined] for group, members in groups.items()}
    found = [f"{_called(names, mine)}: {words}" for words, names in gains.items()]
    if cut:
        # among those that refine or resample: one pass truncates nothing
        may = {
            group: [n for n in members if n in refined or n in cut]
            for group, members in groups.items()
        }
        found.append(f"{_called(cut, may)}: truncates, improbable tokens are redrawn")
    return f"{'; '.join(found)}." if found else ""
