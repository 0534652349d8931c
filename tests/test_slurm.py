"""A real cluster of one node: the profile's jobs are submitted, killed, resumed, and give the
numbers of this machine."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import slurm_node

from workflow import copy_project, numbers, snakemake

pytestmark = pytest.mark.skipif(
    bool(slurm_node.missing()),
    reason=(
        f"SLURM is not installed ({', '.join(slurm_node.missing())}); Debian: "
        "slurmctld slurmd slurm-client munge"
    ),
)
# one training and what it reads, and the times of a suite, whose threads no --cores gives here
TARGETS = ("results/smoke/train/{}/row.json", "results/smoke/latency/{}/row.json")


@pytest.fixture(scope="module")
def users():
    """The environment of the users of one cluster."""
    with slurm_node.cluster() as environment:
        yield environment


def one_of_each(project):
    """Paths of the rows of one training and of the suite's times."""
    code, text = snakemake(
        project, "--configfile=smoke.yaml", "-n", "main", "latency", "--quiet", "host"
    )
    assert code == 0, text
    return [re.search(target.format("[^,/ ]+"), text)[0] for target in TARGETS]


def test_a_folder_that_no_job_could_be_sent_from_is_refused(tmp_path, users):
    """Catches jobs that fail on the cluster, one after the other,
    by a quote that ends a word of their command."""
    project = copy_project(tmp_path / "the user's own")
    assert slurm_node.submit(project, users, "snr").wait() == 2
    assert slurm_node.jobs(users) == []
    assert (
        "no folder of the project may have an apostrophe"
        in (project / "said.txt").read_text().splitlines()[-1]
    )


def test_a_cluster_runs_the_study_and_resumes_what_was_cancelled(tmp_path, users):
    """Catches the profile that cannot run as the README writes it, GPU jobs sent without a GPU, a
    project whose folder needs quotes, a cancelled job that spoils the next run, and numbers that
    depend on where they were made."""
    project = copy_project(tmp_path / 'my "own" $HOME & Übung')
    targets, local = one_of_each(project), copy_project(tmp_path / "local")
    # while the cluster waits for its jobs there is time enough for the same work here
    with ThreadPoolExecutor(1) as beside:
        ran = beside.submit(snakemake, local, "--configfile=smoke.yaml", targets[0])
        first, second, cancelled = slurm_node.smoke(project, users, *targets)
        jobs = slurm_node.jobs(users)
    said = (project / "said.txt").read_text(errors="replace")
    assert (first, second) == (1, 0), said[-3000:]
    assert "error: " in said, "the first run did not say that it failed"
    states = {job["JobId"]: job["JobState"] for job in jobs}
    assert states.pop(cancelled) == "CANCELLED" and set(states.values()) == {"COMPLETED"}, states
    for job in jobs:
        gpus = None if "prepare" in job["Comment"] else "gres:gpu:1"
        assert job.get("TresPerJob") == gpus, job
    code, text = ran.result()
    assert code == 0, text
    on_cluster, here = numbers(project), numbers(local)
    assert len(here) > 50 and {key: on_cluster.get(key) for key in here} == here
    # the cluster's results are this machine's: nothing is made again
    code, text = snakemake(project, "--configfile=smoke.yaml", "-n", *targets)
    assert code == 0 and "Nothing to be done" in text, text
