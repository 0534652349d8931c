"""What all verbs share: the command line, one-line errors, the status row, the metrics file.

    python -m bench VERB CONFIG.json OUT [--<input> FOLDER ...]
        [--device auto|cpu|cuda] [--threads N] [--record]

A verb writes its files into OUT, metrics.csv and, last, row.json. With --record a run that diverged
or ran out of memory ends as a row with that status and exit 0, so that a workflow goes on; without,
the exit status is 1. Errors of the user are never rows. Verbs that share their work among processes
are started by `torchrun --nproc-per-node N -m bench VERB ...`, all else the same.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from srdd.memory import is_out_of_memory

from ..study.errors import ConfigError, place_of
from ..study.file_sums import sum_of_file
from ..study.names import config_hash
from . import provenance
from .alone import alone
from .clock import Stopwatch
from .command import describe, parse, read_folders, read_json, read_row, with_remedy
from .kept_files import FILES, check_files, in_folder, sums_of
from .quick_start import compiles, keep_compiled, keep_memory, spare_compiler
from .ranks import Ranks, join
from .rows import CONTENTS, INPUTS, read_object, sum_of_row, write_metrics, write_text


class Cost(Protocol):
    """What `srdd.cost.sampling_cost` counts; named here so that verbs without a model need not load
    one."""

    @property
    def nfe(self) -> float: ...

    @property
    def token_evals(self) -> float: ...

    @property
    def flops(self) -> float: ...

    @property
    def passes(self) -> Sequence[float]: ...

    @property
    def tokens_per_forward(self) -> float | None: ...


S = TypeVar("S", bound=BaseModel)


class Diverged(ValueError):
    """A training whose loss is not a finite number any more."""


class Worked(NamedTuple):
    """When a job began, how many seconds it has been at work, and on what: a checkpoint holds it,
    so that the row of a training that was interrupted tells of all of it."""

    started_at: str
    wall_s: float
    devices: list[str]
    host_classes: list[str]


class Run:
    """One run of a verb: its config, folders, device, and the numbers it reports."""

    def __init__(
        self,
        verb: str,
        options: argparse.Namespace,
        inputs: Sequence[str],
        ranks: Ranks | None = None,
    ) -> None:
        self.verb, self.out = verb, options.out
        self.ranks = ranks or Ranks()
        self.config_path = options.config
        self.job = read_json(options.config)
        self.config: dict[str, Any] = self.job["config"]
        self.run_id: str = self.job["run_id"]
        self.study: str = self.job["study"]
        self.files: dict[str, str] = self.job.get(
            "files", {}
        )  # where weights lie, which is no part of the config
        self.inputs = read_folders(options, inputs)
        self.device = choose_device(options.device, self.ranks)
        self.metrics: list[dict[str, Any]] = []
        self.read: dict[str, str] = {}  # sums of the rows of the jobs that are read
        self.git, self.source = provenance.git_state(), provenance.source_of(verb, self.config)
        self.remove_at_end: Path | None = None  # of no use once the row is there
        self.begin()

    def begin(self) -> None:
        """What has been waited for until now is no work of this run."""
        self.clock, self.earlier = Stopwatch(), Worked(_now(), 0.0, [], [])

    def worked(self) -> Worked:
        """Until now; pauses between runs count nothing."""
        device = f"{self.ranks.world} x " if self.ranks.world > 1 else ""
        device += device_name(self.device)
        before = self.earlier
        return Worked(
            before.started_at,
            self.clock.seconds,
            list(dict.fromkeys([*before.devices, device])),
            list(dict.fromkeys([*before.host_classes, provenance.host_class()])),
        )

    def go_on_from(self, earlier: Worked) -> None:
        """This run goes on with what an earlier one began."""
        self.earlier, self.clock = earlier, Stopwatch(self.clock.seconds + earlier.wall_s)

    def settings(self, key: str, schema: type[S]) -> S:
        """A part of the config as its schema, with the places where its files lie now; that of a
        file deeper in it, such as training.perceptual_weights, whoever opens it asks `files` for.

        Raises ConfigError.
        """
        places = {}
        for name, path in self.files.items():
            part, _, field = name.rpartition(".")
            if part == key:
                places[field] = path
        try:
            return schema.model_validate_json(json.dumps({**self.config[key], **places}))
        except KeyError:
            raise ConfigError(f"{self.config_path}: {key}: is missing") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, (key, *first["loc"])))
            raise ConfigError(
                f"{self.config_path}: {where}: {first['msg']}, got {first.get('input')!r}"
            ) from None

    def add(self, metric: str, value: float | int | None, unit: str, **identity: Any) -> None:
        """Report one number. A value that is no finite number is reported as missing."""
        value = None if value is None or not math.isfinite(value) else value
        row = {
            "study": self.study,
            "dataset": self.config.get("dataset", {}).get("name"),
            "run_id": self.run_id,
        }
        self.metrics.append({**row, "metric": metric, "value": value, "unit": unit, **identity})

    def add_cost(self, cost: Cost, **identity: Any) -> None:
        """Report what an image costs. A call that a batch leaves out is left out for all of its
        images: batches of another size may cost otherwise. The passes of each scale are said where
        there is more than one."""
        self.add("nfe", cost.nfe, "calls/image", **identity)
        self.add("token_evals", cost.token_evals, "tokens/image", **identity)
        self.add("flops", cost.flops, "flop/image", **identity)
        self.add("tokens_per_forward", cost.tokens_per_forward, "tokens/pass", **identity)
        if any(passes != 1 for passes in cost.passes):
            for k, passes in enumerate(cost.passes):
                self.add("passes_used", passes, "passes/image", scale=k, **identity)

    def say(self, text: str, all_ranks: bool = False) -> None:
        """One line for whoever watches; of several processes the first one says it, or each that
        has something of its own to say."""
        if all_ranks or self.ranks.first:
            rank = "" if self.ranks.first else f", process {self.ranks.rank}"
            print(f"[{self.run_id}{rank}] {text}", file=sys.stderr, flush=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def choose_device(name: str, ranks: Ranks) -> torch.device:
    """auto takes a GPU when there is one.

    Raises ConfigError when one is asked for that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU here; use cpu or auto")
    return ranks.device(name)


