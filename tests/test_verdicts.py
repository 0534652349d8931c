"""Verdicts from numbers made by hand: p-values and Holm's correction, fixed targets of a loss, real
images beside a score, memory of a whole pipeline, the edge of what was tuned, and what refinement
can do."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from small_study import SEEDS, build

from bench.experiments.claims.show import table_claims
from bench.experiments.guidance.show import table_guidance
from bench.experiments.latency.show import table_latency
from bench.experiments.peers import show as peers
from bench.experiments.scores import against_first
from bench.experiments.scores import show as scores
from bench.experiments.scores.show import table_costs, table_scores
from bench.report.absent import group_missing
from bench.report.claims import (
    EQUAL,
    NOISE,
    after_holm,
    claim_details,
    decided_together,
    judged,
    no_worse,
    seeds_behind,
)
from bench.report.estimate import Estimate, estimate, holm, show_difference
from bench.report.gain import gain_words
from bench.report.results import Results
from bench.report.timing import common_batch
from bench.report.trainings import crossing, kept_words, steps_to_targets, targets
from bench.report.tuning import edges
from bench.report.view import View
from bench.report.words import held_against
from bench.study import rooms
from bench.study.schema import Claim


def asked(rule="score", variant="b", against="a", **more):
    return Claim(text="b beats a", rule=rule, variant=variant, against=against, **more).model_dump()


def made(tmp_path, rows=(), names=("a", "b"), claims=(), **more):
    """Results of a small study with further rows: (variant, training seed or None, metric, value,
    other columns)."""
    bare = Results.load(build(tmp_path / "bare", list(names))).variants("s")
    extra = []
    for variant, seed, metric, value, columns in rows:
        about = bare[variant]
        head = {"study": "x", "metric": metric, "value": value, "unit": "score"}
        if seed is None:
            head |= {"model": about["timed"], "sampler": about["sampler"], "run_id": "latency/s-1"}
        else:
            head |= {key: about[key] for key in ("tokenizer", "model")}
            head |= {"train_seed": seed, "run_id": f"sample/v{list(names).index(variant)}-{seed}"}
        extra.append({**head, **columns})
    return Results.load(build(tmp_path / "full", list(names), claims=claims, more=extra, **more))


# ---------------------------------------------------------------- tests of hypotheses


def test_p_is_that_of_the_t_test():
    """Catches a one-sided p, a normal distribution, and an interval that excludes 0 at another p
    than 0.05."""
    values = [0.3, 0.5, 0.1, 0.4]
    assert estimate(values).p == pytest.approx(ttest_1samp(values, 0).pvalue)
    assert Estimate(1.0, 1.0, 5).p == pytest.approx(0.05)


@pytest.mark.parametrize(
    "mean, half, words",
    [
        (0.2293, 0.2248, "+0.229 [+0.005, +0.454]"),  # +0.00 would not say that it decides
        (-0.2541, 0.2550, "-0.254 [-0.509, +0.001]"),
        (1.07, 1.112, "+1.07 [-0.04, +2.18]"),
        (0.2, 0.1, "+0.20 [+0.10, +0.30]"),
        (0.1, 0.1, "+0.10 [+0.00, +0.20]"),
        (1.0, 1 - 1e-9, "+1.000000 [+0.000000, +2.000000]"),
    ],
)
def test_an_interval_says_on_which_side_of_0_it_ends(mean, half, words):
    """Catches an end that is rounded to 0, of which nobody knows whether it decides."""
    assert show_difference(Estimate(mean, half, 3)) == words


@pytest.mark.parametrize("values", ([1.0], [2.0, 2.0], [0.0, 0.0, 0.0], [0.1 + 0.2, 0.3, 0.3]))
def test_no_p_without_variance(values):
    """Catches a p of 0, the strongest there is, of seeds that only happen to differ equally: as
    every t-test of them, it cannot be computed."""
    assert estimate(values).p is None
    together = {85: estimate([1.0, 2.0, 4.0]), 170: estimate(values)}
    assert decided_together(together)[1] is None, "one of several that has none"


def test_what_is_shown_changes_no_verdict(tmp_path):
    """Catches a figure of a few variants that judges the suite's claims by these, and whose
    p-values all captions after it are corrected with."""
    results = made(tmp_path, names=("a", "b", "c"), claims=[asked()])
    rows, claim = results.metrics, results.about["suites"]["s"]["claims"][0]
    fid = rows["metric"] == results.score_name("fid")
    for i, base in enumerate((9.0, 5.0, 7.0)):
        for j, seed in enumerate(SEEDS):
            rows.loc[fid & (rows["run_id"] == f"sample/v{i}-{seed}"), "value"] = base + 0.1 * i * j
    whole = View(results, "s")
    few = whole.only(["a", "c"])
    details = claim_details(few)
    assert judged(few, claim) == judged(whole, claim) and judged(whole, claim)[0] == "yes"
    assert after_holm(few, claim, judged(few, claim)) == "yes"
    assert details == claim_details(whole)
    assert few.by("other").of_suite.variants.keys() == whole.variants.keys()


def test_equal_differences_decide_nothing(tmp_path):
    """Catches a verdict by an interval of no width, as coarse scores and few seeds give, and a p of
    0 that takes the first place among the others."""
    results = made(tmp_path, claims=[asked()])
    rows = results.metrics
    fid = rows["metric"] == results.score_name("fid")
    for i in (0, 1):
        of_variant = fid & rows["run_id"].str.startswith(f"sample/v{i}-")
        rows.loc[of_variant, "value"] = 5.0 - i
    view = View(results, "s")
    judgement = judged(view, results.about["suites"]["s"]["claims"][0])
    assert judgement[0] == "not decided" and judgement.p is None
    assert "equal in every training seed" in judgement[1]
    assert after_holm(view, results.about["suites"]["s"]["claims"][0], judgement) is None
    row = against_first.verdicts(view)["b"]
    assert row[against_first.verdict_title(view)] == "not decided"
    assert row[against_first.after_holm_title(view)] == "not decided"


def test_a_table_of_many_variants_is_corrected_for_them(tmp_path):
    """Catches a column after Holm that repeats the one before it: one small difference among 60
    that are none."""
    names = ["a", *(f"v{i:02}" for i in range(60))]
    results = made(tmp_path, names=names)
    rows = results.metrics
    fid = rows["metric"] == results.score_name("fid")
    for i, name in enumerate(names):
        for seed, value in enumerate((5.0, 5.1, 5.2)):
            moved = {"a": 0.0, "v00": (-0.9, -1.0, -1.1)[seed]}.get(name, (0.1, -0.1, 0.0)[seed])
            rows.loc[fid & (rows["run_id"] == f"sample/v{i}-{seed}"), "value"] = value + moved
    view = View(results, "s")
    row = against_first.verdicts(view)["v00"]
    assert row[against_first.verdict_title(view)] == "lower"
    assert row[against_first.after_holm_title(view)] == "not decided"
    alone = against_first.verdicts(view.only(["a", "v00"]))["v00"]
    assert alone[against_first.after_holm_title(view)] == "lower"


@pytest.mark.parametrize("shift", (0.0, -0.002, 0.02))
def test_equal_differences_decide_nothing_against_a_margin(shift):
    """Catches the same where a margin moves an interval of no width away from 0."""
    judgement = no_worse(estimate([shift] * 3), 0.01, False, "reason")
    assert judgement[0] == "not decided" and judgement.p is None
    assert judgement[1] == f"reason{EQUAL}"


def test_holm_by_hand():
    """Catches Bonferroni, which keeps one here, and a step-up,
    which would keep all but the last."""
    assert holm({"a": 0.01, "b": 0.02, "c": 0.9}) == {"a", "b"}
    assert holm({"a": 0.01, "b": 0.03, "c": 0.04, "d": 0.049}) == {"a"}
    assert holm({"a": 0.02, "b": 0.026}) == {"a"} | {"b"} and holm({}) == set()


def test_words_stand_beside_each_other(tmp_path, monkeypatch):
    """Catches a correction over one suite's or one rule's claims alone, a claim without a test that
    is corrected, and an own rule that no longer works."""
    rules = rooms.shows("rule") | {"mine": "scores"}
    monkeypatch.setattr(
        scores, "judge_mine", lambda view, claim: ("yes", "I say so"), raising=False
    )
    monkeypatch.setattr(rooms, "shows", lambda what: rules)
    many = [asked(metric="recall", variant=v, against=w) for v, w in (("b", "a"), ("a", "b"))]
    claims = [asked(), *many, asked("latency"), asked("mine"), asked("memory")]
    results = made(tmp_path, claims=claims)
    spread = {0: 5.0, 1: 5.5, 2: 5.2}
    for i, shift in enumerate((0.0, 0.1)):  # paired: 0.10, 0.12, 0.12, a p of about 0.003
        rows = results.metrics
        mine = (rows["metric"] == "fid_x8") & (
            rows["model"] == results.variants("s")["ab"[i]]["model"]
        )
        seeds = rows.loc[mine, "train_seed"]
        rows.loc[mine, "value"] = [spread[s] + shift + 0.01 * i * (s % 2 + s) for s in seeds]
    recall = rows["metric"].str.startswith("recall")
    recall &= rows["model"] == results.variants("s")["b"]["model"]
    rows.loc[recall, "value"] += 0.01 * (rows.loc[recall, "train_seed"] - 1)
    results.metrics = results.metrics.copy()
    table, caption = table_claims(View(results, "s"))
    assert table["Holds here"].tolist() == ["no", "not decided", "not decided", "no", "yes", "no"]
    assert table["After Holm"].tolist() == [
        "no",
        "not decided",
        "not decided",
        "no",
        "no p-value",
        "no p-value",
    ]
    p = judged(View(results, "s"), claims[0]).p
    assert 0.05 / 4 > p > 0.05 / 39, "four claims have a p-value; with 39 it would not stand"
    about = results.about["suites"]["s"]
    about["claims"] = [{**one, "text": f"{i} {one['text']}"} for i in range(13) for one in claims]
    results.metrics = results.metrics.copy()
    table, _ = table_claims(View(results, "s"))
    assert table["Holds here"][0] == "no" and table["After Holm"][0] == "not decided"
    assert "0 b beats a: no, after Holm not decided (fid_x8" in " ".join(
        claim_details(View(results, "s"))
    )


def test_two_seeds_give_no_verdict(tmp_path):
    """Catches a verdict from two trainings, whose interval decides by luck alone."""
    results = made(tmp_path, claims=[asked()])
    assert judged(View(results, "s"), asked())[0] == "no"
    results.suite("s")["train_seeds"] = [0, 1]
    results.metrics = results.metrics.copy()
    for one in (asked(), asked("nearer", metric="is")):
        word, reason = judged(View(results, "s"), one)
        assert word == "not decided"
    assert "fewer than three training seeds" in judged(View(results, "s"), asked())[1]
    table, _ = table_scores(View(results, "s"))
    assert table["Verdict"].tolist()[:2] == ["", "not decided"]
    assert "Fewer than three training seeds: no verdict" in table_claims(View(results, "s"))[1]


# ---------------------------------------------------------------- costs of times


def test_the_table_of_times_has_the_costs_of_its_batch(tmp_path):
    """Catches the calls of the largest batch beside the time of one image."""
    rows = [("a", None, "nfe", 13, {}), ("a", None, "nfe", 7, {"num_images": 1})]
    table, _ = table_latency(View(made(tmp_path, rows), "s"))
    costs = table[table["Variant"] == "a"].set_index("Batch")["NFE"]
    assert costs.to_dict() == {"1": "7", "8": "13"}


def without_batch_8(tmp_path):
    """Results in which a ran out of memory at the batch size 8, where b takes half of the time for
    an image."""
    results = made(tmp_path)
    rows, first = results.metrics, results.variants("s")["a"]["timed"]
    large = (rows["metric"] == "latency_s") & (rows["num_images"] == 8)
    values = rows["value"].where(~large, rows["value"] / 2)
    results.metrics = rows.assign(value=values.mask(large & (rows["model"] == first)))
    return View(results, "s")


def halves_of(bare, name, seed, value):
    """FID of a variant on both halves of the sample seeds of a training."""
    more = {"num_images": 100, "sampler": bare[name]["sampler"]}
    return [
        (name, seed, "fid_x8", value, {"seed_first": first, "seed_last": first + 99, **more})
        for first in (0, 100)
    ]


def test_guidance_is_held_against_the_same_model_without(tmp_path):
    """Catches a gain of guidance that is one of another model, where a group tries several."""
    names, rows = ("small", "large guided", "large"), []
    bare = Results.load(build(tmp_path / "names", list(names))).variants("s")
    for name, value in zip(names, (9.0, 4.0, 5.0)):
        for seed in SEEDS:
            rows += halves_of(bare, name, seed, value + 0.1 * seed)
    results = made(tmp_path, rows, names=names)
    variants, table = results.variants("s"), results.metrics
    variants["large guided"]["settings"]["sampler"]["cfg_scale"] = 2.0
    for name, one in variants.items():  # a sampler each, two of one model
        one["grid"] = {"model.width": 16 if name == "small" else 64}
        mine = table["model"] == one["model"]
        one["sampler"], one["group"] = f"s-{name}", "g"
        table.loc[mine & table["sampler"].notna(), "sampler"] = one["sampler"]
    table.loc[table["model"] == variants["large"]["model"], "model"] = variants["large guided"][
        "model"
    ]
    variants["large"]["model"] = variants["large guided"]["model"]
    shown, _ = table_guidance(View(replace(results, metrics=table, known={}), "s"))
    row = shown.iloc[0]
    assert row["Tuned"] == "w 2, width 64"
    assert row["FID at w = 1, second half"].numbers["mean"] == pytest.approx(5.1)
    assert row["Tuned minus w = 1, paired"].numbers["mean"] == pytest.approx(-1.0)


def test_a_tuned_verdict_lacks_no_seed_of_what_was_not_chosen(tmp_path):
    """Catches an interval over three trainings that is said to be over two, because a setting that
    is not the best lost one."""
    names, rows = ("a", "b", "c"), []
    bare = Results.load(build(tmp_path / "names", list(names))).variants("s")
    for i, name in enumerate(names):
        for seed in (0, 2) if name == "c" else SEEDS:
            rows += halves_of(bare, name, seed, 5.0 + 0.5 * i + 0.01 * seed * (i + 1))
    results = made(tmp_path, rows, names=names)
    table, c = results.metrics, results.variants("s")["c"]["model"]
    lost = (table["model"] == c) & (table["train_seed"] == 1) & (table["metric"] == "fid_x8")
    results.metrics = table[~lost]
    for name in ("b", "c"):
        results.variants("s")[name]["group"] = "g"
    verdict = judged(View(results, "s"), asked("tuned", "g", "a"))
    assert verdict.difference.count == 3 and "of b minus that of a" in verdict[1]
    assert "training seeds:" not in verdict[1]


def test_times_of_two_batch_sizes_are_not_compared(tmp_path, monkeypatch):
    """Catches an image of a batch of 8 beside one of a batch of 1, where a variant had no memory
    for more."""
    view = without_batch_8(tmp_path)
    assert common_batch(view, ["a", "b"]) == 1 and common_batch(view, ["b"]) == 8
    monkeypatch.setattr(peers, "attended_pairs", lambda names: 1)
    monkeypatch.setattr(peers, "reached", lambda names: 1)
    row = peers._size_cells(view, "b", "a")
    assert row["Time over off"].numbers["value"] == pytest.approx(1.1 * 1.0055 / 1.005)
    figure, _ = rooms.function_of("figures", "refine_steps")(view)
    assert figure.axes[2].get_xlabel() == "time per image (ms), batch 1"


def test_calls_that_were_timed_and_not_sampled_are_said(tmp_path):
    """Catches a time of 11 calls beside an FID of samples that took 10."""
    rows = [("b", None, "nfe", 11, {}), ("a", None, "nfe", 3, {})]
    rows += [("b", seed, "nfe", 10, {}) for seed in SEEDS]
    rows += [("a", seed, "nfe", 3, {}) for seed in SEEDS]
    _, caption = rooms.function_of("figures", "refine_steps")(View(made(tmp_path, rows), "s"))
    assert "took: b, 11 calls timed and 10 sampled." in caption


# ---------------------------------------------------------------- convergence


def test_a_crossing_lies_between_two_evaluations():
    """Catches the first evaluation at or below a target, and a crossing that was before it."""
    steps, losses = np.array([40, 80, 120, 160]), np.array([4.0, 3.0, 3.1, 2.0])
    assert crossing(steps, losses, 3.5) == 60 and crossing(steps, losses, 3.0) == 80
    assert crossing(steps, losses, 2.55) == pytest.approx(140)
    assert crossing(steps, losses, 1.9) is None and crossing(steps, losses, 4.0) is None


def test_targets_are_losses_that_all_pass():
    """Catches a target that one training never reaches, or has passed before its first
    evaluation."""
    curves = [pd.DataFrame({"value": values}) for values in ([3.10, 2.6, 2.503], [4.0, 2.4])]
    assert targets(curves) == [2.53, 2.56, 2.61, 2.71]
    assert targets([pd.DataFrame({"value": [2.6, 2.5]})]) == [2.52, 2.55] and targets([]) == []


def losses(variant, curves):
    return [
        (variant, seed, "loss_test", value, {"step": 40 * (i + 1)})
        for seed, curve in curves.items()
        for i, value in enumerate(curve)
    ]


def test_fewer_steps_are_seen_between_evaluations(tmp_path):
    """Catches a verdict that the grid of evaluations decides: both reach every loss at the same
    one, b 4 to 12 steps before a."""
    slow = {seed: [4.0 + 0.01 * seed, 3.0, 2.5, 2.4] for seed in SEEDS}
    fast = {
        seed: [value - 0.1 - 0.02 * (seed == 1) for value in curve] for seed, curve in slow.items()
    }
    results = made(tmp_path, losses("a", slow) + losses("b", fast))
    found = steps_to_targets(View(results, "s"))
    assert list(found) == [2.42, 2.45, 2.5, 2.6]
    at = found[2.6]
    assert at["a"]["step"].tolist() == [pytest.approx(80 + 40 * 0.8)] * 3
    assert at["b"]["step"][0] == pytest.approx(80 + 40 * (2.9 - 2.6) / 0.5)
    word, reason = judged(View(results, "s"), asked("convergence"))
    assert (
        word == "yes"
        and "-8.5 [" in reason
        and all(f"at {target:.2f}" in reason for target in found)
    )
    assert judged(View(results, "s"), asked("convergence", "a", "b"))[0] == "no"
    assert judged(View(results, "s"), asked("convergence", better="higher"))[0] == "no"
    figure, caption = rooms.function_of("figures", "convergence")(View(results, "s"))
    assert "2.60: a 112 steps" in caption and "-8.5 [" in caption
    grey = [line for line in figure.axes[0].lines if len(set(line.get_ydata())) == 1]
    assert [line.get_ydata()[0] for line in grey] == list(found)


def test_steps_to_losses_of_other_tokens_are_not_compared(tmp_path):
    """Catches curves and steps of a variant of another schedule, whose losses are of other
    tokens."""
    curves = {seed: [4.0 + 0.01 * seed, 3.0, 2.5, 2.4] for seed in SEEDS}
    view = View(made(tmp_path, losses("a", curves) + losses("b", curves)), "s")
    view.variants["b"]["patch_nums"] = [4]
    assert all(list(rows) == ["a"] for rows in steps_to_targets(view).values())
    figure, caption = rooms.function_of("figures", "convergence")(view)
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert "a" in labels and "b" not in labels and "of other tokens: b." in caption
    said = "Losses of other tokens than those of a, which do not compare: b."
    assert said in table_costs(view)[1] and said in table_scores(view)[1]


@pytest.mark.parametrize(
    "lost, words",
    [
        ([{0: "oom", 1: "oom", 2: "oom"}, {0: "oom", 1: "oom", 2: "oom"}], "seeds 0, 1, 2 oom"),
        ([{0: "oom", 1: "oom"}, {0: "oom", 2: "oom"}], "in no common training seed"),
        ([{0: "oom", 1: "oom", 2: "oom"}, {}], ""),
    ],
)
def test_a_group_without_a_common_seed_says_so(lost, words):
    """Catches one lost seed as the reason why a group cannot be tuned, or none, where no seed has
    all of its variants."""
    view = SimpleNamespace(
        about={"train_seeds": [0, 1, 2]},
        groups=lambda: {"g": ["a", "b"]},
        missing=lambda name, metric: lost["ab".index(name)],
    )
    said = group_missing(view, "g", "fid_x8")
    assert words in said and bool(words) == bool(said)


def test_steps_are_said_to_lack_a_training_that_diverged(tmp_path):
    """Catches steps of two trainings that are given out as those of three."""
    slow = {seed: [4.0 + 0.01 * seed, 3.0, 2.5, 2.4] for seed in SEEDS}
    fast = {seed: [value - 0.1 for value in slow[seed]] for seed in (0, 2)}
    claim = asked("convergence")
    results = made(tmp_path, losses("a", slow) + losses("b", fast), claims=[claim])
    word, reason = judgement = judged(View(results, "s"), claim)
    assert word == "not decided" and "; over 2 of 3 training seeds: seed 1 " in reason
    assert seeds_behind(View(results, "s"), claim, judgement) == "0 2"


@pytest.mark.parametrize(
    ("rule", "metric"),
    [
        ("value", "loss_test"),
        ("convergence", "fid"),
        ("funnel", "fid"),
        ("arms", "accuracy_joint_minus_half"),
        ("arm_keeps", "accuracy_joint_minus_half"),
    ],
)
def test_a_claim_of_a_variant_that_diverged_everywhere_says_so(tmp_path, rule, metric):
    """Catches `-` as the whole reason of a claim whose variant has no number in any seed."""
    rows = losses("a", {seed: [4.0, 3.0, 2.5, 2.4] for seed in SEEDS})
    claim = {**asked(rule), "metric": metric, "better": "lower"}
    results = made(tmp_path, rows, claims=[claim])
    mine = results.runs["run_id"].isin(sum(results.variants("s")["b"]["jobs"].values(), []))
    results.runs.loc[mine & (results.runs["stage"] != "encode"), "status"] = "diverged"
    vars(results).pop("_runs_by_id", None)
    word, reason = judged(View(results, "s"), claim)
    assert word == "not decided" and "; b: seeds 0, 1, 2 diverged" in reason


@pytest.mark.parametrize("rule", ["tuned", "latency", "memory"])
def test_a_claim_without_a_number_says_which_job_failed(tmp_path, rule):
    """Catches `nothing was timed`, or no scores on halves, of runs that had no memory."""
    claim = {**asked(rule), "metric": "fid"}
    results = made(tmp_path, claims=[claim])
    failed = results.runs["run_id"].isin(
        ["latency/s-1", *sum(results.variants("s")["b"]["jobs"].values(), [])]
    )
    rows = results.runs["stage"].ne("encode") & failed
    results.runs.loc[rows, ["status", "reason"]] = ["oom", "no memory"]
    metrics = results.metrics
    results.metrics = metrics[~metrics["run_id"].isin(results.runs.loc[rows, "run_id"])]
    vars(results).pop("_runs_by_id", None)
    word, reason = judged(View(results, "s"), claim)
    assert word == "not decided" and "oom (no memory)" in reason


def test_one_target_that_is_not_sure_decides_nothing(tmp_path):
    """Catches a claim confirmed by the target that suits it:
    b is ahead early and level at the end."""
    slow = {seed: [4.0, 3.0, 2.5, 2.4] for seed in SEEDS}
    fast = {seed: [4.0, 2.6, 2.48 + 0.02 * seed, 2.39 + 0.01 * seed] for seed in SEEDS}
    results = made(tmp_path, losses("a", slow) + losses("b", fast))
    word, reason = judged(View(results, "s"), asked("convergence"))
    assert word == "not decided" and reason.count("[") == 4


def test_early_stopping_that_never_acted_is_called_inert(tmp_path):
    """Catches a figure of trainings that all end too early, given out as selected."""
    curves = losses("a", {seed: [4.0, 3.0] for seed in SEEDS})
    results = made(tmp_path, curves)
    assert kept_words(View(results, "s")) == "0 of 6 trainings keep the weights of their last step."
    rows = results.metrics
    results.metrics = rows.assign(value=rows["value"].mask(rows["metric"] == "kept_step", 80.0))
    assert "3 of 6" in kept_words(View(results, "s"))
    b = results.variants("s")["b"]  # another sampler of the same model is no other training
    results.variants("s")["b again"] = {**b, "sampler": "s-other"}
    assert (
        "3 of 6" in kept_words(View(results, "s"))
        and "3 of 6" in table_costs(View(results, "s"))[1]
    )
    told = [("b", seed, "kept_at_end", 1.0, {}) for seed in SEEDS]
    results = made(tmp_path / "told", told)
    results.variants("s").pop("a")
    assert kept_words(View(results, "s")).endswith(
        "3 of 3 trainings keep the weights of their last step: early stopping is inert here."
    )


# ---------------------------------------------------------------- real images, memory, edges


def real(results, floor=None, reference=None):
    """Results with the IS of training and of held-out images."""
    names = next(iter(results.variants("s").values()))
    head = {
        "model": ".".join(map(str, names["patch_nums"])),
        "tokenizer": names["tokenizer"],
        "run_id": "baselines/g-1",
    }
    rows = [
        {**head, "metric": f"{line}_is_x8", "value": value}
        for line, value in (("floor", floor), ("reference", reference))
        if value is not None
    ]
    results.metrics = pd.concat([results.metrics, pd.DataFrame(rows)], ignore_index=True)
    return results


def test_a_higher_is_may_be_farther_from_real_images(tmp_path):
    """Catches an IS above that of real images that is sold as a gain without a word: a has about
    2.01, b 2.11."""
    results = real(made(tmp_path), floor=1.9, reference=1.5)
    word, reason = judged(View(results, "s"), asked(metric="is"))
    assert word == "yes" and "real images: 1.90 train, 1.50 held out" in reason
    assert "b's 2.11 is farther from real images than a's 2.01" in reason
    assert judged(View(results, "s"), asked("nearer", metric="is"))[0] == "no"
    assert judged(View(results, "s"), asked("nearer", "a", "b", metric="is"))[0] == "yes"
    assert "KID: " not in table_scores(View(results, "s"))[1], "none was measured"
    scored = results.metrics[results.metrics["metric"] == "is_x8"]
    results.metrics = pd.concat(
        [results.metrics, scored.assign(metric="kid_x8")], ignore_index=True
    )
    table, caption = table_scores(View(results, "s"))
    assert "KID: over all pairs." in caption
    assert table.set_index("Variant").loc["Held-out images themselves", "IS (x8)"] == "1.50"
    results = real(made(tmp_path / "above"), floor=9.0)
    reason = judged(View(results, "s"), asked(metric="is"))[1]
    assert "real images: 9.00 train" in reason and "farther" not in reason
    word, reason = judged(View(results, "s"), asked("nearer", metric="is"))
    assert word == "yes" and "real training images" in reason


def test_images_of_a_file_are_not_called_held_out(tmp_path):
    """Catches IS of the images of features.reference under the name of held-out ones, and the
    number of those of another extractor's file."""
    results = real(made(tmp_path), floor=1.9, reference=1.5)
    first = {**results.about["features"], "kind": "inception", "reference": "r.npz"}
    results.about["features"] = [first, {**first, "name": "y8"}]
    results.known.clear()
    rows = pd.DataFrame([
        {"run_id": f"features/{name}-1", "metric": "reference_images", "value": count}
        for name, count in (("y8", 0), ("x8", 150))
    ])  # fmt: skip
    results.metrics = pd.concat([results.metrics, rows], ignore_index=True)
    view = View(results, "s")
    column = table_scores(view)[0].set_index("Variant")["IS (x8)"]
    assert "Held-out images themselves" not in column
    assert column["Images of features.reference themselves"] == "1.50"
    assert "1.50 reference; b's" in judged(view, asked(metric="is"))[1]
    assert "real reference images" in judged(view, asked("nearer", metric="is"))[1]
    assert "its 150 images" in held_against(results)
    assert "the held-out split" in held_against(results.by("y8"))


