"""What every room inherits by existing: its contract, the direction of imports,
sizes of files and functions."""

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from small_study import build

from bench.report.caption import MOST_WORDS, Caption
from bench.report.cells import MOST_COLUMNS, too_wide
from bench.report.claims import judged
from bench.report.results import Results
from bench.report.view import View
from bench.study import rooms

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*(ROOT / "srdd").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
# a module may import what stands before its own layer, and its own
LAYERS = ["srdd", "study", "runtime", "pipeline", "report", "experiments", "site", "speed"]
CONTRACT = rooms.__doc__.split("What `plan.py` may say")[1]
SHOWN = [(what, name) for what in ("figures", "tables") for name in rooms.shows(what)]

MOST_LINES, MOST_LINES_OF_FUNCTION, EQUAL_LINES = 450, 60, 8
# what still is too long, or points up: this list may only become shorter
TOO_LONG: set[str] = set()
POINTS_UP: set[tuple[str, str]] = set()


def place(path):
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path):
    """Modules that a file imports, by their whole names, with the names taken from them."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = [*parents, node.module] if node.level else [node.module]
            for alias in node.names:
                yield ".".join([*filter(None, start), alias.name])


def layer_of(module):
    """The layer of a module; None for the program itself and for packages of others."""
    first, *rest = module.split(".")
    if first == "bench":
        return rest[0] if rest and rest[0] in LAYERS else None
    return first if first in LAYERS else None


# ---------------------------------------------------------------- imports


def test_rooms_import_no_torch_but_in_their_verbs():
    """Catches a figure, table or plan that makes every job wait for torch before it is even
    planned."""
    modules = []
    for path in sorted((ROOT / "bench" / "experiments").rglob("*.py")):
        if path.stem.partition("_")[0] != "verb":
            modules.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name"
    )
    command = [sys.executable, "-c", code, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_imports_point_down():
    """Catches a layer that knows of one above it, such as a job's verb that imports a figure."""
    up = set()
    for path in SOURCES:
        own = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for module in imports_of(path) if own else ():
            layer = layer_of(module)
            if layer and LAYERS.index(layer) > LAYERS.index(own):
                up.add((place(path), module.rpartition(".")[0]))
    assert up <= POINTS_UP
    assert up >= POINTS_UP, "mended: take it off the list"


def test_no_room_imports_a_room():
    """Catches two questions that cannot be changed alone; what both use moves down a layer."""
    for path in sorted((ROOT / "bench" / "experiments").glob("*/*.py")):
        for module in imports_of(path):
            if module.startswith("bench.experiments."):
                room = module.split(".")[2]
                assert room == path.parent.name, f"{place(path)} imports the room {room}"


# ---------------------------------------------------------------- contract


@pytest.mark.parametrize("room", rooms.names())
def test_a_plan_says_only_what_the_contract_knows(room):
    """Catches a misspelt word of a plan, which nobody reads: `SCORE = True`, `def problem(...)`."""
    words = [path.read_text(encoding="utf-8") for path in (rooms.FOLDER / room).glob("*.py")]
    plan = rooms.plan_of(room)
    for name, value in vars(plan).items() if plan else ():
        own = getattr(value, "__module__", plan.__name__) == plan.__name__
        if name.startswith("_") or not own or isinstance(value, type(ast)) or name == "annotations":
            continue
        used = sum(len(re.findall(rf"\b{name}\b", text)) for text in words) > 1
        known = re.search(rf"^    .*\b{name}\b", CONTRACT, re.MULTILINE)
        assert known or used, f"bench/experiments/{room}/plan.py: {name}: no word of a plan"


# what reads the probabilities of codes: of a regression it would take means for logits
OF_CODES = ("srdd.contrast.", "srdd.counting.", "srdd.likelihood.")


def test_rooms_that_read_codes_say_so():
    """Catches a regression that is asked for log-probabilities, and numbers made of its means."""
    read = {
        path.parent.name
        for path in (ROOT / "bench" / "experiments").glob("*/*.py")
        if any(name.startswith(OF_CODES) for name in imports_of(path))
    }
    assert read and read <= set(rooms.which("READS_CODES"))


@pytest.mark.parametrize("room", rooms.names())
def test_a_room_says_its_question(room):
    """Catches a folder of which nobody knows what it asks."""
    assert importlib.import_module(f"bench.experiments.{room}").__doc__.strip()


