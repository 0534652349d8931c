"""`./run` itself: words in any order, from any folder; what it says when a disk is full, closed, or
somebody else works there."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.runtime.alone import alone
from bench.runtime.command_line import DEFAULT, arranged, take_also, take_config
from bench.runtime.failures import what_failed
from bench.runtime.publishing import ROWS, copy_whole, mend, outputs, refuse_loss, shown, to_publish
from bench.runtime.rows import RUN_COLUMNS, write_runs
from workflow import ROOT, SMOKE, clean_environment, copy_project, run

STUDY = ROOT / "workflows" / "config" / "fashion.yaml"


@pytest.mark.parametrize(
    "words",
    [
        "--configfile {} all",
        "all --configfile {}",
        "--configfile={} all",
        "--configfiles {} all",
        "--configfile {} -- all",
        "all --configfile={}",
    ],
)
def test_targets_may_stand_before_and_after_the_study(words):
    """Catches a target that snakemake takes for another study,
    because its --configfile takes several words."""
    found, place = arranged([word.format(STUDY) for word in words.split()])
    assert place == ROOT and sorted(word for word in found if word != "--") == sorted(
        ["all", f"--configfile={STUDY}"]
    )
    assert found.index("all") == 0 or found[found.index("all") - 1] == "--"


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--config", "device=cpu", "all", "-n"], ["all", "-n", "--config", "device=cpu"]),
        (
            ["all", "--config", "device=cpu", "--config=processes=2"],
            ["all", "--config", "device=cpu", "processes=2"],
        ),
        (
            ["-n", "all", "--configfile", str(STUDY), "report"],
            ["report", "all", "-n", f"--configfile={STUDY}"],
        ),
        (
            ["--configfile", str(STUDY), "all", "--forcerun", "snr_job"],
            ["all", "--forcerun", "snr_job", f"--configfile={STUDY}"],
        ),
        (
            ["--workflow-profile", "profiles/slurm", "all"],
            ["all", f"--workflow-profile={ROOT / 'profiles' / 'slurm'}"],
        ),
    ],
)
def test_options_of_several_words_take_no_target(words, expected):
    """Catches a target that --config takes for a setting,
    and a profile that is looked for elsewhere."""
    assert arranged(words)[0] == expected


@given(
    st.lists(st.sampled_from(["all", "report", "snr"]), unique=True, max_size=3),
    st.permutations(["config", "configfile", "-n"]),
)
def test_no_order_of_options_loses_a_word(targets, options):
    """Catches an order of words in which one of them is lost or read as another."""
    spelt = {
        "config": ["--config", "device=cpu"],
        "configfile": ["--configfile", str(STUDY)],
        "-n": ["-n"],
    }
    words = [word for option in options for word in spelt[option]]
    found, _ = arranged([*targets, *words])
    assert found[: len(targets)] == targets
    assert sorted(found[len(targets) :]) == sorted(
        ["-n", f"--configfile={STUDY}", "--config", "device=cpu"]
    )


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--configfile", "nix.yaml"], "--configfile nix.yaml: no such file"),
        (["--configfile"], "--configfile: nothing is given"),
        (["--config"], "give key=value, such as device=cpu"),
        (["--config", "all"], "give key=value, such as device=cpu"),
        (["--configfile", str(STUDY), str(DEFAULT)], "2 studies given"),
        (["--directory"], "give a folder"),
        (
            ["--workflow-profile", "profiles/slurrm"],
            "profiles/slurrm: no folder with a config.yaml",
        ),
        (["--workflow-profile=profiles", "all"], "profiles: no folder with a config.yaml"),
        ([str(STUDY), "-n"], f"{STUDY}: a study's file goes after --configfile"),
        (
            ["all", "-n", "workflows/config/fashion.yaml"],
            "fashion.yaml: a study's file goes after --configfile",
        ),
        (["main", "mien.yaml", "-n"], "mien.yaml: no such file; a study's file goes after"),
    ],
)
def test_words_that_cannot_be_right_get_one_line(words, expected):
    """Catches a traceback of snakemake's, or a whole usage text,
    for a file that is not there or a word that is missing."""
    with pytest.raises(SystemExit) as stopped:
        arranged(words)
    assert expected in str(stopped.value) and "\n" not in str(stopped.value)


def test_a_target_that_is_a_file_is_no_second_study(tmp_path, monkeypatch):
    """Catches a result that, once it is there, can no longer be asked for after the study."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "row.json").write_text("{}")
    assert arranged(["--configfile", str(STUDY), "row.json"])[0] == [
        "row.json",
        f"--configfile={STUDY}",
    ]


