"""Trainings that meet errors and learn to repair them: wrong tokens of early scales (Infinity,
arXiv 2412.04431), or the model's own (SAR, 2512.06421).

Both are trainings as `train` has them but for what a step reads and predicts; what selects the kept
weights, and what is measured, reads clean tokens.

B images of a batch, L tokens of all scales, l of one scale
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from srdd.corruption import correct, wrong_codes
from srdd.draw import distribution
from srdd.loss import linear_cross_entropy
from srdd.noise import generator

from ..runtime.verb import Run
from .artefacts import open_split
from .datasets import to_float
from .networks import open_tokenizer
from .trainer import Trainer
from .training import Batch, ImageBatch, batch_indices


@dataclass(frozen=True)
class WrongBatch(ImageBatch):
    """A batch with codes that take the place of its tokens, -1 where none does."""

    wrong_BL: torch.Tensor


@dataclass(frozen=True)
class RolloutBatch(Batch):
    """A batch with the scale whose own tokens the second pass reads, and the numbers that they are
    drawn with; images_BCHW: None where nothing is made of them."""

    scale: int
    uniform_Bl: torch.Tensor
    images_BCHW: torch.Tensor | None


class Correcting(Trainer):
    """A training that may encode the images of a batch anew."""

    def __init__(self, run: Run) -> None:
        self.tokenizer = open_tokenizer(run)
        super().__init__(run)
        self.correction = self.config.correction
        reads = self.correction.reads_images
        self.images = open_split(run.inputs["data"], "train") if reads else None

    def images_of(self, step: int) -> torch.Tensor | None:
        """The images of a step, bytes (VAR, arXiv 2404.02905, section 4); None where none is
        read."""
        if self.images is None:
            return None
        size, count = self.config.batch_size, len(self.labels["train"])
        return self.images.read(batch_indices(count, size, self.seed, step))

    def latent(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """What the frozen tokenizer makes of images (VAR, arXiv 2404.02905, section 3.2)."""
        with torch.autocast(self.run.device.type, enabled=False):
            return self.tokenizer.to_latent(to_float(images_BCHW))

    @torch.no_grad()
    def corrected(
        self, images_BCHW: torch.Tensor, wrong_BL: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`correct` of images (Infinity, arXiv 2412.04431, section 3.3)."""
        return correct(self.ladder, self.latent(images_BCHW), wrong_BL)


class Requantising(Correcting):
    """Some tokens of early scales are replaced, and every scale predicts the true code of what is
    then left."""

    def batch(self, step: int) -> WrongBatch:
        """What is learnt from at a step, with the errors that are met (Infinity, arXiv
        2412.04431)."""
        images_BCHW = self.images_of(step)
        assert images_BCHW is not None
        drawn, correction = super().batch(step), self.correction
        wrong_BL = wrong_codes(
            self.model_config.schedule,
            len(drawn.labels_B),
            correction.noise,
            correction.scales,
            self.model_config.codebook_size,
            generator("wrong codes", self.seed, step),
        )
        return WrongBatch(**vars(drawn), images_BCHW=images_BCHW, wrong_BL=wrong_BL)

    def loss(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The cross-entropy of the corrected tokens, twice: what is minimised is what is reported
        (Infinity, arXiv 2412.04431, section 3.3)."""
        assert isinstance(part, WrongBatch)
        seen_BL, tokens_BL = self.corrected(part.images_BCHW, part.wrong_BL)
        return super().loss(replace(part, seen_BL=seen_BL, tokens_BL=tokens_BL))


class RollingOut(Correcting):
    """After a pass over true tokens a second one reads the model's own of one scale, and predicts
    the scale after it."""

    def batch(self, step: int) -> RolloutBatch:
        """What is learnt from at a step, and which scale is rolled out: each but the last as often
        (ours; the public code of SAR, arXiv 2512.06421, always takes the last but one)."""
        drawn, schedule = super().batch(step), self.model_config.schedule
        source = generator("rollout", self.seed, step)
        scale = int(torch.randint(schedule.num_scales - 1, (), generator=source))
        shape = len(drawn.labels_B), schedule.lengths[scale]
        uniform_Bl = torch.rand(shape, generator=source, dtype=torch.float64)
        images_BCHW = self.images_of(step)
        return RolloutBatch(
            **vars(drawn), scale=scale, uniform_Bl=uniform_Bl, images_BCHW=images_BCHW
        )

    def loss(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The cross-entropy of a pass over true tokens, plus that of a scale that reads the model's
        own (SAR, arXiv 2512.06421); the first alone is reported. Both as shares of the batch's
        means."""
        assert isinstance(part, RolloutBatch)
        given = part.labels_B, part.paths_E2B, None, self.config.checkpointing
        hidden_BLD, head = self.hidden(self.inputs(part), *given), self.model.head
        answered = part.tokens_BL, part.share_BL, part.counted
        loss = linear_cross_entropy(hidden_BLD, head, *answered)
        with torch.no_grad():
            rolled_BL = self.rolled(part, hidden_BLD)
            target_Bl = self.target(part, hidden_BLD, rolled_BL)
        again_BLD = self.hidden(self.ladder.teacher_forced_inputs(rolled_BL), *given)
        where = self.model_config.schedule.slices[part.scale + 1]
        total = float(part.images * target_Bl.shape[1])
        again = linear_cross_entropy(again_BLD[:, where], head, target_Bl, total=total)
        return loss + self.correction.weight * again, loss

    def rolled(self, part: RolloutBatch, hidden_BLD: torch.Tensor) -> torch.Tensor:
        """The true tokens with the model's own at one scale (SAR, arXiv 2512.06421)."""
        where = self.model_config.schedule.slices[part.scale]
        logits_BlV = self.model.head(hidden_BLD[:, where])
        own_Bl = logits_BlV.argmax(-1)
        if self.correction.draw == "drawn":
            own_Bl, _ = distribution(logits_BlV).draw(part.uniform_Bl)
        rolled_BL = part.tokens_BL.clone()
        rolled_BL[:, where] = own_Bl
        return rolled_BL

    def target(
        self, part: RolloutBatch, hidden_BLD: torch.Tensor, rolled_BL: torch.Tensor
    ) -> torch.Tensor:
        """What the scale after the rolled-out one is to predict (SAR, arXiv 2512.06421: the first
        pass's likeliest)."""
        slices = self.model_config.schedule.slices
        where = slices[part.scale + 1]
        if self.correction.target == "teacher":
            likeliest_Bl: torch.Tensor = self.model.head(hidden_BLD[:, where]).argmax(-1)
            return likeliest_Bl
        if self.correction.target == "clean":
            return part.tokens_BL[:, where]
        assert part.images_BCHW is not None
        wrong_BL = torch.full_like(rolled_BL, -1)
        wrong_BL[:, slices[part.scale]] = rolled_BL[:, slices[part.scale]]
        return self.corrected(part.images_BCHW, wrong_BL)[1][:, where]


def corrects(name: str) -> type[Trainer] | None:
    """The training of a correction (Infinity, arXiv 2412.04431; SAR, 2512.06421); None for none."""
    return {"requantise": Requantising, "rollout": RollingOut}.get(name)
