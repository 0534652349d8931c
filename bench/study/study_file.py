"""Reading a study's YAML strictly, and one line for whatever is wrong with it. Imports no torch.

A YAML file may hold anything: other encodings, dates, aliases that grow without end, nesting
without end. What a study
cannot mean is refused here, before any other code meets it.
"""

from __future__ import annotations

import math
import re
import stat
import types
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import SafeConstructor

from srdd.lookup import unknown

from .errors import ConfigError

MOST_VALUES = 100_000  # of a study with its aliases written out
MOST_LEVELS = 40
MERGE = "tag:yaml.org,2002:merge"  # the key `<<`
SHALLOW = 2_000  # levels: libyaml fills the stack of a process at ten times as many
# tabs, marks of byte order, question marks in a list, empty tags, and comments that stick to a
# block's mark: libyaml reads what PyYAML refuses, or otherwise
DISPUTED = re.compile(r"[\t\ufeff?]|(?:^|[\s\[{,])!|[|>][-+0-9]*#")
LINE_OF_COMMENT = re.compile(r"^ *#[^\n\r\x85\u2028\u2029]*", re.MULTILINE)
MOST_SHOWN = 120  # characters of a refused value
MOST_WORDS = 1500  # characters of a message
# what pydantic says in words of Python
IN_YAML = {
    "tuple_type": "must be a list",
    "model_type": "must be a mapping of keys",
    "too_short": "must hold at least {min_length}",
}


class _Strict(SafeConstructor):
    """Refuses a key that stands twice, and reads 1e-3 as the number that it is."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Write out `<<`, each key of others once: mappings that merge nine each would hold nine
        times as many pairs at every level. Own keys stay as they are, to be checked."""
        own = [pair for pair in node.value if pair[0].tag != MERGE]
        super().flatten_mapping(node)
        of_others = node.value[: len(node.value) - len(own)]
        merged = {(key.tag, str(key.value)): (key, value) for key, value in of_others}
        for key, _ in own:
            merged.pop((key.tag, str(key.value)), None)
        node.value = [*merged.values(), *own]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, ConfigError, RecursionError):
            raise
        except (
            Exception
        ) as error:  # PyYAML's constructors let through whatever a bad value makes Python raise
            kind = node.tag.rsplit(":", 1)[-1]
            value = f"{shown(node.value)} is" if isinstance(node, yaml.ScalarNode) else "this is"
            words = f" ({error})" if type(error) is ValueError else ""
            raise ConfigError(
                f"line {node.start_mark.line + 1}: {value} no {kind}{words}; write a word in quotes"
            ) from None


def _mapping(loader: _Strict, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == MERGE:
            continue
        at = f"line {key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{at}: a list or mapping as a key; a key is a word")
        key = loader.construct_object(key_node, deep=deep)
        if not isinstance(key, str):
            raise ConfigError(
                f"{at}: the key {shown(key_node.value)} is no text but {_kind(key)}; write it in "
                "quotes"
            )
        if key in seen:
            raise ConfigError(f"{at}: {key!r} stands twice; give each a name of its own")
        seen.add(key)
    mapping: dict[Any, Any] = SafeConstructor.construct_mapping(loader, node, deep)
    return mapping


def _plain_number(loader: _Strict, node: yaml.ScalarNode) -> int | float:
    """A number as everybody reads it: YAML 1.1 has 010 for 8, 1:30 for 90 and 1_0 for 10."""
    text = node.value.lstrip("+-")
    if re.search("[_:]", text) or re.match(r"0\d|0[bx]", text):
        raise ConfigError(
            f"line {node.start_mark.line + 1}: {shown(node.value)}: YAML would read another number "
            "than it shows; write it with digits alone, without leading zeros, colons and "
            "underscores, or a word in quotes"
        )
    kind = node.tag.rpartition(":")[2]
    number: int | float = getattr(loader, f"construct_yaml_{kind}")(node)
    return number


class _StrictLoader(_Strict, yaml.SafeLoader):
    """By PyYAML's own parser, whose messages show the place."""


_Quick = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class _QuickLoader(_Strict, _Quick):  # type: ignore[misc, valid-type]
    """By libyaml's parser, where PyYAML was built with it."""


