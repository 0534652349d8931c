"""What happens to tokens before the network sees them: corruption of a forward process, and
intra-scale masks.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import sys

import torch

from .contracts import ask_corrupt
from .lookup import find, function_name, is_own
from .quantizer import Ladder
from .schedule import ScaleSchedule


def corrupted(
    name: str, tokens_BL: torch.Tensor, eps: float, codebook_size: int, generator: torch.Generator
) -> torch.Tensor:
    """Tokens after the corruption of that name (D3PM, arXiv 2107.03006): int64 in 0 ... V, V a lost
    one. Shape is kept.

    Raises ValueError for an unknown name, or a function of one's own that returns anything else.
    """
    corrupt = find(sys.modules[__name__], "corrupt", name)
    if not is_own("corrupt", name):  # not checked: that would make a GPU wait at each step
        corrupted_BL: torch.Tensor = corrupt(tokens_BL, eps, codebook_size, generator)
        return corrupted_BL
    who = function_name("corrupt", name)
    return ask_corrupt(corrupt, who, tokens_BL, eps, codebook_size, generator)


def corrupt_none(
    tokens_BL: torch.Tensor, eps: float, codebook_size: int, generator: torch.Generator
) -> torch.Tensor:
    """The deterministic forward process of VAR and SDD (SRDD, arXiv 2509.22636, section 3): tokens
    stay. Shape is kept."""
    return tokens_BL


def corrupt_uniform(
    tokens_BL: torch.Tensor, eps: float, codebook_size: int, generator: torch.Generator
) -> torch.Tensor:
    """Q = (1 - eps) I + eps/V 11^T (D3PM, arXiv 2107.03006, appendix A.2.1): each token is drawn
    anew with probability eps.

    Shape is kept; numbers come from a CPU generator, whatever the device of the tokens.
    """
    hit = torch.rand(tokens_BL.shape, generator=generator) < eps
    other = torch.randint(codebook_size, tokens_BL.shape, generator=generator)
    return torch.where(hit.to(tokens_BL.device), other.to(tokens_BL.device), tokens_BL)


def corrupt_absorb(
    tokens_BL: torch.Tensor, eps: float, codebook_size: int, generator: torch.Generator
) -> torch.Tensor:
    """Q = (1 - eps) I + eps 1 e_V^T (D3PM, arXiv 2107.03006, appendix A.2.2): each token is lost
    with probability eps.

    A lost token is V, whose code is zeros: phi adds its bias there and no more. Shape is kept.
    """
    hit = torch.rand(tokens_BL.shape, generator=generator) < eps
    return tokens_BL.masked_fill(hit.to(tokens_BL.device), codebook_size)


def wrong_codes(
    schedule: ScaleSchedule,
    images: int,
    noise: float,
    scales: int | None,
    codebook_size: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Codes that take the place of tokens in a training that corrects errors (bitwise
    self-correction of Infinity, arXiv 2412.04431; of whole tokens and for each image: ours).

    At each of the first `scales` scales of an image (None: all but the last, which none reads) a
    share of the tokens, uniform in (0, noise), is replaced by any code. Returns int64 (B, L), -1
    where a token stays.
    """
    touched = schedule.num_scales - 1 if scales is None else scales
    share_BK = torch.rand(images, schedule.num_scales, generator=generator) * noise
    share_BK[:, touched:] = 0.0
    share_BL = share_BK.repeat_interleave(torch.tensor(schedule.lengths), 1)
    hit_BL = torch.rand(share_BL.shape, generator=generator) < share_BL
    other_BL = torch.randint(codebook_size, share_BL.shape, generator=generator)
    return other_BL.masked_fill(~hit_BL, -1)


@torch.no_grad()
def correct(
    ladder: Ladder, latent_BChw: torch.Tensor, wrong_BL: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that a scale reads, some of them wrong, and those that it is to predict: the
    nearest codes of what the wrong ones leave of the latent (Infinity, arXiv 2412.04431, section
    3.3). Returns seen_BL and tokens_BL.

    wrong_BL: of `wrong_codes`; where none is wrong both are the tokens of the latent.
    """
    f_hat_BChw, seen, tokens = torch.zeros_like(latent_BChw), [], []
    for k, piece in enumerate(ladder.schedule.slices):
        # a_k = nearest(read(f - f_hat')), and the state goes on from the wrong code
        tokens_Bl = ladder.quantizer.nearest_code(ladder.rest(latent_BChw, f_hat_BChw, k))
        wrong_Bl = wrong_BL[:, piece]
        seen_Bl = torch.where(wrong_Bl < 0, tokens_Bl, wrong_Bl)
        f_hat_BChw = ladder.add_scale(f_hat_BChw, ladder.quantizer.embed(seen_Bl), k)
        seen.append(seen_Bl)
        tokens.append(tokens_Bl)
    return torch.cat(seen, 1), torch.cat(tokens, 1)


DRAWN = 2**20  # random numbers that are compared at once; 4 bytes each, as are their ratios


def hidden_within_scales(
    count: int, schedule: ScaleSchedule, mask_prob: float, generator: torch.Generator
) -> torch.Tensor:
    """Which tokens `mask_within_scales` hides in so many images (SRDD, arXiv 2509.22636; MaskGIT,
    2202.04200), bool (N, L). They do not depend on how many numbers are compared at once."""
    shape = count, schedule.num_scales
    ratio_NK = torch.rand(shape, generator=generator)
    ratio_NK = ratio_NK.masked_fill(torch.rand(shape, generator=generator) >= mask_prob, 0.0)
    L, lengths_K = schedule.seq_len, torch.tensor(schedule.lengths)
    hidden = [
        torch.rand(len(ratio_BK), L, generator=generator)
        >= ratio_BK.repeat_interleave(lengths_K, 1)
        for ratio_BK in ratio_NK.split(max(1, DRAWN // L))
    ]
    return torch.cat(hidden)


def mask_within_scales(
    tokens_BL: torch.Tensor,
    schedule: ScaleSchedule,
    mask_prob: float,
    codebook_size: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Intra-scale masks of a training step (mask resampling of SRDD, arXiv 2509.22636; ratios as in
    MaskGIT, 2202.04200).

    With probability mask_prob, for each image and scale, a random share of the scale's own tokens
    is revealed, the ratio uniform in (0, 1); else none is. Returns own_BL: the token where
    revealed, V where masked.
    """
    hidden_BL = hidden_within_scales(len(tokens_BL), schedule, mask_prob, generator)
    return tokens_BL.masked_fill(hidden_BL.to(tokens_BL.device), codebook_size)