def test_a_mean_over_fewer_seeds_says_why(tmp_path):
    """Catches a floor or a tuned group that some training seeds lack and whose row is called ok."""
    results = Results.load(build(tmp_path, ["a", "b"]))
    rows = results.metrics
    floor = rows["metric"] == "floor_fid_x8"
    of_seeds = [rows[floor].assign(train_seed=seed, value=1.5 + seed / 10) for seed in (0, 2)]
    lost = (rows["metric"] == "fid_x8") & (rows["train_seed"] == 1)
    b = results.variants("s")["b"]
    lost &= rows["model"] == b["model"]
    halves = rows[(rows["metric"] == "fid_x8") & ~lost]
    of_halves = [
        halves.assign(seed_first=first, seed_last=first + 99, num_images=100) for first in (0, 100)
    ]
    results.metrics = pd.concat([rows[~floor & ~lost], *of_seeds, *of_halves], ignore_index=True)
    bad = results.runs["run_id"] == "baselines/g-1"
    results.runs.loc[bad, ["status", "reason"]] = ["oom", "too large"]
    for names in results.variants("s").values():
        names["jobs"]["1"].append("baselines/g-1")
    status = table_scores(View(results, "s"))[0].set_index("Variant")["Status"]
    assert status["Floor: real training images"] == "seed 1 oom (too large)"
    assert status["a"] == "ok"
    calls = rows[rows["metric"] == "kept_step"].assign(metric="nfe", sampler=None)
    calls = calls[(calls["model"] != b["model"]) | (calls["train_seed"] != 1)]
    results.metrics = pd.concat([results.metrics, calls], ignore_index=True)
    results.known.clear()
    costs = table_costs(View(results, "s"))[0].set_index("Variant")["Status"]
    assert (costs["a"], costs["b"]) == ("ok", "seed 1 oom (too large)")
    guided = table_guidance(View(results, "s"))[0].set_index("Group")["Status"]
    assert (guided["a"], guided["b"]) == ("ok", "seed 1 oom (too large)")


