"""What the runs behind a suite do not share: states of the code, releases of torch, machines.
Imports no torch.

Runs that are compared should differ in their settings alone. Where they do not, captions say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

import pandas as pd

from ..study.escaping import rst
from .view import View

MOST_STAGES = 4  # that a caption names
UNKNOWN = "a commit that nobody noted"


def origins_details(view: View) -> tuple[str, ...]:
    """Details of a caption: in what the runs of a suite differ beside their settings; none where in
    nothing."""
    return view.results.once(("origins", view.suite), lambda: _details(view))


def _details(view: View) -> tuple[str, ...]:
    runs = view.results.runs
    runs = runs[runs["run_id"].isin(view.runs)]
    return (
        _sentence("Runs of several states of the code", runs, _states),
        _sentence("Runs under several releases of torch", runs, _told("torch")),
        _sentence("Runs on several kinds of machine", runs, _told("device", "host_class")),
    )


# ---------------------------------------------------------------- words

Groups = Iterable[tuple[str, int]]  # a name and the number of its runs


def _sentence(words: str, runs: pd.DataFrame, groups: Callable[[pd.DataFrame], Groups]) -> str:
    """Which stages have runs of several groups, and how many of each; empty where none has."""
    split = dict(_split(runs, groups))
    if not split:
        return ""
    said = [f"{stage} ({names})" for stage, names in list(split.items())[:MOST_STAGES]]
    more = len(split) - len(said)
    end = f", and {more} more, as runs.csv says" if more else ""
    return rst(f"{words}: {', '.join(said)}{end}.")


def _split(
    runs: pd.DataFrame, groups: Callable[[pd.DataFrame], Groups]
) -> Iterator[tuple[str, str]]:
    for stage, part in runs.groupby("stage", sort=False):
        counts = sorted(groups(part), key=lambda group: (-group[1], group[0]))
        if len(counts) > 1:
            yield str(stage), ", ".join(f"{count} of {name}" for name, count in counts)


def _told(*columns: str) -> Callable[[pd.DataFrame], Groups]:
    """Groups of runs by what their rows say in these columns; what a row leaves out it shares."""

    def groups(part: pd.DataFrame) -> Groups:
        told = part[list(columns)].dropna(how="all").fillna("")
        names = told.agg("; ".join, axis=1) if len(told) else pd.Series(dtype=str)
        return [(str(name), int(count)) for name, count in names.value_counts().items()]

    return groups


# ---------------------------------------------------------------- code


def _states(part: pd.DataFrame) -> Groups:
    """States of the code of one stage.

    Two hashes are one state where a commit has both: each covers the parts that its settings use.
    Runs that differ in seeds alone use the same parts, so that two hashes of theirs are two states.
    """
    part = part.dropna(subset=["source_hash"])  # older rows have none
    hashes, commits = part["source_hash"], part["commit"].fillna("")
    if hashes.nunique() < 2:
        return
    state = hashes.map(_joined(zip(hashes, commits)))
    for _, rows in part.groupby(hashes if _torn(part, hashes, state) else state, sort=False):
        known = sorted({commit[:7] for commit in commits[rows.index] if commit})
        yield " and ".join(known) or UNKNOWN, len(rows)


def _torn(part: pd.DataFrame, hashes: pd.Series, state: pd.Series) -> bool:
    """Whether runs of one state have the same settings but for their seeds, and several hashes."""
    settings = part["config_json"].map(_without_seeds)
    return bool((hashes.groupby([settings, state]).nunique() > 1).any())


def _without_seeds(config: object) -> str:
    """The settings of a run but for its seeds."""
    if not isinstance(config, str):
        return ""
    told = json.loads(config)
    return json.dumps({key: told[key] for key in sorted(told) if not key.endswith("_seed")})


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A name of the state of each hash, the same for hashes that commits connect."""
    state: dict[str, str] = {}
    by_commit: dict[str, str] = {}
    for source, commit in pairs:
        mine = state.setdefault(source, source)
        other = by_commit.setdefault(commit, mine)
        state |= {name: mine for name, value in state.items() if value == other}
        by_commit |= {name: mine for name, value in by_commit.items() if value == other}
    return state
