"""What a study's parts must be for each other, found before any work: figures without numbers, claims that nothing can decide,
fewer images than a score needs. Imports no torch.

Each check yields one line, `key: what is wrong and what to do`. `problems` are refused; `cautions` are said and the study runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from srdd.lookup import unknown

from .scores import better

if TYPE_CHECKING:
    from .config import Claim, FeaturesConfig, Study, Suite, TokenizerTraining, TrainingConfig, Variant

MIN_IMAGES = 100  # fewer say nothing: a score refuses them


@dataclass(frozen=True)
class Resolved:
    """A suite with its variants in full, and the name of the entry that each one comes from."""

    suite: Suite
    variants: dict[str, Variant]
    groups: dict[str, str]


# ---------------------------------------------------------------- what reads which numbers

SCORED = ("scores", "sweep")
TRAINED = ("scores", "sweep", "convergence", "equivalence", "zero_shot", "error_propagation")
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
    "tuned": ("sweep",),
    "latency": ("latency",),
    "memory": ("latency",),
    "convergence": TRAINED,
    "equal": ("equivalence",),
}
# names that the metrics of bench/metrics.py return, without the extractor
RETURNS = {"fidelity": ("fid", "kid", "is", "precision", "recall"), "class_agreement": ("class_agreement",)}
GAPS = ("elbo_relative_gap", "elbo_token_gap", "path_kl", "path_kl_equal_state")
# images of the sets that are known before they are read: train, test (None: a share of train), side, channels
KNOWN_SETS = {"digits": (1797, None, 8, 1), "fashion_mnist": (60_000, 10_000, 28, 1)}
ONLY_TRAINED = ("channels", "steps", "batch_size", "lr", "seed")


def early_problems(study: Study) -> Iterator[str]:
    """Why a study cannot give what it asks for, whatever its variants are."""
    yield from _features_problems(study)
    yield from _dataset_problems(study)
    yield from _image_problems(study)


def problems(study: Study, suites: dict[str, Resolved]) -> Iterator[str]:
    """Why suites cannot give what they ask for."""
    for name, one in suites.items():
        for check in (_output_problems, _sampler_problems, _zero_shot_problems):
            yield from (f"suites.{name}.{problem}" for problem in check(one))
        yield from (f"suites.{name}.claims.{problem}" for problem in _claim_problems(study, one))


def cautions(study: Study, suites: dict[str, Resolved]) -> Iterator[str]:
    """What a study may do and hardly means; once for all variants of which it is true."""
    yield from _features_cautions(study)
    yield from _dataset_cautions(study)
    places: dict[str, list[str]] = {}
    for name, one in suites.items():
        yield from (f"suites.{name}.{caution}" for caution in _suite_cautions(one.suite))
        yield from (f"suites.{name}.claims.{caution}" for caution in _claim_cautions(study, one.suite))
        for variant, settings in one.variants.items():
            for caution in _variant_cautions(settings, one.suite):
                places.setdefault(caution, []).append(f"suites.{name}.variants.{variant}")
    for caution, found in places.items():
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        yield f"{found[0]}{more}: {caution}"


# ---------------------------------------------------------------- features


def _features_problems(study: Study) -> Iterator[str]:
    features = study.features
    if features.kind == "inception":
        for key in ONLY_TRAINED:
            if key in features.model_fields_set:
                yield f"features.{key}: {getattr(features, key)}: only for kind: trained; remove it"
    if features.weights is not None and features.sha256 is None:
        yield "features.sha256: is missing; weights given by path are checked before they are read"
    for key, owner in {"sha256": "weights", "reference_sha256": "reference"}.items():
        if getattr(features, key) is not None and getattr(features, owner) is None:
            yield f"features.{key}: is the sum of no file; give features.{owner}, or remove it"


def _features_cautions(study: Study) -> Iterator[str]:
    features, dim = study.features, study.features.dim
    if features.kind == "inception" and dim != 2048:
        yield f"features.dim: {dim}: a layer of Inception-v3 below the one that FID is published for, 2048; not comparable with others"
    sizes = {"evaluation.num_images": study.evaluation.num_images} if scored(study) else {}
    for name, suite in study.suites.items():
        for key in ("zero_shot", "error_propagation"):
            if key in suite.measure:
                sizes[f"suites.{name}.{key}.num_images"] = getattr(suite, key).num_images
    for key, count in sizes.items():
        if count < dim:
            yield f"{key}: {count}: {_too_few_for(features)}; give {dim + 1} or more, or a smaller features.dim"


def _too_few_for(features: FeaturesConfig) -> str:
    return f"fewer images than the {features.dim} features: their covariance is singular and FID is biased"


# ---------------------------------------------------------------- images


def scored(study: Study) -> bool:
    """Whether any suite generates images of which scores are taken."""
    return any({*SCORED, "convergence"} & set(suite.measure) for suite in study.suites.values())


def needs_of(study: Study) -> dict[str, int]:
    """Images that each split must have for what a study measures, at least 1: known before the first job, compared by `prepare`."""
    measures = {measure for suite in study.suites.values() for measure in suite.measure}
    trains = bool(measures & set(TRAINED))
    # the test split is the reference of all scores, but where a file with images of its own is
    test = MIN_IMAGES if trains and (not study.features.reference or measures & {"zero_shot"}) else 1
    return {"train": MIN_IMAGES if trains else 1, "val": 1, "test": test}


def enough_images(counts: dict[str, int], needs: dict[str, int], about: str = "") -> str | None:
    """Why splits of so many images are too small, as `key: what and remedy`; None where they are not. needs: of `needs_of`; about:
    where the counts come from, for the line."""
    keys = {"test": "test_share", "val": "val_share", "train": "train_images"}
    short = [split for split in keys if counts.get(split, 0) < needs.get(split, 1)]
    if not short:
        return None
    words = ", ".join(f"{split} has {counts.get(split, 0)} images and needs {needs.get(split, 1)}" for split in short)
    return f"dataset.{keys[short[0]]}: {about}{words}: scores need {MIN_IMAGES} on every side; give more images or other shares"


def few_for_features(counts: dict[str, int], features: FeaturesConfig) -> str | None:
    """What to say of splits with fewer images than features; None where there is nothing to say."""
    small = [f"{split} {counts[split]}" for split in ("train", "test") if counts.get(split, features.dim) < features.dim]
    return f"dataset: {', '.join(small)}: {_too_few_for(features)}" if small else None


def known_counts(study: Study) -> dict[str, int] | None:
    """Images of each split of a set whose size is known, up to the chance of its hash; None for other sets."""
    data = study.dataset
    if data.name not in KNOWN_SETS:
        return None
    whole, test, _, _ = KNOWN_SETS[data.name]
    if test is None:
        test = whole * data.test_share
        whole -= test
    train = whole * (1 - data.val_share)
    if data.train_images is not None:
        train = min(train, data.train_images)
    return {"train": round(train), "val": round(whole * data.val_share), "test": round(test)}


def _image_problems(study: Study) -> Iterator[str]:
    counts, needs = known_counts(study), needs_of(study)
    if study.dataset.train_images is not None and study.dataset.train_images < needs["train"]:
        yield (
            f"dataset.train_images: {study.dataset.train_images}: the baseline of every score takes {needs['train']} training images "
            "or more; raise it"
        )
    if counts and (problem := enough_images(counts, needs, f"of {study.dataset.name} about: ")):
        yield problem
    halves = [name for name, suite in study.suites.items() if "guidance" in suite.tables]
    if halves and study.evaluation.num_images < 2 * MIN_IMAGES:
        yield (
            f"evaluation.num_images: {study.evaluation.num_images}: table guidance of {halves[0]!r} tunes on one half and scores on the "
            f"other; give {2 * MIN_IMAGES} or more"
        )


def _dataset_problems(study: Study) -> Iterator[str]:
    data = study.dataset
    if data.name in KNOWN_SETS:
        _, _, side, channels = KNOWN_SETS[data.name]
        if data.channels != channels:
            yield f"dataset.channels: {data.channels}: {data.name} has {channels}"
        if data.image_size < side:
            yield f"dataset.image_size: {data.image_size}: is smaller than the {side} pixels of {data.name}; give {side} or more"
    reads = any(suite.measure != ("latency",) for suite in study.suites.values())
    if data.name == "image_folder" and data.path is None and reads:
        yield "dataset.path: is missing; image_folder needs the folder of the images"


def _dataset_cautions(study: Study) -> Iterator[str]:
    data = study.dataset
    if data.name == "digits" and data.path is not None:
        yield f"dataset.path: {data.path}: is not read, digits come with scikit-learn"
    if data.name == "fashion_mnist" and "test_share" in data.model_fields_set:
        yield f"dataset.test_share: {data.test_share}: is not read, fashion_mnist has a test part of its own"
    counts = known_counts(study)
    if counts and scored(study) and (caution := few_for_features(counts, study.features)):
        yield caution


# ---------------------------------------------------------------- figures and tables


def fitting(needs: dict[str, tuple[str, ...]], measures: Iterable[str]) -> list[str]:
    """Names of the figures, tables or rules that some measures can feed."""
    return sorted(name for name, any_of in needs.items() if not any_of or set(any_of) & set(measures))


def _output_problems(one: Resolved) -> Iterator[str]:
    suite = one.suite
    for what, needs in (("figures", FIGURES), ("tables", TABLES)):
        for name in getattr(suite, what):
            any_of = needs.get(name, ())
            if any_of and not set(any_of) & set(suite.measure):
                yield (
                    f"{what}: {name!r} needs measure {' or '.join(any_of)}, this suite has {', '.join(suite.measure)} "
                    f"({what} that fit: {', '.join(fitting(needs, suite.measure)) or 'none'})"
                )
    if "per_scale" in suite.figures and all(variant.training is None for variant in one.variants.values()):
        yield "figures: 'per_scale' needs losses of a training, every variant here is imported; remove it"


def _sampler_problems(one: Resolved) -> Iterator[str]:
    """Figures and tables that need samplers which differ in a certain way."""
    suite, samplers = one.suite, [variant.sampler for variant in one.variants.values()]
    if "guidance" in suite.figures and all(sampler.cfg_scale == 1 for sampler in samplers):
        yield "figures: 'guidance' needs variants with sampler.cfg_scale above 1; add a grid of them"
    if "distillation" in suite.figures and not any(entry.grid for entry in suite.variants.values()):
        yield "figures: 'distillation' shows the variants of grids; give one a grid of model.patch_nums"
    if "sampling_probability" in suite.tables and not suite.sweep.thresholds:
        yield "tables: 'sampling_probability' needs sweep.thresholds, such as [0.05, 0.1]"
    if "sampling_probability" in suite.tables and all(sampler.refine_steps or sampler.sr_steps for sampler in samplers):
        yield "tables: 'sampling_probability' needs a variant that draws each token once (sr_steps 0, refine_steps 0)"
    if "heat_maps" in suite.figures:
        yield from _heat_map_problems(one)


def _heat_map_problems(one: Resolved) -> Iterator[str]:
    """A heat map is a group whose variants differ in p_resample and refine_steps alone: else several would share a cell."""
    maps = 0
    for name, entry in one.suite.variants.items():
        mine = [variant.sampler for full, variant in one.variants.items() if one.groups[full] == name]
        if len(mine) < 2 or not all(sampler.refine_steps for sampler in mine):
            continue
        maps += 1
        if len({(sampler.p_resample, sampler.refine_steps) for sampler in mine}) < len(mine):
            yield (
                f"figures: 'heat_maps': variants of {name!r} differ in more than sampler.p_resample and sampler.refine_steps "
                f"(grid: {', '.join(entry.grid)}) and would share a cell; give each its own entry"
            )
    if not maps:
        yield "figures: 'heat_maps' needs a grid of sampler.p_resample and sampler.refine_steps, each 1 or more; add one"


def _suite_cautions(suite: Suite) -> Iterator[str]:
    if "refine_steps" in suite.figures and "latency" not in suite.measure:
        yield "figures: 'refine_steps': its panel of times stays empty; add latency to measure"
    for key in ("sweep", "equivalence", "snr", "zero_shot", "error_propagation", "latency"):
        if key in suite.model_fields_set and getattr(suite, key) is not None and key not in suite.measure:
            yield f"{key}: is not read, measure has no {key}"
    if suite.published and "scores" not in suite.tables:
        yield "published: is shown by the table scores alone, which this suite has not"


# ---------------------------------------------------------------- claims


def legal_metrics(study: Study) -> tuple[list[str], list[str]]:
    """Names of the scores that a study's metrics give, and its metrics that are not known here: those may give any name."""
    data, features = study.dataset, study.features
    own = [name for name in study.evaluation.metrics if name not in RETURNS]
    found = [key for name in study.evaluation.metrics for key in RETURNS.get(name, ())]
    if features.kind == "inception" or data.num_classes == 0:  # nobody knows classes
        found = [name for name in found if name != "class_agreement"]
    return found, own


