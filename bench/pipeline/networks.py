"""Networks that one job leaves and another reads: tokenizers and scale transformers, on a device.

Apart from `artefacts`, since they need torch.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from srdd.checkpoint import load_model
from srdd.config import ModelConfig, TokenizerConfig
from srdd.model import ScaleTransformer
from srdd.tokenizer import Tokenizer
from srdd.tokenizer_checkpoint import load_tokenizer

from ..runtime.verb import Run


def open_tokenizer(run: Run) -> Tokenizer:
    """The tokenizer that a run reads, on its device.

    Raises ValueError for one of another config.
    """
    wanted = TokenizerConfig.model_validate_json(json.dumps(run.config["tokenizer"]["config"]))
    return placed(
        load_tokenizer(run.inputs["tokenizer"] / "tokenizer.safetensors", expect=wanted), run.device
    )


def placed(tokenizer: Tokenizer, device: torch.device) -> Tokenizer:
    """A tokenizer on a device, in the layout that a GPU's convolutions compute in."""
    tokenizer = tokenizer.to(device)
    return in_layout(tokenizer, torch.channels_last) if device.type == "cuda" else tokenizer


def in_layout(tokenizer: Tokenizer, layout: torch.memory_format) -> Tokenizer:
    """A tokenizer whose four-dimensional weights lie in memory so."""
    # torch's stubs lack this overload of Module.to
    return tokenizer.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def open_model(run: Run, path: Path) -> ScaleTransformer:
    """The trained model that a run reads, on its device.

    Raises ValueError for one of another config.
    """
    return load_model(path, expect=run.settings("model", ModelConfig)).to(run.device)
