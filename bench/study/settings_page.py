"""docs/settings.md from the schema: every key of a study with its type, limits, default and
meaning. Imports no torch.

    python -m bench settings            prints the page
    python -m bench settings --write    writes docs/settings.md
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

import srdd.config
from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.lookup import BUILT_IN, PLACES, names_in

from . import rooms
from .checks import RETURNS
from .correction_settings import CorrectionConfig
from .resolve import ROOT
from .schema import CcaConfig, Claim, DistillConfig, Published, Study, Suite, SuiteEntry, Variant
from .settings import (
    DatasetConfig,
    EvaluationConfig,
    FeaturesConfig,
    TrainingConfig,
    WeightsConfig,
)
from .tokenizer_settings import DiscriminatorConfig, TokenizerSpec, TokenizerTraining

PAGE = ROOT / "docs" / "settings.md"
HEAD = """# Settings of a study

Made by `python -m bench settings --write` from the schema; do not edit.

A study is a YAML file. It names its images, its feature extractors, *bases* and *suites*. A base is
whole settings of a method. A suite has variants, each a base and what changes in it, and says what
is measured of them. A study may start from another study and take suites that are files:

```yaml
study: photos
like: fashion_reduced         # a study of workflows/config, or a path
reduced: one training seed, so that two CPU cores finish
dataset: {name: image_folder, path: ~/photos, image_size: 64, channels: 3, num_classes: 12}
features: {name: photos64}
take: [main, latency]         # workflows/config/suites/<name>.yaml, or suites/ beside the study
suites:
  main:                       # a suite that is taken: what changes in it
    variants:
      SRDD threshold: null    # null removes a variant
      SDD, w 2: {base: sdd, delta: {sampler.cfg_scale: 2.0}}
```

Mappings merge deeply; lists and values replace. `dataset` and `take` replace whole. `features` may
be a list of extractors; a mapping then changes the first of the other study's. With a
`dataset` of its own a study gives `features.name` too, and `reduced` where the other study has it.
`python -m bench plan STUDY.yaml full` lists the jobs that follow.

