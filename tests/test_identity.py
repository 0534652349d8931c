"""The law of identity: an addition makes nothing else stale, an edit makes exactly those jobs stale
that use what was edited."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.runtime.closure import Project
from bench.runtime.provenance import (
    LEAVE_OUT,
    roots_of,
    source_of,
    source_of_program,
    source_of_shows,
)
from bench.runtime.verbs import stages
from bench.study.before import TRAININGS
from bench.study.functions import functions_of
from bench.study.plan import load_study
from srdd.lookup import PLACES

ROOT = Path(__file__).resolve().parent.parent
MASK = """

def mask_used(schedule):
    return _helper(schedule)


def _helper(schedule):
    return scale_mask(schedule, 1)
"""


ROOM = "bench/experiments/latency/show.py"


# ---------------------------------------------------------------- the study before and after


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the code with a mask of the user's own, and the digits study with one variant that
    names it."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("srdd", "bench", "workflows"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    add(root / "srdd" / "masks.py", MASK)
    masked = {"base": "var", "delta": {"model.history": None, "model.mask": "used"}}
    study = {
        "study": "copy",
        "like": "digits",
        "suites": {"main": {"variants": {"masked": masked}}},
    }
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
    source_by_name = {
        run_id: source_of(verbs[job.stage].name, job.config, project)
        for run_id, job in plan.jobs.items()
    }
    for suite, about in plan.study.suites.items():
        rules = sorted({claim.rule for claim in about.claims})
        for what in ("figures", "tables"):
            source_by_name[f"{what} of {suite}"] = source_of_shows(
                what, getattr(about, what), rules, project
            )
    return {**source_by_name, "collect": source_of_program("collect", project)}


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


def replacing(old: str, new: str):
    return lambda text: text.replace(old, new)


def other_signature(function: str):
    return replacing(f"def {function}(", f"def {function}(edited, ")


def changed_by(plan, before, copy, tmp_path, file, edit) -> set[str]:
    after = sources(plan, edited(copy, tmp_path, file, edit))
    return {name for name in before if before[name] != after[name]}


def behind(plan, run_ids) -> set[str]:
    """Jobs, and all that read them, directly or not."""
    stale = set(run_ids)
    while (
        more := {run for run, job in plan.jobs.items() if stale & set(job.inputs.values())} - stale
    ):
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
    more = (
        f"\n\ndef {name}(*given):\n    return _more(given)\n\n\ndef _more(given):\n    return 0\n"
    )
    assert changed_by(plan, before, copy, tmp_path, file, lambda text: text + more) == set()


def test_a_function_from_a_file_of_ones_own_makes_nothing_else_stale(plan, before, copy, tmp_path):
    """Catches the same of a mask that is written beside the project and imported."""
    root = edited(
        copy,
        tmp_path,
        "srdd/masks.py",
        lambda text: text.replace("import sys\n", "import sys\n\nfrom mine import mask_mine\n"),
    )
    (root / "mine.py").write_text(
        "def mask_mine(schedule):\n    return half(schedule)\n\n\n"
        "def half(schedule):\n    return 1\n"
    )
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
    "field of the tokenizer training": ("bench/study/tokenizer_settings.py", "TokenizerTraining"),
    "evaluation field": ("bench/study/settings.py", "EvaluationConfig"),
    "dataset field": ("bench/study/settings.py", "DatasetConfig"),
    "field of an extractor": ("bench/study/settings.py", "FeaturesConfig"),
    "field of a room": ("bench/experiments/latency/plan.py", "Settings"),
    "suite field": ("bench/study/schema.py", "Suite"),
}
NAMES = """
import json
from bench.runtime.provenance import source_of
from bench.runtime.verbs import stages
from bench.study.plan import load_study
jobs, verbs = load_study("study.yaml").jobs, stages()
print(json.dumps({run: source_of(verbs[job.stage].name, job.config) for run, job in jobs.items()}))
"""


def planned_by(root: Path) -> dict[str, str]:
    """{run_id: source} as another process plans it with the code below a folder."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", NAMES], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def in_class(text: str, name: str, line: str) -> str:
    """A text with one more line below the docstring of a class."""
    node = next(
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    lines = text.splitlines(keepends=True)
    at = node.body[0].end_lineno
    return "".join([*lines[:at], "\n", line, *lines[at:]])


def test_new_fields_with_defaults_and_a_new_class_rename_nothing_and_make_nothing_stale(
    plan, before, copy, tmp_path
):
    """Catches a setting that retrains all models which do not use it."""
    root = tmp_path / "edited"
    shutil.copytree(copy, root)
    for file, name in SCHEMAS.values():
        path = root / file
        path.write_text(
            in_class(path.read_text(encoding="utf-8"), name, NEW_FIELD), encoding="utf-8"
        )
    add(
        root / "bench/study/settings.py",
        f'\n\nclass FreshConfig(Strict):\n    """New."""\n\n{NEW_FIELD}',
    )
    assert planned_by(root) == {
        name: source for name, source in before.items() if name in plan.jobs
    }


FRESH_ROOM = {
    "__init__": "QUESTION = 'of my own'\n",
    "plan": """
from srdd.config import Strict

from ...study.chain import add_probe

TRAINS = True


class Settings(Strict):
    'What is asked.'

    number: int = 3


def jobs(plan, suite, variants):
    add_probe(plan, suite, variants, "fresh", sampled=False)
""",
    "verb": """
INPUTS = ("data", "tokenizer", "tokens", "train")


def work(run):
    run.add("fresh", 1.0, "share")
""",
    "show": """
def figure_fresh(view):
    pass


def table_fresh(view):
    pass


def judge_fresh(view, one):
    pass
""",
}


def test_a_new_room_renames_nothing_and_makes_nothing_stale(plan, before, copy, tmp_path):
    """Catches a question that cannot be added without running all others again. Only its own folder
    is written."""
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


LITE0 = {
    "kind": "pretrained",
    "name": "lite0_64",
    "network": "efficientnet_lite0",
    "image_size": 64,
}
# one job scores the same images in every extractor: these are made again
IN_EACH = ("sweep", "zero_shot", "error_propagation", "diversity")


def test_one_more_extractor_renames_nothing_and_makes_nothing_stale(plan, before, copy, tmp_path):
    """Catches a study that is trained, sampled or evaluated again because its images are scored in
    one more extractor."""
    root = tmp_path / "edited"
    shutil.copytree(copy, root)
    study = yaml.safe_load((root / "study.yaml").read_text())
    study["features"] = [plan.described()["features"][0], LITE0]
    for key in [key for key, value in study["features"][0].items() if value is None]:
        del study["features"][0][key]
    (root / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    after = planned_by(root)
    known = {name: before[name] for name in plan.jobs}
    kept = {name: source for name, source in known.items() if stage_of(name) not in IN_EACH}
    assert kept.items() <= after.items()
    more = {stage_of(name) for name in after.keys() - known.keys()}
    assert more == {"features", "evaluate", "baselines"} | ({*IN_EACH} & {*map(stage_of, known)})


def stage_of(run_id: str) -> str:
    return run_id.split("/")[0]


@pytest.mark.parametrize("case", SCHEMAS)
def test_a_new_field_in_any_class_makes_nothing_stale(plan, before, copy, tmp_path, case):
    """Catches the one class whose fields count as a whole."""
    file, name = SCHEMAS[case]
    assert (
        changed_by(plan, before, copy, tmp_path, file, lambda text: in_class(text, name, NEW_FIELD))
        == set()
    )


# ---------------------------------------------------------------- edits


def of_stages(plan, *names):
    return {run_id for run_id, job in plan.jobs.items() if job.stage in names}


def test_an_edited_mask_makes_its_trainings_stale_and_what_follows(plan, before, copy, tmp_path):
    """Catches a mask whose edit leaves its trainings, or throws away those of others; also in a
    function that it calls."""
    mine = {
        run
        for run in of_stages(plan, "train", "distill")
        if plan.jobs[run].config["model"].get("mask") == "used"
    }
    assert mine
    edit = replacing("scale_mask(schedule, 1)", "scale_mask(schedule, 2)")
    changed = changed_by(plan, before, copy, tmp_path, "srdd/masks.py", edit)
    assert mine <= changed <= behind(plan, mine) | {"collect"}
    assert behind(plan, changed) == behind(plan, mine)


def test_edited_attention_makes_all_trainings_stale_and_nothing_before(
    plan, before, copy, tmp_path
):
    """Catches an edit of the network that leaves old weights in use."""
    block = "attention" if (ROOT / "srdd/attention.py").exists() else "transformer"
    edit = replacing("class Attention(nn.Module):", "class Attention(nn.Module, edited=1):")
    changed = changed_by(plan, before, copy, tmp_path, f"srdd/{block}.py", edit)
    assert of_stages(plan, "train", "distill", "regress", "restore", "latency") <= changed
    assert not changed & of_stages(
        plan, "prepare", "tokenizer", "features", "encode", "snr", "evaluate", "baselines"
    )
    assert not [name for name in changed if name not in plan.jobs]


def test_an_edited_score_makes_stale_what_scores(plan, before, copy, tmp_path):
    """Catches an edited FID beside old numbers, and one that trains anything again."""
    edit = other_signature("metric_fidelity")
    changed = changed_by(plan, before, copy, tmp_path, "bench/pipeline/metrics.py", edit)
    asking = {
        run for run, job in plan.jobs.items() if ("metric", "fidelity") in functions_of(job.config)
    }
    assert changed == asking - of_stages(plan, "sample", "memorisation")
    assert changed


def test_one_more_score_draws_no_image_again(tmp_path):
    """Catches images that are named by what is asked of them: a metric that a user adds would draw
    every image of the study again."""
    asked = ["fidelity", "density_coverage", "class_agreement", "pixels"]
    plans = []
    for metrics in (asked, [*asked, "classification_accuracy"]):
        path = tmp_path / f"with{len(metrics)}.yaml"
        study = {"study": "mine", "like": "fashion32", "evaluation": {"metrics": metrics}}
        copies = {"measure": ["memorisation"], "variants": {"one": {"base": "var"}}}
        study["suites"] = {"copies": {"claim": "samples are copies", **copies}}
        path.write_text(yaml.safe_dump(study), encoding="utf-8")
        plans.append(load_study(path))
    fewer, more = plans
    drawing = ("sample", "memorisation", "adaptation", "classify")
    assert of_stages(fewer, *drawing) == of_stages(more, *drawing)
    assert {fewer.jobs[run].stage for run in of_stages(fewer, *drawing)} == set(drawing)
    assert of_stages(fewer, "evaluate") != of_stages(more, "evaluate")


def test_an_edited_rule_makes_stale_what_refines_by_it(plan, before, copy, tmp_path):
    """Catches a rule that counts for samplers which do not refine, as the default of all of
    them."""
    edit = other_signature("select_static")
    changed = changed_by(plan, before, copy, tmp_path, PLACES["select"], edit)
    assert changed
    for run_id in changed:
        assert "static" in json.dumps(plan.jobs[run_id].config), run_id
    edit = other_signature("select_threshold")
    again = changed_by(plan, before, copy, tmp_path / "again", PLACES["select"], edit)
    assert again and not any(plan.jobs[run].config.get("sampler") == {} for run in again)


def test_an_edited_degradation_makes_stale_what_it_degrades(plan, before, copy, tmp_path):
    """Catches a degradation whose edit leaves old restorations, or classifications made anew."""
    edit = other_signature("degrade_noise")
    changed = changed_by(plan, before, copy, tmp_path, "srdd/degradation.py", edit)
    assert changed == of_stages(plan, "restore", "restoration", "restoration_baselines")


def test_an_edited_figure_makes_its_own_suites_stale(plan, before, copy, tmp_path):
    """Catches a figure that is not drawn again, and others that are."""
    edit = other_signature("figure_latency")
    places = (ROOT / "bench").rglob("*.py")
    file = next(
        path for path in places if "def figure_latency(" in path.read_text(encoding="utf-8")
    )
    changed = changed_by(plan, before, copy, tmp_path, str(file.relative_to(ROOT)), edit)
    assert changed == {
        f"figures of {name}"
        for name, suite in plan.study.suites.items()
        if "latency" in suite.figures
    }


def test_a_changed_default_makes_stale_what_reads_it(plan, before, copy, tmp_path):
    """Catches a default that is changed where names leave it out: the same name, other numbers."""
    edit = lambda text: re.sub(r"(beta2: BelowOne = \D*)0\.95", r"\g<1>0.96", text)  # noqa: E731
    changed = changed_by(plan, before, copy, tmp_path, "bench/study/settings.py", edit)
    assert changed == of_stages(plan, *TRAININGS)


def test_prose_makes_nothing_stale(plan, before, copy, tmp_path):
    """Catches trainings thrown away for a polished sentence."""
    root = tmp_path / "edited"
    shutil.copytree(copy, root)
    for path in [*root.glob("srdd/*.py"), *root.glob("bench/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'description="\w', 'description="Said better: ', text).replace(
            '"""', '""" Better. ', 1
        )
        path.write_text(text + "\n# a comment\n", encoding="utf-8")
    assert sources(plan, root) == before
