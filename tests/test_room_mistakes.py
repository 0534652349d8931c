"""What a newcomer's room may lack: one line that names file, word and what is legal, before any
work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
ROOM = "bench/experiments/code_variety"
SUITE = "workflows/config/suites/code_variety.yaml"
CHECK = (
    "from bench.runtime.verbs import check_jobs\n"
    "from bench.study.plan import load_study\n"
    "plan = load_study('study.yaml')\n"
    "check_jobs(plan.jobs.values())\n"
    "print(len(plan.suites['code_variety']))"
)


def blocks(language):
    """The pieces of code of the page, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A copy of the code with the room that docs/extending.md writes, and a study that takes it."""
    root = tmp_path_factory.mktemp("recipe")
    for name in ("srdd", "bench", "workflows", "tests", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / ROOM).mkdir()
    (root / ROOM / "__init__.py").write_text('"""How many codes does each variant draw?"""\n')
    for name, text in zip(("plan", "verb", "show"), blocks("python")):
        (root / ROOM / f"{name}.py").write_text(text)
    (root / SUITE).write_text(blocks("yaml")[0])
    study = "study: mine\nlike: digits\ntake: [code_variety]\nsuites: {code_variety: {}}\n"
    (root / "study.yaml").write_text(study)
    return root


def python(root, *words):
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-B", *words]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_the_recipe_of_the_docs_is_complete(recipe):
    """Catches a page that newcomers follow word by word, and whose room the tests then refuse."""
    done = python(recipe, "-c", CHECK)
    assert done.returncode == 0 and int(done.stdout) > 10, done.stderr
    python(recipe, "-m", "bench", "settings", "--write")
    asked = ("tests/test_rooms.py", "tests/test_settings_page.py")
    only = "code_variety or page or torch or up or room_imports or meaning or block"
    done = python(recipe, "-m", "pytest", "-q", "-p", "no:cacheprovider", *asked, "-k", only)
    assert done.returncode == 0, done.stdout


def replaced(name, old, new):
    def edit(root):
        path = root / ROOM / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


def without(name):
    return lambda root: (root / ROOM / name).unlink()


def called(name):
    def edit(root):
        (root / ROOM).rename(root / "bench" / "experiments" / name)
        for path in (root / "bench" / "experiments" / name / "plan.py", root / SUITE):
            path.write_text(path.read_text().replace("code_variety", name))
        (root / SUITE).write_text((root / SUITE).read_text().replace(f"tables: [{name}]", ""))

    return edit


def more_work(root):
    job = 'sampled=True)\n    plan.add(suite, Job("code_variety_more", {}, {}))'
    replaced("plan.py", "import Plan", "import Job, Plan")(root)
    replaced("plan.py", "sampled=True)", job)(root)


def two_of_one_name(root):
    other = root / f"{ROOM}_more"
    other.mkdir()
    for path in (root / ROOM / "verb_more.py", other / "verb.py"):
        shutil.copy2(root / ROOM / "verb.py", path)


NO_MEASURE = f"'code_variety' is no measure: {ROOM} has"
MISTAKES = {
    "no __init__": (without("__init__.py"), f"{NO_MEASURE} no __init__.py (measures: "),
    "no plan": (without("plan.py"), f"{NO_MEASURE} no plan.py (measures: "),
    "no jobs": (replaced("plan.py", "def jobs(", "def job("), f"{NO_MEASURE} a plan.py without a"),
    "no verb": (without("verb.py"), f"{ROOM}/verb.py: is missing"),
    "no work": (replaced("verb.py", "def work(", "def wrok("), "has no function work(run)"),
    "verb no Python": (replaced("verb.py", "-> None:", "-> None"), f"{ROOM}/verb.py: line "),
    "show no Python": (replaced("show.py", "(view: View)", "((view)"), f"{ROOM}/show.py: line "),
    "inputs": (
        replaced("verb.py", '"tokens", ', ""),
        "INPUTS: is ['data', 'tokenizer', 'train', 'features']; its jobs read data, features, ",
    ),
    "signature of jobs": (
        replaced("plan.py", ", variants: dict[str, Variant]", ""),
        f"{ROOM}/plan.py: jobs: raises TypeError: ",
    ),
    "probe of another name": (
        replaced("plan.py", '"code_variety"', '"code_varity"'),
        f"{ROOM}/plan.py: jobs: raises KeyError: 'code_varity' (plan.py, line ",
    ),
    "plan raises": (replaced("plan.py", "TRAINS = True", "TRAINS = yes"), "raises NameError: "),
    "plan leaves": (
        replaced("plan.py", "TRAINS = True", "raise SystemExit"),
        f"{ROOM}/plan.py: raises SystemExit: ",
    ),
    "jobs leaves": (
        replaced("plan.py", "    add_probe", "    raise SystemExit\n    add_probe"),
        f"{ROOM}/plan.py: jobs: raises SystemExit: ",
    ),
    "settings of no kind": (
        replaced("plan.py", "Settings(Strict)", "Settings"),
        f"{ROOM}/plan.py: Settings: is no class of its kind",
    ),
    "a default out of range": (
        replaced("plan.py", "Field(256,", "Field(0,"),
        "Settings.num_images: of its defaults: Input should be greater than or equal to 1, got 0",
    ),
    "a default of another type": (
        replaced("plan.py", "Field(256,", "Field('many',"),
        "Settings.num_images: of its defaults: Input should be a valid integer, got 'many'",
    ),
    "needs": (
        replaced("plan.py", "TRAINS = True", 'NEEDS = {"table_code_variety": "latnecy"}'),
        "NEEDS: table_code_variety: unknown measure 'latnecy'; did you mean 'latency'?",
    ),
    "needs of none": (
        replaced("plan.py", "TRAINS = True", 'NEEDS = {"table_code_varity": "latency"}'),
        "NEEDS: unknown function 'table_code_varity'; did you mean 'table_code_variety'?",
    ),
    "key": (called("published"), "bench/experiments/published: 'published' is a key of a study"),
    "no second verb": (
        more_work,
        f"{ROOM}/verb_more.py: is missing; the jobs of the stage 'code_variety_more' need one",
    ),
    "two verbs of one name": (
        two_of_one_name,
        f"{ROOM}_more/verb.py: 'code_variety_more' is the verb of {ROOM}/verb_more.py too",
    ),
    "verb of a study": (called("train"), "verb.py: 'train' is a verb of every study already"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_any_work(recipe, tmp_path, mistake):
    """Catches a traceback, and a job that fails after hours of training for want of a word."""
    edit, line = MISTAKES[mistake]
    root = tmp_path / "copy"
    shutil.copytree(recipe, root, ignore=shutil.ignore_patterns("__pycache__", "tests", "docs"))
    edit(root)
    code = CHECK.replace("plan = ", "from bench.study.errors import ConfigError\ntry:\n  plan = ")
    code = code.replace("check_jobs(plan", "  check_jobs(plan").replace(
        "print(", "except ConfigError as error: print(error)\nelse: print("
    )
    done = python(root, "-c", code)
    assert done.returncode == 0, done.stderr
    assert line in done.stdout and done.stdout.count("\n") == 1, done.stdout


@pytest.mark.parametrize(
    "words, line",
    [
        (["snrr"], "did you mean 'snr'?"),
        (["--nam"], "'--name'?"),
        (["main", "snr"], "error: main snr: 2 scopes, give one"),
    ],
)
def test_a_misspelt_scope_of_a_plan_is_refused(words, line):
    """Catches a plan of everything, printed to whoever asked for one suite."""
    done = python(ROOT, "-m", "bench", "plan", "workflows/config/digits.yaml", *words)
    assert done.returncode == 1 and line in done.stderr and done.stderr.count("\n") == 1


def test_a_plan_of_one_suite_lists_its_jobs():
    """Catches a scope that is read and passed over."""
    done = python(ROOT, "-m", "bench", "plan", "workflows/config/digits.yaml", "snr")
    stages = {line.split("/")[0] for line in done.stdout.split()}
    assert stages == {"prepare", "tokenizer", "snr"}
    assert python(ROOT, "-m", "bench", "plan", "-h").stdout.startswith("python -m bench plan STUDY")
