"""Verb: tokens of one scale are replaced by others, the sampler goes on, and the last latent is
compared with that of the clean sample.

All random numbers after the error are those of the clean sample. Position and code of an error
depend on the image's seed and the scale, not on the model, so that variants meet the same errors.

drift_p<share>, scale s: mean of ||f - f'|| / ||f|| over images, f the last latent. direct_drift:
the same if all later tokens stayed as they were, what the replaced tokens alone change.
repair_ratio: drift over direct_drift, below 1 where later scales repair, above 1 where they
amplify. fid_change: FID with errors minus FID without, same seeds, N and reference; so for the
other scores of CHANGES.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from srdd.config import SamplerConfig
from srdd.model import ScaleTransformer
from srdd.quantizer import Ladder
from srdd.sampling import generate
from srdd.tokenizer import Tokenizer
from srdd.zero_shot import known_prefix, replace_tokens, replaced_count

from ...pipeline.artefacts import model_identity
from ...pipeline.datasets import to_uint8
from ...pipeline.evaluators import open_evaluators, scores_of
from ...pipeline.labels import asked_labels, first_sample, partners
from ...pipeline.metrics import MIN_IMAGES
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.sampling import made_ready
from ...pipeline.scratch import Rows, on_disk
from ...runtime.progress import Progress
from ...runtime.verb import Run
from ...study.errors import ConfigError
from ...study.settings import EvaluationConfig
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens", "train", "features")

TOGETHER = 1024  # images whose latents are compared at once
# scores whose change is measured where the study has them, and whether the extractor ends their
# name: FID alone rewards noise
CHANGES = {"fid": True, "class_agreement": True, "coverage": True, "fid_pixels": False}


@dataclass(frozen=True)
class Probe:
    """A model with its sampler, asked for images of consecutive seeds, batch by batch."""

    model: ScaleTransformer
    tokenizer: Tokenizer
    sampler: SamplerConfig
    labels_N: torch.Tensor
    first_seed: int
    batch: int
    folder: Path

    @property
    def ladder(self) -> Ladder:
        return self.tokenizer.at(self.model.schedule)

    @property
    def device(self) -> torch.device:
        return self.model.position.device

    def seeds(self, rows: slice = slice(None)) -> list[int]:
        return list(range(self.first_seed, self.first_seed + len(self.labels_N)))[rows]

    @torch.no_grad()
    def go_on(
        self, tokens_NL: torch.Tensor | None = None, scales: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples that keep the first so many scales of given tokens: tokens_NL on the CPU and the
        last states f_hat_NChw on disk."""
        tokens = Rows(len(self.labels_N))

        def states() -> Iterator[torch.Tensor]:
            for i in range(0, len(self.labels_N), self.batch):
                rows, known = slice(i, i + self.batch), None
                if scales:
                    assert tokens_NL is not None
                    prefix_BL = tokens_NL[rows].to(self.device)
                    known = known_prefix(self.model.schedule, scales, prefix_BL)
                labels_B, seeds = self.labels_N[rows].to(self.device), self.seeds(rows)
                tokens_BL, f_hat_BChw = generate(
                    self.model, self.ladder, labels_B, seeds, self.sampler, known
                )
                tokens.add(tokens_BL)
                yield f_hat_BChw

        f_hat_NChw = on_disk(self.folder, states())
        return tokens.whole(), f_hat_NChw

    @torch.no_grad()
    def states(self, tokens_NL: torch.Tensor) -> torch.Tensor:
        """The last states f_hat_NChw of given tokens, on disk."""
        batches = (part.to(self.device) for part in tokens_NL.split(self.batch))
        return on_disk(self.folder, map(self.ladder.decode, batches))

    @torch.no_grad()
    def images(self, f_hat_NChw: torch.Tensor) -> np.ndarray:
        """Decoded states, uint8, on disk."""
        parts = (part_BChw.to(self.device) for part_BChw in f_hat_NChw.split(self.batch))
        images = (to_uint8(self.tokenizer.to_image(part_BChw)) for part_BChw in parts)
        return on_disk(self.folder, images).numpy()


def drift(f_NChw: torch.Tensor, other_NChw: torch.Tensor) -> torch.Tensor:
    """||f - f'|| / ||f|| of each image, over all cells and channels of its latent."""
    shares = []
    for f_BChw, other_BChw in zip(f_NChw.split(TOGETHER), other_NChw.split(TOGETHER)):
        distance_B = (f_BChw - other_BChw).flatten(1).double().norm(dim=1)
        shares.append(distance_B / f_BChw.flatten(1).double().norm(dim=1))
    return torch.cat(shares)


def unrelated(f_NChw: torch.Tensor, labels_N: torch.Tensor) -> float | None:
    """How far apart two samples of one class are: a drift of this size leaves nothing of the clean
    image.

    The mean over images of classes that have two or more; None where no class has.
    """
    partners_N = torch.from_numpy(partners(labels_N.numpy()))
    paired_N = torch.nonzero(partners_N >= 0).flatten()
    if not len(paired_N):
        return None
    shares = [drift(f_NChw[rows], f_NChw[partners_N[rows]]) for rows in paired_N.split(TOGETHER)]
    return torch.cat(shares).mean().item()


def measure(
    probe: Probe, tokens_NL: torch.Tensor, f_NChw: torch.Tensor, k: int, share: float
) -> tuple[dict[str, tuple[float, str]], torch.Tensor]:
    """Replace a share of scale k's tokens and go on: the three numbers of the latent, and the last
    states with errors."""
    V = probe.tokenizer.config.codebook_size
    wrong_NL = replace_tokens(tokens_NL, probe.model.schedule, k, share, probe.seeds(), V)
    _, after_NChw = probe.go_on(wrong_NL, k + 1)
    total = drift(f_NChw, after_NChw).mean().item()
    direct = drift(f_NChw, probe.states(wrong_NL)).mean().item()
    numbers = {"drift": (total, "share"), "direct_drift": (direct, "share")}
    if direct > 0:
        numbers["repair_ratio"] = (total / direct, "ratio")
    return numbers, after_NChw


