"""The room that holds reshaped spectra against temperature and guidance: its metric, its jobs, its
rules, its figures."""

import importlib
import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from small_study import build

from bench.experiments.diversity import judges
from bench.experiments.diversity.frontier import best_at, hull
from bench.experiments.diversity.show import (
    figure_diversity_wall,
    figure_frontier,
    figure_spectra,
    judge_frontier,
    judge_gain,
    judge_keeps,
    table_diversity,
)
from bench.experiments.diversity.verb import spectra
from bench.pipeline import collect
from bench.pipeline.labels import in_shares
from bench.pipeline.metrics import metric_spread
from bench.pipeline.set_distances import distance_within, spread_within
from bench.report.claims import no_worse
from bench.report.estimate import Estimate, estimate
from bench.report.results import Results
from bench.report.view import View
from bench.runtime.rows import METRIC_COLUMNS, read_rows
from bench.runtime.verb import main
from bench.runtime.verbs import stages
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.variants import variants_of
from srdd.diversity import reweight, spectrum
from srdd.noise import generator
from srdd.schedule import ScaleSchedule
from srdd.tokenizer_checkpoint import load_tokenizer

# ---------------------------------------------------------------- spread inside classes


def features(count, dim=4, name="features"):
    return torch.randn(count, dim, generator=generator(name), dtype=torch.float64)


def test_distance_within_is_the_mean_over_pairs(monkeypatch):
    x_ND = features(7)
    pairs = [(x_ND[i] - x_ND[j]).norm() for i, j in itertools.permutations(range(7), 2)]
    expected = float(torch.stack(pairs).mean())
    assert distance_within(x_ND) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("bench.pipeline.set_distances.BLOCK", 14)  # two rows at a time
    assert distance_within(x_ND) == pytest.approx(expected, rel=1e-12)
    assert distance_within(x_ND[:1].repeat(3, 1)) == 0


def test_a_class_of_one_image_has_no_spread():
    labels_N = torch.tensor([0, 0, 1, 2, 2, 2])
    found = spread_within(features(6), labels_N)
    assert found.keys() == {0, 2}


def scored(generated_ND, labels_N, real_ND, real_N):
    images = SimpleNamespace() if real_N is None else SimpleNamespace(labels_N=real_N)
    return SimpleNamespace(
        exact=(real_ND, generated_ND), labels_N=labels_N, reference=SimpleNamespace(images=images)
    )


def test_spread_of_scaled_real_images_is_their_scale():
    real_ND, real_N = features(40), np.arange(40) % 4
    value = metric_spread(scored(0.5 * real_ND, real_N, real_ND, real_N))
    assert value == {"spread": pytest.approx(0.5)}
    # classes apart from one another add nothing
    apart_ND = real_ND + 100.0 * torch.from_numpy(real_N)[:, None]
    same = metric_spread(scored(0.5 * apart_ND, real_N, apart_ND, real_N))
    assert same["spread"] == pytest.approx(0.5)
    # a class that one side lacks counts on neither
    few = metric_spread(scored(0.5 * real_ND[real_N != 3], real_N[real_N != 3], real_ND, real_N))
    assert few["spread"] == pytest.approx(0.5)


def test_spread_has_no_value_where_there_is_none():
    x_ND, labels_N = features(8), np.arange(8) % 2
    assert metric_spread(scored(x_ND, labels_N, x_ND, None)) == {}
    assert metric_spread(scored(x_ND, None, x_ND, labels_N)) == {}
    for place in range(8):
        alike_ND = 100 * x_ND[place].repeat(8, 1)
        assert metric_spread(scored(x_ND, labels_N, alike_ND, labels_N)) == {}
    assert metric_spread(scored(2 * x_ND, None, x_ND, None)) == {"spread": pytest.approx(2.0)}
    # as the held-out images of a set without classes are stored
    stored_N = np.zeros(8, np.int64)
    assert metric_spread(scored(2 * x_ND, None, x_ND, stored_N)) == {"spread": pytest.approx(2.0)}


# ---------------------------------------------------------------- the best of a sweep

