"""Which classes are asked for: the rule itself, and every verb that draws images or compares with
them."""

import csv
import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_zero_shot import SMOKE, Made

from bench.experiments.error_propagation import verb as error_propagation
from bench.pipeline import evaluators, metrics, train_features
from bench.pipeline.artefacts import open_samples
from bench.pipeline.baselines import chosen_rows, drawn_rows
from bench.pipeline.datasets import ArrayImages
from bench.pipeline.features import Classifier, load_classifier
from bench.pipeline.labels import (
    GOLDEN,
    asked_labels,
    class_shares,
    in_shares,
    in_turn,
    labels_of,
    partners,
)
from bench.pipeline.metrics import Extractor, Scored, score
from bench.pipeline.reference import Chosen, Reference, half_rows, halves
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.settings import EvaluationConfig, FeaturesConfig
from workflow import sign

SHARES = st.lists(st.integers(0, 10**6), min_size=1, max_size=12).filter(any)


def counts_of(labels, num_classes):
    return np.bincount(labels, minlength=num_classes)


# ---------------------------------------------------------------- the rule


@given(SHARES, st.integers(0, 2**62), st.integers(1, 4000))
def test_any_window_of_seeds_has_the_shares(shares, first, count):
    """Catches a rare class that comes too often or never, a half with other shares,
    and precision lost at large seeds."""
    labels = labels_of(range(first, first + count), np.array(shares), "training")
    wanted = count * np.array(shares) / sum(shares)
    found = counts_of(labels, len(shares))
    assert labels.dtype == torch.int64 and len(found) == len(shares)
    assert (np.abs(found - wanted) <= 2 + np.log2(count) / 2).all()
    assert not found[np.array(shares) == 0].any()


@given(SHARES, st.integers(0, 2**70), st.integers(1, 40))
def test_a_label_is_its_seeds_alone(shares, first, count):
    """Catches a label that changes with the number of images, the first seed,
    the batch or the half that is scored."""
    seeds = range(first, first + count)
    for rule in ("training", "balanced") if all(shares) else ("training",):
        whole = labels_of(seeds, np.array(shares), rule).tolist()
        assert whole == [labels_of([seed], np.array(shares), rule).item() for seed in seeds]
        assert (
            whole[count // 2 :] == labels_of(seeds[count // 2 :], np.array(shares), rule).tolist()
        )


@pytest.mark.parametrize("seed", [0, 1, 7, 10**6, 10**18, 2**63 + 5])
def test_labels_by_exact_arithmetic(seed):
    """Catches rounding at the border of two classes, and a place in [0,
    1) that floats cannot tell."""
    shares = [3, 0, 1, 10**9, 2]
    place = Fraction(seed * GOLDEN % 2**64, 2**64)
    wanted = next(k for k in range(5) if place < Fraction(sum(shares[: k + 1]), sum(shares)))
    assert labels_of([seed], np.array(shares), "training").item() == wanted


def test_balanced_labels_are_seeds_modulo_classes():
    """Catches a setting that changes nothing, and a class without training images that is asked for
    all the same."""
    assert labels_of(range(5, 11), np.array([90, 5, 1]), "balanced").tolist() == [2, 0, 1, 2, 0, 1]
    with pytest.raises(
        ValueError, match="evaluation.labels: balanced asks for class 1.*use training"
    ):
        labels_of(range(4), np.array([9, 0, 1]), "balanced")
    with pytest.raises(ValueError, match="evaluation.labels: 'even' is no rule"):
        labels_of(range(4), np.array([9, 1]), "even")
    with pytest.raises(ValueError, match="labels 0 to 3: 3 classes"):
        class_shares(np.array([0, 3]), 3)


def test_rows_in_turn_and_in_shares():
    """Catches the first images of a folder taken for all of it:
    they are those of its first classes."""
    labels = np.repeat([0, 1, 2, 3], [900, 60, 39, 1])
    for count in (1, 10, 100, 999, 1000, 5000):
        rows = in_shares(labels, count)
        assert len(set(rows.tolist())) == min(count, 1000) and (np.diff(rows) > 0).all()
        wanted = min(count, 1000) * np.array([0.9, 0.06, 0.039, 0.001])
        assert (np.abs(counts_of(labels[rows], 4) - wanted) < 1).all()
    assert labels[in_turn(labels, 9)].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1]


