"""Verb: restore held-out images without a scale transformer, and swap scales of their tokens.

`<score>_<way>_<degradation>`, and without a degradation the mean over all; scores: psnr, ssim,
class_agreement, feature_distance. Ways: `input` as it is, `round_trip` through the tokenizer,
`median` and `wiener` of 3 x 3 pixels, `ridge` and `mlp`, one regression for all degradations.
`ceiling` and `latent` know the clean image: its own tokens decoded, and its latent unquantised.

`swap_<part>_<degradation>`, scale m: PSNR of clean tokens with degraded ones below m (coarse), from
m on (fine), at m (alone); `swap_<part>_control` with tokens of another image; `again` before the
part: what follows the cut is quantised again. `swap_excess_<degradation>`: what the coarse half
costs minus what the fine half does, minus the same of the control. `tokens_same_<degradation>`,
scale k: share of degraded images' tokens that are the clean ones.

Writes strip.npz: a few images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from srdd.noise import generator
from srdd.schedule import ScaleSchedule
from srdd.swapping import requantised, swapped
from srdd.tokenizer import Tokenizer

from ...pipeline.artefacts import save_npz, tokenizer_identity
from ...pipeline.datasets import to_float, to_uint8
from ...pipeline.degraded import DegradedSplit
from ...pipeline.labels import in_shares
from ...pipeline.likeness import psnr
from ...pipeline.networks import open_tokenizer
from ...pipeline.restored import BATCH, SHOWN, CleanImages, batches
from ...pipeline.scratch import Rows, on_disk
from ...runtime.verb import Run
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens", "features")

Restore = Callable[[torch.Tensor], torch.Tensor]  # of a batch, uint8 (B, C, S, S), both

# ---------------------------------------------------------------- filters and regressions


def median(images_NCHW: torch.Tensor) -> torch.Tensor:
    """The median of 3 x 3 pixels."""
    filtered = ndimage.median_filter(images_NCHW.numpy(), size=(1, 1, 3, 3), mode="nearest")
    return torch.from_numpy(filtered)


def wiener(images_NCHW: torch.Tensor) -> torch.Tensor:
    """The adaptive Wiener filter of 3 x 3 pixels, by scipy, of each channel."""
    from scipy import signal  # slow to import

    planes = images_NCHW.double().flatten(0, 1).numpy()
    with np.errstate(divide="ignore", invalid="ignore"):  # of a flat window, which it leaves
        filtered = np.stack([signal.wiener(plane, (3, 3)) for plane in planes])
    filtered = np.where(np.isfinite(filtered), filtered, planes)
    return torch.from_numpy(filtered.clip(0, 255).round()).byte().view_as(images_NCHW)


def ridge_of(x_ND: torch.Tensor, y_ND: torch.Tensor, penalty: float) -> Restore:
    """Linear regression of clean on degraded pixels, by its normal equations in float64; every
    weight but the offset is penalised."""

    def widened(images_NCHW: torch.Tensor) -> torch.Tensor:
        flat_ND = to_float(images_NCHW).flatten(1).double()
        return torch.cat((flat_ND, flat_ND.new_ones(len(flat_ND), 1)), 1)

    pixels = x_ND[0].numel()
    left = torch.zeros(pixels + 1, pixels + 1, dtype=torch.float64)
    right = torch.zeros(pixels + 1, pixels, dtype=torch.float64)
    for x, y in zip(x_ND.split(4 * BATCH), y_ND.split(4 * BATCH)):
        wide = widened(x)
        left += wide.T @ wide
        right += wide.T @ to_float(y).flatten(1).double()
    diagonal = torch.full((len(left),), penalty * len(x_ND), dtype=torch.float64)
    diagonal[-1] = 0
    weight_DD = torch.linalg.solve(left + torch.diag(diagonal), right)

    def restore(images_NCHW: torch.Tensor) -> torch.Tensor:
        return to_uint8(widened(images_NCHW) @ weight_DD).view_as(images_NCHW)

    return restore


def mlp_of(x: torch.Tensor, y: torch.Tensor, settings: Settings, seed: int, run: Run) -> nn.Module:
    """An MLP from degraded to clean pixels by AdamW on the L1 error, its rate falling to 0."""
    sides = [x[0].numel(), *[settings.units] * settings.layers, x[0].numel()]
    layers: list[nn.Module] = [nn.Flatten()]
    source = generator("restoration mlp", seed)
    for wide, narrow in zip(sides, sides[1:]):
        linear = nn.Linear(wide, narrow)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu", generator=source)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.GELU()]
    network = nn.Sequential(*layers[:-1]).to(run.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * (1 - step / settings.steps)
        rows_B = torch.randint(len(x), (settings.batch_size,), generator=source)
        restored_BD = network(to_float(x[rows_B].to(run.device)))
        clean_BD = to_float(y[rows_B].to(run.device)).flatten(1)
        optimizer.zero_grad()
        (restored_BD - clean_BD).abs().mean().backward()
        optimizer.step()
    return network.eval()


def by_network(network: nn.Module, device: torch.device) -> Restore:
    """A network on pixels as a restoration."""

    @torch.no_grad()
    def restore(images_NCHW: torch.Tensor) -> torch.Tensor:
        return to_uint8(network(to_float(images_NCHW.to(device)))).cpu().view_as(images_NCHW)

    return restore


class Restorers:
    """Every way that needs the degraded image alone, by name; regressions learn all degradations at
    once."""

    def __init__(self, run: Run, settings: Settings, tokenizer: Tokenizer) -> None:
        self.run, self.settings, self.tokenizer = run, settings, tokenizer
        self.schedule = ScaleSchedule(tuple(run.config["patch_nums"]))
        self.ways: dict[str, Restore] = {"input": lambda images: images}
        self.ways |= {"round_trip": self.round_trip, "median": median, "wiener": wiener}
        self.mlp_weights = 0
        if settings.regressions:
            self._regress()

    def round_trip(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Images through the tokenizer."""
        images_NCHW = to_float(images_NCHW.to(self.run.device))
        tokens_BL = self.tokenizer.encode(images_NCHW, self.schedule)
        return to_uint8(self.tokenizer.decode(tokens_BL, self.schedule)).cpu()

    def _regress(self) -> None:
        settings, seed = self.settings, self.run.config.get("tokenizer_seed") or 0
        split = DegradedSplit(self.run.inputs["data"], "train", settings.strength)
        rows = in_shares(split.images.labels_N, min(settings.train_images, len(split))).tolist()
        names, side = settings.degradations, split.clean(rows[:1]).shape[-1]
        parts = list(product(names, batches(np.array(rows), side)))
        degraded = (to_uint8(split.degraded(name, part)) for name, part in parts)
        x = on_disk(self.run.out, degraded)
        y = on_disk(self.run.out, (to_uint8(split.clean(part)) for _, part in parts))
        network = mlp_of(x, y, settings, seed, self.run)
        self.mlp_weights = sum(weight.numel() for weight in network.parameters())
        self.ways["ridge"] = ridge_of(x, y, settings.ridge)
        self.ways["mlp"] = by_network(network, self.run.device)


