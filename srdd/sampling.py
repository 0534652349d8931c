"""Samplers: loops over scales that know a `denoise` and a ladder, and nothing of networks.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .config import SamplerConfig
from .contracts import (
    Denoise,
    check_drawn,
    check_known,
    check_labels,
    drawn_faults,
    refuse_drawn,
    whole_numbers,
)
from .detail import sharpen
from .diversity import reshape_spectrum
from .draw import TokenDistribution, distribution
from .guidance import guide
from .lookup import find, function_name, is_own
from .memory import is_out_of_memory
from .misfits import COUNTED, sampler_misfit
from .model import ScaleTransformer
from .noise import ImageNoise
from .quantizer import Ladder
from .replay import Draw, Replay
from .select import Drawn, Pass, redraws
from .untouched import Untouched
from .watch import Calls, Watched, kept_for_all

# ---------------------------------------------------------------- tokens that are given


@dataclass(frozen=True)
class Known:
    """Tokens that a sample must keep: ground truth in zero-shot tasks (VAR, arXiv 2404.02905,
    section 4.4), a corrupted prefix.

    tokens_BL: int64; mask_BL: bool, where they hold.
    """

    tokens_BL: torch.Tensor
    mask_BL: torch.Tensor

    def put_into(self, tokens_Bl: torch.Tensor, where: slice) -> torch.Tensor:
        """The tokens of a scale with the known ones in their places."""
        return torch.where(self.mask_BL[:, where], self.tokens_BL[:, where], tokens_Bl)


# ---------------------------------------------------------------- samplers


Sample = tuple[torch.Tensor, torch.Tensor]  # tokens_BL and f_hat_BChw


def _distribution(logits_BlV: torch.Tensor, config: SamplerConfig) -> TokenDistribution:
    return distribution(logits_BlV, config.temperature, config.top_k, config.top_p)


def sample_var(
    denoise: Denoise,
    ladder: Ladder,
    labels_B: torch.Tensor,
    noise: ImageNoise,
    config: SamplerConfig,
    known: Known | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coarse to fine, each scale drawn once (VAR, arXiv 2404.02905, section 3.2); with a model of
    history 0 this is SDD.

    labels_B: int64; known: tokens to keep. Returns tokens_BL and the final state f_hat_BChw.
    """
    # f_hat_0 = 0, f_hat_{k+1} = f_hat_k + phi_k(up(codes of scale k)): the state that k + 1 reads
    f_hat_BChw = seen_BChw = ladder.empty_state(len(labels_B))
    tokens = []
    for k, where in enumerate(ladder.schedule.slices):
        logits_BlV = denoise(ladder.read_scale(seen_BChw, k), k, labels_B)
        uniform_Bl = noise.uniform(where.stop - where.start)
        drawn_Bl, _ = _distribution(logits_BlV, config).draw(uniform_Bl)
        # numbers are drawn for known tokens too: later draws must not depend on how many there are
        drawn_Bl = drawn_Bl if known is None else known.put_into(drawn_Bl, where)
        f_hat_BChw, seen_BChw = ladder.after(f_hat_BChw, ladder.quantizer.embed(drawn_Bl), k)
        tokens.append(drawn_Bl)
    return torch.cat(tokens, 1), f_hat_BChw


