"""Figures that one value far off would spoil, and looks that stay the same between figures."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from small_study import build

from bench.report.axes import is_far_off, keep_to_lines, spread_out
from bench.report.drawing import look_of, write_figure
from bench.report.looks import places
from bench.report.results import Results
from bench.report.view import View
from bench.study import rooms


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
