"""The room that asks what a tokenizer is worth: its jobs, its numbers, its figure and its table."""

import hashlib
import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from small_study import build, variant

from bench.experiments.tokenizers import verb
from bench.experiments.tokenizers.show import (
    figure_reconstructions,
    judge_reconstruction,
    table_reconstruction,
)
from bench.pipeline import collect
from bench.pipeline.likeness import psnr
from bench.report.results import Results
from bench.report.view import View
from bench.study import before
from bench.study.errors import ConfigError
from bench.study.plan import load_study

LPIPS = {
    "tokenizer.training.perceptual": 1.0,
    "tokenizer.training.perceptual_network": "lpips",
}
VARIANTS = {
    "pixels": {"base": "sdd"},
    "perceptual": {"base": "sdd", "delta": {"tokenizer.training.perceptual": 0.1}},
    "adversarial": {"base": "sdd", "delta": {"tokenizer.training.adversarial": 0.4}},
}


def planned(tmp_path, variants=None, **more):
    """The plan of a study of Fashion-MNIST that asks for tokenizers alone."""
    suite = {"claim": "c", "measure": ["tokenizers"], "variants": variants or VARIANTS}
    suite |= {
        "figures": ["reconstructions", "code_usage"],
        "tables": ["reconstruction", "tokenizer"],
    }
    # a study of pixel losses and one extractor
    features = [{"kind": "trained", "name": "toks64"}]
    study = {"study": "toks", "like": "fashion32", "reduced": "x", "take": [], "features": features}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**study, "suites": {"t": suite}, **more}, sort_keys=False))
    return load_study(path)


def stages_of(plan):
    counts = {}
    for run_id in plan.jobs:
        stage = run_id.split("/")[0]
        counts[stage] = counts.get(stage, 0) + 1
    return counts


# ---------------------------------------------------------------- plan


def test_it_plans_tokenizers_and_no_model(tmp_path):
    """Catches a question of tokenizers that waits for trainings, lacks a seed, an extractor."""
    features = [
        {"kind": "trained", "name": "fashion64"},
        {
            "kind": "pretrained",
            "name": "lite0_64",
            "network": "efficientnet_lite0",
            "image_size": 64,
        },
    ]
    plan = planned(tmp_path, train_seeds=[0, 1], features=features)
    each = 3 * 2
    assert stages_of(plan) == {
        "prepare": 1, "features": 2, "tokenizer": each, "encode": each, "baselines": 2 * each,
        "tokenizers": each,
    }  # fmt: skip


def test_losses_that_are_off_name_no_other_tokenizer(tmp_path):
    """Catches defaults that rename the tokenizer of every study."""
    off = {"tokenizer.training.perceptual": 0.0, "tokenizer.training.adversarial": 0.0}
    named = {}
    for name, delta in (("plain", {}), ("off", off)):
        plan = planned(tmp_path, {"one": {"base": "sdd", "delta": delta}})
        named[name] = set(plan.jobs)
    assert named["plain"] == named["off"]


def test_weights_of_lpips_are_known_by_their_sum(tmp_path):
    """Catches a tokenizer that is trained again because a file moved, and a missing file that shows
    after an hour."""
    runs = []
    for folder in ("a", "b"):
        file = tmp_path / folder / "lpips.pth"
        file.parent.mkdir()
        file.write_bytes(b"weights")
        known = {"file": str(file), "sha256": hashlib.sha256(b"weights").hexdigest()}
        delta = {**LPIPS, "tokenizer.training.perceptual_weights": known}
        plan = planned(tmp_path, {"one": {"base": "sdd", "delta": delta}})
        assert before.missing_files(plan) == []
        runs.append(set(plan.jobs))
        job = next(job for job in plan.jobs.values() if job.stage == "tokenizer")
        places = job.about["files"]
        assert places == {"tokenizer.training.perceptual_weights": str(file)}
        assert str(file) not in json.dumps(job.config)
        file.unlink()
        (problem,) = before.missing_files(plan)
        assert "tokenizer.training.perceptual_weights" in problem and str(file) in problem
    assert runs[0] == runs[1]


def test_a_missing_package_is_said_before_any_work(tmp_path, monkeypatch):
    """Catches a tokenizer that waits for its images to find that its network is not installed."""

    def missing(network, key):
        raise ConfigError(f"{key}: {network}: not installed")

    monkeypatch.setattr(before, "weights_of", missing)
    assert before.missing_files(planned(tmp_path, {"one": {"base": "sdd"}})) == []
    (problem,) = before.missing_files(planned(tmp_path))
    assert problem.startswith("tokenizer.training.perceptual_network: efficientnet_lite0")


def test_a_discriminator_larger_than_the_images_is_refused(tmp_path):
    """Catches a training that ends in a traceback about the shape of a convolution."""
    delta = {"tokenizer.training.adversarial": 1, "tokenizer.training.discriminator.layers": 4}
    with pytest.raises(ConfigError, match=r"\.tokenizer: training\.discriminator\.layers 4: needs"):
        planned(tmp_path, {"one": {"base": "sdd", "delta": delta}})


