"""What lies in a folder of images: classes, parts of a split, and what is left out and why.

Imports no torch.

Understood: class folders, or none where the study has no classes, below the root or below train/,
val/ and test/. With train/ and one of val/ and test/, that one is held out, as for ImageNet.
Anything else is refused by name: nothing is guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..study.contents import IMAGE_SUFFIXES, children, walk
from ..study.errors import ConfigError, shown

# what users call the parts of a split, by what they are here
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
# what others call them: never the name of all classes
OTHER_PARTS = (
    "training",
    "training_set",
    "train_set",
    "testing",
    "test_set",
    "val_set",
    "validation_set",
    "dev",
    "eval",
    "holdout",
)
# train2017, seg_test and the like: names of parts where all names hold such a word, and not all the
# same
PART_WORD = re.compile(r"(?<![a-z])(train|val|valid|validation|test)(?:ing)?(?![a-z])")
NAMED = 8  # names that a message lists


@dataclass(frozen=True)
class ImageFolder:
    """Images of a folder by part: `whole` where nothing is split yet, else train, test and perhaps
    val.

    parts: for each part its paths and labels; classes: names in order of their labels, none without
    classes.
    """

    root: Path
    classes: list[str]
    parts: dict[str, tuple[list[Path], list[int]]]
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def below(self) -> int:
        """Images that lie in sub-folders of their class folder."""
        if not self.classes:
            return 0
        return sum(
            path.parent.name != self.classes[label]
            for paths, labels in self.parts.values()
            for path, label in zip(paths, labels)
        )


def listed(names: list[str]) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(shown, names[:NAMED])) + more


def skipped_words(skipped: Counter[str]) -> str:
    """What was left out and why, as `3 hidden, 300 .tif`."""
    return ", ".join(f"{count} {why}" for why, count in sorted(skipped.items()) if count)


def in_order(names: list[str]) -> list[str]:
    """Class names in the order of their labels: numbers as numbers, so that 2 comes before 10, else
    by name."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def read_folder(root: Path, num_classes: int) -> ImageFolder:
    """Find the images of a folder.

    Raises ConfigError, one line that names the folder and what is not understood.
    """
    skipped: Counter[str] = Counter()
    at_root: Counter[str] = Counter()
    folders, files = children(root, at_root)
    parts = _parts_of(root, folders, num_classes)
    if parts is None:
        parts = {"whole": root}
    else:
        at_root["loose image outside of the parts"] += len(_images(files, at_root))
        skipped += at_root
    if num_classes == 0:
        images = {part: _without_classes(place, skipped) for part, place in parts.items()}
        return ImageFolder(root, [], images, skipped)
    own = parts.get("train", root)
    classes = _classes_of(own, num_classes, skipped)
    images = {part: _with_classes(place, classes, own, skipped) for part, place in parts.items()}
    return ImageFolder(root, classes, images, skipped)


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _images(files: list[Path], skipped: Counter[str]) -> list[Path]:
    """The files that are read; others are counted by their suffix."""
    images = []
    for path in files:
        if _is_read(path):
            images.append(path)
        else:
            skipped[shown(path.suffix.lower()) or "without suffix"] += 1
    return images


def _all_images(folder: Path, skipped: Counter[str]) -> list[Path]:
    return _images(list(walk(folder, skipped)), skipped)


def _holds_images(folder: Path) -> bool:
    return any(map(_is_read, walk(folder, Counter())))


def _holds_own_images(folder: Path) -> bool:
    return any(map(_is_read, children(folder, Counter())[1]))


def _named_as_parts(folders: list[Path]) -> bool:
    """Whether all folders are called after parts of a split, and not all after one."""
    words = [word for path in folders if (word := PART_WORD.search(path.name.lower()))]
    return len(words) == len(folders) and len({PARTS[word[1]] for word in words}) > 1


def _parts_of(root: Path, folders: list[Path], num_classes: int) -> dict[str, Path] | None:
    """Folders of the split by part; None where the root has none.

    Raises ConfigError for a split that is not understood.
    """
    named = [path for path in folders if path.name.lower() in PARTS]
    others = [path for path in folders if path not in named]
    train = [path for path in named if path.name.lower() == "train"]
    words = {*PARTS, *OTHER_PARTS}
    if not train or (
        num_classes and _holds_own_images(train[0]) and any(map(_holds_own_images, others))
    ):
        # a class may be called train or test; all classes may not
        if folders and (
            all(path.name.lower() in words for path in folders) or _named_as_parts(folders)
        ):
            raise ConfigError(
                f"dataset.path: {shown(root)} holds {listed([path.name for path in folders])}, "
                "which looks like parts of a split; "
                "call them train and test (or val), each with the class folders in it"
            )
        return None
    parts: dict[str, Path] = {}
    for path in named:
        part = PARTS[path.name.lower()]
        if part in parts:
            raise ConfigError(
                f"dataset.path: {shown(root)} holds both {shown(parts[part].name)} and "
                f"{shown(path.name)}; keep one for the part {part}"
            )
        parts[part] = path
    if odd := [path.name for path in others if _holds_images(path)]:
        raise ConfigError(
            f"dataset.path: {shown(root)} holds train and also {listed(odd)} with images; "
            "a split has train, val (valid, validation) and test: rename it or move it away"
        )
    if (
        "test" not in parts and "val" in parts
    ):  # as ImageNet has it: its val part is what is held out
        parts["test"] = parts.pop("val")
    if len({path.resolve() for path in parts.values()}) < len(parts):
        raise ConfigError(
            f"dataset.path: {shown(root)}: two parts of the split are links to one folder"
        )
    return parts


