"""Where results of a study go, and what is asked before any work."""

import json
import re
from pathlib import Path

import pytest
import yaml

from bench.runtime.study_row import published_suites
from bench.study.errors import ConfigError
from bench.study.merging import merged
from bench.study.plan import load_study
from bench.study.scopes import Scopes, known_contents
from workflow import ROOT, SMOKE

PUBLISHED = ROOT / "results" / "latency_d16" / "published"
MAIN = Path("results") / "smoke"


@pytest.fixture(scope="module")
def plan():
    return load_study(SMOKE)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_suite_changes_single_settings_of_a_room(plan):
    """Catches a suite that gives one setting and so puts all others of the study back to their
    defaults."""
    told = plan.study.told("refinement", "latency")
    assert (told.batch_sizes, told.rounds) == ((2,), 2), "its own"
    assert (told.max_rounds, told.warmup) == (3, 1), "the study's"
    assert plan.study.told("latency", "latency").batch_sizes == (1, 2)
    nested = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert merged(nested, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}, "d": 4}


def touch(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_scopes_have_folders_of_their_own(plan, place):
    """Catches two scopes whose tables replace each other."""
    scopes = Scopes(plan)
    assert scopes.place(None) == MAIN and scopes.place("full") == MAIN / "full"
    assert (
        scopes.place("snr") == MAIN / "suites" / "snr"
        and scopes.folder("train/a") == "results/smoke/train/a"
    )


@pytest.mark.parametrize(
    "choice, scope, own, there, origin",
    [
        ("auto", None, False, ("published",), MAIN / "published"),
        ("auto", None, False, ("published", "own"), MAIN),
        ("auto", None, True, ("published",), MAIN),
        ("auto", None, False, (), MAIN),
        ("auto", "full", False, ("published",), MAIN / "full"),
        ("own", None, False, ("published",), MAIN),
        ("published", None, True, ("published", "own"), MAIN / "published"),
        ("published", "snr", False, ("published",), MAIN / "suites" / "snr"),
    ],
)
def test_published_rows_stand_in_for_own_ones_alone_where_they_may(
    plan, place, choice, scope, own, there, origin
):
    """Catches published figures that hide what this machine measured,
    and a report of somebody else's numbers."""
    for name, path in (("published", MAIN / "published"), ("own", MAIN)):
        if name in there:
            touch(path / "metrics.csv")
    scopes = Scopes(plan, choice, {"main": {"figures": ["fid"], "tables": []}})
    assert scopes.origin_of(scope, own) == origin
    outputs = scopes.outputs("figures", scope, own)
    if origin == MAIN / "published":
        assert outputs == [
            f"results/smoke/from_published/figures/main_fid.{end}" for end in ("png", "svg", "rst")
        ]
    else:
        names = plan.outputs_of("figures", scope)
        assert outputs == [
            (scopes.place(scope) / "figures" / f"{name}.{end}").as_posix()
            for name in names
            for end in ("png", "svg", "rst")
        ]


def test_published_results_that_are_not_there_are_named(plan, place):
    """Catches an empty report where published results were asked for."""
    with pytest.raises(
        ConfigError, match="results=published: results/smoke/published holds no metrics.csv"
    ):
        Scopes(plan, "published").outputs("tables", None)


def test_published_suites_are_read_whole_or_refused(tmp_path):
    """Catches a traceback for a published folder that is damaged or of another version."""
    assert published_suites(tmp_path) == {}
    assert published_suites(PUBLISHED)["latency"]["tables"]
    for name in ("metrics.csv", "runs.csv"):
        touch(tmp_path / name, (PUBLISHED / name).read_text())
    with pytest.raises(ValueError, match="variants.csv: no such file; .* publish again"):
        published_suites(tmp_path)
    touch(tmp_path / "variants.csv")
    touch(
        tmp_path / "runs.csv",
        (PUBLISHED / "runs.csv").read_text().replace(",study,ok", ",other,ok"),
    )
    with pytest.raises(ValueError, match="0 rows of stage 'study'"):
        published_suites(tmp_path)
    touch(
        tmp_path / "runs.csv",
        (PUBLISHED / "runs.csv").read_text().replace('""tables""', '""table""'),
    )
    with pytest.raises(ValueError, match="suites.latency.tables: Field required"):
        published_suites(tmp_path)


def test_a_plan_holds_what_collect_gathers(plan, place):
    """Catches a scope that gathers runs of another suite, or lacks the names of its variants."""
    for scope in (None, "full", "snr"):
        about = json.loads(Scopes(plan).plan_text(scope))
        assert list(about["suites"]) == plan.suites_of(scope)
        assert sorted(about["folders"]) == plan.jobs_of(scope)
        for name, suite in about["suites"].items():
            assert list(suite["variants"]) == list(plan.identities[name]) and suite[
                "runs"
            ] == plan.jobs_of(name)
            assert all(
                run_id in suite["runs"]
                for one in suite["variants"].values()
                for jobs in one["jobs"].values()
                for run_id in jobs
            )


def test_the_report_begins_with_what_a_reader_needs(plan):
    """Catches a first page of file names alone, or one that points to tables which nobody makes."""
    words = dict(Scopes(plan).about())[MAIN / "configs" / "about.rst"]
    made = set(plan.outputs_of("tables", None))
    assert f"training seeds {', '.join(map(str, plan.study.train_seeds))}" in words
    assert "95 % t-interval" in words and "smoke.yaml``" in words
    named = re.findall(r"``(\w+_(?:scores|claims))``", words)
    assert len(named) == 2 and set(named) <= made


def test_the_report_names_the_files_of_a_study_and_that_it_is_reduced(tmp_path):
    """Catches files that are said to lie beside the study's own, and a first page that reads as if
    a trial were a result."""
    photos = {"name": "image_folder", "path": "photos", "image_size": 32, "channels": 3}
    own = {"study": "own", "like": "fashion_reduced", "take": ["main"], "reduced": "a trial_ {}"}
    own |= {"dataset": {**photos, "num_classes": 3}, "features": {"name": "own64"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    words = Scopes(load_study(tmp_path / "own.yaml")).about_study()
    assert words.startswith("REDUCED STUDY: a trial")
    files = r"``own.yaml``, which takes ``workflows/config/.*yaml``, ``workflows/.*``, 1 more\."
    assert re.search(f"Read from {files}", words)


def test_every_job_has_a_config(plan, place):
    """Catches a job that finds no config, or one of another study."""
    for run_id, job in plan.jobs.items():
        path, text = Scopes(plan).config_of(run_id)
        about = json.loads(text)
        assert path == MAIN / "configs" / f"{run_id}.json"
        assert about["study"] == "smoke" and about["config"] == job.config
    with pytest.raises(ConfigError, match="train/none: no job of this study"):
        Scopes(plan).inputs_of("train/none")


def test_another_study_of_this_name_is_said(plan, place):
    """Catches a copied study that replaces the tables of its original;
    the same text elsewhere is the same study."""
    scopes, other = Scopes(plan), place / "other.yaml"
    assert scopes.name_clash(SMOKE) is None
    touch(scopes.file_memory, f"{other}\n")
    assert scopes.name_clash(SMOKE) is None, "a file that is gone"
    other.write_bytes(SMOKE.read_bytes())
    assert scopes.name_clash(SMOKE) is None
    other.write_text(SMOKE.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert f"study: 'smoke': {other} has this name too" in scopes.name_clash(SMOKE)
    assert scopes.name_clash(other) is None
    other.write_text("study: else\n")
    assert scopes.name_clash(SMOKE) is None


def test_a_copy_of_a_study_of_the_project_is_said_on_a_fresh_clone(plan, place):
    """Catches a changed copy that is published in place of its original, since nothing ran yet."""
    scopes, ours = Scopes(plan), place / "workflows" / "config" / "smoke.yaml"
    touch(ours, SMOKE.read_text(encoding="utf-8"))
    assert scopes.name_clash(SMOKE) is None and scopes.name_clash(ours) is None
    touch(ours, SMOKE.read_text(encoding="utf-8") + "# changed\n")
    assert "smoke.yaml has this name too" in scopes.name_clash(SMOKE)
    assert scopes.name_clash(ours) is None


def test_images_that_became_too_few_are_said(plan, place):
    """Catches a study that grew and fails in the middle of its work."""
    scopes = Scopes(plan)
    run_id = next(run_id for run_id in plan.jobs if run_id.startswith("prepare/"))
    assert scopes.too_few_prepared() is None
    touch(
        scopes.results / run_id / "data.json",
        json.dumps({"counts": {"train": 5, "val": 5, "test": 5}}),
    )
    assert "train has 5 images" in scopes.too_few_prepared()
    touch(scopes.results / run_id / "data.json", json.dumps({"kind": "arrays"}))
    assert scopes.too_few_prepared() is None
    for damaged in ("[]", '{"counts": [1]}', '{"cou', "\0"):
        touch(scopes.results / run_id / "data.json", damaged)
        said = scopes.too_few_prepared()
        assert f"{run_id}/data.json: is damaged; delete " in said, damaged
    (scopes.results / run_id / "data.json").write_bytes(b"\xff\xfe")
    assert "is damaged" in scopes.too_few_prepared()


def test_sums_of_files_are_remembered(place):
    """Catches a large folder that is read again by each plan,
    and a damaged memory that ends in a traceback."""
    memory = MAIN / "configs" / "contents.json"
    assert known_contents(SMOKE, trusted=False).known == {}
    touch(memory, '{"a.png": "123"}')
    assert known_contents(SMOKE, trusted=True).of("a.png", "dataset.path") == "123"
    for damaged in ("{", "[1]", "5", '"x"', "null"):
        touch(memory, damaged)
        assert known_contents(SMOKE, trusted=True).known == {}, damaged
