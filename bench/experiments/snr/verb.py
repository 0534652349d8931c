"""Verb: the signal-to-noise ratio after each scale of a tokenizer's ladder, beside two diffusion
schedules.

Per scale k, on held-out pictures: `snr_latent_db` of the state f_hat after scales 0 ... k against
the encoder's latent, `snr_pixel_db` of what the decoder makes of it against the picture in [-1, 1];
the mean, and with `_q10` and `_q90` the quantiles over pictures. `snr_cosine_db` and
`snr_linear_db`: DDPM's schedules at as many equally spaced times, noisy to clean.
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
    tokenizer: Tokenizer, schedule: ScaleSchedule, pictures: SplitImages, chosen_N: np.ndarray, device
) -> dict[str, torch.Tensor]:
    """SNR in dB of `latent` and `pixel` of chosen pictures, each float64 (N, K)."""
    ladder, found = tokenizer.at(schedule), {"latent": [], "pixel": []}
    batches = [chosen_N[i : i + BATCH].tolist() for i in range(0, len(chosen_N), BATCH)]
    for chunk in track(batches, f"snr {schedule.name}", len(batches)):
        images = to_float(pictures.read(chunk)).to(device)
        latent_BChw = tokenizer.to_latent(images)
        states = [f_hat_BChw for _, _, f_hat_BChw in ladder.quantize(latent_BChw)]
        found["latent"].append(
            torch.stack([snr_db(latent_BChw, f_hat_BChw) for f_hat_BChw in states], 1).cpu()
        )
        decoded = (tokenizer.to_image(f_hat_BChw).clamp(-1, 1) for f_hat_BChw in states)
        found["pixel"].append(torch.stack([snr_db(images, image) for image in decoded], 1).cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def work(run: Run) -> None:
    schedule, settings = (
        ScaleSchedule(tuple(run.config["patch_nums"])),
        run.settings("snr", Settings),
    )
    tokenizer = open_tokenizer(run)
    pictures = open_split(run.inputs["data"], "test")
    chosen_N = in_shares(pictures.labels_N, settings.num_images)
    names = {**tokenizer_identity(run), "model": schedule.name}
    found = measure(tokenizer, schedule, pictures, chosen_N, run.device)
    for name, values_NK in found.items():
        rows = {"": values_NK.mean(0)} | {
            f"_{end}": values_NK.quantile(share, 0) for end, share in QUANTILES.items()
        }
        for ending, values_K in rows.items():
            for k, value in enumerate(values_K.tolist()):
                run.add(
                    f"snr_{name}_db{ending}",
                    value,
                    "dB",
                    scale=k,
                    num_images=len(chosen_N),
                    **names,
                )
    for name, values_K in (
        ("cosine", snr_cosine(schedule.num_scales)),
        ("linear", snr_linear(schedule.num_scales)),
    ):
        for k, value in enumerate(values_K.tolist()):
            run.add(f"snr_{name}_db", value, "dB", scale=k, **names)
    first, last = found["latent"].mean(0)[[0, -1]].tolist()
    run.say(f"schedule {schedule.name}: latent SNR from {first:.1f} to {last:.1f} dB")
