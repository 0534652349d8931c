"""Rules of refinement and their settings: what a function says is what a study may set; rows of
older versions."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.study.errors import ConfigError
from bench.study.plan import load_study
from srdd import lookup
from srdd.config import SamplerConfig

ROOT = Path(__file__).resolve().parent.parent
RULE = '''

def select_even(
    drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig, *,
    step: Positive = 2, above: Chance = 0.5,
) -> torch.Tensor:
    """Redraw every step-th position whose number is above a bound."""
    place_l = torch.arange(drawn.open_Bl.shape[1])
    chosen_Bl = (place_l % step == 0) & (uniform_Bl > above)
    print("STEP", step, "ABOVE", above)
    return chosen_Bl & ~drawn.fixed_Bl
'''
STUDY = """
import json, sys
from bench.study.errors import ConfigError
from bench.study.plan import load_study
try:
    plan = load_study(sys.argv[1])
except ConfigError as error:
    sys.exit(str(error))
samplers = [about["settings"]["sampler"]["select"] for about in plan.identities["main"].values()]
print(json.dumps(samplers))
assert "torch" not in sys.modules
"""
USE = """
import torch
from srdd.config import ModelConfig, SamplerConfig
from srdd.cost import tiny_network
from srdd.sampling import generate
model = ModelConfig(patch_nums=(1, 2), codebook_size=5, codebook_dim=2, num_classes=2, history=0,
                    mask_prob=0.5)
network, ladder = tiny_network(model)
rule = {"name": "even", "step": 1, "above": 0.25}
config = SamplerConfig(name="srdd", refine_steps=1, select=rule)
generate(network, ladder, torch.tensor([0]), [0], config)
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the project whose select.py alone has one rule more."""
    root = tmp_path_factory.mktemp("project")
    for name in ("srdd", "bench", "tests/studies"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    file = root / "srdd" / "select.py"
    file.write_text(file.read_text() + RULE)
    return root


def run(root, code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def study_with(root, select):
    text = (root / "tests/studies/smoke.yaml").read_text()
    mr = "sampler.name: srdd, sampler.refine_steps: 1, sampler.select: " + json.dumps(select)
    delta = f"{{model.history: 0, model.mask_prob: 0.5, {mr}}}"
    line = "      MINE: {base: var, delta: " + delta + "}\n"
    at = text.index("      SDD: {base")
    file = root / "mine.yaml"
    file.write_text(text[:at] + line + text[at:])
    return file


@pytest.mark.parametrize(
    "select, words",
    [
        ("even", {"name": "even", "step": 2, "above": 0.5}),
        ({"name": "even", "step": 3}, {"name": "even", "step": 3, "above": 0.5}),
        (
            {"name": "even", "stp": 3},
            ["unknown setting of select even 'stp'", "did you mean 'step'"],
        ),
        (
            {"name": "even", "step": 0},
            ["sampler.select.step", "greater than or equal to 1", "got 0"],
        ),
        ({"name": "even", "above": "x"}, ["sampler.select.above", "valid number", "got 'x'"]),
    ],
)
def test_a_rule_in_one_file_is_planned_or_refused(copied, select, words):
    """Catches a second place where a setting of a rule has to be declared, and a bad setting that
    is found only when images are drawn."""
    done = run(copied, STUDY, study_with(copied, select))
    if isinstance(words, dict):
        assert done.returncode == 0, done.stderr
        assert words in json.loads(done.stdout)
    else:
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert all(word in done.stderr for word in ("MINE", *words)), done.stderr


def test_a_rule_in_one_file_is_used(copied):
    """Catches settings of a rule that are planned and never reach it."""
    done = run(copied, USE)
    assert done.returncode == 0, done.stderr
    assert "STEP 1 ABOVE 0.25" in done.stdout


@pytest.mark.parametrize(
    "parameter, words",
    [
        ("step=2", "step: write it as `step: Kind = default`"),
        ("step: Positive", "step: write it as `step: Kind = default`"),
        ("step: Positive = len('ab')", "step: the default"),
        ("step: Chanse = 0.5", "unknown kind of setting 'Chanse'; did you mean 'Chance'"),
    ],
)
def test_a_setting_needs_a_kind_and_a_default(tmp_path, monkeypatch, parameter, words):
    """Catches a rule whose settings cannot be checked, and a traceback instead of one line."""
    file = tmp_path / "select.py"
    file.write_text(f"def select_mine(drawn, uniform_Bl, config, *, {parameter}):\n    return 1\n")
    monkeypatch.setattr("srdd.rules.RULES", file)
    with pytest.raises(ValueError, match="select_mine: ") as error:
        SamplerConfig(select={"name": "mine"})
    assert words in str(error.value)


def test_a_function_that_is_not_there_has_no_settings(tmp_path):
    (tmp_path / "select.py").write_text("from other import select_mine\n")
    assert lookup.knobs_of(tmp_path / "select.py", "select_mine") == {}


# ---------------------------------------------------------------- what a study says of rules

OWN_SUITE = """
study: rules
like: digits
take: [main, tuning]
suites:
  own:
    claim: c
    variants:
      A: {}
      B: {{base: srdd}}
"""


@pytest.fixture
def plan_of(tmp_path):
    """The plan of a study whose variant A of suite own is an entry."""

    def plan(entry):
        path = tmp_path / "rules.yaml"
        path.write_text(OWN_SUITE.format(entry))
        return load_study(path)

    return plan


def test_a_rule_without_its_name_is_refused(plan_of):
    """Catches settings meant for the base's rule that silently become those of the default one."""
    words = r"A\.delta\.sampler\.select: has no name.*p_resample: 0\.1"
    with pytest.raises(ConfigError, match=words):
        plan_of("{base: srdd, delta: {sampler.select: {p_resample: 0.1}}}")


def test_only_confidences_are_names_of_confidences(plan_of):
    """Catches a helper of srdd/select.py that a study may name, and that fails after training."""
    with pytest.raises(ConfigError, match=r"unknown name 'of' \(there are: drawn, entropy, peak\)"):
        plan_of("{base: srdd, delta: {sampler.select: {name: static, confidence: of}}}")


@pytest.mark.parametrize("base, idle", [("sdd", True), ("srdd", False)])
def test_a_grid_that_nothing_reads_is_said(plan_of, base, idle):
    """Catches variants that a grid asks for and that vanish without a word."""
    delta = "" if idle else "delta: {sampler.select: threshold}, "
    plan = plan_of(f"{{base: {base}, {delta}grid: {{sampler.select.p_resample: [0.1, 0.2]}}}}")
    assert len(plan.identities["own"]) == (2 if idle else 3)
    key = "own.variants.A.grid.sampler.select.p_resample"
    assert any(key in line for line in plan.warnings) == idle
