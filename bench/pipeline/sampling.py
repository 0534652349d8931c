"""Images of a trained model, drawn batch by batch: what every verb that samples shares.

A batch that does not fit into memory is halved: the numbers that an image is drawn with follow from
its seed, and the image itself from its batch only by rounding.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from srdd.config import SamplerConfig
from srdd.heads import GaussHead
from srdd.memory import is_out_of_memory
from srdd.model import ScaleTransformer
from srdd.quantizer import Ladder
from srdd.sampling import generate
from srdd.tokenizer import Tokenizer
from srdd.watch import Calls

from ..runtime.progress import Progress
from ..runtime.ranks import Ranks
from ..runtime.verb import Run
from .compiled import sampling_compiles
from .datasets import to_uint8
from .floors import DTYPES
from .scratch import npy_on_disk

STRIP = 10  # images of the figure strip


class Ready(Protocol):
    """Settings of how a network runs when it samples."""

    @property
    def precision(self) -> str: ...

    @property
    def compile(self) -> bool | Literal["auto"]: ...


def made_ready(model: ScaleTransformer, settings: Ready, images: int = 0) -> ScaleTransformer:
    """A model as it samples: its weights in the precision asked for, its step compiled where that
    is asked for, or pays for so many images."""
    # a residual is drawn from the whole of its mean and width
    exact = copy.deepcopy(model.head) if isinstance(model.head, GaussHead) else None
    model.to(DTYPES[settings.precision])
    model.head = model.head if exact is None else exact
    if sampling_compiles(settings.compile, images, model.position.device):
        model.compile_step()
    return model


@torch.no_grad()
def draw_batch(
    images_BCHW: np.ndarray,
    model: ScaleTransformer,
    tokenizer: Tokenizer,
    sampler: SamplerConfig,
    labels_B: torch.Tensor,
    seeds: range,
) -> tuple[torch.Tensor, Calls] | None:
    """Fill an array with the images of some seeds; their tokens, and the calls of the network that
    they took.

    None where two or more do not fit into memory together.
    """
    try:
        calls, ladder = Calls(), tokenizer.at(model.schedule)
        tokens_BL, f_hat_BChw = generate(model, ladder, labels_B, seeds, sampler, None, calls)
        images_BCHW[:] = to_uint8(tokenizer.to_image(f_hat_BChw)).cpu().numpy()
    except (RuntimeError, MemoryError) as error:
        if len(labels_B) == 1 or not is_out_of_memory(error):
            raise
        return None
    return tokens_BL, calls


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
    """Fill an array with images of given labels and consecutive seeds, batch by batch: never all in
    memory.

    calls: counts those of the network. Returns the tokens of the first `batch` images, and the
    batch size that fitted into memory.
    """
    device = model.position.device
    labels_N = labels_N.to(device)
    kept: list[torch.Tensor] = []
    asked, i, freed = max(batch, STRIP), 0, False
    while i < len(images_NCHW):
        labels_B = labels_N[i : i + batch]
        seeds, rows = range(first + i, first + i + len(labels_B)), slice(i, i + len(labels_B))
        drawn = draw_batch(images_NCHW[rows], model, tokenizer, sampler, labels_B, seeds)
        if drawn is None:
            # recorded samples, those of other samplers too, may be what takes the room; where this
            # batch has none beside its own record, it goes on without one
            if not model.free_compiled(again=not freed):
                batch = len(labels_B) // 2
            freed = True
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        tokens_BL, counted = drawn
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
        text = f"{fitted} images at once fit, and are the same up to rounding"
        run.say(f"batch_size {batch}: out of memory; {text}", all_ranks=True)
    return fitted


@contextmanager
def filled_together(path: Path, shape: tuple[int, ...], ranks: Ranks) -> Iterator[np.ndarray]:
    """A new array of bytes on disk that the processes of one machine fill together.

    It gets its name when all have filled their part, and never when one has not.
    """
    first_process = int(ranks.gather(torch.tensor(os.getpid()))[0])
    temporary = path.with_name(f".{path.name}.{first_process}.tmp")
    try:
        if ranks.first:
            npy_on_disk(temporary, np.uint8, shape)
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


@dataclass(frozen=True)
class NotedLadder(Ladder):
    """A ladder that keeps the state after every scale."""

    noted: list[torch.Tensor] = field(default_factory=list)

    def add_scale(self, f_hat_BChw: torch.Tensor, codes_BlC: torch.Tensor, k: int) -> torch.Tensor:
        self.noted.append(super().add_scale(f_hat_BChw, codes_BlC, k))
        return self.noted[-1]


@torch.no_grad()
def growth(
    tokenizer: Tokenizer, model: ScaleTransformer, sampler: SamplerConfig,
    labels_B: torch.Tensor, first: int, tokens_BL: torch.Tensor,
) -> np.ndarray:  # fmt: skip
    """The images after scale 0, 1, ... K-1, uint8 of shape (B, K, C, S, S), of tokens that were
    drawn with these labels and the seeds from `first` on."""
    if not model.config.regresses:
        states = list(tokenizer.at(model.schedule).states(tokens_BL))
    else:
        # its images are of residuals, of which the tokens are only the nearest codes: drawn again
        ladder = NotedLadder(tokenizer.quantizer, model.schedule)
        model.free_compiled(again=False)  # a record of a sample would note nothing
        seeds = range(first, first + len(labels_B))
        generate(model, ladder, labels_B.to(model.position.device), seeds, sampler)
        states = ladder.noted
    return torch.stack([to_uint8(tokenizer.to_image(state)) for state in states], 1).cpu().numpy()