SHARE = st.integers(0, 20).map(lambda n: n / 20)
POINTS = st.lists(st.tuples(SHARE, SHARE), min_size=1, max_size=8)


def by_all_pairs(points, precision):
    """The highest point at this precision or above on a line between any two settings."""
    heights = [y for x, y in points if x >= precision]
    for (x, y), (a, b) in itertools.permutations(points, 2):
        if x <= precision <= a and x < a:
            heights.append(y + (b - y) * (precision - x) / (a - x))
    return max(heights, default=None)


@given(POINTS, SHARE)
def test_the_best_of_a_sweep_is_the_best_of_all_pairs(points, precision):
    named = {str(i): point for i, point in enumerate(points)}
    best, expected = best_at(named, precision), by_all_pairs(points, precision)
    if expected is None:
        assert best is None
        return
    assert best.of({name: y for name, (_, y) in named.items()}) == pytest.approx(expected)
    assert best.of({name: x for name, (x, _) in named.items()}) >= precision - 1e-9
    assert 0 <= best.share <= 1 and best.slope <= 0


def test_hull_by_hand():
    points = {"a": (0.9, 0.2), "b": (0.8, 0.5), "c": (0.7, 0.6), "d": (0.6, 0.55), "e": (0.8, 0.3)}
    assert hull(points) == ["c", "b", "a"]
    assert best_at(points, 0.95) is None
    mixed = best_at(points, 0.85)
    assert (mixed.first, mixed.second) == ("b", "a") and mixed.share == pytest.approx(0.5)
    assert mixed.slope == pytest.approx(-3.0)
    assert best_at(points, 0.5).first == "c"


# ---------------------------------------------------------------- rules

WEAK = {"svd_in": 1.0, "svd_out": 0.0, "svd_scales": [1], "svd_norm": "energy"}
OFF = {"svd_in": 0.0, "svd_out": 0.0, "svd_scales": None, "svd_norm": "energy"}
SWEEP = {"w 1": (0.90, 0.70), "w 2": (0.95, 0.50), "w 3": (0.97, 0.30)}
CLAIM = {"text": "t", "origin": "ours", "metric": "recall", "better": "higher"}


def viewed(folder, groups, points, models=None):
    """A small study: groups of variants; precision and recall of the first half, the second and all
    of the sample seeds, recall a little apart in each training seed."""
    names = [name for members in groups.values() for name in members]
    view, rows = View(Results.load(build(folder, names)), "s"), []
    for group, members in groups.items():
        for name in members:
            about = view.variants[name]
            about |= {"group": group, "sampler": f"s-{name}"}
            about["model"] = (models or {}).get(name, "m-0")
            about["settings"]["sampler"] |= OFF if group.startswith("sweep") else WEAK
            rows += rows_of(about, points[name])
    view.results.metrics = pd.concat([view.results.metrics, pd.DataFrame(rows)], ignore_index=True)
    return view


def rows_of(about, points):
    """points: one for all sample seeds, or one of each half."""
    halves = points if isinstance(points, list) else [points, points]
    whole = tuple(np.mean(halves, 0))
    for span, seed in itertools.product(range(3), range(3)):
        first, last = ((0, 99), (100, 199), (0, 199))[span]
        precision, recall = (*halves, whole)[span]
        for metric, value in (
            ("precision", precision),
            ("recall", recall * (0.99 + 0.01 * seed)),
        ):
            yield {
                "study": "x", "metric": f"{metric}_x8", "value": value, "train_seed": float(seed),
                "seed_first": first, "seed_last": last, "num_images": 1 + last - first,
                "unit": "share", "run_id": f"sample/v0-{seed}", "tokenizer": about["tokenizer"],
                "model": about["model"], "sampler": about["sampler"],
            }  # fmt: skip


def asked(rule, variant="SSR", against="sweep", **more):
    return {**CLAIM, "rule": rule, "variant": variant, "against": against, **more}


