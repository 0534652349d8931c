"""A study file's schema: suites, their variants and claims, and what each measure is told.
Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from srdd.config import BelowOne, ModelConfig, Positive, SamplerConfig, Strict
from srdd.lookup import names_function
from srdd.misfits import refuse

from . import rooms
from .contents import Contents
from .errors import ConfigError
from .merging import merged
from .restore_settings import RestoreConfig, restore_misfit
from .scores import better
from .settings import (
    SLUG,
    DatasetConfig,
    EvaluationConfig,
    FeaturesConfig,
    Name,
    Seed,
    TrainingConfig,
    WeightsConfig,
    once_each,
)
from .tokenizer_settings import TokenizerSpec

T = TypeVar("T")

RESERVED = ("all", "full", "figures", "tables", "report", "report_full")  # targets of every study


SCOPES = ("study", "published")  # names of what is collected and drawn beside the suites


# of the sets that are known before they are read
CLASSES = {"digits": 10, "fashion_mnist": 10, "emoji": 9, "cifar10": 10}


class SuiteEntry(Strict):
    """One variant of a suite, a base and what it changes; or, with a grid, one variant for each
    combination of its values."""

    base: str = Field(description="name of one of the study's bases")
    delta: dict[str, Any] = Field({}, description="dotted key: value; what changes in the base")
    grid: dict[str, Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]] = Field(
        {}, description="dotted key: values; every combination is a variant"
    )


# what makes samples sharper than the distribution that was learnt, and where each is off
SHARPENING = {"cfg_scale": 1.0, "temperature": 1.0, "top_k": None, "top_p": 1.0, "sr_steps": 0}


class CcaConfig(Strict):
    """Condition contrastive alignment (CCA, arXiv 2410.09347): a trained model learns to tell an
    image's class from another one, so that it needs no guidance."""

    beta_tokens: float = Field(
        13.6,
        gt=0,
        le=1e6,
        description="sharpness beta times the tokens of an image, so that one value serves all "
        "schedules; published: beta 0.02 at 680 tokens",
    )
    lambda_: float = Field(
        50.0, ge=0, le=1e6, description="weight of a wrong class; 0: own classes alone"
    )
    uncond: BelowOne = Field(
        0.1, description="share of images of a step that lose their class, and stay positive"
    )


class DistillConfig(Strict):
    """How a model of fewer scales is made from a teacher. The method is this project's: only
    the beginning of the paper's text was seen by us."""

    arm: str = Field(description="name of an arm_<name> in bench/pipeline/distill.py")
    teacher: SuiteEntry = Field(description="the teacher: a base and a delta")
    num_samples: Positive = Field(
        2048, description="images of the teacher that the arm sequence learns from"
    )
    guided: bool = Field(
        False,
        description="arm sequence: true: the teacher draws with its guidance, temperature, top-k, "
        "top-p and redraws of improbable tokens, and the student must be scored without; false: "
        "from the distribution that it learnt",
    )
    cca: CcaConfig = Field(
        CcaConfig(),
        description="arms cca and cross_entropy (its control, which reads uncond alone)",
    )

    @model_validator(mode="after")
    def _teacher_is_one(self) -> DistillConfig:
        if self.teacher.grid:
            raise ValueError(
                f"teacher.grid {sorted(self.teacher.grid)}: a teacher is one variant; use delta"
            )
        return self


class Variant(Strict):
    """The whole settings of one method: what a base holds."""

    tokenizer: TokenizerSpec = Field(description="the multi-scale VQ-VAE")
    model: ModelConfig = Field(description="the scale transformer")
    training: TrainingConfig = Field(TrainingConfig(), description="how the model is trained")
    sampler: SamplerConfig = Field(SamplerConfig(), description="how tokens are drawn")
    distill: DistillConfig | None = Field(None, description="made from a teacher; null: it is not")
    restore: RestoreConfig | None = Field(
        None, description="degraded images that it learns from, with model.condition"
    )
    weights: WeightsConfig | None = Field(
        None, description="of the model, which is then not trained; null: train it"
    )

    @model_validator(mode="after")
    def _restoration_fits(self) -> Variant:
        refuse(restore_misfit(self.model.condition, self.restore, self.distill, self.weights))
        return self

    @model_validator(mode="after")
    def _ladder_fits(self) -> Variant:
        corruption, order = self.training.corruption, self.tokenizer.training.code_order
        if self.model.regresses and corruption != "none":
            raise ValueError(
                f"training.corruption {corruption!r}: head gauss reads no tokens that could be "
                "corrupted; set it to none"
            )
        if self.model.regresses and self.weights is not None:
            raise ValueError(
                f"weights {self.weights.file!r}: head gauss is trained here alone; leave it out"
            )
        if self.weights is not None and order != "trained":
            raise ValueError(
                f"tokenizer.training.code_order {order!r}: weights {self.weights.file!r} know the "
                "codes in the order that they were trained with; set it to trained"
            )
        return self


