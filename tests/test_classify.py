"""The rooms of likelihood classification: what a suite may ask, the numbers of the jobs, what is
shown and how claims are decided."""

import json
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import yaml
from scipy.special import log_softmax
from small_study import SEEDS, build, variant

from bench.experiments.claims.show import table_claims
from bench.experiments.class_baselines import verb as baselines
from bench.experiments.classify import scoring, show, verb
from bench.experiments.classify.plan import Settings
from bench.experiments.classify.reading import BASELINES, of_run, two_errors, ways_of
from bench.experiments.classify.rows import of_baseline
from bench.report.estimate import Estimate
from bench.report.results import Results
from bench.report.view import View
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from srdd.likelihood import scale_scores
from srdd.schedule import ScaleSchedule

STAGES = [{"scales": 2, "keep": 5}, {"scales": 4, "keep": 1, "samples": 3}]
VARIANTS = {"VAR": {"base": "var"}, "SDD": {"base": "sdd"}, "SRDD": {"base": "srdd"}}


def planned(tmp_path, told=None, variants=None, claims=(), study=None, **more):
    """The plan of a study of digits that classifies."""
    suite = {"claim": "c", "measure": ["classify", "class_baselines"], "claims": list(claims)}
    suite |= {"classify": told or {}, "variants": variants or VARIANTS, **more}
    head = {"study": "kinds", "like": "digits", "reduced": "x", "take": [], **(study or {})}
    study = {**head, "suites": {"s": suite}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return load_study(path)


# ---------------------------------------------------------------- plan


def test_each_model_is_asked_once_and_each_tokenizer_once(tmp_path):
    """Catches a job for every sampler of one model, baselines for every model, and a job that waits
    for a sampler."""
    again = {"base": "srdd", "delta": {"sampler.refine_steps": 0}}
    plan = planned(tmp_path, {"draws": [1, 2]}, {**VARIANTS, "SRDD, one pass": again})
    counts = {}
    for job in plan.jobs.values():
        counts[job.stage] = counts.get(job.stage, 0) + 1
    assert counts["classify"] == 9 and counts["class_baselines"] == 3
    job = next(job for job in plan.jobs.values() if job.stage == "classify")
    assert set(job.inputs) == {"data", "tokenizer", "train"} == set(verb.INPUTS)
    assert "sampler" not in job.config and "sampler" not in job.identity


def test_one_more_extractor_renames_nothing(tmp_path):
    """Catches scores of classes that are made again because images are scored elsewhere too."""
    lite0 = {"kind": "pretrained", "name": "lite0_64", "network": "efficientnet_lite0"}
    trained = {"kind": "trained", "name": "digits64", "dim": 64}
    names = []
    for features in (
        [trained],
        [trained, lite0 | {"image_size": 64}],
        [lite0 | {"image_size": 64}],
    ):
        plan = planned(tmp_path, study={"features": features})
        names.append({run for run in plan.jobs if run.startswith("class")})
    assert names[0] == names[1]
    # without a classifier of its own it is another job, which asks none
    assert {run for run in names[2] if run.startswith("classify/")} < names[0]


NO_NULL = {"VAR": {"base": "var", "delta": {"model.class_dropout": 0.0}}}
CLAIM = {"text": "t", "rule": "accuracy", "variant": "SDD", "against": "VAR"}


@pytest.mark.parametrize(
    "told, variants, claims, words",
    [
        ({"stages": [{"scales": 2, "keep": 2}, {"scales": 3, "keep": 3}]}, None, (), "stages keep"),
        ({"stages": [{"scales": 2, "keep": 2}]}, None, (), "the last 1"),
        ({"stages": [{"scales": 5, "keep": 1}]}, None, (), "has 4 scales; give 4 or fewer"),
        ({"stages": [{"scales": 1, "keep": 11}, {"scales": 4, "keep": 1}]}, None, (),
         "is asked for 10 classes"),
        ({"stages": [{"scales": 1, "keep": 1, "samples": 0}]}, None, (), "samples"),
        ({"stages": [{"scales": 1, "keep": 1, "samples": 3}], "sigma": []}, None, (),
         "need a sigma"),
        ({"sigma": [-0.1]}, None, (), "sigma"),
        ({"samples": [0, 3]}, None, (), "samples"),
        ({"chosen_sigma": 0.3}, None, (), "chosen_sigma 0.3: is none of"),
        ({"chosen_samples": 4}, None, (), "chosen_samples 4: is none of"),
        ({"average": "max"}, None, (), "average"),
        ({"stages": [{"scales": 4, "keep": 5}, {"scales": 2, "keep": 1}]}, None, (),
         "classify.stages[1].scales: 2: the stage before has 4"),
        ({"classes": 11}, None, (), "classify.classes: 11: 'VAR' has 10 classes"),
        ({"draws": [1]}, {"VAR": {"base": "var"}}, (), "needs a variant with model.mask_prob"),
        ({"shifts": ["fog"]}, None, (), "unknown shift 'fog'"),
        ({}, NO_NULL, (), "model.class_dropout 0); set explain to 0"),
        ({"explain": 0, "guidance": [2.0]}, NO_NULL, (), "leave guidance out"),
        (
            {},
            None,
            [{**CLAIM, "metric": "accuracy1", "better": "higher"}],
            "did you mean 'accuracy'",
        ),
        ({}, None, [{**CLAIM, "metric": "accuracy"}], "better: is missing"),
        ({}, None, [{**CLAIM, "metric": "bound_gain", "better": "lower"}], "unknown metric"),
        ({}, None, [{**CLAIM, "rule": "funnel", "metric": "accuracy_funnel"}],
         "needs classify.stage"),
        ({"stages": STAGES}, None, [{**CLAIM, "rule": "funnel"}], "judges accuracy_funnel"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(tmp_path, told, variants, claims, words):
    """Catches a slip that ends in a traceback after the trainings."""
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, told, variants, claims)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "told, more, words",
    [
        ({"sigma": []}, {"figures": ["smoothing"]}, "'smoothing' needs classify.sigma"),
        ({"explain": 0}, {"figures": ["explanations"]}, "'explanations' needs classify.explain"),
        ({}, {"tables": ["class_shifts"]}, "'class_shifts' needs classify.shifts"),
    ],
)
def test_figures_of_nothing_are_refused(tmp_path, told, more, words):
    """Catches a figure of empty panels that is found out after the trainings."""
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, told, **more)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_images_without_classes_are_refused(tmp_path):
    """Catches a classification of images of which nobody knows the class."""
    free = {"VAR": {"base": "var", "delta": {"model.num_classes": 0}}}
    with pytest.raises(ConfigError, match=r"variants\.VAR: model\.num_classes 0"):
        planned(tmp_path, variants=free)


def test_what_is_legal_is_planned(tmp_path):
    """Catches a check that refuses what it should not."""
    claims = [
        {**CLAIM, "text": f"t{i}", "metric": metric, "better": "higher"}
        for i, metric in enumerate(
            ["accuracy", "accuracy_scale2", "accuracy_only_scale0", "smoothing_gain", "bound_gain",
             "deletion_gain", "guidance_gain_w1.5", "accuracy_shift_blur"]
        )
    ]  # fmt: skip
    told = {"stages": STAGES, "draws": [1], "guidance": [1.0, 1.5], "shifts": ["none", "blur"]}
    plan = planned(tmp_path, told, claims=claims, tables=["classification"], figures=["funnel"])
    assert len(plan.study.suites["s"].claims) == 8


# ---------------------------------------------------------------- numbers of scores


def test_posterior_and_calibration_are_those_of_the_definitions():
    """Catches a posterior that is not normalised, and bins that count images twice."""
    scores_NY = np.log([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.52, 0.48]])
    labels_N = np.array([0, 1, 1, 0])
    assert scoring.accuracy(scores_NY, labels_N) == 0.75
    wanted = -np.log([0.9, 0.4, 0.8, 0.52]).mean()
    assert scoring.posterior_nll(scores_NY + 7.0, labels_N) == pytest.approx(wanted)
    # every image in a bin of its own: 0.1, 0.6, 0.2, 0.48 wrong
    assert scoring.calibration_error(scores_NY, labels_N) == pytest.approx(
        (0.1 + 0.6 + 0.2 + 0.48) / 4
    )


