"""Snakemake in processes that are forked from one which has imported it: that is most of the time
of a dry run.

As a program it carries out a line of JSON after the other: words, folder, environment, log file.
"""

import atexit
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path


def serve():
    """Fork a process for each line, and answer with how it ended."""
    gc.disable()  # as bench/runtime/planner.py begins it; children share what is frozen
    import pydantic  # noqa: F401  by the Snakefile, which reads a study
    import snakemake.cli

    gc.freeze()
    for line in sys.stdin:
        words, folder, environment, log = json.loads(line)
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        for stream, path, how in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY)):
            os.dup2(os.open(path, how), stream)
        os.dup2(1, 2)
        sys.argv, sys.path[0] = ["snakemake", *words], str(folder)  # as `python -m snakemake`
        snakemake.cli.main()  # ends the process
        sys.exit("snakemake came back")


@cache
def server(environment):
    """The process that forks, one for each environment that it may begin with."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atexit.register(process.stdin.close)
    return process


def snakemake(words, folder, environment, timeout=300):
    """Exit status of snakemake with some words in a folder, and all that it said. Raises
    TimeoutError."""
    process = server(tuple(sorted(environment.items())))
    with tempfile.NamedTemporaryFile() as log:
        line = json.dumps([[*map(str, words)], str(folder), environment, log.name])
        print(line, file=process.stdin, flush=True)
        if not select.select([process.stdout], [], [], timeout)[0]:
            os.killpg(process.pid, signal.SIGKILL)
            server.cache_clear()
            raise TimeoutError(f"snakemake {words}: not done after {timeout} s")
        code = int(process.stdout.readline())
        return code, Path(log.name).read_text(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    serve()
