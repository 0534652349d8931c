"""One module as its text says it: its definitions, what each of them uses, and what an import of it
does. Nothing is imported.

Two texts that differ in comments, docstrings, annotations of functions or descriptions of settings
are equal here: none of these can change a number."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property

Chain = tuple[str, ...]  # a dotted name, part by part
OWN: Chain = ("sys.modules[__name__]",)  # the module itself
ROOMS: Chain = ("bench.experiments.*.show",)  # whichever room shows a name
IMPORT = ""  # the name under which a module's bare statements stand: what an import of it runs

WithDocstring = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
PROSE = {"description", "json_schema_extra", "title", "examples"}  # of a pydantic Field


class Bare(ast.NodeTransformer):
    """Take prose out. lazy: annotations of functions are never evaluated (PEP 563)."""

    def __init__(self, lazy: bool) -> None:
        self.lazy, self.inside = lazy, False

    def _without_docstring(self, node: WithDocstring) -> ast.AST:
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            if isinstance(first.value.value, str):
                node.body = node.body[1:] or [ast.Pass()]
        return node

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self.generic_visit(node)
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        before, self.inside = self.inside, False
        self.generic_visit(node)
        self.inside = before
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        before, self.inside = self.inside, True
        self.generic_visit(node)
        self.inside = before
        if self.lazy:
            node.returns = None
        return self._without_docstring(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node: ast.arg) -> ast.AST:
        if self.lazy:
            node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if self.lazy and self.inside:
            node.annotation = ast.Constant(None)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [word for word in node.keywords if word.arg not in PROSE]
        return node


def is_lazy(tree: ast.Module) -> bool:
    """Whether the annotations of a module are never evaluated."""
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return any(
        node.module == "__future__" and node.names[0].name == "annotations" for node in futures
    )


def bare(text: str) -> ast.Module:
    """The syntax tree of a source text without prose."""
    tree = ast.parse(text)
    return Bare(is_lazy(tree)).visit(tree)


def code_digest(*nodes: ast.AST) -> str:
    """sha256 of syntax trees, wherever they stand in their files."""
    return hashlib.sha256("\n".join(map(ast.dump, nodes)).encode()).hexdigest()


def dotted(node: ast.AST) -> Chain | None:
    """`a.b.c` as ("a", "b", "c"); None for anything else."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return None if before is None else (*before, node.attr)
    return None


def _is_own_module(node: ast.AST) -> bool:
    """Whether an expression is `sys.modules[__name__]`."""
    return (
        isinstance(node, ast.Subscript)
        and dotted(node.value) == ("sys", "modules")
        and dotted(node.slice) == ("__name__",)
    )


@dataclass(frozen=True)
class Lookup:
    """A call `find(module, prefix, name)`; whether `called` is that `find` its module knows. Or
    `function_of(what, name)`, of any room."""

    called: Chain
    module: Chain
    prefix: str | None  # None: not written out