*needed* marks a key without a default, *follows* one whose default follows from other keys.
"""

# headings of the sections: where the keys stand in a study, and the schema of each
SECTIONS: list[tuple[str, str, type[BaseModel]]] = [
    ("The study", "", Study),
    ("Images", "dataset", DatasetConfig),
    ("Feature extractor", "features", FeaturesConfig),
    ("Evaluation", "evaluation", EvaluationConfig),
    ("A base", "bases.<base>", Variant),
    ("Tokenizer", "bases.<base>.tokenizer", TokenizerSpec),
    ("Sizes of the tokenizer", "bases.<base>.tokenizer.config", TokenizerConfig),
    ("Training of the tokenizer", "bases.<base>.tokenizer.training", TokenizerTraining),
    (
        "Discriminator of the tokenizer",
        "bases.<base>.tokenizer.training.discriminator",
        DiscriminatorConfig,
    ),
    ("Model", "bases.<base>.model", ModelConfig),
    ("Training of the model", "bases.<base>.training", TrainingConfig),
    ("Errors in training", "bases.<base>.training.correction", CorrectionConfig),
    ("Sampler", "bases.<base>.sampler", SamplerConfig),
    ("Distillation", "bases.<base>.distill", DistillConfig),
    ("Alignment with classes", "bases.<base>.distill.cca", CcaConfig),
    ("Weights that exist", "bases.<base>.weights", WeightsConfig),
    ("A suite", "suites.<suite>", Suite),
    ("A variant", "suites.<suite>.variants.<variant>", SuiteEntry),
    ("A claim", "suites.<suite>.claims", Claim),
    ("A published number", "suites.<suite>.published", Published),
]
FUNCTIONS = {
    "mask": "Masks (`model.mask`)",
    "codec": "Codecs (`tokenizer.config.codec`)",
    "head": "Heads (`model.head`)",
    "sample": "Samplers (`sampler.name`)",
    "select": "Rules of refinement (`sampler.select`)",
    "confidence": "Confidences that rules rank by",
    "ramp": "Ramps of guidance (`sampler.cfg_ramp`)",
    "corrupt": "Corruptions of training (`training.corruption`)",
    "weigh": "Weights of masked tokens (`training.mask_weight`)",
    "balance": "Weights of scales (`training.loss_weight`)",
}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    parts += [_section(title, place, schema) for title, place, schema in SECTIONS]
    parts.append(
        "## Rooms\n\nEach asks one question of a suite's variants. Its settings stand under its "
        "name in a suite,\nor in the study for all suites.\n"
    )
    parts += [_room(room) for room in rooms.names()]
    parts.append(
        "## Functions by name\n\nThose that come with the project; one of yours is a function of "
        "that prefix.\n"
    )
    parts += [_functions(prefix, title) for prefix, title in FUNCTIONS.items()]
    parts.append(_metrics())
    return "\n".join(parts)


def main() -> None:
    """Print the page, or write it: `python -m bench settings [--write]`."""
    parser = argparse.ArgumentParser(prog="python -m bench settings")
    parser.add_argument("--write", action="store_true", help="write docs/settings.md")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


# ---------------------------------------------------------------- schemas


def _section(title: str, place: str, schema: type[BaseModel]) -> str:
    about = _first_paragraph(schema.__doc__)
    where = f"`{place}`: " if place else ""
    return f"## {title}\n\n{where}{about}\n\n{_table(schema)}"


def _first_paragraph(docstring: str | None) -> str:
    return " ".join((docstring or "").split("\n\n")[0].split())


def _table(schema: type[BaseModel]) -> str:
    """One row a key: name, what is legal, default, meaning."""
    described = schema.model_json_schema()
    needed, defs = described.get("required", []), described.get("$defs", {})
    lines = ["| key | legal | default | meaning |", "|---|---|---|---|"]
    for key, node in described["properties"].items():
        default = "*needed*" if key in needed else _default(node)
        cells = (f"`{key}`", _legal(node, defs), default, node.get("description", ""))
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text as a cell of a table: in one line, with names of functions as code."""
    text = " ".join(text.split()).replace("|", "\\|")
    return re.sub(r"(?<![`\w])(\w+_<\w+>)", r"`\1`", text)


def _default(node: dict[str, Any]) -> str:
    if "default" not in node:
        return "*follows*"
    value = node["default"]
    # the defaults of a section stand in its own table
    return "its defaults" if isinstance(value, dict) and value else f"`{json.dumps(value)}`"


def _legal(node: dict[str, Any], defs: dict[str, Any]) -> str:
    """What a node of a JSON schema allows, in words."""
    if "$ref" in node:
        return _named(node["$ref"].rsplit("/", 1)[-1], defs)
    if "anyOf" in node:
        return ", or ".join(_legal(part, defs) for part in node["anyOf"])
    if "enum" in node:
        return ", ".join(f"`{json.dumps(value)}`" for value in node["enum"])
    kind: str = node.get("type", "any value")
    if kind in ("integer", "number"):
        return _number(node)
    if kind in ("array", "object"):
        return _list(node, defs) if kind == "array" else _mapping(node, defs)
    return {"string": _word(node), "boolean": "true, false"}.get(kind, kind)


def _named(name: str, defs: dict[str, Any]) -> str:
    """A section with a table of its own, or what stands behind its name."""
    titles = {schema.__name__: title for title, _, schema in SECTIONS}
    if name in titles:
        anchor = titles[name].lower().replace(" ", "-")
        return f"[{titles[name].lower()}](#{anchor})"
    return _legal(defs[name], defs)


LIMITS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
    "multipleOf": "in steps of",
}


def _number(node: dict[str, Any]) -> str:
    kind = "whole number" if node["type"] == "integer" else "number"
    limits = [f"{word} {_digits(node[key])}" for key, word in LIMITS.items() if key in node]
    return " ".join([kind, *limits])


