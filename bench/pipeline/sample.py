"""Verb: draw images from a trained model.

Image i of a training has one seed in every variant, so that comparisons are paired.
Writes images.npy (uint8, shape (checkpoints, N, C, S, S)), labels.npy and steps.json (null: the
kept weights); a figure strip of one image growing through its scales (strip.npy); and reports
what an image costs. Several processes (torchrun) share the images. A batch that does not fit
into memory is halved: the numbers that an image is drawn with follow from its seed, and the image
itself from its batch only by rounding, which may flip a draw (3 of 64 images between batches of 16
and 5, float32 on a CPU, a small network at the 256-pixel schedule).
"""

from __future__ import annotations

import json

import torch

from srdd.config import ModelConfig, SamplerConfig
from srdd.cost import Cost, sampling_cost
from srdd.watch import Calls

from ..runtime.progress import Progress
from ..runtime.rows import write_text
from ..runtime.verb import Run
from ..study.settings import EvaluationConfig
from .artefacts import checkpoints, model_identity, save_array
from .labels import asked_labels, first_sample
from .networks import open_model, open_tokenizer
from .sampling import STRIP, filled_together, growth, made_ready, sample_into, smaller

INPUTS = ("data", "tokenizer", "train")
SHARED = True


def report(run: Run, cost: Cost | None, fitted: int, batch_size: int) -> None:
    """What an image costs, and the batch size where memory held a smaller one only."""
    if cost is not None:
        run.add_cost(cost, **model_identity(run))
    if fitted < batch_size:
        run.add("sample_batch_fitted", fitted, "images", **model_identity(run))


def work(run: Run) -> None:
    sampler, evaluation = (
        run.settings("sampler", SamplerConfig),
        run.settings("evaluation", EvaluationConfig),
    )
    tokenizer = open_tokenizer(run)
    weights = checkpoints(run.inputs["train"], run.config["snapshots"])
    size, N = tokenizer.config, evaluation.num_images
    shape = (len(weights), N, size.in_channels, size.image_size, size.image_size)
    mine, batch = run.ranks.rows(N), evaluation.batch_size
    first = first_sample(evaluation, run.config["train_seed"])
    seeds = range(first, first + N)
    num_classes = run.settings("model", ModelConfig).num_classes
    labels_N = asked_labels(run.inputs["data"], num_classes, seeds, evaluation.labels)
    calls = Calls()
    count = (mine.stop - mine.start) * len(weights)
    progress = Progress(run.run_id, count, unit="image", shown=run.ranks.first)
    with filled_together(run.out / "images.npy", shape, run.ranks) as images:
        for row, (_, path) in enumerate(weights):
            model = made_ready(open_model(run, path), evaluation, evaluation.num_images)
            how = labels_N[mine], first + mine.start, batch, progress, calls
            tokens_BL, fitted = sample_into(images[row, mine], model, tokenizer, sampler, *how)
            batch = smaller(run, batch, fitted)
    progress.close()
    smallest = int(run.ranks.gather(torch.tensor(batch)).min())
    counted = Calls.of_table(run.ranks.total(calls.table(model.schedule.num_scales)))
    if not run.ranks.first:
        return
    save_array(run.out / "labels.npy", labels_N.numpy())
    tokens_BL = tokens_BL[:STRIP]
    grown = growth(tokenizer, model, sampler, labels_N[: len(tokens_BL)], first, tokens_BL)
    save_array(run.out / "strip.npy", grown)
    write_text(run.out / "steps.json", json.dumps([step for step, _ in weights]))
    # of snapshots nobody asks what they cost
    cost = None if run.config["snapshots"] else sampling_cost(model.config, sampler, counted)
    report(run, cost, smallest, evaluation.batch_size)
