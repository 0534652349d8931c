"""Students of fewer scales beside their teachers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.absent import grid_status, missing_words, status_of
from ...report.caption import Caption
from ...report.cells import COSTS, Cell, frame, number, shown, spread
from ...report.claims import claim_details
from ...report.curves import GREY
from ...report.drawing import COLOURS, DOUBLE, LINES, MARKERS, blank, look_of, note, plain_log, text
from ...report.estimate import show
from ...report.sheets import by_group, sheet
from ...report.timing import batches, machine
from ...report.view import View
from ...report.words import score_details
from .arms import (
    arm_details,
    full_schedule_of,
    full_schedules,
    reduced_schedules,
    tokens_of,
    training_tokens,
)

# ---------------------------------------------------------------- figure


def group_looks(view: View) -> dict[str, dict[str, Any]]:
    """A colour for each arm, a line for each full schedule that arms are held against; where that
    would make two groups alike, a style for each group."""
    variants, whole = view.variants, full_schedules(view)
    arm_of, base_of = {}, {}
    for group, (first, *_) in view.groups().items():
        if variants[first]["grid"]:
            arm_of[group] = variants[first]["settings"].get("distill", {}).get("arm", "")
            base_of[group] = full_schedule_of(view, first)
    if len({(arm_of[group], base_of[group]) for group in arm_of}) < len(arm_of):
        return {group: look_of(view, group) for group in arm_of}
    arms, looks = list(dict.fromkeys(arm_of.values())), {}
    for group, arm in arm_of.items():
        base = base_of[group]
        teacher = whole.index(base) if base else len(whole)
        colour = COLOURS[arms.index(arm) % len(COLOURS)]
        line = teacher % len(LINES)
        looks[group] = {
            "color": colour,
            "linestyle": LINES[line],
            "marker": MARKERS[arms.index(arm) % len(MARKERS)],
            "markerfacecolor": colour if line == 0 else "white",
        }
    return looks


def _students(axes: Axes, view: View, metric: str, schedules: list[tuple[int, ...]]) -> list[float]:
    """Mean and interval of every group at every schedule, side by side; a missing one leaves a gap.
    Returns the means."""
    looks, means = group_looks(view), []
    for i, (group, style) in enumerate(looks.items()):
        student_of = {tuple(view.variants[v]["patch_nums"]): v for v in view.groups()[group]}
        names = [student_of.get(schedule) for schedule in schedules]
        scores = [None if name is None else view.estimate(name, metric) for name in names]
        xs = np.arange(len(schedules)) + 0.6 * ((i + 0.5) / len(looks) - 0.5)
        ys = [math.nan if score is None else score.mean for score in scores]
        half = [0.0 if score is None else score.half or 0.0 for score in scores]
        if any(scores):
            slim = {"markersize": 3.5, "markeredgewidth": 0.8, "elinewidth": 0.8, "capsize": 1.5}
            axes.errorbar(xs, ys, yerr=half, label=text(group), linewidth=0.8, **style, **slim)
            means += [score.mean for score in scores if score]
    return means


def _full_lines(axes: Axes, view: View, name: str) -> list[float]:
    """Scores of the full schedules across the panel, with their intervals. Returns the means."""
    means = []
    for i, variant in enumerate(full_schedules(view)):
        score = view.score(variant, name)
        if score is None:
            continue
        label = text(f"{variant}, {'-'.join(map(str, view.variants[variant]['patch_nums']))}")
        colour = ("black", "0.5")[i % 2]
        style = {"color": colour, "linestyle": LINES[i % len(LINES)], "linewidth": 1}
        axes.axhline(score.mean, label=label, zorder=1, **style)
        if score.half is not None:
            axes.axhspan(score.low, score.high, color=colour, alpha=0.1, linewidth=0, zorder=0)
        means.append(score.mean)
    return means


def _bounds(axes: Axes, view: View, name: str, schedules: list[tuple[int, ...]]) -> list[float]:
    """What real training images score, and the same through the tokenizer under each schedule.
    Returns the scores."""
    variants, scores = view.variants, []
    ending = f"{name}_{view.results.extractor}"
    floor = view.grid_value(next(iter(variants.values())), f"floor_{ending}")
    if floor is not None:
        style = {"color": GREY, "linestyle": ":", "linewidth": 1, "zorder": 0}
        axes.axhline(floor, label="floor: real training images", **style)
        scores.append(floor)
    label: str | None = "reconstruction by the tokenizer"
    for x, schedule in enumerate(schedules):
        names = next(v for v in variants.values() if tuple(v["patch_nums"]) == schedule)
        value = view.grid_value(names, f"reconstruction_{ending}")
        if value is not None:
            style = {"color": GREY, "linestyle": "-", "linewidth": 0.8, "zorder": 0}
            axes.hlines(value, x - 0.38, x + 0.38, label=label, **style)
            label = None
            scores.append(value)
    return scores


def _schedule_axis(axes: Axes, schedules: list[tuple[int, ...]]) -> None:
    """Schedules with their tokens below a panel; slanted or upright where they have no room side by
    side."""
    names = ["-".join(map(str, schedule)) for schedule in schedules]
    tokens = [f"{tokens_of(schedule)} tokens" for schedule in schedules]
    longest = max((len(words) for words in (*names, *tokens)), default=0)
    between, turned = "\n", {}
    if len(names) * longest > 60:
        upright = len(names) >= 12
        between = ", "
        turned = {"rotation": 90 if upright else 30, "ha": "right", "rotation_mode": "anchor"}
        turned |= {"va": "center"} if upright else {}
    marks = [f"{name}{between}{count}" for name, count in zip(names, tokens)]
    axes.set_xticks(range(len(schedules)), marks, **turned)
    axes.set_xlim(-0.5, max(0, len(schedules) - 1) + 0.5)
    axes.set_xlabel("schedule of the student")


def _distillation(axes: np.ndarray, view: View) -> None:
    """FID and IS of a few arms."""
    schedules, count = reduced_schedules(view), view.results.about["evaluation"]["num_images"]
    for panel, (name, title) in zip(axes[0], (("fid", "FID"), ("is", "IS"))):
        means = _students(panel, view, f"{name}_{view.results.extractor}", schedules)
        if means:
            means += _full_lines(panel, view, name) + _bounds(panel, view, name, schedules)
            above_0 = [value for value in means if value > 0]
            if name == "fid" and max(above_0) > 8 * min(above_0):
                panel.set_yscale("log")
                plain_log(panel.yaxis)
        else:
            blank(panel, f"no student has a {title}")
        _schedule_axis(panel, schedules)
        panel.set_ylabel(f"{view.results.label(title)}, N = {count}")


def figure_distillation(view: View) -> tuple[Figure, Caption]:
    """FID and IS of every arm against reduced schedules in order of their tokens, between the full
    schedules and the floor."""
    pages = by_group(view, always=full_schedules(view))
    figure = sheet(pages, (DOUBLE, 3.4), (1, 2), _distillation)
    note(figure, missing_words(view, f"fid_{view.results.extractor}"))
    caption = (
        "FID and IS of students against their schedule, ordered by tokens. Symbols: mean, bars: "
        "interval, a colour for each arm, side by side to be seen. Lines across: full schedules "
        "with intervals. Dotted: real training images; short lines: training images through the "
        "tokenizer."
    )
    details = (
        *claim_details(view),
        "Tokens of a schedule: those that one pass without guidance computes.",
        *arm_details(view),
        *score_details(view),
    )
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- table


def _time(view: View, variant: str) -> tuple[Cell, int | None]:
    """Median time per image in ms at the largest batch that was timed, and that batch."""
    sizes = [size for size in batches(view) if len(view.rounds("latency_s", variant, size))]
    if not sizes:
        return Cell("-"), None
    value = float(view.rounds("latency_s", variant, sizes[-1]).median()) / sizes[-1] * 1e3
    return Cell(show(value), value=value), sizes[-1]


def _minus_full(view: View, variant: str) -> Cell:
    """FID minus that of the full schedule of the same model, paired by training seed."""
    whole = full_schedule_of(view, variant)
    if whole is None or whole == variant:
        return Cell("-" if whole is None else "full")
    fid = f"fid_{view.results.extractor}"
    return spread(view.difference(variant, fid, whole), difference=True)


def _student_row(view: View, variant: str) -> dict[str, str]:
    """One variant: scores, difference to the full schedule of its model, cost, training,
    status."""
    names, fid = view.variants[variant], f"fid_{view.results.extractor}"
    settings, count = names["settings"], len(view.of(variant, fid))
    row: dict[str, str] = {"Variant": names["group"]}
    row["Schedule"] = "-".join(map(str, names["patch_nums"]))
    row["Seeds"] = Cell(f"{count} of {len(view.about['train_seeds'])}", value=count)
    scores = _scores(view)
    row |= {title: spread(view.estimate(variant, metric)) for title, metric in scores.items()}
    row[f"{view.results.label('FID')} minus full schedule, paired"] = _minus_full(view, variant)
    for title, (metric, unit) in COSTS.items():
        cost = view.estimate(variant, metric)
        row[title] = number(cost and cost.mean / unit)
    if "latency" in view.about["measure"]:
        time, batch = _time(view, variant)
        row["Time per image (ms)"], row["Batch"] = time, number(batch)
    row["Training steps"] = number(settings["training"] and settings["training"]["steps"])
    row["Tokens read in training (million)"] = number(training_tokens(settings) / 1e6)
    return row | {"Status": status_of(view, variant, fid, scores)}


def _scores(view: View) -> dict[str, str]:
    """Metrics of scores by the titles of their columns, FID also of each other extractor."""
    scores = view.results.score_columns(("FID", "IS"))
    for asked in map(view.by, view.results.others):
        scores |= asked.results.score_columns(("FID",))
    return scores


def _line_row(view: View, label: str, name: str, schedule: str, names: dict) -> dict[str, str]:
    """What every score is read against: the floor, or a reconstruction."""
    row: dict[str, str] = {"Variant": label, "Schedule": schedule}
    of_line = {title: f"{name}_{metric}" for title, metric in _scores(view).items()}
    for title, metric in of_line.items():
        value = view.grid_value(names, metric)
        row[title] = Cell(number(value), mean=value)
    fid = f"{name}_fid_{view.results.extractor}"
    return row | {"Status": grid_status(view, names, fid, of_line)}


def _table_order(view: View) -> list[str]:
    """The full schedules, then the students of each group from many tokens to few."""
    whole, variants = full_schedules(view), view.variants
    order = [*whole]
    for members in view.groups().values():
        schedules = {name: variants[name]["patch_nums"] for name in members if name not in whole}
        order += sorted(schedules, key=lambda v: (-tokens_of(schedules[v]), schedules[v]))  # noqa: B023
    return order


def _time_words(view: View) -> tuple[str, ...]:
    """How times were taken; empty where none were asked for."""
    if "latency" not in view.about["measure"]:
        return ()
    return (
        "Time: median over interleaved rounds, decoder excluded, drawn weights; variants of the "
        "same sizes were timed once.",
        machine(view),
    )


def table_distillation(view: View) -> tuple[pd.DataFrame, Caption]:
    """Scores, cost and training of the full schedules, then of every arm by schedule; floor and
    reconstructions below."""
    rows = [_student_row(view, variant) for variant in _table_order(view)]
    grids = sorted(view.grids().items(), key=lambda item: -tokens_of(item[1]["patch_nums"]))
    rows.append(_line_row(view, "Floor: real training images", "floor", "", grids[0][1]))
    for schedule, names in grids:
        rows.append(_line_row(view, "Reconstruction", "reconstruction", schedule, names))
    fid = view.results.label("FID")
    caption = (
        "Full schedules, then students of each arm from many tokens to few; below, what real "
        "training images score and the same through the tokenizer. Difference: to the full "
        "schedule of the same model, paired by training seed, 95 % t-interval."
    )
    details = (
        *claim_details(view),
        "NFE, token evals and MFLOP are counted, guidance included, decoder excluded.",
        "Tokens read in training: steps x batch x tokens of the schedule, the teacher's "
        "included; the teacher's own forward passes and sampling are not.",
        *arm_details(view),
        *score_details(view),
        *_time_words(view),
    )
    table = shown(
        frame(rows),
        "Variant",
        "Schedule",
        fid,
        f"{fid} minus full schedule, paired",
        "Token evals",
        "Tokens read in training (million)",
        "Status",
    )
    return table, Caption(caption, details)
