"""Verb: restore held-out images without a scale transformer, and swap scales of their tokens.

`<score>_<way>_<degradation>`, and without a degradation the mean over all; scores: psnr, ssim,
class_agreement, feature_distance. Ways: `input` as it is, `round_trip` through the tokenizer,
`median` and `wiener` of 3 x 3 pixels, `ridge`, `mlp` and `unet`, one regression for all
degradations.
`ceiling` and `latent` know the clean image: its own tokens decoded, and its latent unquantised.

`swap_<part>_<degradation>`, scale m: PSNR of clean tokens with degraded ones below m (coarse), from
m on (fine), at m (alone); `swap_<part>_control` with tokens of another image; `again` before the
part: what follows the cut is quantised again. `tokens_same_<degradation>`, scale k: share of
degraded images' tokens that are the clean ones.

Writes strip.npz: a few images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
# degraded and clean images of a step, uint8, given the generator that draws them
Draw = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]

# ---------------------------------------------------------------- filters and regressions


def median(images_NCHW: torch.Tensor) -> torch.Tensor:
    """The median of 3 x 3 pixels."""
    filtered = ndimage.median_filter(images_NCHW.numpy(), size=(1, 1, 3, 3), mode="nearest")
    return torch.from_numpy(filtered)


def wiener(images_NCHW: torch.Tensor) -> torch.Tensor:
    """The adaptive Wiener filter of 3 x 3 pixels (Lim 1990), of each channel, its noise the mean of
    the windows' variances; the edge is repeated, where scipy.signal takes black beyond it."""
    window = partial(ndimage.uniform_filter, size=(1, 1, 3, 3), mode="nearest")
    planes_NCHW = images_NCHW.double().numpy()
    mean_NCHW = window(planes_NCHW)
    variance_NCHW = (window(planes_NCHW**2) - mean_NCHW**2).clip(0)
    noise_NC11 = variance_NCHW.mean((2, 3), keepdims=True)
    # x = m + max(0, v - n) / v (x - m); a window of less variance than the noise is its mean
    above_NCHW = (variance_NCHW - noise_NC11).clip(0)
    gain_NCHW = above_NCHW / np.maximum(variance_NCHW, np.finfo(float).tiny)
    filtered_NCHW = mean_NCHW + gain_NCHW * (planes_NCHW - mean_NCHW)
    return torch.from_numpy(filtered_NCHW.clip(0, 255).round()).byte()


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


def fitted(
    network: nn.Module,
    draw: Draw,
    source: torch.Generator,
    settings: Settings,
    device: torch.device,
) -> nn.Module:
    """A network from degraded to clean pixels by AdamW on the L1 error, its rate falling to 0."""
    network = network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * (1 - step / settings.steps)
        degraded_BCHW, clean_BCHW = draw(source)
        restored_BD = network(to_float(degraded_BCHW.to(device))).flatten(1)
        clean_BD = to_float(clean_BCHW.to(device)).flatten(1)
        optimizer.zero_grad()
        (restored_BD - clean_BD).abs().mean().backward()
        optimizer.step()
    return network.eval()


def mlp(pixels: int, settings: Settings, source: torch.Generator) -> nn.Module:
    """An MLP on all pixels at once."""
    sides = [pixels, *[settings.units] * settings.layers, pixels]
    layers: list[nn.Module] = [nn.Flatten()]
    for wide, narrow in zip(sides, sides[1:]):
        linear = nn.Linear(wide, narrow)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu", generator=source)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.GELU()]
    return nn.Sequential(*layers[:-1])


