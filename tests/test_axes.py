"""Figures that one value far off would spoil, and looks that stay the same between figures."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from small_study import build

from bench.experiments.convergence.show import _with_mean_seconds
from bench.experiments.snr.show import figure_snr
from bench.experiments.trainings.show import other_tokens
from bench.report.axes import is_far_off, keep_to_lines, spread_out
from bench.report.curves import floor_line
from bench.report.drawing import (
    draw_band,
    fill_of,
    look,
    look_of,
    scale_places,
    side_ticks,
    write_figure,
)
from bench.report.estimate import Estimate
from bench.report.looks import places
from bench.report.results import Results
from bench.report.sheets import by_group, by_variant
from bench.report.view import View
from bench.study import rooms

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "means, top, far",
    [
        ([2.6, 2.6, 2.3, 2.5, 5.6, 4.9, 2.6], 6.9, False),
        ([0.78, 0.76, 0.67, 1.1, 3.8, 2.4], 4.9, True),
        ([5, 5, 5, 80], 80, True),
        ([3, 2.5], 3, False),
        ([1, 10], 10, False),
        ([-0.2, 0.1, 0.2, 30], 30, True),
        ([-0.2, 0.1, 0.2, 0.3], 0.3, False),
        ([0, 0], 0, False),
        ([], 1, False),
    ],
)
def test_what_is_far_off(means, top, far):
    """Catches a half empty panel, and a logarithmic axis where none is needed."""
    assert is_far_off(np.array(means, float), top) is far


def test_one_value_far_off_leaves_no_panel_half_empty(tmp_path):
    """Catches variants pressed together at the foot of a panel, and an interval that reaches 0 and
    stretches the axis to nothing."""
    figure, axes = plt.subplots()
    axes.errorbar(range(4), [5, 5.2, 5.1, 80], yerr=[5, 0.1, 0.1, 2], capsize=2)
    axes.axhline(1.5)
    axes.set_ylabel("FID")
    assert spread_out([axes]) and axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert 1 < low < 1.5 and 82 < high < 110 and "log axis" in axes.get_ylabel()
    write_figure(tmp_path / "f", figure, "c")
    assert "Log axis: " in (tmp_path / "f.rst").read_text(encoding="utf-8")


def test_changes_far_off_keep_their_sign():
    """Catches a change below 0 that a logarithmic axis cannot show."""
    figure, axes = plt.subplots()
    axes.plot([-0.2, 0.1, 0.2, -30, 0.1])
    assert spread_out([axes]) and axes.get_yscale() == "symlog"
    low, high = axes.get_ylim()
    assert low < -30 and high > 0.2
    plt.close(figure)


def test_an_axis_around_0_shows_whole_intervals_and_names_that_lie_apart():
    """Catches an interval that is cut off at the edge, and ticks 0.1, 0 and -0.1 on one spot."""
    figure, axes = plt.subplots()
    axes.plot(range(4), [0.6, -0.35, -0.2, 2.5])
    axes.fill_between(range(4), [-1.6, -1, -0.4, 1], [4.5, 0.2, 0.1, 4])
    assert spread_out([axes]) and axes.get_yscale() == "symlog"
    low, high = axes.get_ylim()
    assert low < -1.6 and high > 4.5
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    heights = axes.transAxes.inverted().transform(
        axes.transData.transform([(0, tick) for tick in ticks])
    )[:, 1]
    assert 0 in ticks and len(ticks) >= 3 and np.diff(np.sort(heights)).min() > 0.1
    plt.close(figure)


def test_a_round_far_off_is_a_triangle_at_the_edge():
    """Catches one slow round that presses all medians together, or that nobody sees."""
    figure, axes = plt.subplots()
    axes.set_yscale("log")
    axes.scatter([1, 1, 4, 4], [100, 101, 99, 2000])
    axes.plot([1, 4], [100, 110])
    assert keep_to_lines(axes) == 1
    low, high = axes.get_ylim()
    assert 90 < low < 99 and 110 < high < 150
    assert axes.collections[-1].get_offsets()[0].tolist() == [4, 0.98]
    plt.close(figure)


def test_pages_keep_ticks_that_were_set_by_hand(tmp_path):
    """Catches batch sizes 1, 2, 3, 5 on the pages of a figure whose study timed 1 and 8."""
    results = Results.load(build(tmp_path, [f"v{i}" for i in range(14)]))
    figure, _ = rooms.function_of("figures", "latency")(View(results, "s"))
    panels = [axes for axes in figure.axes if axes.get_xlabel().startswith("batch")]
    assert len(panels) == 4
    for axes in panels:
        assert [mark.get_text() for mark in axes.get_xticklabels()] == ["1", "8"]
    plt.close(figure)


def test_a_variant_looks_the_same_in_every_suite(tmp_path):
    """Catches a variant that changes its colour between figures, and two of one colour in one."""
    results = Results.load(build(tmp_path, [f"v{i}" for i in range(14)]))
    named = results.variants_of["s"]
    suites = {"main": ["v0", "v1", "v2"], "all": [*named], "few": ["v12", "v2", "v13"]}
    results.variants_of = {
        suite: {name: named[name] for name in names} for suite, names in suites.items()
    }
    numbers = places(results)
    assert [numbers[name] for name in suites["main"]] == [0, 1, 2]
    assert len({numbers[name] % 10 for name in suites["few"]}) == 3
    assert len({numbers[name] for name in suites["all"]}) == len(named)
    results.about["suites"] = dict.fromkeys(suites, results.about["suites"]["s"])
    whole = View(results, "all")
    assert look_of(whole.only(["v13"]), "v13") == look_of(whole, "v13")


def test_baselines_look_the_same_in_every_study(tmp_path):
    """Catches an SDD that is orange in one study and green in the next, since others come first."""
    found = {}
    for study, names in {"a": ["VAR", "history 1", "SDD"], "b": ["SDD", "mine", "SRDD"]}.items():
        numbers = places(Results.load(build(tmp_path / study, names)))
        assert len({*numbers.values()}) == len(names)
        found[study] = numbers["SDD"]
    assert found["a"] == found["b"]


def test_no_two_of_fifty_look_alike(tmp_path):
    """Catches variants of one colour and one line, where a figure draws no markers, and bars of one
    colour: five lines go into ten colours."""
    looks = [look(i) for i in range(50)]
    assert len({(one["color"], str(one["linestyle"])) for one in looks}) == 50
    assert len({(one["color"], one["marker"]) for one in map(look, range(90))}) == 90
    view = View(Results.load(build(tmp_path, [f"v{i}" for i in range(25)])), "s")
    bars = [fill_of(view, name) for name in view.variants]
    assert len({(bar["color"], bar["hatch"]) for bar in bars}) == 25
    assert {bar["hatch"] for bar in bars[:10]} == {""}


def scheduled(folder, *schedules):
    """A view of a suite with a variant for each schedule."""
    results = Results.load(build(folder, [f"v{i}" for i in range(len(schedules))]))
    for names, schedule in zip(results.variants("s").values(), schedules):
        names["patch_nums"] = list(schedule)
    return View(results, "s")


@pytest.mark.parametrize(
    "schedules, places, labels",
    [
        ([(1, 2, 4)], [[1, 2, 4]], "124"),
        ([(1, 2, 3), (1, 3)], [[1, 2, 3], [1, 3]], "123"),
        ([(4, 4, 4)], [[0, 1, 2]], "444"),
        ([(1, 2, 4), (2, 2, 4, 4)], [[0, 1, 3], [1, 2, 3, 4]], "12244"),
    ],
)
def test_scales_of_one_side_stand_apart(tmp_path, schedules, places, labels):
    """Catches all scales of 4-4-4 drawn at one place, and schedules of other sides moved."""
    view = scheduled(tmp_path, *schedules)
    assert [[*scale_places(view, one).values()] for one in schedules] == places
    first = view.only(["v0"])  # a page of a sheet has the axis of the whole
    assert [*scale_places(first, schedules[0]).values()] == places[0]
    figure, axes = plt.subplots()
    side_ticks(axes, view)
    figure.canvas.draw()
    assert "".join(label.get_text() for label in axes.get_xticklabels()) == labels
    plt.close(figure)


@pytest.mark.parametrize("name", ["per_scale", "code_usage"])
def test_no_line_goes_straight_up(tmp_path, name):
    """Catches a figure of scales that puts equal sides on each other."""
    view = scheduled(tmp_path, (4, 4, 4))
    of_grid = view.results.metrics["model"] == "1.2.4"
    view.results.metrics.loc[of_grid, "model"] = "4.4.4"
    figure, _ = rooms.function_of("figures", name)(view)
    lines = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata()) > 1]
    assert lines and all(min(np.diff(line.get_xdata())) > 0.9 for line in lines)
    plt.close(figure)


@pytest.mark.parametrize("sure, bars", [("1", 1), ("101", 2), ("110", 0), ("00", 0)])
def test_an_interval_without_a_neighbour_is_a_bar(sure, bars):
    """Catches a schedule of one scale whose interval is a band without a width."""
    means = [Estimate(2.0, 0.5 if known == "1" else None, 3) for known in sure]
    figure, axes = plt.subplots()
    draw_band(axes, list(range(len(sure))), means, "v", look(0))
    drawn = [part for part in axes.collections if isinstance(part, LineCollection)]
    segments = [segment for part in drawn for segment in part.get_segments()]
    assert [segment[:, 1].tolist() for segment in segments] == [[1.5, 2.5]] * bars
    plt.close(figure)


def test_every_page_holds_what_the_others_are_read_against(tmp_path):
    """Catches a block of curves without the first variant, which compares with nothing."""
    view = View(Results.load(build(tmp_path, [f"v{i}" for i in range(14)])), "s")
    for pages in (by_variant(view, 6), by_group(view, 6)):
        assert all(next(iter(page.variants)) == "v0" for page in pages)
        assert all(len(page.variants) <= 6 for page in pages) and len(pages) == 3
        assert {name for page in pages for name in page.variants} == {*view.variants}
    apart = by_variant(view, 6, again=False)
    assert sum(len(page.variants) for page in apart) == 14
    assert by_variant(view, 14) == [view] == by_group(view, 14)


def test_losses_of_other_tokens_are_left_out_and_named(tmp_path):
    """Catches curves of other targets in one panel, which a reader compares."""
    view = View(Results.load(build(tmp_path, ["a", "b", "c"])), "s")
    metrics, names = view.results.metrics, view.variants["c"]
    metrics.loc[metrics["model"] == names["model"], "tokenizer"] = "v9-other"
    names["tokenizer"] = "v9-other"
    figure, caption = rooms.function_of("figures", "per_scale")(view)
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert "of other tokens are left out" in caption.text and "other tokens: c." in caption
    assert caption.too_long is None
    plt.close(figure)


def test_losses_of_residuals_stand_beside_none_of_codes(tmp_path):
    """Catches nats of a density in one panel with those of codes, at the same scales or others."""
    view = View(Results.load(build(tmp_path, ["a", "b", "c"])), "s")
    view.variants["b"]["patch_nums"] = [1, 4]
    assert other_tokens(view) == [], "of another schedule the scales tell them apart"
    for name in "bc":
        view.variants[name]["settings"].setdefault("model", {})["head"] = "gauss"
    assert other_tokens(view) == ["b", "c"]


def test_losses_against_pairs_are_of_the_same_tokens(tmp_path):
    """Catches a loss of other tokens, as of another schedule, which looks lower than the first
    one's."""
    view = View(Results.load(build(tmp_path, ["a", "b", "c"])), "s")
    metrics = view.results.metrics
    metrics.loc[metrics["metric"] == "kept_step", "metric"] = "kept_loss_test"
    view.variants["c"]["patch_nums"] = [1, 4]
    figure, _ = rooms.function_of("figures", "pairs")(view)
    fid, loss = [axes.get_legend_handles_labels()[1] for axes in figure.axes]
    assert "c" in fid and {"a", "b"} <= set(loss) and "c" not in loss
    plt.close(figure)


