"""The house rules as tests: dependency direction, no torch at parse time, no global randomness,
references, pins."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.runtime.closure import Project
from bench.runtime.command_line import DEFAULT, take_config
from bench.runtime.failures import PLANNER, at_work, living_snakemake, somebody
from bench.runtime.verbs import PROGRAMS, verbs

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "srdd").glob("*.py"))
PROJECT = [*LIBRARY, *sorted((ROOT / "bench").rglob("*.py"))]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
MODULES = [*PROGRAMS.values(), *(verb.module for verb in verbs().values())]


def names(tree: ast.AST) -> set[str]:
    """Modules that a syntax tree imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_library_is_pure(path):
    """Catches a library module that reaches back to the verbs, reads YAML, parses arguments,
    prints, pickles or evaluates text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not names(tree) & {
        "bench",
        "yaml",
        "argparse",
        "pickle",
        "snakemake",
        "pandas",
        "matplotlib",
    }
    calls = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"print", "eval", "exec", "input"}
    if path.stem != "files":
        assert "open" not in calls


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_no_global_randomness_in_the_library(path):
    """Catches a draw without a generator: it would make an image depend on what ran before it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name = node.func.attr
        # trunc_normal_ draws other numbers from one release of torch to the next
        assert name not in {"manual_seed_all", "seed", "trunc_normal_"}
        if name in {
            "rand",
            "randn",
            "randint",
            "randperm",
            "multinomial",
            "normal_",
            "uniform_",
            "bernoulli_",
        }:
            given = {keyword.arg for keyword in node.keywords}
            assert "generator" in given, (
                f"{path.name}:{node.lineno} {name} draws without a generator"
            )


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_public_functions_say_where_they_come_from(path):
    """Catches a public function or class of the library without a docstring, or a file with no
    reference to a paper or to VAR."""
    text = path.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), (
                f"{path.name}:{node.lineno} {node.name} has no docstring"
            )
    if path.stem not in {
        "lookup",
        "__init__",
        "checkpoint",
        "files",
        "masks",
        "tokenizer_checkpoint",
    }:
        assert "arXiv" in text or "VAR" in text


