"""Figures of many samplers: scores against guidance, against refinement steps and their cost, heat maps of mask resampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from .analysis import (
    Estimate,
    Results,
    claim,
    edges,
    estimate,
    half_words,
    machine,
    made_by,
    missing_words,
    noise_words,
    reference_words,
    rst,
    seeds_words,
    show_estimate,
    tuned_to,
)
from .drawing import (
    COLOURS,
    DOUBLE,
    LINES,
    MARKERS,
    blank,
    canvas,
    look,
    note,
    plain_log,
    text,
    wrapped,
)
from .sheets import by_group, sheet

MOST = 6  # groups in one panel against guidance: each has a line for every ramp
CELL = 0.33  # inches of a number in a heat map


def curve(axes, points: list[tuple[float, Estimate]], label: str, style: dict[str, Any]) -> None:
    """Means over training seeds with their intervals, in order of x: a line and a band; bars where
    points are no function of x, or one point alone, of which a band would show nothing."""
    points = sorted(points, key=lambda point: point[0])
    xs, found = [x for x, _ in points], [value for _, value in points]
    if len(set(xs)) < max(2, len(xs)):
        half = [value.half or 0 for value in found]
        marks = {**style, "linestyle": "none", "elinewidth": 0.8, "capsize": 1.5}
        axes.errorbar(xs, [value.mean for value in found], yerr=half, label=text(label), **marks)
        return
    axes.plot(xs, [value.mean for value in found], label=text(label), **style)
    sure = [value.half is not None for value in found]
    low, high = [value.low for value in found], [value.high for value in found]
    axes.fill_between(xs, low, high, where=sure, color=style["color"], alpha=0.15, linewidth=0)


def floor_line(axes, results: Results, suite: str, metric: str) -> None:
    """What real training pictures score."""
    names = next(iter(results.variants(suite).values()))
    value = results.grid_value(names, f"floor_{metric}_{results.extractor}", suite)
    if value is not None:
        axes.axhline(value, color="0.35", linestyle=":", linewidth=1, label="floor: real training pictures", zorder=0)


# ---------------------------------------------------------------- guidance


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


# ---------------------------------------------------------------- refinement


def milliseconds(results: Results, suite: str, variant: str) -> tuple[float, int] | None:
    """Median time per image at the largest batch size that was timed, and that size."""
    rows = results.latency(suite, "latency_s")
    rows = rows[rows["variant"] == variant].dropna(subset=["value"])
    if not len(rows):
        return None
    batch = int(rows["num_images"].max())
    return float(rows.loc[rows["num_images"] == batch, "value"].median() / batch * 1e3), batch


def _refine_steps(axes: np.ndarray, results: Results, suite: str) -> None:
    """FID of a few groups against what their passes cost."""
    metric, batch = f"fid_{results.extractor}", None
    for i, (group, members) in enumerate(results.groups(suite).items()):
        by_cost: list[list[tuple[float, Estimate]]] = [[], [], []]
        for variant in members:
            found, tokens = results.estimate(variant, suite, metric), results.estimate(variant, suite, "token_evals")
            if found is None or tokens is None:
                continue
            by_cost[0].append((1 + results.sampler(variant, suite)["refine_steps"], found))
            by_cost[1].append((tokens.mean, found))
            timed = milliseconds(results, suite, variant)
            if timed is not None:
                by_cost[2].append((timed[0], found))
                batch = timed[1]
        for j, (panel, points) in enumerate(zip(axes[0], by_cost)):
            if j == 0 and len({x for x, _ in points}) < len(points):
                continue  # variants of one group that differ in something else than passes
            if points:
                curve(panel, points, group, look(i))
    labels = (
        "network passes per refined scale",
        "tokens through the network per image",
        f"time per image (ms), batch {batch or '-'}",
    )
    for panel, label in zip(axes[0], labels):
        panel.set_xlabel(label)
        if not panel.lines:
            found = panel is axes[0][0] and any(other.lines for other in axes[0])
            blank(panel, "each group differs in more than passes" if found else "no variant has a number")
            panel.tick_params(left=found, labelleft=found)  # the other panels share this scale
            continue
        floor_line(panel, results, suite, "fid")
        if panel is axes[0, 0]:
            low, high = panel.get_xlim()
            if high - low < 2:  # too narrow for two whole numbers
                panel.set_xlim((low + high) / 2 - 1.2, (low + high) / 2 + 1.2)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            panel.set_xscale("log", base=2)
            plain_log(panel.xaxis)
    axes[0, 0].set_ylabel(f"{results.label('FID')}, N = {results.about['evaluation']['num_images']}")


def figure_refine_steps(results: Results, suite: str) -> tuple[Figure, str]:
    """FID against passes per scale, tokens through the network and measured time, beside variants
    that draw each scale once."""
    figure = sheet(
        by_group(results, suite), suite, (DOUBLE, 3.1), (1, 3), _refine_steps, sharey=True
    )
    note(figure, missing_words(results, suite, f"fid_{results.extractor}"))
    caption = (
        f"{claim(results, suite)} A pass computes every token of its scale; guided calls count two. Lines and symbols: mean, bands and "
        "bars: interval. "
        "Variants that differ in something else than passes appear in the middle and on the right only. Time: median over "
        f"interleaved rounds, decoder excluded, drawn weights. {machine(results, suite)} {made_by(results, suite, sampler=False)}"
    )
    return figure, " ".join(caption.split())


def _heat(results: Results, suite: str, members: list[str]) -> pd.DataFrame:
    """Mean FID by p_resample (rows) and refine_steps (columns)."""
    rows = []
    for variant in members:
        settings = results.sampler(variant, suite)
        found = results.score(variant, suite, "fid")
        rows.append(
            {
                "p_resample": settings["p_resample"],
                "refine_steps": settings["refine_steps"],
                "fid": np.nan if found is None else found.mean,
            }
        )
    return (
        pd.DataFrame(rows)
        .pivot_table(index="p_resample", columns="refine_steps", values="fid", dropna=False)
        .sort_index(ascending=False)
    )


def figure_heat_maps(results: Results, suite: str) -> tuple[Figure, str]:
    """FID over p_resample and refine_steps, a panel for each group of the suite that sweeps both; one colour scale."""
    maps = {}
    for group, members in results.groups(suite).items():
        if len(members) > 1 and all(results.sampler(v, suite)["refine_steps"] for v in members):
            maps[group] = _heat(results, suite, members)
    widest, highest = (
        max((found.shape[axis] for found in maps.values()), default=1) for axis in (1, 0)
    )
    # four of the size of a study of ours side by side
    per_line = max(1, min(len(maps), 4, int((DOUBLE - 0.8) / (CELL * widest + 0.1))))
    lines = max(1, -(-len(maps) // per_line))
    figure, axes = canvas(DOUBLE, max(2.9, 0.9 + 0.22 * highest) * lines, lines, per_line)
    values = np.concatenate([m.to_numpy().ravel() for m in maps.values()]) if maps else np.array([])
    values = values[np.isfinite(values)]
    image = None
    for panel, (group, found) in zip(axes.flat, maps.items()):
        if not len(values):
            blank(panel, "no variant has a score")
            continue
        image = panel.imshow(found, cmap="cividis", vmin=values.min(), vmax=values.max(), aspect="auto")
        middle = (values.min() + values.max()) / 2
        for (row, column), value in np.ndenumerate(found.to_numpy()):
            shown, colour = (f"{value:.2f}", "white" if value < middle else "black") if np.isfinite(value) else ("-", "#c00000")
            panel.text(column, row, shown, ha="center", va="center", fontsize=6.5, color=colour)
        panel.set_xticks(range(len(found.columns)), [f"{step:g}" for step in found.columns])
        panel.set_yticks(range(len(found.index)), [f"{chance:g}" for chance in found.index])
        panel.set_title(wrapped(group, int(14 * DOUBLE / per_line)))
        panel.set_xlabel("refine_steps (passes after the first)")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.spines[:].set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("p_resample (probability)")
    for panel in axes.flat[len(maps) :]:
        panel.set_visible(not maps)
    if image is not None:
        figure.colorbar(image, ax=list(axes.flat), label=results.label("FID"), shrink=0.9)
    note(figure, missing_words(results, suite, f"fid_{results.extractor}"))
    single = {group: members[0] for group, members in results.groups(suite).items() if len(members) == 1}
    beside = [f"{rst(group)} {show_estimate(results.score(name, suite, 'fid'))}" for group, name in single.items()]
    settings = {group: results.sampler(results.groups(suite)[group][0], suite) for group in maps}
    guided = [f"{rst(group)}: w = {found['cfg_scale']:g}, ramp {found['cfg_ramp']}" for group, found in settings.items()]
    caption = (
        f"{claim(results, suite)} Mean over training seeds of the FID of mask resampling: tokens drawn with a probability below "
        f"p_resample are masked and drawn again, refine_steps times. Guidance: {'; '.join(guided)}. A cfg of 3.5 or 5 in VAR's own "
        "convention is w = 4.5 or 6 at the last scale of the linear ramp, in the convention u + w (c - u) it is w = 3.5 or 5; which "
        "one the paper means was not seen by us, who saw only the beginning of its text. "
        f"{'One pass: ' + '; '.join(beside) + '. ' if beside else ''}"
        f"{reference_words(results, suite)} {seeds_words(results, suite)}"
    )
    return figure, " ".join(caption.split())
