"""The row of a study in runs.csv, and those of its variants: what figures and tables expect there,
checked when results are loaded. Imports no torch.

A key that an older version did not write is looked for when a figure needs it: `Record` then says
which one is missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..study.rooms import compared
from ..study.settings import SLUG
from .rows import RUN_COLUMNS, brief, read_rows

Count = Annotated[int, Field(ge=0, lt=2**53)]
Side = Annotated[int, Field(ge=1, lt=2**20)]
Name = Annotated[str, Field(pattern=rf"^{SLUG}$")]
Number = Annotated[float, Field(allow_inf_nan=False, gt=-1e15, lt=1e15)]


class Record(dict):
    """A JSON object of the study's row. Raises ValueError, not KeyError, for a key that it
    lacks."""

    def __missing__(self, key: str) -> Any:
        raise ValueError(
            f"the row of the study lacks {key!r}; written by another version or damaged, "
            "collect again"
        )


class Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


PartT = TypeVar("PartT", bound=Part)


class RulePart(Part):
    name: str


class SamplerPart(Part):
    name: str
    cfg_scale: Number
    cfg_ramp: str
    temperature: Number
    top_k: Count | None
    top_p: Number
    sr_steps: Count
    refine_steps: Count
    p_resample: Number
    select: RulePart
    refine_scales: list[Count] | None


class TrainingPart(Part):
    steps: Count
    batch_size: Count


class ModelPart(Part):
    patch_nums: list[Side] = Field(min_length=1)


class TeacherPart(Part):
    model: ModelPart
    sampler: SamplerPart
    training: TrainingPart | None


class DistillPart(Part):
    arm: str
    num_samples: Count
    teacher: TeacherPart


class WeightsPart(Part):
    file: str
    sha256: str | None


class SettingsPart(Part):
    sampler: SamplerPart
    model: ModelPart | None = None
    training: TrainingPart | None = None
    distill: DistillPart | None = None
    weights: WeightsPart | None = None


class VariantPart(Part):
    timed: str
    tokenizer: str = Field(pattern="-")  # a name and the hash of its settings
    model: str = Field(pattern="-")
    sampler: str = Field(pattern="-")
    history: Count | None
    mask: str | None
    depth: Count
    patch_nums: list[Side] = Field(min_length=1)
    settings: SettingsPart
    group: str
    grid: dict[str, Any]
    # by training seed, "" for what serves all: in the order in which they read each other
    jobs: dict[Annotated[str, Field(pattern=r"^([0-9]{1,18})?$")], list[str]]


class ClaimPart(Part):
    text: str
    origin: Literal["paper", "ours"]
    rule: str
    variant: str
    against: str
    metric: str
    better: Literal["lower", "higher"] | None = None
    margin: Number | None = None


class PublishedPart(Part):
    variant: str
    metric: Literal["fid", "kid", "is", "precision", "recall"]
    value: Number
    source: str


class SweepPart(Part):
    thresholds: list[Number] = []


class EquivalencePart(Part):
    corruptions: list[str] = Field(min_length=1)
    eps: list[Number] = Field(min_length=1)
    draws: Count


class ZeroShotPart(Part):
    inpaint: Annotated[list[Number], Field(min_length=4, max_length=4)] | None
    outpaint: Annotated[list[Number], Field(min_length=4, max_length=4)] | None
    super_resolution: bool


class SharesPart(Part):
    shares: list[Number] = Field(min_length=1)


class SuitePart(Part):
    claim: str
    claims: list[ClaimPart]
    published: list[PublishedPart] = []
    measure: list[str]
    figures: list[str]
    tables: list[str]
    sweep: SweepPart | None = None
    equivalence: EquivalencePart | None = None
    zero_shot: ZeroShotPart | None = None
    error_propagation: SharesPart | None = None
    train_seeds: list[Count] = Field(min_length=1)
    tuned_on: str | None = None
    runs: list[str]


class EvaluationPart(Part):
    num_images: Side
    first_seed: Count
    labels: str | None = None


class FeaturesPart(Part):
    kind: Literal["trained", "inception", "pretrained"]
    name: Name
    dim: Side | None = None
    network: str | None = None
    reference: str | None = None


class DatasetPart(Part):
    name: str
    num_classes: Count
    credit: str | None = None


class LatencyPart(Part):
    precision: str = "float32"
    compile: bool = False


class TokenizerTrainingPart(Part):
    # a config leaves out what stands at its default
    perceptual: Number = 0.0
    perceptual_network: str = "efficientnet_lite0"


class TokenizerPart(Part):
    training: TokenizerTrainingPart = TokenizerTrainingPart()
    weights: str | None = None


class JobPart(Part):
    """What figures read of the config of a job."""

    snapshots: bool = False
    tokenizer: TokenizerPart = TokenizerPart()
    latency: LatencyPart = LatencyPart()


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class ContentPart(Part):
    """What `rows.content` says of a table."""

    rows: Count
    sha256: str


class StudyPart(Part):
    study: str
    reduced: str | None
    suites: dict[Name, SuitePart] = Field(min_length=1)
    evaluation: EvaluationPart
    # older versions wrote the one extractor that they had, and no list
    features: Annotated[list[FeaturesPart], BeforeValidator(_listed), Field(min_length=1)]
    dataset: DatasetPart
    tokenizer_seed: Literal["train_seed", "shared"] | None = None
    # by the name of a table beside it; older versions wrote none
    contents: dict[str, ContentPart] = {}
    images_sha256: str | None = None  # of the images.npz beside it; older versions wrote none


def _checked(schema: type[PartT], about: dict[str, Any], where: str) -> PartT:
    try:
        return schema.model_validate(about)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        value = "" if first["type"] == "missing" else f", got {brief(first['input'])}"
        words = f"{first['msg']}{value}; written by another version or damaged, collect again"
        raise ValueError(f"{where}: {key}: {words}") from None


def check_job(config: dict[str, Any], where: str) -> JobPart:
    """What figures read of the config of a job. Raises ValueError that names the first thing that
    they could not."""
    return _checked(JobPart, config, where)


def check_variant(names: dict[str, Any], where: str) -> None:
    """Raises ValueError that names the first thing in a variant's row that no figure could read."""
    _checked(VariantPart, names, where)


