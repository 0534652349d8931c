"""Trainings on some of the training images: which they are, what is reported, what is refused."""

import importlib
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from test_config import edited

from bench.pipeline.datasets import ArrayImages, FileImages, Recorded
from bench.pipeline.held_out import any_order_loss
from bench.pipeline.train_subset import SubsetTrainer, any_order_draws
from bench.pipeline.training import batch_indices
from bench.pipeline.unique_images import chosen_rows
from bench.runtime.verb import Run, main
from bench.runtime.verbs import stages, verbs
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from srdd.checkpoint import load_model
from srdd.config import SamplerConfig
from srdd.cost import sampling_cost

MASKED = {"model.history": 0, "model.mask_prob": 1.0, "training.mask_weight": "elbo"}
SUITE = {
    "claim": "c",
    "measure": ["repetition"],
    "train_seeds": [0],
    "variants": {
        "VAR": {"base": "var", "grid": {"training.unique_images": [12, 200]}},
        "masked": {"base": "var", "delta": MASKED, "grid": {"training.unique_images": [30]}},
    },
}
PLAIN = {"claim": "c", "measure": ["convergence"], "train_seeds": [0],
         "variants": {"VAR": {"base": "var"}}}  # fmt: skip


class Made:
    """The trainings of a suite, run in this process."""

    def __init__(self, root):
        suites = {"suites/repetition": SUITE, "suites/convergence": PLAIN}
        self.root, self.plan = root, load_study(edited(root, **suites))
        wanted = {*self.plan.suites["repetition"], *self.plan.suites["convergence"]}
        stages = ("prepare", "tokenizer", "encode", "train", "train_subset")
        for stage in stages:
            for run_id in sorted(wanted):
                if run_id.startswith(f"{stage}/"):
                    assert self.call(run_id) == 0, run_id

    def about(self, run_id, name, **training):
        about = json.loads(json.dumps(self.plan.jobs[run_id].about))
        about["config"].get("training", {}).update(training)
        path = self.root / "configs" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"study": "smoke", **about}))
        return path

    def call(self, run_id, out=None, **training):
        job, out = self.plan.jobs[run_id], out or self.root / run_id
        path = self.about(run_id, out.name, **training)
        inputs = [w for role, read in job.inputs.items() for w in (f"--{role}", self.root / read)]
        words = [path, out, *inputs, "--threads", "1", "--device", "cpu"]
        verb = stages()[job.stage].name
        work = importlib.import_module(verbs()[verb].module).work
        with pytest.raises(SystemExit) as left:
            main(verb, work, tuple(job.inputs), [*map(str, words)])
        return left.value.code or 0

    def find(self, stage, **settings):
        for run_id, job in self.plan.jobs.items():
            told = {**job.config.get("training", {}), **job.config.get("model", {})}
            if job.stage == stage and settings.items() <= told.items():
                return run_id
        raise KeyError(stage)

    def rows(self, run_id):
        return pd.read_csv(self.root / run_id / "metrics.csv")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("subset"))


def values(rows, metric):
    of_metric = rows[rows["metric"] == metric]
    return dict(zip(of_metric["step"].fillna(-1).astype(int), of_metric["value"]))


# ---------------------------------------------------------------- which images


