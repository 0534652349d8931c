"""What a function of a user's own must return: one ValueError that names the function, before its
result is used.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

import torch

from .schedule import ScaleSchedule


def shape_of(value: Any) -> str:
    """Kind, dtype and shape of what a function of VAR's sampler (arXiv 2404.02905) or another
    returned, for an error."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def fits(value: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> TypeGuard[torch.Tensor]:
    """Whether what a function of VAR's sampler (arXiv 2404.02905) or another returned is a tensor
    of a dtype and shape."""
    return isinstance(value, torch.Tensor) and value.dtype == dtype and value.shape == shape


def _floats(value: Any) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


# ---------------------------------------------------------------- what a sampler knows of a network


class Denoise(Protocol):
    """All that a sampler knows of a network (next-scale prediction, VAR, arXiv 2404.02905, equation
    5): logits_BlV of scale k, from what it reads of the state and the labels of its images.

    own_Bl: the scale's revealed tokens, V where masked, for a model trained with masks.
    """

    def __call__(
        self,
        inputs_BlC: torch.Tensor,
        k: int,
        labels_B: torch.Tensor,
        own_Bl: torch.Tensor = ...,
        /,
    ) -> torch.Tensor: ...


class Halves(Denoise, Protocol):
    """A `denoise` as its two halves, which guidance (arXiv 2207.12598) acts between:
    head(hidden(...)) are its logits, and `head` is affine.

    labels_B of `hidden` may go on beyond the inputs: those of the first images count. A network
    computes what follows from the class once a batch: it knows labels again by identity.
    """

    def hidden(
        self,
        inputs_BlC: torch.Tensor,
        k: int,
        labels_B: torch.Tensor,
        own_Bl: torch.Tensor = ...,
        /,
    ) -> torch.Tensor:
        """What the head reads, (B, l, D), of scale k (VAR, arXiv 2404.02905, section 3.3)."""
        ...

    def head(self, hidden_BlD: torch.Tensor, /) -> torch.Tensor:
        """Logits (B, l, V), affine in what it reads (VAR, arXiv 2404.02905, section 3.3)."""
        ...


# ---------------------------------------------------------------- masks


def check_mask(mask_LL: Any, schedule: ScaleSchedule, who: str) -> torch.Tensor:
    """A mask that leaks nothing: a token sees none of a later scale, and at least one token (VAR,
    arXiv 2404.02905, figure 4).

    What a token of scale k must predict is in no input of scale k, so that inside its scale it may
    see all tokens or some. Sampling applies the same rows as training. Raises ValueError that
    begins with `who` for another dtype, shape or content.
    """
    L = schedule.seq_len
    if not fits(mask_LL, torch.bool, (L, L)):
        raise ValueError(
            f"{who}: gives {shape_of(mask_LL)}; must be bool of shape {(L, L)}, True where the "
            "row's token may look at the column's"
        )
    seen_LL = mask_LL.cpu()
    scale_L = torch.tensor([k for k, length in enumerate(schedule.lengths) for _ in range(length)])
    later_LL = seen_LL & (scale_L[None, :] > scale_L[:, None])
    if later_LL.any():
        query, key = later_LL.nonzero()[0].tolist()
        raise ValueError(
            f"{who}: lets token {query} of scale {scale_L[query]} look at token {key} of the "
            f"later scale {scale_L[key]}, "
            "which leaks what it must predict; True must mean `may look`, at the own and earlier "
            "scales"
        )
    blind_L = ~seen_LL.any(1)
    if blind_L.any():
        query = int(blind_L.nonzero()[0])
        raise ValueError(
            f"{who}: lets token {query} of scale {scale_L[query]} look at nothing; give it at "
            "least itself"
        )
    return mask_LL


def ask_mask(mask: Callable[..., Any], schedule: ScaleSchedule, who: str) -> torch.Tensor:
    """The mask of a function (VAR, arXiv 2404.02905, figure 4), on the CPU, checked by
    `check_mask`; the same whenever it is asked for.

    Raises ValueError also where two calls differ: training and sampling would then see different
    masks.
    """
    # a network that is only counted lives on the meta device, where nothing has a value
    with torch.device("cpu"):
        mask_LL = check_mask(mask(schedule), schedule, who)
        if not torch.equal(mask_LL, mask(schedule)):
            raise ValueError(
                f"{who}: gives another mask each time; it must follow from the schedule alone"
            )
    # a mask made in inference mode cannot be trained with
    return mask_LL.clone() if mask_LL.is_inference() else mask_LL


