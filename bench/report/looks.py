"""Which colour, marker and line each variant has: the same in all figures of a study. Imports no
matplotlib."""

from __future__ import annotations

from .results import Results

BASELINES = ("VAR", "SDD", "SRDD")  # have the same look in all studies too
FEW = 10  # names that have a colour each; a suite of more cannot tell them by colour alone


def _sets_of_names(results: Results) -> list[list[str]]:
    """Names that one figure may draw together: of each suite its variants, and its groups. Those
    that are few come first, so that each of them has a colour of its own."""
    together = []
    for suite in results.variants_of:
        together += [list(results.variants(suite)), list(results.groups(suite))]
    return sorted(together, key=lambda names: len(names) > FEW)


def _places(results: Results) -> dict[str, int]:
    together = _sets_of_names(results)
    beside: dict[str, set[str]] = {}
    for names in together:
        for name in names:
            beside.setdefault(name, set()).update(names)
    places = {name: i for i, name in enumerate(BASELINES) if name in beside}
    for name in (name for names in together for name in names):
        if name not in places:
            taken = {places[other] for other in beside[name] if other in places}
            places[name] = next(i for i in range(len(taken) + 1) if i not in taken)
    return places


def places(results: Results) -> dict[str, int]:
    """A number for every variant and group, the lowest that no name beside it in a suite has;
    `drawing.look` makes colour, marker and line of it."""
    return results.once("looks", lambda: _places(results))
