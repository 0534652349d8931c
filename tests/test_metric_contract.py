"""Metrics of one's own: what they may return and look at, checked where they are called."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.pipeline import metrics
from bench.pipeline.features import Classifier
from bench.pipeline.metric_contract import BUILT_IN
from bench.pipeline.metrics import Extractor, Scored, score
from bench.pipeline.reference import Reference
from bench.study.settings import FeaturesConfig
from srdd.lookup import names_in


def scored():
    """120 grey images against 130 others, and a classifier at its first weights."""
    config, rng = FeaturesConfig(name="tiny6", dim=6, channels=8), np.random.default_rng(0)
    extractor = Extractor(config, torch.device("cpu"), Path("."))
    model = Classifier(config, channels=1, image_size=8, num_classes=4)
    model.init_weights(0)
    extractor.__dict__["classifier"] = model.eval()  # as if read from its file
    generated, real = (rng.integers(0, 200, (count, 1, 8, 8), np.uint8) for count in (120, 130))
    return Scored(generated, np.arange(120) % 4, Reference(real), extractor)


@pytest.fixture
def mine(monkeypatch):
    """Makes a metric of one's own and scores with it: mine(function, *other metrics)."""

    def call(function, *others):
        monkeypatch.setattr(metrics, "metric_mine", function, raising=False)
        return score(scored(), (*others, "mine"))

    return call


NUMBERS = [0.5, 3, np.float32(0.25), np.int64(7), np.float64(-1.5)]


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: type(value).__name__)
def test_numbers_of_every_kind_are_taken(mine, value):
    """Catches a contract that refuses numpy's numbers, or that changes a value."""
    found = mine(lambda scored: {"mine": value, "mine_2": 1})
    assert found == {"mine_tiny6": (float(value), "score"), "mine_2_tiny6": (1.0, "score")}
    assert all(type(number) is float for number, _ in found.values())


def test_what_a_metric_draws_follows_from_its_name_and_nothing_is_left(monkeypatch):
    """Catches a score that changes at every run, and a precision or a generator that the next
    metric, or the job, finds changed."""

    def drawing(scored):
        torch.set_default_dtype(torch.float64)
        return {"mine": float(torch.rand(())) + np.random.rand() + random.random()}

    def failing(scored):
        torch.set_default_dtype(torch.float64)
        raise ArithmeticError("no")

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    given = scored()
    monkeypatch.setattr(metrics, "metric_mine", drawing, raising=False)
    first = metrics.measured("mine", given)
    torch.rand(7), np.random.rand(7), random.random()
    before = states()
    assert metrics.measured("mine", given) == first
    monkeypatch.setattr(metrics, "metric_mine", failing)
    with pytest.raises(ValueError, match="raises ArithmeticError"):
        metrics.measured("mine", given)
    assert states() == before and torch.get_default_dtype() == torch.float32


WRONG = {
    "nothing": (None, "returns NoneType; a dict"),
    "a number alone": (0.5, "returns float; a dict"),
    "a pair": ((1.0, "share"), "returns tuple; a dict"),
    "nan": ({"mine": float("nan")}, "returns mine: nan; a finite number"),
    "infinity": ({"mine": np.float32(np.inf)}, "returns mine: inf; a finite number"),
    "none": ({"mine": None}, "returns mine: None (NoneType)"),
    "text": ({"mine": "0.5"}, "returns mine: '0.5' (str)"),
    "yes": ({"mine": True}, "returns mine: True (bool)"),
    "a tensor": (
        {"mine": torch.tensor(0.5)},
        "(Tensor); a finite number is needed, such as float(...)",
    ),
    "an array": ({"mine": np.array([1.0, 2.0])}, "(ndarray)"),
    "a complex number": ({"mine": 1 + 2j}, "(complex)"),
    "too large for a float": ({"mine": 10**5000}, "returns mine: inf; a finite number"),
    "a number as name": ({3: 0.5}, "returns the name 3"),
    "capitals": ({"LPIPS": 0.5}, "returns the name 'LPIPS'"),
    "a space": ({"my score": 0.5}, "returns the name 'my score'"),
    "an empty name": ({"": 0.5}, "returns the name ''"),
    "the extractor": ({"mine_tiny6": 0.5}, "the extractor's name tiny6 is added here"),
    "the extractor alone": ({"tiny6": 0.5}, "the extractor's name tiny6 is added here"),
    "another evaluator": ({"hot_pixels": 0.5}, "pixels is the name of another evaluator"),
    "a name of the baselines": ({"floor_mine": 0.5}, "returns the name 'floor_mine'"),
}


