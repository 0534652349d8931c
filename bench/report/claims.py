"""What a suite claims, how its rules decide it, plain and after Holm's correction.

Imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from ..study import rooms
from ..study.escaping import rst, sentence
from ..study.scores import BETTER, bare_name, better
from .absent import by_reason
from .estimate import FEWEST, Estimate, holm, show_difference, verdict
from .gain import gain_words
from .independence import taught_by
from .making import raised
from .results import Results
from .view import View

# a detail of whatever ranks by FID; a caption that has it twice shows it once
NOISE = (
    "FID and KID can fall when noise is added to samples that vary too little: "
    "read them beside coverage, class agreement and CAS."
)


def claim_details(view: View) -> tuple[str, ...]:
    """Details of a caption: what the suite asks, how its claims were decided, plain and after
    Holm's correction, and what its refinement can do; a reduced study says so first."""
    view = view.of_suite
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
    for claim in view.about["claims"]:
        judgement = judged(view, claim)
        word, reason = judgement
        corrected, text = after_holm(view, claim, judgement), rst(claim["text"].rstrip(" ."))
        # what is not decided alone is not decided among others
        both = f"{word}, after Holm {corrected}" if corrected and word in ("yes", "no") else word
        others = by_others(view, claim, judgement)
        both += "".join(f", by {rst(name)} {other[0]}" for name, other in others.items())
        reason += others_words(judgement, others) + taught_words(view, claim, judgement, others)
        verdicts.append(f"{text}: {both}")
        owner = "Claim of the paper, in our words" if claim["origin"] == "paper" else "Claim"
        details.append(f"{owner}: {text}: {both} ({rst(reason)}).")
    if listed and verdicts:
        return [f"Claims, with their reasons in table claims: {'; '.join(verdicts)}."]
    return details


def _claims_fid(about: dict[str, Any]) -> bool:
    rules = ("score", "tuned")
    return any(
        claim["rule"] in rules and claim["metric"] in ("fid", "kid") for claim in about["claims"]
    )


class Verdict(tuple):
    """What a rule finds, the pair (word, reason); as `p` the p-value that the word follows from and
    as `difference` the number behind it, where it follows from such; as `reads` the metrics that it
    follows from and its reason does not name; as `over` what is said of numbers that are missing.
    """

    p: float | None
    difference: Estimate | None
    reads: tuple[str, ...]
    over: str

    def __new__(
        cls,
        word: str,
        reason: str,
        p: float | None = None,
        difference: Estimate | None = None,
        reads: tuple[str, ...] = (),
        over: str = "",
    ) -> Verdict:
        verdict = super().__new__(cls, (word, reason))
        verdict.p, verdict.difference, verdict.reads, verdict.over = p, difference, reads, over
        return verdict


