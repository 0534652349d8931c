"""FID against further passes, and heat maps of threshold and passes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, NullLocator

from ...report.absent import missing_words
from ...report.caption import Caption
from ...report.claims import claim_details
from ...report.curves import curve, floor_line
from ...report.drawing import (
    DOUBLE,
    RED,
    blank,
    canvas,
    look_of,
    note,
    plain_log,
    text,
    title_with,
)
from ...report.estimate import Estimate, show_estimate
from ...report.sheets import by_group, sheet
from ...report.timing import common_batch, cost_of, machine, milliseconds, round_times
from ...report.view import View
from ...report.words import reference_details, score_details, seeds_details
from ...study.escaping import rst

CELL = 0.33  # inches of a number in a heat map

# ---------------------------------------------------------------- against passes


def _batch(view: View) -> int | None:
    """The batch size of all times of the figure, also of those in other blocks of it."""
    whole = view.of_suite
    return common_batch(whole, whole.variants)


def _costs(view: View, variant: str) -> tuple[float | None, ...]:
    """What a variant costs, an x for each panel: passes per refined scale, tokens through the
    network per image, milliseconds per image."""
    tokens = view.estimate(variant, "token_evals")
    timed = milliseconds(view, variant, _batch(view))
    passes = 1 + view.sampler(variant)["refine_steps"]
    return passes, tokens and tokens.mean, timed and timed[0]


def _cost_points(view: View, members: list[str]) -> list[list[tuple[float, Estimate]]]:
    """Cost and FID of the variants of a group, by panel."""
    by_panel: list[list[tuple[float, Estimate]]] = [[], [], []]
    for variant in members:
        score, costs = view.score(variant, "fid"), _costs(view, variant)
        if score is None or costs[1] is None:
            continue
        for points, cost in zip(by_panel, costs):
            if cost is not None:
                points.append((cost, score))
    if len({passes for passes, _ in by_panel[0]}) < len(by_panel[0]):
        by_panel[0] = []  # variants of one group that differ in something else than passes
    return by_panel


def _time_bars(axes: Axes, view: View, members: list[str], colour: str) -> None:
    """From the first to the third quartile of the rounds' times, a bar for each variant."""
    batch = _batch(view)
    for variant in members:
        score, timed = view.score(variant, "fid"), round_times(view, variant, batch)
        if score is not None and timed is not None:
            low, high = timed[0].quantile(0.25), timed[0].quantile(0.75)
            axes.plot([low, high], 2 * [score.mean], color=colour, linewidth=0.8, alpha=0.6)


def _time_words(view: View) -> str:
    """How times were taken, and by how many rounds."""
    batch = _batch(view)
    timed = [round_times(view, variant, batch) for variant in view.variants]
    counts = {len(times[0]) for times in timed if times is not None}
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return (
        f"Time: median over {low if low == high else f'{low} to {high}'} interleaved rounds, "
        "decoder excluded, drawn weights; thin bars: from the first to the third quartile. "
        "Variants that read as many tokens are not joined: their times differ by what the machine "
        "did."
    )


def _call_words(view: View) -> str:
    """Rules that made other numbers of calls where they were timed than where images were drawn:
    they look at what is drawn, and the weights of a timing are none that were trained."""
    words, timed, batch = [], view.latency("nfe"), _batch(view)
    for variant in view.variants:
        calls = cost_of(timed, variant, batch)
        drawn = view.estimate(variant, "nfe")
        if calls is None or drawn is None or f"{calls:.3g}" == f"{drawn.mean:.3g}":
            continue
        words.append(f"{rst(variant)}, {calls:.3g} calls timed and {drawn.mean:.3g} sampled")
    said = "Rules that look at what is drawn may be timed with other calls than images took"
    return f"{said}: {'; '.join(words)}." if words else ""


def _swept(view: View, variant: str) -> str:
    """What a variant's entry swept, as a point has room for; of schedules those alone that are not
    the suite's first, which most points share."""
    first, words = next(iter(view.variants.values())), []
    for value in view.variants[variant]["grid"].values():
        if isinstance(value, list):
            words += ["-".join(map(str, value))] if value != first["patch_nums"] else []
        else:
            words.append(f"{value:g}" if isinstance(value, float) else str(value))
    return ", ".join(words)


