"""Verb: restore held-out images by a trained model, in several ways of decoding.

`<score>_<way>_<degradation>`, and without a degradation the mean over all; scores: psnr, ssim,
class_agreement, feature_distance. Ways of a model that is told the degraded image: `argmax`,
`expected` and `draw` (its sampler), and `refined`, the refiner behind argmax. Ways of a model that
was trained for something else: `known`, degraded tokens of the first half of the scales kept and
the rest drawn; `repair`, degraded tokens redrawn where they are unlikely, at the most passes asked
for, and of every number of passes with `repeat`; `p_resample_repair` is below which probability,
which validation images choose. `restored`: the way by which models are compared, expected, repair
or known.

`token_accuracy_free_<degradation>` and `token_accuracy_forced_<degradation>`: share of the clean
image's tokens that argmax finds, on its own and given the true coarser ones; with a scale those of
that scale. The latter is no restoration. `restore_ms_<way>`: of an image, decoder included.

Writes strip.npz, a few images, and refiner.safetensors where one is trained.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from srdd.checkpoint import save_tensors
from srdd.conditioning import condition_latent
from srdd.config import SamplerConfig
from srdd.cost import sampling_cost
from srdd.noise import generator
from srdd.refiner import LatentRefiner, rolled_out
from srdd.restoring import completed, repaired, restored

from ...pipeline.artefacts import model_identity, open_tokens, save_npz
from ...pipeline.datasets import to_float, to_uint8
from ...pipeline.degraded import DegradedSplit
from ...pipeline.labels import in_shares, seeds_of_rows
from ...pipeline.likeness import psnr
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.restored import BATCH, SHOWN, CleanImages, Scores, batches
from ...pipeline.training import batch_indices
from ...runtime.clock import busy_seconds
from ...runtime.verb import Run
from .plan import OWN, REDRAWS, RefinerSettings, Settings

INPUTS = ("data", "tokenizer", "tokens", "train", "features")

# states of a batch of degraded images in [-1, 1], given the seeds that are drawn with
States = Callable[[torch.Tensor, list[int]], torch.Tensor]


class Restoration:
    """A trained model and its tokenizer, asked to restore held-out images."""

    def __init__(self, run: Run) -> None:
        self.run, self.settings = run, run.settings("restoration", Settings)
        self.sampler = run.settings("sampler", SamplerConfig)
        self.model = open_model(run, run.inputs["train"] / "model.safetensors")
        self.tokenizer = open_tokenizer(run)
        ladder = self.tokenizer.at(self.model.schedule)
        self.ladder = ladder.read_as(self.model.config.state)
        self.clean = CleanImages(run, self.settings.strength, self.settings.num_images)
        self.names: dict[str, Any] = model_identity(run)
        self.strip: dict[str, np.ndarray] = {}

    def told(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """What the model is told of degraded images."""
        kind = self.model.config.condition
        return condition_latent(kind, self.tokenizer, self.ladder, images_BCHW)

    def seeds(self, split: DegradedSplit, rows: list[int]) -> list[int]:
        """What images of a split are drawn with."""
        return seeds_of_rows(rows, self.run.config["train_seed"], len(split))

    # ------------------------------------------------------------ ways

    def ways(self) -> dict[str, States]:
        """Every way that this model has, by name."""
        if self.model.config.condition == "none":
            coarse = max(1, self.model.schedule.num_scales // 2)
            ways: dict[str, States] = {"known": partial(self.known, coarse)}
            if self.model.config.mask_prob:
                ways["repair"] = partial(self.repair, max(self.settings.passes))
            return ways
        ways = {decode: partial(self.decode, decode) for decode in self.settings.decode}
        if self.settings.refiner:
            ways["refined"] = partial(self.refine, self.trained_refiner(self.settings.refiner))
        return ways

    @property
    def own(self) -> str:
        """The way that a model is asked for beside models of other ways."""
        if self.model.config.condition == "none":
            return "repair" if self.model.config.mask_prob else "known"
        return "expected" if "expected" in self.settings.decode else self.settings.decode[0]

    def decode(self, how: str, images_BCHW: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        """States by a decoding of the model."""
        degraded_BChw = self.told(images_BCHW)
        return restored(self.model, self.ladder, degraded_BChw, seeds, how, self.sampler)[0]

    @torch.no_grad()
    def refine(
        self, refiner: LatentRefiner, images_BCHW: torch.Tensor, seeds: list[int]
    ) -> torch.Tensor:
        """States of the likeliest codes, refined."""
        f_hat_BChw: torch.Tensor = refiner(
            *rolled_out(self.model, self.ladder, self.told(images_BCHW))
        )
        return f_hat_BChw

    def own_tokens(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Tokens of degraded images."""
        return self.tokenizer.encode(images_BCHW, self.model.schedule)

    def known(self, coarse: int, images_BCHW: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        """States whose coarse tokens are those of the degraded images."""
        return completed(self.model, self.ladder, self.own_tokens(images_BCHW), coarse, seeds)

    def repair(self, passes: int, images_BCHW: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        """States of the degraded images' tokens, redrawn where they are unlikely."""
        given = self.model, self.ladder, self.own_tokens(images_BCHW), seeds
        return repaired(*given, self.unlikely, passes)

    @cached_property
    def unlikely(self) -> float:
        """Below which probability a repair redraws: as told, or what restores a batch of validation
        images best at the most passes; no test image has a say."""
        if self.settings.p_resample is not None:
            return self.settings.p_resample
        split = DegradedSplit.of(self.run, "val", self.settings.strength)
        rows = in_shares(np.asarray(split.images.labels_N), BATCH).tolist()
        psnr_of = dict.fromkeys(REDRAWS, 0.0)
        for kind in self.settings.degradations:
            for chance in REDRAWS:
                likeness = [
                    self.repair_psnr(split, kind, part, chance)
                    for part in batches(np.array(rows), self.clean.side)
                ]
                psnr_of[chance] += float(np.concatenate(likeness).mean())
        return max(psnr_of, key=psnr_of.__getitem__)

    @torch.no_grad()
    def repair_psnr(
        self, split: DegradedSplit, kind: str, rows: list[int], chance: float
    ) -> np.ndarray:
        """PSNR of some images, redrawn below a probability at the most passes."""
        images_BCHW = to_float(to_uint8(split.degraded(kind, rows))).to(self.run.device)
        given = self.model, self.ladder, self.own_tokens(images_BCHW), self.seeds(split, rows)
        state = repaired(*given, chance, max(self.settings.passes))
        images = to_uint8(self.tokenizer.to_image(state)).cpu().numpy()
        return psnr(to_uint8(split.clean(rows)).numpy(), images)

    # ------------------------------------------------------------ refiner

    def trained_refiner(self, settings: RefinerSettings) -> LatentRefiner:
        """A refiner of this model's own roll-outs on training images; all else is frozen."""
        config, seed = self.model.config, self.run.config["train_seed"]
        width, heads = settings.width or config.width, settings.heads or config.heads
        sizes = config.codebook_dim, config.schedule.latent_size, config.width
        refiner = LatentRefiner(*sizes, settings.depth, width, heads)
        refiner.init_weights(generator("refiner", seed))
        refiner = refiner.to(self.run.device)
        optimizer = torch.optim.AdamW(refiner.parameters(), lr=settings.lr)
        split = DegradedSplit.of(self.run, "train", self.settings.strength)
        names, total = self.settings.degradations, 0.0
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * (1 - step / settings.steps)
            rows = batch_indices(len(split), settings.batch_size, seed, step)
            source = generator("refiner degradations", seed, step)
            kinds = torch.randint(len(names), (len(rows),), generator=source).tolist()
            images_BCHW = split.mixed(names, kinds, rows).to(self.run.device)
            with torch.no_grad():
                clean_BChw = self.tokenizer.to_latent(split.clean(rows).to(self.run.device))
                rolled = rolled_out(self.model, self.ladder, self.told(images_BCHW))
            error = (refiner(*rolled) - clean_BChw).abs().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            total = error.item()
        self.run.say(f"refiner: L1 {total:.4f} of the latent at the last of {settings.steps} steps")
        save_tensors(
            self.run.out / "refiner.safetensors",
            refiner.state_dict(),
            refiner=settings.model_dump(mode="json"),
        )
        return refiner.eval()

    # ------------------------------------------------------------ numbers

    def images(self, states: States, kind: str) -> torch.Tensor:
        """All held-out images restored, uint8."""

        @torch.no_grad()
        def restored_part(part_BCHW: torch.Tensor, rows: list[int]) -> torch.Tensor:
            seeds = self.seeds(self.clean.split, rows)
            f_hat_BChw = states(to_float(part_BCHW.to(self.run.device)), seeds)
            return to_uint8(self.tokenizer.to_image(f_hat_BChw))

        degraded = zip(self.clean.parts(self.degraded[kind]), self.clean.batches())
        return self.clean.on_disk(restored_part(*part) for part in degraded)

    def report(self, way: str, states: States, repeat: int | None = None) -> dict[str, Scores]:
        """The scores of a way, a few of its images and the time that it takes."""
        of_kinds = {}
        for kind in self.settings.degradations:
            images_NCHW = self.images(states, kind)
            of_kinds[kind] = self.clean.scores(images_NCHW)
            if repeat is None:
                self.strip[f"{way}_{kind}"] = images_NCHW[:SHOWN].numpy().copy()
        self.clean.report(way, of_kinds, self.names, repeat)
        if way == self.own and repeat is None:
            self.clean.report(OWN, of_kinds, self.names)
        return of_kinds

    def report_time(self, way: str, states: States) -> None:
        """Time of an image of a whole batch: the median of five after a first one."""
        part = self.clean.parts(next(iter(self.degraded.values())))[0]
        images_BCHW, seeds = to_float(part.to(self.run.device)), list(range(len(part)))

        def once() -> None:
            with torch.no_grad():
                self.tokenizer.to_image(states(images_BCHW, seeds))

        once()
        spent = statistics.median(busy_seconds(once, self.run.device) for _ in range(5)) / len(part)
        self.run.add(f"restore_ms_{way}", 1000 * spent, "ms", **self.names)

    @torch.no_grad()
    def report_tokens(self, kind: str) -> None:
        """How many of the clean image's tokens are found, on one's own and teacher-forced."""
        stored = open_tokens(self.run.inputs["tokens"], "test")
        right: dict[str, list[torch.Tensor]] = {"free": [], "forced": []}
        for part, rows in zip(self.clean.parts(self.degraded[kind]), self.clean.batches()):
            latent_BChw = self.told(to_float(part.to(self.run.device)))
            clean_BL = torch.from_numpy(stored[rows].astype(np.int64)).to(self.run.device)
            given = self.model, self.ladder, latent_BChw, rows, "argmax", self.sampler
            found_BL = restored(*given)[1]
            inputs_BLC = self.ladder.teacher_forced_inputs(clean_BL)
            labels_B = torch.zeros_like(clean_BL[:, 0])
            logits_BLV = self.model(inputs_BLC, labels_B, degraded_BChw=latent_BChw)
            assert found_BL is not None
            right["free"].append((found_BL == clean_BL).cpu())
            right["forced"].append((logits_BLV.argmax(-1) == clean_BL).cpu())
        for how, parts in right.items():
            right_NL = torch.cat(parts).double()
            self.add(f"token_accuracy_{how}_{kind}", right_NL.mean().item())
            for k, where in enumerate(self.model.schedule.slices):
                share = right_NL[:, where].mean().item()
                self.add(f"token_accuracy_{how}_{kind}", share, scale=k)

    def add(self, metric: str, share: float, **where: int) -> None:
        """One share of this model."""
        named = {**self.names, **where, "num_images": len(self.clean)}
        self.run.add(metric, share, "share", **named)

    @cached_property
    def degraded(self) -> dict[str, torch.Tensor]:
        """Held-out images after every degradation, uint8."""
        return {name: self.clean.degraded(name) for name in self.settings.degradations}

    def report_evals(self, way: str) -> None:
        """Tokens of an image through the network; of one that is told, what a pass costs."""
        names, length = self.names, self.model.schedule.seq_len
        for passes in self.settings.passes if way == "repair" else ():
            evals = passes * length
            self.run.add(f"token_evals_{way}", evals, "tokens/image", repeat=passes, **names)
        most = max(self.settings.passes) if way == "repair" else 1
        self.run.add(f"token_evals_{way}", most * length, "tokens/image", **names)
        if way == "repair":
            self.run.add("p_resample_repair", self.unlikely, "probability", **names)
        if way == "argmax":
            self.run.add_cost(sampling_cost(self.model.config, SamplerConfig(top_k=1)), **names)


def work(run: Run) -> None:
    restoration = Restoration(run)
    settings, told = restoration.settings, restoration.model.config.condition != "none"
    for way, states in restoration.ways().items():
        of_kinds = restoration.report(way, states)
        restoration.report_time(way, states)
        restoration.report_evals(way)
        words = (f"{kind} {scores['psnr'][0]:.2f} dB" for kind, scores in of_kinds.items())
        run.say(f"{way}: {', '.join(words)}")
        for passes in settings.passes if way == "repair" else ():
            restoration.report(way, partial(restoration.repair, passes), passes)
    for kind in settings.degradations if told else ():
        restoration.report_tokens(kind)
    save_npz(run.out / "strip.npz", **restoration.strip)
