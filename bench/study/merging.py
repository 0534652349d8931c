"""Settings that are given twice: by a study, and by one of its suites. Imports no torch."""

from __future__ import annotations

from typing import Any

from srdd.config import Strict


def merged(whole: Any, own: Any) -> Any:
    """What was given of two settings, each by itself, the second one's where both were; mappings
    deeply."""
    if isinstance(whole, Strict) and type(whole) is type(own):
        return merged(_given(whole), _given(own))
    if isinstance(whole, dict) and isinstance(own, dict):
        both = {key: merged(whole[key], own[key]) for key in whole.keys() & own.keys()}
        return {**whole, **own, **both}
    return own


def _given(settings: Strict) -> dict[str, Any]:
    return {key: getattr(settings, key) for key in settings.model_fields_set}