def test_a_metric_of_ones_own_is_a_column_of_the_table_of_scores(tmp_path):
    """Catches a score that only the rows of the jobs hold, without a mean and an interval."""
    results = real(made(tmp_path), floor=1.9, reference=1.5)
    scored = results.metrics["metric"] == "fid_x8"
    floor = results.metrics["metric"].str.endswith("floor_is_x8")
    mine = results.metrics[scored | floor].assign(unit="share")
    mine["metric"] = mine["metric"].replace({"fid_x8": "mine", "floor_is_x8": "floor_mine"})
    results.metrics = pd.concat([results.metrics, mine], ignore_index=True)
    evaluated = results.runs["run_id"].isin(set(mine["run_id"])) & (
        results.runs["stage"] == "sample"
    )
    results.runs.loc[evaluated, "stage"] = "evaluate"
    table, _ = table_scores(View(results, "s"))
    column = table.set_index("Variant")["mine (share)"]
    means = [cell.numbers["mean"] for cell in column[["a", "b"]]]
    fid = table.set_index("Variant")["FID (x8)"]
    assert means == [cell.numbers["mean"] for cell in fid[["a", "b"]]]
    assert column["Floor: real training images"] == "1.90"
    assert column["Held-out images themselves"] == "-"
    assert [name for name in table if name.endswith("(share)")] == ["mine (share)"]


