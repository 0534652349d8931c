"""Every claim of every published study, by each extractor: docs/claims.md and results/claims.csv.
Imports no torch.

    python -m bench claims            prints the page
    python -m bench claims --write    writes both
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import pandas as pd

from ..runtime.rows import write_text
from ..study import rooms
from ..study.resolve import ROOT
from .cells import MOST_COLUMNS, markdown
from .claims import (
    after_holm,
    by_others,
    judged,
    metrics_behind,
    others_words,
    reads,
    seeds_behind,
    taught_words,
)
from .estimate import holm, show_difference
from .published import published_folders, weight, whole_folder
from .results import Results
from .view import View

PAGE, TABLE = Path("docs/claims.md"), Path("results/claims.csv")
DECIDED = ("yes", "no")


@dataclass(frozen=True)
class Ruling:
    """What one extractor says of one claim of one study, and from what.

    extractor: empty where the claim reads no score of one; first: whether it is the study's first,
    whose word stands in the study's own tables.
    """

    claim: str
    of: str
    study: str
    suite: str
    reduced: bool
    extractor: str
    first: bool
    verdict: str
    after_holm: str
    after_holm_all_studies: str
    difference: str
    p: float | None
    num_images: int | None
    train_seeds: str
    device: str
    commit: str
    because: str


def published(root: Path) -> dict[str, Results]:
    """Results of every published study by its folder's name, the strongest evidence first. Raises
    ValueError or OSError that names what cannot be read."""
    with whole_folder():
        studies = {
            folder.parent.name: Results.load(folder)
            for folder in published_folders(root / "results")
        }
    for (first, one), (name, other) in combinations(studies.items(), 2):
        if one.about == other.about and one.metrics.equals(other.metrics):
            raise ValueError(
                f"results/{name}/published: is a copy of results/{first}/published, whose claims "
                "would count twice; move it out of results/"
            )
    return dict(sorted(studies.items(), key=lambda item: weight(item[1].about)))


def _unique(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(value for value in values if value))


def _images(view: View, claim: dict, judgement: tuple[str, str]) -> int | None:
    """How many images the numbers behind a verdict are taken over: those of the study's samples
    where one is, or the half of them on which a rule that tunes scores. None where they are of no
    images, or of several counts, as times by batch are."""
    results, counts = view.results, set()
    for metric in metrics_behind(view, judgement):
        counts |= set(view.rows_of(metric)["num_images"].dropna().astype(int))
    whole = results.about["evaluation"]["num_images"]
    if whole in counts and claim["rule"] in rooms.listed("rule", "HALVES"):
        first, last = results.halves[1]
        return last - first + 1
    if whole in counts:
        return whole
    return counts.pop() if len(counts) == 1 else None


def _rulings_of(study: str, view: View, claim: dict) -> Iterator[Ruling]:
    """What each extractor says of a claim: the first one, then the others that were asked."""
    results, judgement = view.results, judged(view, claim)
    others = by_others(view, claim, judgement)
    end = others_words(judgement, others) + taught_words(view, claim, judgement, others)
    mine = results.runs["run_id"].isin(view.runs)
    runs = results.runs.loc[mine, ["device", "commit"]].fillna("")
    asked = {results.extractor: (view, judgement)}
    asked |= {name: (view.by(name), other) for name, other in others.items()}
    for name, (by, (word, reason)) in asked.items():
        first, verdict = name == results.extractor, asked[name][1]
        difference = getattr(verdict, "difference", None)
        yield Ruling(
            claim=claim["text"].rstrip(" ."),
            of=claim["origin"],
            study=study,
            suite=view.suite,
            reduced=bool(results.about["reduced"]),
            extractor=name if not first or reads(verdict, name) else "",
            first=first,
            verdict=word,
            after_holm=after_holm(by, claim, verdict) or "",
            after_holm_all_studies="",
            difference=show_difference(difference) if difference else "",
            p=getattr(verdict, "p", None),
            num_images=_images(by, claim, verdict),
            train_seeds=seeds_behind(by, claim, verdict),
            device=_unique(runs["device"]),
            commit=_unique(runs["commit"].str[:9]),
            because=reason + (end if first else ""),
        )


def rulings(studies: dict[str, Results]) -> list[Ruling]:
    """What each extractor says of every claim of every study, alone, among the claims of its study,
    and among those of all studies."""
    ruled: list[Ruling] = []
    for study, results in studies.items():
        for suite, about in results.about["suites"].items():
            for claim in about["claims"]:
                ruled += _rulings_of(study, View(results, suite), claim)
    return list(_together(ruled, studies))


def _families(ruled: list[Ruling], studies: dict[str, Results]) -> dict[str, dict[int, float]]:
    """p-values that are corrected together, over the claims of all studies that are not reduced:
    those of the first extractors under "", and of each other one by its name. As inside a study, a
    claim of which the other says nothing of its own is in its family too."""
    tested = {
        i: (ruling, ruling.p)
        for i, ruling in enumerate(ruled)
        if ruling.p is not None and not ruling.reduced
    }
    families = {"": {i: p for i, (ruling, p) in tested.items() if ruling.first}}
    for name in dict.fromkeys(name for results in studies.values() for name in results.others):
        own = {_asked(ruling) for ruling in ruled if not ruling.first and ruling.extractor == name}

        def belongs(ruling: Ruling, name: str = name, own: set[tuple[str, ...]] = own) -> bool:
            if not ruling.first:
                return ruling.extractor == name
            return name in studies[ruling.study].others and _asked(ruling) not in own

        families[name] = {i: p for i, (ruling, p) in tested.items() if belongs(ruling)}
    return families


def _asked(ruling: Ruling) -> tuple[str, ...]:
    """What a claim is known by, whoever judges it."""
    return ruling.study, ruling.suite, ruling.claim


def _together(ruled: list[Ruling], studies: dict[str, Results]) -> Iterator[Ruling]:
    """The same with Holm's correction over the claims of all studies."""
    families = _families(ruled, studies)
    rejected = {name: holm(family) for name, family in families.items()}
    for i, ruling in enumerate(ruled):
        family, word = "" if ruling.first else ruling.extractor, "not decided"
        if i in rejected[family]:
            word = ruling.verdict
        yield replace(ruling, after_holm_all_studies=word if i in families[family] else "")


