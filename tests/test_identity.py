"""The law of identity: an addition makes nothing else stale, an edit makes exactly those jobs stale that use what was edited."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from small_study import FIGURES, build

from bench.runtime.closure import Project
from bench.runtime.provenance import (
    LEAVE_OUT,
    roots_of,
    roots_of_shows,
    source_of,
    source_of_program,
    source_of_shows,
)
from bench.runtime.source_text import bare, code_digest
from bench.runtime.verb import main
from bench.runtime.verbs import PROGRAMS, stages
from bench.study import rooms
from bench.study.functions import functions_of
from bench.study.names import dump
from bench.study.plan import load_study
from bench.study.settings import DatasetConfig, TrainingConfig
from srdd.config import ModelConfig, SamplerConfig
from srdd.lookup import PLACES

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "workflows" / "config" / "digits.yaml"
SMOKE = ROOT / "tests" / "studies" / "smoke.yaml"
MASK = "\n\ndef mask_used(schedule):\n    return _helper(schedule)\n\n\ndef _helper(schedule):\n    return scale_mask(schedule, 1)\n"


ROOM = "bench/experiments/latency/show.py"


# ---------------------------------------------------------------- the study before and after


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the code with a mask of the user's own, and the digits study with one variant that names it."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("srdd", "bench"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    add(root / "srdd" / "masks.py", MASK)
    study = yaml.safe_load(DIGITS.read_text(encoding="utf-8"))
    main = study["suites"]["main"]["variants"]
    base = next(iter(main.values()))["base"]
    main["masked"] = {"base": base, "delta": {"model.history": None, "model.mask": "used"}}
    (root / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return root


def add(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


@pytest.fixture(scope="module")
def plan(copy):
    """The plan of the copy's study, made by this process with the mask that the copy has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.study.resolve.ROOT", copy)
        return load_study(copy / "study.yaml")


def sources(plan, root: Path) -> dict[str, str]:
    """The source hash of every job and every show of a plan, by the code below a folder."""
    project, verbs = Project(root, LEAVE_OUT), stages()
    found = {run_id: source_of(verbs[job.stage].name, job.config, project) for run_id, job in plan.jobs.items()}
    for suite, about in plan.study.suites.items():
        rules = sorted({claim.rule for claim in about.claims})
        for what in ("figures", "tables"):
            found[f"{what} of {suite}"] = source_of_shows(what, getattr(about, what), rules, project)
    return {**found, "collect": source_of_program("collect", project)}


@pytest.fixture(scope="module")
def before(plan, copy):
    return sources(plan, copy)


def edited(copy: Path, tmp_path: Path, file: str, edit) -> Path:
    """Another copy in which one file is edited."""
    root = tmp_path / "edited"
    shutil.copytree(copy, root)
    path = root / file
    text = path.read_text(encoding="utf-8")
    changed = edit(text)
    assert changed != text, "nothing was edited"
    path.write_text(changed, encoding="utf-8")
    ast.parse(changed)
    return root


def changed_by(plan, before, copy, tmp_path, file, edit) -> set[str]:
    after = sources(plan, edited(copy, tmp_path, file, edit))
    return {name for name in before if before[name] != after[name]}


def behind(plan, run_ids) -> set[str]:
    """Jobs, and all that read them, directly or not."""
    stale = set(run_ids)
    while more := {run for run, job in plan.jobs.items() if stale & set(job.inputs.values())} - stale:
        stale |= more
    return stale


# ---------------------------------------------------------------- additions

FUNCTIONS = {
    **{prefix: (file, f"{prefix}_fresh") for prefix, file in PLACES.items()},
    "terms": ("srdd/diffusion.py", "terms_fresh"),
    "loader": ("bench/pipeline/datasets.py", "load_fresh"),
    "metric": ("bench/pipeline/metrics.py", "metric_fresh"),
    "arm": ("bench/pipeline/distill.py", "arm_fresh"),
    "figure": (ROOM, "figure_fresh"),
    "table": (ROOM, "table_fresh"),
    "rule of claims": (ROOM, "judge_fresh"),
    "helper": ("srdd/transformer.py", "helper"),
}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_new_function_makes_nothing_else_stale(plan, before, copy, tmp_path, what):
    """Catches a study that is trained again because somebody added a mask, a metric, a figure."""
    file, name = FUNCTIONS[what]
    more = f"\n\ndef {name}(*given):\n    return _fresh_helper(given)\n\n\ndef _fresh_helper(given):\n    return 0\n"
    assert changed_by(plan, before, copy, tmp_path, file, lambda text: text + more) == set()


