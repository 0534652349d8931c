"""Multi-scale residual vector quantisation: one recursion, `read_scale` and `add_scale`, for all
that is done with scales.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from .linear import in_full
from .schedule import ScaleSchedule


class Quantizer(nn.Module):
    """Codebook and the shared phi convolutions (VAR, arXiv 2404.02905, algorithms 1 and 2).

    phi(x) = (1 - phi_ratio) x + phi_ratio conv3x3(x) repairs what up-sampling a coarse grid blurs.
    """

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        num_phi: int = 4,
        phi_ratio: float = 0.5,
        combine: str = "sum",
    ) -> None:
        """combine: sum, scales add up to a latent; replace, each stands for all of it alone (after
        FlexVAR, arXiv 2502.20313)."""
        super().__init__()
        self.phi_ratio, self.combine = phi_ratio, combine
        self.codebook_VC = nn.Parameter(torch.empty(codebook_size, codebook_dim))
        self.phi: Sequence[nn.Conv2d] = nn.ModuleList(  # type: ignore[assignment]
            nn.Conv2d(codebook_dim, codebook_dim, 3, padding=1) for _ in range(num_phi)
        )

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the codes from a normal distribution of std 0.5; the trainer replaces those that no
        latent comes near."""
        nn.init.normal_(self.codebook_VC, std=0.5, generator=generator)

    def phi_of(self, k: int, num_scales: int) -> int:
        """Which phi scale k of K uses: the one whose tick is nearest to k/(K-1) among n from 1/(3n)
        to 1 - 1/(3n) (VAR, arXiv 2404.02905).

        At ten scales two of them lie exactly between two ticks, and rounding decides: the sums
        below round as the official weights were trained with.
        """
        n = len(self.phi)
        at = k / (num_scales - 1) if num_scales > 1 else 1.0
        # np.linspace(1/3/n, 1 - 1/3/n, n) of the public code, which has 1/2/n for other n than 4
        edge = 1 / 3 / n if n == 4 else 1 / 2 / n
        step = (1 - edge - edge) / max(1, n - 1)
        ticks = [edge + i * step for i in range(n - 1)] + [1 - edge]
        return min(range(n), key=lambda i: abs(ticks[i] - at))

    def apply_phi(self, x_BChw: torch.Tensor, k: int, num_scales: int) -> torch.Tensor:
        """phi of scale k of K (VAR, arXiv 2404.02905, algorithm 2). Shape is kept."""
        convolved_BChw: torch.Tensor = self.phi[self.phi_of(k, num_scales)](x_BChw)
        # phi(x) = (1 - r) x + r conv(x)
        return (1 - self.phi_ratio) * x_BChw + self.phi_ratio * convolved_BChw

    def nearest_code(self, x_BlC: torch.Tensor) -> torch.Tensor:
        """Index of the nearest code by L2 (VQ-VAE, arXiv 1711.00937, equation 1). Returns int64 of
        shape (B, l)."""
        x_NC = x_BlC.detach().reshape(-1, x_BlC.shape[-1])
        codes_VC = self.codebook_VC.detach()
        # argmin |x - e|^2 = |x|^2 + |e|^2 - 2 x.e, in one product
        squared = x_NC.square().sum(1, keepdim=True) + codes_VC.square().sum(1)
        with in_full(x_NC):  # in bfloat16 many codes are equally near
            nearest_N = torch.addmm(squared, x_NC, codes_VC.T, alpha=-2).argmin(1)
        return nearest_N.view(x_BlC.shape[:-1])

    def embed(self, tokens_Bl: torch.Tensor) -> torch.Tensor:
        """Codes of tokens (VQ-VAE, arXiv 1711.00937). Returns codes_BlC."""
        return F.embedding(tokens_Bl, self.codebook_VC)

    def embed_present(self, tokens_Bl: torch.Tensor) -> torch.Tensor:
        """Codes of tokens, zeros for an absent one, which is V (absorbing state of D3PM, arXiv
        2107.03006). Returns codes_BlC."""
        V = len(self.codebook_VC)
        return self.embed(tokens_Bl.clamp(max=V - 1)) * (tokens_Bl < V).unsqueeze(-1)

    def at(self, schedule: ScaleSchedule) -> Ladder:
        """This codebook used with one schedule; a quantizer serves every schedule that ends at its
        latent size."""
        return Ladder(self, schedule)


