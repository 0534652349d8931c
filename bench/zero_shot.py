"""Verb: in-painting, out-painting and super-resolution of held-out pictures by a model that was trained for none of them.

Completions are decoded whole from their tokens; known pixels are not pasted over them, so that the tokenizer's own error counts, which
the ceiling (all tokens true) shows. Rows: `<task>_<what>` for the model; `<opponent>_<task>_<what>` for what it is read against, where
opponent is `fill` (nearest-mean fill, in- and out-painting), `bicubic` (super-resolution) or `ceiling`. For super-resolution the column
`scale` holds m, the number of true scales. Scores of a completed set against the held-out split, whose pictures it completes, are not
comparable with scores of free generation. Writes strips.npz: original, what is known, opponent, completion, ceiling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist
from skimage.metrics import structural_similarity

from srdd.checkpoint import load_model, load_tokenizer
from srdd.config import SamplerConfig
from srdd.sampling import Known, generate
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer
from srdd.zero_shot import Box, box_mask, known_by_mask, known_scales

from .config import ConfigError, EvaluationConfig, FeaturesConfig, ZeroShotConfig
from .datasets import to_float, to_uint8
from .encode import open_tokens
from .metrics import MIN_IMAGES, Extractor, Scored, score
from .prepare import open_split, save_npz
from .progress import Progress
from .train import model_identity
from .verb import Run, main

STRIP = 5


@dataclass(frozen=True)
class Task:
    """A task on pictures of one size. known: the pixels that are given, None for super-resolution by `scales` true scales."""

    name: str
    opponent: str
    known_hw: np.ndarray | None
    scales: int | None
    tokens: Callable[[torch.Tensor], Known]


def tasks_of(config: ZeroShotConfig, schedule: ScaleSchedule, size: int) -> list[Task]:
    """The tasks that a suite asks for."""
    found = []
    for name, box in (("inpaint", config.inpaint), ("outpaint", config.outpaint)):
        if box is not None:
            found.append(_box_task(name, box, schedule, size))
    if config.super_resolution:
        for m in range(1, schedule.num_scales):
            known = lambda tokens_BL, m=m: known_scales(schedule, m, tokens_BL)  # noqa: E731
            found.append(Task("super_resolution", "bicubic", None, m, known))
    return found


def _box_task(name: str, box: Box, schedule: ScaleSchedule, size: int) -> Task:
    """In-painting does not know the box, out-painting knows nothing else."""
    given = lambda side: box_mask(box, side) if name == "outpaint" else ~box_mask(box, side)  # noqa: E731
    known_hw = given(schedule.latent_size)
    return Task(name, "fill", given(size).numpy(), None, lambda tokens_BL: known_by_mask(schedule, known_hw, tokens_BL))


# ---------------------------------------------------------------- opponents


def nearest_mean_fill(images_NCHW: np.ndarray, known_hw: np.ndarray) -> np.ndarray:
    """Every unknown pixel as the mean of the known ones at its smallest distance."""
    known, unknown = np.argwhere(known_hw), np.argwhere(~known_hw)
    distance = cdist(unknown, known)
    nearest = np.isclose(distance, distance.min(1, keepdims=True))
    weights = nearest / nearest.sum(1, keepdims=True)
    filled = images_NCHW.copy()
    values = images_NCHW[:, :, known_hw].astype(np.float64) @ weights.T
    filled[:, :, ~known_hw] = np.rint(values).astype(np.uint8)
    return filled


def bicubic(images_NCHW: np.ndarray, schedule: ScaleSchedule, m: int) -> np.ndarray:
    """Pictures area-reduced to as many pixels a side as the m-th grid spans, and bicubically enlarged again."""
    size = images_NCHW.shape[-1]
    small = max(1, round(size * schedule.patch_nums[m - 1] / schedule.latent_size))
    reduced = F.interpolate(to_float(torch.from_numpy(images_NCHW)), size=(small, small), mode="area")
    return to_uint8(F.interpolate(reduced, size=(size, size), mode="bicubic")).numpy()


def oppose(task: Task, images_NCHW: np.ndarray, schedule: ScaleSchedule) -> np.ndarray:
    """What the task's opponent makes of the pictures."""
    if task.known_hw is None:
        return bicubic(images_NCHW, schedule, task.scales)
    return nearest_mean_fill(images_NCHW, task.known_hw)


def shown_input(task: Task, images_NCHW: np.ndarray, schedule: ScaleSchedule, tokenizer: Tokenizer, tokens_NL) -> np.ndarray:
    """What a reader is shown as known: the pictures with grey for what is not, or what the true scales decode to."""
    if task.known_hw is not None:
        return np.where(task.known_hw, images_NCHW, np.uint8(128))
    states = list(tokenizer.at(schedule).states(tokens_NL))
    return to_uint8(tokenizer.to_image(states[task.scales - 1])).cpu().numpy()


# ---------------------------------------------------------------- fidelity to the original


def similarity(one_CHW: np.ndarray, other_CHW: np.ndarray) -> np.ndarray:
    """The map of structural similarity (Wang et al. 2004), mean over channels; windows of 7 pixels, or what fits."""
    side = min(7, one_CHW.shape[-1] - (one_CHW.shape[-1] + 1) % 2)
    found = structural_similarity(one_CHW, other_CHW, win_size=side, data_range=255, channel_axis=0, full=True)[1]
    return found.mean(0)