def test_equal_scores_are_the_first_class():
    """Catches an untrained model that seems to know something."""
    labels_N = np.array([0, 1, 2, 0])
    assert scoring.accuracy(np.zeros((4, 3)), labels_N) == 0.5
    assert scoring.posterior_nll(np.zeros((4, 3)), labels_N) == pytest.approx(np.log(3))


def test_the_contrast_of_tokens_sums_to_the_margin():
    """Catches evidence against another class than the strongest one."""
    rng = np.random.default_rng(0)
    log_p_NYL, own_N = rng.normal(size=(20, 4, 6)), rng.integers(0, 4, 20)
    totals_NY = log_p_NYL.sum(-1)
    own = totals_NY[np.arange(20), own_N]
    others = np.where(np.arange(4) == own_N[:, None], -np.inf, totals_NY).max(1)
    assert np.allclose(scoring.contrast(log_p_NYL, own_N).sum(-1), own - others)


def test_all_tokens_leave_all_decisions_and_the_best_ones_most():
    """Catches an order that is read the wrong way round, and kept tokens that are dropped."""
    rng = np.random.default_rng(1)
    log_p_NYL = rng.normal(size=(300, 3, 12))
    decided_N = log_p_NYL.sum(-1).argmax(1)
    best = (-scoring.contrast(log_p_NYL, decided_N)).argsort(1)
    order = np.argsort(rng.random((300, 12)), 1)
    assert scoring.decisions_left(log_p_NYL, best, 12, True) == 1.0
    assert scoring.decisions_left(log_p_NYL, best, 0, False) == 1.0
    kept = [scoring.decisions_left(log_p_NYL, rows, 3, True) for rows in (best, order)]
    dropped = [scoring.decisions_left(log_p_NYL, rows, 3, False) for rows in (best, order)]
    assert kept[0] > kept[1] and dropped[0] < dropped[1]
    assert (
        scoring.counts_of(30) == [1, 2, 4, 5, 8, 10, 15, 16, 20, 25] and scoring.counts_of(1) == []
    )


