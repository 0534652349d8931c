"""Which codes a tokenizer uses at each scale while it trains, and the restart of the others."""

from __future__ import annotations

import torch

from srdd.quantizer import Quantizer
from srdd.schedule import ScaleSchedule

from ..runtime.ranks import Ranks


class CodeUse:
    """Running share of each code at each scale, and the restart of codes that none of them uses.

    share_KV: of the tokens seen, rows sum to 1. life_KV: the same with a mean share lent to every
    code, at the start and at its restart; that fades as the share does, and gives the code time to
    be used before it counts as dead. seen_K: how often each scale was counted. Scales are known by
    their index: sides may repeat. ranks: the processes that share each batch, None for one.
    """

    RATE = 0.05

    def __init__(
        self,
        schedule: ScaleSchedule,
        codebook_size: int,
        device: torch.device,
        ranks: Ranks | None = None,
    ) -> None:
        K, self.ranks = schedule.num_scales, ranks or Ranks()
        self.share_KV = torch.full((K, codebook_size), 1 / codebook_size, device=device)
        self.life_KV = self.share_KV.clone()
        self.seen_K = torch.zeros(K, dtype=torch.int64)

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint to resume from must hold."""
        return {"share_KV": self.share_KV, "life_KV": self.life_KV, "seen_K": self.seen_K}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, value in self.state().items():
            value.copy_(tensors[name])

    @torch.no_grad()
    def count(self, tokens: dict[int, torch.Tensor]) -> None:
        """Add the tokens of one step, a tensor for each scale that it used; with processes, each
        those of its images."""
        V, world = self.share_KV.shape[1], self.ranks.world
        counts = [torch.bincount(tokens_Bl.flatten(), minlength=V) for tokens_Bl in tokens.values()]
        counts_kV = self.ranks.total(torch.stack(counts))
        for (k, tokens_Bl), count_V in zip(tokens.items(), counts_kV):
            share_V = count_V / (tokens_Bl.numel() * world)
            self.life_KV[k].lerp_(share_V, self.RATE)
            self.seen_K[k] += 1
            # the plain mean at first, so that the shares before the first token leave no trace
            self.share_KV[k].lerp_(share_V, max(self.RATE, 1 / int(self.seen_K[k])))

    def perplexity(self) -> list[float]:
        """exp of the entropy of the codes in use, per scale: from 1 to the number of codes, which
        it is before the first token."""
        share_KV = self.share_KV.double()
        share_KV = share_KV / share_KV.sum(1, keepdim=True)
        perplexity_K = torch.special.entr(share_KV).sum(1).exp()
        return perplexity_K.clamp(
            1.0, share_KV.shape[1]
        ).tolist()  # rounding alone may pass the bounds

    @torch.no_grad()
    def restart(
        self,
        quantizer: Quantizer,
        residuals: dict[int, torch.Tensor],
        share: float,
        source: torch.Generator,
    ) -> torch.Tensor:
        """Put unused codes where latents are, first at the scales that use the fewest codes.

        residuals: of the scales that the step used, of the whole batch, so that processes draw the
        same.
        Returns their indices.
        """
        V = self.share_KV.shape[1]
        dead = (self.life_KV.mean(0) < share / V).nonzero().flatten()
        if not len(dead):
            return dead
        need = torch.tensor([V - perplexity for perplexity in self.perplexity()]).clamp(min=1e-3)
        present = torch.tensor([k in residuals for k in range(len(self.seen_K))])
        rows = torch.multinomial(
            need * present, len(dead), replacement=True, generator=source
        ).tolist()
        for code, row in zip(dead.tolist(), rows):
            pool_NC = residuals[row]
            pick = int(torch.randint(len(pool_NC), (), generator=source))
            quantizer.codebook_VC[code] = pool_NC[pick]
        # nobody has used it yet: what is reported stays as it is
        self.life_KV[:, dead] = 1 / V
        return dead