class UNet(nn.Module):
    """Three levels of 3 x 3 convolutions, halved and doubled sides, skips between equal ones; what
    comes out is added to the image, at first nothing (U-Net, arXiv 1505.04597, without norms)."""

    def __init__(self, channels: int, width: int, source: torch.Generator) -> None:
        super().__init__()
        wide = (width, 2 * width, 4 * width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(n, 2 * n, 3, 2, 1) for n in wide[:2])
        self.deep = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in wide)
        self.up = nn.ModuleList(nn.Conv2d(3 * n, n, 3, padding=1) for n in wide[:2])
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=source)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.last.weight)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Restored images of degraded ones in [-1, 1]. Shape is kept."""
        x = F.gelu(self.deep[0](F.gelu(self.first(images_BCHW))))
        skips = []
        for down, deep in zip(self.down, self.deep[1:]):
            skips.append(x)
            x = F.gelu(deep(F.gelu(down(x))))
        for up, skip in zip(reversed(self.up), reversed(skips)):
            x = F.interpolate(x, skip.shape[2:], mode="nearest")
            x = F.gelu(up(torch.cat((x, skip), 1)))
        restored_BCHW: torch.Tensor = images_BCHW + self.last(x)
        return restored_BCHW


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
        self.weights: dict[str, int] = {}
        if settings.regressions or settings.unet:
            self.split = DegradedSplit.of(run, "train", settings.strength)
            most = min(settings.train_images, len(self.split))
            self.rows = in_shares(self.split.images.labels_N, most).tolist()
        if settings.regressions:
            self._regress()
        if settings.unet:
            channels = self.split.clean(self.rows[:1]).shape[1]
            self._fit("unet", partial(UNet, channels, settings.unet), self._drawn)

    def round_trip(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Images through the tokenizer."""
        images_NCHW = to_float(images_NCHW.to(self.run.device))
        tokens_BL = self.tokenizer.encode(images_NCHW, self.schedule)
        return to_uint8(self.tokenizer.decode(tokens_BL, self.schedule)).cpu()

    def _fit(self, name: str, build: Callable[[torch.Generator], nn.Module], draw: Draw) -> None:
        """A network of that name, whose weights and images follow from the tokenizer's seed."""
        source = generator(f"restoration {name}", self.run.config.get("tokenizer_seed") or 0)
        network = fitted(build(source), draw, source, self.settings, self.run.device)
        self.weights[name] = sum(weight.numel() for weight in network.parameters())
        self.ways[name] = by_network(network, self.run.device)

    def _regress(self) -> None:
        """Regressions of all pixels: every degraded training image lies on disk."""
        settings, names = self.settings, self.settings.degradations
        side = self.split.clean(self.rows[:1]).shape[-1]
        parts = list(product(names, batches(np.array(self.rows), side)))
        degraded = (to_uint8(self.split.degraded(name, part)) for name, part in parts)
        x = on_disk(self.run.out, degraded)
        y = on_disk(self.run.out, (to_uint8(self.split.clean(part)) for _, part in parts))

        def draw(source: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            rows_B = torch.randint(len(x), (settings.batch_size,), generator=source)
            return x[rows_B], y[rows_B]

        self.ways["ridge"] = ridge_of(x, y, settings.ridge)
        self._fit("mlp", partial(mlp, x[0].numel(), settings), draw)

    def _drawn(self, source: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The same images as `_regress` has them, of a step alone, degraded when they are read."""
        names, count = self.settings.degradations, len(self.rows)
        shape = (self.settings.batch_size,)
        places = torch.randint(count * len(names), shape, generator=source).tolist()
        rows = [self.rows[place % count] for place in places]
        mixed = self.split.mixed(names, [place // count for place in places], rows)
        return to_uint8(mixed), to_uint8(self.split.clean(rows))


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
        likeness = Rows(len(self.clean))
        for clean_BCHW, *given_B in batches:
            images_BCHW = self.decoded(tokens_of(*(part.to(self.device) for part in given_B)))
            likeness.add(torch.from_numpy(psnr(clean_BCHW.numpy(), images_BCHW.numpy())))
        return float(likeness.whole().numpy().mean())

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
    for kind, latent_N in latents.items():
        for part, scale, value in swap.parts(latent_N):
            run.add(f"swap_{part}_{kind}", value, "dB", scale=scale, **names)
        if kind != "control":
            for k, share in enumerate(swap.same(latent_N)):
                run.add(f"tokens_same_{kind}", share, "share", scale=k, **names)


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
    for way, count in ways.weights.items():
        run.add(f"{way}_parameters", count, "weights", **names)
    if settings.swap:
        report_swap(swap, run, kinds, {**names, "num_images": len(clean)})
    save_npz(run.out / "strip.npz", **strip)