def test_studies_are_found_from_where_the_user_is(tmp_path, monkeypatch):
    """Catches a relative study file that is looked for in the project only, and a name with an
    equals sign read as a setting."""
    study = tmp_path / "my study=1 é.yaml"
    shutil.copy(STUDY, study)
    monkeypatch.chdir(tmp_path)
    assert arranged(["--configfile", study.name])[0] == [f"--configfile={study}"]
    assert take_config(["--config", study.name, "--config", "device=cpu"]) == (
        study,
        ["--config", "device=cpu"],
    )
    assert take_config(["--config=" + study.name]) == (study, [])
    assert take_config(["--configfile", "workflows/config/fashion.yaml", "all"]) == (STUDY, ["all"])
    assert take_config(["full"]) == (DEFAULT, ["full"])
    with pytest.raises(SystemExit, match="2 studies"):
        take_config(["--config", study.name, "--configfile", study.name])
    with pytest.raises(SystemExit, match="a study's file goes after --config"):
        take_config([study.name, "full"])


def test_paths_are_said_as_they_are_found_from_where_the_user_is(tmp_path, monkeypatch):
    """Catches `results/...` said to a user of another folder, who finds nothing there."""
    log = tmp_path / "project" / "results" / "x" / "prepare" / "d-1" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback (most recent call last)\nKeyError: 1\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder, path in ((tmp_path / "project", log.relative_to(tmp_path / "project")),
                         (elsewhere, log)):  # fmt: skip
        monkeypatch.chdir(folder)
        assert shown(log) == path
        assert what_failed(tmp_path / "project", 0, [])[0].startswith(f"error: {path}: KeyError")


def test_a_study_s_file_may_begin_like_an_option(tmp_path, monkeypatch):
    """Catches a file that is there and called not given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-mine.yaml").write_text("study: x\n")
    assert take_config(["--config=-mine.yaml", "-n"]) == (Path("./-mine.yaml").resolve(), ["-n"])
    with pytest.raises(SystemExit, match="give the study's file"):
        take_config(["--config", "-n"])


def test_a_snakemake_that_did_not_begin_goes_on_from_nowhere(copy):
    words = ["snakemake", "--cores", "two", "snr", "--configfile", "smoke.yaml"]
    code, _, said = run(copy, *words)
    last = "error: snakemake could not begin; its last lines above say why"
    assert code == 1 and said.strip().splitlines()[-1] == last, said


def test_suites_beside_the_core_ones_are_a_word_for_snakemake():
    """Catches a second --config, of which snakemake reads the last alone, and a lost word."""
    also = "also=classify,ladders"
    assert take_also(["full", "-j", "2"]) == ["full", "-j", "2"]
    assert take_also(["--also=classify,ladders", "-n"]) == ["-n", "--config", also]
    assert take_also(["--also", "classify", "--also", "ladders"]) == ["--config", also]
    words = ["--config", "study.yaml", "--config", "device=cpu", "--also", "classify,ladders", "-n"]
    wanted = ["--config", "study.yaml", "--config", also, "device=cpu", "-n"]
    assert take_also(words) == wanted
    for nothing in ("--also", "--also="):
        with pytest.raises(SystemExit, match="--also: nothing is given; give suites"):
            take_also([nothing, "-n"])


def test_a_folder_of_the_user_called_like_ours_is_not_run(tmp_path):
    """Catches Python that looks in the folder where the user is, before that of the project."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").touch()
    (tmp_path / "bench" / "__main__.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "yaml.py").write_text("raise SystemExit('not ours')")
    code, out, said = run(ROOT, "site", "--help", folder=tmp_path)
    assert code == 0 and "bench site" in out, said


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_fault(copy, closed):
    """Catches a traceback in a program without a terminal, and words of jobs in the next file that
    is opened."""
    command = f'"$0" run snakemake -n snr --configfile smoke.yaml {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable],
        cwd=copy,
        env=clean_environment(),
        capture_output=True,
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr


OPENED = """
import runpy, subprocess, sys
import bench.runtime.publishing as publishing
child = "import os; [os.fstat(number) for number in range(3)]"
def looks(target):
    sys.exit(subprocess.run([sys.executable, "-c", child]).returncode)
publishing.mend = looks
sys.argv = ["run", "publish", "--config", "smoke.yaml"]
runpy.run_path("run")
"""


def test_what_was_closed_is_open_in_every_job(copy):
    """Catches a stream that is opened for this process alone."""
    words = ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, OPENED]
    assert subprocess.run(words, cwd=copy, env=clean_environment()).returncode == 0


