"""Study files that nobody would write by intention: whatever stands in one, it is a plan or one
line, and quickly."""

import copy
import datetime
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.study import study_file
from bench.study.before import missing_files
from bench.study.errors import ConfigError
from bench.study.jobs import Plan
from bench.study.plan import load_study
from bench.study.study_file import one_line

ROOT = Path(__file__).resolve().parent.parent
SMOKE = (ROOT / "tests" / "studies" / "smoke.yaml").read_text(encoding="utf-8")
DATA = yaml.safe_load(SMOKE.replace("3e-3", "3.0e-3"))
ODD = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3.5,
        -0.0,
        1e300,
        float("nan"),
        float("inf"),
        10**30,
        -(10**30),
    ),
    *(
        2**31,
        1e3,
        0.1,
        1.0,
        "",
        " ",
        "a",
        "1",
        "1e3",
        "var",
        "VAR",
        "fid",
        "FID",
        "scores",
        "sweep",
        "é",
    ),
    *(
        "汉字",
        "a/b",
        "..",
        "a\nb",
        "\u2028",
        "\x00",
        "{x}",
        "x" * 300,
        "null",
        [],
        [[]],
        [None],
        [1, 2, 4],
    ),
    *(
        [4, 2, 1],
        [True],
        [0.5],
        [10**9],
        {},
        {"a": 1},
        {"base": "var"},
        {1: 2},
        {"": 1},
        {"a\nb": 1},
    ),
    *(datetime.date(2024, 1, 2), b"\xff\x00"),
]


def places(node, at=()):
    """Every place of a nested study, the root apart."""
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, part in items:
        yield (*at, key)
        yield from places(part, (*at, key))


PIECES = [
    *(
        "",
        "\t",
        "\n",
        "- ",
        ": ",
        "? ",
        "&a ",
        "*a",
        "<<: ",
        "|",
        ">",
        "'",
        '"',
        "{",
        "}",
        "[",
        "]",
    ),
    *(
        "!!set ",
        "!!binary ",
        "!!python/name:os.system ",
        "!!timestamp ",
        "!!int ",
        "!!map ",
        "!!omap ",
    ),
    *("#", "%", "@", "`", "\x07", "\ufeff", "---\n", "...\n", "2024-13-45", "0x", "1:30", "~", "="),
    "9" * 5000,
]
PLACES = list(places(DATA))
values = st.one_of(
    st.sampled_from(ODD),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.recursive(
        st.sampled_from(ODD[:40]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
        ),
        max_leaves=8,
    ),
)
KEYS = [
    "delta",
    "grid",
    "distill",
    "weights",
    "claims",
    "published",
    "sweep",
    "metric",
    "rule",
    "better",
    "mask",
    "history",
    "patience",
    "measure",
]


@st.composite
def mutated(draw):
    """The smoke study with one to three places replaced, removed, or given a key more."""
    data = copy.deepcopy(DATA)
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(PLACES))
        node = data
        try:
            for part in parents:
                node = node[part]
            how = draw(st.sampled_from(["replace", "replace", "remove", "add", "swap"]))
            if how == "remove":
                del node[last]
            elif how == "add":
                node[last][draw(st.sampled_from(KEYS) | st.text(max_size=6))] = draw(values)
            elif how == "swap":
                other = DATA
                for part in draw(st.sampled_from(PLACES)):
                    other = other[part]
                node[last] = copy.deepcopy(other)
            else:
                node[last] = draw(values)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return data


def is_plan_or_line(path):
    """Load a study; what is wrong must be one line that names the file."""
    try:
        plan = load_study(path)
        assert isinstance(plan, Plan)
        # what the workflow goes on with
        plan.study.model_dump_json()
        missing_files(plan)
        assert all(len(part.encode()) < 250 for run_id in plan.jobs for part in run_id.split("/"))
        assert all(line.isprintable() for line in plan.warnings)
    except ConfigError as error:
        text = str(error)
        assert text.startswith(one_line(f"{path}: ")) and len(text) < 2000
        assert text.isprintable(), repr(text)
        return text
    return None


