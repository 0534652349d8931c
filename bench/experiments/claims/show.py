"""Every claim of every suite and what decided it."""

from __future__ import annotations

import pandas as pd

from ...report.cells import frame
from ...report.claims import NOISE, after_holm, judged
from ...report.gain import gain_words
from ...report.view import View
from ...report.words import reference_words


def _sides(view: View, one: dict) -> list[str]:
    """Variants that a claim compares: those of a group where it names groups."""
    groups = view.groups()
    return [name for key in ("variant", "against") for name in (one[key], *groups.get(one[key], ()))]


def table_claims(view: View) -> tuple[pd.DataFrame, str]:
    """Every claim of every suite of these results, whether it holds here, and whether it does when
    all are tested together."""
    rows, seeds = [], set()
    for name, about in view.results.about["suites"].items():
        of_suite = View(view.results, name)
        for one in about["claims"]:
            found = judged(of_suite, one)
            words = gain_words(of_suite, _sides(of_suite, one), doubts=True)
            rows.append(
                {"Claim": one["text"], "Of": {"paper": "the paper, in our words", "ours": "us"}[one["origin"]], "Suite": name}
            )
            rows[-1] |= {"Holds here": found[0], "After Holm": after_holm(of_suite, one, found) or "no p-value"}
            rows[-1]["Because"] = f"{found[1]}. {words}" if words else found[1]
            seeds.add(len(about["train_seeds"]))
    few = " Fewer than three training seeds: no verdict." if seeds and min(seeds) < 3 else ""
    caption = (
        "What these results say of each claim. Scores and steps: yes or no when the 95 % t-interval of the paired difference over "
        f"training seeds excludes 0, at every target where there are several, else not decided.{few} Times: the interval of the log "
        "ratio over paired rounds, at every batch size. After Holm: the same when all claims with a p-value of a t-test are tested "
        f"together at 5 %; bytes and identities have none. {NOISE} {reference_words(view.results)} Of the SRDD paper only the "
        "beginning of the text was seen by us; no number of it stands here."
    )
    return frame(rows or [{"Claim": "none", "Holds here": "-", "After Holm": "-"}]), caption
