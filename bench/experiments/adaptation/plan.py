"""A model adapted to intra-scale masks, decoded in several passes: what is counted and asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from pydantic import Field

from srdd.config import Positive, Strict
from srdd.lookup import unknown

from ...study import rooms
from ...study.chain import Trained, trainings
from ...study.checks import legal_metrics
from ...study.jobs import Job, Plan
from ...study.names import canonical_sampler, drawn, dump
from ...study.resolve import teacher_of
from ...study.schema import Claim, Study, Variant
from ...study.scores import BETTER, better
from ...study.subsets import OF_SUBSETS
from ...study.suite_checks import Resolved, side_problems, some, token_problems

TRAINS = READS_TEST = READS_CODES = True

# the rules read any number of a trained model
NEEDS = {name: ("trained", "scored") for name in ("judge_value", "judge_same")}
SHOWS_FID = ("figure_tokens_per_forward", "table_adaptation", "table_decoding")

COUNTED = ("var", "srdd")  # samplers whose passes can be told image by image
REPORTED = ("image_tokens_per_forward", "image_token_evals", "peak_q99", "peak_max")
# of what tokens there are, so that they compare between models of the same tokens alone
OF_TOKENS = re.compile(r"^(kept_loss|loss|best_loss|token_accuracy|elbo_cross_entropy)(_|$)")
OF_MASKS = ("intra_scale_gain", "loss_test_any_order")
# further numbers that trainings report: those with masks, those on fewer images, all
OF_TRAININGS = (*OF_MASKS, *OF_SUBSETS, "kept_loss_test", "kept_step")


class Settings(Strict):
    """What is counted of a model with intra-scale masks and of its samplers."""

    num_images: int = Field(
        256, ge=1, le=10**6, description="images whose passes are counted, of each sampler"
    )
    hidden_points: int = Field(
        5,
        ge=2,
        le=1000,
        description="numbers of hidden tokens, from 1 to all of a scale, at which the others "
        "are revealed and the hidden ones predicted",
    )
    hidden_images: Positive = Field(
        2048, description="images, at most, of the training and test split that are predicted so"
    )
    hidden_draws: Positive = Field(4, description="draws of hidden tokens for each image")


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job a trained model, for all its samplers."""
    samplers_of: dict[str, tuple[Trained, list[dict[str, Any]]]] = {}
    for variant, trained in trainings(plan, suite, variants):
        entry = {"name": trained.names["sampler"], "sampler": canonical_sampler(variant.sampler)}
        samplers = samplers_of.setdefault(trained.train.run_id, (trained, []))[1]
        samplers += [entry] if entry not in samplers else []
    told = {
        # the images that are scored are counted; which scores they get changes no count
        "images": drawn(plan.study.evaluation),
        "adaptation": dump(plan.study.told(suite, "adaptation")),
    }
    for trained, samplers in samplers_of.values():
        names = {key: trained.names[key] for key in ("tokenizer", "model")}
        read = trained.inputs("data", "tokenizer", "tokens", "train")
        config = {**trained.config, **told, "samplers": samplers}
        plan.add(suite, Job("adaptation", config, read, trained.slug, names))


# ---------------------------------------------------------------- what a suite cannot ask


def problems(study: Study, one: Resolved) -> Iterator[str]:
    """Samplers that cannot be counted, figures without a line, a margin that no rule reads."""
    for claim in one.suite.claims:
        if claim.margin is not None and claim.rule != "same":
            yield (
                f"claims.margin: {claim.margin:g}: of claim {claim.text!r}: is read by rule same "
                f"alone, this one has rule {claim.rule}; remove it"
            )
    if "adaptation" not in one.suite.measure:
        return
    for name, variant in one.variants.items():
        if variant.sampler.name not in COUNTED:
            yield (
                f"variants.{name}.sampler.name: {variant.sampler.name!r}: measure adaptation "
                f"counts passes image by image, of samplers {' and '.join(COUNTED)}"
            )
    yield from _empty_figures(one)


def _empty_figures(one: Resolved) -> Iterator[str]:
    variants = one.variants.values()
    if "intra_scale" in one.suite.figures and not any(v.model.mask_prob for v in variants):
        yield (
            "figures: 'intra_scale' shows models that read own tokens; give a variant "
            "model.mask_prob more than 0"
        )
    if "tokens_per_forward" in one.suite.figures:
        if not any(variant.sampler.refine_steps for variant in variants):
            yield (
                "figures: 'tokens_per_forward' shows samplers of several passes; give a variant "
                "sampler.refine_steps 1 or more"
            )
        if "sweep" not in one.suite.measure:
            yield "figures: 'tokens_per_forward' shows FID; add sweep to measure"


