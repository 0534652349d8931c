"""What may make a sample of few images faster, held by `measure.py` against what there is.

At batch 1 a block of VAR-d16 is ten kernels or so, and most of its time is their starts. Here it is
seven: attention reads the product of queries, keys and values itself, and GELU ends the product
before it. What a GPU shows to be faster belongs into `srdd/kernels.py`.

B batch, l tokens of one scale, D width, H heads; N = B l rows
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import triton
import triton.language as tl

import srdd.fused
from srdd.attention import Attention, ScaleCache
from srdd.kernels import (
    FEW_ROWS,
    INPUTS,
    OUTPUTS,
    _few_rows,
    _shared_bytes,
    product,
    stages_that_fit,
)
from srdd.transformer import Block

there_attended, there_mlp = srdd.fused._attended, srdd.fused._mlp


@triton.jit
def _summed(
    x_ptr, bias_ptr, row, inside_row, at, column, inside, width, part_stride,
    PARTS: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Rows of a product in parts, at the columns of one head, in float32."""
    there = inside_row[:, None] & inside[None, :]
    total = tl.zeros((ROWS, DIM), tl.float32)
    for part in tl.static_range(PARTS):
        place = part * part_stride + row[:, None] * width + at + column[None, :]
        total += tl.load(x_ptr + place, mask=there, other=0.0).to(tl.float32)
    if BIAS:
        total += tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    return total


@triton.jit
def _unit(x):
    """Rows of length 1, as `_heads_kernel` makes them."""
    return x / tl.maximum(tl.sqrt(tl.sum(x * x, 1)), 1e-12)[:, None]


@triton.jit
def _seen(q, k, v, inside, logit_scale, top, total, out):
    """Keys and values more: the largest logit, the sum of weights, and the weighted values."""
    logits = tl.dot(q, tl.trans(k), input_precision="ieee") * logit_scale
    logits = tl.where(inside[None, :], logits, float("-inf"))
    higher = tl.maximum(top, tl.max(logits, 1))
    weights, before = tl.exp(logits - higher[:, None]), tl.exp(top - higher)
    total = total * before + tl.sum(weights, 1)
    out = tl.dot(weights.to(v.dtype), v, out * before[:, None], input_precision="ieee")
    return higher, total, out


