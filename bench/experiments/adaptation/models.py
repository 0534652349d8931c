"""Which variants of a suite are one trained model, and what it learnt. Imports no torch."""

from __future__ import annotations

import re
from typing import Any

from ...report.gain import ranked_by
from ...report.view import View

HIDDEN = re.compile(r"loss_(?:train|test)_hidden_(\d+)")


def by_model(view: View) -> dict[str, list[str]]:
    """Variants that are samplers of one trained model, by the first of them."""
    first: dict[tuple[str, str], str] = {}
    members: dict[str, list[str]] = {}
    for name, names in view.variants.items():
        owner = first.setdefault((names["model"], names["tokenizer"]), name)
        members.setdefault(owner, []).append(name)
    return members


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
