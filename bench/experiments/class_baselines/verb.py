"""Verb: classify held-out images without a generative model.

`accuracy_naive_bayes` of the counts of tokens by place and class (blank scale: all tokens; scale k:
those of the first k + 1 scales), `accuracy_nearest` and `accuracy_logistic` of pixels,
`accuracy_network` of the study's own classifier, and `accuracy_network_reconstructed` of what it
makes of reconstructions, the tokenizer's ceiling. With `_shift_<name>` behind it: the same of
shifted images. Every training label is known to all of them.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from srdd.degradation import shifted
from srdd.schedule import ScaleSchedule

from ...pipeline.artefacts import open_split, open_tokens, tokenizer_identity
from ...pipeline.at_once import at_once, row_parts
from ...pipeline.datasets import to_float, to_uint8
from ...pipeline.features import Classifier, classify, load_classifier
from ...pipeline.labels import in_shares
from ...pipeline.networks import open_tokenizer
from ...pipeline.tokenizing import reconstruct
from ...runtime.verb import Run
from ...study.settings import FeaturesConfig
from .plan import Settings

INPUTS = ("data", "tokenizer", "tokens", "features")

BATCH = 256
TOGETHER = 2**14  # small images that are asked for at once
ALPHA = 0.5  # of every code that a place of a class has not shown (Jeffreys)
CELLS = 2**27  # distances of pixels that are held at once


def code_log_shares(
    tokens_NL: np.ndarray, labels_N: np.ndarray, num_classes: int, codebook_size: int
) -> np.ndarray:
    """Naive Bayes: log of the smoothed share of every code at every place of every class, (Y, L,
    V)."""
    counts = np.full((num_classes, tokens_NL.shape[1], codebook_size), ALPHA)
    places_L = np.arange(tokens_NL.shape[1])
    np.add.at(counts, (labels_N[:, None], places_L[None], tokens_NL), 1.0)
    return np.log(counts / counts.sum(-1, keepdims=True))


def bayes_scores(log_shares_YLV: np.ndarray, tokens_NL: np.ndarray) -> np.ndarray:
    """log p of each token under each class, (N, Y, L)."""
    places_L = np.arange(tokens_NL.shape[1])
    return np.stack([shares_LV[places_L, tokens_NL] for shares_LV in log_shares_YLV], 1)


def nearest(train_ND: np.ndarray, labels_N: np.ndarray, asked_MD: np.ndarray) -> np.ndarray:
    """Label of the nearest training image by squared distance of pixels; of equal ones the
    first."""
    train, norms_N = torch.from_numpy(train_ND), torch.from_numpy(np.square(train_ND).sum(1))
    nearest_rows = []
    for part in torch.from_numpy(asked_MD).split(max(1, CELLS // len(train))):
        # |a - b|^2 without |a|^2, which is the same for all b
        nearest_rows.append((norms_N - 2 * part @ train.T).argmin(1))
    return labels_N[torch.cat(nearest_rows).numpy()]


class Trained:
    """What is learnt of the training split, each when it is first asked for."""

    def __init__(self, run: Run) -> None:
        self.settings: Settings = run.settings("class_baselines", Settings)
        self.run, self.split = run, open_split(run.inputs["data"], "train")
        self.labels_N = np.asarray(self.split.labels_N).astype(np.int64)
        rows_n = in_shares(self.labels_N, self.settings.train_images)
        self.seen_n = self.labels_N[rows_n]
        self.pixels_nD = flat(self.split.read(rows_n.tolist()))
        self.Y = int(run.config["dataset"]["num_classes"])

    @cached_property
    def logistic(self):
        """Logistic regression of pixels in [-1, 1], scikit-learn's defaults."""
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1000).fit(self.pixels_nD, self.seen_n)

    @cached_property
    def log_shares_YLV(self) -> np.ndarray:
        """Shares of codes among all training tokens."""
        tokens_NL = np.asarray(open_tokens(self.run.inputs["tokens"], "train"), np.int64)
        V = int(self.run.config["tokenizer"]["config"]["codebook_size"])
        return code_log_shares(tokens_NL, self.labels_N, self.Y, V)

    @cached_property
    def network(self) -> Classifier | None:
        """The study's first classifier; None where it has none."""
        if self.run.settings("features", FeaturesConfig).kind != "trained":
            return None
        path = self.run.inputs["features"] / "features.safetensors"
        return load_classifier(path).to(self.run.device)


