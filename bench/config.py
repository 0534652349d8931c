"""Studies: strict loading of a YAML file, expansion of base + delta into jobs, hashes. Imports no torch.

A study names bases (whole settings of a variant) and suites (one table or figure each). A suite's variant is a base and a
delta of dotted keys. Jobs are content-addressed: the name of a job's folder holds the hash of all that its result depends on.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from srdd.config import (
    CONFIDENCES,
    SELECT_READS,
    BelowOne,
    Chance,
    ModelConfig,
    Positive,
    SamplerConfig,
    Share,
    Side,
    Strict,
    TokenizerConfig,
    logit_teacher_misfit,
    sampler_misfit,
    teacher_misfit,
)
from srdd.lookup import is_own, names_in, unknown

from . import checks, suite_checks
from .checks import MIN_IMAGES
from .contents import Contents
from .errors import ConfigError, place_of
from .image_folder import suffixes_read
from .scores import better
from .study_file import explain, one_line, read_yaml, shown

ROOT = Path(__file__).resolve().parent.parent
RESERVED = ("all", "full", "figures", "tables", "report", "report_full")  # targets of every study
SCOPES = ("study", "published")  # names of what is collected and drawn beside the suites
CLASSES = {"digits": 10, "fashion_mnist": 10}  # of the sets that are known before they are read
SLUG = r"[a-z0-9][a-z0-9_]*"
HUB = "hf://"  # a file of the Hugging Face hub: hf://OWNER/REPO/FILE


# ---------------------------------------------------------------- schema


def _weights_file(value: str) -> str:
    if value.startswith(HUB) and not re.fullmatch(HUB + r"[\w.-]+(/[\w.-]+){2,}", value):
        raise ValueError("no file of the hub; write hf://OWNER/REPO/FILE")
    if not value.endswith((".pth", ".safetensors")):
        raise ValueError("neither .pth (official weights) nor .safetensors (weights of this project)")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"no regular expression ({error})") from None
    return value


def _background(value: Any) -> Any:
    levels = value if isinstance(value, (list, tuple)) else [value]
    whole = all(isinstance(level, int) and not isinstance(level, bool) for level in levels)
    if len(levels) not in (1, 3) or not whole or not all(0 <= level <= 255 for level in levels):
        raise ValueError("give a grey level from 0 to 255, or three of them for red, green and blue")
    return levels[0] if len(levels) == 1 else tuple(levels)


Level = Annotated[int, Field(ge=0, le=255)]
Background = Annotated[Level | tuple[Level, Level, Level], BeforeValidator(_background)]
# a seed stands in tables as a number and in the names of runs; larger ones would lose digits there
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Name = Annotated[str, Field(pattern=rf"^{SLUG}$", max_length=60)]  # part of the names of files
WeightsFile = Annotated[str, AfterValidator(_weights_file)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class WeightsConfig(Strict):
    """Weights that exist. A file with a sum is known by its sum, wherever it lies."""

    file: WeightsFile = Field(description="an official .pth or a .safetensors of this project: a path, or hf://OWNER/REPO/FILE")
    sha256: Sha256 | None = Field(None, description="needed for every .pth and for every file of the hub")


Precision = Literal["float32", "bfloat16"]


class DatasetConfig(Strict):
    """Which pictures, and how they are split. Held-out pictures are never trained on."""

    name: str = Field(description="name of a load_<name> in bench/datasets.py")
    path: str | None = Field(None, min_length=1, description="where the files lie; null: the loader's own places")
    content: Sha256 | None = Field(
        None, description="digest of the files at path, which is what they are known by; given: others are refused"
    )
    image_size: Side
    channels: Literal[1, 3]
    num_classes: int = Field(ge=0, le=10**6, description="0: no classes")
    val_share: float = Field(0.05, gt=0, lt=0.5, description="of the training pictures, for early stopping")
    test_share: float = Field(0.2, gt=0, lt=0.9, description="held out, where the set has no test part of its own")
    train_images: Positive | None = Field(
        None, description="train on this many only, chosen by hash, some of every class; null: all"
    )
    crop: bool = Field(True, description="resize to 1.125 of the size and cut out the middle, as VAR does; false: keep the borders")
    background: Background = Field(255, description="what transparent pixels show: a grey level, or three colours")
    group: Annotated[str, AfterValidator(_pattern)] | None = Field(
        None,
        description="regular expression on a file's path below the folder: images with one match (of the first bracket) stay on one "
        "side of the split, such as the frames of a video; null: only exact copies do",
    )


INCEPTION_DIMS = (64, 192, 768, 2048)  # layers of torch-fidelity's Inception-v3


class FeaturesConfig(Strict):
    """The feature extractor of all scores. Its name is part of every metric's name."""

    kind: Literal["trained", "inception"] = Field(
        "trained", description="trained: a classifier of this study's training split; inception: Inception-v3 weights"
    )
    name: Name = Field(description="suffix of the metrics, such as digits64")
    dim: int = Field(
        default_factory=lambda data: 2048 if data.get("kind") == "inception" else 64,
        ge=1,
        le=2**16,
        description="features of an image: 64 for kind trained; of kind inception 64, 192, 768 or, where none is given, 2048",
    )
    channels: int = Field(32, ge=8, le=2**16, multiple_of=8, description="of the first layer; a multiple of its 8 groups")
    steps: Positive = 500
    batch_size: Positive = 128
    lr: float = Field(2e-3, gt=0)
    seed: Seed = 0
    weights: str | None = Field(None, min_length=1, description="inception only: path of the weights; null: torch-fidelity downloads them")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="inception only: checked before the file is read")
    reference: str | None = Field(
        None,
        min_length=1,
        description="inception only: an .npz with mu and sigma to score FID against, and perhaps pictures arr_0 (uint8, NHWC) for KID, "
        "precision and recall, instead of the test split",
    )
    reference_sha256: Sha256 | None = Field(None, description="of reference; checked before it is read")

    @model_validator(mode="after")
    def _inception_has_the_layer(self) -> FeaturesConfig:
        if self.kind == "inception" and self.dim not in INCEPTION_DIMS:
            raise ValueError(f"dim {self.dim}: Inception has layers of {', '.join(map(str, INCEPTION_DIMS))} features; take 2048")
        return self