def test_time_along_a_training_never_goes_back():
    """Catches a curve against seconds that turns back at a step which the fast trainings alone
    reach: a mean over fewer seeds lies before that of the step before."""
    steps = {0: (10, 20, 30), 1: (10, 20)}
    rows = pd.DataFrame(
        [
            {"train_seed": seed, "step": step, "value": 1.0, "seconds": step * (1.0, 4.0)[seed]}
            for seed, of in steps.items()
            for step in of
        ]
    )
    seconds = _with_mean_seconds(rows).groupby("step")["seconds"].unique()
    assert [list(values) for values in seconds] == [[25.0], [50.0], [60.0]]
    nothing = rows.assign(seconds=np.nan)
    assert _with_mean_seconds(nothing)["seconds"].isna().all(), "a clock that nobody kept"


@pytest.mark.parametrize("study, form", [("digits", "1x1"), ("fashion32_rooms", "1")])
def test_panels_of_one_figure_write_grids_in_one_form(study, form):
    """Catches 1 below one panel and 1x1 below the next, whose schedule is shorter."""
    results = Results.load(ROOT / "results" / study / "published")
    for about in results.about[
        "suites"
    ].values():  # verdicts take time, and nothing here reads them
        about["claims"] = []
    figure, _ = figure_snr(View(results, "snr"))
    firsts = [panel.get_xticklabels()[0].get_text() for panel in figure.axes if panel.lines]
    assert len(firsts) == 2 and set(firsts) == {form}
    plt.close(figure)


