"""Refinement step by step, noise shift, steadiness of gradients and bands, of every system; and one
table of all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...report import glyphs
from ...report.absent import missing_words, status_of
from ...report.caption import Caption
from ...report.cells import frame, number, shown, spread, unwell
from ...report.claims import claim_details
from ...report.completion import along_scales, at, count_words, lost_words
from ...report.drawing import DOUBLE, band, blank, draw_between, look_of, note, plain_log
from ...report.estimate import estimate
from ...report.sheets import by_variant, sheet
from ...report.view import View
from ...report.words import held_out, score_details, seeds_details, with_classes
from ...study import rooms

Places = Callable[[View, str], dict[int, float]]


def _models(view: View) -> View:
    """The first variant of each trained model: what is measured here asks no sampler."""
    first: dict[str, str] = {}
    for variant, names in view.variants.items():
        first.setdefault(names["model"], variant)
    return view if len(first) == len(view.variants) else view.only(first.values())


def _tokens_so_far(view: View, variant: str) -> dict[int, float]:
    """Tokens of an image up to each scale."""
    lengths = [side**2 for side in view.variants[variant]["patch_nums"]]
    return dict(enumerate(map(float, np.cumsum(lengths))))


def _flops_so_far(view: View, variant: str) -> dict[int, float]:
    """Millions of operations of the network up to each scale."""
    rows = along_scales(view, variant, "refine_flops").groupby("scale")["value"].first()
    return {int(k): flops / 1e6 for k, flops in rows.items()}


def _line(
    axes: Axes, view: View, variant: str, metric: str, places: dict[int, float], label: str = ""
) -> None:
    """A metric of a variant over its scales, at given places. label: if not its name."""
    rows = along_scales(view, variant, metric)
    rows = rows[rows["scale"].isin(places)]
    if len(rows):
        at_place = rows.assign(place=rows["scale"].astype(int).map(places))
        band(axes, at_place, "place", label or variant, look_of(view, variant))


def _floor(axes: Axes, view: View, variant: str, places: dict[int, float]) -> None:
    """What the tokenizer itself leaves: a thin line of hollow symbols, because every dash pattern
    is that of some variant."""
    rows = along_scales(view, variant, "ladder_error")
    means = rows[rows["scale"].isin(places)].groupby("scale")["value"].mean()
    look = look_of(view, variant)
    hollow = {"markerfacecolor": "white", "markersize": 3, "markeredgewidth": 0.6}
    style = {"color": look["color"], "marker": look["marker"], "linestyle": "-", "linewidth": 0.5}
    xs = [places[int(k)] for k in means.index]
    axes.plot(xs, means.to_numpy(), zorder=1, **style, **hollow)


# ---------------------------------------------------------------- refinement


def _refine_error(axes: np.ndarray, view: View) -> None:
    """Error after each step against tokens and operations so far."""
    panels = {"tokens so far": _tokens_so_far, "network so far (MFLOP)": _flops_so_far}
    for panel, (title, of) in zip(axes[0], panels.items()):
        for variant in view.variants:
            places = of(view, variant)
            _line(panel, view, variant, "refine_error", places)
            _floor(panel, view, variant, places)
        panel.set_xlabel(title)
        if not panel.lines:
            blank(panel, "nothing was refined")
            continue
        panel.set_xscale("log")
        plain_log(panel.xaxis)
    axes[0, 0].set_ylabel("mean square error of the image")


def figure_refine_error(view: View) -> tuple[Figure, Caption]:
    """Error of the image after each step of refinement (measure of arXiv 2510.02826, our
    definition)."""
    models = _models(view)
    figure = sheet(by_variant(models), (DOUBLE, 3.0), (1, 2), _refine_error, far=[0], sharey="row")
    note(figure, missing_words(models, "refine_error_mean"))
    text = (
        "Error of held-out images after each step, earlier steps true and this one the likeliest "
        "codes, of a regression its mean. Hollow, thin: with the true step, what the tokenizer "
        "leaves. Between the two: what the model does not know. Bands: 95 % t-interval over "
        "training seeds."
    )
    details = (
        *claim_details(view),
        "Error: mean square over pixels in [-1, 1]; images are cut off at -1 and 1.",
        "The likeliest codes are no sample: an image of them is smoother than a drawn one. A mean "
        "has the smallest square error there is, so this measure favours a regression.",
        *_measured_details(view),
    )
    return figure, Caption(text, details)


def _measured_details(view: View) -> tuple[str, ...]:
    """How many images stand behind the numbers, and how many trainings."""
    count = count_words(_models(view), "ladders")
    return f"N = {count} images of {held_out(view.results)}.", *seeds_details(view)


# ---------------------------------------------------------------- noise


def _levels(view: View) -> list[float]:
    """Levels of noise that are drawn, at most four, the strongest among them."""
    levels = sorted(view.about["ladders"]["noise"])
    places = sorted(set(np.linspace(0, len(levels) - 1, 4).round().astype(int)))
    return [levels[i] for i in places]


def _noise_shift(axes: np.ndarray, view: View, levels: list[float]) -> None:
    """Error against clean images by how many scales of a noisy image are kept."""
    for panel, level in zip(axes[0], levels):
        for variant, names in view.variants.items():
            K = len(names["patch_nums"])
            # as shares of the steps: systems differ in how many they have
            places = {m: m / K for m in range(K + 1)}
            _line(panel, view, variant, f"noise_s{level:g}", places)
        panel.set_title(f"noise {level:g}")
        panel.set_xlabel("share of steps kept")
        if not panel.lines:
            blank(panel, "nothing was measured")
    axes[0, 0].set_ylabel("error against the clean image")


def figure_noise_shift(view: View) -> tuple[Figure, Caption]:
    """Error where the first steps are those of noisy images (noise shift of arXiv 2510.02826, our
    definition)."""
    models, levels = _models(view), _levels(view)
    draw = partial(_noise_shift, levels=levels)
    figure = sheet(by_variant(models), (DOUBLE, 2.8), (1, len(levels)), draw, sharey="row")
    note(figure, missing_words(models, "noise_loss"))
    alone = ", the class alone" if with_classes(models) else ""
    text = (
        "Error against the clean image where the first steps are those of an image with noise and "
        f"the likeliest codes follow. Left: nothing kept{alone}; right: all kept, what the "
        "tokenizer makes of the noisy image. A model that refines lies lowest in between."
    )
    more = [f"{level:g}" for level in sorted(view.about["ladders"]["noise"]) if level not in levels]
    details = (
        *claim_details(view),
        "Noise: normal, of this standard deviation, added to images in [-1, 1] before they are "
        "encoded. That of an image is the same in every system and at every level.",
        f"Measured and not drawn: {', '.join(more)}." if more else "",
        *_measured_details(view),
    )
    return figure, Caption(text, details)


# ---------------------------------------------------------------- gradients


def _log_band(panel: Axes, rows: pd.DataFrame, label: str, style: dict[str, Any]) -> None:
    """Geometric mean at each step with the interval of the logarithm: that of the values themselves
    goes below 0, where a logarithmic axis has no place."""
    logs = rows.assign(value=np.log(rows["value"])).groupby("step")["value"]
    logs_of = {step: mean for step, values in logs if (mean := estimate(values)) is not None}
    steps, means = list(logs_of), list(logs_of.values())
    middle = np.exp([mean.mean for mean in means])
    panel.plot(steps, middle, label=glyphs.text(label), **style)
    sure = [mean.half is not None for mean in means]
    low, high = np.exp([mean.low for mean in means]), np.exp([mean.high for mean in means])
    draw_between(panel, steps, low, high, sure, style["color"])


def _gradient_noise(axes: np.ndarray, view: View) -> None:
    """Gradient noise of every system along its training."""
    panel = axes[0, 0]
    for variant in view.variants:
        rows = view.select(variant, "gradient_noise_along").dropna(subset=["step"])
        # where a training has no number, a mean over the others would be that of the steadier ones
        rows = rows[~rows["step"].isin(rows.loc[rows["value"].isna(), "step"])]
        if len(rows):
            _log_band(panel, rows, variant, look_of(view, variant))
    panel.set_xlabel("training step")
    panel.set_ylabel("gradient noise (trace over squared mean)")
    if not panel.lines:
        blank(panel, "no training was looked at")
        return
    panel.set_yscale("log")
    plain_log(panel.yaxis)


def figure_gradient_noise(view: View) -> tuple[Figure, Caption]:
    """How much gradients of batches differ along the training (measure of arXiv 2510.02826, our
    definition)."""
    models = _models(view)
    figure = sheet(by_variant(models), (DOUBLE, 3.2), (1, 1), _gradient_noise)
    drowned = [variant for variant in models.variants if _is_drowned(models, variant)]
    rest = models.only([variant for variant in models.variants if variant not in drowned])
    said = [f"too noisy at the kept step: {', '.join(drowned)}"] if drowned else []
    note(figure, "; ".join(filter(None, [missing_words(rest, "gradient_noise"), *said])))
    text = (
        "Trace of the covariance of the gradients of single batches over the squared norm of their "
        "mean, along the training of averaged weights. Lower is steadier. Weights of blocks and "
        "input alone, so that heads of any size compare; a factor on the loss drops out."
    )
    count = view.about["ladders"]["micro_batches"]
    details = (
        *claim_details(view),
        f"{count} batches of the training's size, the same images in every system; losses of one "
        "pass, no class and no path dropped.",
        "It rises as a loss nears its minimum, where the mean gradient vanishes: compare systems "
        "at one step.",
        "Geometric means, and the interval of their logarithm. A step is left out where the mean "
        "gradient of a training did not stand out of its noise.",
        # steps are shares of a training, and patience ends some sooner
        "At steps that only some trainings have, means are over those.",
        *seeds_details(view),
    )
    return figure, Caption(text, details)


# ---------------------------------------------------------------- bands

SPACES = ("latent", "image")


def _alike(view: View) -> list[list[str]]:
    """Variants whose steps add the same to latent and image, such as those that only number codes
    otherwise: the last line would hide the others."""
    of: dict[tuple, list[str]] = {}
    for variant in view.variants:
        rows = [along_scales(view, variant, f"band_centre_{space}") for space in SPACES]
        numbers = [part[["train_seed", "scale", "value"]].to_numpy().round(9) for part in rows]
        of.setdefault(tuple(map(repr, map(np.ndarray.tolist, numbers))), []).append(variant)
    return list(of.values())


def _bands(axes: np.ndarray, view: View) -> None:
    """Mean band of what each step adds, one line for variants that add the same."""
    alike = _alike(view)
    for panel, space in zip(axes[0], SPACES):
        for first, *others in alike:
            places = {k: float(k) for k in range(len(view.variants[first]["patch_nums"]))}
            label = "; ".join((first, *others))
            _line(panel, view, first, f"band_centre_{space}", places, label)
        panel.set_xlabel("step")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylabel(f"mean band of what a step adds, {space}")
        if not panel.lines:
            blank(panel, "nothing was measured")


def figure_bands(view: View) -> tuple[Figure, Caption]:
    """Which frequencies each step adds (partition of arXiv 2510.02826, our definition)."""
    models = _models(view)
    figure = sheet(by_variant(models), (DOUBLE, 3.0), (1, 2), _bands)
    note(figure, lost_words(models, "band_centre_image", 0))
    text = (
        "Mean DCT band of the energy that each step of the true ladder adds, to the latent (left) "
        "and to the image (right). A Laplacian pyramid rises from step to step; plain residual "
        "quantisation of one grid stays flat. Variants that add the same have one line."
    )
    details = (
        *claim_details(view),
        "Band of a coefficient: the larger of its two frequencies, 0 is the mean. Latents of "
        "other sides have other bands; those of images compare.",
        "The first step adds to the image of an empty latent.",
        *_measured_details(view),
    )
    return figure, Caption(text, details)


# ---------------------------------------------------------------- one row a system


def _factors(view: View, variant: str) -> dict[str, str]:
    """What a system is: space, head, partition, sizes."""
    names = view.variants[variant]
    model, sampler = names["settings"]["model"], names["settings"]["sampler"]
    row = {"Variant": variant, "Head": str(model.get("head", "softmax"))}
    row["Grids"] = "-".join(map(str, names["patch_nums"]))
    row["Tokens"] = number(sum(side**2 for side in names["patch_nums"]))
    row["Bits per image"] = number(_one(view, variant, "bits_per_image"))
    row["Head weights"] = number(_one(view, variant, "head_parameters"))
    row["Weights"] = number(_one(view, variant, "parameters"))
    row["Temperature"] = number(sampler["temperature"])
    return row


def _one(view: View, variant: str, metric: str) -> float | None:
    """A number that all trainings have alike."""
    values = at(view, variant, metric)
    return float(values.iloc[0]) if len(values) else None


SCORES = ("FID", "KID", "IS", "Precision", "Recall", "Class agreement")
MEASURED = {
    "Refinement error": "refine_error_mean",
    "Tokenizer's part": "ladder_error_mean",
    "Model's part": "learned_error_mean",
    "Fall in the first half": "half_fall",
    "Lost to noise": "noise_loss",
    "Gradient noise": "gradient_noise",
    "Band rise, image": "band_rise_image",
    "Band rise, latent": "band_rise_latent",
    "Kept step": "kept_step",
    "Operations per image": "flops",
}


def _row(view: View, variant: str) -> dict[str, str]:
    """One system: what it is, how it refines, how it scores."""
    row = _factors(view, variant)
    floor = view.grid_estimate(view.variants[variant], "reconstruction_mse_test")
    row["Reconstruction error"] = spread(floor)
    for title, metric in MEASURED.items():
        row[title] = spread(estimate(at(view, variant, metric)))
    if _is_drowned(view, variant):
        row["Gradient noise"] = "too noisy"
    scores = view.results.score_columns(SCORES)
    row |= {title: spread(view.estimate(variant, metric)) for title, metric in scores.items()}
    return row | {"Status": status_of(view, variant, "refine_error_mean", scores)}


def _is_drowned(view: View, variant: str) -> bool:
    """Whether the mean gradient of a training did not stand out of the noise of its batches: a mean
    over the other trainings would be that of the steadier ones. Of weights that were imported
    no gradient was measured."""
    if view.variants[variant]["settings"]["training"] is None:
        return False
    known, asked = (at(view, variant, m) for m in ("gradient_noise", "refine_error_mean"))
    return len(known) < len(asked)


def table_factors(view: View) -> tuple[pd.DataFrame, Caption]:
    """Every system: its space, head and partition, and what was measured of it."""
    table = frame([_row(view, variant) for variant in view.variants])
    unscored = not set(view.about["measure"]) & set(rooms.which("SCORES"))
    if unscored:
        table = table.drop(columns=[view.results.label(title) for title in SCORES])
    scores = [view.results.label(title) for title in ("FID", "Class agreement")]
    scores = [title for title in scores if title in table]
    last = "Status" if unwell(table) else "Gradient noise"
    columns = ["Variant", "Tokens", "Reconstruction error", "Refinement error", *scores, last]
    text = (
        "Every system: tokens, error of the tokenizer's reconstruction, mean error over the steps "
        f"of refinement{'' if unscored else ', scores'}, and noise of the gradients."
    )
    if not unscored:
        text += (
            " FID never judges alone: a head of independent bits scores a low one with images of "
            "the wrong class."
        )
    drowned: tuple[str, ...] = ()
    if "too noisy" in set(table["Gradient noise"]):
        count = view.about["ladders"]["micro_batches"]
        drowned = (
            f"Too noisy: in a training the mean gradient of {count} batches did not stand out of "
            "their noise.",
        )
    details = (
        *claim_details(view),
        "Losses per token of two tokenizers, or of two heads, are not comparable and not shown.",
        "Fall in the first half: what the first half of the steps brings of the fall of the error. "
        "That is from an empty latent to the last step. Lost to noise: mean error at the strongest "
        "noise minus that at the weakest.",
        *drowned,
        *_measured_details(view)[: None if unscored else 1],
        *(() if unscored else score_details(view)),
    )
    return shown(table, *columns), Caption(text, details)
