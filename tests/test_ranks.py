"""A training or its samples in parts: micro-batches, recomputed blocks and several processes give
what one process gives."""

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_config import edited

from bench.pipeline import sample, sampling
from bench.pipeline.encode import work as encode
from bench.pipeline.prepare import work as prepare
from bench.pipeline.train import work as train
from bench.pipeline.train_tokenizer import work as train_tokenizer
from bench.pipeline.trainer import Trainer
from bench.runtime import verb
from bench.runtime.ranks import Ranks
from bench.runtime.verb import Run, main
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from srdd.checkpoint import load_tensors

ROOT = Path(__file__).resolve().parent.parent
WORK = {
    "prepare": prepare,
    "tokenizer": train_tokenizer,
    "encode": encode,
    "train": train,
    "sample": sample.work,
}
# everything that is drawn at random in a step; and a clip that some gradients meet: AdamW alone
# would not see a factor on all of them
MODEL = {"class_dropout": 0.3, "drop_path": 0.4, "mask_prob": 0.5}
TRAINING = {
    "steps": 12,
    "batch_size": 16,
    "eval_every": 3,
    "save_every": 2,
    "corruption": "absorb",
    "eps": 0.1,
    "clip": 0.93,
    "lr": 5.0e-3,
    "warmup": 2,
}


class Bench:
    """The smoke study's suite `main` with random draws of every kind: data, tokenizer, tokens, and
    a training of each history."""

    def __init__(self, root: Path) -> None:
        self.root = root
        changes = {f"bases/var/model/{key}": value for key, value in MODEL.items()}
        changes |= {f"bases/var/training/{key}": value for key, value in TRAINING.items()}
        self.plan = load_study(
            edited(
                root,
                **changes,
                **{
                    "evaluation/num_images": 101,
                    "evaluation/batch_size": 40,
                    "suites/guidance": ...,
                },
            )
        )
        for stage in ("prepare", "tokenizer", "encode", "train", "sample"):
            for mark in ("hNone", "h0") if stage == "train" else ("",):
                code, text = self.call(run_id := self.find(stage, mark), self.words(run_id))
                assert code == 0, text

    def find(self, stage, mark=""):
        return next(run_id for run_id in self.plan.jobs if run_id.startswith(f"{stage}/{mark}"))

    def config(self, run_id, name="config", **training):
        job = self.plan.jobs[run_id]
        config = json.loads(json.dumps(job.config))
        config.get("training", {}).update(training)
        path = self.root / "configs" / f"{run_id.replace('/', '_')}_{name}.json"
        path.parent.mkdir(exist_ok=True)
        about = {
            "study": "smoke",
            "run_id": run_id,
            "identity": job.identity,
            "inputs": job.inputs,
            "config": config,
        }
        path.write_text(json.dumps(about))
        return path

    def words(self, run_id, out=None, config=None):
        inputs = [
            w
            for role, needed in self.plan.jobs[run_id].inputs.items()
            for w in (f"--{role}", self.root / needed)
        ]
        words = [
            config or self.config(run_id),
            out or self.root / run_id,
            *inputs,
            "--threads",
            1,
            "--device",
            "cpu",
        ]
        return [*map(str, words)]

    def call(self, run_id, words):
        """A verb in this process."""
        stage, job = run_id.split("/")[0], self.plan.jobs[run_id]
        with pytest.raises(SystemExit) as left:
            main(
                {"tokenizer": "train_tokenizer"}.get(stage, stage),
                WORK[stage],
                tuple(job.inputs),
                words,
            )
        return (0, "") if not left.value.code else (1, str(left.value.code))

    def trainer(self, mark, out, **training):
        run_id = self.find("train", mark)
        folders = {
            role: self.root / needed for role, needed in self.plan.jobs[run_id].inputs.items()
        }
        options = Namespace(
            config=self.config(run_id, out.name, **training), out=out, device="cpu", **folders
        )
        return Trainer(Run("train", options, tuple(folders)))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("ranks"))


