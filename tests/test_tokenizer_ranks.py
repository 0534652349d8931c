"""A tokenizer that several processes train together: each step is that of one process."""

import csv
import hashlib
import json
import signal
import time

import pytest
import torch
from shared_trainings import CASES, trained, write_images
from test_config import edited
from test_ranks import ROOT, finish, several, torchrun

from bench.pipeline.prepare import work as prepare
from bench.pipeline.shared_batch import SharedDropout
from bench.pipeline.train_tokenizer import work as train_tokenizer
from bench.runtime import verb
from bench.runtime.ranks import Ranks
from bench.runtime.verb import main
from bench.study.plan import load_study
from srdd.checkpoint import load_tensors
from srdd.config import TokenizerConfig
from srdd.noise import generator
from srdd.tokenizer import Tokenizer
from srdd.tokenizer_checkpoint import save_tokenizer

# ---------------------------------------------------------------- step by step


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with images, and what two processes made of every case."""
    folder = tmp_path_factory.mktemp("shared")
    write_images(folder)
    code, text = finish(torchrun(ROOT / "tests" / "shared_trainings.py", folder))
    assert code == 0, text
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_take_the_steps_of_one(shared, case):
    """Catches what is said of a share and should be of the batch: gradients, an entropy, counts of
    codes, the latents that codes restart at, a ratio of norms, a number drawn at random."""
    tensors, log, restarted = trained(case, shared, Ranks())
    theirs, said = load_tensors(shared / f"{case}_0.safetensors")
    assert (restarted > 0) == ("restart_every" in CASES[case]) and restarted == said["restarted"]
    for ours, other in zip(log, said["log"], strict=True):
        judged = ours.pop("judged"), other.pop("judged")
        assert judged[0] == pytest.approx(judged[1], rel=1e-9)
        perplexity_K = ours.pop("perplexity_K"), other.pop("perplexity_K")
        assert perplexity_K[0] == pytest.approx(perplexity_K[1], rel=1e-9)
        assert ours == pytest.approx(other, rel=1e-9)
    for name, value in tensors.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_processes_end_with_the_same_bits(shared, case):
    """Catches processes that drift apart: a draw or a sum that is one process's own."""
    first, second = (load_tensors(shared / f"{case}_{rank}.safetensors") for rank in range(2))
    assert first[1] == second[1] and first[0].keys() == second[0].keys()
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name


def test_shares_of_a_dropout_are_the_whole(monkeypatch):
    """Catches a mask that is drawn for each share, and one that drops in evaluation."""
    x, outs = torch.randn(6, 3, 2, 2, generator=generator("x")), []
    for rank in range(3):
        ranks = several(3)
        ranks.rank = rank
        layer = SharedDropout(0.5, ranks)
        torch.manual_seed(5)
        outs.append(layer(x[ranks.rows(6)]))
        assert torch.equal(layer.eval()(x), x)
    torch.manual_seed(5)
    assert torch.equal(torch.cat(outs), torch.nn.functional.dropout(x, 0.5))


# ---------------------------------------------------------------- the verb