LONG = "x" * 300
FOLDER = {"name": "image_folder", "image_size": 8, "channels": 1, "num_classes": 10}
INCEPTION = {"kind": "inception", "name": "x", "sha256": "0" * 64, "weights": str(ROOT / "run")}
REFERENCE = {**INCEPTION, "reference_sha256": "0" * 64}


def said_of(tmp_path, change):
    """What is said of the smoke study with other keys, before its first job."""
    path = tmp_path / "study.yaml"
    path.write_text(yaml.dump({**DATA, **change}), encoding="utf-8")
    words = [sys.executable, "-m", "bench", "plan", str(path), "--name", "--files"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode and done.stderr.startswith("error: "), done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize(
    "change, words",
    [
        ({"like": f"{LONG}/x.yaml"}, "like: "),
        ({"dataset": {**DATA["dataset"], "path": LONG}}, "dataset.path: "),
        ({"dataset": {**FOLDER, "path": "x/" * 3000}}, "dataset.path: "),
        ({"features": {**INCEPTION, "weights": LONG}}, "features.weights: "),
        ({"features": {**REFERENCE, "reference": LONG}}, "features.reference: "),
        ({"features": {**INCEPTION, "weights": "~nobody-here/x"}}, "features.weights: "),
        ({"suites": {"main": {**DATA["suites"]["main"], "measure": [LONG]}}}, "unknown measure"),
    ],
    ids=["like", "path", "folder", "weights", "reference", "home", "measure"],
)
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, change, words):
    """Catches a traceback for a path or a name that is too long, or lies in no home."""
    said = said_of(tmp_path, change)
    assert words in said, said


def test_a_folder_that_may_not_be_entered_is_one_line(tmp_path, monkeypatch):
    """Catches a traceback for images in a folder of somebody else."""
    stat = Path.stat

    def denied(place, **more):
        if place.name == "photos":
            raise PermissionError(13, "Permission denied", str(place))
        return stat(place, **more)

    monkeypatch.setattr(Path, "stat", denied)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.dump({**DATA, "dataset": {**FOLDER, "path": "/locked/photos"}}))
    assert "dataset.path: /locked/photos: cannot be looked up (Permission" in is_plan_or_line(path)


@settings(max_examples=150)
@given(data=mutated())
def test_mutated_studies_are_a_plan_or_one_line(data, tmp_path_factory):
    """Catches a traceback, or two lines, for a study with values of another kind, size or place,
    with keys too few or too many."""
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(yaml.dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    is_plan_or_line(path)


@settings(max_examples=150)
@given(st.data())
def test_mutated_text_is_a_plan_or_one_line(tmp_path_factory, data):
    """Catches a traceback for a file whose YAML is damaged: characters lost, repeated, replaced,
    tabs, anchors, tags."""
    text = SMOKE
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.sampled_from(PIECES))
        text = text[:at] + piece + text[at + data.draw(st.sampled_from([0, 0, 1, 3, 30])) :]
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(text, encoding="utf-8")
    is_plan_or_line(path)


# what the two parsers of YAML read differently, and what lies near it
ODD_YAML = [
    *["\t", "? ", "?", "!", "!x ", "|", ">-", "|#", "#", "\ufeff", "\r", "\x85", "\u2028", "&a "],
    *["*a", "'", '"', ":", ": ", "- ", "{a:b}", "[a, b]", "<<: ", "%", "@", "---", "...", "\\"],
    *["\x07", "~"],
]


def read_by(loader, text):
    """What a parser makes of a text; None if it refuses it."""
    try:
        return repr(yaml.load(text, loader))
    except (yaml.YAMLError, ConfigError):
        return None


