"""Students of fewer scales beside their teachers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.absent import by_reason, missing_words
from ...report.cells import Cell, frame, number, spread
from ...report.claims import claim
from ...report.drawing import COLOURS, DOUBLE, LINES, MARKERS, blank, look, note, plain_log, text
from ...report.estimate import show
from ...report.sheets import by_group, sheet
from ...report.timing import batches, machine
from ...report.view import View
from ...report.words import made_by
from ...study.escaping import rst
from ...study.schema import SHARPENING

GREY = "0.35"


def reduced_schedules(view: View) -> list[tuple[int, ...]]:
    """Schedules of the suite's grids, in order of their tokens."""
    found = {tuple(names["patch_nums"]) for names in view.variants.values() if names["grid"]}
    return sorted(found, key=lambda sides: (tokens_of(sides), sides))


def group_looks(view: View) -> dict[str, dict[str, Any]]:
    """A colour for each arm, a line and marker for each mask; where that would make two groups alike, a look for each group."""
    variants, whole = view.variants, full_schedules(view)
    firsts = {group: members[0] for group, members in view.groups().items() if variants[members[0]]["grid"]}
    arm_of = {group: variants[v]["settings"].get("distill", {}).get("arm", "") for group, v in firsts.items()}
    base_of = {group: full_schedule_of(view, v) for group, v in firsts.items()}
    if len({(arm_of[group], base_of[group]) for group in firsts}) < len(firsts):
        return {group: look(i) for i, group in enumerate(firsts)}
    arms, found = list(dict.fromkeys(arm_of.values())), {}
    for group in firsts:
        line = (whole.index(base_of[group]) if base_of[group] else len(whole)) % len(LINES)
        place = arms.index(arm_of[group])
        found[group] = {
            "color": COLOURS[place % len(COLOURS)],
            "linestyle": LINES[line],
            "marker": MARKERS[place % len(MARKERS)],
            "markerfacecolor": COLOURS[place % len(COLOURS)] if line == 0 else "white",
        }
    return found


def _students(axes: Axes, view: View, metric: str, schedules: list[tuple[int, ...]]) -> list[float]:
    """Mean and interval of every group at every schedule, side by side; a missing one leaves a gap. Returns the means."""
    variants, looks, means = view.variants, group_looks(view), []
    for i, (group, style) in enumerate(looks.items()):
        place = {tuple(variants[name]["patch_nums"]): name for name in view.groups()[group]}
        found = [view.estimate(place[s], metric) if s in place else None for s in schedules]
        xs = np.arange(len(schedules)) + 0.6 * ((i + 0.5) / len(looks) - 0.5)
        ys = [value.mean if value else math.nan for value in found]
        half = [value.half if value and value.half is not None else 0.0 for value in found]
        if any(found):
            axes.errorbar(xs, ys, yerr=half, label=text(group), elinewidth=0.8, capsize=1.5, linewidth=0.8, **_slim(style))
            means += [value.mean for value in found if value]
    return means


def _slim(style: dict[str, Any]) -> dict[str, Any]:
    return {**style, "markersize": 3.5, "markeredgewidth": 0.8}


def _lines(axes: Axes, view: View, name: str, schedules: list[tuple[int, ...]]) -> list[float]:
    """Scores of the full schedules across the panel with their intervals, real training pictures, and reconstructions."""
    variants, drawn = view.variants, []
    for i, variant in enumerate(full_schedules(view)):
        found = view.score(variant, name)
        if found is None:
            continue
        grid = "-".join(map(str, variants[variant]["patch_nums"]))
        style = {"color": ("black", "0.5")[i % 2], "linestyle": LINES[i % len(LINES)]}
        axes.axhline(found.mean, label=text(f"{variant}, {grid}"), zorder=1, linewidth=1, **style)
        if found.half is not None:
            axes.axhspan(found.low, found.high, color=style["color"], alpha=0.1, linewidth=0, zorder=0)
        drawn.append(found.mean)
    floor = view.grid_value(next(iter(variants.values())), f"floor_{name}_{view.results.extractor}")
    if floor is not None:
        axes.axhline(floor, color=GREY, linestyle=":", linewidth=1, label="floor: real training pictures", zorder=0)
        drawn.append(floor)
    label = "reconstruction by the tokenizer"
    for x, sides in enumerate(schedules):
        names = next(names for names in variants.values() if tuple(names["patch_nums"]) == sides)
        value = view.grid_value(names, f"reconstruction_{name}_{view.results.extractor}")
        if value is not None:
            axes.hlines(value, x - 0.38, x + 0.38, color=GREY, linestyle="-", linewidth=0.8, label=label, zorder=0)
            label = None
            drawn.append(value)
    return drawn