def _warmup(usual: int) -> Any:
    """Steps of warm-up: the usual number, and in a short training at most half of its steps, so that lr reaches its peak."""

    def steps(data: dict[str, Any]) -> int:
        return min(usual, data.get("steps", 2 * usual) // 2)

    text = f"steps until lr is at its peak; where none are given {usual}, or half of the steps if that is less"
    return Field(default_factory=steps, ge=0, le=10**9, description=text)


def _check_warmup(training: TokenizerTraining | TrainingConfig) -> None:
    if training.warmup >= training.steps:
        raise ValueError(
            f"warmup {training.warmup}: is not shorter than steps {training.steps}, lr would not reach its peak; "
            f"give less than {training.steps}"
        )


class TokenizerTraining(Strict):
    """How the multi-scale VQ-VAE is trained."""

    steps: Positive = 600
    batch_size: Positive = 128
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = _warmup(50)
    clip: float = Field(1.0, gt=0)
    ema_decay: BelowOne = 0.99
    commitment: float = Field(0.25, ge=0, description="weight of the commitment loss")
    entropy: float = Field(0.0, ge=0, description="weight of the usage entropy per scale; 0: off")
    scale_drop: Share = Field(0.5, description="share of steps that use a random subset of the scales")
    restart_every: Positive = 25
    restart_share: Share = Field(0.1, description="a code used less than this share of the mean use is restarted")
    log_every: Positive = 50
    save_every: Positive = 100
    seed: Seed = 0

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> TokenizerTraining:
        _check_warmup(self)
        return self


class TokenizerSpec(Strict):
    """A tokenizer: its sizes and its training, or the weights of one that exists."""

    config: TokenizerConfig
    training: TokenizerTraining = TokenizerTraining()
    weights: WeightsFile | None = Field(None, description="a file as in `WeightsConfig`; null: train one")
    sha256: Sha256 | None = None


class TrainingConfig(Strict):
    """How a scale transformer is trained (VAR, arXiv 2404.02905, section 4)."""

    steps: Positive = 400
    batch_size: Positive = Field(64, description="images a step, of all processes and micro-batches together")
    accumulate: Positive = Field(1, description="micro-batches a step: less memory, the same step")
    checkpointing: bool = Field(False, description="compute each block again on the way back: less memory, the same step")
    lr: float = Field(1e-3, gt=0)
    final_lr: Share = Field(0.1, description="share of lr that is left at the last step; decay is linear")
    warmup: int = _warmup(20)
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.95
    weight_decay: float = Field(0.05, ge=0)
    clip: float = Field(2.0, gt=0)
    ema_decay: BelowOne = 0.99
    eval_every: Positive = Field(50, description="steps between held-out losses; early stopping looks there")
    patience: Positive | None = Field(None, description="stop after so many looks without a better one; null: never")
    snapshot_every: Positive = Field(100, description="steps between the weights that the convergence figure scores")
    save_every: Positive = Field(50, description="steps between checkpoints to resume from")
    corruption: str = Field(
        "none", description="name of a corrupt_<name> in srdd/corruption.py: what befalls the tokens that are read"
    )
    eps: Share = Field(0.0, description="noise of the corruption; the loss is then the diffusion ELBO at this noise")
    mask_weight: str = Field(
        "count",
        description="name of a weigh_<name> in srdd/loss.py: what a masked token counts in the loss of a model with mask_prob > 0; "
        "count: 1; elbo: the loss is the any-order bound",
    )
    mask_draws: Positive = Field(4, description="draws of masks per image in the held-out losses of a model with mask_prob > 0")
    eval_images: Positive | None = Field(
        None, description="test images, at most, of the losses along the training; null: all. The kept weights are tested on all"
    )
    precision: Precision = "float32"
    compile: bool = False

    def images_at_once(self, processes: int) -> int:
        """Images of one process's micro-batch. Raises ConfigError where they are not a whole number."""
        rows, rest = divmod(self.batch_size, self.accumulate * processes)
        if rest:
            raise ConfigError(
                f"training.batch_size {self.batch_size}: cannot be shared among {processes} processes with accumulate "
                f"{self.accumulate}; give a multiple of {self.accumulate * processes}"
            )
        return rows

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> TrainingConfig:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate}: does not divide batch_size {self.batch_size} into equal micro-batches"
            )
        return self

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> TrainingConfig:
        _check_warmup(self)
        return self

    @model_validator(mode="after")
    def _noise_has_a_kind(self) -> TrainingConfig:
        if (self.corruption == "none") != (self.eps == 0):
            raise ValueError(
                f"corruption {self.corruption!r} with eps {self.eps}: noise needs both a corruption and eps > 0, or neither"
            )
        return self


class SuiteEntry(Strict):
    """One variant of a suite, a base and what it changes; or, with a grid, one variant for each combination of its values."""

    base: str
    delta: dict[str, Any] = {}
    grid: dict[str, Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]] = Field(
        {}, description="dotted key: values; every combination is a variant"
    )


# what makes samples sharper than the distribution that was learnt, and where each is off
SHARPENING = {"cfg_scale": 1.0, "temperature": 1.0, "top_k": None, "top_p": 1.0, "sr_steps": 0}


class DistillConfig(Strict):
    """How a model of fewer scales is made from a teacher, a method of this project: only the
    beginning of the paper's text was seen by us."""

    arm: str = Field(description="name of an arm_<name> in bench/distill.py")
    teacher: SuiteEntry = Field(description="the teacher: a base and a delta")
    num_samples: Positive = Field(2048, description="pictures of the teacher that the arm sequence learns from")
    guided: bool = Field(
        False,
        description="arm sequence: true: the teacher draws with its guidance, temperature, top-k, "
        "top-p and redraws of improbable tokens, and the student must be scored without; false: from the distribution that it learnt",
    )

    @model_validator(mode="after")
    def _teacher_is_one(self) -> DistillConfig:
        if self.teacher.grid:
            raise ValueError(f"teacher.grid {sorted(self.teacher.grid)}: a teacher is one variant; use delta")
        return self


class Variant(Strict):
    """The whole settings of one method: what a base holds."""

    tokenizer: TokenizerSpec
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    sampler: SamplerConfig = SamplerConfig()
    distill: DistillConfig | None = None
    weights: WeightsConfig | None = Field(None, description="of the model, which is then not trained; null: train it")


class TeacherSettings(Strict):
    """The settings of a teacher that was trained (training) or imported (weights)."""

    model: ModelConfig
    training: TrainingConfig | None
    sampler: SamplerConfig
    weights: WeightsConfig | None = None


class DistillSettings(Strict):
    """A distillation as its job reads it: the teacher in full."""

    arm: str
    num_samples: Positive
    teacher: TeacherSettings


def _once(*keys: str) -> Any:
    """A validator that refuses a member that stands twice in one of these tuples: its rows would too."""

    def check(self: BaseModel) -> BaseModel:
        for key in keys:
            names = [f"{value:g}" if isinstance(value, float) else str(value) for value in getattr(self, key) or ()]
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{key} {list(getattr(self, key))}: {twice[0]} stands twice; give each once")
        return self

    return model_validator(mode="after")(check)


class EvaluationConfig(Strict):
    """How samples are scored; the same for every variant."""

    num_images: int = Field(1280, ge=MIN_IMAGES, le=10**7, description="generated images per score; fewer than 100 are refused")
    first_seed: Seed = Field(0, description="sample seed of image 0 of training seed 0; training seed s begins s num_images later")
    labels: Literal["training", "balanced"] = Field(
        "training", description="classes asked for: in the shares of the training split, or all equally often"
    )
    batch_size: Positive = 256
    precision: Precision = Field(
        "float32",
        description="of the network when it samples; images depend on their batch by rounding: a "
        "few per cent in float32 at full size, "
        "more in bfloat16",
    )
    compile: bool = Field(False, description="compile what the model calls at each scale; pays for many pictures")
    metrics: tuple[str, ...] = Field(("fidelity", "class_agreement"), strict=False, min_length=1)

    _metrics_differ = _once("metrics")


def _most_rounds(data: dict[str, Any]) -> int:
    """The usual limit, and never fewer rounds than are asked for at least."""
    return max(40, data.get("rounds", 0))


class LatencyConfig(Strict):
    """How time and memory are measured: interleaved rounds in one process, until ratios are sure."""

    batch_sizes: tuple[Positive, ...] = Field((1, 2, 4, 8, 16, 32, 64), strict=False, min_length=1)
    rounds: int = Field(5, ge=2, le=10**6, description="of every variant and batch size, at least")
    max_rounds: int = Field(
        default_factory=_most_rounds,
        ge=2,
        le=10**6,
        description="at most; where none are given 40, or rounds if that is more",
    )
    width: float = Field(
        0.05,
        gt=0,
        le=1e6,
        description="rounds go on until the 95 % t-interval of the log ratio to the first variant's "
        "time is this wide or less",
    )
    warmup: Positive = 1
    precision: Precision = "float32"
    compile: bool = Field(False, description="compile what the model calls at each scale; warm-up is excluded")

    @model_validator(mode="after")
    def _rounds_have_an_end(self) -> LatencyConfig:
        if self.max_rounds < self.rounds:
            raise ValueError(
                f"max_rounds {self.max_rounds}: is less than rounds {self.rounds}; give {self.rounds} "
                "or more"
            )
        return self

    _batch_sizes_differ = _once("batch_sizes")


class SweepConfig(Strict):
    """Many samplers of each trained model, sampled and scored by one job a model."""

    halves: bool = Field(True, description="score each half of the sample seeds too, which tuning needs; false: half of the time")
    thresholds: tuple[Chance, ...] = Field((), strict=False, description="report the share of drawn tokens below each, per scale")

    _thresholds_differ = _once("thresholds")


class EquivalenceConfig(Strict):
    """The diffusion ELBO of trained models against their cross-entropy."""

    eps: tuple[Share, ...] = Field((0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7), strict=False, min_length=1)
    corruptions: tuple[str, ...] = Field(("uniform", "absorb"), strict=False, min_length=1)
    draws: Positive = Field(4, description="draws of the forward noise per picture")
    num_images: Positive = Field(128, description="held-out pictures")

    _names_differ = _once("eps", "corruptions")


