"""Verb: held-out images and what a tokenizer makes of them: their PSNR, and some to look at.

Writes strip.npz: a few held-out images, one of each class in turn, and their reconstructions.
"""

from __future__ import annotations

import numpy as np

from srdd.schedule import ScaleSchedule

from ...pipeline.artefacts import open_split, open_tokens, save_npz, tokenizer_identity
from ...pipeline.labels import in_turn
from ...pipeline.likeness import psnr
from ...pipeline.networks import open_tokenizer
from ...pipeline.tokenizing import BATCH, reconstruct
from ...runtime.progress import track
from ...runtime.verb import Run
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens")


def work(run: Run) -> None:
    shown = run.settings("tokenizers", Settings).shown
    schedule = ScaleSchedule(tuple(run.config["patch_nums"]))
    images, tokens_NL = (
        open_split(run.inputs["data"], "test"),
        open_tokens(run.inputs["tokens"], "test"),
    )
    tokenizer = open_tokenizer(run)
    chunks = [range(i, min(i + BATCH, len(images))) for i in range(0, len(images), BATCH)]
    likeness = []
    for chunk in track(chunks, f"reconstruct {schedule.name}", len(chunks)):
        made_NCHW = reconstruct(
            tokenizer, schedule, tokens_NL[chunk.start : chunk.stop], run.device
        )
        likeness.append(psnr(images.array(chunk), made_NCHW))
    names = {**tokenizer_identity(run), "model": schedule.name}
    mean = float(np.concatenate(likeness).mean())
    run.add("reconstruction_psnr_test", mean, "dB", num_images=len(images), **names)
    picks = in_turn(images.labels_N, min(shown, len(images)))
    save_npz(
        run.out / "strip.npz",
        original=images.array(picks.tolist()),
        reconstructed=reconstruct(tokenizer, schedule, tokens_NL[picks], run.device),
    )
    run.say(f"schedule {schedule.name}: PSNR of held-out images {mean:.2f} dB")
