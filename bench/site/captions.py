"""Captions of published figures and tables as HTML. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from docutils.core import publish_parts
from docutils.utils import SystemMessage
from markupsafe import Markup

SETTINGS = {
    "halt_level": 2,  # a warning is an error
    "report_level": 5,
    "warning_stream": False,
    "traceback": True,  # raise, print nothing
    "file_insertion_enabled": False,
    "raw_enabled": True,  # how a caption folds its details
    "syntax_highlight": "none",
}


def text_of(path: Path) -> str:
    """A text file. Raises ValueError, naming it, where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 ({error.reason}); publish it again") from None


def caption_of(path: Path) -> Markup:
    """A caption in reStructuredText as HTML. Raises ValueError, naming the file, where it is
    none."""
    try:
        parts = publish_parts(text_of(path), writer="html5", settings_overrides=SETTINGS)
    except SystemMessage as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{path}: is no reStructuredText ({why}); publish it again") from None
    return Markup(parts["body"])
