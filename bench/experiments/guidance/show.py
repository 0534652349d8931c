"""TODO"""

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
from ...report.results import Results
from ...report.sheets import by_group, sheet
from ...report.tuning import SHORT, edges, half_words, varied
from ...report.words import bias_words, made_by, reference_words, seeds_words
from ...study.escaping import rst

MOST = 6  # groups in one panel against guidance: each has a line for every ramp


def tuned_words(results: Results, suite: str) -> str:
    """The best guidance of every group on the first half of the sample seeds, and what it scores on the second half."""
    metric, (first, second), words = f"fid_{results.extractor}", results.halves, []
    for group in results.groups(suite):
        best = results.tuned(group, suite, metric)
        if best is None:
            words.append(f"{rst(group)}: no scores on halves")
            continue
        here = show_estimate(estimate(results.of(best, suite, metric, second)))
        edge = edges(results, suite, group, best)
        chosen = tuned_to(results, suite, group, best)
        at = "" if chosen == "-" else f" at {rst(chosen)}"  # of one setting nothing is chosen
        words.append(f"{rst(group)}{at}{f', {edge}' if edge else ''}: {here}")
    count = first[1] - first[0] + 1
    return (
        f"Tuned: the lowest mean {results.label('FID')} on sample seeds {first[0]} to {first[1]}, scored on seeds {second[0]} to "
        f"{second[1]}{half_words(results, suite)} (N = {count} each, not comparable with other N): {'; '.join(words)}."
    )


def _apart_from_guidance(results: Results, suite: str, members: list[str]) -> dict[str, list[str]]:
    """Members of a group that differ in guidance alone, by what else they are set to: one line
    each."""
    guidance, found = ("cfg_scale", "cfg_ramp"), {}
    settings = {name: results.sampler(name, suite) for name in members}
    keys = [
        key
        for key in settings[members[0]]
        if key not in guidance and len({str(one[key]) for one in settings.values()}) > 1
    ]
    for name in members:
        words = [f"{key} {settings[name][key]}" for key in keys]
        grid = results.variants(suite)[name]["grid"]  # of several models: what its grid gave each
        words += [
            f"{key.rsplit('.', 1)[-1]} {'-'.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"
            for key, value in grid.items()
            if not key.startswith("sampler.")
        ]
        found.setdefault(", ".join(words), []).append(name)
    return found


def _guidance(axes: np.ndarray, results: Results, suite: str) -> None:
    """Scores of a few groups against guidance."""
    titles = {"fid": "FID", "is": "IS", "precision": "precision (share)", "recall": "recall (share)"}
    groups, best = results.groups(suite), {}
    for group in groups:
        best[group] = results.tuned(group, suite, f"fid_{results.extractor}")
    for panel, (name, title) in zip(axes.flat, titles.items()):
        metric = f"{name}_{results.extractor}"
        for i, (group, members) in enumerate(groups.items()):
            ramps = sorted(
                {results.sampler(v, suite)["cfg_ramp"] for v in members if results.sampler(v, suite)["cfg_scale"] != 1}
            )
            others = _apart_from_guidance(results, suite, members)
            lines = [(ramp, words, mine) for words, mine in others.items() for ramp in ramps]
            for j, (ramp, words, mine) in enumerate(lines):
                points = []
                for variant in mine:
                    settings, found = results.sampler(variant, suite), results.estimate(variant, suite, metric)
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
                found = results.estimate(best[group], suite, metric)
                if found is not None:
                    look_of = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}
                    panel.axhline(found.mean, label=text(f"{group}, tuned, w = 1"), linewidth=1, **look_of)
        if not panel.lines:
            blank(panel, "no variant has a score")
        floor_line(panel, results, suite, name)
        panel.set_ylabel(f"{title.split(' (')[0]} ({results.extractor})")
        panel.set_xlabel("guidance w (1 = off)")
        ticks = sorted({results.sampler(v, suite)["cfg_scale"] for v in results.variants(suite)})
        whole = [w for w in ticks if float(w).is_integer()]
        few = MaxNLocator(nbins=6, steps=[1, 2, 5, 10])  # where few of those tried are whole numbers
        panel.xaxis.set_major_locator(FixedLocator(whole) if len(whole) > 2 else few)
        if name == "fid" and panel.lines:
            panel.set_yscale("log")
            plain_log(panel.yaxis)


