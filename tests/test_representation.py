"""The room that asks whether a frozen generator improves an encoder: its jobs, what it refuses, its
measures by hand, its arms, rules, figures and tables."""

import itertools
import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from small_study import SEEDS, build, variant
from small_suite import SmallSuite
from test_config import edited

from bench.experiments.representation import measures, show, verb, verb_encoder
from bench.experiments.representation.plan import ARMS, REPORTED, compared, shown_arms
from bench.experiments.representation.plan import Settings as Told
from bench.experiments.representation.reading import NAMES, batch_classes
from bench.pipeline.datasets import ArrayImages
from bench.pipeline.features import train_classifier
from bench.pipeline.labels import in_shares
from bench.pipeline.views import different, view_of
from bench.report.claims import judged
from bench.report.results import Results
from bench.report.view import View
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.settings import FeaturesConfig
from srdd.contrast import Conditioned, Projector
from srdd.noise import generator

VARIANTS = {"SDD": {"base": "sdd"}, "VAR": {"base": "var"}}
CLAIM = {"text": "t", "rule": "arms", "variant": "SDD", "against": "VAR", "better": "higher"}
KNN = "knn_accuracy_dcr_codes_over_naive"


def planned(tmp_path, told=None, variants=None, claims=(), study=None, **more):
    """The plan of a study of digits that asks for this room."""
    suite = {"claim": "c", "measure": ["representation"], "variants": variants or VARIANTS}
    suite |= {"claims": list(claims), "representation": told or {}, **more}
    head = {"study": "enc", "like": "digits", "reduced": "x", "take": [], **(study or {})}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**head, "suites": {"s": suite}}, sort_keys=False))
    return load_study(path)


# ---------------------------------------------------------------- plan


def test_each_arm_of_each_model_is_a_job_of_its_own(tmp_path):
    """Catches an arm that another one renames, a job for every sampler of one model, and a setting
    that only a rule reads in a job's name."""
    again = {"base": "sdd", "delta": {"sampler.temperature": 0.9}}
    plans = [
        planned(tmp_path, told, {**VARIANTS, "cooler": again})
        for told in ({}, {"arms": ["frozen", "naive"]}, {"margin": 0.1})
    ]
    names = [{run for run in plan.jobs if run.startswith("representation/")} for plan in plans]
    assert len(names[0]) == 2 * 3 * len(ARMS) and names[2] == names[0]
    assert len(names[1]) == 2 * 3 * 2 and names[1] < names[0]
    job = next(job for job in plans[0].jobs.values() if job.stage == "representation")
    assert set(job.inputs) == set(verb.INPUTS)
    assert set(plans[0].jobs[job.inputs["encoder"]].inputs) == set(verb_encoder.INPUTS)
    assert "sampler" not in job.config and "sampler" not in job.identity


def test_what_arms_begin_with_is_made_once_for_each_generator(tmp_path):
    """Catches an encoder that every arm trains again, one that two generators share with its
    projector, and one that is trained again for what an arm alone reads."""
    of_arms = {"arms": ["frozen", "recon"], "steps": 3, "lr": 0.1, "tau": 1.0, "margin": 0.1}
    plans = [planned(tmp_path, told) for told in ({}, of_arms, {"dim": 9}, {"batch": 8})]
    names = [{run for run in plan.jobs if run.startswith("representation_encoder/")}
             for plan in plans]  # fmt: skip
    assert len(names[0]) == 2 * 3 and names[1] == names[0]
    assert not names[0] & names[2] and not names[0] & names[3]


NO_NULL = {"SDD": {"base": "sdd", "delta": {"model.class_dropout": 0.0}}}
NO_CLASS = {"SDD": {"base": "sdd", "delta": {"model.num_classes": 0, "model.class_dropout": 0.0}}}
GAUSS = {"SDD": {"base": "sdd", "delta": {"model.head": "gauss", "sampler.name": "gauss"}}}


