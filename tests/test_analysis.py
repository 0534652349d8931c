"""From rows to words: which rows stand behind a number, intervals, verdicts,
the tables and figures of sweeps."""

import json
import math
from pathlib import Path

import pytest

from bench.experiments.guidance import show as guidance
from bench.experiments.refinement import show as refinement
from bench.report.claims import claim_details, judged
from bench.report.estimate import estimate, paired, verdict
from bench.report.results import Results
from bench.report.view import View
from bench.runtime.rows import write_metrics, write_runs
from bench.runtime.variants_file import write_variants
from bench.study import rooms

ROOT = Path(__file__).resolve().parent.parent

SAMPLER = {
    "name": "var", "cfg_scale": 1.0, "cfg_ramp": "linear", "temperature": 1.0, "top_k": None,
    "top_p": 1.0, "sr_steps": 0, "refine_steps": 0, "p_resample": 0.1,
    "select": {"name": "threshold", "p_resample": 0.1}, "refine_scales": None,
}  # fmt: skip


def threshold(p):
    return {"name": "threshold", "p_resample": p}


def variant(model, sampler, group=None, **settings):
    return {
        "timed": f"t-{model}", "tokenizer": "tok-0", "model": f"{model}-0",
        "sampler": f"{sampler}-0", "history": 0, "mask": None, "depth": 2, "patch_nums": [1, 2],
        "settings": {"sampler": {**SAMPLER, **settings}}, "group": group or model, "grid": {},
        "jobs": {"": ["sweep/a"]},
    }  # fmt: skip


def claim_of(rule, variant, against, metric="fid", better="lower"):
    return {
        "text": "t",
        "origin": "paper",
        "rule": rule,
        "variant": variant,
        "against": against,
        "metric": metric,
        "better": better,
    }


@pytest.fixture
def make(tmp_path):
    """Factory of results: variants, and numbers {(variant, metric, seeds or None): {train_seed:
    value}}."""

    def build(variants, numbers, claims=(), extra=(), measure=("sweep",)):
        suite = {
            "claim": "what is asked", "claims": list(claims), "measure": list(measure),
            "figures": [], "tables": [], "sweep": {"thresholds": [0.1]}, "train_seeds": [0, 1, 2],
            "runs": ["sweep/a", "latency/s-1"],
        }  # fmt: skip
        about = {
            "study": "x", "scope": None, "reduced": None, "suites": {"s": suite},
            "train_seeds": [0, 1, 2], "latency": {},
            "evaluation": {"num_images": 200, "first_seed": 0},
            "features": {"kind": "trained", "name": "x8"},
            "dataset": {"name": "d", "num_classes": 2},
        }  # fmt: skip
        # a sweep that ended has a number, which no test reads
        rows = [{"study": "x", "run_id": "sweep/a", "metric": "unread", "value": 0.0}, *extra]
        for (name, metric, seeds), values in numbers.items():
            first, last = seeds or (0, 199)
            for seed, value in values.items():
                rows.append({
                    "study": "x", "dataset": "d",
                    **{key: variants[name][key] for key in ("tokenizer", "model", "sampler")},
                    "train_seed": seed, "metric": metric, "value": value, "unit": "score",
                    "run_id": "sweep/a", "seed_first": first, "seed_last": last,
                    "num_images": last - first + 1,
                })  # fmt: skip
        write_metrics(tmp_path / "metrics.csv", rows)
        runs = [
            {
                "run_id": "study/x",
                "stage": "study",
                "status": "ok",
                "config_json": json.dumps(about),
            }
        ]
        runs.append(
            {
                "run_id": "latency/s-1",
                "stage": "latency",
                "status": "ok",
                "config_json": "{}",
                "device": "cpu",
            }
        )
        runs += [
            {"run_id": run_id, "stage": run_id.split("/")[0], "status": "ok"}
            for run_id in ("sweep/a", "evaluate/other")
        ]
        write_runs(tmp_path / "runs.csv", runs)
        write_variants(tmp_path / "variants.csv", {"s": variants})
        return Results.load(tmp_path)

    return build


def test_interval_is_students():
    """Catches a normal interval, or a spread over n instead of n - 1:
    t(0.975, 2) = 4.3027 by the table."""
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0 and found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert estimate([5.0]).half is None and estimate([]) is None


