"""The programs that a lent GPU is measured by, as far as they go without one."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.pipeline.floors import Rates

FOLDER = Path(__file__).parent / "gpu"


def program(name):
    """A file of tests/gpu, which is no package."""
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def begin(monkeypatch, tmp_path):
    """Runs run.py with other commands on a machine that would have a GPU; the exit status."""
    run = program("run")
    monkeypatch.setattr(run, "sees_gpu", lambda environment: True)
    monkeypatch.setattr(run, "PATIENCE", 1)

    def called(*words, limits=None, **commands):
        programs = {part: [[sys.executable, "-c", code]] for part, code in commands.items()}
        monkeypatch.setattr(run, "commands", lambda options: programs)
        monkeypatch.setattr(run, "LIMITS", {**run.LIMITS, **(limits or {})})
        monkeypatch.setattr(sys, "argv", ["run.py", *words, "--out", str(tmp_path)])
        with pytest.raises(SystemExit) as left:
            run.main()
        return left.value.code

    return called


@pytest.mark.parametrize("words, named", [
    (["test"], "PART 'test': is none of tests, measure, public, profile"),
    (["public"], "PART public: give --public"),
    (["tests", "--public", "nowhere"], "nowhere: holds no models/var.py"),
])  # fmt: skip
def test_what_names_nothing_to_run_is_refused_at_once(begin, capsys, words, named):
    """Catches minutes of a lent machine spent before a traceback, or on nothing."""
    assert begin(*words, tests="print('ran')") == 2
    said = capsys.readouterr()
    assert named in said.err and not said.out


def test_rows_are_written_where_they_change_no_tree(monkeypatch):
    """Catches a part whose rows say `dirty` of what the part before it has written, and committed
    rows that a run overwrites which is cut short."""
    monkeypatch.setattr(sys, "argv", ["run.py"])
    out = program("run").parse().out
    asked = ["git", "-C", str(FOLDER), "check-ignore", "-q", str(out / "gpu_cuda.csv")]
    assert subprocess.run(asked).returncode in (0, 128)  # 128: no repository


def test_tables_and_ends_of_all_parts_come_last(begin, capsys):
    """Catches a table above the pages of a profile, and a part that is lost beside one that fails
    or does not end."""
    code = begin(
        "tests", "measure", "profile", limits={"tests": 1},
        tests="import time; print('begun', flush=True); time.sleep(60)",
        measure="print('the table')", profile="print('kernels'); raise SystemExit(3)",
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert code and "begun" in lines
    ends = [line.rsplit(",", 1)[0] for line in lines[-3:]]
    assert ends == ["---- tests: exit 124", "---- measure: exit 0", "---- profile: exit 3"]
    assert lines[-5:-3] == ["---- measure", "the table"]


def test_rows_end_with_the_time_and_are_shown(monkeypatch, tmp_path, capsys):
    """Catches a limit that holds only between parts: whoever is killed shows no table."""
    measure = program("measure")
    monkeypatch.setattr(measure, "measure_rates", lambda *_: Rates(1e12, 1e14))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    table = measure.Table(tmp_path, 16, limit_seconds=-1.0)
    table.add("sampling", "as it is", 1, lambda: pytest.fail("timed"))
    table.show()
    said = capsys.readouterr().out
    assert "a GPU" in said and "left out, --limit-seconds: sampling, as it is, batch 1" in said


def test_the_table_names_the_file_of_its_rows(monkeypatch, tmp_path, capsys):
    """Catches rows of an earlier run that are published for those of one that was cut short."""
    measure = program("measure")
    monkeypatch.setattr(measure, "measure_rates", lambda *_: Rates(1e12, 1e14))
    monkeypatch.setattr(measure, "seconds", lambda *_: 1.0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    whole, part = (measure.Table(tmp_path, 16, limit_seconds=60.0) for _ in range(2))
    for batch in (1, 2):
        whole.add("sampling", "as it is", batch, lambda: None)
    part.add("sampling", "as it is", 1, lambda: None)
    for table, name in ((whole, "gpu_cuda.csv"), (part, "gpu_cuda_part.csv")):
        table.show()
        assert f"written to {tmp_path / name}\n" in capsys.readouterr().out


def test_an_interrupted_part_leaves_the_table(monkeypatch, tmp_path, capsys):
    """Catches rows that nobody sees where the time of all parts ends."""
    measure = program("measure")
    monkeypatch.setattr(measure, "measure_rates", lambda *_: Rates(1e12, 1e14))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "sampling", stopped)
    monkeypatch.setattr(sys, "argv", ["measure.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="sampling, stopped"):
        measure.main()
    assert "a GPU" in capsys.readouterr().out
