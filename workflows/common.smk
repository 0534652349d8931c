# What all rules share: the study, the folders of its jobs, the hash of the code that a verb runs.
# Imports no torch.
import atexit
import gc
import itertools
import json
import os
import re
import shlex
import shutil
import sys
import time
from functools import cache
from pathlib import Path

# a plan makes many objects and hardly any garbage: a quarter of its time would go into looking
gc.disable()
sys.path.insert(0, workflow.basedir)

from bench.study.before import TRAININGS, missing_files, nothing_to_make, refused_function
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.schema import RESERVED
from bench.study.scopes import ENDINGS, Scopes, known_contents
from bench.study.settings import TrainingConfig
from bench.study.tokenizer_settings import TokenizerSpec, images_of_process
from bench.runtime.provenance import shows_gpu, source_of, source_of_program, source_of_shows
from bench.runtime.publishing import ROWS
from bench.runtime.rows import write_text, written_whole
from bench.runtime.study_row import published_suites
from bench.runtime.verbs import check_jobs, stages
from srdd.lookup import unknown

BASE = Path(workflow.basedir)
LOCKS = Path(".snakemake/locks")
# Paths, and not text, because Snakemake's record of a job's parameters leaves paths out: another
# Python, or another place of the project, makes nothing stale
PYTHON = Path(sys.executable)
OPTIONS = {
    "device": ("auto", "cpu", "cuda"),
    "results": ("auto", "own", "published"),
    "processes": range(1, 1025),
    "also": None,  # names of suites between commas, which the default run takes in
}


def stop(message):
    """One line and out, before any work; the exit status says that nothing needs to be added."""
    # what snakemake says goes through a thread of its own: let it end, so that this line is the last
    time.sleep(0.2)
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(2)


def check_place():
    """Python reads its search path as words between colons, snakemake reads braces as wildcards,
    and commands are lines."""
    for path in (BASE, Path.cwd()):
        if set(str(path)) & set(":{}\n\r"):
            stop(
                f"{str(path)!r}: a project cannot lie in a folder whose name holds a colon, "
                "braces or a line break; rename or move it"
            )


check_place()


def read_study():
    """The one study of this run, file and plan; `--configfile` replaces the default instead of
    adding to it."""
    files = list(workflow.configfiles) or [BASE / "workflows/config/digits.yaml"]
    if len(files) > 1:
        stop(f"--configfile: {len(files)} studies given; run one at a time")
    options = set(workflow.config_settings.config) if workflow.config_settings.config else set()
    for key in options:
        if key not in OPTIONS:
            stop(
                f"--config {key}: unknown; settings of a study belong into its file (legal here: "
                f"{', '.join(OPTIONS)})"
            )
    for key in options - {"also"}:
        value, legal = config[key], OPTIONS[key]
        if value not in legal or type(value) is not type(legal[0]):
            legal = "whole numbers from 1" if key == "processes" else ", ".join(legal)
            stop(f"--config {key}={'' if value is None else value}: not legal (there are: {legal})")
    try:
        plan = load_study(files[0], known_contents(files[0], trusted=not workflow.is_main_process))
        check_jobs(plan.jobs.values())
    except ConfigError as error:
        stop(error)
    plan.also = frozenset(filter(None, str(config.get("also") or "").split(",")))
    for name in sorted(plan.also - set(plan.study.suites)):
        stop(f"--config also={config['also']}: {unknown('suite', name, plan.study.suites)}")
    if workflow.is_main_process:  # jobs on other machines read the study again
        for warning in plan.warnings:
            print(f"warning: {files[0]}: {warning}", file=sys.stderr)
    return files[0], plan


STUDY_FILE, PLAN = read_study()
STUDY = PLAN.study.study
DEVICE = config.get("device", "auto")
HAS_GPU = DEVICE == "cuda" or (DEVICE == "auto" and shutil.which("nvidia-smi") is not None)


def default_resource(name):
    """A resource that the profile gives to every job, or None."""
    given = workflow.resource_settings._parsed_default_resources
    return given[name].raw if given is not None and name in given else None


def on_cluster():
    """Whether jobs run on other machines than the one that plans them; known only once jobs are
    made. A dry run sends nothing, but its profile tells where jobs would go."""
    return (
        workflow.remote_exec
        or workflow.non_local_exec
        or default_resource("slurm_partition") is not None
    )


def quote_python():
    """Snakemake writes the path of Python bare into the commands that it submits: one with a space
    would be two words there."""
    sys.executable = shlex.quote(str(PYTHON))


if workflow.remote_exec:  # a job on a node, which starts its step by another such command
    quote_python()


def gpus(on_gpu, share):
    """Resource function: GPUs of a job. Here, jobs that would use a GPU run one at a time where
    there is one, and as many as there are cores where there is none. A cluster is asked for one
    whatever the submitting machine has.
    """

    def number(wildcards):
        wanted = DEVICE != "cpu" if on_cluster() else HAS_GPU
        return share if on_gpu and wanted else 0

    return number


def all_threads(wildcards):
    """Threads function: times are taken alone on the machine,
    or on all that a cluster's profile gives to a job."""
    return int(default_resource("cpus_per_task") or 1) if on_cluster() else workflow.cores


