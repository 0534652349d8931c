"""What code a source hash holds: how names are followed, and that nothing runs which no hash
holds."""

import ast
import importlib
import json
import sys
import threading
from functools import cache
from pathlib import Path

import pytest
from small_study import FIGURES, build

from bench.runtime.closure import Project
from bench.runtime.provenance import LEAVE_OUT, roots_of, roots_of_shows
from bench.runtime.source_text import bare, code_digest
from bench.runtime.verb import main
from bench.runtime.verbs import PROGRAMS, stages
from bench.study import rooms
from bench.study.functions import functions_of
from bench.study.names import dump
from bench.study.plan import load_study
from bench.study.settings import DatasetConfig, TrainingConfig
from srdd.config import ModelConfig, SamplerConfig

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "tests" / "studies" / "smoke.yaml"


# ---------------------------------------------------------------- names


def test_a_setting_at_its_default_has_no_part_in_a_name():
    """Catches a value that is written out, equal to its default, and makes another job; one that is
    lost; and one that is not read back."""
    assert dump(TrainingConfig()) == dump(TrainingConfig(steps=400, warmup=20, beta1=0.9))
    assert dump(TrainingConfig(steps=30)) != dump(TrainingConfig())
    for settings in (
        TrainingConfig(steps=30, corruption="uniform", eps=0.1),
        SamplerConfig(name="srdd", refine_scales=(1, 2), select="static"),
        ModelConfig(patch_nums=(1, 2), history=0, class_dropout=0.0),
        DatasetConfig(
            name="digits", image_size=8, channels=1, num_classes=10, background=(1, 2, 3)
        ),
    ):
        assert type(settings).model_validate_json(json.dumps(dump(settings))) == settings


SIZES = {"patch_nums": [1, 2], "image_size": 8, "channel_multipliers": [1, 1, 1]}


def test_functions_that_a_config_names():
    """Catches a function that counts for jobs which cannot ask it, and one that does not count, as
    the default of a rule."""
    named = {
        "sampler": {"name": "srdd", "refine_steps": 1, "select": "lowest", "cfg_scale": 2.0},
        "samplers": [{"name": "x", "sampler": {"cfg_ramp": "constant"}}],
        "tokenizer": {"training": {"steps": 3}},
        "model": {"patch_nums": [1], "mask": "mine"},
        "equivalence": {},
        "evaluation": {"metrics": ["pixels"]},
    }
    assert functions_of(named) == {
        ("sample", "srdd"),
        ("sample", "var"),
        ("select", "lowest"),
        ("confidence", "drawn"),
        ("ramp", "linear"),
        ("mask", "mine"),
        ("head", "softmax"),
        ("corrupt", "uniform"),
        ("corrupt", "absorb"),
        ("terms", "uniform"),
        ("terms", "absorb"),
        ("metric", "pixels"),
    }
    for tokenizer in (SIZES, {"config": SIZES, "training": {"steps": 3}}):
        assert functions_of({"variants": {"a": {"tokenizer": tokenizer}}}) == {("codec", "conv")}
    own = functions_of({"sampler": {"name": "mine"}})
    assert {("ramp", "linear"), ("select", "threshold"), ("sample", "mine")} <= own


def test_every_lookup_by_name_is_named_by_a_setting():
    """Catches a new kind of function that is found by name and that no field of the settings says:
    its edits would make nothing stale."""
    config = {
        **{key: {} for key in ("sampler", "training", "evaluation", "equivalence", "classify")},
        "restore": {},
        "sampler": {"name": "srdd", "refine_steps": 1, "select": "static", "cfg_scale": 2.0},
        "model": {"patch_nums": [1], "mask": "mine"},
        "tokenizer": {"config": SIZES},
        "distill": {
            "arm": "real",
            "num_samples": 1,
            "teacher": {"model": {"patch_nums": [1]}, "training": None, "sampler": {}},
        },
        "dataset": {"name": "digits", "image_size": 8, "channels": 1, "num_classes": 10},
    }
    project, verbs = Project(ROOT, LEAVE_OUT), stages().values()
    lookups = set()
    for verb in verbs:
        for key in project.closure(roots_of(verb.name), functions_of(config)):
            lookups |= project.used_by(key).lookups
    assert {prefix for _, prefix in lookups} == {prefix for prefix, _ in functions_of(config)}


# ---------------------------------------------------------------- texts


def digest(text: str) -> str:
    return code_digest(bare(text))


def test_a_digest_sees_code_and_not_prose():
    """Catches a hash that retrains after a polished comment, or one that misses an edited line."""
    code = 'def f(x):\n    """Twice."""\n    return 2 * x\n'
    prose = '# why\ndef f(x):\n    """Two times x, said better."""\n\n    return 2 * x  # here\n'
    assert digest(code) == digest(prose) != digest(code.replace("2 * x", "3 * x"))