# ---------------------------------------------------------------- swapped scales


class Swap:
    """Tokens of clean images with some of degraded ones, decoded and compared. Latents lie on
    disk."""

    def __init__(self, clean: CleanImages, tokenizer: Tokenizer, schedule: ScaleSchedule) -> None:
        self.clean, self.tokenizer, self.schedule = clean, tokenizer, schedule
        self.ladder, self.device = tokenizer.at(schedule), clean.run.device
        self.latent_NChw = self.latent(clean.images_NCHW)
        self.tokens_NL = self.encoded(self.latent_NChw)

    @torch.no_grad()
    def latent(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Latents of uint8 images."""
        parts = (to_float(part.to(self.device)) for part in self.clean.parts(images_NCHW))
        return self.clean.on_disk(map(self.tokenizer.to_latent, parts))

    def encoded(self, latent_NChw: torch.Tensor) -> torch.Tensor:
        """Tokens of latents."""
        tokens = Rows(len(latent_NChw), self.device)
        for part in self.clean.parts(latent_NChw):
            tokens.add(self.ladder.encode(part.to(self.device))[0])
        return tokens.whole()

    @torch.no_grad()
    def decoded(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Images of the tokens of a batch, uint8."""
        return to_uint8(self.tokenizer.decode(tokens_BL, self.schedule)).cpu()

    @torch.no_grad()
    def unquantised(self, latent_BChw: torch.Tensor) -> torch.Tensor:
        """Images of the latents of a batch, uint8."""
        return to_uint8(self.tokenizer.to_image(latent_BChw.to(self.device))).cpu()

    def psnr(self, tokens_of: Callable[..., torch.Tensor], *given_N: torch.Tensor) -> float:
        """Mean PSNR of the images of tokens, which follow from what is given of each batch."""
        batches = zip(self.clean.parts(self.clean.images_NCHW), *map(self.clean.parts, given_N))
        likeness = []
        for clean_BCHW, *given_B in batches:
            images_BCHW = self.decoded(tokens_of(*(part.to(self.device) for part in given_B)))
            likeness.append(psnr(clean_BCHW.numpy(), images_BCHW.numpy()))
        return float(np.concatenate(likeness).mean())

    def parts(self, latent_NChw: torch.Tensor) -> Iterator[tuple[str, int, float]]:
        """Name, scale and PSNR of every swap with the tokens of other latents."""
        other_NL, K = self.encoded(latent_NChw), self.schedule.num_scales

        def with_scales(scales: Collection[int]) -> float:
            swap = partial(swapped, self.schedule, scales=scales)
            return self.psnr(swap, self.tokens_NL, other_NL)

        def again(kept_NL: torch.Tensor, rest_NChw: torch.Tensor, cut: int) -> float:
            return self.psnr(partial(requantised, self.ladder, cut=cut), kept_NL, rest_NChw)

        for k in range(K):
            yield "alone", k, with_scales({k})
        for m in range(K + 1):
            yield "coarse", m, with_scales(range(m))
            yield "fine", m, with_scales(range(m, K))
            yield "again_coarse", m, again(other_NL, self.latent_NChw, m)
            yield "again_fine", m, again(self.tokens_NL, latent_NChw, m)

    def same(self, latent_NChw: torch.Tensor) -> list[float]:
        """Share of tokens that are the clean ones, by scale."""
        same_NL = self.encoded(latent_NChw) == self.tokens_NL
        return [same_NL[:, where].double().mean().item() for where in self.schedule.slices]

    def rolled(self, by: int) -> torch.Tensor:
        """Latents of other images: so many places away."""
        places = torch.arange(len(self.clean)).roll(by, 0)
        return self.clean.on_disk(self.latent_NChw[part] for part in self.clean.parts(places))


def report_swap(swap: Swap, run: Run, kinds: dict[str, torch.Tensor], names: dict) -> None:
    """Rows of every degradation, and of the control: tokens of the image half of them away, since
    neighbours in a folder are of one class."""
    latents = {kind: swap.latent(images_NCHW) for kind, images_NCHW in kinds.items()}
    latents["control"] = swap.rolled(max(1, len(swap.clean) // 2))
    middle, weighs = swap.schedule.num_scales // 2, {}
    for kind, latent_N in latents.items():
        psnr_of: dict[tuple[str, int], float] = {}
        for part, scale, value in swap.parts(latent_N):
            psnr_of[part, scale] = value
            run.add(f"swap_{part}_{kind}", value, "dB", scale=scale, **names)
        # the ceiling stands in both losses: what the coarse half costs more than the fine one
        weighs[kind] = psnr_of["fine", middle] - psnr_of["coarse", middle]
        if kind != "control":
            for k, share in enumerate(swap.same(latent_N)):
                run.add(f"tokens_same_{kind}", share, "share", scale=k, **names)
    for kind in kinds:
        run.add(f"swap_excess_{kind}", weighs[kind] - weighs["control"], "dB", **names)


def work(run: Run) -> None:
    settings: Settings = run.settings("restoration_baselines", Settings)
    tokenizer = open_tokenizer(run)
    ways = Restorers(run, settings, tokenizer)
    clean = CleanImages(run, settings.strength, settings.num_images)
    names: dict[str, Any] = {**tokenizer_identity(run), "model": ways.schedule.name}
    kinds = {name: clean.degraded(name) for name in settings.degradations}
    strip = {"clean": clean.images_NCHW[:SHOWN].numpy().copy()}
    swap = Swap(clean, tokenizer, ways.schedule)
    for way, restore in ways.ways.items():
        scores = {}
        for kind, images_NCHW in kinds.items():
            restored_NCHW = clean.on_disk(map(restore, clean.parts(images_NCHW)))
            scores[kind] = clean.scores(restored_NCHW)
            strip[f"{way}_{kind}"] = restored_NCHW[:SHOWN].numpy().copy()
        clean.report(way, scores, names)
        words = (f"{kind} {of_kind['psnr'][0]:.2f} dB" for kind, of_kind in scores.items())
        run.say(f"{way}: {', '.join(words)}")
    tops = {
        "ceiling": map(swap.decoded, clean.parts(swap.tokens_NL)),
        "latent": map(swap.unquantised, clean.parts(swap.latent_NChw)),
    }
    for way, parts in tops.items():
        images_NCHW = clean.on_disk(parts)
        clean.report(way, dict.fromkeys(kinds, clean.scores(images_NCHW)), names)
        strip[way] = images_NCHW[:SHOWN].numpy().copy()
    if ways.mlp_weights:
        run.add("mlp_parameters", ways.mlp_weights, "weights", **names)
    if settings.swap:
        report_swap(swap, run, kinds, {**names, "num_images": len(clean)})
    save_npz(run.out / "strip.npz", **strip)
