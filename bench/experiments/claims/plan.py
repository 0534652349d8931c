"""Claims: their table reads all suites."""

from __future__ import annotations

NEEDS: dict[str, tuple[str, ...]] = {"table_claims": ()}
