"""Verb: how near samples come to the images that their training saw, along the training and of the
kept weights.

The images that were seen are the unique images of the training, the whole split where it names no
number. With a step along the training, without one of the kept weights:

`fid_held_out_<extractor>` is FID (arXiv 1706.08500) against the held-out split, as every score is
whose study names no `features.reference`; a file of one is not read here. `fid_seen_<extractor>`
is the same samples against the images that were seen, `fid_seen_of_held_out_<extractor>` what
held-out images score against these: fresh images, as many as the held-out split has. FID falls with
the number of images on either side, so compare within one number of images.

`nearest_rate`: share of samples whose nearest image that was seen is as near as that of the nearest
`quantile` of held-out images, or nearer (three samples as in arXiv 2004.05675). Fresh samples have
about `quantile`, copies 1, poor ones that lie far from all images less. Distances are of pixels, of
larger images reduced ones. All images are those that the tokenizer makes: samples are, and the blur
of its decoder must not count as near.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srdd.config import ModelConfig, SamplerConfig
from srdd.schedule import ScaleSchedule

from ...pipeline.artefacts import checkpoints, model_identity, open_split, open_tokens
from ...pipeline.datasets import SplitImages
from ...pipeline.evaluators import open_one
from ...pipeline.features import batches
from ...pipeline.labels import asked_labels, first_sample
from ...pipeline.metrics import Scored, fid, fid_between
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.reference import Chosen, Reference
from ...pipeline.sampling import made_ready, sample_into, smaller
from ...pipeline.scratch import bytes_on_disk, on_disk
from ...pipeline.set_distances import nearest_squared, pixel_rows
from ...pipeline.tokenizing import BATCH, reconstruct
from ...pipeline.unique_images import learnt_rows
from ...runtime.progress import Progress
from ...runtime.verb import Run
from ...study.settings import EvaluationConfig, TrainingConfig
from .plan import Settings, spread_steps

INPUTS = ("data", "tokenizer", "tokens", "train", "features")
ROUNDING = 1e-10  # of a squared distance; one grey level of one pixel is 6e-5


def weights_of(folder: Path, ratio: float | None) -> list[tuple[int | None, Path]]:
    """The kept weights of a training, and some along it, each with its step."""
    kept = checkpoints(folder, False)
    if ratio is None:
        return kept
    saved = {step: path for step, path in checkpoints(folder, True) if step is not None}
    return [*kept, *((step, saved[step]) for step in spread_steps(list(saved), ratio))]


class Drawing:
    """The images that every set of weights of a training is asked for."""

    def __init__(self, run: Run, sets: int) -> None:
        self.run = run
        self.evaluation: EvaluationConfig = run.settings("evaluation", EvaluationConfig)
        self.sampler: SamplerConfig = run.settings("sampler", SamplerConfig)
        self.tokenizer = open_tokenizer(run)
        self.first = first_sample(self.evaluation, run.config["train_seed"])
        self.batch, N = self.evaluation.batch_size, self.evaluation.num_images
        classes = run.settings("model", ModelConfig).num_classes
        seeds = range(self.first, self.first + N)
        self.labels_N = asked_labels(run.inputs["data"], classes, seeds, self.evaluation.labels)
        self.progress = Progress(run.run_id, sets * N, unit="image")

    @property
    def names(self) -> dict[str, Any]:
        """The columns that name a number of these images."""
        N = len(self.labels_N)
        seeds = {"seed_first": self.first, "seed_last": self.first + N - 1}
        return {**model_identity(self.run), **seeds, "num_images": N}

    def images(self, weights: Path) -> np.ndarray:
        """Images of some weights, uint8 (N, C, S, S), on disk."""
        size, N = self.tokenizer.config, len(self.labels_N)
        shape = N, size.in_channels, size.image_size, size.image_size
        images_NCHW = bytes_on_disk(self.run.out, shape)
        model = made_ready(open_model(self.run, weights), self.evaluation, N)
        how = self.labels_N, self.first, self.batch, self.progress
        _, fitted = sample_into(images_NCHW, model, self.tokenizer, self.sampler, *how)
        self.batch = smaller(self.run, self.batch, fitted)
        return images_NCHW

    def decoded(self, split: str, rows_N: np.ndarray) -> Iterator[np.ndarray]:
        """Some images of a split as the tokenizer makes them, uint8, batch by batch."""
        tokens_NL = open_tokens(self.run.inputs["tokens"], split)
        schedule: ScaleSchedule = self.run.settings("model", ModelConfig).schedule
        for i in range(0, len(rows_N), BATCH):
            part_BL = tokens_NL[rows_N[i : i + BATCH]]
            yield reconstruct(self.tokenizer, schedule, part_BL, self.run.device)


def near_shares(
    sets: list[torch.Tensor], nearest_held_H: torch.Tensor, quantile: float
) -> list[float]:
    """Share of each set of squared distances that is not above a quantile of those of held-out
    images. sets: distances of a sample to its nearest training image, (N,) each.

    Distances that differ by rounding are one: where so many held-out images equal an image that was
    seen that the quantile is 0, copies are what equals one too.
    """
    threshold = float(np.quantile(nearest_held_H.numpy(), quantile)) + ROUNDING
    return [(nearest_N <= threshold).double().mean().item() for nearest_N in sets]


def work(run: Run) -> None:
    settings: Settings = run.settings("memorisation", Settings)
    weights = weights_of(run.inputs["train"], settings.ratio)
    drawing = Drawing(run, len(weights))
    train, held = (open_split(run.inputs["data"], split) for split in ("train", "test"))
    seen_U = learnt_rows(train, run.settings("training", TrainingConfig).unique_images)
    drawn = report_fid(run, drawing, weights, (Chosen(train, seen_U), held))
    drawing.progress.close()
    held_parts = drawing.decoded("test", np.arange(len(held)))
    *nearest, nearest_held_H = distances(drawn, held_parts, drawing.decoded("train", seen_U), run)
    shares = near_shares(nearest, nearest_held_H, settings.quantile)
    for (step, _), share in zip(weights, shares):
        run.add("nearest_rate", share, "share", step=step, **drawing.names)
    run.add("seen_images", len(seen_U), "images", **model_identity(run))
    run.say(f"nearest_rate {shares[0]:.3f} of the kept weights, {len(seen_U)} images seen")


def distances(
    drawn: list[np.ndarray],
    held_parts: Iterable[np.ndarray],
    seen_parts: Iterable[np.ndarray],
    run: Run,
) -> tuple[torch.Tensor, ...]:
    """Squared distance to the nearest image that was seen, of each set of drawn images and of the
    held-out ones; their pixels lie on disk while the images that were seen go by, once."""
    drawn_parts = (part.numpy() for images in drawn for part in batches(images, BATCH))
    rows = on_disk(run.out, (pixel_rows(part) for part in chain(drawn_parts, held_parts)))
    counts = [len(images) for images in drawn]
    counts.append(len(rows) - sum(counts))
    of_seen = (pixel_rows(part) for part in seen_parts)
    return nearest_squared(rows, of_seen).split(counts)


def report_fid(
    run: Run,
    drawing: Drawing,
    weights: list[tuple[int | None, Path]],
    real: tuple[Chosen, SplitImages],
) -> list[np.ndarray]:
    """FID of each set of weights against held-out images and against those that were seen; the
    images of each. real: images that were seen, held-out ones."""
    extractor, reference = open_one(run)
    if extractor.config.reference is not None:  # of the study's scores; its images are others
        reference = Reference(real[1])
    name, drawn = extractor.config.name, []
    seen_UD, held_HD = (extractor.features(images)[0] for images in real)
    for step, path in weights:
        images_NCHW = drawing.images(path)
        scored = Scored(images_NCHW, None, reference, extractor)
        where = {"step": step, **drawing.names}
        run.add(f"fid_held_out_{name}", fid(scored), "score", **where)
        run.add(f"fid_seen_{name}", fid_between(scored.layers[0], seen_UD), "score", **where)
        drawn.append(images_NCHW)
    of_held = {**model_identity(run), "num_images": len(held_HD)}
    run.add(f"fid_seen_of_held_out_{name}", fid_between(held_HD, seen_UD), "score", **of_held)
    return drawn
