"""What a model's own tokens are worth to it, and which rules of refinement truncate: said wherever
a suite refines. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from srdd.config import CONFIDENCES

from .estimates import Estimate, show_difference

if TYPE_CHECKING:
    from .loaded import Results


def truncates(sampler: dict[str, Any]) -> bool:
    """Whether a sampler of ours draws improbable tokens again, and so cuts off the tail of their
    distribution as top-p does: SR, and rules of mask resampling that go by the probability of the
    token that was drawn."""
    if sampler["name"] != "srdd":
        return False
    rule = sampler["select"]
    by = (sampler.get("confidence") or CONFIDENCES.get(rule)) if rule in CONFIDENCES else None
    return bool(
        sampler["sr_steps"] or (sampler["refine_steps"] and (rule == "threshold" or by == "drawn"))
    )


def helps(gain: Estimate) -> bool:
    """Whether own tokens are worth something: the interval of the gain lies above 0, or the one
    value does."""
    return (gain.mean if gain.half is None else gain.low) > 0


def _together(found: dict[str, list[str]]) -> list[str]:
    """One part for all variants of which the same is true."""
    return [f"{', '.join(dict.fromkeys(names))}: {words}" for words, names in found.items()]


def gain_words(results: Results, suite: str, only: Iterable[str] | None = None) -> str:
    """For the refined variants of a suite, or some of them: whether their models gain from own
    tokens, so that refinement can help, and whether their rule truncates; plain text, empty where
    none is refined."""
    gains: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    cut = []
    for name, about in results.variants(suite).items():
        sampler = about["settings"]["sampler"]
        if only is not None and name not in only:
            continue
        if truncates(sampler):
            cut.append(about["group"])
        # a suite that times alone trains no model
        if not sampler["refine_steps"] or not len(results.of(name, suite, "kept_step")):
            continue
        gain = results.estimate(name, suite, "intra_scale_gain")
        if gain is None:
            words = "what own tokens gain was not measured"
        else:
            can = "can help" if helps(gain) else "cannot help"
            words = f"own tokens gain {show_difference(gain)} nats a token: refinement {can}"
        gains.setdefault(words, []).append(name)
        owner[name] = about["group"]
    # of a grid whose models differ in it each variant is named, else the grid
    said = {name: [words for words, names in gains.items() if name in names][0] for name in owner}
    whole = {group: {said[name] for name in owner if owner[name] == group} for group in owner.values()}
    for names in gains.values():
        names[:] = [owner[name] if len(whole[owner[name]]) == 1 else name for name in names]
    found = _together(gains)
    if cut:
        found.append(f"{', '.join(dict.fromkeys(cut))}: truncates, improbable tokens are redrawn")
    return f"{'; '.join(found)}." if found else ""
