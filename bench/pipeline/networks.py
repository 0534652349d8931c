"""Networks that a job starts from: a seed's first one, or what another job left, on a device.

Apart from `artefacts`, since they need torch.
"""

from __future__ import annotations

import json
from pathlib import Path

from srdd.checkpoint import load_model
from srdd.config import ModelConfig, TokenizerConfig
from srdd.model import ScaleTransformer
from srdd.noise import first_weights, generator
from srdd.tokenizer import Tokenizer
from srdd.tokenizer_checkpoint import load_tokenizer

from ..runtime.verb import Run


def open_tokenizer(run: Run) -> Tokenizer:
    """The tokenizer that a run reads, on its device.

    Raises ValueError for one of another config.
    """
    wanted = TokenizerConfig.model_validate_json(json.dumps(run.config["tokenizer"]["config"]))
    path = run.inputs["tokenizer"] / "tokenizer.safetensors"
    return load_tokenizer(path, expect=wanted).to(run.device)


def open_model(run: Run, path: Path) -> ScaleTransformer:
    """The trained model that a run reads, on its device.

    Raises ValueError for one of another config.
    """
    return load_model(path, expect=run.settings("model", ModelConfig)).to(run.device)


def first_network(config: ModelConfig, seed: int) -> ScaleTransformer:
    """The network that a training seed starts from."""
    with first_weights(seed):
        model = ScaleTransformer(config)
    model.init_weights(generator("model", seed))
    return model