# ---------------------------------------------------------------- numbers


class Images:
    """Held-out images of four classes."""

    def __init__(self, images_NCHW):
        self.images_NCHW, self.labels_N = images_NCHW, np.arange(len(images_NCHW)) % 4

    def __len__(self):
        return len(self.images_NCHW)

    def array(self, rows):
        return self.images_NCHW[np.asarray(rows)]


def test_psnr_and_images_are_those_of_each_image(tmp_path, monkeypatch):
    """Catches a PSNR of the mean error, of other rows, or of a batch that is weighed as another."""
    rng = np.random.default_rng(0)
    real_NCHW = rng.integers(0, 256, (300, 1, 4, 4), np.uint8)
    errors_N111 = rng.integers(0, 40, (300, 1, 1, 1))
    made_NCHW = (real_NCHW.astype(int) ^ errors_N111).clip(0, 255).astype(np.uint8)
    tokens_NL = np.arange(300)[:, None]
    monkeypatch.setattr(verb, "open_split", lambda folder, split: Images(real_NCHW))
    monkeypatch.setattr(verb, "open_tokens", lambda folder, split: tokens_NL)
    monkeypatch.setattr(verb, "open_tokenizer", lambda run: None)
    monkeypatch.setattr(verb, "reconstruct", lambda t, s, tokens, d: made_NCHW[tokens[:, 0]])
    rows = []

    class Run:
        config = {"patch_nums": [1, 2]}
        inputs = {"data": None, "tokens": None}
        job = {"identity": {"tokenizer": "v"}}
        run_id, out, device = "tokenizers/1.2-x", tmp_path, None

        def settings(self, key, schema):
            return schema(shown=6)

        def add(self, metric, value, unit, **names):
            rows.append((metric, value, names["model"], names["num_images"]))

        def say(self, text):
            pass

    verb.work(Run())
    wanted = np.mean([psnr(real[None], made[None])[0] for real, made in zip(real_NCHW, made_NCHW)])
    assert rows == [("reconstruction_psnr_test", pytest.approx(wanted), "1.2", 300)]
    kept = collect.sample_images({"tokenizers/1.2-x": tmp_path})
    original = kept["tokenizers/1.2-x/original"]
    assert original.shape == (6, 1, 4, 4)
    for image, made in zip(original, kept["tokenizers/1.2-x/reconstructed"]):
        row = next(i for i, real in enumerate(real_NCHW) if (real == image).all())
        assert (made_NCHW[row] == made).all()


# ---------------------------------------------------------------- show


@pytest.fixture
def results(tmp_path):
    """Two tokenizers, of which only one has images and numbers of its own."""
    run = "tokenizers/1.2.4-s0"
    grid = {"study": "x", "dataset": "d", "model": "1.2.4", "run_id": "encode/g-1"}
    head = {**grid, "tokenizer": variant(0, "a")["tokenizer"]}
    rows = [
        {**head, "metric": "reconstruction_psnr_test", "unit": "dB", "value": 20.0 + seed,
         "train_seed": seed} for seed in (0, 1, 2)
    ]  # fmt: skip
    rows += [{**head, "metric": "reconstruction_mse_test", "unit": "mse", "value": 0.04}]
    images = {
        f"{run}/original": np.full((3, 1, 4, 4), 10, np.uint8),
        f"{run}/reconstructed": np.full((3, 1, 4, 4), 200, np.uint8),
    }
    build(tmp_path, ["a", "b"], images=images, more=rows, tables=["reconstruction"])
    results = Results.load(tmp_path)
    return results


def test_the_table_says_what_each_tokenizer_scores(results):
    """Catches a number of another tokenizer, seeds without an interval, and a worst scale that a
    mean hides."""
    view = View(results, "s")
    table, caption = table_reconstruction(view)
    row = table.iloc[0]
    assert list(table["Variant"]) == ["a"], "both variants share one tokenizer"
    assert row["PSNR (dB)"].numbers == {"mean": 21.0, "half": pytest.approx(2.484, abs=1e-3)}
    assert row["rFID (x8)"].numbers == {"value": 1.5}
    assert row["Perplexity, lowest"].numbers == {"value": 4.0} and row["Status"] == "ok"
    assert row["Perplexity 4x4"].numbers == {"value": 4.0}
    assert "1.5 (x8)" in " ".join(caption.details) and "tokenizer of b" in " ".join(caption.details)


def test_a_training_seed_without_scores_is_said(results):
    """Catches a mean of rFID over fewer tokenizers than that of PSNR beside it, called ok."""
    rows = results.metrics
    fid = rows["metric"] == "reconstruction_fid_x8"
    of_seeds = [rows[fid].assign(train_seed=seed) for seed in (0, 2)]
    results.metrics = pd.concat([rows[~fid], *of_seeds], ignore_index=True)
    table, _ = table_reconstruction(View(results, "s"))
    assert table.iloc[0]["Status"] == "rFID (x8): seed 1 not measured"


