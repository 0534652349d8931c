"""How this room decides its claims: over training seeds, and by the size of the test split. Imports
no torch."""

from __future__ import annotations

from typing import Any

from ...report.claims import Verdict, direction, equal_words, joined
from ...report.estimate import FEWEST, Estimate, estimate, paired, show_difference, verdict
from ...report.view import View
from .reading import images_of, mean_of, seeds_of, two_errors

MARGIN, HALF = (
    0.01,
    0.5,
)  # accuracy that a funnel may lose, and share of the tokens that it may take


def of_difference(view: View, claim: dict[str, Any]) -> Verdict:
    """The verdict on the difference of two models."""
    metric, against = claim["metric"], claim["against"]
    first, second = seeds_of(view, against, metric), seeds_of(view, claim["variant"], metric)
    difference = paired(first, second)
    shares = (float(first.mean()), float(second.mean()))
    reason = f"{metric} of {claim['variant']} minus that of {against}"
    judgement = _beyond(difference, shares, images_of(view, claim["variant"]), claim, reason)
    name = metric.rpartition("_scale")[0]  # of one scale; empty for a metric of all
    return _reading(judgement, *filter(None, [name]))


def _beyond(
    difference: Estimate | None,
    shares: tuple[float, float],
    images: int | None,
    claim: dict[str, Any],
    reason: str,
) -> Verdict:
    """A verdict that both the training seeds and the size of the test split allow."""
    if difference is None or not images:
        return Verdict("not decided", f"{reason}: not measured")
    bound = two_errors(shares, images)
    shown_bound = f"two standard errors of {images} images are {bound:.3f}"
    reason = f"{reason}: {show_difference(difference)}; {shown_bound}{equal_words(difference)}"
    word = verdict(difference, direction(claim) == "lower")
    if difference.count < FEWEST:
        word, reason = "not decided", f"{reason}; fewer than three training seeds"
    elif word != "not decided" and abs(difference.mean) <= bound:
        word, reason = "not decided", f"{reason}, and the split is too small"
    return Verdict(word, reason, difference.p, difference)


def of_gain(view: View, claim: dict[str, Any]) -> Verdict:
    """The verdict on a gain that models show, all that measured it."""
    verdicts, tested = [], []
    for name in (claim["variant"], claim["against"]):
        gains, plain = view.of(name, claim["metric"]), mean_of(view, name, "accuracy")
        if not len(gains) or plain is None:
            continue
        gain = estimate(gains)
        assert gain is not None
        shares = (plain, min(1.0, max(0.0, plain + gain.mean)))
        reason = f"{claim['metric']} of {name}"
        verdicts.append(_beyond(gain, shares, images_of(view, name), claim, reason))
        tested.append(gain)
    if not verdicts or not len(view.of(claim["variant"], claim["metric"])):
        return Verdict("not decided", f"{claim['metric']} of {claim['variant']}: not measured")
    reason = "; ".join(one[1] for one in verdicts)
    return _together(verdicts, tested, reason)


def _reading(judgement: Verdict, *metrics: str) -> Verdict:
    """The same verdict, which follows from metrics that its reason does not name."""
    word, reason = judgement
    return Verdict(word, reason, judgement.p, judgement.difference, metrics)


def _together(verdicts: list[Verdict], tested: list[Estimate], reason: str) -> Verdict:
    """What several models say together."""
    word, p = joined([one[0] for one in verdicts], [one.p for one in verdicts], tested)
    return Verdict(word, reason, p, verdicts[0].difference)


def of_funnel(view: View, claim: dict[str, Any]) -> Verdict:
    """The verdict on a funnel: what it loses, and what it takes."""
    verdicts, tested = [], []
    for name in (claim["variant"], claim["against"]):
        loss, spent = view.estimate(name, "funnel_gain"), mean_of(view, name, "funnel_token_evals")
        whole = mean_of(view, name, "exact_token_evals")
        if loss is None or not spent or not whole:
            return Verdict("not decided", f"funnel of {name}: not measured")
        above = loss.allowing(MARGIN, lower=False)
        word = verdict(above, lower_is_claimed=False) if loss.count >= FEWEST else "not decided"
        reason = (
            f"funnel of {name} minus all classes: {show_difference(loss)}, "
            f"{spent:g} of {whole:g} tokens"
        )
        tested.append(above)
        # tokens are counted: a "no" by them follows from no test
        dear = spent >= HALF * whole
        verdicts.append(Verdict("no" if dear else word, reason, None if dear else above.p, loss))
    reason = "; ".join(one[1] for one in verdicts) + f"; at most {MARGIN:g} may be lost"
    judgement = _together(verdicts, tested, reason)
    return _reading(judgement, "funnel_gain")