class SnrConfig(Strict):
    """Signal-to-noise ratio of the state after each scale."""

    num_images: Positive = Field(512, description="held-out pictures, or all when there are fewer")


Box = Annotated[tuple[float, float, float, float], Field(strict=False)]


class ZeroShotConfig(Strict):
    """In-painting, out-painting and super-resolution of held-out pictures. A box is (top, left, bottom, right) in shares of the side."""

    inpaint: Box | None = (0.25, 0.25, 0.75, 0.75)
    outpaint: Box | None = (0.25, 0.25, 0.75, 0.75)
    super_resolution: bool = Field(True, description="keep the true tokens of the first m scales, for every m from 1 to K-1")
    num_images: int = Field(1000, ge=MIN_IMAGES, le=10**7, description="held-out pictures, or all when there are fewer")

    @model_validator(mode="after")
    def _boxes_lie_inside(self) -> ZeroShotConfig:
        if not (self.inpaint or self.outpaint or self.super_resolution):
            raise ValueError("inpaint null, outpaint null, super_resolution false: no task is left; ask for one or more")
        for name in ("inpaint", "outpaint"):
            box = getattr(self, name)
            if box and not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
                raise ValueError(f"{name} {list(box)}: not inside the picture; 0 <= top < bottom <= 1 and 0 <= left < right <= 1")
            if box == (0.0, 0.0, 1.0, 1.0):
                raise ValueError(f"{name} {list(box)}: is the whole picture; nothing is known, or nothing unknown")
        return self


class ErrorPropagationConfig(Strict):
    """Share of the tokens of one scale that are replaced before the sampler goes on."""

    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field((0.05, 0.1, 0.25, 0.5, 1.0), strict=False, min_length=1)
    num_images: int = Field(640, ge=MIN_IMAGES, le=10**7)

    _shares_differ = _once("shares")


class Claim(Strict):
    """What a suite may confirm or refute, judged by a stated rule."""

    text: str = Field(min_length=1)
    origin: Literal["paper", "ours"] = "ours"
    rule: str = Field("score", description="name of a judge_<name> in bench/analysis.py")
    variant: str
    against: str
    metric: str = Field(
        "fid",
        description="a score's name without its extractor; for rule equal a gap, such as path_kl_equal_state; for rule memory "
        "pipeline, or none for the sampler's working memory",
    )
    better: Literal["lower", "higher"] | None = Field(
        default_factory=lambda data: better(str(data.get("metric"))),
        description="what is claimed of the metric; follows from a known one, needed for one of your own",
    )

    @model_validator(mode="after")
    def _two_are_compared(self) -> Claim:
        if self.variant == self.against:
            raise ValueError(f"variant {self.variant!r}: is compared with itself; name another one in against")
        return self


class Published(Strict):
    """A number that others published, shown beside ours as theirs and compared with nothing: evaluators and settings differ."""

    variant: str
    metric: Literal["fid", "kid", "is", "precision", "recall"]
    value: float
    source: str = Field(min_length=1, description="who says so")

    @model_validator(mode="after")
    def _value_is_possible(self) -> Published:
        least, most = {"fid": (0, math.inf), "is": (1, math.inf), "kid": (-math.inf, math.inf)}.get(self.metric, (0, 1))
        if not least <= self.value <= most:
            legal = f"{least} or more" if most == math.inf else f"a share from {least} to {most}"
            raise ValueError(f"value {self.value:g}: is no {self.metric}, which is {legal}")
        return self


Measure = Literal["scores", "sweep", "convergence", "latency", "equivalence", "snr", "zero_shot", "error_propagation"]


class Suite(Strict):
    """One table or figure: a claim, variants, what is measured."""

    claim: str = Field(min_length=1, description="what is compared, in one sentence")
    claims: tuple[Claim, ...] = Field((), strict=False, description="what is judged, for the table of claims")
    published: tuple[Published, ...] = Field(
        (), strict=False, description="what others printed, for a column of its own in `scores`"
    )
    core: bool = Field(True, description="part of the default run; else of `full`, or by its own target")
    measure: tuple[Measure, ...] = Field(("scores",), strict=False, min_length=1)
    variants: dict[str, SuiteEntry] = Field(min_length=1)
    train_seeds: tuple[Seed, ...] | None = Field(None, strict=False, min_length=1, max_length=1000)
    tuned_on: Name | None = Field(
        None, description="the suite whose scores chose settings of this one; its training seeds must be others"
    )
    latency: LatencyConfig | None = Field(None, description="instead of the study's")
    sweep: SweepConfig = SweepConfig()
    equivalence: EquivalenceConfig = EquivalenceConfig()
    snr: SnrConfig = SnrConfig()
    zero_shot: ZeroShotConfig = ZeroShotConfig()
    error_propagation: ErrorPropagationConfig = ErrorPropagationConfig()
    figures: tuple[str, ...] = Field((), strict=False)
    tables: tuple[str, ...] = Field((), strict=False)

    _outputs_differ = _once("measure", "figures", "tables", "train_seeds")

    @model_validator(mode="after")
    def _published_once(self) -> Suite:
        seen: set[tuple[str, str]] = set()
        for number in self.published:
            if (key := (number.variant, number.metric)) in seen:
                raise ValueError(f"published: {number.metric} of {number.variant!r} stands twice; keep one")
            seen.add(key)
        return self


class _Named(Strict):
    study: str = Field(pattern=rf"^{SLUG}$")


class Study(Strict):
    """A study file."""

    study: Name
    reduced: str | None = Field(None, min_length=1, description="what was cut, said in every table and figure; null: nothing")
    dataset: DatasetConfig
    features: FeaturesConfig
    bases: dict[str, dict[str, Any]] = Field(min_length=1)
    train_seeds: tuple[Seed, ...] = Field((0, 1, 2), strict=False, min_length=1, max_length=1000)
    tokenizer_seed: Literal["train_seed", "shared"] = Field(
        "train_seed",
        description="train_seed: each training seed trains a tokenizer of its own; shared: one serves all, and "
        "intervals are conditional on it",
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    latency: LatencyConfig = LatencyConfig()
    suites: dict[Name, Suite] = Field(min_length=1)
    _contents: Contents = PrivateAttr(default_factory=Contents)

    _seeds_differ = _once("train_seeds")


# ---------------------------------------------------------------- loading


def _validate(schema: type[BaseModel], data: Any, prefix: str = "") -> Any:
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, schema, prefix)) from None


def study_name(path: str | Path) -> str:
    """The name of a study, which is that of its folder. Raises ConfigError."""
    try:
        name = read_yaml(Path(path)).get("study")
        return _validate(_Named, {"study": name}).study
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def load_study(path: str | Path, contents: Contents | None = None) -> Plan:
    """Read, check and expand a study. Raises ConfigError, one line that names file, key, value and what is legal.

    contents: what is known of the files that it names; None: they are looked at.
    """
    path = Path(path)
    try:
        study = _validate(Study, read_yaml(path))
        study._contents = contents or Contents()
        return expand(study)
    except ConfigError as error:
        raise ConfigError(one_line(f"{path}: {error}")) from None


def _set(settings: dict, dotted: str, value: Any, prefix: str) -> None:
    *parents, last = dotted.split(".")
    node = settings
    for i, part in enumerate(parents):
        if not isinstance(node.setdefault(part, {}), dict):
            raise ConfigError(f"{prefix}{dotted}: {'.'.join(parents[: i + 1])} holds a value, not further keys")
        node = node[part]
    node[last] = value


SECTIONS = ("tokenizer", "tokenizer.config", "tokenizer.training", "model", "training", "sampler")


def _loses(settings: dict, dotted: str, value: Any, prefix: str) -> None:
    """Raises ConfigError for a section given whole in a delta: what it leaves out would silently go
    back to defaults."""
    if dotted not in SECTIONS or not isinstance(value, dict):
        return
    here: Any = settings
    for part in dotted.split("."):
        here = here.get(part, {}) if isinstance(here, dict) else {}
    if lost := sorted(set(here) - set(value) if isinstance(here, dict) else ()):
        instead = ", ".join(f"{dotted}.{key}: {shown(part)}" for key, part in value.items())
        raise ConfigError(
            f"{prefix}{dotted}: would drop {', '.join(lost)} of the base; give dotted keys ({instead or f'{dotted}.<key>: value'})"
        )


