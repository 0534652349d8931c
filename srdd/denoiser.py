"""What a sampler knows of the scale transformer: logits of one scale, asked for coarse to fine.

B batch, l tokens of one scale, V codebook, C latent channels, D width, H heads, h w latent grid
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from .attention import HALVES, ScaleCache
from .conditioning import conditioned
from .past import Recall
from .transformer import Modulation

if TYPE_CHECKING:
    from .model import ScaleTransformer


class Denoiser:
    """`denoise(inputs, k, labels, own=None) -> logits_BlV`: the only thing that a sampler knows of
    a model.

    It owns the cache and the modulations of one batch; calling the same k again replaces that
    scale's cache entry. own: the scale's revealed tokens, V where masked, for a model trained with
    masks; None: all masked. Guidance uses its two halves, `hidden` and `head`. A model with
    bfloat16 weights computes in bfloat16 and keeps its residual stream in float32.
    """

    def __init__(self, model: ScaleTransformer, degraded_BChw: torch.Tensor | None = None) -> None:
        self.model, weight = model, model.position
        # an explicit mask may look back at any scale
        history = None if model.mask_LL is not None else model.config.history
        self.history = history
        self.cache = ScaleCache(model.schedule, history, model.config.depth, model.cache_pool)
        self.place_LD = model.places()
        self.half = weight.dtype if weight.dtype in HALVES else None
        self.recall = None if model.past is None else Recall(model.past)
        self._bound: tuple[torch.Tensor, Modulation] | None = None
        with self._autocast(weight):
            self.condition = conditioned(model, degraded_BChw)

    def __call__(
        self,
        inputs_BlC: torch.Tensor,
        k: int,
        labels_B: torch.Tensor,
        own_Bl: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self.head(self.hidden(inputs_BlC, k, labels_B, own_Bl))

    def head(self, hidden_BlD: torch.Tensor) -> torch.Tensor:
        """Logits_BlV of what `hidden` returns."""
        with self._autocast(hidden_BlD):
            logits_BlV: torch.Tensor = self.model.head(hidden_BlD)
            return logits_BlV

    def hidden(
        self,
        inputs_BlC: torch.Tensor,
        k: int,
        labels_B: torch.Tensor,
        own_Bl: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the head reads of one scale, hidden_BlD. labels_B may go on beyond the inputs:
        guidance gives the labels of both its halves even where only the first is run, so that the
        modulations, a third of VAR's weights, are read once per image."""
        B, config = len(inputs_BlC), self.model.config
        with self._autocast(inputs_BlC):
            modulation = _first(self._modulation(labels_B), B)
            shape = B, config.heads, config.width // config.heads
            self.cache.enter(k, shape, self.model.position)
            given = inputs_BlC, k, modulation, self.place_LD, self.cache, own_Bl
            pooled_BD = None
            if self.recall is not None and k > 0:
                pooled_BD = self.recall.pool(self.model.embedded_inputs(inputs_BlC), k)
            # a model with neither is asked as ever: its step may be compiled or fused
            plain = pooled_BD is None and self.condition is None
            return self.model.step(*given, *(() if plain else (pooled_BD, self.condition)))

    def _modulation(self, labels_B: torch.Tensor) -> Modulation:
        """What follows from the class alone, computed once a batch."""
        # identity: comparing values would make a GPU wait
        if self._bound is None or self._bound[0] is not labels_B:
            self._bound = labels_B, self.model.modulate(labels_B)
        return self._bound[1]

    def _autocast(self, tensor: torch.Tensor) -> AbstractContextManager[Any]:
        """Products in the precision of half weights, sums and norms in float32."""
        return nullcontext() if self.half is None else torch.autocast(tensor.device.type, self.half)


def _first(modulation: Modulation, count: int) -> Modulation:
    """Modulations of the first images of a batch."""
    blocks, head, condition_BD = modulation
    if len(condition_BD) == count:
        return modulation
    gain, shift = head
    first = [_cut(block, count) for block in blocks]
    return first, (gain[:count], shift[:count]), condition_BD[:count]


def _cut(parts: tuple[torch.Tensor, ...], count: int) -> tuple[torch.Tensor, ...]:
    return tuple(part[:count] for part in parts)
