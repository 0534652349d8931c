"""The schema's bounds: every number has some, and those that are declared hold."""

import ast
import inspect
import math
from typing import Annotated, Any, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

import bench.study.schema
import bench.study.settings
import srdd.config
from bench.study import rooms

MODULES = (srdd.config, bench.study.settings, bench.study.schema)
# numbers without a bound here, and why
FREE = {
    "patch_nums": "checked_sides refuses what is below 1 or above MOST_SIDE",
    "refine_scales": "checked against 0 and the schedule",
    "inpaint": "_boxes_lie_inside",
    "outpaint": "_boxes_lie_inside",
    "value": "a number that others printed",
}
NO_UPPER = {
    "lr",
    "clip",
    "weight_decay",
    "commitment",
    "entropy",
}  # a large one ends as status diverged
BOUNDS = (
    annotated_types.Ge,
    annotated_types.Gt,
    annotated_types.Le,
    annotated_types.Lt,
    annotated_types.MultipleOf,
)


def models():
    """Every class of settings and its name; those of a room by the room's name."""
    yield from rooms.with_settings().items()
    for module in MODULES:
        for _, model in inspect.getmembers(module, inspect.isclass):
            if issubclass(model, BaseModel) and model.__module__ == module.__name__:
                yield model.__name__, model


def leaves(annotation: Any, metadata: tuple = ()):
    """The int and float types that an annotation is made of, each with its bounds."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        more = [
            part
            for each in more
            for part in (each.metadata if hasattr(each, "metadata") else [each])
        ]
        yield from leaves(inner, (*more, *metadata))
    elif annotation in (int, float):
        yield annotation, [part for part in metadata if isinstance(part, BOUNDS)]
    elif get_args(annotation):
        inner = () if get_origin(annotation) in (tuple, dict) else metadata
        for part in get_args(annotation):
            yield from leaves(part, inner)


NUMBERS = [
    (f"{owner}.{name}", kind, bounds)
    for owner, model in models()
    for name, field in model.model_fields.items()
    for kind, bounds in leaves(field.annotation, tuple(field.metadata))
]


def test_the_walk_sees_the_schema():
    """Catches a walk that finds nothing: the tests below would pass."""
    names = {name for name, _, _ in NUMBERS}
    assert len(NUMBERS) > 80
    assert {
        "TokenizerConfig.codebook_size",
        "ModelConfig.class_dropout",
        "Study.train_seeds",
        "latency.batch_sizes",
    } <= names
    assert {"error_propagation.shares", "SamplerConfig.top_k", "ModelConfig.history"} <= names


@pytest.mark.parametrize("name, kind, bounds", NUMBERS, ids=[name for name, _, _ in NUMBERS])
def test_every_number_is_bounded(name, kind, bounds):
    """Catches a number of the schema that may be negative or huge: found hours later, as NaN or
    MemoryError."""
    key = name.split(".")[1]
    if key in FREE:
        return
    assert any(isinstance(part, (annotated_types.Ge, annotated_types.Gt)) for part in bounds), (
        "no lower bound"
    )
    upper = any(isinstance(part, (annotated_types.Le, annotated_types.Lt)) for part in bounds)
    assert upper or (kind is float and key in NO_UPPER), "no upper bound"


def outside(kind, bound):
    """The nearest value that a bound refuses."""
    step = (lambda x, to: x + int(math.copysign(1, to))) if kind is int else math.nextafter
    if isinstance(bound, annotated_types.Ge):
        return step(kind(bound.ge), -math.inf)
    if isinstance(bound, annotated_types.Le):
        return step(kind(bound.le), math.inf)
    if isinstance(bound, annotated_types.MultipleOf):
        return bound.multiple_of + 1
    return kind(bound.gt if isinstance(bound, annotated_types.Gt) else bound.lt)


@pytest.mark.parametrize("name, kind, bounds", NUMBERS, ids=[name for name, _, _ in NUMBERS])
def test_declared_bounds_hold(name, kind, bounds):
    """Catches a bound that is written and not applied, and numbers of another kind taken for
    this one: true, text, 1e3, NaN, 10**30."""
    config = ConfigDict(strict=True, allow_inf_nan=False)
    adapter = (
        TypeAdapter(Annotated[(kind, *bounds)], config=config)
        if bounds
        else TypeAdapter(kind, config=config)
    )
    wrong = [outside(kind, bound) for bound in bounds] + [True, "1", None, math.nan, math.inf]
    wrong += [1e3, 2.0] if kind is int else []
    wrong += [10**30] if bounds and kind is int else []
    for value in wrong:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


def test_no_field_adds_a_bound_to_a_bounded_alias():
    """Catches `Positive = Field(ge=2)`: the alias's bound of 1 wins over the field's."""
    found = 0
    for module in MODULES:
        bounded = {
            name
            for name, value in vars(module).items()
            if get_origin(value) is Annotated and any(leaves(value))
        }
        for model in ast.walk(ast.parse(inspect.getsource(module))):
            for node in model.body if isinstance(model, ast.ClassDef) else ():
                if not (isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call)):
                    continue
                own = {word.arg for word in node.value.keywords} & {
                    "ge",
                    "gt",
                    "le",
                    "lt",
                    "multiple_of",
                }
                names = {
                    part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)
                }
                assert not (own and names & bounded), (
                    f"{module.__name__}.{model.name}.{node.target.id}: {own} beside "
                    f"{names & bounded}"
                )
                found += bool(own)
    assert found > 20
