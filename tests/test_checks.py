"""What a study asks for and cannot get is refused before any work; what it hardly means is said."""

import subprocess
import sys
from contextlib import nullcontext
from itertools import chain, product
from pathlib import Path

import pytest
from test_config import BARE, edited, grid

from bench.experiments.representation import plan as representation
from bench.study import checks, rooms
from bench.study.checks import enough_images, few_for_features, needs_of
from bench.study.entries import check_one_value, entries_of
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.schema import Suite, SuiteEntry
from bench.study.scores import better
from bench.study.settings import FeaturesConfig, TrainingConfig
from bench.study.tokenizer_settings import TokenizerTraining
from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.lookup import names_in
from workflow import snakemake

ROOT = Path(__file__).resolve().parent.parent
BASE, MAIN = "bases/var", "suites/main"
CLAIMS = f"{MAIN}/claims"
LITE0 = {"kind": "pretrained", "network": "efficientnet_lite0"}
INCEPTION = {"kind": "inception", "name": "inception"}


def measured(*measures, **keys):
    """Changes of the suite main: other measures, and nothing that they cannot feed but what is
    given."""
    return {
        **BARE,
        f"{MAIN}/measure": list(measures),
        **{f"{MAIN}/{key}": value for key, value in keys.items()},
    }


def claimed(**keys):
    return {
        f"{MAIN}/claims": [{"text": "one is better", "variant": "SDD", "against": "VAR", **keys}]
    }


MR = {"model.mask_prob": 0.5, "sampler.name": "srdd"}


def resampled(values, **more):
    """The suite main with a grid of mask resampling and a heat map."""
    entry = {"base": "var", "delta": {**MR, **more}, "grid": values}
    return measured("sweep", figures=["heat_maps"], variants={"VAR": {"base": "var"}, "MR": entry})