def csv_of(ruled: list[Ruling]) -> str:
    """The table with every number, one row for each claim, study and extractor."""
    rows = pd.DataFrame(ruled, columns=list(Ruling.__dataclass_fields__))
    rows["num_images"] = rows["num_images"].astype("Int64")
    return rows.to_csv(index=False, lineterminator="\n", float_format="%.6g")


# ---------------------------------------------------------------- the page

HEAD = """# Claims

Made by `python -m bench claims --write` from `results/*/published`; do not edit.
`results/claims.csv` has the same with every number and reason.

- **yes** and **no**: the 95 % interval of the difference that the claim names excludes 0. It is
  over three training seeds at least, of times over paired rounds. **not decided**: it holds 0. A
  difference that is equal in every training seed has no interval and decides nothing.
- *Not after Holm*: the verdict falls when all claims of the study are tested together at 5 % (Holm
  1979). Bytes and identities have no p-value, and are not among these.
- A verdict is that of the study's first extractor. Where another one scored the same images, its
  verdict follows.
- Studies of more training seeds and images stand first. A blank cell: the study does not ask this.
"""
REDUCED = """- *(reduced)*: one training or a small model, so that two CPU cores finish; nothing is
  claimed of it.
"""


def _mark(ruling: Ruling) -> str:
    """A verdict and whether it stands among all claims of its study."""
    falls = ruling.verdict in DECIDED and ruling.after_holm == "not decided"
    return f"{ruling.verdict}, not after Holm" if falls else ruling.verdict


def _cell(of_claim: list[Ruling]) -> str:
    """What a study says of a claim, in every suite that asks it and by every extractor; empty where
    none asks."""
    marks: dict[str, list[str]] = {}
    for suite in dict.fromkeys(ruling.suite for ruling in of_claim):
        first, *others = (ruling for ruling in of_claim if ruling.suite == suite)
        words = [_mark(first), *(f"by {other.extractor} {_mark(other)}" for other in others)]
        marks.setdefault("; ".join(words), []).append(suite)
    if len(marks) == 1:
        return next(iter(marks))
    return ". ".join(f"{', '.join(suites)}: {mark}" for mark, suites in marks.items())


def _title(study: str, ruled: list[Ruling]) -> str:
    reduced = any(ruling.reduced for ruling in ruled if ruling.study == study)
    return f"{study} (reduced)" if reduced else study


