"""What collect gathers for the figures."""

import json
import shutil

import numpy as np
import pytest

from bench.pipeline import collect
from bench.pipeline.datasets import ArrayImages
from bench.pipeline.labels import labels_of
from bench.runtime import rows as results
from workflow import sign


def test_real_images_keep_the_order_of_classes(monkeypatch, tmp_path):
    """Catches a class with few held-out images that shifts all that follow into the wrong row of
    the sample grid."""
    labels = np.array([0, 0, 0, 1, 2, 2])
    images = labels[:, None, None, None].astype(np.uint8) * np.ones((1, 1, 2, 2), np.uint8)
    monkeypatch.setattr(collect, "open_split", lambda folder, split: ArrayImages(images, labels))
    (tmp_path / "data.json").write_text(json.dumps({"kind": "arrays"}))
    found = collect.real_images(tmp_path)
    assert found["real/labels"].tolist() == [0, 1, 2, 0, 2, 0]
    assert (
        np.array_equal(found["real/images"][:, 0, 0, 0], found["real/labels"])
        and "real/classes" not in found
    )
    (tmp_path / "data.json").write_text(
        json.dumps({"kind": "arrays", "classes": ["猫", "dog", "ox"]})
    )
    assert collect.real_images(tmp_path)["real/classes"].tolist() == ["猫", "dog", "ox"]


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
    """Catches a grid whose rows are not classes where classes are rare, and an unconditional
    variant of other seeds."""
    evaluation = {"num_images": 200, "first_seed": 7}
    plan = {"evaluation": evaluation, "dataset": {"num_classes": len(counts)}}
    folders = {"prepare/a": prepared(tmp_path / "prepare", counts)}
    asked = labels_of(range(7, 207), np.array(counts), "training").numpy()
    images = np.arange(200, dtype=np.uint8)[None, :, None, None, None] * np.ones(
        (1, 1, 1, 2, 2), np.uint8
    )
    for name, labels in (("sample/cond", asked), ("sample/uncond", np.zeros(200, np.int64))):
        folders[name] = tmp_path / name
        folders[name].mkdir(parents=True)
        for file, array in (("images", images), ("labels", labels), ("strip", images[:, :2])):
            np.save(folders[name] / f"{file}.npy", array)
    found = collect.sample_images(folders, collect.study_labels(plan, folders, 0))
    shown = found["sample/cond/labels"]
    present = [label for label in range(len(counts)) if (asked == label).any()]
    assert len(shown) == collect.GRID and shown[: len(present)].tolist() == present
    assert all((shown == label).sum() >= min((asked == label).sum(), 13) for label in present)
    picks = found["sample/cond/images"][:, 0, 0, 0]
    assert np.array_equal(asked[picks], shown) and len(set(picks)) == len(picks)
    for what in ("images", "labels"):
        assert np.array_equal(found[f"sample/cond/{what}"], found[f"sample/uncond/{what}"])


def test_samples_whose_images_are_lost_are_refused(tmp_path):
    """Catches a copy of results that broke off: figures that show, in silence, images of another
    training beside those of the other variants."""
    row = {"run_id": "sample/a-0123456789", "status": "ok"}
    for name in ("images", "labels", "strip"):
        with pytest.raises(ValueError, match=rf"{name}.npy: no such file; delete .* and run again"):
            collect.check_images(tmp_path, row)
        (tmp_path / f"{name}.npy").write_text("")
    collect.check_images(tmp_path, row)
    for more in ({"status": "oom"}, {"run_id": "sweep/a-0123456789"}):
        collect.check_images(tmp_path / "none", row | more)