MOST_VARIANTS = 1000  # of a suite


def entries_of(suite: Suite, at: str = "") -> dict[str, tuple[str, SuiteEntry, dict[str, Any]]]:
    """The variants of a suite by name, grids expanded: name of the entry, the entry with the grid's values in its delta, the values."""
    found: dict[str, tuple[str, SuiteEntry, dict[str, Any]]] = {}
    counts = {name: math.prod(map(len, entry.grid.values())) for name, entry in suite.variants.items()}
    if (count := sum(counts.values())) > MOST_VARIANTS:
        most = max(counts, key=counts.get)
        raise ConfigError(
            f"{at}variants: {count:,} with their grids, of {most!r} alone {counts[most]:,}; {MOST_VARIANTS} a suite are the most"
        )
    for name, entry in suite.variants.items():
        for values in itertools.product(*entry.grid.values()):
            chosen = dict(zip(entry.grid, values))
            words = [f"{key.rsplit('.', 1)[-1]} {_word(value)}" for key, value in chosen.items()]
            plain = SuiteEntry(base=entry.base, delta={**entry.delta, **chosen})
            full = ", ".join((name, *words))
            if found.setdefault(full, (name, plain, chosen)) != (name, plain, chosen):
                raise ConfigError(f"{at}variants.{full}: two different variants have this name; name one otherwise")
    return found


def _word(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def resolve_variant(study: Study, suite: str, name: str) -> Variant:
    """Base plus delta, with what follows from dataset and tokenizer filled in, checked as a whole. Raises ConfigError."""
    entry = entries_of(study.suites[suite])[name][1]
    timed_only = study.suites[suite].measure == ("latency",)  # no picture is read: other sizes may be timed
    return _resolve(study, entry, f"suites.{suite}.variants.{name}", timed_only)


def _resolve(study: Study, entry: SuiteEntry, at: str, timed_only: bool = False, is_teacher: bool = False) -> Variant:
    if entry.base not in study.bases:
        raise ConfigError(f"{at}.base: " + unknown("base", entry.base, study.bases))
    settings = copy.deepcopy(study.bases[entry.base])
    for dotted, value in entry.delta.items():
        _loses(settings, dotted, value, f"{at}.delta.")
        _set(settings, dotted, copy.deepcopy(value), f"{at}.delta.")
    at += " (delta and base)."
    data, config = study.dataset, settings.setdefault("tokenizer", {})
    if not isinstance(config, dict) or not isinstance(config.setdefault("config", {}), dict):
        raise ConfigError(f"{at}tokenizer: must hold keys")
    follows = {"image_size": data.image_size, "in_channels": data.channels}
    if timed_only:
        follows |= {key: value for key, value in config["config"].items() if key in follows}
    _fill(config["config"], follows, f"{at}tokenizer.config.", "dataset")
    tokenizer = _validate(TokenizerSpec, config, f"{at}tokenizer.").config
    model = settings.setdefault("model", {})
    if not isinstance(model, dict):
        raise ConfigError(f"{at}model: must hold keys")
    follows = {"codebook_size": tokenizer.codebook_size, "codebook_dim": tokenizer.codebook_dim}
    _fill(model, follows, f"{at}model.", "tokenizer")
    model.setdefault("num_classes", data.num_classes)
    if model["num_classes"] not in (0, data.num_classes) and not timed_only:
        raise ConfigError(
            f"{at}model.num_classes: {model['num_classes']} does not fit the dataset's {data.num_classes} "
            f"(legal: {data.num_classes}, or 0 for an unconditional model)"
        )
    model.setdefault("patch_nums", list(tokenizer.patch_nums))
    variant = _validate(Variant, settings, at)
    if variant.model.schedule.latent_size != tokenizer.schedule.latent_size:
        raise ConfigError(
            f"{at}model.patch_nums: {list(variant.model.patch_nums)} must end at the tokenizer's latent size "
            f"{tokenizer.schedule.latent_size}"
        )
    if problem := sampler_misfit(variant.sampler, variant.model):
        raise ConfigError(f"{at}sampler.{problem}")
    for key, file, prefix, value in (
        ("sampler.name", "srdd/sampling.py", "sample", variant.sampler.name),
        ("sampler.select", "srdd/sampling.py", "select", variant.sampler.select),
        ("sampler.confidence", "srdd/sampling.py", "confidence", variant.sampler.confidence),
        ("sampler.cfg_ramp", "srdd/guidance.py", "ramp", variant.sampler.cfg_ramp),
        ("model.mask", "srdd/masks.py", "mask", variant.model.mask),
        ("training.corruption", "srdd/corruption.py", "corrupt", variant.training.corruption),
        ("training.mask_weight", "srdd/loss.py", "weigh", variant.training.mask_weight),
    ):
        _known(f"{at}{key}", file, prefix, value)
    _weighs_something(variant, at)
    if variant.distill and is_teacher:  # also what ends a teacher that names itself
        raise ConfigError(f"{at}distill: arm {variant.distill.arm!r} in a teacher; name one that is trained, without distill")
    if variant.distill:
        return _with_teacher(study, variant, at)
    return _imported(variant, at) if variant.weights else variant


def _weighs_something(variant: Variant, at: str) -> None:
    """Refuse weights of masked tokens where a training masks none."""
    if (weight := variant.training.mask_weight) == "count":
        return
    problem = None
    if variant.model.mask_prob == 0:
        problem = "model.mask_prob is 0; set mask_weight count, or mask_prob more than 0"
    elif variant.distill and variant.distill.arm == "logit":
        problem = "distill.arm logit learns with all own tokens masked; set mask_weight count"
    if problem:
        raise ConfigError(f"{at}training.mask_weight: {weight!r} weighs masked tokens, but {problem}")


def _imported(variant: Variant, at: str) -> Variant:
    """A variant whose weights exist: nothing of its training matters."""
    if variant.model.mask_prob and variant.weights.file.endswith(".pth"):
        raise ConfigError(f"{at}model.mask_prob: {variant.model.mask_prob}: official weights know no masks; set it to 0")
    return variant.model_copy(update={"training": None})


def _with_teacher(study: Study, variant: Variant, at: str) -> Variant:
    """Check a distillation against its teacher. The arm `scratch`, the control, becomes a plain training that sees as many tokens as
    teacher and student together."""
    distill, arms = variant.distill, [*names_in(ROOT / "bench/distill.py", "arm"), "scratch"]
    if distill.arm not in arms:
        raise ConfigError(f"{at}distill.arm: " + unknown("arm", distill.arm, arms))
    if distill.teacher.grid:
        raise ConfigError(
            f"{at}distill.teacher.grid: {list(distill.teacher.grid)}: a teacher is one model; put it into the delta"
        )
    teacher = _resolve(study, distill.teacher, f"{at}distill.teacher", is_teacher=True)
    if distill.guided:
        _check_guided(variant, teacher, at)
    if difference := _first_difference(_dump(teacher.tokenizer), _dump(variant.tokenizer)):
        key, old, new = difference
        raise ConfigError(
            f"{at}distill.teacher: tokenizer.{key} is {old!r}, the student's {new!r}; both must share one tokenizer"
        )
    # the weights of a base that is the teacher's too say nothing new
    if variant.weights and (
        teacher.weights is None or _by_sum(study, variant.weights) != _by_sum(study, teacher.weights)
    ):
        raise ConfigError(
            f"{at}weights: {variant.weights.file!r} beside distill, which starts from the weights of {distill.teacher.base!r}; leave one out"
        )
    variant = variant.model_copy(update={"weights": None})
    if distill.arm == "scratch" and teacher.weights:
        raise ConfigError(
            f"{at}distill.arm: 'scratch' sees as many tokens as its teacher, but {distill.teacher.base!r} is imported and nobody "
            f"counted them; use a trained teacher or another arm ({', '.join(arms[:-1])})"
        )
    if distill.arm == "scratch":
        seen = teacher.training.steps * teacher.training.batch_size * teacher.model.schedule.seq_len
        more = round(seen / (variant.training.batch_size * variant.model.schedule.seq_len))
        longer = variant.training.model_copy(update={"steps": variant.training.steps + more})
        return variant.model_copy(update={"training": longer, "distill": None})
    problem = teacher_misfit(teacher.model, variant.model)
    if not problem and distill.arm == "logit":
        problem = logit_teacher_misfit(teacher.model, variant.model)
    if problem:
        raise ConfigError(f"{at}model.{problem} (distill.arm {distill.arm}, distill.teacher {distill.teacher.base!r})")
    return variant


def _check_guided(variant: Variant, teacher: Variant, at: str) -> None:
    """A student of a teacher that draws as its sampler says is not sharpened once more."""
    if variant.distill.arm in ("real", "logit", "scratch"):
        raise ConfigError(
            f"{at}distill.guided: True: arm {variant.distill.arm!r} learns from no guided samples; "
            "leave it out, or use arm 'sequence'"
        )
    for key, off in SHARPENING.items():
        taught, asked = getattr(teacher.sampler, key), getattr(variant.sampler, key)
        if taught != off and asked != off:
            raise ConfigError(
                f"{at}sampler.{key}: {asked}: a student of guided samples is scored with {key} {off!r}, "
                f"its teacher drew them with {taught}; set it so, or distill.guided to false"
            )


def _first_difference(old: Any, new: Any, at: str = "") -> tuple[str, Any, Any] | None:
    """Where two settings differ first: dotted key and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = (_first_difference(old.get(key), new.get(key), f"{at}.{key}" if at else key) for key in old | new)
        return next(filter(None, parts), None)
    return None if old == new else (at, old, new)


def _fill(node: dict, follows: dict[str, Any], at: str, source: str) -> None:
    for key, value in follows.items():
        if node.setdefault(key, value) != value:
            raise ConfigError(f"{at}{key}: {node[key]!r} does not fit the {source}'s {value!r}; leave it out")


def _known(at: str, file: str, prefix: str, value: str | None) -> None:
    try:
        names = names_in(ROOT / file, prefix)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if value is not None and value not in names:
        raise ConfigError(f"{at}: {unknown('name', value, names)}; a name is a function {prefix}_<name> in {file}")


def missing_files(plan: Plan, run_ids: Iterable[str] | None = None) -> list[str]:
    """What a study names and is not there, as `key: what is missing and what to do`: asked before the first job, not when planning.
    run_ids: the jobs that will run and hence read weights; None: all."""
    study, wanted = plan.study, set(plan.jobs if run_ids is None else run_ids)
    found, data, features = [], study.dataset, study.features
    stages = {run_id.split("/")[0] for run_id in wanted}
    read = data.path is not None and stages - {"latency"}
    root = place_of(data.path, "dataset.path") if read else None
    if root is not None and not root.exists():
        seen_from = "" if root.is_absolute() else f", seen from {Path.cwd()}"
        found.append(f"dataset.path: no folder at {data.path}{seen_from}; put the images there or change the path")
    for key, path in {"features.weights": features.weights, "features.reference": features.reference}.items():
        if stages - {"latency"} and path is not None and not place_of(path, key).is_file():
            found.append(f"{key}: no file at {path}; put it there or change the path")
    for suite in study.suites:
        for name in entries_of(study.suites[suite]):
            at, variant = f"suites.{suite}.variants.{name} (delta and base).", resolve_variant(study, suite, name)
            jobs = {at: [_tokenizer_job(study, variant)[1], *_import_jobs(study, variant)]}
            if variant.distill:
                jobs[f"{at}distill.teacher."] = _import_jobs(study, _teacher(study, variant))
            for place, readers in jobs.items():
                for job in readers:
                    for key, weights in job.files.items() if job.run_id in wanted else ():
                        found += [f"{place}{key}{problem}" for problem in _weights_problems(weights)]
    return found


def variants_and_teachers(study: Study, suite: str) -> Iterator[Variant]:
    """Every variant of a suite, and the teachers of those that have one."""
    for name in entries_of(study.suites[suite]):
        variant = resolve_variant(study, suite, name)
        yield variant
        if variant.distill:
            yield _teacher(study, variant)


def _names_own(study: Study, suite: str) -> bool:
    """Whether a suite names a mask, sampler, rule, ramp, corruption or weight of the user's own."""
    about = study.suites[suite]
    asked = about.equivalence.corruptions if "equivalence" in about.measure else ()
    names = [("corrupt", name) for name in asked]
    for variant in variants_and_teachers(study, suite):
        model, sampler, training = variant.model, variant.sampler, variant.training
        names += [("mask", model.mask), ("ramp", sampler.cfg_ramp)]
        names += [("sample", sampler.name), ("select", sampler.select)]
        names += [("corrupt", training.corruption), ("weigh", training.mask_weight)] if training else []
        names += [("confidence", sampler.confidence)]
    return any(is_own(*name) for name in names)


def refused_function(path: str | Path, plan: Plan, run_ids: Iterable[str]) -> str | None:
    """Why a function of the user's own cannot be used by the jobs that will run, in one line that
    names it: tried by another process, since planning imports no torch; None where all can, or
    where there are none."""
    wanted = set(run_ids)
    suites = [name for name, jobs in plan.suites.items() if jobs & wanted]
    suites = [name for name in suites if _names_own(plan.study, name)]
    if not suites:
        return None
    words = [sys.executable, "-m", "bench.check", str(path), *suites]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, capture_output=True, encoding="utf-8", errors="replace", env=environment
    )
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"bench.check ended with status {done.returncode}"]
    return lines[-1].removeprefix("error: ")


