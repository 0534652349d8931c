"""What a figure, a table or a rule is handed: nothing that it changes is read by another one.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy, deepcopy
from typing import Any, Self, TypeVar

import pandas as pd

from ..runtime.study_row import Record
from ..runtime.variants_file import Variants

A = TypeVar("A")
# from pandas 3 on a copy shares its numbers until one side is written to
SHARES = int(pd.__version__.split(".")[0]) >= 3


def handed_out(kept: A) -> A:
    """A table or column that was computed once, as a copy; all else as it is."""
    return kept.copy(deep=not SHARES) if isinstance(kept, (pd.DataFrame, pd.Series)) else kept


class Lent(Record):
    """Settings whose parts are copied when they are first asked for: whoever changes them has them
    alone. Those of all suites are many, and most figures ask for one."""

    def __init__(self, lender: Mapping[str, Any]) -> None:
        super().__init__(lender)
        self.shared = set(lender)

    def __getitem__(self, key: str) -> Any:
        part = super().__getitem__(key)
        if key in self.shared:
            part = Lent(part) if key == "suites" else deepcopy(part)
            self.shared.remove(key)
            self[key] = part
        return part

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default

    def values(self) -> list[Any]:  # type: ignore[override]
        return [self[key] for key in self]

    def items(self) -> list[tuple[str, Any]]:  # type: ignore[override]
        return [(key, self[key]) for key in self]


class Lending:
    """What results compute once, and how they are lent."""

    metrics: pd.DataFrame
    runs: pd.DataFrame
    about: dict[str, Any]
    variants_of: Variants
    known: dict[Any, Any]
    lender: Self | None  # whose rows what is computed once is computed from

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """A value that is computed when first asked for: figures of many variants ask for one
        thousands of times. A table or column comes as a copy, so that nobody changes what others
        read."""
        # rows that were replaced are searched afresh
        if self.known.get("rows") is not self.rows:
            images = {name: self.known[name] for name in ("images",) if name in self.known}
            self.known.clear()
            self.known.update(images, rows=self.rows)
        if key not in self.known:
            self.known[key] = make()
        return handed_out(self.known[key])

    @property
    def rows(self) -> pd.DataFrame:
        """The rows that everything is computed from; what was lent has them from its lender."""
        return self.metrics if self.lender is None else self.lender.rows

    @property
    def lent(self) -> Self:
        """The same results for one figure, table or rule: rows and settings of its own, which it
        may change, while no other one sees it."""
        lent = copy(self)
        lent.metrics, lent.runs = handed_out(self.metrics), handed_out(self.runs)
        lent.about, lent.variants_of = Lent(self.about), Lent(self.variants_of)
        lent.lender = self
        vars(lent).pop("features", None)  # of the settings
        return lent
