"""A study from its files: its own, the study that it is like, the suites that it takes. Imports no
torch.

    like: fashion_reduced     start from another study: a name in workflows/config, or a path
    take: [main, latency]     suites/<name>.yaml, one suite a file; or suites of that study
    suites:
      main: {core: false}     a suite that is taken: what changes in it
      mine: {...}             any other: a whole suite of its own

Mappings merge deeply, lists and values replace; null removes a variant. `dataset` and `take`
replace whole. A mapping of `features` changes the first extractor of a list. An error names the
file that holds the wrong key.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srdd.lookup import unknown

from .errors import ConfigError, place_of, within_reach
from .fit import fitted
from .merging import merged
from .resolve import ROOT, validated
from .schema import Composition
from .study_file import one_line, read_yaml

CONFIG = ROOT / "workflows" / "config"
MOST_STUDIES = 5  # that start from one another
ENDINGS = (".yaml", ".yml")
REFERS = (("claims",), ("published",))  # keys of a suite that name its variants

Key = tuple[str, ...]


class PlacedError(ConfigError):
    """A line that names its file already."""


@dataclass(frozen=True)
class Layer:
    """What one file gives, and under which key of the study that stands."""

    file: Path
    at: Key
    data: dict[str, Any]

    def depth(self, key: Key) -> int:
        """How many words of a key are found in this file, those of its place too; 0 where its place
        is another."""
        if key[: len(self.at)] != self.at:
            return 0
        node: Any = self.data
        for depth, word in enumerate(key[len(self.at) :], len(self.at)):
            if not isinstance(node, dict) or word not in node:
                return depth
            node = node[word]
        return len(key)


@dataclass
class Composed:
    """The whole settings of a study, the files that they come from (what counts most last), and
    what follows from none of them."""

    path: Path
    data: dict[str, Any]
    layers: list[Layer]
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """Names of the files that were read, the study's own first; inside the project from its
        root on."""
        files = dict.fromkeys(layer.file for layer in reversed(self.layers))
        return [_project_name(file) for file in files]

    def given(self, key: str) -> set[str]:
        """The keys of a mapping that stand in the study's own file."""
        return set(self.layers[-1].data.get(key) or {})

    def placed(self, message: str) -> str:
        """A message about a key with the file in front that holds it."""
        key = _key_of(message, self.data)
        layer = self._holder(key)
        if layer is None or layer.file == self.path:
            return f"{self.path}: {message}"
        if self._takes_away(key):
            return f"{self.path}: {message} (that stands in {_near(layer.file)})"
        inside = message.removeprefix("".join(f"{word}." for word in layer.at))
        return f"{_near(layer.file)}: {inside} (read for {self.path})"

    def _takes_away(self, key: Key) -> bool:
        """Whether a key of another file names what the study's own file may have left out, a suite
        or variants, or a variant that its own bases change: it is right there, and wrong here."""
        own = self.layers[-1].data
        if key[2:3] == ("variants",) and len(key) == 4 and own.get("bases"):
            return True
        if key[2:3] == ("tuned_on",):
            return own.get("take") is not None
        if key[2:3] not in REFERS:
            return False
        changes = (own.get("suites") or {}).get(key[1]) or {}
        return None in (changes.get("variants") or {}).values()

    def _holder(self, key: Key) -> Layer | None:
        """The last layer that holds a key, or most of its words; None for no key at all."""
        depths = [layer.depth(key) for layer in self.layers]
        if not any(depths):
            return None
        return next(layer for layer in reversed(self.layers) if layer.depth(key) == max(depths))


def compose(path: str | Path, above: tuple[Path, ...] = ()) -> Composed:
    """Read a study with all that it names. Raises ConfigError, one line with file, key and remedy.

    above: the studies that start from this one, outermost first.
    """
    path = Path(path)
    try:
        data = read_yaml(path)
        given = {key: data[key] for key in Composition.model_fields if key in data}
        asked = validated(Composition, given)
        parent = _parent(path, asked.like, above) if asked.like is not None else None
        whole, notes = _settings(data, parent)
        suites, layers = _suites(path, data, asked, parent)
    except PlacedError:
        raise
    except ConfigError as error:
        raise PlacedError(one_line(f"{path}: {error}")) from None
    if suites is not None:
        whole["suites"] = suites
    before = parent.layers if parent else []
    return Composed(path, whole, [*before, *layers, Layer(path, (), data)], notes)


