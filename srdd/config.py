"""What can be set of a tokenizer, a model and a sampler: the only schema, frozen and strict. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .lookup import is_own, names_function
from .schedule import ScaleSchedule

# an upper bound far above every use: a number beyond it is a slip, and would end in MemoryError hours later. A field with a bound of
# its own says all of its bounds itself: those of an alias and of Field do not add up
Positive = Annotated[int, Field(ge=1, le=10**9)]
Side = Annotated[int, Field(ge=1, le=8192)]
Width = Annotated[int, Field(ge=1, le=2**20)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]  # at 1 nothing would be left


class Strict(BaseModel):
    """A frozen settings object that refuses unknown keys, silent conversions, and numbers that JSON has no word for."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


MOST_SIDE = 1024  # tokens; 64 times the official 16


def _check_patch_nums(value: tuple[int, ...]) -> tuple[int, ...]:
    schedule = ScaleSchedule(value)
    if schedule.latent_size > MOST_SIDE:
        raise ValueError(f"side {schedule.latent_size}: a grid of more than {MOST_SIDE} x {MOST_SIDE} tokens is refused")
    if len(schedule.name) > 160:
        raise ValueError(f"{schedule.num_scales} scales: too many for the name of a file; give fewer")
    return value


class _Scheduled(Strict):
    patch_nums: tuple[int, ...] = Field(strict=False, description="side of each token grid, coarse to fine")

    _patch_nums = field_validator("patch_nums")(_check_patch_nums)

    @property
    def schedule(self) -> ScaleSchedule:
        """patch_nums as a schedule (VAR, arXiv 2404.02905, section 3.2)."""
        return ScaleSchedule(self.patch_nums)


class TokenizerConfig(_Scheduled):
    """Sizes of the multi-scale VQ-VAE (VAR, arXiv 2404.02905, section 3.2; official: vae_ch160v4096z32)."""

    image_size: Side
    in_channels: Literal[1, 3] = 3
    codebook_size: int = Field(4096, ge=2, le=2**24, description="V; one code alone says nothing")
    codebook_dim: Width = Field(32, description="C")
    channels: Width = Field(160, description="width of the first level; a multiple of norm_groups")
    channel_multipliers: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (1, 1, 2, 2, 4), strict=False, min_length=1, max_length=14
    )
    num_res_blocks: int = Field(2, ge=1, le=1000)
    attention: bool = Field(True, description="self-attention in the last level and the middle")
    norm_groups: Width = 32
    num_phi: int = Field(4, ge=1, le=1000, description="phi convolutions shared over the scales")
    phi_ratio: Share = Field(0.5, description="share of the convolution in phi")
    dropout: BelowOne = 0.0

    @property
    def downsampling(self) -> int:
        """Pixels along a side of the finest grid's tokens (VQGAN, arXiv 2012.09841): each level but one halves the side."""
        return 2 ** (len(self.channel_multipliers) - 1)

    @model_validator(mode="after")
    def _sizes_fit(self) -> TokenizerConfig:
        if self.image_size % self.downsampling:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of {self.downsampling}, "
                f"the down-sampling of {len(self.channel_multipliers)} channel_multipliers"
            )
        latent = self.image_size // self.downsampling
        if self.patch_nums[-1] != latent:
            raise ValueError(
                f"patch_nums {list(self.patch_nums)} must end at the latent size {latent} "
                f"(image_size {self.image_size} / down-sampling {self.downsampling})"
            )
        if self.channels % self.norm_groups:
            raise ValueError(f"channels {self.channels} is not a multiple of norm_groups {self.norm_groups}")
        return self


