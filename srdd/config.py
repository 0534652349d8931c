"""What can be set of a tokenizer, a model and a sampler: the only schema, frozen and strict.
Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .lookup import is_own, names_function
from .misfits import (
    COMMITTING,
    codec_misfit,
    condition_misfit,
    draw_misfit,
    head_misfit,
    refuse,
    sight_misfit,
)
from .rules import Chance as Chance
from .rules import Rule as Rule
from .rules import default_rule
from .rules import rule_of as rule_of
from .schedule import MOST_SIDE, ScaleSchedule, checked_sides
from .strict import BelowOne as BelowOne
from .strict import Positive as Positive
from .strict import Share as Share
from .strict import Side as Side
from .strict import Strict as Strict
from .strict import Width as Width


class _Scheduled(Strict):
    patch_nums: tuple[int, ...] = Field(
        strict=False, description="side of each token grid, coarse to fine"
    )

    _patch_nums = field_validator("patch_nums")(checked_sides)

    @property
    def schedule(self) -> ScaleSchedule:
        """patch_nums as a schedule (VAR, arXiv 2404.02905, section 3.2)."""
        return ScaleSchedule(self.patch_nums)


class TokenizerConfig(_Scheduled):
    """Sizes of the multi-scale VQ-VAE (VAR, arXiv 2404.02905, section 3.2; official:
    vae_ch160v4096z32)."""

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
    combine: Literal["sum", "replace"] = Field(
        "sum",
        description="sum: each scale says what the ones before left; replace: each says all, and "
        "the last alone is decoded",
    )
    dropout: BelowOne = 0.0
    codec: str = Field(
        "conv",
        description="between image and latent, name of a codec_<name> in srdd/tokenizer.py; conv: "
        "learned, pixels: none, a latent's channels are the pixels of its cell",
        json_schema_extra=names_function("codec"),
    )

    @property
    def downsampling(self) -> int:
        """Pixels along a side of the finest grid's tokens (VQGAN, arXiv 2012.09841): each level but
        one halves the side."""
        return 1 << (len(self.channel_multipliers) - 1)

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
            raise ValueError(
                f"channels {self.channels} is not a multiple of norm_groups {self.norm_groups}"
            )
        return self

    @model_validator(mode="after")
    def _codec_fits(self) -> TokenizerConfig:
        refuse(codec_misfit(self))
        return self


class ModelConfig(_Scheduled):
    """Sizes of the scale transformer (VAR, arXiv 2404.02905, section 3.3), and its attention
    mask."""

    codebook_size: int = Field(4096, ge=2, le=2**24, description="V; one code alone says nothing")
    codebook_dim: Width = Field(32, description="C")
    num_classes: int = Field(1000, ge=0, le=10**6, description="0: unconditional")
    history: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="scale k sees scales k-history...k; null: all (VAR), 0: its own (SDD)",
    )
    mask: str | None = Field(
        None,
        description="name of a mask_<name> in srdd/masks.py, instead of history",
        json_schema_extra=names_function("mask"),
    )
    state: Literal["sum", "last", "replace"] = Field(
        "sum",
        description="what a scale reads of those before: sum, all that they add up to; last, what "
        "the last one added; replace, the last one, of a tokenizer whose combine is replace, and "
        "then where none is given",
    )
    history_vector: int = Field(
        0,
        ge=0,
        le=1000,
        description="scales whose inputs are pooled into one vector that a scale adds to its "
        "tokens, its own included; 0: none, 1: its own alone",
    )
    window: int | None = Field(
        None,
        ge=1,
        le=MOST_SIDE,
        description="a token sees a square of this many tokens a side of its own scale, an odd "
        "number; null: the whole scale",
    )
    window_from: int = Field(0, ge=0, le=1000, description="first scale k that window touches")
    depth: int = Field(16, ge=1, le=1000)
    width: Width = 1024
    heads: Width = 16
    mlp_ratio: float = Field(4.0, gt=0, le=1000)
    qk_norm: bool = Field(
        True, description="L2-normalised queries and keys with a learned scale per head"
    )
    shared_adaln: bool = Field(
        False, description="one AdaLN projection for all blocks, as in the depth-36 model"
    )
    class_dropout: BelowOne = Field(
        0.1,
        description="share of training images that lose their class; at 1 no class would be "
        "learned",
    )
    mask_prob: Share = Field(
        0.0,
        description="share of scales trained with own tokens revealed; 0: cannot be refined",
    )
    drop_path: BelowOne = Field(0.0, description="stochastic depth of the last block")
    init_gamma: float = Field(
        1e-5, ge=0, le=1000, description="factor on the initial residual gates"
    )
    head: str = Field(
        "softmax",
        description="what is predicted of a token, name of a head_<name> in srdd/heads.py; "
        "softmax: a logit for each code, bits: one for each bit of its index, gauss: no code but "
        "the residual itself, by regression",
        json_schema_extra=names_function("head"),
    )
    condition: Literal["none", "state", "cross", "tokens"] = Field(
        "none",
        description="degraded image to restore: its latent added, attended to, or its tokens",
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if round(self.width * self.mlp_ratio) < 1:
            raise ValueError(
                f"mlp_ratio {self.mlp_ratio}: leaves no hidden unit at width {self.width}; give "
                "more"
            )
        if self.mask is not None and self.history is not None:
            raise ValueError(
                f"mask {self.mask!r} and history {self.history} exclude each other; remove one"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> ModelConfig:
        refuse(head_misfit(self) or sight_misfit(self) or condition_misfit(self))
        return self

    @property
    def regresses(self) -> bool:
        """Whether it predicts residuals and no codes (regression head of arXiv 2510.02826)."""
        return self.head == "gauss"

    @property
    def recalls(self) -> bool:
        """Whether a scale reads what earlier ones read (history vector of arXiv 2511.23334): it
        then is not asked for alone."""
        return self.history_vector > 1

    @property
    def conditional(self) -> bool:
        """Whether the model knows classes (VAR, arXiv 2404.02905, section 3.3)."""
        return self.num_classes > 0

    @property
    def null_label(self) -> int:
        """Row of the class embedding that means 'no class'."""
        return self.num_classes


def _functions(settings: Strict) -> dict[str, tuple[str, str]]:
    """Prefix and name of the functions that some settings name themselves, by key."""
    named: dict[str, tuple[str, str]] = {}
    for key, field in type(settings).model_fields.items():
        says: Any = field.json_schema_extra
        for prefix in says["functions"] if says else ():
            named[key] = prefix, getattr(settings, key)
    return named


# exp(50) times a map still fits into float32
Strength = Annotated[float, Field(ge=0.0, le=50.0)]


def _once_in_order(scales: tuple[int, ...]) -> tuple[int, ...]:
    # equal samplers have one name: another order or a copy would make another of them
    if list(scales) != sorted(set(scales)):
        raise ValueError(f"{list(scales)}: give each scale once, from coarse to fine")
    return scales


Scales = Annotated[
    tuple[Annotated[int, Field(ge=0, le=10_000)], ...],
    Field(min_length=1),
    AfterValidator(_once_in_order),
]


class SamplerConfig(Strict):
    """How tokens are drawn. Of cfg_scale, w in u + w (c - u), 1 switches guidance off, and below 1
    leans towards no class. VAR's own t is w - 1.

    sr_steps is simple resampling, refine_steps is mask resampling (SRDD, arXiv 2509.22636); both
    are 0 in VAR and SDD.
    """

    name: str = Field(
        "var",
        description="name of a sample_<name> in srdd/sampling.py",
        json_schema_extra=names_function("sample"),
    )
    cfg_scale: float = Field(1.0, ge=0.0, le=1000.0)
    cfg_ramp: str = Field(
        "linear",
        description="name of a ramp_<name> in srdd/guidance.py",
        json_schema_extra=names_function("ramp"),
    )
    temperature: float = Field(
        1.0, ge=0.0, le=1000.0, description="below 0.001 of sampler gauss alone; 0: its mean"
    )
    top_k: int | None = Field(
        None, ge=1, le=2**24, description="draw among the k likeliest codes; null: all"
    )
    top_p: float = Field(
        1.0, gt=0.0, le=1.0, description="draw among the likeliest codes that hold this mass"
    )
    sr_steps: int = Field(
        0,
        ge=0,
        le=10_000,
        description="SR: redraws of the tokens below p_resample from the same distribution, no "
        "network call",
    )
    refine_steps: int = Field(
        0,
        ge=0,
        le=10_000,
        description="MR: passes after the first at every refined scale, one network call each",
    )
    p_resample: Chance = Field(
        0.1,
        description="SR: redraw tokens whose probability is below; select threshold has its own",
    )
    select: Annotated[SerializeAsAny[Rule], BeforeValidator(rule_of)] = Field(
        default_rule(),
        description="MR: which tokens a pass masks and redraws, a select_<name> in srdd/select.py: "
        "its name, or {name: threshold, p_resample: 0.1} with the settings that it takes",
    )
    refine_scales: tuple[int, ...] | None = Field(
        None, strict=False, description="scales k that SR and MR touch; null: all"
    )
    svd_in: Strength = Field(
        0.0,
        description="beta of exp(-beta s_i / s_1) on the singular values of the state that a scale "
        "reads; 0: off",
    )
    svd_out: Strength = Field(
        0.0,
        description="beta of exp(beta s_i / s_1) on those of the map that the head reads; 0: off",
    )
    svd_scales: Scales | None = Field(
        None,
        strict=False,
        description="scales k that svd_in and svd_out touch; null: 1 to K // 2, of K scales",
    )
    svd_norm: Literal["energy", "none"] = Field(
        "energy",
        description="energy: keep the map's norm, so that only the shape of its spectrum changes; "
        "none: the literal form, which makes it paler or stronger",
    )

    detail_scale: float = Field(
        0.0,
        ge=0.0,
        le=1000.0,
        description="beta of l + beta (l - prior) on the logits of a scale, the prior made of the "
        "scale before; 0: off",
    )
    detail_ramp: Literal["constant", "decay", "grow"] = Field(
        "constant",
        description="constant: beta at all scales from 1 on; decay: falls to beta/(K - 1) at the "
        "last; grow: the other way round",
    )
    detail_prior: Literal["dse", "linear", "none"] = Field(
        "dse",
        description="dse: logits of the scale before, enlarged with their own low frequencies; "
        "linear: enlarged bilinearly; none: 0, so that detail_scale is a lower temperature",
    )

    @field_validator("temperature")
    @classmethod
    def _warm_enough(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("name") != "gauss" and value < 0.001:
            raise ValueError("must be 0.001 or more; sampler gauss alone takes less, as noise")
        return value

    @model_validator(mode="after")
    def _refinement_fits(self) -> SamplerConfig:
        refuse(draw_misfit(self))
        if self.refine_scales is not None and any(k < 0 for k in self.refine_scales):
            raise ValueError(f"refine_scales {list(self.refine_scales)}: scales count from 0")
        # equal samplers have one name: another order or a copy would make another of them
        scales = list(self.refine_scales or ())
        if scales != sorted(set(scales)):
            raise ValueError(
                f"refine_scales {scales}: give each once, from coarse to fine; null: all"
            )
        return self

    @property
    def divides_by(self) -> float:
        """What logits are divided by: sampler gauss, whose network gives none, multiplies noise by
        its temperature instead (arXiv 2510.02826)."""
        return 1.0 if self.name == "gauss" else self.temperature

    def functions(self) -> dict[str, tuple[str, str]]:
        """Prefix and name of each function that these settings name (VAR, arXiv 2404.02905; SRDD,
        2509.22636), by the key that says so."""
        rule = _functions(self.select)
        knobs = {f"select.{key}": function for key, function in rule.items() if key != "name"}
        return {**_functions(self), "select": rule["name"], **knobs}

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
        return min(most, length) if self.select.name in COMMITTING else most

    def refines(self, k: int) -> bool:
        """Whether SR and MR touch scale k."""
        return self.refine_scales is None or k in self.refine_scales