def _weights_problems(weights: WeightsConfig) -> Iterator[str]:
    """Why weights cannot be read now, as the end of a key and a reason."""
    local = not weights.file.startswith(HUB)
    if local and not place_of(weights.file, "weights").is_file():
        yield f": no file at {weights.file}; put it there or change the path"
    if weights.sha256 is None and (problem := sum_needed(weights.file)):
        yield f": {problem}"


def sum_needed(file: str) -> str | None:
    """Why a file without a sha256 is not read; None where it may be."""
    if file.endswith(".pth") or file.startswith(HUB):
        return f"{file} needs its sha256 beside it, as every .pth and every file of the hub; `sha256sum` of a copy that you trust gives it"
    return None


# ---------------------------------------------------------------- jobs


def canonical(data: Any) -> str:
    """JSON with sorted keys: the text that is hashed."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def config_hash(data: Any) -> str:
    """The first 10 hex digits of the sha256 of the canonical JSON."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Job:
    """One run of one verb: what it is told (config), the jobs whose folders it reads (inputs, by role), and the names that its
    numbers carry (identity, which follows from the config). files: weights that it reads, by key; paths: other files of the study
    that it reads, by key; needs: images that each split must have for what the study measures. None of these is part of its name."""

    stage: str
    config: dict[str, Any] = field(hash=False)
    inputs: dict[str, str] = field(hash=False)
    slug: str = ""
    identity: dict[str, str] = field(default_factory=dict, hash=False)
    files: dict[str, WeightsConfig] = field(default_factory=dict, hash=False)
    paths: dict[str, str] = field(default_factory=dict, hash=False)
    needs: dict[str, int] = field(default_factory=dict, hash=False)

    @property
    def about(self) -> dict[str, Any]:
        """What its verb reads."""
        places = {key: weights.file for key, weights in self.files.items()} | self.paths
        more: dict[str, Any] = {"files": places} if places else {}
        more |= {"needs": self.needs} if self.needs else {}
        return {"run_id": self.run_id, "identity": self.identity, "inputs": self.inputs, "config": self.config, **more}

    @cached_property
    def run_id(self) -> str:
        name = f"{self.slug}-" if self.slug else ""
        return f"{self.stage}/{name}{config_hash(self.config)}"


