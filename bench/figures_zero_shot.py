"""Figures of tasks that nothing was trained for, and of errors that are put into a sample."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from .analysis import Estimate, Results, claim, held_out, rst, samplers, seeds_words
from .drawing import COLOURS, DOUBLE, LINES, MARKERS, blank, canvas, legend_below, look, note, place, plain_log, text

TASKS = {"inpaint": "in-painting", "outpaint": "out-painting", "super_resolution": "super-resolution"}
OPPONENT = {"inpaint": "fill", "outpaint": "fill", "super_resolution": "bicubic"}
OPPONENTS = {"fill": "nearest-mean fill", "bicubic": "bicubic", "ceiling": "ceiling: all tokens true"}


def boxes_asked(results: Results, suite: str) -> list[str]:
    """The tasks by box that a suite asked for."""
    return [task for task in ("inpaint", "outpaint") if results.suite(suite)["zero_shot"][task]]


def true_scales(results: Results, suite: str) -> list[int]:
    """Every number of true scales that super-resolution was given."""
    rows = results.metrics
    mine = rows["run_id"].isin(results.suite(suite)["runs"]) & (rows["metric"] == "super_resolution_psnr_whole")
    return sorted(rows.loc[mine, "scale"].dropna().astype(int).unique().tolist())


def lacking(results: Results, suite: str, metric: str) -> str:
    """Variants without any row of a metric, and why."""
    seeds = results.suite(suite)["train_seeds"]
    lost = [v for v in results.variants(suite) if not len(results.select(v, suite, metric).dropna(subset=["value"]))]
    return "; ".join(f"{v}: {results.why(results.variants(suite)[v], seeds[0])}" for v in lost)


def dot(axes: Axes, x: float, found: Estimate | None, label: str | None, style: dict) -> None:
    """A mean with its interval."""
    if found is not None:
        half = None if found.half is None else [[found.half]] * 2
        axes.errorbar([x], [found.mean], yerr=half, capsize=2.5, elinewidth=1, linestyle="none", label=label, **style)


def _by_box(axes: Axes, results: Results, suite: str, what: str) -> None:
    """Every variant, the opponent and the ceiling at every task by box."""
    tasks, variants = boxes_asked(results, suite), list(results.variants(suite))
    for i, task in enumerate(tasks):
        for j, variant in enumerate(variants):
            mark = {key: value for key, value in look(j).items() if key != "linestyle"}
            shift = 0.16 * (j - (len(variants) - 1) / 2)
            found = results.at(variant, suite, f"{task}_{what}_unknown")
            dot(axes, i + shift, found, text(variant) if i == 0 else None, mark)
        for n, opponent in enumerate(("fill", "ceiling")):
            found = results.at(variants[0], suite, f"{opponent}_{task}_{what}_unknown")
            if found is not None:
                style = {"color": "0.35", "linestyle": ("--", ":")[n], "linewidth": 1, "zorder": 0}
                axes.hlines(found.mean, i - 0.42, i + 0.42, label=OPPONENTS[opponent] if i == 0 else None, **style)
    if not axes.lines:
        blank(axes, "no variant has a number")
    axes.set_xticks(range(len(tasks)), [TASKS[task] for task in tasks])
    axes.set_xlim(-0.6, max(1, len(tasks)) - 0.4)


def figure_zero_shot(results: Results, suite: str) -> tuple[Figure, str]:
    """PSNR and SSIM of the unknown part, and PSNR of super-resolution against the number of true scales."""
    figure, axes = canvas(DOUBLE, 2.8, 1, 3)
    left, middle, right = axes[0]
    _by_box(left, results, suite, "psnr")
    _by_box(middle, results, suite, "ssim")
    left.set_ylabel("PSNR of the unknown part (dB)")
    middle.set_ylabel("SSIM of the unknown part (index)")
    scales, variants = true_scales(results, suite), list(results.variants(suite))
    for j, variant in enumerate(variants):
        mark = {key: value for key, value in look(j).items() if key != "linestyle"}
        points = [(m, results.at(variant, suite, "super_resolution_psnr_whole", m)) for m in scales]
        for m, found in points:
            dot(right, m + 0.08 * (j - (len(variants) - 1) / 2), found, None, mark)
    for opponent, style in (("bicubic", LINES[2]), ("ceiling", LINES[3])):
        points = [(m, results.at(variants[0], suite, f"{opponent}_super_resolution_psnr_whole", m)) for m in scales]
        points = [(m, found.mean) for m, found in points if found]
        label = OPPONENTS[opponent] if opponent == "bicubic" or not boxes_asked(results, suite) else None
        if points:
            right.plot(*zip(*points), color="0.35", linestyle=style, linewidth=1, label=label, zorder=0)
    if not right.lines:
        blank(right, "no super-resolution was asked for")
    right.set_xlabel("true scales m that are kept")
    right.set_ylabel("PSNR of the whole picture (dB)")
    right.xaxis.set_major_locator(FixedLocator(scales or [0]))
    right.xaxis.set_minor_locator(NullLocator())
    legend_below(figure, columns=3)
    note(figure, lacking(results, suite, f"{(boxes_asked(results, suite) or ['super_resolution'])[0]}_psnr_whole"))
    caption = (
        f"{claim(results, suite)} Zero-shot completion of {asked(results, suite)}: at every scale the tokens whose resized mask exceeds "
        "one half are the true ones, scales of three tokens or fewer are all true; super-resolution keeps the tokens of the first m "
        "scales. Pictures are decoded whole, known pixels are not pasted. Symbols: mean, bars: interval. "
        f"{boxes_words(results, suite)} {seeds_words(results, suite)} {samplers(results, suite)}"
    )
    return figure, " ".join(caption.split())


def asked(results: Results, suite: str) -> str:
    """How many pictures were completed."""
    mine = results.metrics["run_id"].isin(results.suite(suite)["runs"])
    counts = results.metrics.loc[mine & results.metrics["metric"].str.endswith("_psnr_whole"), "num_images"].dropna()
    return f"{int(counts.iloc[0])} pictures of {held_out(results)}" if len(counts) else f"pictures of {held_out(results)}"


def boxes_words(results: Results, suite: str) -> str:
    """Where the boxes lie."""
    about = results.suite(suite)["zero_shot"]
    shown = [
        f"{TASKS[task]} {'of' if task == 'inpaint' else 'round'} the box {about[task]}" for task in boxes_asked(results, suite)
    ]
    return f"{rst('; '.join(shown))} (top, left, bottom, right in shares of the side)." if shown else ""


def figure_zero_shot_strips(results: Results, suite: str) -> tuple[Figure, str]:
    """The first held-out pictures: original, what is known, opponent, completion of every variant, ceiling; a panel for each task."""
    variants, seed = list(results.variants(suite)), results.suite(suite)["train_seeds"][0]
    runs = {v: _run_of(results, suite, v, seed) for v in variants}
    keys = boxes_asked(results, suite) + [f"super_resolution_{m}" for m in true_scales(results, suite)]
    figure, axes = canvas(DOUBLE, 1.5 + 0.62 * len(variants), 1, max(1, len(keys)))
    for panel, key in zip(axes[0], keys):
        strips = {v: results.images.get(f"{run}/{key}") for v, run in runs.items()}
        there = next((strip for strip in strips.values() if strip is not None), None)
        panel.set_title(TASKS.get(key, f"m = {key.split('_')[-1]}"))
        if there is None:
            blank(panel, "no pictures")
            continue
        count = min(4, len(there))
        rows = ["original", "known", OPPONENTS[OPPONENT[key.rstrip("_0123456789")]]]
        columns = [there[:count, 0], there[:count, 1], there[:count, 2]]
        for variant, strip in strips.items():
            rows.append(text(variant))
            columns.append(None if strip is None else strip[:count, 3])
        rows.append("ceiling")
        columns.append(there[:count, 4])
        cells = {(r, c): images[c] for r, images in enumerate(columns) if images is not None for c in range(count)}
        pitch = place(panel, cells, len(rows), count)
        if panel is axes[0, 0]:
            panel.set_yticks([(r + 0.45) * pitch for r in range(len(rows))], [row.replace("nearest-mean ", "") for row in rows])
            panel.tick_params(length=0)
        elif "bicubic" in rows and key == f"super_resolution_{true_scales(results, suite)[0]}":
            panel.set_yticks([2.45 * pitch], ["bicubic"])
            panel.tick_params(length=0)
    note(figure, lacking(results, suite, f"{(boxes_asked(results, suite) or ['super_resolution'])[0]}_psnr_whole"))
    caption = (
        f"{claim(results, suite)} The first held-out pictures, not chosen, training seed {seed}: original; what is known (grey: unknown; "
        "super-resolution: what the m true scales decode to); nearest-mean fill or, for super-resolution, bicubic; the completion of "
        f"every variant; the tokenizer's reconstruction from all true tokens. {boxes_words(results, suite)} {samplers(results, suite)}"
    )
    return figure, " ".join(caption.split())


def _run_of(results: Results, suite: str, variant: str, seed: int) -> str | None:
    """run_id of a variant's zero-shot job."""
    rows = results.select(variant, suite, "inpaint_psnr_whole")
    if not len(rows):
        rows = results.select(variant, suite, "super_resolution_psnr_whole")
    found = rows.loc[rows["train_seed"] == seed, "run_id"]
    return found.iloc[0] if len(found) else None


