"""What a study's suites ask for and cannot get, found before any work: figures without numbers,
claims that nothing can decide.

Each check yields one line, `key: what is wrong and what to do`. Problems are refused; cautions
are said and the study runs.
Imports no torch.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from srdd.lookup import unknown

from . import rooms
from .checks import COSTLY, NEED_CLASSES, RETURNS, WITHIN_CLASSES, legal_metrics, tuning
from .idle import idle_deltas, idle_grids, idle_losses, losses_in_use
from .restore_settings import RestoreConfig, degradation_problems
from .scores import better
from .subsets import subset_problems

if TYPE_CHECKING:
    from .schema import Claim, Study, Suite, Variant
    from .settings import TrainingConfig
    from .tokenizer_settings import TokenizerTraining


@dataclass(frozen=True)
class Resolved:
    """A suite with its variants in full, and of each the name of the entry that it comes from and
    the values of its grid."""

    name: str
    suite: Suite
    variants: dict[str, Variant]
    groups: dict[str, str]
    grids: dict[str, dict[str, Any]]

    @property
    def members(self) -> dict[str, list[str]]:
        """The variants of each entry, those that were left out as twins aside."""
        members: dict[str, list[str]] = {group: [] for group in self.suite.variants}
        for name in self.variants:
            members[self.groups[name]].append(name)
        return members


def problems(study: Study, suites: dict[str, Resolved]) -> Iterator[str]:
    """Why suites cannot give what they ask for."""
    for name, one in suites.items():
        of_rooms = (says(study, one) for says in _hooks("problems"))
        lines = (
            *_tuning_problems(study, name),
            *_output_problems(study, one),
            *itertools.chain(*of_rooms),
        )
        yield from (f"suites.{name}.{line}" for line in lines)
        yield from (f"suites.{name}.claims.{problem}" for problem in _claim_problems(study, one))


def _hooks(name: str) -> Iterator[Callable[..., Iterator[str]]]:
    """The functions of a name that rooms' plans have."""
    for room in rooms.names():
        if hook := rooms.says(room, name):
            yield hook


def _tuning_problems(study: Study, name: str) -> Iterator[str]:
    """A setting that is scored on the training seeds that chose it: its score would be too good."""
    suite = study.suites[name]
    if suite.tuned_on is None:
        return
    if suite.tuned_on == name:
        yield (
            f"tuned_on: {name!r} is the suite itself; name another one, of other training seeds, "
            "or write `tuned_on: null`"
        )
        return
    others = [other for other in study.suites if other != name]
    if suite.tuned_on not in others:
        problem = unknown("suite", suite.tuned_on, others)
        yield f"tuned_on: {problem}; name it in `take` too, or write `tuned_on: null`"
        return
    if not set(study.suites[suite.tuned_on].measure) & set(rooms.which("SCORES")):
        measures = ", ".join(study.suites[suite.tuned_on].measure)
        yield (
            f"tuned_on: {suite.tuned_on!r} measures {measures}, "
            "which scores nothing and chooses no setting; name a "
            f"suite that measures {' or '.join(rooms.which('SCORES'))}"
        )
    mine, seen = set(study.seeds_of(name)), [name]
    other: str | None = suite.tuned_on
    # what chose the settings of the suite that chose, and so on
    while other is not None and other in study.suites:
        if other in seen:
            yield (
                f"tuned_on: {suite.tuned_on!r} is itself tuned on {other!r}, in a circle; "
                "one of them chooses first"
            )
            return
        tuned = set(study.seeds_of(other))
        if both := sorted(tuned & mine):
            yield (
                f"tuned_on: {other!r} chose settings on training seeds {sorted(tuned)}, "
                "this suite scores "
                f"them on {sorted(mine)}; seed {both[0]} would score what it has chosen, "
                "give other train_seeds"
            )
            return
        seen.append(other)
        other = study.suites[other].tuned_on


def cautions(study: Study, suites: dict[str, Resolved]) -> Iterator[str]:
    """What suites may ask for and hardly mean; once for all variants of which it is true."""
    places: dict[str, list[str]] = {}
    in_use = losses_in_use(suites)
    for name, one in suites.items():
        of_rooms = (says(study, one) for says in _hooks("cautions"))
        idle = (*idle_grids(one), *idle_deltas(one))
        lines = (*_suite_cautions(one.suite), *idle, *itertools.chain(*of_rooms))
        yield from (f"suites.{name}.{line}" for line in lines)
        yield from (
            f"suites.{name}.claims.{caution}" for caution in _claim_cautions(study, one.suite)
        )
        for variant, settings in one.variants.items():
            lines = (
                *_variant_cautions(settings, one.suite),
                *idle_losses(settings, in_use),
                *_sight_cautions(settings),
                *_taught_cautions(study, settings),
            )
            for caution in lines:
                places.setdefault(caution, []).append(f"suites.{name}.variants.{variant}")
    for caution, keys in places.items():
        more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
        yield f"{keys[0]}{more}: {caution}"