@dataclass
class Plan:
    """A study, its jobs by run_id, and which of them each suite needs."""

    study: Study
    jobs: dict[str, Job] = field(default_factory=dict)
    suites: dict[str, set[str]] = field(default_factory=dict)
    identities: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # what is legal and hardly meant, to be said once before any work

    def add(self, suite: str, job: Job) -> str:
        job.paths.update(paths_of(self.study, job.config))
        self.jobs[job.run_id] = job
        self.suites.setdefault(suite, set()).add(job.run_id)
        for run_id in job.inputs.values():
            self.suites[suite].add(run_id)
        return job.run_id

    @property
    def contents(self) -> dict[str, str]:
        """What is known of the files that the study names, by path."""
        return dict(self.study._contents.found)

    def described(self) -> dict[str, Any]:
        """The settings of the study with its files by content and name, and not by their place."""
        study, features = self.study, features_config(self.study)
        if study.features.reference is not None:
            features["reference"] = Path(study.features.reference).name
        return {**_dump(study), "dataset": data_config(study), "features": features}

    def suites_of(self, scope: str | None) -> list[str]:
        """Names of the suites of a scope, in the order of the study: one, all ("full"), or those of the default run (None)."""
        return [name for name, suite in self.study.suites.items() if scope in (name, "full") or (scope is None and suite.core)]

    def jobs_of(self, scope: str | None) -> list[str]:
        """run_ids of a scope."""
        return sorted(set().union(*(self.suites[name] for name in self.suites_of(scope))))

    def outputs_of(self, what: Literal["figures", "tables"], scope: str | None) -> list[str]:
        """Names of the figures or tables of a scope, in the order of the study: <suite>_<name>."""
        return [f"{suite}_{name}" for suite in self.suites_of(scope) for name in getattr(self.study.suites[suite], what)]


def paths_of(study: Study, config: dict[str, Any]) -> dict[str, str]:
    """Where the files lie that a job's config knows by their content, by dotted key."""
    named = {
        "dataset.path": study.dataset.path,
        "features.weights": study.features.weights,
        "features.reference": study.features.reference,
    }
    return {key: path for key, path in named.items() if path is not None and key.split(".")[0] in config}


def data_config(study: Study) -> dict[str, Any]:
    """The dataset as a job's config names it: by the content of its files, and not by their place. Raises ConfigError for files that
    are not those that the study asks for."""
    data, content = study.dataset, None
    known = data.name in checks.KNOWN_SETS and data.content is None  # the loader has sums of its own
    if data.path is not None and not known:
        content = study._contents.of(data.path, "dataset.path", suffixes_read(data.name))
    if data.content and content and data.content != content:
        raise ConfigError(f"dataset.content: {data.content} is asked for, the files at {data.path} are {content}")
    return _dump(data.model_copy(update={"path": None, "content": content or data.content}))


def features_config(study: Study) -> dict[str, Any]:
    """The feature extractor as a job's config names it: its files by their sums, and not by their place."""
    features, found = study.features, {}
    if features.reference is not None:
        known = features.reference_sha256 or study._contents.of(features.reference, "features.reference")
        found |= {"reference": known or Path(features.reference).name, "reference_sha256": known}
    if features.weights is not None:
        found |= {"weights": features.sha256 or Path(features.weights).name}
    return _dump(features.model_copy(update=found))


def _dump(model: BaseModel | None) -> dict | None:
    return None if model is None else json.loads(model.model_dump_json())


def _by_sum(study: Study, weights: WeightsConfig) -> WeightsConfig:
    """Weights as a job's config names them: by their sum, the given one or that of the file, and not by their place."""
    kind, known = "." + weights.file.rsplit(".", 1)[1], weights.sha256
    if known is None and sum_needed(weights.file) is None:
        known = study._contents.of(weights.file, "weights")
    file = known + kind if known else weights.file.rsplit("/", 1)[-1]
    return weights.model_copy(update={"file": file, "sha256": known})


def model_slug(config: ModelConfig) -> str:
    """A readable part of a model's name: its mask and schedule."""
    mask = config.mask or f"h{'None' if config.history is None else config.history}"
    return f"{mask}-{config.schedule.name}"


def expand(study: Study) -> Plan:
    """Every job of a study, each once however many suites share it. Raises ConfigError for what does not fit together."""
    plan = Plan(study)
    _check_names(study)
    for problem in checks.problems(study):
        raise ConfigError(problem)
    resolved: dict[str, suite_checks.Resolved] = {}
    for suite_name, suite in study.suites.items():
        plan.suites[suite_name] = set()
        variants: dict[str, Variant] = {}
        known: dict[str, dict[str, Any]] = {}
        timed_only = suite.measure == ("latency",)
        for name, (group, entry, values) in entries_of(suite, f"suites.{suite_name}.").items():
            variant = _resolve(study, entry, f"suites.{suite_name}.variants.{name}", timed_only)
            identity = _identity(study, variant) | {"group": group, "grid": values}
            twin = next((other for other, found in known.items() if _equal(found, identity, suite)), None)
            if twin is not None and known[twin]["group"] == group and suite.variants[group].grid:
                continue  # a grid meets itself where a value does not matter, such as the ramp at w = 1
            # two grids may meet where each has its setting off: each is read, and tuned, as a whole
            both = twin is not None and suite.variants[group].grid and suite.variants[known[twin]["group"]].grid
            if twin is not None and not both:
                raise ConfigError(f"suites.{suite_name}.variants.{name}: has the same settings as {twin!r}; change or remove it")
            known[name], variants[name] = identity, variant
        plan.identities[suite_name] = known
        groups = {name: identity["group"] for name, identity in known.items()}
        resolved[suite_name] = suite_checks.Resolved(suite, variants, groups)
        for number in suite.published:
            if number.variant not in variants:
                raise ConfigError(f"suites.{suite_name}.published.variant: " + unknown("variant", number.variant, variants))
        for claim in suite.claims:
            for key in ("variant", "against"):
                if getattr(claim, key) not in (legal := {**variants, **suite.variants}):
                    raise ConfigError(f"suites.{suite_name}.claims.{key}: " + unknown("variant", getattr(claim, key), legal))
            _known(f"suites.{suite_name}.claims.rule", "bench/analysis.py", "judge", claim.rule)
    for problem in suite_checks.problems(study, resolved):
        raise ConfigError(problem)
    plan.warnings = [*_unused_bases(study), *checks.cautions(study), *suite_checks.cautions(study, resolved)]
    for suite_name, one in resolved.items():
        for measure in one.suite.measure:
            globals()[f"_add_{measure}"](plan, suite_name, one.variants)
    _check_run_ids(plan)
    return plan


def _unused_bases(study: Study) -> Iterator[str]:
    """Bases that no variant and no teacher names: nothing in them is read or checked."""
    used = {entry.base for suite in study.suites.values() for entry in suite.variants.values()}
    teachers = re.compile(r"'base': '([^']*)'")  # at any depth of a delta or of a base
    for node in (study.bases, *(suite.variants for suite in study.suites.values())):
        used |= set(teachers.findall(str(node)))
    for name in study.bases:
        if name not in used:
            yield f"bases.{name}: is not read, no variant names it (in use: {', '.join(sorted(used & set(study.bases)))})"


def _check_run_ids(plan: Plan) -> None:
    """Names of jobs become names of folders, which file systems limit."""
    for run_id in plan.jobs:
        if len(name := run_id.split("/")[1].encode()) > 200:
            raise ConfigError(
                f"{run_id[:60]}...: {len(name)} bytes are too long for the name of a folder; shorten schedule and names"
            )


def _equal(known: dict[str, Any], identity: dict[str, Any], suite: Suite) -> bool:
    """Whether two variants would give the same numbers: time knows sizes, not training."""
    key = "timed" if suite.measure == ("latency",) else "model"
    return known["sampler"] == identity["sampler"] and known[key] == identity[key]


def _check_names(study: Study) -> None:
    if study.study == "benchmarks":
        raise ConfigError("study: 'benchmarks': results/benchmarks holds the times of bench/benchmark_*.py; choose another name")
    _known("dataset.name", "bench/datasets.py", "load", study.dataset.name)
    for name in study.evaluation.metrics:
        _known("evaluation.metrics", "bench/metrics.py", "metric", name)
    for suite_name, suite in study.suites.items():
        if {"scores", "sweep"} <= set(suite.measure):
            raise ConfigError(f"suites.{suite_name}.measure: scores and sweep score the same variants; name one")
        for name in suite.equivalence.corruptions:
            _known(f"suites.{suite_name}.equivalence.corruptions", "srdd/corruption.py", "corrupt", name)
        if suite_name in (*RESERVED, *SCOPES) or suite_name.endswith("_job") or suite_name.startswith(("collect_", "figures_", "tables_")):
            raise ConfigError(f"suites.{suite_name}: names a rule of the workflow already; choose another name")
        for name in suite.figures:
            _known(f"suites.{suite_name}.figures", "bench/figures.py", "figure", name)
        for name in suite.tables:
            _known(f"suites.{suite_name}.tables", "bench/tables.py", "table", name)
    features, data = study.features, study.dataset
    if data.num_classes not in (CLASSES.get(data.name, data.num_classes), 0):
        raise ConfigError(
            f"dataset.num_classes: {data.num_classes} does not fit {data.name}, which has {CLASSES[data.name]} classes"
        )
    if features.kind == "trained" and data.num_classes < 2:
        raise ConfigError(
            f"features.kind: 'trained' needs a dataset with classes, this has {data.num_classes}; use kind: inception"
        )
    if features.kind == "trained" and (features.weights or features.reference):
        raise ConfigError("features.weights and features.reference: only for kind: inception; remove them")


