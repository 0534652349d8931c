"""Settings that are given twice: in two files, or by a study and by one of its suites. Imports no
torch."""

from __future__ import annotations

from typing import Any

from srdd.config import Strict


def merged(below: Any, above: Any) -> Any:
    """Two settings as one: mappings key by key, else what stands above. Of settings that were read
    already, what was given."""
    if isinstance(below, Strict) and type(below) is type(above):
        return merged(_given(below), _given(above))
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}


def _given(settings: Strict) -> dict[str, Any]:
    return {key: getattr(settings, key) for key in settings.model_fields_set}
