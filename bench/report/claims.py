"""What a suite claims, how its rules decide it, plain and after Holm's correction. Imports no torch."""

from __future__ import annotations

import json
from typing import Any

from ..study import rooms
from ..study.escaping import rst, sentence
from ..study.scores import BETTER, bare_name, better
from .estimate import FEWEST, Estimate, holm, verdict
from .gain import gain_words
from .making import raised
from .results import Results
from .view import View

# a detail of whatever ranks by FID; a caption that has it twice shows it once
NOISE = (
    "FID and KID can fall when noise is added to samples that vary too little: "
    "read them beside coverage, class agreement and CAS."
)


def claim_details(view: View) -> tuple[str, ...]:
    """Details of a caption: what the suite asks, how its claims were decided, plain and after Holm's
    correction, and what its refinement can do; a reduced study says so first."""
    about, reduced = view.about, view.results.about.get("reduced")
    return (
        f"REDUCED STUDY: {sentence(reduced)}" if reduced else "",
        sentence(about["claim"]),
        *_verdict_details(view),
        NOISE if _claims_fid(about) else "",
        rst(gain_words(view)),
    )


def _verdict_details(view: View) -> list[str]:
    """A detail for each claim; one for all where a table of claims gives the reasons once for all
    captions of the study."""
    listed = any("claims" in other["tables"] for other in view.results.about["suites"].values())
    details, verdicts = [], []
    for asked in view.about["claims"]:
        judgement = judged(view, asked)
        word, reason = judgement
        corrected, text = after_holm(view, asked, judgement), rst(asked["text"].rstrip(" ."))
        # what is not decided alone is not decided among others
        both = f"{word}, after Holm {corrected}" if corrected and word in ("yes", "no") else word
        verdicts.append(f"{text}: {both}")
        owner = "Claim of the paper, in our words" if asked["origin"] == "paper" else "Claim"
        details.append(f"{owner}: {text}: {both} ({rst(reason)}).")
    if listed and verdicts:
        return [f"Claims, with their reasons in table claims: {'; '.join(verdicts)}."]
    return details


def _claims_fid(about: dict[str, Any]) -> bool:
    rules = ("score", "tuned")
    return any(a["rule"] in rules and a["metric"] in ("fid", "kid") for a in about["claims"])


class Verdict(tuple):
    """What a rule finds, the pair (word, reason), and as `p` the p-value that the word follows
    from; None where it follows from none."""

    p: float | None

    def __new__(cls, word: str, reason: str, p: float | None = None) -> Verdict:
        made = super().__new__(cls, (word, reason))
        made.p = p
        return made


def judged(view: View, one: dict[str, Any]) -> tuple[str, str]:
    """Whether a claim holds here, `yes`, `no` or `not decided`, by the rule `judge_<name>` that the
    study names, and why. A rule of one's own returns this pair, or a `Verdict` whose p-value Holm's
    correction counts."""
    rule, who = one["rule"], rooms.place_of_function("rule", one["rule"])
    try:
        found = rooms.function_of("rule", rule)(view, one)
    except (ValueError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{who}: {raised(error)}") from error
    pair = isinstance(found, tuple) and len(found) == 2
    if not pair or not all(isinstance(word, str) for word in found):
        raise ValueError(f"{who}: gives {found!r}; must be the pair of yes, no or not decided, and a reason")
    return found


def _p_values(results: Results) -> dict[tuple[str, str], float]:
    """The p-value of every claim of the study that has one, by suite and the claim's own settings.
    """

    def collect() -> dict[tuple[str, str], float]:
        found = {}
        for suite, about in results.about["suites"].items():
            for one in about["claims"]:
                try:
                    p = getattr(judged(View(results, suite), one), "p", None)
                except ValueError:  # said where the claim itself is shown
                    p = None
                if p is not None:
                    found[suite, json.dumps(one, sort_keys=True)] = p
        return found

    return results.once("p-values", collect)


def after_holm(view: View, one: dict[str, Any], found: tuple[str, str]) -> str | None:
    """A claim's word when all claims of the study are tested together (Holm 1979, 5 %); None for
    one without a p-value, such as bytes that were counted."""
    p, key = _p_values(view.results), (view.suite, json.dumps(one, sort_keys=True))
    if key not in p:
        return None
    return found[0] if key in holm(p) else "not decided"


def decided(found: Estimate | None, lower: bool, reason: str) -> Verdict:
    """The verdict on a paired difference over training seeds, of which there must be three."""
    if found is not None and found.count < FEWEST:
        return Verdict("not decided", f"{reason}; fewer than three training seeds")
    return Verdict(verdict(found, lower), reason, found and found.p)


def decided_together(found: dict[Any, Estimate | None], lower: bool = True) -> tuple[str, float | None]:
    """`yes` where every one of several differences decides so, `no` where every one decides the
    contrary; p-value: the largest of them, 1 where they point both ways."""
    words = {verdict(one, lower) for one in found.values()}
    word = words.pop() if len(words) == 1 else "not decided"
    p = [one.p for one in found.values() if one is not None]
    if not found or len(p) < len(found) or None in p:
        return word, None
    same = len({one.mean > 0 for one in found.values()}) == 1
    return word, max(p) if same else 1.0


NO_DIRECTION = "whether lower or higher is better is not known of this metric; say better: lower or better: higher in the claim"


def direction(one: dict[str, Any]) -> str | None:
    """What a claim says is better, lower or higher: as it states, else as its metric points; None
    where neither is known."""
    return one.get("better") or better(one["metric"])


def claimed(word: str, one: dict[str, Any]) -> str:
    """The word of a rule that asks for less, turned round where a claim states that more is
    better."""
    return {"yes": "no", "no": "yes"}.get(word, word) if one.get("better") == "higher" else word


def against_the_usual(one: dict[str, Any]) -> str:
    """Says that a claim counts as better what others count as worse; empty for all other claims."""
    stated, usual = one.get("better"), better(one["metric"])
    return (
        f"; this claim states that {stated} is better, usually {usual} is"
        if stated and usual and stated != usual
        else ""
    )


def no_metric(view: View, one: dict[str, Any]) -> str:
    """Why a claim names no metric of these results: no row has it though others were scored, or no
    study has; else empty."""
    metric = view.results.score_name(one["metric"])
    if view.results.rows_of(metric)["run_id"].isin(view.results.runs_of[view.suite]).any():
        return ""
    mine = view.results.metrics[
        view.results.metrics["run_id"].isin(view.results.runs_of[view.suite])
        & view.results.metrics["train_seed"].notna()
    ]
    names = (bare_name(metric, view.results.extractor) for metric in mine["metric"].unique())
    scored = sorted(filter(None, names))
    if not scored and one["metric"] in BETTER:
        return ""
    return f"no row of this suite has {metric} (scored: {', '.join(scored) or 'nothing'})"


# ---------------------------------------------------------------- until every room gives details


def claim(view: View) -> str:
    """The details of `claim_details` in one string."""
    return " ".join(filter(None, claim_details(view)))


def noise_words(view: View) -> str:
    """NOISE, where `claim` does not say it."""
    return "" if _claims_fid(view.about) else NOISE
