# What all rules share: the study, the folders of its jobs, the hash of the code that a verb runs. Imports no torch.
import itertools
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
from bench.study.checks import enough_images
from bench.study.before import missing_files, refused_function
from bench.study.errors import ConfigError
from bench.study.plan import load_study, study_name
from bench.study.schema import RESERVED
from bench.study.settings import TrainingConfig
from bench.study.contents import Contents
from bench.runtime.provenance import shows_gpu, source_of, source_of_program, source_of_shows
from bench.runtime.rows import RUN_COLUMNS, read_rows, write_text
from srdd.lookup import unknown

BASE = Path(workflow.basedir)
# Paths, and not text, because Snakemake's record of a job's parameters leaves paths out: another Python, or another place of the
# project, makes nothing stale
PYTHON = Path(sys.executable)
OPTIONS = {"device": ("auto", "cpu", "cuda"), "results": ("auto", "own", "published"), "processes": range(1, 1025)}


def stop(message):
    """One line and out, before any work; the exit status says that nothing needs to be added."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(2)


def check_place():
    """Python reads its search path as words between colons, snakemake reads braces as wildcards, and commands are lines."""
    for path in (BASE, Path.cwd()):
        if set(str(path)) & set(":{}\n\r"):
            stop(f"{str(path)!r}: a project cannot lie in a folder whose name holds a colon, braces or a line break; rename or move it")


check_place()


def read_study():
    """The one study of this run, file and plan; `--configfile` replaces the default instead of adding to it."""
    files = list(workflow.configfiles) or [BASE / "workflows/config/digits.yaml"]
    if len(files) > 1:
        stop(f"--configfile: {len(files)} studies given; run one at a time")
    options = set(workflow.config_settings.config) if workflow.config_settings.config else set()
    for key in options:
        if key not in OPTIONS:
            stop(f"--config {key}: unknown; settings of a study belong into its file (legal here: {', '.join(OPTIONS)})")
    for key in options:
        if config[key] not in OPTIONS[key]:
            legal = "whole numbers from 1" if key == "processes" else ", ".join(OPTIONS[key])
            stop(f"--config {key}={config[key]}: not legal (there are: {legal})")
    try:
        plan = load_study(files[0], known_contents(files[0]))
    except ConfigError as error:
        stop(error)
    if workflow.is_main_process:  # jobs on other machines read the study again
        for warning in plan.warnings:
            print(f"warning: {files[0]}: {warning}", file=sys.stderr)
    return files[0], plan


def known_contents(file):
    """What earlier plans found in the files that a study names; a job takes the word of the plan that started it."""
    memory = Path("results") / study_name(file) / "configs" / "contents.json"
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    return Contents(known, trusted=not workflow.is_main_process)


STUDY_FILE, PLAN = read_study()
STUDY = PLAN.study.study
RESULTS = Path("results") / STUDY
DEVICE = config.get("device", "auto")
HAS_GPU = DEVICE == "cuda" or (DEVICE == "auto" and shutil.which("nvidia-smi") is not None)


def default_resource(name):
    """A resource that the profile gives to every job, or None."""
    given = workflow.resource_settings._parsed_default_resources
    return given[name].raw if given is not None and name in given else None


def on_cluster():
    """Whether jobs run on other machines than the one that plans them; known only once jobs are made.
    A dry run sends nothing, but its profile tells where jobs would go."""
    return workflow.remote_exec or workflow.non_local_exec or default_resource("slurm_partition") is not None


def quote_python():
    """Snakemake writes the path of Python bare into the commands that it submits: one with a space would be two words there."""
    sys.executable = shlex.quote(str(PYTHON))


if workflow.remote_exec:  # a job on a node, which starts its step by another such command
    quote_python()


def gpus(on_gpu, share):
    """Resource function: GPUs of a job. Here, jobs that would use a GPU run one at a time where there is one, and as many as
    there are cores where there is none. A cluster is asked for one whatever the submitting machine has."""

    def number(wildcards):
        wanted = DEVICE != "cpu" if on_cluster() else HAS_GPU
        return share if on_gpu and wanted else 0

    return number


def all_threads(wildcards):
    """Threads function: times are taken alone on the machine, or on all that a cluster's profile gives to a job."""
    return int(default_resource("cpus_per_task") or 1) if on_cluster() else workflow.cores


# how many processes share a training or its samples: a fact of the machine, no part of a result or of its name
PROCESSES = int(config.get("processes", 1))


