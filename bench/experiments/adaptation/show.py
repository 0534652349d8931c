"""What adaptation and several passes buy: two figures, two tables, and the rules that judge any
number of a variant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.absent import missing_words, status_of, status_words
from ...report.caption import Caption
from ...report.cells import frame, number, shown, spread, unwell, without_numbers
from ...report.claims import (
    NO_DIRECTION,
    NO_METRIC,
    NOISE,
    Verdict,
    against_the_usual,
    claim_details,
    decided,
    direction,
)
from ...report.curves import GREY, curve, floor_line
from ...report.drawing import DOUBLE, blank, draw_band, look_of, note, plain_log, text, wrapped
from ...report.estimate import Estimate, estimate
from ...report.sheets import by_group, by_variant, panel_sheet, sheet
from ...report.view import View
from ...report.words import score_details, score_words, seeds_details
from ...study.escaping import rst
from ...study.scores import bare_score
from .models import (
    by_model,
    hidden_counts,
    masked,
    one_pass_of,
    rule_of,
    same_weights,
    share_of_teacher,
    steps_made,
)
from .numbers import absent_words, compared
from .same import equivalence

PASSES = "image_tokens_per_forward"

# ---------------------------------------------------------------- FID against tokens per forward


MOST_ROWS = 20  # names of usual size in a panel


def _tokens_per_forward(axes: np.ndarray, part: View, view: View) -> None:
    """FID, and a score that noise lowers, of a few groups: of several passes against tokens per
    forward, of one pass in rows, since all have as many."""
    in_rows = _counted(part) and not _is_refined(part, part.variants)
    for i, name in enumerate(("fid", _beside(view))):
        panel, title = axes[0, i], "FID" if name == "fid" else name.replace("_", " ")
        if in_rows:
            _rows(panel, part, view, name)
        else:
            _lines(panel, part, view, name)
        if not panel.has_data():
            blank(panel, f"no variant has {title} and counted passes")
            continue
        if name == "fid":
            floor_line(panel, part, "fid", "x" if in_rows else "y")
        if in_rows:
            _names_axis(panel, part, named=i == 0)
        else:
            _passes_axis(panel)
        (panel.set_xlabel if in_rows else panel.set_ylabel)(view.results.label(title))


def _lines(panel: Axes, part: View, view: View, name: str) -> None:
    """A line for each group of a few."""
    for group, members in part.groups().items():
        if points := _line(view, members, name):
            curve(panel, points, group, look_of(view, group))


def _passes_axis(panel: Axes) -> None:
    panel.set_xscale("log", base=2)
    low, high = panel.dataLim.intervalx
    panel.set_xlim(low / 1.1, high * 1.1)  # a share of a narrow range would cut a marker
    plain_log(panel.xaxis)
    panel.set_xlabel("tokens per forward")


def _rows(panel: Axes, part: View, view: View, name: str) -> None:
    """A row for each variant of one pass: on an axis of tokens all would stand at one place."""
    groups = {one: group for group, members in part.groups().items() for one in members}
    for row, variant in enumerate(_counted(part)):
        score = view.score(variant, name)
        if score is not None:
            style = {**look_of(view, groups[variant]), "linestyle": "none"}
            bar = {"xerr": score.half or 0, "elinewidth": 0.8, "capsize": 1.5}
            panel.errorbar([score.mean], [row], **style, **bar)


def _counted(part: View) -> dict[str, float]:
    """Tokens per forward of the variants whose passes were counted; of those that kept the same
    weights the first."""
    again, passes = _later_ones(part), {}
    for variant in part.variants:
        mean = part.estimate(variant, PASSES)
        if mean is not None and variant not in again:
            passes[variant] = mean.mean
    return passes


def _names_axis(panel: Axes, part: View, named: bool) -> None:
    """Names of the variants of one pass; how many tokens that is once, or where schedules differ
    behind each name."""
    passes = _counted(part)
    counts = {f"{count:.3g}" for count in passes.values()}
    names = [f"{name} ({count:.3g})" if len(counts) > 1 else name for name, count in passes.items()]
    panel.set_yticks(range(len(names)), list(map(text, names)) if named else [""] * len(names))
    panel.tick_params(axis="y", labelsize=7 if len(names) <= MOST_ROWS else 5)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="y", color="0.9", linewidth=0.5)
    panel.set_axisbelow(True)
    words = f": {counts.pop()} tokens per forward" if len(counts) == 1 else " (tokens per forward)"
    panel.set_title(wrapped(f"one pass{words}", 20), fontsize=7.5)


def _line(view: View, members: list[str], name: str) -> list[tuple[float, Estimate]]:
    """Tokens per forward and score of the members of a group; of several passes also one pass of
    the same weights; of variants that kept the same weights the first."""
    again = _later_ones(view)
    starts = {one_pass_of(view, variant) for variant in members}
    drawn = [one for one in members if one not in again or view.sampler(one)["refine_steps"]]
    points = []
    for variant in [*drawn, *(starts - {None} if len(starts) == 1 else ())]:
        score, passes = view.score(variant, name), view.estimate(variant, PASSES)
        if score is not None and passes is not None:
            points.append((passes.mean, score))
    return points


def _sheets(view: View) -> list[View]:
    """Groups of one figure: those of several passes stand together, and those of one pass
    below."""
    several: list[str] = []
    single: list[str] = []
    for members in view.groups().values():
        (several if _is_refined(view, members) else single).extend(members)
    return [part for names in (several, single) if names for part in by_group(view.only(names))]


def _is_refined(view: View, names: Iterable[str]) -> bool:
    return any(view.sampler(variant)["refine_steps"] for variant in names)


def _later_ones(view: View) -> set[str]:
    """Models whose weights are those of an earlier one."""
    return set().union(*same_weights(view).values())


def _beside(view: View) -> str:
    """The score that stands beside FID, which noise may lower: class agreement, or precision where
    no classifier of the classes was asked."""
    return "class_agreement" if view.scored("class_agreement") else "precision"


def figure_tokens_per_forward(view: View) -> tuple[Figure, Caption]:
    """FID and class agreement against tokens per forward, a line for each rule (SDAR, arXiv
    2510.06303)."""
    figure = sheet(
        _sheets(view),
        (DOUBLE, 3.0),
        (1, 2),
        lambda axes, part: _tokens_per_forward(axes, part, view),
        columns=3,
        alike="",
    )
    note(figure, missing_words(view, PASSES))
    text = (
        f"{score_words(('FID', _beside(view)))} against tokens per forward: an image's tokens "
        "over the passes in which it had an open position. A line for each rule: many passes on "
        "the left, one pass of the same weights on the far right. Below, by name: variants of one "
        "pass. Bands and bars: 95 % intervals over training seeds."
    )
    details = (
        *claim_details(view),
        "An image's passes are its own. Drawn in a batch it waits for the slowest image: time is "
        "that of tokens_per_forward in metrics.csv, of the measure sweep.",
        *_hardly_reached(view),
        *_kept_alike(view),
        NOISE,
        *score_details(view),
    )
    return figure, Caption(text, details)


def _hardly_reached(view: View) -> list[str]:
    """Rules whose bound hardly an open position reached."""
    words = []
    for name in view.variants:
        sampler = view.sampler(name)
        bound, surest = sampler["select"].get("commit_above"), view.of(name, "peak_q99")
        if bound is None or not sampler["refine_steps"] or not len(surest):
            continue
        if surest.mean() < bound:
            words.append(
                f"{rst(name)}: fewer than one open position in a hundred reaches commit_above "
                f"{bound:g}; the 99 % quantile of the likeliest code's probability is "
                f"{surest.mean():.2f}. It hardly commits more than its quota."
            )
    return words


def _kept_alike(view: View) -> list[str]:
    """Trainings that kept the same weights, whose numbers are those of one training."""
    words = []
    for first, others in same_weights(view).items():
        steps = sorted({int(step) for step in view.of(first, "kept_step")})
        names = "; ".join(map(rst, (first, *others)))
        words.append(
            f"{names}: the same weights, of step {' or '.join(map(str, steps))}. Later steps have "
            "no lower loss on validation images: these rows say nothing of longer training."
        )
    return words


# ---------------------------------------------------------------- hidden tokens


def _scales(view: View) -> list[int]:
    """Scales of more than one token: one token alone has nothing revealed beside it."""
    scales: set[int] = set()
    for names in view.variants.values():
        scales |= {k for k, side in enumerate(names["patch_nums"]) if side > 1}
    return sorted(scales)


def _hidden_line(view: View, variant: str, split: str, k: int) -> list[tuple[int, Estimate]]:
    """Loss of hidden tokens of one scale by how many are hidden, minus that where all are, paired
    by training seed: tokenizers of two seeds differ by more than own tokens are worth."""

    def losses(count: int) -> pd.Series:
        rows = view.select(variant, f"loss_{split}_hidden_{count}")
        return rows[rows["scale"] == k].set_index("train_seed")["value"].dropna()

    one_pass = losses(view.variants[variant]["patch_nums"][k] ** 2)
    points = []
    for count in hidden_counts(view):
        gain = estimate((losses(count) - one_pass).dropna())
        if gain is not None:
            points.append((count, gain))
    return points


def _hidden_panel(axes: Axes, view: View, k: int) -> None:
    """Both splits of every model at one scale."""
    places: set[int] = set()
    for variant, names in view.variants.items():
        style = look_of(view, variant)
        for split, line in (("test", "-"), ("train", ":")):
            points = _hidden_line(view, variant, split, k) if k < len(names["patch_nums"]) else []
            if points:
                losses = [loss for _, loss in points]
                counts = [float(count) for count, _ in points]
                label = variant if split == "test" else ""
                draw_band(axes, counts, losses, label, {**style, "linestyle": line})
                places.update(count for count, _ in points)
    if not axes.lines:
        blank(axes, "nothing was measured")
    else:
        axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
        axes.set_xticks(sorted(places))
        axes.plot([], [], color=GREY, linestyle=":", label="dotted: the same, training images")
    side = next(n["patch_nums"][k] for n in view.variants.values() if len(n["patch_nums"]) > k)
    axes.set_title(f"scale {k}, {side}x{side}")
    axes.set_xlabel("hidden tokens")


def figure_intra_scale(view: View) -> tuple[Figure, Caption]:
    """Cross-entropy of hidden tokens against how many of a scale are hidden, held out and in
    training (any-order models, arXiv 2110.02037)."""
    again = _later_ones(view)
    models = [name for name in by_model(view) if masked(view, name) and name not in again]
    scales = _scales(view)
    asked = view.only(models or list(view.variants)[:1])

    def draw(axes: np.ndarray, part: View) -> None:
        for panel, k in zip(axes.flat, scales):
            _hidden_panel(panel, part, k)
        for row in axes:
            row[0].set_ylabel("loss minus that of one pass (nats/token)")

    parts = by_variant(asked, 8)
    figure = panel_sheet(parts, len(scales), 4, 2.7, draw, columns=2, sharey=True, alike="x")
    note(figure, missing_words(asked, "kept_step"))
    text = (
        "Cross-entropy of a scale's hidden tokens, minus that where all are hidden, against how "
        "many are hidden. On the right all are hidden: one pass. A line below 0 says that own "
        "tokens help. Solid: held-out images; dotted: training images; bands: 95 % intervals of "
        "the paired difference over training seeds. Each block has a y axis of its own."
    )
    return figure, Caption(text, (*claim_details(view), *_hidden_details(view)))


def _hidden_details(view: View) -> tuple[str, ...]:
    """What the lines were measured on."""
    told = view.about.get("adaptation") or {}
    images, draws = told.get("hidden_images"), told.get("hidden_draws")
    counted = f" At most {images} images of each split, {draws} draws each." if images else ""
    return (
        f"Models that are samplers of one another are shown once.{counted}",
        "A line that falls to the left in training alone is learnt by heart: refinement cannot "
        "help there.",
        *_kept_alike(view),
        *seeds_details(view),
    )


# ---------------------------------------------------------------- tables


def _by_passes(view: View, members: list[str]) -> dict[str, str]:
    """A model's samplers by the title of their FID, which says rule and passes; of several alike
    the first."""
    fid, of_title = view.results.label("FID"), dict[str, str]()
    for name in members:
        sampler = view.sampler(name)
        passes = 1 + sampler["refine_steps"]
        title = f"{fid}, T = 1" if passes == 1 else f"{fid}, {rule_of(sampler)}, T = {passes}"
        of_title.setdefault(title, name)
    return of_title


def _model_row(view: View, name: str, members: list[str]) -> dict[str, Any]:
    """One trained model: its training, its losses, its scores by passes."""
    share, steps = share_of_teacher(view, name), estimate(steps_made(view, name).values())
    row: dict[str, Any] = {"Model": name, "Steps": number(steps and round(steps.mean))}
    row["Share of the teacher's tokens"] = number(float(np.mean(share)) if share else None, 2)
    kept = view.estimate(name, "kept_step")
    row["Kept step"] = number(kept and round(kept.mean))
    row["One-pass loss (nats/token)"] = spread(view.estimate(name, "kept_loss_test"))
    row["Any-order bound (nats/token)"] = spread(view.estimate(name, "loss_test_any_order"))
    row["Intra-scale gain (nats/token)"] = spread(view.estimate(name, "intra_scale_gain"))
    fid, samplers = view.results.score_name("fid"), _by_passes(view, members)
    row |= {title: spread(view.score(one, "fid")) for title, one in samplers.items()}
    scores = {title: view.missing(one, fid) for title, one in samplers.items()}
    return row | {"Status": status_words(view, view.missing(name, "kept_step"), scores)}


def table_adaptation(view: View) -> tuple[pd.DataFrame, Caption]:
    """Training, losses and FID by passes of every trained model of the suite (SDAR, arXiv
    2510.06303)."""
    models = by_model(view)
    table = frame([_model_row(view, name, members) for name, members in models.items()])
    fid = view.results.label("FID")
    columns = ["Model", "Share of the teacher's tokens", "Kept step", "One-pass loss (nats/token)"]
    columns += ["Any-order bound (nats/token)", f"{fid}, T = 1"]
    text = (
        "Every trained model once. Share: tokens shown in training, over its teacher's. Kept step: "
        "that of the lowest validation loss. Losses: held out, of one pass and in any order; own "
        "tokens can buy at most their difference. FID: of one pass (T = 1). Mean and 95 % interval "
        "over training seeds."
    )
    details = (
        *claim_details(view),
        *_kept_alike(view),
        "FID at more passes stands in the csv and in table decoding.",
        "Share: steps that were made, over the teacher's step that was kept, both times images a "
        "step and tokens of the schedule. The steps that a teacher's patience cost are not in it.",
        "The bound is of models with masks (ARDM, arXiv 2110.02037); a model that went on without "
        "masks has none.",
        NOISE,
        *score_details(view),
    )
    last = "Status" if unwell(table) else "Intra-scale gain (nats/token)"
    return shown(table, *columns, last), Caption(text, details)


def _decoding_row(view: View, variant: str) -> dict[str, Any]:
    """One sampler: scores, and what an image takes."""
    row: dict[str, Any] = {"Variant": variant}
    scores = view.results.score_columns(
        ("FID", "Class agreement", "Coverage", "Recall", "Precision")
    )
    row |= {title: spread(view.estimate(variant, metric)) for title, metric in scores.items()}
    row["Tokens per forward"] = spread(view.estimate(variant, PASSES))
    row["Token evals per image"] = spread(view.estimate(variant, "image_token_evals"))
    row["Tokens per forward of a batch"] = spread(view.estimate(variant, "tokens_per_forward"))
    row["Likeliest code, 99 % quantile"] = spread(view.estimate(variant, "peak_q99"))
    return row | {"Status": status_of(view, variant, PASSES, scores)}


def table_decoding(view: View) -> tuple[pd.DataFrame, Caption]:
    """Scores of every sampler beside what an image takes (SDAR, arXiv 2510.06303)."""
    table = frame([_decoding_row(view, variant) for variant in view.variants])
    beside = score_words(view.scored("class_agreement", "coverage"))
    text = (
        f"Every sampler: {' beside '.join(filter(None, ['FID', beside]))}. Tokens per forward: an "
        "image's tokens over its passes. Token evals: computed for an image that is drawn alone. "
        "Likeliest code: its probability at the surest hundredth of open positions. Mean and 95 % "
        "interval over training seeds."
    )
    titles = [view.results.label(name) for name in ("FID", "Class agreement", "Coverage")]
    table = without_numbers(table, titles)
    last = "Status" if unwell(table) else "Likeliest code, 99 % quantile"
    columns = ["Variant", *titles, "Tokens per forward", "Token evals per image", last]
    said = (*_hardly_reached(view), *_kept_alike(view), NOISE)
    details = (*claim_details(view), *said, *score_details(view))
    return shown(table, *columns), Caption(text, details)


# ---------------------------------------------------------------- rules

# scores whose size follows from the extractor: no margin holds for two of them
UNBOUNDED = ("fid", "kid", "is")


def judge_value(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """As judge_score, of any number that a variant has: by the 95 % t-interval of its paired
    difference over training seeds."""
    if absent := absent_words(view, claim["metric"]):
        return absent
    difference, reason = compared(view, claim)
    better = direction(claim)
    if better is None:
        return "not decided", f"{reason}; {NO_DIRECTION}"
    return decided(difference, better == "lower", reason + against_the_usual(claim))


def judge_same(view: View, claim: dict[str, Any]) -> tuple[str, str]:
    """Yes where the 95 % t-interval of a paired difference over training seeds lies inside the
    margin that the claim states, no where it lies outside (two one-sided tests, Schuirmann
    1987)."""
    first = view.results.extractors[0]
    if bare_score(claim["metric"]) in UNBOUNDED and view.results.extractor != first:
        return NO_METRIC, f"the margin is stated in units of {first}"
    if absent := absent_words(view, claim["metric"]):
        return absent
    difference, reason = compared(view, claim)
    margin = claim.get("margin")
    if margin is None:
        return "not decided", f"{reason}; the claim states no margin"
    word, p, why = equivalence(difference, margin)
    return Verdict(word, f"{reason}, the same within {margin:g}{why}", p, difference)