class ModelConfig(_Scheduled):
    """Sizes of the scale transformer (VAR, arXiv 2404.02905, section 3.3), and its attention mask."""

    codebook_size: int = Field(4096, ge=2, le=2**24, description="V; one code alone says nothing")
    codebook_dim: Width = Field(32, description="C")
    num_classes: int = Field(1000, ge=0, le=10**6, description="0: unconditional")
    history: int | None = Field(
        None, ge=0, le=1000, description="scale k sees scales k-history...k; null: all (VAR), 0: its own (SDD)"
    )
    mask: str | None = Field(
        None,
        description="name of a mask_<name> in srdd/masks.py, instead of history",
        json_schema_extra=names_function("mask"),
    )
    depth: int = Field(16, ge=1, le=1000)
    width: Width = 1024
    heads: Width = 16
    mlp_ratio: float = Field(4.0, gt=0, le=1000)
    qk_norm: bool = Field(True, description="L2-normalised queries and keys with a learned scale per head")
    shared_adaln: bool = Field(False, description="one AdaLN projection for all blocks, as in the depth-36 model")
    class_dropout: BelowOne = Field(
        0.1, description="share of training images that lose their class; at 1 no class would be learned"
    )
    mask_prob: Share = Field(
        0.0, description="share of scales trained with some of their own tokens revealed; 0: cannot be refined"
    )
    drop_path: BelowOne = Field(0.0, description="stochastic depth of the last block")
    init_gamma: float = Field(1e-5, ge=0, le=1000, description="factor on the initial residual gates")

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if round(self.width * self.mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio {self.mlp_ratio}: leaves no hidden unit at width {self.width}; give more")
        if self.mask is not None and self.history is not None:
            raise ValueError(f"mask {self.mask!r} and history {self.history} exclude each other; remove one")
        return self

    @property
    def conditional(self) -> bool:
        """Whether the model knows classes (VAR, arXiv 2404.02905, section 3.3)."""
        return self.num_classes > 0

    @property
    def null_label(self) -> int:
        """Row of the class embedding that means 'no class'."""
        return self.num_classes


Chance = Annotated[float, Field(gt=0.0, lt=1.0)]


# logits of 1e8 over it are the largest that float32 holds
COLDEST = 1e-30
# the settings that each rule of select_<name> here reads; a rule of one's own may read any
SELECT_READS: dict[str, tuple[str, ...]] = {
    "threshold": ("p_resample",),
    "lowest": ("resample_fraction", "confidence"),
    "random": ("resample_fraction",),
    "static": ("confidence",),
    "sequential": (),
    "shuffled": (),
    "dynamic": ("commit_above", "confidence"),
    "entropy": ("entropy_bound", "confidence"),
}
# what a rule that ranks positions ranks them by where `confidence` is null
CONFIDENCES = {"lowest": "drawn", "static": "peak", "dynamic": "peak", "entropy": "peak"}
# rules that commit a quota of positions at each pass: a scale of l tokens needs at most l passes
COMMITTING = ("static", "sequential", "shuffled", "dynamic", "entropy")
# rules that redraw as many tokens whatever was drawn: no look is needed to know that there are some
COUNTED = ("lowest", "random", "static", "sequential", "shuffled")


class SamplerConfig(Strict):
    """How tokens are drawn. cfg_scale is w in u + w (c - u): 1 switches guidance off, below 1 it leans towards no class; VAR's own t
    is w - 1.

    sr_steps is simple resampling, refine_steps is mask resampling (SRDD, arXiv 2509.22636); both are 0 in VAR and SDD.
    """

    name: str = Field("var", description="name of a sample_<name> in srdd/sampling.py", json_schema_extra=names_function("sample"))
    cfg_scale: float = Field(1.0, ge=0.0, le=1000.0)
    cfg_ramp: str = Field("linear", description="name of a ramp_<name> in srdd/guidance.py", json_schema_extra=names_function("ramp"))
    temperature: float = Field(1.0, ge=0.001, le=1000.0)
    top_k: int | None = Field(None, ge=1, le=2**24, description="draw among the k likeliest codes; null: all")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="draw among the likeliest codes that hold this mass")
    sr_steps: int = Field(
        0, ge=0, le=10_000, description="SR: redraws of the tokens below p_resample from the same distribution, no network call"
    )
    refine_steps: int = Field(
        0, ge=0, le=10_000, description="MR: passes after the first at every refined scale, one network call each"
    )
    select: str = Field(
        "threshold",
        description="name of a select_<name> in srdd/sampling.py: which tokens a pass masks and redraws",
        json_schema_extra=names_function("select"),
    )
    confidence: str | None = Field(
        None,
        description="name of a confidence_<name> in srdd/sampling.py that select lowest, static, "
        "dynamic and entropy rank by; null: drawn for lowest, peak for the others",
        json_schema_extra=names_function("confidence"),
    )
    p_resample: Chance = Field(0.1, description="redraw tokens whose probability is below; for SR and for select threshold")
    resample_fraction: float = Field(0.5, gt=0.0, le=1.0, description="share that is redrawn; for select lowest and random")
    commit_above: Chance = Field(
        0.9, description="keep positions whose confidence is at least this; for select dynamic"
    )
    entropy_bound: float = Field(1.0, gt=0.0, le=1e9, description="nats that one pass may commit together; for select entropy")
    refine_scales: tuple[int, ...] | None = Field(None, strict=False, description="scales k that SR and MR touch; null: all")

    @model_validator(mode="after")
    def _refinement_fits(self) -> SamplerConfig:
        if self.name == "var" and (self.sr_steps or self.refine_steps):
            raise ValueError(
                f"sampler var draws every scale once: sr_steps {self.sr_steps} and refine_steps {self.refine_steps} need name srdd"
            )
        if self.refine_scales is not None and any(k < 0 for k in self.refine_scales):
            raise ValueError(f"refine_scales {list(self.refine_scales)}: scales count from 0")
        # equal samplers have one name: another order or a copy would make another of them
        scales = list(self.refine_scales or ())
        if scales != sorted(set(scales)):
            raise ValueError(f"refine_scales {scales}: give each once, from coarse to fine; null: all")
        return self

    @property
    def draws_once(self) -> bool:
        """Whether each token is drawn once, from the distribution at its scale (VAR, arXiv
        2404.02905): of a sampler of one's own nobody knows."""
        return not is_own("sample", self.name) and not (self.refine_steps or self.sr_steps)

    def passes(self, k: int, length: int) -> int:
        """Most network passes of the samplers here at scale k of so many tokens (SRDD, arXiv
        2509.22636).

        A rule that commits a quota needs no more passes than tokens. One of one's own makes as many
        as it likes (`watch.Calls`).
        """
        most = 1 + (self.refine_steps if self.refines(k) else 0)
        return min(most, length) if self.select in COMMITTING else most

    def refines(self, k: int) -> bool:
        """Whether SR and MR touch scale k."""
        return self.refine_scales is None or k in self.refine_scales


