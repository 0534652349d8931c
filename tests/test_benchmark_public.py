"""The benchmark beside the public VAR code, as far as it goes without that code."""

import subprocess
import sys
from itertools import chain, repeat
from pathlib import Path

import pytest
import torch

from bench.speed import rounds
from bench.speed.benchmark_public import compared, main
from bench.speed.rounds import COLUMNS, Side, Table, Timed, in_turn, row_of
from bench.speed.whole import write_whole

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
ABSENT = ["snakemake", "seaborn", "torch_fidelity", "matplotlib", "torchvision", "pytest", "yaml"]


def never():
    return False


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_that_is_no_checkout_is_refused_in_one_line(tmp_path, name):
    """Catches a traceback, or models built before the folder is looked at."""
    (tmp_path / "empty").mkdir()
    path = tmp_path / name
    with pytest.raises(SystemExit) as stopped:
        main([str(path), "--depth", "2"])
    words = f"error: {path}: holds no models/var.py; give a checkout of FoundationVision/VAR"
    assert stopped.value.code == words


def test_it_needs_few_packages():
    """Catches an import of a package that a bare machine with torch and pandas does not have."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT}));"
        "import bench.speed.benchmark_public"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_row_holds_medians_of_paired_rounds():
    """Catches a ratio of medians for the median of ratios, and a floor or share of the other
    side."""
    ours = Timed(Side(print, floor_s=0.5, flops=8.0), [1.0, 2.0, 6.0], 7)
    theirs = Timed(Side(print, floor_s=1.0, flops=6.0), [4.0, 2.0, 3.0])
    row = row_of(ours, theirs, matmul_rate=4.0)
    assert (row["ours_s"], row["theirs_s"], row["rounds"]) == (2.0, 3.0, 3)
    assert (row["ratio_low"], row["ratio"], row["ratio_high"]) == (0.25, 1.0, 2.0)
    assert (row["ours_over_floor"], row["theirs_over_floor"]) == (4.0, 3.0)
    assert (row["ours_matmul_share"], row["theirs_matmul_share"]) == (1.0, 0.5)
    assert (row["ours_peak_bytes"], row["theirs_peak_bytes"]) == (7, None)


def test_a_part_replaces_no_whole_run(tmp_path):
    """Catches rows that a run of some of them, or one that was stopped, has taken away."""
    path, columns, key = tmp_path / "speed_cpu.csv", ["what", "history", "s"], ["what", "history"]
    step, same, decode = (
        {"what": what, "history": history, "s": 1.5}
        for what, history in (("step", None), ("step", 0), ("decode", None))
    )
    assert write_whole(path, [step, same], columns, key) == path
    before = path.read_text()
    part = tmp_path / "speed_cpu_part.csv"
    assert write_whole(path, [{**same, "s": 2.0}, decode], columns, key) == part
    assert path.read_text() == before and len(part.read_text().splitlines()) == 3
    assert write_whole(path, [same, decode, {**step, "s": 3.0}], columns, key) == path
    assert len(path.read_text().splitlines()) == 4 and not part.exists()


def test_a_table_that_is_not_finished_leaves_the_last_one(tmp_path, capsys):
    """Catches a row of a stopped run in the place of all rows of the run before."""
    first = {"what": "sampling", "ours": "VAR", "theirs": "public VAR", "precision": "float32"}
    rows = [row_of(Timed(Side(never), [1.0]), Timed(Side(never), [2.0]), 1.0) for _ in range(2)]
    rows = [{**row, **first, "batch": batch} for batch, row in enumerate(rows, 1)]
    whole = Table(tmp_path / "public_cpu.csv", {})
    for row in rows:
        whole.add(row)
    stopped = Table(tmp_path / "public_cpu.csv", {"commit": "new"})
    stopped.add(rows[0])
    stopped.show()
    assert stopped.written.name == "public_cpu_part.csv" and "new" in stopped.written.read_text()
    assert f"written to {stopped.written}" in capsys.readouterr().out
    assert "new" not in whole.written.read_text()
    stopped.add(rows[1])
    assert stopped.written == whole.written and "new" in whole.written.read_text()


def test_a_side_out_of_memory_leaves_an_empty_time():
    """Catches a run that ends, or loses the other sides, where one does not fit."""
    calls = chain(repeat(None, 2), [MemoryError()])

    def ends():
        if error := next(calls):
            raise error

    def refuses():
        raise torch.OutOfMemoryError("CUDA out of memory")

    makers = {"a": lambda: Side(never), "b": lambda: Side(ends), "c": refuses}
    timed = in_turn(makers, 4, CPU, never)
    assert len(timed["a"].times) == 4 and timed["b"].times is None and timed["c"].times is None
    row = row_of(timed["a"], timed["b"], 1.0)
    assert row["ours_s"] is not None and row["theirs_s"] is None and row["ratio"] is None


def test_no_round_begins_once_it_is_late():
    """Catches a limit that holds only between groups."""
    late = iter([False, False, False, True])
    timed = in_turn({"a": lambda: Side(never)}, 10, CPU, lambda: next(late))
    assert len(timed["a"].times) == 2
    assert in_turn({"a": lambda: Side(never)}, 10, CPU, lambda: True) == {}


def test_another_error_is_no_lack_of_memory():
    """Catches a mistake that is taken for one."""

    def wrong():
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_turn({"a": lambda: Side(wrong)}, 1, CPU, never)


def test_each_row_is_written_as_it_comes(tmp_path, capsys):
    """Catches rows that are lost when a run is killed, and a table longer than a screen."""
    table = Table(tmp_path / "public.csv", {"precision": "float32"})
    for batch in range(60):
        table.add({"what": "sampling", "batch": batch, "ours": "VAR", "theirs": "public VAR"})
        lines = table.out.read_text().splitlines()
        assert lines[0].split(",") == COLUMNS and len(lines) == batch + 2
    capsys.readouterr()
    table.left_out.append("decoder B=64")
    table.show()
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 40 and f"{60 - rounds.TABLE_ROWS} more rows" in shown
    assert "left out, --limit-seconds: decoder B=64" in shown


def test_ours_stands_beside_every_public_side():
    """Catches a comparison that is left out, or made twice."""
    names = ["public VAR", "public VAR, casts kept", "VAR", "SDD"]
    assert compared(names) == [
        ("VAR", names[0]),
        ("VAR", names[1]),
        ("SDD", names[1]),
        ("SDD", "VAR"),
    ]
