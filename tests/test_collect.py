"""What collect gathers for the figures."""

import json
import shutil

import numpy as np
import pytest

from bench import collect, results
from bench.datasets import ArrayPictures


def test_real_pictures_keep_the_order_of_classes(monkeypatch, tmp_path):
    """Catches a class with few held-out pictures that shifts all that follow into the wrong row of the sample grid."""
    labels = np.array([0, 0, 0, 1, 2, 2])
    images = labels[:, None, None, None].astype(np.uint8) * np.ones((1, 1, 2, 2), np.uint8)
    monkeypatch.setattr(collect, "open_split", lambda folder, split: ArrayPictures(images, labels))
    shown = collect.real_pictures(tmp_path)["real/images"][:, 0, 0, 0]
    assert shown.tolist() == [0, 1, 2, 0]


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
    "timed": "t-1", "tokenizer": "v-1", "model": "m-1", "sampler": "p-1", "history": 0, "mask": None, "depth": 1, "patch_nums": [1],
    "group": "a", "grid": {}, "settings": {"sampler": {
        "name": "var", "cfg_scale": 1.0, "cfg_ramp": "linear", "temperature": 1.0, "top_k": None, "top_p": 1.0, "sr_steps": 0,
        "refine_steps": 0, "select": "threshold", "p_resample": 0.1, "resample_fraction": 0.5, "commit_above": 0.9,
        "entropy_bound": 1.0, "refine_scales": None,
    }},
}  # fmt: skip


@pytest.fixture
def job(tmp_path):
    """A plan of one job, and the folder of the job."""
    suite = {**SUITES["s"], "variants": {"a": VARIANT}, "runs": ["evaluate/a-0123456789"]}
    folder = tmp_path / "evaluate" / "a-0123456789"
    folder.mkdir(parents=True)
    plan = {
        "study": "x", "scope": None, "reduced": None, "suites": {"s": suite}, "train_seeds": [0], "latency": {},
        "evaluation": {"num_images": 100, "first_seed": 0}, "features": {"kind": "trained", "name": "x8"},
        "dataset": {"name": "d", "num_classes": 2}, "folders": {"evaluate/a-0123456789": str(folder)},
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
            "suites.s.variants.a.patch_nums",
        ),
    ],
)
def test_a_damaged_or_foreign_job_is_one_line(job, file, old, new, said):
    """Catches rows of an older plan, of another study or of another job that are gathered as this
    one's."""
    assert collected(job) == "fine"
    replaced(job / file, old, new)
    assert said in collected(job)


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
