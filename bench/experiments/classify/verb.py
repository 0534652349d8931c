"""Verb: classify held-out images by the likelihood of their tokens under each class.

`accuracy` of the first k + 1 scales (blank scale: all), `accuracy_only` of scale k alone,
`class_nats`, how much likelier the true class makes a scale's tokens than no class does. Then
smoothing, the funnel, guided scores, the masked bound, shifted images, and which tokens decide.
What the way of asking costs: `..._token_evals` and `..._flops`, an image and all classes. Writes
scores.npz: scores (N, Y, K), labels, and rows of the test split. strip.npz: images with maps of
evidence, 128 for none and 1 or 255 for `map_limit` nats.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch

from srdd.config import SamplerConfig
from srdd.cost import class_flops, sampling_cost
from srdd.degradation import shifted
from srdd.likelihood import (
    Stage,
    averaged,
    evidence_map,
    funnel,
    history_of,
    masked_bound,
    scale_scores,
    smoothed_tokens,
    token_scores,
)
from srdd.noise import generator

from ...pipeline.artefacts import model_identity, open_split, save_npz
from ...pipeline.at_once import at_once, row_parts
from ...pipeline.datasets import to_float, to_uint8
from ...pipeline.labels import in_shares, in_turn, seeds_of_rows
from ...pipeline.networks import open_model, open_tokenizer
from ...pipeline.scratch import Rows, on_disk
from ...runtime.progress import Progress
from ...runtime.verb import Run
from .plan import Settings
from .scoring import (
    accuracy,
    calibration_error,
    contrast,
    counts_of,
    decisions_left,
    posterior_nll,
)

INPUTS = ("data", "tokenizer", "train")

BATCH = 256  # images that are encoded at once
HELD = 2**24  # log-probabilities of tokens that are held at once
STATISTICS = 10_000  # training images that the latent's deviation is taken of
CURVES = 1000  # images behind curves of tokens that decide


def some_classes(num_classes: int, count: int | None) -> np.ndarray:
    """So many classes, evenly spaced among all, ascending; None: all."""
    count = count or num_classes
    return np.arange(count) * num_classes // count


class HeldOut:
    """A trained model, and the held-out images whose class it is asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings("classify", Settings)
        self.tokenizer = open_tokenizer(run)
        self.model = open_model(run, run.inputs["train"] / "model.safetensors").eval()
        self.schedule, self.device = self.model.schedule, run.device
        self.ladder = self.tokenizer.at(self.schedule)
        split = open_split(run.inputs["data"], "test")
        classes_Y = some_classes(self.model.config.num_classes, self.settings.classes)
        all_N = np.asarray(split.labels_N)
        of_these_n = np.flatnonzero(np.isin(all_N, classes_Y))
        count = self.settings.num_images or len(of_these_n)
        self.rows_N = of_these_n[in_shares(all_N[of_these_n], count)]
        self.split_size = len(all_N)
        # places among the classes that are asked for
        self.labels_N = np.searchsorted(classes_Y, all_N[self.rows_N])
        self.together = at_once(BATCH, self.tokenizer.config.image_size)
        self.images_NCHW = on_disk(run.out, map(split.read, self.parts(self.rows_N)))
        self.N, self.Y = len(self.rows_N), len(classes_Y)
        self.classes_Y = torch.from_numpy(classes_Y).to(self.device)
        self.identity = {**model_identity(run), "num_images": self.N}
        self.latent_NChw, self.tokens_NL = self.encode(self.images_NCHW)

    def add(
        self,
        metric: str,
        value: float,
        unit: str = "share",
        scale: int | None = None,
        repeat: int | None = None,
    ) -> float:
        """Report one number of this model; returns it."""
        self.run.add(metric, value, unit, scale=scale, repeat=repeat, **self.identity)
        return value

    def right(
        self,
        metric: str,
        scores_NY: np.ndarray | torch.Tensor,
        scale: int | None = None,
        repeat: int | None = None,
    ) -> float:
        """Report how often the highest score is that of the true class; returns it."""
        share = accuracy(np.asarray(scores_NY), self.labels_N)
        return self.add(metric, share, scale=scale, repeat=repeat)

    def parts(self, rows_N: np.ndarray) -> Iterator[list[int]]:
        """Rows of a split, as many at a time as go through the tokenizer together."""
        return row_parts(rows_N, self.together)

    @torch.no_grad()
    def encode(self, images_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (on disk) and tokens_NL of uint8 images."""
        tokens = Rows(len(images_NCHW), self.device)

        def latents() -> Iterator[torch.Tensor]:
            for part in images_NCHW.split(self.together):
                latent_BChw = self.tokenizer.to_latent(to_float(part.to(self.device)))
                tokens.add(self.ladder.encode(latent_BChw)[0])
                yield latent_BChw

        return on_disk(self.run.out, latents()), tokens.whole()

    def seeds(self, rows: Iterable[int]) -> list[int]:
        """What images of the split are drawn with."""
        return seeds_of_rows(rows, self.run.config["train_seed"], self.split_size)

    def shifted(self, name: str) -> torch.Tensor:
        """All images after a shift, uint8, on disk."""
        parts = zip(self.images_NCHW.split(self.together), self.parts(self.rows_N))
        images = (to_uint8(shifted(name, to_float(part), rows)) for part, rows in parts)
        return on_disk(self.run.out, images)

    @cached_property
    def latent_std(self) -> float:
        """Standard deviation of the latent over training images, all cells and channels."""
        train = open_split(self.run.inputs["data"], "train")
        rows_N = in_shares(train.labels_N, STATISTICS)
        sums = torch.zeros(3, dtype=torch.float64)
        for rows in self.parts(rows_N):
            latent = self.encode(train.read(rows))[0].double()
            sums += torch.stack((latent.sum(), latent.square().sum(), torch.tensor(latent.numel())))
        total, squares, count = sums.tolist()
        return float(max(0.0, squares / count - (total / count) ** 2) ** 0.5)

    def copies(self, latent_NChw: torch.Tensor, sigma: float, count: int) -> torch.Tensor:
        """Tokens_SNL of noisy copies, on disk; the noise of an image follows from its row in the
        split and from the training seed."""

        def of_part(latent_BChw: torch.Tensor, rows: list[int]) -> torch.Tensor:
            noise, given = sigma * self.latent_std, latent_BChw.to(self.device)
            drawn = smoothed_tokens(self.ladder, given, noise, self.seeds(rows), count)
            return drawn.transpose(0, 1)

        parts = zip(latent_NChw.split(self.together), self.parts(self.rows_N))
        return on_disk(self.run.out, (of_part(*part) for part in parts)).transpose(0, 1)

    def scores(self, tokens_NL: torch.Tensor, w: float = 1.0) -> torch.Tensor:
        """Scores_NY of all scales, guided where w is not 1, on the CPU."""
        asked = self.model, self.ladder, tokens_NL, self.classes_Y
        return scale_scores(*asked, guidance=w).sum(-1).cpu()

    def smoothed(self, first_NY: torch.Tensor, copies_SNL: torch.Tensor) -> torch.Tensor:
        """Scores_SNY of images and their copies, the image itself first."""
        copies = (tokens_NL.to(self.device) for tokens_NL in copies_SNL)
        return torch.stack([first_NY, *map(self.scores, copies)])

    def average(self, scores_SNY: torch.Tensor) -> torch.Tensor:
        """Scores of so many copies as one."""
        return averaged(scores_SNY, self.settings.average)


# ---------------------------------------------------------------- all classes, all scales


class Exact:
    """log p of every scale under every class, and of some images of every token; no class too,
    where the model has seen it."""

    def __init__(self, held: HeldOut, progress: Progress) -> None:
        knows_none = held.model.config.class_dropout > 0
        none = [torch.full_like(held.classes_Y[:1], held.model.config.null_label)]
        labels = torch.cat([held.classes_Y, *(none if knows_none else [])])
        self.curve_n = in_shares(held.labels_N, CURVES)
        of_scales, of_tokens, begin = [], [], time.perf_counter()
        step = max(1, HELD // (len(labels) * held.schedule.seq_len))
        for i in range(0, held.N, step):
            log_p_BCL = token_scores(held.model, held.ladder, held.tokens_NL[i : i + step], labels)
            parts = log_p_BCL.split(held.schedule.lengths, -1)
            of_scales.append(torch.stack([p.sum(-1, dtype=torch.float64) for p in parts], -1).cpu())
            inside = (self.curve_n >= i) & (self.curve_n < i + step)
            of_tokens.append(log_p_BCL[self.curve_n[inside] - i].cpu())
            progress.advance(0)
        self.seconds = time.perf_counter() - begin
        scores_NCK, self.log_p_nCL = torch.cat(of_scales).numpy(), torch.cat(of_tokens).numpy()
        self.scores_NYK = scores_NCK[:, : held.Y]
        self.none_NK = scores_NCK[:, held.Y] if knows_none else None

    @property
    def scores_NY(self) -> np.ndarray:
        """Of all scales."""
        return self.scores_NYK.sum(-1)


def report_exact(held: HeldOut, exact: Exact) -> float:
    """Accuracy by scale and in all, what a class says of each scale, and the posterior; returns the
    accuracy of all scales."""
    lengths, scores_NYK = np.array(held.schedule.lengths), exact.scores_NYK
    for k in range(len(lengths)):
        held.right("accuracy", scores_NYK[..., : k + 1].sum(-1), scale=k)
        held.right("accuracy_only", scores_NYK[..., k], scale=k)
    right = held.right("accuracy", exact.scores_NY)
    held.right("accuracy_scale_mean", (scores_NYK / lengths).sum(-1))
    true_NK = scores_NYK[np.arange(held.N), held.labels_N]
    held.add("nll", float(-true_NK.sum(-1).mean()), "nats/image")
    held.add("posterior_nll", posterior_nll(exact.scores_NY, held.labels_N), "nats/image")
    held.add("ece", calibration_error(exact.scores_NY, held.labels_N))
    if exact.none_NK is not None:
        for k, nats in enumerate((true_NK - exact.none_NK).mean(0).tolist()):
            held.add("class_nats", nats, "nats/image", scale=k)
        # one score for all classes: the first of equal ones
        same_NY = np.repeat(exact.none_NK.sum(-1)[:, None], held.Y, 1)
        held.right("accuracy_no_class", same_NY)
    return right


def report_cost(held: HeldOut, way: str, passes: Sequence[float], resumed: float = 0.0) -> str:
    """What a way of asking costs an image: passes of every scale, all classes counted. resumed: for
    how many of them a run began at a later scale, which makes what follows from the class anew."""
    cost = sampling_cost(held.model.config, SamplerConfig())
    tokens = sum(n * length for n, length in zip(passes, held.schedule.lengths))
    flops = sum(n * float(row[2]) for n, row in zip(passes, cost.by_scale))
    flops += resumed * class_flops(held.model.config)
    held.add(f"{way}_token_evals", tokens, "tokens/image")
    held.add(f"{way}_flops", flops, "flop/image")
    return f"{tokens:g} tokens, {flops / 1e9:.3g} GFLOP an image"


# ---------------------------------------------------------------- other ways of asking


def report_smoothing(held: HeldOut, exact: Exact, right: float, progress: Progress) -> None:
    """Accuracy over copies and noises, and how many tokens a noise changes."""
    settings, first_NY = held.settings, torch.from_numpy(exact.scores_NY)
    most = max(settings.samples)
    for sigma in settings.sigma:
        copies_SNL = held.copies(held.latent_NChw, sigma, max(1, most - 1))
        changed = [(copy_NL.to(held.device) != held.tokens_NL).sum() for copy_NL in copies_SNL]
        held.add(f"tokens_changed_s{sigma:g}", sum(map(int, changed)) / copies_SNL.numel())
        scores_SNY = held.smoothed(first_NY, copies_SNL[: most - 1])
        for count in settings.samples:
            mean_NY = held.average(scores_SNY[:count])
            of_count = held.right(f"accuracy_smoothed_s{sigma:g}", mean_NY, repeat=count)
            if (sigma, count) == (settings.chosen_sigma, settings.chosen_samples):
                held.add("accuracy_smoothed", of_count)
                held.add("smoothing_gain", of_count - right)
        progress.advance()


def report_funnel(held: HeldOut, exact: Exact, right: float) -> None:
    """Accuracy, cost and what is lost at each stage of the funnel, run as it is: no score of other
    parts of this job is read."""
    settings = held.settings
    stages = [Stage(stage.scales, stage.keep, stage.samples) for stage in settings.stages]
    most = max(stage.samples for stage in stages)
    copies_SNL = held.copies(held.latent_NChw, settings.chosen_sigma, most - 1)

    def ask(copy: int, places_NC: torch.Tensor, scales: Sequence[int]) -> torch.Tensor:
        labels_NC = held.classes_Y[places_NC]
        tokens_NL = copies_SNL[copy - 1].to(held.device) if copy else held.tokens_NL
        return scale_scores(held.model, held.ladder, tokens_NL, labels_NC, scales)

    places_Y = torch.arange(held.Y, device=held.device)
    every_NY, history = places_Y.expand(held.N, -1), history_of(held.model)
    outcome = funnel(ask, held.schedule, history, every_NY, stages, settings.average)
    labels_N = outcome.labels_B.cpu().numpy()
    of_funnel = held.add("accuracy_funnel", float((labels_N == held.labels_N).mean()))
    held.add("funnel_gain", of_funnel - right)
    held.add("funnel_agreement", float((labels_N == exact.scores_NY.argmax(1)).mean()))
    for place, kept_Nc in enumerate(outcome.kept):
        there_N = (kept_Nc.cpu().numpy() == held.labels_N[:, None]).any(1)
        held.add("stage_recall", float(there_N.mean()), repeat=place)
    report_cost(held, "funnel", outcome.passes, outcome.resumed)


def report_guidance(held: HeldOut, right: float) -> None:
    """Accuracy of guided scores."""
    for w in held.settings.guidance:
        if w == 1.0:
            held.add("accuracy_guided_w1", right)
            continue
        guided_NY = held.scores(held.tokens_NL, w)
        gain = held.right(f"accuracy_guided_w{w:g}", guided_NY) - right
        held.add(f"guidance_gain_w{w:g}", gain)


def report_bound(held: HeldOut, right: float, progress: Progress) -> None:
    """Accuracy of the masked bound by number of draws, with noise common to all classes and not."""
    model, most = held.model, max(held.settings.draws)
    step = max(1, HELD // (held.Y * held.schedule.seq_len))
    for name, common in (("accuracy_bound", True), ("accuracy_bound_independent", False)):
        parts = []
        for i in range(0, held.N, step):
            seeds = held.seeds(held.rows_N[i : i + step])
            asked = held.tokens_NL[i : i + step], held.classes_Y, seeds
            parts.append(masked_bound(model, held.ladder, *asked, most, common).cpu())
        draws_RNY = torch.cat(parts, 1)
        for count in held.settings.draws:
            last = held.right(name, draws_RNY[:count].mean(0), repeat=count)
            if common and count == most:
                held.add("bound_gain", last - right)
        progress.advance()


def shifts_of(settings: Settings) -> list[str]:
    """Shifts that change images: `none` is what all else is measured on."""
    return [name for name in settings.shifts if name != "none"]


def report_shifts(held: HeldOut, progress: Progress) -> None:
    """Accuracy on shifted images, without and with smoothing."""
    settings = held.settings
    for name in shifts_of(settings):
        latent_NChw, tokens_NL = held.encode(held.shifted(name))
        scores_NY = held.scores(tokens_NL)
        held.right(f"accuracy_shift_{name}", scores_NY)
        if settings.sigma and settings.chosen_samples > 1:
            count = settings.chosen_samples - 1
            copies_SNL = held.copies(latent_NChw, settings.chosen_sigma, count)
            mean_NY = held.average(held.smoothed(scores_NY, copies_SNL))
            held.right(f"accuracy_shift_{name}_smoothed", mean_NY)
        progress.advance()


# ---------------------------------------------------------------- which tokens decide


def report_decisions(held: HeldOut, exact: Exact) -> None:
    """Decisions that are left when the tokens of most mutual information with them are kept alone
    or dropped, beside tokens in a random order."""
    if held.schedule.seq_len == 1:  # nothing is left of one token without it
        return
    log_p_nYL = exact.log_p_nCL[:, : held.Y]
    decided_n = log_p_nYL.sum(-1, dtype=np.float64).argmax(1)
    own_nL = log_p_nYL[np.arange(len(decided_n)), decided_n]
    tokens = held.schedule.seq_len
    sources = [generator("order", int(row)) for row in held.rows_N[exact.curve_n]]
    orders = {
        "evidence": (exact.log_p_nCL[:, held.Y] - own_nL).argsort(1, kind="stable"),
        "random": np.stack([torch.randperm(tokens, generator=g).numpy() for g in sources]),
    }
    left: dict[tuple[str, str, int], float] = {}
    for order, order_nL in orders.items():
        for way, keep in (("kept", True), ("dropped", False)):
            for count in counts_of(tokens):
                share = decisions_left(log_p_nYL, order_nL, count, keep)
                left[way, order, count] = held.add(f"{way}_{order}", share, repeat=count)
    half = max(count for count in counts_of(tokens) if 2 * count <= tokens)
    gain = left["dropped", "evidence", half] - left["dropped", "random", half]
    held.add("deletion_gain", gain)


def report_maps(held: HeldOut, exact: Exact) -> None:
    """A few images with the maps of what their tokens say for their class, against no class and
    against the strongest other one."""
    picks = in_turn(held.labels_N[exact.curve_n], held.settings.explain)
    log_p_nCL, labels_n = exact.log_p_nCL[picks], held.labels_N[exact.curve_n][picks]
    own_nL = log_p_nCL[np.arange(len(picks)), labels_n]
    maps = {
        "tmi": own_nL - log_p_nCL[:, held.Y],
        "contrastive": contrast(log_p_nCL[:, : held.Y], labels_n),
    }
    areas = {
        name: evidence_map(torch.from_numpy(values_nL), held.schedule).numpy()
        for name, values_nL in maps.items()
    }
    limit = max(float(np.abs(area_nhw).max()) for area_nhw in areas.values()) or 1.0
    held.add("map_limit", limit, "nats")
    grey = {
        name: np.rint(128 + 127 * area_nhw[:, None] / limit).astype(np.uint8)
        for name, area_nhw in areas.items()
    }
    images = held.images_NCHW[exact.curve_n[picks]].numpy()
    save_npz(held.run.out / "strip.npz", explained=images, **grey)


# ---------------------------------------------------------------- work


def work(run: Run) -> None:
    held = HeldOut(run)
    settings, masked = held.settings, held.model.config.mask_prob > 0
    parts = len(settings.sigma) + len(shifts_of(settings)) + (2 if settings.draws and masked else 0)
    progress = Progress(run.run_id, parts + 1, unit="part")
    exact = Exact(held, progress)
    progress.advance()
    right = report_exact(held, exact)
    cost = report_cost(held, "exact", [float(held.Y)] * held.schedule.num_scales)
    if settings.sigma:
        held.add("latent_std", held.latent_std, "latent")
        report_smoothing(held, exact, right, progress)
    if settings.stages:
        report_funnel(held, exact, right)
    report_guidance(held, right)
    if settings.draws and masked:
        report_bound(held, right, progress)
    report_shifts(held, progress)
    if exact.none_NK is not None:
        report_decisions(held, exact)
    if settings.explain:
        report_maps(held, exact)
    progress.close()
    arrays = {"scores": exact.scores_NYK.astype(np.float32), "labels": held.labels_N}
    save_npz(run.out / "scores.npz", **arrays, rows=held.rows_N)
    each = f"{1e3 * exact.seconds / held.N:.2g} ms, {cost}"
    run.say(f"{held.N} images of {held.Y} classes, accuracy {right:.4f}; {each}")
