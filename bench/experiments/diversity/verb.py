"""Verb: a few samplers of one trained model for what scores do not show: the spectra of the states
that its scales read, how far apart images of a class are, and images of the same seeds.

`spectrum_real_i`: mean over images of the i-th singular value over the first, of the state that a
scale reads of held-out tokens; `spectrum_drawn_i` of drawn tokens; `spectrum_read_i` of the latter
as the network reads it where svd_in is above 0. `spread_<extractor>`: of `metric_spread`. Writes
strip.npz: the first images of each sampler.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from srdd.config import SamplerConfig
from srdd.diversity import reshaped_scales, reweight, spectrum
from srdd.quantizer import Ladder

from ...pipeline.artefacts import model_identity, open_labels, open_tokens, save_npz
from ...pipeline.at_once import at_once
from ...pipeline.evaluators import open_evaluators, scores_of
from ...pipeline.labels import asked_labels, first_sample, in_shares
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.sampling import made_ready, sample_into
from ...pipeline.scratch import bytes_on_disk
from ...runtime.progress import Progress
from ...runtime.verb import Run
from ...study.settings import EvaluationConfig
from .plan import Settings

INPUTS = ("data", "tokenizer", "features", "tokens", "train")

WALL = 12  # images of each sampler that are kept
TOGETHER = 1024  # images whose states are looked at at once

Read = Callable[[torch.Tensor], torch.Tensor]


@torch.no_grad()
def spectra(ladder: Ladder, tokens_NL: torch.Tensor) -> dict[int, torch.Tensor]:
    """The state that each scale reads of given tokens, by scale, from the first that reads one."""
    inputs_NLC = ladder.teacher_forced_inputs(tokens_NL)
    slices = ladder.schedule.slices
    return {k: inputs_NLC[:, slices[k]] for k in range(1, len(slices))}


def mean_spectra(
    ladder: Ladder, tokens_NL: torch.Tensor, read: Mapping[int, Read] | None = None
) -> dict[int, list[float]]:
    """Mean over images of every singular value over the first, of the state that each scale reads
    of given tokens; read: what some scales make of it, and no others are asked."""
    values: dict[int, list[torch.Tensor]] = {}
    for tokens_BL in tokens_NL.split(TOGETHER):
        for k, x_BlC in spectra(ladder, tokens_BL).items():
            if read is None or k in read:
                seen_BlC = x_BlC if read is None else read[k](x_BlC)
                values.setdefault(k, []).append(spectrum(seen_BlC))
    return {k: torch.cat(parts).mean(0).tolist() for k, parts in values.items()}


class Probe:
    """A trained model and the images asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.evaluation: EvaluationConfig = run.settings("evaluation", EvaluationConfig)
        self.settings: Settings = run.settings("diversity", Settings)
        self.tokenizer = open_tokenizer(run)
        weights = run.inputs["train"] / "model.safetensors"
        self.model = made_ready(open_model(run, weights), self.evaluation, self.settings.num_images)
        self.ladder = self.tokenizer.at(self.model.schedule).read_as(self.model.config.state)
        self.first = first_sample(self.evaluation, run.config["train_seed"])
        seeds = range(self.first, self.first + self.settings.num_images)
        classes, rule = self.model.config.num_classes, self.evaluation.labels
        self.labels_N = asked_labels(run.inputs["data"], classes, seeds, rule)
        self.evaluators = open_evaluators(run, ("spread",))

    def report_spectrum(
        self,
        what: str,
        tokens_NL: torch.Tensor,
        read: Mapping[int, Read] | None = None,
        **names: Any,
    ) -> None:
        """`mean_spectra` of tokens."""
        names |= {"num_images": len(tokens_NL)}
        for k, values in mean_spectra(self.ladder, tokens_NL, read).items():
            for i, value in enumerate(values, 1):
                self.run.add(f"spectrum_{what}_{i}", value, "share", scale=k, **names)

    def report_real(self) -> None:
        """Spectra of held-out tokens, of every class its share."""
        tokens_NL = open_tokens(self.run.inputs["tokens"], "test")
        labels_N = open_labels(self.run.inputs["data"], "test")
        rows = in_shares(labels_N, self.settings.num_images)
        kept_NL = torch.from_numpy(np.array(tokens_NL[rows])).long()
        self.report_spectrum("real", kept_NL.to(self.run.device), **model_identity(self.run))

    def drawn(self, images: np.ndarray, sampler: SamplerConfig, progress: Progress) -> torch.Tensor:
        """Fill an array with images of a sampler; all their tokens. As many at once as go through a
        network together."""
        tokens, size = [], at_once(len(images), images.shape[-1])
        for i in range(0, len(images), size):
            labels_B, rows = self.labels_N[i : i + size], slice(i, i + size)
            how = labels_B, self.first + i, len(labels_B), progress
            drawn = sample_into(images[rows], self.model, self.tokenizer, sampler, *how)
            tokens.append(drawn[0])
        return torch.cat(tokens)

    def report(self, entry: dict[str, Any], progress: Progress) -> np.ndarray:
        """Draw one sampler, report of it, and give its first images."""
        sampler = SamplerConfig.model_validate_json(json.dumps(entry["sampler"]))
        names = {**model_identity(self.run), "sampler": entry["name"]}
        config = self.tokenizer.config
        side, count = config.image_size, self.settings.num_images
        images = bytes_on_disk(self.run.out, (count, config.in_channels, side, side))
        tokens_NL = self.drawn(images, sampler, progress)
        self.model.free_compiled()  # no other sampler draws from what was recorded of this one
        self.report_spectrum("drawn", tokens_NL, **names)
        if sampler.svd_in > 0:
            scales = reshaped_scales(sampler, self.model.schedule.num_scales)
            energy = sampler.svd_norm == "energy"
            reshaped = partial(reweight, beta=sampler.svd_in, energy=energy)
            self.report_spectrum("read", tokens_NL, dict.fromkeys(scales, reshaped), **names)
        asked_N = self.labels_N.numpy() if self.model.config.conditional else None
        for name, (value, _) in scores_of(self.evaluators, images, asked_N).items():
            self.run.add(name, value, "ratio", num_images=count, **names)
        return np.array(images[:WALL])


def work(run: Run) -> None:
    probe, entries = Probe(run), run.config["samplers"]
    probe.report_real()
    progress = Progress(run.run_id, probe.settings.num_images * len(entries), unit="image")
    walls = {f"{entry['name']}/wall": probe.report(entry, progress) for entry in entries}
    progress.close()
    save_npz(run.out / "strip.npz", **walls)
