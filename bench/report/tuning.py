"""What groups of variants tried, and what they were tuned to. Imports no torch."""

from __future__ import annotations

import json
import math
from typing import Any

from .view import View

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
    "svd_in": (0.0,),
    "svd_out": (0.0,),
    "detail_scale": (0.0,),
}


SHORT = {"cfg_scale": "w", "cfg_ramp": "ramp", "top_p": "top-p", "top_k": "top-k"}


def varied(view: View, group: str) -> dict[str, list[Any]]:
    """Settings of the sampler in which the variants of a group differ: the different values of
    each."""
    return differing([flat(view.sampler(name)) for name in view.groups()[group]])


def flat(sampler: dict[str, Any]) -> dict[str, Any]:
    """A sampler's settings with those of its rule beside them, as select.p_resample."""
    rule = dict(sampler["select"])
    name = rule.pop("name")
    return {**sampler, "select": name, **{f"select.{key}": value for key, value in rule.items()}}


def differing(samplers: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Flat settings in which samplers differ: the different values of each, of those that have
    it."""
    tried: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for sampler in samplers for key in sampler):
        # by their JSON, because a list has no hash
        different = {
            json.dumps(sampler[key]): sampler[key] for sampler in samplers if key in sampler
        }
        tried[key] = list(different.values())
    return {key: values for key, values in tried.items() if len(values) > 1}


def short(key: str) -> str:
    """A setting of a sampler in few letters."""
    return SHORT.get(key, key.rsplit(".", 1)[-1])


def edges(view: View, group: str, best: str) -> str:
    """Settings of a tuned variant at the edge of what its group tried, where the best may lie
    beyond; empty where none are."""
    chosen, at_edge = flat(view.sampler(best)), []
    for key, values in varied(view, group).items():
        # null is all codes, more than any number of them
        numbers = [math.inf if key == "top_k" and value is None else value for value in values]
        tried = sorted(value for value in numbers if isinstance(value, (int, float)))
        if len(tried) < 2 or chosen.get(key) not in (tried[0], tried[-1]):
            continue
        if chosen[key] not in LIMITS.get(key.removeprefix("select."), ()):
            at_edge.append(f"{short(key)} = {chosen[key]:g} of {tried[0]:g} to {tried[-1]:g}")
    return f"at the edge of what was tried ({', '.join(at_edge)})" if at_edge else ""


def half_words(view: View) -> str:
    """Where halves of sample seeds are counted from, and what they are held against, as the end of
    a clause."""
    # each training draws seeds of its own; in older results the same
    own_seeds = view.results.about.get("tokenizer_seed") is not None
    counted = ", counted from the first of each training" if own_seeds else ""
    apart = len(view.rows_of("half_reference_images")) > 0  # not in rows of older versions
    features = view.results.features[view.results.extractor]
    whole = features.get("reference")  # a file of statistics has no halves
    if apart and not whole:
        return f"{counted}, each against its own half of the reference"
    return f"{counted}, both against the whole reference"
