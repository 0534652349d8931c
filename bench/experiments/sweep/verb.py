"""Verb: images and scores of many samplers of one trained model, in one process; the images are not
kept.

Every sampler draws the same seeds and is scored on all of them, against the whole reference, and on
each half, against a half of the reference of its own, so that a setting can be chosen on one half
and scored on the other: images that chose it score nothing. `half_reference_images` says how many
reference images a half was held against. Reports also, for the samplers here where they draw each
scale once, how probable the tokens are that they draw, per scale; a sampler of one's own may draw
from another distribution.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import torch

from srdd.config import SamplerConfig
from srdd.cost import sampling_cost
from srdd.diversity import reshaped_scales
from srdd.draw import distribution
from srdd.guidance import guidance_weights
from srdd.model import ScaleTransformer
from srdd.quantizer import Ladder
from srdd.watch import Calls

from ...pipeline.artefacts import model_identity
from ...pipeline.evaluators import Evaluator, open_evaluators, scores_of
from ...pipeline.labels import asked_labels, first_sample
from ...pipeline.metrics import MIN_IMAGES
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.reference import Reference, halves
from ...pipeline.sampling import made_ready, sample_into, smaller
from ...pipeline.scratch import bytes_on_disk
from ...runtime.progress import Progress
from ...runtime.verb import Run
from ...study.settings import EvaluationConfig
from .plan import Settings

INPUTS = ("data", "tokenizer", "features", "tokens", "train")

QUANTILES = (0.1, 0.5, 0.9)


@torch.no_grad()
def drawn_probabilities(
    model: ScaleTransformer,
    ladder: Ladder,
    tokens_BL: torch.Tensor,
    labels_B: torch.Tensor,
    sampler: SamplerConfig,
) -> list[torch.Tensor]:
    """Probability of every token under the guided distribution that it was drawn from, by scale:
    (B, l) each.

    Teacher-forced logits on drawn tokens are the logits of sampling, for every history.
    """
    schedule = model.schedule
    inputs_BLC = ladder.read_as(model.config.state).teacher_forced_inputs(tokens_BL)
    weights = guidance_weights(sampler.cfg_scale, sampler.cfg_ramp, schedule.num_scales)
    cond_BLV = uncond_BLV = model(inputs_BLC, labels_B)
    if any(w != 1.0 for w in weights):
        no_labels_B = torch.full_like(labels_B, model.config.null_label)
        uncond_BLV = model(inputs_BLC, no_labels_B)
    by_scale = []
    for w, piece in zip(weights, schedule.slices):
        # u + w (c - u), classifier-free guidance (arXiv 2207.12598)
        logits_BlV = uncond_BLV[:, piece] + w * (cond_BLV[:, piece] - uncond_BLV[:, piece])
        drawn_from = distribution(logits_BlV, sampler.temperature, sampler.top_k, sampler.top_p)
        by_scale.append(drawn_from.probability(tokens_BL[:, piece]))
    return by_scale


def parts_of(first: int, count: int, reference: Reference) -> list[tuple[int, int, Reference]]:
    """First seed, number of images and reference of what is scored: all, and each half where both
    sides of it are large enough for a score."""
    half, references = count // 2, halves(reference)
    whole = [(first, count, reference)]
    if half < MIN_IMAGES or references is None:
        return whole
    return [*whole, (first, half, references[0]), (first + half, count - half, references[1])]


def report_probabilities(
    run: Run, shares: list[torch.Tensor], thresholds: tuple[float, ...], identity: dict
) -> None:
    """Quantiles of the probabilities of drawn tokens, and the share below each threshold."""
    for k, share_Bl in enumerate(shares):
        values = share_Bl.double().flatten().cpu()
        where = {"scale": k, **identity}
        for q in QUANTILES:
            quantile = torch.quantile(values, q).item()
            run.add(f"drawn_probability_q{100 * q:g}", quantile, "probability", **where)
        for threshold in thresholds:
            below = (values < threshold).double().mean().item()
            run.add(f"drawn_below_{threshold:g}", below, "share", **where)


class Sweep:
    """A trained model, the images asked for, and what its samplers are scored against."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.evaluation: EvaluationConfig = run.settings("evaluation", EvaluationConfig)
        self.settings: Settings = run.settings("sweep", Settings)
        self.tokenizer = open_tokenizer(run)
        path = run.inputs["train"] / "model.safetensors"
        self.whole = open_model(run, path)  # for probabilities: in float32, not compiled
        self.model = made_ready(open_model(run, path), self.evaluation, self.evaluation.num_images)
        self.N, self.batch = self.evaluation.num_images, self.evaluation.batch_size
        self.first = first_sample(self.evaluation, run.config["train_seed"])
        seeds, classes = range(self.first, self.first + self.N), self.model.config.num_classes
        self.labels_N = asked_labels(run.inputs["data"], classes, seeds, self.evaluation.labels)
        # made once: the features of a reference are known by its images, and kept for all samplers
        self.parts: list[tuple[int, int, Evaluator]] = []
        for evaluator in open_evaluators(run, self.evaluation.metrics):
            parts = parts_of(self.first, self.N, evaluator.reference)
            for start, count, reference in parts if self.settings.halves else parts[:1]:
                self.parts.append((start, count, replace(evaluator, reference=reference)))
        self.main = self.parts[0][2].name

    def shape(self) -> tuple[int, ...]:
        """Of all images of a sampler."""
        size = self.tokenizer.config
        return self.N, size.in_channels, size.image_size, size.image_size

    def report_scores(self, images: np.ndarray, names: dict[str, str]) -> None:
        """Scores of a sampler's images in each extractor, of all and of each half."""
        asked_N = self.labels_N.numpy() if self.model.config.conditional else None
        for start, count, evaluator in self.parts:
            rows = slice(start - self.first, start - self.first + count)
            labels = None if asked_N is None else asked_N[rows]
            seeds = {"seed_first": start, "seed_last": start + count - 1}
            identity = {**names, **seeds, "num_images": count}
            if count < self.N and evaluator.name == self.main:
                held = len(evaluator.reference.images)
                self.run.add("half_reference_images", held, "images", **identity)
            for name, (value, unit) in scores_of([evaluator], images[rows], labels).items():
                self.run.add(name, value, unit, **identity)

    def report_tokens(
        self, tokens_BL: torch.Tensor, sampler: SamplerConfig, names: dict[str, str]
    ) -> None:
        """How probable the tokens were that a sampler of one pass has drawn."""
        labels_B = self.labels_N[: len(tokens_BL)].to(self.run.device)
        ladder, batches = self.tokenizer.at(self.model.schedule), []
        for i in range(0, len(tokens_BL), self.batch):
            part = slice(i, i + self.batch)
            drawn = tokens_BL[part], labels_B[part]
            batches.append(drawn_probabilities(self.whole, ladder, *drawn, sampler))
        shares = [torch.cat(scale) for scale in zip(*batches)]
        identity = {**names, "num_images": len(tokens_BL)}
        report_probabilities(self.run, shares, self.settings.thresholds, identity)

    def report(self, images: np.ndarray, entry: dict, progress: Progress) -> None:
        """Draw and score one sampler."""
        sampler = SamplerConfig.model_validate_json(json.dumps(entry["sampler"]))
        names = {**model_identity(self.run), "sampler": entry["name"]}
        calls = Calls()
        how = self.labels_N, self.first, self.batch, progress, calls
        tokens_BL, fitted = sample_into(images, self.model, self.tokenizer, sampler, *how)
        self.batch = smaller(self.run, self.batch, fitted)
        self.model.free_compiled()  # no other sampler draws from what was recorded of this one
        self.report_scores(images, names)
        self.run.add_cost(sampling_cost(self.model.config, sampler, calls), **names)
        # the logits of a reshaped state are not those that teacher forcing gives, nor are those
        # that are pushed from the scale before
        changed = reshaped_scales(sampler, self.model.schedule.num_scales) or sampler.detail_scale
        if self.settings.thresholds and sampler.draws_once and not changed:
            self.report_tokens(tokens_BL, sampler, names)


def work(run: Run) -> None:
    sweep, entries = Sweep(run), run.config["samplers"]
    progress = Progress(run.run_id, sweep.N * len(entries), unit="image")
    images = bytes_on_disk(run.out, sweep.shape())
    for entry in entries:
        sweep.report(images, entry, progress)
    progress.close()
