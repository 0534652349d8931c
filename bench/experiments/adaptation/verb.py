"""Verb: what each image takes under many samplers of one trained model, and how well the model
predicts hidden tokens from so many revealed ones.

Of every sampler, over images drawn one by one as far as their passes go: `image_passes` by scale,
those in which the image had an open position; `image_tokens_per_forward`, its tokens over its
passes (TPF of SDAR, arXiv 2510.06303); `image_token_evals`. A batch makes as many calls as its
slowest image, which `tokens_per_forward` of the measure sweep says. `peak_q99` and `peak_max`: how
likely the likeliest code was at open positions, which a rule that commits above a bound can reach.

Of a model with masks: `loss_<split>_hidden_<m>` by scale, the cross-entropy of m hidden tokens of a
scale where all others of it are revealed; all variants see the same hidden tokens.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from srdd.config import SamplerConfig
from srdd.counting import Counted, count_passes
from srdd.loss import random_sets
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.quantizer import Ladder
from srdd.schedule import ScaleSchedule

from ...pipeline.artefacts import model_identity, open_labels, open_split, open_tokens
from ...pipeline.held_out import HeldOut, masked_sums
from ...pipeline.labels import asked_labels, first_sample, in_shares
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.unique_images import learnt_rows
from ...runtime.progress import Progress
from ...runtime.verb import Run
from ...study.settings import EvaluationConfig
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens", "train")

SPLITS = ("train", "test")


# ---------------------------------------------------------------- hidden tokens


def hidden_numbers(length: int, points: int) -> list[int]:
    """How many of a scale's tokens are hidden at each of so many points, from 1 to all."""
    return [1 + round((length - 1) * i / (points - 1)) for i in range(points)]


def hidden_sets(
    schedule: ScaleSchedule, numbers_K: list[int], count: int, source: torch.Generator
) -> torch.Tensor:
    """A random set of so many tokens of each scale for each of `count` images, bool (count, L)."""
    sets = []
    for length, number in zip(schedule.lengths, numbers_K):
        sets.append(random_sets(torch.full((count, 1), number), length, source))
    return torch.cat(sets, 1)


def hidden_losses(
    model: ScaleTransformer, data: HeldOut, points: int, draws: int
) -> list[dict[int, float]]:
    """Cross-entropy of hidden tokens in nats a token, by how many of a scale's tokens are hidden,
    for each scale (MaskGIT, arXiv 2202.04200, equation 1, at a given number)."""
    schedule, V, N = model.schedule, model.config.codebook_size, len(data)
    numbers_KP = [hidden_numbers(length, points) for length in schedule.lengths]
    losses: list[dict[int, float]] = [{} for _ in schedule.lengths]
    for point, numbers_K in enumerate(zip(*numbers_KP)):
        sums_K = torch.zeros(len(losses), dtype=torch.float64)
        for draw in range(draws):
            source = generator("hidden tokens", data.name, point, draw)
            hidden_NL = hidden_sets(schedule, list(numbers_K), N, source)
            sums_K += masked_sums(
                model, data, hidden_NL, lambda own_BL: (own_BL == V).float()
            ).by_scale_K
        for k, (total, number) in enumerate(zip(sums_K.tolist(), numbers_K)):
            # on a small grid several points are one number
            losses[k].setdefault(number, total / (draws * N * number))
    return losses


# ---------------------------------------------------------------- the job


