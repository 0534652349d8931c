"""What a run says: one line a finished job, with about how long the rest takes. On a terminal one
more line, written over, shows what runs. `./run` names it to snakemake as `--logger job-lines`.

What a job says goes to its log alone; of a job that fails, the end of its log is shown.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from snakemake.logging import DefaultFormatter, logger
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from bench.runtime.pace import (
    SHOWS,
    Pace,
    failure_lines,
    job_line,
    last_line,
    seconds_left,
    stage_of,
    times_before,
)
from bench.runtime.progress import clock
from bench.runtime.verbs import stages

# what snakemake tells while it runs and a user may have to know
ENDS = ("Will exit", "Shutting down", "Terminating")
TOLD = (*ENDS, "Trying to restart", "Nothing to be done")
# what it tells before, and a user need not know
UNTOLD = ("Assuming unrestricted", "host:", "Building DAG", "Using ", "Falling back", "Conda env")
AGAIN_S = 1.0


class QuietJobs(logging.Handler):
    """Once jobs begin, what they say goes to their logs alone. Not through the queue of the other
    lines: the first job would be faster."""

    def emit(self, record):
        if getattr(record, "event", None) == LogEvent.RUN_INFO:
            sys.stdout.flush()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)


class Screen:
    """Lines that stay, and on a terminal one that is written over."""

    def __init__(self, stream):
        self.stream, self.over, self.lock = stream, stream.isatty(), threading.RLock()

    def _write(self, text):
        # a reader who has left is no reason to stop the work
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(text)
            self.stream.flush()

    def say(self, *lines):
        with self.lock:
            self._write(("\r\x1b[K" if self.over else "") + "".join(f"{line}\n" for line in lines))

    def show(self, line):
        if self.over:
            with self.lock, contextlib.suppress(OSError):
                self._write("\r\x1b[K" + line[: os.get_terminal_size(self.stream.fileno())[0] - 1])


class Job:
    """What snakemake says of a job when it begins."""

    def __init__(self, record):
        self.began = record.created
        self.outputs, self.benchmark = list(record.output), record.benchmark
        self.log = Path(record.log[0]) if record.log else None
        stage, job = record.rule_name.removesuffix("_job"), record.wildcards.get("job")
        self.name = f"{stage}/{job}" if job else record.rule_name

    @property
    def results(self):
        """The folder of the study's results; None for a job that is no verb's."""
        return self.log.parent.parent.parent if "/" in self.name and self.log else None

    def what(self):
        """The job in a few words: figures by the first of them, since a user wants to look."""
        figure = next((path for path in self.outputs if path.endswith(".png")), None)
        if figure is None:
            return self.name.replace("_", " of ", 1) if self.results is None else self.name
        more = sum(path.endswith(".png") for path in self.outputs) - 1
        return f"figures {figure}" + (f" and {more} more" if more else "")

    def seconds(self, ended):
        """How long it took; on a cluster without the time in the queue."""
        try:
            return float(Path(self.benchmark).read_text().splitlines()[1].split("\t")[0])
        except (OSError, TypeError, ValueError, IndexError):
            return ended - self.began


class LogHandler(LogHandlerBase):
    """Reads what happens; see the module."""

    writes_to_stream, writes_to_file = True, False
    has_filter, has_formatter, needs_rulegraph = True, True, False

    def __post_init__(self):
        self.setFormatter(DefaultFormatter(self.common_settings.quiet))
        self.screen, self.closed = Screen(sys.stderr), threading.Event()
        self.pace, self.jobs, self.done, self.total, self.cores = None, {}, 0, 0, 1
        self.ends, self.interrupted = set(), False
        logger.addHandler(QuietJobs())

    def emit(self, record):
        events = {
            LogEvent.RESOURCES_INFO: self.on_resources,
            LogEvent.RUN_INFO: self.on_run,
            LogEvent.JOB_INFO: self.on_job,
            LogEvent.JOB_FINISHED: self.on_finished,
            LogEvent.JOB_ERROR: self.on_error,
        }
        try:
            event = getattr(record, "event", None)
            if event in events:
                events[event](record)
            elif event in (None, LogEvent.ERROR):
                self.on_text(record)
        except Exception:
            self.handleError(record)

    def on_text(self, record):
        """A line of snakemake's own."""
        text = self.format(record).strip()
        if "CalledProcessError in file" in text:
            return  # the line of the job that failed says it, with its log
        if text.startswith(ENDS):
            if text in self.ends:
                return  # said once more after every job
            self.ends.add(text)
            self.interrupted |= text.startswith("Terminating")
        told = text.startswith(TOLD) if self.pace else not text.startswith(UNTOLD)
        if text and (told or record.levelno >= logging.WARNING):
            self.screen.say(text)

    def on_resources(self, record):
        self.cores = getattr(record, "cores", None) or self.cores

    def on_run(self, record):
        """What will run, by rule."""
        waiting = Counter()
        for rule, number in record.stats.items():
            stage = rule.removesuffix("_job")
            if stage != rule or stage_of(rule) != rule or rule in SHOWS[-1:]:
                waiting[stage_of(stage)] += number
        self.total = waiting.total()
        alone = frozenset(stage for stage, verb in stages().items() if verb.alone)
        self.pace = Pace(waiting, record.created, alone=alone, width=self.cores)
        self.screen.say(f"{self.total} jobs; a line for each that ends, --verbose shows all lines")
        if self.screen.over:
            threading.Thread(target=self.watch, daemon=True).start()

    def on_job(self, record):
        """A job begins."""
        job = self.jobs[record.jobid] = Job(record)
        if not job.outputs:
            return
        if not self.pace.before and job.results:
            file = job.results / "published" / "runs.csv"
            self.pace.before = times_before(file, job.results) or times_before(file)
        self.pace.start(job.name, job.began)

    def on_finished(self, record):
        """A job ended well; a target, which makes nothing, is none."""
        job = self.jobs.pop(record.job_id, None)
        if job is None or not job.outputs:
            return
        self.done += 1
        seconds = job.seconds(record.created)
        self.pace.finish(job.name, seconds)
        left = self.left(record.created) if self.done < self.total and not self.ends else ""
        self.screen.say(job_line(self.done, self.total, job.what(), seconds, left))

    def on_error(self, record):
        """A job failed: the end of its log, and where the log is."""
        job = self.jobs.pop(record.jobid, None)
        if job is None:
            self.screen.say(self.format(record))
            return
        seconds = record.created - job.began
        self.pace.finish(job.name, seconds)
        if self.interrupted:
            self.screen.say(f"stopped: {job.name} after {clock(seconds)}")
            return
        logs = [path for path in record.log if path != str(job.log)]
        self.screen.say(*failure_lines(job.name, seconds, job.log, record.rule_msg, logs))

    def left(self, now):
        """About how long the rest takes, with what the running jobs say themselves."""
        lines = {job.name: last_line(job.log) for job in list(self.jobs.values()) if job.log}
        said = {name: seconds_left(line) for name, line in lines.items()}
        return self.pace.left_in_words(now, {name: s for name, s in said.items() if s is not None})

    def watch(self):
        """Write over the last line of a terminal: what runs, and how far it is."""
        while not self.closed.wait(AGAIN_S):
            now, jobs = time.time(), [job for job in list(self.jobs.values()) if job.outputs]
            with contextlib.suppress(RuntimeError):  # a job began or ended meanwhile
                parts = [f"{self.done}/{self.total}, {self.left(now)}"]
                for job in jobs:
                    step = last_line(job.log).rpartition("] ")[2] if job.log else ""
                    parts.append(f"{job.name} {step or clock(now - job.began)}")
                self.screen.show(" | ".join(parts))

    def close(self):
        """Take the line away."""
        if not self.closed.is_set():
            self.closed.set()
            self.screen.show("")
        super().close()