# ---------------------------------------------------------------- error propagation


def figure_error_propagation(results: Results, suite: str) -> tuple[Figure, str]:
    """Drift of the final state, its ratio to the direct error, and the change of FID, against the scale that was corrupted."""
    figure, axes = canvas(DOUBLE, 2.9, 1, 3)
    shares = results.suite(suite)["error_propagation"]["shares"]
    shown = [shares[len(shares) // 2], shares[-1]] if len(shares) > 1 else list(shares)
    kinds = {
        "drift_p{}": "drift of the final state (share)",
        "drift_ratio_p{}": "drift / direct error (ratio)",
        f"fid_change_p{{}}_{results.extractor}": f"change of {results.label('FID')}",
    }
    sides: set[int] = set()
    for panel, (metric, label) in zip(axes[0], kinds.items()):
        for i, (variant, names) in enumerate(results.variants(suite).items()):
            sides |= set(names["patch_nums"])
            for j, share in enumerate(shown):
                found = [
                    (side, results.at(variant, suite, metric.format(f"{share:g}"), k))
                    for k, side in enumerate(names["patch_nums"])
                ]
                found = [(side, value) for side, value in found if value is not None]
                if not found:
                    continue
                shift = 0.04 * (i - (len(results.variants(suite)) - 1) / 2)
                xs, style = (
                    [side + shift for side, _ in found],
                    {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": LINES[j]},
                )
                panel.plot(xs, [v.mean for _, v in found], label=text(f"{variant}, {100 * share:g} %"), **style)
                half = [v.half or 0.0 for _, v in found]
                panel.errorbar(
                    xs, [v.mean for _, v in found], yerr=half, fmt="none", ecolor=COLOURS[i], elinewidth=0.8, capsize=1.5
                )
        if not panel.lines:
            blank(panel, "no variant has a number")
        panel.set_ylabel(label)
        panel.set_xlabel("grid side of the corrupted scale (tokens)")
        panel.xaxis.set_major_locator(FixedLocator(sorted(sides)))
        panel.xaxis.set_minor_locator(NullLocator())
    axes[0, 1].axhline(1.0, color="0.35", linestyle=":", linewidth=1, zorder=0)
    if axes[0, 0].lines:
        axes[0, 0].set_yscale("log")
        plain_log(axes[0, 0].yaxis)
    legend_below(figure, columns=4)
    note(figure, lacking(results, suite, f"drift_p{shares[0]:g}"))
    counts = results.metrics.loc[results.metrics["metric"].str.startswith("drift_p"), "num_images"].dropna()
    caption = (
        f"{claim(results, suite)} A share of the tokens of one scale of a sample, at least one, is replaced by other codes; the sampler "
        "goes on with the same random numbers. Left: relative distance of the final latent state to that of the clean sample. Middle: the "
        "same over the distance if later tokens had stayed as they were; below 1 later scales repair, above 1 they amplify. Right: FID "
        f"of the corrupted set minus that of the clean one, N = {int(counts.iloc[0]) if len(counts) else '-'} each. The same places and "
        f"codes in every variant. Lines: mean, bars: interval. {seeds_words(results, suite)} {samplers(results, suite)}"
    )
    return figure, " ".join(caption.split())