# ---------------------------------------------------------------- guidance


def check_weight(weight: Any, k: int, who: str) -> float:
    """The guidance weight of a scale: a finite number of 0 or more (arXiv 2207.12598, equation 6,
    as u + w (c - u))."""
    number = math.nan
    # True would pass as 1, which means no guidance
    if "bool" not in str(getattr(weight, "dtype", type(weight))) and not isinstance(weight, str):
        try:
            number = float(weight)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            pass
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(
            f"{who}: gives {weight!r} at scale {k}; a weight must be a finite number of 0 or more "
            "(0 no class, 1 no guidance)"
        )
    return number


# ---------------------------------------------------------------- selection of tokens


def check_select(redraw_Bl: Any, fixed_Bl: torch.Tensor, who: str) -> torch.Tensor:
    """Which tokens a further pass redraws (mask resampling of SRDD, arXiv 2509.22636): bool (B, l),
    never a known one."""
    if not fits(redraw_Bl, torch.bool, fixed_Bl.shape):
        raise ValueError(
            f"{who}: gives {shape_of(redraw_Bl)}; must be bool of shape {tuple(fixed_Bl.shape)}, "
            "True to redraw"
        )
    if (redraw_Bl & fixed_Bl).any():
        raise ValueError(f"{who}: redraws known tokens; leave out drawn.fixed_Bl")
    return redraw_Bl


def check_confidence(confidence_Bl: Any, shape: tuple[int, ...], who: str) -> torch.Tensor:
    """How sure a pass is of each position (SDAR, arXiv 2510.06303): finite floats (B, l)."""
    if not _floats(confidence_Bl) or confidence_Bl.shape != shape:
        raise ValueError(
            f"{who}: gives {shape_of(confidence_Bl)}; must be floats of shape {tuple(shape)}, the "
            "surest position the highest"
        )
    if not confidence_Bl.isfinite().all():
        raise ValueError(f"{who}: gives NaN or inf; a confidence must be a finite number")
    return confidence_Bl


# ---------------------------------------------------------------- corruption


