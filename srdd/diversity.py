"""Reshaped spectra: singular values of what early scales read or give are reweighted at sampling
time, after DiverseVAR (arXiv 2511.17074), whose equations were not seen by us.

B batch, l tokens of one scale, C latent channels, D width, V codebook
"""

from __future__ import annotations

import torch

from .config import SamplerConfig
from .contracts import Halves
from .schedule import ScaleSchedule


def reweight(x_BlC: torch.Tensor, beta: float, energy: bool) -> torch.Tensor:
    """U diag(t) V^T of each x = U diag(s) V^T, with t_i = exp(-beta s_i / s_1) s_i (soft
    suppression of arXiv 2511.17074, with our division by s_1); beta < 0 amplifies.

    energy: scale the result to the norm of x, so that only the shape of the spectrum changes.
    Computed in float64, returned in the dtype of x; not centred. Zeros stay zeros.
    """
    exact_BlC = x_BlC.double()
    wide = exact_BlC.shape[1] <= exact_BlC.shape[2]
    across_BlC = exact_BlC if wide else exact_BlC.mT
    # f(s) = exp(-beta s / s_1) acts on the side with fewer numbers: U f(s) U^T x, or x V f(s) V^T.
    # The eigenvectors of x x^T are U and its eigenvalues s^2; f is smooth in s, so that what is
    # lost of the smallest values by squaring them is lost of nothing
    squares_Bn, vectors_Bnn = torch.linalg.eigh(across_BlC @ across_BlC.mT)
    values_Bn = squares_Bn.clamp(min=0.0).sqrt()
    largest_B1 = values_Bn[:, -1:]  # ascending
    shares_Bn = values_Bn / torch.where(largest_B1 > 0, largest_B1, 1.0)
    factors_Bn = torch.exp(-beta * shares_Bn)
    turned_BlC = (vectors_Bnn * factors_Bn[:, None]) @ (vectors_Bnn.mT @ across_BlC)
    reshaped_BlC = turned_BlC if wide else turned_BlC.mT
    if energy:
        before_B11, after_B11 = _norm(exact_BlC), _norm(reshaped_BlC)
        reshaped_BlC = reshaped_BlC * torch.where(
            after_B11 > 0, before_B11 / torch.where(after_B11 > 0, after_B11, 1.0), 1.0
        )
    result_BlC: torch.Tensor = reshaped_BlC.to(x_BlC.dtype)
    return result_BlC


def _norm(x_BlC: torch.Tensor) -> torch.Tensor:
    """Frobenius norm of each matrix, (B, 1, 1)."""
    norm_B: torch.Tensor = torch.linalg.matrix_norm(x_BlC)
    return norm_B[:, None, None]


def spectrum(x_BlC: torch.Tensor) -> torch.Tensor:
    """Singular values s_i / s_1 of each matrix, falling, float64 (B, min(l, C)): what dominates a
    map (arXiv 2511.17074). Zeros for a matrix of zeros."""
    values_Bn: torch.Tensor = torch.linalg.svdvals(x_BlC.double())
    largest_B1 = values_Bn[:, :1]
    return values_Bn / torch.where(largest_B1 > 0, largest_B1, 1.0)


# ---------------------------------------------------------------- at which scales


def reshaped_scales(config: SamplerConfig, num_scales: int) -> tuple[int, ...]:
    """Scales whose maps a sampler reshapes (arXiv 2511.17074); none where both strengths are 0.
    Where the config names none, the first half of those that read a state: 1 to K // 2."""
    if config.svd_in == 0 and config.svd_out == 0:
        return ()
    if config.svd_scales is not None:
        return config.svd_scales
    return tuple(range(1, num_scales // 2 + 1))


# ---------------------------------------------------------------- round a network


class _Reshaped:
    """A network whose maps are reshaped at some scales: arguments and results as of the network."""

    def __init__(self, network: Halves, config: SamplerConfig, scales: tuple[int, ...]) -> None:
        self.network, self.scales = network, scales
        self.suppress, self.amplify = config.svd_in, config.svd_out
        self.energy = config.svd_norm == "energy"

    def _reshape(self, x_BlC: torch.Tensor, beta: float, k: int) -> torch.Tensor:
        # on the meta device the operations of the network are counted, and nothing has values
        idle = beta == 0 or k not in self.scales or x_BlC.is_meta
        return x_BlC if idle else reweight(x_BlC, beta, self.energy)

    def hidden(
        self, inputs_BlC: torch.Tensor, k: int, labels_B: torch.Tensor, *own_Bl: torch.Tensor
    ) -> torch.Tensor:
        """What the head reads: of a reshaped input, reshaped itself."""
        read_BlC = self._reshape(inputs_BlC, self.suppress, k)
        return self._reshape(self.network.hidden(read_BlC, k, labels_B, *own_Bl), -self.amplify, k)

    def head(self, hidden_BlD: torch.Tensor) -> torch.Tensor:
        """Logits, as the network gives them."""
        return self.network.head(hidden_BlD)

    def __call__(
        self, inputs_BlC: torch.Tensor, k: int, labels_B: torch.Tensor, *own_Bl: torch.Tensor
    ) -> torch.Tensor:
        return self.head(self.hidden(inputs_BlC, k, labels_B, *own_Bl))


def reshape_spectrum(network: Halves, config: SamplerConfig, schedule: ScaleSchedule) -> Halves:
    """A network that reads its state with dominant singular values suppressed (svd_in) and gives
    the head its map with them amplified (svd_out), at some scales (arXiv 2511.17074); the network
    itself where nothing is reshaped.

    It stands under guidance: both halves read one reshaped state, and each half's map is reshaped
    before they are mixed. The state that tokens add up to is not changed: later scales read it as
    it is. With a history the keys and values of a reshaped scale stay in the cache.
    """
    scales = reshaped_scales(config, schedule.num_scales)
    return _Reshaped(network, config, scales) if scales else network