def figure_guidance(results: Results, suite: str) -> tuple[Figure, str]:
    """FID, IS, precision and recall against guidance w for both ramps; the setting tuned on half of
    the seeds is ringed."""
    figure = sheet(
        by_group(results, suite, MOST), suite, (DOUBLE, 4.4), (2, 2), _guidance, columns=3
    )
    note(figure, missing_words(results, suite, f"fid_{results.extractor}"))
    caption = (
        f"{claim(results, suite)} w in u + w (c - u); VAR's own cfg is w - 1 at the last scale of the linear ramp. Lines: mean, bands: "
        f"interval; rings: the setting with the lowest mean FID on half of the sample seeds; level lines: of groups "
        f"without guidance. {noise_words(results, suite)} {tuned_words(results, suite)} "
        f"{made_by(results, suite, sampler=False)}"
    )
    return figure, " ".join(caption.split())


def edge_words(results: Results, suite: str) -> str:
    """Which groups are at their best at the edge of what was tried, where the best may lie beyond;
    empty where none is."""
    metric, found = results.score_name("fid"), []
    for group in results.groups(suite):
        best = results.tuned(group, suite, metric)
        if best is not None and (words := edges(results, suite, group, best)):
            found.append(f"{rst(group)} is at its best {words}")
    return f"{'; '.join(found)}: the best may lie beyond." if found else ""


def _unguided(results: Results, suite: str, variant: str, best: str) -> bool:
    """Whether a variant is the best one of its group without guidance, all else equal."""
    mine, other = (
        {key: value for key, value in results.sampler(name, suite).items() if key != "cfg_ramp"}
        for name in (variant, best)
    )
    return mine == {**other, "cfg_scale": 1.0}


def table_guidance(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Every group at the setting that is best on the first half of the sample seeds, scored on the
    second, and without guidance."""
    metric, (first, second), rows = f"fid_{results.extractor}", results.halves, []
    for group, members in results.groups(suite).items():
        best = results.tuned(group, suite, metric)
        off = next((v for v in members if best and _unguided(results, suite, v, best)), None)
        row: dict[str, str] = {"Group": group, "Settings tried": number(len(members))}
        if best is None:
            rows.append(row | {"Status": "no scores on halves"})
            continue
        row["Tuned"] = tuned_to(results, suite, group, best)
        row["At an edge"] = "yes" if edges(results, suite, group, best) else "no"
        for name in ("FID", "IS", "Precision", "Recall"):
            key = f"{name.lower()}_{results.extractor}"
            row[f"{results.label(name)} tuned, second half"] = spread(estimate(results.of(best, suite, key, second)))
        row["FID on the first half"] = spread(estimate(results.of(best, suite, metric, first)))
        if off is not None:
            row["FID at w = 1, second half"] = spread(estimate(results.of(off, suite, metric, second)))
            gain = paired(results.of(off, suite, metric, second), results.of(best, suite, metric, second))
            row["Tuned minus w = 1, paired"] = spread(gain, difference=True)
        rows.append(row | {"Status": "ok"})
    held = results.rows_of("half_reference_images")["value"].dropna()
    half = bias_words(results, second[1] - second[0] + 1, int(held.min()) if len(held) else None)
    half = "" if half == bias_words(results) else half
    caption = (
        f"{claim(results, suite)} Tuned: the setting with the lowest mean FID on sample seeds {first[0]} to {first[1]}, scored on seeds "
        f"{second[0]} to {second[1]}{half_words(results, suite)}: N = {second[1] - second[0] + 1} each, not comparable with scores of "
        f"other N. {noise_words(results, suite)} {edge_words(results, suite)} {reference_words(results, suite)}{half} {seeds_words(results, suite)}"
    )
    return frame(rows), " ".join(caption.split())


def tuned_to(results: Results, suite: str, group: str, best: str) -> str:
    """What a group was tuned to, in the settings that it tried, such as w 1.5, ramp linear."""
    mine = results.sampler(best, suite)
    words = [(SHORT.get(key, key), mine[key]) for key in varied(results, suite, group)]
    return ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in words) or "-"
