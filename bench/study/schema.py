"""A study file's schema: suites, their variants and claims, and what each measure is told. Imports no torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from srdd.config import Chance, ModelConfig, Positive, SamplerConfig, Share, Strict

from .checks import MIN_IMAGES
from .contents import Contents
from .scores import better
from .settings import (
    SLUG,
    DatasetConfig,
    EvaluationConfig,
    FeaturesConfig,
    Name,
    Precision,
    Seed,
    TokenizerSpec,
    TrainingConfig,
    WeightsConfig,
    once_each,
)

RESERVED = ("all", "full", "figures", "tables", "report", "report_full")  # targets of every study


SCOPES = ("study", "published")  # names of what is collected and drawn beside the suites


CLASSES = {"digits": 10, "fashion_mnist": 10}  # of the sets that are known before they are read


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

    arm: str = Field(description="name of an arm_<name> in bench/pipeline/distill.py")
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

    _batch_sizes_differ = once_each("batch_sizes")


class SweepConfig(Strict):
    """Many samplers of each trained model, sampled and scored by one job a model."""

    halves: bool = Field(True, description="score each half of the sample seeds too, which tuning needs; false: half of the time")
    thresholds: tuple[Chance, ...] = Field((), strict=False, description="report the share of drawn tokens below each, per scale")

    _thresholds_differ = once_each("thresholds")


class EquivalenceConfig(Strict):
    """The diffusion ELBO of trained models against their cross-entropy."""

    eps: tuple[Share, ...] = Field((0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7), strict=False, min_length=1)
    corruptions: tuple[str, ...] = Field(("uniform", "absorb"), strict=False, min_length=1)
    draws: Positive = Field(4, description="draws of the forward noise per picture")
    num_images: Positive = Field(128, description="held-out pictures")

    _names_differ = once_each("eps", "corruptions")


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

    _shares_differ = once_each("shares")


class Claim(Strict):
    """What a suite may confirm or refute, judged by a stated rule."""

    text: str = Field(min_length=1)
    origin: Literal["paper", "ours"] = "ours"
    rule: str = Field("score", description="name of a judge_<name> in bench/report/analysis.py")
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

    _outputs_differ = once_each("measure", "figures", "tables", "train_seeds")

    @model_validator(mode="after")
    def _published_once(self) -> Suite:
        seen: set[tuple[str, str]] = set()
        for number in self.published:
            if (key := (number.variant, number.metric)) in seen:
                raise ValueError(f"published: {number.metric} of {number.variant!r} stands twice; keep one")
            seen.add(key)
        return self


class Named(Strict):
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

    _seeds_differ = once_each("train_seeds")
