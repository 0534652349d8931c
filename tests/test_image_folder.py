"""Folders as users have them: understood, or refused by name; copies on one side;
every class trained on."""

import json
import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.pipeline import datasets
from bench.pipeline.datasets import SPLITS as SIDES
from bench.pipeline.datasets import ArrayImages, FileImages, split_arrays
from bench.pipeline.image_folder import in_order, read_folder
from bench.pipeline.prepare import dim_words, load, read_dataset, summary, work
from bench.pipeline.splits import copies, joined, some_of_all, with_all_classes
from bench.runtime.rows import METRIC_COLUMNS, read_rows
from bench.runtime.verb import main
from bench.study.errors import ConfigError
from bench.study.settings import DatasetConfig


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Sums of one test are not those of another."""
    monkeypatch.setenv("SRDD_CACHE", str(tmp_path_factory.mktemp("cache")))


def put(folder, count=12, suffix=".png", seed=0, start=0):
    rng = np.random.default_rng(seed + sum(map(ord, folder.name)))
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(
            folder / f"{i:03d}{suffix}"
        )


def config(root, **changes):
    about = {
        "name": "image_folder",
        "path": str(root),
        "image_size": 8,
        "channels": 3,
        "num_classes": 2,
    }
    return DatasetConfig(**{**about, "val_share": 0.2, **changes})


LAYOUTS = {
    "train and test": (["train/a", "train/b", "test/a", "test/b"], 2),
    "train and val, which is held out": (["train/a", "train/b", "val/a", "val/b"], 2),
    "train and valid": (["train/a", "train/b", "valid/a", "valid/b"], 2),
    "capitals": (["Train/a", "Train/b", "Validation/a", "Validation/b", "Test/a", "Test/b"], 2),
    "train alone": (["train/a", "train/b"], 2),
    "a class that is called train": (["train", "plane", "car"], 3),
    "classes of one word": (["steam_train", "bullet_train"], 2),
    "images in sub-folders of a class": (["a", "a/more", "b"], 2),
    "parts without classes": (["train/00", "train/01", "test"], 0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_are_understood(tmp_path, layout):
    """Catches a part of a split that is trained on, or left out without a word."""
    places, classes = LAYOUTS[layout]
    for place in places:
        put(tmp_path / place, 40)
    dataset = read_dataset(config(tmp_path, num_classes=classes))
    paths = {split: {str(p) for p in dataset.splits[split].paths} for split in dataset.splits}
    assert sum(map(len, paths.values())) == 40 * len(places)
    assert not paths["train"] & paths["test"] and not paths["train"] & paths["val"]
    if any(place.lower().startswith("test") for place in places):
        assert all("/test" in path.lower() for path in paths["test"])
    if "val" in layout or "capitals" in layout:
        held_out = paths["val"] if "capitals" in layout else paths["test"]
        assert held_out and all("/val" in path.lower() for path in held_out)
    words = summary(dataset)
    assert "\n" not in words and ("40 images lie in sub-folders" in words) == (
        "sub-folders" in layout
    )


REFUSED = {
    "another word for train": (
        ["training_set/a", "training_set/b", "test_set/a", "test_set/b"],
        2,
        "call them train and test",
    ),
    "a split without train": (
        ["test/a", "test/b", "val/a", "val/b"],
        2,
        "looks like parts of a split",
    ),
    "test and val as two classes": (["test", "val"], 2, "looks like parts of a split"),
    "a level above the classes": (
        ["set/a", "set/b", "more/c"],
        2,
        r"more, set of .* hold folders .* and no image of their own",
    ),
    "letters above the classes": (["a/abbey", "a/airport", "b/bar"], 2, "no image of their own"),
    "train beside another folder": (
        ["train/a", "train/b", "extra/a"],
        2,
        "holds train and also extra with images",
    ),
    "val and valid": (["train/a", "train/b", "val/a", "val/b", "valid/a"], 2, "both val and valid"),
    "a class in val alone": (
        ["train/a", "train/b", "val/a", "val/b", "val/c"],
        2,
        "class c of .*val is not in .*train",
    ),
    "a class that val lacks": (["train/a", "train/b", "val/a"], 2, "no class folder b in .*val"),
    "more classes than said": (
        ["a", "b", "c"],
        2,
        "2 does not fit the 3 class folders of .*: a, b, c",
    ),
    "fewer classes than said": (["a"], 2, "2 does not fit the 1 class folders"),
    "years after the parts": (
        ["train2017", "val2017"],
        2,
        "train2017, val2017, which looks like parts of a split",
    ),
    "parts of one set": (
        ["seg_train", "seg_test"],
        0,
        "seg_test, seg_train, which looks like parts of a split",
    ),
    "images alone": (["."], 2, "2 does not fit the 0 class folders"),
}


@pytest.mark.parametrize("layout", REFUSED)
def test_layouts_that_are_refused(tmp_path, layout):
    """Catches a guess: two classes called training_set and test_set,
    a test part that is trained on."""
    places, classes, words = REFUSED[layout]
    for place in places:
        put(tmp_path / place)
    with pytest.raises(ConfigError, match=words) as error:
        load(config(tmp_path, num_classes=classes))
    assert "\n" not in str(error.value) and str(error.value).startswith("dataset.")


@pytest.mark.parametrize("how", ["other suffix", "empty", "last", "in a hidden folder"])
def test_a_class_without_an_image_is_refused(tmp_path, how):
    """Catches a class that is asked for in a third of all samples and never trained on."""
    lost = "c" if how == "last" else "b"
    for name in "abc":
        if name != lost:
            put(tmp_path / name, 30)
    hidden = how == "in a hidden folder"
    put(
        tmp_path / lost / (".thumbs" if hidden else ""),
        5 * (how != "empty"),
        ".png" if hidden else ".tiff",
    )
    why = {"empty": "", "in a hidden folder": r" .left out: 1 hidden."}.get(
        how, r" .left out: 5 \.tiff."
    )
    with pytest.raises(
        ConfigError, match=rf"no image that is read .\.png .*\.bmp. in class {lost}{why} of"
    ):
        load(config(tmp_path, num_classes=3))


@pytest.mark.parametrize("second", ["test", "train"])
def test_a_word_in_two_unicode_forms_is_said(tmp_path, second):
    """Catches a class that `is not in train`, where it stands, and two classes of one word: some
    systems write an accent as a character of its own."""
    for name in ("train/caf\u00e9", "train/tea", f"{second}/cafe\u0301", "test/tea"):
        put(tmp_path / name)
    with pytest.raises(ConfigError, match="one word in two Unicode forms, 'caf.*rename one"):
        read_folder(tmp_path, 2)


def test_images_without_class_folders_are_told_of(tmp_path):
    """Catches the commonest slip, all images in one folder, that gets no remedy."""
    put(tmp_path, 5)
    with pytest.raises(ConfigError, match="5 images lie in it: make a folder of each class, or"):
        load(config(tmp_path, num_classes=3))


def test_what_is_left_out_is_counted(tmp_path):
    """Catches images that are skipped without a word."""
    for name in "ab":
        put(tmp_path / name, 40)
    put(tmp_path / "a", 7, ".tif", start=100)
    put(tmp_path / "__MACOSX" / "a", 3)
    put(tmp_path / ".git", 3)
    put(tmp_path / "loose", 2)
    for path in (tmp_path / "loose").iterdir():
        path.rename(tmp_path / f"loose{path.name}")
    (tmp_path / "loose").rmdir()
    (tmp_path / "b" / "._000.png").write_bytes(b"x")
    (tmp_path / "b" / "notes.txt").write_text("x")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    words = summary(read_dataset(config(tmp_path)))
    for part in (
        "7 .tif",
        "1 .txt",
        "2 loose image beside the class folders",
        "3 hidden",
        "1 link to a folder above",
    ):
        assert part in words
    assert "2 classes (train+val+test): a " in words


@pytest.mark.parametrize("target", ["..", "../..", "../../.."])
def test_a_link_to_a_folder_above_adds_no_image_of_another_class(tmp_path, target):
    """Catches a class that holds all classes, and a training part that holds the test part."""
    root = tmp_path / "data"
    for part in ("train", "test"):
        for name in "ab":
            put(root / part / name, 30)
    (root / "train" / "a" / "project").symlink_to(target)
    put(tmp_path / "other", 5)
    folder = read_folder(root, 2)
    assert {part: len(paths) for part, (paths, _) in folder.parts.items()} == {
        "train": 60, "test": 60,
    }  # fmt: skip
    assert folder.skipped["link to a folder above"] == 1


def test_a_folder_called_like_another_class_is_below_its_own(tmp_path):
    """Catches an image of a sub-folder that is passed over, because a class has that name."""
    put(tmp_path / "cat", 30)
    put(tmp_path / "dog", 30)
    put(tmp_path / "cat" / "dog", 4)
    assert read_folder(tmp_path, 2).below == 4


def test_links_are_followed_and_twins_refused(tmp_path):
    """Catches a linked folder that is left out, one folder under two names,
    and a link to nothing."""
    put(tmp_path / "store" / "x", 40)
    put(tmp_path / "data" / "a", 40)
    (tmp_path / "data" / "b").symlink_to(tmp_path / "store" / "x")
    assert sum(map(len, load(config(tmp_path / "data")).values())) == 80
    (tmp_path / "data" / "c").symlink_to(tmp_path / "store" / "x")
    with pytest.raises(ConfigError, match="classes b and c of .* are links to one folder"):
        load(config(tmp_path / "data", num_classes=3))
    (tmp_path / "data" / "c").unlink()
    (tmp_path / "data" / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ConfigError, match=r"gone\.png: a link to nothing"):
        load(config(tmp_path / "data"))


def test_numbers_are_classes_in_their_order(tmp_path):
    """Catches class 10 that stands before class 2: label and name of a digit would differ."""
    assert in_order(["1", "10", "2", "0"]) == ["0", "1", "2", "10"]
    assert in_order(["n02", "n01", "10"]) == ["10", "n01", "n02"]
    for name in ("1", "10", "2"):
        put(tmp_path / name, 30)
    dataset = read_dataset(config(tmp_path, num_classes=3))
    assert dataset.classes == ["1", "2", "10"]
    train = dataset.splits["train"]
    assert all(
        dataset.classes[label] == path.parent.name
        for path, label in zip(train.paths, train.labels_N)
    )


def sums(images):
    return [path.read_bytes() for path in images.paths]


def test_copies_stay_on_one_side(tmp_path):
    """Catches held-out images that are copies of training images under another name, in another
    class, or behind a link."""
    for name in "ab":
        put(tmp_path / name, 60)
        for path in sorted((tmp_path / name).glob("*.png")):
            (tmp_path / name / f"{path.stem} copy.png").write_bytes(path.read_bytes())
            os.link(path, tmp_path / name / f"{path.stem} hard.png")
    splits = load(config(tmp_path))
    for first, second in (("train", "test"), ("train", "val"), ("val", "test")):
        assert not set(sums(splits[first])) & set(sums(splits[second]))
    assert len(splits["test"]) > 20 and len(splits["val"]) > 20


def test_an_own_part_with_copies_is_counted(tmp_path):
    """Catches a val/ that is a copy of train/: its number must reach the one who reads the
    scores."""
    for place in ("train/a", "train/b", "val/a", "val/b"):
        put(tmp_path / place, 30)
    splits = load(config(tmp_path))
    assert copies(sums(splits["test"]), sums(splits["train"])) >= 40


def test_copies_that_were_saved_anew_are_counted(tmp_path):
    """Catches `no training image` beside held-out images whose twin is trained on from a file of
    another format or with other notes."""
    put(tmp_path / "d" / "a", 60)
    put(tmp_path / "d" / "b", 60, seed=5)
    for path in sorted((tmp_path / "d").glob("*/*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
    about = config(tmp_path / "d").model_dump(mode="json")
    job = {"study": "s", "run_id": "prepare/x-1", "config": {"dataset": about}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    with pytest.raises(SystemExit, match="0"):
        main(
            "prepare",
            work,
            argv=[str(tmp_path / "job.json"), str(tmp_path / "out"), "--device", "cpu"],
        )
    data = read_dataset(config(tmp_path / "d")).splits
    known = {
        split: [pixels.tobytes() for pixels in data[split].read(range(len(data[split]))).numpy()]
        for split in data
    }
    rows = {
        row["metric"]: row["value"]
        for row in read_rows(tmp_path / "out" / "metrics.csv", METRIC_COLUMNS)
    }
    assert int(rows["test_copies_of_train"]) == copies(known["test"], known["train"]) > 10


def test_groups_stay_on_one_side(tmp_path):
    """Catches two frames of one video on two sides; a pattern that finds nothing;
    one that is none."""
    for name in "ab":
        put(tmp_path / name, 120)
        for i, path in enumerate(sorted((tmp_path / name).glob("*.png"))):
            path.rename(path.with_name(f"clip{i // 4:02d}_{i % 4}.png"))
    splits = load(config(tmp_path, group=r"([ab]/clip\d+)_"))
    clips = {
        split: {str(path).rsplit("_", 1)[0] for path in splits[split].paths} for split in splits
    }
    assert (
        not clips["train"] & clips["test"] and not clips["train"] & clips["val"] and clips["test"]
    )
    loose = load(config(tmp_path))
    assert {str(p).rsplit("_", 1)[0] for p in loose["train"].paths} & {
        str(p).rsplit("_", 1)[0] for p in loose["test"].paths
    }
    with pytest.raises(
        ConfigError, match="dataset.group: 'scene' finds nothing in any path, such as a/clip"
    ):
        load(config(tmp_path, group="scene"))
    with pytest.raises(ValueError, match="no regular expression"):
        config(tmp_path, group="(")


def test_groups_are_counted(tmp_path):
    """Catches a pattern that half of the images do not match, one that matches nothing but empty
    words, and one that joins all."""
    for name in "ab":
        put(tmp_path / name, 60)
    words = summary(read_dataset(config(tmp_path, group=r"(a/\d\d)\d")))
    assert "6 groups of 60 images, 60 images in no group" in words
    with pytest.raises(ConfigError, match="dataset.group: 'x.' finds nothing in any path"):
        load(config(tmp_path, group="x*"))
    with pytest.raises(
        ConfigError, match="too few groups: dataset.group finds 1 groups of 120 images"
    ):
        load(config(tmp_path, group=r"(\.png)"))


def test_groups_in_any_language(tmp_path):
    """Catches a pattern that is matched byte by byte: one letter is two bytes,
    and none of them is a word."""
    for name in "ab":
        put(tmp_path / name, 60)
        for i, path in enumerate(sorted((tmp_path / name).glob("*.png"))):
            path.rename(path.with_name(f"{'жшя'[i % 3]}{i // 6:02d}_{i}.png"))
    splits = load(config(tmp_path, group=r"(\w\d\d)_"))
    clips = {split: {path.stem.split("_")[0] for path in splits[split].paths} for split in splits}
    assert (
        not clips["train"] & clips["test"] and not clips["train"] & clips["val"] and clips["test"]
    )


def test_groups_on_both_sides_of_own_parts_are_said(tmp_path):
    """Catches a setting that changes nothing without a word:
    parts of a folder's own stay as they are."""
    for place in ("train/a", "train/b", "test/a", "test/b", "val/a", "val/b"):
        put(tmp_path / place, 30, seed=len(place) + ord(place[0]))
    words = summary(read_dataset(config(tmp_path, group=r"/(0\d)\d.png")))
    assert (
        "60 val images of groups that are trained on" in words
        and "60 test images of groups" in words
    )