def arm_words(view: View) -> str:
    """How each group was trained, and what its numbers must be read with."""
    variants, words, begun, logit = view.variants, [], set(), False
    for group, members in view.groups().items():
        settings = [variants[name]["settings"] for name in members]
        if settings[0]["training"] is None:
            words.append(f"{rst(group)}: imported weights, not trained here")
            continue
        steps = sorted({s["training"]["steps"] for s in settings})
        span = f"{steps[0]} steps" if len(steps) == 1 else f"{steps[0]} to {steps[-1]} steps"
        tokens = sorted(training_tokens(s) / 1e6 for s in settings)
        many = f"{tokens[0]:.3g}" if f"{tokens[0]:.3g}" == f"{tokens[-1]:.3g}" else f"{tokens[0]:.3g} to {tokens[-1]:.3g}"
        distill = settings[0].get("distill")
        if distill is None:
            words.append(f"{rst(group)}: from scratch, {span}, {many} million tokens read")
            continue
        kind, read = "a trained", f"{many} million tokens read with the teacher's"
        if distill["teacher"]["training"] is None:
            kind, read = "an imported", "how many tokens its teacher read is not known"
        made = ""
        if distill["arm"] == "sequence":
            made = f" on {distill['num_samples']} pictures of the teacher, drawn {_sharpened(distill['teacher']['sampler'])},"
        words.append(f"{rst(group)}: arm {rst(distill['arm'])}{made} from {kind} teacher, {span}, {read}")
        teacher = distill["teacher"]["model"]["patch_nums"]
        logit = logit or distill["arm"] == "logit"
        begun |= {
            "-".join(map(str, variants[name]["patch_nums"]))
            for name in members
            if distill["arm"] == "logit" and variants[name]["patch_nums"][0] != teacher[0]
        }
    more = ""
    if logit:
        more = (
            " Arm logit: KL to the teacher at the scales that both schedules begin with; beyond the first omitted scale "
            "a token encodes another residual, so the teacher's continuation of the image is re-encoded and learnt."
        )
    if begun:
        more += f" Students of {', '.join(sorted(begun))} share no first scale: they learn from continuations alone."
    return f"{'; '.join(words)}.{more}"


def _sharpened(sampler: dict[str, Any]) -> str:
    """How a teacher's samples differ from the distribution that it learnt."""
    found = [f"{key} {sampler[key]:g}" for key, off in SHARPENING.items() if sampler[key] != off]
    return f"with {', '.join(found)}" if found else "without guidance"


def _schedule_axis(axes: Axes, schedules: list[tuple[int, ...]]) -> None:
    """Schedules with their tokens below a panel; slanted or upright where they have no room side by
    side."""
    marks = [
        "\n".join(("-".join(map(str, sides)), f"{tokens_of(sides)} tokens")) for sides in schedules
    ]
    longest = max((len(line) for mark in marks for line in mark.split("\n")), default=0)
    turned = {}
    if len(marks) * longest > 60:
        marks = [mark.replace("\n", ", ") for mark in marks]
        turned = {
            "rotation": 30 if len(marks) < 12 else 90,
            "ha": "right",
            "rotation_mode": "anchor",
        }
        turned |= {} if len(marks) < 12 else {"va": "center"}
    axes.set_xticks(range(len(schedules)), marks, **turned)
    axes.set_xlim(-0.5, max(0, len(schedules) - 1) + 0.5)
    axes.set_xlabel("schedule of the student")


def _distillation(axes: np.ndarray, view: View) -> None:
    """FID and IS of a few arms."""
    schedules = reduced_schedules(view)
    for panel, (name, title) in zip(axes[0], (("fid", "FID"), ("is", "IS"))):
        metric = f"{name}_{view.results.extractor}"
        means = _students(panel, view, metric, schedules)
        if means:
            drawn = [value for value in means + _lines(panel, view, name, schedules) if value > 0]
            if name == "fid" and max(drawn) > 8 * min(drawn):
                panel.set_yscale("log")
                plain_log(panel.yaxis)
        else:
            blank(panel, f"no student has a {title}")
        _schedule_axis(panel, schedules)
        panel.set_ylabel(f"{view.results.label(title)}, N = {view.results.about['evaluation']['num_images']}")


def figure_distillation(view: View) -> tuple[Figure, str]:
    """FID and IS of every arm against reduced schedules in order of their tokens, between the full
    schedules and the floor."""
    whole = full_schedules(view)
    figure = sheet(
        by_group(view, always=whole), (DOUBLE, 3.4), (1, 2), _distillation
    )
    note(figure, missing_words(view, f"fid_{view.results.extractor}"))
    caption = (
        f"{claim(view)} Schedules in order of the tokens that one pass without guidance computes. Symbols: mean, bars: "
        "interval, a colour for each arm, side by side to be seen; lines across: the full schedules that the suite names, with "
        "intervals; dotted: real training pictures; short lines: training pictures through the tokenizer under that "
        f"schedule. {arm_words(view)} {made_by(view)}"
    )
    return figure, " ".join(caption.split())


COSTS = {"NFE": ("nfe", 1), "Token evals": ("token_evals", 1), "MFLOP per image": ("flops", 1e6)}


