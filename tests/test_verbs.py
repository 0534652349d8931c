"""The verbs by hand, as processes: kill and resume, failures as rows, one-line errors."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.pipeline.artefacts import checkpoints, save_steps
from bench.runtime.alone import alone
from bench.runtime.failures import ended_badly
from bench.runtime.kept_files import sums_of
from bench.study.plan import load_study
from bench.study.settings import TrainingConfig
from srdd.files import load_tensors, save_tensors
from workflow import sign

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "tests" / "studies" / "smoke.yaml"


def start(verb, *words, **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "bench",
        verb,
        *map(str, words),
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def call(verb, *words):
    process = start(verb, *words)
    out, err = process.communicate(timeout=240)
    return process.returncode, out + err


class Bench:
    """A folder with prepared data, a tokenizer, tokens,
    and configs of every job of the smoke study."""

    def __init__(self, root):
        self.root = root
        self.plan = load_study(SMOKE)
        for run_id, job in self.plan.jobs.items():
            self.write(run_id, job.config)

    def write(self, run_id, config):
        job = self.plan.jobs[run_id]
        path = self.root / "configs" / f"{run_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "study": "smoke",
            "run_id": run_id,
            "identity": job.identity,
            "inputs": job.inputs,
            "config": config,
        }
        path.write_text(json.dumps(about))
        return path

    def first(self, stage):
        return next(run_id for run_id in self.plan.jobs if run_id.startswith(f"{stage}/"))

    def words(self, stage, out=None, config=None):
        run_id = self.first(stage)
        inputs = [
            w
            for role, needed in self.plan.jobs[run_id].inputs.items()
            for w in (f"--{role}", self.root / needed)
        ]
        return [
            config or self.root / "configs" / f"{run_id}.json",
            out or self.root / run_id,
            *inputs,
        ]


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Everything that a training needs, made by the verbs themselves."""
    bench = Bench(tmp_path_factory.mktemp("verbs"))
    for verb, stage in (
        ("prepare", "prepare"),
        ("train_tokenizer", "tokenizer"),
        ("encode", "encode"),
    ):
        code, text = call(verb, *bench.words(stage))
        assert code == 0, text
    return bench


def kill_after(process, appears, delay=0.0, timeout=120):
    """SIGKILL as soon as a file exists."""
    end = time.monotonic() + timeout
    while not appears.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


JUDGED = {
    "perceptual": 0.1,
    "adversarial": 0.4,
    "adversarial_start": 0.1,
    "discriminator": {"layers": 1, "channels": 8},
}


@pytest.mark.parametrize(
    "verb, stage, weights, more",
    [
        ("train", "train", "model", {}),
        ("train_tokenizer", "tokenizer", "tokenizer", {}),
        ("train_tokenizer", "tokenizer", "tokenizer", JUDGED),
    ],
    ids=["model", "tokenizer", "tokenizer of all losses"],
)
def test_killed_training_resumes_bit_by_bit(ready, tmp_path, verb, stage, weights, more):
    """Catches a checkpoint that forgets a part of the state: batches, noise, optimizer, averages,
    restarts, early stopping, the discriminator."""
    run_id = ready.first(stage)
    longer = json.loads((ready.root / "configs" / f"{run_id}.json").read_text())["config"]
    part = longer["training"] if verb == "train" else longer["tokenizer"]["training"]
    part |= {"steps": 60, **more}
    config = ready.write(run_id, longer)
    code, text = call(verb, *ready.words(stage, tmp_path / "whole", config))
    assert code == 0, text
    process = start(verb, *ready.words(stage, tmp_path / "killed", config))
    kill_after(process, tmp_path / "killed" / "resume.safetensors", delay=0.05)
    assert not (tmp_path / "killed" / "row.json").exists(), (
        "killed too late: the test proves nothing"
    )
    code, text = call(verb, *ready.words(stage, tmp_path / "killed", config))
    ready.write(run_id, ready.plan.jobs[run_id].config)
    assert code == 0 and "resumes at step" in text, text
    name = f"{weights}.safetensors"
    assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = [
        [
            line
            for line in (tmp_path / run / "metrics.csv").read_text().splitlines()
            if "train_seconds" not in line
        ]
        for run in ("whole", "killed")
    ]
    assert rows[0] == rows[1]
    assert any("adversarial_weight" in line for line in rows[0]) == bool(more)
    assert not (tmp_path / "killed" / "resume.safetensors").exists()


