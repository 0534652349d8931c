"""All that a GPU is needed for, in ten minutes: the GPU tests, then times, then a short table.

    python tests/gpu/run.py [PART ...] [--public CHECKOUT] [--out FOLDER]

PART: tests, measure, public, profile; without one, all. CHECKOUT: of FoundationVision/VAR.

A bare machine with torch, triton, pytest, pandas, scikit-learn and pydantic is enough. Each part
has a limit of its own, and one that fails does not keep the others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {"tests": 160, "measure": 170, "public": 140, "profile": 45}


def commands(options: argparse.Namespace) -> dict[str, list[list[str]]]:
    """What each part runs."""
    python, here, out = sys.executable, Path(__file__).parent, str(options.out)
    profiled = [python, str(here / "profile_sampling.py")]
    return {
        "tests": [[
            python, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "--tb=short",
            "--durations=5", str(here / "test_gpu.py"),
        ]],
        "measure": [[python, str(here / "measure.py"), "--out", out, "--limit-seconds", "120"]],
        "public": [[
            python, "-m", "bench.speed.benchmark_public", str(options.public), "--compiled",
            "--limit-seconds", "100", "--out", f"{out}/public_cuda.csv",
        ]],
        "profile": [profiled, [*profiled, "--history", "0"], [*profiled, "--batch", "64"]],
    }  # fmt: skip


def main() -> None:
    """Run the parts that are asked for; what they print last is printed again at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(LIMITS))
    parser.add_argument("--public", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "gpu"),
         *filter(None, [os.environ.get("PYTHONPATH")])]
    )}  # fmt: skip
    ended, tails = {}, []
    for part in options.parts:
        if part == "public" and options.public is None:
            continue
        for i, command in enumerate(commands(options)[part]):
            began, log = time.monotonic(), options.out / f"{part}{i or ''}.log"
            with open(log, "w") as stream:
                try:
                    code = subprocess.run(
                        command, cwd=ROOT, env=environment, stdout=stream,
                        stderr=subprocess.STDOUT, timeout=LIMITS[part],
                    ).returncode  # fmt: skip
                except subprocess.TimeoutExpired:
                    code = 124
            ended[log.stem] = code
            last = "\n".join(log.read_text().splitlines()[-45:])
            took = time.monotonic() - began
            tails.append(f"---- {log.stem}: exit {code}, {took:.0f} s\n{last}")
            print(tails[-1], flush=True)
    sys.exit(any(ended.values()))


if __name__ == "__main__":
    main()