def flat(images_NCHW: torch.Tensor) -> np.ndarray:
    """Pixels of uint8 images in [-1, 1], float32 (N, D)."""
    return to_float(images_NCHW).flatten(1).numpy()


class HeldOut:
    """Held-out images, as they are or shifted, asked of every classifier some at a time."""

    def __init__(self, run: Run, trained: Trained) -> None:
        self.run, self.trained, self.tokenizer = run, trained, open_tokenizer(run)
        self.schedule = ScaleSchedule(tuple(run.config["patch_nums"]))
        self.split, count = open_split(run.inputs["data"], "test"), trained.settings.num_images
        self.rows_N = in_shares(self.split.labels_N, count or len(self.split))
        self.labels_N = np.asarray(self.split.labels_N)[self.rows_N].astype(np.int64)
        names = {**tokenizer_identity(run), "model": self.schedule.name}
        self.names = {**names, "num_images": len(self.rows_N)}

    def right(self, metric: str, labels_N: np.ndarray, **where: int) -> float:
        """Report how many labels are true; returns the share."""
        share = float((labels_N == self.labels_N).mean())
        self.run.add(metric, share, "share", **where, **self.names)
        return share

    @torch.no_grad()
    def tokens(self, images_BCHW: torch.Tensor) -> np.ndarray:
        """Tokens_BL of uint8 images."""
        side = images_BCHW.shape[-1]
        parts = (part.to(self.run.device) for part in images_BCHW.split(at_once(BATCH, side)))
        encoded = [self.tokenizer.encode(to_float(part), self.schedule).cpu() for part in parts]
        return torch.cat(encoded).numpy()

    def asked(self, shift: str, rows: list[int]) -> tuple[list[np.ndarray], dict]:
        """Labels of some images of one shift: of naive Bayes after every scale, and by the name of
        a classifier."""
        known = self.trained
        images = to_uint8(shifted(shift, to_float(self.split.read(rows)), rows))
        tokens_BL, pixels_BD = self.tokens(images), flat(images)
        log_p_BYL = bayes_scores(known.log_shares_YLV, tokens_BL)
        first = [log_p_BYL[..., : k.stop].sum(-1).argmax(1) for k in self.schedule.slices]
        labels = {"naive_bayes": log_p_BYL.sum(-1).argmax(1)}
        labels["nearest"] = nearest(known.pixels_nD, known.seen_n, pixels_BD)
        labels["logistic"] = known.logistic.predict(pixels_BD)
        if known.network is not None:
            rebuilt = reconstruct(self.tokenizer, self.schedule, tokens_BL, self.run.device)
            both = {"network": images, "network_reconstructed": torch.from_numpy(rebuilt)}
            for name, asked in both.items():
                labels[name] = classify(known.network, asked, self.run.device).numpy()
        return first, labels

    def report(self, shift: str) -> dict[str, float]:
        """Every classifier on images of one shift; returns their accuracies."""
        end = "" if shift == "none" else f"_shift_{shift}"
        size = at_once(TOGETHER, self.tokenizer.config.image_size)
        parts = row_parts(self.rows_N, size)
        firsts, labels = zip(*(self.asked(shift, rows) for rows in parts))
        for k, first in enumerate(zip(*firsts)):
            self.right(f"accuracy_naive_bayes{end}", np.concatenate(first), scale=k)
        shares = {}
        for name in labels[0]:
            labels_N = np.concatenate([of_part[name] for of_part in labels])
            shares[name] = self.right(f"accuracy_{name}{end}", labels_N)
        return shares


def work(run: Run) -> None:
    held = HeldOut(run, Trained(run))
    for shift in held.trained.settings.shifts:
        shares = held.report(shift)
        words = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
        run.say(f"{len(held.rows_N)} images, shift {shift}: {words}")
