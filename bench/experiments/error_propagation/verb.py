"""Verb: tokens of one scale are replaced by others, the sampler goes on, and the last latent is
compared with that of the clean sample.

All random numbers after the error are those of the clean sample. Position and code of an error
depend on the picture's seed and the scale, not on the model, so that variants meet the same errors.

drift_p<share>, scale s: mean of ||f - f'|| / ||f|| over pictures, f the last latent. direct_drift:
the same if all later tokens stayed as they were, what the replaced tokens alone change.
repair_ratio: drift over direct_drift, below 1 where later scales repair, above 1 where they
amplify. fid_change: FID with errors minus FID without, same seeds, N and reference; so for the
other scores of CHANGES.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from ...pipeline.labels import asked_labels, first_sample, partners
from ...pipeline.metrics import MIN_IMAGES, Extractor, Scored, score
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.reference import open_reference
from ...pipeline.sampling import made_ready
from ...runtime.progress import Progress
from ...runtime.verb import Run
from ...study.errors import ConfigError
from ...study.settings import EvaluationConfig, FeaturesConfig
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens", "train", "features")

# scores whose change is measured where the study has them, and whether the extractor ends their
# name: FID alone rewards noise
CHANGES = {"fid": True, "class_agreement": True, "coverage": True, "fid_pixels": False}


@dataclass(frozen=True)
class Probe:
    """A model with its sampler, asked for pictures of consecutive seeds, batch by batch."""

    model: ScaleTransformer
    tokenizer: Tokenizer
    sampler: SamplerConfig
    labels_N: torch.Tensor
    first_seed: int
    batch: int

    @property
    def ladder(self) -> Ladder:
        return self.tokenizer.at(self.model.schedule)

    def seeds(self, where: slice = slice(None)) -> list[int]:
        return list(range(self.first_seed, self.first_seed + len(self.labels_N)))[where]

    @torch.no_grad()
    def go_on(
        self, tokens_NL: torch.Tensor | None = None, scales: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples that keep the first so many scales of given tokens: tokens_NL and the last states
        f_hat_NChw, on the CPU."""
        device, tokens, states = self.model.position.device, [], []
        for i in range(0, len(self.labels_N), self.batch):
            here = slice(i, i + self.batch)
            known = (
                known_prefix(self.model.schedule, scales, tokens_NL[here].to(device))
                if scales
                else None
            )
            found = generate(
                self.model,
                self.ladder,
                self.labels_N[here].to(device),
                self.seeds(here),
                self.sampler,
                known,
            )
            tokens.append(found[0].cpu())
            states.append(found[1].cpu())
        return torch.cat(tokens), torch.cat(states)

    @torch.no_grad()
    def states(self, tokens_NL: torch.Tensor) -> torch.Tensor:
        """The last states f_hat_NChw of given tokens, on the CPU."""
        device = self.model.position.device
        return torch.cat(
            [self.ladder.decode(part.to(device)).cpu() for part in tokens_NL.split(self.batch)]
        )

    @torch.no_grad()
    def pictures(self, f_hat_NChw: torch.Tensor) -> np.ndarray:
        """Decoded states, uint8."""
        device = self.model.position.device
        parts = [
            to_uint8(self.tokenizer.to_image(part.to(device))).cpu()
            for part in f_hat_NChw.split(self.batch)
        ]
        return torch.cat(parts).numpy()


def drift(f_NChw: torch.Tensor, other_NChw: torch.Tensor) -> torch.Tensor:
    """||f - f'|| / ||f|| of each picture, over all cells and channels of its latent."""
    return (f_NChw - other_NChw).flatten(1).double().norm(dim=1) / f_NChw.flatten(1).double().norm(
        dim=1
    )


