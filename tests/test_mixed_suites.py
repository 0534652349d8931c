"""Words and choices of suites whose variants, seeds or tokenizers are not all alike: what is said
of some is not said of all."""

import pandas as pd
import pytest
from small_study import GRID, SEEDS, build, variant

from bench.experiments.error_propagation.show import error_details
from bench.experiments.guidance.show import table_guidance
from bench.experiments.samples.show import _same
from bench.experiments.zero_shot.show import _fixed_row
from bench.experiments.zero_shot.tasks import level, run_details
from bench.report.gain import gain_words
from bench.report.results import Results
from bench.report.tuning import edges
from bench.report.view import View
from bench.report.words import samplers, seeds_details, shares_tokenizer, tokenizers_words

THRESHOLD = {"name": "threshold", "p_resample": 0.1}
REFINED = {"name": "srdd", "refine_steps": 2, "select": {"name": "shuffled"}}


def loaded(folder, changed, more=(), group="g", **about):
    """A suite whose variants are one group, with some settings of each sampler."""
    results = Results.load(build(folder, list(changed), more=more, **about))
    for name, names in results.variants("s").items():
        names["settings"]["sampler"].update(changed[name])
        names["group"] = group or name
    return results


def row(i, seed, metric, value, **more):
    names = variant(i, "-")
    head = {
        "study": "x",
        "dataset": "d",
        "train_seed": seed,
        "unit": "score",
        "run_id": f"sample/v{i}-{seed}",
    }
    return {
        **head,
        "tokenizer": names["tokenizer"],
        "model": names["model"],
        "metric": metric,
        "value": value,
        **more,
    }


def half(i, seed, value, sampler=None, first=0, metric="fid_x8"):
    more = {"seed_first": first, "seed_last": first + 99, "num_images": 100}
    return row(i, seed, metric, value, sampler=sampler or variant(i, "-")["sampler"], **more)


# ---------------------------------------------------------------- runs


def test_what_another_suite_measured_of_a_tokenizer_stays_there(tmp_path):
    """Catches a suite that shows another one's numbers of the same tokenizer, by other settings and
    of other images, as its own; and two suites of one room that no table can be made of."""
    measured = {"weak": (20.0, 300), "strong": (10.0, 120)}
    results = Results.load(build(tmp_path, ["a", "b"]))
    names, like = results.variants("s")["a"], results.metrics.iloc[0]
    rows = []
    for suite, (value, count) in measured.items():
        results.about["suites"][suite] = {**results.about["suites"]["s"], "runs": [f"room/{suite}"]}
        told = {"metric": "psnr_input", "value": value, "num_images": count, "scale": None}
        told |= {"run_id": f"room/{suite}", "tokenizer": names["tokenizer"], "model": GRID}
        rows += [{**like, **told, "train_seed": seed} for seed in SEEDS]
    results.metrics = pd.concat([results.metrics, pd.DataFrame(rows)], ignore_index=True)
    for suite, (value, count) in measured.items():
        view = View(results, suite)
        assert view.grid_seeds(names, "psnr_input").tolist() == [value] * len(SEEDS)
        assert set(view.of_grid(names, "psnr_input")["num_images"]) == {count}
        assert set(view.rows_of("psnr_input")["run_id"]) == {f"room/{suite}"}


# ---------------------------------------------------------------- refinement


def test_a_group_whose_rules_differ_does_not_truncate_as_a_whole(tmp_path):
    """Catches a grid over select that said of its unbiased rules that they truncate."""
    rules = {"a": {**REFINED, "select": THRESHOLD}, "b": REFINED, "off": {}}
    assert "; a: truncates" in gain_words(View(loaded(tmp_path, rules), "s"))
    both = {name: {**REFINED, "select": THRESHOLD} for name in rules} | {"off": {}}
    assert "; g: truncates" in gain_words(View(loaded(tmp_path, both), "s"))


def test_a_group_of_several_models_has_no_gain_of_its_own(tmp_path):
    """Catches `g: refinement cannot help; g: refinement can help` of a grid over models."""
    rows = [
        row(i, seed, "intra_scale_gain", (-0.1, 0.1)[i] + 0.01 * seed)
        for i in (0, 1)
        for seed in SEEDS
    ]
    words = gain_words(View(loaded(tmp_path, {"a": REFINED, "b": REFINED}, rows), "s"))
    assert words.startswith("a: own tokens gain -0.090") and "; b: own tokens gain +0.110" in words


