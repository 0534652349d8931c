"""Verb: draw images from a trained model; image i of a training has one seed in every variant, so that comparisons are paired.

Writes images.npy (uint8, shape (checkpoints, N, C, S, S)), labels.npy and steps.json (null: the
kept weights); a figure strip of one picture growing through its scales (strip.npy); and reports
what a picture costs. Several processes (torchrun) share the pictures. A batch that does not fit
into memory is halved: the numbers that an image is drawn with follow from its seed, and the image
itself from its batch only by rounding, which may flip a draw (3 of 64 images between batches of 16
and 5, float32 on a CPU, a small network at the 256-pixel schedule).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from srdd.config import ModelConfig, SamplerConfig
from srdd.cost import sampling_cost
from srdd.model import ScaleTransformer
from srdd.sampling import generate
from srdd.tokenizer import Tokenizer
from srdd.watch import Calls

from ..runtime.progress import Progress
from ..runtime.ranks import Ranks
from ..runtime.rows import write_text
from ..runtime.verb import Run, is_out_of_memory
from ..study.errors import ConfigError
from ..study.settings import EvaluationConfig
from .datasets import to_uint8
from .encode import open_tokenizer
from .floors import DTYPES
from .labels import asked_labels, first_sample
from .prepare import save_array
from .train import model_identity, open_model

INPUTS = ("data", "tokenizer", "train")
SHARED = True

STRIP = 10


class Ready(Protocol):
    """Settings of how a network runs when it samples."""

    precision: str
    compile: bool


def made_ready(model: ScaleTransformer, settings: Ready) -> ScaleTransformer:
    """A model as it samples: its weights in the precision asked for, its step compiled where that is asked for."""
    model.to(DTYPES[settings.precision])
    if settings.compile:
        model.compile_step()
    return model


@torch.no_grad()
def sample_into(
    images_NCHW: np.ndarray,
    model: ScaleTransformer,
    tokenizer: Tokenizer,
    sampler: SamplerConfig,
    labels_N: torch.Tensor,
    first: int,
    batch: int,
    progress: Progress,
    calls: Calls | None = None,
) -> tuple[torch.Tensor, int]:
    """Fill an array with images of given labels and consecutive seeds, batch by batch: never all in memory.

    calls: counts those of the network. Returns the tokens of the first `batch` images, and the batch size that fitted into memory.
    """
    ladder, device = tokenizer.at(model.schedule), model.position.device
    labels_N = labels_N.to(device)
    kept, asked, i = [], max(batch, STRIP), 0
    while i < len(images_NCHW):
        labels_B = labels_N[i : i + batch]
        try:
            counted, seeds = Calls(), range(first + i, first + i + len(labels_B))
            tokens_BL, f_hat_BChw = generate(model, ladder, labels_B, seeds, sampler, None, counted)
            images_NCHW[i : i + len(labels_B)] = to_uint8(tokenizer.to_image(f_hat_BChw)).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if len(labels_B) == 1 or not is_out_of_memory(error):
                raise
            tokens_BL = f_hat_BChw = None
        if tokens_BL is None:  # outside of the handler, which holds what did not fit
            batch = len(labels_B) // 2
            model.free_compiled()
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        if calls is not None:  # of a batch that did not fit none count
            calls.add(counted)
        if i < asked:
            kept.append(tokens_BL[: asked - i])
        progress.advance(len(labels_B))
        i += len(labels_B)
    return torch.cat(kept), batch


def smaller(run: Run, batch: int, fitted: int) -> int:
    """The batch size to go on with; a smaller one is said."""
    if fitted < batch:
        text = f"{fitted} pictures at once fit, and are the same up to rounding"
        run.say(f"batch_size {batch}: out of memory; {text}", all_ranks=True)
    return fitted


@contextmanager
def filled_together(path: Path, shape: tuple[int, ...], ranks: Ranks) -> Iterator[np.ndarray]:
    """A new array of bytes on disk that the processes of one machine fill together; it gets its name when all have filled their part,
    and never when one has not."""
    temporary = path.with_name(f".{path.name}.{int(ranks.gather(torch.tensor(os.getpid()))[0])}.tmp")
    try:
        if ranks.first:
            np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        ranks.wait()
        array = np.lib.format.open_memmap(temporary, "r+")
        yield array
        array.flush()
        ranks.wait()
        if ranks.first:
            os.replace(temporary, path)
    finally:
        if ranks.first:
            temporary.unlink(missing_ok=True)


@torch.no_grad()
def growth(tokenizer: Tokenizer, model: ScaleTransformer, tokens_BL: torch.Tensor) -> np.ndarray:
    """The pictures after scale 0, 1, ... K-1: uint8 of shape (B, K, C, S, S)."""
    states = tokenizer.at(model.schedule).states(tokens_BL)
    return torch.stack([to_uint8(tokenizer.to_image(state)) for state in states], 1).cpu().numpy()


def checkpoints(folder: Path, snapshots: bool) -> list[tuple[int | None, Path]]:
    """The kept weights, or all snapshots in order of their step."""
    if not snapshots:
        return [(None, folder / "model.safetensors")]
    found = sorted((folder / "snapshots").glob("step_*.safetensors"))
    if not found:
        raise ConfigError(f"{folder}/snapshots: holds no weights; train again")
    return [(int(path.stem.removeprefix("step_")), path) for path in found]


def work(run: Run) -> None:
    sampler, evaluation = run.settings("sampler", SamplerConfig), run.settings("evaluation", EvaluationConfig)
    tokenizer = open_tokenizer(run)
    weights = checkpoints(run.inputs["train"], run.config["snapshots"])
    size, N = tokenizer.config, evaluation.num_images
    shape = (len(weights), N, size.in_channels, size.image_size, size.image_size)
    mine, batch = run.ranks.rows(N), evaluation.batch_size
    first = first_sample(evaluation, run.config["train_seed"])
    num_classes = run.settings("model", ModelConfig).num_classes
    labels_N = asked_labels(run.inputs["data"], num_classes, range(first, first + N), evaluation.labels)
    calls = Calls()
    progress = Progress(run.run_id, (mine.stop - mine.start) * len(weights), unit="picture", shown=run.ranks.first)
    with filled_together(run.out / "images.npy", shape, run.ranks) as images:
        for row, (_, path) in enumerate(weights):
            model = made_ready(open_model(run, path), evaluation)
            part, how = images[row, mine], (labels_N[mine], first + mine.start, batch, progress, calls)
            tokens_BL, fitted = sample_into(part, model, tokenizer, sampler, *how)
            batch = smaller(run, batch, fitted)
    progress.close()
    smallest = int(run.ranks.gather(torch.tensor(batch)).min())
    counted = Calls.of_table(run.ranks.total(calls.table(model.schedule.num_scales)))
    if not run.ranks.first:
        return
    save_array(run.out / "labels.npy", labels_N.numpy())
    save_array(run.out / "strip.npy", growth(tokenizer, model, tokens_BL[:STRIP]))
    write_text(run.out / "steps.json", json.dumps([step for step, _ in weights]))
    if not run.config["snapshots"]:
        run.add_cost(sampling_cost(model.config, sampler, counted), **model_identity(run))
    if smallest < evaluation.batch_size:
        run.add("sample_batch_fitted", smallest, "pictures", **model_identity(run))
