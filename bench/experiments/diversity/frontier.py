"""The best that a sweep gives at a precision: the upper hull of its settings. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Point = tuple[float, float]  # precision and what is held against it


@dataclass(frozen=True)
class Mixture:
    """Two settings of a sweep, a share of the images drawn by each: what stands on the line
    between them. slope: of that line."""

    first: str
    second: str
    share: float  # of the second
    slope: float

    def of(self, values: Mapping[str, float]) -> float:
        """The mixture of two values."""
        return (1 - self.share) * values[self.first] + self.share * values[self.second]


def hull(points: Mapping[str, Point]) -> list[str]:
    """The settings that no line between two others passes above, from the highest second
    coordinate to the highest precision."""
    ordered = sorted(points, key=lambda name: (points[name][0], points[name][1]))
    kept: list[str] = []
    for name in ordered:
        while len(kept) > 1 and _turn(*(points[one] for one in (*kept[-2:], name))) >= 0:
            kept.pop()
        kept.append(name)
    top = max(range(len(kept)), key=lambda i: points[kept[i]][1]) if kept else 0
    return kept[top:]


def _turn(a: Point, b: Point, c: Point) -> float:
    """Above 0 where the way from a over b to c turns to the left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def best_at(points: Mapping[str, Point], precision: float) -> Mixture | None:
    """The best that a sweep gives at this precision or a higher one; None where none of its
    settings reaches it."""
    names = hull(points)
    if not names or precision > points[names[-1]][0]:
        return None
    if precision <= points[names[0]][0]:
        return Mixture(names[0], names[0], 0.0, 0.0)  # more precise than asked, and better
    for first, second in zip(names, names[1:]):
        (low, upper), (high, lower) = points[first], points[second]
        if precision <= high:
            share = (precision - low) / (high - low)
            return Mixture(first, second, share, (lower - upper) / (high - low))
    return None