@pytest.mark.parametrize("mine, word, height", [
    ((0.93, 0.62), "yes", 0.04), ((0.93, 0.54), "no", -0.04), ((0.85, 0.72), "yes", 0.02),
])  # fmt: skip
def test_frontier_is_the_height_above_the_line(tmp_path, mine, word, height):
    """At precision .93 the sweep's line from (.90, .70) to (.95, .50) stands at .58; below .90 its
    most diverse setting is more precise too."""
    groups = {"sweep": list(SWEEP), "SSR": ["mine"]}
    view = viewed(tmp_path, groups, {**SWEEP, "mine": mine})
    verdict = judge_frontier(view, asked("frontier"))
    assert verdict[0] == word and verdict.difference.mean == pytest.approx(height)
    assert "mine" in verdict[1] and "tuned on half" in verdict[1]


def test_frontier_chooses_on_one_half_and_scores_on_the_other(tmp_path):
    """Catches a setting that is scored on the images that chose it: `lucky` leads on the first half
    alone, and the one that leads on the second is not taken."""
    points = {**SWEEP, "lucky": [(0.93, 0.70), (0.93, 0.50)], "late": [(0.93, 0.5), (0.93, 0.8)]}
    view = viewed(tmp_path, {"sweep": list(SWEEP), "SSR": ["lucky", "late"]}, points)
    verdict = judge_frontier(view, asked("frontier"))
    assert verdict[0] == "no" and verdict.difference.mean == pytest.approx(0.50 - 0.58)
    assert "lucky" in verdict[1] and "late" not in verdict[1]


def test_frontier_pays_for_precision_that_is_lost_on_the_other_half(tmp_path):
    """A variant that falls in precision between the halves is held against the sweep there: the
    line's slope is -4."""
    points = {**SWEEP, "mine": [(0.93, 0.62), (0.92, 0.62)]}
    view = viewed(tmp_path, {"sweep": list(SWEEP), "SSR": ["mine"]}, points)
    verdict = judge_frontier(view, asked("frontier"))
    assert verdict.difference.mean == pytest.approx(0.62 - (0.58 + 4 * 0.01))
    assert verdict[0] != "yes"


def test_frontier_says_nothing_beyond_the_precision_of_the_sweep(tmp_path):
    view = viewed(tmp_path, {"sweep": list(SWEEP), "SSR": ["mine"]}, {**SWEEP, "mine": (0.99, 0.9)})
    word, reason = judge_frontier(view, asked("frontier"))
    assert word == "not decided" and "as precise" in reason


def test_gain_is_over_the_same_sampler_without(tmp_path):
    groups = {"sweep": ["plain", "plain SDD"], "SSR": ["on", "on SDD"]}
    points = {"plain": (0.9, 0.5), "on": (0.9, 0.6), "plain SDD": (0.9, 0.3), "on SDD": (0.9, 0.35)}
    models = {"plain SDD": "m-1", "on SDD": "m-1"}
    view = viewed(tmp_path, groups, points, models)
    assert judges.plain_of(view, "on SDD") == "plain SDD"
    verdict = judge_gain(view, asked("gain", "on", "on SDD"))
    assert verdict[0] == "yes" and verdict.difference.mean == pytest.approx(0.1 - 0.05)
    assert judge_gain(view, asked("gain", "on SDD", "on"))[0] == "no"


@pytest.mark.parametrize("mean, half, lower, word", [
    (0.0, 0.005, False, "yes"), (-0.004, 0.005, False, "yes"), (0.3, 0.1, False, "yes"),
    (-0.02, 0.005, False, "no"), (-0.01, 0.005, False, "not decided"),
    (0.0, 0.1, False, "not decided"),
    (0.02, 0.005, True, "no"), (-0.02, 0.005, True, "yes"), (0.0, None, False, "not decided"),
])  # fmt: skip
def test_no_worse_by_the_end_of_the_interval(mean, half, lower, word):
    judgement = no_worse(Estimate(mean, half, 3), 0.01, lower, "")
    assert judgement[0] == word and judgement.difference.mean == mean
    assert no_worse(Estimate(mean, half, 2), 0.01, lower, "")[0] == "not decided"


