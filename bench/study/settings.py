"""What a study sets of data, features, trainings and evaluation: the schema. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from srdd.config import BelowOne, Positive, Share, Side, Strict
from srdd.lookup import names_function

from .checks import MIN_IMAGES
from .correction_settings import CorrectionConfig, by_name
from .errors import ConfigError
from .pretrained import PRETRAINED, Network

SLUG = r"[a-z0-9][a-z0-9_]*"


HUB = "hf://"  # a file of the Hugging Face hub: hf://OWNER/REPO/FILE


def _weights_file(value: str) -> str:
    if value.startswith(HUB) and not re.fullmatch(HUB + r"[\w.-]+(/[\w.-]+){2,}", value):
        raise ValueError("no file of the hub; write hf://OWNER/REPO/FILE")
    if not value.endswith((".pth", ".safetensors")):
        raise ValueError(
            "neither .pth (official weights) nor .safetensors (weights of this project)"
        )
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
        raise ValueError(
            "give a grey level from 0 to 255, or three of them for red, green and blue"
        )
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

    file: WeightsFile = Field(
        description="an official .pth or a .safetensors of this project: a path, or "
        "hf://OWNER/REPO/FILE"
    )
    sha256: Sha256 | None = Field(
        None, description="needed for every .pth and for every file of the hub"
    )


Precision = Literal["float32", "bfloat16"]
Compiles = bool | Literal["auto"]  # auto: where it was measured to pay


class DatasetConfig(Strict):
    """Which images, and how they are split. Held-out images are never trained on."""

    name: str = Field(
        description="name of a load_<name> in bench/pipeline/datasets.py",
        json_schema_extra=names_function("load"),
    )
    path: str | None = Field(
        None, min_length=1, description="where the files lie; null: the loader's own places"
    )
    content: Sha256 | None = Field(
        None,
        description="digest of the files at path, which is what they are known by; given: others "
        "are refused",
    )
    image_size: Side = Field(description="side in pixels that images are brought to")
    channels: Literal[1, 3] = Field(description="1: grey, 3: red, green and blue")
    num_classes: int = Field(ge=0, le=10**6, description="0: no classes")
    val_share: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="share of the training images that chooses the step that is kept",
    )
    test_share: float = Field(
        0.2, gt=0, lt=0.9, description="held out, where the set has no test part of its own"
    )
    train_images: Positive | None = Field(
        None, description="train on this many only, chosen by hash, some of every class; null: all"
    )
    crop: bool = Field(
        True,
        description="resize the short side to 1.125 of the size and cut out the middle square, as "
        "VAR does; false: the whole short side; the long one is cut all the same",
    )
    background: Background = Field(
        255, description="what transparent pixels show: a grey level, or three colours"
    )
    group: Annotated[str, AfterValidator(_pattern)] | None = Field(
        None,
        description="regular expression on a file's path below the folder: images with one match "
        "(of the first bracket) stay on one "
        "side of the split, such as the frames of a video; null: only exact copies do",
    )
    credit: str | None = Field(
        None,
        min_length=1,
        max_length=300,
        description="whose images they are and under which licence: stands in the caption of every "
        "figure that shows some; null: what the loader knows, such as of emoji",
    )


INCEPTION_DIMS = (64, 192, 768, 2048)  # layers of torch-fidelity's Inception-v3


def _usual_dim(data: dict[str, Any]) -> int:
    """Features of an image where a study does not say: of each kind its own number."""
    network = PRETRAINED.get(data.get("network") or "efficientnet_lite0")
    of_pretrained = network.dim if network else 64
    return {"inception": 2048, "pretrained": of_pretrained}.get(str(data.get("kind")), 64)


class FeaturesConfig(Strict):
    """A feature extractor of all scores. Its name is part of every metric's name."""

    kind: Literal["trained", "inception", "pretrained"] = Field(
        "trained",
        description="trained: a classifier of this study's training split; inception: "
        "Inception-v3 weights; pretrained: another network with weights of ImageNet",
    )
    name: Name = Field(description="suffix of the metrics, such as digits64")
    network: Network | None = Field(
        None, description="pretrained only: efficientnet_lite0, whose weights come in a package"
    )
    image_size: int | None = Field(
        None,
        ge=32,
        le=1024,
        description="pretrained only: side that images are resized to (bilinear, antialiased); the "
        "name ends with it",
    )
    dim: int = Field(
        default_factory=_usual_dim,
        ge=2,  # FID takes a covariance matrix, which one number does not have
        le=2**16,
        description="features of an image: 64 for kind trained; of kind inception 64, 192, 768 "
        "or, where none is given, 2048; of kind pretrained those of the network, 1280",
    )
    channels: int = Field(
        32,
        ge=8,
        le=2**16,
        multiple_of=8,
        description="of the first layer; a multiple of its 8 groups",
    )
    steps: Positive = Field(500, description="of training")
    batch_size: Positive = Field(128, description="images a step")
    lr: float = Field(2e-3, gt=0, description="learning rate")
    seed: Seed = Field(0, description="of weights and batches")
    eval_every: Positive | None = Field(
        None,
        description="trained only: steps between losses on the val split; the weights of the "
        "lowest are kept; null: those of the last step",
    )
    weights: str | None = Field(
        None,
        min_length=1,
        description="inception only: path of the weights; null: torch-fidelity downloads them",
    )
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="inception only: checked before the file is read",
    )
    reference: str | None = Field(
        None,
        min_length=1,
        description="inception only: an .npz with mu and sigma to score FID against, and perhaps "
        "images arr_0 (uint8, NHWC) for KID, "
        "precision and recall, instead of the test split",
    )
    reference_sha256: Sha256 | None = Field(
        None, description="of reference; checked before it is read"
    )

    @model_validator(mode="after")
    def _inception_has_the_layer(self) -> FeaturesConfig:
        if self.kind == "inception" and self.dim not in INCEPTION_DIMS:
            raise ValueError(
                f"dim {self.dim}: Inception has layers of {', '.join(map(str, INCEPTION_DIMS))} "
                f"features; take 2048"
            )
        return self