def test_nobody_measured_what_an_imported_model_gains(tmp_path):
    """Catches silence about refinement of imported weights, which have no training to report it."""
    results = loaded(tmp_path, {"a": REFINED})
    results.metrics = results.metrics[results.metrics["metric"] != "kept_step"]
    assert gain_words(View(results, "s")) == ""
    results.variants("s")["a"]["settings"]["weights"] = {"file": "w", "sha256": None}
    assert gain_words(View(results, "s")) == "g: what own tokens gain was not measured."


# ---------------------------------------------------------------- tuned settings


@pytest.mark.parametrize(
    "key, values, best, edge",
    [
        ("refine_steps", (0, 1, 3), 0, False),
        ("refine_steps", (0, 1, 3), 3, True),
        ("top_k", (10, 50, None), 1, False),
        ("top_k", (10, 50, None), 2, False),
        ("top_k", (10, 50, None), 0, True),
        ("p_resample", (0.0, 0.1), 0, False),
        ("select", ({**THRESHOLD, "p_resample": 0.0}, THRESHOLD), 0, False),
        ("select", (THRESHOLD, {**THRESHOLD, "p_resample": 0.2}), 0, True),
        ("temperature", (0.9, 1.0), 1, True),
    ],
)
def test_nothing_lies_beyond_a_legal_limit(tmp_path, key, values, best, edge):
    """Catches `the best may lie beyond` of no refinement at all,
    and of 50 codes where all were tried."""
    results = loaded(tmp_path, {f"v{i}": {key: value} for i, value in enumerate(values)})
    index = values.index(best) if best in values else best
    assert bool(edges(View(results, "s"), "g", f"v{index}")) == edge


def test_a_setting_does_not_win_by_the_seeds_that_it_lacks(tmp_path):
    """Catches means over other training seeds: b is worse wherever both have a score."""
    rows = [half(0, seed, 5.0 + seed) for seed in SEEDS] + [half(1, 0, 5.5)]
    results = Results.load(build(tmp_path, ["a", "b"], more=rows))
    for names in results.variants("s").values():
        names["group"] = "g"
    assert results.tuned("g", "s", "fid_x8") == "a"  # 5 against 5.5, not 6 against 5.5


def test_settings_without_a_common_seed_are_not_compared(tmp_path):
    results = Results.load(build(tmp_path, ["a", "b"], more=[half(0, 0, 5.0), half(1, 1, 4.0)]))
    for names in results.variants("s").values():
        names["group"] = "g"
    assert results.tuned("g", "s", "fid_x8") is None


def test_halves_of_the_reference_may_be_smaller_than_the_features(tmp_path):
    """Catches a caption without the bias: 300 held-out images are above 200 dimensions, their
    halves are not. Sample seeds of a half are counted from the first of each training."""
    mine = {f"sample/v0-{seed}" for seed in SEEDS}
    rows = [half(0, seed, 5.0, first=first + 200 * seed) for seed in SEEDS for first in (0, 100)]
    rows += [half(0, seed, 150, metric="half_reference_images", first=200 * seed) for seed in SEEDS]
    features = {"kind": "trained", "name": "x8", "dim": 180}
    results = loaded(tmp_path, {"a": {}}, rows, features=features, tokenizer_seed="train_seed")
    assert mine <= results.runs_of["s"]
    caption = table_guidance(View(results, "s"))[1]
    assert "held-out images, 150, are below the 180 dimensions" in caption
    assert (
        "seeds 100 to 199, counted from the first of each training, each against its own half"
        in caption
    )


# ---------------------------------------------------------------- tokenizers, samplers


def mixed(folder, **about):
    """a has a tokenizer for every training seed, b an imported one."""
    head = {"study": "x", "dataset": "d", "unit": "mse", "model": GRID, "run_id": "encode/g-1"}
    head["metric"], own = "reconstruction_mse_test", variant(0, "a")["tokenizer"]
    rows = [
        {**head, "tokenizer": own, "train_seed": seed, "value": 0.1 + 0.01 * seed} for seed in SEEDS
    ]
    rows.append({**head, "tokenizer": "v8-imported", "value": 0.05})
    results = Results.load(build(folder, ["a", "b"], more=rows, **about))
    results.variants("s")["b"]["tokenizer"] = "v8-imported"
    return results


