"""Text from a study where markup is read: reStructuredText of captions, markdown of tables. It
comes out as it was written.

Line breaks become blanks, and characters that nobody sees become their escapes. Imports nothing of
the project.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

# joiners that scripts need inside a word
JOINERS = "\u200c\u200d"
RST_INLINE = re.compile(
    r"[\\*`|{}<>]"  # emphasis, literals, substitutions; braces are read by jinja2 before
    r"|_(?![^\W_])|(?<![^\W_])_"  # references and targets
    r"|(?<=\{)[%#]"
    r"|(?<=:):"  # at the end of a paragraph: a literal block follows
    r"|@|(?<=[\w.+-]):(?=\S)"  # addresses, which would become links
)
# what makes a list of a paragraph: 1. a) (iv) #.
ENUMERATOR = re.compile(r"(\(?(?:[0-9]+|[a-zA-Z]|[ivxlcdmIVXLCDM]+|#))([.)])(?=\s|$)")
MD_INLINE = re.compile(
    r"[\\*`|<~$]|&(?=#?\w+;)|_(?![^\W_])|(?<![^\W_])_|!(?=\[)|\](?=[(\[:])"
    r"|(?<=https):(?=//)|(?<=http):(?=//)"
)
MD_START = re.compile(r"[#>+\-=](?=[\s#>+\-=]|$)")
MD_ENUMERATOR = re.compile(r"([0-9]{1,9})([.)])(?=\s|$)")


def visible(text: Any) -> str:
    """Text in one line; a character that is not seen, or that no file can hold, as its escape such
    as \\u200e."""
    shown = []
    for character in " ".join(str(text).split()):
        hidden = (
            unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co")
            and character not in JOINERS
        )
        shown.append(character.encode("unicode_escape").decode() if hidden else character)
    return "".join(shown)


def rst(text: Any) -> str:
    """Text from a study, harmless in reStructuredText and in a jinja2 template, wherever it stands
    in a caption."""
    shown = RST_INLINE.sub(r"\\\g<0>", visible(text))
    if ENUMERATOR.match(shown):
        return ENUMERATOR.sub(r"\1\\\2", shown, count=1)
    if set(shown) == {"\\"}:
        return f"\\ {shown}"  # a line of one character alone would be drawn as a rule
    # a line that begins with a letter or a figure begins no list, comment, field, table or title
    return shown if not shown or shown[0].isalnum() or shown[0] == "\\" else f"\\{shown}"


def sentence(text: Any) -> str:
    """Text from a study as a sentence of a caption: with one full stop, unless it asks or calls."""
    shown = visible(text).rstrip(".")
    return rst(shown if shown.endswith(("?", "!")) else f"{shown}.")


def plain(caption: str) -> str:
    """What a reader sees of a caption in reStructuredText."""
    return re.sub(r"\\(.)", lambda match: match[1].strip(), caption)


def cell(text: Any) -> str:
    """Text harmless in a cell of a markdown table, where no list or title can begin."""
    return MD_INLINE.sub(r"\\\g<0>", visible(text))


def markdown(text: Any) -> str:
    """Text harmless as a paragraph of markdown."""
    shown = cell(text)
    if MD_ENUMERATOR.match(shown):
        return MD_ENUMERATOR.sub(r"\1\\\2", shown, count=1)
    return f"\\{shown}" if MD_START.match(shown) else shown