def warmup_of(usual: int) -> Any:
    """Steps of warm-up: the usual number, and in a short training at most half of its steps, so
    that lr reaches its peak."""

    def steps(data: dict[str, Any]) -> int:
        return min(usual, int(data.get("steps", 2 * usual)) // 2)

    text = (
        f"steps until lr is at its peak; where none are given {usual}, or half of the steps if "
        "that is less"
    )
    return Field(default_factory=steps, ge=0, le=10**9, description=text)


class Warmed(Protocol):
    """What trains with a warm-up."""

    @property
    def steps(self) -> int: ...
    @property
    def warmup(self) -> int: ...


def check_warmup(training: Warmed) -> None:
    """Raises ValueError for a warm-up that is not shorter than the training."""
    if training.warmup >= training.steps:
        raise ValueError(
            f"warmup {training.warmup}: is not shorter than steps {training.steps}, lr would not "
            f"reach its peak; "
            f"give less than {training.steps}"
        )


class TrainingConfig(Strict):
    """How a scale transformer is trained (VAR, arXiv 2404.02905, section 4)."""

    steps: Positive = Field(400, description="at most; patience may end earlier")
    batch_size: Positive = Field(
        64, description="images a step, of all processes and micro-batches together"
    )
    accumulate: Positive = Field(1, description="micro-batches a step: less memory, the same step")
    checkpointing: bool = Field(
        False, description="compute each block again on the way back: less memory, the same step"
    )
    lr: float = Field(1e-3, gt=0, description="learning rate at its peak")
    final_lr: Share = Field(
        0.1, description="share of lr that is left at the last step; decay is linear"
    )
    warmup: int = warmup_of(20)
    beta1: BelowOne = Field(0.9, description="of AdamW")
    beta2: BelowOne = Field(0.95, description="of AdamW")
    weight_decay: float = Field(0.05, ge=0, description="of AdamW")
    clip: float = Field(2.0, gt=0, description="largest norm of the gradient")
    ema_decay: BelowOne = Field(0.99, description="of the average of the weights, which is kept")
    eval_every: Positive = Field(
        50,
        description="steps between held-out losses; the evaluations that choose the step that is "
        "kept",
    )
    patience: Positive | None = Field(
        None, description="stop after so many evaluations without a better one; null: never"
    )
    snapshot_every: Positive = Field(
        100, description="steps between the weights that the convergence figure scores"
    )
    save_every: Positive = Field(50, description="steps between checkpoints to resume from")
    corruption: str = Field(
        "none",
        description="name of a corrupt_<name> in srdd/corruption.py: what befalls the tokens that "
        "are read",
        json_schema_extra=names_function("corrupt"),
    )
    eps: Share = Field(
        0.0,
        description="noise of the corruption; the loss is then the diffusion ELBO at this noise",
    )
    correction: Annotated[CorrectionConfig, BeforeValidator(by_name)] = Field(
        CorrectionConfig(),
        description="errors that are met in training and repaired: none, requantise, rollout, or a "
        "mapping of name and its settings",
    )
    mask_weight: str = Field(
        "count",
        description="name of a weigh_<name> in srdd/loss.py: what a masked token counts in the "
        "loss of a model with mask_prob > 0; "
        "count: 1; elbo: the loss is the any-order bound",
        json_schema_extra=names_function("weigh"),
    )
    mask_draws: Positive = Field(
        4,
        description="draws of masks per image in the held-out losses of a model with mask_prob > 0",
    )
    loss_weight: str = Field(
        "token",
        description="name of a balance_<name> in srdd/balance.py: what a token of each scale "
        "counts in the loss that is minimised, 1 on average; token: 1, side: 1/p of a scale of "
        "side p, scale: 1/p^2, bell: most in the middle. Held-out losses stay unweighted",
        json_schema_extra=names_function("balance"),
    )
    eval_images: Positive | None = Field(
        None,
        description="test images, at most, of the losses along the training; null: all. The kept "
        "weights are tested on all",
    )
    unique_images: Positive | None = Field(
        None,
        description="training images that the model learns from, chosen by hash, some of every "
        "class, those of fewer among those of more; the tokenizer sees all; null: all",
    )
    precision: Precision = Field("float32", description="of the network; the weights are float32")
    compile: Compiles = Field(
        "auto", description="compile each block; auto: on a GPU, where the training is long enough"
    )

    def makes_snapshot(self, step: int) -> bool:
        """Whether the weights after a step are kept for figures: now and then, and after the
        last."""
        return step % self.snapshot_every == 0 or step == self.steps

    def images_at_once(self, processes: int) -> int:
        """Images of one process's micro-batch. Raises ConfigError where they are not a whole
        number."""
        rows, rest = divmod(self.batch_size, self.accumulate * processes)
        if rest:
            raise ConfigError(
                f"training.batch_size {self.batch_size}: cannot be shared among {processes} "
                f"processes with accumulate "
                f"{self.accumulate}; give a multiple of {self.accumulate * processes}"
            )
        return rows

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> TrainingConfig:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate}: does not divide batch_size {self.batch_size} into "
                f"equal micro-batches"
            )
        return self

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> TrainingConfig:
        check_warmup(self)
        return self

    @model_validator(mode="after")
    def _noise_has_a_kind(self) -> TrainingConfig:
        if (self.corruption == "none") != (self.eps == 0):
            raise ValueError(
                f"corruption {self.corruption!r} with eps {self.eps}: noise needs both a "
                f"corruption and eps > 0, or neither"
            )
        return self


