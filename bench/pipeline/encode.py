"""Verb: tokens of every split under one schedule, once for all trainings, and what the tokenizer is worth there.

Writes <split>_tokens.npy (int32, memory-mapped by its readers). Reports, on held-out pictures, the reconstruction error and, per
scale, the codes in use and their perplexity; a collapsed scale is named.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srdd.config import TokenizerConfig
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer
from srdd.tokenizer_checkpoint import load_tokenizer

from ..runtime.progress import track
from ..runtime.rows import written_whole
from ..runtime.verb import Run
from .datasets import SPLITS, Pictures, to_float
from .prepare import open_split

INPUTS = ("data", "tokenizer")

BATCH = 256


def open_tokenizer(run: Run) -> Tokenizer:
    """The tokenizer that a run reads, on its device. Raises ValueError for one of another config."""
    wanted = TokenizerConfig.model_validate_json(json.dumps(run.config["tokenizer"]["config"]))
    return placed(load_tokenizer(run.inputs["tokenizer"] / "tokenizer.safetensors", expect=wanted), run.device)


def tokenizer_identity(run: Run) -> dict[str, Any]:
    """The columns of metrics.csv that name a tokenizer: its settings, and the training seed that it is of; none where it
    serves all."""
    return {**run.job["identity"], "train_seed": run.config.get("tokenizer_seed")}


def placed(tokenizer: Tokenizer, device: torch.device) -> Tokenizer:
    """A tokenizer on a device, in the layout that a GPU's convolutions compute in."""
    tokenizer = tokenizer.to(device)
    return tokenizer.to(memory_format=torch.channels_last) if device.type == "cuda" else tokenizer


def usable_codes(codebook_size: int, tokens: int) -> int:
    """Codes that a scale could use at all: no more than there are, or than there are tokens to use them."""
    return min(codebook_size, tokens)


@torch.no_grad()
def encode_split(
    tokenizer: Tokenizer, schedule: ScaleSchedule, pictures: Pictures, path: Path, device: torch.device, label: str
) -> float:
    """Write the tokens of one split; returns its mean square reconstruction error on pictures in [-1, 1]."""
    squared, ladder = 0.0, tokenizer.at(schedule)
    chunks = [range(i, min(i + BATCH, len(pictures))) for i in range(0, len(pictures), BATCH)]
    with written_whole(path) as temporary:
        tokens_NL = np.lib.format.open_memmap(temporary, "w+", np.int32, (len(pictures), schedule.seq_len))
        for chunk in track(chunks, label, len(chunks)):
            images = to_float(pictures.read(chunk).to(device))
            tokens_BL, f_hat_BChw = ladder.encode(tokenizer.to_latent(images))
            error = tokenizer.to_image(f_hat_BChw).clamp(-1, 1) - images
            squared += error.square().mean((1, 2, 3)).double().sum().item()
            tokens_NL[chunk.start : chunk.stop] = tokens_BL.cpu().numpy()
        tokens_NL.flush()
    return squared / len(pictures)


def open_tokens(folder: Path, split: str) -> np.ndarray:
    """Tokens of a split, int32 of shape (N, L), mapped and not read."""
    return np.load(folder / f"{split}_tokens.npy", mmap_mode="r")


def work(run: Run) -> None:
    schedule = ScaleSchedule(tuple(run.config["patch_nums"]))
    tokenizer = open_tokenizer(run)
    V = tokenizer.config.codebook_size
    grid = schedule.name
    names = {**tokenizer_identity(run), "model": grid}
    for split in SPLITS:
        pictures = open_split(run.inputs["data"], split)
        path = run.out / f"{split}_tokens.npy"
        error = encode_split(tokenizer, schedule, pictures, path, run.device, f"encode {split} {grid}")
        run.add(f"reconstruction_mse_{split}", error, "mse", num_images=len(pictures), **names)
    tokens_NL = open_tokens(run.out, "test")
    for k, piece in enumerate(schedule.slices):
        share_V = np.bincount(tokens_NL[:, piece].ravel(), minlength=V) / tokens_NL[:, piece].size
        seen = share_V[share_V > 0]
        perplexity = float(np.exp(-(seen * np.log(seen)).sum()))
        usable = usable_codes(V, tokens_NL[:, piece].size)
        here = {**names, "scale": k, "num_images": len(tokens_NL)}
        run.add("codes_used", int(len(seen)), "codes", **here)
        run.add("code_perplexity", perplexity, "codes", **here)
        run.add("codes_usable", usable, "codes", **here)
        run.add("scale_collapsed", int(perplexity <= usable / 4), "yes=1", **here)
        if perplexity <= usable / 4:
            run.say(f"scale {k} has collapsed: perplexity {perplexity:.1f} of {usable} codes that it could use")
    run.say(f"schedule {grid}: held-out error {error:.4f}")
