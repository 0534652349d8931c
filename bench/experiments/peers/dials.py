"""The dials of the room: one for each idea, off where the model is SDD. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from srdd.schedule import ScaleSchedule

from ...report.view import View

NO_CORRECTION = "none"
# of a correction's settings those that its kind reads, as far as a reader needs them
CORRECTION = {"requantise": ("noise",), "rollout": ("draw", "target", "weight")}

GUIDANCE = "sampler.cfg_scale"


@dataclass(frozen=True)
class Dial:
    """One setting: its section and key, where it is off, what else is read where it is on, and who
    published it."""

    section: str
    key: str
    off: Any
    beside: tuple[str, ...] = ()
    source: str = ""

    def value(self, settings: dict[str, Any]) -> Any:
        """Where it stands in a variant; off in results of older versions."""
        given = settings.get(self.section, {}).get(self.key, self.off)
        return given["name"] if isinstance(given, dict) else given

    def words(self, settings: dict[str, Any]) -> str:
        """Its value with what is set beside it."""
        section, value = settings.get(self.section, {}), self.value(settings)
        given = section.get(self.key)
        if isinstance(given, dict):
            beside = {key: part for key, part in given.items() if key in CORRECTION.get(value, ())}
        else:
            beside = {key: section.get(key) for key in self.beside}
        parts = [f"{key.removeprefix('detail_')} {part}" for key, part in beside.items()]
        return ", ".join([_shown(value), *parts])


DIALS = {
    "history vector": Dial("model", "history_vector", 0, source="Markov-VAR, arXiv 2511.23334"),
    "window": Dial("model", "window", None, ("window_from",), "MVAR, arXiv 2505.12742"),
    "loss weight": Dial("training", "loss_weight", "token", (), "HMAR, arXiv 2506.04421"),
    "correction": Dial(
        "training", "correction", NO_CORRECTION, (), "Infinity, arXiv 2412.04431; SAR, 2512.06421"
    ),
    "state": Dial("model", "state", "sum", (), "FlexVAR, arXiv 2502.20313"),
    "detail": Dial(
        "sampler", "detail_scale", 0.0, ("detail_ramp", "detail_prior"), "SSG, arXiv 2602.05534"
    ),
}


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def turned(settings: dict[str, Any]) -> list[str]:
    """Names of the dials that are not off."""
    return [name for name, dial in DIALS.items() if dial.value(settings) != dial.off]


def _without_dials(names: dict[str, Any]) -> str:
    """All settings of a variant but those of the dials. A tokenizer is part of them unless the
    state says that it has to be another."""
    settings = {key: dict(section) for key, section in names["settings"].items()}
    for dial in DIALS.values():
        for key in (dial.key, *dial.beside):
            settings.get(dial.section, {}).pop(key, None)
    if names["settings"].get("model", {}).get("state") != "replace":
        settings["tokenizer"] = {"name": names["tokenizer"]}
    return json.dumps(settings, sort_keys=True)


def counterparts(view: View) -> dict[str, str]:
    """Of each variant with a dial turned the one of the suite that is the same with all dials off;
    variants without one are left out."""
    off: dict[str, str] = {}
    for name, names in view.variants.items():
        if not turned(names["settings"]):
            off.setdefault(_without_dials(names), name)
            # what another tokenizer is compared with
            settings = {**names, "settings": _as_replaced(names["settings"])}
            off.setdefault(_without_dials(settings), name)
    others = {
        name: off.get(_without_dials(names))
        for name, names in view.variants.items()
        if turned(names["settings"])
    }
    return {name: other for name, other in others.items() if other is not None}


def unguided(view: View) -> View:
    """Without variants that differ from another one in guidance alone: it stands for them where it
    has w = 1. What guidance changes is in figure and table guidance."""

    def without_guidance(names: dict[str, Any]) -> tuple[Any, ...]:
        grid = {key: value for key, value in names["grid"].items() if key != GUIDANCE}
        return names["group"], tuple(sorted((key, str(value)) for key, value in grid.items()))

    plain = {
        without_guidance(names)
        for name, names in view.variants.items()
        if GUIDANCE in names["grid"] and view.sampler(name)["cfg_scale"] == 1
    }
    return view.only(
        name
        for name, names in view.variants.items()
        if without_guidance(names) not in plain or view.sampler(name)["cfg_scale"] == 1
    )


def _as_replaced(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "model": {**settings.get("model", {}), "state": "replace"}}


def attended_pairs(names: dict[str, Any]) -> int | None:
    """Query-key pairs that one pass over an image keeps, in each block; None under a mask of one's
    own."""
    if names["mask"] is not None:
        return None
    model = names["settings"].get("model", {})
    sight = model.get("window"), model.get("window_from", 0)
    return ScaleSchedule(tuple(names["patch_nums"])).attended_pairs(names["history"], *sight)


def reached(names: dict[str, Any]) -> int | None:
    """How many earlier scales a scale reaches, by attention or by its history vector; None under a
    mask of one's own."""
    most = len(names["patch_nums"]) - 1
    if names["mask"] is not None:
        return None
    if names["history"] is None:
        return most
    attended = names["history"] * names["depth"]
    pooled = max(0, names["settings"].get("model", {}).get("history_vector", 0) - 1)
    # what a scale attends to has pooled too; the first scale reads nothing that could be pooled
    return max(min(attended, most), min(attended + pooled, most - 1) if pooled else 0)
