"""Scale distillation: a network of fewer scales that starts from one of more, and the loss that
ties the two.

SRDD (arXiv 2509.22636) distils SDD after reducing the scales. Only the beginning of the paper's
text was seen by us, so what stands here is this project's own.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .config import ModelConfig, SamplerConfig
from .contracts import Denoise
from .misfits import restorer_misfit, teacher_misfit, unconditioned
from .model import ScaleTransformer
from .noise import ImageNoise, generator, truncated_normal_
from .past import HistoryVector
from .quantizer import Ladder
from .sampling import Known, sample_var
from .schedule import ScaleSchedule

# ---------------------------------------------------------------- where a student starts


def nearest_scales(teacher: ScaleSchedule, student: ScaleSchedule) -> tuple[int, ...]:
    """For each scale of the student the teacher's of the same side, else of the nearest side; of
    two equally near ones the finer (scale distillation of SRDD, arXiv 2509.22636)."""
    sides = teacher.patch_nums
    return tuple(
        min(range(len(sides)), key=lambda k: (abs(sides[k] - side), -sides[k]))
        for side in student.patch_nums
    )


def _regrid(rows_lD: torch.Tensor, side: int) -> torch.Tensor:
    """Rows of a square grid as those of a grid of another side, bilinear; the same rows for the
    same side."""
    old = round(len(rows_lD) ** 0.5)
    if old == side:
        return rows_lD
    grid_1Dss = rows_lD.T.unflatten(1, (old, old)).unsqueeze(0)
    return (
        F.interpolate(grid_1Dss, size=(side, side), mode="bilinear", align_corners=False)[0]
        .flatten(1)
        .T
    )


@torch.no_grad()
def student_weights(teacher: ScaleTransformer, config: ModelConfig) -> dict[str, torch.Tensor]:
    """Weights of a model of another schedule that start from a teacher's (scale distillation of
    SRDD, arXiv 2509.22636).

    Every tensor is the teacher's. Positions and level of a scale are those of the teacher's scale
    of the same side; a side that the teacher lacks takes the nearest grid, resized bilinearly, and
    its level. The start embedding is the teacher's where both begin at one scale; a student that
    begins at a later scale of the teacher starts with what that scale adds to its positions when it
    reads an empty state: the bias of the input. On the teacher's own schedule nothing changes. A
    student with intra-scale masks of a teacher without starts with own embeddings of 0: whatever is
    revealed, it is its teacher. Raises ValueError for other sizes.
    """
    if problem := teacher_misfit(teacher.config, config):
        raise ValueError(problem)
    old, new = teacher.schedule, config.schedule
    weights = {name: value.detach().clone() for name, value in teacher.state_dict().items()}
    scales = nearest_scales(old, new)
    rows = [
        _regrid(teacher.position[old.slices[k]], side) for k, side in zip(scales, new.patch_nums)
    ]
    weights["position"] = torch.cat(rows).contiguous()
    weights["level_embedding.weight"] = teacher.level_embedding.weight[list(scales)].clone()
    if scales[0] == 0:
        weights["start_position"] = (
            _regrid(teacher.start_position, new.patch_nums[0]).contiguous().clone()
        )
    else:
        weights["start_position"] = teacher.input.bias.expand(new.lengths[0], -1).clone()
    if config.mask_prob > 0 and teacher.own_embedding is None:
        weights["own_embedding.weight"] = teacher.position.new_zeros(
            config.codebook_size + 1, config.width
        )
    if config.history_vector and teacher.past is None:
        weights |= _fresh_past(config, teacher.position)
    return weights


@torch.no_grad()
def restorer_weights(teacher: ScaleTransformer, fresh: ScaleTransformer) -> dict[str, torch.Tensor]:
    """Weights of a model that is told degraded images and starts from one that is told none
    (RestoreVAR, arXiv 2505.18047): those of the teacher as `student_weights` has them, its class
    embedding that of no class; what reads the images is as in the fresh model. Before a step its
    logits are the teacher's without a class. Raises ValueError for other sizes."""
    if problem := restorer_misfit(teacher.config, fresh.config):
        raise ValueError(problem)
    weights = student_weights(teacher, unconditioned(fresh.config, teacher.config))
    weights["class_embedding.weight"] = weights["class_embedding.weight"][-1:].clone()
    own = {name: value for name, value in fresh.state_dict().items() if _reads_images(name)}
    return weights | own


def _reads_images(name: str) -> bool:
    return name.startswith("condition.")