def _claim_problems(study: Study, one: Resolved) -> Iterator[str]:
    suite = one.suite
    for claim in suite.claims:
        any_of = RULES.get(claim.rule, ())
        if any_of and not set(any_of) & set(suite.measure):
            yield (
                f"rule: {claim.rule!r} needs measure {' or '.join(any_of)}, this suite has {', '.join(suite.measure)} "
                f"(rules that fit: {', '.join(fitting(RULES, suite.measure)) or 'none'})"
            )
        elif claim.rule in ("score", "tuned"):
            yield from _score_problems(study, claim)
        elif claim.rule == "equal" and claim.metric not in GAPS:
            yield "metric: " + unknown("gap", claim.metric, GAPS) + "; rule equal asks whether a gap is 0"
        elif claim.rule in ("latency", "memory", "convergence") and "metric" in claim.model_fields_set:
            yield f"metric: {claim.metric!r}: rule {claim.rule} reads none; remove it"
        if claim.rule in ("score", "tuned", "latency", "memory", "equal", "convergence"):
            yield from _side_problems(one, claim)


def _score_problems(study: Study, claim: Claim) -> Iterator[str]:
    """A metric that is not measured, or is claimed the wrong way round."""
    legal, own = legal_metrics(study)
    if claim.rule == "tuned":  # parts of the seeds are scored without it
        legal = [name for name in legal if name != "kid"]
    suffix, name = f"_{study.features.name}", claim.metric
    bare = name.lower().removesuffix(suffix)
    if name.endswith(suffix) or not re.fullmatch(r"[a-z0-9_]+", name):
        hint = f"write {bare!r}, " if bare in legal else ""
        yield f"metric: {name!r}: {hint}the name in small letters without the extractor {study.features.name} (legal: {', '.join(legal)})"
        return
    if name not in legal and (not own or (claim.rule == "tuned" and name == "kid")):
        reason = "; not scored on halves of the seeds" if name == "kid" else _not_measured(study, name)
        yield f"metric: {unknown('metric', name, legal)}{reason}"
    elif name in legal and claim.better != better(name):
        yield f"better: {claim.better!r}: of {name} {better(name)} is better; turn the claim round, or leave better out"
    elif claim.better is None:
        yield f"better: is missing; whether lower or higher is better is not known of {name!r}"
    if claim.rule == "tuned" and study.evaluation.num_images < 2 * MIN_IMAGES:
        yield (
            f"rule: 'tuned' tunes on one half of the images and scores on the other; raise evaluation.num_images from "
            f"{study.evaluation.num_images} to {2 * MIN_IMAGES} or more"
        )