def torchrun(*words, processes=2):
    """The same verb, shared by processes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        *map(str, words),
    ]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    text, _ = process.communicate(timeout=240)
    return process.returncode, text


def curve(folder):
    """Losses by metric and step."""
    rows = csv.DictReader(open(folder / "metrics.csv"))
    return {
        (r["metric"], r["scale"], r["step"]): float(r["value"])
        for r in rows
        if "loss" in r["metric"] or "accuracy" in r["metric"]
    }


def close(ours, theirs):
    """Losses, and the weights that they belong to."""
    a, b = curve(ours), curve(theirs)
    assert a.keys() == b.keys() and len([key for key in a if key[0] == "loss_train"]) == 4
    assert a == pytest.approx(b, rel=1e-5)
    a, b = (load_tensors(folder / "model.safetensors")[0] for folder in (ours, theirs))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


def steps(trainer, count=5):
    losses = []
    for _ in range(count):
        losses.append(trainer.step().item())
        trainer.state.step += 1
    return losses


# ---------------------------------------------------------------- one process


@pytest.mark.parametrize("mark, weight", [("hNone", "count"), ("h0", "count"), ("h0", "elbo")])
def test_micro_batches_take_the_same_steps(bench, tmp_path, mark, weight):
    """Catches random numbers that are drawn anew for each micro-batch, and masked tokens that count
    otherwise where a part of the batch has more of them, or of heavier ones, than another."""
    whole = bench.trainer(mark, tmp_path / "one", mask_weight=weight)
    parts = bench.trainer(mark, tmp_path / "four", mask_weight=weight, accumulate=4)
    assert steps(whole) == pytest.approx(steps(parts), rel=1e-5)
    for a, b in zip(whole.model.parameters(), parts.model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_parts_of_a_batch_are_no_equal_shares(bench, tmp_path):
    """The test of the tests: the parts of these batches do hold different numbers of counted
    tokens, and drop different paths."""
    trainer = bench.trainer("h0", tmp_path / "one")
    batch = trainer.batch(0)
    parts = [batch.part(slice(i, i + 4)) for i in range(0, 16, 4)]
    counts = [int((part.own_BL == 16).sum()) for part in parts]
    assert sum(counts) == batch.counted < batch.tokens_BL.numel() and len(set(counts)) > 1
    assert len({part.paths_E2B.flatten().tolist().__repr__() for part in parts}) > 1
    assert not torch.equal(batch.seen_BL, batch.tokens_BL)


def test_recomputed_blocks_take_the_same_steps(bench, tmp_path):
    """Catches a recomputation that draws its stochastic depth anew,
    and a setting that recomputes nothing."""
    plain, again = (
        bench.trainer("hNone", tmp_path / "plain"),
        bench.trainer("hNone", tmp_path / "again", checkpointing=True),
    )
    calls = []
    again.model.blocks[1].register_forward_pre_hook(lambda *_: calls.append(1))
    assert steps(plain) == steps(again)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.model.parameters(), again.model.parameters())
    )
    assert len(calls) == 2 * 5


def too_large(limit, call):
    """A network that fits into memory with so many images."""

    def hidden(inputs_BLC, *more):
        if len(inputs_BLC) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return call(inputs_BLC, *more)

    return hidden


@pytest.mark.parametrize(
    "limit, said",
    [(5, "4 fit: set training.accumulate 4"), (0, "with 1; set training.checkpointing")],
)
def test_out_of_memory_says_what_would_fit(bench, tmp_path, monkeypatch, limit, said):
    """Catches an oom row that leaves its reader to guess, and a hint that was not tried."""
    made = Trainer.__init__

    def init(trainer, run):
        made(trainer, run)
        trainer.hidden = too_large(limit, trainer.hidden)

    monkeypatch.setattr(Trainer, "__init__", init)
    run_id = bench.find("train", "h0")
    code, text = bench.call(run_id, [*bench.words(run_id, tmp_path / "out"), "--record"])
    row = json.loads((tmp_path / "out" / "row.json").read_text())
    assert (
        code == 0
        and row["status"] == "oom"
        and "16 images at once" in row["reason"]
        and said in row["reason"]
    ), row["reason"]


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory.")


def no_room_beside_weights(weight, *more, make=torch.empty_like, **options):
    """`torch.empty_like` where gradients fit, and what is kept of each weight does not."""
    if isinstance(weight, torch.nn.Parameter):
        out_of_memory()
    return make(weight, *more, **options)


def test_what_fits_leaves_room_for_the_optimizer(bench, tmp_path, monkeypatch):
    """Catches advice by gradients alone: AdamW makes its moments after them, in the first step, and
    the run that follows the advice fails there."""
    trainer = bench.trainer("h0", tmp_path / "out")
    step = trainer.optimizer.step
    monkeypatch.setattr(trainer.optimizer, "step", out_of_memory)
    with pytest.raises(MemoryError, match="16 images at once .* 8 fit: set training.accumulate 2"):
        trainer.step()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty_like", no_room_beside_weights)
        with pytest.raises(MemoryError, match="and with 1; set training.checkpointing"):
            trainer.step()
    for weight in trainer.model.parameters():
        weight.grad = torch.zeros_like(weight)
    step()  # its moments are there from now on
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty_like", no_room_beside_weights)
        with pytest.raises(MemoryError, match="8 fit"):
            trainer.step()


def test_a_batch_of_samples_that_does_not_fit_is_halved(bench, tmp_path, monkeypatch, capsys):
    """Catches images that change with the batch that memory allows, one that is left out,
    and a fall-back in silence."""
    generate = sampling.generate

    def limited(model, ladder, labels_B, *more):
        if len(labels_B) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return generate(model, ladder, labels_B, *more)

    monkeypatch.setattr(sampling, "generate", limited)
    run_id = bench.find("sample")
    assert bench.call(run_id, bench.words(run_id, tmp_path / "out"))[0] == 0
    whole = bench.root / run_id
    same_images(tmp_path / "out", whole)
    said = capsys.readouterr().err
    assert "batch_size 40" in said and "10 images at once" in said
    metrics = [
        {r["metric"]: r["value"] for r in csv.DictReader(open(f / "metrics.csv"))}
        for f in (tmp_path / "out", whole)
    ]
    assert metrics[0].pop("sample_batch_fitted") == "10" and metrics[0] == metrics[1]
    limited_to_none = lambda *_: (_ for _ in ()).throw(  # noqa: E731
        torch.OutOfMemoryError("CUDA out of memory.")
    )
    monkeypatch.setattr(sampling, "generate", limited_to_none)
    bench.call(run_id, [*bench.words(run_id, tmp_path / "none"), "--record"])
    assert json.loads((tmp_path / "none" / "row.json").read_text())["status"] == "oom"
    assert not list((tmp_path / "none").glob("*images*"))


def same_images(ours, theirs):
    """Images may differ by one grey level of 255: a convolution rounds otherwise in a batch of
    another size. A token that differs would show."""
    for name in ("images", "strip"):
        a, b = (np.load(folder / f"{name}.npy").astype(int) for folder in (ours, theirs))
        assert a.shape == b.shape and np.abs(a - b).max() <= 1
    for name in ("labels.npy", "steps.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


# ---------------------------------------------------------------- what is refused


def several(world, local=0):
    ranks = Ranks()
    ranks.world = ranks.local_world = world
    store = {"add": lambda *_: 1, "set": lambda *_: None, "check": lambda *_: True}
    ranks.local, ranks.store = local, Namespace(**store)
    return ranks


def test_numbers_of_processes_that_cannot_be(bench, tmp_path, monkeypatch):
    """Catches a work that starts and then hangs or computes something else: with a batch that does
    not share out, with more processes than GPUs, or with a verb that is for one process."""
    monkeypatch.setattr(verb, "join", lambda: several(3))
    monkeypatch.setattr(Ranks, "connect", lambda *_: None)
    run_id = bench.find("train")
    code, text = bench.call(run_id, bench.words(run_id, tmp_path / "out"))
    assert code == 1 and "without torchrun" in text
    with pytest.raises(SystemExit, match="batch_size 16: cannot be shared among 3 processes"):
        main(
            "train",
            train,
            tuple(bench.plan.jobs[run_id].inputs),
            bench.words(run_id, tmp_path / "out"),
            shared=True,
        )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="--nproc-per-node 3.*2 GPUs"):
        verb.choose_device("auto", several(3))
    monkeypatch.setattr(torch.cuda, "set_device", lambda *_: None)
    assert verb.choose_device("cuda", several(2, local=1)) == torch.device("cuda", 1)


@pytest.mark.parametrize("count", [1, 2, 7, 101])
def test_shares_are_all_rows_once(count):
    """Catches a row that two processes take, or none."""
    found = []
    for rank in range(3):
        ranks = several(3)
        ranks.rank = rank
        found += range(count)[ranks.rows(count)]
    assert found == list(range(count))


# ---------------------------------------------------------------- two processes


def test_two_processes_take_the_same_steps(bench, tmp_path):
    """Catches gradients that are averaged where they should be summed, a batch that is not shared
    out, numbers drawn for each process, an evaluation on a part of the held-out images."""
    run_id = bench.find("train", "hNone")
    config = bench.config(run_id, "accumulate", accumulate=2)
    code, text = finish(
        torchrun("-m", "bench", "train", *bench.words(run_id, tmp_path / "two", config))
    )
    assert code == 0, text
    close(tmp_path / "two", bench.root / run_id)
    assert json.loads((tmp_path / "two" / "row.json").read_text())["device"].startswith("2 x cpu")
    assert text.count("kept step") == 1 and not list((tmp_path / "two").glob(".*tmp"))


def test_two_killed_processes_resume(bench, tmp_path):
    """Catches a checkpoint that only one process reads, losses since the last look that count
    twice, and processes that go on alone after torchrun was killed."""
    run_id = bench.find("train", "h0")
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\nfrom bench.pipeline import train\nfrom bench.runtime.verb import main\nstep "
        "= train.Trainer.step\n"
        "train.Trainer.step = lambda trainer: (time.sleep(0.2 if trainer.state.step > 3 else 0), "
        "step(trainer))[1]\n"
        "main('train', train.work, inputs=('data', 'tokenizer', 'tokens'), shared=True)\n"
    )
    words, out = bench.words(run_id, tmp_path / "two"), tmp_path / "two"
    process = torchrun(slow, *words)
    end = time.monotonic() + 120
    while not (out / "resume.safetensors").exists():
        assert process.poll() is None and time.monotonic() < end, finish(process)
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)  # its processes hold the pipe: this ends when they do
    assert not (out / "row.json").exists(), "killed too late: the test proves nothing"
    code, text = finish(torchrun("-m", "bench", "train", *words))
    assert code == 0 and text.count("resumes at step") == 1, text
    close(out, bench.root / run_id)
    whole = tmp_path / "whole"
    code, text = finish(torchrun("-m", "bench", "train", *bench.words(run_id, whole)))
    assert code == 0, text
    name = "model.safetensors"
    assert (out / name).read_bytes() == (whole / name).read_bytes()
    rows, wanted = (
        [row for row in (folder / "metrics.csv").read_text().splitlines() if ",s," not in row]
        for folder in (out, whole)
    )
    assert rows == wanted and any("loss_train" in row for row in rows)


def test_two_processes_keep_what_another_run_has_just_ended(bench, tmp_path):
    """Catches processes that train, or wait for ever, where the first one alone knows that all is
    done."""
    run_id, out = bench.find("train", "h0"), tmp_path / "two"
    out.mkdir()
    row = (bench.root / run_id / "row.json").read_text()
    with open(out / ".lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = torchrun("-m", "bench", "train", *bench.words(run_id, out))
        while "waiting until it ends" not in (line := process.stdout.readline()):
            assert line, finish(process)
        (out / "row.json").write_text(row)
    code, text = finish(process)
    assert code == 0 and text.count("its results are kept") == 1, text
    assert not (out / "model.safetensors").exists() and (out / "row.json").read_text() == row


PATIENT = """import sys
from datetime import timedelta
import bench.runtime.ranks as ranks
from bench.pipeline import train
from bench.runtime.verb import main
connect = ranks.Ranks.connect
def impatient(self, device):
    ranks.TIMEOUT = timedelta(seconds=4)
    connect(self, device)
