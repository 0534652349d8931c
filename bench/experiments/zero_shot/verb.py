"""Verb: in-painting, out-painting and super-resolution of held-out images, none of them trained
for.

A task keeps some true tokens of an image and lets the variant's own sampler draw the others; image
i has sample seed i. What is scored is the decoded image as it is: known pixels are not pasted over
it, so that seams count. The true tokens of a task come from the whole image, as in VAR's protocol
(arXiv 2404.02905): the coarse ones know a little of what is hidden.

Beside every task, in rows with a prefix: `nearest_fill_` and `bicubic_`, baselines that know the
known pixels alone, and `ceiling_`, the image from all its true tokens. Writes strip.npz: a few
images through every task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from srdd.config import SamplerConfig
from srdd.model import ScaleTransformer
from srdd.sampling import Known, generate
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer
from srdd.zero_shot import box_mask, known_in_box, known_scales

from ...pipeline.artefacts import model_identity, open_split, open_tokens, save_npz
from ...pipeline.at_once import at_once
from ...pipeline.datasets import to_uint8
from ...pipeline.evaluators import Evaluator, open_evaluators, scores_of
from ...pipeline.labels import first_sample, in_shares
from ...pipeline.likeness import psnr, ssim
from ...pipeline.metrics import MIN_IMAGES, Extractor
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.reference import Reference
from ...pipeline.sampling import made_ready
from ...pipeline.scratch import on_disk
from ...pipeline.tokenizing import reconstruct
from ...runtime.progress import track
from ...runtime.verb import Run
from ...study.errors import ConfigError
from ...study.settings import EvaluationConfig
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens", "train", "features")

STRIP, STRIP_SCALES = 6, 4
BATCH = 256  # small images that go through a network together

# ---------------------------------------------------------------- baselines


def nearest_fill(images_NCHW: np.ndarray, unknown_hw: np.ndarray) -> np.ndarray:
    """Give every unknown pixel the mean of the known pixels at its smallest Euclidean distance,
    rounded."""
    known_2p = np.argwhere(~unknown_hw).T
    squared_hw = np.rint(ndimage.distance_transform_edt(unknown_hw) ** 2).astype(int)
    filled = images_NCHW.copy()
    for row, column in np.argwhere(unknown_hw):
        away_p = (known_2p[0] - row) ** 2 + (known_2p[1] - column) ** 2
        rows, columns = known_2p[:, away_p == squared_hw[row, column]]
        filled[:, :, row, column] = np.rint(images_NCHW[:, :, rows, columns].mean(-1))
    return filled


def reduced_side(schedule: ScaleSchedule, m: int, side: int) -> int:
    """Side of the small image that stands for the first m scales: as many pixels for a token as
    the finest grid has."""
    return max(1, round(side * schedule.patch_nums[m - 1] / schedule.latent_size))


def area_reduce(images_NCHW: np.ndarray, side: int) -> np.ndarray:
    """Area-reduced images, uint8."""
    small = F.interpolate(torch.from_numpy(images_NCHW).float(), size=(side, side), mode="area")
    return small.round_().to(torch.uint8).numpy()


def enlarge(images_NCHW: np.ndarray, side: int, mode: str) -> np.ndarray:
    """Images enlarged, bicubic or nearest, uint8."""
    more = {} if mode == "nearest" else {"align_corners": False}
    large = F.interpolate(
        torch.from_numpy(images_NCHW).float(), size=(side, side), mode=mode, **more
    )
    return large.clamp_(0, 255).round_().to(torch.uint8).numpy()


# ---------------------------------------------------------------- tasks


@dataclass(frozen=True)
class Task:
    """What is known of the images: their tokens, and for the baseline their pixels.

    name: inpaint, outpaint or super_resolution; scale: m of super-resolution; region_hw: the
    unknown pixels, None where all are; shown_NCHW: what is known of the first images as an image;
    baseline: its name; baseline_NCHW: what it makes of what is known of all, on disk.
    """

    name: str
    scale: int | None
    known: Known
    region_hw: np.ndarray | None
    shown_NCHW: np.ndarray
    baseline: str
    baseline_NCHW: np.ndarray

    @property
    def key(self) -> str:
        """The task in names of images, such as super_resolution_2."""
        return self.name if self.scale is None else f"{self.name}_{self.scale}"


def each_on_disk(
    folder: Path, images_NCHW: np.ndarray, make: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """What is made of images, some at a time, on disk."""
    size = at_once(BATCH, images_NCHW.shape[-1])
    starts = range(0, len(images_NCHW), size)
    parts = (torch.from_numpy(make(images_NCHW[i : i + size])) for i in starts)
    return on_disk(folder, parts).numpy()


def tasks_of(
    config: Settings,
    schedule: ScaleSchedule,
    tokens_NL: torch.Tensor,
    images_NCHW: np.ndarray,
    folder: Path,
) -> Iterator[Task]:
    """The tasks that are asked for; folder: where their images lie. Raises ConfigError for a box
    without a token of the finest grid, or with all."""
    unknown: dict[str, torch.Tensor] = {}
    for name in ("inpaint", "outpaint"):
        box = getattr(config, name)
        try:
            if box is not None:
                unknown[name] = box_mask(box, schedule.latent_size) ^ (name == "outpaint")
        except ValueError as error:
            raise ConfigError(f"zero_shot.{name}: {error}") from None
    for name, unknown_hw in unknown.items():
        yield _box_task(name, schedule, unknown_hw, tokens_NL, images_NCHW, folder)
    for m in range(1, schedule.num_scales) if config.super_resolution else ():
        yield _super_resolution_task(m, schedule, tokens_NL, images_NCHW, folder)


def _box_task(
    name: str,
    schedule: ScaleSchedule,
    unknown_hw: torch.Tensor,
    tokens_NL: torch.Tensor,
    images_NCHW: np.ndarray,
    folder: Path,
) -> Task:
    """A task of unknown tokens of the finest grid."""
    # pixels of the unknown tokens: the latent is a whole number of times smaller than the image
    times = images_NCHW.shape[-1] // schedule.latent_size
    region_hw = unknown_hw.numpy().repeat(times, 0).repeat(times, 1)
    shown_NCHW = np.where(region_hw, np.uint8(128), images_NCHW[:STRIP])
    known = known_in_box(schedule, unknown_hw, tokens_NL)
    fill = partial(nearest_fill, unknown_hw=region_hw)
    filled_NCHW = each_on_disk(folder, images_NCHW, fill)
    return Task(name, None, known, region_hw, shown_NCHW, "nearest_fill", filled_NCHW)


def _super_resolution_task(
    m: int,
    schedule: ScaleSchedule,
    tokens_NL: torch.Tensor,
    images_NCHW: np.ndarray,
    folder: Path,
) -> Task:
    """The task that keeps the true tokens of the first m scales."""
    side = images_NCHW.shape[-1]

    def enlarged(images_BCHW: np.ndarray, mode: str = "bicubic") -> np.ndarray:
        return enlarge(area_reduce(images_BCHW, reduced_side(schedule, m, side)), side, mode)

    shown_NCHW = enlarged(images_NCHW[:STRIP], "nearest")
    large_NCHW = each_on_disk(folder, images_NCHW, enlarged)
    known = known_scales(schedule, m, tokens_NL)
    return Task("super_resolution", m, known, None, shown_NCHW, "bicubic", large_NCHW)


@torch.no_grad()
def complete(
    model: ScaleTransformer,
    tokenizer: Tokenizer,
    sampler: SamplerConfig,
    labels_N: torch.Tensor,
    first_seed: int,
    known: Known,
    batch: int,
) -> Iterator[torch.Tensor]:
    """Images drawn round known tokens, uint8, batch by batch; image i has seed first_seed + i."""
    ladder, device = tokenizer.at(model.schedule), model.position.device
    for i in range(0, len(labels_N), batch):
        labels_B = labels_N[i : i + batch].to(device)
        part = Known(
            known.tokens_BL[i : i + batch].to(device), known.mask_BL[i : i + batch].to(device)
        )
        seeds = range(first_seed + i, first_seed + i + len(labels_B))
        _, f_hat_BChw = generate(model, ladder, labels_B, seeds, sampler, part)
        yield to_uint8(tokenizer.to_image(f_hat_BChw))


# ---------------------------------------------------------------- numbers


@dataclass(frozen=True)
class Likeness:
    """Compares images with the held-out ones that they should be; scores them as a set in each
    extractor. Distances of features are those of the first classifier alone."""

    images_NCHW: np.ndarray
    labels_N: np.ndarray | None
    evaluators: Sequence[Evaluator]

    @cached_property
    def _trained(self) -> Extractor | None:
        """The first extractor that was trained; None where none was."""
        extractors = (evaluator.extractor for evaluator in self.evaluators)
        return next((one for one in extractors if one.classifier is not None), None)

    @torch.no_grad()
    def _features(self, images_NCHW: np.ndarray) -> torch.Tensor:
        assert self._trained is not None and self._trained.classifier is not None
        device, features = self._trained.device, self._trained.classifier.features
        parts = torch.from_numpy(images_NCHW).split(2 * at_once(BATCH, images_NCHW.shape[-1]))
        return torch.cat([features(part.to(device)).cpu() for part in parts])

    @cached_property
    def _true_features(self) -> torch.Tensor:
        return self._features(self.images_NCHW)

    def _distance(self, other_NCHW: np.ndarray) -> dict[str, tuple[float, str]]:
        """Mean L2 distance of features, by name; nothing without a classifier."""
        if self._trained is None:
            return {}
        distance_N = (self._features(other_NCHW) - self._true_features).norm(dim=1)
        return {f"feature_distance_{self._trained.config.name}": (float(distance_N.mean()), "L2")}

    def to(
        self, other_NCHW: np.ndarray, region_hw: np.ndarray | None
    ) -> dict[str, tuple[float, str]]:
        """Every number as {name: (value, unit)}: likeness on the unknown region and whole, scores
        of the set."""
        regions: dict[str, np.ndarray | None] = {"whole": None}
        if region_hw is not None:
            regions = {"unknown": region_hw, "whole": None}
        numbers: dict[str, tuple[float, str]] = {}
        for place, pixels_hw in regions.items():
            for name, (measure, unit) in LIKENESS.items():
                value = measure(self.images_NCHW, other_NCHW, pixels_hw).mean()
                numbers[f"{name}_{place}"] = float(value), unit
        numbers |= self._distance(other_NCHW)
        scores = scores_of(self.evaluators, other_NCHW, self.labels_N)
        twice = sorted(numbers.keys() & scores.keys())
        if twice:
            raise ValueError(
                f"bench/pipeline/metrics.py: a metric returns {twice[0]}, which zero_shot measures "
                "itself; rename it"
            )
        return numbers | scores


LIKENESS = {"psnr": (psnr, "dB"), "ssim": (ssim, "ssim")}


def shown_scales(num_scales: int) -> list[int]:
    """The m whose images are kept: at most four, spread from the first to the last."""
    if num_scales == 1:
        return []
    return sorted({int(m) for m in np.linspace(1, num_scales - 1, STRIP_SCALES).round()})


# ---------------------------------------------------------------- work


class HeldOut:
    """A trained model and the held-out images that it is to complete, with their true tokens.

    Raises ConfigError where there are too few for a score.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings("zero_shot", Settings)
        self.sampler: SamplerConfig = run.settings("sampler", SamplerConfig)
        self.evaluation: EvaluationConfig = run.settings("evaluation", EvaluationConfig)
        split = open_split(run.inputs["data"], "test")
        if len(split) < MIN_IMAGES:
            raise ConfigError(
                f"dataset.test_share: leaves {len(split)} held-out images; zero-shot scores need "
                f"{MIN_IMAGES} or more, raise it"
            )
        self.count = min(self.settings.num_images, len(split))
        self.tokenizer = open_tokenizer(run)
        weights = run.inputs["train"] / "model.safetensors"
        self.model = made_ready(open_model(run, weights), self.evaluation, self.count)
        rows_N = in_shares(split.labels_N, self.count)
        true_N = np.asarray(split.labels_N)[rows_N]
        size = at_once(BATCH, self.tokenizer.config.image_size)
        parts = [slice(i, i + size) for i in range(0, self.count, size)]
        images = (split.read(rows_N[part].tolist()) for part in parts)
        self.images_NCHW = on_disk(run.out, images).numpy()
        # an unconditional model has one label, 0
        no_labels_N = torch.zeros(self.count, dtype=torch.long)
        self.labels_N = torch.from_numpy(true_N) if self.model.config.conditional else no_labels_N
        stored_NL = open_tokens(run.inputs["tokens"], "test")[rows_N]
        self.tokens_NL = torch.from_numpy(stored_NL.astype(np.int64))
        schedule = self.model.schedule
        decode = partial(reconstruct, self.tokenizer, schedule, device=run.device)
        rebuilt = (torch.from_numpy(decode(stored_NL[part])) for part in parts)
        self.ceiling_NCHW = on_disk(run.out, rebuilt).numpy()
        labels_N = true_N if run.config["dataset"]["num_classes"] else None
        evaluators = open_evaluators(run, self.evaluation.metrics, Reference(split))
        self.likeness = Likeness(self.images_NCHW, labels_N, evaluators)
        self.first = first_sample(self.evaluation, run.config["train_seed"], self.count)

    def complete(self, task: Task) -> np.ndarray:
        """Images of a task with what is unknown drawn, uint8, on disk."""
        how = self.first, task.known, self.evaluation.batch_size
        parts = complete(self.model, self.tokenizer, self.sampler, self.labels_N, *how)
        return on_disk(self.run.out, parts).numpy()

    def report(self, prefix: str, numbers: dict, scale: int | None) -> None:
        """Rows of numbers, {name: (value, unit)}."""
        last = self.first + self.count - 1
        seeds = {"seed_first": self.first, "seed_last": last, "num_images": self.count}
        for name, (value, unit) in numbers.items():
            identity = {**model_identity(self.run), **seeds}
            self.run.add(f"{prefix}_{name}", value, unit, scale=scale, **identity)

    def report_task(self, task: Task, completed_NCHW: np.ndarray) -> float:
        """Rows of a task, its baseline and its ceiling; returns the first number of the task."""
        numbers = self.likeness.to(completed_NCHW, task.region_hw)
        self.report(task.name, numbers, task.scale)
        of_baseline = self.likeness.to(task.baseline_NCHW, task.region_hw)
        self.report(f"{task.baseline}_{task.name}", of_baseline, task.scale)
        if task.region_hw is not None:
            for name, (measure, unit) in LIKENESS.items():
                values_N = measure(self.images_NCHW, self.ceiling_NCHW, task.region_hw)
                unknown = {f"{name}_unknown": (float(values_N.mean()), unit)}
                self.report(f"ceiling_{task.name}", unknown, None)
        return next(iter(numbers.values()))[0]