# how many processes share a training or its samples: a fact of the machine, no part of a result or
# of its name
PROCESSES = int(config.get("processes", 1))


def check_processes():
    """Every batch must go into equal parts: said before any work."""
    for run_id, job in PLAN.jobs.items():
        try:
            if job.stage in TRAININGS:
                training = json.dumps(job.config["training"])
                TrainingConfig.model_validate_json(training).images_at_once(PROCESSES)
            elif job.stage == "tokenizer":
                spec = TokenizerSpec.model_validate_json(json.dumps(job.config["tokenizer"]))
                if spec.weights is None:
                    images_of_process(spec.training, PROCESSES)
        except ConfigError as error:
            stop(f"--config processes={PROCESSES}: {run_id}: {error}")


check_processes()


def read_published():
    """The suites that were published; where they cannot be read,
    that is said and they are left out."""
    folder = Scopes(PLAN).published
    try:
        return published_suites(folder)
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())
        if config.get("results") == "published":
            stop(line)
        if workflow.is_main_process:
            print(f"warning: {line}; what is published is left out", file=sys.stderr)
        return {}


SCOPES = Scopes(PLAN, config.get("results", "auto"), read_published())
RESULTS = SCOPES.results


def write_changed(path, text):
    """Write a file of the plan where it is not what it should be:
    a job must not find it newer than its own results."""
    try:
        if not path.is_file() or path.read_bytes() != text.encode(errors="backslashreplace"):
            # not forced to the disk: the next plan mends what a crash loses
            with written_whole(path) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        stop(
            f"{path}: cannot be written ({error.strerror}); change its rights or free some space, "
            "then run the same command again"
        )


def made_by_others():
    """Files that another run in this folder is to make, as its lock names them; this one has no
    lock yet."""
    try:
        locks = [path.read_text(encoding="utf-8") for path in LOCKS.glob("*.output.lock")]
    except OSError:  # it ended just now
        return set()
    return {line for lock in locks for line in lock.splitlines()}


def write_plans():
    """What the collecting of every scope is told. Snakemake looks once which files are there, so
    that a plan cannot be written when it is asked for. What another run is about to collect stays
    as that run was told: a study may be edited, and asked what would run, meanwhile."""
    for path, text in SCOPES.about():
        write_changed(path, text)
    others = made_by_others()
    for scope in ALL_SCOPES:
        path, text = SCOPES.plan_path(scope), SCOPES.plan_text(scope)
        if (path.parent / "metrics.csv").as_posix() not in others or not path.is_file():
            write_changed(path, text)
        elif path.read_text(encoding="utf-8") != text:
            print(
                f"warning: another run collects {path.parent} by the study as it was; what is "
                "changed since then counts once that run has ended",
                file=sys.stderr,
            )


def check_name():
    """Two studies of one name share a folder, where the later one replaces the tables of the
    earlier: said, and run."""
    try:
        clash = SCOPES.name_clash(Path(STUDY_FILE))
        if clash:
            print(f"warning: {clash}", file=sys.stderr)
        text = f"{Path(STUDY_FILE).absolute()}\n"
        if (
            not SCOPES.file_memory.is_file()
            or SCOPES.file_memory.read_text(encoding="utf-8") != text
        ):
            write_text(SCOPES.file_memory, text)
    except (OSError, ValueError):
        # the other file is no study any more, or nothing can be read or written here: said
        # elsewhere
        pass


# the default run, all suites (full/), one suite (suites/<suite>/)
ALL_SCOPES = (None, "full", *PLAN.study.suites)
if workflow.is_main_process:
    write_plans()
    check_name()
if problem := SCOPES.too_few_prepared():
    stop(f"{STUDY_FILE}: {problem}")


onstart:
    gc.freeze()
    gc.enable()
    for path in (BASE, Path.cwd(), PYTHON):
        # snakemake writes the commands that it submits in Python's quotes, which a shell reads
        # otherwise
        if on_cluster() and set(str(path)) & set("'\\"):
            stop(
                f"{path}: on a cluster, no folder of the project may have an apostrophe or a "
                "backslash in its name; rename or move it"
            )
    if on_cluster():
        quote_python()
    elif DEVICE == "cuda" and not shows_gpu():
        stop(
            "--config device=cuda: this machine shows no GPU "
            "(neither nvidia-smi nor /dev/nvidia0); use auto or cpu"
        )
    if not os.access(RESULTS, os.W_OK):
        stop(
            f"{RESULTS}: cannot be written; change its rights, then run the same command again"
        )
    # a plan needs no files, a run does: say what is missing before the first job
    needed = sorted(to_run())
    missing = missing_files(PLAN, needed)
    if missing:
        stop(f"{STUDY_FILE}: {missing[0]}")
    if problem := refused_function(STUDY_FILE, PLAN, needed, PYTHON):
        stop(problem)


wildcard_constraints:
    job=r"[\w.\-]+",