def _time(view: View, variant: str) -> tuple[Cell, int | None]:
    """Median time per image in ms at the largest batch that was timed, and that batch."""
    sizes = [size for size in batches(view) if len(view.rounds("latency_s", variant, size))]
    if not sizes:
        return Cell("-"), None
    value = float(view.rounds("latency_s", variant, sizes[-1]).median()) / sizes[-1] * 1e3
    return Cell(show(value), value=value), sizes[-1]


def _student_row(view: View, variant: str) -> dict[str, str]:
    """One variant: scores, paired difference to the full schedule of its mask, cost, training, status."""
    names, fid = view.variants[variant], f"fid_{view.results.extractor}"
    whole = full_schedule_of(view, variant)
    settings, count = names["settings"], len(view.of(variant, fid))
    row: dict[str, str] = {"Variant": names["group"], "Schedule": "-".join(map(str, names["patch_nums"]))}
    row["Seeds"] = Cell(f"{count} of {len(view.about['train_seeds'])}", value=count)
    for title in ("FID", "IS"):
        row[view.results.label(title)] = spread(view.score(variant, title.lower()))
    minus = Cell("full") if variant == whole else Cell("-") if whole is None else None
    if minus is None:
        minus = spread(view.difference(variant, fid, whole), difference=True)
    row[f"{view.results.label('FID')} minus full schedule, paired"] = minus
    for title, (metric, unit) in COSTS.items():
        found = view.estimate(variant, metric)
        row[title] = number(found and found.mean / unit)
    time, batch = _time(view, variant)
    if "latency" in view.about["measure"]:
        row["Time per image (ms)"], row["Batch"] = time, number(batch)
    row["Training steps"] = number(settings["training"] and settings["training"]["steps"])
    row["Tokens read in training (million)"] = number(training_tokens(settings) / 1e6)
    row["Status"] = by_reason(view.missing(variant, fid)) or "ok"
    return row


def _line_row(view: View, label: str, name: str, grid: str, names: dict) -> dict[str, str]:
    """What every score is read against."""
    row: dict[str, str] = {"Variant": label, "Schedule": grid}
    for title in ("FID", "IS"):
        value = view.grid_value(names, f"{name}_{title.lower()}_{view.results.extractor}")
        row[view.results.label(title)] = Cell(number(value), mean=value)
    missing = row[view.results.label("FID")] == "-"
    return row | {"Status": view.results.why(names, None) if missing else "ok"}


def table_distillation(view: View) -> tuple[pd.DataFrame, str]:
    """Scores, cost and training of the full schedules, then of every arm by schedule; floor and reconstructions below."""
    variants, whole = view.variants, full_schedules(view)
    order = [*whole]
    for members in view.groups().values():
        students = [name for name in members if name not in whole]
        order += sorted(students, key=lambda name: (-tokens_of(variants[name]["patch_nums"]), variants[name]["patch_nums"]))
    rows = [_student_row(view, variant) for variant in order]
    grids = sorted(view.grids().items(), key=lambda item: -tokens_of(item[1]["patch_nums"]))
    rows.append(_line_row(view, "Floor: real training pictures", "floor", "", grids[0][1]))
    rows += [_line_row(view, "Reconstruction", "reconstruction", grid, names) for grid, names in grids]
    caption = [
        claim(view),
        "Difference: to the variant with the same mask that the suite names with its full schedule, paired by training seed, 95 % "
        "t-interval. NFE, token evals and MFLOP are counted, guidance included, decoder excluded. Tokens read in training: steps x "
        "batch x tokens of the schedule, the teacher's included; the teacher's own forward passes and sampling are not.",
        made_by(view),
    ]
    if "latency" in view.about["measure"]:
        caption.append(
            "Time: median over interleaved rounds, decoder excluded, drawn weights; variants of the same sizes were timed once. "
            + machine(view)
        )
    return frame(rows), " ".join(" ".join(caption).split())


def full_schedules(view: View) -> list[str]:
    """Variants that a suite names one by one: teachers, and whatever else the variants of its grids are read against."""
    return [name for name, names in view.variants.items() if not names["grid"]]


def full_schedule_of(view: View, variant: str) -> str | None:
    """The first of them with the same mask as a variant."""
    variants = view.variants
    same = lambda name: all(variants[name][key] == variants[variant][key] for key in ("history", "mask"))  # noqa: E731
    return next((name for name in full_schedules(view) if same(name)), None)


def tokens_of(patch_nums: Iterable[int]) -> int:
    """Tokens of a schedule: token_evals of one picture without guidance and refinement."""
    return sum(side * side for side in patch_nums)


def training_tokens(settings: dict[str, Any]) -> float:
    """Tokens that a variant's training reads when no early stopping ends it, its teacher's included; nan where a part was imported and
    nobody counted."""
    parts = [settings, *([settings["distill"]["teacher"]] if "distill" in settings else [])]
    if any(part["training"] is None for part in parts):
        return math.nan
    return sum(p["training"]["steps"] * p["training"]["batch_size"] * tokens_of(p["model"]["patch_nums"]) for p in parts)
