"""Whether torch.compile can work here, for VAR and all others: its C++ compiler is given paths that
a space tears apart."""

from __future__ import annotations

from pathlib import Path

import torch


def check_compiler(device: torch.device) -> None:
    """Refuse to compile for a CPU where torch lies below a folder whose name holds a space (PyTorch
    2, ASPLOS 2024).

    Raises ValueError, one line with the folder and what to do.
    """
    place = Path(torch.__file__).resolve().parent
    if device.type == "cpu" and any(letter.isspace() for letter in str(place)):
        raise ValueError(
            f"compile: torch's compiler cannot work from {str(place)!r}, whose name holds a space; "
            "set compile to false, or move the project's environment"
        )
