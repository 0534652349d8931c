"""Class against detail of every arm, gradients that agree or not, whose condition explains whose
tokens, and the rules that compare arms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ...report.absent import missing_words
from ...report.caption import Caption
from ...report.cells import Cell, frame, number, shown, spread
from ...report.claims import (
    NO_DIRECTION,
    Verdict,
    claim_details,
    decided_together,
    direction,
)
from ...report.curves import GREY
from ...report.drawing import (
    DOUBLE,
    band,
    blank,
    canvas,
    fill_of,
    hide_rest,
    leaning,
    legend_below,
    look,
    look_of,
    note,
    slanted,
    text,
    text_width,
    wrapped,
)
from ...report.estimate import FEWEST, Estimate, estimate, show_difference
from ...report.sheets import by_variant, sheet
from ...report.view import View
from .measures import DETAIL
from .plan import ALL_ARMS, ARMS, HALF, MEASURES, compared
from .reading import (
    NAMES,
    above_half,
    along,
    arms_of,
    asked,
    batch_classes,
    matrix_runs,
    minus,
    missing_arms,
    of_arm,
    run_details,
    two_errors,
)

PLANES = {"knn_accuracy": "kNN accuracy", "probe_accuracy": "probe accuracy"}
MOST_MATRICES = 6  # arms beside each other
TITLE = 84  # letters of a line across the page
MOST_POINTS = 16  # of a curve of cosines: those of single steps leap

# ---------------------------------------------------------------- class against detail


def _style(arm: str) -> dict[str, Any]:
    """Style of an arm: the same in all figures, hollow where it went on to equal tokens."""
    base = arm.removesuffix("_long")
    style = {**look(ARMS.index(base)), "linestyle": "none"}  # type: ignore[arg-type]
    return style | ({"markerfacecolor": "white"} if arm != base else {})


def _plane(axes: Axes, view: View, variant: str, measure: str) -> None:
    """A mark for each arm, paired with the frozen encoder: detail to the right, class upwards."""
    for arm in arms_of(view):
        x, y = (minus(view, variant, name, arm, "frozen") for name in ("detail_r2", measure))
        if x is None or y is None or arm == "frozen":
            continue
        bars = {"xerr": x.half or 0, "yerr": y.half or 0, "elinewidth": 0.5, "capsize": 1.2}
        axes.errorbar([x.mean], [y.mean], label=text(NAMES[arm]), **bars, **_style(arm))
    if not axes.lines:
        blank(axes, "not measured")
        return
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.set_xlabel("R2 of six moments, minus frozen")


def _plane_title(view: View, variant: str) -> str:
    """The generator, and what the frozen encoder scores under it."""
    scores = []
    for measure, label in {"detail_r2": "R2", **PLANES}.items():
        frozen = of_arm(view, variant, measure, "frozen")
        if frozen is not None:
            scores.append(f"{label} {frozen.mean:.3f}")
    of_frozen = f"; frozen: {', '.join(scores)}" if scores else ""
    return f"generator {variant}{of_frozen}"


def figure_detail_plane(view: View) -> tuple[Figure, Caption]:
    """What z says of the class against what it says of detail, a mark for each arm (DCR, arXiv
    2603.04803)."""
    asked(view)
    names = list(view.variants)
    figure, axes = canvas(DOUBLE, 0.5 + 2.3 * len(names), len(names), len(PLANES))
    for row, variant in zip(axes, names):
        for panel, (measure, label) in zip(row, PLANES.items()):
            _plane(panel, view, variant, measure)
            panel.set_ylabel(f"{label}, minus frozen")
        row[0].set_title(wrapped(_plane_title(view, variant), TITLE), loc="left")
    legend_below(figure, 4)
    note(figure, "; ".join(missing_arms(view)))
    words = (
        "What an arm adds to what the frozen encoder's z says of the class, upwards, and of fine "
        "detail, to the right. Better is up and right. Left: nearest neighbours; right: a linear "
        f"probe. {_long_words(view, 'Hollow')}Mean and interval over training seeds, paired."
    )
    return figure, Caption(words, (*claim_details(view), *run_details(view), _cost_words(view)))


def _long_words(view: View, what: str) -> str:
    """What is said of arms that go on to equal tokens; empty where none does."""
    if not any(arm.removesuffix("_long") != arm for arm in arms_of(view)):
        return ""
    return f"{what}: the arm went on until it had run as many tokens as DCR by codes. "


def _cost_words(view: View) -> str:
    """What the arms took, in tokens through the generator."""
    parts = []
    for variant in view.variants:
        for arm in arms_of(view):
            cost = of_arm(view, variant, "token_evals", arm)
            if cost is not None and cost.mean:
                parts.append(f"{variant}, {NAMES[arm]}: {cost.mean:,.0f}")
    return f"Tokens through the generator: {'; '.join(parts)}." if parts else ""


# ---------------------------------------------------------------- conflicts


def _smoothed(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over neighbouring steps of each training, at the middle of each stretch."""
    if not len(rows):
        return rows
    width = max(1.0, (rows["step"].max() - rows["step"].min() + 1) / MOST_POINTS)
    stretch = ((rows["step"] - rows["step"].min()) // width).rename("stretch")
    means = rows.groupby(["train_seed", stretch], as_index=False)["value"].mean()
    middles = rows.groupby(stretch)["step"].mean()
    return means.assign(step=means["stretch"].map(middles)).drop(columns="stretch")


def _names_below(axes: Axes, names: list[str]) -> None:
    """Names of variants below one of two panels: level where they fit."""
    pitch = (DOUBLE / 2 - 0.7) / (len(names) + 1)
    marks, slant = list(map(text, names)), {}
    if max(map(text_width, marks)) / 72 > pitch:
        marks, _ = slanted(names, 24, pitch, 40)
        slant = leaning(40)
    axes.set_xticks(range(len(names)), marks, **slant)
    axes.set_xlim(-1, len(names))


def _cosines(axes: np.ndarray, view: View) -> None:
    """Along the steps, and the share of steps below 0."""
    curve, bars = axes.flat
    for place, variant in enumerate(view.variants):
        style = look_of(view, variant)
        rows = _smoothed(along(view, variant))
        if len(rows):
            band(curve, rows, "step", variant, {**style, "marker": ""})
        share = view.estimate(variant, "conflict_share_naive")
        if share is not None:
            filled = {**fill_of(view, variant), "alpha": 0.7}
            bars.bar([place], [share.mean], yerr=share.half or 0, **filled)
    for panel, line in ((curve, 0.0), (bars, 0.5)):
        panel.axhline(line, color=GREY, linewidth=0.6, zorder=0)
    if not bars.patches:
        blank(curve, "not measured")
        blank(bars, "not measured")
    curve.set_xlabel("step")
    curve.set_ylabel("cosine of the gradients")
    _names_below(bars, list(view.variants))
    bars.set_ylabel("share of steps below 0")
    bars.set_ylim(0, 1)


def figure_gradient_cosine(view: View) -> tuple[Figure, Caption]:
    """Whether reconstruction and contrast of views pull the encoder one way (DCR, arXiv 2603.04803,
    conflicting gradients)."""
    asked(view)
    figure = sheet(by_variant(view, 6), (DOUBLE, 2.6), (1, 2), _cosines, columns=4)
    note(figure, missing_words(view, "conflict_share_naive"))
    words = (
        "Cosine of the gradients of cross-entropy and InfoNCE in the naive sum, along its steps. "
        "Right: the share of steps in which it is negative. Below 0 the two losses pull apart. "
        "Gradients are those of the weights behind z. Mean and interval over training seeds."
    )
    details = (
        *claim_details(view),
        "Of an arm that goes on to equal tokens the first part is shown, that of equal steps. A "
        f"point is the mean over neighbouring steps where there are more than {MOST_POINTS}.",
        *run_details(view),
    )
    return figure, Caption(words, details)


# ---------------------------------------------------------------- whose condition


def _class_borders(panel: Axes, classes_B: np.ndarray) -> None:
    """Lines between the classes of a batch, in rows and in columns."""
    for place in np.flatnonzero(np.diff(classes_B)):
        for line in (panel.axhline, panel.axvline):
            line(place + 0.5, color="white", linewidth=0.4)


def _matrices(axes: np.ndarray, view: View, runs: list[tuple[str, str, str]]) -> AxesImage:
    """The posterior before any arm, then after each; returns the last, for a bar of colours."""
    panels = [("before", runs[0][2], "before")]
    panels += [(NAMES[arm], run_id, "after") for _, arm, run_id in runs]
    classes_B = batch_classes(view)
    for panel, (title, run_id, when) in zip(axes.flat, panels):
        matrix_BB = view.results.images[f"{run_id}/{when}"][0, 0]
        drawn: AxesImage = panel.imshow(matrix_BB / 255, cmap="cividis", vmin=0, vmax=1)
        if len(classes_B) == len(matrix_BB):  # an older version counted no classes
            _class_borders(panel, classes_B)
        panel.set(xticks=[], yticks=[])
        panel.set_title(text(title), fontsize=6)
    axes[0, 0].set_xlabel("condition of")
    axes[0, 0].set_ylabel("tokens of")
    return drawn


def figure_pair_scores(view: View) -> tuple[Figure, Caption]:
    """How likely each condition of a batch is given each image's tokens, before and after (the
    scores of DCR by log-likelihoods)."""
    runs = [one for one in matrix_runs(view) if one[1] not in ("frozen", "supervised")]
    first = runs[0][0] if runs else next(iter(view.variants))
    few = [one for one in runs if one[0] == first][:MOST_MATRICES]
    columns = 1 + max(1, len(few))
    figure, axes = canvas(DOUBLE, 0.9 + DOUBLE / columns, 1, columns)
    if few:
        drawn = _matrices(axes, view, few)
        figure.colorbar(drawn, ax=list(axes.flat), fraction=0.02, label="posterior")
    else:
        hide_rest(axes, 1)
        blank(axes[0, 0], "no matrices")
    note(figure, "; ".join(missing_arms(view)))
    words = (
        "One batch of held-out images, white lines between classes. Row i is how likely each "
        "condition is given the tokens of image i. All conditions are equally likely before. A "
        "bright diagonal: z tells the generator which image it is of. A bright block: only which "
        "class."
    )
    shown_of = f"Generator {text(first)}, first training seed with matrices." if few else ""
    return figure, Caption(words, (*claim_details(view), shown_of, *run_details(view)))


# ---------------------------------------------------------------- tables

TITLES = {
    "knn_accuracy": "kNN",
    "detail_r2": "Detail R2",
    "nll": "NLL (nats/token)",
    "inter_distance": "Between classes",
    "intra_distance": "Inside a class",
    "token_evals": "Tokens",
    "probe_accuracy": "Probe",
    "pair_accuracy": "Blind pairs",
    "pixel_r2": "Pixel R2",
    "seconds": "Seconds",
}
COLUMNS = ("Encoder", "kNN", "Detail R2", "NLL (nats/token)", "Blind pairs", "Apart", "Tokens")


def _apart(view: View, variant: str, arm: str) -> Cell:
    """Distance between classes minus that inside of one."""
    inter, intra = (view.of(variant, f"{one}_distance_{arm}") for one in ("inter", "intra"))
    return spread(estimate((inter - intra).dropna()))


def _row(view: View, variant: str, arm: str) -> dict[str, str]:
    """Every measure of one arm, and its paired difference to the frozen encoder."""
    row: dict[str, str] = {"Encoder": f"{variant}, {NAMES[arm]}"}
    for measure, title in TITLES.items():
        value = of_arm(view, variant, measure, arm)
        counted = measure in ("token_evals", "seconds")
        row[title] = number(value and value.mean) if counted else spread(value)
    row["Apart"] = _apart(view, variant, arm)
    for moment in DETAIL:
        row[f"R2 of {moment}"] = spread(of_arm(view, variant, f"detail_r2_{moment}", arm))
    for measure in MEASURES:
        if arm != "frozen" and measure not in ("token_evals", "seconds"):
            difference = minus(view, variant, measure, arm, "frozen")
            row[f"{TITLES[measure]} minus frozen"] = spread(difference, difference=True)
    if arm in ("naive", "naive_long"):
        row["Conflicts"] = spread(view.estimate(variant, "conflict_share_naive"))
    return row


def table_representation(view: View) -> tuple[pd.DataFrame, Caption]:
    """Every arm under every generator: class, detail, likelihood, distances, cost (DCR, arXiv
    2603.04803)."""
    rows = [_row(view, variant, arm) for variant in view.variants for arm in arms_of(view)]
    words = (
        "An encoder after every arm, under every generator. kNN: accuracy of nearest neighbours. "
        "Detail: R2 of six moments. NLL: of tokens given z. Blind pairs: share told apart. Apart: "
        "distance between classes minus that inside of one. Tokens: through the generator. Mean "
        "and interval over training seeds."
    )
    details = (
        *claim_details(view),
        *(f"Missing: {line}." for line in missing_arms(view)),
        "The csv has every measure, and its difference to the frozen encoder, paired by seed.",
        "Blind pairs: images of one class with different tokens that the first encoder all but "
        "confuses. They are told apart where both are likelier under their own z. Table "
        "blind_pairs lists them.",
        _long_words(view, "Equal tokens").strip(),
        *run_details(view),
    )
    return shown(frame(rows), *COLUMNS), Caption(words, details)


def table_blind_pairs(view: View) -> tuple[pd.DataFrame, Caption]:
    """Which test images the blind pairs are (MMVP, arXiv 2401.06209), a row for each training
    seed."""
    rows = []
    variant = next(iter(view.variants))
    for seed in view.about["train_seeds"]:
        pairs, cosines = _pairs_of(view, variant, seed)
        words = [f"{a}-{b}" for a, b in pairs]
        row: dict[str, str] = {"Training seed": str(seed), "Pairs": number(len(pairs))}
        row["Cosine, mean"] = number(float(np.mean(cosines)) if len(cosines) else None)
        row["Cosine, lowest"] = number(float(np.min(cosines)) if len(cosines) else None)
        row["First ones"] = " ".join(words[:4])
        rows.append({**row, "All": " ".join(words)})
    told = (
        "Test images of one class that the first encoder of each training seed all but confuses. "
        "A pair is two places in the test split, counted from 0; the highest cosine comes first. "
        "The csv has all. They are the same for every arm and generator of a seed."
    )
    columns = "Training seed", "Pairs", "Cosine, mean", "Cosine, lowest", "First ones"
    return shown(frame(rows), *columns), Caption(told, (*claim_details(view), *run_details(view)))


def _pairs_of(view: View, variant: str, seed: int) -> tuple[list[tuple[int, int]], list[float]]:
    """Pairs of a training seed and their cosines, in order."""
    columns = []
    for metric in ("pair_first", "pair_second", "pair_cosine"):
        rows = view.select(variant, metric).dropna(subset=["repeat", "value"])
        rows = rows[rows["train_seed"] == seed].sort_values("repeat")
        columns.append(rows["value"].tolist())
    first, second, cosines = columns
    return [(int(a), int(b)) for a, b in zip(first, second)], cosines


# ---------------------------------------------------------------- rules


def _differences(view: View, metric: str, sides: list[str]) -> dict[str, Estimate | None]:
    """What a metric compares, of each generator."""
    parts = compared(metric)
    assert parts is not None
    measure, arm, against = parts
    if against == HALF:
        return {name: above_half(view, name, measure, arm) for name in sides}
    return {name: minus(view, name, measure, arm, against) for name in sides}


def _measured(view: View, claim: dict[str, Any]) -> tuple[dict[str, Estimate], str]:
    """Differences of a claim's generators, and the beginning of a reason; none where one of them is
    missing."""
    metric, sides = claim["metric"], [claim["variant"], claim["against"]]
    parts = compared(metric)
    if parts is None or parts[1] not in ALL_ARMS or "representation" not in view.about:
        return {}, f"{metric}: compares no arms of this suite"
    differences = _differences(view, metric, sides)
    reason = "; ".join(f"{name} {show_difference(one)}" for name, one in differences.items())
    known = {name: one for name, one in differences.items() if one is not None}
    if len(known) < len(sides):
        return {}, f"{metric}: {reason}: not measured under both"
    if min(one.count for one in known.values()) < FEWEST:
        return {}, f"{metric}: {reason}; fewer than three training seeds"
    return known, f"{metric}, paired by training seed: {reason}"


def _metrics_of(metric: str) -> tuple[str, ...]:
    """What rows call the measure of each of the arms that a metric compares."""
    measure, *arms = compared(metric) or ("",)
    return tuple(f"{measure}_{arm}" for arm in arms if arm != HALF)


def judge_arms(view: View, claim: dict[str, Any]) -> Verdict:
    """Yes when the paired 95 % t-interval over training seeds of the difference of two arms
    excludes 0 under both generators, and that of a share of images is larger than two binomial
    standard errors of the test split; no where both say the contrary."""
    known, reason = _measured(view, claim)
    better = direction(claim)
    if not known or better is None:
        words = f"{reason}; {NO_DIRECTION}" if known else reason
        return Verdict("not decided", words, reads=_metrics_of(claim["metric"]))
    word, p = decided_together(dict(known), better == "lower")
    measure, arm, against = compared(claim["metric"]) or ("", "", "")
    for name, one in known.items() if against != HALF else ():
        bound = two_errors(view, name, measure, (arm, against))
        if bound is not None:
            reason += f"; two standard errors of {name} are {bound:.3f}"
            small = word != "not decided" and abs(one.mean) <= bound
            word = "not decided" if small else word
    return Verdict(word, reason, p, next(iter(known.values())), _metrics_of(claim["metric"]))


def judge_arm_keeps(view: View, claim: dict[str, Any]) -> Verdict:
    """Yes when an arm is worse than another by no more than a margin (representation.margin) under
    both generators, by the paired 95 % t-interval over training seeds; no when it is worse by more
    under both."""
    known, reason = _measured(view, claim)
    better = direction(claim)
    if not known or better is None:
        words = f"{reason}; {NO_DIRECTION}" if known else reason
        return Verdict("not decided", words, reads=_metrics_of(claim["metric"]))
    margin, lower = asked(view)["margin"], better == "lower"
    allowed: dict[str, Estimate | None] = {
        name: one.allowing(margin, lower) for name, one in known.items()
    }
    word, p = decided_together(allowed, lower)
    reason = f"{reason}; may be worse by {margin:g}"
    return Verdict(word, reason, p, next(iter(known.values())), _metrics_of(claim["metric"]))