def job_of(stage):
    """Input function: the row files of the jobs that a job of this stage reads. What the job is
    told is written here, so that a target costs its own jobs and not all of the study."""

    def rows(wildcards):
        run_id = f"{stage}/{wildcards.job}"
        folders = SCOPES.inputs_of(run_id).values()
        if workflow.is_main_process:  # a job on another machine finds what that one wrote
            look_once(run_id)
        return [f"{folder}/row.json" for folder in folders]

    return rows


VERBS, FINISHED = stages(), []


@cache
def source_of_run(run_id):
    """The hash of the code that a job runs."""
    job = PLAN.jobs[run_id]
    return source_of(VERBS[job.stage].name, job.config)


def made_by_other_code(run_id):
    """Whether a finished job was made by other code than this. Who reads a damaged row says so."""
    row = Path(SCOPES.folder(run_id)) / "row.json"
    try:
        made_by = json.loads(row.read_text(encoding="utf-8"))["source_hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return made_by != source_of_run(run_id)


@cache
def look_once(run_id):
    """Write what a job is told. Remember a finished one: snakemake compares what it told a job, not
    what ran. It knows nothing of results that were copied without .snakemake, and code may have
    been edited while a run went on."""
    write_changed(*SCOPES.config_of(run_id))
    if Path(SCOPES.folder(run_id), "row.json").is_file():
        FINISHED.append(run_id)


def to_run():
    """The jobs that snakemake means to run, by run_id; in a dry run none of them has been."""
    try:
        every = workflow.dag.needrun_jobs(exclude_finished=False)
        jobs = [job for job in every if "job" in job.wildcards.keys()]
    except AttributeError:  # it ended before it knew
        return set()
    return {f"{job.rule.name.removesuffix('_job')}/{job.wildcards.job}" for job in jobs}


@atexit.register
def say_other_code():
    """One line, when all else is said, on finished jobs of other code that are not made again."""
    again = to_run() if FINISHED else set()
    left = [run_id for run_id in FINISHED if run_id not in again and made_by_other_code(run_id)]
    if left:
        rules = sorted({f"{run_id.split('/')[0]}_job" for run_id in left})
        print(
            f"warning: finished jobs that were made by other code than this: {len(left)}, such as "
            f"{left[0]}; they stay as they are, since .snakemake has no record of it. To make them "
            f"again: --forcerun {' '.join(rules)}",
            file=sys.stderr,
        )


def files_of(scope, name):
    """Input function: a file of every job of a scope."""
    return lambda wildcards: [f"{SCOPES.folder(job)}/{name}" for job in PLAN.jobs_of(scope)]


def command(verb, stage):
    """Params function: the words of a verb's command line, all from checked names. What may differ
    between two machines or two calls stands in resources and in parameters that are Paths: these
    are no reason to run a job again.
    """

    def words(wildcards):
        run_id = f"{stage}/{wildcards.job}"
        inputs = [
            word
            for role, folder in SCOPES.inputs_of(run_id).items()
            for word in (f"--{role}", folder)
        ]
        return [
            "-m",
            "bench",
            verb,
            f"{RESULTS}/configs/{run_id}.json",
            SCOPES.folder(run_id),
            *inputs,
        ]

    return words


def source_of_job(stage):
    """Params function: `source_of_run`."""
    return lambda wildcards: source_of_run(f"{stage}/{wildcards.job}")


def source_of_scope(what, scope):
    """The hash of the code that makes the figures or tables of a scope."""
    names, rules = SCOPES.shown(what, scope)
    return source_of_shows(what, names, rules)


def outputs(what, scope, own=False):
    """Paths of the figures or tables of a scope."""
    try:
        return SCOPES.outputs(what, scope, own)
    except ConfigError as error:
        stop(error)


def between(scope):
    """Input function: what a scope makes on the way to its figures and tables. Snakemake makes a
    file again that nobody needs now, such as the row of a job that is to be tried again, only for a
    target that names it."""
    rows, place = files_of(scope, "row.json"), SCOPES.place(scope)
    return lambda wildcards: [*rows(wildcards), *(place / name for name in ROWS)]


def check_targets():
    """A word that is no target: said with the names that are. `./run` puts targets in front, where
    no option can own them. A suite is not drawn from what is published, and a study without core
    suites makes nothing by itself."""
    words = sys.argv[3:] if sys.argv[1:2] == ["--snakefile"] else sys.argv[1:]
    # snakemake knows its targets only later: words that may be one
    plain = [word for word in words if not word.startswith("-")]
    asked = {word for word in plain if workflow.is_rule(word) or "/" in word}
    if asked <= {"all", "report"} and (problem := nothing_to_make(PLAN, None)):
        stop(f"{STUDY_FILE}: {problem}")
    drawn = sorted(asked & {*PLAN.study.suites, "full"})
    if drawn and config.get("results") == "published":
        stop(
            f"--config results=published: draws all that is published, which {drawn[0]} is no "
            "target for (there are: figures, tables)"
        )
    for name in itertools.takewhile(lambda word: not word.startswith("-"), words):
        if re.fullmatch(r"\w+", name) and not workflow.is_rule(name) and not Path(name).exists():
            stop(f"{STUDY_FILE}: {unknown('target', name, [*RESERVED, *PLAN.study.suites])}")