def test_chains_of_copies_and_groups_are_one():
    """Catches two groups that share a copy and are yet torn apart."""
    keys = joined([b"x", b"y", b"y", b"z", b"w"], [b"g1", b"g1", b"g2", b"g2", None])
    assert len(set(keys[:4])) == 1 and keys[4] == b"w"


@given(st.integers(2, 6), st.lists(st.integers(0, 5), min_size=12, max_size=60), st.integers(6, 70))
def test_fewer_training_images_are_some_of_every_class(_, labels, count):
    """Catches train_images that takes the first of an array, which hold two of ten classes."""
    keys = [bytes([i]) for i in range(len(labels))]
    chosen = some_of_all(keys, labels, count)
    assert len(chosen) == min(count, len(labels)) == len(set(chosen)) and chosen == sorted(chosen)
    assert {labels[i] for i in chosen} == set(labels)


def test_sorted_arrays_keep_their_classes():
    """Catches the sibling for arrays: images in order of their classes, cut down to a few."""
    images = np.arange(600 * 64, dtype=np.uint32).reshape(600, 1, 8, 8).astype(np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(600) % 256, np.arange(600) // 256
    labels = np.repeat(np.arange(10), 60)
    about = DatasetConfig(name="digits", image_size=8, channels=1, num_classes=10, train_images=25)
    train = datasets.split_arrays(images, labels, about)["train"]
    assert len(train) == 25 and set(train.labels_N) == set(range(10))
    with pytest.raises(ConfigError, match="dataset.train_images: 9 leaves some of the 10 classes"):
        datasets.split_arrays(images, labels, about.model_copy(update={"train_images": 9}))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_class_that_would_be_held_out_whole_is_trained_on(tmp_path, count):
    """Catches a rare class that lies on the held-out side alone: asked for and never trained on, or
    a long tail that cannot be read."""
    put(tmp_path / "a", 80)
    for name in "bcdefghij":
        put(tmp_path / name, count)
    data = read_dataset(config(tmp_path, num_classes=10, test_share=0.6))
    shares = {
        split: np.bincount(data.splits[split].labels_N, minlength=10) for split in data.splits
    }
    assert shares["train"].min() >= 1 and sum(map(sum, shares.values())) == 80 + 9 * count
    assert not copies(sums(data.splits["test"]), sums(data.splits["train"]))
    again = read_dataset(config(tmp_path, num_classes=10, test_share=0.6))
    assert again.splits["train"].paths == data.splits["train"].paths
    assert (count > 1) or "without a held-out image: b, c" in summary(data)


def test_a_folder_of_few_images_is_told_how_many_scores_need(tmp_path):
    """Catches advice to raise a share where no share is large enough: 37 images score nothing."""
    for name, count in (("a", 17), ("b", 20)):
        put(tmp_path / name, count)
    words = r"val of 37; add images \(scores need 100 to train on and as many held out\), or raise"
    with pytest.raises(ConfigError, match=words):
        read_dataset(config(tmp_path, num_classes=2, val_share=0.001))


def test_many_classes_of_one_image(tmp_path):
    """Catches a log that names ten of many classes as if they were all, and advice to raise a share
    where every image has to be trained on."""
    names = [f"c{i:02d}" for i in range(25)]
    for name in names:
        put(tmp_path / name, 1)
    with pytest.raises(ConfigError, match="merge classes: each of 25 keeps one to train on"):
        read_dataset(config(tmp_path, num_classes=25))
    put(tmp_path / "c00", 80)
    words = summary(read_dataset(config(tmp_path, num_classes=25)))
    assert "without a held-out image: c01, c02" in words and "c10 and 14 more" in words


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(SIDES), st.integers(0, 9), st.integers(0, 4)),
        min_size=1,
        max_size=40,
    )
)
def test_every_class_gets_a_training_image(rows):
    """Catches copies that are torn apart when a class moves, a class that stays without, and a
    split that changes without need."""
    sides_of = {key: side for side, key, _ in rows}
    keys, labels = [b"%d" % key for _, key, _ in rows], [label for _, _, label in rows]
    where = [sides_of[key] for _, key, _ in rows]
    found = with_all_classes(where, keys, labels)
    assert {label for side, label in zip(found, labels) if side == "train"} == set(labels)
    assert len({(key, side) for key, side in zip(keys, found)}) == len(set(keys))
    had = {label for side, label in zip(where, labels) if side == "train"}
    assert found == where or had != set(labels)
    assert all(old == new or new == "train" for old, new in zip(where, found))


