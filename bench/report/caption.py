"""What stands under a figure or table, and how it is written. Imports no torch.

A caption has two parts. Its text says what is drawn and how to read it, and nothing else. Its
details say the rest, one thought each: claim and verdicts, settings, seeds, evaluator, machine,
samplers, floors, validity. A report shows the text and folds the details away.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from ..study import escaping

MOST_WORDS = 60  # of a text


def _in_one_line(words: str) -> str:
    return " ".join(words.split())


@dataclass(frozen=True)
class Caption:
    """Text of at most 60 words, and details that a report folds away.

    Both are reStructuredText; what a study names passes `escaping.rst` first. Details that are
    empty, or said before, are left out.
    """

    text: str
    details: Iterable[str] = ()

    def __post_init__(self) -> None:
        details = [_in_one_line(detail) for detail in self.details]
        object.__setattr__(self, "text", _in_one_line(self.text))
        object.__setattr__(self, "details", tuple(dict.fromkeys(filter(None, details))))

    @classmethod
    def of(cls, words: Caption | str) -> Caption:
        """A caption, or plain words as one without details."""
        return words if isinstance(words, Caption) else cls(words)

    @property
    def too_long(self) -> str | None:
        """Why the text cannot stand under a figure; None where it can."""
        count = len(self.text.split())
        if count <= MOST_WORDS:
            return None
        return (
            f"a caption whose text has {count} words; {MOST_WORDS} are the most, "
            "the rest belongs into its details"
        )

    @property
    def whole(self) -> str:
        """Text and details as one."""
        return " ".join(filter(None, (self.text, *self.details)))

    def __contains__(self, words: str) -> bool:
        return words in self.whole

    def rst(self) -> str:
        """Text, then details folded: an HTML report shows them at a click; where HTML in
        reStructuredText is refused they are a list."""
        if not self.details:
            return f"{self.text}\n"
        opening = "<details><summary>Details</summary>"
        parts = [
            self.text,
            _raw_html(opening),
            *_list_of("* ", self.details),
            _raw_html("</details>"),
        ]
        return "\n\n".join(parts) + "\n"

    def markdown(self) -> str:
        """Text, then details folded as GitHub shows them."""
        text = _markdown(self.text)
        if not self.details:
            return f"{text}\n"
        items = "\n".join(_list_of("- ", map(_markdown, self.details)))
        return f"{text}\n\n<details><summary>Details</summary>\n\n{items}\n\n</details>\n"


def _raw_html(html: str) -> str:
    return ".. raw:: html\n\n" + textwrap.indent(html, "   ")


def _list_of(mark: str, items: Iterable[str]) -> list[str]:
    return [mark + item for item in items]


def _markdown(rst: str) -> str:
    """reStructuredText of one line as markdown."""
    return escaping.markdown(escaping.plain(rst))
