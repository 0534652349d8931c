"""The rule of refinement that a sampler names, and what is set of it. Imports no torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, create_model

from .lookup import Knob, function_name, knobs_of, names_function, names_in, unknown
from .strict import Positive, Share, Strict

Chance = Annotated[float, Field(gt=0.0, lt=1.0)]
SomeShare = Annotated[float, Field(gt=0.0, le=1.0)]
Nats = Annotated[float, Field(gt=0.0, le=1e9)]


def _no_entropy(name: str) -> str:
    if name == "entropy":
        raise ValueError("entropy is no probability; give peak or drawn")
    return name


Confidence = Annotated[str, Field(json_schema_extra=names_function("confidence"))]
# one that is compared with a probability
ChanceConfidence = Annotated[Confidence, AfterValidator(_no_entropy)]
# what a knob of a rule may be annotated with
KINDS: dict[str, Any] = {
    "Chance": Chance,
    "ChanceConfidence": ChanceConfidence,
    "Confidence": Confidence,
    "Nats": Nats,
    "Positive": Positive,
    "Share": Share,
    "SomeShare": SomeShare,
    "bool": bool,
    "float": float,
    "int": int,
    "str": str,
}


class Rule(Strict):
    """The rule that says which tokens a further pass redraws (mask resampling of SRDD, arXiv
    2509.22636), and what is set of it: a subclass has a field for each knob of `select_<name>`."""

    model_config = ConfigDict(validate_default=True)

    name: str = Field(json_schema_extra=names_function("select"))

    def knobs(self) -> dict[str, Any]:
        """What is set of the rule, by the names of its keyword-only parameters."""
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}

    def __reduce__(self) -> tuple[Any, ...]:
        # the class of a rule is made, not written: it cannot be found by its name
        return rule_of, (self.model_dump(),)


DEFAULT_RULE = "threshold"
RULES = Path(__file__).with_name("select.py")


def rule_of(value: Any) -> Any:
    """A rule of `select_<name>` from its name, or a mapping of `name` and its knobs (mask
    resampling of SRDD, arXiv 2509.22636).

    The knobs are the keyword-only parameters of the function, read without importing it. Raises
    ValueError for an unknown knob, saying which there are, and pydantic's error for a bad value.
    """
    if isinstance(value, Rule):
        return value
    settings = {"name": value} if isinstance(value, str) else value
    if isinstance(settings, dict):
        settings = {"name": DEFAULT_RULE, **settings}
    if not isinstance(settings, dict) or not isinstance(settings["name"], str):
        raise ValueError("give the name of a select_<name>, or a mapping of name and its settings")
    name = settings["name"]
    knobs = knobs_of(RULES, f"select_{name}")
    for key in settings:
        if key != "name" and key not in knobs:
            # of a misspelt rule the name is what is wrong
            names = names_in(RULES, "select")
            if name not in names:
                raise ValueError(unknown("name", name, names))
            raise ValueError(unknown(f"setting of select {name}", key, knobs))
    return _rule_class(name, tuple(knobs.items())).model_validate(settings)


@cache
def _rule_class(name: str, knobs: tuple[tuple[str, Knob], ...]) -> type[Rule]:
    fields: dict[str, Any] = {}
    for key, knob in knobs:
        if knob.kind not in KINDS:
            who = f"{function_name('select', name)}: {key}"
            raise ValueError(f"{who}: {unknown('kind of setting', knob.kind, KINDS)}")
        fields[key] = KINDS[knob.kind], knob.default
    return create_model(f"select_{name}", __base__=Rule, **fields)


def default_rule() -> Rule:
    """The rule of a sampler that names none (SRDD, arXiv 2509.22636)."""
    try:
        rule: Rule = rule_of(DEFAULT_RULE)
    except ValueError:  # a half-written file: who names a rule is told of it, and who imports not
        rule = Rule(name=DEFAULT_RULE)
    return rule
