"""FID and IS against the guidance scale, tuned on one half of the images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from ...report.absent import group_missing, members_status, missing_words
from ...report.caption import Caption
from ...report.cells import frame, number, shown, spread
from ...report.claims import NOISE, claim_details
from ...report.curves import curve, floor_line
from ...report.drawing import DOUBLE, LINES, blank, look_of, note, text
from ...report.estimate import estimate, paired, show_estimate
from ...report.sheets import by_group, sheet
from ...report.tuning import differing, edges, flat, half_words, short, varied
from ...report.view import View
from ...report.words import bias_words, reference_details, score_details, seeds_details
from ...study.entries import grid_words
from ...study.escaping import rst

MOST = 6  # groups in one panel against guidance: each has a line for every ramp
SCORES = {"fid": "FID", "is": "IS", "precision": "precision", "recall": "recall"}
LEVELS = tuple(line for line in LINES if line != ":")  # dotted is the floor
NO_HALVES = "no scores on halves"
OFF = 1.0  # the guidance scale w that leaves u + w (c - u) at c


def tuned_to(view: View, group: str, best: str) -> str:
    """What a group was tuned to, in the settings that it tried, such as w 1.5, ramp linear."""
    words, settings = [], flat(view.sampler(best))
    for key in varied(view, group):
        if key not in settings:  # a setting of another rule
            continue
        value = settings[key]
        words.append(f"{short(key)} {f'{value:g}' if isinstance(value, float) else value}")
    return ", ".join([*words, *_beside_sampler(view, best)]) or "-"


def _beside_sampler(view: View, variant: str) -> list[str]:
    """What the grid of a variant sets beside its sampler, such as a learning rate."""
    grid = view.variants[variant]["grid"]
    return list(grid_words({key: grid[key] for key in grid if not key.startswith("sampler.")}))


def _halves_words(view: View) -> str:
    """Which half of the sample seeds tunes, and which one scores."""
    first, second = view.results.halves
    counts = [last - start + 1 for start, last in (first, second)]
    each = f"{counts[0]} each" if counts[0] == counts[1] else f"{counts[0]} and {counts[1]}"
    return (
        f"Tuned: the setting with the lowest mean {view.results.label('FID')} on sample seeds "
        f"{first[0]} to {first[1]}. It is scored on seeds {second[0]} to "
        f"{second[1]}{half_words(view)}. N = {each}, not comparable with scores of other N."
    )


def _tuned_words(view: View) -> str:
    """The best guidance of every group on the first half of the sample seeds, and what it scores on
    the second half."""
    metric, second = f"fid_{view.results.extractor}", view.results.halves[1]
    words = []
    for group in view.groups():
        best = view.tuned(group, metric)
        if best is None:
            why = group_missing(view, group, metric) or NO_HALVES
            words.append(rst(f"{group}: {why}"))
            continue
        setting, at_edge = tuned_to(view, group, best), edges(view, group, best)
        at = "" if setting == "-" else f" at {rst(setting)}"  # of one setting nothing is chosen
        score = show_estimate(estimate(view.of(best, metric, second)))
        words.append(f"{rst(group)}{at}{f', {at_edge}' if at_edge else ''}: {score}")
    return f"{view.results.label('FID')} on the second half: {'; '.join(words)}."


# ---------------------------------------------------------------- figure


def _apart_from_guidance(view: View, members: list[str]) -> dict[str, list[str]]:
    """Members of a group that differ in guidance alone, by what else they are set to: one line
    each."""
    samplers = {name: flat(view.sampler(name)) for name in members}
    differ = differing(list(samplers.values()))
    keys = [key for key in differ if key not in ("cfg_scale", "cfg_ramp")]
    alike: dict[str, list[str]] = {}
    for name in members:
        settings = samplers[name]
        words = [f"{short(key)} {settings[key]}" for key in keys if key in settings]
        # settings of the sampler are among the words before
        words += _beside_sampler(view, name)
        alike.setdefault(", ".join(words), []).append(name)
    return alike


def _ramps(view: View, members: list[str]) -> list[str]:
    """The ramps of those that are guided."""
    samplers = [view.sampler(name) for name in members]
    return sorted({sampler["cfg_ramp"] for sampler in samplers if sampler["cfg_scale"] != OFF})


def _ramp_points(view: View, members: list[str], ramp: str, metric: str) -> dict[str, tuple]:
    """Guidance scale and score of each variant of a ramp. w = 1 is the start of every ramp."""
    points = {}
    for variant in members:
        sampler, score = view.sampler(variant), view.estimate(variant, metric)
        of_ramp = sampler["cfg_ramp"] == ramp or sampler["cfg_scale"] == OFF
        if score is not None and of_ramp:
            points[variant] = sampler["cfg_scale"], score
    return points


def _draw_group(axes: Axes, view: View, group: str, i: int, metric: str) -> None:
    """The i-th group: a line for each ramp and whatever else its members are set to, with the tuned
    setting ringed; a level line for a group that was tuned in something else than guidance."""
    members, best = view.groups()[group], view.tuned(group, f"fid_{view.results.extractor}")
    ramps, alike, drawn = (
        _ramps(view, members),
        _apart_from_guidance(view, members),
        look_of(view, group),
    )
    lines = [(ramp, words) for words in alike for ramp in ramps]
    for j, (ramp, words) in enumerate(lines):
        points = _ramp_points(view, alike[words], ramp, metric)
        if best in points:
            w, score = points[best]
            axes.plot([w], [score.mean], "o", markersize=9, markerfacecolor="none", color="black")
        if points:
            label = ", ".join(filter(None, (group, words, f"ramp {ramp}")))
            # colour and symbol are the group's, as in every figure; lines, then hollow ones, tell
            # its ramps apart
            filled = drawn["color"] if j < len(LINES) else "white"
            style = {**drawn, "linestyle": LINES[j % len(LINES)], "markerfacecolor": filled}
            curve(axes, list(points.values()), label, style)
    if not ramps and best:
        score = view.estimate(best, metric)
        if score is not None:
            style = {"color": drawn["color"], "linestyle": LEVELS[i % len(LEVELS)], "linewidth": 1}
            how = "tuned, w = 1" if len(members) > 1 else "w = 1"
            axes.axhline(score.mean, label=text(f"{group}, {how}"), **style)


def _guidance(axes: np.ndarray, view: View) -> None:
    """Scores of a few groups against guidance."""
    for panel, (name, title) in zip(axes.flat, SCORES.items()):
        for i, group in enumerate(view.groups()):
            _draw_group(panel, view, group, i, f"{name}_{view.results.extractor}")
        if not panel.lines:
            blank(panel, "no variant has a score")
        floor_line(panel, view, name)
        panel.set_ylabel(f"{title} ({view.results.extractor})")
        panel.set_xlabel("guidance w (1 = off)")
        scales = sorted({view.sampler(variant)["cfg_scale"] for variant in view.variants})
        whole = [w for w in scales if float(w).is_integer()]
        few = MaxNLocator(
            nbins=6, steps=[1, 2, 5, 10]
        )  # where few of those tried are whole numbers
        panel.xaxis.set_major_locator(FixedLocator(whole) if len(whole) > 2 else few)


def figure_guidance(view: View) -> tuple[Figure, Caption]:
    """FID, IS, precision and recall against guidance w for both ramps; the setting tuned on half of
    the seeds is ringed (classifier-free guidance, arXiv 2207.12598)."""
    figure = sheet(by_group(view, MOST), (DOUBLE, 4.4), (2, 2), _guidance, columns=3, far=[0])
    note(figure, missing_words(view, f"fid_{view.results.extractor}"))
    caption = (
        "FID, IS, precision and recall against w in u + w (c - u), a line for each group and ramp. "
        "Lines: mean, bands: interval. Rings: the setting with the lowest mean FID on half of the "
        "sample seeds."
    )
    if any(not _ramps(view, members) for members in view.groups().values()):
        caption += " Level lines: groups without guidance, at their best setting."
    details = (
        *claim_details(view),
        "VAR's own cfg is w - 1 at the last scale of the linear ramp.",
        NOISE,
        _halves_words(view),
        _tuned_words(view),
        *score_details(view, sampler=False),
    )
    return figure, Caption(caption, details)


# ---------------------------------------------------------------- table


def edge_words(view: View) -> str:
    """Which groups are at their best at the edge of what was tried, where the best may lie beyond;
    empty where none is."""
    metric, words = view.results.score_name("fid"), []
    for group in view.groups():
        best = view.tuned(group, metric)
        at_edge = best is not None and edges(view, group, best)
        if at_edge:
            words.append(f"{rst(group)} is at its best {at_edge}")
    return f"{'; '.join(words)}: the best may lie beyond." if words else ""


def _unguided(view: View, variant: str, best: str) -> bool:
    """Whether a variant is the best one of its group without guidance, all else equal: the model
    too, where a group tries several."""
    variants = view.variants
    if any(variants[variant][key] != variants[best][key] for key in ("model", "tokenizer")):
        return False
    plain = {**view.sampler(best), "cfg_scale": OFF}
    sampler = {**view.sampler(variant), "cfg_ramp": plain["cfg_ramp"]}  # of w = 1 no ramp is read
    return sampler == plain


def _group_row(view: View, group: str) -> dict[str, str]:
    """A group at its best setting, and the same without guidance."""
    metric, (first, second) = f"fid_{view.results.extractor}", view.results.halves
    members, best = view.groups()[group], view.tuned(group, metric)
    row: dict[str, str] = {"Group": group, "Settings tried": number(len(members))}
    if best is None:
        return row | {"Status": group_missing(view, group, metric) or NO_HALVES}
    row["Tuned"] = tuned_to(view, group, best)
    row["At an edge"] = "yes" if edges(view, group, best) else "no"
    for name in ("FID", "IS", "Precision", "Recall"):
        score = view.of(best, f"{name.lower()}_{view.results.extractor}", second)
        row[f"{view.results.label(name)} tuned, second half"] = spread(estimate(score))
    row["FID on the first half"] = spread(estimate(view.of(best, metric, first)))
    unguided = next((name for name in members if _unguided(view, name, best)), None)
    if unguided is not None:
        off, on = view.of(unguided, metric, second), view.of(best, metric, second)
        row["FID at w = 1, second half"] = spread(estimate(off))
        row["Tuned minus w = 1, paired"] = spread(paired(off, on), difference=True)
    status = members_status(view, members, metric)
    return row | _by_others(view, group, best) | {"Status": status}


def _by_others(view: View, group: str, best: str) -> dict[str, str]:
    """What each other extractor says of a group's best setting, and which one is best by it."""
    row: dict[str, str] = {}
    for asked in map(view.by, view.results.others):
        fid, (_, second) = asked.results.score_name("fid"), view.results.halves
        own = asked.tuned(group, fid)
        title = f"{asked.results.label('FID')} tuned, second half"
        row[title] = spread(estimate(asked.of(best, fid, second)))
        row[f"Tuned by {asked.results.extractor}"] = tuned_to(view, group, own) if own else "-"
    return row