def _upstream(inputs: dict[str, Path]) -> str | None:
    """Why this run cannot be: an input that did not end well."""
    for folder in inputs.values():
        row = read_row(folder)
        if row["status"] != "ok":
            return f"{row['run_id']} is {row['status']}"
    return None


def check_file(path: str, sha256: str | None, key: str) -> Path:
    """A file that must exist and, when a sum is given, have it: weights of others are read only
    after this."""
    file = place_of(path, key)
    if not file.is_file():
        raise ConfigError(f"{key}: no file at {file}")
    if sha256 is not None and (own := sum_of_file(file)) != sha256:
        raise ConfigError(f"{key}: {file} has sha256 {own}, {sha256} expected")
    return file


def peak_bytes(device: torch.device) -> int:
    """Largest memory so far: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(device: torch.device) -> str:
    """What stands in the device column."""
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads"
    )


def _read_by(run: Run) -> dict[str, str]:
    """The jobs that a run reads, by run_id, as they are now."""
    return {read_row(folder)["run_id"]: sum_of_row(folder) for folder in run.inputs.values()}


def _finish(run: Run, status: str, reason: str | None, worked: Worked) -> None:
    commit, dirty = provenance.git_state_since(run.git)
    metrics = write_metrics(run.out / "metrics.csv", run.metrics if status == "ok" else [])
    row = {
        "run_id": run.run_id,
        "stage": run.run_id.split("/")[0],
        "status": status,
        "reason": reason,
        "config_hash": config_hash(run.config),
        "source_hash": run.source,
        "commit": commit,
        "dirty": dirty,
        "torch": torch.__version__,
        "device": ", then ".join(worked.devices),
        "host_class": ", then ".join(worked.host_classes),
        "started_at": worked.started_at,
        "wall_s": round(worked.wall_s, 3),
        "peak_bytes": peak_bytes(run.device),
        "config_json": json.dumps(run.config, sort_keys=True),
        CONTENTS: {"metrics.csv": metrics},
        INPUTS: run.read,
        FILES: sums_of(run.out, run.remove_at_end) if status == "ok" else {},
    }
    write_text(run.out / "row.json", json.dumps(row, indent=1, sort_keys=True) + "\n")


def main(
    verb: str,
    work: Callable[[Run], None],
    inputs: Sequence[str] = (),
    argv: Sequence[str] | None = None,
    shared: bool = False,
) -> None:
    """Run a verb and leave: exit status 0, or 1 with one line that says what is wrong and what to
    do. shared: whether several processes may do it together."""
    options = parse(verb, inputs, argv)
    keep_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    ranks = join()
    try:
        if ranks.world > 1 and not shared:
            raise ConfigError(
                f"bench {verb}: is the work of one process; start it without torchrun"
            )
        run = Run(verb, options, inputs, ranks)
        keep_compiled()
        if not compiles(run.config):
            spare_compiler()
        ranks.connect(run.device)
        run.out.mkdir(parents=True, exist_ok=True)
        with alone(run.out, run.say) if ranks.first else nullcontext(False) as waited:
            ranks.follow()
            # what the others are to do is known to the first one alone
            over = bool(ranks.total(torch.tensor(int(waited and _was_done(run)))))
            if over:
                ranks.close()
            code = 0 if over else _run(run, work, options.record)
        if ranks.world > 1:
            # threads of torch.distributed may abort a process that tears down its interpreter,
            # after all work is done
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        sys.exit(code)
    except (ValueError, OSError) as error:
        ranks.report()
        ranks.end(1)
        folders = read_folders(options, inputs).values()
        sys.exit(f"error: {with_remedy(describe(error), folders)}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        ranks.report()
        raise


def _was_done(run: Run) -> bool:
    """Whether the run that was waited for has just ended well with what this one would do, from
    the same inputs: it is not done again."""
    try:
        row = read_object(run.out / "row.json")
        read = _read_by(run)
    except (OSError, ValueError):
        return False
    known = row.get("config_hash"), row.get("source_hash"), row.get("torch"), row.get(INPUTS)
    same = known == (config_hash(run.config), run.source, torch.__version__, read)
    if not same or row.get("status") != "ok":
        return False
    run.say("that process has ended it; its results are kept")
    return True


def _status(run: Run, work: Callable[[Run], None]) -> tuple[str, str | None]:
    """Do the work; how it ended, and why it did not end well."""
    if reason := _upstream(run.inputs):
        return "skipped", reason
    if run.ranks.first:
        for folder in run.inputs.values():
            check_files(folder, read_row(folder).get(FILES), in_folder)
    try:
        work(run)
    except Diverged as error:
        return "diverged", str(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return "oom", " ".join(str(error).split())[:300] or "out of memory"
    return "ok", None


def _run(run: Run, work: Callable[[Run], None], record: bool) -> int:
    """Do the work and leave the row of the run; the exit status."""
    if not os.access(run.out, os.W_OK):
        raise PermissionError(errno.EACCES, "no right to write", str(run.out))
    # before the work: another run may take the place of what is read
    run.read = _read_by(run)
    run.begin()
    status, reason = _status(run, work)
    worked = run.worked()
    if status == "ok":
        run.ranks.wait()
        if run.ranks.first:
            _finish(run, status, reason, worked)
            if run.remove_at_end is not None:
                run.remove_at_end.unlink(missing_ok=True)
        run.ranks.close()
        return 0
    run.ranks.report()
    run.say(f"{status}: {reason}", all_ranks=True)
    if not record and status != "skipped":
        print(f"error: {run.run_id} {status}: {reason}", file=sys.stderr, flush=True)
    _finish(run, status, reason, worked)
    code = 0 if record else 1
    run.ranks.end(code)
    return code