@pytest.mark.parametrize(
    "told, variants, words",
    [
        ({"batch": 1}, None, "representation.batch"),
        ({"batch": 2000}, None, "representation.batch: 2000: images of a batch differ"),
        ({"tau": 0.0}, None, "representation.tau"),
        ({"tau": -0.1}, None, "representation.tau"),
        ({"arms": ["frozen", "dcr_pixels"]}, None, "representation.arms"),
        ({"arms": ["frozen", "frozen"]}, None, "frozen"),
        ({"arms": ["naive"]}, None, "all are held against frozen"),
        ({"scales": "two"}, None, "representation.scales"),
        ({"pairs": 400}, None, "representation.pairs: 400: more than the 359 test images"),
        ({"neighbours": 9000}, None, "neighbours: 9000: more than the about 1222 training images"),
        ({"neighbours": 101, "probe_images": 100}, None, "101: more than the 100 training images"),
        ({"pairs": 150, "num_images": 100}, None, "more than the 100 test images"),
        ({}, NO_NULL, "model.class_dropout: 0: a condition begins as no class"),
        ({}, NO_CLASS, "model.num_classes: 0"),
        ({}, GAUSS, "predicts no codes"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, told, variants, words):
    """Catches a slip that ends in a traceback after the trainings."""
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, told, variants)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "claim, words",
    [
        ({"metric": "knn_accuracy"}, "compares arms; write <measure>_<arm>_over_<arm>"),
        ({"metric": "knn_accuracy_naive_over_recons"}, "did you mean 'recon'"),
        ({"metric": "knn_accuracy_naive_over_naive"}, "compares naive with itself"),
        ({"metric": "nn_accuracy_naive_over_recon"}, "did you mean 'knn_accuracy'"),
        ({"metric": "conflict_share_recon_over_half"}, "unknown arm 'recon'"),
        ({"metric": "knn_accuracy_naive_over_half"}, "unknown measure 'knn_accuracy'"),
        ({"metric": KNN, "better": None}, "better: is missing"),
        ({"metric": KNN, "margin": 0.1}, "is read by rule same alone"),
    ],
)
def test_a_claim_of_no_arms_is_refused(tmp_path, claim, words):
    """Catches a claim that would be not decided after hours."""
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, claims=[{**CLAIM, **claim}])
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_claim_of_an_arm_that_is_not_asked_for_is_refused(tmp_path):
    """Catches a claim of an arm, or of equal tokens, that the suite leaves out."""
    told = {"arms": ["frozen", "dcr_codes", "recon"], "equal_tokens": False}
    for metric in (KNN, "knn_accuracy_dcr_codes_over_recon_long"):
        with pytest.raises(ConfigError, match="unknown arm"):
            planned(tmp_path, told, claims=[{**CLAIM, "metric": metric}])
    value = {**CLAIM, "rule": "value", "metric": "knn_accuracy_recon"}
    planned(tmp_path, told, claims=[value])
    for metric in ("knn_accuracy_naive", "knn_accuracy_recon_long", "conflict_share_naive"):
        with pytest.raises(ConfigError, match="does not report it of 'SDD' with these settings"):
            planned(tmp_path, told, claims=[{**value, "metric": metric}])
    with pytest.raises(ConfigError, match="add it to representation.arms"):
        planned(tmp_path, told, figures=["gradient_cosine"])
    with pytest.raises(ConfigError, match="shows arms that reconstruct"):
        planned(tmp_path, {"arms": ["frozen"]}, figures=["pair_scores"])
    with pytest.raises(ConfigError, match="'detail_plane' shows what arms add to frozen"):
        planned(tmp_path, {"arms": ["frozen"]}, figures=["detail_plane"])


def test_one_scale_of_a_model_that_looks_back_is_said(tmp_path):
    """Catches a cost that nobody expects, and a caution about a model that runs one scale."""
    alone = {"VAR": VARIANTS["VAR"]}
    warnings = " ".join(planned(tmp_path, variants=alone).warnings)
    assert "scales of 'VAR' look back" in warnings
    for told, variants in (({"scales": "all"}, alone), ({}, VARIANTS)):
        assert "look back" not in " ".join(planned(tmp_path, told, variants).warnings)