ranks.Ranks.connect = impatient
main("train", train.work, train.INPUTS, shared=True)
"""


def test_two_processes_wait_as_long_as_another_run_works(bench, tmp_path):
    """Catches a job that fails because the first process waits for one that a killed workflow left
    behind, and the others wait for it no longer than for a file that it writes."""
    run_id, out, program = bench.find("train", "h0"), tmp_path / "two", tmp_path / "patient.py"
    out.mkdir()
    program.write_text(PATIENT)
    with open(out / ".lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = torchrun(program, *bench.words(run_id, out))
        while "waiting until it ends" not in (line := process.stdout.readline()):
            assert line, finish(process)
        time.sleep(8)
    code, text = finish(process)
    assert code == 0 and (out / "model.safetensors").is_file(), text


def test_a_process_that_fails_ends_all(bench, tmp_path):
    """Catches a run that hangs when one process is out of memory and the others wait for its
    gradients, or that leaves no row."""
    run_id = bench.find("train", "h0")
    script = tmp_path / "small.py"
    script.write_text(
        "import torch\nfrom bench.pipeline import train\nfrom bench.runtime.verb import main\nloss "
        "= train.Trainer.loss\n"
        "def limited(trainer, part):\n"
        "    if trainer.ranks.rank == 1 and trainer.state.step == 2 and len(part.labels_B) > 3:\n"
        "        raise torch.OutOfMemoryError('CUDA out of memory.')\n"
        "    return loss(trainer, part)\n"
        "train.Trainer.loss = limited\n"
        "main('train', train.work, inputs=('data', 'tokenizer', 'tokens'), shared=True)\n"
    )
    code, text = finish(torchrun(script, *bench.words(run_id, tmp_path / "out"), "--record"))
    assert code == 0 and "Traceback" not in text, text
    row = json.loads((tmp_path / "out" / "row.json").read_text())
    assert (
        row["status"] == "oom"
        and "8 images at once" in row["reason"]
        and "set training.accumulate 4" in row["reason"]
    ), row
    assert (
        text.count("oom:") == 1
        and len((tmp_path / "out" / "metrics.csv").read_text().splitlines()) == 1
    )


def test_two_processes_draw_the_same_images(bench, tmp_path):
    """Catches a process that draws another's images, leaves a gap,
    or draws by its own batch instead of by seed."""
    run_id = bench.find("sample")
    code, text = finish(torchrun("-m", "bench", "sample", *bench.words(run_id, tmp_path / "two")))
    assert code == 0, text
    same_images(tmp_path / "two", bench.root / run_id)
    assert len(np.load(tmp_path / "two" / "images.npy")[0]) == 101
    rows = [
        (folder / "metrics.csv").read_text() for folder in (tmp_path / "two", bench.root / run_id)
    ]
    assert rows[0] == rows[1] and "nfe" in rows[0] and not list((tmp_path / "two").glob(".*tmp"))