@pytest.mark.parametrize("found, said", WRONG.values(), ids=WRONG)
def test_wrong_results_are_one_line_with_the_name(mine, found, said):
    """Catches an empty cell with status ok, a number under a name that nobody reads, and an error
    that names no function."""
    with pytest.raises(ValueError) as error:
        mine(lambda scored: found)
    text = str(error.value)
    assert (
        text.startswith("bench/pipeline/metrics.py: metric_mine: ")
        and said in text
        and "\n" not in text
    )


def test_two_metrics_may_not_share_a_name(mine):
    """Catches a metric of one's own that overwrites another's number in silence."""
    with pytest.raises(
        ValueError,
        match="metric_mine: returns class_agreement, which metric_class_agreement returns too",
    ):
        mine(lambda scored: {"class_agreement": 1.0}, "class_agreement")
    assert set(mine(lambda scored: {}, "class_agreement")) == {"class_agreement_tiny6"}


def test_a_metric_that_fails_is_one_line(mine):
    """Catches a traceback, and a line that does not say where to look."""

    def failing(scored):
        return {"mine": {}["far\naway"]}

    with pytest.raises(ValueError) as error:
        mine(failing)
    line = failing.__code__.co_firstlineno + 1
    assert str(error.value).startswith("bench/pipeline/metrics.py: metric_mine: raises KeyError: ")
    assert "\n" not in str(error.value) and f"({Path(__file__).name}, line {line})" in str(
        error.value
    )
    with pytest.raises(ValueError, match="metric_mine: raises SystemExit: enough"):
        mine(lambda scored: sys.exit("enough"))
    with pytest.raises(ValueError, match="metric_mine: raises AttributeError: .*labels_n"):
        mine(lambda scored: {"mine": scored.labels_n.mean()})


def test_a_metric_that_needs_more_memory_is_no_mistake_of_its_author(mine):
    """Catches memory that runs out told as a broken metric:
    such a run ends as a row with that status."""

    def greedy(scored):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        mine(greedy)


@pytest.mark.parametrize("what", ["generated", "labels_N"])
def test_what_a_metric_sees_cannot_be_changed(mine, what):
    """Catches a metric that changes the images or labels that the next metric scores."""

    def careless(scored):
        array = getattr(scored, what)
        array[:] = 0
        return {"mine": 0.0}

    with pytest.raises(ValueError, match="metric_mine: raises ValueError: .*read-only"):
        mine(careless)


def _first(scored):
    return scored.layers[0]


def _real(scored):
    return scored.extractor.of_reference(scored.reference.images)[0]


CHANGES = {
    "by torch": (lambda s: _first(s).mul_(0.5), "the layers of the generated images"),
    "by numpy": (lambda s: _first(s).numpy().fill(0), "the layers of the generated images"),
    "in another order": (
        lambda s: np.random.default_rng(0).shuffle(_first(s).numpy()),
        "the layers of the generated images",
    ),
    "of the reference": (lambda s: _real(s).numpy().fill(0), "the layers of reference 0"),
    "radii": (
        lambda s: s.extractor.once("radii", s.reference.images, lambda: None).zero_(),
        "the radii of reference 1",
    ),
    "images of the reference": (
        lambda s: s.reference.images.fill(0),
        "the images of the reference",
    ),
    "the classifier": (
        lambda s: s.extractor.classifier.head.bias.data.fill_(1),
        "the weights of the classifier",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_others_read_too_stays_as_it_is(mine, case):
    """Catches a metric that works in place on what it reads, and so falsifies the scores behind
    it and those of later images with status ok."""
    change, what = CHANGES[case]

    def careless(scored):
        change(scored)
        return {"mine": 0.0}

    others = ("density_coverage",) if case == "radii" else ()
    with pytest.raises(ValueError, match=f"metric_mine: changes {what} in place.*clone"):
        mine(careless, *others)


def test_a_metric_may_work_on_copies_and_keep_what_it_computes(mine):
    """Catches a refusal of a metric that changes nothing that others read."""

    def careful(scored):
        _first(scored).clone().zero_()
        _real(scored).numpy().copy().fill(0)
        own = scored.extractor.once("mine", scored.reference.images, lambda: torch.zeros(3))
        return {"mine": float(own.add_(1).sum())}

    assert mine(careful)["mine_tiny6"].value == 3.0


def test_metrics_that_are_built_in_exist():
    """Catches a metric that is called built in, and so goes unchecked, but is none; and one of the
    project that is taken for one's own, which costs a look at all features."""
    written = names_in(Path(metrics.__file__), "metric")
    assert sorted(BUILT_IN) == [name for name in written if name != "mine"]