@pytest.mark.parametrize(
    "data, words",
    [
        ("study: é".encode("utf-16"), "no UTF-8 text at byte 0; save it as UTF-8"),
        (b"study: x\n\tsuites: {}\n", "not readable as YAML: while scanning"),
        (b"study: x\n---\nstudy: y\n", "expected a single document"),
        (b"- study\n", "holds no settings: a study is a mapping of keys"),
    ],
)
def test_a_study_that_cannot_be_read_is_named(copy, tmp_path, data, words):
    """Catches snakemake's word of a file that it does not name, and a traceback of its parser."""
    study = tmp_path / "bad.yaml"
    study.write_bytes(data)
    code, _, said = run(copy, "snakemake", "snr", "-n", "--configfile", study)
    assert code and said.startswith(f"error: {study}: ") and words in said, said
    assert len(said.splitlines()) == 1


def test_a_user_without_a_home_may_run(copy):
    """Catches a traceback of snakemake's, which keeps a cache below the home, for a user of a
    container or of cron that has none."""
    words = ["snakemake", "-n", "snr", "--configfile", "smoke.yaml"]
    code, _, said = run(copy, *words, HOME="/proc/none", XDG_CACHE_HOME="")
    assert code == 0 and "Traceback" not in said, said


LEFT = """
import runpy, sys
import bench.runtime.publishing as publishing
def gone(target):
    raise BrokenPipeError(32, "Broken pipe")
publishing.mend = gone
sys.argv = ["run", "publish", "--config", "smoke.yaml"]
runpy.run_path("run")
"""


def test_a_reader_that_leaves_is_no_full_disk(copy):
    """Catches `./run ... | head` that asks for room on the disk."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT], cwd=copy, env=clean_environment(), capture_output=True
    )
    assert done.returncode == 128 + signal.SIGPIPE and not done.stderr, done.stderr


ASKED = """
import os, runpy, signal, subprocess, sys, time
import bench.runtime.publishing as publishing
number = int(sys.argv[1])
class Quick(subprocess.Popen):
    def __init__(self, command, **more):
        plans = "bench.runtime.planner" in command
        super().__init__([sys.executable, "-c", ""] if plans else command, **more)
def asked(folder):
    try:
        os.kill(os.getpid(), number)
        time.sleep(0.5)
        print("goes on")
    finally:
        print("puts away")
    sys.exit(0)
subprocess.Popen, publishing.to_publish = Quick, asked
sys.argv = ["run", "publish", "--config", "smoke.yaml"]
runpy.run_path("run")
"""


def stopped(copy, code, how, began):
    """A run of `code` that is asked to end by a signal; began: what whoever began it does with
    some signals."""
    return subprocess.run(
        [sys.executable, "-c", code, str(int(how))],
        cwd=copy,
        env=clean_environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: [signal.signal(*one) for one in began.items()],
    )


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_may_be_stopped_when_all_jobs_have_ended(copy, how, before):
    """Catches a time limit that nobody heeds once snakemake has ended: results are published, and
    the exit status says that all is well; and a run begun by nohup that is stopped."""
    done = stopped(copy, ASKED, how, {how: before})
    ignored = before is signal.SIG_IGN
    assert done.returncode == (0 if ignored else 128 + how), done.stderr
    assert done.stdout == ("goes on\n" if ignored else "") + "puts away\n"
    assert ("stopped; the same command" in done.stderr) != ignored


# a snakemake that is through, and hears the signal on its way out
THROUGH = """import os, signal, sys, time
signal.signal(int(sys.argv[1]), signal.SIG_IGN)
time.sleep(0.3)
os.kill(os.getppid(), int(sys.argv[1]))
time.sleep(0.3)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_may_be_stopped_while_snakemake_leaves(copy, how):
    """Catches a signal that is forgotten because snakemake, which was through, ended well."""
    words = f"{THROUGH!r}, str(int(number))]"
    asked = ASKED.replace('""] if plans', f"{words} if plans").replace("0.5", "0")
    # shells start what runs in the background without SIGINT
    done = stopped(copy, asked, how, {signal.SIGINT: signal.SIG_DFL})
    assert done.returncode == 128 + how and "stopped; the same command" in done.stderr
    assert not done.stdout