def test_no_worse_is_tested_against_its_margin():
    """Catches a verdict that Holm's correction never sees, and the p-value of a difference of 0."""
    values = [-0.004, -0.001, 0.002, -0.002]
    judgement = no_worse(estimate(values), 0.01, False, "")
    assert judgement[0] == "yes"
    assert judgement.p == pytest.approx(ttest_1samp(values, -0.01).pvalue)
    of_costs = no_worse(estimate(np.negative(values)), 0.01, True, "")
    assert of_costs[0] == "yes" and of_costs.p == pytest.approx(judgement.p)


def test_keeps_reads_the_margin_of_the_suite(tmp_path):
    points = {"plain": (0.9, 0.5), "on": (0.9, 0.48)}
    view = viewed(tmp_path, {"sweep": ["plain"], "SSR": ["on"]}, points)
    claim = asked("keeps", "on", "plain")
    assert judge_keeps(view, claim)[0] == "no"
    view.about["diversity"] = {"margin": 0.05}
    word, reason = judge_keeps(view, claim)
    assert word == "yes" and "0.05" in reason


# ---------------------------------------------------------------- plan

SMALL = {
    "patch_nums": [1, 2, 4], "codebook_size": 16, "codebook_dim": 4, "channels": 8,
    "channel_multipliers": [1, 1], "num_res_blocks": 1, "attention": False, "norm_groups": 4,
}  # fmt: skip
BASE = {
    "tokenizer": {"config": SMALL, "training": {"steps": 12, "warmup": 2, "batch_size": 32}},
    "model": {"depth": 2, "width": 16, "heads": 2, "init_gamma": 1.0, "class_dropout": 0.1},
    "training": {"steps": 12, "warmup": 2, "batch_size": 16, "eval_every": 12},
    "sampler": {"cfg_scale": 2.0},
}
SUITE = {
    "claim": "c",
    "measure": ["sweep", "diversity"],
    "sweep": {"thresholds": [0.1]},
    "diversity": {"num_images": 100, "shown": ["sweep, temperature 1.0", "SSR, svd_in 1.0"]},
    "variants": {
        "sweep": {"base": "var", "grid": {"sampler.temperature": [1.0, 1.3]}},
        "SSR": {
            "base": "var",
            "delta": {"sampler.svd_scales": [1, 2]},
            "grid": {"sampler.svd_in": [1.0, 3.0]},
        },
        "SAR": {"base": "var", "delta": {"sampler.svd_out": 1.0}},
    },
    "figures": ["frontier", "spectra", "diversity_wall"],
    "tables": ["diversity"],
}
SAID = {"text": "t", "rule": "frontier", "metric": "recall", "variant": "SSR", "against": "sweep"}


def planned(tmp_path, **changes):
    """The plan of a small study; changes: dotted keys of its suite."""
    suite = json.loads(json.dumps(SUITE))
    study = {
        "study": "div", "train_seeds": [0],
        "dataset": {"name": "digits", "image_size": 8, "channels": 1, "num_classes": 10,
                    "val_share": 0.05, "test_share": 0.2, "train_images": 200},
        "features": {"kind": "trained", "name": "digits16", "dim": 16, "channels": 8, "steps": 20,
                     "batch_size": 64},
        "evaluation": {"num_images": 200, "batch_size": 50,
                       "metrics": ["fidelity", "density_coverage", "class_agreement"]},
        "bases": {"var": BASE}, "suites": {"d": suite},
    }  # fmt: skip
    for key, value in changes.items():
        node = study if key.startswith("evaluation") else suite
        *parents, last = key.split(".")
        for parent in parents:
            node = node[parent]
        node[last] = value
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return load_study(path)


def names_of(plan, stage):
    return sorted(run_id for run_id in plan.jobs if run_id.startswith(f"{stage}/"))