class Prepared:
    """The images of the smoke study, and words that train its tokenizer."""

    def __init__(self, root):
        self.root = root
        self.plan = load_study(edited(root))
        self.data = next(run_id for run_id in self.plan.jobs if run_id.startswith("prepare/"))
        self.job = next(run_id for run_id in self.plan.jobs if run_id.startswith("tokenizer/"))
        words = self.written(self.data, root / "data.json"), root / self.data
        with pytest.raises(SystemExit) as left:
            main("prepare", prepare, (), [*map(str, words), "--device", "cpu"])
        assert not left.value.code

    def written(self, run_id, path, **tokenizer):
        """The file of a job, with settings of its tokenizer replaced."""
        job = self.plan.jobs[run_id]
        config = json.loads(json.dumps(job.config))
        config |= {"tokenizer": {**config["tokenizer"], **tokenizer}} if tokenizer else {}
        about = {"study": "smoke", "run_id": run_id, "identity": job.identity}
        path.write_text(json.dumps({**about, "inputs": job.inputs, "config": config}))
        return path

    def words(self, out, **tokenizer):
        """The command line of a job into a folder, with settings of its tokenizer replaced."""
        config = self.written(self.job, self.root / f"{out.name}.json", **tokenizer)
        words = [config, out, "--data", self.root / self.data, "--threads", 1, "--device", "cpu"]
        return [*map(str, words)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return Prepared(tmp_path_factory.mktemp("verb"))


def call(words):
    """The verb in this process; what it ends with."""
    with pytest.raises(SystemExit) as left:
        main("train_tokenizer", train_tokenizer, ("data",), words, shared=True)
    return left.value.code


def curves(folder):
    """Numbers of a training by metric, scale and step."""
    rows = csv.DictReader(open(folder / "metrics.csv"))
    return {(r["metric"], r["scale"], r["step"]): float(r["value"]) for r in rows}


SLOW = """
import time
from bench.pipeline import tokenizer_trainer, train_tokenizer
from bench.runtime.verb import main
step = tokenizer_trainer.TokenizerTrainer.step
def slow(trainer):
    time.sleep(0.3 if trainer.done > 4 else 0)
    return step(trainer)
tokenizer_trainer.TokenizerTrainer.step = slow
main("train_tokenizer", train_tokenizer.work, inputs=("data",), shared=True)
"""


def test_two_killed_processes_resume_bit_by_bit(prepared, tmp_path):
    """Catches a process that starts again while another goes on, a file that both write, a curve
    that is reported twice, and weights or losses of one process's share."""
    training = {**prepared.plan.jobs[prepared.job].config["tokenizer"]["training"], "steps": 16}
    names = "whole", "killed", "one"
    words = {name: prepared.words(tmp_path / name, training=training) for name in names}
    code, text = finish(torchrun("-m", "bench", "train_tokenizer", *words["whole"]))
    assert code == 0 and text.count("reconstruction error") == 1, text
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    process, end = torchrun(slow, *words["killed"]), time.monotonic() + 120
    while not (tmp_path / "killed" / "resume.safetensors").exists():
        assert process.poll() is None and time.monotonic() < end, finish(process)
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)  # its processes hold the pipe: this ends when they do
    assert not (tmp_path / "killed" / "row.json").exists(), "killed too late: it proves nothing"
    code, text = finish(torchrun("-m", "bench", "train_tokenizer", *words["killed"]))
    assert code == 0 and text.count("resumes at step") == 1, text
    for name in ("tokenizer.safetensors", "metrics.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "killed").glob("resume*"))
    row = json.loads((tmp_path / "killed" / "row.json").read_text())
    assert row["device"].startswith("2 x cpu") and row["status"] == "ok"
    assert not call(words["one"])
    assert curves(tmp_path / "whole") == pytest.approx(curves(tmp_path / "one"), rel=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused(prepared, tmp_path, monkeypatch):
    """Catches a training that starts with shares of different sizes, whose means weigh wrongly."""
    monkeypatch.setattr(verb, "join", lambda: several(3))
    monkeypatch.setattr(Ranks, "connect", lambda *_: None)
    said = call(prepared.words(tmp_path / "out"))
    wanted = "tokenizer.training.batch_size 32: cannot be shared among 3 processes"
    assert wanted in said and said.endswith("give a multiple of 3")
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_weights_that_exist_are_taken_over_once(prepared, tmp_path):
    """Catches processes that all write one file, or that train in spite of weights."""
    sizes = prepared.plan.jobs[prepared.job].config["tokenizer"]["config"]
    tokenizer = Tokenizer(TokenizerConfig.model_validate_json(json.dumps(sizes)))
    tokenizer.init_weights(generator("weights"))
    path, out = tmp_path / "given.safetensors", tmp_path / "out"
    save_tokenizer(path, tokenizer)
    known = {"weights": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    words = prepared.words(out, **known)
    code, text = finish(torchrun("-m", "bench", "train_tokenizer", *words))
    assert code == 0, text
    ours, theirs = (load_tensors(file)[0] for file in (out / "tokenizer.safetensors", path))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert not [*out.glob("resume*"), *out.glob(".*tmp")]