def ask_corrupt(
    corrupt: Callable[..., Any],
    who: str,
    tokens_BL: torch.Tensor,
    eps: float,
    codebook_size: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Tokens after a corruption (D3PM, arXiv 2107.03006): int64 of the same shape in 0 ... V, V an
    absorbed one; the tokens that are given, which are also what is to be predicted, stay as they
    were. Raises ValueError that begins with `who`."""
    before_BL = tokens_BL.clone()
    seen_BL = corrupt(tokens_BL, eps, codebook_size, generator)
    if not fits(seen_BL, torch.int64, before_BL.shape):
        raise ValueError(
            f"{who}: gives {shape_of(seen_BL)}; must be {shape_of(before_BL)}, as the tokens it "
            "is given"
        )
    if not torch.equal(tokens_BL, before_BL):
        raise ValueError(
            f"{who}: changes the tokens that it is given, which are the targets too; return new "
            "ones"
        )
    if seen_BL.numel() and (seen_BL.amin() < 0 or seen_BL.amax() > codebook_size):
        raise ValueError(
            f"{who}: gives tokens {int(seen_BL.amin())} ... {int(seen_BL.amax())}; must be 0 ... "
            f"{codebook_size}, where "
            f"{codebook_size} means a lost one"
        )
    return seen_BL


# ---------------------------------------------------------------- weights of masked tokens


def ask_weigh(
    weigh: Callable[..., Any],
    who: str,
    own_BL: torch.Tensor,
    schedule: ScaleSchedule,
    codebook_size: int,
    mask_prob: float,
) -> torch.Tensor:
    """Weight of each token in the loss of intra-scale masks (MaskGIT, arXiv 2202.04200, equation
    1): float32 of the shape of own_BL, finite, at least 0, and 0 where a token is revealed.

    Raises ValueError that begins with `who`."""
    before_BL = own_BL.clone()
    share_BL = weigh(own_BL, schedule, codebook_size, mask_prob)
    if not fits(share_BL, torch.float32, before_BL.shape):
        raise ValueError(
            f"{who}: gives {shape_of(share_BL)}; must be float32 of shape "
            f"{tuple(before_BL.shape)}, a weight for each token"
        )
    if not torch.equal(own_BL, before_BL):
        raise ValueError(
            f"{who}: changes the own tokens that it is given, which the network reads; work on a "
            "copy"
        )
    # written so that NaN is refused too
    if not (share_BL.isfinite() & (share_BL >= 0)).all():
        raise ValueError(
            f"{who}: gives a weight that is negative or not a finite number; must be 0 or more"
        )
    if share_BL[own_BL != codebook_size].any():
        raise ValueError(
            f"{who}: weighs a token that is revealed, whose loss says nothing; give 0 where own_BL "
            f"is not {codebook_size}"
        )
    return share_BL


# ---------------------------------------------------------------- what is asked of a sampler


def whole_numbers(values: Any, what: str) -> list[int]:
    """Seeds as whole numbers (per-image seeds of EDM2, arXiv 2312.02696). Raises ValueError for a
    fraction, which would be cut off."""
    try:
        return [operator.index(value) for value in values]
    except TypeError:
        raise ValueError(f"{what} {values!r}: must be whole numbers, one for each image") from None


def check_labels(labels_B: Any, num_classes: int) -> None:
    """Labels of a batch (VAR, arXiv 2404.02905, section 3.3): integers of shape (B,) in 0 ...
    num_classes - 1, 0 without classes.

    "No class" is no label: guidance (arXiv 2207.12598) asks for it itself. Raises ValueError.
    """
    if (
        not isinstance(labels_B, torch.Tensor)
        or labels_B.ndim != 1
        or labels_B.dtype not in (torch.int64, torch.int32)
    ):
        raise ValueError(
            f"labels: {shape_of(labels_B)}: must be int64 of shape (B,), one label for each image"
        )
    if not len(labels_B):
        raise ValueError("labels: none given; ask for at least one image")
    least, most, last = int(labels_B.amin()), int(labels_B.amax()), max(1, num_classes) - 1
    if least < 0 or most > last:
        hint = (
            f"{num_classes} classes, counted from 0"
            if num_classes
            else "the model knows no classes"
        )
        raise ValueError(
            f"label {most if most > last else least}: must be 0 ... {last} ({hint}; `no class` is "
            "no label)"
        )


def check_known(tokens_BL: Any, mask_BL: Any, shape: tuple[int, int], codebook_size: int) -> None:
    """Tokens that a sample must keep (VAR, arXiv 2404.02905, section 4.4): int64 and bool of one
    shape, codes where they hold.

    Raises ValueError.
    """
    tensors = isinstance(tokens_BL, torch.Tensor) and isinstance(mask_BL, torch.Tensor)
    if not tensors or not shape == tokens_BL.shape == mask_BL.shape:
        tokens, mask = (
            str(tuple(x.shape)) if isinstance(x, torch.Tensor) else shape_of(x)
            for x in (tokens_BL, mask_BL)
        )
        raise ValueError(f"known tokens {tokens} and mask {mask}: must be {shape}, a row per image")
    if tokens_BL.dtype != torch.int64 or mask_BL.dtype != torch.bool:
        raise ValueError(
            f"known tokens {tokens_BL.dtype} and mask {mask_BL.dtype}: must be torch.int64 and "
            "torch.bool"
        )
    if (mask_BL & ((tokens_BL < 0) | (tokens_BL >= codebook_size))).any():
        raise ValueError(
            f"known tokens: must be codes, 0 ... {codebook_size - 1}, wherever their mask is True"
        )


# ---------------------------------------------------------------- shifts and degradations


def ask_images(
    change: Callable[[torch.Tensor], Any], who: str, images_BCHW: torch.Tensor
) -> torch.Tensor:
    """What a shift or degradation makes of images (ImageNet-C, arXiv 1903.12261): the same dtype
    and shape in [-1, 1], the same at a second call; the images that it is given stay as they were.
    Raises ValueError that begins with `who`."""
    given_BCHW = images_BCHW.clone()
    seen_BCHW = change(given_BCHW)
    if not fits(seen_BCHW, images_BCHW.dtype, images_BCHW.shape):
        raise ValueError(
            f"{who}: gives {shape_of(seen_BCHW)}; must be {shape_of(images_BCHW)}, as the images "
            "it is given"
        )
    if not torch.equal(given_BCHW, images_BCHW):
        raise ValueError(f"{who}: changes the images that it is given; work on a copy")
    # written so that NaN is refused too
    if seen_BCHW.numel() and not seen_BCHW.abs().amax() <= 1.001:
        low, high = seen_BCHW.amin().item(), seen_BCHW.amax().item()
        raise ValueError(f"{who}: gives values {low:.4g} to {high:.4g}; must be in [-1, 1]")
    if not torch.equal(seen_BCHW, change(images_BCHW.clone())):
        raise ValueError(
            f"{who}: gives something else each time; draw every random number from a generator of "
            "the image's own seed"
        )
    return seen_BCHW


# ---------------------------------------------------------------- what a tokenizer is given


def check_images(images: Any, shape: tuple[int, int, int]) -> None:
    """Images of a tokenizer (VAR, arXiv 2404.02905, algorithm 1): floats in [-1, 1] of shape
    (B, channels, side, side). Raises ValueError."""
    if not _floats(images) or images.shape[1:] != shape:
        raise ValueError(
            f"images: {shape_of(images)}: must be floats in [-1, 1] of shape {('B', *shape)}"
        )
    # written so that NaN is refused too
    if images.numel() and not images.abs().amax() <= 1.001:
        low, high = images.amin().item(), images.amax().item()
        raise ValueError(f"images: values {low:.4g} to {high:.4g}: must be in [-1, 1]")


def check_tokens(tokens_BL: Any, length: int, codebook_size: int) -> None:
    """Tokens of a tokenizer (VAR, arXiv 2404.02905, algorithm 2): int64 in 0 ... V of shape (B, L),
    V an absent one. Raises ValueError."""
    whole = isinstance(tokens_BL, torch.Tensor) and tokens_BL.dtype in (torch.int64, torch.int32)
    if not whole or tokens_BL.ndim != 2 or tokens_BL.shape[1] != length:
        raise ValueError(
            f"tokens: {shape_of(tokens_BL)}: must be int64 of shape {('B', length)} for this "
            "schedule"
        )
    if tokens_BL.numel() and (tokens_BL.amin() < 0 or tokens_BL.amax() > codebook_size):
        raise ValueError(
            f"tokens: {int(tokens_BL.amin())} ... {int(tokens_BL.amax())}: must be codes, 0 ... "
            f"{codebook_size - 1}, or {codebook_size} for an absent one"
        )


# ---------------------------------------------------------------- what a sampler returns


def check_drawn(
    sample: Any, shape: tuple[int, int], state_shape: tuple[int, ...], who: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kinds and shapes of what a sampler of VAR (arXiv 2404.02905) or one's own returns: tokens_BL
    int64 and f_hat_BChw of floats."""
    if not isinstance(sample, tuple) or len(sample) != 2:
        raise ValueError(f"{who}: gives {shape_of(sample)}; must be the pair tokens_BL, f_hat_BChw")
    tokens_BL, f_hat_BChw = sample
    if not fits(tokens_BL, torch.int64, shape):
        raise ValueError(
            f"{who}: gives tokens {shape_of(tokens_BL)}; must be int64 of shape {shape}"
        )
    if not _floats(f_hat_BChw) or f_hat_BChw.shape != state_shape:
        raise ValueError(
            f"{who}: gives a state {shape_of(f_hat_BChw)}; must be floats of shape {state_shape}"
        )
    return tokens_BL, f_hat_BChw


def drawn_faults(
    tokens_BL: torch.Tensor, f_hat_BChw: torch.Tensor, codebook_size: int, known: Any | None
) -> torch.Tensor:
    """Whether a sample (VAR, arXiv 2404.02905) holds tokens that are no codes, lost known ones, or
    a state that is not finite.

    known: with tokens_BL and mask_BL, or None. Returns bool of shape (3,), on the sample's device:
    nobody waits for it here.
    """
    least, most = tokens_BL.aminmax()
    no_code = (least < 0) | (most >= codebook_size)
    lost = torch.zeros_like(no_code)
    if known is not None:
        lost = ((tokens_BL != known.tokens_BL) & known.mask_BL).any()
    # one sum, not finite where one number is not
    return torch.stack((no_code, lost, ~f_hat_BChw.sum().isfinite()))


def refuse_drawn(faults: list[bool], codebook_size: int, who: str) -> None:
    """Raises ValueError for the first of `drawn_faults` (VAR, arXiv 2404.02905), naming the
    sampler."""
    no_code, lost, not_finite = faults
    if no_code:
        raise ValueError(
            f"{who}: gives tokens that are no codes; must be 0 ... {codebook_size - 1}"
        )
    if lost:
        raise ValueError(f"{who}: does not keep the known tokens; put them in with known.put_into")
    if not_finite:
        raise ValueError(
            f"{who}: gives a state f_hat with NaN or inf; are the codebook and phi sound?"
        )
