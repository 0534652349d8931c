"""What a training that aligns a model with its classes asks of its settings (CCA, 2410.09347).
Imports no torch."""

from __future__ import annotations

from srdd.misfits import cca_misfit

from .schema import CcaConfig, DistillConfig, Variant

CONTRASTED = ("cca", "cross_entropy")  # the arms, the second the control of the first


def cca_problem(variant: Variant, distill: DistillConfig, teacher: Variant) -> str | None:
    """Why a variant cannot be made by one of these arms, or is told what only they read, as
    `key: value: reason`; None where neither is so."""
    if distill.arm not in CONTRASTED:
        if distill.cca != CcaConfig():
            return f"distill.cca: arm {distill.arm!r} does not read it; leave it out"
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
