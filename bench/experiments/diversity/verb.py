"""Verb: a few samplers of one trained model for what scores do not show: the spectra of the states
that its scales read, how far apart images of a class are, and images of the same seeds.

`spectrum_real_i`: mean over images of the i-th singular value over the first, of the state that a
scale reads of held-out tokens; `spectrum_drawn_i` of drawn tokens; `spectrum_read_i` of the latter
as the network reads it where svd_in is above 0. `spread_<extractor>`: of `metric_spread`. Writes
strip.npz: the first images of each sampler.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from srdd.config import SamplerConfig
from srdd.diversity import reshaped_scales, reweight, spectrum
from srdd.quantizer import Ladder

from ...pipeline.artefacts import model_identity, open_tokens, save_npz
from ...pipeline.evaluators import open_evaluators, scores_of
from ...pipeline.labels import asked_labels, first_sample
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.sampling import made_ready, sample_into
from ...runtime.progress import Progress
from ...runtime.verb import Run
from ...study.settings import EvaluationConfig
from .plan import Settings

INPUTS = ("data", "tokenizer", "features", "tokens", "train")

WALL = 12  # images of each sampler that are kept


@torch.no_grad()
def spectra(ladder: Ladder, tokens_NL: torch.Tensor) -> dict[int, torch.Tensor]:
    """The state that each scale reads of given tokens, by scale, from the first that reads one."""
    inputs_NLC = ladder.teacher_forced_inputs(tokens_NL)
    slices = ladder.schedule.slices
    return {k: inputs_NLC[:, slices[k]] for k in range(1, len(slices))}


class Probe:
    """A trained model and the images asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.evaluation: EvaluationConfig = run.settings("evaluation", EvaluationConfig)
        self.settings: Settings = run.settings("diversity", Settings)
        self.tokenizer = open_tokenizer(run)
        weights = run.inputs["train"] / "model.safetensors"
        self.model = made_ready(
            open_model(run, weights), self.evaluation, self.evaluation.num_images
        )
        self.ladder = self.tokenizer.at(self.model.schedule).read_as(self.model.config.state)
        self.first = first_sample(self.evaluation, run.config["train_seed"])
        seeds = range(self.first, self.first + self.settings.num_images)
        classes, rule = self.model.config.num_classes, self.evaluation.labels
        self.labels_N = asked_labels(run.inputs["data"], classes, seeds, rule)
        self.evaluators = open_evaluators(run, ("spread",))

    def report_spectrum(self, what: str, maps: dict[int, torch.Tensor], **names: Any) -> None:
        """Mean over images of every singular value over the first, of each scale."""
        for k, x_NlC in maps.items():
            for i, value in enumerate(spectrum(x_NlC).mean(0).tolist(), 1):
                count = {"num_images": len(x_NlC)}
                self.run.add(f"spectrum_{what}_{i}", value, "share", scale=k, **count, **names)

    def report_real(self) -> None:
        """Spectra of held-out tokens."""
        tokens_NL = open_tokens(self.run.inputs["tokens"], "test")
        kept_NL = torch.from_numpy(np.array(tokens_NL[: self.settings.num_images])).long()
        maps = spectra(self.ladder, kept_NL.to(self.run.device))
        self.report_spectrum("real", maps, **model_identity(self.run))

    def report(self, entry: dict[str, Any], progress: Progress) -> np.ndarray:
        """Draw one sampler, report of it, and give its first images."""
        sampler = SamplerConfig.model_validate_json(json.dumps(entry["sampler"]))
        names = {**model_identity(self.run), "sampler": entry["name"]}
        config = self.tokenizer.config
        side, count = config.image_size, self.settings.num_images
        images = np.empty((count, config.in_channels, side, side), np.uint8)
        # all at once, so that all tokens come back
        how = self.labels_N, self.first, count, progress
        tokens_NL, _ = sample_into(images, self.model, self.tokenizer, sampler, *how)
        drawn = spectra(self.ladder, tokens_NL)
        self.report_spectrum("drawn", drawn, **names)
        if sampler.svd_in > 0:
            energy = sampler.svd_norm == "energy"
            scales = reshaped_scales(sampler, self.model.schedule.num_scales)
            read = {k: reweight(drawn[k], sampler.svd_in, energy) for k in scales}
            self.report_spectrum("read", read, **names)
        asked_N = self.labels_N.numpy() if self.model.config.conditional else None
        for name, (value, _) in scores_of(self.evaluators, images, asked_N).items():
            self.run.add(name, value, "ratio", num_images=count, **names)
        return images[:WALL]


def work(run: Run) -> None:
    probe, entries = Probe(run), run.config["samplers"]
    probe.report_real()
    progress = Progress(run.run_id, probe.settings.num_images * len(entries), unit="image")
    walls = {f"{entry['name']}/wall": probe.report(entry, progress) for entry in entries}
    progress.close()
    save_npz(run.out / "strip.npz", **walls)
