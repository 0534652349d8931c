"""Verb: held-out images and what a tokenizer makes of them: their PSNR, and some to look at.

Writes strip.npz: a few held-out images, one of each class in turn, and their reconstructions.
"""

from __future__ import annotations

import numpy as np

from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer

from ...pipeline.artefacts import open_split, open_tokens, save_npz, tokenizer_identity
from ...pipeline.datasets import SplitImages
from ...pipeline.labels import in_turn
from ...pipeline.likeness import psnr
from ...pipeline.networks import open_tokenizer
from ...pipeline.tokenizing import BATCH, reconstruct
from ...runtime.progress import track
from ...runtime.verb import Run
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens")


def mean_psnr(
    run: Run,
    tokenizer: Tokenizer,
    schedule: ScaleSchedule,
    images: SplitImages,
    tokens_NL: np.ndarray,
) -> float:
    """Mean over images of the PSNR of their reconstructions, in dB."""
    chunks = [range(i, min(i + BATCH, len(images))) for i in range(0, len(images), BATCH)]
    likeness = []
    for chunk in track(chunks, f"reconstruct {schedule.name}", len(chunks)):
        tokens_bL = tokens_NL[chunk.start : chunk.stop]
        made_NCHW = reconstruct(tokenizer, schedule, tokens_bL, run.device)
        likeness.append(psnr(images.array(chunk), made_NCHW))
    return float(np.concatenate(likeness).mean())


def work(run: Run) -> None:
    shown = run.settings("tokenizers", Settings).shown
    schedule = ScaleSchedule(tuple(run.config["patch_nums"]))
    images = open_split(run.inputs["data"], "test")
    tokens_NL = open_tokens(run.inputs["tokens"], "test")
    tokenizer = open_tokenizer(run)
    mean = mean_psnr(run, tokenizer, schedule, images, tokens_NL)
    names = {**tokenizer_identity(run), "model": schedule.name}
    run.add("reconstruction_psnr_test", mean, "dB", num_images=len(images), **names)
    picks = in_turn(images.labels_N, min(shown, len(images)))
    save_npz(
        run.out / "strip.npz",
        original=images.array(picks.tolist()),
        reconstructed=reconstruct(tokenizer, schedule, tokens_NL[picks], run.device),
    )
    run.say(f"schedule {schedule.name}: PSNR of held-out images {mean:.2f} dB")