def unrelated(f_NChw: torch.Tensor, labels_N: torch.Tensor) -> float | None:
    """How far apart two samples of one class are: a drift of this size leaves nothing of the clean
    image.

    The mean over images of classes that have two or more; None where no class has.
    """
    partners_N = torch.from_numpy(partners(labels_N.numpy()))
    paired_N = torch.nonzero(partners_N >= 0).flatten()
    return (
        drift(f_NChw[paired_N], f_NChw[partners_N[paired_N]]).mean().item()
        if len(paired_N)
        else None
    )


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


def work(run: Run) -> None:
    config, sampler = (
        run.settings("error_propagation", Settings),
        run.settings("sampler", SamplerConfig),
    )
    evaluation, features = (
        run.settings("evaluation", EvaluationConfig),
        run.settings("features", FeaturesConfig),
    )
    extractor = Extractor(features, run.device, run.inputs["features"])
    reference = open_reference(features, run.inputs["data"])
    if len(reference.images) < MIN_IMAGES:
        raise ConfigError(
            f"dataset.test_share: leaves {len(reference.images)} held-out pictures; scores need "
            f"{MIN_IMAGES} or more, raise it"
        )
    tokenizer = open_tokenizer(run)
    model = made_ready(open_model(run, run.inputs["train"] / "model.safetensors"), evaluation)
    N, schedule, classes = config.num_images, model.schedule, model.config.num_classes
    first = first_sample(evaluation, run.config["train_seed"])
    labels_N = asked_labels(run.inputs["data"], classes, range(first, first + N), evaluation.labels)
    probe = Probe(model, tokenizer, sampler, labels_N, first, evaluation.batch_size)
    identity = {
        **model_identity(run),
        "seed_first": first,
        "seed_last": first + N - 1,
        "num_images": N,
    }

    ends = {name: f"_{features.name}" if ended else "" for name, ended in CHANGES.items()}

    def scores(f_hat_NChw: torch.Tensor) -> dict[str, tuple[float, str]]:
        scored = Scored(
            probe.pictures(f_hat_NChw), labels_N.numpy() if classes else None, reference, extractor
        )
        found = score(scored, evaluation.metrics)
        return {name: found[name + end] for name, end in ends.items() if name + end in found}

    clean_NL, clean_NChw = probe.go_on()
    clean_scores = scores(clean_NChw)
    for name, (value, unit) in clean_scores.items():
        run.add(f"clean_{name}{ends[name]}", value, unit, **identity)
    apart = unrelated(clean_NChw, labels_N)
    if apart is not None:
        run.add("drift_unrelated", apart, "share", **identity)
    counts = [
        {share: replaced_count(length, share) for share in config.shares}
        for length in schedule.lengths
    ]
    progress = Progress(
        run.run_id, sum(len(set(found.values())) for found in counts), unit="corruption"
    )
    for k, found in enumerate(counts):
        # where a sampler masks and later scales look back at what was masked, a given prefix is not seen as a drawn one is: compare
        # with the clean sample gone on from its own prefix, which else is the clean sample itself, bit by bit
        tokens_NL, f_NChw = probe.go_on(clean_NL, k + 1)
        before = clean_scores if torch.equal(tokens_NL, clean_NL) else scores(f_NChw)
        by_count: dict[int, dict[str, tuple[float, str]]] = {}
        for share, count in found.items():
            if count not in by_count:  # on a small grid several shares are one count
                numbers, after_NChw = measure(probe, tokens_NL, f_NChw, k, share)
                named = {f"{name}_p{{share}}": number for name, number in numbers.items()}
                for name, (value, unit) in scores(after_NChw).items():
                    named[f"{name}_change_p{{share}}{ends[name]}"] = value - before[name][0], unit
                by_count[count] = named
                progress.advance()
            run.add(f"tokens_replaced_p{share:g}", count, "tokens", scale=k, **identity)
            for name, (value, unit) in by_count[count].items():
                run.add(name.format(share=f"{share:g}"), value, unit, scale=k, **identity)
    progress.close()
    far = (
        "no class has two samples"
        if apart is None
        else f"two samples of a class are {apart:.2f} apart"
    )
    run.say(f"{N} pictures, {schedule.num_scales} scales; {far}")