def test_memory_of_the_whole_pipeline_is_said(tmp_path):
    """Catches a sampler's memory alone where weights and decoder decide, and a claim on the
    pipeline that reads the sampler's."""
    rows = [
        (name, None, "pipeline_peak_bytes", value, {"num_images": batch})
        for name, value in (("a", 1000.0), ("b", 980.0))
        for batch in (1, 8)
    ]
    rows += [(name, None, "weights_bytes", 900.0 * 2**20, {}) for name in ("a", "b")]
    results = made(tmp_path, rows)
    word, reason = judged(View(results, "s"), asked("memory"))
    assert word == "no" and reason.startswith(
        "peak working memory of the sampler: ratio 1.00 at batch 1"
    )
    assert (
        "whole pipeline, weights and decoder included: ratio 0.98 at batch 1, 0.98 at batch 8"
        in reason
    )
    word, reason = judged(View(results, "s"), asked("memory", metric="pipeline"))
    assert word == "yes" and reason.startswith("peak of the whole pipeline")
    table, caption = table_latency(View(results, "s"))
    assert table["Weights (MiB)"].tolist() == ["900"] * 4 and "Decoder, peak (MiB)" not in table
    found = [cell.numbers["value"] for cell in table["Pipeline, peak (MiB)"]]
    assert found == [value / 2**20 for value in (1000, 980, 1000, 980)]
    assert "Rounds: 2." in caption and "whole pipeline, ratio: 0.98 at batch 1" in caption