@torch.no_grad()
def tree_order(codebook_VC: torch.Tensor) -> torch.Tensor:
    """The codes as the leaves of a balanced tree, so that near indices, and bits of an index, mean
    near codes: the median along the first principal axis splits them, and each half again.

    Returns the indices of the codes in that order, int64 of shape (V,).
    """

    def leaves(members_n: torch.Tensor) -> list[torch.Tensor]:
        """Codes below one node of the tree in order, as lists of one index each."""
        if len(members_n) < 2:
            return [members_n]
        codes_nC = codebook_VC[members_n].double()
        centred_nC = codes_nC - codes_nC.mean(0)
        axis_C = torch.linalg.svd(centred_nC, full_matrices=False).Vh[0]
        # an axis has no sign of its own: its largest entry is made positive
        axis_C = axis_C * axis_C[axis_C.abs().argmax()].sign()
        sorted_n = members_n[(centred_nC @ axis_C).argsort(stable=True)]
        half = (len(members_n) + 1) // 2
        return [*leaves(sorted_n[:half]), *leaves(sorted_n[half:])]

    return torch.cat(leaves(torch.arange(len(codebook_VC), device=codebook_VC.device)))


@cache
def _bicubic(side: int, size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What every cell of a grid of a side becomes when it is up-sampled: (side^2, size^2)."""
    cells = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    up = F.interpolate(cells, size=(size, size), mode="bicubic")
    return up.flatten(1).to(device, dtype)


@dataclass(frozen=True)
class Ladder:
    """A quantizer bound to a schedule: f_hat_0 = 0, f_hat_{k+1} = add_scale(f_hat_k, codes of scale
    k).

    Encoding, teacher forcing, sampling and reconstruction are loops over `read_scale` and
    `add_scale`. state: what a model reads of the scales before: sum, f_hat; last, what the last of
    them added alone. Of a quantizer that replaces, f_hat is that already.
    """

    quantizer: Quantizer
    schedule: ScaleSchedule
    state: str = "sum"

    def read_as(self, state: str) -> Ladder:
        """The ladder as a model of `ModelConfig.state` reads it (VAR, arXiv 2404.02905; last and
        replace: ours, after arXiv 2502.20313)."""
        state = "last" if state == "last" else "sum"
        return self if state == self.state else replace(self, state=state)

    def read_scale(self, f_BChw: torch.Tensor, k: int) -> torch.Tensor:
        """A latent state as scale k sees it: area-resized to its grid (VAR, algorithm 1, line 5).
        Returns (B, l, C)."""
        side = self.schedule.patch_nums[k]
        # area at the last scale would be the identity, at some cost
        if side != f_BChw.shape[-1]:
            f_BChw = F.interpolate(f_BChw, size=(side, side), mode="area")
        return f_BChw.flatten(2).transpose(1, 2)

    def rest(self, latent_BChw: torch.Tensor, f_hat_BChw: torch.Tensor, k: int) -> torch.Tensor:
        """What scale k is to say of a latent beside a state: the rest, as it sees it (VAR,
        algorithm 1, lines 4 and 5); all of the latent where scales replace (FlexVAR, arXiv
        2502.20313). Returns (B, l, C)."""
        if self.quantizer.combine == "replace":
            return self.read_scale(latent_BChw, k)
        return self.read_scale(latent_BChw - f_hat_BChw, k)

    def add_scale(self, f_hat_BChw: torch.Tensor, codes_BlC: torch.Tensor, k: int) -> torch.Tensor:
        """The state after scale k: codes up-sampled bicubically, passed through phi, added (VAR,
        algorithm 2), or put in its place where scales replace. Shape is kept."""
        # all later scales read this state, in training as in sampling
        with in_full(codes_BlC):
            up_BChw = self._up(codes_BlC.transpose(1, 2), k)
            added_BChw = self.quantizer.apply_phi(up_BChw, k, self.schedule.num_scales)
        if self.quantizer.combine == "replace":
            return added_BChw
        # f_hat_{k+1} = f_hat_k + phi_k(up(codes))
        return f_hat_BChw + added_BChw

    def _up(self, codes_BCl: torch.Tensor, k: int) -> torch.Tensor:
        """Codes of scale k, up-sampled to the size of the state."""
        side, size = self.schedule.patch_nums[k], self.schedule.latent_size
        if side == size:
            same_BChw: torch.Tensor = codes_BCl.unflatten(2, (size, size))
            return same_BChw
        if not codes_BCl.is_cuda:
            codes_BCss = codes_BCl.unflatten(2, (side, side))
            return F.interpolate(codes_BCss, size=(size, size), mode="bicubic")
        # linear in the codes: as a product it takes a tenth of the time of torch's operation, whose
        # gradient would also depend on the order of sums
        table_lN = _bicubic(side, size, codes_BCl.dtype, codes_BCl.device)
        up_BChw: torch.Tensor = (codes_BCl @ table_lN).unflatten(2, (size, size))
        return up_BChw

    def after(
        self, f_hat_BChw: torch.Tensor, codes_BlC: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The state after scale k (VAR, algorithm 2), and what of it the next scale reads: the same
        tensor, or where the state is `last` what scale k added alone."""
        if self.state == "last" and self.quantizer.combine == "sum":
            last_BChw = self.add_scale(torch.zeros_like(f_hat_BChw), codes_BlC, k)
            return f_hat_BChw + last_BChw, last_BChw
        f_hat_BChw = self.add_scale(f_hat_BChw, codes_BlC, k)
        return f_hat_BChw, f_hat_BChw

    def empty_state(self, batch: int, like: torch.Tensor | None = None) -> torch.Tensor:
        """f_hat before the first scale: zeros of shape (B, C, h, w)."""
        like = self.quantizer.codebook_VC if like is None else like
        size = self.schedule.latent_size
        return like.new_zeros(batch, self.quantizer.codebook_VC.shape[1], size, size)

    def quantize(
        self, latent_BChw: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Residual quantisation, coarse to fine (VAR, algorithm 1): yields what scale k reads of
        the rest (B, l, C), the tokens_Bl nearest to it, and the state f_hat_BChw after it. No
        gradient flows into the latent."""
        latent_BChw = latent_BChw.detach()
        f_hat_BChw = torch.zeros_like(latent_BChw)
        for k in range(self.schedule.num_scales):
            # what the scales so far left over; the codes get their gradient through f_hat alone
            residual_BlC = self.rest(latent_BChw, f_hat_BChw.detach(), k)
            tokens_Bl = self.quantizer.nearest_code(residual_BlC)
            f_hat_BChw = self.add_scale(f_hat_BChw, self.quantizer.embed(tokens_Bl), k)
            yield residual_BlC, tokens_Bl, f_hat_BChw

    def residuals(self, latent_BChw: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The same ladder with nothing quantised, a Laplacian pyramid where phi is the identity
        (arXiv 2510.02826): yields what scale k reads of the rest (B, l, C), and the state
        f_hat_BChw after adding just that."""
        f_hat_BChw = torch.zeros_like(latent_BChw)
        for k in range(self.schedule.num_scales):
            residual_BlC = self.rest(latent_BChw, f_hat_BChw, k)
            f_hat_BChw = self.add_scale(f_hat_BChw, residual_BlC, k)
            yield residual_BlC, f_hat_BChw

    def encode(self, latent_BChw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and last state of a latent (VAR, algorithm 1). Returns tokens_BL and
        f_hat_BChw."""
        _, tokens, states = zip(*self.quantize(latent_BChw))
        return torch.cat(tokens, 1), states[-1]

    def states(self, tokens_BL: torch.Tensor) -> Iterator[torch.Tensor]:
        """The states f_hat_BChw after scale 0, 1, ... K-1 of given tokens (VAR, algorithm 2); token
        V is an absent one."""
        for f_hat_BChw, _ in self._walk(tokens_BL):
            yield f_hat_BChw

    def read_states(self, tokens_BL: torch.Tensor) -> Iterator[torch.Tensor]:
        """What a model reads after scale 0, 1, ... K-1 of given tokens (VAR, algorithm 2): the
        states, or where the state is `last` what each scale added."""
        for _, seen_BChw in self._walk(tokens_BL):
            yield seen_BChw

    def _walk(self, tokens_BL: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """`after` along given tokens; token V is an absent one."""
        f_hat_BChw = self.empty_state(len(tokens_BL))
        for k, piece in enumerate(self.schedule.slices):
            codes_BlC = self.quantizer.embed_present(tokens_BL[:, piece])
            f_hat_BChw, seen_BChw = self.after(f_hat_BChw, codes_BlC, k)
            yield f_hat_BChw, seen_BChw

    def decode(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """The last state f_hat_BChw of given tokens (VAR, algorithm 2)."""
        *_, f_hat_BChw = self.states(tokens_BL)
        return f_hat_BChw

    def teacher_forced_inputs(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """What every scale reads in training: read_scale of the state before it (VAR, section 3.2).
        Returns (B, L, C).

        Scale 0 reads the empty state, zeros; the model puts its start embedding there.
        """
        return self._inputs(len(tokens_BL), self.read_states(tokens_BL))

    def _inputs(self, batch: int, states: Iterable[torch.Tensor]) -> torch.Tensor:
        """What every scale reads of the states after each."""
        inputs = [self.read_scale(self.empty_state(batch), 0)]
        last = self.schedule.num_scales - 1
        for k, f_hat_BChw in enumerate(states):
            if k < last:  # nothing reads the state after the last scale
                inputs.append(self.read_scale(f_hat_BChw, k + 1))
        return torch.cat(inputs, 1)

    def regression_pairs(self, latent_BChw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a regression (arXiv 2510.02826) reads and what it is to predict: inputs_BLC of the
        states of `residuals`, and these residual_BLC."""
        residuals, states = zip(*self.residuals(latent_BChw))
        return self._inputs(len(latent_BChw), states), torch.cat(residuals, 1)