def _not_measured(study: Study, name: str) -> str:
    """Why a known score is not measured by this study."""
    maker = next((metric for metric, names in RETURNS.items() if name in names), None)
    if maker is None:
        return ""
    if maker not in study.evaluation.metrics:
        return f"; add {maker} to evaluation.metrics"
    return "; it needs classes and features of kind trained"


def _side_problems(one: Resolved, claim: Claim) -> Iterator[str]:
    """Sides of a claim that a rule cannot read: a grid has no number of its own, but where it is tuned."""
    suite, variants = one.suite, one.variants
    for key in ("variant", "against"):
        name = getattr(claim, key)
        if claim.rule != "tuned" and name not in variants and name in suite.variants:
            yield f"{key}: {name!r} is a grid; name one of its variants ({_some(v for v in variants if one.groups[v] == name)})"
        if claim.rule == "tuned" and name not in suite.variants:
            yield f"{key}: {name!r} is one variant of a grid; rule tuned compares entries ({_some(suite.variants)})"
        if claim.rule == "convergence" and name in variants and variants[name].training is None:
            yield f"{key}: {name!r} is imported, no training is compared; use another rule"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _claim_cautions(study: Study, suite: Suite) -> Iterator[str]:
    legal, own = legal_metrics(study)
    for claim in suite.claims:
        if own and claim.rule in ("score", "tuned") and claim.metric not in legal:
            yield f"metric: {claim.metric!r} is none of {', '.join(legal)}; taken as a score of {' or '.join(own)}"


