"""Verb: how a trained model refines held-out images, step by step, from true and from noisy ones;
how steady its gradients are, and which frequencies each step adds.

The paper's own measures (arXiv 2510.02826) could not be read; these are ours. `refine_error`, scale
k: mean square error of the image after step k, earlier steps true and step k the likeliest codes,
of a regression its mean. `ladder_error`: the same with step k true, what the tokenizer leaves.
Their means over the steps end in `_mean`. `half_fall`: share of the fall of `refine_error`, from
the image of an empty latent to the last step, that the first half of the steps brings.

`noise_s<s>`, scale m: error against the clean image where the first m scales are those of the image
with noise of standard deviation s, and the likeliest codes follow. `noise_area_s<s>`: its mean over
m = 0 ... K; `noise_loss`: that of the strongest noise minus that of the weakest.

`gradient_noise`: trace of the covariance of the gradients of batches over the squared norm of their
mean, of blocks and input alone: heads differ in size. Along the training it has a step.

`band_centre_latent` and `band_centre_image`, scale k: mean DCT band, the larger of both
frequencies, of the energy that step k adds to latent and image. `band_rise_*`: from the first step
to the last, a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.fft import dctn

from srdd.config import ModelConfig, SamplerConfig
from srdd.cost import sampling_cost
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.refining import Refiner, gradient_noise, trunk

from ...pipeline.artefacts import checkpoints, model_identity, open_labels, open_split
from ...pipeline.datasets import to_float
from ...pipeline.labels import in_shares
from ...pipeline.networks import first_network, open_model, open_tokenizer
from ...pipeline.training import batch_indices
from ...pipeline.unique_images import learnt_rows
from ...runtime.progress import Progress
from ...runtime.verb import Run
from ...study.settings import TrainingConfig
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens", "train")
ALONG = (0.0, 0.1, 0.5, 1.0)  # of a training, where its gradients are looked at
BATCH, TOKENS = 64, 2**15  # images refined at once, and tokens whose logits are held


class Measurement:
    """A trained model and the images that it is asked about."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings("ladders", Settings)
        self.model = open_model(run, run.inputs["train"] / "model.safetensors")
        self.refiner = Refiner(self.model, open_tokenizer(run))
        labels_N, images = (
            open_labels(run.inputs["data"], "test"),
            open_split(run.inputs["data"], "test"),
        )
        self.rows_N = np.arange(len(labels_N))
        if self.settings.num_images < len(labels_N):
            self.rows_N = in_shares(labels_N, self.settings.num_images)
        self.images, self.labels_N = images, self.known(labels_N)[self.rows_N]
        self.names = {**model_identity(run), "num_images": len(self.rows_N)}

    def known(self, labels_N: np.ndarray) -> np.ndarray:
        """Labels as the model knows them: a model without classes knows one."""
        return labels_N if self.model.config.conditional else np.zeros_like(labels_N)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[int]]]:
        """Images in [-1, 1], labels, and which they are."""
        size = max(1, min(BATCH, TOKENS // self.model.schedule.seq_len))
        for i in range(0, len(self.rows_N), size):
            rows: list[int] = self.rows_N[i : i + size].tolist()
            images_BCHW = to_float(self.images.read(rows).to(self.run.device))
            labels_B = torch.from_numpy(self.labels_N[i : i + size]).to(self.run.device)
            yield images_BCHW, labels_B, rows

    def add(self, metric: str, value: float, unit: str, **more: Any) -> None:
        self.run.add(metric, value, unit, **{**self.names, **more})

    def along_scales(self, metric: str, values: Any, unit: str) -> None:
        """A number of each scale."""
        for k, value in enumerate(values):
            if math.isfinite(value):
                self.add(metric, float(value), unit, scale=k)


# ---------------------------------------------------------------- refinement and noise


@torch.no_grad()
def measure_refinement(measured: Measurement) -> None:
    """Errors after each step, with the step drawn at its likeliest and with the true one."""
    sums = torch.zeros(2, measured.model.schedule.num_scales, dtype=torch.float64)
    empty = 0.0
    for images_BCHW, labels_B, _ in measured.batches():
        sums += measured.refiner.errors(images_BCHW, labels_B) * len(labels_B)
        empty += measured.refiner.empty_error(images_BCHW) * len(labels_B)
    (refine_K, ladder_K), empty = sums / len(measured.rows_N), empty / len(measured.rows_N)
    for name, error_K in (("refine_error", refine_K), ("ladder_error", ladder_K)):
        measured.along_scales(name, error_K.tolist(), "mse")
        measured.add(f"{name}_mean", error_K.mean().item(), "mse")
    measured.add("learned_error_mean", (refine_K - ladder_K).mean().item(), "mse")
    half = refine_K[(len(refine_K) + 1) // 2 - 1].item()
    if (fall := empty - refine_K[-1].item()) > 0:
        measured.add("half_fall", (empty - half) / fall, "share")


def noisy(images_BCHW: torch.Tensor, rows: list[int], level: float) -> torch.Tensor:
    """Images with normal noise of a standard deviation; that of an image follows from its place in
    the split, and is the same at every level."""
    shape = images_BCHW.shape[1:]
    drawn = [torch.randn(shape, generator=generator("noise shift", row)) for row in rows]
    return images_BCHW + level * torch.stack(drawn).to(images_BCHW)


@torch.no_grad()
def measure_noise(measured: Measurement, progress: Progress) -> None:
    """Errors against clean images where noisy ones are encoded, by how many scales are kept."""
    areas = []
    for level in sorted(measured.settings.noise):
        sums = torch.zeros(measured.model.schedule.num_scales + 1, dtype=torch.float64)
        for images_BCHW, labels_B, rows in measured.batches():
            shifted_BCHW = noisy(images_BCHW, rows, level)
            sums += measured.refiner.kept_errors(shifted_BCHW, images_BCHW, labels_B) * len(rows)
        error_m = sums / len(measured.rows_N)
        measured.along_scales(f"noise_s{level:g}", error_m.tolist(), "mse")
        areas.append(error_m.mean().item())
        measured.add(f"noise_area_s{level:g}", areas[-1], "mse")
        progress.advance()
    if len(areas) > 1:
        measured.add("noise_loss", areas[-1] - areas[0], "mse")


# ---------------------------------------------------------------- gradients


def snapshots(run: Run) -> list[tuple[int | None, ScaleTransformer]]:
    """The kept weights, and those along the training that are nearest to `ALONG`; step 0 is drawn
    again as it was, and left out of a training that began from another's weights."""
    saved = dict(checkpoints(run.inputs["train"], True))
    drawn = set() if "distill" in run.config else {0}
    steps = sorted({*drawn, *(step for step in saved if step is not None)})
    chosen = {min(steps, key=lambda step: abs(step - share * steps[-1])) for share in ALONG}
    kept = open_model(run, run.inputs["train"] / "model.safetensors")
    models: list[tuple[int | None, ScaleTransformer]] = [(None, kept)]
    for step in sorted(chosen):
        if step:
            models.append((step, open_model(run, saved[step])))
            continue
        first = first_network(run.settings("model", ModelConfig), run.config["train_seed"])
        models.append((0, first.to(run.device).eval()))
    return models


def measure_gradients(measured: Measurement, progress: Progress) -> None:
    """Noise of the gradients of trunk weights, of the kept weights and along the training."""
    run, count = measured.run, measured.settings.micro_batches
    training = run.settings("training", TrainingConfig)
    size, images = training.batch_size, open_split(run.inputs["data"], "train")
    learnt_N = learnt_rows(images, training.unique_images)
    labels_N = measured.known(open_labels(run.inputs["data"], "train"))
    for step, model in snapshots(run):
        refiner = Refiner(model, measured.refiner.tokenizer)

        def losses(refiner: Refiner = refiner) -> Iterator[torch.Tensor]:
            for i in range(count):
                places = batch_indices(len(learnt_N), size, run.config["train_seed"], i)
                rows = learnt_N[places].tolist()
                images_BCHW = to_float(images.read(rows).to(run.device))
                yield refiner.loss(images_BCHW, torch.from_numpy(labels_N[rows]).to(run.device))

        noise = gradient_noise(losses(), trunk(model))
        more = {"num_images": None, "step": step}
        name = "gradient_noise" if step is None else "gradient_noise_along"
        measured.add(name, noise, "ratio", **more)
        progress.advance()


# ---------------------------------------------------------------- bands


def band_energies(grid_BChw: np.ndarray) -> np.ndarray:
    """Energy in each band max(u, v) of an orthonormal DCT, summed over images and channels; bands
    sum to the energy of the grid. Returns float64 (h,)."""
    spectrum_BChw = dctn(grid_BChw.astype(np.float64), axes=(-2, -1), norm="ortho")
    energy_hw = np.square(spectrum_BChw).sum((0, 1))
    rows, columns = np.indices(energy_hw.shape)
    return np.bincount(np.maximum(rows, columns).ravel(), weights=energy_hw.ravel())


class Bands:
    """Energies by step and band, summed over batches."""

    def __init__(self, num_scales: int) -> None:
        self.energy_Kj: list[np.ndarray | float] = [0.0] * num_scales

    def add(self, additions: list[torch.Tensor]) -> None:
        """What each step adds to some images."""
        for k, grid_BChw in enumerate(additions):
            self.energy_Kj[k] = self.energy_Kj[k] + band_energies(grid_BChw.cpu().numpy())

    def shares(self) -> np.ndarray:
        """Share of each band in the energy of each step (K, bands); NaN where a step adds
        nothing."""
        energy_Kj = np.stack(self.energy_Kj)  # type: ignore[arg-type]
        total_K1 = energy_Kj.sum(1, keepdims=True)
        return np.divide(
            energy_Kj, total_K1, out=np.full_like(energy_Kj, np.nan), where=total_K1 > 0
        )

    def centres(self) -> np.ndarray:
        """Mean band of each step (K,)."""
        shares_Kj = self.shares()
        return shares_Kj @ np.arange(shares_Kj.shape[1])


@torch.no_grad()
def measure_bands(measured: Measurement) -> None:
    """Which frequencies each step of the true ladder adds to latent and image."""
    K = measured.model.schedule.num_scales
    for space in ("latent", "image"):
        bands = Bands(K)
        for images_BCHW, _, _ in measured.batches():
            bands.add(measured.refiner.additions(images_BCHW, space))
        centre_K = bands.centres()
        measured.along_scales(f"band_centre_{space}", centre_K, "band")
        if K > 1 and np.isfinite(centre_K[[0, -1]]).all():
            rise = float(centre_K[-1] - centre_K[0]) / (K - 1)
            measured.add(f"band_rise_{space}", rise, "bands/step")
        if space == "latent":
            for j, share_K in enumerate(bands.shares().T):
                measured.along_scales(f"band_share_latent_b{j}", share_K, "share")


def measure_sizes(measured: Measurement) -> None:
    """What a system is made of: bits of an image, weights of the head, operations up to a scale."""
    config, L = measured.model.config, measured.model.schedule.seq_len
    plain = {"num_images": None}
    if not config.regresses:
        measured.add("bits_per_image", L * math.log2(config.codebook_size), "bits", **plain)
    weights = sum(parameter.numel() for parameter in measured.model.head.parameters())
    measured.add("head_parameters", weights, "weights", **plain)
    sampler = SamplerConfig(name="gauss" if config.regresses else "var")
    flops_K = [flops for _, _, flops in sampling_cost(config, sampler).by_scale]
    measured.along_scales("refine_flops", np.cumsum(flops_K), "flop")


def work(run: Run) -> None:
    measured = Measurement(run)
    trained = run.config["training"] is not None
    total = len(measured.settings.noise) + (1 + len(ALONG) if trained else 0)
    progress = Progress(run.run_id, total, unit="measure")
    measure_sizes(measured)
    measure_refinement(measured)
    measure_noise(measured, progress)
    measure_bands(measured)
    if trained:  # of weights that were imported nobody knows the batches
        measure_gradients(measured, progress)
    progress.close()
    run.say(f"{len(measured.rows_N)} images refined in {measured.model.schedule.num_scales} steps")