SUITES = {
    "s": {
        "claim": "c",
        "claims": [],
        "measure": [],
        "figures": [],
        "tables": [],
        "train_seeds": [0],
        "variants": {},
        "runs": [],
    }
}
VARIANT = {
    "timed": "t-1", "tokenizer": "v-1", "model": "m-1", "sampler": "p-1", "history": 0,
    "mask": None, "depth": 1, "patch_nums": [1], "group": "a", "grid": {},
    "jobs": {"": ["evaluate/a-0123456789"]}, "settings": {"sampler": {
        "name": "var", "cfg_scale": 1.0, "cfg_ramp": "linear", "temperature": 1.0, "top_k": None,
        "top_p": 1.0, "sr_steps": 0, "refine_steps": 0, "p_resample": 0.1,
        "select": {"name": "threshold", "p_resample": 0.1}, "refine_scales": None,
    }},
}  # fmt: skip


@pytest.fixture
def job(tmp_path):
    """A plan of one job, and the folder of the job."""
    suite = {**SUITES["s"], "variants": {"a": VARIANT}, "runs": ["evaluate/a-0123456789"]}
    folder = tmp_path / "evaluate" / "a-0123456789"
    folder.mkdir(parents=True)
    plan = {
        "study": "x", "scope": None, "reduced": None, "suites": {"s": suite}, "train_seeds": [0],
        "tokenizer_seed": "train_seed", "latency": {},
        "evaluation": {"num_images": 100, "first_seed": 0},
        "features": {"kind": "trained", "name": "x8"}, "dataset": {"name": "d", "num_classes": 2},
        "folders": {"evaluate/a-0123456789": str(folder)},
    }  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    row = dict.fromkeys(results.RUN_COLUMNS) | {
        "run_id": "evaluate/a-0123456789",
        "status": "ok",
        "config_hash": "0123456789",
    }
    (folder / "row.json").write_text(json.dumps(row))
    number = {"study": "x", "metric": "fid_x8", "value": 1.0, "run_id": "evaluate/a-0123456789"}
    results.write_metrics(folder / "metrics.csv", [number])
    return folder


def collected(folder):
    """What collect says of a job's folder, as a user sees it."""
    root = folder.parent.parent
    try:
        collect.main([str(root / "plan.json"), str(root / "out")])
    except SystemExit as end:
        assert "\n" not in str(end)
        return str(end)
    return "fine"


def replaced(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    "file, old, new, said",
    [
        ("row.json", "evaluate/a-0123456789", "evaluate/b-0123456789", "another job's"),
        ("row.json", '"config_hash": "0123456789"', '"config_hash": "9876543210"', "another plan"),
        ("row.json", "{", "[", "row.json: not readable as JSON"),
        ("row.json", '"status": "ok"', '"status": "done"', "status 'done'"),
        ("row.json", '"dirty"', '"dirt"', "'dirt'"),
        ("metrics.csv", "evaluate/a", "evaluate/b", "of run 'evaluate/b-0123456789'"),
        ("metrics.csv", "x,,", "y,,", "study 'y'"),
        ("metrics.csv", ",1,", ",one,", "line 2: value 'one'"),
        ("metrics.csv", "fid_x8", "fid_x8,", "line 2: 17 cells"),
        ("../../plan.json", '"reduced"', '"reduce"', "'reduced'"),
        ("../../plan.json", "{", "", "plan.json"),
        (
            "../../plan.json",
            '"patch_nums": [1]',
            '"patch_nums": 1',
            "suites.s.variants.a: patch_nums",
        ),
    ],
)
def test_a_damaged_or_foreign_job_is_one_line(job, file, old, new, said):
    """Catches rows of an older plan, of another study or of another job that are gathered as this
    one's."""
    assert collected(job) == "fine"
    replaced(job / file, old, new)
    assert said in collected(job)