def test_an_optimum_at_the_edge_is_said(tmp_path):
    """Catches the best of a grid whose best value is its first or last, and an edge beyond which
    nothing is legal."""
    results = made(tmp_path, names=("w 1", "w 2", "w 3"))
    settings = [names["settings"]["sampler"] for names in results.variants("s").values()]
    for w, one in zip((1.0, 2.0, 3.0), settings):
        one["cfg_scale"] = w
    results.groups = lambda suite: {"g": ["w 1", "w 2", "w 3"]}
    assert (
        edges(View(results, "s"), "g", "w 1") == "at the edge of what was tried (w = 1 of 1 to 3)"
    )
    assert edges(View(results, "s"), "g", "w 2") == "" and "w = 3" in edges(
        View(results, "s"), "g", "w 3"
    )
    settings[0]["cfg_scale"] = 0.0
    assert edges(View(results, "s"), "g", "w 1") == "", "below 0 is not legal"


def test_tuned_settings_are_named_as_the_group_varies_them(tmp_path):
    """Catches guidance shown of a group that tunes a temperature, and another temperature called
    the same without guidance."""
    results = made(tmp_path, names=("a", "b", "c", "d"))
    for name, settings in (
        ("a", {"temperature": 0.7}),
        ("b", {"temperature": 0.9}),
        ("c", {"cfg_scale": 2.0, "refine_steps": 3}),
        ("d", {"refine_steps": 1}),
    ):
        results.sampler(name, "s").update(settings)
    results.groups = lambda suite: {"soft": ["a", "b"], "guided": ["c", "d"]}
    halves = results.halves
    results.once("rows", lambda: None)
    for name in "abcd":
        score = results.of(name, "s", "fid_x8")
        results.known |= {("of", name, "s", "fid_x8", *half): score for half in halves}
    table, _ = table_guidance(View(results, "s"))
    table = table.set_index("Group")
    assert table.loc["soft", "Tuned"] == "temperature 0.7"
    assert table.loc["guided", "Tuned"] == "w 2, refine_steps 3", "c scores lower than d"
    assert table.loc["guided", "At an edge"] == "yes"
    assert table.loc["soft", "Tuned minus w = 1, paired"].numbers["mean"] == 0, (
        "it is itself without guidance"
    )
    assert table.loc["guided", "Tuned minus w = 1, paired"] == "", "d refines less"


