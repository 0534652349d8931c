"""Verb: take over the weights of an official VAR, or of a model of this project.

VAR: arXiv 2404.02905.
The file is checked by its sum and compared with the study's sizes. Writes model.safetensors, which
everything downstream reads as that of a training; there are no snapshots.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

from srdd.checkpoint import load_foreign, load_model, save_model
from srdd.config import ModelConfig
from srdd.files import check_config
from srdd.model import ScaleTransformer
from srdd.official import import_model, model_config, schedule_of
from srdd.official_tokenizer import untold

from ..runtime.verb import Run
from ..study.settings import WeightsConfig
from .weights import read_weights

STAGE = "import_model"
GPU = False


def read_pth(path: Path, wanted: ModelConfig) -> ScaleTransformer:
    """An official VAR transformer (arXiv 2404.02905); what its shapes do not tell, such as the
    mask, comes from the study."""
    state, more = load_foreign(path), untold(wanted)
    patch_nums = schedule_of(state) if "lvl_1L" in state else wanted.patch_nums
    sizes = model_config(state, patch_nums, **more)
    check_config(path, json.loads(sizes.model_dump_json()), wanted)
    return import_model(state, wanted.patch_nums, **more)


def read_safetensors(path: Path, wanted: ModelConfig) -> ScaleTransformer:
    """A model of this project."""
    return load_model(path, expect=wanted)


def work(run: Run) -> None:
    weights = run.settings("weights", WeightsConfig)
    wanted, readers = run.settings("model", ModelConfig), sys.modules[__name__]
    model = cast(ScaleTransformer, read_weights(run, "weights", weights, readers, wanted))
    save_model(run.out / "model.safetensors", model, imported=weights.sha256)
    count = sum(parameter.numel() for parameter in model.parameters())
    run.add("parameters", count, "weights", **run.job["identity"])
    run.say(
        f"imported {count / 1e6:.1f} million weights from {run.files.get('weights', weights.file)}"
    )