def test_the_quick_parser_reads_what_the_other_one_reads():
    """Catches a study that means one thing where PyYAML has libyaml, and another where not."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "workflows").rglob("*.yaml")]
    assert all(map(study_file._both_agree, texts)), "none of ours is read by the slow one"
    drawn, compared = random.Random(0), 0
    for _ in range(6000):
        lines = drawn.choice(texts).splitlines(keepends=True)
        at = drawn.randrange(len(lines))
        text = "".join(lines[at : at + drawn.randrange(1, 8)])
        for _ in range(drawn.randrange(1, 4)):
            at = drawn.randrange(len(text) + 1)
            text = text[:at] + drawn.choice(ODD_YAML) + text[at + drawn.choice([0, 0, 1, 3]) :]
        quick = read_by(study_file._QuickLoader, text) if study_file._both_agree(text) else None
        if quick is not None:
            assert quick == read_by(study_file._StrictLoader, text), text
            compared += 1
    assert compared > 1000


@pytest.mark.parametrize("text", ['a: "\\U00110000"', f"%YAML {'1' * 5000}.1\n---\na: 1"])
def test_what_the_scanner_lets_through_is_one_line(tmp_path, text):
    """Catches a traceback of Python for a character or a version beyond all bounds."""
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    assert "not readable as YAML: " in is_plan_or_line(path)


@pytest.mark.parametrize("kept", ["a{i}: &a{i} {{", "a{i}: [&a{i} {{"], ids=["keys", "in a list"])
def test_mappings_that_merge_mappings_end(tmp_path, kept):
    """Catches ten lines that merge nine mappings each, and would be read for ever."""
    end = "}]" if "[" in kept else "}"
    lines = ["study: a", "a0: &a0 {k: 1}"]
    for i in range(1, 15):
        merged = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"{kept.format(i=i)}<<: [{merged}], z{i}: 1{end}")
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    assert is_plan_or_line(path)
    last = study_file.read_yaml(path)["a14"]
    assert (last[0] if end == "}]" else last) == {"k": 1, **{f"z{i}": 1 for i in range(1, 15)}}


@pytest.mark.parametrize("more", ["", "<<: *b, "])
def test_a_key_that_stands_twice_is_refused_where_others_merge_it(tmp_path, more):
    """Catches a mapping of a list that is written out before it is read itself: its second value
    would win, and a key that it overrides would count as twice."""
    path = tmp_path / "twice.yaml"
    text = "b: &b {{k: 0}}\nx: [&a {{{}k: 1{}}}]\nc: {{<<: *a, k: 3}}"
    path.write_text(text.format(more, ", k: 2"))
    with pytest.raises(ConfigError, match="'k' stands twice"):
        study_file.read_yaml(path)
    path.write_text(text.format(more, ""))
    assert study_file.read_yaml(path) == {"b": {"k": 0}, "x": [{"k": 1}], "c": {"k": 3}}


def test_a_merge_keeps_what_stands_later(tmp_path):
    """Catches a merged key that wins over one's own, or over an earlier mapping's."""
    path = tmp_path / "merge.yaml"
    path.write_text("a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], y: 3}")
    assert study_file.read_yaml(path)["c"] == {"x": 1, "y": 3, "z": 2}


@pytest.mark.parametrize("text", ["[" * 10**5, "- " * 10**5, "{a: " * 10**5], ids=["[", "-", "{"])
def test_nesting_without_end_is_not_given_to_the_quick_parser(text):
    """Catches a process that ends without a word: libyaml has no limit of levels."""
    assert not study_file._both_agree(text)


def laughs(levels):
    """An alias bomb: each list holds the one before nine times."""
    lines = ["x0: &x0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"x{i + 1}: &x{i + 1} [{', '.join([f'*x{i}'] * 9)}]" for i in range(levels)]
    return "\n".join(lines) + "\n" + SMOKE


FILES = {
    "empty": (b"", "holds no settings"),
    "binary": (bytes(range(256)) * 9, "no UTF-8 text"),
    "UTF-16": (SMOKE.encode("utf-16"), "no UTF-8 text at byte 0"),
    "bomb of aliases": (laughs(30).encode(), "more than 100,000 values"),
    "chain of aliases": (
        "".join(f"x{i + 1}: &x{i + 1} [{f'*x{i}' if i else 1}]\n" for i in range(3000)).encode(),
        "nested deeper",
    ),
    "alias of itself": (b"x: &x [*x]\n", "contains itself"),
    "deep list": (b"a: " + b"[" * 5000, "nested deeper"),
    "deep mapping": ("".join(" " * i + "a:\n" for i in range(60)).encode(), "nested deeper"),
    "list as a key": (b"a: 1\n[1, 2]: 3\n", "line 2: a list or mapping as a key"),
    "mapping as a key": (b"? {a: b}\n: 3\n", "line 1: a list or mapping as a key"),
    "no such day": (b"a: 2024-13-45\n", "line 1: '2024-13-45' is no timestamp"),
    "more digits than Python reads": (b"a: 1\nb: " + b"9" * 6000, "line 2"),
    "no number": (b"a: !!int many\n", "line 1: 'many' is no int"),
    "no truth value": (b"a: !!bool perhaps\n", "line 1: 'perhaps' is no bool"),
    "no mapping": (b"a: !!map [1, 2]\n", "line 1"),
    "code": (b"a: !!python/object/apply:os.system ['true']\n", "not readable as YAML"),
    "word that is a truth value": (
        SMOKE.replace("      VAR: {", "      no: {", 1).encode(),
        "the key 'no' is no text but a truth value",
    ),
    "name that is a number": (
        SMOKE.replace("      VAR: {", "      1: {", 1).encode(),
        "the key '1' is no text but a whole number",
    ),
    "date as a text": (
        SMOKE.replace("VAR beside SDD", "2024-01-02").encode(),
        "suites.main.claim: datetime.date(2024, 1, 2) is a date",
    ),
    "name of two lines": (
        SMOKE.replace("      VAR: {", '      "V\\nR": {', 1).encode(),
        "line breaks",
    ),
    "key of a student": (
        SMOKE.replace(
            "distill.arm: real,", "distill.arm: real, distill.num_sample: 3,", 1
        ).encode(),
        "distill.num_sample: unknown key 'num_sample'; did you mean 'num_samples'",
    ),
    "key of a claim": (
        SMOKE.replace("origin: paper,", "orgin: paper,", 1).encode(),
        "claims[0].orgin: unknown key 'orgin'; did you mean 'origin'",
    ),
    "key of a student's teacher": (
        SMOKE.replace("distill.teacher: {base: var,", "distill.teacher: {bse: var,", 1).encode(),
        "distill.teacher.b",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_study(tmp_path, case):
    """Catches a traceback, two lines or a wait without end for a file of another kind, and a
    message without its place."""
    content, words = FILES[case]
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    text = is_plan_or_line(path)
    assert text and words in text, text


def test_a_byte_order_mark_is_no_part_of_a_study(tmp_path):
    """Catches a study refused that an editor saved as UTF-8 with a mark."""
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMOKE.encode())
    assert is_plan_or_line(path) is None


def test_places_that_are_no_file(tmp_path, monkeypatch):
    """Catches a traceback, or a wait without end, for a path that is a folder, a pipe, a loop of
    links, or that nobody may read."""
    os.mkfifo(tmp_path / "pipe.yaml")
    os.symlink("loop.yaml", tmp_path / "loop.yaml")
    (tmp_path / "closed.yaml").write_text(SMOKE)
    for name, words in (
        ("", "is no file"),
        ("pipe.yaml", "is no file"),
        ("loop.yaml", "cannot be read"),
        ("a\0b", "null"),
        ("none", "no such file"),
    ):
        assert words in is_plan_or_line(tmp_path / name)
    monkeypatch.setattr(
        Path,
        "read_bytes",
        lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied")),
    )
    assert "cannot be read (Permission denied)" in is_plan_or_line(tmp_path / "closed.yaml")
    monkeypatch.undo()
    done = subprocess.run(
        [sys.executable, "-m", "bench", "plan", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 1
        and done.stderr == f"error: {tmp_path}: is no file; give the YAML file of a study\n"
    )
