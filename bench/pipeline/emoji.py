"""Emoji in three drawing styles: 9 classes, split by what an emoji means and not by file.

Drawn from the files of bench/study/emoji_files.py: Noto Color Emoji, Fluent 3D and Twemoji, with
the groups of Unicode's emoji list as classes. One concept (a farmer of any gender, in any style)
lies on one side; test images that nearly equal one that is trained on are dropped.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..runtime.rows import written_whole
from ..study.emoji_files import (
    COMMAND,
    FLUENT,
    FONT,
    LIST,
    SIZES,
    TWITTER,
    Source,
    absent,
    images_file,
)
from ..study.errors import ConfigError
from .splits import share_of

if TYPE_CHECKING:
    from fontTools.ttLib import TTFont

Sequence = tuple[int, ...]  # code points of an emoji, without the mark that asks for colour

COLOUR, JOINER, FEMALE, MALE = 0xFE0F, 0x200D, 0x2640, 0x2642
TONES = frozenset(range(0x1F3FB, 0x1F400))
ADULTS, PERSON = frozenset({0x1F468, 0x1F469, 0x1F9D1}), 0x1F9D1
# digits in a box, plain shapes, clock faces and families: nothing that a class could be told by
LEFT_OUT = frozenset({"keycap", "geometric", "time", "family"})
CLASSES = {
    "Activities": "Activities",
    "Animals & Nature": "Animals",
    "Flags": "Flags",
    "Food & Drink": "Food",
    "Objects": "Objects",
    "People & Body": "People",
    "Smileys & Emotion": "Smileys",
    "Symbols": "Symbols",
    "Travel & Places": "Travel",
}
SIDES = ("train", "val", "test", "dropped")
TEST_SHARE, VAL_SHARE = 0.2, 0.05
NEAR = 10.0  # root mean square of the levels of 16 x 16 pixels: nearer images are one drawing
LIGATURES = 4  # the type of an OpenType table that joins glyphs
# sha256 of images, labels and sides, by size: what this set is known by
CONTENT = {
    32: "d74c3fbdedf3f00862c121dc56fa0ef37ad73325fa32a26d9176210dc5a8eb38",
    64: "f9de3475a47b72691fb3fd7f1c5b94a7fa5390b5d65917f34a7c78acb3040e00",
}


# ---------------------------------------------------------------- classes


def listed(text: str) -> dict[Sequence, str]:
    """The group of each fully-qualified emoji of Unicode's emoji-test.txt, without skin tones and
    the subgroups that are left out."""
    groups: dict[Sequence, str] = {}
    group = subgroup = ""
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif "; fully-qualified" in line and subgroup not in LEFT_OUT:
            key = _sequence(line.split(";")[0].split())
            if not TONES & set(key):
                groups[key] = group
    return groups


def _sequence(words: list[str]) -> Sequence:
    """Code points from hexadecimal words. Raises ValueError for a word that is none."""
    return _uncoloured(int(word, 16) for word in words)


def _uncoloured(codes: Any) -> Sequence:
    return tuple(code for code in codes if code != COLOUR)


# ---------------------------------------------------------------- drawings


def of_font(data: bytes) -> dict[Sequence, bytes]:
    """The PNG of each emoji that a colour bitmap font (CBDT) draws, by its code points."""
    from fontTools.ttLib import TTFont

    font = TTFont(io.BytesIO(data))
    strike = font["CBDT"].strikeData[0]
    glyphs = {**{(code,): glyph for code, glyph in font.getBestCmap().items()}, **_joined(font)}
    return {key: strike[glyph].imageData for key, glyph in glyphs.items() if glyph in strike}


def _joined(font: TTFont) -> dict[Sequence, str]:
    """The glyphs that several code points make together."""
    code_of: dict[str, int] = {}
    for code, glyph in font.getBestCmap().items():
        code_of.setdefault(glyph, code)
    glyphs = {}
    for first, ligature in _ligatures(font):
        codes = (code_of[glyph] for glyph in (first, *ligature.Component))
        glyphs[_uncoloured(codes)] = ligature.LigGlyph
    return glyphs


def _ligatures(font: TTFont) -> Iterator[tuple[str, Any]]:
    """The first glyph of each ligature of a font, and the ligature."""
    for lookup in font["GSUB"].table.LookupList.Lookup:
        if lookup.LookupType == LIGATURES:
            for table in lookup.SubTable:
                for first, ligatures in table.ligatures.items():
                    yield from ((first, ligature) for ligature in ligatures)


def of_archive(data: bytes, folder: str, ending: str) -> dict[Sequence, bytes]:
    """Images of a package of npm that lie right below a folder and are named by their code points,
    such as 1f468-200d-1f33e.png."""
    pattern = re.compile(
        rf"{re.escape(folder)}/([0-9a-f]+(?:-[0-9a-f]+)*){re.escape(ending)}", re.IGNORECASE
    )
    named: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member in archive:
            match = pattern.fullmatch(member.name)
            content = archive.extractfile(member) if match else None
            if match and content:
                named[match[1] + ending] = content.read()
    # of two spellings of one emoji that without the mark of colour counts, which is the later
    return {_sequence(name.removesuffix(ending).split("-")): named[name] for name in sorted(named)}


def draw(data: bytes, size: int) -> np.ndarray:
    """An image file on a white square, resized by LANCZOS: uint8 of shape (size, size, 3)."""
    with Image.open(io.BytesIO(data)) as file:
        image = file.convert("RGBA")
    side = max(image.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 255))
    square.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
    resized = square.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8)


def drawn(files: list[bytes], size: int) -> np.ndarray:
    """Image files as `draw` gives them: uint8 of shape (N, size, size, 3)."""
    return np.stack([draw(data, size) for data in files])


# ---------------------------------------------------------------- split


def concept(key: Sequence) -> str:
    """What an emoji means, without gender: equal for all styles of a drawing and for its man, woman
    and person."""
    left_out = (JOINER, FEMALE, MALE)
    return "-".join(f"{PERSON if c in ADULTS else c:x}" for c in key if c not in left_out)


def side_of(key: Sequence) -> str:
    """`train`, `val` or `test`, by a hash of the concept."""
    meaning = concept(key).encode()
    if share_of(meaning, "test") < TEST_SHARE:
        return "test"
    return "val" if share_of(meaning, "val") < VAL_SHARE else "train"


def without_near(sides_N: np.ndarray, small_ND: np.ndarray) -> np.ndarray:
    """Sides on which no test image lies near one of another side: those are dropped.

    sides_N: indices of SIDES; small_ND: levels of small images. Sums of squares of levels are whole
    numbers below 2^53, hence exact on every machine.
    """
    sides_N, test = sides_N.copy(), sides_N == SIDES.index("test")
    held_out, others = small_ND[test].astype(np.float64), small_ND[~test].astype(np.float64)
    squares = (held_out**2).sum(1)[:, None] + (others**2).sum(1) - 2 * held_out @ others.T
    nearest = np.sqrt(squares.min(1, initial=np.inf) / small_ND.shape[1])
    sides_N[np.flatnonzero(test)[nearest < NEAR]] = SIDES.index("dropped")
    return sides_N


def _small(image: np.ndarray) -> np.ndarray:
    resized = Image.fromarray(image).resize((16, 16), Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8).ravel()


# ---------------------------------------------------------------- the whole set


def drawings(files: dict[Source, Path]) -> list[tuple[Sequence, str, bytes]]:
    """Code points, class and image file of each emoji: style by style, in order of code points."""
    groups = listed(files[LIST].read_text(encoding="utf-8"))
    styles = (
        of_font(files[FONT].read_bytes()),
        of_archive(files[FLUENT].read_bytes(), "package/assets", ".webp"),
        of_archive(files[TWITTER].read_bytes(), "package/img/twitter/64", ".png"),
    )
    rows = []
    for style in styles:
        rows += [(key, CLASSES[groups[key]], style[key]) for key in sorted(style.keys() & groups)]
    return rows


def arrays(files: dict[Source, Path]) -> dict[int, dict[str, np.ndarray]]:
    """Images (N, 3, S, S), labels and sides of all emoji, by their size S."""
    rows, names = drawings(files), list(CLASSES.values())
    labels_N = np.array([names.index(name) for _, name, _ in rows], np.int64)
    contents = [data for *_, data in rows]
    images = {size: drawn(contents, size) for size in SIZES}
    sides_N = np.array([SIDES.index(side_of(key)) for key, *_ in rows], np.uint8)
    sides_N = without_near(sides_N, np.stack([_small(image) for image in images[max(SIZES)]]))
    return {
        size: {"images": images[size].transpose(0, 3, 1, 2), "labels": labels_N, "sides": sides_N}
        for size in SIZES
    }


def content_of(parts: dict[str, np.ndarray]) -> str:
    """One sum of images, labels and sides."""
    digest = hashlib.sha256()
    for name in ("images", "labels", "sides"):
        digest.update(np.ascontiguousarray(parts[name]).tobytes())
    return digest.hexdigest()


def write_emoji(files: dict[Source, Path]) -> dict[int, Path]:
    """Draw all emoji into one file a size. Raises ConfigError where they are not those that this
    set is known by."""
    from safetensors.numpy import save

    written = {}
    for size, parts in arrays(files).items():
        if content_of(parts) != CONTENT[size]:
            raise ConfigError(
                f"emoji: the images of {size} pixels come out other than they should; install "
                "pillow and fonttools as requirements.txt says"
            )
        whole = {name: np.ascontiguousarray(part) for name, part in parts.items()}
        with written_whole(images_file(size)) as temporary:
            temporary.write_bytes(save(whole))
        written[size] = images_file(size)
    return written


def read_emoji(size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels by side, of the emoji that are not dropped. Raises ConfigError where they
    are not drawn yet, or are damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if size not in SIZES:
        raise ConfigError(f"dataset.image_size: {size}: emoji are drawn at 32 and 64 pixels alone")
    if problem := absent(size):
        raise ConfigError(f"dataset.name: emoji: {problem}")
    try:
        parts = load(images_file(size).read_bytes())
        whole = content_of(parts) == CONTENT[size]
    except (SafetensorError, KeyError):
        whole = False
    if not whole:
        raise ConfigError(
            f"dataset.name: emoji: {images_file(size)} is damaged; run `{COMMAND}` again"
        )
    on_side = {name: parts["sides"] == i for i, name in enumerate(SIDES[:3])}
    return {name: (parts["images"][on], parts["labels"][on]) for name, on in on_side.items()}
