"""Exponents of growing costs, their rows and their figure."""

import os
import sys

import pytest

from bench.runtime.rows import write_rows
from bench.speed.benchmark_growth import main
from bench.speed.growing import COLUMNS, KEY, exponents, read_growth, rows_of, write_growth
from bench.speed.memory import used_by


def test_exponents_are_those_of_the_largest_sizes():
    """Catches a fit that mixes rounds up, or that a constant at small sizes bends."""
    costs = {size: [3.0 * size**2, 5.0 * size**1.5] for size in (10, 20, 40)} | {1: [900, 900]}
    assert exponents(costs) == pytest.approx([2.0, 1.5])
    with pytest.raises(ValueError, match="two sizes"):
        exponents({1: [1.0]})
    with pytest.raises(ValueError, match="above 0"):
        exponents({1: [0.0], 2: [1.0]})


def test_rows_are_read_back_and_drawn(tmp_path):
    """Catches a column that is lost, and a panel of memory that is left out."""
    costs = {100: [1.0, 1.1, 1.2], 400: [4.0, 4.4, 4.8]}
    rows = rows_of("images", "encode", costs, {100: 2**20, 400: 2**21}, threads=1)
    rows += rows_of("depth", "VAR", costs)
    path = tmp_path / "growth_cpu.csv"
    write_rows(path, rows, COLUMNS, KEY)
    read = read_growth(path)
    assert [row["peak_bytes"] for row in read] == ["", "", "1048576", "2097152"]
    assert {row["exponent"] for row in read} == {"1"} and read[0]["cpu_low_s"] == "1.02"
    write_growth(read, tmp_path / "growth_cpu")
    svg = (tmp_path / "growth_cpu.svg").read_text(encoding="utf-8")
    for words in ("peak of a verb", "depth of the model", "encode: 1.00 (1.00 to 1.00)"):
        assert words in svg
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="growth_cpu.csv: holds no against"):
        read_growth(path)


@pytest.mark.parametrize(
    "words, expected", [(["with"], "with: no part"), (["--rounds", "0"], "--rounds 0: must be 1")]
)
def test_a_wrong_word_is_refused_before_any_work(words, expected, capsys):
    """Catches a misspelt part that measures nothing."""
    with pytest.raises(SystemExit):
        main(words)
    assert expected in capsys.readouterr().err


def test_memory_of_a_program_that_frees_it_again(tmp_path):
    """Catches the memory at the end instead of the peak, and a program that fails unseen."""
    code = "import time; held = bytearray(b'x') * 2**26; time.sleep(1); del held; time.sleep(0.2)"
    used = used_by([sys.executable, "-c", code], tmp_path, os.environ)
    assert 2**26 <= used.peak_bytes < 2**27 and used.cpu_s > 0
    with pytest.raises(RuntimeError, match="ended with 3"):
        used_by([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, os.environ)
