"""What a metric may return, and what it is handed: the contract of `metric_<name>`, in words."""

from __future__ import annotations

import math
import numbers
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..study.scores import EVALUATORS
from ..study.settings import SLUG

A = TypeVar("A")
BASELINES = ("floor_", "reconstruction_", "reference_")


def where_raised(error: BaseException, function: Callable) -> str:
    """The line of a function that an error came through, for whoever wrote it."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == code.co_filename]
    return f" ({Path(code.co_filename).name}, line {lines[-1]})" if lines else ""


def read_only(array: A) -> A:
    """An array that refuses to be written to; all else as it is."""
    if not isinstance(array, np.ndarray):
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def problem_of(key: object, value: object, extractor: str) -> str | None:
    """Why a metric may not return this name with this value; None where it may."""
    if not isinstance(key, str) or not re.fullmatch(SLUG, key):
        return (
            f"returns the name {key!r}; a name has lower-case letters, digits and _, such as "
            "my_score"
        )
    if key == extractor or key.endswith(f"_{extractor}"):
        return (
            f"returns the name {key!r}; the extractor's name {extractor} is added here, leave it "
            "out"
        )
    for evaluator in EVALUATORS.values():
        if f"_{key}".endswith(f"_{evaluator}"):
            return (
                f"returns the name {key!r}; {evaluator} is the name of another evaluator, rename it"
            )
    if key.startswith(BASELINES):
        return (
            f"returns the name {key!r}; {' and '.join(BASELINES)} "
            "stand before the scores of the baselines, rename it"
        )
    return _number_problem(key, value)


def _number_problem(key: str, value: object) -> str | None:
    """Why a metric may not return this value; None where it may."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        shown = " ".join(repr(value).split())[:60]
        kind = type(value).__name__
        return f"returns {key}: {shown} ({kind}); a finite number is needed, such as float(...)"
    try:
        number = float(value)
    except OverflowError:  # a whole number that no float can hold
        number = math.inf
    if not math.isfinite(number):
        return (
            f"returns {key}: {number}; a finite number is needed, "
            "or leave the name out where it has no value"
        )
    return None
