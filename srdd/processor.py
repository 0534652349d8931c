"""Who made this machine's processor. Imports no torch."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

MAKERS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD"}
CPUINFO = Path("/proc/cpuinfo")


@cache
def maker() -> str | None:
    """Intel or AMD, which decides the library that multiplies matrices of VAR (arXiv 2404.02905) on
    a CPU; None for others, and where the system does not say."""
    try:
        about = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # only Linux has it
        about = platform.processor()
    return next((name for word, name in MAKERS.items() if word in about), None)