# ---------------------------------------------------------------- figures and tables


def fitting(what: str, measured: Iterable[str]) -> str:
    """Names of the figures, tables or rules that some measures can feed, in one phrase."""
    fit = sorted(name for name in rooms.shows(what) if not rooms.unfit(what, name, measured))
    return ", ".join(fit) or "none"


def _unfit(what: str, name: str, suite: Suite) -> str | None:
    """Why a figure, table or rule has nothing to read in a suite; None where it has."""
    asked = rooms.unfit(what, name, suite.measure)
    if not asked:
        return None
    kind = f"{what}s" if what == "rule" else what
    return (
        f"{what}: {name!r} needs measure {' or '.join(asked)}, this suite has "
        f"{', '.join(suite.measure)} ({kind} that fit: {fitting(what, suite.measure)})"
    )


def _output_problems(study: Study, one: Resolved) -> Iterator[str]:
    suite = one.suite
    no_fid = "fidelity" not in study.evaluation.metrics and not legal_metrics(study)[1]
    for what in ("figures", "tables"):
        for name in getattr(suite, what):
            if no_fid and name in rooms.listed(what, "SHOWS_FID"):
                yield f"{what}: {name!r} shows FID; add fidelity to evaluation.metrics"
            if problem := _unfit(what, name, suite):
                yield problem
    yield from _code_problems(one)
    yield from _restore_problems(study, one)
    yield from subset_problems(study, one.variants)
    tuned = list(tuning(suite))
    if tuned and not study.told(one.name, "sweep").halves:
        yield (
            f"sweep.halves: False: {tuned[0]} tunes on one half and scores on the other; "
            "set it to true"
        )


def _code_problems(one: Resolved) -> Iterator[str]:
    """Measures that ask for codes, or their probabilities, where a model predicts none."""
    asking = [room for room in one.suite.measure if room in rooms.which("READS_CODES")]
    for name, variant in one.variants.items() if asking else ():
        if variant.model.regresses:
            yield (
                f"variants.{name}.model.head: 'gauss' predicts no codes, and measure {asking[0]} "
                "asks for theirs; take head softmax or bits"
            )


def _restore_problems(study: Study, one: Resolved) -> Iterator[str]:
    """Models that restore where a measure gives them no degraded images, and degradations that
    cannot be."""
    others = [room for room in one.suite.measure if room not in rooms.which("RESTORES")]
    for name, variant in one.variants.items():
        if variant.model.condition == "none":
            continue
        if others:
            yield (
                f"variants.{name}.model.condition: {variant.model.condition!r}: measure "
                f"{others[0]} has no degraded images for it (measures that have: "
                f"{', '.join(rooms.which('RESTORES')) or 'none'})"
            )
        told, at = variant.restore or RestoreConfig(), f"variants.{name}.restore"
        yield from degradation_problems(at, told.degradations, told.strength, study.dataset)


def _suite_cautions(suite: Suite) -> Iterator[str]:
    for room in rooms.with_settings():
        if getattr(suite, room, None) is not None and room not in suite.measure:
            yield f"{room}: is not read, measure has no {room}"
    for name, entry in suite.variants.items():
        for key in sorted(set(entry.delta) & set(entry.grid)):
            yield f"variants.{name}.delta.{key}: is not read, the grid has its values; keep one"
    if suite.train_seeds is not None and not set(suite.measure) & set(rooms.which("TRAINS")):
        measures = " and ".join(suite.measure)
        yield f"train_seeds: {list(suite.train_seeds)}: is not read, {measures} trains no model"
    if suite.published and "scores" not in suite.tables:
        yield "published: is shown by the table scores alone, which this suite has not"


# ---------------------------------------------------------------- claims