def _name_points(axes: Axes, view: View, members: list[str]) -> None:
    """What a group sweeps that is not passes, beside its points."""
    for variant in members:
        score, tokens = view.score(variant, "fid"), _costs(view, variant)[1]
        if score is not None and tokens is not None:
            place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(text(_swept(view, variant)), (tokens, score.mean), fontsize=5.5, **place)


def _passes_axis(axes: Axes) -> None:
    """Whole numbers of passes."""
    low, high = axes.get_xlim()
    if high - low < 2:  # too narrow for two whole numbers
        axes.set_xlim((low + high) / 2 - 1.2, (low + high) / 2 + 1.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _refine_steps(axes: np.ndarray, view: View) -> None:
    """FID of a few groups against what their passes cost."""
    panels = axes[0]
    for group, members in view.groups().items():
        by_panel = _cost_points(view, members)
        # of as many tokens: their times differ by what the machine did
        alike = len({tokens for tokens, _ in by_panel[1]}) < len(by_panel[1])
        for panel, points in zip(panels, by_panel):
            joined = panel is not panels[2] or not alike
            if points:
                curve(panel, points, group, look_of(view, group), joined)
        _time_bars(panels[2], view, members, look_of(view, group)["color"])
        if not by_panel[0]:
            _name_points(panels[1], view, members)
    panels[0].set_xlabel("network passes per refined scale")
    panels[1].set_xlabel("tokens through the network per image")
    panels[2].set_xlabel(f"time per image (ms), batch {_batch(view) or '-'}")
    for panel in panels:
        if not panel.lines:
            differ = panel is panels[0] and any(other.lines for other in panels)
            blank(
                panel,
                "each group differs in more than passes" if differ else "no variant has a number",
            )
            panel.tick_params(left=differ, labelleft=differ)  # the other panels share this scale
            continue
        floor_line(panel, view, "fid")
        if panel is panels[0]:
            _passes_axis(panel)
        else:
            panel.set_xscale("log", base=2)
            plain_log(panel.xaxis)
    count = view.results.about["evaluation"]["num_images"]
    panels[0].set_ylabel(f"{view.results.label('FID')}, N = {count}")


def figure_refine_steps(view: View) -> tuple[Figure, Caption]:
    """FID against passes per scale, tokens through the network and measured time, beside variants
    that draw each scale once (SRDD, arXiv 2509.22636; MaskGIT, arXiv 2202.04200)."""
    figure = sheet(by_group(view), (DOUBLE, 3.1), (1, 3), _refine_steps, far=range(3), sharey=True)
    note(figure, missing_words(view, f"fid_{view.results.extractor}"))
    words = (
        "FID against what a sampler costs: network passes per refined scale, tokens through the "
        "network, median time. Lines and symbols: mean, bands and bars: interval; across, "
        "quartiles of the time. Groups that sweep something else than passes: in the middle, with "
        "its value, and on the right."
    )
    details = (
        *claim_details(view),
        "A pass computes every token of its scale; guided calls count two.",
        _time_words(view),
        _call_words(view),
        machine(view),
        *score_details(view, sampler=False),
    )
    return figure, Caption(words, details)


# ---------------------------------------------------------------- heat maps


def _heat(view: View, members: list[str]) -> pd.DataFrame:
    """Mean FID by p_resample (rows) and refine_steps (columns)."""
    rows = []
    for variant in members:
        sampler, score = view.sampler(variant), view.score(variant, "fid")
        cell = {
            "p_resample": sampler["select"]["p_resample"],
            "refine_steps": sampler["refine_steps"],
        }
        rows.append({**cell, "fid": np.nan if score is None else score.mean})
    cells = pd.DataFrame(rows)
    keys = {"index": "p_resample", "columns": "refine_steps"}
    return cells.pivot_table(values="fid", dropna=False, **keys).sort_index(ascending=False)


def _heat_maps(view: View) -> dict[str, pd.DataFrame]:
    """The map of each group that sweeps both; a group of one variant is none."""
    maps = {}
    for group, members in view.groups().items():
        samplers = [view.sampler(variant) for variant in members]
        swept = all(
            sampler["refine_steps"] and "p_resample" in sampler["select"] for sampler in samplers
        )
        if len(members) > 1 and swept:
            maps[group] = _heat(view, members)
    return maps


def _draw_heat(axes: Axes, heat: pd.DataFrame, low: float, high: float) -> AxesImage:
    """A map whose colours run from low to high, with its numbers."""
    image = axes.imshow(heat, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(heat.to_numpy()):
        colour = "white" if value < (low + high) / 2 else "black"
        words = f"{value:.2f}"
        if not np.isfinite(value):
            words, colour = "-", RED
        place = {"ha": "center", "va": "center", "fontsize": 6.5}
        axes.text(column, row, words, color=colour, **place)
    axes.set_xticks(range(len(heat.columns)), [f"{steps:g}" for steps in heat.columns])
    axes.set_yticks(range(len(heat.index)), [f"{chance:g}" for chance in heat.index])
    axes.set_xlabel("refine_steps (passes after the first)")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines[:].set_visible(False)
    return image


def _heat_sheet(maps: dict[str, pd.DataFrame]) -> tuple[Figure, np.ndarray]:
    """A figure with a panel for each map, at most four side by side."""
    widest = max((len(heat.columns) for heat in maps.values()), default=1)
    highest = max((len(heat.index) for heat in maps.values()), default=1)
    per_line = max(1, min(len(maps), 4, int((DOUBLE - 0.8) / (CELL * widest + 0.1))))
    lines = max(1, -(-len(maps) // per_line))
    return canvas(DOUBLE, max(2.9, 0.9 + 0.22 * highest) * lines, lines, per_line)


def _heat_details(view: View, maps: dict[str, pd.DataFrame]) -> tuple[str, ...]:
    """The guidance of each map, what it means, and groups of one variant, which have no map."""
    guided, single = [], []
    for group, members in view.groups().items():
        sampler = view.sampler(members[0])
        if group in maps:
            guided.append(f"{rst(group)}: w = {sampler['cfg_scale']:g}, ramp {sampler['cfg_ramp']}")
        if len(members) == 1:
            single.append(f"{rst(group)} {show_estimate(view.score(members[0], 'fid'))}")
    return (
        f"Guidance: {'; '.join(guided)}.",
        "A cfg of 3.5 or 5 in VAR's own convention is w = 4.5 or 6 at the last scale of the "
        "linear ramp. In the convention u + w (c - u) it is w = 3.5 or 5. Which one the paper "
        "means was not seen by us, who saw only the beginning of its text.",
        f"One pass: {'; '.join(single)}." if single else "",
    )


def figure_heat_maps(view: View) -> tuple[Figure, Caption]:
    """FID over p_resample and refine_steps, a panel for each group of the suite that sweeps both;
    one colour scale (SRDD, arXiv 2509.22636)."""
    maps = _heat_maps(view)
    figure, axes = _heat_sheet(maps)
    values = np.concatenate([[], *(heat.to_numpy().ravel() for heat in maps.values())])
    values = values[np.isfinite(values)]
    image = None
    for panel, (group, heat) in zip(axes.flat, maps.items()):
        if not len(values):
            blank(panel, "no variant has a score")
            continue
        image = _draw_heat(panel, heat, values.min(), values.max())
        title_with(panel, group, axes.shape[1])
    for panel in axes[:, 0]:
        panel.set_ylabel("p_resample (probability)")
    for panel in axes.flat[len(maps) :]:
        panel.set_visible(not maps)
    if not maps:
        blank(axes[0, 0], "no group sweeps p_resample and refine_steps")
    if image is not None:
        figure.colorbar(image, ax=list(axes.flat), label=view.results.label("FID"), shrink=0.9)
    note(figure, missing_words(view, f"fid_{view.results.extractor}"))
    words = (
        "FID of mask resampling, mean over training seeds: tokens drawn with a probability below "
        "p_resample are masked and drawn again, refine_steps times. A panel for each guidance; all "
        "share one colour scale."
    )
    details = (
        *claim_details(view),
        *_heat_details(view, maps),
        *reference_details(view.results, view),
        *seeds_details(view),
    )
    return figure, Caption(words, details)