def test_help_is_help_and_runs_nothing(tmp_path):
    """Catches a question for help that is answered by snakemake's words and an error about files
    that are not there."""
    for words in (["reproduce", "--help"], ["publish", "full", "-h"]):
        code, out, said = run(copy_project(tmp_path / words[0]), *words)
        assert code == 0 and out.startswith("Set everything up once") and not said


@pytest.mark.parametrize(
    "change, words, said",
    [
        ({"core": False}, [], "suites: none is core (snr); add the word full"),
        ({"figures": []}, ["full"], "suites: none of these has figures or tables"),
        ({"core": False}, ["full"], ""),
    ],
)
def test_a_study_that_would_make_nothing_says_so(tmp_path, change, words, said):
    """Catches a run of everything that ends well without a number,
    or with an error about files that are not there."""
    study = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    study["suites"] = {"snr": {**study["suites"]["snr"], **change}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    command = [sys.executable, "-m", "bench", "plan", str(path), "--name", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True
    )
    assert (
        (done.returncode != 0) == bool(said)
        and said in done.stderr
        and "Traceback" not in done.stderr
    ), done.stderr
    assert (done.stdout.strip() == "smoke") != bool(said)


@pytest.fixture
def finished(tmp_path):
    """A folder of results as `./run` finds it, with leftovers of an older study file."""
    folder = tmp_path / "results"
    suites = {"main": {"figures": ["fid"], "tables": ["scores"], "runs": ["train/a"]}}
    (folder / "figures").mkdir(parents=True)
    (folder / "tables").mkdir()
    (folder / "plan.json").write_text(json.dumps({"suites": suites}))
    write_runs(
        folder / "runs.csv",
        [dict.fromkeys(RUN_COLUMNS, "") | {"run_id": "train/a", "status": "ok"}],
    )
    names = ["metrics.csv", "variants.csv", "images.npz"]
    for name in ("main_fid", "main_old"):
        names += [f"figures/{name}.{end}" for end in ("png", "svg", "rst")]
    for name in [
        *names,
        *(
            f"tables/{name}.{end}"
            for name in ("main_scores", "old_scores")
            for end in ("csv", "md", "rst")
        ),
    ]:
        (folder / name).write_text(name)
    return folder


def test_only_what_the_study_names_is_published_and_whole(finished):
    """Catches leftovers among published files, somebody's notes that vanish,
    and a copy that is half of two studies."""
    target = finished / "published"
    copy_whole(finished, to_publish(finished), target)
    (target / "notes").mkdir()
    (finished / "metrics.csv").write_text("newer")
    files = to_publish(finished)
    assert outputs(finished, "figures") == ["main_fid"] and not any("old" in name for name in files)
    with pytest.raises(OSError):
        copy_whole(finished, [*files, "figures/none.png"], target)
    assert (target / "metrics.csv").read_text() == "metrics.csv", (
        "a copy that failed changed what was published"
    )
    copy_whole(finished, files, target)
    assert {path.name for path in target.iterdir()} == {*ROWS, "figures", "tables", "notes"}
    assert (target / "metrics.csv").read_text() == "newer" and not list(
        finished.glob(".published*")
    )
    target.rename(finished / ".published.old")  # killed between the two renames
    mend(target)
    assert (target / "metrics.csv").read_text() == "newer"


def test_published_results_may_lie_behind_a_link(finished):
    """Catches a link that becomes a folder: what it led to stays as it was, and nothing can be
    published a second time."""
    target, files, place = finished / "published", to_publish(finished), finished / "elsewhere"
    place.mkdir()
    target.symlink_to("elsewhere")
    for text in ("new", "newer"):
        (finished / "metrics.csv").write_text(text)
        mend(target)
        copy_whole(finished, files, target)
        assert target.is_symlink() and (place / "metrics.csv").read_text() == text
    assert not list(finished.glob(".*"))


def test_a_copy_that_stops_between_its_renames_leaves_the_old_one(finished, monkeypatch):
    """Catches a published folder that is gone until somebody publishes again."""
    target, files, rename = finished / "published", to_publish(finished), os.rename
    copy_whole(finished, files, target)
    (finished / "metrics.csv").write_text("newer")

    def fails(old, new):
        if Path(new) == target and Path(old).name.endswith(".tmp"):
            raise OSError("no room")
        rename(old, new)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match="no room"):
        copy_whole(finished, files, target)
    assert (target / "metrics.csv").read_text() == "metrics.csv"
    assert not list(finished.glob(".published*"))


