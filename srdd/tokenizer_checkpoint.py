"""A tokenizer on disk. Apart from checkpoint.py, which imports the model: an edit there must train
no tokenizer again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import TokenizerConfig
from .files import fill, load_module, save_module
from .tokenizer import Tokenizer


def save_tokenizer(path: str | Path, tokenizer: Tokenizer, **extra: Any) -> None:
    """Write a tokenizer with its config (VAR's VQ-VAE, arXiv 2404.02905) as safetensors."""
    save_module(path, tokenizer, tokenizer.config, "tokenizer", extra)


def load_tokenizer(path: str | Path, expect: TokenizerConfig | None = None) -> Tokenizer:
    """Read a tokenizer (VAR's VQ-VAE, arXiv 2404.02905), in evaluation mode. Raises ValueError when
    damaged or not as expected."""
    config, tensors = load_module(path, "tokenizer", TokenizerConfig, expect)
    return fill(Tokenizer(config), tensors, path).eval()