BAD = {
    # sizes that do not fit, and trainings that end before they begin
    "one code": (
        {f"{BASE}/tokenizer/config/codebook_size": 1},
        ["tokenizer.config.codebook_size", "2", "got 1"],
    ),
    "one code of a model": ({f"{BASE}/model/codebook_size": 1}, ["model.codebook_size", "1", "16"]),
    "side of a billion": (
        {f"{BASE}/tokenizer/config/patch_nums": [1, 10**9]},
        ["patch_nums", "1000000000", "1024"],
    ),
    "image of a billion": ({"dataset/image_size": 10**9}, ["dataset.image_size", "8192"]),
    "no class learned": (
        {f"{BASE}/model/class_dropout": 1.0},
        ["model.class_dropout", "less than 1", "1.0"],
    ),
    "nothing left of a layer": (
        {f"{BASE}/tokenizer/config/dropout": 1.0},
        ["config.dropout", "less than 1"],
    ),
    "groups of the features": (
        {"features/channels": 12},
        ["features.channels", "multiple of 8", "12"],
    ),
    "groups of the tokenizer": (
        {f"{BASE}/tokenizer/config/norm_groups": 3},
        ["channels 8", "norm_groups 3"],
    ),
    "no hidden unit": ({f"{BASE}/model/mlp_ratio": 0.01}, ["mlp_ratio 0.01", "width 16"]),
    "warm-up without end": (
        {f"{BASE}/training/warmup": 500},
        ["training", "warmup 500", "steps 12", "less than 12"],
    ),
    "warm-up to the last step": ({f"{BASE}/training/warmup": 12}, ["warmup 12", "steps 12"]),
    "warm-up of a tokenizer": (
        {f"{BASE}/tokenizer/training/warmup": 50},
        ["tokenizer", "warmup 50", "steps 12"],
    ),
    "warm-up of a student": (
        {f"{BASE}/training/warmup": 10},
        ["distillation", "warmup 10", "steps 8"],
    ),
    "negative seed": (
        {"train_seeds": [-1]},
        ["train_seeds[0]", "greater than or equal to 0", "-1"],
    ),
    "seed that loses digits": ({"train_seeds": [2**53]}, ["train_seeds[0]", "2147483647"]),
    "first seed beyond": (
        {"evaluation/first_seed": 10**30},
        ["evaluation.first_seed", "2147483647"],
    ),
    "temperature of nothing": (
        {f"{BASE}/sampler/temperature": 1e-300},
        ["sampler.temperature", "0.001"],
    ),
    "no mass": ({f"{BASE}/sampler/top_p": 0.0}, ["sampler.top_p", "greater than 0"]),
    "scales twice": (
        {f"{BASE}/sampler/refine_scales": [1, 1]},
        ["refine_scales [1, 1]", "each once"],
    ),
    "batch size twice": (
        {"latency/batch_sizes": [2, 2]},
        ["latency", "batch_sizes [2, 2]", "stands twice"],
    ),
    "two thresholds of one name": (
        {f"{MAIN}/sweep": {"thresholds": [0.1, 0.10000001]}},
        ["sweep", "thresholds", "0.1 stands twice"],
    ),
    "figure twice": (
        {f"{MAIN}/figures": ["fid", "fid"]},
        ["suites.main", "figures", "fid stands twice"],
    ),
    "study with a path in its name": ({"study": "a/b"}, ["study", "'a/b'"]),
    "suite of a long name": (
        {"suites/" + "x" * 61: {"claim": "x", "variants": {"a": {"base": "var"}}}},
        ["suites.xxx", "60"],
    ),
    "schedule of a long name": (
        {f"{BASE}/tokenizer/config/patch_nums": list(range(1, 101)), "dataset/image_size": 200},
        ["patch_nums", "100 scales", "fewer"],
    ),
    "variants without end": (
        grid({f"sampler.{key}": list(range(2, 40)) for key in ("top_k", "cfg_scale")}),
        ["1,44", "1000"],
    ),
    # claims
    "metric misspelt": (
        claimed(metric="recal"),
        ["suites.main.claims.metric", "'recal'", "did you mean 'recall'"],
    ),
    "metric in capitals": (claimed(metric="FID"), ["claims.metric", "'FID'", "write 'fid'"]),
    "metric with its extractor": (
        claimed(metric="fid_digits16"),
        ["claims.metric", "'fid_digits16'", "write 'fid'", "digits16"],
    ),
    "metric that is not measured": (
        {**claimed(metric="class_agreement"), "evaluation/metrics": ["fidelity"]},
        ["claims.metric", "'class_agreement'", "add class_agreement to evaluation.metrics"],
    ),
    "metric of another rule": (
        claimed(metric="elbo_relative_gap"),
        ["claims.metric", "elbo_relative_gap", "fid"],
    ),
    "better the wrong way": (
        claimed(metric="is", better="lower"),
        ["claims.better", "'lower'", "of is higher is better"],
    ),
    "worse claimed of fid": (
        claimed(better="higher"),
        ["claims.better", "'higher'", "of fid lower is better"],
    ),
    "with itself": (claimed(against="SDD"), ["claims", "'SDD'", "itself"]),
    "time without latency": (
        claimed(rule="latency"),
        ["claims.rule", "'latency' needs measure latency", "scores"],
    ),
    "memory without latency": (
        claimed(rule="memory"),
        ["claims.rule", "'memory' needs measure latency"],
    ),
    "a gap without equivalence": (
        claimed(rule="equal"),
        ["claims.rule", "'equal' needs measure equivalence"],
    ),
    "tuned without halves": (claimed(rule="tuned"), ["claims.rule", "'tuned' needs measure sweep"]),
    "score of times": (
        measured("latency", **{"claims": claimed()[f"{MAIN}/claims"]}),
        ["claims.rule", "'score'", "latency, memory"],
    ),
    "equal without a gap": (
        {
            "suites/equivalence/claims": [
                {"text": "x", "rule": "equal", "variant": "SDD", "against": "VAR"}
            ]
        },
        ["suites.equivalence.claims.metric", "'fid'", "elbo_relative_gap"],
    ),
    "a metric that no clock reads": (
        {
            "suites/latency/claims": [
                {"text": "x", "rule": "latency", "variant": "SDD", "against": "VAR", "metric": "is"}
            ]
        },
        ["suites.latency.claims.metric", "'is'", "reads none"],
    ),
    "memory of a score": (
        {
            "suites/latency/claims": [
                {"text": "x", "rule": "memory", "variant": "SDD", "against": "VAR", "metric": "is"}
            ]
        },
        ["suites.latency.claims.metric", "'is'", "'pipeline' alone"],
    ),
    "near in a direction": (
        claimed(rule="nearer", metric="is", better="higher"),
        ["claims.better", "'higher'", "rule nearer reads none"],
    ),
    "near without scores": (
        measured("latency", **{"claims": claimed(rule="nearer", metric="is")[f"{MAIN}/claims"]}),
        ["claims.rule", "'nearer'", "latency, memory"],
    ),
    "a figure that tunes on few images": (
        {"evaluation/num_images": 150, "suites/guidance/tables": [], "suites/guidance/claims": []},
        ["evaluation.num_images", "150", "suite 'guidance', figures: 'guidance' tunes", "200"],
    ),
    "tuning without halves": (
        {"suites/guidance/sweep": {"halves": False}},
        ["suites.guidance.sweep.halves", "False", "guidance", "true"],
    ),
    "halves of few images": (
        {"evaluation/num_images": 199},
        ["evaluation.num_images", "199", "200"],
    ),
    "a grid as one variant": (
        {"suites/guidance/claims": [{"text": "x", "variant": "SDD", "against": "VAR"}]},
        ["suites.guidance.claims.variant", "'SDD' is a grid", "SDD, cfg_scale 1.0"],
    ),
    "one variant, tuned": (
        {
            "suites/guidance/claims": [
                {
                    "text": "x",
                    "rule": "tuned",
                    "variant": "SDD, cfg_scale 2.0, cfg_ramp linear",
                    "against": "VAR",
                }
            ]
        },
        ["suites.guidance.claims.variant", "rule tuned compares entries"],
    ),
    # features
    "a layer that Inception lacks": (
        {"features": {**INCEPTION, "dim": 100}},
        ["features", "dim 100", "64, 192, 768, 2048"],
    ),
    "Inception is not trained": (
        {"features": {**INCEPTION, "steps": 500}},
        ["features.steps", "500", "kind: trained"],
    ),
    "weights without a sum": (
        {"features": {**INCEPTION, "weights": "w.pth"}},
        ["features.sha256", "missing"],
    ),
    "the sum of no weights": (
        {"features": {**INCEPTION, "sha256": "a" * 64}},
        ["features.sha256", "features.weights"],
    ),
    "classes that nobody knows": (
        {"features": INCEPTION, **claimed(metric="class_agreement")},
        ["claims.metric", "class_agreement", "kind trained"],
    ),
    "a score of final samples alone, tuned": (
        {
            "suites/guidance/claims": [
                {
                    "text": "x",
                    "rule": "tuned",
                    "variant": "SDD",
                    "against": "VAR",
                    "metric": "cas",
                }
            ]
        },
        ["claims.metric", "'cas'", "final samples alone"],
    ),
    "a score of final samples alone, of a sweep": (
        {**measured("sweep"), **claimed(metric="cas")},
        ["claims.metric", "'cas'", "measure scores"],
    ),
    "a score that is not asked for": (
        {"evaluation/metrics": ["fidelity"], **claimed(metric="fid_pixels")},
        ["claims.metric", "'fid_pixels'", "add pixels to evaluation.metrics"],
    ),
    "a score that has no direction": (
        claimed(metric="variance_pixels"),
        ["claims.better", "'variance_pixels'"],
    ),
    "an extractor called like an evaluator": (
        {"features/name": "pixels"},
        ["features.name", "pixels", "another name"],
    ),
    # images
    "few training images": ({"dataset/train_images": 60}, ["dataset.train_images", "60", "100"]),
    "more training images than the set can have": (
        {"dataset/train_images": 1600},
        ["dataset.train_images", "1600", "of digits has at most 1475", "leave it out for all"],
    ),
    "few held-out images": (
        {"dataset/test_share": 0.03},
        [
            "dataset.test_share",
            "test has 54 images and needs 200",
            "in each half of a reference that tunes",
        ],
    ),
    "digits in colour": ({"dataset/channels": 3}, ["dataset.channels", "3", "digits has 1"]),
    "digits made smaller": ({"dataset/image_size": 4}, ["dataset.image_size", "4", "8 pixels"]),
    "a folder without a path": ({"dataset/name": "image_folder"}, ["dataset.path", "missing"]),
    # figures and tables
    "a loss of another tokenizer": (
        {
            **measured("scores", claims=claimed(rule="value", metric="kept_loss_test")[CLAIMS]),
            f"{MAIN}/variants/SDD/delta": {"tokenizer.config.codebook_size": 4},
        },
        ["suites.main.claims.variant", "'SDD'", "tokenizer", "do not compare"],
    ),
    "a loss of other scales": (
        {
            **measured("scores", claims=claimed(rule="same", metric="loss_test", margin=1)[CLAIMS]),
            f"{MAIN}/variants/SDD/delta": {"model.patch_nums": [4]},
        },
        ["suites.main.claims.variant", "'SDD'", "model.patch_nums", "do not compare"],
    ),
    "steps to a loss of other scales": (
        {
            **measured("convergence", claims=claimed(rule="convergence")[CLAIMS]),
            f"{MAIN}/variants/SDD/delta": {"model.patch_nums": [4]},
        },
        ["suites.main.claims.variant", "'SDD'", "model.patch_nums", "do not compare"],
    ),
    "convergence of one look": (
        {f"{MAIN}/figures": ["convergence"]},
        ["suites.main.figures", "'convergence' needs measure convergence", "samples"],
    ),
    "times of nothing": (
        {f"{MAIN}/figures": ["floors"]},
        ["figures", "'floors' needs measure latency"],
    ),
    "images that a sweep deletes": (
        measured("sweep", figures=["samples"]),
        ["figures", "'samples' needs measure scores or convergence", "fid"],
    ),
    "losses without a training": (
        measured("latency", figures=["per_scale"]),
        ["figures", "'per_scale' needs"],
    ),
    "codes without tokens": (
        measured("snr", tables=["tokenizer"]),
        ["tables", "'tokenizer' needs"],
    ),
    "scores of times": (
        measured("latency", tables=["scores"]),
        ["tables", "'scores' needs measure scores or sweep", "latency"],
    ),
    "halves of scores": (
        {f"{MAIN}/tables": ["guidance"]},
        ["tables", "'guidance' needs measure sweep"],
    ),
    "guidance that is off": (
        {**measured("sweep", figures=["guidance"]), f"{BASE}/sampler/cfg_scale": 1.0},
        ["suites.main.figures", "'guidance'", "cfg_scale other than 1"],
    ),
    "students without a grid": (
        measured("sweep", figures=["distillation"]),
        ["figures", "'distillation'", "grid"],
    ),
    "two students at one place": (
        measured(
            "sweep",
            figures=["distillation"],
            variants={
                "VAR": {"base": "var"},
                "VAR few": {
                    "base": "var",
                    "grid": {"model.patch_nums": [[1, 4], [2, 4]], "training.steps": [8, 9]},
                },
            },
        ),
        ["figures", "'distillation'", "'VAR few'", "share a place"],
    ),
    "no heat": (
        measured("sweep", figures=["heat_maps"]),
        ["figures", "'heat_maps'", "refine_steps"],
    ),
    "two variants in one cell": (
        resampled({"sampler.refine_steps": [1, 2], "sampler.cfg_scale": [1.5, 2.0]}),
        ["figures", "'heat_maps'", "'MR'", "share a cell"],
    ),
    "no thresholds": (
        {"suites/refinement/sweep": {}},
        ["suites.refinement.tables", "sweep.thresholds"],
    ),
    "losses of imported weights": (
        {
            f"{MAIN}/variants": {
                "VAR": {"base": "var", "delta": {"weights": {"file": "v.pth", "sha256": "a" * 64}}}
            },
            f"{MAIN}/claims": [],
            f"{MAIN}/train_seeds": [0],
        },
        ["suites.main.figures", "'per_scale'", "imported"],
    ),
    "FID that nobody takes": (
        {"evaluation/metrics": ["class_agreement"]},
        ["suites.main.figures", "'fid' shows FID", "fidelity"],
    ),
    "nothing is measured": (
        {"features": INCEPTION, "evaluation/metrics": ["class_agreement"]},
        ["evaluation.metrics", "class_agreement", "nothing is measured"],
    ),
    # what a study would silently drop, and what no number can be
    "a section that loses its base": (
        {f"{MAIN}/variants/SDD/delta": {"model": {"history": 0}}},
        ["suites.main.variants.SDD.delta.model", "would drop depth", "width", "model.history: 0"],
    ),
    "a tokenizer's section that loses its base": (
        {f"{MAIN}/variants/SDD/delta": {"tokenizer.config": {"codebook_size": 8}}},
        ["delta.tokenizer.config", "would drop", "channels", "tokenizer.config.codebook_size: 8"],
    ),
    "two values of one setting": (
        {f"{MAIN}/variants/SDD/delta": {"sampler": {"cfg_scale": 3.0}, "sampler.cfg_scale": 2.0}},
        ["study.yaml: suites.main.variants.SDD.delta.sampler.cfg_scale: 2.0", "sampler", "gives 3"],
    ),
    "two values of one setting, deep down": (
        {
            f"{MAIN}/variants/SDD/delta": {
                "tokenizer.config.codebook_size": 8,
                "tokenizer": {"config": {"codebook_size": 16}},
            }
        },
        ["SDD.delta.tokenizer.config.codebook_size: 8", "of tokenizer", "gives 16"],
    ),
    "two rules": (
        {f"{MAIN}/variants/SDD/delta": {"sampler.select": "lowest", "sampler.select.name": "all"}},
        ["SDD.delta.sampler.select.name: 'all'", "of sampler.select", "gives 'lowest'"],
    ),
    "two values of a teacher": (
        {
            f"{MAIN}/variants/SDD/delta": {
                "distill": {
                    "arm": "real",
                    "teacher": {
                        "base": "var",
                        "delta": {"sampler": {"cfg_scale": 3.0}, "sampler.cfg_scale": 2.0},
                    },
                }
            }
        },
        ["distill.teacher.delta.sampler.cfg_scale: 2.0", "of sampler", "gives 3"],
    ),
    "a published FID below 0": (
        {f"{MAIN}/published": [{"variant": "VAR", "metric": "fid", "value": -1.0, "source": "s"}]},
        ["published[0]", "-1", "fid", "0 or more"],
    ),
    "a published precision in per cent": (
        {
            f"{MAIN}/published": [
                {"variant": "VAR", "metric": "precision", "value": 83, "source": "s"}
            ]
        },
        ["published[0]", "83", "precision", "a share from 0 to 1"],
    ),
    "a direction that a gap has not": (
        {
            "suites/equivalence/claims": [
                {
                    "text": "t",
                    "rule": "equal",
                    "variant": "SDD",
                    "against": "VAR",
                    "metric": "elbo_relative_gap",
                    "better": "higher",
                }
            ]
        },
        ["suites.equivalence.claims.better", "'higher'", "remove it"],
    ),
    "a study where times lie": ({"study": "benchmarks"}, ["study", "'benchmarks'", "another name"]),
    "a name with what nobody sees": (
        {f"{MAIN}/variants/VAR\u200b": {"base": "var", "delta": {"model.history": 1}}},
        ["VAR\\u200b", "cannot be seen"],
    ),
    # tasks
    "no task": (
        {
            "suites/zero_shot/zero_shot": {
                "inpaint": None,
                "outpaint": None,
                "super_resolution": False,
            }
        },
        ["zero_shot", "no task"],
    ),
    "a box without a token": (
        {"suites/zero_shot/zero_shot": {"inpaint": [0.3, 0.3, 0.35, 0.35]}},
        ["zero_shot.inpaint", "no token of the 4x4 grid"],
    ),
    "a box of all tokens": (
        {"suites/zero_shot/zero_shot": {"outpaint": [0.0, 0.0, 0.99, 1.0]}},
        ["zero_shot.outpaint", "all tokens"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_before_any_work(tmp_path, case):
    """Catches a setting that passes the check and fails, or gives a wrong or empty result, hours
    later."""
    changes, words = BAD[case]
    path = edited(tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        load_study(path)
    text = str(error.value)
    assert text.isprintable() and text.startswith(f"{path}: "), text
    for word in words:
        assert word in text, text


SAID = {
    "a short warm-up": (
        {f"{BASE}/training": {"steps": 12, "batch_size": 16}},
        ["training.warmup", "6 instead of the usual 20", "more)"],
    ),
    "no path to drop": (
        {
            f"{MAIN}/variants/one": {
                "base": "var",
                "delta": {"model.depth": 1, "model.drop_path": 0.5},
            }
        },
        ["suites.main.variants.one", "drop_path", "0.5", "depth 1"],
    ),
    "no scale to refine": (
        {
            f"{MAIN}/variants/none": {
                "base": "var",
                "delta": {**MR, "sampler.refine_steps": 1, "sampler.refine_scales": []},
            }
        },
        ["suites.main.variants.none", "refine_scales", "no scale is refined"],
    ),
    "one token to refine": (
        {
            f"{MAIN}/variants/one": {
                "base": "var",
                "delta": {
                    **MR,
                    "sampler.refine_steps": 2,
                    "sampler.refine_scales": [0],
                    "sampler.select": "static",
                },
            }
        },
        ["suites.main.variants.one", "refine_steps: 2", "no scale is refined", "static"],
    ),
    "a history of all": (
        {f"{MAIN}/variants/all": {"base": "var", "delta": {"model.history": 2}}},
        ["suites.main.variants.all", "history: 2", "all 3 scales"],
    ),
    "no ELBO without noise": (
        {"suites/equivalence/equivalence/eps": [0.2]},
        ["suites.equivalence.equivalence.eps", "[0.2]", "has no 0"],
    ),
    "patience that never ends": (
        {f"{BASE}/training/patience": 3},
        ["training.patience", "3", "12 steps"],
    ),
    "one point of a curve": (
        {f"{BASE}/training/snapshot_every": 12},
        ["convergence", "snapshot_every", "12"],
    ),
    "fewer images than features": (
        {"features/dim": 256},
        ["evaluation.num_images", "200", "256 features"],
    ),
    "fewer tasks than features": (
        {"features/dim": 101},
        ["suites.zero_shot.zero_shot.num_images", "100", "101 features"],
    ),
    "few held-out images for many features": (
        {"features/dim": 400},
        ["dataset", "test 359", "400 features"],
    ),
    "a low layer of Inception": (
        {"features": {**INCEPTION, "dim": 64}},
        ["features.dim", "64", "2048"],
    ),
    "settings of another measure": (
        {f"{MAIN}/zero_shot": {"num_images": 100}},
        ["suites.main.zero_shot", "measure has no zero_shot"],
    ),
    "passes without times": (
        measured("sweep", figures=["refine_steps"]),
        ["suites.main.figures", "add latency"],
    ),
    "a path that digits do not read": (
        {"dataset/path": "/data/digits"},
        ["dataset.path", "/data/digits"],
    ),
    "a group of images that lie in no files": (
        {"dataset/group": "(a)"},
        ["dataset.group", "(a)", "digits is no folder of images"],
    ),
    "borders of images that are not cut": (
        {"dataset/crop": False},
        ["dataset.crop", "False", "digits is no folder of images"],
    ),
    "a grid over its own delta": (
        {
            **grid({"sampler.cfg_scale": [1.0, 2.0]}),
            f"{MAIN}/variants/SDD/delta": {"model.history": 0, "sampler.cfg_scale": 3.0},
        },
        ["suites.main.variants.SDD.delta.sampler.cfg_scale", "is not read", "grid"],
    ),
    "a rule of a sampler that refines nothing": (
        {f"{MAIN}/variants/SDD/delta": {"model.history": 0, "sampler.select.p_resample": 0.2}},
        ["suites.main.variants.SDD.delta.sampler.select.p_resample", "refine_steps is 0"],
    ),
    "a ramp of a sampler that guides nowhere": (
        {
            **grid({"sampler.temperature": [1.0, 2.0]}),
            f"{MAIN}/variants/SDD/delta": {"sampler.cfg_ramp": "constant", "sampler.cfg_scale": 1},
        },
        ["suites.main.variants.SDD.delta.sampler.cfg_ramp: is not read, cfg_scale is 1"],
    ),
    "all codes as the most likely ones": (
        {f"{MAIN}/variants/SDD/delta": {"model.history": 0, "sampler.top_k": 16}},
        ["suites.main.variants.SDD.delta.sampler.top_k: is not read, the codebook has 16 codes"],
    ),
    "a class that is dropped and never given": (
        {
            f"{MAIN}/variants/SDD/delta": {
                "model.num_classes": 0,
                "model.class_dropout": 0.2,
                "sampler.cfg_scale": 1.0,
            }
        },
        ["suites.main.variants.SDD.delta.model.class_dropout: is not read, model.num_classes is 0"],
    ),
    "seeds that nothing trains with": (
        {"suites/latency/train_seeds": [0, 1]},
        ["suites.latency.train_seeds", "[0, 1]", "trains no model"],
    ),
    "a base that nobody reads": (
        {"bases/vra": {"modle": {"depth": 3}}},
        ["bases.vra", "is not read", "in use: var"],
    ),
    "a tokenizer that is trained on what judges it": (
        {
            "features": [
                {"name": "digits64"},
                {**LITE0, "name": "lite0_64", "image_size": 64},
            ],
            f"{BASE}/tokenizer/training/perceptual": 0.5,
        },
        ["tokenizer.training.perceptual: 0.5", "features[1] (lite0_64)", "no independent"],
    ),
    "numbers of others that are not shown": (
        {
            f"{MAIN}/published": [{"variant": "VAR", "metric": "fid", "value": 1.0, "source": "s"}],
            f"{MAIN}/tables": [],
        },
        ["suites.main.published", "table scores"],
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_said_before_any_work(tmp_path, case):
    """Catches a setting that silently does nothing, or makes a score mean less than it seems to."""
    changes, words = SAID[case]
    plan = load_study(edited(tmp_path, **changes))
    assert any(all(word in line for word in words) for line in plan.warnings), plan.warnings
    assert len(plan.warnings) < 8, "once for all variants of which it is true"


def test_a_ramp_that_some_of_a_grid_read_is_not_called_idle(tmp_path):
    """Catches a warning about a setting that counts wherever guidance is on."""
    changes = grid({"sampler.cfg_scale": [1.0, 2.0]})
    changes[f"{MAIN}/variants/SDD/delta"] = {"sampler.cfg_ramp": "constant"}
    assert not any("cfg_ramp" in line for line in load_study(edited(tmp_path, **changes)).warnings)


def test_names_of_any_script_are_legal(tmp_path):
    """Catches names that are refused for the joiners and spaces which their script needs, and a
    whole section that drops nothing."""
    base = {"base": "var", "delta": {"model.history": 1}}
    for name in ("می\u200cخواهم", "\U0001f469\u200d\U0001f52c", "模型\u3000大", "10\u00a0%"):
        plan = load_study(edited(tmp_path, **{f"{MAIN}/variants/{name}": base}))
        assert name in plan.identities["main"]
    whole = {"name": "var", "cfg_scale": 3.0}
    plan = load_study(edited(tmp_path, **{f"{MAIN}/variants/SDD/delta": {"sampler": whole}}))
    assert plan.identities["main"]["SDD"]["settings"]["sampler"]["cfg_scale"] == 3.0


def test_the_workflow_says_warnings_once(tmp_path):
    """Catches warnings that a run does not print, or prints for every job."""
    path = edited(tmp_path, **SAID["a path that digits do not read"][0])
    code, text = snakemake(ROOT, "--directory", tmp_path, "--configfile", path, "-n", "latency")
    assert code == 0 and text.count("warning: ") == 1 and f"warning: {path}: dataset.path" in text


def test_warnings_are_said_once_on_stderr(tmp_path):
    """Catches warnings that nobody sees, that spoil what other programs read, or that the shared
    studies print."""
    path = edited(tmp_path, **SAID["patience that never ends"][0])  # of 12 steps and of 8
    command = [sys.executable, "-m", "bench", "plan", str(path)]
    done, named = (
        subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
        for more in ([], ["--name"])
    )
    assert done.returncode == named.returncode == 0 and "warning" not in done.stdout
    assert (
        done.stderr.startswith(f"warning: {path}: suites.main.variants.VAR")
        and done.stderr.count("\n") == 2
    )
    assert named.stdout == "smoke\n" and named.stderr == "", (
        "who asks for the name runs the study, which says them"
    )
    for shared in (
        *(ROOT / "workflows" / "config").glob("*.yaml"),
        ROOT / "tests" / "studies" / "smoke.yaml",
    ):
        # what is meant: a pretrained network has more features than a small set has images, and
        # may have taught a tokenizer; both warnings end in what to read beside it
        said = [line for line in load_study(shared).warnings if not line.endswith("beside it")]
        assert said == []


@pytest.mark.parametrize("training", [TrainingConfig, TokenizerTraining])
def test_warm_up_reaches_its_peak(training):
    """Catches a default warm-up longer than a short training, and one that changes the numbers
    of a long one."""
    usual = training().warmup
    for steps in (1, 2, 12, 39, 2 * usual, 400, 10**6):
        found = training(steps=steps).warmup
        assert found == min(usual, steps // 2) and found < steps
        assert training.model_validate_json(training(steps=steps).model_dump_json()).warmup == found
    assert training(steps=100, warmup=99).warmup == 99


@pytest.mark.parametrize(
    "delta",
    [
        {"sampler.select": "threshold", "sampler.select.p_resample": 0.2},
        {"sampler.select": {"name": "threshold"}, "sampler.select.p_resample": 0.2},
        {"sampler.select": {"name": "threshold", "p_resample": 0.2}, "sampler.select.name": None},
        {"sampler.cfg_scale": 2.0, "sampler.select": "lowest", "sampler.select.name": "lowest"},
    ],
)
def test_a_mapping_and_keys_of_it_may_stand_in_one_delta(delta):
    """Catches a rule with a setting of its own that is refused as if it stood twice, and one value
    that is written twice."""
    twice = None in delta.values()
    with pytest.raises(ConfigError, match="gives 'threshold'") if twice else nullcontext():
        check_one_value(delta, "at.")


@pytest.mark.parametrize(
    "delta, grid, says",
    [
        (
            {"sampler.select": {"name": "random", "p_resample": 0.2}},
            {"sampler.select.p_resample": [0.2, 0.4]},
            "grid.sampler.select.p_resample: 0.4: the mapping of sampler.select in its delta",
        ),
        (
            {"sampler.cfg_scale": 2.0},
            {"sampler": [{"cfg_scale": 2.0}, {"cfg_scale": 3.0}]},
            "delta.sampler.cfg_scale: 2.0: the mapping of sampler in its grid gives 3.0",
        ),
        (
            {},
            {"sampler": [{"cfg_scale": 2.0}], "sampler.cfg_scale": [2.0, 1.5]},
            "grid.sampler.cfg_scale: 1.5: the mapping of sampler in its grid gives 2.0",
        ),
    ],
)
def test_a_grid_and_a_mapping_do_not_give_one_setting_two_values(delta, grid, says):
    """Catches a value of the delta that the grid overrides without a word, and one of the grid
    that the delta overrides: the variant's name would say another value than it has."""
    entry = SuiteEntry(base="first", delta=delta, grid=grid)
    suite = Suite.model_construct(variants={"one": entry})
    with pytest.raises(ConfigError) as caught:
        entries_of(suite)
    assert says in str(caught.value)


def test_direction_follows_from_the_metric(tmp_path):
    """Catches a claim of a score where more is better that is judged as if less were."""
    asked = {"evaluation/metrics": list(checks.RETURNS)}
    free = ("variance_pixels", "spread")  # near that of real images is best
    for metric in (name for name in chain(*checks.RETURNS.values()) if name not in free):
        plan = load_study(edited(tmp_path, **asked, **claimed(metric=metric)))
        (found,) = plan.study.suites["main"].claims
        assert found.better == better(metric)
        load_study(edited(tmp_path, **asked, **claimed(metric=metric, better=better(metric))))
    for metric, way in product(free, ("lower", "higher")):  # either may be claimed
        load_study(edited(tmp_path, **asked, **claimed(metric=metric, better=way)))


def test_scores_of_classes_need_classes(tmp_path):
    """Catches a claim of a score that a study without classes, or with Inception, cannot have."""
    study = load_study(edited(tmp_path, **{"evaluation/metrics": list(checks.RETURNS)})).study
    foreign = FeaturesConfig(kind="inception", name="x")
    blind = study.dataset.model_copy(update={"num_classes": 0})
    for changes, gone in (
        ({}, set()),
        ({"features": (foreign,)}, {"class_agreement"}),
        ({"features": (foreign, *study.features)}, set()),
        ({"dataset": blind, "features": (foreign,)}, {"class_agreement", "cas"}),
    ):
        legal, own = checks.legal_metrics(study.model_copy(update=changes))
        assert set(chain(*checks.RETURNS.values())) - set(legal) == gone and own == []


def test_metrics_of_ones_own_may_give_any_name(tmp_path, monkeypatch):
    """Catches a user's own metric refused in a claim, or a misspelt name taken for one without a
    word."""
    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda path, prefix: [*names_in(path, prefix), "sharpness"]
    )
    own = {"evaluation/metrics": ["fidelity", "sharpness"]}
    plan = load_study(edited(tmp_path, **own, **claimed(metric="edge_width", better="lower")))
    assert any("'edge_width'" in line and "sharpness" in line for line in plan.warnings)
    with pytest.raises(ConfigError, match="claims.better: is missing"):
        load_study(edited(tmp_path, **own, **claimed(metric="edge_width")))
    with pytest.raises(ConfigError, match="small letters"):
        load_study(edited(tmp_path, **own, **claimed(metric="Edge", better="lower")))


def test_every_metric_says_what_it_returns():
    """Catches a metric that is added without the names that it returns, and one that is gone."""
    assert sorted(checks.RETURNS) == names_in(ROOT / "bench/pipeline/metrics.py", "metric")


@pytest.mark.parametrize("room", rooms.names())
def test_what_a_room_says_is_there(room):
    """Catches a need, or a flag, of a figure, table or rule that the room does not show."""
    shown = {
        f"{rooms.PREFIXES[what]}_{name}"
        for what in rooms.PREFIXES
        for name, owner in rooms.shows(what).items()
        if owner == room
    }
    for what in ("NEEDS", "SHOWS_FID", "HALVES"):
        assert set(rooms.says(room, what, ())) <= shown
    for what in rooms.PREFIXES:
        for name, owner in rooms.shows(what).items():
            assert owner != room or set(rooms.needs(what, name)) <= set(rooms.measures())


def test_rules_beside_scores_are_legal(tmp_path):
    """Catches a claim on the whole pipeline, or on nearness to real images,
    that no study can make."""
    memory = {
        "text": "x",
        "rule": "memory",
        "variant": "SDD",
        "against": "VAR",
        "metric": "pipeline",
    }
    plan = load_study(
        edited(
            tmp_path,
            **{"suites/latency/claims": [memory]},
            **claimed(rule="nearer", metric="is"),
        )
    )
    assert plan.study.suites["latency"].claims[0].metric == "pipeline"
    assert plan.study.suites["main"].claims[0].rule == "nearer"


def test_needs_of_a_study(tmp_path):
    """Catches a prepare that asks for images which nothing reads, or for fewer than the scores
    of the study need."""
    whole = load_study(edited(tmp_path)).study
    # tunes guidance: each half of the reference must be large enough for a score
    assert needs_of(whole) == {"train": 100, "val": 1, "test": 200, "features": 16}
    main = whole.model_copy(update={"suites": {"main": whole.suites["main"]}})
    assert needs_of(main) == {"train": 100, "val": 1, "test": 100, "features": 16}
    timed = whole.model_copy(update={"suites": {"latency": whole.suites["latency"]}})
    assert needs_of(timed) == {"train": 1, "val": 1, "test": 1, "features": 1}
    given = FeaturesConfig(kind="inception", name="x", reference="r.npz")
    scored = whole.model_copy(
        update={"features": (given,), "suites": {"main": whole.suites["main"]}}
    )
    assert needs_of(scored)["test"] == 1, (
        "images may come with the reference; the features job looks"
    )


def test_enough_images():
    """Catches a split that is too small for a score, or empty, and is found by the last job."""
    needs = {"train": 100, "val": 1, "test": 100}
    assert enough_images({"train": 100, "val": 1, "test": 100}, needs) is None
    for counts, words in (
        (
            {"train": 60, "val": 4, "test": 16},
            ["dataset.test_share", "test has 16", "train has 60"],
        ),
        ({"train": 100, "val": 0, "test": 100}, ["dataset.val_share", "val has 0"]),
        (
            {"train": 99, "val": 1, "test": 100},
            ["dataset.train_images", "train has 99", "needs 100"],
        ),
        ({}, ["test has 0"]),
    ):
        assert all(word in enough_images(counts, needs) for word in words)
    assert few_for_features({"train": 64, "val": 1, "test": 64}, 64) is None
    assert "test 63" in few_for_features({"train": 64, "val": 1, "test": 63}, 64)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ModelConfig(patch_nums=(1, 2), codebook_size=1),
        lambda: TokenizerConfig(
            patch_nums=(1, 4),
            image_size=4,
            channels=8,
            norm_groups=4,
            channel_multipliers=(1,),
            codebook_size=1,
        ),
        lambda: ModelConfig(patch_nums=(1, 2), class_dropout=1.0),
        lambda: ModelConfig(patch_nums=(1, 10**9)),
        lambda: ModelConfig(patch_nums=(True, 2)),
        lambda: ModelConfig(patch_nums=(1, 2.0)),
        lambda: SamplerConfig(refine_scales=(2, 1)),
        lambda: FeaturesConfig(name="x", channels=12),
        lambda: FeaturesConfig(name="x", dim=1),
        lambda: representation.Settings(dim=1),
        lambda: FeaturesConfig(name="x\n"),
        lambda: TrainingConfig(steps=12, warmup=500),
        lambda: TrainingConfig(steps=1e3),
        lambda: TrainingConfig(steps=True),
    ],
)
def test_the_library_refuses_them_too(make):
    """Catches a bound that only study files meet."""
    with pytest.raises(ValueError):
        make()


def test_inception_has_2048_features_unless_told():
    """Catches scores of another layer than everybody's FID, printed as Inception's."""
    assert (
        FeaturesConfig(kind="inception", name="x").dim == 2048
        and FeaturesConfig(name="x").dim == 64
    )
    for dim in (64, 192, 768, 2048):
        assert FeaturesConfig(kind="inception", name="x", dim=dim).dim == dim


@pytest.mark.parametrize("metric", ["cas", "class_agreement"])
def test_a_score_of_classes_is_not_claimed_of_a_variant_without(tmp_path, metric):
    """Catches a claim that no run can ever decide."""
    guided = {"model.num_classes": 0, "sampler.cfg_scale": 1.0}
    blind = {f"{MAIN}/variants/SDD": {"base": "var", "delta": guided}, **claimed(metric=metric)}
    with pytest.raises(ConfigError, match=f"claims.variant: 'SDD' has no classes and no {metric}"):
        load_study(edited(tmp_path, **blind))
    load_study(edited(tmp_path, **{**blind, **claimed(metric="fid")}))


@pytest.mark.parametrize("key, value", [("corruption", "uniform"), ("loss_weight", "scale")])
def test_what_sets_scales_apart_needs_two(tmp_path, key, value):
    """Catches one training under two names, whose numbers look like a finding."""
    one = {"model.patch_nums": [4], "tokenizer.config.patch_nums": [4]}
    set_to = {f"training.{key}": value, **({"training.eps": 0.2} if key == "corruption" else {})}
    at = f"{MAIN}/variants/SDD"
    load_study(edited(tmp_path, **{at: {"base": "var", "delta": set_to}}))
    with pytest.raises(ConfigError, match=f"training.{key}: '{value}' .* one .*alone"):
        load_study(edited(tmp_path, **{at: {"base": "var", "delta": {**one, **set_to}}}))


@pytest.mark.parametrize("metric", ["spread", "variance_pixels"])
def test_a_score_inside_classes_is_not_claimed_of_a_variant_without(tmp_path, metric):
    """Catches the variance of all images held against that of real images inside classes."""
    delta = {"model.num_classes": 0, "sampler.cfg_scale": 1.0}
    for rule in ({"rule": "nearer"}, {"better": "lower"}):
        changes = {
            "evaluation/metrics": ["fidelity", "pixels", "spread"],
            f"{MAIN}/variants/SDD": {"base": "var", "delta": delta},
            **claimed(metric=metric, **rule),
        }
        message = f"claims.variant: 'SDD' has no classes and no {metric}"
        with pytest.raises(ConfigError, match=message):
            load_study(edited(tmp_path, **changes))
        changes[f"{MAIN}/variants/SDD"] = {"base": "var", "delta": {"model.history": 0}}
        load_study(edited(tmp_path, **changes))


def test_draws_of_masks_without_masks_are_said(tmp_path):
    """Catches the same training twice under two names, since a setting is not read."""
    delta = {"model.history": 0, "training.mask_draws": 8}
    for masks, said in ((0.0, True), (0.5, False)):
        entry = {"base": "var", "delta": {**delta, "model.mask_prob": masks}}
        plan = load_study(edited(tmp_path, **{f"{MAIN}/variants/SDD": entry}))
        assert any("mask_draws: 8: is not read" in words for words in plan.warnings) == said


IDLE = {
    "perceptual_size": ("perceptual", 64),
    "perceptual_network": ("perceptual", "lpips"),
    "adversarial_start": ("adversarial", 0.5),
    "discriminator": ("adversarial", {"layers": 1}),
}


@pytest.mark.parametrize("key", IDLE)
def test_a_setting_of_a_loss_that_is_off_is_said(tmp_path, key):
    """Catches a setting of a loss of weight 0, which trains the same tokenizer under another name;
    and a caution where another variant has that loss."""
    weight, value = IDLE[key]
    base = f"{BASE}/tokenizer/training/{key}"
    words = f"tokenizer.training.{key}: is not read, {weight} is 0; give {weight}, or remove {key}"
    plan = load_study(edited(tmp_path, **{base: value}))
    assert any(line.endswith(words) for line in plan.warnings)
    if key == "perceptual_network":  # its weights are another test's
        return
    delta = {f"tokenizer.training.{weight}": 0.1}
    if weight == "adversarial":
        delta["tokenizer.training.discriminator.layers"] = 1
    variants = {"VAR": {"base": "var"}, "SDD": {"base": "var", "delta": delta}}
    plan = load_study(edited(tmp_path, **{base: value, **measured("scores", variants=variants)}))
    assert not any("is not read, " + weight in line for line in plan.warnings)


@pytest.mark.parametrize("weight, size, said", [(0.1, 1, True), (0.1, 31, True), (0.1, 32, False)])
def test_a_perceptual_loss_on_few_pixels_is_said(tmp_path, weight, size, said):
    """Catches a perceptual loss on images of one pixel, of which its network sees next to
    nothing."""
    training = {"perceptual": weight, "perceptual_size": size}
    changes = {f"{BASE}/tokenizer/training/{key}": value for key, value in training.items()}
    plan = load_study(edited(tmp_path, **changes))
    words = f"perceptual_size: {size}: the network halves a side five times; give 32 or more"
    assert any(line.endswith(words) for line in plan.warnings) == said


@pytest.mark.parametrize("classes, way_out", [(0, False), (10, True)])
def test_guidance_without_classes_asks_for_nothing_in_vain(tmp_path, classes, way_out):
    """Catches advice that leads nowhere: class_dropout, where there are no classes."""
    delta = {"model.num_classes": classes, "model.class_dropout": 0.0, "sampler.cfg_scale": 2.0}
    entry = {"base": "var", "delta": delta}
    with pytest.raises(ConfigError, match="cfg_scale.*guides a model") as error:
        load_study(edited(tmp_path, **{f"{MAIN}/variants/SDD": entry}))
    ways = "train with class_dropout > 0" in str(error.value), "unconditional" in str(error.value)
    assert ways == (way_out, not way_out)


def test_a_default_that_follows_is_no_error_of_its_own(tmp_path):
    """Catches a second error that nobody made: max_rounds follows from rounds."""
    with pytest.raises(ConfigError, match=r"latency.rounds: .*got 1$"):
        load_study(edited(tmp_path, **{"latency/rounds": 1}))
