"""Weights on disk: safetensors with the config inside; the public place of everything that reads or
writes weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from .config import ModelConfig
from .files import (
    fill,
    load_foreign,
    load_metadata,
    load_module,
    load_tensors,
    save_module,
    save_tensors,
)
from .model import ScaleTransformer
from .official import import_official
from .tokenizer_checkpoint import load_tokenizer, save_tokenizer

__all__ = [
    "import_official",
    "load_foreign",
    "load_model",
    "load_tensors",
    "load_tokenizer",
    "save_model",
    "save_tensors",
    "save_tokenizer",
]


def save_model(path: str | Path, model: ScaleTransformer, **extra: Any) -> None:
    """Write a scale transformer with its config (VAR, arXiv 2404.02905) as safetensors.

    Raises ValueError for a model with an explicit mask, which no config names, so that reading
    would lose it.
    """
    if model.mask_LL is not None and model.config.mask is None:
        raise ValueError(
            f"{path}: a model with an explicit mask_LL is not saved, the mask would be lost; "
            "write it as a mask_<name> in "
            "srdd/masks.py and set mask to its name"
        )
    if model.config.mask is not None:
        assert model.mask_LL is not None
        extra["mask_sha256"] = _digest(model.mask_LL)
    save_module(path, model, model.config, "model", extra)


def _digest(mask_LL: torch.Tensor) -> str:
    return hashlib.sha256(mask_LL.cpu().numpy().tobytes()).hexdigest()


def load_model(path: str | Path, expect: ModelConfig | None = None) -> ScaleTransformer:
    """Read a scale transformer (VAR, arXiv 2404.02905), in evaluation mode. Raises ValueError when
    damaged or not as expected, and where its named mask is another one now."""
    config, tensors = load_module(path, "model", ModelConfig, expect)
    model = fill(ScaleTransformer(config), tensors, path).eval()
    saved = load_metadata(path).get("mask_sha256")
    if saved is not None and (model.mask_LL is None or saved != _digest(model.mask_LL)):
        raise ValueError(
            f"{path}: saved with another mask_{config.mask} than srdd/masks.py has now; "
            "restore that one, or train again"
        )
    return model
