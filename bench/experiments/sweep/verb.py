"""Verb: pictures and scores of many samplers of one trained model, in one process; the pictures are
not kept.

Every sampler draws the same seeds and is scored on all of them, against the whole reference, and on
each half, against a half of the reference of its own, so that a setting can be chosen on one half
and scored on the other: images that chose it score nothing. `half_reference_images` says how many
reference images a half was held against. Reports also, for the samplers here where they draw each
scale once, how probable the tokens are that they draw, per scale; a sampler of one's own may draw
from another distribution.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from srdd.config import SamplerConfig
from srdd.cost import sampling_cost
from srdd.draw import distribution
from srdd.guidance import guidance_weights
from srdd.model import ScaleTransformer
from srdd.quantizer import Ladder
from srdd.watch import Calls

from ...pipeline.artefacts import model_identity
from ...pipeline.labels import asked_labels, first_sample
from ...pipeline.metrics import MIN_IMAGES, Extractor, Scored, score
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.reference import Reference, halves, open_reference
from ...pipeline.sampling import made_ready, sample_into, smaller
from ...runtime.progress import Progress
from ...runtime.verb import Run
from ...study.settings import EvaluationConfig, FeaturesConfig
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
    inputs_BLC, schedule = ladder.teacher_forced_inputs(tokens_BL), model.schedule
    cond_BLV = model(inputs_BLC, labels_B)
    weights = guidance_weights(sampler.cfg_scale, sampler.cfg_ramp, schedule.num_scales)
    guided = any(w != 1.0 for w in weights)
    uncond_BLV = (
        model(inputs_BLC, torch.full_like(labels_B, model.config.null_label))
        if guided
        else cond_BLV
    )
    found = []
    for w, piece in zip(weights, schedule.slices):
        logits_BlV = uncond_BLV[:, piece] + w * (cond_BLV[:, piece] - uncond_BLV[:, piece])
        taken = distribution(logits_BlV, sampler.temperature, sampler.top_k, sampler.top_p)
        found.append(taken.probability(tokens_BL[:, piece]))
    return found


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
    """Quantiles of the drawn tokens' probabilities, and the share below each threshold, per scale."""
    for k, share_Bl in enumerate(shares):
        values = share_Bl.double().flatten().cpu()
        for q in QUANTILES:
            run.add(
                f"drawn_probability_q{100 * q:g}",
                torch.quantile(values, q).item(),
                "probability",
                scale=k,
                **identity,
            )
        for threshold in thresholds:
            below = (values < threshold).double().mean().item()
            run.add(f"drawn_below_{threshold:g}", below, "share", scale=k, **identity)


def work(run: Run) -> None:
    evaluation, sweep = (
        run.settings("evaluation", EvaluationConfig),
        run.settings("sweep", Settings),
    )
    extractor = Extractor(
        run.settings("features", FeaturesConfig), run.device, run.inputs["features"]
    )
    tokenizer = open_tokenizer(run)
    path = run.inputs["train"] / "model.safetensors"
    whole, model = open_model(run, path), made_ready(open_model(run, path), evaluation)
    reference, N = open_reference(extractor.config, run.inputs["data"]), evaluation.num_images
    first = first_sample(evaluation, run.config["train_seed"])
    labels_N = asked_labels(
        run.inputs["data"], model.config.num_classes, range(first, first + N), evaluation.labels
    )
    asked_N = labels_N.numpy() if model.config.conditional else None
    size, scratch = tokenizer.config, run.out / ".pictures.npy"
    entries, batch = run.config["samplers"], evaluation.batch_size
    # made once: the features of a reference are known by its images, and kept for all samplers
    parts = parts_of(first, N, reference)[: 3 if sweep.halves else 1]
    progress = Progress(run.run_id, N * len(entries), unit="picture")
    try:
        images = np.lib.format.open_memmap(
            scratch, "w+", np.uint8, (N, size.in_channels, size.image_size, size.image_size)
        )
        for entry in entries:
            sampler = SamplerConfig.model_validate_json(json.dumps(entry["sampler"]))
            calls = Calls()
            how = labels_N, first, batch, progress, calls
            tokens_BL, fitted = sample_into(images, model, tokenizer, sampler, *how)
            batch = smaller(run, batch, fitted)
            names = {**model_identity(run), "sampler": entry["name"]}
            for start, count, held in parts:
                rows = slice(start - first, start - first + count)
                part = Scored(
                    images[rows], None if asked_N is None else asked_N[rows], held, extractor
                )
                here = {
                    **names,
                    "seed_first": start,
                    "seed_last": start + count - 1,
                    "num_images": count,
                }
                if count < N:
                    run.add("half_reference_images", len(held.images), "images", **here)
                for name, (value, unit) in score(part, evaluation.metrics).items():
                    run.add(name, value, unit, **here)
            run.add_cost(sampling_cost(model.config, sampler, calls), **names)
            if sweep.thresholds and sampler.draws_once:
                labels_B = labels_N[: len(tokens_BL)].to(run.device)
                batches = [slice(i, i + batch) for i in range(0, len(tokens_BL), batch)]
                ladder = tokenizer.at(model.schedule)
                found = [
                    drawn_probabilities(whole, ladder, tokens_BL[part], labels_B[part], sampler)
                    for part in batches
                ]
                shares = [torch.cat(scale) for scale in zip(*found)]
                report_probabilities(
                    run, shares, sweep.thresholds, {**names, "num_images": len(tokens_BL)}
                )
    finally:
        scratch.unlink(missing_ok=True)
    progress.close()
