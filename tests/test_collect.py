"""What collect gathers for the figures."""

import json

import numpy as np
import pytest

from bench import collect
from bench.datasets import ArrayPictures
from bench.labels import labels_of


def test_real_pictures_keep_the_order_of_classes(monkeypatch, tmp_path):
    """Catches a class with few held-out pictures that shifts all that follow into the wrong row of the sample grid."""
    labels = np.array([0, 0, 0, 1, 2, 2])
    images = labels[:, None, None, None].astype(np.uint8) * np.ones((1, 1, 2, 2), np.uint8)
    monkeypatch.setattr(collect, "open_split", lambda folder, split: ArrayPictures(images, labels))
    (tmp_path / "data.json").write_text(json.dumps({"kind": "arrays"}))
    found = collect.real_pictures(tmp_path)
    assert found["real/labels"].tolist() == [0, 1, 2, 0, 2, 0]
    assert np.array_equal(found["real/images"][:, 0, 0, 0], found["real/labels"]) and "real/classes" not in found
    (tmp_path / "data.json").write_text(json.dumps({"kind": "arrays", "classes": ["猫", "dog", "ox"]}))
    assert collect.real_pictures(tmp_path)["real/classes"].tolist() == ["猫", "dog", "ox"]


def prepared(folder, counts):
    """Prepared images of a training split with so many of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    folder.mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps({"kind": "arrays"}))
    np.save(folder / "train_labels.npy", labels)
    np.save(folder / "train_images.npy", np.zeros((len(labels), 1, 2, 2), np.uint8))
    return folder


@pytest.mark.parametrize("counts", [(180, 20), (70, 1, 70), (5, 0, 200)])
def test_shown_samples_are_one_of_each_class_in_turn(tmp_path, counts):
    """Catches a grid whose rows are not classes where classes are rare, and an unconditional variant of other seeds."""
    evaluation = {"num_images": 200, "first_seed": 7}
    plan = {"evaluation": evaluation, "dataset": {"num_classes": len(counts)}}
    folders = {"prepare/a": prepared(tmp_path / "prepare", counts)}
    asked = labels_of(range(7, 207), np.array(counts), "training").numpy()
    images = np.arange(200, dtype=np.uint8)[None, :, None, None, None] * np.ones((1, 1, 1, 2, 2), np.uint8)
    for name, labels in (("sample/cond", asked), ("sample/uncond", np.zeros(200, np.int64))):
        folders[name] = tmp_path / name
        folders[name].mkdir(parents=True)
        for file, array in (("images", images), ("labels", labels), ("strip", images[:, :2])):
            np.save(folders[name] / f"{file}.npy", array)
    found = collect.pictures(folders, collect.study_labels(plan, folders))
    shown = found["sample/cond/labels"]
    present = [label for label in range(len(counts)) if (asked == label).any()]
    assert len(shown) == collect.GRID and shown[: len(present)].tolist() == present
    assert all((shown == label).sum() >= min((asked == label).sum(), 13) for label in present)
    picks = found["sample/cond/images"][:, 0, 0, 0]
    assert np.array_equal(asked[picks], shown) and len(set(picks)) == len(picks)
    for what in ("images", "labels"):
        assert np.array_equal(found[f"sample/cond/{what}"], found[f"sample/uncond/{what}"])