class Uses(ast.NodeVisitor):
    """What a definition may use: dotted names, words that may name an attribute, lookups by
    name."""

    def __init__(self) -> None:
        self.chains: set[Chain] = set()
        self.words: set[str] = set()
        self.lookups: set[Lookup] = set()
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.anything = False  # imports or runs what only a run can tell

    def visit_Name(self, node: ast.Name) -> None:
        self.chains.add((node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain = dotted(node)
        if chain is None:
            self.words.add(node.attr)
            self.visit(node.value)
        else:
            self.chains.add(chain)
            self.words.update(chain[1:])

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.words.add(node.value)

    def visit_keyword(self, node: ast.keyword) -> None:
        self.words.add(node.arg or "")
        self.visit(node.value)

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        self.words.update(node.kwd_attrs)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if _is_own_module(node):
            self.chains.add(OWN)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.imports.append(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imports.append(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = dotted(node.func) or ("",)
        if called[-1] == "find" and len(node.args) == 3 and self._looks_up(node, called):
            return
        if called[-1] == "function_of" and node.args:
            what = node.args[0]
            if isinstance(what, ast.Constant) and isinstance(what.value, str):
                self.lookups.add(Lookup(called, ROOMS, what.value))
        if called[-1] in ("import_module", "__import__", "exec", "eval"):
            self.anything |= called[0] in (
                "importlib",
                "import_module",
                "__import__",
                "exec",
                "eval",
            )
        if called[-1] == "globals" or (called == ("vars",) and not node.args):
            self.chains.add(OWN)
        self.generic_visit(node)

    def _looks_up(self, node: ast.Call, called: Chain) -> bool:
        first, second, third = node.args
        module = OWN if _is_own_module(first) else dotted(first)
        if module is None:
            return False
        written = second.value if isinstance(second, ast.Constant) else None
        prefix = written if isinstance(written, str) else None
        self.lookups.add(Lookup(called, module, prefix))
        self.visit(node.func)
        self.visit(second)
        self.visit(third)
        return True


@dataclass(eq=False)
class Definition:
    """What binds one name at the top of a module; or, of a settings class, one field with a
    default."""

    written: list[ast.AST] = field(default_factory=list)
    lazy: bool = False  # whether annotations are never evaluated

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """What is written, without prose."""
        return [Bare(self.lazy).visit(node) for node in self.written]

    @cached_property
    def uses(self) -> Uses:
        uses = Uses()
        for node in self.nodes:
            uses.visit(node)
        return uses

    @cached_property
    def digest(self) -> str:
        return code_digest(*self.nodes)


@dataclass(frozen=True)
class Target:
    """What an import binds: a module (name None), or a name of it."""

    module: str
    name: str | None = None


def _targets(node: ast.AST) -> Iterator[str]:
    """The plain names that an assignment binds."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id


def _plain(node: ast.AST) -> bool:
    """Whether an assignment binds names alone, and no part of an object."""
    return all(
        isinstance(part, (ast.Name, ast.Tuple, ast.List, ast.Starred, ast.expr_context))
        for part in ast.walk(node)
    )


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a text alone, such as a docstring."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


TYPES_ALONE = (("TYPE_CHECKING",), ("typing", "TYPE_CHECKING"))
AS_PROGRAM = ast.dump(ast.parse('__name__ == "__main__"', mode="eval").body)


def _never_runs(node: ast.stmt) -> bool:
    """Whether an import skips a statement: `if TYPE_CHECKING` and `if __name__ == "__main__"`,
    exactly so; the body of anything more, such as of `not TYPE_CHECKING`, may run."""
    if not isinstance(node, ast.If) or node.orelse:
        return False
    return dotted(node.test) in TYPES_ALONE or ast.dump(node.test) == AS_PROGRAM


class Source:
    """A module: `definitions` by name, `bindings` of imported names, `stars` and `loads` (modules
    that an import of it loads), `decorated` definitions with the name of what decorates them."""

    def __init__(self, name: str, text: str, is_package: bool) -> None:
        self.name = name
        self.package = name if is_package else name.rpartition(".")[0]
        self.definitions: dict[str, Definition] = {}
        self.bindings: dict[str, list[Target]] = {}
        self.stars: list[str] = []
        self.decorated: list[tuple[str, Chain | None]] = []
        self.loads: set[str] = set()
        tree = ast.parse(text)
        self.lazy = is_lazy(tree)
        for node in tree.body:
            if not (_never_runs(node) or _is_text(node)):
                self._read(node)

    def _read(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self._bind(node)
        elif isinstance(node, DEFINES):
            self._define(node.name, node)
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                self.decorated.append((node.name, dotted(called)))
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            self._assign(node)
        else:
            self._define(IMPORT, node)
            for part in ast.walk(node):
                if isinstance(part, (ast.Import, ast.ImportFrom)):
                    self._bind(part)

    def _assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if not all(map(_plain, targets)):
            self._define(IMPORT, node)
            return
        for target in targets:
            for name in _targets(target):
                self._define(name, node)

    def _define(self, name: str, *nodes: ast.AST) -> None:
        self.definitions.setdefault(name, Definition(lazy=self.lazy)).written.extend(nodes)

    def _bind(self, node: ast.Import | ast.ImportFrom) -> None:
        bound, stars, loads = self.imported(node)
        for name, target in bound:
            self.bindings.setdefault(name, []).append(target)
        self.stars += stars
        self.loads.update(loads)

    def imported(
        self, node: ast.Import | ast.ImportFrom
    ) -> tuple[list[tuple[str, Target]], list[str], list[str]]:
        """What an import statement binds, the modules whose names it takes whole, and those that it
        loads."""
        if isinstance(node, ast.Import):
            bound = [
                (alias.asname, Target(alias.name))
                if alias.asname
                else (alias.name.split(".")[0], Target(alias.name.split(".")[0]))
                for alias in node.names
            ]
            return bound, [], [alias.name for alias in node.names]
        base = self._absolute(node)
        if node.names[0].name == "*":
            return [], [base], [base]
        bound = [(alias.asname or alias.name, Target(base, alias.name)) for alias in node.names]
        return bound, [], [base, *(f"{base}.{alias.name}" for alias in node.names)]

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = self.package.split(".")
        kept = parents[: len(parents) - node.level + 1]
        return ".".join([*kept, *([node.module] if node.module else [])])

    def has(self, name: str) -> bool:
        """Whether a name is defined or imported at the top."""
        return name in self.definitions or name in self.bindings


@cache
def read_source(name: str, text: str, is_package: bool) -> Source:
    """A module from its text, once for each text."""
    return Source(name, text, is_package)