def test_rare_classes_of_arrays_are_trained_on():
    """Catches the sibling for arrays, and for sets with a test part of their own."""
    images, labels = (
        np.random.default_rng(0).integers(0, 255, (60, 1, 8, 8), dtype=np.uint8),
        np.arange(60) // 3,
    )
    about = DatasetConfig(name="digits", image_size=8, channels=1, num_classes=20, test_share=0.85)
    assert (
        np.bincount(split_arrays(images, labels, about)["train"].labels_N, minlength=20).min() >= 1
    )


# ---------------------------------------------------------------- loaders of one's own


def grey(count=40, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (count, 1, 8, 8), dtype=np.uint8)


GOOD = {
    "train": (grey(), np.arange(40) % 2),
    "val": (grey(6, 1), np.arange(6) % 2),
    "test": (grey(20, 2), np.arange(20) % 2),
}
LOADERS = {
    "floats of 0 to 1": (
        {"train": (grey() / 255.0, np.arange(40) % 2)},
        "train images are float64; return a numpy array of uint8",
    ),
    "16 bits": (
        {"test": (grey(20).astype(np.uint16) * 257, np.arange(20) % 2)},
        "test images are uint16",
    ),
    "zeros and ones": (
        {"train": (grey() // 200, np.arange(40) % 2)},
        "hold nothing above 1; values go from 0 to 255",
    ),
    "channels last": (
        {"val": (grey(6).transpose(0, 2, 3, 1), np.arange(6) % 2)},
        r"val images of shape \(8, 8, 1\)",
    ),
    "labels from 1": (
        {"train": (grey(), 1 + np.arange(40) % 2)},
        "2 does not fit the labels 1 to 2 .*legal: 0 to 1",
    ),
    "negative labels": ({"test": (grey(20), -np.ones(20, int))}, "labels -1 to -1"),
    "float labels": ({"train": (grey(), (np.arange(40) % 2) * 1.0)}, "train labels are float64"),
    "one-hot labels": (
        {"train": (grey(), np.eye(2, dtype=int)[np.arange(40) % 2])},
        r"of shape \(40, 2\)",
    ),
    "missing labels": ({"train": (grey(), np.arange(39) % 2)}, "40 images and 39 labels"),
    "no labels": ({"train": (grey(), None)}, "train labels are NoneType"),
    "a list of labels": ({"val": (grey(6), [0, 1] * 3)}, "val labels are list"),
    "one class": ({"train": (grey(), np.zeros(40, int))}, "no training image of class 1"),
    "no test": ({"test": None}, r"returns \['train', 'val'\]; it must return"),
    "a tuple": ("tuple", "returns tuple; it must return"),
    "bare arrays": ("bare", "train is ndarray; it must return"),
    "names of another number": ({"classes": ["x"]}, "1 different names of classes for 2 classes"),
    "an error of its own": ("error", "load_mine: KeyError: 'image'"),
}


@pytest.mark.parametrize("case", LOADERS)
def test_loaders_have_a_contract(monkeypatch, case):
    """Catches a loader whose floats of 0 to 1 become black images and a FID of 1e-05 with status
    ok."""
    changes, words = LOADERS[case]

    def load_mine(about):
        if changes == "error":
            raise KeyError("image")
        if changes == "tuple":
            return tuple(ArrayImages(*pair) for pair in GOOD.values())
        if changes == "bare":
            return {split: pair[0] for split, pair in GOOD.items()}
        made = {**GOOD, **changes}
        return {
            k: v if k == "classes" else ArrayImages(*v) for k, v in made.items() if v is not None
        }

    monkeypatch.setattr(datasets, "load_mine", load_mine, raising=False)
    about = DatasetConfig(name="mine", image_size=8, channels=1, num_classes=2)
    with pytest.raises(ConfigError, match=words) as error:
        load(about)
    assert "mine" in str(error.value) and "\n" not in str(error.value)


def test_a_loader_returns_what_is_read(monkeypatch):
    """Catches names of classes under another key, and a class of one's own whose `read` nothing
    calls."""
    good = {split: ArrayImages(*pair) for split, pair in GOOD.items()}

    class Halved(ArrayImages):
        def read(self, indices, crop_seed=None):
            return super().read(indices) // 2

    about = DatasetConfig(name="mine", image_size=8, channels=1, num_classes=2)
    for made, words in (
        (
            good | {"class_names": ["cat", "dog"]},
            r"returns also class_names, which nothing reads \(legal: train, val, test, classes\)",
        ),
        (good | {"val": Halved(*GOOD["val"])}, "val is Halved, whose own methods nothing calls"),
        (
            good | {"train": ArrayImages(np.ma.masked_less(GOOD["train"][0], 9), GOOD["train"][1])},
            "train images are a masked array",
        ),
    ):
        monkeypatch.setattr(datasets, "load_mine", lambda about, made=made: made, raising=False)
        with pytest.raises(ConfigError, match=f"load_mine: {words}"):
            load(about)


@pytest.mark.parametrize(
    "error", [ValueError("cannot reshape"), FileNotFoundError(2, "No such file", "/nope")]
)
def test_any_error_of_a_loader_names_it(monkeypatch, error):
    """Catches an error of a user's function that does not say whose it is."""

    def load_mine(about):
        raise error

    monkeypatch.setattr(datasets, "load_mine", load_mine, raising=False)
    with pytest.raises(ConfigError, match=f"load_mine: {type(error).__name__}: "):
        load(DatasetConfig(name="mine", image_size=8, channels=1, num_classes=2))


def test_dark_images_are_said(monkeypatch):
    """Catches images of 16 levels that were never scaled to 255, in all splits or in one."""
    made = {split: ArrayImages(*pair) for split, pair in GOOD.items()}
    monkeypatch.setattr(datasets, "load_mine", lambda about: made, raising=False)
    about = DatasetConfig(name="mine", image_size=8, channels=1, num_classes=2)
    assert dim_words(read_dataset(about), "mine") is None
    made["test"] = ArrayImages(GOOD["test"][0] // 16, GOOD["test"][1])
    assert "load_mine: test 15 of 255" in dim_words(read_dataset(about), "mine")


def test_labels_of_a_set_without_classes_are_not_read(monkeypatch):
    """Catches labels of a data set that is used without them: negative ones stopped prepare, others
    stood in the rows of figures."""
    made = {split: ArrayImages(images, labels - 1) for split, (images, labels) in GOOD.items()}
    monkeypatch.setattr(datasets, "load_mine", lambda about: made, raising=False)
    dataset = read_dataset(DatasetConfig(name="mine", image_size=8, channels=1, num_classes=0))
    assert (
        all((images.labels_N == 0).all() for images in dataset.splits.values())
        and dataset.classes == []
    )


def test_files_of_a_loader_have_a_contract(tmp_path, monkeypatch):
    """Catches files that no name stands for, paths that are text, and looks that differ from the
    study's and were not kept."""
    for name in "ab":
        put(tmp_path / name, 60)
    paths = sorted(tmp_path.glob("*/*.png"))
    about = {
        "name": "mine",
        "path": str(tmp_path),
        "image_size": 8,
        "channels": 3,
        "num_classes": 2,
    }

    def made(given, size=8, **more):
        parts = {"train": given[::2], "val": given[1::4], "test": given[3::4]}
        return {
            split: FileImages(part, np.arange(len(part)) % 2, size, 3, **more)
            for split, part in parts.items()
        }

    def tried(found, **changes):
        monkeypatch.setattr(datasets, "load_mine", lambda about: found, raising=False)
        return load(DatasetConfig(**{**about, **changes}))

    assert len(tried(made(paths))["train"]) == 60
    for found, changes, words in (
        (made(paths), {"path": None}, r"0.png does not lie below dataset.path \(null\)"),
        (made(paths), {"path": str(tmp_path / "a")}, "does not lie below dataset.path"),
        (
            made([str(path) for path in paths]),
            {},
            "train paths are str; return a list of pathlib.Path",
        ),
        (made(paths, size=16), {}, "image_size 16, the study says 8; pass config.image_size"),
        (made(paths, crop=False), {}, "crop False, the study says True; pass config.crop"),
        (
            made(paths),
            {"background": 0},
            "background 255, the study says 0; pass config.background",
        ),
    ):
        with pytest.raises(ConfigError, match=f"load_mine: .*{words}"):
            tried(found, **changes)


def test_a_good_loader_passes(monkeypatch):
    """Catches a contract that nobody can meet."""
    made = {split: ArrayImages(*pair) for split, pair in GOOD.items()} | {"classes": ["cat", "dog"]}
    monkeypatch.setattr(datasets, "load_mine", lambda about: made, raising=False)
    dataset = read_dataset(DatasetConfig(name="mine", image_size=8, channels=1, num_classes=2))
    assert dataset.classes == ["cat", "dog"] and len(dataset.splits["train"]) == 40


# ---------------------------------------------------------------- anything at all

LATIN = os.fsdecode(b"caf\xe9")
NAMES = st.sampled_from(
    [
        "train",
        "val",
        "test",
        "valid",
        "a",
        "b",
        "1",
        "10",
        ".x",
        "__MACOSX",
        "ü",
        "a b",
        "training_set",
        LATIN,
    ]
)
FILES = st.sampled_from(
    ["0.png", "1.PNG", "2.jpg", "x.tif", "note", "bad.png", ".y.png", "link", "z\n.png"]
)
TREES = st.recursive(
    st.dictionaries(FILES, st.none(), max_size=3),
    lambda inner: st.dictionaries(st.one_of(NAMES, FILES), inner, max_size=4),
    max_leaves=9,
)


CLASSES = st.dictionaries(
    NAMES, st.dictionaries(FILES, st.none(), min_size=2), min_size=1, max_size=3
)
TREES = st.one_of(TREES, CLASSES, st.fixed_dictionaries({"train": CLASSES, "test": CLASSES}))


def build(tree, place):
    place.mkdir(parents=True)
    for name, inner in tree.items():
        if inner:
            build(inner, place / name)
        elif name == "link":
            (place / name).symlink_to(place.parent)
        elif name == "bad.png":
            (place / name).write_bytes(b"\x89PNG broken")
        elif isinstance(inner, dict):
            (place / name).mkdir()
        else:
            put_one(place / name)


def put_one(path):
    seed = Counter(str(path)).total() % 7
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 9), dtype=np.uint8))
    image.save(path, format="PNG")


