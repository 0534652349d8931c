"""Which variants of a suite are one trained model, and what it learnt. Imports no torch."""

from __future__ import annotations

import re
from typing import Any

from ...report.gain import ranked_by
from ...report.view import View

# settings of a sampler that act on further passes alone, or name it
OF_PASSES = ("name", "refine_steps", "refine_scales", "select", "p_resample")
HIDDEN = re.compile(r"loss_(?:train|test)_hidden_(\d+)")


def by_model(view: View) -> dict[str, list[str]]:
    """Variants that are samplers of one trained model, by the first of them."""
    first: dict[tuple[str, str], str] = {}
    members: dict[str, list[str]] = {}
    for name, names in view.variants.items():
        owner = first.setdefault((names["model"], names["tokenizer"]), name)
        members.setdefault(owner, []).append(name)
    return members


def same_weights(view: View) -> dict[str, list[str]]:
    """Models that kept the very weights of an earlier one, by that one: of every training seed the
    kept step and its held-out loss are equal, so more steps changed nothing."""
    first: dict[tuple[Any, ...], str] = {}
    later: dict[str, list[str]] = {}
    for name in by_model(view):
        told = [view.of(name, metric) for metric in ("kept_step", "kept_loss_test")]
        if not all(map(len, told)):
            continue
        owner = first.setdefault(tuple(tuple(sorted(one.items())) for one in told), name)
        if owner != name:
            later.setdefault(owner, []).append(name)
    return later


def one_pass_of(view: View, variant: str) -> str | None:
    """The variant that draws each scale once from the same weights, all else equal; None where
    none is shown, and of a variant of one pass."""
    names, sampler = view.variants[variant], view.sampler(variant)
    if not sampler["refine_steps"]:
        return None
    for other, about in view.variants.items():
        alike = all(about[key] == names[key] for key in ("model", "tokenizer"))
        if alike and not view.sampler(other)["refine_steps"]:
            if _of_a_pass(view.sampler(other)) == _of_a_pass(sampler):
                return other
    return None


def _of_a_pass(sampler: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sampler.items() if key not in OF_PASSES}


def masked(view: View, variant: str) -> bool:
    """Whether a variant's model reads own tokens; of older results nobody knows."""
    return bool(view.variants[variant]["settings"]["model"].get("mask_prob"))


def rule_of(sampler: dict[str, Any]) -> str:
    """A rule in a word or two: its name, and what it ranks by where that is the drawn token."""
    by_drawn = ranked_by(sampler) == "drawn"
    return f"{sampler['select']['name']}{' by drawn' if by_drawn else ''}"


def hidden_counts(view: View) -> list[int]:
    """The numbers of hidden tokens that were asked for, at any scale."""
    matches = map(HIDDEN.fullmatch, view.results.metrics["metric"].unique())
    return sorted({int(match[1]) for match in matches if match})


def steps_made(view: View, variant: str) -> dict[int, float]:
    """Steps that each training made until it ended, by training seed."""
    rows = view.snapshots(variant, "loss_val")
    return {int(seed): float(part["step"].max()) for seed, part in rows.groupby("train_seed")}


def teacher_in(view: View, variant: str) -> str | None:
    """The variant that is the teacher of another one; None for one without, or not shown."""
    distill = view.variants[variant]["settings"].get("distill")
    if not distill:
        return None
    wanted = {key: distill["teacher"][key] for key in ("model", "training")}
    for name in by_model(view):
        settings = view.variants[name]["settings"]
        same = {key: settings.get(key) for key in wanted} == wanted
        if same and not settings.get("distill"):
            return name
    return None


def share_of_teacher(view: View, variant: str) -> list[float]:
    """Tokens that a student was shown over those that its teacher's kept weights were shown, of
    each training seed; empty where the teacher is not shown."""
    teacher = teacher_in(view, variant)
    if teacher is None:
        return []
    kept, steps = view.of(teacher, "kept_step"), steps_made(view, variant)
    student, old = (_tokens_a_step(view, name) for name in (variant, teacher))
    return [steps[seed] * student / (kept[seed] * old) for seed in steps if kept.get(seed)]


def _tokens_a_step(view: View, variant: str) -> int:
    names = view.variants[variant]
    return names["settings"]["training"]["batch_size"] * sum(n * n for n in names["patch_nums"])
