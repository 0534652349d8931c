"""Names in figures: which characters the fonts of this machine can draw, and what stands for those
that they cannot."""

from __future__ import annotations

import textwrap
import unicodedata
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


WORD = 12  # letters of a word that is not broken between lines


def drawable(text: Any) -> str:
    """Text in one line of characters that can be drawn; the others as escapes such as \\u4e2d,
    never as empty boxes."""
    shown = unicodedata.normalize("NFC", visible(text))
    return "".join(c if ord(c) in covered() else c.encode("unicode_escape").decode() for c in shown)


def is_drawable(text: Any) -> bool:
    """Whether these families can draw all of a text."""
    return all(ord(c) in covered() for c in unicodedata.normalize("NFC", visible(text)))


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
