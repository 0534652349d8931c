"""Verb: tokens of every split under one schedule, and what the tokenizer is worth there.

Writes <split>_tokens.npy (int32, memory-mapped by its readers). Reports, on held-out images, the
reconstruction error and, per scale, the codes in use and their perplexity; a collapsed scale is
named.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from srdd.schedule import ScaleSchedule

from ..runtime.verb import Run
from .artefacts import open_split, open_tokens, tokenizer_identity
from .datasets import SPLITS
from .networks import open_tokenizer
from .tokenizing import encode_split

INPUTS = ("data", "tokenizer")


class CodeUsage(NamedTuple):
    """How one scale of a split uses the codes; usable: those that it could use at all."""

    used: int
    perplexity: float
    usable: int

    @property
    def collapsed(self) -> bool:
        """Whether the scale uses a quarter or less of the codes that it could."""
        return self.perplexity <= self.usable / 4


def usable_codes(codebook_size: int, tokens: int) -> int:
    """Codes that a scale could use at all: no more than there are, or than there are tokens to use
    them."""
    return min(codebook_size, tokens)


def code_usage(tokens_Nl: np.ndarray, codebook_size: int) -> CodeUsage:
    """Codes in use among the tokens of one scale, and their perplexity, exp of the entropy of their
    shares."""
    share_V = np.bincount(tokens_Nl.ravel(), minlength=codebook_size) / tokens_Nl.size
    used = share_V[share_V > 0]
    perplexity = float(np.exp(-(used * np.log(used)).sum()))
    return CodeUsage(len(used), perplexity, usable_codes(codebook_size, tokens_Nl.size))


def report_scale(run: Run, k: int, usage: CodeUsage, names: dict[str, Any]) -> None:
    """How one scale uses the codes; a collapsed one is said."""
    run.add("codes_used", usage.used, "codes", scale=k, **names)
    run.add("code_perplexity", usage.perplexity, "codes", scale=k, **names)
    run.add("codes_usable", usage.usable, "codes", scale=k, **names)
    run.add("scale_collapsed", int(usage.collapsed), "yes=1", scale=k, **names)
    if usage.collapsed:
        perplexity = f"perplexity {usage.perplexity:.1f} of {usage.usable} codes that it could use"
        run.say(f"scale {k} has collapsed: {perplexity}")


def work(run: Run) -> None:
    schedule = ScaleSchedule(tuple(run.config["patch_nums"]))
    tokenizer = open_tokenizer(run)
    names = {**tokenizer_identity(run), "model": schedule.name}
    for split in SPLITS:
        images = open_split(run.inputs["data"], split)
        label, path = f"encode {split} {schedule.name}", run.out / f"{split}_tokens.npy"
        error = encode_split(tokenizer, schedule, images, path, run.device, label)
        run.add(f"reconstruction_mse_{split}", error, "mse", num_images=len(images), **names)
    tokens_NL = open_tokens(run.out, "test")
    for k, piece in enumerate(schedule.slices):
        usage = code_usage(tokens_NL[:, piece], tokenizer.config.codebook_size)
        report_scale(run, k, usage, {**names, "num_images": len(tokens_NL)})
    run.say(f"schedule {schedule.name}: held-out error {error:.4f}")