def _digits(value: float) -> str:
    whole = f"{int(value):,}".replace(",", " ")
    return whole if value == int(value) else str(value)


def _word(node: dict[str, Any]) -> str:
    if "pattern" not in node:
        return "text"
    patterns = {"^[0-9a-f]{64}$": "64 hexadecimal digits"}
    return patterns.get(node["pattern"], "small letters, digits and _")


def _list(node: dict[str, Any], defs: dict[str, Any]) -> str:
    if "prefixItems" in node:
        return f"list of {len(node['prefixItems'])}: {_legal(node['prefixItems'][0], defs)}"
    return f"list: {_legal(node.get('items', {}), defs)}"


def _mapping(node: dict[str, Any], defs: dict[str, Any]) -> str:
    inside = node.get("additionalProperties")
    if not isinstance(inside, dict):
        inside = next(iter(node.get("patternProperties", {}).values()), {})
    return f"mapping: {_legal(inside, defs)}"


# ---------------------------------------------------------------- rooms and functions


def _room(room: str) -> str:
    """A room: its question, what it shows, what it can be told."""
    question = _first_paragraph(importlib.import_module(f"bench.experiments.{room}").__doc__)
    settings = rooms.with_settings().get(room)
    parts = [
        f"### {room}",
        question,
        " ".join(_shows(room)),
        *([_table(settings)] if settings else []),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _shows(room: str) -> Iterator[str]:
    """Whether a suite can measure what a room asks, and what the room shows of it."""
    yield f"`measure: [{room}]`." if room in rooms.measures() else "Shows what others measure."
    titles = {"figures": "Figures", "tables": "Tables", "rule": "Rules of claims"}
    for what, title in titles.items():
        names = [f"`{name}`" for name, owner in rooms.shows(what).items() if owner == room]
        if names:
            yield f"{title}: {', '.join(names)}."


def _functions(prefix: str, title: str) -> str:
    """The functions of a prefix, what each does and what can be set of it."""
    file = ROOT / PLACES[prefix]
    lines = [f"### {title}", "", f"`{prefix}_<name>` in `{PLACES[prefix]}`."]
    if not BUILT_IN[prefix]:
        return "\n".join([*lines, ""])
    lines += ["", "| name | meaning | settings |", "|---|---|---|"]
    for name in BUILT_IN[prefix]:
        node = _definition(file, f"{prefix}_{name}")
        knobs = "; ".join(_knobs(node)) or "none"
        about = _first_paragraph(ast.get_docstring(node)).split(" Returns ")[0]
        lines.append(f"| `{name}` | {_cell(about)} | {_cell(knobs)} |")
    return "\n".join([*lines, ""])


def _definition(file: Path, name: str) -> ast.FunctionDef:
    """A function of a source file, read without importing it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return nodes[-1]


def _knobs(node: ast.FunctionDef) -> Iterator[str]:
    """The settings of a function: its keyword-only parameters."""
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults):
        assert argument.annotation is not None and default is not None  # a rule says both
        kind = ast.unparse(argument.annotation)
        alias = getattr(
            srdd.config, kind, {"int": int, "float": float, "bool": bool}.get(kind, str)
        )
        legal = _legal(TypeAdapter(alias).json_schema(), {})
        yield f"`{argument.arg}`: {legal}, default `{ast.unparse(default)}`"


def _metrics() -> str:
    lines = [
        "### Metrics (`evaluation.metrics`)",
        "",
        "`metric_<name>` in `bench/pipeline/metrics.py`.",
        "",
        "| name | scores |",
        "|---|---|",
    ]
    known = names_in(ROOT / "bench/pipeline/metrics.py", "metric")
    lines += [f"| `{name}` | {', '.join(RETURNS[name])} |" for name in known if name in RETURNS]
    return "\n".join([*lines, ""])
