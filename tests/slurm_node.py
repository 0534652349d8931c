"""A SLURM cluster of one node on the loopback interface: no rights, no accounting,
no change to the system.

    python tests/slurm_node.py start FOLDER      prints the two variables that its users need
    python tests/slurm_node.py stop FOLDER
    python tests/slurm_node.py smoke [words]     starts one, runs the smoke study on it,
                                                 kills a job, resumes, stops it

Needs Debian's slurmctld, slurmd, slurm-client and munge. The node claims one GPU, which is none:
enough to see who asks for it.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from workflow import clean_environment, copy_project

PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scancel",
    "scontrol",
    "sinfo",
)
SETTINGS = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
ReturnToService=2
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SwitchType=switch/none
MinJobAge=3600
KillWait=2
SchedulerParameters=sched_interval=2,batch_sched_delay=0,defer_batch
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs that are not installed; the two of the node lie where a user's path may not lead."""
    if "/usr/sbin" not in os.environ["PATH"].split(":"):
        os.environ["PATH"] += ":/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name) is None]


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _memory_mb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512


def _write_settings(folder: Path) -> None:
    """slurm.conf and gres.conf of a node with one GPU that is none."""
    host, user = (
        socket.gethostname().split(".")[0],
        subprocess.check_output(["id", "-un"], text=True).strip(),
    )
    settings = SETTINGS.format(
        host=host,
        user=user,
        folder=folder,
        ports=_free_ports(2),
        cpus=os.cpu_count(),
        memory=_memory_mb(),
    )
    (folder / "slurm.conf").write_text(settings)
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File=/dev/null\n")


def _write_srun(folder: Path) -> None:
    """A srun that says where the cluster is: the plugin takes every SLURM_ variable out of a job
    before it calls it."""
    srun = folder / "bin" / "srun"
    srun.write_text(
        f'#!/bin/sh\nexec env SLURM_CONF={folder}/slurm.conf {shutil.which("srun")} "$@"\n'
    )
    srun.chmod(0o755)


def start(folder: Path) -> dict[str, str]:
    """Start the cluster; returns the environment of its users.
    Raises RuntimeError when its node does not come up."""
    for name in ("munge", "state", "spool", "bin"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    _write_settings(folder)
    _write_srun(folder)
    users = {
        **os.environ,
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
    }
    munge = [
        f"--{name}={folder}/munge/{name.split('-')[0]}"
        for name in ("socket", "pid-file", "log-file", "seed-file")
    ]
    # --force: the folder of a test is nobody else's, but lies in one that others may enter
    for command in (
        ["munged", "--force", f"--key-file={key}", *munge],
        ["slurmctld", "-c"],
        ["slurmd", "-c"],
    ):
        done = subprocess.run(
            command, env=users, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            stop(folder)
            raise RuntimeError(f"{command[0]}: {done.stderr or done.stdout}")
    for _ in range(60):
        states = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=users, capture_output=True, text=True
        ).stdout.split()
        if {"idle", "mixed"} & set(states):
            return users
        time.sleep(0.5)
    said = "".join((folder / f"{name}.log").read_text()[-1000:] for name in ("slurmctld", "slurmd"))
    stop(folder)
    raise RuntimeError(f"the node did not come up: {said}")


def stop(folder: Path) -> None:
    """End the three programs, the node first."""
    for file in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
        try:
            number = int((folder / file).read_text())
            os.kill(number, 15)
        except (OSError, ValueError):
            continue
        for _ in range(100):
            if not Path(f"/proc/{number}").exists():
                break
            time.sleep(0.1)


@contextmanager
def cluster():
    """A cluster for the length of a block; yields the environment of its users."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    try:
        yield start(folder)
    finally:
        stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


def jobs(users: dict[str, str]) -> list[dict[str, str]]:
    """What the cluster knows of each job, by SLURM's own names: JobId, JobState, Comment (its
    rule), TresPerJob (its GPUs)."""
    listing = subprocess.run(
        ["scontrol", "-o", "show", "jobs"], env=users, capture_output=True, text=True
    ).stdout
    return [
        dict(word.partition("=")[::2] for word in line.split())
        for line in listing.splitlines()
        if line.startswith("JobId")
    ]


def submit(project: Path, users: dict[str, str], *words: str) -> subprocess.Popen:
    """Start `./run snakemake` with the project's SLURM profile, for a node as small as this one."""
    command = [
        sys.executable,
        "run",
        "snakemake",
        *words,
        "--workflow-profile",
        "profiles/slurm",
        "--configfile",
        "smoke.yaml",
    ]
    small = ["slurm_partition=main", "runtime=10", "mem_mb=1500", "cpus_per_task=1"]
    command += [
        "--default-resources",
        *small,
        "--latency-wait",
        "30",
        "--slurm-init-seconds-before-status-checks",
        "1",
    ]
    impatient = str(Path(__file__).parent / "impatient")
    environment = {**clean_environment(), **users, "PYTHONPATH": impatient}
    said = open(project / "said.txt", "ab")
    return subprocess.Popen(command, cwd=project, env=environment, stdout=said, stderr=said)


def cancel_a(rule: str, users: dict[str, str], process: subprocess.Popen) -> str:
    """Wait until a job of a rule runs, and cancel it; returns its number.
    Raises RuntimeError when none ever ran."""
    while process.poll() is None:
        for job in jobs(users):
            if job["Comment"].startswith(f"rule_{rule}") and job["JobState"] == "RUNNING":
                subprocess.run(["scancel", job["JobId"]], env=users, check=True)
                return job["JobId"]
        time.sleep(0.3)
    raise RuntimeError(f"no job of {rule} was seen")


def smoke(
    project: Path, users: dict[str, str], *words: str, victim: str = "tokenizer_job"
) -> tuple[int, int, str]:
    """Run targets of the smoke study on the cluster and cancel one job on the way, then run them
    again to their end. Returns both exit statuses, and the number of the job that was cancelled."""
    first = submit(project, users, *words)
    number = cancel_a(victim, users, first)
    status = first.wait()
    return status, submit(project, users, *words).wait(), number


def main() -> None:
    if missing():
        sys.exit(
            f"error: not installed: {', '.join(missing())}; Debian: "
            "apt install slurmctld slurmd slurm-client munge"
        )
    verb, words = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if verb == "smoke":
        with tempfile.TemporaryDirectory(prefix="on slurm ") as place, cluster() as users:
            project = copy_project(Path(place) / "project")
            first, second, number = smoke(project, users, *(words or ["all", "report"]))
            print((project / "said.txt").read_text(errors="replace"))
            for job in jobs(users):
                print(
                    job["JobId"], job["JobState"], job["Comment"], job.get("TresPerJob", "no GPU")
                )
            print(f"job {number} cancelled: exit status {first}; resumed: exit status {second}")
            sys.exit(second)
    elif verb == "start" and len(words) == 1:
        found = start(Path(words[0]).absolute())
        print(f"export SLURM_CONF={found['SLURM_CONF']} PATH={found['PATH']}")
    elif verb == "stop" and len(words) == 1:
        stop(Path(words[0]).absolute())
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
