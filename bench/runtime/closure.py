"""The code that a job uses, definition by definition, read from source texts without importing
them.

What is used is found by name, and too much rather than too little: a local variable that is called
as a function of its module counts as a use of it, a method counts with its whole class. What cannot
be followed (`from x import *`, a module that is handed on) counts as all of that module. Two things
are left out, and both come back where they matter: functions that are looked up by name
(`srdd.lookup.find`, `bench.study.rooms.function_of`), which a job adds by its config, and a field
with a default of a settings class that nothing here reads.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..study.rooms import PREFIXES
from .source_text import IMPORT, OWN, ROOMS, Chain, Definition, Source, Target, dotted, read_source

Key = tuple[str, str]  # a module and the name of a definition of it
FIND: Key = ("srdd.lookup", "find")
# modules whose imports by a computed name are of other packages
FOREIGN = ("bench.runtime.quick_start",)
FOLDERS = ("srdd", "bench")  # packages of the project


def source_files(root: Path, name: str) -> Iterator[Path]:
    """Files of the modules below a folder whose names begin with a word; links are followed, as
    Python does."""
    if (file := root / f"{name}.py").is_file():
        yield file
    yield from _files_below(root / name, frozenset())


def _files_below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """Source files below a folder; a link back to a folder above gives no more of them."""
    real = os.path.realpath(folder)
    if real in above or not os.path.isdir(real):
        return
    with os.scandir(folder) as entries:
        # nothing else can be named in an import
        named = [entry for entry in entries if entry.name.removesuffix(".py").isidentifier()]
    for entry in named:
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _files_below(folder / entry.name, above | {real})
        elif entry.name.endswith(".py") and entry.is_file():
            yield folder / entry.name


def _with_packages(module: str) -> Iterator[str]:
    """A module and the packages that it lies in, which an import of it loads."""
    parts = module.split(".")
    return (".".join(parts[:end]) for end in range(len(parts), 0, -1))


class _Used(NamedTuple):
    """What one definition uses."""

    keys: frozenset[Key]
    modules: frozenset[str]  # its own, and those that it imports itself
    lookups: frozenset[Key]  # (module, prefix) of lookups by name
    words: frozenset[str]
    fields: frozenset[str]  # of a settings class: those that have a default


class Project:
    """The modules below a folder, each read once."""

    def __init__(self, root: Path, leave_out: Iterable[str] = ()) -> None:
        """leave_out: modules that say where a result comes from and have no part in it."""
        self.root, self.leave_out = root, frozenset(leave_out)
        self.source = cache(self._source)
        self.is_folder = cache(self._is_folder)
        self.fields = cache(self._fields)
        self.resolved = cache(self._resolved)
        self.definition = cache(self._definition)
        self.used_by = cache(self._used_by)
        self.run_by_import = cache(self._run_by_import)
        self.imported = cache(self._imported)
        self.loaded_by = cache(self._loaded_by)
        self.shown = cache(self._shown)

    # ------------------------------------------------------------ modules

    def _source(self, module: str) -> Source | None:
        """A module of this project; None for any other."""
        if not module or module in self.leave_out:
            return None
        base = self.root.joinpath(*module.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return read_source(
                    module, path.read_text(encoding="utf-8"), path.name == "__init__.py"
                )
        return None

    def _is_folder(self, module: str) -> bool:
        """Whether a name is a folder of this project; without __init__.py, Python finds modules in
        it all the same."""
        return bool(module) and self.root.joinpath(*module.split(".")).is_dir()

    def own(self, module: str) -> Source:
        """A module of this project. Raises KeyError for any other."""
        source = self.source(module)
        if source is None:
            raise KeyError(f"{module}: no module of this project")
        return source

    def loaded(self, modules: Iterable[str]) -> set[str]:
        """Modules of this project that an import of these loads, themselves and their packages
        included."""
        todo, known = {name for name in modules if self.source(name) is not None}, set()
        while todo:
            known |= todo
            todo = set().union(*map(self.loaded_by, todo)) - known
        return known

    def _loaded_by(self, module: str) -> frozenset[str]:
        """Modules of this project that one of it names in its imports, and the packages of all."""
        named = (module, *self.own(module).loads)
        parts = {part for one in named for part in _with_packages(one)}
        return frozenset(part for part in parts if self.source(part) is not None)

    def _imported(self, module: str) -> frozenset[Key]:
        """What an import of a module runs, in it and in all that it loads."""
        return frozenset().union(*map(self.run_by_import, self.loaded([module])))

    def _run_by_import(self, module: str) -> frozenset[Key]:
        """What a module of this project runs when it is imported: its bare statements, and what it
        hands to decorators of this project, which may keep it, as a registry does."""
        source = self.own(module)
        keys = {(module, IMPORT)} if source.has(IMPORT) else set()
        for name, chain in source.decorated:
            if chain is None or self.resolved(module, chain):
                keys.add((module, name))
        return frozenset(keys)

    # ------------------------------------------------------------ names

    def whole(self, module: str) -> frozenset[Key]:
        """All that a module defines or imports by name."""
        source = self.source(module)
        if source is None:
            return frozenset()
        keys = {(module, name) for name in source.definitions}
        for targets in source.bindings.values():
            for target in targets:
                if target.name is not None:
                    keys |= self._follow(target, ())
        return frozenset(keys).union(*map(self.whole, source.stars))

    def names(self, module: str, name: str) -> frozenset[Key]:
        """The definitions that a module means by a name; none where it has no such name, or is not
        there."""
        return self.resolved(module, (name,)) if self.source(module) else frozenset()

    def _shown(self, function: str) -> frozenset[Key]:
        """The figure, table or rule of that name in whichever room has it."""
        shows = self.root.joinpath("bench", "experiments").glob("*/show.py")
        rooms = sorted(path.parent.name for path in shows)
        return frozenset().union(
            *(self.names(f"bench.experiments.{room}.show", function) for room in rooms)
        )

    def _resolved(self, module: str, chain: Chain) -> frozenset[Key]:
        """The definitions that a dotted name means in a module, none for one that is no name of
        it."""
        if chain == OWN:
            return self.whole(module)
        source, name = self.own(module), chain[0]
        keys: set[Key] = {(module, name)} if name in source.definitions else set()
        for target in source.bindings.get(name, ()):
            keys |= self._follow(target, chain[1:])
        for star in source.stars if not source.has(name) else ():
            if self.source(star) is not None and self.resolved(star, (name,)):
                keys |= self.whole(star)
        return frozenset(keys)

    def _follow(self, target: Target, rest: Chain) -> frozenset[Key]:
        if target.name is not None:
            rest = (target.name, *rest)
        source = self.source(target.module)
        if not rest:
            return self.whole(target.module)
        below = f"{target.module}.{rest[0]}"
        if source is None:
            inside = self.is_folder(target.module)
            return self._follow(Target(below), rest[1:]) if inside else frozenset()
        if not source.has(rest[0]) and self.source(below) is not None:
            return self._follow(Target(below), rest[1:])
        if below in self.leave_out or (rest[0].startswith("__") and not source.has(rest[0])):
            return frozenset()
        return self.resolved(target.module, rest) or self._unknown(target.module, rest[0])

    def _unknown(self, module: str, name: str) -> frozenset[Key]:
        """A name that a module does not show: what comes from outside of this project, or all of
        the module."""
        return frozenset() if self.own(module).has(name) else self.whole(module)

    # ------------------------------------------------------------ settings classes

    def is_settings(self, key: Key) -> bool:
        """Whether a definition is a class of pydantic."""
        source = self.own(key[0])
        nodes = source.definitions[key[1]].nodes if key[1] in source.definitions else []
        bases = [base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases]
        for chain in filter(None, map(dotted, bases)):
            targets = source.bindings.get(chain[0], ())
            if any(target.module.split(".")[0] == "pydantic" for target in targets):
                return True
            if any(self.is_settings(base) for base in self.resolved(key[0], chain) if base != key):
                return True
        return False

    def _fields(self, key: Key) -> tuple[Definition, dict[str, Definition]]:
        """A definition without its fields that have a default, and each of these; all others
        whole."""
        whole = self.own(key[0]).definitions[key[1]]
        if key[1] == IMPORT or not self.is_settings(key):
            return whole, {}
        rest, fields = [], {}
        for node in whole.nodes:
            kept: list[ast.stmt] = []
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                name = _field_with_default(part)
                if name:
                    fields[name] = Definition([part])
                else:
                    kept.append(part)
            more = {"body": kept} if isinstance(node, ast.ClassDef) else {}
            rest.append(type(node)(**{name: getattr(node, name) for name in node._fields} | more))
        return Definition(rest), fields

    def _definition(self, key: Key) -> Definition:
        """One definition, or one field `Class.field` of a settings class."""
        owner, _, name = key[1].partition(".")
        rest, fields = self.fields((key[0], owner))
        return fields[name] if name else rest

    # ------------------------------------------------------------ the closure

    def _used_by(self, key: Key) -> _Used:
        module, uses = key[0], self.definition(key).uses
        source = self.own(module)
        local: dict[str, list[Target]] = {}
        keys: set[Key] = set()
        loads, lookups = {module}, set[Key]()
        for node in uses.imports:
            bound, stars, loaded = source.imported(node)
            loads.update(loaded)
            keys.update(*map(self.whole, stars))
            for name, target in bound:
                local.setdefault(name, []).append(target)

        def means(chain: Chain) -> set[Key]:
            outer = set(self.resolved(module, chain))
            return outer.union(*(self._follow(one, chain[1:]) for one in local.get(chain[0], ())))

        def module_of(chain: Chain) -> str | None:
            targets = [*local.get(chain[0], ()), *source.bindings.get(chain[0], ())]
            return module if chain == OWN else self._module(targets, chain[1:])

        for chain in uses.chains:
            keys |= means(chain)
        for lookup in uses.lookups:
            if lookup.module == ROOMS and lookup.prefix is not None:
                lookups.add((ROOMS[0], PREFIXES[lookup.prefix]))
                continue
            where = module_of(lookup.module)
            if FIND in means(lookup.called) and where and lookup.prefix:
                lookups.add((where, lookup.prefix))
            else:
                keys |= means(lookup.module)  # of another `find`, or with a computed prefix
        if uses.anything and module not in FOREIGN:
            keys.update(*map(self.whole, self._all_modules()))
        fields = frozenset(() if "." in key[1] else self.fields(key)[1])
        return _Used(
            frozenset(keys), frozenset(loads), frozenset(lookups), frozenset(uses.words), fields
        )

    def _module(self, targets: list[Target], rest: Chain) -> str | None:
        """The module that an imported name is, if it is one."""
        for target in targets:
            name = ".".join([target.module, *([target.name] if target.name else []), *rest])
            if self.source(name) is not None:
                return name
        return None

    def _all_modules(self) -> list[str]:
        files = [path for folder in FOLDERS for path in source_files(self.root, folder)]
        names = [".".join(path.relative_to(self.root).with_suffix("").parts) for path in files]
        return [name.removesuffix(".__init__") for name in names]

    def closure(self, roots: Iterable[Key], named: Iterable[Key] = ()) -> frozenset[Key]:
        """Every definition that these use, and the fields of settings classes that are read.

        named: (prefix, name) of the functions `<prefix>_<name>` that a config names; each counts
        where it is looked up. Raises KeyError for a root that is not there.
        """
        walk = _Walk(self, list(named))
        todo: set[Key] = set()
        for module, name in roots:
            if not (keys := self.names(module, name)):
                raise KeyError(f"{module}: defines no {name}")
            todo |= keys
        while todo:
            for key in todo:
                walk.visit(key)
            todo = walk.more()
        return frozenset(walk.keys)

    def digest(self, roots: Iterable[Key], named: Iterable[Key] = ()) -> str:
        """sha256 over the closure: modules, names and syntax trees."""
        summed = hashlib.sha256()
        for key in sorted(self.closure(roots, named)):
            summed.update(f"{key[0]}:{key[1]}={self.definition(key).digest}\n".encode())
        return summed.hexdigest()


def _field_with_default(node: ast.stmt) -> str | None:
    """The field of a settings class that a line defines, if it may be left out."""
    if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
        return None
    if node.value is None or node.target.id == "model_config":
        return None
    return node.target.id if _gives_default(node.value) else None


def _gives_default(value: ast.expr) -> bool:
    """Whether what a field is set to holds a default: a `Field` may hold none."""
    if not (isinstance(value, ast.Call) and dotted(value.func) == ("Field",)):
        return True
    first = value.args[0] if value.args else None
    given = isinstance(first, ast.Constant) and first.value is Ellipsis
    keywords = {word.arg for word in value.keywords}
    return (bool(value.args) and not given) or bool(keywords & {"default", "default_factory"})


class _Walk:
    """What a closure has met so far. Whatever is met is looked into once."""

    def __init__(self, project: Project, named: list[Key]) -> None:
        self.project, self.named = project, named
        self.keys: set[Key] = set()
        self.used: set[Key] = set()
        self.words: set[str] = set()
        self.modules: set[str] = set()
        self.lookups: set[Key] = set()
        self.settings: list[tuple[Key, frozenset[str]]] = []  # classes with fields of a default

    def visit(self, key: Key) -> None:
        """Take one definition in: what it uses, and what an import of its modules runs."""
        used = self.project.used_by(key)
        self.keys.add(key)
        self.used |= used.keys
        self.words |= used.words
        if modules := used.modules - self.modules:
            self.modules |= modules
            self.used.update(*map(self.project.imported, modules))
        if lookups := used.lookups - self.lookups:
            self.lookups |= lookups
            self.used.update(*(self._looked_up(*lookup) for lookup in lookups))
        if used.fields:
            self.settings.append((key, used.fields))

    def more(self) -> set[Key]:
        """What is used and was not yet visited, and the fields that are read."""
        read = {
            (module, f"{name}.{field}")
            for (module, name), fields in self.settings
            for field in fields & self.words
        }
        return (self.used | read) - self.keys

    def _looked_up(self, module: str, prefix: str) -> set[Key]:
        keys: set[Key] = set()
        for _, name in [one for one in self.named if one[0] == prefix]:
            function = f"{prefix}_{name}"
            shown = module == ROOMS[0]
            keys |= self.project.shown(function) if shown else self.project.names(module, function)
        return keys