class Probe:
    """A trained model, asked for images of consecutive seeds and for hidden tokens."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings("adaptation", Settings)
        self.images: EvaluationConfig = run.settings("images", EvaluationConfig)
        self.model = open_model(run, run.inputs["train"] / "model.safetensors")
        ladder = open_tokenizer(run).at(self.model.schedule)
        self.ladder: Ladder = ladder.read_as(self.model.config.state)
        self.identity = model_identity(run)
        count = self.settings.num_images
        first = first_sample(self.images, run.config["train_seed"], count)
        self.seeds = range(first, first + count)
        classes, rule = self.model.config.num_classes, self.images.labels
        self.labels_N = asked_labels(run.inputs["data"], classes, self.seeds, rule)

    def split(self, name: str) -> HeldOut:
        """Tokens of a split, of training images those that were learnt from, or of as many of these
        as are asked for."""
        labels_N = open_labels(self.run.inputs["data"], name).astype(np.int64)
        training = self.run.config.get("training") or {}  # none of an imported model
        unique = training.get("unique_images") if name == "train" else None
        some_N = learnt_rows(open_split(self.run.inputs["data"], name), unique)
        rows_N = some_N[in_shares(labels_N[some_N], self.settings.hidden_images)]
        tokens_NL = open_tokens(self.run.inputs["tokens"], name)[rows_N]
        # an unconditional model knows one label alone, row 0 of its embedding
        labels_N = labels_N[rows_N] * int(self.model.config.conditional)
        return HeldOut(name, tokens_NL, labels_N, self.ladder, self.run.device, self.run.ranks)

    def report_hidden(self, progress: Progress) -> None:
        """Losses of hidden tokens on both splits, by scale and number."""
        points, draws = self.settings.hidden_points, self.settings.hidden_draws
        for split in SPLITS:
            data = self.split(split)
            for k, losses in enumerate(hidden_losses(self.model, data, points, draws)):
                for number, loss in losses.items():
                    name = f"loss_{split}_hidden_{number}"
                    self.run.add(name, loss, "nats/token", scale=k, **self.identity)
            progress.advance()

    def counted(self, sampler: SamplerConfig) -> Counted:
        """What every image takes under a sampler."""
        parts, batch = [], self.images.batch_size
        for i in range(0, len(self.seeds), batch):
            seeds, labels_B = self.seeds[i : i + batch], self.labels_N[i : i + batch]
            asked = self.model, self.ladder, labels_B.to(self.run.device), seeds, sampler
            parts.append(count_passes(*asked)[1])
        each = [(part.passes_BK, part.calls_BK, part.peaks_N) for part in parts]
        return Counted(*map(torch.cat, zip(*each)))

    def report_sampler(self, entry: dict) -> None:
        """Passes of each image under a sampler, and what its rule could reach."""
        sampler = SamplerConfig.model_validate_json(json.dumps(entry["sampler"]))
        counted, run = self.counted(sampler), self.run
        names = {**self.identity, "sampler": entry["name"], "num_images": len(self.seeds)}
        for k, passes in enumerate(counted.passes_BK.double().mean(0).tolist()):
            run.add("image_passes", passes, "passes/image", scale=k, **names)
        forward_B = counted.tokens_per_forward(self.model.schedule.seq_len)
        run.add("image_tokens_per_forward", forward_B.mean().item(), "tokens/pass", **names)
        evals_B = counted.token_evals(self.model, sampler)
        run.add("image_token_evals", evals_B.mean().item(), "tokens/image", **names)
        peaks_N = counted.peaks_N.numpy()
        quantile, most = float(np.quantile(peaks_N, 0.99)), float(peaks_N.max())
        run.add("peak_q99", quantile, "probability", **names)
        run.add("peak_max", most, "probability", **names)
        bound = sampler.select.knobs().get("commit_above")
        if sampler.refine_steps and bound is not None and quantile < bound:
            run.say(
                f"sampler.select.commit_above {bound:g}: fewer than one open position in a hundred "
                f"reaches it; the 99 % quantile of the likeliest code's probability is "
                f"{quantile:.2f}, the largest {most:.2f}"
            )


def work(run: Run) -> None:
    probe, entries = Probe(run), run.config["samplers"]
    masked = probe.model.config.mask_prob > 0
    progress = Progress(run.run_id, len(entries) + len(SPLITS) * masked, unit="measurement")
    for entry in entries:
        probe.report_sampler(entry)
        progress.advance()
    if masked:
        probe.report_hidden(progress)
    progress.close()
    run.say(f"{len(entries)} samplers, {len(probe.seeds)} images each")