@pytest.mark.parametrize(
    "values, lower, word",
    [
        ({0: 0.91, 1: 1.9, 2: 2.89}, True, "yes"),
        ({0: 1.11, 1: 2.1, 2: 3.09}, True, "no"),
        ({0: 1.11, 1: 2.1, 2: 3.09}, False, "yes"),
        ({0: 0.5, 1: 2.4, 2: 3.0}, True, "not decided"),
        ({0: 0.5}, True, "not decided"),
    ],
)
def test_verdict_follows_the_paired_interval(make, values, lower, word):
    """Catches an unpaired comparison (the seeds differ by 1, the variants by 0.1), a wrong
    direction, a verdict from one seed."""
    variants = {"a": variant("a", "p"), "b": variant("b", "p")}
    results = make(
        variants, {("a", "fid_x8", None): {0: 1.0, 1: 2.0, 2: 3.0}, ("b", "fid_x8", None): values}
    )
    found = judged(
        View(results, "s"), claim_of("score", "b", "a", better="lower" if lower else "higher")
    )[0]
    assert found == word


def test_tuning_and_scoring_use_different_images(make):
    """Catches a setting that is chosen on the images that score it: the best on the first half is
    the worst on the second."""
    halves, whole = ((0, 99), (100, 199)), None
    variants = {
        name: variant("m", name, "m", cfg_scale=w) for name, w in (("lucky", 1.5), ("steady", 1.0))
    }
    variants["other"] = variant("o", "lucky", "other")
    numbers = {
        ("lucky", "fid_x8", halves[0]): {0: 1.0, 1: 1.1, 2: 1.2},
        ("lucky", "fid_x8", halves[1]): {0: 9.0, 1: 9.1, 2: 9.2},
        ("lucky", "fid_x8", whole): {0: 5.0, 1: 5.0, 2: 5.0},
        ("steady", "fid_x8", halves[0]): {0: 2.0, 1: 2.1, 2: 2.2},
        ("steady", "fid_x8", halves[1]): {0: 2.0, 1: 2.1, 2: 2.2},
        ("steady", "fid_x8", whole): {0: 2.0, 1: 2.1, 2: 2.2},
        ("other", "fid_x8", halves[0]): {0: 3.0, 1: 3.1, 2: 3.2},
        ("other", "fid_x8", halves[1]): {0: 3.0, 1: 3.1, 2: 3.21},
    }
    results = make(variants, numbers)
    assert results.tuned("m", "s", "fid_x8") == "lucky"
    word, reason = judged(View(results, "s"), claim_of("tuned", "m", "other"))
    assert word == "no" and "+5.99" in reason or "+6.0" in reason
    table, caption = guidance.table_guidance(View(results, "s"))
    row = table.set_index("Group").loc["m"]
    assert row["FID (x8) tuned, second half"].numbers["mean"] == pytest.approx(9.1)
    assert row["FID on the first half"].numbers["mean"] == pytest.approx(1.1)
    assert row["Tuned minus w = 1, paired"].numbers["mean"] == pytest.approx(7.0)
    assert "N = 100" in caption
    assert estimate(results.of("lucky", "s", "fid_x8")).mean == 5.0, (
        "a half must not count as a score of all"
    )


def test_numbers_of_another_suite_stay_out(make):
    """Catches one sampler measured twice, by two suites, whose rows would mix."""
    variants = {"a": variant("a", "p")}
    names = {key: variants["a"][key] for key in ("tokenizer", "model", "sampler")}
    twin = {
        "study": "x",
        "dataset": "d",
        **names,
        "train_seed": 0,
        "metric": "fid_x8",
        "value": 7.0,
        "unit": "score",
    }
    twin |= {"run_id": "evaluate/other", "seed_first": 0, "seed_last": 199, "num_images": 200}
    results = make(variants, {("a", "fid_x8", None): {0: 1.0, 1: 1.0, 2: 1.0}}, extra=[twin])
    assert results.of("a", "s", "fid_x8").tolist() == [1.0, 1.0, 1.0]


def latency_rows(variants, seconds, peaks):
    rows = []
    for name, by_batch in seconds.items():
        names = {
            "study": "x",
            "model": variants[name]["timed"],
            "sampler": variants[name]["sampler"],
            "run_id": "latency/s-1",
        }
        for batch, repeats in by_batch.items():
            for repeat, value in enumerate(repeats):
                rows.append(
                    {
                        **names,
                        "metric": "latency_s",
                        "num_images": batch,
                        "repeat": repeat,
                        "value": value,
                        "unit": "s",
                    }
                )
            peak = {
                "metric": "peak_memory_bytes",
                "num_images": batch,
                "value": peaks[name][batch],
                "unit": "bytes",
            }
            rows.append({**names, **peak})
    return rows


