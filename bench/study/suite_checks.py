"""What a study's suites ask for and cannot get, found before any work: figures without numbers,
claims that nothing can decide.

Each check yields one line, `key: what is wrong and what to do`. Problems are refused; cautions
are said and the study runs.
Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from srdd.lookup import unknown

from .checks import COSTLY, MIN_IMAGES, NEED_CLASSES, RETURNS, SCORED, TRAINED, legal_metrics
from .scores import better

if TYPE_CHECKING:
    from .schema import Claim, Study, Suite, Variant
    from .settings import TokenizerTraining, TrainingConfig

# measures, one of which a figure needs; a figure of one's own has no entry and may read anything
FIGURES = {
    "samples": ("scores", "convergence"),
    "growth": ("scores", "convergence"),
    "fid": SCORED,
    "per_scale": TRAINED,
    "code_usage": TRAINED,
    "convergence": ("convergence",),
    "latency": ("latency",),
    "floors": ("latency",),
    "equivalence": ("equivalence",),
    "snr": ("snr",),
    "guidance": SCORED,
    "refine_steps": SCORED,
    "heat_maps": SCORED,
    "distillation": SCORED,
    "zero_shot": ("zero_shot",),
    "zero_shot_strips": ("zero_shot",),
    "error_propagation": ("error_propagation",),
}
TABLES = {
    "scores": SCORED,
    "costs": SCORED,
    "tokenizer": TRAINED,
    "latency": ("latency",),
    "equivalence": ("equivalence",),
    "guidance": ("sweep",),
    "sampling_probability": ("sweep",),
    "claims": (),  # of all suites
    "distillation": SCORED,
    "zero_shot": ("zero_shot",),
    "error_propagation": ("error_propagation",),
}
RULES = {
    "score": SCORED,
    "nearer": SCORED,
    "tuned": ("sweep",),
    "latency": ("latency",),
    "memory": ("latency",),
    "convergence": TRAINED,
    "equal": ("equivalence",),
}
READ_FID = {
    "figures": ("fid", "guidance", "refine_steps", "heat_maps", "distillation"),
    "tables": ("scores", "guidance", "distillation"),
}
# gaps that are 0 where two losses are equal
GAPS = ("elbo_relative_gap", "elbo_token_gap", "path_kl", "path_kl_equal_state")


@dataclass(frozen=True)
class Resolved:
    """A suite with its variants in full, and the name of the entry that each one comes from."""

    suite: Suite
    variants: dict[str, Variant]
    groups: dict[str, str]


def problems(study: Study, suites: dict[str, Resolved]) -> Iterator[str]:
    """Why suites cannot give what they ask for."""
    for name, one in suites.items():
        found = (*_tuning_problems(study, name), *_output_problems(study, one), *_sampler_problems(one), *_zero_shot_problems(one))
        yield from (f"suites.{name}.{problem}" for problem in found)
        yield from (f"suites.{name}.claims.{problem}" for problem in _claim_problems(study, one))


def _tuning_problems(study: Study, name: str) -> Iterator[str]:
    """A setting that is scored on the training seeds that chose it: its score would be too good."""
    suite = study.suites[name]
    if suite.tuned_on is None:
        return
    others = [other for other in study.suites if other != name]
    if suite.tuned_on not in others:
        yield "tuned_on: " + unknown("suite", suite.tuned_on, others)
        return
    if not set(study.suites[suite.tuned_on].measure) & set(SCORED):
        measures = ", ".join(study.suites[suite.tuned_on].measure)
        yield (
            f"tuned_on: {suite.tuned_on!r} measures {measures}, which scores nothing and chooses no setting; name a "
            f"suite that measures {' or '.join(SCORED)}"
        )
    mine, seen, other = set(suite.train_seeds or study.train_seeds), [name], suite.tuned_on
    while other in study.suites:  # what chose the settings of the suite that chose, and so on
        if other in seen:
            yield f"tuned_on: {suite.tuned_on!r} is itself tuned on {other!r}, in a circle; one of them chooses first"
            return
        tuned = set(study.suites[other].train_seeds or study.train_seeds)
        if both := sorted(tuned & mine):
            yield (
                f"tuned_on: {other!r} chose settings on training seeds {sorted(tuned)}, this suite scores "
                f"them on {sorted(mine)}; seed {both[0]} would score what it has chosen, give other train_seeds"
            )
            return
        seen.append(other)
        other = study.suites[other].tuned_on


def cautions(study: Study, suites: dict[str, Resolved]) -> Iterator[str]:
    """What suites may ask for and hardly mean; once for all variants of which it is true."""
    places: dict[str, list[str]] = {}
    for name, one in suites.items():
        yield from (f"suites.{name}.{caution}" for caution in _suite_cautions(one.suite))
        yield from (
            f"suites.{name}.claims.{caution}" for caution in _claim_cautions(study, one.suite)
        )
        for variant, settings in one.variants.items():
            for caution in _variant_cautions(settings, one.suite):
                places.setdefault(caution, []).append(f"suites.{name}.variants.{variant}")
    for caution, found in places.items():
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        yield f"{found[0]}{more}: {caution}"


# ---------------------------------------------------------------- figures and tables


def fitting(needs: dict[str, tuple[str, ...]], measures: Iterable[str]) -> list[str]:
    """Names of the figures, tables or rules that some measures can feed."""
    return sorted(
        name for name, any_of in needs.items() if not any_of or set(any_of) & set(measures)
    )


def _output_problems(study: Study, one: Resolved) -> Iterator[str]:
    suite = one.suite
    if "fidelity" not in study.evaluation.metrics and not legal_metrics(study)[1]:
        for what, readers in READ_FID.items():
            for name in set(readers) & set(getattr(suite, what)):
                yield f"{what}: {name!r} shows FID; add fidelity to evaluation.metrics"
    for what, needs in (("figures", FIGURES), ("tables", TABLES)):
        for name in getattr(suite, what):
            any_of = needs.get(name, ())
            if any_of and not set(any_of) & set(suite.measure):
                yield (
                    f"{what}: {name!r} needs measure {' or '.join(any_of)}, this suite has "
                    f"{', '.join(suite.measure)} "
                    f"({what} that fit: {', '.join(fitting(needs, suite.measure)) or 'none'})"
                )
    if not suite.sweep.halves:
        tuned = [f"{what}: 'guidance'" for what in ("figures", "tables") if "guidance" in getattr(suite, what)]
        tuned += ["claims: rule 'tuned'" for claim in suite.claims if claim.rule == "tuned"]
        if tuned:
            yield f"sweep.halves: False: {tuned[0]} tunes on one half and scores on the other; set it to true"
    if "per_scale" in suite.figures and all(
        variant.training is None for variant in one.variants.values()
    ):
        yield (
            "figures: 'per_scale' needs losses of a training, every variant here is imported; "
            "remove it"
        )


def _sampler_problems(one: Resolved) -> Iterator[str]:
    """Figures and tables that need samplers which differ in a certain way."""
    suite, samplers = one.suite, [variant.sampler for variant in one.variants.values()]
    if "guidance" in suite.figures and all(sampler.cfg_scale == 1 for sampler in samplers):
        yield (
            "figures: 'guidance' needs variants with sampler.cfg_scale other than 1; add a grid of "
            "them"
        )
    if "distillation" in suite.figures and not any(entry.grid for entry in suite.variants.values()):
        yield (
            "figures: 'distillation' shows the variants of grids; give one a grid of "
            "model.patch_nums"
        )
    if "sampling_probability" in suite.tables and not suite.sweep.thresholds:
        yield "tables: 'sampling_probability' needs sweep.thresholds, such as [0.05, 0.1]"
    if "sampling_probability" in suite.tables and not any(
        sampler.draws_once for sampler in samplers
    ):
        yield (
            "tables: 'sampling_probability' needs a variant that draws each token once "
            "(sr_steps 0, refine_steps 0)"
        )
    if "heat_maps" in suite.figures:
        yield from _heat_map_problems(one)


def _heat_map_problems(one: Resolved) -> Iterator[str]:
    """A heat map is a group whose variants differ in p_resample and refine_steps alone: else
    several would share a cell."""
    maps = 0
    for name, entry in one.suite.variants.items():
        mine = [
            variant.sampler for full, variant in one.variants.items() if one.groups[full] == name
        ]
        if len(mine) < 2 or not all(sampler.refine_steps for sampler in mine):
            continue
        maps += 1
        if len({(sampler.p_resample, sampler.refine_steps) for sampler in mine}) < len(mine):
            yield (
                f"figures: 'heat_maps': variants of {name!r} differ in more than "
                "sampler.p_resample and sampler.refine_steps "
                f"(grid: {', '.join(entry.grid)}) and would share a cell; give each its own entry"
            )
    if not maps:
        yield (
            "figures: 'heat_maps' needs a grid of sampler.p_resample and sampler.refine_steps, "
            "each 1 or more; add one"
        )


def _suite_cautions(suite: Suite) -> Iterator[str]:
    if "refine_steps" in suite.figures and "latency" not in suite.measure:
        yield "figures: 'refine_steps': its panel of times stays empty; add latency to measure"
    for key in ("sweep", "equivalence", "snr", "zero_shot", "error_propagation", "latency"):
        if (
            key in suite.model_fields_set
            and getattr(suite, key) is not None
            and key not in suite.measure
        ):
            yield f"{key}: is not read, measure has no {key}"
    for name, entry in suite.variants.items():
        for key in sorted(set(entry.delta) & set(entry.grid)):
            yield f"variants.{name}.delta.{key}: is not read, the grid has its values; keep one"
    if suite.train_seeds is not None and set(suite.measure) <= {"latency", "snr"}:
        measures = " and ".join(suite.measure)
        yield f"train_seeds: {list(suite.train_seeds)}: is not read, {measures} trains no model"
    if "equivalence" in suite.tables and 0.0 not in suite.equivalence.eps:
        yield (
            f"equivalence.eps: {list(suite.equivalence.eps)}: has no 0, the table's column of "
            "the ELBO without noise stays empty"
        )
    if suite.published and "scores" not in suite.tables:
        yield "published: is shown by the table scores alone, which this suite has not"


# ---------------------------------------------------------------- claims


def _claim_problems(study: Study, one: Resolved) -> Iterator[str]:
    suite = one.suite
    for claim in suite.claims:
        any_of = RULES.get(claim.rule, ())
        if any_of and not set(any_of) & set(suite.measure):
            yield (
                f"rule: {claim.rule!r} needs measure {' or '.join(any_of)}, this suite has "
                f"{', '.join(suite.measure)} "
                f"(rules that fit: {', '.join(fitting(RULES, suite.measure)) or 'none'})"
            )
        elif claim.rule in ("score", "tuned", "nearer"):
            yield from _score_problems(study, suite, claim)
        elif claim.rule == "equal" and "better" in claim.model_fields_set:
            yield f"better: {claim.better!r}: rule equal reads none; remove it"
        elif claim.rule == "equal" and claim.metric not in GAPS:
            yield (
                "metric: "
                + unknown("gap", claim.metric, GAPS)
                + "; rule equal asks whether a gap is 0"
            )
        elif claim.rule == "memory" and "metric" in claim.model_fields_set:
            if claim.metric != "pipeline":
                yield (
                    f"metric: {claim.metric!r}: rule memory reads 'pipeline' alone, the peak of weights, "
                    "sampler and decoder; leave it out for the sampler's working memory"
                )
        elif claim.rule in ("latency", "convergence") and "metric" in claim.model_fields_set:
            yield f"metric: {claim.metric!r}: rule {claim.rule} reads none; remove it"
        if claim.rule in ("score", "tuned", "nearer", "latency", "memory", "equal", "convergence"):
            yield from _side_problems(one, claim)


def _score_problems(study: Study, suite: Suite, claim: Claim) -> Iterator[str]:
    """A metric that is not measured, or is claimed the wrong way round."""
    legal, own = legal_metrics(study)
    swept = claim.rule == "tuned" or "scores" not in suite.measure
    if swept:
        legal = [name for name in legal if name not in COSTLY]
    suffix, name = f"_{study.features.name}", claim.metric
    bare = name.lower().removesuffix(suffix)
    if name.endswith(suffix) or not re.fullmatch(r"[a-z0-9_]+", name):
        hint = f"write {bare!r}, " if bare in legal else ""
        yield (
            f"metric: {name!r}: {hint}the name in small letters without the extractor "
            f"{study.features.name} (legal: {', '.join(legal)})"
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
        yield f"better: {claim.better!r}: rule nearer reads none, near to real images is best; remove it"
    elif claim.better is None and claim.rule != "nearer":
        yield f"better: is missing; whether lower or higher is better is not known of {name!r}"
    if claim.rule == "tuned" and study.evaluation.num_images < 2 * MIN_IMAGES:
        yield (
            "rule: 'tuned' tunes on one half of the images and scores on the other; raise "
            "evaluation.num_images from "
            f"{study.evaluation.num_images} to {2 * MIN_IMAGES} or more"
        )


def _not_measured(study: Study, name: str) -> str:
    """Why a known score is not measured by this study."""
    maker = next((metric for metric, names in RETURNS.items() if name in names), None)
    if maker is None:
        return ""
    if maker not in study.evaluation.metrics:
        return f"; add {maker} to evaluation.metrics"
    return "; it needs classes" + (", and features of kind trained" if name not in COSTLY else "")


def _side_problems(one: Resolved, claim: Claim) -> Iterator[str]:
    """Sides of a claim that a rule cannot read: a grid has no number of its own, but where it is
    tuned."""
    suite, variants = one.suite, one.variants
    for key in ("variant", "against"):
        name = getattr(claim, key)
        if claim.rule != "tuned" and name not in variants and name in suite.variants:
            yield (
                f"{key}: {name!r} is a grid; name one of its variants "
                f"({_some(v for v in variants if one.groups[v] == name)})"
            )
        if claim.rule == "tuned" and name not in suite.variants:
            yield (
                f"{key}: {name!r} is one variant of a grid; rule tuned compares entries "
                f"({_some(suite.variants)})"
            )
        mine = [full for full in variants if name in (full, one.groups[full])]
        scored = claim.rule in ("score", "tuned", "nearer") and claim.metric in NEED_CLASSES
        if scored and any(variants[full].model.num_classes == 0 for full in mine):
            yield f"{key}: {name!r} has no classes and no {claim.metric}; claim another metric"
        if claim.rule == "convergence" and name in variants and variants[name].training is None:
            yield f"{key}: {name!r} is imported, no training is compared; use another rule"


def _some(names: Iterable[str]) -> str:
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


def _zero_shot_problems(one: Resolved) -> Iterator[str]:
    """Boxes without a token of the finest grid, or with all: known from the sizes alone."""
    suite, variants = one.suite, one.variants
    if "zero_shot" not in suite.measure:
        return
    for name, variant in variants.items():
        if variant.tokenizer.config.image_size < 3:
            yield (
                f"measure: zero_shot needs images of 3 pixels or more, {name!r} has "
                f"{variant.tokenizer.config.image_size}"
            )
        for task in ("inpaint", "outpaint"):
            box, size = getattr(suite.zero_shot, task), variant.model.schedule.latent_size
            if box is None:
                continue
            top, left, bottom, right = (round(share * size) for share in box)
            cells = (bottom - top) * (right - left)
            if cells in (0, size * size):
                held = "no token" if not cells else "all tokens"
                yield (
                    f"zero_shot.{task}: {list(box)}: holds {held} of the {size}x{size} grid of "
                    f"{name!r}; move its edges"
                )
    if not (suite.zero_shot.inpaint or suite.zero_shot.outpaint):
        if all(variant.model.schedule.num_scales == 1 for variant in variants.values()):
            yield (
                "zero_shot.super_resolution: needs a schedule of 2 scales or more, or another task"
            )


def _variant_cautions(variant: Variant, suite: Suite) -> Iterator[str]:
    """Settings of a training that do not do what they say."""
    trains, tokenizer = set(suite.measure) & set(TRAINED), variant.tokenizer
    if tokenizer.weights is None and set(suite.measure) != {"latency"}:
        yield from _warmup_cautions("tokenizer.training", tokenizer.training, 50)
    model, training, sampler = variant.model, variant.training, variant.sampler
    if sampler.refine_scales == () and (sampler.sr_steps or sampler.refine_steps):
        yield "sampler.refine_scales: []: no scale is refined; null: all"
    if training is None or not trains:
        return
    yield from _warmup_cautions("training", training, 20)
    if model.mask_prob == 0 and "mask_draws" in training.model_fields_set:
        yield (
            f"training.mask_draws: {training.mask_draws}: is not read, model.mask_prob is 0; the same training "
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
            "steps that looks every "
            f"{training.eval_every}"
        )
    if "convergence" in suite.measure and training.snapshot_every >= training.steps:
        yield (
            f"training.snapshot_every: {training.snapshot_every}: gives one point along "
            f"{training.steps} steps, no curve; give less"
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