def test_one_job_a_model_and_names_hold_what_is_drawn(tmp_path):
    plan = planned(tmp_path)
    (job,), (sweep,) = (names_of(plan, stage) for stage in ("diversity", "sweep"))
    assert len(plan.jobs[job].config["samplers"]) == 2
    assert len(plan.jobs[sweep].config["samplers"]) == 5
    margin = planned(tmp_path, **{"diversity.margin": 0.05})
    assert names_of(margin, "diversity") == [job], "a rule's margin draws nothing"
    more = planned(tmp_path, **{"diversity.shown": ["SSR, svd_in 3.0"]})
    assert names_of(more, "diversity") != [job] and names_of(more, "sweep") == [sweep]


@pytest.mark.parametrize("changes, words", [
    ({"diversity.shown": ["nobody"]}, "diversity.shown: 'nobody' is no variant of this suite"),
    ({"diversity.shown": ["SAR", "SAR"]}, "shown"),
    ({"diversity.num_images": 500}, "diversity.num_images: 500: a training draws 200 images"),
    ({"diversity.num_images": 5}, "diversity.num_images"),
    ({"diversity.margin": 0.0}, "diversity.margin"),
    ({"diversity.shown": ["SAR"]}, "figures: 'spectra' needs a shown variant with sampler.svd_in"),
    ({"measure": ["sweep"]}, "figures: 'spectra' needs measure diversity"),
    (
        {"variants.SAR.delta": {"model.head": "gauss", "sampler.name": "gauss"}},
        "SAR.model.head: 'gauss' predicts no codes, and measure diversity asks for theirs",
    ),
    ({"variants.SAR.delta": {"sampler.svd_out": -1.0}}, "svd_out"),
    ({"variants.SAR.delta": {"sampler.svd_norm": "unit"}}, "svd_norm"),
    ({"variants.SAR.delta": {"sampler.svd_in": 1.0, "sampler.svd_scales": [0, 1]}},
     "svd_scales [0, 1]: scale 0 reads no state"),
    ({"variants.SAR.delta": {"sampler.svd_in": 1.0, "sampler.svd_scales": [3]}},
     "svd_scales [3]: the schedule has scales 0 to 2"),
    ({"claims": [{**SAID, "metric": "precision"}]}, "metric: 'precision': rule frontier holds"),
    ({"claims": [{**SAID, "variant": "SSR, svd_in 1.0"}]}, "compares entries"),
    ({"claims": [SAID], "evaluation.num_images": 150, "evaluation.metrics": ["fidelity"]},
     "tunes on one half of the images"),
    ({"claims": [SAID], "evaluation.metrics": ["density_coverage"], "tables": []},
     "fidelity"),
    ({"claims": [{**SAID, "rule": "gain", "variant": "sweep, temperature 1.0",
                  "against": "SSR, svd_in 1.0"}]}, "reshapes nothing"),
    ({"claims": [{**SAID, "rule": "gain", "variant": "SAR", "against": "SSR, svd_in 1.0"}],
      "variants.SAR.delta": {"sampler.svd_out": 1.0, "sampler.cfg_scale": 3.0}},
     "rule gain needs the same sampler with svd_in 0"),
    ({"claims": [{**SAID, "rule": "keeps", "variant": "SSR", "against": "SAR"}]}, "is a grid"),
])  # fmt: skip
def test_bad_input_is_one_line_before_any_work(tmp_path, changes, words):
    with pytest.raises(ConfigError) as refused:
        planned(tmp_path, **changes)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_settings_that_nothing_reads_are_said(tmp_path):
    idle = {"sampler.svd_scales": [1], "sampler.temperature": 0.9}
    plan = planned(tmp_path, **{"variants.SAR.delta": idle})
    said = [line for line in plan.warnings if "svd_scales: is not read" in line]
    assert len(said) == 1 and "variants.SAR" in said[0]


# ---------------------------------------------------------------- the verb


STAGES = (
    *("prepare", "features", "tokenizer", "encode"),
    *("baselines", "train", "sweep", "diversity"),
)