# ---------------------------------------------------------------- refinement


@pytest.mark.parametrize(
    "gains, words",
    [
        (
            [0.04, 0.05, 0.06],
            "own tokens gain +0.050 [+0.025, +0.075] nats a token: refinement can help",
        ),
        ([-0.02, 0.05, 0.06], "nats a token: whether refinement can help is not decided"),
        ([-0.02, -0.05, 0.01], "nats a token: whether refinement can help is not decided"),
        ([0.0, 0.0, 0.0], "refinement cannot help"),
        ([-0.05], "fewer than three training seeds, whether refinement can help is not decided"),
        ([-0.04, -0.05, -0.06], "refinement cannot help"),
        (
            [0.05],
            "+0.05 (one seed) nats a token: fewer than three training seeds, whether",
        ),
        ([0.0], "refinement cannot help"),
        ([], "what own tokens gain was not measured"),
    ],
)
def test_captions_say_what_own_tokens_are_worth(tmp_path, gains, words):
    """Catches a figure, table or claim of a refined variant that does not say whether refinement
    can help its model."""
    rows = [("b", seed, "intra_scale_gain", gain, {}) for seed, gain in enumerate(gains)]
    results = made(tmp_path, rows, claims=[asked()])
    sampler = results.sampler("b", "s")
    sampler |= {"name": "srdd", "refine_steps": 3, "select": {"name": "shuffled"}}
    found = gain_words(View(results, "s"))
    assert (
        found.startswith("b: ")
        and words in found
        and "truncates" not in found
        and "a:" not in found
    )
    assert (
        found in " ".join(claim_details(View(results, "s")))
        and found in table_scores(View(results, "s"))[1]
    )
    because = table_claims(View(results, "s"))[0]["Because"][0]
    # of a model that can be helped the caption alone speaks
    assert (
        "nats a token" not in because
        if found.endswith("refinement can help.")
        else found in because
    )
    assert "nats a token" in found or not gains
    for names in results.variants("s").values():  # two models of one grid
        names["group"] = "MR"
    assert gain_words(View(results, "s")).startswith("MR: ")
    more = [*rows, *(("a", seed, "intra_scale_gain", -0.5, {}) for seed in range(3))]
    both = made(tmp_path, more, claims=[asked()])
    for name, names in both.variants("s").items():
        names["group"] = "MR"
        both.sampler(name, "s").update(sampler)
    found = gain_words(View(both, "s"))
    assert not gains or ("a: own" in found and "b: own" in found and "MR" not in found)
    sampler["refine_steps"] = 0
    assert gain_words(View(results, "s")) == ""


