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
}


SHORT = {"cfg_scale": "w", "cfg_ramp": "ramp", "top_p": "top-p", "top_k": "top-k"}


def varied(view: View, group: str) -> dict[str, list[Any]]:
    """Settings of the sampler in which the variants of a group differ: the different values of
    each."""
    samplers = [view.sampler(name) for name in view.groups()[group]]
    tried: dict[str, list[Any]] = {}
    for key in samplers[0]:
        # by their JSON, because a list has no hash
        different = {json.dumps(sampler[key]): sampler[key] for sampler in samplers}
        tried[key] = list(different.values())
    return {key: values for key, values in tried.items() if len(values) > 1}


def edges(view: View, group: str, best: str) -> str:
    """Settings of a tuned variant at the edge of what its group tried, where the best may lie
    beyond; empty where none are."""
    chosen, at_edge = view.sampler(best), []
    for key, values in varied(view, group).items():
        # null is all codes, more than any number of them
        numbers = [math.inf if key == "top_k" and value is None else value for value in values]
        tried = sorted(value for value in numbers if isinstance(value, (int, float)))
        if len(tried) < 2 or chosen[key] not in (tried[0], tried[-1]):
            continue
        if chosen[key] not in LIMITS.get(key, ()):
            shown = f"{SHORT.get(key, key)} = {chosen[key]:g} of {tried[0]:g} to {tried[-1]:g}"
            at_edge.append(shown)
    return f"at the edge of what was tried ({', '.join(at_edge)})" if at_edge else ""


def half_words(view: View) -> str:
    """Where halves of sample seeds are counted from, and what they are held against, as the end of
    a clause."""
    # each training draws seeds of its own; in older results the same
    own_seeds = view.results.about.get("tokenizer_seed") is not None
    counted = ", counted from the first of each training" if own_seeds else ""
    rows = view.results.rows_of("half_reference_images")
    apart = rows["run_id"].isin(view.runs).any()  # not in rows of older versions
    whole = view.results.about["features"].get("reference")  # a file of statistics has no halves
    if apart and not whole:
        return f"{counted}, each against its own half of the reference"
    return f"{counted}, both against the whole reference"
