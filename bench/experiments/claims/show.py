"""Every claim of every suite and what decided it."""

from __future__ import annotations

import pandas as pd

from ...report import independence
from ...report.caption import Caption
from ...report.cells import MOST_COLUMNS, frame, shown
from ...report.claims import NOISE, after_holm, by_others, judged, others_words, sides, taught_words
from ...report.estimate import FEWEST
from ...report.gain import gain_words
from ...report.view import View
from ...report.words import reference_details
from ...study.escaping import rst

NO_P = "no p-value"
ORIGINS = {"paper": "the paper, in our words", "ours": "us"}


def _by(extractor: str) -> str:
    """The column of what an extractor says that is not the study's first."""
    return f"By {extractor}"


def _row(view: View, claim: dict) -> dict[str, str]:
    """One claim, what the results say of it by each extractor, and why."""
    judgement = judged(view, claim)
    word, reason = judgement
    others = by_others(view, claim, judgement)
    words = gain_words(view, sides(view, claim), doubts=True)
    reason += others_words(judgement, others) + taught_words(view, claim, judgement, others)
    row = {
        "Claim": claim["text"],
        "Holds here": word,
        "After Holm": after_holm(view, claim, judgement) or NO_P,
    }
    for name in view.results.others:
        other = others.get(name)
        corrected = other and (after_holm(view.by(name), claim, other) or NO_P)
        row[_by(name)] = other[0] if other else "-"
        row[f"{_by(name)}, after Holm"] = corrected or "-"
    row["Because"] = f"{reason}. {words}" if words else reason
    return row | {"Of": ORIGINS[claim["origin"]], "Suite": view.suite}


def _shown(view: View, table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns that a reader needs: what every extractor says before whose claim
    it is."""
    others = view.results.others
    if not others:
        return table
    first = ["Claim", "Holds here", "After Holm", *map(_by, others)][: MOST_COLUMNS - 1]
    first = [*first, "Because", "Of", "Suite"][:MOST_COLUMNS]
    return shown(table, *[title for title in table.columns if title in first])


def _other_words(view: View) -> str:
    """What the columns of further extractors say; empty where there is one extractor."""
    others = view.results.others
    if not others:
        return ""
    first, names = view.results.extractor, ", ".join(map(rst, others))
    return (
        f"Holds here: by {rst(first)}. By {names}: the same rule on the same images; a dash where "
        "it reads no score of that extractor. Each extractor has a correction of its own, in which "
        "every claim counts once."
    )


def _draws_images(view: View) -> bool:
    """Whether a number of these results is of images that a sampler drew."""
    samplers = view.results.metrics["sampler"]
    return bool((samplers.notna() & (samplers != "")).any())


def table_claims(view: View) -> tuple[pd.DataFrame, Caption]:
    """Every claim of every suite of these results, whether it holds here, and whether it does when
    all are tested together."""
    rows, seeds, taught = [], set(), []
    for name, about in view.results.about["suites"].items():
        of_suite = View(view.results, name)
        taught.append(independence.taught_words(of_suite) if about["claims"] else "")
        rows += [_row(of_suite, claim) for claim in about["claims"]]
        seeds |= {len(about["train_seeds"])} if about["claims"] else set()
    text = (
        "What these results say of each claim: yes or no where the 95 % interval of the difference "
        "that it names excludes 0, else not decided. After Holm: the same when all claims are "
        "tested together at 5 %."
    )
    few = "Fewer than three training seeds: no verdict."
    rules = {
        claim["rule"]
        for about in view.results.about["suites"].values()
        for claim in about["claims"]
    }
    accuracy = (
        "Accuracy: also a difference of more than two binomial standard errors of the images that "
        "are classified, else not decided."
    )
    drawn = _draws_images(view)
    details = (
        "Scores and steps: the t-interval of the paired difference over training seeds, at every "
        "target where there are several.",
        few if seeds and min(seeds) < FEWEST else "",
        accuracy if "accuracy" in rules else "",
        "Times: the interval of the log ratio over paired rounds, at every batch size.",
        _other_words(view),
        "After Holm: of all claims with a p-value; bytes and identities have none.",
        *((NOISE, *reference_details(view.results)) if drawn else ()),
        *dict.fromkeys(taught),
        "Of the SRDD paper only the beginning of the text was seen by us; "
        "no number of it stands here.",
    )
    none = {"Claim": "none", "Holds here": "-", "After Holm": "-"}
    return _shown(view, frame(rows or [none])), Caption(text, details)