class Made:
    """The small study in a folder: every job of it, in this process."""

    def __init__(self, root):
        self.root, self.plan = root, planned(root)
        for stage in STAGES:
            for run_id in names_of(self.plan, stage):
                self.run(run_id)

    def run(self, run_id):
        job, path = self.plan.jobs[run_id], self.root / "configs" / f"{run_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"study": "div", "run_id": run_id, "identity": job.identity, "inputs": job.inputs}
        path.write_text(json.dumps({**about, "config": job.config}))
        verb = stages()[job.stage]
        given = ((f"--{role}", self.root / needed) for role, needed in job.inputs.items())
        inputs = itertools.chain.from_iterable(given)
        words = [path, self.root / run_id, *inputs, "--threads", "1", "--device", "cpu"]
        work = importlib.import_module(verb.module).work
        with pytest.raises(SystemExit) as left:
            main(verb.name, work, tuple(job.inputs), [*map(str, words)])
        assert left.value.code == 0, run_id

    def folder(self, stage):
        (run_id,) = names_of(self.plan, stage)
        return self.root / run_id

    def results(self, out):
        """As the workflow collects them."""
        study, told = json.loads(self.plan.study.model_dump_json()), self.plan.told_of("d")
        keys = ("claim", "claims", "measure", "figures", "tables")
        suite = {key: study["suites"]["d"][key] for key in keys} | told
        suite |= {"train_seeds": [0], "variants": variants_of(self.plan, "d")}
        suite["runs"] = self.plan.jobs_of("d")
        shared = ("reduced", "evaluation", "features", "dataset", "train_seeds", "tokenizer_seed")
        plan = {"study": "div", "scope": None, "suites": {"d": suite}}
        plan |= {key: study[key] for key in shared}
        plan["folders"] = {run_id: str(self.root / run_id) for run_id in self.plan.jobs}
        out.mkdir()
        (out / "plan.json").write_text(json.dumps(plan))
        collect.collect(out / "plan.json", out)
        return View(Results.load(out), "d")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("diversity"))


def test_the_verb_reports_spectra_spread_and_a_wall(made):
    rows = read_rows(made.folder("diversity") / "metrics.csv", METRIC_COLUMNS)
    by_metric = {}
    for row in rows:
        by_metric.setdefault(row["metric"], []).append(row)
    firsts = [float(row["value"]) for row in by_metric["spectrum_drawn_1"]]
    assert len(firsts) == 2 * 2 and all(value == pytest.approx(1) for value in firsts)
    # at 2x2 tokens of four channels a map has four values; the reshaped one has all of them too
    assert {"spectrum_real_4", "spectrum_drawn_4", "spectrum_read_4"} <= by_metric.keys()
    assert len(by_metric["spectrum_read_2"]) == 2, "of the one sampler that reads a reshaped state"
    assert all(row["sampler"] == "" for row in by_metric["spectrum_real_2"])
    assert len(by_metric["spread_digits16"]) == 2
    assert all(float(row["value"]) > 0 for row in by_metric["spread_digits16"])
    with np.load(made.folder("diversity") / "strip.npz") as strip:
        assert len(strip.files) == 2
        assert all(strip[name].shape == (12, 1, 8, 8) for name in strip.files)


def test_probabilities_of_a_reshaped_state_are_not_those_of_teacher_forcing(made):
    """The sweep reports how probable drawn tokens were: not where the network read another
    state."""
    rows = read_rows(made.folder("sweep") / "metrics.csv", METRIC_COLUMNS)
    (job,) = names_of(made.plan, "sweep")
    entries = made.plan.jobs[job].config["samplers"]
    plain = {
        entry["name"] for entry in entries if not {"svd_in", "svd_out"} & entry["sampler"].keys()
    }
    assert len(plain) == 2 and len(entries) == 5
    assert {row["sampler"] for row in rows if row["metric"] == "drawn_below_0.1"} == plain