def images_of(count, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return ArrayImages(
        rng.integers(0, 256, (count, 1, 4, 4)).astype(np.uint8), np.arange(count) % classes
    )


def test_fewer_images_are_among_more():
    """Catches sets that are not nested, the first of the split, and a class that is left out."""
    images = images_of(90)
    sets = {count: set(chosen_rows(images, count).tolist()) for count in (3, 10, 30, 89, 90)}
    for count, rows in sets.items():
        assert len(rows) == count and {int(images.labels_N[i]) for i in rows} == {0, 1, 2}
    ordered = list(sets.values())
    assert all(fewer < more for fewer, more in zip(ordered, ordered[1:]))
    assert sets[30] != set(range(30)) and chosen_rows(images, 90).tolist() == list(range(90))


def test_images_are_known_by_their_content():
    """Catches a choice by place: the same images in another order are the same set."""
    images, order = images_of(60), np.random.default_rng(1).permutation(60)
    other = ArrayImages(images.images_NCHW[order], images.labels_N[order])
    chosen = {images.images_NCHW[i].tobytes() for i in chosen_rows(images, 20)}
    assert chosen == {other.images_NCHW[i].tobytes() for i in chosen_rows(other, 20)}
    sums = np.random.default_rng(2).integers(0, 256, (60, 32)).astype(np.uint8)
    recorded = Recorded(np.zeros(60), np.zeros(60), sums)
    files = FileImages([], images.labels_N, 4, 1, recorded=recorded)
    object.__setattr__(files, "paths", [None] * 60)
    rows = chosen_rows(files, 20)
    again = FileImages([None] * 60, images.labels_N[order], 4, 1, recorded=Recorded(
        np.zeros(60), np.zeros(60), sums[order]))  # fmt: skip
    assert {sums[i].tobytes() for i in rows} == {
        sums[order][i].tobytes() for i in chosen_rows(again, 20)
    }


def test_more_than_there_are_is_refused_with_their_number(made, capsys):
    """Catches a set that silently is the whole split."""
    with pytest.raises(ConfigError) as error:
        chosen_rows(images_of(20), 21)
    assert str(error.value) == (
        "training.unique_images: 21: the training split has 20; give as many or fewer"
    )


# ---------------------------------------------------------------- training


def test_all_images_are_the_training_of_today(made):
    """Catches another batch, another draw, another weight where nothing is left out."""
    all_of_them, today = made.find("train_subset", unique_images=200), made.find("train", steps=12)
    first, second = (
        load_model(made.root / run / "model.safetensors").state_dict()
        for run in (all_of_them, today)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows, plain = made.rows(all_of_them), made.rows(today)
    for metric in ("loss_train", "loss_val", "loss_test", "kept_loss_test"):
        assert values(rows, metric) == values(plain, metric)
    assert "unique_images" not in set(plain["metric"])


def test_epochs_are_counted_and_fewer_images_than_a_batch_train(made):
    """Catches epochs of the whole split, and a set smaller than a batch that is not drawn from."""
    few = made.rows(made.find("train_subset", unique_images=12))
    assert values(few, "epochs") == pytest.approx({4: 4 * 16 / 12, 8: 8 * 16 / 12, 12: 16.0})
    assert values(few, "unique_images") == {-1: 12}
    kept = int(values(few, "kept_step")[-1])
    assert values(few, "epochs_to_best")[-1] == pytest.approx(kept * 16 / 12)
    assert values(few, "best_loss")[-1] == values(few, "kept_loss_test")[-1]
    assert "loss_one_epoch" in set(few["metric"]) or 4 * 16 / 12 >= 2
    all_of_them = made.rows(made.find("train_subset", unique_images=200))
    assert values(all_of_them, "loss_train") != values(few, "loss_train")
    assert not len(all_of_them[all_of_them["metric"] == "loss_one_epoch"]), "0.96 epochs at most"


def test_a_step_draws_the_chosen_images_alone(made, tmp_path):
    """Catches tokens and labels of different images, and images that were not chosen."""
    trainer = trainer_of(made, made.find("train_subset", unique_images=12), tmp_path)
    tokens = np.load(made.root / made.find("encode") / "train_tokens.npy")
    labels = np.load(made.root / made.find("prepare") / "train_labels.npy")
    data = made.root / made.find("prepare")
    rows = chosen_rows(ArrayImages(np.load(data / "train_images.npy"), labels), 12)
    pairs = {(tokens[i].tobytes(), int(labels[i])) for i in rows}
    seen = set()
    for step in range(3):
        batch = trainer.batch(step)
        kept = batch.labels_B != trainer.model_config.null_label
        for row, label in zip(batch.tokens_BL[kept].numpy(), batch.labels_B[kept].tolist()):
            seen.add((row.astype(tokens.dtype).tobytes(), label))
    assert seen and seen <= pairs
    assert len(trainer.split("val")) == len(np.load(data / "val_labels.npy"))


def test_the_bound_along_the_training_is_that_of_its_weights(made, tmp_path):
    """Catches a bound of other weights, other masks or another split, and its error."""
    run_id = made.find("train_subset", unique_images=30)
    rows = made.rows(run_id)
    bounds, errors = values(rows, "loss_test_any_order"), values(rows, "loss_test_any_order_error")
    assert set(bounds) == {-1, 4, 8, 12} and set(errors) == {4, 8, 12}
    kept = int(values(rows, "kept_step")[-1])
    assert bounds[kept] == pytest.approx(bounds[-1], abs=1e-6)
    one_pass = values(rows, "kept_loss_test")[-1]
    assert values(rows, "best_loss")[-1] == min(one_pass, bounds[-1])
    trainer = trainer_of(made, run_id, tmp_path)
    model = load_model(made.root / run_id / "model.safetensors").eval()
    draws = any_order_draws(model, trainer.split("test"), 4)
    assert draws.mean() == pytest.approx(any_order_loss(model, trainer.split("test"), 4).mean)
    assert errors[kept] == pytest.approx(draws.std(ddof=1) / 2, rel=1e-3) and errors[kept] > 0


def test_operations_of_a_step_are_three_passes(made):
    """Catches operations of another model, and of sampling with guidance."""
    run_id = made.find("train_subset", unique_images=30)
    model = load_model(made.root / run_id / "model.safetensors").config
    found = values(made.rows(run_id), "train_flops_image")[-1]
    assert found == 3 * sampling_cost(model, SamplerConfig()).flops


def trainer_of(made, run_id, out, **training):
    from argparse import Namespace

    folders = {role: made.root / read for role, read in made.plan.jobs[run_id].inputs.items()}
    config = made.about(run_id, out.name, **training)
    options = Namespace(config=config, out=out, device="cpu", **folders)
    return SubsetTrainer(Run("train_subset", options, tuple(folders)))


def test_a_killed_training_keeps_its_bounds(made, tmp_path):
    """Catches bounds of before a kill that are lost, and rows that differ then."""
    run_id = made.find("train_subset", unique_images=30)
    killed = trainer_of(made, run_id, tmp_path / "out")
    killed.restore()
    killed.stopped = lambda: killed.state.step == 7  # it saved at 6
    killed.loop()
    assert set(killed.bounds) == {4}
    resumed = trainer_of(made, run_id, tmp_path / "out")
    resumed.restore()
    assert resumed.state.step == 6 and resumed.bounds == killed.bounds
    assert made.call(run_id, tmp_path / "out") == 0
    again = pd.read_csv(tmp_path / "out" / "metrics.csv")
    rows = made.rows(run_id)
    for metric in ("loss_test", "loss_test_any_order", "best_loss", "epochs"):
        assert values(again, metric) == values(rows, metric)


def test_what_is_made_to_be_scored_is_no_training(made, tmp_path, monkeypatch):
    """Catches seconds of a training that hold evaluations, states to resume from, or the making of
    snapshots, for which a regression runs over all training images."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("bench.runtime.clock.time", clock)
    trainer = trainer_of(made, made.find("train_subset", unique_images=30), tmp_path / "out")
    monkeypatch.setattr(trainer.resume, "due", lambda step: True)
    spent = {"step": 1.0, "snapshot": 1000.0, "evaluate": 100_000.0, "save": 1e7}

    def slow(name):
        call, seconds = getattr(trainer, name), spent[name]

        def taking(*given):
            now[0] += seconds
            return call(*given)

        monkeypatch.setattr(trainer, name, taking)

    for name in spent:
        slow(name)
    trainer.loop()
    assert [row.seconds for row in trainer.state.log] == [row.step for row in trainer.state.log]


# ---------------------------------------------------------------- plan


def changed(tmp_path, **delta):
    """The plan of the suite with one variant that is changed."""
    entry = {"base": "var", "delta": {"training.unique_images": 30, **delta}}
    suite = {**SUITE, "variants": {"one": entry}}
    return load_study(edited(tmp_path, **{"suites/repetition": suite}))


def test_no_number_of_images_is_no_other_job(tmp_path):
    """Catches a default that stands in the name of a job."""
    before = load_study(edited(tmp_path))
    plain = {
        **PLAIN,
        "variants": {"VAR": {"base": "var", "delta": {"training.unique_images": None}}},
    }
    with_null = load_study(edited(tmp_path, **{"suites/plain": plain}))
    trains = {run for run in with_null.jobs if run.startswith("train")}
    assert trains == {run for run in before.jobs if run.startswith("train")}


BAD = {
    "more than there are": ({"training.unique_images": 300}, "the training split has at most 200"),
    "fewer than classes": ({"training.unique_images": 9}, "some of the 10 classes"),
    "none": ({"training.unique_images": 0}, "greater than or equal to 1"),
    "a word": ({"training.unique_images": "all"}, "valid integer"),
    "a student": (
        {"distill": {"arm": "real", "teacher": {"base": "var"}}},
        "distill.arm real learns from what its teacher knows of all training images",
    ),
    "a teacher": (
        {"training.unique_images": None, "distill": {
            "arm": "real", "teacher": {"base": "var", "delta": {"training.unique_images": 201}}}},
        "variants.one.distill.teacher.training.unique_images: 201",
    ),
    "a regression": ({"model.head": "gauss", "sampler.name": "gauss"}, "head gauss is trained"),
    "nobody counts": ({"training.unique_images": None}, "measure repetition counts epochs"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_any_work(tmp_path, case):
    """Catches what would show after a tokenizer was trained only."""
    delta, words = BAD[case]
    with pytest.raises(ConfigError) as error:
        changed(tmp_path, **delta)
    text = str(error.value)
    assert words in text and "unique_images" in text and "\n" not in text, text
    assert "suites.repetition.variants.one" in text


def test_what_is_hardly_meant_is_said_once(tmp_path):
    """Catches evaluations along a falling rate, a batch larger than the set, a fit of one point,
    and a line for each of many variants."""
    said = changed(tmp_path, **{"training.unique_images": 12}).warnings
    said = [line for line in said if line.startswith("suites.repetition.")]
    assert "variants.one: training.unique_images: fewer than batch_size" in said[0]
    assert "no entry has 3 numbers of unique images" in said[1] and len(said) == 2
    grid = {"training.unique_images": [10, 11, 100]}
    suite = {**SUITE, "variants": {"one": {"base": "var", "grid": grid}}}
    lines = load_study(edited(tmp_path, **{"suites/repetition": suite})).warnings
    said = [line for line in lines if line.startswith("suites.repetition.")]
    assert "variants.one, unique_images 10 (and 1 more): training.unique_images" in said[0]
    assert "(and 2 more): training.final_lr: an evaluation along" in said[1] and len(said) == 2


@pytest.mark.parametrize("count, batch_size", [(7, 5), (5, 7), (4, 12), (6, 3), (1, 4)])
def test_batches_are_epochs_joined_end_to_end(count, batch_size):
    """Catches an image that is drawn twice in an epoch, or left out, where a batch ends one epoch
    and begins the next."""
    drawn = np.concatenate([batch_indices(count, batch_size, 3, step) for step in range(count)])
    epochs = drawn.reshape(batch_size, count)
    assert (np.sort(epochs, 1) == np.arange(count)).all()
    assert count < 4 or len(set(map(tuple, epochs.tolist()))) > 1, "orders differ"


def test_what_starts_again_leaves_no_checkpoint_beside_its_snapshots(made, tmp_path):
    """Catches snapshots of two versions of the code in one training, where the second one was
    stopped before its first checkpoint and the first one came back; and a checkpoint that is lost
    while nothing was written."""
    run_id = made.find("train_subset", unique_images=30)

    def begun_at(source, until):
        out = tmp_path / "out"
        trainer = trainer_of(made, run_id, out, snapshot_every=2, save_every=6)
        trainer.run.source = source
        trainer.restore()
        first_step = trainer.state.step
        trainer.stopped = lambda: trainer.state.step >= until
        trainer.loop()
        return first_step, sorted(int(path.stem[5:]) for path in (out / "snapshots").iterdir())

    assert begun_at("first", 7) == (0, [2, 4, 6])
    assert begun_at("second", 1) == (0, [2, 4, 6])
    assert begun_at("first", 7) == (6, [2, 4, 6])
    assert begun_at("second", 3) == (0, [2])
    assert begun_at("first", 5) == (0, [2, 4])
