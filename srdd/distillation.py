"""Scale distillation: a network of fewer scales that starts from one of more, and the loss that ties the two.

SRDD (arXiv 2509.22636) distils SDD after reducing the scales and does not publish how; what stands here is this project's own.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h w latent grid
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .config import ModelConfig, logit_teacher_misfit, teacher_misfit
from .model import ScaleTransformer
from .schedule import ScaleSchedule

# ---------------------------------------------------------------- where a student starts


def nearest_scales(teacher: ScaleSchedule, student: ScaleSchedule) -> tuple[int, ...]:
    """For each scale of the student the teacher's of the same side, else of the nearest side; of two equally near ones the finer
    (scale distillation of SRDD, arXiv 2509.22636)."""
    sides = teacher.patch_nums
    return tuple(min(range(len(sides)), key=lambda k: (abs(sides[k] - side), -sides[k])) for side in student.patch_nums)


def _regrid(rows_lD: torch.Tensor, side: int) -> torch.Tensor:
    """Rows of a square grid as those of a grid of another side, bilinear; the same rows for the same side."""
    old = round(len(rows_lD) ** 0.5)
    if old == side:
        return rows_lD
    grid_1Dss = rows_lD.T.unflatten(1, (old, old)).unsqueeze(0)
    return F.interpolate(grid_1Dss, size=(side, side), mode="bilinear", align_corners=False)[0].flatten(1).T


@torch.no_grad()
def student_weights(teacher: ScaleTransformer, config: ModelConfig) -> dict[str, torch.Tensor]:
    """Weights of a model of another schedule that start from a teacher's (scale distillation of SRDD, arXiv 2509.22636).

    Every tensor is the teacher's. Positions and level of a scale are those of the teacher's scale of the same side; a side that the
    teacher lacks takes the nearest grid, resized bilinearly, and its level. The start embedding is the teacher's where both begin at
    one scale; a student that begins at a later scale of the teacher starts with what that scale adds to its positions when it reads
    an empty state: the bias of the input. On the teacher's own schedule nothing changes. A student with intra-scale masks of a teacher
    without starts with own embeddings of 0: whatever is revealed, it is its teacher. Raises ValueError for other sizes.
    """
    if problem := teacher_misfit(teacher.config, config):
        raise ValueError(problem)
    old, new = teacher.schedule, config.schedule
    weights = {name: value.detach().clone() for name, value in teacher.state_dict().items()}
    scales = nearest_scales(old, new)
    rows = [_regrid(teacher.position[old.slices[k]], side) for k, side in zip(scales, new.patch_nums)]
    weights["position"] = torch.cat(rows).contiguous()
    weights["level_embedding.weight"] = teacher.level_embedding.weight[list(scales)].clone()
    if scales[0] == 0:
        weights["start_position"] = _regrid(teacher.start_position, new.patch_nums[0]).contiguous().clone()
    else:
        weights["start_position"] = teacher.input.bias.expand(new.lengths[0], -1).clone()
    if config.mask_prob > 0 and teacher.own_embedding is None:
        weights["own_embedding.weight"] = teacher.position.new_zeros(config.codebook_size + 1, config.width)
    return weights


# ---------------------------------------------------------------- the logits of a teacher


@torch.no_grad()
def teacher_logits(
    teacher: ScaleTransformer, schedule: ScaleSchedule, inputs_BLC: torch.Tensor, labels_B: torch.Tensor
) -> torch.Tensor:
    """Logits_BLV of a Markov teacher at the student's states, at its own scales of the same sides (scale distillation of SRDD, arXiv
    2509.22636); every own token masked, no gradient.

    Scale by scale through the teacher's denoiser: at history 0 a scale needs no other, so the teacher computes the student's tokens
    and none of the scales that the student lacks. A student that begins at a later scale asks the teacher about the empty state,
    which the teacher never saw there. inputs_BLC: `Ladder.teacher_forced_inputs` of the student's ladder. Raises ValueError for a
    teacher that is not Markov or lacks a side.
    """
    student = teacher.config.model_copy(update={"patch_nums": schedule.patch_nums})
    if problem := logit_teacher_misfit(teacher.config, student):
        raise ValueError(problem)
    denoise, scale_of_side = teacher.denoiser(), {side: k for k, side in enumerate(teacher.schedule.patch_nums)}
    asked = zip(schedule.patch_nums, schedule.slices)
    return torch.cat([denoise(inputs_BLC[:, piece], scale_of_side[side], labels_B) for side, piece in asked], 1)


def distillation_loss(student_BLV: torch.Tensor, teacher_BLV: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student), mean over images and tokens, in nats (knowledge distillation, arXiv 1503.02531, at temperature 1).

    No gradient flows into the teacher's logits.
    """
    target_BLV = teacher_BLV.detach().float().log_softmax(-1)
    return F.kl_div(student_BLV.float().log_softmax(-1), target_BLV, reduction="none", log_target=True).sum(-1).mean()
