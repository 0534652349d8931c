"""Hashes of code that are kept between processes: never those of another text. And the commit that
a result names: never that of another project."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.runtime import provenance
from bench.runtime.known_sources import MOST_KEPT, KnownSources

ROOT = Path(__file__).resolve().parent.parent
ASK = (
    "from bench.runtime.provenance import KNOWN, source_of_program\n"
    "print(source_of_program('claims'), len(KNOWN.new))"
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with one source file, and a cache of its own."""
    monkeypatch.setenv("SRDD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "root" / "srdd").mkdir(parents=True)
    (tmp_path / "root" / "srdd" / "a.py").write_text("A = 1\n")
    return tmp_path / "root"


def files(root):
    return root.parent.glob("cache/sources/*.json")


def kept(root):
    known = KnownSources(root)
    digest = known.digest("q", lambda: f"{len(list(root.rglob('*.py'))):010}")
    known.keep()
    return digest, len(known.new)


def test_a_hash_is_computed_once_for_each_text(project):
    """Catches a hash that outlives the text it was computed of, and one that is never found
    again."""
    assert kept(project) == ("0000000001", 1)
    assert kept(project) == ("0000000001", 0)
    (project / "srdd" / "b.py").write_text("B = 1\n")
    assert kept(project) == ("0000000002", 1)
    (project / "srdd" / "a.py").write_text("A = 2\n")
    assert kept(project)[1] == 1


@pytest.mark.parametrize(
    "place, words",
    [
        ("mine.py", "import mine"),
        ("mine.py", "import os, mine as m"),
        ("lab/inner/mine.py", "from lab.inner import mine"),
        ("lab/inner/mine.py", "if A: import lab.inner.mine"),
        ("lab/mine.py", "def f():\n    from lab \\\n        import (\n        mine)"),
        ("more/mine.py", "from lab import x"),
        ("srdd/ext/mine.py", "from .ext import mine"),
        ("schön.py", "import schön"),
    ],
)
def test_code_beside_the_project_is_of_its_text(project, place, words):
    """Catches a helper beside `run`, in a folder of one's own, behind a link or used by such a
    helper, whose edit leaves old hashes and so old numbers."""
    (project / "lab").mkdir()
    (project / "lab" / "x.py").write_text("import more.mine\n")
    (project.parent / "elsewhere").mkdir()
    (project / "srdd" / "ext").symlink_to(project.parent / "elsewhere")
    (project / "srdd" / "a.py").write_text(f"A = 1\n{words}\n", encoding="utf-8")
    helper = project / place
    helper.parent.mkdir(parents=True, exist_ok=True)
    for text in ("B = 1\n", "B = 2\n"):
        helper.write_text(text)
        assert kept(project)[1] == 1, f"{place} is no part of the text"
    assert kept(project)[1] == 0


def test_what_nobody_imports_is_not_read(project):
    """Catches a walk through folders of images and results, and one that a link leads in a
    circle."""
    (project / "images").mkdir()
    (project / "srdd" / "back").symlink_to(project / "srdd")
    (project / "srdd" / "none").symlink_to(project / "nothing")
    kept(project)
    for place in ("images/a.py", "srdd/__pycache__/b.py", "srdd/no-name.py"):
        (project / place).parent.mkdir(exist_ok=True)
        (project / place).write_text("A = 1\n")
        assert kept(project)[1] == 0, place


@pytest.mark.parametrize("text", ["{", "[]", '{"q": 3}', '{"q": "../../etc"}', "", "[" * 200_000])
def test_a_damaged_file_counts_as_none(project, text):
    """Catches half a file, or one that somebody changed, that ends a plan or names a result."""
    kept(project)
    file = next(files(project))
    file.write_text(text)
    assert kept(project) == ("0000000001", 1)
    assert json.loads(file.read_text()) == {"q": "0000000001"}


def test_an_edit_meanwhile_keeps_nothing(project):
    """Catches the hash of a new text that is kept under the name of the old one."""
    known = KnownSources(project)
    known.digest("q", lambda: "0" * 10)
    (project / "srdd" / "a.py").write_text("A = 3\n")
    known.keep()
    assert not list(files(project))


def test_old_texts_are_forgotten(project):
    """Catches a cache that grows with every edit."""
    for value in range(MOST_KEPT + 3):
        (project / "srdd" / "a.py").write_text(f"A = {value}\n")
        kept(project)
    assert len(list(files(project))) == MOST_KEPT


def test_a_copy_of_the_project_finds_what_the_original_has_kept(project, tmp_path):
    """Catches a clone that follows all code again."""
    kept(project)
    copy = shutil.copytree(project, tmp_path / "copy")
    assert kept(copy) == ("0000000001", 0)
    (copy / "srdd" / "a.py").rename(copy / "srdd" / "b.py")
    assert kept(copy)[1] == 1, "another name of a file is another text"


def test_another_process_finds_what_one_has_computed(tmp_path):
    """Catches a plan that follows all code again; and a cache that cannot be written, which ends
    it."""
    answers = []
    (tmp_path / "file").write_text("")
    for place in ("cache", "cache", "file"):
        # many containers ask for no compiled modules
        environment = {**os.environ, "SRDD_CACHE": str(tmp_path / place)}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        done = subprocess.run(
            [sys.executable, "-c", ASK], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert not done.stderr
        answers.append(done.stdout.split())
    assert [number for _, number in answers] == ["1", "0", "1"]
    assert len({digest for digest, _ in answers}) == 1


# ---------------------------------------------------------------- the commit


def git(folder, *words):
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    environment = {key: text for key, text in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return done.stdout.strip()


@pytest.fixture
def committed(project, monkeypatch):
    """A project under git with a helper beside it, and what its results say of their commit."""
    (project / "srdd" / "a.py").write_text("import mine\nimport lab.x\n")
    (project / "docs").mkdir()
    (project / "docs" / "a.md").write_text("words\n")
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "first")

    def state(root=project):
        monkeypatch.setattr(provenance, "ROOT", root)
        monkeypatch.setattr(provenance, "KNOWN", KnownSources(root))
        return provenance.git_state.__wrapped__()

    return state


@pytest.mark.parametrize(
    "place, dirty",
    [
        ("srdd/new.py", True),
        ("bench/experiments/mine/verb.py", True),
        ("workflows/config/schön.yaml", True),
        ("mine.py", True),
        ("lab/x.py", True),
        ("docs/a.md", True),
        ("docs/new.md", False),
        ("notes.txt", False),
        ("images/cat/1.png", False),
    ],
)
def test_new_code_is_a_change_of_the_commit(committed, project, place, dirty):
    """Catches results of a new module, room or study that name a commit without it as theirs; and
    notes or images that count as code."""
    assert committed() == (git(project, "rev-parse", "HEAD"), False)
    (project / place).parent.mkdir(parents=True, exist_ok=True)
    (project / place).write_text("other")
    assert committed() == (git(project, "rev-parse", "HEAD"), dirty)


def test_a_job_names_the_commit_that_it_began_with(committed, project):
    """Catches a result that names a commit which was made while it was computed, or hides an edit
    of that time."""
    head = git(project, "rev-parse", "HEAD")
    start = committed()
    assert provenance.git_state_since(start) == (head, False)
    (project / "srdd" / "a.py").write_text("import mine\n")
    assert provenance.git_state_since(start) == (head, True)
    git(project, "commit", "-q", "-a", "-m", "second")
    assert provenance.git_state_since(start) == (head, True)
    assert provenance.git_state_since((None, None)) == (None, None)


def test_a_commit_is_that_of_the_project_itself(committed, project, tmp_path, monkeypatch):
    """Catches the commit of a repository that the project was unpacked in, or that the environment
    names, as in a hook; and a linked working tree that is taken for none."""
    head = git(project, "rev-parse", "HEAD")
    shutil.copytree(project / "srdd", project / "docs" / "unpacked" / "srdd")
    assert committed(project / "docs" / "unpacked") == (None, None)
    git(project, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    assert committed(tmp_path / "linked") == (head, False)
    monkeypatch.setenv("GIT_DIR", str(project / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(project))
    shutil.copytree(project / "srdd", tmp_path / "other" / "srdd")
    assert committed(tmp_path / "other") == (None, None)
    assert committed(tmp_path / "linked") == (head, False)