def tokenizer_seed(study: Study, variant: Variant, train_seed: int) -> int | None:
    """The training seed that a variant's tokenizer is trained with; None where one tokenizer serves all: it is shared,
    imported, or that of an imported model."""
    own = study.tokenizer_seed == "train_seed" and not (variant.tokenizer.weights or _imports(study, variant))
    return train_seed if own else None


def _imports(study: Study, variant: Variant) -> bool:
    """Whether a variant's weights, or its teacher's, exist already, and with them the tokenizer that they know."""
    return variant.weights is not None or bool(variant.distill and _teacher(study, variant).weights)


def _tokenizer_job(study: Study, variant: Variant, train_seed: int | None = None) -> tuple[Job, Job]:
    """The jobs of images and tokenizer. train_seed None: the tokenizer whatever its seed, whose name stands in all rows."""
    spec, files = variant.tokenizer, {}
    data = Job("prepare", {"dataset": data_config(study)}, {}, study.dataset.name, needs=checks.needs_of(study))
    if spec.weights:
        files["tokenizer.weights"] = WeightsConfig(file=spec.weights, sha256=spec.sha256)
        known = _by_sum(study, files["tokenizer.weights"])
        spec = spec.model_copy(update={"weights": known.file, "sha256": known.sha256})
    config, slug = {**data.config, "tokenizer": _dump(spec)}, f"v{spec.config.codebook_size}"
    names = {"tokenizer": f"{slug}-{config_hash(config)}"}
    seed = None if train_seed is None else tokenizer_seed(study, variant, train_seed)
    if seed is not None:
        config, slug = {**config, "tokenizer_seed": seed}, f"{slug}-s{seed}"
    return data, Job("tokenizer", config, {"data": data.run_id}, slug, names, files=files)


def _import_jobs(study: Study, variant: Variant) -> list[Job]:
    """The job that imports a variant's model, once for all training seeds; none for a model that is trained."""
    if variant.weights is None:
        return []
    config, identity = _train_config(study, _tokenizer_job(study, variant)[1], variant), _identity(study, variant)
    names = {key: identity[key] for key in ("tokenizer", "model")}
    # weights that exist know one tokenizer, whatever the seed
    return [Job("import_model", config, {}, model_slug(variant.model), names, {"weights": variant.weights})]


def _features_job(study: Study, data: Job) -> Job:
    return Job("features", {**data.config, "features": features_config(study)}, {"data": data.run_id}, study.features.name)


def _train_config(study: Study, tokenizer: Job, variant: Variant) -> dict:
    config = {**tokenizer.config, "model": _dump(variant.model), "training": _dump(variant.training)}
    if variant.distill is not None:
        teacher, distill = _teacher(study, variant), variant.distill
        # an unguided teacher has a plain sampler in the job: no other key says so
        drawn = teacher.sampler if distill.guided else _unsharpened(teacher.sampler)
        sampler = SamplerConfig(**canonical_sampler(drawn))
        weights = teacher.weights and _by_sum(study, teacher.weights)
        parts = TeacherSettings(model=teacher.model, training=teacher.training, sampler=sampler, weights=weights)
        config["distill"] = _dump(DistillSettings(arm=distill.arm, num_samples=distill.num_samples, teacher=parts))
        if weights is None:  # a trained teacher has no such key
            del config["distill"]["teacher"]["weights"]
    if variant.weights is not None:
        config["weights"] = _dump(_by_sum(study, variant.weights))
    return config


def _unsharpened(sampler: SamplerConfig) -> SamplerConfig:
    """A sampler without what makes samples sharper than the distribution that was learnt: also
    without refinement by rules that redraw improbable tokens, which truncates."""
    ranks = sampler.confidence or CONFIDENCES.get(sampler.select)
    cuts = sampler.select == "threshold" or (sampler.select in CONFIDENCES and ranks == "drawn")
    return sampler.model_copy(update=SHARPENING | ({"refine_steps": 0} if cuts else {}))


def _teacher(study: Study, variant: Variant) -> Variant:
    return _resolve(study, variant.distill.teacher, "distill.teacher")


def canonical_sampler(sampler: SamplerConfig) -> dict[str, Any]:
    """A sampler's settings with those that cannot matter at their defaults, so that equal samplers have one name."""
    found, default = _dump(sampler), _dump(SamplerConfig())
    # a function of the user's own may read any setting
    own_rule = sampler.refine_steps and is_own("select", sampler.select)
    if own_rule or is_own("sample", sampler.name):
        return found
    # at cfg_scale 1 guidance is off and no ramp is asked
    idle = {"cfg_ramp"} if sampler.cfg_scale == 1 else set()
    if not sampler.refine_steps:
        idle |= {"select", "confidence", "resample_fraction", "commit_above", "entropy_bound"}
        idle |= set() if sampler.sr_steps else {"p_resample", "refine_scales"}
    else:
        live = {*SELECT_READS[sampler.select]} | ({"p_resample"} if sampler.sr_steps else set())
        # the rule's own confidence has two names: its own, and null
        live -= {"confidence"} if sampler.confidence == CONFIDENCES.get(sampler.select) else set()
        idle |= {key for keys in SELECT_READS.values() for key in keys} - live
    return {key: default[key] if key in idle else value for key, value in found.items()}


def _identity(study: Study, variant: Variant) -> dict[str, Any]:
    """The names under which a variant's numbers stand in metrics.csv."""
    tokenizer = _tokenizer_job(study, variant)[1]
    trained = _train_config(study, tokenizer, variant)
    model, sampler = config_hash(trained), variant.sampler
    sizes = config_hash({"tokenizer": _dump(variant.tokenizer.config), "model": _dump(variant.model)})
    return {
        "timed": f"{model_slug(variant.model)}-{sizes}",  # the name in latency rows: time knows sizes, not training
        "tokenizer": tokenizer.identity["tokenizer"],
        "model": f"{model_slug(variant.model)}-{model}",
        "sampler": f"{sampler.name}-w{sampler.cfg_scale:g}-{config_hash(canonical_sampler(sampler))}",
        "history": variant.model.history,
        "mask": variant.model.mask,
        "depth": variant.model.depth,
        "patch_nums": list(variant.model.patch_nums),
        "settings": {
            "sampler": canonical_sampler(sampler),
            "model": _dump(variant.model),
            "training": _dump(variant.training),
            **{key: trained[key] for key in ("distill", "weights") if key in trained},
        },
    }


@dataclass(frozen=True)
class _Trained:
    """The jobs behind one trained model: what it reads, and itself (stage train, distill or import_model); the config that the
    jobs behind it go on from."""

    data: Job
    tokenizer: Job
    features: Job
    encoded: Job
    train: Job
    names: dict[str, str]
    slug: str
    config: dict[str, Any]

    def inputs(self, *roles: str) -> dict[str, str]:
        jobs = {
            "data": self.data,
            "tokenizer": self.tokenizer,
            "features": self.features,
            "tokens": self.encoded,
            "train": self.train,
        }
        return {role: jobs[role].run_id for role in roles}