def judged(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Whether a claim holds here, `yes`, `no` or `not decided`, by the rule `judge_<name>` that the
    study names, and why. A rule of one's own returns this pair, or a `Verdict` whose p-value Holm's
    correction counts."""
    view, who = view.of_suite, rooms.place_of_function("rule", claim["rule"])
    try:
        judgement = rooms.function_of("rule", claim["rule"])(view.lent, deepcopy(claim))
    except (ValueError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"{who}: {raised(error)}") from error
    pair = isinstance(judgement, tuple) and len(judgement) == 2
    if not pair or not all(isinstance(word, str) for word in judgement):
        legal = "must be the pair of yes, no or not decided, and a reason"
        raise ValueError(f"{who}: gives {judgement!r}; {legal}")
    over = _gone_words(view, claim, judgement)
    if absent := absent_seeds(view, claim, judgement):
        count = len(view.about["train_seeds"])
        there = f"; over {count - len(absent)} of {count} training seeds"
        over = f"{there}: {by_reason(absent)}{over}"
    if not over:
        return judgement
    p, difference = (getattr(judgement, name, None) for name in ("p", "difference"))
    return Verdict(judgement[0], judgement[1] + over, p, difference, _reads(judgement), over)


def _reads(judgement: tuple[str, str]) -> tuple[str, ...]:
    """Metrics that a verdict follows from and its reason does not name."""
    reads: tuple[str, ...] = getattr(judgement, "reads", ())
    return reads


def _gone_words(view: View, claim: dict[str, Any], judgement: tuple[str, str]) -> str:
    """Why a variant of an undecided claim lacks in all training seeds a number that the reason
    names, as the end of the reason: its jobs failed; empty where the reason says so itself."""
    word, reason = judgement
    words, metrics = "", metrics_behind(view, judgement)
    for name in _compared(view, claim, reason) if word == "not decided" else ():
        why = by_reason(_gone(view, name, metrics))
        if why and why not in reason and not re.search(r" not (measured|run)$", why):
            words += f"; {name}: {why}"
    return words


def _gone(view: View, name: str, metrics: list[str]) -> dict[int, str]:
    """Why a variant lacks one of these metrics in every training seed; where none is named, why a
    job of it failed in each of them. Empty where neither is so."""
    for metric in metrics:
        if _is_gone(view, name, metric):
            return view.missing(name, metric)
    of_jobs = view.missing(name, "")  # a metric that nothing has
    well = {"not measured", "not run"} & set(of_jobs.values())
    return {} if metrics or well else of_jobs


def _is_gone(view: View, name: str, metric: str) -> bool:
    """Whether a variant has a metric in no training seed, final, along the training or by scale."""
    seeds = len(view.about["train_seeds"])
    return all(len(missing) == seeds for missing in _missing_each_way(view, name, metric))


def absent_seeds(view: View, claim: dict[str, Any], judgement: tuple[str, str]) -> dict[int, str]:
    """Training seeds that a verdict is without, each with why: those in which a variant that the
    claim compares lacks a number that it follows from, and has it in other seeds."""
    absent: dict[int, str] = {}
    names = _compared(view, claim, judgement[1])
    for metric in metrics_behind(view, judgement):
        for name in names:
            absent = _lacking(view, name, metric) | absent
    return dict(sorted(absent.items()))


def metrics_behind(view: View, judgement: tuple[str, str]) -> list[str]:
    """Metrics of the study that a verdict follows from: those that its reason names, and others."""
    named = {*re.findall(r"\w+", judgement[1]), *_reads(judgement)}
    return sorted(filter(view.results.has_rows, named))


def _compared(view: View, claim: dict[str, Any], reason: str) -> list[str]:
    """Variants whose numbers a verdict rests on: of a group those that the reason names, if it
    names some, as a rule that tunes names the best one alone."""
    compared: list[str] = []
    groups = view.groups()
    for key in ("variant", "against"):
        members = groups.get(claim[key], [])
        named = [one for one in members if re.search(rf"(?<!\w){re.escape(one)}(?!\w)", reason)]
        compared += [claim[key]] if claim[key] in view.variants else named or members
    return compared


def _lacking(view: View, name: str, metric: str) -> dict[int, str]:
    """Training seeds in which a variant lacks a metric that it has in others."""
    seeds = len(view.about["train_seeds"])
    every_way = _missing_each_way(view, name, metric)
    return next((missing for missing in every_way if len(missing) < seeds), {})


def _missing_each_way(view: View, name: str, metric: str) -> Iterator[dict[int, str]]:
    """Training seeds without a metric, and why: without a final number, without one along the
    training, without one of a scale."""
    for along in (False, True):
        yield view.missing(name, metric, along)
    there = set(view.select(name, metric).dropna(subset=["scale", "value"])["train_seed"])
    lost = [seed for seed in view.about["train_seeds"] if seed not in there]
    yield {seed: view.results.why(view.variants[name], seed) for seed in lost}


def seeds_behind(view: View, claim: dict[str, Any], judgement: tuple[str, str]) -> str:
    """The training seeds that a verdict rests on; none where it needs no training, as of times."""
    needs = set(rooms.needs("rule", claim["rule"]))
    if needs and needs <= set(rooms.which("SIZES_ONLY")):
        return ""
    absent = absent_seeds(view, claim, judgement)
    return " ".join(str(seed) for seed in view.about["train_seeds"] if seed not in absent)


EQUAL = "; equal in every training seed, of which no interval follows"
NO_METRIC = "no such metric"  # the word for a claim on what nobody scored
DIFFER = "the evaluators differ"


def reads(judgement: tuple[str, str], extractor: str) -> bool:
    """Whether a judgement follows from a score of an extractor: its reason then names the score."""
    return re.search(rf"_{re.escape(extractor)}\b", judgement[1]) is not None


def by_others(
    view: View, claim: dict[str, Any], judgement: tuple[str, str]
) -> dict[str, tuple[str, str]]:
    """What the same rule finds by each other extractor, by name. A reason names the scores that it
    follows from: one that is the same by another extractor follows from no score of it, and one
    that the other never scored is left out too."""
    others = {}
    for name in view.results.others:
        other = judged(view.by(name), claim)
        if other != judgement and other[0] != NO_METRIC:
            others[name] = other
    return others


def sides(view: View, claim: dict[str, Any]) -> list[str]:
    """Variants that a claim compares: those of a group where it names groups."""
    groups, names = view.groups(), []
    for key in ("variant", "against"):
        names += [claim[key], *groups.get(claim[key], ())]
    return names


def taught_words(
    view: View,
    claim: dict[str, Any],
    judgement: tuple[str, str],
    others: dict[str, tuple[str, str]],
) -> str:
    """Which of the extractors that judge a claim a tokenizer of it was trained on, as the end of a
    reason."""
    asked = [name for name in view.results.extractors if name in others or reads(judgement, name)]
    compared = sides(view, claim)
    taught = [name for name in asked if set(compared) & set(taught_by(view, name))]
    return "".join(f"; a tokenizer was trained on the network of {name}" for name in taught)


def others_words(judgement: tuple[str, str], others: dict[str, tuple[str, str]]) -> str:
    """What other extractors say of a claim, and whether it is something else, as the end of a
    reason."""
    words = ""
    for name, other in others.items():
        difference = getattr(other, "difference", None)
        over = getattr(other, "over", "").removeprefix("; ")
        shown = f", {show_difference(difference)}" if difference else f" ({other[1]})"
        shown += f" ({over})" if difference and over else ""
        words += f"; by {name}: {other[0]}{shown}"
    differ = any(other[0] != judgement[0] for other in others.values())
    return f"{words}; {DIFFER}" if differ else words


def _key(suite: str, claim: dict[str, Any]) -> tuple[str, str]:
    """What a claim is known by among those of all suites."""
    return suite, json.dumps(claim, sort_keys=True)


def _p_values(results: Results) -> dict[tuple[str, str], float]:
    """The p-value that every claim of the study has by the extractor that is asked, by suite and
    the claim's own settings; those that need no extractor are among them."""

    def collect() -> dict[tuple[str, str], float]:
        p_values = {}
        for suite, about in results.about["suites"].items():
            for claim in about["claims"]:
                try:
                    p = getattr(judged(View(results, suite), claim), "p", None)
                except ValueError:  # said where the claim itself is shown
                    p = None
                if p is not None:
                    p_values[_key(suite, claim)] = p
        return p_values

    return results.once(("p-values", results.extractor), collect)


def after_holm(view: View, claim: dict[str, Any], judgement: tuple[str, str]) -> str | None:
    """A claim's word when all claims of the study, each once, by the extractor that is asked, are
    tested together (Holm 1979, 5 %); None for one without a p-value, such as bytes that were
    counted."""
    p, key = _p_values(view.of_suite.results), _key(view.suite, claim)
    if key not in p:
        return None
    return judgement[0] if key in holm(p) else "not decided"


def decided(difference: Estimate | None, lower: bool, reason: str) -> Verdict:
    """The verdict on a paired difference over training seeds, of which there must be three that
    differ."""
    if difference is not None and difference.count < FEWEST:
        few = f"{reason}; fewer than three training seeds"
        return Verdict("not decided", few, difference=difference)
    reason += equal_words(difference)
    return Verdict(verdict(difference, lower), reason, difference and difference.p, difference)


def equal_words(difference: Estimate | None) -> str:
    """Says that seeds differ equally, which decides nothing; empty for all other differences."""
    return EQUAL if difference is not None and difference.equal and difference.mean else ""


def no_worse(difference: Estimate | None, margin: float, lower: bool, reason: str) -> Verdict:
    """The verdict on a paired difference that may be worse by no more than a margin: `yes` where
    its interval ends short of it, `no` where all of it lies beyond. lower: less is better."""
    allowed = decided(difference and difference.allowing(margin, lower), lower, reason)
    return Verdict(allowed[0], allowed[1], allowed.p, difference)


def decided_together(
    differences: dict[Any, Estimate | None], lower: bool = True
) -> tuple[str, float | None]:
    """`yes` where every one of several differences decides so, `no` where every one decides the
    contrary; p-value: the largest of them, 1 where they point both ways."""
    tested = list(differences.values())
    p_values = [None if difference is None else difference.p for difference in tested]
    return joined([verdict(difference, lower) for difference in tested], p_values, tested)


def joined(
    words: Sequence[str], p_values: Sequence[float | None], tested: Sequence[Estimate | None]
) -> tuple[str, float | None]:
    """The word that all say, else `not decided`; the largest p-value, 1 where what was tested
    points both ways, None where one has none."""
    word = words[0] if len(set(words)) == 1 else "not decided"
    known = [p for p in p_values if p is not None]
    if not known or len(known) < len(p_values):
        return word, None
    one_way = len({estimate.mean > 0 for estimate in tested if estimate is not None}) == 1
    return word, max(known) if one_way else 1.0


NO_DIRECTION = (
    "whether lower or higher is better is not known of this metric; "
    "say better: lower or better: higher in the claim"
)


def direction(claim: dict[str, Any]) -> str | None:
    """What a claim says is better, lower or higher: as it states, else as its metric points; None
    where neither is known."""
    return claim.get("better") or better(claim["metric"])


def claimed(word: str, claim: dict[str, Any]) -> str:
    """The word of a rule that asks for less, turned round where a claim states that more is
    better."""
    if claim.get("better") != "higher":
        return word
    return {"yes": "no", "no": "yes"}.get(word, word)


def against_the_usual(claim: dict[str, Any]) -> str:
    """Says that a claim counts as better what others count as worse; empty for all other claims."""
    stated, usual = claim.get("better"), better(claim["metric"])
    if not stated or not usual or stated == usual:
        return ""
    return f"; this claim states that {stated} is better, usually {usual} is"


def no_metric(view: View, claim: dict[str, Any]) -> str:
    """Why a claim names no metric of these results: no row has it though others were scored, or no
    study has; else empty."""
    metric, rows = view.results.score_name(claim["metric"]), view.results.metrics
    if len(view.rows_of(metric)):
        return ""
    of_suite = rows[rows["run_id"].isin(view.runs) & rows["train_seed"].notna()]
    names = (bare_name(name, view.results.extractor) for name in of_suite["metric"].unique())
    scored = sorted(filter(None, names))
    if not scored and claim["metric"] in BETTER:
        return ""
    return f"no row of this suite has {metric} (scored: {', '.join(scored) or 'nothing'})"