def test_the_figure_shows_real_images_above_what_is_made_of_them(results):
    """Catches rows in another order than their names, and a tokenizer without images that is left
    out in silence."""
    view = View(results, "s")
    run = "tokenizers/1.2.4-s0"
    figure, _ = figure_reconstructions(view)
    assert "a: " in " ".join(words.get_text() for words in figure.texts), "not made yet"
    runs, names = view.results.runs, view.variants["a"]
    runs.loc[len(runs)] = {"run_id": run, "stage": "tokenizers", "status": "ok"}
    view.results.__dict__.pop("_runs_by_id", None)
    names["jobs"]["0"] = [*names["jobs"]["0"], run]
    view.results.runs_of["s"] |= {run}
    figure, _ = figure_reconstructions(view)
    (axes,) = figure.axes
    assert [mark.get_text() for mark in axes.get_yticklabels()] == ["real, held out", "a"]
    drawn = axes.images[0].get_array()
    assert drawn[1, 1, 0] == 10 and drawn[6, 1, 0] == 200
    plt.close("all")


# ---------------------------------------------------------------- rule


def ruled(pixels, perceptual, metric="fid", better="lower", extractor="x8"):
    """What the rule finds of two tokenizers, from their numbers by training seed."""
    told = {"pixels": pixels, "perceptual": perceptual}
    view = SimpleNamespace(
        results=SimpleNamespace(extractor=extractor),
        variants={name: name for name in told},
        grid_seeds=lambda name, metric: pd.Series(told[name].get(metric, {}), dtype=float),
    )
    claim = {"variant": "perceptual", "against": "pixels", "metric": metric, "better": better}
    return judge_reconstruction(view, claim)


def test_reconstructions_are_compared_seed_by_seed():
    """Catches means in place of pairs, numbers of another extractor, a direction the wrong way
    round, and a verdict from two trainings."""
    fid = "reconstruction_fid_x8"
    worse, better = {0: 3.0, 1: 9.0, 2: 6.0}, {0: 2.0, 1: 8.1, 2: 4.9}
    word, reason = ruled({fid: worse}, {fid: better})
    assert word == "yes" and fid in reason and "perceptual minus that of pixels" in reason
    assert ruled({fid: better}, {fid: worse})[0] == "no"
    assert ruled({fid: worse}, {fid: better}, extractor="y8")[0] == "not decided"
    assert ruled({fid: {0: 3.0, 1: 9.0}}, {fid: better})[0] == "not decided"
    shared = {-1: 3.0}
    assert ruled({fid: shared}, {fid: shared})[0] == "not decided"
    psnr_rows = "reconstruction_psnr_test"
    more = ({psnr_rows: better}, {psnr_rows: worse}, "psnr", "higher")
    assert ruled(*more)[0] == "yes" and psnr_rows in ruled(*more)[1]


@pytest.mark.parametrize(
    "claim, wrong",
    [
        ({"metric": "is"}, "metric: .*'is'.*fid, mse, psnr"),
        ({"metric": "mse"}, "better: is missing"),
        ({"variant": "grid"}, "variant: 'grid' is a grid"),
    ],
)
def test_what_the_rule_cannot_compare_is_refused(tmp_path, claim, wrong):
    """Catches a claim that would be answered `not decided` after all trainings."""
    grid = {"base": "sdd", "grid": {"tokenizer.training.lr": [0.001, 0.002]}}
    told = {"text": "t", "rule": "reconstruction", "variant": "perceptual", "against": "pixels"}
    suite = {"claim": "c", "measure": ["tokenizers"], "variants": {**VARIANTS, "grid": grid},
             "claims": [{**told, **claim}]}  # fmt: skip
    with pytest.raises(ConfigError, match=wrong):
        planned(tmp_path, suites={"t": suite})


def test_reconstructions_of_one_tokenizer_are_no_claim(tmp_path):
    """Catches a claim between two models that read one tokenizer, which can only be equal."""
    told = {"text": "t", "rule": "reconstruction", "variant": "var", "against": "pixels"}
    twin = {"base": "sdd", "delta": {"model.history": None}}
    suite = {"claim": "c", "measure": ["tokenizers"], "variants": {**VARIANTS, "var": twin}}
    claim = {**told, "better": "lower"}
    with pytest.raises(ConfigError, match="'pixels' has the tokenizer and the schedule of 'var'"):
        planned(tmp_path, suites={"t": {**suite, "claims": [claim]}})
    twin["delta"]["model.patch_nums"] = [1, 8]
    assert planned(tmp_path, suites={"t": {**suite, "claims": [claim]}}).jobs