@triton.jit
def _attend_kernel(
    qkv_ptr, q_bias_ptr, v_bias_ptr, log_scale_ptr, key_ptr, value_ptr, out_ptr,
    length, earlier, heads, head_dim, part_stride, logit_scale, most,
    k_image, k_head, k_token, v_image, v_head, v_token,
    PARTS: tl.constexpr, NORM: tl.constexpr, KEEPS: tl.constexpr,
    ROWS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    image, head = tl.program_id(0).to(tl.int64) // heads, tl.program_id(0) % heads
    width = heads * head_dim
    dtype = out_ptr.dtype.element_ty
    column = tl.arange(0, DIM)
    inside = column < head_dim
    column += head * head_dim
    token = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    asks, row = token < length, image * length + token
    q = _summed(
        qkv_ptr, q_bias_ptr, row, asks, 0, column, inside, 3 * width, part_stride,
        PARTS, True, ROWS, DIM,
    )  # fmt: skip
    if NORM:
        scale = tl.load(log_scale_ptr + head).to(tl.float32)
        q = _unit(q) * tl.exp(tl.minimum(scale, most))
    q = q.to(dtype)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    out = tl.zeros((ROWS, DIM), tl.float32)
    place = tl.arange(0, DIM)[None, :]
    k_begin, v_begin = image * k_image + head * k_head, image * v_image + head * v_head
    for begin in tl.range(0, earlier, ROWS, num_stages=2):
        at = begin + tl.arange(0, ROWS)
        there = (at < earlier)[:, None] & inside[None, :]
        k = tl.load(key_ptr + k_begin + at[:, None] * k_token + place, mask=there, other=0.0)
        v = tl.load(value_ptr + v_begin + at[:, None] * v_token + place, mask=there, other=0.0)
        top, total, out = _seen(q, k, v, at < earlier, logit_scale, top, total, out)
    # parts of several stretches would not fit into shared memory together
    for begin in tl.range(0, length, ROWS, num_stages=1):
        at = begin + tl.arange(0, ROWS)
        own, mine = at < length, image * length + at
        k = _summed(
            qkv_ptr, q_bias_ptr, mine, own, width, column, inside, 3 * width, part_stride,
            PARTS, False, ROWS, DIM,
        )  # fmt: skip
        v = _summed(
            qkv_ptr, v_bias_ptr, mine, own, 2 * width, column, inside, 3 * width, part_stride,
            PARTS, True, ROWS, DIM,
        ).to(dtype)  # fmt: skip
        if NORM:
            k = _unit(k)
        k = k.to(dtype)
        if KEEPS:
            # each block of threads keeps the keys of its own queries; none reads what others keep
            kept = (own & (begin == tl.program_id(1) * ROWS))[:, None] & inside[None, :]
            slot = (earlier + at)[:, None]
            tl.store(key_ptr + k_begin + slot * k_token + place, k, mask=kept)
            tl.store(value_ptr + v_begin + slot * v_token + place, v, mask=kept)
        top, total, out = _seen(q, k, v, own, logit_scale, top, total, out)
    out = (out / total[:, None]).to(dtype)
    there = asks[:, None] & inside[None, :]
    tl.store(out_ptr + row[:, None] * width + column[None, :], out, mask=there)


@triton.jit
def _gelu_kernel(
    x_ptr, weight_ptr, bias_ptr, out_ptr, rows, outputs, inputs,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, ROWS)
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    total = _few_rows(
        x_ptr, weight_ptr, row, output, rows, outputs, inputs, 0, inputs, ROWS, OUTPUTS, INPUTS
    )
    z = total + tl.load(bias_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)[None, :]
    # 0.5 (1 + tanh u) is the sigmoid of 2 u
    z *= tl.sigmoid(1.5957691216057308 * (z + 0.044715 * z * z * z))
    inside = (row[:, None] < rows) & (output[None, :] < outputs)
    at = row[:, None] * outputs + output[None, :]
    tl.store(out_ptr + at, z.to(out_ptr.dtype.element_ty), mask=inside)


def attended(
    attention: Attention,
    x_BlD: torch.Tensor,
    cache: ScaleCache,
    block: int,
    rows_lL: torch.Tensor | None,
) -> torch.Tensor:
    """`srdd.fused._attended` with one kernel between both products, where no mask is asked for."""
    B, length, D = x_BlD.shape
    d = attention.head_dim
    if rows_lL is not None or attention.heads * d != D:
        return there_attended(attention, x_BlD, cache, block, rows_lL)
    qkv_PNE = product(x_BlD.flatten(0, 1), attention.qkv.weight)
    key, value, keeps = qkv_PNE[0], qkv_PNE[0], cache.history != 0
    strides, earlier = (0,) * 6, 0
    if keeps:
        key, value = cache.slots(block, length)[1]
        strides, earlier = (*key.stride()[:3], *value.stride()[:3]), key.shape[2] - length
    h_ND = torch.empty(B * length, D, dtype=x_BlD.dtype, device=x_BlD.device)
    rows = min(64, max(16, triton.next_power_of_2(length)))
    _attend_kernel[(B * attention.heads, triton.cdiv(length, rows))](
        qkv_PNE, attention.q_bias, attention.v_bias,
        attention.head_log_scale if attention.qk_norm else attention.q_bias, key, value, h_ND,
        length, earlier, attention.heads, d, qkv_PNE.stride(0), attention.logit_scale,
        math.log(100.0), *strides,
        PARTS=len(qkv_PNE), NORM=attention.qk_norm, KEEPS=keeps,
        ROWS=rows, DIM=max(16, triton.next_power_of_2(d)), num_warps=4,
    )  # fmt: skip
    return product(h_ND, attention.out.weight)


def mlp(block: Block, x_BlD: torch.Tensor) -> torch.Tensor:
    """`srdd.fused._mlp` whose first product is a kernel of few rows, GELU at its end."""
    x_ND, weight_ED = x_BlD.flatten(0, 1), block.mlp_in.weight
    N, (E, D) = len(x_ND), weight_ED.shape
    if N > FEW_ROWS or x_ND.dtype not in (torch.bfloat16, torch.float16):
        return there_mlp(block, x_BlD)
    h_NE = torch.empty(N, E, dtype=x_ND.dtype, device=x_ND.device)
    rows = max(16, triton.next_power_of_2(N))
    _gelu_kernel[(triton.cdiv(E, OUTPUTS),)](
        x_ND, weight_ED, block.mlp_in.bias, h_NE, N, E, D,
        ROWS=rows, OUTPUTS=OUTPUTS, INPUTS=INPUTS,
        num_warps=4, num_stages=stages_that_fit(rows, _shared_bytes(x_ND.device)),
    )  # fmt: skip
    return product(h_NE, block.mlp_out.weight)


@contextmanager
def fewer_kernels() -> Iterator[None]:
    """Where `FusedStep` asks for the kernels of this file."""
    with patch.object(srdd.fused, "_attended", attended), patch.object(srdd.fused, "_mlp", mlp):
        yield
