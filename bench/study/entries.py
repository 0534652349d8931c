"""The variants of a suite by name before they are resolved, grids expanded. Imports no torch."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from .errors import ConfigError
from .schema import Suite, SuiteEntry
from .study_file import shown

MOST_VARIANTS = 1000  # of a suite
# where a word stands for a mapping of that name alone
BY_NAME = ("sampler.select", "training.correction")


class NamedEntry(NamedTuple):
    """A variant before it is resolved: the entry of the study that it comes from, base and delta,
    and the grid's values in it."""

    group: str
    entry: SuiteEntry
    grid: dict[str, Any]


def entries_of(suite: Suite, at: str = "") -> dict[str, NamedEntry]:
    """The variants of a suite by name, grids expanded. Raises ConfigError for too many,
    and for two of one name."""
    _check_count(suite, at)
    entries: dict[str, NamedEntry] = {}
    alike: dict[str, str] = {}
    for group, entry in suite.variants.items():
        for values in itertools.product(*entry.grid.values()):
            grid = dict(zip(entry.grid, values))
            name = ", ".join((group, *grid_words(grid)))
            plain = SuiteEntry(base=entry.base, delta={**entry.delta, **grid})
            check_one_value(plain.delta, f"{at}variants.{group}.", grid)
            named = NamedEntry(group, plain, grid)
            if entries.setdefault(name, named) != named:
                raise ConfigError(
                    f"{at}variants.{name}: two different variants have this name; "
                    "name one otherwise"
                )
            if (other := alike.setdefault(_as_seen(name), name)) != name:
                raise ConfigError(
                    f"{at}variants.{name}: differs from {other!r} in capitals, blanks or the form "
                    "of its characters alone; name one otherwise"
                )
    return entries


def check_one_value(delta: dict[str, Any], at: str, grid: Collection[str] = ()) -> None:
    """Refuse a variant that gives one setting two values: in a mapping, and by a dotted key of its
    own. grid: the keys that come from its grid. Raises ConfigError."""
    for dotted, value in delta.items():
        parts = dotted.split(".")
        for end in range(1, len(parts)):
            above = ".".join(parts[:end])
            other = _inside(delta.get(above), above, parts[end:])
            if other and other != [value]:
                part, whole = ("grid" if key in grid else "delta" for key in (dotted, above))
                raise ConfigError(
                    f"{at}{part}.{dotted}: {shown(value)}: the mapping of {above} in its {whole} "
                    f"gives {shown(other[0])}; keep one"
                )


def _inside(node: Any, above: str, parts: list[str]) -> list[Any]:
    """The value that the mapping of a key holds for further words of it; none where it holds
    none."""
    for part in parts:
        if above in BY_NAME and isinstance(node, str):
            node = {"name": node}
        if not isinstance(node, dict) or part not in node:
            return []
        node, above = node[part], f"{above}.{part}"
    return [node]


def _as_seen(name: str) -> str:
    """A name as a reader tells it from others."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _check_count(suite: Suite, at: str) -> None:
    sizes = {
        name: math.prod(map(len, entry.grid.values())) for name, entry in suite.variants.items()
    }
    count = sum(sizes.values())
    if count > MOST_VARIANTS:
        most = max(sizes, key=lambda name: sizes[name])
        raise ConfigError(
            f"{at}variants: {count:,} with their grids, of {most!r} alone {sizes[most]:,}; "
            f"{MOST_VARIANTS} a suite are the most"
        )


def grid_words(grid: dict[str, Any]) -> Iterator[str]:
    """What a grid adds to the name of a variant: each setting by the last words of its key that no
    other one ends with."""
    for key, value in grid.items():
        yield f"{_end_of(key, grid)} {_word(value)}"


def _end_of(key: str, keys: Iterable[str]) -> str:
    words, others = key.split("."), [f".{other}" for other in keys if other != key]
    for place in reversed(range(len(words))):
        end = ".".join(words[place:])
        if not any(other.endswith(f".{end}") for other in others):
            return end
    return key


def _word(value: Any) -> str:
    if isinstance(value, dict):  # a rule with its settings
        parts = itertools.chain.from_iterable(value.items())
        return " ".join(str(part) for part in parts if part != "name")
    return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
