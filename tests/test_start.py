"""What a job imports before it works: each case in a process of its own,
which has imported nothing yet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.runtime.quick_start import compiles

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "word, words",
    [
        ("--confg", "unrecognized arguments: --confg; did you mean --config?"),
        ("--confgfile=x", "unrecognized arguments: --confgfile=x; did you mean --configfile?"),
        ("--zzz=1", "unrecognized arguments: --zzz=1 ("),
        ("--executor", "argument --executor/-e: expected one argument ("),
    ],
)
def test_a_mistyped_option_gets_one_line(word, words):
    """Catches all options of snakemake on a screen, over a last line that helps nobody; and an
    option that is right, and asked whether it was meant."""
    command = [sys.executable, "-m", "bench.runtime.planner", word]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {words}")
    assert done.stderr.count("\n") == 1


def python(code: str, **variables: str) -> str:
    """What a fresh Python prints for some lines."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


STEPS = """
import sys, torch
from bench.runtime.quick_start import spare_compiler
if {spared}: spare_compiler()
torch.manual_seed(0)
net = torch.nn.Linear(3, 2)
optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
for step in range(3):
    net(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
weights = [value.hex() for value in net.weight.flatten().tolist()]
print(weights, "torch._dynamo.utils" in sys.modules)
"""


def test_an_optimizer_takes_the_same_steps_without_the_compiler():
    """Catches a stand-in that changes a training, or one that stands for nothing."""
    spared, whole = (python(STEPS.format(spared=spared)).rsplit(" ", 1) for spared in (True, False))
    assert spared[0] == whole[0] and (spared[1], whole[1]) == ("False", "True")


def test_the_compiler_comes_when_it_is_asked_for():
    """Catches a compiled training that meets the stand-in,
    and a part of the compiler that is there twice."""
    compiled = python(
        "import sys, torch\nfrom bench.runtime.quick_start import "
        "spare_compiler\nspare_compiler()\n"
        "double = torch.compile(lambda x: 2 * x, backend='eager')\n"
        "print(double(torch.ones(2)).tolist(), torch._dynamo is sys.modules['torch._dynamo'], "
        "torch._dynamo.__file__)"
    )
    assert compiled.startswith("[2.0, 2.0] True /")
    parts = python(
        "import sys\nfrom bench.runtime.quick_start import spare_compiler\nspare_compiler()\n"
        "import torch._dynamo.utils as utils\nfrom torch._dynamo import config\n"
        "import torch\nprint(utils is torch._dynamo.utils is sys.modules['torch._dynamo.utils'], "
        "config is torch._dynamo.config)"
    )
    assert parts == "True True"


def test_a_job_that_compiles_meets_no_stand_in():
    """Catches a setting that is found in no depth, or for a word that is no setting."""
    assert compiles({"training": {"compile": True}}) and compiles(
        {"samplers": [{"a": {"compile": True}}]}
    )
    assert not compiles(
        {"training": {"compile": False}, "name": "compile", "steps": [1, {"lr": 0.1}]}
    )


def test_torch_fidelity_comes_without_torchvision():
    """Catches a score that imports what it does not use, another score, and a part of
    torch-fidelity that has lost torchvision."""
    words = (
        "import sys, torch\nfrom bench.runtime.quick_start import "
        "import_torch_fidelity\nimport_torch_fidelity()\n"
        "from torch_fidelity.metric_fid import fid_features_to_statistics, "
        "fid_statistics_to_metric\n"
        "ours, theirs = (fid_features_to_statistics(torch.eye(4, 3) * scale) for scale in (1, 2))\n"
        "print(round(fid_statistics_to_metric(ours, theirs, "
        "verbose=False)['frechet_inception_distance'], 4))\n"
        "print(any(name.startswith('torchvision') for name in sys.modules))\n"
        "from torch_fidelity import utils\nprint(utils.torchvision.transforms.Resize(4).size)"
    )
    # means differ by 0.25 in each of 3, covariances are S and 4 S of trace 0.75: 3 / 16 + 3 / 4
    assert python(words).split() == ["0.9375", "False", "4"]


HEAVY = (
    "torch", "torch._dynamo", "torchvision", "torch_fidelity", "scipy.stats", "sklearn", "pandas",
    "matplotlib", "seaborn", "skimage", "snakemake", "huggingface_hub", "pooch", "requests",
)  # fmt: skip
# what a program or a verb needs at its start, beside what all may
NEEDS = {
    "bench.study.plan": set(),
    "bench.runtime.publishing": set(),
    "bench.pipeline.collect": set(),
    "bench.pipeline.prepare": set(),
    "bench.report.tables": {"pandas"},
    # seaborn needs scipy.stats
    "bench.report.figures": {"pandas", "matplotlib", "seaborn", "scipy.stats"},
    "bench.pipeline.train": {"torch"},
    "bench.pipeline.evaluate": {"torch"},
    "bench.pipeline.import_official": {"torch"},
    "bench.experiments.sweep.verb": {"torch"},
    "bench.experiments.zero_shot.verb": {"torch"},
}


@pytest.mark.parametrize("module", NEEDS)
def test_nothing_heavy_is_imported_before_it_is_used(module):
    """Catches an import at the top of a module that makes every job of a study start later."""
    loaded = python(f"import sys, {module}; print(*({set(HEAVY)!r} & sys.modules.keys()))")
    assert set(loaded.split()) == NEEDS[module]


def test_all_verbs_but_one_import_torch_alone():
    """Catches a verb that a later import makes heavy: all in one process."""
    found = python(
        "import sys, importlib; from bench.runtime.verbs import verbs\n"
        "[importlib.import_module(verb.module) for name, "
        "verb in verbs().items() if name != 'latency']\n"
        f"print(*({set(HEAVY)!r} & sys.modules.keys()))"
    )
    assert found == "torch"


def test_a_wrong_word_is_said_before_torch_is_imported(tmp_path):
    """Catches a command line that is read seconds after it was given."""
    (tmp_path / "job.json").write_text("{")
    lines = {
        ("nothing.json",): "error: nothing.json: no such file",
        (str(tmp_path / "job.json"),): f"error: {tmp_path / 'job.json'}: not readable as JSON",
    }
    for words, line in lines.items():
        code = (
            "import sys, runpy\n"
            f"sys.argv = ['bench', 'prepare', *{words!r}, 'out']\n"
            "try: runpy.run_module('bench', run_name='__main__')\n"
            "except SystemExit as end: print(end, 'torch' in sys.modules)"
        )
        said = python(code)
        assert said.startswith(line) and said.endswith("False")
