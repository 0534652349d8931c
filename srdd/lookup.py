"""From a name in a study to the function of that name: `mask_<name>`, `sample_<name>`,
`ramp_<name>` and so on."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

# what comes with the project, by prefix
# a function of any other name is a user's own: its results are checked where it is called
BUILT_IN = {
    "mask": (),
    "codec": ("conv", "pixels"),
    "head": ("softmax", "bits", "gauss"),
    "sample": ("var", "srdd", "gauss"),
    "select": (
        "threshold",
        "lowest",
        "random",
        "static",
        "sequential",
        "shuffled",
        "dynamic",
        "entropy",
    ),
    "confidence": ("peak", "drawn", "entropy"),
    "ramp": ("constant", "linear"),
    "corrupt": ("none", "uniform", "absorb"),
    "weigh": ("count", "elbo"),
    "balance": ("token", "side", "scale", "bell"),
}
PLACES = {
    "mask": "srdd/masks.py",
    "codec": "srdd/tokenizer.py",
    "head": "srdd/heads.py",
    "sample": "srdd/sampling.py",
    "select": "srdd/select.py",
    "confidence": "srdd/select.py",
    "ramp": "srdd/guidance.py",
    "corrupt": "srdd/corruption.py",
    "weigh": "srdd/loss.py",
    "balance": "srdd/balance.py",
}

# functions that change images, all of one file; rooms check their names
IMAGE_CHANGES = {
    "shift": ("none", "noise", "heavy_noise", "occlusion", "contrast", "blur", "translation"),
    "degrade": (
        "noise",
        "occlusion",
        "contrast",
        "blur",
        "gaussian_blur",
        "jpeg",
        "haze",
        "paired",  # no function: the images of a paired folder
    ),
}


def names_function(*prefixes: str) -> dict[str, Any]:
    """What the field of a setting says (`json_schema_extra`) whose value is the name of a function
    `<prefix>_<value>`."""
    return {"functions": list(prefixes)}


def is_own(prefix: str, name: str | None) -> bool:
    """Whether a name means a function that a user added."""
    built_in = IMAGE_CHANGES.get(prefix) or BUILT_IN[prefix]
    return name is not None and name not in built_in


def function_name(prefix: str, name: str) -> str:
    """File and function of a name, as an error begins with: srdd/masks.py: mask_<name>."""
    place = "srdd/degradation.py" if prefix in IMAGE_CHANGES else PLACES[prefix]
    return f"{place}: {prefix}_{name}"


MANY, FEW = 60, 6  # names that one message can hold, and those that it shows of more


def unknown(what: str, name: str, legal: Iterable[str]) -> str:
    """One sentence that says which name is unknown, which one is nearest and which ones exist; of
    very many the nearest few."""
    legal = sorted(map(str, legal))
    near = difflib.get_close_matches(str(name), legal, n=FEW, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(legal) > MANY:
        shown = near or legal[:FEW]
        return f"unknown {what} {name!r}{hint} (of {len(legal)}: {', '.join(shown)}, ...)"
    return f"unknown {what} {name!r}{hint} (there are: {', '.join(legal) or 'none'})"


def find(module: ModuleType, prefix: str, name: str) -> Callable[..., Any]:
    """The function `<prefix>_<name>` of a module. Raises ValueError that lists the names there
    are."""
    function: Callable[..., Any] | None = getattr(module, f"{prefix}_{name}", None)
    if not callable(function):
        assert module.__file__
        raise ValueError(unknown(prefix, name, names_in(Path(module.__file__), prefix)))
    return function


class Knob(NamedTuple):
    """A keyword-only parameter of a function that a study names, as its source has it: the name of
    its kind, and its default."""

    kind: str
    default: Any


def knobs_of(path: Path, function: str) -> dict[str, Knob]:
    """What a study may set of a function of a source file: its keyword-only parameters; read
    without importing it. Empty for a function that is not defined there.

    Raises ValueError for a knob without a kind, or without a default that is written out.
    """
    nodes = [
        node
        for node in _tree(path, path.stat().st_mtime_ns).body
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    if not nodes:
        return {}
    arguments = nodes[-1].args
    who = f"{path.parent.name}/{path.name}: {function}"
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults)
    return {argument.arg: _knob(who, argument, default) for argument, default in pairs}


def _knob(who: str, argument: ast.arg, default: ast.expr | None) -> Knob:
    if argument.annotation is None or default is None:
        raise ValueError(f"{who}: {argument.arg}: write it as `{argument.arg}: Kind = default`")
    try:
        return Knob(ast.unparse(argument.annotation), ast.literal_eval(default))
    except ValueError:
        written = ast.unparse(default)
        raise ValueError(
            f"{who}: {argument.arg}: the default {written!r} is neither a number nor a word nor a "
            "list of them"
        ) from None


# what may stand behind `mask_mine = `: a lambda, functools.partial(...), another function
FUNCTIONS = (ast.Lambda, ast.Call, ast.Name, ast.Attribute)


def names_in(path: Path, prefix: str) -> list[str]:
    """Names that a source file defines, assigns or imports from another, under a prefix; read
    without importing it. Raises ValueError for a file that is no Python."""
    names, start = _names(path, path.stat().st_mtime_ns), f"{prefix}_"
    return sorted(name.removeprefix(start) for name in names if name.startswith(start))


@cache
def _tree(path: Path, changed: int) -> ast.Module:
    """A file of that age: a study asks for the same few hundreds of times."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        place = f"{path.parent.name}/{path.name}: line {error.lineno}"
        raise ValueError(f"{place}: {error.msg}; Python cannot read it") from None


@cache
def _names(path: Path, changed: int) -> tuple[str, ...]:
    """All names of a file of that age."""
    tree = _tree(path, changed)
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign) and isinstance(node.value, FUNCTIONS):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return tuple(names)
