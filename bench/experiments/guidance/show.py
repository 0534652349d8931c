"""FID and IS against the guidance scale, tuned on one half of the images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from ...report.absent import missing_words
from ...report.cells import frame, number, spread
from ...report.claims import claim, noise_words
from ...report.curves import curve, floor_line
from ...report.drawing import COLOURS, DOUBLE, LINES, MARKERS, blank, note, plain_log, text
from ...report.estimate import estimate, paired, show_estimate
from ...report.sheets import by_group, sheet
from ...report.tuning import differing, edges, flat, half_words, short, varied
from ...report.view import View
from ...report.words import bias_words, made_by, reference_words, seeds_words
from ...study.escaping import rst

MOST = 6  # groups in one panel against guidance: each has a line for every ramp


def tuned_words(view: View) -> str:
    """The best guidance of every group on the first half of the sample seeds, and what it scores on the second half."""
    metric, (first, second), words = f"fid_{view.results.extractor}", view.results.halves, []
    for group in view.groups():
        best = view.tuned(group, metric)
        if best is None:
            words.append(f"{rst(group)}: no scores on halves")
            continue
        here = show_estimate(estimate(view.of(best, metric, second)))
        edge = edges(view, group, best)
        chosen = tuned_to(view, group, best)
        at = "" if chosen == "-" else f" at {rst(chosen)}"  # of one setting nothing is chosen
        words.append(f"{rst(group)}{at}{f', {edge}' if edge else ''}: {here}")
    count = first[1] - first[0] + 1
    return (
        f"Tuned: the lowest mean {view.results.label('FID')} on sample seeds {first[0]} to {first[1]}, scored on seeds {second[0]} to "
        f"{second[1]}{half_words(view)} (N = {count} each, not comparable with other N): {'; '.join(words)}."
    )


def _apart_from_guidance(view: View, members: list[str]) -> dict[str, list[str]]:
    """Members of a group that differ in guidance alone, by what else they are set to: one line
    each."""
    guidance, found = ("cfg_scale", "cfg_ramp"), {}
    settings = {name: flat(view.sampler(name)) for name in members}
    keys = [key for key in differing(list(settings.values())) if key not in guidance]
    for name in members:
        own = settings[name]
        words = [f"{short(key)} {own[key]}" for key in keys if key in own]
        grid = view.variants[name]["grid"]  # of several models: what its grid gave each
        words += [
            f"{key.rsplit('.', 1)[-1]} {'-'.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"
            for key, value in grid.items()
            if not key.startswith("sampler.")
        ]
        found.setdefault(", ".join(words), []).append(name)
    return found


def _guidance(axes: np.ndarray, view: View) -> None:
    """Scores of a few groups against guidance."""
    titles = {"fid": "FID", "is": "IS", "precision": "precision (share)", "recall": "recall (share)"}
    groups, best = view.groups(), {}
    for group in groups:
        best[group] = view.tuned(group, f"fid_{view.results.extractor}")
    for panel, (name, title) in zip(axes.flat, titles.items()):
        metric = f"{name}_{view.results.extractor}"
        for i, (group, members) in enumerate(groups.items()):
            ramps = sorted(
                {view.sampler(v)["cfg_ramp"] for v in members if view.sampler(v)["cfg_scale"] != 1}
            )
            others = _apart_from_guidance(view, members)
            lines = [(ramp, words, mine) for words, mine in others.items() for ramp in ramps]
            for j, (ramp, words, mine) in enumerate(lines):
                points = []
                for variant in mine:
                    settings, found = view.sampler(variant), view.estimate(variant, metric)
                    if found is not None and (
                        settings["cfg_ramp"] == ramp or settings["cfg_scale"] == 1
                    ):  # w = 1 is the start of every ramp
                        points.append((settings["cfg_scale"], found))
                        if variant == best[group]:
                            panel.plot(
                                [settings["cfg_scale"]], [found.mean], "o", markersize=9, markerfacecolor="none", color="black"
                            )
                if points:
                    style = {
                        "color": COLOURS[i % len(COLOURS)],
                        "marker": MARKERS[j % len(MARKERS)],
                        "linestyle": LINES[j % len(LINES)],
                    }
                    curve(panel, points, ", ".join(filter(None, (group, words, f"ramp {ramp}"))), style)
            if not ramps and best[group] and len(members) > 1:  # tuned in something else than guidance
                found = view.estimate(best[group], metric)
                if found is not None:
                    look_of = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}
                    panel.axhline(found.mean, label=text(f"{group}, tuned, w = 1"), linewidth=1, **look_of)
        if not panel.lines:
            blank(panel, "no variant has a score")
        floor_line(panel, view, name)
        panel.set_ylabel(f"{title.split(' (')[0]} ({view.results.extractor})")
        panel.set_xlabel("guidance w (1 = off)")
        ticks = sorted({view.sampler(v)["cfg_scale"] for v in view.variants})
        whole = [w for w in ticks if float(w).is_integer()]
        few = MaxNLocator(nbins=6, steps=[1, 2, 5, 10])  # where few of those tried are whole numbers
        panel.xaxis.set_major_locator(FixedLocator(whole) if len(whole) > 2 else few)
        if name == "fid" and panel.lines:
            panel.set_yscale("log")
            plain_log(panel.yaxis)


def figure_guidance(view: View) -> tuple[Figure, str]:
    """FID, IS, precision and recall against guidance w for both ramps; the setting tuned on half of
    the seeds is ringed."""
    figure = sheet(
        by_group(view, MOST), (DOUBLE, 4.4), (2, 2), _guidance, columns=3
    )
    note(figure, missing_words(view, f"fid_{view.results.extractor}"))
    caption = (
        f"{claim(view)} w in u + w (c - u); VAR's own cfg is w - 1 at the last scale of the linear ramp. Lines: mean, bands: "
        f"interval; rings: the setting with the lowest mean FID on half of the sample seeds; level lines: of groups "
        f"without guidance. {noise_words(view)} {tuned_words(view)} "
        f"{made_by(view, sampler=False)}"
    )
    return figure, " ".join(caption.split())


def edge_words(view: View) -> str:
    """Which groups are at their best at the edge of what was tried, where the best may lie beyond;
    empty where none is."""
    metric, found = view.results.score_name("fid"), []
    for group in view.groups():
        best = view.tuned(group, metric)
        if best is not None and (words := edges(view, group, best)):
            found.append(f"{rst(group)} is at its best {words}")
    return f"{'; '.join(found)}: the best may lie beyond." if found else ""


def _unguided(view: View, variant: str, best: str) -> bool:
    """Whether a variant is the best one of its group without guidance, all else equal."""
    mine, other = (
        {key: value for key, value in view.sampler(name).items() if key != "cfg_ramp"}
        for name in (variant, best)
    )
    return mine == {**other, "cfg_scale": 1.0}


def table_guidance(view: View) -> tuple[pd.DataFrame, str]:
    """Every group at the setting that is best on the first half of the sample seeds, scored on the
    second, and without guidance."""
    metric, (first, second), rows = f"fid_{view.results.extractor}", view.results.halves, []
    for group, members in view.groups().items():
        best = view.tuned(group, metric)
        off = next((v for v in members if best and _unguided(view, v, best)), None)
        row: dict[str, str] = {"Group": group, "Settings tried": number(len(members))}
        if best is None:
            rows.append(row | {"Status": "no scores on halves"})
            continue
        row["Tuned"] = tuned_to(view, group, best)
        row["At an edge"] = "yes" if edges(view, group, best) else "no"
        for name in ("FID", "IS", "Precision", "Recall"):
            key = f"{name.lower()}_{view.results.extractor}"
            row[f"{view.results.label(name)} tuned, second half"] = spread(estimate(view.of(best, key, second)))
        row["FID on the first half"] = spread(estimate(view.of(best, metric, first)))
        if off is not None:
            row["FID at w = 1, second half"] = spread(estimate(view.of(off, metric, second)))
            gain = paired(view.of(off, metric, second), view.of(best, metric, second))
            row["Tuned minus w = 1, paired"] = spread(gain, difference=True)
        rows.append(row | {"Status": "ok"})
    held = view.results.rows_of("half_reference_images")["value"].dropna()
    half = bias_words(view.results, second[1] - second[0] + 1, int(held.min()) if len(held) else None)
    half = "" if half == bias_words(view.results) else half
    caption = (
        f"{claim(view)} Tuned: the setting with the lowest mean FID on sample seeds {first[0]} to {first[1]}, scored on seeds "
        f"{second[0]} to {second[1]}{half_words(view)}: N = {second[1] - second[0] + 1} each, not comparable with scores of "
        f"other N. {noise_words(view)} {edge_words(view)} {reference_words(view.results, view)}{half} {seeds_words(view)}"
    )
    return frame(rows), " ".join(caption.split())


def tuned_to(view: View, group: str, best: str) -> str:
    """What a group was tuned to, in the settings that it tried, such as w 1.5, ramp linear."""
    mine = flat(view.sampler(best))
    words = [(short(key), mine[key]) for key in varied(view, group) if key in mine]
    return ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in words) or "-"
