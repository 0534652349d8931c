"""What a sampler asks of the network, watched: calls are counted, and logits that are not finite
are refused.

B batch, L tokens of all scales, l of one scale, V codebook, C latent channels, D width, H heads, h
w latent grid
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import torch

from .config import ModelConfig, SamplerConfig
from .contracts import fits, shape_of
from .schedule import ScaleSchedule


@dataclass
class Calls:
    """How often samplers (VAR, arXiv 2404.02905; SRDD, 2509.22636; one's own) asked for the logits
    of each scale, in so many batches.

    calls: times a batch, or a part of it, was asked for; rows: images in them. A guided call, which
    runs the network for two halves, counts once here.
    """

    batches: int = 0
    images: int = 0
    calls: dict[int, int] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)

    def count(self, k: int, rows: int) -> None:
        """One call at scale k, for so many images."""
        self.calls[k] = self.calls.get(k, 0) + 1
        self.rows[k] = self.rows.get(k, 0) + rows

    def add(self, other: Calls) -> None:
        """Count what another has counted too."""
        self.batches, self.images = self.batches + other.batches, self.images + other.images
        for mine, more in ((self.calls, other.calls), (self.rows, other.rows)):
            for k, number in more.items():
                mine[k] = mine.get(k, 0) + number

    def per_image(self, num_scales: int) -> tuple[Fraction, ...]:
        """Calls of one image at every scale, on average, exact."""
        return tuple(Fraction(self.rows.get(k, 0), self.images) for k in range(num_scales))

    def table(self, num_scales: int) -> torch.Tensor:
        """All numbers as int64 of shape (2, K + 1), which processes can sum: batches and calls,
        images and rows."""
        rows = [[self.batches, *(self.calls.get(k, 0) for k in range(num_scales))]]
        rows.append([self.images, *(self.rows.get(k, 0) for k in range(num_scales))])
        return torch.tensor(rows)

    @staticmethod
    def of_table(table: torch.Tensor) -> Calls:
        """What `table` was made of."""
        (batches, *calls), (images, *rows) = table.long().tolist()
        return Calls(batches, images, dict(enumerate(calls)), dict(enumerate(rows)))


class Kept(NamedTuple):
    """What is kept between scales for all images of a batch at once (keys of VAR, arXiv
    2404.02905), and the setting that keeps none."""

    what: str
    without: str


def kept_for_all(model: ModelConfig, sampler: SamplerConfig, history: int | None) -> Kept | None:
    """What an image asked for alone would get of others (VAR, arXiv 2404.02905; SSG, 2602.05534);
    None where each may be asked for alone. history: that the network goes by."""
    if history != 0:
        return Kept("the network keeps keys of earlier scales", "history 0")
    if model.recalls:
        return Kept("a history vector keeps what earlier scales read", "history_vector 0")
    if model.condition != "none":
        return Kept("the network is told degraded images", "condition none")
    if sampler.detail_scale > 0 and sampler.detail_prior != "none":
        return Kept("detail guidance keeps the logits of the scale before", "detail_scale 0")
    return None


def _over(*_: object) -> torch.Tensor:
    raise RuntimeError("this batch is drawn; begin another with a denoiser of its own")


class Watched:
    """A `denoise` for one batch that says what is wrong with a call or its logits, and counts it
    (VAR, arXiv 2404.02905, section 3.2).

    On a CPU logits that are not finite are refused at once; on a GPU, which nobody should wait for
    between scales, by `check`. temperature: what the sampler will divide logits by. kept: what is
    kept for so many images, of which none may be asked for alone; None where each may.
    """

    def __init__(
        self,
        denoise: Callable[..., torch.Tensor],
        schedule: ScaleSchedule,
        channels: int,
        who: str,
        temperature: float = 1.0,
        kept: Kept | None = None,
        images: int = 0,
    ) -> None:
        self.denoise, self.schedule, self.channels, self.who = denoise, schedule, channels, who
        self.temperature, self.seen = temperature, Calls()
        self.kept, self.images = kept, images
        self.labels_B: torch.Tensor | None = None
        # how far back scales look; at 0 a sampler may leave out a call that would draw nothing
        self.history: int | None = None
        # of a regression, how wide the Gaussian of each scale and channel is
        self.sigma_KC: torch.Tensor | None = None
        self.looks: list[tuple[int, torch.Tensor]] = []
        self.looked: torch.Tensor | None = None

    def __call__(
        self,
        inputs_BlC: torch.Tensor,
        k: int,
        labels_B: torch.Tensor,
        own_Bl: torch.Tensor | None = None,
    ) -> torch.Tensor:
        own = () if own_Bl is None else (own_Bl,)
        k = self._check_call(inputs_BlC, k, labels_B, own)
        if self.kept is not None:
            self._check_memory(k, labels_B, self.kept)
        logits_BlV = self.denoise(inputs_BlC, k, labels_B, *own)
        self.seen.count(k, len(inputs_BlC))
        self.looks.append((k, self._look(logits_BlV)))
        if logits_BlV.device.type == "cpu":
            self._refuse(k, self.looks[-1][1].item())
        return logits_BlV

    def _look(self, logits_BlV: torch.Tensor) -> torch.Tensor:
        """A number that is finite where every logit is, also over the temperature."""
        double = torch.float64 if logits_BlV.dtype == torch.float64 else torch.float32
        if self.temperature >= 1.0:
            return logits_BlV.sum(dtype=double)  # half of the time of a maximum
        low, high = logits_BlV.aminmax()
        # a division may be a product with 1 / temperature
        return torch.maximum(high, -low).to(double).clamp(min=1.0) / self.temperature

    def _check_call(
        self,
        inputs_BlC: torch.Tensor,
        k: int,
        labels_B: torch.Tensor,
        own: tuple[torch.Tensor, ...],
    ) -> int:
        """Refuses a call that fits no scale; gives k as a whole number of Python."""
        K, B = self.schedule.num_scales, len(labels_B)
        asked = k
        try:
            k = -1 if isinstance(k, bool) else operator.index(k)
        except TypeError:
            k = -1
        if not 0 <= k < K:
            raise ValueError(
                f"{self.who}: asks for scale {asked!r}; the schedule has scales 0 ... {K - 1}"
            )
        shape = (B, self.schedule.lengths[k], self.channels)
        if not isinstance(inputs_BlC, torch.Tensor) or inputs_BlC.shape != shape:
            raise ValueError(
                f"{self.who}: asks scale {k} at inputs {shape_of(inputs_BlC)}; must be of shape "
                f"{shape}"
            )
        for own_Bl in own:
            if not fits(own_Bl, torch.int64, shape[:2]):
                raise ValueError(
                    f"{self.who}: reveals tokens {shape_of(own_Bl)} at scale {k}; must be int64 "
                    f"of {shape[:2]}"
                )
        return k

    def _check_memory(self, k: int, labels_B: torch.Tensor, kept: Kept) -> None:
        """Refuses what would mix images: what is kept is that of the last call at each scale."""
        if len(labels_B) != self.images:
            raise ValueError(
                f"{self.who}: asks scale {k} for {len(labels_B)} of {self.images} images; "
                f"{kept.what} for all of them at once, so ask for all ({kept.without} keeps none)"
            )
        if self.labels_B is None:
            self.labels_B = labels_B
        if labels_B is not self.labels_B and not torch.equal(labels_B, self.labels_B):
            raise ValueError(
                f"{self.who}: asks scale {k} with other labels than before; {kept.what}, of the "
                "last call at each scale, so that both would be mixed: set cfg_scale for guidance, "
                f"or give {kept.without}, which keeps none"
            )

    def _refuse(self, k: int, look: float) -> None:
        if not math.isfinite(look):
            if look > 0 and self.temperature < 1.0:
                raise ValueError(
                    f"temperature {self.temperature}: makes logits of scale {k} infinite; raise "
                    "it, or load or train weights of sound size"
                )
            raise ValueError(
                f"logits of scale {k} are not finite numbers: weights, codes or inputs hold NaN or "
                "inf, or are too large for their precision; load or train them again"
            )

    def gather(self) -> None:
        """After the sample: put together what `check` reads, on the device, and let go of the
        network, which a recorded sample would keep alive."""
        self.denoise = _over
        if self.looks:
            self.looked = torch.stack([look for _, look in self.looks])

    def check(self) -> None:
        """After `gather`: raises ValueError for logits that are not finite, or that the temperature
        makes infinite. A GPU is waited for here, once."""
        if self.looked is not None:
            for (k, _), look in zip(self.looks, self.looked.tolist()):
                self._refuse(k, look)
