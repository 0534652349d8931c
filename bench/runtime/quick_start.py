"""torch and torch-fidelity without their heaviest parts: a job of a small study would start longer
than it works.

torch's compiler (torch._dynamo) takes as long to import as all of torch, and an optimizer imports
it only to say that it should keep away. torchvision imports it too, and torch-fidelity torchvision,
of which it needs nothing for features that are given. Both are stood for here, and are imported
when something of them is asked for.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"
# of torchvision, that torch-fidelity names
VISION = (
    "datasets",
    "transforms",
    "transforms.functional",
)
DATASETS = ("CIFAR10", "CIFAR100", "STL10")  # classes that it derives from, and nobody here reads

_kept_alive: list[Any] = []


class _Standing(ModuleType):
    """Stands for a module, which `load` imports when something else of it is asked for."""

    def __init__(self, name: str, load: Callable[[], object], **offered: Any) -> None:
        super().__init__(name)
        self.__dict__.update(offered, _load=load, __path__=[])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._load()
        return getattr(sys.modules[self.__name__], name)


# ---------------------------------------------------------------- torch's compiler


class _Submodules(MetaPathFinder, Loader):
    """Finds modules below the compiler's stand-in: they are those of the compiler itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{COMPILER}."):
            return None
        _load_compiler()
        return ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return import_module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it has run where it was imported."""


def _unmarked(function: Callable | None = None, *_: Any, **__: Any) -> Callable:
    """A function that the compiler should leave alone: without a compiler, the function itself."""
    return _unmarked if function is None else function


def _load_compiler() -> None:
    """Take the stand-in away and import torch's compiler."""
    if isinstance(sys.modules.get(COMPILER), _Standing):
        del sys.modules[COMPILER]
        torch.__dict__.pop("_dynamo", None)
        sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Submodules)]
    import_module(COMPILER)


def compiles(config: Any) -> bool:
    """Whether a job is told to compile, by its config, which says nothing of what is left open: it
    meets no stand-in, which would be in the way of nothing but time."""
    if isinstance(config, dict):
        return config.get("compile") is True or any(map(compiles, config.values()))
    return isinstance(config, list) and any(map(compiles, config))


def keep_compiled() -> None:
    """Keep what is compiled from job to job, also where temporary folders are emptied: a job that
    finds it starts in a sixth of the time. Not below a folder whose name a compiler would tear
    apart."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = str(Path(caches) / "srdd" / "compiled")
    if not any(map(str.isspace, place)):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", place)


def spare_compiler() -> None:
    """Let torch's compiler be imported by whoever asks for it, and not by optimizers."""
    if COMPILER in sys.modules:
        return
    offered = {"disable": _unmarked, "graph_break": lambda *_, **__: None}
    sys.modules[COMPILER] = torch._dynamo = _Standing(COMPILER, _load_compiler, **offered)
    sys.meta_path.insert(0, _Submodules())


# ---------------------------------------------------------------- memory

# of glibc's mallopt: what is larger comes from the system by itself, and how much may lie idle
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


def keep_memory() -> None:
    """Let a process on Linux keep what it frees, up to 1 GiB: pages that come fresh from the system
    for every tensor cost a CPU as much as a small convolution does in them."""
    try:
        allocator = ctypes.CDLL(None)
        allocator.mallopt(MMAP_THRESHOLD, 32 * 2**20)  # the most that it takes
        allocator.mallopt(TRIM_THRESHOLD, 2**30)
    except (OSError, TypeError, AttributeError):  # another system, or another C library
        return


# ---------------------------------------------------------------- torchvision


def import_torchvision() -> None:
    """Import torchvision, also where its compiled part does not fit this torch (a CPU build beside
    PyPI's wheel). A sound install is left alone."""
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept_alive.append(library)
        import_module("torchvision")


def import_torch_fidelity() -> None:
    """Import torch-fidelity, and torchvision only where that is done already."""
    if "torchvision" in sys.modules or "torch_fidelity" in sys.modules:
        import_module("torch_fidelity")
        return
    names = ["torchvision", *(f"torchvision.{name}" for name in VISION)]
    stands = {name: _Standing(name, partial(_load_vision, name)) for name in names}
    stands["torchvision.datasets"].__dict__.update({name: type(name, (), {}) for name in DATASETS})
    for name in names[1:]:
        parent, _, child = name.rpartition(".")
        setattr(stands[parent], child, stands[name])
    sys.modules.update(stands)
    try:
        import_module("torch_fidelity")
    finally:
        for name in names:
            del sys.modules[name]


def _load_vision(name: str) -> None:
    import_torchvision()
    import_module(name)