@pytest.mark.parametrize("room", rooms.names())
def test_needs_name_what_is_there(room):
    """Catches a figure that needs a measure that was renamed,
    and needs of a figure that is none."""
    known = {
        f"{prefix}_{name}" for what, prefix in rooms.PREFIXES.items() for name in rooms.shows(what)
    }
    words = {"scored", "trained", *rooms.measures()}
    for name, needs in rooms.says(room, "NEEDS", {}).items():
        assert name in known, name
        assert {needs} <= words if isinstance(needs, str) else set(needs) <= words, name


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A small study whose suite was told nothing of any room."""
    return View(Results.load(build(tmp_path_factory.mktemp("bare"), ["a", "b"])), "s")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A small study whose suite was told the defaults of every room."""
    view = View(Results.load(build(tmp_path_factory.mktemp("told"), ["a", "b"])), "s")
    for room, settings in rooms.with_settings().items():
        view.about[room] = settings().model_dump(mode="json")
    return view


@pytest.mark.parametrize("what, name", SHOWN)
def test_figures_and_tables_keep_their_contract(told, what, name):
    """Catches one that fails where its numbers are missing, a caption that nobody reads to its end,
    and a table wider than a page."""
    drawn, caption = rooms.function_of(what, name)(told)
    plt.close("all")
    assert isinstance(caption, Caption) and caption.text and caption.details
    assert caption.too_long is None, f"{len(caption.text.split())} words of {MOST_WORDS}"
    if what == "tables":
        shown = drawn.attrs.get("shown", list(drawn.columns))
        assert too_wide(drawn) is None and 0 < len(shown) <= MOST_COLUMNS, "say what is shown"


@pytest.mark.parametrize("what, name", SHOWN)
def test_figures_and_tables_name_what_they_miss(bare, what, name):
    """Catches a traceback over results of a suite that was never told of the room."""
    try:
        rooms.function_of(what, name)(bare)
    except ValueError as error:
        assert "\n" not in str(error) and "lacks" in str(error)
    finally:
        plt.close("all")


@pytest.mark.parametrize("name", rooms.shows("rule"))
def test_rules_give_a_word_and_a_reason(told, name):
    """Catches a rule that fails where its numbers are missing, and a verdict without a reason."""
    claim = {"text": "t", "origin": "ours", "rule": name, "variant": "b", "against": "a"}
    word, reason = judged(told, {**claim, "metric": "fid", "better": None})
    assert word in ("yes", "no", "not decided") and reason and "\n" not in reason


# ---------------------------------------------------------------- sizes


def test_files_can_be_read_in_one_sitting():
    """Catches a file that grew past what a reader holds in mind."""
    long = {place(path) for path in SOURCES if len(path.read_text().splitlines()) > MOST_LINES}
    assert long <= TOO_LONG, "split it"
    assert long >= TOO_LONG, "mended: take it off the list"


def test_functions_fit_on_a_screen():
    """Catches a function that does several things."""
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1
                where = f"{place(path)}: {node.name}"
                assert length <= MOST_LINES_OF_FUNCTION, f"{where}: {length} lines"


def blocks_of(path):
    """Every run of so many lines of code, without imports and blank lines, and where it begins."""
    skipped = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            skipped |= set(range(node.lineno, node.end_lineno + 1))
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() and number not in skipped:
            lines.append((number, line.strip()))
    for i in range(len(lines) - EQUAL_LINES + 1):
        block = lines[i : i + EQUAL_LINES]
        yield "\n".join(line for _, line in block), block[0][0]


def test_rooms_repeat_no_block():
    """Catches what two rooms copied from each other; it belongs into a layer below."""
    seen = {}
    for path in sorted((ROOT / "bench" / "experiments").glob("*/*.py")):
        for block, number in blocks_of(path):
            first = seen.setdefault(block, (path.parent, f"{place(path)}:{number}"))
            assert first[0] == path.parent, f"{first[1]} and {place(path)}:{number}\n{block}"


def test_every_function_of_a_room_is_reached_by_name():
    """Catches a figure, table or rule in a file where nobody looks for it."""
    prefixes = tuple(f"{prefix}_" for prefix in rooms.PREFIXES.values())
    for path in SOURCES:
        for node in tree_of(path).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith(prefixes):
                is_show = path.name == "show.py" and path.parent.parent == rooms.FOLDER
                assert is_show, f"{place(path)}: {node.name}"