def sample_srdd(
    denoise: Denoise,
    ladder: Ladder,
    labels_B: torch.Tensor,
    noise: ImageNoise,
    config: SamplerConfig,
    known: Known | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coarse to fine with resampling inside a scale (SRDD, arXiv 2509.22636): SR redraws unlikely
    tokens from the same distribution sr_steps times after every pass; MR masks what `select_<name>`
    names and calls the network again, refine_steps times.

    A pass that redraws no token of the batch calls no network where `denoise.history` is 0: no
    scale then reads another's keys. With both at 0 it equals `sample_var` bit by bit. With
    refine_steps the network sees known tokens from the first pass on. Arguments and results as of
    `sample_var`.
    """
    f_hat_BChw = seen_BChw = ladder.empty_state(len(labels_B))
    tokens = []
    for k, where in enumerate(ladder.schedule.slices):
        inputs_BlC = ladder.read_scale(seen_BChw, k)
        scale = _Scale(denoise, inputs_BlC, k, labels_B, noise, config)
        drawn_Bl = _draw_scale(scale, known, where, len(ladder.quantizer.codebook_VC))
        f_hat_BChw, seen_BChw = ladder.after(f_hat_BChw, ladder.quantizer.embed(drawn_Bl), k)
        tokens.append(drawn_Bl)
    return torch.cat(tokens, 1), f_hat_BChw


def sample_gauss(
    denoise: Denoise,
    ladder: Ladder,
    labels_B: torch.Tensor,
    noise: ImageNoise,
    config: SamplerConfig,
    known: Known | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coarse to fine, each scale's residual drawn once from the Gaussian of a regression (head of
    arXiv 2510.02826): mean + temperature sigma noise; temperature 0 is the mean alone.

    Nothing is quantised: the tokens that are returned are the nearest codes of the residuals, and
    the state is that of the residuals themselves. `denoise.sigma_KC` says how wide each scale and
    channel is. Arguments and results as of `sample_var`.
    """
    sigma_KC: torch.Tensor = denoise.sigma_KC  # type: ignore[attr-defined]
    f_hat_BChw, tokens = ladder.empty_state(len(labels_B)), []
    for k, where in enumerate(ladder.schedule.slices):
        mean_BlC = denoise(ladder.read_scale(f_hat_BChw, k), k, labels_B)
        normal_BlC = noise.normal(*mean_BlC.shape[1:])
        # r = mean + t sigma_k eps
        residual_BlC = mean_BlC + config.temperature * sigma_KC[k].double() * normal_BlC
        residual_BlC = residual_BlC.to(f_hat_BChw.dtype)
        drawn_Bl = ladder.quantizer.nearest_code(residual_BlC)
        if known is not None:
            drawn_Bl = known.put_into(drawn_Bl, where)
            codes_BlC, given_Bl1 = ladder.quantizer.embed(drawn_Bl), known.mask_BL[:, where, None]
            residual_BlC = torch.where(given_Bl1, codes_BlC, residual_BlC)
        f_hat_BChw = ladder.add_scale(f_hat_BChw, residual_BlC, k)
        tokens.append(drawn_Bl)
    return torch.cat(tokens, 1), f_hat_BChw


@dataclass(frozen=True)
class _Scale:
    """One scale of a batch: what all passes over its tokens have in common."""

    denoise: Denoise
    inputs_BlC: torch.Tensor
    k: int
    labels_B: torch.Tensor
    noise: ImageNoise
    config: SamplerConfig

    @property
    def length(self) -> int:
        """Tokens of the scale (VAR, arXiv 2404.02905, section 3.2)."""
        return self.inputs_BlC.shape[1]

    @property
    def sr_steps(self) -> int:
        """Redraws of unlikely tokens (SR of SRDD, arXiv 2509.22636); 0 where the scale is not
        refined."""
        return self.config.sr_steps if self.config.refines(self.k) else 0

    def pass_over(self, use: str, *own_Bl: torch.Tensor) -> Pass:
        """Call the network, draw every token, and by SR the unlikely ones again."""
        logits_BlV = self.denoise(self.inputs_BlC, self.k, self.labels_B, *own_Bl)
        source = _distribution(logits_BlV, self.config)
        tokens_Bl, probability_Bl = source.draw(self.noise.uniform(self.length, use))
        for _ in range(self.sr_steps):
            # the threshold looks at the token that was drawn: SR truncates the distribution
            low_Bl = probability_Bl < self.config.p_resample
            again_Bl, other_Bl = source.draw(self.noise.uniform(self.length, "sr"))
            tokens_Bl = torch.where(low_Bl, again_Bl, tokens_Bl)
            probability_Bl = torch.where(low_Bl, other_Bl, probability_Bl)
        return Pass(source, tokens_Bl, probability_Bl)

    def leave_out(self) -> None:
        """Draw the numbers of a pass that is not made: an image's later scales must not depend on
        its batch."""
        self.noise.uniform(self.length, "refine")
        for _ in range(self.sr_steps):
            self.noise.uniform(self.length, "sr")


def _draw_scale(scale: _Scale, known: Known | None, where: slice, V: int) -> torch.Tensor:
    """Tokens of one scale after all its passes; token V means [MASK]."""
    config = scale.config
    masked_Bl = scale.labels_B.new_full((len(scale.labels_B), scale.length), V)
    # only a model trained with masks reads own tokens: known ones are shown where there is MR
    shown = known is not None and config.refine_steps > 0
    own = [known.put_into(masked_Bl, where)] if known is not None and shown else []
    first = scale.pass_over("", *own)
    if known is not None:
        first = replace(first, tokens_Bl=known.put_into(first.tokens_Bl, where))
    passes = config.passes(scale.k, scale.length)
    if passes == 1:
        return first.tokens_Bl
    nothing_Bl = torch.zeros_like(masked_Bl, dtype=torch.bool)
    fixed_Bl = nothing_Bl if known is None else known.mask_BL[:, where]
    # A call may be left out only where no later scale reads its keys: whether it is left out
    # depends on the batch. To ask what is redrawn makes a GPU wait, so only some rules do.
    markov = getattr(scale.denoise, "history", None) == 0
    looks = markov and (known is not None or config.select.name not in COUNTED)
    drawn = Drawn.after(first, fixed_Bl, passes)
    for _ in range(passes - 1):
        redraw_Bl = redraws(drawn, scale.noise.uniform(scale.length, "select"), config)
        if looks and not redraw_Bl.any():
            scale.leave_out()
            drawn = drawn.passed(redraw_Bl)
            continue
        # what is kept is revealed, what is redrawn is masked: p(redrawn | state, kept)
        own_Bl = drawn.tokens_Bl.masked_fill(redraw_Bl, V)
        later = Drawn.after(scale.pass_over("refine", own_Bl), fixed_Bl, drawn.passes_left)
        drawn = drawn.where(redraw_Bl, later)
    return drawn.tokens_Bl


def guided_denoiser(
    model: ScaleTransformer, config: SamplerConfig, degraded_BChw: torch.Tensor | None = None
) -> Denoise:
    """A fresh denoiser of a model for one batch, its spectra reshaped (arXiv 2511.17074) where a
    sampler asks for it, under the sampler's guidance (arXiv 2207.12598, equation 6), pushed from
    the scale before (arXiv 2602.05534) where it asks for that. degraded_BChw: of images to
    restore."""
    denoiser = model.denoiser(degraded_BChw)
    guided = guide(
        reshape_spectrum(denoiser, config, model.schedule),
        model.schedule,
        config.cfg_scale,
        config.cfg_ramp,
        model.config.null_label,
        denoiser.history,
    )
    return sharpen(guided, config, model.schedule)


def _check_request(
    model: ScaleTransformer,
    ladder: Ladder,
    labels_B: torch.Tensor,
    config: SamplerConfig,
    known: Known | None,
) -> None:
    """What `generate` is asked for. Raises ValueError."""
    kinds = {
        "model": (model, ScaleTransformer),
        "ladder": (ladder, Ladder),
        "config": (config, SamplerConfig),
    }
    kinds |= {} if known is None else {"known": (known, Known)}
    for name, (given, kind) in kinds.items():
        if not isinstance(given, kind):
            raise ValueError(f"{name}: {type(given).__name__}: must be a {kind.__name__}")
    asked, sizes = model.config, ladder.quantizer.codebook_VC.shape
    check_labels(labels_B, asked.num_classes)
    if problem := sampler_misfit(config, asked):
        raise ValueError(problem)
    if ladder.schedule != model.schedule:
        raise ValueError(
            f"ladder of patch_nums {list(ladder.schedule.patch_nums)}: the model's are "
            f"{list(model.schedule.patch_nums)}; "
            "take tokenizer.at(model.schedule)"
        )
    if sizes != (asked.codebook_size, asked.codebook_dim):
        raise ValueError(
            f"ladder of {sizes[0]} codes of {sizes[1]} channels: the model's have "
            f"{asked.codebook_size} of {asked.codebook_dim}; "
            "take the tokenizer that the model was trained with"
        )
    if (ladder.quantizer.combine == "replace") != (asked.state == "replace"):
        raise ValueError(
            f"ladder of a tokenizer whose scales {ladder.quantizer.combine}: the model's state is "
            f"{asked.state}; take the tokenizer that the model was trained with"
        )
    places = {str(x.device) for x in (labels_B, model.position, ladder.quantizer.codebook_VC)}
    if len(places) > 1:
        names = ", ".join(sorted(places))
        raise ValueError(f"labels, model and ladder: lie on several devices ({names}); use one")
    if known is not None:
        shape = len(labels_B), model.schedule.seq_len
        check_known(known.tokens_BL, known.mask_BL, shape, asked.codebook_size)


def _watched(
    model: ScaleTransformer, config: SamplerConfig, who: str, batch: int, early_exit: bool,
    degraded_BChw: torch.Tensor | None,
) -> Watched:  # fmt: skip
    """All that a sampler knows of the network, for one batch, and counted."""
    history = None if model.mask_LL is not None else model.config.history
    own = is_own("sample", config.name)
    kept = kept_for_all(model.config, config, history) if own else None
    channels = model.config.codebook_dim
    guided = guided_denoiser(model, config, degraded_BChw)
    denoise = Watched(guided, model.schedule, channels, who, config.divides_by, kept, batch)
    denoise.history = history if early_exit else None
    denoise.sigma_KC = getattr(model.head, "sigma_KC", None)
    return denoise


# ---------------------------------------------------------------- samples that are replayed


# the denoiser, which holds what it saw, and `drawn_faults`
Seen = tuple[Watched, torch.Tensor]


def _repeats(model: ScaleTransformer, config: SamplerConfig, early_exit: bool) -> bool:
    """Whether every sample asks for the same kernels: nothing looks at what was drawn, and no
    function of one's own may, nor one of torch that waits for the GPU."""
    looks = early_exit and config.refine_steps > 0 and config.select.name not in COUNTED
    own = [("head", model.config.head), *config.functions().values()]
    # eigenvalues make a GPU wait; the matrices of a prior are made on the CPU
    plain = config.svd_in == config.svd_out == config.detail_scale == 0.0
    return not looks and plain and not any(is_own(*one) for one in own)


def _weights(model: ScaleTransformer, ladder: Ladder) -> list[torch.Tensor]:
    """All that a sample reads but labels and numbers."""
    modules = model, ladder.quantizer
    return [weight for module in modules for weight in (*module.parameters(), *module.buffers())]


def _replayed(
    model: ScaleTransformer, ladder: Ladder, key: Any, draw: Draw[Seen],
    labels_B: torch.Tensor, noise: ImageNoise,
) -> tuple[Sample, Seen]:  # fmt: skip
    """A sample by its record. The first of its kind is drawn as it is, which warms up libraries and
    tells how many numbers it takes; the second is recorded, or where memory is not enough for that
    never again tried."""
    assert model.replays is not None
    known = model.replays.get(key)
    if isinstance(known, Replay):
        drawn = known(labels_B, noise)
        # looked at while the GPU works: to list all weights takes a fifth of a small sample's time
        if known.reads(_weights(model, ladder)):
            return drawn
        noise = ImageNoise(noise.seeds, noise.device)
    elif known:
        try:
            replay = Replay(draw, labels_B, known, _weights(model, ladder))
            model.replays[key] = replay
            return replay(labels_B, noise)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            noise, known = ImageNoise(noise.seeds, noise.device), []
    drawn = draw(labels_B, noise)
    model.replays[key] = known if known == [] else noise.asked
    return drawn


@torch.no_grad()
def generate(
    model: ScaleTransformer, ladder: Ladder, labels_B: torch.Tensor, seeds: Sequence[int],
    config: SamplerConfig, known: Known | None = None, calls: Calls | None = None,
    early_exit: bool = True, degraded_BChw: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Draw one batch with the sampler that `config` names: guidance wrapped round a fresh denoiser
    (arXiv 2207.12598).

    labels_B: int64 in 0 ... num_classes - 1, 0 for a model without classes. The numbers that an
    image is drawn with follow from its seed alone, so that an image depends on (weights, its seed,
    label, config, its known tokens) and, up to rounding, on nothing else: sums of another batch
    size round otherwise, and a draw at the very edge of two codes may then flip (in float32 on a
    CPU a few per cent of the images of a 256-pixel model). calls: counts the calls of the network.
    early_exit: leave out a call that would redraw nothing, which changes no image; only models of
    history 0 allow it, since later scales of others read what that call would leave in the cache.
    degraded_BChw: `condition_latent` of the images to restore, for a model with `model.condition`.
    Returns tokens_BL and f_hat_BChw for `Tokenizer.to_image`. Raises ValueError for what does not
    fit together, logits that are not finite, and a sampler of one's own that returns anything else.
    """
    _check_request(model, ladder, labels_B, config, known)
    ladder = ladder.read_as(model.config.state)
    seeds = whole_numbers(seeds, "seeds")
    if len(seeds) != len(labels_B):
        raise ValueError(f"{len(seeds)} seeds for {len(labels_B)} labels: one seed for each image")
    if degraded_BChw is not None and len(degraded_BChw) != len(labels_B):
        raise ValueError(f"{len(degraded_BChw)} degraded images for {len(labels_B)} labels")
    noise, who = ImageNoise(seeds, labels_B.device), function_name("sample", config.name)
    channels, V = model.config.codebook_dim, model.config.codebook_size
    own = is_own("sample", config.name)
    read = {"labels_B": labels_B, **dict(ladder.quantizer.named_parameters())} if own else {}
    if own and known is not None:
        read |= {"tokens_BL": known.tokens_BL, "mask_BL": known.mask_BL}
    given = Untouched(**read)

    B, size = len(labels_B), model.schedule.latent_size
    shape, state_shape = (B, model.schedule.seq_len), (B, channels, size, size)

    def draw(labels_B: torch.Tensor, noise: ImageNoise) -> tuple[Sample, Seen]:
        """A sample for labels and numbers of this batch size, and what is to be checked of it."""
        denoise = _watched(model, config, who, B, early_exit, degraded_BChw)
        sampler = find(sys.modules[__name__], "sample", config.name)
        sample = sampler(denoise, ladder, labels_B, noise, config, known)
        given.check(who)
        tokens_BL, f_hat_BChw = check_drawn(sample, shape, state_shape, who)
        denoise.gather()
        return (tokens_BL, f_hat_BChw), (denoise, drawn_faults(tokens_BL, f_hat_BChw, V, known))

    alone = known is None and degraded_BChw is None
    if model.replays is not None and alone and _repeats(model, config, early_exit):
        key = config.model_dump_json(), ladder.schedule, id(ladder.quantizer), B, early_exit
        sample, (denoise, faults) = _replayed(model, ladder, key, draw, labels_B, noise)
    else:
        sample, (denoise, faults) = draw(labels_B, noise)
    denoise.check()
    refuse_drawn(faults.tolist(), V, who)
    if calls is not None:
        denoise.seen.batches, denoise.seen.images = 1, B
        calls.add(denoise.seen)
    return sample
