"""Verb: train the multi-scale VQ-VAE, or take over the weights of one that exists.

Reconstruction and commitment losses, restart of codes that nobody uses, averaged weights, random
scale dropping: one tokenizer then serves every schedule that ends at its latent size. Writes
tokenizer.safetensors; resumes from resume.safetensors. Several processes (torchrun) share each
batch, and take the steps that one would take, up to rounding.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

import torch

from srdd.config import TokenizerConfig
from srdd.files import check_config, load_foreign
from srdd.noise import generator
from srdd.official_tokenizer import import_tokenizer, tokenizer_config, untold
from srdd.quantizer import Quantizer, tree_order
from srdd.tokenizer import Tokenizer
from srdd.tokenizer_checkpoint import load_tokenizer, save_tokenizer

from ..runtime.verb import Run
from ..study.settings import WeightsConfig
from ..study.tokenizer_settings import TokenizerSpec, TokenizerTraining
from .tokenizer_trainer import train
from .weights import read_weights

STAGE = "tokenizer"
INPUTS = ("data",)
SHARED = True


def load_external(run: Run, spec: TokenizerSpec, file: str) -> Tokenizer:
    """A tokenizer that exists: an official .pth, or a safetensors of ours; compared with the
    study's sizes."""
    weights = WeightsConfig(file=file, sha256=spec.sha256)
    readers = sys.modules[__name__]
    return cast(Tokenizer, read_weights(run, "tokenizer.weights", weights, readers, spec.config))


def read_pth(path: Path, wanted: TokenizerConfig) -> Tokenizer:
    """An official VQ-VAE (VAR, arXiv 2404.02905), completed by the study's config."""
    state, more = load_foreign(path), untold(wanted)
    sizes = tokenizer_config(state, wanted.patch_nums, **more)
    check_config(path, json.loads(sizes.model_dump_json()), wanted)
    return import_tokenizer(state, wanted.patch_nums, **more)


def read_safetensors(path: Path, wanted: TokenizerConfig) -> Tokenizer:
    """A tokenizer of this project."""
    return load_tokenizer(path, expect=wanted)


@torch.no_grad()
def put_in_order(quantizer: Quantizer, config: TokenizerTraining) -> None:
    """The codes in the order asked for: another index for each, and nothing else."""
    codes_VC, order = quantizer.codebook_VC, config.code_order
    if order == "tree":
        codes_VC.copy_(codes_VC[tree_order(codes_VC)])
    elif order == "shuffled":
        source = generator("code order", config.seed)
        codes_VC.copy_(codes_VC[torch.randperm(len(codes_VC), generator=source)])


def work(run: Run) -> None:
    spec = run.settings("tokenizer", TokenizerSpec)
    if spec.weights is None:
        tokenizer = train(run, spec).cpu()
    elif run.ranks.first:
        tokenizer = load_external(run, spec, spec.weights)
    if run.ranks.first:
        put_in_order(tokenizer.quantizer, spec.training)
        save_tokenizer(run.out / "tokenizer.safetensors", tokenizer)
