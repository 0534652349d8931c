"""The scale transformer: class and coarser scales in, logits of each scale's tokens out.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
E blocks
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .attention import (
    HALVES,
    Pool,
    ScaleCache,
    attend_block,
    attend_by_scale,
)
from .compiling import check_compiler, kernels_know
from .conditioning import Condition, condition_module, conditioned
from .config import ModelConfig
from .contracts import check_mask
from .denoiser import Denoiser
from .fused import FusedStep
from .heads import named_head
from .linear import Linear
from .masks import named_mask, scale_of_token, window_rows
from .noise import truncated_normal_
from .past import HistoryVector
from .replay import Asked, Replay
from .schedule import ScaleSchedule
from .transformer import Block, Modulation, draw_paths, norm


class ScaleTransformer(nn.Module):
    """Next-scale prediction (VAR, arXiv 2404.02905, equation 5); with history 0 it is SDD (arXiv
    2509.22636).

    mask_LL: an explicit boolean mask; it takes the dense path, and such a model is not saved.
    Without one, attention goes scale by scale. Raises ValueError for a mask, explicit or named,
    that leaks or lets a token see nothing.
    """

    mask_LL: torch.Tensor | None
    scale_L: torch.Tensor
    blocks: Sequence[Block]

    def __init__(self, config: ModelConfig, mask_LL: torch.Tensor | None = None) -> None:
        super().__init__()
        self.config, self.schedule = config, config.schedule
        # of `compile_step`: caches that outlive a batch, or samples recorded on a GPU
        self.cache_pool: Pool | None = None
        self.replays: dict[Any, Replay[Any] | Asked] | None = None
        D, L = config.width, self.schedule.seq_len
        self.class_embedding = nn.Embedding(config.num_classes + 1, D)
        self.start_position = nn.Parameter(torch.empty(self.schedule.lengths[0], D))
        self.position = nn.Parameter(torch.empty(L, D))
        self.level_embedding = nn.Embedding(self.schedule.num_scales, D)
        self.input = Linear(config.codebook_dim, D)
        if config.shared_adaln:
            self.shared_modulation = Linear(D, 6 * D)
        blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.blocks = blocks  # type: ignore[assignment]
        self.head_modulation = Linear(D, 2 * D)
        self.head = named_head(config)
        # the scale's own tokens, for intra-scale masks; the last row is [MASK]
        self.own_embedding = (
            nn.Embedding(config.codebook_size + 1, D) if config.mask_prob > 0 else None
        )
        self.past = HistoryVector(config) if config.history_vector else None
        self.condition = condition_module(config)
        if config.mask is not None:
            if mask_LL is not None:
                raise ValueError(f"mask_LL beside mask {config.mask!r}: leave one of them out")
            mask_LL = named_mask(config.mask, self.schedule).to(self.position.device)
        elif mask_LL is not None:
            mask_LL = check_mask(mask_LL, self.schedule, "mask_LL")
        if mask_LL is not None and config.window is not None:
            raise ValueError(f"mask_LL beside window {config.window}: leave one of them out")
        # not persistent: a mask is a setting, never a weight
        self.register_buffer("mask_LL", mask_LL, persistent=False)
        sight = config.window, config.window_from
        for k in range(self.schedule.num_scales):
            rows_lL = window_rows(self.schedule, config.history, k, *sight)
            self.register_buffer(f"window_{k}", rows_lL, persistent=False)
        self.register_buffer("scale_L", scale_of_token(self.schedule), persistent=False)

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw every weight from one generator, as VAR does: std (1/(3D))^0.5, residual outputs and
        gates damped, head x 0.02."""
        config, std = self.config, math.sqrt(1 / self.config.width / 3)

        def draw(weight: torch.Tensor, factor: float = 1.0) -> None:
            """Draw one weight in place: a normal cut at -2 and 2, times a factor."""
            truncated_normal_(weight, std, generator)
            with torch.no_grad():
                weight.mul_(factor)

        later = [part.modules() for part in (self.past, self.condition) if part is not None]
        late = {self.own_embedding, *chain(*later)}
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)) and module not in late:
                draw(module.weight)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
        draw(self.start_position)
        draw(self.position)
        residual = 1 / math.sqrt(2 * config.depth)
        D = config.width
        with torch.no_grad():
            for layer in self.head.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(0.02)
            self.head_modulation.weight.mul_(0.5)
            for block in self.blocks:
                block.attention.out.weight.mul_(residual)
                block.mlp_out.weight.mul_(residual)
                if config.shared_adaln:
                    nn.init.normal_(block.modulation_table, std=D**-0.5, generator=generator)
                    block.modulation_table[:2].mul_(config.init_gamma)
                    block.modulation_table[2:].mul_(0.5)
                else:
                    block.modulation.weight[: 2 * D].mul_(config.init_gamma)
                    block.modulation.weight[2 * D :].mul_(0.5)
        # last, and [MASK] at 0: the other weights, and all masked, are as without it
        if self.own_embedding is not None:
            draw(self.own_embedding.weight)
            nn.init.zeros_(self.own_embedding.weight[-1])
        if self.past is not None:
            self.past.init_weights(draw)
        if self.condition is not None:
            self.condition.init_weights(generator)

    def modulate(
        self, labels_B: torch.Tensor | None, condition_BD: torch.Tensor | None = None
    ) -> Modulation:
        """All that depends on the class alone: modulations of blocks and head, and the start
        embedding (B, D).

        labels_B: int64 in 0 ... num_classes, the last meaning no class; condition_BD: what stands
        in place of their embeddings, None for these.
        """
        if condition_BD is None:
            condition_BD = self.class_embedding(labels_B)
        shared = None
        if self.config.shared_adaln:
            shared = self.shared_modulation(F.silu(condition_BD)).unflatten(-1, (6, -1))
        head = (
            self.head_modulation(F.silu(condition_BD)).unflatten(-1, (2, -1)).unsqueeze(2).unbind(1)
        )
        return [block.modulate(condition_BD, shared) for block in self.blocks], head, condition_BD

    def places(self) -> torch.Tensor:
        """Position plus level of every token (VAR, section 3.3), place_LD: the same for all images,
        so a sampler asks once."""
        level_LD: torch.Tensor = self.level_embedding(self.scale_L)
        return self.position + level_LD

    def _embed(
        self,
        inputs_BlC: torch.Tensor,
        condition_BD: torch.Tensor,
        where: slice,
        place_LD: torch.Tensor,
        own_Bl: torch.Tensor | None,
    ) -> torch.Tensor:
        """Inputs of the tokens at `where` plus position and level, and plus the scale's own tokens
        as far as they are revealed; the first scale holds the start embedding instead of an
        input."""
        first, place_lD = self.schedule.lengths[0], place_LD[where]
        inputs_BlC = inputs_BlC.to(self.input.weight.dtype)
        if self.own_embedding is not None:
            own = self.own_embedding.weight[-1] if own_Bl is None else self.own_embedding(own_Bl)
            place_lD = place_lD + own
        elif own_Bl is not None:
            raise ValueError(
                "own tokens given to a model trained without masks; train it with mask_prob > 0"
            )
        start_BlD = condition_BD[:, None] + self.start_position
        if where.stop <= first:
            return start_BlD + place_lD
        if where.start >= first:
            input_BlD: torch.Tensor = self.input(inputs_BlC)
            return input_BlD + place_lD
        return torch.cat((start_BlD, self.input(inputs_BlC[:, first:])), 1) + place_lD

    def rows(self, k: int) -> torch.Tensor | None:
        """Which of the keys that a cache holds the tokens of scale k see (MVAR, arXiv 2505.12742;
        an explicit mask), bool (l, keys); None: all."""
        if self.mask_LL is not None:
            where = self.schedule.slices[k]
            return self.mask_LL[where, : where.stop]
        if self.config.window is None:
            return None
        rows_lL: torch.Tensor | None = getattr(self, f"window_{k}")
        return rows_lL

    def windows(self, scales: range | None = None) -> list[torch.Tensor | None] | None:
        """`rows` of some scales, or of every one (MVAR, arXiv 2505.12742); None where all see
        all."""
        if self.mask_LL is not None or self.config.window is None:
            return None
        rows = [self.rows(k) for k in scales or range(self.schedule.num_scales)]
        return None if all(rows_lL is None for rows_lL in rows) else rows

    def embedded_inputs(self, inputs_BlC: torch.Tensor) -> torch.Tensor:
        """Inputs as the history vector pools them (Markov-VAR, arXiv 2511.23334), (B, l, D)."""
        return norm(self.input(inputs_BlC.to(self.input.weight.dtype)))

    def draw_paths(self, batch: int, generator: torch.Generator) -> torch.Tensor | None:
        """Stochastic depth of one training step, paths_E2B for `hidden` (arXiv 1603.09382, section
        3: rates grow linearly with depth); None where nothing is ever dropped."""
        config = self.config
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        return draw_paths(rates, batch, generator) if any(rates) else None

    def forward(
        self,
        inputs_BLC: torch.Tensor,
        labels_B: torch.Tensor,
        paths_E2B: torch.Tensor | None = None,
        own_BL: torch.Tensor | None = None,
        degraded_BChw: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Teacher-forced logits_BLV of all scales at once (VAR, equation 5), or what another head
        gives.

        inputs_BLC: `Ladder.teacher_forced_inputs`; paths_E2B: stochastic depth, only in training;
        own_BL: revealed tokens, V where masked (SRDD, arXiv 2509.22636), None for all masked;
        degraded_BChw: `condition_latent`, of a model that restores. Raises ValueError for own_BL
        where mask_prob is 0, and for degraded images where `model.condition` asks for none.
        """
        hidden_BLD = self.hidden(
            inputs_BLC, labels_B, paths_E2B, own_BL, degraded_BChw=degraded_BChw
        )
        logits_BLV: torch.Tensor = self.head(hidden_BLD)
        return logits_BLV

    def hidden(
        self,
        inputs_BLC: torch.Tensor,
        labels_B: torch.Tensor | None,
        paths_E2B: torch.Tensor | None = None,
        own_BL: torch.Tensor | None = None,
        checkpointing: bool = False,
        degraded_BChw: torch.Tensor | None = None,
        condition_BD: torch.Tensor | None = None,
        scales: range | None = None,
    ) -> torch.Tensor:
        """What the head reads, hidden_BLD, of all scales at once (VAR, section 3.3); arguments as
        of `forward`.

        checkpointing: keep only what enters a block and compute the block again on the way back
        (arXiv 1604.06174). condition_BD: as of `modulate`. scales: those that are run, one after
        the other, inputs and result being of their tokens alone; None: all.
        """
        schedule, where = self.schedule, slice(0, self.schedule.seq_len)
        if scales is not None:
            if self.past is not None:
                raise ValueError("scales: a history vector pools all before them; leave scales out")
            where = slice(schedule.slices[scales[0]].start, schedule.slices[scales[-1]].stop)
            schedule = ScaleSchedule(schedule.patch_nums[scales[0] : scales[-1] + 1])

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
            """Attention of all scales at once under the mask of the history (VAR, arXiv
            2404.02905); queries, keys and values as `attend_by_scale` takes them."""
            if self.mask_LL is not None:
                mask = self.mask_LL[where, where]
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
            return attend_by_scale(q, k, v, schedule, self.config.history, scale, windows)

        # None where no scale is larger than its window: the same path as without
        windows = self.windows(scales)

        modulations, (gain, shift), condition_BD = self.modulate(labels_B, condition_BD)
        x_BLD = self._embed(inputs_BLC, condition_BD, where, self.places(), own_BL)
        condition = conditioned(self, degraded_BChw)
        if condition is not None:
            x_BLD = condition.enter(x_BLD, where)
        if self.past is not None:
            x_BLD = x_BLD + self.past(self.embedded_inputs(inputs_BLC))
        for i, (block, modulation) in enumerate(zip(self.blocks, modulations)):
            given = x_BLD, modulation, attend, None if paths_E2B is None else paths_E2B[i]
            # a block draws nothing, so that no random state has to be kept
            if checkpointing:
                x_BLD = checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)
            else:
                x_BLD = block(*given)
            if condition is not None:
                x_BLD = condition.behind(i, x_BLD)
        return norm(x_BLD) * (gain + 1) + shift

    def step(
        self,
        inputs_BlC: torch.Tensor,
        k: int,
        modulation: Modulation,
        place_LD: torch.Tensor,
        cache: ScaleCache,
        own_Bl: torch.Tensor | None = None,
        pooled_BD: torch.Tensor | None = None,
        condition: Condition | None = None,
    ) -> torch.Tensor:
        """What the head reads, hidden_BlD, of one scale, given the cache of the scales before it,
        entered at k (VAR, section 3.3), the scale's own revealed tokens, its history vector
        (Markov-VAR, arXiv 2511.23334), and what is known of degraded images. place_LD:
        `places()`."""
        modulations, (gain, shift), condition_BD = modulation
        where = self.schedule.slices[k]
        x_BlD = self._embed(inputs_BlC, condition_BD, where, place_LD, own_Bl)
        if condition is not None:
            x_BlD = condition.enter(x_BlD, where)
        if x_BlD.dtype in HALVES:
            x_BlD = x_BlD.float()  # residuals are summed in float32
        if pooled_BD is not None:
            x_BlD = x_BlD + pooled_BD[:, None]
        rows = self.rows(k)
        for i, block in enumerate(self.blocks):

            def attend(
                q: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, i: int = i
            ) -> torch.Tensor:
                """Attention of one scale to itself and to what block i keeps of earlier ones."""
                key, value = cache.extend(i, key, value)
                return attend_block(q, key, value, scale, rows)

            x_BlD = block(x_BlD, modulations[i], attend)
            if condition is not None:
                x_BlD = condition.behind(i, x_BlD)
        return norm(x_BlD) * (gain + 1) + shift

    def compile_blocks(self) -> None:
        """Compile every block by torch.compile, for training (VAR, section 3.3): blocks are alike,
        so that one graph serves all. Same numbers up to rounding. Raises ValueError where the
        compiler cannot work."""
        check_compiler(self.position.device)
        for block in self.blocks:
            block.compile()

    def compile_step(self, **options: Any) -> None:
        """Make `step` fast for many images (VAR, section 3.3), with the same numbers up to
        rounding: on a GPU by the kernels of `FusedStep`, and `generate` records a whole sample as
        one CUDA graph; elsewhere, or where options are given, by torch.compile, one graph without a
        break for each scale and batch size. options: of torch.compile. One batch is drawn at a time
        from then on."""
        if not options and self.position.is_cuda:
            self.step = FusedStep(self)  # type: ignore[method-assign]
            self.replays = {} if kernels_know(self.config) else None
            return
        if "backend" not in options:
            check_compiler(self.position.device)
        step = torch.compile(ScaleTransformer.step, dynamic=False, fullgraph=True, **options)
        itself = weakref.ref(self)  # holds `compiled`: held in turn, neither would be let go

        def compiled(*arguments: Any) -> torch.Tensor:
            """`step`, compiled; arguments and result as of `step`."""
            model = itself()
            assert model is not None  # which calls its step
            # a graph for each scale and batch is what is wanted here, and more than Dynamo thinks
            # reasonable
            with torch._dynamo.config.patch(
                recompile_limit=10_000, accumulated_recompile_limit=10_000
            ):
                torch.compiler.cudagraph_mark_step_begin()
                return step(model, *arguments)

        self.step = compiled  # type: ignore[method-assign, assignment]
        self.cache_pool = {}

    def free_compiled(self, again: bool = True) -> bool:
        """Give back what a compiled step keeps between batches (VAR, section 3.3): caches of every
        batch size, and on a GPU the recorded samples. again: whether these may be recorded again.
        Returns whether there were such samples."""
        replays = self.replays or {}
        held = any(isinstance(replay, Replay) for replay in replays.values())
        if self.replays is not None:
            # nothing known of the numbers that a sample takes: it is never recorded
            self.replays = {} if again else dict.fromkeys(replays, [])
        if self.cache_pool is not None:
            self.cache_pool.clear()
            if self.position.is_cuda:
                torch._inductor.cudagraph_trees.reset_cudagraph_trees()
        return held

    def denoiser(self, degraded_BChw: torch.Tensor | None = None) -> Denoiser:
        """A fresh `denoise` for one batch of images, or of degraded ones that are restored."""
        return Denoiser(self, degraded_BChw)
