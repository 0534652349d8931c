"""What a study's data, features and scores must be for each other, found before any work.
Imports no torch.

Each check yields one line, `key: what is wrong and what to do`. Problems are refused; cautions
are said and the study runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import emoji_files, rooms
from .contents import FOLDERS
from .pretrained import PRETRAINED
from .scores import EVALUATORS

if TYPE_CHECKING:
    from .schema import Study, Suite
    from .settings import FeaturesConfig

MIN_IMAGES = 100  # fewer say nothing: a score refuses them


# ---------------------------------------------------------------- what reads which numbers

# names of the scores that the metrics of bench/pipeline/metrics.py give, without the extractor
RETURNS = {
    "fidelity": ("fid", "kid", "is", "precision", "recall"),
    "class_agreement": ("class_agreement",),
    "density_coverage": ("density", "coverage"),
    "classification_accuracy": ("cas",),
    "spread": ("spread",),
    "pixels": ("fid_pixels", "variance_pixels"),
}
NEED_CLASSES = ("class_agreement", "cas")
# inside each class of the images; of a model without classes not of the same
WITHIN_CLASSES = ("spread", "variance_pixels")
# scores that take a training of their own: of final samples alone, in no sweep
COSTLY = ("cas",)
# images of the sets that are known before they are read: train, test (None: a share of train),
# smallest side that the loader gives, channels
KNOWN_SETS = {
    "digits": (1797, None, 8, 1),
    "fashion_mnist": (60_000, 10_000, 1, 1),
    "emoji": (4123, 1111, 32, 3),
    "cifar10": (50_000, 10_000, 32, 3),
}
# whose loader compares all that it reads with sums of its own
SUMMED = ("digits", "fashion_mnist", "emoji")
OWN_TEST = ("fashion_mnist", "emoji", "cifar10")
NO_PATH = {"digits": "digits come with scikit-learn", "emoji": "`./run data emoji` draws them"}
NOT_OF_ARRAYS = ("crop", "background", "group")  # settings that only files are read by
# settings of an extractor that one kind alone reads
ONLY_FOR = {
    "trained": ("channels", "steps", "batch_size", "lr", "seed", "eval_every"),
    "inception": ("weights", "sha256", "reference", "reference_sha256"),
    "pretrained": ("network", "image_size"),
}


def problems(study: Study) -> Iterator[str]:
    """Why a study cannot give what it asks for, whatever its variants are."""
    yield from _features_problems(study)
    yield from _dataset_problems(study)
    yield from _image_problems(study)
    yield from _seed_problems(study)


def cautions(study: Study) -> Iterator[str]:
    """What a study may ask for and hardly means."""
    yield from _features_cautions(study)
    yield from _dataset_cautions(study)


# ---------------------------------------------------------------- features


def _features_problems(study: Study) -> Iterator[str]:
    yield from _name_problems(study)
    for at, features in study.extractors.items():
        for kind, keys in ONLY_FOR.items():
            for key in keys if kind != features.kind else ():
                if key in features.model_fields_set and getattr(features, key) is not None:
                    value = getattr(features, key)
                    yield f"{at}.{key}: {value}: only for kind: {kind}; remove it"
        if features.weights is not None and features.sha256 is None:
            yield f"{at}.sha256: is missing; weights given by path are checked before they are read"
        for key, owner in {"sha256": "weights", "reference_sha256": "reference"}.items():
            if getattr(features, key) is not None and getattr(features, owner) is None:
                yield f"{at}.{key}: is the sum of no file; give {at}.{owner}, or remove it"
        yield from _pretrained_problems(at, features)


def _name_problems(study: Study) -> Iterator[str]:
    """Names that would make the scores of two evaluators one, or not tell whose they are."""
    taken = {evaluator: f"the evaluator of metric {name}" for name, evaluator in EVALUATORS.items()}
    for at, features in study.extractors.items():
        for other, whose in taken.items():
            if features.name == other:
                yield f"{at}.name: {features.name}: is {whose}; take another name"
            elif f"_{features.name}".endswith(f"_{other}") or other.endswith(f"_{features.name}"):
                yield (
                    f"{at}.name: {features.name}: its scores would end like those of {other}, "
                    f"{whose}; take another name"
                )
        taken[features.name] = f"the name of {at}"
    yield from _twin_problems(study)


def _twin_problems(study: Study) -> Iterator[str]:
    """Evaluators that differ in their name alone: what the second says is what the first said."""
    seen: dict[str, str] = {}
    for at, features in study.extractors.items():
        first = seen.setdefault(features.model_dump_json(exclude={"name"}), features.name)
        if first != features.name:
            yield (
                f"{at}.name: {features.name}: has all settings of {first}, whose scores it would "
                "repeat as if somebody else agreed; remove it, or give it another seed or network"
            )


def _pretrained_problems(at: str, features: FeaturesConfig) -> Iterator[str]:
    """What a pretrained network lacks, and a name that does not say at which size it looks."""
    if features.kind != "pretrained":
        return
    if features.network is None:
        yield f"{at}.network: is missing; legal: {', '.join(PRETRAINED)}"
        return
    if features.image_size is None:
        yield f"{at}.image_size: is missing; the side that images are resized to, such as 64"
        return
    dim = PRETRAINED[features.network].dim
    if features.dim != dim:
        yield f"{at}.dim: {features.dim}: {features.network} has {dim} features; leave it out"
    if not re.search(rf"(^|\D){features.image_size}$", features.name):
        yield (
            f"{at}.name: {features.name}: does not end with its image_size {features.image_size}, "
            f"on which scores depend; call it lite0_{features.image_size}"
        )


def _features_cautions(study: Study) -> Iterator[str]:
    for at, features in study.extractors.items():
        if features.kind == "inception" and features.dim != 2048:
            yield (
                f"{at}.dim: {features.dim}: a layer of Inception-v3 below the one that FID is "
                "published for, 2048; not comparable with others"
            )
    sizes = {"evaluation.num_images": study.evaluation.num_images} if scored(study) else {}
    for name, suite in study.suites.items():
        for room in set(rooms.which("EVALUATES")) & set(suite.measure):
            sizes[f"suites.{name}.{room}.num_images"] = study.told(name, room).num_images
    for key, count in sizes.items():
        for at, features in study.extractors.items():
            if count < features.dim:
                instead = f"a smaller {at}.dim"
                if features.kind == "pretrained":
                    instead = f"read kid_{features.name} beside it"
                yield (
                    f"{key}: {count}: {_too_few_for(features.dim)}; "
                    f"give {features.dim + 1} or more, or {instead}"
                )


def _too_few_for(dim: int) -> str:
    return f"fewer images than the {dim} features: their covariance is singular and FID is biased"


# ---------------------------------------------------------------- images


def scored(study: Study) -> bool:
    """Whether any suite generates images of which scores are taken."""
    return any(set(rooms.which("DRAWS")) & set(suite.measure) for suite in study.suites.values())


def tunes(study: Study) -> bool:
    """Whether a setting is tuned on one half of the images and scored on the other."""
    return any(any(tuning(suite)) for suite in study.suites.values())


def tuning(suite: Suite) -> Iterator[str]:
    """What of a suite tunes on one half of the images and scores on the other,
    as a message says it."""
    for what in ("figures", "tables"):
        for name in rooms.listed(what, "HALVES"):
            if name in getattr(suite, what):
                yield f"{what}: {name!r}"
    for claim in suite.claims:
        if claim.rule in rooms.listed("rule", "HALVES"):
            yield f"claims: rule {claim.rule!r}"


def needs_of(study: Study) -> dict[str, int]:
    """Images that each split must have for what a study measures, at least 1: known before the
    first job, compared by `prepare`."""
    measures = {measure for suite in study.suites.values() for measure in suite.measure}
    trains = bool(measures & set(rooms.which("TRAINS")))
    # the test split is the reference of all scores, but where a file with images of its own is
    held_out = any(not features.reference for features in study.features)
    test = MIN_IMAGES if trains and (held_out or measures & set(rooms.which("READS_TEST"))) else 1
    if tunes(study) and held_out:
        # a setting is tuned on one half of the reference, scored on the other
        test = 2 * MIN_IMAGES
    needs = {"train": MIN_IMAGES if trains else 1, "val": 1, "test": test}
    return {**needs, "features": max(one.dim for one in study.features) if trains else 1}


def enough_images(counts: dict[str, int], needs: dict[str, int], about: str = "") -> str | None:
    """Why splits of so many images are too small, as `key: what and remedy`; None where they are
    not. needs: of `needs_of`; about: where the counts come from, for the line."""
    keys = {"test": "test_share", "val": "val_share", "train": "train_images"}
    short = [split for split in keys if counts.get(split, 0) < needs.get(split, 1)]
    if not short:
        return None
    words = ", ".join(
        f"{split} has {counts.get(split, 0)} images and needs {needs.get(split, 1)}"
        for split in short
    )
    halves = (
        ", and in each half of a reference that tunes" if needs.get("test", 1) > MIN_IMAGES else ""
    )
    return (
        f"dataset.{keys[short[0]]}: {about}{words}: "
        f"scores need {MIN_IMAGES} on every side{halves}; "
        "give more images or other shares"
    )


def few_for_features(counts: dict[str, int], dim: int) -> str | None:
    """What to say of splits with fewer images than features; None where there is nothing to say."""
    small = [
        f"{split} {counts[split]}" for split in ("train", "test") if counts.get(split, dim) < dim
    ]
    return f"dataset: {', '.join(small)}: {_too_few_for(dim)}" if small else None


def known_counts(study: Study) -> dict[str, int] | None:
    """Images of each split of a set whose size is known, up to the chance of its hash; None for
    other sets."""
    data = study.dataset
    if data.name not in KNOWN_SETS:
        return None
    images, held_out, _, _ = KNOWN_SETS[data.name]
    test = images * data.test_share if held_out is None else held_out
    whole = images * _beside_test(study)
    train = whole * (1 - data.val_share)
    if data.train_images is not None:
        train = min(train, data.train_images)
    return {"train": round(train), "val": round(whole * data.val_share), "test": round(test)}


def _beside_test(study: Study) -> float:
    """Share of the images of a known set that train and val are taken from: all that are counted,
    where the set has test images of its own."""
    own_test = KNOWN_SETS[study.dataset.name][1] is not None
    return 1.0 if own_test else 1 - study.dataset.test_share


def most_to_train_on(study: Study) -> int | None:
    """No training split of a set whose size is known has more images; None for other sets."""
    data = study.dataset
    if data.name not in KNOWN_SETS:
        return None
    images, share = KNOWN_SETS[data.name][0], _beside_test(study) * (1 - data.val_share)
    if data.name == "emoji":  # a concept, which has several images, lies on one side
        return images
    # a hash leaves about the share: six standard deviations more is what none does
    chance = 6 * math.sqrt(images * share * (1 - share))
    return min(images, math.ceil(images * share + chance))


def _image_problems(study: Study) -> Iterator[str]:
    counts, needs = known_counts(study), needs_of(study)
    asked, most = study.dataset.train_images, most_to_train_on(study)
    if asked is not None and most is not None and asked > most:
        yield (
            f"dataset.train_images: {asked}: the training split of {study.dataset.name} has at "
            f"most {most}; give as many or fewer, or leave it out for all"
        )
    if study.dataset.train_images is not None and study.dataset.train_images < needs["train"]:
        yield (
            f"dataset.train_images: {study.dataset.train_images}: the baseline of every score "
            f"takes {needs['train']} training images "
            "or more; raise it"
        )
    if counts and (problem := enough_images(counts, needs, f"of {study.dataset.name} about: ")):
        yield problem
    if any(
        set(suite.measure) & set(rooms.which("TRAINS")) for suite in study.suites.values()
    ) and legal_metrics(study) == ([], []):
        yield (
            f"evaluation.metrics: {', '.join(study.evaluation.metrics)}: needs classes, and "
            "class_agreement features of kind trained; nothing is measured; add fidelity"
        )
    for name, suite in study.suites.items():
        # a rule that tunes says so itself, with its claim
        shown = [what for what in tuning(suite) if not what.startswith("claims")]
        if shown and study.evaluation.num_images < 2 * MIN_IMAGES:
            yield (
                f"evaluation.num_images: {study.evaluation.num_images}: suite {name!r}, "
                f"{shown[0]} tunes on one half and scores on the other; give {2 * MIN_IMAGES} or "
                "more"
            )


def _seed_problems(study: Study) -> Iterator[str]:
    """Sample seeds that a table could not show digit by digit."""
    seeds = [
        *study.train_seeds,
        *(s for suite in study.suites.values() for s in suite.train_seeds or ()),
    ]
    last = study.evaluation.first_seed + (max(seeds) + 1) * study.evaluation.num_images
    if last >= 2**53:
        yield (
            f"train_seeds: {max(seeds)}: with {study.evaluation.num_images} images a training its "
            "sample seeds pass 2**53; "
            f"give a seed below {2**53 // study.evaluation.num_images:,}"
        )


def _dataset_problems(study: Study) -> Iterator[str]:
    data = study.dataset
    if data.name in KNOWN_SETS:
        _, _, side, channels = KNOWN_SETS[data.name]
        if data.channels != channels:
            yield f"dataset.channels: {data.channels}: {data.name} has {channels}"
        if data.image_size < side and data.name != "fashion_mnist":  # which is reduced by area
            yield (
                f"dataset.image_size: {data.image_size}: is smaller than the {side} pixels of "
                f"{data.name}; give {side} or more"
            )
    if data.name == "emoji" and data.image_size not in emoji_files.SIZES:
        yield f"dataset.image_size: {data.image_size}: emoji are drawn at 32 and 64 pixels alone"
    reads = any(not suite.sizes_only for suite in study.suites.values())
    if data.name in FOLDERS and data.path is None and reads:
        yield f"dataset.path: is missing; {data.name} needs the folder of the images"


def _dataset_cautions(study: Study) -> Iterator[str]:
    data = study.dataset
    if data.name in NO_PATH and data.path is not None:
        yield f"dataset.path: {data.path}: is not read, {NO_PATH[data.name]}"
    if data.name in OWN_TEST and "test_share" in data.model_fields_set:
        yield (
            f"dataset.test_share: {data.test_share}: is not read, {data.name} has a test part "
            "of its own"
        )
    if data.name == "emoji" and "val_share" in data.model_fields_set:
        yield f"dataset.val_share: {data.val_share}: is not read, emoji are split by concept"
    for key in NOT_OF_ARRAYS:
        if data.name in KNOWN_SETS and key in data.model_fields_set:
            yield (
                f"dataset.{key}: {getattr(data, key)}: is not read, "
                f"{data.name} is no folder of images"
            )
    counts = known_counts(study)
    largest = max(study.features, key=lambda features: features.dim)
    if counts and scored(study) and (caution := few_for_features(counts, largest.dim)):
        beside = f"; read kid_{largest.name} beside it" if largest.kind == "pretrained" else ""
        yield caution + beside


# ---------------------------------------------------------------- metrics


def legal_metrics(study: Study) -> tuple[list[str], list[str]]:
    """Names of the scores that a study's metrics give, and its metrics that are not known here:
    those may give any name."""
    data = study.dataset
    own = [name for name in study.evaluation.metrics if name not in RETURNS]
    legal = [key for name in study.evaluation.metrics for key in RETURNS.get(name, ())]
    if data.num_classes == 0:
        legal = [name for name in legal if name not in NEED_CLASSES]
    elif not study.trains_extractor:  # others know other classes
        legal = [name for name in legal if name != "class_agreement"]
    return legal, own