@pytest.mark.parametrize(
    "second, word",
    [([1.0, 2.02, 3.9], "yes"), ([4.0, 8.1, 15.9], "no"), ([1.0, 8.0, 8.0], "not decided")],
)
def test_speed_is_decided_at_every_batch_size(make, second, word):
    """Catches a claim of speed from one batch size, or from unpaired rounds: times drift by 4,
    the ratio is steady."""
    variants = {"a": variant("a", "p"), "b": variant("b", "p")}
    first = [2.0, 4.0, 8.0]
    seconds = {"a": {1: first, 8: first}, "b": {1: second, 8: second}}
    peaks = {"a": {1: 100, 8: 800}, "b": {1: 50, 8: 900}}
    results = make(variants, {}, extra=latency_rows(variants, seconds, peaks), measure=("latency",))
    assert judged(View(results, "s"), claim_of("latency", "b", "a"))[0] == word
    word, reason = judged(View(results, "s"), claim_of("memory", "b", "a"))
    assert word == "not decided" and "0.50 at batch 1" in reason
    assert judged(View(results, "s"), claim_of("memory", "a", "a"))[0] == "no"


def test_faster_at_one_batch_size_only_is_not_decided(make):
    """Catches a claim that holds at a single batch size."""
    variants = {"a": variant("a", "p"), "b": variant("b", "p")}
    seconds = {
        "a": {1: [2.0, 2.1, 2.2], 8: [2.0, 2.1, 2.2]},
        "b": {1: [1.0, 1.05, 1.1], 8: [4.0, 4.2, 4.4]},
    }
    peaks = {name: {1: 1, 8: 1} for name in variants}
    results = make(variants, {}, extra=latency_rows(variants, seconds, peaks), measure=("latency",))
    assert judged(View(results, "s"), claim_of("latency", "b", "a"))[0] == "not decided"


def test_a_missing_score_is_named_and_never_zero(make):
    """Catches a figure or table that draws a failed run as 0 or leaves it out."""
    variants = {
        "m 1": {**variant("m", "p", "m"), "jobs": {}},  # nothing of it ever ran
        "m 2": variant("m", "q", "m", refine_steps=2),
        "m 3": variant("m", "r", "m", refine_steps=1),
    }
    results = make(
        variants,
        {
            ("m 2", "fid_x8", None): {0: 3.0, 1: 3.1, 2: 3.2},
            ("m 2", "token_evals", None): {0: 10, 1: 10, 2: 10},
        },
    )
    for figure in (
        guidance.figure_guidance,
        refinement.figure_refine_steps,
        refinement.figure_heat_maps,
    ):
        drawn, caption = figure(View(results, "s"))
        assert "m 1" in drawn._suptitle.get_text() and "not run" in drawn._suptitle.get_text()
        assert "what is asked" in caption
        assert all(0.0 not in line.get_ydata() for axes in drawn.axes for line in axes.lines)
    table, _ = guidance.table_guidance(View(results, "s"))
    assert table["Status"].tolist() == ["no scores on halves"]


def test_times_of_as_many_tokens_are_not_joined():
    """Catches a line through what the machine did at the time, and a median without the spread of
    its rounds."""
    view = View(Results.load(ROOT / "results" / "fashion8" / "published"), "ablation_refinement")
    drawn, caption = refinement.figure_refine_steps(view)
    times = drawn.axes[2]
    by_group = {holder.get_label(): holder.lines[0].get_linestyle() for holder in times.containers}
    assert by_group["SDD temperature"] == "None"
    joined = {line.get_label() for line in times.lines if len(line.get_xdata()) > 2}
    assert "SDD temperature" not in joined and "MR shuffled" in joined
    bars = [line for line in times.lines if len(set(line.get_ydata())) == 1]
    assert len(bars) >= len(view.variants)
    assert any("median over 5 interleaved rounds" in detail for detail in caption.details)


def test_an_empty_panel_says_why_and_keeps_the_scale_of_the_others(make):
    """Catches panels without one number on their shared axis,
    because the first of them is empty."""
    variants = {
        f"p {p}": variant("m", f"{p}", "m", select=threshold(p), refine_steps=1) for p in (0.1, 0.5)
    }
    numbers = {(name, "fid_x8", None): {0: 3.0 + i} for i, name in enumerate(variants)}
    numbers |= {(name, "token_evals", None): {0: 10.0 + i} for i, name in enumerate(variants)}
    drawn, _ = refinement.figure_refine_steps(View(make(variants, numbers), "s"))
    drawn.draw_without_rendering()
    first, middle, _ = drawn.axes[:3]
    assert middle.lines and not first.lines
    assert any("more than" in words.get_text() for words in first.texts)
    assert any(label.get_visible() and label.get_text() for label in first.get_yticklabels())