def test_what_was_published_is_not_lost(finished):
    """Catches suites that vanish when others are published without them."""
    target, files = finished / "published", to_publish(finished)
    refuse_loss(target, files)
    copy_whole(finished, files, target)
    refuse_loss(target, files)
    (target / "tables" / "classify_claims.csv").write_text("x")
    with pytest.raises(ValueError, match="holds classify_claims, which would be lost.*--also"):
        refuse_loss(target, files)
    (target / "tables" / "classify_claims.csv").unlink()
    (target / "figures" / "refinement_heat_maps.png").write_text("x")  # a suite without tables
    with pytest.raises(ValueError, match="holds refinement_heat_maps, which would be lost"):
        refuse_loss(target, files)


@pytest.mark.parametrize("lost", ["tables/main_scores.md", "images.npz", "figures/main_fid.rst"])
def test_what_is_not_there_is_not_published(finished, lost):
    """Catches a publishing that leaves out a table without a word."""
    (finished / lost).unlink()
    with pytest.raises(ValueError, match="is not there, nothing was published"):
        to_publish(finished)


def test_a_run_without_a_row_is_not_published(finished):
    """Catches published rows of fewer runs than the study has."""
    write_runs(
        finished / "runs.csv",
        [dict.fromkeys(RUN_COLUMNS, "") | {"run_id": "train/b", "status": "ok"}],
    )
    with pytest.raises(ValueError, match="no row of train/a"):
        to_publish(finished)