@settings(max_examples=120)
@given(
    tree=TREES,
    classes=st.integers(0, 3),
    count=st.one_of(st.none(), st.integers(1, 5)),
    group=st.sampled_from([None, "a", "(x)?"]),
)
def test_any_folder_is_read_or_refused_in_one_line(tmp_path_factory, tree, classes, count, group):
    """Catches a traceback: whatever lies in a folder, either it is split without leaks or one line
    says why not."""
    root = tmp_path_factory.mktemp("tree") / "root"
    build(tree, root)
    about = config(root, num_classes=classes, train_images=count, group=group, test_share=0.4)
    try:
        splits = load(about)
    except (ConfigError, ValueError) as error:
        assert str(error) and "\n" not in str(error)
        return
    assert not set(sums(splits["train"])) & set(sums(splits["test"])) or "test" in str(
        splits["test"].paths[0]
    )
    for split in splits.values():
        try:
            split.read(range(len(split)))
        except ValueError as error:
            assert "bad.png: damaged" in str(error) and "\n" not in str(error)


def test_a_folder_without_the_right_to_read_is_one_line(tmp_path):
    """Catches a traceback of a permission; the super-user reads everything and is not asked."""
    put(tmp_path / "a", 2)
    put(tmp_path / "b", 2)
    (tmp_path / "b").chmod(0)
    try:
        if os.geteuid() != 0:
            with pytest.raises(ConfigError, match="b: cannot be read"):
                read_folder(tmp_path, 2)
    finally:
        (tmp_path / "b").chmod(0o755)
