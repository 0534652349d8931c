"""Settings that do not fit one another: sampler and model of VAR and SRDD, teacher and student.
Imports no torch."""

from __future__ import annotations

from .config import ModelConfig, SamplerConfig
from .lookup import is_own

# logits of 1e8 over it are the largest that float32 holds
COLDEST = 1e-30
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
)


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
    # the other way is legal: own embeddings of 0 are no embeddings
    if teacher.mask_prob > 0 and student.mask_prob == 0:
        return (
            f"mask_prob {student.mask_prob}: the teacher's is {teacher.mask_prob}, and a student "
            "without masks has no "
            "place for its embedding of own tokens; give more than 0, or a teacher with mask_prob 0"
        )
    return None


def logit_teacher_misfit(teacher: ModelConfig, student: ModelConfig) -> str | None:
    """Why a teacher has no logits for a student (scale distillation of SRDD, arXiv 2509.22636), as
    `key value: reason`; None when it has."""
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
    for key in ("patch_nums", "history", "mask"):
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
    if sampler.temperature < COLDEST:
        return (
            f"temperature {sampler.temperature}: makes logits infinite; raise it to {COLDEST} or "
            "more, or take top_k 1 for the likeliest code"
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