def once_each(*keys: str) -> Any:
    """A validator that refuses a member that stands twice in one of these tuples: its rows would
    too."""

    def check(self: BaseModel) -> BaseModel:
        for key in keys:
            names = [
                f"{value:g}" if isinstance(value, float) else str(value)
                for value in getattr(self, key) or ()
            ]
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(
                    f"{key} {list(getattr(self, key))}: {twice[0]} stands twice; give each once"
                )
        return self

    return model_validator(mode="after")(check)


class EvaluationConfig(Strict):
    """How samples are scored; the same for every variant."""

    num_images: int = Field(
        1280,
        ge=MIN_IMAGES,
        le=10**7,
        description="generated images per score; fewer than 100 are refused",
    )
    first_seed: Seed = Field(
        0,
        description="sample seed of image 0 of training seed 0; training seed s begins s "
        "num_images later",
    )
    labels: Literal["training", "balanced"] = Field(
        "training",
        description="classes asked for: in the shares of the training split, or all equally often",
    )
    batch_size: Positive = Field(256, description="images that are drawn at once")
    precision: Precision = Field(
        "float32",
        description="of the network when it samples; images depend on their batch by rounding: a "
        "few per cent in float32 at full size, "
        "more in bfloat16",
    )
    compile: Compiles = Field(
        "auto",
        description="compile what the model calls at each scale; auto: on a GPU, for many images",
    )
    metrics: tuple[str, ...] = Field(
        ("fidelity", "class_agreement"),
        strict=False,
        min_length=1,
        description="names of metric_<name> in bench/pipeline/metrics.py",
        json_schema_extra=names_function("metric"),
    )

    _metrics_differ = once_each("metrics")