class TeacherSettings(Strict):
    """The settings of a teacher that was trained (training) or imported (weights)."""

    model: ModelConfig
    training: TrainingConfig | None
    sampler: SamplerConfig
    weights: WeightsConfig | None = None


class DistillSettings(Strict):
    """A distillation as its job reads it: the teacher in full."""

    arm: str = Field(json_schema_extra=names_function("arm"))
    num_samples: Positive
    teacher: TeacherSettings
    cca: CcaConfig = CcaConfig()


class Claim(Strict):
    """What a suite may confirm or refute, judged by a stated rule."""

    text: str = Field(min_length=1, description="the claim in one sentence")
    origin: Literal["paper", "ours"] = Field("ours", description="who says so")
    rule: str = Field("score", description="name of a judge_<name> in the show.py of a room")
    variant: str = Field(description="a variant, or with rule tuned the entry of a grid")
    against: str = Field(description="what it is compared with")
    metric: str = Field(
        "fid",
        description="a score's name without its extractor; for rule equal a gap, such as "
        "path_kl_equal_state; for rule memory "
        "pipeline, or none for the sampler's working memory",
    )
    better: Literal["lower", "higher"] | None = Field(
        default_factory=lambda data: better(str(data.get("metric"))),
        description="what is claimed of the metric; follows from a known one, needed for one of "
        "your own",
    )
    margin: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="rule same: how far apart two variants may be and count as the same",
    )

    @model_validator(mode="after")
    def _two_are_compared(self) -> Claim:
        if self.variant == self.against:
            raise ValueError(
                f"variant {self.variant!r}: is compared with itself; name another one in against"
            )
        return self


class Published(Strict):
    """A number that others published, shown beside ours as theirs and compared with nothing:
    evaluators and settings differ."""

    variant: str = Field(description="the variant beside which it stands")
    metric: Literal["fid", "kid", "is", "precision", "recall"] = Field(
        description="of which metric"
    )
    value: float = Field(description="the number as it was published")
    source: str = Field(min_length=1, description="who says so")

    @model_validator(mode="after")
    def _value_is_possible(self) -> Published:
        least, most = {"fid": (0, math.inf), "is": (1, math.inf), "kid": (-math.inf, math.inf)}.get(
            self.metric, (0, 1)
        )
        if not least <= self.value <= most:
            legal = f"{least} or more" if most == math.inf else f"a share from {least} to {most}"
            raise ValueError(f"value {self.value:g}: is no {self.metric}, which is {legal}")
        return self


class Suite(Strict):
    """One table or figure: a claim, variants, what is measured."""

    claim: str = Field(min_length=1, description="what is compared, in one sentence")
    claims: tuple[Claim, ...] = Field(
        (), strict=False, description="what is judged, for the table of claims"
    )
    published: tuple[Published, ...] = Field(
        (), strict=False, description="what others printed, for a column of its own in `scores`"
    )
    core: bool = Field(
        True, description="part of the default run; else of `full`, or by its own target"
    )
    measure: tuple[str, ...] = Field(
        ("scores",),
        strict=False,
        min_length=1,
        description="rooms of bench/experiments that ask something of the variants",
    )
    variants: dict[str, SuiteEntry] = Field(min_length=1, description="by the name that is shown")
    train_seeds: tuple[Seed, ...] | None = Field(
        None, strict=False, min_length=1, max_length=1000, description="null: the study's"
    )
    tuned_on: Name | None = Field(
        None,
        description="the suite whose scores chose settings of this one; its training seeds must "
        "be others",
    )
    figures: tuple[str, ...] = Field((), strict=False, description="figures of any room, below")
    tables: tuple[str, ...] = Field((), strict=False, description="tables of any room, below")

    _outputs_differ = once_each("measure", "figures", "tables", "train_seeds")

    @field_validator("measure")
    @classmethod
    def _measures_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in rooms.measures():
                raise ValueError(rooms.no_measure(name))
        return value

    @property
    def sizes_only(self) -> bool:
        """Whether no image and no weights are read: other sizes than the data's may be timed."""
        return set(self.measure) <= set(rooms.which("SIZES_ONLY"))

    @model_validator(mode="after")
    def _published_once(self) -> Suite:
        seen: set[tuple[str, str]] = set()
        for number in self.published:
            if (key := (number.variant, number.metric)) in seen:
                raise ValueError(
                    f"published: {number.metric} of {number.variant!r} stands twice; keep one"
                )
            seen.add(key)
        return self


class Named(Strict):
    study: str = Field(pattern=rf"^{SLUG}$")


