"""Arms and schedules of students, and how a caption tells them. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ...report.view import View
from ...study.escaping import rst
from ...study.schema import SHARPENING


def tokens_of(patch_nums: Iterable[int]) -> int:
    """Tokens of a schedule: token_evals of one image without guidance and refinement."""
    return sum(side * side for side in patch_nums)


def training_tokens(settings: dict[str, Any]) -> float:
    """Tokens that a variant's training reads when no early stopping ends it, its teacher's
    included; nan where a part was imported and nobody counted."""
    parts = [settings, *([settings["distill"]["teacher"]] if "distill" in settings else [])]
    if any(part["training"] is None for part in parts):
        return math.nan
    tokens = 0
    for part in parts:
        images = part["training"]["steps"] * part["training"]["batch_size"]
        tokens += images * tokens_of(part["model"]["patch_nums"])
    return tokens


def reduced_schedules(view: View) -> list[tuple[int, ...]]:
    """Schedules of the suite's grids, in order of their tokens."""
    schedules = {tuple(names["patch_nums"]) for names in view.variants.values() if names["grid"]}
    return sorted(schedules, key=lambda schedule: (tokens_of(schedule), schedule))


def full_schedules(view: View) -> list[str]:
    """Variants that a suite names one by one: teachers, and whatever else the variants of its grids
    are read against."""
    return [name for name, names in view.variants.items() if not names["grid"]]


def full_schedule_of(view: View, variant: str) -> str | None:
    """The one of them whose model and tokenizer differ from a variant's in nothing but the
    schedule, that of most tokens: a student may be named by itself too. Itself for a longest one.
    None where there is none, or where there are several, trained otherwise: a difference would be
    one of two things."""
    variants = view.variants
    mine = _without_schedule(variants[variant])
    alike = [one for one in full_schedules(view) if _without_schedule(variants[one]) == mine]
    tokens = {one: tokens_of(variants[one]["patch_nums"]) for one in alike}
    longest = [one for one in alike if tokens[one] == max(tokens.values())]
    if variant in longest:
        return variant
    return longest[0] if len(longest) == 1 else None


def _without_schedule(names: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """All settings of a variant's model but its schedule, and its tokenizer's."""
    model, settings = names["settings"]["model"], names["settings"]
    alike = {key: value for key, value in model.items() if key != "patch_nums"}
    return alike, settings.get("tokenizer")


# ---------------------------------------------------------------- in words


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _sharpened(sampler: dict[str, Any]) -> str:
    """How a teacher's samples differ from the distribution that it learnt."""
    words = [f"{key} {sampler[key]:g}" for key, off in SHARPENING.items() if sampler[key] != off]
    return f"with {', '.join(words)}" if words else "without guidance"


def _group_words(group: str, settings: list[dict[str, Any]]) -> str:
    """How the students of a group were trained. settings: of each."""
    if settings[0]["training"] is None:
        return f"{rst(group)}: imported weights, not trained here."
    steps = sorted(setting["training"]["steps"] for setting in settings)
    span = f"{_span(str(steps[0]), str(steps[-1]))} steps"
    tokens = sorted(training_tokens(setting) / 1e6 for setting in settings)
    millions = f"{_span(f'{tokens[0]:.3g}', f'{tokens[-1]:.3g}')} million tokens read"
    distill = settings[0].get("distill")
    if distill is None:
        return f"{rst(group)}: from scratch, {span}, {millions}."
    teacher, images = distill["teacher"], ""
    kind, millions = "a trained", f"{millions} with the teacher's"
    if teacher["training"] is None:
        kind, millions = "an imported", "how many tokens its teacher read is not known"
    if distill["arm"] == "sequence":
        drawn = _sharpened(teacher["sampler"])
        images = f" on {distill['num_samples']} images of the teacher, drawn {drawn},"
    return (
        f"{rst(group)}: arm {rst(distill['arm'])}{images} from {kind} teacher, {span}, {millions}."
    )


def _without_first_scale(view: View) -> list[str]:
    """Schedules of students of the arm logit that share no scale with their teacher."""
    schedules = set()
    for names in view.variants.values():
        distill = names["settings"].get("distill")
        if distill is None or distill["arm"] != "logit":
            continue
        if names["patch_nums"][0] != distill["teacher"]["model"]["patch_nums"][0]:
            schedules.add("-".join(map(str, names["patch_nums"])))
    return sorted(schedules)


def arm_details(view: View) -> tuple[str, ...]:
    """Details of a caption: how each group was trained, and what its numbers must be read with."""
    details, arms = [], set()
    for group, members in view.groups().items():
        settings = [view.variants[name]["settings"] for name in members]
        details.append(_group_words(group, settings))
        arms.add(settings[0].get("distill", {}).get("arm"))
    if "logit" in arms:
        details.append(
            "Arm logit: KL to the teacher at the scales that both schedules begin with; beyond "
            "the first omitted scale a token encodes another residual, so the teacher's "
            "continuation of the image is re-encoded and learnt."
        )
    alone = _without_first_scale(view)
    if alone:
        students = ", ".join(alone)
        details.append(
            f"Students of {students} share no first scale: they learn from continuations alone."
        )
    return tuple(details)
