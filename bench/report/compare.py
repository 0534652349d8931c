"""Results of a study beside others of it, such as the published ones:
`python -m bench compare MINE OTHERS`.

The verdicts of claims that both judge, and the FID of each variant whose evaluations have the same
names: a name follows from all settings. Imports no torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..runtime.rows import write_rows
from .claims import judged, seeds_behind
from .estimate import CONFIDENCE, paired, show
from .published import whole_folder
from .results import Results
from .view import View

TABLE = "compared.csv"
COLUMNS = [
    "suite", "variant", "metric", "train_seeds", "mine", "others", "difference", "low", "high",
]  # fmt: skip
KEY = ["suite", "variant", "metric"]
ELSEWHERE = (
    "Another processor or release of torch rounds otherwise: a training then ends elsewhere, as "
    "with another seed."
)


class Turned(NamedTuple):
    """A claim of two verdicts, or a number of other training seeds."""

    suite: str
    text: str
    mine: str
    others: str


@dataclass
class Compared:
    """What two results of a study have in common, and where they part."""

    rows: list[dict[str, Any]]  # FID of the same settings, as in the table
    other_settings: list[str]  # variants that only one side measured so
    claims: int
    turned: list[Turned]
    seeds: list[Turned]  # claims and FID over other training seeds
    only_mine: int = 0  # claims that the other results do not judge so
    # variants that both have and one side has not scored, as where all trainings diverged
    one_sided: list[str] = field(default_factory=list)
    # what of the studies differs, such as the images: rounding explains no verdict then
    unlike: list[str] = field(default_factory=list)


def _views(mine: Results, others: Results) -> Iterator[tuple[View, View]]:
    """The suites that both have."""
    for suite in mine.about["suites"]:
        if suite in others.about["suites"]:
            yield View(mine, suite), View(others, suite)


def _runs(view: View, variant: str, metric: str, seeds: pd.Index) -> set[tuple[int, str]]:
    """Training seeds of a variant's final scores with the names of the runs that they are of."""
    rows = view.select(variant, metric)
    rows = rows[rows["step"].isna() & rows["scale"].isna() & rows["train_seed"].isin(seeds)]
    return set(zip(rows["train_seed"], rows["run_id"]))


def _row(one: View, other: View, variant: str, metric: str) -> dict[str, Any] | None:
    """The metric of a variant on both sides, over the seeds that both have; None where a run of
    them has another name."""
    mine, others = one.of(variant, metric), other.of(variant, metric)
    seeds = mine.index.intersection(others.index)
    same = _runs(one, variant, metric, seeds) == _runs(other, variant, metric, seeds)
    difference = paired(others, mine)
    if not same or difference is None:
        return None
    known = difference.half is not None
    return {
        "suite": one.suite,
        "variant": variant,
        "metric": metric,
        "train_seeds": " ".join(str(seed) for seed in seeds),
        "mine": mine[seeds].mean(),
        "others": others[seeds].mean(),
        "difference": difference.mean,
        "low": difference.low if known else None,
        "high": difference.high if known else None,
    }


def _beside(
    one: View, other: View, claims: list[dict[str, Any]]
) -> Iterator[tuple[Turned, Turned]]:
    """Every claim with both verdicts, and with the training seeds of both."""
    for claim in claims:
        both = [(view, judged(view, claim)) for view in (one, other)]
        text, words = claim["text"].rstrip(" ."), [judgement[0] for _, judgement in both]
        seeds = [seeds_behind(view, claim, judgement) for view, judgement in both]
        over = (f"training seeds {of_side}" for of_side in seeds)
        yield Turned(one.suite, text, *words), Turned(one.suite, text, *over)


def _fid_seeds(one: View, other: View, variant: str, metric: str) -> Turned | None:
    """A variant that has its FID in other training seeds; None for the same seeds."""
    mine, others = (" ".join(map(str, view.of(variant, metric).index)) for view in (one, other))
    if mine == others:
        return None
    return Turned(one.suite, f"FID of {variant}", f"training seeds {mine}", others)


def _one_sided(one: View, other: View, metric: str) -> Iterator[str]:
    """Variants of a suite that both have and one side alone has scored."""
    for name in filter(other.variants.__contains__, one.variants):
        mine, others = (len(view.of(name, metric)) for view in (one, other))
        if bool(mine) != bool(others):
            yield f"{name} ({one.suite}), {'here' if mine else 'there'}"


