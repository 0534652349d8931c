"""The golden file of the smoke study: a refactoring that changes one of its numbers is seen.

    python tests/golden_smoke.py [PROJECT]

rewrites tests/golden/smoke.csv, for a change on purpose, and prints what differs from before.
PROJECT: a copy of this project in which `snakemake --configfile smoke.yaml collect_full` has ended;
without one, the study is run first.
"""

import csv
import sys
import tempfile
from pathlib import Path

from workflow import COUNTED, ROOT, copy_project, snakemake, study_numbers

GOLDEN = ROOT / "tests" / "golden" / "smoke.csv"
NAMED = ["suite", "variant", "metric"]
# Relative and absolute, for the rounding of another CPU. Without AVX, losses move by 3e-6 of their
# value, scores by 2e-4 of it or by 3e-5, and no token turns. Scores leave room for some tokens that
# do, as a share for one image of 200. On one machine all six digits agree: git diff shows it.
EXACT = (2e-6, 0.0)  # counts, and means of counts to six digits
SMOOTH = ["nats", "nats/token", "mse", "L2", "ssim", "codes", "probability"]
TOLERANCES = {
    **dict.fromkeys(SMOOTH, (1e-4, 1e-6)),
    **dict.fromkeys(["ratio", "squared intensity"], (2e-2, 1e-6)),
    "dB": (1e-4, 1e-4),
    "score": (2e-2, 1e-3),
    "share": (2e-2, 6e-3),
}


def written(value):
    """Six digits, or all of a whole number; nothing for a missing one."""
    if value is None:
        return ""
    return f"{value:.0f}" if value == int(value) else f"{value:.6g}"


def write_golden(numbers):
    """One sorted row a number."""
    lines = [[*key, written(value), unit] for key, (value, unit) in numbers.items()]
    lines = sorted(["" if cell is None else str(cell) for cell in line] for line in lines)
    with open(GOLDEN, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [[*NAMED, *COUNTED, "value", "unit"], *lines]
        )


def read_golden():
    """The numbers as study_numbers gives them."""
    numbers = {}
    with open(GOLDEN, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            counted = [int(row[name]) if row[name] else None for name in COUNTED]
            key = (*(row[name] for name in NAMED), *counted)
            numbers[key] = (float(row["value"]) if row["value"] else None, row["unit"])
    return numbers


def agree(expected, number):
    """Whether two numbers with their units are one up to rounding."""
    (before, unit), (after, unit_after) = expected, number
    if unit != unit_after or before is None or after is None:
        return expected == number
    relative, absolute = TOLERANCES.get(unit, EXACT)
    return abs(after - before) <= absolute + relative * abs(before)


def differences(expected, numbers):
    """A line for each number that is missing, new or another one."""
    lines = [f"missing: {key}: {expected[key]}" for key in expected if key not in numbers]
    lines += [f"new: {key}: {numbers[key]}" for key in numbers if key not in expected]
    for key in expected.keys() & numbers.keys():
        if not agree(expected[key], numbers[key]):
            lines.append(f"{key}: {numbers[key]}, was {expected[key]}")
    return sorted(lines)


def run_study(folder):
    """A copy of the project in which every suite of the smoke study has ended."""
    project = copy_project(folder)
    code, text = snakemake(project, "--configfile=smoke.yaml", "collect_full", timeout=3600)
    if code:
        sys.exit(f"error: exit status {code}: {text[-3000:]}")
    return project


def main(words):
    if len(words) > 1 or any(word.startswith("-") for word in words):
        sys.exit(__doc__)
    sys.path.insert(0, str(ROOT))  # a program finds modules beside itself only
    with tempfile.TemporaryDirectory(prefix="golden-") as place:
        project = Path(words[0]) if words else run_study(Path(place))
        numbers = study_numbers(project / "results" / "smoke" / "full")
    lines = differences(read_golden(), numbers) if GOLDEN.is_file() else []
    write_golden(numbers)
    print(*lines, f"{len(numbers)} numbers, {len(lines)} differ from before: {GOLDEN}", sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