def test_one_process_at_a_time_in_the_folder_of_a_job(tmp_path):
    """Catches a job that a killed workflow left behind,
    writing beside the same job started again."""
    code = (
        "import sys, time; from pathlib import Path; from bench.runtime.alone import alone\nwith "
        "alone(Path(sys.argv[1]), print):\n"
    )
    code += "    print('in', flush=True); time.sleep(60)"
    words = [sys.executable, "-c", code, str(tmp_path)]
    first = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "in\n"
    said = []
    began = time.monotonic()

    def hear(text):
        said.append(text)
        first.kill()

    with alone(tmp_path, hear):
        assert said and str(first.pid) in said[0] and time.monotonic() - began < 30
    first.wait()
    (tmp_path / ".model.safetensors.7.tmp").write_text("half")
    with alone(tmp_path, pytest.fail):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with (
        alone(tmp_path, pytest.fail),
        open(tmp_path / ".lock") as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def small_disk(folder, size):
    """Mount a disk of some size; skips where that needs rights that this user lacks."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")


def only_line(said):
    """The one line of an error, which must be the last that is said."""
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and said.splitlines()[-1] == lines[0] and "Traceback" not in said, said
    return lines[0]


FILLED = """import sys
from pathlib import Path
import numpy as np
from bench.pipeline.sampling import filled_together
from bench.pipeline.scratch import bytes_on_disk, npy_on_disk
from bench.runtime.ranks import Ranks
folder, shape = Path(sys.argv[1]), (1, 4, 2**20)
try:
    {}
except OSError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(
    "fill",
    [
        "bytes_on_disk(folder, shape)[:] = 1",
        "npy_on_disk(folder / 'tokens.npy', np.int32, shape)[:] = 1",
        "with filled_together(folder / 'images.npy', shape, Ranks()) as images: images[:] = 1",
    ],
)
def test_a_mapped_file_that_the_disk_cannot_hold_is_an_error(tmp_path, fill):
    """Catches a process that the system ends without a word, since the room of a mapped file was
    not taken before it is filled."""
    disk = tmp_path / "disk"
    small_disk(disk, "1m")
    try:
        words = [sys.executable, "-c", FILLED.format(fill), str(disk)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and "No space left on device" in done.stderr
        assert str(disk) in done.stderr
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_new_files_are_mapped_where_their_room_is_taken():
    """Catches a verb that maps a new file by itself."""
    new = re.compile(r"memmap\([^)]*\"w\+\"", re.S)
    paths = [*ROOT.glob("srdd/**/*.py"), *ROOT.glob("bench/**/*.py")]
    mapping = {path.name for path in paths if new.search(path.read_text(encoding="utf-8"))}
    assert mapping == {"scratch.py"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("run") / "a b")


def test_a_full_and_a_closed_disk_get_one_line_and_lose_nothing(copy):
    """Catches a traceback for a full disk, at the start or in a job, and a run that does not go on
    when there is room again."""
    results = copy / "results"
    small_disk(results, "64k")
    job = "results/smoke/prepare/digits-*/row.json"
    try:
        code, _, said = run(copy, "snakemake", "--configfile", "smoke.yaml", "snr")
        assert (
            code
            and "No space left on device" in only_line(said)
            and "free some space" in only_line(said)
        )
        subprocess.run(["mount", "-o", "remount,size=4m", results], check=True)
        code, _, said = run(copy, "snakemake", "--configfile", "smoke.yaml", "-n", "snr")
        assert code == 0, said
        filler = results / "filler"
        with pytest.raises(OSError), open(filler, "wb", buffering=0) as file:
            while file.write(bytes(65536)):
                pass
        code, _, said = run(copy, "snakemake", "--configfile", "smoke.yaml", "snr")
        assert (
            code
            and "is full; free some space and run the same command again" in said.splitlines()[-1]
        ), said
        assert not list(copy.glob(job))
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,ro", results], check=True)
        code, _, said = run(copy, "snakemake", "--configfile", "smoke.yaml", "snr")
        assert code and "cannot be written" in said.splitlines()[-1] and "Traceback" not in said, (
            said
        )
        subprocess.run(["mount", "-o", "remount,rw", results], check=True)
        target = next((results / "smoke" / "configs" / "prepare").iterdir()).stem
        code, _, said = run(
            copy,
            "snakemake",
            f"results/smoke/prepare/{target}/row.json",
            "--configfile",
            "smoke.yaml",
        )
        assert code == 0 and list(copy.glob(job)), said
    finally:
        subprocess.run(["umount", "-l", results], check=True)


def test_a_second_run_at_the_same_time_gets_one_line_and_the_first_ends_well(copy):
    """Catches a second run that unlocks the folder of a living one, or that leaves the user with
    snakemake's advice to do so."""
    code, _, said = run(copy, "snakemake", "--configfile", "smoke.yaml", "-n", "snr")
    assert code == 0, said
    words = ["snakemake", "--configfile", "smoke.yaml", "snr"]
    first = subprocess.Popen(
        [sys.executable, "run", *words],
        cwd=copy,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    locks = copy / ".snakemake" / "locks"
    while first.poll() is None and not (locks.is_dir() and any(locks.iterdir())):
        time.sleep(0.05)
    code, _, said = run(copy, *words)
    assert code == 1 and "another run (process" in said.splitlines()[-1], said
    assert first.wait() == 0, first.stderr.read()
    # a lock that a killed run left is lifted
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text(
        next((copy / "results" / "smoke" / "snr").glob("*/row.json")).relative_to(copy).as_posix()
    )
    code, _, said = run(copy, *words, "--forcerun", "figures_snr")
    assert code == 0, said


def test_a_lock_that_a_killed_run_left_is_lifted_in_any_folder(copy, tmp_path):
    """Catches a run in a folder of the user's own, `--directory`, that never goes on once it was
    killed, and says for ever that another run is at work."""
    lock = tmp_path / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/smoke/snr/x/row.json")
    words = ["snakemake", "--configfile", "smoke.yaml", "-n", "snr", "--directory", tmp_path]
    code, _, said = run(copy, *words)
    assert code == 0 and not lock.exists(), said


def test_a_study_may_be_edited_and_planned_while_it_runs(copy, tmp_path):
    """Catches a plan, `-n`, of an edited study by which the run that goes on collects at its end:
    it fails for jobs that it never had, or makes tables of others."""
    words = ["snakemake", "-n", "snr", "--directory", tmp_path, "--configfile"]
    assert run(copy, *words, "smoke.yaml")[0] == 0
    plan = tmp_path / "results" / "smoke" / "suites" / "snr" / "plan.json"
    before, edited = plan.read_text(), tmp_path / "edited.yaml"
    edited.write_text((copy / "smoke.yaml").read_text() + "reduced: edited\n")
    lock = tmp_path / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("results/smoke/suites/snr/metrics.csv\n")
    with open(tmp_path / ".snakemake" / "run.lock", "a") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        code, _, said = run(copy, *words, edited)
        assert code == 0 and plan.read_text() == before, said
        assert "another run collects results/smoke/suites/snr by the study as it was" in said
    code, _, said = run(copy, *words, edited)
    assert code == 0 and "edited" in plan.read_text() and "another run" not in said, said


def test_one_suite_may_be_named_beside_a_whole_study(copy):
    """Catches words for snakemake that it takes for no target, since the suite that is drawn first
    comes between: a page of its usage, for a suite and for a slip."""
    code, out, said = run(copy, "reproduce", "guidance", "-n", "--config", "smoke.yaml")
    assert code == 0, said
    code, out, said = run(copy, "reproduce", "guidanc", "-n", "--config", "smoke.yaml")
    assert code and "did you mean 'guidance'?" in said and "usage" not in said, said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_while_it_plans_says_so_in_one_line(copy, how):
    """Catches a traceback, and a fault that is told, after Ctrl-C and after a time limit."""
    process = subprocess.Popen(
        [sys.executable, "run", "snakemake", "--configfile", "smoke.yaml", "snr"],
        cwd=copy,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # shells start what runs in the background without it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    whole = psutil.Process(process.pid)
    while process.poll() is None and not any(
        "bench.runtime.planner" in child.cmdline() for child in whole.children()
    ):
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, how)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + how and "Traceback" not in said, said
    assert said.strip().splitlines()[-1] == "stopped; the same command goes on from here", said


@pytest.mark.parametrize("asked", ["", "elsewhere"])
def test_compiled_modules_are_kept_where_python_writes_none_beside_their_source(tmp_path, asked):
    """Catches a container in which every job compiles all modules anew, one whose folders of code
    fill up against its will, and a place of the user's own that is overruled."""
    root, place = copy_project(tmp_path / "copy"), asked and str(tmp_path / asked)
    words = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": place}
    code, _, said = run(root, "data", "--help", **words)
    assert code == 0, said
    kept = Path(place or root / ".venv" / "pycache")
    assert any(path.name.startswith("__main__") for path in kept.rglob("*.pyc"))
    assert not any(path for path in root.rglob("__pycache__"))


def test_a_locale_without_utf8_runs_a_study_of_any_name(copy):
    """Catches a folder or study whose name the locale cannot write,
    in `./run` and in snakemake under it."""
    name = "Übung 東京 é.yaml"
    shutil.copy(copy / "smoke.yaml", copy / name)
    old = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    code, _, said = run(copy, "snakemake", "--configfile", name, "snr", "-n", **old)
    assert code == 0 and "Traceback" not in said, said
    words = [sys.executable, "run", "reproduce", "-n", "--config", name]
    done = subprocess.run(words, cwd=copy, env={**environment, **old}, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    done = subprocess.run(
        [*words[:-1], b"caf\xe9.yaml"], cwd=copy, env={**environment, **old}, capture_output=True
    )
    assert (
        done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"no such file" in done.stderr
    ), done.stderr


def test_a_folder_that_no_search_path_can_hold_is_refused(tmp_path):
    """Catches a project below a name with a colon or braces,
    whose jobs would fail one after the other."""
    for name in ("a:b", "a{b}"):
        root = copy_project(tmp_path / name)
        code, out, said = run(root, "snakemake", "-n", "snr")
        assert code == 1 and "colon, braces" in only_line(said), said