class Composition(Strict):
    """Which other files a study is made of."""

    like: str | None = Field(
        None,
        min_length=1,
        exclude=True,
        description="the study that this one starts from: a name in workflows/config, or a path",
    )
    take: tuple[Name, ...] | None = Field(
        None,
        strict=False,
        exclude=True,
        description="suites of workflows/config/suites, or of the study that this one is like, in "
        "order; null: all of that study",
    )

    _suites_differ = once_each("take")


def _listed(value: Any) -> Any:
    """One extractor as a list of one."""
    return [value] if isinstance(value, dict) else value


class Study(Composition):
    """A study file."""

    study: Name = Field(description="its name, and that of its folder below results/")
    reduced: str | None = Field(
        None,
        min_length=1,
        description="what was cut, said in every table and figure; null: nothing",
    )
    dataset: DatasetConfig = Field(description="the images")
    features: Annotated[tuple[FeaturesConfig, ...], BeforeValidator(_listed)] = Field(
        strict=False,
        min_length=1,
        max_length=8,
        description="the feature extractor of all scores, or a list of them: the first is the main "
        "one, and every score is taken in each",
    )
    bases: dict[str, dict[str, Any]] = Field(
        min_length=1, description="whole settings by name, which variants start from"
    )
    train_seeds: tuple[Seed, ...] = Field(
        (0, 1, 2),
        strict=False,
        min_length=1,
        max_length=1000,
        description="every model is trained once with each",
    )
    tokenizer_seed: Literal["train_seed", "shared"] = Field(
        "train_seed",
        description="train_seed: each training seed trains a tokenizer of its own; shared: one "
        "serves all, and "
        "intervals are conditional on it",
    )
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="how samples are scored")
    suites: dict[Name, Suite] = Field(
        min_length=1, description="the suites by name: of this study, or changes of those it takes"
    )
    _contents: Contents = PrivateAttr(default_factory=Contents)
    _memory: dict[Any, Any] = PrivateAttr(default_factory=dict)

    _seeds_differ = once_each("train_seeds")

    def __copy__(self) -> Study:
        copied = super().__copy__()
        copied._memory = {}  # a copy may get other settings
        return copied

    @property
    def extractor(self) -> FeaturesConfig:
        """The main feature extractor: the first."""
        return self.features[0]

    @property
    def trains_extractor(self) -> bool:
        """Whether an extractor is trained as a classifier of the study's own classes."""
        return any(features.kind == "trained" for features in self.features)

    @property
    def extractors(self) -> dict[str, FeaturesConfig]:
        """The feature extractors by what messages call them: features, or of several
        features[1]."""
        if len(self.features) == 1:
            return {"features": self.extractor}
        return {f"features[{place}]": one for place, one in enumerate(self.features)}

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What follows from the study and a key, computed when it is first asked for."""
        if key not in self._memory:
            self._memory[key] = make()
        value: T = self._memory[key]
        return value

    def seeds_of(self, suite: str) -> tuple[int, ...]:
        """The training seeds of a suite."""
        return self.suites[suite].train_seeds or self.train_seeds

    def told(self, suite: str, room: str) -> Any:
        """What a room is told in a suite: the suite's settings, else the study's, else the
        defaults, each setting by itself. Raises ConfigError for two that do not fit."""
        return self.once(("told", suite, room), lambda: self._told(suite, room))

    def _told(self, suite: str, room: str) -> Any:
        own, whole = getattr(self.suites[suite], room, None), getattr(self, room, None)
        if own is None or whole is None:
            return own or whole or rooms.with_settings()[room]()
        try:
            return type(whole).model_validate(merged(whole, own))
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"suites.{suite}.{room}: with {room} of the study: {said}") from None


def _room_fields(whose: str) -> dict[str, Any]:
    """A field for the settings of every room, none given."""
    about = {
        room: (settings.__doc__ or "").partition("\n")[0]
        for room, settings in rooms.with_settings().items()
    }
    return {
        room: (settings | None, Field(None, description=f"{about[room]} Null: {whose}"))
        for room, settings in rooms.with_settings().items()
    }


@cache
def study_schema() -> type[Study]:
    """The schema of a study file, with a key for the settings of every room: in a suite, and in
    the study for all suites."""
    for room in rooms.with_settings():
        if room in {**Study.model_fields, **Suite.model_fields}:
            raise ConfigError(
                f"bench/experiments/{room}: {room!r} is a key of a study or a suite already, "
                "and would be one for the settings of the room; rename the folder"
            )
    suite = create_model(
        "Suite", __base__=Suite, __doc__=Suite.__doc__, **_room_fields("the study's")
    )
    suites = (dict[Name, suite], Field(min_length=1))
    return create_model(
        "Study",
        __base__=Study,
        __doc__=Study.__doc__,
        suites=suites,
        **_room_fields("the defaults"),
    )
