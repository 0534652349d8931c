"""What a training that aligns a model with its classes asks of its settings (CCA, 2410.09347), and
what arms of a distillation do not read. Imports no torch."""

from __future__ import annotations

from srdd.misfits import cca_misfit

from .restore_settings import RESTORES
from .schema import CcaConfig, DistillConfig, Variant

CONTRASTED = ("cca", "cross_entropy")  # the arms, the second the control of the first
# arms of ours that draw no images of the teacher; one of your own may
WITHOUT_SAMPLES = ("real", RESTORES, "logit", "scratch", *CONTRASTED)


def unread_by_arm(distill: DistillConfig) -> str | None:
    """What a distillation is told and its arm does not read, as `key: value: reason`: the same
    training would have another name."""
    if distill.arm in WITHOUT_SAMPLES:
        if distill.guided:
            return (
                f"distill.guided: True: arm {distill.arm!r} learns from no guided samples; "
                "leave it out, or use arm 'sequence'"
            )
        if distill.num_samples != DistillConfig.model_fields["num_samples"].default:
            return (
                f"distill.num_samples: {distill.num_samples}: arm {distill.arm!r} does not read "
                "it; leave it out, or use arm 'sequence'"
            )
    if distill.arm not in CONTRASTED and distill.cca != CcaConfig():
        return f"distill.cca: arm {distill.arm!r} does not read it; leave it out"
    for key, field in CcaConfig.model_fields.items() if distill.arm == "cross_entropy" else ():
        value = getattr(distill.cca, key)
        if key != "uncond" and value != field.default:
            about = f"distill.cca.{key}: {value:g}"
            return f"{about}: arm 'cross_entropy' reads uncond alone; leave it out"
    return None


def cca_problem(variant: Variant, distill: DistillConfig, teacher: Variant) -> str | None:
    """Why a variant cannot be made by one of these arms, as `key: value: reason`; None where it
    can, or is made by another."""
    if distill.arm not in CONTRASTED:
        return None
    if problem := cca_misfit(teacher.model, variant.model, distill.cca.uncond):
        return f"model.{problem}"
    training = variant.training
    assert training is not None  # a student has no weights of its own
    if training.batch_size < 2:
        return f"training.batch_size: {training.batch_size}: a wrong class is that of another \
image of the batch; give 2 or more"
    if training.corruption != "none":
        return f"training.corruption: {training.corruption!r}: the likelihood of an image is that \
of its own tokens; set it to none, and eps to 0"
    if training.patience is not None:
        return f"training.patience: {training.patience}: the last step is kept, since CCA raises \
the held-out cross-entropy; set it to null"
    return None
