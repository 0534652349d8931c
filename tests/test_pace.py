"""What a run says: one line a job, about how long the rest takes, and what failed."""

import re
import time
from collections import Counter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.runtime.command_line import take_view
from bench.runtime.pace import Pace, about, failure_lines, last_line, seconds_left, times_before
from bench.runtime.progress import Progress, clock
from bench.study.before import drawn_first
from bench.study.plan import load_study
from workflow import ROOT, SMOKE, copy_project, run

DIGITS = ROOT / "results" / "digits" / "published" / "runs.csv"


@given(st.floats(0, 1e6))
def test_a_time_that_a_job_says_is_read_as_it_was_meant(seconds):
    """Catches hours that are read as minutes, or a line of another form that gives no time."""
    read = seconds_left(f"[train/x] step 3/9, loss 2.1 s, {clock(seconds)} left")
    assert read == pytest.approx(seconds, abs=0.5 if seconds < 3600 else 60)


def test_a_job_says_its_time_left_where_it_is_looked_for(capsys):
    """Catches a changed line of progress, which would leave the time of the whole without it."""
    progress = Progress("train/x", total=30)
    progress.began = progress.said = time.monotonic() - 20
    progress.advance(10)
    line = capsys.readouterr().err.strip()
    assert seconds_left(line) == pytest.approx(40, abs=1)
    assert seconds_left("[train/x] tokens written") is None


@pytest.mark.parametrize(
    "seconds, words",
    [(0, "10 s"), (34, "30 s"), (57, "1 min"), (870, "14 min"), (7000, "2 h"), (9000, "2.5 h")],
)
def test_a_guess_says_no_more_than_it_knows(seconds, words):
    assert about(seconds) == words


def simulated(before, took, speed, width=2, alone=frozenset()):
    """A run of jobs that take `speed` times as long as known, each beginning when one ends.

    Returns (time, what was said to be left) at each end, and when all had ended.
    """
    names, running, now, said = list(took), {}, 0.0, []
    pace = Pace(Counter(name.split("/")[0] for name in names), 0.0, before, alone, width)
    while names or running:
        lone = any(name.split("/")[0] in alone for name in running)
        while names and len(running) < width and not lone:
            lone = names[0].split("/")[0] in alone
            if lone and running:
                break
            running[names[0]] = now + took[names[0]] * speed
            pace.start(names.pop(0), now)
        name = min(running, key=running.get)
        seconds, now = running[name] - pace.running[name], running.pop(name)
        pace.finish(name, seconds)
        said.append((now, *pace.left(now)))
    return said, now


@pytest.mark.parametrize("speed", [0.5, 1.0, 3.0])
def test_the_time_left_is_about_what_it_takes(speed):
    """Catches a time that forgets the other core, a slower machine, or jobs that run alone."""
    before = {f"train/{i}": 20.0 + 10 * (i % 3) for i in range(30)}
    before |= {f"evaluate/{i}": 4.0 for i in range(30)} | {f"latency/{i}": 30.0 for i in range(3)}
    said, end = simulated(before, before, speed, alone=frozenset({"latency"}))
    for now, left, whole in said:
        assert whole
        if now > end / 4:
            assert left == pytest.approx(end - now, rel=0.35, abs=20)


def test_what_was_never_measured_is_said_to_be_so():
    """Catches a time that leaves out all trainings of a new study as if it knew them."""
    took = {"prepare/a": 2.0, **{f"train/{i}": 50.0 for i in range(6)}}
    pace = Pace(Counter(prepare=1, train=6), 0.0, width=2)
    pace.start("prepare/a", 0.0)
    pace.finish("prepare/a", 2.0)
    assert pace.left_in_words(2.0).startswith("at least")
    pace.start("train/0", 2.0)
    # a training that runs tells how long it takes, which is what the others will take
    seconds, whole = pace.left(12.0, {"train/0": 40.0})
    assert whole and seconds > 3 * 50
    said, end = simulated({}, took, 1.0)
    assert said[2][2] and said[2][1] == pytest.approx(end - said[2][0], rel=0.3)


