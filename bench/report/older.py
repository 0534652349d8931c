"""Settings that rows of older versions hold, in the form of today. Imports no torch."""

from __future__ import annotations

from typing import Any

# what each rule read when the settings of all rules stood side by side in the sampler
READ = {
    "threshold": ("p_resample",),
    "lowest": ("resample_fraction", "confidence"),
    "random": ("resample_fraction",),
    "static": ("confidence",),
    "sequential": (),
    "shuffled": (),
    "dynamic": ("commit_above", "confidence"),
    "entropy": ("entropy_bound", "confidence"),
}
KNOBS = ("confidence", "resample_fraction", "commit_above", "entropy_bound")


def sampler_from_older(settings: dict[str, Any]) -> dict[str, Any]:
    """A sampler's settings with those of its rule inside `select`; a form of today stays as it is.

    Older rows name the rule alone and hold the settings of all rules; a confidence of null, or
    none, means the rule's own. What a rule of one's own read then nobody knows: it keeps its name.
    """
    name = settings.get("select")
    if not isinstance(name, str):
        return settings
    rule: dict[str, Any] = {"name": name}
    for key in READ.get(name, ()):
        rule[key] = settings.get(key)
    if "confidence" in rule and rule["confidence"] is None:
        rule["confidence"] = "drawn" if name == "lowest" else "peak"
    kept = {key: value for key, value in settings.items() if key not in KNOBS}
    if not settings.get("sr_steps"):
        kept["p_resample"] = 0.1  # read by no one: the default
    return {**kept, "select": rule}


def study_from_older(node: Any) -> None:
    """Bring every sampler of a study's row, those of teachers too, to the form of today, in place.
    What is damaged stays as it is, for the check that follows."""
    if isinstance(node, list):
        for part in node:
            study_from_older(part)
    if isinstance(node, dict):
        for key, part in node.items():
            if key == "sampler" and isinstance(part, dict):
                node[key] = type(part)(sampler_from_older(part))
            else:
                study_from_older(part)