def check_processes():
    """Every batch must go into equal parts: said before any work."""
    for run_id, job in PLAN.jobs.items():
        if job.stage in ("train", "distill"):
            try:
                TrainingConfig.model_validate_json(json.dumps(job.config["training"])).images_at_once(PROCESSES)
            except ConfigError as error:
                stop(f"--config processes={PROCESSES}: {run_id}: {error}")


check_processes()


def folder(run_id):
    return (RESULTS / run_id).as_posix()


def unwritable(path, error):
    return f"{path}: cannot be written ({error.strerror}); change its rights or free some space, then run the same command again"


def write_configs():
    """The config of every job. Their names hold a hash of the content, so that a file, once written, is right."""
    if not workflow.is_main_process:
        return  # a job on another machine finds what the submitting one wrote
    try:
        for run_id, job in PLAN.jobs.items():
            path, text = RESULTS / "configs" / f"{run_id}.json", json.dumps({"study": STUDY, **job.about}, indent=1) + "\n"
            # where files lie is no part of a name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)
        if PLAN.contents:
            write_text(RESULTS / "configs" / "contents.json", json.dumps(PLAN.contents, indent=1) + "\n")
    except OSError as error:
        stop(unwritable(RESULTS, error))


write_configs()


def check_name():
    """Two studies of one name share a folder, where the later one replaces the tables of the earlier: said, and run."""
    memory, here = RESULTS / "configs" / "study_file.txt", Path(STUDY_FILE).absolute()
    try:
        before = Path(memory.read_text(encoding="utf-8").strip()) if memory.is_file() else None
        if before == here:
            return
        other = before is not None and before.is_file() and before.read_bytes() != here.read_bytes()
        if other and study_name(before) == STUDY:
            print(f"warning: {here}: study: {STUDY!r}: {before} has this name too, and its tables and figures in {RESULTS} "
                  "are replaced; give each study a name of its own", file=sys.stderr)
        write_text(memory, f"{here}\n")
    except (OSError, ValueError):
        pass  # the other file is no study any more, or nothing can be read or written here: said elsewhere


if workflow.is_main_process:
    check_name()


def check_prepared():
    """A study that grew may need more images than what is prepared: said before any work."""
    for run_id, job in PLAN.jobs.items():
        about = RESULTS / run_id / "data.json"
        if job.needs and about.is_file():
            counts = json.loads(about.read_text(encoding="utf-8")).get("counts", {})
            if counts and (problem := enough_images(counts, job.needs)):
                stop(f"{STUDY_FILE}: {problem}")


check_prepared()


onstart:
    for path in (BASE, Path.cwd(), PYTHON):
        # snakemake writes the commands that it submits in Python's quotes, which a shell reads otherwise
        if on_cluster() and set(str(path)) & set("'\\"):
            stop(f"{path}: on a cluster, no folder of the project may have an apostrophe or a backslash in its name; rename or move it")
    if on_cluster():
        quote_python()
    elif DEVICE == "cuda" and not shows_gpu():
        stop("--config device=cuda: this machine shows no GPU (neither nvidia-smi nor /dev/nvidia0); use auto or cpu")
    if not os.access(RESULTS, os.W_OK):
        stop(f"{RESULTS}: cannot be written; change its rights, then run the same command again")
    # a plan needs no files, a run does: say what is missing before the first job
    needed = [job for job in workflow.dag.needrun_jobs() if "job" in job.wildcards.keys()]
    needed = [f"{job.rule.name.removesuffix('_job')}/{job.wildcards.job}" for job in needed]
    missing = missing_files(PLAN, needed)
    if missing:
        stop(f"{STUDY_FILE}: {missing[0]}")
    if problem := refused_function(STUDY_FILE, PLAN, needed):
        stop(problem)


wildcard_constraints:
    job=r"[\w.\-]+",


def job_of(stage):
    """Input function: the row files of the jobs that a job of this stage reads."""

    def rows(wildcards):
        run_id = f"{stage}/{wildcards.job}"
        if run_id not in PLAN.jobs:
            raise ValueError(f"{run_id}: no job of this study")
        return [f"{folder(needed)}/row.json" for needed in PLAN.jobs[run_id].inputs.values()]

    return rows


def command(verb, stage):
    """Params function: the words of a verb's command line, all from checked names. What may differ between two machines or two
    calls stands in resources and in parameters that are Paths: these are no reason to run a job again."""

    def words(wildcards):
        run_id = f"{stage}/{wildcards.job}"
        inputs = [word for role, needed in PLAN.jobs[run_id].inputs.items() for word in (f"--{role}", folder(needed))]
        return ["-m", "bench", verb, f"{RESULTS}/configs/{run_id}.json", folder(run_id), *inputs]

    return words