def test_numbers_that_the_job_did_not_write_are_refused(job):
    """Catches a job's own metrics.csv that lost rows or was edited and is collected as if the job
    had written it so; and line ends, or a row of an older version, that count as an edit."""
    numbers = [
        {"study": "x", "metric": metric, "value": 1.0, "run_id": "evaluate/a-0123456789"}
        for metric in ("fid_x8", "nfe")
    ]
    row = json.loads((job / "row.json").read_text())
    row["contents"] = {"metrics.csv": results.write_metrics(job / "metrics.csv", numbers)}
    (job / "row.json").write_text(json.dumps(row))
    assert collected(job) == "fine"
    rows = results.read_rows(job.parent.parent / "out" / "runs.csv", results.RUN_COLUMNS)
    assert {one["run_id"] for one in rows} == {"study/x", "evaluate/a-0123456789"}
    whole = (job / "metrics.csv").read_text()
    (job / "metrics.csv").write_bytes(whole.replace("\n", "\r\n").encode())
    assert collected(job) == "fine"
    header, first, _ = whole.splitlines(keepends=True)
    for text in (header, header + first, whole.replace(",1,", ",2,", 1)):
        (job / "metrics.csv").write_text(text)
        said = collected(job)
        assert said.startswith(f"error: {job / 'metrics.csv'}: holds other cells") and (
            f"delete {job} and run again" in said
        )
    for damaged in ([], 3, {"metrics.csv": "3"}):
        (job / "row.json").write_text(json.dumps({**row, "contents": damaged}))
        assert "holds other cells" in collected(job)
    del row["contents"]
    (job / "row.json").write_text(json.dumps(row))
    assert collected(job) == "fine", "a job of an older version"


def test_a_job_that_read_another_run_is_refused(job):
    """Catches results of two machines put together: a training of one beside images that were drawn
    from that of the other, both with status ok."""
    root, folder = job.parent.parent, job.parent.parent / "train" / "b-0123456789"
    shutil.copytree(job, folder)
    for file in ("row.json", "metrics.csv"):
        replaced(folder / file, "evaluate/a-", "train/b-")
    plan = json.loads((root / "plan.json").read_text())
    plan["folders"]["train/b-0123456789"] = str(folder)
    plan["suites"]["s"]["runs"] = list(plan["folders"])
    (root / "plan.json").write_text(json.dumps(plan))
    row = json.loads((job / "row.json").read_text())
    read = {"train/b-0123456789": results.sum_of_row(folder), "train/of another scope": "1"}
    (job / "row.json").write_text(json.dumps({**row, "inputs": read}))
    assert collected(job) == "fine"
    replaced(folder / "row.json", '"started_at": null', '"started_at": "2026-01-01T00:00:00+00:00"')
    said = collected(job)
    assert said.startswith(f"error: {job / 'row.json'}: evaluate/a-0123456789 read another run of")
    assert said.endswith(f"delete {job} and run again")
    (job / "row.json").write_text(json.dumps(row))
    assert collected(job) == "fine", "a job of an older version"


def test_damaged_images_are_one_line(job):
    """Catches a traceback of numpy for an .npz that a full disk cut off."""
    root, folder = job.parent.parent, job.parent.parent / "zero_shot" / "a-0123456789"
    shutil.copytree(job, folder)
    replaced(
        root / "plan.json", '"folders": {', f'"folders": {{"zero_shot/a-0123456789": "{folder}", '
    )
    for name in ("row.json", "metrics.csv"):
        replaced(folder / name, "evaluate/", "zero_shot/")
    np.savez(folder / "strip.npz", original=np.zeros((1, 1, 2, 2), np.uint8))
    assert collected(job) == "fine"
    whole = (folder / "strip.npz").read_bytes()
    for damaged in (whole[:-40], b"", whole.replace(b"\x93NUMPY", b"\x93NUMPI")):
        (folder / "strip.npz").write_bytes(damaged)
        assert f"{folder}: images cannot be read" in collected(job)
    np.savez(folder / "strip.npz", original=np.zeros((1, 1, 2, 2), np.uint8))
    sign(folder)
    assert collected(job) == "fine"
    np.savez(folder / "strip.npz", original=np.ones((1, 1, 2, 2), np.uint8))
    assert f"{folder / 'strip.npz'}: holds other bytes than the job wrote" in collected(job)