def _claim_problems(study: Study, one: Resolved) -> Iterator[str]:
    texts = [claim.text.rstrip(" .") for claim in one.suite.claims]
    # pages tell claims of a suite apart by their text
    for text in sorted({text for text in texts if texts.count(text) > 1}):
        yield f"text: {text!r} stands twice; give each claim words of its own"
    for claim in one.suite.claims:
        which = which_claim(one.suite, claim)
        if problem := _unfit("rule", claim.rule, one.suite):
            yield problem + which
        room = rooms.shows("rule")[claim.rule]
        says = rooms.says(room, "rule_problems")
        of_rule = says(study, one, claim) if says else ()
        yield from (problem + which for problem in (*of_rule, *_class_problems(study, one, claim)))


def which_claim(suite: Suite, claim: Claim) -> str:
    """Which of a suite's claims a line is about; empty where it has one alone."""
    return f" (claim {claim.text!r})" if len(suite.claims) > 1 else ""


def score_problems(study: Study, suite: Suite, claim: Claim, swept: bool = False) -> Iterator[str]:
    """A metric that is not measured, or is claimed the wrong way round."""
    legal, own = legal_metrics(study)
    swept = swept or "scores" not in suite.measure
    if swept:
        legal = [name for name in legal if name not in COSTLY]
    name = claim.metric
    extractor = next(
        (one.name for one in study.features if name.lower().endswith(f"_{one.name}")),
        study.extractor.name,
    )
    bare = name.lower().removesuffix(f"_{extractor}")
    if name.endswith(f"_{extractor}") or not re.fullmatch(r"[a-z0-9_]+", name):
        hint = f"write {bare!r}, " if bare in legal else ""
        yield (
            f"metric: {name!r}: {hint}the name in small letters without the extractor "
            f"{extractor} (legal: {', '.join(legal)})"
        )
        return
    if name not in legal and (not own or (swept and name in COSTLY)):
        reason = (
            "; of final samples alone, by measure scores and rule score"
            if name in COSTLY and name in legal_metrics(study)[0]
            else _not_measured(study, name)
        )
        yield f"metric: {unknown('metric', name, legal)}{reason}"
    elif name in legal and better(name) is not None and claim.better != better(name):
        yield (
            f"better: {claim.better!r}: of {name} {better(name)} is better; turn the claim "
            "round, or leave better out"
        )
    elif claim.rule == "nearer" and "better" in claim.model_fields_set:
        yield (
            f"better: {claim.better!r}: rule nearer reads none, near to real images is best; "
            "remove it"
        )
    elif claim.better is None and claim.rule != "nearer":
        yield f"better: is missing; whether lower or higher is better is not known of {name!r}"


def _not_measured(study: Study, name: str) -> str:
    """Why a known score is not measured by this study."""
    maker = next((metric for metric, names in RETURNS.items() if name in names), None)
    if maker is None:
        return ""
    if maker not in study.evaluation.metrics:
        return f"; add {maker} to evaluation.metrics"
    return "; it needs classes" + (", and features of kind trained" if name not in COSTLY else "")


def token_problems(one: Resolved, claim: Claim) -> Iterator[str]:
    """Sides that predict other tokens, whose losses are of other targets, or a density."""
    first, second = one.variants.get(claim.against), one.variants.get(claim.variant)
    if first is None or second is None:
        return
    unlike = {
        "tokenizer": first.tokenizer != second.tokenizer,
        "model.patch_nums": first.model.patch_nums != second.model.patch_nums,
        "model.head": first.model.regresses != second.model.regresses,
    }
    keys = [key for key, differs in unlike.items() if differs]
    if keys:
        yield (
            f"variant: {claim.variant!r}: differs from {claim.against!r} in {' and '.join(keys)}, "
            "so that their losses are of other tokens and do not compare; claim a score, such as "
            "fid"
        )


def side_problems(one: Resolved, claim: Claim, grids: bool = False) -> Iterator[str]:
    """Sides of a claim that a rule cannot read: a grid has no value of its own, but where it is
    tuned (grids)."""
    suite, variants = one.suite, one.variants
    for key in ("variant", "against"):
        name = getattr(claim, key)
        if not grids and name not in variants and name in suite.variants:
            yield (
                f"{key}: {name!r} is a grid; name one of its variants ({some(one.members[name])})"
            )
        if grids and name not in suite.variants:
            yield (
                f"{key}: {name!r} is one variant of a grid; rule {claim.rule} compares entries "
                f"({some(suite.variants)})"
            )


