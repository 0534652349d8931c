"""Recipes for sets that cannot be shipped: the layouts that docs/data.md describes, made small, are
read by the dataset of each study file as it stands."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bench.pipeline.prepare import read_dataset
from bench.report.words import credit_words
from bench.study.before import missing_files
from bench.study.errors import ConfigError
from bench.study.plan import load_study

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ROOT / "workflows" / "config"
MADE = ("emoji", "emoji64", "cifar10", "ffhq", "afhq", "miniimagenet", "sun397")


def photographs(folder: Path, count: int, ending: str, seed: int) -> None:
    """Different small images."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:03d}_{i:05d}{ending}")


def read(study: str, path: Path):
    """The dataset of a study, at another place."""
    config = load_study(STUDIES / f"{study}.yaml").study.dataset
    return read_dataset(config.model_copy(update={"path": str(path)}))


def counts(dataset) -> dict[str, int]:
    return {split: len(images) for split, images in dataset.splits.items()}


@pytest.mark.parametrize("name", MADE)
def test_plans_are_made_without_surprise(name):
    """Catches a recipe that follows from its other study by a warning, trains SRDD longer than the
    variants that say `as long`, or scores what it has no classes for."""
    plan = load_study(STUDIES / f"{name}.yaml")
    # what is meant, and ends in what to read beside it: more features than images, and a perceptual
    # loss on the network of an extractor
    assert all(line.endswith("beside it") for line in plan.warnings)
    assert plan.study.study == name
    if "SDD, as long" in plan.study.suites["main"].variants:
        longest = plan.study.suites["main"].variants["SDD, as long"].delta["training.steps"]
        assert plan.study.bases["srdd"]["training"]["steps"] == longest


def test_ffhq_stays_as_it_is_downloaded(tmp_path):
    """Catches folders of a thousand faces that are taken for classes."""
    for i in range(3):
        photographs(tmp_path / f"{i:02d}000", 20, ".png", i)
    dataset = read("ffhq", tmp_path)
    assert dataset.classes == [] and sum(counts(dataset).values()) == 60
    assert dataset.splits["train"].read([0]).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_afhq_has_a_part_of_its_own(tmp_path, held_out):
    """Catches held-out animals of either version that are trained on."""
    for i, kind in enumerate(("cat", "dog", "wild")):
        photographs(tmp_path / "train" / kind, 60, ".png", i)
        photographs(tmp_path / held_out / kind, 5, ".png", 10 + i)
    dataset = read("afhq", tmp_path)
    assert dataset.classes == ["cat", "dog", "wild"] and counts(dataset)["test"] == 15
    assert all(held_out in path.parts for path in dataset.splits["test"].paths)


def test_miniimagenet_is_split_by_content_and_not_by_its_parts(tmp_path):
    """Catches held-out classes that no model was trained on."""
    for i in range(100):
        part = "train" if i < 64 else "val" if i < 80 else "test"
        photographs(tmp_path / part / f"n{i:08d}", 3, ".jpg", i)
    with pytest.raises(ConfigError):
        read("miniimagenet", tmp_path)
    (command,) = re.findall(r"`?(mkdir all && mv \S+ \S+ \S+ all/)", recipe("miniimagenet"))
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    dataset = read("miniimagenet", tmp_path / "all")
    assert len(dataset.classes) == 100 and sum(counts(dataset).values()) == 300


def recipe(name: str) -> str:
    """What a study file says before its settings."""
    return (STUDIES / f"{name}.yaml").read_text(encoding="utf-8").partition("\nstudy:")[0]


def test_sun397_has_its_classes_side_by_side_after_one_command(tmp_path):
    """Catches letters that are taken for classes, and two levels of a class that are lost."""
    names = [f"/{'abc'[i % 3]}/scene{i}" for i in range(395)]
    names += ["/a/apartment_building/outdoor", "/b/building/indoor"]
    root = tmp_path / "SUN397"
    for i, name in enumerate(names):
        photographs(root / name[1:], 2, ".jpg", i)
    (root / "ClassName.txt").write_text("".join(f"{name}\n" for name in names))
    with pytest.raises(ConfigError):
        read("sun397", root)
    (command,) = re.findall(r"#   (mkdir \.\./classes .*)", recipe("sun397"))
    subprocess.run(["bash", "-c", command], cwd=root, check=True)
    dataset = read("sun397", tmp_path / "classes")
    assert len(dataset.classes) == 397 and "apartment_building_outdoor" in dataset.classes
    assert sum(counts(dataset).values()) == 794


@pytest.mark.parametrize("name", ["ffhq", "afhq", "miniimagenet", "sun397"])
def test_a_folder_that_is_not_there_is_said_before_the_first_job(name, tmp_path, monkeypatch):
    """Catches a recipe that was not followed and fails in a job."""
    monkeypatch.chdir(tmp_path)
    problem, *_ = missing_files(load_study(STUDIES / f"{name}.yaml"))
    assert problem.startswith("dataset.path: no folder at data/")


def test_whose_images_are_shown_is_known():
    """Catches emoji or photographs that are published without the credit that their licence
    asks."""
    for name in ("emoji", "emoji64", "ffhq", "afhq", "miniimagenet", "sun397"):
        assert load_study(STUDIES / f"{name}.yaml").described()["dataset"]["credit"], name
    about = load_study(STUDIES / "emoji.yaml").described()
    words = credit_words(SimpleNamespace(about=about))
    assert "CC BY 4.0" in words and "no photographs" in words
    assert credit_words(SimpleNamespace(about={"dataset": {"name": "of an older version"}})) == ""


def test_a_credit_renames_nothing(tmp_path):
    """Catches words of a caption for which all is trained again."""
    study = f"study: mine\nlike: {STUDIES / 'afhq.yaml'}\n"
    jobs = []
    for words in ("me", "you"):
        path = tmp_path / f"{words}.yaml"
        dataset = "name: image_folder, path: x, image_size: 32, channels: 3, num_classes: 3"
        path.write_text(
            f"{study}dataset: {{{dataset}, credit: {words}}}\nfeatures: {{name: mine}}\n"
        )
        jobs.append(list(load_study(path).jobs))
    assert jobs[0] == jobs[1]
