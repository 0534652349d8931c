"""The history vector: what earlier scales read, pooled into one vector that a scale adds to its
tokens.

B batch, L tokens of all scales, l of one scale, n of those that are pooled, D width, H heads
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .config import ModelConfig


class HistoryVector(nn.Module):
    """Attention of one learned query to the embedded inputs of the last N scales, its own included
    and the first excluded, which reads none (Markov-VAR, arXiv 2511.23334).

    The vector is added to all tokens of a scale by a layer that starts at zero: a model with it
    begins as the same model without (ours; the public code joins both by a layer of its own). N = 1
    pools what the scale reads itself: more weights, no history.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.schedule, self.heads = config.schedule, config.heads
        self.scales = config.history_vector
        self.query = nn.Parameter(torch.empty(config.width))
        self.keys_values = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def init_weights(self, draw: Callable[[torch.Tensor], object]) -> None:
        """Draw the query and what gives keys and values; `out` is 0 (Markov-VAR, arXiv 2511.23334;
        the start is ours)."""
        draw(self.query)
        draw(self.keys_values.weight)
        nn.init.zeros_(self.out.weight)

    def reach(self, k: int) -> range:
        """Scales whose inputs scale k pools (Markov-VAR, arXiv 2511.23334): k - N + 1 ... k, from 1
        on."""
        return reach(self.scales, k)

    def project(self, embedded_BnD: torch.Tensor) -> torch.Tensor:
        """Keys and values of embedded inputs, (B, n, 2D) (Markov-VAR, arXiv 2511.23334)."""
        keys_values_BnE: torch.Tensor = self.keys_values(embedded_BnD)
        return keys_values_BnE

    def pool(self, keys_values_BnE: torch.Tensor) -> torch.Tensor:
        """What is added to every token, (B, D): attention of the query to so many keys (Markov-VAR,
        arXiv 2511.23334)."""
        key_BHnd, value_BHnd = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in keys_values_BnE.chunk(2, -1)
        )
        query_H1d = self.query.unflatten(0, (self.heads, 1, -1)).to(key_BHnd.dtype)
        query_BH1d = query_H1d.expand(len(key_BHnd), -1, -1, -1)
        pooled_BH1d = F.scaled_dot_product_attention(query_BH1d, key_BHnd, value_BHnd)
        pooled_BD: torch.Tensor = self.out(pooled_BH1d.flatten(1))
        return pooled_BD

    def forward(self, embedded_BLD: torch.Tensor) -> torch.Tensor:
        """What is added to the tokens of all scales at once, (B, L, D); 0 at the first scale."""
        keys_values_BLE, schedule = self.project(embedded_BLD), self.schedule
        pooled = [torch.zeros_like(embedded_BLD[:, : schedule.lengths[0]])]
        for k in range(1, schedule.num_scales):
            seen = slice(schedule.slices[self.reach(k)[0]].start, schedule.slices[k].stop)
            pooled_BD = self.pool(keys_values_BLE[:, seen])
            pooled.append(pooled_BD[:, None].expand(-1, schedule.lengths[k], -1))
        return torch.cat([part.to(embedded_BLD.dtype) for part in pooled], 1)


def reach(scales: int, k: int) -> range:
    """Scales whose inputs scale k pools where N are pooled (Markov-VAR, arXiv 2511.23334)."""
    return range(max(1, k - scales + 1), k + 1)


class Recall:
    """Keys and values of what the last scales of a batch read, as a sampler goes along (Markov-VAR,
    arXiv 2511.23334); calling a scale again replaces its entry."""

    def __init__(self, vector: HistoryVector) -> None:
        self.vector = vector
        self.kept: dict[int, torch.Tensor] = {}

    def pool(self, embedded_BlD: torch.Tensor, k: int) -> torch.Tensor:
        """What scale k adds to its tokens, (B, D) (Markov-VAR, arXiv 2511.23334). Raises ValueError
        where an earlier scale that it pools was not asked for."""
        seen = self.vector.reach(k)
        self.kept = {j: kept for j, kept in self.kept.items() if j in seen}
        self.kept[k] = self.vector.project(embedded_BlD)
        if missing := [j for j in seen if j not in self.kept]:
            raise ValueError(
                f"scale {k} asked for before scale {missing[0]}, which its history vector pools: "
                "scales follow one another"
            )
        return self.vector.pool(self._joined([self.kept[j] for j in seen], len(embedded_BlD)))

    @staticmethod
    def _joined(parts: Sequence[torch.Tensor], batch: int) -> torch.Tensor:
        """Parts of several scales, for as many images as are asked about. Guidance runs some scales
        with both of its halves, which read the same, and others with one."""
        rows = [part[:batch] if len(part) >= batch else _repeated(part, batch) for part in parts]
        return torch.cat(rows, 1)


def _repeated(part_BnE: torch.Tensor, batch: int) -> torch.Tensor:
    return part_BnE.repeat(batch // len(part_BnE), 1, 1)