def source_of_job(verb, stage):
    """Params function: the hash of the code that a job runs."""

    def source(wildcards):
        return source_of(verb, PLAN.jobs[f"{stage}/{wildcards.job}"].config)

    return source


PUBLISHED = RESULTS / "published"


def place(scope):
    """Where the results of a scope go: the default run's, those of all suites, those of one."""
    return {None: RESULTS, "full": RESULTS / "full"}.get(scope, RESULTS / "suites" / str(scope))


def origin_of(suite, own):
    """Where figures and tables of a scope come from: this machine's runs, or the published CSVs alone."""
    choice = config.get("results", "auto")
    here = place(suite)
    published = suite is None and not own and (PUBLISHED / "metrics.csv").is_file()
    if choice == "published" and suite is None:
        if not (PUBLISHED / "metrics.csv").is_file():
            stop(f"--config results=published: {PUBLISHED} holds no metrics.csv")
        return PUBLISHED
    if choice == "auto" and published and not (here / "metrics.csv").is_file():
        return PUBLISHED
    return here


def names_of(what, suite, endings, own):
    folder, names = place(suite), PLAN.outputs_of(what, suite)
    if origin_of(suite, own) == PUBLISHED:
        folder, names = RESULTS / "from_published", published_outputs(what)
    return [(folder / what / f"{name}.{ending}").as_posix() for name in names for ending in endings]


def figure_files(suite, own=False):
    return names_of("figures", suite, ("png", "svg"), own)


def table_files(suite, own=False):
    return names_of("tables", suite, ("csv", "md"), own)


def write_plan(scope):
    """plan.json of a scope: what collect gathers, and what its figures call each variant. Written when it changes."""
    path = place(scope) / "plan.json"
    study = PLAN.described()
    copied = ("claim", "claims", "published", "measure", "figures", "tables", "tuned_on")
    about = {
        "study": STUDY,
        "scope": scope,
        "suites": {
            name: {
                **{key: study["suites"][name][key] for key in copied},
                **PLAN.told_of(name),
                "train_seeds": study["suites"][name]["train_seeds"] or study["train_seeds"],
                "variants": PLAN.identities[name],
                "runs": PLAN.jobs_of(name),
            }
            for name in PLAN.suites_of(scope)
        },
        **{key: study[key] for key in ("reduced", "evaluation", "features", "dataset", "train_seeds", "tokenizer_seed")},
        "folders": {run_id: folder(run_id) for run_id in PLAN.jobs_of(scope)},
    }
    text = json.dumps(about, indent=1) + "\n"
    try:
        if workflow.is_main_process and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            write_text(path, text)
    except OSError as error:
        stop(unwritable(path, error))
    return path.as_posix()


def published_suites(what):
    """The settings of the suites that were published; none where nothing was, or where it cannot be read."""
    if not (PUBLISHED / "runs.csv").is_file():
        return {}
    try:
        study = [row for row in read_rows(PUBLISHED / "runs.csv", RUN_COLUMNS) if row["stage"] == "study"]
        return json.loads(study[0]["config_json"])["suites"]
    except (ValueError, LookupError) as error:
        line = " ".join(str(error).split())
        if config.get("results") == "published":
            stop(line)
        if workflow.is_main_process and what == "figures":
            print(f"warning: {line}; what is published is left out", file=sys.stderr)
        return {}


def published_outputs(what):
    """Names of the figures or tables that the published rows can make: those of the suites that were published."""
    suites = published_suites(what)
    return [f"{suite}_{name}" for suite, about in suites.items() for name in about[what]]


def source_of_scope(what, scope):
    """The hash of the code that makes the figures or tables of a scope."""
    study = PLAN.described()["suites"]
    suites = published_suites(what) if scope == "published" else {name: study[name] for name in PLAN.suites_of(scope)}
    names = [name for about in suites.values() for name in about[what]]
    rules = {claim["rule"] for about in suites.values() for claim in about["claims"]}
    return source_of_shows(what, names, sorted(rules))


def check_targets():
    """A word that is no target: said with the names that are. `./run` puts targets in front, where no option can own them."""
    words = sys.argv[3:] if sys.argv[1:2] == ["--snakefile"] else sys.argv[1:]
    for name in itertools.takewhile(lambda word: not word.startswith("-"), words):
        if re.fullmatch(r"\w+", name) and not workflow.is_rule(name) and not Path(name).exists():
            stop(f"{STUDY_FILE}: {unknown('target', name, [*RESERVED, *PLAN.study.suites])}")