def test_one_imported_tokenizer_does_not_make_all_intervals_conditional(tmp_path):
    """Catches `the one tokenizer that all share` where most variants train one for each seed."""
    results = mixed(tmp_path, tokenizer_seed="train_seed")
    assert not shares_tokenizer(View(results, "s"))
    assert "each with a tokenizer of its own, but for b: conditional" in " ".join(
        seeds_details(View(results, "s"))
    )
    assert tokenizers_words(View(results, "s")).endswith(
        "0, 1, 2; of b one tokenizer, no interval."
    )
    alone = results.only("s", ["b"])
    assert shares_tokenizer(View(alone, "s")) and "conditional on the one" in " ".join(
        seeds_details(View(alone, "s"))
    )


def test_one_seed_says_where_its_settings_come_from(tmp_path):
    """Catches a suite of one training seed that did not say what was tuned, and means over one
    tokenizer."""
    results = mixed(tmp_path, tokenizer_seed="train_seed")
    results.suite("s").update(train_seeds=[5], tuned_on="other")
    assert "Settings were chosen by suite other" in " ".join(seeds_details(View(results, "s")))
    assert tokenizers_words(View(results, "s")) == "One tokenizer training, no interval."


def test_parts_of_a_rule_are_not_shared_without_the_rule(tmp_path):
    """Catches `All samplers: ..., truncates)`: half of a bracket that two rules have in common, and
    scales that no sampler refines alone."""
    rules = [
        {**REFINED, "select": {"name": rule, "confidence": "peak"}, "refine_scales": scales}
        for rule, scales in (("lowest", [0, 2]), ("static", [1, 2]))
        for _ in range(2)
    ]
    changed = {f"v{i}": rule | {"top_p": 1 - 0.1 * i} for i, rule in enumerate(2 * rules)}
    words = samplers(View(loaded(tmp_path, changed), "s")).split(";")[0]
    assert "MR 2 further passes" in words
    assert (
        words.count("(") == words.count(")") and "ranked" not in words and not words.endswith(" 2")
    )


# ---------------------------------------------------------------- zero-shot tasks, images


def test_the_ceiling_of_several_tokenizers_is_a_mean(tmp_path):
    """Catches the first tokenizer's reconstruction where each training seed has one of its own."""
    rows = [row(0, seed, "ceiling_psnr_whole", 20.0 + seed) for seed in SEEDS]
    rows += [row(0, seed, "nearest_fill_inpaint_psnr_whole", 0.1) for seed in SEEDS]
    results = Results.load(build(tmp_path, ["a", "b"], more=rows))
    assert level(View(results, "s"), "a", "ceiling_psnr_whole") == 21.0
    assert level(View(results, "s"), "a", "nearest_fill_inpaint_psnr_whole") == 0.1
    ceiling, fill = (
        _fixed_row(View(results, "s"), prefix, "inpaint", None)
        for prefix in ("ceiling", "nearest_fill")
    )
    assert ceiling["PSNR whole (dB)"] == "21.0 ± 2.5" and fill["PSNR whole (dB)"] == "0.100"


@pytest.mark.parametrize(
    "mode, said", [("train_seed", "others in every training"), (None, "sample seed i")]
)
def test_captions_know_that_each_training_has_sample_seeds_of_its_own(tmp_path, mode, said):
    """Catches `image i has sample seed i` of trainings that begin at num_images times their
    seed."""
    shape = {"inpaint": None, "outpaint": None, "super_resolution": True}
    results = Results.load(build(tmp_path, ["a", "b"], tokenizer_seed=mode))
    results.suite("s").update(zero_shot=shape, error_propagation={"shares": [0.1]})
    view = View(results, "s")
    assert said in " ".join(run_details(view)) and said in " ".join(error_details(view))
    assert _same(View(results, "s"), "alike") == "alike"
    images = {
        key: value for key, value in results.images.items() if not key.startswith("sample/v1-0")
    }
    images |= {"sample/v1-1/images": images["sample/v0-0/images"]}
    results.known["images"] = images
    assert (_same(View(results, "s"), "alike") == "alike") == (mode is None)
