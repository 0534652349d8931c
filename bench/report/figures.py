"""The figures of a study, from its results alone.

`python -m bench figures ORIGIN TARGET [names...]`

A figure is a function `figure_<name>` of a room's show.py; it draws every variant that the suite
has. A number that is missing is named in red with the status of its run, never drawn as 0.
"""

from __future__ import annotations

from .drawing import write_figure
from .making import run_verb


def main() -> None:
    """Draw what the suites list, or what is named."""
    run_verb("figures", write_figure)
