"""Verb: the signal-to-noise ratio after each scale of a tokenizer's ladder, beside two diffusion
schedules.

Per scale k, on held-out images: `snr_latent_db` of the state f_hat after scales 0 ... k against the
encoder's latent, `snr_pixel_db` of what the decoder makes of it against the image in [-1, 1]; the
mean, and with `_q10` and `_q90` the quantiles over images. `snr_cosine_db` and `snr_linear_db`:
DDPM's schedules at as many equally spaced times, noisy to clean.
"""

from __future__ import annotations

import numpy as np
import torch

from srdd.diffusion import snr_cosine, snr_db, snr_linear
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer

from ...pipeline.artefacts import open_split, tokenizer_identity
from ...pipeline.datasets import SplitImages, to_float
from ...pipeline.labels import in_shares
from ...pipeline.networks import open_tokenizer
from ...runtime.progress import track
from ...runtime.verb import Run
from .plan import Settings

INPUTS = ("data", "tokenizer")

BATCH = 128
QUANTILES = {"q10": 0.1, "q90": 0.9}


@torch.no_grad()
def measure(
    tokenizer: Tokenizer,
    schedule: ScaleSchedule,
    split: SplitImages,
    chosen_N: np.ndarray,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """SNR in dB of `latent` and `pixel` of chosen images, each float64 (N, K)."""
    ladder = tokenizer.at(schedule)
    batches = [chosen_N[i : i + BATCH].tolist() for i in range(0, len(chosen_N), BATCH)]
    latent_parts, pixel_parts = [], []
    for rows in track(batches, f"snr {schedule.name}", len(batches)):
        images_BCHW = to_float(split.read(rows)).to(device)
        latent_BChw = tokenizer.to_latent(images_BCHW)
        latent_db, pixel_db = [], []
        for _, _, f_hat_BChw in ladder.quantize(latent_BChw):
            decoded_BCHW = tokenizer.to_image(f_hat_BChw).clamp(-1, 1)
            latent_db.append(snr_db(latent_BChw, f_hat_BChw))
            pixel_db.append(snr_db(images_BCHW, decoded_BCHW))
        latent_parts.append(torch.stack(latent_db, 1).cpu())
        pixel_parts.append(torch.stack(pixel_db, 1).cpu())
    return {"latent": torch.cat(latent_parts), "pixel": torch.cat(pixel_parts)}


def report(run: Run, metric: str, values_K: torch.Tensor, **names: object) -> None:
    """A value in dB for each scale."""
    for k, value in enumerate(values_K.tolist()):
        run.add(metric, value, "dB", scale=k, **names)


def work(run: Run) -> None:
    schedule = ScaleSchedule(tuple(run.config["patch_nums"]))
    settings, tokenizer = run.settings("snr", Settings), open_tokenizer(run)
    split = open_split(run.inputs["data"], "test")
    chosen_N = in_shares(split.labels_N, settings.num_images)
    names = {**tokenizer_identity(run), "model": schedule.name}
    by_name = measure(tokenizer, schedule, split, chosen_N, run.device)
    for name, values_NK in by_name.items():
        counted = {**names, "num_images": len(chosen_N)}
        report(run, f"snr_{name}_db", values_NK.mean(0), **counted)
        for ending, share in QUANTILES.items():
            report(run, f"snr_{name}_db_{ending}", values_NK.quantile(share, 0), **counted)
    report(run, "snr_cosine_db", snr_cosine(schedule.num_scales), **names)
    report(run, "snr_linear_db", snr_linear(schedule.num_scales), **names)
    first, last = by_name["latent"].mean(0)[[0, -1]].tolist()
    run.say(f"schedule {schedule.name}: latent SNR from {first:.1f} to {last:.1f} dB")
