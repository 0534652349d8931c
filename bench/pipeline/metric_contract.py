"""What a metric may return, and what it is handed: the contract of `metric_<name>`, in words."""

from __future__ import annotations

import math
import numbers
import random
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from srdd.noise import derive_seed
from srdd.untouched import checksum

from ..study.scores import EVALUATORS
from ..study.settings import SLUG

if TYPE_CHECKING:
    from .metrics import Scored

A = TypeVar("A")
# a metric of any other name is a user's own: what it reads is looked at again behind it
BUILT_IN = (
    "fidelity",
    "class_agreement",
    "density_coverage",
    "spread",
    "classification_accuracy",
    "pixels",
)
BASELINES = ("floor_", "reconstruction_", "reference_")


@contextmanager
def kept(name: str) -> Iterator[None]:
    """Where a metric of one's own runs: what it draws from the generators of Python, numpy and
    torch follows from its name, and these and torch's default precision stay as they were."""
    seed, dtype = derive_seed("metric", name), torch.get_default_dtype()
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_default_dtype(dtype)


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


def _is_closed(array: object) -> bool:
    """Whether an array is mapped from a file that nobody can write to: a write ends the process."""
    return isinstance(array, np.memmap) and array.mode == "r"


def sums_of(scored: Scored) -> dict[str, int]:
    """Checksums of all that the metrics of a set read, by what it is.

    Both layers are computed here if nobody has asked for them yet, so that no metric of one's own
    is the first to see them. What else was computed of the reference's images counts too. Images
    that are read from files come as copies, and have no sum.
    """
    extractor, reference = scored.extractor, scored.reference
    extractor.of_reference(reference.images)
    arrays = {
        "the generated images": scored.generated,
        "the images of the reference": reference.images,
        "the labels": scored.labels_N,
    }
    read: dict[str, Any] = {
        name: array
        for name, array in arrays.items()
        if isinstance(array, np.ndarray) and not _is_closed(array)
    }
    read["the layers of the generated images"] = scored.layers
    read["the statistics of the reference"] = reference.statistics
    if extractor.classifier is not None:
        read["the weights of the classifier"] = extractor.classifier.state_dict()
    read |= extractor.computed
    return {name: checksum(value) for name, value in read.items()}


def changed(before: dict[str, int], scored: Scored) -> str | None:
    """What a metric changed of what others read, as the end of a sentence that its name begins;
    None where it left all as it was. before: of `sums_of`."""
    after = sums_of(scored)
    for name, value in before.items():
        if after.get(name) != value:
            return (
                f"changes {name} in place, which other metrics read too; work on a copy, such as "
                "that of .clone()"
            )
    return None


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