def check_study(about: dict[str, Any], where: str) -> None:
    """Raises ValueError that names the first thing in a study's row that no figure could read."""
    _checked(StudyPart, about, where)


def published_suites(folder: Path) -> dict[str, dict[str, Any]]:
    """The settings of the suites that were published in a folder; none where nothing was. Raises
    ValueError for what is damaged, and where a table is missing."""
    if not (folder / "metrics.csv").is_file():
        return {}
    for name in ("runs.csv", "variants.csv"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder / name}: no such file; published by another version or damaged, "
                "publish again"
            )
    path = folder / "runs.csv"
    studies = [row for row in read_rows(path, RUN_COLUMNS) if row["stage"] == "study"]
    if len(studies) != 1:
        raise ValueError(
            f"{path}: holds {len(studies)} rows of stage 'study', not one; publish again"
        )
    about = json.loads(studies[0]["config_json"] or "{}", object_hook=Record)
    check_study(about, f"{path}: study")
    suites: dict[str, dict[str, Any]] = about["suites"]
    return suites


def check_sides(about: dict[str, Any], variants: dict[str, dict[str, Any]], where: str) -> None:
    """Raises ValueError for a claim or a published number of a variant that is not there. variants:
    names and more, by suite."""
    for suite, part in about["suites"].items():
        sides = {names["group"] for names in variants[suite].values()} | variants[suite].keys()
        for claim in [*part["claims"], *part.get("published", ())]:
            for key in ("variant", "against"):
                rule = claim.get("rule") if key == "against" else None
                legal = sides | set(compared(rule) if rule else ())
                if claim.get(key, claim["variant"]) not in legal:
                    raise ValueError(
                        f"{where}: suites.{suite}: {key} {brief(claim[key])} of a claim is no "
                        "variant of the suite"
                    )
