"""FID against further passes, and heat maps of threshold and passes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ...report.absent import missing_words
from ...report.claims import claim
from ...report.curves import curve, floor_line
from ...report.drawing import DOUBLE, blank, canvas, look, note, plain_log, wrapped
from ...report.estimate import Estimate, show_estimate
from ...report.sheets import by_group, sheet
from ...report.timing import machine
from ...report.view import View
from ...report.words import made_by, reference_words, seeds_words
from ...study.escaping import rst

CELL = 0.33  # inches of a number in a heat map


def milliseconds(view: View, variant: str) -> tuple[float, int] | None:
    """Median time per image at the largest batch size that was timed, and that size."""
    rows = view.latency("latency_s")
    rows = rows[rows["variant"] == variant].dropna(subset=["value"])
    if not len(rows):
        return None
    batch = int(rows["num_images"].max())
    return float(rows.loc[rows["num_images"] == batch, "value"].median() / batch * 1e3), batch


def _refine_steps(axes: np.ndarray, view: View) -> None:
    """FID of a few groups against what their passes cost."""
    metric, batch = f"fid_{view.results.extractor}", None
    for i, (group, members) in enumerate(view.groups().items()):
        by_cost: list[list[tuple[float, Estimate]]] = [[], [], []]
        for variant in members:
            found, tokens = view.estimate(variant, metric), view.estimate(variant, "token_evals")
            if found is None or tokens is None:
                continue
            by_cost[0].append((1 + view.sampler(variant)["refine_steps"], found))
            by_cost[1].append((tokens.mean, found))
            timed = milliseconds(view, variant)
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
        floor_line(panel, view, "fid")
        if panel is axes[0, 0]:
            low, high = panel.get_xlim()
            if high - low < 2:  # too narrow for two whole numbers
                panel.set_xlim((low + high) / 2 - 1.2, (low + high) / 2 + 1.2)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            panel.set_xscale("log", base=2)
            plain_log(panel.xaxis)
    axes[0, 0].set_ylabel(f"{view.results.label('FID')}, N = {view.results.about['evaluation']['num_images']}")


def figure_refine_steps(view: View) -> tuple[Figure, str]:
    """FID against passes per scale, tokens through the network and measured time, beside variants
    that draw each scale once."""
    figure = sheet(
        by_group(view), (DOUBLE, 3.1), (1, 3), _refine_steps, sharey=True
    )
    note(figure, missing_words(view, f"fid_{view.results.extractor}"))
    caption = (
        f"{claim(view)} A pass computes every token of its scale; guided calls count two. Lines and symbols: mean, bands and "
        "bars: interval. "
        "Variants that differ in something else than passes appear in the middle and on the right only. Time: median over "
        f"interleaved rounds, decoder excluded, drawn weights. {machine(view)} {made_by(view, sampler=False)}"
    )
    return figure, " ".join(caption.split())


def _heat(view: View, members: list[str]) -> pd.DataFrame:
    """Mean FID by p_resample (rows) and refine_steps (columns)."""
    rows = []
    for variant in members:
        settings = view.sampler(variant)
        found = view.score(variant, "fid")
        rows.append(
            {
                "p_resample": settings["select"]["p_resample"],
                "refine_steps": settings["refine_steps"],
                "fid": np.nan if found is None else found.mean,
            }
        )
    return (
        pd.DataFrame(rows)
        .pivot_table(index="p_resample", columns="refine_steps", values="fid", dropna=False)
        .sort_index(ascending=False)
    )


def figure_heat_maps(view: View) -> tuple[Figure, str]:
    """FID over p_resample and refine_steps, a panel for each group of the suite that sweeps both; one colour scale."""
    maps = {}
    for group, members in view.groups().items():
        samplers = [view.sampler(variant) for variant in members]
        swept = all(one["refine_steps"] and "p_resample" in one["select"] for one in samplers)
        if len(members) > 1 and swept:
            maps[group] = _heat(view, members)
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
        figure.colorbar(image, ax=list(axes.flat), label=view.results.label("FID"), shrink=0.9)
    note(figure, missing_words(view, f"fid_{view.results.extractor}"))
    single = {group: members[0] for group, members in view.groups().items() if len(members) == 1}
    beside = [f"{rst(group)} {show_estimate(view.score(name, 'fid'))}" for group, name in single.items()]
    settings = {group: view.sampler(view.groups()[group][0]) for group in maps}
    guided = [f"{rst(group)}: w = {found['cfg_scale']:g}, ramp {found['cfg_ramp']}" for group, found in settings.items()]
    caption = (
        f"{claim(view)} Mean over training seeds of the FID of mask resampling: tokens drawn with a probability below "
        f"p_resample are masked and drawn again, refine_steps times. Guidance: {'; '.join(guided)}. A cfg of 3.5 or 5 in VAR's own "
        "convention is w = 4.5 or 6 at the last scale of the linear ramp, in the convention u + w (c - u) it is w = 3.5 or 5; which "
        "one the paper means was not seen by us, who saw only the beginning of its text. "
        f"{'One pass: ' + '; '.join(beside) + '. ' if beside else ''}"
        f"{reference_words(view.results, view)} {seeds_words(view)}"
    )
    return figure, " ".join(caption.split())
