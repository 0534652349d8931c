"""The token ladder as a discrete diffusion: transition matrices, posterior, the terms of the ELBO,
signal-to-noise ratios.

The forward process of an image with tokens a_0 ... a_{K-1}: each token is corrupted alone, z ~
Q(eps)[a], then the finest scale that is left is removed, step by step (the degradation M(n) of
SRDD, arXiv 2509.22636). The state that scale k is drawn from is z_0 ... z_{k-1}, of which a Markov
model reads f_hat alone. Derivation, conditions and limits: docs/equivalence.md.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
S states of a token: V codes, for the absorbing process also V, "lost"
"""

from __future__ import annotations

import math
import sys

import torch

from .contracts import Denoise
from .lookup import find
from .model import ScaleTransformer
from .quantizer import Ladder

# ---------------------------------------------------------------- the forward process


def matrix_none(codebook_size: int, eps: float) -> torch.Tensor:
    """Q = I, whatever eps (SRDD, arXiv 2509.22636: the degradation alone). Returns float64 (V,
    V)."""
    return torch.eye(codebook_size, dtype=torch.float64)


def matrix_uniform(codebook_size: int, eps: float) -> torch.Tensor:
    """Q = (1 - eps) I + eps/V 11^T (D3PM, arXiv 2107.03006, appendix A.2.1). Returns float64 (V,
    V)."""
    return (1 - eps) * torch.eye(codebook_size, dtype=torch.float64) + eps / codebook_size


def matrix_absorb(codebook_size: int, eps: float) -> torch.Tensor:
    """Q = (1 - eps) I + eps 1 e_V^T (D3PM, arXiv 2107.03006, appendix A.2.2). Returns float64 (V, V
    + 1), the last state is lost."""
    Q_VS = torch.zeros(codebook_size, codebook_size + 1, dtype=torch.float64)
    Q_VS[:, :codebook_size] = (1 - eps) * torch.eye(codebook_size, dtype=torch.float64)
    Q_VS[:, codebook_size] = eps
    return Q_VS


def transition_matrix(codebook_size: int, eps: float, corruption: str) -> torch.Tensor:
    """Q(eps) of a corruption by name: row a is q(z | a) (D3PM, arXiv 2107.03006, equation 1).
    Returns float64 (V, S).

    For tests and small codebooks; `elbo_terms` needs no matrix. Raises ValueError for an unknown
    name or an eps outside [0, 1].
    """
    _check_eps(eps)
    Q_VS: torch.Tensor = find(sys.modules[__name__], "matrix", corruption)(codebook_size, eps)
    return Q_VS


def removal_matrix(states: int) -> torch.Tensor:
    """The step that removes a scale: every state of its tokens becomes one more state, S, "removed"
    (the deterministic degradation of SRDD, arXiv 2509.22636, as a matrix of D3PM, 2107.03006).
    Returns float64 (S, S + 1)."""
    Q_SR = torch.zeros(states, states + 1, dtype=torch.float64)
    Q_SR[:, states] = 1.0
    return Q_SR


def posterior(
    before_VS: torch.Tensor, step_SR: torch.Tensor, x0: torch.Tensor, xt: torch.Tensor
) -> torch.Tensor:
    """q(x_{t-1} | x_t, x_0) = x_t Q_t^T * x_0 Qbar_{t-1} / (x_0 Qbar_t x_t^T) of each token (D3PM,
    arXiv 2107.03006, equation 3).

    before_VS: Qbar_{t-1}; step_SR: Q_t; x0, xt: int64 of one shape. Returns float64 of that shape
    plus S. Raises ValueError where x_t cannot follow from x_0. With `removal_matrix` it is row x_0
    of Qbar_{t-1}: what is removed says nothing of what it was.
    """
    # q(x_{t-1} | x_0) q(x_t | x_{t-1}), for each x_{t-1}
    joint = before_VS[x0] * step_SR.T[xt]
    total = joint.sum(-1, keepdim=True)
    if not (total > 0).all():
        raise ValueError("posterior: some x_t has probability 0 given its x_0")
    return joint / total


# ---------------------------------------------------------------- the terms of the ELBO


