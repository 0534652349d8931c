"""Sample images: what their figures read."""

from __future__ import annotations

NEEDS = {name: ("scores", "convergence") for name in ("figure_samples", "figure_growth")}