@pytest.mark.parametrize("more", [{}, {"eval_every": 7}], ids=str)
def test_a_killed_training_of_features_resumes_bit_by_bit(ready, tmp_path, more):
    """Catches one that begins anew, and a checkpoint without the moments of AdamW or the weights
    that are kept so far."""
    run_id = ready.first("features")
    config = json.loads((ready.root / "configs" / f"{run_id}.json").read_text())["config"]
    config["features"] |= {"steps": 60, **more}
    path = ready.write(run_id, config)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert call("train_features", *ready.words("features", whole, path))[0] == 0
    code = "import os; from bench.runtime import verb\n"
    code += "from bench.pipeline import train_features as own, features\n"
    code += "features.SAVE_EVERY = 20\n"
    code += "features.check_finite = lambda loss, step: step == 48 and os.kill(os.getpid(), 9)\n"
    code += "verb.main('train_features', own.work, own.INPUTS)"
    command = [sys.executable, "-c", code, *map(str, ready.words("features", out, path))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([*command, "--device", "cpu", "--threads", "1"], env=environment)
    assert killed.returncode == -signal.SIGKILL and (out / "resume.safetensors").exists()
    code, text = call("train_features", *ready.words("features", out, path))
    ready.write(run_id, ready.plan.jobs[run_id].config)
    assert code == 0 and "resumes at step 40" in text, text
    for name in ("features.safetensors", "metrics.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert not (out / "resume.safetensors").exists()


@pytest.mark.parametrize("verb, stage", [("train", "train"), ("train_tokenizer", "tokenizer")])
def test_a_training_whose_row_cannot_be_written_is_not_lost(ready, tmp_path, verb, stage):
    """Catches a checkpoint that is removed before all that it led to is written, and a row that
    tells of the last part of a training alone: its start, its seconds, its device."""
    words, out = ready.words(stage, tmp_path / "out"), tmp_path / "out"
    code = "import sys; from bench.runtime import verb, rows\n"
    code += "def full(*_): raise OSError(28, 'No space left on device')\n"
    code += f"verb.write_metrics = full; from bench.pipeline import {verb} as own\n"
    code += f"verb.main({verb!r}, own.work, own.INPUTS, shared=True)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, words), "--device", "cpu", "--threads", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "the disk is full" in done.stderr
    path = out / "resume.safetensors"
    tensors, metadata = load_tensors(path)
    assert metadata["worked"]["devices"] == ["cpu, 2 threads"]
    began = "2020-01-01T00:00:00+00:00"
    metadata["worked"] |= {"started_at": began, "wall_s": 1000.0, "host_classes": ["another"]}
    save_tensors(path, tensors, **metadata)
    code, text = call(verb, *words)
    assert code == 0 and "resumes at step" in text, text
    row = json.loads((out / "row.json").read_text())
    assert row["started_at"] == began and 1000 < row["wall_s"] < 1200
    assert row["device"] == "cpu, 2 threads, then cpu, 1 threads"
    assert row["host_class"].startswith("another, then ")
    assert not path.exists()


def test_a_training_that_found_too_little_memory_goes_on_when_there_is_more(ready, tmp_path):
    """Catches advice for one that ran out of memory by which all of its steps are lost."""
    words, out = ready.words("train", tmp_path / "out"), tmp_path / "out"
    code = "from bench.runtime import verb; from bench.pipeline import train as own, trainer\n"
    code += "step = trainer.Trainer.step\n"
    code += "def full(self):\n    if self.state.step < 8: return step(self)\n"
    code += "    raise MemoryError('all is full')\n"
    code += "trainer.Trainer.step = full; verb.main('train', own.work, own.INPUTS, shared=True)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, words), "--device", "cpu", "--record"]
    assert subprocess.run(command, env=environment).returncode == 0
    row = json.loads((out / "row.json").read_text())
    line = ended_badly(row, out / "row.json")
    assert f"oom: all is full; to try again, delete {out}/row.json and" in line
    Path(re.search("delete (.*) and give", line)[1]).unlink()
    code, text = call("train", *words)
    assert code == 0 and "resumes at step 6" in text, text


def test_what_another_process_has_just_ended_is_not_done_again(ready, tmp_path):
    """Catches a training that waits for one which a killed workflow left behind, and then begins
    anew; and one that takes over what other code or other inputs led to."""
    out, said = tmp_path / "out", "its results are kept"
    words = ready.words("tokenizer", out)
    assert call("train_tokenizer", *words)[0] == 0
    first = (out / "row.json").read_text()
    for row, kept in ((first, True), (first.replace(json.loads(first)["source_hash"], "x"), False)):
        (out / "row.json").unlink()
        with open(out / ".lock", "a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process = start("train_tokenizer", *words)
            while "waiting until it ends" not in (line := process.stderr.readline()):
                assert line, process.communicate()
            (out / "row.json").write_text(row)
        _, text = process.communicate(timeout=240)
        assert process.returncode == 0 and (said in text) == kept, text
        assert ((out / "row.json").read_text() == row) == kept


def test_halves_of_a_killed_job_are_put_away(tmp_path):
    """Catches weights that were half written when a job was killed, and stay for ever: under a
    name of safetensors, or among snapshots."""
    (tmp_path / "snapshots").mkdir()
    kept = ["model.safetensors", "snapshots/step_0000001.safetensors", "strip.tmp.npy"]
    halves = [".model.safetensors.17.tmp", ".tmp0y1JgE", "snapshots/.tmpAbC123"]
    for name in (*kept, *halves):
        (tmp_path / name).touch()
    with alone(tmp_path, print):
        assert sorted(sums_of(tmp_path)) == kept
        assert not any((tmp_path / name).exists() for name in halves)


def test_what_others_write_below_stays(tmp_path):
    """Catches a job that is told to write to a folder of the user's, and removes what other
    programs write below it, or fails at a folder of such a name."""
    others = [".notes.tmp", "b/.model.safetensors.17.tmp", "b/c/.tmpAbC123", ".tmpfolder/x"]
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".tmpAbC123").mkdir()
    with alone(tmp_path, print):
        assert all((tmp_path / name).exists() for name in others)


def test_diverged_training_is_a_row_and_an_error(ready, tmp_path):
    """Catches a NaN that ends as weights, as 0.0 or as a missing row."""
    run_id = ready.first("train")
    wild = json.loads((ready.root / "configs" / f"{run_id}.json").read_text())["config"]
    wild["training"] |= {"lr": 1e30, "clip": 1e30, "warmup": 0}
    config = ready.write(run_id, wild)
    code, text = call("train", *ready.words("train", tmp_path / "by_hand", config))
    assert code == 1
    assert [
        line
        for line in text.splitlines()
        if line.startswith("error:") and "diverged" in line and "lr" in line
    ]
    code, text = call("train", *ready.words("train", tmp_path / "recorded", config), "--record")
    ready.write(run_id, ready.plan.jobs[run_id].config)
    assert code == 0
    row = json.loads((tmp_path / "recorded" / "row.json").read_text())
    assert row["status"] == "diverged" and "step" in row["reason"]
    assert len((tmp_path / "recorded" / "metrics.csv").read_text().splitlines()) == 1
    assert row["contents"]["metrics.csv"]["rows"] == 0
    assert not (tmp_path / "recorded" / "model.safetensors").exists()
    # what reads it is skipped and says why
    words = ready.words("sample", tmp_path / "sample")
    words[words.index("--train") + 1] = tmp_path / "recorded"
    code, text = call("sample", *words, "--record")
    row = json.loads((tmp_path / "sample" / "row.json").read_text())
    assert code == 0 and row["status"] == "skipped" and "diverged" in row["reason"]


def one_line_error(code, text):
    errors = [line for line in text.splitlines() if line.startswith("error:")]
    assert code != 0 and len(errors) == 1 and "Traceback" not in text, text
    return errors[0]


def one_bit(whole):
    """The content of a file in which one bit has changed."""
    at = len(whole) * 3 // 4
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


@pytest.mark.parametrize(
    "role, name",
    [
        ("tokens", "train_tokens.npy"),
        ("data", "val_labels.npy"),
        ("tokenizer", "tokenizer.safetensors"),
    ],
)
def test_a_file_of_another_job_in_which_a_bit_has_changed_is_named(ready, tmp_path, role, name):
    """Catches a damaged disk, or files of another machine's run beside a row, that make numbers
    with status ok."""
    words = ready.words("train", tmp_path / "out")
    at = words.index(f"--{role}") + 1
    folder = shutil.copytree(words[at], tmp_path / role)
    (folder / name).write_bytes(one_bit((folder / name).read_bytes()))
    words[at] = folder
    error = one_line_error(*call("train", *words))
    said = f"{folder / name}: holds other bytes than the job wrote, by its row.json"
    assert error == f"error: {said}; delete {folder} and run what makes it again"
    assert not (tmp_path / "out" / "row.json").exists()
    row = json.loads((folder / "row.json").read_text())
    del row["files"]
    (folder / "row.json").write_text(json.dumps(row))
    assert "other bytes" not in call("train", *words)[1], "a job of an older version"


def test_truncated_and_foreign_checkpoints(ready, tmp_path):
    """Catches a damaged tokenizer that is read as weights, and an error that hides the file."""
    words = ready.words("train", tmp_path / "out")
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    whole = ready.root / ready.first("tokenizer")
    (folder / "row.json").write_text((whole / "row.json").read_text())
    (folder / "tokenizer.safetensors").write_bytes(
        (whole / "tokenizer.safetensors").read_bytes()[:500]
    )
    words[words.index("--tokenizer") + 1] = folder
    error = one_line_error(*call("train", *words))
    assert "tokenizer.safetensors" in error and "other bytes than the job wrote" in error
    sign(folder)
    error = one_line_error(*call("train", *words))
    assert "tokenizer.safetensors" in error and "truncated" in error


def test_a_snapshot_that_is_lost_is_missed(ready, tmp_path):
    """Catches a copy of results that broke off, of which the snapshots that are there are scored
    as if they were all."""
    run_id, sample_id = ready.first("train"), ready.first("sample")
    config = json.loads(json.dumps(ready.plan.jobs[run_id].config))
    config["training"] |= {"snapshot_every": 5}
    code, text = call(
        "train", *ready.words("train", tmp_path / "train", ready.write(run_id, config))
    )
    ready.write(run_id, ready.plan.jobs[run_id].config)
    assert code == 0, text
    made = sorted((tmp_path / "train" / "snapshots").iterdir())
    listed = [path for _, path in checkpoints(tmp_path / "train", True)]
    assert listed == made and len(made) == 3  # after 5, 10 and 12 steps
    config = {**ready.plan.jobs[sample_id].config, "snapshots": True}
    words = ready.words("sample", tmp_path / "sample", ready.write(sample_id, config))
    words[words.index("--train") + 1] = tmp_path / "train"
    whole = made[1].read_bytes()
    made[1].write_bytes(one_bit(whole))
    error = one_line_error(*call("sample", *words))
    assert f"{made[1]}: holds other bytes than the job wrote" in error
    assert f"; delete {tmp_path / 'train'} and run" in error
    made[1].unlink()
    error = one_line_error(*call("sample", *words))
    ready.write(sample_id, ready.plan.jobs[sample_id].config)
    assert f"{made[1].name}: no such file; delete {tmp_path / 'train'} and run" in error


def test_snapshots_of_a_training_that_stops_early_end_before(tmp_path):
    """Catches a snapshot that is missed where none was made."""
    training = TrainingConfig(steps=12, snapshot_every=5)
    for done, steps in ((12, [5, 10, 12]), (11, [5, 10]), (10, [5, 10]), (4, [])):
        save_steps(tmp_path, done, training)
        assert json.loads((tmp_path / "checkpoints.json").read_text()) == steps


@pytest.mark.parametrize(
    "role, name, keep",
    [
        ("tokens", "train_tokens.npy", None),
        ("tokens", "train_tokens.npy", 0.5),
        ("tokens", "train_tokens.npy", 0),
        ("data", "train_labels.npy", 0),
        ("data", "train_labels.npy", 0.5),
        ("tokenizer", "tokenizer.safetensors", None),
        ("tokenizer", "tokenizer.safetensors", 0.5),
    ],
)
def test_a_file_of_another_job_that_is_lost_or_cut_is_named_with_a_remedy(
    ready, tmp_path, role, name, keep
):
    """Catches results that were copied in part, or weights that were removed to save space: a
    traceback, or numpy's words without a file, while no job would make the file again."""
    words = ready.words("train", tmp_path / "out")
    at = words.index(f"--{role}") + 1
    folder = shutil.copytree(words[at], tmp_path / role)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if keep is not None:
        (folder / name).write_bytes(whole[: int(keep * len(whole))])
    words[at] = folder
    error = one_line_error(*call("train", *words))
    assert error.startswith(f"error: {folder / name}: "), error
    assert error.endswith(f"; delete {folder} and run what makes it again"), error


def test_a_tokenizer_of_another_config_is_refused(ready, tmp_path):
    """Catches weights of the right shapes and other settings that are read in silence."""
    from srdd.checkpoint import load_tokenizer, save_tokenizer

    whole, folder = ready.root / ready.first("tokenizer"), tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "row.json").write_text((whole / "row.json").read_text())
    tokenizer = load_tokenizer(whole / "tokenizer.safetensors")
    tokenizer.config = tokenizer.config.model_copy(update={"phi_ratio": 0.25})
    save_tokenizer(folder / "tokenizer.safetensors", tokenizer)
    sign(folder)
    words = ready.words("encode", tmp_path / "out")
    words[words.index("--tokenizer") + 1] = folder
    error = one_line_error(*call("encode", *words))
    assert "phi_ratio" in error and "0.25" in error


@pytest.mark.parametrize(
    "key, other",
    [("source", "0000000000"), ("torch", "2.0.0"), ("inputs", {"encode/x": "0000000000000000"}),
     ("sum", 0)],
)  # fmt: skip
def test_checkpoint_of_other_code_is_not_resumed(ready, tmp_path, key, other):
    """Catches two versions of the code, two releases of torch, or tokens of two runs mixed in one
    training, and a checkpoint in which a bit has changed."""
    process = start("train", *ready.words("train", tmp_path / "out"))
    kill_after(process, tmp_path / "out" / "resume.safetensors")
    from srdd.checkpoint import load_tensors, save_tensors

    path = tmp_path / "out" / "resume.safetensors"
    if path.exists():
        tensors, metadata = load_tensors(path)
        save_tensors(path, tensors, **{**metadata, key: other})
    code, text = call("train", *ready.words("train", tmp_path / "out"))
    assert code == 0 and "starts again" in text, text


def test_bad_job_configs(ready, tmp_path):
    """Catches a traceback where a hand-written config.json is wrong."""
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    assert "bad.json" in one_line_error(*call("prepare", bad, tmp_path / "out"))
    about = json.loads((ready.root / "configs" / f"{ready.first('prepare')}.json").read_text())
    about["config"]["dataset"]["image_size"] = "large"
    bad.write_text(json.dumps(about))
    error = one_line_error(*call("prepare", bad, tmp_path / "out"))
    assert "image_size" in error and "large" in error
    assert "no such file" in one_line_error(
        *call("prepare", tmp_path / "none.json", tmp_path / "out")
    )


def test_output_that_cannot_be_written(ready, tmp_path):
    """Catches work that starts before its folder is known to be writable."""
    (tmp_path / "file").write_text("")
    error = one_line_error(
        *call(
            "prepare",
            ready.root / "configs" / f"{ready.first('prepare')}.json",
            tmp_path / "file" / "out",
        )
    )
    assert "file" in error


def test_full_disk_is_said_with_a_remedy():
    """Catches an errno where a person needs a sentence."""
    from bench.runtime.command import describe

    assert "disk is full" in describe(OSError(28, "No space left on device", "results/x"))
    for number, words in ((13, "cannot be read or written"), (30, "cannot be written")):
        assert words in describe(OSError(number, os.strerror(number), "results/x"))


def test_full_disk_in_the_middle_of_a_training(ready, tmp_path):
    """Catches a traceback, a half-written checkpoint or lost earlier work when the disk is full: a
    file-size limit stands for it."""
    import resource

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start("train", *ready.words("train", tmp_path / "out"), preexec_fn=limit)
    out, err = process.communicate(timeout=120)
    one_line_error(process.returncode, out + err)
    assert not list((tmp_path / "out").glob("*.safetensors")) and not list(
        (tmp_path / "out").glob(".*tmp")
    )
    code, text = call("train", *ready.words("train", tmp_path / "out"))
    assert code == 0, text


def test_gpu_that_is_not_there(ready, tmp_path):
    """Catches a silent fall-back to the CPU when a GPU was asked for."""
    words = [*map(str, ready.words("train", tmp_path / "out"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "bench", "train", *words, "--device", "cuda"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "--device cuda" in one_line_error(done.returncode, done.stderr)