def test_metrics_of_arms_are_told_apart():
    """Catches `naive_long` read as the arm naive of another measure."""
    assert compared(KNN) == ("knn_accuracy", "dcr_codes", "naive")
    assert compared("nll_recon_long_over_recon") == ("nll", "recon_long", "recon")
    assert compared("conflict_share_naive_over_half") == ("conflict_share", "naive", "half")
    assert compared("fid") is None and set(shown_arms(ARMS, True)) == set(NAMES)
    assert len(set(REPORTED)) == len(REPORTED)


# ---------------------------------------------------------------- measures by hand


def test_moments_of_ink():
    """Catches x taken for y, a centre that is not that of the image, and a division by no ink."""
    images = np.zeros((3, 1, 5, 5), np.uint8)
    images[0, 0, 1, 4] = 255  # one pixel: above the middle, at the right edge
    images[1, 0, 1, 1] = images[1, 0, 3, 3] = 51  # a diagonal
    detail = measures.detail_of(images)
    np.testing.assert_allclose(detail[0], [1, 2, -1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(detail[1], [0.4, 0, 0, 1, 1, 1], atol=1e-12)
    np.testing.assert_allclose(detail[2], np.zeros(6), atol=1e-12)


def test_probes_of_a_z_that_knows_all_and_of_one_that_knows_nothing():
    """Catches test images among the training ones, an unstandardised number that outweighs others,
    and a constant one that becomes NaN."""
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(400, 2))
    labels = (wanted[:, 0] > 0).astype(int)
    z = np.c_[wanted * [1e-3, 1e3], np.ones(400)]
    split = z[:200], wanted[:200], z[200:], wanted[200:]
    each, together = measures.ridge_r2(*split)
    assert each.min() > 0.99 and together > 0.99
    assert measures.probe_accuracy(z[:200], labels[:200], z[200:], labels[200:]) > 0.97
    noise = rng.normal(size=z.shape)
    assert measures.ridge_r2(noise[:200], wanted[:200], noise[200:], wanted[200:])[1] < 0.05
    angles = np.c_[np.cos(labels), np.sin(labels)] * rng.uniform(1, 9, (400, 1))
    assert measures.knn_accuracy(angles[:200], labels[:200], angles[200:], labels[200:], 5) == 1.0


def test_distances_inside_and_between_classes():
    """Catches an image compared with itself, and lengths that count."""
    z = np.array([[1.0, 0], [0, 5.0], [-2.0, 0]])
    intra, inter = measures.class_distances(z, np.array([0, 0, 1]))
    assert (intra, inter) == pytest.approx((1.0, 1.5))


def test_blind_pairs_by_enumeration():
    """Catches pairs of two classes, of equal tokens, of an image with itself, in another order, and
    a class of one image that fails."""
    rng = np.random.default_rng(1)
    z, labels = rng.normal(size=(9, 3)), np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    tokens = rng.integers(0, 2, (9, 2))
    wanted = []
    for a, b in itertools.combinations(range(9), 2):
        if labels[a] == labels[b] and (tokens[a] != tokens[b]).any():
            cosine = z[a] @ z[b] / np.linalg.norm(z[a]) / np.linalg.norm(z[b])
            wanted.append((-cosine, a, b))
    pairs, cosines = measures.blind_pairs(z, labels, tokens, 4)
    assert [tuple(pair) for pair in pairs] == [(a, b) for _, a, b in sorted(wanted)[:4]]
    np.testing.assert_allclose(cosines, [-one[0] for one in sorted(wanted)[:4]])
    with pytest.raises(ValueError, match=f"have {len(wanted)} pairs of one class"):
        measures.blind_pairs(z, labels, tokens, len(wanted) + 1)


def test_a_view_moves_by_a_pixel_and_is_never_flipped():
    """Catches a flip, a shift that wraps round, and contrast that moves the mean."""
    image = torch.linspace(-1, 1, 8).expand(1, 1, 8, 8)
    views = torch.cat([view_of(image, generator("view", i)) for i in range(40)])
    assert (views.diff(dim=-1) >= -1e-6).all() and views.abs().max() <= 1
    spread = views.std((1, 2, 3)) / image.std()
    assert spread.max() <= 1.11 and spread.min() >= 0.75
    assert len({round(float(view.mean()), 4) for view in views}) > 2


def test_a_batch_holds_no_image_twice():
    """Catches equal images as negatives of one another."""
    tokens = torch.tensor([[1, 2], [1, 2], [3, 4], [1, 2], [5, 6]])
    assert different([3, 0, 2, 1, 4], tokens, 3) == [3, 2, 4]
    with pytest.raises(ValueError, match="3 images with different tokens"):
        different(range(5), tokens, 4)


# ---------------------------------------------------------------- arms


@pytest.fixture
def beginning(make_model, make_ladder):
    """Factory of a training from its first step, on small made images; labels: other ones."""
    settings = Told(dim=4, channels=8, batch=3, steps=4, projector_steps=3, pretrain_steps=5)

    def make(labels=None, history=0, **told):
        model = make_model(history=history).eval().requires_grad_(False)
        V, L, N = model.config.codebook_size, model.schedule.seq_len, 20
        source = generator("images")
        images = torch.randint(0, 256, (N, 1, 8, 8), generator=source).byte().numpy()
        labels_N = np.arange(N) % 3 if labels is None else labels
        tokens = torch.randint(V, (N, L), generator=source)
        train = verb.Images(ArrayImages(images, labels_N), tokens, labels_N)
        config = FeaturesConfig(name="encoder", dim=4, channels=8, steps=5)
        shape = {"channels": 1, "image_size": 8, "num_classes": 3}
        cpu = torch.device("cpu")
        encoder = train_classifier(config, shape, images, np.arange(N) % 3, 0, cpu)
        ladder = make_ladder(model.schedule, V)
        frozen = Conditioned(model, ladder, Projector(4, model.config.width))
        asked = settings.model_copy(update=told)
        batches = verb.Batches(train, asked.batch, 0, cpu)
        verb_encoder.train_projector(asked, batches, encoder, frozen)
        return verb.Training(asked, encoder, frozen, batches)

    return make


def gone_on(training, arm):
    """The same after the steps of an arm, or to equal tokens."""
    for _, more in verb.checkpoints(training, arm, equal_tokens=False):
        training.run_steps(arm, more, lambda: None)
    return training


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_trains_the_encoder_alone(beginning, arm):
    """Catches a generator or projector that is trained with it, an arm that does nothing, a frozen
    one that does, and a label that any arm but supervised reads."""
    training = beginning()
    model, projector = training.frozen.model, training.frozen.projector
    before = [weights(part) for part in (model, projector, training.encoder.trunk)]
    gone_on(training, arm)
    assert same(before[0], weights(model)) and same(before[1], weights(projector))
    assert same(before[2], weights(training.encoder.trunk)) == (arm == "frozen")
    other = gone_on(beginning(labels=np.arange(20)[::-1] % 3), arm)
    blind = same(weights(training.encoder.trunk), weights(other.encoder.trunk))
    assert blind == (arm != "supervised")


def test_tokens_are_counted_as_they_are_run(beginning):
    """Catches a cost that is not B(B + 1) sequences of the scales that were drawn, and arms that
    draw other scales."""
    for history, told in ((0, {}), (None, {}), (0, {"scales": "all"})):
        costs = {}
        for arm in ("recon", "naive", "dcr_codes", "dcr_loglik", "contrast"):
            costs[arm] = gone_on(beginning(history=history, **told), arm).token_evals
        assert costs["recon"] == costs["naive"] and costs["contrast"] == 0
        assert costs["dcr_codes"] == 4 * costs["recon"]
        assert costs["dcr_loglik"] == 3 * costs["recon"]
        if told:
            L = beginning(history=history).frozen.model.schedule.seq_len
            assert costs["recon"] == 4 * 3 * L


def test_a_long_arm_begins_as_the_short_one_and_spends_the_same_tokens(beginning):
    """Catches an arm at equal tokens that is another training, or that stops elsewhere."""
    training = beginning()
    names, steps = [], []
    for name, more in verb.checkpoints(training, "recon", equal_tokens=True):
        training.run_steps("recon", more, lambda: None)
        names, steps = [*names, name], [*steps, training.step]
        if len(names) == 1:
            short = weights(training.encoder.trunk)
            assert same(short, weights(gone_on(beginning(), "recon").encoder.trunk))
    dcr = gone_on(beginning(), "dcr_codes").token_evals
    assert names == ["recon", "recon_long"] and steps[0] == 4 < steps[1]
    last = 3 * max(training.frozen.model.schedule.lengths)
    assert dcr <= training.token_evals < dcr + last


def test_the_sum_of_two_losses_is_what_naive_minimises(beginning):
    """Catches a conflict that is measured and not trained on."""
    training = gone_on(beginning(steps=1), "naive")
    assert len(training.cosines) == 1 and -1 <= training.cosines[0] <= 1
    again = beginning()
    again.encoder.zero_grad()
    sum(again.losses("naive")).backward()
    for left, right in zip(training.trunk_weights, again.trunk_weights):
        torch.testing.assert_close(left.grad, right.grad, atol=1e-6, rtol=1e-4)


def test_a_run_reports_every_number_once(beginning, tmp_path, monkeypatch):
    """Catches a measure without an arm behind it, a number under two names, and pairs that are not
    places in the test split."""
    training = beginning(pairs=3, num_images=None, neighbours=2, probe_images=50)
    rows, train = [], training.batches.train

    def add(metric, value, unit, **identity):
        rows.append((metric, identity.get("repeat"), identity.get("step"), value))

    run = SimpleNamespace(add=add, device=torch.device("cpu"))
    monkeypatch.setattr(verb, "model_identity", lambda run: {"train_seed": 0})
    monkeypatch.setattr(verb.Images, "of", classmethod(lambda cls, run, split: train))
    measured = verb.Measured(run, training.settings, training.frozen, train)
    measured.find_pairs(training.encoder)
    for name, more in verb.checkpoints(training, "naive", equal_tokens=False):
        training.run_steps("naive", more, lambda: None)
        verb.report_training(measured, name, training)
        measured.report(name, training.encoder)
    measured.add_pairs()
    assert len({row[:3] for row in rows}) == len(rows)
    names = {row[0] for row in rows}
    assert {name for name in REPORTED if name.endswith("_naive")} <= names
    values = {row[0]: row[3] for row in rows if row[1] is None and row[2] is None}
    assert all(np.isfinite(value) for value in values.values())
    assert {row[3] for row in rows if row[0] == "pair_first"} <= set(range(20))
    matrix = measured.posterior(training.encoder)
    assert matrix.shape == (1, 1, 3, 3) and matrix.dtype == np.uint8
    assert np.abs(matrix[0, 0].astype(int).sum(1) - 255).max() <= 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The jobs of two arms, run one after the other."""
    root = tmp_path_factory.mktemp("representation")
    told = {
        "arms": ["frozen", "supervised"],
        "dim": 4,
        "channels": 8,
        "pretrain_steps": 5,
        "pairs": 3,
    }
    told |= {"projector_steps": 12, "projector_lr": 0.3, "steps": 2, "lr": 0.01, "batch": 4}
    suite = {"claim": "c", "measure": ["representation"], "train_seeds": [0],
             "variants": {"SDD": {"base": "var", "delta": {"model.history": 0}}},
             "representation": told}  # fmt: skip
    return SmallSuite(root, "arms", edited(root, **{"suites/arms": suite}))


def test_arms_go_on_from_the_encoder_of_one_job(made):
    """Catches an arm that begins elsewhere, an encoder that the arm before it changed, and one that
    another run makes otherwise."""
    (first,) = made.of("representation_encoder")
    frozen, supervised = (made.root / run for run in sorted(made.of("representation")))
    strips = [np.load(folder / "strip.npz") for folder in (frozen, supervised)]
    assert (strips[0]["before"] == strips[1]["before"]).all()
    assert (strips[0]["before"] == strips[0]["after"]).all()
    assert (strips[1]["before"] != strips[1]["after"]).any()
    assert made.call(first, made.root / "again") == 0
    for name in ("encoder", "projector"):
        file = f"{name}.safetensors"
        assert (made.root / "again" / file).read_bytes() == (made.root / first / file).read_bytes()


def test_an_arm_without_a_whole_encoder_fails(made):
    """Catches an arm that trains an encoder of its own, or goes on from one that is cut off."""
    (first,), (run, _) = made.of("representation_encoder"), made.of("representation")
    file = made.root / first / "projector.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    try:
        assert made.call(run, made.root / "cut") != 0
    finally:
        file.write_bytes(whole)


# ---------------------------------------------------------------- what is shown


def results(folder, shift=None):
    """A small study with every number of two generators and three training seeds; shift: what an
    arm adds to a measure, by both."""
    shift = shift or {}
    more, images = [], {}
    for i, name in enumerate(("SDD", "VAR")):
        names = variant(i, name)
        for seed in SEEDS:
            run = f"sample/v{i}-{seed}"
            head = {"study": "x", "dataset": "d", "train_seed": seed, "run_id": run}
            head |= {"num_images": 300, **{key: names[key] for key in ("tokenizer", "model")}}
            for j, metric in enumerate(REPORTED):
                value = 0.7 + 0.001 * seed + 0.002 * i * seed + shift.get(metric, 0.0)
                value += 0.0005 * math.cos(2 * math.pi * seed / 3 + j)  # differs, but for its mean
                more.append({**head, "metric": metric, "value": value})
            for step in (1, 2, 3):
                row = {"metric": "gradient_cosine_naive", "step": step, "value": -0.1 * step}
                more.append({**head, **row})
            for place in range(3):
                for metric, value in (("pair_first", place), ("pair_second", place + 7),
                                      ("pair_cosine", 0.9 - 0.1 * place)):  # fmt: skip
                    more.append({**head, "metric": metric, "repeat": place, "value": value})
            images[f"{run}/before"] = images[f"{run}/after"] = np.zeros((1, 1, 4, 4), np.uint8)
    build(folder, ["SDD", "VAR"], more=more, images=images)
    view = View(Results.load(folder), "s")
    view.about["representation"] = Told().model_dump(mode="json")
    return view


def test_rules_compare_arms_under_both_generators(tmp_path):
    """Catches a difference the wrong way round, one generator that decides alone, a share that the
    test split is too small for, and a margin that is not asked."""
    claim = {**CLAIM, "origin": "ours", "metric": KNN}
    view = results(tmp_path / "more", {"knn_accuracy_dcr_codes": 0.2, "nll_dcr_codes": -0.01})
    assert judged(view, claim)[0] == "yes"
    assert judged(view, {**claim, "better": "lower"})[0] == "no"
    nll = {"metric": "nll_dcr_codes_over_frozen", "better": "lower"}
    assert judged(view, {**claim, **nll})[0] == "yes"
    half = {"metric": "conflict_share_naive_over_half"}
    assert judged(view, {**claim, **half})[0] == "yes"
    keeps = {"rule": "arm_keeps", "metric": "detail_r2_dcr_codes_over_naive"}
    assert judged(view, {**claim, **keeps})[0] == "yes"
    small = results(tmp_path / "small", {"knn_accuracy_dcr_codes": 0.05,
                                         "detail_r2_dcr_codes": -0.03})  # fmt: skip
    word, reason = judged(small, claim)
    assert word == "not decided" and "two standard errors of SDD are" in reason
    assert judged(small, {**claim, **keeps})[0] == "no"
    rows = small.results.metrics
    theirs = rows["model"] == small.variants["VAR"]["model"]
    rows.loc[theirs & (rows["metric"] == "nll_dcr_codes"), "value"] += 0.01
    rows.loc[~theirs & (rows["metric"] == "nll_dcr_codes"), "value"] -= 0.01
    fresh = View(Results(small.results.folder, rows.copy(), small.results.runs,
                         small.results.about, small.results.variants_of), "s")  # fmt: skip
    assert judged(fresh, {**claim, **nll})[0] == "not decided"


def test_figures_and_tables_show_what_was_measured(tmp_path):
    """Catches an arm that is left out, pairs in another order, and a difference to frozen of the
    wrong sign."""
    view = results(tmp_path, {"knn_accuracy_recon": 0.1})
    table, _ = show.table_representation(view)
    assert len(table) == 2 * len(NAMES)
    row = table[table["Encoder"] == "SDD, reconstruction"].iloc[0]
    assert row["kNN minus frozen"].numbers["mean"] == pytest.approx(0.1)
    pairs, caption = show.table_blind_pairs(view)
    assert "steps as a classifier;" in caption
    view.about["representation"]["pretrain_images"] = 50
    assert "steps as a classifier on 50 images;" in show.table_blind_pairs(view)[1]
    assert list(pairs["All"]) == ["0-7 1-8 2-9"] * len(SEEDS)
    figure, _ = show.figure_detail_plane(view)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == [name for arm, name in NAMES.items() if arm != "frozen"]
    drawn = figure.axes[0].containers[labels.index(NAMES["recon"])]
    assert drawn.lines[0].get_ydata() == pytest.approx([0.1])
    figure, _ = show.figure_gradient_cosine(view)
    assert len(figure.axes[0].lines) == 3 and figure._suptitle is None
    metrics = view.results.metrics
    shares = metrics["metric"].eq("conflict_share_naive")
    shares &= metrics["model"].eq(view.variants["VAR"]["model"])
    left = View(Results(view.results.folder, metrics[~shares], view.results.runs,
                        view.results.about, view.results.variants_of), "s")  # fmt: skip
    figure, _ = show.figure_gradient_cosine(left)
    assert "missing: VAR: seeds 0, 1, 2" in figure._suptitle.get_text()
    plt.close("all")


@pytest.mark.parametrize("num_images", [None, 9])
def test_borders_of_classes_are_those_of_the_batch(tmp_path, num_images):
    """Catches white lines that lie beside the classes: the rows are taken in shares of a split, of
    which the report knows the counts alone."""
    view, counts = results(tmp_path), {0: 7, 1: 2, 2: 11}
    rows = [{"metric": "num_test_class", "scale": label, "value": count}
            for label, count in counts.items()]  # fmt: skip
    view.results.metrics = pd.concat([view.results.metrics, pd.DataFrame(rows)])
    view.about["representation"] |= {"num_images": num_images, "batch": 4}
    labels = np.random.default_rng(0).permutation(np.repeat([*counts], [*counts.values()]))
    seen = labels[in_shares(labels, num_images or len(labels))]
    batch = np.sort(seen)[in_shares(np.sort(seen), 4)]  # as verb.Measured.posterior takes them
    assert batch_classes(view).tolist() == batch.tolist()
    figure, axes = plt.subplots()
    show._class_borders(axes, batch)
    assert len(axes.lines) == 2 * (len(set(batch)) - 1) > 0
    plt.close(figure)


def test_matrices_are_those_of_a_generator_that_has_some(tmp_path):
    """Catches an empty figure where the first generator diverged and the second has matrices."""
    view = results(tmp_path)
    rows = view.results.metrics
    gone = rows["run_id"].str.contains("/v0-") & rows["metric"].str.startswith("knn")
    view.results.metrics = rows[~gone]
    shown = [("VAR", "recon", "sample/v1-0")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(show, "matrix_runs", lambda view: shown)
        figure, caption = show.figure_pair_scores(view)
    assert "Generator VAR" in caption and figure.axes[0].images
    assert "SDD: all arms" in figure.get_suptitle()
    plt.close(figure)


def test_older_rows_have_no_borders(tmp_path):
    """Catches a figure that fails where nobody counted the classes of the split."""
    view = results(tmp_path)
    assert len(batch_classes(view)) == 0
    plt.close(show.figure_pair_scores(view)[0])


def test_seconds_of_an_arm_end_when_a_gpu_is_through(monkeypatch):
    """Catches a clock that is read while the last step, or what came before the first, is still at
    work."""
    events = []
    monkeypatch.setattr(verb, "synchronise", lambda device: events.append(f"waits for {device}"))
    training = SimpleNamespace(
        encoder=SimpleNamespace(parameters=list), batches=SimpleNamespace(device="cuda"), step=0,
        losses=lambda arm: [torch.zeros(())], gradients=lambda losses, weights: [], seconds=0.0,
        optimizer=SimpleNamespace(step=lambda: events.append("steps")),
    )  # fmt: skip
    verb.Training.run_steps(training, "supervised", lambda: training.step < 2, lambda: None)
    assert events == ["waits for cuda", "steps", "steps", "waits for cuda"]