# ---------------------------------------------------------------- tasks and trainings


def _zero_shot_problems(one: Resolved) -> Iterator[str]:
    """Boxes without a token of the finest grid, or with all: known from the sizes alone."""
    suite, variants = one.suite, one.variants
    if "zero_shot" not in suite.measure:
        return
    for name, variant in variants.items():
        if variant.tokenizer.config.image_size < 3:
            yield f"measure: zero_shot needs images of 3 pixels or more, {name!r} has {variant.tokenizer.config.image_size}"
        for task in ("inpaint", "outpaint"):
            box, size = getattr(suite.zero_shot, task), variant.model.schedule.latent_size
            if box is None:
                continue
            top, left, bottom, right = (round(share * size) for share in box)
            cells = (bottom - top) * (right - left)
            if cells in (0, size * size):
                held = "no token" if not cells else "all tokens"
                yield f"zero_shot.{task}: {list(box)}: holds {held} of the {size}x{size} grid of {name!r}; move its edges"
    if not (suite.zero_shot.inpaint or suite.zero_shot.outpaint):
        if all(variant.model.schedule.num_scales == 1 for variant in variants.values()):
            yield "zero_shot.super_resolution: needs a schedule of 2 scales or more, or another task"


def _variant_cautions(variant: Variant, suite: Suite) -> Iterator[str]:
    """Settings of a training that do not do what they say."""
    trains, tokenizer = set(suite.measure) & set(TRAINED), variant.tokenizer
    if tokenizer.weights is None and set(suite.measure) != {"latency"}:
        yield from _warmup_cautions("tokenizer.training", tokenizer.training, 50)
    model, training = variant.model, variant.training
    if training is None or not trains:
        return
    yield from _warmup_cautions("training", training, 20)
    if model.drop_path > 0 and model.depth == 1:
        yield f"model.drop_path: {model.drop_path}: drops nothing at depth 1; the first block never drops, the last does"
    if training.patience is not None and (training.patience + 1) * training.eval_every > training.steps:
        yield (
            f"training.patience: {training.patience}: never ends a training of {training.steps} steps that looks every "
            f"{training.eval_every}"
        )
    if "convergence" in suite.measure and training.snapshot_every >= training.steps:
        yield f"training.snapshot_every: {training.snapshot_every}: gives one point along {training.steps} steps, no curve; give less"


def _warmup_cautions(key: str, training: TrainingConfig | TokenizerTraining, usual: int) -> Iterator[str]:
    if "warmup" not in training.model_fields_set and training.warmup < usual:
        yield (
            f"{key}.warmup: {training.warmup} instead of the usual {usual} steps, the training has {training.steps}; "
            "say how many to be sure"
        )