# ---------------------------------------------------------------- the job


class Split:
    """Held-out images of three classes."""

    def __init__(self, images_NCHW, labels_N):
        self.images_NCHW, self.labels_N = images_NCHW, labels_N

    def __len__(self):
        return len(self.labels_N)

    def read(self, rows):
        return torch.from_numpy(self.images_NCHW[np.asarray(rows)])


class Run:
    """What a job of this room is given and reports."""

    inputs = {"data": None, "train": None, "tokenizer": None, "tokens": None, "features": None}

    def __init__(self, out, settings, config=None):
        self.out, self.told, self.rows, self.said = out, settings, {}, []
        self.config = {"train_seed": 0, **(config or {})}
        self.job, self.run_id, self.device = {"identity": {"model": "m"}}, "classify/x", "cpu"
        self.inputs = {name: out for name in self.inputs}

    def settings(self, key, schema):
        return self.told if key in ("classify", "class_baselines") else schema()

    def add(self, metric, value, unit, **names):
        key = metric, names.get("scale"), names.get("repeat")
        assert key not in self.rows, f"{key} twice"
        assert np.isfinite(value), key
        self.rows[key] = value

    def say(self, text):
        self.said.append(text)


def job(tmp_path, monkeypatch, model, tokenizer, **told):
    """Rows of a run on random images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)
    split = Split(images, rng.integers(0, 3, 40))
    monkeypatch.setattr(verb, "open_split", lambda folder, name: split)
    monkeypatch.setattr(verb, "open_tokenizer", lambda run: tokenizer)
    monkeypatch.setattr(verb, "open_model", lambda run, path: model)
    run = Run(tmp_path, Settings(**told))
    verb.work(run)
    return run, split


FUNNEL = ({"scales": 1, "keep": 3}, {"scales": 3, "keep": 1})
FEW = {"sigma": (0.0, 0.2), "samples": (1, 3), "shifts": ("none", "blur"), "explain": 3}


@pytest.fixture
def network(make_model, make_tokenizer):
    """Factory of a model and the tokenizer of its tokens."""

    def make(**changes):
        sizes = {"patch_nums": (1, 2, 4), "codebook_size": 7, **changes}
        return make_model(**sizes), make_tokenizer().eval()

    return make


def test_a_job_reports_what_its_library_computes(tmp_path, monkeypatch, network):
    """Catches rows of other images, scales that are mixed up, smoothing without noise that changes
    a score, and a funnel of all classes that decides otherwise."""
    model, tokenizer = network(mask_prob=1.0, history=0)
    told = {**FEW, "stages": FUNNEL, "guidance": (1.0, 2.0), "draws": (1, 2)}
    run, split = job(tmp_path, monkeypatch, model, tokenizer, **told)
    ladder = tokenizer.at(model.schedule)
    latent = tokenizer.to_latent(torch.from_numpy(split.images_NCHW).float() / 127.5 - 1)
    tokens_NL = ladder.encode(latent)[0]
    scores = scale_scores(model, ladder, tokens_NL, torch.arange(3)).numpy()
    right = (scores.sum(-1).argmax(1) == split.labels_N).mean()
    assert run.rows["accuracy", None, None] == run.rows["accuracy", 2, None] == right
    assert run.rows["accuracy_only", 1, None] == (scores[..., 1].argmax(1) == split.labels_N).mean()
    assert run.rows["tokens_changed_s0", None, None] == 0.0
    for count in (1, 3):
        assert run.rows["accuracy_smoothed_s0", None, count] == right
    assert run.rows["funnel_agreement", None, None] == 1.0
    assert run.rows["stage_recall", None, 0] == 1.0
    assert run.rows["exact_token_evals", None, None] == 3 * 21
    assert run.rows["funnel_token_evals", None, None] == 3 * 21
    true = scores[np.arange(40), split.labels_N].sum(-1)
    assert run.rows["nll", None, None] == pytest.approx(-true.mean(), rel=1e-5)
    posterior = -log_softmax(scores.sum(-1), 1)[np.arange(40), split.labels_N].mean()
    assert run.rows["posterior_nll", None, None] == pytest.approx(posterior, rel=1e-4)
    gain = run.rows["accuracy_smoothed", None, None] - right
    assert run.rows["smoothing_gain", None, None] == gain
    assert {("accuracy_bound", None, 2), ("bound_gain", None, None)} <= run.rows.keys()
    assert ("accuracy_shift_blur_smoothed", None, None) in run.rows
    with np.load(tmp_path / "scores.npz") as kept:
        assert np.allclose(kept["scores"], scores, atol=1e-4)
        assert (kept["labels"] == split.labels_N).all()
    with np.load(tmp_path / "strip.npz") as strip:
        assert strip["tmi"].shape == strip["contrastive"].shape == (3, 1, 4, 4)
        assert strip["explained"].shape == (3, 1, 8, 8)
    assert "40 images of 3 classes" in run.said[-1] and "GFLOP" in run.said[-1]


def test_an_untrained_head_is_at_chance(tmp_path, monkeypatch, network):
    """Catches a class that reaches a number by another way than the network."""
    model, tokenizer = network()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    run, split = job(tmp_path, monkeypatch, model, tokenizer, **FEW, stages=FUNNEL)
    chance = (split.labels_N == 0).mean()
    shares = [value for key, value in run.rows.items() if key[0].startswith("accuracy")]
    assert len(shares) > 10 and set(shares) == {chance}
    assert run.rows["posterior_nll", None, None] == pytest.approx(np.log(3))
    assert run.rows["class_nats", 1, None] == 0.0


def test_a_few_classes_are_asked_of_their_own_images(tmp_path, monkeypatch, network):
    """Catches images of other classes, which nothing could get right, and classes that lose their
    number."""
    model, tokenizer = network()
    run, split = job(tmp_path, monkeypatch, model, tokenizer, **FEW, stages=FUNNEL[1:], classes=2)
    rows = np.flatnonzero(np.isin(split.labels_N, [0, 1]))
    latent = tokenizer.to_latent(torch.from_numpy(split.images_NCHW[rows]).float() / 127.5 - 1)
    ladder = tokenizer.at(model.schedule)
    scores = scale_scores(model, ladder, ladder.encode(latent)[0], torch.tensor([0, 1]))
    right = (scores.sum(-1).argmax(1).numpy() == split.labels_N[rows]).mean()
    assert run.rows["accuracy", None, None] == run.rows["accuracy_funnel", None, None] == right
    assert run.rows["exact_token_evals", None, None] == 2 * 21
    assert verb.some_classes(1000, 100).tolist() == list(range(0, 1000, 10))


# ---------------------------------------------------------------- without a generative model


def test_naive_bayes_is_that_of_scikit_learn():
    """Catches counts of another place or class, and shares that do not sum to one."""
    from sklearn.naive_bayes import CategoricalNB

    rng = np.random.default_rng(0)
    tokens_NL, labels_N = rng.integers(0, 5, (200, 6)), rng.integers(0, 3, 200)
    shares = baselines.code_log_shares(tokens_NL, labels_N, 3, 5)
    assert np.allclose(np.exp(shares).sum(-1), 1)
    asked = rng.integers(0, 5, (50, 6))
    own = baselines.bayes_scores(shares, asked).sum(-1)
    theirs = CategoricalNB(alpha=0.5, fit_prior=False, min_categories=5).fit(tokens_NL, labels_N)
    assert np.allclose(log_softmax(own, 1), theirs.predict_log_proba(asked))


def test_the_nearest_image_is_that_of_all_distances(monkeypatch):
    """Catches chunks that lose a row, and a distance without its square."""
    rng = np.random.default_rng(0)
    train, asked = rng.normal(size=(60, 5)).astype("f4"), rng.normal(size=(33, 5)).astype("f4")
    labels_N = rng.integers(0, 9, 60)
    wanted = labels_N[((asked[:, None] - train) ** 2).sum(-1).argmin(1)]
    monkeypatch.setattr(baselines, "CELLS", 7 * 60)
    assert (baselines.nearest(train, labels_N, asked) == wanted).all()


def test_one_token_is_dropped_for_nothing():
    """Catches a job that fails after its training, for curves of a schedule without a second
    token."""
    rows = []
    held = SimpleNamespace(
        schedule=ScaleSchedule((1,)),
        rows_N=np.arange(2),
        Y=3,
        add=lambda *row, **_: rows.append(row),
    )
    log_p_nCL = np.log(np.random.default_rng(0).dirichlet(np.ones(4), 2)).reshape(2, 4, 1)
    verb.report_decisions(held, SimpleNamespace(log_p_nCL=log_p_nCL, curve_n=np.arange(2)))
    assert rows == []


# ---------------------------------------------------------------- show


def rows_for(i, name, accuracy, gain=0.05, images=400):
    """Rows of one variant over three training seeds."""
    names, rows = variant(i, name), []
    for seed, share in zip(SEEDS, accuracy):
        head = {"study": "x", "dataset": "d", "train_seed": seed, "unit": "share"}
        head |= {key: names[key] for key in ("tokenizer", "model")}
        head |= {"run_id": f"sample/v{i}-{seed}", "num_images": images}
        values = {"accuracy": share, "funnel_gain": -0.002 + 0.001 * seed}
        values |= {"smoothing_gain": gain + 0.001 * (seed - 1)}
        values |= {"accuracy_smoothed": share + gain, "accuracy_funnel": share - 0.002}
        values |= {"exact_token_evals": 63, "funnel_token_evals": 30, "map_limit": 2.0}
        values |= {"exact_flops": 1e9, "posterior_nll": 0.1, "tokens_changed_s0.2": 0.4}
        rows += [{**head, "metric": metric, "value": value} for metric, value in values.items()]
        for k in range(3):
            for metric in ("accuracy", "accuracy_only", "class_nats"):
                rows.append({**head, "metric": metric, "scale": k, "value": share - 0.1 * (2 - k)})
        for count in (1, 3):
            metric = "accuracy_smoothed_s0.2"
            rows.append({**head, "metric": metric, "repeat": count, "value": share + 0.01 * count})
            for way in ("kept_evidence", "kept_random", "dropped_evidence", "dropped_random"):
                rows.append({**head, "metric": way, "repeat": count, "value": 0.5})
    return rows


@pytest.fixture
def seen(tmp_path):
    """Factory of a view of two variants with these accuracies over three seeds."""

    def make(first, second, **more):
        rows = rows_for(0, "a", first, **more) + rows_for(1, "b", second, **more)
        view = View(Results.load(build(tmp_path, ["a", "b"], more=rows)), "s")
        told = {"sigma": (0.2,), "samples": (1, 3), "stages": STAGES}
        view.about["classify"] = Settings(**told).model_dump(mode="json")
        return view

    return make


def judged(view, metric="accuracy", rule="accuracy", better="higher"):
    claim = {"text": "t", "variant": "b", "against": "a", "metric": metric, "better": better}
    return getattr(show, f"judge_{rule}")(view, claim)


FAR = (0.80, 0.81, 0.82), (0.90, 0.915, 0.915)


def test_a_clear_difference_is_decided_both_ways(seen):
    """Catches a rule that never says no."""
    view = seen(*FAR)
    assert judged(view)[0] == "yes" and judged(view, better="lower")[0] == "no"
    assert judged(view, "accuracy_only_scale1")[0] == "yes"
    assert judged(view).p < 0.05 and judged(view).difference.mean == pytest.approx(0.1)


def test_seeds_that_agree_do_not_make_a_small_split_large(seen):
    """Catches a difference of two images that is called one because all trainings show it."""
    view = seen((0.900, 0.905, 0.910), (0.910, 0.9151, 0.9199))
    word, reason = judged(view)
    assert word == "not decided" and "the split is too small" in reason
    assert two_errors((0.9, 0.91), 400) == pytest.approx(2 * (0.09 / 400 + 0.0819 / 400) ** 0.5)


def test_seeds_that_differ_decide_nothing(seen):
    """Catches a rule that looks at the size of the split alone."""
    assert judged(seen((0.80, 0.81, 0.82), (0.95, 0.81, 0.99)))[0] == "not decided"


def test_a_gain_is_judged_in_both_models(seen):
    """Catches a gain of one model that is read as a difference between two."""
    view = seen(*FAR, gain=0.07)
    word, reason = judged(view, "smoothing_gain")
    assert word == "yes" and "of a" in reason and "of b" in reason
    # one model gains what the other loses: each alone is sure, together they say nothing
    rows = view.results.metrics
    of_b = (rows["metric"] == "smoothing_gain") & rows["run_id"].str.startswith("sample/v1")
    assert of_b.sum() == 3
    rows.loc[of_b, "value"] *= -1
    view.results.known.clear()
    verdict = judged(view, "smoothing_gain")
    assert verdict[0] == "not decided" and verdict.p == 1.0
    other = seen(*FAR, gain=0.01)
    assert judged(other, "smoothing_gain")[0] == "not decided"


def test_the_funnel_is_judged_by_what_it_loses_and_takes(seen):
    """Catches a cheap funnel that loses, and a good one that costs as much as all classes."""
    view = seen(*FAR)
    cheap = judged(view, "accuracy_funnel", "funnel")
    assert cheap[0] == "yes" and 0 < cheap.p < 0.05
    rows = view.results.metrics
    rows.loc[rows["metric"] == "funnel_token_evals", "value"] = 40.0
    view.results.known.clear()
    dear = judged(view, "accuracy_funnel", "funnel")
    assert dear[0] == "no" and dear.p is None, "tokens are counted, not tested"
    rows.loc[rows["metric"] == "funnel_token_evals", "value"] = 30.0
    rows.loc[rows["metric"] == "funnel_gain", "value"] -= 0.05
    view.results.known.clear()
    assert judged(view, "accuracy_funnel", "funnel")[0] == "no"


def test_figures_and_tables_hold_the_numbers(seen):
    """Catches an empty panel where there are numbers, a mean of other rows, and a table without
    what likelihoods are read against."""
    view = seen(*FAR)
    for name in ("class_evidence", "smoothing", "funnel", "explanations"):
        figure, caption = getattr(show, f"figure_{name}")(view)
        drawn = [line for axes in figure.axes for line in axes.lines]
        assert drawn and caption.text, name
    plt.close("all")
    table, _ = show.table_classification(view)
    assert table.attrs["shown"][2] == "2 s.e. of the split"
    row = table.set_index("Classifier").loc["b"]
    assert row["Accuracy"].numbers["mean"] == pytest.approx(0.91)
    assert row["Tokens"].numbers["value"] == 63
    assert list(table["Classifier"])[-1] == "(chance)"
    assert json.dumps(table.attrs["shown"])


def limits(axes):
    return axes.get_xlim(), axes.get_ylim()


def test_panels_of_all_pages_have_the_same_limits(seen, monkeypatch):
    """Catches a variant that seems higher because its panel stands on another page, and a model of
    many tokens that leaves the others a corner."""
    monkeypatch.setattr(show, "PAGE", 1)
    view = seen(*FAR)
    rows = view.results.metrics
    rows.loc[rows["metric"] == "funnel_token_evals", "value"] = np.tile([30.0, 3000.0], 3)
    view.results.known.clear()
    figure, _ = show.figure_funnel(view)
    first, second = [axes for axes in figure.axes if axes.lines]
    assert limits(first) == limits(second) and first.get_xscale() == "log"
    figure, _ = show.figure_smoothing(view)
    for words in ("copies averaged", "noise (std of the latent)"):
        first, second = [axes for axes in figure.axes if axes.get_xlabel() == words]
        assert limits(first)[1] == limits(second)[1]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["1", "3"]
    plt.close("all")


def test_random_orders_are_told_apart_in_the_legend(seen):
    """Catches random orders in the dots that a variant is drawn with, and an entry for each."""
    figure, _ = show.figure_explanations(seen(*FAR))
    names = [t.get_text() for page in figure.subfigs for one in page.legends for t in one.texts]
    assert names == ["a", "b", "hollow: random order"]
    faces = [line.get_markerfacecolor() for line in figure.axes[-1].lines]
    assert faces.count("white") == 3
    plt.close("all")


def test_colours_of_maps_are_those_of_their_own_run(seen):
    """Catches the mean over trainings beside a map that one of them drew."""
    view = seen(*FAR)
    rows = view.results.metrics
    is_limit = rows["metric"] == "map_limit"
    rows.loc[is_limit, "value"] = np.arange(is_limit.sum())
    run_ids = rows.loc[is_limit, "run_id"]
    assert [of_run(view, run_id, "map_limit") for run_id in run_ids] == list(range(len(run_ids)))
    assert of_run(view, "classify/none", "map_limit") is None


def test_tokens_of_the_figure_count_the_classes_that_were_asked(seen):
    """Catches a way of asking 100 classes that is drawn at the tokens of 1 000."""
    view = seen(*FAR)
    for classes, Y in ((None, 3), (2, 2)):
        view.about["classify"]["classes"] = classes
        ways = ways_of(view, "b")  # scales of 1, 4 and 16 tokens, history 0
        assert [tokens for tokens, _ in ways["first scales"]] == [Y * 1, Y * 5, Y * 21]
        assert [tokens for tokens, _ in ways["one scale"]] == [Y * 1, Y * 4, Y * 16]
    table, _ = show.table_classification(view)
    assert list(table["Accuracy"])[-1].numbers["value"] == 0.5


def test_captions_say_what_was_asked_and_nothing_else(seen):
    """Catches words on smoothing and columns of it where `sigma` is empty, log-likelihoods where
    likelihoods are averaged, and images of all classes where a few were asked."""
    view = seen(*FAR)
    assert "3 copies" in show.figure_class_evidence(view)[1]
    assert "classes, and no other" not in show.figure_class_evidence(view)[1]
    view.about["classify"] |= {"average": "probability", "classes": 2, "shifts": ["a"]}
    caption = show.figure_smoothing(view)[1]
    assert "when the likelihoods of" in caption and "those of 2 of its 3 classes" in caption
    view.about["classify"] |= {"sigma": [], "stages": []}
    for table, caption in (show.table_classification(view), show.table_class_shifts(view)):
        assert not [title for title in table if "moothed" in title or "unnel" in title]
        assert "moothing" not in caption and "funnel" not in caption
    assert "moothing" not in show.figure_explanations(view)[1]
    plt.close("all")


def test_names_of_variants_without_a_number_are_escaped(seen):
    """Catches a name with letters of reStructuredText, which loses them in the details."""
    view = seen(*FAR)
    view.results.metrics = view.results.metrics[view.results.metrics["metric"] != "accuracy"]
    view.results.known.clear()
    variants = view.results.variants_of[view.suite]
    variants["a_ *b*"] = variants.pop("a")
    view.about["classify"]["shifts"] = ["none", "blur"]
    for table in (show.table_classification, show.table_class_shifts):
        assert r"a\_ \*b\*: seed" in table(view)[1]


def test_classifiers_of_tokens_have_an_interval():
    """Catches tokenizers that agree by chance and lose their interval, and one of pixels, which
    know none."""
    same = Estimate(0.9, 0.0, 3)
    cells = {name: of_baseline(name, same) for name in BASELINES}
    with_half = {name for name, cell in cells.items() if "half" in cell.numbers}
    assert with_half == {"naive_bayes", "network_reconstructed"}
    assert "±" in cells["naive_bayes"] and "±" not in cells["nearest"]


def test_shifts_have_names_for_readers(seen):
    """Catches names of functions at the head of a table."""
    view = seen(*FAR)
    view.about["classify"]["shifts"] = ["none", "heavy_noise"]
    table, _ = show.table_class_shifts(view)
    assert {"as they are", "heavy noise", "heavy noise, smoothed"} < set(table.columns)


def test_shifts_without_a_column_are_named(seen):
    """Catches a column that a reader of the page misses without a word."""
    view, shifts = seen(*FAR), ["none", *"abcdef"]
    view.about["classify"]["shifts"] = shifts[:6]
    assert "In the csv alone" not in show.table_class_shifts(view)[1]
    view.about["classify"]["shifts"] = shifts
    table, caption = show.table_class_shifts(view)
    assert "In the csv alone: f, and" in caption and "f" not in table.attrs["shown"]


def test_the_table_of_claims_says_what_decides_them(seen):
    """Catches a table of claims about classifiers that speaks of scores of generated images, and
    hides that the split must be large enough."""
    view = seen(*FAR)
    claim = {"text": "t", "origin": "ours", "rule": "accuracy", "variant": "b", "against": "a"}
    view.about["claims"] = [{**claim, "metric": "accuracy", "better": "higher"}]
    for drawn in (True, False):
        _, caption = table_claims(view)
        words = " ".join(caption.details)
        assert "two binomial standard errors" in words
        assert ("generated images" in words) == ("FID and KID" in words) == drawn
        view.results.metrics.loc[:, "sampler"] = None


@pytest.mark.parametrize(
    "told, words",
    [
        ({"num_images": 200}, "class_baselines.num_images: None: differs from classify.num_images"),
        ({"classes": 3}, "classify.classes: 3: class_baselines tell all 10 classes apart"),
    ],
)
def test_baselines_of_other_images_or_classes_are_refused(tmp_path, told, words):
    """Catches a table whose rows tell other classes apart, on other images, than its models."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        planned(tmp_path, told)
    assert planned(tmp_path, told, measure=["classify"], tables=[], figures=[])
