"""Attention that goes scale by scale: exact, without a mask tensor and without wasted work.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling

from .config import ModelConfig
from .linear import Linear, linear
from .masks import scale_mask
from .schedule import ScaleSchedule

HALVES = (torch.bfloat16, torch.float16)
# buffers of a cache, one for each block, by shape of the keys, dtype and device
Pool = dict[tuple[tuple[int, int, int], torch.dtype, torch.device], list[torch.Tensor]]
# (q, k, v, scale) -> what each query reads: who sees whom
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]


class ScaleCache:
    """Keys and values of the scales that later ones still attend to, in one preallocated buffer for
    each block.

    Entering scale k drops what is older than k - history; calling k again replaces its entry. With
    history 0 nothing is kept and nothing is allocated: this is where SDD (arXiv 2509.22636) saves
    VAR's memory.
    """

    def __init__(
        self, schedule: ScaleSchedule, history: int | None, depth: int, pool: Pool | None = None
    ) -> None:
        """pool: buffers that outlive a batch, by shape, so that a captured CUDA graph finds them
        where they were; for one cache at a time."""
        self.schedule, self.history = schedule, history
        spans = [schedule.key_slice(k, history) for k in range(schedule.num_scales)]
        self.capacity = max(span.stop - span.start for span in spans)
        self.depth, self.static = depth, pool is not None
        self.pool: Pool = {} if pool is None else pool
        self.buffers: list[torch.Tensor] = []
        self.start, self.k, self.batch = 0, -1, 0

    def enter(self, k: int, shape: tuple[int, int, int], like: torch.Tensor) -> None:
        """Make room for scale k: once per scale, before the first block. shape: images, heads,
        width of a head; like: a tensor of the keys' device and dtype. Raises ValueError when a
        scale is skipped, unless history is 0: where nothing is kept, any scale may be asked for
        alone."""
        if self.history != 0 and k not in (0, self.k, self.k + 1):
            raise ValueError(f"scale {k} asked for after scale {self.k}: scales follow one another")
        if k == 0:  # a new sample
            self.start, self.batch = 0, shape[0]
        if self.history != 0:
            if shape[0] != self.batch:
                raise ValueError(
                    f"scale {k} asked for {shape[0]} images, the scales before it for "
                    f"{self.batch}: one batch a cache"
                )
            self.buffers = self._buffers(shape, like)
        # only scales k - history ... k are seen from now on: slide the rest out
        start = self.schedule.key_slice(k, self.history).start
        if start > self.start:
            kept = self.schedule.slices[k].start - start
            for buffer in self.buffers:
                if kept:
                    old = start - self.start
                    # clone: source and target overlap
                    buffer[..., :kept, :] = buffer[..., old : old + kept, :].clone()
            self.start = start
        self.k = k

    def _buffers(self, shape: tuple[int, int, int], like: torch.Tensor) -> list[torch.Tensor]:
        B, H, dim = shape
        key = shape, like.dtype, like.device
        if key not in self.pool:
            self.pool[key] = [
                like.new_empty(2, B, H, self.capacity, dim) for _ in range(self.depth)
            ]
            for buffer in self.pool[key] if self.static else ():
                torch._dynamo.mark_static_address(buffer)
        return self.pool[key]

    def slots(self, block: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where keys and values of scale k go, (2, B, H, l, D/H), and all that it attends to once
        they lie there, both parts of one buffer; not for history 0, which keeps none."""
        buffer = self.buffers[block]
        begin = self.schedule.slices[self.k].start - self.start
        return buffer[..., begin : begin + length, :], buffer[..., : begin + length, :]

    def extend(
        self, block: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store scale k's own keys and values, (B, H, l, D/H), and return all that it attends
        to."""
        if self.history == 0:
            return key, value
        own, seen = self.slots(block, key.shape[2])
        own[0] = key
        own[1] = value
        return seen[0], seen[1]


class _Spans(torch.autograd.Function):
    """Overlapping stretches of a sequence. Autograd's own slicing pads every stretch's gradient
    with zeros to full length before it adds them; here each is added where it belongs."""

    @staticmethod
    def forward(
        ctx: Any, x_BLHd: torch.Tensor, spans: tuple[tuple[int, int], ...]
    ) -> tuple[torch.Tensor, ...]:
        """Stretches (B, l, H, d) of x_BLHd, views of it (scales that a scale attends to: VAR, arXiv
        2404.02905, figure 4). spans: first place and the one behind the last."""
        ctx.spans, ctx.length = spans, x_BLHd.shape[1]
        return tuple(x_BLHd[:, start:stop] for start, stop in spans)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient of x_BLHd: the sum of those of the stretches, each at its place (VAR, arXiv
        2404.02905, figure 4)."""
        shape = list(grads[0].shape)
        shape[1] = ctx.length
        # keys of a scale are read by several: gradients of overlapping stretches add up
        total = grads[0].new_zeros(shape)
        for (start, stop), grad in zip(ctx.spans, grads):
            total[:, start:stop] += grad
        return total, None


# Tokens of scales that are attended together under a mask, on a CPU; calls for a few tokens each
# cost more than the pairs that a mask hides.
TOGETHER = 64
# Pairs of tokens whose weights a CPU may hold: products and a softmax then take less time than the
# fused operation, whose way back computes the weights again.
HELD_PAIRS = 2**16


class _QueryBlock(NamedTuple):
    """One call of attention: a block of queries, the keys that it reads, and a mask, if any."""

    queries: slice
    keys: slice
    seen_lm: torch.Tensor | None


def _query_blocks(
    schedule: ScaleSchedule, history: int | None, together: int
) -> tuple[_QueryBlock, ...]:
    """The calls that attend all scales: those of a few tokens together, every other scale alone."""
    blocks: list[_QueryBlock] = []
    for k, scale in enumerate(schedule.slices):
        joined = bool(blocks) and scale.stop - blocks[-1].queries.start <= together
        if joined:
            queries, keys, _ = blocks.pop()
            queries, keys = slice(queries.start, scale.stop), slice(keys.start, scale.stop)
            seen_lm = scale_mask(schedule, history)[queries, keys]
            blocks.append(_QueryBlock(queries, keys, seen_lm))
        else:
            blocks.append(_QueryBlock(scale, schedule.key_slice(k, history), None))
    return tuple(blocks)


_kept_blocks = cache(_query_blocks)


def attend_block(
    q_BHld: torch.Tensor,
    k_BHmd: torch.Tensor,
    v_BHmd: torch.Tensor,
    scale: float,
    seen_lm: torch.Tensor | None = None,
    held_pairs: int = HELD_PAIRS,
) -> torch.Tensor:
    """softmax(q k^T scale) v under a mask, if any (VAR, arXiv 2404.02905, section 3.3), by what is
    fastest for this many pairs. seen_lm: bool, True may attend; held_pairs: the most whose weights
    a CPU holds, 0 for the fused operation. Shapes as of the queries."""
    pairs = q_BHld.shape[2] * k_BHmd.shape[2]
    if not _is_plain(q_BHld) or pairs > held_pairs:
        return F.scaled_dot_product_attention(q_BHld, k_BHmd, v_BHmd, seen_lm, scale=scale)
    logits_BHlm = (q_BHld if scale == 1.0 else q_BHld * scale) @ k_BHmd.mT
    if seen_lm is not None:
        logits_BHlm = logits_BHlm.masked_fill(~seen_lm, -torch.inf)
    return logits_BHlm.softmax(-1) @ v_BHmd


def _is_plain(x: torch.Tensor) -> bool:
    """Whether this is a CPU's float32, not compiled: what has been measured."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not is_compiling()


def attend_by_scale(
    q_BHLd: torch.Tensor,
    k_BHLd: torch.Tensor,
    v_BHLd: torch.Tensor,
    schedule: ScaleSchedule,
    history: int | None,
    scale: float,
    windows: Sequence[torch.Tensor | None] | None = None,
) -> torch.Tensor:
    """Attention of all scales under the mask `history`, one call a scale, or for a few scales of
    few tokens (VAR, arXiv 2404.02905, figure 4).

    Equal to attention with `scale_mask(schedule, history)`; computes only the pairs that the mask
    keeps, but for those of a few tokens. windows: of each scale which of its keys it sees, of
    `window_rows` (MVAR, arXiv 2505.12742); None: all. Shapes are kept.
    """
    # what is compiled goes scale by scale, and is traced once
    if is_compiling():
        blocks = _query_blocks(schedule, history, 0)
    else:
        together = TOGETHER if _is_plain(q_BHLd) and windows is None else 0
        blocks = _kept_blocks(schedule, history, together)
    if len(blocks) == 1 and windows is None:
        return attend_block(q_BHLd, k_BHLd, v_BHLd, scale, blocks[0].seen_lm)
    # under the mask of a window the fused operation is faster from 8 x 8 tokens on
    held_pairs = HELD_PAIRS if windows is None else 0
    masks = [block.seen_lm for block in blocks] if windows is None else windows
    lengths = [block.queries.stop - block.queries.start for block in blocks]
    # tokens before heads, as memory has it: cutting and joining along tokens then moves whole rows
    q_BLHd, k_BLHd, v_BLHd = (x.transpose(1, 2) for x in (q_BHLd, k_BHLd, v_BHLd))
    if history == 0:
        keys, values = k_BLHd.split(lengths, 1), v_BLHd.split(lengths, 1)
    else:
        spans = tuple((block.keys.start, block.keys.stop) for block in blocks)
        keys = _Spans.apply(k_BLHd, spans)  # type: ignore[no-untyped-call]
        values = _Spans.apply(v_BLHd, spans)  # type: ignore[no-untyped-call]
    # softmax(q k^T scale) v of each block over its own span of keys
    heads = []
    for seen_lm, *of_block in zip(masks, q_BLHd.split(lengths, 1), keys, values):
        q, key, value = (x.transpose(1, 2) for x in of_block)
        heads.append(attend_block(q, key, value, scale, seen_lm, held_pairs).transpose(1, 2))
    return torch.cat(heads, 1).transpose(1, 2)


class _Unit(torch.autograd.Function):
    """Vectors over their L2 norms, in float32 or finer, times a factor a head if given. Autograd's
    own quotient keeps and reads three tensors of this size; the result alone is enough for a first
    derivative."""

    @staticmethod
    def forward(ctx: Any, x_BHLd: torch.Tensor, factor_H11: torch.Tensor | None) -> torch.Tensor:
        """x_BHLd of length 1 over d, times factor_H11 (q/k norm of VAR, arXiv 2404.02905), in the
        dtype of x_BHLd."""
        sums = torch.float32 if x_BHLd.dtype in HALVES else None
        inverse_BHL1 = (
            torch.linalg.vector_norm(x_BHLd, dim=-1, keepdim=True, dtype=sums)
            .clamp_(min=1e-12)
            .reciprocal_()
        )
        if factor_H11 is not None:
            inverse_BHL1.mul_(factor_H11)
        scaled_BHLd: torch.Tensor = x_BHLd * inverse_BHL1
        ctx.save_for_backward(scaled_BHLd, inverse_BHL1, factor_H11)
        return scaled_BHLd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHLd: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The gradients of x_BHLd and of factor_H11 (q/k norm of VAR, arXiv 2404.02905); None where
        there is no factor."""
        scaled_BHLd, inverse_BHL1, factor_H11 = ctx.saved_tensors
        # y = s x/|x|: dx = (dy - y (y.dy) / s^2) s/|x|, ds = y.dy / s
        along_BHL1 = (grad_BHLd * scaled_BHLd).sum(-1, keepdim=True)
        factor_grad_H11 = None
        if factor_H11 is not None:
            factor_grad_H11 = along_BHL1.sum((0, 2))[..., None] / factor_H11
            along_BHL1 = along_BHL1 / factor_H11.square()
        grad_BHLd = torch.addcmul(grad_BHLd, scaled_BHLd, along_BHL1, value=-1).mul_(inverse_BHL1)
        return grad_BHLd, factor_grad_H11


class Attention(nn.Module):
    """Multi-head self-attention with L2-normalised queries and keys and a learned scale per head
    (VAR, appendix)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.qk_norm = config.heads, config.qk_norm
        self.head_dim = config.width // config.heads
        self.qkv = Linear(config.width, 3 * config.width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(config.width))
        self.v_bias = nn.Parameter(torch.zeros(config.width))
        if config.qk_norm:
            self.head_log_scale = nn.Parameter(torch.full((config.heads, 1, 1), math.log(4.0)))
        self.out = Linear(config.width, config.width)

    def project(self, x_BLD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, each (B, H, L, D/H) (VAR, arXiv 2404.02905, section 3.3)."""
        # keys have no bias: it would shift all logits of a query alike
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = linear(x_BLD, self.qkv.weight, bias).unflatten(-1, (3, self.heads, self.head_dim))
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))  # each (B, H, L, D/H)
        if self.qk_norm:
            factor = self.head_log_scale.clamp(max=math.log(100.0)).exp()
            q, k = _Unit.apply(q, factor), _Unit.apply(k, None)  # type: ignore[no-untyped-call]
        return q.to(v.dtype), k.to(v.dtype), v

    @property
    def logit_scale(self) -> float:
        """Factor on q.k: 1 where a learned scale is part of q, else (D/H)^-0.5."""
        return 1.0 if self.qk_norm else self.head_dim**-0.5

    def forward(self, x_BLD: torch.Tensor, attend: Attend) -> torch.Tensor:
        """`attend(q, k, v, scale)` decides who sees whom."""
        h_BHLd = attend(*self.project(x_BLD), self.logit_scale)
        out_BLD: torch.Tensor = self.out(h_BHLd.transpose(1, 2).flatten(2))
        return out_BLD