def closure_of(tmp_path, **files):
    for name, text in files.items():
        path = tmp_path / (name.replace("__", "/").replace("/init", "/__init__") + ".py")
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return Project(tmp_path).closure([("main", "work")])


def test_names_are_followed_through_imports_aliases_and_packages(tmp_path):
    """Catches a use that is not seen: re-exported, in a package, by another name, inside a
    function, as a default, as a base."""
    keys = closure_of(
        tmp_path,
        main="from pack import again as f\nimport pack.other as o\nSIDE = 3\n"
        "def work(x=SIDE):\n    from late import g\n    return f(o.h(g))\n",
        pack__init="from .inner import again\n",
        pack__inner="class Base:\n    pass\n\nclass again(Base):\n    pass\n\n"
        "def unused():\n    pass\n",
        pack__other="import main\n\ndef h(x):\n    return main.helper\n",
        late="def g():\n    return g2()\n\ndef g2():\n    pass\n",
    )
    # main.helper is not there: all of main
    assert keys == {
        ("main", "work"),
        ("main", "SIDE"),
        ("pack.inner", "Base"),
        ("pack.inner", "again"),
        ("pack.other", "h"),
        ("late", "g"),
        ("late", "g2"),
    }


def test_folders_without_init_are_followed(tmp_path):
    """Catches a helper in a folder that is no package by a file of its own, at any depth; and the
    package around such a folder, whose statements an import runs."""
    keys = closure_of(
        tmp_path,
        main="from lab.deep import one\nimport lab.two as t\nimport lab.deep.three\n"
        "from pack.inner import late\n\n"
        "def work():\n    return one.f(t.g, lab.deep.three.h, late.k)\n",
        lab__deep__one="def f():\n    pass\n\ndef unused():\n    pass\n",
        lab__two="def g():\n    pass\n",
        lab__deep__three="def h():\n    pass\n",
        pack__init="print('loaded')\n",
        pack__inner__late="def k():\n    pass\n",
    )
    assert keys == {
        ("main", "work"),
        ("lab.deep.one", "f"),
        ("lab.two", "g"),
        ("lab.deep.three", "h"),
        ("pack", ""),
        ("pack.inner.late", "k"),
    }


@pytest.mark.parametrize(
    "test, runs",
    [
        ("TYPE_CHECKING", False),
        ("typing.TYPE_CHECKING", False),
        ('__name__ == "__main__"', False),
        ("not TYPE_CHECKING", True),
        ("TYPE_CHECKING == False", True),
        ('__name__ != "__main__"', True),
        ('not __name__ == "__main__"', True),
        ("__name__", True),
    ],
)
def test_what_an_import_may_run_counts(tmp_path, test, runs):
    """Catches a body that an import runs and that is left out because its condition holds the word
    of one that never does."""
    text = f"import typing\nfrom typing import TYPE_CHECKING\nif {test}:\n    print(1)\n"
    keys = closure_of(tmp_path, main=f"{text}\ndef work():\n    pass\n")
    assert (("main", "") in keys) == runs


def test_code_behind_a_link_counts_for_what_is_imported_by_a_computed_name(tmp_path):
    """Catches a linked folder of the project that a computed import may load."""
    (tmp_path / "srdd").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.py").write_text("def f():\n    pass\n")
    (tmp_path / "srdd" / "ext").symlink_to(tmp_path / "elsewhere")
    computed = "import importlib\n\ndef work(name):\n    return importlib.import_module(name)\n"
    assert ("srdd.ext.mine", "f") in closure_of(tmp_path, main=computed)


def test_what_cannot_be_followed_counts_whole(tmp_path):
    """Catches a star import, a module that is handed on and a bare statement that make nothing
    stale."""
    keys = closure_of(
        tmp_path,
        main="from star import *\nimport handed\n\ndef work():\n    return a(show(handed))\n\n"
        "def show(module):\n    return vars(module)\n",
        star="def a():\n    pass\n\ndef b():\n    pass\n",
        handed="x = 1\n\ndef y():\n    pass\n\nprint('loaded')\nfor name in ():\n    z = name\n",
    )
    assert {
        ("star", "a"),
        ("star", "b"),
        ("handed", "x"),
        ("handed", "y"),
        ("handed", ""),
        ("main", "show"),
    } <= keys


def test_a_name_that_is_no_definition_is_an_error(tmp_path):
    """Catches a verb without `work` whose hash says nothing."""
    with pytest.raises(KeyError, match="defines no work"):
        closure_of(tmp_path, main="x = 1\n")


# ---------------------------------------------------------------- what really runs


OURS = f"{ROOT}/srdd/", f"{ROOT}/bench/"


