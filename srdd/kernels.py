"""Triton kernels of sampling on a GPU: what torch would do in several passes over memory, in one.

Each has its plain twin beside which it is tested: the blocks of `transformer.py`, and `draw.py`. A
kernel reads every number once, and computes in float32, sums of probabilities in float64.

B batch, l tokens of one scale, V codebook, D width, H heads; M = B l rows
"""

from __future__ import annotations

import math
from functools import cache

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]


@triton.jit
def _norm_kernel(
    x_ptr, h_ptr, bias_ptr, gate_ptr, gain_ptr, shift_ptr, out_ptr,
    length, width, part_stride, gate_stride, gain_stride, shift_stride,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    image = row // length
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_ptr + row * width + column, mask=inside, other=0.0).to(tl.float32)
    if PARTS:
        h = tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
        for part in tl.static_range(PARTS):
            at = part * part_stride + row * width + column
            h += tl.load(h_ptr + at, mask=inside, other=0.0).to(tl.float32)
        gate = tl.load(gate_ptr + image * gate_stride + column, mask=inside, other=0.0)
        x += h * gate.to(tl.float32)
        tl.store(x_ptr + row * width + column, x, mask=inside)
    mean = tl.sum(x, 0) / width
    centred = tl.where(inside, x - mean, 0.0)
    inverse = tl.rsqrt(tl.sum(centred * centred, 0) / width + 1e-6)
    gain = tl.load(gain_ptr + image * gain_stride + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(shift_ptr + image * shift_stride + column, mask=inside, other=0.0)
    out = centred * inverse * (gain + 1.0) + shift.to(tl.float32)
    tl.store(out_ptr + row * width + column, out.to(out_ptr.dtype.element_ty), mask=inside)


def add_norm(
    x_BlD: torch.Tensor,
    added: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
    gain_B1D: torch.Tensor,
    shift_B1D: torch.Tensor,
    dtype: torch.dtype,
) -> torch.Tensor:
    """x += (h + bias) gate in place, then LayerNorm(x) (1 + gain) + shift (AdaLN of DiT, arXiv
    2212.09748): one pass over the residual stream. added: parts of h, as of `product`, bias_D and
    gate_B1D; or None. Returns (B, l, D) of `dtype`."""
    B, length, D = x_BlD.shape
    parts, bias_D, gate_B1D = (x_BlD[None], gain_B1D, gain_B1D) if added is None else added
    out_BlD = torch.empty(B, length, D, dtype=dtype, device=x_BlD.device)
    block = triton.next_power_of_2(D)
    _norm_kernel[(B * length,)](
        x_BlD, parts, bias_D, gate_B1D, gain_B1D, shift_B1D, out_BlD,
        length, D, parts.stride(0), gate_B1D.stride(0), gain_B1D.stride(0), shift_B1D.stride(0),
        PARTS=0 if added is None else len(parts), BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return out_BlD


@triton.jit
def _few_rows(
    x_ptr, weight_ptr, row, output, rows, outputs, inputs, first, share,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """x W^T of some rows and outputs over a share of the inputs, in float32."""
    total = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for begin in range(0, share, INPUTS):
        place = first + begin + tl.arange(0, INPUTS)
        x = tl.load(
            x_ptr + row[:, None] * inputs + place[None, :],
            mask=(row[:, None] < rows) & (place[None, :] < inputs), other=0.0,
        )  # fmt: skip
        weight = tl.load(
            weight_ptr + output[None, :] * inputs + place[:, None],
            mask=(output[None, :] < outputs) & (place[:, None] < inputs), other=0.0,
        )  # fmt: skip
        total = tl.dot(x, weight, total)
    return total


@triton.jit
def _product_kernel(
    x_ptr, weight_ptr, out_ptr, rows, outputs, inputs,
    SHARE: tl.constexpr, ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, ROWS)
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    total = _few_rows(
        x_ptr, weight_ptr, row, output, rows, outputs, inputs, tl.program_id(1) * SHARE, SHARE,
        ROWS, OUTPUTS, INPUTS,
    )  # fmt: skip
    at = (tl.program_id(1) * rows + row[:, None]) * outputs + output[None, :]
    inside = (row[:, None] < rows) & (output[None, :] < outputs)
    tl.store(out_ptr + at, total, mask=inside)


# few rows read the weights once and do little else: cut along the inputs too, so that all of the
# GPU reads, they are through sooner
FEW_ROWS = 128
OUTPUTS, INPUTS = 32, 128  # of the weights that a block of threads reads at once


def stages_that_fit(rows: int, shared_bytes: int) -> int:
    """Stretches of x and of W (VAR, arXiv 2404.02905, section 3.3) that a block of threads has on
    their way in its shared memory: 4, or 3 where that holds no more, such as the 99 KiB of GPUs
    that are not made for data centres. rows: of x, padded."""
    stage_bytes = 2 * INPUTS * (rows + OUTPUTS)  # of half precision
    return 4 if 4 * stage_bytes <= shared_bytes else 3


@cache
def _shared_bytes(device: torch.device) -> int:
    """The most shared memory that a block of threads may ask of a GPU; without one nothing is short
    of it."""
    if device.type != "cuda":
        return 2**30
    index = torch.cuda.current_device() if device.index is None else device.index
    # what Triton holds a kernel against when it starts it
    most: int = triton.runtime.driver.active.utils.get_device_properties(index)["max_shared_mem"]
    return most


def product(x_ND: torch.Tensor, weight_ED: torch.Tensor) -> torch.Tensor:
    """x W^T in parts (P, N, E) that `add_norm` adds up (VAR, arXiv 2404.02905, section 3.3): one
    part by torch, or several float32 ones where rows are few."""
    N, D = x_ND.shape
    E = len(weight_ED)
    halves = x_ND.dtype in (torch.bfloat16, torch.float16)
    if N > FEW_ROWS or not halves or D % 1024 or not x_ND.is_contiguous():
        return torch.mm(x_ND, weight_ED.T)[None]
    parts = 8 if N <= 32 else 4
    out = torch.empty(parts, N, E, dtype=torch.float32, device=x_ND.device)
    rows = max(16, triton.next_power_of_2(N))
    _product_kernel[(triton.cdiv(E, OUTPUTS), parts)](
        x_ND, weight_ED, out, N, E, D,
        SHARE=D // parts, ROWS=rows, OUTPUTS=OUTPUTS, INPUTS=INPUTS,
        num_warps=4, num_stages=stages_that_fit(rows, _shared_bytes(x_ND.device)),
    )  # fmt: skip
    return out


def _warps(block: int) -> int:
    """Warps of a block of threads that share one row: about eight numbers a thread."""
    return min(16, max(1, block // 256))


@triton.jit
def _heads_kernel(
    qkv_ptr, q_bias_ptr, v_bias_ptr, log_scale_ptr, q_ptr, k_ptr, v_ptr,
    length, heads, head_dim, most,
    k_image, k_head, k_token, v_image, v_head, v_token,
    NORM: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    image, token = row // length, row % length
    head = tl.arange(0, HEADS)[:, None]
    place = tl.arange(0, DIM)[None, :]
    inside = (head < heads) & (place < head_dim)
    width = heads * head_dim
    at = head * head_dim + place
    q = tl.load(qkv_ptr + row * 3 * width + at, mask=inside, other=0.0).to(tl.float32)
    k = tl.load(qkv_ptr + row * 3 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(qkv_ptr + row * 3 * width + 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    q += tl.load(q_bias_ptr + at, mask=inside, other=0.0).to(tl.float32)
    v += tl.load(v_bias_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.load(log_scale_ptr + head, mask=head < heads, other=0.0).to(tl.float32)
        scale = tl.exp(tl.minimum(scale, most))
        q_norm = tl.maximum(tl.sqrt(tl.sum(q * q, 1)), 1e-12)
        k_norm = tl.maximum(tl.sqrt(tl.sum(k * k, 1)), 1e-12)
        q = q / q_norm[:, None] * scale
        k = k / k_norm[:, None]
    tl.store(q_ptr + row * width + at, q.to(q_ptr.dtype.element_ty), mask=inside)
    k_at = image * k_image + head * k_head + token * k_token + place
    tl.store(k_ptr + k_at, k.to(k_ptr.dtype.element_ty), mask=inside)
    v_at = image * v_image + head * v_head + token * v_token + place
    tl.store(v_ptr + v_at, v.to(v_ptr.dtype.element_ty), mask=inside)


def split_heads(
    qkv_BlE: torch.Tensor,
    q_bias_D: torch.Tensor,
    v_bias_D: torch.Tensor,
    head_log_scale: torch.Tensor | None,
    key_BHld: torch.Tensor,
    value_BHld: torch.Tensor,
) -> torch.Tensor:
    """Queries (B, H, l, D/H) of the product of x and the weights of q, k and v, without bias; keys
    and values are written where they will be read, which may be a stretch of a cache (VAR, arXiv
    2404.02905, section 3.3).

    head_log_scale: of L2-normalised queries and keys; None: they stay as they are.
    """
    B, H, length, d = key_BHld.shape
    q_BlHd = torch.empty(B, length, H, d, dtype=qkv_BlE.dtype, device=qkv_BlE.device)
    heads, dim = triton.next_power_of_2(H), triton.next_power_of_2(d)
    _heads_kernel[(B * length,)](
        qkv_BlE, q_bias_D, v_bias_D, q_bias_D if head_log_scale is None else head_log_scale,
        q_BlHd, key_BHld, value_BHld,
        length, H, d, math.log(100.0),
        key_BHld.stride(0), key_BHld.stride(1), key_BHld.stride(2),
        value_BHld.stride(0), value_BHld.stride(1), value_BHld.stride(2),
        NORM=head_log_scale is not None, HEADS=heads, DIM=dim, num_warps=_warps(heads * dim),
    )  # fmt: skip
    return q_BlHd.transpose(1, 2)


@triton.jit
def _ordered(z):
    """Whole numbers in the order of float32 numbers, 0 for both zeros."""
    bits = z.to(tl.int32, bitcast=True)
    return tl.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))


@triton.jit
def _upper_middle(low, high):
    """Half way from low up to high, rounded up, where low < high: their difference may take 33
    bits."""
    return (low.to(tl.int64) + (high.to(tl.int64) - low + 1) // 2).to(tl.int32)


@triton.jit
def _mass_kernel(
    logits_ptr, out_ptr, codes, row_stride, temperature, top_k,
    TOP_P: tl.constexpr, COOLS: tl.constexpr, COUNTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    code = tl.arange(0, BLOCK)
    inside = code < codes
    z = tl.load(logits_ptr + row * row_stride + code, mask=inside, other=float("-inf"))
    z = z.to(tl.float32)
    if COOLS:
        z = tl.div_rn(z, temperature)
    e = tl.where(inside, tl.exp(z - tl.max(z, 0)), 0.0)
    mass = e / tl.sum(e, 0)
    if COUNTS or TOP_P < 1.0:
        # in 32 bits: 64 would be several instructions each
        order = tl.where(inside, _ordered(z), -2147483647)
        high = tl.max(order, 0)
        least = tl.min(tl.where(inside, order, 2147483647), 0)
        if COUNTS:
            # the top_k-th largest: the largest t that top_k codes reach
            top = high
            while least < top:
                middle = _upper_middle(least, top)
                reached = tl.sum((order >= middle).to(tl.int32), 0)
                least = tl.where(reached >= top_k, middle, least)
                top = tl.where(reached >= top_k, top, middle - 1)
        if TOP_P < 1.0:
            # the smallest t whose larger codes hold less than top_p of what top_k keeps
            kept = tl.where(order >= least, e, 0.0)
            total = tl.sum(kept.to(tl.float64), 0)
            if COUNTS:
                # of codes that tie with the top_k-th so many count that there are top_k
                more = tl.sum((order >= least).to(tl.int32), 0) - top_k
                total -= more * tl.max(tl.where(order == least, kept, 0.0), 0)
            enough = total * TOP_P
            top = high
            while least < top:
                middle = _upper_middle(least, top) - 1
                before = tl.sum(tl.where(order > middle, kept, 0.0).to(tl.float64), 0)
                least = tl.where(before < enough, least, middle + 1)
                top = tl.where(before < enough, middle, top)
        mass = tl.where(order >= least, mass, 0.0)
    tl.store(out_ptr + row * codes + code, mass, mask=inside)


def kept_mass(
    logits_BlV: torch.Tensor, temperature: float, top_k: int, top_p: float
) -> torch.Tensor:
    """Softmax of float32 logits over a temperature, 0 for what top-k and then the nucleus cut off
    (arXiv 1904.09751, section 3), without a sort: the least logit that is kept is found by halving
    the range of float32 numbers. Returns float32 (B, l, V), not normalised again."""
    V = logits_BlV.shape[-1]
    logits_NV = logits_BlV.reshape(-1, V)
    if logits_NV.stride(1) != 1:  # of one image a transposed tensor is not copied by reshape
        logits_NV = logits_NV.contiguous()
    out_BlV = torch.empty(logits_BlV.shape, dtype=torch.float32, device=logits_BlV.device)
    block = triton.next_power_of_2(V)
    _mass_kernel[(len(logits_NV),)](
        logits_NV, out_BlV, V, logits_NV.stride(0), temperature, top_k,
        TOP_P=top_p, COOLS=temperature != 1.0, COUNTS=top_k < V, BLOCK=block,
        num_warps=_warps(block),
    )  # fmt: skip
    return out_BlV


@triton.jit
def _draw_kernel(mass_ptr, uniform_ptr, token_ptr, chance_ptr, codes, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    code = tl.arange(0, BLOCK)
    inside = code < codes
    mass = tl.load(mass_ptr + row * codes + code, mask=inside, other=0.0).to(tl.float64)
    sums = tl.cumsum(mass, 0)
    total = tl.max(sums, 0)
    target = tl.load(uniform_ptr + row) * total
    # the first place whose sum is above the target, and of those the sum becomes whole at the last
    place = tl.sum((inside & (sums <= target)).to(tl.int32), 0)
    whole = tl.sum((inside & (sums < total)).to(tl.int32), 0)
    place = tl.minimum(tl.minimum(place, whole), codes - 1)
    tl.store(token_ptr + row, place.to(tl.int64))
    tl.store(chance_ptr + row, tl.sum(tl.where(code == place, mass, 0.0), 0) / total)


def draw(mass_BlV: torch.Tensor, uniform_Bl: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens by inverting the cumulative distribution at float64 numbers in [0, 1), and the float64
    probability of each (arXiv 1904.09751). Sums run in float64. Returns tokens_Bl and
    probability_Bl."""
    V = mass_BlV.shape[-1]
    mass_BlV, uniform_Bl = mass_BlV.contiguous(), uniform_Bl.contiguous()
    tokens_Bl = torch.empty(uniform_Bl.shape, dtype=torch.int64, device=mass_BlV.device)
    chance_Bl = torch.empty(uniform_Bl.shape, dtype=torch.float64, device=mass_BlV.device)
    block = triton.next_power_of_2(V)
    _draw_kernel[(uniform_Bl.numel(),)](
        mass_BlV, uniform_Bl, tokens_Bl, chance_Bl, V, BLOCK=block, num_warps=_warps(block)
    )
    return tokens_Bl, chance_Bl
