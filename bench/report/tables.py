"""The tables of a study, from its results alone: `python -m bench tables ORIGIN TARGET [names...]`.

A table is a function `table_<name>` of a room's show.py.
"""

from __future__ import annotations

from .cells import write_table
from .making import run_verb


def main() -> None:
    """Write what the suites list, or what is named."""
    run_verb("tables", write_table)
