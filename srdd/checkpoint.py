"""Weights on disk: safetensors with the config inside; the public place of everything that reads or writes weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import ModelConfig
from .files import fill, load_foreign, load_module, load_tensors, save_module, save_tensors
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
    """Write a scale transformer with its config (VAR, arXiv 2404.02905) as safetensors."""
    save_module(path, model, "model", extra)


def load_model(path: str | Path, expect: ModelConfig | None = None) -> ScaleTransformer:
    """Read a scale transformer (VAR, arXiv 2404.02905), in evaluation mode. Raises ValueError when damaged or not as expected."""
    config, tensors = load_module(path, "model", ModelConfig, expect)
    return fill(ScaleTransformer(config), tensors, path).eval()