def terms_none(
    log_p_BLV: torch.Tensor, tokens_BL: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Q = I: the transition term is -log p(a), nothing is left to read out (SRDD, arXiv
    2509.22636)."""
    loss_BL = -_own(log_p_BLV, tokens_BL)
    return loss_BL, torch.zeros_like(loss_BL)


def terms_absorb(
    log_p_BLV: torch.Tensor, tokens_BL: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """A kept token costs -log p(a) in the transition, a lost one in the read-out (D3PM, arXiv
    2107.03006, appendix A.3)."""
    loss_BL = -_own(log_p_BLV, tokens_BL)
    # KL = (1 - eps) [log(1 - eps) - log((1 - eps) p(a))]; "lost" has probability eps in both
    return (1 - eps) * loss_BL, eps * loss_BL


def terms_uniform(
    log_p_BLV: torch.Tensor, tokens_BL: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both terms for Q = (1 - eps) I + eps/V 11^T, whose row a has two values only: at a and
    elsewhere (D3PM, arXiv 2107.03006, equations 3 and 4, with p(z) = (1 - eps) p(a = z) +
    eps/V)."""
    V = log_p_BLV.shape[-1]
    own, other = 1 - eps + eps / V, eps / V
    if other == 0.0:
        return terms_none(log_p_BLV, tokens_BL, eps)
    # log p(z) = log((1 - eps) p(a = z) + eps/V), never through a probability that underflows
    log_kept = math.log1p(-eps) if eps < 1 else -math.inf
    log_z_BLV = torch.logaddexp(log_p_BLV + log_kept, log_p_BLV.new_tensor(math.log(other)))
    log_a_BL, log_za_BL = _own(log_p_BLV, tokens_BL), _own(log_z_BLV, tokens_BL)
    rest_BL = log_z_BLV.sum(-1) - log_za_BL  # of log p(z) over the z that are not a
    # sum_z Q[a, z] (log Q[a, z] - log p(z)), z = a and the V - 1 others apart
    elsewhere_BL = (V - 1) * math.log(other) - rest_BL
    transition_BL = own * (math.log(own) - log_za_BL) + other * elsewhere_BL
    # log p(a | z) = log p(a) + log Q[a, z] - log p(z)
    elsewhere_BL = rest_BL - (V - 1) * (log_a_BL + math.log(other))
    readout_BL = own * (log_za_BL - log_a_BL - math.log(own)) + other * elsewhere_BL
    return transition_BL, readout_BL


def elbo_terms(
    logits_BLV: torch.Tensor, tokens_BL: torch.Tensor, eps: float, corruption: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Terms of the negative ELBO in nats, of each token (D3PM, arXiv 2107.03006, equations 1 to 4):
    the transition KL(q(z | a) || p(z | state)) with p(z) = sum_a Q[a, z] p(a | state), and the
    read-out E_q[-log p(a | z, state)].

    logits_BLV: of the clean token a given a corrupted coarser state, one draw of it. Returns
    float64 transition_BL and readout_BL; their sum is -log p(a | state) for every eps. Raises
    ValueError for an unknown corruption or an eps outside [0, 1].
    """
    _check_eps(eps)
    terms = find(sys.modules[__name__], "terms", corruption)
    log_p_BLV = logits_BLV.double().log_softmax(-1)
    transition_BL, readout_BL = terms(log_p_BLV, tokens_BL, eps)
    return transition_BL, readout_BL


def _own(values_BLV: torch.Tensor, tokens_BL: torch.Tensor) -> torch.Tensor:
    return values_BLV.gather(-1, tokens_BL.unsqueeze(-1)).squeeze(-1)


def _check_eps(eps: float) -> None:
    if not 0 <= eps <= 1:
        raise ValueError(f"eps {eps}: is a probability, from 0 to 1")


# ---------------------------------------------------------------- a model as the reverse process


def markov_view(model: ScaleTransformer) -> ScaleTransformer:
    """The same weights with history 0: a reverse process that reads the state alone (SDD, arXiv
    2509.22636).

    Of a model of history 0 it is the same function; of another it is what is left without attention
    to earlier scales, and where a history vector pools what the scale itself reads alone.
    """
    weight, config = model.position, model.config
    markov = {"history": 0, "mask": None, "history_vector": min(1, config.history_vector)}
    view = ScaleTransformer(config.model_copy(update=markov)).to(weight)
    view.load_state_dict(model.state_dict())
    return view.eval()


def markov_logits(
    denoise: Denoise, ladder: Ladder, tokens_BL: torch.Tensor, labels_B: torch.Tensor
) -> torch.Tensor:
    """Logits_BLV of every scale through the sampler's contract, each from the state before it
    (x_0-parametrisation of D3PM, arXiv 2107.03006, equation 4); token V is a lost one."""
    seen_BChw, logits = ladder.empty_state(len(tokens_BL)), []
    for k, after_BChw in enumerate(ladder.read_states(tokens_BL)):
        logits.append(denoise(ladder.read_scale(seen_BChw, k), k, labels_B))
        seen_BChw = after_BChw
    return torch.cat(logits, 1)


def second_path(
    ladder: Ladder, latent_BChw: torch.Tensor, tokens_BL: torch.Tensor, at: int = 0
) -> torch.Tensor:
    """Another path of tokens towards the same latent: at scale `at` the nearest code that is not
    the given token, then residual quantisation of what is left (VAR, arXiv 2404.02905, algorithm
    1). Returns tokens_BL; scales before `at` keep theirs."""
    codes_VC, f_hat_BChw = ladder.quantizer.codebook_VC, ladder.empty_state(len(tokens_BL))
    other = []
    for k, where in enumerate(ladder.schedule.slices):
        residual_BlC = ladder.rest(latent_BChw, f_hat_BChw, k)
        if k < at:
            tokens_Bl = tokens_BL[:, where]
        elif k == at:
            # the nearest code but one: the given token is out of the running
            distance_BlV = (residual_BlC.unsqueeze(2) - codes_VC).square().sum(-1)
            tokens_Bl = distance_BlV.scatter(
                -1, tokens_BL[:, where].unsqueeze(-1), math.inf
            ).argmin(-1)
        else:
            tokens_Bl = ladder.quantizer.nearest_code(residual_BlC)
        f_hat_BChw = ladder.add_scale(f_hat_BChw, ladder.quantizer.embed(tokens_Bl), k)
        other.append(tokens_Bl)
    return torch.cat(other, 1)


def kl_of_logits(first_BlV: torch.Tensor, second_BlV: torch.Tensor) -> torch.Tensor:
    """KL(p || p') of the distributions of two logits, as in the terms of the ELBO (D3PM, arXiv
    2107.03006, equation 1), in nats. Returns float64 (B, l), 0 where the logits are equal."""
    first_BlV, second_BlV = first_BlV.double().log_softmax(-1), second_BlV.double().log_softmax(-1)
    return (first_BlV.exp() * (first_BlV - second_BlV)).sum(-1)


# ---------------------------------------------------------------- signal-to-noise ratio


def snr_db(x: torch.Tensor, x_k: torch.Tensor) -> torch.Tensor:
    """10 log10(||x||^2 / ||x - x_k||^2) of each image: the ratio that rises through the scales
    (SRDD, arXiv 2509.22636; definition ours). x, x_k: (B, ...). Returns float64 (B,) in dB,
    infinite where x_k is x."""
    x, x_k = x.double().flatten(1), x_k.double().flatten(1)
    return 10 * torch.log10(x.square().sum(1) / (x - x_k).square().sum(1))


def _interior(num_scales: int) -> torch.Tensor:
    """K equally spaced times strictly inside (0, 1), noisy to clean."""
    return 1 - torch.arange(1, num_scales + 1, dtype=torch.float64) / (num_scales + 1)


def _db_of_alpha_bar(alpha_bar_K: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(alpha_bar_K / (1 - alpha_bar_K))


def snr_cosine(num_scales: int) -> torch.Tensor:
    """SNR of the cosine schedule (arXiv 2102.09672, equation 17, s = 0.008) at times k/(K + 1),
    noisy to clean. Returns float64 (K,) in dB."""

    def f(t: torch.Tensor) -> torch.Tensor:
        """cos^2((t + s) / (1 + s) pi / 2)."""
        return torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    # equation 17: alpha_bar(t) = f(t) / f(0)
    alpha_bar_K = f(_interior(num_scales)) / f(torch.zeros((), dtype=torch.float64))
    return _db_of_alpha_bar(alpha_bar_K)


def snr_linear(num_scales: int) -> torch.Tensor:
    """SNR of the linear schedule (DDPM, arXiv 2006.11239, section 4: 1 000 betas from 1e-4 to 0.02)
    at the steps nearest to times k/(K + 1), noisy to clean. Returns float64 (K,) in dB."""
    # alpha_bar_t = prod_{s <= t} (1 - beta_s), SNR = alpha_bar / (1 - alpha_bar)
    alpha_bar_T = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    step_K = (_interior(num_scales) * 1000).round().long().clamp(1, 1000)
    return _db_of_alpha_bar(alpha_bar_T[step_K - 1])
