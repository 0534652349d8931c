"""What jobs leave for one another is opened in one place: verbs stand beside each other."""

import ast
from pathlib import Path

import pytest

from bench.runtime.verbs import verbs

ROOT = Path(__file__).resolve().parent.parent
VERBS = {verb.module for verb in verbs().values()}


def imported_modules(module: str) -> set[str]:
    """Modules that the text of a module imports from, also inside functions."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            modules.update({base, *(f"{base}.{alias.name}" for alias in node.names)})
    return modules


@pytest.mark.parametrize("module", sorted(VERBS))
def test_no_verb_imports_a_verb(module):
    """Catches a verb that cannot be changed or read without another one."""
    assert not imported_modules(module) & VERBS


def test_imports_are_seen():
    """The test of the test: relative imports are resolved."""
    assert "bench.pipeline.trainer" in imported_modules("bench.pipeline.distill")
    assert "bench.pipeline.artefacts" in imported_modules("bench.experiments.sweep.verb")