# ---------------------------------------------------------------- floor and reconstruction


def two_classes(counts, seed):
    """Dark and bright noise of a share that is not even."""
    labels = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (len(labels), 1, 8, 8)) + 130 * labels[:, None, None, None]
    return ArrayImages(images.astype(np.uint8), labels)


def fid_of(images, rows, reference):
    config = FeaturesConfig(name="two6", dim=6, channels=8)
    extractor = Extractor(config, torch.device("cpu"), None)
    model = Classifier(config, channels=1, image_size=8, num_classes=2)
    model.init_weights(0)
    extractor.__dict__["classifier"] = model.eval()  # as if read from its file
    scored = Scored(Chosen(images, rows), images.labels_N[rows], Reference(reference), extractor)
    return score(scored, ("fidelity",))["fid_two6"][0]


@pytest.mark.parametrize("rule", ["training", "balanced"])
def test_the_floor_is_what_real_images_of_the_labels_score(rule):
    """Catches a floor of other classes than the samples:
    nothing could score what it says a perfect generator scores."""
    train, test = two_classes((1710, 90), 0), two_classes((475, 25), 1)
    evaluation = EvaluationConfig(num_images=1000, labels=rule)
    floor = chosen_rows(train.labels_N, 2, evaluation, 0)
    asked = labels_of(range(1000), class_shares(train.labels_N, 2), rule).numpy()
    assert np.array_equal(train.labels_N[floor], asked)
    rng = np.random.default_rng(2)
    drawn = [
        np.array([rng.choice(np.flatnonzero(train.labels_N == label)) for label in asked])
        for _ in range(4)
    ]
    found = [fid_of(train, rows, test) for rows in drawn]
    noise = max(found) - min(found)
    value = fid_of(train, floor, test)
    assert min(found) - 2 * noise <= value <= max(found) + 2 * noise
    # the other rule's floor is far away, so that the line above means something
    if rule == "training":
        other = chosen_rows(
            train.labels_N, 2, evaluation.model_copy(update={"labels": "balanced"}), 0
        )
        assert fid_of(train, other, test) > 5 * max(found)


def test_floor_repeats_only_what_a_class_lacks():
    """Catches an image drawn twice while its class has others, a class that runs out, and a floor
    that moves with the order."""
    train = np.repeat([0, 1], [50, 3])
    rows = drawn_rows(train, np.array([0] * 50 + [1] * 7))
    assert sorted(rows[:50]) == list(range(50)) and set(rows[50:53]) == {50, 51, 52}
    assert rows[50:].tolist() == [*rows[50:53], *rows[50:53], rows[50]]
    assert np.array_equal(rows, drawn_rows(train, train[rows]))
    with pytest.raises(ValueError, match="class 2: the training split has no image"):
        drawn_rows(train, np.array([0, 2]))
    whole = chosen_rows(np.zeros(300, np.int64), 0, EvaluationConfig(num_images=200), 0)
    assert len(set(whole)) == 200 == len(whole)
    assert len(chosen_rows(train, 2, EvaluationConfig(num_images=200), 0)) == 53


# ---------------------------------------------------------------- samples of one class


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_partners_have_one_label(labels):
    """Catches two samples of different classes taken for two of one,
    and a class of one image paired with itself."""
    found = partners(np.array(labels))
    for i, other in enumerate(found):
        alone = labels.count(labels[i]) == 1
        assert (other == -1) == alone
        assert alone or (other != i and labels[other] == labels[i])
    paired = found[found >= 0]
    assert len(set(paired)) == len(paired)


def test_unrelated_drift_compares_samples_of_one_class():
    """Catches the drift of two classes given out as that of two samples of one,
    and NaN where no class has two."""
    labels = torch.tensor([0, 0, 1, 0, 2, 0])
    latents = torch.tensor([1.0, 1.0, 50.0, 1.0, 9.0, 1.0]).view(6, 1, 1, 1)
    assert error_propagation.unrelated(latents, labels) == 0
    latents[3] = 2.0
    assert error_propagation.unrelated(latents, labels) == pytest.approx((0 + 1 + 0.5 + 0) / 4)
    assert error_propagation.unrelated(latents, torch.arange(6)) is None