# what the shapes of a network's weights follow from, the schedule apart
SIZES = ("codebook_size", "codebook_dim", "num_classes", "depth", "width", "heads", "mlp_ratio", "qk_norm", "shared_adaln")


def teacher_misfit(teacher: ModelConfig, student: ModelConfig) -> str | None:
    """Why a student cannot start from a teacher's weights (scale distillation of SRDD, arXiv 2509.22636), as `key value: reason`;
    None when it can."""
    for key in SIZES:
        old, new = getattr(teacher, key), getattr(student, key)
        if old != new:
            return f"{key} {new}: the teacher's is {old}; a student starts from its teacher's weights and needs the same sizes"
    # the other way is legal: own embeddings of 0 are no embeddings
    if teacher.mask_prob > 0 and student.mask_prob == 0:
        return (
            f"mask_prob {student.mask_prob}: the teacher's is {teacher.mask_prob}, and a student without masks has no "
            "place for its embedding of own tokens; give more than 0, or a teacher with mask_prob 0"
        )
    return None


def logit_teacher_misfit(teacher: ModelConfig, student: ModelConfig) -> str | None:
    """Why a teacher has no logits for a student (scale distillation of SRDD, arXiv 2509.22636), as `key value: reason`; None when it
    has."""
    if student.mask_prob > 0 and teacher.mask_prob == 0:
        return (
            f"mask_prob {student.mask_prob}: the teacher's is {teacher.mask_prob}; its logits are asked for with all own "
            "tokens masked, so the student's embedding of own tokens would stay 0; set it to 0, or take arm real or sequence"
        )
    if student.class_dropout > 0 and student.conditional and teacher.class_dropout == 0:
        return f"class_dropout {student.class_dropout}: the teacher was trained without and knows no 'no class'; set it to 0"
    return None


def _confidence_misfit(sampler: SamplerConfig) -> str | None:
    """Why a sampler's confidence says nothing to its rule; what a function of one's own reads
    nobody knows."""
    name, select = sampler.confidence, sampler.select
    own = is_own("sample", sampler.name) or is_own("select", select)
    if name is None or own or not sampler.refine_steps:
        return None
    if select not in CONFIDENCES:
        ranking = ", ".join(CONFIDENCES)
        return (
            f"confidence {name!r}: select {select} ranks nothing; set confidence null, or one of "
            f"select {ranking}"
        )
    if select == "dynamic" and name == "entropy":
        return (
            "confidence 'entropy': select dynamic compares it with commit_above, a probability, and "
            "entropy is none; set confidence peak or drawn, or select static or entropy"
        )
    return None


def sampler_misfit(sampler: SamplerConfig, model: ModelConfig) -> str | None:
    """Why a sampler cannot be used with a model, as `key value: reason`; None when it can (guidance: arXiv 2207.12598)."""
    if sampler.cfg_scale != 1.0 and not (model.conditional and model.class_dropout > 0):
        lacks = "no class dropout" if model.conditional else "no classes"
        return f"cfg_scale {sampler.cfg_scale}: guides a model that has {lacks}; set cfg_scale 1 or train with class_dropout > 0"
    # a sampler of one's own may mean something else by refine_steps
    # the model itself refuses tokens that it cannot read
    if not is_own("sample", sampler.name) and sampler.refine_steps and model.mask_prob == 0:
        return f"refine_steps {sampler.refine_steps}: refines a model trained without masks; set refine_steps 0 or train with mask_prob > 0"
    if problem := _confidence_misfit(sampler):
        return problem
    if sampler.temperature < COLDEST:
        return (
            f"temperature {sampler.temperature}: makes logits infinite; raise it to {COLDEST} or "
            "more, or take top_k 1 for the likeliest code"
        )
    if sampler.top_k is not None and sampler.top_k > model.codebook_size:
        return f"top_k {sampler.top_k}: is more than the {model.codebook_size} codes"
    if sampler.refine_scales is not None and any(k >= model.schedule.num_scales for k in sampler.refine_scales):
        return f"refine_scales {list(sampler.refine_scales)}: the schedule has scales 0 to {model.schedule.num_scales - 1}"
    return None