def test_real_spectra_are_those_of_held_out_tokens(made):
    tokenizer = load_tokenizer(made.folder("tokenizer") / "tokenizer.safetensors")
    ladder = tokenizer.at(ScaleSchedule((1, 2, 4)))
    labels_N = np.load(made.folder("prepare") / "test_labels.npy")
    rows_n = in_shares(labels_N, 100)
    tokens_NL = np.load(made.folder("encode") / "test_tokens.npy")[rows_n].astype(np.int64)
    assert rows_n.tolist() != list(range(100)), "the first of a folder are of its first classes"
    rows = read_rows(made.folder("diversity") / "metrics.csv", METRIC_COLUMNS)
    maps = spectra(ladder, torch.from_numpy(tokens_NL))
    assert maps.keys() == {1, 2}
    for row in rows:
        if row["metric"].startswith("spectrum_real_"):
            i, k = int(row["metric"].rsplit("_", 1)[1]), int(float(row["scale"]))
            values = torch.linalg.svdvals(maps[k].double())
            expected = (values[:, i - 1] / values[:, 0]).mean().item()
            assert float(row["value"]) == pytest.approx(expected, abs=1e-6)
    reshaped = spectrum(reweight(maps[2], 1.0, True)).mean(0)
    assert reshaped[1] > spectrum(maps[2]).mean(0)[1], "suppression flattens"


def test_figures_and_table_show_what_was_measured(made, tmp_path):
    view = made.results(tmp_path / "out")
    for draw in (figure_frontier, figure_spectra, figure_diversity_wall):
        figure, caption = draw(view)
        figure.canvas.draw()
        words = " ".join(item.get_text() for item in figure.findobj(plt.Text))
        assert "not measured" not in words and "missing" not in words and caption.text
        if draw is figure_frontier:
            said = {words.get_text() for words in figure.legends[0].get_texts()}
            assert {"sweep: temperature 1, 1.3", "SSR: svd_in 1, 3", "SAR"} <= said
            lines = figure.axes[0].lines
            marks = [line for line in lines if line.get_marker() == lines[0].get_marker()]
            sizes = [line.get_markersize() for line in marks if len(line.get_xdata())]
            assert len(sizes) == 2 and sizes[0] < sizes[1], "symbols grow along the setting"
            assert "interval over the training seeds" not in caption.whole
        plt.close(figure)
    table, _ = table_diversity(view)
    assert set(table["Status"]) == {"ok"} and len(table) == 5
    assert (table["Spread"] != "-").sum() == 2, "of the variants that are shown"


def test_scores_that_no_variant_has_are_not_named(made, tmp_path):
    """Catches captions and empty panels of class agreement where nothing has classes."""
    results = made.results(tmp_path / "out").results
    of_classes = results.metrics["metric"].str.startswith(("class_agreement", "coverage"))
    view = View(replace(results, metrics=results.metrics[~of_classes]), "d")
    figure, caption = figure_frontier(view)
    assert len(figure.axes) == 1
    plt.close(figure)
    assert caption.text.startswith("Recall against precision, a symbol")
    table, said = table_diversity(view)
    assert "Class agreement" not in table and "class agreement" not in said.text
    added = table.set_index("Variant")["Recall added"]
    assert added["SSR, svd_in 1.0"] and not added["sweep, temperature 1.0"]
    claim = {**CLAIM, "rule": "frontier", "variant": "SSR", "against": "sweep"}
    assert judge_frontier(view, claim)[0] == "not decided"  # one training seed


def test_spectra_and_images_that_are_missing_have_a_reason(made, tmp_path):
    """Catches a panel `not measured`, and a row without images, of a training that failed."""
    whole = made.results(tmp_path / "out").results
    failed, runs = whole.runs["stage"] != "prepare", whole.runs.copy()
    runs.loc[failed, ["status", "reason"]] = ["oom", "no room"]
    empty = whole.metrics.iloc[:0]
    (tmp_path / "none").mkdir()
    np.savez(tmp_path / "none" / "images.npz")
    about = {**whole.about, "images_sha256": None}
    results = Results(tmp_path / "none", empty, runs, about, whole.variants_of)
    for draw in (figure_spectra, figure_diversity_wall):
        figure, _ = draw(View(results, "d"))
        assert "oom (no room)" in " ".join(figure._suptitle.get_text().split())
        plt.close(figure)
    table, _ = table_diversity(View(results, "d"))
    assert all(status.startswith("seed 0 oom") for status in table["Status"])