def test_reading_a_study_imports_no_torch():
    """Catches an import that would make every Snakemake job wait for torch before it can even be
    planned."""
    code = (
        "import sys; from bench.study.plan import load_study; "
        "from bench.runtime.provenance import source_of;"
        "plan = load_study('workflows/config/digits.yaml');"
        "[source_of(job.stage, job.config) for job in plan.jobs.values() if job.stage == 'train'];"
        "heavy = {'torch', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# each module in a process that has loaded others' packages, and nothing of this project
LOADING = """
import importlib, os, sys
import matplotlib.figure, pandas, scipy.optimize, sklearn, torch
for module in sys.argv[1:]:
    child = os.fork()
    if not child:
        importlib.import_module(module)
        ours = [name for name in sys.modules if name.split(".")[0] in ("srdd", "bench")]
        print(module, *ours, flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{module} cannot be imported")
"""


@pytest.fixture(scope="module")
def loaded():
    """Modules of this project that each program and verb loads."""
    done = subprocess.run(
        [sys.executable, "-c", LOADING, *MODULES], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = map(str.split, done.stdout.splitlines())
    return {module: set(ours) for module, *ours in lines}


@pytest.fixture(scope="module")
def project():
    return Project(ROOT)


@pytest.mark.parametrize("module", MODULES)
def test_source_hash_covers_what_a_verb_imports(loaded, project, module):
    """Catches a module that a verb loads and its source hash does not see: bare statements there
    run, and an edit of one would leave stale results."""
    assert module in loaded[module] <= project.loaded([module])


def assigned_names(tree: ast.AST) -> set[str]:
    """Names of variables, parameters and attributes that a syntax tree gives a value."""
    assigned = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            assigned.add(node.arg)
        elif isinstance(getattr(node, "ctx", None), ast.Store):
            assigned.add(getattr(node, "id", None) or getattr(node, "attr", ""))
    return assigned


@pytest.mark.parametrize("path", PROJECT, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_reads_from_top_to_bottom(path):
    """Catches a variable whose name says nothing of what it holds, and a comprehension inside of
    another, which is read from the inside out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not assigned_names(tree) & {"found", "here", "made"}
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS):
            inner = [part for part in ast.walk(node) if isinstance(part, COMPREHENSIONS)]
            assert inner == [node], f"{path.name}:{node.lineno} a comprehension in a comprehension"


def test_conda_environment_installs_the_same_pins():
    """Catches a package that conda users get and others do not."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [item for item in environment["dependencies"] if isinstance(item, str)]
    assert {item.split("=")[0] for item in plain} == {"python", "pip"}
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.txt"]}
    pins = (ROOT / "requirements.txt").read_text().split()
    assert all("==" in pin for pin in pins)


def test_run_needs_nothing_but_python():
    """Catches an import in ./run, or in a module of this project that it reads,
    that a fresh machine does not have."""
    tree = ast.parse((ROOT / "run").read_text(encoding="utf-8"))
    own = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("bench.")
    }
    assert own and names(tree) <= {*sys.stdlib_module_names, "bench"}
    for module in {needed for name in own for needed in Project(ROOT).loaded([name])}:
        path = ROOT.joinpath(*module.split("."))
        text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(
            encoding="utf-8"
        )
        assert names(ast.parse(text)) <= set(sys.stdlib_module_names), module


def test_run_tells_a_study_from_a_setting(tmp_path):
    """Catches `--config processes=2` taken for the file of a study,
    and a study that is not seen behind one."""
    file, setting = tmp_path / "mine.yaml", ["--config", "processes=2"]
    file.touch()
    assert take_config(setting) == (DEFAULT, setting)
    assert take_config(["full", *setting, "--config", str(file)]) == (file, ["full", *setting])
    assert take_config([f"--config={file}", *setting]) == (file, setting)
    with pytest.raises(SystemExit, match="other.yaml: no such file"):
        take_config(["--config", "other.yaml"])


@pytest.mark.parametrize(
    "command, works",
    [
        (["run", "snakemake"], False),
        (["-m", "snakemake"], True),
        (["-m", PLANNER], True),
        (["-m", "other", "snakemake"], False),
        # a job on this node, which a killed run leaves behind
        (["-m", "snakemake", "--mode", "remote"], False),
    ],
)
def test_a_lock_is_lifted_unless_a_snakemake_lives(tmp_path, command, works):
    """Catches ./run that takes itself, or a job of a killed run, for a living snakemake and never
    lifts the lock of a killed one."""
    (tmp_path / "bench" / "runtime").mkdir(parents=True)
    for name in ("run", "snakemake.py", "other.py", "bench/runtime/planner.py"):
        (tmp_path / name).write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "up\n"
        with at_work(tmp_path) as file:
            assert living_snakemake(tmp_path) == ([process.pid] if works else [])
            assert somebody(tmp_path, file, patience_s=0.2) == ([process.pid] if works else None)
    finally:
        process.kill()
        process.wait()


def test_project_is_ruff_clean():
    """Catches unused names, wrong imports and long lines before a reader does."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_library_is_typed():
    """Catches an argument of another kind than it says, where mypy is installed; it is no pin."""
    pytest.importorskip("mypy")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_an_environment_is_made_anew_from_within_itself(tmp_path):
    """Catches ./run called with .venv active after its pins changed:
    it removed its own Python and could make no other."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / ".venv")], check=True
    )
    code = (
        "import sys; from pathlib import Path; "
        "source = Path(sys.argv[1]).read_text(encoding='utf-8');"
        "names = {'__file__': sys.argv[2], '__name__': 'run'};"
        "exec(compile(source.rstrip().removesuffix('main()'), 'run', 'exec'), names);"
        "names['make_venv'](); sys.exit(not names['PYTHON'].exists())"
    )
    python = tmp_path / ".venv" / "bin" / "python"
    command = [python, "-c", code, ROOT / "run", tmp_path / "run"]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
