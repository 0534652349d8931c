"""Degraded images to clean ones by a scale transformer: what is read of its distribution, and
restorations by models that were trained for none.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, h w latent grid
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .config import SamplerConfig
from .contracts import Denoise
from .draw import distribution
from .model import ScaleTransformer
from .noise import ImageNoise
from .quantizer import Ladder
from .sampling import generate, sample_var
from .zero_shot import known_prefix

DECODES = ("argmax", "expected", "draw")


@torch.no_grad()
def expected_state(
    denoise: Denoise, ladder: Ladder, labels_B: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """The state whose every step is the mean code under the network, softmax(logits) @ codes (ours;
    a state between codes is legal, since the network reads states and no tokens). Returns
    f_hat_BChw. Towards temperature 0 it is that of the likeliest codes. ladder: as the network
    reads it."""
    f_hat_BChw = seen_BChw = ladder.empty_state(len(labels_B))
    for k in range(ladder.schedule.num_scales):
        logits_BlV = denoise(ladder.read_scale(seen_BChw, k), k, labels_B)
        share_BlV = (logits_BlV.float() / temperature).softmax(-1)
        codes_BlC = share_BlV.to(f_hat_BChw.dtype) @ ladder.quantizer.codebook_VC
        f_hat_BChw, seen_BChw = ladder.after(f_hat_BChw, codes_BlC, k)
    return f_hat_BChw


@torch.no_grad()
def restored(
    model: ScaleTransformer,
    ladder: Ladder,
    degraded_BChw: torch.Tensor,
    seeds: Sequence[int],
    decode: str,
    sampler: SamplerConfig,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Restore a batch with a model of `model.condition`: by the likeliest code of every scale
    (argmax, RestoreVAR, arXiv 2505.18047), by its mean code (expected), or drawn (draw).

    Returns f_hat_BChw for `Tokenizer.to_image` and tokens_BL, None for `expected`, which takes
    none. sampler: of `draw`. Raises ValueError for another decode.
    """
    if decode not in DECODES:
        raise ValueError(f"decode {decode!r}: is none of {', '.join(DECODES)}")
    labels_B = torch.zeros(len(seeds), dtype=torch.long, device=degraded_BChw.device)
    if decode == "expected":
        read = ladder.read_as(model.config.state)
        return expected_state(model.denoiser(degraded_BChw), read, labels_B), None
    config = SamplerConfig(top_k=1) if decode == "argmax" else sampler
    tokens_BL, f_hat_BChw = generate(
        model, ladder, labels_B, seeds, config, degraded_BChw=degraded_BChw
    )
    return f_hat_BChw, tokens_BL


# ---------------------------------------------------------------- without training


def _no_class(model: ScaleTransformer, count: int) -> torch.Tensor:
    return torch.full((count,), model.config.null_label, device=model.position.device)


@torch.no_grad()
def completed(
    model: ScaleTransformer,
    ladder: Ladder,
    degraded_BL: torch.Tensor,
    coarse: int,
    seeds: Sequence[int],
) -> torch.Tensor:
    """Keep the degraded image's own tokens of the first `coarse` scales and draw the others without
    a class (super-resolution of VAR, arXiv 2404.02905, section 4.4, from degraded tokens). Returns
    f_hat_BChw."""
    known = known_prefix(ladder.schedule, coarse, degraded_BL)
    ladder = ladder.read_as(model.config.state)
    noise = ImageNoise(seeds, degraded_BL.device)
    labels_B = _no_class(model, len(degraded_BL))
    return sample_var(model.denoiser(), ladder, labels_B, noise, SamplerConfig(), known)[1]


@torch.no_grad()
def repaired(
    model: ScaleTransformer,
    ladder: Ladder,
    degraded_BL: torch.Tensor,
    seeds: Sequence[int],
    p_resample: float,
    passes: int,
) -> torch.Tensor:
    """Start from the degraded image's own tokens; at every scale redraw those that the model finds
    less likely than p_resample, without a class, so many times (mask resampling of SRDD, arXiv
    2509.22636, with a given start; what SDEdit, 2108.01073, is to diffusion).

    model: trained with masks. Returns f_hat_BChw.
    """
    labels_B, noise = _no_class(model, len(degraded_BL)), ImageNoise(seeds, degraded_BL.device)
    denoise, V = model.denoiser(), model.config.codebook_size
    ladder = ladder.read_as(model.config.state)
    f_hat_BChw = seen_BChw = ladder.empty_state(len(degraded_BL))
    for k, where in enumerate(ladder.schedule.slices):
        inputs_BlC, tokens_Bl = ladder.read_scale(seen_BChw, k), degraded_BL[:, where]
        masked_Bl = torch.ones_like(tokens_Bl, dtype=torch.bool)
        for _ in range(passes):
            own_Bl = tokens_Bl.masked_fill(masked_Bl, V)
            logits_BlV = denoise(inputs_BlC, k, labels_B, own_Bl)
            probability_Bl = logits_BlV.softmax(-1).gather(-1, tokens_Bl[..., None])[..., 0]
            low_Bl = probability_Bl < p_resample
            drawn_Bl, _ = distribution(logits_BlV, 1.0, None, 1.0).draw(
                noise.uniform(tokens_Bl.shape[1])
            )
            tokens_Bl = torch.where(low_Bl, drawn_Bl, tokens_Bl)
            masked_Bl = low_Bl
        f_hat_BChw, seen_BChw = ladder.after(f_hat_BChw, ladder.quantizer.embed(tokens_Bl), k)
    return f_hat_BChw