def test_a_function_from_a_file_of_ones_own_makes_nothing_else_stale(plan, before, copy, tmp_path):
    """Catches the same of a mask that is written beside the project and imported."""
    root = edited(copy, tmp_path, "srdd/masks.py", lambda text: text.replace("import sys\n", "import sys\n\nfrom mine import mask_mine\n"))
    (root / "mine.py").write_text("def mask_mine(schedule):\n    return half(schedule)\n\n\ndef half(schedule):\n    return 1\n")
    assert sources(plan, root) == before
    project, named = Project(root, LEAVE_OUT), [("mask", "mine")]
    keys = project.closure(roots_of("train"), named)
    assert {("mine", "mask_mine"), ("mine", "half")} <= keys


NEW_FIELD = "    fresh_setting: float = Field(0.5, ge=0)\n"
SCHEMAS = {
    "model field": ("srdd/config.py", "ModelConfig"),
    "sampler field": ("srdd/config.py", "SamplerConfig"),
    "tokenizer field": ("srdd/config.py", "TokenizerConfig"),
    "training field": ("bench/study/settings.py", "TrainingConfig"),
    "evaluation field": ("bench/study/settings.py", "EvaluationConfig"),
    "dataset field": ("bench/study/settings.py", "DatasetConfig"),
    "field of a room": ("bench/experiments/latency/plan.py", "Settings"),
    "suite field": ("bench/study/schema.py", "Suite"),
}
NAMES = (
    "import json; from bench.study.plan import load_study; from bench.runtime.provenance import source_of;"
    "from bench.runtime.verbs import PROGRAMS, stages; jobs = load_study('study.yaml').jobs; verbs = stages();"
    "print(json.dumps({run_id: source_of(verbs[job.stage].name, job.config) for run_id, job in jobs.items()}))"
)


def planned_by(root: Path) -> dict[str, str]:
    """{run_id: source} as another process plans it with the code below a folder."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", NAMES], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def in_class(text: str, name: str, line: str) -> str:
    """A text with one more line below the docstring of a class."""
    node = next(node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name)
    lines = text.splitlines(keepends=True)
    at = node.body[0].end_lineno
    return "".join([*lines[:at], "\n", line, *lines[at:]])


def test_new_fields_with_defaults_and_a_new_class_rename_nothing_and_make_nothing_stale(plan, before, copy, tmp_path):
    """Catches a setting that retrains all models which do not use it."""
    root = tmp_path / "edited"
    shutil.copytree(copy, root)
    for file, name in SCHEMAS.values():
        path = root / file
        path.write_text(in_class(path.read_text(encoding="utf-8"), name, NEW_FIELD), encoding="utf-8")
    add(root / "bench/study/settings.py", f'\n\nclass FreshConfig(Strict):\n    """New."""\n\n{NEW_FIELD}')
    assert planned_by(root) == {name: source for name, source in before.items() if name in plan.jobs}


FRESH_ROOM = {
    "__init__": '"""A question of one\'s own."""\n',
    "plan": "from srdd.config import Strict\n\nfrom ...study.chain import add_probe\n\nTRAINS = True\n\n\nclass Settings(Strict):\n"
    '    """What is asked."""\n\n    number: int = 3\n\n\ndef jobs(plan, suite, variants):\n'
    '    add_probe(plan, suite, variants, "fresh", sampled=False)\n',
    "verb": '"""Verb: ask."""\n\nINPUTS = ("data", "tokenizer", "tokens", "train")\n\n\ndef work(run):\n    run.add("fresh", 1.0, "share")\n',
    "show": "def figure_fresh(view):\n    pass\n\n\ndef table_fresh(view):\n    pass\n\n\ndef judge_fresh(view, one):\n    pass\n",
}


