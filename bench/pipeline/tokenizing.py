"""Images to tokens and back, batch by batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer

from ..runtime.progress import track
from ..runtime.rows import written_whole
from .at_once import at_once
from .datasets import SplitImages, to_float, to_uint8
from .scratch import npy_on_disk

BATCH = 256


@torch.no_grad()
def encode_split(
    tokenizer: Tokenizer,
    schedule: ScaleSchedule,
    images: SplitImages,
    path: Path,
    device: torch.device,
    label: str,
) -> float:
    """Write the tokens of one split; returns its mean square reconstruction error on images in [-1,
    1]."""
    squared, ladder, N = 0.0, tokenizer.at(schedule), len(images)
    size = at_once(BATCH, tokenizer.config.image_size)
    chunks = [range(i, min(i + size, N)) for i in range(0, N, size)]
    with written_whole(path) as temporary:
        tokens_NL = npy_on_disk(temporary, np.int32, (N, schedule.seq_len))
        for chunk in track(chunks, label, len(chunks)):
            images_BCHW = to_float(images.read(chunk).to(device))
            tokens_BL, f_hat_BChw = ladder.encode(tokenizer.to_latent(images_BCHW))
            error_BCHW = tokenizer.to_image(f_hat_BChw).clamp(-1, 1) - images_BCHW
            squared += error_BCHW.square().mean((1, 2, 3)).double().sum().item()
            tokens_NL[chunk.start : chunk.stop] = tokens_BL.cpu().numpy()
        tokens_NL.flush()
    return squared / N


@torch.no_grad()
def reconstruct(
    tokenizer: Tokenizer, schedule: ScaleSchedule, tokens_NL: np.ndarray, device: torch.device
) -> np.ndarray:
    """Images of stored tokens, uint8."""
    parts, size = [], at_once(BATCH, tokenizer.config.image_size)
    for i in range(0, len(tokens_NL), size):
        tokens_BL = torch.from_numpy(tokens_NL[i : i + size].astype(np.int64)).to(device)
        parts.append(to_uint8(tokenizer.decode(tokens_BL, schedule)).cpu().numpy())
    return np.concatenate(parts)
