"""Verb: in-painting, out-painting and super-resolution of held-out pictures, none of them trained
for.

A task keeps some true tokens of a picture and lets the variant's own sampler draw the others;
picture i has sample seed i. What is scored is the decoded picture as it is: known pixels are not
pasted over it, so that seams count. The true tokens of a task come from the whole picture, as in
VAR's protocol: the coarse ones know a little of what is hidden.

Beside every task, in rows with a prefix: `nearest_fill_` and `bicubic_`, which know the known
pixels alone, and `ceiling_`, the picture from all its true tokens. Writes strip.npz: a few pictures
through every task.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.metrics import structural_similarity

from srdd.config import SamplerConfig
from srdd.model import ScaleTransformer
from srdd.sampling import Known, generate
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer
from srdd.zero_shot import box_mask, known_in_box, known_scales

from ...pipeline.artefacts import model_identity, open_split, open_tokens, save_npz
from ...pipeline.datasets import to_uint8
from ...pipeline.labels import first_sample, in_shares
from ...pipeline.metrics import MIN_IMAGES, Extractor, Scored, score
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.reference import Reference
from ...pipeline.sampling import made_ready
from ...pipeline.tokenizing import reconstruct
from ...runtime.progress import track
from ...runtime.verb import Run
from ...study.errors import ConfigError
from ...study.settings import EvaluationConfig, FeaturesConfig
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens", "train", "features")

STRIP, STRIP_SCALES = 6, 4
ROUNDING = 1 / 12  # mean square error of rounding to whole grey levels

# ---------------------------------------------------------------- likeness


def psnr(
    true_NCHW: np.ndarray, found_NCHW: np.ndarray, region_hw: np.ndarray | None = None
) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each uint8 picture, over a region or whole.

    An error below that of rounding to 8 bits cannot be told from none: it counts as 1/12, hence
    58.9 dB at most and never infinity.
    """
    error_NCHW = true_NCHW.astype(np.float64) - found_NCHW
    error_NCp = error_NCHW[
        :, :, np.ones(true_NCHW.shape[2:], bool) if region_hw is None else region_hw
    ]
    return 10 * np.log10(255**2 / np.maximum((error_NCp**2).mean((1, 2)), ROUNDING))