def _half_bias_words(view: View) -> str:
    """Which side of a half has fewer images than the features have dimensions; empty where that is
    said of the whole already."""
    first = view.results.halves[0]  # the smaller one, where their sizes differ
    held = view.rows_of("half_reference_images")["value"].dropna()
    return bias_words(view.results, first[1] - first[0] + 1, int(held.min()) if len(held) else None)


def table_guidance(view: View) -> tuple[pd.DataFrame, Caption]:
    """Every group at the setting that is best on the first half of the sample seeds, scored on the
    second, and without guidance (arXiv 2207.12598)."""
    table = frame([_group_row(view, group) for group in view.groups()])
    label = f"{view.results.label('FID')} tuned, second half"
    off, gain = "FID at w = 1, second half", "Tuned minus w = 1, paired"
    caption = (
        "Every group at the setting with the lowest mean FID on the first half of the sample "
        "seeds. It is scored on the second half, beside the same setting at w = 1. Difference: "
        "paired by "
        "training seed. At an edge: a better setting may lie beyond what was tried."
    )
    details = (
        *claim_details(view),
        _halves_words(view),
        NOISE,
        edge_words(view),
        *reference_details(view.results, view),
        _half_bias_words(view),
        *seeds_details(view),
    )
    table = shown(table, "Group", "Tuned", "At an edge", label, off, gain, "Status")
    return table, Caption(caption, details)