def test_published_times_are_read_and_finished_jobs_left_out(tmp_path):
    """Catches a time that counts what is done, and damaged results that stop a run."""
    times = times_before(DIGITS)
    trainings = [name for name in times if name.startswith("train/")]
    assert len(trainings) > 9 and all(seconds > 2 for seconds in times.values())
    done = tmp_path / trainings[0]
    done.mkdir(parents=True)
    (done / "row.json").write_text("{}")
    assert set(times) - set(times_before(DIGITS, tmp_path)) == {trainings[0]}
    damaged = tmp_path / "runs.csv"
    for text in ("", "run_id\nx\n", "run_id,wall_s\nx,soon\n", "\0"):
        damaged.write_text(text)
        assert times_before(damaged) == {}
    assert times_before(tmp_path / "none.csv") == {}


def test_a_failed_job_shows_the_end_of_its_log_and_where_it_is(tmp_path):
    """Catches a failure of which only snakemake's own words are seen."""
    log = tmp_path / "log.txt"
    log.write_text("\n".join(f"line {i}" for i in range(90)) + "\nRuntimeError: boom\n")
    first, *rest = failure_lines("train/x", 75, log)
    assert first == f"error: train/x failed after 1:15 min; the last 30 lines of {log}:"
    assert len(rest) == 30 and rest[-1].strip() == "RuntimeError: boom"
    none = tmp_path / "none"
    assert failure_lines("train/x", 1, none, "status is CANCELLED", ["slurm.log"]) == [
        f"error: train/x failed after 1 s; its log is empty: {none}",
        "    status is CANCELLED",
        "    see also slurm.log",
    ]


def test_the_last_line_of_a_log_that_is_written_right_now(tmp_path):
    """Catches an error for a log that ends within a character, or is not there yet."""
    log = tmp_path / "log.txt"
    assert last_line(log) == ""
    log.write_bytes(b"x" * 9000 + "\n[a] Übung\n\n".encode())
    assert last_line(log) == "[a] Übung"


@pytest.mark.parametrize(
    "words, expected",
    [
        (["all"], ["all", "--logger=job-lines"]),
        (["all", "--", "main"], ["all", "--logger=job-lines", "--", "main"]),
        (["all", "--verbose"], ["all"]),
        (["all", "-n"], ["all", "-n"]),
        (["all", "--quiet", "rules"], ["all", "--quiet", "rules"]),
        (["all", "--logger=json"], ["all", "--logger=json"]),
    ],
)
def test_a_user_may_choose_what_is_said(words, expected):
    """Catches a dry run without its plan, and a view that cannot be turned off."""
    assert take_view(words) == expected


def test_what_is_drawn_first_needs_no_training():
    """Catches a first figure that comes with all others, and one drawn twice for nothing."""
    plan = load_study(ROOT / "workflows" / "config" / "digits.yaml")
    (first,) = drawn_first(plan, None)
    assert plan.study.suites[first].figures
    assert not [job for job in plan.suites[first] if job.startswith(("train/", "distill/"))]
    assert drawn_first(plan, "ablation_history") == drawn_first(plan, first) == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A project with a study of one suite that takes seconds."""
    root = copy_project(tmp_path_factory.mktemp("pace") / "a b")
    study = yaml.safe_load(SMOKE.read_text())
    study["suites"] = {"snr": study["suites"]["snr"]}
    (root / "smoke.yaml").write_text(yaml.safe_dump(study))
    return root


def test_a_failure_is_seen_in_full(copy):
    """Catches a run that keeps to itself why a job failed."""
    verb = copy / "bench" / "experiments" / "snr" / "verb.py"
    text = verb.read_text()
    verb.write_text(re.sub(r"(?m)^(def work\(.*:)$", r'\1\n    raise RuntimeError("boom")', text))
    code, _, said = run(copy, "reproduce", "--config", "smoke.yaml")
    assert code == 1 and "Traceback (most recent call last)" in said, said
    assert re.search(
        r"error: snr/\S+ failed after \d+ s; all of results/smoke/snr/\S+/log.txt:", said
    )
    assert said.splitlines()[-1].startswith("error: results/smoke/snr/"), said
    assert "CalledProcessError" not in said, said