# ---------------------------------------------------------------- the verbs


class Skewed(Made):
    """The smoke study up to a model, its training split cut to few images of the last classes."""

    def __init__(self, root):
        self.root, self.plan = root, load_study(SMOKE)
        self.folders = {run_id: root / run_id for run_id in self.plan.jobs}
        self.data = root / self.of("prepare")[0]
        assert self.run(self.of("prepare")[0]) == 0
        labels, images = (np.load(self.data / f"train_{name}.npy") for name in ("labels", "images"))
        rank = np.array([(labels[:i] == label).sum() for i, label in enumerate(labels)])
        kept = rank < np.array([99] * 6 + [4, 3, 2, 1])[labels]
        np.save(self.data / "train_labels.npy", labels[kept])
        np.save(self.data / "train_images.npy", images[kept])
        sign(self.data)
        self.shares = class_shares(labels[kept], 10)
        self.sample = self.named("sample/hNone")
        for run_id in ("features/", "tokenizer/", "encode/1.2.4", "train/hNone", "sample/hNone"):
            assert self.run(self.named(run_id)) == 0

    def named(self, start):
        """A job of a stage; of training seed 0, and of the kept weights,
        where there are several."""
        found = [run_id for run_id in self.of(start.split("/")[0]) if run_id.startswith(start)]
        return next(
            r for r in found if "-s1-" not in r and not self.plan.jobs[r].config.get("snapshots")
        )

    def asked(self, seeds):
        return labels_of(seeds, self.shares, "training").numpy()


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    return Skewed(tmp_path_factory.mktemp("skewed"))


def test_samples_have_the_shares_of_the_training_split(skewed):
    """Catches images asked for as if all classes were equally frequent."""
    labels = np.load(skewed.root / skewed.sample / "labels.npy")
    assert np.array_equal(labels, skewed.asked(range(200)))
    assert (np.abs(counts_of(labels, 10) - 200 * skewed.shares / skewed.shares.sum()) < 4).all()
    assert not asked_labels(skewed.data, 0, range(200), "balanced").any()


def test_scores_read_the_labels_that_were_asked_for(skewed, tmp_path):
    """Catches a class agreement of other labels, or of another number of images,
    than those that were drawn."""
    evaluate = skewed.named("evaluate/hNone")
    assert skewed.run(evaluate) == 0
    assert float(skewed.rows(evaluate)["class_agreement_digits16", ""]["value"]) <= 1
    folder = tmp_path / "sample"
    shutil.copytree(skewed.root / skewed.sample, folder)
    asked = skewed.asked(range(200))
    assert open_samples(folder, asked)[1] == [None]
    with pytest.raises(
        ConfigError, match=r"images.npy: shape \(1, 200\), the evaluation asks for \(1, 150\)"
    ):
        open_samples(folder, asked[:150])
    np.save(folder / "labels.npy", asked[:150])
    with pytest.raises(
        ConfigError, match=r"labels.npy: shape \(150,\), the evaluation asks for \(200,\)"
    ):
        open_samples(folder, asked)
    np.save(folder / "labels.npy", np.arange(200) % 10)
    sign(folder)
    error = skewed.run(evaluate, tmp_path / "out", sample=folder)
    assert (
        isinstance(error, str)
        and "\n" not in error
        and "labels.npy" in error
        and "sample again" in error
    )


def test_baselines_say_what_they_repeat(skewed):
    """Catches a floor of other classes than the samples,
    and repeated images that nobody hears of."""
    run_id = skewed.named("baselines/1.2.4")
    assert skewed.run(run_id) == 0
    rows, train = skewed.rows(run_id), np.load(skewed.data / "train_labels.npy")
    evaluation = EvaluationConfig(**skewed.plan.jobs[run_id].config["evaluation"])
    chosen = chosen_rows(train, 10, evaluation, 0)
    repeated = len([row for row in set(chosen) if (chosen == row).sum() > 1])
    assert (
        rows["floor_repeated", ""]["value"] == str(repeated)
        and rows["floor_repeated", ""]["unit"] == "images"
    )
    assert (
        rows["floor_fid_digits16", ""]["num_images"] == str(len(train))
        and ("reconstruction_fid_digits16", "") in rows
    )
    for line in ("floor", "reconstruction"):
        for name in ("cas_digits16", "fid_pixels", "variance_pixels", "coverage_digits16"):
            assert (f"{line}_{name}", "") in rows
    assert np.array_equal(train[chosen], skewed.asked(range(len(train))))