class Executed:
    """The code of this project that runs, by file and first line."""

    def __init__(self) -> None:
        self.places: set[tuple[str, int]] = set()

    def __call__(self, frame, event, argument) -> None:
        # a tracer that returns none is told of calls alone: no returns, no calls of C
        code = frame.f_code
        if code.co_filename.startswith(OURS):
            self.places.add((code.co_filename, code.co_firstlineno))

    def __enter__(self):
        self.before = sys.gettrace()
        threading.settrace(self)
        sys.settrace(self)
        return self

    def __exit__(self, *_) -> None:
        sys.settrace(self.before)
        threading.settrace(self.before)


@cache
def definitions(path: str) -> list[tuple[int, int, set[str]]]:
    """First line, last line and names of everything at the top of a file."""
    spans = []
    for node in ast.parse(Path(path).read_text(encoding="utf-8")).body:
        first = min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))])
        names = (
            {node.name}
            if hasattr(node, "name")
            else {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        )
        spans.append((first, node.end_lineno, names))
    return spans


def unseen(executed: Executed, keys) -> set[tuple[str, ...]]:
    """What ran and is not in a closure."""
    missing = set()
    for path, line in executed.places:
        module = (
            str(Path(path).relative_to(ROOT).with_suffix(""))
            .replace("/", ".")
            .removesuffix(".__init__")
        )
        if module in LEAVE_OUT:
            continue
        top = definitions(path)
        names = next((names for first, last, names in top if first <= line <= last), set())
        if not any((module, name) in keys for name in names):
            missing.add((module, *sorted(names)))
    return missing


def chosen(plan) -> list[str]:
    """A job of every kind, one for each set of functions, and what these read, in the order of
    reading."""
    kinds = {}
    for run_id, job in plan.jobs.items():
        own = (
            frozenset(functions_of(job.config))
            if job.stage in ("train", "distill", "sample", "sweep")
            else None
        )
        kinds.setdefault((job.stage, own), run_id)
    order = []

    def take(run_id: str) -> None:
        for needed in plan.jobs[run_id].inputs.values():
            take(needed)
        if run_id not in order:
            order.append(run_id)

    for run_id in kinds.values():
        take(run_id)
    return order


def test_nothing_runs_that_a_hash_does_not_hold(tmp_path, capsys):
    """Catches code that a job runs and its source hash does not see: an edit there would leave
    stale results. Every verb of the smoke study is run, and every function that it enters is looked
    for."""
    plan, project, verbs = load_study(SMOKE), Project(ROOT, LEAVE_OUT), stages()
    for verb in verbs.values():
        importlib.import_module(verb.module)
    missing = {}
    for run_id in chosen(plan):
        job = plan.jobs[run_id]
        verb, config, out = (
            verbs[job.stage],
            tmp_path / "configs" / f"{run_id}.json",
            tmp_path / run_id,
        )
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"study": "smoke", **job.about}))
        inputs = [
            word
            for role, needed in job.inputs.items()
            for word in (f"--{role}", str(tmp_path / needed))
        ]
        work = importlib.import_module(verb.module).work
        with Executed() as executed, pytest.raises(SystemExit) as ended:
            main(
                verb.name,
                work,
                verb.inputs,
                [str(config), str(out), *inputs, "--device", "cpu", "--threads", "1"],
            )
        assert ended.value.code == 0, (run_id, capsys.readouterr().err)
        keys = project.closure(roots_of(verb.name), functions_of(job.config))
        if lost := unseen(executed, keys):
            missing[run_id] = lost
    assert not missing
    assert {run_id.split("/")[0] for run_id in chosen(plan)} >= {
        job.stage for job in plan.jobs.values()
    }


CLAIM = {
    "text": "b is better",
    "origin": "ours",
    "rule": "score",
    "variant": "b",
    "against": "a",
    "metric": "fid",
    "better": "lower",
}


@pytest.mark.parametrize(
    "what, names",
    [("figures", FIGURES), ("tables", ["scores", "claims", "costs", "tokenizer", "latency"])],
)
def test_nothing_draws_that_a_hash_does_not_hold(tmp_path, monkeypatch, what, names):
    """Catches code behind a figure or a table that its hash does not see: an edit there would leave
    an old one."""
    origin = build(tmp_path, ["a", "b"], claims=[CLAIM], **{what: names})
    program = importlib.import_module(PROGRAMS[what])
    for kind in rooms.PREFIXES:
        rooms.shows(kind)
    for name in names:
        rooms.function_of(what, name)  # found and loaded before, so that what runs is what draws
    monkeypatch.setattr(sys, "argv", [what, str(origin), str(tmp_path / what), *names])
    with Executed() as executed:
        program.main()
    keys = Project(ROOT, LEAVE_OUT).closure(roots_of_shows(what, names), [("judge", "score")])
    assert not unseen(executed, keys)
