"""Kill the whole workflow at random moments, start it again until it is done, and compare every
number with an undisturbed run.

    python tests/kill_at_random.py [--kills 20] [--seed 0] [--reference PROJECT] [words for `./run
    snakemake`]

PROJECT: a copy of this project in which the smoke study has ended; without one,
an undisturbed run comes first.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workflow import clean_environment, copy_project, numbers


def killed(project, words, seconds):
    """Start `./run snakemake` and kill it, and all that it started, after some seconds;
    whether it had not ended before."""
    command = [sys.executable, "run", "snakemake", "--configfile", "smoke.yaml", *words]
    with open(project / "said.txt", "ab") as said:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=clean_environment(),
            start_new_session=True,
            stdout=said,
            stderr=said,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
    if status:
        sys.exit(
            f"error: exit status {status}: "
            f"{(project / 'said.txt').read_text(errors='replace')[-3000:]}"
        )
    return False


def kill_and_compare(reference, folder, words, kills, seed, longest):
    """Kill at moments between 1 s and the longest, starting afresh whenever all is done; returns
    how many kills there were, how often all was done, and the numbers that differ or that the
    reference lacks."""
    draw, done, rounds, wrong = random.Random(seed), 0, 0, []
    while done < kills:
        rounds += 1
        project = copy_project(folder / f"round{rounds}")
        while done < kills and killed(project, words, draw.uniform(1, longest)):
            done += 1
        while killed(project, words, 3600):
            pass
        right, found = numbers(reference), numbers(project)
        wrong += [
            (key, value, right.get(key)) for key, value in found.items() if right.get(key) != value
        ]
        if not found:
            wrong.append(("no numbers", words, None))
        halves = [path for path in (project / "results").rglob(".*.tmp")]
        print(
            f"round {rounds}: {done} kills so far, {len(found)} numbers compared, "
            f"{len(halves)} temporary files left",
            flush=True,
        )
    return done, rounds, wrong


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=20.0, help="seconds until a kill, at most")
    parser.add_argument("--reference", type=Path)
    options, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        folder = Path(place)
        reference = options.reference
        if reference is None:
            reference, began = copy_project(folder / "undisturbed"), time.monotonic()
            killed(reference, words, 3600)
            print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        kills, rounds, wrong = kill_and_compare(
            reference, folder, words, options.kills, options.seed, options.longest
        )
    for key, value, right in wrong[:20]:
        print(f"differs: {key}: {value}, undisturbed {right}")
    print(f"{kills} kills in {rounds} rounds, {len(wrong)} numbers differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