def mr(rule, **knobs):
    return {"refine_steps": 1, "select": {"name": rule, **knobs}}


@pytest.mark.parametrize(
    "settings, cuts",
    [
        ({"sr_steps": 1}, True), (mr("threshold"), True), (mr("lowest", confidence="drawn"), True),
        (mr("lowest", confidence="peak"), False), (mr("random"), False),
        (mr("static", confidence="peak"), False), (mr("static", confidence="drawn"), True),
        (mr("mine"), False), ({"select": {"name": "threshold"}}, False),
        ({"sr_steps": 1, "name": "mine"}, False),
    ],
)  # fmt: skip
def test_rules_that_truncate_say_so(tmp_path, settings, cuts):
    """Catches threshold resampling, which draws as top-p does, beside unbiased rules without a
    word."""
    results = made(tmp_path)
    results.sampler("b", "s").update({"name": "srdd", **settings})
    assert ("b: truncates" in gain_words(View(results, "s"))) == cuts


# ---------------------------------------------------------------- the main tables


def test_scores_and_costs(tmp_path):
    """Catches a column without a number, a score under another evaluator's name, costs that vanish
    where no table of them is asked for, and Holm over another family than the table's rows."""
    rows = [("b", seed, "loss_test_any_order", 2.5, {}) for seed in SEEDS]
    scored = {"seed_first": 0, "seed_last": 199, "num_images": 200}
    rows += [("b", seed, "fid_pixels", 7.0, scored) for seed in SEEDS]
    results = made(tmp_path, rows, names=("a", "b", "c"))
    names = {name: about["sampler"] for name, about in results.variants("s").items()}
    results.metrics.loc[results.metrics["metric"] == "fid_pixels", "sampler"] = names["b"]
    rows = results.metrics
    mine = (rows["metric"] == "fid_x8") & (rows["model"] == results.variants("s")["c"]["model"])
    of_b = (rows["metric"] == "fid_x8") & (rows["model"] == results.variants("s")["b"]["model"])
    results.metrics.loc[of_b, "value"] += 0.001 * rows.loc[of_b, "train_seed"]
    # a paired difference of 0.2, 0.3, 0.45 to a: p of about 0.05
    results.metrics.loc[mine, "value"] = [
        5.0 + 0.01 * seed + add for seed, add in zip(rows.loc[mine, "train_seed"], (0.2, 0.3, 0.45))
    ]
    results.metrics = results.metrics.copy()
    table, caption = table_scores(View(results, "s"))
    by = table.set_index("Variant")
    assert by.loc["b", "FID (pixels)"] == "7.00 ± 0" and by.loc["a", "FID (pixels)"] == "-"
    assert not {"CAS", "Density (x8)", "Intra-scale gain (nats/token)"} & set(table.columns)
    assert by.loc["b", "Any-order bound (nats/token)"] == "2.50 ± 0" and "NFE" in table
    assert by.loc[["a", "b", "c"], "Verdict"].tolist() == ["", "higher", "higher"]
    p = results.difference("c", "s", "fid_x8").p
    assert 0.04 < p < 0.05, "alone it is decided; the second of two tests may have 0.05"
    assert by.loc[["b", "c"], "Verdict after Holm, this table"].tolist() == ["higher", "higher"]
    results.suite("s")["tables"] = ["scores", "costs"]
    table, caption = table_scores(View(results, "s"))
    assert "NFE" not in table and "Losses and costs: table costs." in caption
    table, _ = table_costs(View(results, "s"))
    assert (
        table["Any-order bound (nats/token)"].tolist() == ["-", "2.50 ± 0", "-"] and "NFE" in table
    )


def test_a_caption_warns_of_noise_where_a_claim_is_of_fid(tmp_path):
    """Catches the word about FID where none is claimed, and its absence where one is."""
    for metric, warned in (("fid", True), ("kid", True), ("precision", False)):
        results = made(tmp_path / metric, claims=[asked(metric=metric)])
        assert (NOISE in claim_details(View(results, "s"))) == warned, metric