@pytest.mark.parametrize("along", ["y", "x"])
@pytest.mark.parametrize(
    "floor, legend", [(4.0, None), (0.001, "below"), (900.0, "above"), (None, "")]
)
def test_the_floor_is_a_line_where_it_is_near_and_a_number_where_it_is_far(along, floor, legend):
    """Catches a floor that is not drawn, one at another place, and curves pressed to an edge."""
    _, axes = plt.subplots()
    values, places = [5.0, 6.0, 7.0], [1, 2, 3]
    axes.plot(*((places, values) if along == "y" else (values, places)))
    view = SimpleNamespace(
        results=SimpleNamespace(extractor="x8"), variants={"a": "names"},
        grid_value=lambda names, metric: floor if metric == "floor_fid_x8" else None,
    )  # fmt: skip
    floor_line(axes, view, "fid", along)
    drawn = axes.lines[1:]
    if floor is None:
        assert not drawn
    elif legend is None:
        ends = drawn[0].get_ydata() if along == "y" else drawn[0].get_xdata()
        assert list(ends) == [4.0, 4.0] and drawn[0].get_label() == "floor: real training images"
    else:
        side = {"x": {"below": "left of", "above": "right of"}}.get(along, {}).get(legend, legend)
        assert not len(drawn[0].get_xdata())
        assert drawn[0].get_label().endswith(f"(real training images), {side} the panel")
    plt.close()