def _matrices(ruled: list[Ruling]) -> Iterator[str]:
    """Claims against studies, as many side by side as a reader takes in."""
    studies = list(dict.fromkeys(ruling.study for ruling in ruled))
    for start in range(0, len(studies), MOST_COLUMNS - 1):
        columns = studies[start : start + MOST_COLUMNS - 1]
        asked = [ruling for ruling in ruled if ruling.study in columns]
        rows = []
        for claim in dict.fromkeys(ruling.claim for ruling in asked):
            rows.append({"Claim": claim})
            for study in columns:
                rulings_here = [r for r in asked if (r.claim, r.study) == (claim, study)]
                rows[-1][_title(study, ruled)] = _cell(rulings_here)
        yield markdown(pd.DataFrame(rows, dtype=object))


def _counted(of_study: list[Ruling]) -> dict[str, int]:
    """How many claims every extractor that was asked calls yes, no or not decided, and of how many
    they differ."""
    words: dict[tuple[str, str], set[str]] = {}
    for ruling in of_study:
        words.setdefault((ruling.suite, ruling.claim), set()).add(ruling.verdict)
    counts = dict.fromkeys((*DECIDED, "not decided", "differ"), 0)
    for of_claim in words.values():
        word = of_claim.pop() if len(of_claim) == 1 else "differ"
        counts[word] = counts.get(word, 0) + 1
    return counts


def _studies(ruled: list[Ruling], studies: dict[str, Results]) -> str:
    """How each study came to its verdicts, and how many of each kind there are."""
    rows = []
    for study in dict.fromkeys(ruling.study for ruling in ruled):
        of_study = [ruling for ruling in ruled if ruling.study == study]
        counts = _counted(of_study)
        seeds = _unique(ruling.train_seeds.replace(" ", ", ") for ruling in of_study)
        devices = "; ".join(ruling.device for ruling in of_study).split("; ")
        commits = "; ".join(ruling.commit for ruling in of_study).split("; ")
        scored = any(ruling.extractor for ruling in of_study)
        rows.append(
            {
                "Study": _title(study, ruled),
                "Extractors": ", ".join(studies[study].extractors) if scored else "-",
                "N": str(studies[study].about["evaluation"]["num_images"]) if scored else "-",
                "Training seeds": seeds or "-",
                "yes / no / not decided": " / ".join(str(counts[word]) for word in [*counts][:3]),
                "Extractors differ": str(counts["differ"]),
                "Commit and device": f"{_unique(commits)} on {_unique(devices)}",
            }
        )
    return markdown(pd.DataFrame(rows, dtype=object))


def _together_words(ruled: list[Ruling]) -> str:
    """How many verdicts stand when the claims of all studies are tested together."""
    first = [ruling for ruling in ruled if ruling.first and not ruling.reduced]
    tested = [ruling for ruling in first if ruling.after_holm_all_studies]
    alone = sum(ruling.verdict in DECIDED for ruling in tested)
    stand = [ruling for ruling in tested if ruling.after_holm_all_studies in DECIDED]
    words = (
        f"The studies that are not reduced ask {len(first)} claims. {len(tested)} of them have a "
        f"p-value. Of these {alone} are yes or no alone, and {len(stand)} when all are tested "
        "together (Holm, 5 %)"
    )
    if not stand:
        return f"{words}.\n"
    rows = [
        {"Claim": each.claim, "Study": each.study, "Suite": each.suite, "Verdict": each.verdict}
        for each in stand
    ]
    return f"{words}:\n\n{markdown(pd.DataFrame(rows, dtype=object))}"


STUDIES = """## How each study came to them

N: generated images per training seed. A claim counts as yes or no where every extractor that scored
it says so.
"""


def page_of(ruled: list[Ruling], studies: dict[str, Results]) -> str:
    """The page in markdown."""
    if not ruled:
        return f"{HEAD}\nNo study with a claim is published.\n"
    head = HEAD + REDUCED if any(ruling.reduced for ruling in ruled) else HEAD
    parts = [head, *_matrices(ruled), _together_words(ruled), STUDIES, _studies(ruled, studies)]
    return "\n".join(parts)


def write(root: Path) -> None:
    """Write the page and the table of a project. Raises as `published` does."""
    studies = published(root)
    ruled = rulings(studies)
    write_text(root / PAGE, page_of(ruled, studies))
    write_text(root / TABLE, csv_of(ruled))


def main() -> None:
    """Print the page, or with --write write page and table."""
    parser = argparse.ArgumentParser(prog="python -m bench claims")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE} and {TABLE}")
    write_both = parser.parse_args().write
    try:
        if write_both:
            write(ROOT)
            print(f"wrote {PAGE} and {TABLE}")
            return
        studies = published(ROOT)
        print(page_of(rulings(studies), studies))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