def _class_problems(study: Study, one: Resolved, claim: Claim) -> Iterator[str]:
    """Scores of classes, claimed of a side without; a set without classes is one class."""
    needing = NEED_CLASSES + (WITHIN_CLASSES if study.dataset.num_classes else ())
    for key in ("variant", "against") if claim.metric in needing else ():
        name = getattr(claim, key)
        mine = [full for full in one.variants if name in (full, one.groups[full])]
        if any(one.variants[full].model.num_classes == 0 for full in mine):
            yield f"{key}: {name!r} has no classes and no {claim.metric}; claim another metric"


def some(names: Iterable[str]) -> str:
    """A few names, and whether there are more."""
    names = list(names)
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _claim_cautions(study: Study, suite: Suite) -> Iterator[str]:
    legal, own = legal_metrics(study)
    for claim in suite.claims:
        if own and claim.rule in ("score", "tuned") and claim.metric not in legal:
            yield (
                f"metric: {claim.metric!r} is none of {', '.join(legal)}; taken as a score of "
                f"{' or '.join(own)}"
            )


# ---------------------------------------------------------------- tasks and trainings


def _variant_cautions(variant: Variant, suite: Suite) -> Iterator[str]:
    """Settings of a training that do not do what they say."""
    trains, tokenizer = set(suite.measure) & set(rooms.which("TRAINS")), variant.tokenizer
    if tokenizer.weights is None and not suite.sizes_only:
        yield from _warmup_cautions("tokenizer.training", tokenizer.training, 50)
    model, training, sampler = variant.model, variant.training, variant.sampler
    if sampler.refine_scales == () and (sampler.sr_steps or sampler.refine_steps):
        yield "sampler.refine_scales: []: no scale is refined; null: all"
    elif sampler.refine_steps and all(
        sampler.passes(k, length) == 1 for k, length in enumerate(model.schedule.lengths)
    ):
        yield (
            f"sampler.refine_steps: {sampler.refine_steps}: no scale is refined, select "
            f"{sampler.select.name} makes no more passes than a scale has tokens; give "
            "refine_scales of more than one"
        )
    if training is None or not trains:
        return
    yield from _warmup_cautions("training", training, 20)
    if model.mask_prob == 0 and "mask_draws" in training.model_fields_set:
        yield (
            f"training.mask_draws: {training.mask_draws}: is not read, model.mask_prob is 0; "
            "the same training "
            "under another name"
        )
    last = model.schedule.num_scales - 1
    if model.history is not None and 1 <= last <= model.history:
        yield (
            f"model.history: {model.history}: sees all {last + 1} scales, as null does; the two "
            "are one model under two names"
        )
    if model.drop_path > 0 and model.depth == 1:
        yield (
            f"model.drop_path: {model.drop_path}: drops nothing at depth 1; the first block "
            "never drops, the last does"
        )
    if (
        training.patience is not None
        and (training.patience + 1) * training.eval_every > training.steps
    ):
        yield (
            f"training.patience: {training.patience}: never ends a training of {training.steps} "
            f"steps that is evaluated every {training.eval_every}"
        )


def _sight_cautions(variant: Variant) -> Iterator[str]:
    """A perceptual loss of images so small that the network sees next to nothing: it halves a side
    five times."""
    spec = variant.tokenizer
    side = spec.training.perceptual_size
    if spec.weights is None and spec.training.perceptual and side is not None and side < 32:
        yield (
            f"tokenizer.training.perceptual_size: {side}: the network halves a side five times; "
            "give 32 or more"
        )


def _taught_cautions(study: Study, variant: Variant) -> Iterator[str]:
    """Extractors that a tokenizer is trained on, and which then judge it."""
    spec = variant.tokenizer
    if spec.weights is not None or not spec.training.perceptual:
        return
    for at, features in study.extractors.items():
        if features.network == spec.training.perceptual_network:
            beside = (
                "read another extractor beside it" if len(study.features) > 1 else "add another"
            )
            yield (
                f"tokenizer.training.perceptual: {spec.training.perceptual:g}: trains it on the "
                f"network of {at} ({features.name}), which is then no independent evaluator of its "
                f"reconstruction; {beside}"
            )


def _warmup_cautions(
    key: str, training: TrainingConfig | TokenizerTraining, usual: int
) -> Iterator[str]:
    if "warmup" not in training.model_fields_set and training.warmup < usual:
        yield (
            f"{key}.warmup: {training.warmup} instead of the usual {usual} steps, the training "
            f"has {training.steps}; "
            "say how many to be sure"
        )