def _scored(one: View, other: View, metric: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Variants of a suite that both have scored; what tells their numbers from those of other
    suites, which may share them."""
    for name, names in one.variants.items():
        seeds = one.of(name, metric).index
        if name in other.variants and len(seeds) and len(other.of(name, metric)):
            network = tuple(names[key] for key in ("tokenizer", "model", "sampler"))
            yield name, (*network, *sorted(_runs(one, name, metric, seeds)))


SAME = ("name", "image_size", "num_classes", "content")  # of the dataset


def _asked_of(results: Results) -> dict[str, Any]:
    """The settings that verdicts of all suites rest on; None where a study does not say one."""
    data, evaluation = results.about["dataset"], results.about["evaluation"]
    asked = {f"dataset.{key}": data.get(key) for key in SAME}
    drawn = {"evaluation.num_images": evaluation.get("num_images")}
    return {**asked, "features.name": results.extractor, **drawn}


def _unlike(mine: Results, others: Results) -> list[str]:
    """What the studies do not share."""
    asked = _asked_of(others)
    both = [(key, one, asked[key]) for key, one in _asked_of(mine).items()]
    return [
        f"{key} {one} here, {other} there"
        for key, one, other in both
        if one != other and None not in (one, other)
    ]


def _given(claim: dict[str, Any]) -> dict[str, Any]:
    """What a claim says: a setting that it leaves open is none that an older version lacks."""
    return {key: value for key, value in claim.items() if value is not None}


def compared(mine: Results, others: Results) -> Compared:
    """What two results of a study have in common, and where they part."""
    both, metric, seen = Compared([], [], 0, [], []), mine.score_name("fid"), set()
    both.unlike = _unlike(mine, others)
    for one, other in _views(mine, others):
        if metric == others.score_name("fid"):
            both.one_sided += _one_sided(one, other, metric)
        for variant, numbers in _scored(one, other, metric):
            if numbers in seen:
                continue
            seen.add(numbers)
            row = _row(one, other, variant, metric)
            if row is None:
                both.other_settings.append(f"{variant} ({one.suite})")
            else:
                both.rows.append(row)
                if seeds := _fid_seeds(one, other, variant, metric):
                    both.seeds.append(seeds)
        asked = [_given(claim) for claim in other.about["claims"]]
        claims = [claim for claim in one.about["claims"] if _given(claim) in asked]
        both.claims += len(claims)
        both.only_mine += len(one.about["claims"]) - len(claims)
        for words, over in _beside(one, other, claims):
            both.turned += [words] if words.mine != words.others else []
            both.seeds += [over] if over.mine != over.others else []
    return both


def _fid_words(rows: list[dict[str, Any]]) -> str:
    """How far the means of the same settings lie apart."""
    if not rows:
        return "FID: no variant was measured with the same settings on both sides."
    table = pd.DataFrame(rows)
    if not table["difference"].any():
        return f"FID of the same settings: {len(table)} variants, all equal."
    largest = table.loc[table["difference"].abs().idxmax()]
    return (
        f"FID of the same settings: {len(table)} variants. {_interval_words(table)} "
        f"Largest difference: {show(largest['difference'])}, "
        f"{largest['variant']} ({largest['suite']}): {show(largest['mine'])} here, "
        f"{show(largest['others'])} there."
    )


def _interval_words(table: pd.DataFrame) -> str:
    """For how many variants the interval excludes 0, of those that have one."""
    tested = table.dropna(subset=["low", "high"])
    if not len(tested):
        return "One training seed, no interval."
    # seeds that differ equally have an interval without a width, which decides nothing
    apart = ((tested["low"] > 0) | (tested["high"] < 0)) & (tested["low"] < tested["high"])
    by_chance = (1 - CONFIDENCE) * len(tested)
    return (
        f"The paired interval excludes 0 for {apart.sum()}; chance alone gives about "
        f"{by_chance:.0f}."
    )


def _line(one: Turned) -> str:
    """What both sides say of one thing."""
    return f"    {one.text} ({one.suite}): {one.mine} here, {one.others} there."


def words_of(both: Compared) -> list[str]:
    """What a reader is told, a line each."""
    same = both.claims - len(both.turned)
    lines = [f"Not the same study: {'; '.join(both.unlike)}."] if both.unlike else []
    lines.append(f"Verdicts: {same} of {both.claims} are the same.")
    if both.only_mine:
        lines.append(f"Claims that are not asked so there, not compared: {both.only_mine}.")
    lines += map(_line, both.turned)
    lines.append(_fid_words(both.rows))
    lines += map(_line, both.seeds)
    if both.one_sided:
        lines.append(f"Scored on one side alone, not compared: {'; '.join(both.one_sided)}.")
    if both.other_settings:
        lines.append(f"Other settings there, not compared: {', '.join(both.other_settings)}.")
    if not both.unlike and (both.turned or any(row["difference"] for row in both.rows)):
        lines.append(ELSEWHERE)
    return lines


def main() -> None:
    """Print what two folders of results have in common; the numbers go into the first one."""
    parser = argparse.ArgumentParser(
        prog="python -m bench compare",
        description="Results of a study beside others of it, such as the published ones.",
    )
    parser.add_argument("mine", type=Path, metavar="MINE")
    parser.add_argument("others", type=Path, metavar="OTHERS")
    folders = parser.parse_args()
    try:
        with whole_folder("give two folders with runs.csv and metrics.csv, as a run leaves them"):
            both = compared(Results.load(folders.mine), Results.load(folders.others))
        write_rows(folders.mine / TABLE, both.rows, COLUMNS, KEY)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    print(f"Beside {folders.others}:", *words_of(both), sep="\n  ")