def test_the_reference_has_an_inception_score(skewed, tmp_path):
    """Catches the IS of other images than those that scores are held against, or of none."""
    run_id = skewed.named("baselines/1.2.4")
    assert skewed.run(run_id, tmp_path / "out") == 0
    row = next(
        row
        for row in csv.DictReader((tmp_path / "out" / "metrics.csv").open(encoding="utf-8"))
        if row["metric"] == "reference_is_digits16"
    )
    classifier = load_classifier(skewed.root / skewed.named("features/") / "features.safetensors")
    test = np.load(skewed.data / "test_images.npy")
    with torch.no_grad():
        logits = classifier(torch.from_numpy(test))
    assert row["num_images"] == str(len(test)) and row["model"] == "1.2.4"
    assert float(row["value"]) == pytest.approx(metrics.inception_score(logits), rel=1e-5)


def test_what_takes_a_training_is_scored_once(skewed, tmp_path):
    """Catches a classifier trained for every set of a sweep, or for none of the final samples."""
    for start, there in (("evaluate/hNone", True), ("sweep/hNone", False)):
        out = tmp_path / start.split("/")[0]
        assert skewed.run(skewed.named(start), out) == 0
        text = (out / "metrics.csv").read_text(encoding="utf-8")
        assert "kid_digits16" in text and ("cas_digits16" in text) == there


def test_halves_of_a_sweep_have_the_shares(skewed, tmp_path, monkeypatch):
    """Catches a half that is tuned on other classes than the half that it is scored on, or on the
    same images of the reference."""
    seen, held = [], []
    monkeypatch.setattr(
        evaluators,
        "score",
        lambda scored, names: (
            held.append(scored.reference.images) or seen.append(scored.labels_N) or {}
        ),
    )
    assert skewed.run(skewed.named("sweep/hNone"), tmp_path / "out") == 0
    whole, *halves = held[:3]
    rows = [set(half.rows_N.tolist()) for half in halves]
    assert not rows[0] & rows[1] and rows[0] | rows[1] == set(range(len(whole)))
    assert all(held[i] is held[i % 3] for i in range(len(held))), "features are kept by object"
    text = (tmp_path / "out" / "metrics.csv").read_text()
    for start, half in zip((0, 100), halves):
        assert f",{start},{start + 99},100,half_reference_images,,,,{len(half)}," in text
    assert [len(labels) for labels in seen[:3]] == [200, 100, 100] and len(seen) % 3 == 0
    for start, labels in zip((0, 0, 100), seen[:3]):
        assert np.array_equal(labels, skewed.asked(range(start, start + len(labels))))
        wanted = len(labels) * skewed.shares / skewed.shares.sum()
        assert (np.abs(counts_of(labels, 10) - wanted) < 3).all()


def test_a_reference_in_halves():
    """Catches a class that only one half has, halves of neighbours in a sorted folder, other halves
    next time, and a half too small for a score."""
    labels = np.repeat([2, 0, 1], [150, 5, 61])
    first, second = half_rows(labels)
    assert sorted([*first, *second]) == list(range(216)) and len(first) == len(second) == 108
    assert (np.abs(counts_of(labels[first], 3) - counts_of(labels[second], 3)) <= 1).all()
    assert not np.array_equal(first, np.arange(0, 216, 2)) and (np.diff(first) > 0).all()
    assert np.array_equal(half_rows(labels)[0], first)
    images = np.arange(216, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8)
    pair = halves(Reference(ArrayImages(images, labels)))
    assert [part.images.read([0, 7])[:, 0, 0, 0].tolist() for part in pair] == [
        [first[0], first[7]],
        [second[0], second[7]],
    ]
    assert np.array_equal(pair[1].images.labels_N, labels[second])
    assert halves(Reference(ArrayImages(images[:199], labels[:199]))) is None
    given = Reference(ArrayImages(images, labels), {"mu": np.zeros(2), "sigma": np.eye(2)})
    assert halves(given) == (given, given), "statistics of a file cannot be taken apart"


