"""Verb: the diffusion ELBO of a trained model against its training cross-entropy, in float64, on
held-out tokens (SRDD, arXiv 2509.22636; D3PM, arXiv 2107.03006, equation 1).

Three questions, all answered per scale and in total (nats a token unless said):
- `elbo_cross_entropy`: teacher-forced, through the model as it was trained;
- `elbo_<corruption>_eps<e>` and its parts `elbo_transition_...`, `elbo_readout_...`: through the
  Markov path, where every scale sees the state f_hat alone (history 0, the same weights).
  `elbo_relative_gap` is |ELBO - cross-entropy| / cross-entropy at eps 0, the largest over the
  corruptions; without a scale it is the largest over the scales. A model that is no chain in
  f_hat cannot close it;
- `path_...`: how far the model's conditional depends on how the state was reached, from the
  third scale on (the second reads a state that one scale alone has made, so nothing but the
  state can tell two paths apart). Path A: the encoder's tokens; path B: the second nearest code
  at scale 0, then the same latent quantised again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from srdd.config import ModelConfig
from srdd.corruption import corrupted
from srdd.diffusion import elbo_terms, kl_of_logits, markov_logits, markov_view, second_path
from srdd.loss import by_scale
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.quantizer import Ladder
from srdd.tokenizer import Tokenizer

from ...pipeline.artefacts import model_identity, open_split, open_tokens
from ...pipeline.datasets import SplitImages, to_float
from ...pipeline.labels import in_shares
from ...pipeline.networks import open_model, open_tokenizer
from ...runtime.progress import track
from ...runtime.verb import Run
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens", "train")

LOGITS = 2**24  # numbers in one batch of float64 logits: 128 MB
FIRST_OF_TWO_PATHS = 2


def chunks(count: int, config: ModelConfig) -> list[slice]:
    """Batches whose logits fit."""
    size = max(1, min(64, LOGITS // (config.schedule.seq_len * config.codebook_size)))
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


class Probe:
    """A trained model in float64, its Markov view, and the held-out images it is asked about."""

    def __init__(self, run: Run) -> None:
        self.settings: Settings = run.settings("equivalence", Settings)
        self.config: ModelConfig = run.settings("model", ModelConfig)
        weights = run.inputs["train"] / "model.safetensors"
        self.model: ScaleTransformer = open_model(run, weights).double()
        self.tokenizer: Tokenizer = open_tokenizer(run).double()
        self.view = markov_view(self.model)
        ladder = self.tokenizer.at(self.config.schedule)
        self.ladder: Ladder = ladder.read_as(self.config.state)
        self.split: SplitImages = open_split(run.inputs["data"], "test")
        self.rows_N = in_shares(self.split.labels_N, self.settings.num_images)
        tokens_NL = open_tokens(run.inputs["tokens"], "test")[self.rows_N]
        self.tokens_NL = torch.from_numpy(tokens_NL.astype(np.int64))
        self.count, self.device = len(self.tokens_NL), run.device
        # an unconditional model knows one label only, row 0 of its embedding
        true_N = np.asarray(self.split.labels_N)[self.rows_N].astype(np.int64)
        labels_N = torch.from_numpy(true_N)
        self.labels_N = labels_N if self.config.conditional else torch.zeros_like(labels_N)
        self.chunks = chunks(self.count, self.config)

    def batch(self, tokens_NL: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        return tokens_NL[rows].to(self.device), self.labels_N[rows].to(self.device)

    def cross_entropy(self) -> torch.Tensor:
        """-log p of each held-out token as training sees it (VAR, arXiv 2404.02905, equation 5),
        all scales in one pass."""
        losses = []
        for rows in self.chunks:
            tokens_BL, labels_B = self.batch(self.tokens_NL, rows)
            logits_BLV = self.model(self.ladder.teacher_forced_inputs(tokens_BL), labels_B)
            logits_BVL = logits_BLV.transpose(1, 2)
            losses.append(F.cross_entropy(logits_BVL, tokens_BL, reduction="none").cpu())
        return torch.cat(losses)

    def terms(self, name: str, eps: float, draw: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Transition and read-out of each token for one draw of the noise, the same for every
        model (D3PM, arXiv 2107.03006, equations 1 to 4)."""
        source, V = generator("equivalence", name, f"{eps:g}", draw), self.config.codebook_size
        noisy_NL = corrupted(name, self.tokens_NL, eps, V, source)
        transitions, readouts = [], []
        for rows in self.chunks:
            noisy_BL, labels_B = self.batch(noisy_NL, rows)
            logits_BLV = markov_logits(self.view.denoiser(), self.ladder, noisy_BL, labels_B)
            clean_BL = self.tokens_NL[rows].to(self.device)
            transition_BL, readout_BL = elbo_terms(logits_BLV, clean_BL, eps, name)
            transitions.append(transition_BL.cpu())
            readouts.append(readout_BL.cpu())
        return torch.cat(transitions), torch.cat(readouts)

    def mean_terms(self, name: str, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The same averaged over draws of the noise; without noise all draws are one."""
        draws = [self.terms(name, eps, draw) for draw in range(self.settings.draws if eps else 1)]
        transitions, readouts = zip(*draws)
        return torch.stack(transitions).mean(0), torch.stack(readouts).mean(0)

    def latent(self, rows: slice) -> torch.Tensor:
        images = to_float(self.split.read(self.rows_N[rows].tolist())).to(self.device).double()
        return self.tokenizer.to_latent(images)

    def two_paths(self) -> Iterator[tuple[str, int, torch.Tensor]]:
        """Name, scale and values of what two paths to nearly one state do to the model."""
        for rows in self.chunks:
            tokens_BL, labels_B = self.batch(self.tokens_NL, rows)
            other_BL = second_path(self.ladder, self.latent(rows), tokens_BL)
            a_BLC, b_BLC = map(self.ladder.teacher_forced_inputs, (tokens_BL, other_BL))
            along_a, along_b = self.model.denoiser(), self.model.denoiser()
            for k, piece in enumerate(self.config.schedule.slices):
                a_BlC, b_BlC = a_BLC[:, piece], b_BLC[:, piece]
                own_BlV = along_a(a_BlC, k, labels_B)
                # earlier scales of path B, the very state of path A
                crossed_BlV = along_b(a_BlC, k, labels_B)
                # replaces what the cache holds of scale k
                other_BlV = along_b(b_BlC, k, labels_B)
                if k >= FIRST_OF_TWO_PATHS:
                    distance_B = (b_BlC - a_BlC).flatten(1).norm(dim=1)
                    yield "path_distance", k, distance_B / a_BlC.flatten(1).norm(dim=1)
                    yield "path_kl", k, kl_of_logits(own_BlV, other_BlV)
                    yield "path_kl_equal_state", k, kl_of_logits(own_BlV, crossed_BlV)


def report(run: Run, probe: Probe, metric: str, values_NL: torch.Tensor) -> torch.Tensor:
    """Mean per scale and over all tokens; returns those of the scales."""
    identity = {**model_identity(run), "num_images": probe.count}
    means_K = by_scale(values_NL, probe.config.schedule)
    for k, value in enumerate(means_K.tolist()):
        run.add(metric, value, "nats/token", scale=k, **identity)
    run.add(metric, values_NL.mean().item(), "nats/token", **identity)
    return means_K


def report_gap(run: Run, probe: Probe) -> float:
    """Cross-entropy, and the ELBO without noise against it; returns the largest relative gap of a
    scale."""
    identity = {**model_identity(run), "num_images": probe.count}
    loss_NL = probe.cross_entropy()
    loss_K = report(run, probe, "elbo_cross_entropy", loss_NL)
    gaps, token_gaps = [], []
    for name in probe.settings.corruptions:
        transition_NL, readout_NL = probe.terms(name, 0.0, 0)
        elbo_NL = transition_NL + readout_NL
        gaps.append((by_scale(elbo_NL, probe.config.schedule) - loss_K).abs() / loss_K)
        token_gaps.append((elbo_NL - loss_NL).abs().max().item())
    gap_K = torch.stack(gaps).amax(0)
    for k, value in enumerate(gap_K.tolist()):
        run.add("elbo_relative_gap", value, "share", scale=k, **identity)
    run.add("elbo_relative_gap", gap_K.max().item(), "share", **identity)
    run.add("elbo_token_gap", max(token_gaps), "nats", **identity)
    return gap_K.max().item()


def report_noise(run: Run, probe: Probe) -> None:
    """The ELBO and its two parts at every noise, averaged over draws."""
    settings = probe.settings
    for name in settings.corruptions:
        for eps in track(settings.eps, f"{run.run_id} {name}", len(settings.eps)):
            transition_NL, readout_NL = probe.mean_terms(name, eps)
            ending = f"{name}_eps{eps:g}"
            report(run, probe, f"elbo_transition_{ending}", transition_NL)
            report(run, probe, f"elbo_readout_{ending}", readout_NL)
            report(run, probe, f"elbo_{ending}", transition_NL + readout_NL)


def report_paths(run: Run, probe: Probe) -> None:
    """How much two paths to nearly one state differ, per scale and over the tokens (distances: the
    images) of all of them."""
    by_name: dict[str, dict[int, list[torch.Tensor]]] = defaultdict(lambda: defaultdict(list))
    for name, k, values in probe.two_paths():
        by_name[name][k].append(values.flatten().cpu())
    identity = {**model_identity(run), "num_images": probe.count}
    for name, by_k in by_name.items():
        unit = "share" if name == "path_distance" else "nats/token"
        scales = {k: torch.cat(values) for k, values in by_k.items()}
        for k, values in scales.items():
            run.add(name, values.mean().item(), unit, scale=k, **identity)
        run.add(name, torch.cat(list(scales.values())).mean().item(), unit, **identity)


@torch.no_grad()
def work(run: Run) -> None:
    probe = Probe(run)
    gap = report_gap(run, probe)
    report_noise(run, probe)
    report_paths(run, probe)
    what = "largest relative gap of a scale between ELBO and cross-entropy without noise"
    run.say(f"{what}: {gap:.2g}")