def differ(one: Path, other: Path) -> bool:
    """Whether two study files are not copies of one: other words, or other settings by what they
    name. Raises ConfigError."""
    return one.read_bytes() != other.read_bytes() or compose(one).data != compose(other).data


# ---------------------------------------------------------------- a study like another


def _parent(path: Path, like: str, above: tuple[Path, ...]) -> Composed:
    """The study that another one starts from. Raises ConfigError."""
    studies = (*above, Path(os.path.realpath(path)))
    place = _place_of_study(path, like)
    if Path(os.path.realpath(place)) in studies:
        raise ConfigError(f"like: {like!r}: a study that starts from this one; name another")
    if len(studies) == MOST_STUDIES:
        raise ConfigError(
            f"like: {like!r}: {MOST_STUDIES} studies in a row are the most; write more out"
        )
    return compose(place, studies)


def _place_of_study(path: Path, like: str) -> Path:
    """The file of a study by its name in workflows/config, or by a path from the file that says
    it."""
    if like.endswith(ENDINGS) or "/" in like:
        place = within_reach(path.parent / place_of(like, "like"), "like")
        if not place.is_file():
            raise ConfigError(f"like: no file at {like}, seen from {path.parent}; change the path")
        return place
    names = [file.stem for file in CONFIG.glob("*.yaml")]
    if like not in names:
        raise ConfigError(f"like: {unknown('study', like, names)}; a path ends with .yaml")
    return CONFIG / f"{like}.yaml"


def _settings(data: dict[str, Any], parent: Composed | None) -> tuple[dict[str, Any], list[str]]:
    """A study's settings but its suites, over those of its parent, and what to say of them."""
    own = {
        key: value
        for key, value in data.items()
        if key not in ("suites", *Composition.model_fields)
    }
    if parent is None:
        return own, []
    below = {key: value for key, value in parent.data.items() if key not in ("study", "suites")}
    _check_own_data(own, below, parent)
    if "dataset" in own:
        del below["dataset"]
    whole = merged(below, own)
    if "features" in own:
        whole["features"] = _extractors(own["features"], below.get("features"))
    return whole, fitted(whole, own, parent.data, _near(parent.path))


def _extractors(own: Any, below: Any) -> Any:
    """Extractors over those of another study: a list replaces them; a mapping changes the first, or
    replaces one of another kind, and leaves the others."""
    if not isinstance(own, dict):
        return own
    if isinstance(below, list) and below:
        return [_extractors(own, below[0]), *below[1:]]
    return own if _another_kind(own, below) else merged(below, own)


def _another_kind(own: Any, below: Any) -> bool:
    """Whether features are extracted by another kind of network: its settings mean nothing here."""
    if not (isinstance(own, dict) and isinstance(below, dict)):
        return False
    return bool(own.get("kind", below.get("kind")) != below.get("kind"))


def _check_own_data(own: dict[str, Any], below: dict[str, Any], parent: Composed) -> None:
    """What a study of other data must say itself. Raises ConfigError."""
    if "dataset" not in own:
        return
    features, name = own.get("features"), below.get("study", parent.path.stem)
    if not (isinstance(features, list) or (isinstance(features, dict) and "name" in features)):
        raise ConfigError(
            f"features.name: is missing; with a dataset of its own a study names its own "
            f"extractor, not that of {name}"
        )
    if below.get("reduced") is not None and "reduced" not in own:
        raise ConfigError(
            f"reduced: is missing; that of {name} speaks of its own dataset: say what is cut "
            f"here, or null"
        )


# ---------------------------------------------------------------- suites


def _suites(
    path: Path, data: dict[str, Any], asked: Composition, parent: Composed | None
) -> tuple[Any, list[Layer]]:
    """The suites of a study in their order, those that it takes first, and the files read for them.
    Raises ConfigError."""
    own = data.get("suites", {})
    inherited = parent.data.get("suites", {}) if parent else {}
    names = inherited if asked.take is None else asked.take
    suites, layers = {}, []
    for name in names:
        if name in inherited:
            suites[name] = inherited[name]
            continue
        file = _suite_file(path, name, inherited)
        suites[name] = _read_suite(file)
        layers.append(Layer(file, ("suites", name), suites[name]))
    if not isinstance(own, dict):
        return own, layers  # the schema says what it should be
    for name, suite in own.items():
        if name not in suites:
            _check_whole(path, name, suite)
        suites[name] = changed(suites[name], suite, f"suites.{name}.") if name in suites else suite
    if not suites:
        legal = ", ".join(sorted(_suite_names(path)))
        raise ConfigError(
            f"suites: is missing; take some, such as take: [main] (there are: {legal}), or give "
            f"your own"
        )
    return suites, layers


