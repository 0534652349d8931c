"""Where a result comes from: the code it ran (by content, without prose), the commit, the machine. Imports no torch."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def _path_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def imports_of(module: str) -> frozenset[str]:
    """Modules of this project that a module imports, read from its text, also inside functions."""
    path = _path_of(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    # also files of one's own beside the packages, which a function may be imported from
    found = {name for name in found if name and _path_of(name)}
    parents = {name.rsplit(".", depth)[0] for name in found for depth in range(1, name.count(".") + 1)}
    return frozenset(found | {name for name in parents if _path_of(name)})


@cache
def modules_of(module: str) -> tuple[str, ...]:
    """A module and all of this project that it imports, directly or not."""
    todo, seen = [module], set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(imports_of(name))
    return tuple(sorted(seen))


class _Bare(ast.NodeTransformer):
    """Take docstrings out: polishing prose must not retrain anything."""

    def _strip(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        body = node.body
        if body and isinstance(body[0], ast.Expr) and isinstance(getattr(body[0], "value", None), ast.Constant):
            if isinstance(body[0].value.value, str):
                node.body = body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _strip


def code_digest(text: str) -> str:
    """sha256 of the syntax tree of a source text without comments and docstrings."""
    return hashlib.sha256(ast.dump(_Bare().visit(ast.parse(text))).encode()).hexdigest()


@cache
def _module_digest(module: str) -> str:
    """Digest of one module, once however many verbs run it: every job of a workflow asks for the hashes of all verbs."""
    return code_digest(_path_of(module).read_text(encoding="utf-8"))


@cache
def source_hash(module: str) -> str:
    """Hash of the code that a verb runs: it changes when any module it imports changes in more than prose."""
    digest = hashlib.sha256()
    for name in modules_of(module):
        digest.update(f"{name}={_module_digest(name)}\n".encode())
    return digest.hexdigest()[:10]


@cache
def git_state() -> tuple[str | None, bool | None]:
    """The commit of the working tree and whether it has changes; (None, None) outside git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def host_class() -> str:
    """What kind of machine this is: processor family and cores, never its name."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def shows_gpu() -> bool:
    """Whether this machine shows a GPU, without importing torch: by its tool, or as a container shows it."""
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def torch_version() -> str | None:
    """Version of torch without importing it."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return None