def _without_classes(place: Path, skipped: Counter[str]) -> tuple[list[Path], list[int]]:
    paths = _all_images(place, skipped)
    return paths, [0] * len(paths)


def _classes_of(own: Path, num_classes: int, skipped: Counter[str]) -> list[str]:
    """Names of the class folders, checked: each holds images of its own, and there are as many as
    the study says."""
    folders, files = children(own, Counter())
    _refuse_nested(own, folders)
    _refuse_twins(own, folders)
    empty = []
    for folder in folders:
        if not _holds_images(folder):
            left_out: Counter[str] = Counter()
            _all_images(folder, left_out)
            why = f" (left out: {skipped_words(left_out)})" if any(left_out.values()) else ""
            empty.append(f"{shown(folder.name)}{why}")
    if empty:
        raise ConfigError(
            f"dataset.path: no image that is read ({' '.join(IMAGE_SUFFIXES)}) in class "
            f"{', '.join(empty[:NAMED])} of {shown(own)}; "
            "convert the images or remove the folder"
        )
    names = in_order([folder.name for folder in folders])
    _refuse_other_forms(own, names, own, names)
    if len(names) != num_classes:
        there = f": {listed(names)}" if names else ""
        loose = 0 if names else sum(map(_is_read, files))
        if loose:
            there = (
                f"; {loose} images lie in it: make a folder of each class, or set num_classes to 0"
            )
        raise ConfigError(
            f"dataset.num_classes: {num_classes} does not fit the {len(names)} class folders of "
            f"{shown(own)}{there}"
        )
    return names


def _refuse_nested(own: Path, folders: list[Path]) -> None:
    """Class folders that hold folders of images and no image of their own: the level above the
    classes was given."""
    nested = [
        folder for folder in folders if not _holds_own_images(folder) and _holds_images(folder)
    ]
    if not nested:
        return
    first = nested[0]
    inside = [child.name for child in children(first, Counter())[0]]
    raise ConfigError(
        f"dataset.path: {listed([folder.name for folder in nested])} of {shown(own)} hold folders "
        f"({listed(inside)}) and no image of "
        "their own; give the folder whose sub-folders are the classes, or call the parts of a "
        "split train and test (or val)"
    )


def _refuse_twins(own: Path, folders: list[Path]) -> None:
    """Two classes that are one folder, by a link."""
    seen: dict[Path, str] = {}
    for folder in folders:
        real = folder.resolve()
        if real in seen:
            raise ConfigError(
                f"dataset.path: classes {shown(seen[real])} and {shown(folder.name)} of "
                f"{shown(own)} are links to one folder; keep one"
            )
        seen[real] = folder.name


def _refuse_other_forms(place: Path, names: list[str], own: Path, classes: list[str]) -> None:
    """Raises ConfigError for a class that is the same word as another in other characters: two
    systems write an accented letter as one character or as two, and both look alike."""
    words = {unicodedata.normalize("NFC", name): name for name in classes}
    for name in names:
        other = words.get(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise ConfigError(
                f"dataset.path: class {shown(name)} of {shown(place)} and class {shown(other)} of "
                f"{shown(own)} are one word in two Unicode forms, {ascii(name)} and "
                f"{ascii(other)}; rename one as the other"
            )


def _with_classes(
    place: Path, classes: list[str], own: Path, skipped: Counter[str]
) -> tuple[list[Path], list[int]]:
    """Images and labels of one part.

    Raises ConfigError for a class that the training part lacks, or that this part lacks.
    """
    folders, files = children(place, skipped)
    skipped["loose image beside the class folders"] += len(_images(files, skipped))
    there = {folder.name for folder in folders}
    _refuse_other_forms(place, [folder.name for folder in folders], own, classes)
    if strange := [folder.name for folder in folders if folder.name not in classes]:
        raise ConfigError(
            f"dataset.path: class {listed(strange)} of {shown(place)} is not in {shown(own)}: no "
            "image of it can be trained on"
        )
    if lacking := [name for name in classes if name not in there]:
        raise ConfigError(
            f"dataset.path: no class folder {listed(lacking)} in {shown(place)}, which "
            f"{shown(own)} has"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        of_class = _all_images(place / name, skipped)
        paths += of_class
        labels += [label] * len(of_class)
    return paths, labels