def _folders(path: Path) -> list[Path]:
    """Where suite files of a study lie: beside it, and in the project."""
    return list(dict.fromkeys([path.absolute().parent / "suites", CONFIG / "suites"]))


def _suite_names(path: Path) -> set[str]:
    return {file.stem for folder in _folders(path) for file in folder.glob("*.yaml")}


def _suite_file(path: Path, name: str, inherited: dict[str, Any]) -> Path:
    for folder in _folders(path):
        if (file := folder / f"{name}.yaml").is_file():
            return file
    raise ConfigError(f"take: {unknown('suite', name, _suite_names(path) | set(inherited))}")


def _read_suite(file: Path) -> dict[str, Any]:
    try:
        return read_yaml(file)
    except ConfigError as error:
        raise PlacedError(one_line(f"{_near(file)}: {error}")) from None


def _check_whole(path: Path, name: str, suite: Any) -> None:
    """Refuse changes of a suite that is not taken. Raises ConfigError."""
    if not isinstance(suite, dict) or name not in _suite_names(path):
        return
    if missing := [key for key in ("claim", "variants") if key not in suite]:
        raise ConfigError(
            f"suites.{name}: lacks {' and '.join(missing)}; to change the suite of that name, add "
            f"{name} to take"
        )


def changed(suite: Any, change: Any, at: str) -> Any:
    """A suite with changes: merged deeply, but for a variant that is null, which goes.
    Raises ConfigError for one that is not there."""
    variants = change.get("variants") if isinstance(change, dict) else None
    if not isinstance(variants, dict) or not isinstance(suite.get("variants"), dict):
        return merged(suite, change)
    gone = [name for name, entry in variants.items() if entry is None]
    for name in gone:
        if name not in suite["variants"]:
            words = unknown("variant", name, suite["variants"])
            raise ConfigError(f"{at}variants.{name}: null removes a variant, but: {words}")
    whole = merged(suite, change)
    kept = {name: entry for name, entry in whole["variants"].items() if name not in gone}
    return {**whole, "variants": kept}


# ---------------------------------------------------------------- where a key stands

AFTER_A_KEY = ".:, (["
WHOLE = " (delta and base)."  # of a variant: its settings come from its delta, its grid or its base


def _key_of(message: str, data: dict[str, Any]) -> Key:
    """The words of the key that a message begins with, as far as a study has them. A word may hold
    dots and blanks itself, as in suites.main.variants.SDD top-p.delta.sampler.top_p."""
    words: list[str] = []
    node: Any = data
    rest = message
    while (word := _first_word(rest, node)) is not None:
        node, rest = node[word], rest[len(word) :].removeprefix(".")
        words.append(word)
    _, whole, setting = message.partition(WHOLE)
    if whole and words[:1] == ["suites"]:
        return _key_of_setting(setting, node, tuple(words), data)
    return tuple(words)


def _first_word(text: str, node: Any) -> str | None:
    """The longest key of a mapping that a text begins with; None where there is none."""
    if not isinstance(node, dict):
        return None
    ends = {word: text[len(word) : len(word) + 1] for word in node if text.startswith(word)}
    return max((word for word, end in ends.items() if end in AFTER_A_KEY), key=len, default=None)


def _key_of_setting(setting: str, entry: Any, at: Key, data: dict[str, Any]) -> Key:
    """Where a variant's setting stands: in its grid, its delta, or its base."""
    if not isinstance(entry, dict):
        return at
    for part in ("grid", "delta"):
        if (word := _first_word(setting, entry.get(part))) is not None:
            return (*at, part, word)
    # of a check of several settings the message begins with their section, and names most of them
    section, words = setting.partition(":")[0], set(re.findall(r"\w+", setting))
    inside = [
        (part, key)
        for part in ("grid", "delta")
        for key in entry.get(part) or {}
        if str(key).rpartition(".")[0] == section
    ]
    if inside:
        return (*at, *min(inside, key=lambda one: one[1].rpartition(".")[2] not in words))
    return _key_of(f"bases.{entry.get('base')}.{setting}", data)


def _near(path: Path) -> str:
    """A path as the user would write it: from where he is, if it lies below."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _project_name(path: Path) -> str:
    path = path.absolute()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
