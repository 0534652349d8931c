"""All that a GPU is needed for, in ten minutes: the GPU tests, then times, then a short table.

    python tests/gpu/run.py [PART ...] [--public CHECKOUT] [--out FOLDER]

PART: tests, measure, public, profile; without one, all. CHECKOUT: of FoundationVision/VAR.

A machine with torch, triton, numpy, pandas, scipy, scikit-learn, safetensors, pydantic, PyYAML,
pillow, tqdm, pytest, pytest-benchmark and hypothesis is enough. Each part has a limit of its own,
all of them have one together, and one that fails does not keep the others. What each prints is in
FOLDER/PART.log, its end is shown when it is through; tables, and how all parts ended, come last.
FOLDER is results/gpu/benchmarks; what is to be published is copied to results/benchmarks.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {"tests": 160, "measure": 170, "public": 140, "profile": 45}  # seconds of each command
TOGETHER = 560  # seconds of all parts: what is left of ten minutes copies the results
PATIENCE = 8  # seconds between being asked to end and being killed
TABLES = ("measure", "public")  # parts whose last lines are a table
LINES = 45  # of a part's end


def commands(options: argparse.Namespace) -> dict[str, list[list[str]]]:
    """What each part runs."""
    python, here, out = sys.executable, Path(__file__).parent, str(options.out)
    profiled = [python, str(here / "profile_sampling.py")]
    return {
        "tests": [[
            python, "-m", "pytest", "-v", "--no-header", "-p", "no:cacheprovider", "--tb=short",
            "--durations=5", str(here.parent / "test_kernels.py"), str(here / "test_gpu.py"),
        ]],
        "measure": [[python, str(here / "measure.py"), "--out", out, "--limit-seconds", "120"]],
        "public": [[
            python, "-m", "bench.speed.benchmark_public", str(options.public), "--compiled",
            "--limit-seconds", "100", "--out", f"{out}/public_cuda.csv",
        ]],
        "profile": [profiled, [*profiled, "--history", "0"], [*profiled, "--batch", "64"]],
    }  # fmt: skip


def run(command: list[str], environment: dict[str, str], stream: IO[str], limit: float) -> int:
    """Exit status of a command; 124 where its time is over, which ends all that it had started."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        # asked first, so that pytest prints the failures that it has seen
        for number, patience in ((signal.SIGINT, PATIENCE), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(patience)
        return 124


def sees_gpu(environment: dict[str, str]) -> bool:
    """Whether torch sees a GPU; asked of another process, which leaves no memory of one taken."""
    seen = [sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    return not subprocess.run(seen, env=environment).returncode


def last_lines(log: Path) -> str:
    """The end of what a part printed, which may break off in half a letter."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LINES:])


def parse() -> argparse.Namespace:
    """The words of the command line; those that name nothing to run are refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--public", type=Path, metavar="CHECKOUT")
    # not where the tables of the docs are committed: a part that writes there would leave the next
    # one a changed tree, and a run that is cut short fewer rows
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu" / "benchmarks")
    options = parser.parse_args()
    for part in options.parts:
        if part not in LIMITS:
            parser.error(f"PART {part!r}: is none of {', '.join(LIMITS)}")
    if "public" in options.parts and options.public is None:
        parser.error("PART public: give --public, a checkout of FoundationVision/VAR")
    if options.public is not None:
        options.public = options.public.resolve()
        if not (options.public / "models" / "var.py").is_file():
            parser.error(f"--public {options.public}: holds no models/var.py")
    known = [part for part in LIMITS if part != "public" or options.public is not None]
    options.parts = options.parts or known
    return options


def main() -> None:
    """Run the parts that are asked for; their tables are printed again at the end."""
    end, options = time.monotonic() + TOGETHER, parse()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "gpu"),
         *filter(None, [os.environ.get("PYTHONPATH")])]
    )}  # fmt: skip
    if not sees_gpu(environment):
        sys.exit("error: torch sees no GPU on this machine; nothing was run")
    ended: list[str] = []
    failed = False
    for part in options.parts:
        for i, command in enumerate(commands(options)[part]):
            began, log = time.monotonic(), options.out / f"{part}.log"
            limit = max(1.0, min(LIMITS[part], end - began))
            with open(log, "a" if i else "w") as stream:
                code = run(command, environment, stream, limit)
            failed = failed or code != 0
            ended.append(f"---- {part}{i or ''}: exit {code}, {time.monotonic() - began:.0f} s")
            print(ended[-1], last_lines(log), sep="\n", flush=True)
    for part in options.parts:
        if part in TABLES:
            print(f"---- {part}", last_lines(options.out / f"{part}.log"), sep="\n")
    print("\n".join(ended), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