def window_side(side: int) -> int:
    """Side of the windows of SSIM: 7 pixels as scikit-image has it, or the largest odd number up to
    half of a small picture, from 3."""
    half = min(7, side // 2)
    return max(3, half - 1 + half % 2)


def ssim(
    true_NCHW: np.ndarray, found_NCHW: np.ndarray, region_hw: np.ndarray | None = None
) -> np.ndarray:
    """Structural similarity (Wang et al. 2004, by scikit-image) of each uint8 picture: its mean, or
    that of its map over a region."""
    found = []
    for true_CHW, found_CHW in zip(true_NCHW, found_NCHW):
        whole, map_CHW = structural_similarity(
            true_CHW,
            found_CHW,
            win_size=window_side(true_CHW.shape[-1]),
            data_range=255,
            channel_axis=0,
            full=True,
        )
        found.append(whole if region_hw is None else map_CHW[:, region_hw].mean())
    return np.array(found)


# ---------------------------------------------------------------- opponents


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
    """Side of the small picture that stands for the first m scales: as many pixels for a token as
    the finest grid has."""
    return max(1, round(side * schedule.patch_nums[m - 1] / schedule.latent_size))


def area_reduce(images_NCHW: np.ndarray, side: int) -> np.ndarray:
    """Area-reduced pictures, uint8."""
    small = F.interpolate(torch.from_numpy(images_NCHW).float(), size=(side, side), mode="area")
    return small.round_().to(torch.uint8).numpy()


def enlarge(images_NCHW: np.ndarray, side: int, mode: str) -> np.ndarray:
    """Pictures enlarged, bicubic or nearest, uint8."""
    more = {} if mode == "nearest" else {"align_corners": False}
    large = F.interpolate(
        torch.from_numpy(images_NCHW).float(), size=(side, side), mode=mode, **more
    )
    return large.clamp_(0, 255).round_().to(torch.uint8).numpy()


# ---------------------------------------------------------------- tasks


@dataclass(frozen=True)
class Task:
    """What is known of the pictures: their tokens, and for the opponent their pixels.

    name: inpaint, outpaint or super_resolution; scale: m of super-resolution; region_hw: the
    unknown pixels, None where all are; shown_NCHW: what is known as a picture; rival: name of the
    opponent; rival_NCHW: what it makes of it.
    """

    name: str
    scale: int | None
    known: Known
    region_hw: np.ndarray | None
    shown_NCHW: np.ndarray
    rival: str
    rival_NCHW: np.ndarray

    @property
    def key(self) -> str:
        """The task in names of pictures, such as super_resolution_2."""
        return self.name if self.scale is None else f"{self.name}_{self.scale}"


def tasks_of(
    config: Settings, schedule: ScaleSchedule, tokens_NL: torch.Tensor, images_NCHW: np.ndarray
) -> Iterator[Task]:
    """The tasks that are asked for. Raises ConfigError for a box without a token of the finest
    grid, or with all."""
    size, side = schedule.latent_size, images_NCHW.shape[-1]
    unknown: dict[str, torch.Tensor] = {}
    for name in ("inpaint", "outpaint"):
        try:
            if (box := getattr(config, name)) is not None:
                unknown[name] = box_mask(box, size) ^ (name == "outpaint")
        except ValueError as error:
            raise ConfigError(f"zero_shot.{name}: {error}") from None
    for name, unknown_hw in unknown.items():
        # pixels of the unknown tokens: the latent is a whole number of times smaller than the picture
        region_hw = unknown_hw.numpy().repeat(side // size, 0).repeat(side // size, 1)
        shown_NCHW = np.where(region_hw, np.uint8(128), images_NCHW)
        known = known_in_box(schedule, unknown_hw, tokens_NL)
        yield Task(
            name,
            None,
            known,
            region_hw,
            shown_NCHW,
            "nearest_fill",
            nearest_fill(images_NCHW, region_hw),
        )
    for m in range(1, schedule.num_scales) if config.super_resolution else ():
        small_NCHW = area_reduce(images_NCHW, reduced_side(schedule, m, side))
        shown_NCHW, rival_NCHW = (
            enlarge(small_NCHW, side, mode) for mode in ("nearest", "bicubic")
        )
        yield Task(
            "super_resolution",
            m,
            known_scales(schedule, m, tokens_NL),
            None,
            shown_NCHW,
            "bicubic",
            rival_NCHW,
        )


@torch.no_grad()
def complete(
    model: ScaleTransformer,
    tokenizer: Tokenizer,
    sampler: SamplerConfig,
    labels_N: torch.Tensor,
    first_seed: int,
    known: Known,
    batch: int,
) -> np.ndarray:
    """Pictures drawn round known tokens, uint8; picture i has seed first_seed + i."""
    ladder, device, parts = tokenizer.at(model.schedule), model.position.device, []
    for i in range(0, len(labels_N), batch):
        labels_B = labels_N[i : i + batch].to(device)
        part = Known(
            known.tokens_BL[i : i + batch].to(device), known.mask_BL[i : i + batch].to(device)
        )
        seeds = range(first_seed + i, first_seed + i + len(labels_B))
        _, f_hat_BChw = generate(model, ladder, labels_B, seeds, sampler, part)
        parts.append(to_uint8(tokenizer.to_image(f_hat_BChw)).cpu().numpy())
    return np.concatenate(parts)


# ---------------------------------------------------------------- numbers


@dataclass(frozen=True)
class Likeness:
    """Compares pictures with the held-out ones that they should be; scores them as a set."""

    images_NCHW: np.ndarray
    labels_N: np.ndarray | None
    reference: object
    extractor: Extractor
    metrics: tuple[str, ...]

    @torch.no_grad()
    def _features(self, images_NCHW: np.ndarray) -> torch.Tensor:
        parts = torch.from_numpy(images_NCHW).split(512)
        return torch.cat(
            [
                self.extractor.classifier.features(part.to(self.extractor.device)).cpu()
                for part in parts
            ]
        )

    @cached_property
    def _true_features(self) -> torch.Tensor:
        return self._features(self.images_NCHW)

    def to(
        self, found_NCHW: np.ndarray, region_hw: np.ndarray | None
    ) -> dict[str, tuple[float, str]]:
        """Every number as {name: (value, unit)}: likeness on the unknown region and whole, scores
        of the set."""
        regions = {"whole": None} if region_hw is None else {"unknown": region_hw, "whole": None}
        numbers: dict[str, tuple[float, str]] = {}
        for place, where in regions.items():
            numbers[f"psnr_{place}"] = float(psnr(self.images_NCHW, found_NCHW, where).mean()), "dB"
            numbers[f"ssim_{place}"] = (
                float(ssim(self.images_NCHW, found_NCHW, where).mean()),
                "ssim",
            )
        if self.extractor.classifier is not None:
            distance_N = (self._features(found_NCHW) - self._true_features).norm(dim=1)
            numbers[f"feature_distance_{self.extractor.config.name}"] = (
                float(distance_N.mean()),
                "L2",
            )
        scores = score(
            Scored(found_NCHW, self.labels_N, Reference(self.reference), self.extractor),
            self.metrics,
        )
        if twice := sorted(numbers.keys() & scores.keys()):
            raise ValueError(
                f"bench/pipeline/metrics.py: a metric returns {twice[0]}, which zero_shot measures itself; rename it"
            )
        return numbers | scores


def shown_scales(num_scales: int) -> list[int]:
    """The m whose pictures are kept: at most four, spread from the first to the last."""
    return (
        sorted({int(m) for m in np.linspace(1, num_scales - 1, STRIP_SCALES).round()})
        if num_scales > 1
        else []
    )


def work(run: Run) -> None:
    config, sampler = run.settings("zero_shot", Settings), run.settings("sampler", SamplerConfig)
    evaluation = run.settings("evaluation", EvaluationConfig)
    extractor = Extractor(
        run.settings("features", FeaturesConfig), run.device, run.inputs["features"]
    )
    test = open_split(run.inputs["data"], "test")
    if len(test) < MIN_IMAGES:
        raise ConfigError(
            f"dataset.test_share: leaves {len(test)} held-out pictures; zero-shot scores need "
            f"{MIN_IMAGES} or more, raise it"
        )
    count = min(config.num_images, len(test))
    tokenizer = open_tokenizer(run)
    model = made_ready(open_model(run, run.inputs["train"] / "model.safetensors"), evaluation)
    rows_N, classes = in_shares(test.labels_N, count), run.config["dataset"]["num_classes"]
    images_NCHW, true_N = test.read(rows_N.tolist()).numpy(), np.asarray(test.labels_N)[rows_N]
    labels_N = true_N if classes else None
    # an unconditional model has one label, 0
    asked_N = (
        torch.from_numpy(true_N)
        if model.config.conditional
        else torch.zeros(count, dtype=torch.long)
    )
    stored_NL = open_tokens(run.inputs["tokens"], "test")[rows_N]
    tokens_NL = torch.from_numpy(stored_NL.astype(np.int64))
    ceiling_NCHW = reconstruct(tokenizer, model.schedule, stored_NL, run.device)
    likeness = Likeness(images_NCHW, labels_N, test, extractor, evaluation.metrics)
    first = first_sample(evaluation, run.config["train_seed"])
    identity = {
        **model_identity(run),
        "seed_first": first,
        "seed_last": first + count - 1,
        "num_images": count,
    }
    strip = {"original": images_NCHW[:STRIP], "ceiling": ceiling_NCHW[:STRIP]}

    def report(prefix: str, numbers: dict[str, tuple[float, str]], scale: int | None) -> None:
        for name, (value, unit) in numbers.items():
            run.add(f"{prefix}_{name}", value, unit, scale=scale, **identity)

    total = sum(box is not None for box in (config.inpaint, config.outpaint))
    total += model.schedule.num_scales - 1 if config.super_resolution else 0
    said = []
    for task in track(
        tasks_of(config, model.schedule, tokens_NL, images_NCHW), run.run_id, total, "task"
    ):
        found_NCHW = complete(
            model, tokenizer, sampler, asked_N, first, task.known, evaluation.batch_size
        )
        numbers = likeness.to(found_NCHW, task.region_hw)
        report(task.name, numbers, task.scale)
        report(
            f"{task.rival}_{task.name}", likeness.to(task.rival_NCHW, task.region_hw), task.scale
        )
        if task.region_hw is not None:
            for name, measure, unit in (("psnr", psnr, "dB"), ("ssim", ssim, "ssim")):
                value = float(measure(images_NCHW, ceiling_NCHW, task.region_hw).mean())
                report(f"ceiling_{task.name}", {f"{name}_unknown": (value, unit)}, None)
        if task.scale is None or task.scale in shown_scales(model.schedule.num_scales):
            parts = {"input": task.shown_NCHW, "rival": task.rival_NCHW, "completed": found_NCHW}
            strip |= {f"{task.key}_{name}": images[:STRIP] for name, images in parts.items()}
        said.append(f"{task.key} {next(iter(numbers.values()))[0]:.2f} dB")
    report("ceiling", likeness.to(ceiling_NCHW, None), None)
    save_npz(run.out / "strip.npz", **strip)
    run.say(", ".join(said) + f" on what is unknown, {count} pictures")