def work(run: Run) -> None:
    held_out = HeldOut(run)
    settings, schedule = held_out.settings, held_out.model.schedule
    images = {"original": held_out.images_NCHW, "ceiling": held_out.ceiling_NCHW}
    strip = {name: images_NCHW[:STRIP] for name, images_NCHW in images.items()}
    total = sum(box is not None for box in (settings.inpaint, settings.outpaint))
    total += schedule.num_scales - 1 if settings.super_resolution else 0
    given = held_out.tokens_NL, held_out.images_NCHW, run.out
    tasks = tasks_of(settings, schedule, *given)
    said = []
    for task in track(tasks, run.run_id, total, "task"):
        completed_NCHW = held_out.complete(task)
        said.append(f"{task.key} {held_out.report_task(task, completed_NCHW):.2f} dB")
        if task.scale is None or task.scale in shown_scales(schedule.num_scales):
            strip[f"{task.key}_input"] = task.shown_NCHW
            strip[f"{task.key}_baseline"] = np.array(task.baseline_NCHW[:STRIP])
            strip[f"{task.key}_completed"] = np.array(completed_NCHW[:STRIP])
    held_out.report("ceiling", held_out.likeness.to(held_out.ceiling_NCHW, None), None)
    save_npz(run.out / "strip.npz", **strip)
    run.say(f"{', '.join(said)} on what is unknown, {held_out.count} images")
