"""Names in figures: which characters the fonts of this machine can draw, and what stands for those
that they cannot."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from ..study.escaping import visible

FIRST = "sans-serif"  # DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic and more
# tried in this order for what the first one lacks, where they are installed
OTHERS = (
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "Symbola",
    "FreeSans",
    "Unifont",
    "Arial Unicode MS",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Segoe UI Symbol",
)


# they have a box for every character, or draw another one than is asked for
UNFIT = (
    *("Last Resort High-Efficiency", "Last Resort", "LastResort", "Unicode BMP Fallback SIL"),
    *("STIXNonUnicode", "cmb10", "cmex10", "cmmi10", "cmr10", "cmss10", "cmsy10", "cmti10"),
    "cmtt10",
)


@cache
def families() -> list[str]:
    """Font families of all figures, in the order in which a character is looked for."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return [FIRST, *(name for name in OTHERS if name in there)]


@cache
def covered() -> frozenset[int]:
    """Code points that these families can draw."""
    points: set[int] = set()
    for name in families():
        file = font_manager.findfont(font_manager.FontProperties(family=[name]))
        points |= FT2Font(file).get_charmap().keys()
    return frozenset(points)


lenders: list[str] = []  # families that drew what the usual ones lack


def _draws(file: str, point: int) -> bool:
    """Whether a font has an outline for a code point; bitmaps of colour fonts are none."""
    try:
        font = FT2Font(file)
        return point in font.get_charmap() and font.load_char(point).bbox[2] > 0
    except (OSError, RuntimeError):  # a font that FreeType cannot read or scale
        return False


@cache
def lends(character: str) -> bool:
    """Whether another font of this machine draws a character that these families lack; it joins
    `lenders`."""
    known = {*families(), *UNFIT}
    fonts = [font for font in font_manager.fontManager.ttflist if font.name not in known]
    for font in sorted(fonts, key=lambda font: (font.style != "normal", font.weight != 400)):
        if _draws(font.fname, ord(character)):
            lenders.append(font.name)
            return True
    return False


def _has(character: str) -> bool:
    return ord(character) in covered() or lends(character)


# names of which a part was escaped, by what is drawn instead: captions say what they are
stand_ins: dict[str, str] = {}

WORD = 12  # letters of a word that is not broken between lines


def drawable(text: Any) -> str:
    """Text in one line of characters that can be drawn; the others as escapes such as \\u4e2d,
    never as empty boxes."""
    name = unicodedata.normalize("NFC", visible(text))
    shown = "".join(c if _has(c) else c.encode("unicode_escape").decode() for c in name)
    if any(c.isprintable() and not _has(c) for c in name):
        stand_ins[shown] = name
    return shown


def is_drawable(text: Any) -> bool:
    """Whether these families can draw all of a text."""
    return all(_has(c) for c in unicodedata.normalize("NFC", visible(text)))


def names_of(texts: Iterable[str]) -> dict[str, str]:
    """Of names that were escaped those that stand in these texts, by what stands there."""
    # a break between lines may stand within a name
    unbroken = ["".join(text.split()) for text in texts]
    return {shown: name for shown, name in stand_ins.items() if _stands_in(shown, unbroken)}


def _stands_in(shown: str, unbroken: list[str]) -> bool:
    """Whether a name, without its spaces, is part of one of these texts."""
    name = "".join(_unread(shown).split())
    return any(name in text for text in unbroken)


def _unread(line: str) -> str:
    """A line that matplotlib reads neither as a formula nor as a name to be hidden."""
    shown = line.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def text(name: Any) -> str:
    """A name from a study as matplotlib shows it: drawable, no formula, and never hidden from a
    legend."""
    return _unread(drawable(name))


def wrapped(name: Any, letters: int) -> str:
    """The same in lines of so many letters; nothing is left out, and no word of usual length
    broken."""
    shown = drawable(name)
    longest = max((len(word) for word in shown.split()), default=1)
    return "\n".join(map(_unread, textwrap.wrap(shown, max(1, letters, min(longest, WORD)))))


def wrapped_into(lines: int, name: Any, letters: int) -> str:
    """`wrapped`, in at most so many lines: they hold more letters where they have to."""
    whole = len(drawable(name))
    for wider in range(letters, whole):
        shown = wrapped(name, wider)
        if shown.count("\n") < lines:
            return shown
    return wrapped(name, max(letters, whole))
