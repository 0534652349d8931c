"""Results that are damaged, edited or mixed: one line that says what is wrong, never a traceback
and never a wrong number."""

import json
import shutil
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import build

from bench.report.making import run_verb
from bench.report.results import Results
from bench.runtime import rows as results
from bench.runtime.command import read_row
from bench.runtime.kept_files import sum_of_file
from bench.study.errors import ConfigError

TABLES = ("scores", "tokenizer", "latency", "claims")
CLAIM = {
    "text": "a wins",
    "origin": "ours",
    "rule": "score",
    "variant": "a",
    "against": "b",
    "metric": "fid",
    "better": None,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole folder of results, never changed."""
    return build(tmp_path_factory.mktemp("made"), ["a", "b"], claims=[CLAIM], tables=TABLES)


@pytest.fixture
def folder(made, tmp_path):
    """A copy to damage."""
    return shutil.copytree(made, tmp_path / "results")


def said(folder, what="tables", write=None):
    """How the verb ends: `fine`, or its one line."""
    drawn = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_verb(
                what,
                write or (lambda *made: drawn.append(made)),
                [str(folder), str(folder / "out")],
            )
    except SystemExit as end:
        assert str(end).startswith("error: ") and "\n" not in str(end)
        return str(end)
    finally:
        plt.close("all")
    return "fine" if drawn else "nothing"


def edit(path, old, new, count=1):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")


def line_of(path, word):
    """The first line that holds a word."""
    return next(line for line in path.read_text(encoding="utf-8").split("\n") if word in line)


def test_a_whole_folder_is_read(made):
    """Catches checks that refuse what collect writes."""
    assert said(made) == "fine" and said(made, "figures") == "fine"
    assert len(Results.load(made).of("a", "s", "fid_x8")) == 3


def test_a_row_that_stands_twice_is_refused(folder):
    """Catches four scores of two seeds and an interval seven times too narrow."""
    path = folder / "metrics.csv"
    row = line_of(path, ",200,fid_x8")
    lines = path.read_text().rstrip("\n").split("\n")
    path.write_text("\n".join([*lines, row]) + "\n")
    assert "two rows with one identity" in said(folder) and f"and {len(lines) + 1}" in said(folder)
    with pytest.raises(ValueError, match="two rows"):
        results.read_rows(path, results.METRIC_COLUMNS)


def test_two_runs_of_one_number_are_refused(folder):
    """Catches the same score of another run that is averaged as a further seed; an equal number,
    such as a cost, is one number."""
    path = folder / "metrics.csv"
    row = line_of(path, ",200,fid_x8,,,,5,")
    other = row.replace("sample/v0-0", "sample/v0-1")
    path.write_text(path.read_text() + other + "\n")
    assert said(folder) == "fine" and len(Results.load(folder).of("a", "s", "fid_x8")) == 3
    edit(path, other, other.replace(",5,", ",5.5,"))
    assert "fid_x8 of a, train_seed 0: two values" in said(folder)


def test_what_no_suite_lists_is_in_no_number(folder):
    """Catches rows of a former version of the study, such as another floor, that are mixed into a
    table."""
    before = Results.load(folder)
    runs, metrics = folder / "runs.csv", folder / "metrics.csv"
    runs.write_text(
        runs.read_text()
        + "baselines/old-9,baselines,ok"
        + "," * (len(results.RUN_COLUMNS) - 3)
        + "\n"
    )
    row = line_of(metrics, "floor_fid_x8")
    metrics.write_text(
        metrics.read_text()
        + row.replace("baselines/g-1", "baselines/old-9").replace("1.5", "99")
        + "\n"
    )
    after = Results.load(folder)
    assert after.metrics.equals(before.metrics) and "baselines/old-9" not in set(
        after.runs["run_id"]
    )
    names = after.variants("s")["a"]
    assert after.grid_value(names, "floor_fid_x8") == 1.5


@pytest.mark.parametrize(
    "file, old, new, words",
    [
        ("metrics.csv", ",5,score", ",nan,score", "value 'nan' is no finite number"),
        ("metrics.csv", ",5,score", ",inf,score", "value 'inf'"),
        ("metrics.csv", ",5,score", ",1e999,score", "value '1e999'"),
        ("metrics.csv", ",5,score", ",5_0,score", "value '5_0'"),
        ("metrics.csv", ",5,score", ",٥,score", "is no finite number"),
        ("metrics.csv", ",0,199,200,fid_x8", ",0,199,200.5,fid_x8", "num_images '200.5'"),
        ("metrics.csv", ",0,199,200,fid_x8", ",-1,199,200,fid_x8", "seed_first '-1'"),
        ("metrics.csv", ",0,199,200,fid_x8", ",0,199,fid_x8", "cells where 16 belong"),
        ("metrics.csv", ",fid_x8,", ",,", "metric is empty"),
        ("metrics.csv", "sample/v0-0", "sample/v9-0", "runs.csv has no such run"),
        ("metrics.csv", "\nx,", "\ny,", "study 'y' beside 'x'"),
        ("metrics.csv", "study,dataset", "study,data", "missing: 'dataset'; unknown: 'data'"),
        ("metrics.csv", "study,dataset", "dataset,study", "in another order"),
        ("runs.csv", ",ok,", ",done,", "status 'done'"),
        ("runs.csv", "sample/v0-0", "sample/v0-1", "two rows with one identity"),
        ("runs.csv", "study/x,study", "study/x,other", "0 rows of stage 'study'"),
        ("runs.csv", '""scores"", ""latency""', '""scores"", ', "not readable as JSON"),
        ("runs.csv", '""num_images"": 200', '""num_images"": NaN',
         "not readable as JSON (NaN is not a finite number, which JSON cannot hold)"),
        ("runs.csv", '""num_images"": 200', '""num_images"": ""200""', "evaluation.num_images"),
        ("runs.csv", '""against"": ""b""', '""against"": ""c""',
         "against 'c' of a claim is no variant"),
        ("runs.csv", '""metric"": ""fid""', '""metri"": ""fid""', "claims.0.metric"),
        ("runs.csv", '""suites"": {""s""', '""suites"": {""../s""', "suites"),
        ("variants.csv", '"[1, 2, 4]"', '"[1, 2, "',
         "suite 's', variant 'a': patch_nums: not readable as JSON"),
        ("variants.csv", '"[1, 2, 4]"', '"""1, 2, 4"""',
         "variant 'a': patch_nums: Input should be a valid list"),
        ("variants.csv", ",a,a,", ",a,,",
         "variant 'a': group: Input should be a valid string, got None"),
        ("variants.csv", ",0,,1,", ",0,,one,", "line 2: depth 'one' is no whole number from 0"),
        ("variants.csv", ",0,,1,", ",0,,,",
         "variant 'a': depth: Input should be a valid integer, got None"),
        ("variants.csv", "s,a,", "t,a,",
         "suite 't', variant 'a': the study has no such suite (there are: s)"),
        ("variants.csv", "s,b,", "s,a,",
         "lines 2 and 3: two rows with one identity {'suite': 's', 'variant': 'a'}"),
        ("variants.csv", "s,a,", ",a,", "line 2: suite is empty"),
        ("variants.csv", "s,b,b,", "s,c,c,", "against 'b' of a claim is no variant"),
        ("variants.csv", "sample/v0-0", "sample/v9-0",
         "jobs: 'sample/v9-0': runs.csv has no such run of this suite"),
        ("variants.csv", '{""""', '{""first""', "variant 'a': jobs.first"),
        ("variants.csv", "{}", "[]", "variant 'a': grid: Input should be a valid dict"),
        ("variants.csv", '""cfg_scale"": 1.0', '""cfg_scale"": null', "settings.sampler.cfg_scale"),
        ("variants.csv", "suite,variant", "suite,name", "missing: 'variant'; unknown: 'name'"),
        ("runs.csv", '""scores"", ""tok', '""scored"", ""tok', "unknown table 'scored'"),
    ],
)  # fmt: skip
def test_damage_is_one_line(folder, file, old, new, words):
    """Catches a traceback, or a number that is read askew, for each way in which a table can be
    damaged."""
    edit(folder / file, old, new)
    assert words in said(folder)