def test_error_propagation_asks_for_the_shares(skewed, tmp_path, monkeypatch):
    """Catches clean samples of other classes than every other measure,
    and drift between two classes."""
    seen, unrelated = [], error_propagation.unrelated
    monkeypatch.setattr(
        error_propagation,
        "unrelated",
        lambda f, labels: seen.append(labels) or unrelated(f, labels),
    )
    monkeypatch.setattr(evaluators, "score", lambda scored, names: {})
    run_id = skewed.named("error_propagation/hNone")
    assert skewed.run(run_id, tmp_path / "out") == 0
    assert np.array_equal(seen[0].numpy(), skewed.asked(range(100)))
    assert "drift_unrelated" in (tmp_path / "out" / "metrics.csv").read_text()


@pytest.mark.parametrize(
    "start", ["baselines/1.2.4", "evaluate/hNone", "sweep/hNone", "error_propagation/hNone"]
)
def test_a_broken_metric_ends_a_verb_with_one_line(skewed, tmp_path, monkeypatch, start):
    """Catches an empty cell with status ok, and a traceback, in any verb that scores."""
    monkeypatch.setattr(
        metrics, "metric_class_agreement", lambda scored: {"class_agreement": float("nan")}
    )
    error = skewed.run(skewed.named(start), tmp_path / "out")
    assert isinstance(error, str) and "\n" not in error
    assert error.startswith(
        "error: bench/pipeline/metrics.py: metric_class_agreement: returns class_agreement: nan"
    )
    assert not (tmp_path / "out" / "row.json").exists()


@pytest.mark.parametrize("start", ["snr/1.2.4", "equivalence/hNone", "features/"])
def test_probes_read_held_out_images_of_every_class(skewed, tmp_path, monkeypatch, start):
    """Catches a number of the first classes alone, given out as that of the held-out split of a
    folder."""
    shutil.copytree(skewed.data, tmp_path / "data")
    order = np.argsort(np.load(skewed.data / "test_labels.npy"), kind="stable")
    for name in ("images", "labels"):
        np.save(
            tmp_path / "data" / f"test_{name}.npy", np.load(skewed.data / f"test_{name}.npy")[order]
        )
    sign(tmp_path / "data")
    seen, read = [], ArrayImages.read

    def recorded(self, indices, *more):
        if len(self) == len(order):
            seen.extend(self.labels_N[np.asarray(indices)].tolist())
        return read(self, indices, *more)

    monkeypatch.setattr(ArrayImages, "read", recorded)
    monkeypatch.setattr(train_features, "ACCURACY_IMAGES", 30)
    assert skewed.run(skewed.named(start), tmp_path / "out", data=tmp_path / "data") == 0
    assert len(seen) <= 40 and min(seen) <= 1 and max(seen) >= 8 and len(set(seen)) >= 7


def test_the_rule_is_part_of_a_jobs_name(tmp_path):
    """Catches samples of one rule that are taken for those of the other."""
    text = SMOKE.read_text()
    (tmp_path / "balanced.yaml").write_text(
        text.replace("num_images: 200,", "num_images: 200, labels: balanced,")
    )
    plans = [load_study(path) for path in (SMOKE, tmp_path / "balanced.yaml")]
    for stage in ("sample", "evaluate", "baselines", "sweep", "error_propagation"):
        ours, theirs = (
            {run_id for run_id in plan.jobs if run_id.startswith(f"{stage}/")} for plan in plans
        )
        assert ours and not ours & theirs, stage
    assert json.loads(plans[1].study.model_dump_json())["evaluation"]["labels"] == "balanced"
    (tmp_path / "wrong.yaml").write_text(
        text.replace("num_images: 200,", "num_images: 200, labels: even,")
    )
    with pytest.raises(ConfigError, match="evaluation.labels: .*'training' or 'balanced'"):
        load_study(tmp_path / "wrong.yaml")