def closeness(truth_NCHW: np.ndarray, made_NCHW: np.ndarray, region_hw: np.ndarray) -> dict[str, float]:
    """PSNR in dB and SSIM over a region, mean over pictures; a picture without any error counts as 1/4 of a grey level off."""
    error = (truth_NCHW.astype(np.float64) - made_NCHW)[:, :, region_hw]
    mse_N = np.maximum(np.square(error).mean((1, 2)), 1 / 16)
    maps = [similarity(one, other)[region_hw].mean() for one, other in zip(truth_NCHW, made_NCHW)]
    return {"psnr": float((10 * np.log10(255**2 / mse_N)).mean()), "ssim": float(np.mean(maps))}


UNITS = {"psnr": "dB", "ssim": "index"}


# ---------------------------------------------------------------- the verb


class Completion:
    """A model, the held-out pictures it is asked to complete, and where the numbers go."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: ZeroShotConfig = run.settings("zero_shot", ZeroShotConfig)
        self.sampler: SamplerConfig = run.settings("sampler", SamplerConfig)
        self.evaluation: EvaluationConfig = run.settings("evaluation", EvaluationConfig)
        self.tokenizer = load_tokenizer(run.inputs["tokenizer"] / "tokenizer.safetensors").to(run.device)
        self.model = load_model(run.inputs["train"] / "model.safetensors").to(run.device)
        self.extractor = Extractor(run.settings("features", FeaturesConfig), run.device, run.inputs["features"])
        self.reference = open_split(run.inputs["data"], "test")
        self.count = min(self.settings.num_images, len(self.reference))
        if self.count < MIN_IMAGES:
            raise ConfigError(f"dataset.test_share: leaves {self.count} held-out pictures; a completed set needs {MIN_IMAGES}")
        self.images = self.reference.read(range(self.count)).numpy()
        self.tokens_NL = torch.from_numpy(open_tokens(run.inputs["tokens"], "test")[: self.count].astype(np.int64))
        labels = torch.from_numpy(np.asarray(self.reference.labels_N[: self.count]).astype(np.int64))
        self.labels_N = labels if self.model.config.conditional else torch.zeros_like(labels)
        self.schedule, self.strips = self.model.schedule, {}

    def batches(self) -> list[slice]:
        size = self.evaluation.batch_size
        return [slice(i, min(i + size, self.count)) for i in range(0, self.count, size)]

    @torch.no_grad()
    def decode(self, state_BChw: torch.Tensor) -> np.ndarray:
        return to_uint8(self.tokenizer.to_image(state_BChw)).cpu().numpy()

    def ceiling(self) -> np.ndarray:
        """The pictures through the tokenizer: all tokens true."""
        ladder, device = self.tokenizer.at(self.schedule), self.run.device
        return np.concatenate([self.decode(ladder.decode(self.tokens_NL[rows].to(device))) for rows in self.batches()])

    def complete(self, task: Task, progress: Progress) -> np.ndarray:
        """The model's completions; picture i has seed first_seed + i."""
        parts, device, first = [], self.run.device, self.evaluation.first_seed
        for rows in self.batches():
            known, labels_B = task.tokens(self.tokens_NL[rows].to(device)), self.labels_N[rows].to(device)
            seeds = range(first + rows.start, first + rows.stop)
            state_BChw = generate(self.model, self.tokenizer.at(self.schedule), labels_B, seeds, self.sampler, known)[1]
            parts.append(self.decode(state_BChw))
            progress.advance(len(labels_B))
        return np.concatenate(parts)

    def report(self, prefix: str, task: Task, made_NCHW: np.ndarray) -> None:
        """Closeness to the originals and scores of a completed set."""
        first = self.evaluation.first_seed
        here = {**model_identity(self.run), "seed_first": first, "seed_last": first + self.count - 1, "num_images": self.count}
        here["scale"] = task.scales
        size = self.images.shape[-1]
        regions = {"whole": np.ones((size, size), bool)} | ({"unknown": ~task.known_hw} if task.known_hw is not None else {})
        for region, mask in regions.items():
            for name, value in closeness(self.images, made_NCHW, mask).items():
                self.run.add(f"{prefix}{task.name}_{name}_{region}", value, UNITS[name], **here)
        asked_N = self.labels_N.numpy() if self.model.config.conditional else None
        found = score(Scored(made_NCHW, asked_N, self.reference, self.extractor), self.evaluation.metrics)
        for name, (value, unit) in found.items():
            self.run.add(f"{prefix}{task.name}_{name}", value, unit, **here)

    def keep_strip(self, task: Task, *rows: np.ndarray) -> None:
        known = shown_input(task, self.images[:STRIP], self.schedule, self.tokenizer, self.tokens_NL[:STRIP].to(self.run.device))
        name = task.name if task.scales is None else f"{task.name}_{task.scales}"
        self.strips[name] = np.stack([self.images[:STRIP], known, *(row[:STRIP] for row in rows)], 1)


@torch.no_grad()
def work(run: Run) -> None:
    job = Completion(run)
    tasks, ceiling = tasks_of(job.settings, job.schedule, job.images.shape[-1]), job.ceiling()
    progress = Progress(run.run_id, job.count * len(tasks), unit="picture")
    for task in tasks:
        made, opponent = job.complete(task, progress), oppose(task, job.images, job.schedule)
        job.report("", task, made)
        job.report(f"{task.opponent}_", task, opponent)
        job.report("ceiling_", task, ceiling)
        job.keep_strip(task, opponent, made, ceiling)
    progress.close()
    save_npz(run.out / "strips.npz", **job.strips)


if __name__ == "__main__":
    main("zero_shot", work, inputs=("data", "tokenizer", "tokens", "train", "features"))