def test_a_line_against_guidance_differs_in_guidance_alone(make):
    """Catches a line that goes up and down at one w, because its group varies passes too; and an
    axis without a second number, because few of the w tried are whole."""
    grid = [(w, s) for w in (0.8, 1.0, 1.2) for s in (1, 3)]
    variants = {
        f"{w} {s}": variant("m", f"{w}{s}", "m", cfg_scale=w, refine_steps=s) for w, s in grid
    }
    numbers = {(f"{w} {s}", "fid_x8", None): {0: w + s, 1: w + s + 0.1} for w, s in grid}
    drawn, _ = guidance.figure_guidance(View(make(variants, numbers), "s"))
    lines = {line.get_label(): list(line.get_xdata()) for line in drawn.axes[0].lines}
    for steps in (1, 3):
        assert lines[f"m, refine_steps {steps}, ramp linear"] == [0.8, 1.0, 1.2]
    low, high = drawn.axes[0].get_xlim()
    assert sum(low <= w <= high for w in drawn.axes[0].get_xticks()) > 2


def test_one_point_shows_its_interval_and_stands_at_a_whole_number_of_passes(make):
    """Catches a band of one point, which shows nothing, and ticks at 2.84 passes."""
    variants = {"a": variant("m", "a", "m", refine_steps=2)}
    scores = {0: 3.0, 1: 3.2, 2: 3.4}
    numbers = {("a", "fid_x8", None): scores, ("a", "token_evals", None): dict.fromkeys(scores, 10)}
    drawn, _ = refinement.figure_refine_steps(View(make(variants, numbers), "s"))
    panel = drawn.axes[0]
    ends = panel.containers[0].lines[2][0].get_segments()[0]
    # t(2) 4.303 x 0.2 / sqrt 3
    assert ends[1][1] - ends[0][1] == pytest.approx(2 * 0.4968, rel=1e-3)
    assert all(float(tick).is_integer() for tick in panel.get_xticks())


def test_heat_map_puts_each_number_in_its_place(make):
    """Catches rows and columns that are exchanged or turned over."""
    grid = {(p, s): 10 * i + s for i, p in enumerate((0.1, 0.5)) for s in (1, 4)}
    variants = {
        f"p {p} s {s}": variant("m", f"{p}{s}", "m", select=threshold(p), refine_steps=s)
        for p, s in grid
    }
    numbers = {(f"p {p} s {s}", "fid_x8", None): {0: value} for (p, s), value in grid.items()}
    figure, _ = refinement.figure_heat_maps(View(make(variants, numbers), "s"))
    panel = figure.axes[0]
    shown = {
        (round(t.get_position()[1]), round(t.get_position()[0])): float(t.get_text())
        for t in panel.texts
    }
    assert [t.get_text() for t in panel.get_yticklabels()] == ["0.5", "0.1"]
    assert [t.get_text() for t in panel.get_xticklabels()] == ["1", "4"]
    assert shown == {(0, 0): 11, (0, 1): 14, (1, 0): 1, (1, 1): 4}


def test_a_reduced_study_says_so(make, tmp_path):
    """Catches a table or caption of a cut-down study that reads like the real one."""
    results = make({"a": variant("a", "p")}, {})
    assert "REDUCED" not in " ".join(claim_details(View(results, "s")))
    results.about["reduced"] = "one seed"
    assert " ".join(claim_details(View(results, "s"))).startswith("REDUCED STUDY: one seed.")


def test_every_rule_of_judgement_is_found_by_name(make):
    """Catches a rule that no study can name, or one whose word is none of the three."""
    results = make({"a": variant("a", "p"), "b": variant("b", "p")}, {})
    for rule in rooms.shows("rule"):
        word, reason = judged(View(results, "s"), claim_of(rule, "b", "a"))
        assert word == "not decided" and reason, f"{rule} decides without a number"


def test_equal_scores_that_round_apart_decide_nothing():
    """Catches a verdict on differences of the last bit, that all have one sign."""
    import pandas as pd

    first = pd.Series([0.6, 0.7, 0.8])
    second = first - 2.0**-53
    assert (second < first).all()
    assert verdict(paired(first, second)) == "not decided"
    assert verdict(paired(first, first - [1e-6, 1.1e-6, 1.2e-6])) == "yes"


def test_verdict_and_pairing_alone():
    """Catches a pairing by position: seeds that only one side has must not shift the others."""
    import pandas as pd

    found = paired(pd.Series({0: 1.0, 1: 2.0, 2: 3.0}), pd.Series({1: 2.5, 2: 3.6}))
    assert found.mean == pytest.approx(0.55) and found.count == 2
    assert verdict(None) == "not decided"
