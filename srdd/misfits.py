"""Settings that do not fit one another: those of one part, sampler and model of VAR and SRDD,
teacher and student. Imports no torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .lookup import is_own

if TYPE_CHECKING:
    from .config import ModelConfig, SamplerConfig, TokenizerConfig

# rules that commit a quota of positions at each pass: a scale of l tokens needs at most l passes
COMMITTING = ("static", "sequential", "shuffled", "dynamic", "entropy")
# rules that redraw as many tokens whatever was drawn: no look is needed to know that there are some
COUNTED = ("lowest", "random", "static", "sequential", "shuffled")
# what the shapes of a network's weights follow from, the schedule apart
SIZES = (
    "codebook_size",
    "codebook_dim",
    "num_classes",
    "depth",
    "width",
    "heads",
    "mlp_ratio",
    "qk_norm",
    "shared_adaln",
    "head",
    "condition",
)


# strengths of degradations beyond which nothing is left of an image, and what they are there
MOST_STRENGTH = {
    "occlusion": (8 / 3, "hides a square larger than the image"),
    "contrast": (5 / 3, "turns black into white"),
    "jpeg": (10.0, "asks for a quality below 1"),
    # through the thinnest haze, of depth 0.5, black and white are half of one of 255 levels apart
    "haze": (2 * math.log(510), "leaves nothing but its own light in 8 bits"),
}
# what codec conv alone reads
OF_CONVOLUTIONS = ("channels", "num_res_blocks", "attention", "norm_groups", "dropout")


def refuse(problem: str | None) -> None:
    """Raises ValueError for a problem, where there is one (VAR, arXiv 2404.02905)."""
    if problem:
        raise ValueError(problem)


def codec_misfit(tokenizer: TokenizerConfig) -> str | None:
    """Why a tokenizer cannot do without a codec (pixel space of arXiv 2510.02826), as `key value:
    reason`; None when it can, or has one."""
    if tokenizer.codec != "pixels":
        return None
    side, fields = tokenizer.downsampling, type(tokenizer).model_fields
    if tokenizer.codebook_dim != (cell := tokenizer.in_channels * side**2):
        return (
            f"codebook_dim {tokenizer.codebook_dim}: codec pixels has the {cell} numbers of a "
            f"cell of {side} x {side} pixels; set codebook_dim {cell}"
        )
    for key in OF_CONVOLUTIONS:
        value, usual = getattr(tokenizer, key), fields[key].default
        if value != usual:
            return (
                f"{key} {value}: codec pixels has no convolutions to set it of; leave it out, or "
                f"set it back to {usual}"
            )
    return None


def head_misfit(model: ModelConfig) -> str | None:
    """Why a head cannot predict what is asked of it (arXiv 2510.02826), as `key value: reason`;
    None when it can."""
    V = model.codebook_size
    if model.head == "bits" and V & (V - 1):
        return (
            f"codebook_size {V}: head bits needs a power of two, so that every pattern of bits is "
            "a code"
        )
    if model.regresses and model.mask_prob:
        return (
            f"mask_prob {model.mask_prob}: head gauss predicts no tokens that could be masked; "
            "set it to 0"
        )
    return None


def condition_misfit(model: ModelConfig) -> str | None:
    """Why a model cannot restore degraded images (RestoreVAR, arXiv 2505.18047), as `key value:
    reason`; None when it can, or restores none."""
    if model.condition == "none":
        return None
    if model.num_classes:
        return (
            f"num_classes {model.num_classes}: condition {model.condition} is told the image and no"
            " class; set num_classes 0"
        )
    if model.mask is not None:
        return (
            f"mask {model.mask!r}: condition {model.condition} goes with history alone; leave mask "
            "out"
        )
    if model.mask_prob:
        return (
            f"mask_prob {model.mask_prob}: condition {model.condition} draws every scale once; set "
            "it to 0"
        )
    if model.regresses:
        return f"head gauss: condition {model.condition} is of a model of codes; use head softmax"
    return None


def strength_misfit(name: str, strength: float) -> str | None:
    """Why a degradation cannot have a strength (after ImageNet-C, arXiv 1903.12261), as `strength
    value: reason`; None when it can."""
    if strength < 0:
        return f"strength {strength:g}: is below 0, at which {name} leaves an image as it is"
    most, reason = MOST_STRENGTH.get(name, (None, ""))
    if most is not None and strength > most:
        return f"strength {strength:g}: of {name} {reason}; give {int(100 * most) / 100} or less"
    return None


def sight_misfit(model: ModelConfig) -> str | None:
    """Why a model cannot see as it is told (history vector of arXiv 2511.23334), as `key value:
    reason`; None when it can."""
    if model.history_vector and model.history is None:
        sees = "all earlier scales" if model.mask is None else f"what mask {model.mask} says"
        return (
            f"history_vector {model.history_vector}: pools inputs that are seen already, a token "
            f"sees {sees}; set history to 0, or history_vector to 0"
        )
    if model.state == "last" and model.regresses:
        return "state last: head gauss reads the sum of what it predicted; set it to sum"
    return _window_misfit(model)


def _window_misfit(model: ModelConfig) -> str | None:
    """Why a window cannot be laid about each token (MVAR, arXiv 2505.12742)."""
    window, last = model.window, model.schedule.num_scales - 1
    if window is None:
        return None
    if window % 2 == 0:
        return (
            f"window {window}: has no middle for the token itself; give an odd number, "
            f"{window - 1} or {window + 1}"
        )
    if model.mask is not None:
        return f"window {window}: mask {model.mask!r} says who sees whom; leave one of them out"
    if model.window_from > last:
        return (
            f"window_from {model.window_from}: the schedule has scales 0 to {last}; give one of "
            "them"
        )
    return None


def draw_misfit(sampler: SamplerConfig) -> str | None:
    """Why a sampler does not draw as it is told (VAR, arXiv 2404.02905; regression of 2510.02826),
    in one sentence; None when it does."""
    name = sampler.name
    if name in ("var", "gauss") and (sampler.sr_steps or sampler.refine_steps):
        return (
            f"sampler {name} draws every scale once: sr_steps {sampler.sr_steps} and refine_steps "
            f"{sampler.refine_steps} need name srdd"
        )
    if name == "gauss" and sampler.detail_scale > 0:
        return (
            f"sampler gauss has no logits: detail_scale {sampler.detail_scale:g} has nothing to "
            "push; set it to 0"
        )
    if name == "gauss" and (sampler.top_k is not None or sampler.top_p < 1):
        return (
            f"sampler gauss draws no codes: top_k {sampler.top_k} and top_p {sampler.top_p} "
            "choose among codes; leave them out"
        )
    return None


def teacher_misfit(teacher: ModelConfig, student: ModelConfig) -> str | None:
    """Why a student cannot start from a teacher's weights (scale distillation of SRDD, arXiv
    2509.22636), as `key value: reason`; None when it can."""
    for key in SIZES:
        old, new = getattr(teacher, key), getattr(student, key)
        if old != new:
            return (
                f"{key} {new}: the teacher's is {old}; a student starts from its teacher's "
                "weights and needs the same sizes"
            )
    if teacher.regresses:
        return "head gauss: a regression has no tokens that a student could learn; use softmax"
    for one in (teacher, student):
        if one.schedule.repeats:
            return (
                f"patch_nums {list(one.patch_nums)}: a student's scales are found by their side, "
                "and sides repeat; use arm scratch"
            )
    if teacher.history_vector and not student.history_vector:
        return (
            f"history_vector 0: the teacher's is {teacher.history_vector}, and a student without "
            "would not start from what its teacher is; give 1 or more"
        )
    # the other way is legal: own embeddings of 0 are no embeddings
    if teacher.mask_prob > 0 and student.mask_prob == 0:
        return (
            f"mask_prob {student.mask_prob}: the teacher's is {teacher.mask_prob}, and a student "
            "without masks has no "
            "place for its embedding of own tokens; give more than 0, or a teacher with mask_prob 0"
        )
    return None


def unconditioned(student: ModelConfig, teacher: ModelConfig) -> ModelConfig:
    """A model that restores as if it were told what its teacher is: classes, and no image (VAR,
    arXiv 2404.02905)."""
    told = {"condition": teacher.condition, "num_classes": teacher.num_classes}
    return student.model_copy(update=told)


def restorer_misfit(teacher: ModelConfig, student: ModelConfig) -> str | None:
    """Why a model that is told degraded images cannot start from a teacher (RestoreVAR, arXiv
    2505.18047), as `key value: reason`; None when it can."""
    if teacher.condition != "none":
        return (
            f"condition {student.condition}: the teacher's is {teacher.condition}; a restoration "
            "starts from a model that is told no image"
        )
    if teacher.conditional and teacher.class_dropout == 0:
        return (
            f"num_classes {student.num_classes}: starts from the teacher without a class, which "
            "it never saw; give the teacher class_dropout of more than 0"
        )
    # what `teacher_misfit` advises would be no model that is told an image
    if teacher.mask_prob > 0:
        return (
            f"mask_prob {student.mask_prob}: the teacher's is {teacher.mask_prob}, and a model "
            "that is told an image has no masks and no place for its embedding of own tokens; "
            "name a teacher with mask_prob 0"
        )
    if teacher.schedule.repeats or student.schedule.repeats:
        return (
            f"patch_nums {list(student.patch_nums)}: its scales are found in the teacher by their "
            "side, and sides repeat; leave distill out, or name a schedule without"
        )
    return teacher_misfit(teacher, unconditioned(student, teacher))


def logit_teacher_misfit(teacher: ModelConfig, student: ModelConfig) -> str | None:
    """Why a teacher has no logits for a student (scale distillation of SRDD, arXiv 2509.22636), as
    `key value: reason`; None when it has."""
    if student.state != teacher.state:
        return (
            f"state {student.state}: the teacher's is {teacher.state}; its logits are asked for at "
            "the states that the student reads, give the same, or take arm real or sequence"
        )
    if student.mask_prob > 0 and teacher.mask_prob == 0:
        return (
            f"mask_prob {student.mask_prob}: the teacher's is {teacher.mask_prob}; its logits are "
            "asked for with all own "
            "tokens masked, so the student's embedding of own tokens would stay 0; set it to 0, "
            "or take arm real or sequence"
        )
    if student.class_dropout > 0 and student.conditional and teacher.class_dropout == 0:
        return (
            f"class_dropout {student.class_dropout}: the teacher was trained without and knows no "
            "'no class'; set it to 0"
        )
    return None


def cca_misfit(reference: ModelConfig, model: ModelConfig, uncond: float) -> str | None:
    """Why a model cannot be aligned with its classes (CCA, arXiv 2410.09347) against a reference,
    as `key value: reason`; None when it can. uncond: share of images that lose their class."""
    for key in (
        "patch_nums",
        "history",
        "mask",
        "history_vector",
        "window",
        "window_from",
        "state",
    ):
        old, new = getattr(reference, key), getattr(model, key)
        if old != new:
            old, new = (list(one) if isinstance(one, tuple) else one for one in (old, new))
            return f"{key} {new}: the teacher's is {old}; it is the reference, give the same"
    if model.num_classes < 2:
        return f"num_classes {model.num_classes}: an image needs a wrong class; give 2 or more"
    if model.mask_prob > 0:
        return (
            f"mask_prob {model.mask_prob}: the likelihood of an image is known without intra-scale "
            "masks alone; set it to 0, in the teacher too"
        )
    if model.drop_path > 0:
        return (
            f"drop_path {model.drop_path}: its noise would count as a change from the reference; "
            "set it to 0"
        )
    if uncond > 0 and reference.class_dropout == 0:
        return (
            "class_dropout 0.0 of the teacher: it knows no 'no class', which distill.cca.uncond "
            f"{uncond} teaches; set uncond to 0, or class_dropout in the teacher to more"
        )
    return None


def sampler_misfit(sampler: SamplerConfig, model: ModelConfig) -> str | None:
    """Why a sampler cannot be used with a model, as `key value: reason`; None when it can
    (guidance: arXiv 2207.12598)."""
    if sampler.cfg_scale != 1.0 and model.condition != "none":
        return (
            f"cfg_scale {sampler.cfg_scale}: guides by a class, and condition {model.condition} "
            "knows none; set cfg_scale 1"
        )
    if sampler.cfg_scale != 1.0 and not (model.conditional and model.class_dropout > 0):
        lacks = "no class dropout" if model.conditional else "no classes"
        return (
            f"cfg_scale {sampler.cfg_scale}: guides a model that has {lacks}; set cfg_scale 1 or "
            "train with class_dropout > 0"
        )
    # a sampler of one's own may mean something else by refine_steps
    # the model itself refuses tokens that it cannot read
    if not is_own("sample", sampler.name) and sampler.refine_steps and model.mask_prob == 0:
        return (
            f"refine_steps {sampler.refine_steps}: refines a model trained without masks; set "
            "refine_steps 0 or train with mask_prob > 0"
        )
    if not is_own("sample", sampler.name) and (sampler.name == "gauss") != model.regresses:
        remedy = "set name gauss" if model.regresses else "set model.head gauss or another name"
        return (
            f"name {sampler.name}: sampler gauss and head gauss go together, the model's head is "
            f"{model.head}; {remedy}"
        )
    if is_own("sample", sampler.name) and model.state == "last":
        return (
            f"name {sampler.name}: a sampler of one's own reads the sum of all scales, the model's "
            "state is last; set model.state to sum"
        )
    if sampler.top_k is not None and sampler.top_k > model.codebook_size:
        return f"top_k {sampler.top_k}: is more than the {model.codebook_size} codes"
    if sampler.refine_scales is not None and any(
        k >= model.schedule.num_scales for k in sampler.refine_scales
    ):
        return (
            f"refine_scales {list(sampler.refine_scales)}: the schedule has scales 0 to "
            f"{model.schedule.num_scales - 1}"
        )
    if sampler.detail_scale > 0 and model.schedule.num_scales == 1:
        return (
            f"detail_scale {sampler.detail_scale:g}: a schedule of one scale has no scale before; "
            "set it to 0"
        )
    return spectrum_misfit(sampler, model.schedule.num_scales)


def spectrum_misfit(sampler: SamplerConfig, num_scales: int) -> str | None:
    """Why a sampler cannot reshape spectra (arXiv 2511.17074) on a schedule of so many scales, as
    `key value: reason`; None when it can."""
    if sampler.svd_scales is not None and max(sampler.svd_scales) >= num_scales:
        return (
            f"svd_scales {list(sampler.svd_scales)}: the schedule has scales 0 to {num_scales - 1}"
        )
    if sampler.svd_in > 0 and 0 in (sampler.svd_scales or ()):
        return (
            f"svd_scales {list(sampler.svd_scales or ())}: scale 0 reads no state, so svd_in "
            f"{sampler.svd_in:g} has nothing to reshape there; leave out 0"
        )
    for key, beta in {"svd_in": sampler.svd_in, "svd_out": sampler.svd_out}.items():
        if beta > 0 and sampler.svd_scales is None and num_scales == 1:
            return f"{key} {beta:g}: a schedule of one scale reads no state; set it to 0"
    return None
