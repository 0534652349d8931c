"""Files known by content: their spelling, age and place change no name;
another content changes every name behind it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from bench.pipeline import artefacts
from bench.study.contents import Contents, SumCache, content_of, file_sum, sums_of
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from workflow import ROOT, planned, snakemake

STUDY = """
study: folder
dataset: {{name: image_folder, path: "{path}", image_size: 8, channels: 1, num_classes: 2,
  val_share: 0.1, test_share: 0.3}}
features: {{kind: trained, name: small16, dim: 16, channels: 8, steps: 40, batch_size: 64}}
train_seeds: [0]
evaluation: {{num_images: 100, batch_size: 50}}
bases:
  var:
    tokenizer:
      config: {{patch_nums: [1, 2, 4], codebook_size: 16, codebook_dim: 4, channels: 8,
        channel_multipliers: [1, 1], num_res_blocks: 1, attention: false, norm_groups: 4}}
      {weights}
    model: {{depth: 2, width: 16, heads: 2}}
suites:
  main: {{claim: VAR, variants: {{VAR: {{base: var}}}}}}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Sums of one test are not those of another."""
    monkeypatch.setenv("SRDD_CACHE", str(tmp_path / "cache"))


def images(root, count=20, start=0):
    rng = np.random.default_rng(start)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(start, start + count):
            Image.fromarray(rng.integers(0, 255, (9, 9), dtype=np.uint8)).save(
                root / name / f"{i:03d}.png"
            )
    return root


def jobs(tmp_path, path, weights="", contents=None):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.format(path=path, weights=weights))
    return set(load_study(file, contents).jobs)


def test_the_spelling_of_a_path_is_no_part_of_a_name(tmp_path, monkeypatch):
    """Catches a study that is trained again because its folder moved,
    or was written another way."""
    root, other = images(tmp_path / "p"), tmp_path / "elsewhere" / "q"
    shutil.copytree(root, other)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    spelled = [
        root,
        f"{root}/",
        f"{root}/../p",
        f"{root}//.",
        "p",
        "./p/",
        tmp_path / "link",
        other,
    ]
    names = [jobs(tmp_path, path) for path in spelled]
    assert all(name == names[0] for name in names)
    assert (
        jobs(tmp_path, "/no/such/p") == jobs(tmp_path, "/no/such/p/") == jobs(tmp_path, "/nor/this")
    )


@pytest.mark.parametrize(
    "change",
    ["added", "replaced", "inverted in place", "renamed", "moved to the other class", "removed"],
)
def test_other_images_are_other_jobs(tmp_path, change):
    """Catches results of old images beside those of new ones: every job has another name,
    as images do."""
    root = images(tmp_path / "p")
    before = jobs(tmp_path, root)
    first = root / "cat" / "000.png"
    about = first.stat()
    if change == "added":
        images(root, count=1, start=50)
    elif change == "replaced":
        shutil.copyfile(root / "dog" / "001.png", first)
    elif change == "inverted in place":
        Image.fromarray(255 - np.asarray(Image.open(first))).save(first)
    elif change == "renamed":
        first.rename(root / "cat" / "900.png")
    elif change == "moved to the other class":
        first.rename(root / "dog" / "900.png")
    else:
        first.unlink()
    after = jobs(tmp_path, root)
    assert not before & after
    if change == "inverted in place":
        Image.fromarray(255 - np.asarray(Image.open(first))).save(first)
        os.utime(first, ns=(about.st_atime_ns, about.st_mtime_ns + 5))
        assert jobs(tmp_path, root) == before, (
            "the same content is the same again, whatever its age"
        )


def test_what_is_not_read_changes_nothing(tmp_path):
    """Catches a run made stale by a thumbnail database, a note or a touched file."""
    root = images(tmp_path / "p")
    before = jobs(tmp_path, root)
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / ".DS_Store").write_bytes(b"x")
    (root / "README.txt").write_text("about")
    for path in root.rglob("*.png"):
        os.utime(path)
    assert jobs(tmp_path, root) == before


def test_a_folder_that_is_away_is_known_from_before(tmp_path):
    """Catches figures that cannot be made again because the disk with the images is not here."""
    root = images(tmp_path / "p")
    contents = Contents()
    before = jobs(tmp_path, root, contents=contents)
    root.rename(tmp_path / "away")
    assert jobs(tmp_path, root, contents=Contents(contents.digests)) == before
    assert jobs(tmp_path, root, contents=Contents(contents.digests, trusted=True)) == before
    assert jobs(tmp_path, root) != before


def test_weights_without_a_sum_are_known_by_their_content(tmp_path):
    """Catches a tokenizer swapped under its name: the sibling of swapped images."""
    root, file = images(tmp_path / "p"), tmp_path / "mine.safetensors"
    save_file({"x": np.zeros(3, np.float32)}, file)
    words = f"weights: {file}"
    before = jobs(tmp_path, root, words)
    shutil.copyfile(file, tmp_path / "copy.safetensors")
    assert jobs(tmp_path, root, f"weights: {tmp_path}/copy.safetensors") == before
    save_file({"x": np.ones(3, np.float32)}, file)
    assert len(jobs(tmp_path, root, words) & before) == 2, "the images and the features stay"


def test_a_reference_is_known_by_its_content(tmp_path):
    """Catches scores against two references under one name: the sibling of swapped images."""
    root, file = images(tmp_path / "p"), tmp_path / "adm.npz"
    text = STUDY.format(path=root, weights="").replace(
        "{kind: trained, name: small16, dim: 16, channels: 8, steps: 40, batch_size: 64}",
        f"{{kind: inception, name: inception, dim: 64, reference: {file}}}",
    )
    (tmp_path / "s.yaml").write_text(text)
    names = []
    for value in (0, 1, 0):
        np.savez(file, mu=np.full(64, value), sigma=np.eye(64))
        names.append(set(load_study(tmp_path / "s.yaml").jobs))
    assert names[0] == names[2]
    changed = {name.split("/")[0] for name in names[0] - names[1]}
    assert changed == {"features", "baselines", "evaluate"}


def test_sets_with_sums_of_their_own_are_known_by_their_name(tmp_path):
    """Catches Fashion-MNIST trained again because it lies in another folder,
    or because of a note beside its files."""

    text, found = (ROOT / "workflows/config/fashion_reduced.yaml").read_text(), []
    for place in ("", f"path: {tmp_path / 'fashion'}, ", "path: /nor/here, "):
        (tmp_path / "study.yaml").write_text(
            text.replace("name: fashion_mnist, ", f"name: fashion_mnist, {place}")
        )
        found.append(set(load_study(tmp_path / "study.yaml").jobs))
        (tmp_path / "fashion").mkdir(exist_ok=True)
        (tmp_path / "fashion" / f"note{len(found)}.txt").write_text("downloaded yesterday")
    assert found[0] == found[1] == found[2]


def test_a_content_that_is_asked_for_is_kept_to(tmp_path):
    """Catches a pinned dataset that is another one."""
    root = images(tmp_path / "p")
    text = STUDY.format(path=root, weights="").replace(
        "num_classes: 2,", f"num_classes: 2, content: '{'0' * 64}',"
    )
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match="dataset.content: 0000"):
        load_study(tmp_path / "s.yaml")


def test_sums_are_read_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    """Catches a cache that answers for another file, and a large folder that is read at every
    start."""
    file, cache = tmp_path / "a.bin", SumCache(tmp_path / "sums.sqlite")
    file.write_bytes(b"one")
    old = 1_600_000_000_000_000_000
    os.utime(file, ns=(old, old))
    with monkeypatch.context() as patch:
        patch.setattr("bench.study.contents.FRESH_NS", 0)
        first = sums_of([file], cache)
        patch.setattr("bench.study.contents._sum_now", lambda path: pytest.fail("read again"))
        assert sums_of([file], cache) == first
    file.write_bytes(b"two")
    assert sums_of([file], cache) != first
    # so young that it may still change within one tick of the clock: never kept
    with monkeypatch.context() as patch:
        patch.setattr("bench.study.contents._sum_now", lambda path: b"read again".ljust(32))
        assert sums_of([file], cache) == [b"read again".ljust(32)]
    (tmp_path / "sums.sqlite").write_bytes(
        b"no database at all, but long enough to be looked at as one" * 40
    )
    assert sums_of([file], cache) == [bytes.fromhex(file_sum(file))]
    assert sums_of([file], SumCache(file / "not a folder" / "sums.sqlite"))


def prepared(tmp_path, root, out="results/s/prepare/x"):
    """The verb prepare, on a folder, as a workflow calls it."""
    config = {
        "name": "image_folder",
        "path": None,
        "image_size": 8,
        "channels": 1,
        "num_classes": 2,
        "val_share": 0.1,
    }
    config |= {"test_share": 0.3, "content": content_of(root, (".png",))}
    job = {
        "study": "s",
        "run_id": "prepare/x",
        "identity": {},
        "inputs": {},
        "config": {"dataset": config},
    }
    place = tmp_path / "results/s/configs/prepare/x.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({**job, "files": {"dataset.path": str(root)}}))
    command = [
        sys.executable,
        "-m",
        "bench",
        "prepare",
        str(place),
        str(tmp_path / out),
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr, tmp_path / out


def test_a_replaced_file_of_the_same_size_and_age_is_read(tmp_path):
    """Catches `cp -p`, `rsync -t` or `touch -r`: other content under the same name,
    size and time."""
    path, cache = tmp_path / "a.png", SumCache(tmp_path / "sums.sqlite")
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 10**18))
    first = sums_of([path], cache)
    # as a cache that was written long after the file
    cache.keep({path: first[0]}, {path: (3, 10**18)})
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 10**18))
    assert sums_of([path], cache) != first


def test_readers_refuse_images_that_changed_and_follow_those_that_moved(tmp_path):
    """Catches a training that goes on with other images than its tokens were made from."""
    root = images(tmp_path / "p")
    code, text, out = prepared(tmp_path, root)
    assert code == 0, text
    assert "2 classes (train+val+test): cat " in text
    before = artefacts.open_split(out, "train").read(range(3))
    root.rename(tmp_path / "q")
    config = tmp_path / "results/s/configs/prepare/x.json"
    config.write_text(config.read_text().replace(str(root), str(tmp_path / "q")))
    split = artefacts.open_split(out, "train")
    for path in split.paths:
        os.utime(path)
    assert (split.read(range(3)) == before).all()
    shutil.copyfile(split.paths[1], split.paths[0])
    with pytest.raises(ValueError, match=r"has changed since it was prepared"):
        split.read([0])
    split.paths[2].unlink()
    with pytest.raises(ValueError, match=r"cannot be read .No such file"):
        split.read([2])


def test_readers_refuse_a_copy_that_keeps_size_and_age(tmp_path):
    """Catches an image replaced after it was prepared whose time says that it was not."""
    code, text, out = prepared(tmp_path, images(tmp_path / "p"))
    assert code == 0, text
    split = artefacts.open_split(out, "train")
    about, content = split.paths[0].stat(), split.paths[0].read_bytes()
    # the last byte is of a sum that decoders pass over
    split.paths[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(split.paths[0], ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(ValueError, match=r"has changed since it was prepared"):
        split.read([0])


def test_prepare_refuses_what_changed_after_planning(tmp_path):
    """Catches a name that promises other images than those that were read."""
    root = images(tmp_path / "p")
    content = content_of
    try:
        prepared.__globals__["content_of"] = lambda path, suffixes: "0" * 64
        code, text, out = prepared(tmp_path, root)
    finally:
        prepared.__globals__["content_of"] = content
    assert (
        code == 1
        and "have changed since this run was planned" in text
        and not (out / "row.json").exists()
    )


def test_all_damaged_images_are_named_at_once(tmp_path):
    """Catches a run for each damaged file of a folder, whichever side of the split it is on; and a
    list without an end."""
    root = images(tmp_path / "p")
    files = sorted(root.rglob("*.png"))
    for count in (3, 12):
        for file in files[:count]:
            file.write_bytes(file.read_bytes()[:50])
        code, text, out = prepared(tmp_path, root)
        assert code == 1 and not (out / "row.json").exists()
        named = [file for file in files if f"{file}: damaged image" in text]
        assert len(named) == min(count, 10) and set(named) <= set(files[:count])
        assert ("; and 2 more" in text) == (count == 12)


def test_changed_images_make_the_workflow_run_again(tmp_path):
    """Catches `Nothing to be done` after images were added, and a second table that mixes both."""
    root, study = images(tmp_path / "my p", count=250), tmp_path / "study.yaml"
    study.write_text(STUDY.format(path=root, weights=""))
    job = next(name for name in load_study(study).jobs if name.startswith("prepare/"))
    row = f"results/folder/{job}/row.json"
    words = (f"--configfile={study}", "--directory", tmp_path)
    code, text = snakemake(ROOT, *words, row)
    assert code == 0 and "images; 2 classes" in text, text
    code, text = snakemake(ROOT, *words, "-n", row)
    assert code == 0 and planned(text) == {}, text
    images(root, count=1, start=700)
    code, text = snakemake(ROOT, *words, "-n", "main")
    assert code == 0 and planned(text)["prepare_job"] == 1 and planned(text)["train_job"] == 1, text
    about = json.loads((tmp_path / "results/folder/configs/contents.json").read_text())
    assert [re.fullmatch("[0-9a-f]{64}", value) is not None for value in about.values()] == [True]
    assert str(Path(root)) in about