def _fresh_past(config: ModelConfig, like: torch.Tensor) -> dict[str, torch.Tensor]:
    """A history vector (Markov-VAR, arXiv 2511.23334) for a student of a teacher without: it adds
    nothing until it has learnt to."""
    fresh, std = HistoryVector(config), math.sqrt(1 / config.width / 3)
    source = generator("history vector of a student")
    fresh.init_weights(lambda weight: truncated_normal_(weight, std, source))
    return {f"past.{name}": value.detach().to(like) for name, value in fresh.state_dict().items()}


# ------------------------------------------------------- what a teacher knows of a student's tokens


def shared_scales(teacher: Ladder, student: Ladder) -> int:
    """How many scales both ladders begin with alike, so that a token of either is the same variable
    (scale distillation of SRDD, arXiv 2509.22636).

    A token of scale k encodes the residual after the state of all earlier scales. So the sides up
    to k and the phi of the scales before k must be equal. After an omitted scale no token is the
    teacher's, whatever its side.
    """
    old, new, count = teacher.schedule, student.schedule, 0
    phi_of = student.quantizer.phi_of
    for k, sides in enumerate(zip(old.patch_nums, new.patch_nums)):
        if len(set(sides)) > 1:
            break
        count += 1
        if phi_of(k, old.num_scales) != phi_of(k, new.num_scales):
            break
    return count


@torch.no_grad()
def shared_logits(
    denoise: Denoise, ladder: Ladder, tokens_BL: torch.Tensor, labels_B: torch.Tensor, count: int
) -> torch.Tensor:
    """Logits_BlV of a teacher at the first `count` scales, where its states are the student's
    (scale distillation of SRDD, arXiv 2509.22636); every own token masked, no gradient.

    denoise: a fresh one of the teacher; ladder and tokens_BL: the student's; count: of
    `shared_scales`, 1 or more.
    """
    f_hat_BChw = seen_BChw = ladder.empty_state(len(tokens_BL))
    logits = []
    for k, piece in enumerate(ladder.schedule.slices[:count]):
        logits.append(denoise(ladder.read_scale(seen_BChw, k), k, labels_B))
        codes_BlC = ladder.quantizer.embed(tokens_BL[:, piece])
        f_hat_BChw, seen_BChw = ladder.after(f_hat_BChw, codes_BlC, k)
    return torch.cat(logits, 1)


@torch.no_grad()
def continued(
    denoise: Denoise,
    teacher: Ladder,
    student: Ladder,
    tokens_BL: torch.Tensor,
    labels_B: torch.Tensor,
    noise: ImageNoise,
) -> torch.Tensor:
    """The student's tokens of what a teacher makes of an image's first scales (scale distillation
    of SRDD, arXiv 2509.22636). Returns tokens_BL.

    The shared scales stay as they are. From there the teacher draws its own later scales, omitted
    ones too, without guidance. The last state is encoded under the student's schedule, its shared
    tokens given. So all later tokens are one joint sample: a student of a perfect teacher learns
    the law of its own ladder. denoise: a fresh one of the teacher; noise: one seed per image.
    """
    count, new = shared_scales(teacher, student), student.schedule
    if count == new.num_scales:
        return tokens_BL
    length = sum(new.lengths[:count])
    whole_BL = tokens_BL.new_zeros(len(tokens_BL), teacher.schedule.seq_len)
    whole_BL[:, :length] = tokens_BL[:, :length]
    given_BL = torch.zeros_like(whole_BL, dtype=torch.bool)
    given_BL[:, :length] = True
    _, f_BChw = sample_var(
        denoise, teacher, labels_B, noise, SamplerConfig(), Known(whole_BL, given_BL)
    )
    f_hat_BChw, tokens = student.empty_state(len(tokens_BL)), []
    for k, piece in enumerate(new.slices):
        rest_BlC = student.rest(f_BChw, f_hat_BChw, k)
        own_Bl = tokens_BL[:, piece] if k < count else student.quantizer.nearest_code(rest_BlC)
        f_hat_BChw = student.add_scale(f_hat_BChw, student.quantizer.embed(own_Bl), k)
        tokens.append(own_Bl)
    return torch.cat(tokens, 1)


def distillation_loss(student_BLV: torch.Tensor, teacher_BLV: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student), mean over images and tokens, in nats (knowledge distillation, arXiv
    1503.02531, at temperature 1).

    No gradient flows into the teacher's logits.
    """
    target_BLV = teacher_BLV.detach().float().log_softmax(-1)
    return (
        F.kl_div(student_BLV.float().log_softmax(-1), target_BLV, reduction="none", log_target=True)
        .sum(-1)
        .mean()
    )