_loader: Any
for _loader in (_StrictLoader, _QuickLoader):
    _loader.add_constructor("tag:yaml.org,2002:map", _mapping)
    _loader.add_constructor("tag:yaml.org,2002:int", _plain_number)
    _loader.add_constructor("tag:yaml.org,2002:float", _plain_number)
    _loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def one_line(text: str) -> str:
    """A message without line breaks and control characters; a very long one is cut."""
    text = " ".join(text.split())
    text = text if len(text) <= MOST_WORDS else f"{text[: MOST_WORDS - 300]} ... {text[-200:]}"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _text_of(path: Path) -> str:
    """The characters of a file. Raises ConfigError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError("is no file; give the YAML file of a study")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"not readable as YAML: no UTF-8 text at byte {error.start}; save it as UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot be read ({reason}); change its rights or its path") from None


def _both_agree(text: str) -> bool:
    """Whether libyaml reads a text as PyYAML's own parser does, and without filling the stack of
    the process. A bracket or a column goes one level down; a list may stand in its key's column."""
    brackets = text.count("[") + text.count("{")
    levels = brackets + 2 * max(map(len, text.splitlines()), default=0)
    return levels <= SHALLOW and not DISPUTED.search(LINE_OF_COMMENT.sub("", text))


def _load(text: str) -> Any:
    """What a text says, by the parser that takes a tenth of the time where that one may. What it
    refuses the other one says in words."""
    if _both_agree(text):
        try:
            return yaml.load(text, Loader=_QuickLoader)
        except (yaml.YAMLError, ConfigError, RecursionError):
            pass
    return yaml.load(text, Loader=_StrictLoader)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping of plain values, strictly. Raises ConfigError."""
    text = _text_of(path)
    try:
        data = _load(text)
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError(
            f"not readable as YAML: nested deeper than {MOST_LEVELS} levels"
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML's scanner lets through what Python says of a character or number beyond all bounds
        raise ConfigError(f"not readable as YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError("holds no settings: a study is a mapping of keys")
    _size(data, {}, 1)
    for problem in _not_plain(data, ""):
        raise ConfigError(problem)
    return data


def _size(node: Any, known: dict[int, tuple[int, int] | None], level: int) -> tuple[int, int]:
    """How many values and levels a node has with its aliases written out, each alias counted
    once. Raises ConfigError."""
    if not isinstance(node, (dict, list)):
        return 1, 0
    if id(node) not in known:
        if level > MOST_LEVELS:
            raise ConfigError(f"nested deeper than {MOST_LEVELS} levels; no setting is")
        known[id(node)] = None
        parts = [
            _size(part, known, level + 1)
            for part in (node.values() if isinstance(node, dict) else node)
        ]
        values, levels = (
            1 + sum(size for size, _ in parts),
            1 + max((height for _, height in parts), default=0),
        )
        known[id(node)] = values, levels
    size = known[id(node)]
    if size is None:
        raise ConfigError("holds an alias (*) that contains itself; write it out")
    values, levels = size
    if values > MOST_VALUES:
        raise ConfigError(
            f"holds more than {MOST_VALUES:,} values with its aliases (*) written out; no study "
            "needs them"
        )
    if levels > MOST_LEVELS:
        raise ConfigError(
            f"nested deeper than {MOST_LEVELS} levels with its aliases (*) written out; no "
            "setting is"
        )
    return values, levels


def _not_plain(node: Any, at: str) -> Iterator[str]:
    """What no setting can be: a name that nobody can read, a date, binary data, a set, a number
    that is none."""
    if isinstance(node, dict):
        for key, part in node.items():
            if len(key) > 200:
                yield f"{at}{shown(key)}: a name of {len(key):,} characters; 200 are the most"
            elif not key.strip() or not all(map(_visible, key)):
                yield (
                    f"{at}{shown(key)}: an empty name, or one with line breaks or characters "
                    "that cannot be seen; write a word"
                )
            else:
                yield from _not_plain(part, f"{at}{key}.")
    elif isinstance(node, list):
        for i, part in enumerate(node):
            yield from _not_plain(part, f"{at.rstrip('.')}[{i}].")
    elif isinstance(node, float) and not math.isfinite(node):
        yield f"{at.rstrip('.')}: {node} is no finite number"
    elif not isinstance(node, (str, int, float, type(None))):
        yield (
            f"{at.rstrip('.')}: {shown(node)} is {_kind(node)}; write numbers and words, a word "
            "that looks otherwise in quotes"
        )


def _visible(character: str) -> bool:
    """Whether a character may stand in a name: also the spaces of any script, and the joiners that
    Persian, Indian scripts and emoji need."""
    joins = character in "\u200c\u200d"
    return character.isprintable() or joins or unicodedata.category(character) == "Zs"


def _kind(value: Any) -> str:
    names = {
        bool: "a truth value",
        int: "a whole number",
        float: "a number",
        type(None): "null",
        bytes: "binary data",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def shown(value: Any) -> str:
    """A value as a message shows it: a long one is cut."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = f"a number of {value.bit_length() * 3 // 10 + 1} digits"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


# ---------------------------------------------------------------- errors of the schema


def _place(where: list[str | int], data: Any) -> str:
    """A place in settings as they were written: a number of a list in brackets, and none where
    one mapping stands for a list."""
    words = ""
    for part in where:
        if isinstance(part, int) and isinstance(data, dict):
            continue
        words += f"[{part}]" if isinstance(part, int) else f".{part}"
        known = isinstance(data, dict) and part in data
        known = known or (isinstance(data, list) and part in range(len(data)))
        data = data[part] if known else None
    return words.removeprefix(".")


def explain(
    error: ValidationError, schema: type[BaseModel], prefix: str = "", data: Any = None
) -> str:
    """The first validation error of settings as `key: what is wrong`, with the nearest legal key
    for an unknown one."""
    first, *others = _own_errors(error)
    parts = [part for part in first["loc"] if part != "[key]"]
    where, key = list(map(str, parts)), prefix + _place(parts, data)
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        words = unknown("key", where[-1], _legal_keys(schema, where[:-1]))
        return f"{key}: {words}{_as_mappings(where[-1], _legal_keys(schema, where[:-1]))}{more}"
    if first["type"] == "missing":
        return f"{key}: is missing{more}"
    value = first.get("input")
    words = IN_YAML.get(first["type"], first["msg"].removeprefix("Value error, "))
    if first["type"] in IN_YAML:
        words = words.format(**first.get("ctx", {}))
    got = (
        ""
        if isinstance(value, dict) and first["type"] == "value_error"
        else f", got {_shortly(value)}"
    )
    return f"{key.rstrip('.')}: {words}{got}{more}".removeprefix(": ")


def _as_mappings(key: str, legal: list[str]) -> str:
    """How a dotted key is written outside of a delta; nothing for any other key."""
    first, *others = key.split(".")
    if not others or first not in legal:
        return ""
    inside = "".join(f"{{{word}: " for word in others) + "..." + "}" * len(others)
    return f"; a dotted key is for delta and grid, write {first}: {inside}"


def _own_errors(error: ValidationError) -> list[Any]:
    """All errors but those that only follow from another: a default that asks for a refused
    setting, a list that is too short without the entry that was refused, a key that is missing
    beside one that is unknown and may be it misspelt."""
    errors = error.errors(include_url=False)
    beside_unknown = {one["loc"][:-1] for one in errors if one["type"] == "extra_forbidden"}

    def follows(one: Any) -> bool:
        if one["type"] == "default_factory_not_called":
            return True
        if one["type"] == "missing" and one["loc"][:-1] in beside_unknown:
            return True
        inside = (other["loc"][: len(one["loc"])] == one["loc"] != other["loc"] for other in errors)
        return one["type"] == "too_short" and any(inside)

    return [one for one in errors if not follows(one)]


def _shortly(value: Any) -> str:
    """A refused value as YAML writes it; of a mapping its keys alone."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return f"a mapping of {shown(sorted(map(str, value)))}" if value else "an empty mapping"
    return shown(value)


def _parts(annotation: Any) -> list[Any]:
    """What an annotation may stand for: members of a union, what is annotated."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for member in get_args(annotation) for part in _parts(member)]
    if hasattr(annotation, "__metadata__"):
        return _parts(get_args(annotation)[0])
    return [annotation]


def _legal_keys(schema: Any, where: list[str]) -> list[str]:
    """Keys of the model at a place of a schema; none where there is no model."""
    schemas = [schema]
    for part in where:
        inside = []
        for each in schemas:
            if isinstance(each, type) and issubclass(each, BaseModel):
                if part in each.model_fields:
                    inside += _parts(each.model_fields[part].annotation)
            elif get_args(each):  # dict[str, X], tuple[X, ...]
                inside += _parts([a for a in get_args(each) if a is not Ellipsis][-1])
        schemas = inside
    models = [each for each in schemas if isinstance(each, type) and issubclass(each, BaseModel)]
    return [key for model in models for key in model.model_fields]