def test_a_spreadsheet_may_save_the_rows_as_utf8_and_not_with_semicolons(folder):
    """Catches rows that are refused for a byte order mark and other line ends, and a message that
    lists all columns where the commas are what is missing."""
    for name in ("metrics.csv", "runs.csv", "variants.csv"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"))
    assert said(folder) == "fine"
    path = folder / "metrics.csv"
    path.write_bytes(path.read_bytes().replace(b",", b";"))
    assert "metrics.csv" in said(folder) and "semicolons" in said(folder)


def test_a_cut_off_file_is_one_line(folder):
    """Catches a file that a full disk cut off, read as if it were whole."""
    path = folder / "metrics.csv"
    whole = path.read_bytes()
    for damaged, words in (
        (whole[:-1], "cut off"), (whole[:-20], "belong"), (b"", "columns None"),
        (b"\xff" + whole, "no UTF-8"), (whole.replace(b",score", b',"score', 1), "damaged"),
        (whole.replace(b"\n", b"\n\n", 1), "0 cells"),
    ):  # fmt: skip
        path.write_bytes(damaged)
        assert words in said(folder)
    path.unlink()
    assert "no such file" in said(folder)


def test_a_missing_or_empty_table_of_variants_is_one_line(folder):
    """Catches results of another version, whose variants stand elsewhere,
    and a suite without any."""
    path = folder / "variants.csv"
    header = path.read_text().split("\n")[0]
    path.write_text(header + "\n")
    assert f"{path}: suite 's': has no variant" in said(folder)
    path.unlink()
    assert f"{path}: no such file" in said(folder)


def test_damaged_images_are_one_line(folder):
    """Catches a traceback of zipfile or numpy, pickled objects that are loaded, and arrays that are
    no images."""
    path = folder / "images.npz"
    whole = path.read_bytes()
    with np.load(path) as found:
        arrays = dict(found)
    for damaged in (
        b"",
        b"no archive",
        whole[: len(whole) // 2],
        whole.replace(b"\x93NUMPY", b"\x93NUMPI"),
    ):
        path.write_bytes(damaged)
        assert str(path) in said(folder, "figures")
    for key, array, words in (
        ("real/images", np.array([{}], dtype=object), "allow_pickle"),
        ("real/images", np.zeros((2, 1, 4, 4)), "float64 where uint8"),
        ("real/images", np.zeros((2, 4, 4), np.uint8), "shape (2, 4, 4)"),
        ("real/images", np.zeros((2, 2, 4, 4), np.uint8), "channels"),
        ("sample/v0-0/strip", np.zeros((2, 1, 4, 4), np.uint8), "scales"),
        ("real/classes", np.arange(3), "text"),
    ):  # fmt: skip
        np.savez(path, **{**arrays, key: array})
        line = said(folder, "figures")
        assert words in line and key in line


MARKS = st.sampled_from(
    [
        "",
        ",",
        '"',
        "\n",
        "0",
        "-1",
        "1e308",
        "nan",
        "x",
        "[",
        "}",
        "null",
        "\x00",
        "é",
        "9" * 30,
        " ",
        "\\",
        "{}",
    ]
)


@pytest.mark.parametrize("file", ["metrics.csv", "runs.csv", "variants.csv"])
@pytest.mark.parametrize("what, examples", [("tables", 60), ("figures", 12)])
def test_no_edit_ends_in_a_traceback(made, tmp_path, file, what, examples):
    """Catches any edit of a table, a character or a few exchanged for others, that ends in a
    traceback."""
    text = (made / file).read_text(encoding="utf-8")
    folder = shutil.copytree(made, tmp_path / "results")

    @settings(max_examples=examples)
    @given(
        st.lists(
            st.tuples(st.integers(0, len(text)), st.integers(0, 8), MARKS), min_size=1, max_size=2
        )
    )
    def tried(edits):
        changed = text
        for place, length, mark in edits:
            changed = changed[:place] + mark + changed[place + length :]
        (folder / file).write_text(changed, encoding="utf-8")
        said(folder, what)

    tried()


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.just(1e308)
    | st.text("a_-/é$", max_size=3)
    | st.just([])
    | st.just({})
)


@pytest.mark.parametrize("what, examples", [("tables", 60), ("figures", 12)])
def test_no_study_row_ends_in_a_traceback(made, tmp_path, what, examples):
    """Catches a setting of the study's row that is missing or of another kind, and ends in a
    traceback."""
    rows = results.read_rows(made / "runs.csv", results.RUN_COLUMNS)
    study = next(row for row in rows if row["stage"] == "study")
    about = json.loads(study["config_json"])
    folder = shutil.copytree(made, tmp_path / "results")
    places = [path for path in paths_of(about) if path]

    @settings(max_examples=examples)
    @given(st.sampled_from(places), VALUES | st.just("remove"))
    def tried(path, value):
        changed = json.loads(study["config_json"])
        part = changed
        for key in path[:-1]:
            part = part[key]
        if value == "remove":
            del part[path[-1]]
        else:
            part[path[-1]] = value
        row = {**study, "config_json": json.dumps(changed)}
        results.write_runs(
            folder / "runs.csv", [row if other is study else other for other in rows]
        )
        said(folder, what)

    tried()


def paths_of(value, at=()):
    """Where every part of a JSON value stands."""
    yield at
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in inside:
        yield from paths_of(part, (*at, key))


def test_numbers_cut_at_the_end_of_a_line_are_missed(tmp_path):
    """Catches a half file that looks whole, whose claims would all be 'not decided' with status
    ok."""
    folder = tmp_path / "published"
    shutil.copytree(Path(__file__).parents[1] / "results/digits/published", folder)
    Results.load(folder)
    lines = (folder / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join(lines[:40]))
    with pytest.raises(ValueError, match=r"metrics\.csv: holds no number of job .* more\)"):
        Results.load(folder)


@pytest.fixture
def published(tmp_path):
    """A copy of what collect wrote and publishing kept."""
    origin = Path(__file__).parents[1] / "results" / "digits_few" / "published"
    return shutil.copytree(origin, tmp_path / "published")


def refusal(folder):
    """How loading results is refused."""
    with pytest.raises(ValueError) as error:
        Results.load(folder)
    return str(error.value)


def test_numbers_cut_inside_a_job_are_missed(published):
    """Catches the loss of a few numbers of jobs that all have others."""
    path = published / "metrics.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:100], *lines[101:]]), encoding="utf-8")
    rows = len(lines) - 1
    assert f"{path}: holds {rows - 1} rows where {rows} were collected" in refusal(published)


def test_an_edited_number_is_known(published):
    """Catches a score that somebody made better by hand."""
    path, place = published / "metrics.csv", results.METRIC_COLUMNS.index("value")
    line = path.read_text(encoding="utf-8").splitlines()[100]
    cells = line.split(",")
    edit(path, line, ",".join([*cells[:place], f"{cells[place]}1", *cells[place + 1 :]]))
    assert "metrics.csv: holds other cells than were collected" in refusal(published)


def test_an_edited_variant_is_known(published):
    """Catches settings in a caption that no job ran with."""
    edit(published / "variants.csv", '""cfg_scale"": 1.0', '""cfg_scale"": 1.5')
    assert "variants.csv: holds other cells than were collected" in refusal(published)


def test_images_of_another_run_are_known(folder):
    """Catches figures of another machine's images beside these numbers, where two folders of
    results were put together."""
    runs = results.read_rows(folder / "runs.csv", results.RUN_COLUMNS)
    row = next(row for row in runs if row["stage"] == "study")
    images = sum_of_file(folder / "images.npz")
    row["config_json"] = json.dumps({**json.loads(row["config_json"]), "images_sha256": images})
    results.write_runs(folder / "runs.csv", runs)
    with np.load(folder / "images.npz") as saved:
        arrays = dict(saved)
    assert said(folder, "figures") == "fine"
    np.savez(folder / "images.npz", **{key: array[::-1] for key, array in arrays.items()})
    assert f"{folder / 'images.npz'}: holds other images than were" in said(folder, "figures")


def test_a_job_that_lost_its_row_is_known(published):
    """Catches a table of jobs that was cut, whose job would be left out without a word."""
    rows = {
        name: results.read_rows(published / name, columns)
        for name, columns in (
            ("runs.csv", results.RUN_COLUMNS),
            ("metrics.csv", results.METRIC_COLUMNS),
        )
    }
    kept = {
        name: [row for row in of_file if not row["run_id"].startswith("prepare/")]
        for name, of_file in rows.items()
    }
    results.write_metrics(published / "metrics.csv", kept["metrics.csv"])
    results.write_runs(published / "runs.csv", kept["runs.csv"])
    assert "runs.csv: has no row of job prepare/" in refusal(published)


def test_tables_saved_with_other_ends_of_lines_are_read(published):
    """Catches sums that a spreadsheet or another system changes without changing a number."""
    for name in ("metrics.csv", "variants.csv"):
        path = published / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    Results.load(published)


def test_results_of_older_versions_are_read(published):
    """Catches results that can be read no more because nobody wrote down what they hold."""
    runs = results.read_rows(published / "runs.csv", results.RUN_COLUMNS)
    for row in runs:
        about = json.loads(row["config_json"] or "{}")
        about.pop("contents", None)
        row["config_json"] = json.dumps(about)
    results.write_runs(published / "runs.csv", runs)
    edit(published / "metrics.csv", ",share,", ",nat,")
    Results.load(published)


@pytest.mark.parametrize("damaged", [b"[]", b"{}", b"\xff\xfe", b'{"a', b'{"run_id": "a/b"}'])
def test_a_damaged_row_of_a_job_that_is_read_is_one_line_with_what_to_do(tmp_path, damaged):
    """Catches a fault of the program, or a line without the file, where an input is damaged."""
    (tmp_path / "row.json").write_bytes(damaged)
    with pytest.raises(ConfigError) as refused:
        read_row(tmp_path)
    line = str(refused.value)
    assert line.startswith(f"{tmp_path}/row.json: ") and f"delete {tmp_path} and" in line
    assert "\n" not in line
