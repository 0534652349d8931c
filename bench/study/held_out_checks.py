"""What measures that classify held-out images ask of a study: classes, and shifts that exist.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from srdd.lookup import names_in, unknown

from .resolve import ROOT
from .schema import Study


def class_problems(study: Study, room: str) -> Iterator[str]:
    """A measure that compares classes of a dataset without them."""
    if study.dataset.num_classes < 2:
        yield (
            f"measure: {room} needs a dataset of 2 classes or more, this has "
            f"{study.dataset.num_classes}"
        )


def unlike_problems(
    study: Study, suite: str, room: str, beside: str, keys: Iterable[str]
) -> Iterator[str]:
    """Settings in which a room differs from the one whose rows stand beside its own."""
    ours, theirs = (study.told(suite, one) for one in (room, beside))
    for key in keys:
        mine, other = getattr(ours, key), getattr(theirs, key)
        if mine != other:
            yield (
                f"{room}.{key}: {mine}: differs from {beside}.{key} {other}, and both are "
                "compared; give both the same"
            )


def shift_problems(room: str, shifts: Iterable[str]) -> Iterator[str]:
    """Shifts of held-out images that nobody wrote."""
    legal = names_in(ROOT / "srdd" / "degradation.py", "shift")
    for name in shifts:
        if name not in legal:
            yield f"{room}.shifts: {unknown('shift', name, legal)}"