def _add_trained(plan: Plan, suite: str, variant: Variant, seed: int) -> _Trained:
    """Everything up to a trained model, and the two lines that its scores are read against."""
    study, identity = plan.study, _identity(plan.study, variant)
    data, tokenizer = _tokenizer_job(study, variant, seed)
    features = _features_job(study, data)
    names = {key: identity[key] for key in ("tokenizer", "model", "sampler")}
    slug = f"{model_slug(variant.model)}-s{seed}"

    schedule, own = variant.model.schedule, tokenizer.config.get("tokenizer_seed")
    grid, family = schedule.name + ("" if own is None else f"-s{own}"), tokenizer.identity
    config = {**tokenizer.config, "patch_nums": list(schedule.patch_nums)}
    encoded = Job("encode", config, {"data": data.run_id, "tokenizer": tokenizer.run_id}, grid, family)
    read = {"data": data.run_id, "tokenizer": tokenizer.run_id, "tokens": encoded.run_id}
    baseline = Job(
        "baselines",
        {**encoded.config, "features": features_config(study), "evaluation": _dump(study.evaluation)},
        {**read, "features": features.run_id},
        grid,
        family,
    )
    stage = "train"
    if variant.distill is not None:
        stage, read = "distill", {**read, "teacher": _add_trained(plan, suite, _teacher(study, variant), seed).train.run_id}
        slug = f"{variant.distill.arm}-{slug}"
    config = {**_train_config(study, tokenizer, variant), "train_seed": seed}
    trained = Job(stage, config, read, slug, {key: names[key] for key in ("tokenizer", "model")})
    train = next(iter(_import_jobs(study, variant)), trained)
    for job in (data, tokenizer, features, encoded, baseline, train):
        plan.add(suite, job)
    return _Trained(data, tokenizer, features, encoded, train, names, slug, config)


def _trainings(plan: Plan, suite: str, variants: dict[str, Variant]) -> Iterator[tuple[Variant, _Trained]]:
    """Every variant with every training seed of a suite."""
    for name, variant in variants.items():
        seeds = plan.study.suites[suite].train_seeds or plan.study.train_seeds
        if variant.weights and len(seeds) > 1:
            raise ConfigError(
                f"suites.{suite}.train_seeds: {list(seeds)}: {name!r} is imported, one training that no seed changes; give the suite one seed"
            )
        for seed in seeds:
            yield variant, _add_trained(plan, suite, variant, seed)


def _add_scores(plan: Plan, suite: str, variants: dict[str, Variant], snapshots: bool = False) -> None:
    """Pictures, kept on disk, and their scores."""
    for variant, made in _trainings(plan, suite, variants):
        settings = {"sampler": canonical_sampler(variant.sampler), "evaluation": _dump(plan.study.evaluation)}
        config = {**made.config, **settings, "snapshots": snapshots}
        sample = Job("sample", config, made.inputs("data", "tokenizer", "train"), made.slug, made.names)
        config = {**config, "features": features_config(plan.study)}
        read = {**made.inputs("data", "features"), "sample": sample.run_id}
        plan.add(suite, sample)
        plan.add(suite, Job("evaluate", config, read, made.slug, made.names))


def _add_convergence(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Scores of the weights along the training."""
    for name, variant in variants.items():
        if variant.weights:
            raise ConfigError(
                f"suites.{suite}.measure: convergence of {name!r}, which is imported: it has no weights along a training"
            )
    _add_scores(plan, suite, variants, snapshots=True)


def _add_sweep(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job a trained model for all its samplers."""
    models: dict[str, tuple[_Trained, list[dict[str, Any]]]] = {}
    for variant, made in _trainings(plan, suite, variants):
        entry = {"name": made.names["sampler"], "sampler": canonical_sampler(variant.sampler)}
        entries = models.setdefault(made.train.run_id, (made, []))[1]
        entries += [entry] if entry not in entries else []
    study, roles = plan.study, ("data", "tokenizer", "features", "tokens", "train")
    shared = {"evaluation": _dump(study.evaluation), "features": features_config(study), "sweep": _dump(study.suites[suite].sweep)}
    for made, samplers in models.values():
        config = {**made.config, **shared, "samplers": samplers}
        names = {key: made.names[key] for key in ("tokenizer", "model")}
        plan.add(suite, Job("sweep", config, made.inputs(*roles), made.slug, names))


def _add_probe(plan: Plan, suite: str, variants: dict[str, Variant], measure: str, sampled: bool) -> None:
    """A job that asks one question of each trained model, with its sampler or without."""
    study, roles = plan.study, ("data", "tokenizer", "tokens", "train", *(["features"] if sampled else []))
    for variant, made in _trainings(plan, suite, variants):
        config = {**made.config, measure: _dump(getattr(study.suites[suite], measure))}
        if sampled:
            config |= {"sampler": canonical_sampler(variant.sampler), "features": features_config(study)}
            config |= {"evaluation": _dump(study.evaluation)}
        names = {key: made.names[key] for key in ("tokenizer", "model", *(["sampler"] if sampled else []))}
        plan.add(suite, Job(measure, config, made.inputs(*roles), made.slug, names))


def _add_equivalence(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """ELBO against cross-entropy."""
    _add_probe(plan, suite, variants, "equivalence", sampled=False)


def _add_zero_shot(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """In-painting, out-painting, super-resolution."""
    _add_probe(plan, suite, variants, "zero_shot", sampled=True)


def _add_error_propagation(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Corrupted tokens of one scale, and what becomes of them."""
    _add_probe(plan, suite, variants, "error_propagation", sampled=True)


def _add_snr(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Signal-to-noise ratio along the scales of the first training seed's tokenizer: one job a schedule, no model."""
    first = (plan.study.suites[suite].train_seeds or plan.study.train_seeds)[0]
    for variant in variants.values():
        data, tokenizer = _tokenizer_job(plan.study, variant, first)
        schedule = variant.model.schedule
        config = {**tokenizer.config, "patch_nums": list(schedule.patch_nums), "snr": _dump(plan.study.suites[suite].snr)}
        for job in (
            data,
            tokenizer,
            Job("snr", config, {"data": data.run_id, "tokenizer": tokenizer.run_id}, schedule.name, tokenizer.identity),
        ):
            plan.add(suite, job)


def _add_latency(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job for all variants of the suite, so that its rounds interleave them. Weights do not change time: none are trained, and
    variants that differ in training only are timed once."""
    entries, timed = {}, set()
    for name, variant in variants.items():
        identity = _identity(plan.study, variant)
        if (key := (identity["timed"], identity["sampler"])) in timed:
            continue
        timed.add(key)
        entries[name] = {
            "identity": {"model": identity["timed"], "sampler": identity["sampler"]},
            "tokenizer": _dump(variant.tokenizer.config),
            "model": _dump(variant.model),
            "sampler": canonical_sampler(variant.sampler),
        }
    plan.add(
        suite,
        Job(
            "latency", {"latency": _dump(plan.study.suites[suite].latency or plan.study.latency), "variants": entries}, {}, suite
        ),
    )


def _nothing_to_make(plan: Plan, scope: str | None) -> str | None:
    """Why a run of all that a scope holds would end at once without a number; None where it would not."""
    if not plan.suites_of(scope):
        names = ", ".join(plan.study.suites)
        return f"suites: none is core ({names}); add the word full to run all, or ask for one with `./run snakemake`"
    if not (plan.outputs_of("figures", scope) or plan.outputs_of("tables", scope)):
        return "suites: none of these has figures or tables, nothing would run; give one tables, such as [scores]"
    return None


def main() -> None:
    """Check a study and say what it would run: `python -m bench.config STUDY.yaml [full] [--name] [--files]`."""
    if len(sys.argv) < 2:
        sys.exit(f"error: no study given; {main.__doc__.split(': ', 1)[1]}")
    try:
        plan = load_study(sys.argv[1])
    except ConfigError as error:
        sys.exit(f"error: {error}")
    scope = "full" if "full" in sys.argv else None
    if "--name" in sys.argv and (problem := _nothing_to_make(plan, scope)):
        sys.exit(f"error: {sys.argv[1]}: {problem}")
    if "--files" in sys.argv and (missing := missing_files(plan, plan.jobs_of(scope))):
        sys.exit(f"error: {sys.argv[1]}: {missing[0]}")
    if "--files" in sys.argv:
        problem = refused_function(sys.argv[1], plan, plan.jobs_of(scope))
        if problem:
            sys.exit(f"error: {problem}")
    if "--name" not in sys.argv:  # who asks for the name goes on to run the study, which says them
        for warning in plan.warnings:
            print(f"warning: {sys.argv[1]}: {warning}", file=sys.stderr)
    print(plan.study.study if "--name" in sys.argv else "\n".join(plan.jobs_of("full")))


if __name__ == "__main__":
    main()