class Errors:
    """A trained model that is asked for images with errors, and what their scores are made of.

    Raises ConfigError where there are too few held-out images for a score.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings("error_propagation", Settings)
        self.evaluation: EvaluationConfig = run.settings("evaluation", EvaluationConfig)
        self.evaluators = open_evaluators(run, self.evaluation.metrics)
        held = min(len(evaluator.reference.images) for evaluator in self.evaluators)
        if held < MIN_IMAGES:
            raise ConfigError(
                f"dataset.test_share: leaves {held} held-out images; scores need {MIN_IMAGES} or "
                "more, raise it"
            )
        tokenizer = open_tokenizer(run)
        weights = run.inputs["train"] / "model.safetensors"
        N = self.settings.num_images
        model = made_ready(open_model(run, weights), self.evaluation, N)
        self.classes = model.config.num_classes
        first = first_sample(self.evaluation, run.config["train_seed"], N)
        seeds, rule = range(first, first + N), self.evaluation.labels
        self.labels_N = asked_labels(run.inputs["data"], self.classes, seeds, rule)
        sampler = run.settings("sampler", SamplerConfig)
        how = self.labels_N, first, self.evaluation.batch_size, run.out
        self.probe = Probe(model, tokenizer, sampler, *how)
        self.schedule = model.schedule
        counted = {"seed_first": first, "seed_last": first + N - 1, "num_images": N}
        self.identity = {**model_identity(run), **counted}
        # of every score whose change is measured: its name, and how that of its extractor ends it
        self.names: dict[str, tuple[str, str]] = {}
        for name, by_extractor in CHANGES.items():
            for end in [f"_{one.name}" for one in self.evaluators] if by_extractor else [""]:
                self.names[name + end] = name, end

    def add(self, metric: str, value: float, unit: str, scale: int | None = None) -> None:
        self.run.add(metric, value, unit, scale=scale, **self.identity)

    def scores(self, f_hat_NChw: torch.Tensor) -> dict[str, tuple[float, str]]:
        """Those of CHANGES that the study has, in each extractor: value and unit by name."""
        labels_N = self.labels_N.numpy() if self.classes else None
        images = self.probe.images(f_hat_NChw)
        by_name = scores_of(self.evaluators, images, labels_N)
        return {name: by_name[name] for name in self.names if name in by_name}

    def report_clean(self, f_hat_NChw: torch.Tensor) -> tuple[dict, float | None]:
        """Scores of samples without errors, how far apart two of one class are; returns both."""
        clean_scores = self.scores(f_hat_NChw)
        for name, (value, unit) in clean_scores.items():
            self.add(f"clean_{name}", value, unit)
        far = unrelated(f_hat_NChw, self.labels_N)
        if far is not None:
            self.add("drift_unrelated", far, "share")
        return clean_scores, far

    def counts(self, k: int) -> dict[float, int]:
        """Tokens of a scale that are replaced, by share; on a small grid several shares are one."""
        length = self.schedule.lengths[k]
        return {share: replaced_count(length, share) for share in self.settings.shares}

    def changes(
        self, tokens_NL: torch.Tensor, f_NChw: torch.Tensor, k: int, share: float, before: dict
    ) -> dict[str, tuple[float, str]]:
        """What a share of wrong tokens of a scale does: value and unit by metric, `{share}` for the
        share. before: scores without errors."""
        numbers, after_NChw = measure(self.probe, tokens_NL, f_NChw, k, share)
        changes = {f"{name}_p{{share}}": number for name, number in numbers.items()}
        for whole, (value, unit) in self.scores(after_NChw).items():
            name, end = self.names[whole]
            changes[f"{name}_change_p{{share}}{end}"] = value - before[whole][0], unit
        return changes

    def report_scale(
        self, k: int, clean_NL: torch.Tensor, clean_scores: dict, progress: Progress
    ) -> None:
        """Every share of wrong tokens of a scale."""
        # Where a sampler masks and later scales look back at what was masked, a given prefix is not
        # seen as a drawn one is: compare with the clean sample gone on from its own prefix, which
        # else is the clean sample itself, bit by bit.
        tokens_NL, f_NChw = self.probe.go_on(clean_NL, k + 1)
        unchanged = torch.equal(tokens_NL, clean_NL)
        before = clean_scores if unchanged else self.scores(f_NChw)
        by_count: dict[int, dict[str, tuple[float, str]]] = {}
        for share, count in self.counts(k).items():
            if count not in by_count:
                by_count[count] = self.changes(tokens_NL, f_NChw, k, share, before)
                progress.advance()
            self.add(f"tokens_replaced_p{share:g}", count, "tokens", scale=k)
            for name, (value, unit) in by_count[count].items():
                self.add(name.format(share=f"{share:g}"), value, unit, scale=k)


def work(run: Run) -> None:
    errors = Errors(run)
    clean_NL, clean_NChw = errors.probe.go_on()
    clean_scores, far = errors.report_clean(clean_NChw)
    scales = range(errors.schedule.num_scales)
    total = sum(len(set(errors.counts(k).values())) for k in scales)
    progress = Progress(run.run_id, total, unit="corruption")
    for k in scales:
        errors.report_scale(k, clean_NL, clean_scores, progress)
    progress.close()
    words = "no class has two samples"
    if far is not None:
        words = f"two samples of a class are {far:.2f} apart"
    run.say(f"{errors.settings.num_images} images, {len(scales)} scales; {words}")