def cautions(study: Study, one: Resolved) -> Iterator[str]:
    """What adapts a model whose scales attend to one another; a metric that nobody may report."""
    for name, variant in one.variants.items():
        if _adapts(study, variant) and variant.model.history != 0:
            yield (
                f"variants.{name}.model.history: {variant.model.history}: scales attend to earlier "
                "ones, whose own tokens are partly masked in training and whole in sampling; "
                "history 0 has no such difference"
            )
    known, rules = _known(study), ("value", "same")
    asked = dict.fromkeys(claim.metric for claim in one.suite.claims if claim.rule in rules)
    for metric in asked:
        if metric not in known:
            words = unknown("metric", metric, known)
            yield f"claims.metric: {words}; taken as a number that a job of this suite reports"


def _adapts(study: Study, variant: Variant) -> bool:
    """Whether a variant learns to read own tokens from a teacher that reads none."""
    if variant.distill is None or variant.model.mask_prob == 0:
        return False
    return teacher_of(study, variant.distill).model.mask_prob == 0


# ---------------------------------------------------------------- claims


def _known(study: Study) -> list[str]:
    """Metrics that are known before a run: scores, what trainings and any room report."""
    reported = chain.from_iterable(rooms.says(room, "REPORTED", ()) for room in rooms.measures())
    return sorted({*legal_metrics(study)[0], *reported, *OF_TRAININGS, *BETTER})


def rule_problems(study: Study, one: Resolved, claim: Claim) -> Iterator[str]:
    """A metric that cannot be one, a direction that is missing or turned round, no margin."""
    yield from _metric_problems(study, claim)
    if claim.rule == "same":
        yield from _margin_problems(claim)
    elif claim.better is None:
        yield (
            f"better: is missing; give lower or higher, which is better is not known of "
            f"{claim.metric!r}"
        )
    elif better(claim.metric) not in (None, claim.better):
        yield (
            f"better: {claim.better!r}: of {claim.metric} {better(claim.metric)} is better; turn "
            "the claim round, or leave better out"
        )
    yield from side_problems(one, claim)
    if OF_TOKENS.search(claim.metric):
        yield from token_problems(one, claim)
    yield from _unreported(study, one, claim)


def _unreported(study: Study, one: Resolved, claim: Claim) -> Iterator[str]:
    """A known number that this suite does not report, or not of one side."""
    metric, measures = claim.metric, one.suite.measure
    scores, own = legal_metrics(study)
    if metric in scores or own:  # a metric of one's own may give any name
        return
    sides = [name for name in (claim.variant, claim.against) if name in one.variants]
    for name in sides:
        yield from _not_trained(metric, name, one.variants[name])
    reporting = [room for room in rooms.measures() if metric in rooms.says(room, "REPORTED", ())]
    asked = [room for room in reporting if room in measures]
    if reporting and not asked:
        yield (
            f"metric: {metric!r}: is reported by measure {' or '.join(reporting)}, this suite has "
            f"{', '.join(measures)}; add it to measure"
        )
    for name in sides if asked else ():
        if not any(metric in rooms.reported(room, study, one, name) for room in asked):
            yield (
                f"metric: {metric!r}: measure {' and '.join(asked)} does not report it of {name!r} "
                "with these settings; change them or the claim"
            )
            return


def _not_trained(metric: str, name: str, variant: Variant) -> Iterator[str]:
    """Numbers of trainings that this one does not report."""
    if metric in OF_MASKS and variant.model.mask_prob == 0:
        yield f"metric: {metric!r}: {name!r} has none, it is trained without model.mask_prob"
    training = variant.training
    if metric in OF_SUBSETS and (training is None or training.unique_images is None):
        yield f"metric: {metric!r}: {name!r} has none, it is trained without training.unique_images"


def _metric_problems(study: Study, claim: Claim) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9_.]+", claim.metric):
        yield (
            f"metric: {claim.metric!r}: a name of small letters, digits and _ as metrics.csv has "
            f"it, of a score without its extractor (such as {some(_known(study))})"
        )
    scores = legal_metrics(study)[0]
    for features in study.features:
        bare = claim.metric.removesuffix(f"_{features.name}")
        if bare != claim.metric and bare in scores:
            yield f"metric: {claim.metric!r}: write {bare!r}, without the extractor {features.name}"


def _margin_problems(claim: Claim) -> Iterator[str]:
    if claim.margin is None:
        yield (
            "margin: is missing; rule same asks how far apart two variants may be and count as "
            f"the same, in units of {claim.metric}"
        )
    if "better" in claim.model_fields_set:
        yield f"better: {claim.better!r}: rule same reads none, neither side is better; remove it"
