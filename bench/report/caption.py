"""What stands under a figure or table. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

MOST_WORDS = 60  # under a figure: what is drawn and how to read it


@dataclass(frozen=True)
class Caption:
    """What is drawn and how to read it, in at most 60 words, and details that a report folds away.

    details: settings, seeds, machine, verdicts, one thought each; empty ones are left out.
    """

    text: str
    details: tuple[str, ...] = ()

    @classmethod
    def of(cls, words: Caption | str) -> Caption:
        """A caption, or plain words as one."""
        return words if isinstance(words, Caption) else cls(words)

    @property
    def too_long(self) -> str | None:
        """Why the text cannot stand under a figure; None where it can."""
        count = len(self.text.split())
        if count <= MOST_WORDS:
            return None
        return f"caption of {count} words; {MOST_WORDS} are the most, the rest belongs into its details"

    @property
    def whole(self) -> str:
        """Text and details as one."""
        return " ".join(" ".join(filter(None, (self.text, *self.details))).split())