def test_a_new_room_renames_nothing_and_makes_nothing_stale(plan, before, copy, tmp_path):
    """Catches a question that cannot be added without running all others again. Only its own folder is written."""
    root = tmp_path / "edited"
    shutil.copytree(copy, root)
    for name, text in FRESH_ROOM.items():
        path = root / "bench/experiments/fresh" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert sources(plan, root) == before
    known = {name: source for name, source in before.items() if name in plan.jobs}
    assert planned_by(root) == known
    study = yaml.safe_load((root / "study.yaml").read_text())
    study["suites"]["main"]["measure"] = ["scores", "fresh"]
    study["suites"]["main"]["fresh"] = {"number": 4}
    (root / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    after = planned_by(root)
    assert {run: source for run, source in after.items() if not run.startswith("fresh/")} == known
    assert len(after) > len(known)


@pytest.mark.parametrize("case", SCHEMAS)
def test_a_new_field_in_any_class_makes_nothing_stale(plan, before, copy, tmp_path, case):
    """Catches the one class whose fields count as a whole."""
    file, name = SCHEMAS[case]
    assert changed_by(plan, before, copy, tmp_path, file, lambda text: in_class(text, name, NEW_FIELD)) == set()


# ---------------------------------------------------------------- edits


def of_stages(plan, *names):
    return {run_id for run_id, job in plan.jobs.items() if job.stage in names}


def test_an_edited_mask_makes_its_trainings_stale_and_what_follows(plan, before, copy, tmp_path):
    """Catches a mask whose edit leaves its trainings, or throws away those of others; also in a function that it calls."""
    mine = {run for run in of_stages(plan, "train", "distill") if plan.jobs[run].config["model"].get("mask") == "used"}
    assert mine
    edit = lambda text: text.replace("scale_mask(schedule, 1)", "scale_mask(schedule, 2)")  # noqa: E731
    changed = changed_by(plan, before, copy, tmp_path, "srdd/masks.py", edit)
    assert mine <= changed <= behind(plan, mine) | {"collect"}
    assert behind(plan, changed) == behind(plan, mine)


def test_edited_attention_makes_all_trainings_stale_and_nothing_before(plan, before, copy, tmp_path):
    """Catches an edit of the network that leaves old weights in use."""
    block = "attention" if (ROOT / "srdd/attention.py").exists() else "transformer"
    edit = lambda text: re.sub(r"(class Attention\(nn\.Module\):\n)", r"\1    edited = 1\n", text)  # noqa: E731
    changed = changed_by(plan, before, copy, tmp_path, f"srdd/{block}.py", edit)
    assert of_stages(plan, "train", "distill", "latency") <= changed
    assert not changed & of_stages(plan, "prepare", "tokenizer", "features", "encode", "snr", "evaluate", "baselines")
    assert not [name for name in changed if name not in plan.jobs]


def test_an_edited_score_makes_stale_what_scores(plan, before, copy, tmp_path):
    """Catches an edited FID beside old numbers, and one that trains anything again."""
    edit = lambda text: text.replace("def metric_fidelity(scored: Scored) -> dict[str, float]:\n", "def metric_fidelity(scored: Scored, edited=1):\n")  # noqa: E731
    changed = changed_by(plan, before, copy, tmp_path, "bench/pipeline/metrics.py", edit)
    asking = {run for run, job in plan.jobs.items() if ("metric", "fidelity") in functions_of(job.config)}
    assert changed == asking - of_stages(plan, "sample")
    assert changed


def test_an_edited_rule_makes_stale_what_refines_by_it(plan, before, copy, tmp_path):
    """Catches a rule that counts for samplers which do not refine, as the default of all of them."""
    edit = lambda text: re.sub(r"(def select_static\([^)]*)", r"\1, edited=1", text)  # noqa: E731
    changed = changed_by(plan, before, copy, tmp_path, PLACES["select"], edit)
    assert changed
    for run_id in changed:
        assert "static" in json.dumps(plan.jobs[run_id].config), run_id
    edit = lambda text: re.sub(r"(def select_threshold\([^)]*)", r"\1, edited=1", text)  # noqa: E731
    again = changed_by(plan, before, copy, tmp_path / "again", PLACES["select"], edit)
    assert again and not any(plan.jobs[run].config.get("sampler") == {} for run in again)


def test_an_edited_figure_makes_its_own_suites_stale(plan, before, copy, tmp_path):
    """Catches a figure that is not drawn again, and others that are."""
    edit = lambda text: re.sub(r"(def figure_latency\([^)]*)", r"\1, edited=1", text)  # noqa: E731
    places = (ROOT / "bench").rglob("*.py")
    file = next(path for path in places if "def figure_latency(" in path.read_text(encoding="utf-8"))
    changed = changed_by(plan, before, copy, tmp_path, str(file.relative_to(ROOT)), edit)
    assert changed == {f"figures of {name}" for name, suite in plan.study.suites.items() if "latency" in suite.figures}


def test_a_changed_default_makes_stale_what_reads_it(plan, before, copy, tmp_path):
    """Catches a default that is changed where names leave it out: the same name, other numbers."""
    edit = lambda text: text.replace("    beta2: BelowOne = 0.95\n", "    beta2: BelowOne = 0.96\n")  # noqa: E731
    changed = changed_by(plan, before, copy, tmp_path, "bench/study/settings.py", edit)
    assert changed == of_stages(plan, "train", "distill")


def test_prose_makes_nothing_stale(plan, before, copy, tmp_path):
    """Catches trainings thrown away for a polished sentence."""
    root = tmp_path / "edited"
    shutil.copytree(copy, root)
    for path in [*root.glob("srdd/*.py"), *root.glob("bench/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'description="\w', 'description="Said better: ', text).replace('"""', '""" Better. ', 1)
        path.write_text(text + "\n# a comment\n", encoding="utf-8")
    assert sources(plan, root) == before


# ---------------------------------------------------------------- names


def test_a_setting_at_its_default_has_no_part_in_a_name():
    """Catches a value that is written out, equal to its default, and makes another job; one that is lost; and one that is not read back."""
    assert dump(TrainingConfig()) == dump(TrainingConfig(steps=400, warmup=20, beta1=0.9))
    assert dump(TrainingConfig(steps=30)) != dump(TrainingConfig())
    for settings in (
        TrainingConfig(steps=30, corruption="uniform", eps=0.1),
        SamplerConfig(name="srdd", refine_scales=(1, 2), select="static"),
        ModelConfig(patch_nums=(1, 2), history=0, class_dropout=0.0),
        DatasetConfig(name="digits", image_size=8, channels=1, num_classes=10, background=(1, 2, 3)),
    ):
        assert type(settings).model_validate_json(json.dumps(dump(settings))) == settings


def test_functions_that_a_config_names():
    """Catches a function that counts for jobs which cannot ask it, and one that does not count, as the default of a rule."""
    named = {
        "sampler": {"name": "srdd", "refine_steps": 1, "select": "lowest", "cfg_scale": 2.0},
        "samplers": [{"name": "x", "sampler": {"cfg_ramp": "constant"}}],
        "tokenizer": {"training": {"steps": 3}},
        "model": {"patch_nums": [1], "mask": "mine"},
        "equivalence": {},
        "evaluation": {"metrics": ["pixels"]},
    }
    assert functions_of(named) == {
        ("sample", "srdd"), ("sample", "var"), ("select", "lowest"), ("confidence", "drawn"), ("ramp", "linear"), ("mask", "mine"),
        ("corrupt", "uniform"), ("corrupt", "absorb"), ("terms", "uniform"), ("terms", "absorb"), ("metric", "pixels"),
    }  # fmt: skip
    own = functions_of({"sampler": {"name": "mine"}})
    assert {("ramp", "linear"), ("select", "threshold"), ("sample", "mine")} <= own


def test_every_lookup_by_name_is_named_by_a_setting():
    """Catches a new kind of function that is found by name and that no field of the settings says: its edits would make nothing
    stale."""
    config = {
        **{key: {} for key in ("sampler", "training", "evaluation", "equivalence")},
        "sampler": {"name": "srdd", "refine_steps": 1, "select": "static", "cfg_scale": 2.0},
        "model": {"patch_nums": [1], "mask": "mine"},
        "distill": {"arm": "real", "num_samples": 1, "teacher": {"model": {"patch_nums": [1]}, "training": None, "sampler": {}}},
        "dataset": {"name": "digits", "image_size": 8, "channels": 1, "num_classes": 10},
    }
    project, verbs = Project(ROOT, LEAVE_OUT), stages().values()
    lookups = set()
    for verb in verbs:
        for key in project.closure(roots_of(verb.name), functions_of(config)):
            lookups |= project.used_by(key)[2]
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
    """Catches a use that is not seen: re-exported, in a package, by another name, inside a function, as a default, as a base."""
    keys = closure_of(
        tmp_path,
        main="from pack import again as f\nimport pack.other as o\n\ndef work(x=SIDE):\n    from late import g\n    return f(o.h(g))\nSIDE = 3\n",
        pack__init="from .inner import again\n",
        pack__inner="class Base:\n    pass\n\nclass again(Base):\n    pass\n\ndef unused():\n    pass\n",
        pack__other="import main\n\ndef h(x):\n    return main.helper\n",
        late="def g():\n    return g2()\n\ndef g2():\n    pass\n",
    )
    # main.helper is not there: all of main
    assert keys == {
        ("main", "work"), ("main", "SIDE"), ("pack.inner", "Base"), ("pack.inner", "again"), ("pack.other", "h"), ("late", "g"),
        ("late", "g2"),
    }  # fmt: skip


def test_what_cannot_be_followed_counts_whole(tmp_path):
    """Catches a star import, a module that is handed on and a bare statement that make nothing stale."""
    keys = closure_of(
        tmp_path,
        main="from star import *\nimport handed\n\ndef work():\n    return a(show(handed))\n\ndef show(module):\n    return vars(module)\n",
        star="def a():\n    pass\n\ndef b():\n    pass\n",
        handed="x = 1\n\ndef y():\n    pass\n\nprint('loaded')\nfor name in ():\n    z = name\n",
    )
    assert {("star", "a"), ("star", "b"), ("handed", "x"), ("handed", "y"), ("handed", ""), ("main", "show")} <= keys


def test_a_name_that_is_no_definition_is_an_error(tmp_path):
    """Catches a verb without `work` whose hash says nothing."""
    with pytest.raises(KeyError, match="defines no work"):
        closure_of(tmp_path, main="x = 1\n")


# ---------------------------------------------------------------- what really runs


class Executed:
    """The code of this project that runs, by file and first line."""

    def __init__(self) -> None:
        self.places: set[tuple[str, int]] = set()

    def __call__(self, frame, event, argument) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith((f"{ROOT}/srdd/", f"{ROOT}/bench/")):
            self.places.add((code.co_filename, code.co_firstlineno))

    def __enter__(self):
        threading.setprofile(self)
        sys.setprofile(self)
        return self

    def __exit__(self, *_) -> None:
        sys.setprofile(None)
        threading.setprofile(None)


def definitions(path: str) -> list[tuple[int, int, set[str]]]:
    """First line, last line and names of everything at the top of a file."""
    found = []
    for node in ast.parse(Path(path).read_text(encoding="utf-8")).body:
        first = min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))])
        names = {node.name} if hasattr(node, "name") else {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        found.append((first, node.end_lineno, names))
    return found


def unseen(executed: Executed, keys) -> set[tuple[str, ...]]:
    """What ran and is not in a closure."""
    missing, files = set(), {}
    for path, line in executed.places:
        module = str(Path(path).relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        if module in LEAVE_OUT:
            continue
        top = files.setdefault(path, definitions(path))
        names = next((names for first, last, names in top if first <= line <= last), set())
        if not any((module, name) in keys for name in names):
            missing.add((module, *sorted(names)))
    return missing


def chosen(plan) -> list[str]:
    """A job of every kind, one for each set of functions, and what these read, in the order of reading."""
    kinds = {}
    for run_id, job in plan.jobs.items():
        own = frozenset(functions_of(job.config)) if job.stage in ("train", "distill", "sample", "sweep") else None
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
    """Catches code that a job runs and its source hash does not see: an edit there would leave stale results. Every verb of the smoke
    study is run, and every function that it enters is looked for."""
    plan, project, verbs = load_study(SMOKE), Project(ROOT, LEAVE_OUT), stages()
    for verb in verbs.values():
        importlib.import_module(verb.module)
    missing = {}
    for run_id in chosen(plan):
        job = plan.jobs[run_id]
        verb, config, out = verbs[job.stage], tmp_path / "configs" / f"{run_id}.json", tmp_path / run_id
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"study": "smoke", **job.about}))
        inputs = [word for role, needed in job.inputs.items() for word in (f"--{role}", str(tmp_path / needed))]
        work = importlib.import_module(verb.module).work
        with Executed() as executed, pytest.raises(SystemExit) as ended:
            main(verb.name, work, verb.inputs, [str(config), str(out), *inputs, "--device", "cpu", "--threads", "1"])
        assert ended.value.code == 0, (run_id, capsys.readouterr().err)
        keys = project.closure(roots_of(verb.name), functions_of(job.config))
        if lost := unseen(executed, keys):
            missing[run_id] = lost
    assert not missing
    assert {run_id.split("/")[0] for run_id in chosen(plan)} >= {job.stage for job in plan.jobs.values()}


CLAIM = {
    "text": "b is better", "origin": "ours", "rule": "score", "variant": "b", "against": "a", "metric": "fid", "better": "lower",
}  # fmt: skip


@pytest.mark.parametrize("what, names", [("figures", FIGURES), ("tables", ["scores", "claims", "costs", "tokenizer", "latency"])])
def test_nothing_draws_that_a_hash_does_not_hold(tmp_path, monkeypatch, what, names):
    """Catches code behind a figure or a table that its hash does not see: an edit there would leave an old one."""
    origin = build(tmp_path, ["a", "b"], claims=[CLAIM], **{what: names})
    program = importlib.import_module(PROGRAMS[what])
    for name in names:
        rooms.function_of(what, name)  # loaded before, so that what runs is what draws
    monkeypatch.setattr(sys, "argv", [what, str(origin), str(tmp_path / what), *names])
    with Executed() as executed:
        program.main()
    keys = Project(ROOT, LEAVE_OUT).closure(roots_of_shows(what, names), [("judge", "score")])
    assert not unseen(executed, keys)
