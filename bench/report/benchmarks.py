"""Tables of benchmarks for places in the docs, from committed rows. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from .cells import pipe_table


def _timing(title: str, row: dict[str, Any]) -> list[str]:
    """The cells of a timed pair."""
    ratio, low, high, over = (
        f"{float(row[key]):.2f}" for key in ("ratio", "ratio_low", "ratio_high", "ours_over_floor")
    )
    return [title, f"{ratio} ({low} to {high})", over]


def _benchmark(root: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a benchmark; what is missing is empty."""
    path = root / "results" / "benchmarks" / f"{name}.csv"
    return pd.read_csv(path, keep_default_na=False).to_dict("records")


def _timings(
    rows: list[dict[str, Any]], name: Callable[[dict[str, Any]], str | None]
) -> list[list[str]]:
    """Cells of the rows of a benchmark that have a name."""
    return [_timing(title, row) for row in rows if (title := name(row)) is not None]


def _step_name(row: dict[str, Any]) -> str | None:
    what = str(row["what"])
    return f"{what}, history {row['history']}" if what.startswith("training step") else None


def _sampling_name(row: dict[str, Any]) -> str | None:
    return f"sampling, {row['variant']}" if row["scale"] == "all" else None


def _part_name(row: dict[str, Any]) -> str | None:
    """The name of a part of the tokenizer, or of features."""
    what = str(row["what"])
    return what if what in ("encode", "decode", "features") else None


NAMED_ROWS = {
    "speed_cpu": _step_name,
    "sampling_cpu": _sampling_name,
    "tokenizer_cpu": _part_name,
    "metrics_cpu": _part_name,
}


def _speed(root: Path, words: str) -> str:
    """Training steps, sampling and the rest: our time over the plain path's and over its floor.
    words: the maker of the processor, where not all was timed on one of it."""
    table = [["What", "Our time over the plain path's", "Our time over its floor"]]
    if maker := words.strip():
        return pipe_table([*table, *_timings(_benchmark(root, f"speed_cpu_{maker}"), _step_name)])
    for name, row_name in NAMED_ROWS.items():
        table += _timings(_benchmark(root, name), row_name)
    return pipe_table(table)


def _number(row: dict[str, Any], key: str, form: str, factor: float = 1.0) -> str:
    """A number of a benchmark's row; a dash where there is none."""
    return format(float(row[key]) * factor, form) if row[key] != "" else "-"


def _gpu(root: Path, words: str) -> str:
    """Times on a GPU of all that begins with a word."""
    head = ["What", "Way", "Batch", "Time, ms", "Over its floor", "Of a matrix product's rate",
            "Peak, MiB"]  # fmt: skip
    table = [head]
    for row in _benchmark(root, "gpu_cuda"):
        if not str(row["what"]).startswith(words.strip()):
            continue
        low, time, high = (
            _number(row, f"{key}s", ".3g", 1e3) for key in ("low_", "second", "high_")
        )
        share = _number(row, "matmul_share", ".0%")
        peak = _number(row, "peak_bytes", ".0f", 2**-20)
        cells = [row["what"], row["way"], row["batch"], f"{time} ({low} to {high})",
                 _number(row, "over_floor", ".2f"), share, peak]  # fmt: skip
        table.append([str(cell) for cell in cells])
    return pipe_table(table)


def _public(root: Path, words: str) -> str:
    """Our time over that of the public VAR code."""
    head = ["What", "Batch", "Ours", "Against", "Our time, ms", "Theirs, ms", "Ratio"]
    table = [head]
    for row in _benchmark(root, f"public_{words.strip() or 'cuda'}"):
        ratio, low, high = (
            _number(row, key, ".2f") for key in ("ratio", "ratio_low", "ratio_high")
        )
        times = [_number(row, f"{side}_s", ".3g", 1e3) for side in ("ours", "theirs")]
        cells = [row["what"], row["batch"], row["ours"], row["theirs"], *times,
                 f"{ratio} ({low} to {high})"]  # fmt: skip
        if "public" in str(row["theirs"]):
            table.append([str(cell) for cell in cells])
    return pipe_table(table)


def _device(root: Path, words: str) -> str:
    """What some benchmarks were measured on; the numbers of several devices are not told apart
    where none is named."""
    rows = [row for name in words.split() for row in _benchmark(root, name)]
    if not rows:
        raise ValueError("names no benchmark with rows; give files of results/benchmarks")
    return " and ".join(dict.fromkeys(str(row["device"]) for row in rows))


MANY = 50_000
MIB, KIB = 2**-20, 2**-10


def _peaks(root: Path, words: str) -> str:
    """Peak of what each verb allocates at the two largest numbers of images of each side, and at
    `MANY` if it goes on to grow as between these."""
    rows = [row for row in _benchmark(root, "growth_cpu") if row["peak_bytes"] != ""]
    measured = sorted({(row["against"], row["size"]) for row in rows})
    sizes: dict[str, list[int]] = {"images": [], "memory": []}
    for against, size in measured:
        sizes[against] = [*sizes[against], size][-2:]
    peaks = {
        (row["against"], row["variant"], row["size"]): float(row["peak_bytes"]) for row in rows
    }
    sides = {"images": "64 px", "memory": "256 px"}
    columns = [f"{size} of {sides[against]}" for against in sides for size in sizes[against]]
    table = [["Verb, MiB", *columns, "An image more, KiB", f"{MANY} of 256 px, at that rate"]]
    few, many = sizes["memory"]
    for verb in dict.fromkeys(row["variant"] for row in rows):
        read = [peaks[against, verb, size] for against in sides for size in sizes[against]]
        each = (read[-1] - read[-2]) / (many - few)
        last = read[-1] + max(0.0, each) * (MANY - many)
        cells = [f"{peak * MIB:.0f}" for peak in read]
        table.append([verb, *cells, f"{each * KIB:.1f}", f"{last * MIB:.0f}"])
    return pipe_table(table)


def _start(root: Path, words: str) -> str:
    """What planning costs, a run with nothing to do, and the start of a job."""
    table = [["What", "Jobs of the study", "CPU time, s"]]
    for row in _benchmark(root, "start_cpu"):
        low, cost, high = (_number(row, f"cpu_{end}s", ".2f") for end in ("low_", "", "high_"))
        table.append([str(row["what"]), _number(row, "jobs", ".0f"), f"{cost} ({low} to {high})"])
    return pipe_table(table)


BENCHMARKS: dict[str, Callable[[Path, str], str]] = {
    "speed": _speed,
    "gpu": _gpu,
    "public": _public,
    "device": _device,
    "peaks": _peaks,
    "start": _start,
}
